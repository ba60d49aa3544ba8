/*
 * run.c - one run: traffic and faults for as long as the plan says, then rest, then verification.
 *
 * Thread:     one.
 * Invariants: everything is decided by the plan and by virtual time; what is random in a run comes
 *             from states that the seed made. Nobody does anything but start what is down: all else
 *             must come right by itself.
 */
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "core/file_sim.h"
#include "journal/acks.h"
#include "node/internal.h"
#include "transport/sim/control.h"

#define MS          1000ull
#define SECOND      1000000ull
#define REOPEN_US   (100 * MS) /* of a failed lane of the service */
#define START_AGAIN SECOND
#define DRAIN_LIMIT (30 * SECOND)

static struct sim_run *current;

struct sim_run *sim_run_current(void)
{
    return current;
}

void sim_note(struct sim_run *run, const char *format, ...)
{
    char *line = run->line[run->lines++ % SIM_TRACE_LINES];
    va_list arguments;
    int len = snprintf(line, SIM_LINE_BYTES, "%12.6f  ", (double)run->cluster.now_us / 1e6);

    va_start(arguments, format);
    (void)vsnprintf(line + len, SIM_LINE_BYTES - (size_t)len, format, arguments);
    va_end(arguments);
    if (run->trace)
        printf("%s\n", line);
}

void sim_run_print_trace(const struct sim_run *run, FILE *out)
{
    uint64_t from = run->lines > SIM_TRACE_LINES ? run->lines - SIM_TRACE_LINES : 0;

    for (uint64_t i = from; i < run->lines; i++)
        fprintf(out, "  %s\n", run->line[i % SIM_TRACE_LINES]);
}

/* ---- sites ---- */

static bool has_failed_origin(const struct test_site *site)
{
    for (uint32_t lane = 0; lane < site->site.lanes; lane++)
        if (site->origin[lane] == NULL || origin_failed(site->origin[lane]))
            return true;
    return false;
}

/* The acked positions as the daemon had them persisted. What a peer holds tells damage of a lane's
 * end from a torn tail. */
static void load_acks(struct sim_run *run, unsigned index)
{
    struct test_site *site = &run->cluster.site[index];
    bool forked = run->model.forked[index];
    static struct cfsr_acks acks;

    memset(&acks, 0, sizeof acks);
    for (uint32_t i = 0; i < site->options.peer_count; i++) {
        uint64_t peer = site->peers[i].site_id, *persisted = run->model.persisted[index][peer - 1];
        struct cfsr_acks_peer *row = cfsr_acks_peer(&acks, peer);

        for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
            site->peers[i].acked_lsn[lane] = forked ? CFSR_LSN_UNKNOWN : persisted[lane];
            row->acked[lane] = persisted[lane];
        }
    }
    if (site->cluster->config.may_be_damaged && !forked &&
        cfsr_acks_store(site->fs, &site->site, &acks) < 0)
        cfsr_error_clear(); /* an older one is safe */
}

static void start_site(struct sim_run *run, unsigned index)
{
    struct sim_life *life = &run->life[index];
    struct test_site *site = &run->cluster.site[index];
    int rc;

    load_acks(run, index);
    life->scrub = 0;
    rc = site_try_start(&run->cluster, index);
    if (rc == 0) {
        sim_note(run, "site %u starts with %u cores", index + 1, site->cores);
        life->state = SIM_UP;
        life->reopen_at_us = has_failed_origin(site) ? run->cluster.now_us : UINT64_MAX;
        return;
    }
    sim_note(run, "site %u does not start: %s", index + 1, cfsr_error_message());
    site->last_failure = (uint64_t)rc;
    life->start_failures++;
    life->at_us = run->cluster.now_us + START_AGAIN;
    CHECK(&run->cluster,
          run->model.damaged.count > 0 || (rc != -CFSR_E_DAMAGED && rc != -CFSR_E_MISSING_SEGMENT),
          "start", "site %u does not start, and nothing damaged it: %s", index + 1,
          cfsr_error_message());
}

static void end_stop(struct sim_run *run, unsigned index)
{
    struct sim_life *life = &run->life[index];

    sim_check_leave(run, index);
    site_end_stop(&run->cluster, index);
    if (life->with_service)
        site_close_service(&run->cluster.site[index]);
    if (life->next_cores != 0)
        run->cluster.site[index].cores = life->next_cores;
    sim_site_down(run, index, life->down_for_us);
}

/* ---- the local service ---- */

static void committed(struct sim_run *run, unsigned index)
{
    struct test_site *site = &run->cluster.site[index];

    for (uint32_t lane = 0; lane < site->site.lanes; lane++)
        if (site->origin[lane] != NULL)
            run->model.committed[index][lane] = cfsr_max_u64(run->model.committed[index][lane],
                                                             origin_head(site->origin[lane]));
    if (run->plan->request.broken != SIM_BREAK_hidden_head || index != 0 ||
        run->cluster.now_us < run->plan->request.run_us / 2)
        site_publish(&run->cluster, index);
}

static void reopen(struct sim_run *run, unsigned index)
{
    struct test_site *site = &run->cluster.site[index];
    int rc;

    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        if (site->origin[lane] == NULL || !origin_failed(site->origin[lane]))
            continue;
        /* The service goes on with its lane, or was restarted by someone. */
        if (sim_random(&run->traffic_state[index]) % 2 == 0 &&
            origin_recut(&site->origin[lane]) == 0) {
            sim_check_journal(run, site, lane);
        } else {
            origin_close(site->origin[lane]);
            site->origin[lane] = NULL;
        }
    }
    rc = site_open_service(site);
    sim_note(run, "site %u opens its journal again: %s", index + 1,
             rc < 0 ? cfsr_error_message() : "done");
    run->life[index].reopen_at_us = rc < 0 ? run->cluster.now_us + START_AGAIN : UINT64_MAX;
    committed(run, index);
}

static void append_some(struct sim_run *run, unsigned index)
{
    struct test_site *site = &run->cluster.site[index];
    const struct sim_traffic *traffic = &run->plan->traffic[index];
    uint64_t *state = &run->traffic_state[index];
    uint32_t count = 1 + (uint32_t)(sim_random(state) % traffic->entries_max);
    uint64_t touched = 0;

    site->clock.wall_us = site_wall_us(site);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t salt = sim_random(state);
        uint32_t lane = (uint32_t)(salt % site->site.lanes);
        bool big = sim_random(state) % 1000000 < traffic->big_per_million;
        uint32_t bytes = (uint32_t)(sim_random(state) % (big ? 1 << 20 : traffic->bytes_max + 1));
        struct origin *origin = site->origin[lane];
        if (origin == NULL || origin_append(origin, bytes, salt >> 8, traffic->plain) < 0)
            continue;
        touched |= 1ull << lane;
        run->totals.entries++;
        run->totals.bytes += bytes;
    }
    for (uint32_t lane = 0; lane < site->site.lanes; lane++)
        if ((touched >> lane & 1) != 0)
            (void)origin_commit(site->origin[lane]);
    committed(run, index);
    if (has_failed_origin(site) && run->life[index].reopen_at_us == UINT64_MAX)
        run->life[index].reopen_at_us = run->cluster.now_us + REOPEN_US;
}

static void traffic_of(struct sim_run *run, unsigned index)
{
    const struct sim_traffic *traffic = &run->plan->traffic[index];
    struct sim_life *life = &run->life[index];
    uint64_t pause_us = traffic->interval_us / 2 +
                        sim_random(&run->traffic_state[index]) % (traffic->interval_us + 1);

    life->next_traffic_us = run->cluster.now_us + pause_us;
    append_some(run, index); /* the service may live while the daemon does not */
}

/* ---- what is due ---- */

static uint64_t next_event_us(const struct sim_run *run)
{
    uint64_t due_us = run->cluster.now_us + SECOND;

    if (run->next_fault < run->plan->fault_count && !run->ending)
        due_us = cfsr_min_u64(due_us, run->plan->fault[run->next_fault].at_us);
    for (unsigned i = 0; i < run->heal_count; i++)
        due_us = cfsr_min_u64(due_us, run->heal[i].at_us);
    for (unsigned i = 0; i < run->cluster.config.sites; i++) {
        const struct sim_life *life = &run->life[i];
        if (!run->plan->traffic[i].silent && !run->ending)
            due_us = cfsr_min_u64(due_us, life->next_traffic_us);
        if (life->state == SIM_DOWN)
            due_us = cfsr_min_u64(due_us, life->at_us);
        if (life->state == SIM_UP)
            due_us = cfsr_min_u64(due_us, life->reopen_at_us);
    }
    return due_us;
}

static void run_faults(struct sim_run *run)
{
    uint64_t now_us = run->cluster.now_us;

    while (!run->ending && run->next_fault < run->plan->fault_count &&
           run->plan->fault[run->next_fault].at_us <= now_us) {
        if (!run->plan->fault[run->next_fault].skip)
            sim_fault_begin(run, run->next_fault);
        run->next_fault++;
    }
    for (unsigned i = 0; i < run->heal_count;) {
        struct sim_heal heal = run->heal[i];
        if (heal.at_us > now_us) {
            i++;
            continue;
        }
        run->heal[i] = run->heal[--run->heal_count];
        sim_fault_heal(run, &heal);
    }
}

static void run_site(struct sim_run *run, unsigned index)
{
    struct sim_life *life = &run->life[index];
    uint64_t now_us = run->cluster.now_us;

    if (life->state == SIM_STOPPING) {
        CHECK(&run->cluster, now_us < life->at_us + DRAIN_LIMIT, "drain",
              "site %u does not come to an end", index + 1);
        if (site_is_drained(&run->cluster.site[index]))
            end_stop(run, index);
    }
    if (life->state == SIM_DOWN && life->at_us <= now_us)
        start_site(run, index);
    if (life->state == SIM_UP && life->reopen_at_us <= now_us)
        reopen(run, index);
    if (!run->ending && !run->plan->traffic[index].silent && life->next_traffic_us <= now_us)
        traffic_of(run, index);
}

static void advance(struct sim_run *run, uint64_t limit_us)
{
    run_faults(run);
    for (unsigned i = 0; i < run->cluster.config.sites; i++)
        run_site(run, i);
    cluster_step_to(&run->cluster, cfsr_min_u64(limit_us, next_event_us(run)));
    sim_check_step(run);
}

/* ---- the run ---- */

static void prepare(struct sim_run *run, struct sim_plan *plan, bool trace)
{
    memset(run, 0, sizeof *run);
    current = run;
    run->plan = plan;
    run->trace = trace;
    for (unsigned i = 0; i < SITES_MAX; i++) {
        run->traffic_state[i] = plan->request.seed * 977 + i;
        run->life[i].reopen_at_us = UINT64_MAX;
        run->life[i].next_traffic_us = 100 * MS + i * 7 * MS;
    }
    sim_check_begin(run);
    run->cluster.watch = (struct cluster_watch){
        .user = run,
        .journal_opened = sim_check_journal,
        .journal_served = sim_check_served,
        .inbox_recovered = sim_check_inbox,
    };
    cluster_make(&run->cluster, &plan->cluster);
    if ((plan->enabled & SIM_FAULTS_DAMAGE) != 0)
        cfsr_fs_sim_keep_stale(run->cluster.site[plan->damage_site].fs, true);
    for (unsigned i = 0; i < plan->cluster.sites; i++)
        committed(run, i);
}

static uint64_t backlog_bytes(const struct sim_run *run)
{
    uint64_t most = 0;

    for (unsigned from = 0; from < run->cluster.config.sites; from++) {
        for (unsigned to = 0; to < run->cluster.config.sites; to++) {
            uint64_t behind = 0;
            for (uint32_t lane = 0; from != to && lane < run->cluster.config.lanes; lane++)
                behind += run->model.committed[from][lane] -
                          cfsr_min_u64(run->model.durable[to][from][lane],
                                       run->model.committed[from][lane]);
            most += behind;
        }
    }
    return most;
}

/* No more faults, no more traffic: everything must arrive within the bound. */
static void come_to_rest(struct sim_run *run)
{
    char why[256] = "nothing was looked at";
    uint64_t from_us = run->cluster.now_us;

    run->ending = true;
    sim_fault_end_all(run);
    uint64_t bound_us = sim_plan_bound_us(run->plan, backlog_bytes(run));
    if (run->model.damaged.count > 0)
        bound_us = 3 * bound_us + 120 * SECOND + run->model.damaged.count * 5 * SECOND;
    while (!sim_damage_mended(run, why, sizeof why) || !sim_check_rested(run, why, sizeof why)) {
        CHECK(&run->cluster, run->cluster.now_us < from_us + bound_us, "liveness",
              "%.3f s after the last fault: %s", (double)bound_us / 1e6, why);
        advance(run, from_us + bound_us);
    }
    run->totals.liveness_us += run->cluster.now_us - from_us;
}

static void add_up(struct sim_run *run)
{
    struct sim_totals *totals = &run->totals;
    const struct cluster *cluster = &run->cluster;

    totals->runs++;
    totals->simulated_us += cluster->now_us;
    totals->steps += cluster->steps;
    totals->turns += cluster->turns;
    totals->spins += cluster->spins;
    totals->deliveries += cfsr_sim_network_deliveries(cluster->network);
    for (unsigned i = 0; i < cluster->config.sites; i++)
        totals->disk_ops += cfsr_fs_sim_op_count(cluster->site[i].fs);
    totals->checks += run->model.checks;
    totals->audits += run->model.audits;
}

static uint64_t last_digest;

uint64_t sim_run_digest(const struct sim_run *run)
{
    (void)run;
    return last_digest;
}

static void take_digest(const struct sim_run *run)
{
    const struct cluster *cluster = &run->cluster;
    uint64_t digest = cluster->digest ^ cfsr_sim_network_digest(cluster->network);

    for (unsigned i = 0; i < cluster->config.sites; i++) {
        for (uint32_t lane = 0; lane < cluster->config.lanes; lane++) {
            digest = (digest ^ origin_head(cluster->site[i].origin[lane])) * 0x9e3779b97f4a7c15ull;
            digest ^= digest >> 32;
        }
        digest += cfsr_fs_sim_op_count(cluster->site[i].fs);
    }
    last_digest = digest;
}

void sim_run(struct sim_run *run, struct sim_plan *plan, bool trace)
{
    prepare(run, plan, trace);
    while (run->cluster.now_us < plan->request.run_us)
        advance(run, plan->request.run_us);
    come_to_rest(run);
    sim_check_alarms(run);
    CHECK(&run->cluster, run->cluster.spins <= 100 + run->cluster.steps / 20, "spin",
          "%" PRIu64 " of %" PRIu64 " steps had a deadline behind them and nothing to do",
          run->cluster.spins, run->cluster.steps);
    sim_verify(run);
    take_digest(run);
    add_up(run);
    cluster_drop(&run->cluster);
    for (unsigned i = 0; i < SITES_MAX; i++)
        cfsr_fs_sim_destroy(run->old_disk[i]);
    sim_check_end(run);
    current = NULL;
}
