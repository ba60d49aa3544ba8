/*
 * cmd_ping.c - `ping`: the floor of latency, for the three ways to make a record durable.
 *
 * Thread: the program's only one; each run forks its two sides.
 */
#include "bench/floor.h"

#include <stdio.h>

#include "base/bytes.h"

static const struct {
    enum bench_ping_write write;
    const char *name;
} variants[] = {
    {BENCH_PING_APPEND, "append, fdatasync"},
    {BENCH_PING_RECYCLED, "written-once file, fdatasync"},
    {BENCH_PING_DIRECT, "written-once file, O_DIRECT + DSYNC"},
};

int bench_ping(const struct bench_settings *settings, struct bench_report *report)
{
    struct bench_series p50[CFSR_ARRAY_LEN(variants)] = {0}, p99[CFSR_ARRAY_LEN(variants)] = {0};

    for (uint32_t run = 0; run < settings->runs; run++)
        for (unsigned i = 0; i < CFSR_ARRAY_LEN(variants); i++) {
            struct bench_samples samples;
            int rc;

            bench_report_progress(report, variants[i].name);
            rc = bench_ping_run(settings, variants[i].write, &samples);
            if (rc < 0)
                return rc;
            bench_series_add(&p50[i], bench_samples_percentile_us(&samples, 50));
            bench_series_add(&p99[i], bench_samples_percentile_us(&samples, 99));
            bench_samples_fini(&samples);
        }
    bench_report_progress(report, "");
    bench_report_section(report, "ping",
                         "one record: durable at A, sent, durable at B, acknowledged");
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(variants); i++) {
        char name[96];

        snprintf(name, sizeof name, "p50, %s", variants[i].name);
        bench_report_series(report, name, "us", &p50[i]);
        snprintf(name, sizeof name, "p99, %s", variants[i].name);
        bench_report_series(report, name, "us", &p99[i]);
    }
    return 0;
}
