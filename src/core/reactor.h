/*
 * reactor.h - one core: a thread's ring, files, timers, mailbox, buffers and counters, and the
 * loop that turns them.
 *
 * A turn: drain the mailbox (bounded) -> one io_uring_enter that submits and reaps -> the handler's
 * tick (transport poll and state machines) -> timers -> idle policy. A busy turn makes exactly one
 * system call. The clock is read once a turn, and once more after a sleep; everything in a turn
 * sees the same now.
 */
#ifndef CFSR_CORE_REACTOR_H
#define CFSR_CORE_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file_ring.h"
#include "core/mailbox.h"
#include "core/ring.h"
#include "core/slab.h"
#include "core/stats.h"
#include "core/timer.h"

struct cfsr_reactor;

struct cfsr_reactor_options {
    uint32_t core_index; /* 0, 1, …: names the core in logs and metrics */
    int cpu;             /* CPU the thread and the kernel's workers are bound to; -1: not bound */
    uint32_t sq_entries; /* 0: as cfsr_ring_options */
    uint32_t cq_entries; /* 0: as cfsr_ring_options */
    enum cfsr_ring_rung first_rung; /* normally CFSR_RUNG_DEFER */
    uint32_t mailbox_entries;       /* power of two; 0: 1024 */
    uint32_t slot_bytes;            /* of the slab; multiple of 4096 */
    uint32_t slots;                 /* 0: no slab */
    uint32_t idle_spin_us;          /* turns without work before it sleeps; 0: sleeps at once */
};

struct cfsr_reactor_handler {
    void *user;
    /* One step of everything the core drives; returns the amount of work done (0: idle). */
    unsigned (*tick)(void *user, uint64_t now_ns);
    /* Earliest time tick must run without another event; CFSR_TIMER_NEVER. NULL: never. */
    uint64_t (*next_deadline_ns)(void *user);
    /* False: something is pending that the ring cannot wake the core for. NULL: always true. */
    bool (*may_sleep)(void *user);
    /*
     * Completions worth waking for, asked before a sleep; may shorten *limit_ns. More than 1
     * gathers bulk work: the sleep ends at that many or at the limit. NULL: 1.
     */
    unsigned (*wait_count)(void *user, uint64_t *limit_ns);
    /* True: sleep at once when there is nothing to do, whatever idle_spin_us says. NULL: never. */
    bool (*skip_spin)(void *user);
};

/*
 * On the thread that will run it: binds the thread, then makes ring, files, mailbox and slab. The
 * slab is registered as buffer 0 where the kernel allows (see cfsr_ring_register_buffers()).
 */
int cfsr_reactor_create(const struct cfsr_reactor_options *options,
                        struct cfsr_reactor **reactor_out);
/* Same thread; cancels what is in flight. Slots are given back before, timers need not be. */
void cfsr_reactor_destroy(struct cfsr_reactor *reactor);
/* Turns until cfsr_reactor_stop(); 0, or -errno if the ring broke. */
int cfsr_reactor_run(struct cfsr_reactor *reactor, const struct cfsr_reactor_handler *handler);
/* One turn that does not sleep, for tests and for draining; the work done or -errno. */
int cfsr_reactor_turn(struct cfsr_reactor *reactor, const struct cfsr_reactor_handler *handler);

/* Any thread. */
void cfsr_reactor_stop(struct cfsr_reactor *reactor);
bool cfsr_reactor_post(struct cfsr_reactor *reactor,
                       const struct cfsr_message *message); /* as cfsr_mailbox_post() */
const struct cfsr_core_stats *cfsr_reactor_stats(const struct cfsr_reactor *reactor);
int cfsr_reactor_tid(const struct cfsr_reactor *reactor); /* for cfsr_ring_workers_sample() */

/* Owner thread. */
struct cfsr_ring *cfsr_reactor_ring(struct cfsr_reactor *reactor);
struct cfsr_fs *cfsr_reactor_fs(struct cfsr_reactor *reactor);
struct cfsr_timers *cfsr_reactor_timers(struct cfsr_reactor *reactor);
struct cfsr_slab *cfsr_reactor_slab(struct cfsr_reactor *reactor); /* NULL if made without */
uint64_t cfsr_reactor_now_ns(const struct cfsr_reactor *reactor);  /* of this turn */
/* buffer_index for an address in the slab; CFSR_BUFFER_UNREGISTERED if the slab is not registered.
 */
uint16_t cfsr_reactor_buffer_index(const struct cfsr_reactor *reactor);
/*
 * Says what follows in this turn (a static string), for the stall detector: of a turn over 2 ms the
 * longest step is named in the stats and the log. Costs a read of the CPU's cycle counter.
 */
void cfsr_reactor_step(struct cfsr_reactor *reactor, const char *name);

#define CFSR_REACTOR_STALL_NS (2ull * 1000 * 1000)

/* 0, or -CFSR_E_CONFIG with a message that names the CPUs this process may use. */
int cfsr_cpu_validate(int cpu);

#endif
