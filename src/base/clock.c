/*
 * clock.c - reads the two clocks of the system.
 *
 * Thread: any. Both calls go through the vDSO and cannot fail for these clock ids.
 */
#include "base/clock.h"

#include <time.h>

#include "base/assert.h"

uint64_t cfsr_clock_monotonic_ns(void)
{
    struct timespec now;
    int rc = clock_gettime(CLOCK_MONOTONIC, &now);

    CFSR_ASSERT(rc == 0);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

uint64_t cfsr_clock_wall_us(void)
{
    struct timespec now;
    int rc = clock_gettime(CLOCK_REALTIME, &now);

    CFSR_ASSERT(rc == 0);
    if (now.tv_sec < 0) /* a machine set to a time before 1970 */
        return 0;
    return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}
