/*
 * torn_chain.c - batches of a made-up origin (torn_chain.h).
 */
#include "torn_chain.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "torn_journal.h"

#define RECORDS_MAX 4096u

struct maker {
    struct torn_chain *chain;
    struct cfsr_batch_codec *codec;
    uint64_t lsn, seq, random;
    uint32_t record_max, batch_records;
};

static uint32_t make_record(struct maker *maker, uint8_t *record)
{
    uint64_t left = TORN_INBOX_SEGMENT - maker->lsn % TORN_INBOX_SEGMENT;
    uint32_t total = CFSR_RECORD_HEADER_BYTES +
                     (uint32_t)(torn_random(&maker->random) % maker->record_max / 8 * 8);
    struct cfsr_record_header header = {.timestamp_us = 1000 + maker->seq,
                                        .site_id = maker->chain->site_id};
    uint32_t wire = total;

    if (left != total && left < total + CFSR_RECORD_HEADER_BYTES) {
        header.op = CFSR_RECORD_PAD;
        header.payload_bytes = (uint32_t)(left - CFSR_RECORD_HEADER_BYTES);
        total = (uint32_t)left;
        wire = CFSR_RECORD_HEADER_BYTES;
    } else {
        header.op = 3;
        header.seq = ++maker->seq;
        header.inode = maker->lsn;
        header.payload_bytes = total - CFSR_RECORD_HEADER_BYTES;
        for (uint32_t i = CFSR_RECORD_HEADER_BYTES; i < total; i += 8)
            cfsr_store_le64(record + i, torn_random(&maker->random));
    }
    cfsr_record_header_store(record, &header);
    cfsr_record_seal(record, cfsr_record_seed(&maker->chain->journal), maker->lsn);
    maker->lsn += total;
    return wire;
}

/* Keeps a copy of a record. */
static void note_record(struct maker *maker, const uint8_t *record, uint32_t wire, uint64_t lsn)
{
    struct torn_record *note = &maker->chain->record[maker->chain->records++];
    uint8_t *copy = malloc(wire);

    CFSR_ASSERT(copy != NULL && maker->chain->records <= RECORDS_MAX);
    memcpy(copy, record, wire);
    *note = (struct torn_record){
        .lsn = lsn, .end_lsn = maker->lsn, .wire = copy, .wire_bytes = wire};
}

static void make_batch(struct maker *maker, struct torn_batch *batch)
{
    static uint8_t raw[CFSR_CODEC_INPUT_MAX_BYTES];
    uint32_t count = 1 + (uint32_t)(torn_random(&maker->random) % maker->batch_records);
    uint32_t raw_bytes = 0;
    uint64_t from = maker->lsn;
    bool more = true;

    batch->first_record = maker->chain->records;
    for (uint32_t i = 0; i < count && more; i++) {
        uint64_t lsn = maker->lsn;
        struct cfsr_record_header header;
        uint32_t wire = make_record(maker, raw + raw_bytes);

        cfsr_record_header_load(raw + raw_bytes, &header);
        batch->last = (struct cfsr_record_stamp){
            .lsn = lsn, .seq = header.seq, .timestamp_us = header.timestamp_us, .crc = header.crc};
        batch->entries += cfsr_record_is_entry(header.op);
        note_record(maker, raw + raw_bytes, wire, lsn);
        raw_bytes += wire;
        more = maker->lsn % TORN_INBOX_SEGMENT != 0;
    }
    batch->end_record = maker->chain->records;
    batch->header = (struct cfsr_batch_header){.site_id = maker->chain->site_id,
                                               .journal = maker->chain->journal,
                                               .lsn_from = from,
                                               .lsn_to = maker->lsn,
                                               .entry_count = batch->entries,
                                               .incarnation = 1,
                                               .prepared_at_us = 1};
    batch->frame = malloc(CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_BODY_MAX_BYTES);
    CFSR_ASSERT(batch->frame != NULL);
    CFSR_ASSERT(cfsr_batch_encode(maker->codec, raw, raw_bytes,
                                  batch->frame + CFSR_BATCH_PREFIX_BYTES, CFSR_BATCH_BODY_MAX_BYTES,
                                  &batch->header) == 0);
    cfsr_batch_header_store(&batch->header, batch->frame);
    batch->frame_bytes = CFSR_BATCH_PREFIX_BYTES + batch->header.stored_bytes;
    batch->frame = realloc(batch->frame, batch->frame_bytes);
    CFSR_ASSERT(batch->frame != NULL);
}

struct torn_chain *torn_chain_make(uint64_t site_id, uint32_t record_max, uint32_t batch_records)
{
    struct torn_chain *chain = calloc(1, sizeof *chain);
    struct maker maker = {.chain = chain,
                          .random = site_id,
                          .record_max = record_max,
                          .batch_records = batch_records};
    struct cfsr_codec_config config;

    CFSR_ASSERT(chain != NULL);
    chain->site_id = site_id;
    memset(chain->journal.bytes, (int)site_id, 16);
    chain->record = calloc(RECORDS_MAX, sizeof *chain->record);
    CFSR_ASSERT(chain->record != NULL);
    cfsr_codec_config_default(&config);
    CFSR_ASSERT(cfsr_batch_codec_create(&config, &maker.codec) == 0);
    for (uint32_t i = 0; i < TORN_BATCHES; i++)
        make_batch(&maker, &chain->batch[i]);
    cfsr_batch_codec_destroy(maker.codec);
    return chain;
}

uint32_t torn_chain_at(const struct torn_chain *chain, uint64_t lsn)
{
    uint32_t i = 0;

    while (i < TORN_BATCHES && chain->batch[i].header.lsn_from != lsn)
        i++;
    return i;
}
