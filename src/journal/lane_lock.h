/*
 * lane_lock.h - the locks of a lane: one writer, and nobody recycling what is being repaired.
 *
 * Both are files locked through the seam (flock); a crash frees them. Neither is waited for.
 */
#ifndef CFSR_JOURNAL_LANE_LOCK_H
#define CFSR_JOURNAL_LANE_LOCK_H

#include "core/file.h"
#include "journal/site.h"

/* DATA/journal/<lane>/lock: held by a writer for as long as it is open, or by recovery.
 * -CFSR_E_LOCKED, -errno. Closing the file unlocks. */
int cfsr_journal_lock_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                           struct cfsr_file **lock_out);

/* DATA/journal/<lane>/repair.lock: held while a repair writes into a segment, and while the writer
 * gives one up. -CFSR_E_LOCKED, -errno. */
int cfsr_lane_repair_lock(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          struct cfsr_file **lock_out);

#endif
