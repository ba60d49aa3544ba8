/* What a crash leaves, what recovery makes of it, and what verify says. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "inbox/verify.h"
#include "support.h"
#include "tests/unit/command.h"

/* All records of the crash runs have this size, so that seq follows from LSN. */
#define RECORD_BYTES 4096u

static struct cfsr_site site;

static struct cfsr_fs *sim_with_site(uint64_t seed)
{
    struct cfsr_fs_sim_options options = {.seed = seed, .capacity_bytes = 256ull << 20};
    struct cfsr_fs *fs;

    cr_assert_eq(cfsr_fs_sim_create(&options, &fs), 0);
    test_site_init(&site, "/data", 1);
    cr_assert_eq(cfsr_site_create(fs, &site), 0, "%s", cfsr_error_message());
    cr_assert_eq(fs->ops->sync_dir(fs, "/"), 0); /* of the data directory's own name */
    return fs;
}

/* Every record below the cursor can be read, once and in order, and no record above it. */
static void check_readable(struct cfsr_fs *fs, const struct cfsr_inbox_state *state)
{
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .lane = CFSR_INBOX_ALL_LANES, .all_records = true};
    uint64_t expected = 0;
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    int rc;

    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &inbox), 0, "%s", cfsr_error_message());
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        cr_assert_eq(record.lsn, expected);
        expected = record.end_lsn;
    }
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    cr_assert_eq(expected, state->origins == 0 ? 0 : state->cursor[0].lsn);
    cfsr_inbox_close(inbox);
}

/* Writes random batches until the step comes, then pulls the plug on whatever is in flight. Returns
 * what was acked. */
static uint64_t run_until(struct cfsr_fs *fs, struct test_random *random, unsigned steps,
                          enum cfsr_persistence model, struct test_origin *origin)
{
    struct test_writer writer;
    uint64_t acked;
    uint32_t i;

    test_writer_start(&writer, fs, &site, 0);
    for (; steps > 0; steps--) {
        struct test_batch batch;

        switch (test_random_below(random, 4)) {
        case 0:
        case 1:
            test_batch_make(origin, 1 + (uint32_t)test_random_below(random, 40), RECORD_BYTES,
                            &batch);
            test_writer_put(&writer, &batch);
            test_batch_free(&batch);
            break;
        case 2: test_writer_issue(&writer, test_random_below(random, 2) == 0); break;
        default:
            if (writer.flights > 0)
                test_writer_complete(&writer, (uint32_t)test_random_below(random, writer.flights));
        }
    }
    test_writer_issue(&writer, test_random_below(random, 2) == 0);
    acked = cfsr_inbox_lane_origin(writer.lane, 1, &origin->journal) == 0
                ? cfsr_inbox_lane_durable(writer.lane, 0)->lsn
                : 0;
    for (i = 0; i < writer.flights;
         i++) { /* some reach the disk's cache, some the disk, some neither */
        uint64_t fate = test_random_below(random, 3);

        if (fate < 2)
            cfsr_file_pwrite(writer.flight[i].file, writer.flight[i].buf,
                             writer.flight[i].len_bytes, writer.flight[i].offset_bytes, fate == 1);
    }
    cfsr_fs_sim_crash(fs, model);
    test_writer_stop(&writer, false);
    return acked;
}

/* The origin goes on where the receiver says it stands. */
static void resume_origin(struct test_origin *origin, const struct cfsr_inbox_state *state)
{
    uint64_t lsn = state->origins == 0 ? 0 : state->cursor[0].lsn;

    test_origin_seek(origin, lsn, lsn / RECORD_BYTES, lsn / RECORD_BYTES);
}

static void crash_run(uint64_t seed, enum cfsr_persistence model)
{
    struct test_random random = {.state = seed};
    struct cfsr_fs *fs = sim_with_site(seed);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct test_origin origin;
    unsigned round;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    for (round = 0; round < 6; round++) {
        uint64_t acked = run_until(fs, &random, (unsigned)test_random_below(&random, 90), model,
                                   &origin);
        uint64_t lsn;
        int rc = cfsr_inbox_recover_lane(fs, &site, 0, false, state);

        cr_assert_eq(rc, 0, "seed %llu: %s %s", (unsigned long long)seed, cfsr_strerror(rc),
                     cfsr_error_message());
        lsn = state->origins == 0 ? 0 : state->cursor[0].lsn;
        cr_assert_geq(lsn, acked, "seed %llu round %u: acked bytes are lost",
                      (unsigned long long)seed, round);
        if (lsn > 0) {
            cr_assert_eq(state->cursor[0].entries, lsn / RECORD_BYTES);
            cr_assert_eq(state->cursor[0].last.lsn, lsn - RECORD_BYTES);
        }
        check_readable(fs, state);
        resume_origin(&origin, state);
    }
    test_origin_fini(&origin);
    free(state);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_recovery, keeps_acked_and_only_readable_bytes_after_any_crash_nothing_persists)
{
    for (uint64_t seed = 1; seed <= 25; seed++)
        crash_run(seed, CFSR_PERSIST_NOTHING);
}
Test(inbox_recovery, keeps_acked_and_only_readable_bytes_after_any_crash_everything_persists)
{
    for (uint64_t seed = 101; seed <= 125; seed++)
        crash_run(seed, CFSR_PERSIST_EVERYTHING);
}
Test(inbox_recovery, keeps_acked_and_only_readable_bytes_after_any_crash_random)
{
    for (uint64_t seed = 201; seed <= 240; seed++)
        crash_run(seed, CFSR_PERSIST_RANDOM);
}
Test(inbox_recovery, keeps_acked_and_only_readable_bytes_after_any_crash_prefix)
{
    for (uint64_t seed = 301; seed <= 340; seed++)
        crash_run(seed, CFSR_PERSIST_PREFIX);
}

/* Runs in which a segment's INDEX reached the disk and its first block did not. */
Test(inbox_recovery, an_index_alone_does_not_begin_a_segment)
{
    crash_run(169, CFSR_PERSIST_NOTHING);
    crash_run(407, CFSR_PERSIST_RANDOM);
}

/* Crash at every step of one run, with segments changing on the way. */
Test(inbox_recovery, crash_at_every_step)
{
    enum cfsr_persistence model;
    unsigned steps;

    for (model = CFSR_PERSIST_NOTHING; model <= CFSR_PERSIST_PREFIX; model++) {
        for (steps = 0; steps < 60; steps++) {
            struct test_random random = {.state = 7};
            struct cfsr_fs *fs = sim_with_site(steps);
            struct cfsr_inbox_state *state = calloc(1, sizeof *state);
            struct test_origin origin;
            uint64_t acked;

            test_origin_init(&origin, &site, 1, 0xa1, 0);
            acked = run_until(fs, &random, steps, model, &origin);
            cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, false, state), 0, "%s",
                         cfsr_error_message());
            cr_assert_geq(state->origins == 0 ? 0 : state->cursor[0].lsn, acked);
            check_readable(fs, state);
            test_origin_fini(&origin);
            free(state);
            cfsr_fs_sim_destroy(fs);
        }
    }
}

Test(inbox_recovery, an_empty_lane_begins_with_segment_one)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);

    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, false, state), 0);
    cr_assert_eq(state->sequence, 0);
    cr_assert_eq(state->arrival, 1);
    cr_assert_eq(state->incarnation, 1);
    cr_assert_eq(state->origins, 0);
    check_readable(fs, state);
    free(state);
    cfsr_fs_sim_destroy(fs);
}

/* Three segments of maximal and small batches, drained. */
static void fill(struct cfsr_fs *fs, struct test_origin *origin)
{
    struct test_writer writer;
    struct test_batch batch;
    unsigned i;

    test_writer_start(&writer, fs, &site, 0);
    for (i = 0; i < 60; i++) {
        test_batch_make(origin, i % 20 == 0 ? 255 : 20, RECORD_BYTES, &batch);
        test_writer_put(&writer, &batch);
        test_batch_free(&batch);
        if (i % 3 == 0)
            test_writer_drain(&writer);
    }
    test_writer_drain(&writer);
    test_writer_stop(&writer, true);
}

static void flip(struct cfsr_fs *fs, uint64_t sequence, uint64_t body_offset)
{
    char path[CFSR_INBOX_PATH_BYTES];

    cfsr_inbox_segment_path(&site, 0, sequence, path);
    cr_assert_eq(cfsr_fs_sim_flip_bit(fs, path, cfsr_inbox_file_offset(body_offset) * 8), 0);
}

static struct cfsr_inbox_verify_report verify(struct cfsr_fs *fs)
{
    struct cfsr_inbox_verify_options options = {0};
    struct cfsr_inbox_verify_report report = {0};

    cr_assert_eq(cfsr_inbox_verify_lane(fs, &site, 0, &options, &report), 0, "%s",
                 cfsr_error_message());
    return report;
}

Test(inbox_recovery, goes_on_in_a_second_run_and_verifies_sound)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_inbox_verify_report report;
    struct test_origin origin;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    fill(fs, &origin);
    fill(fs, &origin);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0);
    cr_assert_eq(state->cut_bytes, 0);
    cr_assert_eq(state->incarnation, 3);
    cr_assert_eq(state->cursor[0].lsn, origin.lsn);
    cr_assert_gt(state->sequence, 3);
    check_readable(fs, state);
    report = verify(fs);
    cr_assert_eq(report.verdict, CFSR_INBOX_SOUND);
    cr_assert_eq(report.findings, 0);
    cr_assert_eq(report.batches, 120);
    cr_assert_eq(report.entries, origin.lsn / RECORD_BYTES);
    free(state);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_recovery, rot_below_the_durable_point_is_listed_and_found)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_inbox_verify_report report;
    struct test_origin origin;
    uint64_t lsn, sequence;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    fill(fs, &origin);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0);
    cr_assert_gt(state->body_offset, 100000);
    flip(fs, state->sequence, 0); /* the first record of the last segment */
    lsn = state->cursor[0].lsn;
    sequence = state->sequence;
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0, "%s", cfsr_error_message());
    cr_assert_eq(state->gaps, 1);
    cr_assert_eq(state->gap[0].begin, 0);
    cr_assert_eq(state->gap[0].end_sequence, sequence);
    cr_assert_eq(state->cursor[0].lsn, lsn, "the cursor comes from what stands behind");
    cr_assert_eq(state->cut_bytes, 0);
    report = verify(fs);
    cr_assert_eq(report.verdict, CFSR_INBOX_DAMAGED);
    cr_assert_eq(report.damaged, 1); /* alone in its block it costs nothing, and is named twice */
    flip(fs, sequence, 0);
    flip(fs, 1, 300000); /* in a body of a closed segment: recovery does not read it, verify does */
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0);
    report = verify(fs);
    cr_assert_eq(report.verdict, CFSR_INBOX_DAMAGED);
    cr_assert_eq(report.findings, 1);
    free(state);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_recovery, damage_at_the_very_end_is_a_torn_tail)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_inbox_verify_report report;
    struct test_origin origin;
    uint64_t lsn;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    fill(fs, &origin);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0);
    lsn = state->cursor[0].lsn;
    flip(fs, state->sequence, state->body_offset - 6000);
    report = verify(fs);
    cr_assert_eq(report.verdict, CFSR_INBOX_SOUND);
    cr_assert_eq(report.findings, 1);
    cr_assert_gt(report.torn_bytes, 0);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, false, state), 0);
    cr_assert_gt(state->cut_bytes, 0);
    cr_assert_lt(state->cursor[0].lsn, lsn);
    check_readable(fs, state);
    free(state);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

/* A batch as a writer would lay it out at a place, without a writer's care for what is before it.
 * Returns where it ends. */
static uint64_t put_by_hand(struct cfsr_fs *fs, struct test_origin *origin, uint64_t body_offset,
                            struct cfsr_inbox_local local)
{
    uint8_t *block = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, CFSR_INBOX_SLOT_BYTES);
    char path[CFSR_INBOX_PATH_BYTES];
    struct test_batch batch;
    struct cfsr_file *file;
    uint32_t bytes;

    test_batch_make(origin, 5, RECORD_BYTES, &batch);
    memcpy(block + CFSR_INBOX_LOCAL_HEADER_BYTES, batch.frame, batch.frame_bytes);
    local.kind = CFSR_INBOX_BATCH;
    local.record_bytes = CFSR_INBOX_LOCAL_HEADER_BYTES + batch.frame_bytes;
    local.entries = batch.entries;
    cfsr_inbox_record_seal(&local, body_offset, block);
    bytes = (uint32_t)cfsr_align_up(local.record_bytes, CFSR_INBOX_BLOCK_BYTES);
    memset(block + local.record_bytes, 0, bytes - local.record_bytes);
    cfsr_inbox_segment_path(&site, 0, local.sequence, path);
    cr_assert_eq(cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file), 0);
    cr_assert_geq(cfsr_file_pwrite(file, block, bytes, cfsr_inbox_file_offset(body_offset), true),
                  0);
    cfsr_file_close(file);
    test_batch_free(&batch);
    free(block);
    return body_offset + cfsr_inbox_record_space(local.record_bytes);
}

/* No place looks damaged, yet a range of the origin is in none of the records. */
Test(inbox_recovery, a_batch_above_its_origins_cursor_is_no_continuation)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_inbox_local local;
    struct test_origin origin;
    uint64_t lsn, ahead, end;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    fill(fs, &origin);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0);
    lsn = state->cursor[0].lsn;
    ahead = state->body_offset;
    local = (struct cfsr_inbox_local){.sequence = state->sequence,
                                      .arrival = state->arrival,
                                      .incarnation = state->incarnation - 1};
    cr_assert_eq(lsn, origin.lsn);
    lsn += 3 * RECORD_BYTES; /* never received */
    test_origin_seek(&origin, lsn, lsn / RECORD_BYTES, lsn / RECORD_BYTES);
    end = put_by_hand(fs, &origin, ahead, local);

    /* Nothing says that it was acknowledged: it is cut, and the origin sends from the cursor. */
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0, "%s", cfsr_error_message());
    cr_assert_eq(state->cursor[0].lsn, lsn - 3 * RECORD_BYTES, "acknowledged and not there");
    cr_assert_eq(state->cut_bytes, end - ahead);
    cr_assert_eq(state->body_offset, ahead);
    cr_assert_eq(state->damaged, 0);

    /* A later record does: it is kept, and what is missing in front of it is damage. */
    local.arrival++;
    local.durable_below = end;
    put_by_hand(fs, &origin, cfsr_align_up(end, CFSR_INBOX_BLOCK_BYTES), local);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0, "%s", cfsr_error_message());
    cr_assert_eq(state->cursor[0].lsn, origin.lsn);
    cr_assert_eq(state->cut_bytes, 0);
    cr_assert_eq(state->damaged, 1, "passed silently");
    cr_assert_eq(state->gaps, 1);
    cr_assert_eq(state->gap[0].sequence, local.sequence);
    cr_assert_eq(state->gap[0].begin, ahead);
    cr_assert_eq(state->gap[0].end, ahead);
    cr_assert_eq(verify(fs).verdict, CFSR_INBOX_DAMAGED);
    free(state);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_recovery, a_foreign_file_is_refused_and_a_missing_segment_is_listed)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    char path[CFSR_INBOX_PATH_BYTES];
    struct test_origin origin;
    struct cfsr_file *file;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    fill(fs, &origin);
    cr_assert_eq(
        cfsr_file_open(fs, "/data/inbox/00/holiday.jpg", CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file),
        0);
    cfsr_file_close(file);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), -CFSR_E_FOREIGN);
    cr_assert_eq(fs->ops->unlink(fs, "/data/inbox/00/holiday.jpg"), 0);
    cfsr_inbox_segment_path(&site, 0, 2, path);
    cr_assert_eq(fs->ops->unlink(fs, path), 0);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0, "%s", cfsr_error_message());
    cr_assert_eq(state->gaps, 1);
    cr_assert_eq(state->gap[0].sequence, 2);
    cr_assert_eq(state->gap[0].end_sequence, 3);
    cr_assert_eq(state->cursor[0].lsn, origin.lsn);
    free(state);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_recovery, a_recycled_file_keeps_nothing_of_its_past)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_inbox_survey survey;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    struct test_origin origin;
    struct cfsr_file *file;
    uint64_t sequence;
    bool direct;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    fill(fs, &origin);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, true, state), 0);
    cr_assert_eq(cfsr_inbox_drop_segment(fs, &site, 0, 1, true), 0);
    {
        struct cfsr_inbox_range_of_segments range;

        cr_assert_eq(cfsr_inbox_list_segments(fs, &site, 0, &range), 0);
        cr_assert_eq(range.first, 2);
        cr_assert_eq(range.free_files, 1);
        sequence = range.last + 1;
    }
    cr_assert_eq(cfsr_inbox_prepare_segment(fs, &site, 0, sequence, true, &file, &direct), 0);
    cfsr_file_close(file);
    cr_assert_eq(cfsr_inbox_scan_open(fs, &site, 0, sequence, false, &scan), 0);
    cr_assert_eq(cfsr_inbox_scan_next(&scan, false, &item), 0);
    cr_assert_eq(cfsr_inbox_scan_survey(&scan, &survey), 0);
    cr_assert_eq(survey.place, 0);
    cfsr_inbox_scan_close(&scan);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, false, state), 0, "%s",
                 cfsr_error_message());
    cr_assert_eq(state->cursor[0].lsn, origin.lsn);
    free(state);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

/* Whatever fails on the way and is tried again: a segment that is opened for records has a name
 * that a power cut does not take. */
Test(inbox_recovery, a_segment_that_is_opened_has_a_durable_name)
{
    for (unsigned nth = 1; nth <= 12; nth++) {
        struct cfsr_inbox_range_of_segments range;
        struct cfsr_fs *fs = sim_with_site(nth);
        struct cfsr_file *file;
        bool direct;

        cfsr_fs_sim_fail_nth(fs, nth, -EIO);
        int rc = cfsr_inbox_prepare_segment(fs, &site, 0, 1, true, &file, &direct);
        cfsr_fs_sim_fail_nth(fs, 0, 0);
        if (rc < 0)
            rc = cfsr_inbox_prepare_segment(fs, &site, 0, 1, true, &file, &direct);
        cr_assert_eq(rc, 0, "op %u: %s", nth, cfsr_error_message());
        cfsr_file_close(file);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
        cr_assert_eq(cfsr_inbox_list_segments(fs, &site, 0, &range), 0);
        cr_assert_eq(range.last, 1, "op %u failed, and the segment was lost", nth);
        cfsr_fs_sim_destroy(fs);
    }
}

Test(inbox_recovery, works_on_real_files_and_falls_back_from_direct)
{
    char directory[] = "/tmp/cfsr-inbox-XXXXXX";
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_fs *fs = cfsr_fs_blocking();
    struct test_origin origin;
    struct cfsr_file *file;
    bool direct;

    cr_assert_not_null(mkdtemp(directory));
    test_site_init(&site, directory, 1);
    cr_assert_eq(cfsr_site_create(fs, &site), 0, "%s", cfsr_error_message());
    test_origin_init(&origin, &site, 1, 0xa1, 0);
    fill(fs, &origin);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, &site, 0, false, state), 0, "%s",
                 cfsr_error_message());
    cr_assert_eq(state->cursor[0].lsn, origin.lsn);
    check_readable(fs, state);
    cr_assert_eq(cfsr_inbox_open_segment(fs, &site, 0, state->sequence, true, &file, &direct), 0);
    cr_assert_eq(direct, cfsr_file_alignment(file) > 1);
    cfsr_file_close(file);
    free(state);
    cr_assert_eq(TEST_COMMAND("rm", "-r", directory), 0);
    test_origin_fini(&origin);
}
