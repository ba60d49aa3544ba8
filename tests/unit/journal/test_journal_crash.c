/*
 * Power cuts on the simulated file system: at every write, sync, rename and allocate of a run that
 * rotates, with every model of what survives. The product's group, lane files and recovery are
 * driven here by one thread.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "journal/group.h"
#include "journal/lane_file.h"
#include "journal/recovery.h"
#include "journal/segment_map.h"

#define MAX_ENTRIES 400

struct staged {
    uint64_t lsn, seq, inode;
};

struct world {
    struct cfsr_fs *fs;
    struct cfsr_site site;
    struct cfsr_lane_file files;
    struct cfsr_commit_group group;
    bool open;
    struct staged staged[MAX_ENTRIES]; /* in the order of the lane */
    unsigned staged_count;
    unsigned acked_count; /* of them, a prefix */
    uint64_t touched_lsn; /* no byte at or above it was ever given to a write */
    uint64_t inode;
};

static void world_init(struct world *w, uint64_t seed)
{
    struct cfsr_fs_sim_options options = {.seed = seed, .capacity_bytes = 1ull << 30};

    memset(w, 0, sizeof *w);
    cr_assert(cfsr_fs_sim_create(&options, &w->fs) == 0);
    memset(w->site.cluster.bytes, 1, 16);
    memset(w->site.journal.bytes, 2, 16);
    w->site.site_id = 3;
    w->site.lanes = 1;
    w->site.shards = 2;
    w->site.segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    (void)snprintf(w->site.shard_function, sizeof w->site.shard_function, "parent-or-inode-mod");
    (void)snprintf(w->site.name, sizeof w->site.name, "a");
    (void)snprintf(w->site.data_dir, sizeof w->site.data_dir, "/data");
    cr_assert(cfsr_site_create(w->fs, &w->site) == 0, "%s", cfsr_error_message());
}

static int world_open(struct world *w)
{
    uint8_t block[CFSR_GROUP_BLOCK_BYTES];
    struct cfsr_lane_state state;
    int rc = cfsr_journal_recover_lane(w->fs, &w->site, 0, false, true, &state);

    if (rc < 0)
        return rc;
    rc = cfsr_lane_file_init(&w->files, w->fs, &w->site, 0, false, state.incarnation);
    if (rc == 0 && state.end_lsn % w->site.segment_bytes != 0)
        rc = cfsr_lane_file_resume(&w->files, state.end_lsn, block);
    if (rc == 0)
        rc = cfsr_group_init(&w->group, &w->site, 0, 1 << 20, &state, block);
    w->open = rc == 0;
    if (rc < 0)
        cfsr_lane_file_fini(&w->files);
    cfsr_lane_state_fini(&state);
    return rc;
}

/* crashed: the simulated files are gone with their world, only forget them. */
static void world_close(struct world *w)
{
    if (!w->open)
        return;
    cfsr_lane_file_fini(&w->files);
    cfsr_group_fini(&w->group);
    w->open = false;
}

static int write_group(struct world *w)
{
    struct cfsr_group_span span;
    int rc;

    cfsr_group_take(&w->group, 1000, &span);
    w->touched_lsn = span.zeroed_end_lsn > w->touched_lsn ? span.data_end_lsn : w->touched_lsn;
    rc = cfsr_lane_file_write(&w->files, &span);
    cfsr_group_done(&w->group);
    if (rc == 0)
        w->acked_count = w->staged_count;
    return rc;
}

static int act(struct world *w, int answer)
{
    bool stalled;
    int rc;

    if (answer == CFSR_GROUP_NEED_FLUSH)
        return write_group(w);
    rc = cfsr_lane_file_rotate(&w->files, cfsr_group_end_lsn(&w->group), 1000, &stalled);
    if (rc == 0)
        cfsr_group_segment_opened(&w->group);
    return rc;
}

static int stage_one(struct world *w, uint32_t payload_bytes)
{
    static uint8_t payload[1 << 20];
    struct cfsr_entry entry = {.inode = ++w->inode,
                               .op = CFSR_OP_WRITE,
                               .payload = payload,
                               .payload_bytes = payload_bytes};
    struct cfsr_entry_position position;
    int rc;

    memset(payload, (int)w->inode, payload_bytes);
    while ((rc = cfsr_group_stage(&w->group, &entry, (uint32_t)(w->inode & 1), 1000 + w->inode,
                                  &position)) > 0) {
        rc = act(w, rc);
        if (rc < 0)
            return rc;
    }
    cr_assert(rc == 0);
    w->staged[w->staged_count++] = (struct staged){position.lsn, position.seq, w->inode};
    return 0;
}

/* Groups of three entries of about 90 KB: a 2 MiB segment lasts seven groups. Ends with a clean
 * close. */
static int workload(struct world *w, unsigned groups)
{
    int rc = w->open ? 0 : world_open(w);

    for (unsigned g = 0; rc == 0 && g < groups; g++) {
        for (unsigned i = 0; rc == 0 && i < 3; i++)
            rc = stage_one(w, 30000 + 977 * g + i);
        if (rc == 0)
            rc = write_group(w);
    }
    while (rc == 0 && (rc = cfsr_group_stage_mark(&w->group, 5000, CFSR_MARK_CLEAN_CLOSE)) > 0)
        rc = act(w, rc);
    return rc == 0 ? write_group(w) : rc;
}

/* Reads the lane from its start to end_lsn: a prefix of what was staged, all that was acked in it.
 */
static void check_contents(struct world *w, uint64_t end_lsn, const char *what)
{
    struct cfsr_lane_cursor cursor;
    uint64_t seqs[2] = {0};
    unsigned found = 0;
    int rc;

    cr_assert(cfsr_lane_cursor_init(&cursor, w->fs, &w->site, 0, 0) == 0);
    cursor.next_seq = seqs;
    while ((rc = cfsr_lane_cursor_next(&cursor, end_lsn)) == 1) {
        const uint8_t *record = cursor.scan.data, *end = record + cursor.scan.raw_bytes;
        uint64_t lsn = cursor.scan.lsn;

        while (record < end) {
            struct cfsr_record_header header;

            cfsr_record_header_load(record, &header);
            if (cfsr_record_is_entry(header.op)) {
                cr_assert(found < w->staged_count, "%s: an entry nobody staged", what);
                cr_assert(w->staged[found].lsn == lsn && w->staged[found].seq == header.seq &&
                              w->staged[found].inode == header.inode,
                          "%s: entry %u is another one", what, found);
                found++;
            }
            record += cfsr_record_wire_bytes(&header);
            lsn += cfsr_record_total_bytes(&header);
        }
    }
    cr_assert(rc == 0, "%s: %d at %llx", what, rc, (unsigned long long)cursor.lsn);
    cr_assert(found >= w->acked_count, "%s: %u of %u acked entries", what, found, w->acked_count);
    w->staged_count = w->acked_count = found; /* what is there now stays */
    cfsr_lane_cursor_fini(&cursor);
}

static void crash_and_check(struct world *w, enum cfsr_persistence model, const char *what)
{
    struct cfsr_lane_state state;
    int rc;

    world_close(w);
    cfsr_fs_sim_fail_nth(w->fs, 0, 0);
    cfsr_fs_sim_crash(w->fs, model);
    rc = cfsr_journal_recover_lane(w->fs, &w->site, 0, false, true, &state);
    cr_assert(rc == 0, "%s: %s", what, cfsr_error_message());
    check_contents(w, state.end_lsn, what);
    if (!state.clean)
        cr_assert(state.end_lsn >= w->touched_lsn || w->touched_lsn == 0,
                  "%s: LSN %llx would be used again", what, (unsigned long long)state.end_lsn);
    cfsr_lane_state_fini(&state);
}

/* One run: a first life that ends well, a second that fails at op n, a crash, a third life, another
 * crash. False: n is past the end. */
static bool run_once(enum cfsr_persistence model, uint64_t n, unsigned first_groups)
{
    static struct world w;
    char what[80];
    uint64_t before;
    int rc;

    (void)snprintf(what, sizeof what, "model %d, op %llu, %u groups before", (int)model,
                   (unsigned long long)n, first_groups);
    world_init(&w, 77 + n);
    if (first_groups > 0) {
        cr_assert(workload(&w, first_groups) == 0);
        world_close(&w);
    }
    before = cfsr_fs_sim_op_count(w.fs);
    cfsr_fs_sim_fail_nth(w.fs, n, -EIO);
    rc = workload(&w, 9);
    if (rc == 0)
        cr_assert(cfsr_fs_sim_op_count(w.fs) - before < n);
    crash_and_check(&w, model, what);
    cr_assert(workload(&w, 9) == 0, "%s: %s", what, cfsr_error_message());
    crash_and_check(&w, model, what);
    cr_assert(w.acked_count >= 27);
    cfsr_fs_sim_destroy(w.fs);
    return rc < 0;
}

static void run_model(enum cfsr_persistence model)
{
    for (unsigned first_groups = 0; first_groups <= 3; first_groups += 3)
        for (uint64_t n = 1; run_once(model, n, first_groups); n++)
            cr_assert(n < 500);
}

Test(journal_crash, nothing_unsynced_survives, .timeout = 110)
{
    run_model(CFSR_PERSIST_NOTHING);
}
Test(journal_crash, everything_survives, .timeout = 110)
{
    run_model(CFSR_PERSIST_EVERYTHING);
}
Test(journal_crash, random_sectors_survive, .timeout = 110)
{
    run_model(CFSR_PERSIST_RANDOM);
}
Test(journal_crash, a_prefix_survives, .timeout = 110)
{
    run_model(CFSR_PERSIST_PREFIX);
}

Test(journal_crash, enospc_is_typed_and_passes)
{
    static struct world w;
    int rc;

    world_init(&w, 5);
    cr_assert(world_open(&w) == 0);
    cfsr_fs_sim_fail_nth(w.fs, 1, -ENOSPC);
    rc = stage_one(&w, 100);
    cr_assert(rc == -ENOSPC);
    cr_assert(cfsr_error_message()[0] != '\0');
    cfsr_fs_sim_fail_nth(w.fs, 0, 0);
    cr_assert(stage_one(&w, 100) == 0);
    cr_assert(write_group(&w) == 0);
    crash_and_check(&w, CFSR_PERSIST_NOTHING, "after ENOSPC");
    cr_assert(w.acked_count == 1);
    cfsr_fs_sim_destroy(w.fs);
}
