/* test_digest.c - body digest and SHA-256 against libsodium, whatever way the chunks are hashed. */
#include "security/digest.h"

#include <criterion/criterion.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static uint8_t body[64 * CFSR_DIGEST_CHUNK_BYTES + 1];

static void set_up(void)
{
    cr_assert_geq(sodium_init(), 0);
    randombytes_buf(body, sizeof body);
}

TestSuite(digest, .init = set_up);

static struct cfsr_digest *make_digest(void)
{
    struct cfsr_digest *digest = NULL;

    cr_assert_eq(cfsr_digest_create(&digest), 0);
    return digest;
}

/* The definition, straight from the header's comment, with the other library. */
static void reference(const uint8_t *data, size_t len_bytes, uint8_t digest_out[32])
{
    crypto_hash_sha256_state state;
    uint8_t head[16] = "CFSRBODY";

    for (unsigned i = 0; i < 8; i++)
        head[8 + i] = (uint8_t)((uint64_t)len_bytes >> 8 * i);
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, head, sizeof head);
    for (size_t done = 0; done < len_bytes; done += 4096) {
        uint8_t leaf[32];

        crypto_hash_sha256(leaf, data + done, len_bytes - done < 4096 ? len_bytes - done : 4096);
        crypto_hash_sha256_update(&state, leaf, sizeof leaf);
    }
    crypto_hash_sha256_final(&state, digest_out);
}

static void check_length(struct cfsr_digest *digest, size_t len_bytes)
{
    uint8_t expected[32];
    uint8_t with[32];
    uint8_t without[32];

    reference(body, len_bytes, expected);
    cfsr_digest_use_multibuffer(digest, true);
    cfsr_digest_body(digest, body, len_bytes, with);
    cfsr_digest_use_multibuffer(digest, false);
    cfsr_digest_body(digest, body, len_bytes, without);
    cr_assert_arr_eq(with, expected, 32, "multi-buffer, length %zu", len_bytes);
    cr_assert_arr_eq(without, expected, 32, "one by one, length %zu", len_bytes);
}

Test(digest, same_bits_for_all_lengths_around_chunk_borders)
{
    struct cfsr_digest *digest = make_digest();

    for (size_t chunks = 0; chunks <= 64; chunks++) {
        size_t border = chunks * CFSR_DIGEST_CHUNK_BYTES;

        for (size_t len = border > 2 ? border - 2 : 0; len <= border + 2 && len <= sizeof body;
             len++)
            check_length(digest, len);
    }
    cfsr_digest_destroy(digest);
}

Test(digest, same_bits_for_lengths_in_between)
{
    struct cfsr_digest *digest = make_digest();

    for (size_t len = 0; len < sizeof body; len += 1493)
        check_length(digest, len);
    cfsr_digest_destroy(digest);
}

Test(digest, unaligned_body_gives_the_same_bits)
{
    struct cfsr_digest *digest = make_digest();
    uint8_t expected[32];
    uint8_t got[32];

    for (size_t shift = 1; shift < 64; shift += 7) {
        reference(body + shift, 67000, expected);
        cfsr_digest_body(digest, body + shift, 67000, got);
        cr_assert_arr_eq(got, expected, 32);
    }
    cfsr_digest_destroy(digest);
}

Test(digest, largest_body)
{
    struct cfsr_digest *digest = make_digest();
    uint8_t *large = malloc(CFSR_DIGEST_BODY_MAX_BYTES);
    uint8_t expected[32];
    uint8_t got[32];

    cr_assert_not_null(large);
    randombytes_buf(large, CFSR_DIGEST_BODY_MAX_BYTES);
    reference(large, CFSR_DIGEST_BODY_MAX_BYTES, expected);
    cfsr_digest_body(digest, large, CFSR_DIGEST_BODY_MAX_BYTES, got);
    cr_assert_arr_eq(got, expected, 32);
    free(large);
    cfsr_digest_destroy(digest);
}

Test(digest, every_chunk_and_the_length_count)
{
    struct cfsr_digest *digest = make_digest();
    uint8_t before[32];
    uint8_t after[32];

    cfsr_digest_body(digest, body, 67000, before);
    for (size_t at = 0; at < 67000; at += 4096) {
        body[at] ^= 1;
        cfsr_digest_body(digest, body, 67000, after);
        body[at] ^= 1;
        cr_assert_neq(memcmp(before, after, 32), 0);
    }
    cfsr_digest_body(digest, body, 66999, after);
    cr_assert_neq(memcmp(before, after, 32), 0);
    cfsr_digest_destroy(digest);
}

Test(digest, swapped_chunks_differ)
{
    struct cfsr_digest *digest = make_digest();
    uint8_t before[32];
    uint8_t after[32];
    uint8_t chunk[4096];

    cfsr_digest_body(digest, body, 8 * 4096, before);
    memcpy(chunk, body, 4096);
    memmove(body, body + 4096, 4096);
    memcpy(body + 4096, chunk, 4096);
    cfsr_digest_body(digest, body, 8 * 4096, after);
    cr_assert_neq(memcmp(before, after, 32), 0);
    cfsr_digest_destroy(digest);
}

Test(digest, sha256_of_abc)
{
    /* FIPS 180-4, example of SHA-256 */
    static const uint8_t expected[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                         0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                         0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                         0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    struct cfsr_digest *digest = make_digest();
    uint8_t got[32];

    cfsr_digest_sha256(digest, "abc", 3, got);
    cr_assert_arr_eq(got, expected, 32);
    cfsr_digest_destroy(digest);
}

Test(digest, streaming_equals_one_shot)
{
    struct cfsr_digest *digest = make_digest();
    uint8_t expected[32];
    uint8_t got[32];

    for (size_t step = 1; step < 5000; step = step * 3 + 1) {
        cfsr_digest_begin(digest);
        for (size_t done = 0; done < 10000; done += step)
            cfsr_digest_update(digest, body + done, 10000 - done < step ? 10000 - done : step);
        cfsr_digest_update(digest, NULL, 0);
        cfsr_digest_final(digest, got);
        cfsr_digest_sha256(digest, body, 10000, expected);
        cr_assert_arr_eq(got, expected, 32);
    }
    cfsr_digest_destroy(digest);
}

Test(digest, a_body_between_does_not_disturb_a_stream)
{
    struct cfsr_digest *digest = make_digest();
    uint8_t expected[32];
    uint8_t got[32];
    uint8_t other[32];

    cfsr_digest_begin(digest);
    cfsr_digest_update(digest, body, 5000);
    cfsr_digest_body(digest, body, 67000, other);
    cfsr_digest_update(digest, body + 5000, 5000);
    cfsr_digest_final(digest, got);
    crypto_hash_sha256(expected, body, 10000);
    cr_assert_arr_eq(got, expected, 32);
    cfsr_digest_destroy(digest);
}

Test(digest, variant_is_named_and_can_be_switched)
{
    struct cfsr_digest *digest = make_digest();
    bool has = strcmp(cfsr_digest_variant(), "openssl") != 0;

    cr_assert_eq(cfsr_digest_use_multibuffer(digest, true), has);
    cr_assert_not(cfsr_digest_use_multibuffer(digest, false));
    cfsr_digest_destroy(digest);
    cfsr_digest_destroy(NULL);
}
