/* test_timer.c - order, cancel, move, and many timers against a plain model. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "core/timer.h"

#define MANY 2000

struct probe {
    struct cfsr_timer timer;
    unsigned id;
};

static unsigned fired[MANY];
static unsigned fired_count;
static struct cfsr_timers timers;

static void record(struct cfsr_timer *timer, uint64_t now_ns)
{
    cr_assert_leq(timer->due_ns, now_ns);
    cr_assert_not(timer->is_armed);
    fired[fired_count++] = CFSR_CONTAINER_OF(timer, struct probe, timer)->id;
}

static void again(struct cfsr_timer *timer, uint64_t now_ns)
{
    (void)now_ns;
    fired_count++;
    cfsr_timer_add(&timers, timer, timer->due_ns);
}

static void setup(struct probe *probes, unsigned count)
{
    unsigned i;

    fired_count = 0;
    cfsr_timers_init(&timers);
    for (i = 0; i < count; i++) {
        cfsr_timer_init(&probes[i].timer, record);
        probes[i].id = i;
    }
}

Test(timer, fires_in_order_of_deadline_then_of_arming)
{
    static const uint64_t due[] = {50, 10, 30, 10, 20, 30};
    static const unsigned order[] = {1, 3, 4, 2, 5, 0};
    struct probe p[6];
    unsigned i;

    setup(p, 6);
    cr_assert_eq(cfsr_timers_next_ns(&timers), CFSR_TIMER_NEVER);
    for (i = 0; i < 6; i++)
        cfsr_timer_add(&timers, &p[i].timer, due[i]);
    cr_assert_eq(cfsr_timers_next_ns(&timers), 10);
    cr_assert_eq(cfsr_timers_expire(&timers, 9), 0);
    cr_assert_eq(cfsr_timers_expire(&timers, 30), 5);
    cr_assert_eq(cfsr_timers_next_ns(&timers), 50);
    cr_assert_eq(cfsr_timers_expire(&timers, 50), 1);
    cr_assert_arr_eq(fired, order, sizeof order);
}

Test(timer, cancel_and_move)
{
    struct probe p[3];

    setup(p, 3);
    cfsr_timer_add(&timers, &p[0].timer, 10);
    cfsr_timer_add(&timers, &p[1].timer, 20);
    cfsr_timer_add(&timers, &p[2].timer, 30);
    cfsr_timer_cancel(&timers, &p[0].timer);
    cfsr_timer_cancel(&timers, &p[0].timer);
    cr_assert_not(p[0].timer.is_armed);
    cfsr_timer_add(&timers, &p[1].timer, 40);
    cr_assert_eq(timers.count, 2);
    cr_assert_eq(cfsr_timers_next_ns(&timers), 30);
    cr_assert_eq(cfsr_timers_expire(&timers, 100), 2);
    cr_assert_eq(fired[0], 2);
    cr_assert_eq(fired[1], 1);
}

Test(timer, one_that_arms_itself_in_the_past_waits_for_the_next_call)
{
    struct probe p[1];

    setup(p, 1);
    cfsr_timer_init(&p[0].timer, again);
    cfsr_timer_add(&timers, &p[0].timer, 5);
    cr_assert_eq(cfsr_timers_expire(&timers, 10), 1);
    cr_assert_eq(cfsr_timers_expire(&timers, 10), 1);
    cr_assert_eq(fired_count, 2);
}

static int by_due(const void *a, const void *b)
{
    const struct probe *const *x = a, *const *y = b;

    if ((*x)->timer.due_ns != (*y)->timer.due_ns)
        return (*x)->timer.due_ns < (*y)->timer.due_ns ? -1 : 1;
    return (*x)->timer.order < (*y)->timer.order ? -1 : 1;
}

Test(timer, many_with_cancels_and_moves_match_a_sorted_list)
{
    static struct probe p[MANY];
    static struct probe *sorted[MANY];
    unsigned i, left = 0, seed = 42;

    setup(p, MANY);
    for (i = 0; i < MANY; i++)
        cfsr_timer_add(&timers, &p[i].timer, (uint64_t)rand_r(&seed) % 500);
    cfsr_timers_expire(&timers, 50);
    for (i = 0; i < MANY; i += 3)
        cfsr_timer_cancel(&timers, &p[i].timer);
    for (i = 1; i < MANY; i += 3)
        cfsr_timer_add(&timers, &p[i].timer, 100 + (uint64_t)rand_r(&seed) % 500);
    for (i = 0; i < MANY; i++) {
        if (p[i].timer.is_armed)
            sorted[left++] = &p[i];
    }
    qsort(sorted, left, sizeof sorted[0], by_due);
    cr_assert_eq(timers.count, left);
    fired_count = 0;
    cr_assert_eq(cfsr_timers_expire(&timers, 10000), left);
    for (i = 0; i < left; i++)
        cr_assert_eq(fired[i], sorted[i]->id);
    cr_assert_eq(timers.count, 0);
    cr_assert_null(timers.root);
}
