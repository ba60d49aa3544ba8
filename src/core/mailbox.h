/*
 * mailbox.h - messages to a core from any other thread.
 *
 * A bounded multi-producer queue (D. Vyukov's sequence-numbered ring): no lock, no allocation, a
 * full box answers false and the sender keeps the message. The receiver is woken by an eventfd,
 * whose read is armed in the receiver's ring, only if it sleeps: sender "publish, then look at the
 * sleeping flag", receiver "set the flag, then look at the queue again", all four sequentially
 * consistent, so one of the two sees the other and no wake-up is lost.
 *
 * Messages of one sender arrive in order; messages of different senders in any order.
 */
#ifndef CFSR_CORE_MAILBOX_H
#define CFSR_CORE_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

struct cfsr_mailbox;
struct cfsr_ring;

#define CFSR_MESSAGE_ARGS 5

struct cfsr_message {
    void (*run)(const struct cfsr_message
                    *message); /* called on the receiving thread; the message is a copy */
    void *object;              /* handed over to the receiver, whatever it is */
    uint64_t args[CFSR_MESSAGE_ARGS];
};

/* capacity: a power of two. -EINVAL, -ENOMEM, -EMFILE. Any thread. */
int cfsr_mailbox_create(uint32_t capacity, struct cfsr_mailbox **mailbox_out);
/* After cfsr_mailbox_detach(), with no sender left; undelivered messages are dropped. */
void cfsr_mailbox_destroy(struct cfsr_mailbox *mailbox);

/* Any thread. False if the box is full: keep the message and try again later. */
bool cfsr_mailbox_post(struct cfsr_mailbox *mailbox, const struct cfsr_message *message);

/* The rest: receiving thread only. */
void cfsr_mailbox_attach(struct cfsr_mailbox *mailbox,
                         struct cfsr_ring *ring);       /* arms the wake-up */
void cfsr_mailbox_detach(struct cfsr_mailbox *mailbox); /* cancels it and reaps until it is gone */
unsigned cfsr_mailbox_drain(struct cfsr_mailbox *mailbox,
                            unsigned budget); /* runs up to budget messages */
/* True: nothing is waiting and the next post will wake the ring, so it may wait. Call awake()
 * afterwards. */
bool cfsr_mailbox_prepare_sleep(struct cfsr_mailbox *mailbox);
void cfsr_mailbox_awake(struct cfsr_mailbox *mailbox);

#endif
