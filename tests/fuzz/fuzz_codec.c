/*
 * fuzz_codec.c - bounded decompression of a stored body; FUZZ_CODEC chooses LZ4 or Zstd.
 *
 * Input: u8 switches (1: the bytes are what is to be compressed, else a compressed body), u24
 * declared size, the bytes.
 *
 * Properties: never a byte beyond the declared size, whatever the body says; success means exactly
 * the declared size; what was decompressed can be compressed and comes back the same; the context
 * is as good as new after an error.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "pipeline/codec.h"

enum {
    DECLARED_MAX = 1 << 18,
    GUARD_BYTES = 64,
    GUARD = 0xa5
};

static struct cfsr_compressor *compressor;
static struct cfsr_decompressor *decompressor;

static void set_up(void)
{
    struct cfsr_codec_config config;

    if (compressor != NULL)
        return;
    cfsr_codec_config_default(&config);
    config.codec = FUZZ_CODEC;
    config.min_compress_bytes = 1;
    FUZZ_CHECK(cfsr_compressor_create(&config, &compressor) == 0);
    FUZZ_CHECK(cfsr_decompressor_create(&decompressor) == 0);
}

/* Compresses and decompresses: the same bytes. */
static void round_trip(const uint8_t *raw, uint32_t len_bytes)
{
    struct cfsr_codec_result result;
    uint8_t *stored = malloc(len_bytes + 1u), *again = malloc(len_bytes + 1u);

    FUZZ_CHECK(stored != NULL && again != NULL);
    FUZZ_CHECK(cfsr_compress(compressor, raw, len_bytes, stored, len_bytes, &result) == 0);
    FUZZ_CHECK(result.len_bytes <= len_bytes);
    FUZZ_CHECK(result.codec == CFSR_CODEC_NONE ? result.len_bytes == len_bytes
                                               : result.len_bytes < len_bytes);
    FUZZ_CHECK(cfsr_decompress(decompressor, result.codec, stored, result.len_bytes, len_bytes,
                               again, len_bytes) == 0);
    FUZZ_CHECK(len_bytes == 0 || memcmp(raw, again, len_bytes) == 0);
    free(stored);
    free(again);
}

static void decompress(const uint8_t *body, uint32_t len_bytes, uint32_t declared)
{
    uint8_t *out = malloc((size_t)declared + GUARD_BYTES);
    int rc;

    FUZZ_CHECK(out != NULL);
    memset(out, GUARD, (size_t)declared + GUARD_BYTES);
    rc = cfsr_decompress(decompressor, FUZZ_CODEC, body, len_bytes, declared, out,
                         declared + GUARD_BYTES);
    for (unsigned i = 0; i < GUARD_BYTES; i++)
        FUZZ_CHECK(out[declared + i] == GUARD);
    FUZZ_CHECK(rc == 0 || rc == -CFSR_E_DECOMPRESS || rc == -CFSR_E_BOMB);
    if (declared > 0)
        FUZZ_CHECK(cfsr_decompress(decompressor, FUZZ_CODEC, body, len_bytes, declared, out,
                                   declared - 1) == -CFSR_E_TOO_LARGE);
    if (rc == 0)
        round_trip(out, declared);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    uint32_t declared = fuzz_u16(&reader);

    set_up();
    declared |= (uint32_t)fuzz_u8(&reader) << 16;
    if (reader.left > DECLARED_MAX)
        return 0;
    uint8_t *copy = fuzz_copy(reader.at, reader.left);
    if ((switches & 1) != 0)
        round_trip(copy, (uint32_t)reader.left);
    else
        decompress(copy, (uint32_t)reader.left, declared % DECLARED_MAX);
    free(copy);
    return 0;
}

static void add(struct fuzz_corpus *corpus, const char *name, const uint8_t *raw,
                uint32_t raw_bytes, uint32_t declared)
{
    static uint8_t stored[DECLARED_MAX];
    struct cfsr_codec_result result;
    struct fuzz_seed seed = {0};

    FUZZ_CHECK(cfsr_compress(compressor, raw, raw_bytes, stored, sizeof stored, &result) == 0);
    fuzz_seed_u8(&seed, 0);
    fuzz_seed_u16(&seed, (uint16_t)declared);
    fuzz_seed_u8(&seed, (uint8_t)(declared >> 16));
    fuzz_seed_bytes(&seed, stored, result.len_bytes);
    fuzz_seed_end(&seed, corpus, name);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    static uint8_t raw[70000];
    static const uint8_t text[] = {1, 0, 0, 0, 'a', 'b', 'c', 'a', 'b', 'c', 'a', 'b', 'c', 'a'};
    uint64_t random = 1;

    set_up();
    for (uint32_t i = 0; i < sizeof raw; i++)
        raw[i] = (uint8_t)(i % 97 < 60 ? i / 97 : fuzz_random(&random));
    add(corpus, "mixed", raw, 3000, 3000);
    add(corpus, "shorter-than-declared", raw, 3000, 3001);
    add(corpus, "longer-than-declared", raw, 3000, 2999);
    add(corpus, "two-blocks", raw, sizeof raw, sizeof raw);
    memset(raw, 0, sizeof raw);
    add(corpus, "zeros", raw, sizeof raw, sizeof raw);
    add(corpus, "bomb", raw, sizeof raw, 100);
    fuzz_corpus_add(corpus, "to-compress", text, sizeof text);
}
