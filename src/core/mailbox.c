/*
 * mailbox.c - bounded multi-producer, single-consumer message ring with an eventfd wake-up.
 *
 * Thread:     post: any; everything else: the receiver.
 * Invariants: a cell's turn number tells whose it is: position (free for the producer of that
 *             position), position + 1 (filled), position + capacity (free for the next lap).
 * Rejected:   a queue per sender (n² boxes, and control threads come and go); IORING_OP_MSG_RING
 *             (needs a ring in every sender); fences (ThreadSanitizer does not model them; ordered
 *             accesses say the same).
 */
#include "core/mailbox.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "core/ring.h"

struct cell {
    _Atomic uint64_t turn;
    struct cfsr_message message;
};

struct cfsr_mailbox {
    _Alignas(CFSR_CACHE_LINE) _Atomic uint64_t tail; /* next position to fill; senders */
    _Atomic uint32_t
        posting; /* senders inside post: their message may be taken before they leave */
    _Alignas(CFSR_CACHE_LINE) _Atomic uint32_t is_sleeping;
    _Alignas(CFSR_CACHE_LINE) uint64_t head; /* next position to take; receiver */
    uint64_t mask;
    struct cell *cells;
    struct cfsr_ring *ring; /* NULL unless attached */
    struct cfsr_ring_op wake;
    uint64_t wake_value; /* target of the eventfd read */
    int event_fd;
    bool is_armed;
    bool is_detaching;
};

_Static_assert(sizeof(struct cell) == CFSR_CACHE_LINE,
               "a message and its turn fill one cache line");

int cfsr_mailbox_create(uint32_t capacity, struct cfsr_mailbox **mailbox_out)
{
    struct cfsr_mailbox *mailbox;
    uint64_t i;

    if (!cfsr_is_power_of_two(capacity) || capacity < 2)
        return -EINVAL;
    mailbox = aligned_alloc(CFSR_CACHE_LINE, sizeof *mailbox);
    if (mailbox == NULL)
        return -ENOMEM;
    *mailbox = (struct cfsr_mailbox){.mask = capacity - 1};
    mailbox->cells = aligned_alloc(CFSR_CACHE_LINE, capacity * sizeof *mailbox->cells);
    mailbox->event_fd = eventfd(0, EFD_CLOEXEC); /* blocking: the ring polls it, never a thread */
    if (mailbox->cells == NULL || mailbox->event_fd < 0) {
        int rc = mailbox->cells == NULL ? -ENOMEM : -errno;

        cfsr_mailbox_destroy(mailbox);
        return rc;
    }
    for (i = 0; i < capacity; i++)
        atomic_init(&mailbox->cells[i].turn, i);
    *mailbox_out = mailbox;
    return 0;
}

void cfsr_mailbox_destroy(struct cfsr_mailbox *mailbox)
{
    if (mailbox == NULL)
        return;
    CFSR_ASSERT(!mailbox->is_armed);
    /* The last answer may have arrived while its sender is still on its way out of post. */
    while (atomic_load_explicit(&mailbox->posting, memory_order_acquire) != 0)
        sched_yield();
    if (mailbox->event_fd >= 0)
        close(mailbox->event_fd);
    free(mailbox->cells);
    free(mailbox);
}

static void wake_receiver(struct cfsr_mailbox *mailbox)
{
    const uint64_t one = 1;
    ssize_t n;

    if (atomic_load_explicit(&mailbox->is_sleeping, memory_order_seq_cst) == 0 ||
        atomic_exchange_explicit(&mailbox->is_sleeping, 0, memory_order_seq_cst) == 0)
        return; /* awake, or another sender wakes it */
    do {
        n = write(mailbox->event_fd, &one, sizeof one);
    } while (n < 0 && errno == EINTR);
    CFSR_ASSERT(n == sizeof one);
}

static bool post(struct cfsr_mailbox *mailbox, const struct cfsr_message *message)
{
    uint64_t position = atomic_load_explicit(&mailbox->tail, memory_order_relaxed);
    struct cell *cell;

    for (;;) {
        uint64_t turn;

        cell = &mailbox->cells[position & mailbox->mask];
        turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        if (turn == position) {
            if (atomic_compare_exchange_weak_explicit(&mailbox->tail, &position, position + 1,
                                                      memory_order_relaxed, memory_order_relaxed))
                break;
        } else if (turn < position) {
            return false; /* not taken since the last lap: full */
        } else {
            position = atomic_load_explicit(&mailbox->tail, memory_order_relaxed);
        }
    }
    cell->message = *message;
    atomic_store_explicit(&cell->turn, position + 1, memory_order_seq_cst);
    wake_receiver(mailbox);
    return true;
}

bool cfsr_mailbox_post(struct cfsr_mailbox *mailbox, const struct cfsr_message *message)
{
    bool posted;

    CFSR_ASSERT(message->run != NULL);
    atomic_fetch_add_explicit(&mailbox->posting, 1, memory_order_relaxed);
    posted = post(mailbox, message);
    atomic_fetch_sub_explicit(&mailbox->posting, 1, memory_order_release);
    return posted;
}

static bool has_message(struct cfsr_mailbox *mailbox)
{
    struct cell *cell = &mailbox->cells[mailbox->head & mailbox->mask];

    return atomic_load_explicit(&cell->turn, memory_order_seq_cst) == mailbox->head + 1;
}

unsigned cfsr_mailbox_drain(struct cfsr_mailbox *mailbox, unsigned budget)
{
    unsigned count = 0;

    while (count < budget && has_message(mailbox)) {
        struct cell *cell = &mailbox->cells[mailbox->head & mailbox->mask];
        struct cfsr_message message = cell->message;

        atomic_store_explicit(&cell->turn, mailbox->head + mailbox->mask + 1, memory_order_release);
        mailbox->head++;
        count++;
        message.run(&message);
    }
    return count;
}

static void arm(struct cfsr_mailbox *mailbox)
{
    struct io_uring_sqe *sqe = cfsr_ring_sqe(mailbox->ring, &mailbox->wake);

    io_uring_prep_read(sqe, mailbox->event_fd, &mailbox->wake_value, sizeof mailbox->wake_value, 0);
    mailbox->is_armed = true;
}

static void wake_done(struct cfsr_ring_op *op, int32_t res, uint32_t cqe_flags)
{
    struct cfsr_mailbox *mailbox = CFSR_CONTAINER_OF(op, struct cfsr_mailbox, wake);

    (void)cqe_flags;
    CFSR_ASSERT(res == sizeof mailbox->wake_value || res == -ECANCELED || res == -EINTR ||
                res == -EAGAIN);
    mailbox->is_armed = false;
    if (!mailbox->is_detaching)
        arm(mailbox);
}

void cfsr_mailbox_attach(struct cfsr_mailbox *mailbox, struct cfsr_ring *ring)
{
    CFSR_ASSERT(mailbox->ring == NULL);
    mailbox->ring = ring;
    mailbox->wake.done = wake_done;
    mailbox->is_detaching = false;
    arm(mailbox);
}

void cfsr_mailbox_detach(struct cfsr_mailbox *mailbox)
{
    unsigned i;

    if (mailbox->ring == NULL)
        return;
    mailbox->is_detaching = true;
    for (i = 0; i < 1000 && mailbox->is_armed; i++) {
        cfsr_ring_cancel(mailbox->ring, &mailbox->wake);
        if (cfsr_ring_submit_and_reap(mailbox->ring, 1000 * 1000) < 0)
            break;
    }
    CFSR_ASSERT(!mailbox->is_armed); /* a poll on an eventfd can always be cancelled */
    mailbox->ring = NULL;
}

bool cfsr_mailbox_prepare_sleep(struct cfsr_mailbox *mailbox)
{
    CFSR_ASSERT(mailbox->is_armed);
    atomic_store_explicit(&mailbox->is_sleeping, 1, memory_order_seq_cst);
    if (!has_message(mailbox))
        return true;
    cfsr_mailbox_awake(mailbox);
    return false;
}

void cfsr_mailbox_awake(struct cfsr_mailbox *mailbox)
{
    atomic_store_explicit(&mailbox->is_sleeping, 0, memory_order_relaxed);
}
