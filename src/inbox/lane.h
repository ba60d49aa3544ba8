/*
 * lane.h - inside of the writer of one lane, shared by its two files: lane.c, which has the window
 * of write blocks, the slots and the files, and lane_put.c, which lays records out in blocks.
 */
#ifndef CFSR_INBOX_LANE_H
#define CFSR_INBOX_LANE_H

#include "inbox/inbox.h"

enum lane_block_state {
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

struct lane_block {
    enum lane_block_state state;
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
    struct lane_file file[CFSR_INBOX_FILES_MAX];

    void *spare_buf;
    uint32_t spare_slot;

    uint64_t oldest, issue, next; /* not durable; to be taken; to be laid out: blocks by number */
    struct lane_block block[CFSR_INBOX_WRITES_MAX];

    uint32_t origins;
    struct cfsr_inbox_cursor staged[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_cursor durable[CFSR_INBOX_ORIGINS_MAX];
};

_Static_assert(CFSR_INBOX_ORIGINS_MAX <= 64, "a word has a bit for each cursor a block can move");

static inline struct lane_block *lane_block_at(struct cfsr_inbox_lane *lane, uint64_t number)
{
    return &lane->block[number % CFSR_INBOX_WRITES_MAX];
}

static inline struct lane_block *lane_filling_block(struct cfsr_inbox_lane *lane)
{
    struct lane_block *block;

    if (lane->next == lane->oldest)
        return NULL;
    block = lane_block_at(lane, lane->next - 1);
    return block->state == BLOCK_FILLING ? block : NULL;
}

static inline struct lane_file *lane_find_file(struct cfsr_inbox_lane *lane, uint64_t sequence)
{
    unsigned i;

    for (i = 0; i < CFSR_INBOX_FILES_MAX; i++) {
        if (lane->file[i].file != NULL && lane->file[i].sequence == sequence)
            return &lane->file[i];
    }
    return NULL;
}

/* No more records into the filling block: its length is known from here on (lane_put.c). */
void cfsr_inbox_lane_close_block(struct cfsr_inbox_lane *lane, struct lane_block *block);

#endif
