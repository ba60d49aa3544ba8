/*
 * reader.h - the inbox reader on any file backend; <cfsrepl/inbox.h> is its public face.
 */
#ifndef CFSR_INBOX_READER_H
#define CFSR_INBOX_READER_H

#include <cfsrepl/inbox.h>

#include "inbox/gap.h"

/* As cfsr_inbox_open(), for a loaded site; options->data_dir is not looked at. site is copied, fs
 * borrowed. */
int cfsr_inbox_open_at(struct cfsr_fs *fs, const struct cfsr_site *site,
                       const struct cfsr_inbox_options *options, struct cfsr_inbox **inbox_out);

/* One lane's records of some origins, in order of arrival (stream.c). Streams of a lane share what
 * was delivered. */
struct cfsr_inbox_stream {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    struct cfsr_inbox_decoder *decoder;
    struct cfsr_inbox_position *delivered; /* of the lane */
    uint32_t lane;
    uint64_t site_id;       /* only this origin; 0: all but those in `others` */
    const uint64_t *others; /* origins that have their own stream */
    uint32_t other_count;
    const struct cfsr_uuid *journal; /* only this journal of theirs; NULL: all */
    bool fresh; /* begins with what is kept; else at a durable position, and a gap is an error */
    bool all_records;
    struct cfsr_inbox_log log;
    struct cfsr_inbox_gap *holes; /* what is missing at a damaged place; NULL: none was met yet */
    uint32_t hole;                /* of them, to be filled next */
    /* The last damaged place of which nothing sound behind it says yet all that it held: CURSORS
     * do. Sequence 0: none. */
    uint64_t unnamed_sequence, unnamed_begin;
    struct cfsr_inbox_repairs repairs;
    struct cfsr_inbox_item batch; /* being returned; its record pointer is dead */
    bool has_batch;
    struct cfsr_inbox_walk walk;
    uint8_t *raw;
    uint8_t extension[CFSR_BATCH_EXTENSION_MAX];
    bool has_head;
    struct cfsr_inbox_entry head;
    uint64_t watermark_us; /* timestamp of the last record seen, of any op */
};

void cfsr_inbox_stream_close(struct cfsr_inbox_stream *stream);
/* Goes to the lane's position: behind what was delivered, or the oldest kept. */
int cfsr_inbox_stream_start(struct cfsr_inbox_stream *stream);
/*
 * Makes stream->head the next undelivered record: 1; 0 none now; -CFSR_E_DAMAGED: records are
 * missing here and no REPAIR has them (called again it tries again); -errno. judge: at the end look
 * whether it is one (reads the rest of the segment); else damage looks like an end.
 */
int cfsr_inbox_stream_fill(struct cfsr_inbox_stream *stream, bool judge);
/* The head was returned. */
void cfsr_inbox_stream_deliver(struct cfsr_inbox_stream *stream);
/* Where to read on after what was delivered; sequence 0: the lane is empty. */
void cfsr_inbox_stream_place(const struct cfsr_inbox_stream *stream, uint64_t *sequence_out,
                             uint64_t *body_offset_out, uint64_t *arrival_out);
/* At the end of the log: 0 it is one; 1 it was damage, and the log goes on behind it; -CFSR_E_GONE
 * if the segment was recycled; -errno. */
int cfsr_inbox_stream_judge_end(struct cfsr_inbox_stream *stream);

#endif
