/*
 * sim_files.h - files of the simulated disk for its tests, filled with a letter a sector.
 */
#ifndef CFSR_TEST_SIM_FILES_H
#define CFSR_TEST_SIM_FILES_H

#include <criterion/criterion.h>
#include <string.h>

#include "core/file.h"

#define RW (CFSR_OPEN_READ | CFSR_OPEN_WRITE)

static inline struct cfsr_file *open_file(struct cfsr_fs *fs, const char *path, unsigned flags)
{
    struct cfsr_file *file = NULL;

    cr_assert_eq(cfsr_file_open(fs, path, flags, &file), 0);
    return file;
}

/* Its name is durable. */
static inline struct cfsr_file *create(struct cfsr_fs *fs, const char *path)
{
    struct cfsr_file *file = open_file(fs, path, RW | CFSR_OPEN_CREATE);

    cr_assert_eq(fs->ops->sync_dir(fs, "/"), 0);
    return file;
}

/* durable: written through to the disk; else it may stay in its cache. */
static inline void fill(struct cfsr_file *file, char c, uint32_t sectors, uint32_t at, bool durable)
{
    char data[64 * 512];

    memset(data, c, sizeof data);
    cr_assert_eq(cfsr_file_pwrite(file, data, sectors * 512, at * 512ull, durable),
                 (int)(sectors * 512));
}

#endif
