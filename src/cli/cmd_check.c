/*
 * cmd_check.c - `journal recover` and `journal digest`.
 *
 * Thread: the main thread. Recover does what a writer does when it opens the journal, with a
 * report. Digest is over the records a site holds of an origin: of the own journal from disk, of
 * another site from the inbox, by the same feed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/inbox.h>
#include <cfsrepl/reader.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/command.h"
#include "inbox/inbox.h"
#include "journal/digest.h"
#include "journal/recovery.h"
#include "journal/status_page.h"

struct check_options {
    char data_dir[CFSR_PATH_MAX];
    uint64_t site;
    bool json;
};

static const struct cfsr_option recover_rows[] = {
    CFSR_DATA_DIR_OPTION(struct check_options),
    CFSR_JSON_OPTION(struct check_options),
};

static const struct cfsr_option_set recover_set = {
    .program = "cfs-repl",
    .command = "journal recover",
    .synopsis = "--data-dir DIR [--json]",
    .summary = "Recovers journal and inbox as a writer or the daemon does at start, and reports. A "
               "torn tail is cut; "
               "damage below the commit point is refused and left as it is.",
    .options = recover_rows,
    .count = CFSR_ARRAY_LEN(recover_rows),
};

static void report_lane(const struct check_options *options, uint32_t lane,
                        const struct cfsr_lane_state *state)
{
    bool cut = state->cut_lsn != CFSR_LSN_UNKNOWN;
    char text[32];

    if (options->json) {
        printf("{\"log\":\"journal\",\"lane\":%u,\"first_lsn\":%" PRIu64 ",\"end_lsn\":%" PRIu64
               ",\"entries\":%" PRIu64 ",\"incarnation\":%" PRIu64
               ",\"clean\":%s,\"cut_bytes\":%" PRIu64,
               lane, state->first_lsn, state->end_lsn, state->entries, state->incarnation,
               state->clean ? "true" : "false", state->cut_bytes);
        if (cut)
            printf(",\"cut_lsn\":%" PRIu64, state->cut_lsn);
        puts("}");
        return;
    }
    printf("journal lane %2u: %12" PRIu64 " entries, LSN %" PRIu64 " to %" PRIu64
           ", incarnation %" PRIu64 ", ",
           lane, state->entries, state->first_lsn, state->end_lsn, state->incarnation);
    if (cut)
        printf("torn tail cut at LSN %" PRIu64 " (at most %s given up)\n", state->cut_lsn,
               cfsr_format_bytes(state->cut_bytes, text, sizeof text));
    else
        puts(state->clean ? "closed cleanly" : "sound, not closed");
}

static int recover_inbox_lane(const struct check_options *options, const struct cfsr_site *site,
                              uint32_t lane)
{
    struct cfsr_inbox_state *state = malloc(sizeof *state);
    char text[32];
    int rc = state == NULL ? -ENOMEM
                           : cfsr_inbox_recover_lane(cfsr_fs_blocking(), site, lane, false, state);

    if (rc == 0 && options->json) {
        printf("{\"log\":\"inbox\",\"lane\":%u,\"first_sequence\":%" PRIu64 ",\"sequence\":%" PRIu64
               ",\"arrival\":%" PRIu64 ",\"incarnation\":%" PRIu64 ",\"cut_bytes\":%" PRIu64
               ",\"cursors\":[",
               lane, state->first_sequence, state->sequence, state->arrival, state->incarnation,
               state->cut_bytes);
        for (uint32_t i = 0; i < state->origins; i++)
            printf("%s{\"site\":%" PRIu64 ",\"lsn\":%" PRIu64 ",\"entries\":%" PRIu64 "}",
                   i > 0 ? "," : "", state->cursor[i].site_id, state->cursor[i].lsn,
                   state->cursor[i].entries);
        puts("]}");
    } else if (rc == 0) {
        for (uint32_t i = 0; i < state->origins; i++)
            printf("inbox lane %2u:   %12" PRIu64 " entries of site %" PRIu64 ", up to LSN %" PRIu64
                   "\n",
                   lane, state->cursor[i].entries, state->cursor[i].site_id, state->cursor[i].lsn);
        if (state->cut_bytes > 0)
            printf("inbox lane %2u:   torn tail cut (at most %s given up; the origin sends it "
                   "again)\n",
                   lane, cfsr_format_bytes(state->cut_bytes, text, sizeof text));
    }
    free(state);
    return rc;
}

static int recover_run(int argc, char *const *argv)
{
    struct check_options options;
    struct cfsr_site site;
    int rc = cfsr_command_options(&recover_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = cfsr_command_site(options.data_dir, &site);
    for (uint32_t lane = 0; rc == 0 && lane < site.lanes; lane++) {
        struct cfsr_lane_state state;

        rc = cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, lane, false, false, &state);
        if (rc < 0)
            break;
        report_lane(&options, lane, &state);
        cfsr_lane_state_fini(&state);
    }
    for (uint32_t lane = 0; rc == 0 && lane < site.lanes; lane++)
        rc = recover_inbox_lane(&options, &site, lane);
    return rc;
}

const struct cfsr_command cfsr_command_journal_recover = {.set = &recover_set, .run = recover_run};

static const struct cfsr_option digest_rows[] = {
    CFSR_DATA_DIR_OPTION(struct check_options),
    {.name = "site",
     .value_name = "ID",
     .group = "Options",
     .kind = CFSR_OPTION_COUNT,
     .help = "Records of this origin: the own journal (default), or another site's from the inbox.",
     CFSR_OPTION_FIELD(struct check_options, site)},
    CFSR_JSON_OPTION(struct check_options),
};

static const struct cfsr_option_set digest_set = {
    .program = "cfs-repl",
    .command = "journal digest",
    .synopsis = "--data-dir DIR [--site ID] [--json]",
    .summary = "Prints a SHA-256 for each lane and one over all, over every record held of a site. "
               "Two sites that are in "
               "step and hold the same range print the same.",
    .options = digest_rows,
    .count = CFSR_ARRAY_LEN(digest_rows),
};

struct lane_result {
    uint64_t first_lsn, end_lsn, entries;
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
};

static int digest_journal_lane(const struct cfsr_site *site, uint32_t lane,
                               struct lane_result *result)
{
    struct cfsr_reader *reader;
    int rc = cfsr_reader_open(site->data_dir, lane, CFSR_READER_OLDEST, &reader);

    if (rc < 0)
        return rc;
    rc = cfsr_reader_oldest(reader, &result->first_lsn);
    if (rc == 0)
        rc = cfsr_reader_committed(reader, &result->end_lsn);
    cfsr_reader_close(reader);
    if (rc < 0)
        return rc;
    return cfsr_journal_digest_lane(cfsr_fs_blocking(), site, lane, result->first_lsn,
                                    result->end_lsn, result->digest, &result->entries);
}

static int feed_inbox(struct cfsr_inbox *inbox, struct cfsr_lane_digest *digest,
                      struct lane_result *result)
{
    struct cfsr_inbox_record record;
    bool first = true;
    int rc;

    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        if (first)
            result->first_lsn = record.lsn;
        first = false;
        result->end_lsn = record.end_lsn;
        (void)cfsr_lane_digest_feed(digest, record.lsn, record.raw, record.raw_bytes);
    }
    if (rc < 0)
        return rc;
    result->entries = digest->entries;
    cfsr_lane_digest_final(digest, result->digest);
    return 0;
}

static int digest_inbox_lane(const struct cfsr_site *site, uint64_t origin, uint32_t lane,
                             struct lane_result *result)
{
    const struct cfsr_inbox_options options = {.opts_size = sizeof options,
                                               .data_dir = site->data_dir,
                                               .site_id = origin,
                                               .lane = lane,
                                               .all_records = true};
    struct cfsr_lane_digest digest;
    struct cfsr_inbox *inbox;
    int rc = cfsr_inbox_open(&options, &inbox);

    if (rc < 0)
        return rc;
    rc = cfsr_lane_digest_begin(&digest, site->segment_bytes);
    if (rc == 0) {
        rc = feed_inbox(inbox, &digest, result);
        cfsr_lane_digest_fini(&digest);
    }
    cfsr_inbox_close(inbox);
    return rc;
}

static void hex_of(const uint8_t digest[CFSR_DIGEST_LEN_BYTES],
                   char text_out[2 * CFSR_DIGEST_LEN_BYTES + 1])
{
    for (size_t i = 0; i < CFSR_DIGEST_LEN_BYTES; i++)
        snprintf(text_out + 2 * i, 3, "%02x", digest[i]);
}

static int print_digests(const struct check_options *options, const struct cfsr_site *site,
                         const struct lane_result *results)
{
    uint8_t digests[CFSR_LANES_MAX][CFSR_DIGEST_LEN_BYTES];
    uint8_t total[CFSR_DIGEST_LEN_BYTES];
    char hex[2 * CFSR_DIGEST_LEN_BYTES + 1];
    uint64_t entries = 0;
    int rc;

    for (uint32_t lane = 0; lane < site->lanes; lane++) {
        const struct lane_result *result = &results[lane];

        memcpy(digests[lane], result->digest, sizeof digests[lane]);
        hex_of(result->digest, hex);
        entries += result->entries;
        printf(options->json ? "{\"lane\":%u,\"first_lsn\":%" PRIu64 ",\"end_lsn\":%" PRIu64
                               ",\"entries\":%" PRIu64 ",\"digest\":\"%s\"}\n"
                             : "lane %2u  LSN %" PRIu64 " to %" PRIu64 "  %" PRIu64
                               " entries  %s\n",
               lane, result->first_lsn, result->end_lsn, result->entries, hex);
    }
    rc = cfsr_digest_total(digests, site->lanes, total);
    if (rc < 0)
        return rc;
    hex_of(total, hex);
    printf(options->json ? "{\"site\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"total\":\"%s\"}\n"
                         : "site %" PRIu64 "  total  %" PRIu64 " entries  %s\n",
           options->site, entries, hex);
    return 0;
}

static int digest_run(int argc, char *const *argv)
{
    struct check_options options;
    struct lane_result results[CFSR_LANES_MAX] = {0};
    struct cfsr_site site;
    int rc = cfsr_command_options(&digest_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = cfsr_command_site(options.data_dir, &site);
    if (rc < 0)
        return rc;
    if (options.site == 0)
        options.site = site.site_id;
    for (uint32_t lane = 0; rc == 0 && lane < site.lanes; lane++)
        rc = options.site == site.site_id
                 ? digest_journal_lane(&site, lane, &results[lane])
                 : digest_inbox_lane(&site, options.site, lane, &results[lane]);
    return rc < 0 ? rc : print_digests(&options, &site, results);
}

const struct cfsr_command cfsr_command_journal_digest = {.set = &digest_set, .run = digest_run};
