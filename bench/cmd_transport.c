/*
 * cmd_transport.c - `transport`: frames through the transport table, and nothing around it.
 *
 * tcp: two processes, each with a ring and a group, as two cores of two daemons. Throughput:
 * --depth frames of --frame-size handed over at any time, from memory larger than the caches; the
 * receiver takes and releases whole frames. Round trips: a frame of 176 bytes there and back. rdma:
 * the same, with --rdma ADDRESS. null: one process; what is left is the framework. System calls are
 * the ring's enters, per MiB carried.
 *
 * Thread: the only one of each process. Clocks are read by A; B's figures are its whole life, which
 * is the run.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "bench/bench.h"
#include "bench/pair.h"
#include "core/ring.h"
#include "core/timer.h"
#include "transport/transport.h"

#define POLL_BUDGET       256
#define WAIT_NS           10000000ull
#define PING_BYTES        176
#define FRAME_MAX_BYTES   (1u << 20)
#define RECV_RING_BYTES   (4u << 20)
#define SEND_GATHER_BYTES (256u << 10)
#define MEMORY_BYTES      (32u << 20)
#define DIAL_NS           5000000000ull

struct transport_run {
    const struct bench_settings *settings;
    const char *scheme;
    const char *listen; /* endpoint of side B */
    bool ping;
    struct bench_samples *samples;
};

struct transport_shared {
    double gb_per_s, cpu_a_s_per_gb, cpu_b_s_per_gb, frames_per_s;
    double enters_a_per_mib, enters_b_per_mib, doorbells_per_mib;
    size_t sample_count;
};

/* One process's end of the connection. */
struct end {
    const struct transport_run *run;
    const struct cfsr_transport *transport;
    struct cfsr_ring *ring;
    struct cfsr_timers timers;
    struct cfsr_group *group;
    struct cfsr_conn *conn;
    uint8_t *memory;
    uint32_t frame_bytes;
    size_t at;       /* of the next frame in memory */
    uint32_t queued; /* frames the transport holds */
    bool connected, closed, echo;
    uint64_t frames_sent, bytes_received, replies;
    int reason;
};

static void on_connected(void *user, struct cfsr_conn *conn)
{
    struct end *end = user;

    end->conn = conn;
    end->connected = true;
}

/* One frame of the next frame_bytes in memory; true if it was taken. */
static bool put_frame(struct end *end)
{
    struct cfsr_frame frame = {.count = 2, .cookie = 1};
    uint32_t head = end->frame_bytes / 4 < 256 ? end->frame_bytes / 4 : 256;

    frame.pieces[0] = (struct iovec){.iov_base = end->memory + end->at, .iov_len = head};
    frame.pieces[1] = (struct iovec){.iov_base = end->memory + end->at + head,
                                     .iov_len = end->frame_bytes - head};
    if (end->transport->send(end->conn, CFSR_STREAM_DATA, &frame, 1) < 1)
        return false;
    end->queued++;
    end->frames_sent++;
    end->at += cfsr_align_up(end->frame_bytes, CFSR_CACHE_LINE);
    if (end->at + end->frame_bytes > MEMORY_BYTES)
        end->at = 0;
    return true;
}

static size_t on_data(void *user, struct cfsr_conn *conn, uint8_t *span, size_t len_bytes)
{
    struct end *end = user;
    size_t taken = len_bytes - len_bytes % end->frame_bytes;

    (void)span;
    if (taken == 0)
        return 0;
    end->bytes_received += taken;
    end->replies += taken / end->frame_bytes;
    end->transport->recv_release(conn, taken);
    for (size_t i = 0; end->echo && i < taken / end->frame_bytes; i++)
        (void)put_frame(end);
    return taken;
}

static void on_sent(void *user, struct cfsr_conn *conn, uint64_t cookie)
{
    struct end *end = user;

    (void)conn;
    (void)cookie;
    end->queued--;
}

static void on_writable(void *user, struct cfsr_conn *conn)
{
    (void)user;
    (void)conn;
}

static void on_closed(void *user, struct cfsr_conn *conn, int reason)
{
    struct end *end = user;

    (void)conn;
    end->closed = true;
    end->reason = reason;
}

static const struct cfsr_conn_events events = {.on_connected = on_connected,
                                               .on_data = on_data,
                                               .on_sent = on_sent,
                                               .on_writable = on_writable,
                                               .on_closed = on_closed};

static int end_open(struct end *end, const struct transport_run *run, uint32_t cpu)
{
    struct cfsr_ring_options ring = {.cpu = (int)cpu};
    struct cfsr_group_options group = {.opts_size = sizeof group,
                                       .conns_max = 2,
                                       .frame_max_bytes = FRAME_MAX_BYTES,
                                       .recv_ring_bytes = RECV_RING_BYTES,
                                       .recv_rings_max = 2,
                                       .send_gather_bytes = SEND_GATHER_BYTES};
    int rc;

    *end = (struct end){.run = run,
                        .transport = cfsr_transport_find(run->scheme),
                        .frame_bytes = run->ping ? PING_BYTES : run->settings->frame_bytes};
    end->memory = bench_map(MEMORY_BYTES, false);
    if (end->transport == NULL || end->memory == NULL)
        return cfsr_fail(-ENOTSUP, "no memory or no transport %s", run->scheme);
    memset(end->memory, 'f', MEMORY_BYTES);
    rc = cfsr_ring_create(&ring, &end->ring);
    if (rc < 0)
        return rc;
    cfsr_timers_init(&end->timers);
    group.ring = end->ring;
    group.timers = &end->timers;
    rc = end->transport->group_create(&group, &end->group);
    if (rc < 0)
        return rc;
    return end->transport->memory_register(end->group, end->memory, MEMORY_BYTES);
}

static void end_close(struct end *end)
{
    end->transport->group_destroy(end->group);
    cfsr_ring_destroy(end->ring);
    bench_unmap(end->memory, MEMORY_BYTES);
}

/* One turn of a core: submit and reap, upcalls, timers, gathered sends. */
static int end_turn(struct end *end, bool *idle)
{
    bool may_wait = *idle && strcmp(end->run->scheme, "null") != 0 &&
                    end->transport->arm(end->group) == 0;
    int rc = cfsr_ring_submit_and_reap(end->ring, may_wait ? WAIT_NS : 0);
    unsigned work;

    if (rc < 0)
        return rc;
    work = end->transport->poll(end->group, POLL_BUDGET);
    (void)cfsr_timers_expire(&end->timers, cfsr_clock_monotonic_ns());
    end->transport->flush(end->group);
    *idle = work == 0;
    return 0;
}

static uint64_t enters(const struct end *end)
{
    return cfsr_counter_get(&cfsr_ring_stats(end->ring)->counters[CFSR_CORE_COUNTER_enters]);
}

/* A: dials, and waits for the link. */
static int dial(struct end *end, const char *endpoint)
{
    struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION};
    bool idle = false;
    int rc = end->transport->connect(end->group, endpoint, &preamble, DIAL_NS, &events, end,
                                     &end->conn);

    while (rc >= 0 && !end->connected && !end->closed)
        rc = end_turn(end, &idle);
    return rc < 0        ? rc
           : end->closed ? cfsr_fail(-ECONNREFUSED, "cannot connect to %s", endpoint)
                         : 0;
}

static int close_link(struct end *end)
{
    bool idle = false;
    int rc = 0;

    end->transport->close(end->conn, true);
    while (rc >= 0 && !end->closed)
        rc = end_turn(end, &idle);
    return rc;
}

static int send_frames(struct end *end, struct transport_shared *shared)
{
    uint64_t began_ns = cfsr_clock_monotonic_ns(), elapsed_ns, entered = enters(end);
    double cpu_s = bench_cpu_self_s(), bytes;
    struct cfsr_transport_stats stats;
    bool idle = false;
    int rc = 0;

    do {
        while (end->queued < end->run->settings->depth && put_frame(end))
            ;
        end->transport->flush(end->group);
        rc = end_turn(end, &idle);
        elapsed_ns = cfsr_clock_monotonic_ns() - began_ns;
    } while (rc >= 0 && !end->closed && elapsed_ns < end->run->settings->stage_us * 1000);
    bytes = (double)end->frames_sent * end->frame_bytes;
    shared->gb_per_s = bytes / (double)elapsed_ns;
    shared->frames_per_s = (double)end->frames_sent / ((double)elapsed_ns / 1e9);
    shared->cpu_a_s_per_gb = (bench_cpu_self_s() - cpu_s) / (bytes / 1e9);
    shared->enters_a_per_mib = (double)(enters(end) - entered) / (bytes / (1u << 20));
    end->transport->stats(end->group, &stats);
    shared->doorbells_per_mib = (double)stats.doorbells / (bytes / (1u << 20));
    return end->closed ? cfsr_fail(-ECONNRESET, "the connection was lost") : rc;
}

static int ping_frames(struct end *end, struct transport_shared *shared)
{
    uint32_t warm_up = end->run->settings->pings / 10, total = end->run->settings->pings + warm_up;
    int rc = 0;

    for (uint32_t i = 0; i < total && rc >= 0 && !end->closed; i++) {
        uint64_t began_ns = cfsr_clock_monotonic_ns();
        bool idle = false;

        (void)put_frame(end);
        end->transport->flush(end->group);
        while (rc >= 0 && !end->closed && end->replies <= i)
            rc = end_turn(end, &idle);
        if (i >= warm_up)
            end->run->samples->ns[shared->sample_count++] = cfsr_clock_monotonic_ns() - began_ns;
    }
    return end->closed ? cfsr_fail(-ECONNRESET, "the connection was lost") : rc;
}

static int side_a(int socket, void *argument, void *shared)
{
    const struct transport_run *run = argument;
    char endpoint[CFSR_ENDPOINT_MAX];
    struct end end;
    int rc = end_open(&end, run, run->settings->cpu_a);

    if (rc >= 0)
        rc = bench_recv_all(socket, endpoint, sizeof endpoint);
    if (rc >= 0)
        rc = dial(&end, endpoint);
    if (rc >= 0)
        rc = run->ping ? ping_frames(&end, shared) : send_frames(&end, shared);
    if (rc >= 0)
        rc = close_link(&end);
    if (rc >= 0)
        end_close(&end);
    return rc;
}

/* B: listens, tells A where, takes its connection. */
static int take_connection(struct end *end, int socket)
{
    char endpoint[CFSR_ENDPOINT_MAX] = {0};
    struct cfsr_listener *listener;
    struct cfsr_incoming *incoming;
    struct cfsr_preamble preamble;
    int rc = end->transport->listen(end->run->listen, NULL, &listener);

    if (rc < 0)
        return rc;
    snprintf(endpoint, sizeof endpoint, "%s", end->transport->listener_endpoint(listener));
    rc = bench_send_all(socket, endpoint, sizeof endpoint);
    while (rc >= 0) {
        struct pollfd ready = {.fd = end->transport->listener_fd(listener), .events = POLLIN};

        (void)poll(&ready, 1, 100);
        rc = end->transport->listener_accept(listener, cfsr_clock_monotonic_ns(), &incoming,
                                             &preamble);
        if (rc >= 0) {
            rc = end->transport->accept(end->group, incoming, &events, end, &end->conn);
            break;
        }
        rc = rc == -EAGAIN ? 0 : rc;
    }
    end->transport->listener_close(listener);
    return rc;
}

static int side_b(int socket, void *argument, void *shared)
{
    const struct transport_run *run = argument;
    struct transport_shared *result = shared;
    uint64_t entered = 0;
    bool idle = false;
    double cpu_s = 0;
    struct end end;
    int rc = end_open(&end, run, run->settings->cpu_b);

    end.echo = run->ping;
    if (rc >= 0)
        rc = take_connection(&end, socket);
    if (rc >= 0) {
        entered = enters(&end);
        cpu_s = bench_cpu_self_s();
    }
    while (rc >= 0 && !end.closed)
        rc = end_turn(&end, &idle);
    if (rc < 0)
        return rc;
    if (end.bytes_received > 0 && !run->ping) {
        result->cpu_b_s_per_gb = (bench_cpu_self_s() - cpu_s) / ((double)end.bytes_received / 1e9);
        result->enters_b_per_mib = (double)(enters(&end) - entered) /
                                   ((double)end.bytes_received / (1u << 20));
    }
    end_close(&end);
    return 0;
}

static int run_null(const struct transport_run *run, struct transport_shared *shared)
{
    struct end end;
    int rc = end_open(&end, run, run->settings->cpu_a);

    if (rc >= 0)
        rc = dial(&end, "null://nowhere:1");
    if (rc >= 0)
        rc = send_frames(&end, shared);
    if (rc >= 0)
        rc = close_link(&end);
    if (rc >= 0)
        end_close(&end);
    return rc;
}

static int measure_stream(struct transport_run *run, struct bench_report *report,
                          struct transport_shared *shared)
{
    struct bench_series speed = {0}, cpu_a = {0}, cpu_b = {0}, enters_a = {0}, enters_b = {0};
    struct bench_series doorbells = {0};
    bool rdma = strcmp(run->scheme, "rdma") == 0;
    char note[96];

    for (uint32_t i = 0; i <= run->settings->runs; i++) {
        int rc = bench_pair_run(run->settings, side_a, side_b, run, shared);

        if (rc < 0)
            return rc;
        if (i == 0)
            continue;
        bench_series_add(&speed, shared->gb_per_s);
        bench_series_add(&cpu_a, shared->cpu_a_s_per_gb);
        bench_series_add(&cpu_b, shared->cpu_b_s_per_gb);
        bench_series_add(&enters_a, shared->enters_a_per_mib);
        bench_series_add(&enters_b, shared->enters_b_per_mib);
        bench_series_add(&doorbells, shared->doorbells_per_mib);
    }
    snprintf(note, sizeof note, "frames of %u bytes, %u handed over at a time; per byte carried",
             run->settings->frame_bytes, run->settings->depth);
    bench_report_section(report, rdma ? "transport: rdma" : "transport: tcp", note);
    bench_report_series(report, "throughput", "GB/s", &speed);
    bench_report_series(report, "processor time, sender", "s/GB", &cpu_a);
    bench_report_series(report, "processor time, receiver", "s/GB", &cpu_b);
    bench_report_series(report, "system calls, sender", "/MiB", &enters_a);
    bench_report_series(report, "system calls, receiver", "/MiB", &enters_b);
    if (rdma)
        bench_report_series(report, "doorbells", "/MiB", &doorbells);
    return 0;
}

static int measure_ping(struct transport_run *run, struct bench_report *report,
                        struct transport_shared *shared)
{
    struct bench_series p50 = {0}, p99 = {0};
    struct bench_samples samples;
    int rc = bench_samples_init(&samples, run->settings->pings);

    run->ping = true;
    run->samples = &samples;
    for (uint32_t i = 0; i < run->settings->runs && rc >= 0; i++) {
        shared->sample_count = 0;
        rc = bench_pair_run(run->settings, side_a, side_b, run, shared);
        samples.count = shared->sample_count;
        bench_samples_sort(&samples);
        bench_series_add(&p50, bench_samples_percentile_us(&samples, 50));
        bench_series_add(&p99, bench_samples_percentile_us(&samples, 99));
    }
    run->ping = false;
    if (samples.ns != NULL)
        bench_samples_fini(&samples);
    if (rc < 0)
        return rc;
    bench_report_section(report,
                         strcmp(run->scheme, "rdma") == 0 ? "transport: rdma round trips"
                                                          : "transport: tcp round trips",
                         "a frame of 176 bytes there and back; both sleep in their rings");
    bench_report_series(report, "p50", "us", &p50);
    bench_report_series(report, "p99", "us", &p99);
    return 0;
}

static int measure_null(struct transport_run *run, struct bench_report *report,
                        struct transport_shared *shared)
{
    struct bench_series speed = {0};

    run->scheme = "null";
    bench_pin(run->settings->cpu_a);
    for (uint32_t i = 0; i <= run->settings->runs; i++) {
        int rc = run_null(run, shared);

        if (rc < 0) {
            bench_unpin();
            return rc;
        }
        if (i > 0)
            bench_series_add(&speed, shared->frames_per_s / 1e6);
    }
    bench_unpin();
    bench_report_section(report, "transport: null",
                         "nothing is carried: what the table and the turns cost");
    bench_report_series(report, "frames", "M/s", &speed);
    return 0;
}

/* Where there is a device and its address was given. */
static int measure_rdma(struct transport_run *run, struct bench_report *report,
                        struct transport_shared *shared)
{
    char endpoint[CFSR_ENDPOINT_MAX];
    int rc;

    if (run->settings->rdma_address[0] == '\0')
        return 0;
    if (cfsr_transport_find("rdma") == NULL)
        return cfsr_rdma_probe(NULL, endpoint, sizeof endpoint);
    snprintf(endpoint, sizeof endpoint, "rdma://%s:0", run->settings->rdma_address);
    run->scheme = "rdma";
    run->listen = endpoint;
    rc = measure_stream(run, report, shared);
    return rc < 0 ? rc : measure_ping(run, report, shared);
}

int bench_transport(const struct bench_settings *settings, struct bench_report *report)
{
    struct transport_run run = {
        .settings = settings, .scheme = "tcp", .listen = "tcp://127.0.0.1:0"};
    struct transport_shared *shared = bench_map(sizeof *shared, true);
    int rc = shared == NULL ? -ENOMEM : 0;

    bench_report_progress(report, "transport");
    if (rc >= 0)
        rc = measure_stream(&run, report, shared);
    if (rc >= 0)
        rc = measure_ping(&run, report, shared);
    if (rc >= 0)
        rc = measure_rdma(&run, report, shared);
    if (rc >= 0)
        rc = measure_null(&run, report, shared);
    bench_report_progress(report, "");
    bench_unmap(shared, sizeof *shared);
    return rc;
}
