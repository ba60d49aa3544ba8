/*
 * record.c - journal records: header, seal, and the scan that every stage of the system runs over
 * its input.
 *
 * Thread:     none of its own; pure functions over the caller's memory.
 * Invariants: the scan never reads beyond data + len_bytes; what it counted as taken is whole and
 * passed every check. Rejected:   a callback per record (an indirect call costs as much as the CRC
 * of a 180-byte record); checking the header fields before the CRC (they are noise until the CRC
 * says otherwise, only the size must be bounded first).
 *
 * The CRC instruction has a latency of three cycles and a throughput of one, so three consecutive
 * records are summed together: their sizes are read ahead, which needs no trust, since a size is
 * bounded before it is followed.
 */
#include "journal/record.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include <cfsrepl/error.h>

enum {
    AT_CRC = 0,
    AT_PAYLOAD_BYTES = 4,
    AT_SEQ = 8,
    AT_TIMESTAMP = 16,
    AT_INODE = 24,
    AT_SITE = 32,
    AT_SHARD = 40,
    AT_OP = 44,
    AT_FLAGS = 45,
    AT_RESERVED = 46,
    AT_PAYLOAD = CFSR_RECORD_HEADER_BYTES,
};
_Static_assert(AT_RESERVED + 2 == CFSR_RECORD_HEADER_BYTES, "the header table is complete");
_Static_assert(CFSR_RECORD_HEADER_BYTES % CFSR_RECORD_ALIGN == 0, "payloads are aligned");

#define LOOK_AHEAD 3

uint32_t cfsr_record_seed(const struct cfsr_uuid *journal)
{
    return cfsr_crc32c(0, journal->bytes, sizeof journal->bytes);
}

void cfsr_record_header_load(const void *record, struct cfsr_record_header *header_out)
{
    const uint8_t *p = record;

    header_out->crc = cfsr_load_le32(p + AT_CRC);
    header_out->payload_bytes = cfsr_load_le32(p + AT_PAYLOAD_BYTES);
    header_out->seq = cfsr_load_le64(p + AT_SEQ);
    header_out->timestamp_us = cfsr_load_le64(p + AT_TIMESTAMP);
    header_out->inode = cfsr_load_le64(p + AT_INODE);
    header_out->site_id = cfsr_load_le64(p + AT_SITE);
    header_out->shard_id = cfsr_load_le32(p + AT_SHARD);
    header_out->op = p[AT_OP];
    header_out->flags = p[AT_FLAGS];
}

void cfsr_record_header_store(void *record, const struct cfsr_record_header *header)
{
    uint8_t *p = record;

    cfsr_store_le32(p + AT_CRC, 0);
    cfsr_store_le32(p + AT_PAYLOAD_BYTES, header->payload_bytes);
    cfsr_store_le64(p + AT_SEQ, header->seq);
    cfsr_store_le64(p + AT_TIMESTAMP, header->timestamp_us);
    cfsr_store_le64(p + AT_INODE, header->inode);
    cfsr_store_le64(p + AT_SITE, header->site_id);
    cfsr_store_le32(p + AT_SHARD, header->shard_id);
    p[AT_OP] = header->op;
    p[AT_FLAGS] = header->flags;
    cfsr_store_le16(p + AT_RESERVED, 0);
}

static inline uint64_t padded_bytes(uint32_t payload_bytes)
{
    return cfsr_align_up((uint64_t)CFSR_RECORD_HEADER_BYTES + payload_bytes, CFSR_RECORD_ALIGN);
}

uint64_t cfsr_record_total_bytes(const struct cfsr_record_header *header)
{
    return padded_bytes(header->payload_bytes);
}

uint32_t cfsr_record_wire_bytes(const struct cfsr_record_header *header)
{
    if (header->op == CFSR_RECORD_PAD)
        return CFSR_RECORD_HEADER_BYTES;
    return (uint32_t)padded_bytes(header->payload_bytes);
}

static inline uint32_t seed_at(uint32_t seed, uint64_t lsn)
{
    uint8_t bytes[8];

    cfsr_store_le64(bytes, lsn);
    return cfsr_crc32c(seed, bytes, sizeof bytes);
}

void cfsr_record_seal(void *record, uint32_t seed, uint64_t lsn)
{
    struct cfsr_record_header header;
    uint8_t *p = record;
    uint32_t crc;

    cfsr_record_header_load(record, &header);
    CFSR_ASSERT(header.op == CFSR_RECORD_PAD || header.payload_bytes <= CFSR_RECORD_PAYLOAD_MAX);
    crc = cfsr_crc32c(seed_at(seed, lsn), p + AT_PAYLOAD_BYTES,
                      cfsr_record_wire_bytes(&header) - AT_PAYLOAD_BYTES);
    cfsr_store_le32(p + AT_CRC, crc);
}

/* A record found by its size alone, not yet trusted. */
struct candidate {
    const uint8_t *record;
    uint64_t lsn;
    uint64_t total_bytes;  /* in the journal */
    uint32_t stored_bytes; /* checked bytes in data: the wire form */
};

/* What stands at offset. 1: a candidate; 0: need_bytes is set; else an error. */
static int candidate_at(struct cfsr_scan *scan, uint32_t offset, uint64_t lsn,
                        struct candidate *next_out)
{
    const uint8_t *record = scan->data + offset;
    uint64_t place = lsn & (CFSR_RECORD_ALIGN - 1);
    uint32_t payload_bytes, available = scan->len_bytes - offset;
    bool is_pad;

    if (place != 0)
        return -CFSR_E_FORMAT;
    if (available < CFSR_RECORD_HEADER_BYTES) {
        scan->need_bytes = CFSR_RECORD_HEADER_BYTES;
        return 0;
    }
    payload_bytes = cfsr_load_le32(record + AT_PAYLOAD_BYTES);
    is_pad = record[AT_OP] == CFSR_RECORD_PAD;
    if (payload_bytes > CFSR_RECORD_PAYLOAD_MAX && !is_pad)
        return -CFSR_E_CHECKSUM; /* cannot be a record: not worth a name of its own, it is damage
                                    like any other */
    next_out->record = record;
    next_out->lsn = lsn;
    next_out->total_bytes = padded_bytes(payload_bytes);
    next_out->stored_bytes = is_pad ? CFSR_RECORD_HEADER_BYTES : (uint32_t)next_out->total_bytes;
    if (available < next_out->stored_bytes) {
        scan->need_bytes = next_out->stored_bytes;
        return 0;
    }
    return 1;
}

static void sum_candidates(const struct cfsr_scan *scan, const struct candidate *found,
                           unsigned count, uint32_t *crcs_out)
{
    const void *data[LOOK_AHEAD];
    size_t len_bytes[LOOK_AHEAD];
    uint64_t lsns[LOOK_AHEAD];

    for (unsigned i = 0; i < count; i++) {
        lsns[i] = found[i].lsn;
        data[i] = found[i].record + AT_PAYLOAD_BYTES;
        len_bytes[i] = found[i].stored_bytes - AT_PAYLOAD_BYTES;
    }
    if (count == LOOK_AHEAD)
        cfsr_crc32c_x3_prefixed(scan->seed, lsns, data, len_bytes, crcs_out);
    else
        for (unsigned i = 0; i < count; i++)
            crcs_out[i] = cfsr_crc32c(seed_at(scan->seed, lsns[i]), data[i], len_bytes[i]);
}

static int take_entry(struct cfsr_scan *scan, uint32_t shard_id, uint64_t seq)
{
    uint64_t *next;

    if (seq == 0 || seq == UINT64_MAX)
        return -CFSR_E_FORMAT;
    scan->entry_count++;
    if (scan->next_seq == NULL)
        return 0;
    next = &scan->next_seq[shard_id >> __builtin_ctz(scan->lanes)]; /* a power of two */
    if (*next != 0 && *next != seq) {
        scan->entry_count--;
        return -CFSR_E_BAD_ORDER;
    }
    *next = seq + 1;
    return 0;
}

static int take_mark(struct cfsr_scan *scan, const uint8_t *payload, uint32_t payload_bytes,
                     uint64_t lsn)
{
    uint64_t committed;

    if (payload_bytes < CFSR_MARK_PAYLOAD_BYTES ||
        payload_bytes != CFSR_MARK_PAYLOAD_BYTES + 16ull * cfsr_load_le32(payload + 36))
        return -CFSR_E_FORMAT;
    committed = cfsr_load_le64(payload + 8);
    if (committed > lsn)
        return -CFSR_E_FORMAT;
    if (committed > scan->committed_lsn)
        scan->committed_lsn = committed;
    return 0;
}

static int take_shards(struct cfsr_scan *scan, const uint8_t *payload, uint32_t payload_bytes)
{
    uint32_t count, expected = (scan->shards - scan->lane + scan->lanes - 1) / scan->lanes;

    if (payload_bytes < CFSR_SHARDS_PAYLOAD_FIXED)
        return -CFSR_E_FORMAT;
    count = cfsr_load_le32(payload + 8);
    if (payload_bytes != CFSR_SHARDS_PAYLOAD_FIXED + 8ull * count || count != expected ||
        cfsr_load_le32(payload) != scan->lane || cfsr_load_le32(payload + 4) != scan->lanes)
        return -CFSR_E_FORMAT;
    for (uint32_t i = 0; i < count && scan->next_seq != NULL; i++) {
        uint64_t next = cfsr_load_le64(payload + CFSR_SHARDS_PAYLOAD_FIXED + 8ull * i);

        if (next == 0)
            return -CFSR_E_FORMAT;
        if (scan->next_seq[i] != 0 && scan->next_seq[i] != next)
            return -CFSR_E_BAD_ORDER;
        scan->next_seq[i] = next;
    }
    return 0;
}

/* Checks a record whose CRC is right, and takes what it says. */
static int take_record(struct cfsr_scan *scan, const struct candidate *found, uint64_t room_bytes)
{
    const uint8_t *record = found->record;
    const uint8_t *payload = record + AT_PAYLOAD;
    uint32_t shard_id = cfsr_load_le32(record + AT_SHARD);
    uint32_t payload_bytes = cfsr_load_le32(record + AT_PAYLOAD_BYTES);
    uint64_t seq = cfsr_load_le64(record + AT_SEQ);

    if (cfsr_load_le16(record + AT_RESERVED) != 0)
        return -CFSR_E_FORMAT;
    if (cfsr_load_le64(record + AT_SITE) != scan->site_id || shard_id >= scan->shards ||
        (shard_id & (scan->lanes - 1)) != scan->lane)
        return -CFSR_E_FOREIGN;
    if (found->total_bytes > room_bytes)
        return -CFSR_E_FORMAT;
    if (cfsr_record_is_entry(record[AT_OP]))
        return take_entry(scan, shard_id, seq);
    if (seq != 0)
        return -CFSR_E_FORMAT;
    switch (record[AT_OP]) {
    case CFSR_RECORD_PAD: return found->total_bytes == room_bytes ? 0 : -CFSR_E_FORMAT;
    case CFSR_RECORD_MARK: return take_mark(scan, payload, payload_bytes, found->lsn);
    case CFSR_RECORD_SHARDS: return take_shards(scan, payload, payload_bytes);
    default: return -CFSR_E_FORMAT;
    }
}

/* Reads ahead up to LOOK_AHEAD candidates. Count (the first may be refused: *rc_out, or 0 for
 * need-more). */
static unsigned look_ahead(struct cfsr_scan *scan, struct candidate *found, int *rc_out)
{
    uint32_t offset = scan->raw_bytes;
    uint64_t lsn = scan->next_lsn;
    unsigned count = 0;

    while (count < LOOK_AHEAD) {
        *rc_out = candidate_at(scan, offset, lsn, &found[count]);
        if (*rc_out != 1)
            break;
        offset += found[count].stored_bytes;
        lsn += found[count].total_bytes;
        count++;
        if (offset == scan->len_bytes || found[count - 1].record[AT_OP] == CFSR_RECORD_PAD)
            break;
    }
    return count;
}

static bool at_limit(const struct cfsr_scan *scan, const struct candidate *found)
{
    if (scan->record_count == 0)
        return false;
    if (scan->max_raw_bytes != 0 && scan->raw_bytes + found->stored_bytes > scan->max_raw_bytes)
        return true;
    return scan->max_entries != 0 && scan->entry_count >= scan->max_entries &&
           cfsr_record_is_entry(found->record[AT_OP]);
}

static void count_record(struct cfsr_scan *scan, const struct candidate *found, uint32_t crc)
{
    uint64_t timestamp_us = cfsr_load_le64(found->record + AT_TIMESTAMP);

    scan->raw_bytes += found->stored_bytes;
    scan->next_lsn = found->lsn + found->total_bytes;
    scan->record_count++;
    if (timestamp_us > scan->max_timestamp_us)
        scan->max_timestamp_us = timestamp_us;
    scan->last.lsn = found->lsn;
    scan->last.seq = cfsr_load_le64(found->record + AT_SEQ);
    scan->last.timestamp_us = timestamp_us;
    scan->last.crc = crc;
}

/* Takes the candidates in order. 1: all taken, go on; 0: scan->end is set; else an error. */
static int take_candidates(struct cfsr_scan *scan, const struct candidate *found, unsigned count,
                           uint64_t boundary_lsn)
{
    uint32_t crcs[LOOK_AHEAD];

    if (scan->trust_crc)
        for (unsigned i = 0; i < count; i++)
            crcs[i] = cfsr_load_le32(found[i].record + AT_CRC);
    else
        sum_candidates(scan, found, count, crcs);
    for (unsigned i = 0; i < count; i++) {
        int rc;

        if (at_limit(scan, &found[i])) {
            scan->end = CFSR_SCAN_LIMIT;
            return 0;
        }
        if (crcs[i] != cfsr_load_le32(found[i].record + AT_CRC))
            return -CFSR_E_CHECKSUM;
        rc = take_record(scan, &found[i], boundary_lsn - found[i].lsn);
        if (rc < 0)
            return rc;
        count_record(scan, &found[i], crcs[i]);
        if (boundary_lsn - scan->next_lsn < CFSR_RECORD_HEADER_BYTES) {
            scan->next_lsn = boundary_lsn; /* no room for another header: implied padding */
            scan->end = CFSR_SCAN_SEGMENT_END;
            return 0;
        }
    }
    return 1;
}

/* Bytes of the entry at p if one stands there whole, as far as its sizes say; 0 otherwise. */
static inline uint32_t entry_bytes(const uint8_t *p, uint32_t available)
{
    uint32_t payload_bytes, total;

    if (available < CFSR_RECORD_HEADER_BYTES)
        return 0;
    payload_bytes = cfsr_load_le32(p + AT_PAYLOAD_BYTES);
    if (!cfsr_record_is_entry(p[AT_OP]) || payload_bytes > CFSR_RECORD_PAYLOAD_MAX)
        return 0;
    total = (uint32_t)padded_bytes(payload_bytes);
    return total <= available ? total : 0;
}

/* What take_record() checks of an entry, without its names for errors; takes the seq. */
static inline bool entry_is_good(const struct cfsr_scan *scan, const uint8_t *p, unsigned shift)
{
    uint32_t shard_id = cfsr_load_le32(p + AT_SHARD);
    uint64_t seq = cfsr_load_le64(p + AT_SEQ);

    if (cfsr_load_le16(p + AT_RESERVED) != 0 || cfsr_load_le64(p + AT_SITE) != scan->site_id ||
        shard_id >= scan->shards || (shard_id & (scan->lanes - 1)) != scan->lane || seq == 0 ||
        seq == UINT64_MAX)
        return false;
    if (scan->next_seq != NULL) {
        uint64_t *next = &scan->next_seq[shard_id >> shift];

        if (*next != 0 && *next != seq)
            return false;
        *next = seq + 1;
    }
    return true;
}

/*
 * The sender's walk over plain entries: sizes only, two loads a record. Whoever gets the bytes
 * checks the rest (trust_crc). Stops where scan_entries() would.
 */
static void walk_entries(struct cfsr_scan *scan, uint64_t boundary_lsn, uint32_t limit)
{
    const uint8_t *p = scan->data + scan->raw_bytes, *last = NULL;
    const uint64_t room_bytes = boundary_lsn - scan->next_lsn;
    uint32_t raw_bytes = scan->raw_bytes, taken = 0, walked = 0;

    while (raw_bytes < limit) {
        uint32_t total = entry_bytes(p, limit - raw_bytes);

        if (total == 0 || room_bytes < (uint64_t)walked + total + CFSR_RECORD_HEADER_BYTES)
            break;
        last = p;
        p += total;
        raw_bytes += total;
        walked += total;
        taken++;
    }
    if (last == NULL)
        return;
    scan->last.lsn = scan->next_lsn + (uint64_t)(last - (scan->data + scan->raw_bytes));
    scan->raw_bytes = raw_bytes;
    scan->next_lsn += walked;
    scan->entry_count += taken;
    scan->record_count += taken;
    scan->last.seq = cfsr_load_le64(last + AT_SEQ);
    scan->last.timestamp_us = cfsr_load_le64(last + AT_TIMESTAMP);
    scan->last.crc = cfsr_load_le32(last + AT_CRC);
}

/*
 * The usual case without its exceptions: runs of three plain entries, all far from limits and the
 * segment's end. Stops before anything else; the loop of cfsr_record_scan() then looks at it again
 * and gives it its name. Half of the time of a scan was in the questions this does not ask.
 */
static void scan_entries(struct cfsr_scan *scan, uint64_t boundary_lsn)
{
    const unsigned shift = (unsigned)__builtin_ctz(scan->lanes);
    const uint8_t *p = scan->data + scan->raw_bytes, *last = NULL;
    uint32_t raw_bytes = scan->raw_bytes, taken = 0;
    uint64_t lsn = scan->next_lsn, max_timestamp_us = scan->max_timestamp_us;
    uint32_t limit = scan->len_bytes;

    if (scan->max_entries != 0 || lsn % CFSR_RECORD_ALIGN != 0)
        return;
    if (scan->max_raw_bytes != 0 && scan->max_raw_bytes < limit)
        limit = scan->max_raw_bytes;
    if (scan->trust_crc) {
        walk_entries(scan, boundary_lsn, limit);
        return;
    }
    while (raw_bytes < limit) {
        uint32_t total[LOOK_AHEAD], crc[LOOK_AHEAD], sum = 0;
        const void *data[LOOK_AHEAD];
        uint64_t lsns[LOOK_AHEAD];
        size_t len_bytes[LOOK_AHEAD];
        unsigned i;

        for (i = 0; i < LOOK_AHEAD; i++) {
            total[i] = entry_bytes(p + sum, limit - raw_bytes - sum);
            if (total[i] == 0)
                break;
            lsns[i] = lsn + sum;
            data[i] = p + sum + AT_PAYLOAD_BYTES;
            len_bytes[i] = total[i] - AT_PAYLOAD_BYTES;
            sum += total[i];
        }
        if (i < LOOK_AHEAD || boundary_lsn - lsn < (uint64_t)sum + CFSR_RECORD_HEADER_BYTES)
            break;
        cfsr_crc32c_x3_prefixed(scan->seed, lsns, data, len_bytes, crc);
        for (i = 0; i < LOOK_AHEAD; i++) {
            uint64_t timestamp_us = cfsr_load_le64(p + AT_TIMESTAMP);

            if (crc[i] != cfsr_load_le32(p + AT_CRC) || !entry_is_good(scan, p, shift))
                break;
            if (timestamp_us > max_timestamp_us)
                max_timestamp_us = timestamp_us;
            last = p;
            scan->last.lsn = lsn;
            p += total[i];
            lsn += total[i];
            raw_bytes += total[i];
            taken++;
        }
        if (i < LOOK_AHEAD)
            break;
    }
    if (last == NULL)
        return;
    scan->raw_bytes = raw_bytes;
    scan->next_lsn = lsn;
    scan->entry_count += taken;
    scan->record_count += taken;
    scan->max_timestamp_us = max_timestamp_us;
    scan->last.seq = cfsr_load_le64(last + AT_SEQ);
    scan->last.timestamp_us = cfsr_load_le64(last + AT_TIMESTAMP);
    scan->last.crc = cfsr_load_le32(last + AT_CRC);
}

int cfsr_record_scan(struct cfsr_scan *scan)
{
    uint64_t boundary_lsn = scan->lsn - scan->lsn % scan->segment_bytes + scan->segment_bytes;
    struct candidate found[LOOK_AHEAD];

    CFSR_ASSERT(cfsr_is_power_of_two(scan->lanes) && scan->lane < scan->lanes);
    scan->raw_bytes = 0;
    scan->need_bytes = 0;
    scan->next_lsn = scan->lsn;
    scan->entry_count = 0;
    scan->record_count = 0;
    scan->max_timestamp_us = 0;
    scan->committed_lsn = 0;
    memset(&scan->last, 0, sizeof scan->last);
    if (boundary_lsn - scan->lsn < CFSR_RECORD_HEADER_BYTES) {
        scan->next_lsn = boundary_lsn;
        scan->end = CFSR_SCAN_SEGMENT_END;
        return 0;
    }

    for (;;) {
        unsigned count;
        int rc;

        scan_entries(scan, boundary_lsn);
        if (scan->raw_bytes == scan->len_bytes) {
            scan->end = CFSR_SCAN_END_OF_DATA;
            return 0;
        }
        count = look_ahead(scan, found, &rc);
        if (count == 0) {
            if (rc == 0)
                scan->end = CFSR_SCAN_NEED_MORE;
            return rc;
        }
        rc = take_candidates(scan, found, count, boundary_lsn);
        if (rc <= 0)
            return rc;
    }
}
