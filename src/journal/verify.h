/*
 * verify.h - check everything a journal holds: every record of every lane, and what surrounds them.
 *
 * Checked: segment headers, gaps, files that do not belong there, sizes, checksums, site and lane
 * of each record, seqs without hole or repeat, SHARDS against the seqs, MARKs against counts and
 * positions. A torn tail (what a crash leaves) is told apart from damage in the middle; nothing is
 * skipped silently: after damage the search goes on at the next valid record.
 */
#ifndef CFSR_JOURNAL_VERIFY_H
#define CFSR_JOURNAL_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/site.h"
#include "journal/status_page.h"

enum cfsr_verify_verdict {
    CFSR_VERIFY_SOUND = 0,
    CFSR_VERIFY_DAMAGED = 1,
    CFSR_VERIFY_UNCHECKED = 2, /* something could not be read; what was read is not damaged */
};

enum cfsr_finding_kind {
    CFSR_FINDING_TORN_TAIL, /* not damage: bytes of a commit nobody was told of */
    CFSR_FINDING_DAMAGED_RECORD,
    CFSR_FINDING_DAMAGED_HEADER,
    CFSR_FINDING_MISSING_SEGMENT,
    CFSR_FINDING_FOREIGN_SEGMENT, /* another cluster, site, journal or lane */
    CFSR_FINDING_FOREIGN_FILE,
    CFSR_FINDING_BAD_ORDER, /* a valid record with the wrong seq, or a SHARDS that disagrees */
    CFSR_FINDING_BAD_MARK,  /* a MARK that disagrees with the records below it */
    CFSR_FINDING_UNREADABLE,
};

struct cfsr_finding {
    enum cfsr_finding_kind kind;
    uint32_t lane;
    uint64_t segment_lsn; /* names the file */
    uint64_t lsn;
    uint64_t end_lsn;   /* DAMAGED_RECORD: the next valid record, or the segment's end; else lsn */
    int rc;             /* the error behind it */
    const char *reason; /* static, or valid during the callback */
    const char *advice;
};

struct cfsr_verify_report {
    enum cfsr_verify_verdict verdict;
    uint64_t segments, records, entries, bytes; /* of the journal stream */
    uint64_t findings;                          /* all */
    uint64_t damages;                           /* those that make it damaged */
};

/* "torn_tail", "damaged_record", … */
const char *cfsr_finding_name(enum cfsr_finding_kind kind);

/*
 * Verifies all lanes. page (may be NULL) tells how far the lanes are committed in this boot: a live
 * lane is checked up to there. on_finding may be NULL. 0 and the report, or -ENOMEM.
 */
int cfsr_journal_verify(struct cfsr_fs *fs, const struct cfsr_site *site,
                        const struct cfsr_status_page *page,
                        void (*on_finding)(void *user, const struct cfsr_finding *finding),
                        void *user, struct cfsr_verify_report *report_out);

#endif
