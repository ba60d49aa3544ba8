/*
 * test_node_rivals.c - a link and its challenger part at moments that are short: what arrives for
 * the one that goes must not be taken for news about the one that stays.
 */
#include <criterion/criterion.h>

#include "cluster.h"
#include "core/file_sim.h"
#include "node/internal.h"
#include "transport/sim/control.h"

#define SECONDS 1000000ull

static struct cluster c;

static void tune(struct cluster *cluster, struct test_site *site)
{
    (void)cluster;
    site->options.rdma_retry_ns = 2000000000;
}

static struct node_link *challenger(void)
{
    struct cfsr_node_core *core = c.site[0].core[0];
    for (uint32_t i = 0; i < core->link_count; i++)
        if (core->links[i].in_use && core->links[i].challenger)
            return &core->links[i];
    return NULL;
}

/* One turn of a site, and nothing else of the world. */
static void turn_once(unsigned at)
{
    cfsr_fs_sim_advance(c.site[at].fs, c.now_us);
    (void)cfsr_node_core_tick(c.site[at].core[0], c.now_us * 1000, site_wall_us(&c.site[at]));
    c.site[at].dirty = true;
}

/*
 * TCP broke, so the link itself shakes hands anew, while its challenger over RDMA awaits its
 * HELLO_ACK: that one may be older than what the link is going to hear. It comes before the
 * challenger had the turn in which it ends.
 */
static bool answered_too_late(uint64_t seed)
{
    struct node_link *champion, *second;

    cluster_make(&c, &(struct cluster_config){
                         .seed = seed, .sites = 2, .lanes = 2, .rdma_sites = 3, .tune = tune});
    site_listen_rdma(&c.site[1], false); /* nothing is sent: there is no record to compare first */
    cluster_run_us(&c, SECONDS);
    site_listen_rdma(&c.site[1], true);
    cluster_run_us(&c, seed * 37);
    for (unsigned i = 0; i < 100000; i++) {
        second = challenger();
        if (second != NULL && second->sender.state == CFSR_SENDER_HELLO)
            break;
        cluster_step(&c);
    }
    cr_assert(second != NULL && second->sender.state == CFSR_SENDER_HELLO);
    champion = second->rival;
    cr_assert_gt(cfsr_sim_network_hold(c.network, "host1-rdma", "host2-rdma", 1, 0), 0);
    cfsr_transport_sim.listener_close(c.site[1].listener);
    c.site[1].listener = NULL;
    cr_assert_gt(cfsr_sim_network_cut(c.network, "host1", "host2"), 0);
    for (unsigned i = 0; i < 1000; i++) {
        cluster_step_to(&c, c.now_us + 1000);
        if (champion->sender.state == CFSR_SENDER_BACKOFF)
            break;
    }
    cr_assert_eq(champion->sender.state, CFSR_SENDER_BACKOFF);
    cr_assert(second->rival == champion && second->sender.state == CFSR_SENDER_HELLO);
    c.now_us = (champion->sender.retry_at_ns + 999) / 1000;
    turn_once(0);
    bool open = second->retiring && second->sender.state == CFSR_SENDER_HELLO;
    (void)cfsr_sim_network_hold(c.network, "host1-rdma", "host2-rdma", 0, 0);
    for (unsigned at = 2; at-- > 0;) { /* HELLO arrives, then the answer */
        c.now_us += 3000;
        cfsr_sim_network_advance(c.network, c.now_us);
        turn_once(at);
    }
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS), "seed %u", (unsigned)seed);
    site_append(&c, 0, 50, 8000);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS), "seed %u", (unsigned)seed);
    cluster_assert_equal(&c, 0, 1);
    cr_assert_null(challenger());
    cluster_drop(&c);
    return open;
}

Test(node_rivals, an_answer_to_one_that_was_let_go_changes_nothing)
{
    unsigned open = 0;
    for (uint64_t seed = 1; seed < 9; seed++)
        open += answered_too_late(seed);
    cr_assert_gt(open, 0, "the moment was met");
}
