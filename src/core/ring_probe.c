/*
 * ring_probe.c - what this kernel's io_uring really does: one-shot self tests, and the worker
 * threads it runs.
 *
 * Thread:     the owner (self tests); any (sampling of workers).
 * Invariants: a test leaves no registration, descriptor or operation behind. Files are anonymous
 *             memory files, so that a read-only or full disk does not change what the ring is said
 *             to be able to do.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "core/ring_internal.h"

#define PROBE_BYTES   4096u
#define PROBE_WAIT_NS (1000ull * 1000 * 1000)

struct probe_op {
    struct cfsr_ring_op op;
    bool is_done;
    int32_t res;
};

static void probe_done(struct cfsr_ring_op *op, int32_t res, uint32_t cqe_flags)
{
    struct probe_op *probe = CFSR_CONTAINER_OF(op, struct probe_op, op);

    (void)cqe_flags;
    probe->is_done = true;
    probe->res = res;
}

static int32_t probe_wait(struct cfsr_ring *ring, struct probe_op *probe)
{
    unsigned i;

    for (i = 0; i < 5 && !probe->is_done; i++) {
        if (cfsr_ring_submit_and_reap(ring, PROBE_WAIT_NS) < 0)
            break;
    }
    if (probe->is_done)
        return probe->res;
    CFSR_ASSERT(cfsr_ring_drain(ring, 5 * PROBE_WAIT_NS) ==
                0); /* it names our stack: cannot be left behind */
    return -ETIME;
}

static bool test_write_dsync(struct cfsr_ring *ring, int fd, char *page)
{
    struct probe_op probe = {.op.done = probe_done};
    struct io_uring_sqe *sqe = cfsr_ring_sqe(ring, &probe.op);

    io_uring_prep_write(sqe, fd, page, PROBE_BYTES, 0);
    sqe->rw_flags = RWF_DSYNC;
    return probe_wait(ring, &probe) == (int32_t)PROBE_BYTES;
}

static bool test_read_fixed(struct cfsr_ring *ring, int fd, char *page)
{
    struct iovec part = {.iov_base = page, .iov_len = PROBE_BYTES};
    struct probe_op wrote = {.op.done = probe_done}, read = {.op.done = probe_done};
    bool works;

    if (io_uring_register_buffers(&ring->uring, &part, 1) < 0)
        return false;
    memset(page, 0x5a, PROBE_BYTES);
    io_uring_prep_write_fixed(cfsr_ring_sqe(ring, &wrote.op), fd, page, PROBE_BYTES, PROBE_BYTES,
                              0);
    works = probe_wait(ring, &wrote) == (int32_t)PROBE_BYTES;
    memset(page, 0, PROBE_BYTES);
    io_uring_prep_read_fixed(cfsr_ring_sqe(ring, &read.op), fd, page, PROBE_BYTES, PROBE_BYTES, 0);
    works = probe_wait(ring, &read) == (int32_t)PROBE_BYTES && works && page[0] == 0x5a &&
            page[PROBE_BYTES - 1] == 0x5a;
    io_uring_unregister_buffers(&ring->uring);
    return works;
}

static bool test_recv(struct cfsr_ring *ring)
{
    struct probe_op probe = {.op.done = probe_done};
    char got = 0;
    int pair[2];
    bool works;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    works = send(pair[1], "x", 1, MSG_NOSIGNAL) == 1;
    io_uring_prep_recv(cfsr_ring_sqe(ring, &probe.op), pair[0], &got, 1, 0);
    works = probe_wait(ring, &probe) == 1 && works && got == 'x';
    close(pair[0]);
    close(pair[1]);
    return works;
}

/* READ, WRITE, FSYNC and RECV are needed: without them there is nothing to run on. */
static int probe_opcodes(struct cfsr_ring *ring)
{
    static const int needed[] = {IORING_OP_READ, IORING_OP_WRITE,   IORING_OP_FSYNC,
                                 IORING_OP_RECV, IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL};
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->uring);
    unsigned i;

    if (probe == NULL)
        return cfsr_fail(-CFSR_E_NO_IO_URING,
                         "io_uring cannot be probed: use kernel 6.1 or newer, and allow "
                         "io_uring_register in the container or service policy");
    for (i = 0; i < CFSR_ARRAY_LEN(needed); i++) {
        if (!io_uring_opcode_supported(probe, needed[i])) {
            io_uring_free_probe(probe);
            return cfsr_fail(-CFSR_E_NO_IO_URING,
                             "io_uring lacks operation %d: use kernel 6.1 or newer", needed[i]);
        }
    }
    if (io_uring_opcode_supported(probe, IORING_OP_SEND_ZC))
        ring->capabilities |= CFSR_RING_CAN_SEND_ZC;
    if (io_uring_opcode_supported(probe, IORING_OP_MSG_RING))
        ring->capabilities |= CFSR_RING_CAN_MSG_RING;
    io_uring_free_probe(probe);
    return 0;
}

int cfsr_ring_probe(struct cfsr_ring *ring)
{
    char *page;
    int rc, fd;

    rc = probe_opcodes(ring);
    if (rc < 0)
        return rc;
    if (test_recv(ring))
        ring->capabilities |= CFSR_RING_CAN_RECV;
    page = aligned_alloc(PROBE_BYTES, PROBE_BYTES);
    fd = memfd_create("cfsr-probe", MFD_CLOEXEC);
    if (page != NULL && fd >= 0) {
        memset(page, 0, PROBE_BYTES);
        if (test_write_dsync(ring, fd, page))
            ring->capabilities |= CFSR_RING_CAN_WRITE_DSYNC;
        if (test_read_fixed(ring, fd, page))
            ring->capabilities |= CFSR_RING_CAN_READ_FIXED;
    }
    if (fd >= 0)
        close(fd);
    free(page);
    if ((ring->capabilities & CFSR_RING_CAN_RECV) == 0)
        return cfsr_fail(-CFSR_E_NO_IO_URING,
                         "io_uring does not receive from sockets here: a seccomp filter or an "
                         "emulated kernel is in the way; use kernel 6.1 or newer");
    return 0;
}

/* Reads one small file of /proc; "" if it is gone (a worker ends after 5 s without work). */
static void read_task_file(int tid, const char *name, char *text_out, size_t len_bytes)
{
    char path[64];
    size_t n = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%d/%s", tid, name);
    file = fopen(path, "re");
    if (file != NULL) {
        n = fread(text_out, 1, len_bytes - 1, file);
        fclose(file);
    }
    text_out[n] = '\0';
}

static void add_worker(int tid, struct cfsr_ring_workers *workers)
{
    unsigned long long user = 0, kernel = 0;
    char text[4096];
    const char *at;

    workers->threads++;
    read_task_file(tid, "stat", text, sizeof text);
    at = strrchr(
        text, ')'); /* the name may hold blanks; fields 14 and 15 are utime and stime (proc(5)) */
    if (at != NULL && sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                             &user, &kernel) == 2)
        workers->cpu_us += (user + kernel) * (1000000ull / (uint64_t)sysconf(_SC_CLK_TCK));
    read_task_file(tid, "status", text, sizeof text);
    at = strstr(text, "\nvoluntary_ctxt_switches:");
    if (at != NULL)
        workers->wakeups += strtoull(at + strlen("\nvoluntary_ctxt_switches:"), NULL, 10);
}

int cfsr_ring_workers_sample(int owner_tid, struct cfsr_ring_workers *workers_out)
{
    struct cfsr_ring_workers workers = {0};
    char wanted[32], name[32];
    struct dirent *item;
    DIR *tasks = opendir("/proc/self/task");

    if (tasks == NULL)
        return -errno;
    snprintf(wanted, sizeof wanted, "iou-wrk-%d\n", owner_tid);
    while ((item = readdir(tasks)) != NULL) {
        int tid = (int)strtol(item->d_name, NULL, 10);

        if (tid <= 0)
            continue;
        read_task_file(tid, "comm", name, sizeof name);
        if (strcmp(name, wanted) == 0)
            add_worker(tid, &workers);
    }
    closedir(tasks);
    *workers_out = workers;
    return 0;
}
