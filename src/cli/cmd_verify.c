/*
 * cmd_verify.c - `cfs-repl journal verify` and `cfs-repl inbox verify`: is every record what was
 * written?
 *
 * Thread: the main thread. Reads everything and changes nothing; the journal's check is
 * journal/verify.h, the inbox is checked by reading it as its consumers do. Exit code 0 sound, 1
 * damaged, 74 could not check.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <cfsrepl/inbox.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"
#include "journal/verify.h"

struct verify_options {
    char data_dir[CFSR_PATH_MAX];
    bool json;
};

static const struct cfsr_option rows[] = {
    CFSR_DATA_DIR_OPTION(struct verify_options),
    CFSR_JSON_OPTION(struct verify_options),
};

static const struct cfsr_option_set journal_set = {
    .program = "cfs-repl",
    .command = "journal verify",
    .synopsis = "--data-dir DIR [--json]",
    .summary = "Checks every record of the journal and names every damaged place. A torn tail, as "
               "a crash leaves it, is "
               "no damage.",
    .epilogue = "Exit codes: 0 sound, 1 damaged, 74 could not check.",
    .options = rows,
    .count = CFSR_ARRAY_LEN(rows),
};

static const struct cfsr_option_set inbox_set = {
    .program = "cfs-repl",
    .command = "inbox verify",
    .synopsis = "--data-dir DIR [--json]",
    .summary = "Checks every batch of the inbox by decoding it, and every record in it.",
    .epilogue = "Exit codes: 0 sound, 1 damaged, 74 could not check.",
    .options = rows,
    .count = CFSR_ARRAY_LEN(rows),
};

struct verify {
    const struct cfsr_site *site;
    bool json;
    uint32_t lane;
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

static bool is_damage(int rc)
{
    return rc == -CFSR_E_CHECKSUM || rc == -CFSR_E_FORMAT || rc == -CFSR_E_FOREIGN ||
           rc == -CFSR_E_BAD_ORDER || rc == -CFSR_E_DAMAGED || rc == -CFSR_E_VERSION ||
           rc == -CFSR_E_MISSING_SEGMENT || rc == -CFSR_E_BAD_DIGEST || rc == -CFSR_E_DECOMPRESS ||
           rc == -CFSR_E_BOMB;
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

static int journal_run(int argc, char *const *argv)
{
    struct verify_options options;
    struct cfsr_site site;
    struct cfsr_status_page *page = NULL;
    struct cfsr_verify_report report;
    struct verify verify = {.site = &site};
    int rc = cfsr_command_options(&journal_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    verify.json = options.json;
    rc = cfsr_command_site(options.data_dir, &site);
    if (rc < 0)
        return could_not_check(rc);
    if (cfsr_status_page_open(&site, &page) < 0)
        page = NULL; /* a read-only copy is checked up to where its records end */
    rc = cfsr_journal_verify(cfsr_fs_blocking(), &site, page, report_finding, &verify, &report);
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

const struct cfsr_command cfsr_command_journal_verify = {.set = &journal_set, .run = journal_run};

/* Reading a record from the inbox decodes its batch and checks the record; the first damage of a
 * lane ends that lane. */
static int verify_inbox_lane(struct verify *verify)
{
    const struct cfsr_inbox_options options = {.opts_size = sizeof options,
                                               .data_dir = verify->site->data_dir,
                                               .lane = verify->lane,
                                               .all_records = true};
    struct cfsr_inbox *inbox;
    struct cfsr_inbox_record record;
    int rc = cfsr_inbox_open(&options, &inbox);

    if (rc < 0)
        return rc;
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        verify->records++;
        verify->entries += cfsr_record_is_entry(record.op);
        verify->bytes += record.raw_bytes;
    }
    cfsr_inbox_close(inbox);
    if (rc == 0 || !is_damage(rc))
        return rc;
    verify->damaged++;
    if (verify->json) {
        printf("{\"lane\":%u,\"error\":\"%s\",\"message\":", verify->lane, cfsr_error_name(rc));
        print_quoted(cfsr_error_message());
        puts("}");
    } else {
        printf("DAMAGED: lane %u: %s\n", verify->lane, cfsr_error_message());
    }
    return 0;
}

static int inbox_run(int argc, char *const *argv)
{
    struct verify_options options;
    struct cfsr_site site;
    struct verify verify = {.site = &site};
    int rc = cfsr_command_options(&inbox_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    verify.json = options.json;
    rc = cfsr_command_site(options.data_dir, &site);
    for (; rc == 0 && verify.lane < site.lanes; verify.lane++)
        rc = verify_inbox_lane(&verify);
    return rc < 0 ? could_not_check(rc) : finish(&verify, "inbox");
}

const struct cfsr_command cfsr_command_inbox_verify = {.set = &inbox_set, .run = inbox_run};
