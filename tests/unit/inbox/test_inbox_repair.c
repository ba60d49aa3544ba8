/* Damage in the middle of a lane: found, described, repaired, and read as if it had never been. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "world.h"

/* ---- one place at a time ---- */

Test(inbox_repair, a_body_is_repaired_and_its_prefix_is_offered)
{
    static struct cfsr_inbox_gap gaps[GAPS_MAX];
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_EXTENSION_MAX];
    struct cfsr_batch_header header, found;
    struct cfsr_inbox_item item;
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 1, 80);
    item = world_find_item(&w, 2, CFSR_INBOX_BATCH, 3, &header);
    world_flip_body(&w, 2, item.body_offset + item.local.record_bytes - 100);
    cr_assert_eq(world_check(&w, gaps), 1);
    cr_assert_eq(gaps[0].sequence, 2);
    cr_assert_eq(gaps[0].begin, item.body_offset);
    cr_assert_eq(gaps[0].end_sequence, 2);
    cr_assert_eq(gaps[0].end, item.body_offset + cfsr_inbox_record_space(item.local.record_bytes));
    cr_assert_eq(gaps[0].parts, 1);
    cr_assert_eq(gaps[0].part[0].site_id, header.site_id);
    cr_assert_eq(gaps[0].part[0].lsn_from, header.lsn_from);
    cr_assert_eq(gaps[0].part[0].lsn_to, header.lsn_to);
    cr_assert(gaps[0].part[0].prefix_sound);
    cr_assert_eq(cfsr_inbox_gap_prefix(w.fs, &site, &gaps[0], prefix), CFSR_BATCH_PREFIX_BYTES);
    cr_assert_eq(cfsr_batch_header_load(prefix, &found), 0);
    cr_assert_arr_eq(found.digest, header.digest, sizeof found.digest);
    expect_repairable(&w, "body");
    expect_survives_restart(&w, "body");
    world_fini(&w);
}

Test(inbox_repair, a_batch_header_is_repaired)
{
    struct cfsr_inbox_item item;
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 2, 80);
    item = world_find_item(&w, 2, CFSR_INBOX_BATCH, 2, NULL);
    world_flip_body(&w, 2, item.body_offset + 30);
    expect_repairable(&w, "header");
    item = world_find_item(&w, 3, CFSR_INBOX_BATCH, 2, NULL);
    world_flip_body(&w, 3, item.body_offset + CFSR_INBOX_LOCAL_HEADER_BYTES + 50);
    expect_repairable(&w, "prefix");
    expect_survives_restart(&w, "header and prefix");
    world_fini(&w);
}

Test(inbox_repair, the_cursors_of_a_segment_are_repaired)
{
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 3, 80);
    cr_assert_geq(world_last_sequence(&w), 3);
    world_flip_body(&w, 2, 20);
    world_flip_body(&w, 3, CFSR_INBOX_LOCAL_HEADER_BYTES + 20);
    expect_repairable(&w, "cursors"); /* the rest of the block behind them is lost with them */
    expect_survives_restart(&w, "cursors");
    world_fini(&w);
}

Test(inbox_repair, the_cursors_of_the_first_segment_are_repaired)
{
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 3, 60);
    world_zero(&w, 1, 0, 3 * CFSR_INBOX_BLOCK_BYTES);
    expect_repairable(&w, "first cursors");
    expect_survives_restart(&w, "first cursors");
    world_fini(&w);
}

Test(inbox_repair, the_cursors_of_the_last_segment_come_from_the_one_before)
{
    struct world w;
    uint64_t sequence;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 4, 80);
    sequence = world_last_sequence(&w);
    while (sequence > 1) { /* the last one that was begun, with some records in it */
        struct cfsr_inbox_scan scan;
        struct cfsr_inbox_item item;
        unsigned records = 0;

        cr_assert_eq(cfsr_inbox_scan_open(w.fs, &site, 0, sequence, false, &scan), 0);
        while (cfsr_inbox_scan_next(&scan, false, &item) == 1)
            records++;
        cfsr_inbox_scan_close(&scan);
        if (records > 4)
            break;
        sequence--;
    }
    cr_assert_gt(sequence, 1);
    world_flip_body(&w, sequence, 0);
    world_stop(&w);
    world_start(&w);
    cr_assert_gt(w.writer.state->damaged, 0);
    cr_assert_gt(w.writer.state->gaps, 0);
    world_refill(&w);
    world_repair_all(&w);
    expect_all_readable(&w, "last cursors");
    expect_survives_restart(&w, "last cursors");
    world_fini(&w);
}

Test(inbox_repair, an_index_costs_nothing)
{
    struct findings findings;
    struct cfsr_inbox_item item;
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 5, 80);
    item = world_find_item(&w, 2, CFSR_INBOX_INDEX, 0, NULL);
    world_flip_body(&w, 2, item.body_offset + 100);
    expect_all_readable(&w, "index");
    cr_assert_eq(world_repair_all(&w), 0);
    findings = world_verify(&w, CFSR_INBOX_SOUND);
    cr_assert_eq(findings.repaired, 1);
    expect_survives_restart(&w, "index");
    world_fini(&w);
}

Test(inbox_repair, a_segment_header_costs_nothing_and_is_written_anew)
{
    struct findings findings;
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 6, 80);
    world_flip(&w, 1, 3);
    world_flip(&w, 2, 20);
    world_flip(&w, 3, 66);
    expect_all_readable(&w, "segment header");
    findings = world_verify(&w, CFSR_INBOX_DAMAGED);
    cr_assert_eq(findings.header, 3);
    cr_assert_eq(world_repair_all(&w), 0); /* the check itself writes them */
    findings = world_verify(&w, CFSR_INBOX_SOUND);
    cr_assert_eq(findings.header, 0);
    expect_survives_restart(&w, "segment header");
    world_fini(&w);
}

Test(inbox_repair, a_missing_segment_is_repaired)
{
    static struct cfsr_inbox_gap gaps[GAPS_MAX];
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 7, 100);
    cr_assert_geq(world_last_sequence(&w), 4);
    world_lose_segment(&w, 2);
    cr_assert_eq(world_check(&w, gaps), 1);
    cr_assert_eq(gaps[0].sequence, 2);
    cr_assert_eq(gaps[0].begin, 0);
    cr_assert_eq(gaps[0].end_sequence, 3);
    cr_assert_eq(gaps[0].end, 0);
    cr_assert_eq(gaps[0].parts, ORIGINS);
    expect_repairable(&w, "missing segment");
    expect_survives_restart(&w, "missing segment");
    world_fini(&w);
}

Test(inbox_repair, several_gaps_and_one_over_segments)
{
    static struct cfsr_inbox_gap gaps[GAPS_MAX];
    struct cfsr_inbox_item item;
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 8, 160);
    cr_assert_geq(world_last_sequence(&w), 6);
    item = world_find_item(&w, 1, CFSR_INBOX_BATCH, 1, NULL);
    world_flip_body(&w, 1, item.body_offset + 1000);
    item = world_find_item(&w, 1, CFSR_INBOX_BATCH, 5, NULL);
    world_flip_body(&w, 1, item.body_offset + 1);
    /* From the middle of segment 2 over all of segment 3 into segment 4. */
    item = world_find_item(&w, 2, CFSR_INBOX_BATCH, 6, NULL);
    world_zero(&w, 2, item.body_offset, (uint32_t)(site.segment_bytes - item.body_offset));
    world_lose_segment(&w, 3);
    world_zero(&w, 4, 0, 1u << 19);
    cr_assert_eq(world_check(&w, gaps), 3);
    cr_assert_eq(gaps[2].sequence, 2);
    cr_assert_eq(gaps[2].end_sequence, 4);
    expect_repairable(&w, "several");
    expect_survives_restart(&w, "several");
    world_fini(&w);
}

/* ---- repairs that are not whole ---- */

Test(inbox_repair, a_part_of_the_repair_does_not_pass_for_all_of_it)
{
    static struct cfsr_inbox_gap gaps[GAPS_MAX];
    uint64_t before, missing;
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 9, 100);
    world_lose_segment(&w, 2);
    cr_assert_eq(world_check(&w, gaps), 1);
    before = gaps[0].part[0].lsn_from;
    missing = gaps[0].part[0].site_id;
    cr_assert_gt(gaps[0].part[0].lsn_to - before, 50 * RECORD_BYTES);
    world_repair_part(&w, &gaps[0], 0, 1); /* the first frame of several of one origin of two */
    expect_stopped(&w, "partly");
    cr_assert_eq(world_check(&w, gaps), 1);
    cr_assert_eq(gaps[0].part[0].site_id, missing);
    cr_assert_eq(gaps[0].part[0].lsn_from, before + 50 * RECORD_BYTES,
                 "only the rest is asked for");
    world_repair_part(&w, &gaps[0], 0, 0);
    expect_stopped(&w, "one origin of two");
    cr_assert_eq(world_check(&w, gaps), 1);
    cr_assert_eq(gaps[0].parts, 1);
    world_repair_part(&w, &gaps[0], 0, 0);
    expect_all_readable(&w, "whole");
    expect_survives_restart(&w, "whole");
    world_fini(&w);
}

Test(inbox_repair, a_damaged_repair_is_made_again)
{
    struct cfsr_inbox_item item = {0};
    struct findings findings;
    struct world w;
    uint64_t sequence;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 10, 80);
    item = world_find_item(&w, 2, CFSR_INBOX_BATCH, 1, NULL);
    world_flip_body(&w, 2, item.body_offset + 2000);
    expect_repairable(&w, "at first");
    sequence = world_last_sequence(&w);
    if (sequence > 1 && cfsr_inbox_lane_wants_segment(w.writer.lane) == 0) {
        struct cfsr_inbox_end end;

        cfsr_inbox_lane_end(w.writer.lane, &end);
        sequence = end.sequence;
    }
    world_fill(&w, 11, 5);
    item = world_find_item(&w, sequence, CFSR_INBOX_REPAIR, 0, NULL);
    world_flip_body(&w, sequence, item.body_offset + item.local.record_bytes - 10);
    expect_repairable(&w, "the repair's body");
    item = world_find_item(&w, sequence, CFSR_INBOX_REPAIR, 0, NULL);
    world_flip_body(&w, sequence, item.body_offset + 8);
    world_fill(&w, 12, 5);
    findings = world_verify(&w, CFSR_INBOX_SOUND); /* the second one still stands */
    cr_assert_geq(findings.repaired, 2);
    expect_all_readable(&w, "the first repair's header");
    expect_survives_restart(&w, "repairs");
    world_fini(&w);
}

Test(inbox_repair, a_consumer_stands_at_the_gap_and_goes_on_when_it_is_filled)
{
    struct cfsr_inbox_options options = {.opts_size = sizeof options,
                                         .consumer = "app",
                                         .lane = CFSR_INBOX_ALL_LANES,
                                         .all_records = true};
    uint64_t read[ORIGINS] = {0};
    struct cfsr_inbox_record record;
    struct cfsr_inbox_item item;
    struct cfsr_inbox *inbox;
    unsigned round, records;
    struct world w;
    int rc = 1;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 13, 80);
    item = world_find_item(&w, 2, CFSR_INBOX_BATCH, 2, NULL);
    world_flip_body(&w, 2, item.body_offset + 3000);
    world_flip_body(&w, 3, 10);
    for (round = 0; rc != 0; round++) {
        cr_assert_lt(round, 100);
        cr_assert_eq(cfsr_inbox_open_at(w.fs, &site, &options, &inbox), 0);
        for (records = 0; records < 100 && (rc = cfsr_inbox_next(inbox, 0, &record)) == 1;
             records++) {
            cr_assert_eq(record.lsn, read[record.site_id - 10]);
            read[record.site_id - 10] = record.end_lsn;
        }
        if (rc == -CFSR_E_DAMAGED) { /* the same reader goes on */
            cr_assert_eq(cfsr_inbox_next(inbox, 0, &record), -CFSR_E_DAMAGED);
            cr_assert_eq(cfsr_inbox_commit(inbox), 0);
            cr_assert_gt(world_repair_all(&w), 0, "%s", cfsr_error_message());
            rc = cfsr_inbox_next(inbox, 0, &record);
            cr_assert_eq(rc, 1, "%s", cfsr_error_message());
            cr_assert_eq(record.lsn, read[record.site_id - 10]);
            read[record.site_id - 10] = record.end_lsn;
        }
        cr_assert_geq(rc, 0, "%s", cfsr_error_message());
        cr_assert_eq(cfsr_inbox_commit(inbox), 0);
        cfsr_inbox_close(inbox); /* and begins again, in the middle of a repair too */
    }
    cr_assert_arr_eq(read, w.sent, sizeof read);
    world_fini(&w);
}

/* ---- what nothing behind the damage names ---- */

/* The header of an origin's last batch is lost, with batches of the other one behind it. */
static struct cfsr_inbox_item lose_last_batch(struct world *w)
{
    struct cfsr_inbox_item item = {0};
    struct cfsr_inbox_end end;

    for (unsigned i = 0; i < 8; i++) {
        unsigned k = i == 3; /* the fourth one */
        struct test_batch batch;

        world_seek(&w->origin[k], w->sent[k]);
        test_batch_make(&w->origin[k], 5, RECORD_BYTES, &batch);
        test_writer_put(&w->writer, &batch);
        w->sent[k] = batch.header.lsn_to;
        test_writer_drain(&w->writer);
        test_batch_free(&batch);
    }
    cfsr_inbox_lane_end(w->writer.lane, &end);
    cr_assert_eq(end.sequence, 1);
    item = world_find_item(w, 1, CFSR_INBOX_BATCH, 3, NULL);
    world_flip_body(w, 1, item.body_offset + 12);
    return item;
}

Test(inbox_repair, a_reader_does_not_end_behind_a_loss_that_nothing_names)
{
    static struct cfsr_inbox_gap gaps[GAPS_MAX];
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    lose_last_batch(&w);
    expect_stopped(&w, "unnamed");
    world_verify(&w, CFSR_INBOX_DAMAGED);
    cr_assert_eq(world_check(&w, gaps), 1, "the live lane knows");
    cr_assert_eq(gaps[0].part[0].lsn_to, w.sent[1]);
    cr_assert(w.unnamed);
    cfsr_inbox_lane_want_cursors(w.writer.lane);
    test_writer_cursors(&w.writer);
    expect_stopped(&w, "named by the lane's cursors");
    cr_assert_eq(world_check(&w, gaps), 1);
    cr_assert(!w.unnamed, "said once is enough");
    expect_repairable(&w, "named");
    expect_survives_restart(&w, "named");
    world_fini(&w);
}

/* The reader is behind the place when the first record comes that names what was lost there. */
Test(inbox_repair, a_reader_behind_a_loss_stops_at_the_batch_that_shows_it)
{
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .lane = 0, .all_records = true};
    uint64_t read[ORIGINS] = {0}, lost;
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    struct test_batch batch;
    struct world w;
    int rc;

    world_init(&w, 1);
    world_start(&w);
    lose_last_batch(&w);
    lost = w.sent[1];
    cr_assert_eq(cfsr_inbox_open_at(w.fs, &site, &options, &inbox), 0);
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1)
        read[record.site_id - 10] = record.end_lsn;
    cr_assert_eq(rc, -CFSR_E_DAMAGED);
    cr_assert_eq(read[0], w.sent[0], "it went on behind the place");
    cr_assert_eq(read[1], 0);

    world_seek(&w.origin[1], lost);
    test_batch_make(&w.origin[1], 5, RECORD_BYTES, &batch);
    test_writer_put(&w.writer, &batch);
    w.sent[1] = batch.header.lsn_to;
    test_batch_free(&batch);
    test_writer_drain(&w.writer);
    rc = cfsr_inbox_next(inbox, 0, &record);
    cr_assert_eq(rc, -CFSR_E_DAMAGED, "%d: LSN %llu, and nothing below was read", rc,
                 (unsigned long long)record.lsn);
    cr_assert_eq(cfsr_inbox_next(inbox, 0, &record), -CFSR_E_DAMAGED, "it does not wear off");

    cr_assert_eq(world_repair_all(&w), 1);
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        cr_assert_eq(record.lsn, read[record.site_id - 10]);
        read[record.site_id - 10] = record.end_lsn;
    }
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    cr_assert_arr_eq(read, w.sent, sizeof read);
    cfsr_inbox_close(inbox);
    world_fini(&w);
}

Test(inbox_repair, damage_that_cost_nothing_ends_with_the_lanes_cursors)
{
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    lose_last_batch(&w);
    world_stop(&w); /* recovery falls back, and the origin sends it again */
    world_start(&w);
    cr_assert_gt(w.writer.state->damaged, 0);
    test_writer_cursors(&w.writer); /* at once, after damage */
    world_refill(&w);
    cr_assert_eq(world_repair_all(&w), 0);
    expect_all_readable(&w, "sent again");
    world_verify(&w, CFSR_INBOX_SOUND);
    expect_survives_restart(&w, "sent again");
    world_fini(&w);
}

/* ---- recovery ---- */

Test(inbox_repair, the_last_batch_of_an_origin_is_sent_again)
{
    struct cfsr_batch_header header;
    struct cfsr_inbox_item item;
    struct test_batch batch;
    struct world w;
    int origin;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 14, 30);
    world_seek(&w.origin[1], w.sent[1]);
    test_batch_make(&w.origin[1], 7, RECORD_BYTES, &batch);
    test_writer_put(&w.writer, &batch);
    w.sent[1] = batch.header.lsn_to;
    test_writer_drain(&w.writer);
    for (unsigned i = 0; i < 6; i++) { /* the other origin vouches for it */
        struct test_batch other;

        world_seek(&w.origin[0], w.sent[0]);
        test_batch_make(&w.origin[0], 5, RECORD_BYTES, &other);
        test_writer_put(&w.writer, &other);
        w.sent[0] = other.header.lsn_to;
        test_writer_drain(&w.writer);
        test_batch_free(&other);
    }
    {
        struct cfsr_inbox_end end;

        cfsr_inbox_lane_end(w.writer.lane, &end);
        for (unsigned n = 0;; n++) {
            item = world_find_item(&w, end.sequence, CFSR_INBOX_BATCH, n, &header);
            if (header.site_id == 11 && header.lsn_to == w.sent[1])
                break;
        }
        world_flip_body(&w, end.sequence, item.body_offset + 2000);
    }
    world_stop(&w);
    world_start(&w);
    cr_assert_eq(w.writer.state->gaps, 1);
    origin = cfsr_inbox_lane_origin(w.writer.lane, 11, &w.origin[1].journal);
    cr_assert_eq(cfsr_inbox_lane_durable(w.writer.lane, origin)->lsn, batch.header.lsn_from);
    cr_assert_eq(cfsr_inbox_lane_durable(w.writer.lane, origin)->last.lsn,
                 batch.header.lsn_from - RECORD_BYTES);
    world_refill(&w);
    cr_assert_eq(world_repair_all(&w), 0, "what was sent again is not missing");
    expect_all_readable(&w, "sent again");
    world_verify(&w, CFSR_INBOX_SOUND);
    test_batch_free(&batch);
    world_fini(&w);
}

Test(inbox_repair, recovery_lists_damage_in_the_middle_and_goes_on_behind_it)
{
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_inbox_end end;
    struct cfsr_inbox_item item;
    struct world w;
    unsigned n;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 15, 42);
    cfsr_inbox_lane_end(w.writer.lane, &end);
    cr_assert_gt(end.body_offset, 400000);
    world_stop(&w);
    item = world_find_item(&w, end.sequence, CFSR_INBOX_BATCH, 2, NULL);
    world_flip_body(&w, end.sequence, item.body_offset + 12);
    cr_assert_eq(cfsr_inbox_recover_lane(w.fs, &site, 0, true, state), 0, "%s",
                 cfsr_error_message());
    cr_assert_eq(state->damaged, 1);
    cr_assert_eq(state->gaps, 1);
    cr_assert_eq(state->gap[0].sequence, end.sequence);
    /* With the padding before it, if it is the first of its block. */
    cr_assert_leq(state->gap[0].begin, item.body_offset);
    cr_assert_lt(item.body_offset - state->gap[0].begin, CFSR_INBOX_BLOCK_BYTES);
    cr_assert_eq(state->cut_bytes, 0);
    for (n = 0; n < ORIGINS; n++)
        cr_assert_eq(state->cursor[n].lsn, w.sent[state->cursor[n].site_id - 10]);
    cr_assert_eq(state->end_sequence, end.sequence);
    cr_assert_eq(state->end_offset, end.body_offset);
    world_start(&w);
    world_repair_all(&w);
    expect_all_readable(&w, "after recovery");
    expect_survives_restart(&w, "after recovery");
    free(state);
    world_fini(&w);
}

Test(inbox_repair, more_gaps_than_the_list_holds_are_one)
{
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);
    struct cfsr_inbox_end end;
    struct world w;
    unsigned i, flipped = 0;

    world_init(&w, 1);
    world_start(&w);
    for (i = 0; i < 60; i++) {
        struct test_batch batch;

        world_seek(&w.origin[0], w.sent[0]);
        test_batch_make(&w.origin[0], 1, RECORD_BYTES, &batch);
        test_writer_put(&w.writer, &batch);
        w.sent[0] = batch.header.lsn_to;
        test_writer_drain(&w.writer);
        test_batch_free(&batch);
    }
    cfsr_inbox_lane_end(w.writer.lane, &end);
    cr_assert_eq(end.sequence, 1);
    world_stop(&w);
    for (i = 1; flipped < 20; i++, flipped++) { /* every second one of those left */
        struct cfsr_inbox_item item = world_find_item(&w, 1, CFSR_INBOX_BATCH, i, NULL);

        world_flip_body(&w, 1, item.body_offset);
    }
    cr_assert_gt(flipped, CFSR_INBOX_STATE_GAPS_MAX);
    cr_assert_eq(cfsr_inbox_recover_lane(w.fs, &site, 0, true, state), 0);
    cr_assert_eq(state->damaged, flipped);
    cr_assert_eq(state->gaps, CFSR_INBOX_STATE_GAPS_MAX);
    cr_assert_gt(state->gap[CFSR_INBOX_STATE_GAPS_MAX - 1].end,
                 state->gap[CFSR_INBOX_STATE_GAPS_MAX - 1].begin + 40000);
    cr_assert_eq(state->cursor[0].lsn, w.sent[0]);
    world_start(&w);
    cr_assert_gt(world_repair_all(&w), 0);
    w.sent[1] = 0;
    expect_all_readable(&w, "many");
    free(state);
    world_fini(&w);
}

/* ---- retention ---- */

Test(inbox_repair, retention_takes_the_damaged_segment_before_its_repairs)
{
    struct cfsr_inbox_range_of_segments range;
    struct cfsr_inbox_item item;
    struct cfsr_inbox_end end;
    uint64_t read[ORIGINS];
    struct world w;

    world_init(&w, 1);
    world_start(&w);
    world_fill(&w, 16, 60);
    item = world_find_item(&w, 1, CFSR_INBOX_BATCH, 2, NULL);
    world_flip_body(&w, 1, item.body_offset + 700);
    cr_assert_eq(world_repair_all(&w), 1);
    cfsr_inbox_lane_end(w.writer.lane, &end);
    cr_assert_gt(end.sequence, 1);
    cr_assert_eq(cfsr_inbox_list_segments(w.fs, &site, 0, &range), 0);
    for (uint64_t sequence = range.first; sequence < end.sequence; sequence++) {
        cr_assert_eq(cfsr_inbox_drop_segment(w.fs, &site, 0, sequence, false), 0);
        if (sequence + 1 < end.sequence || end.body_offset > 0) {
            struct cfsr_inbox_options options = {
                .opts_size = sizeof options, .lane = 0, .all_records = true};
            struct cfsr_inbox_record record;
            struct cfsr_inbox *inbox;
            int rc;

            memset(read, 0, sizeof read);
            cr_assert_eq(cfsr_inbox_open_at(w.fs, &site, &options, &inbox), 0);
            while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
                if (read[record.site_id - 10] != 0)
                    cr_assert_eq(record.lsn, read[record.site_id - 10]);
                read[record.site_id - 10] = record.end_lsn;
            }
            cr_assert_eq(rc, 0, "%s", cfsr_error_message());
            cfsr_inbox_close(inbox);
            cr_assert_eq(world_repair_all(&w), 0);
        }
    }
    world_fini(&w);
}

/* ---- anything ---- */

/* Random damage, restarts and repairs: what was acknowledged is there again in the end, in order,
 * once. */
static void damage_run(uint64_t seed)
{
    struct test_random random = {.state = seed};
    struct world w;
    char what[64];

    snprintf(what, sizeof what, "seed %llu", (unsigned long long)seed);
    world_init(&w, seed);
    world_start(&w);
    world_fill(&w, seed, 20 + (unsigned)test_random_below(&random, 80));
    for (unsigned round = 0; round < 3; round++) {
        struct cfsr_inbox_end end;
        unsigned places = 1 + (unsigned)test_random_below(&random, 4);

        cfsr_inbox_lane_end(w.writer.lane, &end);
        if (test_random_below(&random, 3) == 0)
            world_stop(&w);
        while (places-- > 0) {
            uint64_t sequence = 1 + test_random_below(&random, end.sequence);
            uint64_t limit = sequence == end.sequence ? end.body_offset : site.segment_bytes;
            uint64_t at = test_random_below(&random, limit);
            struct cfsr_inbox_range_of_segments range;

            cr_assert_eq(cfsr_inbox_list_segments(w.fs, &site, 0, &range), 0);
            if (range.missing > 0) /* its file is not there to be damaged */
                break;
            switch (test_random_below(&random, 8)) {
            case 0: world_zero(&w, sequence, at, (uint32_t)cfsr_min_u64(limit - at, 300000)); break;
            case 1: world_flip(&w, sequence, test_random_below(&random, 64)); break;
            case 2:
                if (sequence < end.sequence && sequence > 1)
                    world_lose_segment(&w, sequence);
                break;
            case 3: world_flip_body(&w, sequence, at % 512); break;
            default: world_flip_body(&w, sequence, at); break;
            }
        }
        if (!w.live) {
            world_start(&w);
            world_refill(&w);
        }
        world_repair_all(&w);
        expect_all_readable(&w, what);
        world_verify(&w, CFSR_INBOX_SOUND);
        world_fill(&w, seed + round, (unsigned)test_random_below(&random, 30));
        expect_all_readable(&w, what);
    }
    expect_survives_restart(&w, what);
    world_fini(&w);
}

Test(inbox_repair, random_damage_is_repaired_part_one)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        damage_run(seed);
}
Test(inbox_repair, random_damage_is_repaired_part_two)
{
    for (uint64_t seed = 1001; seed <= 1020; seed++)
        damage_run(seed);
}
