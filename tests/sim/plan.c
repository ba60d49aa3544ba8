/*
 * plan.c - what a seed means (plan.h): swarm testing, every run another corner of the options.
 *
 * Thread:     one.
 * Invariants: a plan depends on the request alone; each part draws from a state of its own, so that
 *             a new option does not change every seed's faults.
 */
#include "plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define MS     1000ull
#define SECOND 1000000ull
#define NS     1000ull
/* More than there are: a new kind leaves what other seeds draw as it is. */
#define KINDS_DRAWN 29
_Static_assert(KINDS_DRAWN == SIM_FAULT_rdma_cut, "and those of the second way by themselves");

const char *sim_fault_name(enum sim_fault_kind kind)
{
    static const char *const names[] = {
#define X(name, text) #name,
        SIM_FAULT_KINDS(X)
#undef X
    };
    return names[kind];
}

const char *sim_fault_text(enum sim_fault_kind kind)
{
    static const char *const texts[] = {
#define X(name, text) text,
        SIM_FAULT_KINDS(X)
#undef X
    };
    return texts[kind];
}

const char *sim_break_name(enum sim_break kind)
{
    static const char *const names[] = {
#define X(name, text) #name,
        SIM_BREAKS(X)
#undef X
    };
    return names[kind];
}

const char *sim_break_text(enum sim_break kind)
{
    static const char *const texts[] = {
#define X(name, text) text,
        SIM_BREAKS(X)
#undef X
    };
    return texts[kind];
}

/* ---- drawing ---- */

static uint64_t below(uint64_t *state, uint64_t limit)
{
    return sim_random(state) % limit;
}

static bool chance(uint64_t *state, unsigned percent)
{
    return below(state, 100) < percent;
}

static uint64_t between(uint64_t *state, uint64_t low, uint64_t high)
{
    return low + below(state, high - low + 1);
}

/* Evenly over the powers of two. */
static uint64_t spread(uint64_t *state, uint64_t low, uint64_t high)
{
    unsigned doublings = 0;
    while (low << doublings < high)
        doublings++;
    uint64_t from = low << below(state, doublings + 1);
    return cfsr_min_u64(high, from + below(state, from));
}

static uint64_t one_of(uint64_t *state, const uint64_t *values, unsigned count)
{
    return values[below(state, count)];
}
#define ONE_OF(state, ...)                         \
    one_of(state, (const uint64_t[]){__VA_ARGS__}, \
           sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void draw_topology(struct sim_plan *plan, uint64_t *state)
{
    struct cluster_config *config = &plan->cluster;
    uint64_t drawn = ONE_OF(state, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5);

    config->sites = plan->request.sites != 0 ? plan->request.sites : (unsigned)drawn;
    config->lanes = (uint32_t)ONE_OF(state, 1, 1, 2, 2, 2, 4, 4, 4, 8);
    for (unsigned i = 0; i < SITES_MAX; i++) {
        config->cores[i] = (uint32_t)cfsr_min_u64(ONE_OF(state, 1, 1, 1, 2, 2, 3, 4),
                                                  config->lanes);
        config->disk_latency_us[i] = spread(state, 50, 4000);
    }
    config->segment_bytes = ONE_OF(state, 2, 2, 2, 2, 3, 4, 8) << 20;
    config->delay_min_us = ONE_OF(state, 50, 100, 500, 2000, 10000, 40000);
    config->delay_max_us = config->delay_min_us * ONE_OF(state, 1, 2, 4);
    config->chunk_max_bytes = (uint32_t)ONE_OF(state, 1460, 8192, 16384, 65536, 65536);
    config->job_delay_us = ONE_OF(state, 0, 0, 200, 5000, 50000);
    config->silent_crash = chance(state, 70);
    config->keep_truth = true;
    config->memory_less_bytes = plan->request.broken == SIM_BREAK_small_memory ? 4096 : 0;
}

static void draw_options(struct sim_plan *plan, uint64_t *state)
{
    struct cfsr_node_options *options = &plan->common;
    bool defaults = chance(state, 30); /* the times a user has who sets none */

    options->batch_bytes = (uint32_t)spread(state, 4 << 10, 256 << 10);
    options->batch_entries = chance(state, 25) ? (uint32_t)between(state, 1, 64) : 0;
    options->batch_timeout_ns = ONE_OF(state, 0, 1, 5, 20) * MS * NS;
    options->window_bytes = spread(state, 64 << 10, 4 << 20);
    options->heartbeat_ns = (defaults ? SECOND : ONE_OF(state, 300, 700, 1000, 2000) * MS) * NS;
    options->progress_timeout_ns = defaults ? 10 * SECOND * NS
                                            : cfsr_max_u64(4 * options->heartbeat_ns,
                                                           between(state, 3, 12) * SECOND * NS);
    options->hello_timeout_ns = (defaults ? 5 : between(state, 4, 8)) * SECOND * NS;
    options->backoff_min_ns = (defaults ? 100 : ONE_OF(state, 10, 100, 500)) * MS * NS;
    options->backoff_max_ns = (defaults ? 10 : between(state, 1, 10)) * SECOND * NS;
    options->fault_retry_ns = (defaults ? 30 : between(state, 3, 30)) * SECOND * NS;
    options->sync_bytes = spread(state, 64 << 10, 1 << 20);
    options->sync_delay_ns = ONE_OF(state, 0, 1, 1, 8, 20) * MS * NS;
    options->journal_direct = chance(state, 30);
    options->inbox_direct = chance(state, 70);
    options->read_buffers = (uint32_t)ONE_OF(state, 0, 4, 8);
    options->batch_slots = (uint32_t)between(state, 2, 8);
    options->inbox_slots = (uint32_t)between(state, 2, 8);
    options->strangers_max = 16;
    options->ack_written = plan->request.broken == SIM_BREAK_ack_written;
    for (unsigned i = 0; i < SITES_MAX; i++) {
        cfsr_codec_config_default(&plan->codec[i]);
        plan->codec[i].codec = (enum cfsr_codec)ONE_OF(state, CFSR_CODEC_NONE, CFSR_CODEC_LZ4,
                                                       CFSR_CODEC_LZ4, CFSR_CODEC_ZSTD);
        plan->codec[i].level = plan->codec[i].codec == CFSR_CODEC_ZSTD ? (int)between(state, 1, 3)
                                                                       : 1;
    }
}

/* What came later has a stream of its own: a plain run of a seed is what it always was. */
static void draw_ways(struct sim_plan *plan, uint64_t *state)
{
    struct cluster_config *config = &plan->cluster;
    bool all = chance(state, 70);

    if (plan->request.plain)
        return;
    plan->common.seal = chance(state, 30) ? CFSR_SEAL_REQUIRE : CFSR_SEAL_OFF;
    plan->common.rdma_retry_ns = between(state, 1, 10) * SECOND * NS;
    config->rdma_transport = chance(state, 70) ? &cfsr_transport_sim_messages : NULL;
    if (!chance(state, 50))
        return;
    config->rdma_sites = all ? (1u << SITES_MAX) - 1 : (unsigned)below(state, 1u << SITES_MAX);
    for (unsigned kind = KINDS_DRAWN; kind < SIM_FAULT_COUNT; kind++)
        if (chance(state, 50) && (plan->request.faults >> kind & 1) != 0)
            plan->enabled |= 1u << kind;
}

/* Enough to fill batches and, in some runs, segments; not so much that time stands still. */
static void draw_traffic(struct sim_plan *plan, uint64_t *state)
{
    bool heavy = chance(state, 6), big = chance(state, 40);

    for (unsigned i = 0; i < SITES_MAX; i++) {
        struct sim_traffic *traffic = &plan->traffic[i];
        traffic->silent = i > 0 && chance(state, 25);
        traffic->interval_us = ONE_OF(state, 200, 500, 1000, 4000) * MS;
        traffic->entries_max = (uint32_t)ONE_OF(state, 1, 4, 12, 30);
        traffic->bytes_max = (uint32_t)ONE_OF(state, 64, 256, 1024, 4096);
        traffic->big_per_million = big ? (uint32_t)ONE_OF(state, 0, 1000, 5000) : 0;
        traffic->plain = chance(state, 50);
        uint64_t a_minute = 60 * SECOND / traffic->interval_us * traffic->entries_max *
                            traffic->bytes_max / 4;
        uint64_t limit = heavy ? 4 << 20 : 400 << 10;
        if (a_minute > limit)
            traffic->interval_us = traffic->interval_us * a_minute / limit;
    }
    /* Two frames of the largest kind fit; small rings are quicker to make. */
    plan->cluster.recv_ring_bytes = big ? 4 << 20 : 1 << 20;
}

static void draw_fault(struct sim_plan *plan, struct sim_fault *fault, uint64_t *state,
                       const unsigned *kinds, unsigned kind_count)
{
    unsigned sites = plan->cluster.sites;

    fault->kind = (enum sim_fault_kind)kinds[below(state, kind_count)];
    fault->at_us = between(state, 200 * MS, plan->request.run_us);
    fault->for_us = spread(state, 20 * MS, 20 * SECOND);
    fault->site = (unsigned)below(state, sites);
    fault->other = (fault->site + 1 + (unsigned)below(state, sites - 1)) % sites;
    fault->random = sim_random(state);
    fault->skip = false;
    if ((SIM_FAULTS_DAMAGE >> fault->kind & 1) != 0)
        fault->site = plan->damage_site;
}

static int by_time(const void *a, const void *b)
{
    const struct sim_fault *x = a, *y = b;
    if (x->at_us != y->at_us)
        return x->at_us < y->at_us ? -1 : 1;
    return x->random < y->random ? -1 : x->random > y->random;
}

/* What does not go together: one of the two is left out, by a coin of its own. */
static uint32_t exclude(uint32_t enabled, uint64_t *state)
{
    const uint32_t older = 1u << SIM_FAULT_restore | 1u << SIM_FAULT_recycle;

    if ((enabled & older) == 0 || (enabled & SIM_FAULTS_DAMAGE) == 0)
        return enabled;
    return enabled & ~(chance(state, 50) ? older : SIM_FAULTS_DAMAGE);
}

static void draw_faults(struct sim_plan *plan, uint64_t *state, uint64_t *damage)
{
    unsigned kinds[SIM_FAULT_COUNT], kind_count = 0;
    unsigned percent = (unsigned)ONE_OF(state, 15, 30, 60, 100);
    uint64_t a_minute = ONE_OF(state, 1, 3, 6, 12, 20), count;

    for (unsigned kind = 0; kind < KINDS_DRAWN; kind++) {
        bool enabled = chance(state, percent); /* drawn for all, allowed or not */
        if (!enabled || (plan->request.faults >> kind & 1) == 0)
            continue;
        plan->enabled |= 1u << kind;
    }
    plan->damage_site = (unsigned)below(damage, plan->cluster.sites);
    plan->enabled = exclude(plan->enabled, damage);
    for (unsigned kind = 0; kind < SIM_FAULT_COUNT; kind++)
        if ((plan->enabled >> kind & 1) != 0)
            kinds[kind_count++] = kind;
    if (kind_count == 0)
        return;
    count = cfsr_max_u64(1, a_minute * plan->request.run_us / (60 * SECOND));
    count = cfsr_min_u64(count, SIM_FAULTS_MAX);
    for (uint64_t i = 0; i < count; i++)
        draw_fault(plan, &plan->fault[plan->fault_count++], state, kinds, kind_count);
    qsort(plan->fault, plan->fault_count, sizeof plan->fault[0], by_time);
}

static void keep_only(struct sim_plan *plan)
{
    for (unsigned i = 0; i < plan->fault_count; i++)
        plan->fault[i].skip = true;
    for (unsigned i = 0; i < plan->request.keep_count; i++)
        if (plan->request.keep[i] < plan->fault_count)
            plan->fault[plan->request.keep[i]].skip = false;
}

static void tune(struct cluster *cluster, struct test_site *site)
{
    const struct sim_plan *plan = cluster->config.user;
    struct cfsr_node_options *to = &site->options;
    const struct cfsr_node_options made = *to;

    *to = plan->common;
    to->site = made.site;
    to->keyring = made.keyring;
    to->peers = made.peers;
    to->peer_count = made.peer_count;
    to->cores = made.cores;
    memcpy(to->session_id, made.session_id, sizeof to->session_id);
    to->codec = plan->codec[site->index];
}

void sim_plan_draw(const struct sim_request *request, struct sim_plan *plan_out)
{
    uint64_t base = request->seed * 0x2545f4914f6cdd1dull;
    uint64_t topology = base ^ 1, options = base ^ 2, traffic = base ^ 3, faults = base ^ 4;
    uint64_t damage = base ^ 5, ways = base ^ 6;

    memset(plan_out, 0, sizeof *plan_out);
    plan_out->request = *request;
    draw_topology(plan_out, &topology);
    draw_options(plan_out, &options);
    draw_traffic(plan_out, &traffic);
    draw_ways(plan_out, &ways);
    draw_faults(plan_out, &faults, &damage);
    plan_out->cluster.may_be_damaged = (plan_out->enabled & SIM_FAULTS_DAMAGE) != 0;
    if (request->keep_given)
        keep_only(plan_out);
    plan_out->audit_every = 97;
    plan_out->cluster.seed = request->seed;
    plan_out->cluster.user = plan_out;
    plan_out->cluster.tune = tune;
}

uint64_t sim_plan_bound_us(const struct sim_plan *plan, uint64_t backlog_bytes)
{
    const struct cluster_config *config = &plan->cluster;
    const struct cfsr_node_options *options = &plan->common;
    uint64_t attempt_us = (options->progress_timeout_ns + options->hello_timeout_ns) / NS +
                          options->backoff_max_ns * 3 / 2 / NS;
    uint64_t latency_us = 0, trip_us, trips;

    for (unsigned i = 0; i < config->sites; i++)
        latency_us = cfsr_max_u64(latency_us, config->disk_latency_us[i]);
    trip_us = 2 * config->delay_max_us + 4 * latency_us + 4 * config->job_delay_us +
              (options->sync_delay_ns + options->batch_timeout_ns) / NS;
    /* The least that moves in a trip: a batch. */
    trips = backlog_bytes / options->batch_bytes + 8;
    if (config->rdma_sites != 0) /* one way fails, then the other; then the first is tried again */
        attempt_us += attempt_us + options->rdma_retry_ns * 3 / 2 / NS;
    return 2 * attempt_us + options->fault_retry_ns / NS + trips * trip_us + 10 * SECOND;
}

/* ---- printing ---- */

void sim_fault_print(const struct sim_fault *fault, unsigned number, FILE *out)
{
    fprintf(out, "  %3u  %9.3f s  %-14s site %u, other %u, %.3f s, %016" PRIx64 "%s\n", number,
            (double)fault->at_us / 1e6, sim_fault_name(fault->kind), fault->site + 1,
            fault->other + 1, (double)fault->for_us / 1e6, fault->random,
            fault->skip ? " (left out)" : "");
}

void sim_plan_print(const struct sim_plan *plan, FILE *out)
{
    const struct cluster_config *c = &plan->cluster;
    const struct cfsr_node_options *o = &plan->common;

    fprintf(out, "seed %" PRIu64 ": %u sites, %u lanes, cores", plan->request.seed, c->sites,
            c->lanes);
    for (unsigned i = 0; i < c->sites; i++)
        fprintf(out, " %u/%s", c->cores[i], cfsr_codec_name(plan->codec[i].codec));
    fprintf(out, ", segments %" PRIu64 " MiB%s\n", c->segment_bytes >> 20,
            o->seal == CFSR_SEAL_REQUIRE ? ", sealed" : "");
    if (c->rdma_sites != 0)
        fprintf(out, "  second way (%s): sites %x, tried again after %" PRIu64 " s\n",
                c->rdma_transport != NULL ? "messages" : "bytes", c->rdma_sites,
                o->rdma_retry_ns / (uint64_t)(NS * SECOND));
    fprintf(out,
            "  network %" PRIu64 "-%" PRIu64 " us in %u B, jobs %" PRIu64
            " us; batch %u B/%u/%" PRIu64 " ms, window %" PRIu64 " B, sync %" PRIu64 " B/%" PRIu64
            " ms\n",
            c->delay_min_us, c->delay_max_us, c->chunk_max_bytes, c->job_delay_us, o->batch_bytes,
            o->batch_entries, o->batch_timeout_ns / 1000000, o->window_bytes, o->sync_bytes,
            o->sync_delay_ns / 1000000);
    fprintf(out,
            "  heartbeat %" PRIu64 " ms, progress %" PRIu64 " ms, hello %" PRIu64
            " ms, back-off %" PRIu64 "-%" PRIu64 " ms, fault retry %" PRIu64 " ms%s%s\n",
            o->heartbeat_ns / 1000000, o->progress_timeout_ns / 1000000,
            o->hello_timeout_ns / 1000000, o->backoff_min_ns / 1000000, o->backoff_max_ns / 1000000,
            o->fault_retry_ns / 1000000, o->journal_direct ? ", direct journal" : "",
            o->inbox_direct ? ", direct inbox" : "");
    for (unsigned i = 0; i < plan->fault_count; i++)
        sim_fault_print(&plan->fault[i], i, out);
}
