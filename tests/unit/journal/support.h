/* support.h - a site in a temporary directory, and bytes in its files; for the journal's tests. */
#ifndef CFSR_TEST_JOURNAL_SUPPORT_H
#define CFSR_TEST_JOURNAL_SUPPORT_H

#include <stdint.h>

#include "journal/site.h"
#include <cfsrepl/journal.h>

/* A fresh site of 2 MiB segments in a new directory below TMPDIR (or /tmp). Aborts on failure. */
void test_site_make(struct cfsr_site *site_out, uint32_t lanes, uint32_t shards);
void test_site_remove(const struct cfsr_site *site);
/* Opens the journal with short ages, for tests of rotation and retention. */
struct cfsr_journal *test_journal_open(const struct cfsr_site *site);
/* Appends one entry of payload_bytes with a pattern made from inode; aborts on failure. */
struct cfsr_entry_position test_append(struct cfsr_journal *journal, uint32_t shard, uint64_t inode,
                                       uint32_t payload_bytes);
/* As a killed process leaves it: copies DATA/journal aside before the clean close, and back after
 * it. */
void test_snapshot(const struct cfsr_site *site);
void test_restore(const struct cfsr_site *site);
void test_flip_bit(const struct cfsr_site *site, uint32_t lane, uint64_t lsn, unsigned bit);
void test_write_at(const struct cfsr_site *site, uint32_t lane, uint64_t lsn, const void *bytes,
                   uint32_t len_bytes);

#endif
