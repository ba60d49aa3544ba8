/*
 * repair.c - records and headers of the own journal put right in place; see repair.h.
 *
 * Thread:     the caller's (a helper thread, a tool).
 * Invariants: only bytes below the committed LSN are written, only with bytes whose CRC proves that
 * they belong there, and only while the lane's repair lock is held; what was written is read back
 * from the disk through another open. A crash at any point leaves a place that the next check
 * reports again. Rejected:   a REPAIR record behind the log, as the inbox has it (a reader of the
 * journal goes by LSN: the bytes have to stand where they belong), a whole new copy of the segment
 * (the live writer has the old file open).
 */
#include "journal/repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "journal/lane_file.h"
#include "journal/lane_lock.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

#define BLOCK_BYTES 4096u

struct rewrite {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    uint64_t committed_lsn;
    char path[CFSR_LANE_PATH_BYTES]; /* of the segment */
};

/* The segment is not there: gone, or missing? */
static int no_file(const struct rewrite *w, uint64_t lsn)
{
    struct cfsr_segment_map map;
    uint64_t floor_lsn;
    int rc = cfsr_segment_map_load(w->fs, w->site, w->lane, &map);

    if (rc < 0)
        return rc;
    floor_lsn = map.count > 0 ? map.lsns[0] : 0;
    cfsr_segment_map_fini(&map);
    if (lsn < floor_lsn)
        return cfsr_fail(-CFSR_E_GONE,
                         "lane %" PRIu32 ": LSN %" PRIx64
                         " was removed by retention, the oldest left is %" PRIx64,
                         w->lane, lsn, floor_lsn);
    return cfsr_fail(-CFSR_E_MISSING_SEGMENT, "%s is missing: it has to be made anew first",
                     w->path);
}

/* Opens the segment and checks its header. */
static int open_sound(const struct rewrite *w, uint64_t lsn, unsigned flags,
                      struct cfsr_file **file_out)
{
    uint64_t first = cfsr_segment_first_lsn(w->site, lsn);
    struct cfsr_segment_header header;
    struct cfsr_file *file;
    void *block = NULL;
    uint64_t size = 0;
    int rc = cfsr_file_open(w->fs, w->path, flags, &file);

    if (rc == -ENOENT)
        return no_file(w, lsn);
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", w->path, cfsr_strerror(rc));
    if (posix_memalign(&block, BLOCK_BYTES, CFSR_SEGMENT_HEADER_BYTES) != 0)
        rc = -ENOMEM;
    else
        rc = cfsr_file_pread(file, block, CFSR_SEGMENT_HEADER_BYTES, 0);
    if (rc >= 0 && rc < CFSR_SEGMENT_HEADER_BYTES)
        rc = -CFSR_E_FORMAT;
    if (rc >= 0)
        rc = cfsr_segment_header_load(w->site, block, w->lane, first, &header);
    if (rc == 0)
        rc = cfsr_file_size(file, &size);
    if (rc == 0 && size < CFSR_SEGMENT_HEADER_BYTES + w->site->segment_bytes)
        rc = -CFSR_E_FORMAT;
    free(block);
    if (rc < 0) {
        cfsr_file_close(file);
        return rc == -EIO || rc == -ENOMEM
                   ? rc
                   : cfsr_fail(-CFSR_E_DAMAGED,
                               "the header or length of %s is damaged: it has to be made anew "
                               "first",
                               w->path);
    }
    *file_out = file;
    return 0;
}

/* Checks the given records against their place. */
static int check_given(const struct rewrite *w, uint64_t lsn, const void *records,
                       uint32_t len_bytes, struct cfsr_scan *scan_out)
{
    uint32_t shard_count = (w->site->shards + w->site->lanes - 1) / w->site->lanes;
    uint64_t *next_seq = calloc(shard_count, sizeof *next_seq);
    struct cfsr_scan scan = {
        .data = records,
        .len_bytes = len_bytes,
        .wire_form = true,
        .lsn = lsn,
        .segment_bytes = w->site->segment_bytes,
        .seed = cfsr_record_seed(&w->site->journal),
        .site_id = w->site->site_id,
        .lane = w->lane,
        .lanes = w->site->lanes,
        .shards = w->site->shards,
        .next_seq = next_seq,
    };
    int rc = next_seq == NULL ? -ENOMEM : cfsr_record_scan(&scan);

    free(next_seq);
    scan.next_seq = NULL;
    if (rc == 0 && (scan.raw_bytes != len_bytes || scan.record_count == 0))
        rc = -CFSR_E_FORMAT;
    if (rc < 0)
        return cfsr_fail(rc,
                         "lane %" PRIu32 ": the records given for LSN %" PRIx64 " are not it: %s",
                         w->lane, lsn, cfsr_strerror(rc));
    if (scan.next_lsn > w->committed_lsn)
        return cfsr_fail(-EINVAL,
                         "lane %" PRIu32 ": records up to LSN %" PRIx64
                         " are beyond what is committed (%" PRIx64 ")",
                         w->lane, scan.next_lsn, w->committed_lsn);
    *scan_out = scan;
    return 0;
}

/*
 * A block that cannot be read cannot be written in part either: it is written whole then, with
 * zeros for what is lost of it (the records that stand there are damaged too, and written in their
 * turn). Not the block the writer appends to.
 */
static int write_blocks(const struct rewrite *w, struct cfsr_file *file,
                        const struct cfsr_scan *scan)
{
    uint64_t offset = cfsr_segment_file_offset(w->site, scan->lsn);
    uint64_t end = offset + scan->raw_bytes, writer_at = offset + (w->committed_lsn - scan->lsn);
    uint8_t block[BLOCK_BYTES];
    int rc = 0;

    for (uint64_t at = offset, next; rc >= 0 && at < end; at = next) {
        uint64_t first = cfsr_align_down(at, BLOCK_BYTES);
        const uint8_t *data = scan->data + (at - offset);

        next = cfsr_min_u64(first + BLOCK_BYTES, end);
        rc = cfsr_file_pread(file, block, sizeof block, first);
        if (rc == -EIO && first + BLOCK_BYTES <= writer_at) {
            memset(block, 0, sizeof block);
            memcpy(block + (at - first), data, next - at);
            rc = cfsr_file_pwrite(file, block, sizeof block, first, false);
        } else if (rc >= 0) {
            rc = cfsr_file_pwrite(file, data, (uint32_t)(next - at), at, false);
        }
    }
    return rc < 0 ? rc : 0;
}

static int write_records(const struct rewrite *w, const struct cfsr_scan *scan, bool by_blocks)
{
    uint64_t offset = cfsr_segment_file_offset(w->site, scan->lsn);
    struct cfsr_file *file;
    int rc = open_sound(w, scan->lsn, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);

    if (rc < 0)
        return rc;
    rc = by_blocks ? -EIO : cfsr_file_pwrite(file, scan->data, scan->raw_bytes, offset, false);
    if (rc == -EIO)
        rc = write_blocks(w, file, scan);
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    cfsr_file_close(file);
    return rc < 0 ? cfsr_fail(rc, "cannot write %s at LSN %" PRIx64 ": %s", w->path, scan->lsn,
                              cfsr_strerror(rc))
                  : 0;
}

/* Are the bytes on the disk, past the page cache, those that were written? */
static int read_back(const struct rewrite *w, const struct cfsr_scan *scan)
{
    uint64_t offset = cfsr_segment_file_offset(w->site, scan->lsn);
    uint64_t from = cfsr_align_down(offset, BLOCK_BYTES);
    uint64_t to = cfsr_align_up(offset + scan->raw_bytes, BLOCK_BYTES);
    struct cfsr_file *file;
    void *bytes = NULL;
    int rc = open_sound(w, scan->lsn, CFSR_OPEN_READ | CFSR_OPEN_DIRECT, &file);

    if (rc < 0)
        return rc;
    if (posix_memalign(&bytes, BLOCK_BYTES, to - from) != 0)
        rc = -ENOMEM;
    else
        rc = cfsr_file_pread(file, bytes, (uint32_t)(to - from), from);
    cfsr_file_close(file);
    if (rc >= 0 &&
        ((uint64_t)rc < offset - from + scan->raw_bytes ||
         memcmp((const uint8_t *)bytes + (offset - from), scan->data, scan->raw_bytes) != 0))
        rc = cfsr_fail(-CFSR_E_DAMAGED,
                       "%s at LSN %" PRIx64 " reads back otherwise than it was written: replace "
                       "the disk",
                       w->path, scan->lsn);
    free(bytes);
    return rc < 0 ? rc : 0;
}

int cfsr_journal_rewrite(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                         uint64_t committed_lsn, uint64_t lsn, const void *records,
                         uint32_t len_bytes, uint64_t *end_lsn_out)
{
    struct rewrite w = {.fs = fs, .site = site, .lane = lane, .committed_lsn = committed_lsn};
    struct cfsr_file *lock;
    struct cfsr_scan scan = {0};
    int rc;

    CFSR_ASSERT(lane < site->lanes && committed_lsn != CFSR_LSN_UNKNOWN);
    if (len_bytes > CFSR_JOURNAL_REWRITE_MAX_BYTES)
        return -EINVAL;
    rc = check_given(&w, lsn, records, len_bytes, &scan);
    if (rc < 0)
        return rc;
    cfsr_segment_path(site, lane, lsn, w.path, sizeof w.path);
    rc = cfsr_lane_repair_lock(fs, site, lane, &lock);
    if (rc < 0)
        return rc;
    rc = write_records(&w, &scan, false);
    if (rc == 0) {
        rc = read_back(&w, &scan);
        if (rc == -EIO) { /* what stands beside the records, in their block, cannot be read */
            rc = write_records(&w, &scan, true);
            rc = rc < 0 ? rc : read_back(&w, &scan);
        }
    }
    cfsr_file_close(lock);
    if (rc == 0)
        *end_lsn_out = scan.next_lsn;
    return rc;
}

/* ---- headers ---- */

/*
 * What the records of a segment tell about its header: the incarnation its first MARK names, and a
 * time. 1: records of this place were found; 0: none.
 */
static int learn_header(const struct rewrite *w, uint64_t first_lsn,
                        struct cfsr_segment_header *header)
{
    uint64_t boundary = first_lsn + w->site->segment_bytes;
    struct cfsr_lane_cursor cursor;
    bool found = false;
    int rc = cfsr_lane_cursor_init(&cursor, w->fs, w->site, w->lane, first_lsn);

    if (rc < 0)
        return rc;
    cursor.tolerant = true;
    cursor.headless = true;
    while (rc >= 0 && header->incarnation == 0 && cursor.lsn < boundary) {
        rc = cfsr_lane_cursor_next(&cursor, boundary);
        for (uint32_t at = 0; at < cursor.scan.raw_bytes && header->incarnation == 0;) {
            struct cfsr_record_header record;

            cfsr_record_header_load(cursor.scan.data + at, &record);
            if (!found)
                header->created_us = record.timestamp_us;
            found = true;
            if (record.op == CFSR_RECORD_MARK)
                header->incarnation = cfsr_load_le64(cursor.scan.data + at +
                                                     CFSR_RECORD_HEADER_BYTES);
            at += cfsr_record_wire_bytes(&record);
        }
        if (rc >= 0 || cursor.file == NULL || rc == -EIO)
            continue;
        cursor.lsn = cfsr_lane_cursor_find_next(&cursor, cursor.lsn, boundary);
        rc = 0;
    }
    cfsr_lane_cursor_fini(&cursor);
    return rc < 0 ? rc : found;
}

/* The nearest sound header below first_lsn knows an incarnation that is not too high. */
static void borrow_incarnation(const struct rewrite *w, const struct cfsr_segment_map *map,
                               struct cfsr_segment_header *header)
{
    header->incarnation = 1;
    for (uint32_t i = map->count; i > 0; i--) {
        struct cfsr_segment_header below;
        uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
        char path[CFSR_LANE_PATH_BYTES];
        struct cfsr_file *file;
        int rc;

        if (map->lsns[i - 1] >= header->first_lsn)
            continue;
        cfsr_segment_path(w->site, w->lane, map->lsns[i - 1], path, sizeof path);
        if (cfsr_file_open(w->fs, path, CFSR_OPEN_READ, &file) < 0)
            continue;
        rc = cfsr_file_pread(file, block, sizeof block, 0);
        cfsr_file_close(file);
        if (rc != (int)sizeof block ||
            cfsr_segment_header_load(w->site, block, w->lane, map->lsns[i - 1], &below) < 0)
            continue;
        header->incarnation = below.incarnation;
        header->created_us = cfsr_max_u64(header->created_us, below.created_us);
        return;
    }
}

static int put_header(const struct rewrite *w, const char *path,
                      const struct cfsr_segment_header *header)
{
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_file *file;
    int rc = cfsr_file_open(w->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);

    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    cfsr_segment_header_store(w->site, header, block);
    rc = cfsr_file_pwrite(file, block, sizeof block, 0, false);
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    cfsr_file_close(file);
    return rc < 0 ? cfsr_fail(rc, "cannot write the header of %s: %s", path, cfsr_strerror(rc)) : 0;
}

/*
 * A file that was cut from outside gets its length back, with zeros. Nothing is written: a live
 * writer may append to it meanwhile, and neither call makes a file shorter or changes bytes it has.
 */
static int restore_length(const struct rewrite *w)
{
    uint64_t whole = CFSR_SEGMENT_HEADER_BYTES + w->site->segment_bytes, size = 0;
    struct cfsr_file *file;
    int rc = cfsr_file_open(w->fs, w->path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);

    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", w->path, cfsr_strerror(rc));
    rc = cfsr_file_size(file, &size);
    if (rc == 0 && size < whole) {
        rc = cfsr_file_allocate(file, 0, whole);
        if (rc == -EOPNOTSUPP)
            rc = cfsr_file_truncate(file, whole);
        if (rc == 0)
            rc = cfsr_file_sync(file);
    }
    cfsr_file_close(file);
    return rc < 0 ? cfsr_fail(rc, "cannot give %s its length back: %s", w->path, cfsr_strerror(rc))
                  : 0;
}

/* A whole file under another name first: the segment appears in one step, or not at all. */
static int make_missing(const struct rewrite *w, const struct cfsr_segment_header *header)
{
    char directory[CFSR_LANE_PATH_BYTES], path[CFSR_LANE_PATH_BYTES + 16];
    struct cfsr_file *file;
    int rc;

    cfsr_lane_directory(w->site, w->lane, directory, sizeof directory);
    (void)snprintf(path, sizeof path, "%s/spare.repair", directory);
    rc = cfsr_file_open(w->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot create %s: %s", path, cfsr_strerror(rc));
    rc = cfsr_lane_file_write_zeros(w->site, file);
    cfsr_file_close(file);
    if (rc == 0)
        rc = put_header(w, path, header);
    if (rc == 0)
        rc = w->fs->ops->rename(w->fs, path, w->path);
    if (rc == 0)
        rc = w->fs->ops->sync_dir(w->fs, directory);
    if (rc < 0) {
        (void)w->fs->ops->unlink(w->fs, path);
        return cfsr_fail(rc, "cannot make %s anew: %s", w->path, cfsr_strerror(rc));
    }
    return 0;
}

static int heal_header(const struct rewrite *w, uint64_t first_lsn)
{
    struct cfsr_segment_header header = {.lane = w->lane, .first_lsn = first_lsn};
    struct cfsr_segment_map map;
    struct cfsr_file *file;
    int found = 0, rc = open_sound(w, first_lsn, CFSR_OPEN_READ | CFSR_OPEN_DIRECT, &file);
    int seen = rc;

    if (rc == 0) {
        cfsr_file_close(file);
        return 0;
    }
    if (rc != -CFSR_E_MISSING_SEGMENT && rc != -CFSR_E_DAMAGED && rc != -EIO)
        return rc;
    rc = cfsr_segment_map_load(w->fs, w->site, w->lane, &map);
    if (rc < 0)
        return rc;
    if (seen != -CFSR_E_MISSING_SEGMENT)
        found = learn_header(w, first_lsn, &header);
    if (header.incarnation == 0)
        borrow_incarnation(w, &map, &header);
    cfsr_segment_map_fini(&map);
    if (found < 0)
        return found;
    if (seen == -CFSR_E_MISSING_SEGMENT)
        return make_missing(w, &header);
    rc = restore_length(w);
    return rc < 0 ? rc : put_header(w, w->path, &header);
}

/* A whole header of something else over bytes that are something else too: not ours to change. */
static int check_foreign(const struct rewrite *w, uint64_t first_lsn)
{
    struct cfsr_segment_header header = {0};
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_file *file;
    int rc = cfsr_file_open(w->fs, w->path, CFSR_OPEN_READ, &file);

    if (rc < 0)
        return 0;
    rc = cfsr_file_pread(file, block, sizeof block, 0);
    cfsr_file_close(file);
    if (rc != (int)sizeof block ||
        cfsr_segment_header_load(w->site, block, w->lane, first_lsn, &header) != -CFSR_E_FOREIGN ||
        learn_header(w, first_lsn, &header) != 0)
        return 0;
    return cfsr_fail(-CFSR_E_FOREIGN,
                     "%s belongs to something else: move it out of the journal directory", w->path);
}

int cfsr_journal_rewrite_header(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                                uint64_t committed_lsn, uint64_t first_lsn)
{
    struct rewrite w = {.fs = fs, .site = site, .lane = lane, .committed_lsn = committed_lsn};
    struct cfsr_file *lock;
    int rc;

    CFSR_ASSERT(lane < site->lanes && committed_lsn != CFSR_LSN_UNKNOWN);
    if (first_lsn % site->segment_bytes != 0 || first_lsn >= committed_lsn)
        return cfsr_fail(-EINVAL, "lane %" PRIu32 ": no committed segment begins at LSN %" PRIx64,
                         lane, first_lsn);
    cfsr_segment_path(site, lane, first_lsn, w.path, sizeof w.path);
    rc = cfsr_lane_repair_lock(fs, site, lane, &lock);
    if (rc < 0)
        return rc;
    rc = check_foreign(&w, first_lsn);
    if (rc == 0)
        rc = heal_header(&w, first_lsn);
    cfsr_file_close(lock);
    return rc;
}
