/*
 * scrub.c - the driver of a core's scrub (repl/scrub.h): its steps become jobs, questions to peers
 * and REPAIR records.
 *
 * Thread:     the core; what reads or writes disks is a job (scrub_job.c).
 * Invariants: one step at a time: while its job runs the job's fields are the helper's; an answer
 * is copied out of the transport before anything else looks at it; what is put into the inbox was
 * verified by the job before.
 */
#include "node/internal.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/log.h"

#define RETRY_DEFAULT_NS 30000000000ull
/* Steps begun in one turn: each is a job or a question, but in a simulator jobs end at once. */
#define STEPS_PER_TURN 4
/* A peer's questions make this site look for damage in a lane at most this often. */
#define SERVED_DAMAGE_NS 60000000000ull

/* ---- what the machine asks ---- */

static bool can_ask(void *user, uint32_t peer, uint32_t lane)
{
    const struct cfsr_node_core *core = user;
    return node_can_ask(core, peer, lane);
}

static uint64_t acked_lsn(void *user, uint32_t peer, uint32_t lane)
{
    const struct cfsr_node_core *core = user;

    for (uint32_t i = 0; i < core->link_count; i++) {
        const struct node_link *link = &core->links[i];
        if (link->in_use && link->peer == peer &&
            (link->sender.options.lane_mask >> lane & 1) != 0 && link->sender.lane[lane].known)
            return link->sender.lane[lane].acked_lsn;
    }
    return 0;
}

/* ---- asked of it ---- */

void node_scrub_damaged(struct cfsr_node_core *core, uint32_t lane, uint64_t lsn)
{
    cfsr_scrub_on_damaged(&core->scrub.machine, lane, lsn);
    core->turn_again = true;
}

void node_scrub_inbox(struct cfsr_node_core *core, uint32_t lane)
{
    const struct cfsr_scrub_request request = {.lane_mask = 1ull << lane,
                                               .parts = CFSR_SCRUB_INBOX,
                                               .rate_bytes_per_s = core->options.scrub_rate};
    cfsr_scrub_ask(&core->scrub.machine, &request);
    core->turn_again = true;
}

void node_scrub_served_damage(struct cfsr_node_core *core, uint32_t lane, bool inbox, uint64_t lsn)
{
    uint64_t *last_ns = &core->scrub.served_ns[lane];

    if (*last_ns != 0 && core->now_ns - *last_ns < SERVED_DAMAGE_NS)
        return;
    *last_ns = core->now_ns;
    cfsr_log(CFSR_LOG_WARN, "damage_suspected", CFSR_U("lane", lane), CFSR_U("lsn", lsn),
             CFSR_S("where", inbox ? "inbox" : "journal"),
             CFSR_S("meaning", "a peer asked for records that are damaged here; the lane is "
                               "checked and repaired"));
    if (inbox)
        node_scrub_inbox(core, lane);
    else
        node_scrub_damaged(core, lane, lsn);
}

void node_scrub_on_peer(struct cfsr_node_core *core)
{
    cfsr_scrub_on_peer(&core->scrub.machine, core->now_ns);
}

void cfsr_node_core_scrub(struct cfsr_node_core *core, const struct cfsr_scrub_request *request)
{
    cfsr_scrub_ask(&core->scrub.machine, request);
    core->turn_again = true;
}

/* ---- answers ---- */

/* Copies what the transport shows. -CFSR_E_*: the status the peer gave instead. */
static int keep_answer(struct node_scrub *scrub, const struct cfsr_reply *reply)
{
    const struct cfsr_node_core *core = scrub->core;

    if (reply->status != 0)
        return -reply->status;
    scrub->answer_site = scrub->peer_sites[scrub->step.peer];
    if (reply->kind == CFSR_QUERY_RECORDS) {
        CFSR_ASSERT(reply->body_bytes <= CFSR_NODE_QUERY_FRAME_BYTES);
        memcpy(scrub->frame, reply->body, reply->body_bytes);
        scrub->frame_bytes = reply->body_bytes;
        return 0;
    }
    CFSR_ASSERT(reply->count <= CFSR_REPLY_WINDOWS_MAX && core != NULL);
    for (uint32_t i = 0; i < reply->count; i++) {
        const uint8_t *digest;
        scrub->theirs[i].index = cfsr_reply_window_load(reply, i, &digest);
        memcpy(scrub->theirs[i].digest, digest, CFSR_DIGEST_LEN_BYTES);
    }
    scrub->window_count = reply->count;
    return 0;
}

void node_scrub_answered(struct cfsr_node_core *core, int rc, const struct cfsr_reply *reply)
{
    struct node_scrub *scrub = &core->scrub;

    if (!scrub->asking)
        return;
    scrub->asking = false;
    if (rc == 0)
        rc = keep_answer(scrub, reply);
    cfsr_scrub_on_answer(&scrub->machine, core->now_ns, core->wall_us, rc,
                         reply != NULL ? reply->lsn_to : 0);
}

static void ask(struct node_scrub *scrub, enum cfsr_query_kind kind)
{
    struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;
    const struct cfsr_query query = {
        .kind = (uint16_t)kind,
        .lane = (uint16_t)step->lane,
        .origin = step->origin,
        .journal = step->journal,
        .lsn_from = step->lsn_from,
        .lsn_to = step->lsn_to,
    };

    scrub->asking = node_ask(core, step->peer, &query, &scrub->asked);
    if (!scrub->asking)
        cfsr_scrub_on_answer(&scrub->machine, core->now_ns, core->wall_us, -CFSR_E_UNREACHABLE, 0);
}

/* ---- jobs ---- */

/* A verified frame becomes a REPAIR record as soon as the inbox has room for it. */
static void put_frame(struct node_scrub *scrub)
{
    struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;
    struct node_store *store = core->stores[step->lane];
    int rc = 0;

    if (store == NULL || cfsr_inbox_lane_failed(store->inbox))
        rc = -CFSR_E_FAILED;
    else if (!node_store_room(store, CFSR_INBOX_REPAIR_HEADER_BYTES + scrub->frame_bytes))
        return; /* stays due */
    scrub->put_due = false;
    if (rc == 0) {
        cfsr_inbox_lane_put_repair(store->inbox, step->inbox_gap, step->inbox_part, scrub->frame,
                                   scrub->frame_bytes, core->wall_us, core->now_ns);
        store->ack_now = true;
    }
    cfsr_scrub_on_applied(&scrub->machine, core->now_ns, core->wall_us, rc, false, scrub->end_lsn);
    core->turn_again = true;
}

static void done_job(struct cfsr_node_job *job)
{
    struct node_scrub *scrub = CFSR_CONTAINER_OF(job, struct node_scrub, job);
    struct cfsr_node_core *core = scrub->core;
    struct cfsr_scrub *machine = &scrub->machine;

    node_job_finished(core, job);
    core->turn_again = true;
    switch (scrub->step.type) {
    case CFSR_SCRUB_CHECK_JOURNAL:
        if (scrub->step.fresh && scrub->step.task == CFSR_SCRUB_RUN)
            cfsr_scrub_set_floor(machine, scrub->step.lane, scrub->floor_lsn);
        cfsr_scrub_on_journal_checked(machine, core->now_ns, core->wall_us, scrub->result,
                                      scrub->bytes, &scrub->journal_gap);
        break;
    case CFSR_SCRUB_CHECK_INBOX:
        if (scrub->unnamed && core->stores[scrub->step.lane] != NULL)
            cfsr_inbox_lane_want_cursors(core->stores[scrub->step.lane]->inbox);
        cfsr_scrub_on_inbox_checked(machine, core->now_ns, core->wall_us, scrub->result,
                                    scrub->bytes, &scrub->inbox_gap);
        break;
    case CFSR_SCRUB_COMPARE:
        cfsr_scrub_on_compared(machine, core->now_ns, core->wall_us, scrub->result, scrub->bytes,
                               scrub->compared, scrub->different, scrub->first_different_lsn);
        break;
    case CFSR_SCRUB_APPLY:
        if (scrub->result == 0 && scrub->step.inbox_gap != NULL) {
            scrub->put_due = true; /* by the turn */
            break;
        }
        /* fall through */
    case CFSR_SCRUB_MEND_HEADER:
        cfsr_scrub_on_applied(machine, core->now_ns, core->wall_us, scrub->result, scrub->refused,
                              scrub->end_lsn);
        break;
    case CFSR_SCRUB_NONE:
    case CFSR_SCRUB_ASK_RECORDS:
    case CFSR_SCRUB_ASK_DIGESTS: CFSR_ASSERT(false);
    }
}

static void begin_job(struct node_scrub *scrub)
{
    struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = &scrub->step;

    scrub->committed_lsn = core->head_lsn[step->lane];
    scrub->result = 0;
    scrub->refused = false;
    scrub->unnamed = false;
    scrub->bytes = 0;
    if (step->type == CFSR_SCRUB_CHECK_INBOX && step->fresh) {
        if (core->stores[step->lane] == NULL) {
            cfsr_scrub_on_inbox_checked(&scrub->machine, core->now_ns, core->wall_us,
                                        CFSR_INBOX_CHECK_DONE, 0, NULL);
            return;
        }
        cfsr_inbox_lane_end(core->stores[step->lane]->inbox, &scrub->end);
    }
    node_submit_job(core, &scrub->job);
}

/* ---- turns ---- */

static void publish(struct node_scrub *scrub)
{
    struct cfsr_node_counters *to = &scrub->core->counters;
    const struct cfsr_scrub_counters *now = &scrub->machine.counters, *then = &scrub->counted;

    cfsr_counter_add(&to->scrub_bytes, now->bytes - then->bytes);
    cfsr_counter_add(&to->scrub_windows, now->windows - then->windows);
    cfsr_counter_add(&to->scrub_differences, now->differences - then->differences);
    cfsr_counter_add(&to->damage_found, now->found - then->found);
    cfsr_counter_add(&to->damage_repaired, now->repaired - then->repaired);
    cfsr_counter_add(&to->damage_unrepairable, now->unrepairable - then->unrepairable);
    cfsr_counter_add(&to->replies_refused, now->replies_refused - then->replies_refused);
    scrub->counted = *now;
}

static void log_findings(struct node_scrub *scrub, uint32_t before)
{
    const struct cfsr_scrub *machine = &scrub->machine;

    for (uint32_t i = before; i < machine->finding_count; i++) {
        const struct cfsr_scrub_finding *f = &machine->finding[i % CFSR_SCRUB_FINDINGS_MAX];
        cfsr_log(f->outcome == CFSR_SCRUB_REPAIRED ? CFSR_LOG_WARN : CFSR_LOG_ERROR, "damage",
                 CFSR_S("what", cfsr_scrub_finding_name(f->kind)),
                 CFSR_S("outcome", cfsr_scrub_outcome_name(f->outcome)), CFSR_U("lane", f->lane),
                 CFSR_U("site", f->site_id), CFSR_U("lsn_from", f->lsn_from),
                 CFSR_U("lsn_to", f->lsn_to),
                 CFSR_S("reason", f->reason < 0 ? cfsr_error_name(f->reason) : ""));
    }
}

static void tell_links(struct node_scrub *scrub)
{
    struct cfsr_scrub *machine = &scrub->machine;
    uint64_t mended = machine->mended_mask, hopeless = machine->hopeless_mask;

    machine->mended_mask = 0;
    machine->hopeless_mask = 0;
    for (uint32_t lane = 0; (mended | hopeless) >> lane != 0; lane++) {
        if (hopeless >> lane & 1)
            node_links_mended(scrub->core, lane, false, machine->hopeless_lsn[lane]);
        else if (mended >> lane & 1)
            node_links_mended(scrub->core, lane, true, 0);
        if (lane == CFSR_LANES_MAX - 1)
            break;
    }
}

static void look_at_question(struct node_scrub *scrub)
{
    struct cfsr_query_port *port = scrub->asking ? node_channel_port(&scrub->asked) : NULL;

    if (scrub->asking && port == NULL)
        node_scrub_answered(scrub->core, -CFSR_E_UNREACHABLE, NULL);
    else if (scrub->asking && cfsr_query_port_expired(port, scrub->core->now_ns))
        node_scrub_answered(scrub->core, -CFSR_E_TIMEOUT, NULL);
}

static bool begin_step(struct node_scrub *scrub)
{
    struct cfsr_node_core *core = scrub->core;
    const struct cfsr_scrub_step *step = cfsr_scrub_next(&scrub->machine, core->now_ns,
                                                         core->wall_us);

    if (step->type == CFSR_SCRUB_NONE)
        return false;
    scrub->step = *step;
    if (step->type == CFSR_SCRUB_ASK_RECORDS)
        ask(scrub, CFSR_QUERY_RECORDS);
    else if (step->type == CFSR_SCRUB_ASK_DIGESTS)
        ask(scrub, CFSR_QUERY_DIGESTS);
    else
        begin_job(scrub);
    return true;
}

unsigned node_scrub_turn(struct cfsr_node_core *core)
{
    struct node_scrub *scrub = &core->scrub;
    uint32_t findings = scrub->machine.finding_count;
    unsigned work = 0;

    if (core->draining || scrub->job.busy)
        return 0;
    look_at_question(scrub);
    if (scrub->put_due)
        put_frame(scrub);
    while (work < STEPS_PER_TURN && !scrub->job.busy && begin_step(scrub))
        work++;
    core->turn_again = core->turn_again || work == STEPS_PER_TURN;
    publish(scrub);
    log_findings(scrub, findings);
    tell_links(scrub);
    return work;
}

uint64_t node_scrub_deadline(const struct cfsr_node_core *core)
{
    const struct node_scrub *scrub = &core->scrub;
    const struct cfsr_query_port *port;

    if (core->draining || scrub->job.busy || scrub->put_due)
        return UINT64_MAX;
    if (!scrub->asking)
        return cfsr_scrub_deadline(&scrub->machine);
    port = node_channel_port(&scrub->asked);
    return port != NULL ? port->deadline_ns : UINT64_MAX;
}

/* ---- life ---- */

int node_scrub_create(struct cfsr_node_core *core, uint64_t now_ns)
{
    struct node_scrub *scrub = &core->scrub;
    const struct cfsr_node_options *options = &core->options;
    uint16_t ignored;

    CFSR_ASSERT(options->peer_count <= CFSR_STATUS_PEERS_MAX);
    for (uint32_t i = 0; i < options->peer_count; i++)
        scrub->peer_sites[i] = options->peers[i].site_id;
    const struct cfsr_scrub_options machine = {
        .site = options->site,
        .rate_bytes_per_s = options->scrub_rate,
        .interval_ns = options->scrub_interval_ns,
        .retry_ns = options->scrub_retry_ns != 0 ? options->scrub_retry_ns : RETRY_DEFAULT_NS,
        .lane_mask = core->lane_mask,
        .peer_count = options->peer_count,
        .peer_sites = scrub->peer_sites,
        .user = core,
        .can_ask = can_ask,
        .acked_lsn = acked_lsn,
    };
    cfsr_scrub_init(&scrub->machine, &machine, now_ns);
    scrub->core = core;
    scrub->job.run = node_scrub_run_job;
    scrub->job.done = done_job;
    scrub->job.slow = true;
    scrub->frame = core->env.take_memory(core->env.user, CFSR_NODE_QUERY_FRAME_BYTES, &ignored);
    scrub->raw = core->env.take_memory(core->env.user, CFSR_BATCH_BODY_MAX_BYTES, &ignored);
    if (scrub->frame == NULL || scrub->raw == NULL)
        return -ENOMEM;
    return cfsr_batch_codec_create(&options->codec, &scrub->codec);
}

void node_scrub_destroy(struct cfsr_node_core *core)
{
    struct node_scrub *scrub = &core->scrub;

    CFSR_ASSERT(!scrub->job.busy);
    for (unsigned i = 0; i < CFSR_SCRUB_TASKS; i++)
        cfsr_journal_check_close(scrub->journal_check[i]);
    if (scrub->inbox_check != NULL)
        cfsr_inbox_check_close(scrub->inbox_check);
    cfsr_batch_codec_destroy(scrub->codec);
}
