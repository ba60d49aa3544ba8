/*
 * stats.h - the counters and stage histograms of one core.
 *
 * Written by the owner core only (relaxed load and store), read by any thread. The two lists are
 * the one place a name is given: the struct, the names in `status`, logs and metrics come from
 * them.
 */
#ifndef CFSR_CORE_STATS_H
#define CFSR_CORE_STATS_H

#include <stddef.h>

#include "base/counters.h"

/* X(field, help) */
#define CFSR_CORE_COUNTER_LIST(X)                                                        \
    X(turns, "turns of the core loop")                                                   \
    X(idle_turns, "turns that found nothing to do")                                      \
    X(sleeps, "times the core slept in its ring")                                        \
    X(stalls, "turns longer than 2 ms")                                                  \
    X(messages, "messages received from other threads")                                  \
    X(timers_fired, "timers that came due")                                              \
    X(enters, "io_uring_enter calls")                                                    \
    X(sqes, "operations handed to the kernel")                                           \
    X(cqes, "completions received")                                                      \
    X(sq_full, "extra enters because the submission queue was full")                     \
    X(cq_overflow, "enters that found the completion queue overflowed")                  \
    X(file_reads, "file reads submitted")                                                \
    X(file_writes, "file writes submitted")                                              \
    X(file_syncs, "file syncs submitted; the kernel runs each on a worker thread")       \
    X(file_continued, "file operations resubmitted after a short result or a retry")     \
    X(file_deferred, "file operations not complete after the enter that submitted them") \
    X(read_bytes, "bytes read from files")                                               \
    X(written_bytes, "bytes written to files")                                           \
    X(slab_empty, "requests a slab could not serve")

/* Stages of the data path; nanoseconds spent in each piece of work. */
#define CFSR_CORE_STAGE_LIST(X) \
    X(read)                     \
    X(encode)                   \
    X(send)                     \
    X(recv)                     \
    X(verify)                   \
    X(decode)                   \
    X(write)                    \
    X(ack)                      \
    X(turn)

enum cfsr_core_counter {
#define X(field, help) CFSR_CORE_COUNTER_##field,
    CFSR_CORE_COUNTER_LIST(X)
#undef X
    CFSR_CORE_COUNTERS
};

enum cfsr_core_stage {
#define X(field) CFSR_CORE_STAGE_##field,
    CFSR_CORE_STAGE_LIST(X)
#undef X
    CFSR_CORE_STAGES
};

struct cfsr_core_stats {
    cfsr_counter counters[CFSR_CORE_COUNTERS];
    struct cfsr_histogram stages[CFSR_CORE_STAGES];
    _Atomic(const char *)
        stall_name; /* what the last stalled turn was doing; static string or NULL */
    cfsr_counter stall_worst_ns;
};

/* cfsr_core_count(stats, sqes, 3): owner thread. */
#define cfsr_core_count(stats, field, n) \
    cfsr_counter_add(&(stats)->counters[CFSR_CORE_COUNTER_##field], (n))
#define cfsr_core_stage(stats, field, ns) \
    cfsr_histogram_record(&(stats)->stages[CFSR_CORE_STAGE_##field], (ns))

const char *cfsr_core_counter_name(enum cfsr_core_counter counter);
const char *cfsr_core_counter_help(enum cfsr_core_counter counter);
const char *cfsr_core_stage_name(enum cfsr_core_stage stage);

#endif
