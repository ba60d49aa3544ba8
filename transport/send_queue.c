/*
 * send_queue.c - the frames of one connection that wait to be sent (see send_queue.h).
 *
 * Thread:     the core of the connection.
 * Invariants: in each lane released <= sent <= gathered tail <= tail, tail - released <= size; a
 *             begun frame is at the head of its lane; the order of bytes is: begun frame, CONTROL,
 *             DATA.
 * Rejected:   a list of iovecs kept beside the frames (a second truth about what is unsent, and the
 *             list built early would put CONTROL behind DATA that has not left yet).
 */
#include "transport/send_queue.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>

_Static_assert((CFSR_SEND_DATA_MAX & (CFSR_SEND_DATA_MAX - 1)) == 0, "index by mask");
_Static_assert((CFSR_SEND_CONTROL_MAX & (CFSR_SEND_CONTROL_MAX - 1)) == 0, "index by mask");

void cfsr_send_queue_init(struct cfsr_send_queue *queue)
{
    for (unsigned i = 0; i < 2; i++) {
        queue->lanes[i] = (struct cfsr_send_lane){0};
        queue->gathered_tail[i] = 0;
    }
    queue->lanes[CFSR_STREAM_DATA].frames = queue->data;
    queue->lanes[CFSR_STREAM_DATA].mask = CFSR_SEND_DATA_MAX - 1;
    queue->lanes[CFSR_STREAM_CONTROL].frames = queue->control;
    queue->lanes[CFSR_STREAM_CONTROL].mask = CFSR_SEND_CONTROL_MAX - 1;
    queue->head_done_bytes = 0;
    queue->head_stream = CFSR_STREAM_DATA;
}

static size_t frame_bytes(const struct cfsr_frame *frame)
{
    size_t sum = 0;

    for (unsigned i = 0; i < frame->count; i++)
        sum += frame->pieces[i].iov_len;
    return sum;
}

int cfsr_send_queue_push(struct cfsr_send_queue *queue, enum cfsr_stream stream,
                         const struct cfsr_frame *frames, unsigned count)
{
    struct cfsr_send_lane *lane = &queue->lanes[stream];
    uint32_t room = lane->mask + 1 - (lane->tail - lane->released);
    uint32_t take = count < room ? count : room;

    for (uint32_t i = 0; i < take; i++) {
        CFSR_ASSERT(frames[i].count >= 1 && frames[i].count <= CFSR_FRAME_PIECES_MAX);
        CFSR_ASSERT(frame_bytes(&frames[i]) > 0);
        lane->frames[(lane->tail + i) & lane->mask] = frames[i];
    }
    lane->tail += take;
    if (take < count)
        lane->wants_writable = true;
    return take > 0 || count == 0 ? (int)take : -EAGAIN;
}

/* Walks the frames in the order they are sent. */
struct walk {
    uint32_t next[2];
    bool begun; /* the begun frame comes first */
};

static void walk_init(const struct cfsr_send_queue *queue, struct walk *walk)
{
    walk->next[CFSR_STREAM_DATA] = queue->lanes[CFSR_STREAM_DATA].sent;
    walk->next[CFSR_STREAM_CONTROL] = queue->lanes[CFSR_STREAM_CONTROL].sent;
    walk->begun = queue->head_done_bytes > 0;
}

static const struct cfsr_frame *walk_next(const struct cfsr_send_queue *queue, struct walk *walk,
                                          enum cfsr_stream *stream_out)
{
    enum cfsr_stream stream = CFSR_STREAM_DATA;

    if (walk->begun) {
        stream = queue->head_stream;
        walk->begun = false;
    } else if (walk->next[CFSR_STREAM_CONTROL] != queue->gathered_tail[CFSR_STREAM_CONTROL]) {
        stream = CFSR_STREAM_CONTROL;
    } else if (walk->next[CFSR_STREAM_DATA] == queue->gathered_tail[CFSR_STREAM_DATA]) {
        return NULL;
    }
    *stream_out = stream;
    return &queue->lanes[stream].frames[walk->next[stream]++ & queue->lanes[stream].mask];
}

/* Appends the pieces of frame beyond its first skip bytes, up to max_bytes; returns bytes added. */
static size_t append_pieces(const struct cfsr_frame *frame, size_t skip, size_t max_bytes,
                            struct iovec *iov, unsigned iov_max, unsigned *count)
{
    size_t added = 0;

    for (unsigned i = 0; i < frame->count && added < max_bytes && *count < iov_max; i++) {
        size_t len = frame->pieces[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = cfsr_min_u64(len - skip, max_bytes - added);
        iov[*count].iov_base = (char *)frame->pieces[i].iov_base + skip;
        iov[*count].iov_len = len;
        (*count)++;
        added += len;
        skip = 0;
    }
    return added;
}

unsigned cfsr_send_queue_gather(struct cfsr_send_queue *queue, size_t max_bytes, struct iovec *iov,
                                unsigned iov_max, size_t *bytes_out)
{
    const struct cfsr_frame *frame;
    enum cfsr_stream stream;
    struct walk walk;
    size_t bytes = 0;
    size_t skip = queue->head_done_bytes;
    unsigned count = 0;

    queue->gathered_tail[CFSR_STREAM_DATA] = queue->lanes[CFSR_STREAM_DATA].tail;
    queue->gathered_tail[CFSR_STREAM_CONTROL] = queue->lanes[CFSR_STREAM_CONTROL].tail;
    walk_init(queue, &walk);
    while (bytes < max_bytes && count < iov_max) {
        frame = walk_next(queue, &walk, &stream);
        if (frame == NULL)
            break;
        bytes += append_pieces(frame, skip, max_bytes - bytes, iov, iov_max, &count);
        skip = 0;
    }
    *bytes_out = bytes;
    return count;
}

void cfsr_send_queue_advance(struct cfsr_send_queue *queue, size_t bytes)
{
    const struct cfsr_frame *frame;
    enum cfsr_stream stream;
    struct walk walk;
    size_t done = queue->head_done_bytes;

    walk_init(queue, &walk);
    while (bytes > 0) {
        size_t left;
        frame = walk_next(queue, &walk, &stream);
        CFSR_ASSERT(frame != NULL);
        left = frame_bytes(frame) - done;
        if (bytes < left) {
            queue->head_done_bytes = done + bytes;
            queue->head_stream = stream;
            return;
        }
        bytes -= left;
        done = 0;
        queue->head_done_bytes = 0;
        queue->lanes[stream].sent++;
    }
}

bool cfsr_send_queue_pop_sent(struct cfsr_send_queue *queue, bool all, uint64_t *cookie_out)
{
    static const enum cfsr_stream order[] = {CFSR_STREAM_CONTROL, CFSR_STREAM_DATA};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(order); i++) {
        struct cfsr_send_lane *lane = &queue->lanes[order[i]];
        if (lane->released == (all ? lane->tail : lane->sent))
            continue;
        *cookie_out = lane->frames[lane->released & lane->mask].cookie;
        if (lane->released == lane->sent) {
            lane->sent++; /* given back unsent: the connection is closing */
            queue->head_done_bytes = 0;
        }
        lane->released++;
        return true;
    }
    return false;
}

static bool owes_writable(const struct cfsr_send_lane *lane)
{
    return lane->wants_writable && lane->tail - lane->released <= lane->mask;
}

bool cfsr_send_queue_owes_writable(const struct cfsr_send_queue *queue)
{
    return owes_writable(&queue->lanes[0]) || owes_writable(&queue->lanes[1]);
}

bool cfsr_send_queue_take_writable(struct cfsr_send_queue *queue)
{
    for (unsigned i = 0; i < 2; i++) {
        if (owes_writable(&queue->lanes[i])) {
            queue->lanes[i].wants_writable = false;
            return true;
        }
    }
    return false;
}

uint32_t cfsr_send_queue_unsent(const struct cfsr_send_queue *queue)
{
    return queue->lanes[0].tail - queue->lanes[0].sent + queue->lanes[1].tail -
           queue->lanes[1].sent;
}

uint32_t cfsr_send_queue_unreleased(const struct cfsr_send_queue *queue)
{
    return queue->lanes[0].sent - queue->lanes[0].released + queue->lanes[1].sent -
           queue->lanes[1].released;
}
