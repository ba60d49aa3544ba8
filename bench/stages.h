/*
 * stages.h - what the stages share: blocks of the corpus in memory, and one way to time work on
 * them.
 */
#ifndef BENCH_STAGES_H
#define BENCH_STAGES_H

#include "bench/bench.h"
#include "bench/measure.h"
#include "pipeline/batch.h"

/* A block: whole records, cut as the daemon's sender cuts batches. */
struct stage_block {
    const uint8_t *raw;
    uint32_t raw_bytes;
    uint8_t *stored; /* room for raw_bytes and a little: what a stage before left */
    uint32_t stored_bytes;
    struct bench_block place;
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];
};

struct stage_set {
    const struct bench_settings *settings;
    const struct bench_corpus *corpus;
    struct bench_report *report;
    struct stage_block *blocks;
    unsigned count;
    uint64_t raw_bytes, stored_bytes;
    uint8_t *memory; /* raw and stored of all blocks */
    size_t memory_bytes;
    uint8_t *scratch; /* one maximal block */
};

int stage_set_create(const struct bench_settings *settings, const struct bench_corpus *corpus,
                     struct bench_report *report, struct stage_set *set_out);
void stage_set_destroy(struct stage_set *set);

/* Work on one block; bytes that count for the speed, or an error. */
typedef int (*stage_work)(struct stage_set *set, struct stage_block *block, void *context);
/* Runs work over all blocks for stage_us, runs times, after one round that is not counted; reports
 * GB/s and s/GB. */
int stage_measure(struct stage_set *set, const char *name, stage_work work, void *context);

/* Groups of stages; each reports its rows. */
int stage_run_codecs(struct stage_set *set);  /* leaves the LZ4 form in stored */
int stage_run_signing(struct stage_set *set); /* needs it */
int stage_run_sealing(struct stage_set *set);
int stage_run_batches(struct stage_set *set);
int stage_run_socket(struct stage_set *set);
int stage_run_files(struct stage_set *set);

#endif
