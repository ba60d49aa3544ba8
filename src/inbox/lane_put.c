/*
 * lane_put.c - the writer of one inbox lane: how records are laid out in write blocks.
 *
 * Thread:     the core that owns the lane.
 * Invariants: one block at most takes records, and it is the newest; a record that is written from
 * the caller's memory is a block of its own, laid out behind the one that was filling, so arrival
 * numbers and body offsets have one order whatever way a batch came in, and nobody who reads a
 * segment can tell the ways apart. Rejected:   a block made of several pieces of memory (a gathered
 * write: the small records before a large one would not need a write of their own, but every
 * backend would need lists of pieces).
 */
#include "inbox/lane.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "inbox/repair.h"

static uint64_t block_space(uint32_t used_bytes)
{
    return cfsr_align_up(used_bytes, CFSR_INBOX_BLOCK_BYTES);
}

static uint32_t cursors_space(const struct cfsr_inbox_lane *lane)
{
    return cfsr_inbox_record_space(CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_INBOX_CURSORS_FIXED +
                                   lane->origins * CFSR_INBOX_CURSOR_BYTES);
}

/* Lays a record with its payload already at record + 64 into the block: header, zeros to the
 * alignment. */
static uint64_t finish_record(struct cfsr_inbox_lane *lane, struct lane_block *block, uint16_t kind,
                              uint32_t payload_bytes, uint32_t entries, uint64_t arrived_at_us)
{
    uint8_t *record = (uint8_t *)block->buf + block->used_bytes;
    struct cfsr_inbox_local local = {
        .kind = kind,
        .record_bytes = CFSR_INBOX_LOCAL_HEADER_BYTES + payload_bytes,
        .entries = entries,
        .sequence = lane->sequence,
        .arrival = lane->arrival++,
        .arrived_at_us = arrived_at_us,
        .durable_below = lane->durable_below,
        .incarnation = lane->incarnation,
    };
    uint32_t space = cfsr_inbox_record_space(local.record_bytes);

    CFSR_ASSERT(block->used_bytes + space <= CFSR_INBOX_SLOT_BYTES);
    memset(record + local.record_bytes, 0, space - local.record_bytes);
    cfsr_inbox_record_seal(&local, block->body_offset + block->used_bytes, record);
    block->used_bytes += space;
    return local.arrival;
}

static struct lane_block *begin_block_at(struct cfsr_inbox_lane *lane, uint64_t body_offset,
                                         void *buf, uint32_t slot)
{
    struct lane_block *block = lane_block_at(lane, lane->next);

    CFSR_ASSERT(block->state == BLOCK_FREE && buf != NULL);
    CFSR_ASSERT(lane->next - lane->oldest < CFSR_INBOX_WRITES_MAX);
    block->state = BLOCK_FILLING;
    block->buf = buf;
    block->slot = slot;
    block->file = lane_find_file(lane, lane->sequence);
    CFSR_ASSERT(block->file != NULL);
    block->file->blocks++;
    block->body_offset = body_offset;
    block->used_bytes = 0;
    block->batches = 0;
    block->oldest_ns = 0;
    block->due = false;
    block->barrier = body_offset == 0;
    block->opening = false;
    block->changed = 0;
    lane->next++;
    return block;
}

/* Takes the spare slot for the next block. */
static struct lane_block *begin_block(struct cfsr_inbox_lane *lane, uint64_t body_offset)
{
    struct lane_block *block = begin_block_at(lane, body_offset, lane->spare_buf, lane->spare_slot);

    lane->spare_buf = NULL;
    return block;
}

/* No more records into the filling block: its length is known from here on. */
void cfsr_inbox_lane_close_block(struct cfsr_inbox_lane *lane, struct lane_block *block)
{
    uint32_t len_bytes = (uint32_t)block_space(block->used_bytes);

    CFSR_ASSERT(block->state == BLOCK_FILLING && block->used_bytes > 0);
    memset((uint8_t *)block->buf + block->used_bytes, 0, len_bytes - block->used_bytes);
    block->records_bytes = block->used_bytes;
    block->arrival_end = lane->arrival;
    block->used_bytes = len_bytes;
    block->state = BLOCK_READY;
    if (block->body_offset == lane->body_offset)
        lane->body_offset += len_bytes;
}

/* The filling block took no record and is too short for the next one: its slot is the spare again.
 */
static void cancel_block(struct cfsr_inbox_lane *lane, struct lane_block *block)
{
    CFSR_ASSERT(block->state == BLOCK_FILLING && block->used_bytes == 0 && lane->spare_buf == NULL);
    lane->spare_buf = block->buf;
    lane->spare_slot = block->slot;
    block->file->blocks--;
    block->buf = NULL;
    block->state = BLOCK_FREE;
    lane->next--;
}

static void put_cursors(struct cfsr_inbox_lane *lane, struct lane_block *block)
{
    uint8_t *payload = (uint8_t *)block->buf + block->used_bytes + CFSR_INBOX_LOCAL_HEADER_BYTES;
    uint32_t payload_bytes = cfsr_inbox_cursors_store(lane->staged, lane->origins, payload);

    finish_record(lane, block, CFSR_INBOX_CURSORS, payload_bytes, 0, lane->now_us);
}

/* The next record belongs to the next segment. */
static void leave_segment(struct cfsr_inbox_lane *lane)
{
    lane->sequence++;
    lane->body_offset = 0;
    lane->durable_below = 0;
    cfsr_inbox_index_reset(&lane->index);
}

/* The INDEX goes to its fixed place; its block is ready at once. */
static void put_index(struct cfsr_inbox_lane *lane)
{
    struct lane_block *block = begin_block(lane, cfsr_inbox_data_bytes(lane->site));
    uint8_t *payload = (uint8_t *)block->buf + CFSR_INBOX_LOCAL_HEADER_BYTES;
    uint32_t payload_bytes = cfsr_inbox_index_store(&lane->index, lane->staged, lane->origins,
                                                    payload);

    finish_record(lane, block, CFSR_INBOX_INDEX, payload_bytes, 0, lane->now_us);
    cfsr_inbox_lane_close_block(lane, block);
}

static bool fits_segment(const struct cfsr_inbox_lane *lane, uint64_t body_offset, uint32_t bytes)
{
    return body_offset + block_space(bytes) <= cfsr_inbox_data_bytes(lane->site);
}

static bool fits_block(const struct cfsr_inbox_lane *lane, const struct lane_block *block,
                       uint32_t bytes)
{
    return block->used_bytes + bytes <= CFSR_INBOX_SLOT_BYTES &&
           fits_segment(lane, block->body_offset, block->used_bytes + bytes);
}

/* One step towards a filling block: 0 made one (go on), or what is missing. */
static int open_block(struct cfsr_inbox_lane *lane, uint32_t space)
{
    struct lane_block *block;
    bool full;

    if (lane->opening && !fits_segment(lane, lane->body_offset, cursors_space(lane)))
        leave_segment(
            lane); /* the rest of a segment from before the start is left without an INDEX */
    full = !lane->opening && lane->body_offset > 0 && !fits_segment(lane, lane->body_offset, space);
    if (lane_find_file(lane, lane->sequence) == NULL)
        return -ENOSPC;
    if (lane->next - lane->oldest == CFSR_INBOX_WRITES_MAX)
        return -EAGAIN;
    if (lane->spare_buf == NULL)
        return -ENOBUFS;
    if (full) {
        put_index(lane);
        leave_segment(lane);
        return 0;
    }
    block = begin_block(lane, lane->body_offset);
    if (lane->opening || lane->cursors_due || block->body_offset == 0)
        put_cursors(lane, block);
    if (lane->opening || lane->cursors_due) { /* it speaks of what is durable before it is */
        block->barrier = true;
        block->opening = lane->opening;
        lane->opening = false;
        lane->cursors_due = false;
        cfsr_inbox_lane_close_block(lane, block);
    }
    return 0;
}

/* Nothing is added to the filling block. */
static void end_filling(struct cfsr_inbox_lane *lane)
{
    struct lane_block *block = lane_filling_block(lane);

    if (block != NULL && block->used_bytes == 0)
        cancel_block(lane, block);
    else if (block != NULL)
        cfsr_inbox_lane_close_block(lane, block);
}

int cfsr_inbox_lane_put_cursors(struct cfsr_inbox_lane *lane)
{
    int rc = 0;

    while (rc == 0 && lane->cursors_due) {
        if (lane->failed)
            return -CFSR_E_FAILED;
        end_filling(lane);
        rc = open_block(lane, cursors_space(lane));
    }
    return rc;
}

int cfsr_inbox_lane_room(struct cfsr_inbox_lane *lane, uint32_t frame_bytes)
{
    uint32_t space = cfsr_inbox_record_space(CFSR_INBOX_LOCAL_HEADER_BYTES + frame_bytes);

    CFSR_ASSERT(frame_bytes >= CFSR_BATCH_PREFIX_BYTES &&
                frame_bytes <= CFSR_INBOX_FRAME_MAX_BYTES + CFSR_INBOX_REPAIR_HEADER_BYTES);
    for (;;) {
        struct lane_block *block;
        int rc = cfsr_inbox_lane_put_cursors(lane);

        if (rc < 0 || lane->failed)
            return rc < 0 ? rc : -CFSR_E_FAILED;
        block = lane_filling_block(lane);
        if (block != NULL && fits_block(lane, block, space))
            return 0;
        end_filling(lane);
        rc = open_block(lane, space);
        if (rc < 0)
            return rc;
    }
}

int cfsr_inbox_lane_room_in_place(struct cfsr_inbox_lane *lane, uint32_t frame_bytes)
{
    uint32_t space = cfsr_inbox_record_space(CFSR_INBOX_LOCAL_HEADER_BYTES + frame_bytes);

    CFSR_ASSERT(frame_bytes >= CFSR_BATCH_PREFIX_BYTES &&
                frame_bytes <= CFSR_INBOX_FRAME_MAX_BYTES);
    for (;;) {
        int rc = cfsr_inbox_lane_put_cursors(lane);

        if (rc < 0 || lane->failed)
            return rc < 0 ? rc : -CFSR_E_FAILED;
        /* Looked at first: what is filling goes on filling while the disk is behind. */
        if (lane->next - lane->oldest >= CFSR_INBOX_WRITES_MAX - CFSR_INBOX_WRITES_GATHERED)
            return -EAGAIN;
        end_filling(lane);
        if (!lane->opening && lane->body_offset > 0 && fits_segment(lane, lane->body_offset, space))
            return 0;
        rc = open_block(lane, space);
        if (rc < 0)
            return rc;
    }
}

void cfsr_inbox_lane_give_slot(struct cfsr_inbox_lane *lane, void *buf, uint32_t slot)
{
    CFSR_ASSERT(lane->spare_buf == NULL);
    CFSR_ASSERT(buf != NULL && (uintptr_t)buf % CFSR_INBOX_BLOCK_BYTES == 0);
    lane->spare_buf = buf;
    lane->spare_slot = slot;
}

static uint32_t origin_of(const struct cfsr_inbox_lane *lane,
                          const struct cfsr_batch_header *header)
{
    uint32_t i;

    for (i = 0; i < lane->origins; i++) {
        if (lane->staged[i].site_id == header->site_id &&
            cfsr_uuid_equal(&lane->staged[i].journal, &header->journal))
            break;
    }
    CFSR_ASSERT(i < lane->origins); /* the caller asked cfsr_inbox_lane_origin() first */
    return i;
}

/* A batch lies in the block with its payload at its place: header, cursors, index. */
static void finish_batch(struct cfsr_inbox_lane *lane, struct lane_block *block,
                         const struct cfsr_batch_header *header, uint32_t frame_bytes,
                         const struct cfsr_record_stamp *last, uint32_t entries, uint64_t now_us,
                         uint64_t now_ns)
{
    uint64_t body_offset = block->body_offset + block->used_bytes;
    uint32_t origin = origin_of(lane, header);
    struct cfsr_inbox_cursor *cursor = &lane->staged[origin];
    uint64_t arrival;

    CFSR_ASSERT(header->lsn_from <= cursor->lsn && header->lsn_from < header->lsn_to);
    arrival = finish_record(lane, block, CFSR_INBOX_BATCH, frame_bytes, entries, now_us);
    cfsr_inbox_index_add(&lane->index, body_offset, arrival, now_us, origin, header->lsn_from,
                         header->lsn_to);

    if (header->lsn_to > cursor->lsn) {
        cursor->lsn = header->lsn_to;
        cursor->last = *last;
    }
    cursor->incarnation = header->incarnation;
    cursor->entries += entries;
    block->cursor[origin] = *cursor;
    block->changed |= 1ull << origin;
    if (block->batches++ == 0)
        block->oldest_ns = now_ns;
    lane->now_us = now_us;
}

void cfsr_inbox_lane_put(struct cfsr_inbox_lane *lane, const struct cfsr_batch_header *header,
                         const void *frame, uint32_t frame_bytes,
                         const struct cfsr_record_stamp *last, uint32_t entries, uint64_t now_us,
                         uint64_t now_ns)
{
    struct lane_block *block = lane_filling_block(lane);

    CFSR_ASSERT(block != NULL && !lane->failed && header->lane == lane->lane);
    CFSR_ASSERT(fits_block(lane, block,
                           cfsr_inbox_record_space(CFSR_INBOX_LOCAL_HEADER_BYTES + frame_bytes)));
    memcpy((uint8_t *)block->buf + block->used_bytes + CFSR_INBOX_LOCAL_HEADER_BYTES, frame,
           frame_bytes);
    finish_batch(lane, block, header, frame_bytes, last, entries, now_us, now_ns);
}

void cfsr_inbox_lane_put_in_place(struct cfsr_inbox_lane *lane,
                                  const struct cfsr_batch_header *header, void *record,
                                  uint32_t slot, uint32_t frame_bytes,
                                  const struct cfsr_record_stamp *last, uint32_t entries,
                                  uint64_t now_us, uint64_t now_ns)
{
    struct lane_block *block;

    CFSR_ASSERT(!lane->failed && !lane->opening && header->lane == lane->lane);
    CFSR_ASSERT(lane_filling_block(lane) == NULL && lane->body_offset > 0);
    CFSR_ASSERT((uintptr_t)record % CFSR_INBOX_BLOCK_BYTES == 0);
    CFSR_ASSERT(fits_segment(lane, lane->body_offset, CFSR_INBOX_LOCAL_HEADER_BYTES + frame_bytes));
    block = begin_block_at(lane, lane->body_offset, record, slot);
    finish_batch(lane, block, header, frame_bytes, last, entries, now_us, now_ns);
    cfsr_inbox_lane_close_block(lane, block);
}

void cfsr_inbox_lane_put_repair(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_gap *gap,
                                uint32_t part, const void *frame, uint32_t frame_bytes,
                                uint64_t now_us, uint64_t now_ns)
{
    struct lane_block *block = lane_filling_block(lane);
    uint32_t bytes = CFSR_INBOX_REPAIR_HEADER_BYTES + frame_bytes;
    struct cfsr_inbox_repair repair;
    uint8_t *payload;

    CFSR_ASSERT(block != NULL && !lane->failed && gap->lane == lane->lane && part < gap->parts);
    CFSR_ASSERT(
        fits_block(lane, block, cfsr_inbox_record_space(CFSR_INBOX_LOCAL_HEADER_BYTES + bytes)));
    repair = (struct cfsr_inbox_repair){
        .sequence = gap->sequence,
        .begin = gap->begin,
        .end_sequence = gap->end_sequence,
        .end = gap->end,
        .part = part,
        .parts = gap->parts,
        .site_id = gap->part[part].site_id,
        .lsn_from = gap->part[part].lsn_from,
        .lsn_to = gap->part[part].lsn_to,
    };
    payload = (uint8_t *)block->buf + block->used_bytes + CFSR_INBOX_LOCAL_HEADER_BYTES;
    cfsr_inbox_repair_store(&repair, payload);
    memcpy(payload + CFSR_INBOX_REPAIR_HEADER_BYTES, frame, frame_bytes);
    finish_record(lane, block, CFSR_INBOX_REPAIR, bytes, 0, now_us);
    lane->index.repairs++;
    if (block->batches++ == 0)
        block->oldest_ns = now_ns;
    lane->now_us = now_us;
}
