/*
 * sender_view.c - what a sender shows: deadlines, what it may be asked, its state for operators.
 *
 * Thread:     as sender.c. Reads only.
 */
#include "repl/sender.h"

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "repl/sender_internal.h"

const char *cfsr_link_state_name(enum cfsr_link_state state)
{
    static const char *const names[] = {
        [CFSR_LINK_BOOTSTRAP] = "BOOTSTRAP", [CFSR_LINK_CATCHUP] = "CATCHUP",
        [CFSR_LINK_STREAMING] = "STREAMING", [CFSR_LINK_PAUSED] = "PAUSED",
        [CFSR_LINK_STALLED] = "STALLED",     [CFSR_LINK_FENCED] = "FENCED",
        [CFSR_LINK_FAULTED] = "FAULTED",
    };
    CFSR_ASSERT((unsigned)state < CFSR_ARRAY_LEN(names));
    return names[state];
}

uint64_t cfsr_sender_batch_deadline(const struct cfsr_sender *sender)
{
    uint64_t deadline = UINT64_MAX;
    uint32_t lane;

    if (sender->state != CFSR_SENDER_RUNNING ||
        sender->in_flight_bytes >= sender->options.window_bytes)
        return deadline;
    CFSR_FOR_EACH_BIT (lane, sender->options.lane_mask & ~sender->damaged_mask) {
        const struct cfsr_sender_lane *l = &sender->lane[lane];
        if (l->waiting_since_ns != 0)
            deadline = cfsr_min_u64(deadline,
                                    l->waiting_since_ns + sender->options.batch_timeout_ns);
    }
    return deadline;
}

uint64_t cfsr_sender_next_deadline(const struct cfsr_sender *sender)
{
    uint64_t deadline;
    switch (sender->state) {
    case CFSR_SENDER_BACKOFF: return sender->retry_at_ns;
    case CFSR_SENDER_HELLO:
    case CFSR_SENDER_CHECKING: return sender->deadline_ns;
    case CFSR_SENDER_RUNNING:
    case CFSR_SENDER_REPAIRING:
        deadline = cfsr_min_u64(sender->heartbeat_at_ns,
                                sender->last_heard_ns + sender->options.progress_timeout_ns);
        if (sender->in_flight_bytes > 0 && sender->peer_backpressure_pct < 100)
            deadline = cfsr_min_u64(deadline,
                                    sender->last_progress_ns + sender->options.progress_timeout_ns);
        return deadline;
    case CFSR_SENDER_DIALING:
    case CFSR_SENDER_CLOSING:
    case CFSR_SENDER_STOPPED: return UINT64_MAX;
    }
    return UINT64_MAX;
}

bool cfsr_sender_can_ask(const struct cfsr_sender *sender, uint32_t lane)
{
    return cfsr_sender_is_open(sender) && cfsr_sender_carries(sender, lane) &&
           (sender->session.features & CFSR_FEATURE_QUERY) != 0 &&
           cfsr_query_port_is_free(&sender->queries);
}

bool cfsr_sender_expects(const struct cfsr_sender *sender, unsigned type)
{
    if (type == CFSR_FRAME_BATCH)
        return false; /* data flows the other way */
    return type != CFSR_FRAME_REPLY ||
           (cfsr_sender_is_open(sender) && cfsr_query_port_expects_reply(&sender->queries));
}

bool cfsr_sender_is_caught_up(const struct cfsr_sender *sender)
{
    uint32_t lane;

    /* A peer that takes nothing more is STALLED, also when it has everything so far. */
    if (sender->state != CFSR_SENDER_RUNNING || sender->peer_backpressure_pct >= 100)
        return false;
    CFSR_FOR_EACH_BIT (lane, sender->options.lane_mask) {
        if (sender->lane[lane].acked_lsn != sender->lane[lane].head_lsn)
            return false;
    }
    return true;
}

enum cfsr_link_state cfsr_sender_link_state(const struct cfsr_sender *sender,
                                            const char **reason_out)
{
    uint64_t behind = 0;
    uint32_t lane;

    *reason_out = "";
    if (sender->fault != 0) {
        *reason_out = cfsr_error_name(sender->fault);
        return CFSR_LINK_FAULTED;
    }
    if (sender->damaged_mask != 0 && cfsr_sender_is_open(sender)) {
        *reason_out = "journal_damaged";
        return CFSR_LINK_STALLED;
    }
    if (sender->state != CFSR_SENDER_RUNNING) {
        *reason_out = sender->last_reason != 0 ? cfsr_error_name(sender->last_reason)
                                               : "connecting";
        return CFSR_LINK_STALLED;
    }
    if (sender->peer_backpressure_pct >= 100) {
        *reason_out = "peer_not_accepting";
        return CFSR_LINK_STALLED;
    }
    CFSR_FOR_EACH_BIT (lane, sender->options.lane_mask) {
        behind += sender->lane[lane].head_lsn - sender->lane[lane].next_lsn;
    }
    return behind > sender->options.window_bytes ? CFSR_LINK_CATCHUP : CFSR_LINK_STREAMING;
}
