/*
 * record.h - the journal record: one format in memory, in the journal, on the wire and in the
 * inbox.
 *
 * 48-byte little-endian header, payload, zero padding to 8 bytes (docs/journal-format.md):
 *
 *     0  4  crc32c over bytes 4… to the end of the padding, seeded with (journal uuid, LSN)
 *     4  4  payload bytes (<= 1 MiB; PAD: filler bytes, which may be more)
 *     8  8  seq, per shard, +1 each, from 1; 0 for PAD, MARK, SHARDS
 *    16  8  timestamp_us, hybrid clock
 *    24  8  inode
 *    32  8  site id of the origin
 *    40  4  shard id
 *    44  1  op: 0–10, 240 PAD, 241 MARK, 242 SHARDS
 *    45  1  flags
 *    46  2  reserved, 0
 *
 * The seed of the CRC is crc32c(0, journal uuid ‖ u64le LSN), where LSN names the record's first
 * byte: a stale, recycled or misplaced record never passes. PAD's CRC covers its header only, its
 * filler is never read, and in the wire form (batches, inbox) the filler is left out: the record
 * after a PAD follows its header.
 *
 * MARK payload:  0 8 incarnation; 8 8 committed LSN; 16 8 entries of the lane below this MARK (ops
 * 0–10, cumulative); 24 8 wall time µs; 32 4 flags (1 = clean close); 36 4 vector entries n; then n
 * × (8 site, 8 LSN). SHARDS payload: 0 4 first shard of the lane (= lane); 4 4 stride (= lanes); 8
 * 4 count n; 12 4 reserved; then n × 8: the next seq of shard first + i × stride.
 */
#ifndef CFSR_JOURNAL_RECORD_H
#define CFSR_JOURNAL_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"

#define CFSR_RECORD_HEADER_BYTES  48
#define CFSR_RECORD_ALIGN         8
#define CFSR_RECORD_PAYLOAD_MAX   (1u << 20)
#define CFSR_RECORD_MAX_BYTES     (CFSR_RECORD_HEADER_BYTES + CFSR_RECORD_PAYLOAD_MAX)
#define CFSR_MARK_PAYLOAD_BYTES   40
#define CFSR_MARK_CLEAN_CLOSE     1u
#define CFSR_SHARDS_PAYLOAD_FIXED 16

/* Op numbers of entries are in <cfsrepl/journal.h> (enum cfsr_op, 0–10). */
enum cfsr_record_op {
    CFSR_RECORD_PAD = 240,
    CFSR_RECORD_MARK = 241,
    CFSR_RECORD_SHARDS = 242
};
#define CFSR_OP_ENTRY_MAX 10

struct cfsr_record_header {
    uint32_t crc;
    uint32_t payload_bytes;
    uint64_t seq;
    uint64_t timestamp_us;
    uint64_t inode;
    uint64_t site_id;
    uint32_t shard_id;
    uint8_t op;
    uint8_t flags;
};

/* CRC state after the journal uuid; combined with the LSN it seeds each record. Compute once per
 * journal. */
uint32_t cfsr_record_seed(const struct cfsr_uuid *journal);

void cfsr_record_header_load(const void *record, struct cfsr_record_header *header_out);
/* Writes header (crc ignored), which the caller completes with payload and zero padding, then
 * cfsr_record_seal(). */
void cfsr_record_header_store(void *record, const struct cfsr_record_header *header);
/* Computes and stores the CRC of a complete record that will stand at lsn. */
void cfsr_record_seal(void *record, uint32_t seed, uint64_t lsn);
/* Bytes the record takes in the journal: header + payload (PAD: filler) rounded up to 8. */
uint64_t cfsr_record_total_bytes(const struct cfsr_record_header *header);
/* Bytes of the wire form: the same, but PAD takes its header only. */
uint32_t cfsr_record_wire_bytes(const struct cfsr_record_header *header);
/* True for op 0–10. */
static inline bool cfsr_record_is_entry(uint8_t op)
{
    return op <= CFSR_OP_ENTRY_MAX;
}

/* Position and identity of one record: what the fork check compares. */
struct cfsr_record_stamp {
    uint64_t lsn; /* of its first byte */
    uint64_t seq;
    uint64_t timestamp_us;
    uint32_t crc;
};

enum cfsr_scan_end {
    CFSR_SCAN_END_OF_DATA, /* the data ended exactly at a record boundary */
    CFSR_SCAN_NEED_MORE,   /* a record continues beyond the data; its size is in need_bytes */
    CFSR_SCAN_LIMIT,       /* max_raw_bytes or max_entries reached; at least one record was taken */
    CFSR_SCAN_SEGMENT_END, /* a PAD or the last record of a segment was taken; next_lsn is the
                              segment boundary */
};

/*
 * Walks whole records from the start of data, checking sizes, reserved bits, op, site, shard (shard
 * mod lanes == lane), the seeded CRC of each, and, when next_seq is given, that seqs go up by one
 * per shard. The hot loop of sender, receiver, recovery, verify and digest. Stops at a segment
 * boundary, so a batch never spans segments.
 */
struct cfsr_scan {
    /* in */
    const uint8_t *data;
    uint32_t len_bytes;
    bool wire_form;         /* PAD has no filler in data */
    uint64_t lsn;           /* of data[0] */
    uint64_t segment_bytes; /* body size of a segment: the LSN grid */
    uint32_t seed;          /* cfsr_record_seed() */
    uint64_t site_id;
    uint32_t lane;
    uint32_t lanes;         /* power of two */
    uint32_t shards;        /* shard ids are below this */
    uint32_t max_raw_bytes; /* stop before exceeding it (but always take one record); 0: no limit */
    uint32_t max_entries;   /* 0: no limit */
    uint64_t *next_seq;     /* indexed by shard / lanes; 0 = not known yet; NULL: do not check */
    /*
     * Walk by sizes only: CRC, site, shard, seq and max_timestamp_us of entries are left to whoever
     * gets the bytes (the sender's walk; its receivers check).
     */
    bool trust_crc;
    /* out */
    enum cfsr_scan_end end;
    uint32_t raw_bytes; /* bytes of data taken, in the given form; the last PAD's filler is never in
                           it */
    uint32_t need_bytes;  /* NEED_MORE: bytes of data the next record needs (its header if that is
                             incomplete) */
    uint64_t next_lsn;    /* position after the last record taken */
    uint32_t entry_count; /* ops 0–10 taken */
    uint32_t record_count;
    uint64_t max_timestamp_us;
    struct cfsr_record_stamp last; /* the last record taken (any op); valid if record_count > 0 */
    uint64_t committed_lsn;        /* highest committed LSN seen in a MARK; 0 if none */
};

/*
 * 0, or -CFSR_E_CHECKSUM (bytes do not match the CRC at next_lsn), -CFSR_E_FORMAT (sizes, op,
 * reserved), -CFSR_E_FOREIGN (site or shard of another lane), -CFSR_E_BAD_ORDER (seq). On error the
 * outputs describe the records before the bad one.
 */
int cfsr_record_scan(struct cfsr_scan *scan);

#endif
