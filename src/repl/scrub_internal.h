/* scrub_internal.h - what scrub.c (what is next) and scrub_mend.c (one gap) share. */
#ifndef CFSR_REPL_SCRUB_INTERNAL_H
#define CFSR_REPL_SCRUB_INTERNAL_H

#include "repl/scrub.h"

/* A lock or a full pool: the same step again after this. */
#define CFSR_SCRUB_HOLD_NS 100000000ull

/* Begins on a gap that a check found, or on an inbox gap that waited (again). */
void cfsr_scrub_mend_journal(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task,
                             const struct cfsr_journal_gap *gap);
void cfsr_scrub_mend_inbox(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task,
                           const struct cfsr_inbox_gap *gap);
/* Fills the next step of the gap at hand; false: it has ended (mend.active is false). */
bool cfsr_scrub_mend_step(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, uint64_t wall_us,
                          struct cfsr_scrub_step *step);
void cfsr_scrub_mend_answered(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task, int rc);
void cfsr_scrub_mend_applied(struct cfsr_scrub *scrub, struct cfsr_scrub_task *task,
                             uint64_t now_ns, int rc, bool refused, uint64_t end_lsn);
/* Keeps a finding; the oldest goes. */
void cfsr_scrub_report(struct cfsr_scrub *scrub, const struct cfsr_scrub_finding *finding);

#endif
