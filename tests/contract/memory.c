/*
 * memory.c - frames of the contract tests: from the heap, so that a use after on_sent is seen, or,
 * for transports that send from registered memory only, from one mapping both groups know.
 */
#include "contract.h"

#include "base/bytes.h"

#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct pool {
    size_t bytes;
    unsigned count;
};
/* Enough of each that the queue of a connection, not this, is what fills up. */
static const struct pool pools[] = {{72 * 1024, 128}, {264 * 1024, 96}, {1284 * 1024, 24}};

#define BUFFERS 248

struct contract_memory {
    uint8_t *base;
    size_t bytes;
    struct {
        uint8_t *at;
        size_t bytes;
        bool taken;
    } buffers[BUFFERS];
};

void contract_memory_create(struct contract_world *world)
{
    struct contract_memory *memory;
    unsigned n = 0;
    size_t at = 0;

    if ((world->transport->caps & CFSR_TRANSPORT_REGISTERED) == 0)
        return;
    memory = calloc(1, sizeof *memory);
    cr_assert_not_null(memory);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(pools); i++)
        memory->bytes += pools[i].bytes * pools[i].count;
    memory->base = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0);
    cr_assert_neq(memory->base, MAP_FAILED);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(pools); i++) {
        for (unsigned k = 0; k < pools[i].count; k++) {
            cr_assert_lt(n, (unsigned)BUFFERS);
            memory->buffers[n].at = memory->base + at;
            memory->buffers[n++].bytes = pools[i].bytes;
            at += pools[i].bytes;
        }
    }
    world->memory = memory;
}

void contract_memory_destroy(struct contract_world *world)
{
    if (world->memory == NULL)
        return;
    munmap(world->memory->base, world->memory->bytes);
    free(world->memory);
}

void contract_memory_register(struct contract_world *world, enum contract_side side)
{
    if (world->memory == NULL)
        return;
    cr_assert_eq(world->transport->memory_register(world->group[side], world->memory->base,
                                                   world->memory->bytes),
                 0, "%s", cfsr_error_message());
}

void *contract_memory_take(struct contract_world *world, size_t len)
{
    struct contract_memory *memory = world->memory;

    if (memory == NULL) {
        void *buffer = malloc(len);
        cr_assert_not_null(buffer);
        return buffer;
    }
    for (unsigned i = 0; i < BUFFERS; i++) {
        if (memory->buffers[i].taken || memory->buffers[i].bytes < len)
            continue;
        memory->buffers[i].taken = true;
        return memory->buffers[i].at;
    }
    return NULL;
}

void contract_memory_give(struct contract_world *world, void *buffer)
{
    struct contract_memory *memory = world->memory;

    if (memory == NULL) {
        free(buffer);
        return;
    }
    for (unsigned i = 0; i < BUFFERS; i++) {
        if (memory->buffers[i].at != buffer)
            continue;
        cr_assert(memory->buffers[i].taken, "given back twice");
        memory->buffers[i].taken = false;
        /* Whoever still reads it sees something else. */
        memset(buffer, 0xdb, cfsr_min_u64(memory->buffers[i].bytes, 4096));
        return;
    }
    cr_assert_fail("given back what was never taken");
}
