/*
 * test_journal_tail.c - the last segment when little of it is left: only its SHARDS record (a crash
 * tore the group behind it), or a file that was cut from outside.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/verify.h"
#include "support.h"
#include <cfsrepl/reader.h>

#define SHARDS_BYTES(shards) (CFSR_RECORD_HEADER_BYTES + CFSR_SHARDS_PAYLOAD_FIXED + 8u * (shards))

static struct cfsr_site site;

static void tear_down(void)
{
    test_site_remove(&site);
}

TestSuite(journal_tail, .fini = tear_down, .timeout = 100);

static void kill_writer(struct cfsr_journal *journal)
{
    test_snapshot(&site);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_restore(&site);
}

static void recover(struct cfsr_lane_state *state_out)
{
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, false, false, state_out) == 0,
              "%s", cfsr_error_message());
    cfsr_lane_state_fini(state_out);
}

static void assert_sound(void)
{
    struct cfsr_verify_report report;

    cr_assert(cfsr_journal_verify(cfsr_fs_blocking(), &site, NULL, NULL, NULL, &report) == 0);
    cr_assert(report.verdict == CFSR_VERIFY_SOUND);
}

/* Seven entries, of shards 0 and 1; then a segment with nothing but SHARDS. */
static uint64_t make_shards_alone(uint64_t *incarnation_out)
{
    static const uint8_t nothing[8192];
    struct cfsr_lane_state state;
    struct cfsr_journal *journal;
    uint64_t boundary;

    test_site_make(&site, 1, 2);
    journal = test_journal_open(&site);
    for (uint32_t i = 0; i < 7; i++)
        (void)test_append(journal, i < 5 ? 0 : 1, i + 1, 40);
    kill_writer(journal);
    journal = test_journal_open(&site); /* cuts the tail, begins the next segment, and is killed */
    boundary = cfsr_segment_first_lsn(&site, test_append(journal, 0, 8, 40).lsn);
    cr_assert(boundary > 0);
    kill_writer(journal);
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, true, true, &state) == 0);
    *incarnation_out = state.incarnation;
    cfsr_lane_state_fini(&state);
    test_write_at(&site, 0, boundary + SHARDS_BYTES(2), nothing, sizeof nothing);
    return boundary;
}

Test(journal_tail, shards_alone_know_how_many_entries_lie_below)
{
    struct cfsr_lane_state state;
    struct cfsr_journal *journal;
    uint64_t incarnation, boundary = make_shards_alone(&incarnation);

    recover(&state);
    cr_expect(state.entries == 7, "%llu entries", (unsigned long long)state.entries);
    cr_expect(state.cut_lsn == boundary + SHARDS_BYTES(2));
    cr_expect(state.incarnation == incarnation && !state.clean);
    cr_expect(state.end_lsn == boundary + site.segment_bytes);
    for (unsigned i = 0; i < 3; i++) { /* SHARDS and PAD stand there now, and no MARK */
        recover(&state);
        cr_expect(state.entries == 7, "recovery %u: %llu entries", i,
                  (unsigned long long)state.entries);
        cr_expect(state.cut_lsn == CFSR_LSN_UNKNOWN);
        cr_expect(state.incarnation == incarnation);
        cr_expect(state.end_lsn == boundary + site.segment_bytes);
    }
    journal = test_journal_open(&site);
    cr_expect(test_append(journal, 1, 9, 40).seq == 3);
    cr_assert(cfsr_journal_close(journal) == 0);
    recover(&state);
    cr_expect(state.entries == 8 && state.clean);
    assert_sound(); /* the MARKs count what there is */
}

/* ---- files that were cut ---- */

#define SEGMENTS 3

/* Segments 0, 1, 2, cleanly closed; the committed LSN. */
static uint64_t fill(void)
{
    struct cfsr_lane_state state;
    struct cfsr_journal *journal;

    test_site_make(&site, 1, 2);
    journal = test_journal_open(&site);
    for (uint32_t i = 0; i < 50; i++)
        (void)test_append(journal, i % 2, i, 100000);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, true, true, &state) == 0);
    cfsr_lane_state_fini(&state);
    cr_assert(cfsr_segment_first_lsn(&site, state.end_lsn) == 2 * site.segment_bytes);
    return state.end_lsn;
}

static uint64_t size_of(const char *path)
{
    struct stat status;

    cr_assert(stat(path, &status) == 0);
    return (uint64_t)status.st_size;
}

static uint8_t *load_body(const char *path)
{
    uint8_t *body = malloc(site.segment_bytes);
    FILE *file = fopen(path, "r");

    cr_assert(body != NULL && file != NULL);
    cr_assert(fseek(file, CFSR_SEGMENT_HEADER_BYTES, SEEK_SET) == 0);
    cr_assert(fread(body, 1, site.segment_bytes, file) == site.segment_bytes);
    (void)fclose(file);
    return body;
}

static void count_headers(void *user, const struct cfsr_finding *finding)
{
    if (finding->kind == CFSR_FINDING_DAMAGED_HEADER)
        ++*(unsigned *)user;
}

static void assert_found(uint64_t first_lsn)
{
    struct cfsr_verify_report report;
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    unsigned headers = 0;

    cr_assert(cfsr_journal_verify(cfsr_fs_blocking(), &site, NULL, count_headers, &headers,
                                  &report) == 0);
    cr_assert(report.verdict == CFSR_VERIFY_DAMAGED && headers == 1);
    cr_assert(cfsr_reader_open(site.data_dir, 0, first_lsn, &reader) == 0);
    cr_assert(cfsr_reader_next(reader, &view) == -CFSR_E_DAMAGED);
    cfsr_reader_close(reader);
}

/* Writes the records of the original body at and behind lsn again, as a peer's would be. */
static void refill(const uint8_t *body, uint64_t lsn, uint64_t end_lsn, uint64_t committed_lsn)
{
    while (lsn < end_lsn) {
        const uint8_t *record = body + lsn % site.segment_bytes;
        struct cfsr_record_header header;

        cfsr_record_header_load(record, &header);
        cr_assert(cfsr_journal_rewrite(cfsr_fs_blocking(), &site, 0, committed_lsn, lsn, record,
                                       cfsr_record_wire_bytes(&header), &lsn) == 0,
                  "%s", cfsr_error_message());
    }
}

/* Finds and repairs everything; the kind of the first gap. */
static enum cfsr_journal_gap_kind repair_all(const uint8_t *body, uint64_t committed_lsn)
{
    enum cfsr_journal_gap_kind first = CFSR_JOURNAL_GAP_RECORDS;
    struct cfsr_journal_check *check;
    struct cfsr_journal_gap gap;
    unsigned gaps = 0;
    int rc;

    cr_assert(cfsr_journal_check_open(cfsr_fs_blocking(), &site, 0, committed_lsn, &check) == 0);
    while ((rc = cfsr_journal_check_step(check, 1 << 20, &gap, NULL)) != CFSR_JOURNAL_CHECK_DONE) {
        cr_assert(rc >= 0 && gaps < 10, "%s", cfsr_error_message());
        if (rc == CFSR_JOURNAL_CHECK_MORE)
            continue;
        if (gaps++ == 0)
            first = gap.kind;
        if (gap.kind == CFSR_JOURNAL_GAP_RECORDS)
            refill(body, gap.begin_lsn, gap.end_lsn, committed_lsn);
        else
            cr_assert(cfsr_journal_rewrite_header(cfsr_fs_blocking(), &site, 0, committed_lsn,
                                                  gap.begin_lsn) == 0,
                      "%s", cfsr_error_message());
        cfsr_journal_check_seek(check, gap.begin_lsn);
    }
    cfsr_journal_check_close(check);
    return first;
}

Test(journal_tail, a_file_that_was_cut_is_damage_and_is_repaired)
{
    uint64_t committed_lsn = fill();
    uint64_t whole = CFSR_SEGMENT_HEADER_BYTES + site.segment_bytes;
    const uint64_t lengths[] = {0, 100, 4096, 4196, whole / 4, whole - 4096, whole - 1};

    for (unsigned i = 0; i < SEGMENTS * CFSR_ARRAY_LEN(lengths); i++) {
        uint64_t first = i % SEGMENTS * site.segment_bytes, len = lengths[i / SEGMENTS];
        char path[CFSR_LANE_PATH_BYTES];
        struct cfsr_lane_state state;
        uint8_t *body, *now;

        cfsr_segment_path(&site, 0, first, path, sizeof path);
        body = load_body(path);
        cr_assert(truncate(path, (off_t)len) == 0);
        for (unsigned read_only = 0; read_only < 2 && first == 2 * site.segment_bytes;
             read_only++) {
            cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, read_only == 1, false,
                                                &state) == -CFSR_E_DAMAGED);
            cr_assert(strstr(cfsr_error_message(), "length") != NULL);
            cr_assert(size_of(path) == len, "refused, and nothing was changed");
        }
        assert_found(first);
        cr_assert(repair_all(body, committed_lsn) == CFSR_JOURNAL_GAP_HEADER);
        cr_assert(size_of(path) == whole);
        now = load_body(path);
        cr_assert(memcmp(now, body, site.segment_bytes) == 0, "length %llu of segment %u",
                  (unsigned long long)len, i % SEGMENTS);
        free(now);
        free(body);
        recover(&state);
        cr_assert(state.end_lsn == committed_lsn && state.entries == 50 && state.clean);
        assert_sound();
    }
}
