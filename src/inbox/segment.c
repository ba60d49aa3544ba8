/*
 * segment.c - segment files of the inbox: listed, prepared, opened, recycled.
 *
 * Thread:     helper threads, start-up and tools; blocking.
 * Invariants: a file named <sequence>.seg has its header on disk and all of its extents written; a
 * crash at any step leaves a free or temporary file, never a half-made segment. The body of a
 * recycled file keeps its old bytes: their sequence refuses them. Rejected:   fallocate alone
 * (unwritten extents: each first write to one also writes metadata, and syncs 1.45 times slower);
 *             zeroing a recycled body (the seeded CRC makes it needless).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "inbox/scan.h"

#define FILL_BYTES (1u << 20)

struct listing {
    const char *lane_path;
    uint64_t first, last, count;
    uint64_t free_files, free_sequence;
};

/* "<16 hex>.seg" or "free.<16 hex>": 1 and the number, else 0. */
static int parse_name(const char *name, const char *before, const char *after, uint64_t *number_out)
{
    size_t lead = strlen(before), i;
    uint64_t value = 0;

    if (strncmp(name, before, lead) != 0 || strlen(name) != lead + 16 + strlen(after) ||
        strcmp(name + lead + 16, after) != 0)
        return 0;
    for (i = lead; i < lead + 16; i++) {
        char c = name[i];
        unsigned digit;

        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else
            return 0;
        value = value << 4 | digit;
    }
    *number_out = value;
    return 1;
}

static int visit_file(void *user, const struct cfsr_dir_entry *entry)
{
    struct listing *listing = user;
    uint64_t number;

    if (parse_name(entry->name, "", ".seg", &number) && number > 0) {
        if (listing->count == 0 || number < listing->first)
            listing->first = number;
        listing->last = cfsr_max_u64(listing->last, number);
        listing->count++;
        return 0;
    }
    if (parse_name(entry->name, "free.", "", &number)) {
        listing->free_files++;
        listing->free_sequence = number;
        return 0;
    }
    if (strcmp(entry->name, "new") == 0 || strcmp(entry->name, "lock") == 0)
        return 0;
    return cfsr_fail(-CFSR_E_FOREIGN, "%s/%s is not a file of the inbox: move it away",
                     listing->lane_path, entry->name);
}

static int list_lane(struct cfsr_fs *fs, const char *lane_path, struct listing *listing)
{
    memset(listing, 0, sizeof *listing);
    listing->lane_path = lane_path;
    return fs->ops->list(fs, lane_path, visit_file, listing);
}

int cfsr_inbox_list_segments(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                             struct cfsr_inbox_range_of_segments *range_out)
{
    char path[CFSR_INBOX_PATH_BYTES];
    struct listing listing;
    int rc;

    rc = list_lane(fs, cfsr_inbox_lane_path(site, lane, path), &listing);
    if (rc < 0)
        return rc;
    range_out->first = listing.first;
    range_out->last = listing.last;
    range_out->missing = listing.count == 0 ? 0 : listing.last - listing.first + 1 - listing.count;
    range_out->free_files = listing.free_files;
    return 0;
}

/* A name beside the segments of the lane. Bounded by the lane path, which was printed into a buffer
 * of the same size before. */
static void beside(const char *lane_path, const char *name, char path_out[CFSR_INBOX_PATH_BYTES])
{
    int n = snprintf(path_out, CFSR_INBOX_PATH_BYTES, "%s/%s", lane_path, name);

    CFSR_ASSERT(n > 0 && n < CFSR_INBOX_PATH_BYTES);
}

/*
 * Writes a new file once in full, past the page cache where that can be: pages left there would
 * have to be dropped again by each direct write of a core, on a kernel worker.
 */
static int fill_file(struct cfsr_fs *fs, const struct cfsr_site *site, const char *path)
{
    uint64_t offset, total = CFSR_INBOX_SEGMENT_HEADER_BYTES + site->segment_bytes;
    struct cfsr_file *file;
    void *zeros;
    int rc;

    zeros = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, FILL_BYTES);
    if (zeros == NULL)
        return -ENOMEM;
    memset(zeros, 0, FILL_BYTES);
    rc = cfsr_file_open(
        fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE | CFSR_OPEN_DIRECT, &file);
    if (rc < 0)
        goto free_zeros;
    rc = cfsr_file_truncate(file, 0);
    for (offset = 0; rc >= 0 && offset < total; offset += FILL_BYTES)
        rc = cfsr_file_pwrite(file, zeros, (uint32_t)cfsr_min_u64(FILL_BYTES, total - offset),
                              offset, false);
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    cfsr_file_close(file);
    if (rc < 0)
        rc = cfsr_fail_context(rc, "writing inbox segment %s", path);
free_zeros:
    free(zeros);
    return rc < 0 ? rc : 0;
}

static int write_header(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                        uint64_t sequence, const char *path)
{
    struct cfsr_file *file;
    uint64_t bytes = 0;
    void *block;
    int rc;

    block = malloc(CFSR_INBOX_SEGMENT_HEADER_BYTES);
    if (block == NULL)
        return -ENOMEM;
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file);
    if (rc < 0)
        goto free_block;
    rc = cfsr_file_size(file, &bytes);
    if (rc >= 0 && bytes != CFSR_INBOX_SEGMENT_HEADER_BYTES + site->segment_bytes)
        rc = -CFSR_E_FORMAT;
    if (rc >= 0) {
        cfsr_inbox_segment_header_store(site, lane, sequence, block);
        rc = cfsr_file_pwrite(file, block, CFSR_INBOX_SEGMENT_HEADER_BYTES, 0, false);
    }
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    cfsr_file_close(file);
free_block:
    free(block);
    return rc < 0 ? rc : 0;
}

int cfsr_inbox_restore_header(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t sequence)
{
    char path[CFSR_INBOX_PATH_BYTES];
    int rc;

    cfsr_inbox_segment_path(site, lane, sequence, path);
    rc = write_header(fs, site, lane, sequence, path);
    return rc < 0 ? cfsr_fail_context(rc, "writing the header of inbox segment %s anew", path) : 0;
}

/* The file that will become the segment: a free one, or a new one. */
static int obtain_file(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                       uint64_t sequence, const struct listing *listing,
                       char path_out[CFSR_INBOX_PATH_BYTES])
{
    char name[32];
    int rc;

    if (listing->free_files > 0) {
        snprintf(name, sizeof name, "free.%016llx", (unsigned long long)listing->free_sequence);
        beside(listing->lane_path, name, path_out);
        rc = write_header(fs, site, lane, sequence, path_out);
        if (rc != -CFSR_E_FORMAT)
            return rc;
        rc = fs->ops->unlink(fs, path_out); /* of another size: of no use */
        if (rc < 0)
            return rc;
    }
    beside(listing->lane_path, "new", path_out);
    rc = fill_file(fs, site, path_out);
    if (rc < 0)
        return rc;
    return write_header(fs, site, lane, sequence, path_out);
}

int cfsr_inbox_open_segment(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t sequence, bool direct, struct cfsr_file **file_out,
                            bool *direct_out)
{
    char path[CFSR_INBOX_PATH_BYTES];
    struct cfsr_inbox_scan scan;
    struct cfsr_file *file;
    unsigned flags = CFSR_OPEN_READ | CFSR_OPEN_WRITE;
    int rc;

    /* Also of a name that is there already: the sync of an earlier attempt may have failed. */
    rc = fs->ops->sync_dir(fs, cfsr_inbox_lane_path(site, lane, path));
    if (rc < 0)
        return rc;
    rc = cfsr_inbox_scan_open(fs, site, lane, sequence, false, &scan);
    if (rc < 0)
        return rc;
    cfsr_inbox_scan_close(&scan);
    cfsr_inbox_segment_path(site, lane, sequence, path);
    if (scan.header_damaged)
        rc = cfsr_inbox_restore_header(fs, site, lane, sequence);
    if (rc < 0)
        return rc;
    rc = cfsr_file_open(fs, path, flags | (direct ? CFSR_OPEN_DIRECT : 0u), &file);
    if (rc < 0 && direct) /* a file system that refuses O_DIRECT at the open */
        rc = cfsr_file_open(fs, path, flags, &file);
    if (rc < 0)
        return rc;
    if (cfsr_file_alignment(file) >
        CFSR_INBOX_BLOCK_BYTES) { /* larger sectors than our blocks: buffered */
        cfsr_file_close(file);
        rc = cfsr_file_open(fs, path, flags, &file);
        if (rc < 0)
            return rc;
    }
    *direct_out = direct && cfsr_file_alignment(file) > 1;
    *file_out = file;
    return 0;
}

int cfsr_inbox_prepare_segment(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                               uint64_t sequence, bool direct, struct cfsr_file **file_out,
                               bool *direct_out)
{
    char lane_path[CFSR_INBOX_PATH_BYTES], from[CFSR_INBOX_PATH_BYTES], to[CFSR_INBOX_PATH_BYTES];
    struct listing listing;
    int rc;

    CFSR_ASSERT(sequence > 0);
    cfsr_inbox_lane_path(site, lane, lane_path);
    rc = fs->ops->mkdir(fs, lane_path);
    if (rc < 0)
        return rc;
    rc = list_lane(fs, lane_path, &listing);
    if (rc < 0)
        return rc;
    /* Prepared before a restart already? (One that was lost meanwhile is a missing segment.) */
    if (listing.count == 0 || sequence > listing.last) {
        rc = obtain_file(fs, site, lane, sequence, &listing, from);
        if (rc < 0)
            return rc;
        rc = fs->ops->rename(fs, from, cfsr_inbox_segment_path(site, lane, sequence, to));
        if (rc < 0)
            return rc;
    }
    return cfsr_inbox_open_segment(fs, site, lane, sequence, direct, file_out, direct_out);
}

int cfsr_inbox_drop_segment(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t sequence, bool recycle)
{
    char lane_path[CFSR_INBOX_PATH_BYTES], from[CFSR_INBOX_PATH_BYTES], to[CFSR_INBOX_PATH_BYTES];
    char name[32];
    int rc;

    cfsr_inbox_lane_path(site, lane, lane_path);
    cfsr_inbox_segment_path(site, lane, sequence, from);
    if (recycle) {
        snprintf(name, sizeof name, "free.%016llx", (unsigned long long)sequence);
        beside(lane_path, name, to);
        rc = fs->ops->rename(fs, from, to);
    } else {
        rc = fs->ops->unlink(fs, from);
    }
    if (rc < 0)
        return rc;
    return fs->ops->sync_dir(fs, lane_path);
}
