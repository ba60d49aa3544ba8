/* Batches that are written from where they were received: the same bytes on the disk, in the same
 * order, and their memory comes back whatever becomes of the write. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "support.h"

#define SLOTS      64u
#define LENT_FROM  1000u
#define LENT_BYTES (512u << 10)

static struct cfsr_site site;
static struct cfsr_file file[4];

/* A lane without a disk, and memory to put in it. */
struct bench {
    struct cfsr_inbox_state *state;
    struct cfsr_inbox_lane *lane;
    struct test_origin origin;
    uint8_t *slots, *lent;
    uint32_t next_slot, next_lent;
};

static void setup(struct bench *b)
{
    memset(b, 0, sizeof *b);
    test_site_init(&site, "/nowhere", 1);
    b->state = calloc(1, sizeof *b->state);
    b->state->arrival = 1;
    b->state->incarnation = 1;
    b->slots = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, (size_t)SLOTS * CFSR_INBOX_SLOT_BYTES);
    b->lent = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, (size_t)SLOTS * LENT_BYTES);
    test_origin_init(&b->origin, &site, 1, 0xa1, 0);
    cr_assert_eq(cfsr_inbox_lane_create(&site, 0, b->state, NULL, &b->lane), 0);
    cr_assert_geq(cfsr_inbox_lane_origin(b->lane, 1, &b->origin.journal), 0);
    cfsr_inbox_lane_give_segment(b->lane, 1, &file[1]);
}

static void teardown(struct bench *b)
{
    cfsr_inbox_lane_destroy(b->lane);
    test_origin_fini(&b->origin);
    free(b->state);
    free(b->slots);
    free(b->lent);
}

static void give_slot(struct bench *b)
{
    cr_assert_lt(b->next_slot, SLOTS);
    cfsr_inbox_lane_give_slot(b->lane, b->slots + (size_t)b->next_slot * CFSR_INBOX_SLOT_BYTES,
                              b->next_slot);
    b->next_slot++;
}

static int room(struct bench *b, bool in_place, uint32_t bytes)
{
    int rc;

    while ((rc = in_place ? cfsr_inbox_lane_room_in_place(b->lane, bytes)
                          : cfsr_inbox_lane_room(b->lane, bytes)) == -ENOBUFS)
        give_slot(b);
    return rc;
}

/* Puts the batch one way or the other; the memory's name when in place. */
static uint32_t put_batch(struct bench *b, bool in_place, const struct test_batch *batch)
{
    uint8_t *record = b->lent + (size_t)(b->next_lent % SLOTS) * LENT_BYTES;

    cr_assert_eq(room(b, in_place, batch->frame_bytes), 0);
    if (!in_place) {
        cfsr_inbox_lane_put(b->lane, &batch->header, batch->frame, batch->frame_bytes, &batch->last,
                            batch->entries, 77, 0);
        return UINT32_MAX;
    }
    cr_assert_leq(batch->frame_bytes + CFSR_INBOX_LOCAL_HEADER_BYTES, LENT_BYTES);
    memset(record, 0xee, LENT_BYTES);
    memcpy(record + CFSR_INBOX_LOCAL_HEADER_BYTES, batch->frame, batch->frame_bytes);
    cfsr_inbox_lane_put_in_place(b->lane, &batch->header, record, LENT_FROM + b->next_lent,
                                 batch->frame_bytes, &batch->last, batch->entries, 77, 0);
    return LENT_FROM + b->next_lent++;
}

static uint32_t put(struct bench *b, bool in_place, uint32_t records, uint32_t bytes)
{
    struct test_batch batch;
    uint32_t name;

    test_batch_make(&b->origin, records, bytes, &batch);
    name = put_batch(b, in_place, &batch);
    test_batch_free(&batch);
    return name;
}

static bool take(struct bench *b, struct cfsr_inbox_write *write)
{
    return cfsr_inbox_lane_take_write(b->lane, true, 0, write);
}

static void written(struct bench *b, const struct cfsr_inbox_write *write)
{
    uint32_t slot;

    cr_assert_eq(cfsr_inbox_lane_written(b->lane, write, 0, &slot), 0);
    cr_assert_eq(slot, write->slot);
}

/* The opening CURSORS out of the way. */
static void open_lane(struct bench *b)
{
    struct cfsr_inbox_write write;

    (void)put(b, false, 1, 256);
    while (take(b, &write))
        written(b, &write);
}

static struct cfsr_inbox_local load(const struct cfsr_inbox_write *write, uint64_t sequence)
{
    struct cfsr_inbox_local local;
    uint32_t need;

    cr_assert_eq(cfsr_inbox_record_load(write->buf, write->len_bytes, sequence,
                                        write->offset_bytes - CFSR_INBOX_SEGMENT_HEADER_BYTES,
                                        &local, &need),
                 0);
    return local;
}

Test(inbox_direct, the_same_bytes_are_written_as_from_a_copy)
{
    struct bench copied, direct;
    struct cfsr_inbox_write a, b;

    setup(&copied);
    open_lane(&copied);
    setup(&direct);
    open_lane(&direct);
    for (unsigned i = 0; i < 12; i++) {
        uint32_t records = 1 + i * 5 % 9, bytes = 192 + i * 3904 % 20000;
        struct test_batch batch;

        bytes -= bytes % TEST_RECORD_UNIT;
        test_batch_make(&copied.origin, records, bytes, &batch);
        (void)put_batch(&copied, false, &batch);
        uint32_t name = put_batch(&direct, true, &batch);
        cr_assert(take(&copied, &a));
        cr_assert(take(&direct, &b));
        cr_assert_eq(b.slot, name);
        cr_assert_eq(b.buf, direct.lent + (size_t)i * LENT_BYTES, "from where it is");
        cr_assert_eq(a.len_bytes, b.len_bytes);
        cr_assert_eq(a.offset_bytes, b.offset_bytes);
        cr_assert_eq(memcmp(a.buf, b.buf, a.len_bytes), 0, "batch %u", i);
        written(&copied, &a);
        written(&direct, &b);
        cr_assert_eq(memcmp(cfsr_inbox_lane_durable(copied.lane, 0),
                            cfsr_inbox_lane_durable(direct.lane, 0),
                            sizeof(struct cfsr_inbox_cursor)),
                     0);
        test_batch_free(&batch);
    }
    teardown(&copied);
    teardown(&direct);
}

Test(inbox_direct, stands_behind_what_was_filling_and_is_due_at_once)
{
    struct cfsr_inbox_write write[3];
    struct bench b;

    setup(&b);
    open_lane(&b);
    (void)put(&b, false, 1, 512);
    cr_assert(!cfsr_inbox_lane_take_write(b.lane, false, 0, &write[0]), "gathers");
    uint32_t name = put(&b, true, 4, 16384);
    (void)put(&b, false, 1, 512);
    cr_assert(cfsr_inbox_lane_take_write(b.lane, false, 0, &write[0]), "closed by the next");
    cr_assert(cfsr_inbox_lane_take_write(b.lane, false, 0, &write[1]));
    cr_assert(!cfsr_inbox_lane_take_write(b.lane, false, 0, &write[2]), "gathers again");
    cr_assert_eq(write[1].slot, name);
    cr_assert(take(&b, &write[2]));
    for (unsigned i = 1; i < 3; i++) {
        cr_assert_eq(write[i].offset_bytes, write[i - 1].offset_bytes + write[i - 1].len_bytes);
        cr_assert_eq(load(&write[i], 1).arrival, load(&write[i - 1], 1).arrival + 1);
    }
    /* Acknowledged in that order whatever order they are written in. */
    uint64_t before = cfsr_inbox_lane_durable(b.lane, 0)->lsn;
    written(&b, &write[1]);
    written(&b, &write[2]);
    cr_assert_eq(cfsr_inbox_lane_durable(b.lane, 0)->lsn, before);
    written(&b, &write[0]);
    cr_assert_eq(cfsr_inbox_lane_durable(b.lane, 0)->lsn, b.origin.lsn);
    cr_assert_eq(cfsr_inbox_lane_pending_bytes(b.lane), 0);
    teardown(&b);
}

Test(inbox_direct, an_opening_record_stands_before_the_first)
{
    struct cfsr_inbox_write write, none;
    struct bench b;

    setup(&b);
    uint32_t name = put(&b, true, 4, 16384);
    cr_assert(take(&b, &write));
    cr_assert_eq(load(&write, 1).kind, CFSR_INBOX_CURSORS);
    cr_assert(!take(&b, &none), "nothing overtakes it");
    written(&b, &write);
    cr_assert(take(&b, &write));
    cr_assert_eq(write.slot, name);
    written(&b, &write);
    teardown(&b);
}

Test(inbox_direct, the_end_of_a_segment_is_laid_out_before_it)
{
    struct cfsr_inbox_write write;
    struct bench b;
    uint32_t name = 0;
    uint64_t index_at = CFSR_INBOX_SEGMENT_HEADER_BYTES + CFSR_SEGMENT_BYTES_MIN -
                        CFSR_INBOX_INDEX_AREA_BYTES;
    int rc;

    setup(&b);
    open_lane(&b);
    while ((rc = room(&b, true, 300000)) == 0) {
        name = put(&b, true, 4, 65536);
        cr_assert(take(&b, &write));
        cr_assert_leq(write.offset_bytes + write.len_bytes, index_at);
        written(&b, &write);
    }
    cr_assert_eq(rc, -ENOSPC);
    cr_assert_gt(name, 0);
    cfsr_inbox_lane_give_segment(b.lane, 2, &file[2]);
    b.origin.lsn = cfsr_align_up(b.origin.lsn, TEST_RECORD_UNIT);
    name = put(&b, true, 2, 65536);
    cr_assert(take(&b, &write));
    cr_assert_eq(write.offset_bytes, index_at);
    cr_assert_eq(load(&write, 1).kind, CFSR_INBOX_INDEX);
    written(&b, &write);
    cr_assert(take(&b, &write));
    cr_assert_eq(write.file, &file[2]);
    cr_assert_eq(load(&write, 2).kind, CFSR_INBOX_CURSORS);
    written(&b, &write);
    cr_assert(take(&b, &write));
    cr_assert_eq(write.slot, name);
    cr_assert_eq(write.offset_bytes, CFSR_INBOX_SEGMENT_HEADER_BYTES + CFSR_INBOX_BLOCK_BYTES);
    written(&b, &write);
    teardown(&b);
}

Test(inbox_direct, some_writes_are_kept_for_what_is_gathered)
{
    struct cfsr_inbox_write write[CFSR_INBOX_WRITES_MAX];
    struct bench b;
    unsigned count = 0;

    setup(&b);
    open_lane(&b);
    while (room(&b, true, 70000) == 0) {
        (void)put(&b, true, 1, 65536);
        cr_assert(take(&b, &write[count++]));
    }
    cr_assert_eq(count, CFSR_INBOX_WRITES_MAX - CFSR_INBOX_WRITES_GATHERED);
    (void)put(&b, false, 1, 512);
    cr_assert_eq(room(&b, true, 70000), -EAGAIN);
    (void)put(&b, false, 1, 512);
    cr_assert(take(&b, &write[count]), "one block: asking in vain does not close it");
    cr_assert_eq(write[count].len_bytes, CFSR_INBOX_BLOCK_BYTES);
    written(&b, &write[count]);
    for (unsigned i = 0; i < count; i++)
        written(&b, &write[i]);
    cr_assert_eq(room(&b, true, 70000), 0);
    teardown(&b);
}

Test(inbox_direct, a_failed_lane_gives_back_what_was_written_and_what_was_not)
{
    struct cfsr_inbox_write write[2];
    struct bench b;
    uint32_t name[4], slot;
    bool back[4] = {false};

    setup(&b);
    open_lane(&b);
    uint64_t durable = b.origin.lsn;
    for (unsigned i = 0; i < 2; i++) {
        name[i] = put(&b, true, 1, 65536);
        cr_assert(take(&b, &write[i]));
    }
    name[2] = put(&b, true, 1, 65536);
    (void)put(&b, false, 1, 512);
    name[3] = put(&b, true, 1, 65536);
    cr_assert_eq(cfsr_inbox_lane_written(b.lane, &write[1], -EIO, &slot), -CFSR_E_FAILED);
    cr_assert_eq(slot, name[1]);
    cr_assert_eq(room(&b, true, 70000), -CFSR_E_FAILED);
    cr_assert_eq(cfsr_inbox_lane_written(b.lane, &write[0], 0, &slot), -CFSR_E_FAILED);
    cr_assert_eq(slot, name[0]);
    back[0] = back[1] = true;
    while (cfsr_inbox_lane_take_slot(b.lane, &slot))
        for (unsigned i = 0; i < 4; i++)
            if (slot == name[i]) {
                cr_assert_not(back[i]);
                back[i] = true;
            }
    cr_assert(back[2] && back[3]);
    cr_assert_eq(cfsr_inbox_lane_durable(b.lane, 0)->lsn, durable);
    /* Begun anew, it takes them again. */
    while (cfsr_inbox_lane_take_file(b.lane) != NULL)
        ;
    cfsr_inbox_lane_fallback(b.lane, b.state);
    cfsr_inbox_lane_restart(b.lane, b.state);
    cfsr_inbox_lane_give_segment(b.lane, b.state->sequence, &file[2]);
    test_origin_seek(&b.origin, durable, 2, 1);
    name[0] = put(&b, true, 1, 65536);
    cr_assert(take(&b, &write[0]));
    written(&b, &write[0]);
    cr_assert(take(&b, &write[0]));
    cr_assert_eq(write[0].slot, name[0]);
    written(&b, &write[0]);
    cr_assert_eq(cfsr_inbox_lane_durable(b.lane, 0)->lsn, b.origin.lsn);
    teardown(&b);
}
