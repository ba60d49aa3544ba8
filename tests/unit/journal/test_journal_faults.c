/*
 * test_journal_faults.c - every call to the disk and every allocation of writer, recovery, reader,
 * verify and digest fails once: a typed error and no loss. The blocking backend is replaced by one
 * in front of it that counts.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "journal/digest.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"
#include "journal/verify.h"
#include "support.h"
#include "tests/unit/faults.h"
#include <cfsrepl/journal.h>
#include <cfsrepl/reader.h>

static struct test_faults faults;
static bool faulty;

struct cfsr_fs *__real_cfsr_fs_blocking(void);
struct cfsr_fs *__wrap_cfsr_fs_blocking(void);
struct cfsr_fs *__wrap_cfsr_fs_blocking(void)
{
    return faulty ? &faults.fs : __real_cfsr_fs_blocking();
}

static struct cfsr_site site;

static void set_up(void)
{
    test_site_make(&site, 1, 4);
    (void)test_faults_init(&faults, __real_cfsr_fs_blocking());
    faulty = true;
}

static void tear_down(void)
{
    faulty = false;
    test_site_remove(&site);
}

TestSuite(journal_faults, .init = set_up, .fini = tear_down, .timeout = 200);

static int open_journal(struct cfsr_journal **journal_out)
{
    const struct cfsr_journal_options options = {.opts_size = sizeof options,
                                                 .data_dir = site.data_dir,
                                                 .buffer_bytes = 1u << 20,
                                                 .idle_mark_ms = 100000};

    return cfsr_journal_open(&options, journal_out);
}

static int append(struct cfsr_journal *journal, uint64_t inode, uint32_t payload_bytes)
{
    static uint8_t payload[1 << 20];
    const struct cfsr_entry entry = {.shard_id = (uint32_t)(inode % 4),
                                     .inode = inode,
                                     .op = CFSR_OP_WRITE,
                                     .flags = CFSR_ENTRY_OPAQUE,
                                     .payload = payload,
                                     .payload_bytes = payload_bytes};

    return cfsr_journal_append(journal, &entry, 1, NULL, NULL);
}

/* Reads the whole lane; each inode at most once and the acknowledged ones all. */
static void check_all_there(const bool *acked, unsigned count)
{
    unsigned seen[256] = {0};
    struct cfsr_reader *reader;
    struct cfsr_record_view view;
    int rc;

    cr_assert_eq(cfsr_reader_open(site.data_dir, 0, CFSR_READER_OLDEST, &reader), 0);
    while ((rc = cfsr_reader_next(reader, &view)) == 1)
        if (view.op <= 10)
            seen[view.inode]++;
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    cfsr_reader_close(reader);
    for (unsigned i = 0; i < count; i++) {
        cr_assert_leq(seen[i], 1, "entry %u is there %u times", i, seen[i]);
        cr_assert(!acked[i] || seen[i] == 1, "entry %u was acknowledged and is lost", i);
    }
}

Test(journal_faults, no_acknowledged_entry_is_lost_whatever_call_fails)
{
    enum {
        ENTRIES = 6
    };

    for (unsigned n = 1; n < TEST_SWEEP_MAX; n++) {
        bool acked[ENTRIES] = {false};
        struct cfsr_journal *journal;

        cr_assert_eq(open_journal(&journal), 0, "%s", cfsr_error_message());
        test_faults_arm(&faults, n, -EIO);
        for (unsigned i = 0; i < ENTRIES; i++)
            acked[i] = append(journal, i, 700000) == 0;
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        (void)cfsr_journal_close(journal);
        cr_assert_eq(open_journal(&journal), 0, "call %u: %s", n, cfsr_error_message());
        cr_assert_eq(cfsr_journal_close(journal), 0);
        check_all_there(acked, ENTRIES);
        test_site_remove(&site);
        test_site_make(&site, 1, 4);
        if (!fired)
            return;
    }
    cr_assert_fail("the sweep does not end");
}

Test(journal_faults, open_fails_at_every_call_and_then_succeeds)
{
    struct cfsr_journal *journal;
    unsigned n = 1;

    cr_assert_eq(open_journal(&journal), 0);
    cr_assert_eq(append(journal, 1, 100), 0);
    cr_assert_eq(cfsr_journal_close(journal), 0);
    for (; n < TEST_SWEEP_MAX; n++) {
        test_faults_arm(&faults, n, -EMFILE);
        int rc = open_journal(&journal);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        if (rc == 0)
            cr_assert_eq(cfsr_journal_close(journal), 0);
        else
            cr_assert(fired);
        if (!fired)
            break;
    }
    cr_assert_gt(n, 8);
    cr_assert_lt(n, TEST_SWEEP_MAX);
    check_all_there((const bool[]){false, true}, 2);
}

Test(journal_faults, open_without_memory)
{
    struct cfsr_journal *journal;

    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = open_journal(&journal);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (rc == 0)
            cr_assert_eq(cfsr_journal_close(journal), 0);
        if (!failed)
            break;
        cr_assert(rc == 0 || rc == -ENOMEM, "allocation %u: %d", n, rc);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

/* A lane of three segments, closed cleanly. */
static void fill_lane(void)
{
    struct cfsr_journal *journal;

    cr_assert_eq(open_journal(&journal), 0);
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(append(journal, i, 700000), 0);
    cr_assert_eq(cfsr_journal_close(journal), 0);
}

Test(journal_faults, recovery_gives_the_error_and_changes_nothing)
{
    struct cfsr_lane_state whole, state;

    fill_lane();
    cr_assert_eq(cfsr_journal_recover_lane(&faults.fs, &site, 0, true, false, &whole), 0);
    for (int variant = 0; variant < 4; variant++) {
        bool read_only = variant % 2 == 0;

        faults.short_reads = variant >= 2;
        for (unsigned n = 1;; n++) {
            test_faults_arm(&faults, n, -EIO);
            int rc = cfsr_journal_recover_lane(&faults.fs, &site, 0, read_only, false, &state);
            bool fired = faults.fired;
            test_faults_arm(&faults, 0, 0);
            if (rc == 0) {
                cr_assert(!fired || variant >= 2, "call %u failed and nobody noticed", n);
                cfsr_lane_state_fini(&state);
            }
            if (!fired)
                break;
            cr_assert_lt(n, TEST_SWEEP_MAX);
        }
        if (variant >= 2)
            break; /* half of a segment is a torn tail to whoever may cut */
    }
    faults.short_reads = false;
    cr_assert_eq(cfsr_journal_recover_lane(&faults.fs, &site, 0, true, false, &state), 0);
    cr_assert_eq(state.end_lsn, whole.end_lsn);
    cr_assert_eq(state.entries, whole.entries);
    cfsr_lane_state_fini(&state);
    cfsr_lane_state_fini(&whole);
}

Test(journal_faults, recovery_of_a_torn_tail_fails_at_every_call_and_then_succeeds)
{
    struct cfsr_lane_state state = {0};
    struct cfsr_journal *journal;

    cr_assert_eq(open_journal(&journal), 0);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(append(journal, i, 700000), 0);
    test_snapshot(&site);
    cr_assert_eq(cfsr_journal_close(journal), 0);
    test_restore(&site);
    for (unsigned n = 1;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_journal_recover_lane(&faults.fs, &site, 0, false, false, &state);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        if (rc == 0)
            cfsr_lane_state_fini(&state);
        if (!fired) {
            cr_assert_eq(rc, 0);
            break;
        }
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    cr_assert_eq(state.entries, 4);
    check_all_there((const bool[]){true, true, true, true}, 4);
}

Test(journal_faults, verify_says_what_it_could_not_read)
{
    struct cfsr_verify_report report;

    fill_lane();
    for (int variant = 0; variant < 2; variant++) {
        faults.short_reads = variant == 1;
        for (unsigned n = 1;; n++) {
            test_faults_arm(&faults, n, -EIO);
            int rc = cfsr_journal_verify(&faults.fs, &site, NULL, NULL, NULL, &report);
            bool fired = faults.fired;
            test_faults_arm(&faults, 0, 0);
            cr_assert_eq(rc, 0);
            if (report.verdict == CFSR_VERIFY_SOUND) /* a short read alone is read on */
                cr_assert(report.entries == 6 && (!fired || variant == 1), "call %u, variant %d", n,
                          variant);
            cr_assert(fired || report.verdict == CFSR_VERIFY_SOUND);
            if (!fired)
                break;
            cr_assert_lt(n, TEST_SWEEP_MAX);
        }
    }
    faults.short_reads = false;
    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = cfsr_journal_verify(&faults.fs, &site, NULL, NULL, NULL, &report);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (!failed)
            break;
        cr_assert(rc == -ENOMEM || report.verdict != CFSR_VERIFY_SOUND);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

static uint64_t end_lsn;

static int digest_lane(uint8_t digest_out[CFSR_DIGEST_LEN_BYTES])
{
    uint64_t entries;

    return cfsr_journal_digest_lane(&faults.fs, &site, 0, 0, end_lsn, digest_out, &entries);
}

Test(journal_faults, digest_is_right_or_an_error)
{
    uint8_t right[CFSR_DIGEST_LEN_BYTES], digest[CFSR_DIGEST_LEN_BYTES];
    struct cfsr_lane_state state;

    fill_lane();
    cr_assert_eq(cfsr_journal_recover_lane(&faults.fs, &site, 0, true, false, &state), 0);
    end_lsn = state.end_lsn;
    cfsr_lane_state_fini(&state);
    cr_assert_eq(digest_lane(right), 0, "%s", cfsr_error_message());
    for (unsigned n = 1;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = digest_lane(digest);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        if (rc == 0)
            cr_assert_eq(memcmp(right, digest, sizeof right), 0, "call %u", n);
        cr_assert(rc < 0 || !fired, "call %u failed and nobody noticed", n);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = digest_lane(digest);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (!failed)
            break;
        cr_assert(rc == -ENOMEM || memcmp(right, digest, sizeof right) == 0);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

/* ---- reader ---- */

Test(journal_faults, reader_open_fails_at_every_call)
{
    struct cfsr_reader *reader = NULL;

    fill_lane();
    for (unsigned n = 1;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_reader_open(site.data_dir, 0, CFSR_READER_OLDEST, &reader);
        bool fired = faults.fired;
        test_faults_arm(&faults, 0, 0);
        if (rc == 0)
            cfsr_reader_close(reader);
        if (!fired)
            break;
        cr_assert_eq(rc, -EIO);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = cfsr_reader_open(site.data_dir, 0, CFSR_READER_OLDEST, &reader);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (rc == 0)
            cfsr_reader_close(reader);
        if (!failed)
            break;
        cr_assert_eq(rc, -ENOMEM);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    cr_assert_eq(cfsr_reader_open(site.data_dir, 5, 0, &reader), -EINVAL);
    cr_assert_eq(cfsr_reader_open("/nowhere/at/all", 0, 0, &reader), -ENOENT);
    cfsr_reader_close(NULL);
}

Test(journal_faults, a_reader_that_met_an_error_goes_on_where_it_stood)
{
    struct cfsr_reader *reader;
    struct cfsr_record_view view;
    uint64_t committed, oldest;

    fill_lane();
    for (unsigned n = 1;; n++) {
        unsigned entries = 0, errors = 0;
        int rc = 1;

        cr_assert_eq(cfsr_reader_open(site.data_dir, 0, 0, &reader), 0);
        test_faults_arm(&faults, n, -EIO);
        while (rc != 0 && errors < 10) {
            uint64_t at = cfsr_reader_position(reader);

            rc = cfsr_reader_next(reader, &view);
            if (rc < 0) {
                errors++;
                cr_assert_eq(cfsr_reader_position(reader), at);
            } else {
                entries += rc == 1 && view.op <= 10;
            }
        }
        cr_assert_eq(entries, 6, "call %u", n);
        bool fired = faults.fired;
        test_faults_arm(&faults, 1, -EIO);
        cr_assert_eq(cfsr_reader_oldest(reader, &oldest), -EIO);
        test_faults_arm(&faults, 0, 0);
        cr_assert_eq(cfsr_reader_committed(reader, &committed), 0);
        cr_assert_eq(committed, cfsr_reader_position(reader));
        cfsr_reader_close(reader);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

Test(journal_faults, reader_names_what_is_gone_missing_or_damaged)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_reader *reader;
    struct cfsr_record_view view;
    uint64_t segment_bytes = site.segment_bytes;
    int rc;

    fill_lane();
    cr_assert_eq(cfsr_reader_open(site.data_dir, 0, 8, &reader), 0);
    cr_assert_eq(cfsr_reader_next(reader, &view), -CFSR_E_DAMAGED, "no record begins at 8");
    cfsr_reader_seek(reader, 0);
    test_flip_bit(&site, 0, 60, 3);
    while ((rc = cfsr_reader_next(reader, &view)) == 1)
        ;
    cr_assert_eq(rc, -CFSR_E_DAMAGED);
    cr_assert_eq(unlink(cfsr_segment_path(&site, 0, segment_bytes, path, sizeof path)), 0);
    cfsr_reader_seek(reader, segment_bytes);
    cr_assert_eq(cfsr_reader_next(reader, &view), -CFSR_E_MISSING_SEGMENT);
    cr_assert_eq(unlink(cfsr_segment_path(&site, 0, 0, path, sizeof path)), 0);
    cfsr_reader_seek(reader, 0);
    cr_assert_eq(cfsr_reader_next(reader, &view), -CFSR_E_GONE);
    cfsr_reader_close(reader);
}

Test(journal_faults, a_wait_that_nothing_ends_times_out)
{
    struct cfsr_reader *reader;
    uint64_t committed;

    fill_lane();
    cr_assert_eq(cfsr_reader_open(site.data_dir, 0, 0, &reader), 0);
    cr_assert_eq(cfsr_reader_wait(reader, 0), 1, "there is something");
    cr_assert_eq(cfsr_reader_committed(reader, &committed), 0);
    cfsr_reader_seek(reader, committed);
    cr_assert_eq(cfsr_reader_wait(reader, 0), 0);
    cr_assert_eq(cfsr_reader_wait(reader, 5), 0);
    cfsr_reader_close(reader);
}

/* After a reboot nobody has said how far the lanes go: the reader looks for itself. */
Test(journal_faults, without_a_writer_in_this_boot_the_reader_looks)
{
    char path[CFSR_PATH_MAX + 32];
    struct cfsr_reader *reader;
    struct cfsr_record_view view;
    uint64_t committed;

    fill_lane();
    (void)snprintf(path, sizeof path, "%s/run/status", site.data_dir);
    for (unsigned n = 1;; n++) {
        unsigned entries = 0;

        cr_assert_eq(unlink(path), 0);
        cr_assert_eq(cfsr_reader_open(site.data_dir, 0, 0, &reader), 0);
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_reader_committed(reader, &committed);
        bool fired = faults.fired;
        if (fired && rc == -EIO) {
            test_faults_arm(&faults, 1, -EIO);
            cr_assert_eq(cfsr_reader_wait(reader, 0), -EIO);
            test_faults_arm(&faults, 1, -EIO);
            cr_assert_eq(cfsr_reader_next(reader, &view), -EIO);
        } else {
            cr_assert_eq(rc, 0);
        }
        test_faults_arm(&faults, 0, 0);
        cr_assert_eq(cfsr_reader_wait(reader, -1), 1, "there is something, so it does not wait");
        while ((rc = cfsr_reader_next(reader, &view)) == 1)
            entries += view.op <= 10;
        cr_assert_eq(rc, 0);
        cr_assert_eq(entries, 6);
        cfsr_reader_close(reader);
        if (!fired)
            break;
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}
