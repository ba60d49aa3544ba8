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

    if (strcmp(entry->name, "lock") == 0 || strncmp(entry->name, "spare.", 6) == 0)
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
                         ".seg is missing: restore it from a "
                         "copy, or refill it from a peer",
                         lane, expected);
    }
    return 0;
}

int cfsr_lane_cursor_init(struct cfsr_lane_cursor *cursor, struct cfsr_fs *fs,
                          const struct cfsr_site *site, uint32_t lane, uint64_t lsn)
{
    *cursor = (struct cfsr_lane_cursor){.fs = fs, .site = site, .lane = lane, .lsn = lsn};
    cursor->buffer = malloc(CFSR_LANE_CURSOR_BYTES);
    if (cursor->buffer == NULL)
        return -ENOMEM;
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
    rc = cfsr_file_open(cursor->fs, path, CFSR_OPEN_READ, &cursor->file);
    if (rc < 0)
        return rc == -ENOENT ? rc : cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    rc = cfsr_file_pread(cursor->file, cursor->buffer, CFSR_SEGMENT_HEADER_BYTES, 0);
    if (rc >= 0 && rc < CFSR_SEGMENT_HEADER_BYTES)
        rc = cfsr_fail(-CFSR_E_FORMAT, "the file is shorter than a segment header");
    if (rc >= 0)
        rc = cfsr_segment_header_load(cursor->site, cursor->buffer, cursor->lane, first, &header);
    if (rc < 0) {
        cfsr_lane_cursor_seek(cursor, cursor->lsn);
        return cfsr_fail_context(rc, "%s", path);
    }
    cursor->file_lsn = first;
    cursor->file_incarnation = header.incarnation;
    return 0;
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
    rc = cfsr_file_pread(cursor->file, cursor->buffer, (uint32_t)len_bytes,
                         cfsr_segment_file_offset(cursor->site, cursor->lsn));
    if (rc < 0)
        return cfsr_fail(rc, "cannot read lane %" PRIu32 " at LSN %" PRIx64 ": %s", cursor->lane,
                         cursor->lsn, cfsr_strerror(rc));
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
