/*
 * verify.c - the whole-journal check; see verify.h.
 *
 * Thread:     the caller's. Reads only.
 * Invariants: every byte below a lane's end is either counted as a good record or inside a reported
 * finding.
 */
#include "journal/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "journal/acks.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include <cfsrepl/error.h>

struct verify {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    void (*on_finding)(void *user, const struct cfsr_finding *finding);
    void *user;
    struct cfsr_verify_report report;
    bool unreadable;

    /* Of the lane being checked. */
    uint32_t lane;
    struct cfsr_segment_map map;
    struct cfsr_lane_cursor cursor;
    uint64_t *next_seq;
    uint32_t shard_count;
    uint64_t committed_lsn; /* CFSR_LSN_UNKNOWN: nobody says */
    uint64_t marked_lsn;    /* highest committed LSN in a MARK so far */
    uint64_t incarnation;
    uint64_t entries; /* cumulative; valid if entries_known */
    bool entries_known;
    bool clean; /* the last record is a closing MARK */
};

static const char advice_repair[] =
    "run \"cfs-repl journal verify --repair\": a peer that holds the range refills it";
static const char advice_foreign[] = "move it out of the journal directory";
static const char advice_tail[] =
    "nothing: the next writer cuts it (or run \"cfs-repl journal recover\")";
static const char advice_read[] = "check permissions and the disk, then verify again";

const char *cfsr_finding_name(enum cfsr_finding_kind kind)
{
    static const char *const names[] = {
        [CFSR_FINDING_TORN_TAIL] = "torn_tail",
        [CFSR_FINDING_DAMAGED_RECORD] = "damaged_record",
        [CFSR_FINDING_DAMAGED_HEADER] = "damaged_header",
        [CFSR_FINDING_MISSING_SEGMENT] = "missing_segment",
        [CFSR_FINDING_FOREIGN_SEGMENT] = "foreign_segment",
        [CFSR_FINDING_FOREIGN_FILE] = "foreign_file",
        [CFSR_FINDING_BAD_ORDER] = "bad_order",
        [CFSR_FINDING_BAD_MARK] = "bad_mark",
        [CFSR_FINDING_UNREADABLE] = "unreadable",
    };

    return names[kind];
}

static void report(struct verify *v, enum cfsr_finding_kind kind, uint64_t lsn, uint64_t end_lsn,
                   int rc, const char *reason, const char *advice)
{
    struct cfsr_finding finding = {
        .kind = kind,
        .lane = v->lane,
        .segment_lsn = cfsr_segment_first_lsn(v->site, lsn),
        .lsn = lsn,
        .end_lsn = end_lsn,
        .rc = rc,
        .reason = reason,
        .advice = advice,
    };

    v->report.findings++;
    if (kind == CFSR_FINDING_UNREADABLE)
        v->unreadable = true;
    else if (kind != CFSR_FINDING_TORN_TAIL)
        v->report.damages++;
    if (v->on_finding != NULL)
        v->on_finding(v->user, &finding);
}

static void check_mark(struct verify *v, const uint8_t *payload, uint64_t lsn)
{
    uint64_t incarnation = cfsr_load_le64(payload), committed = cfsr_load_le64(payload + 8);
    uint64_t entries = cfsr_load_le64(payload + 16);

    if (incarnation < v->incarnation || committed < v->marked_lsn)
        report(v, CFSR_FINDING_BAD_MARK, lsn, lsn, -CFSR_E_BAD_ORDER,
               "MARK goes back in incarnation or commit point", advice_repair);
    if (v->entries_known && entries != v->entries)
        report(v, CFSR_FINDING_BAD_MARK, lsn, lsn, -CFSR_E_BAD_ORDER,
               "MARK counts other entries than there are", advice_repair);
    v->incarnation = cfsr_max_u64(v->incarnation, incarnation);
    v->marked_lsn = cfsr_max_u64(v->marked_lsn, committed);
    v->entries = entries;
    v->entries_known = true;
    v->clean = (cfsr_load_le32(payload + 32) & CFSR_MARK_CLEAN_CLOSE) != 0;
}

/* Counts the run the cursor has checked, and checks what its MARKs say. */
static void count_run(struct verify *v)
{
    const struct cfsr_scan *scan = &v->cursor.scan;
    const uint8_t *record = scan->data, *end = scan->data + scan->raw_bytes;
    uint64_t lsn = scan->lsn;

    while (record < end) {
        struct cfsr_record_header header;

        cfsr_record_header_load(record, &header);
        v->clean = false;
        if (header.op == CFSR_RECORD_MARK)
            check_mark(v, record + CFSR_RECORD_HEADER_BYTES, lsn);
        else if (cfsr_record_is_entry(header.op))
            v->entries++;
        record += cfsr_record_wire_bytes(&header);
        lsn += cfsr_record_total_bytes(&header);
    }
    v->report.records += scan->record_count;
    v->report.entries += scan->entry_count;
    v->report.bytes += scan->next_lsn - scan->lsn;
}

static void forget_counts(struct verify *v)
{
    memset(v->next_seq, 0, v->shard_count * sizeof *v->next_seq);
    v->entries_known = false;
}

/* A bad record at the cursor. True: the lane ends here (torn or open tail); false: reported, the
 * cursor is behind it. */
static bool handle_bad_record(struct verify *v, int rc, uint64_t limit)
{
    uint64_t lsn = v->cursor.lsn, last_segment = v->map.lsns[v->map.count - 1], mark_lsn = 0,
             last_byte = lsn, next;
    int covered = 1;

    if (v->committed_lsn == CFSR_LSN_UNKNOWN && rc != -CFSR_E_BAD_ORDER && rc != -CFSR_E_FOREIGN)
        covered = cfsr_journal_search_cover(v->fs, v->site, v->lane, lsn, last_segment, &mark_lsn,
                                            &last_byte);
    if (covered < 0) {
        report(v, CFSR_FINDING_UNREADABLE, lsn, lsn, covered, cfsr_strerror(covered), advice_read);
        return true;
    }
    if (covered == 0) {
        if (!v->clean && last_byte > lsn)
            report(v, CFSR_FINDING_TORN_TAIL, lsn, last_byte, rc, "the last commit was interrupted",
                   advice_tail);
        return true;
    }
    next = cfsr_lane_cursor_find_next(&v->cursor, lsn, limit);
    report(v, rc == -CFSR_E_BAD_ORDER ? CFSR_FINDING_BAD_ORDER : CFSR_FINDING_DAMAGED_RECORD, lsn,
           next, rc, cfsr_strerror(rc), advice_repair);
    forget_counts(v);
    v->cursor.lsn = next;
    return next == limit && limit == v->committed_lsn;
}

/* The segment could not be opened or its header is wrong. */
static void report_segment(struct verify *v, uint64_t first_lsn, int rc)
{
    uint64_t end_lsn = first_lsn + v->site->segment_bytes;

    forget_counts(v);
    if (rc == -CFSR_E_FOREIGN)
        report(v, CFSR_FINDING_FOREIGN_SEGMENT, first_lsn, end_lsn, rc, cfsr_error_message(),
               advice_foreign);
    else if (rc == -CFSR_E_FORMAT || rc == -CFSR_E_CHECKSUM || rc == -CFSR_E_VERSION)
        report(v, CFSR_FINDING_DAMAGED_HEADER, first_lsn, end_lsn, rc, cfsr_error_message(),
               advice_repair);
    else if (rc != -ENOENT) /* that one was recycled while we looked */
        report(v, CFSR_FINDING_UNREADABLE, first_lsn, end_lsn, rc, cfsr_error_message(),
               advice_read);
}

/* True: the lane ends in this segment. */
static bool verify_segment(struct verify *v, uint64_t first_lsn)
{
    uint64_t limit = cfsr_min_u64(first_lsn + v->site->segment_bytes, v->committed_lsn);
    bool first = true;

    v->report.segments++;
    cfsr_lane_cursor_seek(&v->cursor, first_lsn);
    v->cursor.next_seq = v->next_seq;
    for (;;) {
        int rc = cfsr_lane_cursor_next(&v->cursor, limit);

        if (v->cursor.scan.record_count > 0) {
            if (first && v->cursor.scan.lsn == first_lsn &&
                v->cursor.scan.data[44] != CFSR_RECORD_SHARDS)
                report(v, CFSR_FINDING_BAD_ORDER, first_lsn, first_lsn, -CFSR_E_BAD_ORDER,
                       "the segment does not begin with its SHARDS record", advice_repair);
            first = false;
            count_run(v);
        }
        if (rc == 0)
            return limit == v->committed_lsn;
        if (rc == 1)
            continue;
        if (v->cursor.file == NULL) {
            report_segment(v, first_lsn, rc);
            return false;
        }
        if (rc != -CFSR_E_CHECKSUM && rc != -CFSR_E_FORMAT && rc != -CFSR_E_FOREIGN &&
            rc != -CFSR_E_BAD_ORDER) {
            report(v, CFSR_FINDING_UNREADABLE, v->cursor.lsn, v->cursor.lsn, rc, cfsr_strerror(rc),
                   advice_read);
            return false;
        }
        if (handle_bad_record(v, rc, limit))
            return true;
    }
}

static void verify_lane(struct verify *v, const struct cfsr_status_page *page)
{
    uint64_t known_lsn, end_lsn;
    int rc;

    v->committed_lsn = page == NULL ? CFSR_LSN_UNKNOWN : cfsr_status_page_committed(page, v->lane);
    v->marked_lsn = 0;
    v->incarnation = 0;
    v->entries = 0;
    v->clean = false;
    forget_counts(v);
    /* Before the segments are listed: what is known now was there already. */
    rc = cfsr_acks_highest(v->fs, v->site, v->lane, &known_lsn);
    if (rc < 0) {
        report(v, CFSR_FINDING_UNREADABLE, 0, 0, rc, cfsr_error_message(), advice_read);
        return;
    }
    if (v->committed_lsn != CFSR_LSN_UNKNOWN)
        known_lsn = cfsr_max_u64(known_lsn, v->committed_lsn);
    rc = cfsr_segment_map_load(v->fs, v->site, v->lane, &v->map);
    if (rc < 0) {
        report(v, CFSR_FINDING_UNREADABLE, 0, 0, rc, cfsr_error_message(), advice_read);
        return;
    }
    if (v->map.foreign_count > 0)
        report(v, CFSR_FINDING_FOREIGN_FILE, 0, 0, -CFSR_E_FOREIGN, v->map.foreign_name,
               advice_foreign);
    for (uint32_t i = 0; i < v->map.count; i++) {
        uint64_t expected = i == 0 ? v->map.lsns[0] : v->map.lsns[i - 1] + v->site->segment_bytes;

        if (v->map.lsns[i] != expected) {
            report(v, CFSR_FINDING_MISSING_SEGMENT, expected, v->map.lsns[i],
                   -CFSR_E_MISSING_SEGMENT, "a segment is missing", advice_repair);
            forget_counts(v);
        }
        if (verify_segment(v, v->map.lsns[i]))
            break;
    }
    end_lsn = v->map.count == 0 ? 0 : v->map.lsns[v->map.count - 1] + v->site->segment_bytes;
    if (known_lsn > end_lsn)
        report(v, CFSR_FINDING_MISSING_SEGMENT, end_lsn, known_lsn, -CFSR_E_MISSING_SEGMENT,
               v->map.count == 0 ? "all segments are missing" : "the last segment is missing",
               advice_repair);
    cfsr_segment_map_fini(&v->map);
}

int cfsr_journal_verify(struct cfsr_fs *fs, const struct cfsr_site *site,
                        const struct cfsr_status_page *page,
                        void (*on_finding)(void *user, const struct cfsr_finding *finding),
                        void *user, struct cfsr_verify_report *report_out)
{
    struct verify v = {.fs = fs, .site = site, .on_finding = on_finding, .user = user};
    int rc = 0;

    v.shard_count = (site->shards + site->lanes - 1) / site->lanes;
    v.next_seq = calloc(v.shard_count, sizeof *v.next_seq);
    if (v.next_seq == NULL)
        return -ENOMEM;
    for (v.lane = 0; rc == 0 && v.lane < site->lanes; v.lane++) {
        rc = cfsr_lane_cursor_init(&v.cursor, fs, site, v.lane, 0);
        if (rc == 0)
            verify_lane(&v, page);
        cfsr_lane_cursor_fini(&v.cursor);
    }
    free(v.next_seq);
    if (rc < 0)
        return rc;
    v.report.verdict = v.report.damages > 0 ? CFSR_VERIFY_DAMAGED
                       : v.unreadable       ? CFSR_VERIFY_UNCHECKED
                                            : CFSR_VERIFY_SOUND;
    *report_out = v.report;
    return 0;
}
