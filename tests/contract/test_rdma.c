/*
 * test_rdma.c - what only RDMA can show: a peer that breaks the rules below the frames, credits,
 * devices with little of everything. Runs where there is a device.
 *
 * The rule breaker is a thread with a queue pair of its own and blocking calls; it knows the wire
 * from docs/rdma.md and shares nothing with the transport.
 */
#include "contract.h"

#include "base/bytes.h"

#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOT_BYTES   (64u * 1024)
#define SLOTS        64u
#define PARTS_MAX    100u
#define KIND_MORE    0u
#define KIND_LAST    1u
#define KIND_GRANT   2u
#define KIND_END     3u
#define WAIT_STEPS   20000
#define NO_IMMEDIATE UINT32_MAX

static const struct contract_options two_rings = {.scheme = "rdma", .rings = 2};
static const struct cfsr_rdma_options depth_eight = {.gid_index = -1, .depth = 8};
static const struct contract_options eight_slots = {.scheme = "rdma",
                                                    .rings = 2,
                                                    .ring_bytes = 512 * 1024,
                                                    .frame_max_bytes = 200 * 1024,
                                                    .rdma = &depth_eight};

struct message {
    uint32_t len_bytes;
    uint32_t immediate; /* NO_IMMEDIATE: a plain send */
};

struct breaker {
    char host[64];
    char port[8];
    uint8_t request[48];
    size_t request_bytes;
    struct message messages[PARTS_MAX];
    unsigned count;
    bool frames;       /* its messages are frames of the contract */
    bool leave;        /* disconnect after the last message */
    uint8_t rnr_retry; /* 7: for ever */
    atomic_bool stop;
    bool connected;
    int connect_error;
    atomic_uint done; /* messages the device called delivered */
};

static void default_request(struct breaker *breaker)
{
    struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION};

    cfsr_preamble_store(&preamble, breaker->request);
    memcpy(breaker->request + 32, "CFR1", 4);
    cfsr_store_le16(breaker->request + 36, 1);
    cfsr_store_le16(breaker->request + 38, 0);
    cfsr_store_le32(breaker->request + 40, SLOT_BYTES);
    cfsr_store_le32(breaker->request + 44, SLOTS);
    breaker->request_bytes = 48;
    breaker->rnr_retry = 3;
}

static struct breaker *breaker_create(const struct contract_world *world)
{
    struct breaker *breaker = calloc(1, sizeof *breaker);
    char scheme[8];
    uint16_t port;

    cr_assert_not_null(breaker);
    cr_assert_eq(cfsr_endpoint_parse(world->endpoint, scheme, sizeof scheme, breaker->host,
                                     sizeof breaker->host, &port),
                 0);
    (void)snprintf(breaker->port, sizeof breaker->port, "%u", port);
    default_request(breaker);
    return breaker;
}

static void add(struct breaker *breaker, uint32_t len, uint32_t immediate)
{
    cr_assert_lt(breaker->count, PARTS_MAX);
    breaker->messages[breaker->count++] = (struct message){len, immediate};
}

/* Receives for whatever the other side says, as many as it was promised. */
static void post_receives(struct rdma_cm_id *id, uint8_t *memory, struct ibv_mr *mr)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct ibv_sge piece = {.addr = (uintptr_t)memory, .length = SLOT_BYTES, .lkey = mr->lkey};
        struct ibv_recv_wr request = {.wr_id = 1000, .sg_list = &piece, .num_sge = 1};
        struct ibv_recv_wr *bad;
        (void)ibv_post_recv(id->qp, &request, &bad);
    }
}

static void send_message(struct rdma_cm_id *id, const struct message *message, uint8_t *memory,
                         struct ibv_mr *mr)
{
    struct ibv_sge piece = {
        .addr = (uintptr_t)memory, .length = message->len_bytes, .lkey = mr->lkey};
    struct ibv_send_wr request = {.sg_list = &piece,
                                  .num_sge = message->len_bytes > 0 ? 1 : 0,
                                  .opcode = IBV_WR_SEND_WITH_IMM,
                                  .send_flags = IBV_SEND_SIGNALED,
                                  .imm_data = htonl(message->immediate)};
    struct ibv_send_wr *bad;

    if (message->immediate == NO_IMMEDIATE)
        request.opcode = IBV_WR_SEND;
    (void)ibv_post_send(id->qp, &request, &bad);
}

static void break_rules(struct breaker *breaker, struct rdma_cm_id *id, uint8_t *memory,
                        struct ibv_mr *mr)
{
    struct ibv_wc completion;
    bool failed = false;

    if (breaker->frames) /* as long as the first message; their content is not looked at */
        cfsr_store_le32(memory, breaker->messages[0].len_bytes - CONTRACT_HEADER_BYTES);
    for (unsigned i = 0; i < breaker->count; i++)
        send_message(id, &breaker->messages[i], memory, mr);
    for (unsigned n = 0; n < WAIT_STEPS && !breaker->stop; n++) {
        while (ibv_poll_cq(id->send_cq, 1, &completion) == 1)
            if (completion.status == IBV_WC_SUCCESS)
                breaker->done++;
            else
                failed = true;
        if (failed || (breaker->leave && breaker->done == breaker->count))
            break;
        usleep(1000);
    }
}

static void *breaker_main(void *argument)
{
    struct breaker *breaker = argument;
    struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP};
    struct ibv_qp_init_attr attributes = {
        .cap = {.max_send_wr = PARTS_MAX,
                .max_recv_wr = SLOTS,
                .max_send_sge = 1,
                .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    struct rdma_conn_param parameters = {.private_data = breaker->request,
                                         .private_data_len = (uint8_t)breaker->request_bytes,
                                         .retry_count = 7,
                                         .rnr_retry_count = breaker->rnr_retry};
    struct rdma_addrinfo *found;
    struct rdma_cm_id *id;
    uint8_t *memory = aligned_alloc(4096, 2 * SLOT_BYTES);
    struct ibv_mr *mr;

    if (rdma_getaddrinfo(breaker->host, breaker->port, &hints, &found) != 0 ||
        rdma_create_ep(&id, found, NULL, &attributes) != 0)
        abort();
    rdma_freeaddrinfo(found);
    memset(memory, 0x5a, 2 * SLOT_BYTES);
    mr = ibv_reg_mr(id->pd, memory, 2 * SLOT_BYTES, IBV_ACCESS_LOCAL_WRITE);
    post_receives(id, memory, mr);
    if (rdma_connect(id, &parameters) == 0) {
        breaker->connected = true;
        break_rules(breaker, id, memory, mr);
        (void)rdma_disconnect(id);
    } else {
        breaker->connect_error = errno;
    }
    (void)ibv_dereg_mr(mr);
    rdma_destroy_ep(id);
    free(memory);
    return NULL;
}

struct wait {
    struct contract_world *world;
    unsigned far_count;
};

static bool has_accepted(void *user)
{
    struct wait *wait = user;

    struct contract_end *end = &wait->world->far_ends[wait->far_count - 1];

    /* What it sends may break the connection before it is known to be one. */
    return wait->world->far_count >= wait->far_count && (end->connected > 0 || end->closed > 0);
}

/* Connects the breaker, waits for the end of the connection at our side; returns our end. */
static struct contract_end *run_breaker(struct contract_world *world, struct breaker *breaker,
                                        void (*meanwhile)(struct contract_end *end))
{
    struct wait wait = {world, world->far_count + 1};
    struct contract_end *end = &world->far_ends[world->far_count];
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, breaker_main, breaker), 0);
    contract_until(world, has_accepted, &wait, "the rule breaker is accepted");
    if (meanwhile != NULL)
        meanwhile(end);
    contract_until(world, contract_is_closed, end, "the rule breaker is thrown out");
    breaker->stop = true;
    pthread_join(thread, NULL);
    return end;
}

/* A decent connection beside it does not notice. */
static void prove_alive(struct contract_world *world)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    contract_send_all(near_end, CFSR_STREAM_DATA, 100000, 2);
    contract_close_both(near_end, far_end);
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 1u);
    cr_assert_eq(far_end->bad_frames, 0u);
    contract_end_destroy(near_end);
}

/* Nobody else was harmed. */
static void end_attack(struct contract_world *world, struct breaker *breaker)
{
    prove_alive(world);
    free(breaker);
    contract_world_destroy(world);
}

static void breaks(uint32_t len, uint32_t immediate, unsigned times, int reason)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct breaker *breaker = breaker_create(world);
    struct contract_end *end;

    for (unsigned i = 0; i < times; i++)
        add(breaker, len, immediate);
    end = run_breaker(world, breaker, NULL);
    cr_assert_eq(end->reason, reason, "closed with %d", end->reason);
    cr_assert_eq(end->received[0] + end->received[1], 0u, "something of it was shown");
    end_attack(world, breaker);
}

Test(rdma_attack, part_that_does_not_fill_its_slot, .timeout = 240)
{
    breaks(1000, KIND_MORE << 16, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, frame_above_the_limit, .timeout = 240)
{
    breaks(SLOT_BYTES, KIND_MORE << 16, 30, -CFSR_E_BAD_FRAME);
}

/* The device finds it, not we. Devices differ in what they call it (rdma.c). */
Test(rdma_attack, message_larger_than_a_slot, .timeout = 240)
{
    breaks(2 * SLOT_BYTES, KIND_LAST << 16, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, message_a_byte_larger_than_a_slot, .timeout = 240)
{
    breaks(SLOT_BYTES + 1, KIND_LAST << 16, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, unknown_kind, .timeout = 240)
{
    breaks(100, 7u << 16, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, bits_nobody_defined, .timeout = 240)
{
    breaks(100, 1u << 27 | KIND_LAST << 16, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, no_immediate, .timeout = 240)
{
    breaks(100, NO_IMMEDIATE, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, empty_frame, .timeout = 240)
{
    breaks(0, KIND_LAST << 16, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, grant_with_a_body, .timeout = 240)
{
    breaks(100, KIND_GRANT << 16, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, credits_nobody_has, .timeout = 240)
{
    breaks(0, KIND_GRANT << 16 | 0xffff, 1, -CFSR_E_BAD_FRAME);
}

Test(rdma_attack, grant_inside_a_frame, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct breaker *breaker = breaker_create(world);

    add(breaker, SLOT_BYTES, KIND_MORE << 16);
    add(breaker, 0, KIND_GRANT << 16);
    cr_assert_eq(run_breaker(world, breaker, NULL)->reason, -CFSR_E_BAD_FRAME);
    end_attack(world, breaker);
}

Test(rdma_attack, message_after_the_end, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct breaker *breaker = breaker_create(world);

    add(breaker, 0, KIND_END << 16);
    add(breaker, 100, KIND_LAST << 16);
    cr_assert_eq(run_breaker(world, breaker, NULL)->received[0], 0u);
    end_attack(world, breaker);
}

Test(rdma_attack, frame_cut_by_a_disconnect_is_never_shown, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct breaker *breaker = breaker_create(world);
    struct contract_end *end;

    add(breaker, SLOT_BYTES, KIND_MORE << 16);
    breaker->leave = true;
    end = run_breaker(world, breaker, NULL);
    cr_assert_eq(end->reason, -ECONNRESET);
    cr_assert_eq(end->received[0] + end->partial_shows, 0u);
    end_attack(world, breaker);
}

static void fill_queue(struct contract_end *end)
{
    for (unsigned i = 0; i < 200; i++) {
        (void)contract_send(end, CFSR_STREAM_DATA, 60000, 1);
        contract_turn(end->world);
    }
}

Test(rdma_attack, peer_that_grants_nothing_is_given_up, .timeout = 240)
{
    const struct cfsr_rdma_options rdma = {.gid_index = -1, .credit_timeout_ms = 1000};
    const struct contract_options options = {.scheme = "rdma", .rings = 2, .rdma = &rdma};
    struct contract_world *world = contract_world_create(&options);
    struct breaker *breaker = breaker_create(world);
    struct cfsr_transport_stats stats;

    cr_assert_eq(run_breaker(world, breaker, fill_queue)->reason, -CFSR_E_BACKPRESSURE);
    world->transport->stats(world->group[CONTRACT_FAR], &stats);
    cr_assert_gt(stats.credit_waits, 0u);
    end_attack(world, breaker);
}

/* Eight slots, nothing taken, twenty messages: the device holds back what has no slot. */
Test(rdma_attack, more_sends_than_credits, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&eight_slots);
    struct breaker *breaker = breaker_create(world);
    struct contract_end *end = &world->far_ends[0];

    end->stop_taking = true;
    for (unsigned i = 0; i < 20; i++)
        add(breaker, 100, KIND_LAST << 16);
    end = run_breaker(world, breaker, NULL);
    cr_assert_leq(breaker->done, 8u);
    cr_assert_eq(end->received[0], 0u);
    end_attack(world, breaker);
}

/*
 * A peer of eight slots that gives none back: after eight grants of ours it has no more credits,
 * and what it sends then lands in slots that are posted for it but were never granted. 8 + 8 × 8 is
 * the most it can ever be granted.
 */
Test(rdma_attack, credits_spent_twice, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&eight_slots);
    struct breaker *breaker = breaker_create(world);
    struct contract_end *end;

    cfsr_store_le32(breaker->request + 44, 8);
    breaker->rnr_retry = 7;
    breaker->frames = true;
    for (unsigned i = 0; i < 90; i++)
        add(breaker, 100, KIND_LAST << 16);
    end = run_breaker(world, breaker, NULL);
    cr_assert_eq(end->reason, -CFSR_E_BAD_FRAME, "closed with %d", end->reason);
    cr_assert_geq(end->received[0], 8u);
    cr_assert_leq(end->received[0], 72u);
    end_attack(world, breaker);
}

static void bad_request(struct contract_world *world, struct breaker *breaker)
{
    uint64_t before = world->transport->listener_dropped(world->listener);
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, breaker_main, breaker), 0);
    for (unsigned i = 0; i < 20000 && world->transport->listener_dropped(world->listener) == before;
         i++)
        contract_turn(world);
    pthread_join(thread, NULL);
    cr_assert(!breaker->connected);
    cr_assert_eq(world->transport->listener_dropped(world->listener), before + 1);
    cr_assert_eq(world->far_count, 0u);
}

Test(rdma_attack, requests_that_are_not_ours_are_refused, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct breaker *breaker = breaker_create(world);

    memset(breaker->request, 'x', 48); /* not a preamble */
    bad_request(world, breaker);
    default_request(breaker);
    breaker->request[32] = 'X'; /* not a geometry */
    bad_request(world, breaker);
    default_request(breaker);
    cfsr_store_le32(breaker->request + 40, 5000); /* no power of two */
    bad_request(world, breaker);
    default_request(breaker);
    cfsr_store_le32(breaker->request + 44, 1u << 30); /* slots of a lifetime */
    bad_request(world, breaker);
    default_request(breaker);
    breaker->request_bytes = 20; /* too short: the rest arrives as zeroes */
    bad_request(world, breaker);
    end_attack(world, breaker);
}

static bool both_closed(void *user)
{
    struct contract_end **ends = user;

    return ends[0]->closed > 0 && ends[1]->closed > 0;
}

Test(rdma, injected_completion_error_ends_both_sides, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    struct contract_end *ends[] = {near_end, far_end};

    cr_assert_eq(world->transport->inject(near_end->conn, CFSR_INJECT_COMPLETION_ERROR), 0);
    (void)contract_send(near_end, CFSR_STREAM_DATA, 100000, 2);
    contract_until(world, both_closed, ends, "both ends close");
    cr_assert_eq(near_end->reason, -EIO);
    cr_assert_eq(far_end->reason, -ECONNRESET);
    prove_alive(world);
    contract_end_destroy(near_end);
    contract_world_destroy(world);
}

/* No inline data, a completion queue for two connections, eight slots, frames of many parts. */
Test(rdma, works_with_little_of_everything, .timeout = 240)
{
    const struct cfsr_rdma_options rdma = {.gid_index = -1,
                                           .depth = 8,
                                           .send_depth = 32,
                                           .inline_bytes = -1,
                                           .completions_max = 80,
                                           .poll_us = 50};
    const struct contract_options options = {.scheme = "rdma",
                                             .rings = 4,
                                             .ring_bytes = 512 * 1024,
                                             .frame_max_bytes = 256 * 1024,
                                             .rdma = &rdma};
    struct contract_world *world = contract_world_create(&options);
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    struct contract_end *second = contract_end_create(world);
    struct contract_end *third = contract_end_create(world);
    struct cfsr_transport_stats stats;

    (void)contract_pair(world, second);
    cr_assert_eq(contract_dial(world, world->endpoint, 5000, third), 0);
    contract_until(world, contract_is_closed, third, "the third has no room in the queue");
    cr_assert_eq(third->reason, -CFSR_E_POOL_EMPTY);
    for (uint32_t i = 0; i < 100; i++) {
        contract_send_all(near_end, CFSR_STREAM_DATA, i * 2617 % 262000, 1 + i % 4);
        contract_send_all(far_end, CFSR_STREAM_DATA, i * 2617 % 100, 1);
    }
    for (unsigned i = 0; i < 100000 && far_end->received[CFSR_STREAM_DATA] < 100; i++)
        contract_turn(world);
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 100u);
    cr_assert_eq(far_end->bad_frames + near_end->bad_frames, 0u);
    world->transport->stats(world->group[CONTRACT_NEAR], &stats);
    cr_assert_eq(stats.copied_bytes, 0u, "registered memory was copied");
    cr_assert_lt(stats.doorbells, stats.sends);
    contract_close(near_end, true);
    contract_close(second, true);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    contract_until(world, contract_is_closed, second, "the second closes");
    contract_end_destroy(near_end);
    contract_end_destroy(second);
    contract_end_destroy(third);
    contract_world_destroy(world);
}

/* What is held is out of the pool, and refused in words when nothing else is left. */
Test(rdma, held_rings_are_missed_until_they_are_dropped, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct contract_end *near_ends[2];
    struct contract_end *refused = contract_end_create(world);

    for (unsigned i = 0; i < 2; i++) {
        near_ends[i] = contract_end_create(world);
        world->far_ends[i].keep_over_close = true;
        (void)contract_pair(world, near_ends[i]);
        contract_close(near_ends[i], true);
        contract_until(world, contract_is_closed, &world->far_ends[i], "the far end closes");
        contract_until(world, contract_is_closed, near_ends[i], "the near end closes");
        contract_end_destroy(near_ends[i]);
    }
    cr_assert_eq(contract_dial(world, world->endpoint, 5000, refused), 0);
    contract_until(world, contract_is_closed, refused, "no ring is left at the far end");
    cr_assert_eq(refused->reason, -CFSR_E_POOL_EMPTY);
    contract_end_destroy(refused);
    contract_drop(&world->far_ends[1]);
    prove_alive(world);
    contract_drop(&world->far_ends[0]);
    prove_alive(world);
    contract_world_destroy(world);
}

Test(rdma, headers_in_any_memory_are_copied_and_bodies_refused, .timeout = 240)
{
    struct contract_world *world = contract_world_create(&two_rings);
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    static uint8_t unregistered[8192];
    struct cfsr_frame frame = {.pieces = {{unregistered, sizeof unregistered}}, .count = 1};

    (void)far_end;
    cr_assert_eq(world->transport->send(near_end->conn, CFSR_STREAM_DATA, &frame, 1), -EFAULT);
    cr_assert_not_null(strstr(cfsr_error_message(), "memory_register"));
    contract_close_both(near_end, far_end);
    contract_end_destroy(near_end);
    contract_world_destroy(world);
}

Test(rdma, hundred_connections_at_once, .timeout = 240)
{
    enum {
        COUNT = 100
    };
    const struct cfsr_rdma_options rdma = {.gid_index = -1, .depth = 16, .send_depth = 32};
    const struct contract_options options = {.scheme = "rdma",
                                             .rings = COUNT,
                                             .ring_bytes = 64 * 1024,
                                             .frame_max_bytes = 16 * 1024,
                                             .rdma = &rdma};
    struct contract_world *world = contract_world_create(&options);
    struct contract_end *near_ends[COUNT];

    for (unsigned i = 0; i < COUNT; i++) {
        near_ends[i] = contract_end_create(world);
        (void)contract_pair(world, near_ends[i]);
        contract_send_all(near_ends[i], CFSR_STREAM_DATA, 9000 + i, 2);
    }
    for (unsigned i = 0; i < COUNT; i++)
        contract_close(near_ends[i], true);
    for (unsigned i = 0; i < COUNT; i++) {
        contract_until(world, contract_is_closed, near_ends[i], "the near end closes");
        contract_until(world, contract_is_closed, &world->far_ends[i], "the far end closes");
        cr_assert_eq(world->far_ends[i].received[CFSR_STREAM_DATA], 1u);
        cr_assert_eq(world->far_ends[i].bad_frames, 0u);
        contract_end_destroy(near_ends[i]);
    }
    contract_world_destroy(world);
}
