/*
 * flips.c - cfs-repl-sim flips: every bit of every header of a site's files turned, one at a time,
 * and any damage anywhere: bits, zeroed, stale and misdirected sectors. Each must be noticed
 * before anything is delivered; bytes that nobody reads are named and counted apart.
 *
 * Thread:     one a worker.
 */
#include "flips.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "cases.h"
#include "points.h"

#define STRIDE 1000003u

enum {
    COUNT_EVERY_BIT,
    COUNT_BIT,
    COUNT_ZERO,
    COUNT_STALE,
    COUNT_MISDIRECT,
    COUNT_UNCHANGED, /* the damage was none */
    COUNT_FELL_BACK,
    COUNT_CLASS,
    COUNT_END = COUNT_CLASS + FLIPS_CLASSES
};

static const char *counter_name(unsigned counter)
{
    static const char *const names[COUNT_CLASS] = {
        [COUNT_EVERY_BIT] = "header bits, no two alike",
        [COUNT_BIT] = "bits anywhere",
        [COUNT_ZERO] = "zeroed sectors",
        [COUNT_STALE] = "stale sectors",
        [COUNT_MISDIRECT] = "misdirected sectors",
        [COUNT_UNCHANGED] = "of these without any effect",
        [COUNT_FELL_BACK] = "fell back to the older of two slots",
    };
    static const char *const classes[FLIPS_CLASSES] = {
        [FLIPS_SEGMENT_HEADER] = "noticed: journal segment header",
        [FLIPS_RECORD_HEADER] = "noticed: journal record header",
        [FLIPS_PAYLOAD] = "noticed: journal payload",
        [FLIPS_INBOX_HEADER] = "noticed: inbox segment header",
        [FLIPS_LOCAL_HEADER] = "noticed: inbox record header, batch prefix",
        [FLIPS_CURSORS] = "noticed: CURSORS",
        [FLIPS_INDEX] = "noticed: INDEX",
        [FLIPS_INBOX_TAIL] = "taken for a torn tail: last inbox block",
        [FLIPS_BODY] = "noticed: batch body",
        [FLIPS_ACKS_NEW] = "noticed: acks, slot that counts",
        [FLIPS_ACKS_OLD] = "without effect: acks, older slot",
        [FLIPS_CONSUMER_NEW] = "noticed: consumer, slot that counts",
        [FLIPS_CONSUMER_OLD] = "without effect: consumer, older slot",
        [FLIPS_CLUSTER] = "noticed: cluster file",
        [FLIPS_HEADER_ZEROS] = "noticed: zeros of a journal segment header",
        [FLIPS_HEADER_REST] = "not read: rest of an inbox segment's header",
        [FLIPS_PAD_FILLER] = "not read: filler of PAD",
        [FLIPS_BLOCK_FILLER] = "not read: padding between inbox records",
        [FLIPS_BEHIND_END] = "not read: behind the end",
        [FLIPS_SLOT_REST] = "not read: rest of acks and consumer slots",
    };

    return counter < COUNT_CLASS ? names[counter] : classes[counter - COUNT_CLASS];
}

static void *flips_open(uint64_t seed)
{
    return flips_make(seed);
}

/* Every second case is a header bit: all of them. */
static uint64_t flips_enough(const void *state)
{
    return 2 * ((const struct flips *)state)->places;
}

/* Two sectors of a file as they were. */
struct saved {
    uint64_t at[2];
    uint32_t len_bytes[2];
    uint8_t bytes[2][CFSR_SIM_SECTOR_BYTES];
};

static void save(const struct flips_file *file, struct saved *saved, unsigned i, uint64_t sector)
{
    int got = cfsr_fs_sim_peek(file->fs, file->path, sector * CFSR_SIM_SECTOR_BYTES,
                               saved->bytes[i], CFSR_SIM_SECTOR_BYTES);

    CFSR_ASSERT(got > 0);
    saved->at[i] = sector * CFSR_SIM_SECTOR_BYTES;
    saved->len_bytes[i] = (uint32_t)got;
}

/* The classes of all bytes that differ now. */
static uint32_t changed_classes(const struct flips_file *file, const struct saved *saved)
{
    uint8_t now[CFSR_SIM_SECTOR_BYTES];
    uint32_t classes = 0;

    for (unsigned i = 0; i < 2; i++) {
        if (saved->len_bytes[i] == 0)
            continue;
        CFSR_ASSERT(cfsr_fs_sim_peek(file->fs, file->path, saved->at[i], now,
                                     saved->len_bytes[i]) == (int)saved->len_bytes[i]);
        for (uint32_t k = 0; k < saved->len_bytes[i]; k++)
            if (now[k] != saved->bytes[i][k])
                classes |= 1u << file->class_of[saved->at[i] + k];
    }
    return classes;
}

static void put_back(const struct flips_file *file, const struct saved *saved)
{
    for (unsigned i = 0; i < 2; i++)
        if (saved->len_bytes[i] > 0)
            CFSR_ASSERT(cfsr_fs_sim_poke(file->fs, file->path, saved->at[i], saved->bytes[i],
                                         saved->len_bytes[i]) == 0);
}

/* Any damage to a file; what it does is in the counters. */
static void damage(const struct flips_file *file, uint64_t *random, struct saved *saved,
                   uint64_t *counters)
{
    uint64_t sectors = (file->len_bytes + CFSR_SIM_SECTOR_BYTES - 1) / CFSR_SIM_SECTOR_BYTES;
    uint64_t sector = torn_random(random) % sectors, other = torn_random(random) % sectors;
    int rc = 0;

    save(file, saved, 0, sector);
    switch (torn_random(random) % 8) {
    case 0:
        rc = cfsr_fs_sim_zero_sector(file->fs, file->path, sector);
        counters[COUNT_ZERO]++;
        break;
    case 1:
        rc = cfsr_fs_sim_stale_sector(file->fs, file->path, sector);
        counters[COUNT_STALE]++;
        break;
    case 2:
        save(file, saved, 1, other);
        rc = cfsr_fs_sim_misdirect(file->fs, file->path, sector, other);
        counters[COUNT_MISDIRECT]++;
        break;
    default:
        rc = cfsr_fs_sim_flip_bit(file->fs, file->path,
                                  saved->at[0] * 8 +
                                      torn_random(random) % (saved->len_bytes[0] * 8ull));
        counters[COUNT_BIT]++;
    }
    CFSR_ASSERT(rc == 0 || rc == -EALREADY || rc == -EOPNOTSUPP);
}

static void judge(struct flips *flips, const struct flips_file *file, const struct saved *saved,
                  uint64_t *counters)
{
    uint32_t classes = changed_classes(file, saved);
    const char *wrong;
    bool fell_back;

    if (classes == 0) {
        counters[COUNT_UNCHANGED]++;
        return;
    }
    wrong = flips_judge(flips, file, classes, &fell_back);
    SIM_CASE_CHECK(wrong == NULL, "%s at %" PRIu64 " (and %" PRIu64 "), classes %x: %s", file->path,
                   saved->at[0], saved->at[1], classes, wrong);
    counters[COUNT_FELL_BACK] += fell_back;
    for (unsigned i = 0; i < FLIPS_CLASSES; i++)
        counters[COUNT_CLASS + i] += classes >> i & 1;
}

static void flips_run(void *state, uint64_t number, uint64_t *counters)
{
    struct flips *flips = state;
    uint64_t random = flips->seed * 0x9e3779b97f4a7c15u + number;
    const struct flips_file *file;
    struct saved saved = {0};

    if (number % 2 == 0 && number / 2 < flips->places) {
        /* The stride is a prime: few cases see a little of everything, enough see all of it. */
        uint64_t which = number / 2 * STRIDE % flips->places;
        const struct flips_place *place = &flips->place[which];

        file = &flips->file[place->file];
        save(file, &saved, 0, place->bit / 8 / CFSR_SIM_SECTOR_BYTES);
        CFSR_ASSERT(cfsr_fs_sim_flip_bit(file->fs, file->path, place->bit) == 0);
        counters[COUNT_EVERY_BIT]++;
    } else {
        file = &flips->file[torn_random(&random) % flips->files];
        damage(file, &random, &saved, counters);
    }
    judge(flips, file, &saved, counters);
    put_back(file, &saved);
}

int sim_flips_main(int argc, char **argv)
{
    static const struct sim_cases program = {
        .command = "flips",
        .usage =
            "Usage: cfs-repl-sim flips [--cases N] [--seed S] [--jobs J] [--resume FILE]\n"
            "                          [--case N] [--quiet]\n"
            "Turns every bit of every header of a site's files, and damages anything; each must\n"
            "be noticed. Without --cases: as many as it takes for all header bits.\n",
        .cases = 0,
        .counter_count = COUNT_END,
        .counter_name = counter_name,
        .open = flips_open,
        .enough = flips_enough,
        .run = flips_run,
    };

    return sim_cases_main(&program, argc, argv);
}
