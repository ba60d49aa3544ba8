/*
 * spsc.c - bounded queue of pointers between two threads (Lamport 1983, with cached indexes as in
 * FastForward and later queues: the other side's index is read again only when the cached one says
 * full or empty).
 *
 * Thread: push by one, pop by one. head and tail count for ever and wrap; tail - head is the number
 * queued. The release store of an index publishes the slots before it; the acquire load of the
 * other side receives them.
 */
#include "base/spsc.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/fail.h"

int cfsr_spsc_init(struct cfsr_spsc *queue, size_t capacity)
{
    void **slots;

    if (!cfsr_is_power_of_two(capacity))
        return cfsr_fail(-EINVAL, "queue capacity %zu is not a power of two", capacity);
    slots = calloc(capacity, sizeof *slots);
    if (slots == NULL)
        return cfsr_fail(-ENOMEM, "no memory for a queue of %zu entries", capacity);
    atomic_init(&queue->head, 0);
    atomic_init(&queue->tail, 0);
    queue->cached_head = 0;
    queue->cached_tail = 0;
    queue->mask = capacity - 1;
    queue->slots = slots;
    return 0;
}

void cfsr_spsc_fini(struct cfsr_spsc *queue)
{
    free(queue->slots);
    queue->slots = NULL;
}

bool cfsr_spsc_push(struct cfsr_spsc *queue, void *item)
{
    size_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);

    CFSR_ASSERT(item != NULL); /* NULL is how pop says empty */
    if (tail - queue->cached_head > queue->mask) {
        queue->cached_head = atomic_load_explicit(&queue->head, memory_order_acquire);
        if (tail - queue->cached_head > queue->mask)
            return false;
    }
    queue->slots[tail & queue->mask] = item;
    atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
    return true;
}

void *cfsr_spsc_pop(struct cfsr_spsc *queue)
{
    size_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    void *item;

    if (head == queue->cached_tail) {
        queue->cached_tail = atomic_load_explicit(&queue->tail, memory_order_acquire);
        if (head == queue->cached_tail)
            return NULL;
    }
    item = queue->slots[head & queue->mask];
    atomic_store_explicit(&queue->head, head + 1, memory_order_release);
    return item;
}

bool cfsr_spsc_is_empty(const struct cfsr_spsc *queue)
{
    struct cfsr_spsc *q = (struct cfsr_spsc *)(uintptr_t)
        queue; /* C17 atomics load from non-const */
    size_t head = atomic_load_explicit(&q->head, memory_order_acquire);

    return atomic_load_explicit(&q->tail, memory_order_acquire) == head;
}
