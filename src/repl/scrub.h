/*
 * scrub.h - what is checked next, who is asked for what is damaged, and what came of it. Sans-I/O.
 *
 * One scrub per core. It goes lane by lane: the own journal, the inbox, and the own journal's
 * window digests against those of every peer that is connected. Each gap that a check finds is
 * mended at once: fetched from one peer after another (the origin first) until one has it, range by
 * range. Two things come before a run: damage that a link met (the segment it stands in is checked,
 * unthrottled, as the link waits for it), and gaps that waited for a peer to come back.
 *
 * The driver takes a step with next(), does it (a job, or a QUERY), and reports with the event of
 * the step's type; one step is outstanding at a time. No step moves anything that the machine did
 * not ask for, so a late or wrong answer changes nothing.
 *
 * Invariants: a gap ends as repaired, unrepairable (nobody has it) or waiting (somebody who may
 * have it is away); what waits is tried again, bounded in number. Bytes checked stay below the
 * rate.
 */
#ifndef CFSR_REPL_SCRUB_H
#define CFSR_REPL_SCRUB_H

#include <stdbool.h>
#include <stdint.h>

#include "inbox/repair.h"
#include "journal/repair.h"
#include "journal/site.h"

enum cfsr_scrub_part {
    CFSR_SCRUB_JOURNAL = 1u << 0,
    CFSR_SCRUB_INBOX = 1u << 1,
    CFSR_SCRUB_PEERS = 1u << 2,
    CFSR_SCRUB_ALL = 7u,
};

struct cfsr_scrub_request {
    uint64_t run; /* names it: rising; 0: by ourselves */
    uint64_t lane_mask;
    unsigned parts;
    uint64_t rate_bytes_per_s; /* 0: unlimited */
};

enum cfsr_scrub_step_type {
    CFSR_SCRUB_NONE,          /* nothing to do before the deadline */
    CFSR_SCRUB_CHECK_JOURNAL, /* → on_journal_checked() */
    CFSR_SCRUB_CHECK_INBOX,   /* → on_inbox_checked() */
    CFSR_SCRUB_MEND_HEADER,   /* make the segment's header → on_applied() */
    CFSR_SCRUB_ASK_RECORDS,   /* ask peer for [lsn_from, lsn_to) → on_answer() */
    CFSR_SCRUB_APPLY,         /* verify what came, put it in place → on_applied() */
    CFSR_SCRUB_ASK_DIGESTS,   /* ask peer for windows → on_answer() */
    CFSR_SCRUB_COMPARE,       /* against our own windows → on_compared() */
};

/* Two tasks: what waits for nobody (damage met, gaps tried again), and the run. Each has a check of
 * its own. */
enum {
    CFSR_SCRUB_URGENT,
    CFSR_SCRUB_RUN,
    CFSR_SCRUB_TASKS
};

struct cfsr_scrub_step {
    enum cfsr_scrub_step_type type;
    unsigned task;
    uint32_t lane;
    bool fresh;            /* CHECK: begin anew */
    bool seek;             /* CHECK_JOURNAL: go to lsn_from first */
    uint64_t lsn_from;     /* fresh CHECK_JOURNAL: from here (0: the floor) … */
    uint64_t lsn_to;       /* … to here (UINT64_MAX: the committed end) */
    uint64_t budget_bytes; /* CHECK */
    uint32_t peer;         /* ASK, COMPARE: index */
    uint64_t origin;       /* ASK, APPLY: whose journal (0: our own) */
    struct cfsr_uuid journal;
    const struct cfsr_inbox_gap *inbox_gap; /* ASK, APPLY for the inbox; else NULL */
    uint32_t inbox_part;
};

enum cfsr_scrub_finding_kind {
    CFSR_SCRUB_FOUND_RECORDS,      /* own journal */
    CFSR_SCRUB_FOUND_HEADER,       /* own journal: a segment's header */
    CFSR_SCRUB_FOUND_SEGMENT,      /* own journal: a segment's file is missing */
    CFSR_SCRUB_FOUND_INBOX,        /* inbox: of what an origin sent */
    CFSR_SCRUB_FOUND_PEER_DAMAGED, /* the peer's copy of our journal; it repairs itself */
    CFSR_SCRUB_FOUND_FORKED,       /* sound here and there, and different */
};
const char *cfsr_scrub_finding_name(enum cfsr_scrub_finding_kind kind);

enum cfsr_scrub_outcome {
    CFSR_SCRUB_REPAIRED,
    CFSR_SCRUB_UNREPAIRABLE, /* nobody has it */
    CFSR_SCRUB_WAITING,      /* somebody who may have it is away */
    CFSR_SCRUB_REPORTED,     /* not ours to repair */
};
const char *cfsr_scrub_outcome_name(enum cfsr_scrub_outcome outcome);

struct cfsr_scrub_finding {
    enum cfsr_scrub_finding_kind kind;
    enum cfsr_scrub_outcome outcome;
    uint32_t lane;
    uint64_t site_id; /* INBOX: the origin; PEER_DAMAGED, FORKED: the peer; else our own */
    uint64_t lsn_from, lsn_to;
    int reason; /* why it was not repaired (-CFSR_E_* or -errno), 0 */
    uint64_t at_us;
};
#define CFSR_SCRUB_FINDINGS_MAX 16

struct cfsr_scrub_lane {
    uint64_t bytes; /* of the last or present run */
    uint64_t windows_compared, windows_different;
    uint64_t found, repaired, unrepairable, waiting; /* gaps */
    int error;                                       /* why a check could not go on, 0 */
    uint64_t started_us;                             /* of the last run; 0: never */
    uint64_t finished_us;
};

struct cfsr_scrub_counters {
    uint64_t bytes, windows, differences, found, repaired, unrepairable, replies_refused;
};

struct cfsr_scrub_options {
    const struct cfsr_site *site;
    uint64_t rate_bytes_per_s; /* 0: unlimited */
    uint64_t interval_ns;      /* of runs by ourselves; 0: none */
    uint64_t retry_ns;         /* gaps that wait are tried again this often */
    uint64_t lane_mask;        /* lanes of this core */
    uint32_t peer_count;
    const uint64_t *peer_sites;
    void *user;
    /* Whether a QUERY for the lane can go to the peer now. */
    bool (*can_ask)(void *user, uint32_t peer, uint32_t lane);
    /* LSN below which the peer has the own lane; 0: not known. */
    uint64_t (*acked_lsn)(void *user, uint32_t peer, uint32_t lane);
};

#define CFSR_SCRUB_WAITING_MAX 8

/* One gap being mended. */
struct cfsr_scrub_mend {
    bool active, inbox;
    bool header_due; /* the segment's header or file comes first */
    bool answered;   /* a peer's answer is at hand */
    struct cfsr_journal_gap journal_gap;
    struct cfsr_inbox_gap inbox_gap;
    uint32_t part;         /* of the inbox gap */
    uint64_t lsn, lsn_end; /* what is missing still */
    uint64_t tried;        /* bit a peer: it was asked, or cannot be asked, for what is at lsn */
    uint32_t peer;         /* asked, or the last that helped; peer_count: nobody yet */
    bool away;             /* one that may have it could not be asked */
    bool failed, waits;    /* of any part */
    int reason;
};

struct cfsr_scrub_task {
    bool active;
    bool fresh, seek; /* of the check's next step */
    bool again;       /* what is found was counted before */
    uint64_t seek_lsn;
    uint32_t lane;
    unsigned part;             /* enum cfsr_scrub_part: the phase */
    uint64_t lsn_from, lsn_to; /* JOURNAL: what is checked; PEERS: what is compared */
    uint32_t peer;             /* PEERS: index */
    uint64_t answer_to;        /* PEERS: the peer's answer ends here; 0: not asked yet */
    uint32_t restarts;
    uint64_t gaps, gaps_open; /* found by this check; those not repaired */
    uint64_t open_lsn;        /* JOURNAL: of the first of these */
    bool gaps_wait;           /* one of them waits for a peer */
    bool broken;              /* the check could not go on */
    struct cfsr_scrub_mend mend;
};

struct cfsr_scrub_waiting {
    struct cfsr_inbox_gap gap;
    enum cfsr_scrub_outcome outcome;
};

struct cfsr_scrub {
    struct cfsr_scrub_options options;
    struct cfsr_scrub_step step; /* outstanding unless NONE */
    struct cfsr_scrub_task task[CFSR_SCRUB_TASKS];
    uint64_t wanted[3], todo[3]; /* lanes by part: asked for; of the present run */
    uint64_t run_wanted, run_present, run_finished;
    uint64_t rate_wanted, rate;
    bool running;
    uint64_t not_before_ns; /* of the run: its rate */
    uint64_t hold_ns;       /* of everything: a lock is held, no room */
    uint64_t periodic_ns, retry_at_ns, retry_delay_ns;
    uint64_t damaged_mask; /* lanes whose journal a link found damaged, at … */
    uint64_t damaged_lsn[CFSR_LANES_MAX];
    uint32_t sound_count[CFSR_LANES_MAX]; /* how often it was found sound then */
    uint64_t waiting_mask;                /* lanes whose journal is tried again, at … */
    uint64_t waiting_lsn[CFSR_LANES_MAX];
    uint32_t waiting_count, retry_left; /* inbox gaps; of this round */
    struct cfsr_scrub_waiting waiting[CFSR_SCRUB_WAITING_MAX];
    uint64_t floor_lsn[CFSR_LANES_MAX]; /* of the own journal, as the last check found it */
    struct cfsr_scrub_lane lane[CFSR_LANES_MAX];
    uint32_t finding_count; /* ever; the last ones are kept, at count mod max */
    struct cfsr_scrub_finding finding[CFSR_SCRUB_FINDINGS_MAX];
    struct cfsr_scrub_counters counters;
    /* For the driver to tell the links; cleared by it. */
    uint64_t mended_mask, hopeless_mask;
    uint64_t hopeless_lsn[CFSR_LANES_MAX];
};

void cfsr_scrub_init(struct cfsr_scrub *scrub, const struct cfsr_scrub_options *options,
                     uint64_t now_ns);
/* Asks for a run; joins one that is not begun yet, follows one that is. */
void cfsr_scrub_ask(struct cfsr_scrub *scrub, const struct cfsr_scrub_request *request);
/* A link met damage in our own journal. */
void cfsr_scrub_on_damaged(struct cfsr_scrub *scrub, uint32_t lane, uint64_t lsn);
/* A peer can be asked again: what waits for it is tried soon. */
void cfsr_scrub_on_peer(struct cfsr_scrub *scrub, uint64_t now_ns);

/* Where the own journal of a lane begins: nothing below it is compared. */
void cfsr_scrub_set_floor(struct cfsr_scrub *scrub, uint32_t lane, uint64_t lsn);

/* The next step; NONE while one is outstanding or nothing is due. */
const struct cfsr_scrub_step *cfsr_scrub_next(struct cfsr_scrub *scrub, uint64_t now_ns,
                                              uint64_t wall_us);
/* When next() may have something; UINT64_MAX: only an event brings it. */
uint64_t cfsr_scrub_deadline(const struct cfsr_scrub *scrub);

/* Results. answer: enum cfsr_journal_check_answer, or -errno. */
void cfsr_scrub_on_journal_checked(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us,
                                   int answer, uint64_t bytes, const struct cfsr_journal_gap *gap);
/* answer: enum cfsr_inbox_check_result, or -errno. */
void cfsr_scrub_on_inbox_checked(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us,
                                 int answer, uint64_t bytes, const struct cfsr_inbox_gap *gap);
/* rc 0: the peer's answer is at hand; lsn_to is where it ends. Else why there is none. */
void cfsr_scrub_on_answer(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us, int rc,
                          uint64_t lsn_to);
/* refused: the peer's answer failed a check (rc says which). Else rc 0 and the position behind what
 * was put in place, -EAGAIN / -CFSR_E_LOCKED (again, a little later), or why this site could not.
 */
void cfsr_scrub_on_applied(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us, int rc,
                           bool refused, uint64_t end_lsn);
/* Windows of both sides: how many were compared and differed; the first that did. */
void cfsr_scrub_on_compared(struct cfsr_scrub *scrub, uint64_t now_ns, uint64_t wall_us, int rc,
                            uint64_t bytes, uint32_t compared, uint32_t different,
                            uint64_t first_different_lsn);

#endif
