/*
 * torn_chain.h - what an origin sends, made once: a row of encoded batches of its lane, and the
 * records in them.
 */
#ifndef CFSR_TESTS_SIM_TORN_CHAIN_H
#define CFSR_TESTS_SIM_TORN_CHAIN_H

#include <stdint.h>

#include "inbox/inbox.h"

#define TORN_BATCHES       120u
#define TORN_INBOX_SEGMENT (96u << 10)

struct torn_batch {
    struct cfsr_batch_header header;
    uint8_t *frame;
    uint32_t frame_bytes;
    struct cfsr_record_stamp last;
    uint32_t entries;
    uint32_t first_record, end_record;
};

struct torn_record {
    uint64_t lsn, end_lsn;
    const uint8_t *wire;
    uint32_t wire_bytes;
};

struct torn_chain {
    uint64_t site_id;
    struct cfsr_uuid journal;
    struct torn_batch batch[TORN_BATCHES];
    struct torn_record *record;
    uint32_t records;
};

/* Records of up to record_max bytes, up to batch_records in a batch. Everything follows from the
 * site id. */
struct torn_chain *torn_chain_make(uint64_t site_id, uint32_t record_max, uint32_t batch_records);
/* The batch that begins at the LSN; TORN_BATCHES: there is none. */
uint32_t torn_chain_at(const struct torn_chain *chain, uint64_t lsn);

#endif
