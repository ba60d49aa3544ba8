/*
 * torn_inbox.h - one lane of an inbox on a simulated disk: the product's lane writer with several
 * writes in flight, recovery and reader, and a shadow of every block that was ever to be written.
 */
#ifndef CFSR_TESTS_SIM_TORN_INBOX_H
#define CFSR_TESTS_SIM_TORN_INBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file_sim.h"
#include "inbox/inbox.h"
#include "torn_chain.h"

#define TORN_ORIGINS   4u
#define TORN_SEQUENCES 64u
#define TORN_WRITES    512u

enum {
    TORN_INBOX_CASES,
    TORN_INBOX_RECOVERIES,
    TORN_INBOX_WRITES_TORN,
    TORN_INBOX_KEPT, /* recoveries that kept more than was acknowledged */
    TORN_INBOX_CUT,
    TORN_INBOX_MIDDLE,
    TORN_INBOX_ROT_TAIL,
    TORN_INBOX_READ,
    TORN_INBOX_VERIFIED,
    TORN_INBOX_COUNTERS
};

/* A block as it was to be written, since the lane was opened. */
struct torn_block {
    uint64_t sequence, body_offset;
    uint32_t len_bytes;
};

struct torn_inbox {
    struct cfsr_fs *blank, *fs;
    struct cfsr_site site;
    struct torn_chain *chain[TORN_ORIGINS];
    struct cfsr_inbox_lane *lane;
    struct cfsr_inbox_state *state;
    uint64_t now_ns, random;
    uint32_t free_slots, slot[CFSR_INBOX_WRITES_MAX + 1];
    uint8_t *buf[CFSR_INBOX_WRITES_MAX + 1];
    uint32_t flights;
    struct cfsr_inbox_write flight[CFSR_INBOX_WRITES_MAX];
    struct {
        struct cfsr_file *file;
        uint64_t sequence;
    } given[TORN_SEQUENCES];
    uint32_t given_count;
    uint8_t *shadow[TORN_SEQUENCES]; /* of segment bodies, by sequence */
    struct torn_block block[TORN_WRITES];
    uint32_t blocks;
    struct { /* batches put since the lane was opened */
        uint8_t origin;
        uint64_t lsn_to;
    } put[TORN_WRITES];
    uint32_t puts;
    uint64_t base[TORN_ORIGINS];  /* cursors when it was opened */
    uint64_t acked[TORN_ORIGINS]; /* what was last said to be durable */
};

struct torn_inbox *torn_inbox_create(const struct cfsr_fs *blank);
const char *torn_inbox_counter_name(unsigned counter);

/* Takes the disk over (not its end) and forgets all else. */
void torn_inbox_begin(struct torn_inbox *inbox, struct cfsr_fs *fs, uint64_t seed);
/* Recovers and opens the lane. */
int torn_inbox_open(struct torn_inbox *inbox);
/* files_live: no crash came, they can be closed. */
void torn_inbox_close(struct torn_inbox *inbox, bool files_live);
/* Puts the origin's next batch. False: the chain is at its end. */
bool torn_inbox_put(struct torn_inbox *inbox, uint32_t origin);
void torn_inbox_issue(struct torn_inbox *inbox, bool ack_now);
void torn_inbox_complete(struct torn_inbox *inbox, uint32_t flight);
void torn_inbox_drain(struct torn_inbox *inbox);
/* Of the segment that the lane was last given this file for. */
uint64_t torn_inbox_sequence(const struct torn_inbox *inbox, const struct cfsr_file *file);
void torn_inbox_path(const struct torn_inbox *inbox, uint64_t sequence, char *path_out);
/* Reads the lane as a consumer does: every record of the chains below the cursors, once, in order,
 * byte for byte, and nothing else. NULL or what is wrong: torn_inbox_stopped if it is no more than
 * an error in place of the next record. */
extern const char torn_inbox_stopped[], torn_inbox_early[];
const char *torn_inbox_read(struct torn_inbox *inbox, const uint64_t cursor[TORN_ORIGINS]);
uint64_t torn_inbox_cursor(const struct torn_inbox *inbox, const struct cfsr_inbox_state *state,
                           uint32_t origin);

/* One case of torn. */
void torn_inbox_case(struct torn_inbox *inbox, uint64_t seed, uint64_t *counters, uint64_t *tears);

#endif
