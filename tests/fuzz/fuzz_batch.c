/*
 * fuzz_batch.c - a BATCH's prefix, extension and body through the checks of a receiver, in their
 * order: header, tag, digest, decompression, records.
 *
 * Input: u8 switches (1 records are given and encoded here; 2 seal them; 4 sizes and digest put
 * right; 8 signed; 16 codec none, 32 Zstd, else LZ4), 192 bytes of prefix, extension as the prefix
 * says, then the body or the records.
 *
 * Properties: an accepted prefix is stored to the same bytes; whatever fails, nothing is written
 * beyond the declared size; records that pass lie whole in the batch, end at its LSN, and encode
 * and decode to themselves; one bit more or less in body, prefix or extension is refused.
 */
#include "fuzz.h"
#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "pipeline/batch.h"

enum switches {
    RECORDS = 1,
    SEAL = 2,
    FIX_BODY = 4,
    SIGN = 8,
    PLAIN = 16,
    ZSTD = 32
};
enum {
    INPUT_MAX = 70000,
    RAW_MAX = 1 << 20,
    GUARD_BYTES = 16
};

static struct fuzz_pair pair;
static struct cfsr_mac_key *key;
static struct cfsr_batch_codec *codecs[3];

static void set_up(void)
{
    if (key != NULL)
        return;
    fuzz_pair_init(&pair);
    FUZZ_CHECK(cfsr_session_batch_key(pair.keyring, 1, &pair.site[0].cluster, 1, 2, &key) == 0);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(codecs); i++) {
        struct cfsr_codec_config config;

        cfsr_codec_config_default(&config);
        config.codec = (enum cfsr_codec)i;
        FUZZ_CHECK(cfsr_batch_codec_create(&config, &codecs[i]) == 0);
    }
}

static struct cfsr_batch_codec *codec_of(uint8_t switches)
{
    if ((switches & PLAIN) != 0)
        return codecs[CFSR_CODEC_NONE];
    return codecs[(switches & ZSTD) != 0 ? CFSR_CODEC_ZSTD : CFSR_CODEC_LZ4];
}

struct batch {
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];
    uint8_t *extension, *body;
    size_t extension_bytes, body_bytes;
};

static void take_body(struct batch *batch, struct fuzz_reader *reader, uint8_t switches)
{
    struct cfsr_batch_header header = {.lsn_from = cfsr_load_le64(batch->prefix + 48)};
    uint8_t *records;

    if ((switches & RECORDS) == 0) {
        batch->body = fuzz_copy(reader->at, reader->left);
        batch->body_bytes = reader->left;
        return;
    }
    records = fuzz_copy(reader->at, reader->left);
    if ((switches & SEAL) != 0) {
        struct cfsr_uuid journal;

        memcpy(journal.bytes, batch->prefix + 24, sizeof journal.bytes);
        fuzz_records_seal(records, reader->left, true, cfsr_record_seed(&journal), header.lsn_from,
                          pair.site[0].segment_bytes);
    }
    batch->body = malloc(reader->left + 1);
    FUZZ_CHECK(batch->body != NULL);
    FUZZ_CHECK(cfsr_batch_encode(codec_of(switches), records, (uint32_t)reader->left, batch->body,
                                 (uint32_t)reader->left, &header) == 0);
    batch->body_bytes = header.stored_bytes;
    batch->prefix[10] = header.codec;
    batch->prefix[11] = header.level;
    cfsr_store_le32(batch->prefix + 72, header.original_bytes);
    cfsr_store_le32(batch->prefix + 76, header.stored_bytes);
    memcpy(batch->prefix + 128, header.digest, sizeof header.digest);
    free(records);
}

static void fix(struct batch *batch, uint8_t switches)
{
    struct cfsr_digest *digest;

    if ((switches & FIX_BODY) != 0 && (switches & RECORDS) == 0) {
        FUZZ_CHECK(cfsr_digest_create(&digest) == 0);
        cfsr_store_le32(batch->prefix + 76, (uint32_t)batch->body_bytes);
        cfsr_digest_body(digest, batch->body, batch->body_bytes, batch->prefix + 128);
        cfsr_digest_destroy(digest);
    }
    if ((switches & SIGN) != 0)
        cfsr_batch_sign(key, 1, batch->prefix, batch->extension, (uint32_t)batch->extension_bytes);
}

/* Any single bit, chosen by the input's own bytes, ends it. */
static void check_tamper(struct batch *batch, const struct cfsr_batch_header *header)
{
    uint32_t bits = cfsr_load_le32(header->tag);
    uint32_t bit = bits % (8 * CFSR_BATCH_SIGNED_BYTES);

    batch->prefix[bit / 8] ^= (uint8_t)(1u << bit % 8);
    FUZZ_CHECK(cfsr_batch_check_tag(key, batch->prefix, batch->extension,
                                    header->extension_bytes) == -CFSR_E_BAD_TAG);
    batch->prefix[bit / 8] ^= (uint8_t)(1u << bit % 8);
    if (batch->extension_bytes > 0) {
        batch->extension[bits % batch->extension_bytes] ^= 1;
        FUZZ_CHECK(cfsr_batch_check_tag(key, batch->prefix, batch->extension,
                                        header->extension_bytes) == -CFSR_E_BAD_TAG);
        batch->extension[bits % batch->extension_bytes] ^= 1;
    }
    if (header->stored_bytes > 0) {
        batch->body[bits % header->stored_bytes] ^= 1;
        FUZZ_CHECK(cfsr_batch_check_body(codecs[0], header, batch->body) == -CFSR_E_BAD_DIGEST);
        batch->body[bits % header->stored_bytes] ^= 1;
    }
}

static void check_records(const struct cfsr_batch_header *header, const uint8_t *raw)
{
    const struct cfsr_site *site = &pair.site[0];
    uint64_t next_seq[256] = {0};
    struct cfsr_scan scan = {.data = raw,
                             .len_bytes = header->original_bytes,
                             .wire_form = true,
                             .lsn = header->lsn_from,
                             .segment_bytes = site->segment_bytes,
                             .seed = cfsr_record_seed(&header->journal),
                             .site_id = header->site_id,
                             .lane = header->lane,
                             .lanes = site->lanes,
                             .shards = site->shards,
                             .next_seq = next_seq};

    if (header->lane >= site->lanes)
        return;
    (void)cfsr_record_scan(&scan);
    FUZZ_CHECK(scan.raw_bytes <= header->original_bytes);
}

static void check_encoding(const uint8_t *raw, uint32_t len_bytes)
{
    uint8_t *body = malloc(len_bytes + 1u), *again = malloc(len_bytes + 1u);

    FUZZ_CHECK(body != NULL && again != NULL);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(codecs); i++) {
        struct cfsr_batch_header header = {.lsn_to = 1};

        FUZZ_CHECK(cfsr_batch_encode(codecs[i], raw, len_bytes, body, len_bytes, &header) == 0);
        FUZZ_CHECK(cfsr_batch_check_body(codecs[i], &header, body) == 0);
        FUZZ_CHECK(cfsr_batch_decode(codecs[i], &header, body, again, len_bytes) == 0);
        FUZZ_CHECK(len_bytes == 0 || memcmp(raw, again, len_bytes) == 0);
    }
    free(body);
    free(again);
}

static void take(struct batch *batch)
{
    struct cfsr_batch_header header;
    uint8_t stored[CFSR_BATCH_PREFIX_BYTES], *raw;

    if (cfsr_batch_header_load(batch->prefix, &header) < 0)
        return;
    cfsr_batch_header_store(&header, stored);
    FUZZ_CHECK(memcmp(stored, batch->prefix, sizeof stored) == 0);
    if (header.stored_bytes != batch->body_bytes || header.original_bytes > RAW_MAX ||
        header.extension_bytes != batch->extension_bytes ||
        cfsr_batch_check_tag(key, batch->prefix, batch->extension, header.extension_bytes) < 0 ||
        cfsr_batch_check_body(codecs[0], &header, batch->body) < 0)
        return;
    check_tamper(batch, &header);
    raw = malloc((size_t)header.original_bytes + GUARD_BYTES);
    FUZZ_CHECK(raw != NULL);
    memset(raw, 0x5a, (size_t)header.original_bytes + GUARD_BYTES);
    int rc = cfsr_batch_decode(codecs[0], &header, batch->body, raw,
                               header.original_bytes + GUARD_BYTES);
    for (unsigned i = 0; i < GUARD_BYTES; i++)
        FUZZ_CHECK(raw[header.original_bytes + i] == 0x5a);
    if (rc == 0) {
        uint8_t *exact = fuzz_copy(raw, header.original_bytes);

        check_records(&header, exact);
        check_encoding(exact, header.original_bytes);
        free(exact);
    }
    free(raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    struct batch batch = {0};
    const uint8_t *bytes;
    size_t got;

    set_up();
    if (len_bytes < 1 + CFSR_BATCH_PREFIX_BYTES || len_bytes > INPUT_MAX)
        return 0;
    bytes = fuzz_bytes(&reader, CFSR_BATCH_PREFIX_BYTES, &got);
    memcpy(batch.prefix, bytes, sizeof batch.prefix);
    bytes = fuzz_bytes(&reader, cfsr_load_le16(batch.prefix + 82), &got);
    batch.extension = fuzz_copy(bytes, got);
    batch.extension_bytes = got;
    cfsr_store_le16(batch.prefix + 82, (uint16_t)got);
    take_body(&batch, &reader, switches);
    fix(&batch, switches);
    take(&batch);
    free(batch.extension);
    free(batch.body);
    return 0;
}

static void add(struct fuzz_corpus *corpus, const char *name, uint8_t switches, uint16_t holes)
{
    struct cfsr_batch_header header = {.lane = 3,
                                       .site_id = 1,
                                       .journal = pair.site[0].journal,
                                       .entry_count = 5,
                                       .hole_count = holes,
                                       .extension_bytes = (uint16_t)(holes * 16),
                                       .incarnation = 1,
                                       .prepared_at_us = 7};
    struct fuzz_seed seed = {0}, body = {0};
    struct fuzz_records records;
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];

    fuzz_records_init(&records, &pair.site[0], 1, &pair.site[0].journal, 3);
    fuzz_records_shards(&records, &body);
    fuzz_records_mark(&records, &body, 0);
    for (unsigned i = 0; i < 5; i++)
        fuzz_records_entry(&records, &body, i * 30);
    header.lsn_to = records.lsn;
    if ((switches & RECORDS) == 0) {
        uint8_t *stored = malloc(body.len_bytes);

        FUZZ_CHECK(stored != NULL);
        FUZZ_CHECK(cfsr_batch_encode(codec_of(switches), body.data, (uint32_t)body.len_bytes,
                                     stored, (uint32_t)body.len_bytes, &header) == 0);
        free(body.data);
        body = (struct fuzz_seed){.data = stored, .len_bytes = header.stored_bytes};
    }
    cfsr_batch_header_store(&header, prefix);
    fuzz_seed_u8(&seed, switches);
    fuzz_seed_bytes(&seed, prefix, sizeof prefix);
    for (uint16_t i = 0; i < holes; i++) {
        fuzz_seed_u64(&seed, 16ull * i);
        fuzz_seed_u64(&seed, 16ull * i + 8);
    }
    fuzz_seed_bytes(&seed, body.data, body.len_bytes);
    free(body.data);
    fuzz_seed_end(&seed, corpus, name);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    set_up();
    add(corpus, "records-lz4", RECORDS | SEAL | FIX_BODY | SIGN, 0);
    add(corpus, "records-zstd", RECORDS | SEAL | FIX_BODY | SIGN | ZSTD, 2);
    add(corpus, "records-plain", RECORDS | SEAL | FIX_BODY | SIGN | PLAIN, 0);
    add(corpus, "body-lz4", FIX_BODY | SIGN, 0);
    add(corpus, "body-zstd", FIX_BODY | SIGN | ZSTD, 0);
    add(corpus, "body-unsigned", ZSTD, 1);
}
