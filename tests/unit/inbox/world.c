/* world.c - see world.h. */
#include "world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

struct cfsr_site site;

void world_init(struct world *w, uint64_t seed)
{
    struct cfsr_fs_sim_options options = {.seed = seed, .capacity_bytes = 512ull << 20};

    memset(w, 0, sizeof *w);
    cr_assert_eq(cfsr_fs_sim_create(&options, &w->fs), 0);
    test_site_init(&site, "/data", 1);
    cr_assert_eq(cfsr_site_create(w->fs, &site), 0, "%s", cfsr_error_message());
    cr_assert_eq(w->fs->ops->sync_dir(w->fs, "/"), 0);
    for (uint32_t i = 0; i < ORIGINS; i++)
        test_origin_init(&w->origin[i], &site, 10 + i, (uint8_t)(0xa1 + i), 0);
}

void world_start(struct world *w)
{
    test_writer_start(&w->writer, w->fs, &site, 0);
    w->live = true;
}

void world_stop(struct world *w)
{
    if (w->live)
        test_writer_stop(&w->writer, true);
    w->live = false;
}

void world_fini(struct world *w)
{
    world_stop(w);
    for (uint32_t i = 0; i < ORIGINS; i++)
        test_origin_fini(&w->origin[i]);
    cfsr_fs_sim_destroy(w->fs);
}

void world_seek(struct test_origin *origin, uint64_t lsn)
{
    test_origin_seek(origin, lsn, lsn / RECORD_BYTES, lsn / RECORD_BYTES);
}

/* Batches of random sizes of both origins in turn, all durable. */
void world_fill(struct world *w, uint64_t seed, unsigned batches)
{
    struct test_random random = {.state = seed};

    for (unsigned i = 0; i < batches; i++) {
        uint32_t k = (uint32_t)test_random_below(&random, ORIGINS);
        struct test_batch batch;

        world_seek(&w->origin[k], w->sent[k]);
        test_batch_make(&w->origin[k], 1 + (uint32_t)test_random_below(&random, 60), RECORD_BYTES,
                        &batch);
        test_writer_put(&w->writer, &batch);
        w->sent[k] = batch.header.lsn_to;
        test_batch_free(&batch);
        if (test_random_below(&random, 3) == 0)
            test_writer_drain(&w->writer);
    }
    test_writer_drain(&w->writer);
}

/* An origin sends again from where the lane says it stands, as after a handshake. */
void world_refill(struct world *w)
{
    for (uint32_t k = 0; k < ORIGINS; k++) {
        int origin = cfsr_inbox_lane_origin(w->writer.lane, w->origin[k].site_id,
                                            &w->origin[k].journal);
        uint64_t lsn = cfsr_inbox_lane_staged(w->writer.lane, origin)->lsn;

        cr_assert_leq(lsn, w->sent[k]);
        while (lsn < w->sent[k]) {
            struct test_batch batch;

            world_seek(&w->origin[k], lsn);
            test_batch_make(&w->origin[k], (uint32_t)((w->sent[k] - lsn) / RECORD_BYTES) % 40 + 1,
                            RECORD_BYTES, &batch);
            test_writer_put(&w->writer, &batch);
            lsn = batch.header.lsn_to;
            test_batch_free(&batch);
        }
        w->sent[k] = lsn;
    }
    test_writer_drain(&w->writer);
}

/* ---- damage ---- */

void world_flip(struct world *w, uint64_t sequence, uint64_t file_offset)
{
    char path[CFSR_INBOX_PATH_BYTES];

    cfsr_inbox_segment_path(&site, 0, sequence, path);
    cr_assert_eq(cfsr_fs_sim_flip_bit(w->fs, path, file_offset * 8 + 3), 0);
}

void world_flip_body(struct world *w, uint64_t sequence, uint64_t body_offset)
{
    world_flip(w, sequence, cfsr_inbox_file_offset(body_offset));
}

void world_zero(struct world *w, uint64_t sequence, uint64_t body_offset, uint32_t bytes)
{
    char path[CFSR_INBOX_PATH_BYTES];
    void *zeros = calloc(1, bytes);
    struct cfsr_file *file;

    cfsr_inbox_segment_path(&site, 0, sequence, path);
    cr_assert_eq(cfsr_file_open(w->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file), 0);
    cr_assert_geq(cfsr_file_pwrite(file, zeros, bytes, cfsr_inbox_file_offset(body_offset), true),
                  0);
    cfsr_file_close(file);
    free(zeros);
}

void world_lose_segment(struct world *w, uint64_t sequence)
{
    char path[CFSR_INBOX_PATH_BYTES];

    cfsr_inbox_segment_path(&site, 0, sequence, path);
    cr_assert_eq(w->fs->ops->unlink(w->fs, path), 0);
}

/* The n-th sound record of a kind in a segment. */
struct cfsr_inbox_item world_find_item(struct world *w, uint64_t sequence, uint16_t kind,
                                       unsigned n, struct cfsr_batch_header *header_out)
{
    struct cfsr_inbox_damage damage;
    struct cfsr_inbox_item item;
    struct cfsr_inbox_log log;
    int rc;

    cfsr_inbox_log_init(&log, w->fs, &site, 0, sequence);
    while ((rc = cfsr_inbox_log_step(&log, true, &item, &damage)) > 0) {
        if (rc == CFSR_INBOX_LOG_RECORD && item.local.kind == kind && n-- == 0)
            break;
    }
    cr_assert_eq(rc, 1, "there is no such record");
    cr_assert_eq(item.local.sequence, sequence);
    if (header_out != NULL)
        cr_assert_eq(cfsr_inbox_item_header(&item, header_out), 0);
    cfsr_inbox_log_close(&log);
    item.record = NULL;
    return item;
}

uint64_t world_last_sequence(struct world *w)
{
    struct cfsr_inbox_range_of_segments range;

    cr_assert_eq(cfsr_inbox_list_segments(w->fs, &site, 0, &range), 0);
    return range.last;
}

/* ---- what is said about it ---- */

/* A whole check in small steps: the gaps. */
unsigned world_check(struct world *w, struct cfsr_inbox_gap *gaps)
{
    struct cfsr_inbox_end end;
    struct cfsr_inbox_check *check;
    unsigned count = 0;
    int rc;

    if (w->live)
        cfsr_inbox_lane_end(w->writer.lane, &end);
    cr_assert_eq(cfsr_inbox_check_open(w->fs, &site, 0, w->live ? &end : NULL, &check), 0);
    do {
        uint64_t bytes;

        rc = cfsr_inbox_check_step(check, 100000, &gaps[count], &bytes);
        cr_assert_geq(rc, 0, "%s %s", cfsr_strerror(rc), cfsr_error_message());
        count += rc == CFSR_INBOX_CHECK_GAP;
        cr_assert_lt(count, GAPS_MAX);
    } while (rc != CFSR_INBOX_CHECK_DONE);
    w->unnamed = cfsr_inbox_check_unnamed(check);
    cfsr_inbox_check_close(check);
    return count;
}

/* Fetches a part from its origin; frames: at most so many (0: all). */
void world_repair_part(struct world *w, const struct cfsr_inbox_gap *gap, uint32_t part,
                       unsigned frames)
{
    uint64_t lsn = gap->part[part].lsn_from;
    struct test_origin *origin = &w->origin[gap->part[part].site_id - 10];

    cr_assert(cfsr_uuid_equal(&origin->journal, &gap->part[part].journal));
    cr_assert_lt(lsn, gap->part[part].lsn_to);
    while (lsn < gap->part[part].lsn_to) {
        uint32_t records = (uint32_t)((gap->part[part].lsn_to - lsn) / RECORD_BYTES);
        struct test_batch batch;

        world_seek(origin, lsn);
        test_batch_make(origin, records < 50 ? records : 50, RECORD_BYTES, &batch);
        test_writer_repair(&w->writer, gap, part, &batch);
        lsn = batch.header.lsn_to;
        test_batch_free(&batch);
        if (frames > 0 && --frames == 0)
            break;
    }
    test_writer_drain(&w->writer);
}

unsigned world_repair_all(struct world *w)
{
    static struct cfsr_inbox_gap gaps[GAPS_MAX];
    unsigned count = world_check(w, gaps);

    for (unsigned i = 0; i < count; i++)
        for (uint32_t part = 0; part < gaps[i].parts; part++)
            world_repair_part(w, &gaps[i], part, 0);
    if (!w->live)
        return count;
    if (w->unnamed)
        cfsr_inbox_lane_want_cursors(w->writer.lane);
    test_writer_cursors(&w->writer);
    return count;
}

/* Reads everything; the result of the last call. Every record is the next one of its origin. */
int world_read_all(struct world *w, uint32_t lane, uint64_t read_out[ORIGINS])
{
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .lane = lane, .all_records = true};
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    int rc;

    memset(read_out, 0, ORIGINS * sizeof read_out[0]);
    rc = cfsr_inbox_open_at(w->fs, &site, &options, &inbox);
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        uint64_t *read = &read_out[record.site_id - 10];

        cr_assert_eq(record.lsn, *read, "a record of site %llu was passed over",
                     (unsigned long long)record.site_id);
        cr_assert_eq(record.seq, record.lsn / RECORD_BYTES + 1);
        *read = record.end_lsn;
    }
    cfsr_inbox_close(inbox);
    return rc;
}

void expect_all_readable(struct world *w, const char *what)
{
    uint64_t read[ORIGINS];
    int rc = world_read_all(w, CFSR_INBOX_ALL_LANES, read);

    cr_assert_eq(rc, 0, "%s: %s", what, cfsr_error_message());
    cr_assert_arr_eq(read, w->sent, sizeof read, "%s", what);
    rc = world_read_all(w, 0, read);
    cr_assert_eq(rc, 0, "%s: %s", what, cfsr_error_message());
    cr_assert_arr_eq(read, w->sent, sizeof read, "%s", what);
}

void expect_stopped(struct world *w, const char *what)
{
    uint64_t read[ORIGINS];

    cr_assert_eq(world_read_all(w, CFSR_INBOX_ALL_LANES, read), -CFSR_E_DAMAGED, "%s", what);
    cr_assert_eq(world_read_all(w, 0, read), -CFSR_E_DAMAGED, "%s", what);
    cr_assert_not_null(strstr(cfsr_error_message(), "scrub"));
}

static void note_finding(void *user, const struct cfsr_inbox_finding *finding)
{
    struct findings *findings = user;

    findings->torn += finding->torn_tail;
    findings->repaired += finding->repaired;
    findings->header += finding->header;
    findings->damaged += !finding->torn_tail && !finding->repaired;
}

struct findings world_verify(struct world *w, enum cfsr_inbox_verdict verdict)
{
    struct findings findings = {0};
    struct cfsr_inbox_verify_options options = {.on_finding = note_finding, .user = &findings};
    struct cfsr_inbox_verify_report report = {0};

    cr_assert_eq(cfsr_inbox_verify_lane(w->fs, &site, 0, &options, &report), 0, "%s",
                 cfsr_error_message());
    cr_assert_eq(report.verdict, verdict);
    cr_assert_eq(report.damaged, findings.damaged);
    return findings;
}

/* Damaged while it runs: stops the readers, is found, is repaired, and is as if it had not been. */
void expect_repairable(struct world *w, const char *what)
{
    struct findings findings;

    expect_stopped(w, what);
    world_verify(w, CFSR_INBOX_DAMAGED);
    cr_assert_gt(world_repair_all(w), 0, "%s", what);
    expect_all_readable(w, what);
    findings = world_verify(w, CFSR_INBOX_SOUND);
    cr_assert_gt(findings.repaired, 0, "%s", what);
    cr_assert_eq(world_repair_all(w), 0, "%s: repaired twice", what);
}

/* The same after a restart: the cursors are those acknowledged, or the origin sends again. */
void expect_survives_restart(struct world *w, const char *what)
{
    world_stop(w);
    world_start(w);
    world_refill(w);
    expect_all_readable(w, what);
    world_fill(w, 77, 10);
    expect_all_readable(w, what);
    world_verify(w, CFSR_INBOX_SOUND);
}
