/*
 * digest.c - digests of a lane on the 1 MiB grid of LSNs; see digest.h.
 *
 * Thread:     the caller's.
 * Rejected:   windows of file bytes (a record across two windows would belong to both), digests of
 * frames (their borders are the sender's choice, and differ between two peers that hold the same
 * records).
 */
#include "journal/digest.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "journal/record.h"
#include "journal/segment_map.h"

int cfsr_lane_digest_begin(struct cfsr_lane_digest *digest, uint64_t segment_bytes)
{
    int rc;

    *digest = (struct cfsr_lane_digest){.segment_bytes = segment_bytes};
    rc = cfsr_digest_create(&digest->window);
    if (rc == 0)
        rc = cfsr_digest_create(&digest->lane);
    if (rc < 0) {
        cfsr_lane_digest_fini(digest);
        return rc;
    }
    cfsr_digest_begin(digest->lane);
    return 0;
}

void cfsr_lane_digest_fini(struct cfsr_lane_digest *digest)
{
    if (digest->window != NULL)
        cfsr_digest_destroy(digest->window);
    if (digest->lane != NULL)
        cfsr_digest_destroy(digest->lane);
    digest->window = NULL;
    digest->lane = NULL;
}

static void close_window(struct cfsr_lane_digest *digest)
{
    uint8_t index[8], bytes[CFSR_DIGEST_LEN_BYTES];

    if (!digest->window_open)
        return;
    cfsr_digest_final(digest->window, bytes);
    cfsr_store_le64(index, digest->window_index);
    cfsr_digest_update(digest->lane, index, sizeof index);
    cfsr_digest_update(digest->lane, bytes, sizeof bytes);
    digest->window_open = false;
    if (digest->on_window != NULL)
        digest->on_window(digest->user, digest->window_index, bytes);
}

static void add_bytes(struct cfsr_lane_digest *digest, uint64_t index, const uint8_t *bytes,
                      uint64_t len_bytes)
{
    if (len_bytes == 0)
        return;
    if (digest->window_open && digest->window_index != index)
        close_window(digest);
    if (!digest->window_open) {
        cfsr_digest_begin(digest->window);
        digest->window_index = index;
        digest->window_open = true;
    }
    cfsr_digest_update(digest->window, bytes, len_bytes);
}

uint64_t cfsr_lane_digest_feed(struct cfsr_lane_digest *digest, uint64_t lsn, const void *records,
                               uint32_t len_bytes)
{
    const uint8_t *p = records, *end = p + len_bytes, *run = p;
    uint64_t index = lsn / CFSR_DIGEST_WINDOW_BYTES;

    while (p < end) {
        struct cfsr_record_header header;

        cfsr_record_header_load(p, &header);
        if (lsn / CFSR_DIGEST_WINDOW_BYTES != index) {
            add_bytes(digest, index, run, (uint64_t)(p - run));
            run = p;
            index = lsn / CFSR_DIGEST_WINDOW_BYTES;
        }
        digest->records++;
        digest->entries += cfsr_record_is_entry(header.op);
        p += cfsr_record_wire_bytes(&header);
        lsn += cfsr_record_total_bytes(&header);
        if (digest->segment_bytes - lsn % digest->segment_bytes < CFSR_RECORD_HEADER_BYTES)
            lsn = lsn - lsn % digest->segment_bytes + digest->segment_bytes;
    }
    add_bytes(digest, index, run, (uint64_t)(p - run));
    return lsn;
}

void cfsr_lane_digest_final(struct cfsr_lane_digest *digest,
                            uint8_t digest_out[CFSR_DIGEST_LEN_BYTES])
{
    close_window(digest);
    cfsr_digest_final(digest->lane, digest_out);
}

static int feed_lane(struct cfsr_lane_cursor *cursor, uint64_t to_lsn,
                     struct cfsr_lane_digest *digest)
{
    int rc;

    while ((rc = cfsr_lane_cursor_next(cursor, to_lsn)) == 1)
        (void)cfsr_lane_digest_feed(digest, cursor->scan.lsn, cursor->scan.data,
                                    cursor->scan.raw_bytes);
    if (rc == -ENOENT)
        return cfsr_fail(-CFSR_E_MISSING_SEGMENT,
                         "lane %" PRIu32 ": the segment of LSN %" PRIx64 " is not there",
                         cursor->lane, cursor->lsn);
    if (cfsr_segment_is_damage(rc))
        return cfsr_fail(-CFSR_E_DAMAGED, "lane %" PRIu32 ": no record begins at LSN %" PRIx64,
                         cursor->lane, cursor->lsn);
    return rc;
}

int cfsr_journal_digest_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                             uint64_t from_lsn, uint64_t to_lsn,
                             uint8_t digest_out[CFSR_DIGEST_LEN_BYTES], uint64_t *entries_out)
{
    struct cfsr_lane_cursor cursor;
    struct cfsr_lane_digest digest;
    int rc = cfsr_lane_cursor_init(&cursor, fs, site, lane, from_lsn);

    if (rc < 0)
        return rc;
    rc = cfsr_lane_digest_begin(&digest, site->segment_bytes);
    if (rc == 0) {
        rc = feed_lane(&cursor, to_lsn, &digest);
        if (rc == 0) {
            cfsr_lane_digest_final(&digest, digest_out);
            if (entries_out != NULL)
                *entries_out = digest.entries;
        }
        cfsr_lane_digest_fini(&digest);
    }
    cfsr_lane_cursor_fini(&cursor);
    return rc;
}

int cfsr_digest_total(const uint8_t (*lane_digests)[CFSR_DIGEST_LEN_BYTES], uint32_t lanes,
                      uint8_t digest_out[CFSR_DIGEST_LEN_BYTES])
{
    struct cfsr_digest *digest;
    int rc = cfsr_digest_create(&digest);

    if (rc < 0)
        return rc;
    cfsr_digest_sha256(digest, lane_digests, (size_t)lanes * CFSR_DIGEST_LEN_BYTES, digest_out);
    cfsr_digest_destroy(digest);
    return 0;
}
