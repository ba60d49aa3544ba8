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
    uint64_t lowest_ack_lsn;  /* CFSR_LSN_UNKNOWN: no peer is known */
    uint64_t journal_bytes;   /* of all lanes on disk */
    uint64_t free_bytes;
    uint64_t total_bytes; /* of the file system */
};

/* The segment in use, and one below it. */
#define CFSR_GC_SEGMENTS_MIN 2

enum cfsr_gc_verdict cfsr_gc_judge(const struct cfsr_gc_limits *limits,
                                   const struct cfsr_gc_facts *facts);

/* Defaults: by ack, 60 s, cap min(50 % of the file system, 256 GiB), floor 5 %. */
struct cfsr_gc_limits cfsr_gc_default_limits(uint64_t file_system_bytes);

#endif
