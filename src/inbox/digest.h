/*
 * digest.h - digest of one origin's lane as it stands in the inbox: equal to the origin's own
 * (journal/digest.h).
 */
#ifndef CFSR_INBOX_DIGEST_H
#define CFSR_INBOX_DIGEST_H

#include "inbox/reader.h"
#include "journal/digest.h"

struct cfsr_inbox_lane_digest {
    struct cfsr_uuid journal;
    uint64_t from_lsn, to_lsn; /* equal: nothing of this origin */
    uint64_t records, entries;
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
};

/* Of the origin's newest journal, up to limit_lsn (UINT64_MAX: all). -CFSR_E_DAMAGED, -CFSR_E_GONE,
 * -errno. */
int cfsr_inbox_digest_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                           uint64_t origin_site, uint64_t limit_lsn,
                           struct cfsr_inbox_lane_digest *digest_out);

#endif
