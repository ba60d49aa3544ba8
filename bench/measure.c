/*
 * measure.c - reads the clocks and counters of the machine.
 *
 * Thread: any. Processor time of other processes and of the machine comes in 10 ms steps: runs are
 * seconds long for that reason.
 */
#include "bench/measure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return a < b ? -1 : a > b;
}

static int compare_u64s(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return a < b ? -1 : a > b;
}

void bench_series_add(struct bench_series *series, double value)
{
    if (series->count < BENCH_RUNS_MAX)
        series->value[series->count++] = value;
}

double bench_series_median(const struct bench_series *series)
{
    double sorted[BENCH_RUNS_MAX];
    unsigned middle = series->count / 2;

    if (series->count == 0)
        return 0;
    memcpy(sorted, series->value, series->count * sizeof sorted[0]);
    qsort(sorted, series->count, sizeof sorted[0], compare_doubles);
    return series->count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

double bench_series_min(const struct bench_series *series)
{
    double least = series->count > 0 ? series->value[0] : 0;

    for (unsigned i = 1; i < series->count; i++)
        least = series->value[i] < least ? series->value[i] : least;
    return least;
}

double bench_series_max(const struct bench_series *series)
{
    double most = series->count > 0 ? series->value[0] : 0;

    for (unsigned i = 1; i < series->count; i++)
        most = series->value[i] > most ? series->value[i] : most;
    return most;
}

int bench_samples_init(struct bench_samples *samples, size_t capacity)
{
    uint64_t *ns = bench_map(capacity * sizeof *ns, true);

    if (ns == NULL)
        return -ENOMEM;
    *samples = (struct bench_samples){.ns = ns, .capacity = capacity};
    return 0;
}

void bench_samples_fini(struct bench_samples *samples)
{
    bench_unmap(samples->ns, samples->capacity * sizeof *samples->ns);
    *samples = (struct bench_samples){0};
}

void bench_samples_sort(struct bench_samples *samples)
{
    qsort(samples->ns, samples->count, sizeof *samples->ns, compare_u64s);
}

double bench_samples_percentile_us(const struct bench_samples *samples, double percent)
{
    double rank = percent / 100 * (double)samples->count;
    size_t index = (size_t)rank;

    if (samples->count == 0)
        return 0;
    if ((double)index == rank && index > 0)
        index--;
    if (index >= samples->count)
        index = samples->count - 1;
    return (double)samples->ns[index] / 1e3;
}

static double usage_s(int who)
{
    struct rusage usage;

    if (getrusage(who, &usage) != 0)
        return 0;
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           ((double)usage.ru_utime.tv_usec + (double)usage.ru_stime.tv_usec) / 1e6;
}

double bench_cpu_self_s(void)
{
    return usage_s(RUSAGE_SELF);
}

double bench_cpu_thread_s(void)
{
    return usage_s(RUSAGE_THREAD);
}

/* Whole small file of /proc; length, or -1. */
static ssize_t read_proc(const char *path, char *text, size_t len_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0)
        return -1;
    got = read(fd, text, len_bytes - 1);
    close(fd);
    if (got < 0)
        return -1;
    text[got] = '\0';
    return got;
}

double bench_cpu_of_s(pid_t pid)
{
    char path[64], text[1024];
    uint64_t user = 0, kernel = 0;
    const char *after;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_proc(path, text, sizeof text) <= 0)
        return -1;
    after = strrchr(text, ')'); /* the name may hold spaces */
    if (after == NULL ||
        sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
               &user, &kernel) != 2)
        return -1;
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

double bench_cpu_busy_s(void)
{
    char text[1024];
    uint64_t user, nice, kernel, idle, iowait, irq, softirq;

    if (read_proc("/proc/stat", text, sizeof text) <= 0 ||
        sscanf(text,
               "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64,
               &user, &nice, &kernel, &idle, &iowait, &irq, &softirq) != 7)
        return 0;
    return (double)(user + nice + kernel + irq + softirq) / (double)sysconf(_SC_CLK_TCK);
}

static uint64_t status_kib(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    uint64_t value = 0;

    if (line != NULL && sscanf(line + strlen(name), ": %" SCNu64, &value) == 1)
        return value;
    return 0;
}

void bench_memory_of(pid_t pid, uint64_t *resident_out, uint64_t *peak_out)
{
    char path[64], text[4096];

    *resident_out = *peak_out = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (read_proc(path, text, sizeof text) <= 0)
        return;
    *resident_out = status_kib(text, "VmRSS") << 10;
    *peak_out = status_kib(text, "VmHWM") << 10;
}

bool bench_pin(uint32_t cpu)
{
    cpu_set_t set;

    if (cpu >= CPU_SETSIZE)
        return false;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

void bench_unpin(void)
{
    cpu_set_t set;

    memset(&set, 0xff, sizeof set);
    (void)sched_setaffinity(0, sizeof set, &set);
}

void bench_sleep_us(uint64_t us)
{
    struct timespec pause = {.tv_sec = (time_t)(us / 1000000),
                             .tv_nsec = (long)(us % 1000000) * 1000};

    while (nanosleep(&pause, &pause) != 0 && errno == EINTR)
        ;
}

void *bench_map(size_t len_bytes, bool shared)
{
    void *memory = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE,
                        MAP_ANONYMOUS | MAP_POPULATE | (shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

void bench_unmap(void *memory, size_t len_bytes)
{
    if (memory != NULL)
        munmap(memory, len_bytes);
}
