/*
 * format.c - bytes of inbox segments to host form and back.
 *
 * Thread:     any; pure functions.
 * Invariants: a record passes only in the segment (sequence) and at the offset it was laid out for:
 * both are in the CRC's seed, and the sequence also stands in the header, so data of a recycled
 * file is refused by compare, not by chance. Rejected:   one index entry for each batch: its size
 * would depend on how small the batches are, and the writer could not keep it without allocating.
 */
#include "inbox/format.h"

#include <errno.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/fail.h"

#define SEGMENT_MAGIC        "CFSRINB1"
#define SEGMENT_CRC_OFFSET   64
#define PREFIX_EXTENSION_LEN 82 /* u16 in the batch prefix */
#define LOCAL_CRC_OFFSET     60

_Static_assert(CFSR_INBOX_LOCAL_HEADER_BYTES == LOCAL_CRC_OFFSET + 4,
               "the CRC closes the local header");
_Static_assert(CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_INBOX_INDEX_FIXED +
                       CFSR_INBOX_ORIGINS_MAX * CFSR_INBOX_RANGE_BYTES +
                       CFSR_INBOX_INDEX_STEPS * CFSR_INBOX_INDEX_STEP <=
                   CFSR_INBOX_INDEX_AREA_BYTES,
               "the largest INDEX fits its area");
_Static_assert(CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_INBOX_REPAIR_HEADER_BYTES +
                       CFSR_INBOX_FRAME_MAX_BYTES <=
                   CFSR_INBOX_SLOT_BYTES,
               "a slot holds a maximal record");
/* The REPAIR header, byte by byte (docs/inbox-format.md). */
#define REPAIR_SEQUENCE     0
#define REPAIR_BEGIN        8
#define REPAIR_END          16
#define REPAIR_PART         24
#define REPAIR_PARTS        28
#define REPAIR_SITE         32
#define REPAIR_LSN_FROM     40
#define REPAIR_LSN_TO       48
#define REPAIR_END_SEQUENCE 56
_Static_assert(REPAIR_BEGIN == REPAIR_SEQUENCE + 8 && REPAIR_END == REPAIR_BEGIN + 8 &&
                   REPAIR_PART == REPAIR_END + 8 && REPAIR_PARTS == REPAIR_PART + 4 &&
                   REPAIR_SITE == REPAIR_PARTS + 4 && REPAIR_LSN_FROM == REPAIR_SITE + 8 &&
                   REPAIR_LSN_TO == REPAIR_LSN_FROM + 8 && REPAIR_END_SEQUENCE == REPAIR_LSN_TO + 8,
               "fields follow each other");
_Static_assert(REPAIR_END_SEQUENCE + 8 == CFSR_INBOX_REPAIR_HEADER_BYTES,
               "the end segment closes the REPAIR header");
_Static_assert(CFSR_INBOX_REPAIR_HEADER_BYTES % CFSR_INBOX_RECORD_ALIGN == 0,
               "the prefix stays aligned");
#define INDEX_REPAIRS 16
_Static_assert(INDEX_REPAIRS + 4 <= CFSR_INBOX_INDEX_FIXED,
               "the count of repairs is in the fixed part");
_Static_assert(CFSR_INBOX_SLOT_BYTES % CFSR_INBOX_BLOCK_BYTES == 0, "slots are whole blocks");
_Static_assert(CFSR_INBOX_SLOT_BYTES + 4 * CFSR_INBOX_BLOCK_BYTES + CFSR_INBOX_INDEX_AREA_BYTES <=
                   CFSR_SEGMENT_BYTES_MIN,
               "a segment holds CURSORS, a maximal record and INDEX");

/* Bytes after the local header that its CRC covers: all of the payload, or of a batch what is
 * before the body. */
static uint32_t covered_bytes(const uint8_t *record, uint16_t kind, uint32_t record_bytes)
{
    uint32_t prefix = cfsr_inbox_prefix_offset(kind);

    if (kind != CFSR_INBOX_BATCH && kind != CFSR_INBOX_REPAIR)
        return record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES;
    return prefix - CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES +
           cfsr_load_le16(record + prefix + PREFIX_EXTENSION_LEN);
}

static uint32_t record_crc(const uint8_t *record, uint64_t sequence, uint64_t body_offset,
                           uint32_t covered)
{
    uint8_t seed[16];
    uint32_t crc;

    cfsr_store_le64(seed, sequence);
    cfsr_store_le64(seed + 8, body_offset);
    crc = cfsr_crc32c(0, seed, sizeof seed);
    crc = cfsr_crc32c(crc, record, LOCAL_CRC_OFFSET);
    return cfsr_crc32c(crc, record + CFSR_INBOX_LOCAL_HEADER_BYTES, covered);
}

void cfsr_inbox_record_seal(const struct cfsr_inbox_local *local, uint64_t body_offset,
                            void *record)
{
    uint8_t *p = record;
    uint32_t covered;

    cfsr_store_le32(p, CFSR_INBOX_RECORD_MAGIC);
    cfsr_store_le16(p + 4, CFSR_INBOX_RECORD_VERSION);
    cfsr_store_le16(p + 6, local->kind);
    cfsr_store_le32(p + 8, local->record_bytes);
    cfsr_store_le32(p + 12, local->entries);
    cfsr_store_le64(p + 16, local->sequence);
    cfsr_store_le64(p + 24, local->arrival);
    cfsr_store_le64(p + 32, local->arrived_at_us);
    cfsr_store_le64(p + 40, local->durable_below);
    cfsr_store_le64(p + 48, local->incarnation);
    cfsr_store_le32(p + 56, 0);
    covered = covered_bytes(p, local->kind, local->record_bytes);
    cfsr_store_le32(p + LOCAL_CRC_OFFSET, record_crc(p, local->sequence, body_offset, covered));
}

static bool sizes_are_sound(uint16_t kind, uint32_t record_bytes)
{
    switch (kind) {
    case CFSR_INBOX_BATCH:
    case CFSR_INBOX_REPAIR:
        return record_bytes >= cfsr_inbox_prefix_offset(kind) + CFSR_BATCH_PREFIX_BYTES &&
               record_bytes <= cfsr_inbox_prefix_offset(kind) + CFSR_INBOX_FRAME_MAX_BYTES;
    case CFSR_INBOX_CURSORS:
        return record_bytes >= CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_INBOX_CURSORS_FIXED &&
               record_bytes <= CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_INBOX_CURSORS_FIXED +
                                   CFSR_INBOX_ORIGINS_MAX * CFSR_INBOX_CURSOR_BYTES;
    case CFSR_INBOX_INDEX:
        return record_bytes >= CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_INBOX_INDEX_FIXED &&
               record_bytes <= CFSR_INBOX_INDEX_AREA_BYTES;
    default: return false;
    }
}

int cfsr_inbox_record_load(const void *record, uint32_t available, uint64_t sequence,
                           uint64_t body_offset, struct cfsr_inbox_local *local_out,
                           uint32_t *need_out)
{
    const uint8_t *p = record;
    struct cfsr_inbox_local local;
    uint32_t need = CFSR_INBOX_LOCAL_HEADER_BYTES, covered;

    if (available < need)
        goto more;
    local.kind = cfsr_load_le16(p + 6);
    local.record_bytes = cfsr_load_le32(p + 8);
    local.entries = cfsr_load_le32(p + 12);
    local.sequence = cfsr_load_le64(p + 16);
    local.arrival = cfsr_load_le64(p + 24);
    local.arrived_at_us = cfsr_load_le64(p + 32);
    local.durable_below = cfsr_load_le64(p + 40);
    local.incarnation = cfsr_load_le64(p + 48);
    if (cfsr_load_le32(p) != CFSR_INBOX_RECORD_MAGIC ||
        cfsr_load_le16(p + 4) != CFSR_INBOX_RECORD_VERSION || local.sequence != sequence ||
        local.durable_below > body_offset || !sizes_are_sound(local.kind, local.record_bytes))
        return -CFSR_E_FORMAT;
    if (local.kind == CFSR_INBOX_BATCH || local.kind == CFSR_INBOX_REPAIR) {
        need = cfsr_inbox_prefix_offset(local.kind) + CFSR_BATCH_PREFIX_BYTES;
        if (available < need)
            goto more;
    }
    covered = covered_bytes(p, local.kind, local.record_bytes);
    if (covered > local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES)
        return -CFSR_E_FORMAT;
    need = CFSR_INBOX_LOCAL_HEADER_BYTES + covered;
    if (available < need)
        goto more;
    if (record_crc(p, sequence, body_offset, covered) != cfsr_load_le32(p + LOCAL_CRC_OFFSET))
        return -CFSR_E_CHECKSUM;
    *local_out = local;
    return 0;

more:
    *need_out = need;
    return -EAGAIN;
}

void cfsr_inbox_repair_store(const struct cfsr_inbox_repair *repair, void *header_out)
{
    uint8_t *p = header_out;

    cfsr_store_le64(p + REPAIR_SEQUENCE, repair->sequence);
    cfsr_store_le64(p + REPAIR_BEGIN, repair->begin);
    cfsr_store_le64(p + REPAIR_END, repair->end);
    cfsr_store_le32(p + REPAIR_PART, repair->part);
    cfsr_store_le32(p + REPAIR_PARTS, repair->parts);
    cfsr_store_le64(p + REPAIR_SITE, repair->site_id);
    cfsr_store_le64(p + REPAIR_LSN_FROM, repair->lsn_from);
    cfsr_store_le64(p + REPAIR_LSN_TO, repair->lsn_to);
    cfsr_store_le64(p + REPAIR_END_SEQUENCE, repair->end_sequence);
}

int cfsr_inbox_repair_load(const void *header, struct cfsr_inbox_repair *repair_out)
{
    const uint8_t *p = header;
    struct cfsr_inbox_repair repair = {
        .sequence = cfsr_load_le64(p + REPAIR_SEQUENCE),
        .begin = cfsr_load_le64(p + REPAIR_BEGIN),
        .end = cfsr_load_le64(p + REPAIR_END),
        .part = cfsr_load_le32(p + REPAIR_PART),
        .parts = cfsr_load_le32(p + REPAIR_PARTS),
        .site_id = cfsr_load_le64(p + REPAIR_SITE),
        .lsn_from = cfsr_load_le64(p + REPAIR_LSN_FROM),
        .lsn_to = cfsr_load_le64(p + REPAIR_LSN_TO),
        .end_sequence = cfsr_load_le64(p + REPAIR_END_SEQUENCE),
    };

    if (repair.part >= repair.parts || repair.parts > CFSR_INBOX_ORIGINS_MAX ||
        repair.lsn_from >= repair.lsn_to || repair.end_sequence < repair.sequence ||
        (repair.end_sequence == repair.sequence && repair.end < repair.begin))
        return -CFSR_E_FORMAT;
    *repair_out = repair;
    return 0;
}

uint32_t cfsr_inbox_cursors_store(const struct cfsr_inbox_cursor *cursors, uint32_t count,
                                  void *payload_out)
{
    uint8_t *p = payload_out;
    uint32_t i;

    CFSR_ASSERT(count <= CFSR_INBOX_ORIGINS_MAX);
    memset(p, 0, CFSR_INBOX_CURSORS_FIXED);
    cfsr_store_le32(p, count);
    p += CFSR_INBOX_CURSORS_FIXED;
    for (i = 0; i < count; i++, p += CFSR_INBOX_CURSOR_BYTES) {
        const struct cfsr_inbox_cursor *c = &cursors[i];

        memset(p, 0, CFSR_INBOX_CURSOR_BYTES);
        cfsr_store_le64(p, c->site_id);
        memcpy(p + 8, c->journal.bytes, sizeof c->journal.bytes);
        cfsr_store_le64(p + 24, c->lsn);
        cfsr_store_le64(p + 32, c->incarnation);
        cfsr_store_le64(p + 40, c->entries);
        cfsr_store_le64(p + 48, c->last.lsn);
        cfsr_store_le64(p + 56, c->last.seq);
        cfsr_store_le64(p + 64, c->last.timestamp_us);
        cfsr_store_le32(p + 72, c->last.crc);
    }
    return CFSR_INBOX_CURSORS_FIXED + count * CFSR_INBOX_CURSOR_BYTES;
}

int cfsr_inbox_cursors_load(const void *payload, uint32_t len_bytes,
                            struct cfsr_inbox_cursor *cursors_out, uint32_t *count_out)
{
    const uint8_t *p = payload;
    uint32_t i, count;

    if (len_bytes < CFSR_INBOX_CURSORS_FIXED)
        return -CFSR_E_FORMAT;
    count = cfsr_load_le32(p);
    if (count > CFSR_INBOX_ORIGINS_MAX ||
        len_bytes != CFSR_INBOX_CURSORS_FIXED + count * CFSR_INBOX_CURSOR_BYTES)
        return -CFSR_E_FORMAT;
    p += CFSR_INBOX_CURSORS_FIXED;
    for (i = 0; i < count; i++, p += CFSR_INBOX_CURSOR_BYTES) {
        struct cfsr_inbox_cursor *c = &cursors_out[i];

        c->site_id = cfsr_load_le64(p);
        memcpy(c->journal.bytes, p + 8, sizeof c->journal.bytes);
        c->lsn = cfsr_load_le64(p + 24);
        c->incarnation = cfsr_load_le64(p + 32);
        c->entries = cfsr_load_le64(p + 40);
        c->last.lsn = cfsr_load_le64(p + 48);
        c->last.seq = cfsr_load_le64(p + 56);
        c->last.timestamp_us = cfsr_load_le64(p + 64);
        c->last.crc = cfsr_load_le32(p + 72);
    }
    *count_out = count;
    return 0;
}

void cfsr_inbox_index_reset(struct cfsr_inbox_index *index)
{
    index->batches = 0;
    index->stride = 1;
    index->count = 0;
    index->repairs = 0;
    memset(index->range, 0, sizeof index->range);
}

static void index_thin_out(struct cfsr_inbox_index *index)
{
    uint32_t i;

    for (i = 0; 2 * i < index->count; i++)
        index->step[i] = index->step[2 * i];
    index->count = i;
    index->stride *= 2;
}

void cfsr_inbox_index_add(struct cfsr_inbox_index *index, uint64_t body_offset, uint64_t arrival,
                          uint64_t arrived_at_us, uint32_t origin, uint64_t lsn_from,
                          uint64_t lsn_to)
{
    struct cfsr_inbox_range *range = &index->range[origin];

    CFSR_ASSERT(origin < CFSR_INBOX_ORIGINS_MAX && lsn_from < lsn_to);
    if (range->lsn_to == range->lsn_from) {
        range->lsn_from = lsn_from;
        range->lsn_to = lsn_to;
    } else {
        range->lsn_from = cfsr_min_u64(range->lsn_from, lsn_from);
        range->lsn_to = cfsr_max_u64(range->lsn_to, lsn_to);
    }
    if (index->batches % index->stride == 0) {
        if (index->count == CFSR_INBOX_INDEX_STEPS)
            index_thin_out(index);
        if (index->batches % index->stride == 0)
            index->step[index->count++] = (struct cfsr_inbox_index_step){body_offset, arrival,
                                                                         arrived_at_us};
    }
    index->batches++;
}

uint32_t cfsr_inbox_index_store(const struct cfsr_inbox_index *index,
                                const struct cfsr_inbox_cursor *origins, uint32_t origin_count,
                                void *payload_out)
{
    uint8_t *p = payload_out;
    uint32_t i, ranges = 0;

    memset(p, 0, CFSR_INBOX_INDEX_FIXED);
    p += CFSR_INBOX_INDEX_FIXED;
    for (i = 0; i < origin_count; i++) {
        if (index->range[i].lsn_from == index->range[i].lsn_to)
            continue;
        cfsr_store_le64(p, origins[i].site_id);
        memcpy(p + 8, origins[i].journal.bytes, sizeof origins[i].journal.bytes);
        cfsr_store_le64(p + 24, index->range[i].lsn_from);
        cfsr_store_le64(p + 32, index->range[i].lsn_to);
        p += CFSR_INBOX_RANGE_BYTES;
        ranges++;
    }
    for (i = 0; i < index->count; i++, p += CFSR_INBOX_INDEX_STEP) {
        cfsr_store_le64(p, index->step[i].body_offset);
        cfsr_store_le64(p + 8, index->step[i].arrival);
        cfsr_store_le64(p + 16, index->step[i].arrived_at_us);
    }
    cfsr_store_le32(payload_out, index->batches);
    cfsr_store_le32((uint8_t *)payload_out + 4, index->stride);
    cfsr_store_le32((uint8_t *)payload_out + 8, index->count);
    cfsr_store_le32((uint8_t *)payload_out + 12, ranges);
    cfsr_store_le32((uint8_t *)payload_out + INDEX_REPAIRS, index->repairs);
    return (uint32_t)(p - (uint8_t *)payload_out);
}

int cfsr_inbox_index_load(const void *payload, uint32_t len_bytes,
                          struct cfsr_inbox_index *index_out, struct cfsr_inbox_cursor *origins_out,
                          uint32_t *origin_count_out)
{
    const uint8_t *p = payload;
    uint32_t i, ranges, steps;

    if (len_bytes < CFSR_INBOX_INDEX_FIXED)
        return -CFSR_E_FORMAT;
    steps = cfsr_load_le32(p + 8);
    ranges = cfsr_load_le32(p + 12);
    if (steps > CFSR_INBOX_INDEX_STEPS || ranges > CFSR_INBOX_ORIGINS_MAX ||
        cfsr_load_le32(p + 4) == 0 ||
        len_bytes != CFSR_INBOX_INDEX_FIXED + ranges * CFSR_INBOX_RANGE_BYTES +
                         steps * CFSR_INBOX_INDEX_STEP)
        return -CFSR_E_FORMAT;
    cfsr_inbox_index_reset(index_out);
    index_out->batches = cfsr_load_le32(p);
    index_out->stride = cfsr_load_le32(p + 4);
    index_out->count = steps;
    index_out->repairs = cfsr_load_le32(p + INDEX_REPAIRS);
    p += CFSR_INBOX_INDEX_FIXED;
    for (i = 0; i < ranges; i++, p += CFSR_INBOX_RANGE_BYTES) {
        memset(&origins_out[i], 0, sizeof origins_out[i]);
        origins_out[i].site_id = cfsr_load_le64(p);
        memcpy(origins_out[i].journal.bytes, p + 8, sizeof origins_out[i].journal.bytes);
        index_out->range[i].lsn_from = cfsr_load_le64(p + 24);
        index_out->range[i].lsn_to = cfsr_load_le64(p + 32);
    }
    for (i = 0; i < steps; i++, p += CFSR_INBOX_INDEX_STEP) {
        index_out->step[i].body_offset = cfsr_load_le64(p);
        index_out->step[i].arrival = cfsr_load_le64(p + 8);
        index_out->step[i].arrived_at_us = cfsr_load_le64(p + 16);
    }
    *origin_count_out = ranges;
    return 0;
}

void cfsr_inbox_segment_header_store(const struct cfsr_site *site, uint32_t lane, uint64_t sequence,
                                     void *block_out)
{
    uint8_t *p = block_out;

    memset(p, 0, CFSR_INBOX_SEGMENT_HEADER_BYTES);
    memcpy(p, SEGMENT_MAGIC, 8);
    cfsr_store_le32(p + 8, CFSR_FORMAT_VERSION);
    cfsr_store_le32(p + 12, lane);
    memcpy(p + 16, site->cluster.bytes, 16);
    memcpy(p + 32, site->journal.bytes, 16);
    cfsr_store_le64(p + 48, sequence);
    cfsr_store_le64(p + 56, site->segment_bytes);
    cfsr_store_le32(p + SEGMENT_CRC_OFFSET, cfsr_crc32c(0, p, SEGMENT_CRC_OFFSET));
}

int cfsr_inbox_segment_header_load(const struct cfsr_site *site, const void *block, uint32_t lane,
                                   uint64_t sequence, const char *path)
{
    const uint8_t *p = block;

    if (memcmp(p, SEGMENT_MAGIC, 8) != 0)
        return cfsr_fail(-CFSR_E_FORMAT, "%s is not an inbox segment: move it away", path);
    if (cfsr_load_le32(p + SEGMENT_CRC_OFFSET) != cfsr_crc32c(0, p, SEGMENT_CRC_OFFSET))
        return cfsr_fail(-CFSR_E_CHECKSUM, "the header of inbox segment %s is damaged", path);
    if (cfsr_load_le32(p + 8) != CFSR_FORMAT_VERSION)
        return cfsr_fail(-CFSR_E_VERSION,
                         "inbox segment %s has format version %u, this program knows %d", path,
                         cfsr_load_le32(p + 8), CFSR_FORMAT_VERSION);
    if (memcmp(p + 16, site->cluster.bytes, 16) != 0 ||
        memcmp(p + 32, site->journal.bytes, 16) != 0)
        return cfsr_fail(-CFSR_E_FOREIGN,
                         "inbox segment %s belongs to another cluster or site: move it away", path);
    if (cfsr_load_le32(p + 12) != lane || cfsr_load_le64(p + 48) != sequence ||
        cfsr_load_le64(p + 56) != site->segment_bytes)
        return cfsr_fail(-CFSR_E_FOREIGN,
                         "inbox segment %s was renamed: its header says lane %u, sequence %llu",
                         path, cfsr_load_le32(p + 12), (unsigned long long)cfsr_load_le64(p + 48));
    return 0;
}

char *cfsr_inbox_lane_path(const struct cfsr_site *site, uint32_t lane, char *path_out)
{
    snprintf(path_out, CFSR_INBOX_PATH_BYTES, "%s/inbox/%02u", site->data_dir, lane);
    return path_out;
}

char *cfsr_inbox_segment_path(const struct cfsr_site *site, uint32_t lane, uint64_t sequence,
                              char *path_out)
{
    snprintf(path_out, CFSR_INBOX_PATH_BYTES, "%s/inbox/%02u/%016llx.seg", site->data_dir, lane,
             (unsigned long long)sequence);
    return path_out;
}
