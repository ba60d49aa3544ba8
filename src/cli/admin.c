/*
 * admin.c - `cfs admin replication status` and `wait`: asks the daemon over its Unix socket.
 *
 * Thread: the main thread. One JSON object a line each way: {"command":"status"} and the answer. A
 * version or two apart the daemon may know more than this program shows: unknown members are passed
 * over, --json prints the answer as it came.
 */
#include "cli/admin.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "cli/admin_options.h"
#include "cli/command.h"
#include "control/serve_config.h"

#define ANSWER_BYTES_MAX  (16u << 20)
#define ANSWER_TIMEOUT_MS 10000
#define POLL_EVERY_MS     100

static int unreachable(const char *path, int error)
{
    if (error == EACCES || error == EPERM)
        return cfsr_fail(-EACCES, "no permission for the daemon's socket: %s: run as its owner",
                         path);
    return cfsr_fail(-CFSR_E_UNREACHABLE,
                     "the daemon cannot be reached: %s: %s: is 'cfs-repl serve' running?", path,
                     cfsr_strerror(-error));
}

static int dial(const char *path, int *fd_out)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = -1;

    if (strlen(path) >= sizeof address.sun_path)
        return cfsr_fail(-CFSR_E_USAGE, "the socket's path is too long: %s: at most %zu characters",
                         path, sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cfsr_fail(-errno, "cannot make a socket: %s", cfsr_strerror(-errno));
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        int rc = unreachable(path, errno);

        (void)close(fd);
        return rc;
    }
    *fd_out = fd;
    return 0;
}

static int read_line(int fd, const char *path, char **line_out)
{
    uint64_t deadline_ns = cfsr_clock_monotonic_ns() + ANSWER_TIMEOUT_MS * 1000000ull;
    size_t capacity = 65536;
    size_t used = 0;
    char *line = malloc(capacity);

    while (line != NULL) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        uint64_t now_ns = cfsr_clock_monotonic_ns();
        ssize_t got;

        if (now_ns >= deadline_ns ||
            poll(&ready, 1, (int)((deadline_ns - now_ns) / 1000000) + 1) == 0) {
            free(line);
            return cfsr_fail(-CFSR_E_TIMEOUT, "the daemon does not answer: %s: nothing within 10 s",
                             path);
        }
        got = recv(fd, line + used, capacity - used - 1, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            free(line);
            return unreachable(path, got < 0 ? errno : ECONNRESET);
        }
        used += (size_t)got;
        line[used] = '\0';
        if (memchr(line + used - (size_t)got, '\n', (size_t)got) != NULL) {
            *line_out = line;
            return 0;
        }
        if (used + 1 == capacity) {
            char *larger = capacity < ANSWER_BYTES_MAX ? realloc(line, capacity * 2) : NULL;

            if (larger == NULL)
                break;
            line = larger;
            capacity *= 2;
        }
    }
    free(line);
    return cfsr_fail(-CFSR_E_TOO_LARGE, "the daemon's answer is too large: %s", path);
}

static int refusal(const json_t *answer)
{
    const char *error = json_string_value(json_object_get(answer, "error"));
    const char *message = json_string_value(json_object_get(answer, "message"));
    int rc = -CFSR_E_UNREACHABLE;

    if (error != NULL && strncmp(error, "permission", strlen("permission")) == 0)
        rc = -EACCES;
    else if (error != NULL && strcmp(error, "usage") == 0)
        rc = -CFSR_E_USAGE;
    else if (error != NULL && strcmp(error, "busy") == 0)
        rc = -EAGAIN;
    return cfsr_fail(rc, "the daemon refused: %s%s%s", error != NULL ? error : "no reason given",
                     message != NULL ? ": " : "", message != NULL ? message : "");
}

int cfsr_admin_ask(const char *socket_path, const char *request, json_t **answer_out)
{
    char *line = NULL;
    json_error_t error;
    json_t *answer = NULL;
    int fd = -1;
    int rc = dial(socket_path, &fd);

    if (rc < 0)
        return rc;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        rc = unreachable(socket_path, errno);
    else
        rc = read_line(fd, socket_path, &line);
    (void)close(fd);
    if (rc < 0)
        return rc;
    answer = json_loads(line, 0, &error);
    free(line);
    if (!json_is_object(answer)) {
        json_decref(answer);
        return cfsr_fail(-CFSR_E_FORMAT, "the daemon's answer is not understood: %s: %s",
                         socket_path, error.text);
    }
    if (json_object_get(answer, "error") != NULL) {
        rc = refusal(answer);
        json_decref(answer);
        return rc;
    }
    *answer_out = answer;
    return 0;
}

struct admin_options {
    char data_dir[CFSR_PATH_MAX];
    char socket[CFSR_SOCKET_PATH_MAX];
    bool json;
    int wait_for;
    uint64_t timeout_ms;
};

static const struct cfsr_option status_rows[] = {CFSR_ADMIN_ROWS(struct admin_options)};

static const struct cfsr_option_set status_set = {
    .program = "cfs",
    .command = "admin replication status",
    .synopsis = "[--data-dir DIR | --socket PATH] [--json]",
    .summary = "Shows the site's links: state, lag, rate. Asks the running daemon.",
    .options = status_rows,
    .count = CFSR_ARRAY_LEN(status_rows),
};

int cfsr_admin_socket_path(const char *socket, const char *data_dir,
                           char path_out[CFSR_SOCKET_TEXT_MAX])
{
    if (socket[0] != '\0')
        snprintf(path_out, CFSR_SOCKET_TEXT_MAX, "%s", socket);
    else if (data_dir[0] != '\0')
        snprintf(path_out, CFSR_SOCKET_TEXT_MAX, "%s/run/admin.sock", data_dir);
    else
        return cfsr_fail(
            -CFSR_E_USAGE,
            "--data-dir is missing: give --data-dir DIR, --socket PATH or set $CFSR_DATA_DIR");
    return 0;
}

int cfsr_admin_print_answer(const json_t *answer)
{
    return json_dumpf(answer, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF ? 0 : -EIO;
}

static int status_run(int argc, char *const *argv)
{
    struct admin_options options;
    char path[CFSR_SOCKET_TEXT_MAX];
    json_t *answer;
    int rc = cfsr_command_options(&status_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = cfsr_admin_socket_path(options.socket, options.data_dir, path);
    if (rc == 0)
        rc = cfsr_admin_ask(path, "{\"command\":\"status\"}\n", &answer);
    if (rc < 0)
        return rc;
    if (options.json)
        rc = cfsr_admin_print_answer(answer);
    else
        cfsr_admin_print_status(answer, stdout);
    json_decref(answer);
    return rc;
}

const struct cfsr_command cfsr_command_replication_status = {.set = &status_set, .run = status_run};

static const char *const wait_names[] = {"caught-up", NULL};

static const struct cfsr_option wait_rows[] = {
    CFSR_ADMIN_ROWS(struct admin_options),
    {.name = "for",
     .value_name = "STATE",
     .group = "Options",
     .kind = CFSR_OPTION_ENUM,
     .choices = wait_names,
     .default_text = "caught-up",
     .help = "What to wait for: every link STREAMING and without lag.",
     CFSR_OPTION_FIELD(struct admin_options, wait_for)},
    {.name = "timeout",
     .value_name = "TIME",
     .group = "Options",
     .kind = CFSR_OPTION_DURATION,
     .unit_us = 1000,
     .default_text = "60s",
     .help = "Give up after this time, with exit code 75.",
     .max = 86400000,
     CFSR_OPTION_FIELD(struct admin_options, timeout_ms)},
};

static const struct cfsr_option_set wait_set = {
    .program = "cfs",
    .command = "admin replication wait",
    .synopsis = "--for caught-up [--timeout TIME] [--data-dir DIR | --socket PATH] [--json]",
    .summary = "Waits until every peer has everything this site's journal held. Exit code 75 when "
               "the time is up, 69 "
               "when the daemon cannot be reached.",
    .options = wait_rows,
    .count = CFSR_ARRAY_LEN(wait_rows),
};

static int wait_timed_out(const json_t *answer, uint64_t timeout_ms)
{
    char why[300];

    (void)cfsr_admin_caught_up(answer, why, sizeof why);
    return cfsr_fail(-CFSR_E_TIMEOUT,
                     "not caught up after %" PRIu64 " ms: %s: see 'cfs admin replication status'",
                     timeout_ms, why);
}

static int wait_run(int argc, char *const *argv)
{
    struct admin_options options;
    char path[CFSR_SOCKET_TEXT_MAX];
    char why[300];
    uint64_t begin_ns = cfsr_clock_monotonic_ns();
    int rc = cfsr_command_options(&wait_set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = cfsr_admin_socket_path(options.socket, options.data_dir, path);
    while (rc == 0) {
        const struct timespec pause = {.tv_nsec = POLL_EVERY_MS * 1000000L};
        json_t *answer;
        bool done;

        rc = cfsr_admin_ask(path, "{\"command\":\"status\"}\n", &answer);
        if (rc < 0)
            return rc;
        done = cfsr_admin_caught_up(answer, why, sizeof why);
        if (done && options.json)
            rc = cfsr_admin_print_answer(answer);
        else if (done)
            printf("caught up after %.1f s\n",
                   (double)(cfsr_clock_monotonic_ns() - begin_ns) / 1e9);
        else if (cfsr_clock_monotonic_ns() - begin_ns >= options.timeout_ms * 1000000ull)
            rc = wait_timed_out(answer, options.timeout_ms);
        json_decref(answer);
        if (done)
            return rc;
        if (rc == 0)
            (void)nanosleep(&pause, NULL);
    }
    return rc;
}

const struct cfsr_command cfsr_command_replication_wait = {.set = &wait_set, .run = wait_run};
