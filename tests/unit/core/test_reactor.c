/* test_reactor.c - the core loop: turns, sleep and wake-up without loss, timers, stalls, CPU
 * checks. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/clock.h"
#include "core/idle.h"
#include "core/reactor.h"

static struct cfsr_reactor *make(const struct cfsr_reactor_options *options)
{
    struct cfsr_reactor *reactor = NULL;
    int rc = cfsr_reactor_create(options, &reactor);

    if (rc == -CFSR_E_NO_IO_URING)
        cr_skip_test("%s", cfsr_error_message());
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    return reactor;
}

static uint64_t counter(const struct cfsr_reactor *reactor, enum cfsr_core_counter which)
{
    return cfsr_counter_get(&cfsr_reactor_stats(reactor)->counters[which]);
}

static unsigned no_work(void *user, uint64_t now_ns)
{
    (void)user;
    (void)now_ns;
    return 0;
}

Test(reactor, a_turn_makes_one_system_call)
{
    struct cfsr_reactor_options options = {.cpu = -1, .slot_bytes = 4096, .slots = 4};
    struct cfsr_reactor *reactor = make(&options);
    struct cfsr_reactor_handler handler = {.tick = no_work};
    uint64_t before = counter(reactor, CFSR_CORE_COUNTER_enters);
    unsigned i;

    for (i = 0; i < 100; i++)
        cr_assert_eq(cfsr_reactor_turn(reactor, &handler), 0);
    cr_assert_eq(counter(reactor, CFSR_CORE_COUNTER_enters), before + 100);
    cr_assert_eq(counter(reactor, CFSR_CORE_COUNTER_turns), 100);
    cr_assert_eq(counter(reactor, CFSR_CORE_COUNTER_idle_turns), 100);
    cr_assert_not_null(cfsr_reactor_slab(reactor));
    cfsr_reactor_destroy(reactor);
}

struct pinger {
    pthread_t thread;
    struct cfsr_reactor *reactor;
    uint64_t count;
    _Atomic uint64_t received;
};

static void received(const struct cfsr_message *message)
{
    struct pinger *pinger = message->object;

    atomic_fetch_add(&pinger->received, 1);
}

/* Waits for each message to be taken before the next: every one meets a core that sleeps or is
 * about to. */
static void *ping(void *argument)
{
    struct pinger *pinger = argument;
    struct cfsr_message message = {.run = received, .object = pinger};
    uint64_t i;

    for (i = 0; i < pinger->count; i++) {
        while (!cfsr_reactor_post(pinger->reactor, &message))
            sched_yield();
        while (atomic_load(&pinger->received) == i)
            sched_yield();
        if (i % 64 == 0)
            usleep(300);
    }
    cfsr_reactor_stop(pinger->reactor);
    return NULL;
}

Test(reactor, no_wake_up_is_lost)
{
    struct cfsr_reactor_options options = {.cpu = -1, .idle_spin_us = 0};
    struct cfsr_reactor *reactor = make(&options);
    struct cfsr_reactor_handler handler = {.tick = no_work};
    struct pinger pinger = {.reactor = reactor, .count = 20000};
    uint64_t sleeps, turns;

    cr_assert_eq(pthread_create(&pinger.thread, NULL, ping, &pinger), 0);
    cr_assert_eq(cfsr_reactor_run(reactor, &handler), 0);
    pthread_join(pinger.thread, NULL);
    cr_assert_eq(pinger.received, 20000);
    sleeps = counter(reactor, CFSR_CORE_COUNTER_sleeps);
    turns = counter(reactor, CFSR_CORE_COUNTER_turns);
    cr_assert_gt(sleeps, 100, "it did sleep");
    cr_assert_lt(turns, 400000, "and did not spin");
    cr_assert_geq(counter(reactor, CFSR_CORE_COUNTER_messages), 20000);
    cfsr_reactor_destroy(reactor);
}

struct ticker {
    struct cfsr_timer timer;
    struct cfsr_reactor *reactor;
    unsigned fired;
};

static void tick_fired(struct cfsr_timer *timer, uint64_t now_ns)
{
    struct ticker *ticker = (struct ticker *)timer;

    if (++ticker->fired == 5)
        cfsr_reactor_stop(ticker->reactor);
    else
        cfsr_timer_add(cfsr_reactor_timers(ticker->reactor), timer, now_ns + 2000 * 1000);
}

Test(reactor, timers_end_a_sleep)
{
    struct cfsr_reactor_options options = {.cpu = -1, .idle_spin_us = 0};
    struct ticker ticker = {.reactor = make(&options)};
    struct cfsr_reactor_handler handler = {.tick = no_work};
    uint64_t begin_ns = cfsr_clock_monotonic_ns();

    cfsr_timer_init(&ticker.timer, tick_fired);
    cfsr_timer_add(cfsr_reactor_timers(ticker.reactor), &ticker.timer, begin_ns + 2000 * 1000);
    cr_assert_eq(cfsr_reactor_run(ticker.reactor, &handler), 0);
    cr_assert_eq(ticker.fired, 5);
    cr_assert_geq(cfsr_clock_monotonic_ns() - begin_ns, 10u * 1000 * 1000);
    cr_assert_eq(counter(ticker.reactor, CFSR_CORE_COUNTER_timers_fired), 5);
    cr_assert_gt(counter(ticker.reactor, CFSR_CORE_COUNTER_sleeps), 0);
    cfsr_reactor_destroy(ticker.reactor);
}

struct restless {
    struct cfsr_reactor *reactor;
    unsigned ticks;
    uint64_t deadline_ns;
};

static unsigned restless_tick(void *user, uint64_t now_ns)
{
    struct restless *restless = user;

    if (++restless->ticks == 1000 ||
        (restless->deadline_ns != 0 && now_ns >= restless->deadline_ns))
        cfsr_reactor_stop(restless->reactor);
    return 0;
}

static bool never(void *user)
{
    (void)user;
    return false;
}

static uint64_t restless_deadline(void *user)
{
    return ((struct restless *)user)->deadline_ns;
}

Test(reactor, the_handler_may_forbid_sleep)
{
    struct cfsr_reactor_options options = {.cpu = -1, .idle_spin_us = 0};
    struct restless restless = {.reactor = make(&options)};
    struct cfsr_reactor_handler handler = {
        .user = &restless, .tick = restless_tick, .may_sleep = never};

    cr_assert_eq(cfsr_reactor_run(restless.reactor, &handler), 0);
    cr_assert_eq(restless.ticks, 1000);
    cr_assert_eq(counter(restless.reactor, CFSR_CORE_COUNTER_sleeps), 0);
    cfsr_reactor_destroy(restless.reactor);
}

Test(reactor, the_handler_names_its_deadline)
{
    struct cfsr_reactor_options options = {.cpu = -1, .idle_spin_us = 0};
    struct restless restless = {.reactor = make(&options)};
    struct cfsr_reactor_handler handler = {
        .user = &restless, .tick = restless_tick, .next_deadline_ns = restless_deadline};

    restless.deadline_ns = cfsr_clock_monotonic_ns() + 20 * 1000 * 1000;
    cr_assert_eq(cfsr_reactor_run(restless.reactor, &handler), 0);
    cr_assert_geq(cfsr_clock_monotonic_ns(), restless.deadline_ns);
    cr_assert_lt(restless.ticks, 100, "slept until then");
    cfsr_reactor_destroy(restless.reactor);
}

static unsigned slow_tick(void *user, uint64_t now_ns)
{
    (void)now_ns;
    cfsr_reactor_step(user, "quick");
    cfsr_reactor_step(user, "slow");
    usleep(5000);
    cfsr_reactor_step(user, "quick");
    return 1;
}

Test(reactor, a_stall_is_counted_and_named)
{
    struct cfsr_reactor_options options = {.cpu = -1};
    struct cfsr_reactor *reactor = make(&options);
    struct cfsr_reactor_handler handler = {.user = reactor, .tick = slow_tick};
    const struct cfsr_core_stats *stats = cfsr_reactor_stats(reactor);

    cr_assert_eq(cfsr_reactor_turn(reactor, &handler), 1);
    cr_assert_eq(counter(reactor, CFSR_CORE_COUNTER_stalls), 1);
    cr_assert_str_eq(atomic_load(&stats->stall_name), "slow");
    cr_assert_geq(cfsr_counter_get(&stats->stall_worst_ns), 5000000);
    cr_assert_eq(cfsr_counter_get(&stats->stages[CFSR_CORE_STAGE_turn].count), 1);
    cfsr_reactor_destroy(reactor);
}

Test(reactor, binds_to_its_cpu_and_refuses_one_beyond_the_machine)
{
    struct cfsr_reactor_options options = {.cpu = 0};
    struct cfsr_reactor *reactor = NULL;

    if (cfsr_cpu_validate(0) < 0)
        cr_skip_test("%s", cfsr_error_message());
    reactor = make(&options);
    cr_assert_eq(sched_getcpu(), 0);
    cr_assert_eq(cfsr_reactor_tid(reactor), gettid());
    cfsr_reactor_destroy(reactor);
    reactor = NULL;
    options.cpu = 1000;
    cr_assert_eq(cfsr_reactor_create(&options, &reactor), -CFSR_E_CONFIG);
    cr_assert(strstr(cfsr_error_message(), "CPU 1000") != NULL, "%s", cfsr_error_message());
    cr_assert_null(reactor);
    cr_assert_eq(cfsr_cpu_validate(-1), -CFSR_E_CONFIG);
}

Test(idle, sleeps_after_the_spin_until_the_deadline)
{
    struct cfsr_idle idle = {.spin_ns = 100};

    cfsr_idle_worked(&idle, 1000);
    cr_assert_not(cfsr_idle_is_due(&idle, 1099));
    cr_assert(cfsr_idle_is_due(&idle, 1100));
    cr_assert_eq(cfsr_idle_sleep_ns(1000, 1000), 0);
    cr_assert_eq(cfsr_idle_sleep_ns(1000, 900), 0);
    cr_assert_eq(cfsr_idle_sleep_ns(1000, 1500), 500);
    cr_assert_eq(cfsr_idle_sleep_ns(1000, UINT64_MAX), CFSR_IDLE_SLEEP_MAX_NS);
}

Test(stats, every_counter_and_stage_has_a_name)
{
    unsigned i;

    for (i = 0; i < CFSR_CORE_COUNTERS; i++) {
        cr_assert_gt(strlen(cfsr_core_counter_name((enum cfsr_core_counter)i)), 0);
        cr_assert_gt(strlen(cfsr_core_counter_help((enum cfsr_core_counter)i)), 0);
    }
    cr_assert_str_eq(cfsr_core_counter_name(CFSR_CORE_COUNTER_enters), "enters");
    cr_assert_str_eq(cfsr_core_stage_name(CFSR_CORE_STAGE_decode), "decode");
}
