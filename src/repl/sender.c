/*
 * sender.c - the outgoing half of the protocol (sender.h). Sans-I/O: events and `now` in, actions
 * out.
 *
 * Thread:     the core that owns the lanes, or the simulator.
 * Invariants: acked_lsn <= next_lsn <= head_lsn of every lane while RUNNING; in_flight_bytes is
 * their summed distance; state changes go through set_state(). Rejected:   re-sending inside a live
 * connection (TCP and RDMA already did; a timeout there only means that nothing moves), and a
 *             sent-batch list kept for retransmission (the journal is the list).
 */
#include "repl/sender.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "repl/sender_internal.h"

/* Legal moves; everything else is a bug of ours. */
static void set_state(struct cfsr_sender *sender, enum cfsr_sender_state to)
{
    static const uint8_t legal[] = {
        [CFSR_SENDER_BACKOFF] = 1u << CFSR_SENDER_DIALING | 1u << CFSR_SENDER_STOPPED,
        [CFSR_SENDER_DIALING] = 1u << CFSR_SENDER_HELLO | 1u << CFSR_SENDER_CLOSING |
                                1u << CFSR_SENDER_BACKOFF | 1u << CFSR_SENDER_STOPPED,
        [CFSR_SENDER_HELLO] = 1u << CFSR_SENDER_CHECKING | 1u << CFSR_SENDER_CLOSING |
                              1u << CFSR_SENDER_BACKOFF | 1u << CFSR_SENDER_STOPPED,
        [CFSR_SENDER_CHECKING] = 1u << CFSR_SENDER_RUNNING | 1u << CFSR_SENDER_REPAIRING |
                                 1u << CFSR_SENDER_CLOSING | 1u << CFSR_SENDER_BACKOFF |
                                 1u << CFSR_SENDER_STOPPED,
        [CFSR_SENDER_RUNNING] = 1u << CFSR_SENDER_CLOSING | 1u << CFSR_SENDER_BACKOFF |
                                1u << CFSR_SENDER_STOPPED,
        [CFSR_SENDER_CLOSING] = 1u << CFSR_SENDER_BACKOFF | 1u << CFSR_SENDER_STOPPED,
        [CFSR_SENDER_STOPPED] = 0,
        [CFSR_SENDER_REPAIRING] = 1u << CFSR_SENDER_CLOSING | 1u << CFSR_SENDER_BACKOFF |
                                  1u << CFSR_SENDER_STOPPED,
    };
    CFSR_ASSERT(legal[sender->state] & (1u << to));
    sender->state = to;
}

void cfsr_sender_init(struct cfsr_sender *sender, const struct cfsr_sender_options *options,
                      uint64_t now_ns)
{
    CFSR_ASSERT(options->lane_mask != 0);
    CFSR_ASSERT(options->batch_bytes > 0);
    memset(sender, 0, sizeof *sender);
    sender->options = *options;
    sender->state = CFSR_SENDER_BACKOFF;
    sender->retry_at_ns = now_ns;
    sender->last_reason = -ENOTCONN;
    cfsr_query_port_reset(&sender->queries);
}

static uint64_t backoff_ns(const struct cfsr_sender *sender)
{
    uint64_t delay = sender->options.backoff_min_ns
                     << (sender->attempts < 16 ? sender->attempts : 16);
    return cfsr_min_u64(delay, sender->options.backoff_max_ns);
}

void cfsr_sender_resume_backoff(struct cfsr_sender *sender, uint64_t now_ns, uint32_t attempts)
{
    CFSR_ASSERT(sender->state == CFSR_SENDER_BACKOFF);
    sender->attempts = attempts;
    sender->retry_at_ns = now_ns + (attempts > 1 ? backoff_ns(sender) : 0);
}

static void end_session(struct cfsr_sender *sender)
{
    if (sender->session_live)
        cfsr_session_fini(&sender->session);
    sender->session_live = false;
}

void cfsr_sender_fini(struct cfsr_sender *sender)
{
    end_session(sender);
}

static void push_frame(struct cfsr_sender *sender, struct cfsr_outbox *out, uint32_t frame_bytes)
{
    struct cfsr_action *action = cfsr_outbox_push(out, CFSR_ACTION_SEND_FRAME);
    action->frame = sender->frame;
    action->frame_bytes = frame_bytes;
}

/* Ends the connection; once the session can be trusted by the peer, a GOODBYE says why. */
static void close_link(struct cfsr_sender *sender, int reason, const char *detail, bool farewell,
                       struct cfsr_outbox *out)
{
    if (detail == NULL)
        detail = cfsr_strerror(reason); /* never the words about an earlier connection */
    sender->last_reason = reason;
    snprintf(sender->last_detail, sizeof sender->last_detail, "%s", detail);
    if (farewell && sender->session_live && sender->session.state == CFSR_SESSION_ESTABLISHED) {
        struct cfsr_goodbye goodbye = {.reason = -reason};
        snprintf(goodbye.detail, sizeof goodbye.detail, "%s", detail);
        uint32_t len = cfsr_goodbye_store(&goodbye, sender->frame + CFSR_LINK_HEADER_BYTES);
        push_frame(sender, out,
                   cfsr_session_seal(&sender->session, CFSR_FRAME_GOODBYE, 0, sender->frame, len));
    }
    cfsr_outbox_push(out, CFSR_ACTION_CLOSE)->reason = reason;
    set_state(sender, CFSR_SENDER_CLOSING);
}

/* Reasons that another attempt will not mend by itself: the link is FAULTED and asks again slowly.
 */
static bool is_fault(int reason)
{
    switch (-reason) {
    case CFSR_E_BAD_KEY:
    case CFSR_E_WRONG_CLUSTER:
    case CFSR_E_UNKNOWN_SITE:
    case CFSR_E_DUPLICATE_SITE:
    case CFSR_E_WRONG_SITE:
    case CFSR_E_LANES_DIFFER:
    case CFSR_E_VERSION:
    case CFSR_E_SEAL_REQUIRED:
    case CFSR_E_JOURNAL_FORKED:
    case CFSR_E_JOURNAL_CHANGED:
    case CFSR_E_NEEDS_BOOTSTRAP:
    case CFSR_E_DAMAGED:
    case CFSR_E_NOT_CONFIGURED: return true;
    default: return false;
    }
}

static void fault_link(struct cfsr_sender *sender, int reason, uint32_t lane, uint64_t lsn,
                       const char *detail, struct cfsr_outbox *out)
{
    CFSR_ASSERT(reason < 0);
    sender->fault = reason;
    sender->fault_lane = lane;
    sender->fault_lsn = lsn;
    close_link(sender, reason, detail, true, out);
}

static void send_heartbeat(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                           struct cfsr_outbox *out)
{
    struct cfsr_heartbeat heartbeat = {.wall_us = wall_us,
                                       .echo_wall_us = sender->last_peer_wall_us};
    uint32_t lane;

    CFSR_FOR_EACH_BIT (lane, sender->options.lane_mask) {
        heartbeat.lane[heartbeat.count++] = (struct cfsr_heartbeat_lane){
            .lane = (uint16_t)lane,
            .committed_lsn = sender->lane[lane].head_lsn,
            .entries = sender->lane[lane].head_entries,
        };
    }
    uint32_t len = cfsr_heartbeat_store(&heartbeat, sender->frame + CFSR_LINK_HEADER_BYTES);
    push_frame(sender, out,
               cfsr_session_seal(&sender->session, CFSR_FRAME_HEARTBEAT, 0, sender->frame, len));
    sender->heartbeat_at_ns = now_ns + sender->options.heartbeat_ns;
}

static bool is_stuck(const struct cfsr_sender *sender, uint64_t now_ns)
{
    uint64_t limit = sender->options.progress_timeout_ns;
    if (now_ns >= sender->last_heard_ns + limit)
        return true;
    /* A peer that says it takes nothing more (its disk is full) is slow, not gone. */
    return sender->in_flight_bytes > 0 && sender->peer_backpressure_pct < 100 &&
           now_ns >= sender->last_progress_ns + limit;
}

static void tick(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us, bool may_send,
                 struct cfsr_outbox *out)
{
    switch (sender->state) {
    case CFSR_SENDER_BACKOFF:
        if (now_ns < sender->retry_at_ns)
            return;
        set_state(sender, CFSR_SENDER_DIALING);
        cfsr_outbox_push(out, CFSR_ACTION_DIAL);
        return;
    case CFSR_SENDER_HELLO:
    case CFSR_SENDER_CHECKING:
        if (now_ns >= sender->deadline_ns) {
            sender->counters.timeouts++;
            close_link(sender, -CFSR_E_TIMEOUT, "handshake not answered in time", false, out);
        }
        return;
    case CFSR_SENDER_RUNNING:
    case CFSR_SENDER_REPAIRING:
        if (is_stuck(sender, now_ns)) {
            sender->counters.timeouts++;
            close_link(sender, -CFSR_E_TIMEOUT, "no progress", may_send, out);
            return;
        }
        if (now_ns < sender->heartbeat_at_ns)
            return;
        if (may_send)
            send_heartbeat(sender, now_ns, wall_us, out);
        else
            sender->heartbeat_at_ns =
                now_ns + sender->options.heartbeat_ns; /* earlier ones are still on their way */
        return;
    case CFSR_SENDER_DIALING:
    case CFSR_SENDER_CLOSING:
    case CFSR_SENDER_STOPPED: return;
    }
}

void cfsr_sender_tick(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                      struct cfsr_outbox *out)
{
    tick(sender, now_ns, wall_us, true, out);
}

void cfsr_sender_tick_blocked(struct cfsr_sender *sender, uint64_t now_ns, struct cfsr_outbox *out)
{
    tick(sender, now_ns, 0, false, out);
}

void cfsr_sender_on_connected(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                              const uint8_t nonce[32], struct cfsr_outbox *out)
{
    uint64_t lane_end[CFSR_LANES_MAX] = {0};
    int rc;

    if (sender->state != CFSR_SENDER_DIALING)
        return; /* a stop overtook the dial; the close is on its way */
    sender->counters.connects++;
    end_session(sender);
    cfsr_query_port_reset(&sender->queries);
    sender->damaged_mask = 0; /* met again where it still is */
    rc = cfsr_session_init(&sender->session, sender->options.local, true,
                           sender->options.peer_site_id, nonce);
    if (rc == 0) {
        sender->session_live = true;
        for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
            lane_end[lane] = cfsr_sender_carries(sender, lane) ? sender->lane[lane].head_lsn : 0;
        rc = cfsr_session_hello(&sender->session, sender->options.lane_mask, lane_end, wall_us,
                                sender->frame);
    }
    if (rc < 0) {
        sender->fault = is_fault(rc) ? rc : 0;
        close_link(sender, rc, "no usable key for this pair of sites", false, out);
        return;
    }
    set_state(sender, CFSR_SENDER_HELLO);
    sender->deadline_ns = now_ns + sender->options.hello_timeout_ns;
    push_frame(sender, out, (uint32_t)rc);
}

void cfsr_sender_on_closed(struct cfsr_sender *sender, uint64_t now_ns, int reason, uint32_t random)
{
    uint64_t delay;

    if (sender->state == CFSR_SENDER_STOPPED)
        return;
    if (sender->state != CFSR_SENDER_CLOSING) {
        sender->last_reason = reason != 0 ? reason : -ECONNRESET;
        sender->last_detail[0] = '\0';
    }
    end_session(sender);
    sender->in_flight_bytes = 0;
    sender->checks_pending = 0;
    cfsr_query_port_reset(&sender->queries);
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
        sender->lane[lane].checking = false;

    /* Exponential with full-range jitter (AWS "equal jitter"): half fixed, half random, so that
     * peers spread. */
    /* Moved again and again: an older connection's writes take their time. */
    sender->moves = sender->last_reason == -CFSR_E_MOVED ? sender->moves + 1 : 0;
    if (sender->moves > 0)
        sender->attempts = sender->moves - 1;
    delay = backoff_ns(sender);
    if (sender->fault != 0)
        delay = cfsr_max_u64(delay, sender->options.fault_retry_ns);
    delay = delay / 2 + (delay / 2) * (random & 0xffff) / 0xffff;
    /* Once is not a failure: the lane map is known now. Again and again is, or a confused peer
     * would be dialled without a pause. */
    if (sender->last_reason == -CFSR_E_WRONG_CORE && sender->attempts == 0)
        delay = 0;
    sender->attempts++;
    sender->retry_at_ns = now_ns + delay;
    set_state(sender, CFSR_SENDER_BACKOFF);
}

static void start_running(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                          struct cfsr_outbox *out)
{
    sender->fault = 0;
    sender->attempts = 0;
    sender->last_reason = 0;
    sender->last_detail[0] = '\0';
    sender->last_progress_ns = now_ns;
    sender->peer_backpressure_pct = 0;
    set_state(sender, CFSR_SENDER_RUNNING);
    /* At once, so that the acceptor sees a frame under the session key and lets this connection
     * take over. */
    send_heartbeat(sender, now_ns, wall_us, out);
}

/* Puts the lane where the peer stands. */
static void adopt_cursor(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                         const struct cfsr_hello_lane *theirs, struct cfsr_outbox *out)
{
    struct cfsr_sender_lane *l = &sender->lane[lane];

    if (l->known && theirs->cursor < l->acked_lsn) {
        sender->counters.regressions++;
        struct cfsr_action *action = cfsr_outbox_push(out, CFSR_ACTION_REGRESSED);
        action->lane = lane;
        action->lsn = theirs->cursor;
    } else if (!l->known || theirs->cursor > l->acked_lsn) {
        /* What became durable while nobody listened: retention must hear of it, no ack may follow.
         */
        struct cfsr_action *action = cfsr_outbox_push(out, CFSR_ACTION_ACKED);
        action->lane = lane;
        action->lsn = theirs->cursor;
    }
    if (l->next_lsn > theirs->cursor)
        sender->counters.retransmitted_bytes += l->next_lsn - theirs->cursor;
    l->acked_lsn = theirs->cursor;
    l->acked_entries = theirs->entries;
    l->known = true;
    l->next_lsn = theirs->cursor;
    l->waiting_since_ns = l->next_lsn < l->head_lsn ? now_ns : 0;
}

/* The record below a cursor begins on the grid, below it and in the segment that ends at or behind
 * it. */
static bool stamp_is_below(const struct cfsr_sender *sender, const struct cfsr_hello_lane *theirs)
{
    uint64_t segment_bytes = sender->options.local->site->segment_bytes;

    return theirs->last.lsn < theirs->cursor && theirs->last.lsn % CFSR_RECORD_ALIGN == 0 &&
           theirs->last.lsn / segment_bytes == (theirs->cursor - 1) / segment_bytes;
}

static void compare_lanes(struct cfsr_sender *sender, struct cfsr_outbox *out)
{
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++) {
        const struct cfsr_hello_lane *theirs = &sender->peer.lane[lane];
        if (!cfsr_sender_carries(sender, lane))
            continue;
        if (theirs->cursor > sender->lane[lane].head_lsn) {
            fault_link(sender, -CFSR_E_JOURNAL_FORKED, lane, sender->lane[lane].head_lsn,
                       "the peer holds more of this journal than this site does", out);
            return;
        }
        if ((theirs->cursor == 0) != (theirs->last.lsn == UINT64_MAX)) {
            close_link(sender, -CFSR_E_BAD_FRAME, "cursor without stamp", true, out);
            return;
        }
        if (theirs->cursor != 0 && !stamp_is_below(sender, theirs)) {
            fault_link(sender, -CFSR_E_JOURNAL_FORKED, lane, theirs->cursor,
                       "the peer's last record does not stand below its cursor", out);
            return;
        }
    }
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++) {
        if (!cfsr_sender_carries(sender, lane) || sender->peer.lane[lane].cursor == 0)
            continue;
        struct cfsr_action *action = cfsr_outbox_push(out, CFSR_ACTION_CHECK_STAMP);
        action->lane = lane;
        action->stamp = sender->peer.lane[lane].last;
        sender->lane[lane].checking = true;
        sender->checks_pending++;
    }
}

static void finish_checking(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                            struct cfsr_outbox *out)
{
    sender->in_flight_bytes = 0;
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
        if (cfsr_sender_carries(sender, lane))
            adopt_cursor(sender, now_ns, lane, &sender->peer.lane[lane], out);
    start_running(sender, now_ns, wall_us, out);
}

/* What must be compared is damaged: the peer may hold it, so the connection is proven and kept. */
static void start_repairing(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                            struct cfsr_outbox *out)
{
    sender->attempts = 0;
    sender->last_progress_ns = now_ns;
    sender->in_flight_bytes = 0;
    set_state(sender, CFSR_SENDER_REPAIRING);
    send_heartbeat(sender, now_ns, wall_us, out);
}

static void push_damaged(struct cfsr_sender *sender, uint32_t lane, uint64_t lsn,
                         struct cfsr_outbox *out)
{
    struct cfsr_action *action = cfsr_outbox_push(out, CFSR_ACTION_DAMAGED);

    action->lane = lane;
    action->lsn = lsn;
    sender->damaged_mask |= 1ull << lane;
}

/* All stamps are answered: the cursors count, unless one could not be compared yet. */
static void all_checked(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                        struct cfsr_outbox *out)
{
    if (sender->damaged_mask != 0)
        start_repairing(sender, now_ns, wall_us, out);
    else
        finish_checking(sender, now_ns, wall_us, out);
}

static void on_hello_ack(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                         const void *frame, uint32_t frame_bytes, struct cfsr_outbox *out)
{
    int rc = cfsr_session_on_hello_ack(&sender->session, frame, frame_bytes, &sender->peer);

    sender->last_heard_ns = now_ns;
    if (rc == -CFSR_E_WRONG_CORE) {
        cfsr_outbox_push(out, CFSR_ACTION_REROUTE)->cores = sender->peer.cores;
        close_link(sender, rc, "lanes live on other cores", false, out);
        return;
    }
    if (rc < 0) {
        sender->counters.refusals++;
        /*
         * A refusal without a proof (the key itself is the trouble) is a hint anybody could send:
         * it is shown, and asked again slowly, but it never hides a fault that was proven.
         */
        if (is_fault(rc) && (sender->session.authenticated || sender->fault == 0))
            sender->fault = rc;
        else if (sender->session.authenticated)
            sender->fault = 0;
        close_link(sender, rc, sender->peer.detail[0] != '\0' ? sender->peer.detail : NULL, false,
                   out);
        return;
    }
    if (sender->peer.lane_mask != sender->options.lane_mask) {
        close_link(sender, -CFSR_E_BAD_FRAME, "answer names other lanes", true, out);
        return;
    }
    set_state(sender, CFSR_SENDER_CHECKING);
    sender->deadline_ns = now_ns + sender->options.hello_timeout_ns;
    compare_lanes(sender, out);
    if (sender->state == CFSR_SENDER_CHECKING && sender->checks_pending == 0)
        finish_checking(sender, now_ns, wall_us, out);
}

static bool stamps_equal(const struct cfsr_record_stamp *a, const struct cfsr_record_stamp *b)
{
    return a->lsn == b->lsn && a->crc == b->crc && a->seq == b->seq &&
           a->timestamp_us == b->timestamp_us;
}

void cfsr_sender_on_stamp(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                          uint32_t lane, int rc, const struct cfsr_record_stamp *found,
                          uint64_t found_end_lsn, struct cfsr_outbox *out)
{
    if (sender->state != CFSR_SENDER_CHECKING || !cfsr_sender_carries(sender, lane) ||
        !sender->lane[lane].checking)
        return; /* an answer to a connection that is gone */
    const struct cfsr_hello_lane *theirs = &sender->peer.lane[lane];
    sender->lane[lane].checking = false;
    sender->checks_pending--;
    if (rc == -ENOENT) {
        fault_link(sender, -CFSR_E_NEEDS_BOOTSTRAP, lane, theirs->cursor,
                   "the range after the peer's cursor was removed here", out);
        return;
    }
    if (rc == -CFSR_E_DAMAGED) {
        push_damaged(sender, lane, theirs->last.lsn, out);
        if (sender->checks_pending == 0)
            all_checked(sender, now_ns, wall_us, out);
        return;
    }
    if (rc < 0 && rc != -CFSR_E_FORMAT) {
        close_link(sender, rc, "could not read the journal to compare it", true, out);
        return;
    }
    if (rc < 0 || !stamps_equal(found, &theirs->last) || found_end_lsn != theirs->cursor) {
        fault_link(sender, -CFSR_E_JOURNAL_FORKED, lane, theirs->last.lsn,
                   "the record below the peer's cursor differs from this site's", out);
        return;
    }
    if (sender->checks_pending == 0)
        all_checked(sender, now_ns, wall_us, out);
}

static void on_ack(struct cfsr_sender *sender, uint64_t now_ns, const struct cfsr_ack *ack,
                   struct cfsr_outbox *out)
{
    if (sender->state !=
        CFSR_SENDER_RUNNING) { /* nothing is published before the stamps were compared */
        close_link(sender, -CFSR_E_BAD_FRAME, "ack before any data", true, out);
        return;
    }
    for (unsigned i = 0; i < ack->count; i++) {
        const struct cfsr_ack_lane *a = &ack->lane[i];
        struct cfsr_sender_lane *l;
        if (!cfsr_sender_carries(sender, a->lane) ||
            a->durable_lsn > sender->lane[a->lane].head_lsn ||
            a->durable_lsn < sender->lane[a->lane].acked_lsn ||
            a->durable_lsn % CFSR_RECORD_ALIGN != 0) {
            close_link(sender, -CFSR_E_BAD_FRAME, "ack outside what exists", true, out);
            return;
        }
        l = &sender->lane[a->lane];
        if (a->durable_lsn == l->acked_lsn)
            continue;
        /* What an earlier connection brought: ours, or of a history we no longer have. The next
         * handshake compares it. */
        if (a->durable_lsn > l->next_lsn) {
            close_link(sender, -CFSR_E_MOVED, "the peer is ahead of this connection", true, out);
            return;
        }
        sender->in_flight_bytes -= a->durable_lsn - l->acked_lsn;
        l->acked_lsn = a->durable_lsn;
        l->acked_entries = a->entries;
        sender->last_progress_ns = now_ns;
        struct cfsr_action *action = cfsr_outbox_push(out, CFSR_ACTION_ACKED);
        action->lane = a->lane;
        action->lsn = a->durable_lsn;
    }
    sender->moves = 0;
    sender->counters.acks++;
    sender->peer_ack_mode = ack->mode;
    if (sender->peer_backpressure_pct >= 100 && ack->backpressure_pct < 100)
        sender->last_progress_ns = now_ns; /* it takes data again: its time begins now */
    sender->peer_backpressure_pct = ack->backpressure_pct;
}

static void on_heartbeat(struct cfsr_sender *sender, uint64_t wall_us,
                         const struct cfsr_heartbeat *heartbeat)
{
    sender->last_peer_wall_us = heartbeat->wall_us;
    if (heartbeat->echo_wall_us != 0 && heartbeat->echo_wall_us <= wall_us) {
        /* Cristian's estimate: the peer answered at once, so its clock read half a round trip ago.
         */
        sender->rtt_us = wall_us - heartbeat->echo_wall_us;
        sender->peer_clock_offset_us = (int64_t)(heartbeat->wall_us + sender->rtt_us / 2 - wall_us);
        sender->peer_clock_offset_valid = 1;
    }
}

static int on_control(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                      const struct cfsr_link_header *header, const uint8_t *payload,
                      struct cfsr_outbox *out)
{
    struct cfsr_ack ack;
    struct cfsr_heartbeat heartbeat;
    struct cfsr_goodbye goodbye;
    int rc;

    switch (header->type) {
    case CFSR_FRAME_ACK:
        if (sender->state == CFSR_SENDER_REPAIRING) /* compared first; the next HELLO_ACK says it */
            return cfsr_ack_load(payload, header->length_bytes, &ack);
        if (sender->state != CFSR_SENDER_RUNNING)
            return -CFSR_E_BAD_FRAME; /* nothing was sent yet, and the cursors are not compared */
        rc = cfsr_ack_load(payload, header->length_bytes, &ack);
        if (rc == 0)
            on_ack(sender, now_ns, &ack, out);
        return rc;
    case CFSR_FRAME_HEARTBEAT:
        rc = cfsr_heartbeat_load(payload, header->length_bytes, &heartbeat);
        if (rc == 0)
            on_heartbeat(sender, wall_us, &heartbeat);
        return rc;
    case CFSR_FRAME_GOODBYE:
        rc = cfsr_goodbye_load(payload, header->length_bytes, &goodbye);
        if (rc == 0) {
            sender->fault = is_fault(-goodbye.reason) ? -goodbye.reason : 0;
            close_link(sender, goodbye.reason != 0 ? -goodbye.reason : -CFSR_E_SHUTDOWN,
                       goodbye.detail, false, out);
        }
        return rc;
    case CFSR_FRAME_QUERY:
        if (sender->state == CFSR_SENDER_CHECKING)
            return -CFSR_E_BAD_FRAME; /* nothing was said under the session key yet */
        rc = cfsr_query_port_on_query(&sender->queries, payload, header->length_bytes,
                                      sender->options.lane_mask);
        if (rc == 0)
            cfsr_outbox_push(out, CFSR_ACTION_SERVE);
        return rc;
    case CFSR_FRAME_REPLY:
        rc = cfsr_query_port_on_reply(&sender->queries, payload, header->length_bytes);
        if (rc > 0)
            cfsr_outbox_push(out, CFSR_ACTION_ANSWER);
        return rc < 0 ? rc : 0;
    default: return -CFSR_E_BAD_FRAME;
    }
}

void cfsr_sender_on_frame(struct cfsr_sender *sender, uint64_t now_ns, uint64_t wall_us,
                          const struct cfsr_link_header *header, void *frame,
                          struct cfsr_outbox *out)
{
    struct cfsr_link_header plain = *header;
    int rc;

    if (sender->state == CFSR_SENDER_HELLO) {
        if (header->type != CFSR_FRAME_HELLO_ACK) {
            close_link(sender, -CFSR_E_BAD_FRAME, "HELLO_ACK expected", false, out);
            return;
        }
        on_hello_ack(sender, now_ns, wall_us, frame, CFSR_LINK_HEADER_BYTES + header->length_bytes,
                     out);
        return;
    }
    if (sender->state != CFSR_SENDER_RUNNING && sender->state != CFSR_SENDER_CHECKING &&
        sender->state != CFSR_SENDER_REPAIRING)
        return; /* closing: late frames are of no use */
    rc = cfsr_session_open(&sender->session, header, frame);
    if (rc == 0)
        rc = cfsr_session_open_body(&sender->session, &plain, frame);
    if (rc == 0) {
        sender->last_heard_ns = now_ns;
        rc = on_control(sender, now_ns, wall_us, &plain,
                        (const uint8_t *)frame + CFSR_LINK_HEADER_BYTES, out);
    }
    if (rc < 0)
        close_link(sender, rc, cfsr_strerror(rc), true, out);
}

void cfsr_sender_on_head(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                         uint64_t committed_lsn, uint64_t entries)
{
    CFSR_ASSERT(cfsr_sender_carries(sender, lane));
    struct cfsr_sender_lane *l = &sender->lane[lane];

    l->head_entries = entries;
    if (committed_lsn <= l->head_lsn)
        return;
    l->head_lsn = committed_lsn;
    if (l->waiting_since_ns == 0 && l->next_lsn < committed_lsn)
        l->waiting_since_ns = now_ns;
}

bool cfsr_sender_next(struct cfsr_sender *sender, uint64_t now_ns, bool pipe_idle,
                      uint64_t skip_mask, uint32_t *lane_out, uint64_t *from_out)
{
    uint64_t mask = sender->options.lane_mask & ~(skip_mask | sender->damaged_mask);
    uint32_t turn;

    _Static_assert(CFSR_LANES_MAX == 64, "a mask has a bit a lane");
    if (sender->state != CFSR_SENDER_RUNNING ||
        sender->in_flight_bytes >= sender->options.window_bytes)
        return false;
    CFSR_FOR_EACH_BIT (turn, cfsr_rotate_right64(mask, sender->next_lane)) {
        uint32_t lane = (sender->next_lane + turn) % CFSR_LANES_MAX;
        const struct cfsr_sender_lane *l = &sender->lane[lane];
        if (l->next_lsn == l->head_lsn)
            continue;
        if (!pipe_idle && l->head_lsn - l->next_lsn < sender->options.batch_bytes &&
            now_ns < l->waiting_since_ns + sender->options.batch_timeout_ns)
            continue;
        sender->next_lane = lane;
        *lane_out = lane;
        *from_out = l->next_lsn;
        return true;
    }
    return false;
}

uint16_t cfsr_sender_sent(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                          uint64_t lsn_to)
{
    CFSR_ASSERT(sender->state == CFSR_SENDER_RUNNING && cfsr_sender_carries(sender, lane));
    struct cfsr_sender_lane *l = &sender->lane[lane];

    CFSR_ASSERT(lsn_to > l->next_lsn && lsn_to <= l->head_lsn);
    if (sender->in_flight_bytes == 0)
        sender->last_progress_ns = now_ns;
    sender->counters.batches_sent++;
    sender->counters.bytes_sent_raw += lsn_to - l->next_lsn;
    sender->in_flight_bytes += lsn_to - l->next_lsn;
    l->next_lsn = lsn_to;
    l->waiting_since_ns = l->next_lsn < l->head_lsn ? now_ns : 0;
    sender->next_lane = (lane + 1) % CFSR_LANES_MAX;
    return l->next_lsn == l->head_lsn ? CFSR_FRAME_ACK_NOW : 0;
}

void cfsr_sender_on_read_error(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                               uint64_t lsn, int rc, struct cfsr_outbox *out)
{
    (void)now_ns;
    if (sender->state != CFSR_SENDER_RUNNING)
        return;
    if (rc == -CFSR_E_DAMAGED)
        push_damaged(sender, lane, lsn, out);
    else if (is_fault(rc))
        fault_link(sender, rc, lane, lsn, cfsr_strerror(rc), out);
    else
        close_link(sender, rc, "could not read the journal", true, out);
}

void cfsr_sender_on_repaired(struct cfsr_sender *sender, uint64_t now_ns, uint32_t lane,
                             struct cfsr_outbox *out)
{
    if ((sender->damaged_mask >> lane & 1) == 0)
        return;
    sender->damaged_mask &= ~(1ull << lane);
    if (sender->fault == -CFSR_E_DAMAGED && sender->fault_lane == lane)
        sender->fault = 0;
    sender->last_progress_ns = now_ns;
    if (sender->state == CFSR_SENDER_REPAIRING && sender->damaged_mask == 0)
        close_link(sender, -CFSR_E_SHUTDOWN, "the journal was mended, compared anew", true, out);
}

void cfsr_sender_on_unrepairable(struct cfsr_sender *sender, uint32_t lane, uint64_t lsn)
{
    if ((sender->damaged_mask >> lane & 1) == 0)
        return;
    sender->fault = -CFSR_E_DAMAGED;
    sender->fault_lane = lane;
    sender->fault_lsn = lsn;
}

void cfsr_sender_ask(struct cfsr_sender *sender, const struct cfsr_query *query,
                     uint64_t deadline_ns, struct cfsr_outbox *out)
{
    CFSR_ASSERT(cfsr_sender_can_ask(sender, query->lane));
    uint32_t len = cfsr_query_port_ask(&sender->queries, query, deadline_ns,
                                       sender->frame + CFSR_LINK_HEADER_BYTES);
    push_frame(sender, out,
               cfsr_session_seal(&sender->session, CFSR_FRAME_QUERY, 0, sender->frame, len));
}

uint32_t cfsr_sender_reply(struct cfsr_sender *sender, void *frame, uint32_t payload_bytes)
{
    if (!cfsr_sender_is_open(sender) || !sender->queries.serving)
        return 0;
    cfsr_query_port_answered(&sender->queries);
    return cfsr_session_seal_reply(&sender->session, frame, payload_bytes);
}

void cfsr_sender_abort(struct cfsr_sender *sender, int reason, const char *detail,
                       struct cfsr_outbox *out)
{
    if (sender->state == CFSR_SENDER_DIALING || sender->state == CFSR_SENDER_HELLO ||
        sender->state == CFSR_SENDER_CHECKING || cfsr_sender_is_open(sender))
        close_link(sender, reason, detail, false, out);
}

void cfsr_sender_stop(struct cfsr_sender *sender, uint64_t now_ns, struct cfsr_outbox *out)
{
    (void)now_ns;
    if (sender->state == CFSR_SENDER_STOPPED)
        return;
    if (cfsr_sender_is_open(sender) || sender->state == CFSR_SENDER_CHECKING ||
        sender->state == CFSR_SENDER_HELLO || sender->state == CFSR_SENDER_DIALING) {
        bool farewell = cfsr_sender_is_open(sender) || sender->state == CFSR_SENDER_CHECKING;
        close_link(sender, -CFSR_E_SHUTDOWN, "shutting down", farewell, out);
    }
    set_state(sender, CFSR_SENDER_STOPPED);
}
