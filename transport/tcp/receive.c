/*
 * tcp/receive.c - receives of one connection and the upcalls that show them.
 *
 * Thread:     the core of the group.
 * Invariants: one receive in flight a connection, for all the free space there is; it never touches
 *             received bytes. A ring is taken when a frame does not end in the small buffer, and
 *             goes back when it is empty and no data came for a while (at once if others wait): the
 *             receive in flight is cancelled first, because it owns the ring's memory until its
 *             completion.
 * Rejected:   multishot receives into provided buffers (a copy a frame; measured slower), a ring a
 *             connection (memory grows with peers, not with traffic).
 */
#include "transport/tcp/tcp.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>
#include <liburing.h>

/* Polls without data before a ring goes back: long against one round trip of a busy peer. */
#define IDLE_POLLS         4096
#define IDLE_POLLS_WANTED  8 /* the same while others wait */
#define RECLAIM_EVERY_MASK 63

static void account_received(struct cfsr_conn *conn, size_t bytes)
{
    cfsr_counter_add(&conn->group->counters.receives, 1);
    cfsr_counter_add(&conn->group->counters.bytes_received, bytes);
    conn->bytes_received += bytes;
    conn->last_data_poll = conn->group->polls;
}

static void received(struct cfsr_conn *conn, size_t bytes)
{
    size_t free_bytes;
    uint8_t *at = cfsr_receive_space(&conn->receive, &free_bytes);

    account_received(conn, bytes);
    if (conn->state != CFSR_TCP_OPEN)
        return; /* closed by us: forgotten where it lies */
    if (conn->fault_flip_bit) {
        conn->fault_flip_bit = false;
        at[bytes / 2] ^= 0x10;
    }
    cfsr_receive_commit(&conn->receive, bytes);
    conn->show = true;
}

static void receive_done(struct cfsr_ring_op *op, int res, uint32_t flags)
{
    struct cfsr_conn *conn = CFSR_CONTAINER_OF(op, struct cfsr_conn, receive_op);

    (void)flags;
    conn->receive_in_flight = false;
    if (res > 0) {
        received(conn, (size_t)res);
    } else if (res == 0) {
        conn->end_of_stream = true;
    } else if (res == -ECANCELED && conn->reclaiming) {
        if (cfsr_receive_ring_is_empty(&conn->receive))
            cfsr_tcp_receive_ring_put(conn);
    } else if (res != -EINTR && res != -EAGAIN && conn->failure == 0) {
        conn->failure = res;
    }
    conn->reclaiming = false;
    cfsr_tcp_operation_done(conn);
}

void cfsr_tcp_receive_init(struct cfsr_conn *conn)
{
    cfsr_receive_init(&conn->receive, conn->small, sizeof conn->small);
    conn->receive_op.done = receive_done;
}

/* Shows what is there until the callee takes no more of it. */
unsigned cfsr_tcp_show(struct cfsr_conn *conn, unsigned budget)
{
    unsigned work = 0;

    while (conn->show && !conn->fault_stall && conn->state == CFSR_TCP_OPEN) {
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

static bool ring_get(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;
    struct cfsr_list *node = cfsr_list_pop_front(&group->rings_free);

    if (node == NULL) {
        if (cfsr_list_is_empty(&conn->ring_wait)) {
            cfsr_counter_add(&group->counters.receive_ring_empty, 1);
            cfsr_list_push_back(&group->ring_wait, &conn->ring_wait);
        }
        return false;
    }
    conn->receive_ring = CFSR_LIST_ENTRY(node, struct cfsr_tcp_ring, link);
    cfsr_receive_attach(&conn->receive, conn->receive_ring->mirror.base, group->recv_ring_bytes);
    cfsr_list_remove(&conn->ring_wait);
    cfsr_list_push_back(&group->ring_held, &conn->ring_held);
    conn->last_data_poll = group->polls;
    return true;
}

/* The ring goes back to the pool, whatever is in it. */
void cfsr_tcp_receive_ring_put(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;

    if (conn->receive_ring == NULL)
        return;
    CFSR_ASSERT(!conn->receive_in_flight);
    if (cfsr_receive_ring_is_empty(&conn->receive))
        (void)cfsr_receive_detach(&conn->receive);
    cfsr_list_remove(&conn->ring_held);
    cfsr_list_push_front(&group->rings_free, &conn->receive_ring->link);
    conn->receive_ring = NULL;
}

/* Rings that came back go to those who wait for one, the longest waiting first. */
static void serve_waiting(struct cfsr_group *group)
{
    struct cfsr_list *node;

    if (cfsr_list_is_empty(&group->rings_free))
        return;
    CFSR_LIST_FOR_EACH(node, &group->ring_wait)
    cfsr_tcp_conn_ready(CFSR_LIST_ENTRY(node, struct cfsr_conn, ring_wait));
}

/* Where the next receive goes; NULL if there is no room worth a receive yet. */
static uint8_t *receive_target(struct cfsr_conn *conn, size_t *len_out)
{
    struct cfsr_group *group = conn->group;
    uint8_t *at;

    if (conn->state != CFSR_TCP_OPEN) {
        *len_out = CFSR_TCP_DISCARD_BYTES;
        return group->discard;
    }
    if (conn->fault_stall)
        return NULL;
    cfsr_receive_rewind(&conn->receive);
    if (!cfsr_receive_needs_ring(&conn->receive))
        cfsr_list_remove(&conn->ring_wait);
    else if (!ring_get(conn))
        return NULL;
    at = cfsr_receive_space(&conn->receive, len_out);
    if (conn->receive.ring != NULL && *len_out < group->recv_low_bytes)
        return NULL;
    return at;
}

void cfsr_tcp_receive_arm(struct cfsr_conn *conn)
{
    struct io_uring_sqe *sqe;
    uint8_t *at;
    size_t len;

    if (conn->receive_in_flight || conn->end_of_stream || conn->failure != 0 ||
        conn->state == CFSR_TCP_CONNECTING || conn->state == CFSR_TCP_CLOSING)
        return;
    at = receive_target(conn, &len);
    if (at == NULL)
        return;
    sqe = cfsr_ring_sqe(conn->group->ring, &conn->receive_op);
    io_uring_prep_recv(sqe, conn->fd, at, len, 0);
    conn->receive_in_flight = true;
    conn->operations++;
}

static void reclaim(struct cfsr_conn *conn)
{
    if (!conn->receive_in_flight || conn->reclaiming || !cfsr_receive_ring_is_empty(&conn->receive))
        return;
    cfsr_ring_cancel(conn->group->ring, &conn->receive_op);
    conn->reclaiming = true;
}

void cfsr_tcp_receive_rings_reclaim(struct cfsr_group *group)
{
    bool wanted = !cfsr_list_is_empty(&group->ring_wait);
    uint64_t idle_polls = wanted ? IDLE_POLLS_WANTED : IDLE_POLLS;
    struct cfsr_list *node;
    struct cfsr_list *after;

    serve_waiting(group);
    if (!wanted && (group->polls & RECLAIM_EVERY_MASK) != 0)
        return;
    CFSR_LIST_FOR_EACH_SAFE(node, after, &group->ring_held)
    {
        struct cfsr_conn *conn = CFSR_LIST_ENTRY(node, struct cfsr_conn, ring_held);
        if (conn->state == CFSR_TCP_OPEN && group->polls - conn->last_data_poll >= idle_polls)
            reclaim(conn);
    }
}

void cfsr_tcp_recv_release(struct cfsr_conn *conn, size_t len_bytes)
{
    if (conn->showing) {
        /* Released by the callee before it has returned how much it takes. */
        conn->early_release_bytes += len_bytes;
        return;
    }
    cfsr_receive_release(&conn->receive, len_bytes);
    if (!conn->receive_in_flight)
        cfsr_tcp_conn_ready(conn); /* room again: poll goes on receiving */
}

void cfsr_tcp_recv_resume(struct cfsr_conn *conn)
{
    conn->fault_stall = false;
    conn->show = true;
    cfsr_tcp_conn_ready(conn);
}
