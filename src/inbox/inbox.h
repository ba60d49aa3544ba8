/*
 * inbox.h - what happened elsewhere: batches as their origins signed them, one log per lane, in
 * apply order.
 *
 * DATA/inbox/<lane, 2+ digits>/<sequence, 16 hex>.seg: 4 KiB header, then a body of fixed size
 * (site.segment_bytes), written once in full and recycled. The body is a run of write blocks, each
 * 4 KiB-aligned and padded with zeros to 4 KiB; a write block holds one or more records, each at a
 * 64-byte boundary:
 *     [64 B local header][192 B batch prefix][extension][stored body]
 * Local header:
 *      0  4  magic "CFI1" (0x31494643)        24  8  arrival number: 1, 2, … in the lane, never
 * reused 4  2  version                          32  8  arrived at, µs 6  2  kind (1 batch, 2
 * cursors, 3 index, 4 repair)  40 8 durable-below: end of the last record that was durable, with
 * all before it, when laid out; 0: none of this segment 8  4  record bytes (header included)   48
 * 8  incarnation of the inbox: +1 at each daemon start; never goes back in a file 12  4  entries of
 * a batch, new ones only 56  4  reserved 16  8  segment sequence                 60  4  crc32c of
 * bytes 0–59 and, for a batch, of its 192-byte prefix and extension; for other kinds of their
 * payload; seeded with (segment sequence, body offset) The first record of a segment is CURSORS:
 * every origin's cursor; the last one of a full segment is its INDEX of batches, always at the
 * beginning of the segment's last CFSR_INBOX_INDEX_AREA_BYTES. Byte tables and rules:
 * docs/inbox-format.md. Body bytes are covered by the prefix's digest: recovery checks it above the
 * last durable-below; below that only on verify.
 *
 * The cursor of (origin, journal uuid) IS its last durable record: nothing else is kept in step
 * with it.
 *
 * cfsr_inbox_lane is the writer of one lane, owned by one core, without I/O: it copies records into
 * slots, says what to write where, and learns of completions in any order; acks advance in prefix
 * order. Files come from cfsr_inbox_prepare_segment() (helper thread).
 */
#ifndef CFSR_INBOX_INBOX_H
#define CFSR_INBOX_INBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/record.h"
#include "journal/site.h"
#include "pipeline/batch.h"

#define CFSR_INBOX_BLOCK_BYTES        4096
#define CFSR_INBOX_LOCAL_HEADER_BYTES 64
#define CFSR_INBOX_ORIGINS_MAX        64
/* A slot holds a maximal record: local header, prefix, extension, body; and many small ones.
 * Multiple of 4 KiB. */
#define CFSR_INBOX_SLOT_BYTES ((1u << 20) + (72u << 10))
#define CFSR_INBOX_WRITES_MAX 8 /* slots of one lane in flight or filling */
/* Of these, kept from records that are written in place: when the disk is behind, what comes is
 * gathered into large writes instead. */
#define CFSR_INBOX_WRITES_GATHERED 2
/* Files of one lane: one for each write in flight at most, the current one, the next one, and some
 * waiting to be closed. */
#define CFSR_INBOX_FILES_MAX   (CFSR_INBOX_WRITES_MAX + 4)
#define CFSR_INBOX_INDEX_STEPS 1024
/* End of each segment's body, kept for the INDEX: 64 + 32 + 64 × 40 + 1024 × 24 = 27,232 bytes,
 * rounded up to blocks. */
#define CFSR_INBOX_INDEX_AREA_BYTES (7 * CFSR_INBOX_BLOCK_BYTES)

/* Durable position of one origin's lane here. */
struct cfsr_inbox_cursor {
    uint64_t site_id;
    struct cfsr_uuid journal;
    uint64_t lsn;                  /* everything of the origin's lane below it is in the inbox */
    uint64_t incarnation;          /* of the origin's journal, from its last batch */
    struct cfsr_record_stamp last; /* last record below lsn; lsn = UINT64_MAX if none */
    uint64_t entries;              /* cumulative entries received of this origin's lane */
};

/* The batches of one segment: the LSN range of each origin, and every stride-th batch. Bounded
 * whatever the batches' sizes. */
struct cfsr_inbox_index {
    uint32_t batches; /* batches in the segment */
    uint32_t stride;  /* a step for every stride-th batch; doubles when the steps are full */
    uint32_t count;   /* steps */
    uint32_t repairs; /* REPAIR records in the segment */
    struct cfsr_inbox_range {
        uint64_t lsn_from, lsn_to; /* equal: no batch of this origin in the segment */
    } range[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_index_step {
        uint64_t body_offset, arrival, arrived_at_us;
    } step[CFSR_INBOX_INDEX_STEPS];
};

/* Damaged places that a state lists; when there are more, the last one reaches from its beginning
 * to the end of the last of them. */
#define CFSR_INBOX_STATE_GAPS_MAX 16
struct cfsr_inbox_state_gap {
    uint64_t sequence, begin;   /* segment and body offset */
    uint64_t end_sequence, end; /* where sound records go on */
};

/* What recovery found. 40 KiB: not for deep stacks. */
struct cfsr_inbox_state {
    uint64_t sequence;    /* of the segment to go on in; 0: the lane is empty, begin with 1 */
    uint64_t body_offset; /* next write block in it */
    uint64_t records_end; /* where its last record ends: at most a block less */
    uint64_t arrival;     /* next arrival number */
    uint64_t incarnation; /* to use from now on */
    uint64_t first_sequence;
    uint64_t cut_bytes;                /* ambiguous tail given up; 0: clean */
    uint64_t end_sequence, end_offset; /* where the last durable record ends; 0, 0: there is none */
    uint64_t damaged;                  /* places in the middle; what they cost, a check tells */
    uint32_t gaps;                     /* listed */
    struct cfsr_inbox_state_gap gap[CFSR_INBOX_STATE_GAPS_MAX];
    uint32_t origins;
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_index index; /* of the segment to go on in, so far */
};

/*
 * Scans the last segment (cursors from its first record, or from an earlier segment's when that is
 * damaged), checks digests above the last durable-below, decodes the last batch of each origin for
 * its stamp. read_only leaves the disk as it is. Damage in the middle is listed, and the lane goes
 * on behind it with the cursors that stand there; only what may be a torn tail is cut. An origin
 * whose last batch is damaged stands in front of it, and sends it again. -CFSR_E_DAMAGED: no
 * segment has a sound record though there were some; -CFSR_E_FOREIGN, -errno.
 */
int cfsr_inbox_recover_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            bool read_only, struct cfsr_inbox_state *state_out);

/*
 * Opens segment `sequence` of a lane, above those that are begun, ready for durable writes:
 * recycles a free one or writes a new one once in full (zeros, synced, directory synced). direct:
 * wanted; falls back to buffered where O_DIRECT is refused (*direct_out). Blocking: helper thread
 * only. -ENOSPC …
 */
int cfsr_inbox_prepare_segment(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                               uint64_t sequence, bool direct, struct cfsr_file **file_out,
                               bool *direct_out);
/* Opens an existing segment to go on in (after recovery). */
int cfsr_inbox_open_segment(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t sequence, bool direct, struct cfsr_file **file_out,
                            bool *direct_out);

/* One write block on its way. The buffer is a slot of the core's slab, or where a batch was
 * received. */
struct cfsr_inbox_write {
    struct cfsr_file *file;
    void *buf;
    uint32_t len_bytes;    /* multiple of 4 KiB */
    uint64_t offset_bytes; /* in the file */
    uint32_t slot; /* the caller's name of the slot, from cfsr_inbox_lane_give_slot(), or of his own
                      memory, from cfsr_inbox_lane_put_in_place() */
    uint16_t index; /* of this write in the lane, for cfsr_inbox_lane_written() */
};

struct cfsr_inbox_lane;
struct cfsr_inbox_lane_options {
    uint64_t sync_bytes;    /* write when this much is gathered; default 1 MiB */
    uint64_t sync_delay_ns; /* or when the oldest record has waited this long; default 1 ms */
};

int cfsr_inbox_lane_create(const struct cfsr_site *site, uint32_t lane,
                           const struct cfsr_inbox_state *state,
                           const struct cfsr_inbox_lane_options *options,
                           struct cfsr_inbox_lane **lane_out);
void cfsr_inbox_lane_destroy(struct cfsr_inbox_lane *lane);

/* Sequence of the segment the lane needs now or soon (half of the current one used), or 0. Answer
 * with give_segment(). */
uint64_t cfsr_inbox_lane_wants_segment(const struct cfsr_inbox_lane *lane);
void cfsr_inbox_lane_give_segment(struct cfsr_inbox_lane *lane, uint64_t sequence,
                                  struct cfsr_file *file);
/*
 * After a failed write, with none in flight any more: what a lane made anew goes on from. Cursors
 * and arrival number are those of the last durable record, the incarnation is the next one, and the
 * place is the beginning of a segment that has no durable record yet: the old descriptor and
 * whatever was on its way are given up.
 */
void cfsr_inbox_lane_fallback(const struct cfsr_inbox_lane *lane,
                              struct cfsr_inbox_state *state_out);
/* The same object made anew; its files and slots were taken before. */
void cfsr_inbox_lane_restart(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_state *state);
/* Of a failed lane without a write in flight: the slots it still holds, one a call, those put in
 * place included. False when there are no more. */
bool cfsr_inbox_lane_take_slot(struct cfsr_inbox_lane *lane, uint32_t *slot_out);
/*
 * Holds the fallback against what recovery read from the disk: an origin whose durable records are
 * not all there falls back to what is, and is sent the rest again. Returns the number of such
 * origins.
 */
uint32_t cfsr_inbox_state_reconcile(struct cfsr_inbox_state *fallback,
                                    const struct cfsr_inbox_state *recovered);

/* A segment that is no longer written to and has no write in flight: close it (helper thread). NULL
 * if none. */
struct cfsr_file *cfsr_inbox_lane_retired_file(struct cfsr_inbox_lane *lane);
/* Before destroy: the files the lane still holds, one a call; no write may be in flight. NULL when
 * there are no more. */
struct cfsr_file *cfsr_inbox_lane_take_file(struct cfsr_inbox_lane *lane);

/*
 * Room for a record of `frame_bytes` (prefix + extension + body)? 0 yes; -ENOBUFS: give a slot
 * (CFSR_INBOX_SLOT_BYTES, 4 KiB-aligned) and ask again; -EAGAIN: all writes in flight, wait for a
 * completion; -ENOSPC: no segment ready yet (stall reason), wait for give_segment().
 */
int cfsr_inbox_lane_room(struct cfsr_inbox_lane *lane, uint32_t frame_bytes);
void cfsr_inbox_lane_give_slot(struct cfsr_inbox_lane *lane, void *buf, uint32_t slot);

/*
 * Copies one verified, checked batch (frame = prefix ‖ extension ‖ body) into the open slot. Room
 * must have been confirmed. scan: the result of cfsr_record_scan() over its records (stamp), and
 * entries those at or above the staged cursor (all of them unless the frame overlaps it). Staged
 * cursor of the origin moves to header->lsn_to. header->lsn_from must not be above the staged
 * cursor.
 */
void cfsr_inbox_lane_put(struct cfsr_inbox_lane *lane, const struct cfsr_batch_header *header,
                         const void *frame, uint32_t frame_bytes,
                         const struct cfsr_record_stamp *last, uint32_t entries, uint64_t now_us,
                         uint64_t now_ns);
/*
 * Room for one more record that is written from where it is, as a block of its own: 0 yes, and
 * nothing is filling any more; -ENOBUFS: give a slot, for what has to stand before it; -ENOSPC as
 * room(); -EAGAIN: no write is free for it now. Whoever does not get room asks room() and puts a
 * copy: the two ways may follow each other in any order.
 */
int cfsr_inbox_lane_room_in_place(struct cfsr_inbox_lane *lane, uint32_t frame_bytes);
/*
 * put() without a copy. record: 4 KiB-aligned memory of the caller, with 64 bytes that the local
 * header overwrites, the frame behind them, and room up to the next 4 KiB boundary, which is filled
 * with zeros. It stays the lane's until written() or take_slot() gives back its name (slot, which
 * is not that of any other memory). Room in place must have been confirmed by the last call.
 */
void cfsr_inbox_lane_put_in_place(struct cfsr_inbox_lane *lane,
                                  const struct cfsr_batch_header *header, void *record,
                                  uint32_t slot, uint32_t frame_bytes,
                                  const struct cfsr_record_stamp *last, uint32_t entries,
                                  uint64_t now_us, uint64_t now_ns);
/*
 * The next block to write, when due: ack_now (the sender has nothing more gathered), sync_bytes
 * gathered, the delay over, or the slot full. False: nothing to write now. The write stays the
 * lane's until written().
 */
bool cfsr_inbox_lane_take_write(struct cfsr_inbox_lane *lane, bool ack_now, uint64_t now_ns,
                                struct cfsr_inbox_write *write_out);
uint64_t cfsr_inbox_lane_deadline_ns(
    const struct cfsr_inbox_lane *lane); /* UINT64_MAX if nothing waits */
/*
 * Result of a write (0 or -errno). Completions may come in any order; durable cursors advance in
 * prefix order. Returns the slot (through *slot_out) for reuse, or the name of memory put in place;
 * of a failed write too. A failed write fails the lane for good: -CFSR_E_FAILED from then on,
 * nothing more is acked; the owner restarts it from cfsr_inbox_lane_fallback(). Never retried: a
 * page that could not be written may be called clean afterwards.
 */
int cfsr_inbox_lane_written(struct cfsr_inbox_lane *lane, const struct cfsr_inbox_write *write,
                            int result, uint32_t *slot_out);

/* Cursors. staged: copied into a slot; durable: may be acked. Index of an origin: existing or new;
 * -ENOSPC beyond the maximum. */
int cfsr_inbox_lane_origin(struct cfsr_inbox_lane *lane, uint64_t site_id,
                           const struct cfsr_uuid *journal);
/* Index of an origin site whatever its journal, -ENOENT if never seen. */
int cfsr_inbox_lane_find_site(const struct cfsr_inbox_lane *lane, uint64_t site_id);
const struct cfsr_inbox_cursor *cfsr_inbox_lane_staged(const struct cfsr_inbox_lane *lane,
                                                       int origin);
const struct cfsr_inbox_cursor *cfsr_inbox_lane_durable(const struct cfsr_inbox_lane *lane,
                                                        int origin);
/* Bytes staged but not durable yet (memory held). */
uint64_t cfsr_inbox_lane_pending_bytes(const struct cfsr_inbox_lane *lane);
bool cfsr_inbox_lane_failed(const struct cfsr_inbox_lane *lane);

#endif
