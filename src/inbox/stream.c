/*
 * stream.c - the records of one inbox lane, in order of arrival, each once.
 *
 * Thread:     the reader's.
 * Invariants: a record is returned when its batch's digest and its own CRC verify and its LSN is at
 * or above what was delivered of its origin's lane, and a batch is taken up only when it continues
 * what was delivered: so overlapping frames, frames sent again after a cut and a position inside a
 * batch all come to the same, and nothing is ever passed over. What is missing is taken from the
 * REPAIR records further on, before anything behind it; if they do not have it, the stream stops
 * there with an error and goes on by itself once they have. Rejected:   trusting the position's
 * offset alone (a recovery cut may have put other records there); delivering what is behind a gap
 * for origins that lost nothing (the order of arrival would depend on when the gap was repaired).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/reader.h"

static bool is_wanted(const struct cfsr_inbox_stream *stream, uint64_t site_id,
                      const struct cfsr_uuid *journal)
{
    uint32_t i;

    if (stream->journal != NULL && !cfsr_uuid_equal(stream->journal, journal))
        return false;
    if (stream->site_id != 0)
        return stream->site_id == site_id;
    for (i = 0; i < stream->other_count; i++) {
        if (stream->others[i] == site_id)
            return false;
    }
    return true;
}

/* *made_out: it was not known before. */
static struct cfsr_inbox_delivered *delivered_of(struct cfsr_inbox_stream *stream, uint64_t site_id,
                                                 const struct cfsr_uuid *journal, bool *made_out)
{
    struct cfsr_inbox_position *position = stream->delivered;
    uint32_t i;

    *made_out = false;
    for (i = 0; i < position->origins; i++) {
        if (position->origin[i].site_id == site_id &&
            cfsr_uuid_equal(&position->origin[i].journal, journal))
            return &position->origin[i];
    }
    if (i == CFSR_INBOX_ORIGINS_MAX)
        return NULL;
    *made_out = true;
    position->origin[i] = (struct cfsr_inbox_delivered){.site_id = site_id, .journal = *journal};
    position->origins++;
    return &position->origin[i];
}

void cfsr_inbox_stream_close(struct cfsr_inbox_stream *stream)
{
    cfsr_inbox_log_close(&stream->log);
    cfsr_inbox_repairs_free(&stream->repairs);
    free(stream->holes);
    free(stream->raw);
    stream->holes = NULL;
    stream->raw = NULL;
}

int cfsr_inbox_stream_start(struct cfsr_inbox_stream *stream)
{
    const struct cfsr_inbox_position *position = stream->delivered;
    struct cfsr_inbox_range_of_segments range;
    struct cfsr_inbox_item item;
    int rc;

    rc = cfsr_inbox_list_segments(stream->fs, stream->site, stream->lane, &range);
    if (rc < 0)
        return rc;
    /* Nothing is missing in front of segment 1: every origin begins there with LSN 0. */
    stream->fresh = position->sequence == 0 && range.first > 1;
    cfsr_inbox_log_init(&stream->log, stream->fs, stream->site, stream->lane, position->sequence);
    if (position->sequence == 0)
        return 0;
    rc = cfsr_inbox_log_seek(&stream->log, position->sequence, 0);
    if (rc <= 0 || position->body_offset == 0)
        return rc < 0 ? rc : 0;
    /* By its headers to the hinted place; when the walk does not meet it, the delivered LSNs do the
     * skipping. */
    while ((rc = cfsr_inbox_scan_next(&stream->log.scan, false, &item)) == 1) {
        if (item.body_offset == position->body_offset && item.local.arrival == position->arrival) {
            cfsr_inbox_scan_step_back(&stream->log.scan, &item);
            return 0;
        }
        if (item.body_offset >= position->body_offset)
            break;
    }
    if (rc < 0)
        return rc;
    rc = cfsr_inbox_log_seek(&stream->log, position->sequence, 0);
    return rc < 0 ? rc : 0;
}

/* ---- what is missing, and the REPAIR records for it ---- */

static bool has_holes(const struct cfsr_inbox_stream *stream)
{
    return stream->holes != NULL && stream->hole < stream->holes->parts;
}

/* What the stream has delivered of the origins it wants. */
static void fill_known(const struct cfsr_inbox_stream *stream, struct cfsr_inbox_known *known)
{
    const struct cfsr_inbox_position *position = stream->delivered;
    uint32_t i;

    known->fresh = stream->fresh;
    known->origins = 0;
    for (i = 0; i < position->origins; i++) {
        if (is_wanted(stream, position->origin[i].site_id, &position->origin[i].journal))
            known->origin[known->origins++] = position->origin[i];
    }
}

/*
 * Notes what a damaged place cost the origins of this stream. It is filled before the stream goes
 * on.
 */
static int note_holes(struct cfsr_inbox_stream *stream, const struct cfsr_inbox_damage *damage,
                      const struct cfsr_batch_header *batch)
{
    struct cfsr_inbox_known *known = malloc(sizeof *known);
    struct cfsr_inbox_gap *holes = stream->holes;
    uint32_t i, kept = 0;
    int rc = -ENOMEM;

    if (holes == NULL)
        stream->holes = holes = calloc(1, sizeof *holes);
    if (known != NULL && holes != NULL) {
        fill_known(stream, known);
        rc = cfsr_inbox_describe(stream->fs, stream->site, stream->lane, damage, batch, known, NULL,
                                 holes);
    }
    free(known);
    if (rc < 0) {
        if (holes != NULL)
            holes->parts = 0;
        return rc;
    }
    for (i = 0; i < holes->parts; i++) {
        if (is_wanted(stream, holes->part[i].site_id, &holes->part[i].journal))
            holes->part[kept++] = holes->part[i];
    }
    holes->parts = kept;
    stream->hole = 0;
    return 0;
}

static int unrepaired(const struct cfsr_inbox_stream *stream, uint64_t lsn)
{
    const struct cfsr_inbox_gap *holes = stream->holes;
    const struct cfsr_inbox_gap_part *part = &holes->part[stream->hole];

    return cfsr_fail(-CFSR_E_DAMAGED,
                     "inbox lane %u, segment %016llx is damaged at body offset %llu: records of "
                     "site %llu from LSN %llu to %llu are missing: run cfs admin replication "
                     "scrub, which fetches them from a site that has them",
                     stream->lane, (unsigned long long)holes->sequence,
                     (unsigned long long)holes->begin, (unsigned long long)part->site_id,
                     (unsigned long long)lsn, (unsigned long long)part->lsn_to);
}

/* Takes a whole checked record up as the batch at hand. */
static int take_up(struct cfsr_inbox_stream *stream, const struct cfsr_inbox_item *item,
                   const struct cfsr_batch_header *header)
{
    int rc = cfsr_inbox_item_decode(stream->decoder, stream->site, item, header, stream->raw,
                                    stream->extension, &stream->walk, NULL);

    if (rc < 0)
        return cfsr_fail_context(rc, "inbox lane %u, arrival %llu", stream->lane,
                                 (unsigned long long)item->local.arrival);
    stream->batch = *item;
    stream->has_batch = true;
    return 1;
}

/* The next REPAIR for the holes: 1 taken up, 0 no hole is left, -CFSR_E_DAMAGED, -errno. */
static int fill_hole(struct cfsr_inbox_stream *stream)
{
    bool loaded = false;

    for (; has_holes(stream); stream->hole++) {
        const struct cfsr_inbox_gap_part *part = &stream->holes->part[stream->hole];
        struct cfsr_inbox_delivered *delivered;
        struct cfsr_batch_header header;
        struct cfsr_inbox_scan scan;
        struct cfsr_inbox_item item;
        bool made;
        int rc;

        delivered = delivered_of(stream, part->site_id, &part->journal, &made);
        if (delivered == NULL)
            return -ENOSPC;
        if (delivered->lsn >= part->lsn_to)
            continue;
        for (;;) {
            rc = cfsr_inbox_repairs_read(&stream->repairs, stream->fs, stream->site, stream->lane,
                                         stream->decoder, part->site_id, &part->journal,
                                         delivered->lsn, &scan, &item, &header);
            if (rc != 0 || loaded)
                break;
            loaded = true; /* there may be newer ones than were known */
            rc = cfsr_inbox_repairs_load(&stream->repairs, stream->fs, stream->site, stream->lane,
                                         stream->holes->sequence);
            if (rc < 0)
                break;
        }
        if (rc == 0)
            return unrepaired(stream, delivered->lsn);
        if (rc < 0)
            return rc;
        rc = take_up(stream, &item, &header);
        cfsr_inbox_scan_close(&scan);
        return rc;
    }
    return 0;
}

/*
 * At a sound record that goes on above what was delivered: what is between is missing, and filled
 * before the record is met again. 1: so it is; 0: nothing is missing, what is between and this
 * record itself were given up by their writer and come again.
 */
static int meet_jump(struct cfsr_inbox_stream *stream, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_damage damage = cfsr_inbox_damage_of(item, -CFSR_E_BAD_ORDER);
    int rc = note_holes(stream, &damage, NULL);

    if (rc < 0 || !has_holes(stream))
        return rc;
    cfsr_inbox_scan_step_back(&stream->log.scan, item);
    return 1;
}

/* ---- the records as they stand ---- */

/* CURSORS: where the stream must be by now. A fresh stream begins here; another one behind it has
 * missed something. 1: it has, and the holes say what. */
static int meet_cursors(struct cfsr_inbox_stream *stream, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    bool behind = false;
    uint32_t i, count;
    int rc;

    rc = cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                 item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                 &count);
    if (rc < 0)
        return rc;
    for (i = 0; i < count; i++) {
        struct cfsr_inbox_delivered *delivered;
        bool made;

        if (!is_wanted(stream, cursor[i].site_id, &cursor[i].journal))
            continue;
        delivered = delivered_of(stream, cursor[i].site_id, &cursor[i].journal, &made);
        if (delivered == NULL)
            return -ENOSPC;
        if (stream->fresh)
            delivered->lsn = cfsr_max_u64(delivered->lsn, cursor[i].lsn);
        behind = behind || delivered->lsn < cursor[i].lsn;
    }
    stream->fresh = false;
    stream->unnamed_sequence = 0;
    return behind ? meet_jump(stream, item) : 0;
}

/* A batch whose body does not verify: still being written, torn, or damaged. 1: damaged, and the
 * holes say what it cost; 0 the end. */
static int meet_bad_body(struct cfsr_inbox_stream *stream, const struct cfsr_inbox_item *item,
                         const struct cfsr_batch_header *header)
{
    struct cfsr_inbox_damage damage = cfsr_inbox_damage_of(item, -CFSR_E_BAD_DIGEST);
    struct cfsr_inbox_item again = *item;
    int rc = cfsr_inbox_log_vouched(&stream->log, damage.sequence, damage.begin);

    if (rc == 1) { /* it may have been completed meanwhile */
        rc = cfsr_inbox_scan_read_whole(&stream->log.scan, &again);
        if (rc == 0 && cfsr_inbox_item_check(stream->decoder, &again, header) == 0) {
            cfsr_inbox_scan_step_back(&stream->log.scan, item);
            return 1;
        }
        if (rc == 0)
            rc = item->local.kind == CFSR_INBOX_REPAIR ? 0 : note_holes(stream, &damage, header);
        return rc < 0 ? rc : 1;
    }
    cfsr_inbox_scan_step_back(&stream->log.scan, item);
    return rc;
}

/* A BATCH or REPAIR: 1 taken up, or its holes come first; 0 nothing new in it (go on); 2 the end;
 * -errno. */
static int meet_batch(struct cfsr_inbox_stream *stream, struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_delivered *delivered;
    struct cfsr_batch_header header;
    bool made;
    int rc;

    rc = cfsr_inbox_item_header(item, &header);
    if (rc < 0)
        return cfsr_fail_context(rc, "inbox lane %u, arrival %llu", stream->lane,
                                 (unsigned long long)item->local.arrival);
    if (!is_wanted(stream, header.site_id, &header.journal))
        return 0;
    delivered = delivered_of(stream, header.site_id, &header.journal, &made);
    if (delivered == NULL)
        return -ENOSPC;
    if (made && stream->fresh)
        delivered->lsn = header.lsn_from;
    if (header.lsn_to <= delivered->lsn)
        return 0;
    rc = cfsr_inbox_scan_read_whole(&stream->log.scan, item);
    if (rc == 0)
        rc = cfsr_inbox_item_check(stream->decoder, item, &header);
    if (rc == -CFSR_E_BAD_DIGEST) {
        rc = meet_bad_body(stream, item, &header);
        return rc < 0 ? rc : rc == 0 ? 2 : 0;
    }
    if (rc < 0)
        return rc;
    if (header.lsn_from <= delivered->lsn)
        return take_up(stream, item, &header);
    if (item->local.kind == CFSR_INBOX_REPAIR)
        return 0; /* of something further ahead: found again when it is needed */
    return meet_jump(stream, item);
}

/* Nothing is read on: 0 it is the end, -CFSR_E_DAMAGED it may be missing something. */
static int end_of(const struct cfsr_inbox_stream *stream)
{
    if (stream->unnamed_sequence == 0)
        return 0;
    return cfsr_fail(-CFSR_E_DAMAGED,
                     "inbox lane %u, segment %016llx is damaged at body offset %llu, and "
                     "nothing behind says all that was there: run cfs admin replication scrub, "
                     "which fetches it from a site that has it",
                     stream->lane, (unsigned long long)stream->unnamed_sequence,
                     (unsigned long long)stream->unnamed_begin);
}

int cfsr_inbox_stream_judge_end(struct cfsr_inbox_stream *stream)
{
    struct cfsr_inbox_damage damage;
    int rc = cfsr_inbox_log_judge(&stream->log, &damage);

    if (rc == 1) {
        stream->unnamed_sequence = damage.sequence;
        stream->unnamed_begin = damage.begin;
        rc = note_holes(stream, &damage, NULL);
        return rc < 0 ? rc : 1;
    }
    return rc == 0 ? end_of(stream) : rc;
}

/* Takes up the next batch that brings something new: 1, 0, -errno. */
static int next_batch(struct cfsr_inbox_stream *stream, bool judge)
{
    for (;;) {
        struct cfsr_inbox_item item;
        int rc = fill_hole(stream);

        if (rc != 0)
            return rc;
        rc = cfsr_inbox_log_next(&stream->log, false, &item);
        if (rc == 0 && judge) {
            rc = cfsr_inbox_stream_judge_end(stream);
            if (rc == 1)
                continue;
        }
        if (rc <= 0)
            return rc;
        if (item.local.kind == CFSR_INBOX_CURSORS)
            rc = meet_cursors(stream, &item);
        else if (item.local.kind == CFSR_INBOX_BATCH || item.local.kind == CFSR_INBOX_REPAIR)
            rc = meet_batch(stream, &item);
        else
            rc = 0;
        if (rc < 0)
            return rc;
        if (rc == 2)
            return judge ? end_of(stream) : 0;
        if (rc == 1 && stream->has_batch)
            return 1;
    }
}

int cfsr_inbox_stream_fill(struct cfsr_inbox_stream *stream, bool judge)
{
    if (stream->raw == NULL) {
        stream->raw = malloc(CFSR_CODEC_INPUT_MAX_BYTES);
        if (stream->raw == NULL)
            return -ENOMEM;
    }
    while (!stream->has_head) {
        const struct cfsr_batch_header *header = &stream->walk.header;
        struct cfsr_inbox_delivered *delivered;
        bool made;
        int rc;

        if (!stream->has_batch) {
            rc = next_batch(stream, judge);
            if (rc <= 0)
                return rc;
        }
        delivered = delivered_of(stream, header->site_id, &header->journal, &made);
        CFSR_ASSERT(delivered != NULL && !made); /* next_batch() made it */
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
    bool made;
    struct cfsr_inbox_delivered *delivered = delivered_of(stream, header->site_id, &header->journal,
                                                          &made);

    CFSR_ASSERT(stream->has_head && delivered != NULL && stream->head.end_lsn > delivered->lsn);
    delivered->lsn = stream->head.end_lsn;
    stream->has_head = false;
}

void cfsr_inbox_stream_place(const struct cfsr_inbox_stream *stream, uint64_t *sequence_out,
                             uint64_t *body_offset_out, uint64_t *arrival_out)
{
    *sequence_out = stream->log.sequence;
    *body_offset_out = 0;
    *arrival_out = 0;
    if (has_holes(stream)) { /* what stands in their place is further on */
        *sequence_out = stream->holes->sequence;
        *body_offset_out = stream->holes->begin;
    } else if (stream->unnamed_sequence != 0) { /* met again by who begins here */
        *sequence_out = stream->unnamed_sequence;
        *body_offset_out = stream->unnamed_begin;
    } else if (stream->has_batch) {
        *sequence_out = stream->batch.local.sequence;
        *body_offset_out = stream->batch.body_offset;
        *arrival_out = stream->batch.local.arrival;
    } else if (stream->log.open) {
        *body_offset_out = stream->log.scan.body_offset;
        *arrival_out = stream->log.scan.arrival;
    }
}
