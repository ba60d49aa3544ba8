/*
 * test_contract.c - what every transport promises, case by case, over each of them.
 */
#include "contract.h"

#include "base/clock.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t odd_size(uint32_t i)
{
    static const uint32_t sizes[] = {0, 1, 2, 13, 255, 4087, 4096, 65537, 66999, 262139, 1250003};

    return sizes[(i * 7) % 11] + i % 5;
}

struct expectation {
    struct contract_end *end;
    unsigned stream;
    uint32_t count;
};

static bool has_received(void *user)
{
    struct expectation *expected = user;

    return expected->end->received[expected->stream] >= expected->count;
}

static void expect_received(struct contract_end *end, unsigned stream, uint32_t count)
{
    struct expectation expected = {end, stream, count};

    contract_until(end->world, has_received, &expected, "all frames are received");
    cr_assert_eq(end->bad_frames, 0u);
}

static bool all_sent(void *user)
{
    struct contract_end *end = user;

    return end->sent == end->queued;
}

static void expect_sent_once(struct contract_end *end)
{
    contract_until(end->world, all_sent, end, "every cookie comes back");
    for (uint32_t i = 0; i < end->queued; i++)
        cr_assert_eq(end->sent_times[i], 1, "cookie %u came back %u times", i, end->sent_times[i]);
}

static void close_both(struct contract_end *near_end, struct contract_end *far_end)
{
    contract_close_both(near_end, far_end);
    contract_end_destroy(near_end);
}

CONTRACT(connects_and_accepts_with_preamble)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    struct cfsr_conn_info info;

    cr_assert_eq(far_end->preamble.kind, 1);
    cr_assert_eq(far_end->preamble.target_core, 7u);
    cr_assert_str_eq((const char *)far_end->preamble.ticket, "ticket");
    world->transport->conn_info(near_end->conn, &info);
    cr_assert_str_eq(info.remote, world->endpoint);
    close_both(near_end, far_end);
    cr_assert_eq(far_end->reason, 0);
}

CONTRACT(connect_refused)
{
    struct contract_end *near_end = contract_end_create(world);

    world->transport->listener_close(world->listener);
    world->listener = NULL;
    cr_assert_eq(contract_dial(world, world->endpoint, 5000, near_end), 0);
    contract_until(world, contract_is_closed, near_end, "the refusal is reported");
    cr_assert_eq(near_end->reason, -ECONNREFUSED);
    cr_assert_eq(near_end->connected, 0u);
    contract_end_destroy(near_end);
}

/* One request as the control thread has it, on its way to a core. */
static struct cfsr_incoming *incoming_of(struct contract_world *world,
                                         struct contract_end *near_end)
{
    struct cfsr_incoming *incoming = NULL;
    struct cfsr_preamble preamble;

    world->stop_accepting = true;
    cr_assert_eq(contract_dial(world, world->endpoint, 5000, near_end), 0);
    for (unsigned i = 0; i < 5000 && incoming == NULL; i++) {
        contract_turn(world);
        (void)world->transport->listener_accept(
            world->listener, world->is_sim ? world->now_us * 1000 : cfsr_clock_monotonic_ns(),
            &incoming, &preamble);
    }
    cr_assert_not_null(incoming);
    return incoming;
}

static void close_listener(struct contract_world *world)
{
    world->transport->listener_close(world->listener);
    world->listener = NULL;
}

CONTRACT(request_outlives_its_listener)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = &world->far_ends[world->far_count++];
    struct cfsr_incoming *incoming = incoming_of(world, near_end);

    close_listener(world);
    far_end->world = world;
    cr_assert_eq(world->transport->accept(world->group[CONTRACT_FAR], incoming, &contract_events,
                                          far_end, &far_end->conn),
                 0);
    for (unsigned i = 0; i < 5000 && near_end->connected == 0; i++)
        contract_turn(world);
    cr_assert_eq(near_end->connected, 1u);
    contract_send_all(near_end, CFSR_STREAM_DATA, 1000, 1);
    expect_received(far_end, CFSR_STREAM_DATA, 1);
    close_both(near_end, far_end);
}

CONTRACT(request_is_refused_after_its_listener)
{
    struct contract_end *near_end = contract_end_create(world);
    struct cfsr_incoming *incoming = incoming_of(world, near_end);

    close_listener(world);
    world->transport->incoming_discard(incoming);
    contract_until(world, contract_is_closed, near_end, "the dialler is told");
    cr_assert_neq(near_end->reason, -ETIMEDOUT);
    contract_end_destroy(near_end);
}

CONTRACT(frames_arrive_in_order_and_unmodified)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    for (uint32_t i = 0; i < 300; i++)
        contract_send_all(near_end, CFSR_STREAM_DATA, odd_size(i), 1 + i % 4);
    expect_received(far_end, CFSR_STREAM_DATA, 300);
    expect_sent_once(near_end);
    close_both(near_end, far_end);
}

CONTRACT(both_directions_at_once)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    for (uint32_t i = 0; i < 200; i++) {
        contract_send_all(near_end, CFSR_STREAM_DATA, odd_size(i), 1 + i % 4);
        contract_send_all(far_end, CFSR_STREAM_CONTROL, odd_size(i) % 5000, 1 + i % 2);
    }
    expect_received(far_end, CFSR_STREAM_DATA, 200);
    expect_received(near_end, CFSR_STREAM_CONTROL, 200);
    expect_sent_once(near_end);
    expect_sent_once(far_end);
    close_both(near_end, far_end);
}

CONTRACT(partial_frame_is_shown_again_longer)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    for (uint32_t i = 0; i < 20; i++)
        contract_send_all(near_end, CFSR_STREAM_DATA, 1200003, 3);
    expect_received(far_end, CFSR_STREAM_DATA, 20);
    if ((world->transport->caps & CFSR_TRANSPORT_MESSAGES) == 0)
        cr_assert_gt(far_end->partial_shows, 0u);
    cr_assert_eq(far_end->moved_backwards, 0u, "a span got shorter without being taken");
    close_both(near_end, far_end);
}

CONTRACT(release_later_than_take)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    far_end->hold_frames = 20;
    for (uint32_t i = 0; i < 400; i++)
        contract_send_all(near_end, CFSR_STREAM_DATA, odd_size(i) % 67000, 1 + i % 4);
    expect_received(far_end, CFSR_STREAM_DATA, 400);
    close_both(near_end, far_end);
}

CONTRACT(release_from_inside_on_data)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    far_end->release_early = true;
    for (uint32_t i = 0; i < 200; i++)
        contract_send_all(near_end, CFSR_STREAM_DATA, odd_size(i), 1 + i % 4);
    expect_received(far_end, CFSR_STREAM_DATA, 200);
    close_both(near_end, far_end);
}

static bool is_writable(void *user)
{
    return ((struct contract_end *)user)->writable > 0;
}

CONTRACT(full_queue_then_writable)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    uint32_t taken = 0;

    while (contract_send(near_end, CFSR_STREAM_DATA, 3000, 1) == 1) /* no turn in between */
        cr_assert_lt(++taken, 1000u, "the queue is not bounded");
    cr_assert_gt(taken, 0u);
    contract_until(world, is_writable, near_end, "on_writable follows -EAGAIN");
    cr_assert_eq(contract_send(near_end, CFSR_STREAM_DATA, 3000, 1), 1);
    expect_received(far_end, CFSR_STREAM_DATA, taken + 1);
    close_both(near_end, far_end);
}

CONTRACT(control_overtakes_data)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    for (uint32_t i = 0; i < 40; i++)
        cr_assert_eq(contract_send(near_end, CFSR_STREAM_DATA, 200000, 2), 1);
    contract_turns(world, 2); /* the first frames are on their way, possibly in the middle of one */
    cr_assert_eq(contract_send(near_end, CFSR_STREAM_CONTROL, 40, 1), 1);
    expect_received(far_end, CFSR_STREAM_DATA, 40);
    expect_received(far_end, CFSR_STREAM_CONTROL, 1);
    cr_assert_lt(far_end->control_behind_data, 40u, "CONTROL waited for all of DATA");
    close_both(near_end, far_end);
}

static void close_from_upcall(struct contract_world *world, enum contract_close_in near_in,
                              enum contract_close_in far_in)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end;

    near_end->close_in = near_in;
    if (near_in == CONTRACT_IN_CONNECTED) {
        cr_assert_eq(contract_dial(world, world->endpoint, 5000, near_end), 0);
        contract_until(world, contract_is_closed, near_end, "close from on_connected");
        cr_assert_eq(near_end->reason, 0);
        contract_end_destroy(near_end);
        return;
    }
    far_end = contract_pair(world, near_end);
    far_end->close_in = far_in;
    for (uint32_t i = 0; i < 10; i++)
        (void)contract_send(near_end, CFSR_STREAM_DATA, 100000, 2);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    contract_end_destroy(near_end);
}

CONTRACT(close_from_inside_on_connected)
{
    close_from_upcall(world, CONTRACT_IN_CONNECTED, CONTRACT_CLOSE_NEVER);
}

CONTRACT(close_from_inside_on_sent)
{
    close_from_upcall(world, CONTRACT_IN_SENT, CONTRACT_CLOSE_NEVER);
}

CONTRACT(close_from_inside_on_data)
{
    close_from_upcall(world, CONTRACT_CLOSE_NEVER, CONTRACT_IN_DATA);
}

CONTRACT(send_after_close_is_refused)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    char byte = 0;
    struct cfsr_frame frame = {.pieces = {{&byte, 1}}, .count = 1};
    struct cfsr_conn *conn = near_end->conn;

    contract_close(near_end, false);
    cr_assert_eq(world->transport->send(conn, CFSR_STREAM_DATA, &frame, 1), -ENOTCONN);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    contract_end_destroy(near_end);
}

CONTRACT(close_with_linger_delivers_everything)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    uint32_t queued;

    /* The far end talks too: unread bytes at close must not turn into a reset. */
    cr_assert_eq(contract_send(far_end, CFSR_STREAM_DATA, 50000, 1), 1);
    for (queued = 0; queued < 60; queued++)
        if (contract_send(near_end, CFSR_STREAM_DATA, odd_size(queued), 2) == 0)
            break;
    contract_close_both(near_end, far_end);
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], queued);
    cr_assert_eq(far_end->bad_frames, 0u);
    cr_assert_eq(far_end->reason, 0);
    contract_end_destroy(near_end);
}

/* The far end takes nothing, and every queue to it is full. */
static void fill_up(struct contract_end *near_end, struct contract_end *far_end)
{
    far_end->stop_taking = true;
    for (uint32_t i = 0; i < 200; i++) {
        (void)contract_send(near_end, CFSR_STREAM_DATA, 1000000, 2);
        contract_turn(near_end->world);
    }
}

CONTRACT(abort_with_full_queue_does_not_hang)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    fill_up(near_end, far_end);
    contract_close(near_end, false);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_close(far_end, false);
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    contract_end_destroy(near_end);
}

static void let_go(struct contract_end *end)
{
    end->stop_taking = false;
    end->last_untaken = 0;
    if (end->conn != NULL)
        end->world->transport->recv_resume(end->conn);
}

CONTRACT(linger_is_bounded)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    fill_up(near_end, far_end);
    contract_close(near_end, true);
    contract_until(world, contract_is_closed, near_end, "a peer that takes nothing is given up");
    let_go(far_end); /* who takes nothing does not see the end either, until it does */
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    contract_end_destroy(near_end);
}

CONTRACT(hundred_connections_come_and_go)
{
    /* Where every connection holds a receive ring there are as many as rings; see test_rdma.c. */
    bool holds_rings = (world->transport->caps & CFSR_TRANSPORT_MESSAGES) != 0;
    const unsigned count = holds_rings ? world->rings : 100;
    struct contract_end *near_ends[100];

    for (unsigned i = 0; i < count; i++) {
        near_ends[i] = contract_end_create(world);
        (void)contract_pair(world, near_ends[i]);
        cr_assert_eq(contract_send(near_ends[i], CFSR_STREAM_DATA, 100 + i, 1), 1);
    }
    for (unsigned i = 0; i < count; i++)
        expect_received(&world->far_ends[i], CFSR_STREAM_DATA, 1);
    for (unsigned i = 0; i < count; i++) /* from either side, either way */
        contract_close(i % 2 ? near_ends[i] : &world->far_ends[i], i % 3 == 0);
    for (unsigned i = 0; i < count; i++) {
        contract_until(world, contract_is_closed, near_ends[i], "the near end closes");
        contract_until(world, contract_is_closed, &world->far_ends[i], "the far end closes");
        contract_end_destroy(near_ends[i]);
    }
}

CONTRACT(receiver_that_stops_taking_holds_the_sender)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    unsigned refused = 0;
    uint32_t queued = 0;
    struct cfsr_conn_info info;

    far_end->stop_taking = true;
    while (refused < 200) { /* the pipe, the ring and the queue fill up, then nothing moves */
        if (contract_send(near_end, CFSR_STREAM_DATA, 250000, 2) == 1) {
            queued++;
            refused = 0;
        } else {
            refused++;
        }
        cr_assert_lt(queued, 900u, "nothing holds the sender back");
        contract_turn(world);
    }
    world->transport->conn_info(far_end->conn, &info);
    cr_assert(info.receive_stalled);
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 0u);
    near_end->writable = 0;
    let_go(far_end);
    contract_until(world, is_writable, near_end, "the sender may go on");
    expect_received(far_end, CFSR_STREAM_DATA, queued);
    expect_sent_once(near_end);
    close_both(near_end, far_end);
}

CONTRACT(injected_reset_is_seen_on_both_sides)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    for (uint32_t i = 0; i < 10; i++)
        (void)contract_send(near_end, CFSR_STREAM_DATA, 100000, 2);
    contract_turn(world);
    cr_assert_eq(world->transport->inject(near_end->conn, CFSR_INJECT_RESET), 0);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    cr_assert_eq(near_end->reason, -ECONNRESET);
    cr_assert_eq(far_end->reason, -ECONNRESET);
    contract_end_destroy(near_end);
}

CONTRACT(injected_short_sends_lose_nothing)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    struct cfsr_transport_stats stats;

    for (uint32_t i = 0; i < 100; i++) {
        cr_assert_eq(world->transport->inject(near_end->conn, CFSR_INJECT_SHORT_SEND), 0);
        contract_send_all(near_end, CFSR_STREAM_DATA, odd_size(i), 1 + i % 4);
        if (i % 10 == 0)
            contract_send_all(near_end, CFSR_STREAM_CONTROL, i, 1);
        contract_turn(world);
    }
    expect_received(far_end, CFSR_STREAM_DATA, 100);
    expect_received(far_end, CFSR_STREAM_CONTROL, 10);
    world->transport->stats(world->group[CONTRACT_NEAR], &stats);
    cr_assert_gt(stats.short_sends, 0u);
    close_both(near_end, far_end);
}

CONTRACT(injected_bit_flip_reaches_the_callee)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    struct expectation expected = {far_end, CFSR_STREAM_DATA, 1};

    cr_assert_eq(world->transport->inject(far_end->conn, CFSR_INJECT_FLIP_BIT), 0);
    cr_assert_eq(contract_send(near_end, CFSR_STREAM_DATA, 2000, 1), 1);
    contract_until(world, has_received, &expected, "the frame arrives");
    cr_assert_eq(far_end->bad_frames, 1u);
    close_both(near_end, far_end);
}

CONTRACT(injected_receive_stall_ends_with_resume)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    cr_assert_eq(world->transport->inject(far_end->conn, CFSR_INJECT_STALL_RECV), 0);
    cr_assert_eq(contract_send(near_end, CFSR_STREAM_DATA, 2000, 1), 1);
    contract_turns(world, 50);
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 0u);
    world->transport->recv_resume(far_end->conn);
    expect_received(far_end, CFSR_STREAM_DATA, 1);
    close_both(near_end, far_end);
}

CONTRACT(statistics_add_up)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    struct cfsr_transport_stats near_stats;
    struct cfsr_transport_stats far_stats;

    for (uint32_t i = 0; i < 50; i++)
        contract_send_all(near_end, CFSR_STREAM_DATA, odd_size(i), 1);
    expect_received(far_end, CFSR_STREAM_DATA, 50);
    world->transport->stats(world->group[CONTRACT_FAR], &far_stats);
    cr_assert_eq(far_stats.bytes_received, far_end->received_bytes);
    cr_assert_eq(far_stats.accepts, 1u);
    close_both(near_end, far_end);
    world->transport->stats(world->group[CONTRACT_NEAR], &near_stats);
    cr_assert_geq(near_stats.bytes_sent, far_stats.bytes_received);
    cr_assert_eq(near_stats.connects, 1u);
    cr_assert_eq(near_stats.closes, 1u);
    cr_assert_eq(near_stats.errors, 0u);
}

CONTRACT(group_goes_with_open_connections)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    far_end->stop_taking = true;
    for (uint32_t i = 0; i < 60; i++) {
        (void)contract_send(near_end, CFSR_STREAM_DATA, 1000000, 2);
        contract_turn(world);
    }
    world->transport->group_destroy(world->group[CONTRACT_NEAR]);
    contract_end_destroy(near_end); /* its frames are ours again without an upcall */
    contract_group_create(world, CONTRACT_NEAR);
    let_go(far_end);
    contract_until(world, contract_is_closed, far_end, "the far end closes");
}
