/*
 * repair.c - what a damaged place cost, and the REPAIR records that make up for it.
 *
 * Thread:     helpers and tools; blocking.
 * Invariants: what a place cost is the difference between where an origin stood in front of it and
 * where it goes on behind: so a batch that was sent again later costs nothing, and two damaged
 * places in a row are one range. A REPAIR counts only while its own digest verifies.
 * Rejected:   matching REPAIRs to places by their offsets (the place grows when more of it rots,
 * and a reader that begins behind it would not know of it); keeping a table of repairs beside the
 * log (two things to keep in step).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/gap.h"

struct cfsr_inbox_delivered *cfsr_inbox_known_find(struct cfsr_inbox_known *known, uint64_t site_id,
                                                   const struct cfsr_uuid *journal)
{
    uint32_t i;

    for (i = 0; i < known->origins; i++) {
        if (known->origin[i].site_id == site_id &&
            cfsr_uuid_equal(&known->origin[i].journal, journal))
            return &known->origin[i];
    }
    return NULL;
}

struct cfsr_inbox_delivered *cfsr_inbox_known_of(struct cfsr_inbox_known *known, uint64_t site_id,
                                                 const struct cfsr_uuid *journal)
{
    struct cfsr_inbox_delivered *entry = cfsr_inbox_known_find(known, site_id, journal);

    if (entry != NULL || known->origins == CFSR_INBOX_ORIGINS_MAX)
        return entry;
    entry = &known->origin[known->origins++];
    *entry = (struct cfsr_inbox_delivered){.site_id = site_id, .journal = *journal};
    return entry;
}

/* The origins while it is looked for where they go on: a part each, lsn_to 0 until found. */
struct outlook {
    struct cfsr_inbox_known *known;
    struct cfsr_inbox_gap *gap;
    uint64_t found; /* a bit for each part */
};

static void note_next(struct outlook *outlook, uint64_t site_id, const struct cfsr_uuid *journal,
                      uint64_t lsn)
{
    struct cfsr_inbox_gap *gap = outlook->gap;
    uint32_t i;

    for (i = 0; i < gap->parts; i++) {
        if (gap->part[i].site_id == site_id && cfsr_uuid_equal(&gap->part[i].journal, journal))
            break;
    }
    if (i == gap->parts) {
        if (outlook->known->fresh || i == CFSR_INBOX_ORIGINS_MAX)
            return;
        gap->part[gap->parts++] = (struct cfsr_inbox_gap_part){.site_id = site_id,
                                                               .journal = *journal};
    }
    /* The lowest counts: records that their writer gave up may stand before those sent again. */
    if ((outlook->found >> i & 1) == 0 || lsn < gap->part[i].lsn_to)
        gap->part[i].lsn_to = lsn;
    outlook->found |= 1ull << i;
}

static void note_cursors(struct outlook *outlook, const struct cfsr_inbox_cursor *cursor,
                         uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        note_next(outlook, cursor[i].site_id, &cursor[i].journal, cursor[i].lsn);
}

/* Takes a record behind the place. 1: every origin is found, since CURSORS name them all. */
static int note_item(struct outlook *outlook, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_batch_header header;
    uint32_t count;

    if (item->local.kind == CFSR_INBOX_BATCH) {
        if (cfsr_inbox_item_header(item, &header) == 0)
            note_next(outlook, header.site_id, &header.journal, header.lsn_from);
        return 0;
    }
    if (item->local.kind != CFSR_INBOX_CURSORS ||
        cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                &count) < 0)
        return 0;
    note_cursors(outlook, cursor, count);
    return 1;
}

static int look_behind(struct cfsr_inbox_log *log, struct outlook *outlook)
{
    struct cfsr_inbox_damage damage;
    struct cfsr_inbox_item item;
    int rc;

    while ((rc = cfsr_inbox_log_step(log, false, &item, &damage)) > 0) {
        if (rc == CFSR_INBOX_LOG_RECORD && note_item(outlook, &item) == 1)
            return 1;
    }
    return rc;
}

static void note_last(struct outlook *outlook, const struct cfsr_batch_header *batch)
{
    struct cfsr_inbox_gap *gap = outlook->gap;
    uint32_t i;

    for (i = 0; i < gap->parts; i++) {
        if (gap->part[i].site_id == batch->site_id &&
            cfsr_uuid_equal(&gap->part[i].journal, &batch->journal) &&
            (outlook->found >> i & 1) != 0)
            return;
    }
    note_next(outlook, batch->site_id, &batch->journal, batch->lsn_to);
}

/* Keeps the parts that lost something. */
static void keep_losses(struct cfsr_inbox_gap *gap, const struct cfsr_batch_header *batch)
{
    uint32_t i, kept = 0;

    for (i = 0; i < gap->parts; i++) {
        struct cfsr_inbox_gap_part *part = &gap->part[i];

        if (part->lsn_to <= part->lsn_from)
            continue;
        part->prefix_sound = batch != NULL && part->site_id == batch->site_id &&
                             cfsr_uuid_equal(&part->journal, &batch->journal) &&
                             part->lsn_from >= batch->lsn_from && part->lsn_to <= batch->lsn_to;
        gap->part[kept++] = *part;
    }
    gap->parts = kept;
}

int cfsr_inbox_describe(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                        const struct cfsr_inbox_damage *damage,
                        const struct cfsr_batch_header *batch, struct cfsr_inbox_known *known,
                        const struct cfsr_inbox_end *end, struct cfsr_inbox_gap *gap_out)
{
    struct outlook outlook = {.known = known, .gap = gap_out};
    struct cfsr_inbox_log log;
    uint32_t i;
    int rc;

    memset(gap_out, 0, sizeof *gap_out);
    gap_out->lane = lane;
    gap_out->sequence = damage->sequence;
    gap_out->begin = damage->begin;
    gap_out->end_sequence = damage->end_sequence;
    gap_out->end = damage->end;
    for (i = 0; i < known->origins; i++)
        gap_out->part[i] = (struct cfsr_inbox_gap_part){.site_id = known->origin[i].site_id,
                                                        .journal = known->origin[i].journal,
                                                        .lsn_from = known->origin[i].lsn};
    gap_out->parts = known->origins;
    cfsr_inbox_log_init(&log, fs, site, lane, damage->end_sequence);
    if (end != NULL) {
        log.limit_sequence = end->sequence;
        log.limit_offset = end->body_offset;
    }
    rc = cfsr_inbox_log_seek_behind(&log, damage);
    if (rc >= 0)
        rc = look_behind(&log, &outlook);
    cfsr_inbox_log_close(&log);
    if (rc < 0)
        return rc;
    if (rc == 0 && end != NULL)
        note_cursors(&outlook, end->cursor, end->origins);
    if (rc == 0 && batch != NULL) /* the last of its origin: its header still says how far */
        note_last(&outlook, batch);
    keep_losses(gap_out, batch);
    return 0;
}

/* ---- the REPAIR records present ---- */

int cfsr_inbox_scan_index(struct cfsr_inbox_scan *scan, struct cfsr_inbox_index *index_out,
                          struct cfsr_inbox_cursor *origins_out, uint32_t *count_out)
{
    struct cfsr_inbox_scan at = *scan; /* borrows file and window */
    struct cfsr_inbox_item item;
    int rc;

    at.arrival = 0;
    at.incarnation = 0;
    cfsr_inbox_scan_jump(&at, cfsr_inbox_data_bytes(scan->site), 0);
    scan->window_bytes = 0;
    rc = cfsr_inbox_scan_next(&at, false, &item);
    if (rc <= 0 || item.local.kind != CFSR_INBOX_INDEX)
        return rc < 0 ? rc : 0;
    return cfsr_inbox_index_load(item.record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                 item.local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, index_out,
                                 origins_out, count_out) == 0;
}

void cfsr_inbox_repairs_free(struct cfsr_inbox_repairs *repairs)
{
    free(repairs->place);
    *repairs = (struct cfsr_inbox_repairs){0};
}

static int add_place(struct cfsr_inbox_repairs *repairs, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_repair_place *grown;
    struct cfsr_batch_header header;

    if (cfsr_inbox_item_header(item, &header) < 0 || repairs->count == CFSR_INBOX_REPAIRS_MAX)
        return 0;
    if (repairs->count == repairs->capacity) {
        uint32_t capacity = repairs->capacity == 0 ? 64 : 2 * repairs->capacity;

        grown = realloc(repairs->place, capacity * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        repairs->place = grown;
        repairs->capacity = capacity;
    }
    repairs->place[repairs->count++] = (struct cfsr_inbox_repair_place){
        .site_id = header.site_id,
        .journal = header.journal,
        .lsn_from = header.lsn_from,
        .lsn_to = header.lsn_to,
        .sequence = item->local.sequence,
        .body_offset = item->body_offset};
    return 0;
}

/* Of one segment: by its INDEX it may have none; else by its headers, past its damaged places. */
static int add_segment(struct cfsr_inbox_repairs *repairs, struct cfsr_inbox_scan *scan,
                       struct cfsr_inbox_index *index, struct cfsr_inbox_cursor *origins)
{
    struct cfsr_inbox_survey survey;
    struct cfsr_inbox_item item;
    uint32_t count;
    int rc;

    rc = cfsr_inbox_scan_index(scan, index, origins, &count);
    if (rc < 0 || (rc == 1 && index->repairs == 0))
        return rc < 0 ? rc : 0;
    for (;;) {
        while ((rc = cfsr_inbox_scan_next(scan, false, &item)) == 1) {
            if (item.local.kind == CFSR_INBOX_REPAIR && add_place(repairs, &item) < 0)
                return -ENOMEM;
        }
        if (rc < 0 || scan->complete)
            return rc;
        rc = cfsr_inbox_scan_survey(scan, &survey);
        if (rc < 0 || survey.place == 0)
            return rc;
        cfsr_inbox_scan_jump(scan, survey.place, survey.arrival);
    }
}

int cfsr_inbox_repairs_load(struct cfsr_inbox_repairs *repairs, struct cfsr_fs *fs,
                            const struct cfsr_site *site, uint32_t lane, uint64_t sequence)
{
    struct cfsr_inbox_cursor *origins = calloc(CFSR_INBOX_ORIGINS_MAX, sizeof *origins);
    struct cfsr_inbox_index *index = malloc(sizeof *index);
    struct cfsr_inbox_range_of_segments range;
    struct cfsr_inbox_scan scan;
    int rc = origins == NULL || index == NULL ? -ENOMEM : 0;

    repairs->count = 0;
    if (rc == 0)
        rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc == 0 && sequence < range.first)
        sequence = range.first;
    for (; rc == 0 && sequence > 0 && sequence <= range.last; sequence++) {
        rc = cfsr_inbox_scan_open(fs, site, lane, sequence, false, &scan);
        if (rc == -ENOENT) {
            rc = 0;
            continue;
        }
        if (rc < 0)
            break;
        rc = add_segment(repairs, &scan, index, origins);
        cfsr_inbox_scan_close(&scan);
    }
    free(index);
    free(origins);
    return rc;
}

/* One REPAIR, whole, when it is sound: 1, 0, -errno. */
static int read_place(const struct cfsr_inbox_repair_place *place, struct cfsr_fs *fs,
                      const struct cfsr_site *site, uint32_t lane,
                      struct cfsr_inbox_decoder *decoder, struct cfsr_inbox_scan *scan,
                      struct cfsr_inbox_item *item_out, struct cfsr_batch_header *header_out)
{
    int rc = cfsr_inbox_scan_open(fs, site, lane, place->sequence, false, scan);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    cfsr_inbox_scan_jump(scan, place->body_offset, 0);
    rc = cfsr_inbox_scan_next(scan, true, item_out);
    if (rc == 1 &&
        (item_out->local.kind != CFSR_INBOX_REPAIR || item_out->body_offset != place->body_offset ||
         cfsr_inbox_item_header(item_out, header_out) < 0 ||
         cfsr_inbox_item_check(decoder, item_out, header_out) < 0))
        rc = 0;
    if (rc != 1)
        cfsr_inbox_scan_close(scan);
    return rc;
}

int cfsr_inbox_repairs_read(const struct cfsr_inbox_repairs *repairs, struct cfsr_fs *fs,
                            const struct cfsr_site *site, uint32_t lane,
                            struct cfsr_inbox_decoder *decoder, uint64_t site_id,
                            const struct cfsr_uuid *journal, uint64_t lsn,
                            struct cfsr_inbox_scan *scan_out, struct cfsr_inbox_item *item_out,
                            struct cfsr_batch_header *header_out)
{
    uint32_t i;
    int rc = 0;

    for (i = repairs->count; rc == 0 && i > 0; i--) {
        const struct cfsr_inbox_repair_place *place = &repairs->place[i - 1];

        if (place->site_id == site_id && cfsr_uuid_equal(&place->journal, journal) &&
            place->lsn_from <= lsn && lsn < place->lsn_to)
            rc = read_place(place, fs, site, lane, decoder, scan_out, item_out, header_out);
    }
    return rc;
}

int cfsr_inbox_repairs_cover(const struct cfsr_inbox_repairs *repairs, struct cfsr_fs *fs,
                             const struct cfsr_site *site, struct cfsr_inbox_decoder *decoder,
                             struct cfsr_inbox_gap *gap)
{
    uint32_t i, kept = 0;
    int rc = 1;

    for (i = 0; i < gap->parts; i++) {
        struct cfsr_inbox_gap_part *part = &gap->part[i];

        while (part->lsn_from < part->lsn_to) {
            struct cfsr_batch_header header;
            struct cfsr_inbox_scan scan;
            struct cfsr_inbox_item item;

            rc = cfsr_inbox_repairs_read(repairs, fs, site, gap->lane, decoder, part->site_id,
                                         &part->journal, part->lsn_from, &scan, &item, &header);
            if (rc < 0)
                return rc;
            if (rc == 0)
                break;
            cfsr_inbox_scan_close(&scan);
            part->lsn_from = header.lsn_to;
        }
        if (part->lsn_from < part->lsn_to)
            gap->part[kept++] = *part;
    }
    gap->parts = kept;
    return 0;
}

int cfsr_inbox_gap_prefix(struct cfsr_fs *fs, const struct cfsr_site *site,
                          const struct cfsr_inbox_gap *gap, void *prefix_out)
{
    struct cfsr_batch_header header;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    int rc;

    rc = cfsr_inbox_scan_open(fs, site, gap->lane, gap->sequence, false, &scan);
    if (rc < 0)
        return rc == -ENOENT ? -CFSR_E_DAMAGED : rc;
    cfsr_inbox_scan_jump(&scan, gap->begin, 0);
    rc = cfsr_inbox_scan_next(&scan, false, &item);
    if (rc == 0 ||
        (rc == 1 && (item.body_offset != gap->begin || item.local.kind != CFSR_INBOX_BATCH ||
                     cfsr_inbox_item_header(&item, &header) < 0)))
        rc = -CFSR_E_DAMAGED;
    if (rc == 1) {
        rc = CFSR_BATCH_PREFIX_BYTES + header.extension_bytes;
        memcpy(prefix_out, cfsr_inbox_item_prefix(&item), (size_t)rc);
    }
    cfsr_inbox_scan_close(&scan);
    return rc;
}
