/*
 * slab.c - slots of one mapping, and doubly mapped ring buffers.
 *
 * Thread:     owner core.
 * Invariants: a slot is on the free stack exactly when its owner is FREE; free_count + taken =
 *             slots. The free list is a stack: the slot given back last has its bytes in the
 *             cache.
 * Rejected:   MAP_HUGETLB (needs pages set aside by the operator; advice is enough and may fail
 *             silently).
 */
#include "core/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#define FREE UINT32_MAX

struct slot {
    uint32_t owner; /* FREE, or who took it */
    uint32_t generation;
};

struct cfsr_slab {
    uint8_t *base;
    size_t bytes;
    struct slot *slots;
    uint32_t *free_stack;
    uint32_t count;
    uint32_t slot_bytes;
    uint32_t free_count;
    uint32_t low_water;
};

static int map_slots(struct cfsr_slab *slab, bool populate)
{
    void *base = mmap(NULL, slab->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                      0);

    if (base == MAP_FAILED)
        return cfsr_fail(-errno,
                         "cannot map %zu bytes of buffers: lower the buffer sizes or free memory",
                         slab->bytes);
    slab->base = base;
    (void)madvise(base, slab->bytes,
                  MADV_HUGEPAGE); /* advice before the first touch; may be off here */
    (void)madvise(base, slab->bytes,
                  MADV_DONTFORK); /* a child must not share pages the kernel writes to */
    if (populate && madvise(base, slab->bytes, MADV_POPULATE_WRITE) != 0)
        memset(base, 0, slab->bytes); /* kernels before 5.14 */
    return 0;
}

int cfsr_slab_create(const struct cfsr_slab_options *options, struct cfsr_slab **slab_out)
{
    struct cfsr_slab *slab;
    uint32_t i;
    int rc;

    if (options->slots == 0 || options->slot_bytes == 0 ||
        options->slot_bytes % CFSR_SLOT_ALIGN != 0)
        return -EINVAL;
    slab = calloc(1, sizeof *slab);
    if (slab == NULL)
        return -ENOMEM;
    slab->count = options->slots;
    slab->slot_bytes = options->slot_bytes;
    slab->bytes = (size_t)options->slots * options->slot_bytes;
    slab->slots = calloc(slab->count, sizeof *slab->slots);
    slab->free_stack = calloc(slab->count, sizeof *slab->free_stack);
    rc = slab->slots == NULL || slab->free_stack == NULL ? -ENOMEM
                                                         : map_slots(slab, options->populate);
    if (rc < 0) {
        cfsr_slab_destroy(slab);
        return rc;
    }
    for (i = 0; i < slab->count; i++) {
        slab->slots[i].owner = FREE;
        slab->free_stack[i] = slab->count - 1 - i;
    }
    slab->free_count = slab->count;
    slab->low_water = slab->count;
    *slab_out = slab;
    return 0;
}

void cfsr_slab_destroy(struct cfsr_slab *slab)
{
    if (slab == NULL)
        return;
    CFSR_ASSERT(slab->base == NULL || slab->free_count == slab->count);
    if (slab->base != NULL)
        munmap(slab->base, slab->bytes);
    free(slab->slots);
    free(slab->free_stack);
    free(slab);
}

uint32_t cfsr_slab_take(struct cfsr_slab *slab, uint32_t owner)
{
    uint32_t slot;

    CFSR_ASSERT(owner != FREE);
    if (slab->free_count == 0)
        return CFSR_SLOT_NONE;
    slot = slab->free_stack[--slab->free_count];
    if (slab->free_count < slab->low_water)
        slab->low_water = slab->free_count;
    CFSR_ASSERT(slab->slots[slot].owner == FREE);
    slab->slots[slot].owner = owner;
    slab->slots[slot].generation++;
    return slot;
}

void cfsr_slab_give(struct cfsr_slab *slab, uint32_t slot, uint32_t owner)
{
    CFSR_ASSERT(slot < slab->count);
    CFSR_ASSERT(owner != FREE && slab->slots[slot].owner == owner);
    slab->slots[slot].owner = FREE;
    slab->free_stack[slab->free_count++] = slot;
}

void *cfsr_slab_address(const struct cfsr_slab *slab, uint32_t slot)
{
    CFSR_ASSERT(slot < slab->count);
    return slab->base + (size_t)slot * slab->slot_bytes;
}

uint32_t cfsr_slab_generation(const struct cfsr_slab *slab, uint32_t slot)
{
    CFSR_ASSERT(slot < slab->count);
    return slab->slots[slot].generation;
}

bool cfsr_slab_is_current(const struct cfsr_slab *slab, uint32_t slot, uint32_t generation)
{
    return slot < slab->count && slab->slots[slot].owner != FREE &&
           slab->slots[slot].generation == generation;
}

uint32_t cfsr_slab_owned(const struct cfsr_slab *slab, uint32_t owner)
{
    uint32_t i, count = 0;

    for (i = 0; i < slab->count; i++)
        count += slab->slots[i].owner == owner ? 1 : 0;
    return count;
}

uint32_t cfsr_slab_free_count(const struct cfsr_slab *slab)
{
    return slab->free_count;
}
uint32_t cfsr_slab_low_water(const struct cfsr_slab *slab)
{
    return slab->low_water;
}
void *cfsr_slab_base(const struct cfsr_slab *slab)
{
    return slab->base;
}
size_t cfsr_slab_bytes(const struct cfsr_slab *slab)
{
    return slab->bytes;
}

static int make_mirror(size_t size_bytes, int how, struct cfsr_mirror *mirror_out)
{
    const int prot = PROT_READ | PROT_WRITE;
    uint8_t *base;
    int fd, rc = 0;

    if (!cfsr_is_power_of_two(size_bytes) || size_bytes < (size_t)sysconf(_SC_PAGESIZE))
        return -EINVAL;
    fd = memfd_create("cfsr-mirror", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size_bytes) != 0) {
        rc = -errno;
        goto close_fd;
    }
    /* One reservation of twice the size keeps the place; the two views then go over it. */
    base = mmap(NULL, 2 * size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        rc = -errno;
        goto close_fd;
    }
    if (mmap(base, size_bytes, prot, how, fd, 0) == MAP_FAILED ||
        mmap(base + size_bytes, size_bytes, prot, how, fd, 0) == MAP_FAILED) {
        rc = -errno;
        munmap(base, 2 * size_bytes);
        goto close_fd;
    }
    mirror_out->base = base;
    mirror_out->size_bytes = size_bytes;

close_fd:
    close(fd);
    return rc;
}

int cfsr_mirror_create(size_t size_bytes, struct cfsr_mirror *mirror_out)
{
    return make_mirror(size_bytes, MAP_SHARED | MAP_FIXED | MAP_POPULATE, mirror_out);
}

int cfsr_mirror_create_lazy(size_t size_bytes, struct cfsr_mirror *mirror_out)
{
    return make_mirror(size_bytes, MAP_SHARED | MAP_FIXED, mirror_out);
}

void cfsr_mirror_destroy(struct cfsr_mirror *mirror)
{
    if (mirror->base != NULL)
        munmap(mirror->base, 2 * mirror->size_bytes);
    *mirror = (struct cfsr_mirror){0};
}
