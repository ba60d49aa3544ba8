/*
 * fuzz_inbox_damage.c - a sound inbox lane of two origins, damaged, recovered, read and verified.
 *
 * Input: u8 switches (1 the reader comes without a recovery; 2 all records, not only entries), then
 * damage (damage.h) to the segment files.
 *
 * Properties: every entry read stood in an original batch of that origin at that LSN, byte for
 * byte; an origin's entries come in its order, none twice; a cursor never stands above the
 * original's; recovery is idempotent; what verify calls sound is read to its end without an error.
 */
#include "damage.h"
#include "fuzz.h"
#include "records.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "inbox/reader.h"
#include "inbox/verify.h"

enum switches {
    UNRECOVERED = 1,
    ALL_RECORDS = 2
};
enum {
    LANES = 2,
    LANE = 1,
    SEGMENT_BYTES = 65536,
    ORIGINS = 2,
    BATCHES = 60,
    RUNS = 2
};

/* Everything an origin ever wrote, as one run of wire bytes from LSN 0. */
struct origin {
    struct fuzz_records records;
    struct fuzz_seed stream;
    uint64_t sent_lsn;
};

static struct cfsr_site site;
static struct origin origins[ORIGINS];
static struct fuzz_files base;
static struct cfsr_inbox_state *state, *second;

/* ---- the original ---- */

static void put_batch(struct cfsr_fs *fs, struct cfsr_inbox_lane *lane, uint32_t *slot,
                      uint8_t *const buf[], struct cfsr_batch_codec *codec, struct origin *origin,
                      uint32_t records)
{
    static uint8_t frame[CFSR_INBOX_FRAME_MAX_BYTES];
    size_t from = origin->stream.len_bytes;
    uint32_t before = origin->records.entries;
    struct cfsr_batch_header header = {.lane = LANE,
                                       .site_id = origin->records.site_id,
                                       .journal = origin->records.journal,
                                       .lsn_from = origin->records.lsn,
                                       .incarnation = 1,
                                       .prepared_at_us = 1};
    int rc;

    fuzz_records_mark(&origin->records, &origin->stream, origin->records.lsn);
    for (uint32_t i = 0; i < records; i++)
        fuzz_records_entry(&origin->records, &origin->stream, i * 50);
    header.lsn_to = origin->records.lsn;
    header.entry_count = origin->records.entries - before;
    FUZZ_CHECK(cfsr_batch_encode(
                   codec, origin->stream.data + from, (uint32_t)(origin->stream.len_bytes - from),
                   frame + CFSR_BATCH_PREFIX_BYTES, CFSR_BATCH_BODY_MAX_BYTES, &header) == 0);
    cfsr_batch_header_store(&header, frame);
    FUZZ_CHECK(cfsr_inbox_lane_origin(lane, header.site_id, &header.journal) >= 0);
    while ((rc = cfsr_inbox_lane_room(lane, CFSR_BATCH_PREFIX_BYTES + header.stored_bytes)) < 0) {
        struct cfsr_inbox_write write;
        uint64_t sequence = cfsr_inbox_lane_wants_segment(lane);
        bool direct;

        if (rc == -ENOBUFS) {
            *slot = (*slot + 1) % (CFSR_INBOX_WRITES_MAX + 1);
            cfsr_inbox_lane_give_slot(lane, buf[*slot], *slot);
        } else if (rc == -ENOSPC) {
            struct cfsr_file *file;

            FUZZ_CHECK(sequence != 0 && cfsr_inbox_prepare_segment(fs, &site, LANE, sequence, false,
                                                                   &file, &direct) == 0);
            cfsr_inbox_lane_give_segment(lane, sequence, file);
        } else {
            FUZZ_CHECK(cfsr_inbox_lane_take_write(lane, true, 1, &write));
        }
    }
    cfsr_inbox_lane_put(lane, &header, frame, CFSR_BATCH_PREFIX_BYTES + header.stored_bytes,
                        &origin->records.last, header.entry_count, 1000, 1);
    origin->sent_lsn = header.lsn_to;
}

static void drain(struct cfsr_inbox_lane *lane)
{
    struct cfsr_inbox_write write;
    uint32_t slot;

    while (cfsr_inbox_lane_take_write(lane, true, 1, &write)) {
        FUZZ_CHECK(cfsr_file_pwrite(write.file, write.buf, write.len_bytes, write.offset_bytes,
                                    true) >= 0);
        FUZZ_CHECK(cfsr_inbox_lane_written(lane, &write, 0, &slot) == 0);
    }
}

/* One life of the daemon: recovery, batches, each block durable before the next. */
static void run_lane(struct cfsr_fs *fs, struct cfsr_batch_codec *codec, uint8_t *const buf[])
{
    struct cfsr_inbox_lane *lane;
    struct cfsr_file *file;
    uint32_t slot = 0;

    FUZZ_CHECK(cfsr_inbox_recover_lane(fs, &site, LANE, false, state) == 0);
    FUZZ_CHECK(cfsr_inbox_lane_create(&site, LANE, state, NULL, &lane) == 0);
    for (uint32_t i = 0; i < BATCHES / RUNS; i++) {
        put_batch(fs, lane, &slot, buf, codec, &origins[i % 3 == 0], 1 + i % 5);
        if (i % 2 == 0)
            drain(lane);
    }
    drain(lane);
    while ((file = cfsr_inbox_lane_retired_file(lane)) != NULL)
        cfsr_file_close(file);
    while ((file = cfsr_inbox_lane_take_file(lane)) != NULL)
        cfsr_file_close(file);
    cfsr_inbox_lane_destroy(lane);
}

static void set_up(void)
{
    struct cfsr_codec_config config;
    struct cfsr_batch_codec *codec;
    uint8_t *buf[CFSR_INBOX_WRITES_MAX + 1];
    struct cfsr_fs *fs;

    if (base.count > 0)
        return;
    FUZZ_CHECK(cfsr_security_init() == 0);
    fuzz_site(&site, 2, LANES, 16, SEGMENT_BYTES);
    state = calloc(1, sizeof *state);
    second = calloc(1, sizeof *second);
    FUZZ_CHECK(state != NULL && second != NULL);
    for (unsigned i = 0; i < ORIGINS; i++) {
        struct cfsr_uuid journal;

        memset(journal.bytes, (int)(0x30 + i), sizeof journal.bytes);
        fuzz_records_init(&origins[i].records, &site, 7 + i, &journal, LANE);
    }
    cfsr_codec_config_default(&config);
    FUZZ_CHECK(cfsr_batch_codec_create(&config, &codec) == 0);
    for (unsigned i = 0; i <= CFSR_INBOX_WRITES_MAX; i++) {
        buf[i] = aligned_alloc(CFSR_INBOX_BLOCK_BYTES, CFSR_INBOX_SLOT_BYTES);
        FUZZ_CHECK(buf[i] != NULL);
    }
    fs = fuzz_disk();
    fuzz_site_directories(fs, &site);
    for (unsigned run = 0; run < RUNS; run++)
        run_lane(fs, codec, buf);
    for (uint64_t sequence = 1; sequence < FUZZ_FILES_MAX; sequence++) {
        char path[CFSR_INBOX_PATH_BYTES];
        size_t len;
        uint8_t *data = fuzz_file_read(fs, cfsr_inbox_segment_path(&site, LANE, sequence, path),
                                       &len);

        if (data == NULL)
            break;
        fuzz_files_add(&base, path, data, len);
        free(data);
    }
    FUZZ_CHECK(base.count >= 2);
    cfsr_fs_sim_destroy(fs);
    cfsr_batch_codec_destroy(codec);
    for (unsigned i = 0; i <= CFSR_INBOX_WRITES_MAX; i++)
        free(buf[i]);
}

/* ---- the damaged one ---- */

static struct origin *origin_of(uint64_t site_id)
{
    for (unsigned i = 0; i < ORIGINS; i++)
        if (origins[i].records.site_id == site_id)
            return &origins[i];
    return NULL;
}

static void check_record(const struct cfsr_inbox_record *record, uint64_t next_lsn[ORIGINS])
{
    struct origin *origin = origin_of(record->site_id);

    FUZZ_CHECK(origin != NULL && record->lane == LANE);
    FUZZ_CHECK(memcmp(record->journal, origin->records.journal.bytes, 16) == 0);
    FUZZ_CHECK(record->lsn >= next_lsn[origin - origins] &&
               record->lsn + record->raw_bytes <= origin->stream.len_bytes);
    FUZZ_CHECK(memcmp(record->raw, origin->stream.data + record->lsn, record->raw_bytes) == 0);
    next_lsn[origin - origins] = record->end_lsn;
}

static int read_all(struct cfsr_fs *fs, uint8_t switches)
{
    struct cfsr_inbox_options options = {.opts_size = sizeof options,
                                         .all_records = (switches & ALL_RECORDS) != 0};
    uint64_t next_lsn[ORIGINS] = {0};
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    unsigned count = 0;
    int rc = cfsr_inbox_open_at(fs, &site, &options, &inbox);

    if (rc < 0)
        return rc;
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        check_record(&record, next_lsn);
        FUZZ_CHECK(++count < 10000);
    }
    cfsr_inbox_close(inbox);
    return rc;
}

static void check_cursors(const struct cfsr_inbox_state *found)
{
    for (uint32_t i = 0; i < found->origins; i++) {
        struct origin *origin = origin_of(found->cursor[i].site_id);

        FUZZ_CHECK(origin != NULL && found->cursor[i].lsn <= origin->sent_lsn);
    }
}

static void recover(struct cfsr_fs *fs)
{
    if (cfsr_inbox_recover_lane(fs, &site, LANE, false, state) < 0)
        return;
    check_cursors(state);
    FUZZ_CHECK(cfsr_inbox_recover_lane(fs, &site, LANE, false, second) == 0);
    FUZZ_CHECK(second->sequence == state->sequence && second->body_offset == state->body_offset &&
               second->arrival == state->arrival && second->origins == state->origins);
    for (uint32_t i = 0; i < second->origins; i++)
        for (uint32_t k = 0; k < state->origins; k++)
            FUZZ_CHECK(state->cursor[k].site_id != second->cursor[i].site_id ||
                       state->cursor[k].lsn == second->cursor[i].lsn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    struct cfsr_inbox_verify_options options = {0};
    struct cfsr_inbox_verify_report report = {0};
    struct fuzz_files files;
    struct cfsr_fs *fs;
    int rc;

    set_up();
    fuzz_files_copy(&files, &base);
    fuzz_files_damage(&files, &reader);
    fs = fuzz_disk();
    fuzz_site_directories(fs, &site);
    fuzz_files_write(&files, fs);
    if ((switches & UNRECOVERED) == 0)
        recover(fs);
    rc = read_all(fs, switches);
    if (cfsr_inbox_verify_lane(fs, &site, LANE, &options, &report) == 0 &&
        report.verdict == CFSR_INBOX_SOUND)
        FUZZ_CHECK(rc == 0 || rc == -CFSR_E_GONE || report.torn_bytes > 0);
    cfsr_fs_sim_destroy(fs);
    fuzz_files_free(&files);
    return 0;
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    struct fuzz_seed seed = {0};

    for (uint8_t switches = 0; switches < 4; switches++) {
        char name[32];

        fuzz_seed_u8(&seed, switches);
        (void)snprintf(name, sizeof name, "sound-%u", switches);
        fuzz_seed_end(&seed, corpus, name);
        fuzz_seed_u8(&seed, switches);
        fuzz_damage_flip(&seed, switches % 3, (uint16_t)(4096 + 5000 + switches * 700), 1);
        (void)snprintf(name, sizeof name, "flip-%u", switches);
        fuzz_seed_end(&seed, corpus, name);
    }
    fuzz_seed_u8(&seed, 0);
    fuzz_seed_u8(&seed, 4);
    fuzz_seed_u8(&seed, 1);
    fuzz_seed_u16(&seed, 20000);
    fuzz_seed_end(&seed, corpus, "cut");
}
