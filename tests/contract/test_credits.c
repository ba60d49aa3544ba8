/*
 * test_credits.c - the credit accounting of RDMA connections: two ends, played against each other.
 */
#include "transport/rdma/credits.h"

#include <cfsrepl/error.h>

#include <criterion/criterion.h>

#include <stdlib.h>

static void start(struct cfsr_rdma_credits *credits, uint32_t slots, uint32_t peer_slots)
{
    cfsr_rdma_credits_init(credits, slots);
    cfsr_rdma_credits_post(credits, slots, 0);
    cfsr_rdma_credits_start(credits, peer_slots);
}

Test(credits, data_leaves_two_and_control_one)
{
    struct cfsr_rdma_credits credits;

    start(&credits, 16, 8);
    cr_assert_eq(cfsr_rdma_credits_available(&credits, CFSR_RDMA_RESERVED), 6u);
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(cfsr_rdma_credits_send(&credits), 0u);
    cr_assert_eq(cfsr_rdma_credits_available(&credits, CFSR_RDMA_RESERVED), 0u);
    cr_assert_eq(cfsr_rdma_credits_available(&credits, CFSR_RDMA_RESERVED - 1), 1u);
    cr_assert_eq(cfsr_rdma_credits_available(&credits, 0), 2u);
}

Test(credits, more_messages_than_were_granted_are_refused)
{
    struct cfsr_rdma_credits credits;

    start(&credits, 8, 8);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(cfsr_rdma_credits_receive(&credits, 0), 0);
    cr_assert_eq(cfsr_rdma_credits_receive(&credits, 0), -CFSR_E_BAD_FRAME);
    cfsr_rdma_credits_post(&credits, 3, 3); /* posted again, but nobody told the peer */
    cr_assert_eq(cfsr_rdma_credits_receive(&credits, 0), -CFSR_E_BAD_FRAME);
    cr_assert_eq(cfsr_rdma_credits_send(&credits), 3u);
    cr_assert_eq(cfsr_rdma_credits_receive(&credits, 0), 0);
}

Test(credits, a_grant_beyond_the_peers_slots_is_refused)
{
    struct cfsr_rdma_credits credits;

    start(&credits, 8, 8);
    cr_assert_eq(cfsr_rdma_credits_receive(&credits, 1), -CFSR_E_BAD_FRAME);
    (void)cfsr_rdma_credits_send(&credits);
    cr_assert_eq(cfsr_rdma_credits_receive(&credits, 2), -CFSR_E_BAD_FRAME);
    cr_assert_eq(cfsr_rdma_credits_receive(&credits, 1), 0);
}

Test(credits, grants_alone_do_not_go_back_and_forth_for_ever)
{
    struct cfsr_rdma_credits a;
    struct cfsr_rdma_credits b;
    unsigned messages = 0;

    start(&a, 64, 64);
    start(&b, 64, 64);
    for (unsigned i = 0; i < 40; i++) { /* frames from a, all released at once */
        cr_assert_eq(cfsr_rdma_credits_receive(&b, cfsr_rdma_credits_send(&a)), 0);
        cfsr_rdma_credits_post(&b, 1, 1);
    }
    while (messages < 100) {
        if (cfsr_rdma_credits_update_due(&b)) {
            cr_assert_eq(cfsr_rdma_credits_receive(&a, cfsr_rdma_credits_send(&b)), 0);
            cfsr_rdma_credits_post(&a, 1, 0);
        } else if (cfsr_rdma_credits_update_due(&a)) {
            cr_assert_eq(cfsr_rdma_credits_receive(&b, cfsr_rdma_credits_send(&a)), 0);
            cfsr_rdma_credits_post(&b, 1, 0);
        } else {
            break;
        }
        messages++;
    }
    cr_assert_eq(messages, 1u);
}

/* One end of the random play: frames of several parts, held for a while. */
struct end {
    struct cfsr_rdma_credits credits;
    uint32_t held_frames, held_grants; /* slots, in the order frames before grants */
    uint64_t frames_sent;
};

static bool try_send(struct end *from, struct end *to, uint32_t parts)
{
    if (cfsr_rdma_credits_available(&from->credits, CFSR_RDMA_RESERVED) < parts)
        return false;
    for (uint32_t i = 0; i < parts; i++)
        cr_assert_eq(
            cfsr_rdma_credits_receive(&to->credits, cfsr_rdma_credits_send(&from->credits)), 0);
    to->held_frames += parts;
    from->frames_sent++;
    return true;
}

static void release(struct end *end)
{
    uint32_t count = end->held_frames + end->held_grants;

    cr_assert_eq(cfsr_rdma_credits_postable(&end->credits, count) + count,
                 end->credits.slots - (uint32_t)(end->credits.posted - end->credits.received));
    if (count > 0)
        cfsr_rdma_credits_post(&end->credits, count, end->held_frames);
    end->held_frames = 0;
    end->held_grants = 0;
}

static void update(struct end *from, struct end *to)
{
    if (!cfsr_rdma_credits_update_due(&from->credits) ||
        cfsr_rdma_credits_available(&from->credits, 0) == 0)
        return;
    cr_assert_eq(cfsr_rdma_credits_receive(&to->credits, cfsr_rdma_credits_send(&from->credits)),
                 0);
    to->held_grants++;
}

Test(credits, two_busy_ends_never_wait_for_each_other_for_ever)
{
    for (unsigned seed = 1; seed <= 200; seed++) {
        static const uint32_t sizes[] = {8, 16, 64, 1024};
        struct end ends[2] = {0};
        uint32_t slots[2];
        unsigned stuck = 0;
        unsigned state = seed;
        for (unsigned i = 0; i < 2; i++)
            slots[i] = sizes[rand_r(&state) % 4];
        start(&ends[0].credits, slots[0], slots[1]);
        start(&ends[1].credits, slots[1], slots[0]);
        for (unsigned step = 0; step < 5000; step++) {
            unsigned from = (unsigned)rand_r(&state) % 2;
            /* The largest frame is half of the peer's ring. */
            uint32_t most = slots[1 - from] / 2;
            bool sent = try_send(&ends[from], &ends[1 - from],
                                 rand_r(&state) % 3 == 0 ? most
                                                         : 1 + (uint32_t)rand_r(&state) % most);
            if (rand_r(&state) % 4 == 0 || stuck > 10) {
                release(&ends[0]);
                release(&ends[1]);
            }
            update(&ends[0], &ends[1]);
            update(&ends[1], &ends[0]);
            stuck = sent ? 0 : stuck + 1;
            cr_assert_lt(stuck, 100u, "seed %u: nobody may send", seed);
        }
    }
}
