/*
 * gc.h - retention of the inbox: which segments may go, and removing them. Helper thread.
 *
 * Kept: what a live consumer has not committed, the segment being written and the full one below it
 * (repair), and, without a consumer, everything: it is the only copy here. What every consumer has
 * committed goes. Above the cap (of all lanes; a lane's share is cap ÷ lanes) or below the
 * free-space floor with nothing left to remove the answer is "stalled": the sender waits and says
 * why.
 */
#ifndef CFSR_INBOX_GC_H
#define CFSR_INBOX_GC_H

#include "inbox/consumer.h"
#include "inbox/scan.h"

#define CFSR_INBOX_GC_KEEP_SEGMENTS 2 /* the one being written and the full one below it */

struct cfsr_inbox_gc_facts {
    uint64_t first_sequence, write_sequence;
    uint64_t
        lowest_needed; /* lowest sequence a live consumer needs; UINT64_MAX: there is no consumer */
    uint64_t file_bytes;     /* of one segment */
    uint64_t lane_files;     /* segments and free files of the lane */
    uint64_t lane_cap_bytes; /* 0: none */
    uint64_t free_bytes, free_floor_bytes;
};

struct cfsr_inbox_gc_plan {
    uint64_t remove_below; /* segments below this sequence go */
    bool stalled;          /* over the cap with nothing left to remove: a consumer is behind */
};

/* Pure decision. */
struct cfsr_inbox_gc_plan cfsr_inbox_gc_judge(const struct cfsr_inbox_gc_facts *facts);

struct cfsr_inbox_gc_result {
    uint64_t removed, recycled; /* segments */
    bool stalled;
};
/* cap_bytes of the whole inbox; 0: the default, min(50 % of the file system, 256 GiB).
 * write_sequence: of the lane's writer. */
int cfsr_inbox_gc_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                       uint64_t write_sequence, uint64_t cap_bytes, uint64_t now_us,
                       struct cfsr_inbox_gc_result *result_out);

#endif
