/*
 * origin.c - the local service of a simulated site (origin.h).
 */
#include "origin.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "journal/group.h"
#include "journal/lane_file.h"
#include "journal/record.h"
#include "journal/recovery.h"

#define GROUP_BYTES (1536u << 10)
#define EPOCH_US    1700000000000000ull

struct origin {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    struct cfsr_commit_group group;
    struct cfsr_lane_file files;
    uint64_t head, entries, lowest, stamp_us, appended;
    uint8_t *payload;
};

struct origin *origin_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane)
{
    struct origin *origin = calloc(1, sizeof *origin);
    struct cfsr_lane_state state;
    uint8_t block[CFSR_GROUP_BLOCK_BYTES];
    int rc = cfsr_journal_recover_lane(fs, site, lane, false, false, &state);

    cr_assert_eq(rc, 0, "lane %u: %s", lane, cfsr_error_message());
    origin->fs = fs;
    origin->site = site;
    origin->lane = lane;
    origin->payload = malloc(CFSR_RECORD_PAYLOAD_MAX);
    rc = cfsr_lane_file_init(&origin->files, fs, site, lane, false, state.incarnation);
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    bool resumes = state.end_lsn % site->segment_bytes != 0;
    if (resumes)
        cr_assert_eq(cfsr_lane_file_resume(&origin->files, state.end_lsn, block), 0, "%s",
                     cfsr_error_message());
    cr_assert_eq(
        cfsr_group_init(&origin->group, site, lane, GROUP_BYTES, &state, resumes ? block : NULL),
        0);
    origin->head = state.end_lsn;
    origin->entries = state.entries;
    origin->lowest = state.first_lsn;
    origin->stamp_us = cfsr_max_u64(EPOCH_US, state.max_timestamp_us);
    cfsr_lane_state_fini(&state);
    if (resumes) /* a MARK alone comes first behind a clean close */
        origin_mark(origin);
    return origin;
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

void origin_commit(struct origin *origin)
{
    struct cfsr_group_span span;

    if (!cfsr_group_has_work(&origin->group))
        return;
    cfsr_group_take(&origin->group, ++origin->stamp_us, &span);
    cr_assert_eq(cfsr_lane_file_write(&origin->files, &span), 0, "%s", cfsr_error_message());
    cfsr_group_done(&origin->group);
    origin->head = span.end_lsn;
    origin->entries = span.entries;
}

static void make_way(struct origin *origin, int answer)
{
    bool stalled;

    origin_commit(origin);
    if (answer != CFSR_GROUP_NEED_SEGMENT)
        return;
    cr_assert_eq(cfsr_lane_file_rotate(&origin->files, cfsr_group_end_lsn(&origin->group),
                                       origin->stamp_us, &stalled),
                 0, "%s", cfsr_error_message());
    cfsr_group_segment_opened(&origin->group);
}

void origin_mark(struct origin *origin)
{
    int answer;

    while ((answer = cfsr_group_stage_mark(&origin->group, ++origin->stamp_us, 0)) !=
           CFSR_GROUP_STAGED) {
        cr_assert_geq(answer, 0);
        make_way(origin, answer);
    }
    origin_commit(origin);
}

void origin_append(struct origin *origin, uint32_t payload_bytes, uint64_t salt)
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

    /* Half of it compresses. */
    memset(origin->payload, (int)(salt & 0x7f), payload_bytes);
    for (uint32_t i = 0; i + 8 <= payload_bytes / 2; i += 8) {
        salt = salt * 6364136223846793005ull + 1442695040888963407ull;
        cfsr_store_le64(origin->payload + i, salt);
    }
    while ((answer = cfsr_group_stage(&origin->group, &entry, shard, ++origin->stamp_us,
                                      &position)) != CFSR_GROUP_STAGED) {
        cr_assert_geq(answer, 0, "stage: %d", answer);
        make_way(origin, answer);
    }
}

void origin_recycle_lowest(struct origin *origin)
{
    bool reused;

    cr_assert_lt(origin->lowest + origin->site->segment_bytes, origin->head);
    cr_assert_eq(cfsr_lane_file_recycle(&origin->files, origin->lowest, &reused), 0, "%s",
                 cfsr_error_message());
    origin->lowest += origin->site->segment_bytes;
}

uint64_t origin_head(const struct origin *origin)
{
    return origin->head;
}
uint64_t origin_entries(const struct origin *origin)
{
    return origin->entries;
}
