/*
 * admin_scrub.c - `cfs admin replication scrub`: has the daemon check and repair what rests on its
 * disk, and shows what came of it.
 *
 * Thread: the main thread. The scrub runs in the daemon, throttled; waiting is asking for its
 * status until the run that was asked for is over.
 */
#include "cli/admin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/admin_options.h"
#include "control/serve_config.h"

#define POLL_EVERY_MS 100

static uint64_t count_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL && text[0] != '\0' ? text : "-";
}

/* ---- asking ---- */

static int begin(const char *socket_path, const struct cfsr_admin_scrub *scrub, json_t **answer_out)
{
    json_t *request = json_pack("{s:s,s:s}", "command", "scrub", "parts", scrub->parts);
    char *text, line[256];

    if (request != NULL && scrub->lane >= 0)
        json_object_set_new(request, "lane", json_integer(scrub->lane));
    if (request != NULL && scrub->rate_given)
        json_object_set_new(request, "rate", json_integer((json_int_t)scrub->rate_bytes_per_s));
    text = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    if (text == NULL)
        return -ENOMEM;
    snprintf(line, sizeof line, "%s\n", text);
    free(text);
    return cfsr_admin_ask(socket_path, line, answer_out);
}

int cfsr_admin_scrub(const char *socket_path, const struct cfsr_admin_scrub *scrub,
                     json_t **answer_out)
{
    const struct timespec pause = {.tv_nsec = POLL_EVERY_MS * 1000000L};
    uint64_t begin_ns = cfsr_clock_monotonic_ns();
    json_t *answer = NULL;
    int rc = begin(socket_path, scrub, &answer);

    if (rc < 0)
        return rc;
    uint64_t run = count_of(answer, "run");
    if (!scrub->wait) {
        *answer_out = answer;
        return 0;
    }
    json_decref(answer);
    for (;;) {
        rc = cfsr_admin_ask(socket_path, "{\"command\":\"status\"}\n", &answer);
        if (rc < 0)
            return rc;
        const json_t *state = json_object_get(answer, "scrub");
        if (count_of(state, "run_finished") >= run) {
            *answer_out = answer;
            return 0;
        }
        json_decref(answer);
        if (scrub->timeout_ms != 0 &&
            cfsr_clock_monotonic_ns() - begin_ns >= scrub->timeout_ms * 1000000ull)
            return cfsr_fail(-CFSR_E_TIMEOUT,
                             "the scrub is not over after %" PRIu64
                             " ms: it goes on; see 'cfs admin replication status --json'",
                             scrub->timeout_ms);
        (void)nanosleep(&pause, NULL);
    }
}

/* ---- showing ---- */

uint64_t cfsr_admin_scrub_open(const json_t *status)
{
    const json_t *lanes = json_object_get(json_object_get(status, "scrub"), "lanes"), *lane;
    uint64_t open = 0;
    size_t i;

    json_array_foreach(lanes, i, lane)
    {
        open += count_of(lane, "unrepairable") + count_of(lane, "waiting") +
                count_of(lane, "windows_different");
        open += strcmp(text_of(lane, "error"), "-") != 0;
    }
    return open;
}

static void print_lane(const json_t *lane, FILE *out)
{
    char bytes[32];

    fprintf(out,
            "%4" PRIu64 " %11s %9" PRIu64 " %9" PRIu64 " %7" PRIu64 " %8" PRIu64 " %12" PRIu64
            " %7" PRIu64 "  %-20s %s\n",
            count_of(lane, "lane"), cfsr_format_bytes(count_of(lane, "bytes"), bytes, sizeof bytes),
            count_of(lane, "windows_compared"), count_of(lane, "windows_different"),
            count_of(lane, "found"), count_of(lane, "repaired"), count_of(lane, "unrepairable"),
            count_of(lane, "waiting"), text_of(lane, "finished"),
            strcmp(text_of(lane, "error"), "-") != 0 ? text_of(lane, "error") : "");
}

void cfsr_admin_print_scrub(const json_t *status, FILE *out)
{
    const json_t *scrub = json_object_get(status, "scrub"), *element;
    const json_t *findings = json_object_get(scrub, "findings");
    size_t i;

    fprintf(out, "%4s %11s %9s %9s %7s %8s %12s %7s  %-20s %s\n", "LANE", "CHECKED", "COMPARED",
            "DIFFERENT", "DAMAGED", "REPAIRED", "UNREPAIRABLE", "WAITING", "FINISHED", "ERROR");
    json_array_foreach(json_object_get(scrub, "lanes"), i, element) print_lane(element, out);
    if (json_array_size(findings) == 0)
        return;
    fprintf(out, "\n%-27s %-15s %-12s %4s %6s  %s\n", "TIME", "DAMAGE", "OUTCOME", "LANE", "SITE",
            "RANGE, REASON");
    json_array_foreach(findings, i, element)
    {
        fprintf(out, "%-27s %-15s %-12s %4" PRIu64 " %6" PRIu64 "  [%" PRIu64 ", %" PRIu64 ") %s\n",
                text_of(element, "time"), text_of(element, "what"), text_of(element, "outcome"),
                count_of(element, "lane"), count_of(element, "site"), count_of(element, "lsn_from"),
                count_of(element, "lsn_to"),
                strcmp(text_of(element, "reason"), "-") != 0 ? text_of(element, "reason") : "");
    }
}

/* ---- the command ---- */

struct scrub_options {
    char data_dir[CFSR_PATH_MAX];
    char socket[CFSR_SOCKET_PATH_MAX];
    char lane[8], rate[32];
    bool json, journal_only, inbox_only, wait;
    uint64_t timeout_ms;
};

static const struct cfsr_option rows[] = {
    CFSR_ADMIN_ROWS(struct scrub_options),
    {.name = "lane",
     .value_name = "N",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "This lane only.",
     CFSR_OPTION_FIELD(struct scrub_options, lane)},
    {.name = "journal-only",
     .group = "Options",
     .kind = CFSR_OPTION_BOOL,
     .help = "Check this site's own journal only.",
     CFSR_OPTION_FIELD(struct scrub_options, journal_only)},
    {.name = "inbox-only",
     .group = "Options",
     .kind = CFSR_OPTION_BOOL,
     .help = "Check the inbox only.",
     CFSR_OPTION_FIELD(struct scrub_options, inbox_only)},
    {.name = "rate",
     .value_name = "SIZE",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "Bytes a second each core reads at most; 0: unlimited. Default: the daemon's "
             "--scrub-rate.",
     CFSR_OPTION_FIELD(struct scrub_options, rate)},
    {.name = "wait",
     .group = "Options",
     .kind = CFSR_OPTION_BOOL,
     .help = "Wait until it is over and show what came of it. Exit code 1 if damage is left.",
     CFSR_OPTION_FIELD(struct scrub_options, wait)},
    {.name = "timeout",
     .value_name = "TIME",
     .group = "Options",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .max = 30ull * 86400 * 1000,
     .default_text = "0s",
     .zero_means = "none",
     .help = "With --wait: give up after this time, with exit code 75; the scrub goes on.",
     CFSR_OPTION_FIELD(struct scrub_options, timeout_ms)},
};

static const struct cfsr_option_set scrub_set = {
    .program = "cfs",
    .command = "admin replication scrub",
    .synopsis = "[--lane N] [--journal-only | --inbox-only] [--rate SIZE] [--wait] [--timeout "
                "TIME] [--data-dir DIR | --socket PATH] [--json]",
    .summary = "Has the running daemon check its journal and inbox against damage, compare its "
               "journal with every connected peer's copy, and repair what is damaged from peers "
               "that hold it.",
    .options = rows,
    .count = CFSR_ARRAY_LEN(rows),
};

static int fill_request(const struct scrub_options *options, struct cfsr_admin_scrub *scrub_out)
{
    struct cfsr_admin_scrub scrub = {.lane = -1,
                                     .parts = options->journal_only ? "journal"
                                              : options->inbox_only ? "inbox"
                                                                    : "all",
                                     .wait = options->wait,
                                     .timeout_ms = options->timeout_ms};
    char *end;

    if (options->journal_only && options->inbox_only)
        return cfsr_fail(-CFSR_E_USAGE, "--journal-only and --inbox-only: give one of them");
    if (options->lane[0] != '\0') {
        unsigned long lane = strtoul(options->lane, &end, 10);
        if (*end != '\0' || options->lane[0] < '0' || options->lane[0] > '9' ||
            lane >= CFSR_LANES_MAX)
            return cfsr_fail(-CFSR_E_USAGE, "--lane %s: is no lane number", options->lane);
        scrub.lane = (int)lane;
    }
    if (options->rate[0] != '\0') {
        int rc = cfsr_parse_size(options->rate, &scrub.rate_bytes_per_s);
        if (rc < 0 || scrub.rate_bytes_per_s > INT64_MAX)
            return cfsr_fail(-CFSR_E_USAGE, "--rate %s: is no size: 0, 4096, 64MiB, 1GiB",
                             options->rate);
        scrub.rate_given = true;
    }
    *scrub_out = scrub;
    return 0;
}

static int show(const struct scrub_options *options, const json_t *answer)
{
    uint64_t open = options->wait ? cfsr_admin_scrub_open(answer) : 0;
    int rc = 0;

    if (options->json)
        rc = cfsr_admin_print_answer(options->wait ? json_object_get(answer, "scrub") : answer);
    else if (options->wait)
        cfsr_admin_print_scrub(answer, stdout);
    else
        printf("scrub %" PRIu64 " begins; 'cfs admin replication scrub --wait' waits for its end, "
               "'status --json' shows it\n",
               count_of(answer, "run"));
    if (rc < 0 || open == 0)
        return rc;
    return cfsr_fail(-CFSR_E_DAMAGED,
                     "damage or differences are left: see above; what waits for a peer is repaired "
                     "when it is back");
}

static int scrub_run(int argc, char *const *argv)
{
    struct scrub_options options;
    struct cfsr_admin_scrub scrub;
    char path[CFSR_SOCKET_TEXT_MAX];
    json_t *answer;
    int rc = cfsr_command_options(&scrub_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = fill_request(&options, &scrub);
    if (rc == 0)
        rc = cfsr_admin_socket_path(options.socket, options.data_dir, path);
    if (rc == 0)
        rc = cfsr_admin_scrub(path, &scrub, &answer);
    if (rc < 0)
        return rc;
    rc = show(&options, answer);
    json_decref(answer);
    return rc;
}

const struct cfsr_command cfsr_command_replication_scrub = {.set = &scrub_set, .run = scrub_run};
