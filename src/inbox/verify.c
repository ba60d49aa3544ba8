/*
 * verify.c - reads a whole lane of the inbox and says what is wrong with it.
 *
 * Thread:     a tool's or a helper's; blocking, read only.
 * Invariants: damage never ends the walk: it goes on at the next block that begins with a sound
 * record. A bad place is a torn tail only when nothing says that it was durable, and then the lane
 * ends there. It is repaired when everything it cost is held by REPAIR records or by batches that
 * were sent again. Rejected:   one verdict for the first error only (repair needs the whole list).
 */
#include "inbox/verify.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/fail.h"

struct verify {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    uint32_t lane;
    const struct cfsr_inbox_verify_options *options;
    struct cfsr_inbox_verify_report *report;
    struct cfsr_inbox_decoder decoder;
    struct cfsr_inbox_log log;
    struct cfsr_inbox_known known;
    struct cfsr_inbox_repairs repairs;
    bool repairs_loaded;
    bool torn;            /* the walk has come to a torn tail */
    uint64_t sequence;    /* of the last segment counted */
    uint64_t incarnation; /* of the last record */
    struct cfsr_inbox_gap gap;
    /* The last damaged place that cost nothing as far as is known, until CURSORS confirm it;
     * sequence 0: none. */
    struct cfsr_inbox_finding unnamed;
};

static void report_finding(struct verify *v, struct cfsr_inbox_finding finding)
{
    finding.lane = v->lane;
    if (finding.torn_tail)
        v->report->torn_bytes += finding.end_offset - finding.body_offset;
    else if (!finding.repaired) {
        v->report->damaged++;
        if (v->report->verdict == CFSR_INBOX_SOUND)
            v->report->verdict = CFSR_INBOX_DAMAGED;
    }
    v->report->findings++;
    if (v->options->on_finding != NULL)
        v->options->on_finding(v->options->user, &finding);
}

static struct cfsr_inbox_finding finding_of(const struct cfsr_inbox_item *item,
                                            const struct cfsr_batch_header *header, int error)
{
    struct cfsr_inbox_finding finding = {
        .sequence = item->local.sequence,
        .body_offset = item->body_offset,
        .end_sequence = item->local.sequence,
        .end_offset = item->body_offset + item->local.record_bytes,
        .arrival = item->local.arrival,
        .error = error,
    };

    if (header != NULL) {
        finding.site_id = header->site_id;
        finding.lsn_from = header->lsn_from;
        finding.lsn_to = header->lsn_to;
    }
    return finding;
}

/* What a damaged place cost and what of it is still missing (v->gap): 1 it is repaired, 2 it cost
 * nothing, 0 not; -errno. */
static int weigh(struct verify *v, const struct cfsr_inbox_damage *damage,
                 const struct cfsr_batch_header *batch)
{
    uint32_t i;
    int rc = cfsr_inbox_describe(v->fs, v->site, v->lane, damage, batch, &v->known, NULL, &v->gap);

    if (rc < 0 || v->gap.parts == 0)
        return rc < 0 ? rc : 2;
    for (i = 0; i < v->gap.parts; i++) {
        struct cfsr_inbox_delivered *known = cfsr_inbox_known_of(&v->known, v->gap.part[i].site_id,
                                                                 &v->gap.part[i].journal);

        if (known != NULL)
            known->lsn = cfsr_max_u64(known->lsn, v->gap.part[i].lsn_to);
    }
    if (!v->repairs_loaded)
        rc = cfsr_inbox_repairs_load(&v->repairs, v->fs, v->site, v->lane, damage->sequence);
    v->repairs_loaded = v->repairs_loaded || rc == 0;
    if (rc == 0)
        rc = cfsr_inbox_repairs_cover(&v->repairs, v->fs, v->site, &v->decoder, &v->gap);
    return rc < 0 ? rc : v->gap.parts == 0;
}

/* A place without a sound record. */
static int report_damage(struct verify *v, const struct cfsr_inbox_damage *damage)
{
    struct cfsr_inbox_finding finding = {
        .sequence = damage->sequence,
        .body_offset = damage->begin,
        .end_sequence = damage->end_sequence,
        .end_offset = damage->end,
        .error = damage->error,
    };
    int rc = weigh(v, damage, NULL);

    if (rc < 0)
        return rc;
    if (rc > 0)
        v->unnamed = finding;
    finding.repaired = rc > 0;
    if (v->gap.parts > 0) {
        finding.site_id = v->gap.part[0].site_id;
        finding.lsn_from = v->gap.part[0].lsn_from;
        finding.lsn_to = v->gap.part[0].lsn_to;
    }
    report_finding(v, finding);
    return 0;
}

/* A sound record that goes on above where its origin stood. */
static int report_jump(struct verify *v, const struct cfsr_inbox_item *item,
                       struct cfsr_inbox_finding finding, bool *cost_nothing_out)
{
    struct cfsr_inbox_damage damage = cfsr_inbox_damage_of(item, -CFSR_E_BAD_ORDER);
    int rc = weigh(v, &damage, NULL);

    *cost_nothing_out = rc == 2;
    if (rc < 0 || rc == 2)
        return rc < 0 ? rc : 0;
    finding.repaired = rc == 1;
    finding.error = -CFSR_E_BAD_ORDER;
    report_finding(v, finding);
    return 0;
}

static bool is_whole_now(struct verify *v, const struct cfsr_inbox_item *item,
                         const struct cfsr_batch_header *header)
{
    struct cfsr_inbox_item again = *item;

    return cfsr_inbox_scan_read_whole(&v->log.scan, &again) == 0 &&
           cfsr_inbox_item_check(&v->decoder, &again, header) == 0;
}

/* A record whose body does not verify. */
static int report_body(struct verify *v, const struct cfsr_inbox_item *item,
                       const struct cfsr_batch_header *header, int error)
{
    struct cfsr_inbox_damage damage = cfsr_inbox_damage_of(item, error);
    struct cfsr_inbox_finding finding = finding_of(item, header, error);
    int rc = cfsr_inbox_log_vouched(&v->log, damage.sequence, damage.begin);

    if (rc < 0)
        return rc;
    if (rc == 1 && error == -CFSR_E_BAD_DIGEST &&
        is_whole_now(v, item, header)) { /* of a lane that is being written */
        cfsr_inbox_scan_step_back(&v->log.scan, item);
        return 0;
    }
    finding.torn_tail = v->torn = rc == 0;
    if (rc == 1 && item->local.kind == CFSR_INBOX_BATCH)
        rc = weigh(v, &damage, header);
    if (rc < 0)
        return rc;
    finding.repaired = !finding.torn_tail && rc > 0; /* a REPAIR is of no use, and costs nothing */
    report_finding(v, finding);
    return 0;
}

static int check_tag(struct verify *v, const struct cfsr_inbox_item *item,
                     const struct cfsr_batch_header *header)
{
    const uint8_t *prefix = cfsr_inbox_item_prefix(item);
    int rc;

    if (v->options->check_tag == NULL)
        return 0;
    rc = v->options->check_tag(v->options->tag_user, header, prefix,
                               prefix + CFSR_BATCH_PREFIX_BYTES);
    v->report->tags += rc == 0;
    return rc;
}

static int check_body(struct verify *v, const struct cfsr_inbox_item *item,
                      const struct cfsr_batch_header *header)
{
    uint8_t extension[CFSR_BATCH_EXTENSION_MAX];
    struct cfsr_inbox_walk walk;
    int rc = header->lane == v->lane ? cfsr_inbox_item_check(&v->decoder, item, header)
                                     : -CFSR_E_FORMAT;

    if (rc == 0)
        rc = cfsr_inbox_item_decode(&v->decoder, v->site, item, header, v->decoder.raw, extension,
                                    &walk, NULL);
    return rc;
}

/* Its place in the order of its origin; the record itself is sound. */
static int check_order(struct verify *v, const struct cfsr_inbox_item *item,
                       const struct cfsr_batch_header *header, struct cfsr_inbox_delivered *known)
{
    bool cost_nothing = false;
    int rc = 0;

    if (header->lsn_from > known->lsn)
        rc = report_jump(v, item, finding_of(item, header, 0), &cost_nothing);
    if (!cost_nothing)
        known->lsn = cfsr_max_u64(known->lsn, header->lsn_to);
    return rc;
}

static int check_batch(struct verify *v, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_delivered *known;
    struct cfsr_batch_header header;
    bool batch = item->local.kind == CFSR_INBOX_BATCH;
    int rc = cfsr_inbox_item_header(item, &header);

    if (rc < 0) {
        report_finding(v, finding_of(item, NULL, rc));
        return 0;
    }
    known = cfsr_inbox_known_find(&v->known, header.site_id, &header.journal);
    if (known == NULL) {
        known = cfsr_inbox_known_of(&v->known, header.site_id, &header.journal);
        if (known == NULL)
            return -ENOSPC;
        known->lsn = v->known.fresh && batch ? header.lsn_from : 0;
    }
    rc = check_body(v, item, &header);
    if (rc < 0)
        return cfsr_inbox_is_verdict(rc) ? report_body(v, item, &header, rc) : rc;
    rc = check_tag(v, item, &header);
    if (rc < 0)
        report_finding(v, finding_of(item, &header, rc));
    v->report->repairs += !batch;
    v->report->batches += batch;
    v->report->stored_bytes += header.stored_bytes;
    if (!batch)
        return 0;
    v->report->entries += header.entry_count;
    return check_order(v, item, &header, known);
}

static int check_cursors(struct verify *v, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    bool ahead = false, back = false, ignored;
    uint32_t i, count;
    int rc;

    rc = cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                 item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                 &count);
    if (rc < 0) {
        report_finding(v, finding_of(item, NULL, rc));
        return 0;
    }
    for (i = 0; i < count; i++) {
        struct cfsr_inbox_delivered *known = cfsr_inbox_known_find(&v->known, cursor[i].site_id,
                                                                   &cursor[i].journal);
        uint64_t lsn = known == NULL ? 0 : known->lsn;

        ahead = ahead || lsn < cursor[i].lsn;
        /* Only a later incarnation may have given records up. */
        back = back || (lsn > cursor[i].lsn && item->local.incarnation == v->incarnation);
    }
    if (back && !v->known.fresh)
        report_finding(v, finding_of(item, NULL, -CFSR_E_BAD_ORDER));
    if (ahead && !v->known.fresh)
        rc = report_jump(v, item, finding_of(item, NULL, 0), &ignored);
    for (i = 0; rc == 0 && i < count; i++) {
        struct cfsr_inbox_delivered *known = cfsr_inbox_known_of(&v->known, cursor[i].site_id,
                                                                 &cursor[i].journal);

        if (known == NULL)
            return -ENOSPC;
        known->lsn = cfsr_max_u64(known->lsn, cursor[i].lsn);
    }
    v->known.fresh = false;
    v->unnamed.sequence = 0;
    return rc;
}

static int check_index(struct verify *v, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor origins[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_index *index = malloc(sizeof *index);
    uint32_t count;
    int rc;

    if (index == NULL)
        return -ENOMEM;
    rc = cfsr_inbox_index_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                               item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, index,
                               origins, &count);
    free(index);
    if (rc < 0)
        report_finding(v, finding_of(item, NULL, rc));
    return 0;
}

static void count_segment(struct verify *v)
{
    if (!v->log.open || v->log.sequence == v->sequence)
        return;
    v->sequence = v->log.sequence;
    v->report->segments++;
    if (v->log.scan.header_damaged)
        report_finding(v, (struct cfsr_inbox_finding){.sequence = v->sequence,
                                                      .end_sequence = v->sequence,
                                                      .header = true,
                                                      .error = -CFSR_E_CHECKSUM});
}

static int check_item(struct verify *v, const struct cfsr_inbox_item *item)
{
    int rc = 0;

    count_segment(v);
    v->report->records++;
    switch (item->local.kind) {
    case CFSR_INBOX_BATCH:
    case CFSR_INBOX_REPAIR: rc = check_batch(v, item); break;
    case CFSR_INBOX_CURSORS: rc = check_cursors(v, item); break;
    case CFSR_INBOX_INDEX: rc = check_index(v, item); break;
    default: break;
    }
    v->incarnation = item->local.incarnation;
    return rc;
}

/* What stands behind the end is what a crash left of blocks that were on their way. */
static int check_end(struct verify *v)
{
    struct cfsr_inbox_survey survey;
    int rc;

    if (!v->log.open || v->log.scan.complete)
        return 0;
    rc = cfsr_inbox_scan_survey(&v->log.scan, &survey);
    if (rc == 0 && survey.place != 0)
        report_finding(v, (struct cfsr_inbox_finding){.sequence = v->log.sequence,
                                                      .body_offset = v->log.scan.body_offset,
                                                      .end_sequence = v->log.sequence,
                                                      .end_offset = survey.end,
                                                      .torn_tail = true,
                                                      .error = -CFSR_E_CHECKSUM});
    return rc;
}

static int walk(struct verify *v, uint64_t first)
{
    struct cfsr_inbox_damage damage;
    struct cfsr_inbox_item item;
    int rc = 0;

    cfsr_inbox_log_init(&v->log, v->fs, v->site, v->lane, first);
    v->known.fresh = first > 1;
    while (rc == 0 && !v->torn) {
        rc = cfsr_inbox_log_step(&v->log, true, &item, &damage);
        if (rc == 0) {
            rc = check_end(v);
            break;
        }
        if (rc == CFSR_INBOX_LOG_DAMAGE)
            rc = report_damage(v, &damage);
        else if (rc == CFSR_INBOX_LOG_RECORD)
            rc = check_item(v, &item);
    }
    if (rc == 0 && v->unnamed.sequence != 0) /* what it cost is not known: readers stop here */
        report_finding(v, v->unnamed);
    return rc;
}

int cfsr_inbox_verify_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                           const struct cfsr_inbox_verify_options *options,
                           struct cfsr_inbox_verify_report *report)
{
    struct cfsr_inbox_range_of_segments range;
    struct verify *v;
    int rc;

    v = calloc(1, sizeof *v);
    if (v == NULL)
        return -ENOMEM;
    v->fs = fs;
    v->site = site;
    v->lane = lane;
    v->options = options;
    v->report = report;
    rc = cfsr_inbox_decoder_init(&v->decoder);
    if (rc == 0)
        rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc == 0 && range.last > 0)
        rc = walk(v, range.first);
    if (rc < 0)
        report->verdict = CFSR_INBOX_UNCHECKED;
    cfsr_inbox_log_close(&v->log);
    cfsr_inbox_repairs_free(&v->repairs);
    cfsr_inbox_decoder_fini(&v->decoder);
    free(v);
    return rc;
}
