/*
 * main.c - cfs-repl-sim: the simulator's command line.
 *
 * Thread: the main thread; runs are processes of their own (campaign.c). The first word chooses:
 * points, torn and flips are the enumerating modes (points.h), anything else is a run of seeds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "campaign.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "self_test.h"
#ifdef CFSR_SIM_POINTS
#include "points.h"
#endif

#define MINUTE_US 60000000ull
#define SHOWN_MAX 3 /* failures that are shrunk */

struct sim_options {
    uint64_t seed, count;
    char seeds[64];
    uint32_t sites;
    uint64_t minutes, seconds;
    uint32_t jobs;
    char state[CFSR_PATH_MAX];
    char faults[512];
    char keep[4096];
    int broken;
    uint32_t shrink_seconds;
    uint32_t failures;
    bool plain, verbose, trace, digest, json, self_test, quiet;
};

static const char *const break_names[] = {
#define X(name, text) #name,
    SIM_BREAKS(X)
#undef X
        NULL,
};

#define ROW(key, kind_, help_, ...)                                                             \
    {                                                                                           \
        .name = key, .kind = CFSR_OPTION_##kind_, .help = help_, .flag_only = true, __VA_ARGS__ \
    }
#define AT(member) CFSR_OPTION_FIELD(struct sim_options, member)

static const struct cfsr_option rows[] = {
    ROW("seed", COUNT, "Run this seed alone.", .value_name = "N", .group = "What is run", AT(seed)),
    ROW("seeds", TEXT, "Run a range of seeds.", .value_name = "FIRST..LAST", .group = "What is run",
        AT(seeds)),
    ROW("count", COUNT, "Run so many seeds from 1 on.", .value_name = "N", .group = "What is run",
        AT(count)),
    ROW("sites", COUNT, "Sites.", .value_name = "N", .group = "What is run", .default_text = "0",
        .max = SITES_MAX, .zero_means = "2 to 5, drawn from the seed", AT(sites)),
    ROW("minutes", COUNT, "Virtual minutes with traffic and faults, before the run comes to rest.",
        .value_name = "N", .group = "What is run", .default_text = "1", .max = 100000, AT(minutes)),
    ROW("seconds", COUNT, "The same in seconds, for shorter runs.", .value_name = "N",
        .group = "What is run", .max = 6000000, AT(seconds)),
    ROW("faults", TEXT,
        "Kinds of faults that may happen, separated by commas: names as below, all, none, "
        "damage (bit_flip to misdirect); "
        "read_error only by its name; a name after a dash is taken away.",
        .value_name = "LIST", .group = "What is run", .default_text = "all", AT(faults)),
    ROW("keep", TEXT, "Only these faults of the seed's plan, by number, or none.",
        .value_name = "LIST", .group = "What is run", AT(keep)),
    ROW("plain", BOOL,
        "One way between sites and nothing sealed: what a seed meant before there was a choice.",
        .group = "What is run", AT(plain)),
    ROW("break", ENUM, "Break something on purpose, to see it found.", .value_name = "WHAT",
        .group = "What is run", .default_text = "none", .choices = break_names, AT(broken)),
    ROW("self-test", BOOL,
        "Break everything that can be, one after another; fail if one is missed.",
        .group = "What is run", AT(self_test)),
    ROW("jobs", COUNT, "Processes.", .value_name = "N", .group = "How", .default_text = "0",
        .max = 64, .zero_means = "one a processor", AT(jobs)),
    ROW("state", TEXT, "Keep progress in FILE, and go on from it.", .value_name = "FILE",
        .group = "How", AT(state)),
    ROW("failures", COUNT, "Stop after so many failed runs.", .value_name = "N", .group = "How",
        .default_text = "8", .min = 1, .max = SIM_FAILURES_MAX, AT(failures)),
    ROW("shrink-seconds", COUNT, "Look for a shorter way to each failure for so long.",
        .value_name = "N", .group = "How", .default_text = "30", .max = 3600, AT(shrink_seconds)),
    ROW("verbose", BOOL, "Print the plan of a seed, and what happens.", .group = "Output",
        AT(verbose)),
    ROW("trace", BOOL, "The same as --verbose.", .group = "Output", AT(trace)),
    ROW("digest", BOOL, "Print the digest of all events: equal for equal seeds and sources.",
        .group = "Output", AT(digest)),
    ROW("json", BOOL, "Print the result as one JSON object.", .group = "Output", AT(json)),
    ROW("quiet", BOOL, "No progress line.", .group = "Output", AT(quiet)),
};

static const struct cfsr_option_set set = {
    .program = "cfs-repl-sim",
    .command = "",
    .synopsis = "[--seed N | --seeds FIRST..LAST | --count N] [--sites N] [--minutes N] [--jobs N]",
    .summary =
        "Runs the daemon's cores, the journal and the inbox of several sites on simulated disks "
        "and a simulated network, under virtual time, in one thread a run. Topology, options, "
        "traffic and faults all come from the seed. Every step is checked; when the faults end, "
        "every link must be caught up within a bound, and every site must hold what was appended, "
        "once, in order, with the same bytes. Exit 0 if every run held, 1 if one did not.",
    .epilogue = "Kinds of faults:\n"
#define X(name, text) "  " #name ": " text "\n"
    SIM_FAULT_KINDS(X)
#undef X
        "Things to break:\n"
#define X(name, text) "  " #name ": " text "\n"
    SIM_BREAKS(X)
#undef X
        "The bound of the rest: twice (progress timeout + hello timeout + 1.5 x longest "
        "back-off)\n+ fault retry + 10 s + a round trip for each batch that is behind.\n",
    .options = rows,
    .count = CFSR_ARRAY_LEN(rows),
};

/* ---- lists ---- */

static int add_faults(const char *word, uint32_t *mask)
{
    bool minus = word[0] == '-';
    uint32_t bits = 0;

    word += minus;
    if (strcmp(word, "all") == 0)
        bits = ((1u << SIM_FAULT_COUNT) - 1) & ~SIM_FAULTS_NAMED_ONLY;
    else if (strcmp(word, "damage") == 0)
        bits = SIM_FAULTS_DAMAGE & ~(minus ? 0 : SIM_FAULTS_NAMED_ONLY);
    else if (strcmp(word, "none") != 0) {
        for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
            if (strcmp(word, sim_fault_name((enum sim_fault_kind)kind)) == 0)
                bits = 1u << kind;
        if (bits == 0)
            return cfsr_fail(-CFSR_E_USAGE, "--faults: no kind is called %s; see --help", word);
    }
    *mask = minus ? *mask & ~bits : *mask | bits;
    return 0;
}

static int parse_faults(const char *list, uint32_t *mask_out)
{
    char copy[512], *rest = copy, *word;
    uint32_t mask = 0;
    int rc = 0;

    snprintf(copy, sizeof copy, "%s", list);
    while (rc == 0 && (word = strsep(&rest, ",")) != NULL)
        rc = add_faults(word, &mask);
    if (rc == 0)
        *mask_out = mask;
    return rc;
}

static int parse_keep(const char *list, uint32_t *numbers_out, unsigned *count_out)
{
    unsigned count = 0;
    char *end;

    for (const char *at = list; strcmp(list, "none") != 0 && *at != '\0'; at = end) {
        unsigned long number = strtoul(at, &end, 10);
        if (end == at || (*end != '\0' && *end != ',') || count == SIM_FAULTS_MAX)
            return cfsr_fail(-CFSR_E_USAGE, "--keep needs numbers separated by commas, or none");
        numbers_out[count++] = (uint32_t)number;
        end += *end == ',';
    }
    *count_out = count;
    return 0;
}

static int parse_range(const struct sim_options *options, uint64_t *first_out, uint64_t *last_out)
{
    char *end;

    *first_out = *last_out = options->seed;
    if (options->count != 0) {
        *first_out = 1;
        *last_out = options->count;
    }
    if (options->seeds[0] != '\0') {
        *first_out = strtoull(options->seeds, &end, 10);
        if (strncmp(end, "..", 2) != 0)
            return cfsr_fail(-CFSR_E_USAGE, "--seeds needs FIRST..LAST, not %s", options->seeds);
        *last_out = strtoull(end + 2, &end, 10);
        if (*end != '\0')
            return cfsr_fail(-CFSR_E_USAGE, "--seeds needs FIRST..LAST, not %s", options->seeds);
    }
    if (*first_out == 0 || *last_out < *first_out)
        return cfsr_fail(-CFSR_E_USAGE,
                         "give a seed above 0 with --seed, a range with --seeds, or --count");
    return 0;
}

/* ---- results ---- */

const char *sim_commit(void)
{
    return CFSR_SIM_COMMIT;
}

static double per_hour(uint64_t count, const struct sim_totals *totals)
{
    double hours = (double)totals->simulated_us / 3.6e9;
    return hours > 0 ? (double)count / hours : 0;
}

static uint64_t events_of(const struct sim_totals *totals)
{
    return totals->deliveries + totals->disk_ops + totals->turns;
}

static uint64_t faults_of(const struct sim_totals *totals)
{
    uint64_t sum = 0;
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        sum += totals->faults[kind];
    return sum;
}

static void print_table(const struct sim_outcome *outcome, bool digest)
{
    const struct sim_totals *t = &outcome->totals;
    double simulated = (double)t->simulated_us / 3.6e9, wall = (double)outcome->wall_us / 3.6e9;

    printf("runs                        %12" PRIu64 "\n", t->runs);
    printf("simulated hours             %12.2f\n", simulated);
    printf("wall hours                  %12.4f\n", wall);
    printf("simulated hours a wall hour %12.0f\n", wall > 0 ? simulated / wall : 0);
    printf("events a simulated hour     %12.0f  (deliveries %.0f, disk %.0f, turns %.0f)\n",
           per_hour(events_of(t), t), per_hour(t->deliveries, t), per_hour(t->disk_ops, t),
           per_hour(t->turns, t));
    printf("entries a simulated hour    %12.0f  (%.1f MiB)\n", per_hour(t->entries, t),
           per_hour(t->bytes, t) / 1048576);
    printf("checked turns, disk audits  %12" PRIu64 "  %" PRIu64 "\n", t->checks, t->audits);
    printf("entries verified            %12" PRIu64 "\n", t->verified_entries);
    printf("rest after the faults       %12.3f s a run\n",
           t->runs > 0 ? (double)t->liveness_us / 1e6 / (double)t->runs : 0);
    printf("faults a simulated hour     %12.0f\n", per_hour(faults_of(t), t));
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        if (t->faults[kind] > 0)
            printf("  %-24s  %12" PRIu64 "  %8.1f an hour\n",
                   sim_fault_name((enum sim_fault_kind)kind), t->faults[kind],
                   per_hour(t->faults[kind], t));
    printf("failures                    %12u\n", outcome->failure_count);
    if (digest)
        printf("digest                      %016" PRIx64 "\n", outcome->digest);
}

static void print_json(const struct sim_outcome *outcome)
{
    const struct sim_totals *t = &outcome->totals;

    printf("{\"commit\":\"%s\",\"runs\":%" PRIu64 ",\"simulated_us\":%" PRIu64
           ",\"wall_us\":%" PRIu64 ",\"events\":%" PRIu64 ",\"deliveries\":%" PRIu64
           ",\"disk_ops\":%" PRIu64 ",\"turns\":%" PRIu64 ",\"entries\":%" PRIu64
           ",\"bytes\":%" PRIu64 ",\"verified_entries\":%" PRIu64 ",\"audits\":%" PRIu64
           ",\"digest\":\"%016" PRIx64 "\",\"faults\":{",
           sim_commit(), t->runs, t->simulated_us, outcome->wall_us, events_of(t), t->deliveries,
           t->disk_ops, t->turns, t->entries, t->bytes, t->verified_entries, t->audits,
           outcome->digest);
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        printf("%s\"%s\":%" PRIu64, kind > 0 ? "," : "", sim_fault_name((enum sim_fault_kind)kind),
               t->faults[kind]);
    printf("},\"failures\":[");
    for (unsigned i = 0; i < outcome->failure_count; i++)
        printf("%s{\"seed\":%" PRIu64 ",\"check\":\"%s\"}", i > 0 ? "," : "",
               outcome->failure[i].seed, outcome->failure[i].check);
    printf("]}\n");
}

/* ---- running ---- */

static int run_verbose(const struct sim_options *options, struct sim_request *request,
                       struct sim_outcome *outcome)
{
    static struct sim_plan plan;
    struct sim_failure failure;

    sim_plan_draw(request, &plan);
    sim_plan_print(&plan, stdout);
    if (!sim_run_apart(request, true, &failure, outcome)) {
        sim_print_failure(&failure, stdout);
        return CFSR_EXIT_FAILED;
    }
    print_table(outcome, options->digest);
    return 0;
}

static int run_campaign(const struct sim_options *options, const struct sim_request *request,
                        uint64_t first, uint64_t last, struct sim_outcome *outcome)
{
    struct sim_campaign campaign = {
        .request = *request,
        .first = first,
        .last = last,
        .jobs = options->jobs,
        .state_path = options->state[0] != '\0' ? options->state : NULL,
        .progress = !options->quiet && !options->json && isatty(STDERR_FILENO) == 1,
        .failures_max = options->failures,
    };
    int rc;

    if (campaign.jobs == 0)
        campaign.jobs = (unsigned)cfsr_max_u64(1, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    campaign.jobs = (unsigned)cfsr_min_u64(campaign.jobs, last - first + 1);
    rc = sim_campaign_run(&campaign, outcome);
    if (rc < 0)
        return rc;
    if (options->json)
        print_json(outcome);
    else
        print_table(outcome, options->digest);
    for (unsigned i = 0; i < outcome->failure_count && !options->json; i++) {
        if (i < SHOWN_MAX && options->shrink_seconds > 0)
            sim_shrink(request, &outcome->failure[i], options->shrink_seconds, stdout);
        else
            sim_print_failure(&outcome->failure[i], stdout);
    }
    if (outcome->next_seed <= last && outcome->failure_count == 0)
        printf("stopped before seed %" PRIu64 "\n", outcome->next_seed);
    return outcome->failure_count > 0 || outcome->next_seed <= last ? CFSR_EXIT_FAILED : 0;
}

static int run_seeds(int argc, char *const *argv)
{
    static struct sim_options options;
    static struct sim_outcome outcome;
    static uint32_t keep[SIM_FAULTS_MAX];
    struct sim_request request = {.keep = keep};
    uint64_t first = 0, last = 0;
    int rc = cfsr_command_options(&set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc > 0 ? 0 : rc;
    request.sites = options.sites == 1 ? 2 : options.sites;
    request.run_us = options.seconds != 0 ? options.seconds * 1000000 : options.minutes * MINUTE_US;
    request.plain = options.plain;
    request.broken = (enum sim_break)options.broken;
    request.keep_given = options.keep[0] != '\0';
    rc = parse_faults(options.faults, &request.faults);
    if (rc == 0 && request.keep_given)
        rc = parse_keep(options.keep, keep, &request.keep_count);
    if (rc == 0 && options.self_test)
        return sim_self_test(&request);
    if (rc == 0)
        rc = parse_range(&options, &first, &last);
    if (rc < 0)
        return rc;
    request.seed = first;
    if ((options.verbose || options.trace) && first == last)
        return run_verbose(&options, &request, &outcome);
    return run_campaign(&options, &request, first, last, &outcome);
}

int main(int argc, char **argv)
{
    int rc;

#ifdef CFSR_SIM_POINTS
    if (argc > 1 && sim_points_is_mode(argv[1]))
        return sim_points_main(argc - 1, argv + 1);
#endif
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        cfsr_print_version("cfs-repl-sim");
        return 0;
    }
    rc = run_seeds(argc - 1, argv + 1);
    if (rc >= 0)
        return rc;
    fprintf(stderr, "cfs-repl-sim: %s\n", cfsr_error_message());
    return cfsr_exit_code(rc);
}
