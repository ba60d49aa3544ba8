/*
 * gc.c - retention of the inbox.
 *
 * Thread:     a helper's; blocking.
 * Invariants: a segment a live consumer needs is never removed; removal is from the lowest on, so
 * the row has no hole at any crash. Rejected:   detaching a consumer at the cap (what it has not
 * applied would be lost to it; the sender waits instead, and says why).
 */
#include "inbox/gc.h"

#include <errno.h>

#include "base/bytes.h"
#include "journal/gc.h"

struct cfsr_inbox_gc_plan cfsr_inbox_gc_judge(const struct cfsr_inbox_gc_facts *facts)
{
    bool consumers = facts->lowest_needed != UINT64_MAX;
    uint64_t below = facts->first_sequence, limit, files = facts->lane_files,
             free_bytes = facts->free_bytes;
    struct cfsr_inbox_gc_plan plan = {0};

    limit = facts->write_sequence + 1 > CFSR_INBOX_GC_KEEP_SEGMENTS
                ? facts->write_sequence + 1 - CFSR_INBOX_GC_KEEP_SEGMENTS
                : 0;
    /* Nobody has said that he has seen these entries: they are the replica, and stay. */
    limit = consumers ? cfsr_min_u64(limit, facts->lowest_needed) : below;
    for (;;) {
        bool over = (facts->lane_cap_bytes != 0 &&
                     files * facts->file_bytes > facts->lane_cap_bytes) ||
                    free_bytes < facts->free_floor_bytes;

        plan.stalled = over && below >= limit;
        if (below >= limit)
            break;
        below++;
        files--;
        free_bytes += facts->file_bytes;
    }
    plan.remove_below = below;
    return plan;
}

struct lowest {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    uint64_t now_us;
    uint64_t sequence;
};

static int visit_consumer(void *user, const char *name)
{
    struct lowest *lowest = user;
    struct cfsr_consumer *consumer;
    int rc;

    rc = cfsr_consumer_open(lowest->fs, lowest->site, name, false, false, &consumer);
    if (rc == -ENOENT)
        return 0; /* removed meanwhile */
    if (rc < 0)
        return rc; /* a position that cannot be read holds everything */
    if (!cfsr_consumer_is_expired(consumer, lowest->now_us))
        lowest->sequence = cfsr_min_u64(lowest->sequence,
                                        consumer->position[lowest->lane].sequence);
    cfsr_consumer_close(consumer);
    return 0;
}

int cfsr_inbox_gc_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                       uint64_t write_sequence, uint64_t cap_bytes, uint64_t now_us,
                       struct cfsr_inbox_gc_result *result_out)
{
    struct lowest lowest = {
        .fs = fs, .site = site, .lane = lane, .now_us = now_us, .sequence = UINT64_MAX};
    struct cfsr_inbox_gc_result result = {0};
    struct cfsr_inbox_range_of_segments range;
    struct cfsr_inbox_gc_facts facts;
    struct cfsr_inbox_gc_plan plan;
    struct cfsr_gc_limits limits;
    uint64_t free_bytes, total_bytes, sequence;
    int rc;

    rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc == 0)
        rc = cfsr_consumer_list(fs, site, visit_consumer, &lowest);
    if (rc == 0)
        rc = fs->ops->space(fs, site->data_dir, &free_bytes, &total_bytes);
    if (rc < 0)
        return rc;
    limits = cfsr_gc_default_limits(total_bytes);
    facts = (struct cfsr_inbox_gc_facts){
        .first_sequence = range.first,
        .write_sequence = write_sequence,
        .lowest_needed = lowest.sequence,
        .file_bytes = CFSR_INBOX_SEGMENT_HEADER_BYTES + site->segment_bytes,
        .lane_files = range.last == 0
                          ? 0
                          : range.last - range.first + 1 - range.missing + range.free_files,
        .lane_cap_bytes = (cap_bytes == 0 ? limits.cap_bytes : cap_bytes) / site->lanes,
        .free_bytes = free_bytes,
        .free_floor_bytes = total_bytes / 1000 * limits.free_floor_permille,
    };
    plan = cfsr_inbox_gc_judge(&facts);
    for (sequence = range.first; range.last != 0 && sequence < plan.remove_below; sequence++) {
        bool recycle = range.free_files ==
                       0; /* one waits for the writer, more would only take room */

        rc = cfsr_inbox_drop_segment(fs, site, lane, sequence, recycle);
        if (rc == -ENOENT)
            continue; /* a missing segment: its time is over too */
        if (rc < 0)
            return rc;
        range.free_files += recycle;
        result.recycled += recycle;
        result.removed++;
    }
    result.stalled = plan.stalled;
    *result_out = result;
    return 0;
}
