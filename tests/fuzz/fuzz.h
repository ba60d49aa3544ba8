/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target is one file, fuzz_<name>.c, with LLVMFuzzerTestOneInput() and fuzz_seeds(). It is linked
 * twice: with libFuzzer (-DCFSR_FUZZ=ON, clang) as fuzz_<name>, and with run.c as run_fuzz_<name>,
 * an ordinary program of every build, that feeds it files, writes its seed corpus, and is what
 * ctest runs over the seeds and the regression cases.
 *
 * Checksums and tags would stop every mutation at the door. So an input begins with a byte of
 * switches that says what is put right before the product sees the bytes: sizes, CRCs, digests,
 * tags, sequences. The fixing is part of the target, not of a custom mutator: a file that crashes
 * says everything by itself, and libFuzzer's own mutations and minimiser work unchanged.
 *
 * A target also checks what must be true of its answer (FUZZ_CHECK): that nothing crashed is the
 * least that can be asked.
 */
#ifndef CFSR_TESTS_FUZZ_H
#define CFSR_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cfsrepl/error.h>

#include "core/file.h"
#include "journal/site.h"
#include "repl/session.h"

/* 0: always. libFuzzer's entry point. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes);

struct fuzz_corpus;
/* Adds every seed of the target, made by the product's own encoders; the same in every run. */
void fuzz_seeds(struct fuzz_corpus *corpus);
void fuzz_corpus_add(struct fuzz_corpus *corpus, const char *name, const void *data,
                     size_t len_bytes);

_Noreturn void fuzz_failed(const char *expression, const char *file, int line);
/* A property of the product that an input has broken. */
#define FUZZ_CHECK(expression) \
    (__builtin_expect(!!(expression), 1) ? (void)0 : fuzz_failed(#expression, __FILE__, __LINE__))

/* Reads an input from its start; behind its end everything is zero. */
struct fuzz_reader {
    const uint8_t *at;
    size_t left;
};
uint8_t fuzz_u8(struct fuzz_reader *reader);
uint16_t fuzz_u16(struct fuzz_reader *reader);
uint32_t fuzz_u32(struct fuzz_reader *reader);
uint64_t fuzz_u64(struct fuzz_reader *reader);
/* Up to want bytes; their number in *got_out. */
const uint8_t *fuzz_bytes(struct fuzz_reader *reader, size_t want, size_t *got_out);
/* A copy that ends where its allocation ends, so that the sanitizer sees one byte too many. At
 * least 1 byte; free() it. */
void *fuzz_copy(const void *data, size_t len_bytes);

/* Builds a seed: bytes appended to a buffer that grows. */
struct fuzz_seed {
    uint8_t *data;
    size_t len_bytes, capacity_bytes;
};
void fuzz_seed_bytes(struct fuzz_seed *seed, const void *data, size_t len_bytes);
void fuzz_seed_u8(struct fuzz_seed *seed, uint8_t value);
void fuzz_seed_u16(struct fuzz_seed *seed, uint16_t value);
void fuzz_seed_u32(struct fuzz_seed *seed, uint32_t value);
void fuzz_seed_u64(struct fuzz_seed *seed, uint64_t value);
/* Adds it to the corpus and empties it. */
void fuzz_seed_end(struct fuzz_seed *seed, struct fuzz_corpus *corpus, const char *name);

uint64_t fuzz_random(uint64_t *state); /* splitmix64 */

/* A fresh simulated disk without limits or faults. */
struct cfsr_fs *fuzz_disk(void);
/* Writes a whole file, or reads one (free() it). */
void fuzz_file_write(struct cfsr_fs *fs, const char *path, const void *data, size_t len_bytes);
uint8_t *fuzz_file_read(struct cfsr_fs *fs, const char *path, size_t *len_bytes_out);
/* A site that was never stored. Segments far smaller than a real site's keep an input cheap. */
void fuzz_site(struct cfsr_site *site_out, uint64_t site_id, uint32_t lanes, uint32_t shards,
               uint64_t segment_bytes);
/* DATA and the folders of its lanes. */
void fuzz_site_directories(struct cfsr_fs *fs, const struct cfsr_site *site);
/* A directory of this process below TMPDIR, removed at exit. */
const char *fuzz_directory(void);
/* A file in memory with these bytes: its path below /proc/self/fd; the same file each time. */
const char *fuzz_memory_file(const void *data, size_t len_bytes);

/* Two sites with one key and an established connection; sites 1 (dialer) and 2. */
struct fuzz_pair {
    struct cfsr_site site[2];
    struct cfsr_session_local local[2];
    struct cfsr_keyring *keyring;
    struct cfsr_session dialer, acceptor;
};
#define FUZZ_LANES     8u
#define FUZZ_LANE_MASK 0x8bull /* lanes 0, 1, 3, 7 */
struct cfsr_keyring *fuzz_keyring(const char *lines);
void fuzz_pair_init(struct fuzz_pair *pair);
void fuzz_pair_init_seal(struct fuzz_pair *pair, enum cfsr_seal seal);
bool fuzz_knows_1_and_2(void *user, uint64_t site_id);

#endif
