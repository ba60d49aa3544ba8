/* The writer, recovery and the reader together, on real files. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <string.h>

#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/status_page.h"
#include "support.h"
#include <cfsrepl/reader.h>

/* Counts entries from lsn; checks that seqs of the one shard go up by one from first_seq. */
static uint64_t count_entries(const struct cfsr_site *site, uint32_t lane, uint64_t lsn,
                              uint64_t first_seq)
{
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    uint64_t count = 0;
    int rc;

    cr_assert(cfsr_reader_open(site->data_dir, lane, lsn, &reader) == 0);
    while ((rc = cfsr_reader_next(reader, &view)) == 1) {
        if (view.op > 10)
            continue;
        if (first_seq != 0)
            cr_assert(view.seq == first_seq + count);
        count++;
    }
    cr_assert(rc == 0, "%s", cfsr_error_message());
    cfsr_reader_close(reader);
    return count;
}

Test(journal_writer, appends_are_read_back)
{
    struct cfsr_site site;
    struct cfsr_journal *journal;
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    struct cfsr_entry_position positions[50];

    test_site_make(&site, 1, 1);
    journal = test_journal_open(&site);
    for (uint32_t i = 0; i < 50; i++)
        positions[i] = test_append(journal, 0, i + 1, i * 7);
    cr_assert(cfsr_reader_open(site.data_dir, 0, positions[10].lsn, &reader) == 0);
    for (uint32_t i = 10; i < 50; i++) {
        do
            cr_assert(cfsr_reader_next(reader, &view) == 1);
        while (view.op > 10);
        cr_assert(view.lsn == positions[i].lsn);
        cr_assert(view.end_lsn == positions[i].end_lsn);
        cr_assert(view.seq == i + 1);
        cr_assert(view.timestamp_us == positions[i].timestamp_us);
        cr_assert(view.payload_bytes == i * 7);
        for (uint32_t b = 0; b < i * 7; b++)
            cr_assert(((const uint8_t *)view.payload)[b] == (uint8_t)((i + 1) * 31 + b));
    }
    cfsr_reader_close(reader);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(count_entries(&site, 0, 0, 1) == 50);
    test_site_remove(&site);
}

Test(journal_writer, clean_close_goes_on_where_it_ended)
{
    struct cfsr_site site;
    struct cfsr_lane_state state;
    struct cfsr_entry_position last, next;

    test_site_make(&site, 1, 1);
    for (int round = 0; round < 3; round++) {
        struct cfsr_journal *journal = test_journal_open(&site);

        for (uint64_t i = 0; i < 10; i++)
            last = test_append(journal, 0, i, 100);
        cr_assert(cfsr_journal_close(journal) == 0);
        cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, true, false, &state) ==
                  0);
        cr_assert(state.clean);
        cr_assert(state.entries == (uint64_t)(round + 1) * 10);
        cr_assert(state.incarnation == 1);
        cfsr_lane_state_fini(&state);
    }
    struct cfsr_journal *journal = test_journal_open(&site);
    next = test_append(journal, 0, 1, 1);
    cr_assert(next.seq == last.seq + 1);
    cr_assert(next.lsn < site.segment_bytes);
    cr_assert(next.timestamp_us > last.timestamp_us);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(count_entries(&site, 0, 0, 1) == 31);
    test_site_remove(&site);
}

Test(journal_writer, a_killed_writer_loses_nothing_and_resumes_at_a_boundary)
{
    struct cfsr_site site;
    struct cfsr_journal *journal;
    struct cfsr_lane_state state;
    struct cfsr_entry_position last, next;

    test_site_make(&site, 1, 1);
    journal = test_journal_open(&site);
    for (uint64_t i = 0; i < 20; i++)
        last = test_append(journal, 0, i, 333);
    test_snapshot(&site);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_restore(&site);

    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, false, false, &state) == 0);
    cr_assert(!state.clean);
    cr_assert(state.end_lsn == site.segment_bytes);
    cr_assert(state.cut_lsn >= last.end_lsn);
    cr_assert(state.incarnation == 2);
    cr_assert(state.entries == 20);
    cfsr_lane_state_fini(&state);
    journal = test_journal_open(&site);
    next = test_append(journal, 0, 1, 1);
    cr_assert(next.lsn >= site.segment_bytes);
    cr_assert(next.seq == last.seq + 1);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(count_entries(&site, 0, 0, 1) == 21);
    test_site_remove(&site);
}

Test(journal_writer, a_torn_tail_is_cut_and_never_comes_back)
{
    struct cfsr_site site;
    struct cfsr_journal *journal;
    struct cfsr_lane_state state;
    struct cfsr_entry_position positions[20];

    test_site_make(&site, 1, 1);
    journal = test_journal_open(&site);
    struct cfsr_entry entries[20];
    for (uint64_t i = 0; i < 20; i++)
        entries[i] = (struct cfsr_entry){
            .inode = i, .op = CFSR_OP_SETATTR, .payload = "12345678", .payload_bytes = 8};
    cr_assert(cfsr_journal_append(journal, entries, 20, positions, NULL) == 0);
    test_snapshot(&site);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_restore(&site);
    /* Without a later MARK nothing says the group was durable: damage in it is a torn tail. */
    uint8_t zeros[CFSR_RECORD_HEADER_BYTES + CFSR_MARK_PAYLOAD_BYTES] = {0};
    test_write_at(&site, 0, positions[19].end_lsn, zeros,
                  sizeof zeros); /* an idle MARK, if it came in between */
    test_flip_bit(&site, 0, positions[12].lsn + 50, 3);

    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, false, false, &state) == 0,
              "%s", cfsr_error_message());
    cr_assert(state.cut_lsn == positions[12].lsn);
    cr_assert(state.entries == 12);
    cr_assert(state.end_lsn == site.segment_bytes);
    cr_assert(state.cut_bytes >= positions[19].lsn - positions[12].lsn);
    cfsr_lane_state_fini(&state);
    test_flip_bit(&site, 0, positions[12].lsn + 50,
                  3); /* the PAD stands there now: nothing behind it counts */
    journal = test_journal_open(&site);
    struct cfsr_entry_position next = test_append(journal, 0, 99, 8);
    cr_assert(next.seq == 13);
    cr_assert(next.lsn >= site.segment_bytes);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(count_entries(&site, 0, 0, 1) == 13);
    test_site_remove(&site);
}

/* Recovery closes an empty segment behind the last record; the next one finds nothing but that
 * segment. */
Test(journal_writer, recovering_again_and_again_keeps_the_count_of_entries)
{
    static const uint8_t nothing[8192];
    struct cfsr_site site;
    struct cfsr_lane_state state;
    struct cfsr_journal *journal;
    uint64_t boundary;

    test_site_make(&site, 1, 1);
    journal = test_journal_open(&site);
    for (uint64_t inode = 1; inode <= 3; inode++)
        (void)test_append(journal, 0, inode, 40);
    test_snapshot(&site);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_restore(&site);
    journal = test_journal_open(&site); /* cuts the tail, begins the next segment, and is killed */
    boundary = cfsr_segment_first_lsn(&site, test_append(journal, 0, 4, 40).lsn);
    cr_assert(boundary > 0);
    test_snapshot(&site);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_restore(&site);
    test_write_at(&site, 0, boundary, nothing,
                  sizeof nothing); /* its group never reached the disk */
    for (unsigned i = 0; i < 3; i++) {
        cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, false, false, &state) ==
                      0,
                  "%s", cfsr_error_message());
        cr_expect(state.entries == 3, "recovery %u counts %llu entries", i,
                  (unsigned long long)state.entries);
        cr_expect(state.next_seq[0] == 4);
        cfsr_lane_state_fini(&state);
    }
    test_site_remove(&site);
}

Test(journal_writer, rot_below_the_commit_point_stops_with_a_typed_error)
{
    struct cfsr_site site;
    struct cfsr_journal *journal;
    struct cfsr_lane_state state;
    struct cfsr_entry_position positions[20];

    test_site_make(&site, 1, 1);
    journal = test_journal_open(&site);
    for (uint64_t i = 0; i < 20; i++)
        positions[i] = test_append(journal, 0, i, 500);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_flip_bit(&site, 0, positions[7].lsn + 100, 5);
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, false, false, &state) ==
              -CFSR_E_DAMAGED);
    cr_assert(cfsr_error_message()[0] != '\0');
    test_flip_bit(&site, 0, positions[7].lsn + 100, 5);
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, false, false, &state) == 0);
    cr_assert(state.clean);
    cfsr_lane_state_fini(&state);
    test_site_remove(&site);
}

Test(journal_writer, rotates_through_many_segments)
{
    struct cfsr_site site;
    struct cfsr_journal *journal;
    struct cfsr_journal_stats stats;

    test_site_make(&site, 2, 4);
    journal = test_journal_open(&site);
    for (uint32_t i = 0; i < 40; i++)
        test_append(journal, i % 4, i, 300000 + 8 * i);
    cfsr_journal_stats(journal, &stats);
    cr_assert(stats.entries == 40);
    cr_assert(stats.rotations >= 6);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(count_entries(&site, 0, 0, 0) == 20);
    cr_assert(count_entries(&site, 1, 0, 0) == 20);
    test_site_remove(&site);
}

Test(journal_writer, a_second_writer_is_told)
{
    struct cfsr_site site;
    struct cfsr_journal *journal, *second;

    test_site_make(&site, 2, 4);
    journal = test_journal_open(&site);
    struct cfsr_journal_options options = {.opts_size = sizeof options, .data_dir = site.data_dir};
    cr_assert(cfsr_journal_open(&options, &second) == -CFSR_E_LOCKED);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(cfsr_journal_open(&options, &second) == 0);
    cr_assert(cfsr_journal_close(second) == 0);
    test_site_remove(&site);
}

Test(journal_writer, refuses_what_it_must)
{
    struct cfsr_site site;
    struct cfsr_journal *journal;
    struct cfsr_status_page *page;
    static uint8_t large[(1 << 20) + 1];
    struct cfsr_entry entry = {.payload = large, .payload_bytes = sizeof large};
    unsigned appended = 9;

    test_site_make(&site, 1, 1);
    journal = test_journal_open(&site);
    cr_assert(cfsr_journal_append(journal, &entry, 1, NULL, &appended) == -CFSR_E_TOO_LARGE);
    cr_assert(appended == 0);
    entry.payload_bytes--;
    cr_assert(cfsr_journal_append(journal, &entry, 1, NULL, &appended) == 0);
    cr_assert(appended == 1);
    entry.shard_id = 1;
    cr_assert(cfsr_journal_append(journal, &entry, 1, NULL, NULL) == -CFSR_E_FORMAT);
    entry.shard_id = 0;
    cr_assert(cfsr_status_page_open(&site, &page) == 0);
    cfsr_status_page_set_mode(page, 2);
    cr_assert(cfsr_journal_append(journal, &entry, 1, NULL, NULL) == -CFSR_E_NOT_WRITABLE);
    cfsr_status_page_set_mode(page, 3);
    cr_assert(cfsr_journal_append(journal, &entry, 1, NULL, NULL) == 0);
    cfsr_status_page_close(page);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_site_remove(&site);
}

struct producer {
    struct cfsr_journal *journal;
    uint32_t shard;
    unsigned count;
};

static void *produce(void *argument)
{
    struct producer *producer = argument;

    for (unsigned i = 0; i < producer->count; i++)
        test_append(producer->journal, producer->shard, i + 1, 20 + i % 900);
    return NULL;
}

Test(journal_writer, many_threads_append_and_live_readers_follow, .timeout = 100)
{
    struct cfsr_site site;
    struct producer producers[8];
    pthread_t threads[8];
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    uint64_t next_seq[8] = {0}, entries = 0, last_us = 0;

    test_site_make(&site, 1, 8);
    struct cfsr_journal *journal = test_journal_open(&site);
    cr_assert(cfsr_reader_open(site.data_dir, 0, 0, &reader) == 0);
    for (uint32_t i = 0; i < 8; i++) {
        producers[i] = (struct producer){.journal = journal, .shard = i, .count = 600};
        pthread_create(&threads[i], NULL, produce, &producers[i]);
    }
    while (entries < 8 * 600) {
        int rc = cfsr_reader_next(reader, &view);

        cr_assert(rc >= 0, "%s", cfsr_error_message());
        if (rc == 0) {
            cr_assert(cfsr_reader_wait(reader, 20000) == 1);
            continue;
        }
        cr_assert(view.timestamp_us >= last_us);
        last_us = view.timestamp_us;
        if (view.op > 10)
            continue;
        cr_assert(view.seq == ++next_seq[view.shard_id]);
        cr_assert(view.inode == view.seq);
        entries++;
    }
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    cfsr_reader_close(reader);
    cr_assert(cfsr_journal_close(journal) == 0);
    test_site_remove(&site);
}

Test(journal_writer, acked_segments_are_recycled_and_readers_told, .timeout = 60)
{
    struct cfsr_site site;
    struct cfsr_status_page *page;
    struct cfsr_record_view view;
    struct cfsr_journal_stats stats;
    struct cfsr_reader *reader;
    uint64_t oldest = 0, inode = 0;
    int peer, rc;

    test_site_make(&site, 1, 1);
    struct cfsr_journal *journal = test_journal_open(&site);
    cr_assert(cfsr_status_page_open(&site, &page) == 0);
    cr_assert(cfsr_reader_open(site.data_dir, 0, 0, &reader) == 0);
    peer = cfsr_status_page_register_peer(page, 9);
    do {
        struct cfsr_entry_position last = test_append(journal, 0, ++inode, 400000);

        cfsr_status_page_set_acked(page, peer, 0, last.end_lsn);
        cfsr_journal_stats(journal, &stats);
    } while (stats.recycled_segments < 3);
    rc = cfsr_reader_next(reader, &view);
    cr_assert(rc == -CFSR_E_GONE, "%d %s", rc, cfsr_error_message());
    cr_assert(cfsr_reader_oldest(reader, &oldest) == 0);
    cr_assert(oldest > 0);
    do { /* retention may be a step ahead of us */
        cr_assert(cfsr_reader_oldest(reader, &oldest) == 0);
        cfsr_reader_seek(reader, oldest);
        rc = cfsr_reader_next(reader, &view);
    } while (rc == -CFSR_E_GONE);
    cr_assert(rc == 1 && view.op == 242);
    cfsr_reader_close(reader);
    cfsr_status_page_close(page);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(count_entries(&site, 0, CFSR_READER_OLDEST, 0) > 0);
    test_site_remove(&site);
}
