/* The writer of a lane as a state machine: no disk at all. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "support.h"

static struct cfsr_site site;
static struct cfsr_file file[8];
static uint8_t *slots;
static uint32_t next_slot;
static struct cfsr_inbox_state *state;

static struct cfsr_inbox_lane *make_lane(void)
{
    struct cfsr_inbox_lane *lane;

    test_site_init(&site, "/nowhere", 1);
    state = calloc(1, sizeof *state);
    state->arrival = 1;
    state->incarnation = 1;
    slots = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, 64ull * CFSR_INBOX_SLOT_BYTES);
    next_slot = 0;
    cr_assert_eq(cfsr_inbox_lane_create(&site, 0, state, NULL, &lane), 0);
    return lane;
}

static void destroy_lane(struct cfsr_inbox_lane *lane)
{
    cfsr_inbox_lane_destroy(lane);
    free(state);
    free(slots);
}

static int room(struct cfsr_inbox_lane *lane, uint32_t bytes)
{
    int rc;

    while ((rc = cfsr_inbox_lane_room(lane, bytes)) == -ENOBUFS) {
        cfsr_inbox_lane_give_slot(lane, slots + (size_t)(next_slot % 64) * CFSR_INBOX_SLOT_BYTES,
                                  next_slot);
        next_slot++;
    }
    return rc;
}

static void put(struct cfsr_inbox_lane *lane, struct test_origin *origin, uint32_t records,
                uint32_t bytes)
{
    struct test_batch batch;

    test_batch_make(origin, records, bytes, &batch);
    cr_assert_geq(cfsr_inbox_lane_origin(lane, origin->site_id, &origin->journal), 0);
    cr_assert_eq(room(lane, batch.frame_bytes), 0);
    cfsr_inbox_lane_put(lane, &batch.header, batch.frame, batch.frame_bytes, &batch.last,
                        batch.entries, 1, 0);
    test_batch_free(&batch);
}

/* The opening CURSORS and segment 1 out of the way. */
static void open_lane(struct cfsr_inbox_lane *lane, struct test_origin *origin)
{
    struct cfsr_inbox_write write;
    uint32_t slot;

    cr_assert_eq(cfsr_inbox_lane_wants_segment(lane), 1);
    cr_assert_eq(room(lane, 512), -ENOSPC);
    cfsr_inbox_lane_give_segment(lane, 1, &file[1]);
    put(lane, origin, 1, 256);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write));
    cr_assert_eq(write.offset_bytes, CFSR_INBOX_SEGMENT_HEADER_BYTES);
    cr_assert(!cfsr_inbox_lane_take_write(lane, true, 0, &(struct cfsr_inbox_write){0}),
              "nothing overtakes the opening record");
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write, 0, &slot), 0);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write));
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write, 0, &slot), 0);
}

Test(inbox_lane, acks_advance_in_prefix_order_whatever_the_order_of_completion)
{
    struct cfsr_inbox_lane *lane = make_lane();
    struct cfsr_inbox_write write[3];
    struct test_origin origin;
    uint64_t lsn[4];
    uint32_t slot;
    unsigned i;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    open_lane(lane, &origin);
    lsn[0] = origin.lsn;
    for (i = 0; i < 3; i++) {
        put(lane, &origin, 2, 512);
        lsn[i + 1] = origin.lsn;
        cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[i]));
    }
    cr_assert_eq(cfsr_inbox_lane_staged(lane, 0)->lsn, lsn[3]);
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[2], 0, &slot), 0);
    cr_assert_eq(slot, write[2].slot);
    cr_assert_eq(cfsr_inbox_lane_durable(lane, 0)->lsn, lsn[0]);
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[0], 0, &slot), 0);
    cr_assert_eq(cfsr_inbox_lane_durable(lane, 0)->lsn, lsn[1]);
    cr_assert_gt(cfsr_inbox_lane_pending_bytes(lane), 0);
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[1], 0, &slot), 0);
    cr_assert_eq(cfsr_inbox_lane_durable(lane, 0)->lsn, lsn[3]);
    cr_assert_eq(cfsr_inbox_lane_durable(lane, 0)->entries, 7);
    cr_assert_eq(cfsr_inbox_lane_pending_bytes(lane), 0);
    destroy_lane(lane);
    test_origin_fini(&origin);
}

Test(inbox_lane, failed_write_fails_the_lane_and_acks_nothing_more)
{
    struct cfsr_inbox_lane *lane = make_lane();
    struct cfsr_inbox_write write[2];
    struct test_origin origin;
    uint64_t durable;
    uint32_t slot;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    open_lane(lane, &origin);
    durable = origin.lsn;
    put(lane, &origin, 1, 512);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[0]));
    put(lane, &origin, 1, 512);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[1]));
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[0], -EIO, &slot), -CFSR_E_FAILED);
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[1], 0, &slot), -CFSR_E_FAILED);
    cr_assert_eq(slot, write[1].slot, "the slot comes back all the same");
    cr_assert_eq(cfsr_inbox_lane_durable(lane, 0)->lsn, durable);
    cr_assert(cfsr_inbox_lane_failed(lane));
    cr_assert_eq(cfsr_inbox_lane_room(lane, 512), -CFSR_E_FAILED);
    cr_assert_eq(cfsr_inbox_lane_wants_segment(lane), 0);
    destroy_lane(lane);
    test_origin_fini(&origin);
}

Test(inbox_lane, writes_when_due_by_bytes_delay_or_ack_now)
{
    struct cfsr_inbox_lane *lane = make_lane();
    struct cfsr_inbox_write write;
    struct test_origin origin;
    uint32_t slot;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    open_lane(lane, &origin);
    cr_assert_eq(cfsr_inbox_lane_deadline_ns(lane), UINT64_MAX);
    put(lane, &origin, 1, 512);
    cr_assert_eq(cfsr_inbox_lane_deadline_ns(lane), 1000000);
    cr_assert(!cfsr_inbox_lane_take_write(lane, false, 999999, &write));
    cr_assert(cfsr_inbox_lane_take_write(lane, false, 1000000, &write));
    cr_assert_eq(write.len_bytes % CFSR_INBOX_BLOCK_BYTES, 0);
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write, 0, &slot), 0);
    put(lane, &origin, 16, 65536 - 1024); /* noise does not compress: over half of the limit */
    cr_assert(!cfsr_inbox_lane_take_write(lane, false, 0, &write));
    put(lane, &origin, 1, 65536 + 2048);
    cr_assert(cfsr_inbox_lane_take_write(lane, false, 0, &write));
    destroy_lane(lane);
    test_origin_fini(&origin);
}

Test(inbox_lane, all_writes_in_flight_is_named)
{
    struct cfsr_inbox_lane *lane = make_lane();
    struct cfsr_inbox_write write[CFSR_INBOX_WRITES_MAX];
    struct test_origin origin;
    uint32_t slot;
    unsigned i;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    open_lane(lane, &origin);
    for (i = 0; i < CFSR_INBOX_WRITES_MAX; i++) {
        put(lane, &origin, 1, 512);
        cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[i]));
    }
    cr_assert_eq(cfsr_inbox_lane_room(lane, 512), -EAGAIN);
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[5], 0, &slot), 0);
    cr_assert_eq(cfsr_inbox_lane_room(lane, 512), -EAGAIN, "the oldest one holds its place");
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[0], 0, &slot), 0);
    cr_assert_eq(room(lane, 512), 0);
    destroy_lane(lane);
    test_origin_fini(&origin);
}

Test(inbox_lane, a_new_segment_waits_for_all_of_the_last_one)
{
    struct cfsr_inbox_lane *lane = make_lane();
    struct cfsr_inbox_write write[4], none;
    struct test_origin origin;
    uint32_t slot;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    open_lane(lane, &origin);
    put(lane, &origin, 1, 1u << 20);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[0]));
    cr_assert_eq(cfsr_inbox_lane_wants_segment(lane), 2, "half of it is used");
    cr_assert_eq(room(lane, 1u << 20), -ENOSPC);
    cfsr_inbox_lane_give_segment(lane, 2, &file[2]);
    origin.lsn = cfsr_align_up(origin.lsn, site.segment_bytes);
    {
        /* The next batch of the same origin would overlap the origin's segment end: take one of
         * another origin. */
        struct test_origin other;

        test_origin_init(&other, &site, 3, 0xa3, 0);
        put(lane, &other, 1, 1u << 20);
        test_origin_fini(&other);
    }
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[1]));
    cr_assert_eq(write[1].offset_bytes, CFSR_INBOX_SEGMENT_HEADER_BYTES + site.segment_bytes -
                                            CFSR_INBOX_INDEX_AREA_BYTES);
    cr_assert_eq(write[1].file, &file[1]);
    cr_assert(!cfsr_inbox_lane_take_write(lane, true, 0, &none));
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[1], 0, &slot), 0);
    cr_assert(!cfsr_inbox_lane_take_write(lane, true, 0, &none));
    cr_assert_null(cfsr_inbox_lane_retired_file(lane));
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[0], 0, &slot), 0);
    cr_assert_eq(cfsr_inbox_lane_retired_file(lane), &file[1]);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[2]));
    cr_assert_eq(write[2].file, &file[2]);
    cr_assert_eq(write[2].offset_bytes, CFSR_INBOX_SEGMENT_HEADER_BYTES);
    destroy_lane(lane);
    test_origin_fini(&origin);
}

Test(inbox_lane, no_block_crosses_the_data_area_and_one_may_fill_it_exactly)
{
    struct cfsr_inbox_lane *lane = make_lane();
    uint64_t data_end = CFSR_INBOX_SEGMENT_HEADER_BYTES + CFSR_SEGMENT_BYTES_MIN -
                        CFSR_INBOX_INDEX_AREA_BYTES;
    struct cfsr_inbox_write write;
    struct test_origin origin;
    uint32_t left, frame_bytes;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    open_lane(lane, &origin);
    put(lane, &origin, 1, (1u << 20) - 4096);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write));
    left = (uint32_t)(data_end - write.offset_bytes - write.len_bytes);
    frame_bytes = left - CFSR_INBOX_LOCAL_HEADER_BYTES;
    cr_assert_leq(frame_bytes, CFSR_INBOX_FRAME_MAX_BYTES);
    cr_assert_eq(room(lane, frame_bytes), 0, "exactly fits");
    cr_assert_eq(room(lane, frame_bytes + 1), -ENOSPC, "goes to the next segment");
    destroy_lane(lane);
    test_origin_fini(&origin);
}

Test(inbox_lane, knows_64_journals_and_a_new_one_of_a_known_site_is_new)
{
    struct cfsr_inbox_lane *lane = make_lane();
    struct cfsr_uuid journal = {{0}};
    unsigned i;

    for (i = 0; i < CFSR_INBOX_ORIGINS_MAX; i++) {
        journal.bytes[0] = (uint8_t)i;
        cr_assert_eq(cfsr_inbox_lane_origin(lane, 1 + i / 2, &journal), (int)i);
    }
    cr_assert_eq(cfsr_inbox_lane_origin(lane, 1 + 63 / 2, &journal), 63, "known");
    cr_assert_eq(cfsr_inbox_lane_find_site(lane, 1), 1, "the newer journal");
    cr_assert_eq(cfsr_inbox_lane_find_site(lane, 99), -ENOENT);
    journal.bytes[0] = 200;
    cr_assert_eq(cfsr_inbox_lane_origin(lane, 1, &journal), -ENOSPC);
    cr_assert_eq(cfsr_inbox_lane_durable(lane, 0)->last.lsn, UINT64_MAX);
    destroy_lane(lane);
}

Test(inbox_lane, index_stays_bounded_and_keeps_every_stride)
{
    struct cfsr_inbox_index *index = calloc(1, sizeof *index), *loaded = calloc(1, sizeof *loaded);
    struct cfsr_inbox_cursor origin[CFSR_INBOX_ORIGINS_MAX] = {{.site_id = 7}};
    uint8_t *payload = malloc(CFSR_INBOX_INDEX_AREA_BYTES);
    uint32_t i, bytes, count;

    cfsr_inbox_index_reset(index);
    for (i = 0; i < 5000; i++)
        cfsr_inbox_index_add(index, i * 64, i + 1, i, 0, i * 8, i * 8 + 8);
    cr_assert_eq(index->stride, 8);
    for (i = 0; i < index->count; i++)
        cr_assert_eq(index->step[i].arrival, i * 8 + 1);
    bytes = cfsr_inbox_index_store(index, origin, 1, payload);
    cr_assert_leq(bytes + CFSR_INBOX_LOCAL_HEADER_BYTES, CFSR_INBOX_INDEX_AREA_BYTES);
    cr_assert_eq(cfsr_inbox_index_load(payload, bytes, loaded, origin, &count), 0);
    cr_assert_eq(count, 1);
    cr_assert_eq(loaded->range[0].lsn_to, 40000);
    cr_assert_eq(loaded->batches, 5000);
    cr_assert_eq(cfsr_inbox_index_load(payload, bytes - 1, loaded, origin, &count), -CFSR_E_FORMAT);
    free(index);
    free(loaded);
    free(payload);
}

Test(inbox_lane, cursors_asked_for_are_alone_in_a_block_and_wait_for_all_before)
{
    struct cfsr_inbox_lane *lane = make_lane();
    struct cfsr_inbox_cursor cursor[CFSR_INBOX_ORIGINS_MAX];
    struct cfsr_inbox_write write[3], none;
    struct cfsr_inbox_local local;
    struct test_origin origin;
    uint32_t slot, count, need;

    test_origin_init(&origin, &site, 1, 0xa1, 0);
    open_lane(lane, &origin);
    cr_assert_eq(cfsr_inbox_lane_put_cursors(lane), 0, "nobody asked");
    put(lane, &origin, 1, 512); /* in a block that is being filled */
    cfsr_inbox_lane_want_cursors(lane);
    cr_assert_eq(cfsr_inbox_lane_put_cursors(lane), -ENOBUFS);
    cfsr_inbox_lane_give_slot(lane, slots + (size_t)(next_slot % 64) * CFSR_INBOX_SLOT_BYTES,
                              next_slot);
    next_slot++;
    cr_assert_eq(cfsr_inbox_lane_put_cursors(lane), 0);
    put(lane, &origin, 1, 512);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[0]));
    cr_assert(!cfsr_inbox_lane_take_write(lane, true, 0, &none),
              "they speak of what is durable only");
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[0], 0, &slot), 0);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[1]));
    cr_assert_eq(write[1].len_bytes, CFSR_INBOX_BLOCK_BYTES);
    cr_assert_eq(cfsr_inbox_record_load(write[1].buf, write[1].len_bytes, 1,
                                        write[1].offset_bytes - CFSR_INBOX_SEGMENT_HEADER_BYTES,
                                        &local, &need),
                 0);
    cr_assert_eq(local.kind, CFSR_INBOX_CURSORS);
    cr_assert_eq(cfsr_inbox_cursors_load((uint8_t *)write[1].buf + CFSR_INBOX_LOCAL_HEADER_BYTES,
                                         local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES, cursor,
                                         &count),
                 0);
    cr_assert_eq(count, 1);
    cr_assert_eq(cursor[0].lsn, cfsr_inbox_lane_durable(lane, 0)->lsn);
    cr_assert(cfsr_inbox_lane_take_write(lane, true, 0, &write[2]), "nothing waits for them");
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[2], 0, &slot), 0);
    cr_assert_eq(cfsr_inbox_lane_written(lane, &write[1], 0, &slot), 0);
    cr_assert_eq(cfsr_inbox_lane_durable(lane, 0)->lsn, origin.lsn);
    cr_assert(!cfsr_inbox_lane_take_write(lane, true, 0, &none), "once");
    destroy_lane(lane);
    test_origin_fini(&origin);
}
