/*
 * ring_internal.h - the ring object, shared by ring.c (running) and ring_setup.c (creation and
 * probing).
 */
#ifndef CFSR_CORE_RING_INTERNAL_H
#define CFSR_CORE_RING_INTERNAL_H

#include "core/ring.h"

struct cfsr_completion {
    struct cfsr_ring_op *op;
    int32_t res;
    uint32_t flags;
};

struct cfsr_ring {
    struct io_uring uring;
    struct cfsr_core_stats *stats;     /* the owner's, or own_stats */
    struct cfsr_core_stats *own_stats; /* NULL if the owner gave its own */
    struct cfsr_completion *backlog;   /* circular; power of two, one completion queue long */
    uint32_t backlog_capacity;
    uint32_t backlog_first;
    uint32_t backlog_count;
    uint32_t in_flight;
    uint32_t capabilities;
    uint32_t sq_entries;
    uint32_t cq_entries;
    enum cfsr_ring_rung rung;
    bool is_dispatching;
    bool has_buffers;
    bool warned_unregistered;
};

/* Runs the self tests on a new, idle ring and fills capabilities. -CFSR_E_NO_IO_URING if one that
 * is needed fails. */
int cfsr_ring_probe(struct cfsr_ring *ring);

#endif
