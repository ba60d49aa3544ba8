/*
 * recovery.c - where an inbox lane ends, and what is durable of every origin.
 *
 * Thread:     start-up and tools; blocking.
 * Invariants: a record above the last durable-below counts only when its body's digest verifies;
 * the first one that does not ends the lane. Damage below any later record's durable-below is never
 * cut. What recovery reports has been synced by it. Rejected:   trusting bodies that were read back
 * whole (after a kill the page cache may hold what the disk never got: sync first); a cursor file
 * beside the log (two things to keep in step).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/scan.h"

#define NO_OFFSET UINT64_MAX

struct recovery {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    bool read_only;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_decoder decoder;
    uint64_t durable_below; /* the last claim in the segment */
    uint64_t headers_end;   /* local headers are sound up to here */
    uint64_t last_batch[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_state *state;
};

static int damaged(const struct recovery *r, uint64_t body_offset)
{
    return cfsr_fail(
        -CFSR_E_DAMAGED,
        "inbox lane %u, segment %016llx is damaged at body offset %llu, below what was "
        "acknowledged: "
        "run inbox verify, restore the segment or remove the lane to have it sent again",
        r->lane, (unsigned long long)r->scan.sequence, (unsigned long long)body_offset);
}

/* Opens the last segment that was begun: 1; 0: none was. */
static int open_last(struct recovery *r, const struct cfsr_inbox_range_of_segments *range)
{
    uint64_t sequence;
    int rc;

    for (sequence = range->last; sequence >= range->first; sequence--) {
        struct cfsr_inbox_probe probe;
        struct cfsr_inbox_item item;

        rc = cfsr_inbox_scan_open(r->fs, r->site, r->lane, sequence, !r->read_only, &r->scan);
        if (rc < 0)
            return rc;
        rc = cfsr_inbox_scan_next(&r->scan, false, &item);
        if (rc == 1) {
            cfsr_inbox_scan_step_back(&r->scan, &item);
            return 1;
        }
        if (rc == 0)
            rc = cfsr_inbox_scan_probe(&r->scan, &probe);
        if (rc == 0 && probe.durable_below > 0)
            rc = damaged(r, 0);
        if (rc == 0)
            r->state->cut_bytes += probe.end;
        cfsr_inbox_scan_close(&r->scan);
        if (rc < 0)
            return rc;
    }
    if (range->first > 1)
        return cfsr_fail(-CFSR_E_DAMAGED, "no segment of inbox lane %u begins with a sound record",
                         r->lane);
    return 0;
}

/* First pass: how far local headers are sound, and how far the records vouch for what is before
 * them. */
static int walk_headers(struct recovery *r)
{
    struct cfsr_inbox_probe probe;
    struct cfsr_inbox_item item;
    int rc;

    while ((rc = cfsr_inbox_scan_next(&r->scan, false, &item)) == 1)
        r->durable_below = cfsr_max_u64(r->durable_below, item.local.durable_below);
    if (rc < 0)
        return rc;
    r->headers_end = r->scan.body_offset;
    if (r->scan.complete)
        return 0;
    rc = cfsr_inbox_scan_probe(&r->scan, &probe);
    if (rc < 0)
        return rc;
    if (probe.durable_below > r->headers_end)
        return damaged(r, r->headers_end);
    r->durable_below = cfsr_max_u64(r->durable_below, probe.durable_below);
    r->headers_end = cfsr_max_u64(r->headers_end, probe.end);
    return 0;
}

static int find_origin(struct recovery *r, const struct cfsr_batch_header *header)
{
    struct cfsr_inbox_state *state = r->state;
    uint32_t i;

    for (i = 0; i < state->origins; i++) {
        if (state->cursor[i].site_id == header->site_id &&
            cfsr_uuid_equal(&state->cursor[i].journal, &header->journal))
            return (int)i;
    }
    if (i == CFSR_INBOX_ORIGINS_MAX)
        return -ENOSPC;
    state->cursor[i] = (struct cfsr_inbox_cursor){.site_id = header->site_id,
                                                  .journal = header->journal};
    state->cursor[i].last.lsn = UINT64_MAX;
    r->last_batch[i] = NO_OFFSET;
    state->origins++;
    return (int)i;
}

static int apply_batch(struct recovery *r, struct cfsr_inbox_item *item)
{
    struct cfsr_batch_header header;
    struct cfsr_inbox_cursor *cursor;
    int rc, origin;

    rc = cfsr_inbox_item_header(item, &header);
    if (rc < 0)
        return rc;
    if (item->body_offset >= r->durable_below) {
        rc = cfsr_inbox_scan_read_whole(&r->scan, item);
        if (rc == 0)
            rc = cfsr_inbox_item_check(&r->decoder, item, &header);
        if (rc < 0)
            return rc;
    }
    origin = find_origin(r, &header);
    if (origin < 0)
        return origin;
    cursor = &r->state->cursor[origin];
    if (header.lsn_from > cursor->lsn || header.lane != r->lane)
        return -CFSR_E_BAD_ORDER;
    if (header.lsn_to > cursor->lsn) {
        cursor->lsn = header.lsn_to;
        r->last_batch[origin] = item->body_offset;
    }
    cursor->incarnation = header.incarnation;
    cursor->entries += item->local.entries;
    cfsr_inbox_index_add(&r->state->index, item->body_offset, item->local.arrival,
                         item->local.arrived_at_us, (uint32_t)origin, header.lsn_from,
                         header.lsn_to);
    return 0;
}

static int apply_cursors(struct recovery *r, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_state *state = r->state;
    uint32_t i;

    if (item->body_offset != 0)
        return 0; /* repeats what the walk knows */
    for (i = 0; i < CFSR_INBOX_ORIGINS_MAX; i++)
        r->last_batch[i] = NO_OFFSET;
    return cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                   item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES,
                                   state->cursor, &state->origins);
}

/* An error of the record itself, as opposed to one of reading it. */
static bool is_verdict(int rc)
{
    return rc == -CFSR_E_BAD_FRAME || rc == -CFSR_E_BAD_DIGEST || rc == -CFSR_E_VERSION ||
           rc == -CFSR_E_FORMAT || rc == -CFSR_E_BAD_ORDER || rc == -CFSR_E_CODEC;
}

/* Second pass: the records one by one, up to the first that is not whole. */
static int walk_records(struct recovery *r)
{
    struct cfsr_inbox_item item;
    int rc;

    r->scan.body_offset = 0;
    r->scan.arrival = 0;
    r->scan.incarnation = 0;
    r->scan.complete = false;
    while ((rc = cfsr_inbox_scan_next(&r->scan, false, &item)) == 1) {
        if (item.local.kind == CFSR_INBOX_BATCH)
            rc = apply_batch(r, &item);
        else if (item.local.kind == CFSR_INBOX_CURSORS)
            rc = apply_cursors(r, &item);
        else
            rc = 0;
        if (rc < 0 && (!is_verdict(rc) || item.body_offset < r->durable_below))
            return is_verdict(rc) ? damaged(r, item.body_offset) : rc;
        if (rc < 0) {
            uint64_t incarnation = r->state->incarnation;

            cfsr_inbox_scan_step_back(&r->scan, &item);
            r->scan.incarnation = incarnation; /* of the last record kept */
            return 0;
        }
        r->state->incarnation = item.local.incarnation;
    }
    return rc;
}

/* Stamps of the last record of every origin whose last batch is in this segment. */
static int read_stamps(struct recovery *r)
{
    uint8_t extension[CFSR_BATCH_EXTENSION_MAX];
    uint32_t i;

    for (i = 0; i < r->state->origins; i++) {
        struct cfsr_inbox_scan at = r->scan; /* borrows file and window */
        struct cfsr_batch_header header;
        struct cfsr_inbox_item item;
        struct cfsr_inbox_walk walk;
        int rc;

        if (r->last_batch[i] == NO_OFFSET)
            continue;
        at.body_offset = r->last_batch[i];
        at.arrival = 0;
        at.incarnation = 0;
        at.complete = false;
        at.window_bytes = 0;
        rc = cfsr_inbox_scan_next(&at, true, &item);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return damaged(r, r->last_batch[i]);
        rc = cfsr_inbox_item_header(&item, &header);
        if (rc == 0)
            rc = cfsr_inbox_item_check(&r->decoder, &item, &header);
        if (rc == 0)
            rc = cfsr_inbox_item_decode(&r->decoder, r->site, &item, &header, r->decoder.raw,
                                        extension, &walk, &r->state->cursor[i].last);
        if (rc < 0)
            return damaged(r, r->last_batch[i]);
    }
    r->scan.window_bytes = 0;
    return 0;
}

/*
 * The end of the block in which the last record ends: a record cut there may still look sound by
 * its header, and the walk would find it before the block that is written next. The bytes before
 * are written back as they are.
 */
static int clean_block_end(struct recovery *r)
{
    uint64_t end = r->scan.body_offset, start = cfsr_align_down(end, CFSR_INBOX_BLOCK_BYTES);
    uint32_t used = (uint32_t)(end - start);
    uint8_t *block = r->scan.window;
    int rc;

    if (used == 0 || r->scan.complete)
        return 0;
    r->scan.window_bytes = 0;
    rc = cfsr_file_pread(r->scan.file, block, CFSR_INBOX_BLOCK_BYTES,
                         cfsr_inbox_file_offset(start));
    if (rc < 0)
        return rc;
    if (rc != CFSR_INBOX_BLOCK_BYTES)
        return damaged(r, start);
    if (cfsr_bytes_are_zero(block + used, CFSR_INBOX_BLOCK_BYTES - used))
        return 0;
    memset(block + used, 0, CFSR_INBOX_BLOCK_BYTES - used);
    rc = cfsr_file_pwrite(r->scan.file, block, CFSR_INBOX_BLOCK_BYTES,
                          cfsr_inbox_file_offset(start), true);
    return rc < 0 ? rc : 0;
}

static int recover_segment(struct recovery *r)
{
    struct cfsr_inbox_state *state = r->state;
    int rc;

    rc = walk_headers(r);
    if (rc == 0)
        rc = walk_records(r);
    if (rc == 0)
        rc = read_stamps(r);
    if (rc == 0 && !r->read_only)
        rc = clean_block_end(r);
    if (rc == 0 && !r->read_only)
        rc = cfsr_file_sync(r->scan.file); /* what is reported as durable must be */
    if (rc < 0)
        return rc;
    if (r->headers_end > r->scan.body_offset)
        state->cut_bytes += r->headers_end - r->scan.body_offset;
    state->arrival = r->scan.arrival;
    state->incarnation++;
    if (r->scan.complete) {
        state->sequence = r->scan.sequence + 1;
        state->body_offset = 0;
        state->records_end = 0;
        cfsr_inbox_index_reset(&state->index);
    } else {
        state->sequence = r->scan.sequence;
        state->records_end = r->scan.body_offset;
        state->body_offset = cfsr_align_up(r->scan.body_offset, CFSR_INBOX_BLOCK_BYTES);
    }
    return 0;
}

int cfsr_inbox_recover_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            bool read_only, struct cfsr_inbox_state *state_out)
{
    struct cfsr_inbox_range_of_segments range;
    struct recovery *r;
    int rc;

    r = calloc(1, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    r->fs = fs;
    r->site = site;
    r->lane = lane;
    r->read_only = read_only;
    r->state = calloc(1, sizeof *r->state);
    if (r->state == NULL) {
        rc = -ENOMEM;
        goto free_recovery;
    }
    cfsr_inbox_index_reset(&r->state->index);
    rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc < 0)
        goto free_state;
    rc = cfsr_inbox_decoder_init(&r->decoder);
    if (rc < 0)
        goto free_state;
    r->state->first_sequence = range.first;
    rc = range.last == 0 ? 0 : open_last(r, &range);
    if (rc == 0) { /* nothing was ever written */
        r->state->sequence = range.first;
        r->state->arrival = 1;
        r->state->incarnation = 1;
    } else if (rc == 1) {
        rc = recover_segment(r);
        cfsr_inbox_scan_close(&r->scan);
    }
    if (rc == 0)
        *state_out = *r->state;
    cfsr_inbox_decoder_fini(&r->decoder);
free_state:
    free(r->state);
free_recovery:
    free(r);
    return rc;
}
