/*
 * damage.h - a set of files in memory, and damage to them as an input describes it.
 *
 * Damage, repeated to the end of the input: u8 kind, u8 file, then
 *   0 flip     u16 offset, u8 mask
 *   1 write    u16 offset, u8 length, bytes
 *   2 zero     u8 sector
 *   3 copy     u8 sector, u8 other file, u8 other sector (stale or misdirected)
 *   4 cut      u16 new length
 *   5 remove
 *   6 replace  u8 other file (a copy under the wrong name)
 */
#ifndef CFSR_TESTS_FUZZ_DAMAGE_H
#define CFSR_TESTS_FUZZ_DAMAGE_H

#include "fuzz.h"

enum {
    FUZZ_SECTOR_BYTES = 512,
    FUZZ_FILES_MAX = 16,
    FUZZ_DAMAGES_MAX = 12
};

struct fuzz_file {
    char path[128];
    uint8_t *data; /* NULL: removed */
    size_t len_bytes;
};
struct fuzz_files {
    unsigned count;
    struct fuzz_file file[FUZZ_FILES_MAX];
};

void fuzz_files_add(struct fuzz_files *files, const char *path, const void *data, size_t len_bytes);
void fuzz_files_copy(struct fuzz_files *copy_out, const struct fuzz_files *files);
void fuzz_files_free(struct fuzz_files *files);
/* Writes those that are left to a disk. */
void fuzz_files_write(const struct fuzz_files *files, struct cfsr_fs *fs);
void fuzz_files_damage(struct fuzz_files *files, struct fuzz_reader *reader);
/* For seeds. */
void fuzz_damage_flip(struct fuzz_seed *seed, uint8_t file, uint16_t offset, uint8_t mask);

#endif
