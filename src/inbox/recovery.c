/*
 * recovery.c - where an inbox lane ends, and what is durable of every origin.
 *
 * Thread:     start-up, tools, and a helper after a failed write; blocking.
 * Invariants: a record above the last durable-below counts only when its body's digest verifies;
 * the first one that does not ends the lane. Damage below any later record's durable-below is never
 * cut: it is listed, and the lane goes on behind it. A cursor is never above an origin's last
 * record whose header is sound, and stands behind a batch only if its stamp could be read.
 * What recovery reports has been written back and synced by it. Rejected:   trusting bodies that
 * were read back whole (the page cache may hold what the disk never got, and after a failed sync
 * never will); a cursor file
 * beside the log (two things to keep in step); refusing a lane for damage in its middle (one bad
 * sector would stop replication, and what it held is at other sites).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/log.h"

/* Last batches found unreadable, one after another: bounds the walks of one recovery. */
#define UNREADABLE_MAX   64
#define WRITE_BACK_BYTES (1u << 20) /* at a time; fits a scan's window */

struct place {
    uint64_t sequence; /* 0: none */
    uint64_t body_offset;
};

struct recovery {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    bool read_only;
    uint64_t first_walked; /* the segment whose CURSORS the walk begins with */
    uint64_t last;         /* the last segment that was begun */
    struct cfsr_inbox_log log;
    struct cfsr_inbox_decoder decoder;
    uint64_t incarnation;    /* the highest of any sound record met */
    uint64_t durable_below;  /* the last claim in the last segment */
    uint64_t headers_end;    /* local headers are sound up to here in it, but for damaged places */
    bool passed_damage;      /* cursors may jump */
    bool wiped;              /* a cut record was written over */
    uint64_t prepared_bytes; /* of records in segments that were not begun */
    struct place last_batch[CFSR_INBOX_ORIGINS_MAX];
    struct place unreadable[UNREADABLE_MAX];
    uint32_t unreadables;
    struct cfsr_inbox_state *state;
};

static int damaged(const struct recovery *r, uint64_t sequence, uint64_t body_offset)
{
    return cfsr_fail(-CFSR_E_DAMAGED,
                     "inbox lane %u, segment %016llx is damaged at body offset %llu in a way that "
                     "recovery cannot pass: run inbox verify, restore the segment or remove the "
                     "lane to have it sent again",
                     r->lane, (unsigned long long)sequence, (unsigned long long)body_offset);
}

/* The incarnation of the last sound record below a segment; 0: there is none. */
static int last_incarnation(struct recovery *r, uint64_t sequence, uint64_t *incarnation_out)
{
    struct cfsr_inbox_damage damage;
    struct cfsr_inbox_item item;
    struct cfsr_inbox_log log;
    int rc = 0;

    *incarnation_out = 0;
    if (sequence <= 1)
        return 0;
    cfsr_inbox_log_init(&log, r->fs, r->site, r->lane, sequence - 1);
    log.last_sequence = sequence - 1;
    rc = cfsr_inbox_log_seek(&log, sequence - 1, 0);
    while (rc >= 0 && (rc = cfsr_inbox_log_step(&log, false, &item, &damage)) > 0) {
        if (rc == CFSR_INBOX_LOG_RECORD)
            *incarnation_out = item.local.incarnation;
    }
    cfsr_inbox_log_close(&log);
    return rc == -CFSR_E_GONE ? 0 : rc;
}

/* Was the segment begun (1, 2 with sound CURSORS), or at most prepared (0)? -errno. */
static int is_begun(struct recovery *r, uint64_t sequence)
{
    struct cfsr_inbox_survey survey;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    int rc;

    rc = cfsr_inbox_scan_open(r->fs, r->site, r->lane, sequence, false, &scan);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = cfsr_inbox_scan_next(&scan, false, &item);
    if (rc == 1) {
        rc = 2;
    } else if (rc == 0) {
        rc = cfsr_inbox_scan_survey(&scan, &survey);
        /* Only what the segment before has seen may have been on its way here without a first
         * block. */
        if (rc == 0 && survey.place != 0 && survey.durable_below == 0)
            rc = last_incarnation(r, sequence, &scan.incarnation);
        if (rc == 0 && scan.incarnation != 0)
            rc = cfsr_inbox_scan_survey(&scan, &survey);
        if (rc == 0 && survey.durable_below > 0)
            rc = 1;
        else if (rc == 0)
            r->prepared_bytes += survey.end;
    }
    cfsr_inbox_scan_close(&scan);
    return rc;
}

/* The last segment that was begun, and the one to begin the walk in: 1; 0: none was begun. */
static int find_segments(struct recovery *r, const struct cfsr_inbox_range_of_segments *range)
{
    uint64_t sequence;
    int rc = 0;

    for (sequence = range->last; rc == 0 && sequence >= range->first && sequence > 0; sequence--)
        rc = is_begun(r, sequence);
    if (rc < 0)
        return rc;
    if (rc == 0 && range->first > 1)
        return cfsr_fail(-CFSR_E_DAMAGED,
                         "no segment of inbox lane %u begins with a sound record: restore one, or "
                         "remove the lane to have it sent again",
                         r->lane);
    if (rc == 0)
        return 0;
    r->last = sequence + 1;
    r->first_walked = r->last;
    while (rc != 2 && r->first_walked > range->first) {
        rc = is_begun(r, --r->first_walked);
        if (rc < 0)
            return rc;
    }
    return 1;
}

/* ---- damage ---- */

static void list_gap(struct recovery *r, uint64_t sequence, uint64_t begin, uint64_t end_sequence,
                     uint64_t end)
{
    struct cfsr_inbox_state *state = r->state;
    struct cfsr_inbox_state_gap *gap = &state->gap[CFSR_INBOX_STATE_GAPS_MAX - 1];

    state->damaged++;
    if (state->gaps < CFSR_INBOX_STATE_GAPS_MAX) {
        gap = &state->gap[state->gaps++];
        gap->sequence = sequence;
        gap->begin = begin;
    }
    gap->end_sequence = end_sequence;
    gap->end = end;
}

static int list_missing(struct recovery *r, const struct cfsr_inbox_range_of_segments *range)
{
    uint64_t sequence;

    for (sequence = range->first; range->missing > 0 && sequence < r->first_walked; sequence++) {
        char path[CFSR_INBOX_PATH_BYTES];
        struct cfsr_file *file;
        int rc;

        cfsr_inbox_segment_path(r->site, r->lane, sequence, path);
        rc = cfsr_file_open(r->fs, path, CFSR_OPEN_READ, &file);
        if (rc == 0)
            cfsr_file_close(file);
        else if (rc == -ENOENT)
            list_gap(r, sequence, 0, sequence + 1, 0);
        else
            return rc;
    }
    return 0;
}

static bool is_unreadable(const struct recovery *r, const struct cfsr_inbox_item *item)
{
    uint32_t i;

    for (i = 0; i < r->unreadables; i++) {
        if (r->unreadable[i].sequence == item->local.sequence &&
            r->unreadable[i].body_offset == item->body_offset)
            return true;
    }
    return false;
}

/* ---- the walks ---- */

static int begin_walk(struct recovery *r)
{
    int rc;

    cfsr_inbox_log_close(&r->log);
    cfsr_inbox_log_init(&r->log, r->fs, r->site, r->lane, r->first_walked);
    r->log.last_sequence = r->last;
    rc = cfsr_inbox_log_seek(&r->log, r->first_walked, 0);
    return rc < 0 ? rc : 0;
}

/* First pass: how far local headers are sound, and how far the records vouch for what is before
 * them. */
static int walk_headers(struct recovery *r)
{
    struct cfsr_inbox_damage damage;
    struct cfsr_inbox_survey survey;
    struct cfsr_inbox_item item;
    int rc;

    rc = begin_walk(r);
    if (rc < 0)
        return rc;
    while ((rc = cfsr_inbox_log_step(&r->log, false, &item, &damage)) > 0) {
        if (rc != CFSR_INBOX_LOG_RECORD)
            continue;
        r->incarnation = cfsr_max_u64(r->incarnation, item.local.incarnation);
        if (item.local.sequence == r->last)
            r->durable_below = cfsr_max_u64(r->durable_below, item.local.durable_below);
    }
    if (rc < 0)
        return rc;
    if (!r->log.open || r->log.sequence != r->last)
        return damaged(r, r->log.sequence, r->log.scan.body_offset);
    rc = cfsr_inbox_scan_survey(&r->log.scan, &survey);
    if (rc < 0)
        return rc;
    r->durable_below = cfsr_max_u64(r->durable_below, survey.durable_below);
    r->headers_end = cfsr_max_u64(r->log.scan.body_offset, survey.end);
    return 0;
}

static int find_origin(struct recovery *r, uint64_t site_id, const struct cfsr_uuid *journal)
{
    struct cfsr_inbox_state *state = r->state;
    uint32_t i;

    for (i = 0; i < state->origins; i++) {
        if (state->cursor[i].site_id == site_id &&
            cfsr_uuid_equal(&state->cursor[i].journal, journal))
            return (int)i;
    }
    if (i == CFSR_INBOX_ORIGINS_MAX)
        return -ENOSPC;
    state->cursor[i] = (struct cfsr_inbox_cursor){.site_id = site_id, .journal = *journal};
    state->cursor[i].last.lsn = UINT64_MAX;
    r->last_batch[i].sequence = 0;
    state->origins++;
    return (int)i;
}

static uint64_t cursor_lsn(const struct recovery *r, const struct cfsr_batch_header *header)
{
    const struct cfsr_inbox_state *state = r->state;
    uint32_t i;

    for (i = 0; i < state->origins; i++) {
        if (state->cursor[i].site_id == header->site_id &&
            cfsr_uuid_equal(&state->cursor[i].journal, &header->journal))
            return state->cursor[i].lsn;
    }
    return 0;
}

static bool below_durable(const struct recovery *r, const struct cfsr_inbox_item *item)
{
    return item->local.sequence < r->last || item->body_offset < r->durable_below;
}

static int apply_batch(struct recovery *r, struct cfsr_inbox_item *item)
{
    struct cfsr_batch_header header;
    struct cfsr_inbox_cursor *cursor;
    int rc, origin;

    rc = cfsr_inbox_item_header(item, &header);
    if (rc < 0)
        return rc;
    if (!below_durable(r, item)) {
        rc = cfsr_inbox_scan_read_whole(&r->log.scan, item);
        if (rc == 0)
            rc = cfsr_inbox_item_check(&r->decoder, item, &header);
        if (rc < 0)
            return rc;
    }
    if (header.lane != r->lane)
        return -CFSR_E_BAD_ORDER;
    if (header.lsn_from > cursor_lsn(r, &header) && !r->passed_damage)
        return -CFSR_E_BAD_ORDER;
    origin = find_origin(r, header.site_id, &header.journal); /* only now: a batch that is cut must
                                                                  leave no trace */
    if (origin < 0)
        return origin;
    cursor = &r->state->cursor[origin];
    if (header.lsn_to > cursor->lsn) {
        cursor->lsn = header.lsn_to;
        r->last_batch[origin] = (struct place){item->local.sequence, item->body_offset};
    }
    cursor->incarnation = header.incarnation;
    cursor->entries += item->local.entries;
    if (item->local.sequence == r->last)
        cfsr_inbox_index_add(&r->state->index, item->body_offset, item->local.arrival,
                             item->local.arrived_at_us, (uint32_t)origin, header.lsn_from,
                             header.lsn_to);
    return 0;
}

/* CURSORS: without damage before them they repeat what the walk knows; else they know better. */
static int apply_cursors(struct recovery *r, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    uint32_t i, count;
    int rc;

    rc = cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                 item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                 &count);
    for (i = 0; rc == 0 && i < count; i++) {
        int origin = find_origin(r, cursor[i].site_id, &cursor[i].journal);

        if (origin < 0)
            return origin;
        r->last_batch[origin].sequence = 0; /* the stamp is here */
        r->state->cursor[origin] = cursor[i];
    }
    if (item->local.sequence == r->last && item->body_offset == 0)
        cfsr_inbox_index_reset(&r->state->index);
    return rc;
}

static int apply_item(struct recovery *r, struct cfsr_inbox_item *item)
{
    struct cfsr_batch_header header;
    int rc = 0;

    if (item->local.kind == CFSR_INBOX_BATCH)
        rc = is_unreadable(r, item) ? -CFSR_E_BAD_DIGEST : apply_batch(r, item);
    else if (item->local.kind == CFSR_INBOX_CURSORS)
        rc = apply_cursors(r, item);
    else if (item->local.kind == CFSR_INBOX_REPAIR && item->local.sequence == r->last)
        r->state->index.repairs++;
    if (rc == 0 && item->local.kind == CFSR_INBOX_REPAIR && !below_durable(r, item)) {
        rc = cfsr_inbox_item_header(item, &header);
        if (rc == 0)
            rc = cfsr_inbox_scan_read_whole(&r->log.scan, item);
        if (rc == 0)
            rc = cfsr_inbox_item_check(&r->decoder, item, &header);
    }
    return rc;
}

/* Where the lane would end if nothing that follows counted. */
struct recovered_end {
    uint64_t sequence, body_offset, arrival;
    uint64_t damaged;
    uint32_t gaps;
};

static struct recovered_end end_of(const struct recovery *r)
{
    return (struct recovered_end){r->log.sequence, r->log.scan.body_offset, r->log.scan.arrival,
                                  r->state->damaged, r->state->gaps};
}

/*
 * The lane ends in front of the item. If only it and what is behind vouched for a place directly
 * before it, that is part of the tail that is cut: when the item is gone nothing speaks of it.
 */
static void cut_at(struct recovery *r, const struct cfsr_inbox_item *item,
                   const struct recovered_end *before)
{
    struct cfsr_inbox_state *state = r->state;

    cfsr_inbox_scan_step_back(&r->log.scan, item);
    r->log.scan.incarnation = state->incarnation; /* of the last record kept */
    if (state->damaged != before->damaged && before->sequence == item->local.sequence &&
        before->body_offset >= r->durable_below) {
        cfsr_inbox_scan_jump(&r->log.scan, before->body_offset, before->arrival);
        state->damaged = before->damaged;
        state->gaps = before->gaps;
    }
}

/* Second pass: the records one by one, up to the first that is not whole. */
static int walk_records(struct recovery *r)
{
    struct cfsr_inbox_damage damage;
    struct cfsr_inbox_item item;
    struct recovered_end end;
    int rc;

    rc = begin_walk(r);
    if (rc < 0)
        return rc;
    end = end_of(r);
    while ((rc = cfsr_inbox_log_step(&r->log, false, &item, &damage)) > 0) {
        if (rc == CFSR_INBOX_LOG_DAMAGE) {
            list_gap(r, damage.sequence, damage.begin, damage.end_sequence, damage.end);
            r->passed_damage = true;
            continue;
        }
        rc = apply_item(r, &item);
        if (rc == -CFSR_E_BAD_ORDER && below_durable(r, &item) && !r->passed_damage) {
            list_gap(r, item.local.sequence, item.body_offset, item.local.sequence,
                     item.body_offset);
            r->passed_damage = true; /* something is missing, though no place looks damaged */
            rc = apply_item(r, &item);
        }
        if (rc < 0 && !cfsr_inbox_is_verdict(rc))
            return rc;
        if (rc < 0 && !below_durable(r, &item)) {
            cut_at(r, &item, &end);
            return 0;
        }
        if (rc < 0) {
            list_gap(r, item.local.sequence, item.body_offset, item.local.sequence,
                     r->log.scan.body_offset);
            r->passed_damage = true;
        }
        r->state->incarnation = item.local.incarnation;
        end = end_of(r);
    }
    return rc;
}

/* The stamp of an origin's last batch: 1; 0: the batch cannot be read; -errno. */
static int read_stamp(struct recovery *r, const struct place *place,
                      struct cfsr_record_stamp *last_out)
{
    uint8_t extension[CFSR_BATCH_EXTENSION_MAX];
    struct cfsr_batch_header header;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    struct cfsr_inbox_walk walk;
    int rc;

    rc = cfsr_inbox_scan_open(r->fs, r->site, r->lane, place->sequence, false, &scan);
    if (rc < 0)
        return rc;
    cfsr_inbox_scan_jump(&scan, place->body_offset, 0);
    rc = cfsr_inbox_scan_next(&scan, true, &item);
    if (rc == 1) {
        rc = cfsr_inbox_item_header(&item, &header);
        if (rc == 0)
            rc = cfsr_inbox_item_check(&r->decoder, &item, &header);
        if (rc == 0)
            rc = cfsr_inbox_item_decode(&r->decoder, r->site, &item, &header, r->decoder.raw,
                                        extension, &walk, last_out);
        rc = rc == 0 ? 1 : cfsr_inbox_is_verdict(rc) ? 0 : rc;
    }
    cfsr_inbox_scan_close(&scan);
    return rc;
}

/* Stamps of the last record of every origin whose last batch was walked: 1; 0: one cannot be read,
 * walk again without it; -errno. */
static int read_stamps(struct recovery *r)
{
    uint32_t i;

    for (i = 0; i < r->state->origins; i++) {
        int rc;

        if (r->last_batch[i].sequence == 0)
            continue;
        rc = read_stamp(r, &r->last_batch[i], &r->state->cursor[i].last);
        if (rc == 1)
            continue;
        if (rc == 0 && r->unreadables == UNREADABLE_MAX)
            rc = damaged(r, r->last_batch[i].sequence, r->last_batch[i].body_offset);
        if (rc == 0)
            r->unreadable[r->unreadables++] = r->last_batch[i];
        return rc;
    }
    return 1;
}

/*
 * The end of the block in which the last record ends: a record cut there may still look sound by
 * its header, and the walk would find it before the block that is written next. The bytes before
 * are written back as they are.
 */
static int clean_block_end(struct recovery *r, struct cfsr_file *file)
{
    uint64_t end = r->log.scan.body_offset, start = cfsr_align_down(end, CFSR_INBOX_BLOCK_BYTES);
    uint32_t used = (uint32_t)(end - start);
    uint8_t *block = r->log.scan.window;
    int rc;

    if (used == 0 || r->log.scan.complete)
        return 0;
    r->log.scan.window_bytes = 0;
    rc = cfsr_file_pread(file, block, CFSR_INBOX_BLOCK_BYTES, cfsr_inbox_file_offset(start));
    if (rc < 0)
        return rc;
    if (rc != CFSR_INBOX_BLOCK_BYTES)
        return damaged(r, r->last, start);
    if (cfsr_bytes_are_zero(block + used, CFSR_INBOX_BLOCK_BYTES - used))
        return 0;
    r->wiped = true;
    memset(block + used, 0, CFSR_INBOX_BLOCK_BYTES - used);
    rc = cfsr_file_pwrite(file, block, CFSR_INBOX_BLOCK_BYTES, cfsr_inbox_file_offset(start), true);
    return rc < 0 ? rc : 0;
}

/*
 * Writes back what stands above the last durable-below. That it was read proves nothing about the
 * disk: after a failed sync the cache may show pages that were never written and that no later sync
 * writes.
 */
static int write_back(struct recovery *r, struct cfsr_file *file)
{
    uint64_t at = cfsr_align_down(r->durable_below, CFSR_INBOX_BLOCK_BYTES);
    uint8_t *block = r->log.scan.window;

    r->log.scan.window_bytes = 0;
    while (at < r->log.scan.body_offset) {
        uint32_t want = (uint32_t)cfsr_min_u64(
            WRITE_BACK_BYTES, cfsr_align_up(r->log.scan.body_offset, CFSR_INBOX_BLOCK_BYTES) - at);
        int rc = cfsr_file_pread(file, block, want, cfsr_inbox_file_offset(at));

        if (rc >= 0 && (uint32_t)rc < want)
            return damaged(r, r->last, at);
        if (rc >= 0)
            rc = cfsr_file_pwrite(file, block, want, cfsr_inbox_file_offset(at), false);
        if (rc < 0)
            return rc;
        at += want;
    }
    return 0;
}

/* What is reported as durable must be, in every segment whose records counted. */
static int make_durable(struct recovery *r)
{
    uint64_t sequence;
    int rc = 0;

    for (sequence = r->first_walked; rc == 0 && sequence <= r->last; sequence++) {
        struct cfsr_inbox_scan scan;

        rc = cfsr_inbox_scan_open(r->fs, r->site, r->lane, sequence, true, &scan);
        if (rc == -ENOENT && sequence < r->last) {
            rc = 0;
            continue;
        }
        if (rc < 0)
            break;
        if (scan.header_damaged)
            rc = cfsr_inbox_restore_header(r->fs, r->site, r->lane, sequence);
        if (rc == 0 && sequence == r->last)
            rc = clean_block_end(r, scan.file);
        if (rc == 0 && sequence == r->last)
            rc = write_back(r, scan.file);
        if (rc == 0)
            rc = cfsr_file_sync(scan.file);
        cfsr_inbox_scan_close(&scan);
    }
    return rc;
}

static int walk_until_readable(struct recovery *r)
{
    int rc;

    do {
        r->state->origins = 0;
        r->state->damaged = 0;
        r->state->gaps = 0;
        r->state->incarnation = 0;
        r->passed_damage = false;
        cfsr_inbox_index_reset(&r->state->index);
        rc = walk_records(r);
        if (rc == 0)
            rc = read_stamps(r);
    } while (rc == 0);
    return rc < 0 ? rc : 0;
}

static int recover_segments(struct recovery *r)
{
    struct cfsr_inbox_state *state = r->state;
    struct cfsr_inbox_scan *scan = &r->log.scan;
    int rc;

    rc = walk_headers(r);
    if (rc == 0)
        rc = walk_until_readable(r);
    if (rc == 0 && !r->read_only)
        rc = make_durable(r);
    if (rc < 0)
        return rc;
    state->cut_bytes = r->prepared_bytes;
    if (r->headers_end > scan->body_offset)
        state->cut_bytes += r->headers_end - scan->body_offset;
    state->arrival = scan->arrival;
    /* Above what is cut too: of it something may stay on the disk. */
    state->incarnation = r->incarnation + 1;
    state->end_sequence = scan->sequence;
    state->end_offset = scan->body_offset;
    if (scan->complete) {
        state->sequence = scan->sequence + 1;
        state->body_offset = 0;
        state->records_end = 0;
        cfsr_inbox_index_reset(&state->index);
    } else {
        state->sequence = scan->sequence;
        state->records_end = scan->body_offset;
        state->body_offset = cfsr_align_up(scan->body_offset, CFSR_INBOX_BLOCK_BYTES);
    }
    return 0;
}

static int recover(struct recovery *r, const struct cfsr_inbox_range_of_segments *range)
{
    struct cfsr_inbox_state *state = r->state;
    int rc;

    r->prepared_bytes = 0;
    r->durable_below = 0;
    rc = range->last == 0 ? 0 : find_segments(r, range);
    if (rc == 0) { /* nothing was ever written */
        state->sequence = range->first;
        state->arrival = 1;
        state->incarnation = 1;
        state->cut_bytes = r->prepared_bytes;
    } else if (rc == 1) {
        rc = recover_segments(r);
        if (rc == 0)
            rc = list_missing(r, range);
        cfsr_inbox_log_close(&r->log);
    }
    return rc;
}

/*
 * Until nothing more is wiped: a record that was cut may have hidden what stands behind it, and who
 * recovers the lane next must find the same end. Each round wipes another block.
 */
static int recover_until_same(struct recovery *r, const struct cfsr_inbox_range_of_segments *range)
{
    uint64_t cut_bytes = 0;
    int rc;

    do {
        r->wiped = false;
        rc = recover(r, range);
        cut_bytes = cfsr_max_u64(cut_bytes, r->state->cut_bytes);
    } while (rc == 0 && r->wiped);
    r->state->cut_bytes = cut_bytes;
    return rc;
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
    rc = recover_until_same(r, &range);
    if (rc == 0)
        *state_out = *r->state;
    cfsr_inbox_decoder_fini(&r->decoder);
free_state:
    free(r->state);
free_recovery:
    free(r);
    return rc;
}

uint32_t cfsr_inbox_state_reconcile(struct cfsr_inbox_state *fallback,
                                    const struct cfsr_inbox_state *recovered)
{
    uint32_t i, k, behind = 0;

    for (i = 0; i < fallback->origins; i++) {
        struct cfsr_inbox_cursor *cursor = &fallback->cursor[i];
        struct cfsr_inbox_cursor found = {.site_id = cursor->site_id, .journal = cursor->journal};

        found.last.lsn = UINT64_MAX;
        for (k = 0; k < recovered->origins; k++) {
            if (recovered->cursor[k].site_id == cursor->site_id &&
                cfsr_uuid_equal(&recovered->cursor[k].journal, &cursor->journal))
                found = recovered->cursor[k];
        }
        if (found.lsn >= cursor->lsn)
            continue;
        *cursor = found;
        behind++;
    }
    fallback->first_sequence = recovered->first_sequence;
    fallback->damaged = recovered->damaged;
    fallback->gaps = recovered->gaps;
    memcpy(fallback->gap, recovered->gap, sizeof fallback->gap);
    if (fallback->incarnation < recovered->incarnation)
        fallback->incarnation = recovered->incarnation;
    return behind;
}
