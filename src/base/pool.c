/*
 * pool.c - fixed pool of equal objects.
 *
 * Thread: the owner's. Everything is allocated by create; the free list is a stack of slot numbers,
 * so the object given back last, still in the cache, is taken next. Invariants: a slot is on the
 * free stack exactly once or taken; its generation grows by one at every give. Rejected: a free
 * list inside the objects (a write after give would break the list, not just the object).
 */
#include "base/pool.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

struct pool_slot {
    uint32_t generation;
    bool taken;
};

struct cfsr_pool {
    uint8_t *objects;
    struct pool_slot *slots;
    uint32_t *free_stack; /* free_count slot numbers */
    size_t object_bytes;
    size_t stride_bytes; /* object_bytes rounded up to whole cache lines, or to 16 when smaller than
                            one */
    uint32_t count;
    uint32_t free_count;
    uint32_t low_water;
};

static size_t stride_of(size_t object_bytes)
{
    return (size_t)cfsr_align_up(object_bytes,
                                 object_bytes < CFSR_CACHE_LINE ? 16 : CFSR_CACHE_LINE);
}

static void pool_free(struct cfsr_pool *pool)
{
    free(pool->objects);
    free(pool->slots);
    free(pool->free_stack);
    free(pool);
}

int cfsr_pool_create(size_t object_bytes, uint32_t count, struct cfsr_pool **pool_out)
{
    struct cfsr_pool *pool;
    size_t stride_bytes;

    if (object_bytes == 0 || count == 0 || object_bytes > SIZE_MAX / 2 / count - CFSR_CACHE_LINE)
        return cfsr_fail(-EINVAL, "a pool of %u objects of %zu bytes is not possible", count,
                         object_bytes);
    stride_bytes = stride_of(object_bytes);
    pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        goto no_memory;
    pool->objects = aligned_alloc(CFSR_CACHE_LINE,
                                  (size_t)cfsr_align_up(stride_bytes * count, CFSR_CACHE_LINE));
    pool->slots = calloc(count, sizeof *pool->slots);
    pool->free_stack = calloc(count, sizeof *pool->free_stack);
    if (pool->objects == NULL || pool->slots == NULL || pool->free_stack == NULL)
        goto free_pool;
    pool->object_bytes = object_bytes;
    pool->stride_bytes = stride_bytes;
    pool->count = count;
    pool->free_count = count;
    pool->low_water = count;
    /* Also takes the pages from the system now and not on the data path. */
    memset(pool->objects, 0, stride_bytes * count);
    for (uint32_t i = 0; i < count; i++) {
        pool->slots[i].generation = 1; /* 0 never names an object */
        pool->free_stack[i] = count - 1 - i;
    }
    *pool_out = pool;
    return 0;

free_pool:
    pool_free(pool);
no_memory:
    return cfsr_fail(-ENOMEM, "no memory for a pool of %u objects of %zu bytes", count,
                     object_bytes);
}

void cfsr_pool_destroy(struct cfsr_pool *pool)
{
    if (pool == NULL)
        return;
    CFSR_ASSERT(pool->free_count == pool->count);
    pool_free(pool);
}

static uint32_t slot_of(const struct cfsr_pool *pool, const void *object)
{
    uintptr_t offset = (uintptr_t)object - (uintptr_t)pool->objects;

    CFSR_ASSERT((uintptr_t)object >= (uintptr_t)pool->objects);
    CFSR_ASSERT(offset % pool->stride_bytes == 0 && offset / pool->stride_bytes < pool->count);
    return (uint32_t)(offset / pool->stride_bytes);
}

void *cfsr_pool_take(struct cfsr_pool *pool)
{
    uint32_t slot;
    uint8_t *object;

    if (pool->free_count == 0)
        return NULL;
    slot = pool->free_stack[--pool->free_count];
    if (pool->free_count < pool->low_water)
        pool->low_water = pool->free_count;
    CFSR_ASSERT(!pool->slots[slot].taken);
    pool->slots[slot].taken = true;
    object = pool->objects + (size_t)slot * pool->stride_bytes;
    memset(object, 0, pool->object_bytes);
    return object;
}

void cfsr_pool_give(struct cfsr_pool *pool, void *object)
{
    uint32_t slot = slot_of(pool, object);

    CFSR_ASSERT(pool->slots[slot].taken);
    pool->slots[slot].taken = false;
    if (++pool->slots[slot].generation == 0)
        pool->slots[slot].generation = 1;
    pool->free_stack[pool->free_count++] = slot;
}

uint32_t cfsr_pool_generation(const struct cfsr_pool *pool, const void *object)
{
    return pool->slots[slot_of(pool, object)].generation;
}

uint32_t cfsr_pool_free_count(const struct cfsr_pool *pool)
{
    return pool->free_count;
}

uint32_t cfsr_pool_low_water(const struct cfsr_pool *pool)
{
    return pool->low_water;
}
