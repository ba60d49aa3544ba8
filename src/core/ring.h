/*
 * ring.h - one io_uring per core: create, queue, submit and reap, register.
 *
 * Owner thread only: created, used and destroyed by one thread (SINGLE_ISSUER). Nothing completes
 * unless cfsr_ring_submit_and_reap() runs (DEFER_TASKRUN): every turn of the owner calls it once.
 *
 * An operation is a struct cfsr_ring_op, usually embedded in the object that waits for it; its
 * address is the completion's user_data. It, and the memory its sqe names, belong to the kernel
 * until the last completion (the one without IORING_CQE_F_MORE), also after a cancel. done() runs
 * from submit_and_reap only and may queue new operations.
 */
#ifndef CFSR_CORE_RING_H
#define CFSR_CORE_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/stats.h"

struct cfsr_ring;

struct cfsr_ring_op {
    void (*done)(struct cfsr_ring_op *op, int32_t res, uint32_t cqe_flags);
};

/* The ladder of set-up flags, best first; create takes the first the kernel accepts, from
 * first_rung on. */
enum cfsr_ring_rung {
    CFSR_RUNG_DEFER,  /* SINGLE_ISSUER | DEFER_TASKRUN | CQSIZE | SUBMIT_ALL | CLAMP: kernel 6.1 */
    CFSR_RUNG_COOP,   /* COOP_TASKRUN | CQSIZE | SUBMIT_ALL | CLAMP: 5.19 */
    CFSR_RUNG_CQSIZE, /* CQSIZE | CLAMP: 5.6 */
    CFSR_RUNG_PLAIN,  /* none */
    CFSR_RUNGS
};

/* What the self tests at creation proved: each did the operation once and looked at the outcome. */
enum cfsr_ring_capability {
    CFSR_RING_CAN_READ_FIXED = 1u << 0,  /* READ_FIXED and WRITE_FIXED on a registered buffer */
    CFSR_RING_CAN_WRITE_DSYNC = 1u << 1, /* WRITE with RWF_DSYNC */
    CFSR_RING_CAN_RECV = 1u << 2,        /* RECV on a socket pair */
    CFSR_RING_CAN_SEND_ZC = 1u << 3,     /* opcode known to the kernel; not proven */
    CFSR_RING_CAN_MSG_RING = 1u << 4,    /* opcode known to the kernel; not proven */
    CFSR_RING_CAN_WAIT_TIMEOUT = 1u << 5 /* one enter can submit and wait with a limit (EXT_ARG) */
};

struct cfsr_ring_options {
    uint32_t sq_entries;            /* 0: 256 */
    uint32_t cq_entries;            /* 0: 8 × sq_entries; at least 4 × */
    int cpu;                        /* worker threads are bound to it; -1: not bound */
    uint32_t workers_bounded;       /* worker threads for files, at most; 0: 4 */
    uint32_t workers_unbounded;     /* for sockets and pipes; 0: 1 */
    enum cfsr_ring_rung first_rung; /* normally CFSR_RUNG_DEFER */
    struct cfsr_core_stats
        *stats; /* counters of the owner; NULL: counted in the ring, not readable */
};

/*
 * On the owner thread. -CFSR_E_NO_IO_URING if the kernel or a sandbox forbids io_uring or lacks an
 * operation that is needed, with a message that names the policy and what to do; -ENOMEM and other
 * -errno otherwise.
 */
int cfsr_ring_create(const struct cfsr_ring_options *options, struct cfsr_ring **ring_out);
/* Cancels what is in flight, waits for it (5 s at most, then leaks the ring rather than its
 * buffers) and frees. */
void cfsr_ring_destroy(struct cfsr_ring *ring);

/*
 * An empty sqe with op as its user_data, to be filled by io_uring_prep_*() (which keep user_data).
 * Never NULL: a full queue is submitted first. op may be NULL for operations whose outcome nobody
 * wants (cancels).
 */
struct io_uring_sqe *cfsr_ring_sqe(struct cfsr_ring *ring, struct cfsr_ring_op *op);
/* Asks the kernel to cancel op; its own completion still comes (-ECANCELED, or the result if it was
 * too late). */
void cfsr_ring_cancel(struct cfsr_ring *ring, struct cfsr_ring_op *op);
/*
 * One io_uring_enter: submits, runs the kernel's deferred work, waits up to wait_ns for a
 * completion (0: not at all), then dispatches every completion there is (at most one queue length).
 * Returns the number dispatched, 0 after a timeout or a signal, or -errno if the ring is broken.
 */
int cfsr_ring_submit_and_reap(struct cfsr_ring *ring, uint64_t wait_ns);
/* The same, waiting for wait_count (>= 1) completions or wait_ns, whichever is first: for bulk
 * work, where waking for each one costs more. */
int cfsr_ring_submit_and_wait(struct cfsr_ring *ring, unsigned wait_count, uint64_t wait_ns);
/* Operations with an op that have not had their last completion. */
uint32_t cfsr_ring_in_flight(const struct cfsr_ring *ring);
/* Cancels everything and reaps until nothing is in flight: 0, or -ETIME after limit_ns. */
int cfsr_ring_drain(struct cfsr_ring *ring, uint64_t limit_ns);

/*
 * Registers the core's buffers, once; part i becomes buffer_index i. False if the kernel refuses
 * (the locked-memory limit counts whole pages per user): logged once with the size needed, and the
 * core runs with unregistered buffers.
 */
bool cfsr_ring_register_buffers(struct cfsr_ring *ring, const struct iovec *parts, unsigned count);
bool cfsr_ring_has_buffers(const struct cfsr_ring *ring);

enum cfsr_ring_rung cfsr_ring_rung(const struct cfsr_ring *ring);
uint32_t cfsr_ring_capabilities(
    const struct cfsr_ring *ring); /* bits of enum cfsr_ring_capability */
struct cfsr_core_stats *cfsr_ring_stats(struct cfsr_ring *ring);

/* "rung=defer_taskrun sq=256 cq=2048 read_fixed write_dsync …"; returns text_out. */
char *cfsr_ring_describe(const struct cfsr_ring *ring, char *text_out, size_t len_bytes);
/* The same from a ring made and dropped for it, or why there is none; for --version. */
char *cfsr_ring_report(char *text_out, size_t len_bytes);

/*
 * The kernel's worker threads (io-wq) of one owner thread, from /proc/self/task: threads named
 * iou-wrk-<owner tid>. wakeups are voluntary context switches: each is one time a worker went to
 * sleep for lack of work, so it is a lower bound of the work items served; file_syncs + buffered
 * writes is the upper. Any thread; reads /proc: cold paths only.
 */
struct cfsr_ring_workers {
    uint32_t threads;
    uint64_t cpu_us;
    uint64_t wakeups;
};
int cfsr_ring_workers_sample(int owner_tid, struct cfsr_ring_workers *workers_out);

#endif
