/*
 * file_sim_disk.c - sectors, names and power cuts of the simulated file backend.
 *
 * Thread:     one.
 * Invariants: a sector with dirty_order 0 is not written back by any later sync, even if its two
 *             copies differ (that is what a failed sync leaves: see the PostgreSQL fsync history);
 *             after a crash both copies are equal.
 * Rejected:   a log of writes replayed at the crash (same outcomes for more memory).
 */
#include "core/file_sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

#define BLOCK_BYTES 4096u /* unit of space accounting */

/* SplitMix64 (Steele, Lea, Flood, 2014): small, and every seed is as good as another. */
uint64_t cfsr_sim_random(struct sim_disk *disk)
{
    uint64_t z = disk->random_state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

bool cfsr_sim_coin(struct sim_disk *disk)
{
    return (cfsr_sim_random(disk) >> 63) != 0;
}

static uint64_t blocks_of(uint64_t bytes)
{
    return cfsr_align_up(bytes, BLOCK_BYTES);
}

static struct sim_chunk *chunk_at(const struct sim_inode *inode, uint64_t offset_bytes)
{
    uint64_t index = offset_bytes / SIM_CHUNK;

    return index < inode->chunk_count ? inode->chunks[index] : NULL;
}

static struct sim_chunk *chunk_make(struct sim_inode *inode, uint64_t offset_bytes)
{
    size_t index = (size_t)(offset_bytes / SIM_CHUNK);

    if (index >= inode->chunk_count) {
        struct sim_chunk **grown = realloc(inode->chunks, (index + 1) * sizeof(struct sim_chunk *));

        if (grown == NULL)
            return NULL;
        memset(grown + inode->chunk_count, 0,
               (index + 1 - inode->chunk_count) * sizeof(struct sim_chunk *));
        inode->chunks = grown;
        inode->chunk_count = index + 1;
    }
    if (inode->chunks[index] == NULL)
        inode->chunks[index] = calloc(1, sizeof(struct sim_chunk));
    return inode->chunks[index];
}

/* Copies into visible sectors (zeros if data is NULL) and marks each with an order of its own: any
 * of them may tear. */
static int store(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                 uint64_t len_bytes, uint64_t offset_bytes)
{
    while (len_bytes > 0) {
        uint64_t in_sector = offset_bytes % SIM_SECTOR;
        uint64_t part = cfsr_min_u64(SIM_SECTOR - in_sector, len_bytes);
        struct sim_chunk *chunk = data != NULL ? chunk_make(inode, offset_bytes)
                                               : chunk_at(inode, offset_bytes);

        if (chunk == NULL && data != NULL)
            return -ENOMEM;
        if (chunk != NULL && data != NULL)
            memcpy(chunk->visible + offset_bytes % SIM_CHUNK, data, part);
        else if (chunk != NULL)
            memset(chunk->visible + offset_bytes % SIM_CHUNK, 0, part);
        if (chunk != NULL)
            chunk->dirty_order[offset_bytes % SIM_CHUNK / SIM_SECTOR] = ++disk->order;
        data = data != NULL ? data + part : NULL;
        offset_bytes += part;
        len_bytes -= part;
    }
    return 0;
}

int cfsr_sim_resize(struct sim_disk *disk, struct sim_inode *inode, uint64_t len_bytes)
{
    uint64_t before = blocks_of(inode->visible_bytes), after = blocks_of(len_bytes);

    if (after > before && disk->used_bytes + (after - before) > disk->capacity_bytes)
        return -ENOSPC;
    if (len_bytes <
        inode->visible_bytes) /* bytes beyond the end read as zeros if the file grows again */
        (void)store(disk, inode, NULL, inode->visible_bytes - len_bytes, len_bytes);
    disk->used_bytes = disk->used_bytes - before + after;
    inode->visible_bytes = len_bytes;
    return 0;
}

int cfsr_sim_write(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                   uint32_t len_bytes, uint64_t offset_bytes)
{
    int rc = 0;

    if (offset_bytes + len_bytes > inode->visible_bytes)
        rc = cfsr_sim_resize(disk, inode, offset_bytes + len_bytes);
    return rc < 0 ? rc : store(disk, inode, data, len_bytes, offset_bytes);
}

uint32_t cfsr_sim_read(const struct sim_inode *inode, uint8_t *data, uint32_t len_bytes,
                       uint64_t offset_bytes)
{
    uint32_t moved = 0;

    if (offset_bytes >= inode->visible_bytes)
        return 0;
    len_bytes = (uint32_t)cfsr_min_u64(len_bytes, inode->visible_bytes - offset_bytes);
    while (moved < len_bytes) {
        uint64_t at = offset_bytes + moved;
        uint32_t part = (uint32_t)cfsr_min_u64(SIM_CHUNK - at % SIM_CHUNK, len_bytes - moved);
        const struct sim_chunk *chunk = chunk_at(inode, at);

        if (chunk != NULL)
            memcpy(data + moved, chunk->visible + at % SIM_CHUNK, part);
        else
            memset(data + moved, 0, part);
        moved += part;
    }
    return moved;
}

static void persist_sector(struct sim_chunk *chunk, uint32_t sector)
{
    memcpy(chunk->durable + sector * SIM_SECTOR, chunk->visible + sector * SIM_SECTOR, SIM_SECTOR);
    chunk->dirty_order[sector] = 0;
}

void cfsr_sim_sync_range(struct sim_inode *inode, uint64_t offset_bytes, uint64_t len_bytes,
                         uint64_t limit)
{
    uint64_t at = cfsr_align_down(offset_bytes, SIM_SECTOR), end = offset_bytes + len_bytes;

    for (; at < end; at += SIM_SECTOR) {
        struct sim_chunk *chunk = chunk_at(inode, at);
        uint32_t sector = (uint32_t)(at % SIM_CHUNK / SIM_SECTOR);

        if (chunk == NULL) {
            at = cfsr_align_down(at, SIM_CHUNK) + SIM_CHUNK - SIM_SECTOR;
            continue;
        }
        if (chunk->dirty_order[sector] != 0 && chunk->dirty_order[sector] <= limit)
            persist_sector(chunk, sector);
    }
}

void cfsr_sim_sync_lost(struct sim_disk *disk, struct sim_inode *inode)
{
    size_t i;
    uint32_t sector;

    for (i = 0; i < inode->chunk_count; i++) {
        struct sim_chunk *chunk = inode->chunks[i];

        for (sector = 0; chunk != NULL && sector < SIM_CHUNK_SECTORS; sector++) {
            if (chunk->dirty_order[sector] != 0 && cfsr_sim_coin(disk))
                persist_sector(chunk, sector);
            chunk->dirty_order[sector] = 0;
        }
    }
}

int cfsr_sim_flip(struct sim_inode *inode, uint64_t bit)
{
    uint64_t at = bit / 8;
    struct sim_chunk *chunk;

    if (at >= inode->visible_bytes)
        return -EINVAL;
    chunk = chunk_make(inode, at);
    if (chunk == NULL)
        return -ENOMEM;
    chunk->visible[at % SIM_CHUNK] ^= (uint8_t)(1u << (bit % 8));
    chunk->durable[at % SIM_CHUNK] ^= (uint8_t)(1u << (bit % 8));
    return 0;
}

struct sim_entry *cfsr_sim_find(const struct sim_disk *disk, const char *path)
{
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        if (disk->entries[i]->path != NULL && strcmp(disk->entries[i]->path, path) == 0)
            return disk->entries[i];
    }
    return NULL;
}

static struct sim_entry *unused_slot(struct sim_disk *disk)
{
    struct sim_entry **grown, *entry;
    size_t i;

    for (i = 0; disk->listings == 0 && i < disk->entry_count; i++) {
        entry = disk->entries[i];
        if (entry->visible == NULL && entry->durable == NULL) {
            free(entry->path);
            entry->path = NULL;
            return entry;
        }
    }
    grown = realloc(disk->entries, (disk->entry_count + 1) * sizeof(struct sim_entry *));
    if (grown == NULL)
        return NULL;
    disk->entries = grown;
    entry = calloc(1, sizeof *entry);
    if (entry != NULL)
        disk->entries[disk->entry_count++] = entry;
    return entry;
}

struct sim_entry *cfsr_sim_find_or_add(struct sim_disk *disk, const char *path)
{
    struct sim_entry *entry = cfsr_sim_find(disk, path);

    if (entry != NULL)
        return entry;
    entry = unused_slot(disk);
    if (entry == NULL)
        return NULL;
    entry->path = strdup(path);
    return entry->path == NULL ? NULL : entry;
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
    size_t i;

    if (inode == NULL || --inode->references > 0)
        return;
    disk->used_bytes -= blocks_of(inode->visible_bytes);
    for (i = 0; i < inode->chunk_count; i++)
        free(inode->chunks[i]);
    free(inode->chunks);
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

bool cfsr_sim_is_directory(const struct sim_disk *disk, const char *path)
{
    const struct sim_entry *entry;

    if (path[0] == '\0' || strcmp(path, "/") == 0 || strcmp(path, ".") == 0)
        return true; /* the roots are always there */
    entry = cfsr_sim_find(disk, path);
    return entry != NULL && entry->visible != NULL && entry->visible->is_directory;
}

static size_t parent_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? 0 : (size_t)(slash - path);
}

bool cfsr_sim_is_in(const char *path, const char *directory)
{
    size_t len = parent_length(path);
    size_t directory_len = strlen(directory);

    if (strcmp(directory, "/") == 0)
        return path[0] == '/' && len == 0 && path[1] != '\0';
    if (strcmp(directory, ".") == 0)
        return strchr(path, '/') == NULL;
    return len == directory_len && strncmp(path, directory, len) == 0;
}

bool cfsr_sim_parent_exists(const struct sim_disk *disk, const char *path)
{
    char *parent = strndup(path, parent_length(path));
    bool exists = parent != NULL && cfsr_sim_is_directory(disk, parent);

    free(parent);
    return exists;
}

void cfsr_sim_sync_names(struct sim_disk *disk, const char *directory)
{
    size_t i;

    for (i = 0; i < disk->entry_count; i++) {
        struct sim_entry *entry = disk->entries[i];

        if (entry->path == NULL || !cfsr_sim_is_in(entry->path, directory))
            continue;
        point_to(disk, &entry->durable, entry->visible);
        entry->order = 0;
    }
}

/* What the cut spares: the choice for one change, by its order, so that the halves of a rename
 * share it. */
struct verdict {
    enum cfsr_persistence model;
    uint64_t cut;  /* PREFIX: the last order that reached the disk */
    uint64_t salt; /* RANDOM */
};

static bool survives(const struct verdict *verdict, uint64_t order)
{
    struct sim_disk toss = {.random_state = verdict->salt ^ order};

    switch (verdict->model) {
    case CFSR_PERSIST_NOTHING: return false;
    case CFSR_PERSIST_EVERYTHING: return true;
    case CFSR_PERSIST_RANDOM: return cfsr_sim_coin(&toss);
    case CFSR_PERSIST_PREFIX: return order <= verdict->cut;
    }
    cfsr_assert_failed("known persistence model", __FILE__, __LINE__, __func__);
}

static uint64_t crash_size(struct sim_disk *disk, const struct sim_inode *inode,
                           enum cfsr_persistence model)
{
    uint64_t low = cfsr_min_u64(inode->visible_bytes, inode->durable_bytes);
    uint64_t high = cfsr_max_u64(inode->visible_bytes, inode->durable_bytes);
    uint64_t sectors = (high - low) / SIM_SECTOR;

    if (model == CFSR_PERSIST_NOTHING || high == low)
        return inode->durable_bytes;
    if (model == CFSR_PERSIST_EVERYTHING || cfsr_sim_coin(disk))
        return inode->visible_bytes;
    return low + (sectors == 0 ? 0 : cfsr_sim_random(disk) % (sectors + 1) * SIM_SECTOR);
}

static void crash_inode(struct sim_disk *disk, struct sim_inode *inode,
                        const struct verdict *verdict)
{
    uint64_t size = crash_size(disk, inode, verdict->model);
    size_t i;
    uint32_t sector;

    for (i = 0; i < inode->chunk_count; i++) {
        struct sim_chunk *chunk = inode->chunks[i];

        for (sector = 0; chunk != NULL && sector < SIM_CHUNK_SECTORS; sector++) {
            uint64_t at = (uint64_t)i * SIM_CHUNK + sector * SIM_SECTOR;

            if (chunk->dirty_order[sector] != 0 && survives(verdict, chunk->dirty_order[sector]))
                persist_sector(chunk, sector);
            chunk->dirty_order[sector] = 0;
            if (at >= size)
                memset(chunk->durable + sector * SIM_SECTOR, 0, SIM_SECTOR);
            else if (size - at < SIM_SECTOR)
                memset(chunk->durable + sector * SIM_SECTOR + (size - at), 0,
                       SIM_SECTOR - (size - at));
        }
        if (chunk != NULL)
            memcpy(chunk->visible, chunk->durable, SIM_CHUNK);
    }
    disk->used_bytes = disk->used_bytes - blocks_of(inode->visible_bytes) + blocks_of(size);
    inode->visible_bytes = size;
    inode->durable_bytes = size;
    inode->is_locked = false;
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

static uint64_t lowest_dirty_of(const struct sim_inode *inode, uint64_t lowest)
{
    size_t i;
    uint32_t sector;

    for (i = 0; i < inode->chunk_count; i++) {
        const struct sim_chunk *chunk = inode->chunks[i];

        for (sector = 0; chunk != NULL && sector < SIM_CHUNK_SECTORS; sector++) {
            if (chunk->dirty_order[sector] != 0)
                lowest = cfsr_min_u64(lowest, chunk->dirty_order[sector]);
        }
    }
    return lowest;
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
            lowest = lowest_dirty_of(entry->visible, lowest);
    }
    return lowest - 1 + cfsr_sim_random(disk) % (disk->order + 2 - lowest);
}

void cfsr_sim_crash(struct sim_disk *disk, enum cfsr_persistence model)
{
    struct verdict verdict = {.model = model};
    size_t i;

    verdict.cut = choose_cut(disk);
    verdict.salt = cfsr_sim_random(disk);
    for (i = 0; i < disk->entry_count; i++) {
        struct sim_entry *entry = disk->entries[i];

        if (entry->order != 0 && survives(&verdict, entry->order))
            point_to(disk, &entry->durable, entry->visible);
        point_to(disk, &entry->visible, entry->durable);
        entry->order = 0;
    }
    drop_orphans(disk);
    for (i = 0; i < disk->entry_count; i++) {
        if (disk->entries[i]->visible != NULL)
            crash_inode(disk, disk->entries[i]->visible, &verdict);
    }
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
}
