/*
 * counters.h - per-core counters and log-linear histograms, written by one thread, read by any.
 *
 * A counter is a relaxed load and store by its owner (no locked instruction), so it is exact, cheap
 * and clean under ThreadSanitizer. Histograms have 16 sub-buckets per power of two (relative error
 * below 6.25 %), values in the unit the owner names (stage histograms: nanoseconds).
 */
#ifndef CFSR_BASE_COUNTERS_H
#define CFSR_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t cfsr_counter;

static inline void cfsr_counter_add(cfsr_counter *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void cfsr_counter_set(cfsr_counter *counter, uint64_t n)
{
    atomic_store_explicit(counter, n, memory_order_relaxed);
}
static inline uint64_t cfsr_counter_get(const cfsr_counter *counter)
{
    return atomic_load_explicit((cfsr_counter *)(uintptr_t)counter, memory_order_relaxed);
}

#define CFSR_HISTOGRAM_SUB_BITS 4
#define CFSR_HISTOGRAM_BUCKETS  (((64 - CFSR_HISTOGRAM_SUB_BITS) + 1) << CFSR_HISTOGRAM_SUB_BITS)

struct cfsr_histogram {
    cfsr_counter count;
    cfsr_counter sum;
    cfsr_counter max;
    cfsr_counter buckets[CFSR_HISTOGRAM_BUCKETS];
};

void cfsr_histogram_record(struct cfsr_histogram *histogram, uint64_t value);
/* Upper bound of the bucket that holds the given percentile (0–100); 0 if empty. */
uint64_t cfsr_histogram_percentile(const struct cfsr_histogram *histogram, double percentile);
/* Adds the counts of one histogram to another (the reader's private copy). */
void cfsr_histogram_merge(struct cfsr_histogram *into, const struct cfsr_histogram *from);
void cfsr_histogram_reset(struct cfsr_histogram *histogram);

#endif
