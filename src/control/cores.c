/*
 * cores.c - core threads (cores.h).
 *
 * Threads:    start, accept, report and stop on the control thread; everything named core_* on a
 * core's own thread. They talk by mailbox; a report is written by the core while the control thread
 * waits for its semaphore. Invariants: a core's reactor, group and node are made, used and
 * destroyed on its thread.
 */
#include "control/cores.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "core/reactor.h"
#include "security/mac.h"

/* One busy connection's receive ring: two maximal frames and room to read on; a power of two. */
#define RECEIVE_RING_BYTES (4u << 20)
/* Busy receivers at once, per core: TCP. */
#define RECEIVE_RINGS 4u
/* RDMA: every connection has one; so many for those that have proven nothing yet. */
#define RDMA_RINGS_SPARE  4u
#define SEND_GATHER_BYTES (256u << 10)
_Static_assert(CFSR_ENDPOINT_TEXT_MAX <= CFSR_ENDPOINT_MAX, "whatever is accepted can be dialled");
/* Connections of one core that have not proven anything yet, whoever they are. */
#define STRANGERS_MAX 64u
/* While a peer sends in bulk a core wakes for this many completions, or after this long: about one
 * turn a MiB at 1 GB/s. */
#define BULK_WAIT_COUNT 16u
#define BULK_WAIT_NS    1000000u
/* Jobs a core can have outstanding: a segment for each lane, an open for each stream, stamp checks
 * of every link. */
#define JOBS_PER_CORE 4096u

struct core {
    struct cfsr_cores *cores;
    uint32_t index;
    int cpu;
    pthread_t thread;
    bool started;
    _Atomic bool ended; /* the loop returned */
    int result;
    char message[1024];
    struct cfsr_reactor *reactor;
    struct cfsr_node_path path[CFSR_PATHS];
    uint32_t rdma_rings;
    struct cfsr_node_core *node;
    struct cfsr_fs *fs;
    uint8_t *memory;
    uint64_t memory_used, memory_bytes;
    struct cfsr_lease lease;
    bool lease_taken, lease_armed;
    struct cfsr_ring_op wake_op;
    bool wake_armed;
    sem_t stands, reported;
    _Atomic bool reporting;           /* a report was asked for and not answered yet */
    struct cfsr_core_report *pending; /* written by the core while it reports */
};

struct cfsr_cores {
    struct cfsr_cores_options options;
    struct cfsr_jobs *jobs;
    uint32_t count;
    struct core *core;
    struct cfsr_core_report *reports;
    struct cfsr_node_peer peers[CFSR_PEERS_MAX];
    uint8_t session_id[16];
    uint64_t memory_bytes;
};

/* ---- what a node core asks of its surroundings ---- */

static void core_submit_job(void *user, struct cfsr_node_job *job)
{
    struct core *core = user;
    cfsr_jobs_submit(core->cores->jobs, core->index, job);
}

static void core_adopt_file(void *user, struct cfsr_file *file)
{
    struct core *core = user;
    cfsr_fs_ring_adopt(core->fs, file);
}

static void *core_take_memory(void *user, uint64_t len_bytes, uint16_t *buffer_index_out)
{
    struct core *core = user;
    uint64_t take = cfsr_align_up(len_bytes, CFSR_SLOT_ALIGN);

    CFSR_ASSERT(core->memory_used + take <=
                core->memory_bytes); /* cfsr_node_memory_bytes() is the sum */
    void *memory = core->memory + core->memory_used;
    core->memory_used += take;
    *buffer_index_out = cfsr_reactor_buffer_index(core->reactor);
    return memory;
}

static void core_random(void *user, void *out, size_t len_bytes)
{
    (void)user;
    cfsr_random_bytes(out, len_bytes);
}

static uint64_t core_clock(void *user)
{
    (void)user;
    return cfsr_clock_monotonic_ns();
}

/* ---- wake-up by the journal's writer ---- */

static void core_arm_wake(struct core *core);

static void core_woken(struct cfsr_ring_op *op, int32_t res, uint32_t cqe_flags)
{
    struct core *core = CFSR_CONTAINER_OF(op, struct core, wake_op);
    uint8_t bytes[64];

    (void)cqe_flags;
    core->wake_armed = false;
    if (res == -ECANCELED)
        return;
    while (read(core->lease.fifo_fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ; /* O_NONBLOCK: ends when it is empty */
    core_arm_wake(core);
}

static void core_arm_wake(struct core *core)
{
    struct io_uring_sqe *sqe = cfsr_ring_sqe(cfsr_reactor_ring(core->reactor), &core->wake_op);
    io_uring_prep_poll_add(sqe, core->lease.fifo_fd, POLLIN);
    core->wake_armed = true;
}

/* ---- the loop's handler ---- */

static unsigned core_tick(void *user, uint64_t now_ns)
{
    struct core *core = user;

    if (core->lease_armed) {
        cfsr_status_page_lease_disarm(core->cores->options.page, &core->lease);
        core->lease_armed = false;
    }
    unsigned work = cfsr_node_core_tick(core->node, now_ns, cfsr_clock_wall_us());
    if (cfsr_node_core_is_drained(core->node))
        cfsr_reactor_stop(core->reactor);
    return work;
}

static uint64_t core_next_deadline(void *user)
{
    struct core *core = user;
    return cfsr_node_core_next_deadline(core->node);
}

static bool core_may_sleep(void *user)
{
    struct core *core = user;
    /* Flag first, then look at the heads again: either we see the commit or its writer sees the
     * flag. */
    if (!core->lease_armed) {
        cfsr_status_page_lease_arm(core->cores->options.page, &core->lease);
        core->lease_armed = true;
    }
    return cfsr_node_core_may_sleep(core->node);
}

static unsigned core_wait_count(void *user, uint64_t *limit_ns)
{
    struct core *core = user;
    if (!cfsr_node_core_is_receiving_bulk(core->node))
        return 1;
    *limit_ns = cfsr_min_u64(*limit_ns, BULK_WAIT_NS);
    return BULK_WAIT_COUNT;
}

/* Spinning shortens the answer to single entries; in bulk it would only burn the time of others. */
static bool core_skip_spin(void *user)
{
    struct core *core = user;
    return cfsr_node_core_is_receiving_bulk(core->node) ||
           cfsr_node_core_is_sending_bulk(core->node);
}

/* ---- start and end, on the core's thread ---- */

static void fill_options(const struct core *core, struct cfsr_node_options *options)
{
    const struct cfsr_cores *cores = core->cores;
    const struct cfsr_serve_config *config = cores->options.config;

    *options = (struct cfsr_node_options){
        .site = cores->options.site,
        .keyring = cores->options.keyring,
        .peers = cores->peers,
        .peer_count = config->peer_count,
        .core = core->index,
        .cores = cores->count,
        .codec = config->codec,
        .batch_bytes = config->batch_bytes,
        .batch_entries = config->batch_size,
        .batch_timeout_ns = config->batch_timeout_ms * 1000000,
        .window_bytes = config->window_bytes,
        .rdma = config->rdma,
        .heartbeat_ns = config->heartbeat_interval_ms * 1000000,
        .hello_timeout_ns = config->dial_timeout_ms * 1000000,
        .progress_timeout_ns = config->peer_timeout_ms * 1000000,
        .backoff_min_ns = config->reconnect_min_ms * 1000000,
        .backoff_max_ns = config->reconnect_max_ms * 1000000,
        .fault_retry_ns = config->reconnect_max_ms * 1000000,
        .inbox_cap_bytes = config->inbox_cap_bytes,
        .scrub_interval_ns = config->scrub_interval_s * 1000000000ull,
        .scrub_rate = config->scrub_rate_bytes_per_s,
        .sync_bytes = config->sync_bytes,
        .sync_delay_ns = config->sync_delay_us * 1000,
        .journal_direct = config->journal_io == CFSR_IO_DIRECT,
        .inbox_direct = config->inbox_io == CFSR_IO_DIRECT,
        .ack_written = config->ack == CFSR_ACK_WRITTEN,
        .seal = config->seal,
        .read_buffers = config->read_buffers,
        .batch_slots = config->batch_slots,
        .inbox_slots = config->inbox_slots,
        .strangers_max = STRANGERS_MAX,
    };
    memcpy(options->session_id, cores->session_id, sizeof options->session_id);
}

static int core_create_reactor(struct core *core, const struct cfsr_node_options *options)
{
    struct cfsr_reactor_options reactor = {
        .core_index = core->index,
        .cpu = core->cpu,
        .idle_spin_us = (uint32_t)core->cores->options.config->idle_spin_us,
        .slots = 1,
        .mailbox_entries = 2 * JOBS_PER_CORE,
    };
    int rc;

    core->memory_bytes = cfsr_align_up(cfsr_node_memory_bytes(options), CFSR_SLOT_ALIGN);
    if (core->memory_bytes > UINT32_MAX - CFSR_SLOT_ALIGN)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "core %u would need %llu bytes of buffers: lower --inbox-slots, "
                         "--batch-slots or --read-buffers",
                         core->index, (unsigned long long)core->memory_bytes);
    reactor.slot_bytes = (uint32_t)core->memory_bytes;
    rc = cfsr_reactor_create(&reactor, &core->reactor);
    if (rc < 0)
        return rc;
    core->memory = cfsr_slab_base(cfsr_reactor_slab(core->reactor));
    core->fs = cfsr_reactor_fs(core->reactor);
    cfsr_jobs_attach(core->cores->jobs, core->index, core->reactor);
    return 0;
}

/* Connections of RDMA that can be at once: to and from every core of every peer that shares a lane
 * with this one, and a reconnect of each direction that overlaps its predecessor. */
static uint32_t rdma_rings(const struct cfsr_node_options *options)
{
    uint32_t owned = (options->site->lanes + options->cores - 1) / options->cores, peers = 0;

    for (uint32_t i = 0; i < options->peer_count; i++)
        peers += options->peers[i].endpoint[CFSR_PATH_RDMA][0] != '\0';
    /* Who dials by RDMA need not be dialled so. */
    return (peers > 0 ? peers : 1) * 2 * (owned + 1) + RDMA_RINGS_SPARE;
}

/* The second group. What the device touches is registered once: the slab here, rings by the group.
 */
static int core_create_rdma(struct core *core, const struct cfsr_node_options *options,
                            struct cfsr_group_options group)
{
    const struct cfsr_serve_config *config = core->cores->options.config;
    const struct cfsr_transport *rdma = core->cores->options.rdma;
    struct cfsr_node_path *path = &core->path[CFSR_PATH_RDMA];
    const struct cfsr_rdma_options rdma_options = {
        .device = config->rdma_device,
        .gid_index = config->rdma_gid,
        .depth = config->rdma_depth,
        .poll_us = config->rdma_poll_us,
    };

    if (rdma == NULL) {
        path->unusable = core->cores->options.rdma_unusable;
        return 0;
    }
    group.recv_rings_max = rdma_rings(options);
    group.rdma = &rdma_options;
    int rc = rdma->group_create(&group, &path->group);
    if (rc == 0) {
        rc = rdma->memory_register(path->group, core->memory, core->memory_bytes);
        if (rc < 0)
            rdma->group_destroy(path->group);
    }
    if (rc == 0) {
        CFSR_ASSERT(rdma->event_fd(path->group) < 0); /* what wakes it is on the core's ring */
        path->transport = rdma;
        core->rdma_rings = group.recv_rings_max;
        return 0;
    }
    if (config->rdma == CFSR_RDMA_REQUIRE)
        return rc;
    path->unusable = rc;
    cfsr_log(CFSR_LOG_WARN, "rdma_unusable", CFSR_U("core", core->index),
             CFSR_S("reason", cfsr_error_name(rc)), CFSR_S("detail", cfsr_error_message()),
             CFSR_S("meaning", "this core's links use TCP"));
    return 0;
}

static int core_create_groups(struct core *core, const struct cfsr_node_options *options)
{
    struct cfsr_group_options group = {
        .opts_size = sizeof group,
        .ring = cfsr_reactor_ring(core->reactor),
        .timers = cfsr_reactor_timers(core->reactor),
        .conns_max = cfsr_node_accepts_max(options) + cfsr_node_dials_max(options),
        .frame_max_bytes = CFSR_FRAME_MAX_BYTES,
        .recv_ring_bytes = RECEIVE_RING_BYTES,
        .recv_rings_max = RECEIVE_RINGS,
        .send_gather_bytes = SEND_GATHER_BYTES,
    };
    int rc = cfsr_transport_tcp.group_create(&group, &core->path[CFSR_PATH_TCP].group);

    if (rc < 0)
        return rc;
    core->path[CFSR_PATH_TCP].transport = &cfsr_transport_tcp;
    return core_create_rdma(core, options, group);
}

static int core_create_node(struct core *core, const struct cfsr_node_options *options)
{
    struct cfsr_node_env env = {
        .user = core,
        .fs = core->fs,
        .blocking_fs = cfsr_fs_blocking(),
        .adopt_file = core_adopt_file,
        .page = core->cores->options.page,
        .submit_job = core_submit_job,
        .take_memory = core_take_memory,
        .random = core_random,
        .clock_ns = core_clock,
    };
    uint64_t now_ns = cfsr_clock_monotonic_ns();
    int rc = core_create_groups(core, options);

    if (rc < 0)
        return rc;
    memcpy(env.path, core->path, sizeof env.path);
    rc = cfsr_node_core_create(options, &env, now_ns, &core->node);
    for (uint32_t lane = 0; rc == 0 && lane < options->site->lanes; lane++)
        if (cfsr_node_core_lane_mask(core->node) >> lane & 1)
            rc = cfsr_node_core_add_lane(core->node, lane, &core->cores->options.inbox_state[lane],
                                         now_ns);
    return rc;
}

static int core_create(struct core *core)
{
    struct cfsr_node_options options;
    int rc;

    fill_options(core, &options);
    rc = core_create_reactor(core, &options);
    if (rc == 0)
        rc = core_create_node(core, &options);
    if (rc == 0)
        rc = cfsr_status_page_lease_take(core->cores->options.page,
                                         cfsr_node_core_lane_mask(core->node), &core->lease);
    if (rc < 0)
        return rc;
    core->lease_taken = true;
    core->wake_op.done = core_woken;
    core_arm_wake(core);
    return 0;
}

static void core_destroy(struct core *core)
{
    if (core->lease_taken)
        cfsr_status_page_lease_drop(core->cores->options.page, &core->lease);
    if (core->node != NULL && cfsr_node_core_is_drained(core->node)) {
        cfsr_node_core_destroy(core->node);
        for (unsigned i = 0; i < CFSR_PATHS; i++)
            if (core->path[i].transport != NULL)
                core->path[i].transport->group_destroy(core->path[i].group);
        cfsr_reactor_destroy(core->reactor);
    }
    /* Otherwise operations may be in flight: their memory stays until the process ends. */
}

static void *core_main(void *argument)
{
    struct core *core = argument;
    char name[16];
    const struct cfsr_reactor_handler handler = {
        .user = core,
        .tick = core_tick,
        .next_deadline_ns = core_next_deadline,
        .may_sleep = core_may_sleep,
        .wait_count = core_wait_count,
        .skip_spin = core_skip_spin,
    };

    snprintf(name, sizeof name, "cfsr-core-%u", core->index);
    pthread_setname_np(pthread_self(), name);
    core->result = core_create(core);
    snprintf(core->message, sizeof core->message, "%s", cfsr_error_message());
    sem_post(&core->stands);
    if (core->result == 0) {
        int rc = cfsr_reactor_run(core->reactor, &handler);
        if (rc < 0)
            cfsr_log(CFSR_LOG_ERROR, "core_failed", CFSR_U("core", core->index), CFSR_ERR(rc));
        core_destroy(core);
    }
    core->ended = true;
    return NULL;
}

/* ---- messages ---- */

static const struct cfsr_transport *transport_of(const struct cfsr_cores *cores,
                                                 enum cfsr_path path)
{
    return path == CFSR_PATH_RDMA ? cores->options.rdma : &cfsr_transport_tcp;
}

static void core_accept(const struct cfsr_message *message)
{
    struct core *core = (struct core *)(uintptr_t)message->args[0];
    enum cfsr_path path = (enum cfsr_path)message->args[1];

    if (core->path[path].transport == NULL) /* this core alone could not have it */
        transport_of(core->cores, path)->incoming_discard(message->object);
    else
        cfsr_node_core_accept(core->node, path, message->object,
                              cfsr_reactor_now_ns(core->reactor));
}

static void core_drain(const struct cfsr_message *message)
{
    struct core *core = message->object;
    cfsr_node_core_drain(core->node, cfsr_reactor_now_ns(core->reactor));
}

static void core_scrub(const struct cfsr_message *message)
{
    struct core *core = message->object;
    const struct cfsr_scrub_request request = {.run = message->args[0],
                                               .lane_mask = message->args[1],
                                               .parts = (unsigned)message->args[2],
                                               .rate_bytes_per_s = message->args[3]};
    cfsr_node_core_scrub(core->node, &request);
}

static void core_report(const struct cfsr_message *message)
{
    struct core *core = message->object;

    cfsr_node_core_status(core->node, &core->pending->node);
    for (unsigned i = 0; i < CFSR_PATHS; i++)
        if (core->path[i].transport != NULL)
            core->path[i].transport->stats(core->path[i].group, &core->pending->transport[i]);
    core->reporting = false;
    sem_post(&core->reported);
}

/* ---- control thread ---- */

void cfsr_cores_accept(struct cfsr_cores *cores, enum cfsr_path path,
                       struct cfsr_incoming *incoming, const struct cfsr_preamble *preamble)
{
    struct core *core =
        &cores->core[preamble->target_core < cores->count ? preamble->target_core : 0];
    struct cfsr_message message = {
        .run = core_accept, .object = incoming, .args = {(uintptr_t)core, path}};

    if (core->ended || !cfsr_reactor_post(core->reactor, &message))
        transport_of(cores, path)->incoming_discard(incoming);
}

static bool wait_for(sem_t *semaphore, uint32_t limit_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += limit_ms / 1000;
    until.tv_nsec += (long)(limit_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (sem_timedwait(semaphore, &until) < 0)
        if (errno != EINTR)
            return false;
    return true;
}

uint32_t cfsr_cores_report(struct cfsr_cores *cores, const struct cfsr_core_report **reports_out)
{
    for (uint32_t i = 0; i < cores->count; i++) {
        struct core *core = &cores->core[i];
        struct cfsr_message message = {.run = core_report, .object = core};
        /* One that did not answer in time is asked again only after it did. */
        if (core->ended || core->reporting)
            continue;
        core->reporting = true;
        while (sem_trywait(&core->reported) == 0)
            ; /* the answer to one that was given up on */
        if (!cfsr_reactor_post(core->reactor, &message))
            core->reporting = false;
    }
    for (uint32_t i = 0; i < cores->count; i++) {
        struct core *core = &cores->core[i];
        /* One that does not answer shows its last report; it may still be writing this one. */
        if (!core->ended && wait_for(&core->reported, 1000)) {
            cores->reports[i].node = core->pending->node;
            memcpy(cores->reports[i].transport, core->pending->transport,
                   sizeof cores->reports[i].transport);
        }
        (void)cfsr_ring_workers_sample(cfsr_reactor_tid(core->reactor), &cores->reports[i].workers);
    }
    *reports_out = cores->reports;
    return cores->count;
}

int cfsr_cores_scrub(struct cfsr_cores *cores, const struct cfsr_scrub_request *request)
{
    int rc = 0;

    for (uint32_t i = 0; i < cores->count; i++) {
        struct core *core = &cores->core[i];
        const struct cfsr_message message = {
            .run = core_scrub,
            .object = core,
            .args = {request->run, request->lane_mask, request->parts, request->rate_bytes_per_s}};
        if (core->ended || !cfsr_reactor_post(core->reactor, &message))
            rc = -EAGAIN;
    }
    return rc;
}

uint64_t cfsr_cores_memory_bytes(const struct cfsr_cores *cores)
{
    return cores->memory_bytes;
}

bool cfsr_cores_failed(const struct cfsr_cores *cores)
{
    for (uint32_t i = 0; i < cores->count; i++)
        if (cores->core[i].ended)
            return true;
    return false;
}

static void fill_peers(struct cfsr_cores *cores)
{
    const struct cfsr_serve_config *config = cores->options.config;

    for (uint32_t i = 0; i < config->peer_count; i++) {
        struct cfsr_node_peer *peer = &cores->peers[i];
        const struct cfsr_peer_config *from = &config->peer[i];
        peer->site_id = from->site_id;
        snprintf(peer->name, sizeof peer->name, "%s", from->name);
        for (unsigned path = 0; path < CFSR_PATHS; path++)
            snprintf(peer->endpoint[path], CFSR_ENDPOINT_MAX, "%.*s", CFSR_ENDPOINT_MAX - 1,
                     from->endpoint[path]);
        peer->page_index = cfsr_status_page_find_peer(cores->options.page, from->site_id);
        for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
            peer->acked_lsn[lane] = CFSR_LSN_UNKNOWN;
        for (uint32_t k = 0; k < cores->options.acks->peer_count; k++)
            if (cores->options.acks->peers[k].site_id == from->site_id)
                memcpy(peer->acked_lsn, cores->options.acks->peers[k].acked,
                       sizeof peer->acked_lsn);
    }
}

static int start_core(struct cfsr_cores *cores, uint32_t index)
{
    struct core *core = &cores->core[index];
    const struct cfsr_serve_config *config = cores->options.config;

    core->cores = cores;
    core->index = index;
    core->pending = calloc(1, sizeof *core->pending);
    if (core->pending == NULL)
        return -ENOMEM;
    core->cpu = config->core_cpu_count > 0 ? (int)config->core_cpu[index] : -1;
    sem_init(&core->stands, 0, 0);
    sem_init(&core->reported, 0, 0);
    int rc = pthread_create(&core->thread, NULL, core_main, core);
    if (rc != 0)
        return cfsr_fail(-rc, "cannot start core %u's thread", index);
    core->started = true;
    while (sem_wait(&core->stands) < 0)
        CFSR_ASSERT(errno == EINTR);
    if (core->result < 0)
        return cfsr_fail(core->result, "%s",
                         core->message[0] != '\0' ? core->message : cfsr_strerror(core->result));
    cores->reports[index] = (struct cfsr_core_report){
        .core = index,
        .cpu = core->cpu,
        .counters = cfsr_node_core_counters(core->node),
        .stages = cfsr_node_core_stages(core->node),
        .stats = cfsr_reactor_stats(core->reactor),
        .has_rdma = core->path[CFSR_PATH_RDMA].transport != NULL,
    };
    cores->memory_bytes += core->memory_bytes +
                           ((uint64_t)RECEIVE_RINGS + core->rdma_rings) * RECEIVE_RING_BYTES;
    return 0;
}

int cfsr_cores_start(const struct cfsr_cores_options *options, struct cfsr_cores **cores_out)
{
    struct cfsr_cores *cores = calloc(1, sizeof *cores);
    int rc;

    if (cores == NULL)
        return -ENOMEM;
    cores->options = *options;
    cores->count = options->config->core_count;
    cores->core = calloc(cores->count, sizeof *cores->core);
    cores->reports = calloc(cores->count, sizeof *cores->reports);
    rc = cores->core == NULL || cores->reports == NULL
             ? -ENOMEM
             : cfsr_jobs_create(cores->count, JOBS_PER_CORE, &cores->jobs);
    if (rc == 0) {
        fill_peers(cores);
        cfsr_random_bytes(cores->session_id, sizeof cores->session_id);
    }
    for (uint32_t i = 0; rc == 0 && i < cores->count; i++)
        rc = start_core(cores, i);
    if (rc < 0) {
        (void)cfsr_cores_stop(cores, 2000);
        return rc;
    }
    *cores_out = cores;
    return 0;
}

static void join_or_abandon(struct core *core, uint64_t until_ns, int *result)
{
    if (!core->started)
        return;
    while (!core->ended && cfsr_clock_monotonic_ns() < until_ns)
        (void)poll(NULL, 0, 1);
    if (!core->ended) {
        *result = -CFSR_E_TIMEOUT;
        return;
    }
    pthread_join(core->thread, NULL);
}

int cfsr_cores_stop(struct cfsr_cores *cores, uint32_t limit_ms)
{
    uint64_t until_ns = cfsr_clock_monotonic_ns() + limit_ms * 1000000ull;
    int result = 0;

    for (uint32_t i = 0; cores->core != NULL && i < cores->count; i++) {
        struct core *core = &cores->core[i];
        struct cfsr_message message = {.run = core_drain, .object = core};
        if (!core->started || core->ended || core->result < 0)
            continue;
        while (!cfsr_reactor_post(core->reactor, &message) && cfsr_clock_monotonic_ns() < until_ns)
            (void)poll(NULL, 0, 1);
    }
    for (uint32_t i = 0; cores->core != NULL && i < cores->count; i++)
        join_or_abandon(&cores->core[i], until_ns, &result);
    if (result < 0)
        return result; /* a core may still use all of this */
    cfsr_jobs_destroy(cores->jobs);
    for (uint32_t i = 0; cores->core != NULL && i < cores->count; i++) {
        free(cores->core[i].pending);
        if (!cores->core[i].started)
            continue;
        sem_destroy(&cores->core[i].stands);
        sem_destroy(&cores->core[i].reported);
    }
    free(cores->core);
    free(cores->reports);
    free(cores);
    return 0;
}
