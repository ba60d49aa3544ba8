/*
 * stream.c - one end of a transfer over any transport of the table, for tests that cut it.
 *
 *   stream receive ENDPOINT        listens until the frames of one transfer are all there
 *   stream send ENDPOINT... COUNT  sends COUNT numbered frames; dials the endpoints in turn
 *
 * The receiver keeps its position over connections and tells it at the start of each in a frame of
 * its own, so a sender that lost its connection goes on from there, over the next endpoint: what
 * the protocol above does with cursors, in little. It prints what it ended with and why. Exit 0 if
 * every frame came once, in order and unmodified, and at least one byte each way was CRC-checked.
 */
#include "transport/transport.h"

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "core/ring.h"
#include "core/timer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FRAME_BYTES 67000u
#define BUFFERS     48u
#define HELLO_BYTES 16u
#define LISTENERS   2u
#define LIMIT_NS    (240ull * 1000 * 1000 * 1000)
#define DIAL_NS     (10ull * 1000 * 1000 * 1000)
#define WAIT_NS     (20ull * 1000 * 1000)
#define BUDGET      64

struct side {
    const struct cfsr_transport *transport;
    struct cfsr_ring *ring;
    struct cfsr_timers timers;
    struct cfsr_group *group;
    struct cfsr_conn *conn;
    uint8_t *memory;
    bool receiver, closed, resumed;
    int reason;
    uint64_t count;    /* frames of the transfer: sender */
    uint64_t position; /* next frame to send, or to receive */
    uint32_t out;      /* frames the transport holds */
    uint64_t bad;
};

static void fill(uint8_t *frame, uint64_t number, bool last)
{
    cfsr_store_le64(frame, number);
    frame[8] = last;
    memset(frame + 12, (int)(number * 37 & 0xff), FRAME_BYTES - 12);
    cfsr_store_le32(frame + 9, 0);
    cfsr_store_le32(frame + FRAME_BYTES - 4, cfsr_crc32c(0, frame, FRAME_BYTES - 4));
}

static void on_connected(void *user, struct cfsr_conn *conn)
{
    struct side *side = user;
    struct cfsr_frame hello = {.pieces = {{side->memory, HELLO_BYTES}}, .count = 1, .cookie = 1};

    side->conn = conn;
    if (!side->receiver)
        return;
    cfsr_store_le64(side->memory, 0x6f6c6c6568ull);
    cfsr_store_le64(side->memory + 8, side->position);
    if (side->transport->send(conn, CFSR_STREAM_CONTROL, &hello, 1) == 1)
        side->out++;
}

static void take_frame(struct side *side, const uint8_t *frame)
{
    uint64_t number = cfsr_load_le64(frame);

    if (number != side->position ||
        cfsr_crc32c(0, frame, FRAME_BYTES - 4) != cfsr_load_le32(frame + FRAME_BYTES - 4))
        side->bad++;
    side->position++;
    if (frame[8] != 0)
        side->count = side->position;
}

static size_t on_data(void *user, struct cfsr_conn *conn, uint8_t *span, size_t len)
{
    struct side *side = user;
    size_t unit = side->receiver ? FRAME_BYTES : HELLO_BYTES;
    size_t taken = 0;

    for (; len - taken >= unit; taken += unit) {
        if (side->receiver) {
            take_frame(side, span + taken);
        } else {
            side->position = cfsr_load_le64(span + taken + 8);
            side->resumed = true;
        }
    }
    if (taken > 0)
        side->transport->recv_release(conn, taken);
    return taken;
}

static void on_sent(void *user, struct cfsr_conn *conn, uint64_t cookie)
{
    (void)conn;
    (void)cookie;
    ((struct side *)user)->out--;
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

static int open_group(struct side *side, const char *endpoint)
{
    struct cfsr_group_options options = {
        .opts_size = sizeof options,
        .ring = side->ring,
        .timers = &side->timers,
        .conns_max = 4,
        .frame_max_bytes = FRAME_BYTES,
        .recv_ring_bytes = 4 * 1024 * 1024,
        .recv_rings_max = 4,
        .send_gather_bytes = 256 * 1024,
    };
    int rc;

    side->transport = cfsr_transport_find(endpoint);
    if (side->transport == NULL)
        return -ENOTSUP;
    rc = side->transport->group_create(&options, &side->group);
    if (rc < 0)
        return rc;
    rc = side->transport->memory_register(side->group, side->memory, BUFFERS * FRAME_BYTES);
    if (rc < 0)
        side->transport->group_destroy(side->group);
    return rc;
}

static void turn(struct side *side)
{
    bool busy = side->transport->arm(side->group) == -EBUSY;

    if (cfsr_ring_submit_and_reap(side->ring, busy ? 0 : WAIT_NS) < 0)
        abort();
    (void)cfsr_timers_expire(&side->timers, cfsr_clock_monotonic_ns());
    (void)side->transport->poll(side->group, BUDGET);
}

static void queue_frames(struct side *side)
{
    while (side->conn != NULL && side->resumed && side->position < side->count &&
           side->out < BUFFERS) {
        uint8_t *buffer = side->memory + side->position % BUFFERS * FRAME_BYTES;
        struct cfsr_frame frame = {
            .pieces = {{buffer, 300}, {buffer + 300, FRAME_BYTES - 300}}, .count = 2, .cookie = 2};
        fill(buffer, side->position, side->position + 1 == side->count);
        if (side->transport->send(side->conn, CFSR_STREAM_DATA, &frame, 1) != 1)
            return;
        side->out++;
        side->position++;
    }
}

/*
 * One connection from dial to its end; true if all was handed over and closed in order. The group
 * stays, as a daemon's does: what its connection manager still has to say waits for a port that is
 * down.
 */
static bool send_once(struct side *side, const char *endpoint, uint64_t limit_ns)
{
    const struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION};
    bool closing = false;
    int rc;

    rc = side->group != NULL ? 0 : open_group(side, endpoint);
    if (rc < 0) {
        side->group = NULL;
        printf("%s: %s\n", endpoint, cfsr_error_message());
        return false;
    }
    side->closed = false;
    side->resumed = false;
    side->reason = 0;
    rc = side->transport->connect(side->group, endpoint, &preamble, DIAL_NS, &events, side,
                                  &side->conn);
    while (rc == 0 && !side->closed && cfsr_clock_monotonic_ns() < limit_ns) {
        turn(side);
        queue_frames(side);
        if (!closing && side->resumed && side->position == side->count && side->out == 0 &&
            side->conn != NULL) {
            side->transport->close(side->conn, true);
            closing = true;
        }
        side->transport->flush(side->group);
    }
    if (rc < 0)
        side->reason = rc;
    printf("%s: frame %llu, %s\n", endpoint, (unsigned long long)side->position,
           side->reason == 0 ? "closed" : cfsr_error_name(side->reason));
    return closing && side->reason == 0;
}

static int run_send(struct side *sides, char **endpoints, int count)
{
    uint64_t limit_ns = cfsr_clock_monotonic_ns() + LIMIT_NS;
    int status = 1;

    for (int i = 0; status != 0 && cfsr_clock_monotonic_ns() < limit_ns; i = (i + 1) % count) {
        if (send_once(&sides[i], endpoints[i], limit_ns))
            status = 0;
        else
            (void)cfsr_ring_submit_and_reap(sides[i].ring, WAIT_NS);
    }
    for (int i = 0; i < count; i++)
        if (sides[i].group != NULL)
            sides[i].transport->group_destroy(sides[i].group);
    return status;
}

static bool take_connection(struct side *side, struct cfsr_listener *listener)
{
    struct cfsr_incoming *incoming;
    struct cfsr_preamble preamble;
    struct cfsr_conn *conn;

    if (side->transport->listener_accept(listener, cfsr_clock_monotonic_ns(), &incoming,
                                         &preamble) < 0)
        return false;
    side->closed = false;
    return side->transport->accept(side->group, incoming, &events, side, &conn) == 0;
}

/* Serves one connection at a time, over as many endpoints as there are. */
static int run_receive(struct side *sides, char **endpoints, int count)
{
    struct cfsr_listener *listeners[LISTENERS];
    uint64_t limit_ns = cfsr_clock_monotonic_ns() + LIMIT_NS;
    uint64_t position = 0;
    uint64_t bad = 0;

    for (int i = 0; i < count; i++) {
        if (open_group(&sides[i], endpoints[i]) < 0 ||
            sides[i].transport->listen(endpoints[i], NULL, &listeners[i]) < 0) {
            fprintf(stderr, "%s\n", cfsr_error_message());
            return 2;
        }
    }
    printf("listening\n");
    fflush(stdout);
    while (cfsr_clock_monotonic_ns() < limit_ns) {
        bool done = false;
        for (int i = 0; i < count; i++) {
            struct side *side = &sides[i];
            bool was_open = side->conn != NULL;
            side->position = position;
            if (!was_open)
                (void)take_connection(side, listeners[i]);
            turn(side);
            side->transport->flush(side->group);
            position = side->position;
            bad += side->bad;
            side->bad = 0;
            if (was_open && side->conn == NULL)
                printf("%s: frame %llu, %s\n", side->transport->name, (unsigned long long)position,
                       side->reason == 0 ? "closed" : cfsr_error_name(side->reason));
            done = done || (side->count != 0 && side->closed);
        }
        if (done)
            break;
    }
    for (int i = 0; i < count; i++) {
        sides[i].transport->listener_close(listeners[i]);
        sides[i].transport->group_destroy(sides[i].group);
    }
    printf("received %llu frames, %llu bad\n", (unsigned long long)position,
           (unsigned long long)bad);
    return bad == 0 && (sides[0].count == position || sides[1].count == position) ? 0 : 1;
}

static int open_side(struct side *side, struct cfsr_ring *ring, bool receiver)
{
    side->ring = ring;
    side->receiver = receiver;
    cfsr_timers_init(&side->timers);
    side->memory = mmap(NULL, BUFFERS * FRAME_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return side->memory == MAP_FAILED ? -1 : 0;
}

int main(int argc, char **argv)
{
    const struct cfsr_ring_options ring_options = {.cpu = -1};
    static struct side sides[LISTENERS];
    struct cfsr_ring *ring;
    bool receiver = argc > 1 && strcmp(argv[1], "receive") == 0;
    int endpoints = receiver ? argc - 2 : argc - 3;

    if (argc < 3 || endpoints < 1 || endpoints > (int)LISTENERS) {
        fprintf(stderr, "usage: stream receive ENDPOINT [ENDPOINT]\n"
                        "       stream send ENDPOINT [ENDPOINT] COUNT\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (cfsr_ring_create(&ring_options, &ring) < 0) {
        fprintf(stderr, "%s\n", cfsr_error_message());
        return 2;
    }
    for (unsigned i = 0; i < LISTENERS; i++)
        if (open_side(&sides[i], ring, receiver) < 0)
            return 2;
    if (receiver)
        return run_receive(sides, argv + 2, endpoints);
    for (int i = 0; i < endpoints; i++)
        sides[i].count = strtoull(argv[argc - 1], NULL, 10);
    return run_send(sides, argv + 2, endpoints);
}
