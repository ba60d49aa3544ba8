/*
 * test_node_transfer.c - what reaches the other sites when nothing much goes wrong.
 */
#include <criterion/criterion.h>
#include <stddef.h>

#include "cluster.h"

#define SECONDS 1000000ull

static struct cluster c;

Test(node_transfer, lanes_arrive_whole)
{
    cluster_make(&c, &(struct cluster_config){.seed = 1, .sites = 2, .lanes = 4});
    site_append(&c, 0, 500, 8000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(COUNTER(&c, 0, entries_tailed), 500);
    cr_assert_eq(COUNTER(&c, 1, entries_received), 500);
    cr_assert_eq(COUNTER(&c, 1, bad_frames), 0);
    cr_assert_eq(COUNTER(&c, 0, retransmitted_bytes), 0);
    cluster_remove(&c);
}

Test(node_transfer, both_directions_at_once)
{
    cluster_make(&c, &(struct cluster_config){.seed = 2, .sites = 2, .lanes = 4});
    for (unsigned round = 0; round < 20; round++) {
        site_append(&c, 0, 20, 20000);
        site_append(&c, 1, 30, 5000);
        cluster_run_us(&c, 3000);
    }
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_assert_equal(&c, 1, 0);
    cluster_remove(&c);
}

Test(node_transfer, jobs_may_finish_inside_their_submission)
{
    cluster_make(&c, &(struct cluster_config){.seed = 3, .sites = 2, .lanes = 2});
    c.site[0].queue_jobs = c.site[1].queue_jobs = false;
    site_append(&c, 0, 300, 30000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

Test(node_transfer, peers_in_step_share_one_encoding)
{
    cluster_make(&c, &(struct cluster_config){.seed = 4, .sites = 3, .lanes = 2});
    for (unsigned round = 0; round < 20; round++) {
        site_append(&c, 0, 40, 8000);
        cluster_run_us(&c, 5000);
    }
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_assert_equal(&c, 0, 2);
    cr_assert_gt(COUNTER(&c, 0, batches_shared), 0);
    cr_assert_lt(COUNTER(&c, 0, batches_encoded), COUNTER(&c, 0, batches_sent));
    cluster_remove(&c);
}

Test(node_transfer, core_counts_may_differ)
{
    static const uint32_t cores[][2] = {{1, 2}, {2, 1}, {2, 4}, {4, 2}, {4, 1}, {1, 4}};

    for (unsigned i = 0; i < sizeof cores / sizeof cores[0]; i++) {
        cluster_make(
            &c, &(struct cluster_config){
                    .seed = 5 + i, .sites = 2, .lanes = 8, .cores = {cores[i][0], cores[i][1]}});
        site_append(&c, 0, 300, 4000);
        site_append(&c, 1, 300, 4000);
        cr_assert(cluster_run_until_equal(&c, 20 * SECONDS), "%u and %u cores", cores[i][0],
                  cores[i][1]);
        cr_assert_leq(COUNTER(&c, 0, connects), cores[i][0] * (1 + cores[i][1]));
        cr_assert_leq(COUNTER(&c, 1, connects), cores[i][1] * (1 + cores[i][0]));
        cr_assert_eq(COUNTER(&c, 0, refused_out) + COUNTER(&c, 1, refused_out), 0,
                     "another core is no refusal");
        cluster_assert_equal(&c, 0, 1);
        cluster_assert_equal(&c, 1, 0);
        cluster_remove(&c);
    }
}

Test(node_transfer, a_peer_may_come_back_with_other_cores)
{
    static const uint32_t cores[] = {2, 8, 1, 4, 8, 2};

    cluster_make(&c, &(struct cluster_config){.seed = 11, .sites = 2, .lanes = 8, .cores = {1, 8}});
    for (unsigned i = 0; i < sizeof cores / sizeof cores[0]; i++) {
        site_append(&c, 0, 100, 4000);
        cr_assert(cluster_run_until_equal(&c, 60 * SECONDS), "with %u cores", c.site[1].cores);
        cluster_assert_equal(&c, 0, 1);
        site_stop(&c, 1);
        c.site[1].cores = cores[i];
        site_start(&c, 1);
    }
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_remove(&c);
}

Test(node_transfer, largest_records_and_long_pads)
{
    cluster_make(&c, &(struct cluster_config){.seed = 20, .sites = 2, .lanes = 2});
    site_append_lane(&c, 0, 0, 6, 1 << 20);
    site_append_lane(&c, 0, 1, 1, 100);
    site_append_lane(&c, 0, 1, 5, (1 << 20) - 7);
    site_append_lane(&c, 0, 1, 3, 0);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

Test(node_transfer, many_segments)
{
    cluster_make(&c, &(struct cluster_config){.seed = 21, .sites = 2, .lanes = 2});
    for (unsigned round = 0; round < 10; round++) {
        site_append(&c, 0, 60, 60000);
        site_append(&c, 0, 100, 200);
        cluster_run_us(&c, 20000);
    }
    cr_assert_gt(origin_head(c.site[0].origin[0]), 3 * CFSR_SEGMENT_BYTES_MIN);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

Test(node_transfer, memory_is_what_the_sum_says)
{
    cluster_make(&c, &(struct cluster_config){.seed = 22, .sites = 3, .lanes = 4});
    cr_assert_eq(c.site[0].io_bytes, cfsr_node_memory_bytes(&c.site[0].options));
    cluster_remove(&c);
}

Test(node_transfer, an_idle_pair_sleeps_between_heartbeats)
{
    cluster_make(&c, &(struct cluster_config){.seed = 23, .sites = 2, .lanes = 4});
    site_append(&c, 0, 100, 4000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    uint64_t steps = c.steps;
    c.spins = 0;
    cluster_run_us(&c, 60 * SECONDS);
    cr_assert_leq(c.spins, 2, "%llu turns with nothing to do", (unsigned long long)c.spins);
    cr_assert_lt(c.steps - steps, 60 * 60, "%llu steps in 60 s",
                 (unsigned long long)(c.steps - steps));
    struct cfsr_node_link_status link;
    cr_assert(cluster_link(&c, 0, 1, &link));
    cr_assert_eq(link.counters.connects, 1);
    cr_assert(link.rtt_us >= 200 && link.rtt_us < 10000, "rtt %llu us",
              (unsigned long long)link.rtt_us);
    cr_assert(link.clock_offset_us > -5000 && link.clock_offset_us < 5000);
    cluster_remove(&c);
}
