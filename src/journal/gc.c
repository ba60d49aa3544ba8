/*
 * gc.c - retention decisions; see gc.h.
 *
 * Thread:     none of its own.
 * Invariants: without pressure from cap or floor, nothing a known peer lacks is ever given up;
 * without a known peer nothing is given up at all.
 */
#include "journal/gc.h"

#include "base/bytes.h"
#include "journal/status_page.h"

struct cfsr_gc_limits cfsr_gc_default_limits(uint64_t file_system_bytes)
{
    return (struct cfsr_gc_limits){
        .policy = CFSR_GC_BY_ACK,
        .min_age_us = 60ull * 1000 * 1000,
        .cap_bytes = cfsr_min_u64(file_system_bytes / 2, 256ull << 30),
        .free_floor_permille = 50,
    };
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
    /* Without a known peer these entries are nowhere else: the appender is told that space is
     * short, nothing is lost. */
    if (facts->lowest_ack_lsn == CFSR_LSN_UNKNOWN && limits->policy == CFSR_GC_BY_ACK)
        return CFSR_GC_KEEP;
    if (limits->cap_bytes != 0 && facts->journal_bytes > limits->cap_bytes)
        return CFSR_GC_REMOVE_FORCED;
    if (facts->free_bytes < facts->total_bytes / 1000 * limits->free_floor_permille)
        return CFSR_GC_REMOVE_FORCED;
    return CFSR_GC_KEEP;
}
