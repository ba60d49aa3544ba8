/*
 * ring.c - the io_uring of a core: set-up ladder, submission, completion dispatch.
 *
 * Thread:     the owner, from create to destroy.
 * Invariants: one enter per submit_and_reap; completions are copied out and the queue advanced
 *             before any done() runs, so a done() may queue, and the kernel has room again;
 *             dispatch never nests.
 * Rejected:   SQPOLL (a core burnt per ring), IOSQE_IO_DRAIN (serialises the ring), CQE_SKIP with
 *             links on a deferring ring (completions get lost in some kernels), liburing's
 *             peek_batch (it may enter again).
 */
#include "core/ring.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "base/units.h"
#include "core/ring_internal.h"

#define DESTROY_WAIT_NS (5ull * 1000 * 1000 * 1000)

/* Completions leave the kernel's queue here, so that sqe() can make room without running a done().
 */
static unsigned harvest(struct cfsr_ring *ring)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    uint32_t room = ring->backlog_capacity - ring->backlog_count;

    io_uring_for_each_cqe(&ring->uring, head, cqe)
    {
        struct cfsr_completion *slot;

        if (count == room)
            break;
        slot = &ring->backlog[(ring->backlog_first + ring->backlog_count) &
                              (ring->backlog_capacity - 1)];
        /* kernels before 5.11: liburing waits through a timeout operation of its own */
        slot->op = cqe->user_data == LIBURING_UDATA_TIMEOUT
                       ? NULL
                       : (struct cfsr_ring_op *)(uintptr_t)cqe->user_data;
        slot->res = cqe->res;
        slot->flags = cqe->flags;
        ring->backlog_count++;
        count++;
    }
    io_uring_cq_advance(&ring->uring, count);
    cfsr_core_count(ring->stats, cqes, count);
    return count;
}

static int dispatch(struct cfsr_ring *ring)
{
    uint32_t budget = ring->backlog_count;
    uint32_t i;

    CFSR_ASSERT(!ring->is_dispatching);
    ring->is_dispatching = true;
    for (i = 0; i < budget; i++) {
        struct cfsr_completion done = ring->backlog[ring->backlog_first];

        ring->backlog_first = (ring->backlog_first + 1) & (ring->backlog_capacity - 1);
        ring->backlog_count--;
        if (done.op == NULL)
            continue;
        if ((done.flags & IORING_CQE_F_MORE) == 0) {
            CFSR_ASSERT(ring->in_flight > 0);
            ring->in_flight--;
        }
        done.op->done(done.op, done.res, done.flags);
    }
    ring->is_dispatching = false;
    return (int)budget;
}

/* Makes room in the submission queue; completions that arrive meanwhile wait for the next reap. */
static void submit_full_queue(struct cfsr_ring *ring)
{
    int rc = io_uring_submit_and_get_events(&ring->uring);

    cfsr_core_count(ring->stats, sq_full, 1);
    cfsr_core_count(ring->stats, enters, 1);
    if (rc > 0)
        cfsr_core_count(ring->stats, sqes, (uint64_t)rc);
    else if (rc == -EBUSY)
        cfsr_core_count(ring->stats, cq_overflow, 1);
    else
        CFSR_ASSERT(rc == 0 || rc == -EINTR || rc == -EAGAIN);
    harvest(ring);
}

struct io_uring_sqe *cfsr_ring_sqe(struct cfsr_ring *ring, struct cfsr_ring_op *op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

    while (sqe == NULL) {
        submit_full_queue(ring);
        sqe = io_uring_get_sqe(&ring->uring);
    }
    io_uring_sqe_set_data(sqe, op);
    if (op != NULL)
        ring->in_flight++;
    return sqe;
}

void cfsr_ring_cancel(struct cfsr_ring *ring, struct cfsr_ring_op *op)
{
    struct io_uring_sqe *sqe = cfsr_ring_sqe(ring, NULL);

    io_uring_prep_cancel(sqe, op, 0);
}

static int enter(struct cfsr_ring *ring, unsigned wait_count, uint64_t wait_ns)
{
    unsigned queued = io_uring_sq_ready(&ring->uring);
    int rc;

    cfsr_core_count(ring->stats, enters, 1);
    if (wait_ns > 0 && ring->backlog_count == 0) {
        struct __kernel_timespec limit = {.tv_sec = (long long)(wait_ns / 1000000000u),
                                          .tv_nsec = (long long)(wait_ns % 1000000000u)};
        struct io_uring_cqe *cqe = NULL;

        rc = io_uring_submit_and_wait_timeout(&ring->uring, &cqe, wait_count, &limit, NULL);
    } else {
        rc = io_uring_submit_and_get_events(&ring->uring);
    }
    cfsr_core_count(ring->stats, sqes, queued - io_uring_sq_ready(&ring->uring));
    if (rc == -EBUSY) /* the kernel holds completions back until some are taken */
        cfsr_core_count(ring->stats, cq_overflow, 1);
    if (rc == -ETIME || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY)
        return 0;
    if (rc < 0)
        return cfsr_fail(rc, "io_uring_enter failed: %s", cfsr_strerror(rc));
    return 0;
}

int cfsr_ring_submit_and_reap(struct cfsr_ring *ring, uint64_t wait_ns)
{
    return cfsr_ring_submit_and_wait(ring, 1, wait_ns);
}

int cfsr_ring_submit_and_wait(struct cfsr_ring *ring, unsigned wait_count, uint64_t wait_ns)
{
    int rc, total = 0;

    CFSR_ASSERT(!ring->is_dispatching && wait_count > 0);
    rc = enter(ring, wait_count, wait_ns);
    if (rc < 0)
        return rc;
    if (io_uring_cq_has_overflow(&ring->uring)) {
        cfsr_core_count(ring->stats, cq_overflow, 1);
        harvest(ring); /* the next enter moves the held back completions to the freed queue */
    }
    do {
        harvest(ring);
        total += dispatch(ring);
    } while ((uint32_t)total < ring->backlog_capacity && io_uring_cq_ready(&ring->uring) > 0);
    return total;
}

uint32_t cfsr_ring_in_flight(const struct cfsr_ring *ring)
{
    return ring->in_flight;
}

int cfsr_ring_drain(struct cfsr_ring *ring, uint64_t limit_ns)
{
    uint64_t end_ns = cfsr_clock_monotonic_ns() + limit_ns;

    while (ring->in_flight > 0) {
        struct io_uring_sqe *sqe = cfsr_ring_sqe(ring, NULL);
        int rc;

        io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
        rc = cfsr_ring_submit_and_reap(ring, 10ull * 1000 * 1000);
        if (rc < 0)
            return rc;
        if (ring->in_flight > 0 && cfsr_clock_monotonic_ns() >= end_ns)
            return -ETIME;
    }
    return 0;
}

static void warn_unregistered(uint64_t needed_bytes, int rc)
{
    struct rlimit limit = {0};
    char needed[32], allowed[32];

    getrlimit(RLIMIT_MEMLOCK, &limit);
    cfsr_log(CFSR_LOG_WARN, "buffers_not_registered",
             CFSR_S("needed", cfsr_format_size_exact(needed_bytes, needed, sizeof needed)),
             CFSR_S("limit", cfsr_format_size_exact(limit.rlim_cur, allowed, sizeof allowed)),
             CFSR_ERR(rc),
             CFSR_S("hint",
                    "runs unregistered, a little slower; raise `ulimit -l` or LimitMEMLOCK= "
                    "in the unit for all cores together"));
}

bool cfsr_ring_register_buffers(struct cfsr_ring *ring, const struct iovec *parts, unsigned count)
{
    uint64_t needed_bytes = 0;
    unsigned i;
    int rc;

    CFSR_ASSERT(!ring->has_buffers);
    for (i = 0; i < count; i++)
        needed_bytes += parts[i].iov_len;
    rc = (ring->capabilities & CFSR_RING_CAN_READ_FIXED) != 0
             ? io_uring_register_buffers(&ring->uring, parts, count)
             : -EOPNOTSUPP;
    if (rc < 0) {
        if (!ring->warned_unregistered)
            warn_unregistered(needed_bytes, rc);
        ring->warned_unregistered = true;
        return false;
    }
    ring->has_buffers = true;
    return true;
}

bool cfsr_ring_has_buffers(const struct cfsr_ring *ring)
{
    return ring->has_buffers;
}
enum cfsr_ring_rung cfsr_ring_rung(const struct cfsr_ring *ring)
{
    return ring->rung;
}
uint32_t cfsr_ring_capabilities(const struct cfsr_ring *ring)
{
    return ring->capabilities;
}
struct cfsr_core_stats *cfsr_ring_stats(struct cfsr_ring *ring)
{
    return ring->stats;
}

void cfsr_ring_destroy(struct cfsr_ring *ring)
{
    if (ring == NULL)
        return;
    if (cfsr_ring_drain(ring, DESTROY_WAIT_NS) < 0) {
        cfsr_log(CFSR_LOG_ERROR, "ring_leaked", CFSR_U("in_flight", ring->in_flight));
        return;
    }
    io_uring_queue_exit(&ring->uring);
    free(ring->own_stats);
    free(ring->backlog);
    free(ring);
}
