/* test_mailbox.c - order, bound, many senders; the sleeping protocol without a ring (the reactor
 * tests have one). */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "core/mailbox.h"
#include "core/ring.h"

#define SENDERS 4
#define EACH    20000

static uint64_t got[SENDERS];
static uint64_t out_of_order;

static void receive(const struct cfsr_message *message)
{
    uint64_t sender = message->args[0];

    if (message->args[1] != got[sender])
        out_of_order++;
    got[sender]++;
}

static bool post(struct cfsr_mailbox *mailbox, uint64_t sender, uint64_t number)
{
    struct cfsr_message message = {.run = receive, .args = {sender, number}};

    return cfsr_mailbox_post(mailbox, &message);
}

Test(mailbox, delivers_in_order_and_refuses_when_full)
{
    struct cfsr_mailbox *mailbox = NULL;
    uint64_t i, lap;

    cr_assert_eq(cfsr_mailbox_create(8, &mailbox), 0);
    for (lap = 0; lap < 5; lap++) {
        for (i = 0; i < 8; i++)
            cr_assert(post(mailbox, 0, lap * 8 + i));
        cr_assert_not(post(mailbox, 0, 99));
        cr_assert_eq(cfsr_mailbox_drain(mailbox, 3), 3, "bounded");
        cr_assert_eq(cfsr_mailbox_drain(mailbox, 100), 5);
        cr_assert_eq(cfsr_mailbox_drain(mailbox, 100), 0);
    }
    cr_assert_eq(got[0], 40);
    cr_assert_eq(out_of_order, 0);
    cfsr_mailbox_destroy(mailbox);
}

Test(mailbox, refuses_odd_capacities)
{
    struct cfsr_mailbox *mailbox = NULL;

    cr_assert_eq(cfsr_mailbox_create(0, &mailbox), -EINVAL);
    cr_assert_eq(cfsr_mailbox_create(6, &mailbox), -EINVAL);
    cr_assert_null(mailbox);
}

struct sender {
    struct cfsr_mailbox *mailbox;
    uint64_t id;
};

static void *send_all(void *argument)
{
    struct sender *sender = argument;
    uint64_t i;

    for (i = 0; i < EACH; i++) {
        while (!post(sender->mailbox, sender->id, i))
            sched_yield();
    }
    return NULL;
}

Test(mailbox, takes_from_many_threads_without_loss)
{
    struct cfsr_mailbox *mailbox = NULL;
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    uint64_t total = 0, i;

    cr_assert_eq(cfsr_mailbox_create(64, &mailbox), 0);
    for (i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){mailbox, i};
        cr_assert_eq(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    while (total < SENDERS * EACH) {
        unsigned n = cfsr_mailbox_drain(mailbox, 32);

        total += n;
        if (n == 0)
            sched_yield();
    }
    for (i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(got[i], EACH);
    }
    cr_assert_eq(out_of_order, 0);
    cfsr_mailbox_destroy(mailbox);
}

Test(mailbox, wakes_the_ring_only_when_asleep)
{
    struct cfsr_ring_options options = {.sq_entries = 8, .cpu = -1};
    struct cfsr_mailbox *mailbox = NULL;
    struct cfsr_ring *ring = NULL;

    if (cfsr_ring_create(&options, &ring) < 0)
        cr_skip_test("%s", cfsr_error_message());
    cr_assert_eq(cfsr_mailbox_create(8, &mailbox), 0);
    cfsr_mailbox_attach(mailbox, ring);
    cr_assert(post(mailbox, 0, 0));
    cr_assert_eq(cfsr_ring_submit_and_reap(ring, 0), 0, "awake: no wake-up is sent");
    cr_assert_not(cfsr_mailbox_prepare_sleep(mailbox), "a message waits");
    cr_assert_eq(cfsr_mailbox_drain(mailbox, 8), 1);
    cr_assert(cfsr_mailbox_prepare_sleep(mailbox));
    cr_assert(post(mailbox, 0, 1));
    cr_assert_eq(cfsr_ring_submit_and_reap(ring, 10ull * 1000 * 1000 * 1000), 1);
    cfsr_mailbox_awake(mailbox);
    cr_assert_eq(cfsr_mailbox_drain(mailbox, 8), 1);
    cfsr_mailbox_detach(mailbox);
    cr_assert_eq(cfsr_ring_in_flight(ring), 0);
    cfsr_ring_destroy(ring);
    cfsr_mailbox_destroy(mailbox);
}
