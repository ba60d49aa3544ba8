/*
 * test_crc32c.c - CRC-32C: RFC 3720 vectors, splitting, every variant against the definition, three
 * at once.
 */
#include "base/crc32c.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define DATA_BYTES 20000

static uint8_t data[DATA_BYTES];

static void fill(void)
{
    uint64_t state = 88172645463325252U;

    for (size_t i = 0; i < sizeof data; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[i] = (uint8_t)state;
    }
}

/* The definition, bit by bit. */
static uint32_t crc_by_bits(uint32_t crc, const uint8_t *p, size_t len)
{
    crc = ~crc;
    for (; len > 0; p++, len--) {
        crc ^= *p;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0);
    }
    return ~crc;
}

static void check_vectors(cfsr_crc32c_function crc)
{
    uint8_t bytes[32];
    static const uint8_t read10[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0,    0,
    };

    cr_assert_eq(crc(0, "123456789", 9), 0xe3069283U);
    memset(bytes, 0, sizeof bytes);
    cr_assert_eq(crc(0, bytes, sizeof bytes), 0x8a9136aaU);
    memset(bytes, 0xff, sizeof bytes);
    cr_assert_eq(crc(0, bytes, sizeof bytes), 0x62a8ab43U);
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    cr_assert_eq(crc(0, bytes, sizeof bytes), 0x46dd794eU);
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(31 - i);
    cr_assert_eq(crc(0, bytes, sizeof bytes), 0x113fdb5cU);
    cr_assert_eq(crc(0, read10, sizeof read10), 0xd9963a56U);
    cr_assert_eq(crc(0, NULL, 0), 0);
    cr_assert_eq(crc(0x12345678, NULL, 0), 0x12345678);
}

Test(crc32c, rfc3720_vectors)
{
    check_vectors(cfsr_crc32c);
}

Test(crc32c, rfc3720_vectors_by_table)
{
    check_vectors(cfsr_crc32c_by_variant("table"));
}

Test(crc32c, variant_in_use_is_known_by_name)
{
    cr_assert_not_null(cfsr_crc32c_by_variant(cfsr_crc32c_variant()));
    cr_assert_null(cfsr_crc32c_by_variant("abacus"));
}

Test(crc32c, every_length_and_alignment_agrees_with_the_definition)
{
    cfsr_crc32c_function by_table = cfsr_crc32c_by_variant("table");

    fill();
    for (size_t len = 0; len <= 700; len++) {
        const uint8_t *p = data + len % 9;
        uint32_t expected = crc_by_bits(77, p, len);

        cr_assert_eq(cfsr_crc32c(77, p, len), expected, "length %zu", len);
        cr_assert_eq(by_table(77, p, len), expected, "length %zu by table", len);
    }
    for (size_t len = 1000; len <= DATA_BYTES - 8; len += 997)
        cr_assert_eq(cfsr_crc32c(5, data + 3, len), crc_by_bits(5, data + 3, len), "length %zu",
                     len);
}

Test(crc32c, may_be_split_anywhere)
{
    uint32_t whole;

    fill();
    whole = cfsr_crc32c(0, data, 5000);
    for (size_t cut = 0; cut <= 5000; cut += 7)
        cr_assert_eq(cfsr_crc32c(cfsr_crc32c(0, data, cut), data + cut, 5000 - cut), whole,
                     "cut at %zu", cut);
}

Test(crc32c, three_at_once_equal_three_alone)
{
    unsigned seed = 1;

    fill();
    for (int round = 0; round < 5000; round++) {
        uint32_t crc[3];
        uint32_t expected[3];
        const void *at[3];
        size_t len[3];

        for (int i = 0; i < 3; i++) {
            at[i] = data + (unsigned)rand_r(&seed) % 1000;
            len[i] = (unsigned)rand_r(&seed) % (round % 5 == 0 ? 9000 : 400);
            crc[i] = (uint32_t)rand_r(&seed);
            expected[i] = cfsr_crc32c_by_variant("table")(crc[i], at[i], len[i]);
        }
        cfsr_crc32c_x3(crc, at, len);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(crc[i], expected[i], "round %d lane %d length %zu", round, i, len[i]);
    }
}

Test(crc32c, any_flipped_bit_is_seen)
{
    uint32_t sound;

    fill();
    sound = cfsr_crc32c(0, data, 300);
    for (unsigned bit = 0; bit < 300 * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1U << bit % 8);
        cr_assert_neq(cfsr_crc32c(0, data, 300), sound, "bit %u", bit);
        data[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}
