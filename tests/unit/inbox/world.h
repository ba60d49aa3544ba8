/* world.h - a lane with two origins on the simulated disk: filled, damaged, repaired, read. */
#ifndef CFSR_TEST_INBOX_WORLD_H
#define CFSR_TEST_INBOX_WORLD_H

#include "inbox/verify.h"
#include "support.h"

#define RECORD_BYTES 4096u /* so that seq follows from LSN */
#define ORIGINS      2u
#define GAPS_MAX     32u

extern struct cfsr_site site;

/* A lane with two origins, on the simulated disk. */
struct world {
    struct cfsr_fs *fs;
    struct test_origin origin[ORIGINS];
    uint64_t sent[ORIGINS]; /* LSN up to which each origin was acknowledged */
    struct test_writer writer;
    bool live;
    bool unnamed; /* the last check wants the lane to write its cursors */
};

struct findings {
    unsigned torn, repaired, damaged, header;
};

void world_init(struct world *w, uint64_t seed);
void world_start(struct world *w);
void world_stop(struct world *w);
void world_fini(struct world *w);
void world_seek(struct test_origin *origin, uint64_t lsn);
/* Batches of random sizes of both origins in turn, all durable. */
void world_fill(struct world *w, uint64_t seed, unsigned batches);
/* The origins send again from where the lane says they stand, as after a handshake. */
void world_refill(struct world *w);
void world_flip(struct world *w, uint64_t sequence, uint64_t file_offset);
void world_flip_body(struct world *w, uint64_t sequence, uint64_t body_offset);
void world_zero(struct world *w, uint64_t sequence, uint64_t body_offset, uint32_t bytes);
void world_lose_segment(struct world *w, uint64_t sequence);
/* The n-th sound record of a kind in a segment. */
struct cfsr_inbox_item world_find_item(struct world *w, uint64_t sequence, uint16_t kind,
                                       unsigned n, struct cfsr_batch_header *header_out);
uint64_t world_last_sequence(struct world *w);
/* A whole check in small steps: the gaps (GAPS_MAX). */
unsigned world_check(struct world *w, struct cfsr_inbox_gap *gaps);
/* Fetches a part from its origin; frames: at most so many (0: all). */
void world_repair_part(struct world *w, const struct cfsr_inbox_gap *gap, uint32_t part,
                       unsigned frames);
/* The number of gaps there were. */
unsigned world_repair_all(struct world *w);
/* Reads everything; the result of the last call. */
int world_read_all(struct world *w, uint32_t lane, uint64_t read_out[ORIGINS]);
void expect_all_readable(struct world *w, const char *what);
void expect_stopped(struct world *w, const char *what);
struct findings world_verify(struct world *w, enum cfsr_inbox_verdict verdict);
/* Stops the readers, is found, is repaired, and is as if it had not been. */
void expect_repairable(struct world *w, const char *what);
/* The cursors are those acknowledged, or the origin sends again. */
void expect_survives_restart(struct world *w, const char *what);

#endif
