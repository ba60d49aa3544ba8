/* Finding damage in a lane, putting it right, and what peers are served; on the simulated disk. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "faulty.h"
#include "journal/acks.h"
#include "journal/digest.h"
#include "journal/group.h"
#include "journal/lane_file.h"
#include "journal/lane_lock.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "support.h"

#define BUFFER_BYTES (CFSR_RECORD_MAX_BYTES + 8)

/* ---- a lane on the simulated disk, and a copy of its records ---- */

struct copy {
    uint64_t lsn, end_lsn;
    uint32_t at, len_bytes; /* in bytes[] */
};

struct lane {
    struct cfsr_fs *fs;
    struct cfsr_site site;
    uint64_t committed_lsn;
    uint8_t *bytes;
    struct copy *copies; /* every record, in order */
    unsigned count;
    uint64_t random;
};

static uint64_t next_random(struct lane *lane)
{
    lane->random = lane->random * 6364136223846793005u + 1442695040888963407u;
    return lane->random >> 33;
}

static void make_site(struct lane *lane)
{
    memset(lane->site.cluster.bytes, 1, 16);
    memset(lane->site.journal.bytes, 2, 16);
    lane->site.site_id = 3;
    lane->site.lanes = 1;
    lane->site.shards = 3;
    lane->site.segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    (void)snprintf(lane->site.shard_function, sizeof lane->site.shard_function,
                   "parent-or-inode-mod");
    (void)snprintf(lane->site.name, sizeof lane->site.name, "a");
    (void)snprintf(lane->site.data_dir, sizeof lane->site.data_dir, "/data");
    cr_assert(cfsr_site_create(lane->fs, &lane->site) == 0, "%s", cfsr_error_message());
}

static void write_group(struct cfsr_commit_group *group, struct cfsr_lane_file *files)
{
    struct cfsr_group_span span;

    cfsr_group_take(group, 1000, &span);
    cr_assert(cfsr_lane_file_write(files, &span) == 0);
    cfsr_group_done(group);
}

/* Entries of all sizes over a little more than `segments` segments. */
static void fill_lane(struct lane *lane, unsigned segments)
{
    static uint8_t payload[CFSR_RECORD_PAYLOAD_MAX];
    struct cfsr_lane_state state;
    struct cfsr_commit_group group;
    struct cfsr_lane_file files;
    uint64_t inode = 0;

    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)(i * 7);
    cr_assert(cfsr_journal_recover_lane(lane->fs, &lane->site, 0, false, true, &state) == 0);
    cr_assert(cfsr_lane_file_init(&files, lane->fs, &lane->site, 0, false, 1) == 0);
    cr_assert(cfsr_group_init(&group, &lane->site, 0, 1 << 20, &state, NULL) == 0);
    cfsr_lane_state_fini(&state);
    while (cfsr_group_end_lsn(&group) < segments * lane->site.segment_bytes + 700000) {
        uint32_t len = (uint32_t)(next_random(lane) % 3 == 0 ? next_random(lane) % 300000
                                                             : next_random(lane) % 500);
        struct cfsr_entry entry = {
            .inode = ++inode, .op = CFSR_OP_WRITE, .payload = payload, .payload_bytes = len};
        struct cfsr_entry_position position;
        bool stalled;
        int rc = cfsr_group_stage(&group, &entry, (uint32_t)(inode % 3), inode, &position);

        if (rc == CFSR_GROUP_NEED_SEGMENT) {
            cr_assert(cfsr_lane_file_rotate(&files, cfsr_group_end_lsn(&group), 1000, &stalled) ==
                      0);
            cfsr_group_segment_opened(&group);
        } else if (rc == CFSR_GROUP_NEED_FLUSH || inode % 5 == 0) {
            write_group(&group, &files);
        }
    }
    if (cfsr_group_has_work(&group))
        write_group(&group, &files);
    lane->committed_lsn = cfsr_group_end_lsn(&group);
    cfsr_lane_file_fini(&files);
    cfsr_group_fini(&group);
}

/* Keeps every record, in wire form, as a peer's inbox would. */
static void copy_lane(struct lane *lane)
{
    uint64_t lsn = 0;
    uint32_t used = 0;

    lane->bytes = malloc(lane->committed_lsn + BUFFER_BYTES);
    lane->copies = calloc(100000, sizeof *lane->copies);
    lane->count = 0;
    for (;;) {
        struct cfsr_scan scan;

        cr_assert(cfsr_journal_read_run(lane->fs, &lane->site, 0, lsn, lane->committed_lsn, 0,
                                        lane->bytes + used, BUFFER_BYTES, &scan) == 0,
                  "%s", cfsr_error_message());
        if (scan.record_count == 0)
            break;
        lsn = scan.lsn;
        for (uint32_t at = 0; at < scan.raw_bytes;) {
            struct copy *copy = &lane->copies[lane->count++];
            struct cfsr_record_header header;

            cfsr_record_header_load(lane->bytes + used + at, &header);
            copy->lsn = lsn;
            copy->at = used + at;
            copy->len_bytes = cfsr_record_wire_bytes(&header);
            at += copy->len_bytes;
            lsn += cfsr_record_total_bytes(&header);
            copy->end_lsn = at == scan.raw_bytes ? scan.next_lsn : lsn;
        }
        lsn = scan.next_lsn;
        used += scan.raw_bytes;
    }
    cr_assert(lsn == lane->committed_lsn);
}

static void lane_make(struct lane *lane, uint64_t seed, unsigned segments)
{
    struct cfsr_fs_sim_options options = {.seed = seed, .capacity_bytes = 1ull << 30};

    memset(lane, 0, sizeof *lane);
    lane->random = seed;
    cr_assert(cfsr_fs_sim_create(&options, &lane->fs) == 0);
    make_site(lane);
    fill_lane(lane, segments);
    copy_lane(lane);
}

static void lane_drop(struct lane *lane)
{
    cfsr_fs_sim_destroy(lane->fs);
    free(lane->bytes);
    free(lane->copies);
}

static const struct copy *copy_at(const struct lane *lane, uint64_t lsn)
{
    for (unsigned i = 0; i < lane->count; i++)
        if (lane->copies[i].lsn == lsn)
            return &lane->copies[i];
    return NULL;
}

/* What the scrub does with a gap. rc of the first call that failed. */
static int mend(const struct lane *lane, const struct cfsr_journal_gap *gap)
{
    uint64_t lsn = gap->begin_lsn;

    if (gap->kind != CFSR_JOURNAL_GAP_RECORDS) {
        int rc = cfsr_journal_rewrite_header(lane->fs, &lane->site, 0, lane->committed_lsn,
                                             gap->begin_lsn);
        if (rc < 0 || gap->kind == CFSR_JOURNAL_GAP_HEADER)
            return rc;
    }
    while (lsn < gap->end_lsn) {
        const struct copy *copy = copy_at(lane, lsn);
        int rc;

        cr_assert(copy != NULL, "a gap begins at %llu, where no record began",
                  (unsigned long long)lsn);
        rc = cfsr_journal_rewrite(lane->fs, &lane->site, 0, lane->committed_lsn, lsn,
                                  lane->bytes + copy->at, copy->len_bytes, &lsn);
        if (rc < 0)
            return rc;
        cr_assert(lsn == copy->end_lsn);
    }
    return 0;
}

/* Checks the lane and mends what it finds, if mend_it. The gaps found, or an error. */
static int check_lane(const struct lane *lane, bool mend_it, struct cfsr_journal_gap *first_out)
{
    struct cfsr_journal_check *check;
    int gaps = 0, rc;

    cr_assert(cfsr_journal_check_open(lane->fs, &lane->site, 0, lane->committed_lsn, &check) == 0);
    for (;;) {
        struct cfsr_journal_gap gap;

        rc = cfsr_journal_check_step(check, 1 << 20, &gap, NULL);
        if (rc == CFSR_JOURNAL_CHECK_DONE || rc < 0)
            break;
        if (rc != CFSR_JOURNAL_CHECK_GAP)
            continue;
        if (gaps++ == 0 && first_out != NULL)
            *first_out = gap;
        rc = mend_it ? mend(lane, &gap) : 0;
        if (rc < 0)
            break;
        if (mend_it)
            cfsr_journal_check_seek(check, gap.begin_lsn);
    }
    cfsr_journal_check_close(check);
    return rc < 0 ? rc : gaps;
}

/* Every record is what it was. */
static void assert_whole(const struct lane *lane)
{
    static uint8_t buffer[BUFFER_BYTES];

    for (unsigned i = 0; i < lane->count; i++) {
        const struct copy *copy = &lane->copies[i];
        struct cfsr_scan scan;

        cr_assert(cfsr_journal_read_run(lane->fs, &lane->site, 0, copy->lsn, copy->end_lsn, 0,
                                        buffer, sizeof buffer, &scan) == 0,
                  "%s", cfsr_error_message());
        cr_assert(scan.record_count == 1 && scan.raw_bytes == copy->len_bytes);
        cr_assert(memcmp(buffer, lane->bytes + copy->at, copy->len_bytes) == 0);
    }
}

static char *segment_path(const struct lane *lane, uint64_t lsn, char path[CFSR_LANE_PATH_BYTES])
{
    return cfsr_segment_path(&lane->site, 0, lsn, path, CFSR_LANE_PATH_BYTES);
}

static void overwrite(const struct lane *lane, const char *path, uint64_t offset, uint32_t len)
{
    uint8_t *zeros = calloc(1, len);
    struct cfsr_file *file;

    cr_assert(cfsr_file_open(lane->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file) == 0);
    cr_assert(cfsr_file_pwrite(file, zeros, len, offset, false) >= 0);
    cr_assert(cfsr_file_sync(file) == 0);
    cfsr_file_close(file);
    free(zeros);
}

static void cut_short(const struct lane *lane, const char *path, uint64_t len_bytes)
{
    struct cfsr_file *file;

    cr_assert(cfsr_file_open(lane->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file) == 0);
    cr_assert(cfsr_file_truncate(file, len_bytes) == 0);
    cr_assert(cfsr_file_sync(file) == 0);
    cfsr_file_close(file);
}

Test(journal_repair, a_sound_lane_has_no_gap)
{
    struct lane lane;

    lane_make(&lane, 1, 3);
    cr_assert(check_lane(&lane, false, NULL) == 0);
    lane_drop(&lane);
}

Test(journal_repair, any_flipped_bit_is_found_and_put_right)
{
    char path[CFSR_LANE_PATH_BYTES];
    unsigned headers = 0;
    struct lane lane;

    lane_make(&lane, 2, 2);
    for (unsigned round = 0; round < 400; round++) {
        bool header = round % 10 == 0;
        uint64_t segment = lane.site.segment_bytes * (next_random(&lane) % 3), bit;
        const struct copy *hit = &lane.copies[next_random(&lane) % lane.count];
        struct cfsr_journal_gap gap;

        if (header)
            bit = next_random(&lane) % (8ull * 96);
        else
            bit = 8 * cfsr_segment_file_offset(&lane.site, hit->lsn) +
                  next_random(&lane) % (8ull * hit->len_bytes);
        (void)segment_path(&lane, header ? segment : hit->lsn, path);
        cr_assert(cfsr_fs_sim_flip_bit(lane.fs, path, bit) == 0);
        cr_assert(check_lane(&lane, false, &gap) == 1, "round %u: not found", round);
        cr_assert(gap.kind == (header ? CFSR_JOURNAL_GAP_HEADER : CFSR_JOURNAL_GAP_RECORDS));
        if (!header)
            cr_assert(gap.begin_lsn == hit->lsn && gap.end_lsn == hit->end_lsn);
        cr_assert(check_lane(&lane, true, NULL) == 1, "%s", cfsr_error_message());
        cr_assert(check_lane(&lane, false, NULL) == 0);
        headers += header;
    }
    cr_assert(headers == 40);
    assert_whole(&lane);
    lane_drop(&lane);
}

Test(journal_repair, zeroed_blocks_are_put_right)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct lane lane;

    lane_make(&lane, 3, 2);
    for (unsigned round = 0; round < 40; round++) {
        uint64_t lsn = next_random(&lane) % (lane.committed_lsn - 65536);
        uint64_t room = lane.site.segment_bytes - lsn % lane.site.segment_bytes;

        overwrite(&lane, segment_path(&lane, lsn, path), cfsr_segment_file_offset(&lane.site, lsn),
                  (uint32_t)cfsr_min_u64(room, 4096u << (round % 4)));
        cr_assert(check_lane(&lane, true, NULL) >= 0, "%s", cfsr_error_message());
        cr_assert(check_lane(&lane, false, NULL) == 0);
    }
    assert_whole(&lane);
    lane_drop(&lane);
}

Test(journal_repair, a_missing_segment_is_made_anew_and_refilled)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_journal_gap gap;
    struct lane lane;

    lane_make(&lane, 4, 3);
    cr_assert(lane.fs->ops->unlink(lane.fs, segment_path(&lane, lane.site.segment_bytes, path)) ==
              0);
    cr_assert(check_lane(&lane, false, &gap) == 1);
    cr_assert(gap.kind == CFSR_JOURNAL_GAP_SEGMENT);
    cr_assert(gap.begin_lsn == lane.site.segment_bytes);
    cr_assert(gap.end_lsn == 2 * lane.site.segment_bytes);
    cr_assert(check_lane(&lane, true, NULL) >= 1, "%s", cfsr_error_message());
    cr_assert(check_lane(&lane, false, NULL) == 0);
    assert_whole(&lane);
    lane_drop(&lane);
}

Test(journal_repair, the_last_segment_missing_is_seen_by_its_commit)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_journal_gap gap;
    struct lane lane;

    lane_make(&lane, 5, 2);
    (void)segment_path(&lane, lane.committed_lsn - 1, path);
    cr_assert(lane.fs->ops->unlink(lane.fs, path) == 0);
    cr_assert(check_lane(&lane, false, &gap) == 1);
    cr_assert(gap.kind == CFSR_JOURNAL_GAP_SEGMENT && gap.end_lsn == lane.committed_lsn);
    cr_assert(check_lane(&lane, true, NULL) >= 1, "%s", cfsr_error_message());
    assert_whole(&lane);
    lane_drop(&lane);
}

Test(journal_repair, a_lost_segment_at_the_bottom_is_retention)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct lane lane;
    uint64_t end_lsn;

    lane_make(&lane, 6, 2);
    cr_assert(lane.fs->ops->unlink(lane.fs, segment_path(&lane, 0, path)) == 0);
    cr_assert(check_lane(&lane, false, NULL) == 0);
    cr_assert(cfsr_journal_rewrite(lane.fs, &lane.site, 0, lane.committed_lsn, 0,
                                   lane.bytes + lane.copies[0].at, lane.copies[0].len_bytes,
                                   &end_lsn) == -CFSR_E_GONE);
    cr_assert(cfsr_journal_rewrite_header(lane.fs, &lane.site, 0, lane.committed_lsn, 0) ==
              -CFSR_E_GONE);
    lane_drop(&lane);
}

Test(journal_repair, only_what_belongs_there_is_written)
{
    struct lane lane;
    struct cfsr_file *lock;
    const struct copy *third, *fourth, *last;
    uint64_t ops, end_lsn;

    lane_make(&lane, 7, 1);
    third = &lane.copies[2];
    fourth = &lane.copies[3];
    last = &lane.copies[lane.count - 1];
    ops = cfsr_fs_sim_op_count(lane.fs);
#define REWRITE(committed, lsn, at, len) \
    cfsr_journal_rewrite(lane.fs, &lane.site, 0, committed, lsn, lane.bytes + (at), len, &end_lsn)
    cr_assert(REWRITE(lane.committed_lsn, third->lsn, fourth->at, fourth->len_bytes) ==
              -CFSR_E_CHECKSUM);
    cr_assert(REWRITE(lane.committed_lsn, third->lsn, third->at, third->len_bytes - 8) ==
              -CFSR_E_FORMAT);
    cr_assert(REWRITE(lane.committed_lsn, third->lsn + 8, third->at, third->len_bytes) < 0);
    cr_assert(REWRITE(last->lsn, last->lsn, last->at, last->len_bytes) == -EINVAL);
    cr_assert(cfsr_fs_sim_op_count(lane.fs) == ops);
    cr_assert(cfsr_lane_repair_lock(lane.fs, &lane.site, 0, &lock) == 0);
    cr_assert(REWRITE(lane.committed_lsn, third->lsn, third->at, third->len_bytes) ==
              -CFSR_E_LOCKED);
    cfsr_file_close(lock);
    cr_assert(REWRITE(lane.committed_lsn, third->lsn, third->at, third->len_bytes) == 0);
    cr_assert(end_lsn == third->end_lsn);
    cr_assert(cfsr_journal_rewrite_header(lane.fs, &lane.site, 0, lane.committed_lsn, 8) ==
              -EINVAL);
    cr_assert(cfsr_journal_rewrite_header(lane.fs, &lane.site, 0, lane.committed_lsn,
                                          16 * lane.site.segment_bytes) == -EINVAL);
    assert_whole(&lane);
    lane_drop(&lane);
}

Test(journal_repair, a_power_cut_at_any_step_of_a_repair_is_harmless)
{
    char path[CFSR_LANE_PATH_BYTES];
    unsigned cuts = 0;

    for (unsigned model = 0; model < 4; model++) {
        for (uint64_t step = 1;; step++) {
            struct lane lane;
            int rc;

            lane_make(&lane, 8, 2);
            (void)segment_path(&lane, lane.site.segment_bytes, path);
            if (step % 3 == 0)
                cr_assert(lane.fs->ops->unlink(lane.fs, path) == 0);
            else if (step % 3 == 1)
                overwrite(&lane, path, 0, 9000);
            else
                cut_short(&lane, path, 3000 + 400 * step);
            cr_assert(lane.fs->ops->sync_dir(lane.fs, "/data/journal/00") == 0);
            cfsr_fs_sim_fail_nth(lane.fs, step, -EIO);
            rc = check_lane(&lane, true, NULL);
            cfsr_fs_sim_fail_nth(lane.fs, 0, 0);
            if (rc < 0) {
                cuts++;
                cfsr_fs_sim_crash(lane.fs, (enum cfsr_persistence)model);
            }
            cr_assert(check_lane(&lane, true, NULL) >= 0, "%s", cfsr_error_message());
            cr_assert(check_lane(&lane, false, NULL) == 0);
            assert_whole(&lane);
            lane_drop(&lane);
            if (rc >= 0 && step > 60)
                break;
            if (step > 60)
                step += 37; /* far into the refill every step is like the one before */
            cr_assert(step < 4000);
        }
    }
    cr_assert(cuts > 40);
}

Test(journal_repair, a_foreign_file_is_left_alone_and_a_foreign_header_is_not)
{
    char path[CFSR_LANE_PATH_BYTES], other[CFSR_LANE_PATH_BYTES];
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_file *file;
    struct lane lane;

    lane_make(&lane, 9, 2);
    (void)segment_path(&lane, 0, path);
    (void)segment_path(&lane, lane.site.segment_bytes, other);
    /* A header that was written to the wrong file: the records say whose it is. */
    cr_assert(cfsr_file_open(lane.fs, path, CFSR_OPEN_READ, &file) == 0);
    cr_assert(cfsr_file_pread(file, block, sizeof block, 0) == (int)sizeof block);
    cfsr_file_close(file);
    cr_assert(cfsr_file_open(lane.fs, other, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file) == 0);
    cr_assert(cfsr_file_pwrite(file, block, sizeof block, 0, false) >= 0);
    cr_assert(cfsr_file_sync(file) == 0);
    cr_assert(check_lane(&lane, true, NULL) == 1, "%s", cfsr_error_message());
    cr_assert(check_lane(&lane, false, NULL) == 0);
    /* The same over a body without any record of the place. */
    cr_assert(cfsr_file_pwrite(file, block, sizeof block, 0, false) >= 0);
    cfsr_file_close(file);
    overwrite(&lane, other, CFSR_SEGMENT_HEADER_BYTES, (uint32_t)lane.site.segment_bytes);
    cr_assert(cfsr_journal_rewrite_header(lane.fs, &lane.site, 0, lane.committed_lsn,
                                          lane.site.segment_bytes) == -CFSR_E_FOREIGN);
    lane_drop(&lane);
}

Test(journal_repair, the_commit_of_a_damaged_lane_is_what_its_marks_prove)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_lane_state state;
    uint64_t committed = 0;
    struct lane lane;

    lane_make(&lane, 10, 2);
    cr_assert(cfsr_journal_find_committed(lane.fs, &lane.site, NULL, 0, &committed) == 0);
    /* Not the end that a look through the page cache finds: that may never have been synced. */
    cr_assert(committed > 2 * lane.site.segment_bytes && committed <= lane.committed_lsn);
    (void)segment_path(&lane, 2 * lane.site.segment_bytes, path);
    overwrite(&lane, path, CFSR_SEGMENT_HEADER_BYTES + 300, 5000);
    cr_assert(cfsr_journal_recover_lane(lane.fs, &lane.site, 0, true, true, &state) ==
              -CFSR_E_DAMAGED);
    cr_assert(cfsr_journal_find_committed(lane.fs, &lane.site, NULL, 0, &committed) == 0);
    cr_assert(committed > 2 * lane.site.segment_bytes + 5000);
    cr_assert(committed <= lane.committed_lsn && copy_at(&lane, committed) != NULL);
    lane.committed_lsn = committed;
    cr_assert(check_lane(&lane, true, NULL) == 1, "%s", cfsr_error_message());
    cr_assert(cfsr_journal_recover_lane(lane.fs, &lane.site, 0, true, true, &state) == 0);
    cr_assert(state.end_lsn >= committed);
    cfsr_lane_state_fini(&state);
    lane_drop(&lane);
}

/* Seed 17843: no MARK covers a lane's last group. What a peer acknowledged of it was not torn. */
Test(journal_repair, an_acknowledged_end_is_never_cut_for_a_torn_tail)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_acks acks = {0};
    struct cfsr_lane_state state;
    uint64_t committed;
    struct lane lane;

    lane_make(&lane, 15, 1);
    const struct copy *last = &lane.copies[lane.count - 1];
    uint64_t segment = cfsr_segment_first_lsn(&lane.site, last->lsn);
    (void)segment_path(&lane, segment, path);
    overwrite(&lane, path, CFSR_SEGMENT_HEADER_BYTES + last->lsn - segment, 30);
    cr_assert(cfsr_journal_recover_lane(lane.fs, &lane.site, 0, true, true, &state) == 0);
    cr_assert_eq(state.end_lsn, last->lsn, "as far as anyone can know");
    cfsr_lane_state_fini(&state);
    cfsr_acks_peer(&acks, 7)->acked[0] = last->lsn; /* that is not above it */
    cfsr_acks_peer(&acks, 9)->acked[0] = CFSR_LSN_UNKNOWN;
    cr_assert(cfsr_acks_store(lane.fs, &lane.site, &acks) == 0);
    cr_assert(cfsr_journal_recover_lane(lane.fs, &lane.site, 0, true, true, &state) == 0);
    cfsr_lane_state_fini(&state);
    cfsr_acks_peer(&acks, 8)->acked[0] = lane.committed_lsn;
    cr_assert(cfsr_acks_store(lane.fs, &lane.site, &acks) == 0);
    for (int read_only = 1; read_only >= 0; read_only--) {
        cr_assert_eq(
            cfsr_journal_recover_lane(lane.fs, &lane.site, 0, read_only == 1, true, &state),
            -CFSR_E_DAMAGED);
        cr_assert_not_null(strstr(cfsr_error_message(), "acknowledged"), "%s",
                           cfsr_error_message());
    }
    cr_assert(cfsr_journal_find_committed(lane.fs, &lane.site, NULL, 0, &committed) == 0);
    cr_assert_eq(committed, lane.committed_lsn);
    cr_assert(check_lane(&lane, true, NULL) == 1, "%s", cfsr_error_message());
    cr_assert(cfsr_journal_recover_lane(lane.fs, &lane.site, 0, false, true, &state) == 0);
    cr_assert_geq(state.end_lsn, committed);
    cfsr_lane_state_fini(&state);
    lane_drop(&lane);
}

/* What recovery has published must not vanish with a name that the killed writer had not synced. */
Test(journal_repair, a_recovered_segment_keeps_its_name)
{
    char path[CFSR_LANE_PATH_BYTES], spare[CFSR_LANE_PATH_BYTES];
    struct cfsr_lane_state before, after;
    struct cfsr_lane_file files;
    struct lane lane;

    lane_make(&lane, 14, 1);
    cr_assert(cfsr_lane_file_init(&files, lane.fs, &lane.site, 0, false, 1) == 0);
    cr_assert(cfsr_lane_file_prepare_spare(&files) == 0);
    cfsr_lane_file_fini(&files);
    /* The writer was killed between the rename and the sync of the directory. */
    cr_assert(lane.fs->ops->sync_dir(lane.fs, "/data/journal/00") == 0);
    (void)snprintf(spare, sizeof spare, "/data/journal/00/spare.0");
    (void)segment_path(&lane, 2 * lane.site.segment_bytes, path);
    struct cfsr_segment_header header = {.incarnation = 1,
                                         .first_lsn = 2 * lane.site.segment_bytes};
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_file *file;
    cfsr_segment_header_store(&lane.site, &header, block);
    cr_assert(cfsr_file_open(lane.fs, spare, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file) == 0);
    cr_assert(cfsr_file_pwrite(file, block, sizeof block, 0, false) >= 0);
    cr_assert(cfsr_file_sync(file) == 0);
    cfsr_file_close(file);
    cr_assert(lane.fs->ops->rename(lane.fs, spare, path) == 0);

    cr_assert(cfsr_journal_recover_lane(lane.fs, &lane.site, 0, false, false, &before) == 0, "%s",
              cfsr_error_message());
    cr_assert(before.end_lsn == 3 * lane.site.segment_bytes);
    cfsr_fs_sim_crash(lane.fs, CFSR_PERSIST_NOTHING);
    cr_assert(cfsr_journal_recover_lane(lane.fs, &lane.site, 0, false, false, &after) == 0, "%s",
              cfsr_error_message());
    cr_assert(after.end_lsn >= before.end_lsn, "what was published is gone");
    cfsr_lane_state_fini(&before);
    cfsr_lane_state_fini(&after);
    lane_drop(&lane);
}

/* ---- serving ---- */

Test(journal_repair, runs_are_served_within_their_limits)
{
    static uint8_t buffer[BUFFER_BYTES];
    struct cfsr_scan scan;
    struct lane lane;

    lane_make(&lane, 11, 1);
    cr_assert(cfsr_journal_read_run(lane.fs, &lane.site, 0, 0, lane.committed_lsn, 2, buffer,
                                    sizeof buffer, &scan) == 0);
    cr_assert(scan.entry_count == 2 && scan.lsn == 0);
    cr_assert(cfsr_journal_read_run(lane.fs, &lane.site, 0, lane.copies[3].lsn, lane.copies[5].lsn,
                                    0, buffer, sizeof buffer, &scan) == 0);
    cr_assert(scan.record_count == 2 && scan.next_lsn == lane.copies[5].lsn);
    cr_assert(cfsr_journal_read_run(lane.fs, &lane.site, 0, lane.committed_lsn, lane.committed_lsn,
                                    0, buffer, sizeof buffer, &scan) == 0);
    cr_assert(scan.record_count == 0 && scan.raw_bytes == 0);
    cr_assert(cfsr_journal_read_run(lane.fs, &lane.site, 0, lane.copies[3].lsn + 8,
                                    lane.committed_lsn, 0, buffer, sizeof buffer,
                                    &scan) == -CFSR_E_DAMAGED);
    cr_assert(cfsr_journal_read_run(lane.fs, &lane.site, 0, 0, lane.committed_lsn, 0, buffer, 48,
                                    &scan) == -CFSR_E_TOO_LARGE);
    cr_assert(cfsr_journal_read_run(lane.fs, &lane.site, 0, 64 * lane.site.segment_bytes,
                                    65 * lane.site.segment_bytes, 0, buffer, sizeof buffer,
                                    &scan) == -CFSR_E_MISSING_SEGMENT);
    lane_drop(&lane);
}

struct windows {
    struct cfsr_window_digest window[64];
    unsigned count;
};

static void keep_window(void *user, uint64_t index, const uint8_t digest[CFSR_DIGEST_LEN_BYTES])
{
    struct windows *windows = user;

    windows->window[windows->count].index = index;
    memcpy(windows->window[windows->count++].digest, digest, CFSR_DIGEST_LEN_BYTES);
}

/* Windows of the whole lane, the way the lane digest makes them. */
static void expect_windows(const struct lane *lane, struct windows *windows)
{
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
    struct cfsr_lane_digest made;

    windows->count = 0;
    cr_assert(cfsr_lane_digest_begin(&made, lane->site.segment_bytes) == 0);
    made.on_window = keep_window;
    made.user = windows;
    for (unsigned i = 0; i < lane->count; i++)
        (void)cfsr_lane_digest_feed(&made, lane->copies[i].lsn, lane->bytes + lane->copies[i].at,
                                    lane->copies[i].len_bytes);
    cfsr_lane_digest_final(&made, digest);
    cfsr_lane_digest_fini(&made);
}

static void collect_windows(const struct lane *lane, uint64_t from, uint64_t to, uint64_t budget,
                            uint32_t max, struct windows *windows)
{
    struct cfsr_journal_digests *digests;
    uint64_t done = 0, before;
    int rc;

    windows->count = 0;
    cr_assert(cfsr_journal_digests_open(lane->fs, &lane->site, 0, from, to, &digests) == 0);
    do {
        uint32_t count = 0;

        before = done;
        rc = cfsr_journal_digests_step(digests, budget, windows->window + windows->count, max,
                                       &count, &done);
        cr_assert(rc >= 0, "%s", cfsr_error_message());
        cr_assert(count <= max && done >= before);
        if (count > 0)
            cr_assert(windows->window[windows->count + count - 1].index < done >> 20);
        windows->count += count;
    } while (rc == 1);
    cr_assert(done == to >> 20 << 20 || from >= done);
    cfsr_journal_digests_close(digests);
}

Test(journal_repair, window_digests_are_those_of_the_lane_digest)
{
    struct windows all, some;
    struct lane lane;

    lane_make(&lane, 12, 5);
    expect_windows(&lane, &all);
    for (unsigned round = 0; round < 60; round++) {
        uint64_t from = round == 0 ? 0 : next_random(&lane) % lane.committed_lsn;
        uint64_t to = from + next_random(&lane) % (lane.committed_lsn - from + 1);
        unsigned k = 0;

        if (round == 0)
            to = lane.committed_lsn;
        collect_windows(&lane, from, to, 1 + next_random(&lane) % (4u << 20),
                        1 + (uint32_t)(next_random(&lane) % 4), &some);
        for (unsigned i = 0; i < all.count; i++) {
            uint64_t begin = all.window[i].index << 20;

            if (begin < from || begin + (1u << 20) > to)
                continue;
            cr_assert(k < some.count && some.window[k].index == all.window[i].index);
            cr_assert(memcmp(some.window[k].digest, all.window[i].digest, CFSR_DIGEST_LEN_BYTES) ==
                      0);
            k++;
        }
        cr_assert(k == some.count);
    }
    lane_drop(&lane);
}

Test(journal_repair, digests_stop_at_damage_and_go_on_behind_the_repair)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_journal_digests *digests;
    struct windows all, some = {.count = 0};
    const struct copy *hit;
    struct lane lane;
    uint64_t done = 0;
    uint32_t count;
    int rc;

    lane_make(&lane, 13, 4);
    expect_windows(&lane, &all);
    hit = &lane.copies[lane.count * 2 / 3];
    (void)segment_path(&lane, hit->lsn, path);
    cr_assert(cfsr_fs_sim_flip_bit(lane.fs, path,
                                   8 * cfsr_segment_file_offset(&lane.site, hit->lsn) + 77) == 0);
    cr_assert(cfsr_journal_digests_open(lane.fs, &lane.site, 0, 0, lane.committed_lsn, &digests) ==
              0);
    while ((rc = cfsr_journal_digests_step(digests, 1, some.window + some.count, 1, &count,
                                           &done)) == 1)
        some.count += count;
    cr_assert(rc == -CFSR_E_DAMAGED && done <= hit->lsn);
    cr_assert(check_lane(&lane, true, NULL) == 1);
    do {
        rc = cfsr_journal_digests_step(digests, 1 << 20, some.window + some.count, 1, &count,
                                       &done);
        cr_assert(rc >= 0, "%s", cfsr_error_message());
        some.count += count;
    } while (rc == 1);
    cfsr_journal_digests_close(digests);
    for (unsigned i = 0; i < some.count; i++)
        cr_assert(memcmp(&some.window[i], &all.window[i], sizeof some.window[i]) == 0);
    cr_assert(some.count + 1 >= all.count);
    lane_drop(&lane);
}

Test(journal_repair, filler_that_cannot_be_read_is_no_loss)
{
    struct cfsr_window_digest windows[8];
    struct cfsr_journal_digests *digests;
    struct faulty_fs faulty;
    struct lane lane;
    uint64_t done;
    uint32_t count;

    faulty_fs_init(&faulty), test_site_make(&lane.site, 1, 1);
    struct cfsr_journal *journal = test_journal_open(&lane.site);
    for (uint64_t i = 1; i < 12; i++)
        (void)test_append(journal, 0, i, 300000);
    atomic_store(&faulty.bad_offset, CFSR_SEGMENT_HEADER_BYTES + lane.site.segment_bytes - 4096);
    atomic_store(&faulty.bad_end, CFSR_SEGMENT_HEADER_BYTES + lane.site.segment_bytes);
    cr_assert(cfsr_journal_digests_open(&faulty.fs, &lane.site, 0, 0, 3 << 20, &digests) == 0);
    cr_assert_eq(cfsr_journal_digests_step(digests, UINT32_MAX, windows, 8, &count, &done), 0);
    cr_assert(count >= 2 && done == 3 << 20);
    cfsr_journal_digests_close(digests);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_site_remove(&lane.site);
}

Test(journal_repair, a_block_that_cannot_be_read_is_a_gap_and_is_written_whole)
{
    struct cfsr_journal_gap gap;
    struct faulty_fs faulty;
    struct cfsr_journal *journal;
    struct lane lane = {0};
    uint64_t bad;

    faulty_fs_init(&faulty);
    test_site_make(&lane.site, 1, 1);
    journal = test_journal_open(&lane.site);
    for (uint64_t i = 1; i < 200 || lane.committed_lsn % 4096 - 100 > 1800; i++)
        lane.committed_lsn = test_append(journal, 0, i, 2000).end_lsn;
    lane.fs = &faulty.fs;
    copy_lane(&lane);
    for (unsigned last = 0; last < 2;
         last++) { /* also where its record ends in the writer's block */
        bad = last ? cfsr_segment_file_offset(&lane.site, lane.committed_lsn) / 4096 * 4096 - 4096
                   : 4096 * 30;
        atomic_store(&faulty.bad_offset, bad);
        atomic_store(&faulty.bad_end, bad + 4096);
        cr_assert(check_lane(&lane, false, &gap) == 1, "%s", cfsr_error_message());
        cr_assert(gap.kind == CFSR_JOURNAL_GAP_RECORDS);
        cr_assert(cfsr_segment_file_offset(&lane.site, gap.begin_lsn) <= bad);
        cr_assert(cfsr_segment_file_offset(&lane.site, gap.end_lsn) >= bad + 4096);
        cr_assert(check_lane(&lane, true, NULL) >= 1, "%s", cfsr_error_message());
        cr_assert(atomic_load(&faulty.bad_end) == 0);
        cr_assert(check_lane(&lane, false, NULL) == 0);
        assert_whole(&lane);
    }
    cr_assert(cfsr_journal_close(journal) == 0);
    test_site_remove(&lane.site);
    free(lane.bytes);
    free(lane.copies);
}
