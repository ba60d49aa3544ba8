/*
 * codec.c - compression of batch bodies: choice, bounds, LZ4 block format; Zstd in codec_zstd.c.
 *
 * Thread: a compressor or decompressor belongs to one core. Owner: the core's batch codec.
 * Invariants: no allocation after creation; a result is never larger than its input; decompression
 * writes at most the declared size and succeeds only with exactly that size. Rejected: the LZ4
 * frame format (its own sizes and checksums, which the batch header and digest already give).
 */
#include "pipeline/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"
#include "pipeline/codec_zstd.h"

#define LZ4_ACCELERATION_DEFAULT 1
#define LZ4_ACCELERATION_MAX     65537

struct cfsr_compressor {
    struct cfsr_codec_config config;
    void *lz4_state;                   /* codec lz4 only */
    struct cfsr_zstd_compressor *zstd; /* codec zstd only */
};

struct cfsr_decompressor {
    struct cfsr_zstd_decompressor *zstd; /* LZ4 needs no state */
};

void cfsr_codec_config_default(struct cfsr_codec_config *config_out)
{
    config_out->codec = CFSR_CODEC_DEFAULT;
    config_out->level = LZ4_ACCELERATION_DEFAULT;
    config_out->min_compress_bytes = CFSR_MIN_COMPRESS_BYTES;
}

static int clamp_level(enum cfsr_codec codec, int64_t level)
{
    int64_t low = codec == CFSR_CODEC_ZSTD ? CFSR_ZSTD_LEVEL_MIN : LZ4_ACCELERATION_DEFAULT;
    int64_t high = codec == CFSR_CODEC_ZSTD ? CFSR_ZSTD_LEVEL_MAX : LZ4_ACCELERATION_MAX;

    if (codec == CFSR_CODEC_NONE)
        return 0;
    if (level < low)
        return (int)low;
    return (int)(level > high ? high : level);
}

int cfsr_codec_config_parse(const char *text, struct cfsr_codec_config *config_out)
{
    static const int default_levels[] = {
        [CFSR_CODEC_NONE] = 0,
        [CFSR_CODEC_LZ4] = LZ4_ACCELERATION_DEFAULT,
        [CFSR_CODEC_ZSTD] = CFSR_ZSTD_LEVEL_DEFAULT,
    };
    const size_t name_len = strcspn(text, ":");
    const char *level_text = text[name_len] == ':' ? text + name_len + 1 : NULL;
    struct cfsr_codec_config config;
    uint64_t level;
    unsigned codec;

    cfsr_codec_config_default(&config);
    for (codec = 0; codec < CFSR_ARRAY_LEN(default_levels); codec++) {
        const char *name = cfsr_codec_name((enum cfsr_codec)codec);

        if (strlen(name) == name_len && memcmp(name, text, name_len) == 0)
            break;
    }
    if (codec == CFSR_ARRAY_LEN(default_levels) || (codec == CFSR_CODEC_NONE && level_text != NULL))
        return cfsr_fail(
            -CFSR_E_CONFIG,
            "'%s' is no compression: write none, lz4, lz4:ACCELERATION, zstd or zstd:LEVEL", text);
    level = (uint64_t)default_levels[codec];
    if (level_text != NULL && cfsr_parse_u64(level_text, &level) < 0)
        return cfsr_fail(-CFSR_E_CONFIG, "'%s': the level is not a number (%s)", text,
                         codec == CFSR_CODEC_ZSTD ? "Zstd: 1 to 22"
                                                  : "LZ4 acceleration: 1 to 65537");
    config.codec = (enum cfsr_codec)codec;
    config.level = clamp_level(config.codec, (int64_t)cfsr_min_u64(level, INT32_MAX));
    *config_out = config;
    return 0;
}

const char *cfsr_codec_name(enum cfsr_codec codec)
{
    switch (codec) {
    case CFSR_CODEC_NONE: return "none";
    case CFSR_CODEC_LZ4: return "lz4";
    case CFSR_CODEC_ZSTD: return "zstd";
    }
    return "unknown";
}

bool cfsr_codec_is_known(unsigned codec)
{
    return codec <= CFSR_CODEC_ZSTD;
}

bool cfsr_codec_is_compressed(enum cfsr_codec codec)
{
    return codec == CFSR_CODEC_LZ4 || codec == CFSR_CODEC_ZSTD;
}

double cfsr_codec_ratio(uint64_t original_bytes, uint64_t stored_bytes)
{
    return stored_bytes == 0 ? 1.0 : (double)original_bytes / (double)stored_bytes;
}

bool cfsr_codec_is_beneficial(enum cfsr_codec codec, uint64_t original_bytes, uint64_t stored_bytes)
{
    return cfsr_codec_is_compressed(codec) && stored_bytes < original_bytes;
}

int cfsr_compressor_create(const struct cfsr_codec_config *config,
                           struct cfsr_compressor **compressor_out)
{
    struct cfsr_compressor *compressor;
    int rc;

    if (!cfsr_codec_is_known(config->codec))
        return cfsr_fail(-CFSR_E_CODEC, "compression algorithm %d is unknown", (int)config->codec);
    compressor = calloc(1, sizeof *compressor);
    if (compressor == NULL)
        return cfsr_fail(-ENOMEM, "no memory for a compressor");
    compressor->config = *config;
    compressor->config.level = clamp_level(config->codec, config->level);
    if (config->codec == CFSR_CODEC_LZ4) {
        compressor->lz4_state = malloc((size_t)LZ4_sizeofState());
        if (compressor->lz4_state == NULL) {
            rc = cfsr_fail(-ENOMEM, "no memory for an LZ4 state");
            goto free_compressor;
        }
    } else if (config->codec == CFSR_CODEC_ZSTD) {
        rc = cfsr_zstd_compressor_create(compressor->config.level, &compressor->zstd);
        if (rc < 0)
            goto free_compressor;
    }
    *compressor_out = compressor;
    return 0;

free_compressor:
    free(compressor);
    return rc;
}

void cfsr_compressor_destroy(struct cfsr_compressor *compressor)
{
    if (compressor == NULL)
        return;
    cfsr_zstd_compressor_destroy(compressor->zstd);
    free(compressor->lz4_state);
    free(compressor);
}

const struct cfsr_codec_config *cfsr_compressor_config(const struct cfsr_compressor *compressor)
{
    return &compressor->config;
}

/* Bytes written, 0 if the input did not fit into capacity_bytes. */
static size_t try_compress(struct cfsr_compressor *compressor, const void *data, uint32_t len_bytes,
                           void *out, uint32_t capacity_bytes)
{
    int put;

    switch (compressor->config.codec) {
    case CFSR_CODEC_NONE: return 0;
    case CFSR_CODEC_LZ4:
        put = LZ4_compress_fast_extState(compressor->lz4_state, data, out, (int)len_bytes,
                                         (int)capacity_bytes, compressor->config.level);
        return put > 0 ? (size_t)put : 0;
    case CFSR_CODEC_ZSTD:
        return cfsr_zstd_compress(compressor->zstd, data, len_bytes, out, capacity_bytes);
    }
    return 0;
}

int cfsr_compress(struct cfsr_compressor *compressor, const void *data, uint32_t len_bytes,
                  void *out, uint32_t capacity_bytes, struct cfsr_codec_result *result_out)
{
    const uint32_t usable = capacity_bytes < INT32_MAX ? capacity_bytes : INT32_MAX;
    size_t put = 0;

    if (len_bytes > CFSR_CODEC_INPUT_MAX_BYTES)
        return cfsr_fail(-CFSR_E_TOO_LARGE, "%u bytes to compress: at most %u", len_bytes,
                         CFSR_CODEC_INPUT_MAX_BYTES);
    if (capacity_bytes < len_bytes)
        return cfsr_fail(-CFSR_E_TOO_LARGE, "%u bytes may need as much room: there is %u",
                         len_bytes, capacity_bytes);
    if (len_bytes > 0 && len_bytes >= compressor->config.min_compress_bytes)
        put = try_compress(compressor, data, len_bytes, out, usable);
    if (put > 0 && put < len_bytes) {
        result_out->codec = compressor->config.codec;
        result_out->len_bytes = (uint32_t)put;
        return 0;
    }
    if (len_bytes > 0)
        memcpy(out, data, len_bytes);
    result_out->codec = CFSR_CODEC_NONE;
    result_out->len_bytes = len_bytes;
    return 0;
}

int cfsr_decompressor_create(struct cfsr_decompressor **decompressor_out)
{
    struct cfsr_decompressor *decompressor;
    int rc;

    decompressor = calloc(1, sizeof *decompressor);
    if (decompressor == NULL)
        return cfsr_fail(-ENOMEM, "no memory for a decompressor");
    rc = cfsr_zstd_decompressor_create(&decompressor->zstd);
    if (rc < 0) {
        free(decompressor);
        return rc;
    }
    *decompressor_out = decompressor;
    return 0;
}

void cfsr_decompressor_destroy(struct cfsr_decompressor *decompressor)
{
    if (decompressor == NULL)
        return;
    cfsr_zstd_decompressor_destroy(decompressor->zstd);
    free(decompressor);
}

static int copy_raw(const void *data, uint32_t len_bytes, void *out, uint32_t original_bytes)
{
    if (len_bytes > original_bytes)
        return cfsr_fail(-CFSR_E_BOMB, "%u raw bytes where %u are declared", len_bytes,
                         original_bytes);
    if (len_bytes < original_bytes)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "%u raw bytes where %u are declared", len_bytes,
                         original_bytes);
    if (len_bytes > 0)
        memcpy(out, data, len_bytes);
    return 0;
}

static int decompress_lz4(const void *data, uint32_t len_bytes, void *out, uint32_t original_bytes)
{
    int got = LZ4_decompress_safe(data, out, (int)len_bytes, (int)original_bytes);

    if (got == (int)original_bytes)
        return 0;
    if (got >= 0)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "LZ4 block holds %d bytes, declared are %u", got,
                         original_bytes);
    /*
     * The format does not say how much a block holds, and the error does not say why. A block that
     * is sound up to the declared size and goes on behind it holds more than declared; any other is
     * damaged.
     */
    got = LZ4_decompress_safe_partial(data, out, (int)len_bytes, (int)original_bytes,
                                      (int)original_bytes);
    if (got == (int)original_bytes)
        return cfsr_fail(-CFSR_E_BOMB, "LZ4 block holds more than the declared %u bytes",
                         original_bytes);
    return cfsr_fail(-CFSR_E_DECOMPRESS, "LZ4 block is damaged");
}

int cfsr_decompress(struct cfsr_decompressor *decompressor, enum cfsr_codec codec, const void *data,
                    uint32_t len_bytes, uint32_t original_bytes, void *out, uint32_t capacity_bytes)
{
    if (!cfsr_codec_is_known(codec))
        return cfsr_fail(-CFSR_E_CODEC, "compression algorithm %u is unknown", (unsigned)codec);
    if (original_bytes > capacity_bytes || original_bytes > INT32_MAX || len_bytes > INT32_MAX)
        return cfsr_fail(-CFSR_E_TOO_LARGE, "%u bytes declared, room for %u", original_bytes,
                         capacity_bytes);
    if (codec == CFSR_CODEC_NONE)
        return copy_raw(data, len_bytes, out, original_bytes);
    /* An empty input is always stored raw, so what is compressed is never empty on either side. */
    if (len_bytes == 0)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "no compressed bytes where %u are declared",
                         original_bytes);
    if (original_bytes == 0)
        return cfsr_fail(-CFSR_E_BOMB, "%u compressed bytes where nothing is declared", len_bytes);
    if (codec == CFSR_CODEC_LZ4)
        return decompress_lz4(data, len_bytes, out, original_bytes);
    return cfsr_zstd_decompress(decompressor->zstd, data, len_bytes, out, original_bytes);
}
