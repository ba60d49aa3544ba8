/*
 * sender.h - one outgoing connection: this core's lanes that live on one core of the peer.
 * Sans-I/O.
 *
 * Life:  BACKOFF → DIALING → HELLO → CHECKING → RUNNING → (CLOSING) → BACKOFF → …
 *   The peer's HELLO_ACK names its cursor of each lane and the stamp of the last record below it.
 * CHECKING compares the stamps with our own bytes: a mismatch, or a cursor above our end, is a fork
 * and faults the link (a restored backup is never merged). Then each lane is fetched from its
 * cursor: catch-up and streaming are the same loop at different distances from the head.
 *
 * Window: raw bytes sent and not acked, over all lanes, stay within window_bytes. Acks are
 * cumulative per lane. Nothing is re-sent inside a connection; no progress for progress_timeout
 * closes it, and the next one resumes at the peer's cursor.
 *
 * Damage in our own journal stops the lane, not the link: the driver is asked to repair it
 * (DAMAGED) and the link is STALLED(journal_damaged) until it has. If the record to compare is the
 * damaged one, the connection stands in REPAIRING: heartbeats and queries only, no data; once
 * repaired it is made again, and compares.
 *
 * Batching is natural: a lane is due when a whole batch has gathered, or the pipe is idle, or its
 * oldest byte waited batch_timeout.
 *
 * Invariants: acked <= next <= head for every lane of a running sender; only durable (committed)
 * bytes are ever named in a request.
 */
#ifndef CFSR_REPL_SENDER_H
#define CFSR_REPL_SENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "repl/action.h"
#include "repl/query.h"
#include "repl/session.h"

enum cfsr_sender_state {
    CFSR_SENDER_BACKOFF,   /* waiting to dial, until retry_at */
    CFSR_SENDER_DIALING,   /* transport connects */
    CFSR_SENDER_HELLO,     /* HELLO sent, answer awaited */
    CFSR_SENDER_CHECKING,  /* comparing stamps with our own bytes */
    CFSR_SENDER_RUNNING,   /* data flows */
    CFSR_SENDER_CLOSING,   /* asked the driver to close; on_closed awaited */
    CFSR_SENDER_STOPPED,   /* drained for shutdown */
    CFSR_SENDER_REPAIRING, /* established, but what must be compared is damaged here */
};

/* What a link shows to operators (features.md §4). */
enum cfsr_link_state {
    CFSR_LINK_BOOTSTRAP,
    CFSR_LINK_CATCHUP,
    CFSR_LINK_STREAMING,
    CFSR_LINK_PAUSED,
    CFSR_LINK_STALLED,
    CFSR_LINK_FENCED,
    CFSR_LINK_FAULTED,
};
const char *cfsr_link_state_name(enum cfsr_link_state state);

struct cfsr_sender_options {
    const struct cfsr_session_local *local;
    uint64_t peer_site_id;
    uint64_t lane_mask;
    uint64_t window_bytes;
    uint32_t batch_bytes;
    uint32_t batch_entries; /* 0: unlimited */
    uint64_t batch_timeout_ns;
    uint64_t heartbeat_ns;
    uint64_t hello_timeout_ns;
    uint64_t progress_timeout_ns;
    uint64_t backoff_min_ns, backoff_max_ns;
    uint64_t fault_retry_ns; /* a faulted link asks again this often: the operator may have repaired
                                the other side */
};

struct cfsr_sender_lane {
    uint64_t head_lsn; /* committed here; nothing above it is ever sent */
    uint64_t head_entries;
    uint64_t next_lsn;  /* first byte not requested yet */
    uint64_t acked_lsn; /* durable at the peer */
    uint64_t acked_entries;
    uint64_t waiting_since_ns; /* when bytes first waited beyond next_lsn; 0: none wait */
    bool known;                /* acked_lsn is the peer's word in some session of this run */
    bool checking;             /* stamp comparison outstanding */
};

struct cfsr_sender_counters {
    uint64_t batches_sent, bytes_sent_raw, batches_acked, acks, timeouts, retransmitted_bytes,
        connects, refusals, regressions;
};

struct cfsr_sender {
    struct cfsr_sender_options options;
    enum cfsr_sender_state state;
    struct cfsr_session session;
    bool session_live;
    int fault;       /* 0, or why the link is FAULTED (-CFSR_E_*); cleared by a successful check */
    int last_reason; /* why the last connection ended */
    char last_detail[128];
    uint64_t fault_lsn; /* divergence point, when forked; place of the damage */
    uint32_t fault_lane;
    uint64_t damaged_mask; /* lanes that wait for the repair of our own journal */
    struct cfsr_query_port queries;
    uint64_t retry_at_ns, deadline_ns, heartbeat_at_ns, last_heard_ns, last_progress_ns;
    uint32_t attempts;  /* consecutive failures: the back-off exponent */
    uint32_t moves;     /* connections in a row that ended with -CFSR_E_MOVED */
    uint32_t next_lane; /* round robin */
    uint32_t checks_pending;
    uint64_t in_flight_bytes;
    uint64_t peer_clock_offset_valid;
    int64_t peer_clock_offset_us; /* peer − us, from heartbeats */
    uint64_t rtt_us;
    uint64_t last_peer_wall_us;
    uint8_t peer_ack_mode;
    uint8_t peer_backpressure_pct;
    struct cfsr_hello_ack peer; /* last answer */
    struct cfsr_sender_lane lane[CFSR_LANES_MAX];
    struct cfsr_sender_counters counters;
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
};

void cfsr_sender_init(struct cfsr_sender *sender, const struct cfsr_sender_options *options,
                      uint64_t now_ns);
void cfsr_sender_fini(struct cfsr_sender *sender);
/* A fresh sender that goes on where another one, for the same peer, has failed so often: it dials
 * after that pause. */
void cfsr_sender_resume_backoff(struct cfsr_sender *sender, uint64_t now_ns, uint32_t attempts);

/* Timers: dials when the back-off is over, closes on timeouts, sends heartbeats. Call when
 * next_deadline is due. */
void cfsr_sender_tick(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                      struct cfsr_outbox *out);
/* The same while no frame can be handed to the transport: timeouts close without a GOODBYE,
 * heartbeats are left out. */
void cfsr_sender_tick_blocked(struct cfsr_sender *sender, uint64_t now_ns, struct cfsr_outbox *out);
uint64_t cfsr_sender_next_deadline(const struct cfsr_sender *sender);
/*
 * When the oldest gathered byte has waited long enough: cfsr_sender_next() gives it then, also
 * while the pipe is busy. In the past when it waits for the pipe's room; UINT64_MAX when nothing
 * waits or the window is full.
 */
uint64_t cfsr_sender_batch_deadline(const struct cfsr_sender *sender);

/* Transport events. nonce: 32 fresh random bytes; random: for the jitter. */
void cfsr_sender_on_connected(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                              const uint8_t nonce[32], struct cfsr_outbox *out);
void cfsr_sender_on_closed(struct cfsr_sender *sender, uint64_t now_ns, int reason,
                           uint32_t random);
/* A whole frame whose link header is loaded; a sealed body is opened where it is. Everything from
 * the peer is checked; trouble ends in a CLOSE action. */
void cfsr_sender_on_frame(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                          const struct cfsr_link_header *header, void *frame,
                          struct cfsr_outbox *out);
/* Answer to CHECK_STAMP: rc 0 and the stamp found with its end LSN; -ENOENT the range is gone;
 * other: could not read. */
void cfsr_sender_on_stamp(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                          uint32_t lane, int rc, const struct cfsr_record_stamp *found,
                          uint64_t found_end_lsn, struct cfsr_outbox *out);

/* The lane's committed end here. */
void cfsr_sender_on_head(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                         uint64_t committed_lsn, uint64_t entries);

/*
 * The next batch to send: false if nothing is due (window full, nothing gathered, not running).
 * pipe_idle: the transport holds no unsent frame of this connection. skip_mask: lanes that cannot
 * be served now (their batch is being read). *from_out names the first byte, the head limit is the
 * lane's head_lsn.
 */
bool cfsr_sender_next(struct cfsr_sender *sender, uint64_t now_ns, bool pipe_idle,
                      uint64_t skip_mask, uint32_t *lane_out, uint64_t *from_out);
/* The batch [next_lsn, to) of the lane was handed to the transport. Returns the frame flags
 * (ACK_NOW when nothing more has gathered). */
uint16_t cfsr_sender_sent(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                          uint64_t lsn_to);
/* The lane's journal could not be read: -CFSR_E_DAMAGED stops the lane until it is repaired;
 * -CFSR_E_NEEDS_BOOTSTRAP … fault the link. */
void cfsr_sender_on_read_error(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                               uint64_t lsn, int rc, struct cfsr_outbox *out);
/* The lane's journal was mended: it is read again. */
void cfsr_sender_on_repaired(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                             struct cfsr_outbox *out);
/* Nobody has what is damaged at lsn: the link is FAULTED(damaged) until on_repaired(); its other
 * lanes go on. */
void cfsr_sender_on_unrepairable(struct cfsr_sender *sender, uint32_t lane, uint64_t lsn);

/* Whether the peer can be asked about the lane on this connection now. */
bool cfsr_sender_can_ask(const struct cfsr_sender *sender, uint32_t lane);
/* Sends the QUERY; can_ask() must have been true. */
void cfsr_sender_ask(struct cfsr_sender *sender, const struct cfsr_query *query,
                     uint64_t deadline_ns, struct cfsr_outbox *out);
/* Seals the REPLY to queries.served: frame = link header space, payload, CFSR_SEAL_TAG_BYTES of
 * room. Its length; 0 if the connection is not that one any more. */
uint32_t cfsr_sender_reply(struct cfsr_sender *sender, void *frame, uint32_t payload_bytes);
/* A frame of this type may be waited for: a REPLY only when one is due. */
bool cfsr_sender_expects(const struct cfsr_sender *sender, unsigned type);

/* The driver ends the connection, without a GOODBYE: bytes that are no frame, or a resource that
 * failed. */
void cfsr_sender_abort(struct cfsr_sender *sender, int reason, const char *detail,
                       struct cfsr_outbox *out);
/* Orderly end: GOODBYE and close. */
void cfsr_sender_stop(struct cfsr_sender *sender, uint64_t now_ns, struct cfsr_outbox *out);

/* State for operators: caught up means STREAMING with every lane acked to its head. reason_out: ""
 * or a stable word. */
enum cfsr_link_state cfsr_sender_link_state(const struct cfsr_sender *sender,
                                            const char **reason_out);
bool cfsr_sender_is_caught_up(const struct cfsr_sender *sender);

#endif
