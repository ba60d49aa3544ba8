/* torn_tear.h - leaves parts of a write on a simulated disk, as a crash does. */
#ifndef CFSR_TESTS_SIM_TORN_TEAR_H
#define CFSR_TESTS_SIM_TORN_TEAR_H

#include <stdint.h>

#include "core/file_sim.h"

enum torn_tear {
    TORN_NOTHING,  /* of it is there */
    TORN_WHOLE,    /* all of it is, though nobody was told */
    TORN_PREFIX,   /* to some byte */
    TORN_SUFFIX,   /* from some byte: the end was written first */
    TORN_SECTORS,  /* any of its 512-byte sectors */
    TORN_PAGES,    /* any of its 4 KiB pages */
    TORN_BYTES,    /* any runs of bytes */
    TORN_ONE_HOLE, /* all but one sector */
};
#define TORN_TEAR_COUNT (TORN_ONE_HOLE + 1)

const char *torn_tear_name(enum torn_tear tear);
/* Puts a random tear of the bytes at the offset of the file; says which. */
enum torn_tear torn_tear(struct cfsr_fs *fs, const char *path, uint64_t offset_bytes,
                         const uint8_t *bytes, uint32_t len_bytes, uint64_t *random);

#endif
