/*
 * torn_journal.h - one lane of a journal on a simulated disk, driven by one thread through the
 * product's group, lane files and recovery, with a shadow of every byte that was ever to be
 * written. Segments are far smaller than the product's smallest: that is what makes millions of
 * cases possible.
 */
#ifndef CFSR_TESTS_SIM_TORN_JOURNAL_H
#define CFSR_TESTS_SIM_TORN_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file_sim.h"
#include "journal/group.h"
#include "journal/lane_file.h"
#include "journal/recovery.h"

#define TORN_SEGMENT_BYTES (64u << 10)
#define TORN_LANE_BYTES    (2u << 20) /* the shadow; a lane never grows so long */
#define TORN_SHARDS        4u

struct torn_journal {
    struct cfsr_site site;
    struct cfsr_fs *fs;
    struct cfsr_lane_file files;
    struct cfsr_commit_group group;
    struct cfsr_lane_state recovered; /* of the last open; its next_seq is gone */
    bool open, direct;
    bool crashed;                /* the power went since the last open */
    uint8_t *shadow;             /* by LSN */
    uint64_t known_lsn;          /* everything below is durable and in the shadow */
    uint64_t mark_lsn;           /* of the last MARK durable, or going to be */
    uint64_t shadow_end;         /* behind the last byte that any write was to bring */
    struct cfsr_group_span span; /* of the last group taken */
    uint64_t random;
};

/* A disk with the directories of a site; to be cloned. */
struct cfsr_fs *torn_template(struct cfsr_site *site);
void torn_site_init(struct cfsr_site *site);

void torn_journal_init(struct torn_journal *journal, struct cfsr_fs *fs, uint64_t seed);
/* Not the file system. */
void torn_journal_fini(struct torn_journal *journal);
/* Recovers and opens the lane for appending. */
int torn_journal_open(struct torn_journal *journal);
void torn_journal_crash(struct torn_journal *journal, enum cfsr_persistence model);
/* Forgets it. */
void torn_journal_close(struct torn_journal *journal);

/* Stages an entry, rotating and committing as it must. */
int torn_journal_stage(struct torn_journal *journal, uint32_t payload_bytes);
/* Takes the staged group: journal->span, and the shadow knows its bytes. False: nothing staged. */
bool torn_journal_take(struct torn_journal *journal);
/* Writes the span and makes it durable: acknowledged. */
int torn_journal_write(struct torn_journal *journal);
/* Stages one or more entries of random sizes and commits them. */
int torn_journal_group(struct torn_journal *journal, uint32_t payload_max);
/* A MARK alone; clean: the closing one. */
int torn_journal_mark(struct torn_journal *journal, bool clean);
/* Gives up the lowest segment if there are more than two. */
int torn_journal_recycle(struct torn_journal *journal);

/*
 * What the disk truly holds, by the shadow: the LSN behind the last record, from from_lsn on, that
 * is whole, all records before it being whole too.
 */
uint64_t torn_journal_whole_end(struct torn_journal *journal, uint64_t from_lsn);
/* Total bytes of the record that the shadow has at lsn; *next_lsn_out: where the one behind it
 * begins; *compared_out: what of it is ever written. 0: there is none. */
uint64_t torn_journal_record(const struct torn_journal *journal, uint64_t lsn,
                             uint64_t *next_lsn_out, uint32_t *compared_out);
/* The record in whose bytes lsn lies, walking from a segment's first; CFSR_LSN_UNKNOWN: in none (a
 * PAD's filler). */
uint64_t torn_journal_record_at(const struct torn_journal *journal, uint64_t first_lsn,
                                uint64_t lsn);
/* Reads the lane from its lowest segment to end_lsn as a reader does: every record byte for byte as
 * in the shadow, without a gap (sealed places apart). NULL, or what is wrong. */
extern const char torn_journal_stopped[]; /* no more than an error in place of a record */
const char *torn_journal_compare(struct torn_journal *journal, uint64_t first_lsn,
                                 uint64_t end_lsn);

uint64_t torn_random(uint64_t *state);

#endif
