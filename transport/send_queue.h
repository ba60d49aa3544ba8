/*
 * send_queue.h - the frames of one connection that wait to be sent, as a byte stream.
 *
 * Two bounded first-in-first-out queues, DATA and CONTROL. cfsr_send_queue_gather() turns their
 * heads into an iovec list; cfsr_send_queue_advance() says how many of those bytes went out. A
 * frame that was begun is finished before any other; otherwise CONTROL goes first. Frames wholly
 * sent are taken out with cfsr_send_queue_pop_sent() by the code that makes the upcalls, because
 * advance may run where no upcall may.
 *
 * No memory of its own, no clock, no I/O. Owner thread: the core of the connection.
 */
#ifndef CFSR_TRANSPORT_SEND_QUEUE_H
#define CFSR_TRANSPORT_SEND_QUEUE_H

#include "transport/transport.h"

/* Powers of two. A sender keeps 256 KiB in flight in frames of 64 KiB, so 64 frames are ample. */
#define CFSR_SEND_DATA_MAX    64
#define CFSR_SEND_CONTROL_MAX 16
/* Pieces of every queued frame, and the preamble. */
#define CFSR_SEND_IOV_MAX ((CFSR_SEND_DATA_MAX + CFSR_SEND_CONTROL_MAX) * CFSR_FRAME_PIECES_MAX + 1)

/* Counters run freely; index = counter mod size. released <= sent <= tail. */
struct cfsr_send_lane {
    struct cfsr_frame *frames;
    uint32_t mask;
    uint32_t released; /* cookies given back */
    uint32_t sent;     /* wholly sent; == the frame at the head */
    uint32_t tail;
    bool wants_writable; /* a send found no room: on_writable is owed */
};

struct cfsr_send_queue {
    struct cfsr_send_lane lanes[2]; /* by enum cfsr_stream */
    struct cfsr_frame data[CFSR_SEND_DATA_MAX];
    struct cfsr_frame control[CFSR_SEND_CONTROL_MAX];
    size_t head_done_bytes;       /* of the frame that was begun; 0: none was */
    enum cfsr_stream head_stream; /* its stream */
    uint32_t gathered_tail[2];    /* tails at the last gather: later frames are not in that list */
};

void cfsr_send_queue_init(struct cfsr_send_queue *queue);
/* Frames taken (>= 1) or -EAGAIN; either way on_writable is owed if not all were taken. */
int cfsr_send_queue_push(struct cfsr_send_queue *queue, enum cfsr_stream stream,
                         const struct cfsr_frame *frames, unsigned count);
/*
 * The next bytes to send, at most max_bytes, in at most iov_max pieces. Returns the number of
 * pieces; *bytes_out their sum. Nothing counts as sent before cfsr_send_queue_advance().
 */
unsigned cfsr_send_queue_gather(struct cfsr_send_queue *queue, size_t max_bytes, struct iovec *iov,
                                unsigned iov_max, size_t *bytes_out);
/*
 * bytes of the last gathered list have gone out. The order of the list is found again by the same
 * rule over the same frames, so nothing else need be kept about a send in flight.
 */
void cfsr_send_queue_advance(struct cfsr_send_queue *queue, size_t bytes);
/* Takes one frame that is wholly sent (all: or not sent at all) and gives its cookie; false if
 * none. */
bool cfsr_send_queue_pop_sent(struct cfsr_send_queue *queue, bool all, uint64_t *cookie_out);
/* True if a stream owes on_writable and has room again; take clears it for that stream. */
bool cfsr_send_queue_owes_writable(const struct cfsr_send_queue *queue);
bool cfsr_send_queue_take_writable(struct cfsr_send_queue *queue);
/* Frames not wholly sent. */
uint32_t cfsr_send_queue_unsent(const struct cfsr_send_queue *queue);
/* Frames wholly sent whose cookies have not been given back. */
uint32_t cfsr_send_queue_unreleased(const struct cfsr_send_queue *queue);

#endif
