/*
 * codec_zstd.c - Zstd with memory that never changes after creation.
 *
 * Thread: an object belongs to one thread.
 * Invariants: exactly one frame, with its content size in the header, no dictionary, nothing behind
 * it.
 *
 * Why static contexts (a part of zstd.h that is not yet promised to be stable): an ordinary
 * ZSTD_CCtx grows at the first larger input and shrinks after 128 inputs in a row that need less
 * than a third of it, which is malloc and free in the middle of traffic. A static context does
 * neither. Its size is asked from the library for the level at the largest input and at the borders
 * of the library's parameter tables, and the workspace is ours.
 */
#define ZSTD_STATIC_LINKING_ONLY

#include "pipeline/codec_zstd.h"

#include <errno.h>
#include <stdlib.h>

#include <zstd.h>
#include <zstd_errors.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "pipeline/codec.h"

/* No frame of ours needs more; for a single-segment frame the window is the content. */
#define WINDOW_MAX_BYTES (2u << 20)

struct cfsr_zstd_compressor {
    void *workspace;
    ZSTD_CCtx *context; /* inside workspace */
};

struct cfsr_zstd_decompressor {
    void *workspace;
    ZSTD_DCtx *context; /* inside workspace */
};

static size_t workspace_bytes(int level)
{
    /* Parameters change at these input sizes and only shrink between them. */
    static const unsigned borders[] = {16u << 10, 128u << 10, 256u << 10,
                                       CFSR_CODEC_INPUT_MAX_BYTES};
    size_t most = 0;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(borders); i++) {
        ZSTD_compressionParameters parameters = ZSTD_getCParams(level, borders[i], 0);

        most = cfsr_max_u64(most, ZSTD_estimateCCtxSize_usingCParams(parameters));
    }
    return most;
}

int cfsr_zstd_compressor_create(int level, struct cfsr_zstd_compressor **compressor_out)
{
    const size_t len_bytes = workspace_bytes(level);
    struct cfsr_zstd_compressor *compressor;
    size_t rc;

    compressor = calloc(1, sizeof *compressor);
    if (compressor == NULL)
        goto no_memory;
    compressor->workspace = malloc(len_bytes);
    if (compressor->workspace == NULL)
        goto free_compressor;
    compressor->context = ZSTD_initStaticCCtx(compressor->workspace, len_bytes);
    CFSR_ASSERT(compressor->context != NULL);
    /* A static context begins with all parameters 0, not with the defaults: no content size in the
     * frames. */
    rc = ZSTD_CCtx_reset(compressor->context, ZSTD_reset_session_and_parameters);
    CFSR_ASSERT(!ZSTD_isError(rc));
    rc = ZSTD_CCtx_setParameter(compressor->context, ZSTD_c_compressionLevel, level);
    CFSR_ASSERT(!ZSTD_isError(rc));
    *compressor_out = compressor;
    return 0;

free_compressor:
    free(compressor);
no_memory:
    return cfsr_fail(-ENOMEM, "no memory for Zstd level %d (%zu bytes): choose a lower level",
                     level, len_bytes);
}

void cfsr_zstd_compressor_destroy(struct cfsr_zstd_compressor *compressor)
{
    if (compressor == NULL)
        return;
    free(compressor->workspace);
    free(compressor);
}

size_t cfsr_zstd_compress(struct cfsr_zstd_compressor *compressor, const void *data,
                          uint32_t len_bytes, void *out, uint32_t capacity_bytes)
{
    size_t put = ZSTD_compress2(compressor->context, out, capacity_bytes, data, len_bytes);

    return ZSTD_isError(put) ? 0 : put;
}

int cfsr_zstd_decompressor_create(struct cfsr_zstd_decompressor **decompressor_out)
{
    const size_t len_bytes = ZSTD_estimateDCtxSize();
    struct cfsr_zstd_decompressor *decompressor;

    decompressor = calloc(1, sizeof *decompressor);
    if (decompressor == NULL)
        goto no_memory;
    decompressor->workspace = malloc(len_bytes);
    if (decompressor->workspace == NULL)
        goto free_decompressor;
    decompressor->context = ZSTD_initStaticDCtx(decompressor->workspace, len_bytes);
    CFSR_ASSERT(decompressor->context != NULL);
    *decompressor_out = decompressor;
    return 0;

free_decompressor:
    free(decompressor);
no_memory:
    return cfsr_fail(-ENOMEM, "no memory for a Zstd decompressor");
}

void cfsr_zstd_decompressor_destroy(struct cfsr_zstd_decompressor *decompressor)
{
    if (decompressor == NULL)
        return;
    free(decompressor->workspace);
    free(decompressor);
}

/* Everything that can be known before a byte is decompressed. */
static int check_frame(const void *data, uint32_t len_bytes, uint32_t original_bytes)
{
    ZSTD_frameHeader header;

    /* First, so that formats of old versions, which may allocate, are never tried. */
    if (len_bytes < sizeof(uint32_t) || cfsr_load_le32(data) != ZSTD_MAGICNUMBER)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "not a Zstd frame");
    if (ZSTD_getFrameHeader(&header, data, len_bytes) != 0)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "Zstd frame header is damaged or cut");
    if (header.frameContentSize == ZSTD_CONTENTSIZE_UNKNOWN)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "Zstd frame does not say its size");
    if (header.frameContentSize > original_bytes)
        return cfsr_fail(-CFSR_E_BOMB, "Zstd frame holds %llu bytes, declared are %u",
                         header.frameContentSize, original_bytes);
    if (header.frameContentSize < original_bytes)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "Zstd frame holds %llu bytes, declared are %u",
                         header.frameContentSize, original_bytes);
    if (header.windowSize > WINDOW_MAX_BYTES || header.dictID != 0)
        return cfsr_fail(-CFSR_E_DECOMPRESS,
                         "Zstd frame asks for a dictionary or a %llu byte window",
                         header.windowSize);
    if (ZSTD_findFrameCompressedSize(data, len_bytes) != len_bytes)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "Zstd frame is damaged, cut, or not alone");
    return 0;
}

int cfsr_zstd_decompress(struct cfsr_zstd_decompressor *decompressor, const void *data,
                         uint32_t len_bytes, void *out, uint32_t original_bytes)
{
    size_t got;
    int rc;

    rc = check_frame(data, len_bytes, original_bytes);
    if (rc < 0)
        return rc;
    got = ZSTD_decompressDCtx(decompressor->context, out, original_bytes, data, len_bytes);
    if (ZSTD_isError(got) && ZSTD_getErrorCode(got) == ZSTD_error_dstSize_tooSmall)
        return cfsr_fail(-CFSR_E_BOMB, "Zstd blocks hold more than the declared %u bytes",
                         original_bytes);
    if (ZSTD_isError(got) || got != original_bytes)
        return cfsr_fail(-CFSR_E_DECOMPRESS, "Zstd frame is damaged: %s",
                         ZSTD_isError(got) ? ZSTD_getErrorName(got) : "wrong size");
    return 0;
}
