/*
 * file_backend.h - what the backends of the file seam share; private to src/core.
 *
 * The posix functions are the synchronous half of both real backends (blocking and ring): plain
 * system calls on the calling thread, posix errors as -errno, with a message for the operator on
 * the cold paths.
 */
#ifndef CFSR_CORE_FILE_BACKEND_H
#define CFSR_CORE_FILE_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"

/* An open file of the blocking and of the ring backend. */
struct cfsr_posix_file {
    struct cfsr_file file; /* first: the seam's pointer is this pointer */
    int fd;
    uint32_t alignment;         /* 1 unless O_DIRECT is in effect */
    _Atomic uint32_t in_flight; /* submitted ops that have not completed; 0 at close */
};

/* True if a write or sync came for a file that has failed meanwhile (for ops queued before the
 * failure). */
bool cfsr_file_op_refused(const struct cfsr_file_op *op);
/* Ends an op: marks the file failed if a promise of durability broke, sets result, calls done(). */
void cfsr_file_settle(struct cfsr_file_op *op, int32_t result);

int cfsr_posix_open(struct cfsr_fs *fs, const char *path, unsigned flags,
                    struct cfsr_file **file_out);
void cfsr_posix_close(struct cfsr_fs *fs, struct cfsr_file *file);
int cfsr_posix_size(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t *bytes_out);
uint32_t cfsr_posix_alignment(struct cfsr_fs *fs, struct cfsr_file *file);
int cfsr_posix_pread(struct cfsr_fs *fs, struct cfsr_file *file, void *buf, uint32_t len_bytes,
                     uint64_t offset_bytes);
int cfsr_posix_pwrite(struct cfsr_fs *fs, struct cfsr_file *file, const void *buf,
                      uint32_t len_bytes, uint64_t offset_bytes, bool durable);
int cfsr_posix_sync(struct cfsr_fs *fs, struct cfsr_file *file);
int cfsr_posix_allocate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t offset_bytes,
                        uint64_t len_bytes);
int cfsr_posix_truncate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len_bytes);
int cfsr_posix_lock(struct cfsr_fs *fs, struct cfsr_file *file);
int cfsr_posix_rename(struct cfsr_fs *fs, const char *from, const char *to);
int cfsr_posix_unlink(struct cfsr_fs *fs, const char *path);
int cfsr_posix_mkdir(struct cfsr_fs *fs, const char *path);
int cfsr_posix_sync_dir(struct cfsr_fs *fs, const char *path);
int cfsr_posix_list(struct cfsr_fs *fs, const char *path,
                    int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user);
int cfsr_posix_space(struct cfsr_fs *fs, const char *path, uint64_t *free_out, uint64_t *total_out);

/* The synchronous slots of a table, for both real backends. */
#define CFSR_POSIX_FILE_OPS                                                                    \
    .open = cfsr_posix_open, .close = cfsr_posix_close, .size = cfsr_posix_size,               \
    .alignment = cfsr_posix_alignment, .pread = cfsr_posix_pread, .pwrite = cfsr_posix_pwrite, \
    .sync = cfsr_posix_sync, .allocate = cfsr_posix_allocate, .truncate = cfsr_posix_truncate, \
    .lock = cfsr_posix_lock, .rename = cfsr_posix_rename, .unlink = cfsr_posix_unlink,         \
    .mkdir = cfsr_posix_mkdir, .sync_dir = cfsr_posix_sync_dir, .list = cfsr_posix_list,       \
    .space = cfsr_posix_space

#endif
