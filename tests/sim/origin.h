/*
 * origin.h - the local service of a simulated site: appends to one lane of its journal, with the
 * real group, segment and recovery code, in one thread.
 */
#ifndef CFSR_TESTS_SIM_ORIGIN_H
#define CFSR_TESTS_SIM_ORIGIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hlc.h"
#include "core/file.h"
#include "journal/site.h"

struct origin;

/* What was appended, as the one who appended it remembers it: outside of every disk. */
struct origin_entry {
    uint64_t lsn, end_lsn, seq, timestamp_us, inode;
    uint32_t shard, payload_bytes, payload_crc;
};
struct origin_truth {
    struct origin_entry *entry; /* in the order of the lane */
    uint64_t count, room;
    uint64_t committed_lsn; /* everything below was said to be durable */
};
struct origin_truth origin_truth_copy(const struct origin_truth *truth);
void origin_truth_fini(struct origin_truth *truth);

struct origin_clock {
    struct cfsr_hlc hlc; /* shared by the lanes of the site */
    uint64_t wall_us;
};

/*
 * Recovers the lane and goes on where it ends. truth: NULL, or what to remember in; entries of it
 * that were never said to be durable and are not there are forgotten.
 */
int origin_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                struct origin_clock *clock, struct origin_truth *truth, struct origin **origin_out);
/*
 * What a running service does with a lane whose write or sync failed: the disk is read anew, cut
 * behind what was promised, and the lane goes on. On failure it is closed (*origin NULL), and
 * origin_open() is to be tried.
 */
int origin_recut(struct origin **origin);
/* No closing MARK: as a killed process leaves it. */
void origin_close(struct origin *origin);
/*
 * Stages one entry; commits when the group is full. salt makes the payload; plain: bytes that
 * compress to nothing. Negative: the disk is full (-ENOSPC, nothing is lost, try again), or the
 * lane has failed and must be opened again.
 */
int origin_append(struct origin *origin, uint32_t payload_bytes, uint64_t salt, bool plain);
int origin_commit(struct origin *origin);
int origin_mark(struct origin *origin);
/* Gives up the lowest segment, as retention does. */
int origin_recycle_lowest(struct origin *origin);
bool origin_failed(const struct origin *origin);
uint64_t origin_head(const struct origin *origin); /* committed */
/* Where recovery found the end of what was written; behind it a torn tail was cut. */
uint64_t origin_found(const struct origin *origin);
uint64_t origin_lowest(const struct origin *origin);
uint64_t origin_entries(const struct origin *origin);

#endif
