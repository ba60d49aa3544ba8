/*
 * reactor.c - the loop of one core.
 *
 * Thread:     its own, from create to destroy; stop, post and stats from any.
 * Invariants: the ring is entered once a turn; it is only slept in after the mailbox agreed (no
 *             lost wake-up), the handler allowed it, and nothing is queued or due.
 */
#include "core/reactor.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "core/idle.h"

#define DEFAULT_MAILBOX_ENTRIES 1024u
#define MAILBOX_BUDGET          64u

/* The longest step of a turn, by the cycle counter: its unit does not matter, only which is
 * longest. */
struct step_watch {
    const char *name;
    uint64_t begin;
    const char *longest_name;
    uint64_t longest;
};

struct cfsr_reactor {
    struct cfsr_core_stats stats; /* first: cache-line aligned with the object */
    struct cfsr_ring *ring;
    struct cfsr_fs *fs;
    struct cfsr_mailbox *mailbox;
    struct cfsr_slab *slab;
    struct cfsr_timers timers;
    struct cfsr_idle idle;
    struct step_watch watch;
    uint64_t now_ns;
    uint32_t core_index;
    int tid;
    _Atomic bool stop;
};

static uint64_t cycles(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
    return cfsr_clock_monotonic_ns();
#endif
}

void cfsr_reactor_step(struct cfsr_reactor *reactor, const char *name)
{
    struct step_watch *watch = &reactor->watch;
    uint64_t at = cycles();

    if (watch->name != NULL && at - watch->begin > watch->longest) {
        watch->longest = at - watch->begin;
        watch->longest_name = watch->name;
    }
    watch->name = name;
    watch->begin = at;
}

static int bind_thread(int cpu)
{
    cpu_set_t set;
    int rc;

    if (cpu < 0)
        return 0;
    rc = cfsr_cpu_validate(cpu);
    if (rc < 0)
        return rc;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        return cfsr_fail(-errno, "cannot bind a core to CPU %d: %s", cpu, cfsr_strerror(-errno));
    return 0;
}

/* "0-1,4" for the message. */
static void format_cpus(const cpu_set_t *set, char *text_out, size_t len_bytes)
{
    size_t used = 0;
    unsigned cpu, last;

    text_out[0] = '\0';
    for (cpu = 0; cpu < CPU_SETSIZE; cpu = last + 1) {
        int n;

        last = cpu;
        if (!CPU_ISSET(cpu, set))
            continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, set))
            last++;
        n = last == cpu
                ? snprintf(text_out + used, len_bytes - used, "%s%u", used == 0 ? "" : ",", cpu)
                : snprintf(text_out + used, len_bytes - used, "%s%u-%u", used == 0 ? "" : ",", cpu,
                           last);
        if (n < 0 || (size_t)n >= len_bytes - used)
            break;
        used += (size_t)n;
    }
}

int cfsr_cpu_validate(int cpu)
{
    char usable[256];
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return -errno;
    if (cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET((unsigned)cpu, &set))
        return 0;
    format_cpus(&set, usable, sizeof usable);
    return cfsr_fail(-CFSR_E_CONFIG,
                     "CPU %d cannot be used: this process may run on CPUs %s; change --cores", cpu,
                     usable);
}

static int create_slab(struct cfsr_reactor *reactor, const struct cfsr_reactor_options *options)
{
    struct cfsr_slab_options slab = {
        .slot_bytes = options->slot_bytes, .slots = options->slots, .populate = true};
    struct iovec part;
    int rc;

    if (options->slots == 0)
        return 0;
    rc = cfsr_slab_create(&slab, &reactor->slab);
    if (rc < 0)
        return rc;
    part = (struct iovec){.iov_base = cfsr_slab_base(reactor->slab),
                          .iov_len = cfsr_slab_bytes(reactor->slab)};
    (void)cfsr_ring_register_buffers(reactor->ring, &part,
                                     1); /* unregistered works too, and was logged */
    return 0;
}

static int create_parts(struct cfsr_reactor *reactor, const struct cfsr_reactor_options *options)
{
    struct cfsr_ring_options ring = {.sq_entries = options->sq_entries,
                                     .cq_entries = options->cq_entries,
                                     .cpu = options->cpu,
                                     .first_rung = options->first_rung,
                                     .stats = &reactor->stats};
    int rc = cfsr_ring_create(&ring, &reactor->ring);

    if (rc < 0)
        return rc;
    reactor->fs = cfsr_fs_ring_create(reactor->ring);
    if (reactor->fs == NULL)
        return -ENOMEM;
    rc = cfsr_mailbox_create(options->mailbox_entries == 0 ? DEFAULT_MAILBOX_ENTRIES
                                                           : options->mailbox_entries,
                             &reactor->mailbox);
    if (rc < 0)
        return rc;
    cfsr_mailbox_attach(reactor->mailbox, reactor->ring);
    return create_slab(reactor, options);
}

int cfsr_reactor_create(const struct cfsr_reactor_options *options,
                        struct cfsr_reactor **reactor_out)
{
    struct cfsr_reactor *reactor;
    int rc;

    rc = bind_thread(options->cpu);
    if (rc < 0)
        return rc;
    reactor = aligned_alloc(CFSR_CACHE_LINE, cfsr_align_up(sizeof *reactor, CFSR_CACHE_LINE));
    if (reactor == NULL)
        return -ENOMEM;
    memset(reactor, 0, sizeof *reactor);
    cfsr_timers_init(&reactor->timers);
    reactor->core_index = options->core_index;
    reactor->idle.spin_ns = options->idle_spin_us * 1000ull;
    reactor->tid = gettid();
    reactor->now_ns = cfsr_clock_monotonic_ns();
    reactor->idle.since_ns = reactor->now_ns;
    rc = create_parts(reactor, options);
    if (rc < 0) {
        cfsr_reactor_destroy(reactor);
        return rc;
    }
    *reactor_out = reactor;
    return 0;
}

void cfsr_reactor_destroy(struct cfsr_reactor *reactor)
{
    if (reactor == NULL)
        return;
    if (reactor->mailbox != NULL)
        cfsr_mailbox_detach(reactor->mailbox);
    cfsr_ring_destroy(reactor->ring); /* before the memory its operations name */
    cfsr_fs_ring_destroy(reactor->fs);
    cfsr_mailbox_destroy(reactor->mailbox);
    cfsr_slab_destroy(reactor->slab);
    free(reactor);
}

/* The time to sleep in this turn's enter; 0: do not. If not 0, the mailbox has been told. */
static uint64_t decide_sleep(struct cfsr_reactor *reactor,
                             const struct cfsr_reactor_handler *handler)
{
    uint64_t deadline_ns = cfsr_timers_next_ns(&reactor->timers);
    uint64_t sleep_ns;

    if (!cfsr_idle_is_due(&reactor->idle, reactor->now_ns) &&
        (handler->skip_spin == NULL || !handler->skip_spin(handler->user)))
        return 0;
    if (handler->may_sleep != NULL && !handler->may_sleep(handler->user))
        return 0;
    if (handler->next_deadline_ns != NULL)
        deadline_ns = cfsr_min_u64(deadline_ns, handler->next_deadline_ns(handler->user));
    sleep_ns = cfsr_idle_sleep_ns(reactor->now_ns, deadline_ns);
    if (sleep_ns == 0 || !cfsr_mailbox_prepare_sleep(reactor->mailbox))
        return 0;
    return sleep_ns;
}

static void note_stall(struct cfsr_reactor *reactor, uint64_t took_ns)
{
    struct cfsr_core_stats *stats = &reactor->stats;
    const char *name = reactor->watch.longest_name;

    cfsr_core_count(stats, stalls, 1);
    atomic_store_explicit(&stats->stall_name, name, memory_order_relaxed);
    if (took_ns > cfsr_counter_get(&stats->stall_worst_ns))
        cfsr_counter_set(&stats->stall_worst_ns, took_ns);
    cfsr_log(CFSR_LOG_DEBUG, "core_stall", CFSR_U("core", reactor->core_index),
             CFSR_S("step", name), CFSR_U("turn_us", took_ns / 1000));
}

/* The end of a turn is the begin of the next: one clock read serves both. */
static void end_turn(struct cfsr_reactor *reactor, uint64_t work)
{
    uint64_t began_ns = reactor->now_ns;

    cfsr_reactor_step(reactor, NULL);
    reactor->now_ns = cfsr_clock_monotonic_ns();
    cfsr_core_count(&reactor->stats, turns, 1);
    if (work > 0) {
        cfsr_idle_worked(&reactor->idle, reactor->now_ns);
        cfsr_core_stage(&reactor->stats, turn, reactor->now_ns - began_ns);
    } else {
        cfsr_core_count(&reactor->stats, idle_turns, 1);
    }
    if (reactor->now_ns - began_ns > CFSR_REACTOR_STALL_NS)
        note_stall(reactor, reactor->now_ns - began_ns);
    reactor->watch = (struct step_watch){0};
}

/* Submits and reaps, asleep if asked; the completions dispatched or -errno. */
static int reap(struct cfsr_reactor *reactor, const struct cfsr_reactor_handler *handler,
                uint64_t sleep_ns)
{
    unsigned wait_count = 1;
    int completions;

    if (sleep_ns == 0) {
        cfsr_reactor_step(reactor, "completions");
        return cfsr_ring_submit_and_reap(reactor->ring, 0);
    }
    if (handler->wait_count != NULL)
        wait_count = handler->wait_count(handler->user, &sleep_ns);
    completions = cfsr_ring_submit_and_wait(reactor->ring, wait_count, sleep_ns);
    cfsr_mailbox_awake(reactor->mailbox);
    cfsr_core_count(&reactor->stats, sleeps, 1);
    reactor->now_ns = cfsr_clock_monotonic_ns();
    reactor->watch = (struct step_watch){0}; /* sleep is no stall */
    return completions;
}

static int turn(struct cfsr_reactor *reactor, const struct cfsr_reactor_handler *handler,
                bool may_sleep)
{
    uint64_t work, fired, sleep_ns = 0;
    unsigned messages;
    int completions;

    cfsr_reactor_step(reactor, "mailbox");
    messages = cfsr_mailbox_drain(reactor->mailbox, MAILBOX_BUDGET);
    cfsr_core_count(&reactor->stats, messages, messages);
    if (may_sleep && messages == 0)
        sleep_ns = decide_sleep(reactor, handler);
    completions = reap(reactor, handler, sleep_ns);
    if (completions < 0)
        return completions;
    work = messages + (uint64_t)completions;
    cfsr_reactor_step(reactor, "tick");
    work += handler->tick(handler->user, reactor->now_ns);
    cfsr_reactor_step(reactor, "timers");
    fired = cfsr_timers_expire(&reactor->timers, reactor->now_ns);
    cfsr_core_count(&reactor->stats, timers_fired, fired);
    work += fired;
    end_turn(reactor, work);
    return work > INT32_MAX ? INT32_MAX : (int)work;
}

int cfsr_reactor_turn(struct cfsr_reactor *reactor, const struct cfsr_reactor_handler *handler)
{
    return turn(reactor, handler, false);
}

int cfsr_reactor_run(struct cfsr_reactor *reactor, const struct cfsr_reactor_handler *handler)
{
    reactor->now_ns = cfsr_clock_monotonic_ns();
    cfsr_idle_worked(&reactor->idle, reactor->now_ns);
    while (!atomic_load_explicit(&reactor->stop, memory_order_acquire)) {
        int rc = turn(reactor, handler, true);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static void nothing(const struct cfsr_message *message)
{
    (void)message;
}

void cfsr_reactor_stop(struct cfsr_reactor *reactor)
{
    const struct cfsr_message wake = {.run = nothing};

    atomic_store_explicit(&reactor->stop, true, memory_order_release);
    (void)cfsr_mailbox_post(reactor->mailbox, &wake); /* a full box means that it is awake */
}

bool cfsr_reactor_post(struct cfsr_reactor *reactor, const struct cfsr_message *message)
{
    return cfsr_mailbox_post(reactor->mailbox, message);
}

const struct cfsr_core_stats *cfsr_reactor_stats(const struct cfsr_reactor *reactor)
{
    return &reactor->stats;
}
int cfsr_reactor_tid(const struct cfsr_reactor *reactor)
{
    return reactor->tid;
}
struct cfsr_ring *cfsr_reactor_ring(struct cfsr_reactor *reactor)
{
    return reactor->ring;
}
struct cfsr_fs *cfsr_reactor_fs(struct cfsr_reactor *reactor)
{
    return reactor->fs;
}
struct cfsr_timers *cfsr_reactor_timers(struct cfsr_reactor *reactor)
{
    return &reactor->timers;
}
struct cfsr_slab *cfsr_reactor_slab(struct cfsr_reactor *reactor)
{
    return reactor->slab;
}
uint64_t cfsr_reactor_now_ns(const struct cfsr_reactor *reactor)
{
    return reactor->now_ns;
}

uint16_t cfsr_reactor_buffer_index(const struct cfsr_reactor *reactor)
{
    return reactor->slab != NULL && cfsr_ring_has_buffers(reactor->ring) ? 0
                                                                         : CFSR_BUFFER_UNREGISTERED;
}
