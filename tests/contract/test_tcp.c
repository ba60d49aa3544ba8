/*
 * test_tcp.c - what only real sockets can show: strangers at the listener, a silent network, rings
 * that run out, addresses.
 */
#include "contract.h"

#include "base/clock.h"
#include "transport/tcp/tcp.h"

#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void address_of(const char *endpoint, struct sockaddr_in *address_out)
{
    char scheme[8];
    char host[64];
    uint16_t port;

    cr_assert_eq(cfsr_endpoint_parse(endpoint, scheme, sizeof scheme, host, sizeof host, &port), 0);
    memset(address_out, 0, sizeof *address_out);
    address_out->sin_family = AF_INET;
    address_out->sin_port = htons(port);
    cr_assert_eq(inet_pton(AF_INET, host, &address_out->sin_addr), 1);
}

static int stranger(const char *endpoint, const void *bytes, size_t len)
{
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_geq(fd, 0);
    address_of(endpoint, &address);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (len > 0)
        cr_assert_eq(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
    return fd;
}

static void bogus_preambles(struct contract_world *world)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: example\r\n\r\n and more than 32 bytes";
    struct cfsr_preamble wrong = {.version = 99};
    struct contract_end *near_end = contract_end_create(world);
    uint8_t wrong_bytes[CFSR_PREAMBLE_BYTES];
    int fds[103];
    unsigned count = 0;

    cfsr_preamble_store(&wrong, wrong_bytes);
    for (unsigned i = 0; i < 100; i++) { /* more silent ones than there are places */
        fds[count++] = stranger(world->endpoint, NULL, 0);
        contract_turn(world);
    }
    fds[count++] = stranger(world->endpoint, http, sizeof http);
    fds[count++] = stranger(world->endpoint, wrong_bytes, sizeof wrong_bytes);
    fds[count++] = stranger(world->endpoint, "CFSR", 4); /* begins well and stops */
    (void)contract_pair(world, near_end);
    contract_turns(world, 20);
    cr_assert_eq(world->far_count, 1u);
    cr_assert_lt(world->transport->listener_deadline(world->listener), UINT64_MAX);
    world->skip_ns = 3ull * 1000 * 1000 * 1000; /* deadlines pass */
    contract_turns(world, 20);
    cr_assert_eq(world->transport->listener_dropped(world->listener), (uint64_t)count);
    cr_assert_eq(world->transport->listener_deadline(world->listener), UINT64_MAX);
    for (unsigned i = 0; i < count; i++) {
        char byte;
        struct pollfd ready = {.fd = fds[i], .events = POLLIN};
        cr_assert_eq(poll(&ready, 1, 5000), 1, "a stranger was kept");
        cr_assert_leq(recv(fds[i], &byte, 1, 0), 0);
        close(fds[i]);
    }
    contract_close(near_end, false);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_until(world, contract_is_closed, &world->far_ends[0], "the far end closes");
    contract_end_destroy(near_end);
}

Test(tcp, bogus_preambles_are_dropped_and_a_good_one_gets_through, .timeout = 60)
{
    contract_run("tcp", bogus_preambles);
}

static void preamble_in_pieces(struct contract_world *world)
{
    struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION, .target_core = 5};
    uint8_t bytes[CFSR_PREAMBLE_BYTES];
    int fd = stranger(world->endpoint, NULL, 0);

    cfsr_preamble_store(&preamble, bytes);
    for (unsigned i = 0; i < CFSR_PREAMBLE_BYTES; i++) {
        contract_turn(world);
        cr_assert_eq(world->far_count, 0u);
        cr_assert_eq(send(fd, bytes + i, 1, MSG_NOSIGNAL), 1);
    }
    contract_turns(world, 20);
    cr_assert_eq(world->far_count, 1u);
    cr_assert_eq(world->far_ends[0].preamble.target_core, 5u);
    close(fd);
    contract_until(world, contract_is_closed, &world->far_ends[0], "the far end closes");
}

Test(tcp, preamble_may_come_byte_by_byte, .timeout = 60)
{
    contract_run("tcp", preamble_in_pieces);
}

/* What the callee had no room for when the peer ended its stream is shown again, for a while. */
static void refused_then_ended(struct contract_world *world)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    far_end->stop_taking = true;
    for (unsigned i = 0; i < 3; i++)
        contract_send_all(near_end, CFSR_STREAM_DATA, 1000, 2);
    contract_close(near_end, true);
    contract_turns(world, 60);
    cr_assert_eq(far_end->closed, 0u, "closed with frames that nobody has seen");
    far_end->stop_taking = false;
    world->transport->recv_resume(far_end->conn);
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    cr_assert_eq(far_end->received[CFSR_STREAM_DATA], 3u);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_end_destroy(near_end);
}

Test(tcp, frames_refused_before_the_end_are_shown_after_it, .timeout = 60)
{
    contract_run("tcp", refused_then_ended);
}

/* A listening socket whose backlog is full drops what comes: a peer that does not answer. */
static void connect_timeout(struct contract_world *world)
{
    struct contract_end *near_end = contract_end_create(world);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fillers[8];
    char endpoint[64];

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(bind(silent, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(silent, 0), 0);
    cr_assert_eq(getsockname(silent, (struct sockaddr *)&address, &len), 0);
    for (unsigned i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    (void)snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", ntohs(address.sin_port));
    cr_assert_eq(contract_dial(world, endpoint, 200, near_end), 0);
    contract_until(world, contract_is_closed, near_end, "the dial is given up");
    cr_assert_eq(near_end->reason, -ETIMEDOUT);
    cr_assert_eq(near_end->connected, 0u);
    for (unsigned i = 0; i < 8; i++)
        close(fillers[i]);
    close(silent);
    contract_end_destroy(near_end);
}

Test(tcp, connect_timeout, .timeout = 60)
{
    contract_run("tcp", connect_timeout);
}

static bool all_received(void *user)
{
    struct contract_world *world = user;

    for (unsigned i = 0; i < world->far_count; i++)
        if (world->far_ends[i].received[CFSR_STREAM_DATA] < 40)
            return false;
    return true;
}

/* More busy receivers than receive rings: they take turns, and nobody starves. */
Test(tcp, receive_rings_go_round, .timeout = 60)
{
    enum {
        COUNT = 6
    };
    const struct contract_options options = {.scheme = "tcp", .rings = 2};
    struct contract_world *world = contract_world_create(&options);
    struct contract_end *near_ends[COUNT];
    struct cfsr_transport_stats stats;

    for (unsigned i = 0; i < COUNT; i++) {
        near_ends[i] = contract_end_create(world);
        (void)contract_pair(world, near_ends[i]);
    }
    for (unsigned n = 0; n < 40; n++)
        for (unsigned i = 0; i < COUNT; i++)
            contract_send_all(near_ends[i], CFSR_STREAM_DATA, 20000, 2);
    contract_until(world, all_received, world, "every connection is served");
    world->transport->stats(world->group[CONTRACT_FAR], &stats);
    cr_assert_gt(stats.receive_ring_empty, 0u);
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert_eq(world->far_ends[i].bad_frames, 0u);
        contract_close(near_ends[i], true);
        contract_until(world, contract_is_closed, near_ends[i], "the near end closes");
        contract_until(world, contract_is_closed, &world->far_ends[i], "the far end closes");
        contract_end_destroy(near_ends[i]);
    }
    contract_world_destroy(world);
}

static bool holds_no_ring(void *user)
{
    struct contract_end *end = user;

    return end->conn->receive_ring == NULL;
}

static void idle_gives_ring_back(struct contract_world *world)
{
    struct contract_end *near_end = contract_end_create(world);
    struct contract_end *far_end = contract_pair(world, near_end);

    for (unsigned round = 0; round < 3; round++) {
        unsigned turns = 0;
        contract_send_all(near_end, CFSR_STREAM_DATA, 300000, 2);
        while (far_end->received[CFSR_STREAM_DATA] <= round && turns++ < 100000)
            contract_turn(world);
        cr_assert_not_null(far_end->conn->receive_ring);
        contract_until(world, holds_no_ring, far_end, "an idle connection gives its ring back");
    }
    cr_assert_eq(far_end->bad_frames, 0u);
    contract_close(near_end, false);
    contract_until(world, contract_is_closed, far_end, "the far end closes");
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_end_destroy(near_end);
}

Test(tcp, idle_connection_gives_its_ring_back, .timeout = 60)
{
    contract_run("tcp", idle_gives_ring_back);
}

Test(tcp, listen_says_what_to_do_when_the_port_is_taken)
{
    struct cfsr_listener *first;
    struct cfsr_listener *second;

    cr_assert_eq(cfsr_transport_tcp.listen("tcp://127.0.0.1:0", NULL, &first), 0);
    cr_assert_eq(
        cfsr_transport_tcp.listen(cfsr_transport_tcp.listener_endpoint(first), NULL, &second),
        -EADDRINUSE);
    cr_assert_not_null(strstr(cfsr_error_message(), "choose another port"));
    cfsr_transport_tcp.listener_close(first);
}

Test(tcp, ipv6_loopback_works, .timeout = 60)
{
    const struct contract_options options = {.scheme = "tcp"};
    struct contract_world *world = contract_world_create(&options);
    struct contract_end *near_end = contract_end_create(world);

    world->transport->listener_close(world->listener);
    world->listener = NULL;
    if (world->transport->listen("tcp://[::1]:0", NULL, &world->listener) < 0) {
        contract_world_destroy(world);
        free(near_end);
        cr_skip("no IPv6 on this machine");
    }
    memcpy(world->endpoint, world->transport->listener_endpoint(world->listener),
           sizeof world->endpoint);
    cr_assert_eq(strncmp(world->endpoint, "tcp://[::1]:", 12), 0);
    (void)contract_pair(world, near_end);
    contract_close(near_end, true);
    contract_until(world, contract_is_closed, near_end, "the near end closes");
    contract_until(world, contract_is_closed, &world->far_ends[0], "the far end closes");
    contract_end_destroy(near_end);
    contract_world_destroy(world);
}
