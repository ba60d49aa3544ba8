/*
 * action.h - what the protocol's state machines ask their driver to do.
 *
 * Sender and receiver take events and `now`, and write actions into an outbox; they do no I/O, read
 * no clock and draw no random numbers. The caller gives an outbox with room for CFSR_ACTIONS_MAX
 * actions (asserted), so an event is never half handled. The daemon's cores and the simulator are
 * the two drivers. An action's frame lives in the state machine until its next event.
 */
#ifndef CFSR_REPL_ACTION_H
#define CFSR_REPL_ACTION_H

#include <stdint.h>

#include "base/assert.h"
#include "journal/record.h"
#include "journal/site.h"

/* Most actions of one event: a stamp check or an ack for each lane, a frame, a close, a state
 * report. */
#define CFSR_ACTIONS_MAX (CFSR_LANES_MAX + 4)

enum cfsr_action_type {
    CFSR_ACTION_DIAL,        /* connect to the peer */
    CFSR_ACTION_CLOSE,       /* close the connection; reason says why (0: orderly) */
    CFSR_ACTION_SEND_FRAME,  /* send frame/frame_bytes on the control stream, sealed already */
    CFSR_ACTION_CHECK_STAMP, /* read the record at stamp.lsn of lane and answer with on_stamp() */
    CFSR_ACTION_ACKED,       /* lane is durable at the peer below lsn; publish it */
    CFSR_ACTION_REROUTE,     /* the peer has `cores` cores: dial again by its lane map */
    CFSR_ACTION_REGRESSED,   /* the peer's cursor of lane went back to lsn: restored from an older
                                copy; being refilled */
    CFSR_ACTION_TAKE_OVER,   /* receiver: proven in this session; close older connections for its
                                lanes */
    CFSR_ACTION_SERVE,       /* the peer asks for queries.served; answer with _reply() */
    CFSR_ACTION_ANSWER,      /* queries.answer came; its body lives until the caller's frame goes */
    CFSR_ACTION_DAMAGED,     /* sender: our own journal is damaged at lsn of lane; repair it and say
                                on_repaired(), or on_unrepairable() */
};

struct cfsr_action {
    enum cfsr_action_type type;
    int reason; /* CLOSE: 0 or -CFSR_E_* */
    uint32_t lane;
    uint32_t cores; /* REROUTE */
    uint64_t lsn;
    struct cfsr_record_stamp stamp;
    const void *frame;
    uint32_t frame_bytes;
};

struct cfsr_outbox {
    unsigned count;
    struct cfsr_action item[CFSR_ACTIONS_MAX];
};

static inline struct cfsr_action *cfsr_outbox_push(struct cfsr_outbox *outbox,
                                                   enum cfsr_action_type type)
{
    CFSR_ASSERT(outbox->count < CFSR_ACTIONS_MAX);
    struct cfsr_action *action = &outbox->item[outbox->count++];
    *action = (struct cfsr_action){.type = type};
    return action;
}

#endif
