/*
 * lend.c - received frames that the disk writes from where they are.
 *
 * A transport gets received memory back in the order in which it showed it; writes end in any
 * order. So a connection remembers the frames it has lent to the disk, oldest first, and what it
 * took behind each of them; when the oldest is written, all of that is released at once. A
 * connection that closes before leaves its memory behind in a hold, until the last write of it is
 * over.
 *
 * Thread:     the core.
 * Owns:       a lent frame for every write that the core's inbox lanes can have on their way, and
 * as many lenders: there is always one for a frame that has room in its lane.
 * Invariants: nothing that is lent, or was taken behind it, is released before it was written or
 * its lane gave it up (a failed write is an end too); a lender without an unwritten frame does not
 * exist. Rejected:   a list of every frame taken (most are small and copied: they only add their
 * bytes to the lent frame before them).
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

#define NONE UINT32_MAX

static void release(const struct node_lender *lender, uint64_t len_bytes)
{
    if (lender->conn != NULL && len_bytes > 0)
        lender->conn->path->transport->recv_release(lender->conn->conn, (size_t)len_bytes);
}

static void free_lent(struct cfsr_node_core *core, uint32_t index)
{
    core->lents[index] = (struct node_lent){.next = core->lent_free};
    core->lent_free = index;
}

static void free_lender(struct cfsr_node_core *core, struct node_lender *lender)
{
    CFSR_ASSERT(lender->unwritten == 0 && lender->first == NONE);
    if (lender->hold != NULL)
        lender->path->transport->recv_drop(lender->path->group, lender->hold);
    if (lender->conn != NULL)
        lender->conn->lender = NULL;
    *lender = (struct node_lender){.first = NONE, .last = NONE, .next_free = core->lender_free};
    core->lender_free = lender;
}

bool node_can_lend(const struct node_conn *conn)
{
    const unsigned needed = CFSR_TRANSPORT_MESSAGES | CFSR_TRANSPORT_SLOTS;
    const struct cfsr_node_core *core = conn->core;

    return (conn->path->transport->caps & needed) == needed && core->lent_free != NONE &&
           (conn->lender != NULL || core->lender_free != NULL);
}

uint32_t node_lend(struct node_conn *conn)
{
    struct cfsr_node_core *core = conn->core;
    struct node_lender *lender = conn->lender;
    uint32_t index = core->lent_free;
    struct node_lent *lent = &core->lents[index];

    CFSR_ASSERT(node_can_lend(conn));
    core->lent_free = lent->next;
    if (lender == NULL) {
        lender = core->lender_free;
        core->lender_free = lender->next_free;
        lender->conn = conn;
        lender->path = conn->path;
        conn->lender = lender;
    }
    *lent = (struct node_lent){.lender = lender, .next = NONE};
    if (lender->first == NONE)
        lender->first = index;
    else
        core->lents[lender->last].next = index;
    lender->last = index;
    lender->unwritten++;
    return core->slot_count + index;
}

void node_lent_back(struct cfsr_node_core *core, uint32_t name)
{
    struct node_lent *lent = &core->lents[name - core->slot_count];
    struct node_lender *lender = lent->lender;
    uint64_t len_bytes = 0;

    CFSR_ASSERT(name - core->slot_count < core->lent_count && lender != NULL && !lent->written);
    lent->written = true;
    lender->unwritten--;
    while (lender->first != NONE && core->lents[lender->first].written) {
        uint32_t index = lender->first;
        len_bytes += core->lents[index].taken_bytes;
        lender->first = core->lents[index].next;
        free_lent(core, index);
    }
    release(lender, len_bytes);
    if (lender->unwritten == 0)
        free_lender(core, lender);
}

void node_conn_took(struct node_conn *conn, uint64_t len_bytes)
{
    if (conn->lender == NULL)
        conn->path->transport->recv_release(conn->conn, (size_t)len_bytes);
    else
        conn->core->lents[conn->lender->last].taken_bytes += len_bytes;
}

void node_lender_closed(struct node_conn *conn)
{
    struct node_lender *lender = conn->lender;

    if (lender == NULL)
        return;
    lender->hold = conn->path->transport->recv_hold(conn->conn);
    lender->conn = NULL;
    conn->lender = NULL;
}

int node_lends_create(struct cfsr_node_core *core)
{
    core->lent_count = (uint32_t)__builtin_popcountll(core->lane_mask) * CFSR_INBOX_WRITES_MAX;
    core->lent_free = NONE;
    if (core->lent_count == 0)
        return 0;
    core->lents = calloc(core->lent_count, sizeof *core->lents);
    core->lenders = calloc(core->lent_count, sizeof *core->lenders);
    if (core->lents == NULL || core->lenders == NULL)
        return -ENOMEM;
    for (uint32_t i = core->lent_count; i-- > 0;) {
        core->lenders[i].first = NONE;
        free_lent(core, i);
        free_lender(core, &core->lenders[i]);
    }
    return 0;
}

void node_lends_destroy(struct cfsr_node_core *core)
{
    /* Of lanes that failed: what they were to write was never begun. */
    for (uint32_t i = 0; i < core->lent_count && core->lenders != NULL; i++) {
        struct node_lender *lender = &core->lenders[i];
        if (lender->hold != NULL)
            lender->path->transport->recv_drop(lender->path->group, lender->hold);
    }
    free(core->lents);
    free(core->lenders);
    core->lents = NULL;
    core->lenders = NULL;
}
