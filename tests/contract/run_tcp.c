/*
 * run_tcp.c - two threads, a core each with its own ring, 200 MB over loopback, one checksum.
 *
 * For ThreadSanitizer: no framework, the threads share the listener's endpoint and the results
 * only.
 */
#include "transport/transport.h"

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "core/ring.h"
#include "core/timer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define TOTAL_BYTES (200ull * 1000 * 1000)
#define FRAME_BYTES 100000u
#define FRAMES      (TOTAL_BYTES / FRAME_BYTES)
#define BUFFERS     64u
#define LIMIT_NS    (100ull * 1000 * 1000 * 1000)
#define BUDGET      64

struct side {
    const char *endpoint;           /* sender: whom to dial */
    struct cfsr_listener *listener; /* receiver */
    struct cfsr_incoming *incoming; /* receiver: accepted by main */
    struct cfsr_ring *ring;
    struct cfsr_timers timers;
    struct cfsr_group *group;
    struct cfsr_conn *conn;
    uint8_t (*buffers)[FRAME_BYTES];
    uint64_t queued, sent, received_bytes;
    uint32_t crc;
    int reason;
    bool connected, closed, failed;
};

static void on_connected(void *user, struct cfsr_conn *conn)
{
    struct side *side = user;

    side->conn = conn;
    side->connected = true;
}

static size_t on_data(void *user, struct cfsr_conn *conn, uint8_t *span, size_t len)
{
    struct side *side = user;

    side->crc = cfsr_crc32c(side->crc, span, len);
    side->received_bytes += len;
    cfsr_transport_tcp.recv_release(conn, len);
    return len;
}

static void on_sent(void *user, struct cfsr_conn *conn, uint64_t cookie)
{
    struct side *side = user;

    (void)conn;
    if (cookie != side->sent)
        side->failed = true;
    side->sent++;
}

static void on_writable(void *user, struct cfsr_conn *conn)
{
    (void)user;
    (void)conn;
}

static void on_closed(void *user, struct cfsr_conn *conn, int reason)
{
    struct side *side = user;

    (void)conn;
    side->conn = NULL;
    side->closed = true;
    side->reason = reason;
}

static const struct cfsr_conn_events events = {
    .on_connected = on_connected,
    .on_data = on_data,
    .on_sent = on_sent,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

static bool core_open(struct side *side)
{
    const struct cfsr_ring_options ring_options = {.cpu = -1};
    struct cfsr_group_options options = {
        .opts_size = sizeof options,
        .conns_max = 4,
        .frame_max_bytes = FRAME_BYTES,
        .recv_ring_bytes = 4 * 1024 * 1024,
        .recv_rings_max = 2,
        .send_gather_bytes = 256 * 1024,
    };

    cfsr_timers_init(&side->timers);
    if (cfsr_ring_create(&ring_options, &side->ring) < 0)
        return false;
    options.ring = side->ring;
    options.timers = &side->timers;
    if (cfsr_transport_tcp.group_create(&options, &side->group) < 0) {
        cfsr_ring_destroy(side->ring);
        return false;
    }
    return true;
}

static void core_close(struct side *side)
{
    cfsr_transport_tcp.group_destroy(side->group);
    cfsr_ring_destroy(side->ring);
}

static void turn(struct side *side)
{
    bool busy = cfsr_transport_tcp.arm(side->group) == -EBUSY;

    if (cfsr_ring_submit_and_reap(side->ring, busy ? 0 : 10u * 1000 * 1000) < 0)
        side->failed = true;
    (void)cfsr_timers_expire(&side->timers, cfsr_clock_monotonic_ns());
    (void)cfsr_transport_tcp.poll(side->group, BUDGET);
}

static void queue_frames(struct side *side)
{
    while (side->connected && side->queued < FRAMES && side->queued - side->sent < BUFFERS) {
        uint8_t *buffer = side->buffers[side->queued % BUFFERS];
        struct cfsr_frame frame = {.count = 2, .cookie = side->queued};
        cfsr_store_le64(buffer, side->queued * 0x9e3779b97f4a7c15ull);
        frame.pieces[0] = (struct iovec){buffer, 77};
        frame.pieces[1] = (struct iovec){buffer + 77, FRAME_BYTES - 77};
        if (cfsr_transport_tcp.send(side->conn, CFSR_STREAM_DATA, &frame, 1) != 1)
            return;
        side->crc = cfsr_crc32c(side->crc, buffer, FRAME_BYTES);
        side->queued++;
    }
}

static void *send_thread(void *argument)
{
    const struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION};
    struct side *side = argument;
    uint64_t limit_ns = cfsr_clock_monotonic_ns() + LIMIT_NS;
    bool closing = false;

    if (!core_open(side)) {
        side->failed = true;
        return NULL;
    }
    if (cfsr_transport_tcp.connect(side->group, side->endpoint, &preamble, 5000000000ull, &events,
                                   side, &side->conn) < 0)
        side->failed = true;
    while (!side->closed && !side->failed && cfsr_clock_monotonic_ns() < limit_ns) {
        turn(side);
        if (!closing)
            queue_frames(side);
        if (!closing && side->queued == FRAMES && side->conn != NULL) {
            cfsr_transport_tcp.close(side->conn, true);
            closing = true;
        }
        cfsr_transport_tcp.flush(side->group);
    }
    core_close(side);
    return NULL;
}

static void *receive_thread(void *argument)
{
    struct side *side = argument;
    uint64_t limit_ns = cfsr_clock_monotonic_ns() + LIMIT_NS;

    if (!core_open(side)) {
        side->failed = true;
        return NULL;
    }
    if (cfsr_transport_tcp.accept(side->group, side->incoming, &events, side, &side->conn) < 0)
        side->failed = true;
    while (!side->closed && !side->failed && cfsr_clock_monotonic_ns() < limit_ns) {
        turn(side);
        cfsr_transport_tcp.flush(side->group);
    }
    core_close(side);
    return NULL;
}

static int report(const struct side *sender, const struct side *receiver, uint64_t elapsed_ns)
{
    printf("sent %llu frames, received %llu bytes, %.2f GB/s, crc %08x %08x\n",
           (unsigned long long)sender->sent, (unsigned long long)receiver->received_bytes,
           (double)receiver->received_bytes / (double)elapsed_ns, sender->crc, receiver->crc);
    if (sender->failed || receiver->failed || sender->reason != 0 || receiver->reason != 0 ||
        sender->sent != FRAMES || receiver->received_bytes != FRAMES * FRAME_BYTES ||
        sender->crc != receiver->crc) {
        fprintf(stderr, "failed: reasons %d %d\n", sender->reason, receiver->reason);
        return 1;
    }
    return 0;
}

int main(void)
{
    struct side sender = {0};
    struct side receiver = {0};
    struct cfsr_listener *listener;
    struct cfsr_preamble preamble;
    pthread_t sender_thread;
    pthread_t receiver_thread;
    uint64_t begin_ns;
    int rc;

    if (cfsr_transport_tcp.listen("tcp://127.0.0.1:0", NULL, &listener) < 0) {
        fprintf(stderr, "%s\n", cfsr_error_message());
        return 1;
    }
    sender.buffers = calloc(BUFFERS, FRAME_BYTES);
    if (sender.buffers == NULL)
        return 1;
    sender.endpoint = cfsr_transport_tcp.listener_endpoint(listener);
    begin_ns = cfsr_clock_monotonic_ns();
    if (pthread_create(&sender_thread, NULL, send_thread, &sender) != 0)
        return 1;
    do
        rc = cfsr_transport_tcp.listener_accept(listener, cfsr_clock_monotonic_ns(),
                                                &receiver.incoming, &preamble);
    while (rc == -EAGAIN && cfsr_clock_monotonic_ns() < begin_ns + LIMIT_NS);
    if (rc < 0 || pthread_create(&receiver_thread, NULL, receive_thread, &receiver) != 0)
        return 1;
    (void)pthread_join(sender_thread, NULL);
    (void)pthread_join(receiver_thread, NULL);
    cfsr_transport_tcp.listener_close(listener);
    free(sender.buffers);
    return report(&sender, &receiver, cfsr_clock_monotonic_ns() - begin_ns);
}
