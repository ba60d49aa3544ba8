/*
 * segment.h - segment files of the journal: names, headers, and the map of what is there.
 *
 * DATA/journal/<lane, 2+ decimal digits>/<first LSN, 16 hex>.seg: 4 KiB header, then a body of
 * site.segment_bytes. LSN ÷ body size names the segment, the remainder the place in its body.
 * Header byte table (docs/journal-format.md), CRC at the end of the used part: 0 8 magic
 * "CFSRSEG1"; 8 4 version; 12 4 lane; 16 16 cluster uuid; 32 16 journal uuid; 48 8 incarnation; 56
 * 8 site id; 64 8 first LSN; 72 8 body bytes; 80 8 created µs; 88 4 state (1 = in use); 92 4 crc32c
 * of bytes 0–91; zeros to 4096. A spare (written once in full, waiting) has magic "CFSRSPAR" and no
 * LSN; it is named spare.<n> until it is renamed.
 */
#ifndef CFSR_JOURNAL_SEGMENT_H
#define CFSR_JOURNAL_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/site.h"

#define CFSR_SEGMENT_HEADER_BYTES 4096

struct cfsr_segment_header {
    uint32_t lane;
    uint64_t incarnation;
    uint64_t first_lsn;
    uint64_t created_us;
};

/* path_out holds at least CFSR_PATH_MAX + 64 bytes. Returns path_out. */
char *cfsr_segment_path(const struct cfsr_site *site, uint32_t lane, uint64_t lsn, char *path_out,
                        size_t len_bytes);
static inline uint64_t cfsr_segment_first_lsn(const struct cfsr_site *site, uint64_t lsn)
{
    return lsn - lsn % site->segment_bytes;
}
static inline uint64_t cfsr_segment_file_offset(const struct cfsr_site *site, uint64_t lsn)
{
    return CFSR_SEGMENT_HEADER_BYTES + lsn % site->segment_bytes;
}
void cfsr_segment_header_store(const struct cfsr_site *site,
                               const struct cfsr_segment_header *header, void *block_out);
/* -CFSR_E_FORMAT, -CFSR_E_CHECKSUM, -CFSR_E_VERSION, -CFSR_E_FOREIGN (cluster, site, journal, lane,
 * LSN: says which). */
int cfsr_segment_header_load(const struct cfsr_site *site, const void *block, uint32_t lane,
                             uint64_t first_lsn, struct cfsr_segment_header *header_out);
/* The header of a spare: written last, after the body was written in full and synced. */
void cfsr_segment_spare_store(const struct cfsr_site *site, uint32_t lane, void *block_out);
/* A spare, or a segment of this lane waiting to be one: its body was written in full once. */
bool cfsr_segment_is_reusable(const struct cfsr_site *site, const void *block, uint32_t lane);

#endif
