/*
 * test_rdma_dial.c - what a dialler meets over RDMA: acceptors that are not ours, and a machine
 * that lacks what is asked for. Runs where there is a device.
 *
 * The acceptor is a thread with a listener of its own and blocking calls; it answers every request
 * with the bytes it was given and never says more.
 */
#include "contract.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAIT_STEPS 30000

struct acceptor {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *listener;
    struct rdma_cm_id *taken;
    char endpoint[CFSR_ENDPOINT_MAX];
    uint8_t answer[64];
    uint8_t answer_bytes;
    bool refuse, silent;
    bool vanish; /* takes the connection, then its queue pair is gone without a word */
    atomic_bool stop;
    pthread_t thread;
};

static void take(struct acceptor *acceptor, struct rdma_cm_id *id)
{
    struct ibv_qp_init_attr attributes = {
        .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    struct rdma_conn_param parameters = {.private_data = acceptor->answer,
                                         .private_data_len = acceptor->answer_bytes,
                                         .rnr_retry_count = 7};

    acceptor->taken = id;
    if (acceptor->silent)
        return;
    if (acceptor->refuse)
        (void)rdma_reject(id, acceptor->answer, acceptor->answer_bytes);
    else if (rdma_create_qp(id, NULL, &attributes) != 0 || rdma_accept(id, &parameters) != 0)
        abort();
}

static void *acceptor_main(void *argument)
{
    struct acceptor *acceptor = argument;
    struct pollfd ready = {.fd = acceptor->channel->fd, .events = POLLIN};
    struct rdma_cm_event *event;

    for (unsigned i = 0; i < WAIT_STEPS && !acceptor->stop; i++) {
        if (poll(&ready, 1, 5) <= 0 || rdma_get_cm_event(acceptor->channel, &event) != 0)
            continue;
        if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST)
            take(acceptor, event->id);
        if (event->event == RDMA_CM_EVENT_ESTABLISHED && acceptor->vanish)
            rdma_destroy_qp(acceptor->taken);
        (void)rdma_ack_cm_event(event);
    }
    return NULL;
}

static void acceptor_start(struct acceptor *acceptor)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    const char *host = getenv("CFSR_VM_ADDRESS");

    acceptor->channel = rdma_create_event_channel();
    cr_assert_not_null(acceptor->channel);
    cr_assert_eq(rdma_create_id(acceptor->channel, &acceptor->listener, NULL, RDMA_PS_TCP), 0);
    cr_assert_eq(rdma_bind_addr(acceptor->listener, (struct sockaddr *)&address), 0);
    cr_assert_eq(rdma_listen(acceptor->listener, 4), 0);
    (void)snprintf(acceptor->endpoint, sizeof acceptor->endpoint, "rdma://%s:%u",
                   host != NULL ? host : "127.0.0.1",
                   (unsigned)ntohs(rdma_get_src_port(acceptor->listener)));
    cr_assert_eq(pthread_create(&acceptor->thread, NULL, acceptor_main, acceptor), 0);
}

static void acceptor_stop(struct acceptor *acceptor)
{
    acceptor->stop = true;
    pthread_join(acceptor->thread, NULL);
    if (acceptor->taken != NULL) {
        if (acceptor->taken->qp != NULL)
            rdma_destroy_qp(acceptor->taken);
        (void)rdma_destroy_id(acceptor->taken);
    }
    (void)rdma_destroy_id(acceptor->listener);
    rdma_destroy_event_channel(acceptor->channel);
}

/* Dials the acceptor; it must end unconnected, with this reason. */
static void dial_meets(struct acceptor *acceptor, uint64_t timeout_ms, int reason)
{
    const struct contract_options options = {.scheme = "rdma", .rings = 2};
    struct contract_world *world = contract_world_create(&options);
    struct contract_end *end = contract_end_create(world);

    acceptor_start(acceptor);
    cr_assert_eq(contract_dial(world, acceptor->endpoint, timeout_ms, end), 0);
    contract_until(world, contract_is_closed, end, "the dial ends");
    cr_assert_eq(end->connected, 0u);
    cr_assert_eq(end->reason, reason, "closed with %d", end->reason);
    contract_end_destroy(end);
    contract_world_destroy(world);
    acceptor_stop(acceptor);
}

static void geometry(struct acceptor *acceptor, uint16_t version, uint32_t slot_bytes,
                     uint32_t slots)
{
    memcpy(acceptor->answer, "CFR1", 4);
    cfsr_store_le16(acceptor->answer + 4, version);
    cfsr_store_le16(acceptor->answer + 6, 0);
    cfsr_store_le32(acceptor->answer + 8, slot_bytes);
    cfsr_store_le32(acceptor->answer + 12, slots);
    acceptor->answer_bytes = 16;
}

Test(rdma_dial, answer_without_a_word, .timeout = 240)
{
    struct acceptor acceptor = {0};

    dial_meets(&acceptor, 5000, -CFSR_E_FORMAT);
}

Test(rdma_dial, answer_of_garbage, .timeout = 240)
{
    struct acceptor acceptor = {.answer_bytes = 64};

    memset(acceptor.answer, 'x', sizeof acceptor.answer);
    dial_meets(&acceptor, 5000, -CFSR_E_FORMAT);
}

Test(rdma_dial, answer_of_another_version, .timeout = 240)
{
    struct acceptor acceptor = {0};

    geometry(&acceptor, 9, 65536, 64);
    dial_meets(&acceptor, 5000, -CFSR_E_VERSION);
}

Test(rdma_dial, answer_with_slots_that_cannot_be, .timeout = 240)
{
    static const uint32_t wrong[][2] = {{5000, 64}, {2048, 64}, {65536, 0}, {65536, 1u << 30}};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(wrong); i++) {
        struct acceptor acceptor = {0};
        geometry(&acceptor, 1, wrong[i][0], wrong[i][1]);
        dial_meets(&acceptor, 5000, -CFSR_E_FORMAT);
    }
}

Test(rdma_dial, refusal_of_garbage, .timeout = 240)
{
    struct acceptor acceptor = {.refuse = true, .answer_bytes = 64};

    memset(acceptor.answer, 0xff, sizeof acceptor.answer);
    dial_meets(&acceptor, 5000, -ECONNREFUSED);
}

Test(rdma_dial, refusal_with_a_number_that_is_no_error, .timeout = 240)
{
    struct acceptor acceptor = {.refuse = true, .answer_bytes = 8};

    memcpy(acceptor.answer, "CFR1", 4);
    cfsr_store_le32(acceptor.answer + 4, 0); /* would mean: closed in order */
    dial_meets(&acceptor, 5000, -ECONNREFUSED);
}

Test(rdma_dial, no_answer_ends_with_the_deadline, .timeout = 240)
{
    struct acceptor acceptor = {.silent = true};

    dial_meets(&acceptor, 1000, -ETIMEDOUT);
}

/* Nothing is sent, so no send fails: the connection itself must look. */
Test(rdma_dial, peer_gone_without_a_word_is_noticed_when_idle, .timeout = 240)
{
    const struct contract_options options = {.scheme = "rdma", .rings = 2};
    struct contract_world *world = contract_world_create(&options);
    struct contract_end *end = contract_end_create(world);
    struct acceptor acceptor = {.vanish = true};

    geometry(&acceptor, 1, 65536, 64);
    acceptor_start(&acceptor);
    cr_assert_eq(contract_dial(world, acceptor.endpoint, 5000, end), 0);
    contract_until(world, contract_is_closed, end, "its absence is noticed");
    cr_assert_eq(end->connected, 1u);
    cr_assert_eq(end->reason, -ETIMEDOUT, "closed with %d", end->reason);
    contract_end_destroy(end);
    contract_world_destroy(world);
    acceptor_stop(&acceptor);
}

static bool has_waited(void *user)
{
    uint64_t *until_ns = user;

    return cfsr_clock_monotonic_ns() > *until_ns;
}

/* Longer than looks take to give up what does not move. */
Test(rdma_dial, idle_connection_stays, .timeout = 240)
{
    const struct contract_options options = {.scheme = "rdma", .rings = 2};
    struct contract_world *world = contract_world_create(&options);
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);
    uint64_t until_ns = cfsr_clock_monotonic_ns() + 16ull * 1000 * 1000 * 1000;

    contract_until(world, has_waited, &until_ns, "time passes");
    cr_assert_eq(near_end->closed + far_end->closed, 0u);
    contract_send_all(near_end, CFSR_STREAM_DATA, 100000, 2);
    contract_close_both(near_end, far_end);
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 1u);
    contract_end_destroy(near_end);
    contract_world_destroy(world);
}

/* ---- what the machine lacks ---- */

static int group_with(const struct cfsr_rdma_options *rdma)
{
    struct contract_world world = {.transport = cfsr_transport_find("rdma")};
    struct cfsr_group_options options = {.opts_size = sizeof options,
                                         .conns_max = 4,
                                         .frame_max_bytes = CONTRACT_FRAME_MAX,
                                         .recv_ring_bytes = CONTRACT_RING_BYTES,
                                         .recv_rings_max = 2,
                                         .rdma = rdma};
    struct cfsr_group *group;
    int rc;

    contract_core_create(&world);
    options.ring = world.ring;
    options.timers = world.timers;
    rc = world.transport->group_create(&options, &group);
    if (rc == 0)
        world.transport->group_destroy(group);
    return rc;
}

Test(rdma_device, unknown_device_is_named, .timeout = 240)
{
    const struct cfsr_rdma_options rdma = {.gid_index = -1, .device = "mlx9_7"};

    cr_assert_eq(group_with(&rdma), -ENODEV);
    cr_assert_not_null(strstr(cfsr_error_message(), "mlx9_7"), "%s", cfsr_error_message());
}

Test(rdma_device, unknown_gid_is_named, .timeout = 240)
{
    const struct cfsr_rdma_options rdma = {.gid_index = 9999};

    cr_assert_eq(group_with(&rdma), -CFSR_E_CONFIG);
    cr_assert_not_null(strstr(cfsr_error_message(), "9999"), "%s", cfsr_error_message());
}

/* Root may lock what it likes, so the right to is given up first. */
Test(rdma_device, too_little_locked_memory_is_told_with_the_size_needed, .timeout = 240)
{
    const struct cfsr_rdma_options rdma = {.gid_index = -1};
    const struct rlimit limit = {1024 * 1024, 1024 * 1024};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct rights[2];

    cr_assert_eq(syscall(SYS_capget, &header, rights), 0);
    rights[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
    cr_assert_eq(syscall(SYS_capset, &header, rights), 0);
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    cr_assert_eq(group_with(&rdma), -ENOMEM, "%s", cfsr_error_message());
    cr_assert_not_null(strstr(cfsr_error_message(), "LimitMEMLOCK"), "%s", cfsr_error_message());
    cr_assert_not_null(strstr(cfsr_error_message(), "bytes"), "%s", cfsr_error_message());
}
