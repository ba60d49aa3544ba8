/*
 * run_writer.c - eight producers and two live readers on one journal, without a test framework: for
 * ThreadSanitizer. Exit 0 if every entry was read once, in order, by both readers.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support.h"
#include <cfsrepl/reader.h>

#define PRODUCERS 8
#define ENTRIES   400

struct worker {
    const struct cfsr_site *site;
    struct cfsr_journal *journal;
    uint32_t index;
    int failed;
};

static void *produce(void *argument)
{
    struct worker *worker = argument;

    for (uint32_t i = 0; i < ENTRIES; i++)
        (void)test_append(worker->journal, worker->index, i + 1, 10 + 37 * (i % 60));
    return NULL;
}

static void *follow(void *argument)
{
    struct worker *worker = argument;
    uint64_t next_seq[PRODUCERS] = {0};
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    unsigned entries = 0;
    int rc;

    worker->failed = 1;
    if (cfsr_reader_open(worker->site->data_dir, 0, 0, &reader) < 0)
        return NULL;
    while (entries < PRODUCERS * ENTRIES) {
        rc = cfsr_reader_next(reader, &view);
        if (rc == 0)
            rc = cfsr_reader_wait(reader, 30000) == 1 ? 0 : -1;
        else if (rc == 1 && view.op <= 10 && view.seq != ++next_seq[view.shard_id])
            rc = -1;
        if (rc < 0)
            goto close_reader;
        entries += rc == 1 && view.op <= 10;
    }
    worker->failed = 0;
close_reader:
    if (worker->failed)
        (void)fprintf(stderr, "reader %" PRIu32 " after %u entries: %s\n", worker->index, entries,
                      cfsr_error_message());
    cfsr_reader_close(reader);
    return NULL;
}

int main(void)
{
    struct worker workers[PRODUCERS + 2];
    pthread_t threads[PRODUCERS + 2];
    struct cfsr_journal *journal;
    struct cfsr_site site;
    int failed = 0;

    test_site_make(&site, 1, PRODUCERS);
    journal = test_journal_open(&site);
    for (uint32_t i = 0; i < PRODUCERS + 2; i++) {
        workers[i] = (struct worker){.site = &site, .journal = journal, .index = i};
        if (pthread_create(&threads[i], NULL, i < PRODUCERS ? produce : follow, &workers[i]) != 0)
            return 1;
    }
    for (uint32_t i = 0; i < PRODUCERS + 2; i++) {
        (void)pthread_join(threads[i], NULL);
        failed |= workers[i].failed;
    }
    failed |= cfsr_journal_close(journal) != 0;
    test_site_remove(&site);
    return failed;
}
