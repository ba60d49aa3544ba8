/*
 * scrub_mend.c - one gap: whom to ask for it, range by range, until it is closed or nobody has it.
 *
 * Thread:     the core. Sans-I/O.
 * Invariants: a peer is asked once for what is missing at one position; progress starts the round
 * anew; a gap ends when every peer was asked or could not be. "Nobody has it" is only said when
 * everybody could be asked.
 * Rejected:   asking all peers at once (the answers are a MiB each, and one is enough).
 */
#include "repl/scrub.h"

#include <errno.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "repl/scrub_internal.h"

static void begin(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task)
{
    struct cfsr_scrub_mend *mend = &task->mend;

    mend->active = true;
    mend->peer = scrub->options.peer_count;
    task->gaps++;
    if (task->again)
        return;
    scrub->counters.found++;
    scrub->lane[task->lane].found++;
}

void cfsr_scrub_mend_journal(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task,
                             const struct cfsr_journal_gap *gap)
{
    task->mend = (struct cfsr_scrub_mend){
        .journal_gap = *gap,
        .header_due = gap->kind != CFSR_JOURNAL_GAP_RECORDS,
        .lsn = gap->begin_lsn,
        .lsn_end = gap->end_lsn,
    };
    begin(scrub, task);
}

static void begin_part(struct cfsr_scrub_mend *mend, uint32_t part)
{
    mend->part = part;
    mend->lsn = mend->inbox_gap.part[part].lsn_from;
    mend->lsn_end = mend->inbox_gap.part[part].lsn_to;
    mend->tried = 0;
    mend->away = false;
}

void cfsr_scrub_mend_inbox(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task,
                           const struct cfsr_inbox_gap *gap)
{
    CFSR_ASSERT(gap->parts > 0 && gap->parts <= CFSR_INBOX_ORIGINS_MAX);
    task->mend = (struct cfsr_scrub_mend){.inbox = true, .inbox_gap = *gap};
    begin_part(&task->mend, 0);
    begin(scrub, task);
}

static enum cfsr_scrub_finding_kind kind_of(const struct cfsr_scrub_mend *mend)
{
    if (mend->inbox)
        return CFSR_SCRUB_FOUND_INBOX;
    switch (mend->journal_gap.kind) {
    case CFSR_JOURNAL_GAP_HEADER: return CFSR_SCRUB_FOUND_HEADER;
    case CFSR_JOURNAL_GAP_SEGMENT: return CFSR_SCRUB_FOUND_SEGMENT;
    case CFSR_JOURNAL_GAP_RECORDS: break;
    }
    return CFSR_SCRUB_FOUND_RECORDS;
}

/* Keeps an inbox gap that was not closed, to be tried again. */
static void keep_waiting(struct cfsr_scrub *scrub, const struct cfsr_inbox_gap *gap,
                         enum cfsr_scrub_outcome outcome)
{
    uint32_t at = 0;

    while (at < scrub->waiting_count && (scrub->waiting[at].gap.lane != gap->lane ||
                                         scrub->waiting[at].gap.sequence != gap->sequence ||
                                         scrub->waiting[at].gap.begin != gap->begin))
        at++;
    if (at == CFSR_SCRUB_WAITING_MAX)
        return; /* the next run finds it again */
    scrub->waiting[at] = (struct cfsr_scrub_waiting){.gap = *gap, .outcome = outcome};
    if (at == scrub->waiting_count)
        scrub->waiting_count++;
}

static void count_outcome(struct cfsr_scrub *scrub, const struct cfsr_scrub_task *task,
                          enum cfsr_scrub_outcome outcome)
{
    struct cfsr_scrub_lane *lane = &scrub->lane[task->lane];

    switch (outcome) {
    case CFSR_SCRUB_REPAIRED:
        lane->repaired++;
        scrub->counters.repaired++;
        break;
    case CFSR_SCRUB_UNREPAIRABLE:
        lane->unrepairable++;
        scrub->counters.unrepairable += !task->again;
        break;
    case CFSR_SCRUB_WAITING: lane->waiting++; break;
    case CFSR_SCRUB_REPORTED: break;
    }
}

static void finish(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, uint64_t wall_us)
{
    struct cfsr_scrub_mend *mend = &task->mend;
    const struct cfsr_inbox_gap_part *part = &mend->inbox_gap.part[0];
    enum cfsr_scrub_outcome outcome = !mend->failed ? CFSR_SCRUB_REPAIRED
                                      : mend->waits ? CFSR_SCRUB_WAITING
                                                    : CFSR_SCRUB_UNREPAIRABLE;
    struct cfsr_scrub_finding finding = {
        .kind = kind_of(mend),
        .outcome = outcome,
        .lane = task->lane,
        .site_id = mend->inbox ? part->site_id : scrub->options.site->site_id,
        .lsn_from = mend->inbox ? part->lsn_from : mend->journal_gap.begin_lsn,
        .lsn_to = mend->inbox ? part->lsn_to : mend->journal_gap.end_lsn,
        .reason = mend->failed ? mend->reason : 0,
        .at_us = wall_us,
    };

    mend->active = false;
    count_outcome(scrub, task, outcome);
    cfsr_scrub_report(scrub, &finding);
    if (outcome != CFSR_SCRUB_REPAIRED) {
        if (task->gaps_open++ == 0)
            task->open_lsn = mend->journal_gap.begin_lsn;
        task->gaps_wait = task->gaps_wait || outcome == CFSR_SCRUB_WAITING;
        if (mend->inbox)
            keep_waiting(scrub, &mend->inbox_gap, outcome);
    } else if (!mend->inbox && mend->journal_gap.kind == CFSR_JOURNAL_GAP_HEADER) {
        task->seek = true; /* its records have not been looked at */
        task->seek_lsn = mend->journal_gap.begin_lsn;
    }
}

/* What is missing at this place cannot be had: a journal's gap ends here, an inbox's next part may
 * fare better. */
static void fail_part(struct cfsr_scrub_mend *mend, int reason)
{
    mend->failed = true;
    mend->waits = mend->waits || mend->away;
    if (mend->reason == 0 || mend->away)
        mend->reason = reason;
    mend->lsn = mend->lsn_end;
}

static uint32_t origin_peer(const struct cfsr_scrub *scrub, const struct cfsr_scrub_mend *mend)
{
    for (uint32_t i = 0; mend->inbox && i < scrub->options.peer_count; i++)
        if (scrub->options.peer_sites[i] == mend->inbox_gap.part[mend->part].site_id)
            return i;
    return scrub->options.peer_count;
}

/* Marks the peer as tried; true if it can be asked now. */
static bool try_peer(struct cfsr_scrub *scrub, struct cfsr_scrub_mend *mend, uint32_t peer,
                     uint32_t lane)
{
    if (peer >= scrub->options.peer_count || (mend->tried >> peer & 1) != 0)
        return false;
    mend->tried |= 1ull << peer;
    if (scrub->options.can_ask(scrub->options.user, peer, lane)) {
        mend->peer = peer;
        return true;
    }
    mend->away = true;
    return false;
}

/* Who helped last, the origin, then everybody else. */
static bool choose_peer(struct cfsr_scrub *scrub, struct cfsr_scrub_mend *mend, uint32_t lane)
{
    if (try_peer(scrub, mend, mend->peer, lane) ||
        try_peer(scrub, mend, origin_peer(scrub, mend), lane))
        return true;
    for (uint32_t peer = 0; peer < scrub->options.peer_count; peer++)
        if (try_peer(scrub, mend, peer, lane))
            return true;
    return false;
}

static void fill_step(const struct cfsr_scrub *scrub, const struct cfsr_scrub_task *task,
                      struct cfsr_scrub_step *step)
{
    const struct cfsr_scrub_mend *mend = &task->mend;

    step->lane = task->lane;
    step->peer = mend->peer;
    step->lsn_from = mend->lsn;
    step->lsn_to = mend->lsn_end;
    step->origin = scrub->options.site->site_id;
    step->journal = scrub->options.site->journal;
    if (!mend->inbox)
        return;
    step->inbox_gap = &mend->inbox_gap;
    step->inbox_part = mend->part;
    step->origin = mend->inbox_gap.part[mend->part].site_id;
    step->journal = mend->inbox_gap.part[mend->part].journal;
}

bool cfsr_scrub_mend_step(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, uint64_t wall_us,
                          struct cfsr_scrub_step *step)
{
    struct cfsr_scrub_mend *mend = &task->mend;

    for (;;) {
        if (mend->header_due && !mend->failed) {
            step->type = CFSR_SCRUB_MEND_HEADER;
        } else if (mend->lsn >= mend->lsn_end) {
            if (mend->inbox && mend->part + 1 < mend->inbox_gap.parts) {
                begin_part(mend, mend->part + 1);
                continue;
            }
            finish(scrub, task, wall_us);
            return false;
        } else if (mend->answered) {
            step->type = CFSR_SCRUB_APPLY;
        } else if (choose_peer(scrub, mend, task->lane)) {
            step->type = CFSR_SCRUB_ASK_RECORDS;
        } else {
            fail_part(mend, mend->away          ? -CFSR_E_UNREACHABLE
                            : mend->reason != 0 ? mend->reason
                                                : -CFSR_E_GONE);
            continue;
        }
        fill_step(scrub, task, step);
        return true;
    }
}

void cfsr_scrub_mend_answered(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, int rc)
{
    struct cfsr_scrub_mend *mend = &task->mend;

    (void)scrub;
    mend->answered = rc == 0;
    if (rc == 0)
        return;
    /* Nobody said that he lacks it: he may be asked later. */
    mend->away = mend->away || rc == -CFSR_E_TIMEOUT || rc == -CFSR_E_UNREACHABLE;
    mend->reason = rc;
}

void cfsr_scrub_mend_applied(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task,
                             uint64_t now_ns, int rc, bool refused, uint64_t end_lsn)
{
    struct cfsr_scrub_mend *mend = &task->mend;

    if (rc == -EAGAIN || rc == -CFSR_E_LOCKED) {
        scrub->hold_ns = now_ns + CFSR_SCRUB_HOLD_NS;
        return;
    }
    mend->answered = false;
    if (refused) {
        scrub->counters.replies_refused++;
        mend->reason = rc;
        return; /* the next peer */
    }
    if (rc == -CFSR_E_GONE && !mend->inbox) { /* retention was faster: there is nothing to mend */
        mend->header_due = false;
        mend->lsn = mend->lsn_end;
        return;
    }
    if (rc < 0) {
        mend->away = true; /* this site's disk: it may be better later */
        fail_part(mend, rc);
        return;
    }
    if (mend->header_due) {
        mend->header_due = false;
        if (mend->journal_gap.kind == CFSR_JOURNAL_GAP_HEADER)
            mend->lsn = mend->lsn_end; /* the check goes on with its records */
        return;
    }
    CFSR_ASSERT(end_lsn > mend->lsn);
    mend->lsn = end_lsn;
    mend->tried = 0;
    mend->away = false;
}
