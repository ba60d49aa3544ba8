/* Records, the scan, groups and payloads: pure functions on memory. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "journal/group.h"
#include "journal/record.h"
#include "journal/status_page.h"
#include <cfsrepl/payload.h>

static const struct cfsr_site site = {.site_id = 5,
                                      .lanes = 2,
                                      .shards = 4,
                                      .segment_bytes = CFSR_SEGMENT_BYTES_MIN,
                                      .journal = {{9}}};

static void group_make(struct cfsr_commit_group *group, uint64_t end_lsn)
{
    uint64_t next_seq[2] = {1, 1};
    uint8_t block[CFSR_GROUP_BLOCK_BYTES] = {0};
    struct cfsr_lane_state state = {.end_lsn = end_lsn, .incarnation = 1, .next_seq = next_seq};

    cr_assert(cfsr_group_init(group, &site, 1, 1 << 16, &state, block) == 0);
}

static int stage(struct cfsr_commit_group *group, uint32_t shard, uint32_t payload_bytes,
                 struct cfsr_entry_position *position)
{
    static uint8_t payload[CFSR_RECORD_PAYLOAD_MAX + 1];
    struct cfsr_entry entry = {
        .inode = 1, .op = CFSR_OP_CREATE, .payload = payload, .payload_bytes = payload_bytes};

    return cfsr_group_stage(group, &entry, shard, 10, position);
}

static struct cfsr_scan scan_of(const struct cfsr_group_span *span, uint64_t *next_seq)
{
    return (struct cfsr_scan){
        .data = span->block + (span->lsn - span->block_lsn),
        .len_bytes = (uint32_t)(span->data_end_lsn - span->lsn),
        .lsn = span->lsn,
        .segment_bytes = site.segment_bytes,
        .seed = cfsr_record_seed(&site.journal),
        .site_id = site.site_id,
        .lane = 1,
        .lanes = 2,
        .shards = 4,
        .next_seq = next_seq,
    };
}

/* A group at the start of a segment: SHARDS, MARK, count entries. */
static void first_group(struct cfsr_commit_group *group, unsigned count,
                        struct cfsr_group_span *span)
{
    struct cfsr_entry_position position;

    group_make(group, 0);
    cr_assert(stage(group, 1, 5, &position) == CFSR_GROUP_NEED_SEGMENT);
    cfsr_group_segment_opened(group);
    for (unsigned i = 0; i < count; i++)
        cr_assert(stage(group, 1 + 2 * (i % 2), 13 * i, &position) == CFSR_GROUP_STAGED);
    cfsr_group_take(group, 20, span);
}

Test(journal_record, scan_takes_a_whole_group)
{
    struct cfsr_commit_group group;
    struct cfsr_group_span span;
    uint64_t next_seq[2] = {0};

    first_group(&group, 10, &span);
    struct cfsr_scan scan = scan_of(&span, next_seq);
    cr_assert(cfsr_record_scan(&scan) == 0);
    cr_assert(scan.end == CFSR_SCAN_END_OF_DATA);
    cr_assert(scan.record_count == 12 && scan.entry_count == 10);
    cr_assert(scan.raw_bytes == scan.len_bytes && scan.next_lsn == span.end_lsn);
    cr_assert(next_seq[0] == 6 && next_seq[1] == 6);
    cfsr_group_fini(&group);
}

Test(journal_record, scan_finds_every_flipped_bit)
{
    struct cfsr_commit_group group;
    struct cfsr_group_span span;

    first_group(&group, 4, &span);
    struct cfsr_scan scan = scan_of(&span, NULL);
    uint8_t *bytes = malloc(scan.len_bytes);
    memcpy(bytes, scan.data, scan.len_bytes);
    scan.data = bytes;
    for (uint32_t bit = 0; bit < scan.len_bytes * 8; bit++) {
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ (1u << bit % 8));
        int rc = cfsr_record_scan(&scan);
        cr_assert(rc < 0 || scan.end == CFSR_SCAN_NEED_MORE, "bit %u", bit);
        cr_assert(scan.next_lsn <= bit / 8);
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ (1u << bit % 8));
    }
    free(bytes);
    cfsr_group_fini(&group);
}

Test(journal_record, a_misplaced_or_foreign_record_never_passes)
{
    struct cfsr_commit_group group;
    struct cfsr_group_span span;

    first_group(&group, 3, &span);
    struct cfsr_scan scan = scan_of(&span, NULL);
    scan.lsn += 8;
    cr_assert(cfsr_record_scan(&scan) == -CFSR_E_CHECKSUM);
    scan.lsn = span.lsn + site.segment_bytes; /* the place it would have in a recycled segment */
    cr_assert(cfsr_record_scan(&scan) == -CFSR_E_CHECKSUM);
    scan.lsn = span.lsn;
    scan.site_id = 6;
    cr_assert(cfsr_record_scan(&scan) == -CFSR_E_FOREIGN);
    scan.site_id = site.site_id;
    scan.lane = 0;
    cr_assert(cfsr_record_scan(&scan) == -CFSR_E_FOREIGN);
    cfsr_group_fini(&group);
}

Test(journal_record, scan_limits_and_partial_data)
{
    struct cfsr_commit_group group;
    struct cfsr_group_span span;

    first_group(&group, 10, &span);
    struct cfsr_scan scan = scan_of(&span, NULL);
    scan.max_entries = 4;
    cr_assert(cfsr_record_scan(&scan) == 0);
    cr_assert(scan.end == CFSR_SCAN_LIMIT && scan.entry_count == 4);
    scan.max_entries = 0;
    scan.max_raw_bytes = 1;
    cr_assert(cfsr_record_scan(&scan) == 0);
    cr_assert(scan.end == CFSR_SCAN_LIMIT && scan.record_count == 1);
    scan.max_raw_bytes = 0;
    uint32_t len_bytes = scan.len_bytes;
    for (uint32_t len = 0; len < len_bytes; len++) {
        scan.len_bytes = len;
        cr_assert(cfsr_record_scan(&scan) == 0);
        cr_assert(scan.end ==
                  (scan.raw_bytes == len ? CFSR_SCAN_END_OF_DATA : CFSR_SCAN_NEED_MORE));
        if (scan.end == CFSR_SCAN_NEED_MORE)
            cr_assert(scan.need_bytes > len - scan.raw_bytes);
    }
    cfsr_group_fini(&group);
}

Test(journal_record, a_wrong_seq_is_found)
{
    struct cfsr_commit_group group;
    struct cfsr_group_span span;
    struct cfsr_entry_position position;
    uint64_t next_seq[2] = {0};

    first_group(&group, 2, &span);
    cfsr_group_done(&group);
    cr_assert(stage(&group, 1, 1, &position) == CFSR_GROUP_STAGED);
    cfsr_group_take(&group, 20, &span);
    struct cfsr_scan scan = scan_of(&span, next_seq);
    next_seq[0] = 7;
    cr_assert(cfsr_record_scan(&scan) == -CFSR_E_BAD_ORDER);
    cr_assert(scan.record_count == 1);
    next_seq[0] = 2;
    cr_assert(cfsr_record_scan(&scan) == 0);
    cfsr_group_fini(&group);
}

/* Fills the segment so that left bytes remain before its end, then stages one that does not fit. */
static void pad_case(uint64_t left, bool expect_pad)
{
    struct cfsr_commit_group group;
    struct cfsr_group_span span;
    struct cfsr_entry_position position;
    uint64_t start = site.segment_bytes - 8192,
             head = CFSR_RECORD_HEADER_BYTES + CFSR_MARK_PAYLOAD_BYTES;

    group_make(&group, start);
    uint32_t payload = (uint32_t)(8192 - head - CFSR_RECORD_HEADER_BYTES - left);
    cr_assert(stage(&group, 1, payload, &position) == CFSR_GROUP_STAGED);
    cr_assert(position.end_lsn ==
              (left < CFSR_RECORD_HEADER_BYTES ? site.segment_bytes : site.segment_bytes - left));
    cr_assert(stage(&group, 1, 4000, &position) == CFSR_GROUP_NEED_FLUSH);
    cfsr_group_take(&group, 20, &span);
    cr_assert(span.end_lsn == site.segment_bytes);
    cr_assert(span.data_end_lsn ==
              site.segment_bytes - left + (expect_pad ? CFSR_RECORD_HEADER_BYTES : 0));
    cr_assert(span.zeroed_end_lsn <= site.segment_bytes);
    struct cfsr_scan scan = scan_of(&span, NULL);
    cr_assert(cfsr_record_scan(&scan) == 0);
    cr_assert(scan.end == CFSR_SCAN_SEGMENT_END && scan.next_lsn == site.segment_bytes);
    cr_assert(scan.record_count == (expect_pad ? 3 : 2));
    cr_assert(scan.raw_bytes == scan.len_bytes);
    cfsr_group_done(&group);
    cr_assert(stage(&group, 1, 4000, &position) == CFSR_GROUP_NEED_SEGMENT);
    cfsr_group_segment_opened(&group);
    cr_assert(stage(&group, 1, 4000, &position) == CFSR_GROUP_STAGED);
    cr_assert(position.lsn > site.segment_bytes && position.seq == 2);
    cfsr_group_fini(&group);
}

Test(journal_group, an_exact_fit_needs_no_pad)
{
    pad_case(0, false);
}
Test(journal_group, less_than_a_header_is_implied_padding)
{
    for (uint64_t left = 8; left < CFSR_RECORD_HEADER_BYTES; left += 8)
        pad_case(left, false);
}
Test(journal_group, a_header_and_more_is_a_pad)
{
    for (uint64_t left = CFSR_RECORD_HEADER_BYTES; left < 200; left += 8)
        pad_case(left, true);
}

Test(journal_group, seq_wrap_and_sizes_are_refused)
{
    struct cfsr_commit_group group;
    struct cfsr_entry_position position;

    group_make(&group, 4096);
    cr_assert(stage(&group, 1, CFSR_RECORD_PAYLOAD_MAX + 1, &position) == -CFSR_E_TOO_LARGE);
    cr_assert(stage(&group, 0, 1, &position) == -CFSR_E_FORMAT);
    group.next_seq[1] = UINT64_MAX - 1;
    cr_assert(stage(&group, 3, 1, &position) == CFSR_GROUP_STAGED);
    cr_assert(position.seq == UINT64_MAX - 1);
    cr_assert(stage(&group, 3, 1, &position) == -CFSR_E_SEQ_WRAP);
    cr_assert(stage(&group, 1, 1, &position) == CFSR_GROUP_STAGED);
    cfsr_group_fini(&group);
}

Test(journal_group, the_mark_says_what_was_durable)
{
    struct cfsr_commit_group group;
    struct cfsr_group_span span;
    struct cfsr_entry_position position;

    first_group(&group, 3, &span);
    cfsr_group_done(&group);
    uint64_t start = span.end_lsn;
    cr_assert(stage(&group, 1, 1, &position) == CFSR_GROUP_STAGED);
    cfsr_group_take(&group, 4242, &span);
    struct cfsr_scan scan = scan_of(&span, NULL);
    cr_assert(cfsr_record_scan(&scan) == 0);
    cr_assert(scan.committed_lsn == start);
    const uint8_t *mark = scan.data + CFSR_RECORD_HEADER_BYTES;
    cr_assert(scan.data[44] == CFSR_RECORD_MARK);
    cr_assert(cfsr_load_le64(mark) == 1 && cfsr_load_le64(mark + 16) == 3 &&
              cfsr_load_le64(mark + 24) == 4242);
    cfsr_group_fini(&group);
}

Test(journal_payload, round_trip_and_malformed)
{
    uint8_t buffer[128];
    struct cfsr_payload_builder builder;
    struct cfsr_field field;
    uint64_t value = 0;

    cfsr_payload_begin(&builder, buffer, sizeof buffer);
    cfsr_payload_put_u64(&builder, CFSR_TAG_MODE, 0100644);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_NAME, "hello", 5);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_VALUE, NULL, 0);
    cr_assert(builder.error == 0 && builder.len_bytes == 40);
    cr_assert(cfsr_payload_get_u64(buffer, 40, CFSR_TAG_MODE, &value) == 1 && value == 0100644);
    cr_assert(cfsr_payload_find(buffer, 40, CFSR_TAG_NAME, &field) == 1);
    cr_assert(field.len_bytes == 5 && memcmp(field.value, "hello", 5) == 0);
    cr_assert(cfsr_payload_find(buffer, 40, CFSR_TAG_UID, &field) == 0);
    cr_assert(cfsr_payload_get_u64(buffer, 40, CFSR_TAG_NAME, &value) == -CFSR_E_FORMAT);
    for (uint32_t len = 1; len < 40; len++)
        if (len != 16 && len != 32)
            cr_assert(cfsr_payload_find(buffer, len, CFSR_TAG_UID, &field) == -CFSR_E_FORMAT, "%u",
                      len);
    cfsr_store_le32(buffer + 4, UINT32_MAX);
    cr_assert(cfsr_payload_find(buffer, 40, CFSR_TAG_UID, &field) == -CFSR_E_FORMAT);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_DATA, buffer, 100);
    cr_assert(builder.error == -CFSR_E_TOO_LARGE);
}

Test(journal_payload, op_names)
{
    for (unsigned op = 0; op < CFSR_OP_COUNT; op++)
        cr_assert(cfsr_op_parse(cfsr_op_name(op)) == (int)op);
    cr_assert(cfsr_op_parse("setXATTR") == CFSR_OP_SETXATTR);
    cr_assert(cfsr_op_parse("nothing") == -CFSR_E_FORMAT);
    cr_assert(cfsr_op_name(11) == NULL);
}
