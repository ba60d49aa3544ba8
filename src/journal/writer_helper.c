/*
 * writer_helper.c - the writer's helper thread: spares ahead of need, retention, trailing MARKs.
 *
 * Thread:     one, started by open and joined by close.
 * Invariants: it never holds a lane's mutex while it makes a spare; it sleeps without time-outs
 * shorter than a second unless some lane's last group has no MARK behind it yet. Rejected:   a
 * timer per lane (64 timers to wake for what one pass over the lanes sees).
 */
#include "journal/writer_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

#define HOUSEKEEPING_NS 1000000000ull

void cfsr_writer_helper_poke(struct cfsr_journal *journal)
{
    if (!atomic_load(&journal->helper_idle) || !atomic_exchange(&journal->helper_idle, false))
        return;
    pthread_mutex_lock(&journal->helper_mutex);
    pthread_cond_signal(&journal->helper_wake);
    pthread_mutex_unlock(&journal->helper_mutex);
}

static bool any_uncovered(const struct cfsr_journal *journal)
{
    for (uint32_t lane = 0; lane < journal->site.lanes; lane++)
        if (atomic_load(&journal->lanes[lane].uncovered))
            return true;
    return false;
}

/* Lanes that went idle get the MARK that says so. */
static void cover_idle_lanes(struct cfsr_journal *journal)
{
    for (uint32_t lane_id = 0; lane_id < journal->site.lanes; lane_id++) {
        struct cfsr_writer_lane *lane = &journal->lanes[lane_id];
        uint64_t quiet_ns = cfsr_clock_monotonic_ns() - atomic_load(&lane->last_commit_ns);

        if (!atomic_load(&lane->uncovered) || quiet_ns < journal->idle_mark_ns / 2)
            continue;
        pthread_mutex_lock(&lane->mutex);
        if (atomic_load(&lane->uncovered) && !lane->failed &&
            cfsr_writer_mark(journal, lane, 0, true) < 0)
            atomic_store(&lane->uncovered,
                         false); /* no space: the next append tries again and reports */
        pthread_mutex_unlock(&lane->mutex);
    }
}

/* When the segment was begun; 0 if its header cannot be read (then it is as old as can be). */
static uint64_t created_us(const struct cfsr_journal *journal, uint32_t lane, uint64_t first_lsn)
{
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_segment_header header = {0};
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;

    cfsr_segment_path(&journal->site, lane, first_lsn, path, sizeof path);
    if (cfsr_file_open(journal->fs, path, CFSR_OPEN_READ, &file) < 0)
        return 0;
    if (cfsr_file_pread(file, block, sizeof block, 0) == (int)sizeof block)
        (void)cfsr_segment_header_load(&journal->site, block, lane, first_lsn, &header);
    cfsr_file_close(file);
    return header.created_us;
}

static int remove_segment(struct cfsr_journal *journal, uint32_t lane_id, uint64_t first_lsn,
                          bool forced)
{
    bool reused;
    int rc = cfsr_lane_file_recycle(&journal->lanes[lane_id].files, first_lsn, &reused);

    if (rc < 0) {
        cfsr_log(CFSR_LOG_WARN, "journal_gc_failed", CFSR_U("lane", lane_id), CFSR_ERR(rc));
        return rc;
    }
    atomic_fetch_add(reused ? &journal->recycled : &journal->removed, 1);
    if (forced) {
        atomic_fetch_add(&journal->forced, 1);
        cfsr_log(CFSR_LOG_WARN, "journal_retention_forced", CFSR_U("lane", lane_id),
                 CFSR_U("lsn", first_lsn));
    }
    return 0;
}

/* Bytes of all segments and spares of all lanes. */
static uint64_t journal_bytes(const struct cfsr_journal *journal,
                              const struct cfsr_segment_map *maps)
{
    uint64_t files = 0;

    for (uint32_t lane = 0; lane < journal->site.lanes; lane++)
        files += maps[lane].count + atomic_load(&journal->lanes[lane].files.spare_ready);
    return files * (CFSR_SEGMENT_HEADER_BYTES + journal->site.segment_bytes);
}

static void collect_lane(struct cfsr_journal *journal, uint32_t lane, struct cfsr_segment_map *maps,
                         bool acks_known)
{
    struct cfsr_segment_map *map = &maps[lane];
    struct cfsr_gc_facts facts = {.segment_bytes = journal->site.segment_bytes};

    facts.lowest_ack_lsn = acks_known ? cfsr_acks_lowest(&journal->acks, journal->page, lane)
                                      : CFSR_LSN_UNKNOWN;
    for (uint32_t i = 0; i + 1 < map->count; i++) {
        enum cfsr_gc_verdict verdict;

        facts.segment_count = map->count - i;
        facts.segment_end_lsn = map->lsns[i] + facts.segment_bytes;
        facts.finished_us = created_us(journal, lane, map->lsns[i + 1]);
        facts.now_us = cfsr_clock_wall_us();
        facts.journal_bytes = journal_bytes(journal, maps) -
                              i * (CFSR_SEGMENT_HEADER_BYTES + facts.segment_bytes);
        if (journal->fs->ops->space(journal->fs, journal->site.data_dir, &facts.free_bytes,
                                    &facts.total_bytes) < 0)
            return;
        verdict = cfsr_gc_judge(&journal->limits, &facts);
        if (verdict == CFSR_GC_KEEP ||
            remove_segment(journal, lane, map->lsns[i], verdict == CFSR_GC_REMOVE_FORCED) < 0)
            return;
    }
}

static void collect(struct cfsr_journal *journal)
{
    struct cfsr_segment_map maps[CFSR_LANES_MAX] = {0};
    bool acks_known = cfsr_acks_load(journal->fs, &journal->site, &journal->acks) == 0;
    uint32_t lane;
    int rc = 0;

    for (lane = 0; lane < journal->site.lanes && rc == 0; lane++)
        rc = cfsr_segment_map_load(journal->fs, &journal->site, lane, &maps[lane]);
    for (lane = 0; lane < journal->site.lanes && rc == 0; lane++)
        collect_lane(journal, lane, maps, acks_known);
    for (lane = 0; lane < journal->site.lanes; lane++)
        cfsr_segment_map_fini(&maps[lane]);
}

static void make_spares(struct cfsr_journal *journal)
{
    atomic_store(&journal->spare_wanted, false);
    for (uint32_t lane_id = 0; lane_id < journal->site.lanes; lane_id++) {
        struct cfsr_writer_lane *lane = &journal->lanes[lane_id];
        int rc;

        if (!atomic_load(&lane->wants_spare) || atomic_load(&lane->files.spare_ready))
            continue;
        rc = cfsr_lane_file_prepare_spare(&lane->files);
        if (rc < 0) /* tried again at the next housekeeping; an appender that cannot go on is told
                       then */
            cfsr_log(CFSR_LOG_WARN, "journal_spare_failed", CFSR_U("lane", lane_id), CFSR_ERR(rc));
    }
}

/* Sleeps until poked, or the next pass is due. True: stop. */
static bool helper_sleep(struct cfsr_journal *journal)
{
    uint64_t wait_ns = HOUSEKEEPING_NS;
    struct timespec until;
    bool stopping;

    pthread_mutex_lock(&journal->helper_mutex);
    atomic_store(&journal->helper_idle, true);
    if (any_uncovered(journal)) {
        atomic_store(&journal->helper_idle, false);
        wait_ns = cfsr_max_u64(journal->idle_mark_ns / 2, 500000);
    } else if (atomic_load(&journal->spare_wanted)) {
        wait_ns = 0;
    }
    if (!journal->stopping && wait_ns > 0) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)((wait_ns + (uint64_t)until.tv_nsec) / 1000000000u);
        until.tv_nsec = (long)((wait_ns + (uint64_t)until.tv_nsec) % 1000000000u);
        (void)pthread_cond_timedwait(&journal->helper_wake, &journal->helper_mutex, &until);
    }
    atomic_store(&journal->helper_idle, false);
    stopping = journal->stopping;
    pthread_mutex_unlock(&journal->helper_mutex);
    return stopping;
}

static void *helper_main(void *argument)
{
    struct cfsr_journal *journal = argument;
    uint64_t housekeeping_ns = cfsr_clock_monotonic_ns();

    while (!helper_sleep(journal)) {
        uint64_t now_ns = cfsr_clock_monotonic_ns();

        cover_idle_lanes(journal);
        if (atomic_load(&journal->spare_wanted) || now_ns - housekeeping_ns >= HOUSEKEEPING_NS) {
            collect(journal); /* first: what it frees becomes the spare */
            make_spares(journal);
            housekeeping_ns = now_ns;
        }
    }
    return NULL;
}

int cfsr_writer_helper_start(struct cfsr_journal *journal)
{
    pthread_condattr_t attributes;
    int rc;

    (void)pthread_mutex_init(&journal->helper_mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&journal->helper_wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    rc = pthread_create(&journal->helper, NULL, helper_main, journal);
    journal->helper_started = rc == 0;
    return rc == 0
               ? 0
               : cfsr_fail(-rc, "cannot start the journal's helper thread: %s", cfsr_strerror(-rc));
}

void cfsr_writer_helper_stop(struct cfsr_journal *journal)
{
    if (!journal->helper_started)
        return;
    pthread_mutex_lock(&journal->helper_mutex);
    journal->stopping = true;
    pthread_cond_signal(&journal->helper_wake);
    pthread_mutex_unlock(&journal->helper_mutex);
    (void)pthread_join(journal->helper, NULL);
    (void)pthread_cond_destroy(&journal->helper_wake);
    (void)pthread_mutex_destroy(&journal->helper_mutex);
}
