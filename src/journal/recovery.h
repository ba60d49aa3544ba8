/*
 * recovery.h - where a lane of the journal ends, and what is wrong with it.
 *
 * Recovery scans from the beginning of the last segment in use, tells a torn tail from rot (damage
 * below the last MARK's committed LSN, or followed by later valid records whose MARK covers it, or
 * below what a peer acknowledged by DATA/acks), cuts a torn tail with a PAD to the segment end (so
 * that appending resumes at a boundary past any byte ever written, with a new incarnation), syncs,
 * and reports. It needs the lane lock.
 */
#ifndef CFSR_JOURNAL_RECOVERY_H
#define CFSR_JOURNAL_RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/lane_lock.h"
#include "journal/record.h"
#include "journal/site.h"

struct cfsr_lane_state {
    uint64_t end_lsn;     /* everything below is valid and durable */
    uint64_t first_lsn;   /* lowest LSN still present */
    uint64_t incarnation; /* for the next writer */
    uint64_t entries;     /* cumulative entries of the lane */
    uint64_t max_timestamp_us;
    struct cfsr_record_stamp last; /* last record below end_lsn; lsn = CFSR_LSN_UNKNOWN if none */
    bool clean;                    /* closed cleanly: appending may go on at end_lsn */
    uint64_t cut_lsn;              /* CFSR_LSN_UNKNOWN, or where a torn tail was cut */
    uint64_t cut_bytes;            /* ambiguous bytes given up (upper bound) */
    uint64_t *next_seq; /* next seq per shard of the lane (count = shards / lanes, rounded up);
                           owned, free with _fini */
};

/*
 * Recovers one lane in place. Takes the lane lock itself unless lock_held. -CFSR_E_LOCKED if a
 * writer lives, -CFSR_E_DAMAGED (message says segment, LSN and what to do),
 * -CFSR_E_MISSING_SEGMENT, -CFSR_E_FOREIGN, -errno. read_only: reports without changing anything (a
 * live lane may be looked at; its tail is then just "open").
 */
int cfsr_journal_recover_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              bool read_only, bool lock_held, struct cfsr_lane_state *state_out);
void cfsr_lane_state_fini(struct cfsr_lane_state *state);

/*
 * Recovery of a running writer whose write or sync failed: re-reads the last segment from the disk
 * itself (not the page cache) up to committed_lsn, cuts there, whatever stands behind, and reads
 * that back too. Appending resumes at the next segment boundary with a new incarnation. The lane
 * lock is held, and no descriptor of the failed one is used. -CFSR_E_DAMAGED: something below the
 * commit is not there any more; -errno: the disk still fails.
 */
int cfsr_journal_recut_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t committed_lsn, struct cfsr_lane_state *state_out);

/*
 * The proof of rot: looks from damaged_lsn to the end of the segment last_segment_lsn for a MARK
 * whose committed LSN is above damaged_lsn. 1: *mark_lsn_out; 0: none; -errno. *last_byte_lsn_out:
 * behind the last byte seen that is not zero.
 */
int cfsr_journal_search_cover(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t damaged_lsn, uint64_t last_segment_lsn,
                              uint64_t *mark_lsn_out, uint64_t *last_byte_lsn_out);

#endif
