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

/* Opens the segment file and checks its header. write: for recovery, which may zero a torn block's
 * end. */
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

/* What stands beyond the place where a walk ended. */
struct cfsr_inbox_probe {
    uint64_t durable_below; /* highest claim of a later valid record: above the end, the end is
                               damage, not a torn tail */
    uint64_t end;           /* of the last valid record beyond, or the end itself */
};
int cfsr_inbox_scan_probe(struct cfsr_inbox_scan *scan, struct cfsr_inbox_probe *probe_out);
/* Behind a damaged place: stands at the next block that begins with a sound record, and expects it.
 * 1; 0 there is none; -errno. */
int cfsr_inbox_scan_resync(struct cfsr_inbox_scan *scan);

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

/* Prefix of a batch record: loads and checks it against the record's size. */
int cfsr_inbox_item_header(const struct cfsr_inbox_item *item,
                           struct cfsr_batch_header *header_out);
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
    uint64_t free_files;  /* recycled, waiting */
};
/* -CFSR_E_MISSING_SEGMENT, -CFSR_E_FOREIGN (a file that is not ours). */
int cfsr_inbox_list_segments(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                             struct cfsr_inbox_range_of_segments *range_out);
/* Gives up the lowest segment: it becomes a free file for prepare_segment(), or is removed when
 * recycle is false. */
int cfsr_inbox_drop_segment(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                            uint64_t sequence, bool recycle);

#endif
