/* Mending a lane on real files while its writer appends and recycles segments. */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "journal/lane_lock.h"
#include "journal/repair.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"
#include "journal/verify.h"
#include "support.h"

#define BUFFER_BYTES (CFSR_RECORD_MAX_BYTES + 8)

struct producer {
    struct cfsr_journal *journal;
    pthread_t thread;
    atomic_bool stop;
};

static void *produce(void *argument)
{
    struct producer *producer = argument;

    for (uint64_t i = 1; !atomic_load(&producer->stop); i++)
        (void)test_append(producer->journal, 0, i, 3000 + (uint32_t)(i * 7919 % 40000));
    return NULL;
}

struct live {
    struct cfsr_site site;
    struct cfsr_status_page *page;
    struct cfsr_fs *fs;
    uint64_t random;
    int peer;
    uint64_t committed_lsn;
    uint8_t buffer[BUFFER_BYTES];
    struct cfsr_scan scan; /* what buffer holds */
};

static uint64_t next_random(struct live *live)
{
    live->random = live->random * 6364136223846793005u + 1442695040888963407u;
    return live->random >> 33;
}

/* Takes a run of records from some segments back: where retention may be at work, or just written.
 * 0, 1: nothing there, or the error. */
static int take_run(struct live *live, unsigned round)
{
    uint64_t back = (round % 5) * (3u << 19), lsn;
    unsigned hops = round % 4;

    live->committed_lsn = cfsr_status_page_committed(live->page, 0);
    if (live->committed_lsn == 0)
        return 1;
    lsn = live->committed_lsn > back ? live->committed_lsn - back - 1 : 0;
    lsn = cfsr_segment_first_lsn(&live->site, lsn);
    for (unsigned hop = 0;; hop++) {
        int rc = cfsr_journal_read_run(live->fs, &live->site, 0, lsn, live->committed_lsn, 0,
                                       live->buffer, sizeof live->buffer, &live->scan);

        if (rc < 0 || live->scan.record_count == 0)
            return rc < 0 ? rc : 1;
        if (hop == hops)
            return 0;
        lsn = live->scan.next_lsn;
    }
}

/* Spoils some bytes of the run; under the repair lock, so that the segment is not another one when
 * it is done. False: it could not be. */
static bool spoil(struct live *live, unsigned round)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file, *lock;
    uint64_t offset;
    uint8_t junk[16];
    int rc;

    if (cfsr_lane_repair_lock(live->fs, &live->site, 0, &lock) < 0)
        return false;
    cfsr_segment_path(&live->site, 0, live->scan.lsn, path, sizeof path);
    rc = cfsr_file_open(live->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);
    if (rc == 0) {
        memset(junk, (int)round, sizeof junk);
        offset = cfsr_segment_file_offset(&live->site, live->scan.lsn) +
                 next_random(live) % (live->scan.raw_bytes - sizeof junk);
        cr_assert(cfsr_file_pwrite(file, junk, sizeof junk, offset, false) >= 0);
        cfsr_file_close(file);
    }
    cfsr_file_close(lock);
    return rc == 0;
}

Test(journal_repair_live, a_lane_is_mended_while_its_writer_appends_and_recycles, .timeout = 220)
{
    static struct live live;
    struct cfsr_journal_stats stats;
    struct producer producer = {0};
    struct cfsr_verify_report report;
    unsigned mended = 0, gone = 0;

    live.fs = cfsr_fs_blocking();
    live.random = 99;
    test_site_make(&live.site, 1, 1);
    producer.journal = test_journal_open(&live.site);
    cr_assert(cfsr_status_page_open(&live.site, &live.page) == 0);
    live.peer = cfsr_status_page_register_peer(live.page, 9);
    cr_assert(live.peer >= 0);
    cfsr_status_page_set_acked(live.page, live.peer, 0, 0);
    cr_assert(pthread_create(&producer.thread, NULL, produce, &producer) == 0);
    for (unsigned round = 0; mended < 60 || gone < 1; round++) {
        uint64_t end_lsn;
        int rc;

        cr_assert(round < 200000, "%u mended, %u gone", mended, gone);
        rc = take_run(&live, round);
        /* Now and then a peer acks everything: its segments are recycled under the repair. */
        if (round % 32 == 31)
            cfsr_status_page_set_acked(live.page, live.peer, 0, live.committed_lsn);
        if (rc == 0 && !spoil(&live, round))
            continue;
        while (rc == 0) {
            rc = cfsr_journal_rewrite(live.fs, &live.site, 0, live.committed_lsn, live.scan.lsn,
                                      live.buffer, live.scan.raw_bytes, &end_lsn);
            mended += rc == 0;
            if (rc == 0)
                break;
            rc = rc == -CFSR_E_LOCKED ? 0 : rc;
        }
        gone += rc == -CFSR_E_GONE;
        cr_assert(rc == 0 || rc == 1 || rc == -CFSR_E_GONE, "%d %s", rc, cfsr_error_message());
        if (rc != 0)
            (void)usleep(2000);
    }
    atomic_store(&producer.stop, true);
    (void)pthread_join(producer.thread, NULL);
    cfsr_journal_stats(producer.journal, &stats);
    cr_assert(stats.recycled_segments > 0);
    cr_assert(cfsr_journal_verify(live.fs, &live.site, live.page, NULL, NULL, &report) == 0);
    cr_assert(report.damages == 0);
    cr_assert(cfsr_journal_close(producer.journal) == 0);
    cfsr_status_page_close(live.page);
    test_site_remove(&live.site);
}
