/*
 * receiver.h - one incoming connection: handshake, admission of batches, acks. Sans-I/O.
 *
 * Life:  WAIT_HELLO → ANSWERED → RUNNING → CLOSING. Older connections for the same lanes are
 * superseded only when this one has proven the key in this session (its first frame after the
 * HELLO_ACK): a recorded HELLO unseats nobody.
 *
 * A batch passes in the order of law 7: link tag (session_open) → bounds and identity (admit) →
 * batch tag → body digest → bounded decompression → record CRCs and order → inbox. Anything else
 * ends the connection with a named reason, is counted, and changes nothing.
 */
#ifndef CFSR_REPL_RECEIVER_H
#define CFSR_REPL_RECEIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "repl/action.h"
#include "repl/query.h"
#include "repl/session.h"

enum cfsr_receiver_state {
    CFSR_RECEIVER_WAIT_HELLO,
    CFSR_RECEIVER_ANSWERED,
    CFSR_RECEIVER_RUNNING,
    CFSR_RECEIVER_CLOSING,
};

/* The driver's knowledge, asked during an event; must answer at once. */
struct cfsr_receiver_env {
    void *user;
    bool (*is_known_site)(void *user, uint64_t site_id);
    /* Cursor of (site, lane) here. 0 and *lane_out; or -CFSR_E_JOURNAL_CHANGED if the inbox knows
     * the site by another journal. */
    int (*cursor)(void *user, uint64_t site_id, const struct cfsr_uuid *journal, uint32_t lane,
                  struct cfsr_hello_lane *lane_out);
    uint64_t (*journal_of)(void *user, uint64_t site_id,
                           struct cfsr_uuid *journal_out); /* 0: never seen */
};

struct cfsr_receiver_options {
    const struct cfsr_session_local *local;
    struct cfsr_receiver_env env;
    uint64_t owned_mask; /* lanes of this core */
    uint64_t hello_timeout_ns;
    uint64_t idle_timeout_ns; /* nothing heard, not even heartbeats */
    uint64_t heartbeat_ns;
    uint8_t ack_mode; /* 0 durable, 1 written */
};

struct cfsr_receiver_counters {
    uint64_t batches, duplicate_batches, acks, refused;
};

struct cfsr_receiver {
    struct cfsr_receiver_options options;
    enum cfsr_receiver_state state;
    struct cfsr_session session;
    uint64_t site_id; /* authenticated by HELLO; 0 before */
    uint64_t lane_mask;
    int last_reason;
    uint64_t deadline_ns, heartbeat_at_ns;
    uint64_t peer_wall_us; /* of its last heartbeat */
    int64_t peer_clock_offset_us;
    uint64_t ack_dirty; /* lanes whose durable cursor moved since the last ACK */
    uint8_t acked_backpressure_pct;
    uint64_t told_lsn[CFSR_LANES_MAX]; /* by our HELLO_ACK: the stamps were compared there */
    uint64_t acked_lsn[CFSR_LANES_MAX];
    uint64_t acked_entries[CFSR_LANES_MAX];
    uint64_t head_lsn[CFSR_LANES_MAX]; /* the origin's committed LSN, from heartbeats */
    uint64_t head_entries[CFSR_LANES_MAX];
    struct cfsr_query_port queries;
    struct cfsr_receiver_counters counters;
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
};

int cfsr_receiver_init(struct cfsr_receiver *receiver, const struct cfsr_receiver_options *options,
                       const uint8_t nonce[32], uint64_t now_ns);
void cfsr_receiver_fini(struct cfsr_receiver *receiver);

void cfsr_receiver_tick(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us,
                        struct cfsr_outbox *out);
/* The same while no frame can be handed to the transport: timeouts close without a GOODBYE,
 * heartbeats are left out. */
void cfsr_receiver_tick_blocked(struct cfsr_receiver *receiver, uint64_t now_ns,
                                struct cfsr_outbox *out);
/* Bytes of the peer wait here for room: that nothing else is heard of it, its heartbeats are behind
 * them, is no fault of its. */
void cfsr_receiver_on_stalled(struct cfsr_receiver *receiver, uint64_t now_ns);
uint64_t cfsr_receiver_next_deadline(const struct cfsr_receiver *receiver);

/* Any frame but a BATCH of a running receiver; a sealed body is opened where it is. */
void cfsr_receiver_on_frame(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us,
                            const struct cfsr_link_header *header, void *frame,
                            struct cfsr_outbox *out);

/*
 * After TAKE_OVER, when no older connection can stage any more: is everything staged what the
 * HELLO_ACK said? If an older connection's data came between, the dialer compared its journal with
 * ours at a place below it, and what is above may be of another history (the dialer was restored
 * from an older copy): the connection ends with -CFSR_E_MOVED, and the next one compares there.
 * False if so.
 */
bool cfsr_receiver_confirm(struct cfsr_receiver *receiver, uint64_t now_ns,
                           uint64_t (*staged_lsn)(void *user, uint64_t site_id, uint32_t lane),
                           void *user, struct cfsr_outbox *out);

enum cfsr_admission {
    CFSR_ADMIT_STORE,     /* go on: tag, digest, decode, scan, inbox */
    CFSR_ADMIT_DUPLICATE, /* all of it is here already: acknowledge, store nothing */
    CFSR_ADMIT_REFUSE,    /* a CLOSE action was given */
};
/*
 * Opens a BATCH frame's link part and checks its prefix against the session and the lane's staged
 * cursor. Needs only the first 256 bytes of the frame; all of it where bodies are sealed: the body
 * is opened in place, and the batch is then as its origin signed it (link still tells its length on
 * the wire). *header_out is filled unless refused.
 */
enum cfsr_admission cfsr_receiver_admit(
    struct cfsr_receiver *receiver, uint64_t now_ns, const struct cfsr_link_header *link,
    void *frame, uint64_t (*staged_lsn)(void *user, uint64_t site_id, uint32_t lane),
    struct cfsr_batch_header *header_out, struct cfsr_outbox *out);
/* The batch failed a later check (tag, digest, decompression, records): GOODBYE and close. */
void cfsr_receiver_reject(struct cfsr_receiver *receiver, uint64_t now_ns, int reason,
                          const char *detail, struct cfsr_outbox *out);

/* The lane of this origin is durable below lsn; an ACK is due. */
void cfsr_receiver_on_durable(struct cfsr_receiver *receiver, uint32_t lane, uint64_t lsn,
                              uint64_t entries);
/* An ACK frame for every lane that moved, or because the back-pressure changed: true and a
 * SEND_FRAME action. */
bool cfsr_receiver_flush_acks(struct cfsr_receiver *receiver, uint64_t now_ns,
                              uint8_t backpressure_pct, struct cfsr_outbox *out);
/* Whether the peer can be asked about the lane on this connection now. */
bool cfsr_receiver_can_ask(const struct cfsr_receiver *receiver, uint32_t lane);
/* Sends the QUERY; can_ask() must have been true. */
void cfsr_receiver_ask(struct cfsr_receiver *receiver, const struct cfsr_query *query,
                       uint64_t deadline_ns, struct cfsr_outbox *out);
/* Seals the REPLY to queries.served: frame = link header space, payload, CFSR_SEAL_TAG_BYTES of
 * room. Its length; 0 if the connection is not that one any more. */
uint32_t cfsr_receiver_reply(struct cfsr_receiver *receiver, void *frame, uint32_t payload_bytes);
/* A frame of this type and length may be waited for: what has not proven the key holds little, and
 * a REPLY only comes when one is due. */
bool cfsr_receiver_expects(const struct cfsr_receiver *receiver, unsigned type,
                           uint32_t length_bytes);

/* Orderly or forced end with a GOODBYE naming the reason. */
void cfsr_receiver_stop(struct cfsr_receiver *receiver, uint64_t now_ns, int reason,
                        struct cfsr_outbox *out);
/* The same without a GOODBYE: there is no room for one. */
void cfsr_receiver_abort(struct cfsr_receiver *receiver, int reason, struct cfsr_outbox *out);

#endif
