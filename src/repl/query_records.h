/*
 * query_records.h - is what a REPLY holds really what its origin wrote? Every check of a frame of
 * records that came from somewhere else than its origin's stream.
 *
 * A frame is believed for its origin's signature, never for who handed it over: its batch tag must
 * open with the key of (origin → a destination we hold the key for), or its body must be the one
 * whose digest stands in a prefix that was signed for us (what is left of our own damaged copy).
 * Then digest, bounded decompression, and every record's CRC, order and place.
 *
 * Pure but for keys made and wiped on the way; helper thread. Cold path.
 */
#ifndef CFSR_REPL_QUERY_RECORDS_H
#define CFSR_REPL_QUERY_RECORDS_H

#include <stdint.h>

#include "journal/record.h"
#include "journal/site.h"
#include "pipeline/batch.h"
#include "security/keyring.h"

struct cfsr_records_check {
    /* in */
    const struct cfsr_site *site;
    const struct cfsr_keyring *keyring;
    struct cfsr_batch_codec *codec;
    uint64_t origin;
    struct cfsr_uuid journal;
    uint32_t lane;
    uint64_t lsn; /* a byte the frame must hold */
    /* Sites the frame may have been signed for: this one, the one that answered, others. Those
     * whose key with the origin is not here are passed over. */
    const uint64_t *destinations;
    uint32_t destination_count;
    /* NULL, or prefix ‖ extension of the damaged record, signed for this site. Used, and put in
     * place of the frame's own, when no tag opens. */
    const uint8_t *own_prefix;
    uint32_t own_prefix_bytes;
    uint8_t *frame; /* prefix ‖ extension ‖ body */
    uint32_t frame_bytes;
    uint8_t *raw; /* CFSR_BATCH_BODY_MAX_BYTES: the records */
    /* out */
    struct cfsr_batch_header header;
    struct cfsr_scan scan; /* over all records of the frame */
};

/*
 * -CFSR_E_BAD_FRAME (malformed, or it is not what was asked for), -CFSR_E_BAD_TAG, -CFSR_E_BAD_KEY
 * (no key of any destination), -CFSR_E_BAD_DIGEST, -CFSR_E_DECOMPRESS, -CFSR_E_BOMB,
 * -CFSR_E_CHECKSUM, -CFSR_E_FORMAT, -CFSR_E_FOREIGN, -CFSR_E_BAD_ORDER.
 */
int cfsr_records_check(struct cfsr_records_check *check);

/*
 * The records of a checked frame that stand in [lsn_from, lsn_to) of the journal: *records_out
 * points into check->raw. -CFSR_E_BAD_ORDER when no record begins at lsn_from or one reaches beyond
 * lsn_to: the frame's records are not those of the place.
 */
int cfsr_records_cut(const struct cfsr_records_check *check, uint64_t lsn_from, uint64_t lsn_to,
                     const uint8_t **records_out, uint32_t *len_out);

#endif
