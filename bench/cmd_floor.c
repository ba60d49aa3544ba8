/*
 * cmd_floor.c - `floor` and `floor+crc`.
 *
 * Thread: the program's only one; each run forks its two sides.
 */
#include "bench/floor.h"

#include <stdio.h>

static int run_variants(const struct bench_settings *settings, const struct bench_corpus *corpus,
                        const bool *crc, unsigned count, struct bench_floor_series *series,
                        struct bench_report *report)
{
    for (uint32_t run = 0; run <= settings->runs; run++)
        for (unsigned i = 0; i < count; i++) {
            struct bench_floor_result result;
            char text[64];
            int rc;

            snprintf(text, sizeof text, "floor%s, run %u of %u", crc[i] ? "+crc" : "", run,
                     settings->runs);
            bench_report_progress(report, text);
            rc = bench_floor_run(settings, corpus, crc[i], &result);
            if (rc < 0)
                return rc;
            if (run > 0)
                bench_floor_series_add(&series[i], &result);
        }
    bench_report_progress(report, "");
    return 0;
}

static int run_floor(const struct bench_settings *settings, struct bench_report *report,
                     const bool *crc, unsigned count)
{
    struct bench_floor_series series[2] = {0};
    struct bench_corpus corpus;
    int rc = bench_corpus_open(settings->data_dir, &corpus);

    if (rc < 0)
        return rc;
    rc = run_variants(settings, &corpus, crc, count, series, report);
    for (unsigned i = 0; i < count && rc >= 0; i++) {
        bench_report_section(
            report, crc[i] ? "floor+crc" : "floor",
            crc[i] ? "the same, CRC and order of every record checked on both sides"
                   : "read, LZ4, HMAC, TCP, HMAC, decompress, write, fdatasync every 4 MiB raw");
        bench_floor_series_report(report, &series[i]);
    }
    if (rc >= 0 && count == 2) {
        bench_report_section(report, "floor+crc by floor", "medians of runs that took turns");
        bench_report_value(report, "throughput", "x",
                           bench_series_median(&series[1].throughput) /
                               bench_series_median(&series[0].throughput));
        bench_report_value(report, "processor time, whole machine", "x",
                           bench_series_median(&series[1].busy) /
                               bench_series_median(&series[0].busy));
    }
    bench_corpus_close(&corpus);
    return rc;
}

int bench_floor(const struct bench_settings *settings, struct bench_report *report)
{
    return run_floor(settings, report, &settings->crc, 1);
}

int bench_floor_crc(const struct bench_settings *settings, struct bench_report *report)
{
    static const bool both[] = {false, true};

    return run_floor(settings, report, both, 2);
}
