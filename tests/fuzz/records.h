/*
 * records.h - records for inputs: a writer of small ones, and what puts their CRCs right.
 */
#ifndef CFSR_TESTS_FUZZ_RECORDS_H
#define CFSR_TESTS_FUZZ_RECORDS_H

#include "fuzz.h"

/* Seals record after record by the sizes they name, until one does not fit. wire_form: a PAD is its
 * header. */
void fuzz_records_seal(uint8_t *data, size_t len_bytes, bool wire_form, uint32_t seed, uint64_t lsn,
                       uint64_t segment_bytes);

/* One lane's records one after the other, in wire form. */
struct fuzz_records {
    const struct cfsr_site *site;
    struct cfsr_uuid journal;
    uint64_t site_id;
    uint32_t lane;
    uint64_t lsn, timestamp_us;
    uint64_t seq[8]; /* last of each shard of the lane; the first eight are used */
    struct cfsr_record_stamp last;
    uint32_t entries;
};
void fuzz_records_init(struct fuzz_records *records, const struct cfsr_site *site, uint64_t site_id,
                       const struct cfsr_uuid *journal, uint32_t lane);
/* Appends an entry (with a typed payload, or noise), MARK, SHARDS or PAD. */
void fuzz_records_entry(struct fuzz_records *records, struct fuzz_seed *out,
                        uint32_t payload_bytes);
void fuzz_records_mark(struct fuzz_records *records, struct fuzz_seed *out, uint64_t committed);
void fuzz_records_shards(struct fuzz_records *records, struct fuzz_seed *out);
void fuzz_records_pad(struct fuzz_records *records, struct fuzz_seed *out);

#endif
