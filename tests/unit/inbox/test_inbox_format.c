/* What passes for a record of a segment, byte by byte. */
#include <criterion/criterion.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "inbox/format.h"

#define SEQUENCE     5u /* of the segment, now that its file was recycled */
#define BODY_OFFSET  8192u
#define PAYLOAD      (CFSR_INBOX_CURSORS_FIXED + CFSR_INBOX_CURSOR_BYTES)
#define RECORD_BYTES (CFSR_INBOX_LOCAL_HEADER_BYTES + PAYLOAD)
#define CRC_OFFSET   60u

/* CURSORS as the segment of that sequence has them at BODY_OFFSET. */
static void make_record(uint64_t sequence, uint8_t *record)
{
    struct cfsr_inbox_cursor cursor = {.site_id = 10, .lsn = 4096, .entries = 1};
    struct cfsr_inbox_local local = {.kind = CFSR_INBOX_CURSORS,
                                     .record_bytes = RECORD_BYTES,
                                     .sequence = sequence,
                                     .arrival = 7,
                                     .incarnation = 1};

    memset(record, 0, RECORD_BYTES);
    cr_assert_eq(cfsr_inbox_cursors_store(&cursor, 1, record + CFSR_INBOX_LOCAL_HEADER_BYTES),
                 PAYLOAD);
    cfsr_inbox_record_seal(&local, BODY_OFFSET, record);
}

/* The record's CRC by the table in docs/inbox-format.md, if it were of that segment. */
static uint32_t crc_in_segment(const uint8_t *record, uint64_t sequence)
{
    uint8_t seed[16];
    uint32_t crc;

    cfsr_store_le64(seed, sequence);
    cfsr_store_le64(seed + 8, BODY_OFFSET);
    crc = cfsr_crc32c(0, seed, sizeof seed);
    crc = cfsr_crc32c(crc, record, CRC_OFFSET);
    return cfsr_crc32c(crc, record + CFSR_INBOX_LOCAL_HEADER_BYTES, PAYLOAD);
}

static int load(const uint8_t *record)
{
    struct cfsr_inbox_local local;
    uint32_t need;

    return cfsr_inbox_record_load(record, RECORD_BYTES, SEQUENCE, BODY_OFFSET, &local, &need);
}

/* By compare and not by chance: one in 2^32 old records has the CRC that a new one would have. */
Test(inbox_format, a_record_of_another_segment_is_none_whatever_its_crc)
{
    static const uint64_t others[] = {1, SEQUENCE - 1, SEQUENCE + 1, SEQUENCE + (1ull << 32)};
    uint8_t record[RECORD_BYTES];

    make_record(SEQUENCE, record);
    cr_assert_eq(crc_in_segment(record, SEQUENCE), cfsr_load_le32(record + CRC_OFFSET));
    cr_assert_eq(load(record), 0);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        uint32_t sealed;

        make_record(others[i], record);
        sealed = cfsr_load_le32(record + CRC_OFFSET);
        cfsr_store_le32(record + CRC_OFFSET, crc_in_segment(record, SEQUENCE));
        cr_assert_eq(load(record), -CFSR_E_FORMAT, "sequence %llu with a CRC that fits",
                     (unsigned long long)others[i]);
        cfsr_store_le32(record + CRC_OFFSET, sealed);
        cr_assert_eq(load(record), -CFSR_E_FORMAT, "sequence %llu", (unsigned long long)others[i]);
    }
}
