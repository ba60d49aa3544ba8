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
#include "inbox/lane.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/repair.h"

#define SYNC_BYTES_DEFAULT    (1u << 20)
#define SYNC_DELAY_NS_DEFAULT 1000000u
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
    for (i = 0; i < CFSR_INBOX_FILES_MAX; i++)
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
        struct lane_block *block = &lane->block[i];

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

    for (i = 0; i < CFSR_INBOX_FILES_MAX; i++) {
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
    if (lane_find_file(l, lane->sequence) == NULL)
        return lane->sequence;
    if (lane->body_offset >= lane->site->segment_bytes / 2 &&
        lane_find_file(l, lane->sequence + 1) == NULL)
        return lane->sequence + 1;
    return 0;
}

void cfsr_inbox_lane_give_segment(struct cfsr_inbox_lane *lane, uint64_t sequence,
                                  struct cfsr_file *file)
{
    struct lane_file *entry = free_file(lane);

    CFSR_ASSERT(file != NULL && entry != NULL);
    CFSR_ASSERT(sequence == lane->sequence || sequence == lane->sequence + 1);
    CFSR_ASSERT(lane_find_file(lane, sequence) == NULL);
    *entry = (struct lane_file){.file = file, .sequence = sequence};
}

struct cfsr_file *cfsr_inbox_lane_retired_file(struct cfsr_inbox_lane *lane)
{
    unsigned i;

    for (i = 0; i < CFSR_INBOX_FILES_MAX; i++) {
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

    for (i = 0; i < CFSR_INBOX_FILES_MAX; i++) {
        struct cfsr_file *file = lane->file[i].file;

        if (file == NULL)
            continue;
        lane->file[i].file = NULL;
        return file;
    }
    return NULL;
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
    const struct lane_block *block = &lane->block[lane->issue % CFSR_INBOX_WRITES_MAX];
    const struct lane_block *oldest = &lane->block[lane->oldest % CFSR_INBOX_WRITES_MAX];

    if (lane->issue == lane->oldest)
        return true;
    return !block->barrier && !oldest->opening;
}

static bool is_due(const struct cfsr_inbox_lane *lane, const struct lane_block *block,
                   uint64_t now_ns)
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
    struct lane_block *block = lane_filling_block(lane);

    if (block != NULL && ack_now && block->batches > 0)
        block->due = true;
    if (lane->failed || lane->issue == lane->next || !may_issue(lane))
        return false;
    block = lane_block_at(lane, lane->issue);
    if (!is_due(lane, block, now_ns))
        return false;
    if (block->state == BLOCK_FILLING)
        cfsr_inbox_lane_close_block(lane, block);
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
    const struct lane_block *block = &lane->block[lane->issue % CFSR_INBOX_WRITES_MAX];

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
        struct lane_block *block = lane_block_at(lane, lane->oldest);
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
    struct lane_block *block;

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
