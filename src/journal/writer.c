/*
 * writer.c - the journal's writer: many appending threads, one group commit per lane.
 *
 * Thread:     any number of appenders, and the helper (writer_helper.c). Per lane one mutex; the
 * thread that finds no leader becomes it, writes and syncs with the mutex released, while the
 * others stage the next group. Invariants: one group of a lane is in flight at a time, so
 * everything below a group was durable before its first byte was written; durable_lsn is published
 * after the sync; a descriptor that failed once is never written to, synced or believed again
 * (writer_reopen.c). Rejected:   a dedicated writer thread
 * (two context switches per commit: a lone producer pays them all), lock-free staging (the order of
 * CRC and copy per entry costs more than an uncontended mutex; contended, the sync dominates).
 */
#include <cfsrepl/journal.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/writer_internal.h"

#define BUFFER_BYTES_DEFAULT (4u << 20)
#define BUFFER_BYTES_MAX     (64u << 20)
#define IDLE_MARK_MS_DEFAULT 10
#define LEAD_ROUNDS          4
#define FULL_RETRY_NS        200000000ull
#define HELPER_WAIT_MS       200 /* for the helper to make room near the cap */
#define SPARE_AT_FRACTION    8   /* 8 MiB of 64: at 500 MB/s still 100 ms ahead */
_Static_assert((int)CFSR_PRESSURE_WARN == (int)CFSR_GC_PRESSURE_WARN &&
                   (int)CFSR_PRESSURE_DETACH == (int)CFSR_GC_PRESSURE_DETACH,
               "the public names of the levels");

#define MODE_ACTIVE_READ_WRITE      1
#define MODE_DEGRADED_ACCEPT_WRITES 3

static bool is_full(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT;
}

/* Why the lane takes nothing now. */
static int fail_lane(const struct cfsr_writer_lane *lane)
{
    if (is_full(lane->failed_rc))
        return cfsr_fail(-ENOSPC,
                         "lane %" PRIu32
                         " of the journal: the file system is full; appends go on by themselves "
                         "when there is space again",
                         lane->id);
    return cfsr_fail(-CFSR_E_FAILED,
                     "lane %" PRIu32 " of the journal failed to write or sync (%s): what was being "
                     "appended is not acknowledged; the lane is being opened anew, "
                     "append again in a moment",
                     lane->id, cfsr_strerror(lane->failed_rc));
}

/* The entry that ends at end_lsn went with a failed group. */
static bool is_lost(const struct cfsr_writer_lane *lane, uint64_t end_lsn)
{
    for (uint32_t i = lane->lost_count; i > 0; i--)
        if (end_lsn > lane->lost[i - 1].begin_lsn && end_lsn <= lane->lost[i - 1].end_lsn)
            return true;
    return false;
}

static int fail_lost(const struct cfsr_writer_lane *lane)
{
    return cfsr_fail(-CFSR_E_FAILED,
                     "lane %" PRIu32 " of the journal failed to write or sync and was opened anew: "
                     "the entry is not in it, append it again",
                     lane->id);
}

/* The next segment is written ahead of need, but not before a lane shows that it will fill this
 * one. */
static void ask_for_spare(struct cfsr_journal *journal, struct cfsr_writer_lane *lane,
                          uint64_t end_lsn)
{
    if (end_lsn % journal->site.segment_bytes < journal->site.segment_bytes / SPARE_AT_FRACTION ||
        atomic_load_explicit(&lane->wants_spare, memory_order_relaxed))
        return;
    atomic_store(&lane->wants_spare, true);
    atomic_store(&journal->spare_wanted, true);
}

/* The descriptor is never written to or synced again: the helper opens the lane anew. Lane locked,
 * nothing in flight. */
static void mark_failed(struct cfsr_journal *journal, struct cfsr_writer_lane *lane, int rc)
{
    lane->failed = true;
    lane->failed_rc = rc;
    lane->retry_at_ns = 0;
    atomic_store(&lane->uncovered, false);
    atomic_store(&journal->reopen_wanted, true);
    cfsr_log(CFSR_LOG_ERROR, "journal_lane_failed", CFSR_U("lane", lane->id), CFSR_ERR(rc));
    cfsr_writer_helper_poke(journal);
}

/* Writes the staged group. Lane locked, nobody leads, there is work. */
static int lead_once(struct cfsr_journal *journal, struct cfsr_writer_lane *lane)
{
    struct cfsr_group_span span;
    uint64_t begun_ns, done_ns;
    bool mark_only;
    int rc;

    CFSR_ASSERT(!lane->busy && !lane->failed);
    lane->busy = true;
    cfsr_group_take(&lane->group, cfsr_clock_wall_us(), &span);
    pthread_mutex_unlock(&lane->mutex);

    mark_only = span.group_entries == 0;
    begun_ns = cfsr_clock_monotonic_ns();
    rc = cfsr_lane_file_write(&lane->files, &span);
    done_ns = cfsr_clock_monotonic_ns();
    if (rc == 0) {
        cfsr_status_page_publish(journal->page, lane->files.lane, span.end_lsn, span.entries);
        atomic_store(&lane->last_commit_ns, done_ns);
        atomic_store(&lane->uncovered, !mark_only);
        ask_for_spare(journal, lane, span.end_lsn);
        if (!mark_only)
            cfsr_writer_helper_poke(journal);
    }

    pthread_mutex_lock(&lane->mutex);
    cfsr_group_done(&lane->group);
    lane->busy = false;
    lane->stats.groups++;
    if (rc == 0) {
        lane->stats.syncs++;
        lane->stats.sync_ns += done_ns - begun_ns;
        lane->stats.entries += span.group_entries;
        lane->stats.records_bytes += span.end_lsn - span.lsn;
        lane->durable_lsn = span.end_lsn;
    } else {
        mark_failed(journal, lane, rc);
    }
    pthread_cond_broadcast(&lane->changed);
    return rc < 0 ? fail_lane(lane) : 0;
}

/*
 * The same, and on for those who staged meanwhile and wait: the disk then goes from one sync to the
 * next without the time it takes to wake the next leader. Bounded, because this thread's own entry
 * has been durable since the first round.
 */
static int lead(struct cfsr_journal *journal, struct cfsr_writer_lane *lane)
{
    int rc = lead_once(journal, lane);

    for (unsigned round = 1;
         round < LEAD_ROUNDS && rc == 0 && lane->wanted_lsn > lane->durable_lsn &&
         cfsr_group_end_lsn(&lane->group) > lane->durable_lsn;
         round++)
        rc = lead_once(journal, lane);
    return rc;
}

static int fail_full(const struct cfsr_writer_lane *lane)
{
    return cfsr_fail(-ENOSPC,
                     "lane %" PRIu32
                     " of the journal: no space for the next segment; appends go on "
                     "by themselves when there is space again",
                     lane->id);
}

/*
 * Near the cap no segment is made before the helper has made room for it: a producer faster than
 * the helper would run past the cap by as much as it is faster. Bounded: a helper that cannot
 * (no space) says so, and the caller finds out for itself. No lock is held.
 */
static void let_helper_go_first(struct cfsr_journal *journal, struct cfsr_writer_lane *lane)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t near = atomic_load(&journal->journal_bytes) + 2 * journal->site.segment_bytes;

    if (!journal->helper_started || journal->limits.cap_bytes == 0 ||
        near < journal->limits.cap_bytes)
        return;
    for (unsigned i = 0; i < HELPER_WAIT_MS && !atomic_load(&lane->files.spare_ready); i++) {
        atomic_store(&lane->wants_spare, true);
        atomic_store(&journal->spare_wanted, true);
        cfsr_writer_helper_poke(journal);
        (void)nanosleep(&pause, NULL);
    }
}

/*
 * Opens the segment at the group's end. Lane locked, nobody leads. ENOSPC leaves the lane as it
 * was; for a moment the others are told at once instead of filling the last blocks in their turn.
 */
static int open_next_segment(struct cfsr_journal *journal, struct cfsr_writer_lane *lane)
{
    uint64_t lsn = cfsr_group_end_lsn(&lane->group);
    bool stalled = false;
    int rc;

    if (lane->full_until_ns != 0 && cfsr_clock_monotonic_ns() < lane->full_until_ns &&
        !atomic_load(&lane->files.spare_ready))
        return fail_full(lane);
    lane->busy = true;
    pthread_mutex_unlock(&lane->mutex);
    let_helper_go_first(journal, lane);
    atomic_store(&lane->wants_spare, false);
    rc = cfsr_lane_file_rotate(&lane->files, lsn, cfsr_clock_wall_us(), &stalled);
    pthread_mutex_lock(&lane->mutex);
    lane->busy = false;
    if (rc == 0) {
        cfsr_group_segment_opened(&lane->group);
        lane->stats.rotations++;
        /* The first segment of a lane is made when it is first written to: expected, not a stall.
         */
        lane->stats.spare_stalls += stalled && lsn != 0;
        if (stalled) /* the helper's own are counted at its next look */
            atomic_fetch_add(&journal->journal_bytes,
                             CFSR_SEGMENT_HEADER_BYTES + journal->site.segment_bytes);
        lane->full_until_ns = 0;
    } else if (is_full(rc)) {
        if (lane->full_until_ns == 0)
            cfsr_log(CFSR_LOG_ERROR, "journal_disk_full", CFSR_U("lane", lane->id), CFSR_ERR(rc));
        lane->full_until_ns = cfsr_clock_monotonic_ns() + FULL_RETRY_NS;
        rc = fail_full(lane);
    } else {
        mark_failed(journal, lane, rc);
        rc = fail_lane(lane);
    }
    pthread_cond_broadcast(&lane->changed);
    return rc;
}

/* Acts on the answer of a stage that could not go through. Lane locked; 0: try again. */
static int make_way(struct cfsr_journal *journal, struct cfsr_writer_lane *lane, int answer)
{
    if (lane->failed)
        return fail_lane(lane);
    if (lane->busy) {
        pthread_cond_wait(&lane->changed, &lane->mutex);
        return 0;
    }
    return answer == CFSR_GROUP_NEED_SEGMENT ? open_next_segment(journal, lane)
                                             : lead(journal, lane);
}

static int wait_durable(struct cfsr_journal *journal, struct cfsr_writer_lane *lane,
                        uint64_t end_lsn)
{
    int rc = 0;

    lane->wanted_lsn = cfsr_max_u64(lane->wanted_lsn, end_lsn);
    while (rc == 0) {
        if (is_lost(lane, end_lsn))
            rc = fail_lost(lane);
        else if (lane->durable_lsn >= end_lsn)
            return 0;
        else if (lane->failed)
            rc = fail_lane(lane);
        else if (lane->busy)
            pthread_cond_wait(&lane->changed, &lane->mutex);
        else
            rc = lead(journal, lane);
        if (rc < 0 && lane->durable_lsn >= end_lsn && !is_lost(lane, end_lsn))
            rc = 0; /* it was the group of others, led after one's own, that failed */
    }
    return rc;
}

int cfsr_writer_mark(struct cfsr_journal *journal, struct cfsr_writer_lane *lane, uint32_t flags,
                     bool skip_if_active)
{
    struct cfsr_hlc *clock = cfsr_status_page_hlc(journal->page);
    int rc;

    for (;;) {
        if (lane->failed)
            return fail_lane(lane);
        if (skip_if_active && (lane->busy || cfsr_group_has_work(&lane->group)))
            return 0;
        rc = cfsr_group_stage_mark(&lane->group, cfsr_hlc_next(clock, cfsr_clock_wall_us()), flags);
        if (rc == CFSR_GROUP_STAGED)
            return wait_durable(journal, lane, cfsr_group_end_lsn(&lane->group));
        rc = make_way(journal, lane, rc);
        if (rc < 0)
            return rc;
    }
}

/* Behind a clean close the first group is a MARK alone: it ends the cleanness before any entry is
 * written. */
static int begin_lane(struct cfsr_journal *journal, struct cfsr_writer_lane *lane)
{
    while (lane->clean_end && lane->busy && !lane->failed)
        pthread_cond_wait(&lane->changed, &lane->mutex);
    if (lane->failed)
        return fail_lane(lane);
    if (!lane->clean_end)
        return 0;
    lane->clean_end = false;
    return cfsr_writer_mark(journal, lane, 0, false);
}

#define GENERATION_ANY UINT64_MAX

/* *generation: of the lane when the call's first entry was staged there. One that is opened anew in
 * between has lost that entry, and must not take the next. */
static int stage_locked(struct cfsr_journal *journal, struct cfsr_writer_lane *lane,
                        const struct cfsr_entry *entry, uint32_t shard, uint64_t wall_us,
                        uint64_t *generation, struct cfsr_entry_position *position_out)
{
    struct cfsr_hlc *clock = cfsr_status_page_hlc(journal->page);
    int rc;

    if (lane->clean_end) {
        rc = begin_lane(journal, lane);
        if (rc < 0)
            return rc;
    }
    atomic_store_explicit(&lane->used, true, memory_order_relaxed);
    for (;;) {
        if (lane->failed)
            return fail_lane(lane);
        if (*generation != GENERATION_ANY && *generation != lane->generation)
            return fail_lost(lane);
        rc = cfsr_group_stage(&lane->group, entry, shard, cfsr_hlc_next(clock, wall_us),
                              position_out);
        if (rc == CFSR_GROUP_STAGED) {
            *generation = lane->generation;
            return 0;
        }
        if (rc < 0)
            return cfsr_fail(rc,
                             "entry of inode %" PRIu64 ", op %u, shard %" PRIu32 ", %" PRIu32
                             " payload bytes: %s",
                             entry->inode, entry->op, shard, entry->payload_bytes,
                             cfsr_strerror(rc));
        rc = make_way(journal, lane, rc);
        if (rc < 0)
            return rc;
    }
}

static int check_writable(const struct cfsr_journal *journal)
{
    uint32_t mode = cfsr_status_page_mode(journal->page);

    if (mode == MODE_ACTIVE_READ_WRITE || mode == MODE_DEGRADED_ACCEPT_WRITES)
        return 0;
    return cfsr_fail(-CFSR_E_NOT_WRITABLE, "site %s does not accept writes (mode %" PRIu32 ")",
                     journal->site.name, mode);
}

static int shard_of(const struct cfsr_journal *journal, const struct cfsr_entry *entry,
                    uint32_t *shard_out)
{
    uint32_t shard = entry->shard_id;

    if (shard == CFSR_SHARD_AUTO)
        shard = cfsr_site_shard_of(&journal->site, entry->shard_key);
    if (shard >= journal->site.shards)
        return cfsr_fail(-CFSR_E_FORMAT,
                         "shard %" PRIu32 " does not exist, the cluster has %" PRIu32, shard,
                         journal->site.shards);
    *shard_out = shard;
    return 0;
}

/* Stages entries from *staged on; end_lsns[lane] and touched say what to wait for. */
static int stage_all(struct cfsr_journal *journal, const struct cfsr_entry *entries, unsigned count,
                     struct cfsr_entry_position *positions_out, uint64_t *end_lsns,
                     uint64_t *touched, unsigned *staged)
{
    uint64_t wall_us = cfsr_clock_wall_us(), generations[CFSR_LANES_MAX];
    struct cfsr_writer_lane *lane = NULL;
    int rc = 0;

    for (; *staged < count; (*staged)++) {
        struct cfsr_entry_position position;
        struct cfsr_writer_lane *next;
        uint32_t shard = 0, lane_id;

        rc = shard_of(journal, &entries[*staged], &shard);
        if (rc < 0)
            break;
        lane_id = cfsr_site_lane_of_shard(&journal->site, shard);
        next = &journal->lanes[lane_id];
        if (next != lane) {
            if (lane != NULL)
                pthread_mutex_unlock(&lane->mutex);
            lane = next;
            pthread_mutex_lock(&lane->mutex);
        }
        if ((*touched >> lane_id & 1) == 0)
            generations[lane_id] = GENERATION_ANY;
        rc = stage_locked(journal, lane, &entries[*staged], shard, wall_us, &generations[lane_id],
                          &position);
        if (rc < 0)
            break;
        end_lsns[lane_id] = position.end_lsn;
        *touched |= 1ull << lane_id;
        if (positions_out != NULL)
            positions_out[*staged] = position;
    }
    if (lane != NULL)
        pthread_mutex_unlock(&lane->mutex);
    return rc;
}

static int wait_all(struct cfsr_journal *journal, const uint64_t *end_lsns, uint64_t touched)
{
    int rc = 0;

    while (touched != 0) {
        uint32_t lane_id = (uint32_t)__builtin_ctzll(touched);
        int waited = cfsr_journal_wait(journal, lane_id, end_lsns[lane_id]);

        touched &= touched - 1;
        if (waited < 0)
            rc = waited;
    }
    return rc;
}

int cfsr_journal_append(struct cfsr_journal *journal, const struct cfsr_entry *entries,
                        unsigned count, struct cfsr_entry_position *positions_out,
                        unsigned *appended_out)
{
    uint64_t end_lsns[CFSR_LANES_MAX], touched = 0;
    unsigned staged = 0;
    int rc = check_writable(journal), waited;

    if (rc == 0)
        rc = stage_all(journal, entries, count, positions_out, end_lsns, &touched, &staged);
    waited = wait_all(journal, end_lsns, touched);
    if (appended_out != NULL)
        *appended_out = waited < 0 ? 0 : staged;
    return waited < 0 ? waited : rc;
}

int cfsr_journal_stage(struct cfsr_journal *journal, const struct cfsr_entry *entry,
                       struct cfsr_entry_position *position_out)
{
    struct cfsr_entry_position position;
    struct cfsr_writer_lane *lane;
    uint64_t generation = GENERATION_ANY;
    uint32_t shard = 0;
    int rc = check_writable(journal);

    if (rc == 0)
        rc = shard_of(journal, entry, &shard);
    if (rc < 0)
        return rc;
    lane = &journal->lanes[cfsr_site_lane_of_shard(&journal->site, shard)];
    pthread_mutex_lock(&lane->mutex);
    rc = stage_locked(journal, lane, entry, shard, cfsr_clock_wall_us(), &generation, &position);
    if (rc == 0)
        lane->staged_lsn = position.end_lsn;
    pthread_mutex_unlock(&lane->mutex);
    if (rc == 0 && position_out != NULL)
        *position_out = position;
    return rc;
}

int cfsr_journal_wait(struct cfsr_journal *journal, uint32_t lane_id, uint64_t end_lsn)
{
    struct cfsr_writer_lane *lane = &journal->lanes[lane_id];
    int rc;

    CFSR_ASSERT(lane_id < journal->site.lanes);
    pthread_mutex_lock(&lane->mutex);
    if (end_lsn > cfsr_group_end_lsn(&lane->group))
        rc = cfsr_fail(-EINVAL, "lane %" PRIu32 ": LSN %" PRIx64 " was not staged yet", lane_id,
                       end_lsn);
    else
        rc = wait_durable(journal, lane, end_lsn);
    pthread_mutex_unlock(&lane->mutex);
    return rc;
}

int cfsr_journal_flush(struct cfsr_journal *journal)
{
    int rc = 0;

    for (uint32_t lane_id = 0; lane_id < journal->site.lanes; lane_id++) {
        struct cfsr_writer_lane *lane = &journal->lanes[lane_id];
        int waited;

        pthread_mutex_lock(&lane->mutex);
        waited = wait_durable(journal, lane, cfsr_group_end_lsn(&lane->group));
        if (lane->lost_untold) {
            waited = fail_lost(lane);
            lane->lost_untold = lane->failed;
        }
        pthread_mutex_unlock(&lane->mutex);
        if (waited < 0)
            rc = waited;
    }
    return rc;
}

void cfsr_journal_stats(const struct cfsr_journal *journal, struct cfsr_journal_stats *stats_out)
{
    struct cfsr_journal_stats sum = {
        .recycled_segments = atomic_load(&journal->recycled),
        .removed_segments = atomic_load(&journal->removed),
        .forced_removals = atomic_load(&journal->forced),
        .reopened_lanes = atomic_load(&journal->reopened),
        .detached_removals = atomic_load(&journal->detached_removals),
    };

    for (uint32_t lane_id = 0; lane_id < journal->site.lanes; lane_id++) {
        struct cfsr_writer_lane *lane = &journal->lanes[lane_id];

        pthread_mutex_lock(&lane->mutex);
        sum.entries += lane->stats.entries;
        sum.records_bytes += lane->stats.records_bytes;
        sum.groups += lane->stats.groups;
        sum.syncs += lane->stats.syncs;
        sum.sync_ns += lane->stats.sync_ns;
        sum.spare_stalls += lane->stats.spare_stalls;
        sum.rotations += lane->stats.rotations;
        pthread_mutex_unlock(&lane->mutex);
    }
    *stats_out = sum;
}

void cfsr_journal_pressure(const struct cfsr_journal *journal,
                           struct cfsr_journal_pressure *pressure_out)
{
    uint32_t level = atomic_load_explicit(&journal->pressure, memory_order_relaxed);

    *pressure_out = (struct cfsr_journal_pressure){
        .level = (enum cfsr_pressure)level,
        .pause_ms = atomic_load_explicit(&journal->pause_ms, memory_order_relaxed),
        .journal_bytes = atomic_load_explicit(&journal->journal_bytes, memory_order_relaxed),
        .cap_bytes = journal->limits.cap_bytes,
    };
}

uint32_t cfsr_journal_lanes(const struct cfsr_journal *journal)
{
    return journal->site.lanes;
}

void cfsr_writer_publish_state(struct cfsr_journal *journal, uint32_t lane_id,
                               const struct cfsr_lane_state *state)
{
    uint64_t published = cfsr_status_page_committed(journal->page, lane_id);

    if (published != CFSR_LSN_UNKNOWN && published > state->end_lsn)
        cfsr_status_page_reset_lane(journal->page, lane_id);
    cfsr_status_page_publish(journal->page, lane_id, state->end_lsn, state->entries);
    cfsr_hlc_observe(cfsr_status_page_hlc(journal->page), state->max_timestamp_us);
    if (state->cut_lsn != CFSR_LSN_UNKNOWN)
        cfsr_log(CFSR_LOG_WARN, "journal_tail_cut", CFSR_U("lane", lane_id),
                 CFSR_U("lsn", state->cut_lsn), CFSR_U("bytes", state->cut_bytes),
                 CFSR_U("resume_lsn", state->end_lsn));
}

static int open_lane(struct cfsr_journal *journal, uint32_t lane_id)
{
    struct cfsr_writer_lane *lane = &journal->lanes[lane_id];
    uint8_t block[CFSR_GROUP_BLOCK_BYTES];
    struct cfsr_lane_state state;
    bool resumes;
    int rc = cfsr_journal_recover_lane(journal->fs, &journal->site, lane_id, false, true, &state);

    if (rc < 0)
        return rc;
    rc = cfsr_lane_file_init(&lane->files, journal->fs, &journal->site, lane_id, journal->direct,
                             state.incarnation);
    resumes = state.end_lsn % journal->site.segment_bytes != 0;
    if (rc == 0 && resumes)
        rc = cfsr_lane_file_resume(&lane->files, state.end_lsn, block);
    if (rc == 0)
        rc = cfsr_group_init(&lane->group, &journal->site, lane_id, journal->buffer_bytes, &state,
                             resumes ? block : NULL);
    if (rc < 0) {
        cfsr_lane_file_fini(&lane->files);
        cfsr_lane_state_fini(&state);
        return rc;
    }
    (void)pthread_mutex_init(&lane->mutex, NULL);
    (void)pthread_cond_init(&lane->changed, NULL);
    lane->id = lane_id;
    lane->durable_lsn = state.end_lsn;
    lane->clean_end = resumes;
    cfsr_writer_publish_state(journal, lane_id, &state);
    cfsr_lane_state_fini(&state);
    return 0;
}

static void close_lanes(struct cfsr_journal *journal)
{
    for (uint32_t lane_id = 0; lane_id < journal->lanes_opened; lane_id++) {
        struct cfsr_writer_lane *lane = &journal->lanes[lane_id];

        cfsr_lane_file_fini(&lane->files);
        cfsr_group_fini(&lane->group);
        (void)pthread_mutex_destroy(&lane->mutex);
        (void)pthread_cond_destroy(&lane->changed);
    }
    for (uint32_t lane_id = 0; lane_id < journal->site.lanes; lane_id++)
        if (journal->lanes[lane_id].lock != NULL)
            cfsr_file_close(journal->lanes[lane_id].lock);
}

static int open_lanes(struct cfsr_journal *journal)
{
    int rc = 0;

    /* All locks before the first recovery: a second writer is told at once, and nothing was
     * touched. */
    for (uint32_t lane_id = 0; rc == 0 && lane_id < journal->site.lanes; lane_id++)
        rc = cfsr_journal_lock_lane(journal->fs, &journal->site, lane_id,
                                    &journal->lanes[lane_id].lock);
    for (; rc == 0 && journal->lanes_opened < journal->site.lanes; journal->lanes_opened++) {
        rc = open_lane(journal, journal->lanes_opened);
        if (rc < 0)
            break;
    }
    return rc;
}

static int take_options(struct cfsr_journal *journal, const struct cfsr_journal_options *given)
{
    struct cfsr_journal_options options = {0};
    uint64_t free_bytes, total_bytes;
    int rc;

    memcpy(&options, given, cfsr_min_u64(given->opts_size, sizeof options));
    if (options.buffer_bytes > BUFFER_BYTES_MAX)
        return cfsr_fail(-CFSR_E_CONFIG, "staging of %" PRIu32 " bytes per lane: at most %u",
                         options.buffer_bytes, BUFFER_BYTES_MAX);
    rc = cfsr_site_load(journal->fs, options.data_dir, &journal->site);
    if (rc < 0)
        return rc;
    rc = journal->fs->ops->space(journal->fs, journal->site.data_dir, &free_bytes, &total_bytes);
    if (rc < 0)
        return cfsr_fail(rc, "cannot ask for the space of %s: %s", journal->site.data_dir,
                         cfsr_strerror(rc));
    journal->direct = options.direct;
    journal->buffer_bytes = options.buffer_bytes == 0 ? BUFFER_BYTES_DEFAULT : options.buffer_bytes;
    journal->idle_mark_ns = 1000000ull * (options.idle_mark_ms == 0 ? IDLE_MARK_MS_DEFAULT
                                                                    : options.idle_mark_ms);
    journal->limits = cfsr_gc_default_limits(total_bytes);
    journal->limits.policy = (enum cfsr_gc_policy)options.retention_policy;
    journal->limits.keep_segments = cfsr_max_u64(options.retention_segments, CFSR_GC_SEGMENTS_MIN);
    if (options.retention_cap_bytes != 0)
        journal->limits.cap_bytes = options.retention_cap_bytes;
    if (options.retention_age_ms != 0)
        journal->limits.min_age_us = options.retention_age_ms * 1000;
    return 0;
}

int cfsr_journal_open(const struct cfsr_journal_options *options, struct cfsr_journal **journal_out)
{
    return cfsr_journal_open_on(cfsr_fs_blocking(), options, journal_out);
}

int cfsr_journal_open_on(struct cfsr_fs *fs, const struct cfsr_journal_options *options,
                         struct cfsr_journal **journal_out)
{
    struct cfsr_journal *journal = calloc(1, sizeof *journal);
    size_t lanes_bytes;
    int rc;

    if (journal == NULL)
        return -ENOMEM;
    journal->fs = fs;
    rc = take_options(journal, options);
    if (rc < 0)
        goto free_journal;
    lanes_bytes = journal->site.lanes * sizeof *journal->lanes;
    journal->lanes = aligned_alloc(_Alignof(struct cfsr_writer_lane), lanes_bytes);
    if (journal->lanes == NULL) {
        rc = -ENOMEM;
        goto free_journal;
    }
    memset(journal->lanes, 0, lanes_bytes);
    rc = cfsr_status_page_open(&journal->site, &journal->page);
    if (rc < 0)
        goto free_lanes;
    rc = open_lanes(journal);
    if (rc == 0)
        rc = cfsr_writer_helper_start(journal);
    if (rc < 0)
        goto close_lanes;
    *journal_out = journal;
    return 0;

close_lanes:
    close_lanes(journal);
    cfsr_status_page_close(journal->page);
free_lanes:
    free(journal->lanes);
free_journal:
    free(journal);
    return rc;
}

int cfsr_journal_close(struct cfsr_journal *journal)
{
    int rc;

    if (journal == NULL)
        return 0;
    cfsr_writer_helper_stop(journal);
    rc = cfsr_journal_flush(journal);
    for (uint32_t lane_id = 0; lane_id < journal->site.lanes; lane_id++) {
        struct cfsr_writer_lane *lane = &journal->lanes[lane_id];
        int closed = 0;

        pthread_mutex_lock(&lane->mutex);
        if (atomic_load(&lane->used) && !lane->failed)
            closed = cfsr_writer_mark(journal, lane, CFSR_MARK_CLEAN_CLOSE, false);
        pthread_mutex_unlock(&lane->mutex);
        if (closed < 0)
            rc = closed;
    }
    close_lanes(journal);
    cfsr_status_page_close(journal->page);
    free(journal->lanes);
    free(journal);
    return rc;
}
