/*
 * points_check.c - the promises kept (points_check.h), and the crash that tries them.
 *
 * Thread:     one; points_world_crash() runs in a child that ends soon.
 * Invariants: the truth is what those who appended remember (origin.h).
 * Rejected:   burying a core that was stopped in the middle of a call with the node's own
 *             functions: it is left where it is, the process ends anyway.
 */
#include "points_check.h"

#include <inttypes.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "inbox/digest.h"
#include "inbox/reader.h"
#include "journal/acks.h"
#include "journal/digest.h"
#include "node/internal.h"
#include "transport/sim/control.h"
#include "transport/sim/sim.h"

#define CONSUMER_SITE 1u
#define ACKS_SITE     0u
#define REST_US       300000000u

static void note_inbox(struct points_world *world, struct test_site *site, uint32_t lane,
                       const struct cfsr_inbox_lane *inbox)
{
    for (unsigned from = 0; from < POINTS_SITES; from++) {
        int origin = cfsr_inbox_lane_find_site(inbox, from + 1);
        uint64_t *durable = &world->model.durable[site->index][from][lane];

        if (origin >= 0)
            *durable = cfsr_max_u64(*durable, cfsr_inbox_lane_durable(inbox, origin)->lsn);
    }
}

void points_note_promises(struct points_world *world)
{
    for (unsigned i = 0; i < POINTS_SITES; i++) {
        struct test_site *site = &world->cluster.site[i];

        for (uint32_t lane = 0; lane < POINTS_LANES; lane++) {
            struct cfsr_node_core *core = site->core[lane % site->cores];

            world->model.committed[i][lane] = site->truth[lane].committed_lsn;
            if (site->up && core != NULL && core->stores[lane] != NULL)
                note_inbox(world, site, lane, core->stores[lane]->inbox);
        }
    }
}

void points_check_journal(void *user, struct test_site *site, uint32_t lane)
{
    struct points_world *world = user;
    uint64_t promised = world->model.committed[site->index][lane];
    uint64_t found = origin_found(site->origin[lane]);

    CHECK(&world->cluster, found >= promised, "committed",
          "site %u lane %u: %" PRIu64 " was committed, %" PRIu64 " is there", site->index + 1, lane,
          promised, found);
}

void points_check_inbox(void *user, struct test_site *site, uint32_t lane,
                        const struct cfsr_inbox_state *state)
{
    struct points_world *world = user;

    for (unsigned from = 0; from < POINTS_SITES; from++) {
        uint64_t promised = world->model.durable[site->index][from][lane], found = 0;

        for (uint32_t i = 0; i < state->origins; i++)
            if (state->cursor[i].site_id == from + 1)
                found = state->cursor[i].lsn;
        CHECK(&world->cluster, found >= promised, "acknowledged",
              "site %u lane %u of site %u: durable to %" PRIu64 ", recovered to %" PRIu64,
              site->index + 1, lane, from + 1, promised, found);
    }
}

/* ---- at rest ---- */

struct reading {
    uint64_t next[POINTS_SITES][POINTS_LANES]; /* entry of the truth that comes next */
    bool begun[POINTS_SITES][POINTS_LANES];
};

static void read_record(struct points_world *world, unsigned at, struct reading *reading,
                        const struct cfsr_inbox_record *record, const char *what)
{
    unsigned from = (unsigned)record->site_id - 1;
    const struct origin_truth *truth;
    const struct origin_entry *wanted;
    uint64_t *next;

    CHECK(&world->cluster, from < POINTS_SITES && from != at && record->lane < POINTS_LANES, what,
          "site %u holds a record of site %" PRIu64, at + 1, record->site_id);
    truth = &world->cluster.site[from].truth[record->lane];
    next = &reading->next[from][record->lane];
    while (!reading->begun[from][record->lane] && *next < truth->count &&
           truth->entry[*next].lsn < record->lsn)
        (*next)++; /* older ones were given up by retention */
    reading->begun[from][record->lane] = true;
    CHECK(&world->cluster, *next < truth->count, what,
          "site %u lane %u of site %u: more than was appended, at LSN %" PRIu64, at + 1,
          record->lane, from + 1, record->lsn);
    wanted = &truth->entry[(*next)++];
    CHECK(&world->cluster,
          record->lsn == wanted->lsn && record->seq == wanted->seq &&
              record->inode == wanted->inode && record->payload_bytes == wanted->payload_bytes &&
              cfsr_crc32c(0, record->payload, record->payload_bytes) == wanted->payload_crc,
          what, "site %u lane %u of site %u: LSN %" PRIu64 " where %" PRIu64 " belongs", at + 1,
          record->lane, from + 1, record->lsn, wanted->lsn);
}

/* First entries found: *first_out; all of them to the end of the truth. */
static void read_all(struct points_world *world, unsigned at, const char *consumer,
                     uint64_t first_out[POINTS_SITES][POINTS_LANES])
{
    struct test_site *site = &world->cluster.site[at];
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .consumer = consumer, .lane = CFSR_INBOX_ALL_LANES};
    static struct reading reading;
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    const char *what = consumer != NULL ? "consumer" : "exactly-once";
    int rc = cfsr_inbox_open_at(site->fs, &site->site, &options, &inbox);

    CHECK(&world->cluster, rc == 0, what, "%s", cfsr_error_message());
    memset(&reading, 0, sizeof reading);
    for (unsigned from = 0; from < POINTS_SITES; from++)
        for (uint32_t lane = 0; lane < POINTS_LANES; lane++)
            first_out[from][lane] = world->cluster.site[from].truth[lane].count;
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        bool first = !reading.begun[record.site_id - 1][record.lane];

        read_record(world, at, &reading, &record, what);
        if (first)
            first_out[record.site_id - 1][record.lane] =
                reading.next[record.site_id - 1][record.lane] - 1;
    }
    CHECK(&world->cluster, rc == 0, what, "site %u: %s", at + 1, cfsr_error_message());
    cfsr_inbox_close(inbox);
    for (unsigned from = 0; from < POINTS_SITES; from++)
        for (uint32_t lane = 0; lane < POINTS_LANES; lane++)
            CHECK(&world->cluster,
                  from == at || !reading.begun[from][lane] ||
                      reading.next[from][lane] == world->cluster.site[from].truth[lane].count,
                  what, "site %u lane %u of site %u: ends at entry %" PRIu64 " of %" PRIu64, at + 1,
                  lane, from + 1, reading.next[from][lane],
                  world->cluster.site[from].truth[lane].count);
}

static bool starts_at(uint64_t first[POINTS_SITES][POINTS_LANES],
                      uint64_t expected[POINTS_SITES][POINTS_LANES])
{
    for (unsigned from = 0; from < POINTS_SITES; from++)
        for (uint32_t lane = 0; lane < POINTS_LANES; lane++)
            if (from != CONSUMER_SITE && first[from][lane] != expected[from][lane])
                return false;
    return true;
}

static void check_site(struct points_world *world, unsigned at)
{
    uint64_t first[POINTS_SITES][POINTS_LANES];

    read_all(world, at, NULL, first);
    for (unsigned from = 0; from < POINTS_SITES; from++)
        for (uint32_t lane = 0; lane < POINTS_LANES; lane++)
            CHECK(&world->cluster,
                  from == at || first[from][lane] <=
                                    (at == CONSUMER_SITE ? world->model.consuming[from][lane] : 0),
                  "retention",
                  "site %u lane %u of site %u begins at entry %" PRIu64 ", consumed %" PRIu64,
                  at + 1, lane, from + 1, first[from][lane], world->model.consuming[from][lane]);
    if (at != CONSUMER_SITE)
        return;
    read_all(world, at, POINTS_CONSUMER, first);
    CHECK(&world->cluster,
          starts_at(first, world->model.consumed) || starts_at(first, world->model.consuming),
          "consumer", "the consumer goes on neither where it was nor where it was going");
}

static void check_digests(struct points_world *world, unsigned from, unsigned at, uint32_t lane)
{
    struct test_site *source = &world->cluster.site[from], *target = &world->cluster.site[at];
    uint64_t head = origin_head(source->origin[lane]), entries;
    struct cfsr_inbox_lane_digest found;
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
    int rc;

    if (head == 0 || origin_lowest(source->origin[lane]) != 0)
        return;
    rc = cfsr_inbox_digest_lane(target->fs, &target->site, lane, from + 1, UINT64_MAX, &found);
    CHECK(&world->cluster, rc == 0, "digest", "%s", cfsr_error_message());
    if (found.from_lsn != 0)
        return; /* its beginning was given up */
    rc = cfsr_journal_digest_lane(source->fs, &source->site, lane, 0, head, digest, &entries);
    CHECK(&world->cluster, rc == 0, "digest", "%s", cfsr_error_message());
    CHECK(&world->cluster,
          found.to_lsn == head && found.entries == entries &&
              memcmp(found.digest, digest, sizeof digest) == 0,
          "digest", "lane %u of site %u at site %u differs", lane, from + 1, at + 1);
}

static void check_acks(struct points_world *world)
{
    struct test_site *site = &world->cluster.site[ACKS_SITE];
    static struct cfsr_acks acks;
    uint64_t value;
    int rc = cfsr_acks_load(site->fs, &site->site, &acks);

    CHECK(&world->cluster, rc == 0, "acks", "%s", cfsr_error_message());
    value = acks.peer_count > 0 ? acks.peers[0].site_id : 0;
    CHECK(&world->cluster, value == world->model.acks || value == world->model.storing_acks, "acks",
          "%" PRIu64 " was stored, %" PRIu64 " is there", world->model.acks, value);
}

void points_check_all(struct points_world *world)
{
    uint64_t pick = world->number;

    for (unsigned at = 0; at < POINTS_SITES; at++) {
        check_site(world, at);
        CHECK(&world->cluster, COUNTER(&world->cluster, at, peer_regressions) == 0, "alarm",
              "site %u sees a peer go back", at + 1);
    }
    check_acks(world);
    check_digests(world, (unsigned)(pick % 3), (unsigned)((pick + 1 + pick / 3 % 2) % 3),
                  (uint32_t)(pick / 6 % POINTS_LANES));
}

/* ---- the crash ---- */

/* Whatever the site was doing, it does no more. */
static void abandon(struct cluster *cluster, struct test_site *site, bool silent,
                    enum cfsr_persistence model)
{
    /* Its groups are left too: they may be in the middle of a call. */
    for (unsigned i = 0; !silent && i < POINTS_SITES; i++)
        if (i != site->index)
            (void)cfsr_sim_network_cut(cluster->network, site_host(site),
                                       site_host(&cluster->site[i]));
    cfsr_sim_network_vanish(cluster->network, site_host(site));
    if (site->listener != NULL)
        cfsr_transport_sim.listener_close(site->listener);
    site->listener = NULL;
    cfsr_fs_sim_observe(site->fs, 0, NULL, NULL);
    cfsr_fs_sim_crash(site->fs, model);
    for (unsigned core = 0; core < CORES_MAX; core++) {
        site->group[core] = NULL;
        site->core[core] = NULL;
        site->arena[core].base = NULL; /* left to the dead */
        site->arena[core].taken = 0;
    }
    site->io_bytes = 0;
    site->starting = CORES_MAX;
    site->job_count = 0;
    for (uint32_t lane = 0; lane < site->site.lanes; lane++)
        site->origin[lane] = NULL;
    site->up = site->draining = false;
}

/* A site that another part of the run was stopping: nobody else ends that here. */
static void end_stops(struct cluster *cluster)
{
    for (unsigned i = 0; i < POINTS_SITES; i++) {
        struct test_site *site = &cluster->site[i];
        uint64_t limit_us = cluster->now_us + REST_US;

        if (!site->up || !site->draining)
            continue;
        while (!site_is_drained(site) && cluster->now_us < limit_us)
            cluster_step(cluster);
        CHECK(cluster, site_is_drained(site), "drain", "site %u does not drain", i + 1);
        site_end_stop(cluster, i);
    }
}

void points_world_crash(struct points_world *world, const struct points_point *point,
                        enum cfsr_persistence model, bool all)
{
    struct cluster *cluster = &world->cluster;

    world->in_child = true;
    points_note_promises(world);
    for (unsigned i = 0; i < POINTS_SITES; i++)
        for (unsigned core = 0; core < CORES_MAX; core++)
            CHECK(cluster,
                  cluster->site[i].group[core] == NULL ||
                      cfsr_sim_group_forked(cluster->site[i].group[core]) == 0,
                  "setup", "receive rings of a child");
    for (unsigned i = 0; i < POINTS_SITES; i++)
        if (i == point->site || (all && cluster->site[i].up))
            abandon(cluster, &cluster->site[i],
                    point->kind == POINTS_SEND && point->phase == CFSR_SIM_MIDDLE, model);
    cluster_run_us(cluster, point->number % 7 * 500);
    end_stops(cluster);
    for (unsigned i = 0; i < POINTS_SITES; i++)
        if (!cluster->site[i].up)
            site_start(cluster, i);
    for (unsigned i = 0; i < POINTS_SITES; i++)
        site_append(cluster, i, 3, 500);
    CHECK(cluster, cluster_run_until_equal(cluster, REST_US), "rest",
          "it does not come to rest: %s", cluster_unrested(cluster));
    points_check_all(world);
}
