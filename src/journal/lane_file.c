/*
 * lane_file.c - segments being written, spares being made; see lane_file.h.
 *
 * Thread:     the lane's leader (write, rotate, resume), the journal's helper (prepare, recycle).
 * Invariants: a segment has its name only after its header is durable, and is written only after
 * its name is; a spare has a valid header only after its body was written in full and synced.
 * Rejected:   fallocate alone (unwritten extents make every sync a metadata commit: 1.45 times
 * slower), preparing the next segment under its final name (recovery could not tell whether it was
 * written to).
 */
#include "journal/lane_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "journal/lane_lock.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

#define ZERO_CHUNK_BYTES (1u << 20)
/* So that the helper's sync never holds up a leader's for long. */
#define ZERO_SYNC_BYTES (8u << 20)

static char *spare_path(const struct cfsr_lane_file *files, char *path_out, size_t len_bytes)
{
    (void)snprintf(path_out, len_bytes, "%s/journal/%02" PRIu32 "/spare.0", files->site->data_dir,
                   files->lane);
    return path_out;
}

static int sync_lane_directory(const struct cfsr_lane_file *files)
{
    char path[CFSR_LANE_PATH_BYTES];
    int rc = files->fs->ops->sync_dir(
        files->fs, cfsr_lane_directory(files->site, files->lane, path, sizeof path));

    return rc < 0 ? cfsr_fail(rc, "cannot sync directory %s: %s", path, cfsr_strerror(rc)) : 0;
}

/* True if the file at path can serve as a spare: whole, and ours. */
static bool check_spare(const struct cfsr_lane_file *files, const char *path)
{
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_file *file;
    uint64_t size = 0;
    bool usable;

    if (cfsr_file_open(files->fs, path, CFSR_OPEN_READ, &file) < 0)
        return false;
    usable = cfsr_file_size(file, &size) == 0 &&
             size == CFSR_SEGMENT_HEADER_BYTES + files->site->segment_bytes &&
             cfsr_file_pread(file, block, sizeof block, 0) == (int)sizeof block &&
             cfsr_segment_is_reusable(files->site, block, files->lane);
    cfsr_file_close(file);
    return usable;
}

int cfsr_lane_file_init(struct cfsr_lane_file *files, struct cfsr_fs *fs,
                        const struct cfsr_site *site, uint32_t lane, bool direct,
                        uint64_t incarnation)
{
    char path[CFSR_LANE_PATH_BYTES];
    int rc = 0;

    memset(files, 0, sizeof *files);
    files->fs = fs;
    files->site = site;
    files->lane = lane;
    files->direct = direct;
    files->incarnation = incarnation;
    (void)pthread_mutex_init(&files->spare_mutex, NULL);
    spare_path(files, path, sizeof path);
    if (check_spare(files, path))
        atomic_store(&files->spare_ready, true);
    else
        rc = fs->ops->unlink(fs, path);
    return rc < 0 && rc != -ENOENT ? cfsr_fail(rc, "cannot remove %s: %s", path, cfsr_strerror(rc))
                                   : 0;
}

void cfsr_lane_file_fini(struct cfsr_lane_file *files)
{
    if (files->file != NULL)
        cfsr_file_close(files->file);
    files->file = NULL;
    (void)pthread_mutex_destroy(&files->spare_mutex);
}

static int open_segment(struct cfsr_lane_file *files, uint64_t first_lsn)
{
    unsigned flags = CFSR_OPEN_READ | CFSR_OPEN_WRITE | (files->direct ? CFSR_OPEN_DIRECT : 0u);
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;
    int rc;

    cfsr_segment_path(files->site, files->lane, first_lsn, path, sizeof path);
    rc = cfsr_file_open(files->fs, path, flags, &file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s for writing: %s", path, cfsr_strerror(rc));
    if (cfsr_file_alignment(file) > CFSR_GROUP_BLOCK_BYTES) {
        rc = cfsr_fail(-EINVAL,
                       "%s needs direct I/O in blocks of %" PRIu32
                       " bytes: use --journal-io buffered",
                       path, cfsr_file_alignment(file));
        cfsr_file_close(file);
        return rc;
    }
    if (files->file != NULL)
        cfsr_file_close(files->file);
    files->file = file;
    files->first_lsn = first_lsn;
    return 0;
}

int cfsr_lane_file_resume(struct cfsr_lane_file *files, uint64_t lsn, void *block_out)
{
    uint64_t block_lsn = cfsr_align_down(lsn, CFSR_GROUP_BLOCK_BYTES);
    void *block = NULL;
    int rc = open_segment(files, cfsr_segment_first_lsn(files->site, lsn));

    if (rc < 0)
        return rc;
    if (posix_memalign(&block, CFSR_GROUP_BLOCK_BYTES, CFSR_GROUP_BLOCK_BYTES) != 0)
        return -ENOMEM;
    rc = cfsr_file_pread(files->file, block, CFSR_GROUP_BLOCK_BYTES,
                         cfsr_segment_file_offset(files->site, block_lsn));
    if (rc == CFSR_GROUP_BLOCK_BYTES)
        memcpy(block_out, block, CFSR_GROUP_BLOCK_BYTES);
    free(block);
    if (rc >= 0 && rc != CFSR_GROUP_BLOCK_BYTES)
        rc = -CFSR_E_FORMAT;
    return rc < 0 ? cfsr_fail(rc, "cannot read lane %" PRIu32 " at LSN %" PRIx64, files->lane, lsn)
                  : 0;
}

int cfsr_lane_file_write_zeros(const struct cfsr_site *site, struct cfsr_file *file)
{
    uint64_t total = CFSR_SEGMENT_HEADER_BYTES + site->segment_bytes;
    uint8_t *zeros = calloc(1, ZERO_CHUNK_BYTES);
    int rc = zeros == NULL ? -ENOMEM : cfsr_file_allocate(file, 0, total);

    if (rc == -EOPNOTSUPP)
        rc = 0; /* the writes below allocate as well, only less neatly */
    for (uint64_t at = 0; rc >= 0 && at < total; at += ZERO_CHUNK_BYTES) {
        uint32_t len = (uint32_t)cfsr_min_u64(ZERO_CHUNK_BYTES, total - at);

        rc = cfsr_file_pwrite(file, zeros, len, at, false);
        if (rc >= 0 && (at + len) % ZERO_SYNC_BYTES == 0)
            rc = cfsr_file_sync(file);
    }
    free(zeros);
    return rc < 0 ? rc : cfsr_file_sync(file);
}

/* Writes a header block durably; the block is aligned for direct files. */
static int write_header(struct cfsr_file *file, const void *block)
{
    int rc = cfsr_file_pwrite(file, block, CFSR_SEGMENT_HEADER_BYTES, 0, false);

    return rc < 0 ? rc : cfsr_file_sync(file);
}

static int make_spare_locked(struct cfsr_lane_file *files)
{
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;
    int rc;

    if (atomic_load(&files->spare_ready))
        return 0;
    spare_path(files, path, sizeof path);
    rc = cfsr_file_open(files->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE,
                        &file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot create %s: %s", path, cfsr_strerror(rc));
    rc = cfsr_lane_file_write_zeros(files->site, file);
    if (rc == 0) {
        cfsr_segment_spare_store(files->site, files->lane, block);
        rc = write_header(file, block);
    }
    cfsr_file_close(file);
    if (rc < 0) {
        (void)files->fs->ops->unlink(files->fs, path);
        return cfsr_fail(rc, "cannot prepare segment %s (%" PRIu64 " bytes): %s", path,
                         files->site->segment_bytes, cfsr_strerror(rc));
    }
    atomic_store(&files->spare_ready, true);
    return 0;
}

int cfsr_lane_file_prepare_spare(struct cfsr_lane_file *files)
{
    int rc;

    pthread_mutex_lock(&files->spare_mutex);
    rc = make_spare_locked(files);
    pthread_mutex_unlock(&files->spare_mutex);
    return rc;
}

static int name_spare_locked(struct cfsr_lane_file *files, uint64_t first_lsn, uint64_t created_us)
{
    struct cfsr_segment_header header = {
        .lane = files->lane,
        .incarnation = files->incarnation,
        .first_lsn = first_lsn,
        .created_us = created_us,
    };
    char spare[CFSR_LANE_PATH_BYTES], path[CFSR_LANE_PATH_BYTES];
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_file *file;
    int rc;

    spare_path(files, spare, sizeof spare);
    cfsr_segment_path(files->site, files->lane, first_lsn, path, sizeof path);
    cfsr_segment_header_store(files->site, &header, block);
    rc = cfsr_file_open(files->fs, spare, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);
    if (rc == 0) {
        rc = write_header(file, block);
        cfsr_file_close(file);
    }
    if (rc == 0)
        rc = files->fs->ops->rename(files->fs, spare, path);
    if (rc < 0)
        return cfsr_fail(rc, "cannot turn %s into %s: %s", spare, path, cfsr_strerror(rc));
    atomic_store(&files->spare_ready, false);
    return sync_lane_directory(files);
}

int cfsr_lane_file_rotate(struct cfsr_lane_file *files, uint64_t first_lsn, uint64_t created_us,
                          bool *stalled_out)
{
    int rc;

    CFSR_ASSERT(first_lsn % files->site->segment_bytes == 0);
    *stalled_out = !atomic_load(&files->spare_ready);
    pthread_mutex_lock(&files->spare_mutex);
    rc = make_spare_locked(files);
    if (rc == 0)
        rc = name_spare_locked(files, first_lsn, created_us);
    pthread_mutex_unlock(&files->spare_mutex);
    return rc < 0 ? rc : open_segment(files, first_lsn);
}

int cfsr_lane_file_write(struct cfsr_lane_file *files, const struct cfsr_group_span *span)
{
    uint64_t from = files->direct ? span->block_lsn : span->lsn;
    const uint8_t *bytes = span->block + (from - span->block_lsn);
    uint32_t len = (uint32_t)(span->zeroed_end_lsn - from);
    int rc;

    CFSR_ASSERT(files->file != NULL &&
                span->zeroed_end_lsn <= files->first_lsn + files->site->segment_bytes);
    CFSR_ASSERT(cfsr_segment_first_lsn(files->site, from) == files->first_lsn);
    rc = cfsr_file_pwrite(files->file, bytes, len, cfsr_segment_file_offset(files->site, from),
                          files->direct);
    if (rc >= 0 && !files->direct)
        rc = cfsr_file_sync(files->file);
    return rc < 0 ? cfsr_fail(rc, "cannot write lane %" PRIu32 " at LSN %" PRIx64 ": %s",
                              files->lane, span->lsn, cfsr_strerror(rc))
                  : 0;
}

int cfsr_lane_file_recycle(struct cfsr_lane_file *files, uint64_t first_lsn, bool *reused_out)
{
    char spare[CFSR_LANE_PATH_BYTES], path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *repair;
    bool reuse;
    int rc;

    spare_path(files, spare, sizeof spare);
    cfsr_segment_path(files->site, files->lane, first_lsn, path, sizeof path);
    rc = cfsr_lane_repair_lock(files->fs, files->site, files->lane, &repair);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&files->spare_mutex);
    reuse = !atomic_load(&files->spare_ready) && check_spare(files, path);
    rc = reuse ? files->fs->ops->rename(files->fs, path, spare)
               : files->fs->ops->unlink(files->fs, path);
    if (rc == 0)
        rc = sync_lane_directory(files);
    if (rc == 0 && reuse)
        atomic_store(&files->spare_ready, true);
    pthread_mutex_unlock(&files->spare_mutex);
    cfsr_file_close(repair);
    if (rc == 0)
        *reused_out = reuse;
    return rc < 0 ? cfsr_fail_context(rc, "cannot recycle %s", path) : 0;
}
