/*
 * test_hlc.c - the hybrid clock is strictly increasing, also with many threads.
 */
#include "base/hlc.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#define THREADS    4
#define PER_THREAD 20000

Test(hlc, follows_the_wall_clock)
{
    struct cfsr_hlc clock = {0};

    cr_assert_eq(cfsr_hlc_next(&clock, 1000), 1000);
    cr_assert_eq(cfsr_hlc_next(&clock, 2000), 2000);
}

Test(hlc, breaks_ties_by_one)
{
    struct cfsr_hlc clock = {0};

    cr_assert_eq(cfsr_hlc_next(&clock, 1000), 1000);
    cr_assert_eq(cfsr_hlc_next(&clock, 1000), 1001);
    cr_assert_eq(cfsr_hlc_next(&clock, 1000), 1002);
}

Test(hlc, does_not_follow_a_wall_clock_that_goes_back)
{
    struct cfsr_hlc clock = {0};

    cfsr_hlc_next(&clock, 5000);
    cr_assert_eq(cfsr_hlc_next(&clock, 10), 5001);
}

Test(hlc, is_larger_than_every_stamp_it_saw)
{
    struct cfsr_hlc clock = {0};

    cfsr_hlc_observe(&clock, 9000);
    cr_assert_eq(cfsr_hlc_next(&clock, 100), 9001);
    cfsr_hlc_observe(&clock, 50); /* an older one changes nothing */
    cr_assert_eq(cfsr_hlc_next(&clock, 100), 9002);
}

static struct cfsr_hlc shared;
static uint64_t stamps[THREADS][PER_THREAD];

static void *take_stamps(void *argument)
{
    uint64_t *mine = argument;

    for (int i = 0; i < PER_THREAD; i++) {
        mine[i] = cfsr_hlc_next(&shared, (uint64_t)i / 3);
        if (i % 100 == 0)
            cfsr_hlc_observe(&shared, mine[i] + 5);
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

Test(hlc, threads_never_get_the_same_stamp)
{
    static uint64_t all[THREADS * PER_THREAD];
    pthread_t threads[THREADS];
    size_t n = 0;

    for (int t = 0; t < THREADS; t++)
        cr_assert_eq(pthread_create(&threads[t], NULL, take_stamps, stamps[t]), 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < PER_THREAD; i++) {
            cr_assert(i == 0 || stamps[t][i] > stamps[t][i - 1]);
            all[n++] = stamps[t][i];
        }
    }
    qsort(all, n, sizeof all[0], compare);
    for (size_t i = 1; i < n; i++)
        cr_assert_neq(all[i], all[i - 1]);
}
