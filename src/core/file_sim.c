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
#include "core/file_sim_internal.h"

#define DIRECT_ALIGNMENT 512u

static struct sim_file *live_file(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct sim_file *sim = (struct sim_file *)file;

    return sim->boot == cfsr_sim_of(fs)->boot ? sim : NULL;
}

/* ---- points ---- */

static void tell(struct sim_fs *fs, struct cfsr_sim_point *point, enum cfsr_sim_phase phase)
{
    if ((fs->observed_phases >> phase & 1) == 0)
        return;
    point->phase = phase;
    fs->observer(fs->observer_user, &fs->fs, point);
}

static bool wants_middle(const struct sim_fs *fs)
{
    return (fs->observed_phases >> CFSR_SIM_MIDDLE & 1) != 0;
}

/* Numbers an op that changes something and says whether it is the one that was to fail. */
static int begin_op(struct sim_fs *fs, struct cfsr_sim_point *point)
{
    point->number = ++fs->op_count;
    tell(fs, point, CFSR_SIM_BEFORE);
    if (fs->fail_at == 0 || fs->op_count != fs->fail_at)
        return 0;
    fs->fail_at = 0;
    return fs->fail_rc;
}

static int end_op(struct sim_fs *fs, struct cfsr_sim_point *point, int rc)
{
    point->rc = rc;
    tell(fs, point, CFSR_SIM_AFTER);
    return rc;
}

/* What happens by halves does so by the op's number, and leaves the disk's own choices alone. */
static uint64_t point_state(const struct sim_fs *fs, const struct cfsr_sim_point *point)
{
    uint64_t state = fs->seed ^ point->number << 20;

    return cfsr_sim_mix(&state);
}

/* A name op is one transaction: it is done, and not durable. */
static void middle_of_name_op(struct sim_fs *fs, struct cfsr_sim_point *point)
{
    if (wants_middle(fs))
        tell(fs, point, CFSR_SIM_MIDDLE);
}

bool cfsr_sim_normalise(const char *path, char name_out[SIM_PATH_BYTES])
{
    char *to = name_out;

    for (; *path != '\0'; path++) {
        if (to == name_out + SIM_PATH_BYTES - 1)
            return false;
        if (*path != '/' || path[1] != '/')
            *to++ = *path;
    }
    if (to > name_out + 1 && to[-1] == '/')
        to--;
    *to = '\0';
    return true;
}

static int add_file(struct sim_fs *fs, const char *path, struct sim_entry **entry_out)
{
    struct sim_entry *entry;
    struct sim_inode *inode;

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

static int create_file(struct sim_fs *fs, const char *path, struct sim_entry **entry_out)
{
    struct cfsr_sim_point point = {.op = CFSR_SIM_CREATE, .path = path};
    int rc;

    if (!cfsr_sim_parent_exists(&fs->disk, path))
        return -ENOENT;
    rc = begin_op(fs, &point);
    if (rc == 0)
        rc = add_file(fs, path, entry_out);
    if (rc == 0)
        middle_of_name_op(fs, &point);
    return end_op(fs, &point, rc);
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
    struct sim_fs *sim = cfsr_sim_of(fs);
    struct sim_entry *entry = NULL;
    struct sim_file *file;
    char name[SIM_PATH_BYTES];
    int rc = cfsr_sim_normalise(path, name) ? open_entry(sim, name, flags, &entry) : -ENAMETOOLONG;

    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    file = calloc(1, sizeof *file);
    if (file == NULL)
        return -ENOMEM;
    file->path = strdup(name);
    if (file->path == NULL) {
        free(file);
        return -ENOMEM;
    }
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

void cfsr_sim_close_file(struct sim_fs *fs, struct sim_file *file)
{
    struct sim_file **at = &fs->files;

    while (*at != file)
        at = &(*at)->next;
    *at = file->next;
    if (file->holds_lock && file->boot == fs->boot)
        file->inode->is_locked = false;
    cfsr_sim_inode_put(&fs->disk, file->inode);
    free(file->path);
    free(file);
}

static void sim_close(struct cfsr_fs *fs, struct cfsr_file *file)
{
    CFSR_ASSERT(((struct sim_file *)file)->in_flight == 0);
    cfsr_sim_close_file(cfsr_sim_of(fs), (struct sim_file *)file);
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
    int rc = cfsr_sim_read(sim->inode, buf, len_bytes, offset_bytes);
    if (rc > 0 && sim->alignment > 1)
        cfsr_sim_read_direct(sim->inode, buf, (uint32_t)rc, offset_bytes);
    return rc;
}

/* Writes sectors of a write: the first `first`, or, if that is UINT32_MAX, those that state picks.
 */
static void write_some(struct sim_fs *fs, struct sim_inode *inode,
                       const struct cfsr_sim_point *point, const uint8_t *data, uint32_t first,
                       uint64_t *state, bool durable)
{
    uint64_t offset_bytes = point->offset_bytes;
    uint32_t left = (uint32_t)point->len_bytes, i;

    for (i = 0; left > 0; i++) {
        uint32_t part = (uint32_t)cfsr_min_u64(SIM_SECTOR - offset_bytes % SIM_SECTOR, left);

        if (first == UINT32_MAX ? cfsr_sim_mix(state) >> 63 != 0 : i < first)
            (void)cfsr_sim_write(&fs->disk, inode, data, part, offset_bytes, durable);
        data += part;
        offset_bytes += part;
        left -= part;
    }
}

static void middle_of_write(struct sim_fs *fs, struct sim_inode *inode,
                            struct cfsr_sim_point *point, const uint8_t *data)
{
    uint64_t end_bytes = point->offset_bytes + point->len_bytes, order = fs->disk.order;
    uint64_t state = point_state(fs, point), sectors = point->len_bytes / SIM_SECTOR + 1;

    if (!wants_middle(fs) || !cfsr_sim_fits(&fs->disk, inode, end_bytes))
        return;
    if (cfsr_sim_mix(&state) >> 63 != 0)
        write_some(fs, inode, point, data, UINT32_MAX, &state, false);
    else
        write_some(fs, inode, point, data, (uint32_t)(cfsr_sim_mix(&state) % sectors), NULL, false);
    tell(fs, point, CFSR_SIM_MIDDLE);
    fs->disk.order = order; /* the whole write gives its sectors the same numbers, unobserved too */
}

static bool sync_fails(struct sim_fs *fs)
{
    return fs->fail_sync_per_million > 0 &&
           cfsr_sim_random(&fs->disk) % 1000000u < fs->fail_sync_per_million;
}

static int write_file(struct sim_fs *fs, struct sim_inode *inode, struct cfsr_sim_point *point,
                      const void *buf)
{
    bool durable = point->op == CFSR_SIM_WRITE_DURABLE;
    int rc = begin_op(fs, point);

    if (rc == 0 && durable && sync_fails(fs))
        rc = -EIO;
    if (rc < 0) { /* a durable write that fails leaves any of its sectors on the disk */
        if (durable)
            write_some(fs, inode, point, buf, UINT32_MAX, &fs->disk.random_state, true);
        return end_op(fs, point, rc);
    }
    middle_of_write(fs, inode, point, buf);
    rc = cfsr_sim_write(&fs->disk, inode, buf, (uint32_t)point->len_bytes, point->offset_bytes,
                        durable);
    return end_op(fs, point, rc < 0 ? rc : (int)point->len_bytes);
}

static int sim_pwrite(struct cfsr_fs *fs, struct cfsr_file *file, const void *buf,
                      uint32_t len_bytes, uint64_t offset_bytes, bool durable)
{
    struct sim_file *target = live_file(fs, file);
    struct cfsr_sim_point point = {.op = durable ? CFSR_SIM_WRITE_DURABLE : CFSR_SIM_WRITE,
                                   .offset_bytes = offset_bytes,
                                   .len_bytes = len_bytes};

    if (target == NULL)
        return -EIO;
    if (!target->may_write)
        return -EBADF;
    if (!is_aligned(target, buf, len_bytes, offset_bytes))
        return -EINVAL;
    point.path = target->path;
    return write_file(cfsr_sim_of(fs), target->inode, &point, buf);
}

static void middle_of_sync(struct sim_fs *fs, struct sim_inode *inode, struct cfsr_sim_point *point,
                           uint64_t limit)
{
    uint64_t state = point_state(fs, point);

    if (!wants_middle(fs))
        return;
    cfsr_sim_sync_some(&fs->disk, inode, limit, &state);
    tell(fs, point, CFSR_SIM_MIDDLE);
}

/* Makes durable what changed up to the given order: for a submitted sync, what had completed by
 * then. */
static int sync_file(struct sim_fs *fs, struct sim_file *file, uint64_t limit)
{
    struct cfsr_sim_point point = {.op = CFSR_SIM_SYNC, .path = file->path};
    int rc = begin_op(fs, &point);

    if (rc == 0 && sync_fails(fs))
        rc = -EIO;
    if (rc < 0) {
        enum cfsr_sync_failure kind = fs->sync_failure;

        if (kind == CFSR_SYNC_FAILURE_EITHER)
            kind = cfsr_sim_coin(&fs->disk) ? CFSR_SYNC_FAILURE_KEPT : CFSR_SYNC_FAILURE_DROPPED;
        cfsr_sim_sync_lost(&fs->disk, file->inode, kind);
        return end_op(fs, &point, rc);
    }
    middle_of_sync(fs, file->inode, &point, limit);
    cfsr_sim_sync(&fs->disk, file->inode, limit);
    return end_op(fs, &point, 0);
}

static int sim_sync(struct cfsr_fs *fs, struct cfsr_file *file)
{
    struct sim_file *sim = live_file(fs, file);

    return sim == NULL ? -EIO : sync_file(cfsr_sim_of(fs), sim, UINT64_MAX);
}

/* On the way to the new size; nothing of it is durable. */
static void middle_of_resize(struct sim_fs *fs, struct sim_inode *inode,
                             struct cfsr_sim_point *point, uint64_t len_bytes)
{
    uint64_t half = inode->visible_bytes / 2 + len_bytes / 2, order = fs->disk.order;

    if (!wants_middle(fs) || !cfsr_sim_fits(&fs->disk, inode, len_bytes))
        return;
    if (point->op == CFSR_SIM_ALLOCATE) /* a truncation is one transaction */
        (void)cfsr_sim_resize(&fs->disk, inode, half);
    tell(fs, point, CFSR_SIM_MIDDLE);
    fs->disk.order = order;
}

static int resize_file(struct cfsr_fs *fs, struct cfsr_file *file, struct cfsr_sim_point *point)
{
    struct sim_file *sim = live_file(fs, file);
    uint64_t len_bytes = point->offset_bytes + point->len_bytes;
    int rc;

    if (sim == NULL)
        return -EIO;
    if (!sim->may_write)
        return -EBADF;
    point->path = sim->path;
    rc = begin_op(cfsr_sim_of(fs), point);
    if (rc == 0 && (point->op == CFSR_SIM_TRUNCATE || len_bytes > sim->inode->visible_bytes)) {
        middle_of_resize(cfsr_sim_of(fs), sim->inode, point, len_bytes);
        rc = cfsr_sim_resize(&cfsr_sim_of(fs)->disk, sim->inode, len_bytes);
    }
    return end_op(cfsr_sim_of(fs), point, rc);
}

static int sim_allocate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t offset_bytes,
                        uint64_t len_bytes)
{
    struct cfsr_sim_point point = {
        .op = CFSR_SIM_ALLOCATE, .offset_bytes = offset_bytes, .len_bytes = len_bytes};

    return resize_file(fs, file, &point);
}

static int sim_truncate(struct cfsr_fs *fs, struct cfsr_file *file, uint64_t len)
{
    struct cfsr_sim_point point = {.op = CFSR_SIM_TRUNCATE, .offset_bytes = len};

    return resize_file(fs, file, &point);
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
    char source[SIM_PATH_BYTES], target[SIM_PATH_BYTES];
    struct cfsr_sim_point point = {.op = CFSR_SIM_RENAME, .path = source, .to = target};
    int rc;

    if (!cfsr_sim_normalise(from, source) || !cfsr_sim_normalise(to, target))
        return -ENAMETOOLONG;
    rc = begin_op(cfsr_sim_of(fs), &point);
    if (rc == 0)
        rc = rename_entry(cfsr_sim_of(fs), source, target);
    if (rc == 0)
        middle_of_name_op(cfsr_sim_of(fs), &point);
    return end_op(cfsr_sim_of(fs), &point, rc);
}

static bool has_children(const struct sim_disk *disk, const char *path)
{
    uint64_t hash = cfsr_sim_directory_hash(path);
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        if (disk->entries[i]->visible != NULL && disk->entries[i]->directory_hash == hash)
            return true;
    }
    return false;
}

static int remove_entry(struct sim_disk *disk, const char *path)
{
    struct sim_entry *entry = cfsr_sim_find(disk, path);

    if (entry == NULL || entry->visible == NULL)
        return -ENOENT;
    if (entry->visible->is_directory)
        return has_children(disk, path) ? -ENOTEMPTY : -EISDIR;
    cfsr_sim_entry_set(disk, entry, NULL, ++disk->order);
    return 0;
}

static int make_directory(struct sim_disk *disk, const char *path)
{
    struct sim_entry *entry = cfsr_sim_find(disk, path);
    struct sim_inode *inode;

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

/* An op on one name: numbered, done by `act`, told. */
static int name_op(struct sim_fs *fs, const char *path, enum cfsr_sim_op op,
                   int (*act)(struct sim_disk *disk, const char *path))
{
    char name[SIM_PATH_BYTES];
    struct cfsr_sim_point point = {.op = op, .path = name};
    int rc;

    if (!cfsr_sim_normalise(path, name))
        return -ENAMETOOLONG;
    if (op == CFSR_SIM_MKDIR && cfsr_sim_is_directory(&fs->disk, name))
        return 0;
    rc = begin_op(fs, &point);
    if (rc == 0)
        rc = act(&fs->disk, name);
    if (rc == 0)
        middle_of_name_op(fs, &point);
    return end_op(fs, &point, rc);
}

static int sim_unlink(struct cfsr_fs *fs, const char *path)
{
    return name_op(cfsr_sim_of(fs), path, CFSR_SIM_UNLINK, remove_entry);
}

static int sim_mkdir(struct cfsr_fs *fs, const char *path)
{
    return name_op(cfsr_sim_of(fs), path, CFSR_SIM_MKDIR, make_directory);
}

static int sync_names(struct sim_fs *fs, const char *directory)
{
    struct cfsr_sim_point point = {.op = CFSR_SIM_SYNC_DIR, .path = directory};
    uint64_t state;
    int rc = begin_op(fs, &point);

    if (rc == 0 && !cfsr_sim_is_directory(&fs->disk, directory))
        rc = -ENOENT;
    if (rc == 0 && wants_middle(fs)) {
        state = point_state(fs, &point);
        cfsr_sim_sync_names(&fs->disk, directory,
                            cfsr_sim_some_name_order(&fs->disk, directory, &state));
        tell(fs, &point, CFSR_SIM_MIDDLE);
    }
    if (rc == 0)
        cfsr_sim_sync_names(&fs->disk, directory, UINT64_MAX);
    return end_op(fs, &point, rc);
}

static int sim_sync_dir(struct cfsr_fs *fs, const char *path)
{
    char name[SIM_PATH_BYTES];

    return cfsr_sim_normalise(path, name) ? sync_names(cfsr_sim_of(fs), name) : -ENAMETOOLONG;
}

static int sim_list(struct cfsr_fs *fs, const char *path,
                    int (*visit)(void *user, const struct cfsr_dir_entry *entry), void *user)
{
    struct sim_disk *disk = &cfsr_sim_of(fs)->disk;
    char directory[SIM_PATH_BYTES];
    uint64_t hash;
    size_t i;
    int rc = 0;

    if (!cfsr_sim_normalise(path, directory))
        return -ENAMETOOLONG;
    if (!cfsr_sim_is_directory(disk, directory))
        return -ENOENT;
    hash = cfsr_sim_directory_hash(directory);
    disk->listings++;
    for (i = 0; rc == 0 && i < disk->entry_count; i++) {
        const struct sim_entry *entry = disk->entries[i];
        const char *slash;
        struct cfsr_dir_entry seen;

        if (entry->visible == NULL || entry->directory_hash != hash)
            continue;
        slash = strrchr(entry->path, '/');
        seen.name = slash == NULL ? entry->path : slash + 1;
        seen.is_directory = entry->visible->is_directory;
        seen.size_bytes = entry->visible->visible_bytes;
        rc = visit(user, &seen);
    }
    disk->listings--;
    return rc;
}

static int sim_space(struct cfsr_fs *fs, const char *path, uint64_t *free_out, uint64_t *total_out)
{
    const struct sim_disk *disk = &cfsr_sim_of(fs)->disk;

    (void)path;
    *free_out = disk->used_bytes < disk->capacity_bytes ? disk->capacity_bytes - disk->used_bytes
                                                        : 0;
    *total_out = disk->capacity_bytes;
    return 0;
}

static int sim_submit(struct cfsr_fs *fs, struct cfsr_file_op *op)
{
    struct sim_fs *sim = cfsr_sim_of(fs);
    struct cfsr_file_op *before = NULL, *after = sim->pending;
    uint64_t due_us = sim->now_us + sim->latency_us / 2;

    if (sim->latency_us > 0) /* around the mean, so that completions come out of order */
        due_us += cfsr_sim_random(&sim->disk) % (sim->latency_us + 1);
    while (after != NULL && after->backend[SIM_WORD_DUE_US] <= due_us) {
        before = after;
        after = cfsr_sim_op_next(after);
    }
    op->backend[SIM_WORD_NEXT] = (uint64_t)(uintptr_t)after;
    op->backend[SIM_WORD_DUE_US] = due_us;
    op->backend[SIM_WORD_ORDER] = sim->disk.order;
    if (before == NULL)
        sim->pending = op;
    else
        before->backend[SIM_WORD_NEXT] = (uint64_t)(uintptr_t)op;
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
        return sync_file(cfsr_sim_of(fs), file, op->backend[SIM_WORD_ORDER]);
    return sim_pwrite(fs, op->file, op->buf, op->len_bytes, op->offset_bytes,
                      op->type == CFSR_FILE_WRITE_DURABLE);
}

static unsigned sim_poll(struct cfsr_fs *fs)
{
    struct sim_fs *sim = cfsr_sim_of(fs);
    unsigned count = 0, budget = 0;
    struct cfsr_file_op *op;

    for (op = sim->pending; op != NULL && op->backend[SIM_WORD_DUE_US] <= sim->now_us;
         op = cfsr_sim_op_next(op))
        budget++; /* what a done() submits now waits for the next poll, unless it overtakes */
    while (count < budget && sim->pending != NULL &&
           sim->pending->backend[SIM_WORD_DUE_US] <= sim->now_us) {
        op = sim->pending;
        sim->pending = cfsr_sim_op_next(op);
        ((struct sim_file *)op->file)->in_flight--;
        count++;
        cfsr_file_settle(op, run_op(fs, op));
    }
    return count;
}

const struct cfsr_fs_ops cfsr_sim_table = {
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
