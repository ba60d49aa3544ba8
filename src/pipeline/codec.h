/*
 * codec.h - compression of batch bodies: none, LZ4 (block format), Zstd.
 *
 * One compressor context per core, made once; no allocation per call. Inputs below
 * min_compress_bytes, and inputs that do not shrink, are stored raw (codec none). Decompression is
 * bounded by the declared size: output never exceeds it, and anything but exactly that size is an
 * error.
 */
#ifndef CFSR_PIPELINE_CODEC_H
#define CFSR_PIPELINE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers are on the wire and on disk. */
enum cfsr_codec {
    CFSR_CODEC_NONE = 0,
    CFSR_CODEC_LZ4 = 1,
    CFSR_CODEC_ZSTD = 2
};
#define CFSR_CODEC_DEFAULT      CFSR_CODEC_LZ4
#define CFSR_ZSTD_LEVEL_DEFAULT 3
#define CFSR_ZSTD_LEVEL_MIN     1
#define CFSR_ZSTD_LEVEL_MAX     22
#define CFSR_MIN_COMPRESS_BYTES 256
/* Largest raw input: one maximal record (1 MiB payload, 48-byte header), or batch_bytes up to this.
 */
#define CFSR_CODEC_INPUT_MAX_BYTES ((1u << 20) + (64u << 10))

struct cfsr_codec_config {
    enum cfsr_codec codec;
    int level; /* Zstd: clamped to 1–22; LZ4: acceleration, clamped to 1–65537, default 1 */
    uint32_t min_compress_bytes; /* below it the input is stored raw */
};

struct cfsr_codec_result {
    enum cfsr_codec codec; /* what was really used */
    uint32_t len_bytes;    /* bytes written to the output */
};

struct cfsr_compressor;
struct cfsr_decompressor;

/* The defaults: LZ4, level 1 (LZ4) or 3 (Zstd), 256 bytes. */
void cfsr_codec_config_default(struct cfsr_codec_config *config_out);
/* "lz4", "lz4:ACCELERATION", "zstd", "zstd:LEVEL", "none". Sets every field: min_compress_bytes to
 * its default, a level out of range to the nearest one. -CFSR_E_CONFIG with message. */
int cfsr_codec_config_parse(const char *text, struct cfsr_codec_config *config_out);
const char *cfsr_codec_name(enum cfsr_codec codec); /* "none", "lz4", "zstd"; "unknown" otherwise */
bool cfsr_codec_is_known(unsigned codec);
bool cfsr_codec_is_compressed(enum cfsr_codec codec);
/* original / stored; 1.0 for an empty input. */
double cfsr_codec_ratio(uint64_t original_bytes, uint64_t stored_bytes);
/* True if storing compressed saves bytes. */
bool cfsr_codec_is_beneficial(enum cfsr_codec codec, uint64_t original_bytes,
                              uint64_t stored_bytes);

/* Both: -ENOMEM. The config is copied (level clamped). */
int cfsr_compressor_create(const struct cfsr_codec_config *config,
                           struct cfsr_compressor **compressor_out);
void cfsr_compressor_destroy(struct cfsr_compressor *compressor);
const struct cfsr_codec_config *cfsr_compressor_config(const struct cfsr_compressor *compressor);
/*
 * Compresses len_bytes (<= CFSR_CODEC_INPUT_MAX_BYTES) into out. capacity_bytes >= len_bytes is
 * enough: what does not fit is by definition not beneficial and is stored raw (copied).
 * -CFSR_E_TOO_LARGE for a larger input.
 */
int cfsr_compress(struct cfsr_compressor *compressor, const void *data, uint32_t len_bytes,
                  void *out, uint32_t capacity_bytes, struct cfsr_codec_result *result_out);

int cfsr_decompressor_create(struct cfsr_decompressor **decompressor_out);
void cfsr_decompressor_destroy(struct cfsr_decompressor *decompressor);
/*
 * Writes exactly original_bytes to out. -CFSR_E_CODEC unknown codec, -CFSR_E_TOO_LARGE declared
 * size over capacity, -CFSR_E_BOMB the data holds more than declared, -CFSR_E_DECOMPRESS damaged or
 * shorter than declared.
 */
int cfsr_decompress(struct cfsr_decompressor *decompressor, enum cfsr_codec codec, const void *data,
                    uint32_t len_bytes, uint32_t original_bytes, void *out,
                    uint32_t capacity_bytes);

#endif
