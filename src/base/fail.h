/*
 * fail.h - say what failed, at the place that knows.
 *
 * `return cfsr_fail(-ENOENT, "journal segment %s is missing: restore it from ...", path);`
 * keeps the message for the thread (cfsr_error_message()) and returns the code. The first function
 * that decides the error writes the message; callers pass the code on, or prepend context with
 * cfsr_fail_context(). Cold paths only: formatting is never paid on the data path.
 */
#ifndef CFSR_BASE_FAIL_H
#define CFSR_BASE_FAIL_H

#include <cfsrepl/error.h>

/* Stores the formatted message (1023 bytes at most) and returns rc unchanged. rc must be negative.
 */
int cfsr_fail(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* Puts "context: " before the message already stored (or before the text of rc if none) and returns
 * rc. */
int cfsr_fail_context(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

#endif
