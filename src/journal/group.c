/*
 * group.c - forming commit groups; see group.h.
 *
 * Thread:     whoever holds the lane.
 * Invariants: start_lsn <= end_lsn; a staged record lies in one segment; the MARK of a group is
 * filled in when the group is taken, because only then is everything below it durable, and that is
 * what it says. Rejected:   a MARK at the end of each group (a torn group would lose it, and with
 * it the proof of the group before).
 */
#include "journal/group.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "journal/record.h"
#include "journal/segment.h"
#include "journal/status_page.h"

#define MARK_BYTES (CFSR_RECORD_HEADER_BYTES + CFSR_MARK_PAYLOAD_BYTES)

static uint32_t shard_count_of(const struct cfsr_site *site, uint32_t lane)
{
    return (site->shards - lane + site->lanes - 1) / site->lanes;
}

static uint32_t shards_bytes(uint32_t count)
{
    return CFSR_RECORD_HEADER_BYTES + CFSR_SHARDS_PAYLOAD_FIXED + 8 * count;
}

/* Head of a block, SHARDS, MARK, a full group, one more record, PAD, tail of a block. */
static size_t capacity_of(uint32_t buffer_bytes, uint32_t shard_count)
{
    return CFSR_GROUP_BLOCK_BYTES + shards_bytes(shard_count) + MARK_BYTES + (size_t)buffer_bytes +
           cfsr_align_up(CFSR_RECORD_MAX_BYTES, CFSR_RECORD_ALIGN) + CFSR_RECORD_HEADER_BYTES +
           2 * CFSR_GROUP_BLOCK_BYTES;
}

int cfsr_group_init(struct cfsr_commit_group *group, const struct cfsr_site *site, uint32_t lane,
                    uint32_t buffer_bytes, const struct cfsr_lane_state *state, const void *block)
{
    struct cfsr_commit_group made = {
        .site_id = site->site_id,
        .segment_bytes = site->segment_bytes,
        .seed = cfsr_record_seed(&site->journal),
        .lane = lane,
        .lanes = site->lanes,
        .shards = site->shards,
        .shard_count = shard_count_of(site, lane),
        .buffer_bytes = buffer_bytes,
        .block_lsn = cfsr_align_down(state->end_lsn, CFSR_GROUP_BLOCK_BYTES),
        .start_lsn = state->end_lsn,
        .data_end_lsn = state->end_lsn,
        .end_lsn = state->end_lsn,
        .mark_lsn = CFSR_LSN_UNKNOWN,
        .incarnation = state->incarnation,
        .entries = state->entries,
        .last_us = state->max_timestamp_us,
        .segment_ready = state->end_lsn % site->segment_bytes != 0,
    };
    size_t capacity = cfsr_align_up(capacity_of(buffer_bytes, made.shard_count),
                                    CFSR_GROUP_BLOCK_BYTES);

    made.next_seq = calloc(made.shard_count, sizeof *made.next_seq);
    made.buffers[0] = aligned_alloc(CFSR_GROUP_BLOCK_BYTES, capacity);
    made.buffers[1] = aligned_alloc(CFSR_GROUP_BLOCK_BYTES, capacity);
    if (made.next_seq == NULL || made.buffers[0] == NULL || made.buffers[1] == NULL) {
        cfsr_group_fini(&made);
        return -ENOMEM;
    }
    memcpy(made.next_seq, state->next_seq, made.shard_count * sizeof *made.next_seq);
    CFSR_ASSERT(block != NULL || made.block_lsn == made.start_lsn);
    if (made.block_lsn != made.start_lsn)
        memcpy(made.buffers[0], block, made.start_lsn - made.block_lsn);
    *group = made;
    return 0;
}

void cfsr_group_fini(struct cfsr_commit_group *group)
{
    free(group->next_seq);
    free(group->buffers[0]);
    free(group->buffers[1]);
    *group = (struct cfsr_commit_group){0};
}

static void put_header(void *record, uint64_t site_id, uint32_t lane, uint8_t op,
                       uint32_t payload_bytes, uint64_t timestamp_us)
{
    cfsr_record_header_store(record, &(struct cfsr_record_header){
                                         .payload_bytes = payload_bytes,
                                         .timestamp_us = timestamp_us,
                                         .site_id = site_id,
                                         .shard_id = lane,
                                         .op = op,
                                     });
}

uint32_t cfsr_group_put_shards(void *record, const struct cfsr_site *site, uint32_t lane,
                               uint64_t lsn, uint64_t timestamp_us, const uint64_t *next_seq)
{
    uint32_t count = shard_count_of(site, lane), total = shards_bytes(count);
    uint8_t *payload = (uint8_t *)record + CFSR_RECORD_HEADER_BYTES;

    put_header(record, site->site_id, lane, CFSR_RECORD_SHARDS, total - CFSR_RECORD_HEADER_BYTES,
               timestamp_us);
    cfsr_store_le32(payload, lane);
    cfsr_store_le32(payload + 4, site->lanes);
    cfsr_store_le32(payload + 8, count);
    cfsr_store_le32(payload + 12, 0);
    for (uint32_t i = 0; i < count; i++)
        cfsr_store_le64(payload + CFSR_SHARDS_PAYLOAD_FIXED + 8ull * i, next_seq[i]);
    cfsr_record_seal(record, cfsr_record_seed(&site->journal), lsn);
    return total;
}

uint32_t cfsr_group_put_mark(void *record, const struct cfsr_site *site, uint32_t lane,
                             uint64_t lsn, const struct cfsr_lane_state *state)
{
    uint8_t *payload = (uint8_t *)record + CFSR_RECORD_HEADER_BYTES;

    put_header(record, site->site_id, lane, CFSR_RECORD_MARK, CFSR_MARK_PAYLOAD_BYTES,
               state->max_timestamp_us);
    memset(payload, 0, CFSR_MARK_PAYLOAD_BYTES);
    cfsr_store_le64(payload, state->incarnation);
    cfsr_store_le64(payload + 8, state->end_lsn);
    cfsr_store_le64(payload + 16, state->entries);
    cfsr_store_le64(payload + 24, state->max_timestamp_us);
    cfsr_record_seal(record, cfsr_record_seed(&site->journal), lsn);
    return CFSR_RECORD_HEADER_BYTES + CFSR_MARK_PAYLOAD_BYTES;
}

uint32_t cfsr_group_put_pad(void *record, const struct cfsr_site *site, uint32_t lane, uint64_t lsn,
                            uint64_t timestamp_us)
{
    uint64_t room = site->segment_bytes - lsn % site->segment_bytes;

    CFSR_ASSERT(room >= CFSR_RECORD_HEADER_BYTES);
    put_header(record, site->site_id, lane, CFSR_RECORD_PAD,
               (uint32_t)(room - CFSR_RECORD_HEADER_BYTES), timestamp_us);
    cfsr_record_seal(record, cfsr_record_seed(&site->journal), lsn);
    return CFSR_RECORD_HEADER_BYTES;
}

static uint8_t *place(struct cfsr_commit_group *group, uint64_t lsn)
{
    return group->buffers[group->staging] + (lsn - group->block_lsn);
}

/* Bytes left in the segment end_lsn stands in; a boundary is the start of a whole segment. */
static uint64_t room_of(const struct cfsr_commit_group *group)
{
    return group->segment_bytes - group->end_lsn % group->segment_bytes;
}

/* Counts written bytes. With less than a header left the segment is full: its last bytes are
 * implied padding. */
static void advance(struct cfsr_commit_group *group, uint64_t bytes)
{
    uint64_t room = room_of(group) - bytes;

    group->data_end_lsn = group->end_lsn + bytes;
    group->closed = room < CFSR_RECORD_HEADER_BYTES;
    group->end_lsn = group->data_end_lsn + (group->closed ? room : 0);
    group->open = true;
}

/* Fills the segment's end with a PAD and closes the group. */
static int finish_segment(struct cfsr_commit_group *group)
{
    uint64_t room = room_of(group), lsn = group->end_lsn;

    CFSR_ASSERT(room < group->segment_bytes && room >= CFSR_RECORD_HEADER_BYTES);
    put_header(place(group, lsn), group->site_id, group->lane, CFSR_RECORD_PAD,
               (uint32_t)(room - CFSR_RECORD_HEADER_BYTES), group->last_us);
    cfsr_record_seal(place(group, lsn), group->seed, lsn);
    advance(group, CFSR_RECORD_HEADER_BYTES);
    group->end_lsn = lsn + room; /* data_end_lsn stays: filler is not written */
    group->closed = true;
    return CFSR_GROUP_NEED_FLUSH;
}

static void put_staged_shards(struct cfsr_commit_group *group, uint64_t timestamp_us)
{
    uint32_t total = shards_bytes(group->shard_count);
    uint8_t *record = place(group, group->end_lsn), *payload = record + CFSR_RECORD_HEADER_BYTES;

    put_header(record, group->site_id, group->lane, CFSR_RECORD_SHARDS,
               total - CFSR_RECORD_HEADER_BYTES, timestamp_us);
    cfsr_store_le32(payload, group->lane);
    cfsr_store_le32(payload + 4, group->lanes);
    cfsr_store_le32(payload + 8, group->shard_count);
    cfsr_store_le32(payload + 12, 0);
    for (uint32_t i = 0; i < group->shard_count; i++)
        cfsr_store_le64(payload + CFSR_SHARDS_PAYLOAD_FIXED + 8ull * i, group->next_seq[i]);
    cfsr_record_seal(record, group->seed, group->end_lsn);
    advance(group, total);
}

/* Makes room for total bytes, opening a group if there is none. */
static int reserve(struct cfsr_commit_group *group, uint64_t total, uint64_t timestamp_us,
                   uint32_t mark_flags)
{
    uint64_t head = 0;

    if (group->closed)
        return CFSR_GROUP_NEED_FLUSH;
    if (!group->segment_ready)
        return CFSR_GROUP_NEED_SEGMENT;
    if (!group->open) {
        head = MARK_BYTES;
        if (group->end_lsn % group->segment_bytes == 0)
            head += shards_bytes(group->shard_count);
    } else if (group->end_lsn - group->start_lsn >= group->buffer_bytes) {
        return CFSR_GROUP_NEED_FLUSH;
    }
    if (room_of(group) < head + total)
        return finish_segment(group);
    group->last_us = cfsr_max_u64(group->last_us, timestamp_us);
    if (group->open)
        return CFSR_GROUP_STAGED;
    if (head > MARK_BYTES)
        put_staged_shards(group, timestamp_us);
    group->mark_lsn = group->end_lsn;
    group->mark_flags = mark_flags;
    put_header(place(group, group->mark_lsn), group->site_id, group->lane, CFSR_RECORD_MARK,
               CFSR_MARK_PAYLOAD_BYTES, timestamp_us);
    cfsr_store_le64(place(group, group->mark_lsn) + CFSR_RECORD_HEADER_BYTES + 16, group->entries);
    advance(group, MARK_BYTES);
    return CFSR_GROUP_STAGED;
}

int cfsr_group_stage(struct cfsr_commit_group *group, const struct cfsr_entry *entry,
                     uint32_t shard, uint64_t timestamp_us,
                     struct cfsr_entry_position *position_out)
{
    uint64_t total = cfsr_align_up((uint64_t)CFSR_RECORD_HEADER_BYTES + entry->payload_bytes,
                                   CFSR_RECORD_ALIGN);
    uint64_t lsn, *next_seq;
    uint8_t *record;
    int answer;

    if (entry->payload_bytes > CFSR_RECORD_PAYLOAD_MAX)
        return -CFSR_E_TOO_LARGE;
    if (entry->op > CFSR_OP_ENTRY_MAX || shard >= group->shards ||
        (shard & (group->lanes - 1)) != group->lane)
        return -CFSR_E_FORMAT;
    next_seq = &group->next_seq[shard / group->lanes];
    if (*next_seq == UINT64_MAX)
        return -CFSR_E_SEQ_WRAP;
    answer = reserve(group, total, timestamp_us, 0);
    if (answer != CFSR_GROUP_STAGED)
        return answer;

    lsn = group->end_lsn;
    record = place(group, lsn);
    cfsr_record_header_store(record, &(struct cfsr_record_header){
                                         .payload_bytes = entry->payload_bytes,
                                         .seq = *next_seq,
                                         .timestamp_us = timestamp_us,
                                         .inode = entry->inode,
                                         .site_id = group->site_id,
                                         .shard_id = shard,
                                         .op = entry->op,
                                         .flags = entry->flags,
                                     });
    if (entry->payload_bytes > 0)
        memcpy(record + CFSR_RECORD_HEADER_BYTES, entry->payload, entry->payload_bytes);
    memset(record + CFSR_RECORD_HEADER_BYTES + entry->payload_bytes, 0,
           total - CFSR_RECORD_HEADER_BYTES - entry->payload_bytes);
    cfsr_record_seal(record, group->seed, lsn);
    advance(group, total);
    group->entries++;
    group->group_entries++;
    *position_out = (struct cfsr_entry_position){.lane = group->lane,
                                                 .lsn = lsn,
                                                 .end_lsn = group->end_lsn,
                                                 .seq = (*next_seq)++,
                                                 .timestamp_us = timestamp_us};
    return CFSR_GROUP_STAGED;
}

int cfsr_group_stage_mark(struct cfsr_commit_group *group, uint64_t timestamp_us, uint32_t flags)
{
    if (group->open)
        return CFSR_GROUP_NEED_FLUSH;
    return reserve(group, 0, timestamp_us, flags);
}

void cfsr_group_segment_opened(struct cfsr_commit_group *group)
{
    CFSR_ASSERT(!group->segment_ready && !group->open);
    CFSR_ASSERT(group->end_lsn % group->segment_bytes == 0);
    group->segment_ready = true;
}

static void finish_mark(struct cfsr_commit_group *group, uint64_t wall_us)
{
    uint8_t *record = place(group, group->mark_lsn), *payload = record + CFSR_RECORD_HEADER_BYTES;

    cfsr_store_le64(payload, group->incarnation);
    cfsr_store_le64(payload + 8, group->start_lsn);
    cfsr_store_le64(payload + 24, wall_us);
    cfsr_store_le32(payload + 32, group->mark_flags);
    cfsr_store_le32(payload + 36, 0);
    cfsr_record_seal(record, group->seed, group->mark_lsn);
}

void cfsr_group_take(struct cfsr_commit_group *group, uint64_t wall_us,
                     struct cfsr_group_span *span_out)
{
    uint64_t next_block;

    CFSR_ASSERT(group->open && !group->in_flight);
    if (group->mark_lsn != CFSR_LSN_UNKNOWN)
        finish_mark(group, wall_us);
    *span_out = (struct cfsr_group_span){
        .block = group->buffers[group->staging],
        .block_lsn = group->block_lsn,
        .lsn = group->start_lsn,
        .data_end_lsn = group->data_end_lsn,
        .zeroed_end_lsn = cfsr_align_up(group->data_end_lsn, CFSR_GROUP_BLOCK_BYTES),
        .end_lsn = group->end_lsn,
        .entries = group->entries,
        .group_entries = group->group_entries,
    };
    memset(place(group, group->data_end_lsn), 0, span_out->zeroed_end_lsn - group->data_end_lsn);

    next_block = cfsr_align_down(group->end_lsn, CFSR_GROUP_BLOCK_BYTES);
    if (!group->closed)
        memcpy(group->buffers[group->staging ^ 1], place(group, next_block),
               group->end_lsn - next_block);
    else
        group->segment_ready = false;
    group->staging ^= 1;
    group->block_lsn = next_block;
    group->start_lsn = group->data_end_lsn = group->end_lsn;
    group->mark_lsn = CFSR_LSN_UNKNOWN;
    group->group_entries = 0;
    group->open = false;
    group->closed = false;
    group->in_flight = true;
}

void cfsr_group_done(struct cfsr_commit_group *group)
{
    CFSR_ASSERT(group->in_flight);
    group->in_flight = false;
}
