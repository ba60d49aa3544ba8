/*
 * consumer.h - named positions in the inbox: DATA/inbox/consumers/<name>.
 *
 * Two slots, written in turn with a generation and a CRC: a torn commit leaves the one before
 * (docs/inbox-format.md).
 */
#ifndef CFSR_INBOX_CONSUMER_H
#define CFSR_INBOX_CONSUMER_H

#include <cfsrepl/inbox.h>

#include "inbox/format.h"

#define CFSR_CONSUMER_OWNER_MAX 63

/* What was delivered of one origin's lane. */
struct cfsr_inbox_delivered {
    uint64_t site_id;
    struct cfsr_uuid journal;
    uint64_t lsn; /* everything below */
};

/* Of one lane: where to read on (a hint that also holds retention), and what was delivered (the
 * truth). */
struct cfsr_inbox_position {
    uint64_t sequence; /* 0: nothing read yet */
    uint64_t body_offset;
    uint64_t arrival; /* of the record there */
    uint32_t origins;
    struct cfsr_inbox_delivered origin[CFSR_INBOX_ORIGINS_MAX];
};

struct cfsr_consumer {
    char name[CFSR_CONSUMER_NAME_MAX + 1];
    char owner[CFSR_CONSUMER_OWNER_MAX + 1];
    uint64_t ttl_ms, site_id, committed_at_us, generation;
    uint32_t lanes;
    struct cfsr_file *file;
    uint8_t *slot; /* staging of one slot */
    uint32_t slot_bytes;
    struct cfsr_inbox_position *position; /* lanes */
};

bool cfsr_consumer_name_is_valid(const char *name);
/* Opens, locked when lock is true; creates when create is true and it is not there. -ENOENT,
 * -CFSR_E_LOCKED, -CFSR_E_CHECKSUM, -CFSR_E_FOREIGN. */
int cfsr_consumer_open(struct cfsr_fs *fs, const struct cfsr_site *site, const char *name,
                       bool lock, bool create, struct cfsr_consumer **consumer_out);
void cfsr_consumer_close(struct cfsr_consumer *consumer);
/* Makes owner, TTL and positions durable. */
int cfsr_consumer_store(struct cfsr_consumer *consumer, const struct cfsr_site *site,
                        uint64_t now_us);
bool cfsr_consumer_is_expired(const struct cfsr_consumer *consumer, uint64_t now_us);
int cfsr_consumer_remove(struct cfsr_fs *fs, const struct cfsr_site *site, const char *name);
/* Visits the names. */
int cfsr_consumer_list(struct cfsr_fs *fs, const struct cfsr_site *site,
                       int (*visit)(void *user, const char *name), void *user);

#endif
