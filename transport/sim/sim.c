/*
 * sim/sim.c - the simulated transport: its table, groups and connections.
 *
 * Thread:     the simulator's, for all groups of a network.
 * States:     CONNECTING -> OPEN -> (LINGER ->) CLOSING; any state -> CLOSING.
 * Invariants: the same promises as tcp keeps, with the pipes of the network for sockets: upcalls
 * from poll only, frames given back when they are wholly in the pipe, spans in place. Time is the
 * network's; poll reads it and never any clock.
 */
#include "transport/sim/control.h"
#include "transport/sim/sim.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINGER_US  (1000ull * 1000)
#define RINGS_KEPT 256

/*
 * Mapping a ring costs more than most of a simulated minute: those of groups that are gone are kept
 * for the next ones, of the same network or of another; the one that was used last comes first, for
 * it has its memory. What is in them is never read before it is written.
 */
static struct cfsr_mirror spare_rings[RINGS_KEPT];
static unsigned spare_count;

static int mirror_take(size_t bytes, struct cfsr_mirror *mirror_out)
{
    for (unsigned i = spare_count; i-- > 0;) {
        if (spare_rings[i].size_bytes != bytes)
            continue;
        *mirror_out = spare_rings[i];
        spare_count--;
        memmove(&spare_rings[i], &spare_rings[i + 1], (spare_count - i) * sizeof *spare_rings);
        return 0;
    }
    return cfsr_mirror_create_lazy(bytes, mirror_out);
}

/* The oldest goes when there are too many: sizes differ from run to run. */
static void mirror_keep(const struct cfsr_mirror *mirror)
{
    if (spare_count == RINGS_KEPT) {
        cfsr_mirror_destroy(&spare_rings[0]);
        memmove(&spare_rings[0], &spare_rings[1], --spare_count * sizeof *spare_rings);
    }
    spare_rings[spare_count++] = *mirror;
}

static void destroy_rings(struct cfsr_group *group)
{
    for (uint32_t i = 0; i < group->rings_count; i++)
        mirror_keep(&group->rings[i].mirror);
    free(group->rings);
}

/* Rings are made when first needed: a simulation has many connections and uses few at a time. */
static int ring_get(struct cfsr_group *group, struct cfsr_sim_ring **ring_out)
{
    struct cfsr_list *node = cfsr_list_pop_front(&group->rings_free);
    struct cfsr_sim_ring *ring;
    int rc;

    if (node != NULL) {
        *ring_out = CFSR_LIST_ENTRY(node, struct cfsr_sim_ring, link);
        return 0;
    }
    CFSR_ASSERT(group->rings_count < group->rings_max);
    ring = &group->rings[group->rings_count];
    rc = mirror_take(group->recv_ring_bytes, &ring->mirror);
    if (rc < 0)
        return cfsr_fail_context(rc, "receive ring %u of %u", group->rings_count, group->rings_max);
    group->rings_count++;
    cfsr_list_init(&ring->link);
    *ring_out = ring;
    return 0;
}

int cfsr_sim_group_forked(struct cfsr_group *group)
{
    struct cfsr_list *node;

    spare_count = 0; /* left to the parent, as are those that are free */
    cfsr_list_init(&group->rings_free);
    CFSR_LIST_FOR_EACH(node, &group->open)
    {
        struct cfsr_conn *conn = CFSR_LIST_ENTRY(node, struct cfsr_conn, open);
        struct cfsr_receive *receive = &conn->receive;
        size_t mask = receive->ring_bytes - 1, len_bytes = receive->tail - receive->released;
        size_t at = receive->released & mask;
        struct cfsr_mirror own;
        uint8_t *shared = conn->ring->mirror.base;
        int rc = cfsr_mirror_create_lazy(receive->ring_bytes, &own);

        if (rc < 0)
            return rc;
        memcpy(own.base + at, shared + at, len_bytes);
        /* To the address of the shared one, which callees may hold. */
        if (mremap(own.base, own.size_bytes, own.size_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
                   shared) == MAP_FAILED ||
            mremap(own.base + own.size_bytes, own.size_bytes, own.size_bytes,
                   MREMAP_MAYMOVE | MREMAP_FIXED, shared + own.size_bytes) == MAP_FAILED)
            return -errno;
    }
    return 0;
}

static int group_create(const struct cfsr_group_options *options, struct cfsr_group **group_out)
{
    struct cfsr_group *group;
    int rc;

    if (options->sim == NULL || options->conns_max == 0 || options->send_gather_bytes == 0 ||
        !cfsr_is_power_of_two(options->recv_ring_bytes))
        return cfsr_fail(-EINVAL, "the simulated transport needs a network, connections, the size "
                                  "of a send and receive rings of a power of two");
    group = calloc(1, sizeof *group);
    if (group == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for a transport group");
    group->network = options->sim;
    group->recv_ring_bytes = options->recv_ring_bytes;
    group->send_gather_bytes = options->send_gather_bytes;
    (void)snprintf(group->host, sizeof group->host, "%s",
                   options->sim_host != NULL ? options->sim_host : "local");
    cfsr_list_init(&group->open);
    cfsr_list_init(&group->rings_free);
    rc = cfsr_pool_create(sizeof(struct cfsr_conn), options->conns_max, &group->conns);
    if (rc < 0)
        goto free_group;
    group->rings_max = options->conns_max;
    group->rings = calloc(group->rings_max, sizeof *group->rings);
    if (group->rings == NULL) {
        rc = cfsr_fail(-ENOMEM, "out of memory for %u receive rings", group->rings_max);
        goto destroy_pool;
    }
    *group_out = group;
    return 0;

destroy_pool:
    cfsr_pool_destroy(group->conns);
free_group:
    free(group);
    return rc;
}

static int conn_create(struct cfsr_group *group, struct cfsr_sim_link *link, unsigned side,
                       const struct cfsr_conn_events *events, void *user,
                       struct cfsr_conn **conn_out)
{
    struct cfsr_conn *conn = cfsr_pool_take(group->conns);
    int rc;

    if (conn == NULL)
        return cfsr_fail(-CFSR_E_POOL_EMPTY, "all connections of this group are in use");
    rc = ring_get(group, &conn->ring);
    if (rc < 0) {
        cfsr_pool_give(group->conns, conn);
        return rc;
    }
    conn->group = group;
    conn->link = link;
    conn->side = side;
    conn->events = events;
    conn->user = user;
    conn->deadline_us = UINT64_MAX;
    cfsr_receive_init(&conn->receive, NULL, 0);
    cfsr_receive_attach(&conn->receive, conn->ring->mirror.base, group->recv_ring_bytes);
    cfsr_send_queue_init(&conn->queue);
    cfsr_list_push_back(&group->open, &conn->open);
    cfsr_list_push_back(&group->network->conns, &conn->network);
    link->conn[side] = conn;
    *conn_out = conn;
    return 0;
}

static void conn_destroy(struct cfsr_conn *conn)
{
    cfsr_sim_link_leave(conn->link, conn->side);
    cfsr_list_remove(&conn->open);
    cfsr_list_remove(&conn->network);
    cfsr_list_push_front(&conn->group->rings_free, &conn->ring->link);
    cfsr_pool_give(conn->group->conns, conn);
}

static void conn_shut(struct cfsr_conn *conn, int reason)
{
    if (conn->state == CFSR_SIM_CLOSING)
        return;
    if (conn->failure == 0 && !conn->link->vanished[conn->side])
        cfsr_sim_item_push(conn->link, conn->side, CFSR_SIM_FIN, 0);
    conn->state = CFSR_SIM_CLOSING;
    conn->reason = reason;
    conn->connected_owed = false;
    conn->deadline_us = UINT64_MAX;
}

static void group_destroy(struct cfsr_group *group)
{
    while (!cfsr_list_is_empty(&group->open)) {
        struct cfsr_conn *conn = CFSR_LIST_ENTRY(group->open.next, struct cfsr_conn, open);
        conn_shut(conn, -CFSR_E_SHUTDOWN);
        conn_destroy(conn);
    }
    destroy_rings(group);
    cfsr_pool_destroy(group->conns);
    free(group);
}

/* Moves queued bytes into the pipe while there is room. */
static void pump(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;

    if ((conn->state != CFSR_SIM_OPEN && conn->state != CFSR_SIM_LINGER) || conn->failure != 0)
        return;
    while (cfsr_send_queue_unsent(&conn->queue) > 0) {
        size_t wanted;
        size_t pushed;
        unsigned count = cfsr_send_queue_gather(&conn->queue, group->send_gather_bytes, conn->iov,
                                                CFSR_SEND_IOV_MAX, &wanted);
        if (count == 0)
            return;
        if (conn->fault_short_send) {
            conn->fault_short_send = false;
            wanted = (wanted + 1) / 2;
            cfsr_counter_add(&group->counters.short_sends, 1);
        }
        pushed = cfsr_sim_bytes_push(conn->link, conn->side, conn->iov, count, wanted);
        if (pushed == 0)
            return;
        cfsr_send_queue_advance(&conn->queue, pushed);
        conn->bytes_sent += pushed;
        cfsr_counter_add(&group->counters.sends, 1);
        cfsr_counter_add(&group->counters.bytes_sent, pushed);
        if (pushed < wanted)
            cfsr_counter_add(&group->counters.short_sends, 1);
    }
}

static unsigned show(struct cfsr_conn *conn, unsigned budget)
{
    unsigned work = 0;

    while (conn->show && !conn->fault_stall && conn->state == CFSR_SIM_OPEN) {
        size_t len;
        size_t taken;
        uint8_t *span = cfsr_receive_span(&conn->receive, &len);
        if (len == 0) {
            conn->show = false;
            break;
        }
        if (work >= budget)
            break;
        conn->show = false; /* recv_resume() from inside the upcall sets it again */
        conn->showing = true;
        taken = conn->events->on_data(conn->user, conn, span, len);
        conn->showing = false;
        work++;
        CFSR_ASSERT(taken <= len);
        cfsr_receive_take(&conn->receive, taken);
        cfsr_receive_release(&conn->receive, conn->early_release_bytes);
        conn->early_release_bytes = 0;
        conn->refused = taken == 0;
        if (taken > 0)
            conn->show = taken < len || conn->show;
        else if (conn->show)
            break; /* shown again from the next poll */
    }
    return work;
}

static void step(struct cfsr_conn *conn)
{
    uint64_t now_us = conn->group->network->now_us;
    size_t untaken;

    if (conn->failure != 0)
        conn_shut(conn, conn->failure);
    if (now_us >= conn->deadline_us)
        conn_shut(conn, conn->state == CFSR_SIM_CONNECTING ? -ETIMEDOUT : 0);
    (void)cfsr_receive_span(&conn->receive, &untaken);
    if (conn->state == CFSR_SIM_OPEN && conn->end_of_stream) {
        if (untaken == 0)
            conn_shut(conn, 0);
        else if (conn->deadline_us == UINT64_MAX)
            conn->deadline_us = now_us + LINGER_US; /* a last, bounded chance to take it */
    }
    if (conn->state == CFSR_SIM_LINGER && cfsr_send_queue_unsent(&conn->queue) == 0)
        conn_shut(conn, 0);
}

static unsigned show_sent(struct cfsr_conn *conn, unsigned budget, bool all)
{
    unsigned work = 0;
    uint64_t cookie;

    while (work < budget && cfsr_send_queue_pop_sent(&conn->queue, all, &cookie)) {
        conn->events->on_sent(conn->user, conn, cookie);
        work++;
    }
    return work;
}

static unsigned run(struct cfsr_conn *conn, unsigned budget)
{
    unsigned work = 0;

    if (conn->established && conn->state == CFSR_SIM_CONNECTING && conn->failure == 0) {
        conn->state = CFSR_SIM_OPEN;
        conn->deadline_us = UINT64_MAX;
        conn->connected_owed = true;
        cfsr_counter_add(&conn->group->counters.connects, 1);
    }
    if (conn->connected_owed) {
        conn->connected_owed = false;
        conn->events->on_connected(conn->user, conn);
        work++;
    }
    pump(conn);
    work += show_sent(conn, budget - work, false);
    while (work < budget && conn->state == CFSR_SIM_OPEN &&
           cfsr_send_queue_take_writable(&conn->queue)) {
        conn->events->on_writable(conn->user, conn);
        work++;
    }
    work += show(conn, budget - work);
    if (work >= budget)
        return work;
    step(conn);
    if (conn->state == CFSR_SIM_CLOSING) {
        struct cfsr_group *group = conn->group;
        work += show_sent(conn, UINT32_MAX, true);
        cfsr_counter_add(&group->counters.closes, 1);
        if (conn->reason != 0)
            cfsr_counter_add(&group->counters.errors, 1);
        conn->events->on_closed(conn->user, conn, conn->reason);
        conn_destroy(conn);
        work++;
    }
    return work;
}

static unsigned group_poll(struct cfsr_group *group, unsigned budget)
{
    struct cfsr_list turn;
    struct cfsr_list *node;
    unsigned work = 0;

    group->touched = false;
    /* Every connection one turn; those the budget cut off come first next time. */
    cfsr_list_init(&turn);
    while (work < budget && (node = cfsr_list_pop_front(&group->open)) != NULL) {
        cfsr_list_push_back(&turn, node);
        work += run(CFSR_LIST_ENTRY(node, struct cfsr_conn, open), budget - work);
    }
    while ((node = cfsr_list_pop_front(&turn)) != NULL)
        cfsr_list_push_back(&group->open, node);
    return work;
}

static void group_flush(struct cfsr_group *group)
{
    struct cfsr_list *node;

    CFSR_LIST_FOR_EACH(node, &group->open)
    pump(CFSR_LIST_ENTRY(node, struct cfsr_conn, open));
}

static int group_event_fd(struct cfsr_group *group)
{
    (void)group;
    return -1;
}

static int group_arm(struct cfsr_group *group)
{
    return cfsr_list_is_empty(&group->open) ? 0 : -EBUSY; /* a simulator never sleeps */
}

static int memory_register(struct cfsr_group *group, void *base, size_t len_bytes)
{
    (void)group;
    (void)base;
    (void)len_bytes;
    return 0;
}

static void memory_unregister(struct cfsr_group *group, void *base)
{
    (void)group;
    (void)base;
}

static int sim_connect(struct cfsr_group *group, const char *endpoint,
                       const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                       const struct cfsr_conn_events *events, void *user,
                       struct cfsr_conn **conn_out)
{
    struct cfsr_sim_link *link;
    int rc = cfsr_sim_link_create(group->network, group->host, endpoint, &link);

    if (rc < 0)
        return rc;
    rc = conn_create(group, link, CFSR_SIM_DIALER, events, user, conn_out);
    if (rc < 0) {
        cfsr_sim_link_leave(link, CFSR_SIM_DIALER);
        return rc;
    }
    cfsr_preamble_store(preamble, link->preamble);
    (*conn_out)->state = CFSR_SIM_CONNECTING;
    (*conn_out)->deadline_us = group->network->now_us + timeout_ns / 1000;
    cfsr_sim_item_push(link, CFSR_SIM_DIALER, CFSR_SIM_SYN, 0);
    return 0;
}

static int sim_accept(struct cfsr_group *group, struct cfsr_incoming *incoming,
                      const struct cfsr_conn_events *events, void *user,
                      struct cfsr_conn **conn_out)
{
    int rc = conn_create(group, incoming->link, CFSR_SIM_ACCEPTOR, events, user, conn_out);

    if (rc < 0) {
        cfsr_sim_incoming_discard(incoming);
        return rc;
    }
    (*conn_out)->state = CFSR_SIM_OPEN;
    (*conn_out)->connected_owed = true;
    cfsr_counter_add(&group->counters.accepts, 1);
    return 0;
}

static void sim_close(struct cfsr_conn *conn, bool linger)
{
    if (conn->state == CFSR_SIM_CLOSING)
        return;
    if (!linger || conn->state == CFSR_SIM_CONNECTING || conn->failure != 0) {
        conn_shut(conn, 0);
        cfsr_sim_touch(conn); /* on_closed is owed, and nothing else may come */
    } else if (conn->state == CFSR_SIM_OPEN) {
        conn->state = CFSR_SIM_LINGER;
        conn->connected_owed = false;
        conn->deadline_us = conn->group->network->now_us + LINGER_US;
    }
}

static int sim_send(struct cfsr_conn *conn, enum cfsr_stream stream,
                    const struct cfsr_frame *frames, unsigned count)
{
    if (conn->state != CFSR_SIM_OPEN || conn->failure != 0)
        return -ENOTCONN;
    return cfsr_send_queue_push(&conn->queue, stream, frames, count);
}

static void sim_recv_release(struct cfsr_conn *conn, size_t len_bytes)
{
    if (conn->showing)
        conn->early_release_bytes += len_bytes;
    else
        cfsr_receive_release(&conn->receive, len_bytes);
}

static void sim_recv_resume(struct cfsr_conn *conn)
{
    conn->fault_stall = false;
    conn->show = true;
}

static void sim_conn_info(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out)
{
    memcpy(info_out->local, conn->link->endpoint[conn->side], sizeof info_out->local);
    memcpy(info_out->remote, conn->link->endpoint[!conn->side], sizeof info_out->remote);
    info_out->bytes_sent = conn->bytes_sent;
    info_out->bytes_received = conn->bytes_received;
    info_out->send_queue_frames = cfsr_send_queue_unsent(&conn->queue);
    info_out->receive_stalled = conn->refused;
}

static void group_stats(const struct cfsr_group *group, struct cfsr_transport_stats *stats_out)
{
#define X(name) stats_out->name = cfsr_counter_get(&group->counters.name);
    CFSR_TRANSPORT_COUNTERS(X)
#undef X
}

static int sim_inject(struct cfsr_conn *conn, enum cfsr_inject fault)
{
    switch (fault) {
    case CFSR_INJECT_RESET: cfsr_sim_link_cut(conn->link, -ECONNRESET); return 0;
    case CFSR_INJECT_STALL_RECV: conn->fault_stall = true; return 0;
    case CFSR_INJECT_SHORT_SEND: conn->fault_short_send = true; return 0;
    case CFSR_INJECT_FLIP_BIT: conn->fault_flip_bit = true; return 0;
    case CFSR_INJECT_COMPLETION_ERROR: break;
    }
    return -ENOTSUP;
}

const struct cfsr_transport cfsr_transport_sim = {
    .name = "sim",
    .api_version = CFSR_TRANSPORT_API_VERSION,
    .table_bytes = sizeof(struct cfsr_transport),
    .caps = 0,
    .group_create = group_create,
    .group_destroy = group_destroy,
    .poll = group_poll,
    .event_fd = group_event_fd,
    .arm = group_arm,
    .memory_register = memory_register,
    .memory_unregister = memory_unregister,
    .listen = cfsr_sim_listen,
    .listener_fd = cfsr_sim_listener_fd,
    .listener_endpoint = cfsr_sim_listener_endpoint,
    .listener_accept = cfsr_sim_listener_accept,
    .listener_close = cfsr_sim_listener_close,
    .listener_deadline = cfsr_sim_listener_deadline,
    .listener_dropped = cfsr_sim_listener_dropped,
    .incoming_discard = cfsr_sim_incoming_discard,
    .connect = sim_connect,
    .accept = sim_accept,
    .close = sim_close,
    .send = sim_send,
    .flush = group_flush,
    .recv_release = sim_recv_release,
    .recv_resume = sim_recv_resume,
    .conn_info = sim_conn_info,
    .stats = group_stats,
    .inject = sim_inject,
};
