/*
 * units.c - sizes and durations as text.
 *
 * Thread: any; pure but for the error message. One table of units for each kind serves both
 * directions, so what is printed parses back. Rejected: strtoull (takes signs, blanks and prefixes)
 * and fractions (256.5KiB is a slip).
 */
#include "base/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/fail.h"

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* Binary before decimal: on a tie in length the exact form is binary. */
static const struct unit size_units[] = {
    {"PiB", 1ULL << 50},
    {"TiB", 1ULL << 40},
    {"GiB", 1ULL << 30},
    {"MiB", 1ULL << 20},
    {"KiB", 1ULL << 10},
    {"PB", 1000000000000000},
    {"TB", 1000000000000},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"KB", 1000},
    {"kB", 1000},
    {"B", 1},
    {"", 1},
};
static const struct unit duration_units[] = {
    {"d", 86400000000}, {"h", 3600000000}, {"m", 60000000}, {"s", 1000000}, {"ms", 1000}, {"us", 1},
};

/* Reads the digits at *text and moves it past them; false if there are none or they overflow. */
static bool parse_digits(const char **text, uint64_t *value_out)
{
    const char *at = *text;
    uint64_t value = 0;

    if (*at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return false;
    }
    *text = at;
    *value_out = value;
    return true;
}

static bool parse_with_units(const char *text, const struct unit *units, size_t count,
                             uint64_t *value_out)
{
    uint64_t value;

    if (!parse_digits(&text, &value))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, units[i].suffix) == 0)
            return !__builtin_mul_overflow(value, units[i].factor, value_out);
    }
    return false;
}

int cfsr_parse_u64(const char *text, uint64_t *value_out)
{
    const char *at = text;
    uint64_t value;

    if (!parse_digits(&at, &value) || *at != '\0')
        return cfsr_fail(-CFSR_E_FORMAT, "'%s' is not a number: write digits only, below 2^64",
                         text);
    *value_out = value;
    return 0;
}

int cfsr_parse_size(const char *text, uint64_t *bytes_out)
{
    uint64_t bytes;

    if (!parse_with_units(text, size_units, CFSR_ARRAY_LEN(size_units), &bytes))
        return cfsr_fail(-CFSR_E_FORMAT,
                         "'%s' is not a size: write a whole number of bytes or with a unit, "
                         "as 4096, 256KiB, 64MiB, 1GiB or 1MB",
                         text);
    *bytes_out = bytes;
    return 0;
}

int cfsr_parse_duration_us(const char *text, uint64_t *us_out)
{
    uint64_t us;

    if (!parse_with_units(text, duration_units, CFSR_ARRAY_LEN(duration_units), &us))
        return cfsr_fail(-CFSR_E_FORMAT,
                         "'%s' is not a duration: write a whole number with a unit, "
                         "as 250us, 20ms, 1s, 5m, 1h or 2d",
                         text);
    *us_out = us;
    return 0;
}

char *cfsr_format_bytes(uint64_t bytes, char *text_out, size_t len_bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    /* 1023.95 would print as 1024.0, so it goes to the next unit. */
    while (value >= 1023.95 && unit + 1 < CFSR_ARRAY_LEN(names)) {
        value /= 1024.0;
        unit++;
    }
    if (unit == 0)
        snprintf(text_out, len_bytes, "%" PRIu64 " B", bytes);
    else
        snprintf(text_out, len_bytes, "%.1f %s", value, names[unit]);
    return text_out;
}

char *cfsr_format_size_exact(uint64_t bytes, char *text_out, size_t len_bytes)
{
    char best[32] = "";
    char text[32];

    if (bytes == 0) {
        snprintf(text_out, len_bytes, "0");
        return text_out;
    }
    for (size_t i = 0; i < CFSR_ARRAY_LEN(size_units); i++) {
        if (bytes % size_units[i].factor != 0)
            continue;
        snprintf(text, sizeof text, "%" PRIu64 "%s", bytes / size_units[i].factor,
                 size_units[i].suffix);
        if (best[0] == '\0' || strlen(text) < strlen(best))
            memcpy(best, text, sizeof best);
    }
    snprintf(text_out, len_bytes, "%s", best);
    return text_out;
}

char *cfsr_format_duration_exact(uint64_t us, char *text_out, size_t len_bytes)
{
    size_t i = 0;

    if (us == 0) {
        snprintf(text_out, len_bytes, "0s");
        return text_out;
    }
    while (us % duration_units[i].factor != 0)
        i++; /* ends at "us", which divides everything */
    snprintf(text_out, len_bytes, "%" PRIu64 "%s", us / duration_units[i].factor,
             duration_units[i].suffix);
    return text_out;
}

char *cfsr_format_time_us(uint64_t unix_us, char *text_out, size_t len_bytes)
{
    time_t seconds = (time_t)(unix_us / 1000000U);
    char date[40] = "";
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text_out, len_bytes, "%s.%03uZ", date, (unsigned)(unix_us / 1000U % 1000U));
    return text_out;
}
