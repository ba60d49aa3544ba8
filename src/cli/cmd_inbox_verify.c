/*
 * cmd_inbox_verify.c - `cfs-repl inbox verify`: is every record of the inbox what its origin sent?
 *
 * Thread: the main thread. Reads everything and changes nothing; the check is inbox/verify.h.
 * Exit code 0 sound (torn tails and repaired damage are told, and are sound), 1 damaged, 74 could
 * not check.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "inbox/verify.h"
#include "repl/session.h"
#include "security/keyring.h"

struct inbox_verify_options {
    char data_dir[CFSR_PATH_MAX];
    char key_file[CFSR_PATH_MAX];
    bool json;
};

static const struct cfsr_option rows[] = {
    CFSR_DATA_DIR_OPTION(struct inbox_verify_options),
    {.name = "key-file",
     .value_name = "FILE",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "Keyring of the sites: the signature of every batch is checked too.",
     CFSR_OPTION_FIELD(struct inbox_verify_options, key_file)},
    CFSR_JSON_OPTION(struct inbox_verify_options),
};

static const struct cfsr_option_set set = {
    .program = "cfs-repl",
    .command = "inbox verify",
    .synopsis = "--data-dir DIR [--key-file FILE] [--json]",
    .summary = "Checks every batch of the inbox by decoding it, and every record in it, and names "
               "every damaged place. A torn tail, as a crash leaves it, is no damage, nor is a "
               "place whose records were fetched again.",
    .epilogue = "Exit codes: 0 sound, 1 damaged, 74 could not check. Damage is repaired by the "
                "running daemon: 'cfs admin replication scrub'.",
    .options = rows,
    .count = CFSR_ARRAY_LEN(rows),
};

struct run {
    const struct cfsr_site *site;
    struct cfsr_keyring *keyring;
    bool json;
    struct cfsr_mac_key *key; /* the last one used */
    uint32_t key_id;
    uint64_t key_site;
};

static const char *name_of(const struct cfsr_inbox_finding *finding)
{
    if (finding->torn_tail)
        return "torn_tail";
    if (finding->repaired)
        return "repaired";
    return finding->header ? "segment_header" : "damaged";
}

static void report_finding(void *user, const struct cfsr_inbox_finding *finding)
{
    const struct run *run = user;
    char path[CFSR_INBOX_PATH_BYTES];

    cfsr_inbox_segment_path(run->site, finding->lane, finding->sequence, path);
    if (run->json) {
        printf("{\"finding\":\"%s\",\"lane\":%u,\"sequence\":%" PRIu64 ",\"begin\":%" PRIu64
               ",\"end_sequence\":%" PRIu64 ",\"end\":%" PRIu64 ",\"arrival\":%" PRIu64
               ",\"site\":%" PRIu64 ",\"lsn\":%" PRIu64 ",\"end_lsn\":%" PRIu64
               ",\"error\":\"%s\",\"file\":\"%s\"}\n",
               name_of(finding), finding->lane, finding->sequence, finding->body_offset,
               finding->end_sequence, finding->end_offset, finding->arrival, finding->site_id,
               finding->lsn_from, finding->lsn_to, cfsr_error_name(finding->error), path);
        return;
    }
    printf("%s: %s: lane %u, %s, body offset %" PRIu64 " to ",
           finding->torn_tail || finding->repaired ? "note" : "DAMAGED", name_of(finding),
           finding->lane, path, finding->body_offset);
    if (finding->end_sequence != finding->sequence)
        printf("segment %016" PRIx64 ", ", finding->end_sequence);
    printf("%" PRIu64, finding->end_offset);
    if (finding->site_id != 0)
        printf(", site %" PRIu64 ", LSN %" PRIu64 " to %" PRIu64, finding->site_id,
               finding->lsn_from, finding->lsn_to);
    printf(": %s\n", cfsr_strerror(finding->error));
}

/* The tag of a batch that its origin signed for this site. */
static int check_tag(void *user, const struct cfsr_batch_header *header, const void *prefix,
                     const void *extension)
{
    struct run *run = user;

    if (run->key == NULL || run->key_id != header->key_id || run->key_site != header->site_id) {
        int rc;

        cfsr_mac_key_destroy(run->key);
        run->key = NULL;
        rc = cfsr_session_batch_key(run->keyring, header->key_id, &run->site->cluster,
                                    header->site_id, run->site->site_id, &run->key);
        if (rc < 0)
            return rc;
        run->key_id = header->key_id;
        run->key_site = header->site_id;
    }
    return cfsr_batch_check_tag(run->key, prefix, extension, header->extension_bytes);
}

static int finish(const struct run *run, const struct cfsr_inbox_verify_report *report)
{
    bool sound = report->verdict == CFSR_INBOX_SOUND;
    char text[32];

    if (run->json)
        printf("{\"log\":\"inbox\",\"sound\":%s,\"records\":%" PRIu64 ",\"batches\":%" PRIu64
               ",\"repairs\":%" PRIu64 ",\"tags\":%" PRIu64 ",\"entries\":%" PRIu64
               ",\"bytes\":%" PRIu64 ",\"torn_bytes\":%" PRIu64 ",\"damaged\":%" PRIu64 "}\n",
               sound ? "true" : "false", report->records, report->batches, report->repairs,
               report->tags, report->entries, report->stored_bytes, report->torn_bytes,
               report->damaged);
    else
        printf("inbox %s: %" PRIu64 " batches checked, %" PRIu64 " entries in them, %s%s; %" PRIu64
               " damaged places\n",
               sound ? "is sound" : "is DAMAGED", report->batches, report->entries,
               cfsr_format_bytes(report->stored_bytes, text, sizeof text),
               run->keyring != NULL ? ", signatures too" : "", report->damaged);
    return sound ? 0 : CFSR_EXIT_FAILED;
}

static int verify_lanes(struct run *run)
{
    const struct cfsr_inbox_verify_options options = {
        .check_tag = run->keyring != NULL ? check_tag : NULL,
        .tag_user = run,
        .on_finding = report_finding,
        .user = run,
    };
    struct cfsr_inbox_verify_report report = {0};
    uint32_t lane;
    int rc = 0;

    for (lane = 0; rc == 0 && lane < run->site->lanes; lane++)
        rc = cfsr_inbox_verify_lane(cfsr_fs_blocking(), run->site, lane, &options, &report);
    return rc < 0 ? rc : finish(run, &report);
}

static int inbox_verify_run(int argc, char *const *argv)
{
    struct inbox_verify_options options;
    struct cfsr_site site;
    struct run run = {.site = &site};
    int rc = cfsr_command_options(&set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    run.json = options.json;
    rc = cfsr_command_site(options.data_dir, &site);
    if (rc == 0 && options.key_file[0] != '\0')
        rc = cfsr_keyring_load(options.key_file, &run.keyring);
    if (rc == 0)
        rc = verify_lanes(&run);
    cfsr_mac_key_destroy(run.key);
    if (run.keyring != NULL)
        cfsr_keyring_destroy(run.keyring);
    /* What keeps verify from checking is its own answer, whatever the reason was. */
    if (rc < 0 && rc != -EACCES && rc != -EPERM && rc != -CFSR_E_USAGE)
        rc = cfsr_fail_context(-EIO, "could not check");
    return rc;
}

const struct cfsr_command cfsr_command_inbox_verify = {.set = &set, .run = inbox_verify_run};
