/*
 * stages_pipeline.c - stages in memory: codecs, digests and tags, whole batches.
 *
 * Codecs and batches are measured through src/pipeline, as the daemon calls them; HMAC over the
 * body, which the product replaces by digest and tag, through src/security's mac.
 */
#include "bench/stages.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"

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
