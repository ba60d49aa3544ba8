/*
 * file_sim.h - what the simulated file backend offers to tests and to the simulator beyond the
 * seam: numbered points at which the world can be stopped, damage, and faults that change while it
 * runs. Creation, time and power cuts are in file.h.
 *
 * Single thread. Everything follows from the seed and the calls: observing a disk, stopping at a
 * point or asking for stale sectors changes nothing of what the run does.
 */
#ifndef CFSR_CORE_FILE_SIM_H
#define CFSR_CORE_FILE_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"

#define CFSR_SIM_SECTOR_BYTES 512u

/* ---- points ---- */

enum cfsr_sim_op {
    CFSR_SIM_CREATE, /* of a file, by open */
    CFSR_SIM_WRITE,
    CFSR_SIM_WRITE_DURABLE,
    CFSR_SIM_SYNC,
    CFSR_SIM_ALLOCATE,
    CFSR_SIM_TRUNCATE,
    CFSR_SIM_RENAME,
    CFSR_SIM_UNLINK,
    CFSR_SIM_MKDIR, /* of a directory that was not there */
    CFSR_SIM_SYNC_DIR,
};
#define CFSR_SIM_OP_COUNT (CFSR_SIM_SYNC_DIR + 1)

/*
 * MIDDLE, by op: some sectors of a write are there, not durable (its first k, or any of them, by
 * the op's number); some of what a sync is to save is durable; the names that a directory's sync
 * saves are durable up to one of them, in the order of their changes; half of an allocation is
 * done. A name op is one transaction on every file system we stand on: it is done and not durable,
 * as after it. An async op acts when it completes: before and after enclose that.
 */
enum cfsr_sim_phase {
    CFSR_SIM_BEFORE,
    CFSR_SIM_MIDDLE,
    CFSR_SIM_AFTER /* done or failed; the caller does not know yet */
};

struct cfsr_sim_point {
    uint64_t number; /* of the op on this disk, from 1; cfsr_fs_sim_op_count() */
    enum cfsr_sim_op op;
    enum cfsr_sim_phase phase;
    const char *path; /* file ops: the name it was opened by; valid during the call */
    const char *to;   /* RENAME */
    uint64_t offset_bytes, len_bytes;
    int rc; /* AFTER: of the op; else 0 */
};

/*
 * Called within the op. The observer may look at the disk, damage it, change its faults, fork the
 * process, or leave with longjmp() and crash the disk; it must not call the seam's file ops on it.
 */
typedef void (*cfsr_sim_observer)(void *user, struct cfsr_fs *fs,
                                  const struct cfsr_sim_point *point);

/* phases: bit 1 << phase each. NULL ends it. */
void cfsr_fs_sim_observe(struct cfsr_fs *fs, unsigned phases, cfsr_sim_observer observer,
                         void *user);
const char *cfsr_sim_op_name(enum cfsr_sim_op op);
const char *cfsr_sim_phase_name(enum cfsr_sim_phase phase);

/* ---- faults, changed at any time ---- */

void cfsr_fs_sim_set_latency(struct cfsr_fs *fs,
                             uint64_t latency_us); /* of ops not submitted yet */
/* Below what is in use: nothing is lost, nothing grows. */
void cfsr_fs_sim_set_capacity(struct cfsr_fs *fs, uint64_t capacity_bytes);

/* What a failed sync leaves of the data it was to save; some of it always reached the disk. */
enum cfsr_sync_failure {
    /* ext4, xfs: readable until the crash, and no later sync writes it. */
    CFSR_SYNC_FAILURE_KEPT,
    /* The cache forgets it at once: the old bytes are read again. */
    CFSR_SYNC_FAILURE_DROPPED,
    CFSR_SYNC_FAILURE_EITHER, /* a coin for each failure */
};
/* Of syncs and durable writes, in a million. The failures of cfsr_fs_sim_fail_nth() too leave what
 * kind says. */
void cfsr_fs_sim_set_sync_failures(struct cfsr_fs *fs, uint32_t per_million,
                                   enum cfsr_sync_failure kind);
/* Keep what each sector held before it was last overwritten (for stale and misdirected); costs up
 * to as much memory again. */
void cfsr_fs_sim_keep_stale(struct cfsr_fs *fs, bool keep);

/*
 * ---- damage ----
 *
 * Of a file's visible and durable bytes. 0; -ENOENT: no such file; -EINVAL: beyond its end;
 * -EOPNOTSUPP: stale contents are not kept; -EALREADY: the sector holds that already, so nothing is
 * damaged; -ENOMEM.
 */
int cfsr_fs_sim_zero_sector(struct cfsr_fs *fs, const char *path, uint64_t sector);
/* The last overwrite of the sector got lost. */
int cfsr_fs_sim_stale_sector(struct cfsr_fs *fs, const char *path, uint64_t sector);
/* The last overwrite of sector `from` went to sector `to` of the same file instead. */
int cfsr_fs_sim_misdirect(struct cfsr_fs *fs, const char *path, uint64_t from, uint64_t to);
/* Reads that touch the sectors fail with -EIO, until each is overwritten in full (a write of a part
 * of one fails too). */
int cfsr_fs_sim_fail_reads(struct cfsr_fs *fs, const char *path, uint64_t sector, uint64_t count);
/* Any bytes, for damage of other shapes; not an op. */
int cfsr_fs_sim_poke(struct cfsr_fs *fs, const char *path, uint64_t offset_bytes, const void *bytes,
                     uint32_t len_bytes);
int cfsr_fs_sim_peek(struct cfsr_fs *fs, const char *path, uint64_t offset_bytes, void *bytes,
                     uint32_t len_bytes); /* as a read would see it; bytes read */

/*
 * A disk of its own with the same contents, durable and not, and the same faults and seed; no file
 * is open on it, nothing pending, nobody observes. Sparse: costs what is stored.
 */
int cfsr_fs_sim_clone(const struct cfsr_fs *fs, struct cfsr_fs **clone_out);
/* Gives the clone's (or any disk's) random choices another course. */
void cfsr_fs_sim_reseed(struct cfsr_fs *fs, uint64_t seed);

#endif
