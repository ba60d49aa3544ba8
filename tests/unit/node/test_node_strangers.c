/*
 * test_node_strangers.c - a path with receive memory for few connections (RDMA): who says nothing
 * does not keep a peer out of it.
 */
#include <criterion/criterion.h>

#include <cfsrepl/error.h>

#include "cluster.h"
#include "node/internal.h"
#include "transport/sim/control.h"

#define SECONDS   1000000ull
#define STRANGERS 3u

static struct cluster c;
static uint32_t limit;

/* As RDMA accepts: refused where no receive ring is left. */
static int accept_few(struct cfsr_group *group, struct cfsr_incoming *incoming,
                      const struct cfsr_conn_events *events, void *user,
                      struct cfsr_conn **conn_out)
{
    const struct cfsr_node_core *core = c.site[1].core[0];

    if (group == c.site[1].rdma_group[0] && core->conns_in_use >= limit) {
        cfsr_transport_sim.incoming_discard(incoming);
        return -CFSR_E_POOL_EMPTY;
    }
    return cfsr_transport_sim.accept(group, incoming, events, user, conn_out);
}

/* And as it dials. */
static int connect_few(struct cfsr_group *group, const char *endpoint,
                       const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                       const struct cfsr_conn_events *events, void *user,
                       struct cfsr_conn **conn_out)
{
    if (group == c.site[1].rdma_group[0] && c.site[1].core[0]->conns_in_use >= limit)
        return -CFSR_E_POOL_EMPTY;
    return cfsr_transport_sim.connect(group, endpoint, preamble, timeout_ns, events, user,
                                      conn_out);
}

static void tune(struct cluster *cluster, struct test_site *site)
{
    (void)cluster;
    site->options.rdma = CFSR_RDMA_REQUIRE;
}

static void run_exactly(uint64_t us)
{
    uint64_t end_us = c.now_us + us;
    while (c.now_us < end_us)
        cluster_step_to(&c, end_us);
}

/* from: whose link is looked at. */
static void expect_peer_gets_in(unsigned from)
{
    static struct cfsr_transport table;
    struct cfsr_node_link_status link;

    table = cfsr_transport_sim;
    if (from == 0)
        table.accept = accept_few;
    else
        table.connect = connect_few;
    limit = STRANGERS + 1;
    cluster_make(&c, &(struct cluster_config){.seed = 7,
                                              .sites = 2,
                                              .lanes = 2,
                                              .rdma_sites = 3,
                                              .rdma_transport = &table,
                                              .tune = tune});
    site_append(&c, 0, 20, 8000);
    site_append(&c, 1, 20, 8000);
    cr_assert(cluster_run_until_equal(&c, 5 * SECONDS));
    for (unsigned i = 0; i < STRANGERS; i++) /* recorded is what was said to site 1, and by it */
        for (uint64_t pick = 0; c.site[1].core[0]->conns_in_use < 2 + i && pick < 2; pick++) {
            cr_assert(cfsr_sim_network_replay(c.network, pick, 10));
            run_exactly(10000);
        }
    cr_assert_eq(c.site[1].core[0]->conns_in_use, STRANGERS + 1);
    limit = STRANGERS;
    site_stop(&c, 0);
    cr_assert_eq(c.site[1].core[0]->conns_in_use, STRANGERS);
    site_start(&c, 0);
    run_exactly(SECONDS); /* a stranger has five to say HELLO */
    cr_assert(cluster_link(&c, from, 1 - from, &link));
    cr_assert_eq(link.state, CFSR_LINK_STREAMING, "%s", link.reason);
    cluster_drop(&c);
}

Test(node_strangers, who_says_nothing_does_not_take_all_receive_memory)
{
    expect_peer_gets_in(0);
}

Test(node_strangers, nor_that_of_a_site_that_dials)
{
    expect_peer_gets_in(1);
}
