/*
 * tcp/send.c - gathered sends of one connection.
 *
 * Thread:     the core of the group.
 * Invariants: at most one send in flight a connection; its iovecs name frames that stay queued, and
 *             so untouched by their owner, until its completion. What is sent next is decided when
 *             the pipe is free, not before: frames gather meanwhile and CONTROL goes first.
 * Rejected:   zero-copy sends (slower on loopback and for pieces below 64 KiB, and a second
 *             completion to wait for), a send a frame (64 KiB sends cost 2.5 times the CPU of 256
 *             KiB ones), links of sends (a short one breaks the chain).
 */
#include "transport/tcp/tcp.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>
#include <liburing.h>
#include <sys/socket.h>

void cfsr_tcp_send_want(struct cfsr_conn *conn)
{
    if (cfsr_list_is_empty(&conn->dirty))
        cfsr_list_push_back(&conn->group->dirty, &conn->dirty);
}

static void account_sent(struct cfsr_conn *conn, size_t bytes)
{
    size_t of_preamble = cfsr_min_u64(bytes, conn->preamble_left);

    cfsr_counter_add(&conn->group->counters.bytes_sent, bytes);
    conn->bytes_sent += bytes;
    conn->preamble_left -= (uint32_t)of_preamble;
    cfsr_send_queue_advance(&conn->queue, bytes - of_preamble);
}

static void send_done(struct cfsr_ring_op *op, int res, uint32_t flags)
{
    struct cfsr_conn *conn = CFSR_CONTAINER_OF(op, struct cfsr_conn, send_op);

    (void)flags;
    conn->send_in_flight = false;
    if (res == -EINTR || res == -EAGAIN)
        res = 0; /* nothing went; the rest is continued like after any short send */
    if (res >= 0) {
        CFSR_ASSERT((size_t)res <= conn->send_bytes);
        if ((size_t)res < conn->send_bytes)
            cfsr_counter_add(&conn->group->counters.short_sends, 1);
        account_sent(conn, (size_t)res);
        if (!cfsr_tcp_send_is_idle(conn))
            cfsr_tcp_send_want(conn);
    } else if (conn->failure == 0) {
        conn->failure = res; /* a partial frame and then an error: the connection ends here */
    }
    cfsr_tcp_operation_done(conn);
}

void cfsr_tcp_send_init(struct cfsr_conn *conn)
{
    cfsr_send_queue_init(&conn->queue);
    conn->send_op.done = send_done;
}

bool cfsr_tcp_send_is_idle(const struct cfsr_conn *conn)
{
    return !conn->send_in_flight && conn->preamble_left == 0 &&
           cfsr_send_queue_unsent(&conn->queue) == 0;
}

int cfsr_tcp_send(struct cfsr_conn *conn, enum cfsr_stream stream, const struct cfsr_frame *frames,
                  unsigned count)
{
    int taken;

    if (conn->state != CFSR_TCP_OPEN || conn->failure != 0)
        return -ENOTCONN;
    taken = cfsr_send_queue_push(&conn->queue, stream, frames, count);
    if (taken > 0 && !conn->send_in_flight)
        cfsr_tcp_send_want(conn);
    return taken;
}

/* Fills conn->iov; returns the number of pieces and sets conn->send_bytes. */
static unsigned gather(struct cfsr_conn *conn, size_t max_bytes)
{
    size_t bytes = 0;
    unsigned count = 0;

    if (conn->preamble_left > 0) {
        conn->iov[0].iov_base = conn->preamble + CFSR_PREAMBLE_BYTES - conn->preamble_left;
        conn->iov[0].iov_len = conn->preamble_left;
        count = 1;
    }
    count += cfsr_send_queue_gather(&conn->queue, max_bytes, conn->iov + count,
                                    CFSR_SEND_IOV_MAX - count, &bytes);
    conn->send_bytes = bytes + conn->preamble_left;
    return count;
}

void cfsr_tcp_send_start(struct cfsr_conn *conn)
{
    struct cfsr_group *group = conn->group;
    struct io_uring_sqe *sqe;
    unsigned count;

    if (conn->send_in_flight || conn->failure != 0 ||
        (conn->state != CFSR_TCP_OPEN && conn->state != CFSR_TCP_LINGER))
        return;
    count = gather(conn, group->send_gather_bytes);
    if (count == 0)
        return;
    sqe = cfsr_ring_sqe(group->ring, &conn->send_op);
    if (conn->fault_short_send) {
        conn->fault_short_send = false;
        conn->iov[0].iov_len = (conn->iov[0].iov_len + 1) / 2;
        count = 1;
    }
    conn->message = (struct msghdr){.msg_iov = conn->iov, .msg_iovlen = count};
    io_uring_prep_sendmsg(sqe, conn->fd, &conn->message, MSG_WAITALL | MSG_NOSIGNAL);
    conn->send_in_flight = true;
    conn->operations++;
    cfsr_counter_add(&group->counters.sends, 1);
}

unsigned cfsr_tcp_show_sent(struct cfsr_conn *conn, unsigned budget, bool all)
{
    uint64_t cookie;
    unsigned work = 0;

    while (work < budget && cfsr_send_queue_pop_sent(&conn->queue, all, &cookie)) {
        conn->events->on_sent(conn->user, conn, cookie);
        work++;
    }
    return work;
}
