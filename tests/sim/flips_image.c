/*
 * flips_image.c - the files that `flips` damages, and the meaning of each of their bytes (flips.h).
 *
 * Thread:     one.
 * Invariants: the meaning comes from the formats' documents and from the shadow of what was
 *             written, not from the code that reads them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "flips.h"
#include "inbox/reader.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

#define MUST(condition) CFSR_ASSERT(condition)

static uint32_t size_of(struct cfsr_fs *fs, const char *path)
{
    struct cfsr_file *file;
    uint64_t bytes;

    MUST(cfsr_file_open(fs, path, CFSR_OPEN_READ, &file) == 0);
    MUST(cfsr_file_size(file, &bytes) == 0);
    cfsr_file_close(file);
    return (uint32_t)bytes;
}

static struct flips_file *add_file(struct flips *flips, struct cfsr_fs *fs, enum flips_kind kind,
                                   const char *path, enum flips_class class)
{
    struct flips_file *file = &flips->file[flips->files++];
    uint32_t len_bytes = size_of(fs, path);

    MUST(flips->files <= FLIPS_FILES_MAX);
    *file = (struct flips_file){.fs = fs, .kind = kind, .len_bytes = len_bytes};
    (void)snprintf(file->path, sizeof file->path, "%s", path);
    file->class_of = malloc(len_bytes);
    MUST(file->class_of != NULL);
    memset(file->class_of, (int)class, len_bytes);
    return file;
}

static void mark(struct flips_file *file, uint64_t from, uint64_t len_bytes, enum flips_class class)
{
    MUST(from + len_bytes <= file->len_bytes);
    memset(file->class_of + from, (int)class, len_bytes);
}

/* ---- journal ---- */

static void write_journal(struct torn_journal *journal)
{
    static const uint32_t sizes[] = {100, 900, 2500};
    unsigned lives;

    for (lives = 0; lives < 5; lives++) {
        MUST(torn_journal_open(journal) == 0);
        for (unsigned i = 0; i < 22; i++) {
            MUST(torn_journal_group(journal, sizes[i % 3]) == 0);
            MUST(torn_journal_recycle(journal) == 0);
        }
        MUST(torn_journal_mark(journal, lives % 2 == 0) == 0);
        torn_journal_close(journal);
    }
    MUST(torn_journal_open(journal) == 0);
    MUST(torn_journal_group(journal, 500) == 0);
    MUST(torn_journal_mark(journal, false) == 0);
    torn_journal_close(journal);
}

static void map_records(struct flips *flips, struct flips_file *file, uint64_t first_lsn)
{
    const struct torn_journal *journal = &flips->journal;
    uint64_t boundary = first_lsn + TORN_SEGMENT_BYTES, lsn = first_lsn, next_lsn = 0;
    uint32_t written = 0;

    while (lsn < boundary && lsn < journal->known_lsn &&
           torn_journal_record(journal, lsn, &next_lsn, &written) != 0) {
        uint64_t at = cfsr_segment_file_offset(&journal->site, lsn);
        uint32_t payload = cfsr_load_le32(journal->shadow + lsn + 4);

        mark(file, at, next_lsn - lsn, FLIPS_PAD_FILLER);
        mark(file, at, written, FLIPS_RECORD_HEADER);
        if (written > CFSR_RECORD_HEADER_BYTES)
            mark(file, at + CFSR_RECORD_HEADER_BYTES, payload, FLIPS_PAYLOAD);
        lsn = next_lsn;
    }
}

static void make_journal(struct flips *flips, struct cfsr_fs *fs)
{
    struct cfsr_segment_map map;
    char path[CFSR_LANE_PATH_BYTES];

    torn_journal_init(&flips->journal, fs, 42);
    write_journal(&flips->journal);
    MUST(cfsr_segment_map_load(fs, &flips->journal.site, 0, &map) == 0 && map.count >= 2);
    flips->journal_first = map.lsns[0];
    for (uint32_t i = 0; i < map.count; i++) {
        struct flips_file *file;

        cfsr_segment_path(&flips->journal.site, 0, map.lsns[i], path, sizeof path);
        file = add_file(flips, fs, FLIPS_JOURNAL_SEGMENT, path, FLIPS_BEHIND_END);
        mark(file, 0, CFSR_SEGMENT_HEADER_BYTES, FLIPS_HEADER_ZEROS);
        mark(file, 0, 96, FLIPS_SEGMENT_HEADER);
        map_records(flips, file, map.lsns[i]);
    }
    cfsr_segment_map_fini(&map);
}

/* ---- inbox ---- */

static void write_inbox(struct torn_inbox *inbox)
{
    for (unsigned lives = 0; lives < 4; lives++) {
        MUST(torn_inbox_open(inbox) == 0);
        for (unsigned i = 0; i < (lives < 2 ? 30u : 2u); i++) {
            MUST(torn_inbox_put(inbox, i % TORN_ORIGINS));
            if (i % 3 == 2)
                torn_inbox_drain(inbox);
        }
        torn_inbox_drain(inbox);
        torn_inbox_close(inbox, true);
    }
    MUST(torn_inbox_open(inbox) == 0); /* where the cursors are, in base */
    torn_inbox_close(inbox, true);
}

/* Records of one segment: by their own sizes, from the beginning. */
static uint64_t map_segment(const struct torn_inbox *inbox, struct flips_file *file,
                            uint64_t sequence, uint64_t tail_from)
{
    static uint8_t body[TORN_INBOX_SEGMENT];
    uint64_t at = 0, durable_below = 0;

    MUST(cfsr_fs_sim_peek(inbox->fs, file->path, CFSR_INBOX_SEGMENT_HEADER_BYTES, body,
                          sizeof body) == (int)sizeof body);
    while (at + CFSR_INBOX_LOCAL_HEADER_BYTES <= sizeof body) {
        const uint8_t *record = body + at;
        uint64_t place = CFSR_INBOX_SEGMENT_HEADER_BYTES + at;
        uint32_t bytes = cfsr_load_le32(record + 8);
        uint16_t kind = cfsr_load_le16(record + 6);

        if (cfsr_load_le32(record) != CFSR_INBOX_RECORD_MAGIC ||
            cfsr_load_le64(record + 16) != sequence) {
            at += CFSR_INBOX_RECORD_ALIGN;
            continue;
        }
        durable_below = cfsr_max_u64(durable_below, cfsr_load_le64(record + 40));
        mark(file, place, cfsr_inbox_record_space(bytes), FLIPS_BLOCK_FILLER);
        mark(file, place, bytes,
             kind == CFSR_INBOX_CURSORS ? FLIPS_CURSORS
             : kind == CFSR_INBOX_INDEX ? FLIPS_INDEX
                                        : FLIPS_BODY);
        if (kind == CFSR_INBOX_BATCH)
            mark(file, place, CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES,
                 FLIPS_LOCAL_HEADER);
        if (kind != CFSR_INBOX_INDEX && at + bytes > tail_from)
            mark(file, place, bytes, FLIPS_INBOX_TAIL);
        at += cfsr_inbox_record_space(bytes);
    }
    return durable_below;
}

static void make_inbox(struct flips *flips, struct cfsr_fs *fs)
{
    struct torn_inbox *inbox = flips->inbox;
    struct cfsr_inbox_range_of_segments range = {0};
    char path[CFSR_INBOX_PATH_BYTES];

    torn_inbox_begin(inbox, fs, 43);
    write_inbox(inbox);
    MUST(cfsr_inbox_list_segments(fs, &inbox->site, 0, &range) == 0 && range.last >= 3);
    for (uint64_t sequence = range.first; sequence <= range.last; sequence++) {
        struct flips_file *file;
        uint64_t durable_below;

        torn_inbox_path(inbox, sequence, path);
        file = add_file(flips, fs, FLIPS_INBOX_SEGMENT, path, FLIPS_BEHIND_END);
        if (sequence > inbox->state->sequence)
            continue; /* ready, and not begun */
        mark(file, 0, CFSR_INBOX_SEGMENT_HEADER_BYTES, FLIPS_HEADER_REST);
        mark(file, 0, 68, FLIPS_INBOX_HEADER);
        durable_below = map_segment(inbox, file, sequence, UINT64_MAX);
        if (sequence == inbox->state->sequence)
            (void)map_segment(inbox, file, sequence, durable_below);
    }
}

/* ---- the small files ---- */

static void make_acks(struct flips *flips, struct cfsr_fs *fs)
{
    struct cfsr_acks acks = {0};
    struct flips_file *file;
    uint32_t used = 48 + 2 * (8 + 8 * 1);

    for (unsigned turn = 0; turn < 6; turn++) {
        cfsr_acks_peer(&acks, 5)->acked[0] = 1000 + turn * 77;
        cfsr_acks_peer(&acks, 9)->acked[0] = 2000 + turn * 99;
        MUST(cfsr_acks_store(fs, &flips->journal.site, &acks) == 0);
        flips->acks[0] = flips->acks[1];
        flips->acks[1] = acks;
    }
    file = add_file(flips, fs, FLIPS_ACKS, "/d/acks", FLIPS_SLOT_REST);
    mark(file, acks.generation % 2 * CFSR_ACKS_SLOT_BYTES, used, FLIPS_ACKS_NEW);
    mark(file, (acks.generation + 1) % 2 * CFSR_ACKS_SLOT_BYTES, used, FLIPS_ACKS_OLD);
}

static void make_consumer(struct flips *flips, struct cfsr_fs *fs)
{
    struct torn_inbox *inbox = flips->inbox;
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .consumer = FLIPS_READER, .lane = CFSR_INBOX_ALL_LANES};
    struct cfsr_inbox_record record;
    struct cfsr_consumer *consumer;
    struct flips_file *file;
    uint32_t slot_bytes;
    uint64_t generation;

    for (unsigned turn = 0; turn < 5; turn++) {
        struct cfsr_inbox *reader;

        MUST(cfsr_inbox_open_at(fs, &inbox->site, &options, &reader) == 0);
        for (unsigned i = 0; i < 9; i++)
            MUST(cfsr_inbox_next(reader, 0, &record) == 1);
        MUST(cfsr_inbox_commit(reader) == 0);
        cfsr_inbox_close(reader);
        MUST(cfsr_consumer_open(fs, &inbox->site, FLIPS_READER, false, false, &consumer) == 0);
        flips->position[0] = flips->position[1];
        flips->position[1] = consumer->position[0];
        slot_bytes = consumer->slot_bytes;
        generation = consumer->generation;
        cfsr_consumer_close(consumer);
    }
    file = add_file(flips, fs, FLIPS_CONSUMER, "/d/inbox/consumers/" FLIPS_READER, FLIPS_SLOT_REST);
    for (unsigned slot = 0; slot < 2; slot++) {
        uint8_t used[4];

        MUST(cfsr_fs_sim_peek(fs, file->path, slot * slot_bytes + 16, used, 4) == 4);
        mark(file, slot * slot_bytes, cfsr_load_le32(used),
             slot == generation % 2 ? FLIPS_CONSUMER_NEW : FLIPS_CONSUMER_OLD);
    }
}

static void make_cluster(struct flips *flips)
{
    struct cfsr_fs_sim_options options = {.seed = 1, .capacity_bytes = 1ull << 30};

    torn_site_init(&flips->cluster);
    flips->cluster.segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    MUST(cfsr_fs_sim_create(&options, &flips->cluster_fs) == 0);
    MUST(cfsr_site_create(flips->cluster_fs, &flips->cluster) == 0);
    (void)add_file(flips, flips->cluster_fs, FLIPS_CLUSTER_FILE, "/d/cluster", FLIPS_CLUSTER);
}

/* Every bit of every header, in the order of files. */
static void list_places(struct flips *flips)
{
    for (unsigned turn = 0; turn < 2; turn++) {
        flips->places = 0;
        for (uint32_t i = 0; i < flips->files; i++) {
            for (uint32_t at = 0; at < flips->file[i].len_bytes; at++) {
                if (flips->file[i].class_of[at] >= FLIPS_HEADERS_END)
                    continue;
                for (uint32_t bit = 0; bit < 8; bit++, flips->places++)
                    if (flips->place != NULL)
                        flips->place[flips->places] = (struct flips_place){i, at * 8 + bit};
            }
        }
        if (flips->place == NULL)
            flips->place = malloc(flips->places * sizeof *flips->place);
        MUST(flips->place != NULL);
    }
}

struct flips *flips_make(uint64_t seed)
{
    struct flips *flips = calloc(1, sizeof *flips);
    struct cfsr_fs *blank, *fs;
    struct cfsr_site site;

    MUST(flips != NULL);
    flips->seed = seed;
    blank = torn_template(&site);
    cfsr_fs_sim_keep_stale(blank, true);
    MUST(cfsr_fs_sim_clone(blank, &fs) == 0);
    make_journal(flips, fs);
    make_acks(flips, fs);
    MUST(cfsr_fs_sim_clone(blank, &fs) == 0);
    flips->inbox = torn_inbox_create(blank);
    make_inbox(flips, fs);
    make_consumer(flips, fs);
    make_cluster(flips);
    list_places(flips);
    cfsr_fs_sim_destroy(blank);
    return flips;
}
