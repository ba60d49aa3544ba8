/*
 * cmd_latency.c - `latency`: one append at A until B's durable ack, on an idle link, in turns with
 * the floor's ping.
 *
 * The producer is this process, bound to A's processor: cfsr_journal_append() returns when the
 * entry is durable at A, then it watches A's status page for B's ack. By default it yields between
 * looks, so that A's daemon, on the same processor, gets it at once; spinning without yielding
 * measures the scheduler.
 *
 * Thread: the program's first; the journal's helper thread beside it.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "bench/e2e.h"
#include "bench/floor.h"
#include <cfsrepl/journal.h>

#define PAYLOAD_BYTES 128
#define LIMIT_NS      20000000000ull
#define ACK_LIMIT_NS  10000000000ull
#define SLEEP_US      10

static int wait_ack(struct bench_sites *sites, const struct cfsr_entry_position *position)
{
    uint64_t until_ns = cfsr_clock_monotonic_ns() + ACK_LIMIT_NS;

    for (unsigned turn = 1;; turn++) {
        uint64_t acked = cfsr_status_page_acked(sites->page, sites->peer, position->lane);

        if (acked != CFSR_LSN_UNKNOWN && acked >= position->end_lsn)
            return 0;
        if (turn % 1024 == 0 && cfsr_clock_monotonic_ns() > until_ns)
            return cfsr_fail(-CFSR_E_TIMEOUT, "no ack of lane %u: see %s and %s", position->lane,
                             sites->a.log, sites->b.log);
        if (sites->settings->poll == BENCH_POLL_YIELD)
            sched_yield();
        else if (sites->settings->poll == BENCH_POLL_SLEEP)
            bench_sleep_us(SLEEP_US);
    }
}

/* One run: sorted samples, and those of the append alone. */
static int run_once(struct bench_sites *sites, struct cfsr_journal *journal,
                    struct bench_samples *samples, struct bench_samples *appends)
{
    const struct bench_settings *settings = sites->settings;
    uint32_t warm_up = settings->pings / 10, total = settings->pings + warm_up;
    uint8_t payload[PAYLOAD_BYTES];
    int rc = 0;

    memset(payload, 'p', sizeof payload);
    samples->count = appends->count = 0;
    for (uint32_t i = 0; i < total && rc >= 0; i++) {
        struct cfsr_entry entry = {.shard_id = i % sites->a.site.shards,
                                   .inode = 1000 + i,
                                   .op = CFSR_OP_SETATTR,
                                   .flags = CFSR_ENTRY_OPAQUE,
                                   .payload = payload,
                                   .payload_bytes = sizeof payload};
        struct cfsr_entry_position position;
        uint64_t began_ns = cfsr_clock_monotonic_ns(), durable_ns;

        rc = cfsr_journal_append(journal, &entry, 1, &position, NULL);
        if (rc < 0)
            return rc;
        durable_ns = cfsr_clock_monotonic_ns();
        rc = wait_ack(sites, &position);
        if (i >= warm_up) {
            bench_samples_add(samples, cfsr_clock_monotonic_ns() - began_ns);
            bench_samples_add(appends, durable_ns - began_ns);
        }
        if (settings->gap_us > 0)
            bench_sleep_us(settings->gap_us);
    }
    bench_samples_sort(samples);
    bench_samples_sort(appends);
    return rc;
}

struct latency_series {
    struct bench_series p50, p99, most, append_p50, floor_p50, floor_p99, recycled_p50,
        recycled_p99;
};

static int run_floor(const struct bench_settings *settings, enum bench_ping_write write,
                     struct bench_series *p50, struct bench_series *p99)
{
    struct bench_samples samples;
    int rc = bench_ping_run(settings, write, &samples);

    if (rc < 0)
        return rc;
    bench_series_add(p50, bench_samples_percentile_us(&samples, 50));
    bench_series_add(p99, bench_samples_percentile_us(&samples, 99));
    bench_samples_fini(&samples);
    return 0;
}

static int run_rounds(struct bench_sites *sites, struct cfsr_journal *journal,
                      struct bench_report *report, struct latency_series *series)
{
    struct bench_samples samples, appends;
    int rc = bench_samples_init(&samples, sites->settings->pings);

    if (rc < 0)
        return rc;
    rc = bench_samples_init(&appends, sites->settings->pings);
    for (uint32_t run = 0; run < sites->settings->runs && rc >= 0; run++) {
        bench_report_progress(report, "latency");
        bench_pin(sites->settings->cpu_a);
        rc = run_once(sites, journal, &samples, &appends);
        bench_unpin();
        if (rc < 0)
            break;
        bench_series_add(&series->p50, bench_samples_percentile_us(&samples, 50));
        bench_series_add(&series->p99, bench_samples_percentile_us(&samples, 99));
        bench_series_add(&series->most, bench_samples_percentile_us(&samples, 100));
        bench_series_add(&series->append_p50, bench_samples_percentile_us(&appends, 50));
        if (sites->settings->no_floor)
            continue;
        rc = run_floor(sites->settings, BENCH_PING_APPEND, &series->floor_p50, &series->floor_p99);
        if (rc >= 0)
            rc = run_floor(sites->settings, BENCH_PING_RECYCLED, &series->recycled_p50,
                           &series->recycled_p99);
    }
    bench_report_progress(report, "");
    bench_samples_fini(&samples);
    if (appends.ns != NULL)
        bench_samples_fini(&appends);
    return rc;
}

static void report_latency(const struct bench_settings *settings, struct bench_report *report,
                           const struct latency_series *series)
{
    bench_report_section(report, "latency", "append at A until B's durable ack, one at a time");
    bench_report_series(report, "p50", "us", &series->p50);
    bench_report_series(report, "p99", "us", &series->p99);
    bench_report_series(report, "most", "us", &series->most);
    bench_report_series(report, "p50 of the append alone: durable at A", "us", &series->append_p50);
    if (settings->no_floor)
        return;
    bench_report_section(report, "floor's ping", "in turns with it, the daemons idle beside it");
    bench_report_series(report, "p50, append + fdatasync", "us", &series->floor_p50);
    bench_report_series(report, "p99, append + fdatasync", "us", &series->floor_p99);
    bench_report_series(report, "p50, written-once files", "us", &series->recycled_p50);
    bench_report_series(report, "p99, written-once files", "us", &series->recycled_p99);
    bench_report_section(report, "latency by floor's ping", "medians of runs that took turns");
    bench_report_goal(report, "p50", "x",
                      bench_series_median(&series->p50) / bench_series_median(&series->floor_p50),
                      BENCH_AT_MOST, 1.0);
    bench_report_goal(report, "p99", "x",
                      bench_series_median(&series->p99) / bench_series_median(&series->floor_p99),
                      BENCH_AT_MOST, 1.2);
    bench_report_value(report, "p50, against written-once files", "x",
                       bench_series_median(&series->p50) /
                           bench_series_median(&series->recycled_p50));
    bench_report_value(report, "p99, against written-once files", "x",
                       bench_series_median(&series->p99) /
                           bench_series_median(&series->recycled_p99));
}

int bench_latency(const struct bench_settings *settings, struct bench_report *report)
{
    struct latency_series series = {0};
    struct cfsr_journal *journal;
    struct bench_sites sites;
    struct cfsr_site site;
    int closed, rc = e2e_open_live_site(settings, &site, &journal);

    if (rc < 0)
        return rc;
    rc = bench_sites_open(settings, site.data_dir, "live-b", &sites);
    if (rc < 0)
        goto close_journal;
    rc = e2e_start_link(&sites, false, LIMIT_NS, true);
    if (rc >= 0)
        rc = run_rounds(&sites, journal, report, &series);
    if (rc >= 0)
        rc = bench_sites_check_path(&sites);
    if (rc >= 0)
        report_latency(settings, report, &series);
    bench_sites_close(&sites);
close_journal:
    closed = cfsr_journal_close(journal);
    return rc < 0 ? rc : closed;
}
