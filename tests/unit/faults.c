/* faults.c - see faults.h. */
#include "faults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

/* ---- allocations ---- */

static _Thread_local unsigned allocations_left;
static _Thread_local bool allocation_failed;

void test_fail_allocation(unsigned n)
{
    allocations_left = n;
    allocation_failed = false;
}

bool test_allocation_failed(void)
{
    return allocation_failed;
}

static bool allocation_fails(void)
{
    if (allocations_left == 0 || --allocations_left > 0)
        return false;
    allocation_failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
int __real_posix_memalign(void **memory_out, size_t alignment, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
int __wrap_posix_memalign(void **memory_out, size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return allocation_fails() ? NULL : __real_realloc(old, size);
}

int __wrap_posix_memalign(void **memory_out, size_t alignment, size_t size)
{
    return allocation_fails() ? ENOMEM : __real_posix_memalign(memory_out, alignment, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return allocation_fails() ? NULL : __real_aligned_alloc(alignment, size);
}

/* ---- the file seam ---- */

struct faulty_file {
    struct cfsr_file file; /* first */
    struct cfsr_file *inner;
};

static struct test_faults *faults_of(struct cfsr_fs *fs)
{
    return CFSR_CONTAINER_OF(fs, struct test_faults, fs);
}

static struct cfsr_file *inner_of(struct cfsr_file *file)
{
    return CFSR_CONTAINER_OF(file, struct faulty_file, file)->inner;
}

static bool call_fails(struct test_faults *faults)
{
    unsigned left = atomic_load(&faults->countdown);

    if (faults->forever && atomic_load(&faults->fired))
        return true;
    while (left > 0 && !atomic_compare_exchange_weak(&faults->countdown, &left, left - 1))
        ;
    if (left != 1)
        return false;
    atomic_store(&faults->fired, true);
    return true;
}

#define PASS(call)                             \
    do {                                       \
        struct test_faults *f = faults_of(fs); \
        if (call_fails(f))                     \
            return f->rc;                      \
        return f->inner->ops->call;            \
    } while (0)

static int faulty_open(struct cfsr_fs *fs, const char *path, unsigned flags,
                       struct cfsr_file **file_out)
{
    struct test_faults *faults = faults_of(fs);
    struct faulty_file *file;
    int rc;

    if (call_fails(faults))
        return faults->rc;
    file = __real_calloc(1, sizeof *file);
    CFSR_ASSERT(file != NULL);
    rc = faults->inner->ops->open(faults->inner, path, flags, &file->inner);
    if (rc < 0) {
        free(file);
        return rc;
    }
    file->file.fs = fs;
    *file_out = &file->file;
    return 0;
}

static void faulty_close(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct test_faults *faults = faults_of(fs);

    faults->inner->ops->close(faults->inner, inner_of(file));
    free(CFSR_CONTAINER_OF(file, struct faulty_file, file));
}

static int faulty_size(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t *bytes_out)
{
    PASS(size(f->inner, inner_of(file), bytes_out));
}

static uint32_t faulty_alignment(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct test_faults *faults = faults_of(fs);

    return faults->inner->ops->alignment(faults->inner, inner_of(file));
}

static int faulty_pread(struct cfsr_fs *fs, struct cfsr_file *file, void *buf, uint32_t len,
                        uint64_t offset)
{
    struct test_faults *faults = faults_of(fs);
    bool fails = call_fails(faults);

    if (fails && !faults->short_reads)
        return faults->rc;
    return faults->inner->ops->pread(faults->inner, inner_of(file), buf, fails ? len / 2 : len,
                                     offset);
}

static int faulty_pwrite(struct cfsr_fs *fs, struct cfsr_file *file, const void *buf, uint32_t len,
                         uint64_t offset, bool durable)
{
    PASS(pwrite(f->inner, inner_of(file), buf, len, offset, durable));
}

static int faulty_sync(struct cfsr_fs *fs, struct cfsr_file *file)
{
    PASS(sync(f->inner, inner_of(file)));
}

static int faulty_allocate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t offset,
                           uint64_t len)
{
    PASS(allocate(f->inner, inner_of(file), offset, len));
}

static int faulty_truncate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len)
{
    PASS(truncate(f->inner, inner_of(file), len));
}

static int faulty_lock(struct cfsr_fs *fs, struct cfsr_file *file)
{
    PASS(lock(f->inner, inner_of(file)));
}

static int faulty_rename(struct cfsr_fs *fs, const char *from, const char *to)
{
    PASS(rename(f->inner, from, to));
}

static int faulty_unlink(struct cfsr_fs *fs, const char *path)
{
    PASS(unlink(f->inner, path));
}

static int faulty_mkdir(struct cfsr_fs *fs, const char *path)
{
    PASS(mkdir(f->inner, path));
}

static int faulty_sync_dir(struct cfsr_fs *fs, const char *path)
{
    PASS(sync_dir(f->inner, path));
}

static int faulty_list(struct cfsr_fs *fs, const char *path,
                       int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user)
{
    PASS(list(f->inner, path, visit, user));
}

static int faulty_space(struct cfsr_fs *fs, const char *path, uint64_t *free_out,
                        uint64_t *total_out)
{
    PASS(space(f->inner, path, free_out, total_out));
}

static int faulty_submit(struct cfsr_fs *fs, struct cfsr_file_op *op)
{
    (void)fs;
    (void)op;
    return -ENOTSUP; /* what is tested through this seam is synchronous */
}

static unsigned faulty_poll(struct cfsr_fs *fs)
{
    (void)fs;
    return 0;
}

struct cfsr_fs *test_faults_init(struct test_faults *faults, struct cfsr_fs *inner)
{
    static const struct cfsr_fs_ops ops = {
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
        .submit = faulty_submit,
        .poll = faulty_poll,
    };

    memset(faults, 0, sizeof *faults);
    faults->fs.ops = &ops;
    faults->inner = inner;
    return &faults->fs;
}

void test_faults_arm(struct test_faults *faults, unsigned n, int rc)
{
    atomic_store(&faults->countdown, 0);
    faults->rc = rc;
    atomic_store(&faults->fired, false);
    atomic_store(&faults->countdown, n);
}
