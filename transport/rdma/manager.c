/*
 * rdma/manager.c - connection management: addresses, dialling, accepting, and the events of both.
 *
 * Thread:   the core of the group; names, addresses and refusals also the control thread.
 * Ports:    no message of the connection manager is given to a port that is down. It would be lost,
 *           and soft-RoCE does not get over it: its queue pair 1 stays in error and no connection
 *           is made any more until the device is. So a dial is refused there, and the goodbye of a
 *           connection waits for the port, and a moment where sending has failed (at
 *           group_destroy() it does not).
 * Blocking: address and route are resolved by the connection manager in the background, each step
 *           within RESOLVE_MS. Making a queue pair is a call of the kernel of about a millisecond,
 *           at (re)dial only. Host names: as for TCP, at dial only.
 */
#include "transport/rdma/rdma.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#define RESOLVE_MS        2000
#define ACCEPT_NS         (2000ull * 1000 * 1000)
#define EVENTS_A_CALL     64
#define LEAVE_AGAIN_NS    (500ull * 1000 * 1000)
#define RETRY_COUNT       6  /* soft-RoCE takes 7 for: for ever */
#define RNR_RETRY_COUNT   6  /* 7 would mean for ever: a peer without posted slots is a fault */
#define LOCAL_ACK_TIMEOUT 16 /* 4.096 us << 16: 0.27 s; 6 retries: a dead path within seconds */
#define SLOT_BYTES_MIN    4096u
#define SLOT_BYTES_MAX    (1024u * 1024)

int cfsr_rdma_resolve(const char *endpoint, bool passive, struct sockaddr_storage *address_out)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char scheme[16];
    char host[CFSR_ENDPOINT_MAX];
    char service[8];
    uint16_t port;
    int rc;

    rc = cfsr_endpoint_parse(endpoint, scheme, sizeof scheme, host, sizeof host, &port);
    if (rc < 0)
        return rc;
    (void)snprintf(service, sizeof service, "%u", (unsigned)port);
    hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
    rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0)
        return cfsr_fail(rc == EAI_AGAIN ? -EHOSTUNREACH : -CFSR_E_CONFIG,
                         "%s: the host name %s cannot be resolved (%s); check it or use an address",
                         endpoint, host, gai_strerror(rc));
    CFSR_ASSERT(found->ai_addrlen <= sizeof *address_out);
    memset(address_out, 0, sizeof *address_out);
    memcpy(address_out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

void cfsr_rdma_name(const struct sockaddr *address, char *name_out, size_t name_len)
{
    char host[NI_MAXHOST];
    char service[NI_MAXSERV];
    socklen_t len = address != NULL && address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                                      : sizeof(struct sockaddr_in);

    if (address == NULL || getnameinfo(address, len, host, sizeof host, service, sizeof service,
                                       NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        (void)snprintf(name_out, name_len, "unknown");
    else
        (void)snprintf(name_out, name_len,
                       address->sa_family == AF_INET6 ? "rdma://[%s]:%s" : "rdma://%s:%s", host,
                       service);
}

/* ---- private data ---- */

void cfsr_rdma_geometry_store(const struct cfsr_rdma_geometry *geometry, void *bytes_out)
{
    uint8_t *bytes = bytes_out;

    cfsr_store_le32(bytes, CFSR_RDMA_MAGIC);
    cfsr_store_le16(bytes + 4, CFSR_RDMA_VERSION);
    cfsr_store_le16(bytes + 6, 0);
    cfsr_store_le32(bytes + 8, geometry->slot_bytes);
    cfsr_store_le32(bytes + 12, geometry->slots);
}

int cfsr_rdma_geometry_load(const void *bytes_in, struct cfsr_rdma_geometry *geometry_out)
{
    const uint8_t *bytes = bytes_in;
    struct cfsr_rdma_geometry geometry = {.slot_bytes = cfsr_load_le32(bytes + 8),
                                          .slots = cfsr_load_le32(bytes + 12)};

    if (cfsr_load_le32(bytes) != CFSR_RDMA_MAGIC)
        return -CFSR_E_FORMAT;
    if (cfsr_load_le16(bytes + 4) != CFSR_RDMA_VERSION)
        return -CFSR_E_VERSION;
    if (!cfsr_is_power_of_two(geometry.slot_bytes) || geometry.slot_bytes < SLOT_BYTES_MIN ||
        geometry.slot_bytes > SLOT_BYTES_MAX || geometry.slots < CFSR_RDMA_SLOTS_MIN ||
        geometry.slots > CFSR_RDMA_SLOTS_MAX)
        return -CFSR_E_FORMAT;
    *geometry_out = geometry;
    return 0;
}

void cfsr_rdma_refuse(struct rdma_cm_id *id, int error)
{
    uint8_t bytes[CFSR_RDMA_REFUSAL_BYTES];

    cfsr_store_le32(bytes, CFSR_RDMA_MAGIC);
    cfsr_store_le32(bytes + 4, (uint32_t)-error);
    (void)rdma_reject(id, bytes, sizeof bytes);
}

/* Why the peer refused: one of our error numbers, or whatever listens there is not ours. */
static int refusal_of(const uint8_t *bytes, size_t len)
{
    uint32_t number;

    if (len < CFSR_RDMA_REFUSAL_BYTES || cfsr_load_le32(bytes) != CFSR_RDMA_MAGIC)
        return -ECONNREFUSED;
    number = cfsr_load_le32(bytes + 4);
    return number >= CFSR_E_FORMAT && number < 5000 ? -(int)number : -ECONNREFUSED;
}

/* ---- the end of an id ---- */

static bool port_is_down(const struct rdma_cm_id *id)
{
    struct ibv_port_attr port;

    return id->verbs != NULL && ibv_query_port(id->verbs, id->port_num, &port) == 0 &&
           port.state != IBV_PORT_ACTIVE;
}

/* Where sending failed the port may be going down: the device says so a little later. */
static bool is_of_the_path(int failure)
{
    return failure == -EIO || failure == -ETIMEDOUT || failure == -ENETDOWN;
}

bool cfsr_rdma_may_say_goodbye(const struct rdma_cm_id *id, int failure)
{
    return failure == -ENODEV || (!is_of_the_path(failure) && !port_is_down(id));
}

static void leave_again(struct cfsr_timer *timer, uint64_t now_ns)
{
    struct cfsr_group *group = CFSR_CONTAINER_OF(timer, struct cfsr_group, leaving_timer);
    uint32_t count = group->leaving_count;

    (void)now_ns;
    group->leaving_count = 0;
    for (uint32_t i = 0; i < count; i++)
        cfsr_rdma_leave(group, group->leaving[i], 0);
}

void cfsr_rdma_leaving_init(struct cfsr_group *group)
{
    cfsr_timer_init(&group->leaving_timer, leave_again);
}

void cfsr_rdma_leave(struct cfsr_group *group, struct rdma_cm_id *id, int failure)
{
    if (group->timers == NULL || group->tearing_down ||
        group->leaving_count == group->places_count || cfsr_rdma_may_say_goodbye(id, failure)) {
        (void)rdma_destroy_id(id);
        return;
    }
    id->context = NULL; /* its events are nobody's */
    group->leaving[group->leaving_count++] = id;
    if (!group->leaving_timer.is_armed)
        cfsr_timer_add(group->timers, &group->leaving_timer,
                       cfsr_clock_monotonic_ns() + LEAVE_AGAIN_NS);
}

void cfsr_rdma_leave_all(struct cfsr_group *group)
{
    if (group->timers != NULL)
        cfsr_timer_cancel(group->timers, &group->leaving_timer);
    while (group->leaving_count > 0)
        (void)rdma_destroy_id(group->leaving[--group->leaving_count]);
}

/* The kernel waits for the end of every id of a device that goes. */
static void left_device_gone(struct cfsr_group *group, const struct rdma_cm_id *id)
{
    for (uint32_t i = 0; i < group->leaving_count; i++) {
        if (group->leaving[i] != id)
            continue;
        (void)rdma_destroy_id(group->leaving[i]);
        group->leaving[i] = group->leaving[--group->leaving_count];
        return;
    }
}

/* ---- dial and accept ---- */

static int start_dial(struct cfsr_conn *conn, const char *endpoint, uint64_t timeout_ns)
{
    struct cfsr_group *group = conn->group;
    struct sockaddr_storage address;
    uint8_t ack_timeout = LOCAL_ACK_TIMEOUT;
    int rc = cfsr_rdma_resolve(endpoint, false, &address);

    if (rc < 0)
        return rc;
    cfsr_rdma_name((const struct sockaddr *)&address, conn->remote, sizeof conn->remote);
    if (rdma_create_id(group->manager, &conn->id, conn, RDMA_PS_TCP) != 0) {
        conn->id = NULL;
        return cfsr_fail(-errno, "cannot dial %s: %s", endpoint, cfsr_strerror(-errno));
    }
    /* Not every kernel knows it; the default of a few seconds does then. */
    (void)rdma_set_option(conn->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &ack_timeout,
                          sizeof ack_timeout);
    if (rdma_resolve_addr(conn->id,
                          group->source.ss_family != 0 ? (struct sockaddr *)&group->source : NULL,
                          (struct sockaddr *)&address,
                          (int)cfsr_min_u64(timeout_ns / 1000000 + 1, RESOLVE_MS)) != 0)
        return cfsr_fail(-errno, "cannot dial %s over RDMA device %s: %s", endpoint,
                         ibv_get_device_name(group->verbs->device), cfsr_strerror(-errno));
    return 0;
}

int cfsr_rdma_connect(struct cfsr_group *group, const char *endpoint,
                      const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                      const struct cfsr_conn_events *events, void *user,
                      struct cfsr_conn **conn_out)
{
    struct cfsr_conn *conn;
    int rc = cfsr_rdma_conn_create(group, events, user, &conn);

    if (rc < 0)
        return cfsr_fail_context(rc, "cannot dial %s", endpoint);
    conn->state = CFSR_RDMA_RESOLVING;
    conn->dialled = true;
    cfsr_preamble_store(preamble, conn->preamble);
    rc = start_dial(conn, endpoint, timeout_ns);
    if (rc < 0) {
        cfsr_rdma_conn_destroy(conn);
        return rc;
    }
    cfsr_rdma_timer_start(conn, &conn->timer, timeout_ns);
    *conn_out = conn;
    return 0;
}

static int answer(struct cfsr_conn *conn)
{
    uint8_t geometry[CFSR_RDMA_GEOMETRY_BYTES];
    struct rdma_conn_param parameters = {
        .private_data = geometry,
        .private_data_len = sizeof geometry,
        .flow_control = 1,
        .rnr_retry_count = RNR_RETRY_COUNT,
    };
    int rc = cfsr_rdma_queue_pair_create(conn);

    if (rc < 0)
        return rc;
    cfsr_rdma_credits_start(&conn->credits, conn->peer.slots);
    cfsr_rdma_geometry_store(&conn->group->geometry, geometry);
    if (rdma_accept(conn->id, &parameters) != 0)
        return cfsr_fail(-errno, "cannot accept an RDMA connection: %s", cfsr_strerror(-errno));
    return 0;
}

int cfsr_rdma_accept(struct cfsr_group *group, struct cfsr_incoming *incoming,
                     const struct cfsr_conn_events *events, void *user, struct cfsr_conn **conn_out)
{
    struct cfsr_conn *conn;
    int rc = cfsr_rdma_conn_create(group, events, user, &conn);

    if (rc < 0) {
        cfsr_rdma_refuse(incoming->id, rc);
        (void)rdma_destroy_id(incoming->id);
        cfsr_rdma_listener_put(incoming->listener);
        free(incoming);
        return cfsr_fail_context(rc, "cannot accept an RDMA connection");
    }
    conn->state = CFSR_RDMA_ACCEPTING;
    conn->id = incoming->id;
    conn->id->context = conn;
    conn->peer = incoming->geometry;
    if (rdma_migrate_id(conn->id, group->manager) != 0) {
        rc = cfsr_fail(-errno, "cannot take an RDMA connection over: %s", cfsr_strerror(-errno));
        conn->id = NULL;
        cfsr_rdma_incoming_discard(incoming);
        cfsr_rdma_conn_destroy(conn);
        return rc;
    }
    cfsr_rdma_listener_put(incoming->listener);
    free(incoming);
    rc = answer(conn);
    if (rc < 0) {
        cfsr_rdma_refuse(conn->id, rc);
        cfsr_rdma_conn_destroy(conn);
        return rc;
    }
    cfsr_rdma_timer_start(conn, &conn->timer, ACCEPT_NS);
    *conn_out = conn;
    return 0;
}

/* ---- events ---- */

static void route_resolved(struct cfsr_conn *conn)
{
    uint8_t request[CFSR_RDMA_REQUEST_BYTES];
    struct rdma_conn_param parameters = {
        .private_data = request,
        .private_data_len = sizeof request,
        .flow_control = 1,
        .retry_count = RETRY_COUNT,
        .rnr_retry_count = RNR_RETRY_COUNT,
    };
    int rc = cfsr_rdma_queue_pair_create(conn);

    memcpy(request, conn->preamble, CFSR_PREAMBLE_BYTES);
    cfsr_rdma_geometry_store(&conn->group->geometry, request + CFSR_PREAMBLE_BYTES);
    if (rc == 0 && rdma_connect(conn->id, &parameters) != 0)
        rc = -errno;
    if (rc < 0)
        cfsr_rdma_conn_fail(conn, rc);
    else
        conn->state = CFSR_RDMA_CONNECTING;
}

static void established(struct cfsr_conn *conn, const uint8_t *bytes, size_t len)
{
    int rc;

    if (conn->state == CFSR_RDMA_ACCEPTING) {
        cfsr_rdma_conn_opened(conn);
        return;
    }
    if (conn->state != CFSR_RDMA_CONNECTING)
        return; /* opened by the first message, or closing */
    rc = len < CFSR_RDMA_GEOMETRY_BYTES ? -CFSR_E_FORMAT
                                        : cfsr_rdma_geometry_load(bytes, &conn->peer);
    if (rc < 0) {
        cfsr_rdma_conn_fail(conn, rc);
        return;
    }
    cfsr_rdma_credits_start(&conn->credits, conn->peer.slots);
    cfsr_rdma_conn_opened(conn);
}

static void resolved(struct cfsr_conn *conn)
{
    if (port_is_down(conn->id))
        cfsr_rdma_conn_fail(conn, -ENETDOWN);
    else if (rdma_resolve_route(conn->id, RESOLVE_MS) != 0)
        cfsr_rdma_conn_fail(conn, -errno);
}

/* status: a negative errno for most events. */
static int error_of(enum rdma_cm_event_type type, int status)
{
    if (type == RDMA_CM_EVENT_UNREACHABLE && (status == 0 || status == -ETIMEDOUT))
        return -ETIMEDOUT;
    return status < 0 && status > -CFSR_E_FORMAT ? status : -EHOSTUNREACH;
}

static void handle(struct cfsr_conn *conn, enum rdma_cm_event_type type, int status,
                   const uint8_t *bytes, size_t len)
{
    if (conn->state == CFSR_RDMA_CLOSING)
        return;
    switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED: resolved(conn); break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED: route_resolved(conn); break;
    case RDMA_CM_EVENT_ESTABLISHED: established(conn, bytes, len); break;
    case RDMA_CM_EVENT_REJECTED: cfsr_rdma_conn_fail(conn, refusal_of(bytes, len)); break;
    case RDMA_CM_EVENT_DISCONNECTED:
        /* What arrived before it is in the completion queue and comes first. */
        (void)cfsr_rdma_completions(conn->group, UINT32_MAX);
        cfsr_rdma_conn_fail(conn, -ECONNRESET);
        break;
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE: cfsr_rdma_conn_fail(conn, error_of(type, status)); break;
    case RDMA_CM_EVENT_DEVICE_REMOVAL: cfsr_rdma_conn_fail(conn, -ENODEV); break;
    case RDMA_CM_EVENT_ADDR_CHANGE: cfsr_rdma_conn_fail(conn, -ENETDOWN); break;
    default: break; /* the end of TIME_WAIT and events of other kinds of connections */
    }
}

unsigned cfsr_rdma_manager_events(struct cfsr_group *group)
{
    struct rdma_cm_event *event;
    unsigned work = 0;

    while (work < EVENTS_A_CALL && rdma_get_cm_event(group->manager, &event) == 0) {
        struct rdma_cm_id *id = event->id;
        struct cfsr_conn *conn = id->context;
        enum rdma_cm_event_type type = event->event;
        int status = event->status;
        uint8_t bytes[CFSR_RDMA_GEOMETRY_BYTES] = {0};
        size_t len = 0;
        if (event->param.conn.private_data != NULL &&
            (type == RDMA_CM_EVENT_ESTABLISHED || type == RDMA_CM_EVENT_REJECTED)) {
            len = cfsr_min_u64(event->param.conn.private_data_len, sizeof bytes);
            memcpy(bytes, event->param.conn.private_data, len);
        }
        if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
            cfsr_rdma_device_removed(id->verbs);
        (void)rdma_ack_cm_event(event); /* before anything can destroy its connection */
        if (conn != NULL)
            handle(conn, type, status, bytes, len);
        else if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
            left_device_gone(group, id);
        work++;
    }
    return work;
}
