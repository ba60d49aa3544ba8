/*
 * verify_repair.c - the repairs behind `cfs-repl journal verify --repair`; see verify_repair.h.
 *
 * Thread:     the main thread.
 * Rejected:   fetching records from here (the keys and the connections to the peers are the
 * daemon's).
 */
#include "cli/verify_repair.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/fail.h"
#include "cli/admin.h"
#include "cli/admin_options.h"
#include "journal/repair.h"

#define STEP_BYTES (16u << 20)

static void say_header(const struct cfsr_verify_repair *repair, const struct cfsr_journal_gap *gap,
                       int rc)
{
    if (repair->json)
        printf("{\"repair\":\"header\",\"lane\":%" PRIu32 ",\"lsn\":%" PRIu64
               ",\"repaired\":%s,\"error\":\"%s\"}\n",
               gap->lane, gap->begin_lsn, rc == 0 ? "true" : "false",
               rc == 0 ? "" : cfsr_error_name(rc));
    else if (rc == 0)
        printf("repaired: lane %" PRIu32 ", the header of the segment at LSN %" PRIu64 "\n",
               gap->lane, gap->begin_lsn);
    else
        printf("NOT REPAIRED: lane %" PRIu32 ", the header of the segment at LSN %" PRIu64 ": %s\n",
               gap->lane, gap->begin_lsn, cfsr_error_message());
}

/* Goes through a lane; a header made anew has its segment checked too. */
static int repair_lane(const struct cfsr_verify_repair *repair, uint32_t lane, uint64_t committed,
                       uint64_t *left)
{
    struct cfsr_fs *fs = cfsr_fs_blocking();
    struct cfsr_journal_check *check;
    uint64_t healed_lsn = UINT64_MAX; /* tried once, whatever it says then */
    int rc = cfsr_journal_check_open(fs, repair->site, lane, committed, &check);

    while (rc >= 0 && rc != CFSR_JOURNAL_CHECK_DONE) {
        struct cfsr_journal_gap gap;
        int healed;

        rc = cfsr_journal_check_step(check, STEP_BYTES, &gap, NULL);
        if (rc != CFSR_JOURNAL_CHECK_GAP)
            continue;
        if (gap.kind != CFSR_JOURNAL_GAP_HEADER || gap.begin_lsn == healed_lsn) {
            ++*left;
            continue;
        }
        healed_lsn = gap.begin_lsn;
        healed = cfsr_journal_rewrite_header(fs, repair->site, lane, committed, gap.begin_lsn);
        say_header(repair, &gap, healed);
        if (healed < 0)
            ++*left;
        else
            cfsr_journal_check_seek(check, gap.begin_lsn);
    }
    cfsr_journal_check_close(check);
    return rc < 0 ? rc : 0;
}

int cfsr_verify_repair_headers(const struct cfsr_verify_repair *repair, uint64_t *left_out)
{
    struct cfsr_status_page *page = NULL;
    uint64_t left = 0;
    int rc = cfsr_status_page_open(repair->site, &page);

    for (uint32_t lane = 0; rc == 0 && lane < repair->site->lanes; lane++) {
        uint64_t committed = 0;

        rc = cfsr_journal_find_committed(cfsr_fs_blocking(), repair->site, page, lane, &committed);
        if (rc == 0)
            rc = repair_lane(repair, lane, committed, &left);
    }
    if (page != NULL)
        cfsr_status_page_close(page);
    if (rc == 0)
        *left_out = left;
    return rc;
}

int cfsr_verify_repair_records(const struct cfsr_verify_repair *repair)
{
    const struct cfsr_admin_scrub scrub = {
        .lane = -1,
        .parts = "journal",
        .rate_given = true, /* unlimited: somebody waits */
        .wait = true,
        .timeout_ms = repair->timeout_ms,
    };
    char path[CFSR_SOCKET_TEXT_MAX];
    json_t *answer;
    int rc = cfsr_admin_socket_path(repair->socket, repair->site->data_dir, path);

    if (rc == 0)
        rc = cfsr_admin_scrub(path, &scrub, &answer);
    if (rc == -CFSR_E_UNREACHABLE)
        return cfsr_fail_context(rc, "what is damaged has to be fetched from a peer: start "
                                     "'cfs-repl serve' with its peers and run this again");
    if (rc < 0)
        return rc;
    if (repair->json)
        (void)cfsr_admin_print_answer(json_object_get(answer, "scrub"));
    else
        cfsr_admin_print_scrub(answer, stdout);
    json_decref(answer);
    return 0;
}
