/*
 * turn.c - one poll's round over the connections of a group that are ready (turn.h).
 *
 * Thread:     the core of the group.
 * Invariants: a node may leave `ready` or the round, and its connection may end, inside run:
 * nothing is remembered of it over the call.
 */
#include "transport/turn.h"

unsigned cfsr_turn(struct cfsr_list *ready, unsigned work, unsigned budget,
                   unsigned (*run)(struct cfsr_list *node, unsigned budget_left))
{
    struct cfsr_list turn;
    struct cfsr_list *node;

    cfsr_list_init(&turn);
    if (!cfsr_list_is_empty(ready)) {
        cfsr_list_insert_before(ready, &turn);
        cfsr_list_remove(ready);
    }
    while (work < budget && (node = cfsr_list_pop_front(&turn)) != NULL)
        work += run(node, budget - work);
    while (!cfsr_list_is_empty(&turn)) {
        node = turn.prev;
        cfsr_list_remove(node);
        cfsr_list_push_front(ready, node);
    }
    return work;
}
