/*
 * proxy.c - a bad network for tests: a TCP proxy that flips bits, cuts connections at random or at
 * every byte, delays, stalls one direction, and plays a connection to its target twice.
 *
 * usage: cfsr-proxy LISTEN_PORT TARGET_PORT noise SEED MEAN_BYTES DELAY_MS
 *        cfsr-proxy LISTEN_PORT TARGET_PORT cut to-target|to-client FROM STEP TO LIMIT_MS
 *        cfsr-proxy LISTEN_PORT TARGET_PORT stall to-target|to-client|both
 *        cfsr-proxy LISTEN_PORT TARGET_PORT twice
 *   noise: on average every MEAN_BYTES of a direction something happens: a flipped bit, or both
 * ends closed. Each piece of up to 16 KiB waits a random time of up to DELAY_MS. SIGUSR1 ends it.
 *   cut: the first connection ends after exactly FROM bytes of the direction, the next after FROM +
 * STEP, and so on; by RST, every 16th by FIN. One that has not carried its bytes in LIMIT_MS ends
 * there and then. Behind TO it says "done" and bytes pass as they are.
 *   stall: SIGUSR2 holds the direction's bytes (they are not lost), SIGUSR1 lets them go on.
 *   twice: what a client sends goes to two connections of the target; the second's answers are
 * lost. SIGTERM ends the program, which prints "flips N cuts N late N connections N".
 *
 * Thread: one process that forks for each direction, so that a delay holds one direction only.
 * Counters are shared memory. Connections to be cut are carried one at a time in the first process:
 * their number says where each is cut.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
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
/* A FIN in the middle of a frame leaves its reader a second of grace: seldom, or it takes hours. */
#define FIN_EVERY 16

enum mode {
    MODE_NOISE,
    MODE_CUT,
    MODE_STALL,
    MODE_TWICE
};

struct shared {
    _Atomic bool calm, held;
    _Atomic unsigned flips, cuts, late, connections;
};

/* What the command line said. */
static struct {
    enum mode mode;
    uint16_t listen_port, target_port;
    bool to_target, to_client; /* directions that are cut or stalled */
    uint64_t seed, mean_bytes, delay_ms;
    uint64_t from, step, to, limit_ms;
} options;

static struct shared *shared;
static volatile sig_atomic_t stopping;

static void on_calm(int signal_number)
{
    (void)signal_number;
    atomic_store(&shared->calm, true);
    atomic_store(&shared->held, false);
}

static void on_hold(int signal_number)
{
    (void)signal_number;
    atomic_store(&shared->held, true);
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

static void pause_us(uint64_t us)
{
    const struct timespec pause = {.tv_sec = (time_t)(us / 1000000),
                                   .tv_nsec = (long)(us % 1000000 * 1000)};

    (void)nanosleep(&pause, NULL);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A piece's share of trouble. False: the connection ends in the middle of it. */
static bool disturb(uint64_t *state, int to, uint8_t *piece, size_t len)
{
    if (options.delay_ms > 0)
        pause_us(next_random(state) % (options.delay_ms * 1000));
    if (next_random(state) % options.mean_bytes >= len)
        return true;
    if (next_random(state) % 4 == 0) {
        atomic_fetch_add(&shared->cuts, 1);
        (void)write_all(to, piece, len / 2); /* in the middle of a frame, as likely as not */
        return false;
    }
    piece[next_random(state) % len] ^= (uint8_t)(1u << next_random(state) % 8);
    atomic_fetch_add(&shared->flips, 1);
    return true;
}

/* One direction, in its own process, until an end closes or the seed cuts it. shadow: -1, or a
 * second connection that gets the same bytes as long as it takes them. */
static void carry(int from, int to, int shadow, bool stalls, uint64_t seed)
{
    static uint8_t piece[PIECE_BYTES];
    uint64_t state = seed;
    ssize_t got;

    while ((got = read(from, piece, sizeof piece)) > 0) {
        while (stalls && atomic_load(&shared->held))
            pause_us(2000);
        if (options.mode == MODE_NOISE && !atomic_load(&shared->calm) &&
            !disturb(&state, to, piece, (size_t)got))
            break;
        if (shadow >= 0 && !write_all(shadow, piece, (size_t)got))
            shadow = -1;
        if (!write_all(to, piece, (size_t)got))
            break;
    }
    (void)shutdown(from, SHUT_RDWR);
    (void)shutdown(to, SHUT_RDWR);
}

/* Reads what the second connection answers, so that its target is not held up by us. */
static void swallow(int fd)
{
    static uint8_t piece[PIECE_BYTES];

    while (read(fd, piece, sizeof piece) > 0)
        ;
}

/* A child of the proxy: dies with it, by SIGTERM too. */
static bool in_child(void)
{
    if (fork() != 0)
        return false;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGTERM, SIG_DFL);
    return true;
}

static void serve_one(int client, int server, uint64_t seed)
{
    bool stall = options.mode == MODE_STALL;
    int shadow = options.mode == MODE_TWICE ? open_socket(options.target_port, false) : -1;

    if (in_child()) {
        carry(client, server, shadow, stall && options.to_target, seed);
        _exit(0);
    }
    if (in_child()) {
        carry(server, client, -1, stall && options.to_client, seed + 1);
        _exit(0);
    }
    if (shadow < 0)
        return;
    if (in_child()) {
        swallow(shadow);
        _exit(0);
    }
    close(shadow);
}

/* Carries both directions until `bytes` of the chosen one have passed, an end closes, or the time
 * is over. */
static void carry_until(int client, int server, uint64_t bytes)
{
    static uint8_t piece[PIECE_BYTES];
    uint64_t deadline_ms = now_ms() + options.limit_ms, passed = 0;
    const int end[2] = {client, server};

    while (passed < bytes) {
        struct pollfd ready[2] = {{.fd = client, .events = POLLIN},
                                  {.fd = server, .events = POLLIN}};
        uint64_t now = now_ms();

        if (now >= deadline_ms || poll(ready, 2, (int)(deadline_ms - now)) == 0) {
            atomic_fetch_add(&shared->late, 1);
            return;
        }
        for (int i = 0; i < 2; i++) {
            bool counted = (i == 0) == options.to_target;
            size_t room = counted && bytes - passed < sizeof piece ? (size_t)(bytes - passed)
                                                                   : sizeof piece;
            ssize_t got;

            if (ready[i].revents == 0 || room == 0)
                continue;
            got = read(end[i], piece, room);
            if (got <= 0 || !write_all(end[1 - i], piece, (size_t)got))
                return;
            passed += counted ? (uint64_t)got : 0;
        }
    }
    atomic_fetch_add(&shared->cuts, 1);
}

static void cut_one(int client, int server, uint64_t bytes, bool reset)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    carry_until(client, server, bytes);
    if (reset) {
        (void)setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        (void)setsockopt(server, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
}

static void serve(int client, unsigned number)
{
    uint64_t bytes = options.from + options.step * number;
    int server = open_socket(options.target_port, false);

    if (server >= 0 && options.mode == MODE_CUT && bytes <= options.to) {
        cut_one(client, server, bytes, number % FIN_EVERY != 0);
        if (bytes + options.step > options.to) {
            printf("done\n");
            (void)fflush(stdout);
        }
    } else if (server >= 0) {
        serve_one(client, server, options.seed + 2 * (uint64_t)number);
    }
    if (server >= 0)
        close(server);
    close(client);
}

static bool parse_direction(const char *text)
{
    options.to_target = strcmp(text, "to-target") == 0 || strcmp(text, "both") == 0;
    options.to_client = strcmp(text, "to-client") == 0 || strcmp(text, "both") == 0;
    return options.to_target || options.to_client;
}

static bool parse(int argc, char **argv)
{
    uint64_t number[10] = {0};

    if (argc < 4 || argc > 9)
        return false;
    for (int i = 0; i < argc; i++)
        number[i] = strtoull(argv[i], NULL, 10);
    options.listen_port = (uint16_t)number[1];
    options.target_port = (uint16_t)number[2];
    if (strcmp(argv[3], "noise") == 0 && argc == 7) {
        options.mode = MODE_NOISE;
        options.seed = number[4];
        options.mean_bytes = number[5] > 0 ? number[5] : 1;
        options.delay_ms = number[6];
        return true;
    }
    if (strcmp(argv[3], "cut") == 0 && argc == 9) {
        options.mode = MODE_CUT;
        options.from = number[5];
        options.step = number[6] > 0 ? number[6] : 1;
        options.to = number[7];
        options.limit_ms = number[8];
        return parse_direction(argv[4]) && options.to_target != options.to_client;
    }
    if (strcmp(argv[3], "stall") == 0 && argc == 5) {
        options.mode = MODE_STALL;
        return parse_direction(argv[4]);
    }
    options.mode = MODE_TWICE;
    return strcmp(argv[3], "twice") == 0 && argc == 4;
}

int main(int argc, char **argv)
{
    struct sigaction stop = {.sa_handler = on_stop},
                     calm = {.sa_handler = on_calm, .sa_flags = SA_RESTART},
                     hold = {.sa_handler = on_hold, .sa_flags = SA_RESTART};
    int listener;

    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: cfsr-proxy LISTEN_PORT TARGET_PORT noise|cut|stall|twice ...\n");
        return 2;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    listener = open_socket(options.listen_port, true);
    if (shared == MAP_FAILED || listener < 0) {
        fprintf(stderr, "cfsr-proxy: cannot start: %s\n", strerrordesc_np(errno));
        return 1;
    }
    (void)signal(SIGCHLD, SIG_IGN); /* no zombies */
    (void)sigaction(SIGTERM, &stop, NULL);
    (void)sigaction(SIGUSR1, &calm, NULL);
    (void)sigaction(SIGUSR2, &hold, NULL);
    while (!stopping) {
        struct pollfd waiting = {.fd = listener, .events = POLLIN};
        int client = -1;

        /* Bounded: ThreadSanitizer may deliver a signal only between system calls. */
        if (poll(&waiting, 1, 100) > 0)
            client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0)
            serve(client, atomic_fetch_add(&shared->connections, 1));
    }
    printf("flips %u cuts %u late %u connections %u\n", atomic_load(&shared->flips),
           atomic_load(&shared->cuts), atomic_load(&shared->late),
           atomic_load(&shared->connections));
    return 0;
}
