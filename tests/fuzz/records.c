/* records.c - see records.h. */
#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "journal/record.h"
#include <cfsrepl/journal.h>
#include <cfsrepl/payload.h>

void fuzz_records_seal(uint8_t *data, size_t len_bytes, bool wire_form, uint32_t seed, uint64_t lsn,
                       uint64_t segment_bytes)
{
    size_t at = 0;

    while (len_bytes - at >= CFSR_RECORD_HEADER_BYTES) {
        uint64_t left = segment_bytes - lsn % segment_bytes;
        struct cfsr_record_header header;
        uint64_t total, stored;

        if (left < CFSR_RECORD_HEADER_BYTES)
            return;
        cfsr_record_header_load(data + at, &header);
        total = cfsr_record_total_bytes(&header);
        stored = wire_form ? cfsr_record_wire_bytes(&header) : total;
        if (header.op != CFSR_RECORD_PAD && (total > len_bytes - at || total > left))
            return;
        cfsr_record_seal(data + at, seed, lsn);
        if (stored > len_bytes - at || total > left)
            return;
        at += stored;
        lsn += total;
    }
}

void fuzz_records_init(struct fuzz_records *records, const struct cfsr_site *site, uint64_t site_id,
                       const struct cfsr_uuid *journal, uint32_t lane)
{
    *records = (struct fuzz_records){.site = site,
                                     .journal = *journal,
                                     .site_id = site_id,
                                     .lane = lane,
                                     .timestamp_us = 1700000000000000u};
}

static void put(struct fuzz_records *records, struct fuzz_seed *out,
                const struct cfsr_record_header *header, const void *payload, uint32_t len_bytes)
{
    uint32_t total = (uint32_t)cfsr_align_up(CFSR_RECORD_HEADER_BYTES + len_bytes, 8);
    uint8_t *record = calloc(1, total);

    FUZZ_CHECK(record != NULL);
    cfsr_record_header_store(record, header);
    if (len_bytes > 0)
        memcpy(record + CFSR_RECORD_HEADER_BYTES, payload, len_bytes);
    cfsr_record_seal(record, cfsr_record_seed(&records->journal), records->lsn);
    fuzz_seed_bytes(out, record, total);
    records->last = (struct cfsr_record_stamp){.lsn = records->lsn,
                                               .seq = header->seq,
                                               .timestamp_us = header->timestamp_us,
                                               .crc = cfsr_load_le32(record)};
    records->lsn += cfsr_record_total_bytes(header);
    free(record);
}

void fuzz_records_entry(struct fuzz_records *records, struct fuzz_seed *out, uint32_t payload_bytes)
{
    uint8_t *payload = calloc(1, payload_bytes + 256u);
    struct cfsr_payload_builder builder;
    uint64_t random = records->lsn;
    uint32_t slot = records->entries++ % CFSR_ARRAY_LEN(records->seq);
    struct cfsr_record_header header = {.seq = ++records->seq[slot],
                                        .timestamp_us = ++records->timestamp_us,
                                        .inode = 100 + slot,
                                        .site_id = records->site_id,
                                        .shard_id = records->lane + slot * records->site->lanes,
                                        .op = CFSR_OP_CREATE};

    FUZZ_CHECK(payload != NULL);
    cfsr_payload_begin(&builder, payload, payload_bytes + 256u);
    cfsr_payload_put_u64(&builder, CFSR_TAG_PARENT, 1);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_NAME, "a-name", 6);
    cfsr_payload_put_u64(&builder, CFSR_TAG_MODE, 0100644);
    if (payload_bytes > 0) {
        uint8_t *noise = malloc(payload_bytes);

        FUZZ_CHECK(noise != NULL);
        for (uint32_t i = 0; i < payload_bytes; i++)
            noise[i] = (uint8_t)fuzz_random(&random);
        cfsr_payload_put_bytes(&builder, CFSR_TAG_DATA, noise, payload_bytes);
        free(noise);
    }
    FUZZ_CHECK(builder.error == 0);
    header.payload_bytes = builder.len_bytes;
    put(records, out, &header, payload, builder.len_bytes);
    free(payload);
}

void fuzz_records_mark(struct fuzz_records *records, struct fuzz_seed *out, uint64_t committed)
{
    uint8_t payload[CFSR_MARK_PAYLOAD_BYTES] = {0};
    struct cfsr_record_header header = {.payload_bytes = sizeof payload,
                                        .timestamp_us = records->timestamp_us,
                                        .site_id = records->site_id,
                                        .shard_id = records->lane,
                                        .op = CFSR_RECORD_MARK};

    cfsr_store_le64(payload, 1);
    cfsr_store_le64(payload + 8, committed);
    cfsr_store_le64(payload + 16, records->entries);
    put(records, out, &header, payload, sizeof payload);
}

void fuzz_records_shards(struct fuzz_records *records, struct fuzz_seed *out)
{
    uint32_t count = records->site->shards / records->site->lanes;
    uint32_t len = CFSR_SHARDS_PAYLOAD_FIXED + 8 * count;
    uint8_t *payload = calloc(1, len);
    struct cfsr_record_header header = {.payload_bytes = len,
                                        .timestamp_us = records->timestamp_us,
                                        .site_id = records->site_id,
                                        .shard_id = records->lane,
                                        .op = CFSR_RECORD_SHARDS};

    FUZZ_CHECK(payload != NULL);
    cfsr_store_le32(payload, records->lane);
    cfsr_store_le32(payload + 4, records->site->lanes);
    cfsr_store_le32(payload + 8, count);
    for (uint32_t i = 0; i < count; i++)
        cfsr_store_le64(payload + 16 + 8ull * i,
                        (i < CFSR_ARRAY_LEN(records->seq) ? records->seq[i] : 0) + 1);
    put(records, out, &header, payload, len);
    free(payload);
}

void fuzz_records_pad(struct fuzz_records *records, struct fuzz_seed *out)
{
    uint64_t segment_bytes = records->site->segment_bytes;
    uint64_t left = segment_bytes - records->lsn % segment_bytes;
    struct cfsr_record_header header = {.payload_bytes = (uint32_t)left - CFSR_RECORD_HEADER_BYTES,
                                        .timestamp_us = records->timestamp_us,
                                        .site_id = records->site_id,
                                        .shard_id = records->lane,
                                        .op = CFSR_RECORD_PAD};

    put(records, out, &header, NULL, 0);
}
