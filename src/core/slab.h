/*
 * slab.h - the memory of a core: equal, page-aligned slots taken from one mapping, and doubly
 * mapped ring buffers.
 *
 * Everything is mapped, populated and (for slots) registered at start, by the owner thread after
 * it was pinned, so that pages come from its own memory node; afterwards take and give are O(1)
 * and never ask the system. An empty slab answers CFSR_SLOT_NONE: the caller names that stall.
 * Owner thread only.
 */
#ifndef CFSR_CORE_SLAB_H
#define CFSR_CORE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfsr_slab;

#define CFSR_SLOT_ALIGN 4096u
#define CFSR_SLOT_NONE  UINT32_MAX

struct cfsr_slab_options {
    uint32_t slot_bytes; /* multiple of CFSR_SLOT_ALIGN */
    uint32_t slots;
    bool populate; /* touch every page now */
};

int cfsr_slab_create(const struct cfsr_slab_options *options, struct cfsr_slab **slab_out);
void cfsr_slab_destroy(struct cfsr_slab *slab); /* asserts that every slot was given back */

/* owner: any small number of the caller's (a connection, a lane), counted per owner by
 * cfsr_slab_owned(). */
uint32_t cfsr_slab_take(struct cfsr_slab *slab, uint32_t owner);
/* Asserts: taken, by that owner, in that generation. */
void cfsr_slab_give(struct cfsr_slab *slab, uint32_t slot, uint32_t owner);
void *cfsr_slab_address(const struct cfsr_slab *slab, uint32_t slot);
/* Grows each time the slot is taken: (slot, generation) names one use of it. */
uint32_t cfsr_slab_generation(const struct cfsr_slab *slab, uint32_t slot);
bool cfsr_slab_is_current(const struct cfsr_slab *slab, uint32_t slot, uint32_t generation);
uint32_t cfsr_slab_owned(const struct cfsr_slab *slab,
                         uint32_t owner); /* O(slots): reports and quotas at rest */
uint32_t cfsr_slab_free_count(const struct cfsr_slab *slab);
uint32_t cfsr_slab_low_water(const struct cfsr_slab *slab); /* fewest ever free */
void *cfsr_slab_base(const struct cfsr_slab *slab); /* the whole mapping, for registration */
size_t cfsr_slab_bytes(const struct cfsr_slab *slab);

/*
 * A ring buffer mapped twice, back to back: base[i] and base[i + size] are the same byte, so that
 * any span of up to size bytes is contiguous wherever it begins.
 */
struct cfsr_mirror {
    uint8_t *base;
    size_t size_bytes;
};

/* size_bytes: a power of two of at least a page. -EINVAL, -ENOMEM, -EMFILE. */
int cfsr_mirror_create(size_t size_bytes, struct cfsr_mirror *mirror_out);
/* The same, with memory that comes as it is touched: a page fault is no matter to the caller. */
int cfsr_mirror_create_lazy(size_t size_bytes, struct cfsr_mirror *mirror_out);
void cfsr_mirror_destroy(struct cfsr_mirror *mirror);

#endif
