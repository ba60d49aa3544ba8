/*
 * rdma/alive.c - whether the other end of an open connection is still there.
 *
 * Thread:     the core of the group.
 * What:       a queue pair that has nothing to send hears nothing of a path that is gone, and a
 *             peer that gave up (its disconnect lost on the way) would be waited for for ever. So
 *             an idle connection sends an empty RDMA write now and then: the peer's device answers
 *             it, it uses no slot, needs no remote key and touches no memory. And whatever is in
 *             the send queue must move: the device's own retries should end it first, but soft-RoCE
 *             has a count (7) for which they never end.
 * Not:        whether the peer's program lives. Its device answers for it; heartbeats are above.
 * Rejected:   empty messages (each uses a credit, which a peer that gives none back runs out of);
 *             the device's port events (a short fault of the port is what retries are for).
 */
#include "transport/rdma/rdma.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>

#define LOOK_NS     (3ull * 1000 * 1000 * 1000)
#define STUCK_LOOKS 3

static void probe(struct cfsr_conn *conn)
{
    int rc = cfsr_rdma_send_empty_write(conn);

    if (rc < 0)
        cfsr_rdma_conn_fail(conn, rc);
}

static void look(struct cfsr_timer *timer, uint64_t now_ns)
{
    struct cfsr_conn *conn = CFSR_CONTAINER_OF(timer, struct cfsr_conn, alive_timer);
    bool sending = conn->queue_head != conn->queue_tail;
    bool moved = conn->queue_head != conn->looked_head || conn->next_slot != conn->looked_slot;

    (void)now_ns;
    CFSR_ASSERT(conn->state >= CFSR_RDMA_OPEN && conn->state < CFSR_RDMA_CLOSING);
    if (!sending || conn->queue_head != conn->looked_head)
        conn->stuck_looks = 0;
    else if (++conn->stuck_looks >= STUCK_LOOKS)
        cfsr_rdma_conn_fail(conn, -ETIMEDOUT);
    if (!sending && !moved && conn->failure == 0)
        probe(conn);
    conn->looked_head = conn->queue_head;
    conn->looked_slot = conn->next_slot;
    cfsr_rdma_timer_start(conn, timer, LOOK_NS);
}

void cfsr_rdma_alive_init(struct cfsr_conn *conn)
{
    cfsr_timer_init(&conn->alive_timer, look);
}

void cfsr_rdma_alive_start(struct cfsr_conn *conn)
{
    cfsr_rdma_timer_start(conn, &conn->alive_timer, LOOK_NS);
}
