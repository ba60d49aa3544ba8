/*
 * test_node_path.c - links with two ways to their peer: which they take, and that a change between
 * them costs nothing. The second way is another group of the simulated network.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "cluster.h"
#include "core/file_sim.h"
#include "node/internal.h"
#include "transport/sim/control.h"

#define SECONDS 1000000ull

static struct cluster c;
static FILE *log_file;

/* What is logged from here on. */
static void begin_log(void)
{
    if (log_file != NULL)
        (void)fclose(log_file);
    log_file = tmpfile();
    cr_assert_not_null(log_file);
    cr_assert_geq(dup2(fileno(log_file), STDERR_FILENO), 0);
}

static unsigned times_logged(const char *event, const char *part)
{
    char line[2048];
    unsigned times = 0;

    rewind(log_file);
    while (fgets(line, sizeof line, log_file) != NULL)
        times += strstr(line, event) != NULL && strstr(line, part) != NULL ? 1 : 0;
    (void)fseek(log_file, 0, SEEK_END);
    return times;
}

static bool is_logged(const char *event, const char *part)
{
    return times_logged(event, part) > 0;
}

static enum cfsr_rdma_mode mode;
static uint64_t retry_ns;

static void tune(struct cluster *cluster, struct test_site *site)
{
    (void)cluster;
    site->options.rdma = mode;
    site->options.rdma_retry_ns = retry_ns;
}

static void make_sites(uint64_t seed, uint32_t lanes, unsigned rdma_sites)
{
    cluster_make(
        &c, &(struct cluster_config){
                .seed = seed, .sites = 2, .lanes = lanes, .rdma_sites = rdma_sites, .tune = tune});
}

static struct cfsr_node_link_status link_now(void)
{
    struct cfsr_node_link_status link;
    cr_assert(cluster_link(&c, 0, 1, &link));
    return link;
}

/* Connections that site 1 accepted on a path. */
static uint64_t accepts(enum cfsr_path path)
{
    struct cfsr_transport_stats stats;
    cfsr_transport_sim.stats(path == CFSR_PATH_RDMA ? c.site[1].rdma_group[0] : c.site[1].group[0],
                             &stats);
    return stats.accepts;
}

static const struct node_link *challenger(void)
{
    const struct cfsr_node_core *core = c.site[0].core[0];
    for (uint32_t i = 0; i < core->link_count; i++)
        if (core->links[i].in_use && core->links[i].challenger)
            return &core->links[i];
    return NULL;
}

static bool run_until_on(enum cfsr_path path, uint64_t limit_us)
{
    uint64_t end_us = c.now_us + limit_us;
    struct cfsr_node_link_status link;

    do {
        cluster_step(&c);
        link = link_now();
    } while ((link.path != path || link.state != CFSR_LINK_STREAMING) && c.now_us < end_us);
    return c.now_us < end_us;
}

static void expect_equal(void)
{
    cr_assert(cluster_run_until_equal(&c, 120 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(COUNTER(&c, 0, peer_regressions), 0);
}

/* Linked by TCP: RDMA was refused when they began, and is there now. */
static void make_on_tcp(uint64_t seed)
{
    make_sites(seed, 2, 3);
    site_listen_rdma(&c.site[1], false);
    site_append(&c, 0, 50, 8000);
    cr_assert(cluster_run_until_equal(&c, 5 * SECONDS));
    site_listen_rdma(&c.site[1], true);
}

static void init(void)
{
    mode = CFSR_RDMA_AUTO;
    retry_ns = 2000000000;
}

TestSuite(node_path, .init = init);

Test(node_path, starts_on_rdma)
{
    make_sites(1, 4, 3);
    site_append(&c, 0, 200, 8000);
    expect_equal();
    cr_assert_eq(link_now().path, CFSR_PATH_RDMA);
    cr_assert_eq(link_now().path_reason, 0);
    cr_assert_eq(accepts(CFSR_PATH_RDMA), 1);
    cr_assert_eq(accepts(CFSR_PATH_TCP), 0);
    cluster_remove(&c);
}

Test(node_path, a_site_or_a_peer_without_rdma_uses_tcp)
{
    make_sites(2, 2, 2); /* the dialler has no device */
    site_append(&c, 0, 50, 8000);
    expect_equal();
    cr_assert_eq(link_now().path, CFSR_PATH_TCP);
    cr_assert_eq(link_now().path_reason, -ENODEV);
    cluster_remove(&c);

    make_sites(3, 2, 1); /* the peer has no RDMA endpoint */
    site_append(&c, 0, 50, 8000);
    expect_equal();
    cr_assert_eq(link_now().path, CFSR_PATH_TCP);
    cr_assert_eq(link_now().path_reason, 0);
    cr_assert_eq(COUNTER(&c, 0, rdma_failures), 0);
    cluster_remove(&c);
}

Test(node_path, refused_by_rdma_it_dials_tcp_at_once)
{
    begin_log();
    make_sites(4, 4, 3);
    site_listen_rdma(&c.site[1], false);
    site_append(&c, 0, 20, 2000);
    cr_assert(cluster_run_until_equal(&c, SECONDS / 20), "before any back-off is over");
    cr_assert_eq(link_now().path, CFSR_PATH_TCP);
    cr_assert_eq(link_now().path_reason, -ECONNREFUSED);
    cr_assert_eq(link_now().route.fallbacks, 1);
    cr_assert_eq(COUNTER(&c, 0, path_fallbacks), 1);
    cr_assert_eq(COUNTER(&c, 0, rdma_failures), 1);
    cr_assert(is_logged("event=link_path", "path=tcp"));
    cr_assert(is_logged("event=link_path", "reason=econnrefused"));
    cr_assert_not(is_logged("event=link_down", ""), "said in one line");
    cluster_remove(&c);
}

Test(node_path, rdma_that_does_not_answer_falls_back_too)
{
    make_sites(5, 2, 3);
    cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", true);
    site_append(&c, 0, 20, 2000);
    cr_assert(run_until_on(CFSR_PATH_TCP, 6 * SECONDS));
    expect_equal();
    cr_assert_eq(link_now().path_reason, -ETIMEDOUT);
    cluster_remove(&c);
}

/* Site 1 is away for a minute; returns how often the link fell back to TCP meanwhile. */
static uint64_t fallbacks_in_a_minute(void)
{
    uint64_t then = COUNTER(&c, 0, path_fallbacks);

    cluster_run_us(&c, 60 * SECONDS);
    return COUNTER(&c, 0, path_fallbacks) - then;
}

/* Both ways fail in turn, dozens of times. Each tells of it once, and again for another reason or
 * when the peer had been there in between. */
Test(node_path, a_peer_that_is_away_is_told_of_once_a_path_and_reason)
{
    make_sites(7, 2, 3);
    site_append(&c, 0, 20, 2000);
    expect_equal();
    for (unsigned absence = 0; absence < 2; absence++) {
        begin_log();
        site_stop(&c, 1);
        cr_assert_gt(fallbacks_in_a_minute(), 5);
        cr_assert_eq(times_logged("event=link_path", "path=tcp"), 1, "absence %u", absence);
        cr_assert_eq(times_logged("event=link_path", "path=rdma"), 1, "absence %u", absence);
        cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", true);
        cr_assert_gt(fallbacks_in_a_minute(), 1);
        cr_assert_eq(times_logged("event=link_path", "path=tcp"), 2, "RDMA times out now");
        cr_assert_eq(times_logged("event=link_path", "reason=etimedout"), 1);
        cr_assert_eq(times_logged("event=link_path", "path=rdma"), 1, "nothing new of TCP");
        cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", false);
        site_start(&c, 1);
        expect_equal();
    }
    cluster_remove(&c);
}

Test(node_path, three_broken_connections_in_a_minute_fall_back)
{
    make_sites(6, 2, 3);
    for (unsigned i = 0; i < 3; i++) {
        site_append(&c, 0, 30, 8000);
        expect_equal();
        cr_assert_eq(link_now().path, CFSR_PATH_RDMA, "after %u", i);
        cluster_run_us(&c, 10 * SECONDS);
        cr_assert_gt(cfsr_sim_network_cut(c.network, "host1-rdma", "host2-rdma"), 0);
        cluster_run_us(&c, 1000);
    }
    cluster_run_us(&c, SECONDS / 10);
    cr_assert_eq(link_now().path, CFSR_PATH_TCP);
    cr_assert_eq(link_now().state, CFSR_LINK_STREAMING);
    cr_assert_eq(COUNTER(&c, 0, rdma_failures), 3);
    cr_assert_eq(COUNTER(&c, 0, path_fallbacks), 1);
    site_append(&c, 0, 30, 8000);
    expect_equal();
    cluster_remove(&c);
}

/* While data flows without an end: at no instant is the link anything but streaming. */
Test(node_path, rdma_comes_back_without_a_gap)
{
    for (uint64_t seed = 10; seed < 26; seed++) {
        uint64_t end_us, entries = 0;
        begin_log();
        make_sites(seed, 1u << seed % 3, 3);
        site_listen_rdma(&c.site[1], false);
        site_append(&c, 0, 50, 8000);
        cr_assert(cluster_run_until_equal(&c, 5 * SECONDS));
        cluster_run_us(&c, 3 * SECONDS);
        entries = 50;
        site_listen_rdma(&c.site[1], true);
        end_us = c.now_us + 30 * SECONDS;
        while (link_now().path != CFSR_PATH_RDMA || link_now().route.returns == 0) {
            struct cfsr_node_link_status link;
            site_append(&c, 0, 2, 30000); /* so that something is always in flight */
            entries += 2;
            cluster_run_us(&c, cluster_random(&c) % 1500);
            link = link_now();
            cr_assert_eq(link.state, CFSR_LINK_STREAMING, "seed %u: %s", (unsigned)seed,
                         link.reason);
            for (uint32_t i = 0; i < link.lane_count; i++)
                cr_assert(link.lane[i].known && link.lane[i].acked_lsn <= link.lane[i].head_lsn);
            cr_assert_lt(c.now_us, end_us, "seed %u", (unsigned)seed);
        }
        site_append(&c, 0, 50, 8000);
        entries += 50;
        expect_equal();
        cr_assert_eq(link_now().path_reason, 0);
        cr_assert_eq(COUNTER(&c, 0, path_returns), 1);
        cr_assert_eq(COUNTER(&c, 1, entries_received), entries);
        cr_assert_eq(COUNTER(&c, 1, duplicate_batches), 0);
        cr_assert_eq(COUNTER(&c, 0, retransmitted_bytes), 0);
        cr_assert_eq(COUNTER(&c, 1, bad_frames), 0);
        cr_assert_eq(c.site[1].core[0]->conns_in_use, 1, "the TCP connection is gone");
        cr_assert_not(is_logged("event=link_down", ""));
        cr_assert(is_logged("event=link_path", "path=rdma"));
        cluster_remove(&c);
    }
}

/* Attempts that fail at any step beside a running TCP connection harm it in nothing. */
Test(node_path, a_challenger_that_fails_changes_nothing)
{
    for (uint64_t seed = 30; seed < 60; seed++) {
        const struct node_link *link;
        unsigned steps = (unsigned)seed % 12;
        make_on_tcp(seed);
        while ((link = challenger()) == NULL || link->conn == NULL) {
            site_append(&c, 0, 1, 30000);
            cluster_run_us(&c, 1000);
        }
        for (unsigned i = 0; i < steps && challenger() != NULL; i++)
            cluster_step(&c);
        bool beside = challenger() != NULL && challenger()->conn != NULL;
        if (seed % 3 == 0) /* silence instead of an end */
            cfsr_sim_network_partition(c.network, "host2-rdma", "host1-rdma", true);
        else
            cfsr_sim_network_cut(c.network, "host1-rdma", "host2-rdma");
        cluster_run_us(&c, 8 * SECONDS);
        cfsr_sim_network_partition(c.network, "host2-rdma", "host1-rdma", false);
        if (beside && seed % 3 == 0)
            cr_assert_eq(link_now().path, CFSR_PATH_TCP, "seed %u", (unsigned)seed);
        site_append(&c, 0, 50, 8000);
        expect_equal();
        cr_assert(run_until_on(CFSR_PATH_RDMA, 120 * SECONDS));
        site_append(&c, 0, 50, 8000);
        expect_equal();
        cluster_remove(&c);
    }
}

/* A link that cannot be quiet, for its peer acknowledges nothing, is let go on. */
Test(node_path, a_challenger_does_not_wait_for_ever)
{
    uint64_t end_us;

    make_on_tcp(65);
    cr_assert_gt(cfsr_sim_network_hold(c.network, "host1", "host2", 1, 0), 0);
    site_append(&c, 0, 50, 8000);
    while (challenger() == NULL || !challenger()->held)
        cluster_step(&c);
    end_us = c.now_us + 4 * SECONDS;
    while (challenger() != NULL && challenger()->held) {
        cluster_step(&c);
        cr_assert_lt(c.now_us, end_us, "half the time of a handshake, and to the next instant");
    }
    cr_assert_eq(link_now().path, CFSR_PATH_TCP);
    cr_assert_eq(link_now().state, CFSR_LINK_STREAMING);
    cr_assert_eq(link_now().path_reason, -ECONNREFUSED, "nothing is said against RDMA");
    cr_assert_eq(COUNTER(&c, 0, rdma_failures), 1);
    (void)cfsr_sim_network_hold(c.network, "host1", "host2", 0, 0);
    expect_equal();
    cr_assert(run_until_on(CFSR_PATH_RDMA, 60 * SECONDS));
    cluster_remove(&c);
}

/* The acknowledgement of what is under way never comes while a peer waits for a HELLO, and there is
 * always more to send: the link empties, once, and is back. */
Test(node_path, a_busy_slow_link_comes_back_too)
{
    for (uint64_t seed = 400; seed < 408; seed++) {
        unsigned quiet = 0;
        uint64_t end_us;

        begin_log();
        cluster_make(&c, &(struct cluster_config){.seed = seed,
                                                  .sites = 2,
                                                  .lanes = 1u << seed % 3,
                                                  .delay_min_us = 1400000,
                                                  .delay_max_us = 1450000,
                                                  .window_bytes = 512 << 10,
                                                  .rdma_sites = 3,
                                                  .tune = tune});
        site_listen_rdma(&c.site[1], false);
        cr_assert(run_until_on(CFSR_PATH_TCP, 60 * SECONDS));
        site_append(&c, 0, 100, 30000);
        cluster_run_us(&c, 5 * SECONDS);
        site_listen_rdma(&c.site[1], true);
        end_us = c.now_us + 60 * SECONDS;
        while (link_now().path != CFSR_PATH_RDMA) {
            struct cfsr_node_link_status link = link_now();
            site_append(&c, 0, 6, 30000);
            cluster_run_us(&c, SECONDS / 4);
            quiet += link.in_flight_bytes == 0;
            cr_assert_neq(link.state, CFSR_LINK_STALLED, "seed %u", (unsigned)seed);
            cr_assert_eq(link.path_reason, -ECONNREFUSED, "nothing new is said against RDMA");
            cr_assert_lt(c.now_us, end_us, "seed %u", (unsigned)seed);
        }
        cr_assert_gt(quiet, 0, "seed %u", (unsigned)seed);
        cr_assert_lt(quiet, 4 * 9, "seed %u: three round trips", (unsigned)seed);
        expect_equal();
        cr_assert_eq(COUNTER(&c, 0, path_returns), 1);
        cr_assert_eq(COUNTER(&c, 1, duplicate_batches), 0);
        cr_assert_eq(COUNTER(&c, 0, retransmitted_bytes), 0);
        cr_assert_not(is_logged("event=link_down", ""));
        cluster_remove(&c);
    }
}

/* An emptied link that finds RDMA gone again, or that its peer acknowledges nothing, goes on. */
Test(node_path, a_link_is_not_emptied_for_ever)
{
    for (uint64_t seed = 420; seed < 424; seed++) {
        uint64_t held_us, sent;
        make_on_tcp(seed);
        cr_assert_gt(cfsr_sim_network_hold(c.network, "host1", "host2", 1, 0), 0);
        site_append(&c, 0, 50, 8000);
        while (challenger() == NULL || !challenger()->held)
            cluster_step(&c);
        held_us = c.now_us;
        while (challenger() != NULL && challenger()->held)
            cluster_step(&c);
        sent = COUNTER(&c, 0, batches_sent);
        site_append(&c, 0, 50, 8000);
        if (seed % 2 == 0) { /* what was under way arrives; RDMA does not answer */
            cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", true);
            (void)cfsr_sim_network_hold(c.network, "host1", "host2", 0, 0);
        }
        cluster_run_us(&c, SECONDS);
        cr_assert_eq(COUNTER(&c, 0, batches_sent), sent, "it sends nothing");
        while (COUNTER(&c, 0, batches_sent) == sent) {
            cluster_step(&c);
            cr_assert_lt(c.now_us, held_us + 10 * SECONDS, "seed %u", (unsigned)seed);
        }
        cr_assert_eq(link_now().path, CFSR_PATH_TCP);
        cr_assert_eq(link_now().state, CFSR_LINK_STREAMING);
        (void)cfsr_sim_network_hold(c.network, "host1", "host2", 0, 0);
        cr_assert(cluster_run_until_equal(&c, 10 * SECONDS));
        cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", false);
        cr_assert(run_until_on(CFSR_PATH_RDMA, 60 * SECONDS));
        expect_equal();
        cr_assert_eq(COUNTER(&c, 0, retransmitted_bytes), 0);
        cluster_remove(&c);
    }
}

/* What a peer that went back to an older copy answers is judged by all that was ever heard of it,
 * also while the challenger dialled. */
Test(node_path, a_challenger_knows_what_its_link_knows)
{
    for (uint64_t seed = 440; seed < 448; seed++) {
        const struct node_link *second;
        uint64_t moved = 0;
        make_on_tcp(seed);
        while ((second = challenger()) == NULL) {
            site_append(&c, 0, 2, 60000);
            cluster_run_us(&c, 500);
        }
        for (uint32_t lane = 0; lane < 2; lane++)
            moved -= second->sender.lane[lane].acked_lsn;
        for (unsigned i = 0; i < 100000 && second->sender.state != CFSR_SENDER_HELLO; i++)
            cluster_step(&c);
        cr_assert(second->challenger && second->sender.state == CFSR_SENDER_HELLO);
        for (uint32_t lane = 0; lane < 2; lane++) {
            cr_assert_eq(second->sender.lane[lane].acked_lsn,
                         second->rival->sender.lane[lane].acked_lsn, "seed %u", (unsigned)seed);
            moved += second->sender.lane[lane].acked_lsn;
        }
        cr_assert_gt(moved, 0, "seed %u: nothing was heard meanwhile", (unsigned)seed);
        expect_equal();
        cluster_remove(&c);
    }
}

Test(node_path, tcp_may_break_while_rdma_is_dialled_beside_it)
{
    for (uint64_t seed = 70; seed < 90; seed++) {
        make_on_tcp(seed);
        while (challenger() == NULL) {
            site_append(&c, 0, 2, 60000);
            cluster_run_us(&c, 1000);
        }
        for (unsigned i = 0; i < seed % 14; i++)
            cluster_step(&c);
        cfsr_sim_network_cut(c.network, "host1", "host2");
        site_append(&c, 0, 50, 8000);
        expect_equal();
        cr_assert(run_until_on(CFSR_PATH_RDMA, 120 * SECONDS));
        cluster_remove(&c);
    }
}

Test(node_path, require_never_uses_tcp)
{
    mode = CFSR_RDMA_REQUIRE;
    make_sites(100, 2, 3);
    site_listen_rdma(&c.site[1], false);
    site_append(&c, 0, 20, 2000);
    cluster_run_us(&c, 60 * SECONDS);
    cr_assert_eq(link_now().state, CFSR_LINK_STALLED);
    cr_assert_eq(link_now().path, CFSR_PATH_RDMA);
    cr_assert_eq(accepts(CFSR_PATH_TCP), 0);
    site_listen_rdma(&c.site[1], true);
    expect_equal();
    cr_assert_eq(accepts(CFSR_PATH_TCP), 0);
    cr_assert_eq(COUNTER(&c, 0, path_fallbacks), 0);
    cluster_remove(&c);
}

Test(node_path, off_never_uses_rdma)
{
    mode = CFSR_RDMA_OFF;
    make_sites(101, 2, 3);
    site_append(&c, 0, 20, 2000);
    expect_equal();
    cluster_run_us(&c, 60 * SECONDS);
    cr_assert_eq(accepts(CFSR_PATH_RDMA), 0);
    cr_assert_eq(link_now().path, CFSR_PATH_TCP);
    cr_assert_eq(link_now().path_reason, 0);
    cluster_remove(&c);
}

static void tune_stranger(struct cluster *cluster, struct test_site *site)
{
    tune(cluster, site);
    if (site->index == 1)
        site->peers[0].site_id = 99; /* does not know site 1 */
}

/* The other path would meet the same refusal. */
Test(node_path, a_refused_site_stays_where_it_is)
{
    cluster_make(&c,
                 &(struct cluster_config){
                     .seed = 102, .sites = 2, .lanes = 2, .rdma_sites = 3, .tune = tune_stranger});
    cluster_run_us(&c, 100 * SECONDS);
    cr_assert_gt(COUNTER(&c, 0, refused_out), 1);
    cr_assert_eq(link_now().state, CFSR_LINK_FAULTED);
    cr_assert_eq(link_now().path, CFSR_PATH_RDMA);
    cr_assert_eq(COUNTER(&c, 0, path_fallbacks), 0);
    cr_assert_eq(accepts(CFSR_PATH_TCP), 0);
    cluster_drop(&c);
}

/* Nor does one that is refused for the state of the peer's disk: the same would be said there. */
Test(node_path, a_refusal_of_any_kind_blames_no_path)
{
    unsigned seen = 0;

    make_sites(103, 1, 3);
    site_append(&c, 0, 30, 20000);
    expect_equal();
    cfsr_fs_sim_set_capacity(c.site[1].fs, 1);
    cfsr_fs_sim_fail_nth(c.site[1].fs, 1, -ENOSPC);
    site_append(&c, 0, 200, 40000);
    for (unsigned i = 0; i < 20; i++) {
        cluster_run_us(&c, SECONDS / 2);
        seen += strcmp(link_now().reason, "backpressure") == 0;
        cr_assert_eq(link_now().path, CFSR_PATH_RDMA);
    }
    cr_assert_gt(seen, 0);
    cr_assert_gt(COUNTER(&c, 0, refused_out), 1);
    cr_assert_eq(accepts(CFSR_PATH_TCP), 0);
    cfsr_fs_sim_set_capacity(c.site[1].fs, 1ull << 32);
    expect_equal();
    cr_assert_eq(COUNTER(&c, 0, path_fallbacks), 0);
    cr_assert_eq(COUNTER(&c, 0, rdma_failures), 0);
    cluster_remove(&c);
}

Test(node_path, drains_while_a_challenger_dials)
{
    for (uint64_t seed = 110; seed < 130; seed++) {
        make_on_tcp(seed);
        if (seed % 2 == 0)
            cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", true);
        while (challenger() == NULL) {
            site_append(&c, 0, 1, 30000);
            cluster_run_us(&c, 1000);
        }
        for (unsigned i = 0; i < seed % 10; i++)
            cluster_step(&c);
        site_stop(&c, 0);
        cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", false);
        site_start(&c, 0);
        expect_equal();
        cluster_remove(&c);
    }
}

/* Both ways come and go, cores differ, sites stop: in the end everything is there once. */
Test(node_path, whatever_comes_and_goes_all_arrives)
{
    for (uint64_t seed = 200; seed < 230; seed++) {
        cluster_make(&c, &(struct cluster_config){
                             .seed = seed,
                             .sites = 2,
                             .lanes = 4,
                             .cores = {1 + (uint32_t)seed % 2, 1 + (uint32_t)seed / 2 % 4},
                             .cut_per_million = 300,
                             .rdma_sites = 3,
                             .tune = tune});
        for (unsigned round = 0; round < 40; round++) {
            uint64_t dice = cluster_random(&c) % 10;
            site_append(&c, 0, 10, 20000);
            site_append(&c, 1, 10, 20000);
            if (dice < 2)
                site_listen_rdma(&c.site[dice], c.site[dice].rdma_listener == NULL);
            else if (dice < 4)
                cfsr_sim_network_cut(c.network, "host1-rdma", "host2-rdma");
            else if (dice == 4)
                cfsr_sim_network_cut(c.network, "host1", "host2");
            else if (dice == 5)
                cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", round % 2 == 0);
            else if (dice == 6) {
                site_stop(&c, round % 2);
                site_start(&c, round % 2);
            }
            cluster_run_us(&c, cluster_random(&c) % SECONDS);
        }
        cfsr_sim_network_partition(c.network, "host1-rdma", "host2-rdma", false);
        cr_assert(cluster_run_until_equal(&c, 300 * SECONDS), "seed %u", (unsigned)seed);
        cluster_assert_equal(&c, 0, 1);
        cluster_assert_equal(&c, 1, 0);
        cr_assert_eq(COUNTER(&c, 0, peer_regressions) + COUNTER(&c, 1, peer_regressions), 0);
        cluster_remove(&c);
    }
}

/* A transport of messages shows one whole frame at a time; anything else is not a frame. */
Test(node_path, a_message_is_one_frame)
{
    struct cfsr_transport messages = cfsr_transport_sim;

    messages.caps |= CFSR_TRANSPORT_MESSAGES;
    cluster_make(&c, &(struct cluster_config){.seed = 300,
                                              .sites = 2,
                                              .lanes = 1,
                                              .chunk_max_bytes = 1000, /* parts of frames */
                                              .transport = {NULL, &messages}});
    site_append(&c, 0, 50, 8000);
    cluster_run_us(&c, 2 * SECONDS);
    cr_assert_gt(COUNTER(&c, 1, bad_frames), 0);
    cr_assert_eq(COUNTER(&c, 1, batches_received), 0);
    cluster_drop(&c);
}
