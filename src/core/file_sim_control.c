/*
 * file_sim_control.c - what tests and the simulator do to a simulated disk: make it, copy it, cut
 * its power, damage it, change its faults (file.h, file_sim.h).
 *
 * Thread:     one.
 * Invariants: damage is of both copies of a sector and takes no number of the order: it is not a
 *             change that a crash could undo.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "core/file_sim_internal.h"

int cfsr_fs_sim_create(const struct cfsr_fs_sim_options *options, struct cfsr_fs **fs_out)
{
    struct sim_fs *fs = calloc(1, sizeof *fs);

    if (fs == NULL)
        return -ENOMEM;
    fs->fs.ops = &cfsr_sim_table;
    fs->seed = options->seed;
    fs->disk.random_state = options->seed;
    fs->disk.capacity_bytes = options->capacity_bytes;
    fs->latency_us = options->write_latency_us;
    fs->fail_sync_per_million = options->fail_sync_per_million;
    *fs_out = &fs->fs;
    return 0;
}

int cfsr_fs_sim_clone(const struct cfsr_fs *fs, struct cfsr_fs **clone_out)
{
    const struct sim_fs *from = (const struct sim_fs *)fs;
    struct sim_fs *clone = malloc(sizeof *clone);
    int rc;

    if (clone == NULL)
        return -ENOMEM;
    *clone = *from;
    clone->files = NULL;
    clone->pending = NULL;
    clone->observer = NULL;
    rc = cfsr_sim_disk_copy(&from->disk, &clone->disk);
    if (rc < 0) {
        cfsr_fs_sim_destroy(&clone->fs);
        return rc;
    }
    *clone_out = &clone->fs;
    return 0;
}

void cfsr_fs_sim_destroy(struct cfsr_fs *fs)
{
    struct sim_fs *sim;

    if (fs == NULL)
        return;
    sim = cfsr_sim_of(fs);
    while (sim->files != NULL)
        cfsr_sim_close_file(sim, sim->files);
    cfsr_sim_disk_fini(&sim->disk);
    free(sim);
}

void cfsr_fs_sim_reseed(struct cfsr_fs *fs, uint64_t seed)
{
    cfsr_sim_of(fs)->seed = seed;
    cfsr_sim_of(fs)->disk.random_state = seed;
}

void cfsr_fs_sim_advance(struct cfsr_fs *fs, uint64_t now_us)
{
    CFSR_ASSERT(now_us >= cfsr_sim_of(fs)->now_us);
    cfsr_sim_of(fs)->now_us = now_us;
}

uint64_t cfsr_fs_sim_next_due_us(const struct cfsr_fs *fs)
{
    const struct sim_fs *sim = (const struct sim_fs *)fs;

    return sim->pending == NULL ? UINT64_MAX : sim->pending->backend[SIM_WORD_DUE_US];
}

void cfsr_fs_sim_crash(struct cfsr_fs *fs, enum cfsr_persistence model)
{
    struct sim_fs *sim = cfsr_sim_of(fs);
    struct cfsr_file_op *op;
    struct sim_file *file;

    /* A write under way may have reached any of its sectors: it joins the changes that are not
     * durable. */
    for (op = sim->pending; op != NULL; op = cfsr_sim_op_next(op)) {
        file = (struct sim_file *)op->file;
        if (op->type == CFSR_FILE_WRITE || op->type == CFSR_FILE_WRITE_DURABLE)
            (void)cfsr_sim_write(&sim->disk, file->inode, op->buf, op->len_bytes, op->offset_bytes,
                                 false);
    }
    sim->pending = NULL;
    for (file = sim->files; file != NULL; file = file->next)
        file->in_flight = 0;
    sim->boot++;
    cfsr_sim_crash(&sim->disk, model);
}

/* ---- faults ---- */

void cfsr_fs_sim_fail_nth(struct cfsr_fs *fs, uint64_t n, int rc)
{
    CFSR_ASSERT(n == 0 || rc < 0);
    cfsr_sim_of(fs)->fail_at = n == 0 ? 0 : cfsr_sim_of(fs)->op_count + n;
    cfsr_sim_of(fs)->fail_rc = rc;
}

uint64_t cfsr_fs_sim_op_count(const struct cfsr_fs *fs)
{
    return ((const struct sim_fs *)fs)->op_count;
}

void cfsr_fs_sim_set_latency(struct cfsr_fs *fs, uint64_t latency_us)
{
    cfsr_sim_of(fs)->latency_us = latency_us;
}

void cfsr_fs_sim_set_capacity(struct cfsr_fs *fs, uint64_t capacity_bytes)
{
    cfsr_sim_of(fs)->disk.capacity_bytes = capacity_bytes;
}

void cfsr_fs_sim_set_sync_failures(struct cfsr_fs *fs, uint32_t per_million,
                                   enum cfsr_sync_failure kind)
{
    cfsr_sim_of(fs)->fail_sync_per_million = per_million;
    cfsr_sim_of(fs)->sync_failure = kind;
}

void cfsr_fs_sim_keep_stale(struct cfsr_fs *fs, bool keep)
{
    cfsr_sim_of(fs)->disk.keep_stale = keep;
}

void cfsr_fs_sim_observe(struct cfsr_fs *fs, unsigned phases, cfsr_sim_observer observer,
                         void *user)
{
    struct sim_fs *sim = cfsr_sim_of(fs);

    sim->observer = observer;
    sim->observer_user = user;
    sim->observed_phases = observer == NULL ? 0 : phases;
}

const char *cfsr_sim_op_name(enum cfsr_sim_op op)
{
    static const char *const names[CFSR_SIM_OP_COUNT] = {
        [CFSR_SIM_CREATE] = "create",
        [CFSR_SIM_WRITE] = "write",
        [CFSR_SIM_WRITE_DURABLE] = "write-durable",
        [CFSR_SIM_SYNC] = "sync",
        [CFSR_SIM_ALLOCATE] = "allocate",
        [CFSR_SIM_TRUNCATE] = "truncate",
        [CFSR_SIM_RENAME] = "rename",
        [CFSR_SIM_UNLINK] = "unlink",
        [CFSR_SIM_MKDIR] = "mkdir",
        [CFSR_SIM_SYNC_DIR] = "sync-dir",
    };

    return (unsigned)op < CFSR_SIM_OP_COUNT ? names[op] : "unknown";
}

const char *cfsr_sim_phase_name(enum cfsr_sim_phase phase)
{
    switch (phase) {
    case CFSR_SIM_BEFORE: return "before";
    case CFSR_SIM_MIDDLE: return "middle";
    case CFSR_SIM_AFTER: return "after";
    }
    return "unknown";
}

/* ---- damage ---- */

static struct sim_inode *inode_of(struct cfsr_fs *fs, const char *path)
{
    char name[SIM_PATH_BYTES];
    struct sim_entry *entry;

    if (!cfsr_sim_normalise(path, name))
        return NULL;
    entry = cfsr_sim_find(&cfsr_sim_of(fs)->disk, name);
    if (entry == NULL || entry->visible == NULL || entry->visible->is_directory)
        return NULL;
    return entry->visible;
}

int cfsr_fs_sim_flip_bit(struct cfsr_fs *fs, const char *path, uint64_t bit)
{
    struct sim_inode *inode = inode_of(fs, path);

    return inode == NULL ? -ENOENT : cfsr_sim_flip(inode, bit);
}

int cfsr_fs_sim_poke(struct cfsr_fs *fs, const char *path, uint64_t offset_bytes, const void *bytes,
                     uint32_t len_bytes)
{
    struct sim_inode *inode = inode_of(fs, path);

    return inode == NULL ? -ENOENT : cfsr_sim_poke(inode, offset_bytes, bytes, len_bytes);
}

int cfsr_fs_sim_peek(struct cfsr_fs *fs, const char *path, uint64_t offset_bytes, void *bytes,
                     uint32_t len_bytes)
{
    struct sim_inode *inode = inode_of(fs, path);

    return inode == NULL ? -ENOENT : cfsr_sim_read(inode, bytes, len_bytes, offset_bytes);
}

/* The part of a sector that lies in the file; 0: none. */
static uint32_t sector_bytes(const struct sim_inode *inode, uint64_t sector)
{
    uint64_t at = sector * SIM_SECTOR;

    return at >= inode->visible_bytes
               ? 0
               : (uint32_t)cfsr_min_u64(SIM_SECTOR, inode->visible_bytes - at);
}

static int replace_sector(struct sim_inode *inode, uint64_t sector, const uint8_t *bytes)
{
    uint32_t len_bytes = sector_bytes(inode, sector);
    uint8_t before[SIM_SECTOR];
    int got;

    if (len_bytes == 0)
        return -EINVAL;
    got = cfsr_sim_read(inode, before, len_bytes, sector * SIM_SECTOR);
    if (got == (int)len_bytes && memcmp(before, bytes, len_bytes) == 0)
        return -EALREADY;
    return cfsr_sim_poke(inode, sector * SIM_SECTOR, bytes, len_bytes);
}

int cfsr_fs_sim_zero_sector(struct cfsr_fs *fs, const char *path, uint64_t sector)
{
    static const uint8_t zeros[SIM_SECTOR];
    struct sim_inode *inode = inode_of(fs, path);

    return inode == NULL ? -ENOENT : replace_sector(inode, sector, zeros);
}

int cfsr_fs_sim_stale_sector(struct cfsr_fs *fs, const char *path, uint64_t sector)
{
    struct sim_inode *inode = inode_of(fs, path);
    uint8_t stale[SIM_SECTOR];

    if (inode == NULL)
        return -ENOENT;
    if (!cfsr_sim_of(fs)->disk.keep_stale)
        return -EOPNOTSUPP;
    cfsr_sim_stale(inode, sector, stale);
    return replace_sector(inode, sector, stale);
}

int cfsr_fs_sim_misdirect(struct cfsr_fs *fs, const char *path, uint64_t from, uint64_t to)
{
    struct sim_inode *inode = inode_of(fs, path);
    uint8_t bytes[SIM_SECTOR] = {0}, stale[SIM_SECTOR];
    int rc, to_rc;

    if (inode == NULL)
        return -ENOENT;
    if (!cfsr_sim_of(fs)->disk.keep_stale)
        return -EOPNOTSUPP;
    if (sector_bytes(inode, from) == 0 || sector_bytes(inode, to) == 0)
        return -EINVAL;
    rc = cfsr_sim_read(inode, bytes, SIM_SECTOR, from * SIM_SECTOR);
    if (rc < 0)
        return rc;
    cfsr_sim_stale(inode, from, stale);
    rc = replace_sector(inode, from, stale);
    to_rc = replace_sector(inode, to, bytes);
    if (rc == 0 && to_rc == -EALREADY)
        return 0;
    return rc == 0 || rc == -EALREADY ? to_rc : rc;
}

int cfsr_fs_sim_fail_reads(struct cfsr_fs *fs, const char *path, uint64_t sector, uint64_t count)
{
    struct sim_inode *inode = inode_of(fs, path);
    int rc = inode == NULL ? -ENOENT : 0;

    for (; rc == 0 && count > 0; count--, sector++)
        rc = cfsr_sim_mark_bad(inode, sector);
    return rc;
}
