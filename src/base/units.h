/*
 * units.h - numbers with units, as users write them, and back.
 *
 * Sizes: "4096", "256KiB", "64MiB", "1GiB", "1MB" (10^6), "10MiB/s" is for rates only. Durations:
 * "20ms", "1s", "5m", "1h", "250us", "2d". A bare number is bytes for sizes; a duration needs a
 * unit. No sign, no fraction, no overflow: anything else is -CFSR_E_FORMAT.
 */
#ifndef CFSR_BASE_UNITS_H
#define CFSR_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

int cfsr_parse_u64(const char *text, uint64_t *value_out);
int cfsr_parse_size(const char *text, uint64_t *bytes_out);
int cfsr_parse_duration_us(const char *text, uint64_t *us_out);

/* "1.5 GiB", "352 MB/s" style for people; returns text_out. */
char *cfsr_format_bytes(uint64_t bytes, char *text_out, size_t len_bytes);
/* Shortest exact form that parses back: 262144 -> "256KiB", 20000 us -> "20ms". */
char *cfsr_format_size_exact(uint64_t bytes, char *text_out, size_t len_bytes);
char *cfsr_format_duration_exact(uint64_t us, char *text_out, size_t len_bytes);
/* UTC, RFC 3339 with milliseconds: "2026-11-21T10:00:00.123Z". */
char *cfsr_format_time_us(uint64_t unix_us, char *text_out, size_t len_bytes);

#endif
