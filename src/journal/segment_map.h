/*
 * segment_map.h - what a lane's directory holds, and the cursor that walks its records.
 *
 * The map is a sorted copy of the directory at one moment; the cursor is the one reading loop of
 * recovery, reader, verify and digest: read a run of bytes, scan it, hand out the run. One thread
 * each.
 */
#ifndef CFSR_JOURNAL_SEGMENT_MAP_H
#define CFSR_JOURNAL_SEGMENT_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/record.h"
#include "journal/site.h"

#define CFSR_LANE_PATH_BYTES (CFSR_PATH_MAX + 64)

struct cfsr_segment_map {
    uint64_t *lsns; /* first LSNs, ascending */
    uint32_t count;
    uint32_t capacity;
    uint32_t foreign_count; /* names that do not belong there */
    char foreign_name[64];  /* one of them */
    uint64_t segment_bytes;
};

/* Directory of a lane. Returns path_out. */
char *cfsr_lane_directory(const struct cfsr_site *site, uint32_t lane, char *path_out,
                          size_t len_bytes);
int cfsr_segment_map_load(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          struct cfsr_segment_map *map_out);
void cfsr_segment_map_fini(struct cfsr_segment_map *map);
/* -CFSR_E_MISSING_SEGMENT with message if there is a gap; *gap_lsn_out (may be NULL) is its first
 * LSN. */
int cfsr_segment_map_check(const struct cfsr_segment_map *map, uint32_t lane,
                           uint64_t *gap_lsn_out);

/* True for what reading a segment says of bytes that are not what was written there. */
bool cfsr_segment_is_damage(int rc);

/* At least one maximal record, so that a record is always whole in the buffer. */
#define CFSR_LANE_CURSOR_BYTES (2u << 20)

struct cfsr_lane_cursor {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    uint64_t lsn;          /* of the next record */
    uint64_t *next_seq;    /* as in struct cfsr_scan; NULL: seqs are not checked */
    struct cfsr_scan scan; /* of the last run; its data is valid until the next call */
    uint8_t *buffer;
    /* Set after init. disk: past the page cache, which may still show what a failed write never
     * brought to the disk. tolerant: a block that cannot be read (-EIO) reads as zeros. headless:
     * segments are opened whatever their header says. */
    bool disk, tolerant, headless;
    struct cfsr_file *file;
    uint64_t file_lsn;
    uint64_t file_incarnation; /* from the header of the open segment */
};

int cfsr_lane_cursor_init(struct cfsr_lane_cursor *cursor, struct cfsr_fs *fs,
                          const struct cfsr_site *site, uint32_t lane, uint64_t lsn);
void cfsr_lane_cursor_fini(struct cfsr_lane_cursor *cursor);
/* Forgets the open file and moves. */
void cfsr_lane_cursor_seek(struct cfsr_lane_cursor *cursor, uint64_t lsn);
/*
 * Reads and scans the next run of records below limit_lsn. 1: cursor->scan describes it and
 * cursor->lsn is behind it; 0: nothing below the limit; -ENOENT: the segment is not there; scan
 * errors: scan describes the good records before the bad one at cursor->lsn; -CFSR_E_CHECKSUM also
 * for a record that reaches beyond the limit.
 */
int cfsr_lane_cursor_next(struct cfsr_lane_cursor *cursor, uint64_t limit_lsn);
/* Bytes of the body at lsn, unchecked: at most CFSR_LANE_CURSOR_BYTES, within the segment. Count,
 * -ENOENT, -errno. *data_out is valid until the next call. */
int cfsr_lane_cursor_peek(struct cfsr_lane_cursor *cursor, uint64_t lsn, uint32_t len_bytes,
                          const uint8_t **data_out);
/*
 * First LSN behind lsn and below limit_lsn (same segment) where a valid record begins in the open
 * segment; limit_lsn if there is none, or if reading fails. Moves nothing, but the last run's data
 * is gone.
 */
uint64_t cfsr_lane_cursor_find_next(struct cfsr_lane_cursor *cursor, uint64_t lsn,
                                    uint64_t limit_lsn);

#endif
