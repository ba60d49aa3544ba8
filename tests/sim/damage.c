/*
 * damage.c - damage of one site's journal and inbox, what it excuses, and that it is all put right
 * (run.h).
 *
 * Thread:     one.
 * Invariants: every damage is first done to a copy of the disk, which is crashed and looked at as a
 *             start would: so the model knows how far a cursor may go back, and a journal is never
 *             damaged where its tail would be taken for torn, nor where no peer holds the records.
 * Rejected:   damaging any byte of any file (what recovery cannot tell from a torn tail would
 * excuse everything that comes after).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "core/file_sim.h"
#include "inbox/format.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "node/internal.h"
#include "run.h"

#define SECTOR       ((uint64_t)CFSR_SIM_SECTOR_BYTES)
#define NEAR_THE_END ((uint64_t)64 << 10)
#define SETTLE_US    ((uint64_t)2000000)

/* Where. */
struct place {
    bool inbox;
    uint32_t lane;
    char path[CFSR_PATH_MAX + 64];
    uint64_t sector, other, count;
};

static bool is_damage(int rc)
{
    return rc == -CFSR_E_DAMAGED || rc == -CFSR_E_MISSING_SEGMENT || rc == -EIO;
}

/* A sector of [0, bytes) of a file's body, whole; often near the end, now and then in its header.
 */
static uint64_t draw_sector(uint64_t *random, uint64_t header_bytes, uint64_t bytes)
{
    uint64_t from = 0, sectors = bytes / SECTOR;

    if (sim_random(random) % 16 == 0)
        return sim_random(random) % (header_bytes / SECTOR);
    if (sim_random(random) % 4 == 0 && bytes > NEAR_THE_END)
        from = (bytes - NEAR_THE_END) / SECTOR;
    return header_bytes / SECTOR + from + sim_random(random) % (sectors - from);
}

/* In the journal below what some peer is known to hold. */
static bool draw_journal(struct sim_run *run, struct place *place, uint64_t *random)
{
    struct test_site *site = &run->cluster.site[run->plan->damage_site];
    uint64_t held = 0, segment = site->site.segment_bytes;

    for (unsigned to = 0; to < run->cluster.config.sites; to++)
        held = cfsr_max_u64(held, run->model.persisted[site->index][to][place->lane]);
    if (held < 2 * SECTOR)
        return false;
    uint64_t first = sim_random(random) % ((held - SECTOR) / segment + 1) * segment;
    uint64_t bytes = cfsr_min_u64(segment, held - first);
    if (bytes < 2 * SECTOR)
        return false;
    (void)cfsr_segment_path(&site->site, place->lane, first, place->path, sizeof place->path);
    place->sector = draw_sector(random, CFSR_SEGMENT_HEADER_BYTES, bytes);
    place->other = draw_sector(random, CFSR_SEGMENT_HEADER_BYTES, bytes);
    uint64_t end = (CFSR_SEGMENT_HEADER_BYTES + bytes) / SECTOR;
    place->count = cfsr_min_u64(1 + sim_random(random) % 8, end - place->sector);
    return true;
}

static struct cfsr_inbox_state state; /* 40 KiB */

static bool draw_inbox(struct sim_run *run, struct place *place, uint64_t *random)
{
    struct test_site *site = &run->cluster.site[run->plan->damage_site];
    char path[CFSR_INBOX_PATH_BYTES];
    struct cfsr_fs *copy = site_copy_disk(&run->cluster, site->index);
    uint64_t sequence, bytes;
    int rc;

    cfsr_fs_sim_crash(copy, CFSR_PERSIST_EVERYTHING);
    memset(&state, 0, sizeof state);
    rc = cfsr_inbox_recover_lane(copy, &site->site, place->lane, true, &state);
    cfsr_fs_sim_destroy(copy);
    if (rc < 0 || state.sequence == 0 || state.end_sequence == 0)
        return false;
    sequence = state.first_sequence +
               sim_random(random) % (state.end_sequence - state.first_sequence + 1);
    bytes = sequence < state.end_sequence ? site->site.segment_bytes
                                          : cfsr_align_up(state.end_offset, SECTOR);
    if (bytes < 2 * SECTOR)
        return false;
    snprintf(place->path, sizeof place->path, "%s",
             cfsr_inbox_segment_path(&site->site, place->lane, sequence, path));
    place->sector = draw_sector(random, CFSR_INBOX_SEGMENT_HEADER_BYTES, bytes);
    place->other = draw_sector(random, CFSR_INBOX_SEGMENT_HEADER_BYTES, bytes);
    place->count = 1 + sim_random(random) % 8;
    return true;
}

/* 0, or nothing was damaged. */
static int apply(struct cfsr_fs *fs, const struct place *place, enum sim_fault_kind kind,
                 uint64_t random)
{
    switch (kind) {
    case SIM_FAULT_bit_flip:
        return cfsr_fs_sim_flip_bit(
            fs, place->path, (place->sector * SECTOR + random % SECTOR) * 8 + (random >> 32) % 8);
    case SIM_FAULT_zero_sector: return cfsr_fs_sim_zero_sector(fs, place->path, place->sector);
    case SIM_FAULT_stale_sector: return cfsr_fs_sim_stale_sector(fs, place->path, place->sector);
    case SIM_FAULT_misdirect:
        return cfsr_fs_sim_misdirect(fs, place->path, place->sector, place->other);
    default: return cfsr_fs_sim_fail_reads(fs, place->path, place->sector, place->count);
    }
}

/* ---- what it would do to a start ---- */

static struct cfsr_fs *damaged_copy(struct sim_run *run, const struct sim_fault *fault,
                                    const struct place *place, enum cfsr_persistence model)
{
    struct cfsr_fs *copy = site_copy_disk(&run->cluster, run->plan->damage_site);

    if (apply(copy, place, fault->kind, fault->random) < 0) {
        cfsr_fs_sim_destroy(copy);
        return NULL;
    }
    cfsr_fs_sim_crash(copy, model);
    return copy;
}

/* True if recovery keeps what was committed, or refuses because of the damage. */
static bool is_told_from_torn(struct sim_run *run, const struct sim_fault *fault,
                              const struct place *place, enum cfsr_persistence model)
{
    struct test_site *site = &run->cluster.site[run->plan->damage_site];
    struct cfsr_fs *copy = damaged_copy(run, fault, place, model);
    struct cfsr_lane_state lane;
    bool told;
    int rc;

    if (copy == NULL)
        return false;
    rc = cfsr_journal_recover_lane(copy, &site->site, place->lane, true, true, &lane);
    told = rc < 0 || cfsr_min_u64(lane.end_lsn, lane.cut_lsn) >=
                         run->model.committed[site->index][place->lane];
    if (rc == 0)
        cfsr_lane_state_fini(&lane);
    CHECK(&run->cluster, rc == 0 || is_damage(rc), "damage", "recovery says %d of damage: %s", rc,
          cfsr_error_message());
    cfsr_fs_sim_destroy(copy);
    return told;
}

static uint64_t cursor_of(uint64_t site_id)
{
    for (uint32_t i = 0; i < state.origins; i++)
        if (state.cursor[i].site_id == site_id)
            return state.cursor[i].lsn;
    return 0;
}

/* How far the cursors go back with it. */
static bool look_at_inbox(struct sim_run *run, const struct sim_fault *fault,
                          const struct place *place, enum cfsr_persistence model, uint64_t *floor)
{
    unsigned index = run->plan->damage_site;
    struct cfsr_fs *copy = damaged_copy(run, fault, place, model);
    int rc;

    if (copy == NULL)
        return false;
    memset(&state, 0, sizeof state);
    sim_verify_beginning(run, index, place->lane, copy);
    rc = cfsr_inbox_recover_lane(copy, &run->cluster.site[index].site, place->lane, true, &state);
    cfsr_fs_sim_destroy(copy);
    CHECK(&run->cluster, rc == 0 || is_damage(rc), "damage", "recovery says %d of damage: %s", rc,
          cfsr_error_message());
    if (rc < 0)
        sim_note(run, "recovery would refuse: %s", cfsr_error_message());
    for (unsigned from = 0; rc == 0 && from < run->cluster.config.sites; from++)
        floor[from] = cfsr_min_u64(floor[from], cursor_of(from + 1));
    return rc == 0;
}

static bool judge(struct sim_run *run, const struct sim_fault *fault, const struct place *place)
{
    struct sim_damaged *damaged = &run->model.damaged;
    uint64_t floor[SITES_MAX];

    if (!place->inbox)
        return is_told_from_torn(run, fault, place, CFSR_PERSIST_EVERYTHING) &&
               is_told_from_torn(run, fault, place, CFSR_PERSIST_NOTHING);
    memset(floor, 0xff, sizeof floor);
    if (!look_at_inbox(run, fault, place, CFSR_PERSIST_EVERYTHING, floor) ||
        !look_at_inbox(run, fault, place, CFSR_PERSIST_NOTHING, floor))
        return false;
    for (unsigned from = 0; from < run->cluster.config.sites; from++)
        if (floor[from] < run->model.durable[run->plan->damage_site][from][place->lane])
            damaged->floor[from][place->lane] = cfsr_min_u64(damaged->floor[from][place->lane],
                                                             floor[from]);
    return true;
}

void sim_damage(struct sim_run *run, const struct sim_fault *fault)
{
    struct sim_damaged *damaged = &run->model.damaged;
    uint64_t random = fault->random;
    struct place place = {
        .inbox = sim_random(&random) % 2 == 0,
        .lane = (uint32_t)(sim_random(&random) % run->cluster.config.lanes),
    };
    bool done = (place.inbox ? draw_inbox : draw_journal)(run, &place, &random);

    done = done && judge(run, fault, &place) &&
           apply(run->cluster.site[fault->site].fs, &place, fault->kind, fault->random) == 0;
    sim_note(run, "%s %s sector %" PRIu64 " %" PRIu64 " x%" PRIu64 "%s",
             sim_fault_name(fault->kind), place.path, place.sector, place.other, place.count,
             done ? "" : ": not done");
    if (!done) {
        run->totals.faults[fault->kind]--;
        return;
    }
    damaged->count++;
    *(place.inbox ? &damaged->inbox : &damaged->journal) |= 1ull << place.lane;
}

/* ---- what it excuses ---- */

bool sim_damaged_inbox(const struct sim_run *run, unsigned site, uint32_t lane)
{
    return run->model.damaged.count > 0 && site == run->plan->damage_site &&
           (run->model.damaged.inbox >> lane & 1) != 0;
}

bool sim_damage_excuses(struct sim_run *run, unsigned site, unsigned from, uint32_t lane,
                        uint64_t lsn)
{
    struct sim_model *model = &run->model;
    uint64_t *durable = &model->durable[site][from][lane], *acked = &model->acked[from][site][lane];

    if (lsn >= *durable || !sim_damaged_inbox(run, site, lane) ||
        lsn < model->damaged.floor[from][lane] ||
        model->damaged.floor[from][lane] == CFSR_LSN_UNKNOWN)
        return false;
    sim_note(run, "site %u lane %u of site %u goes back from %" PRIu64 " to %" PRIu64, site + 1,
             lane, from + 1, *durable, lsn);
    if (lsn < *acked) {
        model->expect_alarm[from][site] = true;
        sim_check_went_back(run, from, site, 1ull << lane);
        *acked = lsn;
    }
    *durable = lsn;
    return true;
}

/* ---- that it is put right ---- */

static void ask(struct sim_run *run, unsigned index)
{
    struct test_site *site = &run->cluster.site[index];
    const struct cfsr_scrub_request request = {
        .run = run->scrub, .lane_mask = UINT64_MAX, .parts = CFSR_SCRUB_ALL};

    for (uint32_t number = 0; number < site->cores; number++)
        cfsr_node_core_scrub(site->core[number], &request);
    site->dirty = true;
    run->life[index].scrub = run->scrub;
}

static bool site_is_mended(const struct sim_run *run, unsigned index, char *why, size_t len_bytes)
{
    const struct test_site *site = &run->cluster.site[index];

    for (uint32_t number = 0; number < site->cores; number++) {
        const struct cfsr_scrub *scrub = &site->core[number]->scrub.machine;
        if (scrub->run_finished >= run->scrub && scrub->waiting_count == 0 &&
            scrub->waiting_mask == 0 && !scrub->task[CFSR_SCRUB_URGENT].active)
            continue;
        snprintf(why, len_bytes,
                 "scrub %" PRIu64 " of site %u core %u: finished %" PRIu64
                 ", %u gaps of the inbox and lanes %" PRIx64 " of the journal wait",
                 run->scrub, index + 1, number, scrub->run_finished, scrub->waiting_count,
                 scrub->waiting_mask);
        return false;
    }
    return true;
}

static void check_sound(struct sim_run *run, unsigned index)
{
    const struct test_site *site = &run->cluster.site[index];

    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        const struct cfsr_scrub_lane *l = &site->core[lane % site->cores]->scrub.machine.lane[lane];
        CHECK(&run->cluster,
              l->found == 0 && l->windows_different == 0 && l->waiting == 0 &&
                  l->unrepairable == 0 && l->error == 0,
              "mended",
              "site %u lane %u: the second scrub finds %" PRIu64 " damaged places, %" PRIu64
              " different windows, error %d",
              index + 1, lane, l->found, l->windows_different, l->error);
    }
}

bool sim_damage_mended(struct sim_run *run, char *why, size_t len_bytes)
{
    unsigned sites = run->cluster.config.sites;

    if (run->model.damaged.count == 0)
        return true;
    run->scrub = cfsr_max_u64(run->scrub, 1);
    for (unsigned i = 0; i < sites; i++) {
        const struct test_site *site = &run->cluster.site[i];
        if (!site->up || run->life[i].state != SIM_UP) {
            snprintf(why, len_bytes, "site %u is down: the last start failed with %d", i + 1,
                     (int)site->last_failure);
            return false;
        }
        if (run->life[i].scrub < run->scrub)
            ask(run, i);
    }
    for (unsigned i = 0; i < sites; i++)
        if (!site_is_mended(run, i, why, len_bytes))
            return false;
    if (run->scrub == 1 && !sim_check_rested(run, why, len_bytes))
        return false;
    if (run->scrub == 1) {
        /* What was put into an inbox is durable a moment after the scrub is over. */
        if (run->scrub_at_us == 0)
            run->scrub_at_us = run->cluster.now_us + SETTLE_US;
        snprintf(why, len_bytes, "the second scrub is to come");
        if (run->cluster.now_us >= run->scrub_at_us)
            run->scrub = 2;
        return false;
    }
    for (unsigned i = 0; i < sites; i++)
        check_sound(run, i);
    return true;
}
