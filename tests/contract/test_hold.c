/*
 * test_hold.c - received bytes that outlive their connection, over each transport that has slots:
 * what was shown and not released stays as it is while a disk may still read it.
 */
#include "contract.h"

#include <criterion/criterion.h>

#include <errno.h>

#define FRAMES 12u

static bool has_slots(const struct contract_world *world)
{
    if ((world->transport->caps & CFSR_TRANSPORT_SLOTS) != 0)
        return true;
    cr_assert(world->transport->recv_hold == NULL && world->transport->recv_drop == NULL);
    return false;
}

static bool has_all(void *user)
{
    return ((struct contract_end *)user)->received[CFSR_STREAM_DATA] == FRAMES;
}

/* A far end that has taken FRAMES frames and released all but the last `hold` of them. */
static struct contract_end *receive_and_hold(struct contract_world *world,
                                             struct contract_end *near_end, uint32_t hold)
{
    struct contract_end *far_end = contract_pair(world, near_end);

    far_end->hold_frames = hold;
    far_end->keep_over_close = true;
    for (uint32_t i = 0; i < FRAMES; i++)
        contract_send_all(near_end, CFSR_STREAM_DATA, i * 20011 % 200000, 1 + i % 4);
    contract_until(world, has_all, far_end, "all frames are received");
    cr_assert_eq(far_end->bad_frames, 0u);
    cr_assert_eq(far_end->held_tail - far_end->held_head, hold);
    return far_end;
}

static void close_both(struct contract_end *near_end, struct contract_end *far_end)
{
    contract_close_both(near_end, far_end);
    contract_end_destroy(near_end);
}

/* Connections that use every ring there is, one after the other; nobody writes where one is held.
 */
static void use_other_rings(struct contract_world *world, const struct contract_end *holder)
{
    for (unsigned i = 0; i <= world->rings; i++) {
        struct contract_end *near_end = contract_end_create(world);
        struct contract_end *far_end = contract_pair(world, near_end);
        for (uint32_t k = 0; k < 40; k++)
            contract_send_all(near_end, CFSR_STREAM_DATA, 200000, 2);
        close_both(near_end, far_end);
        cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 40u);
        cr_assert_eq(far_end->bad_frames, 0u);
        cr_assert(contract_held_is_intact(holder), "changed by connection %u", i);
    }
}

CONTRACT(hold_keeps_spans_over_the_close)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end;

    if (!has_slots(world)) {
        contract_end_destroy(near_end);
        return;
    }
    far_end = receive_and_hold(world, near_end, FRAMES);
    close_both(near_end, far_end);
    cr_assert_not_null(far_end->hold);
    use_other_rings(world, far_end);
    contract_drop(far_end);
    near_end = contract_end_create(world);
    close_both(near_end, contract_pair(world, near_end));
}

CONTRACT(hold_keeps_spans_over_a_failure_of_the_peer)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end;

    if (!has_slots(world)) {
        contract_end_destroy(near_end);
        return;
    }
    far_end = receive_and_hold(world, near_end, FRAMES / 2); /* the first ones were released */
    for (uint32_t i = 0; i < 20; i++)                        /* more is on its way when it ends */
        (void)contract_send(near_end, CFSR_STREAM_DATA, 100000, 2);
    far_end->stop_taking = true;
    cr_assert_eq(world->transport->inject(near_end->conn, CFSR_INJECT_RESET), 0);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    cr_assert_eq(far_end->reason, -ECONNRESET);
    cr_assert(contract_held_is_intact(far_end));
    use_other_rings(world, far_end);
    contract_drop(far_end);
    contract_end_destroy(near_end);
}

CONTRACT(hold_keeps_spans_over_a_close_of_our_own)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end;

    if (!has_slots(world)) {
        contract_end_destroy(near_end);
        return;
    }
    far_end = receive_and_hold(world, near_end, FRAMES);
    contract_close(far_end, false);
    for (uint32_t i = 0; i < 20; i++)
        if (near_end->closed == 0)
            (void)contract_send(near_end, CFSR_STREAM_DATA, 100000, 2);
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_turns(world, 20);
    cr_assert(contract_held_is_intact(far_end));
    contract_drop(far_end);
    contract_end_destroy(near_end);
}

static void on_closed_and_dropped(void *user, struct cfsr_conn *conn, int reason)
{
    struct contract_end *end = user;
    struct contract_world *world = end->world;

    world->transport->recv_drop(world->group[CONTRACT_NEAR], world->transport->recv_hold(conn));
    contract_events.on_closed(user, conn, reason);
}

/* Nothing to hold is no special case, and neither is a drop before the upcall returns. */
CONTRACT(hold_of_nothing_can_be_dropped_at_once)
{
    struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION};
    struct cfsr_conn_events events = contract_events;

    if (!has_slots(world))
        return;
    events.on_closed = on_closed_and_dropped;
    for (unsigned i = 0; i <= 2 * world->rings; i++) {
        struct contract_end *near_end = contract_end_create(world);
        cr_assert_eq(world->transport->connect(world->group[CONTRACT_NEAR], world->endpoint,
                                               &preamble, 5000000000ull, &events, near_end,
                                               &near_end->conn),
                     0);
        contract_close(near_end, false);
        contract_until(world, contract_is_closed, near_end, "the near end closes");
        contract_end_destroy(near_end);
    }
}
