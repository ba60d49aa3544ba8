/*
 * scrub_job.c - what a scrub does on the helper thread: checking, verifying what a peer gave,
 * writing the journal again, digests of our own windows.
 *
 * Thread:     the helper's, one job at a time; it owns the job's fields of struct node_scrub until
 * done() runs on the core.
 * Invariants: nothing is written that did not pass every check of repl/query_records.h.
 */
#include "node/internal.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/fail.h"
#include "journal/digest.h"
#include "repl/query_records.h"

static int check_journal(struct node_scrub *scrub)
{
    const struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;
    struct cfsr_journal_check **check = &scrub->journal_check[step->task];
    int rc = 0;

    if (step->fresh) {
        cfsr_journal_check_close(*check);
        *check = NULL;
        rc = cfsr_journal_check_open(core->env.blocking_fs, core->options.site, step->lane,
                                     cfsr_min_u64(scrub->committed_lsn, step->lsn_to), check);
        if (rc < 0)
            return rc;
        scrub->floor_lsn = cfsr_journal_check_position(*check);
        if (step->lsn_from > scrub->floor_lsn)
            cfsr_journal_check_seek(*check, step->lsn_from);
    } else if (step->seek) {
        cfsr_journal_check_seek(*check, step->lsn_from);
    }
    rc = cfsr_journal_check_step(*check, step->budget_bytes, &scrub->journal_gap, &scrub->bytes);
    if (rc == CFSR_JOURNAL_CHECK_DONE || rc < 0) {
        cfsr_journal_check_close(*check);
        *check = NULL;
    }
    return rc;
}

static int check_inbox(struct node_scrub *scrub)
{
    const struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;
    int rc = 0;

    if (step->fresh) {
        if (scrub->inbox_check != NULL)
            cfsr_inbox_check_close(scrub->inbox_check);
        scrub->inbox_check = NULL;
        rc = cfsr_inbox_check_open(core->env.blocking_fs, core->options.site, step->lane,
                                   &scrub->end, &scrub->inbox_check);
        if (rc < 0)
            return rc;
    }
    rc = cfsr_inbox_check_step(scrub->inbox_check, step->budget_bytes, &scrub->inbox_gap,
                               &scrub->bytes);
    if (rc == CFSR_INBOX_CHECK_DONE || rc < 0) {
        scrub->unnamed = rc == CFSR_INBOX_CHECK_DONE &&
                         cfsr_inbox_check_unnamed(scrub->inbox_check);
        cfsr_inbox_check_close(scrub->inbox_check);
        scrub->inbox_check = NULL;
    }
    return rc;
}

/* The records of the answer, checked: by our own key, the answerer's, anybody's we hold. */
static int verify(struct node_scrub *scrub, struct cfsr_records_check *check)
{
    const struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;
    uint64_t destinations[2 + CFSR_STATUS_PEERS_MAX];
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_EXTENSION_MAX];
    uint32_t count = 0;
    int prefix_bytes = 0;

    destinations[count++] = core->options.site->site_id;
    destinations[count++] = scrub->answer_site;
    for (uint32_t i = 0; i < core->options.peer_count; i++)
        destinations[count++] = core->options.peers[i].site_id;
    if (step->inbox_gap != NULL && step->inbox_gap->part[step->inbox_part].prefix_sound)
        prefix_bytes = cfsr_inbox_gap_prefix(core->env.blocking_fs, core->options.site,
                                             step->inbox_gap, prefix);
    *check = (struct cfsr_records_check){
        .site = core->options.site,
        .keyring = core->options.keyring,
        .codec = scrub->codec,
        .origin = step->origin,
        .journal = step->journal,
        .lane = step->lane,
        .lsn = step->lsn_from,
        .destinations = destinations,
        .destination_count = count,
        .own_prefix = prefix_bytes > 0 ? prefix : NULL,
        .own_prefix_bytes = prefix_bytes > 0 ? (uint32_t)prefix_bytes : 0,
        .frame = scrub->frame,
        .frame_bytes = scrub->frame_bytes,
        .raw = scrub->raw,
    };
    int rc = cfsr_records_check(check);
    check->destinations = NULL; /* they end with this function */
    check->own_prefix = NULL;
    return rc;
}

static bool is_refusal(int rc)
{
    return rc == -CFSR_E_CHECKSUM || rc == -CFSR_E_FORMAT || rc == -CFSR_E_FOREIGN ||
           rc == -CFSR_E_BAD_ORDER;
}

static int apply(struct node_scrub *scrub)
{
    const struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;
    struct cfsr_records_check check;
    const uint8_t *records;
    uint32_t len_bytes;
    int rc = verify(scrub, &check);

    if (rc == 0 && step->inbox_gap != NULL) {
        scrub->end_lsn = check.header.lsn_to;
        return 0; /* the core puts it in place */
    }
    if (rc == 0)
        rc = cfsr_records_cut(&check, step->lsn_from, step->lsn_to, &records, &len_bytes);
    if (rc < 0) {
        scrub->refused = true;
        return rc;
    }
    rc = cfsr_journal_rewrite(core->env.blocking_fs, core->options.site, step->lane,
                              scrub->committed_lsn, step->lsn_from, records, len_bytes,
                              &scrub->end_lsn);
    scrub->refused = is_refusal(rc);
    return rc;
}

static int mend_header(struct node_scrub *scrub)
{
    const struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;

    scrub->end_lsn = step->lsn_from;
    return cfsr_journal_rewrite_header(core->env.blocking_fs, core->options.site, step->lane,
                                       scrub->committed_lsn,
                                       cfsr_segment_first_lsn(core->options.site, step->lsn_from));
}

/*
 * Where both sides have windows they must have the same ones, and equal. Below the first that
 * either has, retention may have taken records of the other: nothing to compare.
 */
static void compare(struct node_scrub *scrub, uint32_t own_count)
{
    uint32_t i = 0, k = 0;

    scrub->compared = 0;
    scrub->different = 0;
    if (own_count == 0 || scrub->window_count == 0)
        return;
    while (i < own_count && scrub->ours[i].index < scrub->theirs[0].index)
        i++;
    while (k < scrub->window_count && scrub->theirs[k].index < scrub->ours[0].index)
        k++;
    while (i < own_count || k < scrub->window_count) {
        uint64_t mine = i < own_count ? scrub->ours[i].index : UINT64_MAX;
        uint64_t other = k < scrub->window_count ? scrub->theirs[k].index : UINT64_MAX;
        bool equal = mine == other && memcmp(scrub->ours[i].digest, scrub->theirs[k].digest,
                                             CFSR_DIGEST_LEN_BYTES) == 0;
        scrub->compared++;
        if (!equal && scrub->different++ == 0)
            scrub->first_different_lsn = cfsr_min_u64(mine, other) * CFSR_DIGEST_WINDOW_BYTES;
        i += mine <= other;
        k += other <= mine;
    }
}

static int compare_windows(struct node_scrub *scrub)
{
    const struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;
    struct cfsr_journal_digests *digests;
    uint32_t count = 0, more;
    uint64_t done;
    int rc = cfsr_journal_digests_open(core->env.blocking_fs, core->options.site, step->lane,
                                       step->lsn_from,
                                       cfsr_min_u64(step->lsn_to, scrub->committed_lsn), &digests);

    if (rc < 0)
        return rc;
    do {
        more = 0;
        rc = cfsr_journal_digests_step(digests, UINT32_MAX, scrub->ours + count,
                                       CFSR_REPLY_WINDOWS_MAX - count, &more, &done);
        count += rc >= 0 ? more : 0;
    } while (rc == 1 && count < CFSR_REPLY_WINDOWS_MAX);
    cfsr_journal_digests_close(digests);
    if (rc < 0)
        return rc;
    scrub->bytes = step->lsn_to - step->lsn_from;
    compare(scrub, count);
    return 0;
}

void node_scrub_run_job(struct cfsr_node_job *job)
{
    struct node_scrub *scrub = CFSR_CONTAINER_OF(job, struct node_scrub, job);

    cfsr_error_clear();
    switch (scrub->step.type) {
    case CFSR_SCRUB_CHECK_JOURNAL: scrub->result = check_journal(scrub); break;
    case CFSR_SCRUB_CHECK_INBOX: scrub->result = check_inbox(scrub); break;
    case CFSR_SCRUB_APPLY: scrub->result = apply(scrub); break;
    case CFSR_SCRUB_MEND_HEADER: scrub->result = mend_header(scrub); break;
    case CFSR_SCRUB_COMPARE: scrub->result = compare_windows(scrub); break;
    case CFSR_SCRUB_NONE:
    case CFSR_SCRUB_ASK_RECORDS:
    case CFSR_SCRUB_ASK_DIGESTS: CFSR_ASSERT(false);
    }
}
