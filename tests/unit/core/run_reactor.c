/*
 * run_reactor.c - two cores and a control thread that talk by messages; built for ThreadSanitizer,
 * no test framework.
 *
 * The control thread posts work to core 0, which hands each message on to core 1, which counts it;
 * it also reads the counters of both while they run. Exit 0: all arrived in order; 1: not; 77: no
 * io_uring here.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cfsrepl/error.h>

#include "core/reactor.h"

#define MESSAGES 50000u

struct core {
    pthread_t thread;
    uint32_t index;
    _Atomic(struct cfsr_reactor *) reactor;
    _Atomic int failed;
    pthread_barrier_t *all_stopped; /* posts to a neighbour end before anyone's mailbox goes */
    struct core *next;              /* where messages go on to; NULL: counted here */
    uint64_t received;              /* owner only, read after the join */
    uint64_t out_of_order;
};

static void pass_on(struct core *core, const struct cfsr_message *message)
{
    struct cfsr_message copy = *message;

    copy.object = core->next;
    /* Bounded by the sender, which waits for room: the next core is never more than its box behind.
     */
    while (!cfsr_reactor_post(atomic_load(&core->next->reactor), &copy))
        sched_yield();
}

static void take(const struct cfsr_message *message)
{
    struct core *core = message->object;

    if (message->args[0] != core->received)
        core->out_of_order++;
    core->received++;
    if (core->next != NULL)
        pass_on(core, message);
}

static unsigned tick(void *user, uint64_t now_ns)
{
    (void)user;
    (void)now_ns;
    return 0;
}

static void *core_main(void *argument)
{
    struct core *core = argument;
    struct cfsr_reactor_options options = {
        .core_index = core->index, .cpu = -1, .slot_bytes = 4096, .slots = 8, .idle_spin_us = 20};
    struct cfsr_reactor_handler handler = {.user = core, .tick = tick};
    struct cfsr_reactor *reactor = NULL;
    int rc = cfsr_reactor_create(&options, &reactor);

    if (rc < 0) {
        fprintf(stderr, "core %u: %s\n", core->index, cfsr_error_message());
        atomic_store(&core->failed, rc);
        return NULL;
    }
    atomic_store(&core->reactor, reactor);
    rc = cfsr_reactor_run(reactor, &handler);
    if (rc < 0)
        atomic_store(&core->failed, rc);
    pthread_barrier_wait(core->all_stopped);
    cfsr_reactor_destroy(reactor);
    return NULL;
}

static int wait_started(struct core *core)
{
    while (atomic_load(&core->reactor) == NULL) {
        if (atomic_load(&core->failed) != 0)
            exit(atomic_load(&core->failed) == -CFSR_E_NO_IO_URING ? 77 : 1);
        sched_yield();
    }
    return 0;
}

static uint64_t messages_of(struct core *core)
{
    return cfsr_counter_get(
        &cfsr_reactor_stats(atomic_load(&core->reactor))->counters[CFSR_CORE_COUNTER_messages]);
}

int main(void)
{
    static struct core cores[2] = {{.index = 0, .next = &cores[1]}, {.index = 1}};
    static pthread_barrier_t all_stopped;
    uint64_t i;

    pthread_barrier_init(&all_stopped, NULL, 3);
    for (i = 0; i < 2; i++) {
        cores[i].all_stopped = &all_stopped;
        if (pthread_create(&cores[i].thread, NULL, core_main, &cores[i]) != 0)
            return 1;
    }
    wait_started(&cores[0]);
    wait_started(&cores[1]);
    for (i = 0; i < MESSAGES; i++) {
        struct cfsr_message message = {.run = take, .object = &cores[0], .args = {i}};

        while (!cfsr_reactor_post(atomic_load(&cores[0].reactor), &message))
            sched_yield();
    }
    while (messages_of(&cores[1]) < MESSAGES)
        sched_yield();
    cfsr_reactor_stop(atomic_load(&cores[0].reactor));
    cfsr_reactor_stop(atomic_load(&cores[1].reactor));
    pthread_barrier_wait(&all_stopped);
    for (i = 0; i < 2; i++)
        pthread_join(cores[i].thread, NULL);
    printf("core 0: %lu, core 1: %lu messages, %lu out of order\n",
           (unsigned long)cores[0].received, (unsigned long)cores[1].received,
           (unsigned long)(cores[0].out_of_order + cores[1].out_of_order));
    return cores[0].received == MESSAGES && cores[1].received == MESSAGES &&
                   cores[0].out_of_order + cores[1].out_of_order == 0 &&
                   atomic_load(&cores[0].failed) == 0 && atomic_load(&cores[1].failed) == 0
               ? 0
               : 1;
}
