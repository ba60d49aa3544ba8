/*
 * group.h - forming commit groups: entries in, bytes and ranges out. No I/O, clock, thread or lock.
 *
 * A lane has one group that is being staged and at most one that is in flight. The driver stages
 * entries, takes the group when the disk is free, writes and syncs its span, and calls done. The
 * layout is made here: SHARDS first in each segment, MARK at the head of each group, PAD at a
 * segment's end, seq and LSN of every entry. A group never spans segments.
 *
 * Spans begin in a 4 KiB-aligned buffer whose head repeats the bytes of the block they continue,
 * and end in zeros up to the next block: a direct writer writes whole blocks, a buffered one never
 * makes the kernel read a page before changing it.
 */
#ifndef CFSR_JOURNAL_GROUP_H
#define CFSR_JOURNAL_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/recovery.h"
#include "journal/site.h"
#include <cfsrepl/journal.h>

#define CFSR_GROUP_BLOCK_BYTES 4096

enum cfsr_group_answer {
    CFSR_GROUP_STAGED = 0,
    CFSR_GROUP_NEED_FLUSH = 1, /* take and write the group first */
    CFSR_GROUP_NEED_SEGMENT =
        2, /* the segment that begins at cfsr_group_end_lsn() must be opened first */
};

struct cfsr_group_span {
    const uint8_t *block;    /* aligned: the byte of block_lsn */
    uint64_t block_lsn;      /* multiple of CFSR_GROUP_BLOCK_BYTES, <= lsn */
    uint64_t lsn;            /* first new byte */
    uint64_t data_end_lsn;   /* after the last byte that has to be written */
    uint64_t zeroed_end_lsn; /* data_end_lsn rounded up to a block: zeros are there */
    uint64_t end_lsn;        /* committed position once durable (a PAD's filler is skipped) */
    uint64_t entries;        /* cumulative entries of the lane at end_lsn */
    uint32_t group_entries;
};

struct cfsr_commit_group {
    uint64_t site_id;
    uint64_t segment_bytes;
    uint32_t seed;
    uint32_t lane, lanes, shards, shard_count;
    uint32_t buffer_bytes; /* a group is full when it has this many */
    uint8_t *buffers[2];   /* aligned, owned */
    unsigned staging;      /* index of the buffer being filled */
    uint64_t block_lsn;    /* of buffers[staging][0] */
    uint64_t start_lsn;    /* of the group being staged */
    uint64_t data_end_lsn;
    uint64_t end_lsn;
    uint64_t mark_lsn; /* of its MARK, CFSR_LSN_UNKNOWN if it has none */
    uint32_t mark_flags;
    uint32_t group_entries;
    bool open;   /* has at least one record */
    bool closed; /* its segment is finished: nothing more fits */
    bool in_flight;
    bool segment_ready; /* the segment at end_lsn may be written */
    uint64_t incarnation;
    uint64_t entries; /* cumulative, staged ones included */
    uint64_t last_us;
    uint64_t *next_seq; /* owned */
};

/* state: where recovery says the lane ends. block: the block end_lsn stands in (may be NULL if it
 * is aligned). -ENOMEM. */
int cfsr_group_init(struct cfsr_commit_group *group, const struct cfsr_site *site, uint32_t lane,
                    uint32_t buffer_bytes, const struct cfsr_lane_state *state, const void *block);
void cfsr_group_fini(struct cfsr_commit_group *group);

/*
 * Stages one entry of the given shard (of this lane) with its timestamp. An answer, or
 * -CFSR_E_TOO_LARGE, -CFSR_E_SEQ_WRAP, -CFSR_E_FORMAT (op or shard). position_out is set when it
 * was staged.
 */
int cfsr_group_stage(struct cfsr_commit_group *group, const struct cfsr_entry *entry,
                     uint32_t shard, uint64_t timestamp_us,
                     struct cfsr_entry_position *position_out);
/* Stages a group of a MARK only (idle, clean close, first of an incarnation). Needs no group to be
 * open. */
int cfsr_group_stage_mark(struct cfsr_commit_group *group, uint64_t timestamp_us, uint32_t flags);
/* The answer to NEED_SEGMENT: the segment at cfsr_group_end_lsn() is there. */
void cfsr_group_segment_opened(struct cfsr_commit_group *group);

static inline uint64_t cfsr_group_end_lsn(const struct cfsr_commit_group *group)
{
    return group->end_lsn;
}
static inline bool cfsr_group_has_work(const struct cfsr_commit_group *group)
{
    return group->open;
}
/* Closes the staged group and hands it out; the span is valid until done. Needs work, and nothing
 * in flight. */
void cfsr_group_take(struct cfsr_commit_group *group, uint64_t wall_us,
                     struct cfsr_group_span *span_out);
void cfsr_group_done(struct cfsr_commit_group *group);

/* Writes a sealed SHARDS or PAD record; used by recovery too. Bytes written at record. */
uint32_t cfsr_group_put_shards(void *record, const struct cfsr_site *site, uint32_t lane,
                               uint64_t lsn, uint64_t timestamp_us, const uint64_t *next_seq);
uint32_t cfsr_group_put_mark(void *record, const struct cfsr_site *site, uint32_t lane,
                             uint64_t lsn, const struct cfsr_lane_state *state);
uint32_t cfsr_group_put_pad(void *record, const struct cfsr_site *site, uint32_t lane, uint64_t lsn,
                            uint64_t timestamp_us);

#endif
