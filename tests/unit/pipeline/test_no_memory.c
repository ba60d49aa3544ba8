/*
 * test_no_memory.c - every allocation of the pipeline's constructors fails once: a typed error, a
 * message, no output, nothing left behind (AddressSanitizer looks for that).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "pipeline/batch.h"
#include "pipeline/codec.h"
#include "tests/unit/faults.h"
#include <cfsrepl/error.h>

static struct cfsr_codec_config config_of(enum cfsr_codec codec)
{
    struct cfsr_codec_config config;

    cfsr_codec_config_default(&config);
    config.codec = codec;
    config.level = 3;
    return config;
}

Test(pipeline_no_memory, compressor)
{
    for (int codec = CFSR_CODEC_NONE; codec <= CFSR_CODEC_ZSTD; codec++) {
        struct cfsr_codec_config config = config_of((enum cfsr_codec)codec);
        unsigned n = 1;

        for (;; n++) {
            struct cfsr_compressor *compressor = NULL;

            test_fail_allocation(n);
            int rc = cfsr_compressor_create(&config, &compressor);
            bool failed = test_allocation_failed();
            test_fail_allocation(0);
            if (!failed) {
                cr_assert_eq(rc, 0);
                cfsr_compressor_destroy(compressor);
                break;
            }
            cr_assert_eq(rc, -ENOMEM, "codec %d, allocation %u", codec, n);
            cr_assert_null(compressor);
            cr_assert_neq(strstr(cfsr_error_message(), "no memory"), NULL);
            cr_assert_lt(n, TEST_SWEEP_MAX);
        }
        cr_assert_gt(n, codec == CFSR_CODEC_NONE ? 1 : 2, "something was allocated");
    }
}

Test(pipeline_no_memory, decompressor)
{
    for (unsigned n = 1;; n++) {
        struct cfsr_decompressor *decompressor = NULL;

        test_fail_allocation(n);
        int rc = cfsr_decompressor_create(&decompressor);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (!failed) {
            cr_assert_gt(n, 3);
            cfsr_decompressor_destroy(decompressor);
            return;
        }
        cr_assert_eq(rc, -ENOMEM);
        cr_assert_null(decompressor);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

Test(pipeline_no_memory, batch_codec)
{
    struct cfsr_codec_config config = config_of(CFSR_CODEC_ZSTD);

    for (unsigned n = 1;; n++) {
        struct cfsr_batch_codec *codec = NULL;

        test_fail_allocation(n);
        int rc = cfsr_batch_codec_create(&config, &codec);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (rc == 0) { /* some library makes do without what it asked for */
            cfsr_batch_codec_destroy(codec);
            if (!failed)
                return;
            continue;
        }
        cr_assert(failed);
        cr_assert_eq(rc, -ENOMEM);
        cr_assert_null(codec);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

Test(pipeline_no_memory, unknown_codec_is_refused_before_anything_is_allocated)
{
    struct cfsr_codec_config config = config_of((enum cfsr_codec)9);
    struct cfsr_compressor *compressor = NULL;
    struct cfsr_batch_codec *codec = NULL;

    cr_assert_eq(cfsr_compressor_create(&config, &compressor), -CFSR_E_CODEC);
    cr_assert_eq(cfsr_batch_codec_create(&config, &codec), -CFSR_E_CODEC);
    cr_assert_null(compressor);
    cr_assert_null(codec);
    cfsr_compressor_destroy(NULL);
    cfsr_decompressor_destroy(NULL);
    cfsr_batch_codec_destroy(NULL);
}

Test(pipeline_bounds, larger_inputs_and_smaller_outputs_are_refused)
{
    struct cfsr_codec_config config = config_of(CFSR_CODEC_LZ4);
    struct cfsr_batch_header header = {0};
    struct cfsr_codec_result result = {0};
    struct cfsr_batch_codec *batch;
    struct cfsr_compressor *compressor;
    uint8_t byte = 0;

    cr_assert_eq(cfsr_compressor_create(&config, &compressor), 0);
    cr_assert_eq(cfsr_batch_codec_create(&config, &batch), 0);
    cr_assert_eq(cfsr_compress(compressor, &byte, CFSR_CODEC_INPUT_MAX_BYTES + 1, &byte, UINT32_MAX,
                               &result),
                 -CFSR_E_TOO_LARGE);
    cr_assert_eq(cfsr_compress(compressor, &byte, 1, &byte, 0, &result), -CFSR_E_TOO_LARGE);
    cr_assert_eq(
        cfsr_batch_encode(batch, &byte, CFSR_CODEC_INPUT_MAX_BYTES + 1, &byte, UINT32_MAX, &header),
        -CFSR_E_TOO_LARGE);
    cr_assert_eq(cfsr_compress(compressor, NULL, 0, NULL, 0, &result), 0, "nothing is nothing");
    cr_assert_eq(result.codec, CFSR_CODEC_NONE);
    cr_assert_eq(result.len_bytes, 0);
    cfsr_batch_codec_destroy(batch);
    cfsr_compressor_destroy(compressor);
}
