/*
 * repair.h - finding damage in a lane of the own journal, putting it right, and serving peers from
 * it.
 *
 * A record is the same at every site: bytes at an LSN, with a CRC seeded by (journal uuid, LSN). So
 * a damaged place is written again with the bytes a peer's inbox holds, at exactly the same LSN;
 * nothing else of the segment changes, and readers that met -CFSR_E_DAMAGED go on when they try
 * again. Doing it twice, or again after a crash in the middle, gives the same bytes.
 *
 * All calls are synchronous (helper threads, tools), through the file seam, one thread per object.
 * They work beside a live writer of another process or thread: only bytes below the committed LSN
 * are touched, which no writer touches any more, and DATA/journal/<lane>/repair.lock keeps a
 * segment from being recycled while it is written to (whoever finds it locked does not wait: the
 * repair answers -CFSR_E_LOCKED and is tried again, the writer removes the segment a second later).
 */
#ifndef CFSR_JOURNAL_REPAIR_H
#define CFSR_JOURNAL_REPAIR_H

#include <stdint.h>

#include "core/file.h"
#include "journal/record.h"
#include "journal/site.h"
#include "journal/status_page.h"
#include "security/digest.h"

enum cfsr_journal_gap_kind {
    /* [begin_lsn, end_lsn) are no records, or records out of order; begin_lsn is where a record has
     * to begin, end_lsn where the next good one does (or the segment, or the committed part, ends).
     * Never spans segments. Refill it with cfsr_journal_rewrite(). */
    CFSR_JOURNAL_GAP_RECORDS,
    /* The header of the segment [begin_lsn, end_lsn) is damaged, or its file is shorter than a
     * segment; its records have not been looked at. cfsr_journal_rewrite_header() makes it anew
     * from what is there, without any peer. */
    CFSR_JOURNAL_GAP_HEADER,
    /* The file of the segment [begin_lsn, end_lsn) is not there though older ones are.
     * cfsr_journal_rewrite_header() makes an empty one, cfsr_journal_rewrite() refills it. */
    CFSR_JOURNAL_GAP_SEGMENT,
};

struct cfsr_journal_gap {
    uint32_t lane;
    enum cfsr_journal_gap_kind kind;
    uint64_t begin_lsn;
    uint64_t end_lsn; /* not above the committed LSN */
};

/* "records", "header", "segment". */
const char *cfsr_journal_gap_name(enum cfsr_journal_gap_kind kind);

/*
 * How far a lane is certainly committed: what the status page says in this boot; else the highest
 * position that the lane's MARKs, a segment begun behind it, or a peer's ack in DATA/acks prove to
 * have been durable. What can be read above it may be in the page cache only, after a sync that
 * failed. page may be NULL. Changes nothing. 0, -CFSR_E_FOREIGN, -errno.
 */
int cfsr_journal_find_committed(struct cfsr_fs *fs, const struct cfsr_site *site,
                                const struct cfsr_status_page *page, uint32_t lane,
                                uint64_t *committed_lsn_out);

/* ---- check ---- */

/*
 * A resumable check of one lane, from its oldest segment to committed_lsn: headers, missing
 * segments, sizes, CRCs, site, lane, order of seqs, SHARDS. Reads only. About 2 MiB of memory.
 */
struct cfsr_journal_check;

enum cfsr_journal_check_answer {
    CFSR_JOURNAL_CHECK_MORE = 0, /* the budget is used: call again */
    CFSR_JOURNAL_CHECK_GAP = 1,  /* *gap_out; the check goes on behind it at the next call */
    CFSR_JOURNAL_CHECK_DONE = 2, /* everything below committed_lsn was looked at */
};

/* -ENOMEM, -errno (the directory cannot be read). committed_lsn: a value from the status page or
 * cfsr_journal_find_committed(). site must outlive the check. */
int cfsr_journal_check_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t committed_lsn, struct cfsr_journal_check **check_out);
/*
 * Checks about budget_bytes (a run of up to 2 MiB is the step; a search for the end of a gap is
 * bounded by its segment). An answer, or -errno when something cannot be read (the position stays).
 * gap_out is set with GAP only; *bytes_out (may be NULL) is what was read in this call. What
 * retention removes meanwhile is passed over, it is no damage.
 */
int cfsr_journal_check_step(struct cfsr_journal_check *check, uint64_t budget_bytes,
                            struct cfsr_journal_gap *gap_out, uint64_t *bytes_out);
/*
 * Goes back (or on) to lsn, a gap's begin_lsn or a segment's first: after a repair, to have the
 * place checked again and, behind a GAP_HEADER, the records of that segment checked at all.
 */
void cfsr_journal_check_seek(struct cfsr_journal_check *check, uint64_t lsn);
/* LSN of what is checked next. */
uint64_t cfsr_journal_check_position(const struct cfsr_journal_check *check);
void cfsr_journal_check_close(struct cfsr_journal_check *check); /* NULL is fine */

/* ---- rewrite ---- */

/*
 * Writes records again at lsn: whole records in wire form (PAD: header only; nothing may follow a
 * PAD), at most CFSR_JOURNAL_REWRITE_MAX_BYTES, all in one segment and ending at or below
 * committed_lsn. They are checked here once more (CRC against journal and LSN, sizes, site, lane,
 * order within the run) before anything is touched. Opens the segment, checks its header, writes
 * exactly those bytes, syncs, reads them back through a fresh open and checks them. *end_lsn_out:
 * the position behind the last record (a boundary behind a PAD or a full segment).
 *
 * -CFSR_E_CHECKSUM, -CFSR_E_FORMAT, -CFSR_E_FOREIGN, -CFSR_E_BAD_ORDER: the given records are not
 * those of the place (nothing was written). -EINVAL: beyond the committed LSN. -CFSR_E_GONE:
 * retention removed the segment. -CFSR_E_MISSING_SEGMENT, -CFSR_E_DAMAGED (the header; or what was
 * read back differs): call cfsr_journal_rewrite_header(), or replace the disk. -CFSR_E_LOCKED: try
 * again. -errno.
 */
#define CFSR_JOURNAL_REWRITE_MAX_BYTES (4u << 20)
int cfsr_journal_rewrite(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                         uint64_t committed_lsn, uint64_t lsn, const void *records,
                         uint32_t len_bytes, uint64_t *end_lsn_out);

/*
 * A sound header for the segment that begins at first_lsn. Damaged: made anew, with the incarnation
 * its MARKs name. Shorter than a segment: its length comes back, with zeros. Missing: a file of
 * full size, zeros, is put there under its name in one step. A sound one: nothing is done, 0.
 * -CFSR_E_GONE: below the oldest segment there is. -CFSR_E_FOREIGN: the file has a whole header of
 * something else and no record of this place: move it away first. -EINVAL, -CFSR_E_LOCKED, -ENOSPC,
 * -errno.
 */
int cfsr_journal_rewrite_header(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                                uint64_t committed_lsn, uint64_t first_lsn);

/* ---- serving ---- */

/*
 * Whole checked records from lsn (a record's first byte) on, copied into buffer, whose first
 * scan_out->raw_bytes bytes are their wire form: as many as fit in capacity bytes and max_entries
 * (0: no limit), never beyond a segment or limit_lsn (at most the committed LSN). scan_out says
 * what was got as cfsr_record_scan() does: scan_out->lsn of the first record (above the given lsn
 * only when that stood in the unused end of a segment), next_lsn, entry_count, last …
 * capacity >= CFSR_RECORD_MAX_BYTES + 8 always suffices for one. Record count 0: no whole record
 * below limit_lsn.
 *
 * 0, -CFSR_E_GONE, -CFSR_E_DAMAGED (no record begins at lsn, or the header is damaged),
 * -CFSR_E_MISSING_SEGMENT, -CFSR_E_TOO_LARGE (the record does not fit), -errno. One pread.
 */
int cfsr_journal_read_run(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          uint64_t lsn, uint64_t limit_lsn, uint32_t max_entries, void *buffer,
                          uint32_t capacity, struct cfsr_scan *scan_out);

/* Digest of one window of the 1 MiB grid of journal/digest.h. */
struct cfsr_window_digest {
    uint64_t index;
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
};

/* Resumable digests of the whole windows inside [from_lsn, to_lsn) of a lane of the own journal.
 * About 2 MiB of memory. */
struct cfsr_journal_digests;

/*
 * from_lsn is rounded up and to_lsn (at most the committed LSN) down to whole windows. A window
 * whose records were removed by retention, wholly or in part, counts as not there: when from_lsn is
 * below the oldest segment, the first window is the first whole one above it. -ENOMEM, -errno. site
 * must outlive it.
 */
int cfsr_journal_digests_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t from_lsn, uint64_t to_lsn,
                              struct cfsr_journal_digests **digests_out);
/*
 * Digests of the next windows, in order, at most max, after reading about budget_bytes (at least
 * one window, or a step towards the first one, which is reached by walking its segment from the
 * start). 1: call again; 0: the end of the range was reached. *count_out may be 0 either way: a
 * window no record begins in has no digest and is left out. *done_lsn_out: windows below it were
 * given or are empty.
 *
 * -CFSR_E_DAMAGED, -CFSR_E_MISSING_SEGMENT: repair first (message names the place; what was
 * finished before it comes with the call that finds it, as an answer of 1); the next call tries

 */
int cfsr_journal_digests_step(struct cfsr_journal_digests *digests, uint64_t budget_bytes,
                              struct cfsr_window_digest *windows_out, uint32_t max,
                              uint32_t *count_out, uint64_t *done_lsn_out);
void cfsr_journal_digests_close(struct cfsr_journal_digests *digests); /* NULL is fine */

#endif
