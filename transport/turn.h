/*
 * turn.h - one poll's round over the connections of a group that are ready.
 */
#ifndef CFSR_TRANSPORT_TURN_H
#define CFSR_TRANSPORT_TURN_H

#include "base/list.h"

/*
 * Each node that is in `ready` now gets one call of run, which may put any node into `ready` again:
 * that waits for the next round. Ends when `work` (done before by the caller) and what run returns
 * reach the budget; nodes that had no turn then come first in the next round. Returns all work
 * done. run: at least 1 of budget_left is there to be used.
 */
unsigned cfsr_turn(struct cfsr_list *ready, unsigned work, unsigned budget,
                   unsigned (*run)(struct cfsr_list *node, unsigned budget_left));

#endif
