/* support.c - see support.h. Failures abort the test: a lane half made proves nothing. */
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

uint64_t test_random_next(struct test_random *random)
{
    uint64_t z = (random->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t test_random_below(struct test_random *random, uint64_t limit)
{
    return test_random_next(random) % limit;
}

void test_site_init(struct cfsr_site *site, const char *data_dir, uint32_t lanes)
{
    memset(site, 0, sizeof *site);
    memset(site->cluster.bytes, 0xc1, 16);
    memset(site->journal.bytes, 0xd2, 16);
    site->site_id = 2;
    site->lanes = lanes;
    site->shards = 64;
    site->segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    snprintf(site->shard_function, sizeof site->shard_function, "parent-or-inode-mod");
    snprintf(site->name, sizeof site->name, "test");
    snprintf(site->data_dir, sizeof site->data_dir, "%s", data_dir);
}

void test_origin_init(struct test_origin *origin, struct cfsr_site *site, uint64_t site_id,
                      uint8_t journal, uint32_t lane)
{
    struct cfsr_codec_config config;

    memset(origin, 0, sizeof *origin);
    origin->site = site;
    origin->site_id = site_id;
    origin->lane = lane;
    origin->step_us = 1;
    memset(origin->journal.bytes, journal, 16);
    cfsr_codec_config_default(&config);
    cr_assert_eq(cfsr_batch_codec_create(&config, &origin->codec), 0);
    origin->raw = malloc(CFSR_CODEC_INPUT_MAX_BYTES);
    cr_assert_not_null(origin->raw);
}

void test_origin_fini(struct test_origin *origin)
{
    cfsr_batch_codec_destroy(origin->codec);
    free(origin->raw);
}

void test_origin_seek(struct test_origin *origin, uint64_t lsn, uint64_t seq, uint64_t timestamp_us)
{
    origin->lsn = lsn;
    origin->seq = seq;
    origin->timestamp_us = timestamp_us;
}

static uint32_t make_record(struct test_origin *origin, uint8_t *record, uint32_t total_bytes,
                            bool *end_out)
{
    uint64_t left = origin->site->segment_bytes - origin->lsn % origin->site->segment_bytes;
    struct cfsr_record_header header = {
        .timestamp_us = origin->timestamp_us, .site_id = origin->site_id, .shard_id = origin->lane};
    struct test_random noise = {.state = origin->lsn};
    uint32_t i, wire;

    if (left < total_bytes) {
        header.op = CFSR_RECORD_PAD;
        header.payload_bytes = (uint32_t)(left - CFSR_RECORD_HEADER_BYTES);
        wire = CFSR_RECORD_HEADER_BYTES;
    } else {
        header.op = 3;
        header.seq = ++origin->seq;
        header.inode = origin->lsn;
        header.timestamp_us = origin->timestamp_us += origin->step_us;
        header.payload_bytes = total_bytes - CFSR_RECORD_HEADER_BYTES;
        wire = total_bytes;
        for (i = CFSR_RECORD_HEADER_BYTES; i < total_bytes; i += 8)
            cfsr_store_le64(record + i, test_random_next(&noise));
    }
    cfsr_record_header_store(record, &header);
    cfsr_record_seal(record, cfsr_record_seed(&origin->journal), origin->lsn);
    origin->lsn += header.op == CFSR_RECORD_PAD ? left : total_bytes;
    *end_out = origin->lsn % origin->site->segment_bytes == 0;
    return wire;
}

void test_batch_make(struct test_origin *origin, uint32_t records, uint32_t total_bytes,
                     struct test_batch *batch)
{
    uint64_t from = origin->lsn;
    uint32_t i, raw_bytes = 0;
    bool end = false;

    memset(batch, 0, sizeof *batch);
    batch->frame = malloc(CFSR_INBOX_FRAME_MAX_BYTES);
    cr_assert_not_null(batch->frame);
    for (i = 0; i < records && !end; i++) {
        uint8_t *record = origin->raw + raw_bytes;
        struct cfsr_record_header header;
        uint64_t lsn = origin->lsn;

        raw_bytes += make_record(origin, record, total_bytes, &end);
        cfsr_record_header_load(record, &header);
        batch->last = (struct cfsr_record_stamp){
            .lsn = lsn, .seq = header.seq, .timestamp_us = header.timestamp_us, .crc = header.crc};
        batch->entries += cfsr_record_is_entry(header.op);
    }
    batch->header = (struct cfsr_batch_header){.lane = (uint16_t)origin->lane,
                                               .site_id = origin->site_id,
                                               .journal = origin->journal,
                                               .lsn_from = from,
                                               .lsn_to = origin->lsn,
                                               .entry_count = batch->entries,
                                               .incarnation = 1,
                                               .prepared_at_us = 1};
    cr_assert_eq(cfsr_batch_encode(origin->codec, origin->raw, raw_bytes,
                                   batch->frame + CFSR_BATCH_PREFIX_BYTES,
                                   CFSR_BATCH_BODY_MAX_BYTES, &batch->header),
                 0);
    cfsr_batch_header_store(&batch->header, batch->frame);
    batch->frame_bytes = CFSR_BATCH_PREFIX_BYTES + batch->header.stored_bytes;
}

void test_batch_free(struct test_batch *batch)
{
    free(batch->frame);
}

#ifndef TEST_IN_PLACE_PERCENT
#define TEST_IN_PLACE_PERCENT 0
#endif
unsigned test_in_place_percent = TEST_IN_PLACE_PERCENT;

/* Names of memory that batches were put from; slots are below. */
#define LENT_FROM 100u

static void give_segments(struct test_writer *writer)
{
    uint64_t sequence;

    while ((sequence = cfsr_inbox_lane_wants_segment(writer->lane)) != 0) {
        struct cfsr_file *file;
        bool direct;

        cr_assert_eq(cfsr_inbox_prepare_segment(writer->fs, writer->site, writer->lane_number,
                                                sequence, false, &file, &direct),
                     0, "%s", cfsr_error_message());
        cfsr_inbox_lane_give_segment(writer->lane, sequence, file);
    }
}

void test_writer_start(struct test_writer *writer, struct cfsr_fs *fs, const struct cfsr_site *site,
                       uint32_t lane)
{
    uint32_t i;

    memset(writer, 0, sizeof *writer);
    writer->fs = fs;
    writer->site = site;
    writer->lane_number = lane;
    writer->in_place_percent = test_in_place_percent;
    writer->state = calloc(1, sizeof *writer->state);
    cr_assert_eq(cfsr_inbox_recover_lane(fs, site, lane, false, writer->state), 0, "%s",
                 cfsr_error_message());
    cr_assert_eq(cfsr_inbox_lane_create(site, lane, writer->state, NULL, &writer->lane), 0);
    for (i = 0; i <= CFSR_INBOX_WRITES_MAX; i++) {
        writer->buf[i] = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, CFSR_INBOX_SLOT_BYTES);
        writer->slot[writer->free_slots++] = i;
    }
}

void test_writer_stop(struct test_writer *writer, bool close_files)
{
    struct cfsr_file *file;
    uint32_t i;

    while (close_files && (file = cfsr_inbox_lane_retired_file(writer->lane)) != NULL)
        cfsr_file_close(file);
    if (close_files) {
        while ((file = cfsr_inbox_lane_take_file(writer->lane)) != NULL)
            cfsr_file_close(file);
    }
    cfsr_inbox_lane_destroy(writer->lane);
    for (i = 0; i <= CFSR_INBOX_WRITES_MAX; i++)
        free(writer->buf[i]);
    for (i = 0; i < CFSR_INBOX_WRITES_MAX; i++)
        free(writer->lent[i]);
    free(writer->state);
}

int test_writer_complete(struct test_writer *writer, uint32_t i)
{
    struct cfsr_inbox_write write = writer->flight[i];
    uint32_t slot;
    int rc, result;

    result = cfsr_file_pwrite(write.file, write.buf, write.len_bytes, write.offset_bytes, true);
    writer->flight[i] = writer->flight[--writer->flights];
    rc = cfsr_inbox_lane_written(writer->lane, &write, result < 0 ? result : 0, &slot);
    if (slot >= LENT_FROM) {
        free(writer->lent[slot - LENT_FROM]);
        writer->lent[slot - LENT_FROM] = NULL;
    } else {
        writer->slot[writer->free_slots++] = slot;
    }
    return rc;
}

void test_writer_issue(struct test_writer *writer, bool ack_now)
{
    while (cfsr_inbox_lane_take_write(writer->lane, ack_now, writer->now_ns,
                                      &writer->flight[writer->flights]))
        writer->flights++;
}

/* What the lane lacks before it can go on, by what it said. */
static void supply(struct test_writer *writer, int rc)
{
    struct cfsr_file *file;

    while ((file = cfsr_inbox_lane_retired_file(writer->lane)) != NULL)
        cfsr_file_close(file);
    if (rc == -ENOSPC) {
        give_segments(writer);
    } else if (rc == -ENOBUFS) {
        uint32_t slot = writer->slot[--writer->free_slots];

        cfsr_inbox_lane_give_slot(writer->lane, writer->buf[slot], slot);
    } else {
        cr_assert_eq(rc, -EAGAIN);
        test_writer_issue(writer, false);
        cr_assert_gt(writer->flights, 0);
        cr_assert_eq(test_writer_complete(writer, 0), 0);
    }
}

/* Until there is room for a record of so many bytes. */
static void make_room(struct test_writer *writer, uint32_t frame_bytes)
{
    int rc;

    while ((rc = cfsr_inbox_lane_room(writer->lane, frame_bytes)) < 0)
        supply(writer, rc);
}

void test_writer_cursors(struct test_writer *writer)
{
    int rc;

    while ((rc = cfsr_inbox_lane_put_cursors(writer->lane)) < 0)
        supply(writer, rc);
    test_writer_drain(writer);
}

/* As received into a slot: garbage where the link header was, and behind the frame. */
static bool put_in_place(struct test_writer *writer, const struct test_batch *batch)
{
    size_t bytes = cfsr_align_up(CFSR_INBOX_LOCAL_HEADER_BYTES + batch->frame_bytes,
                                 CFSR_INBOX_BLOCK_BYTES);
    uint32_t name = 0;
    uint8_t *record;
    int rc;

    while ((rc = cfsr_inbox_lane_room_in_place(writer->lane, batch->frame_bytes)) == -ENOSPC ||
           rc == -ENOBUFS)
        supply(writer, rc);
    if (rc == -EAGAIN)
        return false;
    cr_assert_eq(rc, 0);
    while (writer->lent[name] != NULL)
        name++;
    cr_assert_lt(name, (uint32_t)CFSR_INBOX_WRITES_MAX);
    record = writer->lent[name] = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, bytes);
    memset(record, 0xee, bytes);
    memcpy(record + CFSR_INBOX_LOCAL_HEADER_BYTES, batch->frame, batch->frame_bytes);
    cfsr_inbox_lane_put_in_place(writer->lane, &batch->header, record, LENT_FROM + name,
                                 batch->frame_bytes, &batch->last, batch->entries,
                                 1000 + writer->now_ns / 1000, writer->now_ns);
    return true;
}

void test_writer_put(struct test_writer *writer, const struct test_batch *batch)
{
    cr_assert_geq(
        cfsr_inbox_lane_origin(writer->lane, batch->header.site_id, &batch->header.journal), 0);
    if (writer->in_place_percent > 0 &&
        test_random_below(&writer->way, 100) < writer->in_place_percent &&
        put_in_place(writer, batch))
        return;
    make_room(writer, batch->frame_bytes);
    cfsr_inbox_lane_put(writer->lane, &batch->header, batch->frame, batch->frame_bytes,
                        &batch->last, batch->entries, 1000 + writer->now_ns / 1000, writer->now_ns);
}

void test_writer_repair(struct test_writer *writer, const struct cfsr_inbox_gap *gap, uint32_t part,
                        const struct test_batch *batch)
{
    make_room(writer, CFSR_INBOX_REPAIR_HEADER_BYTES + batch->frame_bytes);
    cfsr_inbox_lane_put_repair(writer->lane, gap, part, batch->frame, batch->frame_bytes,
                               1000 + writer->now_ns / 1000, writer->now_ns);
}

void test_writer_drain(struct test_writer *writer)
{
    for (;;) {
        test_writer_issue(writer, true);
        if (writer->flights == 0)
            return;
        cr_assert_eq(test_writer_complete(writer, writer->flights - 1), 0);
    }
}
