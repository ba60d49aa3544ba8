/*
 * stamp.c - the record below a peer's cursor, read for the fork check.
 *
 * Thread:     the core; the read is a job of the helper thread.
 * Invariants: three answers are told apart: the record that stands there (equal or not: the
 * sender's business), "removed by retention", and "damaged here", which says nothing about the peer
 * and is repaired before anything is compared. An answer to an older connection is dropped.
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>

#include <cfsrepl/error.h>

#include "base/fail.h"
#include "journal/repair.h"
#include "journal/segment_map.h"

/*
 * No sound record stands at the place. Either our records are others (the walk from the segment's
 * start passes over it), or what is there is damaged (the walk ends at or before it).
 */
static int judge(const struct node_stamp_job *stamp)
{
    const struct cfsr_node_core *core = stamp->link->core;
    struct cfsr_lane_cursor cursor;
    uint64_t first = cfsr_segment_first_lsn(core->options.site, stamp->wanted.lsn);
    int rc = cfsr_lane_cursor_init(&cursor, core->env.blocking_fs, core->options.site, stamp->lane,
                                   first);

    if (rc < 0)
        return rc;
    do {
        rc = cfsr_lane_cursor_next(&cursor, stamp->committed_lsn);
    } while (rc == 1 && cursor.lsn <= stamp->wanted.lsn);
    bool passed = cursor.lsn > stamp->wanted.lsn;
    cfsr_lane_cursor_fini(&cursor);
    if (passed)
        return -CFSR_E_FORMAT;
    return rc == -ENOENT ? -CFSR_E_MISSING_SEGMENT : -CFSR_E_DAMAGED;
}

static int read_stamp(struct node_stamp_job *stamp, uint8_t *record, uint32_t capacity)
{
    struct cfsr_node_core *core = stamp->link->core;
    const struct cfsr_site *site = core->options.site;
    struct cfsr_record_header header;
    struct cfsr_scan scan;

    if (stamp->wanted.lsn % CFSR_RECORD_ALIGN != 0)
        return -CFSR_E_FORMAT;
    int rc = cfsr_journal_read_run(core->env.blocking_fs, site, stamp->lane, stamp->wanted.lsn,
                                   stamp->committed_lsn, 0, record, capacity, &scan);
    if (rc == -CFSR_E_DAMAGED || (rc == 0 && scan.lsn != stamp->wanted.lsn))
        return judge(stamp);
    if (rc < 0)
        return rc;
    if (scan.record_count == 0)
        return -CFSR_E_FORMAT;
    cfsr_record_header_load(record, &header);
    stamp->found = (struct cfsr_record_stamp){
        .lsn = stamp->wanted.lsn,
        .seq = header.seq,
        .timestamp_us = header.timestamp_us,
        .crc = header.crc,
    };
    stamp->found_end_lsn = stamp->wanted.lsn + cfsr_record_total_bytes(&header);
    /* A record that ends within a header of its segment's end is followed by nothing: the cursor is
     * the boundary. */
    uint64_t boundary = cfsr_segment_first_lsn(site, stamp->wanted.lsn) + site->segment_bytes;
    if (boundary - stamp->found_end_lsn < CFSR_RECORD_HEADER_BYTES)
        stamp->found_end_lsn = boundary;
    return 0;
}

static void run_stamp(struct cfsr_node_job *job)
{
    struct node_stamp_job *stamp = CFSR_CONTAINER_OF(job, struct node_stamp_job, job);
    const uint32_t capacity = CFSR_RECORD_MAX_BYTES + CFSR_RECORD_ALIGN;
    uint8_t *record = malloc(capacity);

    cfsr_error_clear();
    stamp->result = record != NULL ? read_stamp(stamp, record, capacity) : -ENOMEM;
    free(record);
    if (stamp->result == -CFSR_E_GONE)
        stamp->result = -ENOENT;
    /* A sector that cannot be read is written again like one that rots. */
    if (stamp->result == -CFSR_E_MISSING_SEGMENT || stamp->result == -EIO)
        stamp->result = -CFSR_E_DAMAGED;
}

static void done_stamp(struct cfsr_node_job *job)
{
    struct node_stamp_job *stamp = CFSR_CONTAINER_OF(job, struct node_stamp_job, job);
    struct node_link *link = stamp->link;

    node_job_finished(link->core, job);
    link->stamps_busy--;
    if (stamp->attempt != link->attempt || link->conn == NULL)
        return;
    cfsr_sender_on_stamp(&link->sender, link->core->now_ns, link->core->wall_us, stamp->lane,
                         stamp->result, &stamp->found, stamp->found_end_lsn, &link->core->outbox);
    node_link_execute(link);
}

void node_stamp_check(struct node_link *link, const struct cfsr_action *action)
{
    struct node_stamp_job *stamp = &link->stamp[action->lane];
    if (stamp->job.busy) {
        /* The job of an older connection still runs: this connection is closed and asks again. */
        link->stamp_overrun = true;
        return;
    }
    stamp->link = link;
    stamp->lane = action->lane;
    stamp->attempt = link->attempt;
    stamp->committed_lsn = link->core->head_lsn[action->lane];
    stamp->wanted = action->stamp;
    stamp->job.run = run_stamp;
    stamp->job.done = done_stamp;
    link->stamps_busy++;
    node_submit_job(link->core, &stamp->job);
}
