/* test_compression.c - the compression cases of the feature contract, under their names. */
#include <cfsrepl/error.h>

#include "fixture.h"

#define ENTRIES     100
#define ENTRIES_LEN (ENTRIES * RECORD_LEN_BYTES)

static uint8_t raw[ENTRIES_LEN];
static uint8_t body[ENTRIES_LEN];
static uint8_t back[ENTRIES_LEN];

/* Encodes `count` records with the codec, decodes them, compares; returns the header. */
static struct cfsr_batch_header roundtrip(const char *codec_text, unsigned count)
{
    struct cfsr_batch_codec *codec = make_codec(codec_text);
    struct cfsr_batch_header header = make_header();
    uint32_t len_bytes = make_records(raw, count);

    memset(back, 0xff, sizeof back);
    cr_assert_eq(cfsr_batch_encode(codec, raw, len_bytes, body, len_bytes, &header), 0);
    cr_assert_eq(header.original_bytes, len_bytes);
    cr_assert_eq(cfsr_batch_check_body(codec, &header, body), 0);
    cr_assert_eq(cfsr_batch_decode(codec, &header, body, back, sizeof back), 0);
    cr_assert_arr_eq(back, raw, len_bytes);
    cfsr_batch_codec_destroy(codec);
    return header;
}

/* The same for bare bytes; returns what the compressor said. */
static struct cfsr_codec_result roundtrip_bytes(const char *codec_text, const void *data,
                                                uint32_t len_bytes)
{
    struct cfsr_codec_config config;
    struct cfsr_codec_result result;
    struct cfsr_compressor *compressor;
    struct cfsr_decompressor *decompressor;

    cr_assert_eq(cfsr_codec_config_parse(codec_text, &config), 0);
    cr_assert_eq(cfsr_compressor_create(&config, &compressor), 0);
    cr_assert_eq(cfsr_decompressor_create(&decompressor), 0);
    cr_assert_eq(cfsr_compress(compressor, data, len_bytes, body, sizeof body, &result), 0);
    cr_assert_eq(cfsr_decompress(decompressor, result.codec, body, result.len_bytes, len_bytes,
                                 back, sizeof back),
                 0);
    cr_assert_arr_eq(back, data, len_bytes);
    cfsr_decompressor_destroy(decompressor);
    cfsr_compressor_destroy(compressor);
    return result;
}

Test(compression, algo_default_is_lz4)
{
    struct cfsr_codec_config config;

    cr_assert_eq(CFSR_CODEC_DEFAULT, CFSR_CODEC_LZ4);
    cfsr_codec_config_default(&config);
    cr_assert_eq(config.codec, CFSR_CODEC_LZ4);
}

Test(compression, algo_is_compressed_none_false)
{
    cr_assert_not(cfsr_codec_is_compressed(CFSR_CODEC_NONE));
    cr_assert_str_eq(cfsr_codec_name(CFSR_CODEC_NONE), "none");
}

Test(compression, algo_is_compressed_lz4_true)
{
    cr_assert(cfsr_codec_is_compressed(CFSR_CODEC_LZ4));
    cr_assert(cfsr_codec_is_compressed(CFSR_CODEC_ZSTD));
    cr_assert_str_eq(cfsr_codec_name(CFSR_CODEC_LZ4), "lz4");
    cr_assert_str_eq(cfsr_codec_name(CFSR_CODEC_ZSTD), "zstd");
}

Test(compression, config_default)
{
    struct cfsr_codec_config config;

    cfsr_codec_config_default(&config);
    cr_assert_eq(config.level, 1);
    cr_assert_eq(config.min_compress_bytes, 256);
    cr_assert_eq(cfsr_codec_config_parse("zstd", &config), 0);
    cr_assert_eq(config.codec, CFSR_CODEC_ZSTD);
    cr_assert_eq(config.level, 3);
    cr_assert_eq(config.min_compress_bytes, 256);
}

Test(compression, compress_decompress_roundtrip_none)
{
    struct cfsr_batch_header header = roundtrip("none", 20);

    cr_assert_eq(header.codec, CFSR_CODEC_NONE);
    cr_assert_eq(header.stored_bytes, header.original_bytes);
    cr_assert_eq(header.level, 0);
}

Test(compression, compress_decompress_roundtrip_lz4)
{
    struct cfsr_batch_header header = roundtrip("lz4", 20);

    cr_assert_eq(header.codec, CFSR_CODEC_LZ4);
    cr_assert_lt(header.stored_bytes, header.original_bytes);
    cr_assert_eq(header.level, 1);
}

Test(compression, compress_decompress_roundtrip_zstd)
{
    struct cfsr_batch_header header = roundtrip("zstd", 20);

    cr_assert_eq(header.codec, CFSR_CODEC_ZSTD);
    cr_assert_lt(header.stored_bytes, header.original_bytes);
    cr_assert_eq(header.level, 3);
}

Test(compression, compress_small_batch_uses_none_algo)
{
    uint8_t small[CFSR_MIN_COMPRESS_BYTES] = {0};
    struct cfsr_batch_header header = roundtrip("lz4", 1);

    cr_assert_eq(header.codec, CFSR_CODEC_NONE);
    cr_assert_eq(roundtrip_bytes("zstd", small, 255).codec, CFSR_CODEC_NONE);
    cr_assert_eq(roundtrip_bytes("zstd", small, 256).codec, CFSR_CODEC_ZSTD);
}

Test(compression, batch_compression_ratio)
{
    struct cfsr_batch_header header = roundtrip("lz4", ENTRIES);

    cr_assert_gt(cfsr_codec_ratio(header.original_bytes, header.stored_bytes), 2.0);
    cr_assert_float_eq(cfsr_codec_ratio(1000, 250), 4.0, 1e-9);
    cr_assert_float_eq(cfsr_codec_ratio(0, 0), 1.0, 1e-9);
}

Test(compression, batch_is_beneficial_when_compressed)
{
    struct cfsr_batch_header header = roundtrip("lz4", ENTRIES);

    cr_assert(cfsr_codec_is_beneficial((enum cfsr_codec)header.codec, header.original_bytes,
                                       header.stored_bytes));
    cr_assert_not(cfsr_codec_is_beneficial(CFSR_CODEC_LZ4, 100, 100));
}

Test(compression, batch_is_beneficial_false_for_none)
{
    struct cfsr_batch_header header = roundtrip("none", ENTRIES);

    cr_assert_not(cfsr_codec_is_beneficial((enum cfsr_codec)header.codec, header.original_bytes,
                                           header.stored_bytes));
    cr_assert_not(cfsr_codec_is_beneficial(CFSR_CODEC_NONE, 100, 50));
}

Test(compression, compress_bytes_lz4_roundtrip)
{
    struct cfsr_codec_result result;

    memset(raw, 'a', sizeof raw);
    result = roundtrip_bytes("lz4", raw, sizeof raw);
    cr_assert_eq(result.codec, CFSR_CODEC_LZ4);
    cr_assert_lt(result.len_bytes, sizeof raw / 50);
}

Test(compression, compress_bytes_zstd_roundtrip)
{
    struct cfsr_codec_result result;

    memset(raw, 'a', sizeof raw);
    result = roundtrip_bytes("zstd", raw, sizeof raw);
    cr_assert_eq(result.codec, CFSR_CODEC_ZSTD);
    cr_assert_lt(result.len_bytes, sizeof raw / 50);
}

Test(compression, compress_bytes_none_passthrough)
{
    struct cfsr_codec_result result;

    cfsr_random_bytes(raw, sizeof raw);
    result = roundtrip_bytes("none", raw, sizeof raw);
    cr_assert_eq(result.codec, CFSR_CODEC_NONE);
    cr_assert_eq(result.len_bytes, sizeof raw);
    cr_assert_arr_eq(body, raw, sizeof raw);
    /* What does not shrink passes through as well. */
    cr_assert_eq(roundtrip_bytes("lz4", raw, sizeof raw).codec, CFSR_CODEC_NONE);
    cr_assert_eq(roundtrip_bytes("zstd", raw, sizeof raw).codec, CFSR_CODEC_NONE);
}

Test(compression, decompress_wrong_algo_returns_error)
{
    struct cfsr_batch_codec *codec = make_codec("lz4");
    struct cfsr_batch_header header = roundtrip("lz4", ENTRIES);

    header.codec = CFSR_CODEC_ZSTD;
    cr_assert_eq(cfsr_batch_decode(codec, &header, body, back, sizeof back), -CFSR_E_DECOMPRESS);
    header.codec = CFSR_CODEC_NONE;
    cr_assert_eq(cfsr_batch_decode(codec, &header, body, back, sizeof back), -CFSR_E_DECOMPRESS);
    header.codec = 7;
    cr_assert_eq(cfsr_batch_decode(codec, &header, body, back, sizeof back), -CFSR_E_CODEC);
    header = roundtrip("zstd", ENTRIES);
    header.codec = CFSR_CODEC_LZ4;
    cr_assert_lt(cfsr_batch_decode(codec, &header, body, back, sizeof back), 0);
    cfsr_batch_codec_destroy(codec);
}

Test(compression, config_custom_zstd_level)
{
    struct cfsr_codec_config config;

    cr_assert_eq(cfsr_codec_config_parse("zstd:9", &config), 0);
    cr_assert_eq(config.level, 9);
    cr_assert_eq(roundtrip("zstd:9", ENTRIES).level, 9);
    cr_assert_eq(cfsr_codec_config_parse("zstd:0", &config), 0);
    cr_assert_eq(config.level, 1);
    cr_assert_eq(cfsr_codec_config_parse("zstd:99999999999", &config), 0);
    cr_assert_eq(config.level, 22);
    cr_assert_eq(cfsr_codec_config_parse("lz4:70000", &config), 0);
    cr_assert_eq(config.level, 65537);
}

Test(compression, compress_large_batch_lz4)
{
    struct cfsr_batch_header header = roundtrip("lz4", ENTRIES);

    cr_assert_eq(header.codec, CFSR_CODEC_LZ4);
    cr_assert_lt(header.stored_bytes, ENTRIES_LEN / 2);
}

Test(compression, compress_large_batch_zstd)
{
    struct cfsr_batch_header header = roundtrip("zstd", ENTRIES);

    cr_assert_eq(header.codec, CFSR_CODEC_ZSTD);
    cr_assert_lt(header.stored_bytes, ENTRIES_LEN / 4);
}

Test(compression, compressor_config_accessor)
{
    struct cfsr_codec_config config = {
        .codec = CFSR_CODEC_ZSTD, .level = 40, .min_compress_bytes = 512};
    struct cfsr_compressor *compressor;

    cr_assert_eq(cfsr_compressor_create(&config, &compressor), 0);
    cr_assert_eq(cfsr_compressor_config(compressor)->codec, CFSR_CODEC_ZSTD);
    cr_assert_eq(cfsr_compressor_config(compressor)->level, 22);
    cr_assert_eq(cfsr_compressor_config(compressor)->min_compress_bytes, 512);
    cfsr_compressor_destroy(compressor);
    cfsr_compressor_destroy(NULL);
    cfsr_decompressor_destroy(NULL);
    config.codec = (enum cfsr_codec)9;
    cr_assert_eq(cfsr_compressor_create(&config, &compressor), -CFSR_E_CODEC);
}

Test(compression, batch_seq_preserved)
{
    struct cfsr_batch_header header = roundtrip("lz4", ENTRIES);
    struct cfsr_batch_header expected = make_header();

    cr_assert_eq(header.lsn_from, expected.lsn_from);
    cr_assert_eq(header.lsn_to, expected.lsn_to);
    for (unsigned i = 0; i < ENTRIES; i++)
        cr_assert_eq(cfsr_load_le64(back + (size_t)i * RECORD_LEN_BYTES + SEQ_AT), FIRST_SEQ + i);
}

Test(compression, batch_site_id_preserved)
{
    struct cfsr_batch_header header = roundtrip("zstd", ENTRIES);

    cr_assert_eq(header.site_id, SITE_ID);
    for (unsigned i = 0; i < ENTRIES; i++)
        cr_assert_eq(cfsr_load_le64(back + (size_t)i * RECORD_LEN_BYTES + SITE_AT), SITE_ID);
}

Test(compression, empty_entries_batch_compress_decompress)
{
    static const char *const codecs[] = {"none", "lz4", "zstd"};

    for (unsigned i = 0; i < 3; i++) {
        struct cfsr_batch_header header = roundtrip(codecs[i], 0);

        cr_assert_eq(header.codec, CFSR_CODEC_NONE);
        cr_assert_eq(header.original_bytes, 0);
        cr_assert_eq(header.stored_bytes, 0);
    }
}

Test(codec, config_texts_that_are_refused)
{
    static const char *const texts[] = {"",      "lz",     "lz4x",    "LZ4",  "zstd:",    "zstd:x",
                                        "none:", "none:1", "zstd:-5", "gzip", "zstd:3:4", ":3"};
    struct cfsr_codec_config config = {.level = 77};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(texts); i++) {
        cr_assert_eq(cfsr_codec_config_parse(texts[i], &config), -CFSR_E_CONFIG, "'%s'", texts[i]);
        cr_assert_eq(config.level, 77);
        cr_assert_str_neq(cfsr_error_message(), "");
    }
}

Test(codec, known_numbers)
{
    cr_assert(cfsr_codec_is_known(0) && cfsr_codec_is_known(1) && cfsr_codec_is_known(2));
    cr_assert_not(cfsr_codec_is_known(3));
    cr_assert_str_eq(cfsr_codec_name((enum cfsr_codec)3), "unknown");
}
