/*
 * writer_reopen.c - a lane whose write or sync failed goes on: fresh descriptors, the disk read
 * anew, a cut, a new incarnation.
 *
 * Thread:     the journal's helper.
 * Invariants: nothing is acknowledged because a second sync succeeded: the kernel forgets a page it
 * could not write, and a re-read may show memory that never reached the disk. So everything behind
 * the last acknowledged byte is given up, also what looks whole, and its appenders have an error.
 * Nobody else has seen those bytes: the commit is published after the sync. Rejected:   failing the
 * process (a full or flaky disk would stop the metadata service for good), retrying the write into
 * the same place (the sectors of a torn write may be neither old nor new).
 */
#include "journal/writer_internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "journal/recovery.h"

#define RETRY_NS 1000000000ull

/* Remembers what was lost, for those who ask later. When the list is full its two oldest ranges
 * become one: what lies between them then counts as lost too, which is safe to say. */
static void note_lost(struct cfsr_writer_lane *lane, uint64_t begin_lsn, uint64_t end_lsn)
{
    if (lane->lost_count == CFSR_LOST_RANGES_MAX) {
        lane->lost[0].end_lsn = lane->lost[1].end_lsn;
        for (uint32_t i = 1; i + 1 < CFSR_LOST_RANGES_MAX; i++)
            lane->lost[i] = lane->lost[i + 1];
        lane->lost_count--;
    }
    lane->lost[lane->lost_count++] = (struct cfsr_lost_range){begin_lsn, end_lsn};
}

/* Files and group of the new incarnation. Lane busy, not locked. */
static int open_anew(struct cfsr_journal *journal, struct cfsr_writer_lane *lane,
                     struct cfsr_commit_group *group_out, struct cfsr_lane_state *state_out)
{
    struct cfsr_lane_state state;
    int rc;

    cfsr_lane_file_fini(&lane->files);
    rc = cfsr_journal_recut_lane(journal->fs, &journal->site, lane->id, lane->durable_lsn, &state);
    if (rc < 0) {
        /* Empty, but whole: closing the journal, or the next try, may end it again. */
        (void)pthread_mutex_init(&lane->files.spare_mutex, NULL);
        return rc;
    }
    rc = cfsr_lane_file_init(&lane->files, journal->fs, &journal->site, lane->id, journal->direct,
                             state.incarnation);
    if (rc == 0)
        rc = cfsr_group_init(group_out, &journal->site, lane->id, journal->buffer_bytes, &state,
                             NULL);
    if (rc < 0) {
        cfsr_lane_state_fini(&state);
        return rc;
    }
    *state_out = state;
    return 0;
}

/* Takes the new group. Lane locked. */
static void go_on(struct cfsr_journal *journal, struct cfsr_writer_lane *lane,
                  const struct cfsr_commit_group *group, const struct cfsr_lane_state *state)
{
    uint64_t staged_lsn = cfsr_group_end_lsn(&lane->group);

    if (staged_lsn > lane->durable_lsn)
        note_lost(lane, lane->durable_lsn, staged_lsn);
    lane->lost_untold = lane->lost_untold || lane->staged_lsn > lane->durable_lsn;
    lane->staged_lsn = 0;
    cfsr_group_fini(&lane->group);
    lane->group = *group;
    lane->wanted_lsn = 0;
    lane->durable_lsn = state->end_lsn;
    lane->clean_end = false;
    lane->failed = false;
    lane->full_until_ns = 0;
    lane->generation++;
    atomic_store(&lane->wants_spare, false);
    atomic_fetch_add(&journal->reopened, 1);
}

static void reopen(struct cfsr_journal *journal, struct cfsr_writer_lane *lane)
{
    struct cfsr_commit_group group;
    struct cfsr_lane_state state;
    uint64_t cut_lsn = lane->durable_lsn;
    int rc = open_anew(journal, lane, &group, &state);

    if (rc == 0)
        cfsr_writer_publish_state(journal, lane->id, &state);
    pthread_mutex_lock(&lane->mutex);
    if (rc == 0) {
        go_on(journal, lane, &group, &state);
        cfsr_log(CFSR_LOG_WARN, "journal_lane_reopened", CFSR_U("lane", lane->id),
                 CFSR_U("cut_lsn", cut_lsn), CFSR_U("resume_lsn", state.end_lsn),
                 CFSR_U("incarnation", state.incarnation));
        cfsr_lane_state_fini(&state);
    } else {
        lane->failed_rc = rc;
        lane->retry_at_ns = cfsr_clock_monotonic_ns() + RETRY_NS;
        cfsr_log(CFSR_LOG_ERROR, "journal_reopen_failed", CFSR_U("lane", lane->id), CFSR_ERR(rc));
    }
    lane->busy = false;
    pthread_cond_broadcast(&lane->changed);
    pthread_mutex_unlock(&lane->mutex);
}

void cfsr_writer_reopen_failed(struct cfsr_journal *journal)
{
    atomic_store(&journal->reopen_wanted, false);
    for (uint32_t lane_id = 0; lane_id < journal->site.lanes; lane_id++) {
        struct cfsr_writer_lane *lane = &journal->lanes[lane_id];
        bool due;

        pthread_mutex_lock(&lane->mutex);
        due = lane->failed && !lane->busy && cfsr_clock_monotonic_ns() >= lane->retry_at_ns;
        if (due)
            lane->busy = true;
        pthread_mutex_unlock(&lane->mutex);
        if (due)
            reopen(journal, lane);
    }
}
