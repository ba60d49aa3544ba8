/*
 * sim/network.c - the simulated network: time, links, chunks on their way, faults.
 *
 * Thread:     one, the simulator's.
 * Invariants: items of a pipe are due in the order they were made; between pipes the random delays
 *             decide, which is how connections overtake each other. A cut loses what is on its way,
 *             after a random part of the chunk that was cut. A blocked direction holds its items
 *             like a network that retransmits, it loses nothing.
 * Rejected:   a heap of events (a scan over the pipes is fast enough for what is simulated, and has
 *             nothing to keep in step).
 */
#include "transport/sim/sim.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_PORT    40000
#define ITEMS_RESERVE 4
#define MILLION       1000000u

/* SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state, any seed is good. */
static uint64_t random_next(struct cfsr_sim_network *network)
{
    uint64_t z = network->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t cfsr_sim_random_below(struct cfsr_sim_network *network, uint64_t limit)
{
    return random_next(network) % limit;
}

int cfsr_sim_network_create(const struct cfsr_sim_network_options *options,
                            struct cfsr_sim_network **network_out)
{
    struct cfsr_sim_network *network;

    if (options->delay_max_us < options->delay_min_us || options->chunk_max_bytes == 0 ||
        options->buffer_bytes == 0 || options->cut_per_million > MILLION)
        return cfsr_fail(-EINVAL, "the simulated network needs delay_min_us <= delay_max_us, "
                                  "chunk_max_bytes and buffer_bytes above 0");
    network = calloc(1, sizeof *network);
    if (network == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for a simulated network");
    network->options = *options;
    network->random = options->seed;
    network->next_port = FIRST_PORT;
    cfsr_list_init(&network->links);
    cfsr_list_init(&network->listeners);
    cfsr_list_init(&network->conns);
    *network_out = network;
    return 0;
}

void cfsr_sim_link_free(struct cfsr_sim_link *link)
{
    cfsr_list_remove(&link->link);
    cfsr_list_remove(&link->pending);
    free(link->pipe[CFSR_SIM_DIALER].bytes);
    free(link->pipe[CFSR_SIM_ACCEPTOR].bytes);
    free(link);
}

unsigned cfsr_sim_host(struct cfsr_sim_network *network, const char *name)
{
    for (unsigned i = 0; i < network->host_count; i++)
        if (strcmp(network->hosts[i], name) == 0)
            return i;
    CFSR_ASSERT(network->host_count < CFSR_SIM_HOSTS_MAX);
    (void)snprintf(network->hosts[network->host_count], CFSR_ENDPOINT_MAX, "%s", name);
    return network->host_count++;
}

void cfsr_sim_touch(struct cfsr_conn *conn)
{
    if (conn != NULL)
        conn->group->touched = true;
}

void cfsr_sim_network_destroy(struct cfsr_sim_network *network)
{
    CFSR_ASSERT(cfsr_list_is_empty(&network->conns)); /* groups go first */
    CFSR_ASSERT(cfsr_list_is_empty(&network->listeners));
    while (!cfsr_list_is_empty(&network->links))
        cfsr_sim_link_free(CFSR_LIST_ENTRY(network->links.next, struct cfsr_sim_link, link));
    free(network);
}

int cfsr_sim_link_create(struct cfsr_sim_network *network, const char *from_host,
                         const char *to_endpoint, struct cfsr_sim_link **link_out)
{
    struct cfsr_sim_link *link;
    char scheme[16];
    char host[CFSR_ENDPOINT_MAX];
    uint16_t port;
    int rc = cfsr_endpoint_parse(to_endpoint, scheme, sizeof scheme, host, sizeof host, &port);

    if (rc < 0)
        return rc;
    link = malloc(sizeof *link);
    if (link == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for a simulated connection");
    memset(link, 0, offsetof(struct cfsr_sim_link, pipe));
    for (unsigned i = 0; i < 2; i++)
        memset(&link->pipe[i], 0, offsetof(struct cfsr_sim_pipe, items));
    link->network = network;
    link->incoming.link = link;
    cfsr_list_init(&link->pending);
    cfsr_list_push_back(&network->links, &link->link);
    for (unsigned i = 0; i < 2; i++) {
        link->pipe[i].bytes = malloc(network->options.buffer_bytes);
        if (link->pipe[i].bytes == NULL) {
            cfsr_sim_link_free(link);
            return cfsr_fail(-ENOMEM, "out of memory for a simulated connection");
        }
    }
    link->host[CFSR_SIM_DIALER] = cfsr_sim_host(network, from_host);
    link->host[CFSR_SIM_ACCEPTOR] = cfsr_sim_host(network, host);
    (void)snprintf(link->endpoint[CFSR_SIM_DIALER], CFSR_ENDPOINT_MAX, "sim://%.200s:%u", from_host,
                   network->next_port++);
    (void)snprintf(link->endpoint[CFSR_SIM_ACCEPTOR], CFSR_ENDPOINT_MAX, "%s", to_endpoint);
    *link_out = link;
    return 0;
}

static uint32_t items_count(const struct cfsr_sim_pipe *pipe)
{
    return pipe->items_tail - pipe->items_head;
}

static struct cfsr_sim_item *item_at(struct cfsr_sim_pipe *pipe, uint32_t position)
{
    return &pipe->items[position % CFSR_SIM_ITEMS_MAX];
}

static void item_add(struct cfsr_sim_network *network, struct cfsr_sim_pipe *pipe,
                     struct cfsr_sim_item item)
{
    const struct cfsr_sim_network_options *options = &network->options;
    uint64_t spread = options->delay_max_us - options->delay_min_us + 1;

    CFSR_ASSERT(items_count(pipe) < CFSR_SIM_ITEMS_MAX);
    item.due_us = network->now_us + options->delay_min_us + cfsr_sim_random_below(network, spread);
    item.due_us = cfsr_max_u64(item.due_us, pipe->last_due_us);
    item.order = network->order++;
    pipe->last_due_us = item.due_us;
    *item_at(pipe, pipe->items_tail++) = item;
}

void cfsr_sim_item_push(struct cfsr_sim_link *link, unsigned side, enum cfsr_sim_item_kind kind,
                        int reason)
{
    item_add(link->network, &link->pipe[side],
             (struct cfsr_sim_item){.kind = kind, .reason = reason});
}

static void copy_in(struct cfsr_sim_pipe *pipe, size_t size, const uint8_t *from, size_t len)
{
    if (pipe->head == pipe->tail)
        pipe->head = pipe->tail = 0; /* where its memory is warm */
    while (len > 0) {
        size_t at = (size_t)(pipe->tail % size);
        size_t n = cfsr_min_u64(len, size - at);
        memcpy(pipe->bytes + at, from, n);
        pipe->tail += n;
        from += n;
        len -= n;
    }
}

/* The beginning of what a dialer says: its HELLO is in it. */
static void record(struct cfsr_sim_link *link, const uint8_t *bytes, size_t len)
{
    size_t room = sizeof link->recorded - link->recorded_bytes;

    len = cfsr_min_u64(len, room);
    memcpy(link->recorded + link->recorded_bytes, bytes, len);
    link->recorded_bytes += (uint32_t)len;
}

size_t cfsr_sim_bytes_push(struct cfsr_sim_link *link, unsigned side, const struct iovec *iov,
                           unsigned count, size_t max_bytes)
{
    struct cfsr_sim_network *network = link->network;
    struct cfsr_sim_pipe *pipe = &link->pipe[side];
    size_t size = network->options.buffer_bytes;
    size_t room = cfsr_min_u64(max_bytes, size - (size_t)(pipe->tail - pipe->head));
    size_t pushed = 0;

    for (unsigned i = 0; i < count; i++) {
        size_t done = 0;
        while (done < iov[i].iov_len) {
            uint32_t chunk = 1 + (uint32_t)cfsr_sim_random_below(network,
                                                                 network->options.chunk_max_bytes);
            chunk = (uint32_t)cfsr_min_u64(chunk, iov[i].iov_len - done);
            chunk = (uint32_t)cfsr_min_u64(chunk, room - pushed);
            if (chunk == 0 || items_count(pipe) >= CFSR_SIM_ITEMS_MAX - ITEMS_RESERVE)
                return pushed;
            copy_in(pipe, size, (const uint8_t *)iov[i].iov_base + done, chunk);
            if (side == CFSR_SIM_DIALER && link->recorded_bytes < sizeof link->recorded)
                record(link, (const uint8_t *)iov[i].iov_base + done, chunk);
            item_add(network, pipe, (struct cfsr_sim_item){.kind = CFSR_SIM_DATA, .bytes = chunk});
            done += chunk;
            pushed += chunk;
        }
    }
    return pushed;
}

void cfsr_sim_link_leave(struct cfsr_sim_link *link, unsigned side)
{
    link->conn[side] = NULL;
    link->closed[side] = true;
    if (side == CFSR_SIM_DIALER && !link->arrived)
        link->closed[CFSR_SIM_ACCEPTOR] = true; /* nobody over there knows of it */
    if (link->closed[CFSR_SIM_DIALER] && link->closed[CFSR_SIM_ACCEPTOR])
        cfsr_sim_link_free(link);
}

void cfsr_sim_link_cut(struct cfsr_sim_link *link, int reason)
{
    for (unsigned side = 0; side < 2; side++) {
        struct cfsr_sim_pipe *pipe = &link->pipe[side];
        pipe->items_head = pipe->items_tail;
        pipe->head = pipe->tail;
        cfsr_sim_touch(link->conn[side]);
        if (link->conn[side] != NULL && link->conn[side]->failure == 0)
            link->conn[side]->failure = reason;
    }
    /* An end that is not there yet learns it when it comes. */
    if (link->conn[CFSR_SIM_ACCEPTOR] == NULL && !link->closed[CFSR_SIM_ACCEPTOR])
        cfsr_sim_item_push(link, CFSR_SIM_DIALER, CFSR_SIM_RST, reason);
}

static bool is_deliverable(const struct cfsr_sim_link *link, unsigned from)
{
    const struct cfsr_sim_pipe *pipe = &link->pipe[from];
    const struct cfsr_conn *conn = link->conn[!from];
    const struct cfsr_sim_item *item;
    size_t room;

    if (pipe->items_head == pipe->items_tail || pipe->blocked ||
        link->network->partitioned[link->host[from]][link->host[!from]])
        return false;
    item = &pipe->items[pipe->items_head % CFSR_SIM_ITEMS_MAX];
    if (item->kind == CFSR_SIM_SYN || link->closed[!from])
        return true;
    if (conn == NULL)
        return false; /* waits to be accepted */
    if (item->kind != CFSR_SIM_DATA || conn->state == CFSR_SIM_LINGER ||
        conn->state == CFSR_SIM_CLOSING)
        return true;
    (void)cfsr_receive_space(&conn->receive, &room);
    return room > 0 && !conn->fault_stall;
}

static void copy_out(struct cfsr_sim_pipe *pipe, size_t size, uint8_t *to, size_t len)
{
    while (len > 0) {
        size_t at = (size_t)(pipe->head % size);
        size_t n = cfsr_min_u64(len, size - at);
        memcpy(to, pipe->bytes + at, n);
        pipe->head += n;
        to += n;
        len -= n;
    }
}

/* Delivers as much of the chunk as there is room for; true if all of it. */
static bool deliver_bytes(struct cfsr_sim_link *link, unsigned from, struct cfsr_sim_item *item,
                          uint32_t len)
{
    struct cfsr_sim_pipe *pipe = &link->pipe[from];
    struct cfsr_conn *conn = link->conn[!from];
    size_t room;
    uint8_t *to;

    if (conn == NULL || conn->state == CFSR_SIM_LINGER || conn->state == CFSR_SIM_CLOSING) {
        pipe->head += len; /* closed over there: forgotten */
        item->bytes -= len;
        return item->bytes == 0;
    }
    cfsr_receive_rewind(&conn->receive);
    to = cfsr_receive_space(&conn->receive, &room);
    len = (uint32_t)cfsr_min_u64(len, room);
    if (len == 0)
        return false;
    copy_out(pipe, link->network->options.buffer_bytes, to, len);
    if (conn->fault_flip_bit) {
        conn->fault_flip_bit = false;
        to[len / 2] ^= 0x10;
    }
    cfsr_receive_commit(&conn->receive, len);
    conn->show = true;
    conn->bytes_received += len;
    cfsr_counter_add(&conn->group->counters.bytes_received, len);
    cfsr_counter_add(&conn->group->counters.receives, 1);
    item->bytes -= len;
    return item->bytes == 0;
}

static void deliver_data(struct cfsr_sim_link *link, unsigned from, struct cfsr_sim_item *item)
{
    struct cfsr_sim_network *network = link->network;

    if (network->options.cut_per_million > 0 &&
        cfsr_sim_random_below(network, MILLION) < network->options.cut_per_million) {
        (void)deliver_bytes(link, from, item,
                            (uint32_t)cfsr_sim_random_below(network, item->bytes + 1));
        cfsr_sim_link_cut(link, -ECONNRESET);
        return;
    }
    if (deliver_bytes(link, from, item, item->bytes))
        link->pipe[from].items_head++;
}

/* Everything that happens goes into one number: two runs of a seed are compared by it. */
static void note(struct cfsr_sim_network *network, const struct cfsr_sim_item *item)
{
    uint64_t x = network->digest ^ (network->now_us << 20 ^ item->order << 4 ^ item->kind) ^
                 (uint64_t)item->bytes << 40;

    x *= 0x9e3779b97f4a7c15ull;
    network->digest = x ^ x >> 29;
    network->deliveries++;
}

/* Bytes come to a host that has forgotten the connection: it says so, or the answer is lost. */
static void answer_for_vanished(struct cfsr_sim_link *link, unsigned from)
{
    if (!link->vanished[!from] || link->conn[from] == NULL ||
        cfsr_sim_random_below(link->network, 2) != 0)
        return;
    link->vanished[!from] = false; /* once */
    cfsr_sim_item_push(link, !from, CFSR_SIM_RST, -ECONNRESET);
}

static void deliver(struct cfsr_sim_link *link, unsigned from)
{
    struct cfsr_sim_pipe *pipe = &link->pipe[from];
    struct cfsr_sim_item *item = item_at(pipe, pipe->items_head);
    struct cfsr_conn *conn = link->conn[!from];

    note(link->network, item);
    cfsr_sim_touch(conn);
    cfsr_sim_touch(link->conn[from]); /* its pipe has room again */

    if (item->kind == CFSR_SIM_DATA) {
        answer_for_vanished(link, from);
        deliver_data(link, from, item);
        return;
    }
    pipe->items_head++;
    switch (item->kind) {
    case CFSR_SIM_SYN:
        if (cfsr_sim_listener_offer(link)) {
            link->arrived = true;
            cfsr_sim_item_push(link, !from, CFSR_SIM_SYNACK, 0);
        } else {
            link->closed[CFSR_SIM_ACCEPTOR] = true;
            cfsr_sim_item_push(link, !from, CFSR_SIM_RST, -ECONNREFUSED);
            if (link->ghost)
                cfsr_sim_link_free(link);
        }
        break;
    case CFSR_SIM_SYNACK:
        if (conn != NULL)
            conn->established = true;
        break;
    case CFSR_SIM_FIN:
        if (conn != NULL)
            conn->end_of_stream = true;
        break;
    case CFSR_SIM_RST:
        if (conn != NULL && conn->failure == 0)
            conn->failure = item->reason;
        break;
    case CFSR_SIM_DATA: break;
    }
}

/* The deliverable item that is due first; NULL if there is none. */
static struct cfsr_sim_link *first_due(const struct cfsr_sim_network *network, unsigned *from_out,
                                       uint64_t *due_us_out)
{
    const struct cfsr_sim_item *first = NULL;
    struct cfsr_sim_link *found = NULL;
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &network->links)
    {
        struct cfsr_sim_link *link = CFSR_LIST_ENTRY(node, struct cfsr_sim_link, link);
        for (unsigned from = 0; from < 2; from++) {
            struct cfsr_sim_item *item = item_at(&link->pipe[from], link->pipe[from].items_head);
            if (items_count(&link->pipe[from]) == 0)
                continue;
            if (first != NULL && (item->due_us > first->due_us ||
                                  (item->due_us == first->due_us && item->order > first->order)))
                continue;
            if (!is_deliverable(link, from)) /* dearest, so last */
                continue;
            first = item;
            found = link;
            *from_out = from;
            *due_us_out = item->due_us;
        }
    }
    return found;
}

void cfsr_sim_network_advance(struct cfsr_sim_network *network, uint64_t now_us)
{
    struct cfsr_sim_link *link;
    struct cfsr_list *node;
    uint64_t due_us = 0;
    unsigned from = 0;

    CFSR_ASSERT(now_us >= network->now_us);
    while ((link = first_due(network, &from, &due_us)) != NULL && due_us <= now_us) {
        network->now_us = cfsr_max_u64(network->now_us, due_us);
        deliver(link, from);
    }
    network->now_us = now_us;
    CFSR_LIST_FOR_EACH(node, &network->conns)
    {
        struct cfsr_conn *conn = CFSR_LIST_ENTRY(node, struct cfsr_conn, network);
        if (conn->deadline_us <= now_us)
            cfsr_sim_touch(conn);
    }
}

uint64_t cfsr_sim_network_next_due_us(const struct cfsr_sim_network *network)
{
    uint64_t due_us = UINT64_MAX;
    struct cfsr_list *node;
    unsigned from;

    (void)first_due(network, &from, &due_us);
    CFSR_LIST_FOR_EACH(node, &network->conns)
    due_us = cfsr_min_u64(due_us, CFSR_LIST_ENTRY(node, struct cfsr_conn, network)->deadline_us);
    return due_us;
}

void cfsr_sim_network_partition(struct cfsr_sim_network *network, const char *from_host,
                                const char *to_host, bool blocked)
{
    network->partitioned[cfsr_sim_host(network, from_host)][cfsr_sim_host(network, to_host)] =
        blocked;
}
