/* support.h - a made-up origin, a driver for the writer of a lane, and a site to put it in. */
#ifndef CFSR_TEST_INBOX_SUPPORT_H
#define CFSR_TEST_INBOX_SUPPORT_H

#include "inbox/reader.h"

/* Record sizes are multiples of it, so a segment never ends in less than a header. */
#define TEST_RECORD_UNIT 64

struct test_random {
    uint64_t state;
};
uint64_t test_random_next(struct test_random *random);
uint64_t test_random_below(struct test_random *random, uint64_t limit);

/* One lane of an origin; its records can be made again from any record boundary. */
struct test_origin {
    struct cfsr_site *site;
    struct cfsr_batch_codec *codec;
    uint64_t site_id, lsn, seq, timestamp_us;
    struct cfsr_uuid journal;
    uint32_t lane;
    uint64_t step_us; /* of the timestamps */
    uint8_t *raw;
};
struct test_batch {
    struct cfsr_batch_header header;
    uint8_t *frame;
    uint32_t frame_bytes;
    struct cfsr_record_stamp last;
    uint32_t entries;
};

void test_site_init(struct cfsr_site *site, const char *data_dir, uint32_t lanes);
void test_origin_init(struct test_origin *origin, struct cfsr_site *site, uint64_t site_id,
                      uint8_t journal, uint32_t lane);
void test_origin_fini(struct test_origin *origin);
/* Back (or on) to a position: sequence numbers follow from it as long as every record has the same
 * size. */
void test_origin_seek(struct test_origin *origin, uint64_t lsn, uint64_t seq,
                      uint64_t timestamp_us);
/* A batch of up to `records` records of total_bytes each; ends at the origin's segment end. mark:
 * ends with a MARK. */
void test_batch_make(struct test_origin *origin, uint32_t records, uint32_t total_bytes,
                     struct test_batch *batch);
void test_batch_free(struct test_batch *batch);

/* The writer of one lane with real or simulated files. */
struct test_writer {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    struct cfsr_inbox_lane *lane;
    uint32_t lane_number;
    struct cfsr_inbox_state *state;
    uint64_t now_ns;
    uint32_t free_slots;
    uint32_t slot[CFSR_INBOX_WRITES_MAX + 1];
    uint8_t *buf[CFSR_INBOX_WRITES_MAX + 1];
    uint32_t flights;
    struct cfsr_inbox_write flight[CFSR_INBOX_WRITES_MAX];
    uint8_t *lent[CFSR_INBOX_WRITES_MAX]; /* memory of batches that were put in place */
    struct test_random way;               /* how the next batch is put */
    unsigned in_place_percent;            /* of the batches that there is room for in place */
};
void test_writer_start(struct test_writer *writer, struct cfsr_fs *fs, const struct cfsr_site *site,
                       uint32_t lane);
/* After a crash of the simulated disk the files are gone: close_files false. */
void test_writer_stop(struct test_writer *writer, bool close_files);
/* What writers begin with: tests are built a second time with another one. */
extern unsigned test_in_place_percent;
/* Puts one batch, copied or in place; completes writes as needed. */
void test_writer_put(struct test_writer *writer, const struct test_batch *batch);
/* The same for a REPAIR record. */
void test_writer_repair(struct test_writer *writer, const struct cfsr_inbox_gap *gap, uint32_t part,
                        const struct test_batch *batch);
/* Moves due blocks in flight. */
void test_writer_issue(struct test_writer *writer, bool ack_now);
/* Writes and completes flight i. */
int test_writer_complete(struct test_writer *writer, uint32_t i);
void test_writer_drain(struct test_writer *writer);
/* What the lane was asked to say of its cursors (cfsr_inbox_lane_want_cursors()), durable. */
void test_writer_cursors(struct test_writer *writer);

#endif
