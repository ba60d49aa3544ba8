/*
 * node.h - one core of the daemon: its lanes' journal readers, outgoing links, incoming connections
 * and inbox writers.
 *
 * A node core is the driver that executes the actions of the sans-I/O state machines
 * (repl/sender.h, repl/receiver.h, inbox/inbox.h) over the file seam and the transport table. It
 * knows no ring, socket, thread or clock: the daemon gives it the ring backends and real time, the
 * simulator its own.
 *
 * Thread: all functions on the owning core, except where said. Memory: everything is taken at
 * creation (cfsr_node_limits), nothing after it.
 */
#ifndef CFSR_NODE_NODE_H
#define CFSR_NODE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/counters.h"
#include "core/file.h"
#include "inbox/inbox.h"
#include "journal/status_page.h"
#include "repl/receiver.h"
#include "repl/route.h"
#include "repl/scrub.h"
#include "repl/sender.h"
#include "transport/transport.h"

#define CFSR_NODE_CORES_MAX 64

/* A blocking piece of work: run() on a helper thread, then done() back on the core. Embedded in its
 * owner, who waits for done(). */
struct cfsr_node_job {
    void (*run)(struct cfsr_node_job *job);
    void (*done)(struct cfsr_node_job *job);
    void *owner_core; /* set by the submitter: which core done() runs on */
    bool slow;        /* may take long (writing a segment once in full): not to delay the others */
    bool busy;
};

/* A way to the peers: one of the transports, and this core's group of it. */
struct cfsr_node_path {
    const struct cfsr_transport *transport; /* NULL: not there … */
    struct cfsr_group *group;
    int unusable; /* … and why: -ENODEV, -ENOTSUP, -ENETDOWN; 0: it was not asked for */
};

/* What the core runs on. */
struct cfsr_node_env {
    void *user;
    struct cfsr_fs *fs;          /* asynchronous reads and writes of this core */
    struct cfsr_fs *blocking_fs; /* for jobs */
    /* Hands a file that a job opened with blocking_fs to fs, on the core. NULL: the two are one. */
    void (*adopt_file)(void *user, struct cfsr_file *file);
    struct cfsr_node_path path[CFSR_PATHS];
    struct cfsr_status_page
        *page; /* NULL in the simulator: heads come from cfsr_node_core_set_head() */
    void (*submit_job)(
        void *user, struct cfsr_node_job *job); /* never fails: each owner has one job at a time */
    /* Start-up only: 4 KiB-aligned memory for I/O, and its registered buffer index (or
     * CFSR_BUFFER_UNREGISTERED). NULL: out of memory. */
    void *(*take_memory)(void *user, uint64_t len_bytes, uint16_t *buffer_index_out);
    void (*random)(void *user, void *out, size_t len_bytes);
    uint64_t (*clock_ns)(void *user); /* for stage histograms only; NULL: not measured */
};

struct cfsr_node_peer {
    uint64_t site_id;
    char name[CFSR_SITE_NAME_MAX + 1];
    char endpoint[CFSR_PATHS][CFSR_ENDPOINT_MAX]; /* "": the peer has none there */
    int page_index;                               /* of the status page; -1 without page */
    uint64_t acked_lsn[CFSR_LANES_MAX];           /* as persisted: tells a peer that went back;
                                                     CFSR_LSN_UNKNOWN if not known */
};

struct cfsr_node_options {
    const struct cfsr_site *site;
    const struct cfsr_keyring *keyring;
    const struct cfsr_node_peer *peers;
    uint32_t peer_count;
    uint32_t core, cores;
    uint8_t session_id[16];

    struct cfsr_codec_config codec;
    uint32_t batch_bytes, batch_entries;
    uint64_t batch_timeout_ns;
    uint64_t window_bytes;
    enum cfsr_rdma_mode rdma;
    uint64_t rdma_retry_ns; /* longest pause between attempts while on TCP; 0: 60 s */
    uint64_t heartbeat_ns, hello_timeout_ns, progress_timeout_ns;
    uint64_t backoff_min_ns, backoff_max_ns, fault_retry_ns;
    uint64_t sync_bytes, sync_delay_ns;
    uint64_t inbox_cap_bytes; /* of the whole inbox; 0: min(50 % of the file system, 256 GiB) */
    bool journal_direct, inbox_direct;
    bool ack_written; /* ack when written, not when durable; named so in every ack */

    uint64_t scrub_interval_ns; /* between runs by ourselves; 0: none */
    uint64_t scrub_rate;        /* bytes per second a run checks at most; 0: unlimited */
    uint64_t scrub_retry_ns;    /* what was not repaired is tried again; 0: 30 s */
    uint64_t features_withheld; /* CFSR_FEATURE_* not offered to peers */
    enum cfsr_seal seal;        /* of bodies, link by link */

    uint32_t read_buffers; /* two per journal stream */
    uint32_t batch_slots;
    uint32_t inbox_slots;
    uint32_t strangers_max; /* incoming connections that have not proven anything yet, >= 16 */
};

/* Counters of a core; the unpleasant ones included. Written by the core, read by any thread. */
#define CFSR_NODE_COUNTERS(X)                                                            \
    X(batches_encoded)                                                                   \
    X(batches_shared) /* sends that reused a batch encoded for another peer */           \
    X(entries_tailed)                                                                    \
    X(raw_bytes_encoded)                                                                 \
    X(stored_bytes_encoded)                                                              \
    X(journal_reads)                                                                     \
    X(journal_read_bytes)                                                                \
    X(batches_sent)                                                                      \
    X(wire_bytes_sent)                                                                   \
    X(batches_received)                                                                  \
    X(duplicate_batches)                                                                 \
    X(wire_bytes_received)                                                               \
    X(raw_bytes_received)                                                                \
    X(entries_received)                                                                  \
    X(inbox_writes)                                                                      \
    X(inbox_write_bytes)                                                                 \
    X(inbox_write_errors)                                                                \
    X(inbox_direct_batches) /* written from where they were received, without a copy */  \
    X(inbox_direct_bytes)                                                                \
    X(inbox_lane_reopened) /* after a failed write: begun anew behind what is durable */ \
    X(acks_sent)                                                                         \
    X(acks_received)                                                                     \
    X(batches_timed_out)                                                                 \
    X(retransmitted_bytes)                                                               \
    X(connects)                                                                          \
    X(refused_in)  /* connections refused or dropped here, with a named reason */        \
    X(refused_out) /* refusals by peers */                                               \
    X(bad_frames)  /* malformed, replayed, wrong tag, wrong digest, damaged body */      \
    X(peer_regressions)                                                                  \
    X(stall_no_batch_slot)                                                               \
    X(stall_no_seal_slot)                                                                \
    X(stall_no_stream)                                                                   \
    X(stall_no_inbox_slot)                                                               \
    X(stall_inbox_writes)                                                                \
    X(stall_no_segment)                                                                  \
    X(stall_inbox_failed) /* a failed write: the lane is being begun anew */             \
    X(stall_no_control_slot)                                                             \
    X(stall_window)                                                                      \
    X(queries_sent)                                                                      \
    X(queries_served)                                                                    \
    X(queries_refused) /* answered with a status: nothing to give */                     \
    X(replies_refused) /* answers of peers that failed a check */                        \
    X(scrub_bytes)                                                                       \
    X(scrub_windows)                                                                     \
    X(scrub_differences)                                                                 \
    X(damage_found)                                                                      \
    X(damage_repaired)                                                                   \
    X(damage_unrepairable)                                                               \
    X(path_fallbacks) /* links that went from RDMA to TCP */                             \
    X(path_returns)   /* and back */                                                     \
    X(rdma_failures)
struct cfsr_node_counters {
#define X(name) cfsr_counter name;
    CFSR_NODE_COUNTERS(X)
#undef X
};

/* Stage histograms, nanoseconds per batch (ack: send to durable ack). */
#define CFSR_NODE_STAGES(X) \
    X(scan)                 \
    X(encode)               \
    X(verify)               \
    X(decode)               \
    X(check)                \
    X(write)                \
    X(ack)
struct cfsr_node_stages {
#define X(name) struct cfsr_histogram name;
    CFSR_NODE_STAGES(X)
#undef X
};

struct cfsr_node_core;

/* Bytes of I/O memory a core will take with these options: the sum, term by term, is in
 * node/limits.h. */
uint64_t cfsr_node_memory_bytes(const struct cfsr_node_options *options);

/*
 * Connections of a core: those it accepts, those it dials. Every lane of a peer comes over one
 * connection, and how many cores a peer has, or believes us to have, is not ours to say: there is a
 * place for each lane of each peer, one a peer for what ends while it is replaced, and the
 * strangers.
 */
uint32_t cfsr_node_accepts_max(const struct cfsr_node_options *options);
uint32_t cfsr_node_dials_max(const struct cfsr_node_options *options);

int cfsr_node_core_create(const struct cfsr_node_options *options, const struct cfsr_node_env *env,
                          uint64_t now_ns, struct cfsr_node_core **core_out);
/* After drain: connections closed, no op or job outstanding (asserted). */
void cfsr_node_core_destroy(struct cfsr_node_core *core);

/* Inbox state of an owned lane, from recovery; for every owned lane, before the first tick. */
int cfsr_node_core_add_lane(struct cfsr_node_core *core, uint32_t lane,
                            const struct cfsr_inbox_state *state, uint64_t now_ns);

/* One turn; returns the work done (0: idle). */
unsigned cfsr_node_core_tick(struct cfsr_node_core *core, uint64_t now_ns, uint64_t wall_us);
uint64_t cfsr_node_core_next_deadline(const struct cfsr_node_core *core);
/* True if nothing waits that only a turn can move: heads of the status page were looked at, and the
 * transports will wake the core. */
bool cfsr_node_core_may_sleep(struct cfsr_node_core *core);
/* True while a peer that has more gathered is sending: waking for every piece of it would cost more
 * than it gains. */
bool cfsr_node_core_is_receiving_bulk(const struct cfsr_node_core *core);
/* The same for what this core sends: more has gathered than the last batch took. */
bool cfsr_node_core_is_sending_bulk(const struct cfsr_node_core *core);
/* Bit k: lane k belongs to this core. */
uint64_t cfsr_node_core_lane_mask(const struct cfsr_node_core *core);

/* A connection of that path, accepted by the control thread for this core. Discards it when the
 * pool is full. */
void cfsr_node_core_accept(struct cfsr_node_core *core, enum cfsr_path path,
                           struct cfsr_incoming *incoming, uint64_t now_ns);
/* Simulator: the lane's committed end, in place of the status page. */
void cfsr_node_core_set_head(struct cfsr_node_core *core, uint32_t lane, uint64_t committed_lsn,
                             uint64_t entries);

/* Begins an orderly end: GOODBYEs, closes; true from is_drained() once no connection, op or job is
 * left. */
void cfsr_node_core_drain(struct cfsr_node_core *core, uint64_t now_ns);
bool cfsr_node_core_is_drained(const struct cfsr_node_core *core);

const struct cfsr_node_counters *cfsr_node_core_counters(const struct cfsr_node_core *core);
const struct cfsr_node_stages *cfsr_node_core_stages(const struct cfsr_node_core *core);

/* Asks for a scrub of lanes of this core (others are passed over); it is over when the status says
 * that run_finished >= request->run. */
void cfsr_node_core_scrub(struct cfsr_node_core *core, const struct cfsr_scrub_request *request);

/* Snapshots for status; filled on the core's thread. */
struct cfsr_node_lane_status {
    uint32_t lane;
    uint64_t head_lsn, head_entries, sent_lsn, acked_lsn, acked_entries;
    bool known; /* acked_* are the peer's word in this run */
};
struct cfsr_node_link_status {
    uint64_t peer_site_id;
    enum cfsr_link_state state;
    char reason[48];
    char detail[128];
    bool caught_up;
    uint64_t caught_up_ns; /* when everything was last acked; 0: never in this run */
    uint32_t peer_core;
    uint32_t lane_count;
    struct cfsr_node_lane_status lane[CFSR_LANES_MAX];
    uint64_t in_flight_bytes, rtt_us;
    enum cfsr_path path;
    int path_reason; /* why it is not RDMA, which was wanted; 0: it is, or was not */
    struct cfsr_route_counters route;
    int64_t clock_offset_us;
    bool clock_offset_known;
    uint8_t peer_ack_mode, peer_backpressure_pct;
    uint64_t fault_lsn;
    uint32_t fault_lane;
    struct cfsr_sender_counters counters;
};
struct cfsr_node_in_status {
    uint64_t site_id;
    uint32_t lane;
    uint64_t durable_lsn, staged_lsn, entries, head_lsn, head_entries;
    bool connected, failed;
};
struct cfsr_node_scrub_status {
    bool running;
    uint64_t run_finished; /* highest run that is over */
    uint64_t lane_mask;    /* of this core */
    struct cfsr_scrub_lane lane[CFSR_LANES_MAX];
    uint32_t finding_count;
    struct cfsr_scrub_finding finding[CFSR_SCRUB_FINDINGS_MAX]; /* the last ones, oldest first */
};
#define CFSR_NODE_LINKS_MAX (CFSR_STATUS_PEERS_MAX * 4)
#define CFSR_NODE_INS_MAX   (CFSR_LANES_MAX * 8)
struct cfsr_node_status {
    uint32_t link_count, in_count, connections_in;
    struct cfsr_node_link_status link[CFSR_NODE_LINKS_MAX];
    struct cfsr_node_in_status in[CFSR_NODE_INS_MAX];
    struct cfsr_node_scrub_status scrub;
};
void cfsr_node_core_status(const struct cfsr_node_core *core, struct cfsr_node_status *status_out);

#endif
