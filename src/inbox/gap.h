/*
 * gap.h - what a damaged place cost, and which REPAIR records there are to make up for it. Private
 * to src/inbox; blocking.
 */
#ifndef CFSR_INBOX_GAP_H
#define CFSR_INBOX_GAP_H

#include "inbox/consumer.h"
#include "inbox/log.h"

/* REPAIR records of a lane remembered at most; what is beyond is as if it were not there, and
 * repaired again. 64 bytes each, taken as they are found. */
#define CFSR_INBOX_REPAIRS_MAX 65536u

/* Where the origins stand in front of a damaged place. */
struct cfsr_inbox_known {
    /* Began behind the lane's beginning, without its CURSORS: an origin not listed is taken up
     * where it is met. */
    bool fresh;
    uint32_t origins;
    struct cfsr_inbox_delivered origin[CFSR_INBOX_ORIGINS_MAX];
};
/* The entry of an origin's journal, or NULL. */
struct cfsr_inbox_delivered *cfsr_inbox_known_find(struct cfsr_inbox_known *known, uint64_t site_id,
                                                   const struct cfsr_uuid *journal);
/* The same, made (from LSN 0) when it is not there; NULL: the table is full. */
struct cfsr_inbox_delivered *cfsr_inbox_known_of(struct cfsr_inbox_known *known, uint64_t site_id,
                                                 const struct cfsr_uuid *journal);

/*
 * What the place cost: of each origin the LSNs from where it stands in front to where it goes on
 * behind (the next of its batches, the next CURSORS, or end; batch, if its body alone is damaged).
 * gap_out->parts may be 0. end NULL: of a lane that may be written.
 */
int cfsr_inbox_describe(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                        const struct cfsr_inbox_damage *damage,
                        const struct cfsr_batch_header *batch, struct cfsr_inbox_known *known,
                        const struct cfsr_inbox_end *end, struct cfsr_inbox_gap *gap_out);

/* The REPAIR records of a lane, by their headers. */
struct cfsr_inbox_repair_place {
    uint64_t site_id;
    struct cfsr_uuid journal;
    uint64_t lsn_from, lsn_to;
    uint64_t sequence, body_offset;
};
struct cfsr_inbox_repairs {
    uint32_t count, capacity;
    struct cfsr_inbox_repair_place *place;
};
/* Of the segments from `sequence` on. -ENOMEM, -errno. Begin with zeros, free in the end; may be
 * loaded again. */
int cfsr_inbox_repairs_load(struct cfsr_inbox_repairs *repairs, struct cfsr_fs *fs,
                            const struct cfsr_site *site, uint32_t lane, uint64_t sequence);
void cfsr_inbox_repairs_free(struct cfsr_inbox_repairs *repairs);
/*
 * The newest sound REPAIR that holds byte lsn: 1, with its segment open in *scan_out (to be closed)
 * and the whole record in *item_out; 0 there is none; -errno.
 */
int cfsr_inbox_repairs_read(const struct cfsr_inbox_repairs *repairs, struct cfsr_fs *fs,
                            const struct cfsr_site *site, uint32_t lane,
                            struct cfsr_inbox_decoder *decoder, uint64_t site_id,
                            const struct cfsr_uuid *journal, uint64_t lsn,
                            struct cfsr_inbox_scan *scan_out, struct cfsr_inbox_item *item_out,
                            struct cfsr_batch_header *header_out);
/* Takes away from the gap what the REPAIR records fill from the front of each part; parts that are
 * filled go. */
int cfsr_inbox_repairs_cover(const struct cfsr_inbox_repairs *repairs, struct cfsr_fs *fs,
                             const struct cfsr_site *site, struct cfsr_inbox_decoder *decoder,
                             struct cfsr_inbox_gap *gap);

/* The INDEX of an open segment: 1, 0 it has none (or a damaged one), -errno. index is 40 KiB. */
int cfsr_inbox_scan_index(struct cfsr_inbox_scan *scan, struct cfsr_inbox_index *index_out,
                          struct cfsr_inbox_cursor *origins_out, uint32_t *count_out);

#endif
