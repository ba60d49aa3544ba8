/*
 * file_sim.c - the simulated file backend: in memory, virtual time, seeded faults, power cuts.
 *
 * Thread:     one.
 * Invariants: the same seed and the same calls give the same outcome; an async op takes effect
 *             when it completes, and a sync covers only what had completed when it was submitted
 *             (so code that syncs beside its writes loses data here as it would on a disk); done()
 *             is never called from submit.
 * Rejected:   a model of one particular file system: names need sync_dir here even where ext4
 *             would save them by the fsync of the file, since the code above must not depend on
 *             it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "core/file_backend.h"
#include "core/file_sim_disk.h"

#define DIRECT_ALIGNMENT 512u

struct sim_file {
    struct cfsr_file file;
    struct sim_inode *inode;
    struct sim_file *next; /* all open files */
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
    uint64_t op_count;
    uint64_t fail_at; /* op number that fails; 0: none */
    int fail_rc;
    uint32_t fail_sync_per_million;
};

/* backend words of a pending op */
enum {
    WORD_NEXT,
    WORD_DUE_US,
    WORD_ORDER
};

static struct sim_fs *sim_of(struct cfsr_fs *fs)
{
    return (struct sim_fs *)fs;
}

static struct sim_file *live_file(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct sim_file *sim = (struct sim_file *)file;

    return sim->boot == sim_of(fs)->boot ? sim : NULL;
}

/* Counts an op that changes something and says whether it is the one that was to fail. */
static int count_op(struct sim_fs *fs)
{
    fs->op_count++;
    if (fs->fail_at == 0 || fs->op_count != fs->fail_at)
        return 0;
    fs->fail_at = 0;
    return fs->fail_rc;
}

/* Without doubled and trailing slashes; allocated. */
static char *normalise(const char *path)
{
    char *copy = strdup(path), *from = copy, *to = copy;

    while (copy != NULL && *from != '\0') {
        if (*from != '/' || from[1] != '/')
            *to++ = *from;
        from++;
    }
    if (copy != NULL) {
        if (to > copy + 1 && to[-1] == '/')
            to--;
        *to = '\0';
    }
    return copy;
}

static int create_file(struct sim_fs *fs, const char *path, struct sim_entry **entry_out)
{
    struct sim_entry *entry;
    struct sim_inode *inode;

    if (!cfsr_sim_parent_exists(&fs->disk, path))
        return -ENOENT;
    entry = cfsr_sim_find_or_add(&fs->disk, path);
    inode = cfsr_sim_inode_new(false);
    if (entry == NULL || inode == NULL) {
        free(inode);
        return -ENOMEM;
    }
    cfsr_sim_entry_set(&fs->disk, entry, inode, ++fs->disk.order);
    cfsr_sim_inode_put(&fs->disk, inode); /* the name holds it */
    *entry_out = entry;
    return 0;
}

static int open_entry(struct sim_fs *fs, const char *path, unsigned flags,
                      struct sim_entry **entry_out)
{
    struct sim_entry *entry = cfsr_sim_find(&fs->disk, path);

    if (entry == NULL || entry->visible == NULL)
        return (flags & CFSR_OPEN_CREATE) != 0 ? create_file(fs, path, entry_out) : -ENOENT;
    if ((flags & CFSR_OPEN_CREATE) != 0 && (flags & CFSR_OPEN_EXCLUSIVE) != 0)
        return -EEXIST;
    if (entry->visible->is_directory)
        return -EISDIR;
    *entry_out = entry;
    return 0;
}

static int sim_open(struct cfsr_fs *fs, const char *path, unsigned flags,
                    struct cfsr_file **file_out)
{
    struct sim_fs *sim = sim_of(fs);
    struct sim_entry *entry = NULL;
    struct sim_file *file;
    char *name = normalise(path);
    int rc;

    if (name == NULL)
        return -ENOMEM;
    rc = open_entry(sim, name, flags, &entry);
    free(name);
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    file = calloc(1, sizeof *file);
    if (file == NULL)
        return -ENOMEM;
    file->file.fs = fs;
    file->inode = entry->visible;
    file->inode->references++;
    file->boot = sim->boot;
    file->alignment = (flags & CFSR_OPEN_DIRECT) != 0 ? DIRECT_ALIGNMENT : 1;
    file->may_read = (flags & CFSR_OPEN_READ) != 0;
    file->may_write = (flags & CFSR_OPEN_WRITE) != 0;
    file->next = sim->files;
    sim->files = file;
    *file_out = &file->file;
    return 0;
}

static void close_file(struct sim_fs *fs, struct sim_file *file)
{
    struct sim_file **at = &fs->files;

    while (*at != file)
        at = &(*at)->next;
    *at = file->next;
    if (file->holds_lock && file->boot == fs->boot)
        file->inode->is_locked = false;
    cfsr_sim_inode_put(&fs->disk, file->inode);
    free(file);
}

static void sim_close(struct cfsr_fs *fs, struct cfsr_file *file)
{
    CFSR_ASSERT(((struct sim_file *)file)->in_flight == 0);
    close_file(sim_of(fs), (struct sim_file *)file);
}

static int sim_size(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t *bytes_out)
{
    struct sim_file *sim = live_file(fs, file);

    if (sim == NULL)
        return -EIO;
    *bytes_out = sim->inode->visible_bytes;
    return 0;
}

static uint32_t sim_alignment(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    return ((struct sim_file *)file)->alignment;
}

static bool is_aligned(const struct sim_file *file, const void *buf, uint32_t len_bytes,
                       uint64_t offset_bytes)
{
    return (len_bytes | offset_bytes | (uintptr_t)buf) % file->alignment == 0;
}

static int sim_pread(struct cfsr_fs *fs, struct cfsr_file *file, void *buf, uint32_t len_bytes,
                     uint64_t offset_bytes)
{
    struct sim_file *sim = live_file(fs, file);

    if (sim == NULL)
        return -EIO;
    if (!sim->may_read)
        return -EBADF;
    if (!is_aligned(sim, buf, len_bytes, offset_bytes))
        return -EINVAL;
    return (int)cfsr_sim_read(sim->inode, buf, len_bytes, offset_bytes);
}

static bool sync_fails(struct sim_fs *fs)
{
    return fs->fail_sync_per_million > 0 &&
           cfsr_sim_random(&fs->disk) % 1000000u < fs->fail_sync_per_million;
}

/* A durable write that fails leaves any of its sectors on the disk, as a torn write does. */
static void tear_write(struct sim_fs *fs, struct sim_inode *inode, const uint8_t *data,
                       uint32_t len_bytes, uint64_t offset_bytes)
{
    while (len_bytes > 0) {
        uint32_t part = (uint32_t)cfsr_min_u64(SIM_SECTOR - offset_bytes % SIM_SECTOR, len_bytes);

        if (cfsr_sim_coin(&fs->disk) &&
            cfsr_sim_write(&fs->disk, inode, data, part, offset_bytes) == 0)
            cfsr_sim_sync_range(inode, offset_bytes, part, UINT64_MAX);
        data += part;
        offset_bytes += part;
        len_bytes -= part;
    }
}

static int sim_pwrite(struct cfsr_fs *fs, struct cfsr_file *file, const void *buf,
                      uint32_t len_bytes, uint64_t offset_bytes, bool durable)
{
    struct sim_fs *sim = sim_of(fs);
    struct sim_file *target = live_file(fs, file);
    int rc;

    if (target == NULL)
        return -EIO;
    if (!target->may_write)
        return -EBADF;
    if (!is_aligned(target, buf, len_bytes, offset_bytes))
        return -EINVAL;
    rc = count_op(sim);
    if (rc == 0 && durable && sync_fails(sim))
        rc = -EIO;
    if (rc < 0) {
        if (durable)
            tear_write(sim, target->inode, buf, len_bytes, offset_bytes);
        return rc;
    }
    rc = cfsr_sim_write(&sim->disk, target->inode, buf, len_bytes, offset_bytes);
    if (rc < 0)
        return rc;
    if (durable) {
        cfsr_sim_sync_range(target->inode, offset_bytes, len_bytes, UINT64_MAX);
        target->inode->durable_bytes = cfsr_max_u64(target->inode->durable_bytes,
                                                    offset_bytes + len_bytes);
    }
    return (int)len_bytes;
}

/* Makes durable what changed up to the given order: for a submitted sync, what had completed by
 * then. */
static int sync_file(struct sim_fs *fs, struct sim_file *file, uint64_t limit)
{
    int rc = count_op(fs);

    if (rc == 0 && sync_fails(fs))
        rc = -EIO;
    if (rc < 0) {
        cfsr_sim_sync_lost(&fs->disk, file->inode);
        return rc;
    }
    cfsr_sim_sync_range(file->inode, 0, (uint64_t)file->inode->chunk_count * SIM_CHUNK, limit);
    file->inode->durable_bytes = file->inode->visible_bytes;
    return 0;
}

static int sim_sync(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct sim_file *sim = live_file(fs, file);

    return sim == NULL ? -EIO : sync_file(sim_of(fs), sim, UINT64_MAX);
}

static int resize_file(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len_bytes,
                       bool may_shrink)
{
    struct sim_file *sim = live_file(fs, file);
    int rc;

    if (sim == NULL)
        return -EIO;
    if (!sim->may_write)
        return -EBADF;
    rc = count_op(sim_of(fs));
    if (rc < 0 || (!may_shrink && len_bytes <= sim->inode->visible_bytes))
        return rc;
    return cfsr_sim_resize(&sim_of(fs)->disk, sim->inode, len_bytes);
}

static int sim_allocate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t offset_bytes,
                        uint64_t len_bytes)
{
    return resize_file(fs, file, offset_bytes + len_bytes, false);
}

static int sim_truncate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len_bytes)
{
    return resize_file(fs, file, len_bytes, true);
}

static int sim_lock(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct sim_file *sim = live_file(fs, file);

    if (sim == NULL)
        return -EIO;
    if (sim->inode->is_locked && !sim->holds_lock)
        return -CFSR_E_LOCKED;
    sim->inode->is_locked = true;
    sim->holds_lock = true;
    return 0;
}

static int rename_entry(struct sim_fs *fs, const char *from, const char *to)
{
    struct sim_entry *source = cfsr_sim_find(&fs->disk, from);
    struct sim_entry *target;
    uint64_t order;

    if (source == NULL || source->visible == NULL || !cfsr_sim_parent_exists(&fs->disk, to))
        return -ENOENT;
    if (source->visible->is_directory)
        return -EOPNOTSUPP; /* nothing above the seam moves directories */
    if (strcmp(from, to) == 0)
        return 0;
    target = cfsr_sim_find_or_add(&fs->disk, to);
    if (target == NULL)
        return -ENOMEM;
    if (target->visible != NULL && target->visible->is_directory)
        return -EISDIR;
    order = ++fs->disk.order; /* one for both names: a cut never keeps half of a rename */
    cfsr_sim_entry_set(&fs->disk, target, source->visible, order);
    cfsr_sim_entry_set(&fs->disk, source, NULL, order);
    return 0;
}

static int sim_rename(struct cfsr_fs *fs, const char *from, const char *to)
{
    char *source = normalise(from), *target = normalise(to);
    int rc = source == NULL || target == NULL ? -ENOMEM : count_op(sim_of(fs));

    if (rc == 0)
        rc = rename_entry(sim_of(fs), source, target);
    free(source);
    free(target);
    return rc;
}

static bool has_children(const struct sim_disk *disk, const char *path)
{
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        if (disk->entries[i]->visible != NULL && cfsr_sim_is_in(disk->entries[i]->path, path))
            return true;
    }
    return false;
}

static int sim_unlink(struct cfsr_fs *fs, const char *path)
{
    struct sim_disk *disk = &sim_of(fs)->disk;
    char *name = normalise(path);
    struct sim_entry *entry;
    int rc = name == NULL ? -ENOMEM : count_op(sim_of(fs));

    if (rc == 0) {
        entry = cfsr_sim_find(disk, name);
        if (entry == NULL || entry->visible == NULL)
            rc = -ENOENT;
        else if (entry->visible->is_directory)
            rc = has_children(disk, name) ? -ENOTEMPTY : -EISDIR;
        else
            cfsr_sim_entry_set(disk, entry, NULL, ++disk->order);
    }
    free(name);
    return rc;
}

static int make_directory(struct sim_disk *disk, const char *path)
{
    struct sim_entry *entry = cfsr_sim_find(disk, path);
    struct sim_inode *inode;

    if (cfsr_sim_is_directory(disk, path))
        return 0;
    if (entry != NULL && entry->visible != NULL)
        return -ENOTDIR;
    if (!cfsr_sim_parent_exists(disk, path))
        return -ENOENT;
    entry = cfsr_sim_find_or_add(disk, path);
    inode = cfsr_sim_inode_new(true);
    if (entry == NULL || inode == NULL) {
        free(inode);
        return -ENOMEM;
    }
    cfsr_sim_entry_set(disk, entry, inode, ++disk->order);
    cfsr_sim_inode_put(disk, inode);
    return 0;
}

static int sim_mkdir(struct cfsr_fs *fs, const char *path)
{
    char *name = normalise(path);
    int rc = name == NULL ? -ENOMEM : make_directory(&sim_of(fs)->disk, name);

    free(name);
    return rc;
}

static int sim_sync_dir(struct cfsr_fs *fs, const char *path)
{
    char *name = normalise(path);
    int rc = name == NULL ? -ENOMEM : count_op(sim_of(fs));

    if (rc == 0 && !cfsr_sim_is_directory(&sim_of(fs)->disk, name))
        rc = -ENOENT;
    if (rc == 0)
        cfsr_sim_sync_names(&sim_of(fs)->disk, name);
    free(name);
    return rc;
}

static int sim_list(struct cfsr_fs *fs, const char *path,
                    int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user)
{
    struct sim_disk *disk = &sim_of(fs)->disk;
    char *directory = normalise(path);
    int rc = directory == NULL ? -ENOMEM : cfsr_sim_is_directory(disk, directory) ? 0 : -ENOENT;
    size_t i;

    disk->listings++;
    for (i = 0; rc == 0 && i < disk->entry_count; i++) {
        const struct sim_entry *entry = disk->entries[i];
        struct cfsr_dir_entry seen;

        if (entry->visible == NULL || !cfsr_sim_is_in(entry->path, directory))
            continue;
        seen.name = strrchr(entry->path, '/') == NULL ? entry->path : strrchr(entry->path, '/') + 1;
        seen.is_directory = entry->visible->is_directory;
        seen.size_bytes = entry->visible->visible_bytes;
        rc = visit(user, &seen);
    }
    disk->listings--;
    free(directory);
    return rc;
}

static int sim_space(struct cfsr_fs *fs, const char *path, uint64_t *free_out, uint64_t *total_out)
{
    const struct sim_disk *disk = &sim_of(fs)->disk;

    (void)path;
    *free_out = disk->used_bytes < disk->capacity_bytes ? disk->capacity_bytes - disk->used_bytes
                                                        : 0;
    *total_out = disk->capacity_bytes;
    return 0;
}

static struct cfsr_file_op *op_next(const struct cfsr_file_op *op)
{
    return (struct cfsr_file_op *)(uintptr_t)op->backend[WORD_NEXT];
}

static int sim_submit(struct cfsr_fs *fs, struct cfsr_file_op *op)
{
    struct sim_fs *sim = sim_of(fs);
    struct cfsr_file_op *before = NULL, *after = sim->pending;
    uint64_t due_us = sim->now_us + sim->latency_us / 2;

    if (sim->latency_us > 0) /* around the mean, so that completions come out of order */
        due_us += cfsr_sim_random(&sim->disk) % (sim->latency_us + 1);
    while (after != NULL && after->backend[WORD_DUE_US] <= due_us) {
        before = after;
        after = op_next(after);
    }
    op->backend[WORD_NEXT] = (uint64_t)(uintptr_t)after;
    op->backend[WORD_DUE_US] = due_us;
    op->backend[WORD_ORDER] = sim->disk.order;
    if (before == NULL)
        sim->pending = op;
    else
        before->backend[WORD_NEXT] = (uint64_t)(uintptr_t)op;
    ((struct sim_file *)op->file)->in_flight++;
    return 0;
}

static int run_op(struct cfsr_fs *fs, const struct cfsr_file_op *op)
{
    struct sim_file *file = live_file(fs, op->file);

    if (file == NULL)
        return -EIO;
    if (cfsr_file_op_refused(op))
        return -CFSR_E_FAILED;
    if (op->type == CFSR_FILE_READ)
        return sim_pread(fs, op->file, op->buf, op->len_bytes, op->offset_bytes);
    if (op->type == CFSR_FILE_SYNC)
        return sync_file(sim_of(fs), file, op->backend[WORD_ORDER]);
    return sim_pwrite(fs, op->file, op->buf, op->len_bytes, op->offset_bytes,
                      op->type == CFSR_FILE_WRITE_DURABLE);
}

static unsigned sim_poll(struct cfsr_fs *fs)
{
    struct sim_fs *sim = sim_of(fs);
    unsigned count = 0, budget = 0;
    struct cfsr_file_op *op;

    for (op = sim->pending; op != NULL && op->backend[WORD_DUE_US] <= sim->now_us; op = op_next(op))
        budget++; /* what a done() submits now waits for the next poll, unless it overtakes */
    while (count < budget && sim->pending != NULL &&
           sim->pending->backend[WORD_DUE_US] <= sim->now_us) {
        op = sim->pending;
        sim->pending = op_next(op);
        ((struct sim_file *)op->file)->in_flight--;
        count++;
        cfsr_file_settle(op, run_op(fs, op));
    }
    return count;
}

int cfsr_fs_sim_create(const struct cfsr_fs_sim_options *options, struct cfsr_fs **fs_out)
{
    static const struct cfsr_fs_ops ops = {
        .name = "simulated",
        .open = sim_open,
        .close = sim_close,
        .size = sim_size,
        .alignment = sim_alignment,
        .pread = sim_pread,
        .pwrite = sim_pwrite,
        .sync = sim_sync,
        .allocate = sim_allocate,
        .truncate = sim_truncate,
        .lock = sim_lock,
        .rename = sim_rename,
        .unlink = sim_unlink,
        .mkdir = sim_mkdir,
        .sync_dir = sim_sync_dir,
        .list = sim_list,
        .space = sim_space,
        .submit = sim_submit,
        .poll = sim_poll,
    };
    struct sim_fs *fs = calloc(1, sizeof *fs);

    if (fs == NULL)
        return -ENOMEM;
    fs->fs.ops = &ops;
    fs->disk.random_state = options->seed;
    fs->disk.capacity_bytes = options->capacity_bytes;
    fs->latency_us = options->write_latency_us;
    fs->fail_sync_per_million = options->fail_sync_per_million;
    *fs_out = &fs->fs;
    return 0;
}

void cfsr_fs_sim_destroy(struct cfsr_fs *fs)
{
    struct sim_fs *sim;

    if (fs == NULL)
        return;
    sim = sim_of(fs);
    while (sim->files != NULL)
        close_file(sim, sim->files);
    cfsr_sim_disk_fini(&sim->disk);
    free(sim);
}

void cfsr_fs_sim_advance(struct cfsr_fs *fs, uint64_t now_us)
{
    CFSR_ASSERT(now_us >= sim_of(fs)->now_us);
    sim_of(fs)->now_us = now_us;
}

uint64_t cfsr_fs_sim_next_due_us(const struct cfsr_fs *fs)
{
    const struct sim_fs *sim = (const struct sim_fs *)fs;

    return sim->pending == NULL ? UINT64_MAX : sim->pending->backend[WORD_DUE_US];
}

void cfsr_fs_sim_crash(struct cfsr_fs *fs, enum cfsr_persistence model)
{
    struct sim_fs *sim = sim_of(fs);
    struct cfsr_file_op *op;
    struct sim_file *file;

    /* A write under way may have reached any of its sectors: it joins the changes that are not
     * durable. */
    for (op = sim->pending; op != NULL; op = op_next(op)) {
        file = (struct sim_file *)op->file;
        if (op->type == CFSR_FILE_WRITE || op->type == CFSR_FILE_WRITE_DURABLE)
            (void)cfsr_sim_write(&sim->disk, file->inode, op->buf, op->len_bytes, op->offset_bytes);
    }
    sim->pending = NULL;
    for (file = sim->files; file != NULL; file = file->next)
        file->in_flight = 0;
    sim->boot++;
    cfsr_sim_crash(&sim->disk, model);
}

int cfsr_fs_sim_flip_bit(struct cfsr_fs *fs, const char *path, uint64_t bit)
{
    char *name = normalise(path);
    struct sim_entry *entry = name == NULL ? NULL : cfsr_sim_find(&sim_of(fs)->disk, name);

    free(name);
    if (entry == NULL || entry->visible == NULL || entry->visible->is_directory)
        return -ENOENT;
    return cfsr_sim_flip(entry->visible, bit);
}

void cfsr_fs_sim_fail_nth(struct cfsr_fs *fs, uint64_t n, int rc)
{
    CFSR_ASSERT(n == 0 || rc < 0);
    sim_of(fs)->fail_at = n == 0 ? 0 : sim_of(fs)->op_count + n;
    sim_of(fs)->fail_rc = rc;
}

uint64_t cfsr_fs_sim_op_count(const struct cfsr_fs *fs)
{
    return ((const struct sim_fs *)fs)->op_count;
}
