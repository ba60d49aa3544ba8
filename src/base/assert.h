/*
 * assert.h - invariants, checked in release builds too.
 *
 * CFSR_ASSERT: an internal invariant; failure is a bug of ours: prints the place and aborts.
 * CFSR_DASSERT: the same for per-byte and per-record loops; only with -DCFSR_DEBUG.
 * Never for input from the wire, the disk or the user: that is checked and counted.
 */
#ifndef CFSR_BASE_ASSERT_H
#define CFSR_BASE_ASSERT_H

_Noreturn void cfsr_assert_failed(const char *expression, const char *file, int line,
                                  const char *function);

#define CFSR_ASSERT(expression)          \
    (__builtin_expect(!!(expression), 1) \
         ? (void)0                       \
         : cfsr_assert_failed(#expression, __FILE__, __LINE__, __func__))

#ifdef CFSR_DEBUG
#define CFSR_DASSERT(expression) CFSR_ASSERT(expression)
#else
#define CFSR_DASSERT(expression) ((void)sizeof((expression) ? 1 : 0))
#endif

#endif
