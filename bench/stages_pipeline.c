/*
 * stages_pipeline.c - stages in memory: codecs, digests and tags, sealing, whole batches.
 *
 * Codecs and batches are measured through src/pipeline, as the daemon calls them; HMAC over the
 * body, which the product replaces by digest and tag, through src/security's mac.
 */
#include "bench/stages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "repl/wire.h"
#include "security/aead.h"

struct codec_stage {
    struct cfsr_compressor *compressor;
    struct cfsr_decompressor *decompressor;
    enum cfsr_codec codec;
};

static int compress_block(struct stage_set *set, struct stage_block *block, void *context)
{
    struct codec_stage *stage = context;
    struct cfsr_codec_result result;
    int rc = cfsr_compress(stage->compressor, block->raw, block->raw_bytes, block->stored,
                           set->settings->block_bytes, &result);

    if (rc < 0)
        return rc;
    block->stored_bytes = result.len_bytes;
    return (int)block->raw_bytes;
}

static int decompress_block(struct stage_set *set, struct stage_block *block, void *context)
{
    struct codec_stage *stage = context;
    enum cfsr_codec codec = block->stored_bytes < block->raw_bytes ? stage->codec : CFSR_CODEC_NONE;
    int rc = cfsr_decompress(stage->decompressor, codec, block->stored, block->stored_bytes,
                             block->raw_bytes, set->scratch, CFSR_BATCH_BODY_MAX_BYTES);

    return rc < 0 ? rc : (int)block->raw_bytes;
}

static int run_codec(struct stage_set *set, const char *text)
{
    struct cfsr_codec_config config;
    struct codec_stage stage = {0};
    char name[64];
    int rc = cfsr_codec_config_parse(text, &config);

    stage.codec = config.codec;
    if (rc >= 0)
        rc = cfsr_compressor_create(&config, &stage.compressor);
    if (rc >= 0)
        rc = cfsr_decompressor_create(&stage.decompressor);
    snprintf(name, sizeof name, "%s compress", text);
    if (rc >= 0)
        rc = stage_measure(set, name, compress_block, &stage);
    snprintf(name, sizeof name, "%s decompress", text);
    if (rc >= 0)
        rc = stage_measure(set, name, decompress_block, &stage);
    if (rc >= 0) {
        uint64_t stored = 0;

        for (unsigned i = 0; i < set->count; i++)
            stored += set->blocks[i].stored_bytes;
        snprintf(name, sizeof name, "%s ratio, raw by stored", text);
        bench_report_value(set->report, name, "x", (double)set->raw_bytes / (double)stored);
        set->stored_bytes = stored;
    }
    cfsr_compressor_destroy(stage.compressor);
    cfsr_decompressor_destroy(stage.decompressor);
    return rc;
}

int stage_run_codecs(struct stage_set *set)
{
    static const char *const codecs[] = {"zstd:1", "zstd:3", "zstd:9", "lz4"};
    int first_rc = 0;

    bench_report_section(set->report, "stages: codecs", "per raw byte; one thread");
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(codecs); i++) {
        int rc = run_codec(set, codecs[i]);

        if (rc >= 0)
            continue;
        bench_report_text(set->report, codecs[i], cfsr_error_message());
        first_rc = first_rc < 0 ? first_rc : rc;
    }
    return first_rc;
}

static int digest_block(struct stage_set *set, struct stage_block *block, void *context)
{
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];

    (void)set;
    cfsr_digest_body(context, block->stored, block->stored_bytes, digest);
    return (int)block->stored_bytes;
}

static int hmac_block(struct stage_set *set, struct stage_block *block, void *context)
{
    struct cfsr_mac_part part = {.data = block->stored, .len_bytes = block->stored_bytes};
    uint8_t tag[CFSR_TAG_LEN_BYTES];

    (void)set;
    cfsr_mac_compute(context, &part, 1, tag);
    return (int)block->stored_bytes;
}

int stage_run_signing(struct stage_set *set)
{
    static const uint8_t secret[CFSR_KEY_LEN_BYTES] = {1};
    struct cfsr_mac_key *key = NULL;
    struct cfsr_digest *digest = NULL;
    int rc = cfsr_mac_key_create(secret, &key);

    bench_report_section(set->report, "stages: signing", "per byte of LZ4 output; one thread");
    if (rc >= 0)
        rc = cfsr_digest_create(&digest);
    if (rc >= 0)
        rc = stage_measure(set, "HMAC-SHA256 of the body", hmac_block, key);
    if (rc >= 0 && cfsr_digest_use_multibuffer(digest, true))
        rc = stage_measure(set, "body digest, many chunks at once", digest_block, digest);
    if (rc >= 0) {
        (void)cfsr_digest_use_multibuffer(digest, false);
        rc = stage_measure(set, "body digest, one chunk at a time", digest_block, digest);
    }
    cfsr_digest_destroy(digest);
    cfsr_mac_key_destroy(key);
    return rc;
}

/* Bodies of one size, cut from the blocks. */
struct seal_stage {
    struct cfsr_aead_key *seals, *opens;
    uint32_t body_bytes; /* 0: whole blocks */
    uint64_t link_seq;
    uint8_t head[CFSR_LINK_SIGNED_BYTES + CFSR_BATCH_PREFIX_BYTES];
    uint8_t (*tags)[2][CFSR_AEAD_TAG_LEN_BYTES]; /* of each body, there and back */
    size_t next_tag;
    unsigned way;
};

static void seal_body(struct seal_stage *stage, uint64_t link_seq, const uint8_t *body,
                      uint32_t len_bytes, uint8_t *out, uint8_t tag[CFSR_AEAD_TAG_LEN_BYTES])
{
    const struct cfsr_mac_part part = {stage->head, sizeof stage->head};
    uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES] = {0};

    cfsr_store_le64(nonce + sizeof nonce - 8, link_seq);
    cfsr_aead_seal(stage->seals, nonce, &part, 1, body, len_bytes, out, tag);
}

static int seal_bodies(struct stage_set *set, struct stage_block *block, void *context)
{
    struct seal_stage *stage = context;
    uint32_t len = stage->body_bytes != 0 ? stage->body_bytes : block->raw_bytes;
    uint8_t tag[CFSR_AEAD_TAG_LEN_BYTES];
    uint32_t at;

    for (at = 0; at + len <= block->raw_bytes; at += len)
        seal_body(stage, ++stage->link_seq, block->raw + at, len, set->scratch, tag);
    return (int)at;
}

/*
 * Opening is done in place, and what is opened cannot be opened again; but in counter mode it is a
 * ciphertext itself, of the first one. So each body has two tags, and goes there and back.
 */
static int prepare_open(struct stage_set *set, struct seal_stage *stage)
{
    size_t bodies = 0;

    for (unsigned i = 0; i < set->count; i++)
        bodies += stage->body_bytes != 0 ? set->blocks[i].raw_bytes / stage->body_bytes : 1;
    free(stage->tags);
    stage->tags = calloc(bodies, sizeof *stage->tags);
    if (stage->tags == NULL)
        return cfsr_fail(-ENOMEM, "no memory for %zu tags", bodies);
    bodies = 0;
    for (unsigned i = 0; i < set->count; i++) {
        struct stage_block *block = &set->blocks[i];
        uint32_t len = stage->body_bytes != 0 ? stage->body_bytes : block->raw_bytes;

        for (uint32_t at = 0; at + len <= block->raw_bytes; at += len, bodies++) {
            seal_body(stage, 0, block->raw + at, len, block->stored + at, stage->tags[bodies][0]);
            seal_body(stage, 0, block->stored + at, len, set->scratch, stage->tags[bodies][1]);
        }
    }
    stage->next_tag = 0;
    stage->way = 1;
    return 0;
}

static int open_bodies(struct stage_set *set, struct stage_block *block, void *context)
{
    struct seal_stage *stage = context;
    const struct cfsr_mac_part part = {stage->head, sizeof stage->head};
    const uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES] = {0};
    uint32_t len = stage->body_bytes != 0 ? stage->body_bytes : block->raw_bytes;
    uint32_t at;

    if (block == set->blocks) {
        stage->next_tag = 0;
        stage->way ^= 1;
    }
    for (at = 0; at + len <= block->raw_bytes; at += len)
        if (!cfsr_aead_open(stage->opens, nonce, &part, 1, block->stored + at, len,
                            stage->tags[stage->next_tag++][stage->way]))
            return cfsr_fail(-CFSR_E_BAD_LINK_TAG, "a sealed body does not open");
    return (int)at;
}

int stage_run_sealing(struct stage_set *set)
{
    static const uint32_t sizes[] = {4u << 10, 16u << 10, 64u << 10, 0};
    static const uint8_t secret[CFSR_KEY_LEN_BYTES] = {3};
    struct seal_stage stage = {0};
    char name[64];
    int rc = cfsr_aead_key_create(CFSR_AEAD_SEALS, secret, &stage.seals);

    bench_report_section(set->report, "stages: sealing",
                         "AES-256-GCM, per byte of the body, 224 bytes bound to it; one thread");
    if (rc >= 0)
        rc = cfsr_aead_key_create(CFSR_AEAD_OPENS, secret, &stage.opens);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(sizes) && rc >= 0; i++) {
        uint32_t shown_bytes = sizes[i] != 0 ? sizes[i] : set->settings->block_bytes;

        if (shown_bytes > set->settings->block_bytes)
            continue;
        stage.body_bytes = sizes[i];
        snprintf(name, sizeof name, "seal, bodies of %u KiB", shown_bytes >> 10);
        rc = stage_measure(set, name, seal_bodies, &stage);
        if (rc >= 0)
            rc = prepare_open(set, &stage);
        snprintf(name, sizeof name, "open, bodies of %u KiB", shown_bytes >> 10);
        if (rc >= 0)
            rc = stage_measure(set, name, open_bodies, &stage);
    }
    free(stage.tags);
    cfsr_aead_key_destroy(stage.seals);
    cfsr_aead_key_destroy(stage.opens);
    return rc;
}

struct batch_stage {
    struct cfsr_batch_codec *codec;
    struct cfsr_mac_key *key;
};

/* Scan, compress, digest, sign: what the sender does between read and send. */
static int encode_block(struct stage_set *set, struct stage_block *block, void *context)
{
    struct batch_stage *stage = context;
    struct cfsr_batch_header header = {.site_id = set->corpus->site.site_id,
                                       .journal = set->corpus->site.journal,
                                       .lane = (uint16_t)block->place.lane,
                                       .encode_class = 1,
                                       .incarnation = 1};
    struct cfsr_scan scan;
    int rc;

    bench_corpus_scan_init(set->corpus, &block->place, block->raw, &scan);
    rc = cfsr_record_scan(&scan);
    if (rc < 0)
        return rc;
    header.lsn_from = block->place.lsn;
    header.lsn_to = scan.next_lsn;
    header.entry_count = scan.entry_count;
    header.prepared_at_us = cfsr_clock_wall_us();
    rc = cfsr_batch_encode(stage->codec, block->raw, block->raw_bytes, block->stored,
                           set->settings->block_bytes, &header);
    if (rc < 0)
        return rc;
    block->stored_bytes = header.stored_bytes;
    cfsr_batch_header_store(&header, block->prefix);
    cfsr_batch_sign(stage->key, 1, block->prefix, NULL, 0);
    return (int)block->raw_bytes;
}

/* Tag, bounds, digest, decompress, scan: what the receiver does between receive and write. */
static int decode_block(struct stage_set *set, struct stage_block *block, void *context)
{
    struct batch_stage *stage = context;
    struct cfsr_batch_header header;
    struct cfsr_scan scan;
    int rc = cfsr_batch_header_load(block->prefix, &header);

    if (rc >= 0)
        rc = cfsr_batch_check_tag(stage->key, block->prefix, NULL, 0);
    if (rc >= 0)
        rc = cfsr_batch_check_body(stage->codec, &header, block->stored);
    if (rc >= 0)
        rc = cfsr_batch_decode(stage->codec, &header, block->stored, set->scratch,
                               CFSR_BATCH_BODY_MAX_BYTES);
    if (rc < 0)
        return rc;
    bench_corpus_scan_init(set->corpus, &block->place, set->scratch, &scan);
    scan.wire_form = true;
    rc = cfsr_record_scan(&scan);
    return rc < 0 ? rc : (int)block->raw_bytes;
}

int stage_run_batches(struct stage_set *set)
{
    static const uint8_t secret[CFSR_KEY_LEN_BYTES] = {2};
    struct cfsr_codec_config config;
    struct batch_stage stage = {0};
    int rc;

    cfsr_codec_config_default(&config);
    bench_report_section(set->report, "stages: batches",
                         "per raw byte; one thread; all that sender and receiver do in memory");
    rc = cfsr_batch_codec_create(&config, &stage.codec);
    if (rc >= 0)
        rc = cfsr_mac_key_create(secret, &stage.key);
    if (rc >= 0)
        rc = stage_measure(set, "encode: scan, LZ4, digest, tag", encode_block, &stage);
    if (rc >= 0)
        rc = stage_measure(set, "decode: tag, digest, LZ4, scan", decode_block, &stage);
    cfsr_mac_key_destroy(stage.key);
    cfsr_batch_codec_destroy(stage.codec);
    return rc;
}
