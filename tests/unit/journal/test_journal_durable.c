/*
 * What recovery promises of the disk: what it reports, a cut, and a segment's header are on it when
 * they are told of; and the first group of a segment may be torn in its SHARDS record.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "journal/acks.h"
#include "journal/group.h"
#include "journal/lane_file.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

#define BUFFER_BYTES (1u << 20)

struct world {
    struct cfsr_fs *fs;
    struct cfsr_site site;
    struct cfsr_lane_file files;
    struct cfsr_commit_group group;
};

static void recover(struct world *w, bool read_only, struct cfsr_lane_state *state_out)
{
    cr_assert_eq(cfsr_journal_recover_lane(w->fs, &w->site, 0, read_only, true, state_out), 0, "%s",
                 cfsr_error_message());
}

static uint64_t end_lsn(struct world *w, bool read_only)
{
    struct cfsr_lane_state state;
    uint64_t end;

    recover(w, read_only, &state);
    end = state.end_lsn;
    cfsr_lane_state_fini(&state);
    return end;
}

static void world_init(struct world *w, uint32_t shards)
{
    struct cfsr_fs_sim_options options = {.seed = 1, .capacity_bytes = 256ull << 20};
    struct cfsr_lane_state state;

    memset(w, 0, sizeof *w);
    cr_assert_eq(cfsr_fs_sim_create(&options, &w->fs), 0);
    memset(w->site.cluster.bytes, 1, 16);
    memset(w->site.journal.bytes, 2, 16);
    w->site.site_id = 3;
    w->site.lanes = 1;
    w->site.shards = shards;
    w->site.segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    (void)snprintf(w->site.shard_function, sizeof w->site.shard_function, "parent-or-inode-mod");
    (void)snprintf(w->site.name, sizeof w->site.name, "a");
    (void)snprintf(w->site.data_dir, sizeof w->site.data_dir, "/data");
    cr_assert_eq(cfsr_site_create(w->fs, &w->site), 0, "%s", cfsr_error_message());
    cr_assert_eq(w->fs->ops->sync_dir(w->fs, "/"), 0);
    recover(w, false, &state);
    cr_assert_eq(cfsr_lane_file_init(&w->files, w->fs, &w->site, 0, false, state.incarnation), 0);
    cr_assert_eq(cfsr_group_init(&w->group, &w->site, 0, BUFFER_BYTES, &state, NULL), 0);
    cfsr_lane_state_fini(&state);
}

static void open_segment(struct world *w)
{
    bool stalled;

    cr_assert_eq(cfsr_lane_file_rotate(&w->files, 0, 1, &stalled), 0, "%s", cfsr_error_message());
    cfsr_group_segment_opened(&w->group);
}

/* Three entries, durable. */
static void append_durably(struct world *w)
{
    const struct cfsr_entry entry = {.op = CFSR_OP_UNLINK, .inode = 7};
    struct cfsr_entry_position position;
    struct cfsr_group_span span;

    for (uint64_t i = 0; i < 3; i++)
        cr_assert_eq(cfsr_group_stage(&w->group, &entry, 0, 10 + i, &position), CFSR_GROUP_STAGED);
    cfsr_group_take(&w->group, 20, &span);
    cr_assert_eq(cfsr_lane_file_write(&w->files, &span), 0);
    cfsr_group_done(&w->group);
}

/* The writer's process ends; its files stay as they are. */
static void kill_writer(struct world *w)
{
    cfsr_lane_file_fini(&w->files);
    cfsr_group_fini(&w->group);
}

static void write_at(struct world *w, uint64_t lsn, const void *bytes, uint32_t len, bool durable)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;

    cfsr_segment_path(&w->site, 0, lsn, path, sizeof path);
    cr_assert_eq(cfsr_file_open(w->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file), 0);
    cr_assert_eq(
        cfsr_file_pwrite(file, bytes, len, cfsr_segment_file_offset(&w->site, lsn), durable),
        (int)len);
    cfsr_file_close(file);
}

Test(journal_durable, what_recovery_reports_is_on_the_disk)
{
    uint8_t pad[CFSR_RECORD_HEADER_BYTES];
    struct world w;
    uint64_t end;

    world_init(&w, 2);
    open_segment(&w);
    append_durably(&w);
    kill_writer(&w);
    end = end_lsn(&w, true);
    /* The last the killed writer did: readable, and only in memory. */
    cr_assert_eq(cfsr_group_put_pad(pad, &w.site, 0, end, 30), sizeof pad);
    write_at(&w, end, pad, sizeof pad, false);
    cr_assert_eq(end_lsn(&w, false), w.site.segment_bytes);
    cfsr_fs_sim_crash(w.fs, CFSR_PERSIST_NOTHING);
    cr_assert_eq(end_lsn(&w, true), w.site.segment_bytes, "recovery told of what was not durable");
    cfsr_fs_sim_destroy(w.fs);
}

Test(journal_durable, a_cut_is_on_the_disk_when_recovery_ends)
{
    uint8_t torn[64];
    struct world w;
    uint64_t end;

    memset(torn, 0x5a, sizeof torn);
    world_init(&w, 2);
    open_segment(&w);
    append_durably(&w);
    kill_writer(&w);
    end = end_lsn(&w, true);
    write_at(&w, end, torn, sizeof torn, true);
    cr_assert_eq(end_lsn(&w, false), w.site.segment_bytes);
    cfsr_fs_sim_crash(w.fs, CFSR_PERSIST_NOTHING);
    cr_assert_eq(end_lsn(&w, true), w.site.segment_bytes, "the cut is gone");
    cfsr_fs_sim_destroy(w.fs);
}

Test(journal_durable, a_segment_that_has_its_name_has_its_header)
{
    struct world w;

    world_init(&w, 2);
    open_segment(&w);
    kill_writer(&w);
    cfsr_fs_sim_crash(w.fs, CFSR_PERSIST_NOTHING);
    cr_assert_leq(end_lsn(&w, false), w.site.segment_bytes);
    cfsr_fs_sim_destroy(w.fs);
}

/* With many shards the record is longer than a sector, and the MARK behind it may have landed. */
Test(journal_durable, a_first_group_torn_in_its_shards_is_a_torn_tail)
{
    static const uint8_t zeros[512];
    struct world w;

    world_init(&w, 1024);
    open_segment(&w);
    append_durably(&w);
    kill_writer(&w);
    write_at(&w, 0, zeros, sizeof zeros, true);
    cr_assert_eq(end_lsn(&w, false), w.site.segment_bytes);
    cfsr_fs_sim_destroy(w.fs);
}

Test(journal_durable, acks_that_were_stored_survive_a_power_cut)
{
    static struct cfsr_acks acks, found;
    struct world w;

    world_init(&w, 2);
    for (uint64_t lsn = 4096; lsn <= 5 * 4096; lsn += 4096) {
        cfsr_acks_peer(&acks, 9)->acked[0] = lsn;
        cr_assert_eq(cfsr_acks_store(w.fs, &w.site, &acks), 0, "%s", cfsr_error_message());
        cfsr_fs_sim_crash(w.fs, CFSR_PERSIST_NOTHING);
        cr_assert_eq(cfsr_acks_load(w.fs, &w.site, &found), 0, "%s", cfsr_error_message());
        cr_assert_eq(cfsr_acks_peer(&found, 9)->acked[0], lsn);
    }
    kill_writer(&w);
    cfsr_fs_sim_destroy(w.fs);
}
