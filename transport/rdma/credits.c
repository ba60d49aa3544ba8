/*
 * rdma/credits.c - credit accounting of one RDMA connection (credits.h).
 *
 * Thread:     the core of the connection.
 * Invariants: received <= granted <= posted <= received + slots; sent <= peer_granted; both are
 *             asserted at every change of ours.
 * Updates:    a grant message uses a credit itself, and its slot must be granted back. So only
 *             slots that held frames make an update due at an eighth of the ring; slots of grants
 *             count at a quarter. Each round of grants is then at least four times shorter than the
 *             one that caused it, and ends.
 * Rejected:   RNR retries as flow control (a retry costs a timer, up to 655 ms), grants by RDMA
 *             write (a remote key exposed for eight bytes).
 */
#include "transport/rdma/credits.h"

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"

static void check(const struct cfsr_rdma_credits *credits)
{
    CFSR_ASSERT(credits->received <= credits->granted);
    CFSR_ASSERT(credits->granted <= credits->posted);
    CFSR_ASSERT(credits->posted <= credits->received + credits->slots);
    CFSR_ASSERT(credits->sent <= credits->peer_granted);
    CFSR_ASSERT(credits->peer_granted <= credits->sent + credits->peer_slots);
}

void cfsr_rdma_credits_init(struct cfsr_rdma_credits *credits, uint32_t slots)
{
    CFSR_ASSERT(slots >= CFSR_RDMA_SLOTS_MIN && slots <= CFSR_RDMA_SLOTS_MAX);
    *credits = (struct cfsr_rdma_credits){.slots = slots};
}

void cfsr_rdma_credits_start(struct cfsr_rdma_credits *credits, uint32_t peer_slots)
{
    CFSR_ASSERT(credits->peer_slots == 0 && credits->posted == credits->slots);
    CFSR_ASSERT(peer_slots >= CFSR_RDMA_SLOTS_MIN && peer_slots <= CFSR_RDMA_SLOTS_MAX);
    credits->peer_slots = peer_slots;
    credits->peer_granted = peer_slots;
    check(credits);
}

uint32_t cfsr_rdma_credits_postable(const struct cfsr_rdma_credits *credits, uint32_t held)
{
    uint64_t waiting = credits->posted - credits->received;

    CFSR_ASSERT(waiting + held <= credits->slots);
    return credits->slots - (uint32_t)waiting - held;
}

void cfsr_rdma_credits_post(struct cfsr_rdma_credits *credits, uint32_t count, uint32_t of_frames)
{
    CFSR_ASSERT(of_frames <= count);
    if (credits->posted == 0) {
        CFSR_ASSERT(count == credits->slots);
        credits->granted = count; /* said at connection set-up */
    }
    credits->posted += count;
    credits->owed_frames += of_frames;
    check(credits);
}

int cfsr_rdma_credits_receive(struct cfsr_rdma_credits *credits, uint32_t grant)
{
    if (credits->received == credits->granted)
        return -CFSR_E_BAD_FRAME; /* a slot that was posted again but not granted yet */
    if (credits->peer_granted + grant > credits->sent + credits->peer_slots)
        return -CFSR_E_BAD_FRAME;
    credits->received++;
    credits->peer_granted += grant;
    check(credits);
    return 0;
}

uint32_t cfsr_rdma_credits_available(const struct cfsr_rdma_credits *credits, uint32_t reserved)
{
    uint64_t have = credits->peer_granted - credits->sent;

    return have > reserved ? (uint32_t)have - reserved : 0;
}

uint32_t cfsr_rdma_credits_send(struct cfsr_rdma_credits *credits)
{
    uint32_t grant = (uint32_t)cfsr_min_u64(credits->posted - credits->granted,
                                            CFSR_RDMA_GRANT_MAX);

    credits->sent++;
    credits->granted += grant;
    credits->owed_frames = 0;
    check(credits);
    return grant;
}

bool cfsr_rdma_credits_update_due(const struct cfsr_rdma_credits *credits)
{
    uint64_t owed = credits->posted - credits->granted;

    return credits->owed_frames >= credits->slots / 8 || owed >= credits->slots / 4;
}
