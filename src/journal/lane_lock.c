/*
 * lane_lock.c - taking a lane's locks; see lane_lock.h.
 *
 * Thread:     any; the lock belongs to the open file.
 */
#include "journal/lane_lock.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/fail.h"
#include "journal/segment_map.h"

static int take(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane, const char *name,
                const char *holder, struct cfsr_file **lock_out)
{
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;
    int rc;

    (void)snprintf(path, sizeof path, "%s/journal/%02" PRIu32 "/%s", site->data_dir, lane, name);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot open the lane lock %s: %s", path, cfsr_strerror(rc));
    rc = cfsr_file_lock(file);
    if (rc < 0) {
        cfsr_file_close(file);
        return cfsr_fail(rc, "%s is locked: %s", path, holder);
    }
    *lock_out = file;
    return 0;
}

int cfsr_journal_lock_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                           struct cfsr_file **lock_out)
{
    return take(fs, site, lane, "lock", "another process writes this journal", lock_out);
}

int cfsr_lane_repair_lock(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          struct cfsr_file **lock_out)
{
    return take(fs, site, lane, "repair.lock", "a segment is being repaired or recycled: try again",
                lock_out);
}
