/*
 * file_blocking.c - the file backend of the library, the tools and the helper threads: system
 * calls on the caller.
 *
 * Thread:     any; a submitted op belongs to the submitting thread and runs at that thread's next
 *             poll.
 * Invariants: done() is never called from submit; ops submitted by a done() run at the poll after
 *             this one, so a poll is bounded.
 * Rejected:   running the op inside submit and only delaying done(): the caller could then fill
 *             the buffer after submit and pass its tests here, and corrupt data on the ring.
 */
#include <stddef.h>

#include <cfsrepl/error.h>
#include "base/assert.h"
#include "core/file_backend.h"

/* Queue through backend[0] of the ops; one per thread. */
static _Thread_local struct cfsr_file_op *pending_first;
static _Thread_local struct cfsr_file_op *pending_last;

static struct cfsr_file_op *op_next(const struct cfsr_file_op *op)
{
    return (struct cfsr_file_op *)(uintptr_t)op->backend[0];
}

static int blocking_submit(struct cfsr_fs *fs, struct cfsr_file_op *op)
{
    struct cfsr_posix_file *file = (struct cfsr_posix_file *)op->file;

    (void)fs;
    op->backend[0] = 0;
    if (pending_first == NULL)
        pending_first = op;
    else
        pending_last->backend[0] = (uint64_t)(uintptr_t)op;
    pending_last = op;
    atomic_fetch_add_explicit(&file->in_flight, 1, memory_order_relaxed);
    return 0;
}

static int32_t run_op(struct cfsr_fs *fs, const struct cfsr_file_op *op)
{
    if (cfsr_file_op_refused(op))
        return -CFSR_E_FAILED;
    switch (op->type) {
    case CFSR_FILE_READ:
        return cfsr_posix_pread(fs, op->file, op->buf, op->len_bytes, op->offset_bytes);
    case CFSR_FILE_WRITE:
    case CFSR_FILE_WRITE_DURABLE:
        return cfsr_posix_pwrite(fs, op->file, op->buf, op->len_bytes, op->offset_bytes,
                                 op->type == CFSR_FILE_WRITE_DURABLE);
    case CFSR_FILE_SYNC: return cfsr_posix_sync(fs, op->file);
    }
    cfsr_assert_failed("known op type", __FILE__, __LINE__, __func__);
}

static unsigned blocking_poll(struct cfsr_fs *fs)
{
    struct cfsr_file_op *op = pending_first;
    unsigned count = 0;

    pending_first = NULL;
    pending_last = NULL;
    while (op != NULL) {
        struct cfsr_file_op *next = op_next(op); /* done() may free or reuse the op */
        int32_t result = run_op(fs, op);

        atomic_fetch_sub_explicit(&((struct cfsr_posix_file *)op->file)->in_flight, 1,
                                  memory_order_relaxed);
        cfsr_file_settle(op, result);
        op = next;
        count++;
    }
    return count;
}

struct cfsr_fs *cfsr_fs_blocking(void)
{
    static const struct cfsr_fs_ops ops = {
        .name = "blocking",
        CFSR_POSIX_FILE_OPS,
        .submit = blocking_submit,
        .poll = blocking_poll,
    };
    static struct cfsr_fs instance = {.ops = &ops};

    return &instance;
}
