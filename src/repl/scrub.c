/*
 * scrub.c - what a scrub does next (scrub.h): runs, their order and rate, and what comes before
 * them. Mending one gap is scrub_mend.c.
 *
 * Thread:     the core. Sans-I/O.
 * Invariants: one step outstanding; a run visits each lane and part once; what a link waits for
 * goes first and unthrottled, as it is bounded by a segment.
 * Rejected:   a list of all gaps (unbounded: each is mended where it is found); checking the whole
 * lane for damage that a link met (hours, where the place is known).
 */
#include "repl/scrub.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "journal/digest.h"
#include "journal/segment.h"
#include "repl/scrub_internal.h"
#include "repl/wire.h"

/* Log read by one step of a check. */
#define STEP_BYTES (4ull << 20)
/* Windows compared by one step. */
#define COMPARE_BYTES (16 * CFSR_DIGEST_WINDOW_BYTES)
/* What is not repaired is tried again less and less often. */
#define RETRY_FACTOR_MAX 32
/* A link that meets damage where none is found this often is told so. */
#define SOUND_MAX 8
/* Retention may overtake the check of an inbox lane this often in a run. */
#define RESTARTS_MAX 8

_Static_assert(COMPARE_BYTES / CFSR_DIGEST_WINDOW_BYTES <= CFSR_REPLY_WINDOWS_MAX,
               "a step's windows fit one reply");

static const unsigned parts[3] = {CFSR_SCRUB_JOURNAL, CFSR_SCRUB_INBOX, CFSR_SCRUB_PEERS};

const char *cfsr_scrub_finding_name(enum cfsr_scrub_finding_kind kind)
{
    static const char *const names[] = {"journal_records", "journal_header", "journal_segment",
                                        "inbox",           "peer_damaged",   "forked"};
    CFSR_ASSERT((unsigned)kind < CFSR_ARRAY_LEN(names));
    return names[kind];
}

const char *cfsr_scrub_outcome_name(enum cfsr_scrub_outcome outcome)
{
    static const char *const names[] = {"repaired", "unrepairable", "waiting", "reported"};
    CFSR_ASSERT((unsigned)outcome < CFSR_ARRAY_LEN(names));
    return names[outcome];
}

void cfsr_scrub_init(struct cfsr_scrub *scrub, const struct cfsr_scrub_options *options,
                     uint64_t now_ns)
{
    CFSR_ASSERT(options->peer_count <= 64);
    memset(scrub, 0, sizeof *scrub);
    scrub->options = *options;
    /* Not at once after a start, and not a whole interval: a daemon that is restarted often must
     * get there too. */
    scrub->periodic_ns = options->interval_ns != 0 ? now_ns + options->interval_ns / 8 : UINT64_MAX;
    scrub->retry_delay_ns = options->retry_ns;
    scrub->retry_at_ns = now_ns + options->retry_ns;
}

void cfsr_scrub_ask(struct cfsr_scrub *scrub, const struct cfsr_scrub_request *request)
{
    bool fresh = (scrub->wanted[0] | scrub->wanted[1] | scrub->wanted[2]) == 0;

    for (unsigned i = 0; i < 3; i++)
        if (request->parts & parts[i])
            scrub->wanted[i] |= request->lane_mask & scrub->options.lane_mask;
    if (request->run != 0 || fresh)
        scrub->rate_wanted = request->rate_bytes_per_s;
    scrub->run_wanted = cfsr_max_u64(scrub->run_wanted, request->run);
    if ((scrub->wanted[0] | scrub->wanted[1] | scrub->wanted[2]) == 0 && !scrub->running)
        scrub->run_finished = scrub->run_wanted; /* no lane of this core was meant */
}

void cfsr_scrub_on_damaged(struct cfsr_scrub *scrub, uint32_t lane, uint64_t lsn)
{
    CFSR_ASSERT(lane < CFSR_LANES_MAX);
    scrub->damaged_mask |= 1ull << lane;
    scrub->damaged_lsn[lane] = lsn;
}

void cfsr_scrub_on_peer(struct cfsr_scrub *scrub, uint64_t now_ns)
{
    scrub->retry_delay_ns = scrub->options.retry_ns;
    if (scrub->waiting_count > 0 || scrub->waiting_mask != 0)
        scrub->retry_at_ns = cfsr_min_u64(scrub->retry_at_ns, now_ns + CFSR_SCRUB_HOLD_NS);
}

void cfsr_scrub_set_floor(struct cfsr_scrub *scrub, uint32_t lane, uint64_t lsn)
{
    scrub->floor_lsn[lane] = lsn;
}

void cfsr_scrub_report(struct cfsr_scrub *scrub, const struct cfsr_scrub_finding *finding)
{
    scrub->finding[scrub->finding_count++ % CFSR_SCRUB_FINDINGS_MAX] = *finding;
}

/* ---- what comes before a run ---- */

/* The segment that was named; again: and all behind it, as more may be waiting there. */
static void begin_segment(struct cfsr_scrub *scrub, uint32_t lane, bool again)
{
    const struct cfsr_site *site = scrub->options.site;
    uint64_t first = cfsr_segment_first_lsn(site, scrub->damaged_lsn[lane]);

    scrub->damaged_mask &= ~(1ull << lane);
    scrub->task[CFSR_SCRUB_URGENT] = (struct cfsr_scrub_task){
        .active = true,
        .fresh = true,
        .again = again,
        .lane = lane,
        .part = CFSR_SCRUB_JOURNAL,
        .lsn_from = first,
        .lsn_to = again ? UINT64_MAX : first + site->segment_bytes,
    };
}

static void begin_waiting(struct cfsr_scrub *scrub)
{
    struct cfsr_scrub_task *task = &scrub->task[CFSR_SCRUB_URGENT];
    struct cfsr_scrub_waiting first = scrub->waiting[0];
    struct cfsr_scrub_lane *lane = &scrub->lane[first.gap.lane];

    memmove(&scrub->waiting[0], &scrub->waiting[1],
            --scrub->waiting_count * sizeof scrub->waiting[0]);
    scrub->retry_left--;
    *task = (struct cfsr_scrub_task){
        .active = true, .again = true, .lane = first.gap.lane, .part = CFSR_SCRUB_INBOX};
    if (first.outcome == CFSR_SCRUB_WAITING && lane->waiting > 0)
        lane->waiting--;
    if (first.outcome == CFSR_SCRUB_UNREPAIRABLE && lane->unrepairable > 0)
        lane->unrepairable--;
    cfsr_scrub_mend_inbox(scrub, task, &first.gap);
}

/* What is open of the journal is counted anew by the check that follows. */
static void begin_waiting_journal(struct cfsr_scrub *scrub)
{
    uint32_t lane = (uint32_t)__builtin_ctzll(scrub->waiting_mask);

    scrub->waiting_mask &= ~(1ull << lane);
    scrub->damaged_lsn[lane] = scrub->waiting_lsn[lane];
    begin_segment(scrub, lane, true);
}

/* Picks what is urgent; false: nothing. */
static bool begin_urgent(struct cfsr_scrub *scrub, uint64_t now_ns)
{
    if (scrub->damaged_mask != 0) {
        uint32_t lane = (uint32_t)__builtin_ctzll(scrub->damaged_mask);
        bool again = (scrub->waiting_mask >> lane & 1) != 0;
        if (again)
            scrub->damaged_lsn[lane] = cfsr_min_u64(scrub->damaged_lsn[lane],
                                                    scrub->waiting_lsn[lane]);
        scrub->waiting_mask &= ~(1ull << lane);
        begin_segment(scrub, lane, again);
        return true;
    }
    if (scrub->waiting_count == 0 && scrub->waiting_mask == 0)
        return false;
    if (scrub->retry_left == 0) {
        if (now_ns < scrub->retry_at_ns)
            return false;
        scrub->retry_left = scrub->waiting_count;
        scrub->retry_at_ns = now_ns + scrub->retry_delay_ns;
        if (scrub->retry_delay_ns < scrub->options.retry_ns * RETRY_FACTOR_MAX)
            scrub->retry_delay_ns *= 2;
        if (scrub->waiting_mask != 0) {
            begin_waiting_journal(scrub);
            return true;
        }
    }
    if (scrub->retry_left == 0 || scrub->waiting_count == 0) {
        scrub->retry_left = 0;
        return false;
    }
    begin_waiting(scrub);
    return true;
}

/* ---- a run ---- */

static bool is_wanted(const uint64_t lanes[3])
{
    return (lanes[0] | lanes[1] | lanes[2]) != 0;
}

static void begin_run(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us)
{
    uint64_t lanes = scrub->wanted[0] | scrub->wanted[1] | scrub->wanted[2];

    memcpy(scrub->todo, scrub->wanted, sizeof scrub->todo);
    memset(scrub->wanted, 0, sizeof scrub->wanted);
    scrub->run_present = scrub->run_wanted;
    scrub->rate = scrub->rate_wanted;
    scrub->running = true;
    scrub->not_before_ns = now_ns;
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
        if (lanes >> lane & 1)
            scrub->lane[lane] = (struct cfsr_scrub_lane){.started_us = wall_us};
}

/* The lowest lane's first part that is left; false: the run is over. */
static bool begin_part(struct cfsr_scrub *scrub)
{
    uint64_t lanes = scrub->todo[0] | scrub->todo[1] | scrub->todo[2];

    if (lanes == 0) {
        scrub->running = false;
        scrub->run_finished = is_wanted(scrub->wanted) ? scrub->run_present : scrub->run_wanted;
        return false;
    }
    uint32_t lane = (uint32_t)__builtin_ctzll(lanes);
    for (unsigned i = 0; i < 3; i++) {
        if ((scrub->todo[i] >> lane & 1) == 0)
            continue;
        scrub->task[CFSR_SCRUB_RUN] = (struct cfsr_scrub_task){
            .active = true,
            .fresh = true,
            .lane = lane,
            .part = parts[i],
            .lsn_to = UINT64_MAX,
        };
        break;
    }
    return true;
}

/* Keeps the lane's damage to be tried again; hopeless: a link that waits is told. */
static void keep_damage(struct cfsr_scrub *scrub, uint32_t lane, uint64_t lsn, bool hopeless)
{
    if ((scrub->waiting_mask >> lane & 1) != 0)
        lsn = cfsr_min_u64(lsn, scrub->waiting_lsn[lane]);
    scrub->waiting_mask |= 1ull << lane;
    scrub->waiting_lsn[lane] = lsn;
    if (!hopeless)
        return;
    scrub->hopeless_mask |= 1ull << lane;
    scrub->hopeless_lsn[lane] = lsn;
}

static void finish_journal(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, bool urgent)
{
    uint32_t lane = task->lane;
    uint64_t lsn = urgent ? scrub->damaged_lsn[lane] : task->seek_lsn;

    if (task->gaps_open > 0) {
        keep_damage(scrub, lane, task->open_lsn, urgent && !task->gaps_wait);
        return;
    }
    if (task->broken) {
        if (urgent)
            keep_damage(scrub, lane, lsn, false);
        return;
    }
    if (task->gaps > 0 || !urgent) {
        scrub->sound_count[lane] = 0;
    } else if (++scrub->sound_count[lane] >= SOUND_MAX) {
        scrub->sound_count[lane] = 0;
        keep_damage(scrub, lane, lsn, true);
        return;
    }
    /* All of it, or the segment that a link met, is sound: links may go on. */
    scrub->mended_mask |= 1ull << lane;
    if (!urgent)
        scrub->waiting_mask &= ~(1ull << lane);
}

static void finish_part(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, uint64_t wall_us)
{
    bool urgent = task == &scrub->task[CFSR_SCRUB_URGENT];

    task->active = false;
    if (task->part == CFSR_SCRUB_JOURNAL)
        finish_journal(scrub, task, urgent);
    if (urgent)
        return;
    for (unsigned i = 0; i < 3; i++)
        if (parts[i] == task->part)
            scrub->todo[i] &= ~(1ull << task->lane);
    if (((scrub->todo[0] | scrub->todo[1] | scrub->todo[2]) >> task->lane & 1) == 0)
        scrub->lane[task->lane].finished_us = wall_us;
}

/* The range to compare with the task's peer, when its turn begins; false: there is none. */
static bool begin_peer(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task)
{
    const struct cfsr_scrub_options *options = &scrub->options;
    uint64_t acked = options->acked_lsn(options->user, task->peer, task->lane);

    task->lsn_from = cfsr_align_up(scrub->floor_lsn[task->lane], CFSR_DIGEST_WINDOW_BYTES);
    task->lsn_to = cfsr_align_down(acked, CFSR_DIGEST_WINDOW_BYTES);
    task->fresh = false;
    return task->lsn_from < task->lsn_to;
}

static void next_peer(struct cfsr_scrub_task *task)
{
    task->peer++;
    task->answer_to = 0;
    task->fresh = true;
}

static bool compare_step(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, uint64_t wall_us,
                         struct cfsr_scrub_step *step)
{
    const struct cfsr_scrub_options *options = &scrub->options;

    for (; task->peer < options->peer_count; next_peer(task)) {
        if ((task->fresh && !begin_peer(scrub, task)) || task->lsn_from >= task->lsn_to)
            continue;
        if (task->answer_to == 0 && !options->can_ask(options->user, task->peer, task->lane))
            continue;
        step->type = task->answer_to != 0 ? CFSR_SCRUB_COMPARE : CFSR_SCRUB_ASK_DIGESTS;
        step->lane = task->lane;
        step->peer = task->peer;
        step->origin = options->site->site_id;
        step->journal = options->site->journal;
        step->lsn_from = task->lsn_from;
        step->lsn_to = task->answer_to != 0
                           ? task->answer_to
                           : cfsr_min_u64(task->lsn_to, task->lsn_from + COMPARE_BYTES);
        return true;
    }
    finish_part(scrub, task, wall_us);
    return false;
}

static bool step_of(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, uint64_t wall_us,
                    struct cfsr_scrub_step *step)
{
    if (task->mend.active && cfsr_scrub_mend_step(scrub, task, wall_us, step))
        return true;
    if (task == &scrub->task[CFSR_SCRUB_URGENT] && task->part == CFSR_SCRUB_INBOX) {
        finish_part(scrub, task, wall_us); /* a gap that waited, no check */
        return false;
    }
    if (task->part == CFSR_SCRUB_PEERS)
        return compare_step(scrub, task, wall_us, step);
    step->type = task->part == CFSR_SCRUB_JOURNAL ? CFSR_SCRUB_CHECK_JOURNAL
                                                  : CFSR_SCRUB_CHECK_INBOX;
    step->lane = task->lane;
    step->fresh = task->fresh;
    step->seek = task->seek;
    step->lsn_from = task->seek ? task->seek_lsn : task->lsn_from;
    step->lsn_to = task->lsn_to;
    step->budget_bytes = STEP_BYTES;
    return true;
}

const struct cfsr_scrub_step *cfsr_scrub_next(struct cfsr_scrub *scrub, uint64_t now_ns,
                                              uint64_t wall_us)
{
    static const struct cfsr_scrub_step none = {.type = CFSR_SCRUB_NONE};
    struct cfsr_scrub_task *urgent = &scrub->task[CFSR_SCRUB_URGENT];
    struct cfsr_scrub_task *run = &scrub->task[CFSR_SCRUB_RUN];

    if (scrub->step.type != CFSR_SCRUB_NONE || now_ns < scrub->hold_ns)
        return &none;
    if (now_ns >= scrub->periodic_ns) {
        const struct cfsr_scrub_request all = {.lane_mask = scrub->options.lane_mask,
                                               .parts = CFSR_SCRUB_ALL,
                                               .rate_bytes_per_s = scrub->options.rate_bytes_per_s};
        cfsr_scrub_ask(scrub, &all);
        scrub->periodic_ns = now_ns + scrub->options.interval_ns;
    }
    while (urgent->active || begin_urgent(scrub, now_ns)) {
        scrub->step = (struct cfsr_scrub_step){.task = CFSR_SCRUB_URGENT};
        if (step_of(scrub, urgent, wall_us, &scrub->step))
            return &scrub->step;
    }
    scrub->step = none;
    while (run->active || scrub->running || is_wanted(scrub->wanted)) {
        if (!scrub->running)
            begin_run(scrub, now_ns, wall_us);
        if (now_ns < scrub->not_before_ns)
            break;
        if (!run->active && !begin_part(scrub))
            continue;
        scrub->step = (struct cfsr_scrub_step){.task = CFSR_SCRUB_RUN};
        if (step_of(scrub, run, wall_us, &scrub->step))
            return &scrub->step;
        scrub->step = none;
    }
    scrub->step = none;
    return &none;
}

uint64_t cfsr_scrub_deadline(const struct cfsr_scrub *scrub)
{
    uint64_t deadline = scrub->periodic_ns;

    if (scrub->step.type != CFSR_SCRUB_NONE)
        return UINT64_MAX; /* its event brings the next turn */
    if (scrub->task[CFSR_SCRUB_URGENT].active || scrub->damaged_mask != 0)
        return scrub->hold_ns;
    if (scrub->waiting_count > 0 || scrub->waiting_mask != 0)
        deadline = cfsr_min_u64(deadline,
                                scrub->retry_left > 0 ? scrub->hold_ns : scrub->retry_at_ns);
    if (scrub->running || is_wanted(scrub->wanted))
        deadline = cfsr_min_u64(deadline, scrub->running ? scrub->not_before_ns : scrub->hold_ns);
    return cfsr_max_u64(deadline, scrub->hold_ns);
}

/* ---- results ---- */

static struct cfsr_scrub_task *take_step(struct cfsr_scrub *scrub)
{
    CFSR_ASSERT(scrub->step.type != CFSR_SCRUB_NONE);
    scrub->step.type = CFSR_SCRUB_NONE;
    return &scrub->task[scrub->step.task];
}

/* What was read is paid for by a pause, in a run. */
static void account(struct cfsr_scrub *scrub, const struct cfsr_scrub_task *task, uint64_t now_ns,
                    uint64_t bytes)
{
    scrub->counters.bytes += bytes;
    if (task != &scrub->task[CFSR_SCRUB_RUN])
        return;
    scrub->lane[task->lane].bytes += bytes;
    if (scrub->rate != 0)
        scrub->not_before_ns = cfsr_max_u64(scrub->not_before_ns, now_ns) +
                               (uint64_t)((double)bytes / (double)scrub->rate * 1e9);
}

void cfsr_scrub_on_journal_checked(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us,
                                   int answer, uint64_t bytes, const struct cfsr_journal_gap *gap)
{
    struct cfsr_scrub_task *task = take_step(scrub);

    account(scrub, task, now_ns, bytes);
    task->fresh = false;
    task->seek = false;
    if (answer == CFSR_JOURNAL_CHECK_GAP) {
        if (task->gaps_open == 0)
            task->seek_lsn = gap->begin_lsn; /* the first one that may stay */
        cfsr_scrub_mend_journal(scrub, task, gap);
    } else if (answer != CFSR_JOURNAL_CHECK_MORE) {
        task->broken = answer < 0;
        if (answer < 0)
            scrub->lane[task->lane].error = answer;
        finish_part(scrub, task, wall_us);
    }
}

void cfsr_scrub_on_inbox_checked(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us,
                                 int answer, uint64_t bytes, const struct cfsr_inbox_gap *gap)
{
    struct cfsr_scrub_task *task = take_step(scrub);

    account(scrub, task, now_ns, bytes);
    task->fresh = false;
    if (answer == CFSR_INBOX_CHECK_GAP) {
        cfsr_scrub_mend_inbox(scrub, task, gap);
    } else if (answer == -CFSR_E_GONE && task->restarts < RESTARTS_MAX) {
        task->restarts++;
        task->fresh = true;
    } else if (answer != CFSR_INBOX_CHECK_MORE) {
        if (answer < 0)
            scrub->lane[task->lane].error = answer;
        finish_part(scrub, task, wall_us);
    }
}

static void digests_answered(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task,
                             uint64_t wall_us, int rc, uint64_t lsn_to)
{
    if (rc == 0) {
        task->answer_to = lsn_to;
    } else if (rc == -CFSR_E_DAMAGED) {
        struct cfsr_scrub_finding finding = {
            .kind = CFSR_SCRUB_FOUND_PEER_DAMAGED,
            .outcome = CFSR_SCRUB_REPORTED,
            .lane = task->lane,
            .site_id = scrub->options.peer_sites[task->peer],
            .lsn_from = task->lsn_from,
            .lsn_to = task->lsn_from + CFSR_DIGEST_WINDOW_BYTES,
            .reason = rc,
            .at_us = wall_us,
        };
        cfsr_scrub_report(scrub, &finding);
        scrub->lane[task->lane].windows_different++;
        scrub->counters.differences++;
        task->lsn_from += CFSR_DIGEST_WINDOW_BYTES;
    } else if (rc == -CFSR_E_GONE) {
        task->lsn_from += scrub->options.site->segment_bytes; /* its retention is ahead of ours */
    } else {
        next_peer(task);
    }
}

void cfsr_scrub_on_answer(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us, int rc,
                          uint64_t lsn_to)
{
    struct cfsr_scrub_task *task = take_step(scrub);

    (void)now_ns;
    if (task->mend.active)
        cfsr_scrub_mend_answered(scrub, task, rc);
    else
        digests_answered(scrub, task, wall_us, rc, lsn_to);
}

void cfsr_scrub_on_applied(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us, int rc,
                           bool refused, uint64_t end_lsn)
{
    struct cfsr_scrub_task *task = take_step(scrub);

    (void)wall_us;
    CFSR_ASSERT(task->mend.active);
    cfsr_scrub_mend_applied(scrub, task, now_ns, rc, refused, end_lsn);
}

void cfsr_scrub_on_compared(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us, int rc,
                            uint64_t bytes, uint32_t compared, uint32_t different,
                            uint64_t first_different_lsn)
{
    struct cfsr_scrub_task *task = take_step(scrub);
    struct cfsr_scrub_lane *lane = &scrub->lane[task->lane];

    account(scrub, task, now_ns, bytes);
    task->lsn_from = task->answer_to;
    task->answer_to = 0;
    if (rc < 0) {
        lane->error = rc; /* of our own journal: its check says more */
        return;
    }
    lane->windows_compared += compared;
    lane->windows_different += different;
    scrub->counters.windows += compared;
    scrub->counters.differences += different;
    if (different == 0)
        return;
    struct cfsr_scrub_finding finding = {
        .kind = CFSR_SCRUB_FOUND_FORKED,
        .outcome = CFSR_SCRUB_REPORTED,
        .lane = task->lane,
        .site_id = scrub->options.peer_sites[task->peer],
        .lsn_from = first_different_lsn,
        .lsn_to = first_different_lsn + CFSR_DIGEST_WINDOW_BYTES,
        .reason = -CFSR_E_JOURNAL_FORKED,
        .at_us = wall_us,
    };
    cfsr_scrub_report(scrub, &finding);
}
