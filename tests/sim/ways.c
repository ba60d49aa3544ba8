/*
 * ways.c - how a site's cores reach the others: one way or two (cluster.h).
 *
 * Thread:     one.
 * Invariants: a second way is another group of the same simulated network, under another host name,
 *             so that what happens to one way does not happen to the other by itself.
 */
#include <stdio.h>

#include "base/fail.h"
#include "cluster.h"

const char *site_host(const struct test_site *site)
{
    static const char names[SITES_MAX][8] = {"host1", "host2", "host3", "host4", "host5"};
    return names[site->index];
}

const char *site_rdma_host(const struct test_site *site)
{
    static const char names[SITES_MAX][12] = {"host1-rdma", "host2-rdma", "host3-rdma",
                                              "host4-rdma", "host5-rdma"};
    return names[site->index];
}

bool site_has_rdma(const struct test_site *site)
{
    return (site->cluster->config.rdma_sites >> site->index & 1) != 0;
}

void site_listen_rdma(struct test_site *site, bool listen)
{
    char endpoint[64];

    if (site->rdma_listener != NULL)
        cfsr_transport_sim.listener_close(site->rdma_listener);
    site->rdma_listener = NULL;
    if (!listen || !site_has_rdma(site) || site->rdma_refuses)
        return;
    snprintf(endpoint, sizeof endpoint, "sim://%s:7400", site_rdma_host(site));
    CHECK(site->cluster,
          cfsr_transport_sim.listen(endpoint, site->cluster->network, &site->rdma_listener) == 0,
          "setup", "listen at %s: %s", endpoint, cfsr_error_message());
}

const struct cfsr_transport *site_transport(const struct test_site *site, enum cfsr_path path)
{
    const struct cluster_config *config = &site->cluster->config;

    if (path == CFSR_PATH_RDMA && config->rdma_transport != NULL)
        return config->rdma_transport;
    return config->transport[site->index] != NULL ? config->transport[site->index]
                                                  : &cfsr_transport_sim;
}
