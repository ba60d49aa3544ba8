/*
 * torn_tear.c - the shapes in which a write that was under way is found after a crash
 * (torn_tear.h).
 */
#include "torn_tear.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "torn_journal.h"

const char *torn_tear_name(enum torn_tear tear)
{
    static const char *const names[TORN_TEAR_COUNT] = {
        [TORN_NOTHING] = "writes of which nothing is there",
        [TORN_WHOLE] = "writes whole and unacknowledged",
        [TORN_PREFIX] = "writes cut at a byte",
        [TORN_SUFFIX] = "writes of which the end alone is there",
        [TORN_SECTORS] = "writes torn at 512 B, any order",
        [TORN_PAGES] = "writes torn at 4 KiB, any order",
        [TORN_BYTES] = "writes torn at any bytes, any order",
        [TORN_ONE_HOLE] = "writes with one sector missing",
    };

    return names[tear];
}

struct part {
    struct cfsr_fs *fs;
    const char *path;
    uint64_t offset_bytes;
    const uint8_t *bytes;
    uint32_t len_bytes;
};

static void put(const struct part *part, uint32_t from, uint32_t to)
{
    if (to > from)
        CFSR_ASSERT(cfsr_fs_sim_poke(part->fs, part->path, part->offset_bytes + from,
                                     part->bytes + from, to - from) == 0);
}

/* Pieces of a unit (0: of any size), each there or not. */
static void put_some(const struct part *part, uint32_t unit, uint64_t *random)
{
    static const unsigned odds[] = {1, 4, 7};
    unsigned of_eight = odds[torn_random(random) % 3];
    uint32_t at = 0;

    while (at < part->len_bytes) {
        uint32_t step = unit == 0 ? 1 + (uint32_t)(torn_random(random) % 700)
                                  : unit - (uint32_t)((part->offset_bytes + at) % unit);
        uint32_t end = (uint32_t)cfsr_min_u64(at + (uint64_t)step, part->len_bytes);

        if (torn_random(random) % 8 < of_eight)
            put(part, at, end);
        at = end;
    }
}

static void put_all_but_one(const struct part *part, uint64_t *random)
{
    uint64_t sector = (part->offset_bytes + torn_random(random) % part->len_bytes) /
                      CFSR_SIM_SECTOR_BYTES * CFSR_SIM_SECTOR_BYTES;
    uint64_t end = sector + CFSR_SIM_SECTOR_BYTES - part->offset_bytes;

    if (sector > part->offset_bytes)
        put(part, 0, (uint32_t)(sector - part->offset_bytes));
    if (end < part->len_bytes)
        put(part, (uint32_t)end, part->len_bytes);
}

enum torn_tear torn_tear(struct cfsr_fs *fs, const char *path, uint64_t offset_bytes,
                         const uint8_t *bytes, uint32_t len_bytes, uint64_t *random)
{
    struct part part = {fs, path, offset_bytes, bytes, len_bytes};
    uint64_t dice = torn_random(random) % 16;
    enum torn_tear tear = dice < TORN_TEAR_COUNT ? (enum torn_tear)dice : TORN_SECTORS;
    uint32_t at = (uint32_t)(torn_random(random) % len_bytes);

    if (dice >= 12)
        tear = dice >= 14 ? TORN_BYTES : TORN_PREFIX;
    switch (tear) {
    case TORN_NOTHING: break;
    case TORN_WHOLE: put(&part, 0, len_bytes); break;
    case TORN_PREFIX: put(&part, 0, at); break;
    case TORN_SUFFIX: put(&part, at, len_bytes); break;
    case TORN_SECTORS: put_some(&part, CFSR_SIM_SECTOR_BYTES, random); break;
    case TORN_PAGES: put_some(&part, 4096, random); break;
    case TORN_BYTES: put_some(&part, 0, random); break;
    case TORN_ONE_HOLE: put_all_but_one(&part, random); break;
    }
    return tear;
}
