/*
 * malloc_count.c - counts heap calls of a program it is preloaded into:
 * LD_PRELOAD=libcfsr-malloc-count.so.
 *
 * The counts go to the file named by CFSR_MALLOC_COUNT_FILE (4 KiB; two u64 in host order: calls by
 * the daemon's core threads, which are told by their names, and by all others), which is mapped, so
 * that another process can watch it while the program runs. Counted are malloc, calloc, realloc,
 * reallocarray, posix_memalign, aligned_alloc, memalign and free of a pointer that is not NULL;
 * each passes on to the C library's own. Rejected: dlsym(RTLD_NEXT) (it allocates itself, before
 * there is anything to pass on to), a debugger's breakpoints (a thousand times slower).
 *
 * Thread: any; a relaxed atomic add each.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* glibc's own names for its functions, there for this use. */
extern void *__libc_malloc(size_t len_bytes);
extern void *__libc_calloc(size_t count, size_t len_bytes);
extern void *__libc_realloc(void *memory, size_t len_bytes);
extern void *__libc_memalign(size_t align, size_t len_bytes);
extern void __libc_free(void *memory);

#define CORE_NAME "cfsr-core-"

struct counts {
    _Atomic uint64_t core, other;
};

static struct counts early; /* calls before the file is mapped */
static _Atomic(struct counts *) current = &early;

__attribute__((constructor)) static void map_counts(void)
{
    const char *path = getenv("CFSR_MALLOC_COUNT_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *map;

    if (fd < 0)
        return;
    map = mmap(NULL, sizeof early, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        atomic_store(&current, (struct counts *)map);
}

/* The name is asked for in each call: threads get theirs after they began, and calls are meant to
 * be rare. */
static void count_call(void)
{
    struct counts *counts = atomic_load_explicit(&current, memory_order_relaxed);
    char name[16] = "";
    _Atomic uint64_t *counter = &counts->other;

    if (prctl(PR_GET_NAME, name) == 0 && strncmp(name, CORE_NAME, sizeof CORE_NAME - 1) == 0)
        counter = &counts->core;
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void *malloc(size_t len_bytes)
{
    count_call();
    return __libc_malloc(len_bytes);
}

void *calloc(size_t count, size_t len_bytes)
{
    count_call();
    return __libc_calloc(count, len_bytes);
}

void *realloc(void *memory, size_t len_bytes)
{
    count_call();
    return __libc_realloc(memory, len_bytes);
}

void *reallocarray(void *memory, size_t count, size_t len_bytes)
{
    size_t total;

    count_call();
    if (__builtin_mul_overflow(count, len_bytes, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(memory, total);
}

int posix_memalign(void **memory_out, size_t align, size_t len_bytes)
{
    void *memory;

    count_call();
    memory = __libc_memalign(align, len_bytes);
    if (memory == NULL)
        return ENOMEM;
    *memory_out = memory;
    return 0;
}

void *aligned_alloc(size_t align, size_t len_bytes)
{
    count_call();
    return __libc_memalign(align, len_bytes);
}

void *memalign(size_t align, size_t len_bytes)
{
    count_call();
    return __libc_memalign(align, len_bytes);
}

void free(void *memory)
{
    if (memory == NULL)
        return;
    count_call();
    __libc_free(memory);
}
