/*
 * fuzz_admin.c - the admin socket: requests at the daemon, and its answer at `cfs admin`.
 *
 * Input: u8 what. Even: bytes for the daemon, sent in pieces of (1 + what / 2) bytes over a real
 * socket. Odd: a status document for the client.
 *
 * Properties: every line gets one answer line, an object; what is no object never reaches the
 * handler; one client's bytes do not cost another its connection; a status of any shape is printed
 * and judged.
 */
#include "fuzz.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/admin.h"
#include "control/admin.h"

enum {
    REQUEST_MAX = 70000,
    TURNS_MAX = 4000
};

static struct cfsr_admin *admin;
static char path[108];
static FILE *sink;

static json_t *handle(void *user, const json_t *request)
{
    (void)user;
    FUZZ_CHECK(json_is_object(request));
    return json_pack("{s:i}", "members", (int)json_object_size(request));
}

static void set_up(void)
{
    if (admin != NULL)
        return;
    (void)snprintf(path, sizeof path, "%.80s/admin.sock", fuzz_directory());
    FUZZ_CHECK(cfsr_admin_create(path, handle, NULL, &admin) == 0);
    sink = fopen("/dev/null", "w");
    FUZZ_CHECK(sink != NULL);
}

static void turn(void)
{
    struct pollfd fds[CFSR_ADMIN_CLIENTS_MAX + 1];
    unsigned count = cfsr_admin_poll_fds(admin, fds);

    (void)poll(fds, count, 0);
    cfsr_admin_turn(admin, fds, count, 1);
}

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    FUZZ_CHECK(fd >= 0);
    memcpy(address.sun_path, path, sizeof path);
    FUZZ_CHECK(connect(fd, (const struct sockaddr *)&address, sizeof address) == 0);
    turn();
    return fd;
}

/* Reads what is there; counts lines; false when the daemon closed. */
static bool drain(int fd, unsigned *lines)
{
    char answer[4096];
    ssize_t n;

    while ((n = recv(fd, answer, sizeof answer, MSG_DONTWAIT)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            *lines += answer[i] == '\n';
        FUZZ_CHECK(answer[0] == '{' || *lines > 0);
    }
    return n < 0 && errno == EAGAIN;
}

static void at_daemon(const uint8_t *data, size_t len_bytes, size_t piece)
{
    unsigned asked = 0, lines = 0, others = 0;
    int other = dial(), fd = dial();
    bool open = true;
    size_t at = 0;

    for (unsigned i = 0; i < TURNS_MAX && open && (at < len_bytes || i % 4 != 0); i++) {
        size_t want = len_bytes - at < piece ? len_bytes - at : piece;

        if (want > 0) {
            ssize_t n = send(fd, data + at, want, MSG_NOSIGNAL | MSG_DONTWAIT);

            for (ssize_t k = 0; k < n; k++)
                asked += data[at + (size_t)k] == '\n';
            at += n > 0 ? (size_t)n : 0;
        }
        turn();
        open = drain(fd, &lines);
    }
    for (unsigned i = 0; i < TURNS_MAX && open && lines < asked; i++) {
        unsigned before = lines;

        turn();
        open = drain(fd, &lines);
        if (lines == before && i > 8)
            break; /* the line that asks again must bring the next (one a turn) */
    }
    FUZZ_CHECK(lines <= asked);
    FUZZ_CHECK(send(other, "{}\n", 3, MSG_NOSIGNAL) == 3);
    for (unsigned i = 0; i < 3; i++)
        turn();
    FUZZ_CHECK(drain(other, &others) && others == 1);
    close(fd);
    close(other);
    turn();
    turn();
}

static void at_client(const uint8_t *data, size_t len_bytes)
{
    char why[256];
    json_error_t error;
    json_t *status = json_loadb((const char *)data, len_bytes, 0, &error);

    if (json_is_object(status)) {
        cfsr_admin_print_status(status, sink);
        if (!cfsr_admin_caught_up(status, why, sizeof why))
            FUZZ_CHECK(memchr(why, '\0', sizeof why) != NULL);
    }
    json_decref(status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t what = fuzz_u8(&reader);
    uint8_t *copy;

    set_up();
    if (reader.left > REQUEST_MAX)
        return 0;
    copy = fuzz_copy(reader.at, reader.left);
    if ((what & 1) != 0)
        at_client(copy, reader.left);
    else
        at_daemon(copy, reader.left, 1 + (size_t)what / 2 * 16);
    free(copy);
    return 0;
}

static void add(struct fuzz_corpus *corpus, const char *name, uint8_t what, const char *text)
{
    struct fuzz_seed seed = {0};

    fuzz_seed_u8(&seed, what);
    fuzz_seed_bytes(&seed, text, strlen(text));
    fuzz_seed_end(&seed, corpus, name);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    add(corpus, "status-request", 254, "{\"command\":\"status\"}\n");
    add(corpus, "two", 8, "{\"command\":\"status\"}\n{\"command\":\"scrub\",\"lane\":1}\n");
    add(corpus, "no-object", 254, "[1,2]\n\"x\"\n{\n");
    add(corpus, "half", 254, "{\"command\":");
    add(corpus, "status", 1,
        "{\"schema\":1,\"site\":1,\"name\":\"a\",\"links\":[{\"peer\":2,\"peer_name\":\"b\","
        "\"state\":\"STREAMING\",\"reason\":\"\",\"lag_entries\":0,\"lag_bytes\":null,"
        "\"caught_up\":true,\"lanes\":[{\"lane\":0,\"head\":1,\"acked\":1}]}],\"counters\":{},"
        "\"cores\":[],\"inbox\":[]}");
    add(corpus, "status-odd", 1, "{\"schema\":9,\"links\":{\"a\":[null]},\"site\":\"x\"}");
}
