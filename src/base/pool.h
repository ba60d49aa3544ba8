/*
 * pool.h - fixed pool of equal objects with a generation per slot.
 *
 * All memory is taken at creation; take and give are O(1) and never allocate. An empty pool answers
 * NULL: the caller has a named answer (a stall reason). The generation makes a stale (slot,
 * generation) name detectable. Owner thread only.
 */
#ifndef CFSR_BASE_POOL_H
#define CFSR_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

struct cfsr_pool;

int cfsr_pool_create(size_t object_bytes, uint32_t count, struct cfsr_pool **pool_out);
void cfsr_pool_destroy(struct cfsr_pool *pool); /* asserts that everything was given back */
void *cfsr_pool_take(struct cfsr_pool *pool);   /* zeroed object, or NULL */
void cfsr_pool_give(struct cfsr_pool *pool, void *object); /* asserts: of this pool, taken once */
uint32_t cfsr_pool_generation(const struct cfsr_pool *pool, const void *object);
uint32_t cfsr_pool_free_count(const struct cfsr_pool *pool);
uint32_t cfsr_pool_low_water(const struct cfsr_pool *pool); /* fewest ever free */

#endif
