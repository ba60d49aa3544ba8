/*
 * test_receiver.c - the incoming half alone: events in, actions out. The peer is a bare session of
 * site 1 that dials.
 */
#include <criterion/criterion.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "repl/receiver.h"
#include "session_pair.h"

#define SEC  1000000000ull
#define WALL 1700000000000000ull

static struct cfsr_receiver r;
static struct cfsr_outbox out;
static uint64_t now;
static uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
static uint64_t staged[CFSR_LANES_MAX], durable[CFSR_LANES_MAX];
static struct cfsr_uuid known_journal;
static bool has_journal;

static bool is_known(void *user, uint64_t site_id)
{
    cr_assert_eq(user, &staged);
    return site_id == 1;
}

static int cursor(void *user, uint64_t site_id, const struct cfsr_uuid *journal, uint32_t lane,
                  struct cfsr_hello_lane *lane_out)
{
    cr_assert_eq(user, &staged);
    cr_assert_eq(site_id, 1);
    if (has_journal && !cfsr_uuid_equal(&known_journal, journal))
        return -CFSR_E_JOURNAL_CHANGED;
    *lane_out = (struct cfsr_hello_lane){.cursor = durable[lane], .entries = durable[lane] / 10};
    lane_out->last.lsn = durable[lane] == 0 ? UINT64_MAX : durable[lane] - 8;
    return 0;
}

static uint64_t journal_of(void *user, uint64_t site_id, struct cfsr_uuid *journal_out)
{
    (void)user;
    (void)site_id;
    if (has_journal)
        *journal_out = known_journal;
    return has_journal;
}

static uint64_t staged_lsn(void *user, uint64_t site_id, uint32_t lane)
{
    cr_assert_eq(user, &staged);
    cr_assert_eq(site_id, 1);
    return staged[lane];
}

static void init_receiver(uint8_t nonce_byte)
{
    uint8_t nonce[32];
    struct cfsr_receiver_options options = {
        .local = &b.local,
        .env = {.user = &staged,
                .is_known_site = is_known,
                .cursor = cursor,
                .journal_of = journal_of},
        .owned_mask = 0xff,
        .hello_timeout_ns = 3 * SEC,
        .idle_timeout_ns = 10 * SEC,
        .heartbeat_ns = SEC,
    };
    memset(nonce, nonce_byte, sizeof nonce);
    cr_assert_eq(cfsr_receiver_init(&r, &options, nonce, now), 0);
}

static void receiver_set_up(void)
{
    session_pair_set_up();
    now = 100 * SEC;
    init_receiver(FROM_B);
}

static void receiver_tear_down(void)
{
    cfsr_receiver_fini(&r);
    session_pair_tear_down();
}

TestSuite(receiver, .init = receiver_set_up, .fini = receiver_tear_down);

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
    cr_assert_eq(r.state, CFSR_RECEIVER_CLOSING);
    cr_assert_eq(r.last_reason, reason);
    cr_assert_eq(cfsr_receiver_next_deadline(&r), UINT64_MAX);
}

static void deliver(uint8_t *bytes)
{
    struct cfsr_link_header header;
    cr_assert_eq(cfsr_link_header_load(bytes, &header), 0);
    out.count = 0;
    cfsr_receiver_on_frame(&r, now, WALL, &header, bytes, &out);
}

static int answer_seen(void)
{
    const struct cfsr_action *ack = action_of(CFSR_ACTION_SEND_FRAME);
    return cfsr_session_on_hello_ack(&dial, ack->frame, ack->frame_bytes, &ack_seen);
}

static void say_hello(void)
{
    uint8_t nonce[32];
    cfsr_session_fini(&dial);
    memset(nonce, FROM_A, sizeof nonce);
    cr_assert_eq(cfsr_session_init(&dial, &a.local, true, 2, nonce), 0);
    send_hello();
    deliver(hello_frame);
}

static void beat(void)
{
    struct cfsr_heartbeat body = {.wall_us = WALL + 700, .count = 1, .lane = {{3, 1234, 123}}};
    uint32_t len = cfsr_heartbeat_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    (void)cfsr_session_seal(&dial, CFSR_FRAME_HEARTBEAT, 0, frame, len);
    deliver(frame);
}

static void connect_peer(void)
{
    say_hello();
    cr_assert_eq(answer_seen(), 0, "%s", cfsr_error_message());
    beat();
    cr_assert_eq(r.state, CFSR_RECEIVER_RUNNING);
}

static struct cfsr_batch_header batch_of(uint32_t lane, uint64_t from, uint64_t to)
{
    return (struct cfsr_batch_header){.lane = (uint16_t)lane,
                                      .site_id = 1,
                                      .journal = a.site.journal,
                                      .epoch = a.local.epoch,
                                      .lsn_from = from,
                                      .lsn_to = to,
                                      .entry_count = 1,
                                      .original_bytes = 64,
                                      .stored_bytes = 64};
}

static struct cfsr_link_header batch_link;
static uint8_t batch_frame[CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES];

/* Only its first 256 bytes are looked at. */
static enum cfsr_admission admit_batch(struct cfsr_batch_header batch, uint32_t body_bytes)
{
    struct cfsr_batch_header header;
    cfsr_batch_header_store(&batch, batch_frame + CFSR_LINK_HEADER_BYTES);
    cfsr_session_seal_batch(&dial, 0, batch_frame + CFSR_LINK_HEADER_BYTES + CFSR_BATCH_TAG_OFFSET,
                            CFSR_BATCH_PREFIX_BYTES + body_bytes, batch_frame);
    cr_assert_eq(cfsr_link_header_load(batch_frame, &batch_link), 0);
    out.count = 0;
    return cfsr_receiver_admit(&r, now, &batch_link, batch_frame, staged_lsn, &header, &out);
}

static void expect_refused(struct cfsr_batch_header batch, int reason)
{
    connect_peer();
    cr_assert_eq(admit_batch(batch, batch.stored_bytes), CFSR_ADMIT_REFUSE);
    expect_close(reason);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 1, "a GOODBYE names the reason");
    cr_assert_eq(r.counters.refused, 1);
    cr_assert_eq(r.counters.batches, 0);
}

/* ---- handshake ---- */

Test(receiver, hello_comes_first)
{
    struct cfsr_heartbeat body = {.wall_us = WALL};
    struct cfsr_link_header header = {
        .version = CFSR_WIRE_VERSION, .type = CFSR_FRAME_HEARTBEAT, .link_seq = 1};
    header.length_bytes = cfsr_heartbeat_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    cfsr_link_header_store(&header, frame);
    deliver(frame);
    expect_close(-CFSR_E_BAD_FRAME);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 0, "a stranger gets no answer");
    cr_assert_eq(r.counters.refused, 1);
    deliver(frame);
    cr_assert_eq(out.count, 0);
}

Test(receiver, a_batch_before_hello_is_refused)
{
    struct cfsr_batch_header batch = batch_of(3, 0, 64), header;
    struct cfsr_link_header link = {.version = CFSR_WIRE_VERSION,
                                    .type = CFSR_FRAME_BATCH,
                                    .link_seq = 1,
                                    .batch_seq = 1,
                                    .length_bytes = CFSR_BATCH_PREFIX_BYTES + 64};
    cfsr_batch_header_store(&batch, batch_frame + CFSR_LINK_HEADER_BYTES);
    out.count = 0;
    cr_assert_eq(cfsr_receiver_admit(&r, now, &link, batch_frame, staged_lsn, &header, &out),
                 CFSR_ADMIT_REFUSE);
    expect_close(-CFSR_E_BAD_FRAME);
}

Test(receiver, the_answer_tells_the_cursors)
{
    durable[3] = 4000;
    say_hello();
    cr_assert_eq(r.state, CFSR_RECEIVER_ANSWERED);
    cr_assert_eq(count_of(CFSR_ACTION_TAKE_OVER), 0, "a HELLO alone unseats nobody");
    cr_assert_eq(answer_seen(), 0);
    cr_assert_eq(ack_seen.lane_mask, 0x88);
    cr_assert_eq(ack_seen.lane[3].cursor, 4000);
    cr_assert_eq(ack_seen.lane[3].entries, 400);
    cr_assert_eq(ack_seen.lane[7].cursor, 0);
    cr_assert_eq(r.head_lsn[3], 13, "where the origin ends, from its HELLO");
}

Test(receiver, lanes_of_other_cores_are_redirected)
{
    r.options.owned_mask = 0x08;
    say_hello();
    expect_close(-CFSR_E_WRONG_CORE);
    cr_assert_eq(answer_seen(), -CFSR_E_WRONG_CORE);
    cr_assert_eq(ack_seen.cores, 1);
    cr_assert(dial.authenticated);
}

Test(receiver, another_journal_of_a_known_site_is_refused)
{
    has_journal = true;
    memset(known_journal.bytes, 0x55, 16);
    say_hello();
    expect_close(-CFSR_E_JOURNAL_CHANGED);
    cr_assert_eq(answer_seen(), -CFSR_E_JOURNAL_CHANGED);
    cr_assert_eq(r.counters.refused, 1);
    cr_assert_neq(ack_seen.detail[0], '\0');
}

Test(receiver, a_stranger_is_refused)
{
    a.site.site_id = 9;
    say_hello();
    expect_close(-CFSR_E_UNKNOWN_SITE);
    cr_assert_eq(r.site_id, 0);
}

Test(receiver, a_recorded_hello_proves_nothing)
{
    connect_peer();
    static uint8_t recorded[FRAME_BYTES], beat_frame[sizeof frame];
    memcpy(recorded, hello_frame, sizeof recorded);
    memcpy(beat_frame, frame, sizeof beat_frame);
    cfsr_receiver_fini(&r);
    init_receiver(0x77); /* another connection: another nonce of ours */
    deliver(recorded);
    cr_assert_eq(r.state, CFSR_RECEIVER_ANSWERED, "it looks like a HELLO");
    cr_assert_eq(count_of(CFSR_ACTION_TAKE_OVER), 0);
    deliver(beat_frame);
    expect_close(-CFSR_E_BAD_LINK_TAG);
    cr_assert_eq(count_of(CFSR_ACTION_TAKE_OVER), 0);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 0);
}

Test(receiver, the_first_frame_under_the_key_takes_over_once)
{
    say_hello();
    cr_assert_eq(answer_seen(), 0);
    beat();
    cr_assert_eq(count_of(CFSR_ACTION_TAKE_OVER), 1);
    beat();
    cr_assert_eq(count_of(CFSR_ACTION_TAKE_OVER), 0);
}

Test(receiver, a_batch_may_be_the_first_frame)
{
    say_hello();
    cr_assert_eq(answer_seen(), 0);
    cr_assert_eq(admit_batch(batch_of(3, 0, 64), 64), CFSR_ADMIT_STORE);
    cr_assert_eq(count_of(CFSR_ACTION_TAKE_OVER), 1);
}

Test(receiver, what_was_staged_since_the_answer_makes_the_dialer_come_again)
{
    staged[3] = durable[3] = 640;
    connect_peer();
    out.count = 0;
    cr_assert(cfsr_receiver_confirm(&r, now, staged_lsn, &staged, &out));
    cr_assert_eq(out.count, 0);
    staged[3] = 704; /* by an older connection */
    cr_assert_not(cfsr_receiver_confirm(&r, now, staged_lsn, &staged, &out));
    expect_close(-CFSR_E_MOVED);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 1, "a GOODBYE that says why");
}

Test(receiver, silence_times_out_in_every_state)
{
    now += 3 * SEC;
    cr_assert_eq(cfsr_receiver_next_deadline(&r), now);
    out.count = 0;
    cfsr_receiver_tick(&r, now, WALL, &out);
    expect_close(-CFSR_E_TIMEOUT);

    cfsr_receiver_fini(&r);
    init_receiver(1);
    say_hello();
    now += 3 * SEC;
    out.count = 0;
    cfsr_receiver_tick(&r, now, WALL, &out);
    expect_close(-CFSR_E_TIMEOUT);

    cfsr_receiver_fini(&r);
    init_receiver(2);
    connect_peer();
    now += 10 * SEC - 1;
    out.count = 0;
    cfsr_receiver_tick(&r, now, WALL, &out);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 1, "a heartbeat");
    now++;
    out.count = 0;
    cfsr_receiver_tick(&r, now, WALL, &out);
    expect_close(-CFSR_E_TIMEOUT);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 1, "a GOODBYE");
}

Test(receiver, bytes_that_wait_here_are_no_silence)
{
    connect_peer();
    for (unsigned i = 0; i < 60; i++) {
        now += SEC;
        cfsr_receiver_on_stalled(&r, now);
        out.count = 0;
        cfsr_receiver_tick(&r, now, WALL, &out);
        cr_assert_eq(count_of(CFSR_ACTION_CLOSE), 0);
    }
    now += 10 * SEC;
    out.count = 0;
    cfsr_receiver_tick_blocked(&r, now, &out);
    expect_close(-CFSR_E_TIMEOUT);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 0, "there is no room for a GOODBYE");
}

Test(receiver, an_unproven_connection_cannot_claim_to_be_stalled)
{
    say_hello();
    now += 3 * SEC;
    cfsr_receiver_on_stalled(&r, now);
    out.count = 0;
    cfsr_receiver_tick(&r, now, WALL, &out);
    expect_close(-CFSR_E_TIMEOUT);
}

/* ---- batches ---- */

Test(receiver, batches_in_order_are_stored)
{
    connect_peer();
    staged[3] = 0;
    cr_assert_eq(admit_batch(batch_of(3, 0, 64), 64), CFSR_ADMIT_STORE);
    staged[3] = 64;
    cr_assert_eq(admit_batch(batch_of(3, 64, 128), 64), CFSR_ADMIT_STORE);
    staged[3] = 96;
    cr_assert_eq(admit_batch(batch_of(3, 64, 128), 64), CFSR_ADMIT_STORE, "an overlap");
    staged[3] = 128;
    cr_assert_eq(admit_batch(batch_of(3, 64, 128), 64), CFSR_ADMIT_DUPLICATE);
    cr_assert_eq(out.count, 0);
    cr_assert_eq(r.counters.batches, 4);
    cr_assert_eq(r.counters.duplicate_batches, 1);
}

Test(receiver, a_gap_is_refused)
{
    expect_refused(batch_of(3, 8, 64), -CFSR_E_BAD_ORDER);
}
Test(receiver, a_lane_of_another_connection_is_refused)
{
    expect_refused(batch_of(4, 0, 64), -CFSR_E_BAD_FRAME);
}

Test(receiver, another_origin_is_refused)
{
    struct cfsr_batch_header batch = batch_of(3, 0, 64);
    batch.site_id = 3;
    expect_refused(batch, -CFSR_E_WRONG_SITE);
}

Test(receiver, another_journal_is_refused)
{
    struct cfsr_batch_header batch = batch_of(3, 0, 64);
    batch.journal.bytes[0] ^= 1;
    expect_refused(batch, -CFSR_E_JOURNAL_CHANGED);
}

Test(receiver, another_epoch_is_refused)
{
    struct cfsr_batch_header batch = batch_of(3, 0, 64);
    batch.epoch++;
    expect_refused(batch, -CFSR_E_BAD_FRAME);
}

Test(receiver, flags_that_were_not_negotiated_are_refused)
{
    struct cfsr_batch_header batch = batch_of(3, 0, 64);
    batch.flags = 1;
    expect_refused(batch, -CFSR_E_BAD_FRAME);
}

Test(receiver, a_length_that_is_not_the_sum_of_its_parts_is_refused)
{
    connect_peer();
    cr_assert_eq(admit_batch(batch_of(3, 0, 64), 72), CFSR_ADMIT_REFUSE);
    expect_close(-CFSR_E_BAD_FRAME);
}

Test(receiver, a_replayed_batch_is_refused)
{
    struct cfsr_batch_header header;
    connect_peer();
    cr_assert_eq(admit_batch(batch_of(3, 0, 64), 64), CFSR_ADMIT_STORE);
    cr_assert_eq(cfsr_receiver_admit(&r, now, &batch_link, batch_frame, staged_lsn, &header, &out),
                 CFSR_ADMIT_REFUSE);
    expect_close(-CFSR_E_REPLAYED);
}

Test(receiver, a_batch_that_fails_later_is_rejected_by_name)
{
    connect_peer();
    out.count = 0;
    cfsr_receiver_reject(&r, now, -CFSR_E_BOMB, "bomb", &out);
    expect_close(-CFSR_E_BOMB);
    cr_assert_eq(r.counters.refused, 1);
    cr_assert_eq(admit_batch(batch_of(3, 0, 64), 64), CFSR_ADMIT_REFUSE);
    cr_assert_eq(out.count, 0, "it is over already");
}

/* ---- acks ---- */

static struct cfsr_ack ack_sent(void)
{
    struct cfsr_link_header header;
    struct cfsr_ack ack;
    const struct cfsr_action *sent = action_of(CFSR_ACTION_SEND_FRAME);
    cr_assert_eq(cfsr_link_header_load(sent->frame, &header), 0);
    cr_assert_eq(header.type, CFSR_FRAME_ACK);
    cr_assert_eq(cfsr_session_open(&dial, &header, sent->frame), 0);
    cr_assert_eq(cfsr_ack_load((const uint8_t *)sent->frame + CFSR_LINK_HEADER_BYTES,
                               header.length_bytes, &ack),
                 0);
    return ack;
}

static void hear(void) /* the dialer reads the answer to its heartbeat */
{
    struct cfsr_link_header header;
    struct cfsr_heartbeat body;
    const struct cfsr_action *sent = action_of(CFSR_ACTION_SEND_FRAME);
    cr_assert_eq(cfsr_link_header_load(sent->frame, &header), 0);
    cr_assert_eq(cfsr_session_open(&dial, &header, sent->frame), 0);
    cr_assert_eq(cfsr_heartbeat_load((const uint8_t *)sent->frame + CFSR_LINK_HEADER_BYTES,
                                     header.length_bytes, &body),
                 0);
    cr_assert_eq(body.echo_wall_us, WALL + 700);
}

Test(receiver, acks_leave_only_when_the_peer_has_proven_itself)
{
    say_hello();
    cr_assert_eq(answer_seen(), 0);
    cfsr_receiver_on_durable(&r, 3, 64, 6);
    out.count = 0;
    cr_assert_not(cfsr_receiver_flush_acks(&r, now, 0, &out));
    beat();
    hear();
    out.count = 0;
    cr_assert(cfsr_receiver_flush_acks(&r, now, 0, &out),
              "what became durable meanwhile is not forgotten");
    struct cfsr_ack ack = ack_sent();
    cr_assert(ack.count == 1 && ack.lane[0].lane == 3 && ack.lane[0].durable_lsn == 64 &&
              ack.lane[0].entries == 6);
    cr_assert_eq(ack.lane[0].applied_lsn, UINT64_MAX, "unknown is said as unknown");
}

Test(receiver, an_ack_covers_every_lane_that_moved)
{
    connect_peer();
    hear();
    cfsr_receiver_on_durable(&r, 3, 64, 6);
    cfsr_receiver_on_durable(&r, 3, 128, 12);
    cfsr_receiver_on_durable(&r, 3, 96, 9); /* never back */
    cfsr_receiver_on_durable(&r, 7, 8, 1);
    cfsr_receiver_on_durable(&r, 4, 8, 1); /* not of this connection */
    out.count = 0;
    cr_assert(cfsr_receiver_flush_acks(&r, now, 0, &out));
    struct cfsr_ack ack = ack_sent();
    cr_assert_eq(ack.count, 2);
    cr_assert_eq(ack.lane[0].durable_lsn, 128);
    cr_assert_eq(ack.lane[1].lane, 7);
    out.count = 0;
    cr_assert_not(cfsr_receiver_flush_acks(&r, now, 0, &out));
    cr_assert_eq(r.counters.acks, 1);
}

Test(receiver, back_pressure_alone_is_told_when_it_changes)
{
    connect_peer();
    hear();
    out.count = 0;
    cr_assert(cfsr_receiver_flush_acks(&r, now, 100, &out));
    struct cfsr_ack ack = ack_sent();
    cr_assert(ack.count == 0 && ack.backpressure_pct == 100);
    out.count = 0;
    cr_assert_not(cfsr_receiver_flush_acks(&r, now, 100, &out));
    cr_assert(cfsr_receiver_flush_acks(&r, now, 0, &out));
    cr_assert_eq(ack_sent().backpressure_pct, 0);
}

/* ---- heartbeats and the end ---- */

Test(receiver, heartbeats_tell_where_the_origin_ends)
{
    connect_peer();
    hear();
    cr_assert_eq(r.head_lsn[3], 1234);
    cr_assert_eq(r.head_entries[3], 123);
    cr_assert_eq(r.peer_clock_offset_us, 700);
    now += SEC;
    out.count = 0;
    cfsr_receiver_tick(&r, now, WALL + 1000000, &out);
    struct cfsr_link_header header;
    struct cfsr_heartbeat body;
    const struct cfsr_action *sent = action_of(CFSR_ACTION_SEND_FRAME);
    cr_assert_eq(cfsr_link_header_load(sent->frame, &header), 0);
    cr_assert_eq(cfsr_heartbeat_load((const uint8_t *)sent->frame + CFSR_LINK_HEADER_BYTES,
                                     header.length_bytes, &body),
                 0);
    cr_assert_eq(body.echo_wall_us, 0, "an old echo would pass for a long round trip");
}

Test(receiver, heartbeats_of_lanes_not_carried_are_refused)
{
    struct cfsr_heartbeat body = {.wall_us = WALL, .count = 1, .lane = {{4, 1, 1}}};
    connect_peer();
    uint32_t len = cfsr_heartbeat_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    (void)cfsr_session_seal(&dial, CFSR_FRAME_HEARTBEAT, 0, frame, len);
    deliver(frame);
    expect_close(-CFSR_E_BAD_FRAME);
}

Test(receiver, goodbyes_both_ways)
{
    struct cfsr_goodbye body = {.reason = 0};
    struct cfsr_link_header header;
    connect_peer();
    uint32_t len = cfsr_goodbye_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    (void)cfsr_session_seal(&dial, CFSR_FRAME_GOODBYE, 0, frame, len);
    deliver(frame);
    expect_close(-CFSR_E_SHUTDOWN);
    cr_assert_eq(count_of(CFSR_ACTION_SEND_FRAME), 0);
    cr_assert_eq(r.counters.refused, 0);

    cfsr_receiver_fini(&r);
    init_receiver(5);
    connect_peer();
    out.count = 0;
    cfsr_receiver_stop(&r, now, -CFSR_E_SUPERSEDED, &out);
    expect_close(-CFSR_E_SUPERSEDED);
    cr_assert_eq(cfsr_link_header_load(action_of(CFSR_ACTION_SEND_FRAME)->frame, &header), 0);
    cr_assert_eq(header.type, CFSR_FRAME_GOODBYE);
    out.count = 0;
    cfsr_receiver_stop(&r, now, -CFSR_E_SHUTDOWN, &out);
    cr_assert_eq(out.count, 0);
}

Test(receiver, types_that_only_the_acceptor_sends_are_refused)
{
    struct cfsr_ack body = {.count = 0};
    connect_peer();
    uint32_t len = cfsr_ack_store(&body, frame + CFSR_LINK_HEADER_BYTES);
    /* As a peer that breaks the rules would seal it: by the same keys, another type. */
    (void)cfsr_session_seal(&dial, CFSR_FRAME_GOODBYE, 0, frame, len);
    frame[5] = CFSR_FRAME_ACK;
    deliver(frame);
    cr_assert_eq(r.state, CFSR_RECEIVER_CLOSING);
    cr_assert_eq(r.counters.refused, 1);
}
