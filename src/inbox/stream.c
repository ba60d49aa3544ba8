/*
 * stream.c - the records of one inbox lane, in order of arrival, each once.
 *
 * Thread:     the reader's.
 * Invariants: a record is returned when its batch's digest and its own CRC verify and its LSN is at
 * or above what was delivered of its origin's lane; so overlapping frames, frames sent again after
 * a cut and a position inside a batch all come to the same. Rejected:   trusting the position's
 * offset alone (a recovery cut may have put other records there).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/reader.h"

static bool is_wanted(const struct cfsr_inbox_stream *stream, uint64_t site_id)
{
    uint32_t i;

    if (stream->site_id != 0)
        return stream->site_id == site_id;
    for (i = 0; i < stream->other_count; i++) {
        if (stream->others[i] == site_id)
            return false;
    }
    return true;
}

static struct cfsr_inbox_delivered *delivered_of(struct cfsr_inbox_stream *stream, uint64_t site_id,
                                                 const struct cfsr_uuid *journal)
{
    struct cfsr_inbox_position *position = stream->delivered;
    uint32_t i;

    for (i = 0; i < position->origins; i++) {
        if (position->origin[i].site_id == site_id &&
            cfsr_uuid_equal(&position->origin[i].journal, journal))
            return &position->origin[i];
    }
    if (i == CFSR_INBOX_ORIGINS_MAX)
        return NULL;
    position->origin[i] = (struct cfsr_inbox_delivered){.site_id = site_id, .journal = *journal};
    position->origins++;
    return &position->origin[i];
}

void cfsr_inbox_stream_close(struct cfsr_inbox_stream *stream)
{
    if (stream->open)
        cfsr_inbox_scan_close(&stream->scan);
    stream->open = false;
    free(stream->raw);
    stream->raw = NULL;
}

static int gone(const struct cfsr_inbox_stream *stream, uint64_t first)
{
    return cfsr_fail(-CFSR_E_GONE,
                     "inbox lane %u: segment %016llx was recycled before it was read, the oldest "
                     "kept is %016llx",
                     stream->lane, (unsigned long long)stream->sequence, (unsigned long long)first);
}

/* Opens the segment to read next: 1, 0 not there yet, -CFSR_E_GONE. */
static int open_segment(struct cfsr_inbox_stream *stream)
{
    struct cfsr_inbox_range_of_segments range;
    int rc;

    rc = cfsr_inbox_list_segments(stream->fs, stream->site, stream->lane, &range);
    if (rc < 0)
        return rc;
    if (stream->sequence == 0)
        stream->sequence = range.first;
    if (range.last == 0 || stream->sequence > range.last)
        return 0;
    if (stream->sequence < range.first)
        return gone(stream, range.first);
    rc = cfsr_inbox_scan_open(stream->fs, stream->site, stream->lane, stream->sequence, false,
                              &stream->scan);
    if (rc == -ENOENT)
        return gone(stream, range.first);
    if (rc < 0)
        return rc;
    stream->open = true;
    return 1;
}

int cfsr_inbox_stream_start(struct cfsr_inbox_stream *stream)
{
    const struct cfsr_inbox_position *position = stream->delivered;
    struct cfsr_inbox_item item;
    int rc;

    stream->fresh = position->sequence == 0;
    stream->sequence = position->sequence;
    rc = open_segment(stream);
    if (rc <= 0 || stream->fresh || position->body_offset == 0)
        return rc < 0 ? rc : 0;
    /* By its headers to the hinted place; when the walk does not meet it, the delivered LSNs do the
     * skipping. */
    while ((rc = cfsr_inbox_scan_next(&stream->scan, false, &item)) == 1) {
        if (item.body_offset == position->body_offset && item.local.arrival == position->arrival) {
            cfsr_inbox_scan_step_back(&stream->scan, &item);
            return 0;
        }
        if (item.body_offset >= position->body_offset)
            break;
    }
    if (rc < 0)
        return rc;
    stream->scan.body_offset = 0;
    stream->scan.arrival = 0;
    stream->scan.incarnation = 0;
    stream->scan.complete = false;
    return 0;
}

/* CURSORS: where the stream must be by now. A fresh stream begins here; another one behind it has
 * missed something. */
static int meet_cursors(struct cfsr_inbox_stream *stream, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    uint32_t i, count;
    int rc;

    rc = cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                 item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                 &count);
    for (i = 0; rc == 0 && i < count; i++) {
        struct cfsr_inbox_delivered *delivered;

        if (!is_wanted(stream, cursor[i].site_id))
            continue;
        delivered = delivered_of(stream, cursor[i].site_id, &cursor[i].journal);
        if (delivered == NULL)
            return -ENOSPC;
        if (delivered->lsn >= cursor[i].lsn)
            continue;
        if (!stream->fresh)
            return cfsr_fail(
                -CFSR_E_GONE,
                "inbox lane %u: records of site %llu below LSN %llu are not here any more",
                stream->lane, (unsigned long long)cursor[i].site_id,
                (unsigned long long)cursor[i].lsn);
        delivered->lsn = cursor[i].lsn;
    }
    if (rc == 0)
        stream->fresh = false;
    return rc;
}

/* The lane may go on in the next segment: it does if that begins with the record expected now. */
static int try_next_segment(struct cfsr_inbox_stream *stream)
{
    struct cfsr_inbox_scan before = stream->scan;
    struct cfsr_inbox_item item;
    int rc;

    stream->sequence++;
    stream->open = false;
    rc = open_segment(stream);
    if (rc == 1) {
        stream->scan.arrival = before.arrival;
        stream->scan.incarnation = before.incarnation;
        rc = cfsr_inbox_scan_next(&stream->scan, false, &item);
        if (rc == 1) {
            cfsr_inbox_scan_step_back(&stream->scan, &item);
            stream->scan.incarnation = before.incarnation;
            cfsr_inbox_scan_close(&before);
            return 1;
        }
        cfsr_inbox_scan_close(&stream->scan);
    }
    stream->sequence--;
    stream->scan = before;
    stream->open = true;
    return rc;
}

int cfsr_inbox_stream_next_item(struct cfsr_inbox_stream *stream, struct cfsr_inbox_item *item_out)
{
    int rc;

    if (!stream->open) {
        rc = open_segment(stream);
        if (rc <= 0)
            return rc;
    }
    for (;;) {
        rc = cfsr_inbox_scan_next(&stream->scan, false, item_out);
        if (rc != 0)
            return rc;
        rc = try_next_segment(stream);
        if (rc <= 0)
            return rc;
    }
}

int cfsr_inbox_stream_judge_end(struct cfsr_inbox_stream *stream)
{
    struct cfsr_inbox_range_of_segments range;
    struct cfsr_inbox_probe probe;
    int rc;

    if (!stream->open)
        return 0;
    rc = cfsr_inbox_list_segments(stream->fs, stream->site, stream->lane, &range);
    if (rc < 0)
        return rc;
    if (range.first > stream->sequence)
        return gone(stream, range.first);
    if (stream->scan.complete)
        return 0;
    rc = cfsr_inbox_scan_probe(&stream->scan, &probe);
    if (rc < 0 || probe.durable_below <= stream->scan.body_offset)
        return rc;
    return cfsr_fail(
        -CFSR_E_DAMAGED,
        "inbox lane %u, segment %016llx is damaged at body offset %llu: run inbox verify",
        stream->lane, (unsigned long long)stream->sequence,
        (unsigned long long)stream->scan.body_offset);
}

/* Takes up the next batch that brings something new: 1, 0, -errno. */
static int next_batch(struct cfsr_inbox_stream *stream)
{
    for (;;) {
        struct cfsr_inbox_delivered *delivered;
        struct cfsr_batch_header header;
        struct cfsr_inbox_item item;
        int rc;

        rc = cfsr_inbox_stream_next_item(stream, &item);
        if (rc <= 0)
            return rc;
        if (item.local.kind == CFSR_INBOX_CURSORS) {
            rc = meet_cursors(stream, &item);
            if (rc < 0)
                return rc;
        }
        if (item.local.kind != CFSR_INBOX_BATCH)
            continue;
        rc = cfsr_inbox_item_header(&item, &header);
        if (rc < 0)
            return cfsr_fail_context(rc, "inbox lane %u, arrival %llu", stream->lane,
                                     (unsigned long long)item.local.arrival);
        if (!is_wanted(stream, header.site_id))
            continue;
        delivered = delivered_of(stream, header.site_id, &header.journal);
        if (delivered == NULL)
            return -ENOSPC;
        if (header.lsn_to <= delivered->lsn)
            continue;
        rc = cfsr_inbox_scan_read_whole(&stream->scan, &item);
        if (rc == 0)
            rc = cfsr_inbox_item_check(stream->decoder, &item, &header);
        if (rc == -CFSR_E_BAD_DIGEST) { /* still being written, torn, or damaged */
            cfsr_inbox_scan_step_back(&stream->scan, &item);
            rc = cfsr_inbox_stream_judge_end(stream);
            return rc;
        }
        if (rc == 0)
            rc = cfsr_inbox_item_decode(stream->decoder, stream->site, &item, &header, stream->raw,
                                        stream->extension, &stream->walk, NULL);
        if (rc < 0)
            return cfsr_fail_context(rc, "inbox lane %u, arrival %llu", stream->lane,
                                     (unsigned long long)item.local.arrival);
        stream->batch = item;
        stream->has_batch = true;
        return 1;
    }
}

int cfsr_inbox_stream_fill(struct cfsr_inbox_stream *stream)
{
    if (stream->raw == NULL) {
        stream->raw = malloc(CFSR_CODEC_INPUT_MAX_BYTES);
        if (stream->raw == NULL)
            return -ENOMEM;
    }
    while (!stream->has_head) {
        const struct cfsr_batch_header *header = &stream->walk.header;
        struct cfsr_inbox_delivered *delivered;
        int rc;

        if (!stream->has_batch) {
            rc = next_batch(stream);
            if (rc <= 0)
                return rc;
        }
        delivered = delivered_of(stream, header->site_id, &header->journal);
        CFSR_ASSERT(delivered != NULL); /* next_batch() made it */
        if (cfsr_inbox_walk_next(&stream->walk, &stream->head) == 0) {
            delivered->lsn = cfsr_max_u64(delivered->lsn, header->lsn_to);
            stream->has_batch = false;
            continue;
        }
        if (stream->head.header.timestamp_us > stream->watermark_us)
            stream->watermark_us = stream->head.header.timestamp_us;
        if (stream->head.end_lsn <= delivered->lsn)
            continue;
        if (!stream->all_records && !cfsr_record_is_entry(stream->head.header.op)) {
            delivered->lsn = stream->head.end_lsn;
            continue;
        }
        stream->has_head = true;
    }
    return 1;
}

void cfsr_inbox_stream_deliver(struct cfsr_inbox_stream *stream)
{
    const struct cfsr_batch_header *header = &stream->walk.header;
    struct cfsr_inbox_delivered *delivered = delivered_of(stream, header->site_id,
                                                          &header->journal);

    CFSR_ASSERT(stream->has_head && delivered != NULL && stream->head.end_lsn > delivered->lsn);
    delivered->lsn = stream->head.end_lsn;
    stream->has_head = false;
}
