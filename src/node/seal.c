/*
 * seal.c - room for sealed bodies on their way out.
 *
 * A batch is encoded once for all peers, but sealed for each connection: the ciphertext goes to a
 * seal slot, and the batch slot is free as soon as that is done. A peer's links hold its share of
 * the slots at most, so that a peer that does not read cannot keep the others waiting.
 *
 * Thread:     the core.
 * Invariants: a slot belongs to one frame until the transport says on_sent; without --seal there is
 * none, and no session that needs one.
 * Rejected:   sealing in place (the other peers' sends read the same body); a ring a link (2.7 MiB
 * for each of the peers, most of them idle).
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

uint32_t node_seal_slots(const struct cfsr_node_options *options)
{
    return options->seal == CFSR_SEAL_REQUIRE ? options->batch_slots : 0;
}

int node_seals_create(struct cfsr_node_core *core)
{
    uint32_t count = node_seal_slots(&core->options);
    uint16_t ignored;

    if (count == 0)
        return 0;
    core->seal_free = calloc(count, sizeof *core->seal_free);
    if (core->seal_free == NULL)
        return -ENOMEM;
    core->seal_count = count;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *slot = core->env.take_memory(core->env.user, CFSR_NODE_SEAL_SLOT_BYTES, &ignored);
        if (slot == NULL)
            return -ENOMEM;
        core->seal_free[core->seal_free_count++] = slot;
    }
    return 0;
}

void node_seals_destroy(struct cfsr_node_core *core)
{
    free(core->seal_free);
    core->seal_free = NULL;
    core->seal_free_count = 0;
}

/* Of all links to the peer: one to each of its cores, and what ends while it is replaced. */
static uint64_t held_for(const struct cfsr_node_core *core, uint32_t peer)
{
    uint64_t held = 0;

    for (uint32_t i = 0; i < core->link_count; i++)
        if (core->links[i].in_use && core->links[i].peer == peer)
            held += core->links[i].seals_held;
    return held;
}

bool node_seal_has_room(const struct node_link *link)
{
    const struct cfsr_node_core *core = link->core;

    if (!cfsr_session_seals(&link->sender.session))
        return true;
    return core->seal_free_count > 0 &&
           held_for(core, link->peer) <
               cfsr_max_u64(core->seal_count / core->options.peer_count, 1);
}

void node_seal_frame(struct node_link *link, uint16_t flags, struct node_frame *frame,
                     struct cfsr_frame *out)
{
    struct cfsr_node_core *core = link->core;
    struct node_batch *batch = frame->batch;

    CFSR_ASSERT(core->seal_free_count > 0 && frame->sealed == NULL);
    frame->sealed = core->seal_free[--core->seal_free_count];
    link->seals_held++;
    uint32_t sealed_bytes = cfsr_session_seal_batch_body(&link->sender.session, flags, frame->head,
                                                         sizeof frame->head, batch->body,
                                                         batch->header.stored_bytes, frame->sealed);
    out->pieces[1] = (struct iovec){.iov_base = frame->sealed, .iov_len = sealed_bytes};
    out->count = 2;
    frame->batch = NULL;
    node_batch_release(batch);
}

void node_seal_release(struct node_link *link, struct node_frame *frame)
{
    struct cfsr_node_core *core = link->core;

    CFSR_ASSERT(link->seals_held > 0 && core->seal_free_count < core->seal_count);
    link->seals_held--;
    core->seal_free[core->seal_free_count++] = frame->sealed;
    frame->sealed = NULL;
}
