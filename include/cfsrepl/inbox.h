/*
 * inbox.h - read what other sites sent: records of the inbox in apply order, each exactly once.
 *
 * A reader takes all lanes as one stream in (timestamp, site, lane, LSN) order, or one lane in the
 * order of arrival. Named consumers have a durable position: what was returned before
 * cfsr_inbox_commit() is never returned again, and segments above the position are kept. Only
 * durable records are returned. A reader belongs to one thread; any number of readers may be open.
 * Link with libcfsrepl.
 */
#ifndef CFSREPL_INBOX_H
#define CFSREPL_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cfsrepl/error.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CFSR_INBOX_ALL_LANES   UINT32_MAX
#define CFSR_CONSUMER_NAME_MAX 63 /* letters, digits, '-', '_', '.'; not beginning with '.' */

struct cfsr_inbox;

struct cfsr_inbox_options {
    size_t opts_size; /* sizeof(struct cfsr_inbox_options) */
    const char *data_dir;
    const char *consumer; /* NULL: from the oldest record kept, without a durable position.
                             Registered when new. */
    const char *owner;    /* of a new consumer: who to ask, for people; NULL: "" */
    uint64_t ttl_ms; /* of a consumer: it stops holding segments this long after its last commit; 0:
                        never */
    uint64_t site_id; /* only records of this origin; 0: of all. Fixed for a consumer when it is
                         registered */
    uint32_t lane;    /* one lane, or CFSR_INBOX_ALL_LANES (= UINT32_MAX) */
    bool follow;      /* wait for more at the end */
    bool all_records; /* PAD, MARK and SHARDS too */
    uint32_t merge_wait_ms; /* follow: a lane silent for so long no longer holds the others back; 0:
                               200 */
};

struct cfsr_inbox_record {
    uint64_t site_id; /* origin */
    uint8_t journal[16];
    uint32_t lane;
    uint64_t lsn, end_lsn; /* in the origin's lane */
    uint64_t seq, timestamp_us, inode;
    uint32_t shard_id;
    uint8_t op; /* enum cfsr_op; with all_records also 240 PAD, 241 MARK, 242 SHARDS */
    uint8_t flags;
    const void *payload;    /* valid until the next call on the reader */
    uint32_t payload_bytes; /* PAD: 0 */
    const void
        *raw; /* the record as the origin wrote it: header, payload, padding (PAD: its header) */
    uint32_t raw_bytes;
    uint64_t arrival;       /* number of the inbox record that brought it, in the lane */
    uint64_t arrived_at_us; /* µs since the Unix epoch, this site's clock */
};

/* A batch as it rests in the inbox. */
struct cfsr_inbox_batch {
    uint32_t lane;
    uint64_t sequence, body_offset; /* of the segment; in its body */
    uint64_t arrival, arrived_at_us;
    uint64_t site_id;
    uint8_t journal[16];
    uint64_t incarnation; /* of the origin's journal */
    uint64_t lsn_from, lsn_to;
    uint64_t epoch;
    uint64_t prepared_at_us;
    uint32_t entries, new_entries;
    uint32_t original_bytes, stored_bytes;
    uint32_t key_id;
    uint16_t flags, holes;
    uint8_t codec, level;
};

/* -ENOENT no site here, -CFSR_E_LOCKED the consumer is open elsewhere, -CFSR_E_GONE,
 * -CFSR_E_CONFIG, -errno. */
int cfsr_inbox_open(const struct cfsr_inbox_options *options, struct cfsr_inbox **inbox_out);
void cfsr_inbox_close(
    struct cfsr_inbox *inbox); /* what was not committed is returned again next time */

/*
 * 1 and the next record; 0 at the end, or, following, when timeout_ms passed. -CFSR_E_GONE: the
 * position was recycled; -CFSR_E_DAMAGED; -errno. Order: over all lanes, smallest (timestamp, site,
 * lane, LSN) first. Not following it is exact; following it is exact up to the watermark of every
 * lane that had anything new within merge_wait_ms. Within an origin's lane it is always the
 * origin's order.
 */
int cfsr_inbox_next(struct cfsr_inbox *inbox, uint32_t timeout_ms,
                    struct cfsr_inbox_record *record_out);
/* 1 and the next batch, lane by lane in order of arrival, without decoding it; 0 at the end. Not to
 * be mixed with cfsr_inbox_next(). */
int cfsr_inbox_next_batch(struct cfsr_inbox *inbox, struct cfsr_inbox_batch *batch_out);
/* Consumers: makes the position after the last returned record durable. -EINVAL without a consumer.
 */
int cfsr_inbox_commit(struct cfsr_inbox *inbox);

struct cfsr_consumer_info {
    const char *name, *owner;
    uint64_t ttl_ms, site_id;
    uint64_t committed_at_us;
    bool expired;
    uint32_t lanes;
    const uint64_t *sequence; /* lanes numbers: the lowest segment each lane still needs */
};
/* Calls visit for each consumer, in no order; a non-zero return stops and is returned. */
int cfsr_inbox_consumers(const char *data_dir,
                         int (*visit)(void *user, const struct cfsr_consumer_info *info),
                         void *user);
/* -ENOENT, -CFSR_E_LOCKED (in use). */
int cfsr_inbox_remove_consumer(const char *data_dir, const char *name);

#ifdef __cplusplus
}
#endif
#endif
