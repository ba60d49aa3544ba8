/*
 * fuzz_journal_bytes.c - any bytes as the segment files of a journal lane, with the checksums of
 * headers and records put right: what recovery makes of records nobody in their right mind wrote.
 *
 * Input: u8 switches (1 segment header made right; 2 records sealed; 4 a second segment), then the
 * body of the first segment, and from byte 4096 on that of the second.
 *
 * Properties: what recovery calls the end can be read up to there; it is idempotent; verify ends in
 * an answer.
 */
#include "fuzz.h"
#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/verify.h"

enum switches {
    FIX_HEADER = 1,
    SEAL = 2,
    SECOND = 4
};
enum {
    LANE = 1,
    SEGMENT_BYTES = 4096
};

static struct cfsr_site site;

static void put_segment(struct cfsr_fs *fs, uint8_t switches, uint64_t first_lsn,
                        const uint8_t *bytes, size_t len_bytes)
{
    static uint8_t image[CFSR_SEGMENT_HEADER_BYTES + SEGMENT_BYTES];
    struct cfsr_segment_header header = {.lane = LANE, .incarnation = 1, .first_lsn = first_lsn};
    char path[CFSR_LANE_PATH_BYTES];

    memset(image, 0, sizeof image);
    if ((switches & FIX_HEADER) != 0)
        cfsr_segment_header_store(&site, &header, image);
    else
        memcpy(image, bytes, cfsr_min_u64(len_bytes, CFSR_SEGMENT_HEADER_BYTES));
    memcpy(image + CFSR_SEGMENT_HEADER_BYTES, bytes, cfsr_min_u64(len_bytes, SEGMENT_BYTES));
    if ((switches & SEAL) != 0)
        fuzz_records_seal(image + CFSR_SEGMENT_HEADER_BYTES, SEGMENT_BYTES, false,
                          cfsr_record_seed(&site.journal), first_lsn, SEGMENT_BYTES);
    cfsr_segment_path(&site, LANE, first_lsn, path, sizeof path);
    fuzz_file_write(fs, path, image, sizeof image);
}

static void check(struct cfsr_fs *fs)
{
    struct cfsr_lane_state state, second;
    struct cfsr_lane_cursor cursor;
    struct cfsr_verify_report report;
    int rc;

    FUZZ_CHECK(cfsr_journal_verify(fs, &site, NULL, NULL, NULL, &report) == 0);
    if (cfsr_journal_recover_lane(fs, &site, LANE, false, false, &state) < 0)
        return;
    FUZZ_CHECK(state.end_lsn <= 2 * SEGMENT_BYTES && state.first_lsn <= state.end_lsn);
    FUZZ_CHECK(cfsr_lane_cursor_init(
                   &cursor, fs, &site, LANE,
                   cfsr_segment_first_lsn(&site, state.end_lsn > 0 ? state.end_lsn - 1 : 0)) == 0);
    while ((rc = cfsr_lane_cursor_next(&cursor, state.end_lsn)) == 1)
        ;
    FUZZ_CHECK(rc == 0 && cursor.lsn >= state.end_lsn);
    cfsr_lane_cursor_fini(&cursor);
    FUZZ_CHECK(cfsr_journal_recover_lane(fs, &site, LANE, false, false, &second) == 0);
    FUZZ_CHECK(second.end_lsn == state.end_lsn && second.entries == state.entries);
    FUZZ_CHECK(cfsr_journal_verify(fs, &site, NULL, NULL, NULL, &report) == 0);
    cfsr_lane_state_fini(&state);
    cfsr_lane_state_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    struct cfsr_fs *fs;
    size_t first = cfsr_min_u64(reader.left, SEGMENT_BYTES);

    if (site.site_id == 0)
        fuzz_site(&site, 5, 2, 16, SEGMENT_BYTES);
    fs = fuzz_disk();
    fuzz_site_directories(fs, &site);
    put_segment(fs, switches, 0, reader.at, first);
    if ((switches & SECOND) != 0)
        put_segment(fs, switches, SEGMENT_BYTES, reader.at + first, reader.left - first);
    check(fs);
    cfsr_fs_sim_destroy(fs);
    return 0;
}

static void fill(struct fuzz_records *records, struct fuzz_seed *seed, uint64_t limit)
{
    fuzz_records_shards(records, seed);
    while (records->lsn % SEGMENT_BYTES < limit) {
        fuzz_records_mark(records, seed, records->lsn);
        fuzz_records_entry(records, seed, 40);
        fuzz_records_entry(records, seed, 0);
    }
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    struct fuzz_records records;
    struct fuzz_seed seed = {0};

    if (site.site_id == 0)
        fuzz_site(&site, 5, 2, 16, SEGMENT_BYTES);
    fuzz_records_init(&records, &site, site.site_id, &site.journal, LANE);
    fuzz_seed_u8(&seed, FIX_HEADER | SEAL);
    fill(&records, &seed, 1000);
    fuzz_seed_end(&seed, corpus, "one");
    fuzz_records_init(&records, &site, site.site_id, &site.journal, LANE);
    fuzz_seed_u8(&seed, FIX_HEADER | SEAL | SECOND);
    fill(&records, &seed, SEGMENT_BYTES - 700);
    fuzz_records_pad(&records, &seed);
    while (seed.len_bytes < 1 + SEGMENT_BYTES)
        fuzz_seed_u8(&seed, 0);
    fill(&records, &seed, 600);
    fuzz_seed_end(&seed, corpus, "two");
    fuzz_seed_u8(&seed, 0);
    fuzz_seed_bytes(&seed, "CFSRSEG1", 8);
    fuzz_seed_end(&seed, corpus, "no-header");
}
