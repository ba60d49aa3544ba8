/*
 * test_scrub.c - what a scrub does next: the machine alone, no disk, no peer.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "repl/scrub.h"

#define SEC     1000000000ull
#define MIB     (1ull << 20)
#define SEGMENT (4 * MIB)

static struct cfsr_scrub scrub;
static struct cfsr_site site;
static const uint64_t peers[3] = {2, 3, 4};
static uint64_t askable; /* bit a peer */
static uint64_t acked[3];
static uint64_t now;

static bool can_ask(void *user, uint32_t peer, uint32_t lane)
{
    (void)user;
    (void)lane;
    return askable >> peer & 1;
}

static uint64_t acked_lsn(void *user, uint32_t peer, uint32_t lane)
{
    (void)user;
    (void)lane;
    return acked[peer];
}

static void start(uint64_t rate, uint64_t interval_ns)
{
    const struct cfsr_scrub_options options = {.site = &site,
                                               .rate_bytes_per_s = rate,
                                               .interval_ns = interval_ns,
                                               .retry_ns = 30 * SEC,
                                               .lane_mask = 0x3,
                                               .peer_count = 3,
                                               .peer_sites = peers,
                                               .can_ask = can_ask,
                                               .acked_lsn = acked_lsn};
    cfsr_scrub_init(&scrub, &options, now);
}

static void set_up(void)
{
    site = (struct cfsr_site){.site_id = 1, .lanes = 2, .segment_bytes = SEGMENT};
    askable = 7;
    memset(acked, 0, sizeof acked);
    now = 100 * SEC;
    start(0, 0);
}
TestSuite(scrub, .init = set_up);

static struct cfsr_scrub_step take(enum cfsr_scrub_step_type type)
{
    const struct cfsr_scrub_step *step = cfsr_scrub_next(&scrub, now, 5);
    cr_assert_eq(step->type, type, "step %d where %d was due", step->type, type);
    return *step;
}

static void ask(uint64_t run, uint64_t lanes, unsigned parts)
{
    const struct cfsr_scrub_request request = {.run = run, .lane_mask = lanes, .parts = parts};
    cfsr_scrub_ask(&scrub, &request);
}

static void journal_done(uint64_t bytes)
{
    cfsr_scrub_on_journal_checked(&scrub, now, 5, CFSR_JOURNAL_CHECK_DONE, bytes, NULL);
}

static void journal_gap(enum cfsr_journal_gap_kind kind, uint64_t begin, uint64_t end)
{
    const struct cfsr_journal_gap gap = {.kind = kind, .begin_lsn = begin, .end_lsn = end};
    cfsr_scrub_on_journal_checked(&scrub, now, 5, CFSR_JOURNAL_CHECK_GAP, 0, &gap);
}

static void answer(int rc)
{
    cfsr_scrub_on_answer(&scrub, now, 5, rc, 0);
}

static void applied(int rc, bool refused, uint64_t end)
{
    cfsr_scrub_on_applied(&scrub, now, 5, rc, refused, end);
}

Test(scrub, nothing_is_done_unasked)
{
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(cfsr_scrub_deadline(&scrub), UINT64_MAX);
}

Test(scrub, a_run_visits_every_lane_and_part_once)
{
    ask(1, 0xff, CFSR_SCRUB_ALL); /* lanes of other cores are passed over */
    for (uint32_t lane = 0; lane < 2; lane++) {
        struct cfsr_scrub_step step = take(CFSR_SCRUB_CHECK_JOURNAL);
        cr_assert(step.lane == lane && step.fresh && step.lsn_from == 0);
        take(CFSR_SCRUB_NONE); /* one step at a time */
        cfsr_scrub_on_journal_checked(&scrub, now, 5, CFSR_JOURNAL_CHECK_MORE, 10, NULL);
        cr_assert_not(take(CFSR_SCRUB_CHECK_JOURNAL).fresh);
        journal_done(10);
        cr_assert(take(CFSR_SCRUB_CHECK_INBOX).fresh);
        cfsr_scrub_on_inbox_checked(&scrub, now, 5, CFSR_INBOX_CHECK_DONE, 5, NULL);
        cr_assert_eq(scrub.lane[lane].bytes, 25);
    }
    cr_assert_eq(scrub.run_finished, 0);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.run_finished, 1);
    cr_assert_eq(scrub.lane[1].finished_us, 5);
}

Test(scrub, a_run_for_lanes_of_other_cores_is_over_at_once)
{
    ask(4, 0xf0, CFSR_SCRUB_ALL);
    cr_assert_eq(scrub.run_finished, 4);
    ask(5, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    ask(6, 0xf0, CFSR_SCRUB_ALL);
    cr_assert_eq(scrub.run_finished, 4);
    journal_done(0);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.run_finished, 6);
}

Test(scrub, a_second_run_follows_the_first)
{
    ask(1, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    ask(2, 1, CFSR_SCRUB_JOURNAL); /* what was checked before it was asked for does not count */
    journal_done(0);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert_eq(scrub.run_finished, 1);
    journal_done(0);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.run_finished, 2);
}

Test(scrub, the_rate_holds_a_run_back)
{
    start(MIB, 0);
    const struct cfsr_scrub_request request = {
        .lane_mask = 1, .parts = CFSR_SCRUB_JOURNAL, .rate_bytes_per_s = MIB};
    cfsr_scrub_ask(&scrub, &request);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cfsr_scrub_on_journal_checked(&scrub, now, 5, CFSR_JOURNAL_CHECK_MORE, 4 * MIB, NULL);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(cfsr_scrub_deadline(&scrub), now + 4 * SEC);
    now += 4 * SEC - 1;
    take(CFSR_SCRUB_NONE);
    now += 1;
    take(CFSR_SCRUB_CHECK_JOURNAL);
}

Test(scrub, runs_come_by_themselves)
{
    start(0, 8 * SEC);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(cfsr_scrub_deadline(&scrub), now + SEC);
    now += SEC;
    take(CFSR_SCRUB_CHECK_JOURNAL);
}

Test(scrub, a_gap_is_fetched_range_by_range)
{
    ask(1, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, 800, 2400);
    struct cfsr_scrub_step step = take(CFSR_SCRUB_ASK_RECORDS);
    cr_assert(step.lsn_from == 800 && step.lsn_to == 2400 && step.peer == 0 && step.origin == 1);
    answer(0);
    step = take(CFSR_SCRUB_APPLY);
    cr_assert_eq(step.lsn_from, 800);
    applied(0, false, 1600);
    step = take(CFSR_SCRUB_ASK_RECORDS);
    cr_assert(step.lsn_from == 1600 && step.peer == 0);
    answer(0);
    take(CFSR_SCRUB_APPLY);
    applied(0, false, 2400);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert(scrub.counters.found == 1 && scrub.counters.repaired == 1);
    cr_assert_eq(scrub.mended_mask, 1);
    cr_assert_eq(scrub.finding[0].outcome, CFSR_SCRUB_REPAIRED);
}

Test(scrub, who_lies_or_has_nothing_is_followed_by_the_next)
{
    ask(1, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, 800, 1600);
    cr_assert_eq(take(CFSR_SCRUB_ASK_RECORDS).peer, 0);
    answer(-CFSR_E_GONE);
    cr_assert_eq(take(CFSR_SCRUB_ASK_RECORDS).peer, 1);
    answer(0);
    take(CFSR_SCRUB_APPLY);
    applied(-CFSR_E_BAD_TAG, true, 0);
    cr_assert_eq(scrub.counters.replies_refused, 1);
    cr_assert_eq(take(CFSR_SCRUB_ASK_RECORDS).peer, 2);
    answer(0);
    take(CFSR_SCRUB_APPLY);
    applied(0, false, 1600);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert_eq(scrub.counters.repaired, 1);
}

Test(scrub, what_nobody_has_is_said_with_the_reason)
{
    ask(1, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, 800, 1600);
    for (uint32_t peer = 0; peer < 3; peer++) {
        cr_assert_eq(take(CFSR_SCRUB_ASK_RECORDS).peer, peer);
        answer(-CFSR_E_GONE);
    }
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert_eq(scrub.finding[0].outcome, CFSR_SCRUB_UNREPAIRABLE);
    cr_assert_eq(scrub.finding[0].reason, -CFSR_E_GONE);
    cr_assert(scrub.counters.unrepairable == 1 && scrub.lane[0].unrepairable == 1);
}

Test(scrub, all_that_waits_in_a_lane_is_tried_again)
{
    askable = 0; /* everybody is away */
    ask(1, 2, CFSR_SCRUB_JOURNAL);
    for (uint64_t at = SEGMENT + 800; at <= 3 * SEGMENT + 800; at += 2 * SEGMENT) {
        take(CFSR_SCRUB_CHECK_JOURNAL);
        journal_gap(CFSR_JOURNAL_GAP_RECORDS, at, at + 800);
    }
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert_eq(scrub.waiting_mask, 2);
    cfsr_scrub_on_peer(&scrub, now);
    now += 60 * SEC;
    struct cfsr_scrub_step step = take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert_eq(step.lsn_from, SEGMENT, "from the first place that waits");
    cr_assert_eq(step.lsn_to, UINT64_MAX, "to the end: there are more");
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, 3 * SEGMENT + 800, 3 * SEGMENT + 1600);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert_eq(scrub.waiting_mask, 2);
    /* A link that meets another place does not make it forget the one that waits. */
    cfsr_scrub_on_damaged(&scrub, 1, 5 * SEGMENT);
    step = take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert(step.lsn_from == 3 * SEGMENT && step.lsn_to == UINT64_MAX);
}

Test(scrub, what_waits_for_a_peer_is_tried_when_it_is_back)
{
    askable = 1; /* the others are away */
    cfsr_scrub_on_damaged(&scrub, 1, SEGMENT + 800);
    struct cfsr_scrub_step step = take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert(step.lsn_from == SEGMENT && step.lsn_to == 2 * SEGMENT && step.fresh);
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, SEGMENT + 800, SEGMENT + 1600);
    cr_assert_eq(take(CFSR_SCRUB_ASK_RECORDS).peer, 0);
    answer(-CFSR_E_GONE);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert_eq(scrub.finding[0].outcome, CFSR_SCRUB_WAITING);
    cr_assert_eq(scrub.hopeless_mask, 0, "somebody may have it");
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(cfsr_scrub_deadline(&scrub), now + 30 * SEC);
    askable = 7;
    cfsr_scrub_on_peer(&scrub, now);
    now = cfsr_scrub_deadline(&scrub);
    cr_assert_lt(now, 101 * SEC);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, SEGMENT + 800, SEGMENT + 1600);
    cr_assert_eq(take(CFSR_SCRUB_ASK_RECORDS).peer, 0);
    answer(-CFSR_E_GONE);
    cr_assert_eq(take(CFSR_SCRUB_ASK_RECORDS).peer, 1);
    answer(0);
    take(CFSR_SCRUB_APPLY);
    applied(0, false, SEGMENT + 1600);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert_eq(scrub.mended_mask, 2);
    cr_assert_eq(scrub.counters.found, 1, "the same damage is counted once");
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(cfsr_scrub_deadline(&scrub), UINT64_MAX);
}

Test(scrub, a_link_is_told_when_nobody_has_it)
{
    cfsr_scrub_on_damaged(&scrub, 0, 800);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, 800, 1600);
    for (unsigned i = 0; i < 3; i++) {
        take(CFSR_SCRUB_ASK_RECORDS);
        answer(-CFSR_E_GONE);
    }
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert(scrub.hopeless_mask == 1 && scrub.hopeless_lsn[0] == 800);
    cr_assert_eq(scrub.mended_mask, 0);
}

Test(scrub, damage_that_a_link_met_goes_before_a_throttled_run)
{
    start(MIB, 0);
    const struct cfsr_scrub_request request = {
        .lane_mask = 1, .parts = CFSR_SCRUB_JOURNAL, .rate_bytes_per_s = MIB};
    cfsr_scrub_ask(&scrub, &request);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cfsr_scrub_on_journal_checked(&scrub, now, 5, CFSR_JOURNAL_CHECK_MORE, 100 * MIB, NULL);
    take(CFSR_SCRUB_NONE);
    cfsr_scrub_on_damaged(&scrub, 1, 800);
    struct cfsr_scrub_step step = take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert(step.lane == 1 && step.task == CFSR_SCRUB_URGENT);
    journal_done(SEGMENT);
    take(CFSR_SCRUB_NONE);
    now += 100 * SEC;
    step = take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert(step.lane == 0 && step.task == CFSR_SCRUB_RUN && !step.fresh, "and the run goes on");
}

Test(scrub, damage_that_is_never_found_ends_in_a_fault)
{
    for (unsigned i = 0; i < 8; i++) {
        cr_assert_eq(scrub.hopeless_mask, 0, "round %u", i);
        cfsr_scrub_on_damaged(&scrub, 0, 800);
        take(CFSR_SCRUB_CHECK_JOURNAL);
        journal_done(0);
    }
    cr_assert_eq(scrub.hopeless_mask, 1);
}

Test(scrub, a_header_is_made_anew_and_its_records_are_checked)
{
    ask(1, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_HEADER, SEGMENT, 2 * SEGMENT);
    cr_assert_eq(take(CFSR_SCRUB_MEND_HEADER).lsn_from, SEGMENT);
    applied(-CFSR_E_LOCKED, false, 0);
    take(CFSR_SCRUB_NONE);
    now = cfsr_scrub_deadline(&scrub);
    take(CFSR_SCRUB_MEND_HEADER);
    applied(0, false, SEGMENT);
    struct cfsr_scrub_step step = take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert(step.seek && step.lsn_from == SEGMENT);
    journal_done(0);
    cr_assert_eq(scrub.counters.repaired, 1);
}

Test(scrub, a_missing_segment_is_made_and_refilled)
{
    ask(1, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_SEGMENT, SEGMENT, 2 * SEGMENT);
    take(CFSR_SCRUB_MEND_HEADER);
    applied(0, false, SEGMENT);
    struct cfsr_scrub_step step = take(CFSR_SCRUB_ASK_RECORDS);
    cr_assert(step.lsn_from == SEGMENT && step.lsn_to == 2 * SEGMENT);
    answer(0);
    take(CFSR_SCRUB_APPLY);
    applied(0, false, 2 * SEGMENT);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cr_assert_eq(scrub.finding[0].kind, CFSR_SCRUB_FOUND_SEGMENT);
}

static struct cfsr_inbox_gap inbox_gap(uint64_t begin)
{
    struct cfsr_inbox_gap gap = {.lane = 1, .sequence = 3, .begin = begin, .parts = 2};
    gap.part[0] = (struct cfsr_inbox_gap_part){.site_id = 3, .lsn_from = 80, .lsn_to = 160};
    gap.part[1] = (struct cfsr_inbox_gap_part){.site_id = 9, .lsn_from = 8, .lsn_to = 16};
    return gap;
}

Test(scrub, an_inbox_gap_asks_the_origin_first_for_each_part)
{
    struct cfsr_inbox_gap gap = inbox_gap(4096);
    ask(1, 2, CFSR_SCRUB_INBOX);
    take(CFSR_SCRUB_CHECK_INBOX);
    cfsr_scrub_on_inbox_checked(&scrub, now, 5, CFSR_INBOX_CHECK_GAP, 0, &gap);
    struct cfsr_scrub_step step = take(CFSR_SCRUB_ASK_RECORDS);
    cr_assert(step.peer == 1 && step.origin == 3 && step.lsn_from == 80 && step.inbox_part == 0);
    answer(0);
    take(CFSR_SCRUB_APPLY);
    applied(-EAGAIN, false, 0); /* no room yet */
    take(CFSR_SCRUB_NONE);
    now = cfsr_scrub_deadline(&scrub);
    take(CFSR_SCRUB_APPLY);
    applied(0, false, 160);
    step = take(CFSR_SCRUB_ASK_RECORDS); /* its origin is no peer: who helped is asked first */
    cr_assert(step.peer == 1 && step.origin == 9 && step.inbox_part == 1);
    for (unsigned i = 0; i < 3; i++) {
        if (i > 0)
            take(CFSR_SCRUB_ASK_RECORDS);
        answer(-CFSR_E_GONE);
    }
    take(CFSR_SCRUB_CHECK_INBOX);
    cr_assert_eq(scrub.finding[0].outcome, CFSR_SCRUB_UNREPAIRABLE, "a part is missing for good");
}

Test(scrub, inbox_gaps_that_wait_are_bounded_and_tried_again)
{
    askable = 0;
    ask(1, 2, CFSR_SCRUB_INBOX);
    for (uint64_t i = 0; i < CFSR_SCRUB_WAITING_MAX + 3; i++) {
        struct cfsr_inbox_gap gap = inbox_gap(4096 * i);
        take(CFSR_SCRUB_CHECK_INBOX);
        cfsr_scrub_on_inbox_checked(&scrub, now, 5, CFSR_INBOX_CHECK_GAP, 0, &gap);
    }
    take(CFSR_SCRUB_CHECK_INBOX);
    cfsr_scrub_on_inbox_checked(&scrub, now, 5, CFSR_INBOX_CHECK_DONE, 0, NULL);
    cr_assert_eq(scrub.waiting_count, CFSR_SCRUB_WAITING_MAX);
    cr_assert_eq(scrub.lane[1].waiting, CFSR_SCRUB_WAITING_MAX + 3);
    askable = 7;
    take(CFSR_SCRUB_NONE);
    now = cfsr_scrub_deadline(&scrub);
    for (unsigned i = 0; i < CFSR_SCRUB_WAITING_MAX; i++) {
        for (unsigned part = 0; part < 2; part++) {
            take(CFSR_SCRUB_ASK_RECORDS);
            answer(0);
            take(CFSR_SCRUB_APPLY);
            applied(0, false, 160);
        }
    }
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.waiting_count, 0);
    cr_assert(scrub.lane[1].repaired == CFSR_SCRUB_WAITING_MAX && scrub.lane[1].waiting == 3);
    cr_assert_eq(scrub.counters.found, CFSR_SCRUB_WAITING_MAX + 3);
}

Test(scrub, retries_of_what_nobody_has_become_rarer)
{
    askable = 0;
    struct cfsr_inbox_gap gap = inbox_gap(0);
    ask(1, 2, CFSR_SCRUB_INBOX);
    take(CFSR_SCRUB_CHECK_INBOX);
    cfsr_scrub_on_inbox_checked(&scrub, now, 5, CFSR_INBOX_CHECK_GAP, 0, &gap);
    take(CFSR_SCRUB_CHECK_INBOX);
    cfsr_scrub_on_inbox_checked(&scrub, now, 5, CFSR_INBOX_CHECK_DONE, 0, NULL);
    uint64_t pause = 0;
    for (unsigned i = 0; i < 10; i++) {
        take(CFSR_SCRUB_NONE);
        uint64_t due = cfsr_scrub_deadline(&scrub);
        cr_assert_gt(due, now, "round %u", i);
        cr_assert_geq(due - now, pause);
        pause = due - now;
        now = due;
    }
    cr_assert_leq(pause, 32 * 30 * SEC);
    cr_assert_gt(pause, 30 * SEC);
}

Test(scrub, windows_are_compared_up_to_what_the_peer_acked)
{
    askable = 2;
    acked[0] = 100 * MIB; /* away */
    acked[1] = 20 * MIB + 5;
    cfsr_scrub_set_floor(&scrub, 0, MIB + 8);
    ask(1, 1, CFSR_SCRUB_PEERS);
    struct cfsr_scrub_step step = take(CFSR_SCRUB_ASK_DIGESTS);
    cr_assert(step.peer == 1 && step.lsn_from == 2 * MIB && step.lsn_to == 18 * MIB);
    cfsr_scrub_on_answer(&scrub, now, 5, 0, 10 * MIB); /* it may give less */
    step = take(CFSR_SCRUB_COMPARE);
    cr_assert(step.lsn_from == 2 * MIB && step.lsn_to == 10 * MIB);
    cfsr_scrub_on_compared(&scrub, now, 5, 0, 8 * MIB, 8, 0, 0);
    step = take(CFSR_SCRUB_ASK_DIGESTS);
    cr_assert(step.lsn_from == 10 * MIB && step.lsn_to == 20 * MIB);
    cfsr_scrub_on_answer(&scrub, now, 5, 0, 20 * MIB);
    take(CFSR_SCRUB_COMPARE);
    cfsr_scrub_on_compared(&scrub, now, 5, 0, 10 * MIB, 10, 1, 12 * MIB);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.run_finished, 1);
    cr_assert(scrub.lane[0].windows_compared == 18 && scrub.lane[0].windows_different == 1);
    cr_assert_eq(scrub.finding[0].kind, CFSR_SCRUB_FOUND_FORKED);
    cr_assert(scrub.finding[0].lsn_from == 12 * MIB && scrub.finding[0].site_id == 3);
}

Test(scrub, damage_at_a_peer_is_reported_and_passed_over)
{
    askable = 1;
    acked[0] = 4 * MIB;
    ask(1, 1, CFSR_SCRUB_PEERS);
    take(CFSR_SCRUB_ASK_DIGESTS);
    cfsr_scrub_on_answer(&scrub, now, 5, -CFSR_E_DAMAGED, 0);
    cr_assert_eq(scrub.finding[0].kind, CFSR_SCRUB_FOUND_PEER_DAMAGED);
    cr_assert_eq(take(CFSR_SCRUB_ASK_DIGESTS).lsn_from, MIB);
    cfsr_scrub_on_answer(&scrub, now, 5, -CFSR_E_GONE, 0);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.run_finished, 1);
}

Test(scrub, an_inbox_check_that_retention_overtook_begins_anew)
{
    ask(1, 1, CFSR_SCRUB_INBOX);
    for (unsigned i = 0; i < 9; i++) {
        cr_assert(take(CFSR_SCRUB_CHECK_INBOX).fresh);
        cfsr_scrub_on_inbox_checked(&scrub, now, 5, -CFSR_E_GONE, 0, NULL);
    }
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.lane[0].error, -CFSR_E_GONE, "a bounded number of times");
}

Test(scrub, a_check_that_cannot_read_is_reported)
{
    ask(1, 1, CFSR_SCRUB_JOURNAL);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cfsr_scrub_on_journal_checked(&scrub, now, 5, -EIO, 0, NULL);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(scrub.run_finished, 1);
    cr_assert_eq(scrub.lane[0].error, -EIO);
}

Test(scrub, a_run_that_finds_a_lane_sound_lets_its_links_go_on)
{
    cfsr_scrub_on_damaged(&scrub, 0, 800);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_gap(CFSR_JOURNAL_GAP_RECORDS, 800, 1600);
    for (unsigned i = 0; i < 3; i++) {
        take(CFSR_SCRUB_ASK_RECORDS);
        answer(-CFSR_E_GONE);
    }
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert(scrub.hopeless_mask == 1 && scrub.mended_mask == 0);
    ask(1, 1, CFSR_SCRUB_JOURNAL); /* somebody has mended it by hand */
    take(CFSR_SCRUB_CHECK_JOURNAL);
    journal_done(0);
    cr_assert_eq(scrub.mended_mask, 1);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(cfsr_scrub_deadline(&scrub), UINT64_MAX, "nothing is tried again");
}

Test(scrub, a_check_that_cannot_read_lets_no_link_go_on)
{
    cfsr_scrub_on_damaged(&scrub, 0, 800);
    take(CFSR_SCRUB_CHECK_JOURNAL);
    cfsr_scrub_on_journal_checked(&scrub, now, 5, -EIO, 0, NULL);
    cr_assert_eq(scrub.mended_mask, 0);
    take(CFSR_SCRUB_NONE);
    cr_assert_eq(cfsr_scrub_deadline(&scrub), now + 30 * SEC, "it is tried again");
}
