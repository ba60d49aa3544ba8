/* sender_internal.h - what sender.c and sender_view.c share. */
#ifndef CFSR_REPL_SENDER_INTERNAL_H
#define CFSR_REPL_SENDER_INTERNAL_H

#include "repl/sender.h"

static inline bool cfsr_sender_carries(const struct cfsr_sender *sender, uint32_t lane)
{
    return lane < CFSR_LANES_MAX && (sender->options.lane_mask >> lane & 1) != 0;
}

/* Established on both sides, with something to say. */
static inline bool cfsr_sender_is_open(const struct cfsr_sender *sender)
{
    return sender->state == CFSR_SENDER_RUNNING || sender->state == CFSR_SENDER_REPAIRING;
}

#endif
