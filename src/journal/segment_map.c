/*
 * segment_map.c - the sorted list of a lane's segments, and the reading loop over its records.
 *
 * Thread:     the caller's.
 * Invariants: the cursor never hands out a byte that was not scanned after it was copied out of the
 * file. Rejected:   mmap of segments (a read error becomes a signal, and a recycled segment changes
 * under the reader's feet).
 */
#include "journal/segment_map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "journal/segment.h"

_Static_assert(CFSR_LANE_CURSOR_BYTES >= CFSR_RECORD_MAX_BYTES,
               "a record fits the cursor's buffer");

/* Alignment that every disk takes; the unit in which an unreadable place is passed over. */
#define BLOCK_BYTES 4096u

char *cfsr_lane_directory(const struct cfsr_site *site, uint32_t lane, char *path_out,
                          size_t len_bytes)
{
    (void)snprintf(path_out, len_bytes, "%s/journal/%02" PRIu32, site->data_dir, lane);
    return path_out;
}

/* 16 lower-case hexadecimal digits and ".seg". */
static bool parse_name(const char *name, uint64_t *lsn_out)
{
    char expected[32];
    char *end;

    if (strlen(name) != 20 || strcmp(name + 16, ".seg") != 0)
        return false;
    *lsn_out = strtoull(name, &end, 16);
    (void)snprintf(expected, sizeof expected, "%016" PRIx64 ".seg", *lsn_out);
    return strcmp(expected, name) == 0;
}

static int visit(void *user, const struct cfsr_dir_entry *entry)
{
    struct cfsr_segment_map *map = user;
    uint64_t lsn;

    if (strcmp(entry->name, "lock") == 0 || strcmp(entry->name, "repair.lock") == 0 ||
        strncmp(entry->name, "spare.", 6) == 0)
        return 0;
    if (!parse_name(entry->name, &lsn) || entry->is_directory || lsn % map->segment_bytes != 0) {
        map->foreign_count++;
        (void)snprintf(map->foreign_name, sizeof map->foreign_name, "%s", entry->name);
        return 0;
    }
    if (map->count == map->capacity) {
        uint32_t capacity = map->capacity == 0 ? 64 : 2 * map->capacity;
        uint64_t *lsns = realloc(map->lsns, capacity * sizeof *lsns);

        if (lsns == NULL)
            return -ENOMEM;
        map->lsns = lsns;
        map->capacity = capacity;
    }
    map->lsns[map->count++] = lsn;
    return 0;
}

static int compare_lsns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int cfsr_segment_map_load(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          struct cfsr_segment_map *map_out)
{
    struct cfsr_segment_map map = {.segment_bytes = site->segment_bytes};
    char path[CFSR_LANE_PATH_BYTES];
    int rc = fs->ops->list(fs, cfsr_lane_directory(site, lane, path, sizeof path), visit, &map);

    if (rc < 0) {
        free(map.lsns);
        return cfsr_fail(rc, "cannot list %s: %s", path, cfsr_strerror(rc));
    }
    if (map.count > 0)
        qsort(map.lsns, map.count, sizeof *map.lsns, compare_lsns);
    *map_out = map;
    return 0;
}

void cfsr_segment_map_fini(struct cfsr_segment_map *map)
{
    free(map->lsns);
    *map = (struct cfsr_segment_map){0};
}

int cfsr_segment_map_check(const struct cfsr_segment_map *map, uint32_t lane, uint64_t *gap_lsn_out)
{
    for (uint32_t i = 1; i < map->count; i++) {
        uint64_t expected = map->lsns[i - 1] + map->segment_bytes;

        if (map->lsns[i] == expected)
            continue;
        if (gap_lsn_out != NULL)
            *gap_lsn_out = expected;
        return cfsr_fail(-CFSR_E_MISSING_SEGMENT,
                         "lane %" PRIu32 ": segment %016" PRIx64
                         ".seg is missing: run \"cfs-repl journal verify --repair\": a peer "
                         "refills it",
                         lane, expected);
    }
    return 0;
}

bool cfsr_segment_is_damage(int rc)
{
    static const int kinds[] = {CFSR_E_CHECKSUM, CFSR_E_FORMAT, CFSR_E_FOREIGN, CFSR_E_BAD_ORDER,
                                CFSR_E_VERSION};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(kinds); i++)
        if (rc == -kinds[i])
            return true;
    return false;
}

int cfsr_lane_cursor_init(struct cfsr_lane_cursor *cursor, struct cfsr_fs *fs,
                          const struct cfsr_site *site, uint32_t lane, uint64_t lsn)
{
    void *buffer = NULL;

    *cursor = (struct cfsr_lane_cursor){.fs = fs, .site = site, .lane = lane, .lsn = lsn};
    /* A block more on either side, and aligned: for reads from the disk itself. */
    if (posix_memalign(&buffer, BLOCK_BYTES, CFSR_LANE_CURSOR_BYTES + 2 * BLOCK_BYTES) != 0)
        return -ENOMEM;
    cursor->buffer = buffer;
    cursor->scan = (struct cfsr_scan){
        .data = cursor->buffer,
        .segment_bytes = site->segment_bytes,
        .seed = cfsr_record_seed(&site->journal),
        .site_id = site->site_id,
        .lane = lane,
        .lanes = site->lanes,
        .shards = site->shards,
    };
    return 0;
}

void cfsr_lane_cursor_seek(struct cfsr_lane_cursor *cursor, uint64_t lsn)
{
    if (cursor->file != NULL)
        cfsr_file_close(cursor->file);
    cursor->file = NULL;
    cursor->lsn = lsn;
}

void cfsr_lane_cursor_fini(struct cfsr_lane_cursor *cursor)
{
    cfsr_lane_cursor_seek(cursor, 0);
    free(cursor->buffer);
    cursor->buffer = NULL;
}

/* A segment has its full length before it has its name: a shorter one was cut from outside. */
static int check_length(struct cfsr_lane_cursor *cursor)
{
    uint64_t whole = CFSR_SEGMENT_HEADER_BYTES + cursor->site->segment_bytes, size = 0;
    int rc = cfsr_file_size(cursor->file, &size);

    if (rc < 0)
        return cfsr_fail(rc, "cannot tell the length: %s", cfsr_strerror(rc));
    return size < whole
               ? cfsr_fail(-CFSR_E_FORMAT, "the file has %" PRIu64 " bytes, a segment has %" PRIu64,
                           size, whole)
               : 0;
}

static int open_segment(struct cfsr_lane_cursor *cursor)
{
    uint64_t first = cfsr_segment_first_lsn(cursor->site, cursor->lsn);
    struct cfsr_segment_header header;
    char path[CFSR_LANE_PATH_BYTES];
    int rc;

    if (cursor->file != NULL && cursor->file_lsn == first)
        return 0;
    cfsr_lane_cursor_seek(cursor, cursor->lsn);
    cfsr_segment_path(cursor->site, cursor->lane, first, path, sizeof path);
    rc = cfsr_file_open(cursor->fs, path, CFSR_OPEN_READ | (cursor->disk ? CFSR_OPEN_DIRECT : 0u),
                        &cursor->file);
    if (rc < 0)
        return rc == -ENOENT ? rc : cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    cursor->file_lsn = first;
    cursor->file_incarnation = 0;
    if (cursor->headless)
        return 0;
    rc = check_length(cursor);
    if (rc == 0) {
        rc = cfsr_file_pread(cursor->file, cursor->buffer, CFSR_SEGMENT_HEADER_BYTES, 0);
        if (rc == -EIO && cursor->tolerant)
            rc = cfsr_fail(-CFSR_E_CHECKSUM, "the segment header cannot be read");
        if (rc >= 0 && rc < CFSR_SEGMENT_HEADER_BYTES)
            rc = cfsr_fail(-CFSR_E_FORMAT, "the file is shorter than a segment header");
    }
    if (rc >= 0)
        rc = cfsr_segment_header_load(cursor->site, cursor->buffer, cursor->lane, first, &header);
    if (rc < 0) {
        cfsr_lane_cursor_seek(cursor, cursor->lsn);
        return cfsr_fail_context(rc, "%s", path);
    }
    cursor->file_incarnation = header.incarnation;
    return 0;
}

/* Block after block, zeros in place of those that the disk does not give. */
static int read_around(struct cfsr_file *file, uint8_t *buffer, uint32_t len_bytes, uint64_t offset)
{
    uint32_t at = 0;

    while (at < len_bytes) {
        uint32_t len = (uint32_t)cfsr_min_u64(BLOCK_BYTES - (offset + at) % BLOCK_BYTES,
                                              len_bytes - at);
        int rc = cfsr_file_pread(file, buffer + at, len, offset + at);

        if (rc == -EIO) {
            memset(buffer + at, 0, len);
            rc = (int)len;
        }
        if (rc < 0)
            return rc;
        at += (uint32_t)rc;
        if ((uint32_t)rc < len)
            break;
    }
    return (int)at;
}

/* Body bytes at lsn; *data_out points into the buffer. Bytes read (short at the end of the file),
 * or an error. */
static int read_body(struct cfsr_lane_cursor *cursor, uint64_t lsn, uint32_t len_bytes,
                     const uint8_t **data_out)
{
    uint64_t offset = cfsr_segment_file_offset(cursor->site, lsn);
    uint32_t slack = 0, len = len_bytes;
    int rc;

    if (cursor->disk && cfsr_file_alignment(cursor->file) > 1) {
        slack = (uint32_t)(offset % BLOCK_BYTES);
        len = (uint32_t)cfsr_align_up(slack + len_bytes, BLOCK_BYTES);
    }
    rc = cfsr_file_pread(cursor->file, cursor->buffer, len, offset - slack);
    if (rc == -EIO && cursor->tolerant)
        rc = read_around(cursor->file, cursor->buffer, len, offset - slack);
    if (rc < 0)
        return cfsr_fail(rc, "cannot read lane %" PRIu32 " at LSN %" PRIx64 ": %s", cursor->lane,
                         lsn, cfsr_strerror(rc));
    *data_out = cursor->buffer + slack;
    return (uint32_t)rc <= slack ? 0 : (int)cfsr_min_u64((uint32_t)rc - slack, len_bytes);
}

int cfsr_lane_cursor_next(struct cfsr_lane_cursor *cursor, uint64_t limit_lsn)
{
    uint64_t boundary = cfsr_segment_first_lsn(cursor->site, cursor->lsn) +
                        cursor->site->segment_bytes;
    struct cfsr_scan *scan = &cursor->scan;
    uint64_t len_bytes;
    int rc;

    scan->record_count = 0;
    scan->entry_count = 0;
    scan->raw_bytes = 0;
    scan->next_lsn = cursor->lsn;
    if (cursor->lsn >= limit_lsn)
        return 0;
    rc = open_segment(cursor);
    if (rc < 0)
        return rc;
    len_bytes = cfsr_min_u64(cfsr_min_u64(limit_lsn, boundary) - cursor->lsn,
                             CFSR_LANE_CURSOR_BYTES);
    rc = read_body(cursor, cursor->lsn, (uint32_t)len_bytes, &scan->data);
    if (rc < 0)
        return rc;
    scan->len_bytes = (uint32_t)rc;
    scan->lsn = cursor->lsn;
    scan->next_seq = cursor->next_seq;
    rc = cfsr_record_scan(scan);
    cursor->lsn = scan->next_lsn;
    if (rc < 0)
        return rc;
    if (scan->next_lsn == scan->lsn)
        return -CFSR_E_CHECKSUM; /* a size that reaches beyond the end of the bytes there are */
    return 1;
}

int cfsr_lane_cursor_peek(struct cfsr_lane_cursor *cursor, uint64_t lsn, uint32_t len_bytes,
                          const uint8_t **data_out)
{
    int rc;

    cursor->lsn = lsn;
    rc = open_segment(cursor);
    return rc < 0 ? rc : read_body(cursor, lsn, len_bytes, data_out);
}

uint64_t cfsr_lane_cursor_find_next(struct cfsr_lane_cursor *cursor, uint64_t lsn,
                                    uint64_t limit_lsn)
{
    struct cfsr_scan probe = cursor->scan;

    probe.next_seq = NULL;
    probe.max_entries = 1;
    probe.max_raw_bytes = 1;
    lsn = cfsr_align_down(lsn, CFSR_RECORD_ALIGN) + CFSR_RECORD_ALIGN;
    while (lsn < limit_lsn) {
        uint64_t want = cfsr_min_u64(CFSR_LANE_CURSOR_BYTES, limit_lsn - lsn), searched;
        const uint8_t *data;
        int rc = read_body(cursor, lsn, (uint32_t)want, &data);

        if (rc <= 0)
            break;
        /* A record that begins in the first half is whole in the buffer. */
        searched = (uint64_t)rc < CFSR_LANE_CURSOR_BYTES ? (uint64_t)rc
                                                         : CFSR_LANE_CURSOR_BYTES / 2 - BLOCK_BYTES;
        for (uint64_t at = 0; at + CFSR_RECORD_HEADER_BYTES <= searched; at += CFSR_RECORD_ALIGN) {
            probe.data = data + at;
            probe.len_bytes = (uint32_t)((uint64_t)rc - at);
            probe.lsn = lsn + at;
            if (cfsr_load_le64(probe.data + 32) == cursor->site->site_id &&
                cfsr_record_scan(&probe) == 0 && probe.record_count > 0)
                return lsn + at;
        }
        lsn += cfsr_align_down(searched, CFSR_RECORD_ALIGN);
        if ((uint64_t)rc < want)
            break;
    }
    return limit_lsn;
}
