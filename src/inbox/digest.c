/*
 * digest.c - digest of one origin's lane from the inbox.
 *
 * Thread:     a tool's; blocking.
 * Invariants: fed with every record once, in LSN order, by the reader that skips overlaps; a new
 * journal of the origin begins anew. Rejected:   digests of frames: their boundaries differ between
 * two sites that hold the same records.
 */
#include "inbox/digest.h"

#include "base/bytes.h"

static int feed(struct cfsr_lane_digest *digest, bool *begun, const struct cfsr_site *site,
                const struct cfsr_inbox_record *record, struct cfsr_inbox_lane_digest *out)
{
    int rc;

    if (*begun && memcmp(out->journal.bytes, record->journal, sizeof record->journal) != 0) {
        cfsr_lane_digest_fini(digest);
        *begun = false;
    }
    if (!*begun) {
        rc = cfsr_lane_digest_begin(digest, site->segment_bytes);
        if (rc < 0)
            return rc;
        *begun = true;
        memcpy(out->journal.bytes, record->journal, sizeof record->journal);
        out->from_lsn = record->lsn;
    }
    out->to_lsn = cfsr_lane_digest_feed(digest, record->lsn, record->raw, record->raw_bytes);
    return 0;
}

int cfsr_inbox_digest_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                           uint64_t origin_site, uint64_t limit_lsn,
                           struct cfsr_inbox_lane_digest *digest_out)
{
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .site_id = origin_site, .lane = lane, .all_records = true};
    struct cfsr_inbox_lane_digest result = {0};
    struct cfsr_inbox_record record;
    struct cfsr_lane_digest digest;
    struct cfsr_inbox *inbox;
    bool begun = false;
    int rc;

    rc = cfsr_inbox_open_at(fs, site, &options, &inbox);
    if (rc < 0)
        return rc;
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        if (record.lsn >= limit_lsn)
            continue;
        rc = feed(&digest, &begun, site, &record, &result);
        if (rc < 0)
            break;
    }
    if (rc == 0 && !begun)
        rc = cfsr_lane_digest_begin(&digest, site->segment_bytes);
    begun = begun || rc == 0;
    if (rc == 0) {
        result.records = digest.records;
        result.entries = digest.entries;
        cfsr_lane_digest_final(&digest, result.digest);
        *digest_out = result;
    }
    if (begun)
        cfsr_lane_digest_fini(&digest);
    cfsr_inbox_close(inbox);
    return rc;
}
