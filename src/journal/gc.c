/*
 * gc.c - retention decisions; see gc.h.
 *
 * Thread:     none of its own.
 * Invariants: without pressure from cap or floor, nothing a known peer lacks is ever given up;
 * without a known peer nothing is given up at all; what only detached peers lack is given up before
 * anything an attached one lacks, and not before it has to be.
 */
#include "journal/gc.h"

#include "base/bytes.h"
#include "journal/status_page.h"

/* Mild and moderate of the contract's backpressure levels. */
#define PAUSE_MIN_MS 5u
#define PAUSE_MAX_MS 50u

struct cfsr_gc_limits cfsr_gc_default_limits(uint64_t file_system_bytes)
{
    return (struct cfsr_gc_limits){
        .policy = CFSR_GC_BY_ACK,
        .min_age_us = 60ull * 1000 * 1000,
        .cap_bytes = cfsr_min_u64(file_system_bytes / 2, 256ull << 30),
        .free_floor_permille = 50,
    };
}

static bool below_floor(const struct cfsr_gc_limits *limits, uint64_t free_bytes,
                        uint64_t total_bytes)
{
    return free_bytes < total_bytes / 1000 * limits->free_floor_permille;
}

/* Thousandths of the cap; 0 without one. */
static uint64_t share_permille(const struct cfsr_gc_limits *limits, uint64_t bytes)
{
    if (limits->cap_bytes == 0)
        return 0;
    if (bytes > UINT64_MAX / 1000)
        return bytes / (limits->cap_bytes / 1000 + 1);
    return bytes * 1000 / limits->cap_bytes;
}

enum cfsr_gc_verdict cfsr_gc_judge(const struct cfsr_gc_limits *limits,
                                   const struct cfsr_gc_facts *facts)
{
    bool old = facts->now_us >= facts->finished_us &&
               facts->now_us - facts->finished_us >= limits->min_age_us;
    bool acked = facts->lowest_ack_lsn != CFSR_LSN_UNKNOWN &&
                 facts->lowest_ack_lsn >= facts->segment_bytes &&
                 facts->segment_end_lsn <= facts->lowest_ack_lsn - facts->segment_bytes;
    bool unwanted = false;

    if (facts->segment_count <= CFSR_GC_SEGMENTS_MIN)
        return CFSR_GC_KEEP;
    switch (limits->policy) {
    case CFSR_GC_BY_ACK: unwanted = acked && old; break;
    case CFSR_GC_RETAIN_ALL: break;
    case CFSR_GC_BY_AGE: unwanted = old; break;
    case CFSR_GC_BY_COUNT: unwanted = facts->segment_count > limits->keep_segments; break;
    }
    if (unwanted)
        return CFSR_GC_REMOVE;
    if (limits->policy == CFSR_GC_BY_ACK && facts->only_detached_lack &&
        facts->lowest_ack_lsn != CFSR_LSN_UNKNOWN &&
        ((limits->cap_bytes != 0 && facts->journal_bytes > limits->cap_bytes) ||
         below_floor(limits, facts->free_bytes, facts->total_bytes)))
        return CFSR_GC_REMOVE_DETACHED;
    /* Without a known peer these entries are nowhere else: the appender is told that space is
     * short, nothing is lost. */
    if (facts->lowest_ack_lsn == CFSR_LSN_UNKNOWN && limits->policy == CFSR_GC_BY_ACK)
        return CFSR_GC_KEEP;
    if (limits->cap_bytes != 0 && facts->journal_bytes > limits->cap_bytes)
        return CFSR_GC_REMOVE_FORCED;
    if (below_floor(limits, facts->free_bytes, facts->total_bytes))
        return CFSR_GC_REMOVE_FORCED;
    return CFSR_GC_KEEP;
}

const char *cfsr_gc_pressure_name(enum cfsr_gc_pressure_level level)
{
    static const char *const names[] = {"none", "warn", "throttle", "detach"};

    return level <= CFSR_GC_PRESSURE_DETACH ? names[level] : "unknown"; /* from shared memory */
}

static enum cfsr_gc_pressure_level level_of(const struct cfsr_gc_limits *limits,
                                            const struct cfsr_gc_usage *usage)
{
    uint64_t share = share_permille(limits, usage->journal_bytes - usage->spare_bytes);

    if (share >= CFSR_GC_DETACH_PERMILLE ||
        below_floor(limits, usage->free_bytes, usage->total_bytes))
        return CFSR_GC_PRESSURE_DETACH;
    if (share >= CFSR_GC_THROTTLE_PERMILLE)
        return CFSR_GC_PRESSURE_THROTTLE;
    return share >= CFSR_GC_WARN_PERMILLE ? CFSR_GC_PRESSURE_WARN : CFSR_GC_PRESSURE_NONE;
}

enum cfsr_gc_pressure_level cfsr_gc_pressure(const struct cfsr_gc_limits *limits,
                                             const struct cfsr_gc_usage *usage,
                                             const struct cfsr_gc_peer *peers, unsigned count,
                                             int *slowest_out)
{
    enum cfsr_gc_pressure_level level = level_of(limits, usage);
    uint64_t most = 0;
    int slowest = -1;

    for (unsigned i = 0; i < count && limits->policy == CFSR_GC_BY_ACK; i++) {
        if (peers[i].detached || peers[i].held_bytes <= most)
            continue;
        most = peers[i].held_bytes;
        slowest = (int)i;
    }
    if (slowest < 0 && level > CFSR_GC_PRESSURE_WARN)
        level = CFSR_GC_PRESSURE_WARN;
    if (slowest_out != NULL)
        *slowest_out = slowest;
    return level;
}

bool cfsr_gc_rejoins(const struct cfsr_gc_limits *limits, const struct cfsr_gc_peer *peer)
{
    if (!peer->detached || peer->gone)
        return false;
    return peer->held_bytes == 0 ||
           (peer->advanced && share_permille(limits, peer->held_bytes) < CFSR_GC_WARN_PERMILLE);
}

uint32_t cfsr_gc_pause_ms(enum cfsr_gc_pressure_level level, uint64_t journal_bytes,
                          uint64_t cap_bytes)
{
    const struct cfsr_gc_limits limits = {.cap_bytes = cap_bytes};
    uint64_t share = share_permille(&limits, journal_bytes);

    if (level < CFSR_GC_PRESSURE_THROTTLE)
        return 0;
    if (level == CFSR_GC_PRESSURE_DETACH || share >= CFSR_GC_DETACH_PERMILLE)
        return PAUSE_MAX_MS;
    if (share < CFSR_GC_THROTTLE_PERMILLE)
        return PAUSE_MIN_MS;
    return (uint32_t)(PAUSE_MIN_MS + (share - CFSR_GC_THROTTLE_PERMILLE) *
                                         (PAUSE_MAX_MS - PAUSE_MIN_MS) /
                                         (CFSR_GC_DETACH_PERMILLE - CFSR_GC_THROTTLE_PERMILLE));
}
