/* test_ring.c - the ladder, full queues, waits, cancels, registration, and what is said when
 * io_uring is forbidden. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "core/ring.h"

struct counted {
    struct cfsr_ring_op op;
    unsigned done;
    int32_t res;
};

static void counted_done(struct cfsr_ring_op *op, int32_t res, uint32_t cqe_flags)
{
    struct counted *counted = CFSR_CONTAINER_OF(op, struct counted, op);

    (void)cqe_flags;
    counted->done++;
    counted->res = res;
}

static struct cfsr_ring *make(enum cfsr_ring_rung rung, uint32_t sq_entries)
{
    struct cfsr_ring_options options = {.sq_entries = sq_entries, .cpu = 0, .first_rung = rung};
    struct cfsr_ring *ring = NULL;
    int rc = cfsr_ring_create(&options, &ring);

    if (rc == -CFSR_E_NO_IO_URING)
        cr_skip_test("%s", cfsr_error_message());
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    return ring;
}

static uint64_t counter(struct cfsr_ring *ring, enum cfsr_core_counter which)
{
    return cfsr_counter_get(&cfsr_ring_stats(ring)->counters[which]);
}

static void exercise_rung(enum cfsr_ring_rung rung)
{
    struct cfsr_ring *ring = make(rung, 8);
    struct counted nop = {.op.done = counted_done};
    char text[256];
    unsigned i;

    cr_assert_geq(cfsr_ring_rung(ring), rung);
    for (i = 0; i < 100; i++) {
        io_uring_prep_nop(cfsr_ring_sqe(ring, &nop.op));
        cr_assert_eq(cfsr_ring_in_flight(ring), 1);
        cr_assert_eq(nop.done, i);
        while (nop.done == i)
            cr_assert_geq(cfsr_ring_submit_and_reap(ring, 0), 0);
    }
    cr_assert_eq(cfsr_ring_in_flight(ring), 0);
    cr_assert(strstr(cfsr_ring_describe(ring, text, sizeof text), "rung=") == text);
    cfsr_ring_destroy(ring);
}

Test(ring, rung_defer)
{
    exercise_rung(CFSR_RUNG_DEFER);
}
Test(ring, rung_coop)
{
    exercise_rung(CFSR_RUNG_COOP);
}
Test(ring, rung_cqsize)
{
    exercise_rung(CFSR_RUNG_CQSIZE);
}
Test(ring, rung_plain)
{
    exercise_rung(CFSR_RUNG_PLAIN);
}

Test(ring, self_tests_prove_what_is_reported)
{
    struct cfsr_ring *ring = make(CFSR_RUNG_DEFER, 8);
    char text[256];

    cr_assert_neq(cfsr_ring_capabilities(ring) & CFSR_RING_CAN_RECV, 0);
    cfsr_ring_report(text, sizeof text);
    cr_assert(strstr(text, "recv") != NULL, "%s", text);
    cr_assert_eq(strstr(text, "read_fixed") != NULL,
                 (cfsr_ring_capabilities(ring) & CFSR_RING_CAN_READ_FIXED) != 0);
    cfsr_ring_destroy(ring);
}

Test(ring, one_enter_a_turn)
{
    struct cfsr_ring *ring = make(CFSR_RUNG_DEFER, 8);
    struct counted nop = {.op.done = counted_done};
    uint64_t before;

    before = counter(ring, CFSR_CORE_COUNTER_enters);
    cfsr_ring_submit_and_reap(ring, 0);
    io_uring_prep_nop(cfsr_ring_sqe(ring, &nop.op));
    cr_assert_eq(cfsr_ring_submit_and_reap(ring, 0), 1);
    cr_assert_eq(counter(ring, CFSR_CORE_COUNTER_enters), before + 2);
    cfsr_ring_destroy(ring);
}

Test(ring, a_full_queue_is_submitted_and_nothing_is_lost)
{
    static struct counted nops[1000];
    struct cfsr_ring *ring = make(CFSR_RUNG_DEFER, 4);
    unsigned i, done = 0;

    for (i = 0; i < 20; i++) {
        nops[i].op.done = counted_done;
        io_uring_prep_nop(cfsr_ring_sqe(ring, &nops[i].op));
    }
    for (i = 0; i < 20; i++)
        cr_assert_eq(nops[i].done, 0, "completions wait for a reap");
    cr_assert_gt(counter(ring, CFSR_CORE_COUNTER_sq_full), 0);
    while (done < 20) {
        int n = cfsr_ring_submit_and_reap(ring, 0);

        cr_assert_geq(n, 0);
        done += (unsigned)n;
    }
    for (i = 0; i < 20; i++)
        cr_assert_eq(nops[i].done, 1);
    cfsr_ring_destroy(ring);
}

Test(ring, more_completions_than_the_queue_holds)
{
    static struct counted nops[1000];
    struct cfsr_ring *ring = make(CFSR_RUNG_DEFER, 4);
    unsigned i, done = 0, rounds;

    for (i = 0; i < 1000; i++) {
        nops[i].op.done = counted_done;
        io_uring_prep_nop(cfsr_ring_sqe(ring, &nops[i].op));
    }
    for (rounds = 0; rounds < 100000 && done < 1000; rounds++) {
        int n = cfsr_ring_submit_and_reap(ring, 0);

        cr_assert_geq(n, 0);
        done += (unsigned)n;
    }
    cr_assert_eq(done, 1000);
    for (i = 0; i < 1000; i++)
        cr_assert_eq(nops[i].done, 1);
    cr_assert_eq(counter(ring, CFSR_CORE_COUNTER_cqes) >= 1000, 1);
    cfsr_ring_destroy(ring);
}

Test(ring, wait_ends_with_a_timeout_or_an_event)
{
    struct cfsr_ring *ring = make(CFSR_RUNG_DEFER, 8);
    struct counted recv = {.op.done = counted_done};
    int pair[2];
    char byte = 0;

    cr_assert_eq(cfsr_ring_submit_and_reap(ring, 1000 * 1000), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    io_uring_prep_recv(cfsr_ring_sqe(ring, &recv.op), pair[0], &byte, 1, 0);
    cr_assert_eq(cfsr_ring_submit_and_reap(ring, 1000 * 1000), 0);
    cr_assert_eq(write(pair[1], "y", 1), 1);
    cr_assert_eq(cfsr_ring_submit_and_reap(ring, 10ull * 1000 * 1000 * 1000), 1);
    cr_assert_eq(recv.res, 1);
    cr_assert_eq(byte, 'y');
    cfsr_ring_destroy(ring);
    close(pair[0]);
    close(pair[1]);
}

Test(ring, cancel_and_drain_end_what_is_in_flight)
{
    struct cfsr_ring *ring = make(CFSR_RUNG_DEFER, 8);
    struct counted recv[3] = {
        {.op.done = counted_done}, {.op.done = counted_done}, {.op.done = counted_done}};
    int pair[2];
    char byte[3];
    unsigned i;

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    for (i = 0; i < 3; i++)
        io_uring_prep_recv(cfsr_ring_sqe(ring, &recv[i].op), pair[0], &byte[i], 1, 0);
    cfsr_ring_cancel(ring, &recv[1].op);
    for (i = 0; i < 1000 && recv[1].done == 0; i++)
        cfsr_ring_submit_and_reap(ring, 1000 * 1000);
    cr_assert_eq(recv[1].res, -ECANCELED);
    cr_assert_eq(cfsr_ring_in_flight(ring), 2);
    cr_assert_eq(cfsr_ring_drain(ring, 5ull * 1000 * 1000 * 1000), 0);
    cr_assert_eq(recv[0].done + recv[2].done, 2);
    cfsr_ring_destroy(ring);
}

Test(ring, too_little_locked_memory_never_fails)
{
    struct rlimit small = {.rlim_cur = 65536, .rlim_max = 65536};
    struct cfsr_ring *ring;
    struct iovec part = {.iov_len = 4 << 20};

    if (setrlimit(RLIMIT_MEMLOCK, &small) != 0 ||
        (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0))
        cr_skip_test("cannot lower the limit here");
    ring = make(CFSR_RUNG_DEFER, 8);
    part.iov_base = aligned_alloc(4096, part.iov_len);
    cr_assert_not(cfsr_ring_register_buffers(ring, &part, 1));
    cr_assert_not(cfsr_ring_has_buffers(ring));
    cfsr_ring_destroy(ring);
    free(part.iov_base);
}

static void forbid_io_uring(unsigned error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 425 /* io_uring_setup */, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = CFSR_ARRAY_LEN(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        cr_skip_test("no seccomp here");
}

static void expect_refusal(unsigned error)
{
    struct cfsr_ring_options options = {.cpu = -1};
    struct cfsr_ring *ring = NULL;
    char text[512];

    forbid_io_uring(error);
    cr_assert_eq(cfsr_ring_create(&options, &ring), -CFSR_E_NO_IO_URING);
    cr_assert_null(ring);
    cr_assert(strstr(cfsr_error_message(), "io_uring_setup") != NULL ||
                  strstr(cfsr_error_message(), "sysctl") != NULL,
              "says what to do: %s", cfsr_error_message());
    cr_assert(strstr(cfsr_ring_report(text, sizeof text), "io_uring is") != NULL);
}

Test(ring, forbidden_by_seccomp_eperm)
{
    expect_refusal(EPERM);
}
Test(ring, forbidden_by_seccomp_enosys)
{
    expect_refusal(ENOSYS);
}

Test(ring, workers_are_counted)
{
    struct cfsr_ring *ring;
    struct counted sync = {.op.done = counted_done};
    struct cfsr_ring_workers workers = {.threads = 99};
    char path[] = "/tmp/cfsr-ring-XXXXXX";
    int fd = mkstemp(path);
    unsigned i;

    cr_assert_eq(cfsr_ring_workers_sample(gettid(), &workers), 0);
    cr_assert_eq(workers.threads, 0);
    ring = make(CFSR_RUNG_DEFER, 8);
    io_uring_prep_fsync(cfsr_ring_sqe(ring, &sync.op), fd, IORING_FSYNC_DATASYNC);
    for (i = 0; i < 1000 && sync.done == 0; i++)
        cfsr_ring_submit_and_reap(ring, 10 * 1000 * 1000);
    cr_assert_eq(sync.res, 0);
    cr_assert_eq(cfsr_ring_workers_sample(gettid(), &workers), 0);
    cr_assert_geq(workers.threads, 1, "a sync runs on a worker");
    cfsr_ring_destroy(ring);
    unlink(path);
    close(fd);
}
