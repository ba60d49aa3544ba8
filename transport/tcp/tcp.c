/*
 * tcp/tcp.c - the TCP transport over the core's io_uring: its table, group life, poll and flush.
 *
 * Thread:     the core that made the group; the listener part belongs to the control thread.
 * Owns:       the pool of connections, the pool of receive rings, the lists of connections that
 *             have something to do. Steady state allocates nothing.
 * Invariants: upcalls run from poll only; flush only prepares submissions, the core submits once a
 *             turn for everything.
 */
#include "transport/tcp/tcp.h"

#include "transport/turn.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#include <errno.h>
#include <stdlib.h>

#define RECEIVE_LOW_BYTES (64u * 1024)
#define TEAR_DOWN_WAIT_NS (10ull * 1000 * 1000)

static int check_options(const struct cfsr_group_options *options)
{
    if (options->ring == NULL)
        return cfsr_fail(-EINVAL, "the TCP transport needs the core's ring");
    if (options->conns_max == 0 || options->recv_rings_max == 0 || options->send_gather_bytes == 0)
        return cfsr_fail(-EINVAL,
                         "connections, receive rings and the size of a send must not be 0");
    if (!cfsr_is_power_of_two(options->recv_ring_bytes) ||
        options->recv_ring_bytes / 2 < options->frame_max_bytes ||
        options->recv_ring_bytes < CFSR_TCP_SMALL_BYTES)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "a receive ring of %u bytes must be a power of two, at least two frames "
                         "of %u bytes and %d bytes",
                         options->recv_ring_bytes, options->frame_max_bytes, CFSR_TCP_SMALL_BYTES);
    return 0;
}

static void destroy_rings(struct cfsr_group *group)
{
    for (uint32_t i = 0; i < group->rings_count; i++)
        cfsr_mirror_destroy(&group->rings[i].mirror);
    free(group->rings);
}

static int create_rings(struct cfsr_group *group, const struct cfsr_group_options *options)
{
    group->rings = calloc(options->recv_rings_max, sizeof *group->rings);
    if (group->rings == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for %u receive rings", options->recv_rings_max);
    for (uint32_t i = 0; i < options->recv_rings_max; i++) {
        int rc = cfsr_mirror_create(options->recv_ring_bytes, &group->rings[i].mirror);
        if (rc < 0) {
            destroy_rings(group);
            return cfsr_fail_context(rc, "receive ring %u of %u", i, options->recv_rings_max);
        }
        cfsr_list_push_back(&group->rings_free, &group->rings[i].link);
        group->rings_count++;
    }
    return 0;
}

static int group_create(const struct cfsr_group_options *options, struct cfsr_group **group_out)
{
    struct cfsr_group *group;
    int rc = check_options(options);

    if (rc < 0)
        return rc;
    group = calloc(1, sizeof *group);
    if (group == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for a transport group");
    group->ring = options->ring;
    group->timers = options->timers;
    group->recv_ring_bytes = options->recv_ring_bytes;
    group->recv_low_bytes = (uint32_t)cfsr_min_u64(RECEIVE_LOW_BYTES, options->recv_ring_bytes / 8);
    group->send_gather_bytes = options->send_gather_bytes;
    cfsr_list_init(&group->open);
    cfsr_list_init(&group->ready);
    cfsr_list_init(&group->dirty);
    cfsr_list_init(&group->ring_wait);
    cfsr_list_init(&group->ring_held);
    cfsr_list_init(&group->rings_free);
    rc = cfsr_pool_create(sizeof(struct cfsr_conn), options->conns_max, &group->conns);
    if (rc < 0)
        goto free_group;
    group->discard = malloc(CFSR_TCP_DISCARD_BYTES);
    if (group->discard == NULL) {
        rc = cfsr_fail(-ENOMEM, "out of memory for a transport group");
        goto destroy_pool;
    }
    rc = create_rings(group, options);
    if (rc < 0)
        goto free_discard;
    *group_out = group;
    return 0;

free_discard:
    free(group->discard);
destroy_pool:
    cfsr_pool_destroy(group->conns);
free_group:
    free(group);
    return rc;
}

/* Silently ends what is still open: upcalls come from poll only, and there will be none. */
static void tear_down(struct cfsr_group *group)
{
    struct cfsr_list *node;
    struct cfsr_list *after;

    CFSR_LIST_FOR_EACH(node, &group->open)
    cfsr_tcp_conn_shut(CFSR_LIST_ENTRY(node, struct cfsr_conn, open), -CFSR_E_SHUTDOWN);
    while (!cfsr_list_is_empty(&group->open)) {
        CFSR_LIST_FOR_EACH_SAFE(node, after, &group->open)
        {
            struct cfsr_conn *conn = CFSR_LIST_ENTRY(node, struct cfsr_conn, open);
            if (conn->operations == 0)
                cfsr_tcp_conn_destroy(conn);
        }
        if (!cfsr_list_is_empty(&group->open))
            (void)cfsr_ring_submit_and_reap(group->ring, TEAR_DOWN_WAIT_NS);
    }
}

static void group_destroy(struct cfsr_group *group)
{
    tear_down(group);
    destroy_rings(group);
    free(group->discard);
    cfsr_pool_destroy(group->conns);
    free(group);
}

static unsigned run(struct cfsr_list *node, unsigned budget_left)
{
    return cfsr_tcp_conn_run(CFSR_LIST_ENTRY(node, struct cfsr_conn, ready), budget_left);
}

static unsigned group_poll(struct cfsr_group *group, unsigned budget)
{
    group->polls++;
    cfsr_tcp_receive_rings_reclaim(group);
    return cfsr_turn(&group->ready, 0, budget, run);
}

static void group_flush(struct cfsr_group *group)
{
    struct cfsr_list *node;

    while ((node = cfsr_list_pop_front(&group->dirty)) != NULL)
        cfsr_tcp_send_start(CFSR_LIST_ENTRY(node, struct cfsr_conn, dirty));
}

static int group_event_fd(struct cfsr_group *group)
{
    (void)group;
    return -1; /* completions arrive on the core's ring */
}

static int group_arm(struct cfsr_group *group)
{
    return cfsr_list_is_empty(&group->ready) && cfsr_list_is_empty(&group->dirty) ? 0 : -EBUSY;
}

static int memory_register(struct cfsr_group *group, void *base, size_t len_bytes)
{
    (void)group;
    (void)base;
    (void)len_bytes;
    return 0; /* sockets take any memory */
}

static void memory_unregister(struct cfsr_group *group, void *base)
{
    (void)group;
    (void)base;
}

static void group_stats(const struct cfsr_group *group, struct cfsr_transport_stats *stats_out)
{
#define X(name) stats_out->name = cfsr_counter_get(&group->counters.name);
    CFSR_TRANSPORT_COUNTERS(X)
#undef X
}

const struct cfsr_transport cfsr_transport_tcp = {
    .name = "tcp",
    .api_version = CFSR_TRANSPORT_API_VERSION,
    .table_bytes = sizeof(struct cfsr_transport),
    .caps = 0,
    .group_create = group_create,
    .group_destroy = group_destroy,
    .poll = group_poll,
    .event_fd = group_event_fd,
    .arm = group_arm,
    .memory_register = memory_register,
    .memory_unregister = memory_unregister,
    .listen = cfsr_tcp_listen,
    .listener_fd = cfsr_tcp_listener_fd,
    .listener_endpoint = cfsr_tcp_listener_endpoint,
    .listener_accept = cfsr_tcp_listener_accept,
    .listener_close = cfsr_tcp_listener_close,
    .listener_deadline = cfsr_tcp_listener_deadline,
    .listener_dropped = cfsr_tcp_listener_dropped,
    .incoming_discard = cfsr_tcp_incoming_discard,
    .connect = cfsr_tcp_connect,
    .accept = cfsr_tcp_accept,
    .close = cfsr_tcp_close,
    .send = cfsr_tcp_send,
    .flush = group_flush,
    .recv_release = cfsr_tcp_recv_release,
    .recv_resume = cfsr_tcp_recv_resume,
    .conn_info = cfsr_tcp_conn_info,
    .stats = group_stats,
    .inject = cfsr_tcp_inject,
};
