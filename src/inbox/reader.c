/*
 * reader.c - records of the inbox in apply order: streams of lanes merged, positions of consumers.
 *
 * Thread:     the caller's; one reader, one thread.
 * Invariants: within an origin's lane the order is the origin's. The merge takes the smallest
 * (timestamp, site, lane, LSN) of the streams' heads; a stream without a head holds back what lies
 * above its watermark. What was returned is delivered: commit makes exactly that durable. Rejected:
 * sorting within a window of time (a slow lane of a busy site would still come out of order);
 *             holding back for a silent lane without limit when following (a site that is down
 * would stop the stream).
 */
#include "inbox/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"

#define MERGE_WAIT_MS_DEFAULT 200
#define POLL_NS               1000000u /* between two looks at a lane that had nothing new */
/* Following, a lane that says nothing is looked at for damage after so long, then twice as long, …
 */
#define JUDGE_MIN_NS 1000000000ull
#define JUDGE_MAX_NS 64000000000ull

struct lane_stream {
    struct cfsr_inbox_stream stream;
    uint64_t silent_since_ns; /* nothing new since */
    uint64_t polled_ns;
    uint64_t judge_at_ns, judge_wait_ns; /* following: the next look for damage; 0: not silent */
    bool ended;                          /* not following: read to the end */
};

struct cfsr_inbox {
    struct cfsr_fs *fs;
    struct cfsr_site site;
    struct cfsr_consumer *consumer;        /* NULL: none */
    struct cfsr_inbox_position *delivered; /* lanes; of what was returned */
    struct cfsr_inbox_decoder decoder;
    bool follow;
    uint64_t merge_wait_ns;
    uint64_t (*origins)[CFSR_INBOX_ORIGINS_MAX]; /* lanes: origins with their own streams */
    uint32_t streams, stream_capacity;
    struct lane_stream *stream;
    uint32_t batch_stream; /* next_batch: the lane at hand */
};

static int add_stream(struct cfsr_inbox *inbox, const struct cfsr_inbox_options *options,
                      uint32_t lane, uint64_t site_id, uint32_t others)
{
    struct lane_stream *grown, *added;

    if (inbox->streams == inbox->stream_capacity) {
        uint32_t capacity = inbox->stream_capacity == 0 ? 8 : inbox->stream_capacity * 2;

        grown = realloc(inbox->stream, capacity * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        inbox->stream = grown;
        inbox->stream_capacity = capacity;
    }
    added = &inbox->stream[inbox->streams++];
    memset(added, 0, sizeof *added);
    added->stream.fs = inbox->fs;
    added->stream.site = &inbox->site;
    added->stream.decoder = &inbox->decoder;
    added->stream.delivered = &inbox->delivered[lane];
    added->stream.lane = lane;
    added->stream.site_id = site_id;
    added->stream.others = inbox->origins[lane];
    added->stream.other_count = others;
    added->stream.all_records = options->all_records;
    added->silent_since_ns = cfsr_clock_monotonic_ns();
    return 0;
}

static uint32_t note_origin(uint64_t *origins, uint32_t count, uint64_t site_id)
{
    uint32_t i;

    for (i = 0; i < count; i++) {
        if (origins[i] == site_id)
            return count;
    }
    if (count < CFSR_INBOX_ORIGINS_MAX)
        origins[count++] = site_id;
    return count;
}

static void note_item(struct cfsr_inbox *inbox, uint32_t lane, const struct cfsr_inbox_item *item,
                      uint32_t *count)
{
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_batch_header header;
    uint32_t i, cursors;

    if ((item->local.kind == CFSR_INBOX_BATCH || item->local.kind == CFSR_INBOX_REPAIR) &&
        cfsr_inbox_item_header(item, &header) == 0)
        *count = note_origin(inbox->origins[lane], *count, header.site_id);
    if (item->local.kind != CFSR_INBOX_CURSORS ||
        cfsr_inbox_cursors_load(item->record + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                item->local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                &cursors) < 0)
        return;
    for (i = 0; i < cursors; i++)
        *count = note_origin(inbox->origins[lane], *count, cursor[i].site_id);
}

/* Origins of one segment's records, by their headers, past damaged places. 1: it has CURSORS at its
 * beginning, which name those of all earlier segments; 0; -errno. */
static int segment_origins(struct cfsr_inbox *inbox, uint32_t lane, uint64_t sequence,
                           uint32_t *count)
{
    struct cfsr_inbox_survey survey = {.place = 1};
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    bool begun = false;
    int rc;

    rc = cfsr_inbox_scan_open(inbox->fs, &inbox->site, lane, sequence, false, &scan);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    while (rc == 0 && survey.place != 0) {
        while ((rc = cfsr_inbox_scan_next(&scan, false, &item)) == 1) {
            begun = begun || item.body_offset == 0;
            note_item(inbox, lane, &item, count);
        }
        if (rc == 0)
            rc = cfsr_inbox_scan_survey(&scan, &survey);
        if (rc == 0 && survey.place != 0)
            cfsr_inbox_scan_jump(&scan, survey.place, survey.arrival);
    }
    cfsr_inbox_scan_close(&scan);
    return rc < 0 ? rc : begun;
}

/* Origins the lane has records of: the last sound CURSORS of a segment name those of the earlier
 * ones. */
static int lane_origins(struct cfsr_inbox *inbox, uint32_t lane, uint32_t *count_out)
{
    struct cfsr_inbox_range_of_segments range;
    uint64_t sequence;
    int rc;

    *count_out = 0;
    rc = cfsr_inbox_list_segments(inbox->fs, &inbox->site, lane, &range);
    for (sequence = range.last; rc == 0 && sequence >= range.first && sequence > 0; sequence--)
        rc = segment_origins(inbox, lane, sequence, count_out);
    return rc < 0 ? rc : 0;
}

static int add_lane(struct cfsr_inbox *inbox, const struct cfsr_inbox_options *options,
                    uint32_t lane)
{
    uint32_t i, count;
    int rc;

    if (options->site_id != 0)
        return add_stream(inbox, options, lane, options->site_id, 0);
    if (options->lane != CFSR_INBOX_ALL_LANES) /* one lane alone: order of arrival */
        return add_stream(inbox, options, lane, 0, 0);
    rc = lane_origins(inbox, lane, &count);
    if (rc < 0)
        return rc;
    if (count <= 1) /* the usual case reads the lane once */
        return add_stream(inbox, options, lane, 0, 0);
    for (i = 0; rc == 0 && i < count; i++)
        rc = add_stream(inbox, options, lane, inbox->origins[lane][i], 0);
    if (rc == 0 && inbox->follow) /* origins that appear later */
        rc = add_stream(inbox, options, lane, 0, count);
    return rc;
}

static int open_consumer(struct cfsr_inbox *inbox, const struct cfsr_inbox_options *options)
{
    struct cfsr_consumer *consumer;
    int rc;

    rc = cfsr_consumer_open(inbox->fs, &inbox->site, options->consumer, true, true,
                            &inbox->consumer);
    if (rc < 0)
        return rc;
    consumer = inbox->consumer;
    if (consumer->generation == 0) {
        consumer->site_id = options->site_id;
        consumer->ttl_ms = options->ttl_ms;
        if (options->owner != NULL)
            memccpy(consumer->owner, options->owner, 0, sizeof consumer->owner - 1);
        /* Both slots: from here on there is always a sound one beside the one being written. */
        for (int slot = 0; rc == 0 && slot < 2; slot++)
            rc = cfsr_consumer_store(consumer, &inbox->site, cfsr_clock_wall_us());
    } else if (consumer->site_id != options->site_id) {
        rc = cfsr_fail(-CFSR_E_CONFIG,
                       "consumer %s was registered for site %llu (0: all), not %llu",
                       consumer->name, (unsigned long long)consumer->site_id,
                       (unsigned long long)options->site_id);
    }
    if (rc == 0)
        memcpy(inbox->delivered, consumer->position,
               inbox->site.lanes * sizeof inbox->delivered[0]);
    return rc;
}

static int open_streams(struct cfsr_inbox *inbox, const struct cfsr_inbox_options *options)
{
    uint32_t lane, i;
    int rc = 0;

    for (lane = 0; rc == 0 && lane < inbox->site.lanes; lane++) {
        if (options->lane == CFSR_INBOX_ALL_LANES || options->lane == lane)
            rc = add_lane(inbox, options, lane);
    }
    for (i = 0; rc == 0 && i < inbox->streams; i++)
        rc = cfsr_inbox_stream_start(&inbox->stream[i].stream);
    return rc;
}

int cfsr_inbox_open_at(struct cfsr_fs *fs, const struct cfsr_site *site,
                       const struct cfsr_inbox_options *options, struct cfsr_inbox **inbox_out)
{
    struct cfsr_inbox *inbox;
    int rc;

    CFSR_ASSERT(options->opts_size == sizeof *options);
    if (options->lane != CFSR_INBOX_ALL_LANES && options->lane >= site->lanes)
        return cfsr_fail(-CFSR_E_CONFIG, "lane %u does not exist: this site has lanes 0 to %u",
                         options->lane, site->lanes - 1);
    inbox = calloc(1, sizeof *inbox);
    if (inbox == NULL)
        return -ENOMEM;
    inbox->fs = fs;
    inbox->site = *site;
    inbox->follow = options->follow;
    inbox->merge_wait_ns = (options->merge_wait_ms == 0 ? MERGE_WAIT_MS_DEFAULT
                                                        : options->merge_wait_ms) *
                           1000000ull;
    inbox->delivered = calloc(site->lanes, sizeof *inbox->delivered);
    inbox->origins = calloc(site->lanes, sizeof *inbox->origins);
    rc = inbox->delivered == NULL || inbox->origins == NULL ? -ENOMEM : 0;
    if (rc == 0)
        rc = cfsr_inbox_decoder_init(&inbox->decoder);
    if (rc == 0 && options->consumer != NULL)
        rc = open_consumer(inbox, options);
    if (rc == 0)
        rc = open_streams(inbox, options);
    if (rc < 0) {
        cfsr_inbox_close(inbox);
        return rc;
    }
    *inbox_out = inbox;
    return 0;
}

int cfsr_inbox_open(const struct cfsr_inbox_options *options, struct cfsr_inbox **inbox_out)
{
    struct cfsr_site site;
    int rc;

    rc = cfsr_site_load(cfsr_fs_blocking(), options->data_dir, &site);
    if (rc < 0)
        return rc;
    return cfsr_inbox_open_at(cfsr_fs_blocking(), &site, options, inbox_out);
}

void cfsr_inbox_close(struct cfsr_inbox *inbox)
{
    uint32_t i;

    if (inbox == NULL)
        return;
    for (i = 0; i < inbox->streams; i++)
        cfsr_inbox_stream_close(&inbox->stream[i].stream);
    cfsr_consumer_close(inbox->consumer);
    cfsr_inbox_decoder_fini(&inbox->decoder);
    free(inbox->stream);
    free(inbox->origins);
    free(inbox->delivered);
    free(inbox);
}

/* A silent lane may be damaged where it seems to end; the answer costs reading a segment's rest. */
static bool wants_judging(struct cfsr_inbox *inbox, struct lane_stream *lane, uint64_t now_ns)
{
    if (!inbox->follow)
        return true;
    if (lane->judge_wait_ns == 0) {
        lane->judge_wait_ns = JUDGE_MIN_NS;
        lane->judge_at_ns = now_ns + JUDGE_MIN_NS;
    }
    if (now_ns < lane->judge_at_ns)
        return false;
    lane->judge_wait_ns = cfsr_min_u64(2 * lane->judge_wait_ns, JUDGE_MAX_NS);
    lane->judge_at_ns = now_ns + lane->judge_wait_ns;
    return true;
}

/* Looks for a head where there is none. */
static int fill_stream(struct cfsr_inbox *inbox, struct lane_stream *lane)
{
    uint64_t now_ns;
    bool judge;
    int rc;

    if (lane->stream.has_head || lane->ended)
        return 0;
    now_ns = 0;
    if (!lane->stream.has_batch && inbox->follow) {
        now_ns = cfsr_clock_monotonic_ns();
        if (now_ns - lane->polled_ns < POLL_NS)
            return 0;
    }
    judge = wants_judging(inbox, lane, now_ns);
    rc = cfsr_inbox_stream_fill(&lane->stream, judge);
    if (rc == 0 && !inbox->follow) {
        lane->ended = true;
    } else if (rc == 0) {
        lane->polled_ns = now_ns;
    } else if (rc == 1) {
        lane->polled_ns = 0;
        lane->silent_since_ns = 0;
        lane->judge_wait_ns = 0;
    }
    return rc < 0 ? rc : 0;
}

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* Order of two heads. */
static int compare_heads(const struct cfsr_inbox_stream *a, const struct cfsr_inbox_stream *b)
{
    int order = compare_u64(a->head.header.timestamp_us, b->head.header.timestamp_us);

    if (order == 0)
        order = compare_u64(a->walk.header.site_id, b->walk.header.site_id);
    if (order == 0)
        order = compare_u64(a->lane, b->lane);
    return order != 0 ? order : compare_u64(a->head.lsn, b->head.lsn);
}

/* A lane without a head could still bring something that belongs before the best one. */
static bool holds_back(const struct cfsr_inbox *inbox, struct lane_stream *lane,
                       const struct cfsr_inbox_stream *best)
{
    uint64_t now_ns;

    if (lane->stream.has_head || lane->ended ||
        lane->stream.watermark_us > best->head.header.timestamp_us)
        return false;
    now_ns = cfsr_clock_monotonic_ns();
    if (lane->silent_since_ns == 0)
        lane->silent_since_ns = now_ns;
    return now_ns - lane->silent_since_ns < inbox->merge_wait_ns;
}

static int pick(struct cfsr_inbox *inbox, struct cfsr_inbox_stream **best_out)
{
    struct cfsr_inbox_stream *best = NULL;
    uint32_t i;
    int rc;

    for (i = 0; i < inbox->streams; i++) {
        struct lane_stream *lane = &inbox->stream[i];

        rc = fill_stream(inbox, lane);
        if (rc < 0)
            return rc;
        if (lane->stream.has_head && (best == NULL || compare_heads(&lane->stream, best) < 0))
            best = &lane->stream;
    }
    for (i = 0; best != NULL && i < inbox->streams; i++) {
        if (holds_back(inbox, &inbox->stream[i], best))
            return 0;
    }
    *best_out = best;
    return best != NULL;
}

static void fill_record(const struct cfsr_inbox_stream *stream,
                        struct cfsr_inbox_record *record_out)
{
    const struct cfsr_inbox_entry *head = &stream->head;
    bool pad = head->header.op == CFSR_RECORD_PAD;

    *record_out = (struct cfsr_inbox_record){
        .site_id = head->header.site_id,
        .lane = stream->lane,
        .lsn = head->lsn,
        .end_lsn = head->end_lsn,
        .seq = head->header.seq,
        .timestamp_us = head->header.timestamp_us,
        .inode = head->header.inode,
        .shard_id = head->header.shard_id,
        .op = head->header.op,
        .flags = head->header.flags,
        .payload = head->record + CFSR_RECORD_HEADER_BYTES,
        .payload_bytes = pad ? 0 : head->header.payload_bytes,
        .raw = head->record,
        .raw_bytes = head->wire_bytes,
        .arrival = stream->batch.local.arrival,
        .arrived_at_us = stream->batch.local.arrived_at_us,
    };
    memcpy(record_out->journal, stream->walk.header.journal.bytes, sizeof record_out->journal);
}

int cfsr_inbox_next(struct cfsr_inbox *inbox, uint32_t timeout_ms,
                    struct cfsr_inbox_record *record_out)
{
    uint64_t deadline_ns = 0;

    for (;;) {
        struct cfsr_inbox_stream *best = NULL;
        struct timespec pause = {.tv_nsec = POLL_NS};
        uint64_t now_ns;
        int rc;

        rc = pick(inbox, &best);
        if (rc == 1) {
            fill_record(best, record_out);
            cfsr_inbox_stream_deliver(best);
            return 1;
        }
        if (rc < 0 || !inbox->follow)
            return rc;
        now_ns = cfsr_clock_monotonic_ns();
        if (deadline_ns == 0)
            deadline_ns = now_ns + timeout_ms * 1000000ull;
        if (now_ns >= deadline_ns)
            return 0;
        nanosleep(&pause, NULL);
    }
}

static void fill_batch(const struct cfsr_inbox_stream *stream, const struct cfsr_inbox_item *item,
                       const struct cfsr_batch_header *header, struct cfsr_inbox_batch *batch_out)
{
    *batch_out = (struct cfsr_inbox_batch){
        .lane = stream->lane,
        .sequence = item->local.sequence,
        .body_offset = item->body_offset,
        .arrival = item->local.arrival,
        .arrived_at_us = item->local.arrived_at_us,
        .site_id = header->site_id,
        .incarnation = header->incarnation,
        .lsn_from = header->lsn_from,
        .lsn_to = header->lsn_to,
        .epoch = header->epoch,
        .prepared_at_us = header->prepared_at_us,
        .entries = header->entry_count,
        .new_entries = item->local.entries,
        .original_bytes = header->original_bytes,
        .stored_bytes = header->stored_bytes,
        .key_id = header->key_id,
        .flags = header->flags,
        .holes = header->hole_count,
        .codec = header->codec,
        .level = header->level,
    };
    memcpy(batch_out->journal, header->journal.bytes, sizeof batch_out->journal);
}

/* Next batch of a lane without its body: 1, 0 at the end, -errno. Damaged places are passed: what
 * they held is listed with the REPAIR records. */
static int next_header(struct cfsr_inbox_stream *stream, struct cfsr_inbox_item *item_out,
                       struct cfsr_batch_header *header_out)
{
    struct cfsr_inbox_damage damage;
    int rc;

    while ((rc = cfsr_inbox_log_step(&stream->log, false, item_out, &damage)) > 0) {
        if (rc == CFSR_INBOX_LOG_DAMAGE ||
            (item_out->local.kind != CFSR_INBOX_BATCH && item_out->local.kind != CFSR_INBOX_REPAIR))
            continue;
        rc = cfsr_inbox_item_header(item_out, header_out);
        if (rc < 0)
            return rc;
        if (stream->site_id == 0 || stream->site_id == header_out->site_id)
            return 1;
    }
    return rc;
}

int cfsr_inbox_next_batch(struct cfsr_inbox *inbox, struct cfsr_inbox_batch *batch_out)
{
    for (; inbox->batch_stream < inbox->streams; inbox->batch_stream++) {
        struct cfsr_inbox_stream *stream = &inbox->stream[inbox->batch_stream].stream;
        struct cfsr_batch_header header;
        struct cfsr_inbox_item item;
        int rc;

        rc = next_header(stream, &item, &header);
        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        fill_batch(stream, &item, &header, batch_out);
        return 1;
    }
    return 0;
}

/* The lowest place the lane's streams still need. */
static void note_position(const struct cfsr_inbox_stream *stream,
                          struct cfsr_inbox_position *position)
{
    uint64_t sequence, body_offset, arrival;

    cfsr_inbox_stream_place(stream, &sequence, &body_offset, &arrival);
    if (sequence == 0)
        return;
    if (position->sequence != 0 &&
        (position->sequence < sequence ||
         (position->sequence == sequence && position->body_offset <= body_offset)))
        return;
    position->sequence = sequence;
    position->body_offset = body_offset;
    position->arrival = arrival;
}

int cfsr_inbox_commit(struct cfsr_inbox *inbox)
{
    uint32_t i, lane;

    if (inbox->consumer == NULL)
        return cfsr_fail(-EINVAL,
                         "this reader has no consumer name, so it has no position to commit");
    for (i = 0; i < inbox->streams; i++)
        inbox->delivered[inbox->stream[i].stream.lane].sequence = 0;
    for (i = 0; i < inbox->streams; i++)
        note_position(&inbox->stream[i].stream, &inbox->delivered[inbox->stream[i].stream.lane]);
    for (lane = 0; lane < inbox->site.lanes; lane++)
        inbox->consumer->position[lane] = inbox->delivered[lane];
    return cfsr_consumer_store(inbox->consumer, &inbox->site, cfsr_clock_wall_us());
}

struct info_visit {
    const struct cfsr_site *site;
    int (*visit)(void *user, const struct cfsr_consumer_info *info);
    void *user;
};

static int visit_consumer(void *user, const char *name)
{
    const struct info_visit *visit = user;
    uint64_t sequence[CFSR_LANES_MAX];
    struct cfsr_consumer *consumer;
    struct cfsr_consumer_info info;
    uint32_t lane;
    int rc;

    rc = cfsr_consumer_open(cfsr_fs_blocking(), visit->site, name, false, false, &consumer);
    if (rc < 0)
        return rc;
    for (lane = 0; lane < consumer->lanes; lane++)
        sequence[lane] = consumer->position[lane].sequence;
    info = (struct cfsr_consumer_info){
        .name = consumer->name,
        .owner = consumer->owner,
        .ttl_ms = consumer->ttl_ms,
        .site_id = consumer->site_id,
        .committed_at_us = consumer->committed_at_us,
        .expired = cfsr_consumer_is_expired(consumer, cfsr_clock_wall_us()),
        .lanes = consumer->lanes,
        .sequence = sequence,
    };
    rc = visit->visit(visit->user, &info);
    cfsr_consumer_close(consumer);
    return rc;
}

int cfsr_inbox_consumers(const char *data_dir,
                         int (*visit)(void *user, const struct cfsr_consumer_info *info),
                         void *user)
{
    struct info_visit info = {.visit = visit, .user = user};
    struct cfsr_site site;
    int rc;

    rc = cfsr_site_load(cfsr_fs_blocking(), data_dir, &site);
    if (rc < 0)
        return rc;
    info.site = &site;
    return cfsr_consumer_list(cfsr_fs_blocking(), &site, visit_consumer, &info);
}

int cfsr_inbox_remove_consumer(const char *data_dir, const char *name)
{
    struct cfsr_site site;
    int rc;

    rc = cfsr_site_load(cfsr_fs_blocking(), data_dir, &site);
    if (rc < 0)
        return rc;
    return cfsr_consumer_remove(cfsr_fs_blocking(), &site, name);
}
