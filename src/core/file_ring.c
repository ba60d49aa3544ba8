/*
 * file_ring.c - files through io_uring.
 *
 * Thread:     owner of the ring.
 * Invariants: an op completes once, with all its bytes, an end of file or an error: short results
 *             and retries are continued here. A sync is only ever sent for writes that have
 *             completed; ordering a write before its sync by links or drain does not survive a
 *             short write, so it is not offered.
 * Rejected:   fixed files (one table more to keep in step with open and close, for a gain below
 *             the noise here).
 */
#include "core/file_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "core/file_backend.h"
#include "core/ring.h"

#define RETRIES_MAX 1000u /* of one op, in a row, on -EAGAIN and -EINTR */

struct ring_fs {
    struct cfsr_fs fs;
    struct cfsr_ring *ring;
    unsigned completed; /* since the last poll */
};

/* What an op in flight needs, in its backend words. */
struct flight {
    struct cfsr_ring_op op;
    uint64_t enters_at_submit;
    uint32_t moved_bytes;
    uint16_t retries;
    bool sync_after; /* the file system has no durable write: sync when all bytes are written */
    bool is_syncing;
};

_Static_assert(sizeof(struct flight) <= sizeof(((struct cfsr_file_op *)0)->backend),
               "the state of an op in flight fits its backend words");

static struct flight *flight_of(struct cfsr_file_op *op)
{
    return (struct flight *)(void *)op->backend;
}

static struct ring_fs *ring_fs_of(const struct cfsr_file_op *op)
{
    return (struct ring_fs *)op->file->fs;
}

static uint64_t enters(struct cfsr_ring *ring)
{
    return cfsr_counter_get(&cfsr_ring_stats(ring)->counters[CFSR_CORE_COUNTER_enters]);
}

static void prepare_transfer(const struct cfsr_file_op *op, struct io_uring_sqe *sqe,
                             bool has_buffers)
{
    const struct flight *flight = (const struct flight *)(const void *)op->backend;
    int fd = ((struct cfsr_posix_file *)op->file)->fd;
    char *buf = (char *)op->buf + flight->moved_bytes;
    uint32_t len_bytes = op->len_bytes - flight->moved_bytes;
    uint64_t offset_bytes = op->offset_bytes + flight->moved_bytes;
    bool fixed = has_buffers && op->buffer_index != CFSR_BUFFER_UNREGISTERED;

    if (op->type == CFSR_FILE_READ) {
        if (fixed)
            io_uring_prep_read_fixed(sqe, fd, buf, len_bytes, offset_bytes, op->buffer_index);
        else
            io_uring_prep_read(sqe, fd, buf, len_bytes, offset_bytes);
        return;
    }
    if (fixed)
        io_uring_prep_write_fixed(sqe, fd, buf, len_bytes, offset_bytes, op->buffer_index);
    else
        io_uring_prep_write(sqe, fd, buf, len_bytes, offset_bytes);
    if (op->type == CFSR_FILE_WRITE_DURABLE && !flight->sync_after)
        sqe->rw_flags = RWF_DSYNC;
}

static void queue_op(struct cfsr_file_op *op)
{
    struct cfsr_ring *ring = ring_fs_of(op)->ring;
    struct flight *flight = flight_of(op);
    struct io_uring_sqe *sqe = cfsr_ring_sqe(ring, &flight->op);

    if (flight->is_syncing)
        io_uring_prep_fsync(sqe, ((struct cfsr_posix_file *)op->file)->fd, IORING_FSYNC_DATASYNC);
    else
        prepare_transfer(op, sqe, cfsr_ring_has_buffers(ring));
    flight->enters_at_submit = enters(ring);
}

static void count_submit(struct cfsr_core_stats *stats, enum cfsr_file_op_type type)
{
    if (type == CFSR_FILE_READ)
        cfsr_core_count(stats, file_reads, 1);
    else if (type == CFSR_FILE_SYNC)
        cfsr_core_count(stats, file_syncs, 1);
    else
        cfsr_core_count(stats, file_writes, 1);
}

static void settle(struct cfsr_file_op *op, int32_t result)
{
    struct ring_fs *fs = ring_fs_of(op);
    struct cfsr_core_stats *stats = cfsr_ring_stats(fs->ring);

    if (result > 0) {
        if (op->type == CFSR_FILE_READ)
            cfsr_core_count(stats, read_bytes, (uint64_t)result);
        else
            cfsr_core_count(stats, written_bytes, (uint64_t)result);
    }
    fs->completed++;
    atomic_fetch_sub_explicit(&((struct cfsr_posix_file *)op->file)->in_flight, 1,
                              memory_order_relaxed);
    cfsr_file_settle(op, result);
}

static void go_on(struct cfsr_file_op *op)
{
    if (cfsr_file_op_refused(op)) {
        settle(op, -CFSR_E_FAILED);
        return;
    }
    cfsr_core_count(cfsr_ring_stats(ring_fs_of(op)->ring), file_continued, 1);
    queue_op(op);
}

static void handle_error(struct cfsr_file_op *op, int32_t error)
{
    struct flight *flight = flight_of(op);

    if ((error == -EAGAIN || error == -EINTR) && flight->retries < RETRIES_MAX) {
        flight->retries++;
        go_on(op);
        return;
    }
    if (error == -EOPNOTSUPP && op->type == CFSR_FILE_WRITE_DURABLE && !flight->sync_after) {
        flight->sync_after = true;
        go_on(op);
        return;
    }
    settle(op, error);
}

static void handle_moved(struct cfsr_file_op *op, uint32_t moved_bytes)
{
    struct flight *flight = flight_of(op);
    uint32_t alignment = ((struct cfsr_posix_file *)op->file)->alignment;

    CFSR_ASSERT(moved_bytes <= op->len_bytes - flight->moved_bytes);
    flight->retries = 0;
    flight->moved_bytes += moved_bytes;
    if (flight->moved_bytes < op->len_bytes) {
        /* A read that ends off the direct grid met the end of the file; going on would be -EINVAL.
         */
        if (op->type == CFSR_FILE_READ &&
            (moved_bytes == 0 || flight->moved_bytes % alignment != 0))
            settle(op, (int32_t)flight->moved_bytes);
        else if (moved_bytes == 0)
            settle(op, -EIO);
        else
            go_on(op);
        return;
    }
    if (flight->sync_after) {
        flight->is_syncing = true;
        cfsr_core_count(cfsr_ring_stats(ring_fs_of(op)->ring), file_syncs, 1);
        queue_op(op);
        return;
    }
    settle(op, (int32_t)flight->moved_bytes);
}

static void ring_done(struct cfsr_ring_op *ring_op, int32_t res, uint32_t cqe_flags)
{
    struct flight *flight = CFSR_CONTAINER_OF(ring_op, struct flight, op);
    struct cfsr_file_op *op = CFSR_CONTAINER_OF(flight, struct cfsr_file_op, backend);
    struct cfsr_ring *ring = ring_fs_of(op)->ring;

    (void)cqe_flags;
    if (enters(ring) > flight->enters_at_submit + 1)
        cfsr_core_count(cfsr_ring_stats(ring), file_deferred, 1);
    if (res < 0)
        handle_error(op, res);
    else if (flight->is_syncing)
        settle(op, op->type == CFSR_FILE_SYNC ? 0 : (int32_t)flight->moved_bytes);
    else
        handle_moved(op, (uint32_t)res);
}

static int ring_submit(struct cfsr_fs *fs, struct cfsr_file_op *op)
{
    struct cfsr_ring *ring = ((struct ring_fs *)fs)->ring;
    struct flight *flight = flight_of(op);

    memset(flight, 0, sizeof *flight);
    flight->op.done = ring_done;
    flight->is_syncing = op->type == CFSR_FILE_SYNC;
    flight->sync_after = op->type == CFSR_FILE_WRITE_DURABLE &&
                         (cfsr_ring_capabilities(ring) & CFSR_RING_CAN_WRITE_DSYNC) == 0;
    atomic_fetch_add_explicit(&((struct cfsr_posix_file *)op->file)->in_flight, 1,
                              memory_order_relaxed);
    count_submit(cfsr_ring_stats(ring), op->type);
    queue_op(op);
    return 0;
}

static unsigned ring_poll(struct cfsr_fs *fs)
{
    struct ring_fs *ring_fs = (struct ring_fs *)fs;

    ring_fs->completed = 0;
    /* A broken ring completes nothing more; its owner sees the error at its own next reap. */
    (void)cfsr_ring_submit_and_reap(ring_fs->ring, 0);
    return ring_fs->completed;
}

struct cfsr_fs *cfsr_fs_ring_create(struct cfsr_ring *ring)
{
    static const struct cfsr_fs_ops ops = {
        .name = "ring",
        CFSR_POSIX_FILE_OPS,
        .submit = ring_submit,
        .poll = ring_poll,
    };
    struct ring_fs *fs = calloc(1, sizeof *fs);

    if (fs == NULL)
        return NULL;
    fs->fs.ops = &ops;
    fs->ring = ring;
    return &fs->fs;
}

void cfsr_fs_ring_destroy(struct cfsr_fs *fs)
{
    free(fs);
}

void cfsr_fs_ring_adopt(struct cfsr_fs *fs, struct cfsr_file *file)
{
    CFSR_ASSERT(file->fs == cfsr_fs_blocking());
    CFSR_ASSERT(atomic_load_explicit(&((struct cfsr_posix_file *)file)->in_flight,
                                     memory_order_relaxed) == 0);
    file->fs = fs;
}
