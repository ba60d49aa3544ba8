/*
 * main.c - cfs-repl-bench: options, corpus, dispatch.
 *
 * Thread: the process's first; subcommands start threads and processes of their own and end them
 * before they return.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "bench/bench.h"
#include "bench/process.h"
#include "control/options.h"
#include "security/mac.h"
#include <cfsrepl/version.h>

#define FIELD(member) CFSR_OPTION_FIELD(struct bench_settings, member)

static const char *const path_names[] = {"tcp", "rdma", NULL};
static const char *const poll_names[] = {"yield", "spin", "sleep", NULL};

static const struct cfsr_option options[] = {
    {.name = "data-dir",
     .value_name = "DIR",
     .group = "Corpus",
     .kind = CFSR_OPTION_TEXT,
     .environment = "CFSR_DATA_DIR",
     .help = "Data directory of a site whose journal was imported before: the records that are "
             "measured with.",
     FIELD(data_dir)},
    {.name = "make-corpus",
     .value_name = "TAR",
     .group = "Corpus",
     .kind = CFSR_OPTION_TEXT,
     .help =
         "If --data-dir holds no site yet, make one there and import this tar's listing into it.",
     FIELD(make_corpus)},
    {.name = "min-records",
     .value_name = "N",
     .group = "Corpus",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .default_text = "2000000",
     .help = "With --make-corpus: import the tar as often as it takes to get this many records.",
     FIELD(min_records)},
    {.name = "with-data",
     .group = "Corpus",
     .kind = CFSR_OPTION_BOOL,
     .help = "With --make-corpus: import the contents of files too.",
     FIELD(with_data)},
    {.name = "fill",
     .value_name = "SIZE",
     .group = "Corpus",
     .kind = CFSR_OPTION_SIZE,
     .default_text = "0",
     .zero_means = "not",
     .help = "With --make-corpus: append the imported entries again and again until the journal "
             "has so many "
             "bytes; at 900 MB/s a run over 4500MB lasts 5 s.",
     FIELD(fill_bytes)},
    {.name = "lanes",
     .value_name = "N",
     .group = "Corpus",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .max = CFSR_LANES_MAX,
     .default_text = "4",
     .help = "With --make-corpus: lanes of the new site.",
     FIELD(lanes)},
    {.name = "work-dir",
     .value_name = "DIR",
     .group = "Corpus",
     .kind = CFSR_OPTION_TEXT,
     .help = "Where runs write; on the same file system as the data directory to be comparable. "
             "Default: DATA_DIR.bench.",
     FIELD(work_dir)},
    {.name = "runs",
     .value_name = "N",
     .group = "Runs",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .max = BENCH_RUNS_MAX,
     .default_text = "5",
     .help = "Runs, of which median, least and most are shown. A first one is not counted.",
     FIELD(runs)},
    {.name = "run-time",
     .value_name = "TIME",
     .group = "Runs",
     .kind = CFSR_OPTION_DURATION,
     .min = 100000,
     .unit_us = 1,
     .default_text = "5s",
     .help = "Least duration of a throughput run; the corpus is gone over again and again.",
     FIELD(run_us)},
    {.name = "stage-time",
     .value_name = "TIME",
     .group = "Runs",
     .kind = CFSR_OPTION_DURATION,
     .min = 10000,
     .unit_us = 1,
     .default_text = "500ms",
     .help = "stages, transport: least duration of one run of one stage.",
     FIELD(stage_us)},
    {.name = "pings",
     .value_name = "N",
     .group = "Runs",
     .kind = CFSR_OPTION_COUNT,
     .min = 100,
     .max = 1000000,
     .default_text = "2000",
     .help = "Round trips of a latency run.",
     FIELD(pings)},
    {.name = "gap",
     .value_name = "TIME",
     .group = "Runs",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1,
     .default_text = "200us",
     .help = "Pause between two round trips of a latency run.",
     FIELD(gap_us)},
    {.name = "cpu-a",
     .value_name = "CPU",
     .group = "Runs",
     .kind = CFSR_OPTION_COUNT,
     .default_text = "0",
     .help = "Processor of the sending side.",
     FIELD(cpu_a)},
    {.name = "cpu-b",
     .value_name = "CPU",
     .group = "Runs",
     .kind = CFSR_OPTION_COUNT,
     .default_text = "1",
     .help = "Processor of the receiving side.",
     FIELD(cpu_b)},
    {.name = "json",
     .group = "Runs",
     .kind = CFSR_OPTION_BOOL,
     .help = "One JSON object at the end instead of a table.",
     FIELD(json)},
    {.name = "crc",
     .group = "Floor",
     .kind = CFSR_OPTION_BOOL,
     .help = "Also check the CRC and order of every record on both sides, as floor+crc does.",
     FIELD(crc)},
    {.name = "block-size",
     .value_name = "SIZE",
     .group = "Floor",
     .kind = CFSR_OPTION_SIZE,
     .min = 4096,
     .max = 1 << 20,
     .default_text = "256KiB",
     .help = "Raw bytes compressed together, in floor and stages.",
     FIELD(block_bytes)},
    {.name = "sample",
     .value_name = "SIZE",
     .group = "Stages",
     .kind = CFSR_OPTION_SIZE,
     .min = 1 << 20,
     .max = 1 << 30,
     .default_text = "64MiB",
     .help = "Records held in memory for the stages.",
     FIELD(sample_bytes)},
    {.name = "frame-size",
     .value_name = "SIZE",
     .group = "Transport",
     .kind = CFSR_OPTION_SIZE,
     .min = 64,
     .max = 1 << 20,
     .default_text = "67000",
     .help = "Bytes of a frame; a compressed batch has about 67,000.",
     FIELD(frame_bytes)},
    {.name = "depth",
     .value_name = "N",
     .group = "Transport",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .max = 256,
     .default_text = "16",
     .help = "Frames handed over and not sent yet.",
     FIELD(depth)},
    {.name = "rdma",
     .value_name = "ADDRESS",
     .group = "Transport",
     .kind = CFSR_OPTION_TEXT,
     .help = "An address of this machine that belongs to an RDMA device. transport: over RDMA too; "
             "e2e, latency: for --path rdma.",
     FIELD(rdma_address)},
    {.name = "path",
     .value_name = "PATH",
     .group = "Daemons",
     .kind = CFSR_OPTION_ENUM,
     .choices = path_names,
     .default_text = "tcp",
     .help =
         "e2e, latency: what carries the links: tcp on 127.0.0.1, or rdma (and nothing else) at "
         "the address of --rdma. Another transport than this fails the run.",
     FIELD(path)},
    {.name = "compress",
     .value_name = "CODEC",
     .group = "Daemons",
     .kind = CFSR_OPTION_TEXT,
     .default_text = "lz4",
     .help = "e2e: as the flag of the daemon.",
     FIELD(compress)},
    {.name = "serve-args",
     .value_name = "ARGS",
     .group = "Daemons",
     .kind = CFSR_OPTION_TEXT,
     .help = "e2e, latency: more flags for both daemons, separated by spaces.",
     FIELD(serve_args)},
    {.name = "live",
     .group = "Daemons",
     .kind = CFSR_OPTION_BOOL,
     .help = "e2e: a producer appends while the daemons replicate.",
     FIELD(live)},
    {.name = "no-floor",
     .group = "Daemons",
     .kind = CFSR_OPTION_BOOL,
     .help = "e2e, latency: leave out the floor runs in between, and the ratios.",
     FIELD(no_floor)},
    {.name = "port",
     .value_name = "PORT",
     .group = "Daemons",
     .kind = CFSR_OPTION_COUNT,
     .min = 1024,
     .max = 65534,
     .default_text = "7431",
     .help = "e2e, latency: the daemons listen on this port and the next.",
     FIELD(port)},
    {.name = "poll",
     .value_name = "HOW",
     .group = "Daemons",
     .kind = CFSR_OPTION_ENUM,
     .choices = poll_names,
     .default_text = "yield",
     .help = "latency: how the producer waits for the ack.",
     FIELD(poll)},
    {.name = "count-heap",
     .value_name = "FILE",
     .group = "Daemons",
     .kind = CFSR_OPTION_TEXT,
     .help = "e2e: shared object that counts heap calls. Default: libcfsr-malloc-count.so beside "
             "the program.",
     FIELD(count_heap)},
};

const char *bench_path_name(const struct bench_settings *settings)
{
    return path_names[settings->path];
}

int bench_work_path(const struct bench_settings *settings, const char *name, char *path_out,
                    size_t len_bytes)
{
    char folder[CFSR_PATH_MAX];

    if (settings->work_dir[0] != '\0')
        snprintf(folder, sizeof folder, "%s", settings->work_dir);
    else
        snprintf(folder, sizeof folder, "%.*s.bench", (int)sizeof folder - 16, settings->data_dir);
    if (mkdir(folder, 0755) != 0 && errno != EEXIST)
        return cfsr_fail(-errno, "cannot make %s for the bench's files", folder);
    if ((size_t)snprintf(path_out, len_bytes, "%s/%s", folder, name) >= len_bytes)
        return cfsr_fail(-ENAMETOOLONG, "the path of %s is too long: give another --work-dir",
                         folder);
    return 0;
}

static int bench_all(const struct bench_settings *settings, struct bench_report *report)
{
    int (*const parts[])(const struct bench_settings *, struct bench_report *) = {
        bench_stages,    bench_floor_crc, bench_ping,   bench_journal,
        bench_transport, bench_e2e,       bench_latency};
    int first_rc = 0;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(parts); i++) {
        int rc = parts[i](settings, report);

        if (rc >= 0)
            continue;
        bench_report_text(report, "failed", cfsr_error_message());
        if (first_rc == 0)
            first_rc = rc;
    }
    return first_rc;
}

static const struct bench_command commands[] = {
    {"stages", "Each stage of the pipeline alone, on the corpus.", true, bench_stages},
    {"floor", "The straight-line program: read, LZ4, HMAC, TCP, HMAC, check, write, fdatasync.",
     true, bench_floor},
    {"floor+crc", "The same with the CRC of every record checked on both sides, and both compared.",
     true, bench_floor_crc},
    {"ping", "One record written and synced at A, sent, written and synced at B, acknowledged.",
     true, bench_ping},
    {"journal", "Appends with group commit against plain write + fdatasync.", true, bench_journal},
    {"transport",
     "Frames through the transport table: tcp, rdma and null, throughput and round trips.", false,
     bench_transport},
    {"e2e", "Two daemons, from link up to caught up, against the floor in the same run.", true,
     bench_e2e},
    {"latency", "Append at A until B's durable ack, against the floor's ping in the same run.",
     true, bench_latency},
    {"all", "All of these, one after the other.", true, bench_all},
};

static void print_usage(FILE *out)
{
    fprintf(out, "Usage: cfs-repl-bench COMMAND [OPTION...]\n\n"
                 "Measures cfs-repl beside what this machine can do at best.\n\nCommands:\n");
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n'cfs-repl-bench COMMAND --help' lists the options. scripts/bench makes a "
                 "corpus and runs them all.\n");
}

static int run_command(const struct bench_command *command, const struct bench_settings *settings)
{
    struct bench_corpus corpus;
    struct bench_report *report;
    int rc;

    if (command->needs_corpus) {
        if (settings->data_dir[0] == '\0')
            return cfsr_fail(
                -CFSR_E_USAGE,
                "%s needs a corpus: give --data-dir of a site with an imported journal",
                command->name);
        rc = bench_make_corpus(settings);
        if (rc < 0)
            return rc;
        rc = bench_corpus_open(settings->data_dir, &corpus);
        if (rc < 0)
            return rc;
    }
    rc = bench_report_create(settings, command->name, command->needs_corpus ? &corpus : NULL,
                             &report);
    if (command->needs_corpus)
        bench_corpus_close(&corpus);
    if (rc < 0)
        return rc;
    rc = command->run(settings, report);
    bench_report_finish(report, rc);
    return rc;
}

static int find_and_run(int argc, char *const *argv)
{
    static struct bench_settings settings;
    struct cfsr_option_set set = {
        .program = "cfs-repl-bench", .options = options, .count = CFSR_ARRAY_LEN(options)};
    const struct bench_command *command = NULL;
    struct cfsr_option_origins origins;
    int rc;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            command = &commands[i];
    if (command == NULL)
        return cfsr_fail(-CFSR_E_USAGE, "unknown command '%s': see cfs-repl-bench --help", argv[1]);
    set.command = command->name;
    set.synopsis = "[OPTION...]";
    set.summary = command->summary;
    rc = cfsr_options_defaults(&set, &settings, sizeof settings, &origins);
    if (rc >= 0)
        rc = cfsr_options_flags(&set, &settings, &origins, argc - 2, argv + 2);
    if (rc == 1) {
        cfsr_options_help(&set, stdout);
        return 0;
    }
    if (rc >= 0)
        rc = cfsr_security_init();
    return rc < 0 ? rc : run_command(command, &settings);
}

int main(int argc, char **argv)
{
    int rc;

    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("cfs-repl-bench %s\n%s\n", cfsr_version(), cfsr_security_versions());
        return 0;
    }
    rc = find_and_run(argc, argv);
    if (rc >= 0)
        return 0;
    fprintf(stderr, "cfs-repl-bench: %s\n",
            cfsr_error_message()[0] != '\0' ? cfsr_error_message() : cfsr_strerror(rc));
    return rc == -CFSR_E_USAGE ? 2 : 1;
}
