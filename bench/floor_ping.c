/*
 * floor_ping.c - the floor of latency: one record made durable at A, sent, made durable at B,
 * acknowledged.
 *
 * A and B are processes on their processors, blocking calls only, one record in flight. A record
 * has 176 bytes.
 */
#include "bench/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fail.h"
#include "bench/pair.h"

#define RECORD_BYTES 176
#define BLOCK_BYTES  4096
#define FILE_BYTES   (32u << 20)

struct ping_run {
    const struct bench_settings *settings;
    enum bench_ping_write write;
    uint32_t total;
    struct bench_samples *samples; /* shared memory inside */
    char path[2][CFSR_PATH_MAX];
};

struct ping_shared {
    size_t count;
};

struct ping_file {
    int fd;
    enum bench_ping_write write;
    uint64_t at;
    uint8_t *block;
};

static int file_open(const struct ping_run *run, unsigned side, struct ping_file *file)
{
    *file = (struct ping_file){
        .fd = -1, .write = run->write, .block = bench_map(BLOCK_BYTES, false)};
    if (file->block == NULL)
        return -ENOMEM;
    memset(file->block, 'r', BLOCK_BYTES);
    if (run->write == BENCH_PING_APPEND)
        file->fd = open(run->path[side], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    else
        file->fd = bench_open_recycled(run->path[side], FILE_BYTES,
                                       run->write == BENCH_PING_DIRECT ? O_DIRECT : 0);
    return file->fd < 0 ? cfsr_fail(-errno, "cannot open %s", run->path[side]) : 0;
}

/* Makes one record durable. */
static int file_put(struct ping_file *file)
{
    if (file->write == BENCH_PING_DIRECT) {
        struct iovec piece = {.iov_base = file->block, .iov_len = BLOCK_BYTES};

        /* Records gather in a block: the block they stand in is written again. */
        if (pwritev2(file->fd, &piece, 1, (off_t)(file->at / BLOCK_BYTES * BLOCK_BYTES),
                     RWF_DSYNC) != BLOCK_BYTES)
            return -EIO;
    } else {
        if (pwrite(file->fd, file->block, RECORD_BYTES, (off_t)file->at) != RECORD_BYTES)
            return -EIO;
        if (fdatasync(file->fd) != 0)
            return -errno;
    }
    file->at += RECORD_BYTES;
    if (file->write != BENCH_PING_APPEND && file->at + BLOCK_BYTES > FILE_BYTES)
        file->at = 0;
    return 0;
}

static int ping_a(int socket, void *argument, void *shared)
{
    const struct ping_run *run = argument;
    struct ping_shared *result = shared;
    struct ping_file file;
    int rc = file_open(run, 0, &file);

    for (uint32_t i = 0; i < run->total && rc >= 0; i++) {
        uint64_t began_ns = cfsr_clock_monotonic_ns();
        uint8_t ack;

        rc = file_put(&file);
        if (rc >= 0)
            rc = bench_send_all(socket, file.block, RECORD_BYTES);
        if (rc >= 0)
            rc = bench_recv_all(socket, &ack, sizeof ack);
        if (i >= run->total - run->settings->pings)
            run->samples->ns[result->count++] = cfsr_clock_monotonic_ns() - began_ns;
        if (run->settings->gap_us > 0)
            bench_sleep_us(run->settings->gap_us);
    }
    return rc;
}

static int ping_b(int socket, void *argument, void *shared)
{
    const struct ping_run *run = argument;
    struct ping_file file;
    uint8_t record[RECORD_BYTES], ack = 1;
    int rc = file_open(run, 1, &file);

    (void)shared;
    for (uint32_t i = 0; i < run->total && rc >= 0; i++) {
        rc = bench_recv_all(socket, record, sizeof record);
        if (rc >= 0)
            rc = file_put(&file);
        if (rc >= 0)
            rc = bench_send_all(socket, &ack, sizeof ack);
    }
    return rc;
}

int bench_ping_run(const struct bench_settings *settings, enum bench_ping_write write,
                   struct bench_samples *samples_out)
{
    struct ping_run run = {.settings = settings,
                           .write = write,
                           .samples = samples_out,
                           .total = settings->pings + settings->pings / 10};
    struct ping_shared *shared;
    int rc = bench_samples_init(samples_out, settings->pings);

    if (rc < 0)
        return rc;
    rc = bench_work_path(settings, write == BENCH_PING_APPEND ? "ping-append-a" : "ping-recycled-a",
                         run.path[0], sizeof run.path[0]);
    if (rc >= 0)
        rc = bench_work_path(settings,
                             write == BENCH_PING_APPEND ? "ping-append-b" : "ping-recycled-b",
                             run.path[1], sizeof run.path[1]);
    if (rc < 0)
        goto fini_samples;
    shared = bench_map(sizeof *shared, true);
    if (shared == NULL) {
        rc = -ENOMEM;
        goto fini_samples;
    }
    rc = bench_pair_run(settings, ping_a, ping_b, &run, shared);
    samples_out->count = shared->count;
    bench_unmap(shared, sizeof *shared);
    if (rc < 0)
        goto fini_samples;
    bench_samples_sort(samples_out);
    return 0;

fini_samples:
    bench_samples_fini(samples_out);
    return rc;
}
