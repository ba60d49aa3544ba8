/*
 * encode.c - batches encoded once and shared by every peer of the encode class.
 *
 * The batch slots are a cache keyed by (lane, first LSN). Links in step find the batch that another
 * link's turn has made; a link that lags makes its own from the disk, cut where a cached one
 * begins, so that it falls into step again. A slot is free again when no transport holds a frame of
 * it; the least recently used one is re-used first.
 *
 * Records are walked, not checked, before they are compressed: every receiver checks each CRC
 * (seeded with journal and LSN, so a recycled segment shows too) before it stores a byte, and
 * checking twice costs 7 % of this core. Once a peer has found bytes of a lane wrong, that lane's
 * records are checked here as well, which tells damage (the link is FAULTED with its place) from a
 * segment that was recycled (GONE).
 *
 * Thread:     the core.
 * Invariants: a slot with refs > 0 is never re-used; a batch holds whole records of one segment.
 * Rejected:   a sent-batch ring per lane (a lagging peer would hold memory), encoding per link (N
 *             peers cost N compressions).
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"

int node_batches_create(struct cfsr_node_core *core)
{
    core->batch_count = core->options.batch_slots;
    core->batches = calloc(core->batch_count, sizeof *core->batches);
    if (core->batches == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < core->batch_count; i++) {
        struct node_batch *batch = &core->batches[i];
        batch->body = core->env.take_memory(core->env.user, CFSR_NODE_BATCH_SLOT_BYTES,
                                            &batch->buffer_index);
        if (batch->body == NULL)
            return -ENOMEM;
    }
    return 0;
}

void node_batches_destroy(struct cfsr_node_core *core)
{
    for (uint32_t i = 0; i < core->batch_count; i++)
        CFSR_ASSERT(core->batches[i].refs == 0);
    free(core->batches);
    core->batches = NULL;
    core->batch_count = 0;
}

/* Finds the batch, the slot to make it in, and where the next cached batch of the lane begins. */
static struct node_batch *look_up(struct cfsr_node_core *core, uint32_t lane, uint64_t from,
                                  struct node_batch **free_out, uint64_t *next_cached_out)
{
    struct node_batch *victim = NULL;

    *next_cached_out = UINT64_MAX;
    for (uint32_t i = 0; i < core->batch_count; i++) {
        struct node_batch *batch = &core->batches[i];
        if (batch->ready && batch->lane == lane) {
            if (batch->header.lsn_from == from)
                return batch;
            if (batch->header.lsn_from > from && batch->header.lsn_from < *next_cached_out)
                *next_cached_out = batch->header.lsn_from;
        }
        if (batch->refs > 0)
            continue;
        if (victim == NULL || !batch->ready || (victim->ready && batch->used_at < victim->used_at))
            victim = batch;
    }
    *free_out = victim;
    return NULL;
}

static void fill_header(struct cfsr_node_core *core, const struct cfsr_scan *scan, uint64_t from,
                        struct cfsr_batch_header *header)
{
    const struct cfsr_site *site = core->options.site;

    *header = (struct cfsr_batch_header){
        .lane = (uint16_t)scan->lane,
        .encode_class = core->encode_class,
        .site_id = site->site_id,
        .journal = site->journal,
        .epoch = core->local.epoch,
        .lsn_from = from,
        .lsn_to = scan->next_lsn,
        .entry_count = scan->entry_count,
        .prepared_at_us = core->wall_us,
    };
}

/* Checks records at the stream's position up to one batch. 0; -EAGAIN; or an error of the journal.
 */
static int scan_batch(struct cfsr_node_core *core, struct node_stream *stream, uint64_t limit_lsn,
                      struct cfsr_scan *scan)
{
    const struct cfsr_site *site = core->options.site;
    uint32_t need = 0;
    int rc;

    for (int attempt = 0; attempt < 2; attempt++) {
        const uint8_t *data;
        uint32_t len;
        rc = node_stream_peek(stream, need, &data, &len);
        if (rc < 0)
            return rc;
        if (limit_lsn != UINT64_MAX)
            len = (uint32_t)cfsr_min_u64(len, limit_lsn - stream->lsn);
        *scan = (struct cfsr_scan){
            .data = data,
            .len_bytes = len,
            .lsn = stream->lsn,
            .segment_bytes = site->segment_bytes,
            .seed = core->record_seed,
            .site_id = site->site_id,
            .lane = stream->lane,
            .lanes = site->lanes,
            .shards = site->shards,
            .max_raw_bytes = core->options.batch_bytes,
            .max_entries = core->options.batch_entries,
            .trust_crc = (core->doubted_mask >> stream->lane & 1) == 0,
        };
        rc = cfsr_record_scan(scan);
        if (rc < 0 && scan->record_count == 0)
            return node_stream_bad_bytes(stream);
        if (scan->record_count > 0)
            return 0; /* the good records before a bad one go out; it is met again at the front */
        CFSR_ASSERT(scan->end == CFSR_SCAN_NEED_MORE && scan->need_bytes > len);
        need = scan->need_bytes;
    }
    return -EAGAIN;
}

static int encode(struct cfsr_node_core *core, uint32_t lane, uint64_t from, uint64_t limit_lsn,
                  struct node_batch *batch)
{
    struct cfsr_scan scan;
    uint64_t began = node_clock(core), scanned;
    struct node_stream *stream = node_stream_at(core, lane, from);
    int rc;

    if (stream == NULL)
        return -EAGAIN;
    rc = scan_batch(core, stream, limit_lsn, &scan);
    if (rc < 0)
        return rc;
    CFSR_ASSERT(scan.next_lsn > from && scan.raw_bytes <= CFSR_CODEC_INPUT_MAX_BYTES);
    scanned = node_clock(core);
    batch->ready = false;
    batch->lane = lane;
    fill_header(core, &scan, from, &batch->header);
    rc = cfsr_batch_encode(core->codec, scan.data, scan.raw_bytes, batch->body,
                           CFSR_NODE_BATCH_SLOT_BYTES, &batch->header);
    if (rc < 0)
        return rc;
    node_stream_consume(stream, scan.raw_bytes, scan.next_lsn);
    batch->ready = true;
    core->encodes_left--;
    cfsr_histogram_record(&core->stages.scan, scanned - began);
    cfsr_histogram_record(&core->stages.encode, node_clock(core) - scanned);
    cfsr_counter_add(&core->counters.batches_encoded, 1);
    cfsr_counter_add(&core->counters.entries_tailed, scan.entry_count);
    cfsr_counter_add(&core->counters.raw_bytes_encoded, scan.raw_bytes);
    cfsr_counter_add(&core->counters.stored_bytes_encoded, batch->header.stored_bytes);
    return 0;
}

void node_batches_doubt(struct cfsr_node_core *core, uint64_t lane_mask)
{
    core->doubted_mask |= lane_mask;
    for (uint32_t i = 0; i < core->batch_count; i++)
        if (lane_mask >> core->batches[i].lane & 1)
            core->batches[i].ready = false; /* encoded again, checked this time */
}

int node_batch_get(struct cfsr_node_core *core, uint32_t lane, uint64_t from,
                   struct node_batch **batch_out)
{
    struct node_batch *victim = NULL;
    uint64_t next_cached;
    struct node_batch *batch = look_up(core, lane, from, &victim, &next_cached);
    int rc;

    if (batch != NULL) {
        cfsr_counter_add(&core->counters.batches_shared, 1);
    } else {
        if (core->encodes_left == 0)
            return -EAGAIN;
        if (victim == NULL) {
            cfsr_counter_add(&core->counters.stall_no_batch_slot, 1);
            return -EAGAIN;
        }
        rc = encode(core, lane, from, next_cached, victim);
        if (rc < 0)
            return rc;
        batch = victim;
    }
    batch->used_at = core->turn;
    batch->refs++;
    *batch_out = batch;
    return 0;
}

void node_batch_release(struct node_batch *batch)
{
    CFSR_ASSERT(batch->refs > 0);
    batch->refs--;
}
