/*
 * campaign.h - many runs in several processes, what they add up to, and what is made of a failure.
 */
#ifndef CFSR_TESTS_SIM_CAMPAIGN_H
#define CFSR_TESTS_SIM_CAMPAIGN_H

#include "run.h"

#define SIM_FAILURES_MAX 32
#define SIM_CHECK_BYTES  32
#define SIM_TEXT_BYTES   512

struct sim_failure {
    uint64_t seed;
    uint64_t at_us; /* virtual time */
    char check[SIM_CHECK_BYTES];
    char text[SIM_TEXT_BYTES];
};

struct sim_campaign {
    struct sim_request request; /* seed is not looked at */
    uint64_t first, last;
    unsigned jobs;
    const char *state_path; /* NULL: none is kept */
    bool progress;          /* a line on standard error */
    unsigned failures_max;  /* stop after so many */
};

struct sim_outcome {
    struct sim_totals totals;
    uint64_t next_seed; /* everything below it was run */
    uint64_t wall_us;   /* of this and the campaigns it goes on from */
    unsigned failure_count;
    struct sim_failure failure[SIM_FAILURES_MAX];
    uint64_t digest; /* of all runs' digests, in any order */
};

/* Runs first … last. 0, or a negative error of the machinery; failures are in the outcome. */
int sim_campaign_run(const struct sim_campaign *campaign, struct sim_outcome *outcome_out);

/* One run in a process of its own: false and *failure_out if it failed. outcome_out may be NULL. */
bool sim_run_apart(const struct sim_request *request, bool trace, struct sim_failure *failure_out,
                   struct sim_outcome *outcome_out);
/* Leaves faults out while the same check still fails, for at most so long; prints what
 * is left, its trace, and the command to repeat it. */
void sim_shrink(const struct sim_request *request, const struct sim_failure *failure,
                unsigned seconds, FILE *out);

void sim_print_failure(const struct sim_failure *failure, FILE *out);
const char *sim_commit(void);
uint64_t sim_wall_us(void);

#endif
