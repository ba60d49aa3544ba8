/*
 * cmd_journal.c - `journal`: a reader over the corpus, and appends against plain write + fdatasync.
 *
 * A case is a number of lanes, producers and records an append. Each of its runs does three things
 * in turn: the journal; a plain file per busy lane that grows, one write + fdatasync for as many
 * record bytes as the journal put into one group; the same into a file that was written in full
 * before, which is what the journal's segments are. All three count record bytes only, so the
 * journal pays for its MARKs.
 *
 * Threads: one a producer, started and ended in each run; not bound to processors.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "bench/bench.h"
#include "bench/pair.h"
#include "journal/record.h"
#include <cfsrepl/journal.h>
#include <cfsrepl/reader.h>

#define PAYLOAD_BYTES   128
#define RECORD_BYTES    (CFSR_RECORD_HEADER_BYTES + PAYLOAD_BYTES)
#define PRODUCERS_MAX   8
#define BATCH_MAX       93 /* just below 16 KiB */
#define RECYCLED_BYTES  (64u << 20)
#define RETENTION_BYTES (1ull << 30)

struct journal_case {
    const char *name;
    uint32_t lanes, producers, batch;
};

static const struct journal_case cases[] = {
    {"1 lane, 1 producer, 1 record", 1, 1, 1},   {"1 lane, 1 producer, 16 KiB", 1, 1, BATCH_MAX},
    {"1 lane, 8 producers, 1 record", 1, 8, 1},  {"1 lane, 8 producers, 16 KiB", 1, 8, BATCH_MAX},
    {"8 lanes, 8 producers, 1 record", 8, 8, 1}, {"8 lanes, 8 producers, 16 KiB", 8, 8, BATCH_MAX},
};

/* What one thread does until the time is over. */
struct worker {
    pthread_t thread;
    struct cfsr_journal *journal; /* NULL: plain writes */
    uint32_t number, batch;
    int fd;
    bool appends;
    uint32_t write_bytes;
    uint64_t file_bytes; /* recycled: size of the file */
    uint64_t until_ns;
    uint64_t at;
    uint64_t operations;
    int rc;
};

static void *append_entries(void *argument)
{
    struct worker *worker = argument;
    struct cfsr_entry entries[BATCH_MAX];
    uint8_t payload[PAYLOAD_BYTES];

    memset(payload, 'p', sizeof payload);
    for (uint32_t i = 0; i < worker->batch; i++)
        entries[i] = (struct cfsr_entry){.shard_id = worker->number,
                                         .inode = 1000 + worker->number,
                                         .op = CFSR_OP_SETATTR,
                                         .flags = CFSR_ENTRY_OPAQUE,
                                         .payload = payload,
                                         .payload_bytes = sizeof payload};
    while (worker->rc >= 0 && cfsr_clock_monotonic_ns() < worker->until_ns) {
        worker->rc = cfsr_journal_append(worker->journal, entries, worker->batch, NULL, NULL);
        worker->operations++;
    }
    return NULL;
}

static void *write_plainly(void *argument)
{
    struct worker *worker = argument;
    uint8_t *buffer = malloc(worker->write_bytes);

    worker->rc = buffer == NULL ? -ENOMEM : 0;
    if (buffer != NULL)
        memset(buffer, 'p', worker->write_bytes);
    while (worker->rc >= 0 && cfsr_clock_monotonic_ns() < worker->until_ns) {
        if (!worker->appends && worker->at + worker->write_bytes > worker->file_bytes)
            worker->at = 0;
        if (pwrite(worker->fd, buffer, worker->write_bytes, (off_t)worker->at) !=
                (ssize_t)worker->write_bytes ||
            fdatasync(worker->fd) != 0)
            worker->rc = -EIO;
        worker->at += worker->write_bytes;
        worker->operations++;
    }
    free(buffer);
    return NULL;
}

/* Runs the workers; records a second. */
static int run_workers(struct worker *workers, uint32_t count, void *(*work)(void *),
                       double records_each, uint64_t duration_us, double *records_per_s_out)
{
    uint64_t began_ns = cfsr_clock_monotonic_ns(), operations = 0;
    uint32_t started = 0;
    int rc = 0;

    for (; started < count && rc == 0; started++) {
        workers[started].until_ns = began_ns + duration_us * 1000;
        rc = -pthread_create(&workers[started].thread, NULL, work, &workers[started]);
    }
    if (rc < 0)
        started--;
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        operations += workers[i].operations;
        if (rc >= 0 && workers[i].rc < 0)
            rc = cfsr_fail(workers[i].rc, "a producer failed: %s", cfsr_strerror(workers[i].rc));
    }
    *records_per_s_out = (double)operations * records_each /
                         ((double)(cfsr_clock_monotonic_ns() - began_ns) / 1e9);
    return rc;
}

static int run_journal(struct cfsr_journal *journal, const struct journal_case *what,
                       uint64_t duration_us, double *records_per_s_out, double *group_records_out)
{
    struct worker workers[PRODUCERS_MAX] = {0};
    struct cfsr_journal_stats before, after;
    int rc;

    for (uint32_t i = 0; i < what->producers; i++)
        workers[i] = (struct worker){.journal = journal, .number = i, .batch = what->batch};
    cfsr_journal_stats(journal, &before);
    rc = run_workers(workers, what->producers, append_entries, what->batch, duration_us,
                     records_per_s_out);
    cfsr_journal_stats(journal, &after);
    if (rc >= 0 && after.groups > before.groups)
        *group_records_out = (double)(after.entries - before.entries) /
                             (double)(after.groups - before.groups);
    return rc;
}

static int run_plain(const struct bench_settings *settings, const struct journal_case *what,
                     bool appends, double group_records, double *records_per_s_out)
{
    uint32_t count = what->lanes < what->producers ? what->lanes : what->producers, opened = 0;
    struct worker workers[PRODUCERS_MAX] = {0};
    double records = group_records < 1 ? 1 : group_records;
    int rc = 0;

    for (; opened < count && rc >= 0; opened++) {
        struct worker *worker = &workers[opened];
        char path[CFSR_PATH_MAX], name[48];

        *worker = (struct worker){.fd = -1,
                                  .appends = appends,
                                  .file_bytes = RECYCLED_BYTES,
                                  .write_bytes = (uint32_t)(records * RECORD_BYTES)};
        snprintf(name, sizeof name, "plain-%s-%u", appends ? "append" : "recycled", opened);
        rc = bench_work_path(settings, name, path, sizeof path);
        if (rc < 0)
            break;
        worker->fd = appends ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)
                             : bench_open_recycled(path, RECYCLED_BYTES, 0);
        if (worker->fd < 0)
            rc = cfsr_fail(-EIO, "cannot open %s", path);
    }
    if (rc >= 0)
        rc = run_workers(workers, count, write_plainly, records, settings->stage_us,
                         records_per_s_out);
    for (uint32_t i = 0; i < opened; i++)
        if (workers[i].fd >= 0)
            close(workers[i].fd);
    return rc;
}

struct case_series {
    struct bench_series journal, append, recycled, by_append, by_recycled, group;
};

static int run_once(const struct bench_settings *settings, struct cfsr_journal *journal,
                    const struct journal_case *what, struct case_series *series)
{
    double ours = 0, append = 0, recycled = 0, group = 1;
    int rc = run_journal(journal, what, settings->stage_us, &ours, &group);

    if (rc >= 0)
        rc = run_plain(settings, what, true, group, &append);
    if (rc >= 0)
        rc = run_plain(settings, what, false, group, &recycled);
    if (rc < 0 || series == NULL)
        return rc;
    bench_series_add(&series->journal, ours / 1e3);
    bench_series_add(&series->append, append / 1e3);
    bench_series_add(&series->recycled, recycled / 1e3);
    bench_series_add(&series->by_append, ours / append);
    bench_series_add(&series->by_recycled, ours / recycled);
    bench_series_add(&series->group, group);
    return 0;
}

static void report_case(struct bench_report *report, const struct journal_case *what,
                        uint64_t stage_us, const struct case_series *series)
{
    char note[96];

    snprintf(note, sizeof note, "%u B records; runs of %.1f s; ratios run by run", RECORD_BYTES,
             (double)stage_us / 1e6);
    bench_report_section(report, what->name, note);
    bench_report_series(report, "journal", "k records/s", &series->journal);
    bench_report_series(report, "records a group", "", &series->group);
    bench_report_series(report, "plain, appending, the same groups", "k records/s",
                        &series->append);
    bench_report_series(report, "plain, recycled file, the same groups", "k records/s",
                        &series->recycled);
    bench_report_goal(report, "journal by plain appending", "x",
                      bench_series_median(&series->by_append), BENCH_AT_LEAST, 1.25);
    bench_report_goal(report, "journal by plain recycled", "x",
                      bench_series_median(&series->by_recycled), BENCH_AT_LEAST, 0.95);
}

static int open_journal(const struct bench_settings *settings, uint32_t lanes,
                        struct cfsr_journal **journal_out)
{
    struct cfsr_journal_options options = {
        .opts_size = sizeof options, .retention_cap_bytes = RETENTION_BYTES, .retention_age_ms = 1};
    struct cfsr_site site = {.site_id = 1,
                             .lanes = lanes,
                             .shards = 256,
                             .segment_bytes = CFSR_SEGMENT_BYTES_DEFAULT,
                             .name = "bench",
                             .shard_function = "parent-or-inode-mod"};
    char name[32];
    int rc;

    snprintf(name, sizeof name, "journal-%u", lanes);
    rc = bench_work_path(settings, name, site.data_dir, sizeof site.data_dir);
    if (rc < 0)
        return rc;
    memset(&site.cluster, 0x11, sizeof site.cluster);
    memset(&site.journal, 0x22, sizeof site.journal);
    rc = cfsr_site_create(cfsr_fs_blocking(), &site);
    if (rc < 0 && rc != -EEXIST)
        return rc;
    options.data_dir = site.data_dir;
    return cfsr_journal_open(&options, journal_out);
}

/* All cases of this many lanes, run after run. */
static int run_lanes(const struct bench_settings *settings, struct bench_report *report,
                     uint32_t lanes)
{
    struct case_series *series = calloc(CFSR_ARRAY_LEN(cases), sizeof *series);
    struct cfsr_journal *journal;
    int rc, closed;

    if (series == NULL)
        return -ENOMEM;
    rc = open_journal(settings, lanes, &journal);
    if (rc < 0)
        goto free_series;
    for (uint32_t run = 0; run <= settings->runs && rc >= 0; run++)
        for (unsigned i = 0; i < CFSR_ARRAY_LEN(cases) && rc >= 0; i++) {
            if (cases[i].lanes != lanes)
                continue;
            bench_report_progress(report, cases[i].name);
            rc = run_once(settings, journal, &cases[i], run > 0 ? &series[i] : NULL);
        }
    bench_report_progress(report, "");
    closed = cfsr_journal_close(journal);
    rc = rc < 0 ? rc : closed;
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(cases) && rc >= 0; i++)
        if (cases[i].lanes == lanes)
            report_case(report, &cases[i], settings->stage_us, &series[i]);
free_series:
    free(series);
    return rc;
}

/* Reads every lane of the corpus to its committed end through libcfsrepl. */
static int tail_once(const char *data_dir, uint32_t lanes, uint64_t *records_out,
                     uint64_t *bytes_out)
{
    *records_out = *bytes_out = 0;
    for (uint32_t lane = 0; lane < lanes; lane++) {
        struct cfsr_record_view view;
        struct cfsr_reader *reader;
        int rc = cfsr_reader_open(data_dir, lane, CFSR_READER_OLDEST, &reader);

        if (rc < 0)
            return rc;
        while ((rc = cfsr_reader_next(reader, &view)) == 1) {
            (*records_out)++;
            *bytes_out += CFSR_RECORD_HEADER_BYTES +
                          cfsr_align_up(view.payload_bytes, CFSR_RECORD_ALIGN);
        }
        cfsr_reader_close(reader);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int run_tail(const struct bench_settings *settings, struct bench_report *report)
{
    struct bench_series speed = {0}, records_per_s = {0};
    struct cfsr_site site;
    int rc = cfsr_site_load(cfsr_fs_blocking(), settings->data_dir, &site);

    for (uint32_t run = 0; run <= settings->runs && rc >= 0; run++) {
        uint64_t began_ns = cfsr_clock_monotonic_ns(), records, bytes;
        double elapsed_s;

        bench_report_progress(report, "tail");
        rc = tail_once(settings->data_dir, site.lanes, &records, &bytes);
        elapsed_s = (double)(cfsr_clock_monotonic_ns() - began_ns) / 1e9;
        if (run == 0)
            continue;
        bench_series_add(&speed, (double)bytes / 1e6 / elapsed_s);
        bench_series_add(&records_per_s, (double)records / 1e3 / elapsed_s);
    }
    bench_report_progress(report, "");
    if (rc < 0)
        return rc;
    bench_report_section(report, "tail",
                         "one reader over all lanes of the corpus, oldest record to committed end");
    bench_report_series(report, "records", "k records/s", &records_per_s);
    bench_report_series(report, "raw", "MB/s", &speed);
    return 0;
}

int bench_journal(const struct bench_settings *settings, struct bench_report *report)
{
    int rc = run_tail(settings, report);

    if (rc >= 0)
        rc = run_lanes(settings, report, 1);
    return rc < 0 ? rc : run_lanes(settings, report, 8);
}
