/*
 * counters.c - log-linear histograms.
 *
 * Thread: record and reset by the owner; percentile and merge by any reader (relaxed loads, so a
 * reader may see the count of a value before its bucket; each sum below is therefore taken from the
 * buckets themselves). Layout: values below 16 have a bucket each; above, 16 buckets per power of
 * two. No value is out of range.
 */
#include "base/counters.h"

#include "base/assert.h"

static unsigned bucket_of(uint64_t value)
{
    unsigned exponent;

    if (value < (1U << CFSR_HISTOGRAM_SUB_BITS))
        return (unsigned)value;
    exponent = 63U - (unsigned)__builtin_clzll(value);
    return ((exponent - CFSR_HISTOGRAM_SUB_BITS + 1) << CFSR_HISTOGRAM_SUB_BITS) +
           ((unsigned)(value >> (exponent - CFSR_HISTOGRAM_SUB_BITS)) &
            ((1U << CFSR_HISTOGRAM_SUB_BITS) - 1));
}

static uint64_t bucket_upper(unsigned bucket)
{
    unsigned row = bucket >> CFSR_HISTOGRAM_SUB_BITS;
    uint64_t sub = bucket & ((1U << CFSR_HISTOGRAM_SUB_BITS) - 1);
    uint64_t lower;

    if (row == 0)
        return sub;
    lower = ((1ULL << CFSR_HISTOGRAM_SUB_BITS) + sub) << (row - 1);
    return lower + ((1ULL << (row - 1)) - 1);
}

void cfsr_histogram_record(struct cfsr_histogram *histogram, uint64_t value)
{
    unsigned bucket = bucket_of(value);

    CFSR_DASSERT(bucket < CFSR_HISTOGRAM_BUCKETS);
    cfsr_counter_add(&histogram->buckets[bucket], 1);
    cfsr_counter_add(&histogram->count, 1);
    cfsr_counter_add(&histogram->sum, value);
    if (value > cfsr_counter_get(&histogram->max))
        cfsr_counter_set(&histogram->max, value);
}

uint64_t cfsr_histogram_percentile(const struct cfsr_histogram *histogram, double percentile)
{
    uint64_t total = 0;
    uint64_t seen = 0;
    uint64_t rank;
    uint64_t max = cfsr_counter_get(&histogram->max);

    CFSR_ASSERT(percentile >= 0.0 && percentile <= 100.0);
    for (unsigned i = 0; i < CFSR_HISTOGRAM_BUCKETS; i++)
        total += cfsr_counter_get(&histogram->buckets[i]);
    if (total == 0)
        return 0;
    /* Nearest rank, counted from 1: the smallest value with at least percentile % at or below it.
     */
    rank = (uint64_t)((double)total * percentile / 100.0);
    if ((double)rank < (double)total * percentile / 100.0 || rank == 0)
        rank++;
    for (unsigned i = 0; i < CFSR_HISTOGRAM_BUCKETS; i++) {
        seen += cfsr_counter_get(&histogram->buckets[i]);
        if (seen >= rank)
            return bucket_upper(i) < max ? bucket_upper(i) : max;
    }
    return max;
}

void cfsr_histogram_merge(struct cfsr_histogram *into, const struct cfsr_histogram *from)
{
    uint64_t max = cfsr_counter_get(&from->max);

    for (unsigned i = 0; i < CFSR_HISTOGRAM_BUCKETS; i++)
        cfsr_counter_add(&into->buckets[i], cfsr_counter_get(&from->buckets[i]));
    cfsr_counter_add(&into->count, cfsr_counter_get(&from->count));
    cfsr_counter_add(&into->sum, cfsr_counter_get(&from->sum));
    if (max > cfsr_counter_get(&into->max))
        cfsr_counter_set(&into->max, max);
}

void cfsr_histogram_reset(struct cfsr_histogram *histogram)
{
    for (unsigned i = 0; i < CFSR_HISTOGRAM_BUCKETS; i++)
        cfsr_counter_set(&histogram->buckets[i], 0);
    cfsr_counter_set(&histogram->count, 0);
    cfsr_counter_set(&histogram->sum, 0);
    cfsr_counter_set(&histogram->max, 0);
}
