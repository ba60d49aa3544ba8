/*
 * campaign.c - many runs in several processes (campaign.h).
 *
 * Threads:    none; workers are forked and take seeds from a counter in shared memory. A worker
 * that fails writes what it knows there and ends; the parent starts another. Invariants: a run that
 * ended is counted once, also over a restart: the state is written when every seed below next_seed
 * was run, and workers stop between runs.
 */
#include "campaign.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/log.h"

#define JOBS_MAX_ALLOWED 64
#define EXIT_FAILED_RUN  9
#define POLL_MS          20
#define STATE_EVERY_US   2000000u

struct slot {
    pid_t pid;
    _Atomic uint64_t seed; /* being run; 0: none */
    _Atomic uint64_t now_us;
    struct sim_totals totals;
    uint64_t digest;
    struct sim_failure failure;
};

struct shared {
    _Atomic uint64_t next_seed;
    _Atomic bool stop;
    struct slot slot[JOBS_MAX_ALLOWED];
};

static struct slot *my_slot;
static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

uint64_t sim_wall_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* In a worker: the run ends here. */
static void on_failure(struct cluster *cluster, const char *check, const char *text)
{
    struct sim_failure *failure = &my_slot->failure;

    failure->seed = cluster->config.seed;
    failure->at_us = cluster->now_us;
    snprintf(failure->check, sizeof failure->check, "%s", check);
    snprintf(failure->text, sizeof failure->text, "%s", text);
    if (sim_run_current() != NULL && sim_run_current()->trace) {
        printf("last events:\n");
        sim_run_print_trace(sim_run_current(), stdout);
    }
    fflush(stdout);
    _exit(EXIT_FAILED_RUN);
}

static void add_totals(struct sim_totals *to, const struct sim_totals *from)
{
    uint64_t *sum = (uint64_t *)to;
    const uint64_t *part = (const uint64_t *)from;

    for (size_t i = 0; i < sizeof *to / sizeof *sum; i++)
        sum[i] += part[i];
}
_Static_assert(sizeof(struct sim_totals) % sizeof(uint64_t) == 0, "a row of numbers");

static void run_one(struct sim_request request, uint64_t seed, bool trace)
{
    static struct sim_run run;
    static struct sim_plan plan;

    request.seed = seed;
    sim_plan_draw(&request, &plan);
    sim_run(&run, &plan, trace);
    add_totals(&my_slot->totals, &run.totals);
    my_slot->digest += sim_run_digest(&run);
}

/* Above every level: disks that fail are what a run is about. */
static void be_quiet(void)
{
    cfsr_log_configure((enum cfsr_log_level)(CFSR_LOG_ERROR + 1), CFSR_LOG_LOGFMT);
}

static _Noreturn void work(struct shared *shared, const struct sim_campaign *campaign)
{
    cluster_failure = on_failure;
    be_quiet();
    cluster_keep_memory();
    while (!atomic_load(&shared->stop)) {
        uint64_t seed = atomic_fetch_add(&shared->next_seed, 1);
        if (seed > campaign->last)
            break;
        atomic_store(&my_slot->seed, seed);
        run_one(campaign->request, seed, false);
        atomic_store(&my_slot->seed, 0);
    }
    _exit(0);
}

static int start_worker(struct shared *shared, const struct sim_campaign *campaign, unsigned number)
{
    struct slot *slot = &shared->slot[number];
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid < 0)
        return cfsr_fail(-errno, "cannot start a process: %s", cfsr_strerror(-errno));
    if (pid == 0) {
        (void)signal(SIGINT, SIG_IGN);
        my_slot = slot;
        work(shared, campaign);
    }
    slot->pid = pid;
    return 0;
}

/* ---- the state file ---- */

static void write_state(const struct sim_campaign *campaign, const struct sim_outcome *outcome)
{
    char path[1100];
    const uint64_t *number = (const uint64_t *)&outcome->totals;
    FILE *file;

    if (campaign->state_path == NULL)
        return;
    snprintf(path, sizeof path, "%s.new", campaign->state_path);
    file = fopen(path, "w");
    if (file == NULL)
        return;
    fprintf(file,
            "cfs-repl-sim 1 %zu\nfirst %" PRIu64 "\nnext %" PRIu64 "\nwall_us %" PRIu64
            "\ndigest %" PRIu64 "\n",
            sizeof outcome->totals / sizeof *number, campaign->first, outcome->next_seed,
            outcome->wall_us, outcome->digest);
    for (size_t i = 0; i < sizeof outcome->totals / sizeof *number; i++)
        fprintf(file, "%" PRIu64 "\n", number[i]);
    for (unsigned i = 0; i < outcome->failure_count; i++)
        fprintf(file, "failure %" PRIu64 " %" PRIu64 " %s %s\n", outcome->failure[i].seed,
                outcome->failure[i].at_us, outcome->failure[i].check, outcome->failure[i].text);
    if (fclose(file) == 0)
        (void)rename(path, campaign->state_path);
}

static int read_state(const struct sim_campaign *campaign, struct sim_outcome *outcome)
{
    uint64_t first, *number = (uint64_t *)&outcome->totals;
    size_t numbers = 0;
    FILE *file = campaign->state_path == NULL ? NULL : fopen(campaign->state_path, "r");
    bool good;

    if (file == NULL)
        return 0;
    good = fscanf(file,
                  "cfs-repl-sim 1 %zu first %" SCNu64 " next %" SCNu64 " wall_us %" SCNu64
                  " digest %" SCNu64,
                  &numbers, &first, &outcome->next_seed, &outcome->wall_us,
                  &outcome->digest) == 5 &&
           numbers == sizeof outcome->totals / sizeof *number && first == campaign->first;
    for (size_t i = 0; good && i < numbers; i++)
        good = fscanf(file, "%" SCNu64, &number[i]) == 1;
    while (good && outcome->failure_count < SIM_FAILURES_MAX) {
        struct sim_failure *failure = &outcome->failure[outcome->failure_count];
        if (fscanf(file, " failure %" SCNu64 " %" SCNu64 " %31s %511[^\n]", &failure->seed,
                   &failure->at_us, failure->check, failure->text) != 4)
            break;
        outcome->failure_count++;
    }
    fclose(file);
    return good ? 0
                : cfsr_fail(-EINVAL,
                            "%s is not the state of a campaign that began with seed %" PRIu64
                            ": remove it, or give that range",
                            campaign->state_path, campaign->first);
}

/* ---- the parent ---- */

static void note_death(struct slot *slot, int status, struct sim_outcome *outcome)
{
    struct sim_failure *failure = &slot->failure;

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_FAILED_RUN) {
        failure->seed = atomic_load(&slot->seed);
        failure->at_us = 0;
        snprintf(failure->check, sizeof failure->check, "assertion");
        snprintf(failure->text, sizeof failure->text, "the process ended with %s %d",
                 WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    if (outcome->failure_count < SIM_FAILURES_MAX)
        outcome->failure[outcome->failure_count++] = *failure;
    atomic_store(&slot->seed, 0);
}

static void sum_up(struct shared *shared, const struct sim_campaign *campaign,
                   const struct sim_outcome *before, struct sim_outcome *outcome)
{
    uint64_t next = atomic_load(&shared->next_seed);

    outcome->totals = before->totals;
    outcome->digest = before->digest;
    for (unsigned i = 0; i < campaign->jobs; i++) {
        uint64_t seed = atomic_load(&shared->slot[i].seed);
        add_totals(&outcome->totals, &shared->slot[i].totals);
        outcome->digest += shared->slot[i].digest;
        if (seed != 0 && seed < next)
            next = seed;
    }
    outcome->next_seed = next > campaign->last ? campaign->last + 1 : next;
}

static void print_progress(const struct sim_campaign *campaign, const struct sim_outcome *outcome,
                           uint64_t began_us)
{
    double hours = (double)outcome->totals.simulated_us / 3.6e9;
    double wall = (double)(outcome->wall_us) / 3.6e9;

    (void)began_us;
    if (!campaign->progress)
        return;
    fprintf(stderr,
            "\r%" PRIu64 " of %" PRIu64 " runs, %.1f simulated hours, %.0f a wall hour, %u failed ",
            outcome->totals.runs, campaign->last - campaign->first + 1, hours,
            wall > 0 ? hours / wall : 0.0, outcome->failure_count);
    fflush(stderr);
}

/* Waits for workers and starts new ones for those that failed; until all are gone. */
static int supervise(struct shared *shared, const struct sim_campaign *campaign,
                     const struct sim_outcome *before, struct sim_outcome *outcome)
{
    uint64_t began_us = sim_wall_us(), written_us = began_us;
    unsigned alive = campaign->jobs;
    int rc = 0;

    while (alive > 0) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        uint64_t now_us = sim_wall_us();
        outcome->wall_us = before->wall_us + (now_us - began_us);
        if (interrupted || outcome->failure_count >= campaign->failures_max)
            atomic_store(&shared->stop, true);
        if (pid == 0 || (pid < 0 && errno == EINTR)) {
            (void)usleep(POLL_MS * 1000);
        }
        for (unsigned i = 0; pid > 0 && i < campaign->jobs; i++) {
            if (shared->slot[i].pid != pid)
                continue;
            unsigned failures = outcome->failure_count;
            note_death(&shared->slot[i], status, outcome);
            alive--;
            if (outcome->failure_count > failures && !atomic_load(&shared->stop) &&
                outcome->failure_count < campaign->failures_max) {
                rc = start_worker(shared, campaign, i);
                alive += rc == 0;
            }
        }
        if (now_us - written_us < STATE_EVERY_US && alive > 0)
            continue;
        written_us = now_us;
        sum_up(shared, campaign, before, outcome);
        write_state(campaign, outcome);
        print_progress(campaign, outcome, began_us);
    }
    if (campaign->progress)
        fputc('\n', stderr);
    return rc;
}

static struct shared *make_shared(void)
{
    void *memory = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int sim_campaign_run(const struct sim_campaign *campaign, struct sim_outcome *outcome_out)
{
    struct sim_outcome *before = calloc(1, sizeof *before);
    struct shared *shared = make_shared();
    int rc;

    if (before == NULL || shared == NULL || campaign->jobs > JOBS_MAX_ALLOWED)
        return cfsr_fail(-ENOMEM, "no memory for %u jobs", campaign->jobs);
    before->next_seed = campaign->first;
    rc = read_state(campaign, before);
    *outcome_out = *before;
    atomic_store(&shared->next_seed, before->next_seed);
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    for (unsigned i = 0; rc == 0 && i < campaign->jobs; i++)
        rc = start_worker(shared, campaign, i);
    if (rc == 0)
        rc = supervise(shared, campaign, before, outcome_out);
    (void)munmap(shared, sizeof *shared);
    free(before);
    return rc;
}

bool sim_run_apart(const struct sim_request *request, bool trace, struct sim_failure *failure_out,
                   struct sim_outcome *outcome_out)
{
    struct sim_outcome *outcome = calloc(1, sizeof *outcome);
    struct shared *shared = make_shared();
    struct slot *slot = &shared->slot[0];
    int status = 0;
    bool good;

    fflush(NULL);
    uint64_t began_us = sim_wall_us();
    pid_t pid = fork();
    if (pid == 0) {
        my_slot = slot;
        cluster_failure = on_failure;
        if (trace)
            cfsr_log_configure(CFSR_LOG_WARN, CFSR_LOG_LOGFMT);
        else
            be_quiet();
        atomic_store(&slot->seed, request->seed);
        run_one(*request, request->seed, trace);
        fflush(stdout);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    note_death(slot, status, outcome);
    good = outcome->failure_count == 0;
    if (!good)
        *failure_out = outcome->failure[0];
    if (outcome_out != NULL) {
        *outcome_out = *outcome;
        outcome_out->totals = slot->totals;
        outcome_out->digest = slot->digest;
        outcome_out->wall_us = sim_wall_us() - began_us;
    }
    (void)munmap(shared, sizeof *shared);
    free(outcome);
    return good;
}
