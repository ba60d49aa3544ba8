/*
 * test_node_faults.c - cuts, crashes, full and slow disks, restored copies: the sites end equal, or
 * say by name why not.
 */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/log.h"
#include "cluster.h"

#define SECONDS 1000000ull

static struct cluster c;
static struct cfsr_node_link_status l;

static void link_of(unsigned from, unsigned to)
{
    cr_assert(cluster_link(&c, from, to, &l));
}

/* Puts another disk in the place of a site's; the site is down. */
static void replace_disk(unsigned index, struct cfsr_fs *fs)
{
    struct test_site *site = &c.site[index];
    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        origin_close(site->origin[lane]);
        site->origin[lane] = NULL;
    }
    cfsr_fs_sim_destroy(site->fs);
    site->fs = fs;
    cfsr_fs_sim_advance(fs, c.now_us);
}

Test(node_faults, cut_connections_converge)
{
    for (uint64_t seed = 1000; seed < 1150; seed++) {
        bool two_way = seed % 2 == 0;
        cluster_make(&c, &(struct cluster_config){.seed = seed,
                                                  .sites = 2,
                                                  .lanes = seed % 3 == 1 ? 2 : 1,
                                                  .cores = {seed % 3 == 1 ? 2 : 1, 1},
                                                  .cut_per_million = seed % 4 == 0 ? 30000 : 3000});
        for (unsigned round = 0; round < 4; round++) {
            site_append(&c, 0, 10, seed % 5 == 0 ? 100000 : 6000);
            if (two_way)
                site_append(&c, 1, 10, 3000);
            cluster_run_us(&c, cluster_random(&c) % 200000);
        }
        cr_assert(cluster_run_until_equal(&c, 3000 * SECONDS), "seed %llu does not converge",
                  (unsigned long long)seed);
        cluster_assert_equal(&c, 0, 1);
        cluster_assert_equal(&c, 1, 0);
        cluster_remove(&c);
    }
}

Test(node_faults, power_cuts_at_the_receiver_converge)
{
    for (uint64_t seed = 2000; seed < 2024; seed++) {
        cluster_make(&c, &(struct cluster_config){.seed = seed, .sites = 2, .lanes = 2});
        for (unsigned round = 0; round < 3; round++) {
            site_append(&c, 0, 25, 60000);
            cluster_run_us(&c, 200 + cluster_random(&c) % 20000);
            site_crash(&c, 1, (enum cfsr_persistence)(cluster_random(&c) % 4));
            cluster_run_us(&c, cluster_random(&c) % 100000);
            site_start(&c, 1);
        }
        cr_assert(cluster_run_until_equal(&c, 100 * SECONDS), "seed %llu does not converge",
                  (unsigned long long)seed);
        cluster_assert_equal(&c, 0, 1);
        cr_assert_eq(COUNTER(&c, 0, peer_regressions), 0, "seed %llu: what was acked was lost",
                     (unsigned long long)seed);
        cluster_remove(&c);
    }
}

Test(node_faults, power_cuts_at_the_origin_converge)
{
    for (uint64_t seed = 3000; seed < 3024; seed++) {
        cluster_make(&c, &(struct cluster_config){.seed = seed, .sites = 2, .lanes = 2});
        for (unsigned round = 0; round < 3; round++) {
            site_append(&c, 0, 25, 60000);
            cluster_run_us(&c, 200 + cluster_random(&c) % 20000);
            site_crash(&c, 0, (enum cfsr_persistence)(cluster_random(&c) % 4));
            cluster_run_us(&c, cluster_random(&c) % 100000);
            site_start(&c, 0);
        }
        cr_assert(cluster_run_until_equal(&c, 100 * SECONDS), "seed %llu does not converge",
                  (unsigned long long)seed);
        cluster_assert_equal(&c, 0, 1);
        cluster_remove(&c);
    }
}

Test(node_faults, the_daemon_alone_may_restart)
{
    cluster_make(&c, &(struct cluster_config){.seed = 30, .sites = 2, .lanes = 2});
    for (unsigned round = 0; round < 6; round++) {
        site_append(&c, 0, 30, 30000);
        cluster_run_us(&c, 3000);
        site_stop(&c, round % 2);
        cluster_run_us(&c, 100000);
        site_start(&c, round % 2);
    }
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

Test(node_faults, a_slow_disk_holds_the_sender_back)
{
    uint64_t most = 0;

    cluster_make(&c, &(struct cluster_config){.seed = 31,
                                              .sites = 2,
                                              .lanes = 4,
                                              .window_bytes = 1 << 20,
                                              .disk_latency_us = {0, 700000}});
    site_append(&c, 0, 300, 60000);
    for (unsigned i = 0; i < 3000 && !cluster_run_until_equal(&c, 1); i++) {
        link_of(0, 1);
        most = l.in_flight_bytes > most ? l.in_flight_bytes : most;
    }
    cr_assert(cluster_run_until_equal(&c, 200 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    link_of(0, 1);
    cr_assert_eq(l.counters.connects, 1, "%llu connections",
                 (unsigned long long)l.counters.connects);
    cr_assert_eq(l.counters.timeouts, 0);
    cr_assert(most > 512 << 10 && most <= (1 << 20) + CFSR_CODEC_INPUT_MAX_BYTES, "%llu in flight",
              (unsigned long long)most);
    cr_assert_lt(c.spins, c.steps / 10, "%llu of %llu steps had nothing to do",
                 (unsigned long long)c.spins, (unsigned long long)c.steps);
    cluster_remove(&c);
}

Test(node_faults, a_full_disk_stalls_and_goes_on_by_itself)
{
    struct cfsr_file *ballast;
    uint64_t free_bytes, total_bytes;

    cluster_make(&c, &(struct cluster_config){
                         .seed = 32, .sites = 2, .lanes = 2, .disk_bytes = {0, 128 << 20}});
    cluster_run_us(&c, SECONDS);
    struct cfsr_fs *fs = c.site[1].fs;
    cr_assert_eq(fs->ops->space(fs, "/data", &free_bytes, &total_bytes), 0);
    cr_assert_eq(cfsr_file_open(fs, "/data/ballast", CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &ballast),
                 0);
    cr_assert_eq(cfsr_file_allocate(ballast, 0, free_bytes - (5 << 20)), 0);
    cfsr_file_close(ballast);

    site_append(&c, 0, 400, 100000);
    cr_assert_not(cluster_run_until_equal(&c, 60 * SECONDS));
    link_of(0, 1);
    cr_assert_eq(l.state, CFSR_LINK_STALLED);
    cr_assert_str_eq(l.reason, "peer_not_accepting");
    cr_assert_eq(l.peer_backpressure_pct, 100);
    cr_assert_eq(l.counters.connects, 1, "%llu connections",
                 (unsigned long long)l.counters.connects);
    cr_assert_gt(COUNTER(&c, 1, stall_no_segment), 0);
    c.spins = 0;
    uint64_t steps = c.steps;
    cluster_run_us(&c, 60 * SECONDS);
    cr_assert_lt(c.spins, 100, "%llu turns with nothing to do", (unsigned long long)c.spins);
    cr_assert_lt(c.steps - steps, 60 * 100);

    cr_assert_eq(fs->ops->unlink(fs, "/data/ballast"), 0);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    link_of(0, 1);
    cr_assert_eq(l.counters.connects, 1, "%llu connections",
                 (unsigned long long)l.counters.connects);
    cr_assert_eq(l.peer_backpressure_pct, 0);
    cr_assert_eq(l.state, CFSR_LINK_STREAMING);
    cluster_remove(&c);
}

Test(node_faults, a_partition_is_noticed_and_healed)
{
    cluster_make(&c, &(struct cluster_config){.seed = 33, .sites = 2, .lanes = 2});
    site_append(&c, 0, 50, 4000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    for (unsigned way = 0; way < 3; way++) {
        if (way != 1)
            cfsr_sim_network_partition(c.network, "host1", "host2", true);
        if (way != 0)
            cfsr_sim_network_partition(c.network, "host2", "host1", true);
        site_append(&c, 0, 200, 60000); /* more than the network holds: nothing of it leaves */
        c.spins = 0;
        cluster_run_us(&c, 40 * SECONDS);
        link_of(0, 1);
        cr_assert_eq(l.state, CFSR_LINK_STALLED, "way %u: %s", way, cfsr_link_state_name(l.state));
        cr_assert_lt(c.spins, 1000, "way %u: %llu turns with nothing to do", way,
                     (unsigned long long)c.spins);
        cfsr_sim_network_partition(c.network, "host1", "host2", false);
        cfsr_sim_network_partition(c.network, "host2", "host1", false);
        cr_assert(cluster_run_until_equal(&c, 60 * SECONDS), "way %u", way);
        cluster_assert_equal(&c, 0, 1);
    }
    cluster_remove(&c);
}

Test(node_faults, draining_ends_when_the_peer_is_silent)
{
    cluster_make(&c, &(struct cluster_config){.seed = 34, .sites = 2, .lanes = 2});
    site_append(&c, 0, 50, 4000);
    site_append(&c, 1, 50, 4000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cfsr_sim_network_partition(c.network, "host1", "host2", true);
    cfsr_sim_network_partition(c.network, "host2", "host1", true);
    site_append(&c, 0, 100, 60000);
    cluster_run_us(&c, 5 * SECONDS); /* the control slots are taken by heartbeats nobody receives */
    site_stop(&c, 0);
    cluster_remove(&c);
}

Test(node_faults, a_restored_receiver_is_refilled)
{
    cluster_make(&c, &(struct cluster_config){.seed = 35, .sites = 2, .lanes = 2});
    site_append(&c, 0, 60, 20000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    struct cfsr_fs *copy = site_copy_disk(&c, 1);
    site_append(&c, 0, 60, 20000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    site_stop(&c, 1);
    replace_disk(1, copy);
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(COUNTER(&c, 0, peer_regressions), 2, "one a lane");
    link_of(0, 1);
    cr_assert_gt(l.counters.retransmitted_bytes, 0);
    cluster_remove(&c);
}

/* The new lane map's links know what the old ones knew: where the peer stood. Once only: what it
 * was refilled with is not asked for again. */
Test(node_faults, a_peer_restored_with_other_cores_raises_its_alarm)
{
    cluster_make(&c, &(struct cluster_config){.seed = 36, .sites = 2, .lanes = 4});
    site_append(&c, 0, 60, 20000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    struct cfsr_fs *copy = site_copy_disk(&c, 1);
    site_append(&c, 0, 60, 20000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    site_stop(&c, 1);
    replace_disk(1, copy);
    c.site[1].cores = 4;
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(COUNTER(&c, 0, peer_regressions), 4, "one a lane");
    site_stop(&c, 1);
    c.site[1].cores = 2;
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cr_assert_eq(COUNTER(&c, 0, peer_regressions), 4, "it did not go back again");
    cluster_remove(&c);
}

/* entries: written after the restore. None: the peer's cursor is above our end; many: another
 * record ends there. */
static void restored_origin(uint64_t seed, unsigned entries)
{
    cluster_make(&c, &(struct cluster_config){.seed = seed, .sites = 2, .lanes = 1});
    site_append(&c, 0, 30, 20000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    struct cfsr_fs *copy = site_copy_disk(&c, 0);
    site_append(&c, 0, 30, 20000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    uint64_t stored = COUNTER(&c, 1, entries_received);
    site_stop(&c, 0);
    replace_disk(0, copy);
    site_start(&c, 0);
    if (entries > 0)
        site_append(&c, 0, entries, 20000);
    cr_assert_not(cluster_run_until_equal(&c, 100 * SECONDS));
    link_of(0, 1);
    cr_assert_eq(l.state, CFSR_LINK_FAULTED);
    cr_assert_str_eq(l.reason, "journal_forked");
    cr_assert_gt(l.fault_lsn, 0);
    cr_assert_eq(COUNTER(&c, 1, entries_received), stored, "nothing of another history is stored");
    cr_assert_eq(COUNTER(&c, 0, batches_sent), 0);
    cr_assert_leq(l.counters.connects, 8, "a faulted link asks slowly");
    cluster_remove(&c);
}

Test(node_faults, a_restored_origin_that_is_behind_is_forked)
{
    restored_origin(36, 0);
}
Test(node_faults, a_restored_origin_that_went_on_is_forked)
{
    restored_origin(37, 300);
}

Test(node_faults, a_range_that_is_gone_needs_a_bootstrap)
{
    /* Never had anything; had the beginning; reads while it goes. */
    for (unsigned i = 0; i < 2; i++) {
        cluster_make(&c, &(struct cluster_config){.seed = 38 + i, .sites = 2, .lanes = 1});
        if (i == 1) {
            site_append(&c, 0, 10, 20000);
            cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
        }
        site_stop(&c, 1);
        site_append_lane(&c, 0, 0, 100, 100000);
        for (unsigned n = 0; n < 3; n++)
            origin_recycle_lowest(c.site[0].origin[0]);
        site_start(&c, 1);
        cr_assert_not(cluster_run_until_equal(&c, 20 * SECONDS));
        link_of(0, 1);
        cr_assert_eq(l.state, CFSR_LINK_FAULTED);
        cr_assert_str_eq(l.reason, "needs_bootstrap");
        cluster_remove(&c);
    }
}

Test(node_faults, a_segment_recycled_under_a_lagging_reader_needs_a_bootstrap)
{
    cluster_make(&c, &(struct cluster_config){.seed = 41,
                                              .sites = 2,
                                              .lanes = 1,
                                              .window_bytes = 256 << 10,
                                              .disk_latency_us = {0, 100000}});
    site_append_lane(&c, 0, 0, 60, 100000);
    cluster_run_us(&c, SECONDS / 2);
    for (unsigned n = 0; n < 2; n++)
        origin_recycle_lowest(c.site[0].origin[0]);
    site_append_lane(&c, 0, 0, 60, 100000); /* the recycled segments are written again */
    cr_assert_not(cluster_run_until_equal(&c, 25 * SECONDS));
    link_of(0, 1);
    cr_assert_eq(l.state, CFSR_LINK_FAULTED, "%s %s", cfsr_link_state_name(l.state), l.reason);
    cr_assert_str_eq(l.reason, "needs_bootstrap");
    cluster_remove(&c);
}

Test(node_faults, rot_in_the_journal_is_named_and_not_sent)
{
    char path[128];

    cluster_make(&c, &(struct cluster_config){.seed = 42, .sites = 2, .lanes = 1});
    site_stop(&c, 1);
    site_append_lane(&c, 0, 0, 20, 10000);
    snprintf(path, sizeof path, "/data/journal/00/%016x.seg", 0);
    cr_assert_eq(cfsr_fs_sim_flip_bit(c.site[0].fs, path, (4096 + 100000) * 8), 0);
    site_start(&c, 1);
    cr_assert_not(cluster_run_until_equal(&c, 10 * SECONDS));
    link_of(0, 1);
    cr_assert_eq(l.state, CFSR_LINK_FAULTED);
    cr_assert_str_eq(l.reason, "damaged");
    cr_assert_geq(l.fault_lsn, 80000);
    cr_assert_leq(l.fault_lsn, 100000);
    /* Repaired, it goes on. */
    cr_assert_eq(cfsr_fs_sim_flip_bit(c.site[0].fs, path, (4096 + 100000) * 8), 0);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

/* What the site's day may bring, and other core counts when it comes back. */
static void trouble(void)
{
    unsigned victim = (unsigned)(cluster_random(&c) % 3);

    switch (cluster_random(&c) % 5) {
    case 0:
        site_crash(&c, victim, (enum cfsr_persistence)(cluster_random(&c) % 4));
        cluster_run_us(&c, cluster_random(&c) % (3 * SECONDS));
        c.site[victim].cores = 1 + (uint32_t)(cluster_random(&c) % 4);
        site_start(&c, victim);
        break;
    case 1:
        site_stop(&c, victim);
        c.site[victim].cores = 1 + (uint32_t)(cluster_random(&c) % 4);
        site_start(&c, victim);
        break;
    case 2:
        cfsr_sim_network_partition(c.network, "host1", "host2", true);
        cluster_run_us(&c, cluster_random(&c) % (30 * SECONDS));
        cfsr_sim_network_partition(c.network, "host1", "host2", false);
        break;
    default: break;
    }
}

Test(node_faults, everything_at_once_converges)
{
    for (uint32_t seed = 25; seed < 30; seed++) {
        cluster_make(&c,
                     &(struct cluster_config){.seed = seed,
                                              .sites = 3,
                                              .lanes = 4,
                                              .cores = {1 + seed % 4, 1 + seed / 3 % 4, 2},
                                              .cut_per_million = 2000 * (uint32_t)(seed % 3),
                                              .window_bytes = 256 << 10,
                                              .disk_latency_us = {0, seed % 5 == 0 ? 20000 : 0}});
        for (unsigned round = 0; round < 6; round++) {
            for (unsigned i = 0; i < 3; i++)
                site_append(&c, i, 8, cluster_random(&c) % 8 == 0 ? 400000 : 9000);
            cluster_run_us(&c, cluster_random(&c) % 300000);
            trouble();
        }
        cr_assert(cluster_run_until_equal(&c, 1000 * SECONDS), "seed %llu does not converge",
                  (unsigned long long)seed);
        for (unsigned from = 0; from < 3; from++)
            for (unsigned at = 0; at < 3; at++)
                if (from != at)
                    cluster_assert_equal(&c, from, at);
        cluster_remove(&c);
    }
}
