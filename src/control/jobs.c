/*
 * jobs.c - helper threads (jobs.h).
 *
 * Threads:    submit on the core; run() on a helper; done() back on the core through its mailbox.
 * Invariants: a job is in exactly one place: owner, queue, helper, mailbox.
 * Rejected:   one thread (a segment being written would delay the opening of the next one to read),
 * a pool (nothing here is worth it).
 */
#include "control/jobs.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fail.h"
#include "base/spsc.h"

enum {
    QUICK,
    SLOW,
    KINDS
};

struct helper {
    struct cfsr_jobs *jobs;
    pthread_t thread;
    int wake_fd;
    struct cfsr_spsc *queue; /* one a core */
};

struct cfsr_jobs {
    uint32_t cores;
    struct cfsr_reactor **reactor;
    struct helper helper[KINDS];
    _Atomic bool stop;
    unsigned started;
};

static void deliver(const struct cfsr_message *message)
{
    struct cfsr_node_job *job = message->object;
    job->done(job);
}

static void finish(struct helper *helper, uint32_t core, struct cfsr_node_job *job)
{
    struct cfsr_message message = {.run = deliver, .object = job};

    job->run(job);
    /* A full mailbox drains within a turn of its core; this thread may wait. */
    while (!cfsr_reactor_post(helper->jobs->reactor[core], &message))
        (void)poll(NULL, 0, 1);
}

static bool run_queued(struct helper *helper)
{
    bool any = false;
    for (uint32_t core = 0; core < helper->jobs->cores; core++) {
        struct cfsr_node_job *job;
        while ((job = cfsr_spsc_pop(&helper->queue[core])) != NULL) {
            finish(helper, core, job);
            any = true;
        }
    }
    return any;
}

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    uint64_t ignored;

    pthread_setname_np(pthread_self(),
                       helper == &helper->jobs->helper[QUICK] ? "cfsr-quick" : "cfsr-slow");
    for (;;) {
        /* Read the flag first: what was queued before stop is still run. */
        bool stop = helper->jobs->stop;
        if (run_queued(helper))
            continue;
        if (stop)
            return NULL;
        if (read(helper->wake_fd, &ignored, sizeof ignored) < 0 && errno != EINTR)
            CFSR_ASSERT(false);
    }
}

static void wake(struct helper *helper)
{
    uint64_t one = 1;
    /* An eventfd takes 2^64-2 wakes before it would block: it cannot fail here. */
    ssize_t n = write(helper->wake_fd, &one, sizeof one);
    CFSR_ASSERT(n == sizeof one);
}

static int start_helper(struct helper *helper, uint32_t jobs_per_core)
{
    size_t capacity = 16;
    while (capacity < jobs_per_core)
        capacity *= 2;
    helper->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (helper->wake_fd < 0)
        return cfsr_fail(
            -errno, "cannot make an eventfd for a helper thread: raise the limit of open files");
    helper->queue = calloc(helper->jobs->cores, sizeof *helper->queue);
    if (helper->queue == NULL)
        return -ENOMEM;
    for (uint32_t core = 0; core < helper->jobs->cores; core++)
        if (cfsr_spsc_init(&helper->queue[core], capacity) < 0)
            return -ENOMEM;
    int rc = pthread_create(&helper->thread, NULL, helper_main, helper);
    return rc != 0 ? cfsr_fail(-rc, "cannot start a helper thread") : 0;
}

int cfsr_jobs_create(uint32_t cores, uint32_t jobs_per_core, struct cfsr_jobs **jobs_out)
{
    struct cfsr_jobs *jobs = calloc(1, sizeof *jobs);

    if (jobs == NULL)
        return -ENOMEM;
    jobs->cores = cores;
    jobs->helper[QUICK].wake_fd = jobs->helper[SLOW].wake_fd = -1;
    jobs->reactor = calloc(cores, sizeof(struct cfsr_reactor *));
    int rc = jobs->reactor == NULL ? -ENOMEM : 0;
    for (unsigned i = 0; rc == 0 && i < KINDS; i++) {
        jobs->helper[i].jobs = jobs;
        rc = start_helper(&jobs->helper[i], jobs_per_core);
        if (rc == 0)
            jobs->started++;
    }
    if (rc < 0) {
        cfsr_jobs_destroy(jobs);
        return rc;
    }
    *jobs_out = jobs;
    return 0;
}

void cfsr_jobs_attach(struct cfsr_jobs *jobs, uint32_t core, struct cfsr_reactor *reactor)
{
    CFSR_ASSERT(core < jobs->cores);
    jobs->reactor[core] = reactor;
}

void cfsr_jobs_submit(struct cfsr_jobs *jobs, uint32_t core, struct cfsr_node_job *job)
{
    struct helper *helper = &jobs->helper[job->slow ? SLOW : QUICK];
    CFSR_ASSERT(core < jobs->cores && jobs->reactor[core] != NULL);
    bool queued = cfsr_spsc_push(&helper->queue[core], job);
    CFSR_ASSERT(queued); /* sized by the owners' number */
    wake(helper);
}

void cfsr_jobs_destroy(struct cfsr_jobs *jobs)
{
    if (jobs == NULL)
        return;
    jobs->stop = true;
    for (unsigned i = 0; i < KINDS; i++) {
        struct helper *helper = &jobs->helper[i];
        if (i < jobs->started) {
            wake(helper);
            pthread_join(helper->thread, NULL);
        }
        for (uint32_t core = 0; helper->queue != NULL && core < jobs->cores; core++)
            cfsr_spsc_fini(&helper->queue[core]);
        free(helper->queue);
        if (helper->wake_fd >= 0)
            close(helper->wake_fd);
    }
    free(jobs->reactor);
    free(jobs);
}
