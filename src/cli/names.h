/*
 * names.h - directory entries in memory: (parent inode, name) to inode. Used by import (paths to
 * inodes) and materialize.
 *
 * Open addressing over an array of entries; names stand in one arena. One thread. Grows by
 * doubling: tools only, never on a data path.
 */
#ifndef CFSR_CLI_NAMES_H
#define CFSR_CLI_NAMES_H

#include <stddef.h>
#include <stdint.h>

struct cfsr_name {
    uint64_t parent;
    uint64_t inode; /* 0: removed; the place is used again by the same name */
    size_t name_offset;
    uint32_t name_bytes;
    uint32_t type; /* S_IFMT bits */
    uint32_t next; /* free for the user: cleared when the name is new */
};

struct cfsr_names {
    struct cfsr_name *entries;
    uint32_t *slots; /* index + 1 into entries, 0 free */
    char *arena;
    size_t count, capacity;
    size_t slot_count; /* power of two, at least twice count */
    size_t arena_bytes, arena_capacity;
};

void cfsr_names_init(struct cfsr_names *names);
void cfsr_names_fini(struct cfsr_names *names);
/* Forgets every name, keeps the memory. */
void cfsr_names_clear(struct cfsr_names *names);
/* The entry, or NULL. Valid until the next put. */
struct cfsr_name *cfsr_names_find(const struct cfsr_names *names, uint64_t parent, const char *name,
                                  size_t len);
/* Adds or replaces. 0 or -ENOMEM. */
int cfsr_names_put(struct cfsr_names *names, uint64_t parent, const char *name, size_t len,
                   uint64_t inode, uint32_t type);

#endif
