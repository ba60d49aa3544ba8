/*
 * origin.c - the local service of a simulated site (origin.h).
 *
 * Thread:     the simulator's.
 * Invariants: an entry is remembered when it is staged and promised when its group is durable; what
 *             lies between after a failure is in doubt, and recovery decides.
 */
#include "origin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "journal/group.h"
#include "journal/lane_file.h"
#include "journal/record.h"
#include "journal/recovery.h"
#include "journal/segment_map.h"

#define GROUP_BYTES (1536u << 10)

struct origin {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    struct origin_clock *clock;
    struct origin_truth *truth;
    uint32_t lane;
    struct cfsr_commit_group group;
    struct cfsr_lane_file files;
    uint64_t head, entries, lowest;
    uint64_t found_lsn; /* where recovery says that what was written ends */
    bool failed;
    uint8_t *payload;
};

struct origin_truth origin_truth_copy(const struct origin_truth *truth)
{
    struct origin_truth copy = *truth;

    copy.entry = malloc((truth->room + 1) * sizeof *copy.entry);
    memcpy(copy.entry, truth->entry, truth->count * sizeof *copy.entry);
    return copy;
}

void origin_truth_fini(struct origin_truth *truth)
{
    free(truth->entry);
    memset(truth, 0, sizeof *truth);
}

static int remember(struct origin_truth *truth, const struct origin_entry *entry)
{
    if (truth->count == truth->room) {
        uint64_t room = cfsr_max_u64(256, truth->room * 2);
        struct origin_entry *grown = realloc(truth->entry, room * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        truth->entry = grown;
        truth->room = room;
    }
    truth->entry[truth->count++] = *entry;
    return 0;
}

static uint64_t stamp(struct origin *origin)
{
    return cfsr_hlc_next(&origin->clock->hlc, origin->clock->wall_us);
}

/* Keeps those entries from `from` on that stand in a run of records. */
static void keep_found(struct origin_truth *truth, uint64_t from, uint64_t *kept, uint64_t lsn,
                       const uint8_t *data, uint32_t len_bytes)
{
    struct cfsr_record_header header;

    for (uint32_t at = 0; at + CFSR_RECORD_HEADER_BYTES <= len_bytes;) {
        cfsr_record_header_load(data + at, &header);
        for (uint64_t i = from + *kept; i < truth->count; i++) {
            if (truth->entry[i].lsn == lsn + at && truth->entry[i].seq == header.seq &&
                truth->entry[i].timestamp_us == header.timestamp_us)
                truth->entry[from + (*kept)++] = truth->entry[i];
        }
        at += (uint32_t)cfsr_min_u64(cfsr_record_total_bytes(&header), len_bytes - at);
    }
}

/* What was in doubt is decided by what the lane holds now, read from the promise on. */
static void settle(struct origin *origin)
{
    struct origin_truth *truth = origin->truth;
    uint64_t first, kept = 0;
    struct cfsr_lane_cursor cursor;

    if (truth == NULL)
        return;
    for (first = truth->count; first > 0; first--)
        if (truth->entry[first - 1].end_lsn <= cfsr_min_u64(truth->committed_lsn, origin->head))
            break;
    if (first < truth->count && truth->committed_lsn < origin->head &&
        cfsr_lane_cursor_init(&cursor, origin->fs, origin->site, origin->lane,
                              truth->committed_lsn) == 0) {
        while (cfsr_lane_cursor_next(&cursor, origin->head) == 1)
            keep_found(truth, first, &kept, cursor.scan.lsn, cursor.scan.data,
                       cursor.scan.raw_bytes);
        cfsr_lane_cursor_fini(&cursor);
    }
    truth->count = first + kept;
    truth->committed_lsn = origin->head;
}

static int begin(struct origin *origin, const struct cfsr_lane_state *state)
{
    const struct cfsr_site *site = origin->site;
    uint8_t block[CFSR_GROUP_BLOCK_BYTES];
    bool resumes = state->end_lsn % site->segment_bytes != 0;
    int rc = cfsr_lane_file_init(&origin->files, origin->fs, site, origin->lane, false,
                                 state->incarnation);

    if (rc < 0)
        return rc;
    if (resumes)
        rc = cfsr_lane_file_resume(&origin->files, state->end_lsn, block);
    if (rc == 0)
        rc = cfsr_group_init(&origin->group, site, origin->lane, GROUP_BYTES, state,
                             resumes ? block : NULL);
    if (rc < 0) {
        cfsr_lane_file_fini(&origin->files);
        return rc;
    }
    origin->head = state->end_lsn;
    origin->found_lsn = cfsr_min_u64(state->end_lsn, state->cut_lsn);
    origin->entries = state->entries;
    origin->lowest = state->first_lsn;
    cfsr_hlc_observe(&origin->clock->hlc, state->max_timestamp_us);
    settle(origin);
    return resumes ? origin_mark(origin) : 0; /* a MARK alone comes first behind a clean close */
}

/* Takes over the state. */
static int make(const struct origin *like, struct cfsr_lane_state *state,
                struct origin **origin_out)
{
    struct origin *origin = calloc(1, sizeof *origin);
    int rc;

    *origin = *like;
    origin->payload = malloc(CFSR_RECORD_PAYLOAD_MAX);
    rc = begin(origin, state);
    cfsr_lane_state_fini(state);
    if (rc == 0) {
        *origin_out = origin;
    } else if (origin->group.buffers[0] != NULL) {
        origin_close(origin);
    } else {
        free(origin->payload);
        free(origin);
    }
    return rc;
}

int origin_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                struct origin_clock *clock, struct origin_truth *truth, struct origin **origin_out)
{
    const struct origin like = {
        .fs = fs, .site = site, .lane = lane, .clock = clock, .truth = truth};
    struct cfsr_lane_state state;
    int rc = cfsr_journal_recover_lane(fs, site, lane, false, false, &state);

    return rc < 0 ? rc : make(&like, &state, origin_out);
}

int origin_recut(struct origin **origin)
{
    const struct origin like = {
        .fs = (*origin)->fs,
        .site = (*origin)->site,
        .lane = (*origin)->lane,
        .clock = (*origin)->clock,
        .truth = (*origin)->truth,
    };
    struct cfsr_lane_state state;
    uint64_t committed_lsn = (*origin)->head;

    origin_close(*origin);
    *origin = NULL;
    int rc = cfsr_journal_recut_lane(like.fs, like.site, like.lane, committed_lsn, &state);
    return rc < 0 ? rc : make(&like, &state, origin);
}

void origin_close(struct origin *origin)
{
    if (origin == NULL)
        return;
    cfsr_lane_file_fini(&origin->files);
    cfsr_group_fini(&origin->group);
    free(origin->payload);
    free(origin);
}

int origin_commit(struct origin *origin)
{
    struct cfsr_group_span span;
    int rc;

    if (origin->failed)
        return -CFSR_E_FAILED;
    if (!cfsr_group_has_work(&origin->group))
        return 0;
    cfsr_group_take(&origin->group, stamp(origin), &span);
    rc = cfsr_lane_file_write(&origin->files, &span);
    if (rc < 0) {
        origin->failed = true; /* what the disk holds now, only recovery can say */
        return rc;
    }
    cfsr_group_done(&origin->group);
    origin->head = span.end_lsn;
    origin->entries = span.entries;
    if (origin->truth != NULL)
        origin->truth->committed_lsn = cfsr_max_u64(origin->truth->committed_lsn, origin->head);
    return 0;
}

static int make_way(struct origin *origin, int answer)
{
    bool stalled;
    int rc = origin_commit(origin);

    if (rc < 0 || answer != CFSR_GROUP_NEED_SEGMENT)
        return rc;
    rc = cfsr_lane_file_rotate(&origin->files, cfsr_group_end_lsn(&origin->group),
                               origin->clock->wall_us, &stalled);
    if (rc == 0)
        cfsr_group_segment_opened(&origin->group);
    else if (rc != -ENOSPC)
        origin->failed = true;
    return rc;
}

int origin_mark(struct origin *origin)
{
    int answer, rc = 0;

    while (rc == 0 &&
           (answer = cfsr_group_stage_mark(&origin->group, stamp(origin), 0)) != CFSR_GROUP_STAGED)
        rc = answer < 0 ? answer : make_way(origin, answer);
    return rc < 0 ? rc : origin_commit(origin);
}

static void fill(uint8_t *payload, uint32_t len_bytes, uint64_t salt, bool plain)
{
    memset(payload, (int)(salt & 0x7f), len_bytes);
    for (uint32_t i = 0; i + 8 <= len_bytes / 2 && (!plain || i < 64); i += 8) {
        salt = salt * 6364136223846793005ull + 1442695040888963407ull;
        cfsr_store_le64(payload + i, salt);
    }
}

int origin_append(struct origin *origin, uint32_t payload_bytes, uint64_t salt, bool plain)
{
    const struct cfsr_site *site = origin->site;
    uint32_t shard = origin->lane + site->lanes * (uint32_t)(salt % (site->shards / site->lanes));
    struct cfsr_entry_position position;
    struct cfsr_entry entry = {
        .inode = salt,
        .op = (uint8_t)(salt % CFSR_OP_COUNT),
        .flags = CFSR_ENTRY_OPAQUE,
        .payload = origin->payload,
        .payload_bytes = payload_bytes,
    };
    int answer;

    if (origin->failed)
        return -CFSR_E_FAILED;
    fill(origin->payload, payload_bytes, salt, plain);
    while ((answer = cfsr_group_stage(&origin->group, &entry, shard, stamp(origin), &position)) !=
           CFSR_GROUP_STAGED) {
        int rc = answer < 0 ? answer : make_way(origin, answer);
        if (rc < 0)
            return rc;
    }
    if (origin->truth == NULL)
        return 0;
    return remember(origin->truth,
                    &(struct origin_entry){
                        .lsn = position.lsn,
                        .end_lsn = position.end_lsn,
                        .seq = position.seq,
                        .timestamp_us = position.timestamp_us,
                        .inode = salt,
                        .shard = shard,
                        .payload_bytes = payload_bytes,
                        .payload_crc = cfsr_crc32c(0, origin->payload, payload_bytes),
                    });
}

int origin_recycle_lowest(struct origin *origin)
{
    bool reused;
    int rc;

    if (origin->lowest + origin->site->segment_bytes >= origin->head)
        return -ENOENT;
    rc = cfsr_lane_file_recycle(&origin->files, origin->lowest, &reused);
    if (rc == 0)
        origin->lowest += origin->site->segment_bytes;
    return rc;
}

bool origin_failed(const struct origin *origin)
{
    return origin->failed;
}
uint64_t origin_head(const struct origin *origin)
{
    return origin->head;
}
uint64_t origin_found(const struct origin *origin)
{
    return origin->found_lsn;
}
uint64_t origin_lowest(const struct origin *origin)
{
    return origin->lowest;
}
uint64_t origin_entries(const struct origin *origin)
{
    return origin->entries;
}
