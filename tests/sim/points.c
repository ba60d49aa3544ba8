/*
 * points.c - cfs-repl-sim points: a reference run of numbered writes, syncs, renames, allocations,
 * sends and so on; at each of them, before, in the middle of and after it, the process is forked
 * once for every persistence model, and the child's site loses its power there.
 *
 * Thread:     one a process.
 * Invariants: the reference run never notices: a child is a copy of everything.
 * Rejected:   running up to each point anew (half of all work squared); snapshots of disks alone
 *             (the network and the other sites would have to be put back too).
 */
#include "points.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/log.h"
#include "points_world.h"

#define POINTS_JOBS_MAX 64u
#define MODELS          4u
#define CHILD_SECONDS   60u
#define SAVE_EVERY      500u /* points */
#define VIOLATIONS_MAX  20u

struct options {
    uint64_t seed, ops, every;
    unsigned jobs;
    const char *resume;
    bool quiet;
    uint64_t only; /* 0: all */
    unsigned only_phase, only_model;
};

struct child {
    pid_t pid;
    struct points_point point;
    unsigned model;
};

static struct options options;
static struct child live[POINTS_JOBS_MAX];
static unsigned live_count;
static uint64_t done, saved, children, violations, sampled[POINTS_KINDS], tried[POINTS_KINDS];
static struct child running; /* in a child: what it tries */

static const char *const model_names[MODELS] = {"nothing", "everything", "random", "prefix"};

static const char usage[] =
    "Usage: cfs-repl-sim points [--ops N] [--every K] [--seed S] [--jobs J] [--resume FILE]\n"
    "                           [--only NUMBER:PHASE:MODEL] [--quiet]\n"
    "Crashes a site before, amid and after every op of a run of N ops (or every K-th), under each\n"
    "of four models of what survives, and checks what becomes of it.\n";

/* ---- children ---- */

static void print_repeat(const struct child *child)
{
    fprintf(stderr,
            "  at %s of site %u; repeat: cfs-repl-sim points --seed %" PRIu64 " --ops %" PRIu64
            " --only %" PRIu64 ":%s:%s\n",
            points_kind_name(child->point.kind), child->point.site + 1, options.seed, options.ops,
            child->point.number, cfsr_sim_phase_name(child->point.phase),
            model_names[child->model]);
}

static void fail_child(struct cluster *cluster, const char *check, const char *text)
{
    (void)cluster;
    fprintf(stderr, "violation: point %" PRIu64 " (%s %s, %s survives): %s: %s\n",
            running.point.number, cfsr_sim_phase_name(running.point.phase),
            points_kind_name(running.point.kind), model_names[running.model], check, text);
    fflush(NULL);
    _exit(3);
}

static void fail_reference(struct cluster *cluster, const char *check, const char *text)
{
    (void)cluster;
    fprintf(stderr, "violation: the reference run itself, seed %" PRIu64 ": %s: %s\n", options.seed,
            check, text);
    fflush(NULL);
    _exit(1);
}

static void reap(void)
{
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    unsigned i = 0;

    while (i < live_count && live[i].pid != pid)
        i++;
    if (i == live_count)
        return;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        violations++;
        if (WIFSIGNALED(status))
            fprintf(stderr, "violation: point %" PRIu64 ": %s\n", live[i].point.number,
                    strsignal(WTERMSIG(status)));
        print_repeat(&live[i]);
    }
    live[i] = live[--live_count];
}

static _Noreturn void run_child(struct points_world *world)
{
    uint64_t mix = running.point.number * 31 + running.point.phase * 7 + running.model;

    cluster_failure = fail_child;
    (void)alarm(CHILD_SECONDS);
    points_world_crash(world, &running.point, (enum cfsr_persistence)running.model,
                       sim_random(&mix) % 8 == 0);
    _exit(0);
}

static void spawn(struct points_world *world, const struct points_point *point, unsigned model)
{
    struct child child = {.point = *point, .model = model};

    while (live_count >= options.jobs)
        reap();
    if (violations >= VIOLATIONS_MAX)
        return;
    child.pid = fork();
    if (child.pid == 0) {
        running = child;
        run_child(world);
    }
    if (child.pid < 0) {
        fprintf(stderr, "cfs-repl-sim points: cannot fork: %s\n", cfsr_strerror(-errno));
        exit(2);
    }
    live[live_count++] = child;
    children++;
    tried[point->kind]++;
}

/* ---- progress ---- */

static void save(uint64_t number)
{
    char path[1100];
    FILE *file;

    while (live_count > 0)
        reap();
    saved = number;
    if (!options.quiet)
        fprintf(stderr,
                "points: %" PRIu64 " of %" PRIu64 ", %" PRIu64 " crashes, %" PRIu64 " violations\n",
                number, options.ops, children, violations);
    if (options.resume == NULL)
        return;
    (void)snprintf(path, sizeof path, "%s.new", options.resume);
    file = fopen(path, "w");
    if (file == NULL ||
        fprintf(file,
                "cfs-repl-sim points seed %" PRIu64 " ops %" PRIu64 " every %" PRIu64
                " done %" PRIu64 " crashes %" PRIu64 " violations %" PRIu64 "\n",
                options.seed, options.ops, options.every, number, children, violations) < 0)
        fprintf(stderr, "cfs-repl-sim points: cannot write %s\n", path);
    for (unsigned kind = 0; file != NULL && kind < POINTS_KINDS; kind++)
        fprintf(file, "%" PRIu64 " %" PRIu64 "\n", sampled[kind], tried[kind]);
    if (file != NULL && (fclose(file) != 0 || rename(path, options.resume) != 0))
        fprintf(stderr, "cfs-repl-sim points: cannot write %s\n", options.resume);
}

static bool restore(void)
{
    FILE *file = options.resume == NULL ? NULL : fopen(options.resume, "r");
    uint64_t seed, ops, every;
    bool good;

    if (file == NULL)
        return true;
    good = fscanf(file,
                  "cfs-repl-sim points seed %" SCNu64 " ops %" SCNu64 " every %" SCNu64
                  " done %" SCNu64 " crashes %" SCNu64 " violations %" SCNu64 "\n",
                  &seed, &ops, &every, &done, &children, &violations) == 6 &&
           seed == options.seed && ops == options.ops && every == options.every;
    for (unsigned kind = 0; good && kind < POINTS_KINDS; kind++)
        good = fscanf(file, "%" SCNu64 " %" SCNu64 "\n", &sampled[kind], &tried[kind]) == 2;
    fclose(file);
    saved = done;
    return good;
}

static void at_point(struct points_world *world, const struct points_point *point)
{
    if (options.only != 0) {
        if (point->number != options.only || (unsigned)point->phase != options.only_phase)
            return;
        running = (struct child){.point = *point, .model = options.only_model};
        print_repeat(&running);
        run_child(world);
    }
    if (point->number <= done || point->number > options.ops ||
        point->number % options.every != options.seed % options.every)
        return;
    if (point->phase == CFSR_SIM_BEFORE) {
        if (point->number > saved + SAVE_EVERY)
            save(point->number - 1);
        sampled[point->kind]++;
    }
    for (unsigned model = 0; model < MODELS; model++)
        spawn(world, point, model);
}

/* ---- the command ---- */

static bool number_of(const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == '\0';
}

static bool parse_only(const char *text)
{
    char phase[16], model[16];

    if (sscanf(text, "%" SCNu64 ":%15[a-z]:%15[a-z]", &options.only, phase, model) != 3)
        return false;
    for (options.only_phase = 0; options.only_phase < 3; options.only_phase++)
        if (strcmp(phase, cfsr_sim_phase_name((enum cfsr_sim_phase)options.only_phase)) == 0)
            break;
    for (options.only_model = 0; options.only_model < MODELS; options.only_model++)
        if (strcmp(model, model_names[options.only_model]) == 0)
            break;
    return options.only != 0 && options.only_phase < 3 && options.only_model < MODELS;
}

static bool parse(int argc, char **argv)
{
    static const struct option names[] = {
        {"ops", required_argument, NULL, 'o'},
        {"every", required_argument, NULL, 'e'},
        {"seed", required_argument, NULL, 's'},
        {"jobs", required_argument, NULL, 'j'},
        {"only", required_argument, NULL, 'n'},
        {"resume", required_argument, NULL, 'r'},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    uint64_t jobs = 1;
    bool good = true;
    int letter;

    options = (struct options){.seed = 1, .ops = 10000, .every = 1};
    optind = 1;
    while (good && (letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (letter) {
        case 'o': good = number_of(optarg, &options.ops) && options.ops > 0; break;
        case 'e': good = number_of(optarg, &options.every) && options.every > 0; break;
        case 's': good = number_of(optarg, &options.seed); break;
        case 'j': good = number_of(optarg, &jobs) && jobs >= 1 && jobs <= POINTS_JOBS_MAX; break;
        case 'n': good = parse_only(optarg); break;
        case 'r': options.resume = optarg; break;
        case 'q': options.quiet = true; break;
        default: good = false;
        }
    }
    options.jobs = (unsigned)jobs;
    return good && optind == argc && restore();
}

static void print_table(const struct points_world *world)
{
    uint64_t points = 0;

    printf("%-16s %10s %10s %14s\n", "op", "in the run", "tried", "crashes");
    for (unsigned kind = 0; kind < POINTS_KINDS; kind++) {
        printf("%-16s %10" PRIu64 " %10" PRIu64 " %14" PRIu64 "\n", points_kind_name(kind),
               world->seen[kind], sampled[kind], tried[kind]);
        points += sampled[kind];
    }
    printf("points %" PRIu64 " x phases 3 x models %u = %" PRIu64 " crashes, violations %" PRIu64
           "\n",
           points, MODELS, children, violations);
}

static int run_points(int argc, char **argv)
{
    static struct points_world world;

    if (!parse(argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    cfsr_log_configure((enum cfsr_log_level)(CFSR_LOG_ERROR + 1), CFSR_LOG_LOGFMT);
    cluster_failure = fail_reference;
    cluster_keep_memory();
    world.at_point = at_point;
    points_world_run(&world, options.seed, options.ops);
    if (options.only != 0) {
        fprintf(stderr, "cfs-repl-sim points: there is no point %" PRIu64 "\n", options.only);
        return 2;
    }
    save(options.ops);
    print_table(&world);
    return violations == 0 ? 0 : 1;
}

bool sim_points_is_mode(const char *name)
{
    return strcmp(name, "points") == 0 || strcmp(name, "torn") == 0 || strcmp(name, "flips") == 0;
}

int sim_points_main(int argc, char **argv)
{
    if (strcmp(argv[0], "torn") == 0)
        return sim_torn_main(argc, argv);
    if (strcmp(argv[0], "flips") == 0)
        return sim_flips_main(argc, argv);
    return run_points(argc, argv);
}
