/*
 * rdma/connection.c - the life of a connection, from connect or accept to on_closed.
 *
 * Thread:     the core of the group.
 * States:     RESOLVING -> CONNECTING (dialler) or ACCEPTING -> OPEN -> (LINGER -> DRAIN ->)
 *             CLOSING; any state -> CLOSING.
 * Invariants: upcalls are made by cfsr_rdma_conn_run() only, which only poll calls. A connection
 *             ends there: its queue pair goes into error, a marker follows what is in the send
 *             queue, and flushed completions are collected for FLUSH_WAIT_NS at most. Then the
 *             queue pair is destroyed, after which no device touches its memory; completions that
 *             are still in the queue name a generation that is over. So nothing waits for a peer or
 *             a device that does not answer, and devices that flush nothing (soft-RoCE before Linux
 *             6.4) cost those milliseconds only.
 */
#include "transport/rdma/rdma.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LINGER_NS     (1000ull * 1000 * 1000)
#define FLUSH_WAIT_NS (20ull * 1000 * 1000)
/* 0.64 ms. The default of the connection manager, 0, means 655 ms. Credits keep it from mattering
 * for a peer that obeys them. */
#define MIN_RNR_TIMER 12

void cfsr_rdma_conn_ready(struct cfsr_conn *conn)
{
    if (cfsr_list_is_empty(&conn->ready))
        cfsr_list_push_back(&conn->group->ready, &conn->ready);
}

void cfsr_rdma_conn_want_flush(struct cfsr_conn *conn)
{
    if (cfsr_list_is_empty(&conn->dirty))
        cfsr_list_push_back(&conn->group->dirty, &conn->dirty);
}

void cfsr_rdma_conn_fail(struct cfsr_conn *conn, int failure)
{
    CFSR_ASSERT(failure < 0);
    if (conn->failure == 0)
        conn->failure = failure;
    cfsr_rdma_conn_ready(conn);
}

void cfsr_rdma_timer_start(struct cfsr_conn *conn, struct cfsr_timer *timer, uint64_t timeout_ns)
{
    if (conn->group->timers != NULL)
        cfsr_timer_add(conn->group->timers, timer, cfsr_clock_monotonic_ns() + timeout_ns);
}

void cfsr_rdma_timer_stop(struct cfsr_conn *conn, struct cfsr_timer *timer)
{
    if (conn->group->timers != NULL)
        cfsr_timer_cancel(conn->group->timers, timer);
}

static void deadline(struct cfsr_timer *timer, uint64_t now_ns)
{
    struct cfsr_conn *conn = CFSR_CONTAINER_OF(timer, struct cfsr_conn, timer);

    (void)now_ns;
    if (conn->state == CFSR_RDMA_CLOSING) {
        conn->drained = true;
        cfsr_rdma_conn_ready(conn);
    } else {
        cfsr_rdma_conn_shut(conn, conn->state < CFSR_RDMA_OPEN ? -ETIMEDOUT : 0);
    }
}

static void credits_missing(struct cfsr_timer *timer, uint64_t now_ns)
{
    (void)now_ns;
    cfsr_rdma_conn_fail(CFSR_CONTAINER_OF(timer, struct cfsr_conn, credit_timer),
                        -CFSR_E_BACKPRESSURE);
}

static struct cfsr_rdma_place *find_place(struct cfsr_group *group)
{
    for (uint32_t i = 0; i < group->places_count; i++)
        if (group->places[i].conn == NULL)
            return &group->places[i];
    return NULL;
}

int cfsr_rdma_conn_create(struct cfsr_group *group, const struct cfsr_conn_events *events,
                          void *user, struct cfsr_conn **conn_out)
{
    struct cfsr_rdma_place *place = find_place(group);
    struct cfsr_list *ring;
    struct cfsr_conn *conn;

    if (group->device_gone)
        return cfsr_fail(-ENODEV, "the RDMA device was removed; restart to use one again");
    if (place == NULL)
        return cfsr_fail(-CFSR_E_POOL_EMPTY, "all connections of this core are in use");
    ring = cfsr_list_pop_front(&group->rings_free);
    if (ring == NULL) {
        cfsr_counter_add(&group->counters.receive_ring_empty, 1);
        return cfsr_fail(-CFSR_E_POOL_EMPTY, "all %u RDMA receive rings of this core are in use",
                         group->rings_count);
    }
    conn = cfsr_pool_take(group->conns);
    CFSR_ASSERT(conn != NULL); /* as many as places */
    conn->group = group;
    conn->events = events;
    conn->user = user;
    conn->ring = CFSR_LIST_ENTRY(ring, struct cfsr_rdma_ring, link);
    conn->queue = conn->ring->queue;
    conn->arrived = conn->ring->arrived;
    conn->place = (uint32_t)(place - group->places);
    conn->generation = ++place->generation;
    place->conn = conn;
    group->conns_open++;
    cfsr_list_init(&conn->ready);
    cfsr_list_init(&conn->dirty);
    cfsr_list_push_back(&group->open, &conn->open);
    cfsr_timer_init(&conn->timer, deadline);
    cfsr_timer_init(&conn->credit_timer, credits_missing);
    cfsr_rdma_alive_init(conn);
    cfsr_rdma_credits_init(&conn->credits, group->geometry.slots);
    cfsr_rdma_send_init(conn);
    *conn_out = conn;
    return 0;
}

void cfsr_rdma_conn_destroy(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;

    cfsr_rdma_timer_stop(conn, &conn->timer);
    cfsr_rdma_timer_stop(conn, &conn->credit_timer);
    cfsr_rdma_timer_stop(conn, &conn->alive_timer);
    if (conn->has_queue_pair) {
        rdma_destroy_qp(conn->id);
        /* Its completions leave the shared queue before their places there are promised again. */
        (void)cfsr_rdma_completions(group, UINT32_MAX);
        group->cq_reserved -= group->geometry.slots + group->send_depth;
    }
    if (conn->id != NULL)
        cfsr_rdma_leave(group, conn->id, conn->failure);
    cfsr_rdma_send_forget(conn);
    group->places[conn->place].conn = NULL;
    group->conns_open--;
    if (conn->ring != NULL)
        cfsr_list_push_front(&group->rings_free, &conn->ring->link);
    cfsr_list_remove(&conn->open);
    cfsr_list_remove(&conn->ready);
    cfsr_list_remove(&conn->dirty);
    cfsr_pool_give(group->conns, conn);
}

static int reserve_completions(struct cfsr_group *group)
{
    uint32_t need = group->geometry.slots + group->send_depth;

    if (group->cq_entries - group->cq_reserved < need)
        return cfsr_fail(-CFSR_E_POOL_EMPTY,
                         "the completion queue of %u entries has no room for another connection's "
                         "%u: lower --rdma-depth",
                         group->cq_entries, need);
    group->cq_reserved += need;
    return 0;
}

int cfsr_rdma_queue_pair_create(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;
    int rc;

    if (conn->id->verbs != group->verbs)
        return cfsr_fail(-ENODEV, "the route leads over another RDMA device than %s",
                         ibv_get_device_name(group->verbs->device));
    rc = reserve_completions(group);
    if (rc < 0)
        return rc;
    for (;;) {
        struct ibv_qp_init_attr attributes = {
            .send_cq = group->cq,
            .recv_cq = group->cq,
            .cap = {.max_send_wr = group->send_depth,
                    .max_recv_wr = group->geometry.slots,
                    .max_send_sge = CFSR_RDMA_SGE_MAX,
                    .max_recv_sge = 1,
                    .max_inline_data = group->inline_bytes},
            .qp_type = IBV_QPT_RC,
        };
        if (rdma_create_qp(conn->id, group->pd, &attributes) == 0) {
            conn->inline_bytes = (uint32_t)cfsr_min_u64(attributes.cap.max_inline_data,
                                                        group->inline_bytes);
            break;
        }
        if ((errno != EINVAL && errno != ENOMEM) || group->inline_bytes == 0) {
            group->cq_reserved -= group->geometry.slots + group->send_depth;
            return cfsr_fail(-errno, "no RDMA queue pair: %s", cfsr_strerror(-errno));
        }
        group->inline_bytes /= 2; /* some devices refuse rather than lower it */
    }
    conn->has_queue_pair = true;
    return cfsr_rdma_receive_start(conn);
}

/* What the connection came out as: a path of 1 KiB packets should not stay unseen. */
static void tell(const struct cfsr_conn *conn)
{
    struct ibv_qp_attr attributes;
    struct ibv_qp_init_attr initial;
    unsigned mtu = 0;

    if (ibv_query_qp(conn->id->qp, &attributes, IBV_QP_PATH_MTU, &initial) == 0)
        mtu = 128u << attributes.path_mtu;
    cfsr_log(CFSR_LOG_DEBUG, "rdma_connected", CFSR_S("remote", conn->remote),
             CFSR_S("device", ibv_get_device_name(conn->id->verbs->device)),
             CFSR_U("port", conn->id->port_num), CFSR_U("mtu", mtu),
             CFSR_U("inline", conn->inline_bytes), CFSR_U("slots", conn->peer.slots),
             CFSR_U("slot_bytes", conn->peer.slot_bytes));
}

void cfsr_rdma_conn_opened(struct cfsr_conn *conn)
{
    struct ibv_qp_attr attributes = {.min_rnr_timer = MIN_RNR_TIMER};
    struct cfsr_group *group = conn->group;

    conn->state = CFSR_RDMA_OPEN;
    conn->connected_owed = true;
    cfsr_rdma_timer_stop(conn, &conn->timer);
    cfsr_rdma_alive_start(conn);
    (void)ibv_modify_qp(conn->id->qp, &attributes, IBV_QP_MIN_RNR_TIMER);
    cfsr_rdma_name(rdma_get_peer_addr(conn->id), conn->remote, sizeof conn->remote);
    cfsr_counter_add(conn->dialled ? &group->counters.connects : &group->counters.accepts, 1);
    tell(conn);
    cfsr_rdma_conn_ready(conn);
}

void cfsr_rdma_conn_shut(struct cfsr_conn *conn, int reason)
{
    struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
    bool connected = conn->state >= CFSR_RDMA_OPEN;

    if (conn->state == CFSR_RDMA_CLOSING)
        return;
    conn->state = CFSR_RDMA_CLOSING;
    conn->reason = reason;
    conn->connected_owed = false;
    cfsr_rdma_timer_stop(conn, &conn->timer);
    cfsr_rdma_timer_stop(conn, &conn->credit_timer);
    cfsr_rdma_timer_stop(conn, &conn->alive_timer);
    cfsr_list_remove(&conn->dirty);
    conn->drained = !conn->has_queue_pair || conn->group->timers == NULL;
    if (conn->has_queue_pair) {
        (void)ibv_modify_qp(conn->id->qp, &error, IBV_QP_STATE);
        if (connected && cfsr_rdma_may_say_goodbye(conn->id, conn->failure))
            (void)rdma_disconnect(conn->id);
        cfsr_rdma_send_marker(conn);
        cfsr_rdma_timer_start(conn, &conn->timer, FLUSH_WAIT_NS);
    }
    cfsr_rdma_conn_ready(conn);
}

void cfsr_rdma_close(struct cfsr_conn *conn, bool linger)
{
    if (conn->state == CFSR_RDMA_CLOSING)
        return;
    if (!linger || conn->state < CFSR_RDMA_OPEN || conn->failure != 0) {
        cfsr_rdma_conn_shut(conn, 0);
        return;
    }
    if (conn->state != CFSR_RDMA_OPEN)
        return; /* lingers already */
    conn->state = CFSR_RDMA_LINGER;
    conn->connected_owed = false;
    cfsr_rdma_timer_stop(conn, &conn->timer);
    cfsr_rdma_timer_start(conn, &conn->timer, LINGER_NS);
    cfsr_rdma_conn_want_flush(conn);
    cfsr_rdma_conn_ready(conn);
}

static void finish(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;

    /* Frames go back to their owner only when no device can read them any more, and what arrived
     * may be held from here on because none can write there. */
    if (conn->has_queue_pair) {
        rdma_destroy_qp(conn->id);
        (void)cfsr_rdma_completions(group, UINT32_MAX);
        group->cq_reserved -= group->geometry.slots + group->send_depth;
        conn->has_queue_pair = false;
    }
    cfsr_rdma_send_forget(conn); /* uses the ring, which on_closed() may keep or pass on */
    (void)cfsr_rdma_show_sent(conn, UINT32_MAX, true);
    cfsr_counter_add(&group->counters.closes, 1);
    if (conn->reason != 0)
        cfsr_counter_add(&group->counters.errors, 1);
    conn->events->on_closed(conn->user, conn, conn->reason);
    cfsr_rdma_conn_destroy(conn);
}

/* The peer has ended its direction. What the callee had no room for gets a last, bounded chance. */
static void stream_ended(struct cfsr_conn *conn)
{
    if (cfsr_rdma_untaken(conn) == 0) {
        cfsr_rdma_conn_shut(conn, 0);
    } else if (!conn->untaken_grace) {
        conn->untaken_grace = true;
        cfsr_rdma_timer_start(conn, &conn->timer, LINGER_NS);
    }
}

/* Moves to the next state if it is time; upcalls for what arrived and went out have been made. */
static void step(struct cfsr_conn *conn)
{
    /* Whoever has seen the end of both may go without a word. */
    bool orderly = conn->end_sent || conn->end_received;

    if (conn->failure != 0)
        cfsr_rdma_conn_shut(conn, conn->failure == -ECONNRESET && orderly ? 0 : conn->failure);
    if (conn->state == CFSR_RDMA_OPEN && conn->end_received)
        stream_ended(conn);
    if (conn->state == CFSR_RDMA_LINGER && conn->end_sent && cfsr_rdma_send_is_idle(conn))
        conn->state = CFSR_RDMA_DRAIN;
    if (conn->state == CFSR_RDMA_DRAIN && conn->end_received)
        cfsr_rdma_conn_shut(conn, 0);
    if (conn->state == CFSR_RDMA_CLOSING && conn->flushing_receives == 0 &&
        conn->queue_head == conn->queue_tail)
        conn->drained = true;
}

static bool upcalls_owed(const struct cfsr_conn *conn)
{
    if (cfsr_rdma_sent_is_owed(conn))
        return true;
    if (conn->state != CFSR_RDMA_OPEN)
        return false;
    return (conn->show && !conn->fault_stall) || cfsr_rdma_owes_writable(conn);
}

unsigned cfsr_rdma_conn_run(struct cfsr_conn *conn, unsigned budget)
{
    unsigned work = 0;

    CFSR_ASSERT(budget > 0);
    if (conn->connected_owed) {
        conn->connected_owed = false;
        conn->events->on_connected(conn->user, conn);
        work++;
    }
    work += cfsr_rdma_show_sent(conn, budget - work, false);
    while (work < budget && conn->state == CFSR_RDMA_OPEN && cfsr_rdma_take_writable(conn)) {
        conn->events->on_writable(conn->user, conn);
        work++;
    }
    work += cfsr_rdma_show(conn, budget - work);
    if (upcalls_owed(conn)) { /* the budget ended first */
        cfsr_rdma_conn_ready(conn);
        return work;
    }
    step(conn);
    if (conn->state == CFSR_RDMA_CLOSING && conn->drained) {
        finish(conn);
        work++;
    }
    return work;
}

void cfsr_rdma_conn_info(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out)
{
    cfsr_rdma_name(conn->id != NULL ? rdma_get_local_addr(conn->id) : NULL, info_out->local,
                   sizeof info_out->local);
    (void)snprintf(info_out->remote, sizeof info_out->remote, "%s", conn->remote);
    info_out->bytes_sent = conn->bytes_sent;
    info_out->bytes_received = conn->bytes_received;
    info_out->send_queue_frames = cfsr_rdma_unsent(conn);
    info_out->receive_stalled = conn->refused;
}

int cfsr_rdma_inject(struct cfsr_conn *conn, enum cfsr_inject fault)
{
    switch (fault) {
    case CFSR_INJECT_RESET: cfsr_rdma_conn_shut(conn, -ECONNRESET); return 0;
    case CFSR_INJECT_STALL_RECV: conn->fault_stall = true; return 0;
    case CFSR_INJECT_SHORT_SEND: conn->fault_short_send = true; return 0;
    case CFSR_INJECT_FLIP_BIT: conn->fault_flip_bit = true; return 0;
    case CFSR_INJECT_COMPLETION_ERROR: conn->fault_completion = true; return 0;
    }
    return -ENOTSUP;
}
