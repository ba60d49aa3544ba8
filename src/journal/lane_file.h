/*
 * lane_file.h - the files behind a lane that is written: the open segment, the spare, and what
 * moves between them.
 *
 * All calls are synchronous and go through the file seam. write and rotate belong to the lane's
 * leader, prepare and recycle to the helper; spare_mutex keeps the two apart where they meet (the
 * name of the spare).
 */
#ifndef CFSR_JOURNAL_LANE_FILE_H
#define CFSR_JOURNAL_LANE_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/group.h"
#include "journal/site.h"

struct cfsr_lane_file {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    bool direct;
    uint64_t incarnation;
    struct cfsr_file *file; /* open segment or NULL */
    uint64_t first_lsn;     /* of it */
    pthread_mutex_t spare_mutex;
    atomic_bool spare_ready;
};

/* Looks for a spare left by the last writer; one that was not finished is removed. */
int cfsr_lane_file_init(struct cfsr_lane_file *files, struct cfsr_fs *fs,
                        const struct cfsr_site *site, uint32_t lane, bool direct,
                        uint64_t incarnation);
void cfsr_lane_file_fini(struct cfsr_lane_file *files);
/* Opens the existing segment of lsn for appending and reads the block lsn stands in
 * (CFSR_GROUP_BLOCK_BYTES). */
int cfsr_lane_file_resume(struct cfsr_lane_file *files, uint64_t lsn, void *block_out);
/* Makes the spare if there is none: zeros in full, synced, header last. -ENOSPC removes what was
 * begun. */
int cfsr_lane_file_prepare_spare(struct cfsr_lane_file *files);
/* The spare (made now if missing) becomes the segment of first_lsn, durably, and is open.
 * *stalled_out: it was missing. */
int cfsr_lane_file_rotate(struct cfsr_lane_file *files, uint64_t first_lsn, uint64_t created_us,
                          bool *stalled_out);
/* Writes a span and makes it durable. */
int cfsr_lane_file_write(struct cfsr_lane_file *files, const struct cfsr_group_span *span);
/* The segment of first_lsn, below the floor, becomes the spare or is removed. -CFSR_E_LOCKED: a
 * repair writes into the lane, try again later. */
int cfsr_lane_file_recycle(struct cfsr_lane_file *files, uint64_t first_lsn, bool *reused_out);
/* A whole file of a segment's size, zeros, synced: every block allocated and written once. */
int cfsr_lane_file_write_zeros(const struct cfsr_site *site, struct cfsr_file *file);

#endif
