/*
 * test_repair_faults.c - check, rewrite and serving of a lane while the disk fails, call after
 * call: an error and never a wrong answer; and the next try repairs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "support.h"
#include "tests/unit/faults.h"

enum {
    ENTRIES = 60,
    PAYLOAD_BYTES = 50000,
    BUFFER_BYTES = 4 << 20
};

static struct test_faults faults;
static struct cfsr_fs *fs;
static struct cfsr_site site;
static uint64_t committed_lsn;
static uint8_t *buffer;

static void set_up(void)
{
    struct cfsr_lane_state state;
    struct cfsr_journal *journal;

    test_site_make(&site, 1, 4);
    fs = test_faults_init(&faults, cfsr_fs_blocking());
    journal = test_journal_open(&site);
    for (unsigned i = 0; i < ENTRIES; i++)
        (void)test_append(journal, i % 4, i, PAYLOAD_BYTES);
    cr_assert_eq(cfsr_journal_close(journal), 0);
    cr_assert_eq(cfsr_journal_recover_lane(fs, &site, 0, true, false, &state), 0);
    committed_lsn = state.end_lsn;
    cfsr_lane_state_fini(&state);
    cr_assert_gt(committed_lsn, site.segment_bytes, "two segments");
    buffer = malloc(BUFFER_BYTES);
    cr_assert_not_null(buffer);
}

static void tear_down(void)
{
    free(buffer);
    test_site_remove(&site);
}

TestSuite(repair_faults, .init = set_up, .fini = tear_down, .timeout = 200);

/* Runs a check to its end: number of gaps (the last in *gap_out), or the error that stopped it. */
static int check_all(struct cfsr_journal_gap *gap_out)
{
    struct cfsr_journal_check *check;
    struct cfsr_journal_gap gap;
    int gaps = 0, rc = cfsr_journal_check_open(fs, &site, 0, committed_lsn, &check);

    if (rc < 0)
        return rc;
    do {
        rc = cfsr_journal_check_step(check, 1u << 20, &gap, NULL);
        if (rc == CFSR_JOURNAL_CHECK_GAP) {
            *gap_out = gap;
            gaps++;
        }
    } while (rc == CFSR_JOURNAL_CHECK_MORE || rc == CFSR_JOURNAL_CHECK_GAP);
    cfsr_journal_check_close(check);
    return rc < 0 ? rc : gaps;
}

Test(repair_faults, a_check_finds_nothing_in_a_sound_lane_or_says_what_it_could_not_read)
{
    struct cfsr_journal_gap gap;

    faults.forever = true; /* once is read again */
    for (unsigned n = 1;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = check_all(&gap);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        cr_assert_eq(rc, fired ? -EIO : 0, "call %u: %d", n, rc);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = check_all(&gap);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (!failed)
            break;
        cr_assert_eq(rc, -ENOMEM, "allocation %u: %d", n, rc);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

/* Records of the first segment from its start, as a peer would send them. */
static struct cfsr_scan copy_records(uint64_t lsn)
{
    struct cfsr_scan scan;

    cr_assert_eq(
        cfsr_journal_read_run(fs, &site, 0, lsn, committed_lsn, 5, buffer, BUFFER_BYTES, &scan), 0,
        "%s", cfsr_error_message());
    cr_assert_gt(scan.record_count, 1);
    return scan;
}

Test(repair_faults, a_rewrite_fails_at_every_call_and_the_next_one_repairs)
{
    struct cfsr_scan scan = copy_records(0);
    struct cfsr_journal_gap gap;
    uint64_t end_lsn;

    for (unsigned n = 1;; n++) {
        test_flip_bit(&site, 0, scan.last.lsn + 60, 2);
        cr_assert_eq(check_all(&gap), 1);
        cr_assert_eq(gap.kind, CFSR_JOURNAL_GAP_RECORDS);
        cr_assert(gap.begin_lsn <= scan.last.lsn && gap.end_lsn >= scan.next_lsn);
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_journal_rewrite(fs, &site, 0, committed_lsn, 0, buffer, scan.raw_bytes,
                                      &end_lsn);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        if (rc < 0) {
            cr_assert(fired);
            cr_assert_eq(cfsr_journal_rewrite(fs, &site, 0, committed_lsn, 0, buffer,
                                              scan.raw_bytes, &end_lsn),
                         0, "%s", cfsr_error_message());
        }
        cr_assert_eq(end_lsn, scan.next_lsn);
        cr_assert_eq(check_all(&gap), 0, "call %u", n);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

Test(repair_faults, a_rewrite_refuses_what_is_not_of_the_place)
{
    struct cfsr_scan scan = copy_records(0);
    struct cfsr_journal_gap gap;
    uint64_t end_lsn = 77;

    buffer[70] ^= 1;
    cr_assert_eq(
        cfsr_journal_rewrite(fs, &site, 0, committed_lsn, 0, buffer, scan.raw_bytes, &end_lsn),
        -CFSR_E_CHECKSUM);
    buffer[70] ^= 1;
    cr_assert_eq(
        cfsr_journal_rewrite(fs, &site, 0, committed_lsn, 8, buffer, scan.raw_bytes, &end_lsn),
        -CFSR_E_CHECKSUM, "another place");
    cr_assert_lt(
        cfsr_journal_rewrite(fs, &site, 0, committed_lsn, 0, buffer, scan.raw_bytes - 8, &end_lsn),
        0, "half a record");
    cr_assert_lt(cfsr_journal_rewrite(fs, &site, 0, committed_lsn, 0, buffer, 0, &end_lsn), 0);
    cr_assert_eq(
        cfsr_journal_rewrite(fs, &site, 0, scan.last.lsn, 0, buffer, scan.raw_bytes, &end_lsn),
        -EINVAL, "beyond what is committed");
    cr_assert_eq(end_lsn, 77, "an output is set on success only");
    cr_assert_eq(check_all(&gap), 0, "and nothing was touched");
}

/* A file that ends where its records do: nothing but zeros is lost. */
static void cut_short(const char *path)
{
    cr_assert_eq(truncate(path, (off_t)cfsr_segment_file_offset(&site, committed_lsn)), 0);
}

Test(repair_faults, a_short_segment_gets_its_length_back)
{
    uint64_t first = cfsr_segment_first_lsn(&site, committed_lsn - 1), size = 0;
    static const int errors[] = {-EIO, -EOPNOTSUPP};
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_journal_gap gap;

    cfsr_segment_path(&site, 0, first, path, sizeof path);
    for (unsigned n = 1, i = 0; i < 2; n++) {
        struct cfsr_file *file;

        cut_short(path);
        cr_assert_eq(check_all(&gap), 1);
        cr_assert(gap.kind == CFSR_JOURNAL_GAP_HEADER && gap.begin_lsn == first);
        test_faults_arm(&faults, n, errors[i]);
        int rc = cfsr_journal_rewrite_header(fs, &site, 0, committed_lsn, first);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        cr_assert(rc == 0 || fired, "call %u: %s", n, cfsr_error_message());
        if (rc < 0)
            cr_assert_eq(cfsr_journal_rewrite_header(fs, &site, 0, committed_lsn, first), 0);
        cr_assert_eq(cfsr_file_open(fs, path, CFSR_OPEN_READ, &file), 0);
        cr_assert_eq(cfsr_file_size(file, &size), 0);
        cfsr_file_close(file);
        cr_assert_eq(size, CFSR_SEGMENT_HEADER_BYTES + site.segment_bytes, "call %u", n);
        cr_assert_eq(check_all(&gap), 0, "call %u", n);
        if (!fired) {
            i++;
            n = 0;
        }
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

/* A header that is damaged, or a file that is gone: made anew whatever fails at first. */
static void repair_header(bool missing)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_journal_gap gap;
    uint8_t rubbish[64];

    memset(rubbish, 0x5a, sizeof rubbish);
    cfsr_segment_path(&site, 0, 0, path, sizeof path);
    for (unsigned n = 1;; n++) {
        struct cfsr_file *file;

        if (missing) /* an older segment must be there, or it was retention */
            cfsr_segment_path(&site, 0, site.segment_bytes, path, sizeof path);
        if (missing) {
            cr_assert_eq(unlink(path), 0);
        } else {
            cr_assert_eq(cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file), 0);
            cr_assert_geq(cfsr_file_pwrite(file, rubbish, sizeof rubbish, 16, false), 0);
            cfsr_file_close(file);
        }
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_journal_rewrite_header(fs, &site, 0, committed_lsn,
                                             missing ? site.segment_bytes : 0);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        if (rc < 0) {
            cr_assert(fired, "call %u: %s", n, cfsr_error_message());
            cr_assert_eq(cfsr_journal_rewrite_header(fs, &site, 0, committed_lsn,
                                                     missing ? site.segment_bytes : 0),
                         0, "call %u: %s", n, cfsr_error_message());
        }
        if (!missing)
            cr_assert_eq(check_all(&gap), 0);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

Test(repair_faults, a_damaged_header_is_made_anew)
{
    repair_header(false);
}

Test(repair_faults, a_missing_segment_is_made_anew)
{
    repair_header(true);
}

Test(repair_faults, serving_gives_the_records_or_an_error)
{
    struct cfsr_scan right = copy_records(0), scan;
    uint8_t *copy = malloc(BUFFER_BYTES);

    cr_assert_not_null(copy);
    faults.forever = true; /* once is read again */
    for (unsigned n = 1;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_journal_read_run(fs, &site, 0, 0, committed_lsn, 5, copy, BUFFER_BYTES,
                                       &scan);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        cr_assert_eq(rc, fired ? -EIO : 0, "call %u: %d", n, rc);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    cr_assert_eq(scan.raw_bytes, right.raw_bytes);
    cr_assert_eq(memcmp(copy, buffer, scan.raw_bytes), 0);
    cr_assert_eq(
        cfsr_journal_read_run(fs, &site, 0, 8, committed_lsn, 0, copy, BUFFER_BYTES, &scan),
        -CFSR_E_DAMAGED, "no record begins there");
    cr_assert_eq(cfsr_journal_read_run(fs, &site, 0, 0, 0, 0, copy, BUFFER_BYTES, &scan), 0);
    cr_assert_eq(scan.record_count, 0, "nothing below the limit");
    uint64_t lsn = 0;
    for (uint32_t at = 0; at < right.raw_bytes; lsn = right.lsn + at) {
        struct cfsr_record_header header;

        cfsr_record_header_load(buffer + at, &header);
        if (cfsr_record_is_entry(header.op))
            break;
        at += cfsr_record_wire_bytes(&header);
    }
    cr_assert_lt(lsn, right.next_lsn);
    cr_assert_eq(cfsr_journal_read_run(fs, &site, 0, lsn, committed_lsn, 0, copy, 1000, &scan),
                 -CFSR_E_TOO_LARGE);
    free(copy);
}

/* Digests of all windows, a few at a time: their number, or the error. */
static int digest_all(struct cfsr_window_digest *windows_out, uint32_t max)
{
    struct cfsr_journal_digests *digests;
    uint32_t count = 0, got;
    uint64_t done;
    int rc = cfsr_journal_digests_open(fs, &site, 0, 0, committed_lsn, &digests);

    if (rc < 0)
        return rc;
    do {
        got = 0;
        rc = cfsr_journal_digests_step(digests, 1, windows_out + count,
                                       max - count < 2 ? max - count : 2, &got, &done);
        count += got;
    } while (rc == 1);
    cfsr_journal_digests_close(digests);
    return rc < 0 ? rc : (int)count;
}

Test(repair_faults, window_digests_are_right_or_an_error)
{
    enum {
        WINDOWS_MAX = 16
    };
    static struct cfsr_window_digest right[WINDOWS_MAX], found[WINDOWS_MAX];
    int count = digest_all(right, WINDOWS_MAX);

    cr_assert_gt(count, 1, "%s", cfsr_error_message());
    faults.forever = true;
    for (unsigned n = 1;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = digest_all(found, WINDOWS_MAX);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        cr_assert_eq(rc, fired ? -EIO : count, "call %u: %d", n, rc);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    cr_assert_eq(memcmp(right, found, sizeof right), 0);
    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = digest_all(found, WINDOWS_MAX);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (!failed)
            break;
        cr_assert(rc == -ENOMEM || rc == count, "allocation %u: %d", n, rc);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    test_flip_bit(&site, 0, 60, 1);
    cr_assert_eq(digest_all(found, WINDOWS_MAX), -CFSR_E_DAMAGED);
    cfsr_journal_digests_close(NULL);
}
