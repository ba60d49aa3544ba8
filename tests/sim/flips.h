/*
 * flips.h - files of a site, every byte of which is known by what it means; and who is to notice
 * when it changes.
 */
#ifndef CFSR_TESTS_SIM_FLIPS_H
#define CFSR_TESTS_SIM_FLIPS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file_sim.h"
#include "inbox/consumer.h"
#include "journal/acks.h"
#include "torn_inbox.h"
#include "torn_journal.h"

/* What a byte is. Up to FLIPS_HEADERS_END every bit is tried. */
enum flips_class {
    FLIPS_SEGMENT_HEADER,
    FLIPS_RECORD_HEADER, /* of the journal, and what lies behind its payload */
    FLIPS_INBOX_HEADER,  /* of a segment */
    FLIPS_LOCAL_HEADER,  /* of a batch in the inbox, with the batch's own prefix */
    FLIPS_CURSORS,
    FLIPS_INDEX,
    /* Above everything that a later record says was durable: there the lane just ends earlier. */
    FLIPS_INBOX_TAIL,
    FLIPS_ACKS_NEW, /* the slot that counts */
    FLIPS_ACKS_OLD,
    FLIPS_CONSUMER_NEW,
    FLIPS_CONSUMER_OLD,
    FLIPS_CLUSTER,
    FLIPS_HEADERS_END,
    FLIPS_PAYLOAD = FLIPS_HEADERS_END,
    FLIPS_BODY,
    FLIPS_HEADER_ZEROS, /* of a journal segment's header */
    /* Nothing reads these, by docs/journal-format.md and docs/inbox-format.md. */
    FLIPS_HEADER_REST,  /* of an inbox segment's header block */
    FLIPS_PAD_FILLER,   /* and fewer than 48 bytes at a segment's end */
    FLIPS_BLOCK_FILLER, /* between records of the inbox */
    FLIPS_BEHIND_END,   /* of what was written */
    FLIPS_SLOT_REST,    /* of acks and consumer slots */
    FLIPS_CLASSES
};
#define FLIPS_DONT_CARE FLIPS_HEADER_REST

enum flips_kind {
    FLIPS_JOURNAL_SEGMENT,
    FLIPS_INBOX_SEGMENT,
    FLIPS_ACKS,
    FLIPS_CONSUMER,
    FLIPS_CLUSTER_FILE
};

struct flips_file {
    struct cfsr_fs *fs;
    enum flips_kind kind;
    char path[CFSR_INBOX_PATH_BYTES];
    uint32_t len_bytes;
    uint8_t *class_of; /* a byte each */
};

#define FLIPS_FILES_MAX 32

struct flips {
    uint64_t seed;
    struct torn_journal journal;
    uint64_t journal_first; /* lowest LSN there */
    struct torn_inbox *inbox;
    struct cfsr_site cluster; /* of the cluster file; the other sites have no file of their own */
    struct cfsr_fs *cluster_fs;
    struct cfsr_acks acks[2]; /* older, newer */
    struct cfsr_inbox_position position[2];
    struct flips_file file[FLIPS_FILES_MAX];
    uint32_t files;
    struct flips_place {
        uint32_t file, bit;
    } * place; /* every bit of every header */
    uint64_t places;
};

#define FLIPS_READER "reader"

/* Everything made and mapped. */
struct flips *flips_make(uint64_t seed);
/*
 * Looks at what was changed in the file, of those classes (a bit each): NULL if whoever reads it
 * noticed what there was to notice and nothing wrong was delivered; else what is wrong.
 * *fell_back_out: an older slot counts again.
 */
const char *flips_judge(struct flips *flips, const struct flips_file *file, uint32_t classes,
                        bool *fell_back_out);

#endif
