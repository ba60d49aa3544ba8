/*
 * cmd_import.c - `cfs-repl journal import` and `cfs-repl journal append`: entries from a tar, from
 * a file of JSON lines, from standard input.
 *
 * Thread: the main thread. Import stages entries and waits once at the end: its unit of success is
 * the whole archive. Append waits for every line it was given before it says so. Inode numbers of
 * an import begin above every number an earlier import of this journal gave: each of those took at
 * least one entry.
 */
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cfsrepl/journal.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/import_tar.h"
#include "cli/json_record.h"
#include "journal/recovery.h"

#define PROGRESS_EVERY_NS 250000000ull
#define PACE_ENTRIES      256 /* as journal.h says */

struct import_options {
    char data_dir[CFSR_PATH_MAX];
    char tar[CFSR_PATH_MAX];
    char records[CFSR_PATH_MAX];
    char under[CFSR_PATH_MAX];
    bool with_data;
    bool progress;
    uint32_t repeat;
    uint32_t piece_bytes;
    int journal_io;
    uint64_t retention_cap;
};

#define RETENTION_CAP_OPTION(type)                                                                 \
    {                                                                                              \
        .name = "retention-cap", .value_name = "SIZE", .group = "Options",                         \
        .kind = CFSR_OPTION_SIZE, .zero_means = "half of the file system, at most 256 GiB",        \
        .default_text = "0",                                                                       \
        .help =                                                                                    \
            "The journal takes no more than this: at 80 % an import pauses between entries, at "   \
            "95 % the slowest peer is detached, so that a peer that is away never stops appends.", \
        CFSR_OPTION_FIELD(type, retention_cap)                                                     \
    }

static const char *const io_names[] = {"buffered", "direct", NULL};

static const struct cfsr_option import_rows[] = {
    CFSR_DATA_DIR_OPTION(struct import_options),
    {.name = "tar",
     .value_name = "FILE|-",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "Tar archive, compressed or not; '-' reads standard input.",
     CFSR_OPTION_FIELD(struct import_options, tar)},
    {.name = "records",
     .value_name = "FILE|-",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "JSON lines, one entry a line, as for 'journal append' (docs/records.md).",
     CFSR_OPTION_FIELD(struct import_options, records)},
    {.name = "with-data",
     .group = "Options",
     .kind = CFSR_OPTION_BOOL,
     .help = "Carry the contents of files; without it only their length and checksum.",
     CFSR_OPTION_FIELD(struct import_options, with_data)},
    {.name = "repeat",
     .value_name = "N",
     .group = "Options",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .max = 9999,
     .default_text = "1",
     .help = "Import the archive N times, each below its own directory r0001, r0002, ...",
     CFSR_OPTION_FIELD(struct import_options, repeat)},
    {.name = "under",
     .value_name = "PATH",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "Import below this directory instead of the root.",
     CFSR_OPTION_FIELD(struct import_options, under)},
    {.name = "piece-bytes",
     .value_name = "SIZE",
     .group = "Options",
     .kind = CFSR_OPTION_SIZE,
     .min = 512,
     .max = CFSR_IMPORT_PIECE_MAX,
     .default_text = "120KiB",
     .help = "Contents carried by one Write; by default two and their headers fit into a batch of "
             "256KiB.",
     CFSR_OPTION_FIELD(struct import_options, piece_bytes)},
    {.name = "journal-io",
     .value_name = "MODE",
     .group = "Options",
     .kind = CFSR_OPTION_ENUM,
     .choices = io_names,
     .default_text = "buffered",
     .help = "How the journal is written.",
     CFSR_OPTION_FIELD(struct import_options, journal_io)},
    {.name = "progress",
     .group = "Options",
     .kind = CFSR_OPTION_BOOL,
     .help = "Show progress on standard error also when it is not a terminal.",
     CFSR_OPTION_FIELD(struct import_options, progress)},
    RETENTION_CAP_OPTION(struct import_options),
};

static const struct cfsr_option_set import_set = {
    .program = "cfs-repl",
    .command = "journal import",
    .synopsis = "--data-dir DIR (--tar FILE | --records FILE) [--with-data] [--repeat N] [options]",
    .summary = "Appends the members of a tar archive, or entries of a file, to the journal. "
               "Members that cannot be "
               "taken are named on standard error, the rest goes on, and the exit code is 1.",
    .options = import_rows,
    .count = CFSR_ARRAY_LEN(import_rows),
};

struct import_run {
    struct cfsr_journal *journal;
    uint64_t started_ns, shown_ns;
    uint64_t staged;
    bool progress, drawn;
};

/*
 * An import is the bulk that a slow peer cannot keep up with: while the journal nears its cap it
 * pauses, also so that the appends of others stay quick. It always goes on.
 */
static void pace(struct cfsr_journal *journal, uint64_t entries)
{
    struct cfsr_journal_pressure pressure;
    struct timespec pause = {0};

    if (entries % PACE_ENTRIES != 0)
        return;
    cfsr_journal_pressure(journal, &pressure);
    pause.tv_nsec = (long)pressure.pause_ms * 1000000L;
    if (pressure.pause_ms > 0)
        (void)nanosleep(&pause, NULL);
}

static int stage_entry(void *user, const struct cfsr_entry *entry)
{
    struct import_run *run = user;

    pace(run->journal, ++run->staged);
    return cfsr_journal_stage(run->journal, entry, NULL);
}

static void clear_progress(struct import_run *run)
{
    if (run->drawn)
        fputs("\r\033[K", stderr);
    run->drawn = false;
}

static void print_notice(void *user, const char *member, const char *why, bool refused)
{
    struct import_run *run = user;
    char text[256];

    clear_progress(run);
    snprintf(text, sizeof text, "%s", member);
    for (char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    fprintf(stderr, "cfs-repl: member %s: %s: %s\n", refused ? "refused" : "changed", text, why);
}

static void show_progress(void *user, const struct cfsr_import_stats *stats)
{
    struct import_run *run = user;
    uint64_t now_ns;
    char bytes[32];

    if (!run->progress || stats->members % 64 != 0)
        return;
    now_ns = cfsr_clock_monotonic_ns();
    if (now_ns - run->shown_ns < PROGRESS_EVERY_NS)
        return;
    run->shown_ns = now_ns;
    run->drawn = true;
    fprintf(
        stderr, "\r\033[Kimporting: %" PRIu64 " members, %" PRIu64 " entries, %s, %.0f entries/s",
        stats->members, stats->entries, cfsr_format_bytes(stats->record_bytes, bytes, sizeof bytes),
        (double)stats->entries * 1e9 / (double)(now_ns - run->started_ns));
}

static int count_entries(const struct cfsr_site *site, uint64_t *entries_out)
{
    uint64_t entries = 0;

    for (uint32_t lane = 0; lane < site->lanes; lane++) {
        struct cfsr_lane_state state;
        int rc = cfsr_journal_recover_lane(cfsr_fs_blocking(), site, lane, true, false, &state);

        if (rc < 0)
            return rc;
        entries += state.entries;
        cfsr_lane_state_fini(&state);
    }
    *entries_out = entries;
    return 0;
}

static void report_import(const struct import_run *run, const struct cfsr_import_stats *stats)
{
    double seconds = (double)(cfsr_clock_monotonic_ns() - run->started_ns) / 1e9;
    char records[32], data[32], rate[32];

    printf("imported %" PRIu64 " entries from %" PRIu64
           " members: %s of records, %s of contents, average record %.0f bytes\n",
           stats->entries, stats->members,
           cfsr_format_bytes(stats->record_bytes, records, sizeof records),
           cfsr_format_bytes(stats->data_bytes, data, sizeof data),
           stats->entries > 0 ? (double)stats->record_bytes / (double)stats->entries : 0.0);
    printf("durable after %.2f s: %.0f entries/s, %s/s\n", seconds,
           (double)stats->entries / seconds,
           cfsr_format_bytes((uint64_t)((double)stats->record_bytes / seconds), rate, sizeof rate));
    if (stats->notices > 0)
        printf("%" PRIu64 " members were changed to be taken (named above)\n", stats->notices);
    if (stats->refused > 0)
        printf("%" PRIu64 " members were refused (named above)\n", stats->refused);
}

static int import_tar(struct import_run *run, const struct import_options *options,
                      const struct cfsr_site *site, uint64_t entries_before)
{
    struct cfsr_import_stats stats;
    const struct cfsr_import_options import = {
        .path = options->tar,
        .with_data = options->with_data,
        .repeat = options->repeat,
        .piece_bytes = options->piece_bytes,
        .under = options->under[0] != '\0' ? options->under : NULL,
        .first_inode = (site->site_id << 40) + 2 + entries_before,
        .entry = stage_entry,
        .notice = print_notice,
        .progress = show_progress,
        .user = run,
    };
    int rc;
    int flush_rc;
    char kept[1024];

    (void)setlocale(LC_CTYPE,
                    "C.UTF-8"); /* libarchive turns names of pax headers into the locale's form */
    rc = cfsr_import_tar(&import, &stats);
    snprintf(kept, sizeof kept, "%s", cfsr_error_message());
    flush_rc = cfsr_journal_flush(
        run->journal); /* what was read before an error stays, and is durable */
    clear_progress(run);
    if (flush_rc == 0)
        report_import(run, &stats);
    if (rc < 0)
        return kept[0] != '\0' ? cfsr_fail(rc, "%s", kept) : rc;
    if (flush_rc < 0)
        return flush_rc;
    return stats.refused > 0 ? CFSR_EXIT_FAILED : 0;
}

/* Lines of a descriptor; a FILE would not tell whether the next line is here already. */
struct line_reader {
    int fd;
    char *data;
    size_t capacity, begin, end;
    bool at_end;
};

static int fill_lines(struct cfsr_journal *journal, struct line_reader *in)
{
    struct pollfd ready = {.fd = in->fd, .events = POLLIN};
    ssize_t got;
    int rc;

    if (in->begin > 0) {
        memmove(in->data, in->data + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
    }
    if (in->end == in->capacity) {
        size_t capacity = in->capacity == 0 ? 65536 : in->capacity * 2;
        char *larger = realloc(in->data, capacity);

        if (larger == NULL)
            return -ENOMEM;
        in->data = larger;
        in->capacity = capacity;
    }
    /* The producer pauses: what it gave becomes durable now, not when it speaks again. */
    if (poll(&ready, 1, 0) == 0) {
        rc = cfsr_journal_flush(journal);
        if (rc < 0)
            return rc;
    }
    do
        got = read(in->fd, in->data + in->end, in->capacity - in->end);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return cfsr_fail(-errno, "cannot read: %s", cfsr_strerror(-errno));
    in->end += (size_t)got;
    in->at_end = got == 0;
    return 0;
}

/* The next line without its newline: its length, -ENODATA at the end, or an error. */
static ssize_t next_line(struct cfsr_journal *journal, struct line_reader *in, char **line_out)
{
    size_t searched = 0;

    for (;;) {
        char *from = in->data + in->begin;
        size_t have = in->end - in->begin;
        char *newline = have > searched ? memchr(from + searched, '\n', have - searched) : NULL;
        int rc;

        if (newline != NULL || (in->at_end && have > 0)) {
            size_t len = newline != NULL ? (size_t)(newline - from) : have;

            in->begin += len + (newline != NULL);
            *line_out = from;
            return (ssize_t)len;
        }
        if (in->at_end)
            return -ENODATA;
        searched = have;
        rc = fill_lines(journal, in);
        if (rc < 0)
            return rc;
    }
}

/* Reads JSON lines and stages them; the number of lines taken. */
static int stage_lines(struct cfsr_journal *journal, FILE *file, const char *name,
                       uint64_t *entries_out, uint64_t *bytes_out)
{
    struct line_reader in = {.fd = fileno(file)};
    char *line = NULL;
    uint8_t *payload = malloc(CFSR_RECORD_PAYLOAD_MAX);
    uint64_t number = 0;
    ssize_t len;
    int rc = payload == NULL ? -ENOMEM : 0;

    while (rc == 0) {
        struct cfsr_entry entry;

        len = next_line(journal, &in, &line);
        if (len < 0) {
            rc = len == -ENODATA ? 0 : (int)len;
            break;
        }

        number++;
        while (len > 0 && strchr(" \t\r", line[len - 1]) != NULL && line[len - 1] != '\0')
            len--;
        if (len == 0)
            continue;
        rc = cfsr_json_record_parse(line, (size_t)len, payload, &entry);
        if (rc == 0)
            rc = cfsr_journal_stage(journal, &entry, NULL);
        if (rc < 0) {
            rc = cfsr_fail_context(rc, "%s:%" PRIu64, name, number);
            break;
        }
        *entries_out += 1;
        pace(journal, *entries_out);
        *bytes_out += CFSR_RECORD_HEADER_BYTES +
                      cfsr_align_up(entry.payload_bytes, CFSR_RECORD_ALIGN);
    }
    free(payload);
    free(in.data);
    return rc;
}

static int append_lines(struct cfsr_journal *journal, FILE *in, const char *name)
{
    uint64_t entries = 0;
    uint64_t bytes = 0;
    char text[32];
    char kept[1024];
    int rc = stage_lines(journal, in, name, &entries, &bytes);
    int flush_rc;

    snprintf(kept, sizeof kept, "%s", cfsr_error_message());
    flush_rc = cfsr_journal_flush(journal);
    if (flush_rc < 0)
        return flush_rc;
    printf("appended %" PRIu64 " entries, %s of records, durable\n", entries,
           cfsr_format_bytes(bytes, text, sizeof text));
    if (rc < 0)
        return kept[0] != '\0' ? cfsr_fail(rc, "%s", kept) : rc;
    return 0;
}

static int import_records(struct cfsr_journal *journal, const char *path)
{
    FILE *in;
    int rc;

    if (strcmp(path, "-") == 0)
        return append_lines(journal, stdin, "standard input");
    in = fopen(path, "re");
    if (in == NULL) {
        rc = -errno;
        return cfsr_fail(rc, "cannot read the records: %s: %s", path, cfsr_strerror(rc));
    }
    rc = append_lines(journal, in, path);
    (void)fclose(in);
    return rc;
}

static int check_import(const struct import_options *options)
{
    if ((options->tar[0] != '\0') == (options->records[0] != '\0'))
        return cfsr_fail(-CFSR_E_USAGE, "give either --tar FILE or --records FILE");
    if (options->records[0] != '\0' &&
        (options->repeat > 1 || options->with_data || options->under[0] != '\0'))
        return cfsr_fail(-CFSR_E_USAGE, "--repeat, --with-data and --under belong to --tar");
    if (strcmp(options->tar, "-") == 0 && options->repeat > 1)
        return cfsr_fail(
            -CFSR_E_USAGE,
            "--repeat: standard input can be read only once: give the archive as a file");
    return 0;
}

static int open_journal(const char *data_dir, bool direct, uint64_t retention_cap,
                        struct cfsr_journal **journal_out)
{
    const struct cfsr_journal_options options = {
        .opts_size = sizeof options,
        .data_dir = data_dir,
        .direct = direct,
        .retention_cap_bytes = retention_cap,
    };

    return cfsr_journal_open(&options, journal_out);
}

static int close_journal(struct cfsr_journal *journal, int rc)
{
    char kept[1024];
    int close_rc;

    snprintf(kept, sizeof kept, "%s", cfsr_error_message());
    close_rc = cfsr_journal_close(journal);
    if (rc < 0)
        return kept[0] != '\0' ? cfsr_fail(rc, "%s", kept) : rc;
    return close_rc < 0 ? close_rc : rc;
}

static int import_run(int argc, char *const *argv)
{
    struct import_options options;
    struct import_run run = {0};
    struct cfsr_site site;
    uint64_t entries_before = 0;
    int rc = cfsr_command_options(&import_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = check_import(&options);
    if (rc == 0)
        rc = cfsr_command_site(options.data_dir, &site);
    if (rc == 0 && options.tar[0] != '\0' && strcmp(options.tar, "-") != 0 &&
        access(options.tar, R_OK) < 0)
        rc = cfsr_fail(-errno, "cannot read the archive: %s: %s", options.tar,
                       cfsr_strerror(-errno));
    if (rc == 0)
        rc = count_entries(&site, &entries_before);
    if (rc == 0)
        rc = open_journal(options.data_dir, options.journal_io == 1, options.retention_cap,
                          &run.journal);
    if (rc < 0)
        return rc;
    run.started_ns = cfsr_clock_monotonic_ns();
    run.progress = options.progress || isatty(STDERR_FILENO) == 1;
    if (options.tar[0] != '\0')
        rc = import_tar(&run, &options, &site, entries_before);
    else
        rc = import_records(run.journal, options.records);
    return close_journal(run.journal, rc);
}

const struct cfsr_command cfsr_command_journal_import = {.set = &import_set, .run = import_run};

struct append_options {
    char data_dir[CFSR_PATH_MAX];
    uint64_t retention_cap;
};

static const struct cfsr_option append_rows[] = {
    CFSR_DATA_DIR_OPTION(struct append_options),
    RETENTION_CAP_OPTION(struct append_options),
};

static const struct cfsr_option_set append_set = {
    .program = "cfs-repl",
    .command = "journal append",
    .synopsis = "--data-dir DIR [--retention-cap SIZE] < LINES",
    .summary = "Appends entries given as JSON lines on standard input to the journal. A wrong line "
               "is named with its "
               "number and ends the command; the lines before it are durable.",
    .epilogue =
        "A line: {\"op\":\"Create\",\"inode\":5,\"parent\":1,\"name\":\"a\",\"mode\":\"0100644\"}; "
        "all keys: docs/records.md.",
    .options = append_rows,
    .count = CFSR_ARRAY_LEN(append_rows),
};

static int append_run(int argc, char *const *argv)
{
    struct append_options options;
    struct cfsr_journal *journal;
    int rc = cfsr_command_options(&append_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = open_journal(options.data_dir, false, options.retention_cap, &journal);
    if (rc < 0)
        return rc;
    return close_journal(journal, append_lines(journal, stdin, "standard input"));
}

const struct cfsr_command cfsr_command_journal_append = {.set = &append_set, .run = append_run};
