/*
 * cmd_e2e.c - `e2e`: two daemons ship A's journal to an empty B, in turns with the floor.
 *
 * The clock starts with B's first durable ack, and what that covers does not count; it stops when
 * A's status page says that B has all of it. Start-up of the daemons (memory is populated then) and
 * dialling are left out that way, the hand-over of the last byte is in. Processor time is that of
 * both processes (kernel workers of their rings are threads of theirs) and, beside it, of the whole
 * machine. The first run is not counted: it writes B's segments for the first time, and it counts
 * the heap calls.
 *
 * Thread: the program's only one; with --live a producer thread (e2e_live.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "bench/daemon.h"
#include "bench/e2e.h"
#include "bench/floor.h"

#define RUN_LIMIT_NS  300000000000ull
#define LINK_LIMIT_NS 60000000000ull /* an emulated machine takes its time */
#define POLL_US       5000 /* its own cost counts against the daemons: 0.1 % of a run at most */
#define FIRST_POLL_US 50

/* Counters of a status document, summed over cores where they are per core. */
static double status_counter(const json_t *status, const char *name)
{
    return (double)json_integer_value(json_object_get(json_object_get(status, "counters"), name));
}

static double status_core_counter(const json_t *status, const char *group, const char *name)
{
    double sum = 0;
    size_t index;
    json_t *core;

    json_array_foreach(json_object_get(status, "cores"), index, core)
    {
        sum += (double)json_integer_value(json_object_get(json_object_get(core, group), name));
    }
    return sum;
}

static void read_side(const json_t *status, const struct bench_site *site, double raw_mib,
                      struct e2e_side *side_out)
{
    uint64_t resident, peak;

    bench_memory_of(site->pid, &resident, &peak);
    side_out->resident_mib = (double)peak / (1u << 20);
    side_out->enters_per_mib = status_core_counter(status, "io", "enters") / raw_mib;
    side_out->workers_per_mib = (status_core_counter(status, "io", "file_syncs") +
                                 status_core_counter(status, "io", "file_deferred")) /
                                raw_mib;
    side_out->wakeups_per_mib = status_core_counter(status, "workers", "wakeups") / raw_mib;
    side_out->doorbells_per_mib = status_core_counter(status, "rdma", "doorbells") / raw_mib;
}

/* What only the daemons know, asked for after the run. */
static int read_counters(struct bench_sites *sites, uint64_t raw_bytes, struct e2e_result *result)
{
    double raw_mib = (double)raw_bytes / (1u << 20);
    json_t *a, *b;
    int rc = bench_daemon_status(&sites->a, &a);

    if (rc < 0)
        return rc;
    rc = bench_daemon_status(&sites->b, &b);
    if (rc >= 0) {
        double sent = status_core_counter(a, "transport", "bytes_sent") +
                      status_core_counter(a, "rdma", "bytes_sent");

        read_side(a, &sites->a, raw_mib, &result->a);
        read_side(b, &sites->b, raw_mib, &result->b);
        result->wire_ratio = sent / (double)raw_bytes;
        result->batches = status_counter(a, "batches_encoded");
        result->links_lost = status_counter(a, "connects") - 1;
        json_decref(b);
    }
    json_decref(a);
    return rc;
}

/* Heap calls between a quarter and three quarters of the way. */
struct heap_watch {
    uint64_t from_bytes, to_bytes;
    struct bench_heap_counts a[2], b[2];
    unsigned marks;
};

static void watch_heap(const struct bench_sites *sites, int64_t acked, uint64_t total,
                       struct heap_watch *watch)
{
    if (sites->a.heap == NULL || watch->marks > 1 ||
        acked < (int64_t)(watch->marks == 0 ? total / 4 : total / 4 * 3))
        return;
    watch->a[watch->marks] = *sites->a.heap;
    watch->b[watch->marks] = *sites->b.heap;
    *(watch->marks == 0 ? &watch->from_bytes : &watch->to_bytes) = (uint64_t)acked;
    watch->marks++;
}

int e2e_wait(struct bench_sites *sites, uint64_t limit_ns, bool until_done,
             struct e2e_progress *progress)
{
    uint64_t until_ns = cfsr_clock_monotonic_ns() + limit_ns;
    int rc = 0;

    for (unsigned turn = 0; rc >= 0; turn++) {
        bool done;
        int64_t acked = bench_sites_acked(sites, &done);

        if (progress != NULL && progress->each != NULL && acked >= 0)
            progress->each(progress->user, acked);
        if (acked >= 0 && (done || (!until_done && acked > 0)))
            return 0;
        if (cfsr_clock_monotonic_ns() > until_ns)
            return cfsr_fail(-CFSR_E_TIMEOUT, "%s: see %s and %s",
                             until_done ? "B did not catch up in time"
                                        : "the daemons found no link",
                             sites->a.log, sites->b.log);
        if (turn % 64 == 63)
            rc = bench_daemon_check(&sites->a);
        if (turn % 64 == 63 && rc >= 0)
            rc = bench_daemon_check(&sites->b);
        bench_sleep_us(until_done ? POLL_US : FIRST_POLL_US);
    }
    return rc;
}

void e2e_clock_start(const struct bench_sites *sites, struct e2e_clock *clock_out)
{
    *clock_out = (struct e2e_clock){.busy_s = bench_cpu_busy_s(),
                                    .cpu_a_s = bench_cpu_of_s(sites->a.pid),
                                    .cpu_b_s = bench_cpu_of_s(sites->b.pid),
                                    .ns = cfsr_clock_monotonic_ns()};
}

void e2e_clock_stop(const struct bench_sites *sites, const struct e2e_clock *began,
                    uint64_t raw_bytes, struct e2e_result *result)
{
    uint64_t elapsed_ns = cfsr_clock_monotonic_ns() - began->ns;
    double gigabytes = (double)raw_bytes / 1e9;

    result->cpu_a_s_per_gb = (bench_cpu_of_s(sites->a.pid) - began->cpu_a_s) / gigabytes;
    result->cpu_b_s_per_gb = (bench_cpu_of_s(sites->b.pid) - began->cpu_b_s) / gigabytes;
    result->busy_s_per_gb = (bench_cpu_busy_s() - began->busy_s) / gigabytes;
    result->elapsed_s = (double)elapsed_ns / 1e9;
    result->raw_mb_per_s = (double)raw_bytes / 1e6 / result->elapsed_s;
}

struct e2e_watcher {
    struct bench_sites *sites;
    struct heap_watch heap;
    uint64_t total;
};

static void each_poll(void *user, int64_t acked)
{
    struct e2e_watcher *watcher = user;

    watch_heap(watcher->sites, acked, watcher->total, &watcher->heap);
}

static uint64_t committed_bytes(const struct bench_sites *sites)
{
    uint64_t sum = 0;

    for (uint32_t lane = 0; lane < sites->a.site.lanes; lane++) {
        uint64_t lsn = cfsr_status_page_committed(sites->page, lane);

        sum += lsn == CFSR_LSN_UNKNOWN ? 0 : lsn;
    }
    return sum;
}

int e2e_start_link(struct bench_sites *sites, bool count_heap, uint64_t limit_ns, bool until_done)
{
    json_t *status;
    int rc = bench_daemon_start(sites, &sites->b, count_heap);

    if (rc >= 0)
        rc = bench_daemon_status(&sites->b, &status); /* it listens before A dials */
    if (rc < 0)
        return rc;
    json_decref(status);
    rc = bench_daemon_start(sites, &sites->a, count_heap);
    return rc < 0 ? rc : e2e_wait(sites, limit_ns, until_done, NULL);
}

/* One transfer, the daemons started for it and left running. */
static int ship(struct bench_sites *sites, const struct bench_corpus *corpus, bool count_heap,
                struct e2e_result *result)
{
    struct e2e_watcher watcher = {.sites = sites};
    struct e2e_progress progress = {.each = each_poll, .user = &watcher};
    struct e2e_clock began;
    int64_t first;
    double part;
    bool done;
    int rc = e2e_start_link(sites, count_heap, LINK_LIMIT_NS, false);

    if (rc < 0)
        return rc;
    e2e_clock_start(sites, &began);
    first = bench_sites_acked(sites, &done);
    watcher.total = committed_bytes(sites);
    rc = e2e_wait(sites, RUN_LIMIT_NS, true, &progress);
    if (rc < 0)
        return rc;
    /* LSNs count the filler of PADs too: the part is taken of the records' bytes. */
    part = 1 - (double)first / (double)watcher.total;
    e2e_clock_stop(sites, &began, (uint64_t)((double)corpus->raw_bytes * part), result);
    rc = bench_sites_check_path(sites);
    if (rc >= 0)
        rc = read_counters(sites, corpus->raw_bytes, result);
    if (rc >= 0 && watcher.heap.marks == 2) {
        part = (double)(watcher.heap.to_bytes - watcher.heap.from_bytes) / (double)watcher.total;
        result->heap_batches = result->batches * part;
        result->heap_core_a = (double)(watcher.heap.a[1].core - watcher.heap.a[0].core);
        result->heap_core_b = (double)(watcher.heap.b[1].core - watcher.heap.b[0].core);
        result->heap_other_a = (double)(watcher.heap.a[1].other - watcher.heap.a[0].other);
        result->heap_other_b = (double)(watcher.heap.b[1].other - watcher.heap.b[0].other);
    }
    return rc;
}

static int run_once(struct bench_sites *sites, const struct bench_corpus *corpus, bool count_heap,
                    struct e2e_result *result)
{
    int stopped, rc;

    *result = (struct e2e_result){0};
    rc = bench_sites_reset(sites);
    if (rc >= 0)
        rc = ship(sites, corpus, count_heap, result);
    stopped = sites->a.pid > 0 ? bench_daemon_stop(&sites->a) : 0;
    if (rc >= 0)
        rc = stopped;
    stopped = sites->b.pid > 0 ? bench_daemon_stop(&sites->b) : 0;
    return rc < 0 ? rc : stopped;
}

static void add_result(struct e2e_series *series, const struct e2e_result *result)
{
    bench_series_add(&series->throughput, result->raw_mb_per_s);
    bench_series_add(&series->cpu_a, result->cpu_a_s_per_gb);
    bench_series_add(&series->cpu_b, result->cpu_b_s_per_gb);
    bench_series_add(&series->busy, result->busy_s_per_gb);
    bench_series_add(&series->elapsed, result->elapsed_s);
    bench_series_add(&series->wire, result->wire_ratio);
    bench_series_add(&series->links_lost, result->links_lost);
    bench_series_add(&series->enters_a, result->a.enters_per_mib);
    bench_series_add(&series->enters_b, result->b.enters_per_mib);
    bench_series_add(&series->workers_a, result->a.workers_per_mib);
    bench_series_add(&series->workers_b, result->b.workers_per_mib);
    bench_series_add(&series->wakeups_a, result->a.wakeups_per_mib);
    bench_series_add(&series->wakeups_b, result->b.wakeups_per_mib);
    bench_series_add(&series->resident_a, result->a.resident_mib);
    bench_series_add(&series->resident_b, result->b.resident_mib);
    bench_series_add(&series->doorbells_a, result->a.doorbells_per_mib);
    bench_series_add(&series->doorbells_b, result->b.doorbells_per_mib);
}

static void report_e2e(struct bench_report *report, const struct bench_settings *settings,
                       const struct e2e_series *series)
{
    /* Every run was refused that was carried by anything else. */
    bench_report_text(report, "links carried by", bench_path_name(settings));
    bench_report_series(report, "throughput, raw", "MB/s", &series->throughput);
    bench_report_series(report, "duration", "s", &series->elapsed);
    bench_report_series(report, "processor time, A", "s/GB", &series->cpu_a);
    bench_report_series(report, "processor time, B", "s/GB", &series->cpu_b);
    bench_report_series(report, "processor time, whole machine", "s/GB", &series->busy);
    bench_report_series(report, "wire by raw bytes", "", &series->wire);
    if (settings->path == BENCH_PATH_RDMA) {
        bench_report_series(report, "doorbells, A", "/MiB", &series->doorbells_a);
        bench_report_series(report, "doorbells, B", "/MiB", &series->doorbells_b);
    }
    bench_report_goal(report, "connections lost in a run, most", "",
                      bench_series_max(&series->links_lost), BENCH_AT_MOST, 0);
    bench_report_goal(report, "system calls, A", "/MiB", bench_series_median(&series->enters_a),
                      BENCH_AT_MOST, 3);
    bench_report_goal(report, "system calls, B", "/MiB", bench_series_median(&series->enters_b),
                      BENCH_AT_MOST, 3);
    bench_report_series(report, "kernel worker items at most, A", "/MiB", &series->workers_a);
    bench_report_series(report, "kernel worker items at most, B", "/MiB", &series->workers_b);
    bench_report_goal(report, "kernel worker items at least, A", "/MiB",
                      bench_series_median(&series->wakeups_a), BENCH_AT_MOST, 1);
    bench_report_goal(report, "kernel worker items at least, B", "/MiB",
                      bench_series_median(&series->wakeups_b), BENCH_AT_MOST, 1);
    bench_report_goal(report, "resident memory at its peak, A", "MiB",
                      bench_series_max(&series->resident_a), BENCH_AT_MOST, 256);
    bench_report_goal(report, "resident memory at its peak, B", "MiB",
                      bench_series_max(&series->resident_b), BENCH_AT_MOST, 256);
}

static void report_heap(struct bench_report *report, const struct e2e_result *result)
{
    if (result->heap_batches <= 0) {
        bench_report_text(report, "heap calls", "not counted: the first run was too short");
        return;
    }
    bench_report_value(report, "batches over which heap calls were counted", "",
                       result->heap_batches);
    bench_report_goal(report, "heap calls a batch, A's cores", "",
                      result->heap_core_a / result->heap_batches, BENCH_AT_MOST, 0);
    bench_report_goal(report, "heap calls a batch, B's cores", "",
                      result->heap_core_b / result->heap_batches, BENCH_AT_MOST, 0);
    bench_report_value(report, "heap calls in all, A's helpers and control", "",
                       result->heap_other_a);
    bench_report_value(report, "heap calls in all, B's helpers and control", "",
                       result->heap_other_b);
}

static void report_ratios(struct bench_report *report, const char *name,
                          const struct e2e_series *ours, const struct bench_floor_series *floor)
{
    bench_report_section(report, name, "medians of runs that took turns");
    bench_report_goal(report, "throughput", "x",
                      bench_series_median(&ours->throughput) /
                          bench_series_median(&floor->throughput),
                      BENCH_AT_LEAST, 1.0);
    bench_report_goal(report, "processor time, whole machine", "x",
                      bench_series_median(&ours->busy) / bench_series_median(&floor->busy),
                      BENCH_AT_MOST, 1.05);
}

/* Daemons and floors in turn; the first round is not counted. */
static int run_rounds(const struct bench_settings *settings, struct bench_sites *sites,
                      const struct bench_corpus *corpus, struct bench_report *report,
                      struct e2e_series *ours, struct bench_floor_series floors[2],
                      struct e2e_result *first_out)
{
    for (uint32_t run = 0; run <= settings->runs; run++) {
        struct e2e_result result;
        char text[64];
        int rc;

        snprintf(text, sizeof text, "e2e, run %u of %u", run, settings->runs);
        bench_report_progress(report, text);
        rc = run_once(sites, corpus, run == 0, run == 0 ? first_out : &result);
        if (rc < 0)
            return rc;
        if (run > 0)
            add_result(ours, &result);
        for (unsigned i = 0; i < 2 && !settings->no_floor; i++) {
            struct bench_floor_result floor;

            rc = bench_floor_run(settings, corpus, i == 1, &floor);
            if (rc < 0)
                return rc;
            if (run > 0)
                bench_floor_series_add(&floors[i], &floor);
        }
    }
    bench_report_progress(report, "");
    return 0;
}

int bench_e2e(const struct bench_settings *settings, struct bench_report *report)
{
    struct bench_floor_series floors[2] = {0};
    struct e2e_series ours = {0};
    struct e2e_result first = {0};
    struct bench_corpus corpus;
    struct bench_sites sites;
    int rc;

    if (settings->live)
        return e2e_live(settings, report);
    rc = bench_corpus_open(settings->data_dir, &corpus);
    if (rc < 0)
        return rc;
    rc = bench_sites_open(settings, settings->data_dir, "site-b", &sites);
    if (rc < 0)
        goto close_corpus;
    rc = run_rounds(settings, &sites, &corpus, report, &ours, floors, &first);
    if (rc >= 0) {
        bench_report_section(report, "e2e", "two daemons, link up to caught up, durable acks");
        report_e2e(report, settings, &ours);
        report_heap(report, &first);
    }
    if (rc >= 0 && !settings->no_floor) {
        bench_report_section(report, "floor", "in turns with it");
        bench_floor_series_report(report, &floors[0]);
        bench_report_section(report, "floor+crc", "in turns with it");
        bench_floor_series_report(report, &floors[1]);
        report_ratios(report, "e2e by floor", &ours, &floors[0]);
        report_ratios(report, "e2e by floor+crc", &ours, &floors[1]);
    }
    bench_sites_close(&sites);
close_corpus:
    bench_corpus_close(&corpus);
    return rc;
}
