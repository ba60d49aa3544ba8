/*
 * receiver.c - the incoming half of the protocol (receiver.h). Sans-I/O: events and `now` in,
 * actions out.
 *
 * Thread:     the core that owns the lanes, or the simulator.
 * Invariants: nothing but HELLO is looked at before the session exists; no ACK leaves before the
 * peer has proven the key; acks of a lane never go back within a connection. Rejected:   taking
 * over from an older connection at HELLO (a replayed HELLO would cut a living link).
 */
#include "repl/receiver.h"

#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"

static void set_state(struct cfsr_receiver *receiver, enum cfsr_receiver_state to)
{
    CFSR_ASSERT(to > receiver->state); /* a connection only moves forward */
    receiver->state = to;
}

int cfsr_receiver_init(struct cfsr_receiver *receiver, const struct cfsr_receiver_options *options,
                       const uint8_t nonce[32], uint64_t now_ns)
{
    memset(receiver, 0, sizeof *receiver);
    receiver->options = *options;
    receiver->state = CFSR_RECEIVER_WAIT_HELLO;
    receiver->deadline_ns = now_ns + options->hello_timeout_ns;
    receiver->heartbeat_at_ns = UINT64_MAX;
    cfsr_query_port_reset(&receiver->queries);
    return cfsr_session_init(&receiver->session, options->local, false, 0, nonce);
}

void cfsr_receiver_fini(struct cfsr_receiver *receiver)
{
    cfsr_session_fini(&receiver->session);
}

static void push_frame(struct cfsr_receiver *receiver, struct cfsr_outbox *out,
                       uint32_t frame_bytes)
{
    struct cfsr_action *action = cfsr_outbox_push(out, CFSR_ACTION_SEND_FRAME);
    action->frame = receiver->frame;
    action->frame_bytes = frame_bytes;
}

static void close_link(struct cfsr_receiver *receiver, int reason, const char *detail,
                       bool farewell, struct cfsr_outbox *out)
{
    if (receiver->state == CFSR_RECEIVER_CLOSING)
        return;
    receiver->last_reason = reason;
    if (farewell && receiver->session.state == CFSR_SESSION_ESTABLISHED) {
        struct cfsr_goodbye goodbye = {.reason = -reason};
        snprintf(goodbye.detail, sizeof goodbye.detail, "%s", detail != NULL ? detail : "");
        uint32_t len = cfsr_goodbye_store(&goodbye, receiver->frame + CFSR_LINK_HEADER_BYTES);
        push_frame(
            receiver, out,
            cfsr_session_seal(&receiver->session, CFSR_FRAME_GOODBYE, 0, receiver->frame, len));
    }
    cfsr_outbox_push(out, CFSR_ACTION_CLOSE)->reason = reason;
    set_state(receiver, CFSR_RECEIVER_CLOSING);
}

void cfsr_receiver_stop(struct cfsr_receiver *receiver, uint64_t now_ns, int reason,
                        struct cfsr_outbox *out)
{
    (void)now_ns;
    close_link(receiver, reason, cfsr_strerror(reason), true, out);
}

void cfsr_receiver_abort(struct cfsr_receiver *receiver, int reason, struct cfsr_outbox *out)
{
    close_link(receiver, reason, NULL, false, out);
}

void cfsr_receiver_reject(struct cfsr_receiver *receiver, uint64_t now_ns, int reason,
                          const char *detail, struct cfsr_outbox *out)
{
    (void)now_ns;
    receiver->counters.refused++;
    close_link(receiver, reason, detail, true, out);
}

/* echo_wall_us: of the heartbeat that is answered at once; 0 in one of our own, whose echo would
 * tell no round trip. */
static void send_heartbeat(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us,
                           uint64_t echo_wall_us, struct cfsr_outbox *out)
{
    struct cfsr_heartbeat heartbeat = {.wall_us = wall_us, .echo_wall_us = echo_wall_us};
    uint32_t len = cfsr_heartbeat_store(&heartbeat, receiver->frame + CFSR_LINK_HEADER_BYTES);
    push_frame(
        receiver, out,
        cfsr_session_seal(&receiver->session, CFSR_FRAME_HEARTBEAT, 0, receiver->frame, len));
    receiver->heartbeat_at_ns = now_ns + receiver->options.heartbeat_ns;
}

static void tick(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us, bool may_send,
                 struct cfsr_outbox *out)
{
    if (receiver->state == CFSR_RECEIVER_CLOSING)
        return;
    if (now_ns >= receiver->deadline_ns) {
        close_link(receiver, -CFSR_E_TIMEOUT,
                   receiver->state == CFSR_RECEIVER_WAIT_HELLO ? "no HELLO in time"
                                                               : "nothing heard in time",
                   may_send, out);
        return;
    }
    if (receiver->state != CFSR_RECEIVER_RUNNING || now_ns < receiver->heartbeat_at_ns)
        return;
    if (may_send)
        send_heartbeat(receiver, now_ns, wall_us, 0, out);
    else
        receiver->heartbeat_at_ns =
            now_ns + receiver->options.heartbeat_ns; /* earlier ones are still on their way */
}

void cfsr_receiver_tick(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us,
                        struct cfsr_outbox *out)
{
    tick(receiver, now_ns, wall_us, true, out);
}

void cfsr_receiver_tick_blocked(struct cfsr_receiver *receiver, uint64_t now_ns,
                                struct cfsr_outbox *out)
{
    tick(receiver, now_ns, 0, false, out);
}

void cfsr_receiver_on_stalled(struct cfsr_receiver *receiver, uint64_t now_ns)
{
    if (receiver->state == CFSR_RECEIVER_RUNNING)
        receiver->deadline_ns = now_ns + receiver->options.idle_timeout_ns;
}

uint64_t cfsr_receiver_next_deadline(const struct cfsr_receiver *receiver)
{
    if (receiver->state == CFSR_RECEIVER_CLOSING)
        return UINT64_MAX;
    if (receiver->state == CFSR_RECEIVER_RUNNING)
        return cfsr_min_u64(receiver->deadline_ns, receiver->heartbeat_at_ns);
    return receiver->deadline_ns;
}

/* Fills the answer's lanes from the inbox cursors; the refusal if the inbox knows the site by
 * another journal. */
static int fill_lanes(struct cfsr_receiver *receiver, const struct cfsr_hello *hello,
                      struct cfsr_hello_ack *ack)
{
    const struct cfsr_receiver_env *env = &receiver->options.env;

    if (env->journal_of(env->user, hello->site_id, &ack->known_journal) == 0)
        memset(&ack->known_journal, 0, sizeof ack->known_journal);
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++) {
        if ((hello->lane_mask >> lane & 1) == 0)
            continue;
        int rc = env->cursor(env->user, hello->site_id, &hello->journal, lane, &ack->lane[lane]);
        if (rc < 0)
            return rc;
        receiver->told_lsn[lane] = ack->lane[lane].cursor;
        receiver->acked_lsn[lane] = ack->lane[lane].cursor;
        receiver->acked_entries[lane] = ack->lane[lane].entries;
        receiver->head_lsn[lane] = hello->lane_end[lane];
    }
    ack->lane_mask = hello->lane_mask;
    return 0;
}

static void on_hello(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us,
                     const void *frame, uint32_t frame_bytes, struct cfsr_outbox *out)
{
    const struct cfsr_receiver_env *env = &receiver->options.env;
    struct cfsr_hello_ack ack = {.wall_us = wall_us};
    cfsr_error_clear(); /* what is said below is about this HELLO */
    int rc = cfsr_session_on_hello(&receiver->session, frame, frame_bytes, env->is_known_site,
                                   env->user);

    if (rc == 0) {
        const struct cfsr_hello *hello = &receiver->session.hello;
        if ((hello->lane_mask & ~receiver->options.owned_mask) != 0)
            rc = -CFSR_E_WRONG_CORE;
        else
            rc = fill_lanes(receiver, hello, &ack);
    }
    if (rc < 0) {
        ack.status = -rc;
        if (cfsr_error_message()[0] != '\0')
            snprintf(ack.detail, sizeof ack.detail, "%.*s", (int)sizeof ack.detail - 1,
                     cfsr_error_message());
        else
            snprintf(ack.detail, sizeof ack.detail, "%s", cfsr_strerror(rc));
    }
    int len = cfsr_session_hello_ack(&receiver->session, &ack, receiver->frame);
    if (len > 0)
        push_frame(receiver, out, (uint32_t)len);
    if (rc < 0 || len < 0) {
        receiver->counters.refused++;
        receiver->last_reason = rc < 0 ? rc : len;
        cfsr_outbox_push(out, CFSR_ACTION_CLOSE)->reason = receiver->last_reason;
        set_state(receiver, CFSR_RECEIVER_CLOSING);
        return;
    }
    receiver->site_id = receiver->session.hello.site_id;
    receiver->lane_mask = receiver->session.hello.lane_mask;
    receiver->deadline_ns = now_ns + receiver->options.hello_timeout_ns;
    set_state(receiver, CFSR_RECEIVER_ANSWERED);
}

/* The first frame under the session key: the peer is alive and holds the key. */
static void prove(struct cfsr_receiver *receiver, uint64_t now_ns, struct cfsr_outbox *out)
{
    if (receiver->state != CFSR_RECEIVER_ANSWERED)
        return;
    set_state(receiver, CFSR_RECEIVER_RUNNING);
    receiver->heartbeat_at_ns = now_ns + receiver->options.heartbeat_ns;
    cfsr_outbox_push(out, CFSR_ACTION_TAKE_OVER);
}

static int on_control(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us,
                      const struct cfsr_link_header *header, const uint8_t *payload,
                      struct cfsr_outbox *out)
{
    struct cfsr_heartbeat heartbeat;
    struct cfsr_goodbye goodbye;
    int rc;

    switch (header->type) {
    case CFSR_FRAME_HEARTBEAT:
        rc = cfsr_heartbeat_load(payload, header->length_bytes, &heartbeat);
        if (rc < 0)
            return rc;
        receiver->peer_wall_us = heartbeat.wall_us;
        receiver->peer_clock_offset_us = (int64_t)(heartbeat.wall_us - wall_us);
        for (unsigned i = 0; i < heartbeat.count; i++) {
            const struct cfsr_heartbeat_lane *l = &heartbeat.lane[i];
            if (l->lane >= CFSR_LANES_MAX || (receiver->lane_mask >> l->lane & 1) == 0)
                return -CFSR_E_BAD_FRAME;
            receiver->head_lsn[l->lane] = l->committed_lsn;
            receiver->head_entries[l->lane] = l->entries;
        }
        /* At once: the dialer measures the round trip with it. */
        send_heartbeat(receiver, now_ns, wall_us, heartbeat.wall_us, out);
        return 0;
    case CFSR_FRAME_GOODBYE:
        rc = cfsr_goodbye_load(payload, header->length_bytes, &goodbye);
        if (rc == 0) {
            receiver->last_reason = goodbye.reason != 0 ? -goodbye.reason : -CFSR_E_SHUTDOWN;
            cfsr_outbox_push(out, CFSR_ACTION_CLOSE)->reason = receiver->last_reason;
            set_state(receiver, CFSR_RECEIVER_CLOSING);
        }
        return rc;
    case CFSR_FRAME_QUERY:
        rc = cfsr_query_port_on_query(&receiver->queries, payload, header->length_bytes,
                                      receiver->lane_mask);
        if (rc == 0)
            cfsr_outbox_push(out, CFSR_ACTION_SERVE);
        return rc;
    case CFSR_FRAME_REPLY:
        rc = cfsr_query_port_on_reply(&receiver->queries, payload, header->length_bytes);
        if (rc > 0)
            cfsr_outbox_push(out, CFSR_ACTION_ANSWER);
        return rc < 0 ? rc : 0;
    default: return -CFSR_E_BAD_FRAME;
    }
}

/*
 * Largest frame of a connection that has not proven the key: a HELLO of all lanes takes a quarter
 * of it, and it fits the transport's small receive buffer, so that strangers cannot hold the pooled
 * ones.
 */
#define UNPROVEN_FRAME_MAX_BYTES 3072u

bool cfsr_receiver_expects(const struct cfsr_receiver *receiver, unsigned type,
                           uint32_t length_bytes)
{
    if (receiver->state < CFSR_RECEIVER_RUNNING) /* a dialer proves itself by a heartbeat first */
        return type != CFSR_FRAME_BATCH && type != CFSR_FRAME_QUERY && type != CFSR_FRAME_REPLY &&
               length_bytes <= UNPROVEN_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES;
    return type != CFSR_FRAME_REPLY || cfsr_query_port_expects_reply(&receiver->queries);
}

bool cfsr_receiver_can_ask(const struct cfsr_receiver *receiver, uint32_t lane)
{
    return receiver->state == CFSR_RECEIVER_RUNNING && lane < CFSR_LANES_MAX &&
           (receiver->lane_mask >> lane & 1) != 0 &&
           (receiver->session.features & CFSR_FEATURE_QUERY) != 0 &&
           cfsr_query_port_is_free(&receiver->queries);
}

void cfsr_receiver_ask(struct cfsr_receiver *receiver, const struct cfsr_query *query,
                       uint64_t deadline_ns, struct cfsr_outbox *out)
{
    CFSR_ASSERT(cfsr_receiver_can_ask(receiver, query->lane));
    uint32_t len = cfsr_query_port_ask(&receiver->queries, query, deadline_ns,
                                       receiver->frame + CFSR_LINK_HEADER_BYTES);
    push_frame(receiver, out,
               cfsr_session_seal(&receiver->session, CFSR_FRAME_QUERY, 0, receiver->frame, len));
}

uint32_t cfsr_receiver_reply(struct cfsr_receiver *receiver, void *frame, uint32_t payload_bytes)
{
    if (receiver->state != CFSR_RECEIVER_RUNNING || !receiver->queries.serving)
        return 0;
    cfsr_query_port_answered(&receiver->queries);
    return cfsr_session_seal_reply(&receiver->session, frame, payload_bytes);
}

void cfsr_receiver_on_frame(struct cfsr_receiver *receiver, uint64_t now_ns, uint64_t wall_us,
                            const struct cfsr_link_header *header, void *frame,
                            struct cfsr_outbox *out)
{
    struct cfsr_link_header plain = *header;
    int rc;

    if (receiver->state == CFSR_RECEIVER_CLOSING)
        return;
    if (receiver->state == CFSR_RECEIVER_WAIT_HELLO) {
        if (header->type == CFSR_FRAME_HELLO)
            on_hello(receiver, now_ns, wall_us, frame,
                     CFSR_LINK_HEADER_BYTES + header->length_bytes, out);
        else
            cfsr_receiver_reject(receiver, now_ns, -CFSR_E_BAD_FRAME, "HELLO expected", out);
        return;
    }
    rc = cfsr_session_open(&receiver->session, header, frame);
    if (rc == 0)
        rc = cfsr_session_open_body(&receiver->session, &plain, frame);
    if (rc == 0) {
        prove(receiver, now_ns, out);
        receiver->deadline_ns = now_ns + receiver->options.idle_timeout_ns;
        rc = on_control(receiver, now_ns, wall_us, &plain,
                        (const uint8_t *)frame + CFSR_LINK_HEADER_BYTES, out);
    }
    if (rc < 0)
        cfsr_receiver_reject(receiver, now_ns, rc, cfsr_strerror(rc), out);
}

/* Identity and bounds of a batch against its session: a peer sends its own journal's lanes of this
 * connection only. */
static int check_batch(const struct cfsr_receiver *receiver, const struct cfsr_link_header *link,
                       const struct cfsr_batch_header *batch)
{
    const struct cfsr_hello *hello = &receiver->session.hello;

    if ((uint64_t)link->length_bytes !=
        (uint64_t)CFSR_BATCH_PREFIX_BYTES + batch->extension_bytes + batch->stored_bytes)
        return -CFSR_E_BAD_FRAME;
    if (batch->site_id != receiver->site_id)
        return -CFSR_E_WRONG_SITE;
    if (!cfsr_uuid_equal(&batch->journal, &hello->journal))
        return -CFSR_E_JOURNAL_CHANGED;
    if (batch->lane >= CFSR_LANES_MAX || (receiver->lane_mask >> batch->lane & 1) == 0)
        return -CFSR_E_BAD_FRAME;
    if (batch->flags != 0 || batch->hole_count != 0)
        return -CFSR_E_BAD_FRAME; /* feature bits for partial, forwarded and repair batches were not
                                     negotiated */
    if (batch->epoch != hello->epoch)
        return -CFSR_E_BAD_FRAME;
    return 0;
}

enum cfsr_admission cfsr_receiver_admit(
    struct cfsr_receiver *receiver, uint64_t now_ns, const struct cfsr_link_header *link,
    void *frame, uint64_t (*staged_lsn)(void *user, uint64_t site_id, uint32_t lane),
    struct cfsr_batch_header *header_out, struct cfsr_outbox *out)
{
    struct cfsr_link_header plain = *link;
    struct cfsr_batch_header batch;
    int rc;

    if (receiver->state != CFSR_RECEIVER_ANSWERED && receiver->state != CFSR_RECEIVER_RUNNING) {
        if (receiver->state == CFSR_RECEIVER_WAIT_HELLO)
            cfsr_receiver_reject(receiver, now_ns, -CFSR_E_BAD_FRAME, "HELLO expected", out);
        return CFSR_ADMIT_REFUSE;
    }
    rc = cfsr_session_open(&receiver->session, link, frame);
    if (rc == 0) {
        prove(receiver, now_ns, out);
        rc = cfsr_session_open_body(&receiver->session, &plain, frame);
    }
    if (rc == 0)
        rc = cfsr_batch_header_load((const uint8_t *)frame + CFSR_LINK_HEADER_BYTES, &batch);
    if (rc == 0)
        rc = check_batch(receiver, &plain, &batch);
    if (rc < 0) {
        cfsr_receiver_reject(receiver, now_ns, rc, cfsr_strerror(rc), out);
        return CFSR_ADMIT_REFUSE;
    }
    receiver->deadline_ns = now_ns + receiver->options.idle_timeout_ns;
    uint64_t staged = staged_lsn(receiver->options.env.user, batch.site_id, batch.lane);
    if (batch.lsn_from > staged) {
        cfsr_receiver_reject(receiver, now_ns, -CFSR_E_BAD_ORDER, "a range of the lane was skipped",
                             out);
        return CFSR_ADMIT_REFUSE;
    }
    *header_out = batch;
    receiver->counters.batches++;
    if (batch.lsn_to <= staged) {
        receiver->counters.duplicate_batches++;
        return CFSR_ADMIT_DUPLICATE;
    }
    return CFSR_ADMIT_STORE;
}

bool cfsr_receiver_confirm(struct cfsr_receiver *receiver, uint64_t now_ns,
                           uint64_t (*staged_lsn)(void *user, uint64_t site_id, uint32_t lane),
                           void *user, struct cfsr_outbox *out)
{
    uint32_t lane;

    CFSR_FOR_EACH_BIT (lane, receiver->lane_mask) {
        if (staged_lsn(user, receiver->site_id, lane) == receiver->told_lsn[lane])
            continue;
        cfsr_receiver_stop(receiver, now_ns, -CFSR_E_MOVED, out);
        return false;
    }
    return true;
}

void cfsr_receiver_on_durable(struct cfsr_receiver *receiver, uint32_t lane, uint64_t lsn,
                              uint64_t entries)
{
    if ((receiver->lane_mask >> lane & 1) == 0 || lsn <= receiver->acked_lsn[lane])
        return;
    receiver->acked_lsn[lane] = lsn;
    receiver->acked_entries[lane] = entries;
    receiver->ack_dirty |= 1ull << lane;
}

bool cfsr_receiver_flush_acks(struct cfsr_receiver *receiver, uint64_t now_ns,
                              uint8_t backpressure_pct, struct cfsr_outbox *out)
{
    struct cfsr_ack ack;
    uint32_t lane;

    (void)now_ns;
    if (receiver->state != CFSR_RECEIVER_RUNNING ||
        (receiver->ack_dirty == 0 && backpressure_pct == receiver->acked_backpressure_pct))
        return false;
    ack.backpressure_pct = backpressure_pct;
    ack.mode = receiver->options.ack_mode;
    ack.count = 0;
    receiver->acked_backpressure_pct = backpressure_pct;
    CFSR_FOR_EACH_BIT (lane, receiver->ack_dirty) {
        ack.lane[ack.count++] = (struct cfsr_ack_lane){
            .lane = (uint16_t)lane,
            .durable_lsn = receiver->acked_lsn[lane],
            .applied_lsn = UINT64_MAX, /* no consumer reports yet: unknown is said as unknown */
            .entries = receiver->acked_entries[lane],
        };
    }
    receiver->ack_dirty = 0;
    receiver->counters.acks++;
    uint32_t len = cfsr_ack_store(&ack, receiver->frame + CFSR_LINK_HEADER_BYTES);
    push_frame(receiver, out,
               cfsr_session_seal(&receiver->session, CFSR_FRAME_ACK, 0, receiver->frame, len));
    return true;
}
