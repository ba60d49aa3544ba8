/*
 * verify.c - reads a whole lane of the inbox and says what is wrong with it.
 *
 * Thread:     a tool's or a helper's; blocking, read only.
 * Invariants: damage never ends the walk: it goes on at the next block that begins with a sound
 * record. A bad place is a torn tail only when it lies in the last segment begun and no later
 * record says that it was durable. Rejected:   one verdict for the first error only (repair needs
 * the whole list).
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
    struct cfsr_inbox_scan scan;
    uint64_t durable_below; /* of the segment at hand; all of it when a later one was begun */
    uint64_t adopt; /* origins whose position is not known: at the beginning, and behind a damaged
                       place */
    uint32_t origins;
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
};

static void report_finding(struct verify *v, struct cfsr_inbox_finding finding)
{
    finding.lane = v->lane;
    finding.sequence = v->scan.sequence;
    finding.torn_tail = finding.body_offset >= v->durable_below;
    if (finding.torn_tail)
        v->report->torn_bytes += finding.end_offset - finding.body_offset;
    else if (v->report->verdict == CFSR_INBOX_SOUND)
        v->report->verdict = CFSR_INBOX_DAMAGED;
    v->report->findings++;
    if (v->options->on_finding != NULL)
        v->options->on_finding(v->options->user, &finding);
}

static void report_item(struct verify *v, const struct cfsr_inbox_item *item,
                        const struct cfsr_batch_header *header, int error)
{
    struct cfsr_inbox_finding finding = {
        .body_offset = item->body_offset,
        .end_offset = item->body_offset + item->local.record_bytes,
        .arrival = item->local.arrival,
        .error = error,
    };

    if (header != NULL) {
        finding.site_id = header->site_id;
        finding.lsn_from = header->lsn_from;
        finding.lsn_to = header->lsn_to;
    }
    report_finding(v, finding);
}

static struct cfsr_inbox_cursor *cursor_of(struct verify *v, uint64_t site_id,
                                           const struct cfsr_uuid *journal)
{
    uint32_t i;

    for (i = 0; i < v->origins; i++) {
        if (v->cursor[i].site_id == site_id && cfsr_uuid_equal(&v->cursor[i].journal, journal))
            return &v->cursor[i];
    }
    if (i == CFSR_INBOX_ORIGINS_MAX)
        return NULL;
    v->cursor[i] = (struct cfsr_inbox_cursor){.site_id = site_id, .journal = *journal};
    v->origins++;
    return &v->cursor[i];
}

static uint64_t bit_of(const struct verify *v, const struct cfsr_inbox_cursor *cursor)
{
    return 1ull << (cursor - v->cursor);
}

static int check_order(struct verify *v, const struct cfsr_batch_header *header)
{
    struct cfsr_inbox_cursor *cursor = cursor_of(v, header->site_id, &header->journal);
    bool gap;

    if (cursor == NULL || header->lane != v->lane)
        return -CFSR_E_FORMAT;
    gap = (v->adopt & bit_of(v, cursor)) == 0 && header->lsn_from > cursor->lsn;
    v->adopt &= ~bit_of(v, cursor);
    cursor->lsn = cfsr_max_u64(cursor->lsn, header->lsn_to);
    return gap ? -CFSR_E_BAD_ORDER : 0;
}

static void check_batch(struct verify *v, struct cfsr_inbox_item *item)
{
    uint8_t extension[CFSR_BATCH_EXTENSION_MAX];
    struct cfsr_batch_header header;
    struct cfsr_inbox_walk walk;
    const uint8_t *prefix = item->record + CFSR_INBOX_LOCAL_HEADER_BYTES;
    int rc;

    rc = cfsr_inbox_item_header(item, &header);
    if (rc < 0) {
        report_item(v, item, NULL, rc);
        return;
    }
    v->report->batches++;
    v->report->stored_bytes += header.stored_bytes;
    rc = check_order(v, &header);
    if (rc == 0)
        rc = cfsr_inbox_item_check(&v->decoder, item, &header);
    if (rc == 0 && v->options->check_tag != NULL) {
        rc = v->options->check_tag(v->options->tag_user, &header, prefix,
                                   prefix + CFSR_BATCH_PREFIX_BYTES);
        v->report->tags += rc == 0;
    }
    if (rc == 0)
        rc = cfsr_inbox_item_decode(&v->decoder, v->site, item, &header, v->decoder.raw, extension,
                                    &walk, NULL);
    if (rc == 0)
        v->report->entries += header.entry_count;
    else
        report_item(v, item, &header, rc);
}

static void check_cursors(struct verify *v, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    uint32_t i, count;
    int rc;

    rc = cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                 item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                 &count);
    for (i = 0; rc == 0 && i < count; i++) {
        struct cfsr_inbox_cursor *known = cursor_of(v, cursor[i].site_id, &cursor[i].journal);

        if (known == NULL)
            rc = -CFSR_E_FORMAT;
        else if ((v->adopt & bit_of(v, known)) == 0 && known->lsn != cursor[i].lsn)
            rc = -CFSR_E_BAD_ORDER;
        if (known != NULL)
            known->lsn = cursor[i].lsn;
    }
    v->adopt = 0;
    if (rc < 0)
        report_item(v, item, NULL, rc);
}

static void check_index(struct verify *v, const struct cfsr_inbox_item *item)
{
    struct cfsr_inbox_cursor origins[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_index *index = malloc(sizeof *index);
    uint32_t count;
    int rc = -ENOMEM;

    if (index != NULL)
        rc = cfsr_inbox_index_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                   item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, index,
                                   origins, &count);
    free(index);
    if (rc < 0)
        report_item(v, item, NULL, rc);
}

/* How far the segment's records vouch for what is before them. */
static int find_durable(struct verify *v, bool closed)
{
    struct cfsr_inbox_item item;
    int rc;

    v->durable_below = closed ? v->site->segment_bytes : 0;
    if (closed)
        return 0;
    do {
        while ((rc = cfsr_inbox_scan_next(&v->scan, false, &item)) == 1)
            v->durable_below = cfsr_max_u64(v->durable_below, item.local.durable_below);
        if (rc == 0 && !v->scan.complete)
            rc = cfsr_inbox_scan_resync(&v->scan);
    } while (rc == 1);
    v->scan.body_offset = 0;
    v->scan.arrival = 0;
    v->scan.incarnation = 0;
    v->scan.complete = false;
    return rc;
}

static int walk_segment(struct verify *v, uint64_t *arrival, uint64_t *incarnation)
{
    struct cfsr_inbox_item item;
    int rc;

    v->scan.arrival = *arrival;
    v->scan.incarnation = *incarnation;
    for (;;) {
        uint64_t bad = v->scan.body_offset;

        while ((rc = cfsr_inbox_scan_next(&v->scan, true, &item)) == 1) {
            v->report->records++;
            if (item.local.kind == CFSR_INBOX_BATCH)
                check_batch(v, &item);
            else if (item.local.kind == CFSR_INBOX_CURSORS)
                check_cursors(v, &item);
            else if (item.local.kind == CFSR_INBOX_INDEX)
                check_index(v, &item);
            bad = v->scan.body_offset;
        }
        *arrival = v->scan.arrival;
        *incarnation = v->scan.incarnation;
        if (rc < 0 || v->scan.complete)
            return rc;
        rc = cfsr_inbox_scan_resync(&v->scan);
        if (rc <= 0)
            return rc;
        v->adopt = UINT64_MAX;
        report_finding(v, (struct cfsr_inbox_finding){.body_offset = bad,
                                                      .end_offset = v->scan.body_offset,
                                                      .error = -CFSR_E_CHECKSUM});
    }
}

/* True if any record says that the segment was written to. */
static int is_begun(struct verify *v, uint64_t sequence, bool *begun_out)
{
    struct cfsr_inbox_probe probe = {0};
    struct cfsr_inbox_item item;
    struct cfsr_inbox_scan scan;
    int rc;

    rc = cfsr_inbox_scan_open(v->fs, v->site, v->lane, sequence, false, &scan);
    if (rc < 0)
        return rc;
    rc = cfsr_inbox_scan_next(&scan, false, &item);
    *begun_out = rc == 1;
    if (rc == 0) {
        rc = cfsr_inbox_scan_probe(&scan, &probe);
        *begun_out = probe.durable_below > 0;
    }
    cfsr_inbox_scan_close(&scan);
    return rc < 0 ? rc : 0;
}

static int verify_segments(struct verify *v, const struct cfsr_inbox_range_of_segments *range)
{
    uint64_t sequence, last = range->last, arrival = 0, incarnation = 0;
    bool begun = false;
    int rc = 0;

    for (; rc == 0 && last >= range->first && last > 0 && !begun; last--)
        rc = is_begun(v, last, &begun);
    last++; /* the loop went one below the one it found */
    for (sequence = range->first; rc == 0 && begun && sequence <= last; sequence++) {
        rc = cfsr_inbox_scan_open(v->fs, v->site, v->lane, sequence, false, &v->scan);
        if (rc < 0)
            break;
        v->report->segments++;
        rc = find_durable(v, sequence < last);
        if (rc == 0)
            rc = walk_segment(v, &arrival, &incarnation);
        cfsr_inbox_scan_close(&v->scan);
    }
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
    v->adopt = UINT64_MAX;
    rc = cfsr_inbox_decoder_init(&v->decoder);
    if (rc == 0)
        rc = cfsr_inbox_list_segments(fs, site, lane, &range);
    if (rc == 0)
        rc = verify_segments(v, &range);
    if (rc < 0)
        report->verdict = CFSR_INBOX_UNCHECKED;
    cfsr_inbox_decoder_fini(&v->decoder);
    free(v);
    return rc;
}
