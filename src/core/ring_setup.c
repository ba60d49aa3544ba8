/*
 * ring_setup.c - creating a ring: the ladder of set-up flags, limits of the kernel's workers, and
 * what to say when io_uring is forbidden.
 *
 * Thread:     the owner of the ring to be.
 * Invariants: nothing is chosen by kernel version; distributions backport, and sandboxes lie. The
 *             ladder tries, the self tests (ring_probe.c) do each operation once.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "core/ring_internal.h"

#define DEFAULT_SQ_ENTRIES        256u
#define DEFAULT_WORKERS_BOUNDED   4u
#define DEFAULT_WORKERS_UNBOUNDED 1u

static const struct {
    unsigned flags;
    const char *name;
} ladder[CFSR_RUNGS] = {
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
         IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP,
     "defer_taskrun"},
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP,
     "coop_taskrun"},
    {IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP, "cqsize"},
    {0, "plain"},
};

/* kernel.io_uring_disabled: 0, 1, 2; -1 where the kernel has no such setting (before 6.6). */
static int disabled_setting(void)
{
    char text[8] = "";
    ssize_t n = -1;
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        n = read(fd, text, sizeof text - 1);
        close(fd);
    }
    return n > 0 && text[0] >= '0' && text[0] <= '9' ? text[0] - '0' : -1;
}

static int fail_forbidden(int rc)
{
    int setting = disabled_setting();

    if (rc == -EPERM && setting >= 1)
        return cfsr_fail(
            -CFSR_E_NO_IO_URING,
            "io_uring is forbidden by the kernel setting kernel.io_uring_disabled=%d: run "
            "`sysctl kernel.io_uring_disabled=0`%s",
            setting, setting == 1 ? ", or add the user's group to kernel.io_uring_group" : "");
    if (rc == -EPERM || rc == -EACCES)
        return cfsr_fail(-CFSR_E_NO_IO_URING,
                         "io_uring is forbidden by a seccomp filter or security module (%s): allow "
                         "io_uring_setup, io_uring_enter and io_uring_register in the container or "
                         "service policy",
                         cfsr_error_name(rc));
    return cfsr_fail(
        -CFSR_E_NO_IO_URING,
        "io_uring is not there (%s): the kernel is built without it or a seccomp filter "
        "hides it; use kernel 6.1 or newer and allow io_uring_setup in the container policy",
        cfsr_error_name(rc));
}

static int set_up_rung(struct cfsr_ring *ring, const struct cfsr_ring_options *options,
                       enum cfsr_ring_rung rung)
{
    uint32_t sq = options->sq_entries == 0 ? DEFAULT_SQ_ENTRIES : options->sq_entries;
    uint32_t cq = options->cq_entries == 0 ? sq * 8 : options->cq_entries;
    struct io_uring_params params;
    int rc;

    memset(&params, 0, sizeof params);
    params.flags = ladder[rung].flags;
    if ((params.flags & IORING_SETUP_CQSIZE) != 0)
        params.cq_entries = cq < sq * 4 ? sq * 4 : cq;
    rc = io_uring_queue_init_params(sq, &ring->uring, &params);
    if (rc < 0)
        return rc;
    ring->rung = rung;
    ring->sq_entries = params.sq_entries;
    ring->cq_entries = params.cq_entries;
    if ((params.features & IORING_FEAT_EXT_ARG) != 0)
        ring->capabilities |= CFSR_RING_CAN_WAIT_TIMEOUT;
    return 0;
}

static int climb_ladder(struct cfsr_ring *ring, const struct cfsr_ring_options *options)
{
    unsigned rung;
    int rc = -EINVAL;

    CFSR_ASSERT(options->first_rung < CFSR_RUNGS);
    for (rung = options->first_rung; rung < CFSR_RUNGS; rung++) {
        rc = set_up_rung(ring, options, (enum cfsr_ring_rung)rung);
        if (rc != -EINVAL) /* a flag this kernel does not know: one step down */
            break;
    }
    if (rc == -ENOSYS || rc == -EPERM || rc == -EACCES)
        return fail_forbidden(rc);
    if (rc == -ENOMEM)
        return cfsr_fail(
            rc,
            "no memory for an io_uring: raise `ulimit -l` or LimitMEMLOCK=, or use fewer cores");
    if (rc < 0)
        return cfsr_fail(rc, "cannot create an io_uring: %s", cfsr_strerror(rc));
    return 0;
}

/* Comfort, not need: each may be missing in an old kernel and the ring works without. */
static void tune(struct cfsr_ring *ring, const struct cfsr_ring_options *options)
{
    unsigned workers[2] = {
        options->workers_bounded == 0 ? DEFAULT_WORKERS_BOUNDED : options->workers_bounded,
        options->workers_unbounded == 0 ? DEFAULT_WORKERS_UNBOUNDED : options->workers_unbounded,
    };
    cpu_set_t set;

    (void)io_uring_register_ring_fd(&ring->uring);
    (void)io_uring_register_iowq_max_workers(&ring->uring, workers);
    if (options->cpu >= 0 && options->cpu < CPU_SETSIZE) {
        CPU_ZERO(&set);
        CPU_SET((unsigned)options->cpu, &set);
        (void)io_uring_register_iowq_aff(&ring->uring, sizeof set, &set);
    }
}

static int attach_memory(struct cfsr_ring *ring, const struct cfsr_ring_options *options)
{
    ring->stats = options->stats;
    if (ring->stats == NULL) {
        ring->own_stats = calloc(1, sizeof *ring->own_stats);
        ring->stats = ring->own_stats;
    }
    ring->backlog_capacity = ring->cq_entries; /* the kernel rounds it to a power of two */
    CFSR_ASSERT(cfsr_is_power_of_two(ring->backlog_capacity));
    ring->backlog = calloc(ring->backlog_capacity, sizeof *ring->backlog);
    return ring->stats == NULL || ring->backlog == NULL ? -ENOMEM : 0;
}

int cfsr_ring_create(const struct cfsr_ring_options *options, struct cfsr_ring **ring_out)
{
    struct cfsr_ring *ring;
    int rc;

    ring = calloc(1, sizeof *ring);
    if (ring == NULL)
        return -ENOMEM;
    rc = climb_ladder(ring, options);
    if (rc < 0)
        goto free_ring;
    rc = attach_memory(ring, options);
    if (rc < 0)
        goto exit_queue;
    tune(ring, options);
    rc = cfsr_ring_probe(ring);
    if (rc < 0)
        goto exit_queue;
    *ring_out = ring;
    return 0;

exit_queue:
    io_uring_queue_exit(&ring->uring);
    free(ring->own_stats);
    free(ring->backlog);
free_ring:
    free(ring);
    return rc;
}

char *cfsr_ring_describe(const struct cfsr_ring *ring, char *text_out, size_t len_bytes)
{
    uint32_t can = ring->capabilities;

    snprintf(text_out, len_bytes, "rung=%s sq=%u cq=%u%s%s%s%s%s%s%s", ladder[ring->rung].name,
             ring->sq_entries, ring->cq_entries,
             (can & CFSR_RING_CAN_WAIT_TIMEOUT) != 0 ? " wait_timeout" : "",
             (can & CFSR_RING_CAN_READ_FIXED) != 0 ? " read_fixed" : "",
             (can & CFSR_RING_CAN_WRITE_DSYNC) != 0 ? " write_dsync" : "",
             (can & CFSR_RING_CAN_RECV) != 0 ? " recv" : "",
             (can & CFSR_RING_CAN_SEND_ZC) != 0 ? " send_zc" : "",
             (can & CFSR_RING_CAN_MSG_RING) != 0 ? " msg_ring" : "",
             ring->has_buffers ? " buffers_registered" : "");
    return text_out;
}

char *cfsr_ring_report(char *text_out, size_t len_bytes)
{
    struct cfsr_ring_options options = {.sq_entries = 8, .cpu = -1};
    struct cfsr_ring *ring;

    if (cfsr_ring_create(&options, &ring) < 0) {
        snprintf(text_out, len_bytes, "%s", cfsr_error_message());
        return text_out;
    }
    cfsr_ring_describe(ring, text_out, len_bytes);
    cfsr_ring_destroy(ring);
    return text_out;
}
