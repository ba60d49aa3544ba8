/*
 * timer.h - deadlines of one core, in nanoseconds of the monotonic clock; `now` is always a
 * parameter.
 *
 * Intrusive nodes in a pairing heap (Fredman, Sedgewick, Sleator, Tarjan, 1986): add O(1), next
 * O(1), cancel and expire O(log n) amortised, no memory of its own and so no limit. Equal
 * deadlines fire in the order they were added, so that the simulator and the core agree. Owner
 * thread only.
 */
#ifndef CFSR_CORE_TIMER_H
#define CFSR_CORE_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#define CFSR_TIMER_NEVER UINT64_MAX

struct cfsr_timer {
    uint64_t due_ns;
    uint64_t order;           /* position among equal deadlines */
    struct cfsr_timer *child; /* first of the children */
    struct cfsr_timer *next;  /* next sibling */
    struct cfsr_timer *prev; /* previous sibling, or the parent if first child; NULL for the root */
    bool is_armed;
    /* Not armed any more when called; may add it again, and may add or cancel any other. */
    void (*fire)(struct cfsr_timer *timer, uint64_t now_ns);
};

struct cfsr_timers {
    struct cfsr_timer *root;
    uint64_t count;
    uint64_t order; /* of the next timer added */
};

void cfsr_timers_init(struct cfsr_timers *timers);
void cfsr_timer_init(struct cfsr_timer *timer,
                     void (*fire)(struct cfsr_timer *timer, uint64_t now_ns));
/* Arms, or moves if it is armed. A deadline in the past fires at the next expire. */
void cfsr_timer_add(struct cfsr_timers *timers, struct cfsr_timer *timer, uint64_t due_ns);
void cfsr_timer_cancel(struct cfsr_timers *timers,
                       struct cfsr_timer *timer);               /* no effect if not armed */
uint64_t cfsr_timers_next_ns(const struct cfsr_timers *timers); /* CFSR_TIMER_NEVER if none */
/* Fires what is due, earliest first, at most as many as were armed at the call; returns how many.
 */
uint64_t cfsr_timers_expire(struct cfsr_timers *timers, uint64_t now_ns);

#endif
