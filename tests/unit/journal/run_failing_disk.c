/*
 * run_failing_disk.c - producers on two lanes while syncs fail now and then, without a test
 * framework: for ThreadSanitizer. Exit 0 if every acknowledged entry is in the journal once and in
 * order, no refused one is (but for the first of several), and no failed descriptor was used again.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faulty.h"
#include "journal/verify.h"
#include "journal/writer_internal.h"
#include "support.h"
#include <cfsrepl/reader.h>

#define PRODUCERS 6
#define ROUNDS    1500
#define FAILURES  5

struct worker {
    struct cfsr_journal *journal;
    uint32_t index;
    unsigned refused;
    int failed;
    bool acked[ROUNDS];
};

static uint64_t inode_of(uint32_t worker, unsigned round, unsigned entry)
{
    return ((uint64_t)worker << 40) | ((uint64_t)round << 8) | entry;
}

static unsigned entries_of(unsigned round)
{
    return 1 + round % 3;
}

static void *produce(void *argument)
{
    static const uint8_t payload[1500];
    struct worker *worker = argument;

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct cfsr_entry entries[3];
        int rc;

        for (unsigned i = 0; i < entries_of(round); i++)
            entries[i] = (struct cfsr_entry){.shard_id = worker->index,
                                             .inode = inode_of(worker->index, round, i),
                                             .op = CFSR_OP_WRITE,
                                             .flags = CFSR_ENTRY_OPAQUE,
                                             .payload = payload,
                                             .payload_bytes = round * 37 % sizeof payload};
        rc = cfsr_journal_append(worker->journal, entries, entries_of(round), NULL, NULL);
        worker->acked[round] = rc == 0;
        worker->refused += rc != 0;
        if (rc != 0 && rc != -CFSR_E_FAILED)
            worker->failed = rc;
        if (rc != 0)
            (void)usleep(5000);
    }
    return NULL;
}

struct breaker {
    struct faulty_fs *faulty;
    atomic_bool stop;
};

static void *break_disk(void *argument)
{
    struct breaker *breaker = argument;

    for (unsigned i = 0; i < FAILURES && !atomic_load(&breaker->stop); i++) {
        (void)usleep(40000);
        atomic_store(&breaker->faulty->sync_rc, -EIO);
        (void)usleep(5000);
        atomic_store(&breaker->faulty->sync_rc, 0);
    }
    return NULL;
}

/* Every entry of a lane in order, each producer's rounds ascending. 0 if all is as it must be. */
static int check_lane(const struct cfsr_site *site, const struct worker *workers, uint32_t lane,
                      unsigned (*found)[ROUNDS])
{
    uint64_t last[PRODUCERS] = {0};
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    int rc;

    if (cfsr_reader_open(site->data_dir, lane, 0, &reader) < 0)
        return 1;
    while ((rc = cfsr_reader_next(reader, &view)) == 1) {
        uint32_t worker = (uint32_t)(view.inode >> 40);
        unsigned round = (unsigned)(view.inode >> 8) & 0xffffffu;

        if (view.op > 10)
            continue;
        /* Of a refused append a prefix may be there: it was durable before a later one failed. */
        if (worker >= PRODUCERS || round >= ROUNDS || view.shard_id != worker ||
            view.inode + 1 <= last[worker] || (view.inode & 0xff) != found[worker][round] ||
            (!workers[worker].acked[round] && found[worker][round] + 1 == entries_of(round))) {
            (void)fprintf(stderr, "entry %llx does not belong there\n",
                          (unsigned long long)view.inode);
            rc = -1;
            break;
        }
        last[worker] = view.inode + 1;
        found[worker][round]++;
    }
    cfsr_reader_close(reader);
    return rc != 0;
}

int main(void)
{
    struct worker *workers = calloc(PRODUCERS, sizeof *workers);
    unsigned(*found)[ROUNDS] = calloc(PRODUCERS, sizeof *found);
    struct cfsr_journal_options options = {.opts_size = sizeof options};
    struct cfsr_verify_report report;
    struct cfsr_journal_stats stats;
    pthread_t threads[PRODUCERS + 1];
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct breaker breaker = {.faulty = &faulty};
    struct cfsr_site site;
    unsigned refused = 0;
    int failed = 0;

    faulty_fs_init(&faulty);
    test_site_make(&site, 2, PRODUCERS);
    options.data_dir = site.data_dir;
    if (workers == NULL || found == NULL ||
        cfsr_journal_open_on(&faulty.fs, &options, &journal) < 0)
        return 1;
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        workers[i].journal = journal;
        workers[i].index = i;
        if (pthread_create(&threads[i], NULL, produce, &workers[i]) != 0)
            return 1;
    }
    if (pthread_create(&threads[PRODUCERS], NULL, break_disk, &breaker) != 0)
        return 1;
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        (void)pthread_join(threads[i], NULL);
        failed |= workers[i].failed;
        refused += workers[i].refused;
    }
    atomic_store(&breaker.stop, true);
    (void)pthread_join(threads[PRODUCERS], NULL);
    cfsr_journal_stats(journal, &stats);
    for (unsigned i = 0; i < 500 && cfsr_journal_flush(journal) < 0; i++)
        (void)usleep(20000); /* the last failure may have come at the end */
    failed |= cfsr_journal_close(journal) != 0;
    for (uint32_t lane = 0; lane < 2; lane++)
        failed |= check_lane(&site, workers, lane, found);
    for (uint32_t i = 0; i < PRODUCERS; i++)
        for (unsigned round = 0; round < ROUNDS; round++)
            failed |= workers[i].acked[round] && found[i][round] != entries_of(round);
    failed |= cfsr_journal_verify(cfsr_fs_blocking(), &site, NULL, NULL, NULL, &report) != 0;
    failed |= report.verdict != CFSR_VERIFY_SOUND;
    failed |= atomic_load(&faulty.resync_count) != 0;
    failed |= refused == 0 || stats.reopened_lanes == 0;
    if (failed)
        (void)fprintf(stderr, "refused %u, reopened %llu, used again %d, damages %llu\n", refused,
                      (unsigned long long)stats.reopened_lanes, atomic_load(&faulty.resync_count),
                      (unsigned long long)report.damages);
    test_site_remove(&site);
    free(found);
    free(workers);
    return failed != 0;
}
