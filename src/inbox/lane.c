/*
 * lane.c - the writer of one inbox lane: batches into slots, slots into write blocks, blocks into
 * segments. No I/O, no clock.
 *
 * Thread:     the core that owns the lane.
 * Owns:       the window of write blocks (oldest not durable … the one being filled); borrows slots
 * and files from the caller. Invariants: blocks are laid out, numbered and acknowledged in one
 * order, whatever order their writes complete in; body offsets only grow, so one incarnation writes
 * no byte twice; the first block of a segment is written only when every block before it is
 * durable: a segment with a valid first record has a complete predecessor, and its CURSORS speak of
 * durable bytes only; the first record after a start is CURSORS with a new incarnation, alone in
 * its block and alone in flight: an incarnation that left any other trace has this record, so
 * recovery never hands out the same incarnation twice, and what an earlier one left beyond a cut
 * can never pass for new. Rejected:   going to a new segment at each start (the same safety for a
 * segment's worth of disk a restart); erasing the tail at recovery (blocks still in a device's
 * queue may land later).
 */
#include "inbox/inbox.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/repair.h"

#define SYNC_BYTES_DEFAULT    (1u << 20)
#define SYNC_DELAY_NS_DEFAULT 1000000u
#define FILES_MAX             CFSR_INBOX_FILES_MAX

enum block_state {
    BLOCK_FREE,      /* no slot */
    BLOCK_FILLING,   /* takes records; always the newest */
    BLOCK_READY,     /* full or closed, waits to be taken */
    BLOCK_IN_FLIGHT, /* the caller writes it */
    BLOCK_DONE,      /* written, but one before it is not */
};

struct lane_file {
    struct cfsr_file *file;
    uint64_t sequence;
    uint32_t blocks; /* not completed */
};

struct block {
    enum block_state state;
    void *buf;
    uint32_t slot;
    struct lane_file *file;
    uint64_t body_offset;
    uint32_t used_bytes;
    uint32_t records_bytes; /* used before the zeros that fill it up */
    uint32_t batches;
    uint64_t oldest_ns;   /* of its first batch */
    bool due;             /* an ACK_NOW waits for it */
    bool barrier;         /* only when everything before it is durable */
    bool opening;         /* nothing after it before it is durable */
    uint64_t arrival_end; /* number after its last record's */
    uint64_t changed;     /* origins whose cursor moved in this block */
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
};

struct cfsr_inbox_lane {
    const struct cfsr_site *site;
    uint32_t lane;
    struct cfsr_inbox_lane_options options;
    bool failed;
    bool opening;     /* the opening CURSORS of this start is still to be laid out */
    bool cursors_due; /* the next block is CURSORS alone */
    uint64_t incarnation, arrival;
    uint64_t now_us; /* of the last batch */

    uint64_t sequence;                      /* of the segment being laid out */
    uint64_t body_offset;                   /* of its next block */
    uint64_t durable_below;                 /* in the segment being laid out */
    uint64_t durable_sequence, durable_end; /* where the last durable record ends */
    uint64_t durable_arrival;               /* number after it */
    struct cfsr_inbox_index index;
    struct lane_file file[FILES_MAX];

    void *spare_buf;
    uint32_t spare_slot;

    uint64_t oldest, issue, next; /* not durable; to be taken; to be laid out: blocks by number */
    struct block block[CFSR_INBOX_WRITES_MAX];

    uint32_t origins;
    struct cfsr_inbox_cursor staged[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_cursor durable[CFSR_INBOX_ORIGINS_MAX];
};

_Static_assert(CFSR_INBOX_ORIGINS_MAX <= 64, "a word has a bit for each cursor a block can move");

static struct block *block_at(struct cfsr_inbox_lane *lane, uint64_t number)
{
    return &lane->block[number % CFSR_INBOX_WRITES_MAX];
}

static struct block *filling_block(struct cfsr_inbox_lane *lane)
{
    struct block *block;

    if (lane->next == lane->oldest)
        return NULL;
    block = block_at(lane, lane->next - 1);
    return block->state == BLOCK_FILLING ? block : NULL;
}

static struct lane_file *find_file(struct cfsr_inbox_lane *lane, uint64_t sequence)
{
    unsigned i;

    for (i = 0; i < FILES_MAX; i++) {
        if (lane->file[i].file != NULL && lane->file[i].sequence == sequence)
            return &lane->file[i];
    }
    return NULL;
}

static uint64_t block_space(uint32_t used_bytes)
{
    return cfsr_align_up(used_bytes, CFSR_INBOX_BLOCK_BYTES);
}

static uint32_t cursors_space(const struct cfsr_inbox_lane *lane)
{
    return cfsr_inbox_record_space(CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_INBOX_CURSORS_FIXED +
                                   lane->origins * CFSR_INBOX_CURSOR_BYTES);
}

/* Everything that a state decides. */
static void start(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_state *state)
{
    CFSR_ASSERT(state->origins <= CFSR_INBOX_ORIGINS_MAX);
    CFSR_ASSERT(state->body_offset % CFSR_INBOX_BLOCK_BYTES == 0);
    lane->opening = true;
    lane->cursors_due = lane->cursors_due || state->damaged > 0;
    lane->incarnation = state->incarnation;
    lane->arrival = state->arrival;
    lane->sequence = state->sequence == 0 ? 1 : state->sequence;
    lane->body_offset = state->body_offset;
    lane->durable_below = state->records_end;
    lane->durable_sequence = state->end_sequence;
    lane->durable_end = state->end_offset;
    lane->durable_arrival = state->arrival;
    lane->index = state->index;
    if (lane->index.stride == 0)
        cfsr_inbox_index_reset(&lane->index);
    lane->origins = state->origins;
    memcpy(lane->staged, state->cursor, state->origins * sizeof state->cursor[0]);
    memcpy(lane->durable, state->cursor, state->origins * sizeof state->cursor[0]);
}

int cfsr_inbox_lane_create(const struct cfsr_site *site, uint32_t lane_number,
                           const struct cfsr_inbox_state *state,
                           const struct cfsr_inbox_lane_options *options,
                           struct cfsr_inbox_lane **lane_out)
{
    struct cfsr_inbox_lane *lane;

    lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return -ENOMEM;
    lane->site = site;
    lane->lane = lane_number;
    if (options != NULL)
        lane->options = *options;
    if (lane->options.sync_bytes == 0)
        lane->options.sync_bytes = SYNC_BYTES_DEFAULT;
    if (lane->options.sync_delay_ns == 0)
        lane->options.sync_delay_ns = SYNC_DELAY_NS_DEFAULT;
    start(lane, state);
    *lane_out = lane;
    return 0;
}

void cfsr_inbox_lane_restart(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_state *state)
{
    const struct cfsr_site *site = lane->site;
    struct cfsr_inbox_lane_options options = lane->options;
    uint32_t number = lane->lane;
    bool cursors_due = lane->cursors_due;
    unsigned i;

    CFSR_ASSERT(lane->failed && lane->spare_buf == NULL);
    for (i = 0; i < FILES_MAX; i++)
        CFSR_ASSERT(lane->file[i].file == NULL);
    for (i = 0; i < CFSR_INBOX_WRITES_MAX; i++)
        CFSR_ASSERT(lane->block[i].buf == NULL);
    memset(lane, 0, sizeof *lane);
    lane->site = site;
    lane->lane = number;
    lane->options = options;
    lane->cursors_due = cursors_due;
    start(lane, state);
}

bool cfsr_inbox_lane_take_slot(struct cfsr_inbox_lane *lane, uint32_t *slot_out)
{
    unsigned i;

    CFSR_ASSERT(lane->failed);
    if (lane->spare_buf != NULL) {
        lane->spare_buf = NULL;
        *slot_out = lane->spare_slot;
        return true;
    }
    for (i = 0; i < CFSR_INBOX_WRITES_MAX; i++) {
        struct block *block = &lane->block[i];

        CFSR_ASSERT(block->state != BLOCK_IN_FLIGHT);
        if (block->buf == NULL)
            continue;
        block->buf = NULL;
        *slot_out = block->slot;
        return true;
    }
    return false;
}

void cfsr_inbox_lane_destroy(struct cfsr_inbox_lane *lane)
{
    free(lane);
}

/* A place in the table for one more file. */
static struct lane_file *free_file(struct cfsr_inbox_lane *lane)
{
    unsigned i;

    for (i = 0; i < FILES_MAX; i++) {
        if (lane->file[i].file == NULL)
            return &lane->file[i];
    }
    return NULL;
}

uint64_t cfsr_inbox_lane_wants_segment(const struct cfsr_inbox_lane *lane)
{
    struct cfsr_inbox_lane *l = (struct cfsr_inbox_lane *)(uintptr_t)
        lane; /* the look-ups change nothing */

    if (lane->failed || free_file(l) == NULL)
        return 0;
    if (find_file(l, lane->sequence) == NULL)
        return lane->sequence;
    if (lane->body_offset >= lane->site->segment_bytes / 2 &&
        find_file(l, lane->sequence + 1) == NULL)
        return lane->sequence + 1;
    return 0;
}

void cfsr_inbox_lane_give_segment(struct cfsr_inbox_lane *lane, uint64_t sequence,
                                  struct cfsr_file *file)
{
    struct lane_file *entry = free_file(lane);

    CFSR_ASSERT(file != NULL && entry != NULL);
    CFSR_ASSERT(sequence == lane->sequence || sequence == lane->sequence + 1);
    CFSR_ASSERT(find_file(lane, sequence) == NULL);
    *entry = (struct lane_file){.file = file, .sequence = sequence};
}

struct cfsr_file *cfsr_inbox_lane_retired_file(struct cfsr_inbox_lane *lane)
{
    unsigned i;

    for (i = 0; i < FILES_MAX; i++) {
        struct lane_file *entry = &lane->file[i];
        struct cfsr_file *file = entry->file;

        if (file == NULL || entry->sequence >= lane->sequence || entry->blocks > 0)
            continue;
        entry->file = NULL;
        return file;
    }
    return NULL;
}

struct cfsr_file *cfsr_inbox_lane_take_file(struct cfsr_inbox_lane *lane)
{
    unsigned i;

    for (i = 0; i < FILES_MAX; i++) {
        struct cfsr_file *file = lane->file[i].file;

        if (file == NULL)
            continue;
        lane->file[i].file = NULL;
        return file;
    }
    return NULL;
}

/* Lays a record with its payload already at record + 64 into the block: header, zeros to the
 * alignment. */
static uint64_t finish_record(struct cfsr_inbox_lane *lane, struct block *block, uint16_t kind,
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

/* Takes the spare slot for the next block. */
static struct block *begin_block(struct cfsr_inbox_lane *lane, uint64_t body_offset)
{
    struct block *block = block_at(lane, lane->next);

    CFSR_ASSERT(block->state == BLOCK_FREE && lane->spare_buf != NULL);
    block->state = BLOCK_FILLING;
    block->buf = lane->spare_buf;
    block->slot = lane->spare_slot;
    block->file = find_file(lane, lane->sequence);
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
    lane->spare_buf = NULL;
    lane->next++;
    return block;
}

/* No more records into the filling block: its length is known from here on. */
static void close_block(struct cfsr_inbox_lane *lane, struct block *block)
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
static void cancel_block(struct cfsr_inbox_lane *lane, struct block *block)
{
    CFSR_ASSERT(block->state == BLOCK_FILLING && block->used_bytes == 0 && lane->spare_buf == NULL);
    lane->spare_buf = block->buf;
    lane->spare_slot = block->slot;
    block->file->blocks--;
    block->buf = NULL;
    block->state = BLOCK_FREE;
    lane->next--;
}

static void put_cursors(struct cfsr_inbox_lane *lane, struct block *block)
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
    struct block *block = begin_block(lane, cfsr_inbox_data_bytes(lane->site));
    uint8_t *payload = (uint8_t *)block->buf + CFSR_INBOX_LOCAL_HEADER_BYTES;
    uint32_t payload_bytes = cfsr_inbox_index_store(&lane->index, lane->staged, lane->origins,
                                                    payload);

    finish_record(lane, block, CFSR_INBOX_INDEX, payload_bytes, 0, lane->now_us);
    close_block(lane, block);
}

static bool fits_segment(const struct cfsr_inbox_lane *lane, uint64_t body_offset, uint32_t bytes)
{
    return body_offset + block_space(bytes) <= cfsr_inbox_data_bytes(lane->site);
}

static bool fits_block(const struct cfsr_inbox_lane *lane, const struct block *block,
                       uint32_t bytes)
{
    return block->used_bytes + bytes <= CFSR_INBOX_SLOT_BYTES &&
           fits_segment(lane, block->body_offset, block->used_bytes + bytes);
}

/* One step towards a filling block: 0 made one (go on), or what is missing. */
static int open_block(struct cfsr_inbox_lane *lane, uint32_t space)
{
    struct block *block;
    bool full;

    if (lane->opening && !fits_segment(lane, lane->body_offset, cursors_space(lane)))
        leave_segment(
            lane); /* the rest of a segment from before the start is left without an INDEX */
    full = !lane->opening && lane->body_offset > 0 && !fits_segment(lane, lane->body_offset, space);
    if (find_file(lane, lane->sequence) == NULL)
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
        close_block(lane, block);
    }
    return 0;
}

/* Nothing is added to the filling block. */
static void end_filling(struct cfsr_inbox_lane *lane)
{
    struct block *block = filling_block(lane);

    if (block != NULL && block->used_bytes == 0)
        cancel_block(lane, block);
    else if (block != NULL)
        close_block(lane, block);
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
        struct block *block;
        int rc = cfsr_inbox_lane_put_cursors(lane);

        if (rc < 0 || lane->failed)
            return rc < 0 ? rc : -CFSR_E_FAILED;
        block = filling_block(lane);
        if (block != NULL && fits_block(lane, block, space))
            return 0;
        end_filling(lane);
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

void cfsr_inbox_lane_put(struct cfsr_inbox_lane *lane, const struct cfsr_batch_header *header,
                         const void *frame, uint32_t frame_bytes,
                         const struct cfsr_record_stamp *last, uint32_t entries, uint64_t now_us,
                         uint64_t now_ns)
{
    struct block *block = filling_block(lane);
    uint32_t origin = origin_of(lane, header);
    struct cfsr_inbox_cursor *cursor = &lane->staged[origin];
    uint64_t body_offset, arrival;
    uint8_t *record;

    CFSR_ASSERT(block != NULL && !lane->failed && header->lane == lane->lane);
    CFSR_ASSERT(header->lsn_from <= cursor->lsn && header->lsn_from < header->lsn_to);
    CFSR_ASSERT(fits_block(lane, block,
                           cfsr_inbox_record_space(CFSR_INBOX_LOCAL_HEADER_BYTES + frame_bytes)));
    body_offset = block->body_offset + block->used_bytes;
    record = (uint8_t *)block->buf + block->used_bytes;
    memcpy(record + CFSR_INBOX_LOCAL_HEADER_BYTES, frame, frame_bytes);
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

void cfsr_inbox_lane_put_repair(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_gap *gap,
                                uint32_t part, const void *frame, uint32_t frame_bytes,
                                uint64_t now_us, uint64_t now_ns)
{
    struct block *block = filling_block(lane);
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

void cfsr_inbox_lane_end(const struct cfsr_inbox_lane *lane, struct cfsr_inbox_end *end_out)
{
    end_out->sequence = lane->durable_sequence;
    end_out->body_offset = lane->durable_end;
    end_out->origins = lane->origins;
    memcpy(end_out->cursor, lane->durable, lane->origins * sizeof lane->durable[0]);
}

void cfsr_inbox_lane_fallback(const struct cfsr_inbox_lane *lane,
                              struct cfsr_inbox_state *state_out)
{
    CFSR_ASSERT(lane->failed);
    memset(state_out, 0, sizeof *state_out);
    /* A segment with a durable record is left as it is: what was on its way into it may land yet.
     */
    state_out->sequence = lane->durable_end > 0        ? lane->durable_sequence + 1
                          : lane->durable_sequence > 0 ? lane->durable_sequence
                                                       : 1;
    state_out->arrival = lane->durable_arrival;
    state_out->incarnation = lane->incarnation + 1;
    state_out->end_sequence = lane->durable_sequence;
    state_out->end_offset = lane->durable_end;
    state_out->origins = lane->origins;
    memcpy(state_out->cursor, lane->durable, lane->origins * sizeof lane->durable[0]);
    cfsr_inbox_index_reset(&state_out->index);
}

/* The block that would be taken next may be written now as far as its predecessors are concerned.
 */
static bool may_issue(const struct cfsr_inbox_lane *lane)
{
    const struct block *block = &lane->block[lane->issue % CFSR_INBOX_WRITES_MAX];
    const struct block *oldest = &lane->block[lane->oldest % CFSR_INBOX_WRITES_MAX];

    if (lane->issue == lane->oldest)
        return true;
    return !block->barrier && !oldest->opening;
}

static bool is_due(const struct cfsr_inbox_lane *lane, const struct block *block, uint64_t now_ns)
{
    if (block->state == BLOCK_READY)
        return true;
    if (block->batches == 0)
        return false;
    return block->due || block->used_bytes >= lane->options.sync_bytes ||
           now_ns >= block->oldest_ns + lane->options.sync_delay_ns;
}

bool cfsr_inbox_lane_take_write(struct cfsr_inbox_lane *lane, bool ack_now, uint64_t now_ns,
                                struct cfsr_inbox_write *write_out)
{
    struct block *block = filling_block(lane);

    if (block != NULL && ack_now && block->batches > 0)
        block->due = true;
    if (lane->failed || lane->issue == lane->next || !may_issue(lane))
        return false;
    block = block_at(lane, lane->issue);
    if (!is_due(lane, block, now_ns))
        return false;
    if (block->state == BLOCK_FILLING)
        close_block(lane, block);
    block->state = BLOCK_IN_FLIGHT;
    *write_out = (struct cfsr_inbox_write){
        .file = block->file->file,
        .buf = block->buf,
        .len_bytes = block->used_bytes,
        .offset_bytes = cfsr_inbox_file_offset(block->body_offset),
        .slot = block->slot,
        .index = (uint16_t)(lane->issue % CFSR_INBOX_WRITES_MAX),
    };
    lane->issue++;
    return true;
}

uint64_t cfsr_inbox_lane_deadline_ns(const struct cfsr_inbox_lane *lane)
{
    const struct block *block = &lane->block[lane->issue % CFSR_INBOX_WRITES_MAX];

    if (lane->failed || lane->issue == lane->next || !may_issue(lane))
        return UINT64_MAX; /* only a completion can change that */
    if (block->state == BLOCK_READY || (block->batches > 0 && block->due))
        return 0;
    return block->batches == 0 ? UINT64_MAX : block->oldest_ns + lane->options.sync_delay_ns;
}

/* Durable cursors follow the done blocks from the oldest on. */
static void advance_durable(struct cfsr_inbox_lane *lane)
{
    while (lane->oldest < lane->issue) {
        struct block *block = block_at(lane, lane->oldest);
        uint64_t changed;

        if (block->state != BLOCK_DONE)
            return;
        for (changed = block->changed; changed != 0; changed &= changed - 1) {
            unsigned origin = (unsigned)__builtin_ctzll(changed);

            CFSR_ASSERT(block->cursor[origin].lsn >= lane->durable[origin].lsn);
            lane->durable[origin] = block->cursor[origin];
        }
        lane->durable_sequence = block->file->sequence;
        lane->durable_end = block->body_offset + block->records_bytes;
        lane->durable_arrival = block->arrival_end;
        if (lane->durable_sequence == lane->sequence)
            lane->durable_below = lane->durable_end;
        block->state = BLOCK_FREE;
        lane->oldest++;
    }
}

int cfsr_inbox_lane_written(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_write *write,
                            int result, uint32_t *slot_out)
{
    struct block *block;

    CFSR_ASSERT(write->index < CFSR_INBOX_WRITES_MAX);
    block = &lane->block[write->index];
    CFSR_ASSERT(block->state == BLOCK_IN_FLIGHT && block->slot == write->slot);
    block->state = BLOCK_DONE;
    block->buf = NULL;
    CFSR_ASSERT(block->file->blocks > 0);
    block->file->blocks--;
    *slot_out = block->slot;
    if (result < 0 && !lane->failed) {
        lane->failed = true;
        cfsr_fail(result, "writing inbox lane %u, segment %llu failed: %s; check the disk",
                  lane->lane, (unsigned long long)block->file->sequence, cfsr_strerror(result));
    }
    if (lane->failed)
        return -CFSR_E_FAILED;
    advance_durable(lane);
    return 0;
}

int cfsr_inbox_lane_origin(struct cfsr_inbox_lane *lane, uint64_t site_id,
                           const struct cfsr_uuid *journal)
{
    uint32_t i;

    for (i = 0; i < lane->origins; i++) {
        if (lane->staged[i].site_id == site_id &&
            cfsr_uuid_equal(&lane->staged[i].journal, journal))
            return (int)i;
    }
    if (lane->origins == CFSR_INBOX_ORIGINS_MAX)
        return cfsr_fail(
            -ENOSPC, "inbox lane %u knows %d journals already, no room for one more of site %llu",
            lane->lane, CFSR_INBOX_ORIGINS_MAX, (unsigned long long)site_id);
    lane->staged[i] = (struct cfsr_inbox_cursor){.site_id = site_id, .journal = *journal};
    lane->staged[i].last.lsn = UINT64_MAX;
    lane->durable[i] = lane->staged[i];
    lane->origins++;
    return (int)i;
}

int cfsr_inbox_lane_find_site(const struct cfsr_inbox_lane *lane, uint64_t site_id)
{
    uint32_t i;

    for (i = lane->origins; i > 0; i--) { /* the newest journal of the site */
        if (lane->staged[i - 1].site_id == site_id)
            return (int)(i - 1);
    }
    return -ENOENT;
}

const struct cfsr_inbox_cursor *cfsr_inbox_lane_staged(const struct cfsr_inbox_lane *lane,
                                                       int origin)
{
    CFSR_ASSERT(origin >= 0 && (uint32_t)origin < lane->origins);
    return &lane->staged[origin];
}

const struct cfsr_inbox_cursor *cfsr_inbox_lane_durable(const struct cfsr_inbox_lane *lane,
                                                        int origin)
{
    CFSR_ASSERT(origin >= 0 && (uint32_t)origin < lane->origins);
    return &lane->durable[origin];
}

uint64_t cfsr_inbox_lane_pending_bytes(const struct cfsr_inbox_lane *lane)
{
    uint64_t number, bytes = 0;

    for (number = lane->oldest; number < lane->next; number++)
        bytes += lane->block[number % CFSR_INBOX_WRITES_MAX].used_bytes;
    return bytes;
}

void cfsr_inbox_lane_want_cursors(struct cfsr_inbox_lane *lane)
{
    lane->cursors_due = true;
}

bool cfsr_inbox_lane_failed(const struct cfsr_inbox_lane *lane)
{
    return lane->failed;
}
