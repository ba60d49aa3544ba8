/*
 * test_codec_hostile.c - decompression of lies, cuts and noise. Outputs are exact-size heap blocks,
 * so that a sanitizer sees a single byte too many; without one a canary behind the declared size
 * does.
 */
#include <cfsrepl/error.h>
#include <lz4.h>
#include <stdlib.h>
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "fixture.h"

#define RAW_LEN    40000u
#define PACKED_LEN 60000u

static uint8_t raw[RAW_LEN];
static uint8_t packed[PACKED_LEN];
static struct cfsr_decompressor *decompressor;

static void set_up(void)
{
    make_records(raw, RAW_LEN / RECORD_LEN_BYTES);
    cr_assert_eq(cfsr_decompressor_create(&decompressor), 0);
}

static void tear_down(void)
{
    cfsr_decompressor_destroy(decompressor);
}

TestSuite(codec_hostile, .init = set_up, .fini = tear_down);

static int expand(enum cfsr_codec codec, const void *data, uint32_t len_bytes, uint32_t declared)
{
    uint8_t *in = malloc(len_bytes > 0 ? len_bytes : 1);
    uint8_t *out = malloc(declared > 0 ? declared : 1);
    int rc;

    cr_assert(in != NULL && out != NULL);
    memcpy(in, data, len_bytes);
    rc = cfsr_decompress(decompressor, codec, in, len_bytes, declared, out, declared);
    if (rc == 0 && declared == RAW_LEN && codec != CFSR_CODEC_NONE)
        cr_assert_arr_eq(out, raw, RAW_LEN);
    free(out);
    free(in);
    return rc;
}

static uint32_t pack(enum cfsr_codec codec)
{
    if (codec == CFSR_CODEC_LZ4)
        return (uint32_t)LZ4_compress_default((char *)raw, (char *)packed, RAW_LEN, PACKED_LEN);
    return (uint32_t)ZSTD_compress(packed, PACKED_LEN, raw, RAW_LEN, 3);
}

static const enum cfsr_codec both[] = {CFSR_CODEC_LZ4, CFSR_CODEC_ZSTD};

Test(codec_hostile, sound_data_opens)
{
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(expand(both[i], packed, pack(both[i]), RAW_LEN), 0);
}

Test(codec_hostile, declared_smaller_is_a_bomb)
{
    static const uint32_t declared[] = {0, 1, 5, 13, 100, RAW_LEN / 2, RAW_LEN - 20, RAW_LEN - 1};

    for (unsigned i = 0; i < 2; i++) {
        uint32_t len_bytes = pack(both[i]);

        for (unsigned k = 0; k < CFSR_ARRAY_LEN(declared); k++)
            cr_assert_eq(expand(both[i], packed, len_bytes, declared[k]), -CFSR_E_BOMB,
                         "codec %u declared %u", i, declared[k]);
    }
}

Test(codec_hostile, declared_larger_is_damage)
{
    for (unsigned i = 0; i < 2; i++) {
        uint32_t len_bytes = pack(both[i]);

        cr_assert_eq(expand(both[i], packed, len_bytes, RAW_LEN + 1), -CFSR_E_DECOMPRESS);
        cr_assert_eq(expand(both[i], packed, len_bytes, 2 * RAW_LEN), -CFSR_E_DECOMPRESS);
    }
}

Test(codec_hostile, real_bombs_are_stopped)
{
    const uint32_t huge = 64u << 20;
    uint8_t *zeros = calloc(1, huge);
    uint8_t *bomb = malloc(1u << 20);
    int lz4_len;
    size_t zstd_len;

    cr_assert(zeros != NULL && bomb != NULL);
    lz4_len = LZ4_compress_default((char *)zeros, (char *)bomb, (int)huge, 1 << 20);
    cr_assert_gt(lz4_len, 0);
    cr_assert_eq(expand(CFSR_CODEC_LZ4, bomb, (uint32_t)lz4_len, 65536), -CFSR_E_BOMB);
    zstd_len = ZSTD_compress(bomb, 1u << 20, zeros, huge, 1);
    cr_assert_not(ZSTD_isError(zstd_len));
    cr_assert_eq(expand(CFSR_CODEC_ZSTD, bomb, (uint32_t)zstd_len, 65536), -CFSR_E_BOMB);
    free(bomb);
    free(zeros);
}

Test(codec_hostile, every_truncation_is_refused)
{
    for (unsigned i = 0; i < 2; i++) {
        uint32_t len_bytes = pack(both[i]);

        for (uint32_t cut = 0; cut < len_bytes; cut += cut < 64 || cut + 64 > len_bytes ? 1 : 37)
            cr_assert_eq(expand(both[i], packed, cut, RAW_LEN), -CFSR_E_DECOMPRESS, "cut %u", cut);
    }
}

Test(codec_hostile, trailing_bytes_are_refused)
{
    for (unsigned i = 0; i < 2; i++) {
        uint32_t len_bytes = pack(both[i]);

        memset(packed + len_bytes, 0, 8);
        cr_assert_lt(expand(both[i], packed, len_bytes + 1, RAW_LEN), 0);
        cr_assert_lt(expand(both[i], packed, len_bytes + 8, RAW_LEN), 0);
    }
}

Test(codec_hostile, flipped_bits_never_write_outside)
{
    for (unsigned i = 0; i < 2; i++) {
        uint32_t len_bytes = pack(both[i]);

        for (uint32_t at = 0; at < len_bytes; at += at < 32 ? 1 : 11) {
            uint8_t *out = malloc(RAW_LEN + 8);
            int rc;

            cr_assert_not_null(out);
            memset(out + RAW_LEN, 0x5a, 8);
            packed[at] ^= 0x44;
            rc = cfsr_decompress(decompressor, both[i], packed, len_bytes, RAW_LEN, out, RAW_LEN);
            packed[at] ^= 0x44;
            cr_assert(rc == 0 || rc == -CFSR_E_DECOMPRESS || rc == -CFSR_E_BOMB, "%d", rc);
            for (unsigned k = 0; k < 8; k++)
                cr_assert_eq(out[RAW_LEN + k], 0x5a);
            free(out);
        }
    }
}

Test(codec_hostile, random_garbage_never_crashes)
{
    uint8_t noise[600];

    for (unsigned round = 0; round < 20000; round++) {
        uint32_t numbers[2];
        uint32_t len_bytes;
        int rc;

        cfsr_random_bytes(noise, sizeof noise);
        cfsr_random_bytes(numbers, sizeof numbers);
        len_bytes = numbers[0] % sizeof noise;
        if (round % 2 == 0)
            memcpy(noise, "\x28\xb5\x2f\xfd", 4);
        rc = expand(both[round / 2 % 2], noise, len_bytes, numbers[1] % 5000);
        cr_assert(rc == 0 || rc == -CFSR_E_DECOMPRESS || rc == -CFSR_E_BOMB, "%d", rc);
    }
}

Test(codec_hostile, zstd_without_content_size_is_refused)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    size_t len_bytes;

    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    len_bytes = ZSTD_compress2(context, packed, PACKED_LEN, raw, RAW_LEN);
    cr_assert_not(ZSTD_isError(len_bytes));
    cr_assert_eq(expand(CFSR_CODEC_ZSTD, packed, (uint32_t)len_bytes, RAW_LEN), -CFSR_E_DECOMPRESS);
    ZSTD_freeCCtx(context);
}

Test(codec_hostile, zstd_two_frames_are_refused)
{
    size_t first = ZSTD_compress(packed, PACKED_LEN, raw, RAW_LEN / 2, 3);
    size_t second = ZSTD_compress(packed + first, PACKED_LEN - first, raw + RAW_LEN / 2,
                                  RAW_LEN / 2, 3);

    cr_assert_eq(expand(CFSR_CODEC_ZSTD, packed, (uint32_t)(first + second), RAW_LEN),
                 -CFSR_E_DECOMPRESS);
    cr_assert_eq(expand(CFSR_CODEC_ZSTD, packed, (uint32_t)(first + second), RAW_LEN / 2),
                 -CFSR_E_DECOMPRESS);
}

Test(codec_hostile, zstd_skippable_frames_are_refused)
{
    uint8_t frame[16] = {0x50, 0x2a, 0x4d, 0x18, 8};

    cr_assert_eq(expand(CFSR_CODEC_ZSTD, frame, sizeof frame, 8), -CFSR_E_DECOMPRESS);
}

Test(codec_hostile, zstd_large_window_is_refused)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_outBuffer out = {packed, PACKED_LEN, 0};
    ZSTD_inBuffer in = {raw, RAW_LEN, 0};
    size_t rc;

    /* Size known, but a window of its own: 128 MiB for 40 KB. */
    uint8_t large[] = {0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x88, 0x40,
                       0x9c, 0x00, 0x00, 0x01, 0x00, 0x00};

    cr_assert_eq(expand(CFSR_CODEC_ZSTD, large, sizeof large, RAW_LEN), -CFSR_E_DECOMPRESS);
    cr_assert_not_null(strstr(cfsr_error_message(), "window"));
    rc = ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush); /* no size in the header */
    cr_assert_not(ZSTD_isError(rc));
    cr_assert_eq(expand(CFSR_CODEC_ZSTD, packed, (uint32_t)out.pos, RAW_LEN), -CFSR_E_DECOMPRESS);
    ZSTD_freeCCtx(context);
}

Test(codec_hostile, zstd_dictionary_frames_are_refused)
{
    uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x07, 0x01, 0x01, 0x00, 0x00};

    cr_assert_eq(expand(CFSR_CODEC_ZSTD, frame, sizeof frame, 1), -CFSR_E_DECOMPRESS);
    cr_assert_not_null(strstr(cfsr_error_message(), "dictionary"));
}

Test(codec_hostile, raw_with_another_size_is_refused)
{
    cr_assert_eq(expand(CFSR_CODEC_NONE, raw, 100, 100), 0);
    cr_assert_eq(expand(CFSR_CODEC_NONE, raw, 101, 100), -CFSR_E_BOMB);
    cr_assert_eq(expand(CFSR_CODEC_NONE, raw, 99, 100), -CFSR_E_DECOMPRESS);
    cr_assert_eq(expand(CFSR_CODEC_NONE, raw, 0, 0), 0);
}

Test(codec_hostile, declared_over_capacity_is_too_large)
{
    uint8_t out[10];

    cr_assert_eq(cfsr_decompress(decompressor, CFSR_CODEC_LZ4, raw, 10, 11, out, 10),
                 -CFSR_E_TOO_LARGE);
    cr_assert_eq(cfsr_decompress(decompressor, CFSR_CODEC_NONE, raw, UINT32_MAX, UINT32_MAX, out,
                                 UINT32_MAX),
                 -CFSR_E_TOO_LARGE);
}

Test(codec_hostile, works_again_after_refusals)
{
    for (unsigned i = 0; i < 2; i++) {
        uint32_t len_bytes = pack(both[i]);

        cr_assert_lt(expand(both[i], packed, len_bytes / 2, RAW_LEN), 0);
        cr_assert_eq(expand(both[i], packed, len_bytes, RAW_LEN), 0);
    }
}
