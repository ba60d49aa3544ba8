/*
 * rdma/send.c - the frames of one connection into work requests, and back.
 *
 * Thread:     the core of the group.
 * Invariants: released <= sent <= posted <= tail in each lane; a begun frame is finished before
 *             any other message, and is begun only with credits for all its parts; CONTROL goes
 *             first otherwise. Work requests of a turn are linked and given to the device in one
 *             call (one doorbell); the last of each list asks for a completion, and one every
 *             quarter of the queue, so that the queue never fills unseen.
 *             A completion says that memory is free again. It says nothing about the peer's disk.
 * Memory:     pieces in registered memory are named where they lie; others (frame headers) are
 *             copied into a registered buffer of the group, or sent inline if the device takes
 *             that much. Nothing depends on inline: 0 works.
 */
#include "transport/rdma/rdma.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

_Static_assert((CFSR_RDMA_DATA_MAX & (CFSR_RDMA_DATA_MAX - 1)) == 0, "index by mask");
_Static_assert((CFSR_RDMA_CONTROL_MAX & (CFSR_RDMA_CONTROL_MAX - 1)) == 0, "index by mask");

/* Work requests being put together for one call. */
struct batch {
    struct ibv_send_wr requests[CFSR_RDMA_WR_BATCH];
    struct ibv_sge pieces[CFSR_RDMA_WR_BATCH][CFSR_RDMA_SGE_MAX];
    uint32_t count;
};

void cfsr_rdma_send_init(struct cfsr_conn *conn)
{
    conn->lanes[CFSR_STREAM_DATA].frames = conn->data;
    conn->lanes[CFSR_STREAM_DATA].mask = CFSR_RDMA_DATA_MAX - 1;
    conn->lanes[CFSR_STREAM_CONTROL].frames = conn->control;
    conn->lanes[CFSR_STREAM_CONTROL].mask = CFSR_RDMA_CONTROL_MAX - 1;
}

static size_t frame_bytes(const struct cfsr_frame *frame)
{
    size_t sum = 0;

    for (unsigned i = 0; i < frame->count; i++)
        sum += frame->pieces[i].iov_len;
    return sum;
}

/* What the device could not take must be refused here, where the caller sees it. */
static int check_frame(struct cfsr_conn *conn, const struct cfsr_frame *frame)
{
    uint64_t limit = (uint64_t)conn->peer.slot_bytes * conn->peer.slots / 2;
    size_t unregistered = 0;
    uint32_t lkey;

    CFSR_ASSERT(frame->count >= 1 && frame->count <= CFSR_FRAME_PIECES_MAX);
    CFSR_ASSERT(frame_bytes(frame) > 0);
    if (frame_bytes(frame) > limit)
        return cfsr_fail(-EMSGSIZE, "a frame of %zu bytes is above half of the peer's receive ring",
                         frame_bytes(frame));
    for (unsigned i = 0; i < frame->count; i++) {
        const struct iovec *piece = &frame->pieces[i];
        if (!cfsr_rdma_region_find(conn->group, piece->iov_base, piece->iov_len, &lkey))
            unregistered += piece->iov_len;
    }
    if (unregistered > CFSR_RDMA_BOUNCE_BYTES)
        return cfsr_fail(-EFAULT,
                         "%zu bytes of a frame are in memory that is not registered; "
                         "memory_register() it at start",
                         unregistered);
    return 0;
}

int cfsr_rdma_send(struct cfsr_conn *conn, enum cfsr_stream stream, const struct cfsr_frame *frames,
                   unsigned count)
{
    struct cfsr_rdma_lane *lane = &conn->lanes[stream];
    uint32_t room = lane->mask + 1 - (lane->tail - lane->released);
    uint32_t take = count < room ? count : room;

    if (conn->state != CFSR_RDMA_OPEN || conn->failure != 0)
        return -ENOTCONN;
    for (uint32_t i = 0; i < take; i++) {
        int rc = check_frame(conn, &frames[i]);
        if (rc < 0 && i == 0)
            return rc;
        if (rc < 0) {
            take = i;
            count = i;
            break;
        }
        lane->frames[(lane->tail + i) & lane->mask] = frames[i];
    }
    lane->tail += take;
    if (take < count)
        lane->wants_writable = true;
    if (take > 0)
        cfsr_rdma_conn_want_flush(conn);
    return take > 0 || count == 0 ? (int)take : -EAGAIN;
}

static uint32_t queue_room(const struct cfsr_conn *conn)
{
    uint32_t used = (uint32_t)(conn->queue_tail - conn->queue_head);

    CFSR_ASSERT(used <= conn->group->send_depth);
    return conn->group->send_depth - used;
}

static uint32_t parts_of(const struct cfsr_conn *conn, const struct cfsr_frame *frame)
{
    return (uint32_t)((frame_bytes(frame) + conn->peer.slot_bytes - 1) / conn->peer.slot_bytes);
}

/* The frame whose part goes next, or NULL: nothing to send, or no credits. */
static const struct cfsr_frame *choose(struct cfsr_conn *conn, enum cfsr_stream *stream_out)
{
    static const enum cfsr_stream order[] = {CFSR_STREAM_CONTROL, CFSR_STREAM_DATA};

    if (conn->begun_bytes > 0) {
        struct cfsr_rdma_lane *lane = &conn->lanes[conn->begun_stream];
        *stream_out = conn->begun_stream;
        return &lane->frames[lane->posted & lane->mask];
    }
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(order); i++) {
        struct cfsr_rdma_lane *lane = &conn->lanes[order[i]];
        const struct cfsr_frame *frame = &lane->frames[lane->posted & lane->mask];
        uint32_t reserved = order[i] == CFSR_STREAM_CONTROL ? CFSR_RDMA_RESERVED - 1
                                                            : CFSR_RDMA_RESERVED;
        if (lane->posted == lane->tail)
            continue;
        *stream_out = order[i];
        return parts_of(conn, frame) <= cfsr_rdma_credits_available(&conn->credits, reserved)
                   ? frame
                   : NULL;
    }
    return NULL;
}

/* Pieces of len_bytes of the frame from skip on, where they lie. Returns how many. */
static unsigned cut(const struct cfsr_frame *frame, size_t skip, size_t len_bytes,
                    struct iovec *parts)
{
    unsigned count = 0;

    for (unsigned i = 0; i < frame->count && len_bytes > 0; i++) {
        size_t len = frame->pieces[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = cfsr_min_u64(len - skip, len_bytes);
        parts[count].iov_base = (uint8_t *)frame->pieces[i].iov_base + skip;
        parts[count].iov_len = len;
        count++;
        len_bytes -= len;
        skip = 0;
    }
    CFSR_ASSERT(len_bytes == 0);
    return count;
}

/* Fills the pieces of a request. False if a bounce buffer is needed and none is free. */
static bool name_memory(struct cfsr_conn *conn, struct ibv_send_wr *request,
                        struct cfsr_rdma_sent *sent, const struct iovec *parts, unsigned count)
{
    struct cfsr_group *group = conn->group;
    size_t copied = 0;
    uint8_t *to = NULL;

    request->num_sge = (int)count;
    for (unsigned i = 0; i < count; i++) {
        struct ibv_sge *piece = &request->sg_list[i];
        piece->addr = (uintptr_t)parts[i].iov_base;
        piece->length = (uint32_t)parts[i].iov_len;
        piece->lkey = 0;
        if (sent->len_bytes <= conn->inline_bytes ||
            cfsr_rdma_region_find(group, parts[i].iov_base, parts[i].iov_len, &piece->lkey))
            continue;
        if (to == NULL) {
            uint16_t number;
            if (group->bounce_free_count == 0)
                return false;
            number = group->bounce_free[--group->bounce_free_count];
            sent->bounce = (uint16_t)(number + 1);
            to = group->bounce + (size_t)number * CFSR_RDMA_BOUNCE_BYTES;
        }
        CFSR_ASSERT(copied + parts[i].iov_len <= CFSR_RDMA_BOUNCE_BYTES);
        memcpy(to + copied, parts[i].iov_base, parts[i].iov_len);
        piece->addr = (uintptr_t)(to + copied);
        piece->lkey = group->bounce_mr->lkey;
        copied += parts[i].iov_len;
    }
    cfsr_counter_add(&group->counters.copied_bytes, copied);
    if (sent->len_bytes > 0 && sent->len_bytes <= conn->inline_bytes)
        request->send_flags |= IBV_SEND_INLINE;
    return true;
}

/* Adds one message to the batch and accounts for it. False: not now. */
static bool add(struct cfsr_conn *conn, struct batch *batch, enum cfsr_rdma_kind kind,
                enum cfsr_stream stream, const struct iovec *parts, unsigned count,
                uint32_t len_bytes)
{
    struct cfsr_rdma_sent *sent = &conn->queue[conn->queue_tail % conn->group->send_depth];
    struct ibv_send_wr *request = &batch->requests[batch->count];
    uint32_t grant;

    *sent = (struct cfsr_rdma_sent){
        .kind = (uint8_t)kind, .stream = (uint8_t)stream, .len_bytes = len_bytes};
    *request = (struct ibv_send_wr){
        .wr_id = cfsr_rdma_wr_id(conn, CFSR_RDMA_WR_SEND, (uint32_t)conn->queue_tail),
        .sg_list = batch->pieces[batch->count],
        .opcode = IBV_WR_SEND_WITH_IMM,
    };
    if (!name_memory(conn, request, sent, parts, count))
        return false;
    grant = cfsr_rdma_credits_send(&conn->credits);
    request->imm_data = htonl(grant | (uint32_t)kind << 16);
    if (batch->count > 0)
        batch->requests[batch->count - 1].next = request;
    batch->count++;
    conn->queue_tail++;
    if (++conn->unsignalled >= conn->group->send_depth / 4) {
        request->send_flags |= IBV_SEND_SIGNALED;
        conn->unsignalled = 0;
    }
    return true;
}

static bool add_part(struct cfsr_conn *conn, struct batch *batch)
{
    struct iovec parts[CFSR_FRAME_PIECES_MAX];
    enum cfsr_stream stream;
    const struct cfsr_frame *frame = choose(conn, &stream);
    size_t left;
    size_t len;
    unsigned count;

    if (frame == NULL)
        return false;
    left = frame_bytes(frame) - conn->begun_bytes;
    len = cfsr_min_u64(left, conn->peer.slot_bytes);
    count = cut(frame, conn->begun_bytes, len, parts);
    if (!add(conn, batch, len < left ? CFSR_RDMA_MORE : CFSR_RDMA_LAST, stream, parts, count,
             (uint32_t)len))
        return false;
    if (len < left) {
        conn->begun_bytes += len;
        conn->begun_stream = stream;
    } else {
        conn->begun_bytes = 0;
        conn->lanes[stream].posted++;
    }
    return true;
}

/* The end, or a grant that cannot wait for a frame to carry it. */
static void add_empty(struct cfsr_conn *conn, struct batch *batch)
{
    if (conn->begun_bytes > 0 || queue_room(conn) <= 1 ||
        cfsr_rdma_credits_available(&conn->credits, 0) == 0)
        return;
    if (conn->state == CFSR_RDMA_LINGER && !conn->end_sent &&
        conn->lanes[CFSR_STREAM_DATA].posted == conn->lanes[CFSR_STREAM_DATA].tail &&
        conn->lanes[CFSR_STREAM_CONTROL].posted == conn->lanes[CFSR_STREAM_CONTROL].tail) {
        conn->end_sent = add(conn, batch, CFSR_RDMA_END, CFSR_STREAM_CONTROL, NULL, 0, 0);
    } else if (!conn->end_sent && cfsr_rdma_credits_update_due(&conn->credits)) {
        (void)add(conn, batch, CFSR_RDMA_GRANT, CFSR_STREAM_CONTROL, NULL, 0, 0);
        cfsr_counter_add(&conn->group->counters.credit_messages, 1);
    }
}

static void submit(struct cfsr_conn *conn, struct batch *batch)
{
    struct cfsr_group *group = conn->group;
    struct ibv_send_wr *last = &batch->requests[batch->count - 1];
    struct ibv_send_wr *bad;
    int error;

    last->send_flags |= IBV_SEND_SIGNALED;
    conn->unsignalled = 0;
    error = ibv_post_send(conn->id->qp, batch->requests, &bad);
    cfsr_counter_add(&group->counters.doorbells, 1);
    cfsr_counter_add(&group->counters.sends, batch->count);
    if (error != 0)
        cfsr_rdma_conn_fail(conn, -error);
}

static void watch_credits(struct cfsr_conn *conn)
{
    bool waits = conn->state == CFSR_RDMA_OPEN && conn->begun_bytes == 0 &&
                 queue_room(conn) > CFSR_RDMA_SEND_RESERVED && cfsr_rdma_unsent(conn) > 0;

    if (!waits) {
        cfsr_rdma_timer_stop(conn, &conn->credit_timer);
    } else if (!conn->credit_timer.is_armed) {
        cfsr_counter_add(&conn->group->counters.credit_waits, 1);
        cfsr_rdma_timer_start(conn, &conn->credit_timer, conn->group->credit_timeout_ns);
    }
}

void cfsr_rdma_send_start(struct cfsr_conn *conn)
{
    bool more = true;

    if (conn->failure != 0 || (conn->state != CFSR_RDMA_OPEN && conn->state != CFSR_RDMA_LINGER &&
                               conn->state != CFSR_RDMA_DRAIN))
        return;
    cfsr_rdma_receive_post(conn);
    while (more && conn->failure == 0) {
        struct batch batch;
        uint64_t most = conn->fault_short_send ? 1 : CFSR_RDMA_WR_BATCH - 1;
        batch.count = 0;
        while (more && batch.count < most && queue_room(conn) > CFSR_RDMA_SEND_RESERVED)
            more = add_part(conn, &batch);
        if (queue_room(conn) <= CFSR_RDMA_SEND_RESERVED)
            more = false; /* goes on with the next completion */
        if (!more)
            add_empty(conn, &batch);
        if (batch.count == 0)
            break;
        if (conn->fault_short_send) {
            conn->fault_short_send = false;
            more = false;
            cfsr_counter_add(&conn->group->counters.short_sends, 1);
        }
        cfsr_rdma_timer_stop(conn, &conn->credit_timer); /* something moves */
        submit(conn, &batch);
    }
    watch_credits(conn);
}

/* The first buffer that comes back: no completion of its own wakes a connection that found none and
 * has nothing under way. */
static void wake_others(struct cfsr_group *group)
{
    for (struct cfsr_list *node = group->open.next; node != &group->open; node = node->next) {
        struct cfsr_conn *conn = CFSR_LIST_ENTRY(node, struct cfsr_conn, open);
        if ((conn->state == CFSR_RDMA_OPEN || conn->state == CFSR_RDMA_LINGER) &&
            cfsr_rdma_unsent(conn) > 0)
            cfsr_rdma_conn_want_flush(conn);
    }
}

static void bounce_give(struct cfsr_group *group, struct cfsr_rdma_sent *sent)
{
    if (sent->bounce == 0)
        return;
    CFSR_ASSERT(group->bounce_free_count < CFSR_RDMA_BOUNCES);
    if (group->bounce_free_count == 0)
        wake_others(group);
    group->bounce_free[group->bounce_free_count++] = (uint16_t)(sent->bounce - 1);
    sent->bounce = 0;
}

void cfsr_rdma_send_done(struct cfsr_conn *conn, uint32_t sequence)
{
    struct cfsr_group *group = conn->group;
    uint32_t count = sequence + 1 - (uint32_t)conn->queue_head;

    CFSR_ASSERT(count >= 1 && count <= conn->queue_tail - conn->queue_head);
    for (; count > 0; count--) {
        struct cfsr_rdma_sent *sent = &conn->queue[conn->queue_head++ % group->send_depth];
        bounce_give(group, sent);
        conn->bytes_sent += sent->len_bytes;
        cfsr_counter_add(&group->counters.bytes_sent, sent->len_bytes);
        if (sent->kind == CFSR_RDMA_LAST)
            conn->lanes[sent->stream].sent++;
    }
    if (cfsr_rdma_unsent(conn) > 0 || conn->state == CFSR_RDMA_LINGER)
        cfsr_rdma_conn_want_flush(conn);
    cfsr_rdma_conn_ready(conn);
}

/* In a queue pair in error: the completion behind which no other of the send queue comes. */
void cfsr_rdma_send_marker(struct cfsr_conn *conn)
{
    struct ibv_send_wr *bad;
    struct ibv_send_wr marker = {
        .wr_id = cfsr_rdma_wr_id(conn, CFSR_RDMA_WR_SEND, (uint32_t)conn->queue_tail),
        .opcode = IBV_WR_SEND,
        .send_flags = IBV_SEND_SIGNALED,
    };

    CFSR_ASSERT(queue_room(conn) > 0);
    conn->queue[conn->queue_tail % conn->group->send_depth] = (struct cfsr_rdma_sent){
        .kind = CFSR_RDMA_KINDS};
    if (ibv_post_send(conn->id->qp, &marker, &bad) == 0)
        conn->queue_tail++;
}

int cfsr_rdma_send_empty_write(struct cfsr_conn *conn)
{
    struct ibv_send_wr *bad;
    struct ibv_send_wr request = {
        .wr_id = cfsr_rdma_wr_id(conn, CFSR_RDMA_WR_SEND, (uint32_t)conn->queue_tail),
        .opcode = IBV_WR_RDMA_WRITE,
        .send_flags = IBV_SEND_SIGNALED,
    };
    int error;

    CFSR_ASSERT(conn->queue_head == conn->queue_tail); /* only an idle connection needs it */
    conn->queue[conn->queue_tail % conn->group->send_depth] = (struct cfsr_rdma_sent){
        .kind = CFSR_RDMA_KINDS};
    error = ibv_post_send(conn->id->qp, &request, &bad);
    if (error == 0)
        conn->queue_tail++;
    return -error;
}

void cfsr_rdma_send_flushed(struct cfsr_conn *conn, uint32_t sequence)
{
    uint32_t count = sequence + 1 - (uint32_t)conn->queue_head;

    if (count > conn->queue_tail - conn->queue_head)
        return; /* of one given back already */
    for (; count > 0; count--, conn->queue_head++)
        bounce_give(conn->group, &conn->queue[conn->queue_head % conn->group->send_depth]);
}

void cfsr_rdma_send_forget(struct cfsr_conn *conn)
{
    if (conn->queue_head != conn->queue_tail)
        cfsr_rdma_send_flushed(conn, (uint32_t)conn->queue_tail - 1);
}

uint32_t cfsr_rdma_unsent(const struct cfsr_conn *conn)
{
    return conn->lanes[0].tail - conn->lanes[0].posted + conn->lanes[1].tail -
           conn->lanes[1].posted;
}

bool cfsr_rdma_send_is_idle(const struct cfsr_conn *conn)
{
    return cfsr_rdma_unsent(conn) == 0 && conn->queue_head == conn->queue_tail;
}

bool cfsr_rdma_sent_is_owed(const struct cfsr_conn *conn)
{
    return conn->lanes[0].sent != conn->lanes[0].released ||
           conn->lanes[1].sent != conn->lanes[1].released;
}

unsigned cfsr_rdma_show_sent(struct cfsr_conn *conn, unsigned budget, bool all)
{
    static const enum cfsr_stream order[] = {CFSR_STREAM_CONTROL, CFSR_STREAM_DATA};
    unsigned work = 0;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(order); i++) {
        struct cfsr_rdma_lane *lane = &conn->lanes[order[i]];
        while (work < budget && lane->released != (all ? lane->tail : lane->sent)) {
            uint64_t cookie = lane->frames[lane->released & lane->mask].cookie;
            lane->released++;
            if (all && (int32_t)(lane->released - lane->sent) > 0)
                lane->sent = lane->released; /* given back unsent: the connection is gone */
            conn->events->on_sent(conn->user, conn, cookie);
            work++;
        }
    }
    return work;
}

static bool lane_owes_writable(const struct cfsr_rdma_lane *lane)
{
    return lane->wants_writable && lane->tail - lane->released <= lane->mask;
}

bool cfsr_rdma_owes_writable(const struct cfsr_conn *conn)
{
    return lane_owes_writable(&conn->lanes[0]) || lane_owes_writable(&conn->lanes[1]);
}

bool cfsr_rdma_take_writable(struct cfsr_conn *conn)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!lane_owes_writable(&conn->lanes[i]))
            continue;
        conn->lanes[i].wants_writable = false;
        return true;
    }
    return false;
}
