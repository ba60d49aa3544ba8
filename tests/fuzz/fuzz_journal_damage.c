/*
 * fuzz_journal_damage.c - a sound journal lane, damaged, recovered and read.
 *
 * Input: u8 switches (1 the lane was closed cleanly; 2 old records of other LSNs stand behind the
 * end; 4 look without changing anything first), then damage (damage.h) to the segment files.
 *
 * Properties: every entry that can be read afterwards stood in the original at that LSN, byte for
 * byte, and none is left out in between; where the MARK that proves them durable is whole, durable
 * entries are read or an error is given, never silence; recovery is idempotent and leaves nothing a
 * second one would cut; verify calls nothing sound that cannot be read.
 */
#include "damage.h"
#include "fuzz.h"
#include "records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/verify.h"

enum switches {
    CLEAN = 1,
    STALE = 2,
    LOOK_FIRST = 4
};
enum {
    LANE = 1,
    SEGMENT_BYTES = 8192,
    SEGMENTS = 3,
    RECORDS_MAX = 256
};

/* Where each record of the original stands; op, entry or not, and its bytes. */
struct original {
    uint64_t lsn;
    uint32_t file, offset, len_bytes;
    uint8_t op;
};

static struct cfsr_site site;
static struct fuzz_files base;   /* not closed, nothing stale */
static struct fuzz_seed closing; /* the MARK of a clean close, for its place in the last file */
static uint64_t end_lsn;         /* without it */
static struct original record[RECORDS_MAX];
static unsigned record_count;
static uint64_t proven_lsn; /* committed LSN of the last MARK, and which record that is */
static unsigned proving;

static void note(const struct fuzz_records *records, uint32_t file, const struct fuzz_seed *body,
                 size_t from)
{
    FUZZ_CHECK(record_count < RECORDS_MAX);
    record[record_count++] = (struct original){
        .lsn = records->last.lsn,
        .file = file,
        .offset = (uint32_t)(CFSR_SEGMENT_HEADER_BYTES + from),
        .len_bytes = (uint32_t)(body->len_bytes - from),
        .op = body->data[from + 44]};
}

/* SHARDS, then groups of a MARK and entries, then PAD (the last segment ends in the middle). */
static void make_segment(struct fuzz_records *records, uint32_t file)
{
    bool last = file + 1 == SEGMENTS;
    uint64_t begin = records->lsn, limit = last ? SEGMENT_BYTES / 2 : SEGMENT_BYTES - 600;
    struct cfsr_segment_header header = {.lane = LANE, .incarnation = 1, .first_lsn = begin};
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    char path[CFSR_LANE_PATH_BYTES];
    struct fuzz_seed body = {0};
    size_t from = 0;

    fuzz_records_shards(records, &body);
    note(records, file, &body, from);
    for (unsigned i = 0; records->lsn - begin < limit; i++) {
        from = body.len_bytes;
        if (i % 4 == 0) {
            proven_lsn = records->lsn;
            fuzz_records_mark(records, &body, proven_lsn);
        } else {
            fuzz_records_entry(records, &body, i % 7 * 40);
        }
        note(records, file, &body, from);
        if (i % 4 == 0)
            proving = record_count - 1;
    }
    from = body.len_bytes;
    if (!last) {
        fuzz_records_pad(records, &body);
        note(records, file, &body, from);
    }
    cfsr_segment_header_store(&site, &header, block);
    cfsr_segment_path(&site, LANE, begin, path, sizeof path);
    FUZZ_CHECK(body.len_bytes <= SEGMENT_BYTES);
    uint8_t *image = calloc(1, CFSR_SEGMENT_HEADER_BYTES + SEGMENT_BYTES);
    FUZZ_CHECK(image != NULL);
    memcpy(image, block, sizeof block);
    memcpy(image + sizeof block, body.data, body.len_bytes);
    fuzz_files_add(&base, path, image, CFSR_SEGMENT_HEADER_BYTES + SEGMENT_BYTES);
    free(image);
    free(body.data);
}

static void set_up(void)
{
    struct fuzz_records records;

    if (base.count > 0)
        return;
    fuzz_site(&site, 5, 2, 16, SEGMENT_BYTES);
    fuzz_records_init(&records, &site, site.site_id, &site.journal, LANE);
    for (uint32_t i = 0; i < SEGMENTS; i++)
        make_segment(&records, i);
    end_lsn = records.lsn;
    fuzz_records_mark(&records, &closing, end_lsn);
    cfsr_store_le32(closing.data + CFSR_RECORD_HEADER_BYTES + 32, CFSR_MARK_CLEAN_CLOSE);
    cfsr_record_seal(closing.data, cfsr_record_seed(&site.journal), end_lsn);
}

static void prepare(struct fuzz_files *files, uint8_t switches)
{
    struct fuzz_file *last;
    size_t end = cfsr_segment_file_offset(&site, end_lsn);

    fuzz_files_copy(files, &base);
    last = &files->file[SEGMENTS - 1];
    if ((switches & STALE) != 0)
        memcpy(last->data + end, files->file[0].data + end, last->len_bytes - end);
    if ((switches & CLEAN) != 0)
        memcpy(last->data + end, closing.data, closing.len_bytes);
}

struct reading {
    unsigned entries;  /* read, each checked against the original */
    unsigned first;    /* index of the first one among the original's records */
    uint64_t stop_lsn; /* where it ended */
    int rc;
};

static const struct original *find(uint64_t lsn)
{
    for (unsigned i = 0; i < record_count; i++)
        if (record[i].lsn == lsn)
            return &record[i];
    return NULL;
}

static void check_run(const struct cfsr_scan *scan, struct reading *reading)
{
    uint64_t lsn = scan->lsn;

    for (uint32_t at = 0; at < scan->raw_bytes;) {
        struct cfsr_record_header header;
        const struct original *same = find(lsn);

        cfsr_record_header_load(scan->data + at, &header);
        if (cfsr_record_is_entry(header.op)) {
            FUZZ_CHECK(same != NULL && same->len_bytes == cfsr_record_total_bytes(&header));
            FUZZ_CHECK(memcmp(base.file[same->file].data + same->offset, scan->data + at,
                              same->len_bytes) == 0);
            reading->entries++;
        }
        at += cfsr_record_wire_bytes(&header);
        lsn += cfsr_record_total_bytes(&header);
    }
}

static struct reading read_all(struct cfsr_fs *fs, const struct cfsr_lane_state *state)
{
    struct cfsr_lane_cursor cursor;
    struct reading reading = {0};

    FUZZ_CHECK(cfsr_lane_cursor_init(&cursor, fs, &site, LANE, state->first_lsn) == 0);
    while ((reading.rc = cfsr_lane_cursor_next(&cursor, state->end_lsn)) == 1)
        check_run(&cursor.scan, &reading);
    if (reading.rc < 0)
        check_run(&cursor.scan, &reading);
    reading.stop_lsn = cursor.lsn;
    cfsr_lane_cursor_fini(&cursor);
    return reading;
}

/* Entries of the original in [from, to). */
static unsigned count_entries(uint64_t from, uint64_t to)
{
    unsigned count = 0;

    for (unsigned i = 0; i < record_count; i++)
        count += record[i].lsn >= from && record[i].lsn < to && cfsr_record_is_entry(record[i].op);
    return count;
}

/* The MARK that proves durability is there, in a file that is still what it was called. */
static bool proof_is_whole(const struct fuzz_files *files)
{
    const struct original *mark = &record[proving];
    const struct fuzz_file *file = &files->file[mark->file], *was = &base.file[mark->file];

    return file->data != NULL && file->len_bytes == was->len_bytes &&
           memcmp(file->data, was->data, CFSR_SEGMENT_HEADER_BYTES) == 0 &&
           memcmp(file->data + mark->offset, was->data + mark->offset, mark->len_bytes) == 0;
}

static void check_reading(const struct fuzz_files *files, const struct cfsr_lane_state *state,
                          const struct reading *reading)
{
    uint64_t kept_lsn = cfsr_min_u64(state->cut_lsn, reading->stop_lsn); /* cut: else UINT64_MAX */

    FUZZ_CHECK(reading->entries == count_entries(state->first_lsn, kept_lsn));
    if (reading->rc < 0)
        return;
    FUZZ_CHECK(reading->stop_lsn >= state->end_lsn);
    FUZZ_CHECK(state->entries == count_entries(0, kept_lsn));
    FUZZ_CHECK(!proof_is_whole(files) || kept_lsn >= proven_lsn);
}

static void recover(const struct fuzz_files *files, struct cfsr_fs *fs)
{
    struct cfsr_lane_state state, second;
    struct cfsr_verify_report report;
    struct reading reading;

    if (cfsr_journal_recover_lane(fs, &site, LANE, false, false, &state) < 0)
        return;
    reading = read_all(fs, &state);
    check_reading(files, &state, &reading);
    FUZZ_CHECK(cfsr_journal_verify(fs, &site, NULL, NULL, NULL, &report) == 0);
    FUZZ_CHECK(reading.rc == 0 || report.verdict != CFSR_VERIFY_SOUND);
    FUZZ_CHECK(cfsr_journal_recover_lane(fs, &site, LANE, false, false, &second) == 0);
    FUZZ_CHECK(second.end_lsn == state.end_lsn && second.entries == state.entries &&
               second.first_lsn == state.first_lsn && second.cut_lsn == CFSR_LSN_UNKNOWN);
    FUZZ_CHECK(second.incarnation >= state.incarnation);
    cfsr_lane_state_fini(&state);
    cfsr_lane_state_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    struct fuzz_files files;
    struct cfsr_fs *fs;

    set_up();
    prepare(&files, switches);
    fuzz_files_damage(&files, &reader);
    fs = fuzz_disk();
    fuzz_site_directories(fs, &site);
    fuzz_files_write(&files, fs);
    if ((switches & LOOK_FIRST) != 0) {
        struct cfsr_lane_state state;

        if (cfsr_journal_recover_lane(fs, &site, LANE, true, false, &state) == 0)
            cfsr_lane_state_fini(&state);
    }
    recover(&files, fs);
    cfsr_fs_sim_destroy(fs);
    fuzz_files_free(&files);
    return 0;
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    struct fuzz_seed seed = {0};

    for (uint8_t switches = 0; switches < 8; switches++) {
        char name[32];

        fuzz_seed_u8(&seed, switches);
        (void)snprintf(name, sizeof name, "sound-%u", switches);
        fuzz_seed_end(&seed, corpus, name);
    }
    fuzz_seed_u8(&seed, STALE);
    fuzz_damage_flip(&seed, 2, CFSR_SEGMENT_HEADER_BYTES + 3000, 0x10);
    fuzz_seed_end(&seed, corpus, "torn");
    fuzz_seed_u8(&seed, CLEAN);
    fuzz_damage_flip(&seed, 2, CFSR_SEGMENT_HEADER_BYTES + 300, 0x10);
    fuzz_seed_end(&seed, corpus, "rot");
    fuzz_seed_u8(&seed, 0);
    fuzz_seed_u8(&seed, 5);
    fuzz_seed_u8(&seed, 2);
    fuzz_seed_end(&seed, corpus, "no-last-segment");
    fuzz_seed_u8(&seed, 0);
    fuzz_seed_u8(&seed, 3);
    fuzz_seed_u8(&seed, 1);
    fuzz_seed_u8(&seed, 10);
    fuzz_seed_u8(&seed, 0);
    fuzz_seed_u8(&seed, 10);
    fuzz_seed_end(&seed, corpus, "misdirected");
}
