/*
 * gc.h - which of the oldest segments may go. A pure decision: facts in, verdict out.
 *
 * The writer's helper asks for the lowest segment of a lane, again and again until the answer is
 * KEEP. The segment in use and the full one below it are never removed.
 */
#ifndef CFSR_JOURNAL_GC_H
#define CFSR_JOURNAL_GC_H

#include <stdbool.h>
#include <stdint.h>

enum cfsr_gc_policy {
    CFSR_GC_BY_ACK = 0, /* what every known peer holds, one segment and min_age_us below; no known
                           peer: nothing */
    CFSR_GC_RETAIN_ALL = 1,
    CFSR_GC_BY_AGE = 2,   /* what was finished more than min_age_us ago, whoever lacks it */
    CFSR_GC_BY_COUNT = 3, /* all but the last keep_segments */
};

enum cfsr_gc_verdict {
    CFSR_GC_KEEP,
    CFSR_GC_REMOVE,
    CFSR_GC_REMOVE_DETACHED, /* for the cap or the floor, and only detached peers lack it */
    CFSR_GC_REMOVE_FORCED, /* only because of the cap or the free-space floor: a peer may lack it */
};

struct cfsr_gc_limits {
    enum cfsr_gc_policy policy;
    uint64_t min_age_us;
    uint64_t keep_segments;
    uint64_t cap_bytes;           /* of the whole journal, spares included; 0: none */
    uint32_t free_floor_permille; /* of the file system that stays free; 0: none */
};

struct cfsr_gc_facts {
    uint64_t now_us;
    uint64_t segment_bytes;   /* body size */
    uint64_t segment_end_lsn; /* of the lowest segment: its first LSN + body size */
    uint64_t finished_us;     /* when the next segment was begun */
    uint64_t segment_count;   /* of the lane */
    uint64_t lowest_ack_lsn;  /* of all known peers; CFSR_LSN_UNKNOWN: no peer is known */
    bool only_detached_lack;  /* no peer that holds retention lacks any of the segment */
    uint64_t journal_bytes;   /* of all lanes on disk */
    uint64_t free_bytes;
    uint64_t total_bytes; /* of the file system */
};

/* The segment in use, and one below it. */
#define CFSR_GC_SEGMENTS_MIN 2

enum cfsr_gc_verdict cfsr_gc_judge(const struct cfsr_gc_limits *limits,
                                   const struct cfsr_gc_facts *facts);

/*
 * Pressure: how near the journal is to its cap because peers lack what it keeps. It is on by
 * default, at these shares of the cap; below the free-space floor it is DETACH.
 *
 * WARN: logged and shown. THROTTLE: bulk producers pace themselves (cfsr_journal_pressure()); a
 * single append is never delayed, because local appends never wait for any peer. DETACH: the
 * slowest peer stops holding retention, so that the producer never meets a full disk because a peer
 * is away; what it lacks is still kept as long as the cap allows, and counts as free for the
 * pressure, since it goes first.
 *
 * Without a peer that holds anything back, and under other policies than by ack, the answer is at
 * most WARN: neither pacing nor detaching would free a byte.
 */
enum cfsr_gc_pressure_level {
    CFSR_GC_PRESSURE_NONE = 0,
    CFSR_GC_PRESSURE_WARN = 1,
    CFSR_GC_PRESSURE_THROTTLE = 2,
    CFSR_GC_PRESSURE_DETACH = 3,
};
#define CFSR_GC_WARN_PERMILLE     500
#define CFSR_GC_THROTTLE_PERMILLE 800
#define CFSR_GC_DETACH_PERMILLE   950

/* "none", "warn", "throttle", "detach". */
const char *cfsr_gc_pressure_name(enum cfsr_gc_pressure_level level);

struct cfsr_gc_usage {
    uint64_t journal_bytes; /* of all lanes on disk */
    uint64_t spare_bytes;   /* of them, kept for detached peers only */
    uint64_t free_bytes;
    uint64_t total_bytes; /* of the file system */
};

struct cfsr_gc_peer {
    uint64_t site_id;
    bool detached;
    bool gone;           /* something it lacks was removed already */
    bool advanced;       /* its ack went up since it was detached */
    uint64_t held_bytes; /* of segments that would go if this peer had them */
};

/* *slowest_out (may be NULL): the peer to detach next at DETACH, the attached one that holds most;
 * -1: none. */
enum cfsr_gc_pressure_level cfsr_gc_pressure(const struct cfsr_gc_limits *limits,
                                             const struct cfsr_gc_usage *usage,
                                             const struct cfsr_gc_peer *peers, unsigned count,
                                             int *slowest_out);
/* A detached peer holds retention again: everything it lacks is there, and it has it all, or is
 * catching up with less than the WARN share to go. */
bool cfsr_gc_rejoins(const struct cfsr_gc_limits *limits, const struct cfsr_gc_peer *peer);
/* How long a bulk producer pauses after every 256 entries: 0 below THROTTLE, 5 ms there, rising to
 * 50 ms at DETACH. */
uint32_t cfsr_gc_pause_ms(enum cfsr_gc_pressure_level level, uint64_t journal_bytes,
                          uint64_t cap_bytes);

/* Defaults: by ack, 60 s, cap min(50 % of the file system, 256 GiB), floor 5 %. */
struct cfsr_gc_limits cfsr_gc_default_limits(uint64_t file_system_bytes);

#endif
