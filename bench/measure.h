/*
 * measure.h - clocks, processor time of processes and of the whole machine, medians and
 * percentiles.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_RUNS_MAX 64

/* The same figure of several runs. */
struct bench_series {
    double value[BENCH_RUNS_MAX];
    unsigned count;
};
void bench_series_add(struct bench_series *series,
                      double value);                           /* beyond BENCH_RUNS_MAX: dropped */
double bench_series_median(const struct bench_series *series); /* 0 when empty */
double bench_series_min(const struct bench_series *series);
double bench_series_max(const struct bench_series *series);

/* Durations of single operations. Memory is touched at creation, so that adding costs no page
 * fault. */
struct bench_samples {
    uint64_t *ns;
    size_t count, capacity;
};
int bench_samples_init(struct bench_samples *samples, size_t capacity); /* -ENOMEM */
void bench_samples_fini(struct bench_samples *samples);
static inline void bench_samples_add(struct bench_samples *samples, uint64_t ns)
{
    if (samples->count < samples->capacity)
        samples->ns[samples->count++] = ns;
}
void bench_samples_sort(struct bench_samples *samples);
/* Nearest rank; the samples must be sorted. Microseconds; 0 when empty. */
double bench_samples_percentile_us(const struct bench_samples *samples, double percent);

/* User and system seconds of the calling process, or the calling thread. */
double bench_cpu_self_s(void);
double bench_cpu_thread_s(void);
/* The same of another process, all its threads (utime + stime of /proc/PID/stat); -1 if it is gone.
 * 10 ms steps. */
double bench_cpu_of_s(pid_t pid);
/* Seconds all processors were busy since boot (/proc/stat: not idle, iowait, steal). Kernel workers
 * are in it. 10 ms steps. */
double bench_cpu_busy_s(void);
/* Resident bytes of a process now and at its peak (VmRSS, VmHWM); 0 if unknown. */
void bench_memory_of(pid_t pid, uint64_t *resident_out, uint64_t *peak_out);

/* Binds the calling thread; false if there is no such processor. */
bool bench_pin(uint32_t cpu);
/* Every processor again. */
void bench_unpin(void);
void bench_sleep_us(uint64_t us);

/* Memory that is there: mapped, touched. NULL: out of memory. Freed with bench_unmap(). */
void *bench_map(size_t len_bytes, bool shared);
void bench_unmap(void *memory, size_t len_bytes);

#endif
