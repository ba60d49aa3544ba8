/*
 * file_sim_disk.c - names and power cuts of the simulated file backend; its bytes are in
 * file_sim_data.c.
 *
 * Thread:     one.
 * Invariants: after a crash the visible and the durable target of every name are the same; a path
 *             is looked up by its hash, and a directory's names by the directory's.
 * Rejected:   a tree of directories: nothing above the seam moves or removes one.
 */
#include "core/file_sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

#define HUNT_MAX 16u /* slots looked at for an unused one before the table grows */

/* SplitMix64 (Steele, Lea, Flood, 2014): small, and every seed is as good as another. */
uint64_t cfsr_sim_mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t cfsr_sim_random(struct sim_disk *disk)
{
    return cfsr_sim_mix(&disk->random_state);
}

bool cfsr_sim_coin(struct sim_disk *disk)
{
    return (cfsr_sim_random(disk) >> 63) != 0;
}

/* ---- names ---- */

/* FNV-1a. */
static uint64_t hash_of(const char *text, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325u;
    size_t i;

    for (i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    return hash;
}

uint64_t cfsr_sim_directory_hash(const char *directory)
{
    return hash_of(directory, strlen(directory));
}

static size_t parent_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? 0 : (size_t)(slash - path);
}

static uint64_t hash_of_parent(const char *path)
{
    size_t len = parent_length(path);

    if (len > 0)
        return hash_of(path, len);
    return hash_of(path[0] == '/' ? "/" : ".", 1);
}

static struct sim_entry *find_hashed(const struct sim_disk *disk, const char *path, size_t len)
{
    uint64_t hash = hash_of(path, len);
    struct sim_entry *entry = disk->bucket[hash % SIM_BUCKETS];

    while (entry != NULL && (entry->hash != hash || strncmp(entry->path, path, len) != 0 ||
                             entry->path[len] != '\0'))
        entry = entry->next;
    return entry;
}

struct sim_entry *cfsr_sim_find(const struct sim_disk *disk, const char *path)
{
    return find_hashed(disk, path, strlen(path));
}

static void unname(struct sim_disk *disk, struct sim_entry *entry)
{
    struct sim_entry **at = &disk->bucket[entry->hash % SIM_BUCKETS];

    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    free(entry->path);
    entry->path = NULL;
}

static struct sim_entry *reuse_slot(struct sim_disk *disk)
{
    size_t i;

    for (i = 0; disk->listings == 0 && i < HUNT_MAX && i < disk->entry_count; i++) {
        struct sim_entry *entry = disk->entries[disk->hunt++ % disk->entry_count];

        if (entry->visible != NULL || entry->durable != NULL)
            continue;
        if (entry->path != NULL)
            unname(disk, entry);
        return entry;
    }
    return NULL;
}

static struct sim_entry *unused_slot(struct sim_disk *disk)
{
    struct sim_entry *entry = reuse_slot(disk);

    if (entry != NULL)
        return entry;
    if (disk->entry_count == disk->entry_room) {
        size_t room = disk->entry_room * 2 + 16;
        struct sim_entry **grown = realloc(disk->entries, room * sizeof(struct sim_entry *));

        if (grown == NULL)
            return NULL;
        disk->entries = grown;
        disk->entry_room = room;
    }
    entry = calloc(1, sizeof *entry);
    if (entry != NULL)
        disk->entries[disk->entry_count++] = entry;
    return entry;
}

struct sim_entry *cfsr_sim_find_or_add(struct sim_disk *disk, const char *path)
{
    struct sim_entry *entry = cfsr_sim_find(disk, path);
    char *name;

    if (entry != NULL)
        return entry;
    name = strdup(path);
    entry = name == NULL ? NULL : unused_slot(disk);
    if (entry == NULL) {
        free(name);
        return NULL;
    }
    entry->path = name;
    entry->hash = hash_of(path, strlen(path));
    entry->directory_hash = hash_of_parent(path);
    entry->next = disk->bucket[entry->hash % SIM_BUCKETS];
    disk->bucket[entry->hash % SIM_BUCKETS] = entry;
    return entry;
}

struct sim_inode *cfsr_sim_inode_new(bool is_directory)
{
    struct sim_inode *inode = calloc(1, sizeof *inode);

    if (inode != NULL) {
        inode->is_directory = is_directory;
        inode->references = 1;
    }
    return inode;
}

void cfsr_sim_inode_put(struct sim_disk *disk, struct sim_inode *inode)
{
    if (inode == NULL || --inode->references > 0)
        return;
    disk->used_bytes -= cfsr_align_up(inode->visible_bytes, SIM_PAGE);
    cfsr_sim_inode_drop_pages(disk, inode);
    free(inode);
}

static void point_to(struct sim_disk *disk, struct sim_inode **target, struct sim_inode *inode)
{
    struct sim_inode *old = *target;

    if (inode != NULL)
        inode->references++;
    *target = inode;
    cfsr_sim_inode_put(disk, old);
}

void cfsr_sim_entry_set(struct sim_disk *disk, struct sim_entry *entry, struct sim_inode *inode,
                        uint64_t order)
{
    point_to(disk, &entry->visible, inode);
    entry->order = order;
}

static bool is_directory(const struct sim_disk *disk, const char *path, size_t len)
{
    const struct sim_entry *entry;

    if (len == 0 || (len == 1 && (path[0] == '/' || path[0] == '.')))
        return true; /* the roots are always there */
    entry = find_hashed(disk, path, len);
    return entry != NULL && entry->visible != NULL && entry->visible->is_directory;
}

bool cfsr_sim_is_directory(const struct sim_disk *disk, const char *path)
{
    return is_directory(disk, path, strlen(path));
}

bool cfsr_sim_parent_exists(const struct sim_disk *disk, const char *path)
{
    return is_directory(disk, path, parent_length(path));
}

void cfsr_sim_sync_names(struct sim_disk *disk, const char *directory, uint64_t limit)
{
    uint64_t hash = cfsr_sim_directory_hash(directory);
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        struct sim_entry *entry = disk->entries[i];

        if (entry->path == NULL || entry->directory_hash != hash || entry->order == 0 ||
            entry->order > limit)
            continue;
        point_to(disk, &entry->durable, entry->visible);
        entry->order = 0;
    }
}

uint64_t cfsr_sim_some_name_order(const struct sim_disk *disk, const char *directory,
                                  uint64_t *state)
{
    uint64_t hash = cfsr_sim_directory_hash(directory), order = 0, seen = 0;
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        const struct sim_entry *entry = disk->entries[i];

        if (entry->path == NULL || entry->directory_hash != hash || entry->order == 0)
            continue;
        if (cfsr_sim_mix(state) % ++seen == 0)
            order = entry->order;
    }
    return order;
}

/* ---- power cuts ---- */

bool cfsr_sim_survives(const struct sim_verdict *verdict, uint64_t order)
{
    uint64_t toss = verdict->salt ^ order;

    switch (verdict->model) {
    case CFSR_PERSIST_NOTHING: return false;
    case CFSR_PERSIST_EVERYTHING: return true;
    case CFSR_PERSIST_RANDOM: return cfsr_sim_mix(&toss) >> 63 != 0;
    case CFSR_PERSIST_PREFIX: return order <= verdict->cut;
    }
    cfsr_assert_failed("known persistence model", __FILE__, __LINE__, __func__);
}

/* A name whose directory did not survive is out of reach: gone. */
static void drop_orphans(struct sim_disk *disk)
{
    bool changed = true;
    size_t i;

    while (changed) {
        changed = false;
        for (i = 0; i < disk->entry_count; i++) {
            struct sim_entry *entry = disk->entries[i];

            if (entry->visible == NULL || cfsr_sim_parent_exists(disk, entry->path))
                continue;
            point_to(disk, &entry->visible, NULL);
            point_to(disk, &entry->durable, NULL);
            changed = true;
        }
    }
}

/* A cut among the changes that are not durable yet; anywhere earlier would be the same as keeping
 * nothing. */
static uint64_t choose_cut(struct sim_disk *disk)
{
    uint64_t lowest = disk->order + 1;
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        const struct sim_entry *entry = disk->entries[i];

        if (entry->order != 0)
            lowest = cfsr_min_u64(lowest, entry->order);
        if (entry->visible != NULL)
            lowest = cfsr_sim_lowest_dirty(entry->visible, lowest);
    }
    return lowest - 1 + cfsr_sim_random(disk) % (disk->order + 2 - lowest);
}

void cfsr_sim_crash(struct sim_disk *disk, enum cfsr_persistence model)
{
    struct sim_verdict verdict = {.model = model};
    bool lost_directory = false;
    size_t i;

    verdict.cut = choose_cut(disk);
    verdict.salt = cfsr_sim_random(disk);
    for (i = 0; i < disk->entry_count; i++) {
        struct sim_entry *entry = disk->entries[i];

        if (entry->order != 0 && cfsr_sim_survives(&verdict, entry->order))
            point_to(disk, &entry->durable, entry->visible);
        lost_directory |= entry->durable == NULL && entry->visible != NULL &&
                          entry->visible->is_directory;
        point_to(disk, &entry->visible, entry->durable);
        entry->order = 0;
    }
    if (lost_directory)
        drop_orphans(disk);
    for (i = 0; i < disk->entry_count; i++) {
        if (disk->entries[i]->visible != NULL)
            cfsr_sim_crash_inode(disk, disk->entries[i]->visible, &verdict);
    }
}

/* ---- whole disks ---- */

/* The clone of an inode, made at its first name; the names hold it. */
static struct sim_inode *clone_of(struct sim_disk *to, struct sim_inode *from)
{
    struct sim_inode *clone;

    if (from == NULL || from->clone != NULL)
        return from == NULL ? NULL : from->clone;
    clone = cfsr_sim_inode_new(from->is_directory);
    if (clone == NULL)
        return NULL;
    clone->references = 0;
    clone->visible_bytes = from->visible_bytes;
    clone->durable_bytes = from->durable_bytes;
    to->used_bytes += cfsr_align_up(from->visible_bytes, SIM_PAGE);
    from->clone = clone;
    return cfsr_sim_inode_copy_pages(from, clone) == 0 ? clone : NULL;
}

static int copy_entry(struct sim_disk *to, const struct sim_entry *from)
{
    struct sim_entry *entry = cfsr_sim_find_or_add(to, from->path);

    if (entry == NULL)
        return -ENOMEM;
    point_to(to, &entry->visible, clone_of(to, from->visible));
    point_to(to, &entry->durable, clone_of(to, from->durable));
    entry->order = from->order;
    if ((entry->visible == NULL) != (from->visible == NULL) ||
        (entry->durable == NULL) != (from->durable == NULL))
        return -ENOMEM;
    return 0;
}

int cfsr_sim_disk_copy(const struct sim_disk *from, struct sim_disk *to)
{
    size_t i;
    int rc = 0;

    memset(to, 0, sizeof *to);
    to->random_state = from->random_state;
    to->order = from->order;
    to->capacity_bytes = from->capacity_bytes;
    to->keep_stale = from->keep_stale;
    for (i = 0; rc == 0 && i < from->entry_count; i++) {
        if (from->entries[i]->visible != NULL || from->entries[i]->durable != NULL)
            rc = copy_entry(to, from->entries[i]);
    }
    for (i = 0; i < from->entry_count; i++) {
        if (from->entries[i]->visible != NULL)
            from->entries[i]->visible->clone = NULL;
        if (from->entries[i]->durable != NULL)
            from->entries[i]->durable->clone = NULL;
    }
    return rc;
}

void cfsr_sim_disk_fini(struct sim_disk *disk)
{
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        point_to(disk, &disk->entries[i]->visible, NULL);
        point_to(disk, &disk->entries[i]->durable, NULL);
        free(disk->entries[i]->path);
        free(disk->entries[i]);
    }
    free(disk->entries);
    while (disk->free_buffers != NULL) {
        void *buffer = disk->free_buffers;

        memcpy(&disk->free_buffers, buffer, sizeof disk->free_buffers);
        free(buffer);
    }
}
