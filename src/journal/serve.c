/*
 * serve.c - records and window digests of the own journal for peers that repair or compare; see
 * repair.h.
 *
 * Thread:     the caller's, one per object.
 * Invariants: nothing at or above the given limit is handed out, and nothing whose CRC was not
 * checked; the bytes are copied out first, so that a segment recycled meanwhile shows as such.
 * Rejected:   the live reader (reader.h): it takes a status page and a lease, and hands out single
 * records.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "journal/digest.h"
#include "journal/repair.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

/* Why a position cannot be read: removed, missing, damaged, or what the system said. */
static int explain(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane, uint64_t lsn,
                   int rc)
{
    struct cfsr_segment_map map;
    uint64_t oldest;
    int listed = cfsr_segment_map_load(fs, site, lane, &map);

    if (listed < 0)
        return listed;
    oldest = map.count > 0 ? map.lsns[0] : 0;
    cfsr_segment_map_fini(&map);
    if (lsn < oldest)
        return cfsr_fail(-CFSR_E_GONE,
                         "lane %" PRIu32 ": LSN %" PRIx64
                         " was removed, the oldest left is %" PRIx64,
                         lane, lsn, oldest);
    if (rc == -ENOENT)
        return cfsr_fail(-CFSR_E_MISSING_SEGMENT,
                         "lane %" PRIu32 ": segment %016" PRIx64 ".seg is missing", lane,
                         cfsr_segment_first_lsn(site, lsn));
    if (cfsr_segment_is_damage(rc))
        return cfsr_fail(-CFSR_E_DAMAGED, "lane %" PRIu32 ": no record begins at LSN %" PRIx64,
                         lane, lsn);
    return rc;
}

static int open_checked(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                        uint64_t lsn, struct cfsr_file **file_out)
{
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_segment_header header;
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;
    int rc = cfsr_file_open(fs, cfsr_segment_path(site, lane, lsn, path, sizeof path),
                            CFSR_OPEN_READ, &file);

    if (rc < 0)
        return rc;
    rc = cfsr_file_pread(file, block, sizeof block, 0);
    if (rc >= 0)
        rc = rc < (int)sizeof block
                 ? -CFSR_E_FORMAT
                 : cfsr_segment_header_load(site, block, lane, cfsr_segment_first_lsn(site, lsn),
                                            &header);
    if (rc < 0)
        cfsr_file_close(file);
    else
        *file_out = file;
    return rc;
}

/* One run of records into the scan's data. */
static int read_once(struct cfsr_fs *fs, const struct cfsr_site *site, uint64_t limit_lsn,
                     void *buffer, uint32_t capacity, struct cfsr_scan *scan)
{
    uint64_t boundary = cfsr_segment_first_lsn(site, scan->lsn) + site->segment_bytes;
    uint64_t len = cfsr_min_u64(capacity, cfsr_min_u64(limit_lsn, boundary) - scan->lsn);
    struct cfsr_file *file;
    int rc = open_checked(fs, site, scan->lane, scan->lsn, &file);

    if (rc < 0)
        return rc;
    rc = cfsr_file_pread(file, buffer, (uint32_t)len, cfsr_segment_file_offset(site, scan->lsn));
    cfsr_file_close(file);
    if (rc < 0)
        return rc;
    scan->len_bytes = (uint32_t)rc;
    rc = cfsr_record_scan(scan);
    if (rc < 0 && scan->record_count > 0)
        return 0; /* what stands before a bad record is good */
    if (rc < 0 || scan->record_count > 0)
        return rc;
    if (scan->end != CFSR_SCAN_NEED_MORE || scan->len_bytes < len)
        return -CFSR_E_CHECKSUM; /* or the file is shorter than a segment */
    if (len == capacity)
        return -CFSR_E_TOO_LARGE;
    return limit_lsn < boundary ? 0 : -CFSR_E_CHECKSUM;
}

int cfsr_journal_read_run(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          uint64_t lsn, uint64_t limit_lsn, uint32_t max_entries, void *buffer,
                          uint32_t capacity, struct cfsr_scan *scan_out)
{
    struct cfsr_scan scan = {
        .data = buffer,
        .segment_bytes = site->segment_bytes,
        .seed = cfsr_record_seed(&site->journal),
        .site_id = site->site_id,
        .lane = lane,
        .lanes = site->lanes,
        .shards = site->shards,
        .max_entries = max_entries,
    };
    int rc;

    CFSR_ASSERT(lane < site->lanes);
    if (site->segment_bytes - lsn % site->segment_bytes < CFSR_RECORD_HEADER_BYTES)
        lsn = cfsr_segment_first_lsn(site, lsn) + site->segment_bytes;
    scan.lsn = scan.next_lsn = lsn;
    if (lsn >= limit_lsn) {
        *scan_out = scan;
        return 0;
    }
    for (int attempt = 0; attempt < 2; attempt++) { /* again: recycled between open and read? */
        rc = read_once(fs, site, limit_lsn, buffer, capacity, &scan);
        if (rc == 0) {
            *scan_out = scan;
            return 0;
        }
        if (rc == -CFSR_E_TOO_LARGE)
            return cfsr_fail(rc,
                             "lane %" PRIu32 ": the record at LSN %" PRIx64 " needs %" PRIu32
                             " bytes, the buffer has %" PRIu32,
                             lane, lsn, scan.need_bytes, capacity);
    }
    return explain(fs, site, lane, lsn, rc);
}

/* ---- digests ---- */

/* Windows that one run of the cursor can close: those it touches, and the one before. */
#define PENDING_MAX (CFSR_LANE_CURSOR_BYTES / CFSR_DIGEST_WINDOW_BYTES + 2)

struct cfsr_journal_digests {
    const struct cfsr_site *site;
    struct cfsr_lane_cursor cursor;
    struct cfsr_lane_digest digest;
    uint64_t end_lsn;    /* of the last whole window */
    uint64_t window_lsn; /* windows below it were handed out, or are empty */
    bool placed;         /* the cursor and the open window go on where they were */
    bool finished;
    struct cfsr_window_digest pending[PENDING_MAX]; /* closed, not handed out yet */
    uint32_t pending_count;
};

static void take_window(void *user, uint64_t index, const uint8_t digest[CFSR_DIGEST_LEN_BYTES])
{
    struct cfsr_journal_digests *digests = user;
    struct cfsr_window_digest *window = &digests->pending[digests->pending_count];

    CFSR_ASSERT(digests->pending_count < PENDING_MAX);
    digests->pending_count++;
    window->index = index;
    memcpy(window->digest, digest, CFSR_DIGEST_LEN_BYTES);
}

/* Puts the cursor on the first record of the segment that window_lsn lies in, or of the oldest. */
static int place_cursor(struct cfsr_journal_digests *digests)
{
    struct cfsr_lane_cursor *cursor = &digests->cursor;
    uint64_t first = cfsr_segment_first_lsn(digests->site, digests->window_lsn);
    struct cfsr_segment_map map;
    int rc = cfsr_segment_map_load(cursor->fs, digests->site, cursor->lane, &map);

    if (rc < 0)
        return rc;
    if (map.count > 0)
        first = cfsr_max_u64(first, map.lsns[0]);
    cfsr_segment_map_fini(&map);
    digests->window_lsn = cfsr_max_u64(digests->window_lsn,
                                       cfsr_align_up(first, CFSR_DIGEST_WINDOW_BYTES));
    cfsr_lane_cursor_seek(cursor, first);
    cfsr_lane_digest_fini(&digests->digest);
    rc = cfsr_lane_digest_begin(&digests->digest, digests->site->segment_bytes);
    digests->digest.on_window = take_window;
    digests->digest.user = digests;
    digests->placed = rc == 0;
    return rc;
}

int cfsr_journal_digests_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t from_lsn, uint64_t to_lsn,
                              struct cfsr_journal_digests **digests_out)
{
    struct cfsr_journal_digests *digests = calloc(1, sizeof *digests);
    int rc;

    CFSR_ASSERT(lane < site->lanes && to_lsn != CFSR_LSN_UNKNOWN);
    if (digests == NULL)
        return -ENOMEM;
    digests->site = site;
    digests->end_lsn = cfsr_align_down(to_lsn, CFSR_DIGEST_WINDOW_BYTES);
    digests->window_lsn = cfsr_align_up(from_lsn, CFSR_DIGEST_WINDOW_BYTES);
    rc = cfsr_lane_cursor_init(&digests->cursor, fs, site, lane, 0);
    digests->cursor.tolerant = true; /* filler is read with the records, and is nobody's */
    if (rc == 0)
        rc = place_cursor(digests);
    if (rc < 0) {
        cfsr_journal_digests_close(digests);
        return rc;
    }
    *digests_out = digests;
    return 0;
}

void cfsr_journal_digests_close(struct cfsr_journal_digests *digests)
{
    if (digests == NULL)
        return;
    cfsr_lane_digest_fini(&digests->digest);
    if (digests->cursor.buffer != NULL)
        cfsr_lane_cursor_fini(&digests->cursor);
    free(digests);
}

/* The run's records from window_lsn up to end_lsn; the walk towards the first window drops what
 * lies before it. What was read behind end_lsn may not be committed yet, and is not looked at. */
static void feed(struct cfsr_journal_digests *digests)
{
    const struct cfsr_scan *scan = &digests->cursor.scan;
    const uint8_t *record = scan->data, *end = record + scan->raw_bytes, *from = NULL;
    uint64_t lsn = scan->lsn, from_lsn = 0;

    for (; record < end && lsn < digests->end_lsn;) {
        struct cfsr_record_header header;

        if (from == NULL && lsn >= digests->window_lsn) {
            from = record;
            from_lsn = lsn;
        }
        cfsr_record_header_load(record, &header);
        record += cfsr_record_wire_bytes(&header);
        lsn += cfsr_record_total_bytes(&header);
    }
    if (from != NULL)
        (void)cfsr_lane_digest_feed(&digests->digest, from_lsn, from, (uint32_t)(record - from));
}

/* One run more. 0, or an error; the next call then begins at window_lsn anew. */
static int advance(struct cfsr_journal_digests *digests, uint64_t *bytes)
{
    struct cfsr_lane_cursor *cursor = &digests->cursor;
    uint8_t unused[CFSR_DIGEST_LEN_BYTES];
    int rc = digests->placed ? 0 : place_cursor(digests);

    if (rc < 0)
        return rc;
    if (cursor->lsn >= digests->end_lsn || digests->window_lsn >= digests->end_lsn) {
        cfsr_lane_digest_final(&digests->digest, unused); /* closes the last window */
        digests->finished = true;
        return 0;
    }
    rc = cfsr_lane_cursor_next(cursor, UINT64_MAX);
    if (rc < 0 && cursor->scan.record_count == 0) { /* recycled meanwhile? a fresh open tells */
        cfsr_lane_cursor_seek(cursor, cursor->lsn);
        rc = cfsr_lane_cursor_next(cursor, UINT64_MAX);
    }
    *bytes += cursor->scan.raw_bytes;
    feed(digests);
    if (rc >= 0 || cursor->scan.record_count > 0)
        return 0;
    digests->placed = false;
    return explain(cursor->fs, digests->site, cursor->lane, cursor->lsn, rc);
}

/* Hands out what is closed. */
static void drain(struct cfsr_journal_digests *digests, struct cfsr_window_digest *windows_out,
                  uint32_t max, uint32_t *count)
{
    uint32_t taken = 0;

    while (taken < digests->pending_count && *count < max) {
        digests->window_lsn = (digests->pending[taken].index + 1) * CFSR_DIGEST_WINDOW_BYTES;
        windows_out[(*count)++] = digests->pending[taken++];
    }
    digests->pending_count -= taken;
    memmove(digests->pending, digests->pending + taken,
            digests->pending_count * sizeof *digests->pending);
}

int cfsr_journal_digests_step(struct cfsr_journal_digests *digests, uint64_t budget_bytes,
                              struct cfsr_window_digest *windows_out, uint32_t max,
                              uint32_t *count_out, uint64_t *done_lsn_out)
{
    uint64_t bytes = 0;
    uint32_t count = 0;
    int rc = 1;

    CFSR_ASSERT(max > 0);
    for (;;) {
        int advanced;

        drain(digests, windows_out, max, &count);
        if (digests->finished && digests->pending_count == 0) {
            digests->window_lsn = cfsr_max_u64(digests->window_lsn, digests->end_lsn);
            rc = 0;
            break;
        }
        if (count == max || digests->finished || (bytes > 0 && bytes >= budget_bytes))
            break;
        advanced = advance(digests, &bytes);
        if (advanced < 0 && count == 0)
            return advanced;
        if (advanced < 0)
            break; /* the next call meets it again */
    }
    *count_out = count;
    *done_lsn_out = cfsr_min_u64(digests->window_lsn, digests->end_lsn);
    return rc;
}
