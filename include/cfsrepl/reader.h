/*
 * reader.h - read a site's journal, live.
 *
 * Any number of readers in any process with write permission in DATA/run (for the wake-up). A
 * reader belongs to one thread. It sees what is committed, and only that: every record is copied
 * out and its checksum, seeded with its position, is checked.
 */
#ifndef CFSREPL_READER_H
#define CFSREPL_READER_H

#include <stdint.h>

#include <cfsrepl/error.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cfsr_reader;

/* A record. Ops 0–10 are entries (enum cfsr_op); 240 PAD, 241 MARK, 242 SHARDS belong to the
 * journal itself. */
struct cfsr_record_view {
    uint32_t lane;
    uint32_t shard_id;
    uint64_t lsn;     /* of its first byte */
    uint64_t end_lsn; /* position of the next record */
    uint64_t seq;
    uint64_t timestamp_us;
    uint64_t inode;
    uint64_t site_id;
    uint8_t op;
    uint8_t flags;
    uint32_t payload_bytes; /* 0 for PAD, whose filler is not read */
    const void *payload;    /* valid until the next call on this reader */
};

/* from_lsn for "the oldest record there is". */
#define CFSR_READER_OLDEST UINT64_MAX

/*
 * Opens one lane at from_lsn: a position got from a view or an append, 0 for the very first record,
 * or CFSR_READER_OLDEST. -ENOENT no site there, -EINVAL no such lane, -CFSR_E_*, -errno; message
 * set.
 */
int cfsr_reader_open(const char *data_dir, uint32_t lane, uint64_t from_lsn,
                     struct cfsr_reader **reader_out);
void cfsr_reader_close(struct cfsr_reader *reader);

/*
 * 1: a record; 0: nothing more is committed now; -CFSR_E_GONE: the position was removed by
 * retention, cfsr_reader_oldest() says what is left (seek there to go on); -CFSR_E_DAMAGED: the
 * bytes at the position are no record; -CFSR_E_MISSING_SEGMENT; -errno.
 */
int cfsr_reader_next(struct cfsr_reader *reader, struct cfsr_record_view *view_out);
/* Waits until something is committed at or above the position. 1: there is; 0: timeout_ms passed;
 * -errno. */
int cfsr_reader_wait(struct cfsr_reader *reader, int timeout_ms);

/* Position of the next record. */
uint64_t cfsr_reader_position(const struct cfsr_reader *reader);
void cfsr_reader_seek(struct cfsr_reader *reader, uint64_t lsn);
/* The lowest LSN that is still there (0 for an empty lane), and the committed LSN. */
int cfsr_reader_oldest(struct cfsr_reader *reader, uint64_t *lsn_out);
int cfsr_reader_committed(struct cfsr_reader *reader, uint64_t *lsn_out);

#ifdef __cplusplus
}
#endif
#endif
