/*
 * test_journal_edges.c - the rare places of reading a lane: empty lanes, records that end at a
 * segment's end, records that are sealed but make no sense, damage that is met while the disk fails
 * too.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "journal/acks.h"
#include "journal/digest.h"
#include "journal/gc.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"
#include "journal/verify.h"
#include "support.h"
#include "tests/unit/faults.h"
#include <cfsrepl/reader.h>

#define BUFFER_BYTES (2u << 20)

static struct test_faults faults;
static struct cfsr_fs *fs;
static struct cfsr_site site;
static uint8_t *buffer;

static void set_up(void)
{
    test_site_make(&site, 1, 4);
    fs = test_faults_init(&faults, cfsr_fs_blocking());
    buffer = malloc(BUFFER_BYTES);
    cr_assert_not_null(buffer);
}

static void tear_down(void)
{
    free(buffer);
    test_site_remove(&site);
}

TestSuite(journal_edges, .init = set_up, .fini = tear_down, .timeout = 200);

/* Entries of 100,000 bytes in two segments and a bit; the committed LSN. */
static uint64_t fill(void)
{
    struct cfsr_journal *journal = test_journal_open(&site);
    struct cfsr_lane_state state;

    for (uint32_t i = 0; i < 50; i++)
        (void)test_append(journal, i % 4, i, 100000);
    cr_assert_eq(cfsr_journal_close(journal), 0);
    cr_assert_eq(cfsr_journal_recover_lane(fs, &site, 0, true, true, &state), 0);
    cfsr_lane_state_fini(&state);
    return state.end_lsn;
}

static int serve(uint64_t lsn, uint64_t limit_lsn, uint32_t capacity, struct cfsr_scan *scan)
{
    return cfsr_journal_read_run(fs, &site, 0, lsn, limit_lsn, 0, buffer, capacity, scan);
}

/* ---- records that are whole and make no sense ---- */

static uint8_t record[512];

static void put(uint8_t op, uint64_t seq, uint32_t payload_bytes)
{
    const struct cfsr_record_header header = {.payload_bytes = payload_bytes,
                                              .seq = seq,
                                              .timestamp_us = 5,
                                              .site_id = site.site_id,
                                              .op = op};

    memset(record, 0, sizeof record);
    cfsr_record_header_store(record, &header);
}

static int scan_record(uint64_t *next_seq)
{
    struct cfsr_scan scan = {
        .data = record,
        .len_bytes = (uint32_t)cfsr_align_up(48 + cfsr_load_le32(record + 4), 8),
        .segment_bytes = site.segment_bytes,
        .seed = cfsr_record_seed(&site.journal),
        .site_id = site.site_id,
        .lanes = 1,
        .shards = 4,
        .lsn = 800,
        .next_seq = next_seq};

    cfsr_record_seal(record, scan.seed, scan.lsn);
    return cfsr_record_scan(&scan);
}

Test(journal_edges, a_seal_does_not_make_nonsense_a_record)
{
    uint64_t next_seq[4] = {0};

    put(3, 1, 16);
    cr_assert_eq(scan_record(NULL), 0);
    record[46] = 1;
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT, "reserved bytes");
    put(3, 0, 16);
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT, "an entry has a seq");
    put(3, UINT64_MAX, 16);
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT, "the seqs have an end");
    put(3, 1, 16);
    record[40] = 4;
    cr_assert_eq(scan_record(NULL), -CFSR_E_FOREIGN, "no such shard");
    put(3, 1, 16);
    record[32] ^= 1;
    cr_assert_eq(scan_record(NULL), -CFSR_E_FOREIGN, "another site");
    put(11, 1, 16);
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT, "no such op");
    put(3, 1, 16);
    cr_assert_eq(scan_record(next_seq), 0);
    cr_assert_eq(scan_record(next_seq), -CFSR_E_BAD_ORDER, "the same seq again");
}

Test(journal_edges, marks_and_shards_have_their_sizes)
{
    uint64_t next_seq[4] = {0};

    put(CFSR_RECORD_MARK, 0, 40);
    cfsr_store_le64(record + 48 + 8, 800);
    cr_assert_eq(scan_record(NULL), 0);
    put(CFSR_RECORD_MARK, 3, 40);
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT, "a MARK has no seq");
    put(CFSR_RECORD_MARK, 0, 32);
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT);
    put(CFSR_RECORD_MARK, 0, 48);
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT, "no vector of one half");
    put(CFSR_RECORD_MARK, 0, 40);
    cfsr_store_le64(record + 48 + 8, 808);
    cr_assert_eq(scan_record(NULL), -CFSR_E_FORMAT, "what is behind it was not durable");
    for (unsigned field = 0; field < 5; field++) {
        put(CFSR_RECORD_SHARDS, 0, field == 4 ? 8 : 16 + 8 * 4);
        cfsr_store_le32(record + 48 + 4, 1);
        cfsr_store_le32(record + 48 + 8, 4);
        for (unsigned i = 0; i < 4; i++)
            cfsr_store_le64(record + 64 + 8ull * i, 7);
        if (field < 3)
            record[48 + 4 * field] ^= 2;
        cr_assert_eq(scan_record(NULL), field == 3 ? 0 : -CFSR_E_FORMAT, "field %u", field);
    }
    put(CFSR_RECORD_SHARDS, 0, 16 + 8 * 4);
    cfsr_store_le32(record + 48 + 4, 1);
    cfsr_store_le32(record + 48 + 8, 4);
    cr_assert_eq(scan_record(next_seq), -CFSR_E_FORMAT, "seqs begin at 1");
    for (unsigned i = 0; i < 4; i++)
        cfsr_store_le64(record + 64 + 8ull * i, 7);
    next_seq[2] = 6;
    cr_assert_eq(scan_record(next_seq), -CFSR_E_BAD_ORDER);
}

/* Puts the record at lsn, sealed for it. */
static void plant(uint64_t lsn)
{
    cfsr_record_seal(record, cfsr_record_seed(&site.journal), lsn);
    test_write_at(&site, 0, lsn, record, 48 + cfsr_load_le32(record + 4));
}

Test(journal_edges, recovery_tells_records_of_others_and_of_other_times)
{
    uint64_t end_lsn = fill();
    struct cfsr_lane_state state;

    put(3, 500, 16);
    plant(end_lsn);
    cr_assert_eq(cfsr_journal_recover_lane(fs, &site, 0, false, false, &state), -CFSR_E_DAMAGED);
    put(3, 1, 16);
    record[32] ^= 1;
    plant(end_lsn);
    cr_assert_eq(cfsr_journal_recover_lane(fs, &site, 0, false, false, &state), -CFSR_E_DAMAGED);
    put(CFSR_RECORD_MARK, 0, 40);
    plant(2 * site.segment_bytes);
    cr_assert_eq(cfsr_journal_recover_lane(fs, &site, 0, false, false, &state), -CFSR_E_DAMAGED,
                 "a segment begins with SHARDS");
}

/* What looks like a MARK behind the end proves nothing unless it is one of this place. */
Test(journal_edges, only_a_real_mark_proves_rot)
{
    uint64_t end_lsn = fill(), lsn = end_lsn + 4096;
    struct cfsr_lane_state state;

    test_flip_bit(&site, 0, end_lsn - 80, 1); /* the closing MARK */
    for (unsigned kind = 0; kind < 6; kind++) {
        static const uint32_t sizes[] = {40, 32, 44, 40, 40, 40};

        memset(record, 0, sizeof record);
        put(CFSR_RECORD_MARK, 0, sizes[kind]);
        if (kind == 0)
            record[32] ^= 1;
        cfsr_store_le64(record + 48 + 8, kind == 4 ? 8 : lsn);
        cfsr_record_seal(record, cfsr_record_seed(&site.journal), kind == 5 ? lsn + 8 : lsn);
        if (kind == 3)
            cfsr_store_le32(record + 4, 2000); /* longer than any MARK */
        test_write_at(&site, 0, lsn, record, 512);
        cr_assert_eq(cfsr_journal_recover_lane(fs, &site, 0, true, true, &state), 0, "kind %u",
                     kind);
        cr_assert_lt(state.end_lsn, end_lsn);
        cfsr_lane_state_fini(&state);
    }
    put(CFSR_RECORD_MARK, 0, 40);
    cfsr_store_le64(record + 48 + 8, lsn);
    plant(lsn);
    cr_assert_eq(cfsr_journal_recover_lane(fs, &site, 0, true, true, &state), -CFSR_E_DAMAGED);
}

/* The sender walks by sizes: the same records, wherever its limits are. */
Test(journal_edges, a_walk_by_sizes_stops_where_a_scan_does)
{
    uint64_t end_lsn = fill();
    struct cfsr_scan run;

    cr_assert_eq(serve(0, end_lsn, BUFFER_BYTES, &run), 0);
    for (uint32_t i = 0; i < 60; i++) {
        struct cfsr_scan scan = run, walk;
        int rc;

        scan.max_entries = i < 20 ? i : 0;
        scan.max_raw_bytes = i >= 20 && i < 40 ? i * 60000 : 0;
        if (i >= 40)
            scan.len_bytes = run.raw_bytes - (i - 40) * 9001;
        walk = scan;
        walk.trust_crc = true;
        rc = cfsr_record_scan(&scan);
        cr_assert_eq(cfsr_record_scan(&walk), rc);
        cr_assert_eq(walk.raw_bytes, scan.raw_bytes, "case %u", i);
        cr_assert_eq(walk.next_lsn, scan.next_lsn);
        cr_assert_eq(walk.end, scan.end);
        cr_assert_eq(walk.entry_count, scan.entry_count);
        cr_assert_eq(walk.record_count, scan.record_count);
        cr_assert_eq(walk.last.lsn, scan.last.lsn);
        cr_assert_eq(walk.last.crc, scan.last.crc);
    }
    run.lsn = 4;
    cr_assert_eq(cfsr_record_scan(&run), -CFSR_E_FORMAT, "no record begins there");
}

Test(journal_edges, a_pad_ends_with_its_segment_and_a_record_within_it)
{
    struct cfsr_scan scan = {.data = record,
                             .len_bytes = 64,
                             .wire_form = true,
                             .segment_bytes = site.segment_bytes,
                             .seed = cfsr_record_seed(&site.journal),
                             .site_id = site.site_id,
                             .lanes = 1,
                             .shards = 4,
                             .lsn = site.segment_bytes - 56};

    put(3, 1, 16); /* 64 bytes where 56 are left */
    cfsr_record_seal(record, scan.seed, scan.lsn);
    cr_assert_eq(cfsr_record_scan(&scan), -CFSR_E_FORMAT);
    put(CFSR_RECORD_PAD, 0, 0);
    cfsr_record_seal(record, scan.seed, scan.lsn);
    cr_assert_eq(cfsr_record_scan(&scan), -CFSR_E_FORMAT, "eight bytes too short");
    put(CFSR_RECORD_PAD, 0, 8);
    cfsr_record_seal(record, scan.seed, scan.lsn);
    cr_assert_eq(cfsr_record_scan(&scan), 0);
    cr_assert_eq(scan.next_lsn, site.segment_bytes);
}

/* ---- serving ---- */

Test(journal_edges, an_empty_lane_has_nothing_to_serve_and_nothing_to_check)
{
    struct cfsr_journal_digests *digests;
    struct cfsr_window_digest window;
    struct cfsr_journal_check *check;
    struct cfsr_journal_gap gap;
    struct cfsr_scan scan;
    uint64_t done_lsn, committed;
    uint32_t count;

    cr_assert_eq(serve(0, 4096, BUFFER_BYTES, &scan), -CFSR_E_MISSING_SEGMENT);
    cr_assert_eq(serve(0, 0, BUFFER_BYTES, &scan), 0);
    cr_assert_eq(cfsr_journal_find_committed(fs, &site, NULL, 0, &committed), 0);
    cr_assert_eq(committed, 0);
    cr_assert_eq(cfsr_journal_digests_open(fs, &site, 0, 0, 3u << 20, &digests), 0);
    cr_assert_eq(cfsr_journal_digests_step(digests, 1, &window, 1, &count, &done_lsn),
                 -CFSR_E_MISSING_SEGMENT);
    cfsr_journal_digests_close(digests);
    cr_assert_eq(cfsr_journal_check_open(fs, &site, 0, 0, &check), 0);
    cr_assert_eq(cfsr_journal_check_step(check, 1, &gap, NULL), CFSR_JOURNAL_CHECK_DONE);
    cfsr_journal_check_close(check);
    cr_assert_eq(cfsr_journal_check_open(fs, &site, 0, site.segment_bytes + 100, &check), 0);
    cr_assert_eq(cfsr_journal_check_step(check, 1, &gap, NULL), CFSR_JOURNAL_CHECK_GAP);
    cr_assert(gap.kind == CFSR_JOURNAL_GAP_SEGMENT && gap.begin_lsn == site.segment_bytes);
    cfsr_journal_check_close(check);
}

Test(journal_edges, what_is_served_ends_before_what_cannot_be)
{
    uint64_t end_lsn = fill(), next_lsn;
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_scan scan;

    cr_assert_eq(serve(0, end_lsn, BUFFER_BYTES, &scan), 0);
    next_lsn = scan.last.lsn;
    cr_assert_eq(serve(next_lsn, next_lsn + 40, BUFFER_BYTES, &scan), 0);
    cr_assert_eq(scan.record_count, 0, "not whole below the limit");
    cr_assert_eq(serve(site.segment_bytes - 8, end_lsn, BUFFER_BYTES, &scan), 0);
    cr_assert(scan.lsn == site.segment_bytes && scan.record_count > 0);
    cr_assert_eq(serve(0, end_lsn, 8, &scan), -CFSR_E_TOO_LARGE);
    test_flip_bit(&site, 0, 120, 1); /* the record behind SHARDS */
    cr_assert_eq(serve(0, end_lsn, BUFFER_BYTES, &scan), 0);
    cr_assert_eq(scan.record_count, 1);
    cr_assert_eq(serve(scan.next_lsn, end_lsn, BUFFER_BYTES, &scan), -CFSR_E_DAMAGED);
    cfsr_segment_path(&site, 0, site.segment_bytes, path, sizeof path);
    cr_assert_eq(truncate(path, CFSR_SEGMENT_HEADER_BYTES + 24), 0);
    cr_assert_eq(serve(site.segment_bytes, 2 * site.segment_bytes, BUFFER_BYTES, &scan),
                 -CFSR_E_DAMAGED, "half a header up to the end of the file");
    cr_assert_eq(serve(site.segment_bytes, site.segment_bytes + 4096, BUFFER_BYTES, &scan),
                 -CFSR_E_DAMAGED, "nothing, though more is committed");
    cr_assert_eq(truncate(path, 100), 0);
    cr_assert_eq(serve(site.segment_bytes, end_lsn, BUFFER_BYTES, &scan), -CFSR_E_DAMAGED);
    cfsr_segment_path(&site, 0, 0, path, sizeof path);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(serve(0, end_lsn, BUFFER_BYTES, &scan), -CFSR_E_GONE);
}

/* Steps until the end: windows given, or the first error behind them. */
static int step_all(struct cfsr_journal_digests *digests, uint32_t max, uint32_t *windows_out)
{
    uint64_t done_lsn, before = 0;
    int rc = 1;

    *windows_out = 0;
    for (unsigned i = 0; rc == 1 && i < 1000; i++) {
        struct cfsr_window_digest windows[8];
        uint32_t count = 0;

        rc = cfsr_journal_digests_step(digests, 1, windows, max, &count, &done_lsn);
        if (rc < 0)
            break;
        cr_assert(count <= max && done_lsn >= before);
        before = done_lsn;
        *windows_out += count;
    }
    return rc;
}

Test(journal_edges, windows_come_one_by_one_and_again_after_an_error)
{
    uint64_t end_lsn = fill();
    uint32_t windows, all, before_damage;
    struct cfsr_journal_digests *digests;

    cr_assert_eq(cfsr_journal_digests_open(fs, &site, 0, 0, end_lsn, &digests), 0);
    cr_assert_eq(step_all(digests, 1, &all), 0);
    cr_assert_eq(all, end_lsn >> 20);
    cr_assert_eq(step_all(digests, 1, &windows), 0, "the end stays the end");
    cr_assert_eq(windows, 0);
    cfsr_journal_digests_close(digests);
    test_flip_bit(&site, 0, site.segment_bytes + (1u << 20) + 300000, 4);
    for (unsigned n = 0; n < TEST_SWEEP_MAX; n++) {
        cr_assert_eq(cfsr_journal_digests_open(fs, &site, 0, 0, end_lsn, &digests), 0);
        cr_assert_eq(step_all(digests, 8, &before_damage), -CFSR_E_DAMAGED);
        test_faults_arm(&faults, n, -EIO);
        int rc = step_all(digests, 8, &windows);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        cr_assert(rc == -CFSR_E_DAMAGED || (fired && rc == -EIO), "call %u: %d", n, rc);
        cr_assert_eq(windows, 0, "they were given before");
        test_flip_bit(&site, 0, site.segment_bytes + (1u << 20) + 300000, 4);
        cr_assert_eq(step_all(digests, 8, &windows), 0);
        cr_assert_eq(windows + before_damage, all);
        test_flip_bit(&site, 0, site.segment_bytes + (1u << 20) + 300000, 4);
        cfsr_journal_digests_close(digests);
        if (n > 0 && !fired)
            break;
    }
}

/* ---- checking ---- */

Test(journal_edges, a_check_passes_over_what_retention_took_and_stops_at_what_it_cannot_read)
{
    uint64_t end_lsn = fill(), bytes = 0;
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_journal_check *check;
    struct cfsr_journal_gap gap;

    cr_assert_eq(cfsr_journal_check_open(fs, &site, 0, end_lsn, &check), 0);
    cr_assert_eq(unlink(cfsr_segment_path(&site, 0, 0, path, sizeof path)), 0);
    test_faults_arm(&faults, 2, -EIO); /* the open finds nothing, the list fails */
    cr_assert_eq(cfsr_journal_check_step(check, 1, &gap, &bytes), -EIO);
    test_faults_arm(&faults, 0, 0);
    cr_assert_eq(cfsr_journal_check_position(check), 0);
    int rc;
    while ((rc = cfsr_journal_check_step(check, 1, &gap, &bytes)) == CFSR_JOURNAL_CHECK_MORE)
        ;
    cr_assert_eq(rc, CFSR_JOURNAL_CHECK_DONE);
    cr_assert_eq(cfsr_journal_check_position(check), end_lsn);
    cfsr_journal_check_close(check);
    cfsr_journal_check_close(NULL);
}

Test(journal_edges, what_is_proven_of_a_damaged_lane_is_found_or_an_error)
{
    uint64_t end_lsn = fill(), committed = 0, right = 0;
    struct cfsr_status_page *page;

    test_flip_bit(&site, 0, 2 * site.segment_bytes + 200, 3);
    cr_assert_eq(cfsr_journal_find_committed(fs, &site, NULL, 0, &right), 0);
    cr_assert(right > 2 * site.segment_bytes && right <= end_lsn);
    for (unsigned n = 1; n < TEST_SWEEP_MAX; n++) {
        test_faults_arm(&faults, n, -EACCES);
        int rc = cfsr_journal_find_committed(fs, &site, NULL, 0, &committed);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        cr_assert(rc == -EACCES || committed <= right, "call %u: %d", n, rc);
        if (!fired) {
            cr_assert_eq(committed, right);
            break;
        }
    }
    for (unsigned n = 1; n < TEST_SWEEP_MAX; n++) {
        test_fail_allocation(n);
        int rc = cfsr_journal_find_committed(fs, &site, NULL, 0, &committed);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (!failed)
            break;
        cr_assert_eq(rc, -ENOMEM, "allocation %u", n);
    }
    cr_assert_eq(cfsr_status_page_open(&site, &page), 0);
    cr_assert_eq(cfsr_journal_find_committed(fs, &site, page, 0, &committed), 0);
    cr_assert_eq(committed, end_lsn, "the writer of this boot said so");
    cfsr_status_page_close(page);
}

/* ---- the live reader ---- */

Test(journal_edges, a_reader_says_what_is_wrong_with_a_segment)
{
    uint64_t end_lsn = fill();
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;
    uint8_t header[CFSR_SEGMENT_HEADER_BYTES];
    int rc;

    cr_assert_eq(cfsr_reader_open(site.data_dir, 0, site.segment_bytes - 8, &reader), 0);
    cr_assert_eq(cfsr_reader_next(reader, &view), 1, "only the tail of a segment was passed");
    cr_assert_eq(view.lsn, site.segment_bytes);
    put(3, 500, 16);
    plant(view.end_lsn);
    cfsr_reader_seek(reader, site.segment_bytes);
    while ((rc = cfsr_reader_next(reader, &view)) == 1)
        ;
    cr_assert_lt(rc, 0);
    put(3, 1, 16);
    record[32] ^= 1;
    plant(2 * site.segment_bytes);
    cfsr_reader_seek(reader, 2 * site.segment_bytes);
    cr_assert_eq(cfsr_reader_next(reader, &view), -CFSR_E_DAMAGED, "of another site");
    cfsr_segment_path(&site, 0, 0, path, sizeof path);
    cr_assert_eq(cfsr_file_open(cfsr_fs_blocking(), path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file),
                 0);
    cr_assert_eq(cfsr_file_pread(file, header, sizeof header, 0), (int)sizeof header);
    cfsr_store_le32(header + 8, 2);
    cfsr_store_le32(header + 92, cfsr_crc32c(0, header, 92));
    cr_assert_geq(cfsr_file_pwrite(file, header, sizeof header, 0, false), 0);
    cfsr_file_close(file);
    cfsr_reader_seek(reader, 0);
    cr_assert_eq(cfsr_reader_next(reader, &view), -CFSR_E_VERSION, "no damage, but unreadable");
    cfsr_reader_seek(reader, end_lsn);
    cr_assert_eq(cfsr_reader_next(reader, &view), 0);
    cfsr_reader_close(reader);
}

Test(journal_edges, a_record_that_leaves_no_room_for_a_header_ends_its_segment)
{
    struct cfsr_journal *journal = test_journal_open(&site);
    struct cfsr_entry_position position = test_append(journal, 0, 1, 1000000);
    struct cfsr_record_view view = {0};
    struct cfsr_reader *reader;

    /* MARK, header and payload up to 40 bytes before the end. */
    uint64_t left = site.segment_bytes - position.end_lsn - 88 - 48 - 40;
    while (left > 1000000 + 48 + 88) {
        position = test_append(journal, 0, 2, 500000);
        left = site.segment_bytes - position.end_lsn - 88 - 48 - 40;
    }
    cr_assert_lt(left, 1u << 20);
    position = test_append(journal, 0, 3, (uint32_t)left);
    cr_assert_eq(cfsr_reader_open(site.data_dir, 0, 0, &reader), 0);
    while (view.inode != 3)
        cr_assert_eq(cfsr_reader_next(reader, &view), 1);
    cr_assert_eq(view.end_lsn, position.end_lsn);
    cr_assert_eq(view.end_lsn, site.segment_bytes);
    (void)test_append(journal, 0, 4, 8);
    while (view.inode != 4)
        cr_assert_eq(cfsr_reader_next(reader, &view), 1);
    cfsr_reader_close(reader);
    cr_assert_eq(cfsr_journal_close(journal), 0);
}

static void *append_later(void *journal)
{
    (void)usleep(50000);
    (void)test_append(journal, 0, 1, 8);
    return NULL;
}

Test(journal_edges, a_reader_waits_for_ever_until_something_comes)
{
    struct cfsr_journal *journal = test_journal_open(&site);
    struct cfsr_reader *reader;
    uint64_t committed;
    pthread_t thread;

    (void)test_append(journal, 0, 1, 8);
    cr_assert_eq(cfsr_reader_open(site.data_dir, 0, 0, &reader), 0);
    cr_assert_eq(cfsr_reader_committed(reader, &committed), 0);
    cfsr_reader_seek(reader, committed);
    cr_assert_eq(pthread_create(&thread, NULL, append_later, journal), 0);
    cr_assert_eq(cfsr_reader_wait(reader, -1), 1);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cfsr_reader_close(reader);
    cr_assert_eq(cfsr_journal_close(journal), 0);
}

Test(journal_edges, a_reader_without_a_lease_cannot_wait_but_read)
{
    struct cfsr_record_view view;
    struct cfsr_status_page *page;
    struct cfsr_lease leases[64];
    struct cfsr_reader *reader;

    (void)fill();
    cr_assert_eq(cfsr_status_page_open(&site, &page), 0);
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(cfsr_status_page_lease_take(page, 1, &leases[i]), 0);
    cr_assert_eq(cfsr_reader_open(site.data_dir, 0, 0, &reader), 0);
    cr_assert_lt(cfsr_reader_wait(reader, 0), 0);
    cr_assert_eq(cfsr_reader_next(reader, &view), 1);
    cfsr_status_page_lease_drop(page, &leases[7]);
    cr_assert_eq(cfsr_reader_wait(reader, 0), 1);
    cfsr_reader_close(reader);
    for (unsigned i = 0; i < 64; i++)
        if (i != 7)
            cfsr_status_page_lease_drop(page, &leases[i]);
    cfsr_status_page_close(page);
}

/* ---- verify, digest, acks, retention ---- */

static void make_file(const char *name)
{
    char path[CFSR_LANE_PATH_BYTES + 64];
    int fd;

    (void)snprintf(path, sizeof path, "%s/journal/00/%s", site.data_dir, name);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
}

Test(journal_edges, names_that_are_no_segments_are_strangers)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_segment_map map;

    (void)fill();
    make_file("0000000000000008.seg"); /* not on the grid */
    make_file("00000000000000AB.seg");
    make_file("0000000000200000.sex");
    make_file("core");
    cr_assert_eq(
        mkdir(cfsr_segment_path(&site, 0, 5 * site.segment_bytes, path, sizeof path), 0700), 0);
    cr_assert_eq(cfsr_segment_map_load(fs, &site, 0, &map), 0);
    cr_assert_eq(map.foreign_count, 5);
    cr_assert_eq(map.count, 3);
    cr_assert_eq(map.lsns[2], 2 * site.segment_bytes);
    cfsr_segment_map_fini(&map);
}

Test(journal_edges, a_lane_without_files_is_sound_until_somebody_says_what_it_had)
{
    struct cfsr_verify_report report;
    struct cfsr_status_page *page;

    cr_assert_eq(cfsr_journal_verify(fs, &site, NULL, NULL, NULL, &report), 0);
    cr_assert_eq(report.verdict, CFSR_VERIFY_SOUND);
    cr_assert_eq(cfsr_status_page_open(&site, &page), 0);
    cfsr_status_page_publish(page, 0, 0, 0);
    cr_assert_eq(cfsr_journal_verify(fs, &site, page, NULL, NULL, &report), 0);
    cr_assert_eq(report.verdict, CFSR_VERIFY_SOUND);
    cfsr_status_page_publish(page, 0, 4096, 3);
    cr_assert_eq(cfsr_journal_verify(fs, &site, page, NULL, NULL, &report), 0);
    cr_assert_eq(report.verdict, CFSR_VERIFY_DAMAGED);
    cfsr_status_page_close(page);
}

Test(journal_edges, a_digest_of_what_is_not_there_is_an_error)
{
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
    uint64_t end_lsn = fill(), entries;
    char path[CFSR_LANE_PATH_BYTES];

    put(3, 500, 16);
    record[32] ^= 1;
    plant(2 * site.segment_bytes);
    cr_assert_eq(cfsr_journal_digest_lane(fs, &site, 0, 0, end_lsn, digest, &entries),
                 -CFSR_E_DAMAGED);
    cr_assert_eq(unlink(cfsr_segment_path(&site, 0, site.segment_bytes, path, sizeof path)), 0);
    cr_assert_eq(cfsr_journal_digest_lane(fs, &site, 0, 0, end_lsn, digest, &entries),
                 -CFSR_E_MISSING_SEGMENT);
}

Test(journal_edges, nobody_has_acknowledged_anything)
{
    struct cfsr_status_page *page;

    cr_assert_eq(cfsr_acks_of(NULL, NULL, 9, 0), 0);
    cr_assert_eq(cfsr_acks_lowest(NULL, NULL, 0), CFSR_LSN_UNKNOWN);
    cr_assert_eq(cfsr_status_page_open(&site, &page), 0);
    cr_assert_eq(cfsr_acks_of(NULL, page, 9, 0), 0);
    cr_assert_eq(cfsr_acks_lowest(NULL, page, 0), CFSR_LSN_UNKNOWN);
    cfsr_status_page_close(page);
}

Test(journal_edges, retention_without_a_cap_and_with_a_clock_that_went_back)
{
    struct cfsr_gc_limits limits = {.policy = CFSR_GC_BY_AGE, .min_age_us = 10};
    struct cfsr_gc_facts facts = {.segment_count = 9,
                                  .segment_bytes = 100,
                                  .segment_end_lsn = 100,
                                  .lowest_ack_lsn = 50,
                                  .finished_us = 1000,
                                  .now_us = 500,
                                  .journal_bytes = UINT64_MAX / 2,
                                  .free_bytes = 1000,
                                  .total_bytes = 1000};

    cr_assert_eq(cfsr_gc_judge(&limits, &facts), CFSR_GC_KEEP, "finished in the future");
    facts.now_us = 1010;
    cr_assert_eq(cfsr_gc_judge(&limits, &facts), CFSR_GC_REMOVE);
    limits.policy = CFSR_GC_BY_ACK;
    cr_assert_eq(cfsr_gc_judge(&limits, &facts), CFSR_GC_KEEP);
    facts.only_detached_lack = true;
    cr_assert_eq(cfsr_gc_judge(&limits, &facts), CFSR_GC_KEEP, "nothing presses");
    limits.cap_bytes = 1;
    cr_assert_eq(cfsr_gc_judge(&limits, &facts), CFSR_GC_REMOVE_DETACHED);
    cr_assert_eq(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_WARN, 1, 1), 0);
    uint32_t least = cfsr_gc_pause_ms(CFSR_GC_PRESSURE_THROTTLE, 5, 0);
    uint32_t most = cfsr_gc_pause_ms(CFSR_GC_PRESSURE_DETACH, 5, 0);
    cr_assert_lt(least, most);
    cr_assert_eq(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_THROTTLE, UINT64_MAX, 1000), most);
    cr_assert_str_eq(cfsr_gc_pressure_name((enum cfsr_gc_pressure_level)77), "unknown");
}
