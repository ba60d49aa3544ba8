/*
 * file_sim_data.c - the bytes of the simulated file backend: pages of sectors, what is durable of
 * them, what a failed sync and a power cut leave, and damage.
 *
 * Thread:     one.
 * Invariants: a page has a durable copy of its own only while a sector of it differs (or was left
 *             differing by a failed sync), and is in its inode's list exactly then, so that a sync
 *             and a crash cost what is dirty and not what the file holds; a sector with dirty_order
 *             0 is not written back by any later sync, even if its two copies differ (that is what
 *             a failed sync leaves: see the PostgreSQL fsync history); after a crash both copies
 *             are equal; a page that is not there is zeros, durably.
 * Rejected:   a log of writes replayed at the crash (same outcomes for more memory); two copies of
 *             every page (segments are written in full once, mostly with zeros).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "core/file_sim_disk.h"

static uint64_t blocks_of(uint64_t bytes)
{
    return cfsr_align_up(bytes, SIM_PAGE);
}

static bool is_zero(const uint8_t *bytes, size_t len_bytes)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len_bytes - 1) == 0;
}

static uint8_t *buffer_take(struct sim_disk *disk)
{
    void *buffer = disk->free_buffers;

    if (buffer == NULL)
        return malloc(SIM_PAGE);
    memcpy(&disk->free_buffers, buffer, sizeof disk->free_buffers);
    return buffer;
}

static void buffer_give(struct sim_disk *disk, uint8_t *buffer)
{
    memcpy(buffer, &disk->free_buffers, sizeof disk->free_buffers);
    disk->free_buffers = buffer;
}

/* ---- pages ---- */

static struct sim_page *page_at(const struct sim_inode *inode, uint64_t offset_bytes)
{
    uint64_t index = offset_bytes / SIM_PAGE;

    return index < inode->page_count ? inode->pages[index] : NULL;
}

/* Where the page is, or is to be. */
static struct sim_page **page_slot(struct sim_inode *inode, size_t index)
{
    if (index >= inode->page_count) {
        size_t count = (size_t)cfsr_max_u64(index + 1, inode->page_count + inode->page_count / 2);
        struct sim_page **grown = realloc(inode->pages, count * sizeof(struct sim_page *));

        if (grown == NULL)
            return NULL;
        memset(grown + inode->page_count, 0,
               (count - inode->page_count) * sizeof(struct sim_page *));
        inode->pages = grown;
        inode->page_count = count;
    }
    return &inode->pages[index];
}

static struct sim_page *page_make(struct sim_inode *inode, uint64_t offset_bytes)
{
    size_t index = (size_t)(offset_bytes / SIM_PAGE);
    struct sim_page **slot = page_slot(inode, index);

    if (slot == NULL || *slot != NULL)
        return slot == NULL ? NULL : *slot;
    *slot = calloc(1, sizeof(struct sim_page));
    if (*slot != NULL)
        (*slot)->index = (uint32_t)index;
    return *slot;
}

/* Gives the page a durable copy of its own: it is about to change. */
static bool page_unsettle(struct sim_disk *disk, struct sim_inode *inode, struct sim_page *page)
{
    if (page->durable != NULL)
        return true;
    page->durable = buffer_take(disk);
    if (page->durable == NULL)
        return false;
    memcpy(page->durable, page->visible, SIM_PAGE);
    page->next = inode->unsettled;
    page->link = &inode->unsettled;
    if (page->next != NULL)
        page->next->link = &page->next;
    inode->unsettled = page;
    return true;
}

static void page_settle(struct sim_disk *disk, struct sim_page *page)
{
    if (page->durable == NULL || page->differs != 0)
        return;
    buffer_give(disk, page->durable);
    page->durable = NULL;
    *page->link = page->next;
    if (page->next != NULL)
        page->next->link = page->link;
}

static void page_drop(struct sim_disk *disk, struct sim_inode *inode, uint64_t index)
{
    struct sim_page *page = inode->pages[index];

    page->differs = 0;
    page_settle(disk, page);
    if (page->stale != NULL)
        buffer_give(disk, page->stale);
    free(page);
    inode->pages[index] = NULL;
}

void cfsr_sim_inode_drop_pages(struct sim_disk *disk, struct sim_inode *inode)
{
    size_t i;

    for (i = 0; i < inode->page_count; i++) {
        if (inode->pages[i] != NULL)
            page_drop(disk, inode, i);
    }
    free(inode->pages);
    inode->pages = NULL;
    inode->page_count = 0;
}

static int page_copy(const struct sim_page *from, struct sim_inode *inode)
{
    struct sim_page **slot = page_slot(inode, from->index);
    struct sim_page *page = slot == NULL ? NULL : malloc(sizeof *page);

    if (page == NULL)
        return -ENOMEM;
    *page = *from;
    *slot = page;
    page->durable = page->stale = NULL;
    if (from->stale != NULL) {
        page->stale = malloc(SIM_PAGE);
        if (page->stale == NULL)
            return -ENOMEM;
        memcpy(page->stale, from->stale, SIM_PAGE);
    }
    if (from->durable != NULL) {
        struct sim_disk none = {0};

        if (!page_unsettle(&none, inode, page))
            return -ENOMEM;
        memcpy(page->durable, from->durable, SIM_PAGE);
    }
    return 0;
}

int cfsr_sim_inode_copy_pages(struct sim_inode *from, struct sim_inode *to)
{
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < from->page_count; i++) {
        if (from->pages[i] != NULL)
            rc = page_copy(from->pages[i], to);
    }
    return rc;
}

/* ---- changes ---- */

static void keep_stale(struct sim_disk *disk, struct sim_page *page, uint32_t sector,
                       const uint8_t *old)
{
    if (page->stale == NULL) {
        if (is_zero(old, SIM_SECTOR))
            return;
        page->stale = buffer_take(disk);
        if (page->stale == NULL)
            return;
        memset(page->stale, 0, SIM_PAGE);
    }
    memcpy(page->stale + sector * SIM_SECTOR, old, SIM_SECTOR);
}

static void persist_sector(struct sim_disk *disk, struct sim_page *page, uint32_t sector)
{
    uint8_t bit = (uint8_t)(1u << sector);

    if (disk->keep_stale)
        keep_stale(disk, page, sector, page->durable + sector * SIM_SECTOR);
    memcpy(page->durable + sector * SIM_SECTOR, page->visible + sector * SIM_SECTOR, SIM_SECTOR);
    page->dirty_order[sector] = 0;
    page->differs = (uint8_t)(page->differs & ~bit);
    page->bad_durable = (uint8_t)((page->bad_durable & ~bit) | (page->bad_visible & bit));
}

/* The part of a write that lies in one sector. */
static void store_sector(struct sim_disk *disk, struct sim_page *page, const uint8_t *data,
                         uint32_t at, uint32_t len_bytes, bool durable)
{
    uint32_t sector = at / SIM_SECTOR;

    if (data != NULL)
        memcpy(page->visible + at, data, len_bytes);
    else
        memset(page->visible + at, 0, len_bytes);
    if (len_bytes == SIM_SECTOR)
        page->bad_visible = (uint8_t)(page->bad_visible & ~(1u << sector));
    page->differs = (uint8_t)(page->differs | 1u << sector);
    if (durable)
        persist_sector(disk, page, sector);
    else
        page->dirty_order[sector] = ++disk->order;
}

static bool hits_bad_sector(const struct sim_page *page, uint32_t at, uint32_t len_bytes)
{
    uint32_t first = at / SIM_SECTOR, last = (at + len_bytes - 1) / SIM_SECTOR;
    uint32_t mask = (2u << last) - (1u << first);

    return (page->bad_visible & mask) != 0;
}

static bool breaks_bad_sector(const struct sim_page *page, uint32_t at, uint32_t len_bytes)
{
    uint32_t end = at + len_bytes;

    if (page->bad_visible == 0)
        return false;
    return (at % SIM_SECTOR != 0 && hits_bad_sector(page, at, 1)) ||
           (end % SIM_SECTOR != 0 && hits_bad_sector(page, end - 1, 1));
}

/* A durable write of a page that has one copy: both stay equal. */
static void store_settled(struct sim_page *page, const uint8_t *data, uint32_t at,
                          uint32_t len_bytes)
{
    uint32_t first = (at + SIM_SECTOR - 1) / SIM_SECTOR, end = (at + len_bytes) / SIM_SECTOR;

    memcpy(page->visible + at, data, len_bytes);
    if (page->bad_visible != 0 && end > first) {
        uint32_t covered = (1u << end) - (1u << first);

        page->bad_visible = (uint8_t)(page->bad_visible & ~covered);
        page->bad_durable = (uint8_t)(page->bad_durable & ~covered);
    }
}

/* The part of a write that lies in one page; zeros if data is NULL. Each sector gets an order of
 * its own: any of them may tear. */
static int store_page(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                      uint64_t offset_bytes, uint32_t len_bytes, bool durable)
{
    struct sim_page *page = page_at(inode, offset_bytes);
    uint32_t at = (uint32_t)(offset_bytes % SIM_PAGE), end = at + len_bytes;

    if (page == NULL && (data == NULL || is_zero(data, len_bytes)))
        return 0;
    if (page == NULL)
        page = page_make(inode, offset_bytes);
    if (page == NULL)
        return -ENOMEM;
    if (breaks_bad_sector(page, at, len_bytes))
        return -EIO;
    if (durable && page->durable == NULL && !disk->keep_stale && data != NULL) {
        store_settled(page, data, at, len_bytes);
        return 0;
    }
    if (!page_unsettle(disk, inode, page))
        return -ENOMEM;
    while (at < end) {
        uint32_t part = (uint32_t)cfsr_min_u64(SIM_SECTOR - at % SIM_SECTOR, end - at);

        store_sector(disk, page, data, at, part, durable);
        data = data != NULL ? data + part : NULL;
        at += part;
    }
    page_settle(disk, page);
    return 0;
}

static int store(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                 uint64_t len_bytes, uint64_t offset_bytes, bool durable)
{
    int rc = 0;

    while (rc == 0 && len_bytes > 0) {
        uint32_t part = (uint32_t)cfsr_min_u64(SIM_PAGE - offset_bytes % SIM_PAGE, len_bytes);

        rc = store_page(disk, inode, data, offset_bytes, part, durable);
        data = data != NULL ? data + part : NULL;
        offset_bytes += part;
        len_bytes -= part;
    }
    return rc;
}

bool cfsr_sim_fits(const struct sim_disk *disk, const struct sim_inode *inode, uint64_t len_bytes)
{
    uint64_t before = blocks_of(inode->visible_bytes), after = blocks_of(len_bytes);

    return after <= before || disk->used_bytes + (after - before) <= disk->capacity_bytes;
}

int cfsr_sim_resize(struct sim_disk *disk, struct sim_inode *inode, uint64_t len_bytes)
{
    uint64_t before = blocks_of(inode->visible_bytes), after = blocks_of(len_bytes);

    if (!cfsr_sim_fits(disk, inode, len_bytes))
        return -ENOSPC;
    if (len_bytes <
        inode->visible_bytes) /* bytes beyond the end read as zeros if the file grows again */
        (void)store(disk, inode, NULL, inode->visible_bytes - len_bytes, len_bytes, false);
    disk->used_bytes = disk->used_bytes - before + after;
    inode->visible_bytes = len_bytes;
    return 0;
}

int cfsr_sim_write(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                   uint32_t len_bytes, uint64_t offset_bytes, bool durable)
{
    int rc = 0;

    if (offset_bytes + len_bytes > inode->visible_bytes)
        rc = cfsr_sim_resize(disk, inode, offset_bytes + len_bytes);
    if (rc == 0)
        rc = store(disk, inode, data, len_bytes, offset_bytes, durable);
    if (rc == 0 && durable)
        inode->durable_bytes = cfsr_max_u64(inode->durable_bytes, offset_bytes + len_bytes);
    return rc;
}

int cfsr_sim_read(const struct sim_inode *inode, uint8_t *data, uint32_t len_bytes,
                  uint64_t offset_bytes)
{
    uint32_t moved = 0;

    if (offset_bytes >= inode->visible_bytes)
        return 0;
    len_bytes = (uint32_t)cfsr_min_u64(len_bytes, inode->visible_bytes - offset_bytes);
    while (moved < len_bytes) {
        uint64_t offset = offset_bytes + moved;
        uint32_t at = (uint32_t)(offset % SIM_PAGE);
        uint32_t part = (uint32_t)cfsr_min_u64(SIM_PAGE - at, len_bytes - moved);
        const struct sim_page *page = page_at(inode, offset);

        if (page != NULL && hits_bad_sector(page, at, part))
            return -EIO;
        if (page != NULL)
            memcpy(data + moved, page->visible + at, part);
        else
            memset(data + moved, 0, part);
        moved += part;
    }
    return (int)moved;
}

void cfsr_sim_read_direct(const struct sim_inode *inode, uint8_t *data, uint32_t len_bytes,
                          uint64_t offset_bytes)
{
    for (uint32_t moved = 0; moved < len_bytes; moved += SIM_SECTOR) {
        uint64_t offset = offset_bytes + moved;
        const struct sim_page *page = page_at(inode, offset);
        uint32_t sector = (uint32_t)(offset % SIM_PAGE / SIM_SECTOR);

        if (page != NULL && page->durable != NULL && page->dirty_order[sector] == 0)
            memcpy(data + moved, page->durable + sector * SIM_SECTOR,
                   cfsr_min_u64(SIM_SECTOR, len_bytes - moved));
    }
}

/* ---- syncs ---- */

static void sync_page(struct sim_disk *disk, struct sim_page *page, uint64_t limit, uint64_t *state)
{
    uint32_t sector;

    for (sector = 0; sector < SIM_PAGE_SECTORS; sector++) {
        if (page->dirty_order[sector] != 0 && page->dirty_order[sector] <= limit &&
            (state == NULL || cfsr_sim_mix(state) >> 63 != 0))
            persist_sector(disk, page, sector);
    }
    page_settle(disk, page);
}

void cfsr_sim_sync(struct sim_disk *disk, struct sim_inode *inode, uint64_t limit)
{
    struct sim_page *page, *next;

    for (page = inode->unsettled; page != NULL; page = next) {
        next = page->next;
        sync_page(disk, page, limit, NULL);
    }
    inode->durable_bytes = inode->visible_bytes;
}

void cfsr_sim_sync_some(struct sim_disk *disk, struct sim_inode *inode, uint64_t limit,
                        uint64_t *state)
{
    struct sim_page *page, *next;

    for (page = inode->unsettled; page != NULL; page = next) {
        next = page->next;
        sync_page(disk, page, limit, state);
    }
    if (cfsr_sim_mix(state) >> 63 != 0)
        inode->durable_bytes = inode->visible_bytes;
}

static void forget_sector(struct sim_page *page, uint32_t sector)
{
    uint32_t bit = 1u << sector;

    memcpy(page->visible + sector * SIM_SECTOR, page->durable + sector * SIM_SECTOR, SIM_SECTOR);
    page->differs = (uint8_t)(page->differs & ~bit);
    page->bad_visible = (uint8_t)((page->bad_visible & ~bit) | (page->bad_durable & bit));
}

void cfsr_sim_sync_lost(struct sim_disk *disk, struct sim_inode *inode, enum cfsr_sync_failure kind)
{
    struct sim_page *page, *next;
    uint32_t sector;

    for (page = inode->unsettled; page != NULL; page = next) {
        next = page->next;
        for (sector = 0; sector < SIM_PAGE_SECTORS; sector++) {
            if (page->dirty_order[sector] == 0)
                continue;
            if (cfsr_sim_coin(disk))
                persist_sector(disk, page, sector);
            else if (kind == CFSR_SYNC_FAILURE_DROPPED)
                forget_sector(page, sector);
            page->dirty_order[sector] = 0;
        }
        page_settle(disk, page);
    }
}

/* ---- power cuts ---- */

uint64_t cfsr_sim_lowest_dirty(const struct sim_inode *inode, uint64_t lowest)
{
    const struct sim_page *page;
    uint32_t sector;

    for (page = inode->unsettled; page != NULL; page = page->next) {
        for (sector = 0; sector < SIM_PAGE_SECTORS; sector++) {
            if (page->dirty_order[sector] != 0)
                lowest = cfsr_min_u64(lowest, page->dirty_order[sector]);
        }
    }
    return lowest;
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

/* Bytes at and above size are gone; settled pages only. */
static void cut_pages(struct sim_disk *disk, struct sim_inode *inode, uint64_t size)
{
    uint64_t index = size / SIM_PAGE;
    struct sim_page *page = page_at(inode, size);

    if (page != NULL && size % SIM_PAGE != 0) {
        memset(page->visible + size % SIM_PAGE, 0, SIM_PAGE - size % SIM_PAGE);
        index++;
    }
    for (; index < inode->page_count; index++) {
        if (inode->pages[index] != NULL)
            page_drop(disk, inode, index);
    }
}

void cfsr_sim_crash_inode(struct sim_disk *disk, struct sim_inode *inode,
                          const struct sim_verdict *verdict)
{
    uint64_t size = crash_size(disk, inode, verdict->model);
    struct sim_page *page;
    uint32_t sector;

    while ((page = inode->unsettled) != NULL) {
        for (sector = 0; sector < SIM_PAGE_SECTORS; sector++) {
            if (page->dirty_order[sector] != 0 &&
                cfsr_sim_survives(verdict, page->dirty_order[sector]))
                persist_sector(disk, page, sector);
            else if ((page->differs >> sector & 1) != 0)
                forget_sector(page, sector);
            page->dirty_order[sector] = 0;
        }
        page_settle(disk, page);
    }
    if (size < cfsr_max_u64(inode->visible_bytes, inode->durable_bytes))
        cut_pages(disk, inode, size);
    disk->used_bytes = disk->used_bytes - blocks_of(inode->visible_bytes) + blocks_of(size);
    inode->visible_bytes = size;
    inode->durable_bytes = size;
    inode->is_locked = false;
}

/* ---- damage ---- */

int cfsr_sim_flip(struct sim_inode *inode, uint64_t bit)
{
    uint64_t at = bit / 8;
    uint8_t mask = (uint8_t)(1u << (bit % 8));
    struct sim_page *page;

    if (at >= inode->visible_bytes)
        return -EINVAL;
    page = page_make(inode, at);
    if (page == NULL)
        return -ENOMEM;
    page->visible[at % SIM_PAGE] ^= mask;
    if (page->durable != NULL)
        page->durable[at % SIM_PAGE] ^= mask;
    return 0;
}

int cfsr_sim_poke(struct sim_inode *inode, uint64_t offset_bytes, const uint8_t *bytes,
                  uint32_t len_bytes)
{
    if (offset_bytes + len_bytes > inode->visible_bytes)
        return -EINVAL;
    while (len_bytes > 0) {
        uint32_t at = (uint32_t)(offset_bytes % SIM_PAGE);
        uint32_t part = (uint32_t)cfsr_min_u64(SIM_PAGE - at, len_bytes);
        struct sim_page *page = page_make(inode, offset_bytes);

        if (page == NULL)
            return -ENOMEM;
        memcpy(page->visible + at, bytes, part);
        if (page->durable != NULL)
            memcpy(page->durable + at, bytes, part);
        offset_bytes += part;
        bytes += part;
        len_bytes -= part;
    }
    return 0;
}

void cfsr_sim_stale(const struct sim_inode *inode, uint64_t sector, uint8_t bytes_out[SIM_SECTOR])
{
    const struct sim_page *page = page_at(inode, sector * SIM_SECTOR);

    if (page == NULL || page->stale == NULL)
        memset(bytes_out, 0, SIM_SECTOR);
    else
        memcpy(bytes_out, page->stale + sector % SIM_PAGE_SECTORS * SIM_SECTOR, SIM_SECTOR);
}

int cfsr_sim_mark_bad(struct sim_inode *inode, uint64_t sector)
{
    uint8_t bit = (uint8_t)(1u << sector % SIM_PAGE_SECTORS);
    struct sim_page *page;

    if (sector * SIM_SECTOR >= inode->visible_bytes)
        return -EINVAL;
    page = page_make(inode, sector * SIM_SECTOR);
    if (page == NULL)
        return -ENOMEM;
    page->bad_visible |= bit;
    page->bad_durable |= bit;
    return 0;
}
