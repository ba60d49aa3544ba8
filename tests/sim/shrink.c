/*
 * shrink.c - the shortest way to a failure: the same seed with faults left out, half of them, then
 * a quarter, then one by one (campaign.h).
 *
 * Threads:    none; every attempt is a process of its own.
 * Invariants: an attempt counts only if the same check fails; what is left out changes nothing of
 *             what is kept, as every fault draws from its own number.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "campaign.h"

#define SECOND ((uint64_t)1000000)

struct shrinking {
    struct sim_request request;
    struct sim_failure failure;
    uint32_t keep[SIM_FAULTS_MAX];
    unsigned count;
    unsigned attempts;
    uint64_t until_us;
};

static bool still_fails(struct shrinking *s, const uint32_t *keep, unsigned count)
{
    struct sim_request request = s->request;
    struct sim_failure failure;

    if (sim_wall_us() >= s->until_us)
        return false;
    s->attempts++;
    request.keep = keep;
    request.keep_count = count;
    request.keep_given = true;
    if (sim_run_apart(&request, false, &failure, NULL) ||
        strcmp(failure.check, s->failure.check) != 0)
        return false;
    s->failure = failure;
    return true;
}

/* Delta debugging (Zeller, 1999), without its complements' second round. */
static void drop_faults(struct shrinking *s)
{
    for (unsigned part = s->count; part > 0; part /= 2) {
        for (unsigned from = 0; from < s->count && sim_wall_us() < s->until_us;) {
            uint32_t rest[SIM_FAULTS_MAX];
            unsigned end = from + part < s->count ? from + part : s->count, count = 0;
            for (unsigned i = 0; i < s->count; i++)
                if (i < from || i >= end)
                    rest[count++] = s->keep[i];
            if (still_fails(s, rest, count)) {
                memcpy(s->keep, rest, count * sizeof *rest);
                s->count = count;
            } else {
                from = end;
            }
        }
    }
}

/* The minutes stay as they are: fault times are drawn from them, and faults behind the failure are
 * among the first to be left out. */
static void find_faults(struct shrinking *s, const struct sim_request *request)
{
    static struct sim_plan plan;

    sim_plan_draw(request, &plan);
    for (unsigned i = 0; i < plan.fault_count; i++)
        if (!plan.fault[i].skip)
            s->keep[s->count++] = i;
}

static void print_command(const struct shrinking *s, FILE *out)
{
    fprintf(out, "cfs-repl-sim --seed %" PRIu64, s->request.seed);
    if (s->request.sites != 0)
        fprintf(out, " --sites %u", s->request.sites);
    if (s->request.run_us % (60 * SECOND) != 0)
        fprintf(out, " --seconds %" PRIu64, s->request.run_us / SECOND);
    else
        fprintf(out, " --minutes %" PRIu64, s->request.run_us / (60 * SECOND));
    if (s->request.plain)
        fprintf(out, " --plain");
    if (s->request.broken != SIM_BREAK_none)
        fprintf(out, " --break %s", sim_break_name(s->request.broken));
    if (s->request.faults != (1u << SIM_FAULT_COUNT) - 1) {
        const char *comma = " --faults ";
        for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++) {
            if ((s->request.faults >> kind & 1) == 0)
                continue;
            fprintf(out, "%s%s", comma, sim_fault_name((enum sim_fault_kind)kind));
            comma = ",";
        }
        if (s->request.faults == 0)
            fprintf(out, " --faults none");
    }
    fprintf(out, " --keep ");
    for (unsigned i = 0; i < s->count; i++)
        fprintf(out, "%s%u", i > 0 ? "," : "", s->keep[i]);
    fprintf(out, "%s --verbose\n", s->count == 0 ? "none" : "");
}

void sim_print_failure(const struct sim_failure *failure, FILE *out)
{
    fprintf(out, "FAILED seed %" PRIu64 " at %.6f s: %s: %s\n", failure->seed,
            (double)failure->at_us / 1e6, failure->check, failure->text);
}

void sim_shrink(const struct sim_request *request, const struct sim_failure *failure,
                unsigned seconds, FILE *out)
{
    static struct shrinking s;
    struct sim_failure again;

    s = (struct shrinking){
        .request = *request,
        .failure = *failure,
        .until_us = sim_wall_us() + seconds * SECOND,
    };
    s.request.seed = failure->seed;
    find_faults(&s, &s.request);
    unsigned all = s.count;
    drop_faults(&s);
    s.request.keep = s.keep;
    s.request.keep_count = s.count;
    s.request.keep_given = true;
    sim_print_failure(&s.failure, out);
    fprintf(out, "commit %s; %u of %u faults are needed (%u attempts); the last events:\n",
            sim_commit(), s.count, all, s.attempts);
    fflush(out);
    (void)sim_run_apart(&s.request, true, &again, NULL);
    fprintf(out, "to repeat it:\n  ");
    print_command(&s, out);
}
