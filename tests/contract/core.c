/*
 * core.c - the least a core does for a transport: submit and reap its ring, fire its timers.
 */
#include "contract.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "core/ring.h"
#include "core/timer.h"

#include <criterion/criterion.h>

#include <stdlib.h>

void contract_core_create(struct contract_world *world)
{
    const struct cfsr_ring_options options = {.cpu = -1};

    cr_assert_eq(cfsr_ring_create(&options, &world->ring), 0, "ring: %s", cfsr_error_message());
    world->timers = calloc(1, sizeof *world->timers);
    cr_assert_not_null(world->timers);
    cfsr_timers_init(world->timers);
    world->turned_ns = cfsr_clock_monotonic_ns();
    world->timers_ns = world->turned_ns;
}

void contract_core_destroy(struct contract_world *world)
{
    cr_assert_eq(cfsr_timers_next_ns(world->timers), CFSR_TIMER_NEVER, "a timer was left armed");
    cr_assert_eq(cfsr_ring_in_flight(world->ring), 0u, "an operation was left in flight");
    free(world->timers);
    cfsr_ring_destroy(world->ring);
}

void contract_core_turn(struct contract_world *world, uint64_t wait_ns)
{
    uint64_t now_ns;

    cr_assert_geq(cfsr_ring_submit_and_reap(world->ring, wait_ns), 0);
    now_ns = cfsr_clock_monotonic_ns();
    world->timers_ns += cfsr_min_u64(now_ns - world->turned_ns, CONTRACT_TURN_NS);
    world->turned_ns = now_ns;
    (void)cfsr_timers_expire(world->timers, world->timers_ns);
}
