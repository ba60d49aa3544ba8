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

/* LSNs that were given to entries which are not in the journal: (begin_lsn, end_lsn]. */
struct cfsr_lost_range {
    uint64_t begin_lsn, end_lsn;
};
#define CFSR_LOST_RANGES_MAX 64

/* One lane. The mutex guards all but files (leader: whoever set busy) and the atomics. */
struct cfsr_writer_lane {
    _Alignas(64) pthread_mutex_t mutex;
    pthread_cond_t changed; /* durable_lsn moved, busy was cleared, or the lane failed */
    uint32_t id;
    struct cfsr_commit_group group;
    uint64_t durable_lsn;
    bool busy; /* a leader writes, or rotates; or the helper opens the lane anew */
    /* After a failed write or sync, until the helper has opened the lane anew: nothing is taken. */
    bool failed;
    int failed_rc;        /* why */
    uint64_t retry_at_ns; /* when the helper tries again */
    uint64_t generation;  /* goes up with each time it was opened anew */
    struct cfsr_lost_range lost[CFSR_LOST_RANGES_MAX]; /* ascending */
    uint32_t lost_count;
    uint64_t staged_lsn;    /* highest end LSN given out by cfsr_journal_stage() */
    bool lost_untold;       /* of those, some were lost: the next flush says so */
    uint64_t full_until_ns; /* a segment could not be had for want of space: not tried before */
    bool clean_end;         /* continues behind a closing MARK: a MARK alone must come first */
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
    atomic_bool reopen_wanted;
    atomic_bool spare_wanted;
    struct cfsr_gc_limits limits;
    struct cfsr_acks acks; /* of the helper, as the next two */
    struct cfsr_gc_peer peers[CFSR_STATUS_PEERS_MAX];
    struct cfsr_detached_since {
        uint64_t site_id;
        uint64_t acked_sum; /* over the lanes, when it was seen detached first */
    } detached_since[CFSR_STATUS_PEERS_MAX];
    uint32_t detached_count;
    atomic_uint pressure; /* enum cfsr_gc_pressure_level */
    atomic_uint pause_ms;
    atomic_ullong journal_bytes;
    atomic_uint recycled, removed, forced, reopened, detached_removals;
};

int cfsr_writer_helper_start(struct cfsr_journal *journal);
void cfsr_writer_helper_stop(struct cfsr_journal *journal);
/* Cheap when the helper is awake. Any thread. */
void cfsr_writer_helper_poke(struct cfsr_journal *journal);
/* A MARK group of its own, durable. skip_if_active: returns 0 at once when the lane has work of its
 * own. Lane locked. */
int cfsr_writer_mark(struct cfsr_journal *journal, struct cfsr_writer_lane *lane, uint32_t flags,
                     bool skip_if_active);

/* Removes what is not needed, detaches who holds too much back. Helper. */
void cfsr_writer_retain(struct cfsr_journal *journal);
/* Opens anew, on fresh descriptors, the lanes whose write or sync failed. Helper. */
void cfsr_writer_reopen_failed(struct cfsr_journal *journal);
/* Says on the status page what recovery found. */
void cfsr_writer_publish_state(struct cfsr_journal *journal, uint32_t lane_id,
                               const struct cfsr_lane_state *state);
/* cfsr_journal_open() on another file backend; the status page stays a real file. For tests. */
int cfsr_journal_open_on(struct cfsr_fs *fs, const struct cfsr_journal_options *options,
                         struct cfsr_journal **journal_out);

#endif
