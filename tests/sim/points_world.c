/*
 * points_world.c - the reference run (points_world.h).
 *
 * Thread:     one.
 * Invariants: what happens follows from the seed alone: a point that is told, and a child forked at
 *             it, change nothing. The model is changed before an op that promises nothing new, and
 *             after one that does.
 */
#include "points_world.h"

#include <inttypes.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "inbox/gc.h"
#include "inbox/reader.h"
#include "journal/acks.h"
#include "points_check.h"
#include "transport/sim/sim.h"

#define CONSUMER_SITE 1u
#define ACKS_SITE     0u
/* Small: a run of some thousand ops fills, retains, collects and recycles many of them, and a crash
 * is judged by reading all that is left. */
#define POINTS_SEGMENT_BYTES (256u << 10)

static struct points_world *current; /* for the transports, which carry no pointer of ours */

const char *points_kind_name(unsigned kind)
{
    return kind == POINTS_SEND ? "send" : cfsr_sim_op_name((enum cfsr_sim_op)kind);
}

/* ---- points ---- */

static void tell(struct points_world *world, unsigned site, unsigned kind,
                 enum cfsr_sim_phase phase)
{
    struct points_point point = {.kind = kind, .phase = phase, .site = site};

    if (world->in_child)
        return;
    if (phase == CFSR_SIM_BEFORE) {
        world->number++;
        world->seen[kind]++;
    }
    point.number = world->number;
    if (world->at_point != NULL)
        world->at_point(world, &point);
}

static void disk_point(void *user, struct cfsr_fs *fs, const struct cfsr_sim_point *point)
{
    struct test_site *site = user;

    (void)fs;
    tell(current, site->index, point->op, point->phase);
}

static int send_of(unsigned site, struct cfsr_conn *conn, enum cfsr_stream stream,
                   const struct cfsr_frame *frames, unsigned count)
{
    int rc;

    tell(current, site, POINTS_SEND, CFSR_SIM_BEFORE);
    rc = cfsr_transport_sim.send(conn, stream, frames, count);
    tell(current, site, POINTS_SEND, CFSR_SIM_MIDDLE);
    tell(current, site, POINTS_SEND, CFSR_SIM_AFTER);
    return rc;
}

#define SEND_OF(site)                                                          \
    static int send_of_##site(struct cfsr_conn *conn, enum cfsr_stream stream, \
                              const struct cfsr_frame *frames, unsigned count) \
    {                                                                          \
        return send_of(site, conn, stream, frames, count);                     \
    }
SEND_OF(0)
SEND_OF(1)
SEND_OF(2)

static void wrap_transports(struct cluster_config *config)
{
    static struct cfsr_transport table[POINTS_SITES];
    static int (*const send[POINTS_SITES])(struct cfsr_conn * conn, enum cfsr_stream stream,
                                           const struct cfsr_frame *frames,
                                           unsigned count) = {send_of_0, send_of_1, send_of_2};

    for (unsigned i = 0; i < POINTS_SITES; i++) {
        table[i] = cfsr_transport_sim;
        table[i].send = send[i];
        config->transport[i] = &table[i];
    }
}

/* ---- what goes on ---- */

static uint64_t dice(struct points_world *world, uint64_t limit)
{
    return sim_random(&world->random) % limit;
}

/* Everyone's ack lies above the lane's lowest segment, so that the record below the ack, which a
 * handshake compares, is not in it: it may go. */
static void retain(struct points_world *world, unsigned index)
{
    struct test_site *site = &world->cluster.site[index];

    for (uint32_t lane = 0; lane < POINTS_LANES; lane++) {
        uint64_t lowest = UINT64_MAX;

        for (unsigned at = 0; at < POINTS_SITES; at++)
            if (at != index)
                lowest = cfsr_min_u64(lowest, world->model.durable[at][index][lane]);
        if (origin_lowest(site->origin[lane]) + site->site.segment_bytes < lowest)
            (void)origin_recycle_lowest(site->origin[lane]);
    }
}

static void collect(struct points_world *world)
{
    struct test_site *site = &world->cluster.site[CONSUMER_SITE];

    for (uint32_t lane = 0; lane < POINTS_LANES; lane++) {
        struct cfsr_inbox_range_of_segments range = {0};
        struct cfsr_inbox_gc_result result;

        if (cfsr_inbox_list_segments(site->fs, &site->site, lane, &range) == 0 && range.last > 1)
            (void)cfsr_inbox_gc_lane(site->fs, &site->site, lane, range.last - 1, 0, 0, &result);
    }
}

static void consume(struct points_world *world)
{
    struct test_site *site = &world->cluster.site[CONSUMER_SITE];
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .consumer = POINTS_CONSUMER, .lane = CFSR_INBOX_ALL_LANES};
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    unsigned most = 1 + (unsigned)dice(world, 60);
    int rc = cfsr_inbox_open_at(site->fs, &site->site, &options, &inbox);

    CHECK(&world->cluster, rc == 0, "consumer", "%s", cfsr_error_message());
    memcpy(world->model.consuming, world->model.consumed, sizeof world->model.consumed);
    while (most-- > 0 && (rc = cfsr_inbox_next(inbox, 0, &record)) == 1)
        world->model.consuming[record.site_id - 1][record.lane]++;
    CHECK(&world->cluster, rc >= 0, "consumer", "%s", cfsr_error_message());
    rc = cfsr_inbox_commit(inbox);
    CHECK(&world->cluster, rc == 0, "consumer", "%s", cfsr_error_message());
    memcpy(world->model.consumed, world->model.consuming, sizeof world->model.consumed);
    cfsr_inbox_close(inbox);
}

static void store_acks(struct points_world *world)
{
    struct test_site *site = &world->cluster.site[ACKS_SITE];
    static struct cfsr_acks acks;
    int rc = cfsr_acks_load(site->fs, &site->site, &acks);

    CHECK(&world->cluster, rc == 0, "acks", "%s", cfsr_error_message());
    /* Counted in the number of a peer: what it stands for would be believed as a position. */
    world->model.storing_acks = world->model.acks + 1;
    acks.peer_count = 1;
    acks.peers[0] = (struct cfsr_acks_peer){.site_id = world->model.storing_acks};
    rc = cfsr_acks_store(site->fs, &site->site, &acks);
    CHECK(&world->cluster, rc == 0, "acks", "%s", cfsr_error_message());
    world->model.acks = world->model.storing_acks;
}

static void cut_power(struct points_world *world)
{
    unsigned site = (unsigned)dice(world, POINTS_SITES);

    points_note_promises(world);
    site_crash(&world->cluster, site, (enum cfsr_persistence)dice(world, 4));
    cluster_run_us(&world->cluster, dice(world, 30000));
    site_start(&world->cluster, site);
}

static void restart_daemon(struct points_world *world)
{
    unsigned site = (unsigned)dice(world, POINTS_SITES);

    site_stop(&world->cluster, site);
    cluster_run_us(&world->cluster, dice(world, 10000));
    points_note_promises(world);
    site_start(&world->cluster, site);
}

static void act(struct points_world *world)
{
    struct cluster *cluster = &world->cluster;
    uint64_t what = dice(world, 100);

    points_note_promises(world);
    if (what < 72)
        site_append(cluster, (unsigned)dice(world, POINTS_SITES), 1 + (unsigned)dice(world, 5),
                    what % 8 == 0 ? 20000 : 1200);
    else if (what < 79)
        consume(world);
    else if (what < 84)
        store_acks(world);
    else if (what < 88)
        retain(world, (unsigned)dice(world, POINTS_SITES));
    else if (what < 92)
        collect(world);
    else if (what < 96)
        cut_power(world);
    else if (what < 99)
        restart_daemon(world);
    else
        site_append_lane(cluster, (unsigned)dice(world, POINTS_SITES), 0, 10, 90000);
    cluster_run_us(cluster, 200 + dice(world, 6000));
}

void points_world_run(struct points_world *world, uint64_t seed, uint64_t points)
{
    struct cluster_config config = {.seed = seed,
                                    .sites = POINTS_SITES,
                                    .lanes = POINTS_LANES,
                                    .segment_bytes = POINTS_SEGMENT_BYTES,
                                    .recv_ring_bytes = 256 << 10,
                                    .keep_truth = true};
    void (*at_point)(struct points_world * world,
                     const struct points_point *point) = world->at_point;

    memset(world, 0, sizeof *world);
    world->at_point = at_point;
    world->random = seed;
    current = world;
    wrap_transports(&config);
    world->cluster.watch.user = world;
    world->cluster.watch.journal_opened = points_check_journal;
    world->cluster.watch.inbox_recovered = points_check_inbox;
    cluster_make(&world->cluster, &config);
    for (unsigned i = 0; i < POINTS_SITES; i++)
        cfsr_fs_sim_observe(world->cluster.site[i].fs, 7u, disk_point, &world->cluster.site[i]);
    while (world->number < points)
        act(world);
    CHECK(&world->cluster, cluster_run_until_equal(&world->cluster, 300000000), "rest",
          "the reference run does not come to rest: %s", cluster_unrested(&world->cluster));
    points_check_all(world);
}
