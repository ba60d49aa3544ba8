/*
 * stream.c - records for the tools: one reader a lane of the own journal, or the inbox's own
 * reader.
 *
 * Thread: one. The journal side ends, when not following, at what was committed when it was opened:
 * a live producer does not make a dump endless. Following, lanes that have nothing do not hold the
 * others back: a tail shows what there is.
 */
#include "cli/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cfsrepl/inbox.h>
#include <cfsrepl/reader.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/fail.h"

#define FOLLOW_STEP_MS 20

struct lane_reader {
    struct cfsr_reader *reader; /* NULL: this lane is not read */
    uint64_t end_lsn;           /* not following: records at or above are not shown */
    struct cfsr_record_view view;
    bool has_view;
};

struct cfsr_stream {
    struct cfsr_stream_options options;
    struct cfsr_inbox *inbox; /* NULL: the journal */
    struct lane_reader lanes[CFSR_LANES_MAX];
    uint32_t last_lane; /* whose view was returned last */
};

static int open_inbox(struct cfsr_stream *stream)
{
    const struct cfsr_stream_options *options = &stream->options;
    const struct cfsr_inbox_options inbox = {
        .opts_size = sizeof inbox,
        .data_dir = options->site->data_dir,
        .consumer = options->consumer,
        .site_id = options->origin,
        .lane = options->lane,
        .follow = options->follow,
        .all_records = options->all_records,
    };

    return cfsr_inbox_open(&inbox, &stream->inbox);
}

static int open_lanes(struct cfsr_stream *stream)
{
    const struct cfsr_stream_options *options = &stream->options;

    for (uint32_t lane = 0; lane < options->site->lanes; lane++) {
        struct lane_reader *reader = &stream->lanes[lane];
        int rc;

        if (options->lane != CFSR_STREAM_ALL_LANES && options->lane != lane)
            continue;
        rc = cfsr_reader_open(options->site->data_dir, lane, CFSR_READER_OLDEST, &reader->reader);
        if (rc == 0)
            rc = cfsr_reader_committed(reader->reader, &reader->end_lsn);
        if (rc < 0)
            return rc;
        if (options->follow)
            reader->end_lsn = UINT64_MAX;
    }
    return 0;
}

int cfsr_stream_open(const struct cfsr_stream_options *options, struct cfsr_stream **stream_out)
{
    struct cfsr_stream *stream = calloc(1, sizeof *stream);
    bool inbox = options->inbox || options->origin != options->site->site_id;
    int rc;

    if (stream == NULL)
        return -ENOMEM;
    stream->options = *options;
    stream->last_lane = CFSR_STREAM_ALL_LANES;
    rc = inbox ? open_inbox(stream) : open_lanes(stream);
    if (rc < 0) {
        cfsr_stream_close(stream);
        return rc;
    }
    *stream_out = stream;
    return 0;
}

static int next_of_inbox(struct cfsr_stream *stream, uint32_t timeout_ms,
                         struct cfsr_stream_record *record_out)
{
    struct cfsr_inbox_record record;
    int rc = cfsr_inbox_next(stream->inbox, timeout_ms, &record);

    if (rc != 1)
        return rc;
    *record_out = (struct cfsr_stream_record){
        .lane = record.lane,
        .lsn = record.lsn,
        .payload = record.payload,
        .header = {.payload_bytes = record.payload_bytes,
                   .seq = record.seq,
                   .timestamp_us = record.timestamp_us,
                   .inode = record.inode,
                   .site_id = record.site_id,
                   .shard_id = record.shard_id,
                   .op = record.op,
                   .flags = record.flags},
    };
    return 1;
}

/* Makes sure the lane shows its next record, if it has one. */
static int fill_lane(struct cfsr_stream *stream, struct lane_reader *lane)
{
    while (lane->reader != NULL && !lane->has_view) {
        int rc;

        if (cfsr_reader_position(lane->reader) >= lane->end_lsn)
            return 0;
        rc = cfsr_reader_next(lane->reader, &lane->view);
        if (rc <= 0)
            return rc;
        lane->has_view = cfsr_record_is_entry(lane->view.op) || stream->options.all_records;
    }
    return 0;
}

static bool is_before(const struct lane_reader *a, const struct lane_reader *b)
{
    if (a->view.timestamp_us != b->view.timestamp_us)
        return a->view.timestamp_us < b->view.timestamp_us;
    return a->view.lane < b->view.lane;
}

static int next_of_lanes(struct cfsr_stream *stream, struct cfsr_stream_record *record_out)
{
    struct lane_reader *first = NULL;

    if (stream->last_lane != CFSR_STREAM_ALL_LANES)
        stream->lanes[stream->last_lane].has_view = false;
    stream->last_lane = CFSR_STREAM_ALL_LANES;
    for (uint32_t i = 0; i < stream->options.site->lanes; i++) {
        struct lane_reader *lane = &stream->lanes[i];
        int rc = fill_lane(stream, lane);

        if (rc < 0)
            return rc;
        if (lane->has_view && (first == NULL || is_before(lane, first)))
            first = lane;
    }
    if (first == NULL)
        return 0;
    stream->last_lane = first->view.lane;
    *record_out = (struct cfsr_stream_record){
        .lane = first->view.lane,
        .lsn = first->view.lsn,
        .payload = first->view.payload,
        .header = {.payload_bytes = first->view.payload_bytes,
                   .seq = first->view.seq,
                   .timestamp_us = first->view.timestamp_us,
                   .inode = first->view.inode,
                   .site_id = first->view.site_id,
                   .shard_id = first->view.shard_id,
                   .op = first->view.op,
                   .flags = first->view.flags},
    };
    return 1;
}

int cfsr_stream_next(struct cfsr_stream *stream, uint32_t timeout_ms,
                     struct cfsr_stream_record *record_out)
{
    uint64_t begin_ns;

    if (stream->inbox != NULL)
        return next_of_inbox(stream, timeout_ms, record_out);
    begin_ns = cfsr_clock_monotonic_ns();
    for (;;) {
        const struct timespec step = {.tv_nsec = FOLLOW_STEP_MS * 1000000L};
        int rc = next_of_lanes(stream, record_out);

        if (rc != 0 || !stream->options.follow)
            return rc;
        if (cfsr_clock_monotonic_ns() - begin_ns >= timeout_ms * 1000000ull)
            return 0;
        (void)nanosleep(&step,
                        NULL); /* many lanes, one thread: no single reader's wake-up would do */
    }
}

int cfsr_stream_commit(struct cfsr_stream *stream)
{
    return stream->inbox != NULL && stream->options.consumer != NULL
               ? cfsr_inbox_commit(stream->inbox)
               : 0;
}

void cfsr_stream_close(struct cfsr_stream *stream)
{
    if (stream->inbox != NULL)
        cfsr_inbox_close(stream->inbox);
    for (uint32_t i = 0; i < CFSR_LANES_MAX; i++)
        if (stream->lanes[i].reader != NULL)
            cfsr_reader_close(stream->lanes[i].reader);
    free(stream);
}
