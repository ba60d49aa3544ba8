/*
 * torn_inbox.c - an inbox lane and its shadow (torn_inbox.h).
 *
 * Thread:     one.
 * Invariants: the shadow is what the lane asked to be written, block for block; what is whole after
 *             a crash is found by comparing bytes.
 */
#include "torn_inbox.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "cases.h"
#include "inbox/reader.h"
#include "torn_journal.h"

const char torn_inbox_early[] = "records below the cursor are not delivered";
const char torn_inbox_stopped[] = "the reader stops with an error";

struct torn_inbox *torn_inbox_create(const struct cfsr_fs *blank)
{
    static const uint32_t record_max[TORN_ORIGINS] = {200, 1500, 4000, 600};
    static const uint32_t batch_records[TORN_ORIGINS] = {3, 6, 4, 20};
    struct torn_inbox *inbox = calloc(1, sizeof *inbox);

    CFSR_ASSERT(inbox != NULL);
    inbox->blank = (struct cfsr_fs *)(uintptr_t)blank;
    torn_site_init(&inbox->site);
    inbox->site.segment_bytes = TORN_INBOX_SEGMENT;
    inbox->site.site_id = 99;
    for (uint32_t i = 0; i < TORN_ORIGINS; i++)
        inbox->chain[i] = torn_chain_make(i + 1, record_max[i], batch_records[i]);
    for (uint32_t i = 0; i <= CFSR_INBOX_WRITES_MAX; i++)
        inbox->buf[i] = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, CFSR_INBOX_SLOT_BYTES);
    inbox->state = calloc(1, sizeof *inbox->state);
    CFSR_ASSERT(inbox->state != NULL);
    return inbox;
}

void torn_inbox_begin(struct torn_inbox *inbox, struct cfsr_fs *fs, uint64_t seed)
{
    inbox->fs = fs;
    inbox->random = seed;
    inbox->lane = NULL;
    inbox->now_ns = 0;
    inbox->flights = inbox->given_count = inbox->blocks = inbox->puts = 0;
}

void torn_inbox_path(const struct torn_inbox *inbox, uint64_t sequence, char *path_out)
{
    cfsr_inbox_segment_path(&inbox->site, 0, sequence, path_out);
}

uint64_t torn_inbox_cursor(const struct torn_inbox *inbox, const struct cfsr_inbox_state *state,
                           uint32_t origin)
{
    for (uint32_t i = 0; i < state->origins; i++)
        if (state->cursor[i].site_id == inbox->chain[origin]->site_id)
            return state->cursor[i].lsn;
    return 0;
}

int torn_inbox_open(struct torn_inbox *inbox)
{
    int rc;

    memset(inbox->state, 0, sizeof *inbox->state);
    rc = cfsr_inbox_recover_lane(inbox->fs, &inbox->site, 0, false, inbox->state);
    if (rc == 0)
        rc = cfsr_inbox_lane_create(&inbox->site, 0, inbox->state, NULL, &inbox->lane);
    if (rc < 0)
        return rc;
    inbox->free_slots = inbox->flights = inbox->given_count = inbox->blocks = inbox->puts = 0;
    for (uint32_t i = 0; i <= CFSR_INBOX_WRITES_MAX; i++)
        inbox->slot[inbox->free_slots++] = i;
    for (uint32_t i = 0; i < TORN_ORIGINS; i++)
        inbox->acked[i] = inbox->base[i] = torn_inbox_cursor(inbox, inbox->state, i);
    return 0;
}

void torn_inbox_close(struct torn_inbox *inbox, bool files_live)
{
    struct cfsr_file *file;

    if (inbox->lane == NULL)
        return;
    while (files_live && (file = cfsr_inbox_lane_retired_file(inbox->lane)) != NULL)
        cfsr_file_close(file);
    while (files_live && (file = cfsr_inbox_lane_take_file(inbox->lane)) != NULL)
        cfsr_file_close(file);
    cfsr_inbox_lane_destroy(inbox->lane);
    inbox->lane = NULL;
}

static void give_segments(struct torn_inbox *inbox)
{
    uint64_t sequence;

    while ((sequence = cfsr_inbox_lane_wants_segment(inbox->lane)) != 0) {
        struct cfsr_file *file;
        bool direct;
        int rc = cfsr_inbox_prepare_segment(inbox->fs, &inbox->site, 0, sequence, true, &file,
                                            &direct);

        SIM_CASE_CHECK(rc == 0, "segment %" PRIu64 ": %d %s", sequence, rc, cfsr_error_message());
        CFSR_ASSERT(inbox->given_count < TORN_SEQUENCES && sequence < TORN_SEQUENCES);
        inbox->given[inbox->given_count].file = file;
        inbox->given[inbox->given_count++].sequence = sequence;
        if (inbox->shadow[sequence] == NULL)
            inbox->shadow[sequence] = malloc(TORN_INBOX_SEGMENT);
        CFSR_ASSERT(inbox->shadow[sequence] != NULL);
        memset(inbox->shadow[sequence], 0, TORN_INBOX_SEGMENT);
        cfsr_inbox_lane_give_segment(inbox->lane, sequence, file);
    }
}

uint64_t torn_inbox_sequence(const struct torn_inbox *inbox, const struct cfsr_file *file)
{
    uint32_t i = inbox->given_count;

    while (i > 0 && inbox->given[i - 1].file != file)
        i--;
    CFSR_ASSERT(i > 0);
    return inbox->given[i - 1].sequence;
}

void torn_inbox_issue(struct torn_inbox *inbox, bool ack_now)
{
    struct cfsr_inbox_write *write = &inbox->flight[inbox->flights];

    while (cfsr_inbox_lane_take_write(inbox->lane, ack_now, inbox->now_ns, write)) {
        uint64_t sequence = torn_inbox_sequence(inbox, write->file);
        uint64_t at = write->offset_bytes - cfsr_inbox_file_offset(0);

        CFSR_ASSERT(inbox->blocks < TORN_WRITES);
        inbox->block[inbox->blocks++] = (struct torn_block){sequence, at, write->len_bytes};
        memcpy(inbox->shadow[sequence] + at, write->buf, write->len_bytes);
        write = &inbox->flight[++inbox->flights];
    }
}

void torn_inbox_complete(struct torn_inbox *inbox, uint32_t flight)
{
    struct cfsr_inbox_write write = inbox->flight[flight];
    uint32_t slot;
    int rc = cfsr_file_pwrite(write.file, write.buf, write.len_bytes, write.offset_bytes, true);

    inbox->flight[flight] = inbox->flight[--inbox->flights];
    rc = cfsr_inbox_lane_written(inbox->lane, &write, rc < 0 ? rc : 0, &slot);
    SIM_CASE_CHECK(rc >= 0, "a write fails: %d", rc);
    inbox->slot[inbox->free_slots++] = slot;
    for (uint32_t i = 0; i < TORN_ORIGINS; i++) {
        int origin = cfsr_inbox_lane_find_site(inbox->lane, inbox->chain[i]->site_id);

        if (origin >= 0)
            inbox->acked[i] = cfsr_inbox_lane_durable(inbox->lane, origin)->lsn;
    }
}

void torn_inbox_drain(struct torn_inbox *inbox)
{
    for (;;) {
        torn_inbox_issue(inbox, true);
        if (inbox->flights == 0)
            return;
        torn_inbox_complete(inbox, inbox->flights - 1);
    }
}

static void make_room(struct torn_inbox *inbox, uint32_t frame_bytes)
{
    struct cfsr_file *file;
    int rc;

    while ((rc = cfsr_inbox_lane_room(inbox->lane, frame_bytes)) < 0) {
        while ((file = cfsr_inbox_lane_retired_file(inbox->lane)) != NULL)
            cfsr_file_close(file);
        if (rc == -ENOSPC) {
            give_segments(inbox);
        } else if (rc == -ENOBUFS) {
            uint32_t slot = inbox->slot[--inbox->free_slots];

            cfsr_inbox_lane_give_slot(inbox->lane, inbox->buf[slot], slot);
        } else {
            SIM_CASE_CHECK(rc == -EAGAIN, "room: %d", rc);
            torn_inbox_issue(inbox, false);
            SIM_CASE_CHECK(inbox->flights > 0, "no room and nothing in flight");
            torn_inbox_complete(inbox, (uint32_t)(torn_random(&inbox->random) % inbox->flights));
        }
    }
}

bool torn_inbox_put(struct torn_inbox *inbox, uint32_t origin)
{
    const struct torn_chain *chain = inbox->chain[origin];
    int index = cfsr_inbox_lane_origin(inbox->lane, chain->site_id, &chain->journal);
    const struct torn_batch *batch;
    uint32_t next;

    CFSR_ASSERT(index >= 0);
    next = torn_chain_at(chain, cfsr_inbox_lane_staged(inbox->lane, index)->lsn);
    if (next == TORN_BATCHES || inbox->puts == TORN_WRITES)
        return false;
    batch = &chain->batch[next];
    make_room(inbox, batch->frame_bytes);
    inbox->now_ns += 1000;
    cfsr_inbox_lane_put(inbox->lane, &batch->header, batch->frame, batch->frame_bytes, &batch->last,
                        batch->entries, 1000 + inbox->now_ns / 1000, inbox->now_ns);
    inbox->put[inbox->puts].origin = (uint8_t)origin;
    inbox->put[inbox->puts++].lsn_to = batch->header.lsn_to;
    return true;
}

static const char *check_record(const struct torn_inbox *inbox,
                                const struct cfsr_inbox_record *record,
                                uint32_t taken[TORN_ORIGINS], const uint64_t cursor[TORN_ORIGINS])
{
    uint32_t origin = 0;
    const struct torn_record *expected;

    while (origin < TORN_ORIGINS && inbox->chain[origin]->site_id != record->site_id)
        origin++;
    if (origin == TORN_ORIGINS)
        return "a record of an unknown origin is delivered";
    expected = &inbox->chain[origin]->record[taken[origin]++];
    if (expected->lsn >= cursor[origin])
        return "a record above the cursor is delivered";
    if (record->lsn != expected->lsn || record->end_lsn != expected->end_lsn)
        return record->lsn > expected->lsn ? "a record is skipped" : "a record is delivered again";
    if (record->raw_bytes != expected->wire_bytes ||
        memcmp(record->raw, expected->wire, expected->wire_bytes) != 0)
        return "a record's bytes are wrong";
    return NULL;
}

const char *torn_inbox_read(struct torn_inbox *inbox, const uint64_t cursor[TORN_ORIGINS])
{
    struct cfsr_inbox_options options = {.opts_size = sizeof options, .all_records = true};
    uint32_t taken[TORN_ORIGINS] = {0};
    struct cfsr_inbox_record record;
    const char *wrong = NULL;
    struct cfsr_inbox *reader;
    int rc = cfsr_inbox_open_at(inbox->fs, &inbox->site, &options, &reader);

    if (rc < 0)
        return "the inbox does not open";
    while (wrong == NULL && (rc = cfsr_inbox_next(reader, 0, &record)) == 1)
        wrong = check_record(inbox, &record, taken, cursor);
    cfsr_inbox_close(reader);
    if (wrong == NULL && rc < 0)
        return torn_inbox_stopped;
    for (uint32_t i = 0; wrong == NULL && i < TORN_ORIGINS; i++)
        if ((taken[i] == 0 ? 0 : inbox->chain[i]->record[taken[i] - 1].end_lsn) != cursor[i])
            wrong = torn_inbox_early;
    return wrong;
}
