/*
 * test_sim.c - what only the simulated network can promise: one seed, one run; and its faults.
 */
#include "contract.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>

static struct contract_world *create_world(uint64_t seed, uint32_t cut_per_million)
{
    const struct contract_options options = {
        .scheme = "sim",
        .sim = {.seed = seed,
                .delay_min_us = 5,
                .delay_max_us = 900,
                .cut_per_million = cut_per_million,
                .chunk_max_bytes = 7000,
                .buffer_bytes = 100000},
    };
    return contract_world_create(&options);
}

static void end_all(struct contract_world *world, struct contract_end **near_ends, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        contract_close(near_ends[i], false);
        contract_until(world, contract_is_closed, near_ends[i], "the near end closes");
    }
    for (unsigned i = 0; i < world->far_count; i++) {
        contract_close(&world->far_ends[i], false);
        contract_until(world, contract_is_closed, &world->far_ends[i], "the far end closes");
    }
}

/* A digest of every upcall of a run: order, time and size. */
static uint64_t run_digest(uint64_t seed)
{
    enum {
        COUNT = 4
    };
    struct contract_world *world = create_world(seed, 3000);
    struct contract_end *near_ends[COUNT];
    uint64_t digest = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        near_ends[i] = contract_end_create(world);
        cr_assert_eq(contract_dial(world, world->endpoint, 5000, near_ends[i]), 0);
    }
    for (unsigned n = 0; n < 300; n++) {
        for (unsigned i = 0; i < COUNT; i++)
            if (near_ends[i]->connected > 0 && near_ends[i]->closed == 0 && n < 100)
                (void)contract_send(near_ends[i], CFSR_STREAM_DATA, 100 * n + i, 1 + i % 4);
        contract_turn(world);
    }
    end_all(world, near_ends, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        digest = digest * 31 + near_ends[i]->digest;
    for (unsigned i = 0; i < world->far_count; i++)
        digest = digest * 31 + world->far_ends[i].digest;
    for (unsigned i = 0; i < COUNT; i++)
        contract_end_destroy(near_ends[i]);
    contract_world_destroy(world);
    return digest;
}

Test(sim, same_seed_gives_the_same_run, .timeout = 60)
{
    uint64_t first = run_digest(42);

    cr_assert_eq(run_digest(42), first);
    cr_assert_neq(run_digest(43), first, "the seed changes nothing");
}

Test(sim, connections_are_cut_in_the_middle_of_frames, .timeout = 60)
{
    unsigned cut = 0;
    unsigned inside = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct contract_world *world = create_world(seed, 20000);
        struct contract_end *near_end = contract_end_create(world);
        struct contract_end *far_end = contract_pair(world, near_end);
        for (unsigned n = 0; n < 200 && near_end->closed == 0; n++) {
            if (near_end->queued < 30)
                (void)contract_send(near_end, CFSR_STREAM_DATA, 30000, 2);
            contract_turn(world);
        }
        if (near_end->closed > 0) {
            contract_until(world, contract_is_closed, far_end, "the far end closes");
            cr_assert_eq(near_end->reason, -ECONNRESET);
            cr_assert_eq(far_end->reason, -ECONNRESET);
            cut++;
            inside += far_end->last_untaken > 0;
        }
        cr_assert_eq(far_end->bad_frames, 0u, "seed %llu", (unsigned long long)seed);
        end_all(world, &near_end, 1);
        contract_end_destroy(near_end);
        contract_world_destroy(world);
    }
    cr_assert_gt(cut, 10u);
    cr_assert_gt(inside, 5u);
}

static bool has_ten(void *user)
{
    return ((struct contract_end *)user)->received[CFSR_STREAM_DATA] >= 10;
}

Test(sim, partition_blocks_one_direction_until_healed, .timeout = 60)
{
    struct contract_world *world = create_world(7, 0);
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    cfsr_sim_network_partition(world->network, "a", "b", true);
    for (unsigned n = 0; n < 10; n++) {
        contract_send_all(near_end, CFSR_STREAM_DATA, 500, 1);
        contract_send_all(far_end, CFSR_STREAM_DATA, 500, 1);
    }
    contract_until(world, has_ten, near_end, "the other direction still works");
    contract_turns(world, 1000);
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 0u);
    cfsr_sim_network_partition(world->network, "a", "b", false);
    contract_until(world, has_ten, far_end, "nothing was lost");
    end_all(world, &near_end, 1);
    contract_end_destroy(near_end);
    contract_world_destroy(world);
}

Test(sim, connect_timeout, .timeout = 60)
{
    struct contract_world *world = create_world(7, 0);
    struct contract_end *near_end = contract_end_create(world);
    uint64_t begun_us = world->now_us;

    cfsr_sim_network_partition(world->network, "b", "a",
                               true); /* it arrives, the answer does not */
    cr_assert_eq(contract_dial(world, world->endpoint, 250, near_end), 0);
    contract_until(world, contract_is_closed, near_end, "the dial is given up");
    cr_assert_eq(near_end->reason, -ETIMEDOUT);
    cr_assert_geq(world->now_us - begun_us, 250000u);
    end_all(world, &near_end, 1);
    contract_end_destroy(near_end);
    contract_world_destroy(world);
}

Test(sim, unsupported_preamble_is_dropped_and_a_good_one_gets_through, .timeout = 60)
{
    struct contract_world *world = create_world(9, 0);
    struct contract_end *bad_end = contract_end_create(world);
    struct contract_end *near_end = contract_end_create(world);
    struct cfsr_preamble wrong = {.version = 99};

    cr_assert_eq(world->transport->connect(world->group[CONTRACT_NEAR], world->endpoint, &wrong,
                                           1000000000u, &contract_events, bad_end, &bad_end->conn),
                 0);
    contract_until(world, contract_is_closed, bad_end, "the stranger is refused");
    cr_assert_eq(bad_end->reason, -ECONNRESET);
    (void)contract_pair(world, near_end);
    cr_assert_eq(world->far_count, 1u);
    cr_assert_eq(world->transport->listener_dropped(world->listener), 1u);
    end_all(world, &near_end, 1);
    contract_end_destroy(bad_end);
    contract_end_destroy(near_end);
    contract_world_destroy(world);
}

/* Sent in one order over many connections, received in another: the delays are each its own. */
Test(sim, connections_overtake_each_other, .timeout = 60)
{
    enum {
        COUNT = 16
    };
    struct contract_world *world = create_world(11, 0);
    struct contract_end *near_ends[COUNT];
    unsigned overtakes = 0;
    bool seen[COUNT] = {0};

    for (unsigned i = 0; i < COUNT; i++) {
        near_ends[i] = contract_end_create(world);
        (void)contract_pair(world, near_ends[i]);
    }
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(contract_send(near_ends[i], CFSR_STREAM_DATA, 10, 1), 1);
    for (unsigned n = 0; n < 1000; n++) {
        contract_turn(world);
        for (unsigned i = 0; i < COUNT; i++) {
            if (seen[i] || world->far_ends[i].received[CFSR_STREAM_DATA] == 0)
                continue;
            seen[i] = true;
            overtakes += i > 0 && !seen[i - 1];
        }
    }
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert(seen[i]);
    cr_assert_gt(overtakes, 0u);
    end_all(world, near_ends, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        contract_end_destroy(near_ends[i]);
    contract_world_destroy(world);
}
