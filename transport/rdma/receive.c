/*
 * rdma/receive.c - posted slots of one connection, messages into frames, upcalls that show them.
 *
 * Thread:     the core of the group.
 * Invariants: slots are posted, used, shown and given back in the order of the ring, so a frame of
 *             several messages is contiguous (over the end of the ring by the second mapping). A
 *             slot that was shown is posted again only after its frame was released: nothing the
 *             peer does changes bytes that were verified. So a shown slot may be written to disk
 *             from where it is, also after the connection ended (recv_hold()).
 *             Messages are input of the peer: their sizes and kinds are checked, never asserted.
 * Rejected:   a shared receive queue (slots of all connections in one order: no contiguous frames,
 *             and one peer's messages use up the others' credits).
 */
#include "transport/rdma/rdma.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>

_Static_assert(CFSR_SLOT_ALIGN % CFSR_SPAN_ALIGN == 0, "slots begin and end on a disk block");

static uint32_t slots_held(const struct cfsr_conn *conn)
{
    uint64_t oldest = conn->arrived_head == conn->arrived_tail
                          ? conn->next_slot - conn->part_slots
                          : conn->arrived[conn->arrived_head % conn->credits.slots].first_slot;

    return (uint32_t)(conn->next_slot - oldest);
}

static uint8_t *slot_at(const struct cfsr_conn *conn, uint64_t slot)
{
    uint32_t index = (uint32_t)(slot % conn->credits.slots);

    return conn->ring->mirror.base + (size_t)index * conn->group->geometry.slot_bytes;
}

/* Posts count slots, the next ones of the ring, in lists. */
static int post(struct cfsr_conn *conn, uint32_t count)
{
    struct ibv_recv_wr requests[CFSR_RDMA_WR_BATCH];
    struct ibv_sge pieces[CFSR_RDMA_WR_BATCH];
    uint64_t slot = conn->credits.posted;

    while (count > 0) {
        struct ibv_recv_wr *bad;
        uint32_t now = (uint32_t)cfsr_min_u64(count, CFSR_RDMA_WR_BATCH);
        int error;
        for (uint32_t i = 0; i < now; i++, slot++) {
            pieces[i] = (struct ibv_sge){.addr = (uintptr_t)slot_at(conn, slot),
                                         .length = conn->group->geometry.slot_bytes,
                                         .lkey = conn->ring->mr->lkey};
            requests[i] = (struct ibv_recv_wr){
                .wr_id = cfsr_rdma_wr_id(conn, CFSR_RDMA_WR_RECEIVE, (uint32_t)slot),
                .next = i + 1 < now ? &requests[i + 1] : NULL,
                .sg_list = &pieces[i],
                .num_sge = 1,
            };
        }
        error = ibv_post_recv(conn->id->qp, requests, &bad);
        if (error != 0)
            return -error;
        conn->flushing_receives += now;
        count -= now;
    }
    return 0;
}

int cfsr_rdma_receive_start(struct cfsr_conn *conn)
{
    int rc = post(conn, conn->credits.slots);

    if (rc == 0)
        cfsr_rdma_credits_post(&conn->credits, conn->credits.slots, 0);
    return rc;
}

/* Frames given back from the front; empty messages go with them. Returns slots of frames. */
static uint32_t drop_released(struct cfsr_conn *conn)
{
    uint32_t of_frames = 0;

    while (conn->arrived_head != conn->arrived_taken) {
        struct cfsr_rdma_arrived *arrived =
            &conn->arrived[conn->arrived_head % conn->credits.slots];
        if (conn->released_bytes < arrived->len_bytes)
            break;
        conn->released_bytes -= arrived->len_bytes;
        if (arrived->len_bytes > 0)
            of_frames += arrived->slots;
        conn->arrived_head++;
    }
    return of_frames;
}

void cfsr_rdma_receive_post(struct cfsr_conn *conn)
{
    uint32_t of_frames = drop_released(conn);
    uint32_t count = cfsr_rdma_credits_postable(&conn->credits, slots_held(conn));
    int rc;

    CFSR_ASSERT(of_frames <= count);
    if (count == 0)
        return;
    rc = post(conn, count);
    if (rc < 0)
        cfsr_rdma_conn_fail(conn, rc);
    else
        cfsr_rdma_credits_post(&conn->credits, count, of_frames);
}

static void arrived_push(struct cfsr_conn *conn, uint32_t slots, uint32_t len_bytes)
{
    struct cfsr_rdma_arrived *arrived = &conn->arrived[conn->arrived_tail % conn->credits.slots];

    CFSR_ASSERT(conn->arrived_tail - conn->arrived_head < conn->credits.slots);
    *arrived = (struct cfsr_rdma_arrived){
        .first_slot = conn->next_slot - slots, .slots = slots, .len_bytes = len_bytes};
    conn->arrived_tail++;
}

/* Null if the message is as it must be. */
static const char *wrong_with(const struct cfsr_conn *conn, uint32_t kind, uint32_t len_bytes,
                              uint32_t immediate)
{
    const struct cfsr_group *group = conn->group;

    if (kind >= CFSR_RDMA_KINDS || immediate >> 20 != 0)
        return "unknown kind";
    if (conn->end_received)
        return "after its end";
    if (kind == CFSR_RDMA_GRANT || kind == CFSR_RDMA_END)
        return conn->part_slots > 0 ? "inside a frame" : len_bytes > 0 ? "not empty" : NULL;
    if (len_bytes == 0)
        return "empty";
    if (kind == CFSR_RDMA_MORE && len_bytes != group->geometry.slot_bytes)
        return "a part that does not fill its slot";
    if (conn->part_bytes + len_bytes > group->frame_max_bytes)
        return "a frame above the limit";
    return NULL;
}

void cfsr_rdma_received(struct cfsr_conn *conn, uint32_t len_bytes, uint32_t immediate,
                        bool has_immediate)
{
    struct cfsr_group *group = conn->group;
    uint32_t kind = immediate >> 16 & 0xf;

    conn->flushing_receives--;
    cfsr_counter_add(&group->counters.receives, 1);
    if (conn->failure != 0 || conn->state == CFSR_RDMA_CLOSING)
        return;
    if (conn->state == CFSR_RDMA_ACCEPTING)
        cfsr_rdma_conn_opened(conn); /* the peer's first message may overtake its ready-to-use */
    if (!has_immediate || wrong_with(conn, kind, len_bytes, immediate) != NULL ||
        conn->credits.peer_slots == 0 ||
        cfsr_rdma_credits_receive(&conn->credits, immediate & 0xffff) < 0) {
        cfsr_rdma_conn_fail(conn, -CFSR_E_BAD_FRAME);
        return;
    }
    conn->next_slot++;
    if (conn->fault_flip_bit && len_bytes > 0) {
        conn->fault_flip_bit = false;
        slot_at(conn, conn->next_slot - 1)[len_bytes / 2] ^= 0x10;
    }
    conn->part_slots++;
    conn->part_bytes += len_bytes;
    cfsr_counter_add(&group->counters.bytes_received, len_bytes);
    conn->bytes_received += len_bytes;
    if (kind != CFSR_RDMA_MORE) {
        arrived_push(conn, conn->part_slots, conn->part_bytes);
        conn->part_slots = 0;
        conn->part_bytes = 0;
        conn->show = true;
    }
    conn->end_received = kind == CFSR_RDMA_END;
    cfsr_rdma_conn_want_flush(conn); /* credits may have come, or be due */
    cfsr_rdma_conn_ready(conn);
}

/* Steps over empty messages; the next frame to show, or NULL. */
static struct cfsr_rdma_arrived *next_frame(struct cfsr_conn *conn)
{
    while (conn->arrived_taken != conn->arrived_tail) {
        struct cfsr_rdma_arrived *arrived =
            &conn->arrived[conn->arrived_taken % conn->credits.slots];
        if (arrived->len_bytes > 0)
            return arrived;
        conn->arrived_taken++;
    }
    return NULL;
}

/* Where a frame lies: on a disk block, in slots that no posted receive names. */
static uint8_t *span_of(const struct cfsr_conn *conn, const struct cfsr_rdma_arrived *arrived)
{
    uint8_t *span = slot_at(conn, arrived->first_slot);

    CFSR_ASSERT((uintptr_t)span % CFSR_SPAN_ALIGN == 0);
    CFSR_ASSERT(arrived->first_slot + arrived->slots <= conn->next_slot);
    CFSR_ASSERT(conn->credits.posted <= arrived->first_slot + conn->credits.slots);
    return span;
}

/* After close what arrives is given back unseen, so that credits flow. */
static void forget_all(struct cfsr_conn *conn)
{
    struct cfsr_rdma_arrived *arrived;

    while ((arrived = next_frame(conn)) != NULL) {
        arrived->len_bytes = 0; /* goes with the frames before it, which the callee may still use */
        conn->arrived_taken++;
    }
    cfsr_rdma_conn_want_flush(conn);
}

unsigned cfsr_rdma_show(struct cfsr_conn *conn, unsigned budget)
{
    unsigned work = 0;

    if (conn->state == CFSR_RDMA_LINGER || conn->state == CFSR_RDMA_DRAIN)
        forget_all(conn);
    while (conn->show && !conn->fault_stall && conn->state == CFSR_RDMA_OPEN) {
        struct cfsr_rdma_arrived *arrived = next_frame(conn);
        size_t taken;
        if (arrived == NULL) {
            conn->show = false;
            break;
        }
        if (work >= budget)
            break;
        conn->show = false; /* recv_resume() from inside the upcall sets it again */
        conn->showing = true;
        taken = conn->events->on_data(conn->user, conn, span_of(conn, arrived), arrived->len_bytes);
        conn->showing = false;
        work++;
        CFSR_ASSERT(taken == 0 || taken == arrived->len_bytes);
        CFSR_ASSERT(taken > 0 || conn->early_release_bytes == 0);
        conn->refused = taken == 0;
        if (taken > 0) {
            conn->arrived_taken++;
            conn->show = true;
            conn->released_bytes += conn->early_release_bytes;
            conn->early_release_bytes = 0;
            cfsr_rdma_conn_want_flush(conn);
        } else if (conn->show) {
            break; /* shown again from the next poll */
        }
    }
    return work;
}

size_t cfsr_rdma_untaken(const struct cfsr_conn *conn)
{
    size_t sum = conn->part_bytes;

    for (uint64_t i = conn->arrived_taken; i != conn->arrived_tail; i++)
        sum += conn->arrived[i % conn->credits.slots].len_bytes;
    return sum;
}

void cfsr_rdma_recv_release(struct cfsr_conn *conn, size_t len_bytes)
{
    if (conn->showing) {
        conn->early_release_bytes += len_bytes; /* before it said that it takes the frame */
        return;
    }
    conn->released_bytes += len_bytes;
    cfsr_rdma_conn_want_flush(conn);
}

void cfsr_rdma_recv_resume(struct cfsr_conn *conn)
{
    conn->fault_stall = false;
    conn->show = true;
    cfsr_rdma_conn_ready(conn);
}

/*
 * The queue pair is gone, so the ring is memory like any other, still registered. It comes with all
 * that is not released, and with nothing else: neither the structure nor the place of the
 * connection.
 */
struct cfsr_recv_hold *cfsr_rdma_recv_hold(struct cfsr_conn *conn)
{
    struct cfsr_rdma_ring *ring = conn->ring;

    CFSR_ASSERT(conn->state == CFSR_RDMA_CLOSING && !conn->has_queue_pair);
    CFSR_ASSERT(ring != NULL && !ring->hold.is_held); /* once a connection */
    conn->ring = NULL;
    conn->queue = NULL;
    conn->arrived = NULL;
    ring->hold.is_held = true;
    conn->group->rings_held++;
    return &ring->hold;
}

void cfsr_rdma_recv_drop(struct cfsr_group *group, struct cfsr_recv_hold *hold)
{
    struct cfsr_rdma_ring *ring = CFSR_CONTAINER_OF(hold, struct cfsr_rdma_ring, hold);

    CFSR_ASSERT(ring->hold.is_held && group->rings_held > 0);
    ring->hold.is_held = false;
    group->rings_held--;
    cfsr_list_push_front(&group->rings_free, &ring->link);
}
