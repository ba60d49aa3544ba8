/*
 * writer_internal.h - what writer.c (appending threads) and writer_helper.c (the helper thread)
 * share.
 */
#ifndef CFSR_JOURNAL_WRITER_INTERNAL_H
#define CFSR_JOURNAL_WRITER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "journal/acks.h"
#include "journal/gc.h"
#include "journal/group.h"
#include "journal/lane_file.h"
#include "journal/site.h"
#include "journal/status_page.h"
#include <cfsrepl/journal.h>

/* One lane. The mutex guards all but files (leader: whoever set busy) and the atomics. */
struct cfsr_writer_lane {
    _Alignas(64) pthread_mutex_t mutex;
    pthread_cond_t changed; /* durable_lsn moved, busy was cleared, or the lane failed */
    struct cfsr_commit_group group;
    uint64_t durable_lsn;
    bool busy; /* a leader writes, or rotates */
    bool failed;
    bool clean_end;              /* continues behind a closing MARK: a MARK alone must come first */
    struct cfsr_lane_file files; /* of the leader; the spare also of the helper */
    struct cfsr_file *lock;
    atomic_bool used;        /* written to since it was opened */
    uint64_t wanted_lsn;     /* highest end LSN that an appender waits, or waited, for */
    atomic_bool wants_spare; /* its segment is far enough to need the next one soon */
    atomic_bool uncovered;   /* no MARK says yet that the last group is durable */
    _Atomic uint64_t last_commit_ns;
    struct cfsr_journal_stats stats;
};

struct cfsr_journal {
    struct cfsr_site site;
    struct cfsr_fs *fs;
    struct cfsr_status_page *page;
    struct cfsr_writer_lane *lanes;
    uint32_t lanes_opened;
    uint64_t idle_mark_ns;
    bool direct;
    uint32_t buffer_bytes;

    /* The helper. */
    pthread_t helper;
    bool helper_started;
    pthread_mutex_t helper_mutex;
    pthread_cond_t helper_wake;
    bool stopping;           /* under helper_mutex */
    atomic_bool helper_idle; /* sleeps for long: poke it */
    atomic_bool spare_wanted;
    struct cfsr_gc_limits limits;
    struct cfsr_acks acks; /* of the helper */
    atomic_uint recycled, removed, forced;
};

int cfsr_writer_helper_start(struct cfsr_journal *journal);
void cfsr_writer_helper_stop(struct cfsr_journal *journal);
/* Cheap when the helper is awake. Any thread. */
void cfsr_writer_helper_poke(struct cfsr_journal *journal);
/* A MARK group of its own, durable. skip_if_active: returns 0 at once when the lane has work of its
 * own. Lane locked. */
int cfsr_writer_mark(struct cfsr_journal *journal, struct cfsr_writer_lane *lane, uint32_t flags,
                     bool skip_if_active);

#endif
