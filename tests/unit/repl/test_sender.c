/*
 * test_sender.c - the outgoing half alone: events in, actions out. The peer is a bare session of
 * site 2.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "repl/sender.h"
#include "session_pair.h"

#define MS   1000000ull
#define SEC  (1000 * MS)
#define WALL 1700000000000000ull
#define MASK 0x88ull /* lanes 3 and 7 */

static struct cfsr_sender s;
static struct cfsr_outbox out;
static uint64_t now;
static struct cfsr_hello_ack reply;
static uint8_t frame[FRAME_BYTES];

static void sender_set_up(void)
{
    session_pair_set_up();
    struct cfsr_sender_options options = {
        .local = &a.local,
        .peer_site_id = 2,
        .lane_mask = MASK,
        .window_bytes = 1000,
        .batch_bytes = 200,
        .batch_timeout_ns = 5 * MS,
        .heartbeat_ns = SEC,
        .hello_timeout_ns = 3 * SEC,
        .progress_timeout_ns = 10 * SEC,
        .backoff_min_ns = 100 * MS,
        .backoff_max_ns = 2 * SEC,
        .fault_retry_ns = 30 * SEC,
    };
    now = 100 * SEC;
    cfsr_sender_init(&s, &options, now);
    reply = (struct cfsr_hello_ack){.lane_mask = MASK, .wall_us = WALL};
    reply.lane[3].last.lsn = reply.lane[7].last.lsn = UINT64_MAX;
}

static void sender_tear_down(void)
{
    cfsr_sender_fini(&s);
    session_pair_tear_down();
}

TestSuite(sender, .init = sender_set_up, .fini = sender_tear_down);

static unsigned count_of(enum cfsr_action_type type)
{
    unsigned count = 0;
    for (unsigned i = 0; i < out.count; i++)
        count += out.item[i].type == type;
    return count;
}

static const struct cfsr_action *action_of(enum cfsr_action_type type)
{
    for (unsigned i = 0; i < out.count; i++)
        if (out.item[i].type == type)
            return &out.item[i];
    cr_assert(false, "no action %d", type);
    return NULL;
}

static void expect_close(int reason)
{
    cr_assert_eq(action_of(CFSR_ACTION_CLOSE)->reason, reason, "%s",
                 cfsr_error_name(action_of(CFSR_ACTION_CLOSE)->reason));
    cr_assert_eq(s.state, CFSR_SENDER_CLOSING);
}

static void tick(void)
{
    out.count = 0;
    cfsr_sender_tick(&s, now, WALL + now / 1000, &out);
}

/* Dials and sends HELLO; the peer reads it. */
static void dial_peer(void)
{
    uint8_t nonce[32];
    now = s.retry_at_ns > now ? s.retry_at_ns : now;
    tick();
    cr_assert_eq(count_of(CFSR_ACTION_DIAL), 1);
    memset(nonce, 0x11, sizeof nonce);
    out.count = 0;
    cfsr_sender_on_connected(&s, now, WALL, nonce, &out);
    const struct cfsr_action *hello = action_of(CFSR_ACTION_SEND_FRAME);
    cr_assert_eq(s.state, CFSR_SENDER_HELLO);
    cfsr_session_fini(&answer);
    memset(nonce, 0x22, sizeof nonce);
    cr_assert_eq(cfsr_session_init(&answer, &b.local, false, 0, nonce), 0);
    (void)cfsr_session_on_hello(&answer, hello->frame, hello->frame_bytes, knows_1_and_2, NULL);
    out.count = 0;
}

static void deliver(uint32_t frame_bytes)
{
    struct cfsr_link_header header;
    cr_assert_eq(cfsr_link_header_load(frame, &header), 0);
    cr_assert_eq(frame_bytes, CFSR_LINK_HEADER_BYTES + header.length_bytes);
    out.count = 0;
    cfsr_sender_on_frame(&s, now, WALL, &header, frame, &out);
}

static void answer_hello(void)
{
    int len = cfsr_session_hello_ack(&answer, &reply, frame);
    cr_assert_gt(len, 0);
    deliver((uint32_t)len);
}

static void open_from_peer(void) /* the first frame of ours opens: the peer is established */
{
    struct cfsr_link_header header;
    const struct cfsr_action *sent = action_of(CFSR_ACTION_SEND_FRAME);
    cr_assert_eq(cfsr_link_header_load(sent->frame, &header), 0);
    cr_assert_eq(cfsr_session_open(&answer, &header, sent->frame), 0);
    cr_assert_eq(header.type, CFSR_FRAME_HEARTBEAT);
}

static void connect_peer(void)
{
    dial_peer();
    answer_hello();
    cr_assert_eq(s.state, CFSR_SENDER_RUNNING, "state %d %s", s.state, s.last_detail);
    open_from_peer();
}

static void head(uint32_t lane, uint64_t lsn)
{
    cfsr_sender_on_head(&s, now, lane, lsn, lsn / 10);
}

static void ack(uint32_t lane, uint64_t lsn, uint8_t backpressure)
{
    struct cfsr_ack body = {.backpressure_pct = backpressure, .count = lane == UINT32_MAX ? 0 : 1};
    body.lane[0] = (struct cfsr_ack_lane){
        .lane = (uint16_t)lane, .durable_lsn = lsn, .applied_lsn = UINT64_MAX, .entries = lsn / 10};
    uint32_t len = cfsr_ack_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    deliver(cfsr_session_seal(&answer, CFSR_FRAME_ACK, 0, frame, len));
}

static void goodbye(int32_t reason)
{
    struct cfsr_goodbye body = {.reason = reason};
    uint32_t len = cfsr_goodbye_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    deliver(cfsr_session_seal(&answer, CFSR_FRAME_GOODBYE, 0, frame, len));
}

static bool next(bool idle, uint32_t *lane, uint64_t *from)
{
    return cfsr_sender_next(&s, now, idle, 0, lane, from);
}

static void closed(int reason)
{
    cfsr_sender_on_closed(&s, now, reason, 0);
}

static const char *reason_of(enum cfsr_link_state expected)
{
    const char *reason;
    cr_assert_str_eq(cfsr_link_state_name(cfsr_sender_link_state(&s, &reason)),
                     cfsr_link_state_name(expected));
    return reason;
}

/* ---- dialling ---- */

Test(sender, back_off_doubles_to_its_maximum_with_jitter)
{
    static const uint64_t full[] = {100 * MS,  200 * MS, 400 * MS, 800 * MS,
                                    1600 * MS, 2 * SEC,  2 * SEC,  2 * SEC};
    for (unsigned i = 0; i < sizeof full / sizeof full[0]; i++) {
        now = s.retry_at_ns > now ? s.retry_at_ns : now;
        cr_assert_eq(cfsr_sender_next_deadline(&s), s.retry_at_ns);
        tick();
        cr_assert_eq(count_of(CFSR_ACTION_DIAL), 1);
        cfsr_sender_on_closed(&s, now, -ECONNREFUSED, i % 2 == 0 ? 0 : UINT32_MAX);
        cr_assert_eq(s.retry_at_ns - now, i % 2 == 0 ? full[i] / 2 : full[i], "attempt %u", i);
        now = s.retry_at_ns - 1;
        tick();
        cr_assert_eq(out.count, 0);
    }
    cr_assert_str_eq(reason_of(CFSR_LINK_STALLED), "econnrefused");
    connect_peer();
    closed(-ECONNRESET);
    cr_assert_eq(s.retry_at_ns - now, 50 * MS, "a connection that ran begins anew");
}

Test(sender, an_unanswered_handshake_times_out)
{
    dial_peer();
    now += 3 * SEC - 1;
    tick();
    cr_assert_eq(out.count, 0);
    now++;
    cr_assert_eq(cfsr_sender_next_deadline(&s), now);
    tick();
    expect_close(-CFSR_E_TIMEOUT);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 0);
    cr_assert_eq(s.counters.timeouts, 1);
}

Test(sender, unanswered_stamp_checks_time_out)
{
    head(3, 500);
    reply.lane[3].cursor = 500;
    reply.lane[3].last.lsn = 400;
    dial_peer();
    answer_hello();
    cr_assert_eq(s.state, CFSR_SENDER_CHECKING);
    now += 3 * SEC;
    tick();
    expect_close(-CFSR_E_TIMEOUT);
    closed(0);
    out.count = 0;
    cfsr_sender_on_stamp(&s, now, WALL, 3, 0, &reply.lane[3].last, 500, &out);
    cr_assert_eq(out.count, 0, "late answers are dropped");
}

Test(sender, proven_refusals_fault_or_stall)
{
    reply.status = CFSR_E_LANES_DIFFER;
    dial_peer();
    answer_hello();
    expect_close(-CFSR_E_LANES_DIFFER);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_FAULTED), "lanes_differ");
    cr_assert_eq(s.retry_at_ns - now, 15 * SEC, "a faulted link asks slowly");

    reply.status = CFSR_E_FAILED;
    dial_peer();
    answer_hello();
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_STALLED), "failed");
    cr_assert_eq(s.counters.refusals, 2);

    reply.status = 0;
    connect_peer();
    cr_assert_str_eq(reason_of(CFSR_LINK_STREAMING), "");
}

Test(sender, an_unproven_refusal_never_hides_a_proven_fault)
{
    use_keys(&b, "key 1 site-pair * " SECRET_2 "\n");
    dial_peer(); /* the peer cannot read the HELLO: its refusal is a hint */
    answer_hello();
    expect_close(-CFSR_E_BAD_KEY);
    cr_assert_not(s.session.authenticated);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_FAULTED), "bad_key", "shown, for want of anything better");
    s.fault = -CFSR_E_JOURNAL_FORKED;
    dial_peer();
    answer_hello();
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_FAULTED), "journal_forked");
}

Test(sender, another_core_is_no_failure)
{
    b.local.cores = 4;
    reply.status = CFSR_E_WRONG_CORE;
    dial_peer();
    answer_hello();
    expect_close(-CFSR_E_WRONG_CORE);
    cr_assert_eq(action_of(CFSR_ACTION_REROUTE)->cores, 4);
    closed(0);
    cr_assert_eq(s.counters.refusals, 0);
    cr_assert_leq(s.retry_at_ns, now, "without back-off");
    dial_peer();
    answer_hello();
    closed(0);
    cr_assert_gt(s.retry_at_ns, now,
                 "but not for ever: a confused peer is not dialled without a pause");
}

/* ---- where the peer stands ---- */

static void check_lane_3(int rc, uint64_t lsn, uint32_t crc, uint64_t end_lsn)
{
    head(3, 500);
    reply.lane[3].cursor = 400;
    reply.lane[3].entries = 40;
    reply.lane[3].last = (struct cfsr_record_stamp){
        .lsn = 304, .seq = 5, .timestamp_us = 6, .crc = 7};
    dial_peer();
    answer_hello();
    cr_assert_eq(count_of(CFSR_ACTION_CHECK_STAMP), 1);
    cr_assert_eq(action_of(CFSR_ACTION_CHECK_STAMP)->lane, 3);
    struct cfsr_record_stamp found = {.lsn = lsn, .seq = 5, .timestamp_us = 6, .crc = crc};
    out.count = 0;
    cfsr_sender_on_stamp(&s, now, WALL, 3, rc, &found, end_lsn, &out);
}

Test(sender, an_equal_stamp_resumes_at_the_cursor)
{
    uint32_t lane;
    uint64_t from;
    check_lane_3(0, 304, 7, 400);
    cr_assert_eq(s.state, CFSR_SENDER_RUNNING);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 1, "a heartbeat proves the key at once");
    cr_assert_eq(action_of(CFSR_ACTION_ACKED)->lsn, 400, "what is durable there is published");
    cr_assert(next(true, &lane, &from));
    cr_assert(lane == 3 && from == 400);
    cr_assert_eq(s.lane[3].acked_entries, 40);
}

static void expect_fork(uint64_t lsn)
{
    expect_close(-CFSR_E_JOURNAL_FORKED);
    cr_assert_eq(count_of(CFSR_ACTION_ACKED), 0);
    cr_assert_eq(s.fault_lane, 3);
    cr_assert_eq(s.fault_lsn, lsn);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_FAULTED), "journal_forked");
}

Test(sender, another_crc_is_a_fork)
{
    check_lane_3(0, 304, 8, 400);
    expect_fork(304);
}
Test(sender, another_end_is_a_fork)
{
    check_lane_3(0, 304, 7, 408);
    expect_fork(304);
}
Test(sender, bytes_that_are_no_record_are_a_fork)
{
    check_lane_3(-CFSR_E_FORMAT, 304, 7, 400);
    expect_fork(304);
}

Test(sender, a_range_that_is_gone_needs_a_bootstrap)
{
    check_lane_3(-ENOENT, 0, 0, 0);
    expect_close(-CFSR_E_NEEDS_BOOTSTRAP);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_FAULTED), "needs_bootstrap");
}

Test(sender, a_disk_that_could_not_be_read_is_asked_again)
{
    check_lane_3(-EIO, 0, 0, 0);
    expect_close(-EIO);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_STALLED), "eio");
}

Test(sender, a_cursor_above_the_head_is_a_fork)
{
    head(3, 300);
    reply.lane[3].cursor = 400;
    reply.lane[3].last.lsn = 344;
    dial_peer();
    answer_hello();
    cr_assert_eq(count_of(CFSR_ACTION_CHECK_STAMP), 0);
    expect_fork(300);
}

Test(sender, a_stamp_that_is_not_below_the_cursor_is_a_fork)
{
    head(3, 500);
    reply.lane[3].cursor = 400;
    reply.lane[3].last.lsn = 400;
    dial_peer();
    answer_hello();
    cr_assert_eq(count_of(CFSR_ACTION_CHECK_STAMP), 0,
                 "no file is looked for by a number the peer made up");
    expect_fork(400);
}

Test(sender, answers_that_make_no_sense_close)
{
    head(3, 500);
    reply.lane[3].cursor = 400; /* without a stamp */
    dial_peer();
    answer_hello();
    expect_close(-CFSR_E_BAD_FRAME);
    closed(0);
    reply.lane[3].cursor = 0;
    reply.lane[3].last.lsn = UINT64_MAX;
    reply.lane_mask = 0x8;
    dial_peer();
    answer_hello();
    expect_close(-CFSR_E_BAD_FRAME);
    cr_assert_eq(s.fault, 0);
}

Test(sender, a_cursor_that_went_back_is_told_and_refilled)
{
    uint32_t lane;
    uint64_t from;
    check_lane_3(0, 304, 7, 400);
    open_from_peer();
    cr_assert(next(true, &lane, &from));
    cfsr_sender_sent(&s, now, 3, 480);
    ack(3, 480, 0);
    closed(-ECONNRESET);
    check_lane_3(0, 304, 7, 400);
    cr_assert_eq(action_of(CFSR_ACTION_REGRESSED)->lsn, 400);
    cr_assert_eq(action_of(CFSR_ACTION_REGRESSED)->lane, 3);
    cr_assert_eq(s.counters.regressions, 1);
    cr_assert_eq(s.counters.retransmitted_bytes, 80);
    cr_assert(next(true, &lane, &from));
    cr_assert_eq(from, 400);
}

/* ---- data ---- */

Test(sender, the_window_bounds_what_is_in_flight)
{
    uint32_t lane;
    uint64_t from, sent = 0;
    head(3, 100000);
    head(7, 100000);
    connect_peer();
    while (next(true, &lane, &from)) {
        cr_assert_eq(from, s.lane[lane].next_lsn);
        cfsr_sender_sent(&s, now, lane, from + 200);
        sent += 200;
    }
    cr_assert_eq(sent, 1000);
    cr_assert_eq(s.in_flight_bytes, 1000);
    cr_assert_eq(cfsr_sender_batch_deadline(&s), UINT64_MAX);
    cr_assert_eq(s.lane[3].next_lsn, 600, "the lanes took turns");
    ack(3, 400, 0);
    cr_assert_eq(s.in_flight_bytes, 600);
    cr_assert_eq(action_of(CFSR_ACTION_ACKED)->lsn, 400, "cumulative: two batches, one ack");
    cr_assert_eq(s.lane[3].acked_entries, 40);
    cr_assert(next(true, &lane, &from));
    cr_assert_str_eq(reason_of(CFSR_LINK_CATCHUP), "");
    cr_assert_not(cfsr_sender_is_caught_up(&s));
}

Test(sender, lanes_take_turns_and_skipped_ones_wait)
{
    uint32_t lane;
    uint64_t from;
    head(3, 10000);
    head(7, 10000);
    connect_peer();
    static const uint32_t order[] = {3, 7, 3, 7};
    for (unsigned i = 0; i < 4; i++) {
        cr_assert(next(true, &lane, &from));
        cr_assert_eq(lane, order[i]);
        cfsr_sender_sent(&s, now, lane, from + 100);
    }
    cr_assert(cfsr_sender_next(&s, now, true, 1ull << 3, &lane, &from));
    cr_assert_eq(lane, 7);
    cr_assert_not(cfsr_sender_next(&s, now, true, MASK, &lane, &from));
}

Test(sender, batching_is_natural)
{
    uint32_t lane;
    uint64_t from;
    connect_peer();
    cr_assert_not(next(true, &lane, &from));
    head(3, 10);
    cr_assert(next(true, &lane, &from), "an idle pipe takes whatever there is");
    cr_assert_not(next(false, &lane, &from), "a busy one lets it gather");
    cr_assert_eq(cfsr_sender_batch_deadline(&s), now + 5 * MS);
    head(3, 199);
    cr_assert_not(next(false, &lane, &from));
    head(3, 200);
    cr_assert(next(false, &lane, &from), "a whole batch");
    cr_assert_eq(cfsr_sender_sent(&s, now, 3, 190), 0, "more has gathered");
    cr_assert_not(next(false, &lane, &from));
    now += 5 * MS;
    cr_assert(next(false, &lane, &from), "it waited long enough");
    cr_assert_eq(cfsr_sender_sent(&s, now, 3, 200), CFSR_FRAME_ACK_NOW);
    cr_assert_eq(cfsr_sender_batch_deadline(&s), UINT64_MAX);
    ack(3, 200, 0);
    cr_assert(cfsr_sender_is_caught_up(&s));
}

Test(sender, acks_outside_what_exists_close)
{
    head(3, 100);
    connect_peer();
    ack(3, 101, 0);
    expect_close(-CFSR_E_BAD_FRAME);
    cr_assert_eq(count_of(CFSR_ACTION_ACKED), 0);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 1, "a GOODBYE says why");
}

Test(sender, acks_of_lanes_not_carried_close)
{
    connect_peer();
    ack(4, 0, 0);
    expect_close(-CFSR_E_BAD_FRAME);
}

Test(sender, acks_that_go_back_close)
{
    uint32_t lane;
    uint64_t from;
    head(3, 100);
    connect_peer();
    cr_assert(next(true, &lane, &from));
    cfsr_sender_sent(&s, now, 3, 100);
    ack(3, 80, 0);
    ack(3, 80, 0); /* the same once more says nothing */
    cr_assert_eq(count_of(CFSR_ACTION_ACKED), 0);
    ack(3, 60, 0);
    expect_close(-CFSR_E_BAD_FRAME);
}

Test(sender, acks_before_the_stamps_were_compared_close)
{
    head(3, 500);
    reply.lane[3].cursor = 400;
    reply.lane[3].last.lsn = 304;
    dial_peer();
    answer_hello();
    cr_assert_eq(s.state, CFSR_SENDER_CHECKING);
    ack(3, 450, 0);
    expect_close(-CFSR_E_BAD_FRAME);
    cr_assert_eq(count_of(CFSR_ACTION_ACKED), 0);
}

/* What an older connection brought may be of a history that is gone here: the stamps are compared
 * again, there. */
Test(sender, an_ack_of_what_this_connection_did_not_send_makes_it_dial_again)
{
    uint64_t pause = 0;

    head(3, 1000);
    connect_peer();
    for (unsigned i = 0; i < 4; i++) {
        ack(3, 600, 0);
        expect_close(-CFSR_E_MOVED);
        cr_assert_eq(s.lane[3].acked_lsn, 0);
        cr_assert_eq(s.fault, 0, "another attempt mends it");
        cfsr_sender_on_closed(&s, now, 0, 0);
        cr_assert_gt(s.retry_at_ns - now, pause, "later each time");
        pause = s.retry_at_ns - now;
        connect_peer();
    }
}

Test(sender, acks_between_records_close)
{
    head(3, 1000);
    connect_peer();
    ack(3, 300, 0);
    expect_close(-CFSR_E_BAD_FRAME);
}

Test(sender, what_a_lost_connection_had_sent_is_counted_as_sent_again)
{
    uint32_t lane;
    uint64_t from;
    head(3, 1000);
    connect_peer();
    cr_assert(next(true, &lane, &from));
    cfsr_sender_sent(&s, now, 3, 500);
    closed(-ECONNRESET);
    cr_assert_eq(s.in_flight_bytes, 0);
    cr_assert_not(next(true, &lane, &from));
    connect_peer();
    cr_assert_eq(s.counters.retransmitted_bytes, 500);
    cr_assert(next(true, &lane, &from));
    cr_assert_eq(from, 0);
}

Test(sender, no_progress_times_out_but_not_while_the_peer_takes_nothing)
{
    uint32_t lane;
    uint64_t from;
    head(3, 1000);
    connect_peer();
    cr_assert(next(true, &lane, &from));
    cfsr_sender_sent(&s, now, 3, 500);
    ack(UINT32_MAX, 0, 100);
    cr_assert_str_eq(reason_of(CFSR_LINK_STALLED), "peer_not_accepting");
    for (unsigned i = 0; i < 60; i++) {
        now += SEC;
        ack(UINT32_MAX, 0, 100);
        tick();
        cr_assert_eq(s.state, CFSR_SENDER_RUNNING);
        cr_assert_gt(cfsr_sender_next_deadline(&s), now);
    }
    ack(UINT32_MAX, 0, 0);
    tick();
    cr_assert_eq(s.state, CFSR_SENDER_RUNNING, "its time begins now");
    for (unsigned i = 0; i < 10; i++) {
        now += SEC;
        ack(UINT32_MAX, 0, 0);
        if (i < 9) {
            tick();
            cr_assert_eq(s.state, CFSR_SENDER_RUNNING);
        }
    }
    tick();
    expect_close(-CFSR_E_TIMEOUT);
    cr_assert_eq(s.counters.timeouts, 1);
}

Test(sender, a_silent_peer_times_out_even_when_nothing_can_be_sent)
{
    connect_peer();
    for (unsigned i = 1; i < 10; i++) {
        now += SEC;
        out.count = 0;
        cr_assert_leq(cfsr_sender_next_deadline(&s), now);
        cfsr_sender_tick_blocked(&s, now, &out);
        cr_assert_eq(out.count, 0);
        cr_assert_gt(cfsr_sender_next_deadline(&s), now,
                     "no heartbeat is owed for the one left out");
    }
    now += SEC;
    cfsr_sender_tick_blocked(&s, now, &out);
    expect_close(-CFSR_E_TIMEOUT);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 0);
}

Test(sender, heartbeats_tell_heads_and_measure_the_clock)
{
    struct cfsr_heartbeat beat;
    struct cfsr_link_header header;
    head(3, 777);
    connect_peer();
    now += SEC;
    cr_assert_eq(cfsr_sender_next_deadline(&s), now);
    tick();
    const struct cfsr_action *sent = action_of(CFSR_ACTION_SEND_FRAME);
    cr_assert_eq(cfsr_link_header_load(sent->frame, &header), 0);
    cr_assert_eq(cfsr_session_open(&answer, &header, sent->frame), 0);
    cr_assert_eq(cfsr_heartbeat_load((const uint8_t *)sent->frame + CFSR_LINK_HEADER_BYTES,
                                     header.length_bytes, &beat),
                 0);
    cr_assert_eq(beat.count, 2);
    cr_assert(beat.lane[0].lane == 3 && beat.lane[0].committed_lsn == 777 &&
              beat.lane[0].entries == 77);
    cr_assert_not(s.peer_clock_offset_valid);

    beat = (struct cfsr_heartbeat){.wall_us = WALL + 5000, .echo_wall_us = WALL - 400};
    uint32_t len = cfsr_heartbeat_store(&beat, frame + CFSR_LINK_HEADER_BYTES);
    deliver(cfsr_session_seal(&answer, CFSR_FRAME_HEARTBEAT, 0, frame, len));
    cr_assert_eq(s.rtt_us, 400);
    cr_assert_eq(s.peer_clock_offset_us, 5200);
    beat = (struct cfsr_heartbeat){.wall_us = WALL +
                                              9000}; /* of its own accord: measures nothing */
    len = cfsr_heartbeat_store(&beat, frame + CFSR_LINK_HEADER_BYTES);
    deliver(cfsr_session_seal(&answer, CFSR_FRAME_HEARTBEAT, 0, frame, len));
    cr_assert_eq(s.rtt_us, 400);
}

/* ---- the end ---- */

Test(sender, the_peers_goodbye_is_heard)
{
    connect_peer();
    goodbye(0);
    expect_close(-CFSR_E_SHUTDOWN);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_STALLED), "shutdown");
    connect_peer();
    goodbye(CFSR_E_JOURNAL_CHANGED);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_FAULTED), "journal_changed");
}

Test(sender, stopping_says_goodbye)
{
    struct cfsr_link_header header;
    connect_peer();
    out.count = 0;
    cfsr_sender_stop(&s, now, &out);
    cr_assert_eq(cfsr_link_header_load(action_of(CFSR_ACTION_SEND_FRAME)->frame, &header), 0);
    cr_assert_eq(header.type, CFSR_FRAME_GOODBYE);
    cr_assert_eq(count_of(CFSR_ACTION_CLOSE), 1);
    closed(0);
    cr_assert_eq(s.state, CFSR_SENDER_STOPPED);
    cr_assert_eq(cfsr_sender_next_deadline(&s), UINT64_MAX);
    out.count = 0;
    cfsr_sender_stop(&s, now, &out);
    cr_assert_eq(out.count, 0);
}

Test(sender, a_range_that_is_gone_faults_by_name)
{
    connect_peer();
    out.count = 0;
    cfsr_sender_on_read_error(&s, now, 7, 4711, -CFSR_E_NEEDS_BOOTSTRAP, &out);
    expect_close(-CFSR_E_NEEDS_BOOTSTRAP);
    cr_assert(s.fault_lane == 7 && s.fault_lsn == 4711);
    closed(0);
    connect_peer();
    out.count = 0;
    cfsr_sender_on_read_error(&s, now, 7, 4711, -EIO, &out);
    expect_close(-EIO);
    cr_assert_eq(s.fault, 0);
}

Test(sender, damage_stops_the_lane_until_it_is_repaired)
{
    const char *reason;
    uint32_t lane;
    uint64_t from;
    connect_peer();
    out.count = 0;
    cfsr_sender_on_head(&s, now, 3, 4096, 1);
    cfsr_sender_on_head(&s, now, 7, 4096, 1);
    cfsr_sender_on_read_error(&s, now, 7, 0, -CFSR_E_DAMAGED, &out);
    cr_assert_eq(count_of(CFSR_ACTION_CLOSE), 0, "the link goes on");
    cr_assert_eq(action_of(CFSR_ACTION_DAMAGED)->lane, 7);
    cr_assert_eq(cfsr_sender_link_state(&s, &reason), CFSR_LINK_STALLED);
    cr_assert_str_eq(reason, "journal_damaged");
    cr_assert(cfsr_sender_next(&s, now, true, 0, &lane, &from) && lane == 3,
              "the other lane goes on");
    cr_assert_not(cfsr_sender_next(&s, now, true, 1ull << 3, &lane, &from));
    cfsr_sender_on_unrepairable(&s, 7, 8);
    cr_assert_eq(cfsr_sender_link_state(&s, &reason), CFSR_LINK_FAULTED);
    cr_assert_str_eq(reason, "damaged");
    cr_assert(s.fault_lane == 7 && s.fault_lsn == 8);
    out.count = 0;
    cfsr_sender_on_repaired(&s, now, 7, &out);
    cr_assert_eq(out.count, 0);
    cr_assert_neq(cfsr_sender_link_state(&s, &reason), CFSR_LINK_FAULTED);
    cr_assert(cfsr_sender_next(&s, now, true, 1ull << 3, &lane, &from) && lane == 7);
}

Test(sender, a_damaged_stamp_is_repaired_before_it_is_compared)
{
    const char *reason;
    struct cfsr_record_stamp none = {0};
    cfsr_sender_on_head(&s, now, 3, 8192, 2);
    dial_peer();
    reply.lane[3].cursor = 4096;
    reply.lane[3].last = (struct cfsr_record_stamp){.lsn = 4000, .crc = 5};
    answer_hello();
    cr_assert_eq(action_of(CFSR_ACTION_CHECK_STAMP)->lane, 3);
    out.count = 0;
    cfsr_sender_on_stamp(&s, now, WALL, 3, -CFSR_E_DAMAGED, &none, 0, &out);
    cr_assert_eq(s.state, CFSR_SENDER_REPAIRING);
    cr_assert_eq(action_of(CFSR_ACTION_DAMAGED)->lsn, 4000);
    open_from_peer(); /* a heartbeat proves this connection, so that the peer can be asked */
    cr_assert(cfsr_sender_can_ask(&s, 3));
    cr_assert_eq(cfsr_sender_link_state(&s, &reason), CFSR_LINK_STALLED);
    cr_assert_str_eq(reason, "journal_damaged");
    uint32_t lane;
    uint64_t from;
    cr_assert_not(cfsr_sender_next(&s, now, true, 0, &lane, &from),
                  "nothing before the comparison");
    struct cfsr_ack ack = {.count = 1, .lane = {{.lane = 3, .durable_lsn = 8192}}};
    uint32_t len = cfsr_ack_store(&ack, frame + CFSR_LINK_HEADER_BYTES);
    deliver(cfsr_session_seal(&answer, CFSR_FRAME_ACK, 0, frame, len));
    cr_assert_eq(count_of(CFSR_ACTION_ACKED), 0, "nor is an ack believed");
    out.count = 0;
    cfsr_sender_on_repaired(&s, now, 3, &out);
    expect_close(-CFSR_E_SHUTDOWN);
    closed(0);
    cr_assert_eq(s.fault, 0);
    cr_assert_leq(s.retry_at_ns, now + 2 * 100 * MS, "compared anew at once");
}

Test(sender, forged_frames_close_and_change_nothing)
{
    struct cfsr_ack body = {.backpressure_pct = 100};
    connect_peer();
    uint32_t len = cfsr_ack_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    uint32_t frame_bytes = cfsr_session_seal(&answer, CFSR_FRAME_ACK, 0, frame, len);
    frame[CFSR_LINK_HEADER_BYTES] ^= 1;
    deliver(frame_bytes);
    expect_close(-CFSR_E_BAD_LINK_TAG);
    cr_assert_eq(s.peer_backpressure_pct, 0);
}

Test(sender, the_driver_may_end_a_connection)
{
    connect_peer();
    out.count = 0;
    cfsr_sender_abort(&s, -CFSR_E_TOO_LARGE, "no frame", &out);
    expect_close(-CFSR_E_TOO_LARGE);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 0);
    closed(0);
    cr_assert_str_eq(reason_of(CFSR_LINK_STALLED), "too_large", "the reason outlives the close");
    out.count = 0;
    cfsr_sender_abort(&s, -EIO, "nothing to end", &out);
    cr_assert_eq(out.count, 0);
}
