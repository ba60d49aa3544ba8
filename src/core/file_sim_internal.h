/*
 * file_sim_internal.h - the simulated backend's instance, shared by its table (file_sim.c) and by
 * what tests and the simulator do to it (file_sim_control.c). Private to src/core.
 */
#ifndef CFSR_CORE_FILE_SIM_INTERNAL_H
#define CFSR_CORE_FILE_SIM_INTERNAL_H

#include "core/file_sim_disk.h"

struct sim_file {
    struct cfsr_file file;
    struct sim_inode *inode;
    struct sim_file *next; /* all open files */
    char *path;            /* as it was opened */
    uint64_t boot;         /* of which boot; a file of an earlier one is dead */
    uint32_t alignment;
    uint32_t in_flight;
    bool may_read;
    bool may_write;
    bool holds_lock;
};

struct sim_fs {
    struct cfsr_fs fs;
    struct sim_disk disk;
    struct sim_file *files;
    struct cfsr_file_op *pending; /* sorted by due time; linked through backend[0] */
    uint64_t now_us;
    uint64_t latency_us;
    uint64_t boot;
    uint64_t seed;
    uint64_t op_count;
    uint64_t fail_at; /* op number that fails; 0: none */
    int fail_rc;
    uint32_t fail_sync_per_million;
    enum cfsr_sync_failure sync_failure;
    cfsr_sim_observer observer;
    void *observer_user;
    unsigned observed_phases;
};

/* backend words of a pending op */
enum {
    SIM_WORD_NEXT,
    SIM_WORD_DUE_US,
    SIM_WORD_ORDER
};

extern const struct cfsr_fs_ops cfsr_sim_table;

#define SIM_PATH_BYTES 1280

/* Without doubled and trailing slashes. False: too long. On the stack, so that an observer that
 * leaves by longjmp() leaks nothing. */
bool cfsr_sim_normalise(const char *path, char name_out[SIM_PATH_BYTES]);
void cfsr_sim_close_file(struct sim_fs *fs, struct sim_file *file);

static inline struct sim_fs *cfsr_sim_of(struct cfsr_fs *fs)
{
    return (struct sim_fs *)fs;
}

static inline struct cfsr_file_op *cfsr_sim_op_next(const struct cfsr_file_op *op)
{
    return (struct cfsr_file_op *)(uintptr_t)op->backend[SIM_WORD_NEXT];
}

#endif
