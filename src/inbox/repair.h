/*
 * repair.h - damage in the inbox: found, described, served to others, and repaired by REPAIR
 * records.
 *
 * A damaged place is never rewritten (the log is append-only and its writer owns the end). What it
 * held is fetched again from a site that has it and appended as REPAIR records: whole batches,
 * verified like any other, that move no cursor. Everybody who reads the log goes by LSN: a record
 * of an origin is taken only when it continues what was taken before, and where something is
 * missing the REPAIR records further on are asked for it. So a REPAIR names the place it was made
 * for, but fills whatever it holds; several may share a gap, one damaged REPAIR can be made again,
 * and a place that rots further needs no bookkeeping.
 *
 * Everything here but the lane's part is blocking: helper threads and tools only.
 * Byte table of the REPAIR record and the rules: docs/inbox-format.md.
 */
#ifndef CFSR_INBOX_REPAIR_H
#define CFSR_INBOX_REPAIR_H

#include "inbox/format.h"
#include "security/digest.h"

/* What a damaged place cost one origin's lane: a range of LSNs that no sound record here holds. */
struct cfsr_inbox_gap_part {
    uint64_t site_id;
    struct cfsr_uuid journal;
    uint64_t lsn_from, lsn_to; /* ask for it in frames, from lsn_from on, until lsn_to is reached */
    /*
     * The damage is in one batch's body and its prefix still stands: cfsr_inbox_gap_prefix() gives
     * it. A third site's copy of the body that has the prefix's digest can then take its place
     * under the origin's own signature.
     */
    bool prefix_sound;
};

/* A damaged place and what it cost. 3.2 KiB. */
struct cfsr_inbox_gap {
    uint32_t lane;
    uint64_t sequence, begin;   /* segment and body offset of the first damaged byte */
    uint64_t end_sequence, end; /* where sound records go on; end_sequence == sequence, usually */
    uint32_t parts;             /* at least one */
    struct cfsr_inbox_gap_part part[CFSR_INBOX_ORIGINS_MAX];
};

/*
 * Up to where a lane is durable, and its cursors there: a snapshot that lets a helper thread check
 * the finished part of a lane that is being written. 6 KiB.
 */
struct cfsr_inbox_end {
    uint64_t sequence, body_offset;
    uint32_t origins;
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
};
/* Of a live lane; on the lane's core. */
void cfsr_inbox_lane_end(const struct cfsr_inbox_lane *lane, struct cfsr_inbox_end *end_out);

/*
 * A resumable check of one lane: every local header, body digest and record below `end`, from the
 * oldest segment kept. It yields the gaps that the REPAIR records present do not fill, in the order
 * of the log; places that are damaged but cost nothing (or are repaired) are counted only. One
 * thread at a time; 3.2 MiB; the segment at hand stays open between steps.
 *
 * end NULL: a lane nobody writes; checked up to where recovery would end it (a torn tail is no
 * gap).
 */
enum cfsr_inbox_check_result {
    CFSR_INBOX_CHECK_MORE = 0, /* the budget is used: step again */
    CFSR_INBOX_CHECK_GAP = 1,  /* *gap_out is one: step again */
    CFSR_INBOX_CHECK_DONE = 2,
};
struct cfsr_inbox_check;
/* -ENOMEM, -CFSR_E_FOREIGN, -errno. site and fs are borrowed, *end is copied. */
int cfsr_inbox_check_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          const struct cfsr_inbox_end *end, struct cfsr_inbox_check **check_out);
/*
 * Goes on for about budget_bytes of log (at least one record). *bytes_out: bytes of log checked by
 * this step, also with a gap. -CFSR_E_GONE: retention took the segment at hand, begin anew;
 * -errno.
 */
int cfsr_inbox_check_step(struct cfsr_inbox_check *check, uint64_t budget_bytes,
                          struct cfsr_inbox_gap *gap_out, uint64_t *bytes_out);
/* So far: damaged places met, and how many of them the REPAIR records present fill entirely. */
void cfsr_inbox_check_counts(const struct cfsr_inbox_check *check, uint64_t *damaged_out,
                             uint64_t *repaired_out);
/*
 * Nothing sound behind the last damaged place says all that it held: a reader, who does not know
 * the live lane's cursors, could not tell that the last batch of an origin is missing, and stops
 * there. Remedy, when the check is done: cfsr_inbox_lane_want_cursors().
 */
bool cfsr_inbox_check_unnamed(const struct cfsr_inbox_check *check);
void cfsr_inbox_check_close(struct cfsr_inbox_check *check);

/*
 * Prefix and extension of the damaged batch of a gap whose part has prefix_sound; prefix_out holds
 * CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_EXTENSION_MAX. Its local CRC was checked; the tag is the
 * caller's to check. Returns the bytes, -CFSR_E_DAMAGED when it does not stand (any more), -errno.
 */
int cfsr_inbox_gap_prefix(struct cfsr_fs *fs, const struct cfsr_site *site,
                          const struct cfsr_inbox_gap *gap, void *prefix_out);

/*
 * Appends one REPAIR record to a live lane: frame = prefix ‖ extension ‖ body, of gap->part[part],
 * fully verified by the caller (tag or digest, records, order) and holding at least one byte of the
 * part's range. As cfsr_inbox_lane_put(): on the lane's core, room() for
 * CFSR_INBOX_REPAIR_HEADER_BYTES + frame_bytes first (node_store_room() in the daemon), then it
 * becomes durable with the next write. No cursor moves. A part may need several frames.
 */
void cfsr_inbox_lane_put_repair(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_gap *gap,
                                uint32_t part, const void *frame, uint32_t frame_bytes,
                                uint64_t now_us, uint64_t now_ns);

/*
 * The lane's cursors are to be written into its log, where they name for every reader what must be
 * there. They go into a block of their own that is written when all before it is durable, by the
 * next cfsr_inbox_lane_room() or by cfsr_inbox_lane_put_cursors(), which lays out nothing else: 0
 * also when there is nothing to do; else as room(): -ENOSPC, -ENOBUFS, -EAGAIN, -CFSR_E_FAILED. A
 * lane made from a state with damage wants it from the beginning. On the lane's core.
 */
void cfsr_inbox_lane_want_cursors(struct cfsr_inbox_lane *lane);
int cfsr_inbox_lane_put_cursors(struct cfsr_inbox_lane *lane);

/*
 * For serving RECORDS: the frame (prefix ‖ extension ‖ body, verbatim as it was stored, BATCH or
 * REPAIR) that holds byte lsn of the origin's lane, its digest checked. capacity of at least
 * CFSR_INBOX_FRAME_MAX_BYTES. Finds the place by the segments' INDEX records. 0; -ENOENT: nothing
 * of this origin, or lsn is above what is here; -CFSR_E_GONE: below what is kept; -CFSR_E_DAMAGED:
 * it was here, and no sound copy is left; -errno.
 */
int cfsr_inbox_find_frame(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          uint64_t origin_site, const struct cfsr_uuid *journal, uint64_t lsn,
                          void *frame_out, uint32_t capacity, uint32_t *frame_bytes_out);

/* One window of the 1 MiB grid of journal/digest.h: SHA-256 of its records in wire form. */
struct cfsr_inbox_window {
    uint64_t index;
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
};
/*
 * For serving DIGESTS: windows of an origin's lane that lie entirely in [lsn_from, lsn_to), from
 * the lowest on; windows in which no record begins have no digest and are left out, as in
 * journal/digest.h. Stops when `capacity` windows are given or budget_bytes of log were read (but
 * gives at least one, if there is one). *next_lsn_out: ask on from there; lsn_to or above: there is
 * no more. 0 and the count; -ENOENT, -CFSR_E_GONE, -CFSR_E_DAMAGED as above (windows before a
 * damaged place are given first, with *next_lsn_out behind them), -errno.
 */
int cfsr_inbox_window_digests(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t origin_site, const struct cfsr_uuid *journal,
                              uint64_t lsn_from, uint64_t lsn_to, uint64_t budget_bytes,
                              struct cfsr_inbox_window *windows_out, uint32_t capacity,
                              uint32_t *count_out, uint64_t *next_lsn_out);

#endif
