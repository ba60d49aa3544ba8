/*
 * sim/messages.c - the simulated transport as a message transport with slots, as rdma is one: a
 * span is exactly one frame, in private memory that begins on a page and may be handed to the disk.
 *
 * Every frame travels through the byte stream of sim.c behind eight bytes that give its length;
 * groups, listeners and connections are those of sim.c, so all that the simulator does to its
 * network is done to these too. A connection is interposed by its events: its user is ours.
 *
 * Thread:     the simulator's.
 * Invariants: memory that was given back, or whose connection ended without a hold, is filled with
 *             a pattern at once and kept so for a while: whoever reads it after that reads the
 *             pattern, and so does a disk that had not finished. Received messages of a
 *             connection that are not given back are bounded by recv_ring_bytes.
 * Rejected:   showing slices of the ring of sim.c (nothing would tell a slice that is read too late
 *             from one that is not).
 */
#include "transport/sim/sim.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#define HEAD_BYTES  8
#define HEAD_MAGIC  0x4753534du
#define POISON      0xdb
#define SPARE_BYTES (16u << 20) /* given back and not yet freed */

/* Memory of one received message. */
struct slot {
    struct cfsr_list link; /* of the connection's taken ones, a hold's, or the spares */
    uint8_t *base;
    size_t room_bytes; /* a multiple of CFSR_SPAN_ALIGN */
    size_t len_bytes;
};

/* A frame that was sent: its length before it, and, where all pieces are in use, the first piece.
 */
struct message {
    struct cfsr_list link;
    uint64_t cookie;
    uint8_t head[];
};

struct end {
    struct cfsr_list link; /* in ends */
    struct cfsr_group *group;
    const struct cfsr_conn_events *events;
    void *user;
    struct cfsr_list sent;  /* messages, until on_sent() */
    struct slot *shown;     /* not taken yet */
    struct cfsr_list taken; /* slots, oldest first */
    size_t held_bytes;      /* room of shown and taken ones */
    size_t released_bytes;  /* given back, of the oldest one */
    size_t early_bytes;     /* given back from inside on_data() */
    bool showing, starved, flip_bit;
};

struct cfsr_recv_hold {
    struct cfsr_list link; /* in holds */
    struct cfsr_group *group;
    struct cfsr_list slots;
};

static struct cfsr_list ends = {&ends, &ends};
static struct cfsr_list holds = {&holds, &holds};
static struct cfsr_list spares = {&spares, &spares};
static size_t spare_bytes;

/* ---- memory ---- */

static void slot_free(struct slot *slot)
{
    free(slot->base);
    free(slot);
}

static struct slot *slot_take(size_t len_bytes)
{
    struct slot *slot = calloc(1, sizeof *slot);

    CFSR_ASSERT(slot != NULL);
    cfsr_list_init(&slot->link);
    slot->len_bytes = len_bytes;
    slot->room_bytes = (size_t)cfsr_align_up(len_bytes, CFSR_SPAN_ALIGN);
    slot->base = aligned_alloc(CFSR_SPAN_ALIGN, slot->room_bytes);
    CFSR_ASSERT(slot->base != NULL);
    memset(slot->base, POISON, slot->room_bytes); /* the rest of the last page is not zeros */
    return slot;
}

static void slot_give(struct slot *slot)
{
    memset(slot->base, POISON, slot->room_bytes);
    cfsr_list_remove(&slot->link);
    cfsr_list_push_back(&spares, &slot->link);
    spare_bytes += slot->room_bytes;
    while (spare_bytes > SPARE_BYTES) {
        slot = CFSR_LIST_ENTRY(cfsr_list_pop_front(&spares), struct slot, link);
        spare_bytes -= slot->room_bytes;
        slot_free(slot);
    }
}

static void slots_give(struct cfsr_list *slots)
{
    while (!cfsr_list_is_empty(slots))
        slot_give(CFSR_LIST_ENTRY(slots->next, struct slot, link));
}

/* Whatever its user still holds is memory of a connection that is gone. */
static void end_free(struct end *end)
{
    while (!cfsr_list_is_empty(&end->sent))
        free(CFSR_LIST_ENTRY(cfsr_list_pop_front(&end->sent), struct message, link));
    if (end->shown != NULL)
        slot_give(end->shown);
    slots_give(&end->taken);
    cfsr_list_remove(&end->link);
    free(end);
}

static struct end *end_create(struct cfsr_group *group, const struct cfsr_conn_events *events,
                              void *user)
{
    struct end *end = calloc(1, sizeof *end);

    if (end == NULL)
        return NULL;
    end->group = group;
    end->events = events;
    end->user = user;
    cfsr_list_init(&end->sent);
    cfsr_list_init(&end->taken);
    cfsr_list_push_back(&ends, &end->link);
    return end;
}

/* ---- receiving ---- */

static void release(struct end *end, size_t len_bytes)
{
    end->released_bytes += len_bytes;
    while (!cfsr_list_is_empty(&end->taken)) {
        struct slot *slot = CFSR_LIST_ENTRY(end->taken.next, struct slot, link);
        if (end->released_bytes < slot->len_bytes)
            return;
        end->released_bytes -= slot->len_bytes;
        end->held_bytes -= slot->room_bytes;
        slot_give(slot);
    }
    CFSR_ASSERT(end->released_bytes == 0);
}

/* The next whole message as a slot; NULL: it is not all there, or what is held must be given back
 * first. */
static struct slot *next_message(struct cfsr_conn *conn, struct end *end, const uint8_t *span,
                                 size_t len_bytes)
{
    size_t room_bytes;
    uint32_t message_bytes;
    struct slot *slot;

    if (len_bytes < HEAD_BYTES)
        return NULL;
    message_bytes = cfsr_load_le32(span);
    if ((cfsr_load_le32(span + 4) ^ HEAD_MAGIC) != message_bytes) { /* a fault of the network */
        cfsr_sim_link_cut(conn->link, -ECONNRESET);
        return NULL;
    }
    if (len_bytes - HEAD_BYTES < message_bytes)
        return NULL;
    room_bytes = (size_t)cfsr_align_up(message_bytes, CFSR_SPAN_ALIGN);
    end->starved = end->held_bytes > 0 &&
                   end->held_bytes + room_bytes > end->group->recv_ring_bytes;
    if (end->starved)
        return NULL;
    slot = slot_take(message_bytes);
    memcpy(slot->base, span + HEAD_BYTES, message_bytes);
    if (end->flip_bit)
        slot->base[message_bytes / 2] ^= 0x10;
    end->flip_bit = false;
    end->held_bytes += room_bytes;
    conn->bytes_received -= HEAD_BYTES;
    cfsr_counter_add(&end->group->counters.bytes_received, -(uint64_t)HEAD_BYTES);
    return slot;
}

static size_t on_data(void *user, struct cfsr_conn *conn, uint8_t *span, size_t len_bytes)
{
    struct end *end = user;
    struct slot *slot;
    size_t taken;

    if (end->shown == NULL)
        end->shown = next_message(conn, end, span, len_bytes);
    slot = end->shown;
    if (slot == NULL)
        return 0;
    len_bytes = slot->len_bytes;
    end->showing = true;
    taken = end->events->on_data(end->user, conn, slot->base, len_bytes);
    end->showing = false;
    CFSR_ASSERT(taken == 0 || taken == len_bytes);
    CFSR_ASSERT(taken > 0 || end->early_bytes == 0);
    if (taken == 0)
        return 0;
    end->shown = NULL;
    cfsr_list_push_back(&end->taken, &slot->link);
    taken = end->early_bytes;
    end->early_bytes = 0;
    release(end, taken);
    cfsr_transport_sim.recv_release(conn, HEAD_BYTES + len_bytes); /* the ring has no part in it */
    return HEAD_BYTES + len_bytes;
}

static void recv_release(struct cfsr_conn *conn, size_t len_bytes)
{
    struct end *end = conn->user;

    if (end->showing) {
        end->early_bytes += len_bytes;
        return;
    }
    release(end, len_bytes);
    if (end->starved)
        cfsr_transport_sim.recv_resume(conn);
    end->starved = false;
}

static struct cfsr_recv_hold *recv_hold(struct cfsr_conn *conn)
{
    struct end *end = conn->user;
    struct cfsr_recv_hold *hold = calloc(1, sizeof *hold);
    struct cfsr_list *node;

    CFSR_ASSERT(hold != NULL);
    hold->group = end->group;
    cfsr_list_init(&hold->slots);
    while ((node = cfsr_list_pop_front(&end->taken)) != NULL)
        cfsr_list_push_back(&hold->slots, node);
    cfsr_list_push_back(&holds, &hold->link);
    return hold;
}

static void recv_drop(struct cfsr_group *group, struct cfsr_recv_hold *hold)
{
    CFSR_ASSERT(hold->group == group);
    slots_give(&hold->slots);
    cfsr_list_remove(&hold->link);
    free(hold);
}

/* ---- the other upcalls ---- */

static void on_connected(void *user, struct cfsr_conn *conn)
{
    struct end *end = user;
    end->events->on_connected(end->user, conn);
}

static void on_sent(void *user, struct cfsr_conn *conn, uint64_t cookie)
{
    struct end *end = user;
    struct message *message = (struct message *)(uintptr_t)cookie;
    uint64_t theirs = message->cookie;

    cfsr_list_remove(&message->link);
    free(message);
    end->events->on_sent(end->user, conn, theirs);
}

static void on_writable(void *user, struct cfsr_conn *conn)
{
    struct end *end = user;
    end->events->on_writable(end->user, conn);
}

static void on_closed(void *user, struct cfsr_conn *conn, int reason)
{
    struct end *end = user;
    end->events->on_closed(end->user, conn, reason);
    end_free(end);
}

static const struct cfsr_conn_events end_events = {
    .on_connected = on_connected,
    .on_data = on_data,
    .on_sent = on_sent,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

/* ---- the table ---- */

static int message_connect(struct cfsr_group *group, const char *endpoint,
                           const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                           const struct cfsr_conn_events *events, void *user,
                           struct cfsr_conn **conn_out)
{
    struct end *end = end_create(group, events, user);
    int rc;

    if (end == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for a simulated connection");
    rc = cfsr_transport_sim.connect(group, endpoint, preamble, timeout_ns, &end_events, end,
                                    conn_out);
    if (rc < 0)
        end_free(end);
    return rc;
}

static int message_accept(struct cfsr_group *group, struct cfsr_incoming *incoming,
                          const struct cfsr_conn_events *events, void *user,
                          struct cfsr_conn **conn_out)
{
    struct end *end = end_create(group, events, user);
    int rc;

    if (end == NULL) {
        cfsr_sim_incoming_discard(incoming);
        return cfsr_fail(-ENOMEM, "out of memory for a simulated connection");
    }
    rc = cfsr_transport_sim.accept(group, incoming, &end_events, end, conn_out);
    if (rc < 0)
        end_free(end);
    return rc;
}

/* The frame with its length before it; all four pieces in use: with the first one copied. */
static struct message *message_create(const struct cfsr_frame *frame, struct cfsr_frame *out)
{
    size_t copied = frame->count == CFSR_FRAME_PIECES_MAX ? frame->pieces[0].iov_len : 0;
    unsigned skipped = frame->count == CFSR_FRAME_PIECES_MAX ? 1 : 0;
    struct message *message = malloc(sizeof *message + HEAD_BYTES + copied);
    size_t len_bytes = 0;

    CFSR_ASSERT(message != NULL);
    message->cookie = frame->cookie;
    cfsr_list_init(&message->link);
    for (unsigned i = 0; i < frame->count; i++)
        len_bytes += frame->pieces[i].iov_len;
    cfsr_store_le32(message->head, (uint32_t)len_bytes);
    cfsr_store_le32(message->head + 4, (uint32_t)len_bytes ^ HEAD_MAGIC);
    if (copied > 0)
        memcpy(message->head + HEAD_BYTES, frame->pieces[0].iov_base, copied);
    *out = (struct cfsr_frame){
        .pieces[0] = {.iov_base = message->head, .iov_len = HEAD_BYTES + copied},
        .count = frame->count - skipped + 1,
        .cookie = (uintptr_t)message,
    };
    memcpy(out->pieces + 1, frame->pieces + skipped,
           (frame->count - skipped) * sizeof frame->pieces[0]);
    return message;
}

static int message_send(struct cfsr_conn *conn, enum cfsr_stream stream,
                        const struct cfsr_frame *frames, unsigned count)
{
    struct end *end = conn->user;

    for (unsigned i = 0; i < count; i++) {
        struct cfsr_frame frame;
        struct message *message = message_create(&frames[i], &frame);
        int rc = cfsr_transport_sim.send(conn, stream, &frame, 1);
        if (rc < 1) {
            free(message);
            return i > 0 ? (int)i : rc;
        }
        cfsr_list_push_back(&end->sent, &message->link);
    }
    return (int)count;
}

static void group_destroy(struct cfsr_group *group)
{
    struct cfsr_list *node, *next;

    cfsr_transport_sim.group_destroy(group);
    for (node = ends.next; node != &ends; node = next) {
        struct end *end = CFSR_LIST_ENTRY(node, struct end, link);
        next = node->next;
        if (end->group == group)
            end_free(end);
    }
    /* Of a core that lost its power. */
    for (node = holds.next; node != &holds; node = next) {
        struct cfsr_recv_hold *hold = CFSR_LIST_ENTRY(node, struct cfsr_recv_hold, link);
        next = node->next;
        if (hold->group == group)
            recv_drop(group, hold);
    }
}

static int message_inject(struct cfsr_conn *conn, enum cfsr_inject fault)
{
    struct end *end = conn->user;

    if (fault != CFSR_INJECT_FLIP_BIT)
        return cfsr_transport_sim.inject(conn, fault);
    end->flip_bit = true; /* of a frame, not of what stands before it */
    return 0;
}

static int group_create(const struct cfsr_group_options *options, struct cfsr_group **group_out)
{
    return cfsr_transport_sim.group_create(options, group_out);
}

static unsigned group_poll(struct cfsr_group *group, unsigned budget)
{
    return cfsr_transport_sim.poll(group, budget);
}

static int group_event_fd(struct cfsr_group *group)
{
    return cfsr_transport_sim.event_fd(group);
}

static int group_arm(struct cfsr_group *group)
{
    return cfsr_transport_sim.arm(group);
}

static int memory_register(struct cfsr_group *group, void *base, size_t len_bytes)
{
    return cfsr_transport_sim.memory_register(group, base, len_bytes);
}

static void memory_unregister(struct cfsr_group *group, void *base)
{
    cfsr_transport_sim.memory_unregister(group, base);
}

static void message_close(struct cfsr_conn *conn, bool linger)
{
    cfsr_transport_sim.close(conn, linger);
}

static void group_flush(struct cfsr_group *group)
{
    cfsr_transport_sim.flush(group);
}

static void recv_resume(struct cfsr_conn *conn)
{
    cfsr_transport_sim.recv_resume(conn);
}

static void conn_info(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out)
{
    cfsr_transport_sim.conn_info(conn, info_out);
}

static void group_stats(const struct cfsr_group *group, struct cfsr_transport_stats *stats_out)
{
    cfsr_transport_sim.stats(group, stats_out);
}

const struct cfsr_transport cfsr_transport_sim_messages = {
    .name = "sim-messages",
    .api_version = CFSR_TRANSPORT_API_VERSION,
    .table_bytes = sizeof(struct cfsr_transport),
    .caps = CFSR_TRANSPORT_MESSAGES | CFSR_TRANSPORT_SLOTS,
    .group_create = group_create,
    .group_destroy = group_destroy,
    .poll = group_poll,
    .event_fd = group_event_fd,
    .arm = group_arm,
    .memory_register = memory_register,
    .memory_unregister = memory_unregister,
    .listen = cfsr_sim_listen,
    .listener_fd = cfsr_sim_listener_fd,
    .listener_endpoint = cfsr_sim_listener_endpoint,
    .listener_accept = cfsr_sim_listener_accept,
    .listener_close = cfsr_sim_listener_close,
    .listener_deadline = cfsr_sim_listener_deadline,
    .listener_dropped = cfsr_sim_listener_dropped,
    .incoming_discard = cfsr_sim_incoming_discard,
    .connect = message_connect,
    .accept = message_accept,
    .close = message_close,
    .send = message_send,
    .flush = group_flush,
    .recv_release = recv_release,
    .recv_resume = recv_resume,
    .recv_hold = recv_hold,
    .recv_drop = recv_drop,
    .conn_info = conn_info,
    .stats = group_stats,
    .inject = message_inject,
};
