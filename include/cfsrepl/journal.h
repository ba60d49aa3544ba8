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
 * be NULL. -CFSR_E_TOO_LARGE, -CFSR_E_SEQ_WRAP, -CFSR_E_NOT_WRITABLE, -ENOSPC, -CFSR_E_FAILED
 * (after a failed sync: reopen). On error of a later entry the earlier ones may be durable;
 * *appended_out (may be NULL) says how many were.
 */
int cfsr_journal_append(struct cfsr_journal *journal, const struct cfsr_entry *entries,
                        unsigned count, struct cfsr_entry_position *positions_out,
                        unsigned *appended_out);

/* The two halves: stage without waiting (blocks only while the lane's staging buffer is full), then
 * wait for durability. */
int cfsr_journal_stage(struct cfsr_journal *journal, const struct cfsr_entry *entry,
                       struct cfsr_entry_position *position_out);
int cfsr_journal_wait(struct cfsr_journal *journal, uint32_t lane, uint64_t end_lsn);
/* Everything staged so far in all lanes is durable when it returns. */
int cfsr_journal_flush(struct cfsr_journal *journal);

void cfsr_journal_stats(const struct cfsr_journal *journal, struct cfsr_journal_stats *stats_out);
uint32_t cfsr_journal_lanes(const struct cfsr_journal *journal);

#ifdef __cplusplus
}
#endif
#endif
