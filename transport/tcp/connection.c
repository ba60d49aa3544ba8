/*
 * tcp/connection.c - the life of a connection, from connect or accept to on_closed.
 *
 * Thread:     the core of the group.
 * States:     CONNECTING -> OPEN -> (LINGER -> DRAIN ->) CLOSING; any state -> CLOSING.
 * Invariants: upcalls are made by cfsr_tcp_conn_run() only, which only poll calls; a connection
 * ends there and nowhere else, when no operation is in flight any more: until its completion an
 * operation owns the memory it was given. So close() and send() may be called from inside any
 * upcall. Rejected:   closing the socket to make operations return (they hold a reference of their
 * own).
 */
#include "transport/tcp/tcp.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_NS (1000ull * 1000 * 1000)

void cfsr_tcp_conn_ready(struct cfsr_conn *conn)
{
    if (cfsr_list_is_empty(&conn->ready))
        cfsr_list_push_back(&conn->group->ready, &conn->ready);
}

void cfsr_tcp_operation_done(struct cfsr_conn *conn)
{
    CFSR_ASSERT(conn->operations > 0);
    conn->operations--;
    cfsr_tcp_conn_ready(conn);
}

static void deadline(struct cfsr_timer *timer, uint64_t now_ns)
{
    struct cfsr_conn *conn = CFSR_CONTAINER_OF(timer, struct cfsr_conn, timer);

    (void)now_ns;
    cfsr_tcp_conn_shut(conn, conn->state == CFSR_TCP_CONNECTING ? -ETIMEDOUT : 0);
}

int cfsr_tcp_conn_create(struct cfsr_group *group, int fd, const struct cfsr_conn_events *events,
                         void *user, struct cfsr_conn **conn_out)
{
    struct cfsr_conn *conn;
    int rc = cfsr_tcp_socket_options(fd);

    if (rc < 0)
        return cfsr_fail(rc, "cannot set the options of a TCP socket: %s", cfsr_strerror(rc));
    conn = cfsr_pool_take(group->conns);
    if (conn == NULL)
        return cfsr_fail(-CFSR_E_POOL_EMPTY, "all connections of this core are in use");
    conn->group = group;
    conn->fd = fd;
    conn->events = events;
    conn->user = user;
    cfsr_list_init(&conn->ready);
    cfsr_list_init(&conn->dirty);
    cfsr_list_init(&conn->ring_wait);
    cfsr_list_init(&conn->ring_held);
    cfsr_list_push_back(&group->open, &conn->open);
    cfsr_timer_init(&conn->timer, deadline);
    cfsr_tcp_receive_init(conn);
    cfsr_tcp_send_init(conn);
    *conn_out = conn;
    return 0;
}

void cfsr_tcp_conn_destroy(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;

    CFSR_ASSERT(conn->operations == 0);
    cfsr_tcp_timer_stop(conn);
    cfsr_tcp_receive_ring_put(conn);
    cfsr_list_remove(&conn->open);
    cfsr_list_remove(&conn->ready);
    cfsr_list_remove(&conn->dirty);
    cfsr_list_remove(&conn->ring_wait);
    close(conn->fd);
    cfsr_pool_give(group->conns, conn);
}

int cfsr_tcp_accept(struct cfsr_group *group, struct cfsr_incoming *incoming,
                    const struct cfsr_conn_events *events, void *user, struct cfsr_conn **conn_out)
{
    struct cfsr_conn *conn;
    int rc = cfsr_tcp_conn_create(group, incoming->fd, events, user, &conn);

    if (rc < 0) {
        cfsr_tcp_incoming_discard(incoming);
        return cfsr_fail_context(rc, "cannot accept a connection");
    }
    free(incoming);
    conn->state = CFSR_TCP_OPEN;
    conn->connected_owed = true;
    cfsr_counter_add(&group->counters.accepts, 1);
    cfsr_tcp_conn_ready(conn);
    *conn_out = conn;
    return 0;
}

static void cancel_all(struct cfsr_conn *conn)
{
    if (conn->connect_in_flight)
        cfsr_ring_cancel(conn->group->ring, &conn->connect_op);
    if (conn->receive_in_flight)
        cfsr_ring_cancel(conn->group->ring, &conn->receive_op);
    if (conn->send_in_flight)
        cfsr_ring_cancel(conn->group->ring, &conn->send_op);
}

void cfsr_tcp_conn_shut(struct cfsr_conn *conn, int reason)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    bool connecting = conn->state == CFSR_TCP_CONNECTING;

    if (conn->state == CFSR_TCP_CLOSING)
        return;
    conn->state = CFSR_TCP_CLOSING;
    conn->reason = reason;
    conn->connected_owed = false;
    cfsr_tcp_timer_stop(conn);
    cfsr_list_remove(&conn->ring_wait);
    cfsr_list_remove(&conn->dirty);
    if (conn->abortive)
        (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    else if (!connecting) /* a socket that still connects would only begin again */
        (void)shutdown(conn->fd, SHUT_RDWR);
    cancel_all(conn);
    cfsr_tcp_conn_ready(conn);
}

void cfsr_tcp_close(struct cfsr_conn *conn, bool linger)
{
    if (conn->state == CFSR_TCP_CLOSING)
        return;
    if (!linger || conn->state == CFSR_TCP_CONNECTING || conn->failure != 0) {
        cfsr_tcp_conn_shut(conn, 0);
        return;
    }
    if (conn->state != CFSR_TCP_OPEN)
        return; /* lingers already */
    conn->state = CFSR_TCP_LINGER;
    conn->connected_owed = false;
    cfsr_tcp_timer_stop(conn);
    cfsr_tcp_timer_start(conn, LINGER_NS);
    cfsr_tcp_conn_ready(conn);
}

void cfsr_tcp_timer_start(struct cfsr_conn *conn, uint64_t timeout_ns)
{
    if (conn->group->timers == NULL)
        return;
    cfsr_timer_add(conn->group->timers, &conn->timer, cfsr_clock_monotonic_ns() + timeout_ns);
}

void cfsr_tcp_timer_stop(struct cfsr_conn *conn)
{
    if (conn->group->timers != NULL)
        cfsr_timer_cancel(conn->group->timers, &conn->timer);
}

static void finish(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;

    (void)cfsr_tcp_show_sent(conn, UINT32_MAX, true);
    cfsr_counter_add(&group->counters.closes, 1);
    if (conn->reason != 0)
        cfsr_counter_add(&group->counters.errors, 1);
    conn->events->on_closed(conn->user, conn, conn->reason);
    cfsr_tcp_conn_destroy(conn);
}

/* The peer has ended its direction. What the callee had no room for gets a last, bounded chance. */
static void stream_ended(struct cfsr_conn *conn)
{
    size_t untaken;

    (void)cfsr_receive_span(&conn->receive, &untaken);
    if (untaken == 0) {
        cfsr_tcp_conn_shut(conn, 0);
    } else if (!conn->untaken_grace) {
        conn->untaken_grace = true;
        cfsr_tcp_timer_start(conn, LINGER_NS);
    }
}

/* Moves to the next state if it is time; upcalls for what arrived and went out have been made. */
static void step(struct cfsr_conn *conn)
{
    if (conn->failure != 0)
        cfsr_tcp_conn_shut(conn, conn->state == CFSR_TCP_DRAIN ? 0 : conn->failure);
    if (conn->state == CFSR_TCP_OPEN && conn->end_of_stream)
        stream_ended(conn);
    if (conn->state == CFSR_TCP_LINGER && cfsr_tcp_send_is_idle(conn)) {
        conn->state = CFSR_TCP_DRAIN;
        (void)shutdown(conn->fd, SHUT_WR);
    }
    if (conn->state == CFSR_TCP_DRAIN && conn->end_of_stream)
        cfsr_tcp_conn_shut(conn, 0);
    cfsr_tcp_receive_arm(conn);
}

static bool upcalls_owed(const struct cfsr_conn *conn)
{
    if (cfsr_send_queue_unreleased(&conn->queue) > 0)
        return true;
    if (conn->state != CFSR_TCP_OPEN)
        return false;
    return (conn->show && !conn->fault_stall) || cfsr_send_queue_owes_writable(&conn->queue);
}

unsigned cfsr_tcp_conn_run(struct cfsr_conn *conn, unsigned budget)
{
    unsigned work = 0;

    CFSR_ASSERT(budget > 0);
    if (conn->connected_owed) {
        conn->connected_owed = false;
        conn->events->on_connected(conn->user, conn);
        work++;
    }
    work += cfsr_tcp_show_sent(conn, budget - work, false);
    while (work < budget && conn->state == CFSR_TCP_OPEN &&
           cfsr_send_queue_take_writable(&conn->queue)) {
        conn->events->on_writable(conn->user, conn);
        work++;
    }
    work += cfsr_tcp_show(conn, budget - work);
    if (upcalls_owed(conn)) { /* the budget ended first */
        cfsr_tcp_conn_ready(conn);
        cfsr_tcp_receive_arm(conn);
        return work;
    }
    step(conn);
    if (conn->state == CFSR_TCP_CLOSING && conn->operations == 0) {
        finish(conn);
        work++;
    }
    return work;
}

void cfsr_tcp_conn_info(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out)
{
    size_t free_bytes;

    (void)cfsr_receive_space(&conn->receive, &free_bytes);
    cfsr_tcp_local_name(conn->fd, info_out->local, sizeof info_out->local);
    cfsr_tcp_remote_name(conn->fd, info_out->remote, sizeof info_out->remote);
    info_out->bytes_sent = conn->bytes_sent;
    info_out->bytes_received = conn->bytes_received;
    info_out->send_queue_frames = cfsr_send_queue_unsent(&conn->queue);
    info_out->receive_stalled = !cfsr_list_is_empty(&conn->ring_wait) || conn->refused;
}

int cfsr_tcp_inject(struct cfsr_conn *conn, enum cfsr_inject fault)
{
    switch (fault) {
    case CFSR_INJECT_RESET:
        conn->abortive = true;
        cfsr_tcp_conn_shut(conn, -ECONNRESET);
        return 0;
    case CFSR_INJECT_STALL_RECV: conn->fault_stall = true; return 0;
    case CFSR_INJECT_SHORT_SEND: conn->fault_short_send = true; return 0;
    case CFSR_INJECT_FLIP_BIT: conn->fault_flip_bit = true; return 0;
    case CFSR_INJECT_COMPLETION_ERROR: break;
    }
    return -ENOTSUP;
}
