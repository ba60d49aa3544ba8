/*
 * check.c - a resumable check of one lane of the inbox: what is damaged, and not repaired yet.
 *
 * Thread:     a helper's; blocking, bounded work a step.
 * Invariants: every byte below the lane's end is either in a record that verifies or in a damaged
 * place that is counted; a place that cost nothing, or whose cost REPAIR records hold, is no gap.
 * Rejected:   reporting each damaged record of a run of them with what lies behind (a range would
 * be asked for twice: the first gap takes all that is missing up to the next sound word of an
 * origin).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "inbox/gap.h"

struct cfsr_inbox_check {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    bool live;
    struct cfsr_inbox_end end;
    struct cfsr_inbox_log log;
    struct cfsr_inbox_decoder decoder;
    struct cfsr_inbox_known known;
    struct cfsr_inbox_repairs repairs; /* as they were when the first gap was met */
    bool repairs_loaded;
    uint64_t header_sequence; /* of the last segment whose header was looked at */
    bool cost_nothing;        /* the last place judged: all of it was sent again */
    bool unnamed;             /* the last place without a sound record has no CURSORS behind it */
    uint64_t damaged, repaired;
};

int cfsr_inbox_check_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                          const struct cfsr_inbox_end *end, struct cfsr_inbox_check **check_out)
{
    struct cfsr_inbox_check *check = calloc(1, sizeof *check);
    struct cfsr_inbox_range_of_segments range;
    int rc;

    if (check == NULL)
        return -ENOMEM;
    check->fs = fs;
    check->site = site;
    check->lane = lane;
    check->live = end != NULL;
    rc = cfsr_inbox_decoder_init(&check->decoder);
    if (rc == 0)
        rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc < 0) {
        cfsr_inbox_check_close(check);
        return rc;
    }
    cfsr_inbox_log_init(&check->log, fs, site, lane, range.first);
    if (end != NULL) {
        check->end = *end;
        check->log.limit_sequence = end->sequence;
        check->log.limit_offset = end->body_offset;
    }
    check->known.fresh = range.first > 1;
    *check_out = check;
    return 0;
}

void cfsr_inbox_check_close(struct cfsr_inbox_check *check)
{
    cfsr_inbox_log_close(&check->log);
    cfsr_inbox_decoder_fini(&check->decoder);
    cfsr_inbox_repairs_free(&check->repairs);
    free(check);
}

void cfsr_inbox_check_counts(const struct cfsr_inbox_check *check, uint64_t *damaged_out,
                             uint64_t *repaired_out)
{
    *damaged_out = check->damaged;
    *repaired_out = check->repaired;
}

bool cfsr_inbox_check_unnamed(const struct cfsr_inbox_check *check)
{
    return check->unnamed;
}

/* A damaged place: 1 and the gap, 0 it cost nothing that is not repaired, -errno. */
static int judge_place(struct cfsr_inbox_check *check, const struct cfsr_inbox_damage *damage,
                       const struct cfsr_batch_header *batch, struct cfsr_inbox_gap *gap_out)
{
    uint32_t i;
    int rc;

    check->damaged++;
    rc = cfsr_inbox_describe(check->fs, check->site, check->lane, damage, batch, &check->known,
                             check->live ? &check->end : NULL, gap_out);
    if (rc < 0)
        return rc;
    check->cost_nothing = gap_out->parts == 0;
    for (i = 0; i < gap_out->parts; i++) { /* told once: the next place does not tell it again */
        struct cfsr_inbox_delivered *known = cfsr_inbox_known_of(
            &check->known, gap_out->part[i].site_id, &gap_out->part[i].journal);

        if (known != NULL)
            known->lsn = cfsr_max_u64(known->lsn, gap_out->part[i].lsn_to);
    }
    if (gap_out->parts > 0 && !check->repairs_loaded) {
        rc = cfsr_inbox_repairs_load(&check->repairs, check->fs, check->site, check->lane,
                                     damage->sequence);
        check->repairs_loaded = rc == 0;
    }
    if (gap_out->parts > 0) {
        if (rc == 0)
            rc = cfsr_inbox_repairs_cover(&check->repairs, check->fs, check->site, &check->decoder,
                                          gap_out);
    }
    if (rc < 0)
        return rc;
    check->repaired += gap_out->parts == 0;
    return gap_out->parts > 0;
}

/* An origin goes on above where it stood, and no damaged place was met that would say why. */
static int judge_jump(struct cfsr_inbox_check *check, const struct cfsr_inbox_item *item,
                      struct cfsr_inbox_gap *gap_out)
{
    struct cfsr_inbox_damage damage = cfsr_inbox_damage_of(item, -CFSR_E_BAD_ORDER);

    return judge_place(check, &damage, NULL, gap_out);
}

static int check_body(struct cfsr_inbox_check *check, const struct cfsr_inbox_item *item,
                      const struct cfsr_batch_header *header)
{
    uint8_t extension[CFSR_BATCH_EXTENSION_MAX];
    struct cfsr_inbox_walk walk;
    int rc = cfsr_inbox_item_check(&check->decoder, item, header);

    if (rc == 0)
        rc = cfsr_inbox_item_decode(&check->decoder, check->site, item, header, check->decoder.raw,
                                    extension, &walk, NULL);
    return rc;
}

/* 1 a gap, 0 sound or repaired, 2 a torn tail: the end, -errno. */
static int check_batch(struct cfsr_inbox_check *check, const struct cfsr_inbox_item *item,
                       struct cfsr_inbox_gap *gap_out)
{
    struct cfsr_inbox_delivered *known;
    struct cfsr_batch_header header;
    int rc, verdict = cfsr_inbox_item_header(item, &header);

    if (verdict < 0)
        return verdict; /* its CRC is right: not damage but a format this program does not know */
    verdict = check_body(check, item, &header);
    if (verdict < 0 && !cfsr_inbox_is_verdict(verdict))
        return verdict;
    known = cfsr_inbox_known_find(&check->known, header.site_id, &header.journal);
    if (known == NULL) {
        known = cfsr_inbox_known_of(&check->known, header.site_id, &header.journal);
        if (known == NULL)
            return -ENOSPC;
        known->lsn = check->known.fresh ? header.lsn_from : 0;
    }
    if (verdict < 0) {
        struct cfsr_inbox_damage damage = cfsr_inbox_damage_of(item, verdict);

        rc = cfsr_inbox_log_vouched(&check->log, damage.sequence, damage.begin);
        return rc < 0 ? rc : rc == 0 ? 2 : judge_place(check, &damage, &header, gap_out);
    }
    if (header.lsn_from > known->lsn) {
        rc = judge_jump(check, item, gap_out);
        if (rc < 0 || check->cost_nothing)
            return rc; /* given up by its writer, and sent again with what is missing before it */
    } else {
        rc = 0;
    }
    known->lsn = cfsr_max_u64(known->lsn, header.lsn_to);
    return rc;
}

static int check_cursors(struct cfsr_inbox_check *check, const struct cfsr_inbox_item *item,
                         struct cfsr_inbox_gap *gap_out)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    bool ahead = false;
    uint32_t i, count;
    int rc;

    rc = cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                 item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                 &count);
    if (rc < 0)
        return rc;
    for (i = 0; i < count; i++) {
        struct cfsr_inbox_delivered *known = cfsr_inbox_known_find(&check->known, cursor[i].site_id,
                                                                   &cursor[i].journal);

        ahead = ahead || cursor[i].lsn > (known == NULL ? 0 : known->lsn);
    }
    rc = ahead && !check->known.fresh ? judge_jump(check, item, gap_out) : 0;
    for (i = 0; rc >= 0 && i < count; i++) {
        struct cfsr_inbox_delivered *known = cfsr_inbox_known_of(&check->known, cursor[i].site_id,
                                                                 &cursor[i].journal);

        if (known == NULL)
            return -ENOSPC;
        known->lsn = cfsr_max_u64(known->lsn, cursor[i].lsn);
    }
    check->known.fresh = false;
    check->unnamed = false;
    return rc;
}

/* A damaged header costs nothing, and a live lane's is written anew. */
static int check_header(struct cfsr_inbox_check *check)
{
    uint64_t sequence = check->log.sequence;

    if (!check->log.open || sequence == check->header_sequence)
        return 0;
    check->header_sequence = sequence;
    if (!check->log.scan.header_damaged)
        return 0;
    check->damaged++;
    if (!check->live)
        return 0;
    check->repaired++;
    return cfsr_inbox_restore_header(check->fs, check->site, check->lane, sequence);
}

int cfsr_inbox_check_step(struct cfsr_inbox_check *check, uint64_t budget_bytes,
                          struct cfsr_inbox_gap *gap_out, uint64_t *bytes_out)
{
    uint64_t bytes = 0;
    int rc = 0;

    do {
        struct cfsr_inbox_damage damage;
        struct cfsr_inbox_item item;

        rc = cfsr_inbox_log_step(&check->log, true, &item, &damage);
        if (rc == 0)
            rc = 2;
        else if (rc == CFSR_INBOX_LOG_DAMAGE) {
            check->unnamed = true;
            rc = judge_place(check, &damage, NULL, gap_out);
        } else if (rc == CFSR_INBOX_LOG_RECORD) {
            bytes += cfsr_inbox_record_space(item.local.record_bytes);
            rc = check_header(check);
            if (rc == 0 && item.local.kind == CFSR_INBOX_BATCH)
                rc = check_batch(check, &item, gap_out);
            else if (rc == 0 && item.local.kind == CFSR_INBOX_CURSORS)
                rc = check_cursors(check, &item, gap_out);
        }
    } while (rc == 0 && bytes < budget_bytes);
    *bytes_out = bytes;
    return rc < 0 ? rc : rc == 2 ? CFSR_INBOX_CHECK_DONE : rc;
}
