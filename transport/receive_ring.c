/*
 * receive_ring.c - positions of received bytes (see receive_ring.h).
 *
 * Thread:     the core of the connection.
 * Invariants: released <= taken <= tail <= released + size, in both places. Bytes in the small
 *             buffer are older than any in the ring, so releases empty it first; once a ring is
 *             attached the small buffer holds taken bytes only.
 * Rejected:   receiving the header and then the body, and provided buffers with a copy: both were
 *             measured slower than one receive into a doubly mapped ring (docs/performance.md).
 */
#include "transport/receive_ring.h"

#include "base/assert.h"
#include "base/bytes.h"

void cfsr_receive_init(struct cfsr_receive *receive, uint8_t *small, size_t small_bytes)
{
    *receive = (struct cfsr_receive){.small = small, .small_bytes = small_bytes};
}

static size_t ring_offset(const struct cfsr_receive *receive, uint64_t position)
{
    return (size_t)(position & (receive->ring_bytes - 1));
}

uint8_t *cfsr_receive_space(const struct cfsr_receive *receive, size_t *len_bytes_out)
{
    if (receive->ring == NULL) {
        *len_bytes_out = receive->small_bytes - receive->small_tail;
        return receive->small + receive->small_tail;
    }
    *len_bytes_out = receive->ring_bytes - (size_t)(receive->tail - receive->released);
    return receive->ring + ring_offset(receive, receive->tail);
}

void cfsr_receive_commit(struct cfsr_receive *receive, size_t len_bytes)
{
    if (receive->ring == NULL) {
        CFSR_ASSERT(len_bytes <= receive->small_bytes - receive->small_tail);
        receive->small_tail += len_bytes;
        return;
    }
    CFSR_ASSERT(len_bytes <= receive->ring_bytes - (receive->tail - receive->released));
    receive->tail += len_bytes;
}

uint8_t *cfsr_receive_span(const struct cfsr_receive *receive, size_t *len_bytes_out)
{
    if (receive->ring == NULL) {
        *len_bytes_out = receive->small_tail - receive->small_taken;
        return receive->small + receive->small_taken;
    }
    *len_bytes_out = (size_t)(receive->tail - receive->taken);
    return receive->ring + ring_offset(receive, receive->taken);
}

void cfsr_receive_take(struct cfsr_receive *receive, size_t len_bytes)
{
    if (receive->ring == NULL) {
        CFSR_ASSERT(len_bytes <= receive->small_tail - receive->small_taken);
        receive->small_taken += len_bytes;
        return;
    }
    CFSR_ASSERT(len_bytes <= receive->tail - receive->taken);
    receive->taken += len_bytes;
}

void cfsr_receive_release(struct cfsr_receive *receive, size_t len_bytes)
{
    size_t from_small = cfsr_min_u64(len_bytes, receive->small_taken - receive->small_released);

    receive->small_released += from_small;
    len_bytes -= from_small;
    CFSR_ASSERT(len_bytes <= receive->taken - receive->released);
    receive->released += len_bytes;
}

bool cfsr_receive_needs_ring(const struct cfsr_receive *receive)
{
    return receive->ring == NULL && receive->small_released != receive->small_tail;
}

void cfsr_receive_attach(struct cfsr_receive *receive, uint8_t *ring, size_t ring_bytes)
{
    size_t untaken = receive->small_tail - receive->small_taken;

    CFSR_ASSERT(receive->ring == NULL);
    CFSR_ASSERT(cfsr_is_power_of_two(ring_bytes) && untaken <= ring_bytes);
    receive->ring = ring;
    receive->ring_bytes = ring_bytes;
    receive->released = 0;
    receive->taken = 0;
    receive->tail = untaken;
    if (untaken > 0)
        memcpy(ring, receive->small + receive->small_taken, untaken);
    receive->small_tail = receive->small_taken;
}

bool cfsr_receive_ring_is_empty(const struct cfsr_receive *receive)
{
    return receive->ring != NULL && receive->released == receive->tail;
}

uint8_t *cfsr_receive_detach(struct cfsr_receive *receive)
{
    uint8_t *ring = receive->ring;

    CFSR_ASSERT(cfsr_receive_ring_is_empty(receive));
    receive->ring = NULL;
    receive->ring_bytes = 0;
    receive->released = 0;
    receive->taken = 0;
    receive->tail = 0;
    return ring;
}

void cfsr_receive_rewind(struct cfsr_receive *receive)
{
    if (receive->small_released == receive->small_tail) {
        receive->small_released = 0;
        receive->small_taken = 0;
        receive->small_tail = 0;
    }
    if (receive->ring != NULL && receive->released == receive->tail) {
        receive->released = 0;
        receive->taken = 0;
        receive->tail = 0;
    }
}
