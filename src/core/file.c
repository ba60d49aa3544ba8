/*
 * file.c - the wrappers of the file seam: the rules every backend shares, said once.
 *
 * Thread:     as the backend of the file.
 * Invariants: a file whose sync or durable write failed takes no further write or sync; the flag
 *             is set here for the synchronous calls and through cfsr_file_settle() by the backends
 *             for submitted ones.
 * Rejected:   retrying a failed fdatasync: the kernel drops the dirty state of a page it could not
 *             write, so the second call says "durable" about bytes that are lost.
 */
#include "core/file.h"

#include <errno.h>

#include "base/assert.h"
#include "base/fail.h"
#include "core/file_backend.h"

/* The blocking backend serves many threads: the flag is read and set without a lock. */
static bool file_has_failed(const struct cfsr_file *file)
{
    return __atomic_load_n(&file->failed, __ATOMIC_RELAXED);
}

static void file_mark_failed(struct cfsr_file *file)
{
    __atomic_store_n(&file->failed, true, __ATOMIC_RELAXED);
}

static int refuse(void)
{
    return cfsr_fail(-CFSR_E_FAILED,
                     "an earlier sync of this file failed, so it takes no more writes: "
                     "check the disk, then restart so that the file is verified again");
}

static bool op_changes_file(enum cfsr_file_op_type type)
{
    return type != CFSR_FILE_READ;
}

static bool op_promises_durability(enum cfsr_file_op_type type)
{
    return type == CFSR_FILE_WRITE_DURABLE || type == CFSR_FILE_SYNC;
}

bool cfsr_file_op_refused(const struct cfsr_file_op *op)
{
    return op_changes_file(op->type) && file_has_failed(op->file);
}

void cfsr_file_settle(struct cfsr_file_op *op, int32_t result)
{
    if (result < 0 && op_promises_durability(op->type))
        file_mark_failed(op->file);
    op->result = result;
    op->done(op);
}

int cfsr_file_open(struct cfsr_fs *fs, const char *path, unsigned flags,
                   struct cfsr_file **file_out)
{
    struct cfsr_file *file;
    int rc;

    CFSR_ASSERT((flags & (CFSR_OPEN_READ | CFSR_OPEN_WRITE)) != 0);
    rc = fs->ops->open(fs, path, flags, &file);
    if (rc < 0)
        return rc;
    CFSR_ASSERT(file->fs == fs && !file->failed);
    *file_out = file;
    return 0;
}

void cfsr_file_close(struct cfsr_file *file)
{
    if (file != NULL)
        file->fs->ops->close(file->fs, file);
}

int cfsr_file_size(struct cfsr_file *file, uint64_t *bytes_out)
{
    return file->fs->ops->size(file->fs, file, bytes_out);
}

uint32_t cfsr_file_alignment(struct cfsr_file *file)
{
    return file->fs->ops->alignment(file->fs, file);
}

int cfsr_file_pread(struct cfsr_file *file, void *buf, uint32_t len_bytes, uint64_t offset_bytes)
{
    CFSR_ASSERT(len_bytes <= INT32_MAX);
    return file->fs->ops->pread(file->fs, file, buf, len_bytes, offset_bytes);
}

int cfsr_file_pwrite(struct cfsr_file *file, const void *buf, uint32_t len_bytes,
                     uint64_t offset_bytes, bool durable)
{
    int rc;

    CFSR_ASSERT(len_bytes <= INT32_MAX);
    if (file_has_failed(file))
        return refuse();
    rc = file->fs->ops->pwrite(file->fs, file, buf, len_bytes, offset_bytes, durable);
    if (rc < 0 && durable)
        file_mark_failed(file);
    return rc;
}

int cfsr_file_sync(struct cfsr_file *file)
{
    int rc;

    if (file_has_failed(file))
        return refuse();
    rc = file->fs->ops->sync(file->fs, file);
    if (rc < 0)
        file_mark_failed(file);
    return rc;
}

int cfsr_file_allocate(struct cfsr_file *file, uint64_t offset_bytes, uint64_t len_bytes)
{
    if (file_has_failed(file))
        return refuse();
    return file->fs->ops->allocate(file->fs, file, offset_bytes, len_bytes);
}

int cfsr_file_truncate(struct cfsr_file *file, uint64_t len_bytes)
{
    if (file_has_failed(file))
        return refuse();
    return file->fs->ops->truncate(file->fs, file, len_bytes);
}

int cfsr_file_lock(struct cfsr_file *file)
{
    return file->fs->ops->lock(file->fs, file);
}

int cfsr_fs_submit(struct cfsr_fs *fs, struct cfsr_file_op *op)
{
    CFSR_ASSERT(op->file != NULL && op->file->fs == fs);
    CFSR_ASSERT(op->done != NULL);
    CFSR_ASSERT(op->len_bytes <= INT32_MAX);
    if (cfsr_file_op_refused(op))
        return -CFSR_E_FAILED;
    return fs->ops->submit(fs, op);
}

unsigned cfsr_fs_poll(struct cfsr_fs *fs)
{
    return fs->ops->poll(fs);
}
