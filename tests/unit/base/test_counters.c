/*
 * test_counters.c - counters and histograms: buckets, percentiles, merge, reset.
 */
#include "base/counters.h"

#include <criterion/criterion.h>

static struct cfsr_histogram histogram;

Test(counters, add_set_get)
{
    cfsr_counter counter = 0;

    cfsr_counter_add(&counter, 5);
    cfsr_counter_add(&counter, 7);
    cr_assert_eq(cfsr_counter_get(&counter), 12);
    cfsr_counter_set(&counter, 3);
    cr_assert_eq(cfsr_counter_get(&counter), 3);
}

Test(histogram, is_empty_at_first)
{
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 50.0), 0);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 100.0), 0);
}

Test(histogram, small_values_are_exact)
{
    for (uint64_t v = 0; v < 16; v++)
        cfsr_histogram_record(&histogram, v);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 0.0), 0);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 50.0), 7);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 75.0), 11);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 100.0), 15);
    cr_assert_eq(cfsr_counter_get(&histogram.count), 16);
    cr_assert_eq(cfsr_counter_get(&histogram.sum), 120);
    cr_assert_eq(cfsr_counter_get(&histogram.max), 15);
}

Test(histogram, every_magnitude_is_within_a_sixteenth)
{
    for (unsigned shift = 0; shift < 64; shift++) {
        for (uint64_t low = 0; low < 3; low++) {
            uint64_t value = (1ULL << shift) + low * ((1ULL << shift) / 3);
            uint64_t found;

            cfsr_histogram_reset(&histogram);
            cfsr_histogram_record(&histogram, value);
            cfsr_histogram_record(&histogram, UINT64_MAX);
            found = cfsr_histogram_percentile(&histogram, 50.0);
            cr_assert_geq(found, value);
            cr_assert_leq(found - value, value / 16, "value %lu found %lu", value, found);
        }
    }
}

Test(histogram, percentiles_of_a_thousand)
{
    for (uint64_t v = 1; v <= 1000; v++)
        cfsr_histogram_record(&histogram, v * 1000);
    for (int p = 1; p <= 100; p++) {
        uint64_t exact = (uint64_t)p * 10000;
        uint64_t found = cfsr_histogram_percentile(&histogram, p);

        cr_assert_geq(found, exact);
        cr_assert_leq(found - exact, exact / 16, "p%d: %lu, exact %lu", p, found, exact);
    }
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 100.0), 1000000);
}

Test(histogram, one_rare_value_shows_only_at_the_top)
{
    for (int i = 0; i < 999; i++)
        cfsr_histogram_record(&histogram, 10);
    cfsr_histogram_record(&histogram, 5000000);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 99.9), 10);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 99.95), 5000000);
}

Test(histogram, percentile_zero_is_the_smallest_value)
{
    cfsr_histogram_record(&histogram, 14);
    cfsr_histogram_record(&histogram, 5000);
    cr_assert_eq(cfsr_histogram_percentile(&histogram, 0.0), 14);
}

Test(histogram, merge_adds_and_reset_clears)
{
    static struct cfsr_histogram sum;

    cfsr_histogram_record(&histogram, 100);
    cfsr_histogram_merge(&sum, &histogram);
    cfsr_histogram_record(&histogram, 200);
    cfsr_histogram_merge(&sum, &histogram);
    cr_assert_eq(cfsr_counter_get(&sum.count), 3);
    cr_assert_eq(cfsr_counter_get(&sum.sum), 400);
    cr_assert_eq(cfsr_counter_get(&sum.max), 200);
    cr_assert_eq(cfsr_histogram_percentile(&sum, 100.0), 200);
    cfsr_histogram_reset(&sum);
    cr_assert_eq(cfsr_counter_get(&sum.count), 0);
    cr_assert_eq(cfsr_histogram_percentile(&sum, 100.0), 0);
}
