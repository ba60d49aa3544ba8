/*
 * cmd_stages.c - `stages`: each stage of the pipeline alone, one thread, on the corpus.
 *
 * Thread: the program's only one, bound to cpu_a (the socket stages fork). Blocks come from memory
 * that is larger than the caches, as they do in the daemon, but nothing else competes for them: the
 * sum of stages is a lower bound of the whole.
 */
#include "bench/stages.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"

/* Beyond raw_bytes: incompressible data grows a little in raw LZ4 and Zstd calls. */
#define STORED_EXTRA_BYTES 4096

static int add_block(struct stage_set *set, struct bench_corpus_cursor *cursor, size_t *used)
{
    struct stage_block *block = &set->blocks[set->count];
    uint8_t *raw = set->memory + *used;
    struct cfsr_scan scan;
    int rc = bench_corpus_read(cursor, raw, set->settings->block_bytes, &block->place);

    if (rc < 0)
        return rc;
    bench_corpus_scan_init(set->corpus, &block->place, raw, &scan);
    rc = cfsr_record_scan(&scan);
    if (rc < 0 || scan.raw_bytes == 0)
        return cfsr_fail(rc < 0 ? rc : -CFSR_E_TOO_LARGE,
                         "--block-size is smaller than a record of the corpus");
    bench_corpus_unread(cursor, &block->place, block->place.len_bytes - scan.raw_bytes);
    block->place.len_bytes = scan.raw_bytes;
    block->raw = raw;
    block->raw_bytes = scan.raw_bytes;
    block->stored = raw + set->settings->block_bytes;
    *used += 2 * (size_t)set->settings->block_bytes + STORED_EXTRA_BYTES;
    set->raw_bytes += scan.raw_bytes;
    set->count++;
    return 0;
}

int stage_set_create(const struct bench_settings *settings, const struct bench_corpus *corpus,
                     struct bench_report *report, struct stage_set *set_out)
{
    struct stage_set set = {.settings = settings, .corpus = corpus, .report = report};
    struct bench_corpus_cursor cursor = {.corpus = corpus};
    uint64_t wanted = settings->sample_bytes < corpus->raw_bytes ? settings->sample_bytes
                                                                 : corpus->raw_bytes;
    size_t capacity = wanted / settings->block_bytes + corpus->extent_count + 1, used = 0;
    int rc = 0;

    set.memory_bytes = capacity * (2 * (size_t)settings->block_bytes + STORED_EXTRA_BYTES);
    set.memory = bench_map(set.memory_bytes, false);
    set.scratch = bench_map(CFSR_BATCH_BODY_MAX_BYTES + STORED_EXTRA_BYTES, false);
    set.blocks = calloc(capacity, sizeof *set.blocks);
    if (set.memory == NULL || set.scratch == NULL || set.blocks == NULL)
        rc = cfsr_fail(-ENOMEM, "no memory for the sample: give a smaller --sample");
    while (rc >= 0 && set.raw_bytes < wanted && set.count < capacity)
        rc = add_block(&set, &cursor, &used);
    if (rc < 0) {
        stage_set_destroy(&set);
        return rc;
    }
    *set_out = set;
    return 0;
}

void stage_set_destroy(struct stage_set *set)
{
    bench_unmap(set->memory, set->memory_bytes);
    bench_unmap(set->scratch, CFSR_BATCH_BODY_MAX_BYTES + STORED_EXTRA_BYTES);
    free(set->blocks);
}

static int measure_once(struct stage_set *set, stage_work work, void *context, uint64_t duration_ns,
                        double *gb_per_s_out, double *s_per_gb_out)
{
    uint64_t began_ns = cfsr_clock_monotonic_ns(), elapsed_ns, bytes = 0;
    double cpu_s = bench_cpu_thread_s();

    do
        for (unsigned i = 0; i < set->count; i++) {
            int rc = work(set, &set->blocks[i], context);

            if (rc < 0)
                return rc;
            bytes += (unsigned)rc;
        }
    while ((elapsed_ns = cfsr_clock_monotonic_ns() - began_ns) < duration_ns);
    *gb_per_s_out = (double)bytes / (double)elapsed_ns;
    *s_per_gb_out = (bench_cpu_thread_s() - cpu_s) / ((double)bytes / 1e9);
    return 0;
}

int stage_measure(struct stage_set *set, const char *name, stage_work work, void *context)
{
    struct bench_series speed = {0}, cost = {0};
    double gb_per_s = 0, s_per_gb = 0;
    char row[96];
    int rc;

    bench_report_progress(set->report, name);
    rc = measure_once(set, work, context, 0, &gb_per_s, &s_per_gb);
    for (uint32_t run = 0; run < set->settings->runs && rc >= 0; run++) {
        rc = measure_once(set, work, context, set->settings->stage_us * 1000, &gb_per_s, &s_per_gb);
        bench_series_add(&speed, gb_per_s);
        bench_series_add(&cost, s_per_gb);
    }
    bench_report_progress(set->report, "");
    if (rc < 0)
        return cfsr_fail_context(rc, "stage %s", name);
    bench_report_series(set->report, name, "GB/s", &speed);
    snprintf(row, sizeof row, "%s, processor", name);
    bench_report_series(set->report, row, "s/GB", &cost);
    return 0;
}

static int read_block(struct stage_set *set, struct stage_block *block, void *context)
{
    struct bench_block place;

    (void)block;
    return bench_corpus_read(context, set->scratch, set->settings->block_bytes, &place);
}

static int scan_block(struct stage_set *set, struct stage_block *block, void *context)
{
    struct cfsr_scan scan;
    int rc;

    (void)context;
    bench_corpus_scan_init(set->corpus, &block->place, block->raw, &scan);
    rc = cfsr_record_scan(&scan);
    return rc < 0 ? rc : (int)block->raw_bytes;
}

/* With the order of seqs checked too, which the receiver does. */
static int scan_block_order(struct stage_set *set, struct stage_block *block, void *context)
{
    struct cfsr_scan scan;
    int rc;

    memset(context, 0, (set->corpus->site.shards / set->corpus->site.lanes + 1) * sizeof(uint64_t));
    bench_corpus_scan_init(set->corpus, &block->place, block->raw, &scan);
    scan.next_seq = context;
    rc = cfsr_record_scan(&scan);
    return rc < 0 ? rc : (int)block->raw_bytes;
}

static int copy_block(struct stage_set *set, struct stage_block *block, void *context)
{
    (void)context;
    memcpy(set->scratch, block->raw, block->raw_bytes);
    return (int)block->raw_bytes;
}

static int run_reading(struct stage_set *set)
{
    struct bench_corpus_cursor cursor = {.corpus = set->corpus};
    uint64_t *next_seq = calloc(set->corpus->site.shards / set->corpus->site.lanes + 1,
                                sizeof *next_seq);
    int rc = next_seq == NULL ? -ENOMEM : 0;

    bench_report_section(set->report, "stages: reading", "per raw byte; one thread");
    if (rc >= 0)
        rc = stage_measure(set, "memcpy", copy_block, NULL);
    if (rc >= 0)
        rc = stage_measure(set, "read, pread of the page cache", read_block, &cursor);
    if (rc >= 0)
        rc = stage_measure(set, "CRC scan", scan_block, NULL);
    if (rc >= 0)
        rc = stage_measure(set, "CRC and order scan", scan_block_order, next_seq);
    free(next_seq);
    return rc;
}

/* A stage that fails is said in its place; the others still count. */
static int run_groups(struct stage_set *set)
{
    int (*const groups[])(struct stage_set *) = {
        run_reading,       stage_run_codecs, stage_run_signing, stage_run_sealing,
        stage_run_batches, stage_run_socket, stage_run_files};
    int first_rc = 0;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(groups); i++) {
        int rc = groups[i](set);

        if (rc >= 0)
            continue;
        bench_report_text(set->report, "failed", cfsr_error_message());
        first_rc = first_rc < 0 ? first_rc : rc;
    }
    return first_rc;
}

int bench_stages(const struct bench_settings *settings, struct bench_report *report)
{
    struct bench_corpus corpus;
    struct stage_set set;
    int rc = bench_corpus_open(settings->data_dir, &corpus);

    if (rc < 0)
        return rc;
    bench_pin(settings->cpu_a);
    rc = stage_set_create(settings, &corpus, report, &set);
    if (rc >= 0) {
        rc = run_groups(&set);
        stage_set_destroy(&set);
    }
    bench_unpin();
    bench_corpus_close(&corpus);
    return rc;
}
