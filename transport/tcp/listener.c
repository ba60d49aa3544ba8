/*
 * tcp/listener.c - accepts connections and reads their preambles without ever blocking.
 *
 * Thread:     the control thread; an accepted connection then travels to its core as a
 *             struct cfsr_incoming (the one allocation a connection costs, off the data cores).
 * Invariants: at most PENDING_MAX connections wait for a preamble, each until its deadline; never
 *             more than the 32 bytes of the preamble are read, the rest belongs to the core.
 *             When the places are full the oldest waiting connection makes room: silent clients
 *             cannot keep a speaking one out.
 * Rejected:   accept and read through a ring (the control thread has none), and a thread a
 *             connection (unbounded).
 */
#include "transport/tcp/tcp.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PENDING_MAX         64
#define PREAMBLE_TIMEOUT_NS (2ull * 1000 * 1000 * 1000)
#define BACKLOG             256
#define ACCEPTS_PER_CALL    64
#define EVENTS_PER_CALL     32
#define EVENT_LISTEN        UINT32_MAX

struct pending {
    int fd; /* -1: free place */
    uint64_t deadline_ns;
    unsigned got;
    uint8_t bytes[CFSR_PREAMBLE_BYTES];
};

struct cfsr_listener {
    int listen_fd;
    int epoll_fd; /* the listening socket and every pending one: readable when accept has work */
    int spare_fd; /* given up for a moment when descriptors run out, to refuse instead of spin */
    uint64_t dropped;
    char endpoint[CFSR_ENDPOINT_MAX];
    struct pending pending[PENDING_MAX];
};

static int listen_failed(const char *endpoint, int error)
{
    if (error == EADDRINUSE)
        return cfsr_fail(-error,
                         "cannot listen on %s: the address is in use; stop the process that holds "
                         "it (ss -ltnp shows it) or choose another port",
                         endpoint);
    if (error == EADDRNOTAVAIL)
        return cfsr_fail(-error,
                         "cannot listen on %s: no interface of this host has that address; use one "
                         "that `ip address` shows, 0.0.0.0 or [::]",
                         endpoint);
    if (error == EACCES)
        return cfsr_fail(-error,
                         "cannot listen on %s: ports below 1024 need CAP_NET_BIND_SERVICE; choose "
                         "a higher port",
                         endpoint);
    return cfsr_fail(-error, "cannot listen on %s: %s", endpoint, cfsr_strerror(-error));
}

static int open_socket(const char *endpoint, int *fd_out)
{
    struct sockaddr_storage address;
    socklen_t address_len;
    const int on = 1;
    int rc = cfsr_tcp_resolve(endpoint, true, &address, &address_len);
    int fd;

    if (rc < 0)
        return rc;
    fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return listen_failed(endpoint, errno);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (const struct sockaddr *)&address, address_len) < 0 || listen(fd, BACKLOG) < 0) {
        rc = listen_failed(endpoint, errno);
        close(fd);
        return rc;
    }
    *fd_out = fd;
    return 0;
}

static int watch(struct cfsr_listener *listener, int fd, uint32_t index)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.u32 = index};

    return epoll_ctl(listener->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int cfsr_tcp_listen(const char *endpoint, void *sim, struct cfsr_listener **listener_out)
{
    struct cfsr_listener *listener = calloc(1, sizeof *listener);
    int rc;

    (void)sim;
    if (listener == NULL)
        return cfsr_fail(-ENOMEM, "cannot listen on %s: out of memory", endpoint);
    for (unsigned i = 0; i < PENDING_MAX; i++)
        listener->pending[i].fd = -1;
    rc = open_socket(endpoint, &listener->listen_fd);
    if (rc < 0)
        goto free_listener;
    listener->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (listener->epoll_fd < 0) {
        rc = listen_failed(endpoint, errno);
        goto close_socket;
    }
    rc = watch(listener, listener->listen_fd, EVENT_LISTEN);
    if (rc < 0) {
        rc = listen_failed(endpoint, -rc);
        goto close_epoll;
    }
    listener->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cfsr_tcp_local_name(listener->listen_fd, listener->endpoint, sizeof listener->endpoint);
    *listener_out = listener;
    return 0;

close_epoll:
    close(listener->epoll_fd);
close_socket:
    close(listener->listen_fd);
free_listener:
    free(listener);
    return rc;
}

int cfsr_tcp_listener_fd(struct cfsr_listener *listener)
{
    return listener->epoll_fd;
}

const char *cfsr_tcp_listener_endpoint(struct cfsr_listener *listener)
{
    return listener->endpoint;
}

uint64_t cfsr_tcp_listener_dropped(const struct cfsr_listener *listener)
{
    return listener->dropped;
}

static void drop(struct cfsr_listener *listener, struct pending *pending, const char *why)
{
    char remote[CFSR_ENDPOINT_MAX];

    cfsr_tcp_remote_name(pending->fd, remote, sizeof remote);
    cfsr_log(CFSR_LOG_DEBUG, "connection_dropped", CFSR_S("remote", remote), CFSR_S("why", why));
    close(pending->fd); /* leaves the epoll set by itself: no other descriptor refers to it */
    pending->fd = -1;
    listener->dropped++;
}

static struct pending *place_for(struct cfsr_listener *listener)
{
    struct pending *oldest = &listener->pending[0];

    for (unsigned i = 0; i < PENDING_MAX; i++) {
        struct pending *pending = &listener->pending[i];
        if (pending->fd < 0)
            return pending;
        if (pending->deadline_ns < oldest->deadline_ns)
            oldest = pending;
    }
    drop(listener, oldest, "too many connections wait to introduce themselves");
    return oldest;
}

static int hand_over(struct cfsr_listener *listener, struct pending *pending,
                     struct cfsr_incoming **incoming_out)
{
    struct cfsr_incoming *incoming = malloc(sizeof *incoming);

    if (incoming == NULL) {
        drop(listener, pending, "out of memory");
        return -EAGAIN;
    }
    (void)epoll_ctl(listener->epoll_fd, EPOLL_CTL_DEL, pending->fd, NULL);
    incoming->fd = pending->fd;
    pending->fd = -1;
    *incoming_out = incoming;
    return 0;
}

/* Reads what there is of one preamble. 0: complete; -EAGAIN: not yet, or dropped. */
static int read_preamble(struct cfsr_listener *listener, struct pending *pending,
                         struct cfsr_incoming **incoming_out, struct cfsr_preamble *preamble_out)
{
    uint8_t magic[sizeof(uint64_t)];
    struct cfsr_preamble preamble;
    ssize_t n = recv(pending->fd, pending->bytes + pending->got, CFSR_PREAMBLE_BYTES - pending->got,
                     MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (n <= 0) {
        drop(listener, pending, "closed before its preamble");
        return -EAGAIN;
    }
    pending->got += (unsigned)n;
    cfsr_store_le64(magic, CFSR_PREAMBLE_MAGIC);
    if (memcmp(pending->bytes, magic, cfsr_min_u64(pending->got, sizeof magic)) != 0) {
        drop(listener, pending, "not a cfs-repl preamble");
        return -EAGAIN;
    }
    if (pending->got < CFSR_PREAMBLE_BYTES)
        return -EAGAIN;
    if (cfsr_preamble_load(pending->bytes, &preamble) < 0) {
        drop(listener, pending, "preamble of an unsupported version or kind");
        return -EAGAIN;
    }
    if (hand_over(listener, pending, incoming_out) < 0)
        return -EAGAIN;
    *preamble_out = preamble;
    return 0;
}

/* Out of descriptors: the connection is taken with the spare one and closed, or it would stay
 * readable for ever. */
static void refuse_one(struct cfsr_listener *listener)
{
    int fd;

    cfsr_log(CFSR_LOG_WARN, "accept_refused", CFSR_S("listener", listener->endpoint),
             CFSR_S("message", "out of file descriptors: raise LimitNOFILE"));
    if (listener->spare_fd >= 0)
        close(listener->spare_fd);
    fd = accept4(listener->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    listener->dropped++;
    listener->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Takes connections until one has introduced itself or none is left. */
static int accept_some(struct cfsr_listener *listener, uint64_t now_ns,
                       struct cfsr_incoming **incoming_out, struct cfsr_preamble *preamble_out)
{
    for (unsigned i = 0; i < ACCEPTS_PER_CALL; i++) {
        struct pending *pending;
        /* Not O_NONBLOCK: a ring answers -EAGAIN for such sockets instead of waiting. */
        int fd = accept4(listener->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                refuse_one(listener);
                return -EAGAIN;
            }
            if (errno == EAGAIN)
                return -EAGAIN;
            continue; /* a connection that failed meanwhile: not ours to report */
        }
        pending = place_for(listener);
        pending->fd = fd;
        pending->got = 0;
        pending->deadline_ns = now_ns + PREAMBLE_TIMEOUT_NS;
        if (watch(listener, fd, (uint32_t)(pending - listener->pending)) < 0) {
            drop(listener, pending, "cannot be watched");
            continue;
        }
        if (read_preamble(listener, pending, incoming_out, preamble_out) == 0)
            return 0;
    }
    return -EAGAIN;
}

static void drop_expired(struct cfsr_listener *listener, uint64_t now_ns)
{
    for (unsigned i = 0; i < PENDING_MAX; i++)
        if (listener->pending[i].fd >= 0 && listener->pending[i].deadline_ns <= now_ns)
            drop(listener, &listener->pending[i], "no preamble in time");
}

int cfsr_tcp_listener_accept(struct cfsr_listener *listener, uint64_t now_ns,
                             struct cfsr_incoming **incoming_out,
                             struct cfsr_preamble *preamble_out)
{
    struct epoll_event events[EVENTS_PER_CALL];
    int count;

    /* Every call ends within one batch of events: what is left stays readable. */
    count = epoll_wait(listener->epoll_fd, events, EVENTS_PER_CALL, 0);
    for (int i = 0; i < count; i++) {
        uint32_t index = events[i].data.u32;
        int rc;
        if (index == EVENT_LISTEN) {
            rc = accept_some(listener, now_ns, incoming_out, preamble_out);
        } else {
            if (listener->pending[index].fd < 0)
                continue; /* made room for another meanwhile */
            rc = read_preamble(listener, &listener->pending[index], incoming_out, preamble_out);
        }
        if (rc == 0)
            return 0;
    }
    drop_expired(listener, now_ns);
    return -EAGAIN;
}

uint64_t cfsr_tcp_listener_deadline(struct cfsr_listener *listener)
{
    uint64_t earliest = UINT64_MAX;

    for (unsigned i = 0; i < PENDING_MAX; i++)
        if (listener->pending[i].fd >= 0)
            earliest = cfsr_min_u64(earliest, listener->pending[i].deadline_ns);
    return earliest;
}

void cfsr_tcp_listener_close(struct cfsr_listener *listener)
{
    for (unsigned i = 0; i < PENDING_MAX; i++)
        if (listener->pending[i].fd >= 0)
            close(listener->pending[i].fd);
    if (listener->spare_fd >= 0)
        close(listener->spare_fd);
    close(listener->epoll_fd);
    close(listener->listen_fd);
    free(listener);
}

void cfsr_tcp_incoming_discard(struct cfsr_incoming *incoming)
{
    close(incoming->fd);
    free(incoming);
}
