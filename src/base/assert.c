/*
 * assert.c - the end of a process whose invariant does not hold.
 *
 * Thread: any. One write(2) of a stack buffer and abort(): the heap and stdio may be what is
 * broken. Rejected: unwinding or a handler hook; after a broken invariant nothing may reach the
 * disk.
 */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void cfsr_assert_failed(const char *expression, const char *file, int line,
                                  const char *function)
{
    char text[512];
    int len = snprintf(text, sizeof text,
                       "cfs-repl: internal error: %s does not hold in %s (%s:%d)\n", expression,
                       function, file, line);

    if (len > 0) {
        size_t len_bytes = (size_t)len < sizeof text ? (size_t)len : sizeof text - 1;
        ssize_t ignored = write(STDERR_FILENO, text, len_bytes);
        (void)ignored;
    }
    abort();
}
