/*
 * names.c - (parent inode, name) to inode, for import.
 *
 * Thread: one. Invariant: slot_count >= 2 × count, so a probe always ends. Rejected: a tree of path
 * strings (a listing of 100,000 files repeats its directories in every one).
 */
#include "cli/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define SLOTS_FIRST 1024

void cfsr_names_init(struct cfsr_names *names)
{
    memset(names, 0, sizeof *names);
}

void cfsr_names_fini(struct cfsr_names *names)
{
    free(names->entries);
    free(names->slots);
    free(names->arena);
    memset(names, 0, sizeof *names);
}

void cfsr_names_clear(struct cfsr_names *names)
{
    names->count = 0;
    names->arena_bytes = 0;
    if (names->slots != NULL)
        memset(names->slots, 0, names->slot_count * sizeof names->slots[0]);
}

/* FNV-1a over the name, mixed with the parent. */
static uint64_t hash_of(uint64_t parent, const char *name, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325ull ^ (parent * 0x9e3779b97f4a7c15ull);

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)name[i]) * 0x100000001b3ull;
    return hash ^ (hash >> 29);
}

/* The slot of the name, or the free slot where it belongs. */
static size_t probe(const struct cfsr_names *names, uint64_t parent, const char *name, size_t len)
{
    size_t slot = (size_t)hash_of(parent, name, len) & (names->slot_count - 1);

    for (; names->slots[slot] != 0; slot = (slot + 1) & (names->slot_count - 1)) {
        const struct cfsr_name *entry = &names->entries[names->slots[slot] - 1];

        if (entry->parent == parent && entry->name_bytes == len &&
            memcmp(names->arena + entry->name_offset, name, len) == 0)
            break;
    }
    return slot;
}

struct cfsr_name *cfsr_names_find(const struct cfsr_names *names, uint64_t parent, const char *name,
                                  size_t len)
{
    size_t slot;
    struct cfsr_name *entry;

    if (names->slots == NULL)
        return NULL;
    slot = probe(names, parent, name, len);
    if (names->slots[slot] == 0)
        return NULL;
    entry = &names->entries[names->slots[slot] - 1];
    return entry->inode != 0 ? entry : NULL;
}

static int grow(struct cfsr_names *names)
{
    size_t slot_count = names->slot_count == 0 ? SLOTS_FIRST : names->slot_count * 2;
    uint32_t *slots = calloc(slot_count, sizeof slots[0]);
    struct cfsr_name *entries = realloc(names->entries, slot_count / 2 * sizeof entries[0]);

    if (entries != NULL)
        names->entries = entries;
    if (slots == NULL || entries == NULL || slot_count / 2 > UINT32_MAX) {
        free(slots);
        return -ENOMEM;
    }
    free(names->slots);
    names->slots = slots;
    names->slot_count = slot_count;
    names->capacity = slot_count / 2;
    for (size_t i = 0; i < names->count; i++) {
        const struct cfsr_name *entry = &names->entries[i];

        slots[probe(names, entry->parent, names->arena + entry->name_offset, entry->name_bytes)] =
            (uint32_t)i + 1;
    }
    return 0;
}

static int grow_arena(struct cfsr_names *names, size_t need)
{
    size_t capacity = names->arena_capacity == 0 ? 65536 : names->arena_capacity * 2;
    char *arena;

    if (names->arena_bytes + need <= names->arena_capacity)
        return 0;
    arena = realloc(names->arena, capacity + need);
    if (arena == NULL)
        return -ENOMEM;
    names->arena = arena;
    names->arena_capacity = capacity + need;
    return 0;
}

int cfsr_names_put(struct cfsr_names *names, uint64_t parent, const char *name, size_t len,
                   uint64_t inode, uint32_t type)
{
    struct cfsr_name *entry;
    size_t slot;

    CFSR_ASSERT(inode != 0 && len <= UINT32_MAX);
    if ((names->count == names->capacity && grow(names) < 0) || grow_arena(names, len) < 0)
        return -ENOMEM;
    slot = probe(names, parent, name, len);
    if (names->slots[slot] == 0) {
        entry = &names->entries[names->count++];
        *entry = (struct cfsr_name){
            .parent = parent, .name_offset = names->arena_bytes, .name_bytes = (uint32_t)len};
        memcpy(names->arena + names->arena_bytes, name, len);
        names->arena_bytes += len;
        names->slots[slot] = (uint32_t)names->count;
    }
    entry = &names->entries[names->slots[slot] - 1];
    entry->inode = inode;
    entry->type = type;
    return 0;
}
