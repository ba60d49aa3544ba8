/* faulty.c - see faulty.h. */
#include "faulty.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"

struct faulty_file {
    struct cfsr_file file;
    struct cfsr_file *inner;
    bool of_lane;   /* a segment or spare */
    bool is_repair; /* repair.lock */
    bool failed;    /* a sync of it was made to fail */
};

static struct faulty_fs *faulty_of(struct cfsr_fs *fs)
{
    return (struct faulty_fs *)fs;
}

static struct cfsr_fs *real(void)
{
    return cfsr_fs_blocking();
}

static struct cfsr_file *inner(struct cfsr_file *file)
{
    return ((struct faulty_file *)file)->inner;
}

static int faulty_open(struct cfsr_fs *fs, const char *path, unsigned flags,
                       struct cfsr_file **file_out)
{
    struct faulty_file *file = calloc(1, sizeof *file);
    int rc;

    CFSR_ASSERT(file != NULL);
    rc = cfsr_file_open(real(), path, flags, &file->inner);
    if (rc < 0) {
        free(file);
        return rc;
    }
    file->file.fs = fs;
    file->of_lane = strstr(path, ".seg") != NULL || strstr(path, "/spare.") != NULL;
    file->is_repair = strstr(path, "repair.lock") != NULL;
    *file_out = &file->file;
    return 0;
}

static void faulty_close(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    cfsr_file_close(inner(file));
    free(file);
}

static int faulty_size(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t *bytes_out)
{
    (void)fs;
    return cfsr_file_size(inner(file), bytes_out);
}

static uint32_t faulty_alignment(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    return cfsr_file_alignment(inner(file));
}

static bool is_bad(struct faulty_fs *faulty, const struct cfsr_file *file, uint64_t offset,
                   uint32_t len)
{
    uint64_t begin = atomic_load(&faulty->bad_offset), end = atomic_load(&faulty->bad_end);

    return ((const struct faulty_file *)file)->of_lane && offset < end && offset + len > begin;
}

static int faulty_pread(struct cfsr_fs *fs, struct cfsr_file *file, void *buf, uint32_t len,
                        uint64_t offset)
{
    if (is_bad(faulty_of(fs), file, offset, len))
        return -EIO;
    return cfsr_file_pread(inner(file), buf, len, offset);
}

static int ordered(struct cfsr_file *file, atomic_int *rc)
{
    return ((struct faulty_file *)file)->of_lane ? atomic_load(rc) : 0;
}

static void count_use(struct faulty_fs *faulty, struct cfsr_file *file)
{
    if (((struct faulty_file *)file)->failed)
        atomic_fetch_add(&faulty->resync_count, 1);
}

static void pass_gate(struct faulty_fs *faulty, const struct cfsr_file *file)
{
    if (!((const struct faulty_file *)file)->of_lane)
        return;
    atomic_fetch_add(&faulty->at_gate, 1);
    while (atomic_load(&faulty->gate_closed))
        (void)usleep(1000);
    atomic_fetch_sub(&faulty->at_gate, 1);
}

static int faulty_pwrite(struct cfsr_fs *fs, struct cfsr_file *file, const void *buf, uint32_t len,
                         uint64_t offset, bool durable)
{
    struct faulty_fs *faulty = faulty_of(fs);
    int rc = ordered(file, &faulty->write_rc);

    count_use(faulty, file);
    if (durable)
        pass_gate(faulty, file);
    if (rc == 0 && durable)
        rc = ordered(file, &faulty->sync_rc);
    if (rc < 0)
        return rc;
    if (is_bad(faulty, file, offset, len)) {
        if (offset > atomic_load(&faulty->bad_offset) ||
            offset + len < atomic_load(&faulty->bad_end))
            return -EIO; /* the rest of the block would have to be read first */
        atomic_store(&faulty->bad_end, 0);
    }
    return cfsr_file_pwrite(inner(file), buf, len, offset, durable);
}

static int faulty_sync(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct faulty_fs *faulty = faulty_of(fs);
    int rc = ordered(file, &faulty->sync_rc);

    count_use(faulty, file);
    pass_gate(faulty, file);
    if (rc < 0) {
        ((struct faulty_file *)file)->failed = true;
        atomic_fetch_add(&faulty->sync_count, 1);
        return rc;
    }
    return cfsr_file_sync(inner(file));
}

static int faulty_allocate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t offset,
                           uint64_t len)
{
    int rc = ordered(file, &faulty_of(fs)->allocate_rc);

    return rc < 0 ? rc : cfsr_file_allocate(inner(file), offset, len);
}

static int faulty_truncate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len)
{
    (void)fs;
    return cfsr_file_truncate(inner(file), len);
}

static int faulty_lock(struct cfsr_fs *fs, struct cfsr_file *file)
{
    int rc = ((struct faulty_file *)file)->is_repair ? atomic_load(&faulty_of(fs)->lock_rc) : 0;

    return rc < 0 ? rc : cfsr_file_lock(inner(file));
}

static int faulty_rename(struct cfsr_fs *fs, const char *from, const char *to)
{
    (void)fs;
    return real()->ops->rename(real(), from, to);
}

static int faulty_unlink(struct cfsr_fs *fs, const char *path)
{
    (void)fs;
    return real()->ops->unlink(real(), path);
}

static int faulty_mkdir(struct cfsr_fs *fs, const char *path)
{
    (void)fs;
    return real()->ops->mkdir(real(), path);
}

static int faulty_sync_dir(struct cfsr_fs *fs, const char *path)
{
    (void)fs;
    return real()->ops->sync_dir(real(), path);
}

static int faulty_list(struct cfsr_fs *fs, const char *path,
                       int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user)
{
    (void)fs;
    return real()->ops->list(real(), path, visit, user);
}

static int faulty_space(struct cfsr_fs *fs, const char *path, uint64_t *free_out,
                        uint64_t *total_out)
{
    (void)fs;
    return real()->ops->space(real(), path, free_out, total_out);
}

void faulty_fs_init(struct faulty_fs *faulty)
{
    memset(faulty, 0, sizeof *faulty);
    faulty->ops = (struct cfsr_fs_ops){
        .name = "faulty",
        .open = faulty_open,
        .close = faulty_close,
        .size = faulty_size,
        .alignment = faulty_alignment,
        .pread = faulty_pread,
        .pwrite = faulty_pwrite,
        .sync = faulty_sync,
        .allocate = faulty_allocate,
        .truncate = faulty_truncate,
        .lock = faulty_lock,
        .rename = faulty_rename,
        .unlink = faulty_unlink,
        .mkdir = faulty_mkdir,
        .sync_dir = faulty_sync_dir,
        .list = faulty_list,
        .space = faulty_space,
    };
    faulty->fs.ops = &faulty->ops;
}
