/*
 * spsc.h - bounded single-producer single-consumer queue of pointers (Lamport queue with cached
 * indexes).
 *
 * One thread pushes, one thread pops; both wait-free. Capacity is a power of two, fixed at
 * creation. A full queue answers false: the caller keeps the item and retries on its next tick (it
 * is bounded, never malloc).
 */
#ifndef CFSR_BASE_SPSC_H
#define CFSR_BASE_SPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

struct cfsr_spsc {
    _Alignas(CFSR_CACHE_LINE) _Atomic size_t head; /* next to pop; written by the consumer */
    size_t cached_tail;                            /* consumer's last seen tail */
    _Alignas(CFSR_CACHE_LINE) _Atomic size_t tail; /* next to push; written by the producer */
    size_t cached_head;                            /* producer's last seen head */
    _Alignas(CFSR_CACHE_LINE) size_t mask;
    void **slots;
};

int cfsr_spsc_init(struct cfsr_spsc *queue, size_t capacity); /* allocates; -EINVAL, -ENOMEM */
void cfsr_spsc_fini(struct cfsr_spsc *queue);
bool cfsr_spsc_push(struct cfsr_spsc *queue, void *item);
void *cfsr_spsc_pop(struct cfsr_spsc *queue); /* NULL if empty */
bool cfsr_spsc_is_empty(const struct cfsr_spsc *queue);

#endif
