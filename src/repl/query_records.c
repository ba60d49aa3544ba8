/*
 * query_records.c - checks of fetched records (query_records.h).
 *
 * Thread:     the helper's.
 * Invariants: the order of law 7: tag → digest → bounded decompression → records; nothing is given
 * out before the last check passed.
 * Rejected:   believing a peer because the connection is authenticated (it may hold what somebody
 * else forged, or rot of its own), and re-signing what a third site holds (only the origin signs).
 */
#include "repl/query_records.h"

#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/fail.h"
#include "repl/session.h"

static int check_identity(struct cfsr_records_check *check)
{
    const struct cfsr_batch_header *h = &check->header;

    if (check->frame_bytes < CFSR_BATCH_PREFIX_BYTES)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "a frame of %u bytes", check->frame_bytes);
    int rc = cfsr_batch_header_load(check->frame, &check->header);
    if (rc < 0)
        return rc;
    if ((uint64_t)CFSR_BATCH_PREFIX_BYTES + h->extension_bytes + h->stored_bytes !=
        check->frame_bytes)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "a frame of %u bytes declares %u of body",
                         check->frame_bytes, h->stored_bytes);
    if (h->flags != 0 || h->hole_count != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "a partial or forwarded frame repairs nobody");
    if (h->site_id != check->origin || h->lane != check->lane ||
        !cfsr_uuid_equal(&h->journal, &check->journal))
        return cfsr_fail(-CFSR_E_BAD_FRAME, "records of site %llu, lane %u instead of %llu, %u",
                         (unsigned long long)h->site_id, h->lane, (unsigned long long)check->origin,
                         check->lane);
    if (check->lsn < h->lsn_from || check->lsn >= h->lsn_to)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "records of [%llu, %llu) where %llu was asked for",
                         (unsigned long long)h->lsn_from, (unsigned long long)h->lsn_to,
                         (unsigned long long)check->lsn);
    return 0;
}

static int check_tag_for(const struct cfsr_records_check *check, uint64_t destination,
                         const uint8_t *prefix, const struct cfsr_batch_header *header)
{
    struct cfsr_mac_key *key = NULL;
    int rc = cfsr_session_batch_key(check->keyring, header->key_id, &check->site->cluster,
                                    check->origin, destination, &key);

    if (rc == 0)
        rc = cfsr_batch_check_tag(key, prefix, prefix + CFSR_BATCH_PREFIX_BYTES,
                                  header->extension_bytes);
    cfsr_mac_key_destroy(key);
    return rc;
}

/* The body of somebody else's copy under the prefix that the origin signed for us. */
static int adopt_own_prefix(struct cfsr_records_check *check)
{
    struct cfsr_batch_header own;

    if (check->own_prefix == NULL || check->own_prefix_bytes < CFSR_BATCH_PREFIX_BYTES)
        return -CFSR_E_BAD_TAG;
    int rc = cfsr_batch_header_load(check->own_prefix, &own);
    if (rc < 0)
        return rc;
    /* Equal sizes: the prefix takes the other's place byte for byte. */
    if (own.extension_bytes != 0 || own.flags != 0 || own.site_id != check->origin ||
        own.lane != check->lane || !cfsr_uuid_equal(&own.journal, &check->journal) ||
        check->header.extension_bytes != 0 || own.lsn_from != check->header.lsn_from ||
        own.lsn_to != check->header.lsn_to || own.stored_bytes != check->header.stored_bytes ||
        memcmp(own.digest, check->header.digest, sizeof own.digest) != 0)
        return -CFSR_E_BAD_TAG;
    rc = check_tag_for(check, check->site->site_id, check->own_prefix, &own);
    if (rc < 0)
        return rc;
    memcpy(check->frame, check->own_prefix, CFSR_BATCH_PREFIX_BYTES);
    check->header = own;
    return 0;
}

static int authenticate(struct cfsr_records_check *check)
{
    int rc = -CFSR_E_BAD_KEY;

    for (uint32_t i = 0; i < check->destination_count; i++) {
        if (check->destinations[i] == check->origin)
            continue; /* nobody signs for himself */
        int one = check_tag_for(check, check->destinations[i], check->frame, &check->header);
        if (one == 0)
            return 0;
        if (one != -CFSR_E_BAD_KEY)
            rc = one;
    }
    int adopted = adopt_own_prefix(check);
    if (adopted == 0)
        return 0;
    return cfsr_fail(rc, "records [%llu, %llu) of site %llu carry no signature this site can check",
                     (unsigned long long)check->header.lsn_from,
                     (unsigned long long)check->header.lsn_to, (unsigned long long)check->origin);
}

int cfsr_records_check(struct cfsr_records_check *check)
{
    const struct cfsr_site *site = check->site;
    const struct cfsr_batch_header *h = &check->header;
    int rc = check_identity(check);

    if (rc == 0)
        rc = authenticate(check);
    if (rc < 0)
        return rc;
    const uint8_t *body = check->frame + CFSR_BATCH_PREFIX_BYTES + h->extension_bytes;
    rc = cfsr_batch_check_body(check->codec, h, body);
    if (rc == 0)
        rc = cfsr_batch_decode(check->codec, h, body, check->raw, CFSR_BATCH_BODY_MAX_BYTES);
    if (rc < 0)
        return rc;
    check->scan = (struct cfsr_scan){
        .data = check->raw,
        .len_bytes = h->original_bytes,
        .wire_form = true,
        .lsn = h->lsn_from,
        .segment_bytes = site->segment_bytes,
        .seed = cfsr_record_seed(&h->journal),
        .site_id = h->site_id,
        .lane = h->lane,
        .lanes = site->lanes,
        .shards = site->shards,
    };
    rc = cfsr_record_scan(&check->scan);
    if (rc == 0 && (check->scan.record_count == 0 || check->scan.raw_bytes != h->original_bytes ||
                    check->scan.next_lsn != h->lsn_to || check->scan.entry_count != h->entry_count))
        rc = cfsr_fail(-CFSR_E_BAD_FRAME, "the records end at %llu, the frame says %llu",
                       (unsigned long long)check->scan.next_lsn, (unsigned long long)h->lsn_to);
    return rc;
}

int cfsr_records_cut(const struct cfsr_records_check *check, uint64_t lsn_from, uint64_t lsn_to,
                     const uint8_t **records_out, uint32_t *len_out)
{
    uint64_t lsn = check->header.lsn_from;
    uint32_t begin = UINT32_MAX, at = 0;

    while (at < check->header.original_bytes && lsn < lsn_to) {
        struct cfsr_record_header header;
        cfsr_record_header_load(check->raw + at, &header);
        uint64_t end = lsn + cfsr_record_total_bytes(&header);
        if (lsn == lsn_from)
            begin = at;
        if (lsn >= lsn_from && end > lsn_to)
            break;
        at += cfsr_record_wire_bytes(&header);
        lsn = end;
    }
    if (begin == UINT32_MAX || at <= begin)
        return cfsr_fail(-CFSR_E_BAD_ORDER, "no record begins at %llu in what the peer holds",
                         (unsigned long long)lsn_from);
    if (lsn < lsn_to && at < check->header.original_bytes)
        return cfsr_fail(-CFSR_E_BAD_ORDER, "a record at %llu reaches beyond the damaged range",
                         (unsigned long long)lsn);
    *records_out = check->raw + begin;
    *len_out = at - begin;
    return 0;
}
