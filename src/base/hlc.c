/*
 * hlc.c - the hybrid logical clock: one word, compare-and-swap.
 *
 * Thread: any number of threads, and of processes when the word lies in shared memory.
 * Invariant: last_us never goes back. Relaxed ordering is enough: the word orders itself, and no
 * other memory is published through it.
 */
#include "base/hlc.h"

#include "base/assert.h"

uint64_t cfsr_hlc_next(struct cfsr_hlc *clock, uint64_t wall_us)
{
    uint64_t last = atomic_load_explicit(&clock->last_us, memory_order_relaxed);
    uint64_t next;

    do {
        CFSR_ASSERT(last != UINT64_MAX);
        next = wall_us > last ? wall_us : last + 1;
    } while (!atomic_compare_exchange_weak_explicit(&clock->last_us, &last, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return next;
}

void cfsr_hlc_observe(struct cfsr_hlc *clock, uint64_t remote_us)
{
    uint64_t last = atomic_load_explicit(&clock->last_us, memory_order_relaxed);

    while (remote_us > last) {
        if (atomic_compare_exchange_weak_explicit(&clock->last_us, &last, remote_us,
                                                  memory_order_relaxed, memory_order_relaxed))
            return;
    }
}
