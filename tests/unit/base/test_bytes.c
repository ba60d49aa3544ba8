/*
 * test_bytes.c - little-endian access, alignment, the zero test, the clocks, the version,
 * assertions.
 */
#include "base/bytes.h"

#include <criterion/criterion.h>
#include <signal.h>

#include <cfsrepl/version.h>

#include "base/assert.h"
#include "base/clock.h"

Test(bytes, stores_are_little_endian_and_unaligned)
{
    uint8_t buffer[16] = {0};

    cfsr_store_le64(buffer + 1, 0x0102030405060708U);
    cr_assert_eq(buffer[1], 8);
    cr_assert_eq(buffer[8], 1);
    cr_assert_eq(cfsr_load_le64(buffer + 1), 0x0102030405060708U);
    cfsr_store_le32(buffer + 3, 0xa1b2c3d4U);
    cr_assert_eq(buffer[3], 0xd4);
    cr_assert_eq(cfsr_load_le32(buffer + 3), 0xa1b2c3d4U);
    cfsr_store_le16(buffer + 5, 0xbeef);
    cr_assert_eq(buffer[5], 0xef);
    cr_assert_eq(cfsr_load_le16(buffer + 5), 0xbeef);
}

Test(bytes, aligns_up_and_down)
{
    cr_assert_eq(cfsr_align_up(0, 8), 0);
    cr_assert_eq(cfsr_align_up(1, 8), 8);
    cr_assert_eq(cfsr_align_up(8, 8), 8);
    cr_assert_eq(cfsr_align_down(4097, 4096), 4096);
    cr_assert(cfsr_is_power_of_two(1));
    cr_assert(cfsr_is_power_of_two(1ULL << 63));
    cr_assert_not(cfsr_is_power_of_two(0));
    cr_assert_not(cfsr_is_power_of_two(12));
}

Test(bytes, zero_test_finds_any_set_byte)
{
    uint8_t buffer[67] = {0};

    for (size_t len = 0; len <= sizeof buffer; len++) {
        cr_assert(cfsr_bytes_are_zero(buffer, len), "length %zu", len);
        for (size_t i = 0; i < len; i++) {
            buffer[i] = 0x10;
            cr_assert_not(cfsr_bytes_are_zero(buffer, len), "length %zu, byte %zu", len, i);
            buffer[i] = 0;
        }
    }
}

Test(clock, monotonic_does_not_go_back_and_wall_is_of_this_century)
{
    uint64_t first = cfsr_clock_monotonic_ns();

    cr_assert_geq(cfsr_clock_monotonic_ns(), first);
    cr_assert_gt(cfsr_clock_wall_us(), 946684800ULL * 1000000U);
}

Test(version, is_the_one_of_the_build)
{
    cr_assert_str_eq(cfsr_version(), CFSR_VERSION);
}

Test(assert, passes_when_it_holds)
{
    CFSR_ASSERT(1 + 1 == 2);
}

Test(assert, aborts_when_it_does_not, .signal = SIGABRT)
{
    volatile int two = 2;
    CFSR_ASSERT(two == 3);
}
