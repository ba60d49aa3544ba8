/*
 * stages_io.c - stages that move the compressed blocks: loopback TCP and durable writes.
 *
 * The socket stage forks a receiver that only receives. Files were written in full before and are
 * written round and round.
 */
#include "bench/stages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "bench/pair.h"

#define FILE_BYTES  (128u << 20)
#define WRITE_BYTES (1u << 20)
#define RECV_BYTES  (1u << 20)

/* ---- loopback TCP ---- */

struct socket_shared {
    double send_gb_per_s, send_s_per_gb, receive_s_per_gb;
    uint32_t message_bytes;
};

static int send_side(int socket, void *argument, void *shared)
{
    struct stage_set *set = argument;
    struct socket_shared *result = shared;
    uint64_t began_ns = cfsr_clock_monotonic_ns(), bytes = 0;
    uint64_t until_ns = began_ns + set->settings->stage_us * 1000;
    double cpu_s = bench_cpu_self_s();
    size_t at = 0;
    int rc;

    do {
        /* From all over the sample, as compressed batches lie in many slots. */
        rc = bench_send_all(socket, set->memory + at, result->message_bytes);
        at = at + 2 * result->message_bytes > set->memory_bytes ? 0 : at + result->message_bytes;
        bytes += result->message_bytes;
    } while (rc == 0 && cfsr_clock_monotonic_ns() < until_ns);
    result->send_gb_per_s = (double)bytes / (double)(cfsr_clock_monotonic_ns() - began_ns);
    result->send_s_per_gb = (bench_cpu_self_s() - cpu_s) / ((double)bytes / 1e9);
    return rc;
}

static int receive_side(int socket, void *argument, void *shared)
{
    struct socket_shared *result = shared;
    uint8_t *buffer = bench_map(RECV_BYTES, false);
    double cpu_s = bench_cpu_self_s();
    uint64_t bytes = 0;
    ssize_t got;

    (void)argument;
    if (buffer == NULL)
        return -ENOMEM;
    while ((got = recv(socket, buffer, RECV_BYTES, 0)) > 0)
        bytes += (uint64_t)got;
    result->receive_s_per_gb = (bench_cpu_self_s() - cpu_s) / ((double)bytes / 1e9);
    return got < 0 ? -errno : 0;
}

static int run_messages(struct stage_set *set, struct socket_shared *shared, uint32_t message_bytes)
{
    struct bench_series speed = {0}, send = {0}, receive = {0};
    char name[64];

    for (uint32_t run = 0; run <= set->settings->runs; run++) {
        int rc;

        shared->message_bytes = message_bytes;
        rc = bench_pair_run(set->settings, send_side, receive_side, set, shared);
        if (rc < 0)
            return rc;
        if (run == 0)
            continue;
        bench_series_add(&speed, shared->send_gb_per_s);
        bench_series_add(&send, shared->send_s_per_gb);
        bench_series_add(&receive, shared->receive_s_per_gb);
    }
    snprintf(name, sizeof name, "loopback, sends of %u KiB", message_bytes >> 10);
    bench_report_series(set->report, name, "GB/s", &speed);
    snprintf(name, sizeof name, "sends of %u KiB, processor of the sender", message_bytes >> 10);
    bench_report_series(set->report, name, "s/GB", &send);
    snprintf(name, sizeof name, "sends of %u KiB, processor of the receiver", message_bytes >> 10);
    bench_report_series(set->report, name, "s/GB", &receive);
    return 0;
}

int stage_run_socket(struct stage_set *set)
{
    static const uint32_t sizes[] = {64u << 10, 256u << 10};
    struct socket_shared *shared = bench_map(sizeof *shared, true);
    int rc = shared == NULL ? -ENOMEM : 0;

    bench_report_section(set->report, "stages: loopback TCP", "per byte sent; a process a side");
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(sizes) && rc >= 0; i++)
        rc = run_messages(set, shared, sizes[i]);
    bench_unmap(shared, sizeof *shared);
    return rc;
}

/* ---- durable writes ---- */

struct file_stage {
    int fd;
    bool direct;
    uint32_t write_bytes;
    uint64_t at;
};

static int write_once(struct stage_set *set, struct stage_block *block, void *context)
{
    struct file_stage *stage = context;
    struct iovec piece = {.iov_base = set->scratch, .iov_len = stage->write_bytes};

    (void)block;
    if (stage->at + stage->write_bytes > FILE_BYTES)
        stage->at = 0;
    if (pwritev2(stage->fd, &piece, 1, (off_t)stage->at, stage->direct ? RWF_DSYNC : 0) !=
        (ssize_t)stage->write_bytes)
        return cfsr_fail(-EIO, "cannot write the stage's file");
    if (!stage->direct && fdatasync(stage->fd) != 0)
        return -errno;
    stage->at += stage->write_bytes;
    return (int)stage->write_bytes;
}

static int run_file(struct stage_set *set, const char *name, uint32_t write_bytes, bool direct)
{
    struct file_stage stage = {.direct = direct, .write_bytes = write_bytes};
    char path[CFSR_PATH_MAX];
    int rc = bench_work_path(set->settings, "stage-output", path, sizeof path);

    if (rc < 0)
        return rc;
    stage.fd = bench_open_recycled(path, FILE_BYTES, direct ? O_DIRECT : 0);
    if (stage.fd < 0)
        return stage.fd;
    rc = stage_measure(set, name, write_once, &stage);
    close(stage.fd);
    return rc;
}

int stage_run_files(struct stage_set *set)
{
    int rc;

    bench_report_section(
        set->report, "stages: durable writes",
        "per byte written, to a file written in full before; one thread, one write at a time");
    rc = run_file(set, "write + fdatasync, 256 KiB", 256u << 10, false);
    if (rc >= 0)
        rc = run_file(set, "write + fdatasync, 1 MiB", WRITE_BYTES, false);
    if (rc >= 0)
        rc = run_file(set, "O_DIRECT + DSYNC, 256 KiB", 256u << 10, true);
    if (rc >= 0)
        rc = run_file(set, "O_DIRECT + DSYNC, 1 MiB", WRITE_BYTES, true);
    return rc;
}
