/*
 * e2e_live.c - `e2e --live`: the link follows a producer.
 *
 * A site of its own (work_dir/live-a) gets the corpus's entries again, group by group, from a
 * thread of this process, while both daemons run. The clock runs from the first append until B has
 * the last one; the daemons' share of the processors is what the producer leaves.
 *
 * Threads: the producer; the program's first watches.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "bench/e2e.h"
#include <cfsrepl/journal.h>

#define GROUP_ENTRIES 512
#define SAMPLE_BYTES  (32u << 20)
#define LIMIT_NS      120000000000ull

/* Entries of the corpus, in memory. */
struct live_sample {
    uint8_t *memory;
    struct cfsr_entry *entries;
    uint32_t count, capacity;
    uint64_t bytes;
};

struct live_producer {
    pthread_t thread;
    struct cfsr_journal *journal;
    const struct live_sample *sample;
    uint64_t until_ns, entries, done_ns;
    int rc;
};

static int load_sample(const struct bench_corpus *corpus, struct live_sample *sample)
{
    struct bench_corpus_cursor cursor = {.corpus = corpus};
    uint32_t used = 0;

    *sample = (struct live_sample){.capacity = SAMPLE_BYTES / CFSR_RECORD_HEADER_BYTES};
    sample->memory = bench_map(SAMPLE_BYTES, false);
    sample->entries = calloc(sample->capacity, sizeof *sample->entries);
    if (sample->memory == NULL || sample->entries == NULL)
        return -ENOMEM;
    while (used < SAMPLE_BYTES && used < corpus->raw_bytes) {
        uint8_t *data = sample->memory + used;
        struct bench_block block;
        struct cfsr_scan scan;
        int rc = bench_corpus_read(&cursor, data, SAMPLE_BYTES - used, &block);

        if (rc < 0)
            return rc;
        bench_corpus_scan_init(corpus, &block, data, &scan);
        (void)cfsr_record_scan(&scan); /* the last record may be cut */
        if (scan.raw_bytes == 0)
            break;
        sample->count += bench_corpus_entries(data, scan.raw_bytes, sample->entries + sample->count,
                                              sample->capacity - sample->count);
        bench_corpus_unread(&cursor, &block, block.len_bytes - scan.raw_bytes);
        used += scan.raw_bytes;
    }
    return sample->count == 0 ? cfsr_fail(-ENODATA, "the corpus has no entry") : 0;
}

static void free_sample(struct live_sample *sample)
{
    bench_unmap(sample->memory, SAMPLE_BYTES);
    free(sample->entries);
}

static void *produce(void *argument)
{
    struct live_producer *producer = argument;
    uint32_t at = 0;

    while (producer->rc >= 0 && cfsr_clock_monotonic_ns() < producer->until_ns) {
        uint32_t left = producer->sample->count - at;
        uint32_t count = left < GROUP_ENTRIES ? left : GROUP_ENTRIES;

        producer->rc = cfsr_journal_append(producer->journal, producer->sample->entries + at, count,
                                           NULL, NULL);
        producer->entries += count;
        at = at + count == producer->sample->count ? 0 : at + count;
    }
    producer->done_ns = cfsr_clock_monotonic_ns();
    return NULL;
}

int e2e_open_live_site(const struct bench_settings *settings, struct cfsr_site *site_out,
                       struct cfsr_journal **journal_out)
{
    struct cfsr_journal_options options = {.opts_size = sizeof options, .retention_age_ms = 1};
    int rc = cfsr_site_load(cfsr_fs_blocking(), settings->data_dir, site_out);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < sizeof site_out->journal.bytes; i++)
        site_out->journal.bytes[i] ^= 0xc3;
    rc = bench_work_path(settings, "live-a", site_out->data_dir, sizeof site_out->data_dir);
    if (rc >= 0)
        rc = bench_site_open(site_out);
    if (rc < 0)
        return rc;
    options.data_dir = site_out->data_dir;
    return cfsr_journal_open(&options, journal_out);
}

struct live_series {
    struct e2e_series daemons;
    struct bench_series producer, tail_ms;
};

static int run_live(struct bench_sites *sites, struct cfsr_journal *journal,
                    const struct live_sample *sample, struct live_series *series)
{
    struct live_producer producer = {.journal = journal, .sample = sample};
    struct cfsr_journal_stats before, after;
    struct e2e_result result = {0};
    struct e2e_clock began;
    uint64_t caught_up_ns;
    int rc;

    cfsr_journal_stats(journal, &before);
    e2e_clock_start(sites, &began);
    producer.until_ns = began.ns + sites->settings->run_us * 1000;
    rc = -pthread_create(&producer.thread, NULL, produce, &producer);
    if (rc < 0)
        return rc;
    pthread_join(producer.thread, NULL);
    rc = producer.rc;
    if (rc >= 0)
        rc = e2e_wait(sites, LIMIT_NS, true, NULL);
    if (rc < 0)
        return rc;
    caught_up_ns = cfsr_clock_monotonic_ns();
    cfsr_journal_stats(journal, &after);
    e2e_clock_stop(sites, &began, after.records_bytes - before.records_bytes, &result);
    if (series == NULL)
        return 0;
    bench_series_add(&series->daemons.throughput, result.raw_mb_per_s);
    bench_series_add(&series->daemons.cpu_a, result.cpu_a_s_per_gb);
    bench_series_add(&series->daemons.cpu_b, result.cpu_b_s_per_gb);
    bench_series_add(&series->producer,
                     (double)producer.entries / ((double)(producer.done_ns - began.ns) / 1e6));
    bench_series_add(&series->tail_ms, (double)(caught_up_ns - producer.done_ns) / 1e6);
    return 0;
}

static int run_rounds(struct bench_sites *sites, struct cfsr_journal *journal,
                      const struct live_sample *sample, struct bench_report *report,
                      struct live_series *series)
{
    int rc = e2e_start_link(sites, false, LIMIT_NS, true);

    for (uint32_t run = 0; run <= sites->settings->runs && rc >= 0; run++) {
        bench_report_progress(report, "e2e, live");
        rc = run_live(sites, journal, sample, run > 0 ? series : NULL);
    }
    bench_report_progress(report, "");
    return rc < 0 ? rc : bench_sites_check_path(sites);
}

static void report_live(struct bench_report *report, const struct live_series *series)
{
    bench_report_section(report, "e2e, live",
                         "a producer appends, two daemons follow, until B has all of it");
    bench_report_series(report, "producer", "k records/s", &series->producer);
    bench_report_series(report, "throughput, raw", "MB/s", &series->daemons.throughput);
    bench_report_series(report, "from the last append to caught up", "ms", &series->tail_ms);
    bench_report_series(report, "processor time, A's daemon", "s/GB", &series->daemons.cpu_a);
    bench_report_series(report, "processor time, B's daemon", "s/GB", &series->daemons.cpu_b);
}

int e2e_live(const struct bench_settings *settings, struct bench_report *report)
{
    struct live_series series = {0};
    struct live_sample sample = {0};
    struct cfsr_journal *journal;
    struct bench_corpus corpus;
    struct bench_sites sites;
    struct cfsr_site site;
    int closed, rc = bench_corpus_open(settings->data_dir, &corpus);

    if (rc < 0)
        return rc;
    rc = load_sample(&corpus, &sample);
    if (rc >= 0)
        rc = e2e_open_live_site(settings, &site, &journal);
    if (rc < 0)
        goto free_sample;
    rc = bench_sites_open(settings, site.data_dir, "live-b", &sites);
    if (rc < 0)
        goto close_journal;
    rc = run_rounds(&sites, journal, &sample, report, &series);
    if (rc >= 0)
        report_live(report, &series);
    bench_sites_close(&sites);
close_journal:
    closed = cfsr_journal_close(journal);
    rc = rc < 0 ? rc : closed;
free_sample:
    free_sample(&sample);
    bench_corpus_close(&corpus);
    return rc;
}
