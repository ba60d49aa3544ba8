/*
 * null/null.c - a transport to nowhere: takes frames, gives them back at the next poll.
 *
 * What is left when the network costs nothing: the bench measures the framework with it, and it is
 * the smallest complete example of the table. Nothing is ever received, and nothing can be
 * accepted.
 *
 * Thread:     the core that made the group.
 * Invariants: upcalls run from poll only; on_closed once, after every on_sent.
 */
#include "transport/transport.h"

#include "transport/send_queue.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/counters.h"
#include "base/fail.h"
#include "base/list.h"
#include "base/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct cfsr_group {
    struct cfsr_pool *conns;
    struct cfsr_list open;
    struct cfsr_list ready; /* poll has upcalls to make */
    struct cfsr_group_counters {
#define X(name) cfsr_counter name;
        CFSR_TRANSPORT_COUNTERS(X)
#undef X
    } counters;
};

struct cfsr_conn {
    struct cfsr_list open;
    struct cfsr_list ready;
    struct cfsr_group *group;
    const struct cfsr_conn_events *events;
    void *user;
    bool connected_owed;
    bool closing;
    uint64_t bytes_sent;
    char remote[CFSR_ENDPOINT_MAX];
    struct cfsr_send_queue queue;
    struct iovec iov[CFSR_SEND_IOV_MAX];
};

static int group_create(const struct cfsr_group_options *options, struct cfsr_group **group_out)
{
    struct cfsr_group *group;
    int rc;

    if (options->conns_max == 0)
        return cfsr_fail(-EINVAL, "the number of connections must not be 0");
    group = calloc(1, sizeof *group);
    if (group == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for a transport group");
    rc = cfsr_pool_create(sizeof(struct cfsr_conn), options->conns_max, &group->conns);
    if (rc < 0) {
        free(group);
        return rc;
    }
    cfsr_list_init(&group->open);
    cfsr_list_init(&group->ready);
    *group_out = group;
    return 0;
}

static void conn_destroy(struct cfsr_conn *conn)
{
    cfsr_list_remove(&conn->open);
    cfsr_list_remove(&conn->ready);
    cfsr_pool_give(conn->group->conns, conn);
}

static void group_destroy(struct cfsr_group *group)
{
    while (!cfsr_list_is_empty(&group->open))
        conn_destroy(CFSR_LIST_ENTRY(group->open.next, struct cfsr_conn, open));
    cfsr_pool_destroy(group->conns);
    free(group);
}

static void conn_ready(struct cfsr_conn *conn)
{
    if (cfsr_list_is_empty(&conn->ready))
        cfsr_list_push_back(&conn->group->ready, &conn->ready);
}

static unsigned run(struct cfsr_conn *conn, unsigned budget)
{
    unsigned work = 0;
    uint64_t cookie;

    if (conn->connected_owed && !conn->closing) {
        conn->connected_owed = false;
        conn->events->on_connected(conn->user, conn);
        work++;
    }
    while (work < budget && cfsr_send_queue_pop_sent(&conn->queue, conn->closing, &cookie)) {
        conn->events->on_sent(conn->user, conn, cookie);
        work++;
    }
    while (work < budget && !conn->closing && cfsr_send_queue_take_writable(&conn->queue)) {
        conn->events->on_writable(conn->user, conn);
        work++;
    }
    if (work >= budget) {
        conn_ready(conn); /* perhaps there is more */
        return work;
    }
    if (conn->closing) {
        while (cfsr_send_queue_pop_sent(&conn->queue, true, &cookie))
            conn->events->on_sent(conn->user, conn, cookie);
        cfsr_counter_add(&conn->group->counters.closes, 1);
        conn->events->on_closed(conn->user, conn, 0);
        conn_destroy(conn);
        work++;
    }
    return work;
}

static unsigned group_poll(struct cfsr_group *group, unsigned budget)
{
    struct cfsr_list *last = group->ready.prev;
    unsigned work = 0;

    /* Up to the one that is last now: what becomes ready meanwhile is for the next poll. */
    while (work < budget) {
        struct cfsr_list *node = cfsr_list_pop_front(&group->ready);
        if (node == NULL)
            break;
        work += run(CFSR_LIST_ENTRY(node, struct cfsr_conn, ready), budget - work);
        if (node == last)
            break;
    }
    return work;
}

static int group_event_fd(struct cfsr_group *group)
{
    (void)group;
    return -1;
}

static int group_arm(struct cfsr_group *group)
{
    return cfsr_list_is_empty(&group->ready) ? 0 : -EBUSY;
}

static int memory_register(struct cfsr_group *group, void *base, size_t len_bytes)
{
    (void)group;
    (void)base;
    (void)len_bytes;
    return 0;
}

static void memory_unregister(struct cfsr_group *group, void *base)
{
    (void)group;
    (void)base;
}

static int null_listen(const char *endpoint, void *sim, struct cfsr_listener **listener_out)
{
    (void)sim;
    (void)listener_out;
    return cfsr_fail(-ENOTSUP,
                     "%s: nothing ever arrives over the null transport, it can only be "
                     "dialled",
                     endpoint);
}

static int null_listener_fd(struct cfsr_listener *listener)
{
    (void)listener;
    return -1;
}

static const char *null_listener_endpoint(struct cfsr_listener *listener)
{
    (void)listener;
    return "";
}

static int null_listener_accept(struct cfsr_listener *listener, uint64_t now_ns,
                                struct cfsr_incoming **incoming_out,
                                struct cfsr_preamble *preamble_out)
{
    (void)listener;
    (void)now_ns;
    (void)incoming_out;
    (void)preamble_out;
    return -EAGAIN;
}

static void null_listener_close(struct cfsr_listener *listener)
{
    (void)listener;
}

static uint64_t null_listener_deadline(struct cfsr_listener *listener)
{
    (void)listener;
    return UINT64_MAX;
}

static uint64_t null_listener_dropped(const struct cfsr_listener *listener)
{
    (void)listener;
    return 0;
}

static void null_incoming_discard(struct cfsr_incoming *incoming)
{
    (void)incoming;
}

static int null_connect(struct cfsr_group *group, const char *endpoint,
                        const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                        const struct cfsr_conn_events *events, void *user,
                        struct cfsr_conn **conn_out)
{
    struct cfsr_conn *conn;

    (void)preamble;
    (void)timeout_ns;
    if (strlen(endpoint) >= sizeof conn->remote)
        return cfsr_fail(-CFSR_E_CONFIG, "endpoint is too long");
    conn = cfsr_pool_take(group->conns);
    if (conn == NULL)
        return cfsr_fail(-CFSR_E_POOL_EMPTY,
                         "cannot dial %s: all connections of this core are in "
                         "use",
                         endpoint);
    conn->group = group;
    conn->events = events;
    conn->user = user;
    conn->connected_owed = true;
    memcpy(conn->remote, endpoint, strlen(endpoint) + 1);
    cfsr_send_queue_init(&conn->queue);
    cfsr_list_init(&conn->ready);
    cfsr_list_push_back(&group->open, &conn->open);
    conn_ready(conn);
    cfsr_counter_add(&group->counters.connects, 1);
    *conn_out = conn;
    return 0;
}

static int null_accept(struct cfsr_group *group, struct cfsr_incoming *incoming,
                       const struct cfsr_conn_events *events, void *user,
                       struct cfsr_conn **conn_out)
{
    (void)group;
    (void)incoming;
    (void)events;
    (void)user;
    (void)conn_out;
    return -ENOTSUP;
}

static void null_close(struct cfsr_conn *conn, bool linger)
{
    (void)linger; /* what was taken is already sent */
    conn->closing = true;
    conn_ready(conn);
}

static int null_send(struct cfsr_conn *conn, enum cfsr_stream stream,
                     const struct cfsr_frame *frames, unsigned count)
{
    size_t bytes;
    int taken;

    if (conn->closing || conn->connected_owed)
        return -ENOTCONN;
    taken = cfsr_send_queue_push(&conn->queue, stream, frames, count);
    if (taken < 0)
        return taken;
    /* The list of pieces is built like for a real send, so that its cost is measured too. */
    (void)cfsr_send_queue_gather(&conn->queue, SIZE_MAX, conn->iov, CFSR_SEND_IOV_MAX, &bytes);
    cfsr_send_queue_advance(&conn->queue, bytes);
    conn->bytes_sent += bytes;
    cfsr_counter_add(&conn->group->counters.bytes_sent, bytes);
    cfsr_counter_add(&conn->group->counters.sends, 1);
    conn_ready(conn);
    return taken;
}

static void null_flush(struct cfsr_group *group)
{
    (void)group;
}

static void null_recv_release(struct cfsr_conn *conn, size_t len_bytes)
{
    (void)conn;
    CFSR_ASSERT(len_bytes == 0); /* nothing was ever received */
}

static void null_recv_resume(struct cfsr_conn *conn)
{
    (void)conn;
}

static void null_conn_info(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out)
{
    *info_out = (struct cfsr_conn_info){.bytes_sent = conn->bytes_sent};
    (void)snprintf(info_out->local, sizeof info_out->local, "null://local:0");
    memcpy(info_out->remote, conn->remote, sizeof info_out->remote);
}

static void null_stats(const struct cfsr_group *group, struct cfsr_transport_stats *stats_out)
{
#define X(name) stats_out->name = cfsr_counter_get(&group->counters.name);
    CFSR_TRANSPORT_COUNTERS(X)
#undef X
}

static int null_inject(struct cfsr_conn *conn, enum cfsr_inject fault)
{
    (void)conn;
    (void)fault;
    return -ENOTSUP;
}

const struct cfsr_transport cfsr_transport_null = {
    .name = "null",
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
    .listen = null_listen,
    .listener_fd = null_listener_fd,
    .listener_endpoint = null_listener_endpoint,
    .listener_accept = null_listener_accept,
    .listener_close = null_listener_close,
    .listener_deadline = null_listener_deadline,
    .listener_dropped = null_listener_dropped,
    .incoming_discard = null_incoming_discard,
    .connect = null_connect,
    .accept = null_accept,
    .close = null_close,
    .send = null_send,
    .flush = null_flush,
    .recv_release = null_recv_release,
    .recv_resume = null_recv_resume,
    .conn_info = null_conn_info,
    .stats = null_stats,
    .inject = null_inject,
};
