/*
 * fault.c - what a run's faults do, and how they end (run.h).
 *
 * Thread:     one.
 * Invariants: faults of one kind may overlap: what several hold is let go by the last; a fault
 * draws only from its own number, so that leaving others out does not change it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "core/file_sim.h"
#include "run.h"
#include "transport/sim/control.h"

#define MS     1000ull
#define SECOND 1000000ull
#define HOUR   (3600 * SECOND)
#define YEARS  (10 * 365 * 24 * HOUR)

static struct test_site *site_of(struct sim_run *run, unsigned index)
{
    return &run->cluster.site[index];
}

static void heal_at(struct sim_run *run, uint64_t at_us, unsigned fault, unsigned stage)
{
    if (run->heal_count == SIM_HEALS_MAX)
        return; /* the end of all faults heals it */
    run->heal[run->heal_count++] = (struct sim_heal){at_us, fault, stage};
}

/* ---- sites ---- */

void sim_site_down(struct sim_run *run, unsigned index, uint64_t for_us)
{
    run->life[index].state = SIM_DOWN;
    run->life[index].at_us = run->cluster.now_us + for_us;
    run->life[index].reopen_at_us = UINT64_MAX;
}

static void crash(struct sim_run *run, unsigned index, uint64_t random, uint64_t for_us)
{
    enum cfsr_persistence model = (enum cfsr_persistence)(random % 4);
    struct test_site *site = site_of(run, index);

    if (run->life[index].state == SIM_DOWN) {
        site_crash(&run->cluster, index,
                   model); /* its disk, and a service that outlived the daemon */
        return;
    }
    if (run->plan->request.broken == SIM_BREAK_ack_written)
        model = CFSR_PERSIST_NOTHING;
    sim_note(run, "site %u loses power, persistence %u", index + 1, (unsigned)model);
    sim_check_leave(run, index);
    site_crash(&run->cluster, index, model);
    if (random >> 8 & 1)
        site->cores = 1 + (uint32_t)((random >> 9) % cfsr_min_u64(4, site->site.lanes));
    sim_site_down(run, index, for_us);
}

static void restart(struct sim_run *run, const struct sim_fault *fault)
{
    struct sim_life *life = &run->life[fault->site];

    if (life->state != SIM_UP)
        return;
    sim_note(run, "site %u stops", fault->site + 1);
    life->state = SIM_STOPPING;
    life->at_us = run->cluster.now_us;
    life->down_for_us = fault->for_us / 8;
    life->with_service = (fault->random & 1) != 0;
    life->next_cores = 1 + (uint32_t)((fault->random >> 9) %
                                      cfsr_min_u64(4, run->cluster.config.lanes));
    site_begin_stop(&run->cluster, fault->site);
}

static void put_back(struct sim_run *run, unsigned index, bool expected)
{
    struct test_site *site = site_of(run, index);
    struct cfsr_fs *copy = run->old_disk[index];

    if (copy == NULL)
        return;
    run->old_disk[index] = NULL;
    if (expected)
        sim_check_restored(run, index, run->old_committed[index] != sim_committed_sum(run, index));
    crash(run, index, 1, SECOND / 10);
    cfsr_fs_sim_destroy(site->fs);
    site->fs = copy;
    cfsr_fs_sim_advance(copy, run->cluster.now_us);
    cfsr_fs_sim_set_capacity(copy, run->full_disks[index] > 0 ? 0 : 4ull << 30);
    cfsr_fs_sim_set_latency(copy, run->plan->cluster.disk_latency_us[index]);
    cfsr_fs_sim_set_sync_failures(copy, 0, CFSR_SYNC_FAILURE_EITHER);
    sim_note(run, "site %u goes on on an older copy of its disk", index + 1);
}

static void copy_disk(struct sim_run *run, unsigned index)
{
    if (run->old_disk[index] != NULL || run->model.forked[index])
        return; /* two histories of a site are enough */
    run->old_disk[index] = site_copy_disk(&run->cluster, index);
    run->old_committed[index] = sim_committed_sum(run, index);
    cfsr_fs_sim_crash(run->old_disk[index], CFSR_PERSIST_EVERYTHING);
}

/* ---- disks ---- */

static void set_space(struct sim_run *run, unsigned index, bool full)
{
    run->full_disks[index] += full ? 1 : (uint64_t)-1;
    cfsr_fs_sim_set_capacity(site_of(run, index)->fs, run->full_disks[index] > 0 ? 0 : 4ull << 30);
}

static void set_speed(struct sim_run *run, unsigned index, uint64_t factor)
{
    uint64_t latency_us = run->plan->cluster.disk_latency_us[index];

    run->slow_disks[index] += factor > 1 ? 1 : (uint64_t)-1;
    if (run->slow_disks[index] > 0 && factor == 1)
        return;
    cfsr_fs_sim_set_latency(site_of(run, index)->fs, cfsr_min_u64(latency_us * factor, 2 * SECOND));
}

/* Retention: what every site has may go, but for the record below a cursor, which a handshake
 * compares. The product's own (journal/gc.h) keeps a segment more. */
static void recycle(struct sim_run *run, unsigned index)
{
    struct test_site *site = site_of(run, index);

    if (run->life[index].state == SIM_DOWN || run->model.forked[index] ||
        (run->plan->enabled >> SIM_FAULT_restore & 1) != 0)
        return;
    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        struct origin *origin = site->origin[lane];
        if (origin == NULL || origin_failed(origin))
            continue;
        uint64_t end = origin_lowest(origin) + site->site.segment_bytes;
        bool everywhere = true;
        for (unsigned to = 0; to < run->cluster.config.sites; to++)
            everywhere = everywhere && (to == index || run->model.acked[index][to][lane] > end);
        if (everywhere && origin_recycle_lowest(origin) == 0)
            sim_note(run, "site %u lane %u gives up its segment below %llu", index + 1, lane,
                     (unsigned long long)end);
    }
}

/* ---- network ---- */

/* Both ways are blocked by what separates two sites; the second also by itself. */
static void apply_block(struct sim_run *run, unsigned from, unsigned to)
{
    const struct test_site *a = site_of(run, from), *b = site_of(run, to);

    cfsr_sim_network_partition(run->cluster.network, site_host(a), site_host(b),
                               run->blocked[from][to] > 0);
    cfsr_sim_network_partition(run->cluster.network, site_rdma_host(a), site_rdma_host(b),
                               run->blocked[from][to] + run->rdma_blocked[from][to] > 0);
}

static void block(struct sim_run *run, unsigned from, unsigned to, bool blocked)
{
    unsigned *holders = &run->blocked[from][to];

    *holders += blocked ? 1 : (unsigned)-1;
    apply_block(run, from, to);
}

static void block_both(struct sim_run *run, const struct sim_fault *fault, bool blocked)
{
    block(run, fault->site, fault->other, blocked);
    block(run, fault->other, fault->site, blocked);
}

/* Connections that hang, of both ways; 0, 0: no more. */
static void hold(struct sim_run *run, const struct test_site *a, const struct test_site *b,
                 unsigned every, unsigned first)
{
    (void)cfsr_sim_network_hold(run->cluster.network, site_host(a), site_host(b), every, first);
    (void)cfsr_sim_network_hold(run->cluster.network, site_rdma_host(a), site_rdma_host(b), every,
                                first);
}

/* A network in which the packets go nowhere, or a site that takes no such connection. */
static void rdma_down(struct sim_run *run, const struct sim_fault *fault, bool down)
{
    struct test_site *site = site_of(run, fault->site);
    unsigned step = down ? 1 : (unsigned)-1;

    if ((fault->random & 1) == 0) {
        run->rdma_blocked[fault->site][fault->other] += step;
        run->rdma_blocked[fault->other][fault->site] += step;
        apply_block(run, fault->site, fault->other);
        apply_block(run, fault->other, fault->site);
        return;
    }
    run->rdma_refused[fault->site] += step;
    site->rdma_refuses = run->rdma_refused[fault->site] > 0;
    if (site->up && !site->draining)
        site_listen_rdma(site, true);
}

static void isolate(struct sim_run *run, unsigned index, bool blocked)
{
    for (unsigned i = 0; i < run->cluster.config.sites; i++) {
        if (i == index)
            continue;
        block(run, index, i, blocked);
        block(run, i, index, blocked);
    }
}

/* The step-th of a random order of the sites. */
static unsigned nth_of_order(unsigned sites, uint64_t random, unsigned step)
{
    unsigned order[SITES_MAX] = {0, 1, 2, 3, 4};

    for (unsigned i = sites; i > 1; i--) {
        unsigned j = (unsigned)(sim_random(&random) % i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
    return order[step];
}

static void swizzle(struct sim_run *run, const struct sim_fault *fault, unsigned number,
                    unsigned stage)
{
    unsigned sites = run->cluster.config.sites;

    if (stage < sites)
        isolate(run, nth_of_order(sites, fault->random, stage), true);
    else
        isolate(run, nth_of_order(sites, fault->random + 1, stage - sites), false);
    if (stage + 1 < 2 * sites)
        heal_at(run, run->cluster.now_us + fault->for_us / (2 * sites) + 1, number, stage + 1);
}

static void set_delays(struct sim_run *run)
{
    const struct cluster_config *config = &run->plan->cluster;

    if (run->delays == 0)
        cfsr_sim_network_set_delay(run->cluster.network, config->delay_min_us,
                                   config->delay_max_us);
}

/* ---- clocks ---- */

static void set_clock(struct sim_run *run, unsigned index, int64_t jump_us, int32_t drift_ppm,
                      bool frozen)
{
    struct test_site *site = site_of(run, index);
    uint64_t wall_us = site_wall_us(site);

    site->wall = (struct cluster_clock){
        .since_us = run->cluster.now_us,
        .wall_us = wall_us + (uint64_t)jump_us,
        .drift_ppm = drift_ppm,
        .frozen = frozen,
    };
    site->dirty = site->up;
}

static int64_t jump_of(uint64_t random)
{
    static const uint64_t jumps[] = {HOUR, YEARS, 50 * MS, 3 * SECOND};
    uint64_t jump = jumps[random % 4];
    return (random >> 4 & 1) != 0 ? (int64_t)jump : -(int64_t)jump;
}

/* ---- the table ---- */

static bool begin_at_site(struct sim_run *run, const struct sim_fault *fault)
{
    struct cfsr_fs *fs = site_of(run, fault->site)->fs;
    unsigned sites = run->cluster.config.sites;

    switch (fault->kind) {
    case SIM_FAULT_crash: crash(run, fault->site, fault->random, fault->for_us / 2); break;
    case SIM_FAULT_fleet:
        for (unsigned i = 0; i < sites; i++)
            crash(run, i, fault->random >> i * 8, fault->for_us / (2 + i));
        break;
    case SIM_FAULT_restart: restart(run, fault); break;
    case SIM_FAULT_sync_error: cfsr_fs_sim_fail_nth(fs, 1 + fault->random % 12, -EIO); break;
    case SIM_FAULT_bad_disk:
        cfsr_fs_sim_set_sync_failures(fs, 5000u << fault->random % 6, CFSR_SYNC_FAILURE_EITHER);
        break;
    case SIM_FAULT_full_disk: set_space(run, fault->site, true); break;
    case SIM_FAULT_slow_disk: set_speed(run, fault->site, 10ull << fault->random % 7); break;
    case SIM_FAULT_clock_jump: set_clock(run, fault->site, jump_of(fault->random), 0, false); break;
    case SIM_FAULT_clock_freeze: set_clock(run, fault->site, 0, 0, true); break;
    case SIM_FAULT_clock_drift:
        set_clock(run, fault->site, 0, (fault->random & 1) != 0 ? 10000 : -10000, false);
        break;
    case SIM_FAULT_recycle: recycle(run, fault->site); break;
    case SIM_FAULT_restore: copy_disk(run, fault->site); break;
    case SIM_FAULT_bit_flip:
    case SIM_FAULT_zero_sector:
    case SIM_FAULT_stale_sector:
    case SIM_FAULT_misdirect:
    case SIM_FAULT_read_error: sim_damage(run, fault); break;
    default: return false;
    }
    return true;
}

static void begin_in_network(struct sim_run *run, const struct sim_fault *fault, unsigned number)
{
    struct cfsr_sim_network *network = run->cluster.network;
    const struct test_site *a = site_of(run, fault->site), *b = site_of(run, fault->other);
    uint64_t random = fault->random;

    switch (fault->kind) {
    case SIM_FAULT_cut:
        (void)cfsr_sim_network_cut(network, site_host(a), site_host(b));
        (void)cfsr_sim_network_cut(network, site_rdma_host(a), site_rdma_host(b));
        break;
    case SIM_FAULT_rdma_cut:
        (void)cfsr_sim_network_cut(network, site_rdma_host(a), site_rdma_host(b));
        break;
    case SIM_FAULT_rdma_down: rdma_down(run, fault, true); break;
    case SIM_FAULT_cuts:
        run->cuts++;
        cfsr_sim_network_set_cuts(network, 1000u << random % 7);
        break;
    case SIM_FAULT_partition: block_both(run, fault, true); break;
    case SIM_FAULT_one_way: block(run, fault->site, fault->other, true); break;
    case SIM_FAULT_lane_partition:
        hold(run, a, b, 2 + (unsigned)(random % 2), (unsigned)(random >> 8) % 2);
        break;
    case SIM_FAULT_flapping:
        block_both(run, fault, true);
        heal_at(run, run->cluster.now_us + SECOND / 2, number, 1);
        break;
    case SIM_FAULT_swizzle: swizzle(run, fault, number, 0); break;
    case SIM_FAULT_delay:
        run->delays++;
        cfsr_sim_network_set_delay(network, 20 * MS << random % 5, 2 * SECOND);
        break;
    case SIM_FAULT_reorder:
        run->delays++;
        cfsr_sim_network_set_delay(network, 50, 50 * MS << random % 4);
        break;
    case SIM_FAULT_wire_flip:
        (void)cfsr_sim_network_inject(network, random, CFSR_INJECT_FLIP_BIT);
        break;
    case SIM_FAULT_stall:
        (void)cfsr_sim_network_inject(network, random, CFSR_INJECT_STALL_RECV);
        break;
    case SIM_FAULT_replay:
        (void)cfsr_sim_network_replay(network, random,
                                      (random >> 32 & 1) != 0 ? UINT32_MAX
                                                              : (uint32_t)(random >> 33) % 1024);
        break;
    default: break;
    }
}

/* Kinds that end by themselves, at once or in stages of their own. */
static bool has_end(enum sim_fault_kind kind)
{
    return (SIM_FAULTS_DAMAGE >> kind & 1) == 0 && kind != SIM_FAULT_crash &&
           kind != SIM_FAULT_fleet && kind != SIM_FAULT_restart && kind != SIM_FAULT_cut &&
           kind != SIM_FAULT_rdma_cut && kind != SIM_FAULT_wire_flip && kind != SIM_FAULT_replay &&
           kind != SIM_FAULT_clock_jump && kind != SIM_FAULT_recycle && kind != SIM_FAULT_swizzle &&
           kind != SIM_FAULT_flapping;
}

void sim_fault_begin(struct sim_run *run, unsigned number)
{
    const struct sim_fault *fault = &run->plan->fault[number];

    sim_note(run, "fault %u: %s, site %u, other %u, %.3f s", number, sim_fault_name(fault->kind),
             fault->site + 1, fault->other + 1, (double)fault->for_us / 1e6);
    run->totals.faults[fault->kind]++;
    if (!begin_at_site(run, fault))
        begin_in_network(run, fault, number);
    if (has_end(fault->kind))
        heal_at(run, run->cluster.now_us + fault->for_us, number, 0);
}

static void heal_flapping(struct sim_run *run, const struct sim_fault *fault, unsigned number,
                          unsigned stage)
{
    block_both(run, fault, stage % 2 == 0);
    if (stage % 2 == 0 || stage * (SECOND / 2) < fault->for_us)
        heal_at(run, run->cluster.now_us + SECOND / 2, number, stage + 1);
}

void sim_fault_heal(struct sim_run *run, const struct sim_heal *heal)
{
    const struct sim_fault *fault = &run->plan->fault[heal->fault];
    struct cfsr_sim_network *network = run->cluster.network;
    const struct test_site *a = site_of(run, fault->site), *b = site_of(run, fault->other);

    switch (fault->kind) {
    case SIM_FAULT_sync_error: cfsr_fs_sim_fail_nth(site_of(run, fault->site)->fs, 0, 0); break;
    case SIM_FAULT_bad_disk:
        cfsr_fs_sim_set_sync_failures(site_of(run, fault->site)->fs, 0, CFSR_SYNC_FAILURE_EITHER);
        break;
    case SIM_FAULT_full_disk: set_space(run, fault->site, false); break;
    case SIM_FAULT_slow_disk: set_speed(run, fault->site, 1); break;
    case SIM_FAULT_clock_freeze:
    case SIM_FAULT_clock_drift: set_clock(run, fault->site, 0, 0, false); break;
    case SIM_FAULT_restore:
        put_back(run, fault->site, run->plan->request.broken != SIM_BREAK_old_disk);
        break;
    case SIM_FAULT_cuts:
        if (--run->cuts == 0)
            cfsr_sim_network_set_cuts(network, 0);
        break;
    case SIM_FAULT_partition: block_both(run, fault, false); break;
    case SIM_FAULT_one_way: block(run, fault->site, fault->other, false); break;
    case SIM_FAULT_lane_partition: hold(run, a, b, 0, 0); break;
    case SIM_FAULT_rdma_down: rdma_down(run, fault, false); break;
    case SIM_FAULT_flapping: heal_flapping(run, fault, heal->fault, heal->stage); break;
    case SIM_FAULT_swizzle: swizzle(run, fault, heal->fault, heal->stage); break;
    case SIM_FAULT_delay:
    case SIM_FAULT_reorder:
        run->delays--;
        set_delays(run);
        break;
    case SIM_FAULT_stall: cfsr_sim_network_resume(network); break;
    default: break;
    }
}

/* A network that is well: nothing blocked, nothing held, the delays and cuts of the plan. */
static void end_network(struct sim_run *run)
{
    unsigned sites = run->cluster.config.sites;
    bool spare_one = run->plan->request.broken == SIM_BREAK_never_heals;

    for (unsigned from = 0; from < sites; from++) {
        for (unsigned to = 0; to < sites; to++) {
            if (from == to)
                continue;
            run->blocked[from][to] = spare_one && from == 0 && to == 1;
            run->rdma_blocked[from][to] = 0;
            apply_block(run, from, to);
            hold(run, site_of(run, from), site_of(run, to), 0, 0);
        }
        run->rdma_refused[from] = 0;
        site_of(run, from)->rdma_refuses = false;
        if (site_of(run, from)->up && !site_of(run, from)->draining)
            site_listen_rdma(site_of(run, from), true);
    }
    run->cuts = run->delays = 0;
    cfsr_sim_network_set_cuts(run->cluster.network, 0);
    set_delays(run);
    cfsr_sim_network_resume(run->cluster.network);
}

void sim_fault_end_all(struct sim_run *run)
{
    sim_note(run, "the faults end");
    run->heal_count = 0;
    end_network(run);
    for (unsigned i = 0; i < run->cluster.config.sites; i++) {
        struct test_site *site = site_of(run, i);
        if (run->old_disk[i] != NULL)
            put_back(run, i, run->plan->request.broken != SIM_BREAK_old_disk);
        run->full_disks[i] = run->slow_disks[i] = 0;
        cfsr_fs_sim_set_capacity(site->fs, 4ull << 30);
        cfsr_fs_sim_set_latency(site->fs, run->plan->cluster.disk_latency_us[i]);
        cfsr_fs_sim_set_sync_failures(site->fs, 0, CFSR_SYNC_FAILURE_EITHER);
        cfsr_fs_sim_fail_nth(site->fs, 0, 0);
        set_clock(run, i, 0, 0, false);
        if (run->life[i].state == SIM_DOWN)
            run->life[i].at_us = run->cluster.now_us;
    }
}
