/*
 * cmd_verify.c - `cfs-repl journal verify`: is every record what was written?
 *
 * Thread: the main thread. Reads everything and changes nothing, but for --repair
 * (verify_repair.h); the check is journal/verify.h. Exit code 0 sound, 1 damaged, 74 could not
 * check; with --repair 69 when it is damaged and the daemon that has to fetch what is lost does not
 * run.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/admin_options.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/verify_repair.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"
#include "journal/verify.h"

struct journal_options {
    char data_dir[CFSR_PATH_MAX];
    char socket[CFSR_SOCKET_TEXT_MAX];
    bool json;
    bool repair;
    uint64_t timeout_ms;
};

static const struct cfsr_option journal_rows[] = {
    CFSR_DATA_DIR_OPTION(struct journal_options),
    {.name = "repair",
     .group = "Options",
     .kind = CFSR_OPTION_BOOL,
     .help = "Put right what is damaged: segment headers at once, records by asking the running "
             "daemon to fetch them from a peer. Then verify again.",
     CFSR_OPTION_FIELD(struct journal_options, repair)},
    {.name = "socket",
     .value_name = "PATH",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "With --repair: the daemon's admin socket, when it is not DIR/run/admin.sock.",
     CFSR_OPTION_FIELD(struct journal_options, socket)},
    {.name = "timeout",
     .value_name = "TIME",
     .group = "Options",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .default_text = "10m",
     .help = "With --repair: how long to wait for the daemon; then the exit code is 75.",
     .max = 86400000,
     CFSR_OPTION_FIELD(struct journal_options, timeout_ms)},
    CFSR_JSON_OPTION(struct journal_options),
};

static const struct cfsr_option_set journal_set = {
    .program = "cfs-repl",
    .command = "journal verify",
    .synopsis = "--data-dir DIR [--repair [--timeout TIME] [--socket PATH]] [--json]",
    .summary = "Checks every record of the journal and names every damaged place. A torn tail, as "
               "a crash leaves it, is "
               "no damage.",
    .epilogue = "Exit codes: 0 sound (with --repair: sound now), 1 damaged, 69 damaged and the "
                "daemon that could repair it does not run, 74 could not check, 75 the repair took "
                "longer than --timeout.",
    .options = journal_rows,
    .count = CFSR_ARRAY_LEN(journal_rows),
};

struct verify {
    const struct cfsr_site *site;
    bool json;
    uint64_t records, entries, bytes, damaged;
};

static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text >= 0x20)
            putchar(*text);
    }
    putchar('"');
}

static bool names_a_file_of_the_lane(enum cfsr_finding_kind kind)
{
    return kind != CFSR_FINDING_FOREIGN_FILE;
}

/* One finding. A torn tail is told, and is no damage. */
static void report_finding(void *user, const struct cfsr_finding *finding)
{
    const struct verify *verify = user;
    char path[CFSR_LANE_PATH_BYTES];

    if (names_a_file_of_the_lane(finding->kind))
        cfsr_segment_path(verify->site, finding->lane, finding->segment_lsn, path, sizeof path);
    else
        cfsr_lane_directory(verify->site, finding->lane, path, sizeof path);
    if (verify->json) {
        printf("{\"finding\":\"%s\",\"lane\":%u,\"lsn\":%" PRIu64 ",\"end_lsn\":%" PRIu64
               ",\"error\":\"%s\",\"file\":",
               cfsr_finding_name(finding->kind), finding->lane, finding->lsn, finding->end_lsn,
               cfsr_error_name(finding->rc));
        print_quoted(path);
        fputs(",\"reason\":", stdout);
        print_quoted(finding->reason != NULL ? finding->reason : "");
        fputs(",\"advice\":", stdout);
        print_quoted(finding->advice != NULL ? finding->advice : "");
        puts("}");
        return;
    }
    printf("%s: %s: lane %u, LSN %" PRIu64 " to %" PRIu64 ", %s: %s%s%s\n",
           finding->kind == CFSR_FINDING_TORN_TAIL ? "note" : "DAMAGED",
           cfsr_finding_name(finding->kind), finding->lane, finding->lsn, finding->end_lsn, path,
           finding->reason != NULL ? finding->reason : "", finding->advice != NULL ? ": " : "",
           finding->advice != NULL ? finding->advice : "");
}

static int finish(const struct verify *verify, const char *log)
{
    char text[32];

    if (verify->json)
        printf("{\"log\":\"%s\",\"sound\":%s,\"records\":%" PRIu64 ",\"entries\":%" PRIu64
               ",\"bytes\":%" PRIu64 ",\"damaged\":%" PRIu64 "}\n",
               log, verify->damaged == 0 ? "true" : "false", verify->records, verify->entries,
               verify->bytes, verify->damaged);
    else
        printf("%s %s: %" PRIu64 " records checked, %" PRIu64 " of them entries, %s; %" PRIu64
               " damaged places\n",
               log, verify->damaged == 0 ? "is sound" : "is DAMAGED", verify->records,
               verify->entries, cfsr_format_bytes(verify->bytes, text, sizeof text),
               verify->damaged);
    return verify->damaged == 0 ? 0 : CFSR_EXIT_FAILED;
}

/* What keeps verify from checking is its own answer, whatever the reason was. */
static int could_not_check(int rc)
{
    return rc == -EACCES || rc == -EPERM || rc == -CFSR_E_USAGE
               ? rc
               : cfsr_fail_context(-EIO, "could not check");
}

static int verify_journal(const struct cfsr_site *site, bool json)
{
    struct cfsr_status_page *page = NULL;
    struct cfsr_verify_report report;
    struct verify verify = {.site = site, .json = json};
    int rc;

    if (cfsr_status_page_open(site, &page) < 0)
        page = NULL; /* a read-only copy is checked up to where its records end */
    rc = cfsr_journal_verify(cfsr_fs_blocking(), site, page, report_finding, &verify, &report);
    if (page != NULL)
        cfsr_status_page_close(page);
    if (rc < 0)
        return could_not_check(rc);
    verify.records = report.records;
    verify.entries = report.entries;
    verify.bytes = report.bytes;
    verify.damaged = report.damages;
    rc = finish(&verify, "journal");
    if (report.verdict == CFSR_VERIFY_UNCHECKED)
        return cfsr_fail(-EIO, "could not check everything: see above");
    return rc;
}

/* Headers first: they need nobody. Then what is left, if any is, by the daemon. */
static int repair_journal(const struct cfsr_site *site, const struct journal_options *options)
{
    struct cfsr_verify_repair repair = {
        .site = site,
        .socket = options->socket,
        .timeout_ms = options->timeout_ms,
        .json = options->json,
    };
    uint64_t left = 0;
    int rc = cfsr_verify_repair_headers(&repair, &left);

    if (rc < 0)
        return could_not_check(rc);
    if (left > 0)
        rc = cfsr_verify_repair_records(&repair);
    return rc < 0 ? rc : verify_journal(site, options->json);
}

static int journal_run(int argc, char *const *argv)
{
    struct journal_options options;
    struct cfsr_site site;
    int rc = cfsr_command_options(&journal_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = cfsr_command_site(options.data_dir, &site);
    if (rc < 0)
        return could_not_check(rc);
    rc = verify_journal(&site, options.json);
    return rc == CFSR_EXIT_FAILED && options.repair ? repair_journal(&site, &options) : rc;
}

const struct cfsr_command cfsr_command_journal_verify = {.set = &journal_set, .run = journal_run};
