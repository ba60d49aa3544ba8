/*
 * reader.c - the live reader of one lane.
 *
 * Thread:     the caller's, one per reader.
 * Invariants: nothing at or above the committed LSN is handed out. Segments are recycled under a
 * reader's feet: bytes are copied out first and checked then; what fails the check is only called
 * damage if its segment is still there. Rejected:   a lease that holds retention back (a reader
 * that forgot its lease would fill the disk; it gets "gone").
 *
 * With no writer in this boot the status page knows nothing: then the end is found by a recovery
 * that only looks.
 */
#include <cfsrepl/reader.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"

struct cfsr_reader {
    struct cfsr_site site;
    struct cfsr_fs *fs;
    uint32_t lane;
    struct cfsr_status_page *page;
    struct cfsr_lane_cursor cursor;
    uint64_t position;   /* of the next record */
    uint32_t offset;     /* of it in the cursor's run */
    uint64_t looked_lsn; /* end found by looking, while no writer told; CFSR_LSN_UNKNOWN: not looked
                            yet */
    struct cfsr_lease lease;
    bool leased;
};

int cfsr_reader_oldest(struct cfsr_reader *reader, uint64_t *lsn_out)
{
    struct cfsr_segment_map map;
    int rc = cfsr_segment_map_load(reader->fs, &reader->site, reader->lane, &map);

    if (rc < 0)
        return rc;
    *lsn_out = map.count > 0 ? map.lsns[0] : 0;
    cfsr_segment_map_fini(&map);
    return 0;
}

int cfsr_reader_committed(struct cfsr_reader *reader, uint64_t *lsn_out)
{
    uint64_t committed = cfsr_status_page_committed(reader->page, reader->lane);
    struct cfsr_lane_state state;
    int rc;

    if (committed == CFSR_LSN_UNKNOWN && reader->looked_lsn == CFSR_LSN_UNKNOWN) {
        rc = cfsr_journal_recover_lane(reader->fs, &reader->site, reader->lane, true, true, &state);
        if (rc < 0)
            return rc;
        reader->looked_lsn = state.end_lsn;
        cfsr_lane_state_fini(&state);
    }
    *lsn_out = committed == CFSR_LSN_UNKNOWN ? reader->looked_lsn : committed;
    return 0;
}

int cfsr_reader_open(const char *data_dir, uint32_t lane, uint64_t from_lsn,
                     struct cfsr_reader **reader_out)
{
    struct cfsr_reader *reader = calloc(1, sizeof *reader);
    int rc;

    if (reader == NULL)
        return -ENOMEM;
    reader->fs = cfsr_fs_blocking();
    reader->lane = lane;
    reader->looked_lsn = CFSR_LSN_UNKNOWN;
    rc = cfsr_site_load(reader->fs, data_dir, &reader->site);
    if (rc == 0 && lane >= reader->site.lanes)
        rc = cfsr_fail(-EINVAL, "lane %" PRIu32 " does not exist: %s has %" PRIu32, lane, data_dir,
                       reader->site.lanes);
    if (rc == 0)
        rc = cfsr_status_page_open(&reader->site, &reader->page);
    if (rc == 0)
        rc = cfsr_lane_cursor_init(&reader->cursor, reader->fs, &reader->site, lane, 0);
    if (rc == 0 && from_lsn == CFSR_READER_OLDEST)
        rc = cfsr_reader_oldest(reader, &from_lsn);
    if (rc < 0) {
        cfsr_reader_close(reader);
        return rc;
    }
    cfsr_reader_seek(reader, from_lsn);
    *reader_out = reader;
    return 0;
}

void cfsr_reader_close(struct cfsr_reader *reader)
{
    if (reader == NULL)
        return;
    if (reader->leased)
        cfsr_status_page_lease_drop(reader->page, &reader->lease);
    if (reader->cursor.buffer != NULL)
        cfsr_lane_cursor_fini(&reader->cursor);
    cfsr_status_page_close(reader->page);
    free(reader);
}

uint64_t cfsr_reader_position(const struct cfsr_reader *reader)
{
    return reader->position;
}

void cfsr_reader_seek(struct cfsr_reader *reader, uint64_t lsn)
{
    cfsr_lane_cursor_seek(&reader->cursor, lsn);
    reader->cursor.scan.raw_bytes = 0;
    reader->offset = 0;
    reader->position = lsn;
}

/* Why the position cannot be read: gone if its segment was removed, else what was seen. */
static int explain(struct cfsr_reader *reader, int rc)
{
    uint64_t oldest;
    int listed = cfsr_reader_oldest(reader, &oldest);

    if (listed < 0)
        return listed;
    if (reader->position < oldest)
        return cfsr_fail(-CFSR_E_GONE,
                         "lane %" PRIu32 ": LSN %" PRIx64
                         " was removed, the oldest left is %" PRIx64,
                         reader->lane, reader->position, oldest);
    if (rc == -ENOENT)
        return cfsr_fail(-CFSR_E_MISSING_SEGMENT,
                         "lane %" PRIu32 ": segment %016" PRIx64 ".seg is missing", reader->lane,
                         cfsr_segment_first_lsn(&reader->site, reader->position));
    if (rc != -CFSR_E_VERSION && cfsr_segment_is_damage(rc)) /* that one is of a newer program */
        return cfsr_fail(-CFSR_E_DAMAGED,
                         "lane %" PRIu32 ": no record begins at LSN %" PRIx64 " (%s): run "
                         "\"cfs-repl journal verify\"",
                         reader->lane, reader->position, cfsr_strerror(rc));
    return rc;
}

/* Makes a run available at the position. 1, 0 (nothing committed), or an error. */
static int fill(struct cfsr_reader *reader)
{
    uint64_t committed;
    int rc = cfsr_reader_committed(reader, &committed);

    for (int attempt = 0; rc == 0; attempt++) {
        reader->offset = 0;
        reader->cursor.lsn = reader->position;
        rc = cfsr_lane_cursor_next(&reader->cursor, committed);
        if (rc == 0) {
            reader->cursor.scan.raw_bytes = 0;
            return 0;
        }
        if (reader->cursor.scan.record_count > 0)
            return 1;  /* what stands before a bad record is good */
        if (rc == 1) { /* only the tail of a segment was passed */
            reader->position = reader->cursor.lsn;
            rc = 0;
            continue;
        }
        reader->cursor.scan.raw_bytes = 0;
        if (attempt > 0)
            return explain(reader, rc);
        cfsr_lane_cursor_seek(&reader->cursor,
                              reader->position); /* the open file may have been recycled */
        rc = 0;
    }
    return rc;
}

int cfsr_reader_next(struct cfsr_reader *reader, struct cfsr_record_view *view_out)
{
    const struct cfsr_scan *scan = &reader->cursor.scan;
    struct cfsr_record_header header;
    const uint8_t *record;
    uint64_t end_lsn;
    int rc;

    if (reader->offset == scan->raw_bytes) {
        rc = fill(reader);
        if (rc != 1)
            return rc;
    }
    record = scan->data + reader->offset;
    cfsr_record_header_load(record, &header);
    end_lsn = reader->position + cfsr_record_total_bytes(&header);
    if (reader->site.segment_bytes - end_lsn % reader->site.segment_bytes <
        CFSR_RECORD_HEADER_BYTES)
        end_lsn = cfsr_segment_first_lsn(&reader->site, end_lsn) + reader->site.segment_bytes;
    *view_out = (struct cfsr_record_view){
        .lane = reader->lane,
        .shard_id = header.shard_id,
        .lsn = reader->position,
        .end_lsn = end_lsn,
        .seq = header.seq,
        .timestamp_us = header.timestamp_us,
        .inode = header.inode,
        .site_id = header.site_id,
        .op = header.op,
        .flags = header.flags,
        .payload_bytes = header.op == CFSR_RECORD_PAD ? 0 : header.payload_bytes,
        .payload = record + CFSR_RECORD_HEADER_BYTES,
    };
    reader->offset += cfsr_record_wire_bytes(&header);
    reader->position = end_lsn;
    return 1;
}

static void drain(int fd)
{
    char bytes[64];

    while (read(fd, bytes, sizeof bytes) > 0)
        ;
}

static int sleep_once(struct cfsr_reader *reader, int timeout_ms)
{
    struct pollfd ready = {.fd = reader->lease.fifo_fd, .events = POLLIN};
    int rc = poll(&ready, 1, timeout_ms);

    if (rc < 0 && errno != EINTR)
        return cfsr_fail(-errno, "cannot wait for the journal: %s", cfsr_strerror(-errno));
    drain(reader->lease.fifo_fd);
    return 0;
}

int cfsr_reader_wait(struct cfsr_reader *reader, int timeout_ms)
{
    uint64_t deadline_ns = cfsr_clock_monotonic_ns() +
                           1000000u * (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    uint64_t committed, now_ns;
    int rc;

    if (!reader->leased) {
        rc = cfsr_status_page_lease_take(reader->page, 1ull << reader->lane, &reader->lease);
        if (rc < 0)
            return rc;
        reader->leased = true;
    }
    for (;;) {
        cfsr_status_page_lease_arm(reader->page, &reader->lease);
        rc = cfsr_reader_committed(reader, &committed);
        now_ns = cfsr_clock_monotonic_ns();
        if (rc < 0 || committed > reader->position || (timeout_ms >= 0 && now_ns >= deadline_ns)) {
            cfsr_status_page_lease_disarm(reader->page, &reader->lease);
            return rc < 0 ? rc : committed > reader->position;
        }
        rc = sleep_once(reader,
                        timeout_ms < 0 ? -1 : (int)((deadline_ns - now_ns + 999999) / 1000000));
        if (rc < 0)
            return rc;
    }
}
