/*
 * check.c - the resumable check of a lane, and how far a damaged lane was committed; see repair.h.
 *
 * Thread:     the caller's, one per check. Reads only.
 * Invariants: below the position every byte was in a good record or in a reported gap; a place is
 * only called damaged after a fresh open of its segment showed the same (retention recycles
 * segments under a reader's feet). Rejected:   reusing the whole-journal verify (it reports, holds
 * no position, and cannot be stopped after a few MiB).
 */
#include "journal/repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "journal/acks.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

struct cfsr_journal_check {
    const struct cfsr_site *site;
    uint64_t committed_lsn;
    struct cfsr_lane_cursor cursor;
    uint64_t *next_seq;
    uint32_t shard_count;
    bool unsure; /* behind a gap: the next segment's SHARDS says anew which seqs come */
    bool again;  /* the place has failed once and was opened anew */
};

const char *cfsr_journal_gap_name(enum cfsr_journal_gap_kind kind)
{
    static const char *const names[] = {
        [CFSR_JOURNAL_GAP_RECORDS] = "records",
        [CFSR_JOURNAL_GAP_HEADER] = "header",
        [CFSR_JOURNAL_GAP_SEGMENT] = "segment",
    };

    return names[kind];
}

/* The oldest segment's first LSN; of a lane without any: of the one the committed LSN ends in. */
static int find_floor(const struct cfsr_journal_check *check, uint64_t *floor_lsn_out)
{
    struct cfsr_segment_map map;
    int rc = cfsr_segment_map_load(check->cursor.fs, check->site, check->cursor.lane, &map);

    if (rc < 0)
        return rc;
    if (map.count > 0)
        *floor_lsn_out = map.lsns[0];
    else
        *floor_lsn_out = check->committed_lsn == 0
                             ? 0
                             : cfsr_segment_first_lsn(check->site, check->committed_lsn - 1);
    cfsr_segment_map_fini(&map);
    return 0;
}

int cfsr_journal_check_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t committed_lsn, struct cfsr_journal_check **check_out)
{
    struct cfsr_journal_check *check = calloc(1, sizeof *check);
    uint64_t floor_lsn = 0;
    int rc = -ENOMEM;

    CFSR_ASSERT(lane < site->lanes && committed_lsn != CFSR_LSN_UNKNOWN);
    if (check == NULL)
        return -ENOMEM;
    check->site = site;
    check->committed_lsn = committed_lsn;
    check->shard_count = (site->shards + site->lanes - 1) / site->lanes;
    check->next_seq = calloc(check->shard_count, sizeof *check->next_seq);
    if (check->next_seq != NULL)
        rc = cfsr_lane_cursor_init(&check->cursor, fs, site, lane, 0);
    if (rc == 0)
        rc = find_floor(check, &floor_lsn);
    if (rc < 0) {
        cfsr_journal_check_close(check);
        return rc;
    }
    check->cursor.tolerant = true;
    check->cursor.next_seq = check->next_seq;
    cfsr_journal_check_seek(check, floor_lsn);
    *check_out = check;
    return 0;
}

void cfsr_journal_check_close(struct cfsr_journal_check *check)
{
    if (check == NULL)
        return;
    if (check->cursor.buffer != NULL)
        cfsr_lane_cursor_fini(&check->cursor);
    free(check->next_seq);
    free(check);
}

/* Seqs are not known at the new place until records or SHARDS have told them. */
void cfsr_journal_check_seek(struct cfsr_journal_check *check, uint64_t lsn)
{
    cfsr_lane_cursor_seek(&check->cursor, lsn);
    memset(check->next_seq, 0, check->shard_count * sizeof *check->next_seq);
    check->unsure = true;
    check->again = false;
}

uint64_t cfsr_journal_check_position(const struct cfsr_journal_check *check)
{
    return check->cursor.lsn;
}

/* A gap from the position to end_lsn; the check goes on behind it. */
static int report(struct cfsr_journal_check *check, enum cfsr_journal_gap_kind kind,
                  uint64_t end_lsn, struct cfsr_journal_gap *gap_out)
{
    *gap_out = (struct cfsr_journal_gap){
        .lane = check->cursor.lane,
        .kind = kind,
        .begin_lsn = check->cursor.lsn,
        .end_lsn = cfsr_min_u64(end_lsn, check->committed_lsn),
    };
    cfsr_journal_check_seek(check, end_lsn);
    return CFSR_JOURNAL_CHECK_GAP;
}

/* The position's segment is not there: removed by retention, or missing. */
static int no_segment(struct cfsr_journal_check *check, struct cfsr_journal_gap *gap_out)
{
    uint64_t floor_lsn, first = cfsr_segment_first_lsn(check->site, check->cursor.lsn);
    int rc = find_floor(check, &floor_lsn);

    if (rc < 0)
        return rc;
    if (check->cursor.lsn < floor_lsn) {
        cfsr_journal_check_seek(check, floor_lsn);
        return CFSR_JOURNAL_CHECK_MORE;
    }
    check->cursor.lsn = first;
    return report(check, CFSR_JOURNAL_GAP_SEGMENT, first + check->site->segment_bytes, gap_out);
}

/* What the cursor could not take at its position. */
static int judge(struct cfsr_journal_check *check, int rc, uint64_t limit_lsn,
                 struct cfsr_journal_gap *gap_out)
{
    uint64_t first = cfsr_segment_first_lsn(check->site, check->cursor.lsn);
    bool header = check->cursor.file == NULL;

    if (rc == -ENOENT)
        return no_segment(check, gap_out);
    if (!cfsr_segment_is_damage(rc))
        return rc;
    if (!check->again) { /* recycled between open and read? a fresh open tells */
        cfsr_lane_cursor_seek(&check->cursor, check->cursor.lsn);
        check->again = true;
        return CFSR_JOURNAL_CHECK_MORE;
    }
    if (header) {
        check->cursor.lsn = first;
        return report(check, CFSR_JOURNAL_GAP_HEADER, first + check->site->segment_bytes, gap_out);
    }
    return report(check, CFSR_JOURNAL_GAP_RECORDS,
                  cfsr_lane_cursor_find_next(&check->cursor, check->cursor.lsn, limit_lsn),
                  gap_out);
}

int cfsr_journal_check_step(struct cfsr_journal_check *check, uint64_t budget_bytes,
                            struct cfsr_journal_gap *gap_out, uint64_t *bytes_out)
{
    struct cfsr_lane_cursor *cursor = &check->cursor;
    int rc = CFSR_JOURNAL_CHECK_MORE;
    uint64_t bytes = 0;

    do {
        uint64_t first = cfsr_segment_first_lsn(check->site, cursor->lsn);
        uint64_t limit = cfsr_min_u64(first + check->site->segment_bytes, check->committed_lsn);

        if (cursor->lsn >= check->committed_lsn) {
            rc = CFSR_JOURNAL_CHECK_DONE;
            break;
        }
        if (cursor->lsn == first && check->unsure) {
            memset(check->next_seq, 0, check->shard_count * sizeof *check->next_seq);
            check->unsure = false;
        }
        rc = cfsr_lane_cursor_next(cursor, limit);
        bytes += cursor->scan.raw_bytes;
        if (cursor->scan.record_count > 0)
            check->again = false;
        rc = rc >= 0 ? CFSR_JOURNAL_CHECK_MORE : judge(check, rc, limit, gap_out);
        if (rc < 0)
            (void)cfsr_fail_context(rc, "lane %" PRIu32 " at LSN %" PRIx64, cursor->lane,
                                    cursor->lsn);
    } while (rc == CFSR_JOURNAL_CHECK_MORE && bytes < budget_bytes);
    if (bytes_out != NULL)
        *bytes_out = bytes;
    return rc;
}

/* The highest committed LSN in any MARK of a segment, whatever else in it is damaged; 0: none. */
static int proven_in(struct cfsr_lane_cursor *cursor, uint64_t first_lsn, uint64_t *proven_out)
{
    uint64_t boundary = first_lsn + cursor->site->segment_bytes;

    *proven_out = 0;
    cfsr_lane_cursor_seek(cursor, first_lsn);
    while (cursor->lsn < boundary) {
        int rc = cfsr_lane_cursor_next(cursor, boundary);

        *proven_out = cfsr_max_u64(*proven_out, cursor->scan.committed_lsn);
        if (rc < 0 && !cfsr_segment_is_damage(rc))
            return rc == -ENOENT ? 0 : rc;
        if (rc < 0)
            cursor->lsn = cfsr_lane_cursor_find_next(cursor, cursor->lsn, boundary);
    }
    return 0;
}

/* From the last segment back to the first one with a MARK in it. */
static int find_proven(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                       uint64_t *committed_lsn_out)
{
    struct cfsr_segment_map map;
    struct cfsr_lane_cursor cursor;
    uint64_t proven = 0;
    int rc = cfsr_segment_map_load(fs, site, lane, &map);

    if (rc < 0)
        return rc;
    rc = cfsr_lane_cursor_init(&cursor, fs, site, lane, 0);
    cursor.tolerant = true;
    cursor.headless = true;
    for (uint32_t i = map.count; rc == 0 && proven == 0 && i > 0; i--)
        rc = proven_in(&cursor, map.lsns[i - 1], &proven);
    cfsr_lane_cursor_fini(&cursor);
    if (map.count > 0) /* a segment is begun when the one before it is durable to its end */
        proven = cfsr_max_u64(proven, map.lsns[map.count - 1]);
    cfsr_segment_map_fini(&map);
    if (rc == 0)
        *committed_lsn_out = proven;
    return rc;
}

int cfsr_journal_find_committed(struct cfsr_fs *fs, const struct cfsr_site *site,
                                const struct cfsr_status_page *page, uint32_t lane,
                                uint64_t *committed_lsn_out)
{
    uint64_t committed = page == NULL ? CFSR_LSN_UNKNOWN : cfsr_status_page_committed(page, lane);

    if (committed == CFSR_LSN_UNKNOWN) {
        uint64_t acked;
        int rc = find_proven(fs, site, lane, &committed);

        /* Without the acks the records behind the last sound MARK would not be fetched, but cut
         * for a torn tail, and the peers that hold them be told that the journal is forked. */
        if (rc == 0)
            rc = cfsr_acks_highest(fs, site, lane, &acked);
        if (rc < 0)
            return rc;
        committed = cfsr_max_u64(committed, acked);
    }
    *committed_lsn_out = committed;
    return 0;
}
