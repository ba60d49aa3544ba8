/*
 * test_parts.c - the pieces transports are made of: endpoints, preamble, send queue, receive ring.
 */
#include "transport/receive_ring.h"
#include "transport/send_queue.h"
#include "transport/transport.h"

#include <cfsrepl/error.h>

#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *endpoint, char *host, uint16_t *port)
{
    char scheme[16];

    return cfsr_endpoint_parse(endpoint, scheme, sizeof scheme, host, 64, port);
}

Test(endpoint, parses_hosts_and_ports)
{
    char host[64];
    uint16_t port;

    cr_assert_eq(parse("tcp://192.0.2.1:7400", host, &port), 0);
    cr_assert_str_eq(host, "192.0.2.1");
    cr_assert_eq(port, 7400);
    cr_assert_eq(parse("tcp://[2001:db8::1]:65535", host, &port), 0);
    cr_assert_str_eq(host, "2001:db8::1");
    cr_assert_eq(port, 65535);
    cr_assert_eq(parse("sim://a:0", host, &port), 0);
    cr_assert_str_eq(host, "a");
}

Test(endpoint, refuses_what_is_not_one)
{
    static const char *const bad[] = {
        "",
        "host:1",
        "tcp://",
        "tcp://host",
        "tcp://:1",
        "tcp://h:",
        "tcp://h:65536",
        "tcp://h:-1",
        "tcp://h:1x",
        "tcp://h: 1",
        "tcp://::1:5",
        "tcp://[::1]",
        "tcp://[::1:5",
        "tcp://[]:5",
        "://h:1",
        "tcp://h:123456",
    };
    char host[64];
    uint16_t port;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cfsr_error_clear();
        cr_assert_eq(parse(bad[i], host, &port), -CFSR_E_CONFIG, "%s", bad[i]);
        cr_assert_neq(cfsr_error_message()[0], '\0');
    }
}

Test(registry, finds_transports_by_endpoint_or_scheme)
{
    cr_assert_eq(cfsr_transport_find("tcp"), &cfsr_transport_tcp);
    cr_assert_eq(cfsr_transport_find("tcp://host:1"), &cfsr_transport_tcp);
    cr_assert_eq(cfsr_transport_find("sim://a:1"), &cfsr_transport_sim);
    cr_assert_eq(cfsr_transport_find("null"), &cfsr_transport_null);
    cr_assert_null(cfsr_transport_find("tcpx://host:1"));
    cr_assert_null(cfsr_transport_find("tc"));
    cr_assert_null(cfsr_transport_find(""));
}

Test(preamble, is_stored_as_documented_and_loaded_again)
{
    struct cfsr_preamble preamble = {
        .version = CFSR_PREAMBLE_VERSION, .kind = 1, .target_core = 0x01020304};
    struct cfsr_preamble loaded;
    uint8_t bytes[CFSR_PREAMBLE_BYTES];

    memset(preamble.ticket, 0xab, sizeof preamble.ticket);
    cfsr_preamble_store(&preamble, bytes);
    cr_assert_eq(memcmp(bytes, "CFSRPRE1\x01\x00\x01\x00\x04\x03\x02\x01\xab", 17), 0);
    cr_assert_eq(cfsr_preamble_load(bytes, &loaded), 0);
    cr_assert_eq(memcmp(&loaded, &preamble, sizeof loaded), 0);
}

Test(preamble, refuses_strangers)
{
    struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION};
    struct cfsr_preamble loaded;
    uint8_t bytes[CFSR_PREAMBLE_BYTES];

    cfsr_preamble_store(&preamble, bytes);
    bytes[8]++;
    cr_assert_eq(cfsr_preamble_load(bytes, &loaded), -CFSR_E_VERSION);
    cfsr_preamble_store(&preamble, bytes);
    bytes[0] ^= 1;
    cr_assert_eq(cfsr_preamble_load(bytes, &loaded), -CFSR_E_FORMAT);
    cfsr_preamble_store(&preamble, bytes);
    bytes[10] = 9;
    cr_assert_eq(cfsr_preamble_load(bytes, &loaded), -CFSR_E_FORMAT);
}

static struct cfsr_frame frame_of(const char *a, const char *b, uint64_t cookie)
{
    return (struct cfsr_frame){
        .pieces = {{(void *)(uintptr_t)a, strlen(a)}, {(void *)(uintptr_t)b, strlen(b)}},
        .count = 2,
        .cookie = cookie};
}

/* Sends at most limit bytes of the queue as if the socket had taken them; appends them to text. */
static void send_some(struct cfsr_send_queue *queue, size_t limit, char *text)
{
    struct iovec iov[CFSR_SEND_IOV_MAX];
    size_t bytes;
    unsigned count = cfsr_send_queue_gather(queue, limit, iov, CFSR_SEND_IOV_MAX, &bytes);
    size_t at = strlen(text);

    cr_assert_leq(bytes, limit);
    for (unsigned i = 0; i < count; i++) {
        memcpy(text + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    text[at] = '\0';
    cfsr_send_queue_advance(queue, bytes);
}

Test(send_queue, finishes_the_begun_frame_then_control_then_data)
{
    struct cfsr_send_queue *queue = malloc(sizeof *queue);
    struct cfsr_frame data[] = {frame_of("abc", "def", 1), frame_of("ghi", "", 2)};
    struct cfsr_frame control = frame_of("XY", "Z", 3);
    char text[64] = "";
    uint64_t cookie;

    cfsr_send_queue_init(queue);
    cr_assert_eq(cfsr_send_queue_push(queue, CFSR_STREAM_DATA, data, 2), 2);
    send_some(queue, 4, text);
    cr_assert_eq(cfsr_send_queue_push(queue, CFSR_STREAM_CONTROL, &control, 1), 1);
    cr_assert_not(cfsr_send_queue_pop_sent(queue, false, &cookie));
    send_some(queue, 4, text);
    send_some(queue, 100, text);
    cr_assert_str_eq(text, "abcdefXYZghi");
    cr_assert_eq(cfsr_send_queue_unsent(queue), 0u);
    cr_assert_eq(cfsr_send_queue_unreleased(queue), 3u);
    cr_assert(cfsr_send_queue_pop_sent(queue, false, &cookie) && cookie == 3);
    cr_assert(cfsr_send_queue_pop_sent(queue, false, &cookie) && cookie == 1);
    cr_assert(cfsr_send_queue_pop_sent(queue, false, &cookie) && cookie == 2);
    cr_assert_not(cfsr_send_queue_pop_sent(queue, false, &cookie));
    free(queue);
}

Test(send_queue, frames_pushed_during_a_send_do_not_change_what_was_sent)
{
    struct cfsr_send_queue *queue = malloc(sizeof *queue);
    struct cfsr_frame data = frame_of("data", "", 1);
    struct cfsr_frame control = frame_of("ctl", "", 2);
    struct iovec iov[CFSR_SEND_IOV_MAX];
    size_t bytes;
    uint64_t cookie;

    cfsr_send_queue_init(queue);
    cr_assert_eq(cfsr_send_queue_push(queue, CFSR_STREAM_DATA, &data, 1), 1);
    (void)cfsr_send_queue_gather(queue, 100, iov, CFSR_SEND_IOV_MAX, &bytes);
    cr_assert_eq(cfsr_send_queue_push(queue, CFSR_STREAM_CONTROL, &control, 1), 1);
    cfsr_send_queue_advance(queue, bytes);
    cr_assert(cfsr_send_queue_pop_sent(queue, false, &cookie) && cookie == 1);
    cr_assert_eq(cfsr_send_queue_unsent(queue), 1u);
    free(queue);
}

Test(send_queue, is_bounded_and_owes_writable_once)
{
    struct cfsr_send_queue *queue = malloc(sizeof *queue);
    struct cfsr_frame frame = frame_of("x", "", 0);
    char text[128] = "";
    uint64_t cookie;

    cfsr_send_queue_init(queue);
    for (unsigned i = 0; i < CFSR_SEND_DATA_MAX; i++)
        cr_assert_eq(cfsr_send_queue_push(queue, CFSR_STREAM_DATA, &frame, 1), 1);
    cr_assert_eq(cfsr_send_queue_push(queue, CFSR_STREAM_DATA, &frame, 1), -EAGAIN);
    cr_assert_not(cfsr_send_queue_owes_writable(queue));
    send_some(queue, 1, text);
    cr_assert(cfsr_send_queue_pop_sent(queue, false, &cookie));
    cr_assert(cfsr_send_queue_take_writable(queue));
    cr_assert_not(cfsr_send_queue_take_writable(queue));
    free(queue);
}

Test(receive_ring, small_messages_never_need_a_ring)
{
    uint8_t small[64];
    struct cfsr_receive receive;
    size_t len;

    cfsr_receive_init(&receive, small, sizeof small);
    for (unsigned i = 0; i < 100; i++) {
        (void)cfsr_receive_space(&receive, &len);
        cr_assert_eq(len, 64u);
        cfsr_receive_commit(&receive, 60);
        cfsr_receive_take(&receive, 60);
        cr_assert(cfsr_receive_needs_ring(&receive));
        cfsr_receive_release(&receive, 60);
        cr_assert_not(cfsr_receive_needs_ring(&receive));
        cfsr_receive_rewind(&receive);
    }
}

Test(receive_ring, untaken_bytes_move_and_taken_bytes_stay)
{
    uint8_t small[16];
    uint8_t ring[64];
    struct cfsr_receive receive;
    uint8_t *at;
    size_t len;

    cfsr_receive_init(&receive, small, sizeof small);
    at = cfsr_receive_space(&receive, &len);
    memcpy(at, "takenrest", 9);
    cfsr_receive_commit(&receive, 9);
    cfsr_receive_take(&receive, 5);
    cfsr_receive_attach(&receive, ring, sizeof ring);
    at = cfsr_receive_span(&receive, &len);
    cr_assert(at == ring && len == 4 && memcmp(at, "rest", 4) == 0);
    cr_assert_eq(memcmp(small, "taken", 5), 0);
    cfsr_receive_take(&receive, 4);
    cfsr_receive_release(&receive, 7); /* across both places */
    cr_assert_not(cfsr_receive_ring_is_empty(&receive));
    cfsr_receive_release(&receive, 2);
    cr_assert(cfsr_receive_ring_is_empty(&receive));
    cr_assert_eq(cfsr_receive_detach(&receive), ring);
}
