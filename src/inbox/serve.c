/*
 * serve.c - what other sites ask of the inbox: the frame that holds an LSN, digests of windows.
 *
 * Thread:     helpers; blocking.
 * Invariants: a frame is given only when its digest verifies; digests come from the reader that
 * delivers every record once, so they equal the origin's own. Rejected:   an index of LSNs (the
 * CURSORS at the head of each segment and the steps of its INDEX bound the search well enough for
 * what is asked rarely).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/reader.h"
#include "journal/digest.h"

/* An origin's lane that is looked for. */
struct quarry {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    uint64_t site_id;
    const struct cfsr_uuid *journal;
};

static bool is_of(const struct quarry *q, uint64_t site_id, const struct cfsr_uuid *journal)
{
    return q->site_id == site_id && cfsr_uuid_equal(q->journal, journal);
}

/* ---- where an LSN is ---- */

/* The origin's cursor at the head of a segment: 1; 0 the segment cannot say; -errno. */
static int head_cursor(const struct quarry *q, uint64_t sequence, uint64_t *lsn_out)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    uint32_t i, count = 0;
    int rc;

    rc = cfsr_inbox_scan_open(q->fs, q->site, q->lane, sequence, false, &scan);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    rc = cfsr_inbox_scan_next(&scan, false, &item);
    if (rc == 1 && cfsr_inbox_cursors_load(item.record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                           item.local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES,
                                           cursor, &count) < 0)
        rc = 0;
    cfsr_inbox_scan_close(&scan);
    *lsn_out = 0;
    for (i = 0; rc == 1 && i < count; i++) {
        if (is_of(q, cursor[i].site_id, &cursor[i].journal))
            *lsn_out = cursor[i].lsn;
    }
    return rc;
}

/*
 * The last segment whose head says that the origin stood at or below lsn: its batch is there, or
 * further on if the heads between are damaged. -CFSR_E_GONE.
 */
static int find_segment(const struct quarry *q, const struct cfsr_inbox_range_of_segments *range,
                        uint64_t lsn, uint64_t *sequence_out)
{
    uint64_t found = range->first, low = range->first, high = range->last + 1, at = 0;
    int rc = head_cursor(q, low, &at);

    if (rc < 0)
        return rc;
    if (rc == 1 && at > lsn)
        return -CFSR_E_GONE;
    while (high - low > 1) { /* the heads from high on are above, those up to low are not */
        uint64_t middle = low + (high - low) / 2, probe = middle;

        while ((rc = head_cursor(q, probe, &at)) == 0 && probe > low + 1)
            probe--;
        if (rc < 0)
            return rc;
        if (rc == 1 && at > lsn) {
            high = probe;
            continue;
        }
        if (rc == 1)
            found = probe;
        low = middle; /* heads that say nothing are passed over */
    }
    *sequence_out = found;
    return 0;
}

/* By the steps of the segment's INDEX: the last sampled batch of the origin at or below lsn, or the
 * segment's beginning. */
static int find_step(const struct quarry *q, uint64_t sequence, uint64_t lsn,
                     uint64_t *body_offset_out)
{
    struct cfsr_inbox_cursor *origins = calloc(CFSR_INBOX_ORIGINS_MAX, sizeof *origins);
    struct cfsr_inbox_index *index = malloc(sizeof *index);
    struct cfsr_batch_header header;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    uint32_t count, i;
    int rc = -ENOMEM;

    *body_offset_out = 0;
    if (index == NULL || origins == NULL)
        goto free_index;
    rc = cfsr_inbox_scan_open(q->fs, q->site, q->lane, sequence, false, &scan);
    if (rc < 0)
        goto free_index;
    rc = cfsr_inbox_scan_index(&scan, index, origins, &count);
    for (i = rc == 1 ? index->count : 0; rc >= 0 && i > 0; i--) {
        cfsr_inbox_scan_jump(&scan, index->step[i - 1].body_offset, 0);
        rc = cfsr_inbox_scan_next(&scan, false, &item);
        if (rc == 1 && item.local.kind == CFSR_INBOX_BATCH &&
            cfsr_inbox_item_header(&item, &header) == 0 &&
            is_of(q, header.site_id, &header.journal) && header.lsn_from <= lsn) {
            *body_offset_out = index->step[i - 1].body_offset;
            break;
        }
    }
    cfsr_inbox_scan_close(&scan);
free_index:
    free(index);
    free(origins);
    return rc == -ENOENT ? 0 : rc < 0 ? rc : 0;
}

/* ---- frames ---- */

static int copy_frame(const struct cfsr_inbox_item *item, void *frame_out, uint32_t capacity,
                      uint32_t *frame_bytes_out)
{
    uint32_t bytes = item->local.record_bytes - cfsr_inbox_prefix_offset(item->local.kind);

    if (bytes > capacity)
        return -CFSR_E_TOO_LARGE;
    memcpy(frame_out, cfsr_inbox_item_prefix(item), bytes);
    *frame_bytes_out = bytes;
    return 0;
}

struct search {
    const struct quarry *quarry;
    struct cfsr_inbox_decoder *decoder;
    uint64_t lsn;
    bool seen;  /* the origin */
    bool above; /* something says that the LSN was here */
    void *frame_out;
    uint32_t capacity;
    uint32_t *frame_bytes_out;
};

/* 1 found and copied; 2 the walk is past it; 0 go on; -errno. */
static int try_item(struct search *s, struct cfsr_inbox_log *log, struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_batch_header header;
    uint32_t i, count = 0;
    int rc;

    if (item->local.kind == CFSR_INBOX_CURSORS &&
        cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                &count) == 0) {
        for (i = 0; i < count; i++) {
            if (!is_of(s->quarry, cursor[i].site_id, &cursor[i].journal))
                continue;
            s->seen = true;
            s->above = s->above || cursor[i].lsn > s->lsn;
        }
        return s->above ? 2 : 0;
    }
    if (item->local.kind != CFSR_INBOX_BATCH || cfsr_inbox_item_header(item, &header) < 0 ||
        !is_of(s->quarry, header.site_id, &header.journal))
        return 0;
    s->seen = true;
    s->above = s->above || header.lsn_to > s->lsn;
    if (header.lsn_to <= s->lsn || header.lsn_from > s->lsn)
        return 0; /* above it: what is below may come again, up to the next CURSORS */
    rc = cfsr_inbox_scan_read_whole(&log->scan, item);
    if (rc == 0 && cfsr_inbox_item_check(s->decoder, item, &header) == 0) {
        rc = copy_frame(item, s->frame_out, s->capacity, s->frame_bytes_out);
        return rc < 0 ? rc : 1;
    }
    return rc;
}

static int search_log(struct search *s, uint64_t sequence, uint64_t body_offset)
{
    const struct quarry *q = s->quarry;
    struct cfsr_inbox_damage damage;
    struct cfsr_inbox_item item;
    struct cfsr_inbox_log log;
    int rc;

    cfsr_inbox_log_init(&log, q->fs, q->site, q->lane, sequence);
    rc = cfsr_inbox_log_seek(&log, sequence, body_offset);
    if (rc >= 0)
        rc = 0;
    while (rc == 0) {
        rc = cfsr_inbox_log_step(&log, false, &item, &damage);
        if (rc == 0)
            rc = 2;
        else if (rc > 0)
            rc = rc == CFSR_INBOX_LOG_RECORD ? try_item(s, &log, &item) : 0;
    }
    cfsr_inbox_log_close(&log);
    return rc == 2 ? 0 : rc;
}

/* The REPAIRs, when no BATCH is left: 1, 0, -errno. */
static int search_repairs(struct search *s, uint64_t sequence)
{
    const struct quarry *q = s->quarry;
    struct cfsr_inbox_repairs repairs = {0};
    struct cfsr_batch_header header;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    int rc;

    rc = cfsr_inbox_repairs_load(&repairs, q->fs, q->site, q->lane, sequence);
    if (rc == 0)
        rc = cfsr_inbox_repairs_read(&repairs, q->fs, q->site, q->lane, s->decoder, q->site_id,
                                     q->journal, s->lsn, &scan, &item, &header);
    cfsr_inbox_repairs_free(&repairs);
    if (rc == 1) {
        rc = copy_frame(&item, s->frame_out, s->capacity, s->frame_bytes_out);
        cfsr_inbox_scan_close(&scan);
        rc = rc < 0 ? rc : 1;
    }
    return rc;
}

int cfsr_inbox_find_frame(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          uint64_t origin_site, const struct cfsr_uuid *journal, uint64_t lsn,
                          void *frame_out, uint32_t capacity, uint32_t *frame_bytes_out)
{
    const struct quarry quarry = {fs, site, lane, origin_site, journal};
    struct cfsr_inbox_range_of_segments range;
    struct cfsr_inbox_decoder decoder = {0};
    struct search search = {
        .quarry = &quarry,
        .decoder = &decoder,
        .lsn = lsn,
        .frame_out = frame_out,
        .capacity = capacity,
        .frame_bytes_out = frame_bytes_out,
    };
    uint64_t sequence = 0, body_offset = 0;
    int rc;

    rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc < 0 || range.last == 0)
        return rc < 0 ? rc : -ENOENT;
    rc = find_segment(&quarry, &range, lsn, &sequence);
    if (rc == 0)
        rc = find_step(&quarry, sequence, lsn, &body_offset);
    if (rc == 0)
        rc = cfsr_inbox_decoder_init(&decoder);
    if (rc < 0)
        return rc;
    rc = search_log(&search, sequence, body_offset);
    if (rc == 0 && body_offset > 0) /* batches that were sent again stand out of order */
        rc = search_log(&search, sequence, 0);
    if (rc == 0)
        rc = search_repairs(&search, sequence);
    cfsr_inbox_decoder_fini(&decoder);
    if (rc == 0 && search.above)
        return cfsr_fail(-CFSR_E_DAMAGED, "inbox lane %u: LSN %llu of site %llu is damaged here",
                         lane, (unsigned long long)lsn, (unsigned long long)origin_site);
    return rc == 1 ? 0 : rc == 0 ? -ENOENT : rc;
}

/* ---- window digests ---- */

struct windows {
    struct cfsr_inbox_window *out;
    uint32_t count, capacity;
    uint64_t limit_index; /* windows at or above are not asked for, or not whole */
};

static void take_window(void *user, uint64_t index, const uint8_t digest[CFSR_DIGEST_LEN_BYTES])
{
    struct windows *windows = user;

    if (index >= windows->limit_index || windows->count == windows->capacity)
        return;
    windows->out[windows->count].index = index;
    memcpy(windows->out[windows->count].digest, digest, CFSR_DIGEST_LEN_BYTES);
    windows->count++;
}

/* Feeds records until the windows are whole, the budget is used or there is no more. *whole_out:
 * below this LSN every record was fed. */
static int feed_windows(struct cfsr_inbox_stream *stream, struct cfsr_lane_digest *digest,
                        uint64_t from_lsn, uint64_t to_lsn, uint64_t budget_bytes,
                        const struct windows *windows, uint64_t *whole_out)
{
    uint64_t bytes = 0;
    int rc;

    *whole_out = from_lsn;
    while ((rc = cfsr_inbox_stream_fill(stream, true)) == 1) {
        const struct cfsr_inbox_entry *head = &stream->head;
        bool enough = bytes >= budget_bytes || windows->count == windows->capacity;

        if (head->lsn >= to_lsn || (enough && windows->count > 0)) {
            *whole_out = head->lsn;
            return 0;
        }
        if (head->lsn >= from_lsn) {
            (void)cfsr_lane_digest_feed(digest, head->lsn, head->record, head->wire_bytes);
            bytes += head->wire_bytes;
        }
        *whole_out = cfsr_max_u64(*whole_out, head->end_lsn);
        cfsr_inbox_stream_deliver(stream);
    }
    return rc;
}

/* The origin's records from from_lsn on. */
static int open_stream(const struct quarry *q, uint64_t sequence, uint64_t from_lsn,
                       struct cfsr_inbox_decoder *decoder, struct cfsr_inbox_position *position,
                       struct cfsr_inbox_stream *stream)
{
    memset(position, 0, sizeof *position);
    memset(stream, 0, sizeof *stream);
    position->sequence = sequence;
    position->origins = 1;
    position->origin[0] = (struct cfsr_inbox_delivered){
        .site_id = q->site_id, .journal = *q->journal, .lsn = from_lsn};
    stream->fs = q->fs;
    stream->site = q->site;
    stream->decoder = decoder;
    stream->delivered = position;
    stream->lane = q->lane;
    stream->site_id = q->site_id;
    stream->journal = q->journal;
    stream->all_records = true;
    return cfsr_inbox_stream_start(stream);
}

static int digest_windows(const struct quarry *q, uint64_t sequence, uint64_t from_lsn,
                          uint64_t to_lsn, uint64_t budget_bytes, struct windows *windows,
                          uint64_t *next_lsn_out)
{
    struct cfsr_inbox_position *position = malloc(sizeof *position);
    struct cfsr_inbox_stream *stream = malloc(sizeof *stream);
    struct cfsr_inbox_decoder decoder = {0};
    uint8_t ignored[CFSR_DIGEST_LEN_BYTES];
    struct cfsr_lane_digest digest = {0};
    uint64_t whole = from_lsn;
    bool started = false;
    int rc = position == NULL || stream == NULL ? -ENOMEM : 0;

    if (rc == 0)
        rc = cfsr_inbox_decoder_init(&decoder);
    if (rc == 0)
        rc = cfsr_lane_digest_begin(&digest, q->site->segment_bytes);
    if (rc == 0) {
        digest.on_window = take_window;
        digest.user = windows;
        rc = open_stream(q, sequence, from_lsn, &decoder, position, stream);
        started = true;
    }
    if (rc == 0)
        rc = feed_windows(stream, &digest, from_lsn, to_lsn, budget_bytes, windows, &whole);
    if (started)
        cfsr_inbox_stream_close(stream);
    if (digest.window != NULL) {
        windows->limit_index = whole / CFSR_DIGEST_WINDOW_BYTES;
        cfsr_lane_digest_final(&digest, ignored); /* gives the window at hand, if it is whole */
        cfsr_lane_digest_fini(&digest);
    }
    cfsr_inbox_decoder_fini(&decoder);
    free(position);
    free(stream);
    *next_lsn_out = whole - whole % CFSR_DIGEST_WINDOW_BYTES;
    return rc;
}

int cfsr_inbox_window_digests(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t origin_site, const struct cfsr_uuid *journal,
                              uint64_t lsn_from, uint64_t lsn_to, uint64_t budget_bytes,
                              struct cfsr_inbox_window *windows_out, uint32_t capacity,
                              uint32_t *count_out, uint64_t *next_lsn_out)
{
    const struct quarry quarry = {fs, site, lane, origin_site, journal};
    uint64_t from = cfsr_align_up(lsn_from, CFSR_DIGEST_WINDOW_BYTES), next = from, sequence;
    uint64_t to = cfsr_align_down(lsn_to, CFSR_DIGEST_WINDOW_BYTES);
    struct windows windows = {.out = windows_out, .capacity = capacity, .limit_index = UINT64_MAX};
    struct cfsr_inbox_range_of_segments range;
    int rc;

    if (from >= to) {
        *count_out = 0;
        *next_lsn_out = lsn_to;
        return 0;
    }
    rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc < 0 || range.last == 0)
        return rc < 0 ? rc : -ENOENT;
    rc = find_segment(&quarry, &range, from, &sequence);
    if (rc == 0)
        rc = digest_windows(&quarry, sequence, from, to, budget_bytes, &windows, &next);
    if (rc < 0 && (rc != -CFSR_E_DAMAGED || windows.count == 0))
        return rc;
    if (rc == 0 && windows.count == 0 && next <= from)
        return -ENOENT; /* nothing of it here, or less than a window */
    *count_out = windows.count;
    *next_lsn_out = next >= to ? lsn_to : next;
    return 0;
}
