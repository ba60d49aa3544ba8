/*
 * test_node_heal.c - writes of the inbox that fail: nothing is acknowledged that is not on the
 * disk, and the lane goes on by itself behind what is.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "cluster.h"
#include "core/file_sim.h"

#define SECONDS 1000000ull

static struct cluster c;

static void make(uint64_t seed, uint32_t lanes)
{
    cluster_make(
        &c, &(struct cluster_config){.seed = seed, .sites = 2, .lanes = lanes, .one_way = true});
}

/* A power cut now loses nothing that was acknowledged. */
static void expect_acked_is_durable(uint64_t seed, enum cfsr_persistence model)
{
    uint64_t before = COUNTER(&c, 0, peer_regressions);

    site_crash(&c, 1, model);
    cluster_run_us(&c, 10000);
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 300 * SECONDS), "seed %llu does not converge",
              (unsigned long long)seed);
    cr_assert_eq(COUNTER(&c, 0, peer_regressions), before, "seed %llu: what was acked was lost",
                 (unsigned long long)seed);
    cluster_assert_equal(&c, 0, 1);
}

Test(node_heal, one_failed_write_is_begun_anew_behind_what_is_durable)
{
    for (uint64_t n = 1; n <= 24; n++) {
        make(n, 1);
        site_append(&c, 0, 60, 20000);
        cluster_run_us(&c, 20000 + 500 * n);
        cfsr_fs_sim_set_sync_failures(
            c.site[1].fs, 0, n % 2 == 0 ? CFSR_SYNC_FAILURE_KEPT : CFSR_SYNC_FAILURE_DROPPED);
        cfsr_fs_sim_fail_nth(c.site[1].fs, 1 + n % 3, -EIO);
        site_append(&c, 0, 60, 20000);
        cr_assert(cluster_run_until_equal(&c, 60 * SECONDS), "seed %llu", (unsigned long long)n);
        cr_assert_eq(COUNTER(&c, 1, inbox_lane_reopened), COUNTER(&c, 1, inbox_write_errors) > 0);
        cr_assert_eq(COUNTER(&c, 0, peer_regressions), 0);
        cluster_assert_equal(&c, 0, 1);
        cfsr_fs_sim_fail_nth(c.site[1].fs, 0, 0);
        site_append(&c, 0, 40, 20000);
        cluster_run_us(&c, cluster_random(&c) % 30000);
        expect_acked_is_durable(n, (enum cfsr_persistence)(n % 4));
        cluster_remove(&c);
    }
}

/* Every lane fails again and again, also while it is begun anew. */
Test(node_heal, a_failing_disk_never_makes_a_false_ack)
{
    uint64_t reopened = 0;

    for (uint64_t seed = 100; seed < 140; seed++) {
        make(seed, seed % 2 == 0 ? 2 : 1);
        for (unsigned round = 0; round < 3; round++) {
            cfsr_fs_sim_set_sync_failures(c.site[1].fs, (uint32_t)(30000 + 40000 * (seed % 4)),
                                          (enum cfsr_sync_failure)(seed % 3));
            site_append(&c, 0, 40, 40000);
            cluster_run_us(&c, cluster_random(&c) % (4 * SECONDS));
            if (seed % 5 == 0) { /* the daemon alone ends in the middle of it */
                cfsr_fs_sim_set_sync_failures(c.site[1].fs, 0, CFSR_SYNC_FAILURE_KEPT);
                reopened += COUNTER(&c, 1, inbox_lane_reopened);
                site_stop(&c, 1);
                site_start(&c, 1);
                cluster_run_us(&c, cluster_random(&c) % 100000);
            }
            reopened += COUNTER(&c, 1, inbox_lane_reopened);
            cfsr_fs_sim_set_sync_failures(c.site[1].fs, 0, CFSR_SYNC_FAILURE_KEPT);
            expect_acked_is_durable(seed, (enum cfsr_persistence)(cluster_random(&c) % 4));
        }
        cluster_remove(&c);
    }
    cr_assert_gt(reopened, 20);
}

Test(node_heal, while_it_lasts_the_link_says_why)
{
    struct cfsr_node_link_status link;
    uint64_t acked;

    make(7, 1);
    site_append(&c, 0, 30, 20000);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cr_assert(cluster_link(&c, 0, 1, &link));
    acked = link.lane[0].acked_lsn;
    cfsr_fs_sim_set_sync_failures(c.site[1].fs, 1000000, CFSR_SYNC_FAILURE_KEPT);
    site_append(&c, 0, 30, 20000);
    cluster_run_us(&c, 10 * SECONDS);
    cr_assert(cluster_link(&c, 0, 1, &link));
    cr_assert_eq(link.lane[0].acked_lsn, acked, "nothing more is acknowledged");
    cr_assert_gt(COUNTER(&c, 1, inbox_write_errors), 0);
    cfsr_fs_sim_set_sync_failures(c.site[1].fs, 0, CFSR_SYNC_FAILURE_KEPT);
    cr_assert(cluster_run_until_equal(&c, 120 * SECONDS));
    cr_assert_gt(COUNTER(&c, 1, inbox_lane_reopened), 0);
    cr_assert_eq(COUNTER(&c, 0, peer_regressions), 0);
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

/* The disk is full just when a failed lane needs a segment: it waits, says so, and goes on. */
Test(node_heal, a_full_disk_is_waited_for)
{
    struct cfsr_node_link_status link;
    unsigned seen = 0;

    for (unsigned i = 0; i < 2; i++) {
        int error = i == 0 ? -ENOSPC : -EDQUOT;

        make(8 + i, 1);
        site_append(&c, 0, 30, 20000);
        cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
        cfsr_fs_sim_set_capacity(c.site[1].fs, 1);
        cfsr_fs_sim_fail_nth(c.site[1].fs, 1, error);
        site_append(&c, 0, 200, 40000);
        for (unsigned step = 0; step < 20; step++) {
            cluster_run_us(&c, SECONDS / 2);
            cr_assert(cluster_link(&c, 0, 1, &link));
            seen += link.state == CFSR_LINK_STALLED && strcmp(link.reason, "backpressure") == 0;
        }
        cr_assert_gt(COUNTER(&c, 1, inbox_write_errors), 0);
        cr_assert_eq(COUNTER(&c, 1, inbox_lane_reopened), 0);
        cfsr_fs_sim_set_capacity(c.site[1].fs, 1ull << 32);
        cr_assert(cluster_run_until_equal(&c, 120 * SECONDS));
        cr_assert_gt(COUNTER(&c, 1, inbox_lane_reopened), 0);
        cr_assert_eq(COUNTER(&c, 0, peer_regressions), 0);
        cluster_assert_equal(&c, 0, 1);
        cluster_remove(&c);
    }
    cr_assert_gt(seen, 0);
}

static bool remove_segments_behind_the_first(struct cfsr_fs *fs)
{
    bool found = false;

    for (unsigned sequence = 2; sequence < 8; sequence++) {
        char path[64];
        snprintf(path, sizeof path, "/data/inbox/00/%016x.seg", sequence);
        found = fs->ops->unlink(fs, path) == 0 || found;
    }
    return found && fs->ops->sync_dir(fs, "/data/inbox/00") == 0;
}

/* A power cut between the last block of a segment and the name of the next one: recovery goes on in
 * a segment that is not there. */
Test(node_heal, a_full_segment_without_a_next_one_is_gone_on_from)
{
    make(77, 1);
    for (unsigned round = 0; round < 8; round++) {
        site_append(&c, 0, 60, 20000);
        cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    }
    site_stop(&c, 1);
    cr_assert(remove_segments_behind_the_first(c.site[1].fs), "one segment held everything");
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS), "%s", cluster_unrested(&c));
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}
