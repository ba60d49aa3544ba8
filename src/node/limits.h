/*
 * limits.h - every pool of a core, sized once. cfsr_node_memory_bytes() is the sum of the terms
 * marked [io]; the rest is small.
 *
 * With the defaults (4 lanes, 1 core; figures in docs/architecture.md):
 *   [io] journal streams:  read_buffers × CFSR_NODE_READ_BUFFER_BYTES; each stream owns two: one
 *                          consumed, one being read
 *   [io] encoded batches:  batch_slots × CFSR_NODE_BATCH_SLOT_BYTES
 *   [io] sealed bodies:    batch_slots × CFSR_NODE_SEAL_SLOT_BYTES with --seal require, else none
 *   [io] inbox slots:      inbox_slots × CFSR_INBOX_SLOT_BYTES; filling or being written, over all
 *                          lanes
 *   [io] decode scratch:   1 × CFSR_NODE_SCRATCH_BYTES
 *   [io] control frames:   (links + conns) × CFSR_NODE_CONTROL_SLOTS × CFSR_NODE_CONTROL_SLOT_BYTES
 *   [io] queries:          1 × CFSR_NODE_QUERY_BYTES; an answer being made, one being checked, and
 *                          the records of each
 *        receive rings:    transport group: recv_rings_max × recv_ring_bytes
 *
 * From the heap, on the helper thread, while they last: of a scrub a journal check for each of its
 * two tasks (2 MiB each), one inbox check (3.2 MiB), digests to compare (2 MiB); of an answer with
 * digests 2 MiB.
 */
#ifndef CFSR_NODE_LIMITS_H
#define CFSR_NODE_LIMITS_H

#include "inbox/inbox.h"
#include "repl/wire.h"

/* One read of the journal: two default batches, so that a turn of the sender costs one read for two
 * encodes. */
#define CFSR_NODE_READ_BYTES (512u << 10)
/* Before the read: room for the unconsumed tail of the previous one, a maximal record at most; 4
 * KiB-aligned. */
#define CFSR_NODE_READ_HEADROOM_BYTES ((1u << 20) + (8u << 10))
#define CFSR_NODE_READ_BUFFER_BYTES   (CFSR_NODE_READ_HEADROOM_BYTES + (1u << 20) + (16u << 10))
#define CFSR_NODE_BATCH_SLOT_BYTES    CFSR_BATCH_BODY_MAX_BYTES
#define CFSR_NODE_SCRATCH_BYTES       CFSR_BATCH_BODY_MAX_BYTES
#define CFSR_NODE_SEAL_SLOT_BYTES     (CFSR_BATCH_BODY_MAX_BYTES + CFSR_SEAL_TAG_BYTES)
/* Frames of one link handed to the transport and not sent yet, in frames and in bytes (two gathered
 * sends). */
#define CFSR_NODE_LINK_FRAMES_MAX  32
#define CFSR_NODE_LINK_QUEUE_BYTES (512u << 10)
#define CFSR_NODE_CONTROL_SLOTS    4
/* An event may answer and say goodbye: both must find room. */
#define CFSR_NODE_CONTROL_RESERVE    2
#define CFSR_NODE_CONTROL_SLOT_BYTES (CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES)
/* Batches encoded in one turn: keeps a turn below 2 ms at 256 KiB a batch. */
#define CFSR_NODE_ENCODES_PER_TURN 4
/* One answer each way, and the records in it. */
#define CFSR_NODE_QUERY_FRAME_BYTES (CFSR_FRAME_MAX_BYTES)
#define CFSR_NODE_QUERY_BYTES                                        \
    (2 * (uint64_t)(CFSR_NODE_ALIGNED(CFSR_NODE_QUERY_FRAME_BYTES) + \
                    CFSR_NODE_ALIGNED(CFSR_BATCH_BODY_MAX_BYTES)))
/* Received frames from this size on are written from where they are, where the transport can. A
 * copy costs about 75 ns a KiB (5 µs for 64 KiB, and the memory bandwidth twice), a write of its
 * own 2 to 20 µs whatever its size, by the device; and a small frame gains nothing on the way to
 * the disk either, where gathered ones share a write. */
#define CFSR_NODE_DIRECT_BYTES   (64u << 10)
#define CFSR_NODE_ALIGNED(bytes) (((bytes) + 4095u) & ~4095u)
/* Log that answering one QUERY reads at most, about. */
#define CFSR_NODE_SERVE_BYTES (16u << 20)
/* Sends whose ack is timed, per link. */
#define CFSR_NODE_ACK_MARKS 128

_Static_assert(CFSR_NODE_READ_HEADROOM_BYTES >= CFSR_RECORD_MAX_BYTES + 4096,
               "a maximal record's tail fits");
_Static_assert(CFSR_NODE_READ_HEADROOM_BYTES % 4096 == 0, "direct reads land aligned");
_Static_assert(CFSR_NODE_READ_BYTES <=
                   CFSR_NODE_READ_BUFFER_BYTES - CFSR_NODE_READ_HEADROOM_BYTES - 8192,
               "a read fits, widened to the alignment");
_Static_assert(CFSR_RECORD_MAX_BYTES <=
                   CFSR_NODE_READ_BUFFER_BYTES - CFSR_NODE_READ_HEADROOM_BYTES - 8192,
               "a maximal record can be read at once");
_Static_assert(CFSR_INBOX_SLOT_BYTES >= CFSR_FRAME_MAX_BYTES + 4096, "a maximal frame fits a slot");

#endif
