/*
 * e2e.h - what the runs with two daemons share.
 */
#ifndef BENCH_E2E_H
#define BENCH_E2E_H

#include "bench/daemon.h"
#include "bench/measure.h"
#include <cfsrepl/journal.h>

struct e2e_side {
    double enters_per_mib;  /* io_uring_enter calls; a busy turn makes no other system call */
    double workers_per_mib; /* operations that may have gone to kernel workers: syncs, and what was
                               not done at once */
    double
        wakeups_per_mib; /* times a kernel worker went back to sleep: a lower bound of the items */
    double resident_mib; /* at its peak */
    double doorbells_per_mib; /* rdma: calls that gave work to the device */
};

struct e2e_result {
    double raw_mb_per_s, elapsed_s;
    double cpu_a_s_per_gb, cpu_b_s_per_gb, busy_s_per_gb;
    double wire_ratio, batches;
    double links_lost; /* connections A had to make again */
    struct e2e_side a, b;
    double heap_batches; /* counted over these; 0: not counted */
    double heap_core_a, heap_core_b, heap_other_a, heap_other_b;
};

struct e2e_series {
    struct bench_series throughput, elapsed, cpu_a, cpu_b, busy, wire, links_lost, enters_a,
        enters_b, workers_a, workers_b, wakeups_a, wakeups_b, resident_a, resident_b, doorbells_a,
        doorbells_b;
};

struct e2e_clock {
    double busy_s, cpu_a_s, cpu_b_s;
    uint64_t ns;
};
void e2e_clock_start(const struct bench_sites *sites, struct e2e_clock *clock_out);
void e2e_clock_stop(const struct bench_sites *sites, const struct e2e_clock *began,
                    uint64_t raw_bytes, struct e2e_result *result);

struct e2e_progress {
    void (*each)(void *user, int64_t acked);
    void *user;
};
/* Starts both daemons and waits for what e2e_wait() can wait for, limit_ns at most. */
int e2e_start_link(struct bench_sites *sites, bool count_heap, uint64_t limit_ns, bool until_done);
/* Until B's first ack of this run, or until B has everything. -CFSR_E_TIMEOUT; progress may be
 * NULL. */
int e2e_wait(struct bench_sites *sites, uint64_t limit_ns, bool until_done,
             struct e2e_progress *progress);

/* The live variant: a producer appends the corpus's entries to a fresh site A while the daemons
 * run. */
int e2e_live(const struct bench_settings *settings, struct bench_report *report);

/* A site with the corpus's shape in work_dir/live-a, its journal open for appending. Used by e2e
 * --live and by latency. */
int e2e_open_live_site(const struct bench_settings *settings, struct cfsr_site *site_out,
                       struct cfsr_journal **journal_out);

#endif
