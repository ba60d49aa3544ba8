/*
 * recovery.c - finding the end of a lane, telling a torn tail from rot, cutting.
 *
 * Thread:     start-up of writer or daemon, the tool; with the lane lock held unless it only looks.
 * Invariants: nothing valid is ever overwritten; after a cut every byte position that a writer may
 * have touched is behind a durable PAD, so that what it left there can never come back as a record.
 * Rejected:   truncating at the cut (a page of the torn group that was written behind the cut could
 * stand exactly where the next writer's records end, and pass), trusting the file's length
 * (segments have their full length from birth).
 *
 * The proof of rot is a MARK: it says that everything below its committed LSN was durable. One
 * found behind the damage, with a committed LSN above it, cannot have been written before the
 * damaged bytes were synced. What follows the last MARK has none; there a peer that acknowledged
 * more is the proof.
 */
#include "journal/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "journal/acks.h"
#include "journal/group.h"
#include "journal/lane_lock.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"

#define MARK_BYTES_MAX (CFSR_RECORD_HEADER_BYTES + CFSR_MARK_PAYLOAD_BYTES + 16 * 64)

/*
 * Behind a clean end the search for rot is short, so that opening is quick: had another writer
 * appended there, its first group was a MARK alone and the next MARK stands at once behind it.
 */
#define CLEAN_SEARCH_BYTES (8u << 20)

struct recovery {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    uint32_t shard_count;
    struct cfsr_segment_map map;
    struct cfsr_lane_cursor cursor;
    struct cfsr_lane_state state;
    int damage; /* 0, or why the record at state.end_lsn is not one */
    bool read_only;
    uint64_t limit_lsn;  /* nothing at or above it is looked at */
    uint64_t proven_lsn; /* the last MARK met says that everything below was durable before it */
};

void cfsr_lane_state_fini(struct cfsr_lane_state *state)
{
    free(state->next_seq);
    state->next_seq = NULL;
}

/* Seqs count from 1 without a gap, so that SHARDS knows how many entries lie below it. A MARK says
 * so too, but a crash may have torn the first one of a segment. */
static uint64_t count_below(const uint8_t *shards)
{
    uint32_t count = cfsr_load_le32(shards + 8);
    uint64_t entries = 0;

    for (uint32_t i = 0; i < count; i++)
        entries += cfsr_load_le64(shards + CFSR_SHARDS_PAYLOAD_FIXED + 8ull * i) - 1;
    return entries;
}

/* Counts entries and incarnation from the run the cursor has just checked. */
static void read_marks(struct recovery *r)
{
    const struct cfsr_scan *scan = &r->cursor.scan;
    const uint8_t *record = scan->data, *end = scan->data + scan->raw_bytes;

    while (record < end) {
        struct cfsr_record_header header;
        const uint8_t *payload = record + CFSR_RECORD_HEADER_BYTES;

        cfsr_record_header_load(record, &header);
        r->state.clean = false;
        if (cfsr_record_is_entry(header.op)) {
            r->state.entries++;
        } else if (header.op == CFSR_RECORD_SHARDS) {
            r->state.entries = count_below(payload);
        } else if (header.op == CFSR_RECORD_MARK) {
            r->state.incarnation = cfsr_max_u64(r->state.incarnation, cfsr_load_le64(payload));
            r->proven_lsn = cfsr_load_le64(payload + 8);
            r->state.entries = cfsr_load_le64(payload + 16);
            r->state.clean = (cfsr_load_le32(payload + 32) & CFSR_MARK_CLEAN_CLOSE) != 0;
        }
        record += cfsr_record_wire_bytes(&header);
    }
    if (scan->record_count > 0)
        r->state.last = scan->last;
    r->state.max_timestamp_us = cfsr_max_u64(r->state.max_timestamp_us, scan->max_timestamp_us);
}

/* Names what cannot be a torn tail: a header is durable before its segment is used, and a torn
 * record has no valid CRC. */
static int refuse(const struct recovery *r, uint64_t first_lsn, int rc)
{
    static const char advice[] = "run \"cfs-repl journal verify --repair\": a peer refills it";

    if (rc == -ENOENT)
        return cfsr_fail(-CFSR_E_MISSING_SEGMENT,
                         "lane %" PRIu32 ": segment %016" PRIx64 ".seg vanished: %s", r->lane,
                         first_lsn, advice);
    if (r->cursor.file == NULL && (rc == -CFSR_E_CHECKSUM || rc == -CFSR_E_FORMAT))
        return cfsr_fail(-CFSR_E_DAMAGED,
                         "lane %" PRIu32 ": the header or length of segment %016" PRIx64
                         ".seg is damaged: %s",
                         r->lane, first_lsn, advice);
    if (r->cursor.file != NULL && (rc == -CFSR_E_FOREIGN || rc == -CFSR_E_BAD_ORDER))
        return cfsr_fail(-CFSR_E_DAMAGED,
                         "lane %" PRIu32 ", segment %016" PRIx64 ".seg: %s at LSN %" PRIx64 ": %s",
                         r->lane, first_lsn, cfsr_strerror(rc), r->cursor.lsn, advice);
    return rc;
}

/* Scans one segment from its start. Records found: 1, none: 0; r->damage says why it ended early.
 */
static int scan_segment(struct recovery *r, uint64_t first_lsn)
{
    uint64_t boundary = cfsr_min_u64(first_lsn + r->site->segment_bytes, r->limit_lsn);
    bool found = false;
    int rc;

    memset(r->state.next_seq, 0, r->shard_count * sizeof *r->state.next_seq);
    cfsr_lane_cursor_seek(&r->cursor, first_lsn);
    r->cursor.next_seq = r->state.next_seq;
    do {
        rc = cfsr_lane_cursor_next(&r->cursor, boundary);
        if (r->cursor.scan.record_count > 0) {
            if (!found && r->cursor.scan.data[44] != CFSR_RECORD_SHARDS)
                return cfsr_fail(-CFSR_E_DAMAGED,
                                 "lane %" PRIu32 ": segment %016" PRIx64
                                 ".seg does not begin with its SHARDS record",
                                 r->lane, first_lsn);
            found = true;
            read_marks(r);
        }
    } while (rc == 1);
    if (r->cursor.file != NULL && r->cursor.file_lsn == first_lsn)
        r->state.incarnation = cfsr_max_u64(r->state.incarnation, r->cursor.file_incarnation);
    r->state.end_lsn = r->cursor.lsn;
    r->damage = rc;
    if (rc == 0 || (r->cursor.file != NULL && (rc == -CFSR_E_CHECKSUM || rc == -CFSR_E_FORMAT)))
        return found;
    return refuse(r, first_lsn, rc);
}

/* True if a valid MARK stands at p (of LSN lsn) whose committed LSN is above damaged_lsn. */
static bool mark_covers(const struct recovery *r, const uint8_t *p, size_t available, uint64_t lsn,
                        uint64_t damaged_lsn)
{
    uint32_t payload_bytes = cfsr_load_le32(p + 4);
    uint8_t copy[MARK_BYTES_MAX];

    if (p[44] != CFSR_RECORD_MARK || cfsr_load_le64(p + 32) != r->site->site_id ||
        payload_bytes < CFSR_MARK_PAYLOAD_BYTES || payload_bytes % 8 != 0 ||
        CFSR_RECORD_HEADER_BYTES + (size_t)payload_bytes > sizeof copy ||
        CFSR_RECORD_HEADER_BYTES + (size_t)payload_bytes > available)
        return false;
    memcpy(copy, p, CFSR_RECORD_HEADER_BYTES + payload_bytes);
    cfsr_record_seal(copy, r->cursor.scan.seed, lsn);
    return memcmp(copy, p, 4) == 0 &&
           cfsr_load_le64(p + CFSR_RECORD_HEADER_BYTES + 8) > damaged_lsn;
}

/* Up to and with the last byte that is not zero. */
static uint64_t used_bytes(const uint8_t *data, uint64_t len_bytes)
{
    while (len_bytes >= 8 && cfsr_load_le64(data + len_bytes - 8) == 0)
        len_bytes -= 8;
    while (len_bytes > 0 && data[len_bytes - 1] == 0)
        len_bytes--;
    return len_bytes;
}

/*
 * Looks behind the damage, to the end of its segment, for a MARK that covers it. 1 found (its LSN),
 * 0 none; *last_byte_lsn_out is behind the last byte that is not zero.
 */
static int search_marks(struct recovery *r, uint64_t from_lsn, uint64_t damaged_lsn,
                        uint64_t *mark_lsn_out, uint64_t *last_byte_lsn_out)
{
    uint64_t first = cfsr_segment_first_lsn(r->site, from_lsn), lsn = cfsr_align_down(from_lsn, 8);
    uint64_t boundary = first + r->site->segment_bytes;
    struct cfsr_lane_cursor probe = {.fs = r->fs,
                                     .site = r->site,
                                     .lane = r->lane,
                                     .buffer = r->cursor.buffer,
                                     .disk = r->cursor.disk,
                                     .headless = true};
    int rc = 0;

    if (r->state.clean)
        boundary = cfsr_min_u64(boundary, lsn + CLEAN_SEARCH_BYTES);
    while (lsn < boundary) {
        uint64_t want = cfsr_min_u64(CFSR_LANE_CURSOR_BYTES, boundary - lsn), at, used;
        const uint8_t *data;

        rc = cfsr_lane_cursor_peek(&probe, lsn, (uint32_t)want, &data);
        if (rc <= 0)
            break;
        used = used_bytes(data, (uint64_t)rc);
        if (used > 0)
            *last_byte_lsn_out = lsn + used;
        /* No MARK begins in zeros: mostly there is nothing else behind the end of a lane. */
        for (at = 0; at < used && at + CFSR_RECORD_HEADER_BYTES <= (uint64_t)rc;
             at += CFSR_RECORD_ALIGN) {
            if (!mark_covers(r, data + at, (size_t)rc - at, lsn + at, damaged_lsn))
                continue;
            *mark_lsn_out = lsn + at;
            cfsr_lane_cursor_seek(&probe, lsn);
            return 1;
        }
        if ((uint64_t)rc < want)
            break; /* shorter than it should be: nothing further to find */
        lsn += lsn + want == boundary ? want : want - cfsr_align_up(MARK_BYTES_MAX, 8);
    }
    cfsr_lane_cursor_seek(&probe, lsn);
    return rc < 0 ? rc : 0;
}

/* Rot or a torn tail? 0: a tail, with cut_lsn and cut_bytes set; -CFSR_E_DAMAGED: rot. */
static int judge_tail(struct recovery *r)
{
    uint64_t damaged = r->state.end_lsn, last_segment = r->map.lsns[r->map.count - 1];
    uint64_t from = damaged, mark_lsn = 0, last_byte = damaged, acked;
    int rc;

    for (; from <= last_segment || from == damaged;
         from = cfsr_segment_first_lsn(r->site, from) + r->site->segment_bytes) {
        rc = search_marks(r, from, damaged, &mark_lsn, &last_byte);
        if (rc < 0)
            return rc;
        if (rc == 1)
            return cfsr_fail(-CFSR_E_DAMAGED,
                             "lane %" PRIu32 ", segment %016" PRIx64 ".seg: damaged at LSN %" PRIx64
                             ", below the commit point (the MARK at %" PRIx64
                             " proves it was durable): run \"cfs-repl journal verify --repair\": a "
                             "peer refills it",
                             r->lane, cfsr_segment_first_lsn(r->site, damaged), damaged, mark_lsn);
    }
    rc = cfsr_acks_highest(r->fs, r->site, r->lane, &acked);
    if (rc < 0)
        return rc;
    if (acked > damaged)
        return cfsr_fail(-CFSR_E_DAMAGED,
                         "lane %" PRIu32 ", segment %016" PRIx64 ".seg: damaged at LSN %" PRIx64
                         ", and a peer acknowledged up to %" PRIx64
                         ": run \"cfs-repl journal verify --repair\": that peer refills it",
                         r->lane, cfsr_segment_first_lsn(r->site, damaged), damaged, acked);
    r->state.cut_lsn = damaged;
    r->state.cut_bytes = last_byte - damaged;
    return 0;
}

/* A lane whole up to its last segment's end: does a peer know of more? */
static int judge_whole(const struct recovery *r)
{
    uint64_t acked;
    int rc = cfsr_acks_highest(r->fs, r->site, r->lane, &acked);

    if (rc == 0 && acked > r->state.end_lsn)
        rc = cfsr_fail(-CFSR_E_MISSING_SEGMENT,
                       "lane %" PRIu32 ": segment %016" PRIx64
                       ".seg is missing, a peer acknowledged up to %" PRIx64
                       ": run \"cfs-repl journal verify --repair\": that peer refills it",
                       r->lane, cfsr_segment_first_lsn(r->site, r->state.end_lsn), acked);
    return rc;
}

int cfsr_journal_search_cover(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t damaged_lsn, uint64_t last_segment_lsn,
                              uint64_t *mark_lsn_out, uint64_t *last_byte_lsn_out)
{
    struct recovery r = {.fs = fs, .site = site, .lane = lane, .limit_lsn = CFSR_LSN_UNKNOWN};
    uint64_t from = damaged_lsn;
    int rc = cfsr_lane_cursor_init(&r.cursor, fs, site, lane, 0);

    *last_byte_lsn_out = damaged_lsn;
    while (rc == 0 && (from <= last_segment_lsn || from == damaged_lsn)) {
        rc = search_marks(&r, from, damaged_lsn, mark_lsn_out, last_byte_lsn_out);
        from = cfsr_segment_first_lsn(site, from) + site->segment_bytes;
    }
    cfsr_lane_cursor_fini(&r.cursor);
    return rc;
}

/* Puts a PAD (behind SHARDS and MARK at a segment's start) at lsn, durably. Nothing behind it can
 * be read any more. */
static int seal_segment(struct recovery *r, uint64_t lsn)
{
    uint64_t first = cfsr_segment_first_lsn(r->site, lsn), pad_lsn = lsn;
    char path[CFSR_LANE_PATH_BYTES];
    uint8_t *bytes = r->cursor.buffer;
    struct cfsr_file *file;
    uint32_t len = 0;
    int rc;

    if (lsn == first) {
        len = cfsr_group_put_shards(bytes, r->site, r->lane, lsn, r->state.max_timestamp_us,
                                    r->state.next_seq);
        /* Whoever reads nothing but this segment must know incarnation and count. */
        len += cfsr_group_put_mark(bytes + len, r->site, r->lane, lsn + len, &r->state);
        pad_lsn += len;
    }
    len += cfsr_group_put_pad(bytes + len, r->site, r->lane, pad_lsn, r->state.max_timestamp_us);
    cfsr_segment_path(r->site, r->lane, first, path, sizeof path);
    rc = cfsr_file_open(r->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s to close its tail: %s", path, cfsr_strerror(rc));
    rc = cfsr_file_pwrite(file, bytes, len, cfsr_segment_file_offset(r->site, lsn), false);
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    cfsr_file_close(file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot write %s to close its tail: %s", path, cfsr_strerror(rc));
    r->state.last = (struct cfsr_record_stamp){
        .lsn = pad_lsn,
        .timestamp_us = r->state.max_timestamp_us,
        .crc = cfsr_load_le32(bytes + (pad_lsn - lsn)),
    };
    r->state.end_lsn = first + r->site->segment_bytes;
    return 0;
}

/* What was read may only be in the page cache of a writer that was killed: make it durable before
 * anyone is told of it. */
static int sync_segment(struct recovery *r, uint64_t first_lsn)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;
    int rc;

    cfsr_segment_path(r->site, r->lane, first_lsn, path, sizeof path);
    rc = cfsr_file_open(r->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);
    if (rc == 0) {
        rc = cfsr_file_sync(file);
        cfsr_file_close(file);
    }
    return rc < 0 ? cfsr_fail(rc, "cannot sync %s: %s", path, cfsr_strerror(rc)) : 0;
}

/*
 * What was counted above the last proof of durability is written once more, as the disk has it. The
 * page cache may hold something else there: what a failed sync left in memory only. Readers would
 * see that instead, and the next write to the page would take it to the disk.
 */
static int write_back(struct recovery *r)
{
    uint64_t lsn, end = r->state.last.lsn;
    struct cfsr_lane_cursor probe = {.fs = r->fs,
                                     .site = r->site,
                                     .lane = r->lane,
                                     .buffer = r->cursor.buffer,
                                     .disk = r->cursor.disk};
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_record_header header;
    struct cfsr_file *file = NULL;
    const uint8_t *data;
    int rc;

    if (end == CFSR_LSN_UNKNOWN)
        return 0;
    lsn = cfsr_max_u64(r->proven_lsn, cfsr_segment_first_lsn(r->site, end));
    cfsr_segment_path(r->site, r->lane, cfsr_segment_first_lsn(r->site, end), path, sizeof path);
    rc = cfsr_lane_cursor_peek(&probe, end, CFSR_RECORD_HEADER_BYTES, &data);
    if (rc >= 0 && rc < CFSR_RECORD_HEADER_BYTES)
        rc = -EIO; /* it was read a moment ago */
    if (rc >= 0) {
        cfsr_record_header_load(data, &header);
        end += cfsr_record_wire_bytes(&header); /* of a PAD its filler is not read by anybody */
        rc = cfsr_file_open(r->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);
    }
    while (rc >= 0 && lsn < end) {
        uint32_t want = (uint32_t)cfsr_min_u64(CFSR_LANE_CURSOR_BYTES, end - lsn);

        rc = cfsr_lane_cursor_peek(&probe, lsn, want, &data);
        if (rc >= 0 && (uint32_t)rc < want)
            rc = -EIO;
        if (rc >= 0)
            rc = cfsr_file_pwrite(file, data, want, cfsr_segment_file_offset(r->site, lsn), false);
        lsn += want;
    }
    if (file != NULL)
        cfsr_file_close(file);
    cfsr_lane_cursor_seek(&probe, 0);
    return rc < 0 ? cfsr_fail(rc, "cannot write the end of %s back: %s", path, cfsr_strerror(rc))
                  : 0;
}

/* A segment whose name was not durable yet would vanish in a power cut, after others were told what
 * it holds. */
static int sync_names(struct recovery *r)
{
    char path[CFSR_LANE_PATH_BYTES];
    int rc = r->fs->ops->sync_dir(r->fs, cfsr_lane_directory(r->site, r->lane, path, sizeof path));

    return rc < 0 ? cfsr_fail(rc, "cannot sync directory %s: %s", path, cfsr_strerror(rc)) : 0;
}

static int cut_tail(struct recovery *r)
{
    uint64_t last_segment = r->map.lsns[r->map.count - 1];
    int rc = seal_segment(r, r->state.end_lsn);

    while (rc == 0 && r->state.end_lsn <= last_segment)
        rc = seal_segment(r, r->state.end_lsn);
    return rc;
}

/* Scans back from the last segment to the first one that holds records, and finds the end. */
static int find_end(struct recovery *r)
{
    uint32_t i = r->map.count;
    int rc = 0;

    while (i > 0 && rc == 0)
        rc = scan_segment(r, r->map.lsns[--i]);
    if (rc < 0)
        return rc;
    if (rc == 0) {
        if (r->state.first_lsn != 0)
            return cfsr_fail(-CFSR_E_DAMAGED,
                             "lane %" PRIu32 ": no segment holds a valid record, the first is "
                             "%016" PRIx64
                             ".seg: run \"cfs-repl journal verify --repair\": a peer refills it",
                             r->lane, r->state.first_lsn);
        for (uint32_t shard = 0; shard < r->shard_count; shard++)
            r->state.next_seq[shard] = 1;
        r->state.end_lsn = 0;
        r->damage = -CFSR_E_CHECKSUM;
    }
    if (r->damage == 0 && i + 1 < r->map.count)
        r->damage = -CFSR_E_CHECKSUM; /* whole up to its boundary; the segment behind it is there
                                         and empty */
    return 0;
}

static int recover(struct recovery *r)
{
    int rc = cfsr_segment_map_load(r->fs, r->site, r->lane, &r->map);

    if (rc == 0)
        rc = cfsr_segment_map_check(&r->map, r->lane, NULL);
    if (rc < 0)
        return rc;
    if (r->map.count == 0) {
        for (uint32_t shard = 0; shard < r->shard_count; shard++)
            r->state.next_seq[shard] = 1;
        r->state.incarnation = 1;
        r->state.clean = true;
        return 0;
    }
    r->state.first_lsn = r->map.lsns[0];
    rc = find_end(r);
    if (rc < 0)
        return rc;
    if (r->state.end_lsn <= r->map.lsns[r->map.count - 1])
        r->state.clean = false; /* a segment was begun after the last record */
    rc = r->damage != 0 ? judge_tail(r) : judge_whole(r);
    if (rc < 0)
        return rc;
    if (r->state.clean || r->read_only) {
        r->state.cut_lsn = CFSR_LSN_UNKNOWN;
        r->state.cut_bytes = 0;
        if (!r->state.clean)
            r->state.incarnation++;
        return 0;
    }
    rc = write_back(r);
    for (uint32_t i = r->map.count;
         rc == 0 && i > 0 && r->map.lsns[i - 1] + r->site->segment_bytes >= r->state.end_lsn; i--)
        rc = sync_segment(r, r->map.lsns[i - 1]);
    if (rc == 0)
        rc = sync_names(r);
    if (rc == 0 && r->damage != 0)
        rc = cut_tail(r);
    r->state.incarnation++;
    return rc;
}

/*
 * After a failed write or sync: everything at or above the commit is given up, whatever can be read
 * there now, because what can be read may be in memory only.
 */
static int recut(struct recovery *r)
{
    uint64_t durable = r->limit_lsn, first;
    int rc = cfsr_segment_map_load(r->fs, r->site, r->lane, &r->map);

    if (rc == 0)
        rc = cfsr_segment_map_check(&r->map, r->lane, NULL);
    if (rc < 0)
        return rc;
    for (uint32_t shard = 0; shard < r->shard_count; shard++)
        r->state.next_seq[shard] = 1;
    r->state.first_lsn = r->map.count > 0 ? r->map.lsns[0] : 0;
    if (durable > 0) {
        first = cfsr_segment_first_lsn(r->site, durable - 1);
        rc = scan_segment(r, first);
        if (rc >= 0 && r->state.end_lsn != durable)
            rc = cfsr_fail(-CFSR_E_DAMAGED,
                           "lane %" PRIu32 ", segment %016" PRIx64 ".seg: damaged at LSN %" PRIx64
                           ", below the commit: run \"cfs-repl journal verify --repair\"",
                           r->lane, first, r->state.end_lsn);
        if (rc < 0)
            return rc;
    }
    r->limit_lsn = CFSR_LSN_UNKNOWN;
    r->state.cut_lsn = durable;
    rc = sync_names(r);
    if (rc == 0 && r->map.count > 0 &&
        r->map.lsns[r->map.count - 1] + r->site->segment_bytes > durable)
        rc = cut_tail(r);
    if (rc == 0 && durable % r->site->segment_bytes != 0) { /* as the disk has it now */
        uint64_t end_lsn = r->state.end_lsn;

        rc = scan_segment(r, cfsr_segment_first_lsn(r->site, durable));
        if (rc >= 0 && r->damage != 0)
            rc = cfsr_fail(-CFSR_E_DAMAGED,
                           "lane %" PRIu32 ": LSN %" PRIx64
                           " reads back otherwise than it was written: replace the disk",
                           r->lane, r->state.end_lsn);
        rc = rc < 0 ? rc : 0;
        r->state.end_lsn = end_lsn;
    }
    r->state.clean = false;
    r->state.incarnation++;
    return rc;
}

static int run(struct recovery *r, int (*work)(struct recovery *r),
               struct cfsr_lane_state *state_out)
{
    int rc;

    r->shard_count = (r->site->shards + r->site->lanes - 1) / r->site->lanes;
    r->state.next_seq = calloc(r->shard_count, sizeof *r->state.next_seq);
    r->state.cut_lsn = CFSR_LSN_UNKNOWN;
    r->state.last.lsn = CFSR_LSN_UNKNOWN;
    rc = r->state.next_seq == NULL ? -ENOMEM
                                   : cfsr_lane_cursor_init(&r->cursor, r->fs, r->site, r->lane, 0);
    r->cursor.disk = !r->read_only;
    if (rc == 0)
        rc = work(r);
    cfsr_lane_cursor_fini(&r->cursor);
    cfsr_segment_map_fini(&r->map);
    if (rc == 0)
        *state_out = r->state;
    else
        cfsr_lane_state_fini(&r->state);
    return rc;
}

int cfsr_journal_recut_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t committed_lsn, struct cfsr_lane_state *state_out)
{
    struct recovery r = {.fs = fs, .site = site, .lane = lane, .limit_lsn = committed_lsn};

    CFSR_ASSERT(lane < site->lanes && committed_lsn != CFSR_LSN_UNKNOWN);
    return run(&r, recut, state_out);
}

int cfsr_journal_recover_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              bool read_only, bool lock_held, struct cfsr_lane_state *state_out)
{
    struct recovery r = {.fs = fs,
                         .site = site,
                         .lane = lane,
                         .limit_lsn = CFSR_LSN_UNKNOWN,
                         .read_only = read_only};
    struct cfsr_file *lock = NULL;
    int rc;

    CFSR_ASSERT(lane < site->lanes);
    if (!lock_held && !read_only) {
        rc = cfsr_journal_lock_lane(fs, site, lane, &lock);
        if (rc < 0)
            return rc;
    }
    rc = run(&r, recover, state_out);
    if (lock != NULL)
        cfsr_file_close(lock);
    return rc;
}
