/*
 * test_node_direct.c - frames that the disk writes from where they were received: whatever ends
 * first, the write or the connection, what is stored is what was sent, and all memory comes back.
 *
 * The transport is that of the simulator with slots, which spoils memory as soon as it gets it back
 * (transport/sim/messages.c): a release that comes too early is seen as damage on the disk.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>

#include <cfsrepl/error.h>

#include "cluster.h"
#include "node/internal.h"
#include "transport/sim/control.h"

#define SECONDS 1000000ull

static struct cluster c;

/* Batches as large as the service's own. */
static void tune(struct cluster *cluster, struct test_site *site)
{
    site->options.batch_bytes = 256 << 10;
    site->options.seal = cluster->config.user != NULL ? CFSR_SEAL_REQUIRE : CFSR_SEAL_OFF;
}

static void make(struct cluster_config config)
{
    config.sites = 2;
    config.tune = tune;
    for (unsigned i = 0; i < SITES_MAX; i++)
        config.transport[i] = &cfsr_transport_sim_messages;
    cluster_make(&c, &config);
}

/* Of the cores of site 1: frames lent to the disk; of them those whose connection is gone. */
static unsigned lent(unsigned *held_out)
{
    unsigned count = 0, held = 0;

    for (uint32_t k = 0; k < c.site[1].cores; k++) {
        const struct cfsr_node_core *core = c.site[1].core[k];
        for (uint32_t i = 0; i < core->lent_count; i++) {
            const struct node_lent *one = &core->lents[i];
            if (one->lender == NULL || one->written)
                continue;
            count++;
            held += one->lender->conn == NULL;
        }
    }
    if (held_out != NULL)
        *held_out = held;
    return count;
}

/* Every place of the pools is free: none was lost on the way. */
static void expect_all_back(void)
{
    for (uint32_t k = 0; k < c.site[1].cores; k++) {
        const struct cfsr_node_core *core = c.site[1].core[k];
        uint32_t lents = 0, lenders = 0;
        for (uint32_t i = core->lent_free; i != UINT32_MAX; i = core->lents[i].next)
            lents++;
        for (struct node_lender *l = core->lender_free; l != NULL; l = l->next_free)
            lenders++;
        cr_assert_eq(lents, core->lent_count);
        cr_assert_eq(lenders, core->lent_count);
        for (uint32_t i = 0; i < core->conn_count; i++)
            cr_assert_null(core->conns[i].lender);
    }
}

static void expect_equal(uint64_t seed)
{
    cr_assert(cluster_run_until_equal(&c, 3000 * SECONDS), "seed %llu does not converge",
              (unsigned long long)seed);
    cluster_assert_equal(&c, 0, 1);
    expect_all_back();
}

/* Runs until so many frames are on their way to the disk of site 1. */
static bool run_until_lent(unsigned count)
{
    for (unsigned i = 0; i < 20000; i++) {
        if (lent(NULL) >= count)
            return true;
        cluster_step(&c);
    }
    return false;
}

Test(node_direct, large_batches_are_not_copied_and_small_ones_are_gathered)
{
    make((struct cluster_config){.seed = 1, .lanes = 2, .disk_latency_us = {0, 500}});
    site_append(&c, 0, 40, 100000);
    expect_equal(1);
    uint64_t batches = COUNTER(&c, 1, inbox_direct_batches);
    cr_assert_gt(batches, 0);
    cr_assert_geq(COUNTER(&c, 1, inbox_direct_bytes), batches * CFSR_NODE_DIRECT_BYTES);
    cr_assert_leq(batches, COUNTER(&c, 1, batches_received));
    for (unsigned i = 0; i < 20; i++) {
        site_append(&c, 0, 3, 300);
        cluster_run_us(&c, 20000);
    }
    expect_equal(1);
    cr_assert_eq(COUNTER(&c, 1, inbox_direct_batches), batches, "small ones go through a slot");
    cluster_remove(&c);
}

/* Opened where it is, in the received memory, and written from there: the disk has it plain. */
Test(node_direct, sealed_batches_are_written_from_where_they_were_opened)
{
    for (uint64_t seed = 600; seed < 606; seed++) {
        make((struct cluster_config){
            .seed = seed, .lanes = 2, .user = &c, .disk_latency_us = {0, 30000}});
        for (unsigned round = 0; round < 3; round++) {
            site_append(&c, 0, 15, 120000);
            (void)run_until_lent(2);
            (void)cfsr_sim_network_cut(c.network, "host1", "host2");
        }
        expect_equal(seed);
        cr_assert_gt(COUNTER(&c, 1, inbox_direct_batches), 0);
        cluster_remove(&c);
    }
}

Test(node_direct, a_byte_stream_is_copied)
{
    cluster_make(&c, &(struct cluster_config){.seed = 2, .sites = 2, .lanes = 1});
    site_append(&c, 0, 20, 100000);
    expect_equal(2);
    cr_assert_eq(COUNTER(&c, 1, inbox_direct_batches), 0);
    cluster_remove(&c);
}

Test(node_direct, a_disk_that_is_behind_gets_gathered_writes_and_holds_the_sender_back)
{
    struct cfsr_node_link_status l;

    make((struct cluster_config){
        .seed = 3, .lanes = 1, .window_bytes = 1 << 20, .disk_latency_us = {0, 200000}});
    site_append(&c, 0, 300, 60000);
    expect_equal(3);
    cr_assert(cluster_link(&c, 0, 1, &l));
    cr_assert_eq(l.counters.connects, 1);
    cr_assert_gt(COUNTER(&c, 1, inbox_direct_batches), 0);
    cr_assert_lt(COUNTER(&c, 1, inbox_direct_batches), COUNTER(&c, 1, batches_received),
                 "some were gathered");
    cluster_remove(&c);
}

/* The memory of a connection outlives it while the disk reads, and its place is used again. */
Test(node_direct, connections_end_while_their_frames_are_being_written)
{
    unsigned most = 0;

    for (uint64_t seed = 100; seed < 124; seed++) {
        make((struct cluster_config){.seed = seed,
                                     .lanes = 1 + seed % 2,
                                     .disk_latency_us = {0, 60000 * (seed % 3)},
                                     .recv_ring_bytes = 4 << 20});
        for (unsigned round = 0; round < 6; round++) {
            unsigned held;
            site_append(&c, 0, 15, 120000);
            (void)run_until_lent(1 + round % 4);
            (void)cfsr_sim_network_cut(c.network, "host1", "host2");
            cluster_run_us(&c, cluster_random(&c) % 2000);
            (void)lent(&held);
            most = held > most ? held : most;
        }
        expect_equal(seed);
        cluster_remove(&c);
    }
    cr_assert_gt(most, 2u, "nothing was held");
}

Test(node_direct, frames_behind_one_that_is_being_written_wait_for_it)
{
    make((struct cluster_config){.seed = 4, .lanes = 2, .disk_latency_us = {0, 100000}});
    site_append(&c, 0, 4, 200000);
    cr_assert(run_until_lent(1));
    for (unsigned i = 0; i < 30; i++) { /* small ones, and heartbeats */
        site_append(&c, 0, 1, 200);
        cluster_run_us(&c, 3000);
    }
    expect_equal(4);
    cluster_remove(&c);
}

Test(node_direct, random_cuts_converge)
{
    for (uint64_t seed = 200; seed < 240; seed++) {
        make((struct cluster_config){.seed = seed,
                                     .lanes = seed % 3 == 1 ? 2 : 1,
                                     .cores = {1, seed % 3 == 1 ? 2 : 1},
                                     .disk_latency_us = {0, seed % 5 * 5000},
                                     .cut_per_million = seed % 4 == 0 ? 20000 : 3000});
        for (unsigned round = 0; round < 4; round++) {
            site_append(&c, 0, 10, seed % 2 == 0 ? 300000 : 90000);
            cluster_run_us(&c, cluster_random(&c) % 200000);
        }
        expect_equal(seed);
        cluster_remove(&c);
    }
}

Test(node_direct, a_failed_write_gives_its_memory_back_too)
{
    for (uint64_t n = 1; n <= 24; n++) {
        make((struct cluster_config){.seed = 300 + n,
                                     .lanes = 1 + n % 2,
                                     .one_way = true,
                                     .disk_latency_us = {0, n % 3 * 20000}});
        site_append(&c, 0, 30, 120000);
        cluster_run_us(&c, 20000 + 500 * n);
        cfsr_fs_sim_fail_nth(c.site[1].fs, 1 + n % 5, -EIO);
        site_append(&c, 0, 30, 120000);
        if (n % 4 == 0 && run_until_lent(2))
            (void)cfsr_sim_network_cut(c.network, "host1", "host2");
        expect_equal(n);
        cr_assert_eq(COUNTER(&c, 0, peer_regressions), 0);
        cluster_remove(&c);
    }
}

Test(node_direct, power_cuts_of_the_receiver_converge)
{
    for (uint64_t seed = 400; seed < 416; seed++) {
        make((struct cluster_config){.seed = seed, .lanes = 1, .disk_latency_us = {0, 20000}});
        for (unsigned round = 0; round < 3; round++) {
            site_append(&c, 0, 25, 120000);
            (void)run_until_lent(1 + (unsigned)(cluster_random(&c) % 5));
            if (round == 1) { /* with nobody left who could take it back */
                (void)cfsr_sim_network_cut(c.network, "host1", "host2");
                cluster_run_us(&c, 500);
            }
            site_crash(&c, 1, (enum cfsr_persistence)(cluster_random(&c) % 4));
            cluster_run_us(&c, cluster_random(&c) % 100000);
            site_start(&c, 1);
        }
        expect_equal(seed);
        cr_assert_eq(COUNTER(&c, 0, peer_regressions), 0, "what was acked was lost");
        cluster_remove(&c);
    }
}

Test(node_direct, an_orderly_end_waits_for_what_is_lent)
{
    for (uint64_t seed = 500; seed < 512; seed++) {
        make((struct cluster_config){.seed = seed, .lanes = 2, .disk_latency_us = {0, 50000}});
        for (unsigned round = 0; round < 3; round++) {
            site_append(&c, 0, 25, 120000);
            (void)run_until_lent(1 + round);
            site_begin_stop(&c, 1);
            while (!site_is_drained(&c.site[1]))
                cluster_step(&c);
            expect_all_back();
            site_end_stop(&c, 1);
            site_start(&c, 1);
        }
        expect_equal(seed);
        cluster_remove(&c);
    }
}
