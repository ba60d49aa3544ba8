/*
 * segment.c - names and headers of segment files.
 *
 * Thread:     none of its own; pure functions.
 * Invariants: a header that loads belongs to this cluster, site, journal, lane and LSN, or the load
 * says which differs.
 */
#include "journal/segment.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/fail.h"

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_LANE = 12,
    AT_CLUSTER = 16,
    AT_JOURNAL = 32,
    AT_INCARNATION = 48,
    AT_SITE = 56,
    AT_FIRST_LSN = 64,
    AT_BODY_BYTES = 72,
    AT_CREATED = 80,
    AT_STATE = 88,
    AT_CRC = 92,
};
_Static_assert(AT_CRC + 4 <= CFSR_SEGMENT_HEADER_BYTES, "the header fits its block");

#define STATE_IN_USE 1u

static const char segment_magic[8] = {'C', 'F', 'S', 'R', 'S', 'E', 'G', '1'};
static const char spare_magic[8] = {'C', 'F', 'S', 'R', 'S', 'P', 'A', 'R'};

char *cfsr_segment_path(const struct cfsr_site *site, uint32_t lane, uint64_t lsn, char *path_out,
                        size_t len_bytes)
{
    (void)snprintf(path_out, len_bytes, "%s/journal/%02" PRIu32 "/%016" PRIx64 ".seg",
                   site->data_dir, lane, lsn - lsn % site->segment_bytes);
    return path_out;
}

static void store_common(const struct cfsr_site *site, uint32_t lane, uint8_t *block)
{
    cfsr_store_le32(block + AT_VERSION, CFSR_FORMAT_VERSION);
    cfsr_store_le32(block + AT_LANE, lane);
    memcpy(block + AT_CLUSTER, site->cluster.bytes, 16);
    memcpy(block + AT_JOURNAL, site->journal.bytes, 16);
    cfsr_store_le64(block + AT_SITE, site->site_id);
    cfsr_store_le64(block + AT_BODY_BYTES, site->segment_bytes);
}

void cfsr_segment_header_store(const struct cfsr_site *site,
                               const struct cfsr_segment_header *header, void *block_out)
{
    uint8_t *block = block_out;

    memset(block, 0, CFSR_SEGMENT_HEADER_BYTES);
    memcpy(block + AT_MAGIC, segment_magic, sizeof segment_magic);
    store_common(site, header->lane, block);
    cfsr_store_le64(block + AT_INCARNATION, header->incarnation);
    cfsr_store_le64(block + AT_FIRST_LSN, header->first_lsn);
    cfsr_store_le64(block + AT_CREATED, header->created_us);
    cfsr_store_le32(block + AT_STATE, STATE_IN_USE);
    cfsr_store_le32(block + AT_CRC, cfsr_crc32c(0, block, AT_CRC));
}

void cfsr_segment_spare_store(const struct cfsr_site *site, uint32_t lane, void *block_out)
{
    uint8_t *block = block_out;

    memset(block, 0, CFSR_SEGMENT_HEADER_BYTES);
    memcpy(block + AT_MAGIC, spare_magic, sizeof spare_magic);
    store_common(site, lane, block);
    cfsr_store_le32(block + AT_CRC, cfsr_crc32c(0, block, AT_CRC));
}

static int check_frame(const uint8_t *block)
{
    if (memcmp(block + AT_MAGIC, segment_magic, sizeof segment_magic) != 0)
        return cfsr_fail(-CFSR_E_FORMAT, "not a journal segment (magic differs)");
    if (cfsr_load_le32(block + AT_CRC) != cfsr_crc32c(0, block, AT_CRC) ||
        !cfsr_bytes_are_zero(block + AT_CRC + 4, CFSR_SEGMENT_HEADER_BYTES - AT_CRC - 4))
        return cfsr_fail(-CFSR_E_CHECKSUM, "the segment header's checksum does not match");
    if (cfsr_load_le32(block + AT_VERSION) != CFSR_FORMAT_VERSION)
        return cfsr_fail(-CFSR_E_VERSION,
                         "segment format version %" PRIu32 ", this program knows %d",
                         cfsr_load_le32(block + AT_VERSION), CFSR_FORMAT_VERSION);
    return 0;
}

static int check_owner(const struct cfsr_site *site, const uint8_t *block, uint32_t lane)
{
    if (memcmp(block + AT_CLUSTER, site->cluster.bytes, 16) != 0)
        return cfsr_fail(-CFSR_E_FOREIGN, "the segment belongs to another cluster");
    if (cfsr_load_le64(block + AT_SITE) != site->site_id)
        return cfsr_fail(-CFSR_E_FOREIGN, "the segment belongs to site %" PRIu64,
                         cfsr_load_le64(block + AT_SITE));
    if (memcmp(block + AT_JOURNAL, site->journal.bytes, 16) != 0)
        return cfsr_fail(-CFSR_E_FOREIGN, "the segment belongs to another journal of this site");
    if (cfsr_load_le32(block + AT_LANE) != lane)
        return cfsr_fail(-CFSR_E_FOREIGN, "the segment belongs to lane %" PRIu32,
                         cfsr_load_le32(block + AT_LANE));
    if (cfsr_load_le64(block + AT_BODY_BYTES) != site->segment_bytes)
        return cfsr_fail(-CFSR_E_FOREIGN,
                         "the segment's body size is %" PRIu64 ", the site's is %" PRIu64,
                         cfsr_load_le64(block + AT_BODY_BYTES), site->segment_bytes);
    return 0;
}

int cfsr_segment_header_load(const struct cfsr_site *site, const void *block, uint32_t lane,
                             uint64_t first_lsn, struct cfsr_segment_header *header_out)
{
    const uint8_t *p = block;
    int rc = check_frame(p);

    if (rc == 0)
        rc = check_owner(site, p, lane);
    if (rc < 0)
        return rc;
    if (cfsr_load_le64(p + AT_FIRST_LSN) != first_lsn)
        return cfsr_fail(-CFSR_E_FOREIGN, "the segment holds LSN %" PRIx64 ", not %" PRIx64,
                         cfsr_load_le64(p + AT_FIRST_LSN), first_lsn);
    header_out->lane = lane;
    header_out->incarnation = cfsr_load_le64(p + AT_INCARNATION);
    header_out->first_lsn = first_lsn;
    header_out->created_us = cfsr_load_le64(p + AT_CREATED);
    return 0;
}

bool cfsr_segment_is_reusable(const struct cfsr_site *site, const void *block, uint32_t lane)
{
    const uint8_t *p = block;

    if (memcmp(p + AT_MAGIC, spare_magic, 8) != 0 && memcmp(p + AT_MAGIC, segment_magic, 8) != 0)
        return false;
    return cfsr_load_le32(p + AT_CRC) == cfsr_crc32c(0, p, AT_CRC) &&
           cfsr_load_le32(p + AT_VERSION) == CFSR_FORMAT_VERSION &&
           cfsr_load_le32(p + AT_LANE) == lane && cfsr_load_le64(p + AT_SITE) == site->site_id &&
           memcmp(p + AT_CLUSTER, site->cluster.bytes, 16) == 0 &&
           memcmp(p + AT_JOURNAL, site->journal.bytes, 16) == 0 &&
           cfsr_load_le64(p + AT_BODY_BYTES) == site->segment_bytes;
}
