/*
 * admin.c - the admin socket (admin.h).
 *
 * Thread:     control thread.
 * Invariants: a client has one request being read or one answer being written, never both;
 * everything is bounded.
 */
#include "control/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "base/log.h"

#define REQUEST_MAX_BYTES  (64u << 10)
#define ANSWER_DEADLINE_NS 5000000000ull

struct client {
    int fd; /* -1: free */
    uint32_t request_bytes;
    char *answer; /* NULL: reading */
    size_t answer_bytes, answer_sent;
    uint64_t deadline_ns;
    char request[REQUEST_MAX_BYTES];
};

struct cfsr_admin {
    int listen_fd;
    cfsr_admin_handler *handler;
    void *user;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct client client[CFSR_ADMIN_CLIENTS_MAX];
};

static int fill_address(const char *path, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path)
        return cfsr_fail(
            -CFSR_E_CONFIG,
            "admin socket path %s is too long (%zu characters at most): set --admin-socket", path,
            sizeof address->sun_path - 1);
    memcpy(address->sun_path, path, strlen(path) + 1);
    return 0;
}

/* Removes a socket file that nobody answers on. */
static int remove_stale(const char *path, const struct sockaddr_un *address)
{
    int rc = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
        rc = cfsr_fail(-EADDRINUSE, "admin socket %s: another daemon answers there", path);
    else if (errno == ECONNREFUSED && unlink(path) < 0 && errno != ENOENT)
        rc = cfsr_fail(-errno, "cannot remove the stale admin socket %s", path);
    close(fd);
    return rc;
}

int cfsr_admin_create(const char *path, cfsr_admin_handler *handler, void *user,
                      struct cfsr_admin **admin_out)
{
    struct sockaddr_un address;
    struct cfsr_admin *admin;
    int rc = fill_address(path, &address);

    if (rc == 0)
        rc = remove_stale(path, &address);
    if (rc < 0)
        return rc;
    admin = calloc(1, sizeof *admin);
    if (admin == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < CFSR_ADMIN_CLIENTS_MAX; i++)
        admin->client[i].fd = -1;
    admin->handler = handler;
    admin->user = user;
    memcpy(admin->path, address.sun_path, sizeof admin->path);
    admin->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t old = umask(0077);
    if (admin->listen_fd < 0 ||
        bind(admin->listen_fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(admin->listen_fd, CFSR_ADMIN_CLIENTS_MAX) < 0)
        rc = cfsr_fail(-errno, "cannot listen on the admin socket %s", path);
    umask(old);
    if (rc < 0) {
        if (admin->listen_fd >= 0)
            close(admin->listen_fd);
        free(admin);
        return rc;
    }
    *admin_out = admin;
    return 0;
}

static void drop(struct client *client)
{
    close(client->fd);
    free(client->answer);
    client->answer = NULL;
    client->fd = -1;
}

void cfsr_admin_destroy(struct cfsr_admin *admin)
{
    if (admin == NULL)
        return;
    for (unsigned i = 0; i < CFSR_ADMIN_CLIENTS_MAX; i++)
        if (admin->client[i].fd >= 0)
            drop(&admin->client[i]);
    close(admin->listen_fd);
    unlink(admin->path);
    free(admin);
}

static void answer_with(struct client *client, json_t *answer, uint64_t now_ns)
{
    char *text = answer != NULL ? json_dumps(answer, JSON_COMPACT) : NULL;
    size_t len = text != NULL ? strlen(text) : 0;

    json_decref(answer);
    if (text == NULL) {
        drop(client);
        return;
    }
    text[len] = '\n'; /* in place of the NUL: the length is kept beside it */
    client->answer = text;
    client->answer_bytes = len + 1;
    client->answer_sent = 0;
    client->deadline_ns = now_ns + ANSWER_DEADLINE_NS;
}

static bool is_permitted(int fd)
{
    struct ucred credentials;
    socklen_t len = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) < 0)
        return false;
    return credentials.uid == 0 || credentials.uid == geteuid();
}

static void accept_client(struct cfsr_admin *admin, uint64_t now_ns)
{
    struct client *client = NULL;
    int fd;

    for (unsigned i = 0; i < CFSR_ADMIN_CLIENTS_MAX && client == NULL; i++)
        if (admin->client[i].fd < 0)
            client = &admin->client[i];
    if (client == NULL)
        return; /* waits in the backlog */
    fd = accept4(admin->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    client->fd = fd;
    client->request_bytes = 0;
    client->deadline_ns = UINT64_MAX; /* a watcher may keep its connection */
    if (!is_permitted(fd)) {
        cfsr_log(CFSR_LOG_WARN, "admin_refused", CFSR_S("reason", "peer credentials"));
        answer_with(client,
                    json_pack("{s:s,s:s}", "error", "permission", "message",
                              "only root and the daemon's own user may use the admin socket"),
                    now_ns);
    }
}

static void write_answer(struct client *client)
{
    ssize_t n = send(client->fd, client->answer + client->answer_sent,
                     client->answer_bytes - client->answer_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        drop(client);
        return;
    }
    client->answer_sent += (size_t)n;
    if (client->answer_sent < client->answer_bytes)
        return;
    free(client->answer);
    client->answer = NULL;
    client->deadline_ns = UINT64_MAX;
    if (!is_permitted(client->fd))
        drop(client);
}

static void handle_line(struct cfsr_admin *admin, struct client *client, size_t len,
                        uint64_t now_ns)
{
    json_error_t error;
    json_t *request = json_loadb(client->request, len, JSON_REJECT_DUPLICATES, &error);
    json_t *answer;

    if (json_is_object(request))
        answer = admin->handler(admin->user, request);
    else
        answer = json_pack("{s:s,s:s}", "error", "format", "message",
                           "a request is one JSON object on one line");
    json_decref(request);
    client->request_bytes -= (uint32_t)len + 1;
    memmove(client->request, client->request + len + 1, client->request_bytes);
    answer_with(client, answer, now_ns);
    if (client->fd >= 0)
        write_answer(client);
}

static void read_request(struct cfsr_admin *admin, struct client *client, uint64_t now_ns)
{
    ssize_t n = recv(client->fd, client->request + client->request_bytes,
                     REQUEST_MAX_BYTES - client->request_bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(client);
        return;
    }
    client->request_bytes += (uint32_t)n;
    const char *end = memchr(client->request, '\n', client->request_bytes);
    if (end != NULL)
        handle_line(admin, client, (size_t)(end - client->request), now_ns);
    else if (client->request_bytes == REQUEST_MAX_BYTES)
        drop(client);
}

unsigned cfsr_admin_poll_fds(const struct cfsr_admin *admin, struct pollfd *fds_out)
{
    unsigned count = 0;
    fds_out[count++] = (struct pollfd){.fd = admin->listen_fd, .events = POLLIN};
    for (unsigned i = 0; i < CFSR_ADMIN_CLIENTS_MAX; i++)
        if (admin->client[i].fd >= 0)
            fds_out[count++] = (struct pollfd){
                .fd = admin->client[i].fd,
                .events = admin->client[i].answer != NULL ? POLLOUT : POLLIN,
            };
    return count;
}

static struct client *client_of(struct cfsr_admin *admin, int fd)
{
    for (unsigned i = 0; i < CFSR_ADMIN_CLIENTS_MAX; i++)
        if (admin->client[i].fd == fd)
            return &admin->client[i];
    return NULL;
}

void cfsr_admin_turn(struct cfsr_admin *admin, const struct pollfd *fds, unsigned count,
                     uint64_t now_ns)
{
    CFSR_ASSERT(count >= 1);
    for (unsigned i = 1; i < count; i++) {
        struct client *client = client_of(admin, fds[i].fd);
        if (client == NULL || fds[i].revents == 0)
            continue;
        if (client->answer != NULL)
            write_answer(client);
        else
            read_request(admin, client, now_ns);
    }
    for (unsigned i = 0; i < CFSR_ADMIN_CLIENTS_MAX; i++)
        if (admin->client[i].fd >= 0 && now_ns >= admin->client[i].deadline_ns)
            drop(&admin->client[i]);
    if (fds[0].revents & POLLIN)
        accept_client(admin, now_ns);
}
