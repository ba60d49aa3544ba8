/* fixture.h - batches made of real-looking records, for the tests of this folder. */
#ifndef CFSR_TEST_PIPELINE_FIXTURE_H
#define CFSR_TEST_PIPELINE_FIXTURE_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "pipeline/batch.h"

#define RECORD_LEN_BYTES 176 /* header and the payload of a create */
#define SEQ_AT           8
#define SITE_AT          32
#define SITE_ID          0x1122334455667788u
#define FIRST_SEQ        1000u

/* Fills raw with count records; returns their bytes. */
static inline uint32_t make_records(uint8_t *raw, unsigned count)
{
    memset(raw, 0, (size_t)count * RECORD_LEN_BYTES);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *record = raw + (size_t)i * RECORD_LEN_BYTES;

        cfsr_store_le32(record + 4, RECORD_LEN_BYTES - 48);
        cfsr_store_le64(record + SEQ_AT, FIRST_SEQ + i);
        cfsr_store_le64(record + 24, 70000 + i * 3);
        cfsr_store_le64(record + SITE_AT, SITE_ID);
        snprintf((char *)record + 56, 100, "drivers/net/ethernet/vendor/file-%u.c", i * 7919);
    }
    return count * RECORD_LEN_BYTES;
}

static inline struct cfsr_batch_codec *make_codec(const char *text)
{
    struct cfsr_batch_codec *codec = NULL;
    struct cfsr_codec_config config;

    cr_assert_eq(cfsr_codec_config_parse(text, &config), 0);
    cr_assert_eq(cfsr_batch_codec_create(&config, &codec), 0);
    return codec;
}

static inline struct cfsr_mac_key *make_key(uint8_t fill)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    struct cfsr_mac_key *key = NULL;

    memset(secret, fill, sizeof secret);
    cr_assert_eq(cfsr_security_init(), 0);
    cr_assert_eq(cfsr_mac_key_create(secret, &key), 0);
    return key;
}

/* A header with every field set to something of its own. */
static inline struct cfsr_batch_header make_header(void)
{
    struct cfsr_batch_header header = {
        .flags = CFSR_BATCH_PARTIAL | CFSR_BATCH_FORWARDED,
        .lane = 5,
        .codec = CFSR_CODEC_ZSTD,
        .level = 3,
        .encode_class = 0x01020304,
        .site_id = SITE_ID,
        .epoch = 0x1112131415161718,
        .lsn_from = 0x2122232425262728,
        .lsn_to = 0x2122232425270000,
        .entry_count = 100,
        .key_id = 0x31323334,
        .original_bytes = 17600,
        .stored_bytes = 1234,
        .hole_count = 2,
        .extension_bytes = 32,
        .prepared_at_us = 0x4142434445464748,
        .span_id = 0x5152535455565758,
        .incarnation = 0x6162636465666768,
    };

    memset(header.journal.bytes, 0xa1, sizeof header.journal.bytes);
    memset(header.trace_id, 0xa2, sizeof header.trace_id);
    memset(header.digest, 0xa3, sizeof header.digest);
    memset(header.tag, 0xa4, sizeof header.tag);
    return header;
}

#endif
