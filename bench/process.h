/*
 * process.h - the programs of cfs-repl, started from where this one stands.
 */
#ifndef BENCH_PROCESS_H
#define BENCH_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

#include "bench/bench.h"

#define BENCH_ARGS_MAX 64

/* Path of a file beside this program. */
int bench_sibling(const char *name, char *path_out, size_t len_bytes);

/*
 * Starts cfs-repl with these arguments (NULL at the end); its output goes to log_path (appended),
 * or nowhere if NULL. environment: "NAME=VALUE" strings to add, NULL at the end; may be NULL
 * itself. The child dies with this process. pid or -errno.
 */
pid_t bench_start(const char *const *arguments, const char *log_path,
                  const char *const *environment);
/* Exit status of a started program, or -errno; 128 + signal if one ended it. */
int bench_wait(pid_t pid);
/* Starts and waits; -CFSR_E_FAILED with message (and the log's path) unless it exits with 0. */
int bench_call(const char *const *arguments, const char *log_path);
/* SIGTERM, then up to 30 s, then SIGKILL; the exit status. */
int bench_stop(pid_t pid);

/* Does what --make-corpus asks for: nothing if it is not given or the data directory holds a site.
 */
int bench_make_corpus(const struct bench_settings *settings);

#endif
