/*
 * report.c - prints and collects figures.
 *
 * Thread: the program's only one. Rejected: printing JSON as it comes (a reader wants one object),
 * a table at the end (a run takes minutes, people want to see it move).
 */
#include "bench/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <jansson.h>
#include <lz4.h>
#include <zstd.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/units.h"
#include "bench/bench.h"
#include "security/digest.h"
#include "security/mac.h"
#include <cfsrepl/error.h>
#include <cfsrepl/version.h>

struct bench_report {
    bool json;
    bool heading_due; /* column names come before the first figure of a section */
    json_t *root;
    json_t *results;
    char section[64];
};

static void put_text(struct bench_report *report, json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_string(text));
    if (!report->json)
        printf("%-12s %s\n", key, text);
}

static void processor_name(char *text_out, size_t len_bytes)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];

    snprintf(text_out, len_bytes, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');

        if (strncmp(line, "model name", 10) != 0 || value == NULL)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(text_out, len_bytes, "%s, %ld processors", value + 2,
                 sysconf(_SC_NPROCESSORS_ONLN));
        break;
    }
    if (file != NULL)
        fclose(file);
}

static void put_machine(struct bench_report *report)
{
    json_t *machine = json_object();
    struct utsname names;
    char text[320], when[40];

    json_object_set_new(report->root, "environment", machine);
    put_text(report, machine, "when", cfsr_format_time_us(cfsr_clock_wall_us(), when, sizeof when));
    snprintf(text, sizeof text, "cfs-repl-bench %s, built with %s", cfsr_version(), __VERSION__);
    put_text(report, machine, "program", text);
    processor_name(text, sizeof text);
    put_text(report, machine, "processor", text);
    if (uname(&names) == 0) {
        snprintf(text, sizeof text, "%s %s %s", names.sysname, names.release, names.machine);
        put_text(report, machine, "kernel", text);
    }
    snprintf(text, sizeof text, "LZ4 %s, Zstd %s, %s; digest: %s, CRC: %s", LZ4_versionString(),
             ZSTD_versionString(), cfsr_security_versions(), cfsr_digest_variant(),
             cfsr_crc32c_variant());
    put_text(report, machine, "libraries", text);
}

static void put_corpus(struct bench_report *report, const struct bench_settings *settings,
                       const struct bench_corpus *corpus)
{
    json_t *object = json_object();
    char text[CFSR_PATH_MAX + 256];

    json_object_set_new(report->root, "corpus", object);
    json_object_set_new(object, "data_dir", json_string(settings->data_dir));
    json_object_set_new(object, "raw_bytes", json_integer((json_int_t)corpus->raw_bytes));
    json_object_set_new(object, "entries", json_integer((json_int_t)corpus->entries));
    json_object_set_new(object, "lanes", json_integer(corpus->site.lanes));
    snprintf(text, sizeof text, "%s: %.3g M entries, %.1f MB raw, %.0f B each, %u lanes",
             settings->data_dir, (double)corpus->entries / 1e6, (double)corpus->raw_bytes / 1e6,
             (double)corpus->raw_bytes / (double)(corpus->entries > 0 ? corpus->entries : 1),
             corpus->site.lanes);
    if (!report->json)
        printf("%-12s %s\n", "corpus", text);
}

static void put_settings(struct bench_report *report, const struct bench_settings *settings)
{
    json_t *object = json_object();
    char text[512];

    json_object_set_new(report->root, "configuration", object);
    json_object_set_new(object, "runs", json_integer(settings->runs));
    json_object_set_new(object, "run_seconds", json_real((double)settings->run_us / 1e6));
    json_object_set_new(object, "block_bytes", json_integer(settings->block_bytes));
    json_object_set_new(object, "pings", json_integer(settings->pings));
    json_object_set_new(object, "gap_us", json_integer((json_int_t)settings->gap_us));
    json_object_set_new(object, "processors", json_pack("[i,i]", settings->cpu_a, settings->cpu_b));
    json_object_set_new(object, "path", json_string(bench_path_name(settings)));
    json_object_set_new(object, "compress", json_string(settings->compress));
    json_object_set_new(object, "serve_args", json_string(settings->serve_args));
    snprintf(text, sizeof text, "%u runs of %.1f s, %u KiB blocks, processors %u and %u%s%.300s",
             settings->runs, (double)settings->run_us / 1e6, settings->block_bytes >> 10,
             settings->cpu_a, settings->cpu_b,
             settings->serve_args[0] != '\0' ? ", daemons with " : "", settings->serve_args);
    if (!report->json)
        printf("%-12s %s\n", "runs", text);
}

int bench_report_create(const struct bench_settings *settings, const char *command,
                        const struct bench_corpus *corpus, struct bench_report **report_out)
{
    struct bench_report *report = calloc(1, sizeof *report);

    if (report == NULL)
        return -ENOMEM;
    report->json = settings->json;
    report->root = json_object();
    report->results = json_array();
    json_object_set_new(report->root, "command", json_string(command));
    put_machine(report);
    put_settings(report, settings);
    if (corpus != NULL)
        put_corpus(report, settings, corpus);
    json_object_set(report->root, "results", report->results);
    *report_out = report;
    return 0;
}

void bench_report_finish(struct bench_report *report, int rc)
{
    if (rc < 0) {
        json_object_set_new(report->root, "error", json_string(cfsr_error_name(rc)));
        json_object_set_new(report->root, "message", json_string(cfsr_error_message()));
    }
    if (report->json) {
        json_dumpf(report->root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
    }
    json_decref(report->results);
    json_decref(report->root);
    free(report);
}

void bench_report_section(struct bench_report *report, const char *name, const char *note)
{
    snprintf(report->section, sizeof report->section, "%s", name);
    report->heading_due = true;
    if (report->json)
        return;
    printf("\n%s\n", name);
    if (note[0] != '\0')
        printf("  %s\n", note);
}

static json_t *new_row(struct bench_report *report, const char *name, const char *unit)
{
    json_t *row = json_object();

    json_object_set_new(row, "section", json_string(report->section));
    json_object_set_new(row, "name", json_string(name));
    json_object_set_new(row, "unit", json_string(unit));
    json_array_append_new(report->results, row);
    return row;
}

static void print_heading(struct bench_report *report)
{
    if (!report->heading_due)
        return;
    report->heading_due = false;
    printf("  %-44s %11s %11s %11s  %s\n", "", "median", "least", "most", "unit");
}

/* Four digits that matter. */
static const char *number(double value, char *text_out, size_t len_bytes)
{
    double size = value < 0 ? -value : value;

    snprintf(text_out, len_bytes, "%.*f",
             size >= 1000  ? 0
             : size >= 100 ? 1
             : size >= 10  ? 2
                           : 3,
             value);
    return text_out;
}

void bench_report_series(struct bench_report *report, const char *name, const char *unit,
                         const struct bench_series *series)
{
    json_t *row = new_row(report, name, unit), *runs = json_array();
    char median[32], least[32], most[32];

    for (unsigned i = 0; i < series->count; i++)
        json_array_append_new(runs, json_real(series->value[i]));
    json_object_set_new(row, "median", json_real(bench_series_median(series)));
    json_object_set_new(row, "min", json_real(bench_series_min(series)));
    json_object_set_new(row, "max", json_real(bench_series_max(series)));
    json_object_set_new(row, "runs", runs);
    if (report->json)
        return;
    print_heading(report);
    printf("  %-44s %11s %11s %11s  %s\n", name,
           number(bench_series_median(series), median, sizeof median),
           number(bench_series_min(series), least, sizeof least),
           number(bench_series_max(series), most, sizeof most), unit);
    fflush(stdout);
}

void bench_report_value(struct bench_report *report, const char *name, const char *unit,
                        double value)
{
    json_t *row = new_row(report, name, unit);
    char text[32];

    json_object_set_new(row, "median", json_real(value));
    if (report->json)
        return;
    print_heading(report);
    printf("  %-44s %11s %23s  %s\n", name, number(value, text, sizeof text), "", unit);
    fflush(stdout);
}

void bench_report_text(struct bench_report *report, const char *name, const char *text)
{
    json_object_set_new(new_row(report, name, "text"), "text", json_string(text));
    if (!report->json)
        printf("  %-44s %s\n", name, text);
}

void bench_report_goal(struct bench_report *report, const char *name, const char *unit,
                       double value, enum bench_bound bound, double goal)
{
    bool met = bound == BENCH_AT_LEAST ? value >= goal : value <= goal;
    json_t *row = new_row(report, name, unit);
    char text[32], goal_text[32];

    json_object_set_new(row, "median", json_real(value));
    json_object_set_new(row, "bound",
                        json_string(bound == BENCH_AT_LEAST ? "at least" : "at most"));
    json_object_set_new(row, "goal", json_real(goal));
    json_object_set_new(row, "met", json_boolean(met));
    if (report->json)
        return;
    print_heading(report);
    printf("  %-44s %11s  %s  goal: %s %s: %s", name, number(value, text, sizeof text), unit,
           bound == BENCH_AT_LEAST ? "at least" : "at most",
           number(goal, goal_text, sizeof goal_text), met ? "met\n" : "missed");
    if (!met)
        printf(goal != 0 ? " by %.1f %%\n" : "\n", goal != 0 ? 100 * fabs(value - goal) / goal : 0);
    fflush(stdout);
}

void bench_report_progress(const struct bench_report *report, const char *text)
{
    (void)report;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K%s", text);
}
