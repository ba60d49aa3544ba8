/*
 * rdma/rdma.c - the RDMA transport over rdma_cm and verbs: its table, group life, poll and flush.
 *
 * Thread:     the core that made the group; the listener part belongs to the control thread.
 * Owns:       one device, one completion queue and channel, rings and connections, all made at
 *             start. Steady state allocates nothing and makes no system call on devices that map
 *             their doorbells.
 * Invariants: upcalls run from poll only. Completions are looked for in every poll; the core may
 *             sleep only after arm() asked for an event and looked once more (what came between
 *             would never wake it).
 *             Before that arm() keeps the core looking for poll_ns: doubled, up to --rdma-poll-us,
 *             each time looking was rewarded, halved each time it was not.
 */
#include "transport/rdma/rdma.h"

#include "transport/turn.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>

#define DEPTH_DEFAULT          64u
#define SEND_DEPTH_MIN         32u
#define SEND_DEPTH_DEFAULT     128u
#define INLINE_DEFAULT         256u
#define CREDIT_TIMEOUT_NS      (5ull * 60 * 1000 * 1000 * 1000)
#define COMPLETIONS_A_LOOK     32
#define COMPLETIONS_A_POLL     256
#define POLL_STEP_NS           1000u
#define TEAR_DOWN_WAIT_NS      (10ull * 1000 * 1000)
#define GENERATION_MASK        0x7ffu
#define PLACES_MAX             (1u << 20)
#define WR_ID_PLACE_SHIFT      44
#define WR_ID_GENERATION_SHIFT 33
#define WR_ID_DIRECTION_SHIFT  32

uint64_t cfsr_rdma_wr_id(const struct cfsr_conn *conn, unsigned direction, uint32_t sequence)
{
    return (uint64_t)conn->place << WR_ID_PLACE_SHIFT |
           (uint64_t)(conn->generation & GENERATION_MASK) << WR_ID_GENERATION_SHIFT |
           (uint64_t)direction << WR_ID_DIRECTION_SHIFT | sequence;
}

static struct cfsr_conn *conn_of(struct cfsr_group *group, uint64_t wr_id)
{
    struct cfsr_conn *conn = group->places[wr_id >> WR_ID_PLACE_SHIFT].conn;

    if (conn == NULL || !conn->has_queue_pair ||
        (conn->generation & GENERATION_MASK) != (wr_id >> WR_ID_GENERATION_SHIFT & GENERATION_MASK))
        return NULL;
    return conn;
}

/*
 * A receive of ours is posted as it should be, in memory of its own: it can fail only for what the
 * peer sent, and that is a message larger than the slot. LOC_LEN_ERR is the name for it. Soft-RoCE
 * has two others: its copy says EINVAL where its responder looks for ENOSPC and takes the request
 * for malformed (LOC_QP_OP_ERR); where it does see the length it reports the answer it gives the
 * peer (REM_INV_REQ_ERR).
 */
static int error_of(unsigned direction, enum ibv_wc_status status)
{
    if (direction == CFSR_RDMA_WR_RECEIVE &&
        (status == IBV_WC_LOC_QP_OP_ERR || status == IBV_WC_REM_INV_REQ_ERR))
        return -CFSR_E_BAD_FRAME;
    switch (status) {
    case IBV_WC_RETRY_EXC_ERR: return -ETIMEDOUT; /* the path or the peer is gone */
    case IBV_WC_RNR_RETRY_EXC_ERR: return -CFSR_E_BACKPRESSURE;
    case IBV_WC_LOC_LEN_ERR: return -CFSR_E_BAD_FRAME; /* larger than a slot */
    case IBV_WC_WR_FLUSH_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR: return -ECONNRESET;
    default: return -EIO;
    }
}

static void completion_failed(struct cfsr_conn *conn, unsigned direction, uint32_t sequence,
                              enum ibv_wc_status status)
{
    if (direction == CFSR_RDMA_WR_SEND)
        cfsr_rdma_send_flushed(conn, sequence);
    else
        conn->flushing_receives--;
    if (conn->state == CFSR_RDMA_CLOSING)
        cfsr_rdma_conn_ready(conn); /* perhaps the last one it waits for */
    else
        cfsr_rdma_conn_fail(conn, error_of(direction, status));
}

/* The one place every completion passes. */
static void complete(struct cfsr_group *group, struct ibv_wc *completion)
{
    struct cfsr_conn *conn = conn_of(group, completion->wr_id);
    unsigned direction = completion->wr_id >> WR_ID_DIRECTION_SHIFT & 1;
    uint32_t sequence = (uint32_t)completion->wr_id;

    if (conn == NULL)
        return; /* of a queue pair that is gone */
    if (conn->fault_completion && completion->status == IBV_WC_SUCCESS) {
        conn->fault_completion = false;
        completion->status = IBV_WC_GENERAL_ERR;
    }
    if (completion->status != IBV_WC_SUCCESS) {
        completion_failed(conn, direction, sequence, completion->status);
    } else if (direction == CFSR_RDMA_WR_SEND) {
        cfsr_rdma_send_done(conn, sequence);
    } else {
        CFSR_ASSERT(sequence == (uint32_t)conn->next_slot || conn->failure != 0 ||
                    conn->state == CFSR_RDMA_CLOSING);
        cfsr_rdma_received(conn, completion->byte_len, ntohl(completion->imm_data),
                           (completion->wc_flags & IBV_WC_WITH_IMM) != 0);
    }
}

unsigned cfsr_rdma_completions(struct cfsr_group *group, unsigned limit)
{
    struct ibv_wc completions[COMPLETIONS_A_LOOK];
    unsigned work = 0;
    int count;

    do {
        count = ibv_poll_cq(group->cq, COMPLETIONS_A_LOOK, completions);
        CFSR_ASSERT(count >= 0);
        for (int i = 0; i < count; i++)
            complete(group, &completions[i]);
        work += (unsigned)count;
    } while (count == COMPLETIONS_A_LOOK && work < limit);
    return work;
}

/* ---- group ---- */

static int check_options(const struct cfsr_group_options *options, uint32_t depth)
{
    if (options->ring == NULL)
        return cfsr_fail(-EINVAL, "the RDMA transport needs the core's ring");
    if (options->conns_max == 0 || options->conns_max >= PLACES_MAX || options->recv_rings_max == 0)
        return cfsr_fail(-EINVAL, "the number of connections and receive rings must not be 0");
    if (!cfsr_is_power_of_two(options->recv_ring_bytes) ||
        options->recv_ring_bytes / 2 < options->frame_max_bytes)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "a receive ring of %u bytes must be a power of two and at least two "
                         "frames of %u bytes",
                         options->recv_ring_bytes, options->frame_max_bytes);
    if (!cfsr_is_power_of_two(depth) || depth < CFSR_RDMA_SLOTS_MIN ||
        depth > CFSR_RDMA_SLOTS_MAX || options->recv_ring_bytes / depth < CFSR_SLOT_ALIGN ||
        options->recv_ring_bytes / depth > 1024 * 1024)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "--rdma-depth %u must be a power of two from %u to %u that cuts a receive "
                         "ring of %u bytes into slots of 4 KiB to 1 MiB",
                         depth, CFSR_RDMA_SLOTS_MIN, CFSR_RDMA_SLOTS_MAX, options->recv_ring_bytes);
    return 0;
}

static void manager_event(struct cfsr_ring_op *op, int res, uint32_t flags)
{
    struct cfsr_group *group = CFSR_CONTAINER_OF(op, struct cfsr_group, manager_op);

    (void)flags;
    group->manager_watched = false;
    group->manager_ready = res >= 0;
}

static void completion_event(struct cfsr_ring_op *op, int res, uint32_t flags)
{
    struct cfsr_group *group = CFSR_CONTAINER_OF(op, struct cfsr_group, completion_op);

    (void)flags;
    group->completion_watched = false;
    group->completion_ready = res >= 0;
}

static void watch(struct cfsr_group *group, struct cfsr_ring_op *op, int fd, bool *watched)
{
    if (*watched)
        return;
    io_uring_prep_poll_add(cfsr_ring_sqe(group->ring, op), fd, POLLIN);
    *watched = true;
}

static void apply(struct cfsr_group *group, const struct cfsr_group_options *options,
                  const struct cfsr_rdma_options *rdma)
{
    uint32_t depth = rdma->depth != 0 ? rdma->depth : DEPTH_DEFAULT;

    group->ring = options->ring;
    group->timers = options->timers;
    group->recv_ring_bytes = options->recv_ring_bytes;
    group->frame_max_bytes = options->frame_max_bytes;
    group->geometry.slots = depth;
    group->geometry.slot_bytes = options->recv_ring_bytes / depth;
    group->send_depth = rdma->send_depth != 0 ? rdma->send_depth : SEND_DEPTH_DEFAULT;
    if (group->send_depth < SEND_DEPTH_MIN)
        group->send_depth = SEND_DEPTH_MIN;
    group->inline_bytes = rdma->inline_bytes > 0   ? (uint32_t)rdma->inline_bytes
                          : rdma->inline_bytes < 0 ? 0
                                                   : INLINE_DEFAULT;
    group->poll_max_ns = (uint64_t)rdma->poll_us * 1000;
    group->credit_timeout_ns = rdma->credit_timeout_ms != 0 ? rdma->credit_timeout_ms * 1000000ull
                                                            : CREDIT_TIMEOUT_NS;
    group->rings_count = (uint32_t)cfsr_min_u64(options->recv_rings_max,
                                                options->conns_max); /* to be made */
    group->manager_op.done = manager_event;
    group->completion_op.done = completion_event;
    cfsr_list_init(&group->open);
    cfsr_list_init(&group->ready);
    cfsr_list_init(&group->dirty);
    cfsr_list_init(&group->rings_free);
}

static int group_create(const struct cfsr_group_options *options, struct cfsr_group **group_out)
{
    static const struct cfsr_rdma_options defaults = {.gid_index = -1};
    const struct cfsr_rdma_options *rdma = options->rdma != NULL ? options->rdma : &defaults;
    struct cfsr_group *group;
    int rc = check_options(options, rdma->depth != 0 ? rdma->depth : DEPTH_DEFAULT);

    if (rc < 0)
        return rc;
    group = calloc(1, sizeof *group);
    if (group == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for a transport group");
    apply(group, options, rdma);
    group->places_count = options->conns_max;
    group->places = calloc(options->conns_max, sizeof *group->places);
    group->leaving = calloc(options->conns_max, sizeof *group->leaving);
    if (group->places == NULL || group->leaving == NULL) {
        rc = cfsr_fail(-ENOMEM, "out of memory for a transport group");
        goto free_places;
    }
    cfsr_rdma_leaving_init(group);
    rc = cfsr_pool_create(sizeof(struct cfsr_conn), options->conns_max, &group->conns);
    if (rc < 0)
        goto free_places;
    rc = cfsr_rdma_device_open(group, rdma);
    if (rc < 0)
        goto close_device;
    watch(group, &group->manager_op, group->manager->fd, &group->manager_watched);
    *group_out = group;
    return 0;

close_device:
    cfsr_rdma_device_close(group);
    cfsr_pool_destroy(group->conns);
free_places:
    free(group->leaving);
    free(group->places);
    free(group);
    return rc;
}

/* Silently ends what is still open: upcalls come from poll only, and there will be none. */
static void tear_down(struct cfsr_group *group)
{
    group->tearing_down = true;
    cfsr_rdma_leave_all(group);
    while (!cfsr_list_is_empty(&group->open)) {
        struct cfsr_conn *conn = CFSR_LIST_ENTRY(group->open.next, struct cfsr_conn, open);
        cfsr_rdma_conn_shut(conn, -CFSR_E_SHUTDOWN);
        cfsr_rdma_conn_destroy(conn);
    }
    if (group->manager_watched)
        cfsr_ring_cancel(group->ring, &group->manager_op);
    if (group->completion_watched)
        cfsr_ring_cancel(group->ring, &group->completion_op);
    while (group->manager_watched || group->completion_watched)
        (void)cfsr_ring_submit_and_reap(group->ring, TEAR_DOWN_WAIT_NS);
}

static void group_destroy(struct cfsr_group *group)
{
    tear_down(group);
    CFSR_ASSERT(group->rings_held ==
                0); /* what is held is dropped first: its disk may still read */
    CFSR_ASSERT(group->bounce_free_count == CFSR_RDMA_BOUNCES && group->cq_reserved == 0);
    cfsr_rdma_device_close(group);
    cfsr_pool_destroy(group->conns);
    free(group->leaving);
    free(group->places);
    free(group);
}

static void take_completion_event(struct cfsr_group *group)
{
    struct ibv_cq *cq;
    void *context;
    unsigned count = 0;

    while (ibv_get_cq_event(group->completions, &cq, &context) == 0)
        count++;
    if (count > 0)
        ibv_ack_cq_events(group->cq, count);
    group->completion_ready = false;
    group->notify_asked = false;
}

static unsigned run(struct cfsr_list *node, unsigned budget_left)
{
    return cfsr_rdma_conn_run(CFSR_LIST_ENTRY(node, struct cfsr_conn, ready), budget_left);
}

/* The device is gone: connections end, as after any fault, and when none is left the group gives up
 * what it has there. Dials and accepts say -ENODEV from then on. */
static void leave_device(struct cfsr_group *group)
{
    struct cfsr_list *node;

    if (!group->device_gone) {
        group->device_gone = true;
        cfsr_log(CFSR_LOG_WARN, "rdma_device_gone",
                 CFSR_S("device", ibv_get_device_name(group->verbs->device)),
                 CFSR_S("meaning", "its links use TCP; restart to use RDMA again"));
        for (node = group->open.next; node != &group->open; node = node->next)
            cfsr_rdma_conn_fail(CFSR_LIST_ENTRY(node, struct cfsr_conn, open), -ENODEV);
    }
    if (group->conns_open > 0)
        return;
    cfsr_rdma_leave_all(group);
    if (group->completion_watched) { /* a watched file stays open */
        if (!group->completion_cancelled)
            cfsr_ring_cancel(group->ring, &group->completion_op);
        group->completion_cancelled = true;
        return;
    }
    take_completion_event(group);
    cfsr_rdma_device_release(group);
    group->device_released = true;
}

static unsigned group_poll(struct cfsr_group *group, unsigned budget)
{
    unsigned work = 0;

    if (group->manager_ready) {
        group->manager_ready = false;
        work += cfsr_rdma_manager_events(group);
        watch(group, &group->manager_op, group->manager->fd, &group->manager_watched);
    }
    if (group->completion_ready)
        take_completion_event(group);
    if (group->conns_open > 0 && cfsr_rdma_completions(group, COMPLETIONS_A_POLL) > 0)
        group->found_work = true;
    work = cfsr_turn(&group->ready, work, budget, run);
    if (!group->device_released && cfsr_rdma_device_is_gone(group))
        leave_device(group);
    return work;
}

static void group_flush(struct cfsr_group *group)
{
    struct cfsr_list *node;

    while ((node = cfsr_list_pop_front(&group->dirty)) != NULL)
        cfsr_rdma_send_start(CFSR_LIST_ENTRY(node, struct cfsr_conn, dirty));
}

static int group_event_fd(struct cfsr_group *group)
{
    (void)group;
    return -1; /* its descriptors are watched by the core's ring */
}

/* True while it is worth looking on instead of sleeping. */
static bool keep_looking(struct cfsr_group *group)
{
    uint64_t now_ns;

    if (group->poll_max_ns == 0)
        return false;
    now_ns = cfsr_clock_monotonic_ns();
    if (group->found_work) {
        group->found_work = false;
        group->poll_ns = cfsr_min_u64(group->poll_max_ns, group->poll_ns * 2 + POLL_STEP_NS);
        group->idle_since_ns = now_ns;
    }
    if (now_ns - group->idle_since_ns < group->poll_ns)
        return true;
    if (!group->notify_asked)
        group->poll_ns /= 2;
    return false;
}

static int group_arm(struct cfsr_group *group)
{
    if (!cfsr_list_is_empty(&group->ready) || !cfsr_list_is_empty(&group->dirty) ||
        group->manager_ready || group->completion_ready)
        return -EBUSY;
    if (group->conns_open == 0)
        return 0;
    if (cfsr_rdma_completions(group, COMPLETIONS_A_POLL) > 0) {
        group->found_work = true;
        return -EBUSY;
    }
    if (keep_looking(group))
        return -EBUSY;
    if (!group->notify_asked) {
        if (ibv_req_notify_cq(group->cq, 0) != 0)
            return -EBUSY; /* looks on */
        group->notify_asked = true;
        cfsr_counter_add(&group->counters.event_waits, 1);
        if (cfsr_rdma_completions(group, COMPLETIONS_A_POLL) > 0)
            return -EBUSY;
    }
    watch(group, &group->completion_op, group->completions->fd, &group->completion_watched);
    return 0;
}

static void group_stats(const struct cfsr_group *group, struct cfsr_transport_stats *stats_out)
{
#define X(name) stats_out->name = cfsr_counter_get(&group->counters.name);
    CFSR_TRANSPORT_COUNTERS(X)
#undef X
}

const struct cfsr_transport cfsr_transport_rdma = {
    .name = "rdma",
    .api_version = CFSR_TRANSPORT_API_VERSION,
    .table_bytes = sizeof(struct cfsr_transport),
    .caps = CFSR_TRANSPORT_MESSAGES | CFSR_TRANSPORT_REGISTERED | CFSR_TRANSPORT_SLOTS,
    .group_create = group_create,
    .group_destroy = group_destroy,
    .poll = group_poll,
    .event_fd = group_event_fd,
    .arm = group_arm,
    .memory_register = cfsr_rdma_region_add,
    .memory_unregister = cfsr_rdma_region_remove,
    .listen = cfsr_rdma_listen,
    .listener_fd = cfsr_rdma_listener_fd,
    .listener_endpoint = cfsr_rdma_listener_endpoint,
    .listener_accept = cfsr_rdma_listener_accept,
    .listener_close = cfsr_rdma_listener_close,
    .listener_deadline = cfsr_rdma_listener_deadline,
    .listener_dropped = cfsr_rdma_listener_dropped,
    .incoming_discard = cfsr_rdma_incoming_discard,
    .connect = cfsr_rdma_connect,
    .accept = cfsr_rdma_accept,
    .close = cfsr_rdma_close,
    .send = cfsr_rdma_send,
    .flush = group_flush,
    .recv_release = cfsr_rdma_recv_release,
    .recv_resume = cfsr_rdma_recv_resume,
    .recv_hold = cfsr_rdma_recv_hold,
    .recv_drop = cfsr_rdma_recv_drop,
    .conn_info = cfsr_rdma_conn_info,
    .stats = group_stats,
    .inject = cfsr_rdma_inject,
};
