/*
 * idle.h - when a core that found no work goes to sleep: it keeps turning for spin_ns, then sleeps
 * in its ring until the next deadline. Pure logic; now is a parameter.
 */
#ifndef CFSR_CORE_IDLE_H
#define CFSR_CORE_IDLE_H

#include <stdbool.h>
#include <stdint.h>

/* A forgotten deadline costs a second, not a hang. */
#define CFSR_IDLE_SLEEP_MAX_NS (1000ull * 1000 * 1000)

struct cfsr_idle {
    uint64_t spin_ns;  /* how long to turn without work before sleeping */
    uint64_t since_ns; /* when work was last found */
};

static inline void cfsr_idle_worked(struct cfsr_idle *idle, uint64_t now_ns)
{
    idle->since_ns = now_ns;
}

static inline bool cfsr_idle_is_due(const struct cfsr_idle *idle, uint64_t now_ns)
{
    return now_ns - idle->since_ns >= idle->spin_ns;
}

/* How long to sleep: 0 if the deadline has come. */
static inline uint64_t cfsr_idle_sleep_ns(uint64_t now_ns, uint64_t deadline_ns)
{
    if (deadline_ns <= now_ns)
        return 0;
    return deadline_ns - now_ns < CFSR_IDLE_SLEEP_MAX_NS ? deadline_ns - now_ns
                                                         : CFSR_IDLE_SLEEP_MAX_NS;
}

#endif
