/*
 * file_sim_disk.h - the simulated disk below file_sim.c: files as pages of sectors with a visible
 * and, where it differs, a durable copy; names with a visible and a durable target; and what a
 * power cut leaves. Private to src/core.
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
#include "core/file_sim.h"

#define SIM_SECTOR       CFSR_SIM_SECTOR_BYTES
#define SIM_PAGE         4096u
#define SIM_PAGE_SECTORS (SIM_PAGE / SIM_SECTOR)
#define SIM_BUCKETS      256u

struct sim_page {
    uint8_t visible[SIM_PAGE];
    uint8_t *durable; /* NULL: as visible */
    uint8_t *stale;   /* what the sectors held before their last durable overwrite; NULL: zeros */
    uint64_t dirty_order[SIM_PAGE_SECTORS]; /* last change not yet synced; 0: nothing to sync */
    struct sim_page *next, **link;          /* in the inode's list of pages with a durable copy */
    uint32_t index;
    uint8_t differs;     /* sectors whose copies may differ; more than the dirty ones after a sync
                          * that failed */
    uint8_t bad_visible; /* sectors that cannot be read, now and after a crash */
    uint8_t bad_durable;
};

struct sim_inode {
    struct sim_page **pages; /* NULL entries read as zeros */
    size_t page_count;
    struct sim_page *unsettled; /* pages with a durable copy of their own */
    uint64_t visible_bytes;
    uint64_t durable_bytes;
    uint32_t references; /* names (visible and durable counted apart) and open files */
    bool is_directory;
    bool is_locked;
    struct sim_inode *clone; /* while a disk is cloned */
};

struct sim_entry {
    char *path; /* NULL: unused slot */
    uint64_t hash, directory_hash;
    struct sim_entry *next; /* of its bucket */
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
    size_t entry_count, entry_room;
    size_t hunt; /* where the search for an unused slot goes on */
    struct sim_entry *bucket[SIM_BUCKETS];
    void *free_buffers; /* of SIM_PAGE bytes */
    unsigned listings;  /* directory walks under way: slots are not reused meanwhile */
    bool keep_stale;
};

uint64_t cfsr_sim_mix(uint64_t *state);
uint64_t cfsr_sim_random(struct sim_disk *disk);
bool cfsr_sim_coin(struct sim_disk *disk);

/* ---- data: file_sim_data.c ---- */

/* 0 or -ENOSPC, -ENOMEM. */
int cfsr_sim_resize(struct sim_disk *disk, struct sim_inode *inode, uint64_t len_bytes);
/* -EIO: a part of a sector that cannot be read. durable: with all that its sectors held unsynced.
 */
int cfsr_sim_write(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                   uint32_t len_bytes, uint64_t offset_bytes, bool durable);
int cfsr_sim_read(const struct sim_inode *inode, uint8_t *data, uint32_t len_bytes,
                  uint64_t offset_bytes);
/* After it, of whole sectors: those that a failed sync left differing as they are on the disk, not
 * as the page cache has them. Dirty ones stay as they are: the kernel writes them back first. */
void cfsr_sim_read_direct(const struct sim_inode *inode, uint8_t *data, uint32_t len_bytes,
                          uint64_t offset_bytes);
/* Makes changes with an order up to limit durable. */
void cfsr_sim_sync(struct sim_disk *disk, struct sim_inode *inode, uint64_t limit);
/* Some of them, chosen by state; for the middle of a sync. */
void cfsr_sim_sync_some(struct sim_disk *disk, struct sim_inode *inode, uint64_t limit,
                        uint64_t *state);
bool cfsr_sim_fits(const struct sim_disk *disk, const struct sim_inode *inode, uint64_t len_bytes);
/* A sync that fails: some sectors reach the disk, and the rest is forgotten as if it were clean. */
void cfsr_sim_sync_lost(struct sim_disk *disk, struct sim_inode *inode,
                        enum cfsr_sync_failure kind);
void cfsr_sim_inode_drop_pages(struct sim_disk *disk, struct sim_inode *inode);
int cfsr_sim_inode_copy_pages(struct sim_inode *from, struct sim_inode *to);
uint64_t cfsr_sim_lowest_dirty(const struct sim_inode *inode, uint64_t lowest);

/* What the cut spares: the choice for one change, by its order, so that the halves of a rename
 * share it. */
struct sim_verdict {
    enum cfsr_persistence model;
    uint64_t cut;  /* PREFIX: the last order that reached the disk */
    uint64_t salt; /* RANDOM */
};
bool cfsr_sim_survives(const struct sim_verdict *verdict, uint64_t order);
void cfsr_sim_crash_inode(struct sim_disk *disk, struct sim_inode *inode,
                          const struct sim_verdict *verdict);

/* Damage of both copies; -EINVAL beyond the end. */
int cfsr_sim_flip(struct sim_inode *inode, uint64_t bit);
int cfsr_sim_poke(struct sim_inode *inode, uint64_t offset_bytes, const uint8_t *bytes,
                  uint32_t len_bytes);
/* What the sector held before it was last overwritten. */
void cfsr_sim_stale(const struct sim_inode *inode, uint64_t sector, uint8_t bytes_out[SIM_SECTOR]);
int cfsr_sim_mark_bad(struct sim_inode *inode, uint64_t sector);

/* ---- names: file_sim_disk.c ---- */

struct sim_entry *cfsr_sim_find(const struct sim_disk *disk, const char *path);
/* A slot for the path, new or existing; NULL: no memory. */
struct sim_entry *cfsr_sim_find_or_add(struct sim_disk *disk, const char *path);
struct sim_inode *cfsr_sim_inode_new(bool is_directory);
void cfsr_sim_inode_put(struct sim_disk *disk, struct sim_inode *inode);
void cfsr_sim_entry_set(struct sim_disk *disk, struct sim_entry *entry, struct sim_inode *inode,
                        uint64_t order);
bool cfsr_sim_is_directory(const struct sim_disk *disk, const char *path);
/* The hash that entries directly in the directory have as directory_hash. */
uint64_t cfsr_sim_directory_hash(const char *directory);
bool cfsr_sim_parent_exists(const struct sim_disk *disk, const char *path);
/* Those with an order up to limit. */
void cfsr_sim_sync_names(struct sim_disk *disk, const char *directory, uint64_t limit);
/* The order of one of the changes that a sync of the directory would save; 0: there is none. */
uint64_t cfsr_sim_some_name_order(const struct sim_disk *disk, const char *directory,
                                  uint64_t *state);
void cfsr_sim_crash(struct sim_disk *disk, enum cfsr_persistence model);
int cfsr_sim_disk_copy(const struct sim_disk *from, struct sim_disk *to);
void cfsr_sim_disk_fini(struct sim_disk *disk);

#endif
