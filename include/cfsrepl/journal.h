/*
 * journal.h - append to a site's metadata journal.
 *
 * One process per site opens the journal for writing; any number of its threads append. An append
 * that returned is durable (group commit: threads that arrive while a sync runs share the next
 * one). Appends never wait for any peer or for the replication daemon, which may be down. Link with
 * libcfsrepl.
 */
#ifndef CFSREPL_JOURNAL_H
#define CFSREPL_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cfsrepl/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Operation numbers; fixed, on disk and on the wire. */
enum cfsr_op {
    CFSR_OP_CREATE = 0,
    CFSR_OP_UNLINK = 1,
    CFSR_OP_RENAME = 2,
    CFSR_OP_WRITE = 3,
    CFSR_OP_TRUNCATE = 4,
    CFSR_OP_SETATTR = 5,
    CFSR_OP_LINK = 6,
    CFSR_OP_SYMLINK = 7,
    CFSR_OP_MKDIR = 8,
    CFSR_OP_SETXATTR = 9,
    CFSR_OP_REMOVEXATTR = 10,
};
#define CFSR_OP_COUNT 11

/*
 * Record flags, kept and carried as given. A forwarded entry came from another site: reserved for
 * active-active, nothing acts on it yet. An opaque one is not TLV; it counts as a full overwrite of
 * its inode.
 */
#define CFSR_ENTRY_FORWARDED 0x01
#define CFSR_ENTRY_OPAQUE    0x02

/* "Create", "MkDir", … as in the contract; NULL for other numbers. */
const char *cfsr_op_name(unsigned op);
/* Number of an op name (case-insensitive), or -CFSR_E_FORMAT. */
int cfsr_op_parse(const char *name);

/* One entry to append. seq, timestamp and CRC are given by the journal. */
struct cfsr_entry {
    uint32_t shard_id;  /* or CFSR_SHARD_AUTO: the cluster's shard function of shard_key */
    uint64_t shard_key; /* parent inode for directory-entry ops, inode for inode ops; used with
                           CFSR_SHARD_AUTO */
    uint64_t inode;
    uint8_t op;             /* enum cfsr_op */
    uint8_t flags;          /* CFSR_ENTRY_* */
    const void *payload;    /* TLV (payload.h) or opaque; copied */
    uint32_t payload_bytes; /* <= 1 MiB */
};
#define CFSR_SHARD_AUTO UINT32_MAX

/* What an entry got. */
struct cfsr_entry_position {
    uint32_t lane;
    uint64_t lsn;     /* first byte of the record */
    uint64_t end_lsn; /* position after it: durable when the lane's committed LSN >= end_lsn */
    uint64_t seq;
    uint64_t timestamp_us;
};

struct cfsr_journal;

struct cfsr_journal_options {
    size_t opts_size; /* sizeof(struct cfsr_journal_options) */
    const char *data_dir;
    bool direct;                  /* O_DIRECT + RWF_DSYNC instead of buffered + fdatasync */
    uint32_t buffer_bytes;        /* staging per lane; 0: 4 MiB */
    uint64_t retention_cap_bytes; /* 0: min(50 % of the file system, 256 GiB) */
    uint64_t retention_age_ms;    /* kept below the lowest ack at least this long; 0: 60 s */
    uint32_t idle_mark_ms;        /* trailing MARK after this idle time; 0: 10 ms */
    uint32_t retention_policy;    /* enum cfsr_retention; 0: by ack */
    uint64_t
        retention_segments; /* CFSR_RETAIN_BY_COUNT: segments of a lane that are kept, at least 2 */
};

/* What may be removed once the cap does not ask for more. Age is retention_age_ms. */
enum cfsr_retention {
    CFSR_RETAIN_BY_ACK =
        0, /* what every known peer holds durably and is old enough; without known peers: nothing */
    CFSR_RETAIN_ALL = 1,
    CFSR_RETAIN_BY_AGE = 2,
    CFSR_RETAIN_BY_COUNT = 3,
};

struct cfsr_journal_stats {
    uint64_t entries;           /* appended by this process and durable */
    uint64_t records_bytes;     /* of the journal stream, MARK, SHARDS and PAD filler included */
    uint64_t groups;            /* commit groups written */
    uint64_t syncs;             /* the same, but for failed ones */
    uint64_t sync_ns;           /* spent in write and sync, all lanes */
    uint64_t spare_stalls;      /* a new segment was needed and no spare was ready */
    uint64_t rotations;         /* segments begun */
    uint64_t recycled_segments; /* old segments that became spares */
    uint64_t removed_segments;  /* old segments that were deleted */
    uint64_t forced_removals;   /* of both: given up for the cap or the free-space floor */
    uint64_t detached_removals; /* of both: under pressure, needed by detached peers only */
    uint64_t reopened_lanes;    /* lanes that were opened anew after a failed write or sync */
};

/*
 * Opens for writing: takes every lane's lock, recovers, starts the helper thread that prepares
 * segments ahead of need. -CFSR_E_LOCKED another process writes, -CFSR_E_DAMAGED, -CFSR_E_FOREIGN,
 * -errno. The message names the object.
 */
int cfsr_journal_open(const struct cfsr_journal_options *options,
                      struct cfsr_journal **journal_out);
/* Writes the closing MARKs (clean close), syncs, unlocks. All appenders must have returned. */
int cfsr_journal_close(struct cfsr_journal *journal);

/*
 * Appends count entries in order and returns when all are durable. Thread-safe. positions_out may
 * be NULL. -CFSR_E_TOO_LARGE, -CFSR_E_SEQ_WRAP, -CFSR_E_NOT_WRITABLE, -ENOSPC, -CFSR_E_FAILED. On
 * error of a later entry the earlier ones may be durable; *appended_out (may be NULL) says how many
 * were.
 *
 * -ENOSPC: the file system is full. It is said at once; appends go on by themselves when there is
 * space again.
 *
 * -CFSR_E_FAILED (-ENOSPC when the disk said so): a write or sync of the entry's lane failed. That
 * descriptor is given up: nothing is synced again and then acknowledged. The lane refuses appends
 * while the journal's helper thread reads it anew from the disk, cuts it behind the last entry that
 * was acknowledged, and opens it with fresh descriptors, which it tries every second until the disk
 * lets it; then appends go on. An entry that got this error is then not in the journal: append it
 * again (of several in one call the first may be there, as said above; the last is not). Only if
 * the process or the machine stops before that may the next one to open the journal find some of
 * them, in order, written whole: then they stay.
 */
int cfsr_journal_append(struct cfsr_journal *journal, const struct cfsr_entry *entries,
                        unsigned count, struct cfsr_entry_position *positions_out,
                        unsigned *appended_out);

/*
 * The two halves: stage without waiting (blocks only while the lane's staging buffer is full), then
 * wait for durability of the entry that ends at end_lsn. -CFSR_E_FAILED as above: that entry is not
 * in the journal. A wait speaks of its own entry: after a failure entries staged before it may be
 * lost though it, staged behind them, is durable; cfsr_journal_flush() speaks of all.
 */
int cfsr_journal_stage(struct cfsr_journal *journal, const struct cfsr_entry *entry,
                       struct cfsr_entry_position *position_out);
int cfsr_journal_wait(struct cfsr_journal *journal, uint32_t lane, uint64_t end_lsn);
/* Everything staged so far in all lanes is durable when it returns 0. -CFSR_E_FAILED also when
 * something that was staged since the last flush was lost on the way. */
int cfsr_journal_flush(struct cfsr_journal *journal);

/*
 * How near the journal is to its cap because a peer lacks what it keeps (50, 80 and 95 % of the
 * cap; on by default). An append is never delayed by it. Who appends in bulk asks now and then (a
 * cheap call, any thread) and pauses pause_ms after every 256 entries, so that a slow peer can keep
 * up; it is 0 below THROTTLE. At DETACH the slowest peer stops holding retention, by itself.
 */
enum cfsr_pressure {
    CFSR_PRESSURE_NONE = 0,
    CFSR_PRESSURE_WARN = 1,
    CFSR_PRESSURE_THROTTLE = 2,
    CFSR_PRESSURE_DETACH = 3,
};
struct cfsr_journal_pressure {
    enum cfsr_pressure level;
    uint32_t pause_ms;
    uint64_t journal_bytes; /* on disk, all lanes, a second ago at most */
    uint64_t cap_bytes;
};
void cfsr_journal_pressure(const struct cfsr_journal *journal,
                           struct cfsr_journal_pressure *pressure_out);

void cfsr_journal_stats(const struct cfsr_journal *journal, struct cfsr_journal_stats *stats_out);
uint32_t cfsr_journal_lanes(const struct cfsr_journal *journal);

#ifdef __cplusplus
}
#endif
#endif
