/*
 * sim/listener.c - listeners of the simulated network and connections not yet accepted.
 *
 * Thread:     the simulator's.
 * Invariants: the preamble travels with the connection attempt, so nothing waits for it here: a bad
 *             one is dropped when it is looked at, and at most PENDING_MAX connections wait.
 */
#include "transport/sim/sim.h"

#include "base/assert.h"
#include "base/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PENDING_MAX 64

static struct cfsr_listener *find(struct cfsr_sim_network *network, const char *endpoint)
{
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->listeners)
    {
        struct cfsr_listener *listener = CFSR_LIST_ENTRY(node, struct cfsr_listener, link);
        if (strcmp(listener->endpoint, endpoint) == 0)
            return listener;
    }
    return NULL;
}

int cfsr_sim_listen(const char *endpoint, void *sim, struct cfsr_listener **listener_out)
{
    struct cfsr_sim_network *network = sim;
    struct cfsr_listener *listener;
    char scheme[16];
    char host[CFSR_ENDPOINT_MAX];
    uint16_t port;
    int rc = cfsr_endpoint_parse(endpoint, scheme, sizeof scheme, host, sizeof host, &port);

    CFSR_ASSERT(network != NULL);
    if (rc < 0)
        return rc;
    listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return cfsr_fail(-ENOMEM, "cannot listen on %s: out of memory", endpoint);
    if (port == 0)
        port = network->next_port++;
    (void)snprintf(listener->endpoint, sizeof listener->endpoint, "sim://%.200s:%u", host,
                   (unsigned)port);
    if (find(network, listener->endpoint) != NULL) {
        rc = cfsr_fail(-EADDRINUSE,
                       "cannot listen on %s: the address is in use; choose another "
                       "port",
                       listener->endpoint);
        free(listener);
        return rc;
    }
    listener->network = network;
    cfsr_list_init(&listener->pending);
    cfsr_list_push_back(&network->listeners, &listener->link);
    *listener_out = listener;
    return 0;
}

int cfsr_sim_listener_fd(struct cfsr_listener *listener)
{
    (void)listener;
    return -1; /* the simulator knows when something arrived: it made it arrive */
}

const char *cfsr_sim_listener_endpoint(struct cfsr_listener *listener)
{
    return listener->endpoint;
}

uint64_t cfsr_sim_listener_dropped(const struct cfsr_listener *listener)
{
    return listener->dropped;
}

bool cfsr_sim_listener_offer(struct cfsr_sim_link *link)
{
    struct cfsr_listener *listener = find(link->network, link->endpoint[CFSR_SIM_ACCEPTOR]);

    if (listener == NULL)
        return false;
    if (listener->pending_count >= PENDING_MAX) {
        listener->dropped++;
        return false;
    }
    listener->pending_count++;
    cfsr_list_push_back(&listener->pending, &link->pending);
    return true;
}

int cfsr_sim_listener_accept(struct cfsr_listener *listener, uint64_t now_ns,
                             struct cfsr_incoming **incoming_out,
                             struct cfsr_preamble *preamble_out)
{
    struct cfsr_list *node;

    (void)now_ns;
    while ((node = cfsr_list_pop_front(&listener->pending)) != NULL) {
        struct cfsr_sim_link *link = CFSR_LIST_ENTRY(node, struct cfsr_sim_link, pending);
        struct cfsr_preamble preamble;
        listener->pending_count--;
        if (cfsr_preamble_load(link->preamble, &preamble) < 0) {
            listener->dropped++;
            cfsr_sim_incoming_discard(&link->incoming);
            continue;
        }
        *preamble_out = preamble;
        *incoming_out = &link->incoming;
        return 0;
    }
    return -EAGAIN;
}

void cfsr_sim_listener_close(struct cfsr_listener *listener)
{
    struct cfsr_list *node;

    while ((node = cfsr_list_pop_front(&listener->pending)) != NULL)
        cfsr_sim_incoming_discard(&CFSR_LIST_ENTRY(node, struct cfsr_sim_link, pending)->incoming);
    cfsr_list_remove(&listener->link);
    free(listener);
}

uint64_t cfsr_sim_listener_deadline(struct cfsr_listener *listener)
{
    (void)listener;
    return UINT64_MAX;
}

void cfsr_sim_incoming_discard(struct cfsr_incoming *incoming)
{
    struct cfsr_sim_link *link = incoming->link;

    cfsr_sim_item_push(link, CFSR_SIM_ACCEPTOR, CFSR_SIM_RST, -ECONNRESET);
    cfsr_sim_link_leave(link, CFSR_SIM_ACCEPTOR);
}
