/*
 * torn.c - cfs-repl-sim torn: a crash with the last writes of a lane torn in every way a disk and a
 * page cache can tear them; recovery must keep exactly what is whole, all that was acknowledged,
 * tell a torn tail from damage in the middle, and appending must go on.
 *
 * Thread:     one a worker.
 * Invariants: the oracle compares bytes with a shadow of what was to be written, and calls none of
 *             the code it judges to find out what is whole.
 * Rejected:   real segment sizes (the same places, thirty times slower).
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "cases.h"
#include "journal/segment.h"
#include "journal/status_page.h"
#include "journal/verify.h"
#include "points.h"
#include "torn_inbox.h"
#include "torn_journal.h"
#include "torn_tear.h"

enum {
    COUNT_JOURNAL,
    COUNT_JOURNAL_RECOVERIES,
    COUNT_JOURNAL_TAIL,
    COUNT_JOURNAL_TAIL_KEPT,
    COUNT_JOURNAL_MIDDLE,
    COUNT_JOURNAL_ROT_TAIL,
    COUNT_JOURNAL_STOPPED,
    COUNT_JOURNAL_CLEAN,
    COUNT_JOURNAL_VERIFIED,
    COUNT_INBOX,
    COUNT_TEAR = COUNT_INBOX + TORN_INBOX_COUNTERS,
    COUNT_END = COUNT_TEAR + TORN_TEAR_COUNT
};

struct torn {
    uint64_t seed;
    struct cfsr_site site;
    struct cfsr_fs *blank;
    struct torn_journal journal;
    struct torn_inbox *inbox;
    jmp_buf stop;
    uint64_t stop_number;
    enum cfsr_sim_phase stop_phase;
};

static void *torn_open(uint64_t seed)
{
    struct torn *torn = calloc(1, sizeof *torn);

    CFSR_ASSERT(torn != NULL);
    torn->seed = seed;
    torn->blank = torn_template(&torn->site);
    torn->inbox = torn_inbox_create(torn->blank);
    return torn;
}

static const char *torn_counter_name(unsigned counter)
{
    static const char *const names[COUNT_INBOX] = {
        [COUNT_JOURNAL] = "journal: cases",
        [COUNT_JOURNAL_RECOVERIES] = "journal: recoveries",
        [COUNT_JOURNAL_TAIL] = "journal: last groups torn",
        [COUNT_JOURNAL_TAIL_KEPT] = "journal: of them with whole records kept",
        [COUNT_JOURNAL_MIDDLE] = "journal: damage below a MARK, refused",
        [COUNT_JOURNAL_ROT_TAIL] = "journal: damage in the last group, cut there",
        [COUNT_JOURNAL_STOPPED] = "journal: stopped within an op",
        [COUNT_JOURNAL_CLEAN] = "journal: clean closes",
        [COUNT_JOURNAL_VERIFIED] = "journal: verified sound after it",
    };

    if (counter < COUNT_INBOX)
        return names[counter];
    if (counter < COUNT_TEAR)
        return torn_inbox_counter_name(counter - COUNT_INBOX);
    return torn_tear_name((enum torn_tear)(counter - COUNT_TEAR));
}

static void stop_here(void *user, struct cfsr_fs *fs, const struct cfsr_sim_point *point)
{
    struct torn *torn = user;

    (void)fs;
    if (point->number >= torn->stop_number && point->phase == torn->stop_phase)
        longjmp(torn->stop, 1);
}

/* ---- journal ---- */

static void must(int rc, const char *what)
{
    SIM_CASE_CHECK(rc >= 0, "%s: %d", what, rc);
}

/* The last group staged, and torn on its way to the disk. */
static void tear_last_group(struct torn_journal *journal, uint64_t *counters)
{
    const struct cfsr_group_span *span = &journal->span;
    unsigned entries = 1 + (unsigned)(torn_random(&journal->random) % 5);
    char path[CFSR_PATH_MAX + 64];
    uint64_t from;

    while (entries-- > 0)
        must(torn_journal_stage(journal, (uint32_t)(torn_random(&journal->random) % 6000)),
             "stage");
    if (!torn_journal_take(journal))
        return;
    torn_journal_crash(journal, CFSR_PERSIST_NOTHING);
    from = journal->direct ? span->block_lsn : span->lsn;
    cfsr_segment_path(&journal->site, 0, from, path, sizeof path);
    counters[COUNT_TEAR + torn_tear(journal->fs, path,
                                    cfsr_segment_file_offset(&journal->site, from),
                                    span->block + (from - span->block_lsn),
                                    (uint32_t)(span->zeroed_end_lsn - from), &journal->random)]++;
    counters[COUNT_JOURNAL_TAIL]++;
    counters[COUNT_JOURNAL_TAIL_KEPT] += torn_journal_whole_end(journal, journal->known_lsn) >
                                         journal->known_lsn;
}

static int some_groups(struct torn_journal *journal, unsigned most)
{
    static const uint32_t sizes[] = {80, 700, 4000, 12000};
    unsigned groups = (unsigned)(torn_random(&journal->random) % (most + 1));
    uint32_t size = sizes[torn_random(&journal->random) % 4];
    int rc = 0;

    while (rc == 0 && groups-- > 0) {
        uint64_t dice = torn_random(&journal->random) % 12;

        if (dice == 0)
            rc = torn_journal_mark(journal, false);
        else if (dice == 1)
            rc = cfsr_lane_file_prepare_spare(&journal->files);
        else if (dice == 2)
            rc = torn_journal_recycle(journal);
        if (rc == 0)
            rc = torn_journal_group(journal, size);
    }
    return rc;
}

/* Groups, stopped within some op; the power goes. */
static void stop_within(struct torn *torn, uint64_t *counters)
{
    struct torn_journal *journal = &torn->journal;

    torn->stop_number = cfsr_fs_sim_op_count(journal->fs) + 1 + torn_random(&journal->random) % 24;
    torn->stop_phase = (enum cfsr_sim_phase)(torn_random(&journal->random) % 3);
    cfsr_fs_sim_observe(journal->fs, 1u << torn->stop_phase, stop_here, torn);
    if (setjmp(torn->stop) == 0)
        must(some_groups(journal, 8), "append");
    else
        counters[COUNT_JOURNAL_STOPPED]++;
    cfsr_fs_sim_observe(journal->fs, 0, NULL, NULL);
    torn_journal_crash(journal, (enum cfsr_persistence)(torn_random(&journal->random) % 4));
}

/* Recovers as after a crash: exactly what is whole stays, and all that was known. */
static void recover_and_check(struct torn_journal *journal, uint64_t whole, uint64_t *counters)
{
    uint64_t touched = journal->shadow_end, known = journal->known_lsn;
    const char *wrong;
    int rc;

    torn_journal_close(journal);
    rc = torn_journal_open(journal);
    SIM_CASE_CHECK(rc == 0, "a torn tail is refused (%d): %s", rc, cfsr_error_message());
    SIM_CASE_CHECK(journal->recovered.cut_lsn == CFSR_LSN_UNKNOWN ||
                       journal->recovered.cut_lsn == whole,
                   "cut at %" PRIx64 ", but whole to %" PRIx64 " (acknowledged to %" PRIx64 ")",
                   journal->recovered.cut_lsn, whole, known);
    SIM_CASE_CHECK(journal->recovered.end_lsn >= whole, "the end is below what is whole");
    if (journal->recovered.clean)
        SIM_CASE_CHECK(journal->recovered.end_lsn == whole, "a clean end elsewhere");
    else
        SIM_CASE_CHECK(journal->recovered.end_lsn >= touched, "LSN %" PRIx64 " would be used again",
                       journal->recovered.end_lsn);
    wrong = torn_journal_compare(journal, journal->recovered.first_lsn, journal->recovered.end_lsn);
    SIM_CASE_CHECK(wrong == NULL, "%s", wrong);
    counters[COUNT_JOURNAL_RECOVERIES]++;
}

static void verify_journal(struct torn_journal *journal, uint64_t *counters)
{
    struct cfsr_verify_report report = {0};

    must(cfsr_journal_verify(journal->fs, &journal->site, NULL, NULL, NULL, &report), "verify");
    SIM_CASE_CHECK(report.verdict == CFSR_VERIFY_SOUND, "verify finds damage after a recovery");
    counters[COUNT_JOURNAL_VERIFIED]++;
}

/*
 * One byte of the last segment goes wrong: below the last MARK that is damage and must be refused;
 * in the group of that MARK nothing proves that it was ever durable, and it is cut there.
 */
static void rot(struct torn_journal *journal, uint64_t *counters)
{
    uint64_t first = cfsr_segment_first_lsn(&journal->site, journal->known_lsn - 1), at, whole;
    uint8_t byte;
    char path[CFSR_PATH_MAX + 64];
    bool middle;
    int rc;

    torn_journal_crash(journal, CFSR_PERSIST_NOTHING);
    torn_journal_close(journal);
    if (journal->mark_lsn < first || journal->known_lsn <= journal->mark_lsn)
        return; /* the group of the last MARK closed its segment */
    at = first + torn_random(&journal->random) % (journal->known_lsn - first);
    whole = torn_journal_record_at(journal, first, at);
    if (whole == CFSR_LSN_UNKNOWN)
        return; /* filler */
    middle = whole < cfsr_load_le64(journal->shadow + journal->mark_lsn + CFSR_RECORD_HEADER_BYTES +
                                    8); /* what it calls committed */
    cfsr_segment_path(&journal->site, 0, first, path, sizeof path);
    must(
        cfsr_fs_sim_peek(journal->fs, path, cfsr_segment_file_offset(&journal->site, at), &byte, 1),
        "peek");
    must(cfsr_fs_sim_flip_bit(journal->fs, path,
                              cfsr_segment_file_offset(&journal->site, at) * 8 +
                                  torn_random(&journal->random) % 8),
         "flip");
    if (!middle) {
        counters[COUNT_JOURNAL_ROT_TAIL]++;
        journal->known_lsn = whole;
        recover_and_check(journal, whole, counters);
        return;
    }
    rc = torn_journal_open(journal);
    SIM_CASE_CHECK(rc == -CFSR_E_DAMAGED,
                   "damage at %" PRIx64 " below the MARK at %" PRIx64 " taken for a tail: %d", at,
                   journal->mark_lsn, rc);
    counters[COUNT_JOURNAL_MIDDLE]++;
    must(
        cfsr_fs_sim_poke(journal->fs, path, cfsr_segment_file_offset(&journal->site, at), &byte, 1),
        "poke");
}

static void clean_close(struct torn_journal *journal, uint64_t *counters)
{
    must(torn_journal_mark(journal, true), "closing mark");
    torn_journal_close(journal);
    counters[COUNT_JOURNAL_CLEAN]++;
}

static void journal_case(struct torn *torn, uint64_t seed, uint64_t *counters)
{
    struct torn_journal *journal = &torn->journal;
    unsigned rounds;
    struct cfsr_fs *fs;

    must(cfsr_fs_sim_clone(torn->blank, &fs), "clone");
    cfsr_fs_sim_reseed(fs, seed);
    torn_journal_init(journal, fs, seed);
    journal->direct = torn_random(&journal->random) % 2 == 0;
    rounds = 1 + (unsigned)(torn_random(&journal->random) % 3);
    must(torn_journal_open(journal), "open");
    while (rounds-- > 0) {
        must(some_groups(journal, 5), "append");
        switch (torn_random(&journal->random) % 8) {
        case 0: stop_within(torn, counters); break;
        case 1: clean_close(journal, counters); break;
        case 2: rot(journal, counters); break;
        default: tear_last_group(journal, counters);
        }
        if (!journal->open || journal->crashed)
            recover_and_check(journal, torn_journal_whole_end(journal, journal->known_lsn),
                              counters);
    }
    if (seed % 8 == 0)
        verify_journal(journal, counters);
    torn_journal_close(journal);
    cfsr_fs_sim_destroy(fs);
    counters[COUNT_JOURNAL]++;
}

/* ---- both ---- */

static void torn_run(void *state, uint64_t number, uint64_t *counters)
{
    struct torn *torn = state;
    uint64_t mixed = torn->seed * 0x9e3779b97f4a7c15u + number, seed = torn_random(&mixed);

    if (number % 2 == 0)
        journal_case(torn, seed, counters);
    else
        torn_inbox_case(torn->inbox, seed, counters + COUNT_INBOX, counters + COUNT_TEAR);
}

int sim_torn_main(int argc, char **argv)
{
    static const struct sim_cases program = {
        .command = "torn",
        .usage = "Usage: cfs-repl-sim torn [--cases N] [--seed S] [--jobs J] [--resume FILE]\n"
                 "                         [--case N] [--quiet]\n"
                 "Tears the last writes of journal and inbox lanes and checks recovery.\n",
        .cases = 20000,
        .counter_count = COUNT_END,
        .counter_name = torn_counter_name,
        .open = torn_open,
        .run = torn_run,
    };

    return sim_cases_main(&program, argc, argv);
}
