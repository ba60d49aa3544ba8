/*
 * bench.h - cfs-repl-bench: settings, subcommands, and what they share.
 *
 * One process, one thread, unless a subcommand says otherwise. Every subcommand gets the settings
 * and a report and returns 0, or a negative error with its message set. Figures: MB and GB are 10^6
 * and 10^9 bytes; "raw" is record bytes before compression.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/corpus.h"
#include "bench/report.h"
#include "journal/site.h"

#define BENCH_DEFAULT_PORT 7431

enum bench_poll {
    BENCH_POLL_YIELD,
    BENCH_POLL_SPIN,
    BENCH_POLL_SLEEP
};

enum bench_path {
    BENCH_PATH_TCP,
    BENCH_PATH_RDMA
};

struct bench_settings {
    char data_dir[CFSR_PATH_MAX];    /* the corpus: a site's data directory, imported before */
    char work_dir[CFSR_PATH_MAX];    /* where runs write; "" : DATA_DIR.bench */
    char make_corpus[CFSR_PATH_MAX]; /* tar to import when data_dir holds no site yet; "" : none */
    uint64_t min_records;            /* the tar is imported as often as it takes */
    uint64_t fill_bytes;             /* then its entries are appended again up to this; 0: not */
    bool with_data;                  /* import contents too */
    uint32_t lanes;                  /* of a corpus made here */
    bool json;
    bool crc;          /* floor: check record CRCs on both sides */
    uint32_t runs;     /* of which the median counts */
    uint64_t run_us;   /* least duration of one throughput run */
    uint64_t stage_us; /* the same for one run of one stage */
    uint32_t pings;    /* of one latency run */
    uint64_t gap_us;   /* pause between pings */
    uint32_t block_bytes;
    uint32_t frame_bytes, depth; /* transport */
    char rdma_address[64];       /* of this machine's RDMA device; transport: over RDMA too;
                                    "": none */
    uint64_t sample_bytes;       /* stages: records held in memory */
    uint32_t cpu_a, cpu_b;
    int path;              /* enum bench_path; e2e, latency: what carries the links */
    int poll;              /* enum bench_poll */
    bool live;             /* e2e: a producer appends during the run */
    bool no_floor;         /* e2e, latency: leave the floor runs out */
    char compress[32];     /* e2e: as the daemon's flag */
    char serve_args[1024]; /* e2e, latency: more flags for both daemons, separated by spaces */
    uint32_t port;         /* e2e, latency: PORT and PORT + 1 */
    char count_heap[CFSR_PATH_MAX]; /* e2e: the malloc counter's shared object; "" : beside the
                                       program */
};

struct bench_command {
    const char *name;
    const char *summary;
    bool needs_corpus;
    int (*run)(const struct bench_settings *settings, struct bench_report *report);
};

int bench_stages(const struct bench_settings *settings, struct bench_report *report);
int bench_floor(const struct bench_settings *settings, struct bench_report *report);
int bench_floor_crc(const struct bench_settings *settings, struct bench_report *report);
int bench_ping(const struct bench_settings *settings, struct bench_report *report);
int bench_journal(const struct bench_settings *settings, struct bench_report *report);
int bench_transport(const struct bench_settings *settings, struct bench_report *report);
int bench_e2e(const struct bench_settings *settings, struct bench_report *report);
int bench_latency(const struct bench_settings *settings, struct bench_report *report);

/* What carries the links, as schemes and status documents name it: "tcp", "rdma". */
const char *bench_path_name(const struct bench_settings *settings);

/* work_dir, made if it is not there; path_out gets "WORK/NAME". */
int bench_work_path(const struct bench_settings *settings, const char *name, char *path_out,
                    size_t len_bytes);

#endif
