/* The writer on a disk that fails to sync, to write, or is full: what appenders are told, and that
 * the lane goes on by itself. */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "faulty.h"
#include "journal/recovery.h"
#include "journal/repair.h"
#include "journal/segment.h"
#include "journal/status_page.h"
#include "journal/verify.h"
#include "journal/writer_internal.h"
#include "support.h"
#include <cfsrepl/reader.h>

static struct cfsr_journal *open_on(struct faulty_fs *faulty, const struct cfsr_site *site,
                                    bool direct)
{
    struct cfsr_journal_options options = {
        .opts_size = sizeof options, .data_dir = site->data_dir, .direct = direct};
    struct cfsr_journal *journal;

    cr_assert(cfsr_journal_open_on(&faulty->fs, &options, &journal) == 0, "%s",
              cfsr_error_message());
    return journal;
}

static int append(struct cfsr_journal *journal, uint64_t inode, uint32_t payload_bytes,
                  struct cfsr_entry_position *position_out)
{
    static uint8_t payload[1 << 20];
    struct cfsr_entry entry = {.shard_id = 0,
                               .inode = inode,
                               .op = CFSR_OP_WRITE,
                               .flags = CFSR_ENTRY_OPAQUE,
                               .payload = payload,
                               .payload_bytes = payload_bytes};

    return cfsr_journal_append(journal, &entry, 1, position_out, NULL);
}

/* Until the lane goes on by itself; rc of the last try. */
static int append_until_taken(struct cfsr_journal *journal, uint64_t inode,
                              struct cfsr_entry_position *position_out)
{
    int rc = -1;

    for (int i = 0; i < 600 && rc < 0; i++) {
        rc = append(journal, inode, 100, position_out);
        cr_assert(rc == 0 || rc == -CFSR_E_FAILED || rc == -ENOSPC, "%d", rc);
        if (rc < 0)
            (void)usleep(20000);
    }
    return rc;
}

/* Inodes of the entries in the lane, in order. */
static unsigned read_inodes(const struct cfsr_site *site, uint64_t *inodes, unsigned max)
{
    struct cfsr_record_view view;
    struct cfsr_reader *reader;
    unsigned count = 0;
    int rc;

    cr_assert(cfsr_reader_open(site->data_dir, 0, CFSR_READER_OLDEST, &reader) == 0);
    while ((rc = cfsr_reader_next(reader, &view)) == 1) {
        if (view.op > 10)
            continue;
        cr_assert(count < max);
        inodes[count++] = view.inode;
        cr_assert(view.seq == count);
    }
    cr_assert(rc == 0, "%s", cfsr_error_message());
    cfsr_reader_close(reader);
    return count;
}

static void assert_sound(const struct cfsr_site *site)
{
    struct cfsr_verify_report report;

    cr_assert(cfsr_journal_verify(cfsr_fs_blocking(), site, NULL, NULL, NULL, &report) == 0);
    cr_assert(report.verdict == CFSR_VERIFY_SOUND);
}

static void sync_fails_once(bool direct)
{
    struct cfsr_entry_position last, next;
    struct cfsr_journal_stats stats;
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;
    uint64_t inodes[32];

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, direct);
    for (uint64_t i = 1; i <= 10; i++)
        cr_assert(append(journal, i, 200, &last) == 0);
    atomic_store(&faulty.sync_rc, -EIO);
    cr_assert(append(journal, 11, 200, NULL) == -CFSR_E_FAILED);
    cr_assert(append(journal, 12, 200, NULL) == -CFSR_E_FAILED); /* at once, as long as it lasts */
    cr_assert(cfsr_journal_wait(journal, 0, last.end_lsn) == 0); /* what was acknowledged, stays */
    atomic_store(&faulty.sync_rc, 0);
    cr_assert(append_until_taken(journal, 13, &next) == 0);
    cr_assert(next.seq == 11, "the failed entries took no seq");
    cr_assert(next.lsn > last.end_lsn && next.lsn / site.segment_bytes == 1);
    cr_assert(cfsr_journal_wait(journal, 0, last.end_lsn + 8) == -CFSR_E_FAILED);
    cr_assert(cfsr_journal_wait(journal, 0, next.end_lsn) == 0);
    cfsr_journal_stats(journal, &stats);
    cr_assert(stats.reopened_lanes >= 1);
    cr_assert(atomic_load(&faulty.resync_count) == 0, "a failed descriptor was used again");
    cr_assert(cfsr_journal_close(journal) == 0, "%s", cfsr_error_message());
    cr_assert(read_inodes(&site, inodes, 32) == 11);
    cr_assert(inodes[9] == 10 && inodes[10] == 13);
    assert_sound(&site);
    test_site_remove(&site);
}

Test(journal_failure, a_failed_sync_is_told_and_the_lane_goes_on)
{
    sync_fails_once(false);
}

Test(journal_failure, a_failed_durable_write_is_told_and_the_lane_goes_on)
{
    sync_fails_once(true);
}

Test(journal_failure, what_was_staged_and_lost_is_told_by_the_flush)
{
    struct cfsr_entry entry = {.shard_id = 0, .inode = 5, .op = CFSR_OP_SETATTR};
    struct cfsr_entry_position lost, next;
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, false);
    cr_assert(append(journal, 1, 10, NULL) == 0);
    atomic_store(&faulty.sync_rc, -EIO);
    cr_assert(cfsr_journal_stage(journal, &entry, &lost) == 0);
    cr_assert(append(journal, 2, 10, NULL) == -CFSR_E_FAILED); /* its group held both */
    atomic_store(&faulty.sync_rc, 0);
    cr_assert(append_until_taken(journal, 3, &next) == 0);
    cr_assert(cfsr_journal_wait(journal, 0, lost.end_lsn) == -CFSR_E_FAILED);
    cr_assert(cfsr_journal_wait(journal, 0, next.end_lsn) == 0);
    cr_assert(cfsr_journal_flush(journal) == -CFSR_E_FAILED);
    cr_assert(cfsr_journal_flush(journal) == 0); /* told once */
    cr_assert(cfsr_journal_close(journal) == 0);
    assert_sound(&site);
    test_site_remove(&site);
}

/* The list of what was lost is bounded: its oldest ranges become one, and none is forgotten. */
Test(journal_failure, every_loss_is_remembered_however_many_there_are, .timeout = 200)
{
    struct cfsr_entry_position last;
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;
    uint64_t lost_lsn[CFSR_LOST_RANGES_MAX + 3];

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, false);
    cr_assert(append(journal, 1, 200, &last) == 0);
    for (unsigned i = 0; i < CFSR_LOST_RANGES_MAX + 3; i++) {
        lost_lsn[i] = last.end_lsn + 8;
        atomic_store(&faulty.sync_rc, -EIO);
        cr_assert(append(journal, 2, 200, NULL) == -CFSR_E_FAILED);
        atomic_store(&faulty.sync_rc, 0);
        cr_assert(append_until_taken(journal, 3 + i, &last) == 0);
    }
    for (unsigned i = 0; i < CFSR_LOST_RANGES_MAX + 3; i++)
        cr_assert(cfsr_journal_wait(journal, 0, lost_lsn[i]) == -CFSR_E_FAILED, "loss %u", i);
    cr_assert(cfsr_journal_wait(journal, 0, last.end_lsn) == 0);
    cr_assert(cfsr_journal_close(journal) == 0, "%s", cfsr_error_message());
    assert_sound(&site);
    test_site_remove(&site);
}

Test(journal_failure, a_first_group_of_a_segment_that_fails_is_cut_too)
{
    struct cfsr_entry_position position;
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;
    uint64_t inodes[16];
    int rc = 0;

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, false);
    for (uint64_t i = 1; i <= 3; i++) /* 1.5 MiB of 2 */
        cr_assert(append(journal, i, 500000, NULL) == 0);
    cr_assert(append(journal, 4, 500000, NULL) == 0);
    cr_assert(append(journal, 5, 500000, &position) == 0);
    cr_assert(position.lsn > site.segment_bytes);
    /* The next segment's first write: fill this one to the brim, then fail. */
    cr_assert(append(journal, 6, 900000, NULL) == 0);
    atomic_store(&faulty.write_rc, -EIO);
    rc = append(journal, 7, 900000, NULL);
    cr_assert(rc == -CFSR_E_FAILED, "%d", rc);
    atomic_store(&faulty.write_rc, 0);
    cr_assert(append_until_taken(journal, 8, &position) == 0);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(read_inodes(&site, inodes, 16) == 7);
    cr_assert(inodes[5] == 6 && inodes[6] == 8);
    assert_sound(&site);
    test_site_remove(&site);
}

Test(journal_failure, a_disk_that_stays_broken_is_tried_until_it_works)
{
    struct cfsr_entry_position position;
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;
    int failed;

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, false);
    cr_assert(append(journal, 1, 10, NULL) == 0);
    atomic_store(&faulty.sync_rc, -EIO);
    cr_assert(append(journal, 2, 10, NULL) == -CFSR_E_FAILED);
    failed = atomic_load(&faulty.sync_count);
    for (int i = 0; i < 1000 && atomic_load(&faulty.sync_count) < failed + 2; i++) {
        cr_assert(append(journal, 2, 10, NULL) == -CFSR_E_FAILED);
        (void)usleep(10000);
    }
    cr_assert(atomic_load(&faulty.sync_count) >= failed + 2);
    atomic_store(&faulty.sync_rc, 0);
    cr_assert(append_until_taken(journal, 3, &position) == 0);
    cr_assert(position.seq == 2);
    cr_assert(atomic_load(&faulty.resync_count) == 0);
    cr_assert(cfsr_journal_close(journal) == 0);
    assert_sound(&site);
    test_site_remove(&site);
}

Test(journal_failure, closing_while_the_disk_is_broken_leaves_what_was_acknowledged)
{
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;
    uint64_t inodes[8];
    unsigned count;

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, false);
    for (uint64_t i = 1; i <= 3; i++)
        cr_assert(append(journal, i, 10, NULL) == 0);
    atomic_store(&faulty.sync_rc, -EIO);
    cr_assert(append(journal, 4, 10, NULL) == -CFSR_E_FAILED);
    (void)cfsr_journal_close(journal);
    atomic_store(&faulty.sync_rc, 0);
    journal = test_journal_open(&site);
    cr_assert(append(journal, 9, 10, NULL) == 0);
    cr_assert(cfsr_journal_close(journal) == 0);
    count = read_inodes(&site, inodes, 8);
    cr_assert(count == 4 || (count == 5 && inodes[3] == 4));
    cr_assert(inodes[2] == 3 && inodes[count - 1] == 9);
    test_site_remove(&site);
}

/* ---- full ---- */

Test(journal_failure, no_space_for_a_segment_is_told_at_once_and_passes)
{
    struct cfsr_entry_position position;
    struct cfsr_journal_stats stats;
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;
    uint64_t i = 1;
    int rc = 0;

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, false);
    cr_assert(append(journal, i++, 10, NULL) == 0);
    atomic_store(&faulty.allocate_rc, -ENOSPC);
    for (; i < 30 && rc == 0; i++)
        rc = append(journal, i, 300000, NULL);
    cr_assert(rc == -ENOSPC, "%d", rc);
    cr_assert(strstr(cfsr_error_message(), "by themselves") != NULL);
    for (unsigned k = 0; k < 100; k++)
        cr_assert(append(journal, 99, 300000, NULL) == -ENOSPC);
    atomic_store(&faulty.allocate_rc, 0);
    cr_assert(append_until_taken(journal, 50, &position) == 0);
    cfsr_journal_stats(journal, &stats);
    cr_assert(stats.reopened_lanes == 0, "nothing had failed that was written");
    cr_assert(position.seq == stats.entries);
    cr_assert(cfsr_journal_close(journal) == 0);
    assert_sound(&site);
    test_site_remove(&site);
}

Test(journal_failure, no_space_in_a_write_is_told_as_such_and_passes)
{
    struct cfsr_entry_position position;
    struct cfsr_journal *journal;
    struct faulty_fs faulty;
    struct cfsr_site site;

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    journal = open_on(&faulty, &site, false);
    cr_assert(append(journal, 1, 10, NULL) == 0);
    atomic_store(&faulty.write_rc, -ENOSPC);
    cr_assert(append(journal, 2, 10, NULL) == -ENOSPC);
    atomic_store(&faulty.write_rc, 0);
    cr_assert(append_until_taken(journal, 3, &position) == 0);
    cr_assert(position.seq == 2);
    cr_assert(cfsr_journal_close(journal) == 0);
    assert_sound(&site);
    test_site_remove(&site);
}

/* ---- a sync that takes its time ---- */

#define GATE_APPENDERS 4

struct gate {
    struct cfsr_journal *journal;
    struct faulty_fs *faulty;
    atomic_int begun, returned, early;
};

/* Stages and waits, or appends: the same promise, by its inode. */
struct gate_appender {
    struct gate *gate;
    pthread_t thread;
    uint64_t inode;
};

static void *append_at_gate(void *user)
{
    struct cfsr_entry entry = {.shard_id = 0, .op = CFSR_OP_SETATTR};
    struct gate_appender *appender = user;
    struct gate *gate = appender->gate;
    struct cfsr_entry_position position;
    int rc;

    entry.inode = appender->inode;
    if (appender->inode % 2 == 0) {
        atomic_fetch_add(&gate->begun, 1);
        rc = cfsr_journal_append(gate->journal, &entry, 1, &position, NULL);
    } else {
        rc = cfsr_journal_stage(gate->journal, &entry, &position);
        atomic_fetch_add(&gate->begun, 1);
        if (rc == 0)
            rc = cfsr_journal_wait(gate->journal, 0, position.end_lsn);
    }
    /* Nothing was synced since the gate was closed, while it is. */
    if (rc != 0 || atomic_load(&gate->faulty->gate_closed))
        atomic_fetch_add(&gate->early, 1);
    atomic_fetch_add(&gate->returned, 1);
    return NULL;
}

/* Until the value is reached; false: it was not in all the looks. */
static bool reaches(atomic_int *value, int wanted, unsigned looks)
{
    for (unsigned i = 0; i < looks && atomic_load(value) < wanted; i++)
        (void)usleep(2000);
    return atomic_load(value) >= wanted;
}

static void nobody_returns_before_the_sync(bool direct)
{
    struct gate_appender appenders[GATE_APPENDERS];
    struct faulty_fs faulty;
    struct gate gate = {.faulty = &faulty};
    struct cfsr_site site;
    uint64_t inodes[16];

    faulty_fs_init(&faulty);
    test_site_make(&site, 1, 1);
    gate.journal = open_on(&faulty, &site, direct);
    cr_assert(append(gate.journal, 1, 10, NULL) == 0);
    atomic_store(&faulty.gate_closed, true);
    for (int i = 0; i < GATE_APPENDERS; i++) {
        appenders[i] = (struct gate_appender){.gate = &gate, .inode = 2 + (uint64_t)i};
        cr_assert(pthread_create(&appenders[i].thread, NULL, append_at_gate, &appenders[i]) == 0);
        /* The group of the first, or a MARK alone, is being synced when the others come. */
        cr_assert(reaches(&faulty.at_gate, 1, 10000));
    }
    cr_assert(reaches(&gate.begun, GATE_APPENDERS, 10000));
    (void)reaches(&gate.returned, 1, 100); /* the time for one that does not wait to show it */
    cr_assert(reaches(&faulty.at_gate, 1, 10000), "nothing is being synced");
    atomic_store(&faulty.gate_closed, false);
    for (int i = 0; i < GATE_APPENDERS; i++)
        cr_assert(pthread_join(appenders[i].thread, NULL) == 0);
    cr_assert(atomic_load(&gate.early) == 0, "%d did not wait", atomic_load(&gate.early));
    cr_assert(cfsr_journal_close(gate.journal) == 0, "%s", cfsr_error_message());
    cr_assert(read_inodes(&site, inodes, 16) == 1 + GATE_APPENDERS);
    assert_sound(&site);
    test_site_remove(&site);
}

Test(journal_failure, nobody_returns_while_the_group_of_another_is_being_synced)
{
    nobody_returns_before_the_sync(false);
}

Test(journal_failure, nobody_returns_while_the_durable_write_of_another_is_under_way)
{
    nobody_returns_before_the_sync(true);
}
