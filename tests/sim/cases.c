/*
 * cases.c - numbered cases in worker processes (cases.h).
 *
 * Thread:     one a process.
 * Invariants: cases are done in rounds; a round that is over is in the file, whole; the counters of
 *             a case that failed are not counted.
 * Rejected:   threads (a case that trips an assertion must not take the others with it).
 */
#include "cases.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "cluster.h"

#define ROUND_CASES    32768u
#define WORKERS_MAX    64u
#define CASE_SECONDS   60u /* one that takes longer hangs */
#define VIOLATIONS_MAX 20u /* then it stops: something is thoroughly wrong */

/* Written by one worker, read by the parent. */
struct worker {
    uint64_t now;  /* the case that runs */
    uint64_t next; /* the first that has not been begun */
    uint64_t counters[SIM_CASES_COUNTERS_MAX];
};

struct totals {
    uint64_t done, violations;
    double seconds;
    uint64_t counters[SIM_CASES_COUNTERS_MAX];
};

static uint64_t running_case, running_seed;
static const char *running_command = "";

_Noreturn void sim_case_fail(const char *format, ...)
{
    char text[600];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "violation: %s case %" PRIu64 ", seed %" PRIu64 ": %s\n", running_command,
            running_case, running_seed, text);
    fflush(NULL);
    _exit(3);
}

static void run_case(const struct sim_cases *program, void *state, uint64_t number,
                     struct worker *worker)
{
    uint64_t counters[SIM_CASES_COUNTERS_MAX] = {0};

    running_case = number;
    worker->now = number;
    (void)alarm(CASE_SECONDS);
    program->run(state, number, counters);
    (void)alarm(0);
    for (unsigned i = 0; i < program->counter_count; i++)
        worker->counters[i] += counters[i];
}

static pid_t start_worker(const struct sim_cases *program, const struct sim_cases_options *options,
                          struct worker *worker, uint64_t end)
{
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid != 0)
        return pid;
    (void)signal(SIGINT, SIG_DFL);
    cluster_keep_memory();
    void *state = program->open(options->seed);
    while (worker->next < end) {
        uint64_t number = worker->next;

        worker->next += options->jobs;
        run_case(program, state, number, worker);
    }
    _exit(0);
}

static void print_repeat(const struct sim_cases *program, const struct sim_cases_options *options,
                         uint64_t number, int status)
{
    if (WIFSIGNALED(status))
        fprintf(stderr, "violation: %s case %" PRIu64 ", seed %" PRIu64 ": %s\n", program->command,
                number, options->seed, strsignal(WTERMSIG(status)));
    fprintf(stderr, "  repeat: cfs-repl-sim %s --seed %" PRIu64 " --case %" PRIu64 "\n",
            program->command, options->seed, number);
}

/* The cases from first to end, all workers together. */
static int run_round(const struct sim_cases *program, const struct sim_cases_options *options,
                     struct worker *workers, uint64_t first, uint64_t end, struct totals *totals)
{
    pid_t pid[WORKERS_MAX];
    unsigned live = 0;
    int status;

    for (unsigned i = 0; i < options->jobs; i++) {
        memset(&workers[i], 0, sizeof workers[i]);
        workers[i].next = first + i;
        pid[i] = start_worker(program, options, &workers[i], end);
        if (pid[i] < 0)
            return -errno;
        live++;
    }
    while (live > 0) {
        pid_t ended = wait(&status);
        unsigned i = 0;

        if (ended < 0)
            return -errno;
        while (i < options->jobs && pid[i] != ended)
            i++;
        if (i == options->jobs)
            continue;
        live--;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        totals->violations++;
        print_repeat(program, options, workers[i].now, status);
        if (totals->violations >= VIOLATIONS_MAX)
            workers[i].next = end;
        pid[i] = start_worker(program, options, &workers[i], end);
        live += pid[i] > 0;
    }
    for (unsigned i = 0; i < options->jobs; i++)
        for (unsigned k = 0; k < program->counter_count; k++)
            totals->counters[k] += workers[i].counters[k];
    totals->done = end;
    return 0;
}

/* ---- the file ---- */

static int save(const struct sim_cases *program, const struct sim_cases_options *options,
                const struct totals *totals)
{
    char path[1100];
    FILE *file;

    if (options->resume == NULL)
        return 0;
    (void)snprintf(path, sizeof path, "%s.new", options->resume);
    file = fopen(path, "w");
    if (file == NULL)
        return -errno;
    fprintf(file,
            "cfs-repl-sim %s seed %" PRIu64 " done %" PRIu64 " violations %" PRIu64
            " ms %.0f counters %u\n",
            program->command, options->seed, totals->done, totals->violations,
            totals->seconds * 1000, program->counter_count);
    for (unsigned i = 0; i < program->counter_count; i++)
        fprintf(file, "%" PRIu64 "\n", totals->counters[i]);
    if (fclose(file) != 0 || rename(path, options->resume) != 0)
        return -errno;
    return 0;
}

static int restore(const struct sim_cases *program, const struct sim_cases_options *options,
                   struct totals *totals)
{
    FILE *file = options->resume == NULL ? NULL : fopen(options->resume, "r");
    char command[32];
    uint64_t seed;
    unsigned counters;
    double ms;
    int rc = 0;

    if (file == NULL)
        return 0;
    if (fscanf(file,
               "cfs-repl-sim %31s seed %" SCNu64 " done %" SCNu64 " violations %" SCNu64
               " ms %lf counters %u\n",
               command, &seed, &totals->done, &totals->violations, &ms, &counters) != 6 ||
        strcmp(command, program->command) != 0 || seed != options->seed ||
        counters != program->counter_count)
        rc = -EINVAL;
    for (unsigned i = 0; rc == 0 && i < counters; i++)
        rc = fscanf(file, "%" SCNu64 "\n", &totals->counters[i]) == 1 ? 0 : -EINVAL;
    if (rc == 0)
        totals->seconds = ms / 1000;
    fclose(file);
    return rc;
}

/* ---- the command ---- */

static bool number_of(const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == '\0';
}

static bool parse(const struct sim_cases *program, int argc, char **argv,
                  struct sim_cases_options *options)
{
    static const struct option names[] = {
        {"cases", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'},
        {"jobs", required_argument, NULL, 'j'},  {"resume", required_argument, NULL, 'r'},
        {"case", required_argument, NULL, 'c'},  {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    uint64_t jobs = 1;
    bool good = true;
    int letter;

    *options = (struct sim_cases_options){.cases = program->cases, .seed = 1, .only = UINT64_MAX};
    optind = 1;
    while (good && (letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (letter) {
        case 'n': good = number_of(optarg, &options->cases); break;
        case 's': good = number_of(optarg, &options->seed); break;
        case 'j': good = number_of(optarg, &jobs) && jobs >= 1 && jobs <= WORKERS_MAX; break;
        case 'c': good = number_of(optarg, &options->only); break;
        case 'r': options->resume = optarg; break;
        case 'q': options->quiet = true; break;
        default: good = false;
        }
    }
    options->jobs = (unsigned)jobs;
    return good && optind == argc;
}

static double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void print_table(const struct sim_cases *program, const struct sim_cases_options *options,
                        const struct totals *totals)
{
    printf("%-44s %12" PRIu64 "\n", "seed", options->seed);
    printf("%-44s %12" PRIu64 "\n", "cases", totals->done);
    for (unsigned i = 0; i < program->counter_count; i++)
        if (program->counter_name(i) != NULL)
            printf("%-44s %12" PRIu64 "\n", program->counter_name(i), totals->counters[i]);
    printf("%-44s %12.0f\n", "cases a second and job",
           totals->seconds > 0 ? (double)totals->done / totals->seconds / options->jobs : 0);
    printf("%-44s %12" PRIu64 "\n", "violations", totals->violations);
}

static int run_all(const struct sim_cases *program, struct sim_cases_options *options)
{
    struct worker *workers = mmap(NULL, WORKERS_MAX * sizeof *workers, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct totals totals = {0};
    int rc = workers == MAP_FAILED ? -errno : restore(program, options, &totals);

    if (rc == 0 && options->cases == 0)
        options->cases = program->enough(program->open(options->seed));
    while (rc == 0 && totals.done < options->cases && totals.violations < VIOLATIONS_MAX) {
        uint64_t left = options->cases - totals.done;
        double before = now_seconds();

        rc = run_round(program, options, workers, totals.done,
                       totals.done + (left < ROUND_CASES ? left : ROUND_CASES), &totals);
        totals.seconds += now_seconds() - before;
        if (rc == 0)
            rc = save(program, options, &totals);
        if (!options->quiet)
            fprintf(stderr, "%s: %" PRIu64 " of %" PRIu64 " cases, %" PRIu64 " violations\n",
                    program->command, totals.done, options->cases, totals.violations);
    }
    if (rc < 0) {
        fprintf(stderr, "cfs-repl-sim %s: %s%s%s\n", program->command, cfsr_strerror(rc),
                options->resume != NULL ? ": " : "",
                options->resume != NULL ? options->resume : "");
        return 2;
    }
    print_table(program, options, &totals);
    return totals.violations == 0 ? 0 : 1;
}

int sim_cases_main(const struct sim_cases *program, int argc, char **argv)
{
    struct sim_cases_options options;

    if (!parse(program, argc, argv, &options)) {
        fputs(program->usage, stderr);
        return 2;
    }
    running_command = program->command;
    running_seed = options.seed;
    if (options.only != UINT64_MAX) {
        struct worker worker = {0};

        run_case(program, program->open(options.seed), options.only, &worker);
        printf("%s case %" PRIu64 ", seed %" PRIu64 ": all right\n", program->command, options.only,
               options.seed);
        return 0;
    }
    return run_all(program, &options);
}
