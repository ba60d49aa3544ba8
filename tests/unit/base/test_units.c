/*
 * test_units.c - sizes, durations and times as text and back.
 */
#include "base/units.h"

#include <criterion/criterion.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"

static const char *const not_numbers[] = {"",      " ",
                                          "-1",    "+1",
                                          "1 ",    " 1",
                                          "0x10",  "1.5",
                                          "abc",   "1e3",
                                          "1,000", "18446744073709551616",
                                          "KiB",   "99999999999999999999999"};

Test(units, numbers)
{
    uint64_t value = 0;

    cr_assert_eq(cfsr_parse_u64("0", &value), 0);
    cr_assert_eq(value, 0);
    cr_assert_eq(cfsr_parse_u64("18446744073709551615", &value), 0);
    cr_assert_eq(value, UINT64_MAX);
    value = 7;
    for (size_t i = 0; i < CFSR_ARRAY_LEN(not_numbers); i++) {
        cfsr_error_clear();
        cr_assert_eq(cfsr_parse_u64(not_numbers[i], &value), -CFSR_E_FORMAT, "'%s'",
                     not_numbers[i]);
        cr_assert_neq(cfsr_error_message()[0], '\0');
    }
    cr_assert_eq(cfsr_parse_u64("4KiB", &value), -CFSR_E_FORMAT);
    cr_assert_eq(value, 7, "outputs are set on success only");
}

Test(units, sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"4096", 4096},
        {"12B", 12},
        {"256KiB", 262144},
        {"64MiB", 67108864},
        {"1GiB", 1073741824},
        {"2TiB", 2199023255552},
        {"1PiB", 1125899906842624},
        {"1KB", 1000},
        {"1kB", 1000},
        {"1MB", 1000000},
        {"3GB", 3000000000},
        {"1TB", 1000000000000},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {"1K",
                                      "1M",
                                      "1kib",
                                      "1 KiB",
                                      "1.5KiB",
                                      "10MiB/s",
                                      "-4KiB",
                                      "16384PiB",
                                      "KiB",
                                      "",
                                      "4KiBx",
                                      "1ms",
                                      "18446744073709551615KiB"};
    uint64_t bytes = 7;

    for (size_t i = 0; i < CFSR_ARRAY_LEN(bad); i++)
        cr_assert_eq(cfsr_parse_size(bad[i], &bytes), -CFSR_E_FORMAT, "'%s'", bad[i]);
    cr_assert_eq(bytes, 7);
    for (size_t i = 0; i < CFSR_ARRAY_LEN(good); i++) {
        cr_assert_eq(cfsr_parse_size(good[i].text, &bytes), 0, "'%s'", good[i].text);
        cr_assert_eq(bytes, good[i].bytes, "'%s'", good[i].text);
    }
}

Test(units, durations)
{
    static const struct {
        const char *text;
        uint64_t us;
    } good[] = {{"0s", 0},         {"250us", 250},     {"20ms", 20000},     {"1s", 1000000},
                {"5m", 300000000}, {"1h", 3600000000}, {"2d", 172800000000}};
    static const char *const bad[] = {
        "20", "0", "1.5s", "-1s", "1S", "1 s", "s", "", "1min", "1ss", "18446744073709551615s"};
    uint64_t us = 7;

    for (size_t i = 0; i < CFSR_ARRAY_LEN(bad); i++)
        cr_assert_eq(cfsr_parse_duration_us(bad[i], &us), -CFSR_E_FORMAT, "'%s'", bad[i]);
    cr_assert_eq(us, 7);
    for (size_t i = 0; i < CFSR_ARRAY_LEN(good); i++) {
        cr_assert_eq(cfsr_parse_duration_us(good[i].text, &us), 0, "'%s'", good[i].text);
        cr_assert_eq(us, good[i].us, "'%s'", good[i].text);
    }
}

Test(units, bytes_for_people)
{
    char text[32];

    cr_assert_str_eq(cfsr_format_bytes(0, text, sizeof text), "0 B");
    cr_assert_str_eq(cfsr_format_bytes(1023, text, sizeof text), "1023 B");
    cr_assert_str_eq(cfsr_format_bytes(1024, text, sizeof text), "1.0 KiB");
    cr_assert_str_eq(cfsr_format_bytes(1610612736, text, sizeof text), "1.5 GiB");
    cr_assert_str_eq(cfsr_format_bytes(1048575, text, sizeof text), "1.0 MiB");
    cr_assert_str_eq(cfsr_format_bytes(UINT64_MAX, text, sizeof text), "16.0 EiB");
}

Test(units, exact_sizes)
{
    char text[32];

    cr_assert_str_eq(cfsr_format_size_exact(0, text, sizeof text), "0");
    cr_assert_str_eq(cfsr_format_size_exact(262144, text, sizeof text), "256KiB");
    cr_assert_str_eq(cfsr_format_size_exact(1000000, text, sizeof text), "1MB");
    cr_assert_str_eq(cfsr_format_size_exact(1001, text, sizeof text), "1001");
    cr_assert_str_eq(cfsr_format_size_exact(67108864, text, sizeof text), "64MiB");
}

Test(units, exact_durations)
{
    char text[32];

    cr_assert_str_eq(cfsr_format_duration_exact(0, text, sizeof text), "0s");
    cr_assert_str_eq(cfsr_format_duration_exact(20000, text, sizeof text), "20ms");
    cr_assert_str_eq(cfsr_format_duration_exact(90000000, text, sizeof text), "90s");
    cr_assert_str_eq(cfsr_format_duration_exact(1500, text, sizeof text), "1500us");
    cr_assert_str_eq(cfsr_format_duration_exact(172800000000, text, sizeof text), "2d");
}

Test(units, exact_forms_parse_back)
{
    uint64_t value = 1;

    for (int i = 0; i < 2000; i++) {
        char text[32];
        uint64_t back = 0;

        cr_assert_eq(cfsr_parse_size(cfsr_format_size_exact(value, text, sizeof text), &back), 0);
        cr_assert_eq(back, value, "%s", text);
        cr_assert_eq(
            cfsr_parse_duration_us(cfsr_format_duration_exact(value, text, sizeof text), &back), 0);
        cr_assert_eq(back, value, "%s", text);
        value = i % 3 == 0   ? value * 1024
                : i % 3 == 1 ? value * 1000 + (uint64_t)(i % 7)
                             : value / 999 + 1;
    }
}

Test(units, times_are_rfc3339)
{
    char text[40];

    cr_assert_str_eq(cfsr_format_time_us(0, text, sizeof text), "1970-01-01T00:00:00.000Z");
    cr_assert_str_eq(cfsr_format_time_us(1795255200123456, text, sizeof text),
                     "2026-11-21T10:00:00.123Z");
    cr_assert_eq(strlen(cfsr_format_time_us(0, text, 5)), 4, "cut, not overrun");
    cr_assert_gt(strlen(cfsr_format_time_us(UINT64_MAX, text, sizeof text)), 0);
}
