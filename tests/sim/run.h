/*
 * run.h - one run of the simulator: a plan carried out, watched at every step, brought to rest and
 * verified.
 */
#ifndef CFSR_TESTS_SIM_RUN_H
#define CFSR_TESTS_SIM_RUN_H

#include "plan.h"

#define SIM_TRACE_LINES 64
#define SIM_LINE_BYTES  160

struct cfsr_inbox_state;

/* What was damaged, all of it at one site. */
struct sim_damaged {
    uint64_t journal, inbox; /* lanes */
    /* from: a cursor goes back no further, with the damage or after any crash with it; LSN_UNKNOWN:
     * it does not go back. */
    uint64_t floor[SITES_MAX][CFSR_LANES_MAX];
    unsigned count;
};

#define SIM_LINKS_MAX 128 /* of a core, challengers included */

/* What is known to be true, outside of every site. */
struct sim_model {
    uint64_t committed[SITES_MAX][CFSR_LANES_MAX];          /* promised to those who appended */
    uint64_t durable[SITES_MAX][SITES_MAX][CFSR_LANES_MAX]; /* at, from: the most it ever said */
    uint64_t acked[SITES_MAX][SITES_MAX][CFSR_LANES_MAX];   /* from, to: the most it ever knew */
    /* Connections whose acks are about a disk that is gone: from, core, link. */
    struct sim_stale {
        uint64_t attempt; /* the link's; another one knows better */
        uint64_t lanes;
    } stale[SITES_MAX][CORES_MAX][SIM_LINKS_MAX];
    uint64_t
        restored[SITES_MAX]; /* an older copy of the disk was put in: lanes not recovered since */
    uint64_t rewound[SITES_MAX]; /* the same of its journal */
    bool forked[SITES_MAX];      /* its own journal went back: it has two histories */
    struct origin_truth before[SITES_MAX][CFSR_LANES_MAX]; /* the older history of a forked site */
    uint64_t persisted[SITES_MAX][SITES_MAX][CFSR_LANES_MAX]; /* from, to: as its daemon noted it */
    bool expect_alarm[SITES_MAX][SITES_MAX]; /* from, to: peer_regressed must have been raised */
    uint64_t regressions[SITES_MAX];         /* raised in earlier lives of the daemon */
    uint8_t state[SITES_MAX][CORES_MAX][32]; /* of links, when last looked at */
    struct sim_damaged damaged;              /* at plan->damage_site */
    uint64_t acks_seen, audits, checks;
};

enum sim_site_life {
    SIM_UP,
    SIM_STOPPING,
    SIM_DOWN
};

struct sim_life {
    enum sim_site_life state;
    uint64_t at_us; /* DOWN: to be started at; STOPPING: since */
    uint64_t down_for_us;
    bool with_service;     /* STOPPING: the local service stops too */
    uint32_t next_cores;   /* STOPPING: the daemon comes back with so many; 0: as many */
    uint64_t reopen_at_us; /* of the service's failed lanes; UINT64_MAX: none */
    uint64_t next_traffic_us;
    unsigned start_failures;
    uint64_t scrub; /* run of it that was asked for in this life of the daemon */
};

/* A fault that ends. */
struct sim_heal {
    uint64_t at_us;
    unsigned fault;
    unsigned stage;
};
#define SIM_HEALS_MAX 256

struct sim_totals {
    uint64_t runs, simulated_us, liveness_us, steps, turns, deliveries, disk_ops, entries, bytes;
    uint64_t checks, audits, verified_entries, spins;
    uint64_t faults[SIM_FAULT_COUNT];
};

struct sim_run {
    struct sim_plan *plan;
    struct cluster cluster;
    struct sim_model model;
    struct sim_life life[SITES_MAX];
    struct sim_heal heal[SIM_HEALS_MAX];
    unsigned heal_count, next_fault;
    uint64_t traffic_state[SITES_MAX];
    uint64_t slow_disks[SITES_MAX], full_disks[SITES_MAX]; /* how many faults hold them so */
    unsigned blocked[SITES_MAX][SITES_MAX], rdma_blocked[SITES_MAX][SITES_MAX];
    unsigned rdma_refused[SITES_MAX];
    unsigned delays, cuts;
    uint64_t scrub;                      /* run that every site is to do; 0: none */
    uint64_t scrub_at_us;                /* of the second one */
    struct cfsr_fs *old_disk[SITES_MAX]; /* a copy to be put back */
    uint64_t old_committed[SITES_MAX];   /* of all lanes, when it was made */
    bool trace, ending;
    uint64_t checked_steps;
    struct sim_totals totals;
    char line[SIM_TRACE_LINES][SIM_LINE_BYTES]; /* what happened last */
    uint64_t lines;
};

/* Carries the plan out. Returns when everything held; else cluster_failure was called. */
void sim_run(struct sim_run *run, struct sim_plan *plan, bool trace);
/* A number for everything that happened; after sim_run(). */
uint64_t sim_run_digest(const struct sim_run *run);
/* The run under way, for cluster_failure. */
struct sim_run *sim_run_current(void);
void sim_run_print_trace(const struct sim_run *run, FILE *out);
void sim_note(struct sim_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- check.c ---- */

void sim_check_begin(struct sim_run *run);
void sim_check_end(struct sim_run *run);
/* After a step: everything that the sites which had a turn say is true. */
void sim_check_step(struct sim_run *run);
/* A journal lane was opened, an inbox lane recovered: nothing that was promised is missing. */
void sim_check_journal(void *user, struct test_site *site, uint32_t lane);
void sim_check_served(void *user, struct test_site *site, uint32_t lane);
void sim_check_inbox(void *user, struct test_site *site, uint32_t lane,
                     const struct cfsr_inbox_state *state);
/* Before a site's daemon is gone: what only it counted is kept. */
void sim_check_leave(struct sim_run *run, unsigned site);
/* An older disk is being put in; before the site loses its own. forked: its journal goes back too.
 */
void sim_check_restored(struct sim_run *run, unsigned site, bool forked);
/* What connections of these lanes say from now on, `to` said before its disk went back. */
void sim_check_went_back(struct sim_run *run, unsigned from, unsigned to, uint64_t lanes);
uint64_t sim_committed_sum(const struct sim_run *run, unsigned site);
/* Every link that should be is caught up and STREAMING. why: the first that is not. */
bool sim_check_rested(struct sim_run *run, char *why, size_t len_bytes);
void sim_check_alarms(struct sim_run *run);

/* ---- verify.c ---- */

/* Everything that was appended is at every site once, in order, with the same bytes. */
void sim_verify(struct sim_run *run);

/* A site's inbox lane on a disk of its own, as far as it can be read: a beginning of every origin's
 * history. */
void sim_verify_beginning(struct sim_run *run, unsigned site, uint32_t lane, struct cfsr_fs *fs);

/* ---- damage.c ---- */

/* Damages one place of the site's journal or inbox, if that can be put right. */
void sim_damage(struct sim_run *run, const struct sim_fault *fault);
bool sim_damaged_inbox(const struct sim_run *run, unsigned site, uint32_t lane);
/* A cursor of an inbox lane went back: true if damage explains it, which the senders then have to
 * notice. */
bool sim_damage_excuses(struct sim_run *run, unsigned site, unsigned from, uint32_t lane,
                        uint64_t lsn);
/* When the faults are over: asks every site for a scrub, then for another one, which must find
 * nothing. Everywhere where nothing was damaged: true. */
bool sim_damage_mended(struct sim_run *run, char *why, size_t len_bytes);

/* ---- fault.c ---- */

void sim_fault_begin(struct sim_run *run, unsigned number);
void sim_fault_heal(struct sim_run *run, const struct sim_heal *heal);
/* The world is well again; sites that are down start now. */
void sim_fault_end_all(struct sim_run *run);
void sim_site_down(struct sim_run *run, unsigned site, uint64_t for_us);

#endif
