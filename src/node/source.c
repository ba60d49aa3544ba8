/*
 * source.c - reading the journal ahead of the encoder.
 *
 * A stream owns two buffers. The consumer walks records in `cur` while `next` is being read; when
 * only the beginning of a record is left in cur, those bytes are copied in front of next's (the
 * headroom), and the buffers swap. So records are always contiguous, each byte is read once, and a
 * small pair of buffers stays in the cache: the copy is half a record in 512 KiB.
 *
 * Thread:     the core. Opening segments is a job of the helper thread.
 * Invariants: cur holds [lsn, …); read_lsn is the end of what was read or is being read; nothing at
 * or above the committed LSN is read. Rejected:   mmap (page faults and SIGBUS on the data path, no
 * seam for the simulator; its gain is lost inside the pipeline), a doubly mapped ring (walks
 * through 2 MiB of cache instead of 1), one large read a turn (falls out of the 1 MiB L2 before LZ4
 * sees it).
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "journal/segment_map.h"

static uint64_t segment_of(const struct node_stream *stream, uint64_t lsn)
{
    return cfsr_segment_first_lsn(stream->core->options.site, lsn);
}

/* A segment that is not there: removed with all below it, or missing in the middle? */
static int judge_missing(const struct node_open_job *open)
{
    struct cfsr_segment_map map;
    int rc = cfsr_segment_map_load(open->core->env.blocking_fs, open->core->options.site,
                                   open->lane, &map);

    if (rc < 0)
        return rc;
    rc = map.count > 0 && map.lsns[0] < open->segment_lsn ? -CFSR_E_DAMAGED
                                                          : -CFSR_E_NEEDS_BOOTSTRAP;
    cfsr_segment_map_fini(&map);
    return rc;
}

static void run_open(struct cfsr_node_job *job)
{
    struct node_open_job *open = CFSR_CONTAINER_OF(job, struct node_open_job, job);
    const struct cfsr_node_options *options = &open->core->options;
    char path[CFSR_PATH_MAX + 64];
    unsigned flags = CFSR_OPEN_READ | (options->journal_direct ? CFSR_OPEN_DIRECT : 0u);

    if (open->stale != NULL)
        cfsr_file_close(open->stale);
    open->stale = NULL;
    cfsr_segment_path(options->site, open->lane, open->segment_lsn, path, sizeof path);
    open->result = cfsr_file_open(open->core->env.blocking_fs, path, flags, &open->file);
    if (open->result == -EINVAL && options->journal_direct) /* this file system has no O_DIRECT */
        open->result = cfsr_file_open(open->core->env.blocking_fs, path, CFSR_OPEN_READ,
                                      &open->file);
    if (open->result == -ENOENT)
        open->result = judge_missing(open);
}

static void done_open(struct cfsr_node_job *job)
{
    struct node_open_job *open = CFSR_CONTAINER_OF(job, struct node_open_job, job);
    struct node_stream *stream = open->stream;

    node_job_finished(open->core, job);
    if (open->result == 0 && open->generation == stream->generation) {
        node_adopt(stream->core, open->file);
        stream->file = open->file;
        stream->file_lsn = open->segment_lsn;
    } else if (open->result == 0) {
        cfsr_file_close(open->file);
    } else if (open->generation == stream->generation) {
        stream->error = open->result;
    }
    open->file = NULL;
}

/* Asks for the segment of read_lsn; the file in hand is closed by the same job. */
static void request_file(struct node_stream *stream)
{
    struct node_open_job *open = &stream->open;

    if (open->job.busy)
        return;
    open->stale = stream->file;
    stream->file = NULL;
    open->segment_lsn = segment_of(stream, stream->read_lsn);
    open->lane = stream->lane;
    open->generation = stream->generation;
    node_submit_job(stream->core, &open->job);
}

static void read_done(struct cfsr_file_op *op)
{
    struct node_buffer *buffer = op->user;
    struct node_stream *stream = buffer->stream;
    uint32_t wanted;

    stream->core->ops_busy--;
    buffer->in_flight = false;
    if (buffer->state != NODE_BUFFER_READING)
        return; /* dropped meanwhile: its bytes were a PAD's filler */
    wanted = buffer->end - buffer->begin;
    if (op->result < 0 || (uint32_t)op->result < buffer->skip + wanted) {
        /* Committed bytes that the file does not hold: the segment is shorter than its journal
         * says. */
        /* So is a sector that cannot be read: written again it may be. */
        stream->error = op->result < 0 && op->result != -EIO ? op->result : -CFSR_E_DAMAGED;
        buffer->state = NODE_BUFFER_EMPTY;
        return;
    }
    buffer->state = NODE_BUFFER_READY;
}

/* Starts reading into an empty buffer, if there is something committed to read and the file is at
 * hand. */
static void start_read(struct node_stream *stream, struct node_buffer *buffer)
{
    struct cfsr_node_core *core = stream->core;
    uint64_t head = core->head_lsn[stream->lane];
    uint64_t segment = segment_of(stream, stream->read_lsn);
    uint64_t len;
    uint32_t align, slack;

    if (stream->read_lsn >= head || buffer->in_flight)
        return;
    if (stream->file == NULL || stream->file_lsn != segment) {
        request_file(stream);
        return;
    }
    len = cfsr_min_u64(head, segment + core->options.site->segment_bytes) - stream->read_lsn;
    len = cfsr_min_u64(len, cfsr_max_u64(CFSR_NODE_READ_BYTES, stream->need_bytes));
    align = cfsr_file_alignment(stream->file);
    uint64_t offset = cfsr_segment_file_offset(core->options.site, stream->read_lsn);
    slack = (uint32_t)(offset - cfsr_align_down(offset, align));

    buffer->skip = slack;
    buffer->begin = CFSR_NODE_READ_HEADROOM_BYTES + slack;
    buffer->end = buffer->begin + (uint32_t)len;
    buffer->lsn = stream->read_lsn;
    buffer->op.file = stream->file;
    buffer->op.type = CFSR_FILE_READ;
    buffer->op.buffer_index = buffer->buffer_index;
    buffer->op.buf = buffer->base + CFSR_NODE_READ_HEADROOM_BYTES;
    buffer->op.len_bytes = (uint32_t)cfsr_align_up(slack + len, align);
    buffer->op.offset_bytes = offset - slack;
    if (cfsr_fs_submit(core->env.fs, &buffer->op) < 0)
        return; /* the ring is full: next turn */
    core->ops_busy++;
    buffer->in_flight = true;
    buffer->state = NODE_BUFFER_READING;
    stream->read_lsn += len;
    cfsr_counter_add(&core->counters.journal_reads, 1);
    cfsr_counter_add(&core->counters.journal_read_bytes, len);
}

static void swap_buffers(struct node_stream *stream)
{
    struct node_buffer *buffer = stream->cur;
    stream->cur = stream->next;
    stream->next = buffer;
}

/* Puts what is left of cur in front of next and makes next the current one. */
static void join_buffers(struct node_stream *stream)
{
    struct node_buffer *cur = stream->cur, *next = stream->next;
    uint32_t left = cur->state == NODE_BUFFER_READY ? cur->end - cur->begin : 0;

    CFSR_ASSERT(left <= next->begin);
    if (left > 0) {
        CFSR_ASSERT(cur->lsn + left == next->lsn);
        memcpy(next->base + next->begin - left, cur->base + cur->begin, left);
        next->begin -= left;
        next->lsn -= left;
    }
    cur->state = NODE_BUFFER_EMPTY;
    swap_buffers(stream);
}

/* The error was told; whoever asks for this position again begins anew, from a fresh open: the disk
 * may have been mended. */
static int give_up(struct node_stream *stream)
{
    stream->assigned = false;
    return stream->error;
}

int node_stream_peek(struct node_stream *stream, uint32_t need_bytes, const uint8_t **data_out,
                     uint32_t *len_out)
{
    /* Whole batches: what is left of one read waits for the next one, if that is on its way. */
    uint32_t want = need_bytes > stream->core->options.batch_bytes
                        ? need_bytes
                        : stream->core->options.batch_bytes;
    struct node_buffer *cur;
    uint32_t have;

    stream->used_at = stream->core->turn;
    if (stream->error != 0)
        return give_up(stream);
    have = stream->cur->state == NODE_BUFFER_READY ? stream->cur->end - stream->cur->begin : 0;
    stream->need_bytes = need_bytes > have ? need_bytes - have : 0;
    if (stream->next->state == NODE_BUFFER_READY && have < want)
        join_buffers(stream);
    else if (stream->next->state == NODE_BUFFER_READING && have < want)
        return -EAGAIN;
    cur = stream->cur;
    /* The first read goes to cur through next: one path for both. */
    if (stream->next->state == NODE_BUFFER_EMPTY)
        start_read(stream, stream->next);
    if (cur->state != NODE_BUFFER_READY || cur->end - cur->begin < need_bytes ||
        cur->begin == cur->end)
        return stream->error != 0 ? give_up(stream) : -EAGAIN;
    *data_out = cur->base + cur->begin;
    *len_out = cur->end - cur->begin;
    return 0;
}

void node_stream_consume(struct node_stream *stream, uint32_t data_bytes, uint64_t next_lsn)
{
    struct node_buffer *cur = stream->cur;

    CFSR_ASSERT(cur->state == NODE_BUFFER_READY && data_bytes <= cur->end - cur->begin);
    stream->retried = false;
    stream->need_bytes = 0;
    cur->begin += data_bytes;
    if (next_lsn == cur->lsn + data_bytes) {
        cur->lsn = next_lsn;
        stream->lsn = next_lsn;
        if (cur->begin == cur->end)
            cur->state = NODE_BUFFER_EMPTY;
        return;
    }
    /* A PAD was taken: its filler is skipped, also where it was read already or lies beyond what
     * was read. */
    CFSR_ASSERT(next_lsn > cur->lsn + data_bytes);
    stream->lsn = next_lsn;
    cur->state = NODE_BUFFER_EMPTY;
    if (stream->next->state != NODE_BUFFER_EMPTY && stream->next->lsn != next_lsn)
        stream->next->state = NODE_BUFFER_EMPTY; /* a read in flight completes into nothing */
    if (stream->next->state == NODE_BUFFER_EMPTY)
        stream->read_lsn = next_lsn;
}

static void aim(struct node_stream *stream, uint32_t lane, uint64_t lsn)
{
    stream->generation++;
    stream->assigned = true;
    stream->lane = lane;
    stream->lsn = lsn;
    stream->read_lsn = lsn;
    stream->error = 0;
    stream->need_bytes = 0;
    stream->retried = false;
    stream->cur->state = NODE_BUFFER_EMPTY;
    stream->next->state = NODE_BUFFER_EMPTY;
    stream->file_lsn = CFSR_LSN_UNKNOWN; /* a file of another lane is closed by the next open job */
}

/* A buffer whose op is still with the backend cannot be given another. */
static bool has_op_in_flight(const struct node_stream *stream)
{
    return stream->buffer[0].in_flight || stream->buffer[1].in_flight || stream->open.job.busy;
}

struct node_stream *node_stream_at(struct cfsr_node_core *core, uint32_t lane, uint64_t lsn)
{
    struct node_stream *oldest = NULL;
    bool ages = false;

    for (uint32_t i = 0; i < core->stream_count; i++) {
        struct node_stream *stream = &core->streams[i];
        if (stream->assigned && stream->lane == lane && stream->lsn == lsn)
            return stream;
        /* Not one used this turn or the last: two lagging peers must not steal from each other for
         * ever. */
        if (has_op_in_flight(stream))
            continue; /* its completion brings the next turn */
        if (stream->assigned && stream->used_at + 1 >= core->turn) {
            ages = true;
            continue;
        }
        if (oldest == NULL || !stream->assigned ||
            (oldest->assigned && stream->used_at < oldest->used_at))
            oldest = stream;
    }
    if (oldest == NULL) {
        cfsr_counter_add(&core->counters.stall_no_stream, 1);
        core->turn_again = core->turn_again || ages; /* one ages out within two turns */
        return NULL;
    }
    aim(oldest, lane, lsn);
    return oldest;
}

int node_stream_bad_bytes(struct node_stream *stream)
{
    uint64_t lsn = stream->lsn;
    if (stream->retried) {
        stream->error = -CFSR_E_DAMAGED;
        return give_up(stream);
    }
    if (has_op_in_flight(stream))
        return -EAGAIN;
    /* The segment may have been recycled under the open file: a fresh open tells "gone" from
     * damage. */
    aim(stream, stream->lane, lsn);
    stream->retried = true;
    return -EAGAIN;
}

int node_streams_create(struct cfsr_node_core *core)
{
    uint32_t owned = (uint32_t)__builtin_popcountll(core->lane_mask);
    uint32_t count = core->options.read_buffers / 2;

    /* A stream for each lane at the head, and one more for a peer that lags. */
    if (count < owned + 1)
        count = owned + 1;
    core->streams = calloc(count, sizeof *core->streams);
    if (core->streams == NULL)
        return -ENOMEM;
    core->stream_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct node_stream *stream = &core->streams[i];
        stream->core = core;
        stream->cur = &stream->buffer[0];
        stream->next = &stream->buffer[1];
        stream->file_lsn = CFSR_LSN_UNKNOWN;
        stream->open.core = core;
        stream->open.stream = stream;
        stream->open.job.run = run_open;
        stream->open.job.done = done_open;
        for (unsigned b = 0; b < 2; b++) {
            struct node_buffer *buffer = &stream->buffer[b];
            buffer->stream = stream;
            buffer->op.user = buffer;
            buffer->op.done = read_done;
            buffer->base = core->env.take_memory(core->env.user, CFSR_NODE_READ_BUFFER_BYTES,
                                                 &buffer->buffer_index);
            if (buffer->base == NULL)
                return -ENOMEM;
        }
    }
    return 0;
}

void node_streams_destroy(struct cfsr_node_core *core)
{
    for (uint32_t i = 0; i < core->stream_count; i++)
        if (core->streams[i].file != NULL)
            cfsr_file_close(core->streams[i].file);
    free(core->streams);
    core->streams = NULL;
    core->stream_count = 0;
}
