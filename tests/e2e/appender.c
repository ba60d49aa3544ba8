/*
 * appender.c - a producer that a test can watch: appends until it has its number of entries, and
 * goes on after a full disk.
 *
 * usage: cfsr-appender DATA_DIR COUNT PAYLOAD_BYTES PAUSE_US STATE_FILE [direct]
 *   STATE_FILE becomes four native uint64: entries durable so far, refusals for want of space, 1
 * while a full disk holds it, entries handed to the journal. Groups of up to GROUP_ENTRIES; every
 * payload differs. SIGTERM ends it after the running group. Exit 0 once all are durable or after
 * SIGTERM, 1 for every error but a full disk.
 *
 * Thread: one. The state is a shared mapping, so that it is right even after SIGKILL.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cfsrepl/error.h>
#include <cfsrepl/journal.h>

#define GROUP_ENTRIES     16
#define PAYLOAD_BYTES_MAX (64u << 10)
#define FULL_PAUSE_US     50000

struct state {
    _Atomic uint64_t durable, refused, held, given;
};

static volatile sig_atomic_t stopping;

static void on_stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static void pause_us(uint64_t us)
{
    const struct timespec pause = {.tv_sec = (time_t)(us / 1000000),
                                   .tv_nsec = (long)(us % 1000000 * 1000)};

    (void)nanosleep(&pause, NULL);
}

static struct state *open_state(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    struct state *state = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof *state) == 0)
        state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    return state == MAP_FAILED ? NULL : state;
}

/* xorshift: bytes that do not compress, other ones for each entry. */
static void fill(uint8_t *payload, uint32_t len_bytes, uint64_t number)
{
    uint64_t x = number * 0x9e3779b97f4a7c15ull + 1;

    for (uint32_t i = 0; i < len_bytes; i += 8) {
        uint32_t part = len_bytes - i < 8 ? len_bytes - i : 8;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(payload + i, &x, part);
    }
}

/* Appends entries from number on; how many were durable, or an error. */
static int append_group(struct cfsr_journal *journal, uint64_t number, unsigned count,
                        uint32_t payload_bytes, unsigned *appended_out)
{
    static uint8_t payload[GROUP_ENTRIES][PAYLOAD_BYTES_MAX];
    struct cfsr_entry entries[GROUP_ENTRIES];

    for (unsigned i = 0; i < count; i++) {
        fill(payload[i], payload_bytes, number + i);
        entries[i] = (struct cfsr_entry){.shard_id = CFSR_SHARD_AUTO,
                                         .shard_key = (number + i) % 997,
                                         .inode = number + i,
                                         .op = CFSR_OP_WRITE,
                                         .flags = CFSR_ENTRY_OPAQUE,
                                         .payload = payload[i],
                                         .payload_bytes = payload_bytes};
    }
    *appended_out = 0;
    return cfsr_journal_append(journal, entries, count, NULL, appended_out);
}

static int append_all(struct cfsr_journal *journal, uint64_t count, uint32_t payload_bytes,
                      uint64_t group_pause_us, struct state *state)
{
    uint64_t done = 0;

    while (done < count && !stopping) {
        unsigned want = count - done < GROUP_ENTRIES ? (unsigned)(count - done) : GROUP_ENTRIES;
        unsigned appended;
        int rc;

        atomic_store(&state->given, done + want);
        rc = append_group(journal, done + 1, want, payload_bytes, &appended);
        done += appended;
        atomic_store(&state->durable, done);
        atomic_store(&state->held, rc == -ENOSPC || rc == -EDQUOT);
        if (rc == -ENOSPC || rc == -EDQUOT) {
            atomic_fetch_add(&state->refused, 1);
            pause_us(FULL_PAUSE_US);
        } else if (rc < 0) {
            fprintf(stderr, "cfsr-appender: after %llu entries: %s: %s\n", (unsigned long long)done,
                    cfsr_strerror(rc), cfsr_error_message());
            return rc;
        }
        if (group_pause_us > 0)
            pause_us(group_pause_us);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct cfsr_journal_options options = {.opts_size = sizeof options};
    const struct sigaction stop = {.sa_handler = on_stop};
    struct cfsr_journal *journal;
    struct state *state;
    uint64_t payload_bytes;
    int rc, closed;

    if (argc < 6 || argc > 7 || (argc == 7 && strcmp(argv[6], "direct") != 0)) {
        fprintf(stderr, "usage: cfsr-appender DATA_DIR COUNT PAYLOAD_BYTES PAUSE_US STATE_FILE "
                        "[direct]\n");
        return 2;
    }
    payload_bytes = strtoull(argv[3], NULL, 10);
    state = open_state(argv[5]);
    if (state == NULL || payload_bytes > PAYLOAD_BYTES_MAX) {
        fprintf(stderr, "cfsr-appender: no state file, or payloads larger than 64 KiB\n");
        return 2;
    }
    (void)sigaction(SIGTERM, &stop, NULL);
    options.data_dir = argv[1];
    options.direct = argc == 7;
    options.retention_policy = CFSR_RETAIN_ALL; /* the journal is compared with what was appended */
    rc = cfsr_journal_open(&options, &journal);
    if (rc < 0) {
        fprintf(stderr, "cfsr-appender: %s\n", cfsr_error_message());
        return 1;
    }
    rc = append_all(journal, strtoull(argv[2], NULL, 10), (uint32_t)payload_bytes,
                    strtoull(argv[4], NULL, 10), state);
    closed = cfsr_journal_close(journal);
    if (rc == 0 && closed < 0)
        fprintf(stderr, "cfsr-appender: close: %s\n", cfsr_error_message());
    printf("durable %llu refused %llu\n", (unsigned long long)atomic_load(&state->durable),
           (unsigned long long)atomic_load(&state->refused));
    return rc == 0 && closed == 0 ? 0 : 1;
}
