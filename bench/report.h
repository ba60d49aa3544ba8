/*
 * report.h - figures as a table for people while they come, or as one JSON object at the end.
 */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/corpus.h"
#include "bench/measure.h"

struct bench_settings;
struct bench_report;

/* Says what is measured where: program, processor, kernel, library versions, settings, corpus (may
 * be NULL). -ENOMEM. */
int bench_report_create(const struct bench_settings *settings, const char *command,
                        const struct bench_corpus *corpus, struct bench_report **report_out);
/* Prints the JSON if that was asked for, with the error if rc is one. Frees. */
void bench_report_finish(struct bench_report *report, int rc);

/* A headed group of rows; note says how it was measured ("" : nothing to say). */
void bench_report_section(struct bench_report *report, const char *name, const char *note);
/* One figure of all runs: median, least, most. */
void bench_report_series(struct bench_report *report, const char *name, const char *unit,
                         const struct bench_series *series);
void bench_report_value(struct bench_report *report, const char *name, const char *unit,
                        double value);
void bench_report_text(struct bench_report *report, const char *name, const char *text);

enum bench_bound {
    BENCH_AT_LEAST,
    BENCH_AT_MOST
};
/* A figure with its goal; "met" or "missed by …" beside it. unit "x": a ratio. */
void bench_report_goal(struct bench_report *report, const char *name, const char *unit,
                       double value, enum bench_bound bound, double goal);

/* Progress on standard error, only when that is a terminal. */
void bench_report_progress(const struct bench_report *report, const char *text);

#endif
