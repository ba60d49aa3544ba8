/*
 * torn_inbox_case.c - one case of torn on an inbox lane: batches of several origins, several writes
 * in flight, each found whole, torn or not at all; recovery's cursors must be exactly those of what
 * is whole in the order of the log.
 *
 * Thread:     one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "cases.h"
#include "inbox/verify.h"
#include "torn_inbox.h"
#include "torn_journal.h"
#include "torn_tear.h"

/* Fields of the local header, by docs/inbox-format.md. */
#define AT_KIND          6u
#define AT_RECORD_BYTES  8u
#define AT_DURABLE_BELOW 40u

const char *torn_inbox_counter_name(unsigned counter)
{
    static const char *const names[TORN_INBOX_COUNTERS] = {
        [TORN_INBOX_CASES] = "inbox: cases",
        [TORN_INBOX_RECOVERIES] = "inbox: recoveries",
        [TORN_INBOX_WRITES_TORN] = "inbox: writes in flight torn",
        [TORN_INBOX_KEPT] = "inbox: more kept than was acknowledged",
        [TORN_INBOX_CUT] = "inbox: tails cut",
        [TORN_INBOX_MIDDLE] = "inbox: damage below durable, listed",
        [TORN_INBOX_ROT_TAIL] = "inbox: damage in the last block, cut there",
        [TORN_INBOX_READ] = "inbox: read through after it",
        [TORN_INBOX_VERIFIED] = "inbox: verified sound after it",
    };

    return names[counter];
}

/* A record of the shadow; the bytes of it and of what lies behind it up to the next. */
struct place {
    uint64_t sequence, offset, end;
    uint32_t bytes;
    uint16_t kind;
    uint64_t durable_below;
};

static bool place_at(const struct torn_inbox *inbox, const struct torn_block *block,
                     uint64_t offset, struct place *place_out)
{
    const uint8_t *record = inbox->shadow[block->sequence] + offset;

    if (offset + CFSR_INBOX_LOCAL_HEADER_BYTES > block->body_offset + block->len_bytes ||
        cfsr_load_le32(record) != CFSR_INBOX_RECORD_MAGIC)
        return false;
    place_out->sequence = block->sequence;
    place_out->offset = offset;
    place_out->kind = cfsr_load_le16(record + AT_KIND);
    place_out->bytes = cfsr_load_le32(record + AT_RECORD_BYTES);
    place_out->durable_below = cfsr_load_le64(record + AT_DURABLE_BELOW);
    place_out->end = offset + cfsr_inbox_record_space(place_out->bytes);
    return true;
}

static bool is_whole(const struct torn_inbox *inbox, const struct place *place)
{
    static uint8_t bytes[TORN_INBOX_SEGMENT];
    char path[CFSR_INBOX_PATH_BYTES];
    int got;

    torn_inbox_path(inbox, place->sequence, path);
    got = cfsr_fs_sim_peek(inbox->fs, path, cfsr_inbox_file_offset(place->offset), bytes,
                           place->bytes);
    return got == (int)place->bytes &&
           memcmp(bytes, inbox->shadow[place->sequence] + place->offset, place->bytes) == 0;
}

/* The cursors of what is whole on the disk, in the order of the log. */
static void whole_cursors(const struct torn_inbox *inbox, uint64_t cursor[TORN_ORIGINS])
{
    uint32_t batches = 0;

    memcpy(cursor, inbox->base, sizeof inbox->base);
    for (uint32_t i = 0; i < inbox->blocks; i++) {
        struct place place;
        uint64_t offset = inbox->block[i].body_offset;

        for (; place_at(inbox, &inbox->block[i], offset, &place); offset = place.end) {
            if (!is_whole(inbox, &place) && place.kind != CFSR_INBOX_INDEX)
                return;
            if (place.kind != CFSR_INBOX_BATCH)
                continue;
            CFSR_ASSERT(batches < inbox->puts);
            cursor[inbox->put[batches].origin] = inbox->put[batches].lsn_to;
            batches++;
        }
    }
}

static void some_steps(struct torn_inbox *inbox, unsigned most)
{
    unsigned steps = (unsigned)(torn_random(&inbox->random) % (most + 1));
    uint32_t origins = 1 + (uint32_t)(torn_random(&inbox->random) % TORN_ORIGINS);

    for (; steps > 0; steps--) {
        switch (torn_random(&inbox->random) % 5) {
        case 0: torn_inbox_issue(inbox, torn_random(&inbox->random) % 2 == 0); break;
        case 1:
            if (inbox->flights > 0)
                torn_inbox_complete(inbox,
                                    (uint32_t)(torn_random(&inbox->random) % inbox->flights));
            break;
        default: (void)torn_inbox_put(inbox, (uint32_t)(torn_random(&inbox->random) % origins));
        }
    }
}

/* The power goes; each write in flight is found in some shape. */
static void crash(struct torn_inbox *inbox, uint64_t *counters, uint64_t *tears)
{
    char path[CFSR_INBOX_PATH_BYTES];

    torn_inbox_issue(inbox, torn_random(&inbox->random) % 4 != 0);
    cfsr_fs_sim_crash(inbox->fs, (enum cfsr_persistence)(torn_random(&inbox->random) % 4));
    for (uint32_t i = 0; i < inbox->flights; i++) {
        const struct cfsr_inbox_write *write = &inbox->flight[i];

        torn_inbox_path(inbox, torn_inbox_sequence(inbox, write->file), path);
        tears[torn_tear(inbox->fs, path, write->offset_bytes, write->buf, write->len_bytes,
                        &inbox->random)]++;
        counters[TORN_INBOX_WRITES_TORN]++;
    }
    torn_inbox_close(inbox, false);
}

static void recover_and_check(struct torn_inbox *inbox, uint64_t *counters)
{
    uint64_t whole[TORN_ORIGINS], acked[TORN_ORIGINS];
    bool kept = false;
    const char *wrong;
    int rc;

    whole_cursors(inbox, whole);
    memcpy(acked, inbox->acked, sizeof acked);
    rc = torn_inbox_open(inbox);
    SIM_CASE_CHECK(rc == 0, "a torn tail is refused (%d): %s", rc, cfsr_error_message());
    SIM_CASE_CHECK(inbox->state->damaged == 0, "a torn tail is taken for damage");
    for (uint32_t i = 0; i < TORN_ORIGINS; i++) {
        SIM_CASE_CHECK(inbox->base[i] >= acked[i],
                       "origin %" PRIu32 ": acknowledged to %" PRIx64 ", recovered to %" PRIx64, i,
                       acked[i], inbox->base[i]);
        SIM_CASE_CHECK(inbox->base[i] == whole[i],
                       "origin %" PRIu32 ": whole to %" PRIx64 ", recovered to %" PRIx64
                       " (acknowledged to %" PRIx64 ")",
                       i, whole[i], inbox->base[i], acked[i]);
        kept |= whole[i] > acked[i];
    }
    counters[TORN_INBOX_RECOVERIES]++;
    counters[TORN_INBOX_KEPT] += kept;
    counters[TORN_INBOX_CUT] += inbox->state->cut_bytes > 0;
    if (torn_random(&inbox->random) % 2 == 0) {
        wrong = torn_inbox_read(inbox, inbox->base);
        SIM_CASE_CHECK(wrong == NULL, "%s: %s", wrong, cfsr_error_message());
        counters[TORN_INBOX_READ]++;
    }
}

static void verify_inbox(struct torn_inbox *inbox, uint64_t *counters)
{
    struct cfsr_inbox_verify_options options = {0};
    struct cfsr_inbox_verify_report report = {0};
    int rc = cfsr_inbox_verify_lane(inbox->fs, &inbox->site, 0, &options, &report);

    SIM_CASE_CHECK(rc == 0 && report.verdict == CFSR_INBOX_SOUND, "verify: %d, verdict %d", rc,
                   (int)report.verdict);
    counters[TORN_INBOX_VERIFIED]++;
}

/* All records of the last segment's shadow that this run wrote, in order. */
static uint32_t places_of_last(const struct torn_inbox *inbox, struct place *places, uint32_t most)
{
    uint64_t last = inbox->blocks == 0 ? 0 : inbox->block[inbox->blocks - 1].sequence;
    uint32_t count = 0;

    for (uint32_t i = 0; i < inbox->blocks; i++) {
        uint64_t offset = inbox->block[i].body_offset;

        while (inbox->block[i].sequence == last && count < most &&
               place_at(inbox, &inbox->block[i], offset, &places[count]))
            offset = places[count++].end;
    }
    return count;
}

/* Recovery reads headers, the reader also bodies: whoever reads the byte says so. */
static void check_found(struct torn_inbox *inbox, const struct place *place, uint64_t byte)
{
    const char *wrong;
    int rc;

    if (place->kind != CFSR_INBOX_BATCH ||
        byte < CFSR_INBOX_LOCAL_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES) {
        memset(inbox->state, 0, sizeof *inbox->state);
        rc = cfsr_inbox_recover_lane(inbox->fs, &inbox->site, 0, true, inbox->state);
        SIM_CASE_CHECK(rc == -CFSR_E_DAMAGED || (rc == 0 && inbox->state->damaged > 0),
                       "byte %" PRIu64 " of the record (kind %u) at %" PRIx64 ", segment %" PRIu64
                       ", is wrong and recovery does not see it: %d",
                       byte, place->kind, place->offset, place->sequence, rc);
    }
    wrong = torn_inbox_read(inbox, inbox->acked);
    if (wrong == NULL && place->kind == CFSR_INBOX_CURSORS)
        return; /* no record is missing, and readers go by the records */
    SIM_CASE_CHECK(wrong != NULL && strcmp(wrong, torn_inbox_stopped) == 0,
                   "byte %" PRIu64 " of the record (kind %u) at %" PRIx64 ", segment %" PRIu64
                   ", is wrong, and reading: %s",
                   byte, place->kind, place->offset, place->sequence,
                   wrong == NULL ? "nothing is noticed" : wrong);
}

/*
 * Everything is durable, and one byte of the last segment goes wrong. Below what a later record
 * says was durable that is damage: listed, and nothing else may change. Else it is
 * indistinguishable from a torn write, and cut there.
 */
static void rot(struct torn_inbox *inbox, uint64_t *counters, uint64_t *tears)
{
    static struct place places[TORN_WRITES];
    uint32_t count, which;
    uint64_t durable_below = 0, bit;
    char path[CFSR_INBOX_PATH_BYTES];
    const struct place *place;
    bool proven;

    torn_inbox_drain(inbox);
    count = places_of_last(inbox, places, TORN_WRITES);
    crash(inbox, counters, tears);
    if (count == 0)
        return;
    which = (uint32_t)(torn_random(&inbox->random) % count);
    place = &places[which];
    for (uint32_t i = which + 1; i < count; i++)
        durable_below = cfsr_max_u64(durable_below, places[i].durable_below);
    bit = (cfsr_inbox_file_offset(place->offset) * 8) +
          torn_random(&inbox->random) % (place->bytes * 8ull);
    torn_inbox_path(inbox, place->sequence, path);
    CFSR_ASSERT(cfsr_fs_sim_flip_bit(inbox->fs, path, bit) == 0);
    /* Nothing of an incarnation follows its CURSORS before they are durable. */
    proven = durable_below >= place->offset + place->bytes ||
             (place->sequence == inbox->block[0].sequence &&
              place->offset == inbox->block[0].body_offset && which + 1 < count);
    if (!proven || place->kind == CFSR_INBOX_INDEX) {
        counters[TORN_INBOX_ROT_TAIL]++;
        whole_cursors(inbox, inbox->acked); /* what it may fall back to */
        return;
    }
    check_found(inbox, place, bit / 8 - cfsr_inbox_file_offset(place->offset));
    counters[TORN_INBOX_MIDDLE]++;
    CFSR_ASSERT(cfsr_fs_sim_flip_bit(inbox->fs, path, bit) == 0);
}

void torn_inbox_case(struct torn_inbox *inbox, uint64_t seed, uint64_t *counters, uint64_t *tears)
{
    struct cfsr_fs *fs;
    unsigned rounds;
    int rc = cfsr_fs_sim_clone(inbox->blank, &fs);

    SIM_CASE_CHECK(rc == 0, "clone: %d", rc);
    cfsr_fs_sim_reseed(fs, seed);
    torn_inbox_begin(inbox, fs, seed);
    rounds = 1 + (unsigned)(torn_random(&inbox->random) % 4);
    rc = torn_inbox_open(inbox);
    SIM_CASE_CHECK(rc == 0, "open: %d", rc);
    while (rounds-- > 0) {
        some_steps(inbox, 60);
        if (torn_random(&inbox->random) % 6 == 0)
            rot(inbox, counters, tears);
        else
            crash(inbox, counters, tears);
        recover_and_check(inbox, counters);
    }
    if (seed % 8 == 0)
        verify_inbox(inbox, counters);
    torn_inbox_close(inbox, true);
    cfsr_fs_sim_destroy(fs);
    counters[TORN_INBOX_CASES]++;
}
