/* What other sites ask of the inbox: frames by LSN, digests of windows. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "journal/digest.h"
#include "world.h"

static void expect_frames(struct world *w, uint64_t step)
{
    uint8_t *frame = malloc(CFSR_INBOX_FRAME_MAX_BYTES);

    for (uint32_t k = 0; k < ORIGINS; k++) {
        for (uint64_t lsn = 0; lsn < w->sent[k]; lsn += step) {
            struct cfsr_batch_header header;
            uint32_t bytes;
            int rc = cfsr_inbox_find_frame(w->fs, &site, 0, 10 + k, &w->origin[k].journal, lsn,
                                           frame, CFSR_INBOX_FRAME_MAX_BYTES, &bytes);

            cr_assert_eq(rc, 0, "site %u, LSN %llu: %s", 10 + k, (unsigned long long)lsn,
                         cfsr_error_message());
            cr_assert_eq(cfsr_batch_header_load(frame, &header), 0);
            cr_assert_eq(header.site_id, 10 + k);
            cr_assert_leq(header.lsn_from, lsn);
            cr_assert_gt(header.lsn_to, lsn);
            cr_assert_eq(bytes, CFSR_BATCH_PREFIX_BYTES + header.stored_bytes);
            cr_assert_eq(
                cfsr_batch_check_body(w->origin[k].codec, &header, frame + CFSR_BATCH_PREFIX_BYTES),
                0);
        }
    }
    free(frame);
}

Test(inbox_serve, frames_are_found_by_lsn_also_those_that_were_repaired)
{
    uint8_t *frame = malloc(CFSR_INBOX_FRAME_MAX_BYTES);
    struct cfsr_uuid stranger = {.bytes = {1}};
    struct cfsr_batch_header header;
    struct cfsr_inbox_item item;
    struct world w;
    uint32_t bytes;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 17, 100);
    expect_frames(&w, 37 * RECORD_BYTES);
    item = world_find_item(&w, 2, CFSR_INBOX_BATCH, 4, &header);
    world_flip_body(&w, 2, item.body_offset + 5000);
    cr_assert_eq(cfsr_inbox_find_frame(w.fs, &site, 0, header.site_id, &header.journal,
                                       header.lsn_from, frame, CFSR_INBOX_FRAME_MAX_BYTES, &bytes),
                 -CFSR_E_DAMAGED);
    world_repair_all(&w);
    expect_frames(&w, 5 * RECORD_BYTES);
    world_flip_body(&w, 3, 0);
    world_repair_all(&w);
    expect_frames(&w, 11 * RECORD_BYTES);
    cr_assert_eq(cfsr_inbox_find_frame(w.fs, &site, 0, 10, &w.origin[0].journal, w.sent[0], frame,
                                       CFSR_INBOX_FRAME_MAX_BYTES, &bytes),
                 -ENOENT);
    cr_assert_eq(cfsr_inbox_find_frame(w.fs, &site, 0, 99, &stranger, 0, frame,
                                       CFSR_INBOX_FRAME_MAX_BYTES, &bytes),
                 -ENOENT);
    cr_assert_eq(cfsr_inbox_drop_segment(w.fs, &site, 0, 1, false), 0);
    cr_assert_eq(cfsr_inbox_find_frame(w.fs, &site, 0, 10, &w.origin[0].journal, 0, frame,
                                       CFSR_INBOX_FRAME_MAX_BYTES, &bytes),
                 -CFSR_E_GONE);
    free(frame);
    world_fini(&w);
}

struct expected {
    struct cfsr_inbox_window window[64];
    uint32_t count;
};

static void expect_window(void *user, uint64_t index, const uint8_t digest[CFSR_DIGEST_LEN_BYTES])
{
    struct expected *expected = user;

    expected->window[expected->count].index = index;
    memcpy(expected->window[expected->count++].digest, digest, CFSR_DIGEST_LEN_BYTES);
}

/* Windows of the origin's own records. */
static void own_windows(struct test_origin *origin, uint64_t to_lsn, struct expected *expected)
{
    struct cfsr_lane_digest digest;
    uint8_t ignored[CFSR_DIGEST_LEN_BYTES];

    memset(expected, 0, sizeof *expected);
    cr_assert_eq(cfsr_lane_digest_begin(&digest, site.segment_bytes), 0);
    digest.on_window = expect_window;
    digest.user = expected;
    world_seek(origin, 0);
    while (origin->lsn < to_lsn) {
        uint64_t lsn = origin->lsn;
        struct test_batch batch;

        test_batch_make(origin, 1, RECORD_BYTES, &batch);
        cfsr_lane_digest_feed(&digest, lsn, origin->raw, RECORD_BYTES);
        test_batch_free(&batch);
    }
    cfsr_lane_digest_final(&digest, ignored);
    cfsr_lane_digest_fini(&digest);
}

/* Asked for in pieces: the same windows. */
static void expect_windows(struct world *w, uint32_t k, uint64_t from, uint64_t budget)
{
    static struct expected expected;
    uint64_t to = w->sent[k], next = from;
    uint32_t at = 0, calls = 0;

    own_windows(&w->origin[k], to / CFSR_DIGEST_WINDOW_BYTES * CFSR_DIGEST_WINDOW_BYTES, &expected);
    while (at < expected.count && expected.window[at].index * CFSR_DIGEST_WINDOW_BYTES < from)
        at++;
    while (next < to) {
        struct cfsr_inbox_window window[3];
        uint32_t count;
        int rc = cfsr_inbox_window_digests(w->fs, &site, 0, 10 + k, &w->origin[k].journal, next, to,
                                           budget, window, 3, &count, &next);

        cr_assert_eq(rc, 0, "%s %s", cfsr_strerror(rc), cfsr_error_message());
        for (uint32_t i = 0; i < count; i++, at++) {
            cr_assert_lt(at, expected.count);
            cr_assert_eq(window[i].index, expected.window[at].index);
            cr_assert_arr_eq(window[i].digest, expected.window[at].digest, CFSR_DIGEST_LEN_BYTES);
        }
        cr_assert_lt(++calls, 100);
    }
    cr_assert_eq(at, expected.count);
}

Test(inbox_serve, window_digests_equal_the_origins_own_before_and_after_a_repair)
{
    struct cfsr_inbox_window window[8];
    struct cfsr_batch_header header;
    struct cfsr_inbox_item item;
    uint64_t next;
    uint32_t count;
    struct world w;
    int rc = 0;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 18, 120);
    expect_windows(&w, 0, 0, UINT64_MAX);
    expect_windows(&w, 1, 3u << 20, 1);
    item = world_find_item(&w, 2, CFSR_INBOX_BATCH, 4, &header);
    world_flip_body(&w, 2, item.body_offset + 5000);
    for (next = 0; rc == 0 && next < w.sent[header.site_id - 10];)
        rc = cfsr_inbox_window_digests(w.fs, &site, 0, header.site_id, &header.journal, next,
                                       w.sent[header.site_id - 10], UINT64_MAX, window, 8, &count,
                                       &next);
    cr_assert_eq(rc, -CFSR_E_DAMAGED);
    cr_assert_leq(next, header.lsn_from);
    world_repair_all(&w);
    expect_windows(&w, 0, 0, 3u << 20);
    expect_windows(&w, 1, 0, UINT64_MAX);
    world_fini(&w);
}
