/*
 * proxy.c - a bad network for tests: a TCP proxy that flips bits, cuts connections and delays
 * bytes.
 *
 * usage: cfsr-proxy SEED LISTEN_PORT TARGET_PORT MEAN_BYTES DELAY_MS
 *   On average every MEAN_BYTES of a direction something happens: a flipped bit, or both ends
 * closed. Each piece of up to 16 KiB waits a random time of up to DELAY_MS. SIGUSR1 ends the
 * trouble: from then on bytes pass as they are. SIGTERM ends the program, which prints "flips N
 * cuts N connections N".
 *
 * Thread: one process that forks for each direction, so that a delay holds one direction only.
 * Counters are shared memory.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES 16384

struct shared {
    _Atomic bool calm;
    _Atomic unsigned flips, cuts, connections;
};

static struct shared *shared;
static volatile sig_atomic_t stopping;

static void on_calm(int signal_number)
{
    (void)signal_number;
    atomic_store(&shared->calm, true);
}

static void on_stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

/* splitmix64: any seed will do, and a seed repeats its run as far as the scheduler lets it. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int open_socket(uint16_t port, bool listening)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, listening ? SOL_SOCKET : IPPROTO_TCP,
                     listening ? SO_REUSEADDR : TCP_NODELAY, &on, sizeof on);
    if (listening ? bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
                        listen(fd, 64) == 0
                  : connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t done = send(fd, data, len, MSG_NOSIGNAL);

        if (done <= 0)
            return false;
        data += done;
        len -= (size_t)done;
    }
    return true;
}

/* One direction, in its own process, until an end closes or the seed cuts it. */
static void carry(int from, int to, uint64_t seed, uint64_t mean_bytes, uint64_t delay_ms)
{
    static uint8_t piece[PIECE_BYTES];
    uint64_t state = seed;
    ssize_t got;

    while ((got = read(from, piece, sizeof piece)) > 0) {
        if (!atomic_load(&shared->calm)) {
            uint64_t wait_us = delay_ms > 0 ? next_random(&state) % (delay_ms * 1000) : 0;
            struct timespec pause = {.tv_nsec = (long)(wait_us * 1000 % 1000000000),
                                     .tv_sec = (time_t)(wait_us / 1000000)};

            (void)nanosleep(&pause, NULL);
            if (next_random(&state) % mean_bytes < (uint64_t)got) {
                if (next_random(&state) % 4 == 0) {
                    atomic_fetch_add(&shared->cuts, 1);
                    (void)write_all(to, piece,
                                    (size_t)got /
                                        2); /* in the middle of a frame, as likely as not */
                    break;
                }
                piece[next_random(&state) % (uint64_t)got] ^= (uint8_t)(1u
                                                                        << next_random(&state) % 8);
                atomic_fetch_add(&shared->flips, 1);
            }
        }
        if (!write_all(to, piece, (size_t)got))
            break;
    }
    (void)shutdown(from, SHUT_RDWR);
    (void)shutdown(to, SHUT_RDWR);
}

static void serve_one(int client, uint16_t target, uint64_t seed, uint64_t mean_bytes,
                      uint64_t delay_ms)
{
    for (int direction = 0; direction < 2; direction++) {
        static int server;

        if (direction == 0)
            server = open_socket(target, false);
        if (server < 0)
            break;
        if (fork() == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)signal(SIGTERM, SIG_DFL);
            carry(direction == 0 ? client : server, direction == 0 ? server : client,
                  seed + (uint64_t)direction, mean_bytes, delay_ms);
            _exit(0);
        }
        if (direction == 1)
            close(server);
    }
    close(client);
}

int main(int argc, char **argv)
{
    uint64_t value[5];
    struct sigaction stop = {.sa_handler = on_stop},
                     calm = {.sa_handler = on_calm, .sa_flags = SA_RESTART};
    int listener;

    if (argc != 6) {
        fprintf(stderr, "usage: cfsr-proxy SEED LISTEN_PORT TARGET_PORT MEAN_BYTES DELAY_MS\n");
        return 2;
    }
    for (int i = 0; i < 5; i++)
        value[i] = strtoull(argv[i + 1], NULL, 10);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    listener = open_socket((uint16_t)value[1], true);
    if (shared == MAP_FAILED || listener < 0) {
        fprintf(stderr, "cfsr-proxy: cannot start: %s\n", strerrordesc_np(errno));
        return 1;
    }
    (void)signal(SIGCHLD, SIG_IGN); /* no zombies */
    (void)sigaction(SIGTERM, &stop, NULL);
    (void)sigaction(SIGUSR1, &calm, NULL);
    while (!stopping) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        if (client < 0)
            continue; /* a signal */
        value[0] += 2 * (uint64_t)(1 + atomic_fetch_add(&shared->connections, 1));
        serve_one(client, (uint16_t)value[2], value[0], value[3] > 0 ? value[3] : 1, value[4]);
    }
    printf("flips %u cuts %u connections %u\n", atomic_load(&shared->flips),
           atomic_load(&shared->cuts), atomic_load(&shared->connections));
    return 0;
}
