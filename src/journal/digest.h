/*
 * digest.h - digests of a lane's records on a fixed grid, equal on two sites that hold the same
 * records.
 *
 * Window w holds the records whose first byte has an LSN in [w MiB, (w+1) MiB); its digest is the
 * SHA-256 of their wire form (PAD: header only), MARK and SHARDS included. Lane digest: SHA-256
 * over (u64le w ‖ digest of w) of the non-empty windows in order. Total: SHA-256 over the lane
 * digests in lane order. The feed takes wire-form bytes, so journal and inbox use the same code.
 */
#ifndef CFSR_JOURNAL_DIGEST_H
#define CFSR_JOURNAL_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/site.h"
#include "security/digest.h"

#define CFSR_DIGEST_WINDOW_BYTES (1ull << 20)

struct cfsr_lane_digest {
    struct cfsr_digest *window; /* owned */
    struct cfsr_digest *lane;   /* owned */
    uint64_t segment_bytes;
    uint64_t window_index;
    bool window_open;
    uint64_t records; /* fed so far */
    uint64_t entries;
    /* Called with each finished window; may be NULL. For range by range compare. */
    void (*on_window)(void *user, uint64_t index, const uint8_t digest[CFSR_DIGEST_LEN_BYTES]);
    void *user;
};

/* -ENOMEM. Free with _fini. */
int cfsr_lane_digest_begin(struct cfsr_lane_digest *digest, uint64_t segment_bytes);
/*
 * Whole records in wire form, the first at lsn, already checked by a scan; runs in ascending order
 * of LSN. The LSN after the last record (a boundary after a PAD) is returned.
 */
uint64_t cfsr_lane_digest_feed(struct cfsr_lane_digest *digest, uint64_t lsn, const void *records,
                               uint32_t len_bytes);
void cfsr_lane_digest_final(struct cfsr_lane_digest *digest,
                            uint8_t digest_out[CFSR_DIGEST_LEN_BYTES]);
void cfsr_lane_digest_fini(struct cfsr_lane_digest *digest);

/*
 * Digest of one lane of the local journal over the records in [from_lsn, to_lsn); from_lsn must be
 * a record's first byte. -CFSR_E_DAMAGED, -CFSR_E_GONE, -CFSR_E_MISSING_SEGMENT, -errno.
 * entries_out may be NULL.
 */
int cfsr_journal_digest_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                             uint64_t from_lsn, uint64_t to_lsn,
                             uint8_t digest_out[CFSR_DIGEST_LEN_BYTES], uint64_t *entries_out);
/* Total over lane digests, lane after lane. */
int cfsr_digest_total(const uint8_t (*lane_digests)[CFSR_DIGEST_LEN_BYTES], uint32_t lanes,
                      uint8_t digest_out[CFSR_DIGEST_LEN_BYTES]);

#endif
