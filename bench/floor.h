/*
 * floor.h - the straight-line program: what a careful person writes in an afternoon, without a
 * daemon around it.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include "bench/bench.h"
#include "bench/measure.h"

struct bench_floor_result {
    double raw_mb_per_s;
    double cpu_a_s_per_gb, cpu_b_s_per_gb; /* of the two processes */
    double busy_s_per_gb;                  /* of the whole machine: kernel workers included */
    double wire_ratio;                     /* bytes sent by raw bytes */
    double entries_per_s;
};
/* One run: two processes, bound to cpu_a and cpu_b. */
int bench_floor_run(const struct bench_settings *settings, const struct bench_corpus *corpus,
                    bool crc, struct bench_floor_result *result_out);

/* The figures of several runs. */
struct bench_floor_series {
    struct bench_series throughput, cpu_a, cpu_b, cpu, busy, wire;
};
void bench_floor_series_add(struct bench_floor_series *series,
                            const struct bench_floor_result *result);
void bench_floor_series_report(struct bench_report *report,
                               const struct bench_floor_series *series);

/* How a ping's two writes become durable. */
enum bench_ping_write {
    BENCH_PING_APPEND,   /* write at the end of a growing file, fdatasync */
    BENCH_PING_RECYCLED, /* the same into a file that was written in full before */
    BENCH_PING_DIRECT,   /* that file, O_DIRECT and RWF_DSYNC, whole 4 KiB blocks */
};
/* pings + a tenth not counted; sorted samples. */
int bench_ping_run(const struct bench_settings *settings, enum bench_ping_write write,
                   struct bench_samples *samples_out);

#endif
