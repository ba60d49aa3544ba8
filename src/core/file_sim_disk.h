/*
 * file_sim_disk.h - the simulated disk below file_sim.c: files as sectors with a visible and a
 * durable copy, names with a visible and a durable target, and what a power cut leaves. Private to
 * src/core.
 *
 * Every change takes the next number of one order that data and names share, so that a crash can
 * keep a prefix of it.
 */
#ifndef CFSR_CORE_FILE_SIM_DISK_H
#define CFSR_CORE_FILE_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/file.h"

#define SIM_SECTOR        512u
#define SIM_CHUNK         65536u
#define SIM_CHUNK_SECTORS (SIM_CHUNK / SIM_SECTOR)

struct sim_chunk {
    uint8_t visible[SIM_CHUNK];
    uint8_t durable[SIM_CHUNK];
    uint64_t
        dirty_order[SIM_CHUNK_SECTORS]; /* of the last change not yet synced; 0: nothing to sync */
};

struct sim_inode {
    struct sim_chunk **chunks; /* NULL entries read as zeros */
    size_t chunk_count;
    uint64_t visible_bytes;
    uint64_t durable_bytes;
    uint32_t references; /* names (visible and durable counted apart) and open files */
    bool is_directory;
    bool is_locked;
};

struct sim_entry {
    char *path; /* NULL: unused slot */
    struct sim_inode *visible;
    struct sim_inode *durable;
    uint64_t order; /* of the last change not covered by a sync of the directory; 0: none */
};

struct sim_disk {
    uint64_t random_state;
    uint64_t order;
    uint64_t capacity_bytes;
    uint64_t used_bytes;
    struct sim_entry **entries;
    size_t entry_count;
    unsigned listings; /* directory walks under way: slots are not reused meanwhile */
};

uint64_t cfsr_sim_random(struct sim_disk *disk);
bool cfsr_sim_coin(struct sim_disk *disk);

/* 0 or -ENOSPC, -ENOMEM. */
int cfsr_sim_resize(struct sim_disk *disk, struct sim_inode *inode, uint64_t len_bytes);
int cfsr_sim_write(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                   uint32_t len_bytes, uint64_t offset_bytes);
uint32_t cfsr_sim_read(const struct sim_inode *inode, uint8_t *data, uint32_t len_bytes,
                       uint64_t offset_bytes);
/* Makes changes of the range with an order up to limit durable. */
void cfsr_sim_sync_range(struct sim_inode *inode, uint64_t offset_bytes, uint64_t len_bytes,
                         uint64_t limit);
/* A sync that fails: some sectors reach the disk, and the rest is forgotten as if it were clean. */
void cfsr_sim_sync_lost(struct sim_disk *disk, struct sim_inode *inode);
int cfsr_sim_flip(struct sim_inode *inode, uint64_t bit);

struct sim_entry *cfsr_sim_find(const struct sim_disk *disk, const char *path);
/* A slot for the path, new or existing; NULL: no memory. */
struct sim_entry *cfsr_sim_find_or_add(struct sim_disk *disk, const char *path);
struct sim_inode *cfsr_sim_inode_new(bool is_directory);
void cfsr_sim_inode_put(struct sim_disk *disk, struct sim_inode *inode);
void cfsr_sim_entry_set(struct sim_disk *disk, struct sim_entry *entry, struct sim_inode *inode,
                        uint64_t order);
bool cfsr_sim_is_directory(const struct sim_disk *disk, const char *path);
bool cfsr_sim_is_in(const char *path, const char *directory); /* directly */
bool cfsr_sim_parent_exists(const struct sim_disk *disk, const char *path);
void cfsr_sim_sync_names(struct sim_disk *disk, const char *directory);
void cfsr_sim_crash(struct sim_disk *disk, enum cfsr_persistence model);
void cfsr_sim_disk_fini(struct sim_disk *disk);

#endif
