/*
 * cmd_dump.c - `journal dump`, `journal tail`, `inbox dump`, `inbox tail`: records for people and
 * as JSON lines.
 *
 * Thread: the main thread. A tail ends on SIGINT or SIGTERM with exit code 0, what was shown
 * committed for its consumer.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "cli/command.h"
#include "cli/json_record.h"
#include "cli/stream.h"
#include "cli/text_record.h"

#define FOLLOW_WAIT_MS 200
#define COMMIT_EVERY   1024 /* records shown between two commits of a consumer */

struct dump_options {
    char data_dir[CFSR_PATH_MAX];
    uint64_t site;
    uint32_t lane;
    uint64_t from;
    uint64_t limit;
    bool all;
    bool json;
    bool follow;
    char consumer[64];
};

/* "any" or a lane number: 0 is a lane. */
static int set_lane(void *field, const char *text)
{
    uint32_t lane = 0;

    if (text[0] == '\0' || strlen(text) > 2 || strspn(text, "0123456789") != strlen(text))
        return cfsr_fail(-CFSR_E_USAGE, "'%s' is not a lane: give 0 to %d", text,
                         CFSR_LANES_MAX - 1);
    for (; *text != '\0'; text++)
        lane = lane * 10 + (uint32_t)(*text - '0');
    lane += 1; /* 0: not given */
    memcpy(field, &lane, sizeof lane);
    return 0;
}

static bool show_lane(const void *field, unsigned index, char *text_out, size_t len_bytes)
{
    uint32_t lane;

    memcpy(&lane, field, sizeof lane);
    if (index > 0 || lane == 0)
        return false;
    snprintf(text_out, len_bytes, "%u", lane - 1);
    return true;
}

#define ROW_LANE                                                                           \
    {                                                                                      \
        .name = "lane", .value_name = "K", .group = "Options", .kind = CFSR_OPTION_CUSTOM, \
        .set = set_lane, .show = show_lane,                                                \
        .help = "Only this lane. Without it all lanes, merged in order of time.",          \
        CFSR_OPTION_FIELD(struct dump_options, lane)                                       \
    }
#define ROW_SITE(text)                                                                     \
    {                                                                                      \
        .name = "site", .value_name = "ID", .group = "Options", .kind = CFSR_OPTION_COUNT, \
        .help = text, CFSR_OPTION_FIELD(struct dump_options, site)                         \
    }
#define ROW_ALL                                                              \
    {                                                                        \
        .name = "all", .group = "Options", .kind = CFSR_OPTION_BOOL,         \
        .help = "Show the journal's own records too: MARK, SHARDS and PAD.", \
        CFSR_OPTION_FIELD(struct dump_options, all)                          \
    }
#define ROW_LIMIT                                                                          \
    {                                                                                      \
        .name = "limit", .value_name = "N", .group = "Options", .kind = CFSR_OPTION_COUNT, \
        .default_text = "0", .zero_means = "all", .help = "Stop after N records.",         \
        CFSR_OPTION_FIELD(struct dump_options, limit)                                      \
    }
#define ROW_FOLLOW                                                      \
    {                                                                   \
        .name = "follow", .group = "Options", .kind = CFSR_OPTION_BOOL, \
        .help = "Go on as records come, until interrupted.",            \
        CFSR_OPTION_FIELD(struct dump_options, follow)                  \
    }
#define ROW_CONSUMER                                                                            \
    {                                                                                           \
        .name = "consumer", .value_name = "NAME", .group = "Options", .kind = CFSR_OPTION_TEXT, \
        .help = "Read as this consumer: go on where it stopped, and remember where it stops.",  \
        CFSR_OPTION_FIELD(struct dump_options, consumer)                                        \
    }

static const struct cfsr_option dump_rows[] = {
    CFSR_DATA_DIR_OPTION(struct dump_options),
    ROW_SITE("Records of this origin: the own site's journal (default), another's from the inbox."),
    ROW_LANE,
    {.name = "from",
     .value_name = "LSN",
     .group = "Options",
     .kind = CFSR_OPTION_COUNT,
     .default_text = "0",
     .help = "Begin at this position or the first record after it; with --lane.",
     CFSR_OPTION_FIELD(struct dump_options, from)},
    ROW_LIMIT,
    ROW_ALL,
    CFSR_JSON_OPTION(struct dump_options),
};
static const struct cfsr_option tail_rows[] = {
    CFSR_DATA_DIR_OPTION(struct dump_options), ROW_LANE, ROW_LIMIT, ROW_ALL, ROW_FOLLOW,
    CFSR_JSON_OPTION(struct dump_options),
};
static const struct cfsr_option inbox_dump_rows[] = {
    CFSR_DATA_DIR_OPTION(struct dump_options),
    ROW_SITE("Only records of this origin."),
    ROW_LANE,
    ROW_LIMIT,
    ROW_ALL,
    ROW_CONSUMER,
    CFSR_JSON_OPTION(struct dump_options),
};
static const struct cfsr_option inbox_tail_rows[] = {
    CFSR_DATA_DIR_OPTION(struct dump_options),
    ROW_SITE("Only records of this origin."),
    ROW_LANE,
    ROW_LIMIT,
    ROW_ALL,
    ROW_CONSUMER,
    ROW_FOLLOW,
    CFSR_JSON_OPTION(struct dump_options),
};

static const struct cfsr_option_set dump_set = {
    .program = "cfs-repl",
    .command = "journal dump",
    .synopsis = "--data-dir DIR [--site ID] [--lane K] [--from LSN] [--limit N] [--json]",
    .summary = "Prints the records of a journal. JSON lines can be given to 'journal append'.",
    .options = dump_rows,
    .count = CFSR_ARRAY_LEN(dump_rows),
};
static const struct cfsr_option_set tail_set = {
    .program = "cfs-repl",
    .command = "journal tail",
    .synopsis = "--data-dir DIR [--follow] [--lane K] [--json]",
    .summary = "Prints the last records of the journal, and goes on as they come with --follow.",
    .options = tail_rows,
    .count = CFSR_ARRAY_LEN(tail_rows),
};
static const struct cfsr_option_set inbox_dump_set = {
    .program = "cfs-repl",
    .command = "inbox dump",
    .synopsis = "--data-dir DIR [--site ID] [--consumer NAME] [--json]",
    .summary = "Prints the records that other sites sent, in apply order.",
    .options = inbox_dump_rows,
    .count = CFSR_ARRAY_LEN(inbox_dump_rows),
};
static const struct cfsr_option_set inbox_tail_set = {
    .program = "cfs-repl",
    .command = "inbox tail",
    .synopsis = "--data-dir DIR [--follow] [--consumer NAME] [--json]",
    .summary =
        "Prints the last records that other sites sent, and goes on as they come with --follow.",
    .options = inbox_tail_rows,
    .count = CFSR_ARRAY_LEN(inbox_tail_rows),
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void stop_on_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static int print_record(const struct dump_options *options, const struct cfsr_stream_record *record)
{
    int rc = options->json ? cfsr_json_record_print(stdout, record->lane, record->lsn,
                                                    &record->header, record->payload)
                           : cfsr_text_record_print(stdout, record->lane, record->lsn,
                                                    &record->header, record->payload);

    if (rc < 0 && errno == EPIPE) {
        stopped = 1;
        return 0;
    }
    return rc < 0 ? cfsr_fail(-EIO, "cannot write to standard output: %s", cfsr_strerror(-errno))
                  : 0;
}

/* Shows records until the end, the limit, or a signal; skip: this many are passed over first. */
static int show(struct cfsr_stream *stream, const struct dump_options *options, uint64_t skip)
{
    struct cfsr_stream_record record;
    uint64_t shown = 0;
    int rc = 0;

    while (rc == 0 && !stopped && (options->limit == 0 || shown < options->limit)) {
        rc = cfsr_stream_next(stream, options->follow ? FOLLOW_WAIT_MS : 0, &record);
        if (rc < 0 || (rc == 0 && !options->follow))
            break;
        if (rc == 0) {
            (void)fflush(stdout);
            rc = cfsr_stream_commit(stream);
            continue;
        }
        rc = 0;
        if (skip > 0) {
            skip--;
            continue;
        }
        if (record.lsn < options->from)
            continue;
        rc = print_record(options, &record);
        if (rc == 0 && ++shown % COMMIT_EVERY == 0 && fflush(stdout) == 0)
            rc = cfsr_stream_commit(stream);
    }
    if (rc == 0 && fflush(stdout) == 0)
        rc = cfsr_stream_commit(stream);
    return rc;
}

static int open_stream(const struct dump_options *options, const struct cfsr_site *site, bool inbox,
                       bool follow, struct cfsr_stream **stream_out)
{
    const struct cfsr_stream_options stream = {
        .site = site,
        .origin = options->site,
        .lane = options->lane == 0 ? CFSR_STREAM_ALL_LANES : options->lane - 1,
        .all_records = options->all,
        .follow = follow,
        .consumer = inbox && options->consumer[0] != '\0' ? options->consumer : NULL,
        .inbox = inbox,
    };

    if (options->lane > site->lanes)
        return cfsr_fail(-CFSR_E_USAGE, "--lane: there is no lane %u: this site has %u, from 0",
                         options->lane - 1, site->lanes);
    return cfsr_stream_open(&stream, stream_out);
}

/* A tail without a consumer begins ten records before the end, as tail(1): count, then pass over.
 */
static int tail_skip(const struct dump_options *options, const struct cfsr_site *site, bool inbox,
                     uint64_t *skip_out)
{
    struct cfsr_stream *stream;
    struct cfsr_stream_record record;
    uint64_t count = 0;
    int rc;

    *skip_out = 0;
    if (options->consumer[0] != '\0')
        return 0;
    rc = open_stream(options, site, inbox, false, &stream);
    if (rc < 0)
        return rc;
    while (!stopped && (rc = cfsr_stream_next(stream, 0, &record)) == 1)
        count++;
    cfsr_stream_close(stream);
    *skip_out = count > 10 ? count - 10 : 0;
    return rc < 0 ? rc : 0;
}

static int run(const struct cfsr_option_set *set, bool inbox, bool tail, int argc,
               char *const *argv)
{
    struct dump_options options;
    struct cfsr_site site;
    struct cfsr_stream *stream;
    uint64_t skip = 0;
    int rc = cfsr_command_options(set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (options.from != 0 && options.lane == 0)
        return cfsr_fail(-CFSR_E_USAGE, "--from: a position belongs to a lane: give --lane too");
    stop_on_signals();
    rc = cfsr_command_site(options.data_dir, &site);
    if (rc < 0)
        return rc;
    if (!inbox && options.site == 0)
        options.site = site.site_id;
    rc = tail ? tail_skip(&options, &site, inbox, &skip) : 0;
    if (rc == 0)
        rc = open_stream(&options, &site, inbox, options.follow, &stream);
    if (rc < 0)
        return rc;
    if (!options.json)
        cfsr_text_record_heading(stdout);
    rc = show(stream, &options, skip);
    cfsr_stream_close(stream);
    return rc;
}

static int dump_run(int argc, char *const *argv)
{
    return run(&dump_set, false, false, argc, argv);
}

static int tail_run(int argc, char *const *argv)
{
    return run(&tail_set, false, true, argc, argv);
}

static int inbox_dump_run(int argc, char *const *argv)
{
    return run(&inbox_dump_set, true, false, argc, argv);
}

static int inbox_tail_run(int argc, char *const *argv)
{
    return run(&inbox_tail_set, true, true, argc, argv);
}

const struct cfsr_command cfsr_command_journal_dump = {.set = &dump_set, .run = dump_run};
const struct cfsr_command cfsr_command_journal_tail = {.set = &tail_set, .run = tail_run};
const struct cfsr_command cfsr_command_inbox_dump = {.set = &inbox_dump_set, .run = inbox_dump_run};
const struct cfsr_command cfsr_command_inbox_tail = {.set = &inbox_tail_set, .run = inbox_tail_run};
