/*
 * sim/control.c - what the simulator does to its network (control.h).
 *
 * Thread:     the simulator's.
 * Invariants: links are looked at in the order in which they were made, so that a number picks the
 *             same one in every run of a seed.
 */
#include "transport/sim/control.h"

#include <errno.h>

#include "base/bytes.h"
#include "transport/sim/sim.h"

void cfsr_sim_network_set_delay(struct cfsr_sim_network *network, uint64_t min_us, uint64_t max_us)
{
    network->options.delay_min_us = min_us;
    network->options.delay_max_us = cfsr_max_u64(min_us, max_us);
}

void cfsr_sim_network_set_cuts(struct cfsr_sim_network *network, uint32_t per_million)
{
    network->options.cut_per_million = per_million;
}

static bool is_between(const struct cfsr_sim_link *link, unsigned a, unsigned b)
{
    return (link->host[0] == a && link->host[1] == b) || (link->host[0] == b && link->host[1] == a);
}

static struct cfsr_sim_link *link_of(struct cfsr_list *node)
{
    return CFSR_LIST_ENTRY(node, struct cfsr_sim_link, link);
}

unsigned cfsr_sim_network_cut(struct cfsr_sim_network *network, const char *host_a,
                              const char *host_b)
{
    unsigned a = cfsr_sim_host(network, host_a), b = cfsr_sim_host(network, host_b), count = 0;
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->links)
    {
        if (!is_between(link_of(node), a, b))
            continue;
        cfsr_sim_link_cut(link_of(node), -ECONNRESET);
        count++;
    }
    return count;
}

unsigned cfsr_sim_network_hold(struct cfsr_sim_network *network, const char *host_a,
                               const char *host_b, unsigned modulus, unsigned rest)
{
    unsigned a = cfsr_sim_host(network, host_a), b = cfsr_sim_host(network, host_b);
    unsigned number = 0, count = 0;
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->links)
    {
        struct cfsr_sim_link *link = link_of(node);
        if (!is_between(link, a, b))
            continue;
        bool holds = modulus != 0 && number++ % modulus == rest;
        link->pipe[0].blocked = link->pipe[1].blocked = holds;
        count += holds;
    }
    return count;
}

bool cfsr_sim_network_inject(struct cfsr_sim_network *network, uint64_t pick,
                             enum cfsr_inject fault)
{
    uint64_t count = 0;
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->conns)
    count++;
    if (count == 0)
        return false;
    pick %= count;
    CFSR_LIST_FOR_EACH(node, &network->conns)
    {
        if (pick-- > 0)
            continue;
        return cfsr_transport_sim.inject(CFSR_LIST_ENTRY(node, struct cfsr_conn, network), fault) ==
               0;
    }
    return false;
}

void cfsr_sim_network_resume(struct cfsr_sim_network *network)
{
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->conns)
    {
        struct cfsr_conn *conn = CFSR_LIST_ENTRY(node, struct cfsr_conn, network);
        if (conn->fault_stall)
            cfsr_transport_sim.recv_resume(conn);
        cfsr_sim_touch(conn);
    }
}

static struct cfsr_sim_link *pick_recorded(struct cfsr_sim_network *network, uint64_t pick)
{
    uint64_t count = 0;
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->links)
    count += link_of(node)->recorded_bytes > 0 && !link_of(node)->ghost;
    if (count == 0)
        return NULL;
    pick %= count;
    CFSR_LIST_FOR_EACH(node, &network->links)
    {
        if (link_of(node)->recorded_bytes > 0 && !link_of(node)->ghost && pick-- == 0)
            return link_of(node);
    }
    return NULL;
}

bool cfsr_sim_network_replay(struct cfsr_sim_network *network, uint64_t pick, uint32_t bytes_max)
{
    struct cfsr_sim_link *link = pick_recorded(network, pick), *ghost;

    if (link == NULL || cfsr_sim_link_create(network, network->hosts[link->host[CFSR_SIM_DIALER]],
                                             link->endpoint[CFSR_SIM_ACCEPTOR], &ghost) < 0)
        return false;
    struct iovec iov = {
        .iov_base = link->recorded,
        .iov_len = cfsr_min_u64(bytes_max, link->recorded_bytes),
    };
    memcpy(ghost->preamble, link->preamble, sizeof ghost->preamble);
    ghost->ghost = true;
    ghost->closed[CFSR_SIM_DIALER] = true; /* the acceptor's leaving frees it */
    cfsr_sim_item_push(ghost, CFSR_SIM_DIALER, CFSR_SIM_SYN, 0);
    (void)cfsr_sim_bytes_push(ghost, CFSR_SIM_DIALER, &iov, 1, iov.iov_len);
    return true;
}

void cfsr_sim_network_vanish(struct cfsr_sim_network *network, const char *host)
{
    unsigned number = cfsr_sim_host(network, host);
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->links)
    {
        struct cfsr_sim_link *link = link_of(node);
        for (unsigned side = 0; side < 2; side++) {
            struct cfsr_sim_pipe *pipe = &link->pipe[side];
            if (link->host[side] != number || link->conn[side] == NULL)
                continue;
            link->vanished[side] = true;
            pipe->items_head = pipe->items_tail;
            pipe->head = pipe->tail;
        }
    }
}

uint64_t cfsr_sim_network_digest(const struct cfsr_sim_network *network)
{
    return network->digest;
}

uint64_t cfsr_sim_network_deliveries(const struct cfsr_sim_network *network)
{
    return network->deliveries;
}

bool cfsr_sim_group_is_touched(const struct cfsr_group *group)
{
    return group->touched;
}

bool cfsr_sim_listener_is_waiting(const struct cfsr_listener *listener)
{
    return listener->pending_count > 0;
}
