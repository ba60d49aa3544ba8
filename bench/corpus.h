/*
 * corpus.h - the record bytes of a site's journal, as the daemon ships them.
 *
 * Opening walks every segment once with the journal's own scan: the corpus is the valid records,
 * without segment headers and the filler of PADs, and the page cache is warm afterwards. Blocks are
 * then read with pread from the same files.
 */
#ifndef BENCH_CORPUS_H
#define BENCH_CORPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/record.h"
#include "journal/site.h"
#include <cfsrepl/journal.h>

/* The records of one segment. */
struct bench_extent {
    int fd;
    uint64_t file_offset;
    uint64_t lsn;
    uint32_t lane;
    uint32_t len_bytes;
};

struct bench_corpus {
    struct cfsr_site site;
    uint32_t seed; /* cfsr_record_seed() */
    struct bench_extent *extents;
    unsigned extent_count;
    uint64_t raw_bytes, records, entries;
};

/* -ENODATA when the journal is empty; errors of the site and its files. */
int bench_corpus_open(const char *data_dir, struct bench_corpus *corpus_out);
void bench_corpus_close(struct bench_corpus *corpus);

/* Goes round and round over the corpus. */
struct bench_corpus_cursor {
    const struct bench_corpus *corpus;
    unsigned extent;
    uint32_t offset;
};
struct bench_block {
    uint64_t lsn;
    uint32_t lane;
    uint32_t len_bytes;
};
/* Reads the next bytes, at most max_bytes and never across a segment's end; the cursor moves behind
 * them. Bytes or -errno. */
int bench_corpus_read(struct bench_corpus_cursor *cursor, void *buf, uint32_t max_bytes,
                      struct bench_block *block_out);
/* Steps back over the last len_bytes of the block just read: they were not used. */
void bench_corpus_unread(struct bench_corpus_cursor *cursor, const struct bench_block *block,
                         uint32_t len_bytes);
/* A scan of one block's records, as the daemon's sender (wire_form false). */
void bench_corpus_scan_init(const struct bench_corpus *corpus, const struct bench_block *block,
                            const void *data, struct cfsr_scan *scan_out);

/* The entries among whole records, for appending them again; payloads point into data. Count, at
 * most max. */
uint32_t bench_corpus_entries(const uint8_t *data, uint32_t len_bytes,
                              struct cfsr_entry *entries_out, uint32_t max);

/*
 * Appends the journal's own entries to it again and again, until it has so many bytes of records:
 * real entries, in a journal that is long enough to ship for some seconds. Nothing if it has them
 * already.
 */
int bench_corpus_fill(const char *data_dir, uint64_t raw_bytes);

#endif
