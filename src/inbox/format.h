/*
 * format.h - the bytes of an inbox segment: its header, the local record header, CURSORS and INDEX
 * payloads.
 *
 * docs/inbox-format.md holds the byte tables and the rules of validity. Pure functions: no I/O, any
 * thread.
 *
 * Segment file: 4 KiB header, then site.segment_bytes of body. Body: [data area][index area]. The
 * data area is a run of write blocks from offset 0; the index area is the last
 * CFSR_INBOX_INDEX_AREA_BYTES and holds the INDEX, always at its beginning, so that it can be read
 * without a scan. A segment left at a restart may have none.
 */
#ifndef CFSR_INBOX_FORMAT_H
#define CFSR_INBOX_FORMAT_H

#include "inbox/inbox.h"

#define CFSR_INBOX_SEGMENT_HEADER_BYTES 4096
#define CFSR_INBOX_RECORD_ALIGN         64
#define CFSR_INBOX_RECORD_MAGIC         0x31494643u /* "CFI1" */
#define CFSR_INBOX_RECORD_VERSION       1
#define CFSR_INBOX_PATH_BYTES           (CFSR_PATH_MAX + 96)
/* Largest batch record: a maximal frame behind its local header. */
#define CFSR_INBOX_FRAME_MAX_BYTES \
    (CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_EXTENSION_MAX + CFSR_BATCH_BODY_MAX_BYTES)
#define CFSR_INBOX_CURSOR_BYTES        80 /* one entry of CURSORS */
#define CFSR_INBOX_CURSORS_FIXED       16
#define CFSR_INBOX_INDEX_FIXED         32
#define CFSR_INBOX_RANGE_BYTES         40 /* one origin in INDEX */
#define CFSR_INBOX_INDEX_STEP          24 /* one sampled batch in INDEX */
#define CFSR_INBOX_REPAIR_HEADER_BYTES 64 /* of REPAIR, between the local header and the prefix */

enum cfsr_inbox_kind {
    CFSR_INBOX_BATCH = 1,
    CFSR_INBOX_CURSORS = 2,
    CFSR_INBOX_INDEX = 3,
    CFSR_INBOX_REPAIR = 4,
};

/* Host form of the 64-byte local header. */
struct cfsr_inbox_local {
    uint16_t kind;
    uint32_t record_bytes; /* this header and what follows it, without padding */
    uint32_t entries;      /* of a batch: entries that were new when it was stored */
    uint64_t sequence;
    uint64_t arrival;
    uint64_t arrived_at_us;
    uint64_t durable_below;
    uint64_t incarnation;
};

/*
 * Host form of the 64 bytes that say what a REPAIR record was made for. Readers go by the LSNs of
 * the batch behind them; the place is for people and for tools that do not follow LSNs.
 */
struct cfsr_inbox_repair {
    uint64_t sequence, begin, end_sequence, end; /* the damaged place */
    uint32_t part, parts;                        /* of the gap when it was described */
    uint64_t site_id;                            /* the origin of the part */
    uint64_t lsn_from, lsn_to;                   /* what was missing of it */
};

/* Bytes a record takes in its block. */
static inline uint32_t cfsr_inbox_record_space(uint32_t record_bytes)
{
    return (record_bytes + CFSR_INBOX_RECORD_ALIGN - 1) & ~(uint32_t)(CFSR_INBOX_RECORD_ALIGN - 1);
}
static inline uint64_t cfsr_inbox_data_bytes(const struct cfsr_site *site)
{
    return site->segment_bytes - CFSR_INBOX_INDEX_AREA_BYTES;
}
static inline uint64_t cfsr_inbox_file_offset(uint64_t body_offset)
{
    return CFSR_INBOX_SEGMENT_HEADER_BYTES + body_offset;
}

/* Writes the header before a payload already in place at record + 64, and seals both. */
void cfsr_inbox_record_seal(const struct cfsr_inbox_local *local, uint64_t body_offset,
                            void *record);
/*
 * Reads and checks a local header and what its CRC covers, of `available` bytes at record. 0;
 * -CFSR_E_FORMAT: no record of this segment starts here (magic, version, sequence, sizes);
 * -CFSR_E_CHECKSUM: the CRC differs; -EAGAIN: more bytes are needed, their count in *need_out.
 */
int cfsr_inbox_record_load(const void *record, uint32_t available, uint64_t sequence,
                           uint64_t body_offset, struct cfsr_inbox_local *local_out,
                           uint32_t *need_out);

/* Where the batch prefix of a BATCH or REPAIR record begins in the record. */
static inline uint32_t cfsr_inbox_prefix_offset(uint16_t kind)
{
    return CFSR_INBOX_LOCAL_HEADER_BYTES +
           (kind == CFSR_INBOX_REPAIR ? CFSR_INBOX_REPAIR_HEADER_BYTES : 0);
}

/* REPAIR header. load: -CFSR_E_FORMAT. */
void cfsr_inbox_repair_store(const struct cfsr_inbox_repair *repair, void *header_out);
int cfsr_inbox_repair_load(const void *header, struct cfsr_inbox_repair *repair_out);

/* CURSORS payload. store returns its bytes. load: -CFSR_E_FORMAT. */
uint32_t cfsr_inbox_cursors_store(const struct cfsr_inbox_cursor *cursors, uint32_t count,
                                  void *payload_out);
int cfsr_inbox_cursors_load(const void *payload, uint32_t len_bytes,
                            struct cfsr_inbox_cursor *cursors_out, uint32_t *count_out);

/* INDEX: add batches while they are laid out, then store. */
void cfsr_inbox_index_reset(struct cfsr_inbox_index *index);
void cfsr_inbox_index_add(struct cfsr_inbox_index *index, uint64_t body_offset, uint64_t arrival,
                          uint64_t arrived_at_us, uint32_t origin, uint64_t lsn_from,
                          uint64_t lsn_to);
uint32_t cfsr_inbox_index_store(const struct cfsr_inbox_index *index,
                                const struct cfsr_inbox_cursor *origins, uint32_t origin_count,
                                void *payload_out);
/* origins_out (CFSR_INBOX_ORIGINS_MAX) gets the identities, in the order of the ranges. */
int cfsr_inbox_index_load(const void *payload, uint32_t len_bytes,
                          struct cfsr_inbox_index *index_out, struct cfsr_inbox_cursor *origins_out,
                          uint32_t *origin_count_out);

/* Segment header. load: -CFSR_E_FORMAT, -CFSR_E_CHECKSUM, -CFSR_E_VERSION, -CFSR_E_FOREIGN, with
 * message. */
void cfsr_inbox_segment_header_store(const struct cfsr_site *site, uint32_t lane, uint64_t sequence,
                                     void *block_out);
int cfsr_inbox_segment_header_load(const struct cfsr_site *site, const void *block, uint32_t lane,
                                   uint64_t sequence, const char *path);

/* Paths; path_out holds CFSR_INBOX_PATH_BYTES. */
char *cfsr_inbox_lane_path(const struct cfsr_site *site, uint32_t lane, char *path_out);
char *cfsr_inbox_segment_path(const struct cfsr_site *site, uint32_t lane, uint64_t sequence,
                              char *path_out);

#endif
