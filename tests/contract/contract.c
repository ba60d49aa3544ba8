/*
 * contract.c - drives the world of the contract tests (see contract.h).
 *
 * One thread; everything it checks about frames is recomputed from the frame's own header.
 */
#include "contract.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "core/ring.h"
#include "core/timer.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A case that hangs fails here and says where; an emulated machine is given more. */
#define GUARD_NS   ((getenv("CFSR_VM") != NULL ? 200ull : 40ull) * 1000 * 1000 * 1000)
#define WAIT_NS    (1000ull * 1000)
#define BUDGET     64
#define RING_SLOTS 256

static void note(struct contract_end *end, unsigned event, uint64_t value)
{
    uint64_t digest = end->digest ^ (event * 0x9e3779b97f4a7c15ull + value) ^ end->world->now_us;

    end->digest = (digest ^ (digest >> 29)) * 0xbf58476d1ce4e5b9ull;
}

static uint8_t content_at(uint32_t number, size_t at)
{
    return (uint8_t)(number * 131 + at * 7 + (at >> 8) * 3 + 11);
}

static bool is_intact(const uint8_t *frame, size_t payload_bytes)
{
    uint32_t number = cfsr_load_le32(frame + 5);

    for (size_t i = 0; i < payload_bytes; i++)
        if (frame[CONTRACT_HEADER_BYTES + i] != content_at(number, i))
            return false;
    return true;
}

static void check_frame(struct contract_end *end, const uint8_t *frame, size_t payload_bytes)
{
    unsigned stream = frame[4] & 1;

    if (cfsr_load_le32(frame + 5) != end->received[stream] || !is_intact(frame, payload_bytes))
        end->bad_frames++;
    if (stream == CFSR_STREAM_CONTROL && end->received[stream] == 0)
        end->control_behind_data = end->received[CFSR_STREAM_DATA];
    end->received[stream]++;
}

static void on_connected(void *user, struct cfsr_conn *conn)
{
    struct contract_end *end = user;

    cr_assert_eq(end->connected, 0u, "on_connected twice");
    cr_assert_eq(end->closed, 0u);
    end->connected++;
    end->conn = conn;
    note(end, 1, 0);
    if (end->close_in == CONTRACT_IN_CONNECTED)
        end->world->transport->close(conn, false);
}

static void release_held(struct contract_end *end, uint32_t keep)
{
    while (end->held_tail - end->held_head > keep) {
        uint32_t at = end->held_head++ % CONTRACT_HOLD_MAX;
        uint8_t *span = end->held[at].span;
        size_t payload_bytes = cfsr_load_le32(span);
        /* Still where and what it was when it was taken. */
        if (payload_bytes + CONTRACT_HEADER_BYTES != end->held[at].len)
            end->bad_frames++;
        else if (payload_bytes > 0 && span[end->held[at].len - 1] !=
                                          content_at(cfsr_load_le32(span + 5), payload_bytes - 1))
            end->bad_frames++;
        end->world->transport->recv_release(end->conn, end->held[at].len);
    }
}

/* A slot may be handed to the disk as whole blocks: their end is for the callee to write. */
static void write_padding(uint8_t *frame, size_t len)
{
    cr_assert_eq((uintptr_t)frame % CFSR_SPAN_ALIGN, 0u, "a span that is not on a disk block");
    memset(frame + len, 0xa5, cfsr_align_up(len, CFSR_SPAN_ALIGN) - len);
}

static void take_frame(struct contract_end *end, uint8_t *frame, size_t len)
{
    check_frame(end, frame, len - CONTRACT_HEADER_BYTES);
    if ((end->world->transport->caps & CFSR_TRANSPORT_SLOTS) != 0)
        write_padding(frame, len);
    if (end->release_early) {
        end->world->transport->recv_release(end->conn, len);
        return;
    }
    end->held[end->held_tail % CONTRACT_HOLD_MAX].span = frame;
    end->held[end->held_tail % CONTRACT_HOLD_MAX].len = len;
    end->held_tail++;
    release_held(end, end->hold_frames);
}

static size_t on_data(void *user, struct cfsr_conn *conn, uint8_t *span, size_t len)
{
    struct contract_end *end = user;
    size_t taken = 0;

    cr_assert_eq(end->closed, 0u);
    note(end, 2, len);
    if (len < end->last_untaken)
        end->moved_backwards++;
    if (end->close_in == CONTRACT_IN_DATA) {
        end->world->transport->close(conn, false);
        return 0;
    }
    while (!end->stop_taking && len - taken >= CONTRACT_HEADER_BYTES) {
        size_t frame_bytes = cfsr_load_le32(span + taken) + CONTRACT_HEADER_BYTES;
        if (len - taken < frame_bytes)
            break;
        take_frame(end, span + taken, frame_bytes);
        taken += frame_bytes;
    }
    if (taken == 0)
        end->partial_shows++;
    end->last_untaken = len - taken;
    end->received_bytes += taken;
    return taken;
}

static void on_sent(void *user, struct cfsr_conn *conn, uint64_t cookie)
{
    struct contract_end *end = user;

    cr_assert_lt(cookie, (uint64_t)CONTRACT_FRAMES_MAX);
    cr_assert_eq(end->closed, 0u, "on_sent after on_closed");
    end->sent_times[cookie]++;
    end->sent++;
    /* Ours again: any later use is a use after free. */
    contract_memory_give(end->world, end->buffers[cookie]);
    end->buffers[cookie] = NULL;
    note(end, 3, cookie);
    if (end->close_in == CONTRACT_IN_SENT)
        end->world->transport->close(conn, false);
}

static void on_writable(void *user, struct cfsr_conn *conn)
{
    struct contract_end *end = user;

    (void)conn;
    end->writable++;
    note(end, 4, 0);
}

static void on_closed(void *user, struct cfsr_conn *conn, int reason)
{
    struct contract_end *end = user;

    cr_assert_eq(end->closed, 0u, "on_closed twice");
    cr_assert_eq(end->sent, end->queued, "on_closed before every on_sent: %u of %u", end->sent,
                 end->queued);
    if (end->keep_over_close)
        end->hold = end->world->transport->recv_hold(conn);
    end->closed++;
    end->reason = reason;
    end->conn = NULL;
    note(end, 5, (uint64_t)(int64_t)reason);
}

const struct cfsr_conn_events contract_events = {
    .on_connected = on_connected,
    .on_data = on_data,
    .on_sent = on_sent,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

void contract_group_create(struct contract_world *world, enum contract_side side)
{
    struct cfsr_group_options options = {
        .opts_size = sizeof options,
        .ring = world->ring,
        .timers = world->timers,
        .conns_max = CONTRACT_CONNS,
        .frame_max_bytes = world->options->frame_max_bytes != 0 ? world->options->frame_max_bytes
                                                                : CONTRACT_FRAME_MAX + 64,
        .recv_ring_bytes = world->options->ring_bytes != 0 ? world->options->ring_bytes
                                                           : CONTRACT_RING_BYTES,
        .recv_rings_max = world->rings,
        .send_gather_bytes = 256 * 1024,
        .sim = world->network,
        .sim_host = side == CONTRACT_NEAR ? "a" : "b",
        .rdma = world->options->rdma,
    };

    cr_assert_eq(world->transport->group_create(&options, &world->group[side]), 0,
                 "group_create: %s", cfsr_error_message());
    contract_memory_register(world, side);
}

/* Where the far end listens. */
static const char *listen_endpoint(const struct contract_world *world)
{
    static char rdma[CFSR_ENDPOINT_MAX];
    const char *address = getenv("CFSR_VM_ADDRESS");

    if (world->is_sim)
        return "sim://b:0";
    if (strcmp(world->transport->name, "rdma") != 0)
        return "tcp://127.0.0.1:0";
    (void)snprintf(rdma, sizeof rdma, "rdma://%s:0", address != NULL ? address : "0.0.0.0");
    return rdma;
}

struct contract_world *contract_world_create(const struct contract_options *options)
{
    struct contract_world *world = calloc(1, sizeof *world);

    cr_assert_not_null(world);
    world->transport = strcmp(options->scheme, "sim-messages") == 0
                           ? &cfsr_transport_sim_messages
                           : cfsr_transport_find(options->scheme);
    cr_assert_not_null(world->transport);
    world->is_sim = strncmp(options->scheme, "sim", 3) == 0;
    world->options = options;
    contract_memory_create(world);
    world->far_ends = calloc(CONTRACT_CONNS, sizeof *world->far_ends);
    cr_assert_not_null(world->far_ends);
    if (world->is_sim)
        cr_assert_eq(cfsr_sim_network_create(&options->sim, &world->network), 0);
    else
        contract_core_create(world);
    world->rings = options->rings != 0 ? options->rings : CONTRACT_RINGS;
    contract_group_create(world, CONTRACT_NEAR);
    contract_group_create(world, CONTRACT_FAR);
    if (strcmp(options->scheme, "null") == 0)
        return world;
    cr_assert_eq(world->transport->listen(listen_endpoint(world), world->network, &world->listener),
                 0, "listen: %s", cfsr_error_message());
    memcpy(world->endpoint, world->transport->listener_endpoint(world->listener),
           sizeof world->endpoint);
    return world;
}

static void free_buffers(struct contract_end *end)
{
    for (unsigned i = 0; i < CONTRACT_FRAMES_MAX; i++)
        if (end->buffers[i] != NULL)
            contract_memory_give(end->world, end->buffers[i]);
}

void contract_world_destroy(struct contract_world *world)
{
    if (world->listener != NULL)
        world->transport->listener_close(world->listener);
    world->transport->group_destroy(world->group[CONTRACT_NEAR]);
    world->transport->group_destroy(world->group[CONTRACT_FAR]);
    if (world->network != NULL)
        cfsr_sim_network_destroy(world->network);
    else
        contract_core_destroy(world);
    for (unsigned i = 0; i < world->far_count; i++)
        free_buffers(&world->far_ends[i]);
    free(world->far_ends);
    contract_memory_destroy(world);
    free(world);
}

static void accept_all(struct contract_world *world)
{
    const struct cfsr_transport *transport = world->transport;
    struct cfsr_incoming *incoming;
    struct cfsr_preamble preamble;
    uint64_t now_ns = world->is_sim ? world->now_us * 1000 : cfsr_clock_monotonic_ns();

    if (world->listener == NULL || world->stop_accepting)
        return;
    while (transport->listener_accept(world->listener, now_ns + world->skip_ns, &incoming,
                                      &preamble) == 0) {
        struct contract_end *end = &world->far_ends[world->far_count];
        cr_assert_lt(world->far_count, (unsigned)CONTRACT_CONNS);
        end->world = world;
        end->preamble = preamble;
        if (transport->accept(world->group[CONTRACT_FAR], incoming, &contract_events, end,
                              &end->conn) == 0)
            world->far_count++;
    }
}

static void advance_time(struct contract_world *world)
{
    uint64_t due_us = cfsr_sim_network_next_due_us(world->network);

    world->now_us = cfsr_max_u64(world->now_us, cfsr_min_u64(due_us, world->now_us + 1000));
    cfsr_sim_network_advance(world->network, world->now_us);
}

void contract_turn(struct contract_world *world)
{
    bool busy = false;

    for (unsigned side = 0; side < 2; side++)
        if (world->transport->arm(world->group[side]) == -EBUSY)
            busy = true;
    if (world->network != NULL)
        advance_time(world);
    else
        contract_core_turn(world, busy ? 0 : WAIT_NS);
    accept_all(world);
    for (unsigned side = 0; side < 2; side++) {
        (void)world->transport->poll(world->group[side], BUDGET);
        world->transport->flush(world->group[side]);
    }
}

void contract_turns(struct contract_world *world, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        contract_turn(world);
}

void contract_until(struct contract_world *world, bool (*condition)(void *user), void *user,
                    const char *what)
{
    uint64_t limit_ns = cfsr_clock_monotonic_ns() + GUARD_NS;

    while (!condition(user)) {
        contract_turn(world);
        cr_assert_lt(cfsr_clock_monotonic_ns(), limit_ns, "never came true: %s", what);
    }
}

struct contract_end *contract_end_create(struct contract_world *world)
{
    struct contract_end *end = calloc(1, sizeof *end);

    cr_assert_not_null(end);
    end->world = world;
    return end;
}

void contract_end_destroy(struct contract_end *end)
{
    free_buffers(end);
    free(end);
}

int contract_dial(struct contract_world *world, const char *endpoint, uint64_t timeout_ms,
                  struct contract_end *end)
{
    struct cfsr_preamble preamble = {
        .version = CFSR_PREAMBLE_VERSION, .kind = 1, .target_core = 7, .ticket = "ticket"};

    return world->transport->connect(world->group[CONTRACT_NEAR], endpoint, &preamble,
                                     timeout_ms * 1000 * 1000, &contract_events, end, &end->conn);
}

struct pair {
    struct contract_world *world;
    struct contract_end *near_end;
    unsigned far_index;
};

static bool is_paired(void *user)
{
    struct pair *pair = user;

    cr_assert_eq(pair->near_end->closed, 0u, "closed: %d", pair->near_end->reason);
    return pair->near_end->connected > 0 && pair->world->far_count > pair->far_index &&
           pair->world->far_ends[pair->far_index].connected > 0;
}

struct contract_end *contract_pair(struct contract_world *world, struct contract_end *near_end)
{
    struct pair pair = {world, near_end, world->far_count};

    cr_assert_eq(contract_dial(world, world->endpoint, 5000, near_end), 0, "%s",
                 cfsr_error_message());
    contract_until(world, is_paired, &pair, "both ends are connected");
    return &world->far_ends[pair.far_index];
}

static void fill_frame(uint8_t *frame, enum cfsr_stream stream, uint32_t number, size_t payload)
{
    cfsr_store_le32(frame, (uint32_t)payload);
    frame[4] = (uint8_t)stream;
    cfsr_store_le32(frame + 5, number);
    for (size_t i = 0; i < payload; i++)
        frame[CONTRACT_HEADER_BYTES + i] = content_at(number, i);
}

int contract_send(struct contract_end *end, enum cfsr_stream stream, size_t payload_bytes,
                  unsigned pieces)
{
    size_t total = payload_bytes + CONTRACT_HEADER_BYTES;
    struct cfsr_frame frame = {.count = pieces, .cookie = end->queued};
    uint8_t *buffer = contract_memory_take(end->world, total);
    size_t at = 0;
    int rc;

    if (buffer == NULL)
        return 0;
    cr_assert_lt(end->queued, (uint32_t)CONTRACT_FRAMES_MAX);
    fill_frame(buffer, stream, end->next_number[stream], payload_bytes);
    for (unsigned i = 0; i < pieces; i++) {
        /* Uneven on purpose; the last piece takes what is left. */
        size_t len = i + 1 == pieces ? total - at : (total - at) / (i + 2);
        frame.pieces[i].iov_base = buffer + at;
        frame.pieces[i].iov_len = len;
        at += len;
    }
    end->buffers[end->queued] = buffer;
    rc = end->world->transport->send(end->conn, stream, &frame, 1);
    if (rc == -EAGAIN) {
        end->buffers[end->queued] = NULL;
        contract_memory_give(end->world, buffer);
        return 0;
    }
    cr_assert_eq(rc, 1, "send: %d", rc);
    end->next_number[stream]++;
    end->queued++;
    return 1;
}

void contract_send_all(struct contract_end *end, enum cfsr_stream stream, size_t payload_bytes,
                       unsigned pieces)
{
    uint64_t limit_ns = cfsr_clock_monotonic_ns() + GUARD_NS;

    while (contract_send(end, stream, payload_bytes, pieces) == 0) {
        contract_turn(end->world);
        cr_assert_lt(cfsr_clock_monotonic_ns(), limit_ns, "a frame was never taken");
    }
}

void contract_close(struct contract_end *end, bool linger)
{
    if (end->conn != NULL)
        end->world->transport->close(end->conn, linger);
}

void contract_close_both(struct contract_end *near_end, struct contract_end *far_end)
{
    contract_close(near_end, true);
    contract_until(near_end->world, contract_is_closed, near_end, "the near end closes");
    contract_until(near_end->world, contract_is_closed, far_end, "the far end closes");
}

bool contract_held_is_intact(const struct contract_end *end)
{
    for (uint32_t i = end->held_head; i != end->held_tail; i++) {
        const uint8_t *span = end->held[i % CONTRACT_HOLD_MAX].span;
        size_t len = end->held[i % CONTRACT_HOLD_MAX].len;
        if (cfsr_load_le32(span) + CONTRACT_HEADER_BYTES != len ||
            !is_intact(span, len - CONTRACT_HEADER_BYTES))
            return false;
    }
    return true;
}

void contract_drop(struct contract_end *end)
{
    enum contract_side side = end >= end->world->far_ends &&
                                      end < end->world->far_ends + CONTRACT_CONNS
                                  ? CONTRACT_FAR
                                  : CONTRACT_NEAR;

    end->world->transport->recv_drop(end->world->group[side], end->hold);
    end->hold = NULL;
    end->held_head = end->held_tail;
}

bool contract_is_closed(void *user)
{
    struct contract_end *end = user;

    return end->closed > 0;
}

void contract_run(const char *scheme, void (*run)(struct contract_world *world))
{
    struct contract_options options = {
        .scheme = scheme,
        .sim = {.seed = 20261121,
                .delay_min_us = 10,
                .delay_max_us = 400,
                .chunk_max_bytes = 64 * 1024,
                .buffer_bytes = 512 * 1024},
    };
    struct contract_world *world = contract_world_create(&options);

    run(world);
    contract_world_destroy(world);
}
