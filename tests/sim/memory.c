/*
 * memory.c - what the processes of the simulator do about their memory (cluster.h).
 *
 * Thread:     one a process.
 * Invariants: memory of cores is used again from one start to the next, of any site and any seed:
 *             what was given back last is taken first. All have one size, large enough for every
 *             plan, and cost what is touched.
 * Rejected:   the heap (it grows around blocks of that size); the exact size (one of an earlier
 *             plan seldom fits, and all are kept); large pages (clearing them costs more than the
 *             faults that they save).
 */
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "cluster.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENAS_KEPT 0
#else
#define ARENAS_KEPT 64
#endif
#define ARENA_BYTES (128ull << 20)
static struct {
    uint8_t *base;
    uint64_t bytes;
} kept[ARENAS_KEPT + 1];
static unsigned kept_count;

uint8_t *cluster_arena_take(uint64_t bytes, uint64_t *bytes_out)
{
    void *base;

    if (kept_count > 0 && kept[kept_count - 1].bytes >= bytes) {
        *bytes_out = kept[--kept_count].bytes;
        return kept[kept_count].base;
    }
    *bytes_out = ARENAS_KEPT > 0 ? cfsr_max_u64(bytes, ARENA_BYTES) : bytes;
    if (ARENAS_KEPT == 0)
        return aligned_alloc(4096, bytes); /* its end is watched */
    base = mmap(NULL, *bytes_out, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

void cluster_arena_give(uint8_t *base, uint64_t bytes)
{
    if (base == NULL)
        return;
#if ARENAS_KEPT > 0
    if (kept_count < ARENAS_KEPT) {
        kept[kept_count].base = base;
        kept[kept_count++].bytes = bytes;
        return;
    }
    (void)munmap(base, bytes);
#else
    (void)bytes;
    free(base);
#endif
}

void cluster_keep_memory(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
    (void)mallopt(M_TOP_PAD, 16 << 20);
}
