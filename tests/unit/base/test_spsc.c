/*
 * test_spsc.c - the queue is bounded, in order, and right between two threads.
 */
#include "base/spsc.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#define ITEMS 200000

Test(spsc, is_in_order_and_bounded)
{
    struct cfsr_spsc queue;
    int items[5];

    cr_assert_eq(cfsr_spsc_init(&queue, 4), 0);
    cr_assert(cfsr_spsc_is_empty(&queue));
    cr_assert_null(cfsr_spsc_pop(&queue));
    for (int i = 0; i < 4; i++)
        cr_assert(cfsr_spsc_push(&queue, &items[i]));
    cr_assert_not(cfsr_spsc_push(&queue, &items[4]), "the fifth has no room");
    cr_assert_eq(cfsr_spsc_pop(&queue), &items[0]);
    cr_assert(cfsr_spsc_push(&queue, &items[4]));
    for (int i = 1; i < 5; i++)
        cr_assert_eq(cfsr_spsc_pop(&queue), &items[i]);
    cr_assert(cfsr_spsc_is_empty(&queue));
    cfsr_spsc_fini(&queue);
}

Test(spsc, indexes_may_wrap)
{
    struct cfsr_spsc queue;
    int items[2];

    cr_assert_eq(cfsr_spsc_init(&queue, 2), 0);
    queue.head = queue.tail = SIZE_MAX;
    queue.cached_head = queue.cached_tail = SIZE_MAX;
    for (int round = 0; round < 4; round++) {
        cr_assert(cfsr_spsc_push(&queue, &items[0]));
        cr_assert(cfsr_spsc_push(&queue, &items[1]));
        cr_assert_not(cfsr_spsc_push(&queue, &items[1]));
        cr_assert_eq(cfsr_spsc_pop(&queue), &items[0]);
        cr_assert_eq(cfsr_spsc_pop(&queue), &items[1]);
        cr_assert_null(cfsr_spsc_pop(&queue));
    }
    cfsr_spsc_fini(&queue);
}

Test(spsc, refuses_odd_capacities)
{
    struct cfsr_spsc queue;

    cr_assert_eq(cfsr_spsc_init(&queue, 0), -EINVAL);
    cr_assert_eq(cfsr_spsc_init(&queue, 12), -EINVAL);
}

static struct cfsr_spsc shared;
static uint64_t values[ITEMS];

static void *produce(void *argument)
{
    (void)argument;
    for (size_t i = 0; i < ITEMS; i++) {
        values[i] = i * 3; /* published by the push */
        while (!cfsr_spsc_push(&shared, &values[i]))
            sched_yield();
    }
    return NULL;
}

Test(spsc, two_threads_see_every_item_once_in_order)
{
    pthread_t producer;

    cr_assert_eq(cfsr_spsc_init(&shared, 64), 0);
    cr_assert_eq(pthread_create(&producer, NULL, produce, NULL), 0);
    for (size_t i = 0; i < ITEMS; i++) {
        uint64_t *item;

        while ((item = cfsr_spsc_pop(&shared)) == NULL)
            sched_yield();
        if (item != &values[i] || *item != i * 3)
            cr_assert_fail("item %zu is wrong", i);
    }
    pthread_join(producer, NULL);
    cr_assert(cfsr_spsc_is_empty(&shared));
    cfsr_spsc_fini(&shared);
}
