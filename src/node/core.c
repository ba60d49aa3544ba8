/*
 * core.c - one node core: made once, then turned until drained.
 *
 * A turn, the same order everywhere: heads of the journal → transport upcalls → inbox writes → acks
 * → links (encode, send) → queries, scrub → one flush. The caller (reactor or simulator) has
 * delivered file completions and job results before the turn, and submits after it.
 *
 * Thread:     the owning core.
 * Invariants: no memory is taken after creation; a turn encodes at most CFSR_NODE_ENCODES_PER_TURN
 * batches, so that it stays below 2 ms.
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

/* Upcalls of one turn: bounds the time between two looks at timers and acks. */
#define POLL_BUDGET 64
/* A sender that promised more and was not heard for this long is not in bulk any more. */
#define BULK_GAP_NS 5000000u

void node_submit_job(struct cfsr_node_core *core, struct cfsr_node_job *job)
{
    CFSR_ASSERT(!job->busy);
    job->busy = true;
    job->owner_core = core;
    core->jobs_busy++;
    core->env.submit_job(core->env.user, job);
}

void node_job_finished(struct cfsr_node_core *core, struct cfsr_node_job *job)
{
    CFSR_ASSERT(job->busy && core->jobs_busy > 0);
    job->busy = false;
    core->jobs_busy--;
}

/* Of the core that has most. */
static uint32_t owned_max(const struct cfsr_node_options *options)
{
    return (options->site->lanes + options->cores - 1) / options->cores;
}

uint32_t cfsr_node_accepts_max(const struct cfsr_node_options *options)
{
    return options->peer_count * (owned_max(options) + 1) + options->strangers_max;
}

uint32_t cfsr_node_dials_max(const struct cfsr_node_options *options)
{
    return node_links_max(options, owned_max(options));
}

uint64_t cfsr_node_memory_bytes(const struct cfsr_node_options *options)
{
    uint64_t owned = owned_max(options);
    uint64_t streams = cfsr_max_u64(options->read_buffers / 2, owned + 1);
    uint64_t connections = cfsr_node_accepts_max(options) + cfsr_node_dials_max(options);

    return streams * 2 * CFSR_NODE_READ_BUFFER_BYTES +
           options->batch_slots * cfsr_align_up(CFSR_NODE_BATCH_SLOT_BYTES, 4096) +
           node_seal_slots(options) * cfsr_align_up(CFSR_NODE_SEAL_SLOT_BYTES, 4096) +
           options->inbox_slots * (uint64_t)CFSR_INBOX_SLOT_BYTES +
           cfsr_align_up(CFSR_NODE_SCRATCH_BYTES, 4096) +
           connections * CFSR_NODE_CONTROL_SLOTS *
               cfsr_align_up(CFSR_NODE_CONTROL_SLOT_BYTES, 4096) +
           CFSR_NODE_QUERY_BYTES;
}

/* Batches made with equal settings are interchangeable between peers of this class: codec, level,
 * filter (none yet). */
static uint32_t encode_class_of(const struct cfsr_codec_config *codec)
{
    return (uint32_t)codec->codec << 24 | ((uint32_t)codec->level & 0xffffffu);
}

static int create_parts(struct cfsr_node_core *core, uint64_t now_ns)
{
    uint16_t ignored;
    int rc = cfsr_batch_codec_create(&core->options.codec, &core->codec);

    if (rc < 0)
        return rc;
    core->scratch = core->env.take_memory(core->env.user, CFSR_NODE_SCRATCH_BYTES, &ignored);
    if (core->scratch == NULL)
        return -ENOMEM;
    rc = node_streams_create(core);
    if (rc == 0)
        rc = node_batches_create(core);
    if (rc == 0)
        rc = node_seals_create(core);
    if (rc == 0)
        rc = node_stores_create(core);
    if (rc == 0)
        rc = node_lends_create(core);
    if (rc == 0)
        rc = node_conns_create(core);
    if (rc == 0)
        rc = node_links_create(core, now_ns);
    if (rc == 0)
        rc = node_server_create(core);
    if (rc == 0)
        rc = node_scrub_create(core, now_ns);
    return rc;
}

int cfsr_node_core_create(const struct cfsr_node_options *options, const struct cfsr_node_env *env,
                          uint64_t now_ns, struct cfsr_node_core **core_out)
{
    struct cfsr_node_core *core = calloc(1, sizeof *core);
    int rc;

    CFSR_ASSERT(options->cores > 0 && options->core < options->cores);
    if (core == NULL)
        return -ENOMEM;
    core->options = *options;
    core->env = *env;
    core->local = (struct cfsr_session_local){
        .site = options->site,
        .keyring = options->keyring,
        .features = CFSR_FEATURES_KNOWN & ~options->features_withheld,
        .seal = options->seal,
        .core = options->core,
        .cores = options->cores,
    };
    memcpy(core->local.session_id, options->session_id, sizeof core->local.session_id);
    for (uint32_t lane = 0; lane < options->site->lanes; lane++)
        if (lane % options->cores == options->core)
            core->lane_mask |= 1ull << lane;
    core->record_seed = cfsr_record_seed(&options->site->journal);
    core->encode_class = encode_class_of(&options->codec);
    rc = create_parts(core, now_ns);
    if (rc < 0) {
        cfsr_node_core_destroy(core);
        return rc;
    }
    *core_out = core;
    return 0;
}

void cfsr_node_core_destroy(struct cfsr_node_core *core)
{
    CFSR_ASSERT(core->ops_busy == 0 && core->jobs_busy == 0);
    node_scrub_destroy(core);
    node_server_destroy(core);
    node_links_destroy(core);
    node_conns_destroy(core);
    node_stores_destroy(core);
    node_lends_destroy(core);
    node_seals_destroy(core);
    node_batches_destroy(core);
    node_streams_destroy(core);
    cfsr_batch_codec_destroy(core->codec);
    free(core);
}

int cfsr_node_core_add_lane(struct cfsr_node_core *core, uint32_t lane,
                            const struct cfsr_inbox_state *state, uint64_t now_ns)
{
    CFSR_ASSERT(node_owns(core, lane) && core->stores[lane] == NULL);
    core->now_ns = now_ns;
    int rc = node_store_add(core, lane, state);
    if (rc == 0 && state->damaged > 0)
        node_scrub_inbox(core, lane); /* found by recovery: what it cost is fetched again */
    return rc;
}

void cfsr_node_core_set_head(struct cfsr_node_core *core, uint32_t lane, uint64_t committed_lsn,
                             uint64_t entries)
{
    CFSR_ASSERT(node_owns(core, lane));
    core->head_lsn[lane] = committed_lsn;
    core->head_entries[lane] = entries;
    core->known_mask |= 1ull << lane;
}

/* True if a head moved. An unknown head (nobody recovered the lane in this boot) stays 0: nothing
 * is sent. */
static bool look_at_heads(struct cfsr_node_core *core)
{
    bool moved = false;

    if (core->env.page == NULL)
        return false;
    for (uint32_t lane = 0; lane < core->options.site->lanes; lane++) {
        if (!node_owns(core, lane))
            continue;
        uint64_t lsn = cfsr_status_page_committed(core->env.page, lane);
        if (lsn == CFSR_LSN_UNKNOWN)
            continue;
        moved = moved || (core->known_mask >> lane & 1) == 0;
        core->known_mask |= 1ull << lane;
        if (lsn <= core->head_lsn[lane])
            continue;
        core->head_lsn[lane] = lsn;
        core->head_entries[lane] = cfsr_status_page_entries(core->env.page, lane);
        moved = true;
    }
    return moved;
}

unsigned cfsr_node_core_tick(struct cfsr_node_core *core, uint64_t now_ns, uint64_t wall_us)
{
    unsigned work;

    core->turn++;
    core->now_ns = now_ns;
    core->wall_us = wall_us;
    core->encodes_left = CFSR_NODE_ENCODES_PER_TURN;
    core->turn_again = false;
    look_at_heads(core);
    work = node_paths_poll(core, POLL_BUDGET);
    work += node_stores_turn(core);
    work += node_conns_turn(core);
    work += node_links_turn(core);
    work += node_server_turn(core);
    work += node_scrub_turn(core);
    node_paths_flush(core);
    if (core->draining)
        node_conns_drain(core);
    return work + (core->turn_again ? 1 : 0);
}

uint64_t cfsr_node_core_next_deadline(const struct cfsr_node_core *core)
{
    uint64_t deadline = cfsr_min_u64(node_links_deadline(core), node_conns_deadline(core));
    deadline = cfsr_min_u64(deadline, node_scrub_deadline(core));
    deadline = cfsr_min_u64(deadline, node_server_deadline(core));
    return cfsr_min_u64(deadline, node_stores_deadline(core));
}

bool cfsr_node_core_may_sleep(struct cfsr_node_core *core)
{
    return !look_at_heads(core) && node_paths_arm(core);
}

bool cfsr_node_core_is_receiving_bulk(const struct cfsr_node_core *core)
{
    return core->receiving_bulk && core->now_ns - core->batch_ns < BULK_GAP_NS;
}

bool cfsr_node_core_is_sending_bulk(const struct cfsr_node_core *core)
{
    return core->sending_bulk && core->now_ns - core->sent_ns < BULK_GAP_NS;
}

uint64_t cfsr_node_core_lane_mask(const struct cfsr_node_core *core)
{
    return core->lane_mask;
}

void cfsr_node_core_drain(struct cfsr_node_core *core, uint64_t now_ns)
{
    core->now_ns = now_ns;
    core->draining = true;
    node_links_drain(core);
}

bool cfsr_node_core_is_drained(const struct cfsr_node_core *core)
{
    return core->draining && core->conns_in_use == 0 && core->ops_busy == 0 &&
           core->jobs_busy == 0 && node_links_idle(core) && node_stores_idle(core);
}

const struct cfsr_node_counters *cfsr_node_core_counters(const struct cfsr_node_core *core)
{
    return &core->counters;
}
const struct cfsr_node_stages *cfsr_node_core_stages(const struct cfsr_node_core *core)
{
    return &core->stages;
}
