/* codec_zstd.h - the Zstd half of codec.c; internal to src/pipeline. */
#ifndef CFSR_PIPELINE_CODEC_ZSTD_H
#define CFSR_PIPELINE_CODEC_ZSTD_H

#include <stddef.h>
#include <stdint.h>

struct cfsr_zstd_compressor;
struct cfsr_zstd_decompressor;

int cfsr_zstd_compressor_create(int level,
                                struct cfsr_zstd_compressor **compressor_out); /* -ENOMEM */
void cfsr_zstd_compressor_destroy(struct cfsr_zstd_compressor *compressor);    /* NULL is fine */
/* Bytes written, or 0 if the result does not fit into capacity_bytes. */
size_t cfsr_zstd_compress(struct cfsr_zstd_compressor *compressor, const void *data,
                          uint32_t len_bytes, void *out, uint32_t capacity_bytes);

int cfsr_zstd_decompressor_create(struct cfsr_zstd_decompressor **decompressor_out); /* -ENOMEM */
void cfsr_zstd_decompressor_destroy(struct cfsr_zstd_decompressor *decompressor); /* NULL is fine */
/* 0, -CFSR_E_DECOMPRESS or -CFSR_E_BOMB; writes at most original_bytes. */
int cfsr_zstd_decompress(struct cfsr_zstd_decompressor *decompressor, const void *data,
                         uint32_t len_bytes, void *out, uint32_t original_bytes);

#endif
