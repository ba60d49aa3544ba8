/* Readers: order over lanes and origins, overlaps, consumers, retention, digests. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inbox/digest.h"
#include "inbox/gc.h"
#include "support.h"

static struct cfsr_site site;

static struct cfsr_fs *sim_with_site(uint32_t lanes)
{
    struct cfsr_fs_sim_options options = {.seed = 1, .capacity_bytes = 512ull << 20};
    struct cfsr_fs *fs;

    cr_assert_eq(cfsr_fs_sim_create(&options, &fs), 0);
    test_site_init(&site, "/data", lanes);
    cr_assert_eq(cfsr_site_create(fs, &site), 0, "%s", cfsr_error_message());
    cr_assert_eq(fs->ops->sync_dir(fs, "/"), 0); /* of the data directory's own name */
    return fs;
}

static void put(struct test_writer *writer, struct test_origin *origin, uint32_t records,
                uint32_t bytes)
{
    struct test_batch batch;

    test_batch_make(origin, records, bytes, &batch);
    test_writer_put(writer, &batch);
    test_batch_free(&batch);
}

static struct cfsr_inbox *open_reader(struct cfsr_fs *fs, const char *consumer, uint64_t site_id)
{
    struct cfsr_inbox_options options = {.opts_size = sizeof options,
                                         .consumer = consumer,
                                         .site_id = site_id,
                                         .lane = CFSR_INBOX_ALL_LANES};
    struct cfsr_inbox *inbox;

    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &inbox), 0, "%s", cfsr_error_message());
    return inbox;
}

/* Four lanes, three origins, interleaved at random in each lane. Returns the entries written. */
static uint64_t write_random(struct cfsr_fs *fs, uint64_t seed)
{
    struct test_random random = {.state = seed};
    uint64_t entries = 0;
    uint32_t lane, i;

    for (lane = 0; lane < site.lanes; lane++) {
        struct test_origin origin[3];
        struct test_writer writer;

        test_writer_start(&writer, fs, &site, lane);
        for (i = 0; i < 3; i++) {
            test_origin_init(&origin[i], &site, 10 + i, (uint8_t)(1 + i), lane);
            origin[i].step_us = 1 + test_random_below(&random, 3);
        }
        for (i = 0; i < 60; i++) {
            struct test_origin *from = &origin[test_random_below(&random, 3)];

            from->timestamp_us += test_random_below(&random, 100);
            put(&writer, from, 1 + (uint32_t)test_random_below(&random, 30),
                TEST_RECORD_UNIT * (1 + (uint32_t)test_random_below(&random, 40)));
        }
        for (i = 0; i < 3; i++) {
            entries += origin[i].seq;
            test_origin_fini(&origin[i]);
        }
        test_writer_drain(&writer);
        test_writer_stop(&writer, true);
    }
    return entries;
}

struct order {
    uint64_t timestamp_us, site_id, lane, lsn;
};

static bool in_order(const struct order *a, const struct order *b)
{
    if (a->timestamp_us != b->timestamp_us)
        return a->timestamp_us < b->timestamp_us;
    if (a->site_id != b->site_id)
        return a->site_id < b->site_id;
    if (a->lane != b->lane)
        return a->lane < b->lane;
    return a->lsn < b->lsn;
}

Test(inbox_reader, merges_lanes_and_origins_in_order_each_record_once)
{
    uint64_t seed;

    for (seed = 1; seed <= 8; seed++) {
        struct cfsr_fs *fs = sim_with_site(4);
        uint64_t entries = write_random(fs, seed), count = 0;
        struct cfsr_inbox *inbox = open_reader(fs, NULL, 0);
        struct cfsr_inbox_record record;
        struct order last = {0};
        int rc;

        while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
            struct order order = {record.timestamp_us, record.site_id, record.lane, record.lsn};

            cr_assert(count == 0 || in_order(&last, &order), "seed %llu", (unsigned long long)seed);
            cr_assert_gt(record.arrival, 0);
            last = order;
            count++;
        }
        cr_assert_eq(rc, 0, "%s", cfsr_error_message());
        cr_assert_eq(count, entries);
        cfsr_inbox_close(inbox);
        inbox = open_reader(fs, NULL, 11);
        for (count = 0; cfsr_inbox_next(inbox, 0, &record) == 1; count++)
            cr_assert_eq(record.site_id, 11);
        cr_assert_gt(count, 0);
        cr_assert_lt(count, entries);
        cfsr_inbox_close(inbox);
        cfsr_fs_sim_destroy(fs);
    }
}

Test(inbox_reader, overlapping_frames_are_read_once)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_record record;
    struct cfsr_inbox_batch batch;
    struct cfsr_inbox *inbox;
    struct test_origin origin;
    struct test_writer writer;
    uint64_t expected = 0, batches = 0;

    test_writer_start(&writer, fs, &site, 0);
    test_origin_init(&origin, &site, 1, 1, 0);
    put(&writer, &origin, 10, 512);
    test_origin_seek(&origin, 5 * 512, 5, 5);
    put(&writer, &origin, 20, 512); /* five known, fifteen new */
    test_origin_seek(&origin, 2 * 512, 2, 2);
    put(&writer, &origin, 3, 512); /* nothing new */
    cr_assert_eq(cfsr_inbox_lane_staged(writer.lane, 0)->lsn, 25 * 512);
    test_writer_drain(&writer);
    inbox = open_reader(fs, NULL, 0);
    while (cfsr_inbox_next(inbox, 0, &record) == 1) {
        cr_assert_eq(record.lsn, expected);
        cr_assert_eq(record.seq, expected / 512 + 1);
        expected = record.end_lsn;
    }
    cr_assert_eq(expected, 25 * 512);
    cfsr_inbox_close(inbox);
    inbox = open_reader(fs, NULL, 0);
    while (cfsr_inbox_next_batch(inbox, &batch) == 1)
        batches++;
    cr_assert_eq(batches, 3);
    cfsr_inbox_close(inbox);
    test_writer_stop(&writer, true);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_reader, follows_the_tail_and_sees_only_what_was_written)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_options options = {.opts_size = sizeof options, .lane = 0, .follow = true};
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    struct test_origin origin;
    struct test_writer writer;
    unsigned i, count = 0;

    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &inbox), 0);
    cr_assert_eq(cfsr_inbox_next(inbox, 0, &record), 0, "nothing there yet");
    test_writer_start(&writer, fs, &site, 0);
    test_origin_init(&origin, &site, 1, 1, 0);
    for (i = 0; i < 30; i++) { /* over several segments */
        put(&writer, &origin, 20, 8192);
        cr_assert_eq(cfsr_inbox_next(inbox, 0, &record), 0, "in memory only");
        test_writer_drain(&writer);
        while (cfsr_inbox_next(inbox, 20, &record) == 1) {
            cr_assert_eq(record.seq, ++count);
            if (count == origin.seq)
                break;
        }
        cr_assert_eq(count, origin.seq);
    }
    cfsr_inbox_close(inbox);
    test_writer_stop(&writer, true);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_reader, a_consumer_goes_on_where_it_committed)
{
    struct cfsr_fs *fs = sim_with_site(4);
    uint64_t entries = write_random(fs, 5), count = 0, expected = 0;
    struct cfsr_inbox_record record;
    struct order last = {0};
    unsigned round = 0;
    bool more = true;

    while (more) {
        struct cfsr_inbox *inbox = open_reader(fs, "apply", 0);
        unsigned i;

        cr_assert_lt(++round, 1000);
        for (i = 0; i < 97 && more; i++) {
            struct order order;

            more = cfsr_inbox_next(inbox, 0, &record) == 1;
            order = (struct order){record.timestamp_us, record.site_id, record.lane, record.lsn};
            cr_assert(!more || expected + count == 0 || in_order(&last, &order));
            count += more;
            last = order;
        }
        cr_assert_eq(cfsr_inbox_commit(inbox), 0, "%s", cfsr_error_message());
        expected = count;
        if (more) { /* read but not committed: comes again */
            struct order kept = last;

            cr_assert_geq(cfsr_inbox_next(inbox, 0, &record), 0);
            last = kept;
        }
        cfsr_inbox_close(inbox);
    }
    cr_assert_eq(count, entries);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_reader, a_consumer_belongs_to_one_reader_and_one_filter)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .consumer = "one", .lane = CFSR_INBOX_ALL_LANES};
    struct cfsr_inbox *inbox, *second;

    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &inbox), 0);
    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &second), -CFSR_E_LOCKED);
    cr_assert_eq(cfsr_consumer_remove(fs, &site, "one"), -CFSR_E_LOCKED);
    cfsr_inbox_close(inbox);
    options.site_id = 7;
    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &second), -CFSR_E_CONFIG);
    options.consumer = "../escape";
    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &second), -CFSR_E_CONFIG);
    cr_assert_eq(cfsr_consumer_remove(fs, &site, "one"), 0);
    cr_assert_eq(cfsr_consumer_remove(fs, &site, "one"), -ENOENT);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_reader, a_torn_commit_leaves_the_one_before)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_consumer *consumer;

    cr_assert_eq(cfsr_consumer_open(fs, &site, "c", true, true, &consumer), 0);
    consumer->position[0].sequence = 5;
    cr_assert_eq(cfsr_consumer_store(consumer, &site, 1), 0); /* generation 1: second slot */
    consumer->position[0].sequence = 6;
    cr_assert_eq(cfsr_consumer_store(consumer, &site, 2), 0); /* generation 2: first slot */
    cfsr_consumer_close(consumer);
    cr_assert_eq(cfsr_fs_sim_flip_bit(fs, "/data/inbox/consumers/c", 800), 0);
    cr_assert_eq(cfsr_consumer_open(fs, &site, "c", false, false, &consumer), 0);
    cr_assert_eq(consumer->position[0].sequence, 5);
    cfsr_consumer_close(consumer);
    cfsr_fs_sim_destroy(fs);
}

/* Points 509: the power went in the middle of the very first store. */
Test(inbox_reader, a_torn_registration_is_begun_anew)
{
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .data_dir = "/data", .consumer = "c"};
    const char *path = "/data/inbox/consumers/c";
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_consumer *consumer;
    struct cfsr_inbox *inbox;
    struct cfsr_file *file;

    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &inbox), 0, "%s", cfsr_error_message());
    cfsr_inbox_close(inbox);
    /* Registered: whichever slot rots, the other one has it. */
    for (unsigned slot = 0; slot < 2; slot++) {
        uint64_t bit = (slot * 4096ull + 40) * 8;
        cr_assert_eq(cfsr_fs_sim_flip_bit(fs, path, bit), 0);
        cr_assert_eq(cfsr_consumer_open(fs, &site, "c", false, false, &consumer), 0);
        cr_assert_gt(consumer->generation, 0);
        cfsr_consumer_close(consumer);
        cr_assert_eq(cfsr_fs_sim_flip_bit(fs, path, bit), 0);
    }
    /* As torn: something in the second slot, nothing in the first. */
    cr_assert_eq(cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file), 0);
    static const uint8_t nothing[4096];
    cr_assert_geq(cfsr_file_pwrite(file, nothing, sizeof nothing, 0, true), 0);
    cr_assert_geq(cfsr_file_pwrite(file, nothing, 100, 4096 + 20, true), 0);
    cfsr_file_close(file);
    cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &inbox), 0, "%s", cfsr_error_message());
    cfsr_inbox_close(inbox);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_reader, retention_keeps_what_a_consumer_needs)
{
    struct cfsr_inbox_gc_facts facts = {.first_sequence = 1,
                                        .write_sequence = 10,
                                        .lowest_needed = UINT64_MAX,
                                        .file_bytes = 100,
                                        .lane_files = 10,
                                        .lane_cap_bytes = 2000,
                                        .free_bytes = 1000,
                                        .free_floor_bytes = 100};

    cr_assert_eq(cfsr_inbox_gc_judge(&facts).remove_below, 1,
                 "no consumer, below the cap: all is kept");
    facts.lane_cap_bytes = 600;
    cr_assert_eq(cfsr_inbox_gc_judge(&facts).remove_below, 1,
                 "no consumer: it is the only copy here");
    cr_assert(cfsr_inbox_gc_judge(&facts).stalled, "so the sender waits");
    facts.lowest_needed = 3;
    cr_assert_eq(cfsr_inbox_gc_judge(&facts).remove_below, 3);
    cr_assert(cfsr_inbox_gc_judge(&facts).stalled, "the consumer is behind");
    facts.lowest_needed = 10;
    facts.lane_cap_bytes = 2000;
    cr_assert_eq(cfsr_inbox_gc_judge(&facts).remove_below, 9, "one full segment stays for repair");
    cr_assert(!cfsr_inbox_gc_judge(&facts).stalled);
    facts.lowest_needed = 2;
    facts.free_bytes = 0;
    facts.free_floor_bytes = 300;
    cr_assert_eq(cfsr_inbox_gc_judge(&facts).remove_below, 2);
    cr_assert(cfsr_inbox_gc_judge(&facts).stalled, "the floor of free space counts too");
}

Test(inbox_reader, a_consumer_behind_recycled_segments_is_told)
{
    struct cfsr_fs *fs = sim_with_site(1);
    struct cfsr_inbox_gc_result result;
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    struct test_origin origin;
    struct test_writer writer;
    uint64_t first;
    unsigned i;

    test_writer_start(&writer, fs, &site, 0);
    test_origin_init(&origin, &site, 1, 1, 0);
    put(&writer, &origin, 20, 8192);
    test_writer_drain(&writer);
    inbox = open_reader(fs, "late", 0);
    cr_assert_eq(cfsr_inbox_next(inbox, 0, &record), 1);
    cr_assert_eq(cfsr_inbox_commit(inbox), 0);
    cfsr_inbox_close(inbox);
    for (i = 0; i < 60; i++)
        put(&writer, &origin, 20, 8192);
    test_writer_drain(&writer);
    cr_assert_eq(cfsr_inbox_gc_lane(fs, &site, 0, 5, 1, 1, &result), 0, "%s", cfsr_error_message());
    cr_assert_eq(result.removed, 0, "it still needs the first");
    cr_assert(result.stalled);
    cr_assert_eq(cfsr_inbox_drop_segment(fs, &site, 0, 1, true), 0);
    {
        struct cfsr_inbox_options options = {
            .opts_size = sizeof options, .consumer = "late", .lane = CFSR_INBOX_ALL_LANES};

        cr_assert_eq(cfsr_inbox_open_at(fs, &site, &options, &inbox), -CFSR_E_GONE);
    }
    cr_assert_eq(cfsr_consumer_remove(fs, &site, "late"), 0);
    cr_assert_eq(cfsr_inbox_gc_lane(fs, &site, 0, 5, 1, 1, &result), 0);
    cr_assert_eq(result.removed, 0, "nobody has seen them");
    cr_assert(result.stalled);
    cr_assert_eq(cfsr_inbox_drop_segment(fs, &site, 0, 2, true), 0);
    cr_assert_eq(cfsr_inbox_drop_segment(fs, &site, 0, 3, true), 0);
    inbox = open_reader(fs, NULL, 0); /* begins exactly where the oldest segment says */
    cr_assert_eq(cfsr_inbox_next(inbox, 0, &record), 1);
    first = record.seq;
    for (i = 1; cfsr_inbox_next(inbox, 0, &record) == 1; i++)
        cr_assert_eq(record.seq, first + i);
    cr_assert_eq(record.seq, origin.seq);
    cfsr_inbox_close(inbox);
    test_writer_stop(&writer, true);
    test_origin_fini(&origin);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_reader, digest_is_that_of_the_records_whatever_the_frames)
{
    struct cfsr_inbox_lane_digest digest[2];
    unsigned run;

    for (run = 0; run < 2; run++) {
        struct cfsr_fs *fs = sim_with_site(1);
        struct test_origin origin;
        struct test_writer writer;

        test_writer_start(&writer, fs, &site, 0);
        test_origin_init(&origin, &site, 1, 1, 0);
        while (origin.lsn < 2400 * 1024)
            put(&writer, &origin, run == 0 ? 100 : 7, 1024);
        test_writer_drain(&writer);
        cr_assert_eq(cfsr_inbox_digest_lane(fs, &site, 0, 1, 2300 * 1024, &digest[run]), 0);
        cr_assert_eq(digest[run].records, 2300);
        cr_assert_eq(digest[run].to_lsn, 2300 * 1024);
        test_writer_stop(&writer, true);
        test_origin_fini(&origin);
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert_eq(memcmp(digest[0].digest, digest[1].digest, CFSR_DIGEST_LEN_BYTES), 0);
}
