/*
 * pair.c - forks the two sides of a floor run and joins them over loopback TCP.
 *
 * Thread: the program's only one; children end with _exit and never return to the caller.
 */
#include "bench/pair.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fail.h"
#include "bench/measure.h"

#define FILL_BYTES (1u << 20)

int bench_send_all(int socket, const void *buf, size_t len_bytes)
{
    const char *p = buf;

    while (len_bytes > 0) {
        ssize_t sent = send(socket, p, len_bytes, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -errno;
        p += sent;
        len_bytes -= (size_t)sent;
    }
    return 0;
}

int bench_recv_all(int socket, void *buf, size_t len_bytes)
{
    char *p = buf;

    while (len_bytes > 0) {
        ssize_t got = recv(socket, p, len_bytes, MSG_WAITALL);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EPIPE;
        p += got;
        len_bytes -= (size_t)got;
    }
    return 0;
}

static int fill_file(int fd, size_t len_bytes)
{
    char *zeros = calloc(1, FILL_BYTES);
    int rc = zeros == NULL ? -ENOMEM : 0;

    for (size_t at = 0; at < len_bytes && rc == 0; at += FILL_BYTES)
        if (pwrite(fd, zeros, FILL_BYTES, (off_t)at) != (ssize_t)FILL_BYTES)
            rc = errno != 0 ? -errno : -ENOSPC;
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    free(zeros);
    return rc;
}

int bench_open_recycled(const char *path, size_t len_bytes, int flags)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644), rc = 0;
    struct stat info;

    if (fd < 0 || fstat(fd, &info) != 0)
        rc = -errno;
    if (rc == 0 && (size_t)info.st_size < len_bytes)
        rc = fill_file(fd, len_bytes);
    if (rc == 0 && flags != 0) {
        close(fd);
        fd = open(path, O_RDWR | O_CLOEXEC | flags);
        rc = fd < 0 ? -errno : 0;
    }
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return cfsr_fail(rc, "cannot prepare %s", path);
}

static int listen_loopback(struct sockaddr_in *address_out)
{
    socklen_t len = sizeof *address_out;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address_out = (struct sockaddr_in){.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd >= 0 && bind(fd, (struct sockaddr *)address_out, sizeof *address_out) == 0 &&
        listen(fd, 1) == 0 && getsockname(fd, (struct sockaddr *)address_out, &len) == 0)
        return fd;
    return -errno;
}

/* Connects (A) or accepts (B). */
static int join_pair(int listener, const struct sockaddr_in *address, bool dial)
{
    int one = 1, fd;

    if (dial) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) != 0)
            return -errno;
    } else {
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return -errno;
    }
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        return -errno;
    return fd;
}

struct pair {
    int listener;
    struct sockaddr_in address;
    uint32_t cpu[2];
    bench_side side[2];
    void *argument, *shared;
};

static pid_t start_side(const struct pair *pair, unsigned which)
{
    pid_t pid = fork();
    int socket, rc;

    if (pid != 0)
        return pid;
    bench_pin(pair->cpu[which]);
    socket = join_pair(pair->listener, &pair->address, which == 0);
    if (which == 0)
        close(pair->listener); /* if B dies first, A must see a closed connection */
    rc = socket < 0 ? socket : pair->side[which](socket, pair->argument, pair->shared);
    if (rc < 0)
        fprintf(stderr, "side %c: %s: %s\n", 'A' + (int)which, cfsr_strerror(rc),
                cfsr_error_message());
    _exit(rc < 0 ? 1 : 0);
}

int bench_pair_run(const struct bench_settings *settings, bench_side side_a, bench_side side_b,
                   void *argument, void *shared)
{
    struct pair pair = {.cpu = {settings->cpu_a, settings->cpu_b},
                        .side = {side_a, side_b},
                        .argument = argument,
                        .shared = shared};
    int status[2] = {-1, -1};
    pid_t pid[2];

    pair.listener = listen_loopback(&pair.address);
    if (pair.listener < 0)
        return cfsr_fail(pair.listener, "cannot listen on loopback");
    pid[1] = start_side(&pair, 1);
    pid[0] = start_side(&pair, 0);
    close(pair.listener);
    for (unsigned i = 0; i < 2; i++)
        if (pid[i] > 0)
            (void)waitpid(pid[i], &status[i], 0);
    if (status[0] != 0 || status[1] != 0)
        return cfsr_fail(-CFSR_E_FAILED, "a side of the run failed; what it said stands above");
    return 0;
}
