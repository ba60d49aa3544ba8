/*
 * test_null.c - the part of the contract that makes sense when nothing ever arrives.
 */
#include "contract.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>

static bool is_connected(void *user)
{
    return ((struct contract_end *)user)->connected > 0;
}

static bool is_all_sent(void *user)
{
    struct contract_end *end = user;

    return end->sent == end->queued;
}

static bool is_writable(void *user)
{
    return ((struct contract_end *)user)->writable > 0;
}

static struct contract_end *dial(struct contract_world *world)
{
    struct contract_end *end = contract_end_create(world);

    cr_assert_eq(contract_dial(world, "null://sink:1", 1000, end), 0);
    cr_assert_eq(end->connected, 0u, "an upcall from connect");
    contract_until(world, is_connected, end, "it connects");
    return end;
}

static void close_and_free(struct contract_world *world, struct contract_end *end)
{
    contract_close(end, true);
    contract_until(world, contract_is_closed, end, "it closes");
    cr_assert_eq(end->reason, 0);
    contract_end_destroy(end);
}

static void sends_complete_once(struct contract_world *world)
{
    struct contract_end *end = dial(world);

    for (unsigned i = 0; i < 300; i++)
        contract_send_all(end, i % 5 == 0 ? CFSR_STREAM_CONTROL : CFSR_STREAM_DATA, i * 37,
                          1 + i % 4);
    contract_until(world, is_all_sent, end, "every cookie comes back");
    for (unsigned i = 0; i < 300; i++)
        cr_assert_eq(end->sent_times[i], 1);
    cr_assert_eq(end->received_bytes, 0u);
    close_and_free(world, end);
}

Test(null, sends_complete_once)
{
    contract_run("null", sends_complete_once);
}

static void full_then_writable(struct contract_world *world)
{
    struct contract_end *end = dial(world);
    unsigned taken = 0;

    while (contract_send(end, CFSR_STREAM_DATA, 100, 1) == 1)
        cr_assert_lt(++taken, 1000u);
    cr_assert_eq(end->sent, 0u, "an upcall from send");
    contract_until(world, is_writable, end, "on_writable follows -EAGAIN");
    close_and_free(world, end);
}

Test(null, full_queue_then_writable)
{
    contract_run("null", full_then_writable);
}

static void close_in_upcalls(struct contract_world *world)
{
    for (unsigned i = 0; i < 2; i++) {
        struct contract_end *end = contract_end_create(world);
        end->close_in = i == 0 ? CONTRACT_IN_CONNECTED : CONTRACT_IN_SENT;
        cr_assert_eq(contract_dial(world, "null://sink:1", 1000, end), 0);
        if (i == 1) {
            contract_until(world, is_connected, end, "it connects");
            for (unsigned n = 0; n < 10; n++)
                cr_assert_eq(contract_send(end, CFSR_STREAM_DATA, 100, 1), 1);
        }
        contract_until(world, contract_is_closed, end, "it closes");
        contract_end_destroy(end);
    }
}

Test(null, close_from_inside_upcalls)
{
    contract_run("null", close_in_upcalls);
}

Test(null, cannot_listen)
{
    struct cfsr_listener *listener;

    cr_assert_eq(cfsr_transport_null.listen("null://x:1", NULL, &listener), -ENOTSUP);
}
