/*
 * daemon.h - two real daemons on loopback: site A with the journal, site B with an inbox that is
 * filled and emptied again.
 */
#ifndef BENCH_DAEMON_H
#define BENCH_DAEMON_H

#include <sys/types.h>

#include <jansson.h>

#include "bench/bench.h"
#include "journal/status_page.h"

/* What libcfsr-malloc-count.so counts, in a file both map (bench/malloc_count.c). */
struct bench_heap_counts {
    uint64_t core, other; /* calls by core threads, and by helpers and the control thread */
};

struct bench_site {
    struct cfsr_site site;
    uint32_t cpu, port;
    pid_t pid; /* 0: not running */
    char socket[CFSR_PATH_MAX + 32];
    char log[CFSR_PATH_MAX];
    volatile struct bench_heap_counts *heap; /* NULL: not counted */
};

struct bench_sites {
    const struct bench_settings *settings;
    struct bench_site a, b;
    char key_file[CFSR_PATH_MAX];
    struct cfsr_status_page *page; /* A's */
    int peer;                      /* B's index in it, -1: not known yet */
};

/* Loads the site in its data_dir; makes it if there is none. */
int bench_site_open(struct cfsr_site *site);

/* A is the site in data_dir; B is made beside it (work_dir/NAME) if it is not there, with a key for
 * both. A path that this machine has not is an error here. */
int bench_sites_open(const struct bench_settings *settings, const char *data_dir, const char *name,
                     struct bench_sites *sites_out);
/* Stops what still runs. */
void bench_sites_close(struct bench_sites *sites);

/*
 * Empties B: its segments are overwritten with zeros and kept as free files, so that the next run
 * writes to disk blocks and files that were written before, as after a while in production. A
 * forgets what B had. Neither runs.
 */
int bench_sites_reset(struct bench_sites *sites);

/* Starts one daemon; the other one is its peer. count_heap: with the malloc counter. */
int bench_daemon_start(struct bench_sites *sites, struct bench_site *site, bool count_heap);
/* SIGTERM; -CFSR_E_FAILED unless it ends with 0. */
int bench_daemon_stop(struct bench_site *site);
/* The status document; the caller owns it. Waits up to a minute for a daemon that starts. */
int bench_daemon_status(const struct bench_site *site, json_t **status_out);
/* -CFSR_E_FAILED with the log's path if it ended by itself. */
int bench_daemon_check(const struct bench_site *site);

/* -CFSR_E_FAILED unless A's link is carried by what the settings ask for. Both run. */
int bench_sites_check_path(const struct bench_sites *sites);

/* Bytes of A that B has durably, over all lanes; -1 until B said it in this run. done_out: that is
 * all A has. */
int64_t bench_sites_acked(struct bench_sites *sites, bool *done_out);

#endif
