/*
 * store.c - the driver of the inbox lanes: slots in, durable writes out, segments made ahead of
 * need by the helper thread.
 *
 * Thread:     the core; preparing, opening and closing segments are jobs.
 * Invariants: a slot belongs to one lane from give_slot() until its write completed; so does the
 * memory of a frame that is written from where it was received. A write that
 * failed is final for its descriptor: the lane acknowledges nothing more, its connections end, its
 * files are closed, and a job reads the lane back through new descriptors; it goes on in a segment
 * that has no durable record yet, with the cursors that were durable before, and the peers send the
 * rest again. Rejected:   writing the block again (the kernel may have dropped the page and call it
 * clean: the second try succeeds and the data is gone).
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/fail.h"
#include "base/log.h"
#include "inbox/gc.h"

/* A failed preparation (a full disk) is tried again this often. */
#define SEGMENT_RETRY_NS 1000000000ull

/* Before a new segment is made: what every consumer has seen goes; at the cap with nothing to
 * remove there is no room. */
static int make_room(struct cfsr_node_core *core, uint32_t lane, uint64_t sequence,
                     uint64_t wall_us)
{
    struct cfsr_inbox_gc_result result;
    int rc = cfsr_inbox_gc_lane(core->env.blocking_fs, core->options.site, lane,
                                sequence > 1 ? sequence - 1 : 1, core->options.inbox_cap_bytes,
                                wall_us, &result);

    if (rc == 0 && result.stalled)
        rc = cfsr_fail(-ENOSPC,
                       "inbox lane %u is at its cap or the disk's free-space floor, and no "
                       "consumer has seen what it holds: "
                       "let consumers commit, free space, or raise the cap",
                       lane);
    return rc;
}

/* After a restart the segment to go on in is there; one that nothing was written to may not be. */
static int get_segment(struct node_segment_job *segment)
{
    struct cfsr_node_core *core = segment->core;
    uint32_t lane = segment->store->lane;
    int rc = -ENOENT;

    if (segment->open_existing)
        rc = cfsr_inbox_open_segment(core->env.blocking_fs, core->options.site, lane,
                                     segment->sequence, core->options.inbox_direct, &segment->file,
                                     &segment->direct);
    if (rc != -ENOENT || segment->begun)
        return rc;
    rc = make_room(core, lane, segment->sequence, segment->wall_us);
    if (rc < 0)
        return rc;
    return cfsr_inbox_prepare_segment(core->env.blocking_fs, core->options.site, lane,
                                      segment->sequence, core->options.inbox_direct, &segment->file,
                                      &segment->direct);
}

static void run_segment(struct cfsr_node_job *job)
{
    struct node_segment_job *segment = CFSR_CONTAINER_OF(job, struct node_segment_job, job);

    if (segment->retired != NULL)
        cfsr_file_close(segment->retired);
    segment->retired = NULL;
    segment->file = NULL;
    segment->result = segment->sequence == 0 ? 0 /* only a file to close */ : get_segment(segment);
    if (segment->result < 0)
        cfsr_log(CFSR_LOG_ERROR, "inbox_segment_failed", CFSR_U("lane", segment->store->lane),
                 CFSR_U("sequence", segment->sequence), CFSR_ERR(segment->result));
}

/* No room: it may come back, and nothing is wrong with the disk. */
static bool is_full(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT;
}

static void add_old_file(struct node_heal_job *heal, struct cfsr_file *file)
{
    unsigned i = 0;

    while (heal->old[i] != NULL) {
        i++;
        CFSR_ASSERT(i < CFSR_ARRAY_LEN(heal->old));
    }
    heal->old[i] = file;
}

static void done_segment(struct cfsr_node_job *job)
{
    struct node_segment_job *segment = CFSR_CONTAINER_OF(job, struct node_segment_job, job);
    struct node_store *store = segment->store;
    struct cfsr_node_core *core = segment->core;

    node_job_finished(core, job);
    if (segment->sequence == 0)
        return; /* a file was closed, no more */
    store->last_error = segment->result;
    if (segment->result < 0) {
        store->retry_ns = core->now_ns + SEGMENT_RETRY_NS;
        core->inbox_full = core->inbox_full || is_full(segment->result);
        return;
    }
    if (store->healing) { /* asked for by the lane that failed since */
        if (segment->file != NULL)
            add_old_file(&store->heal, segment->file);
        segment->file = NULL;
        return;
    }
    segment->open_existing = segment->begun = false;
    if (segment->file != NULL) {
        store->direct = segment->direct;
        node_adopt(core, segment->file);
        cfsr_inbox_lane_give_segment(store->inbox, segment->sequence, segment->file);
        segment->file = NULL;
        core->inbox_full = false;
        core->room_moved = true;
    }
}

/* Keeps the lane supplied: the current segment after a restart, the next one ahead of need, and old
 * files closed. */
static void supply(struct node_store *store)
{
    struct cfsr_node_core *core = store->core;
    struct node_segment_job *segment = &store->segment;

    if (segment->job.busy || core->draining || store->healing)
        return;
    segment->retired = cfsr_inbox_lane_retired_file(store->inbox);
    segment->sequence = core->now_ns >= store->retry_ns
                            ? cfsr_inbox_lane_wants_segment(store->inbox)
                            : 0;
    if (segment->sequence == 0 && segment->retired == NULL)
        return;
    segment->wall_us = core->wall_us;
    node_submit_job(core, &segment->job);
}

/* ---- after a failed write ---- */

/* A slot, or received memory that was written in place. */
static void give_back_slot(struct cfsr_node_core *core, uint32_t slot)
{
    if (slot >= core->slot_count) {
        node_lent_back(core, slot);
        return;
    }
    core->slots[slot].next_free = core->slot_free;
    core->slot_free = slot;
}

int node_store_refusal(const struct node_store *store)
{
    if (is_full(store->last_error))
        return cfsr_fail(-CFSR_E_BACKPRESSURE,
                         "inbox lane %u of site %llu has no room on its disk: free some",
                         store->lane, (unsigned long long)store->core->options.site->site_id);
    return cfsr_fail(-CFSR_E_FAILED,
                     "inbox lane %u of site %llu had a write error and is being read back",
                     store->lane, (unsigned long long)store->core->options.site->site_id);
}

static void run_heal(struct cfsr_node_job *job)
{
    struct node_heal_job *heal = CFSR_CONTAINER_OF(job, struct node_heal_job, job);
    struct cfsr_node_core *core = heal->core;
    uint32_t lane = heal->store->lane;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(heal->old); i++) {
        if (heal->old[i] != NULL)
            cfsr_file_close(heal->old[i]);
        heal->old[i] = NULL;
    }
    heal->file = NULL;
    heal->result = cfsr_inbox_recover_lane(core->env.blocking_fs, core->options.site, lane, true,
                                           heal->recovered);
    if (heal->result == 0)
        heal->result = make_room(core, lane, heal->fallback->sequence, heal->wall_us);
    if (heal->result == 0)
        heal->result = cfsr_inbox_prepare_segment(
            core->env.blocking_fs, core->options.site, lane, heal->fallback->sequence,
            core->options.inbox_direct, &heal->file, &heal->direct);
    if (heal->result < 0)
        cfsr_log(CFSR_LOG_ERROR, "inbox_lane_not_reopened", CFSR_U("lane", lane),
                 CFSR_U("sequence", heal->fallback->sequence), CFSR_ERR(heal->result));
}

/* The next seqs of every peer's shards in the lane: what they send again begins with lower ones. */
static void forget_seqs(struct cfsr_node_core *core, uint32_t lane)
{
    for (uint32_t peer = 0; peer < core->options.peer_count; peer++)
        memset(core->seqs + ((size_t)peer * CFSR_LANES_MAX + lane) * core->seqs_per_lane, 0,
               sizeof *core->seqs * core->seqs_per_lane);
}

static void done_heal(struct cfsr_node_job *job)
{
    struct node_heal_job *heal = CFSR_CONTAINER_OF(job, struct node_heal_job, job);
    struct node_store *store = heal->store;
    struct cfsr_node_core *core = heal->core;
    uint32_t behind;

    node_job_finished(core, job);
    store->last_error = heal->result;
    if (heal->result < 0) {
        store->retry_ns = core->now_ns + SEGMENT_RETRY_NS;
        core->inbox_full = core->inbox_full || is_full(heal->result);
        return;
    }
    behind = cfsr_inbox_state_reconcile(heal->fallback, heal->recovered);
    cfsr_inbox_lane_restart(store->inbox, heal->fallback);
    store->direct = heal->direct;
    store->segment.open_existing = store->segment.begun = false;
    node_adopt(core, heal->file);
    cfsr_inbox_lane_give_segment(store->inbox, heal->fallback->sequence, heal->file);
    heal->file = NULL;
    forget_seqs(core, store->lane);
    store->healing = false;
    core->inbox_full = false;
    core->room_moved = true;
    cfsr_counter_add(&core->counters.inbox_lane_reopened, 1);
    cfsr_log(CFSR_LOG_WARN, "inbox_lane_reopened", CFSR_U("lane", store->lane),
             CFSR_U("sequence", heal->fallback->sequence), CFSR_U("origins_behind", behind),
             CFSR_U("damaged", heal->recovered->damaged));
    if (heal->recovered->damaged > 0)
        node_scrub_inbox(core, store->lane);
}

/* Gives up what a failed lane holds once nothing of it is on its way, and has it read back. */
static void heal_lane(struct node_store *store)
{
    struct cfsr_node_core *core = store->core;
    struct node_heal_job *heal = &store->heal;
    struct cfsr_file *file;
    uint32_t slot;

    if (!store->healing) {
        store->healing = true;
        store->ack_now = false;
        store->retry_ns = core->now_ns;
        node_conns_drop_lane(core, store->lane, -CFSR_E_FAILED);
    }
    if (store->writes_busy > 0 || store->segment.job.busy || heal->job.busy || core->draining ||
        core->now_ns < store->retry_ns)
        return;
    while (cfsr_inbox_lane_take_slot(store->inbox, &slot))
        give_back_slot(core, slot);
    while ((file = cfsr_inbox_lane_take_file(store->inbox)) != NULL)
        add_old_file(heal, file);
    cfsr_inbox_lane_fallback(store->inbox, heal->fallback);
    heal->wall_us = core->wall_us;
    node_submit_job(core, &heal->job);
}

static int create_heal(struct node_store *store)
{
    struct node_heal_job *heal = &store->heal;

    heal->core = store->core;
    heal->store = store;
    heal->job.run = run_heal;
    heal->job.done = done_heal;
    heal->job.slow = true;
    heal->fallback = malloc(sizeof *heal->fallback);
    heal->recovered = malloc(sizeof *heal->recovered);
    return heal->fallback == NULL || heal->recovered == NULL ? -ENOMEM : 0;
}

static void destroy_store(struct node_store *store)
{
    free(store->heal.fallback);
    free(store->heal.recovered);
    free(store);
}

int node_store_add(struct cfsr_node_core *core, uint32_t lane, const struct cfsr_inbox_state *state)
{
    struct cfsr_inbox_lane_options options = {
        .sync_bytes = core->options.sync_bytes,
        .sync_delay_ns = core->options.sync_delay_ns,
    };
    struct node_store *store = calloc(1, sizeof *store);
    int rc;

    if (store == NULL)
        return -ENOMEM;
    store->core = core;
    store->lane = lane;
    rc = create_heal(store);
    if (rc == 0)
        rc = cfsr_inbox_lane_create(core->options.site, lane, state, &options, &store->inbox);
    if (rc < 0) {
        destroy_store(store);
        return rc;
    }
    store->segment.core = core;
    store->segment.store = store;
    store->segment.job.run = run_segment;
    store->segment.job.done = done_segment;
    store->segment.job.slow = true;
    store->segment.open_existing = state->sequence != 0;
    store->segment.begun = state->body_offset > 0;
    for (unsigned i = 0; i < CFSR_INBOX_WRITES_MAX; i++)
        store->write[i].store = store;
    core->stores[lane] = store;
    /* Recovery goes on in a segment that is there, unless nothing was written to it yet. */
    supply(store);
    return 0;
}

/* False: there is no free one. */
static bool give_slot(struct node_store *store)
{
    struct cfsr_node_core *core = store->core;
    uint32_t slot = core->slot_free;

    if (slot == UINT32_MAX)
        return false;
    core->slot_free = core->slots[slot].next_free;
    cfsr_inbox_lane_give_slot(store->inbox, core->slots[slot].base, slot);
    return true;
}

bool node_store_room(struct node_store *store, uint32_t frame_bytes)
{
    struct cfsr_node_core *core = store->core;
    int rc = cfsr_inbox_lane_room(store->inbox, frame_bytes);

    if (rc == -ENOBUFS && give_slot(store))
        rc = cfsr_inbox_lane_room(store->inbox, frame_bytes);
    switch (rc) {
    case 0: return true;
    case -ENOBUFS: cfsr_counter_add(&core->counters.stall_no_inbox_slot, 1); return false;
    case -ENOSPC: cfsr_counter_add(&core->counters.stall_no_segment, 1); return false;
    case -CFSR_E_FAILED: cfsr_counter_add(&core->counters.stall_inbox_failed, 1); return false;
    default: cfsr_counter_add(&core->counters.stall_inbox_writes, 1); return false;
    }
}

bool node_store_room_in_place(struct node_store *store, uint32_t frame_bytes)
{
    int rc = cfsr_inbox_lane_room_in_place(store->inbox, frame_bytes);

    if (rc == -ENOBUFS && give_slot(store))
        rc = cfsr_inbox_lane_room_in_place(store->inbox, frame_bytes);
    return rc == 0;
}

/* Cursors that are asked for and not laid out yet; what hinders it ends with a turn. */
static void put_cursors(struct node_store *store)
{
    if (store->core->draining || store->healing)
        return;
    if (cfsr_inbox_lane_put_cursors(store->inbox) == -ENOBUFS && give_slot(store))
        (void)cfsr_inbox_lane_put_cursors(store->inbox);
}

static void write_done(struct cfsr_file_op *op)
{
    struct node_store_write *write = op->user;
    struct node_store *store = write->store;
    struct cfsr_node_core *core = store->core;
    uint32_t slot = UINT32_MAX;
    int rc;

    core->ops_busy--;
    write->busy = false;
    store->writes_busy--;
    rc = cfsr_inbox_lane_written(store->inbox, &write->write, op->result < 0 ? op->result : 0,
                                 &slot);
    if (slot != UINT32_MAX)
        give_back_slot(core, slot);
    core->room_moved = true;
    store->moved = true;
    cfsr_histogram_record(&core->stages.write, node_clock(core) - write->began_ns);
    if (rc < 0 && op->result < 0) {
        cfsr_counter_add(&core->counters.inbox_write_errors, 1);
        cfsr_log(CFSR_LOG_ERROR, "inbox_write_failed", CFSR_U("lane", store->lane),
                 CFSR_ERR(op->result),
                 CFSR_S("advice", "the lane is read back and begun anew behind what is durable; if "
                                  "this repeats, check the disk"));
    }
}

static struct node_store_write *free_write(struct node_store *store)
{
    for (unsigned i = 0; i < CFSR_INBOX_WRITES_MAX; i++)
        if (!store->write[i].busy)
            return &store->write[i];
    return NULL;
}

static unsigned start_writes(struct node_store *store)
{
    struct cfsr_node_core *core = store->core;
    struct node_store_write *write;
    unsigned work = 0;

    while ((write = free_write(store)) != NULL &&
           cfsr_inbox_lane_take_write(store->inbox, store->ack_now, core->now_ns, &write->write)) {
        struct cfsr_file_op *op = &write->op;
        *op = (struct cfsr_file_op){
            .type = core->options.ack_written ? CFSR_FILE_WRITE : CFSR_FILE_WRITE_DURABLE,
            .buffer_index = write->write.slot < core->slot_count
                                ? core->slots[write->write.slot].buffer_index
                                : CFSR_BUFFER_UNREGISTERED,
            .file = write->write.file,
            .buf = write->write.buf,
            .len_bytes = write->write.len_bytes,
            .offset_bytes = write->write.offset_bytes,
            .done = write_done,
            .user = write,
        };
        write->busy = true;
        write->began_ns = node_clock(core);
        store->writes_busy++;
        core->ops_busy++;
        int rc = cfsr_fs_submit(core->env.fs, op);
        if (rc < 0) {
            op->result = rc;
            write_done(op);
        }
        cfsr_counter_add(&core->counters.inbox_writes, 1);
        cfsr_counter_add(&core->counters.inbox_write_bytes, write->write.len_bytes);
        work++;
    }
    store->ack_now = false;
    return work;
}

unsigned node_stores_turn(struct cfsr_node_core *core)
{
    unsigned work = 0;
    for (uint32_t lane = 0; lane < core->options.site->lanes; lane++) {
        struct node_store *store = core->stores[lane];
        if (store == NULL)
            continue;
        put_cursors(store);
        work += start_writes(store);
        if (store->healing || cfsr_inbox_lane_failed(store->inbox))
            heal_lane(store);
        supply(store);
    }
    return work;
}

uint64_t node_stores_deadline(const struct cfsr_node_core *core)
{
    uint64_t deadline = UINT64_MAX;
    for (uint32_t lane = 0; lane < core->options.site->lanes; lane++) {
        const struct node_store *store = core->stores[lane];
        if (store == NULL)
            continue;
        deadline = cfsr_min_u64(deadline, cfsr_inbox_lane_deadline_ns(store->inbox));
        if ((store->last_error < 0 || store->healing) && !store->segment.job.busy &&
            !store->heal.job.busy && store->writes_busy == 0 && !core->draining)
            deadline = cfsr_min_u64(deadline, store->retry_ns);
    }
    return deadline;
}

bool node_stores_idle(const struct cfsr_node_core *core)
{
    for (uint32_t lane = 0; lane < core->options.site->lanes; lane++)
        if (core->stores[lane] != NULL && core->stores[lane]->last_error == 0 &&
            !cfsr_inbox_lane_failed(core->stores[lane]->inbox) &&
            (core->stores[lane]->writes_busy > 0 ||
             cfsr_inbox_lane_pending_bytes(core->stores[lane]->inbox) > 0))
            return false;
    return true;
}

int node_stores_create(struct cfsr_node_core *core)
{
    core->slot_count = core->options.inbox_slots;
    core->slots = calloc(core->slot_count, sizeof *core->slots);
    if (core->slots == NULL)
        return -ENOMEM;
    core->slot_free = UINT32_MAX;
    for (uint32_t i = core->slot_count; i-- > 0;) {
        struct node_inbox_slot *slot = &core->slots[i];
        slot->base = core->env.take_memory(core->env.user, CFSR_INBOX_SLOT_BYTES,
                                           &slot->buffer_index);
        if (slot->base == NULL)
            return -ENOMEM;
        give_back_slot(core, i);
    }
    return 0;
}

void node_stores_destroy(struct cfsr_node_core *core)
{
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++) {
        struct node_store *store = core->stores[lane];
        if (store == NULL)
            continue;
        struct cfsr_file *file;
        CFSR_ASSERT(store->writes_busy == 0 && !store->segment.job.busy && !store->heal.job.busy);
        for (unsigned i = 0; i < CFSR_ARRAY_LEN(store->heal.old); i++)
            if (store->heal.old[i] != NULL)
                cfsr_file_close(store->heal.old[i]);
        while ((file = cfsr_inbox_lane_retired_file(store->inbox)) != NULL)
            cfsr_file_close(file);
        while ((file = cfsr_inbox_lane_take_file(store->inbox)) != NULL)
            cfsr_file_close(file);
        cfsr_inbox_lane_destroy(store->inbox);
        destroy_store(store);
        core->stores[lane] = NULL;
    }
    free(core->slots);
    core->slots = NULL;
}
