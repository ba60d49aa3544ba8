/*
 * acks.c - DATA/acks, the persisted acks of the peers; see acks.h.
 *
 * Thread:     daemon's helper (store), writer's helper (load).
 * Rejected:   a row per file (renames for each ack), the control database (the writer has no
 * SQLite).
 */
#include "journal/acks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/fail.h"

enum {
    AT_MAGIC = 0,
    AT_GENERATION = 8,
    AT_JOURNAL = 16,
    AT_LANES = 32,
    AT_PEERS = 36,
    AT_CRC = 40,
    AT_ROWS = 48,
};
_Static_assert(AT_ROWS + CFSR_STATUS_PEERS_MAX * (8 + 8 * CFSR_LANES_MAX) <= CFSR_ACKS_SLOT_BYTES,
               "slot");

static const char magic[8] = {'C', 'F', 'S', 'R', 'A', 'C', 'K', '1'};

static uint32_t used_bytes(uint32_t lanes, uint32_t peers)
{
    return AT_ROWS + peers * (8 + 8 * lanes);
}

static uint32_t slot_crc(const uint8_t *slot, uint32_t used)
{
    static const uint8_t zeros[4];
    uint32_t crc = cfsr_crc32c(0, slot, AT_CRC);

    crc = cfsr_crc32c(crc, zeros, sizeof zeros);
    return cfsr_crc32c(crc, slot + AT_CRC + 4, used - AT_CRC - 4);
}

/* Generation of a whole slot, 0 if it is not. */
static uint64_t slot_generation(const struct cfsr_site *site, const uint8_t *slot)
{
    uint32_t peers = cfsr_load_le32(slot + AT_PEERS);

    if (memcmp(slot + AT_MAGIC, magic, sizeof magic) != 0 || peers > CFSR_STATUS_PEERS_MAX ||
        cfsr_load_le32(slot + AT_LANES) != site->lanes ||
        slot_crc(slot, used_bytes(site->lanes, peers)) != cfsr_load_le32(slot + AT_CRC))
        return 0;
    return cfsr_load_le64(slot + AT_GENERATION);
}

static void load_slot(const struct cfsr_site *site, const uint8_t *slot, struct cfsr_acks *acks)
{
    const uint8_t *row = slot + AT_ROWS;

    memset(acks, 0, sizeof *acks);
    acks->generation = cfsr_load_le64(slot + AT_GENERATION);
    acks->peer_count = cfsr_load_le32(slot + AT_PEERS);
    for (uint32_t peer = 0; peer < acks->peer_count; peer++, row += 8 + 8 * site->lanes) {
        acks->peers[peer].site_id = cfsr_load_le64(row);
        for (uint32_t lane = 0; lane < site->lanes; lane++)
            acks->peers[peer].acked[lane] = cfsr_load_le64(row + 8 + 8 * lane);
    }
}

int cfsr_acks_load(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks_out)
{
    char path[CFSR_PATH_MAX + 16];
    uint64_t generations[2];
    struct cfsr_file *file;
    const uint8_t *newest;
    uint8_t *slots;
    int rc;

    (void)snprintf(path, sizeof path, "%s/acks", site->data_dir);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ, &file);
    if (rc == -ENOENT) {
        memset(acks_out, 0, sizeof *acks_out);
        return 0;
    }
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    slots = calloc(2, CFSR_ACKS_SLOT_BYTES);
    rc = slots == NULL ? -ENOMEM : cfsr_file_pread(file, slots, 2 * CFSR_ACKS_SLOT_BYTES, 0);
    cfsr_file_close(file);
    if (rc < 0) {
        free(slots);
        return cfsr_fail(rc, "cannot read %s: %s", path, cfsr_strerror(rc));
    }
    for (int i = 0; i < 2; i++)
        generations[i] = slot_generation(site, slots + i * CFSR_ACKS_SLOT_BYTES);
    newest = slots + (generations[1] > generations[0] ? CFSR_ACKS_SLOT_BYTES : 0);
    if (generations[0] == 0 && generations[1] == 0 && rc > 0)
        rc = cfsr_fail(-CFSR_E_CHECKSUM,
                       "%s is damaged: nothing is removed until the daemon stores it anew", path);
    else if (rc > 0 && memcmp(newest + AT_JOURNAL, site->journal.bytes, 16) != 0)
        rc = cfsr_fail(-CFSR_E_FOREIGN, "%s belongs to another journal: remove it", path);
    else if (rc == 0)
        memset(acks_out, 0, sizeof *acks_out);
    else
        load_slot(site, newest, acks_out);
    free(slots);
    return rc < 0 ? rc : 0;
}

static uint32_t fill_slot(const struct cfsr_site *site, const struct cfsr_acks *acks, uint8_t *slot)
{
    uint32_t used = used_bytes(site->lanes, acks->peer_count);
    uint8_t *row = slot + AT_ROWS;

    memcpy(slot + AT_MAGIC, magic, sizeof magic);
    cfsr_store_le64(slot + AT_GENERATION, acks->generation);
    memcpy(slot + AT_JOURNAL, site->journal.bytes, 16);
    cfsr_store_le32(slot + AT_LANES, site->lanes);
    cfsr_store_le32(slot + AT_PEERS, acks->peer_count);
    for (uint32_t peer = 0; peer < acks->peer_count; peer++, row += 8 + 8 * site->lanes) {
        cfsr_store_le64(row, acks->peers[peer].site_id);
        for (uint32_t lane = 0; lane < site->lanes; lane++)
            cfsr_store_le64(row + 8 + 8 * lane, acks->peers[peer].acked[lane]);
    }
    cfsr_store_le32(slot + AT_CRC, slot_crc(slot, used));
    return used;
}

int cfsr_acks_store(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks)
{
    char path[CFSR_PATH_MAX + 16];
    struct cfsr_file *file;
    uint8_t *slot;
    uint32_t used;
    int rc;

    (void)snprintf(path, sizeof path, "%s/acks", site->data_dir);
    slot = calloc(1, CFSR_ACKS_SLOT_BYTES);
    if (slot == NULL)
        return -ENOMEM;
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file);
    if (rc < 0)
        goto free_slot;
    acks->generation++;
    used = fill_slot(site, acks, slot);
    rc = cfsr_file_pwrite(file, slot, used, (acks->generation & 1) * CFSR_ACKS_SLOT_BYTES, false);
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    cfsr_file_close(file);
    if (rc >= 0 && acks->generation == 1)
        rc = fs->ops->sync_dir(fs, site->data_dir);
free_slot:
    free(slot);
    return rc < 0 ? cfsr_fail(rc, "cannot store %s: %s", path, cfsr_strerror(rc)) : 0;
}

struct cfsr_acks_peer *cfsr_acks_peer(struct cfsr_acks *acks, uint64_t site_id)
{
    struct cfsr_acks_peer *peer;

    for (uint32_t i = 0; i < acks->peer_count; i++)
        if (acks->peers[i].site_id == site_id)
            return &acks->peers[i];
    if (acks->peer_count == CFSR_STATUS_PEERS_MAX)
        return NULL;
    peer = &acks->peers[acks->peer_count++];
    *peer = (struct cfsr_acks_peer){.site_id = site_id};
    return peer;
}

static uint64_t stored_ack(const struct cfsr_acks *acks, uint64_t site_id, uint32_t lane)
{
    for (uint32_t i = 0; acks != NULL && i < acks->peer_count; i++)
        if (acks->peers[i].site_id == site_id)
            return acks->peers[i].acked[lane];
    return 0;
}

uint64_t cfsr_acks_lowest(const struct cfsr_acks *acks, const struct cfsr_status_page *page,
                          uint32_t lane)
{
    uint64_t lowest = CFSR_LSN_UNKNOWN;

    for (int peer = 0; page != NULL && peer < CFSR_STATUS_PEERS_MAX; peer++) {
        uint64_t site_id = cfsr_status_page_peer_site(page, peer);
        uint64_t acked = cfsr_status_page_acked(page, peer, lane);

        if (site_id == 0)
            continue;
        if (acked == CFSR_LSN_UNKNOWN)
            acked = stored_ack(acks, site_id, lane);
        lowest = cfsr_min_u64(lowest, acked);
    }
    for (uint32_t i = 0; acks != NULL && i < acks->peer_count; i++)
        if (page == NULL || cfsr_status_page_find_peer(page, acks->peers[i].site_id) < 0)
            lowest = cfsr_min_u64(lowest, acks->peers[i].acked[lane]);
    return lowest;
}
