/*
 * tcp/dial.c - addresses, socket options and connect.
 *
 * Thread:   the core of the group (connect) or the control thread (names, resolve for listen).
 * Blocking: numeric addresses never block. A host name is looked up with getaddrinfo() on the
 *           caller's thread, because the C library has no other way; that happens at (re)dial only,
 *           never while data flows. Sites that cannot afford it configure addresses.
 */
#include "transport/tcp/tcp.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#include <errno.h>
#include <liburing.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define KEEPALIVE_IDLE_S     15
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES     4
/*
 * Unacknowledged data, and a closed window too: the kernel counts both. So it must be longer than
 * any stall the protocol above allows (it has its own progress deadlines), yet far below the 15
 * minutes the kernel would retry for.
 */
#define USER_TIMEOUT_MS (5 * 60 * 1000)

int cfsr_tcp_socket_options(int fd)
{
    const struct {
        int level, name, value;
    } options[] = {
        /* Frames are gathered here; waiting for more below would only add delay. */
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS},
        /* SO_SNDBUF and SO_RCVBUF are left alone: setting them turns autotuning off. */
    };

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(options); i++)
        if (setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                       sizeof options[i].value) < 0)
            return -errno;
    return 0;
}

int cfsr_tcp_resolve(const char *endpoint, bool passive, struct sockaddr_storage *address_out,
                     socklen_t *address_len_out)
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
    hints.ai_flags = AI_NUMERICSERV | AI_NUMERICHOST | (passive ? AI_PASSIVE : 0);
    rc = getaddrinfo(host, service, &hints, &found);
    if (rc == EAI_NONAME) {
        hints.ai_flags &= ~AI_NUMERICHOST;
        rc = getaddrinfo(host, service, &hints, &found);
    }
    if (rc != 0)
        return cfsr_fail(rc == EAI_AGAIN ? -EHOSTUNREACH : -CFSR_E_CONFIG,
                         "%s: the host name %s cannot be resolved (%s); check it or use an address",
                         endpoint, host, gai_strerror(rc));
    CFSR_ASSERT(found->ai_addrlen <= sizeof *address_out);
    memcpy(address_out, found->ai_addr, found->ai_addrlen);
    *address_len_out = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static void format_name(const struct sockaddr_storage *address, socklen_t address_len,
                        char *name_out, size_t name_len)
{
    char host[NI_MAXHOST];
    char service[NI_MAXSERV];

    if (getnameinfo((const struct sockaddr *)address, address_len, host, sizeof host, service,
                    sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)snprintf(name_out, name_len, "unknown");
        return;
    }
    (void)snprintf(name_out, name_len,
                   address->ss_family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s", host, service);
}

void cfsr_tcp_local_name(int fd, char *name_out, size_t name_len)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;

    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        len = 0;
    format_name(&address, len, name_out, name_len);
}

void cfsr_tcp_remote_name(int fd, char *name_out, size_t name_len)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;

    if (getpeername(fd, (struct sockaddr *)&address, &len) < 0)
        len = 0;
    format_name(&address, len, name_out, name_len);
}

static void connect_done(struct cfsr_ring_op *op, int res, uint32_t flags)
{
    struct cfsr_conn *conn = CFSR_CONTAINER_OF(op, struct cfsr_conn, connect_op);

    (void)flags;
    conn->connect_in_flight = false;
    if (conn->state == CFSR_TCP_CONNECTING) {
        cfsr_tcp_timer_stop(conn);
        if (res == 0) {
            conn->state = CFSR_TCP_OPEN;
            conn->connected_owed = true;
            cfsr_counter_add(&conn->group->counters.connects, 1);
            cfsr_tcp_send_want(conn); /* the preamble, whether or not frames follow */
        } else {
            conn->failure = res;
        }
    }
    cfsr_tcp_operation_done(conn);
}

int cfsr_tcp_connect(struct cfsr_group *group, const char *endpoint,
                     const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                     const struct cfsr_conn_events *events, void *user, struct cfsr_conn **conn_out)
{
    struct sockaddr_storage address;
    struct io_uring_sqe *sqe;
    struct cfsr_conn *conn;
    socklen_t address_len;
    int rc;
    int fd;

    rc = cfsr_tcp_resolve(endpoint, false, &address, &address_len);
    if (rc < 0)
        return rc;
    fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cfsr_fail(-errno, "cannot dial %s: no socket: %s", endpoint, cfsr_strerror(-errno));
    rc = cfsr_tcp_conn_create(group, fd, events, user, &conn);
    if (rc < 0) {
        close(fd);
        return cfsr_fail_context(rc, "cannot dial %s", endpoint);
    }
    conn->address = address;
    conn->connect_op.done = connect_done;
    sqe = cfsr_ring_sqe(group->ring, &conn->connect_op);
    io_uring_prep_connect(sqe, fd, (const struct sockaddr *)&conn->address, address_len);
    conn->state = CFSR_TCP_CONNECTING;
    conn->connect_in_flight = true;
    conn->operations++;
    conn->preamble_left = CFSR_PREAMBLE_BYTES;
    cfsr_preamble_store(preamble, conn->preamble);
    cfsr_tcp_timer_start(conn, timeout_ns);
    *conn_out = conn;
    return 0;
}
