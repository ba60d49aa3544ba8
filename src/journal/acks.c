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
/* The detached part, behind the rows. */
enum {
    DETACHED_GENERATION = 8,
    DETACHED_MASK = 16,
    DETACHED_CRC = 24,
    DETACHED_BYTES = 32,
};
_Static_assert(AT_ROWS + CFSR_STATUS_PEERS_MAX * (8 + 8 * CFSR_LANES_MAX) + DETACHED_BYTES <=
                   CFSR_ACKS_SLOT_BYTES,
               "slot");
_Static_assert(CFSR_STATUS_PEERS_MAX <= 64, "one bit a row");

static const char magic[8] = {'C', 'F', 'S', 'R', 'A', 'C', 'K', '1'};
static const char detached_magic[8] = {'C', 'F', 'S', 'R', 'D', 'E', 'T', '1'};

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

static uint64_t load_detached(const uint8_t *part, uint64_t generation)
{
    if (memcmp(part, detached_magic, sizeof detached_magic) != 0 ||
        cfsr_load_le64(part + DETACHED_GENERATION) != generation ||
        cfsr_load_le32(part + DETACHED_CRC) != cfsr_crc32c(0, part, DETACHED_CRC))
        return 0;
    return cfsr_load_le64(part + DETACHED_MASK);
}

static void store_detached(uint8_t *part, uint64_t generation, uint64_t mask)
{
    memcpy(part, detached_magic, sizeof detached_magic);
    cfsr_store_le64(part + DETACHED_GENERATION, generation);
    cfsr_store_le64(part + DETACHED_MASK, mask);
    cfsr_store_le32(part + DETACHED_CRC, cfsr_crc32c(0, part, DETACHED_CRC));
}

static void load_slot(const struct cfsr_site *site, const uint8_t *slot, struct cfsr_acks *acks)
{
    const uint8_t *row = slot + AT_ROWS;
    uint64_t detached;

    memset(acks, 0, sizeof *acks);
    acks->generation = cfsr_load_le64(slot + AT_GENERATION);
    acks->peer_count = cfsr_load_le32(slot + AT_PEERS);
    detached = load_detached(slot + used_bytes(site->lanes, acks->peer_count), acks->generation);
    for (uint32_t peer = 0; peer < acks->peer_count; peer++, row += 8 + 8 * site->lanes) {
        acks->peers[peer].site_id = cfsr_load_le64(row);
        acks->peers[peer].detached = (detached >> peer & 1) != 0;
        for (uint32_t lane = 0; lane < site->lanes; lane++)
            acks->peers[peer].acked[lane] = cfsr_load_le64(row + 8 + 8 * lane);
    }
}

static bool is_zero(const uint8_t *bytes, size_t len_bytes)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len_bytes - 1) == 0;
}

/* The newest whole slot of an open file. An empty file knows nobody, and neither does one whose
 * first store was torn by a crash: one slot was never written yet. */
static int load_file(struct cfsr_file *file, const struct cfsr_site *site, const char *path,
                     struct cfsr_acks *acks_out)
{
    uint8_t *slots = calloc(2, CFSR_ACKS_SLOT_BYTES);
    uint64_t generations[2];
    const uint8_t *newest;
    int rc = slots == NULL ? -ENOMEM : cfsr_file_pread(file, slots, 2 * CFSR_ACKS_SLOT_BYTES, 0);

    if (rc < 0) {
        free(slots);
        return cfsr_fail(rc, "cannot read %s: %s", path, cfsr_strerror(rc));
    }
    for (int i = 0; i < 2; i++)
        generations[i] = slot_generation(site, slots + i * CFSR_ACKS_SLOT_BYTES);
    newest = slots + (generations[1] > generations[0] ? CFSR_ACKS_SLOT_BYTES : 0);
    if (rc > 0 && generations[0] == 0 && generations[1] == 0 &&
        (is_zero(slots, CFSR_ACKS_SLOT_BYTES) ||
         is_zero(slots + CFSR_ACKS_SLOT_BYTES, CFSR_ACKS_SLOT_BYTES)))
        rc = 0;
    if (rc == 0)
        memset(acks_out, 0, sizeof *acks_out);
    else if (generations[0] == 0 && generations[1] == 0)
        rc = cfsr_fail(-CFSR_E_CHECKSUM,
                       "%s is damaged: nothing is removed until the daemon stores it anew", path);
    else if (memcmp(newest + AT_JOURNAL, site->journal.bytes, 16) != 0)
        rc = cfsr_fail(-CFSR_E_FOREIGN, "%s belongs to another journal: remove it", path);
    else
        load_slot(site, newest, acks_out);
    free(slots);
    return rc < 0 ? rc : 0;
}

int cfsr_acks_load(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks_out)
{
    char path[CFSR_PATH_MAX + 16];
    struct cfsr_file *file;
    int rc;

    (void)snprintf(path, sizeof path, "%s/acks", site->data_dir);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ, &file);
    if (rc == -ENOENT) {
        memset(acks_out, 0, sizeof *acks_out);
        return 0;
    }
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    rc = load_file(file, site, path, acks_out);
    cfsr_file_close(file);
    return rc;
}

static uint32_t fill_slot(const struct cfsr_site *site, const struct cfsr_acks *acks, uint8_t *slot)
{
    uint32_t used = used_bytes(site->lanes, acks->peer_count);
    uint8_t *row = slot + AT_ROWS;
    uint64_t detached = 0;

    memcpy(slot + AT_MAGIC, magic, sizeof magic);
    cfsr_store_le64(slot + AT_GENERATION, acks->generation);
    memcpy(slot + AT_JOURNAL, site->journal.bytes, 16);
    cfsr_store_le32(slot + AT_LANES, site->lanes);
    cfsr_store_le32(slot + AT_PEERS, acks->peer_count);
    for (uint32_t peer = 0; peer < acks->peer_count; peer++, row += 8 + 8 * site->lanes) {
        cfsr_store_le64(row, acks->peers[peer].site_id);
        detached |= (uint64_t)acks->peers[peer].detached << peer;
        for (uint32_t lane = 0; lane < site->lanes; lane++)
            cfsr_store_le64(row + 8 + 8 * lane, acks->peers[peer].acked[lane]);
    }
    cfsr_store_le32(slot + AT_CRC, slot_crc(slot, used));
    store_detached(slot + used, acks->generation, detached);
    return used + DETACHED_BYTES;
}

static int store_file(struct cfsr_fs *fs, struct cfsr_file *file, const struct cfsr_site *site,
                      struct cfsr_acks *acks)
{
    uint8_t *slot = calloc(1, CFSR_ACKS_SLOT_BYTES);
    uint32_t used;
    int rc;

    if (slot == NULL)
        return -ENOMEM;
    acks->generation++;
    used = fill_slot(site, acks, slot);
    rc = cfsr_file_pwrite(file, slot, used, (acks->generation & 1) * CFSR_ACKS_SLOT_BYTES, false);
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    if (rc >= 0 && acks->generation == 1)
        rc = fs->ops->sync_dir(fs, site->data_dir);
    free(slot);
    return rc < 0 ? rc : 0;
}

int cfsr_acks_store(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks)
{
    char path[CFSR_PATH_MAX + 16];
    struct cfsr_file *file;
    int rc;

    (void)snprintf(path, sizeof path, "%s/acks", site->data_dir);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file);
    if (rc == 0) {
        rc = store_file(fs, file, site, acks);
        cfsr_file_close(file);
    }
    return rc < 0 ? cfsr_fail(rc, "cannot store %s: %s", path, cfsr_strerror(rc)) : 0;
}

/* acks gets the part that is not ours from the file. */
static void merge(struct cfsr_acks *acks, const struct cfsr_acks *stored, enum cfsr_acks_part part)
{
    acks->generation = cfsr_max_u64(acks->generation, stored->generation);
    for (uint32_t i = 0; i < stored->peer_count; i++) {
        uint32_t known = acks->peer_count;
        struct cfsr_acks_peer *peer = cfsr_acks_peer(acks, stored->peers[i].site_id);

        if (peer == NULL)
            continue;
        if (part == CFSR_ACKS_ACKED && acks->peer_count == known) {
            peer->detached = stored->peers[i].detached;
        } else if (part == CFSR_ACKS_DETACHED && acks->peer_count == known) {
            memcpy(peer->acked, stored->peers[i].acked, sizeof peer->acked);
        } else {
            *peer = stored->peers[i];
        }
    }
}

int cfsr_acks_store_part(struct cfsr_fs *fs, const struct cfsr_site *site, struct cfsr_acks *acks,
                         enum cfsr_acks_part part)
{
    struct cfsr_acks *stored = malloc(sizeof *stored);
    char path[CFSR_PATH_MAX + 16];
    struct cfsr_file *file;
    int rc;

    if (stored == NULL)
        return -ENOMEM;
    (void)snprintf(path, sizeof path, "%s/acks", site->data_dir);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file);
    if (rc < 0)
        goto free_stored;
    rc = cfsr_file_lock(file);
    if (rc == 0)
        rc = load_file(file, site, path, stored);
    if (rc == 0)
        merge(acks, stored, part);
    if (rc == 0 || rc == -CFSR_E_CHECKSUM)
        rc = store_file(fs, file, site, acks);
    cfsr_file_close(file);
free_stored:
    free(stored);
    return rc < 0 && rc != -CFSR_E_LOCKED
               ? cfsr_fail(rc, "cannot store %s: %s", path, cfsr_strerror(rc))
               : rc;
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

int cfsr_acks_highest(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                      uint64_t *lsn_out)
{
    struct cfsr_acks *acks = malloc(sizeof *acks);
    uint64_t highest = 0;
    int rc = acks == NULL ? -ENOMEM : cfsr_acks_load(fs, site, acks);

    for (uint32_t i = 0; rc == 0 && i < acks->peer_count; i++)
        if (acks->peers[i].acked[lane] != CFSR_LSN_UNKNOWN)
            highest = cfsr_max_u64(highest, acks->peers[i].acked[lane]);
    free(acks);
    if (rc == -CFSR_E_CHECKSUM || rc == -CFSR_E_FOREIGN) {
        cfsr_error_clear();
        rc = 0;
    }
    if (rc == 0)
        *lsn_out = highest;
    return rc;
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

uint64_t cfsr_acks_of(const struct cfsr_acks *acks, const struct cfsr_status_page *page,
                      uint64_t site_id, uint32_t lane)
{
    int peer = page == NULL ? -1 : cfsr_status_page_find_peer(page, site_id);
    uint64_t acked = peer < 0 ? CFSR_LSN_UNKNOWN : cfsr_status_page_acked(page, peer, lane);

    return acked == CFSR_LSN_UNKNOWN ? stored_ack(acks, site_id, lane) : acked;
}
