/*
 * fuzz_inbox_bytes.c - any bytes as an inbox segment, with header, local headers and body digests
 * put right: what recovery, reader and verify make of records nobody in their right mind wrote.
 *
 * Input: u8 switches (1 segment header made right; 2 local headers sealed; 4 body digests made
 * right), then the body of segment 1. Seeds: a lane the writer made.
 *
 * Properties: recovery is idempotent; an entry is delivered once, in its origin's order; whatever
 * stands there, reader and verify end.
 */
#include "fuzz.h"
#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "inbox/reader.h"
#include "inbox/verify.h"

enum switches {
    FIX_HEADER = 1,
    SEAL = 2,
    DIGEST = 4
};
enum {
    LANE = 0,
    SEGMENT_BYTES = 40960
};

static struct cfsr_site site;
static struct cfsr_digest *digest;
static struct cfsr_inbox_state *state, *second;

static void set_up(void)
{
    if (digest != NULL)
        return;
    fuzz_site(&site, 2, 1, 16, SEGMENT_BYTES);
    FUZZ_CHECK(cfsr_digest_create(&digest) == 0);
    state = calloc(1, sizeof *state);
    second = calloc(1, sizeof *second);
    FUZZ_CHECK(state != NULL && second != NULL);
}

static void fix_digest(uint8_t *prefix, uint32_t len_bytes)
{
    uint32_t extension = cfsr_load_le16(prefix + 82), stored = cfsr_load_le32(prefix + 76);

    if (CFSR_BATCH_PREFIX_BYTES + (uint64_t)extension + stored != len_bytes)
        return;
    cfsr_digest_body(digest, prefix + CFSR_BATCH_PREFIX_BYTES + extension, stored, prefix + 128);
}

/* Every place where a record may stand and one says it does. */
static void fix(uint8_t *body, uint8_t switches)
{
    for (uint64_t at = 0; at + CFSR_INBOX_LOCAL_HEADER_BYTES < SEGMENT_BYTES; at += 64) {
        uint8_t *record = body + at;
        struct cfsr_inbox_local local = {
            .kind = cfsr_load_le16(record + 6),
            .record_bytes = cfsr_load_le32(record + 8),
            .entries = cfsr_load_le32(record + 12),
            .sequence = 1,
            .arrival = cfsr_load_le64(record + 24),
            .arrived_at_us = cfsr_load_le64(record + 32),
            .durable_below = cfsr_load_le64(record + 40),
            .incarnation = cfsr_load_le64(record + 48),
        };

        if (cfsr_load_le32(record) != CFSR_INBOX_RECORD_MAGIC ||
            local.record_bytes < CFSR_INBOX_LOCAL_HEADER_BYTES ||
            local.record_bytes > SEGMENT_BYTES - at)
            continue;
        if (local.kind == CFSR_INBOX_BATCH) {
            uint32_t len_bytes = local.record_bytes - CFSR_INBOX_LOCAL_HEADER_BYTES;

            if (len_bytes < CFSR_BATCH_PREFIX_BYTES ||
                (uint64_t)CFSR_BATCH_PREFIX_BYTES + cfsr_load_le16(record + 64 + 82) > len_bytes)
                continue;
            if ((switches & DIGEST) != 0)
                fix_digest(record + CFSR_INBOX_LOCAL_HEADER_BYTES, len_bytes);
        }
        if ((switches & SEAL) != 0)
            cfsr_inbox_record_seal(&local, at, record);
    }
}

static void read_all(struct cfsr_fs *fs)
{
    struct cfsr_inbox_options options = {.opts_size = sizeof options};
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    unsigned count = 0;

    if (cfsr_inbox_open_at(fs, &site, &options, &inbox) < 0)
        return;
    while (cfsr_inbox_next(inbox, 0, &record) == 1)
        FUZZ_CHECK(++count < SEGMENT_BYTES && record.end_lsn > record.lsn);
    cfsr_inbox_close(inbox);
}

/* What is durable here is the same, whoever asks first. */
static void check_same_cursors(const struct cfsr_inbox_state *one,
                               const struct cfsr_inbox_state *other)
{
    FUZZ_CHECK(one->origins == other->origins);
    for (uint32_t i = 0; i < one->origins; i++) {
        const struct cfsr_inbox_cursor *cursor = &one->cursor[i];
        bool found = false;

        for (uint32_t k = 0; k < other->origins && !found; k++)
            found = other->cursor[k].site_id == cursor->site_id &&
                    cfsr_uuid_equal(&other->cursor[k].journal, &cursor->journal) &&
                    other->cursor[k].lsn == cursor->lsn;
        FUZZ_CHECK(found);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    static uint8_t image[CFSR_INBOX_SEGMENT_HEADER_BYTES + SEGMENT_BYTES];
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    struct cfsr_inbox_verify_options options = {0};
    struct cfsr_inbox_verify_report report = {0};
    char path[CFSR_INBOX_PATH_BYTES];
    struct cfsr_fs *fs;

    set_up();
    memset(image, 0, sizeof image);
    if (reader.left > 0)
        memcpy(image + CFSR_INBOX_SEGMENT_HEADER_BYTES, reader.at,
               cfsr_min_u64(reader.left, SEGMENT_BYTES));
    if ((switches & FIX_HEADER) != 0)
        cfsr_inbox_segment_header_store(&site, LANE, 1, image);
    else if (reader.left > 0)
        memcpy(image, reader.at, cfsr_min_u64(reader.left, 128));
    fix(image + CFSR_INBOX_SEGMENT_HEADER_BYTES, switches);
    fs = fuzz_disk();
    fuzz_site_directories(fs, &site);
    fuzz_file_write(fs, cfsr_inbox_segment_path(&site, LANE, 1, path), image, sizeof image);
    read_all(fs);
    (void)cfsr_inbox_verify_lane(fs, &site, LANE, &options, &report);
    if (cfsr_inbox_recover_lane(fs, &site, LANE, false, state) == 0) {
        FUZZ_CHECK(cfsr_inbox_recover_lane(fs, &site, LANE, false, second) == 0);
        FUZZ_CHECK(second->body_offset == state->body_offset && second->arrival == state->arrival);
        check_same_cursors(state, second);
        read_all(fs);
    }
    cfsr_fs_sim_destroy(fs);
    return 0;
}

/* ---- seeds ---- */

static void append(struct fuzz_seed *seed, struct cfsr_inbox_local *local, const void *payload,
                   uint32_t len_bytes, bool block)
{
    size_t at = seed->len_bytes - 1;
    uint8_t *record = calloc(1, CFSR_INBOX_LOCAL_HEADER_BYTES + len_bytes);

    FUZZ_CHECK(record != NULL);
    memcpy(record + CFSR_INBOX_LOCAL_HEADER_BYTES, payload, len_bytes);
    local->record_bytes = CFSR_INBOX_LOCAL_HEADER_BYTES + len_bytes;
    local->arrival++;
    cfsr_inbox_record_seal(local, at, record);
    fuzz_seed_bytes(seed, record, local->record_bytes);
    while ((seed->len_bytes - 1) % (block ? CFSR_INBOX_BLOCK_BYTES : 64) != 0)
        fuzz_seed_u8(seed, 0);
    free(record);
}

static void append_batch(struct fuzz_seed *seed, struct cfsr_inbox_local *local,
                         struct fuzz_records *records, bool block)
{
    struct fuzz_seed body = {0};
    struct cfsr_batch_header header = {.lane = LANE,
                                       .site_id = records->site_id,
                                       .journal = records->journal,
                                       .lsn_from = records->lsn,
                                       .incarnation = 1};

    fuzz_seed_bytes(&body, seed->data, CFSR_BATCH_PREFIX_BYTES); /* room for the prefix */
    header.entry_count = 3;
    fuzz_records_mark(records, &body, records->lsn);
    for (unsigned i = 0; i < 3; i++)
        fuzz_records_entry(records, &body, i * 60);
    header.lsn_to = records->lsn;
    header.original_bytes = (uint32_t)body.len_bytes - CFSR_BATCH_PREFIX_BYTES;
    header.stored_bytes = header.original_bytes;
    cfsr_digest_body(digest, body.data + CFSR_BATCH_PREFIX_BYTES, header.stored_bytes,
                     header.digest);
    cfsr_batch_header_store(&header, body.data);
    local->kind = CFSR_INBOX_BATCH;
    local->entries = 3;
    append(seed, local, body.data, (uint32_t)body.len_bytes, block);
    free(body.data);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    static uint8_t payload[CFSR_INBOX_INDEX_AREA_BYTES];
    static const struct cfsr_inbox_cursor cursor = {.site_id = 9, .last = {.lsn = UINT64_MAX}};
    static struct cfsr_inbox_index index;
    struct cfsr_inbox_local local = {.kind = CFSR_INBOX_CURSORS, .sequence = 1, .incarnation = 1};
    struct fuzz_records records;
    struct fuzz_seed seed = {0};
    struct cfsr_uuid journal = {{9}};

    set_up();
    fuzz_records_init(&records, &site, 9, &journal, LANE);
    fuzz_seed_u8(&seed, FIX_HEADER | SEAL | DIGEST);
    append(&seed, &local, payload, cfsr_inbox_cursors_store(&cursor, 0, payload), true);
    append_batch(&seed, &local, &records, false);
    append_batch(&seed, &local, &records, true);
    local.durable_below = 8192;
    append_batch(&seed, &local, &records, true);
    struct fuzz_seed with_index = {0};
    fuzz_seed_bytes(&with_index, seed.data, seed.len_bytes);
    fuzz_seed_end(&seed, corpus, "lane");
    while (with_index.len_bytes < 1 + SEGMENT_BYTES - CFSR_INBOX_INDEX_AREA_BYTES)
        fuzz_seed_u8(&with_index, 0);
    cfsr_inbox_index_reset(&index);
    cfsr_inbox_index_add(&index, 4096, 2, 1, 0, 0, records.lsn);
    local.kind = CFSR_INBOX_INDEX;
    local.entries = 0;
    append(&with_index, &local, payload, cfsr_inbox_index_store(&index, &cursor, 1, payload), true);
    fuzz_seed_end(&with_index, corpus, "index");
}
