/*
 * test_node_promises.c - what a receiver tells of itself: the cursor of a handshake is durable, the
 * count of entries is exact whatever was sent twice, and a journal that was made anew is refused.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "cluster.h"

#define SECONDS    1000000ull
#define LATENCY_US 2000000ull

static struct cluster c;

static struct cfsr_node_in_status *incoming(unsigned index, uint32_t lane)
{
    static struct cfsr_node_status status;

    cfsr_node_core_status(c.site[index].core[0], &status);
    for (uint32_t i = 0; i < status.in_count; i++)
        if (status.in[i].lane == lane)
            return &status.in[i];
    cr_assert_fail("no status of lane %u", lane);
    return NULL;
}

/* A disk that takes its time, and a sender that comes back meanwhile with more to send: what is on
 * its way to the disk is not told, and not counted twice. */
Test(node_promises, a_cursor_that_is_told_is_durable)
{
    static struct cfsr_node_link_status link;
    bool seen_between = false;

    cluster_make(&c, &(struct cluster_config){.seed = 7,
                                              .sites = 2,
                                              .lanes = 1,
                                              .one_way = true,
                                              .disk_latency_us = {0, LATENCY_US}});
    site_append(&c, 0, 5, 500);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS)); /* the segment is there */
    site_append(&c, 0, 20, 500);
    for (unsigned i = 0; i < 10000 && incoming(1, 0)->staged_lsn == incoming(1, 0)->durable_lsn;
         i++)
        cluster_step(&c);
    cr_assert_gt(incoming(1, 0)->staged_lsn, incoming(1, 0)->durable_lsn);
    /* More that it cannot send before it ends. */
    cfsr_sim_network_partition(c.network, "host1", "host2", true);
    site_append(&c, 0, 20, 500);
    site_crash(&c, 0, CFSR_PERSIST_EVERYTHING);
    cfsr_sim_network_partition(c.network, "host1", "host2", false);
    site_start(&c, 0);
    for (uint64_t end_us = c.now_us + 2 * LATENCY_US; c.now_us < end_us;) {
        struct cfsr_node_in_status *in = incoming(1, 0);

        if (cluster_link(&c, 0, 1, &link) && link.lane_count == 1 && link.lane[0].known) {
            cr_assert_leq(link.lane[0].acked_lsn, in->durable_lsn, "told %llu, durable is %llu",
                          (unsigned long long)link.lane[0].acked_lsn,
                          (unsigned long long)in->durable_lsn);
            seen_between = seen_between || in->durable_lsn < in->staged_lsn;
        }
        cluster_step(&c);
    }
    cr_assert(seen_between, "the sender came back too late to see anything");
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cr_assert(cluster_link(&c, 0, 1, &link));
    cr_assert_eq(incoming(1, 0)->entries, link.lane[0].head_entries);
    cr_assert_eq(link.lane[0].acked_entries, link.lane[0].head_entries);
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

Test(node_promises, a_journal_made_anew_under_an_old_id_is_refused)
{
    static struct cfsr_node_link_status link;
    struct cfsr_fs_sim_options options = {.seed = 3, .capacity_bytes = 1ull << 30};
    struct test_site *site = &c.site[0];
    struct cfsr_fs *fs;

    cluster_make(&c, &(struct cluster_config){.seed = 8, .sites = 2, .lanes = 1, .one_way = true});
    site_append(&c, 0, 20, 500);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    site_stop(&c, 0);
    origin_close(site->origin[0]);
    site->origin[0] = NULL;
    cfsr_fs_sim_destroy(site->fs);
    cr_assert_eq(cfsr_fs_sim_create(&options, &fs), 0);
    site->fs = fs;
    site->site.journal.bytes[0] ^= 1;
    cfsr_fs_sim_advance(fs, c.now_us);
    cr_assert_eq(cfsr_site_create(fs, &site->site), 0, "%s", cfsr_error_message());
    site_start(&c, 0);
    site_append(&c, 0, 20, 500);
    cluster_run_us(&c, 5 * SECONDS);
    cr_assert(cluster_link(&c, 0, 1, &link));
    cr_assert_eq(link.state, CFSR_LINK_FAULTED);
    cr_assert_str_eq(link.reason, "journal_changed");
    cluster_drop(&c);
}
