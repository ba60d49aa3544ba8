/*
 * log.h - the records of one lane in order of arrival, over its segments and past its damaged
 * places. Shared by recovery, streams, check, verify and what is served to others: one rule for
 * what is damage and where sound records go on.
 *
 * Blocking reads; helper threads, tools and start-up only.
 */
#ifndef CFSR_INBOX_LOG_H
#define CFSR_INBOX_LOG_H

#include "inbox/repair.h"
#include "inbox/scan.h"

struct cfsr_inbox_log {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    uint64_t sequence; /* of the segment at hand, or to open next; 0: the first one */
    bool open;
    struct cfsr_inbox_scan scan; /* arrival and incarnation count also while it is not open */
    /* Everything below is durable, and nothing at or above is looked at. 0, 0: not known. */
    uint64_t limit_sequence, limit_offset;
    uint64_t last_sequence; /* no later segment was begun; 0: not known */
    bool ended;             /* damage up to the limit was found: there is no more */
};

/* A damaged place: no sound record begins in it. */
struct cfsr_inbox_damage {
    uint64_t sequence, begin;
    uint64_t end_sequence, end;
    uint64_t arrival, incarnation; /* of the record that goes on there: expected, and at least */
    int error;                     /* -CFSR_E_CHECKSUM, -CFSR_E_MISSING_SEGMENT */
};

/* Borrows fs and site. Begins with segment `sequence` (0: the first one kept). */
void cfsr_inbox_log_init(struct cfsr_inbox_log *log, struct cfsr_fs *fs,
                         const struct cfsr_site *site, uint32_t lane, uint64_t sequence);
void cfsr_inbox_log_close(struct cfsr_inbox_log *log);
/* Stands at a place; the record there may have any arrival number, and must be exactly there. The
 * segment is opened at once: 1; 0 it is not there; -CFSR_E_GONE, -errno. */
int cfsr_inbox_log_seek(struct cfsr_inbox_log *log, uint64_t sequence, uint64_t body_offset);
/* Stands behind a damaged place. As seek(). */
int cfsr_inbox_log_seek_behind(struct cfsr_inbox_log *log, const struct cfsr_inbox_damage *damage);
/* The place of one record, as damage: it ends where the record ends; -CFSR_E_BAD_ORDER: the record
 * itself is sound and something before it is missing: it ends where the record begins. */
struct cfsr_inbox_damage cfsr_inbox_damage_of(const struct cfsr_inbox_item *item, int error);
/*
 * Next record: 1; 0: none stands at the place, which is the end, or torn, or damaged (judge() tells
 * them apart; called again later the record may have come); -CFSR_E_GONE: the segment was recycled;
 * -errno. Cheap enough to be polled.
 */
int cfsr_inbox_log_next(struct cfsr_inbox_log *log, bool whole, struct cfsr_inbox_item *item_out);
/*
 * After next() gave 0: 0 it is the end (what is behind, if anything, nobody vouches for); 1 it is
 * damage, and the log stands behind it now; -errno. Reads the rest of the segment.
 */
int cfsr_inbox_log_judge(struct cfsr_inbox_log *log, struct cfsr_inbox_damage *damage_out);
/* next() and judge() in one: 1 a record, 2 damage, 0 the end, -errno. */
#define CFSR_INBOX_LOG_RECORD 1
#define CFSR_INBOX_LOG_DAMAGE 2
int cfsr_inbox_log_step(struct cfsr_inbox_log *log, bool whole, struct cfsr_inbox_item *item_out,
                        struct cfsr_inbox_damage *damage_out);
/* Does anything say that the place (at or before where the log stands) was durable? 1, 0, -errno.
 */
int cfsr_inbox_log_vouched(struct cfsr_inbox_log *log, uint64_t sequence, uint64_t body_offset);

#endif
