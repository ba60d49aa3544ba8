/*
 * receive_ring.h - where the bytes of a byte-stream connection arrive, and how they are shown.
 *
 * Two places. The small buffer belongs to the connection: an idle connection holds nothing else,
 * and short messages (acks, heartbeats) are shown and released there. As soon as a frame does not
 * end in it, a ring is attached: memory mapped twice in a row, so that any span of up to its size
 * is contiguous and frames are parsed where they arrived.
 *
 * Bytes pass through three states, in order: received (untaken), taken by the callee, released.
 * Taken bytes never move. Untaken bytes move once, from the small buffer into the ring, when it is
 * attached.
 *
 * No I/O, no clock, no memory of its own. Owner thread: the core of the connection.
 */
#ifndef CFSR_TRANSPORT_RECEIVE_RING_H
#define CFSR_TRANSPORT_RECEIVE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfsr_receive {
    uint8_t *small;
    size_t small_bytes;
    size_t small_released, small_taken, small_tail; /* offsets, in this order */
    uint8_t *ring;                                  /* NULL: none attached */
    size_t ring_bytes;                              /* a power of two */
    uint64_t released, taken, tail;                 /* free running; offset = position mod size */
};

void cfsr_receive_init(struct cfsr_receive *receive, uint8_t *small, size_t small_bytes);
/* Free space for the next receive, contiguous; length 0 if full. */
uint8_t *cfsr_receive_space(const struct cfsr_receive *receive, size_t *len_bytes_out);
/* len_bytes arrived at the start of that space. */
void cfsr_receive_commit(struct cfsr_receive *receive, size_t len_bytes);
/* All untaken bytes as one span. */
uint8_t *cfsr_receive_span(const struct cfsr_receive *receive, size_t *len_bytes_out);
/* The callee took the first len_bytes of the span. */
void cfsr_receive_take(struct cfsr_receive *receive, size_t len_bytes);
/* The callee gives back the oldest len_bytes it took. */
void cfsr_receive_release(struct cfsr_receive *receive, size_t len_bytes);
/* True if there is no ring and the small buffer cannot go on: something in it is not released. */
bool cfsr_receive_needs_ring(const struct cfsr_receive *receive);
void cfsr_receive_attach(struct cfsr_receive *receive, uint8_t *ring, size_t ring_bytes);
/* True if a ring is attached and holds nothing. */
bool cfsr_receive_ring_is_empty(const struct cfsr_receive *receive);
/* Nothing may be in the ring, and no receive in flight into it. Returns it. */
uint8_t *cfsr_receive_detach(struct cfsr_receive *receive);
/*
 * Starts over at the beginning of an empty place, so that a receiver that keeps up stays in the
 * first, cached pages. No receive may be in flight.
 */
void cfsr_receive_rewind(struct cfsr_receive *receive);

#endif
