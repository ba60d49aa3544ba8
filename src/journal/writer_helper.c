/*
 * writer_helper.c - the writer's helper thread: spares ahead of need, retention
 * (writer_retention.c), lanes opened anew (writer_reopen.c), trailing MARKs.
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
    }
    if (atomic_load(&journal->spare_wanted) || atomic_load(&journal->reopen_wanted))
        wait_ns = 0;
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
        cfsr_writer_reopen_failed(journal);
        if (atomic_load(&journal->spare_wanted) || now_ns - housekeeping_ns >= HOUSEKEEPING_NS) {
            cfsr_writer_retain(journal); /* first: what it frees becomes the spare */
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
