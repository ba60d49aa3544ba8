/*
 * rdma/credits.h - who may send how much: the accounting of one connection, both directions.
 *
 * A credit is one posted receive slot of the peer. Whoever receives announces slots it has posted
 * again ("grants") with every message it sends, or with a message of its own when many are due.
 * Messages of the application leave CFSR_RDMA_RESERVED credits unused, CONTROL frames one less, so
 * that a grant can always be sent: without that two full peers would wait for each other forever.
 *
 * What the peer says is checked and refused; what we do is asserted. No I/O, no clock, no memory of
 * its own. Owner thread: the core of the connection.
 */
#ifndef CFSR_TRANSPORT_RDMA_CREDITS_H
#define CFSR_TRANSPORT_RDMA_CREDITS_H

#include <stdbool.h>
#include <stdint.h>

/* Kept by DATA frames; CONTROL frames keep one. */
#define CFSR_RDMA_RESERVED 2u
/* Grants of one message are 16 bits. */
#define CFSR_RDMA_GRANT_MAX 0xffffu
#define CFSR_RDMA_SLOTS_MIN 8u
#define CFSR_RDMA_SLOTS_MAX 4096u

/* Free-running counts of messages. */
struct cfsr_rdma_credits {
    uint32_t slots;        /* ours */
    uint32_t peer_slots;   /* the peer's; 0: not known yet */
    uint64_t posted;       /* receives posted */
    uint64_t received;     /* of them used by the peer */
    uint64_t granted;      /* of posted, announced: received <= granted <= posted */
    uint32_t owed_frames;  /* slots posted again after a frame, since the last grant */
    uint64_t peer_granted; /* announced to us */
    uint64_t sent;         /* of them used: sent <= peer_granted <= sent + peer_slots */
};

void cfsr_rdma_credits_init(struct cfsr_rdma_credits *credits, uint32_t slots);
/* The peer said at connection set-up how many slots it posted; ours are granted the same way. */
void cfsr_rdma_credits_start(struct cfsr_rdma_credits *credits, uint32_t peer_slots);
/* Room for how many receives; posting more would name a slot that is in use. held: slots received
 * and not given back yet. */
uint32_t cfsr_rdma_credits_postable(const struct cfsr_rdma_credits *credits, uint32_t held);
/* of_frames of the count receives are slots that held parts of frames. */
void cfsr_rdma_credits_post(struct cfsr_rdma_credits *credits, uint32_t count, uint32_t of_frames);
/* A message with a grant came. -CFSR_E_BAD_FRAME if it used a credit nobody gave, or grants more
 * slots than the peer has. */
int cfsr_rdma_credits_receive(struct cfsr_rdma_credits *credits, uint32_t grant);
/* Messages that may be sent now, leaving reserved credits. */
uint32_t cfsr_rdma_credits_available(const struct cfsr_rdma_credits *credits, uint32_t reserved);
/* One message is being sent; returns the grant it carries. */
uint32_t cfsr_rdma_credits_send(struct cfsr_rdma_credits *credits);
/* Enough is due that a message of its own is worth it. */
bool cfsr_rdma_credits_update_due(const struct cfsr_rdma_credits *credits);

#endif
