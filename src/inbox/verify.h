/*
 * verify.h - every record of an inbox lane checked: local header, prefix, digest, records, order,
 * and, with keys, batch tags.
 */
#ifndef CFSR_INBOX_VERIFY_H
#define CFSR_INBOX_VERIFY_H

#include "inbox/gap.h"

enum cfsr_inbox_verdict {
    CFSR_INBOX_SOUND = 0,
    CFSR_INBOX_DAMAGED = 1,
    CFSR_INBOX_UNCHECKED = 2, /* something could not be read */
};

struct cfsr_inbox_finding {
    uint32_t lane;
    uint64_t sequence;
    uint64_t body_offset, end_offset;   /* the bytes in question */
    uint64_t arrival;                   /* 0: not known */
    uint64_t site_id, lsn_from, lsn_to; /* of the batch, if its prefix is sound; else 0 */
    bool torn_tail; /* above everything known to be durable: what a crash leaves, not damage */
    bool repaired;  /* damaged bytes whose content REPAIR records (or batches sent again) hold */
    bool header;    /* of the segment's own header: it costs no record */
    uint64_t
        end_sequence; /* the damage reaches to end_offset of this segment; usually `sequence` */
    int error;        /* -CFSR_E_* or -errno */
};

struct cfsr_inbox_verify_options {
    /* 0, or an error such as -CFSR_E_BAD_TAG or -CFSR_E_BAD_KEY. NULL: tags are not checked. */
    int (*check_tag)(void *user, const struct cfsr_batch_header *header, const void *prefix,
                     const void *extension);
    void *tag_user;
    void (*on_finding)(void *user, const struct cfsr_inbox_finding *finding); /* may be NULL */
    void *user;
};

/* Counts add up over lanes; begin with zeros. */
struct cfsr_inbox_verify_report {
    enum cfsr_inbox_verdict verdict;
    uint64_t segments, records, batches, tags, entries, stored_bytes, torn_bytes, findings;
    uint64_t repairs; /* sound REPAIR records */
    uint64_t damaged; /* findings that are neither torn nor repaired */
};

/* 0 when the lane was looked at, whatever the verdict; -errno when it could not be (verdict
 * UNCHECKED). */
int cfsr_inbox_verify_lane(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                           const struct cfsr_inbox_verify_options *options,
                           struct cfsr_inbox_verify_report *report);

#endif
