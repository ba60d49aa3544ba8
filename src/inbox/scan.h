/*
 * scan.h - walking the records of one inbox segment, and the entries of one batch. Shared by
 * recovery, reader, verify and digest.
 *
 * Blocking reads; helper threads, tools and start-up only. Every byte is copied out before it is
 * checked.
 */
#ifndef CFSR_INBOX_SCAN_H
#define CFSR_INBOX_SCAN_H

#include "inbox/format.h"

/* One segment being walked. */
struct cfsr_inbox_scan {
    const struct cfsr_site *site;
    struct cfsr_file *file;
    uint32_t lane;
    uint64_t sequence;
    uint64_t body_offset; /* end of the last record taken; the next one is searched from here */
    uint64_t arrival;     /* expected of the next record; 0: any */
    uint64_t incarnation; /* it never goes back */
    bool complete;        /* the INDEX was taken: nothing follows in this segment */
    bool header_damaged;  /* the file's own header: records are sealed with the sequence and stand
                             without it */
    uint8_t *window;
    uint64_t window_offset;
    uint32_t window_bytes;
    uint32_t read_ahead_bytes;
};

/* A record found. record points into the window: valid until the next call on the scan. */
struct cfsr_inbox_item {
    struct cfsr_inbox_local local;
    uint64_t body_offset;
    const uint8_t
        *record; /* local header, prefix and extension; all of it when asked for whole records */
};

/*
 * Opens the segment file and checks its header: a damaged one is noted, one of another cluster,
 * lane, sequence or version is an error. write: for recovery, which may zero a torn block's end.
 * -ENOENT, -CFSR_E_FOREIGN, -CFSR_E_VERSION, -errno.
 */
int cfsr_inbox_scan_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                         uint64_t sequence, bool write, struct cfsr_inbox_scan *scan_out);
void cfsr_inbox_scan_close(struct cfsr_inbox_scan *scan);
/*
 * Next record in the order of arrival: 1; 0: no valid record stands at the place (the end, or a
 * torn or damaged one; call again later); -errno. whole: read all of it, else only what its local
 * CRC covers.
 */
int cfsr_inbox_scan_next(struct cfsr_inbox_scan *scan, bool whole,
                         struct cfsr_inbox_item *item_out);
/* Undoes the last next(): the record at item is where the walk stands again. */
void cfsr_inbox_scan_step_back(struct cfsr_inbox_scan *scan, const struct cfsr_inbox_item *item);
/* The whole of a record found without. */
int cfsr_inbox_scan_read_whole(struct cfsr_inbox_scan *scan, struct cfsr_inbox_item *item);

/* What stands in the rest of the segment behind the place where a walk ended. */
struct cfsr_inbox_survey {
    uint64_t durable_below; /* highest claim of a valid record there: above the end of the walk,
                               that end is damage, not a torn tail */
    uint64_t end;           /* of the last valid record there, or the end of the walk itself */
    uint64_t place;         /* where sound records go on; 0: nowhere in this segment */
    uint64_t arrival, incarnation; /* of the record at place */
};
/*
 * Looks at every block behind the walk's end, and the records that follow each other in it, to the
 * end of the segment. Valid is a sound record of the walk's incarnation with an arrival number not
 * below the expected one, or of a later incarnation, which is a claim by itself: that its opening
 * CURSORS, behind the walk's end, were durable.
 */
int cfsr_inbox_scan_survey(struct cfsr_inbox_scan *scan, struct cfsr_inbox_survey *survey_out);
/* Stands at a place that a survey found, and expects the record there. */
void cfsr_inbox_scan_jump(struct cfsr_inbox_scan *scan, uint64_t body_offset, uint64_t arrival);

/* Decodes batches; about 1.1 MiB. One thread. */
struct cfsr_inbox_decoder {
    struct cfsr_batch_codec *codec;
    uint8_t *raw;
};
int cfsr_inbox_decoder_init(struct cfsr_inbox_decoder *decoder);
void cfsr_inbox_decoder_fini(struct cfsr_inbox_decoder *decoder);

/* The entries of one decoded batch, in LSN order, passing over its declared holes. */
struct cfsr_inbox_walk {
    struct cfsr_batch_header header;
    const uint8_t *extension;
    const uint8_t *raw;
    uint32_t raw_offset;
    uint64_t lsn; /* of the next record */
    uint32_t hole;
};
struct cfsr_inbox_entry {
    uint64_t lsn, end_lsn;
    const uint8_t *record; /* wire form */
    uint32_t wire_bytes;
    struct cfsr_record_header header;
};

/* Prefix of a BATCH or REPAIR record: loads and checks it against the record's size. */
int cfsr_inbox_item_header(const struct cfsr_inbox_item *item,
                           struct cfsr_batch_header *header_out);
/* Its bytes; the extension follows, and in a whole record the body. */
const uint8_t *cfsr_inbox_item_prefix(const struct cfsr_inbox_item *item);
/* An error of a record's content, as opposed to one of reading it. */
bool cfsr_inbox_is_verdict(int rc);
/* Checks the digest of a whole record's body. -CFSR_E_BAD_DIGEST. */
int cfsr_inbox_item_check(struct cfsr_inbox_decoder *decoder, const struct cfsr_inbox_item *item,
                          const struct cfsr_batch_header *header);
/*
 * Decodes a checked whole record into raw_out (CFSR_CODEC_INPUT_MAX_BYTES; may be decoder->raw) and
 * checks every record's CRC, order and LSN. extension_out keeps a copy of the holes
 * (CFSR_BATCH_EXTENSION_MAX). last_out may be NULL: stamp of the last record.
 */
int cfsr_inbox_item_decode(struct cfsr_inbox_decoder *decoder, const struct cfsr_site *site,
                           const struct cfsr_inbox_item *item,
                           const struct cfsr_batch_header *header, uint8_t *raw_out,
                           uint8_t *extension_out, struct cfsr_inbox_walk *walk_out,
                           struct cfsr_record_stamp *last_out);
/* 1 and the next entry, or 0 at the end. Only on a walk that decode() accepted. */
int cfsr_inbox_walk_next(struct cfsr_inbox_walk *walk, struct cfsr_inbox_entry *entry_out);

/* The segments of a lane. */
struct cfsr_inbox_range_of_segments {
    uint64_t first, last; /* 0, 0: none */
    uint64_t missing;     /* of the row from first to last */
    uint64_t free_files;  /* recycled, waiting */
};
/* -CFSR_E_FOREIGN (a file that is not ours). */
int cfsr_inbox_list_segments(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                             struct cfsr_inbox_range_of_segments *range_out);
/* Writes the header of an existing segment anew: it says nothing that the name and the site do not
 * say. */
int cfsr_inbox_restore_header(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                              uint64_t sequence);
/* Gives up the lowest segment: it becomes a free file for prepare_segment(), or is removed when
 * recycle is false. */
int cfsr_inbox_drop_segment(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t sequence, bool recycle);

#endif
