/*
 * check.c - what must hold at every step (run.h).
 *
 * Thread:     one.
 * Invariants: reads the cores' state as it is, without asking them; changes nothing of the run. A
 *             check costs a few comparisons for each link and lane of the sites that had a turn.
 * Rejected:   reading everything through status snapshots (a hundred times dearer; they are
 *             compared with what is looked at here now and then).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "node/internal.h"
#include "run.h"

/* Steps between two looks through the status snapshot. */
#define STATUS_EVERY 256

void sim_check_begin(struct sim_run *run)
{
    memset(&run->model, 0, sizeof run->model);
    memset(run->model.damaged.floor, 0xff, sizeof run->model.damaged.floor);
}

/* ---- at a start ---- */

void sim_check_journal(void *user, struct test_site *site, uint32_t lane)
{
    struct sim_run *run = user;
    uint64_t *committed = &run->model.committed[site->index][lane];
    uint64_t head = origin_head(site->origin[lane]);

    uint64_t found = origin_found(site->origin[lane]);

    bool rewound = (run->model.rewound[site->index] >> lane & 1) != 0;

    run->model.rewound[site->index] &= ~(1ull << lane);
    CHECK(&run->cluster, found >= *committed || rewound, "source-durable",
          "site %u lane %u: %" PRIu64 " bytes were committed, %" PRIu64 " are there after recovery",
          site->index + 1, lane, *committed, found);
    *committed = rewound ? head : cfsr_max_u64(*committed, head);
}

/* An opening that failed half way may have proven more than was promised. */
void sim_check_served(void *user, struct test_site *site, uint32_t lane)
{
    struct sim_run *run = user;
    uint64_t *committed = &run->model.committed[site->index][lane];

    *committed = cfsr_max_u64(*committed, site->published[lane]);
}

static const struct cfsr_inbox_cursor *cursor_of(const struct cfsr_inbox_state *state,
                                                 uint64_t site_id)
{
    for (uint32_t i = 0; i < state->origins; i++)
        if (state->cursor[i].site_id == site_id)
            return &state->cursor[i];
    return NULL;
}

void sim_check_inbox(void *user, struct test_site *site, uint32_t lane,
                     const struct cfsr_inbox_state *state)
{
    struct sim_run *run = user;
    struct sim_model *model = &run->model;

    for (unsigned from = 0; from < run->cluster.config.sites; from++) {
        const struct cfsr_inbox_cursor *cursor = cursor_of(state, from + 1);
        uint64_t *durable = &model->durable[site->index][from][lane];
        uint64_t *acked = &model->acked[from][site->index][lane];
        uint64_t lsn = cursor != NULL ? cursor->lsn : 0;
        if (from == site->index)
            continue;
        if ((model->restored[site->index] >> lane & 1) != 0) {
            model->expect_alarm[from][site->index] |= lsn < *acked;
            *acked = cfsr_min_u64(*acked, lsn);
            *durable = lsn;
            continue;
        }
        if (sim_damage_excuses(run, site->index, from, lane, lsn))
            continue;
        CHECK(&run->cluster, lsn >= *acked, "acked-durable",
              "site %u lane %u of site %u: acknowledged to %" PRIu64 ", after the start %" PRIu64,
              site->index + 1, lane, from + 1, *acked, lsn);
        CHECK(&run->cluster, lsn >= *durable, "cursor-back",
              "site %u lane %u of site %u: durable to %" PRIu64 ", after the start %" PRIu64,
              site->index + 1, lane, from + 1, *durable, lsn);
        *durable = lsn;
    }
    model->restored[site->index] &= ~(1ull << lane); /* what is lost is known */
}

uint64_t sim_committed_sum(const struct sim_run *run, unsigned site)
{
    uint64_t sum = 0;
    for (uint32_t lane = 0; lane < run->cluster.config.lanes; lane++)
        sum += run->model.committed[site][lane];
    return sum;
}

/* Without a connection a sender has to ask anew: nothing of an older one can reach it any more. */
static bool asks_anew(const struct cfsr_sender *sender)
{
    return sender->state == CFSR_SENDER_BACKOFF || sender->state == CFSR_SENDER_DIALING ||
           sender->state == CFSR_SENDER_STOPPED;
}

static uint64_t stale_lanes_of(const struct sim_run *run, unsigned from, uint32_t core,
                               uint32_t index)
{
    const struct sim_stale *stale = &run->model.stale[from][core][index];
    const struct node_link *link = &run->cluster.site[from].core[core]->links[index];

    return link->in_use && link->attempt == stale->attempt ? stale->lanes : 0;
}

/* Lanes whose sender has not yet heard that `to` went back. */
static uint64_t stale_lanes(const struct sim_run *run, unsigned from, unsigned to)
{
    const struct test_site *site = &run->cluster.site[from];
    uint64_t lanes = 0;

    for (uint32_t number = 0; site->up && number < site->cores; number++)
        for (uint32_t k = 0; k < site->core[number]->link_count; k++)
            if (site->core[number]->links[k].sender.options.peer_site_id == to + 1)
                lanes |= stale_lanes_of(run, from, number, k);
    return lanes;
}

void sim_check_went_back(struct sim_run *run, unsigned from, unsigned to, uint64_t lanes)
{
    const struct test_site *site = &run->cluster.site[from];

    for (uint32_t number = 0; site->up && number < site->cores; number++) {
        const struct cfsr_node_core *core = site->core[number];
        CFSR_ASSERT(core->link_count <= SIM_LINKS_MAX);
        for (uint32_t k = 0; k < core->link_count; k++) {
            const struct node_link *link = &core->links[k];
            struct sim_stale *stale = &run->model.stale[from][number][k];
            if (!link->in_use || link->sender.options.peer_site_id != to + 1 ||
                asks_anew(&link->sender))
                continue;
            if (stale->attempt != link->attempt)
                *stale = (struct sim_stale){.attempt = link->attempt};
            stale->lanes |= link->sender.options.lane_mask & lanes;
        }
    }
}

void sim_check_restored(struct sim_run *run, unsigned site, bool forked)
{
    struct sim_model *model = &run->model;

    model->restored[site] = UINT64_MAX;
    /* A sender that dials now hears of the older copy, and may be connected before it is looked at
     * again. */
    for (unsigned from = 0; from < run->cluster.config.sites; from++)
        sim_check_went_back(run, from, site, UINT64_MAX);
    if (!forked)
        return;
    /* Peers may hold what it has forgotten; those who do not take what it writes now. */
    model->forked[site] = true;
    model->rewound[site] = UINT64_MAX;
    for (uint32_t lane = 0; lane < run->cluster.config.lanes; lane++) {
        struct origin_truth *truth = &run->cluster.site[site].truth[lane];
        model->before[site][lane] = origin_truth_copy(truth);
        truth->committed_lsn = 0; /* all of it is in doubt: recovery says what the copy holds */
    }
}

void sim_check_end(struct sim_run *run)
{
    for (unsigned site = 0; site < SITES_MAX; site++)
        for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
            origin_truth_fini(&run->model.before[site][lane]);
}

void sim_check_leave(struct sim_run *run, unsigned site)
{
    if (run->cluster.site[site].up)
        run->model.regressions[site] += COUNTER(&run->cluster, site, peer_regressions);
    memset(run->model.stale[site], 0, sizeof run->model.stale[site]); /* its senders begin anew */
    memset(run->model.state[site], 0, sizeof run->model.state[site]);
}

void sim_check_alarms(struct sim_run *run)
{
    for (unsigned from = 0; from < run->cluster.config.sites; from++) {
        uint64_t raised = run->model.regressions[from] +
                          COUNTER(&run->cluster, from, peer_regressions);
        bool expected = false;
        for (unsigned to = 0; to < run->cluster.config.sites; to++)
            expected = expected || (run->model.expect_alarm[from][to] && !run->model.forked[from]);
        CHECK(&run->cluster, !expected || raised > 0, "alarm",
              "a peer of site %u was restored from an older copy, and no alarm was raised",
              from + 1);
        CHECK(&run->cluster, expected || raised == 0 || run->model.forked[from], "alarm",
              "site %u says that a peer went back, and none did", from + 1);
    }
}

/* ---- the inbox ---- */

static void check_store(struct sim_run *run, struct test_site *site, uint32_t lane,
                        const struct cfsr_inbox_lane *inbox)
{
    struct sim_model *model = &run->model;

    for (unsigned from = 0; from < run->cluster.config.sites; from++) {
        int origin = from == site->index ? -1 : cfsr_inbox_lane_find_site(inbox, from + 1);
        if (origin < 0)
            continue;
        uint64_t lsn = cfsr_inbox_lane_durable(inbox, origin)->lsn;
        uint64_t staged = cfsr_inbox_lane_staged(inbox, origin)->lsn;
        uint64_t *durable = &model->durable[site->index][from][lane];
        if (sim_damage_excuses(run, site->index, from, lane, lsn))
            continue;
        CHECK(&run->cluster, lsn >= *durable, "cursor-back",
              "site %u lane %u of site %u: the cursor went from %" PRIu64 " to %" PRIu64,
              site->index + 1, lane, from + 1, *durable, lsn);
        CHECK(&run->cluster, staged >= lsn, "cursor-order",
              "site %u lane %u of site %u: staged %" PRIu64 ", durable %" PRIu64, site->index + 1,
              lane, from + 1, staged, lsn);
        CHECK(&run->cluster, model->forked[from] || staged <= model->committed[from][lane],
              "uncommitted",
              "site %u holds lane %u of site %u to %" PRIu64 ", committed is %" PRIu64,
              site->index + 1, lane, from + 1, staged, model->committed[from][lane]);
        *durable = lsn;
    }
}

/* The disk alone, as a power cut would leave it now, holds what was acknowledged. */
static void audit(struct sim_run *run, unsigned from, unsigned at, uint32_t lane, uint64_t acked)
{
    static struct cfsr_inbox_state state;
    struct test_site *site = &run->cluster.site[at];
    struct cfsr_fs *copy;
    int rc;

    if (sim_damaged_inbox(run, at, lane))
        return; /* what it may lose is known, and looked at when it starts */
    copy = site_copy_disk(&run->cluster, at);
    run->model.audits++;
    cfsr_fs_sim_crash(copy, CFSR_PERSIST_NOTHING);
    memset(&state, 0, sizeof state);
    rc = cfsr_inbox_recover_lane(copy, &site->site, lane, true, &state);
    const struct cfsr_inbox_cursor *cursor = rc == 0 ? cursor_of(&state, from + 1) : NULL;
    cfsr_fs_sim_destroy(copy);
    CHECK(&run->cluster, rc == 0 && cursor != NULL && cursor->lsn >= acked, "acked-durable",
          "site %u acknowledged lane %u of site %u to %" PRIu64 ", its disk holds %" PRIu64 " %s",
          at + 1, lane, from + 1, acked, cursor != NULL ? cursor->lsn : 0,
          rc < 0 ? cfsr_error_message() : "");
}

/* ---- links ---- */

/* An ack that was on its way when the disk went: the site will have lost that too, or has lost it,
 * unless the older copy holds it. */
static void take_late_acks(struct sim_run *run, unsigned from, const struct cfsr_sender *sender,
                           uint64_t lanes)
{
    struct sim_model *model = &run->model;
    unsigned to = (unsigned)sender->options.peer_site_id - 1;

    for (; lanes != 0; lanes &= lanes - 1) {
        uint32_t lane = (uint32_t)__builtin_ctzll(lanes);
        uint64_t *acked = &model->acked[from][to][lane], lsn = sender->lane[lane].acked_lsn;
        if (!sender->lane[lane].known)
            continue;
        model->persisted[from][to][lane] = lsn;
        if ((model->restored[to] >> lane & 1) != 0)
            *acked = cfsr_max_u64(*acked, lsn);
        else
            model->expect_alarm[from][to] |= lsn > model->durable[to][from][lane];
    }
}

static void check_acked(struct sim_run *run, const struct test_site *site, unsigned to,
                        uint32_t lane, const struct cfsr_sender_lane *l)
{
    struct sim_model *model = &run->model;
    unsigned from = site->index;
    uint64_t *acked = &model->acked[from][to][lane];

    CHECK(&run->cluster, l->acked_lsn <= l->next_lsn && l->next_lsn <= l->head_lsn, "window",
          "site %u to %u lane %u: acked %" PRIu64 ", next %" PRIu64 ", head %" PRIu64, from + 1,
          to + 1, lane, l->acked_lsn, l->next_lsn, l->head_lsn);
    CHECK(&run->cluster, l->head_lsn <= model->committed[from][lane], "uncommitted",
          "site %u to %u lane %u: head %" PRIu64 ", committed %" PRIu64, from + 1, to + 1, lane,
          l->head_lsn, model->committed[from][lane]);
    model->persisted[from][to][lane] = l->acked_lsn;
    CHECK(&run->cluster, l->acked_lsn <= model->durable[to][from][lane], "acked-durable",
          "site %u believes lane %u durable at site %u to %" PRIu64 ", it is to %" PRIu64, from + 1,
          lane, to + 1, l->acked_lsn, model->durable[to][from][lane]);
    CHECK(&run->cluster, l->acked_lsn >= *acked, "cursor-back",
          "site %u to %u lane %u: acked %" PRIu64 " before, %" PRIu64 " now", from + 1, to + 1,
          lane, *acked, l->acked_lsn);
    if (l->acked_lsn == *acked)
        return;
    *acked = l->acked_lsn;
    if (++model->acks_seen % run->plan->audit_every == 0)
        audit(run, from, to, lane, *acked);
}

static void note_state(struct sim_run *run, unsigned site, uint32_t core, uint32_t index,
                       const struct node_link *link)
{
    uint8_t *before = &run->model.state[site][core][index % 32];
    uint8_t now = (uint8_t)(link->sender.state + 1 + (link->sender.fault != 0 ? 32 : 0));
    const char *reason;

    if (*before == now)
        return;
    *before = now;
    if (link->sender.state != CFSR_SENDER_RUNNING && link->sender.state != CFSR_SENDER_BACKOFF)
        return;
    const char *state = cfsr_link_state_name(cfsr_sender_link_state(&link->sender, &reason));
    sim_note(run, "site %u core %u to site %u core %u: %s %s", site + 1, core,
             (unsigned)link->sender.options.peer_site_id, link->peer_core, state, reason);
}

static void check_caught_up(struct sim_run *run, const struct test_site *site, unsigned to,
                            const struct cfsr_sender *sender)
{
    struct sim_model *model = &run->model;
    uint64_t stale = stale_lanes(run, site->index, to);
    const char *reason;
    enum cfsr_link_state state = cfsr_sender_link_state(sender, &reason);

    CHECK(&run->cluster, state == CFSR_LINK_STREAMING, "caught-up",
          "site %u to %u says it is caught up and %s %s", site->index + 1, to + 1,
          cfsr_link_state_name(state), reason);
    for (uint64_t lanes = sender->options.lane_mask; lanes != 0; lanes &= lanes - 1) {
        uint32_t lane = (uint32_t)__builtin_ctzll(lanes);
        uint64_t committed = model->committed[site->index][lane];
        if ((stale >> lane & 1) != 0 || site->origin[lane] == NULL)
            continue;
        CHECK(&run->cluster,
              sender->lane[lane].acked_lsn == committed &&
                  model->durable[to][site->index][lane] >= committed,
              "caught-up",
              "site %u to %u lane %u says it is caught up at %" PRIu64 "; committed %" PRIu64
              ", durable %" PRIu64,
              site->index + 1, to + 1, lane, sender->lane[lane].acked_lsn, committed,
              model->durable[to][site->index][lane]);
    }
}

static void check_link(struct sim_run *run, const struct test_site *site, uint32_t core,
                       uint32_t index)
{
    const struct node_link *link = &site->core[core]->links[index];
    const struct cfsr_sender *sender = &link->sender;
    uint64_t stale = stale_lanes_of(run, site->index, core, index);
    unsigned to = (unsigned)sender->options.peer_site_id - 1;
    uint64_t window = sender->options.window_bytes;
    bool all = true;

    take_late_acks(run, site->index, sender, stale);
    if (asks_anew(sender))
        run->model.stale[site->index][core][index].lanes = 0;
    if (sender->state != CFSR_SENDER_RUNNING || link->retiring)
        return;
    for (uint64_t lanes = sender->options.lane_mask; lanes != 0; lanes &= lanes - 1) {
        uint32_t lane = (uint32_t)__builtin_ctzll(lanes);
        const struct cfsr_sender_lane *l = &sender->lane[lane];
        if (l->known && (stale >> lane & 1) == 0)
            check_acked(run, site, to, lane, l);
        all = all && l->acked_lsn == l->head_lsn;
    }
    /* The last batch before the window closes may end with a PAD: its filler counts, and takes no
     * memory. */
    uint64_t last = cfsr_max_u64(CFSR_CODEC_INPUT_MAX_BYTES, site->site.segment_bytes);
    CHECK(&run->cluster, sender->in_flight_bytes <= window + last, "memory",
          "site %u to %u: %" PRIu64 " bytes in flight, the window is %" PRIu64, site->index + 1,
          to + 1, sender->in_flight_bytes, window);
    if (all && cfsr_sender_is_caught_up(sender))
        check_caught_up(run, site, to, sender);
}

/* ---- what operators are shown ---- */

static void check_status(struct sim_run *run, const struct test_site *site, uint32_t core)
{
    static struct cfsr_node_status status;
    struct sim_model *model = &run->model;

    cfsr_node_core_status(site->core[core], &status);
    for (uint32_t i = 0; i < status.link_count; i++) {
        const struct cfsr_node_link_status *link = &status.link[i];
        unsigned to = (unsigned)link->peer_site_id - 1;
        uint64_t stale = stale_lanes(run, site->index, to);
        for (uint32_t k = 0; k < link->lane_count; k++) {
            const struct cfsr_node_lane_status *l = &link->lane[k];
            uint64_t committed = model->committed[site->index][l->lane];
            uint64_t durable = model->durable[to][site->index][l->lane];
            if (!l->known || (stale >> l->lane & 1) != 0 || site->origin[l->lane] == NULL)
                continue;
            CHECK(&run->cluster, l->head_lsn - l->acked_lsn >= committed - durable, "lag",
                  "site %u to %u lane %u: lag %" PRIu64 " is reported, it is %" PRIu64,
                  site->index + 1, to + 1, l->lane, l->head_lsn - l->acked_lsn,
                  committed - durable);
        }
    }
    for (uint32_t i = 0; i < status.in_count; i++) {
        const struct cfsr_node_in_status *in = &status.in[i];
        unsigned from = (unsigned)in->site_id - 1;
        CHECK(&run->cluster,
              in->durable_lsn == model->durable[site->index][from][in->lane] || in->failed, "lag",
              "site %u lane %u of site %u: durable to %" PRIu64 " is reported, it is %" PRIu64,
              site->index + 1, in->lane, from + 1, in->durable_lsn,
              model->durable[site->index][from][in->lane]);
        CHECK(&run->cluster,
              model->forked[from] || in->head_lsn <= model->committed[from][in->lane], "lag",
              "site %u lane %u of site %u: a head of %" PRIu64 " is reported, it is %" PRIu64,
              site->index + 1, in->lane, from + 1, in->head_lsn, model->committed[from][in->lane]);
    }
}

void sim_check_step(struct sim_run *run)
{
    struct cluster *cluster = &run->cluster;

    run->checked_steps++;
    for (unsigned i = 0; i < cluster->config.sites; i++) {
        struct test_site *site = &cluster->site[i];
        if (!site->up || !site->turned)
            continue;
        for (uint32_t lane = 0; lane < site->site.lanes; lane++)
            check_store(run, site, lane, site->core[lane % site->cores]->stores[lane]->inbox);
    }
    for (unsigned i = 0; i < cluster->config.sites; i++) {
        struct test_site *site = &cluster->site[i];
        if (!site->up || !site->turned)
            continue;
        run->model.checks++;
        for (uint32_t number = 0; number < site->cores; number++) {
            const struct cfsr_node_core *core = site->core[number];
            for (uint32_t k = 0; k < core->link_count; k++) {
                if (!core->links[k].in_use)
                    continue;
                if (!core->links[k].retiring)
                    note_state(run, i, number, k, &core->links[k]);
                check_link(run, site, number, k);
            }
        }
        if (run->checked_steps % STATUS_EVERY == i)
            check_status(run, site, (uint32_t)(run->checked_steps / STATUS_EVERY % site->cores));
    }
}

/* ---- at rest ---- */

/* What a link may end as, other than STREAMING. */
static bool is_excused(const struct sim_run *run, unsigned from, const char *reason)
{
    return run->model.forked[from] && strcmp(reason, "journal_forked") == 0;
}

static bool has_second_way(const struct sim_run *run, unsigned a, unsigned b)
{
    unsigned both = 1u << a | 1u << b;
    return (run->cluster.config.rdma_sites & both) == both;
}

static bool link_rests(const struct sim_run *run, const struct test_site *site, uint32_t core,
                       const struct node_link *link, char *why, size_t len_bytes)
{
    const char *reason;
    enum cfsr_link_state state = cfsr_sender_link_state(&link->sender, &reason);
    unsigned to = (unsigned)link->sender.options.peer_site_id - 1;
    enum cfsr_path wanted = has_second_way(run, site->index, to) ? CFSR_PATH_RDMA : CFSR_PATH_TCP;

    if (state == CFSR_LINK_STREAMING && link->path != &link->core->env.path[wanted]) {
        snprintf(why, len_bytes, "site %u core %u to site %u core %u is not back on %s",
                 site->index + 1, core, to + 1, link->peer_core, cfsr_path_name(wanted));
        return false;
    }
    if (state == CFSR_LINK_FAULTED && is_excused(run, site->index, reason))
        return true;
    if (state == CFSR_LINK_STREAMING && cfsr_sender_is_caught_up(&link->sender))
        return true;
    snprintf(why, len_bytes, "site %u core %u to site %u core %u is %s %s (%s)", site->index + 1,
             core, (unsigned)link->sender.options.peer_site_id, link->peer_core,
             cfsr_link_state_name(state), reason, link->sender.last_detail);
    return false;
}

static bool site_rests(const struct sim_run *run, const struct test_site *site, char *why,
                       size_t len_bytes)
{
    uint64_t seen[SITES_MAX] = {0}, all = (1ull << site->site.lanes) - 1;

    for (uint32_t number = 0; number < site->cores; number++) {
        const struct cfsr_node_core *core = site->core[number];
        for (uint32_t k = 0; k < core->link_count; k++) {
            const struct node_link *link = &core->links[k];
            if (!link->in_use || link->retiring || link->challenger)
                continue;
            if (!link_rests(run, site, number, link, why, len_bytes))
                return false;
            if (stale_lanes_of(run, site->index, number, k) != 0) {
                snprintf(why, len_bytes, "site %u has not noticed that site %u was restored",
                         site->index + 1, (unsigned)link->sender.options.peer_site_id);
                return false;
            }
            seen[link->sender.options.peer_site_id - 1] |= link->sender.options.lane_mask;
        }
    }
    for (unsigned to = 0; to < run->cluster.config.sites; to++) {
        if (to == site->index || seen[to] == all)
            continue;
        snprintf(why, len_bytes, "site %u has no link to site %u for lanes %" PRIx64,
                 site->index + 1, to + 1, all & ~seen[to]);
        return false;
    }
    return true;
}

bool sim_check_rested(struct sim_run *run, char *why, size_t len_bytes)
{
    for (unsigned i = 0; i < run->cluster.config.sites; i++) {
        const struct test_site *site = &run->cluster.site[i];
        if (!site->up || run->life[i].state != SIM_UP) {
            snprintf(why, len_bytes, "site %u is down: %u starts failed, the last with %d", i + 1,
                     run->life[i].start_failures, (int)site->last_failure);
            return false;
        }
        for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
            if (site->origin[lane] == NULL || origin_failed(site->origin[lane])) {
                snprintf(why, len_bytes, "lane %u of site %u is not open", lane, i + 1);
                return false;
            }
        }
        if (!site_rests(run, site, why, len_bytes))
            return false;
    }
    return true;
}
