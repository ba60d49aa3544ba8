/*
 * torn_journal.c - a journal lane and its shadow (torn_journal.h).
 *
 * Thread:     one.
 * Invariants: the shadow is what was to be written, record for record; what recovery itself writes
 *             (SHARDS, MARK, PAD of a seal) is taken over from the disk after each recovery, since
 *             it is the product's to decide, and is below known_lsn from then on.
 */
#include "torn_journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "cases.h"
#include "journal/record.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"

#define GROUP_BYTES (48u << 10)

const char torn_journal_stopped[] = "a record below the end cannot be read";

uint64_t torn_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void torn_site_init(struct cfsr_site *site)
{
    memset(site, 0, sizeof *site);
    memset(site->cluster.bytes, 0xc1, 16);
    memset(site->journal.bytes, 0xd2, 16);
    site->site_id = 2;
    site->lanes = 1;
    site->shards = TORN_SHARDS;
    site->segment_bytes = TORN_SEGMENT_BYTES;
    (void)snprintf(site->shard_function, sizeof site->shard_function, "parent-or-inode-mod");
    (void)snprintf(site->name, sizeof site->name, "torn");
    (void)snprintf(site->data_dir, sizeof site->data_dir, "/d");
}

struct cfsr_fs *torn_template(struct cfsr_site *site)
{
    static const char *const directories[] = {"/d",       "/d/journal",  "/d/journal/00",
                                              "/d/inbox", "/d/inbox/00", "/d/inbox/consumers",
                                              "/d/run"};
    struct cfsr_fs_sim_options options = {.seed = 1, .capacity_bytes = 1ull << 40};
    struct cfsr_fs *fs;

    torn_site_init(site);
    CFSR_ASSERT(cfsr_fs_sim_create(&options, &fs) == 0);
    for (unsigned i = 0; i < sizeof directories / sizeof *directories; i++)
        CFSR_ASSERT(fs->ops->mkdir(fs, directories[i]) == 0);
    CFSR_ASSERT(fs->ops->sync_dir(fs, "/") == 0 && fs->ops->sync_dir(fs, "/d") == 0 &&
                fs->ops->sync_dir(fs, "/d/journal") == 0 && fs->ops->sync_dir(fs, "/d/inbox") == 0);
    return fs;
}

void torn_journal_init(struct torn_journal *journal, struct cfsr_fs *fs, uint64_t seed)
{
    uint8_t *shadow = journal->shadow;

    memset(journal, 0, sizeof *journal);
    journal->shadow = shadow != NULL ? shadow : calloc(1, TORN_LANE_BYTES);
    CFSR_ASSERT(journal->shadow != NULL);
    torn_site_init(&journal->site);
    journal->fs = fs;
    journal->random = seed;
}

void torn_journal_crash(struct torn_journal *journal, enum cfsr_persistence model)
{
    cfsr_fs_sim_crash(journal->fs, model);
    journal->crashed = true;
}

void torn_journal_fini(struct torn_journal *journal)
{
    torn_journal_close(journal);
}

static const char *segment_path(const struct torn_journal *journal, uint64_t lsn)
{
    static char path[CFSR_LANE_PATH_BYTES];

    return cfsr_segment_path(&journal->site, 0, lsn, path, sizeof path);
}

/* The bytes of the disk from lsn on, within its segment; 0 if there are none. */
static uint32_t disk_bytes(struct torn_journal *journal, uint64_t lsn, uint8_t *out,
                           uint32_t len_bytes)
{
    int got = cfsr_fs_sim_peek(journal->fs, segment_path(journal, lsn),
                               cfsr_segment_file_offset(&journal->site, lsn), out, len_bytes);

    return got < 0 ? 0 : (uint32_t)got;
}

uint64_t torn_journal_record(const struct torn_journal *journal, uint64_t lsn,
                             uint64_t *next_lsn_out, uint32_t *compared_out)
{
    uint64_t boundary = cfsr_segment_first_lsn(&journal->site, lsn) + journal->site.segment_bytes;
    struct cfsr_record_header header;
    uint64_t total;

    if (lsn + CFSR_RECORD_HEADER_BYTES > journal->shadow_end)
        return 0;
    cfsr_record_header_load(journal->shadow + lsn, &header);
    total = cfsr_record_total_bytes(&header);
    *compared_out = (uint32_t)cfsr_record_wire_bytes(&header);
    *next_lsn_out = boundary - (lsn + total) < CFSR_RECORD_HEADER_BYTES ? boundary : lsn + total;
    return total;
}

uint64_t torn_journal_whole_end(struct torn_journal *journal, uint64_t from_lsn)
{
    static uint8_t bytes[TORN_SEGMENT_BYTES];
    uint64_t lsn = from_lsn, next_lsn = 0;
    uint32_t compared = 0;

    while (torn_journal_record(journal, lsn, &next_lsn, &compared) != 0 &&
           disk_bytes(journal, lsn, bytes, compared) == compared &&
           memcmp(bytes, journal->shadow + lsn, compared) == 0)
        lsn = next_lsn;
    return lsn;
}

static unsigned entries_between(const struct torn_journal *journal, uint64_t lsn, uint64_t end_lsn)
{
    uint64_t next_lsn = 0;
    uint32_t compared;
    unsigned entries = 0;

    for (; lsn < end_lsn && torn_journal_record(journal, lsn, &next_lsn, &compared) != 0;
         lsn = next_lsn)
        entries += cfsr_record_is_entry(journal->shadow[lsn + 44]);
    return entries;
}

uint64_t torn_journal_record_at(const struct torn_journal *journal, uint64_t first_lsn,
                                uint64_t lsn)
{
    uint64_t at = first_lsn, next_lsn = 0;
    uint32_t compared;

    while (torn_journal_record(journal, at, &next_lsn, &compared) != 0) {
        if (lsn < at + compared)
            return at;
        if (lsn < next_lsn)
            return CFSR_LSN_UNKNOWN;
        at = next_lsn;
    }
    return CFSR_LSN_UNKNOWN;
}

/* Takes over what recovery wrote between lsn and the end. */
static void adopt_seal(struct torn_journal *journal, uint64_t from_lsn, uint64_t end_lsn)
{
    uint64_t lsn = from_lsn;

    if (end_lsn > journal->shadow_end)
        memset(journal->shadow + journal->shadow_end, 0, end_lsn - journal->shadow_end);
    while (lsn < end_lsn) {
        uint64_t boundary = cfsr_segment_first_lsn(&journal->site, lsn) +
                            journal->site.segment_bytes;

        (void)disk_bytes(journal, lsn, journal->shadow + lsn, (uint32_t)(boundary - lsn));
        lsn = boundary;
    }
    journal->shadow_end = end_lsn;
    SIM_CASE_CHECK(entries_between(journal, from_lsn, end_lsn) == 0,
                   "recovery made entries of what nobody finished at LSN %llx",
                   (unsigned long long)from_lsn);
}

/* The last MARK among the records from lsn to end. */
static void note_mark(struct torn_journal *journal, uint64_t lsn, uint64_t end)
{
    uint64_t next_lsn = 0;
    uint32_t compared;

    for (; lsn < end && torn_journal_record(journal, lsn, &next_lsn, &compared) != 0;
         lsn = next_lsn)
        if (journal->shadow[lsn + 44] == CFSR_RECORD_MARK)
            journal->mark_lsn = lsn;
}

int torn_journal_open(struct torn_journal *journal)
{
    uint8_t block[CFSR_GROUP_BLOCK_BYTES];
    struct cfsr_lane_state state;
    uint64_t whole = torn_journal_whole_end(journal, journal->known_lsn);
    int rc = cfsr_journal_recover_lane(journal->fs, &journal->site, 0, false, true, &state);

    if (rc < 0)
        return rc;
    adopt_seal(journal, whole, state.end_lsn);
    note_mark(journal, journal->known_lsn, state.end_lsn);
    journal->known_lsn = state.end_lsn;
    journal->crashed = false;
    journal->recovered = state;
    journal->recovered.next_seq = NULL;
    rc = cfsr_lane_file_init(&journal->files, journal->fs, &journal->site, 0, journal->direct,
                             state.incarnation);
    if (rc == 0 && state.end_lsn % journal->site.segment_bytes != 0)
        rc = cfsr_lane_file_resume(&journal->files, state.end_lsn, block);
    if (rc == 0)
        rc = cfsr_group_init(&journal->group, &journal->site, 0, GROUP_BYTES, &state, block);
    journal->open = rc == 0;
    if (rc < 0)
        cfsr_lane_file_fini(&journal->files);
    cfsr_lane_state_fini(&state);
    return rc;
}

void torn_journal_close(struct torn_journal *journal)
{
    if (!journal->open)
        return;
    cfsr_lane_file_fini(&journal->files);
    cfsr_group_fini(&journal->group);
    journal->open = false;
}

bool torn_journal_take(struct torn_journal *journal)
{
    struct cfsr_group_span *span = &journal->span;

    if (!cfsr_group_has_work(&journal->group))
        return false;
    cfsr_group_take(&journal->group, 1000, span);
    CFSR_ASSERT(span->end_lsn < TORN_LANE_BYTES);
    memcpy(journal->shadow + span->lsn, span->block + (span->lsn - span->block_lsn),
           span->data_end_lsn - span->lsn);
    if (span->end_lsn > span->data_end_lsn)
        memset(journal->shadow + span->data_end_lsn, 0, span->end_lsn - span->data_end_lsn);
    journal->shadow_end = span->end_lsn;
    return true;
}

int torn_journal_write(struct torn_journal *journal)
{
    int rc;

    rc = cfsr_lane_file_write(&journal->files, &journal->span);
    cfsr_group_done(&journal->group);
    if (rc == 0) {
        journal->known_lsn = journal->span.end_lsn;
        note_mark(journal, journal->span.lsn, journal->span.end_lsn);
    }
    return rc;
}

static int act(struct torn_journal *journal, int answer)
{
    bool stalled;
    int rc;

    if (answer == CFSR_GROUP_NEED_FLUSH)
        return torn_journal_take(journal) ? torn_journal_write(journal) : 0;
    rc = cfsr_lane_file_rotate(&journal->files, cfsr_group_end_lsn(&journal->group), 1000,
                               &stalled);
    if (rc == 0)
        cfsr_group_segment_opened(&journal->group);
    return rc;
}

int torn_journal_stage(struct torn_journal *journal, uint32_t payload_bytes)
{
    static uint8_t payload[TORN_SEGMENT_BYTES];
    uint64_t salt = torn_random(&journal->random);
    struct cfsr_entry entry = {.inode = salt,
                               .op = CFSR_OP_WRITE,
                               .flags = CFSR_ENTRY_OPAQUE,
                               .payload = payload,
                               .payload_bytes = payload_bytes};
    struct cfsr_entry_position position;
    int rc;

    for (uint32_t i = 0; i < payload_bytes; i += 8)
        cfsr_store_le64(payload + i, salt += 0x9e3779b97f4a7c15u);
    while ((rc = cfsr_group_stage(&journal->group, &entry, (uint32_t)(salt % TORN_SHARDS),
                                  1000 + journal->group.last_us, &position)) > 0) {
        rc = act(journal, rc);
        if (rc < 0)
            return rc;
    }
    return rc;
}

int torn_journal_group(struct torn_journal *journal, uint32_t payload_max)
{
    unsigned entries = 1 + (unsigned)(torn_random(&journal->random) % 4);
    int rc = 0;

    while (rc == 0 && entries-- > 0)
        rc = torn_journal_stage(journal,
                                (uint32_t)(torn_random(&journal->random) % (payload_max + 1)));
    return rc == 0 && torn_journal_take(journal) ? torn_journal_write(journal) : rc;
}

int torn_journal_mark(struct torn_journal *journal, bool clean)
{
    int rc;

    while ((rc = cfsr_group_stage_mark(&journal->group, 5000, clean ? CFSR_MARK_CLEAN_CLOSE : 0)) >
           0) {
        rc = act(journal, rc);
        if (rc < 0)
            return rc;
    }
    return rc == 0 && torn_journal_take(journal) ? torn_journal_write(journal) : rc;
}

int torn_journal_recycle(struct torn_journal *journal)
{
    struct cfsr_segment_map map;
    bool reused;
    int rc = cfsr_segment_map_load(journal->fs, &journal->site, 0, &map);

    if (rc == 0 && map.count > 2)
        rc = cfsr_lane_file_recycle(&journal->files, map.lsns[0], &reused);
    cfsr_segment_map_fini(&map);
    return rc;
}

/* One run of the cursor against the shadow. */
static const char *compare_run(const struct torn_journal *journal, const struct cfsr_scan *scan)
{
    const uint8_t *record = scan->data, *end = record + scan->raw_bytes;
    uint64_t lsn = scan->lsn, next_lsn = 0;
    uint32_t compared = 0;

    while (record < end) {
        if (torn_journal_record(journal, lsn, &next_lsn, &compared) == 0)
            return "a record that nobody wrote";
        if ((size_t)(end - record) < compared ||
            memcmp(record, journal->shadow + lsn, compared) != 0)
            return "a record is another one";
        record += compared;
        lsn = next_lsn;
    }
    return NULL;
}

const char *torn_journal_compare(struct torn_journal *journal, uint64_t first_lsn, uint64_t end_lsn)
{
    uint64_t seqs[TORN_SHARDS] = {0};
    struct cfsr_lane_cursor cursor;
    const char *wrong = NULL;
    int rc = cfsr_lane_cursor_init(&cursor, journal->fs, &journal->site, 0, first_lsn);

    cursor.next_seq = seqs;
    while (rc >= 0 && wrong == NULL && (rc = cfsr_lane_cursor_next(&cursor, end_lsn)) == 1)
        wrong = compare_run(journal, &cursor.scan);
    if (wrong == NULL && rc < 0)
        wrong = torn_journal_stopped;
    if (wrong == NULL && cursor.lsn != end_lsn)
        wrong = "the lane ends elsewhere";
    cfsr_lane_cursor_fini(&cursor);
    return wrong;
}
