/*
 * test_wire.c - frame headers and control payloads: what goes in comes out, and nothing else gets
 * in.
 *
 * Every hostile payload is loaded from a heap block of exactly its length, so that the address
 * sanitizer sees a read beyond it.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "repl/wire.h"

/* One payload type: a sample on the wire, and its load with a result of its own. */
union any_payload {
    struct cfsr_hello hello;
    struct cfsr_hello_ack hello_ack;
    struct cfsr_ack ack;
    struct cfsr_heartbeat heartbeat;
    struct cfsr_goodbye goodbye;
    struct cfsr_query query;
};

enum {
    HEAD_FIXED = 0,
    HEAD_ITEM = 2,
    HEAD_COUNT = 4,
    HEAD_RESERVED = 6
};

static struct cfsr_hello sample_hello(void)
{
    struct cfsr_hello hello = {
        .version_min = 1,
        .version_max = 3,
        .features = 0x1122334455667788ull,
        .site_id = 7,
        .peer_site_id = 9,
        .site_name = "site-\xc3\xa4",
        .lanes = 8,
        .shards = 256,
        .segment_bytes = 64ull << 20,
        .lane_mask = 0x81,
        .core = 1,
        .cores = 4,
        .key_id = 42,
        .wall_us = 1700000000000000ull,
        .epoch = 5,
    };
    memset(hello.cluster.bytes, 0xc1, 16);
    memset(hello.journal.bytes, 0x10, 16);
    memset(hello.nonce, 0x4e, sizeof hello.nonce);
    memset(hello.session_id, 0x5d, sizeof hello.session_id);
    hello.lane_end[0] = 4096;
    hello.lane_end[7] = UINT64_MAX - 1;
    return hello;
}

static struct cfsr_hello_ack sample_hello_ack(void)
{
    struct cfsr_hello_ack ack = {
        .version = 1,
        .status = CFSR_E_WRONG_CORE,
        .features = 3,
        .site_id = 9,
        .site_name = "site-b",
        .core = 2,
        .cores = 3,
        .lane_mask = 1ull << 63 | 1,
        .wall_us = 12,
        .epoch = 13,
        .detail = "lanes belong to other cores",
    };
    memset(ack.cluster.bytes, 0xc1, 16);
    memset(ack.journal.bytes, 0x20, 16);
    memset(ack.known_journal.bytes, 0x10, 16);
    memset(ack.nonce, 0x4f, sizeof ack.nonce);
    ack.lane[0] = (struct cfsr_hello_lane){
        .cursor = 100,
        .incarnation = 2,
        .entries = 99,
        .last = {.lsn = 48, .seq = 3, .timestamp_us = 4, .crc = 0xdeadbeef}};
    ack.lane[63] = (struct cfsr_hello_lane){.last = {.lsn = UINT64_MAX}};
    return ack;
}

static struct cfsr_ack sample_ack(void)
{
    return (struct cfsr_ack){.backpressure_pct = 100,
                             .mode = 1,
                             .count = 3,
                             .lane = {{5, 1000, 900, 12}, {0, 1, 1, 1}, {63, UINT64_MAX, 0, 0}}};
}

static struct cfsr_heartbeat sample_heartbeat(void)
{
    return (struct cfsr_heartbeat){
        .wall_us = 77, .echo_wall_us = 66, .count = 2, .lane = {{1, 4096, 10}, {2, 8192, 20}}};
}

static struct cfsr_goodbye sample_goodbye(void)
{
    return (struct cfsr_goodbye){.reason = CFSR_E_SHUTDOWN, .detail = "going down"};
}

static struct cfsr_query sample_query(void)
{
    struct cfsr_query query = {.id = 7,
                               .kind = CFSR_QUERY_RECORDS,
                               .lane = 3,
                               .origin = 9,
                               .lsn_from = 4096,
                               .lsn_to = 8192};
    memset(query.journal.bytes, 0x77, sizeof query.journal.bytes);
    return query;
}

static int load_hello(const void *p, uint32_t n, union any_payload *u)
{
    return cfsr_hello_load(p, n, &u->hello);
}
static int load_hello_ack(const void *p, uint32_t n, union any_payload *u)
{
    return cfsr_hello_ack_load(p, n, &u->hello_ack);
}
static int load_ack(const void *p, uint32_t n, union any_payload *u)
{
    return cfsr_ack_load(p, n, &u->ack);
}
static int load_heartbeat(const void *p, uint32_t n, union any_payload *u)
{
    return cfsr_heartbeat_load(p, n, &u->heartbeat);
}
static int load_goodbye(const void *p, uint32_t n, union any_payload *u)
{
    return cfsr_goodbye_load(p, n, &u->goodbye);
}

static int load_query(const void *p, uint32_t n, union any_payload *u)
{
    return cfsr_query_load(p, n, &u->query);
}

struct kind {
    const char *name;
    int (*load)(const void *payload, uint32_t len_bytes, union any_payload *out);
    uint32_t fixed_bytes, item_bytes, count;
    struct {
        uint32_t at, len;
    } reserved[2];
    uint32_t len_bytes;
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
};

enum {
    KINDS = 6
};
static struct kind kinds[KINDS];

static void make_kinds(void)
{
    static const struct kind empty[KINDS] = {
        {.name = "hello",
         .load = load_hello,
         .fixed_bytes = 280,
         .item_bytes = 8,
         .count = 2,
         .reserved = {{6, 2}, {232, 48}}},
        {.name = "hello_ack",
         .load = load_hello_ack,
         .fixed_bytes = 360,
         .item_bytes = 56,
         .count = 2,
         .reserved = {{10, 2}, {336, 24}}},
        {.name = "ack",
         .load = load_ack,
         .fixed_bytes = 16,
         .item_bytes = 32,
         .count = 3,
         .reserved = {{10, 6}, {18, 6}}},
        {.name = "heartbeat",
         .load = load_heartbeat,
         .fixed_bytes = 32,
         .item_bytes = 24,
         .count = 2,
         .reserved = {{24, 8}, {34, 6}}},
        {.name = "goodbye",
         .load = load_goodbye,
         .fixed_bytes = 144,
         .reserved = {{6, 2}, {12, 4}}},
        {.name = "query", .load = load_query, .fixed_bytes = 72, .reserved = {{20, 4}, {64, 8}}},
    };
    memcpy(kinds, empty, sizeof kinds);
    struct cfsr_hello hello = sample_hello();
    struct cfsr_hello_ack hello_ack = sample_hello_ack();
    struct cfsr_ack ack = sample_ack();
    struct cfsr_heartbeat heartbeat = sample_heartbeat();
    struct cfsr_goodbye goodbye = sample_goodbye();
    kinds[0].len_bytes = cfsr_hello_store(&hello, kinds[0].bytes);
    kinds[1].len_bytes = cfsr_hello_ack_store(&hello_ack, kinds[1].bytes);
    kinds[2].len_bytes = cfsr_ack_store(&ack, kinds[2].bytes);
    kinds[3].len_bytes = cfsr_heartbeat_store(&heartbeat, kinds[3].bytes);
    kinds[4].len_bytes = cfsr_goodbye_store(&goodbye, kinds[4].bytes);
    struct cfsr_query query = sample_query();
    kinds[5].len_bytes = cfsr_query_store(&query, kinds[5].bytes);
}

/* Loads from a block of exactly len bytes. */
static int load_exactly(const struct kind *kind, const void *bytes, uint32_t len_bytes,
                        union any_payload *out)
{
    uint8_t *block = malloc(len_bytes > 0 ? len_bytes : 1);
    cr_assert_not_null(block);
    memcpy(block, bytes, len_bytes);
    int rc = kind->load(len_bytes > 0 ? block : block + 1, len_bytes, out);
    free(block);
    return rc;
}

TestSuite(wire, .init = make_kinds);

Test(wire, sizes_are_those_of_the_document)
{
    for (unsigned i = 0; i < KINDS; i++) {
        const struct kind *kind = &kinds[i];
        cr_assert_eq(cfsr_load_le16(kind->bytes + HEAD_FIXED), kind->fixed_bytes, "%s", kind->name);
        cr_assert_eq(cfsr_load_le16(kind->bytes + HEAD_ITEM), kind->item_bytes, "%s", kind->name);
        cr_assert_eq(cfsr_load_le16(kind->bytes + HEAD_COUNT), kind->count, "%s", kind->name);
        cr_assert_eq(kind->len_bytes, kind->fixed_bytes + kind->count * kind->item_bytes, "%s",
                     kind->name);
    }
}

Test(wire, hello_round_trip)
{
    struct cfsr_hello want = sample_hello(), got;
    memset(&got, 0xee, sizeof got);
    cr_assert_eq(cfsr_hello_load(kinds[0].bytes, kinds[0].len_bytes, &got), 0);
    cr_assert_eq(memcmp(&got, &want, sizeof want), 0);
}

Test(wire, hello_with_all_lanes_round_trip)
{
    struct cfsr_hello want = sample_hello(), got;
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    want.lane_mask = UINT64_MAX;
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++)
        want.lane_end[lane] = lane * 1000 + 1;
    uint32_t len = cfsr_hello_store(&want, bytes);
    cr_assert_eq(len, 280 + 64 * 8);
    cr_assert_eq(cfsr_hello_load(bytes, len, &got), 0);
    cr_assert_eq(memcmp(&got, &want, sizeof want), 0);
}

Test(wire, hello_ack_round_trip)
{
    struct cfsr_hello_ack want = sample_hello_ack(), got;
    cr_assert_eq(cfsr_hello_ack_load(kinds[1].bytes, kinds[1].len_bytes, &got), 0);
    cr_assert_eq(got.version, want.version);
    cr_assert_eq(got.status, want.status);
    cr_assert_eq(got.features, want.features);
    cr_assert(cfsr_uuid_equal(&got.cluster, &want.cluster));
    cr_assert_eq(got.site_id, want.site_id);
    cr_assert_str_eq(got.site_name, want.site_name);
    cr_assert(cfsr_uuid_equal(&got.journal, &want.journal));
    cr_assert(cfsr_uuid_equal(&got.known_journal, &want.known_journal));
    cr_assert_eq(got.core, want.core);
    cr_assert_eq(got.cores, want.cores);
    cr_assert_eq(got.lane_mask, want.lane_mask);
    cr_assert_eq(memcmp(got.nonce, want.nonce, 32), 0);
    cr_assert_eq(got.wall_us, want.wall_us);
    cr_assert_eq(got.epoch, want.epoch);
    cr_assert_str_eq(got.detail, want.detail);
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++) {
        cr_assert_eq(got.lane[lane].cursor, want.lane[lane].cursor);
        cr_assert_eq(got.lane[lane].incarnation, want.lane[lane].incarnation);
        cr_assert_eq(got.lane[lane].entries, want.lane[lane].entries);
        cr_assert_eq(got.lane[lane].last.lsn, want.lane[lane].last.lsn);
        cr_assert_eq(got.lane[lane].last.seq, want.lane[lane].last.seq);
        cr_assert_eq(got.lane[lane].last.timestamp_us, want.lane[lane].last.timestamp_us);
        cr_assert_eq(got.lane[lane].last.crc, want.lane[lane].last.crc);
    }
}

Test(wire, ack_round_trip)
{
    struct cfsr_ack want = sample_ack(), got;
    cr_assert_eq(cfsr_ack_load(kinds[2].bytes, kinds[2].len_bytes, &got), 0);
    cr_assert_eq(got.backpressure_pct, want.backpressure_pct);
    cr_assert_eq(got.mode, want.mode);
    cr_assert_eq(got.count, want.count);
    for (unsigned i = 0; i < want.count; i++) {
        cr_assert_eq(got.lane[i].lane, want.lane[i].lane);
        cr_assert_eq(got.lane[i].durable_lsn, want.lane[i].durable_lsn);
        cr_assert_eq(got.lane[i].applied_lsn, want.lane[i].applied_lsn);
        cr_assert_eq(got.lane[i].entries, want.lane[i].entries);
    }
}

Test(wire, heartbeat_round_trip)
{
    struct cfsr_heartbeat want = sample_heartbeat(), got;
    cr_assert_eq(cfsr_heartbeat_load(kinds[3].bytes, kinds[3].len_bytes, &got), 0);
    cr_assert_eq(got.wall_us, want.wall_us);
    cr_assert_eq(got.echo_wall_us, want.echo_wall_us);
    cr_assert_eq(got.count, want.count);
    for (unsigned i = 0; i < want.count; i++) {
        cr_assert_eq(got.lane[i].lane, want.lane[i].lane);
        cr_assert_eq(got.lane[i].committed_lsn, want.lane[i].committed_lsn);
        cr_assert_eq(got.lane[i].entries, want.lane[i].entries);
    }
}

Test(wire, goodbye_round_trip)
{
    struct cfsr_goodbye want = sample_goodbye(), got;
    cr_assert_eq(cfsr_goodbye_load(kinds[4].bytes, kinds[4].len_bytes, &got), 0);
    cr_assert_eq(got.reason, want.reason);
    cr_assert_str_eq(got.detail, want.detail);
}

Test(wire, every_truncation_and_every_surplus_is_refused)
{
    for (unsigned i = 0; i < KINDS; i++) {
        union any_payload out;
        for (uint32_t len = 0; len < kinds[i].len_bytes; len++)
            cr_assert_eq(load_exactly(&kinds[i], kinds[i].bytes, len, &out), -CFSR_E_BAD_FRAME,
                         "%s cut to %u", kinds[i].name, len);
        for (uint32_t more = 1; more < 70; more++)
            cr_assert_eq(load_exactly(&kinds[i], kinds[i].bytes, kinds[i].len_bytes + more, &out),
                         -CFSR_E_BAD_FRAME, "%s with %u bytes more", kinds[i].name, more);
    }
}

/* Any single byte may be anything: the load may accept it (the tag will not), but must stay within
 * its bytes and types. */
Test(wire, every_corrupted_byte_is_survived)
{
    static const uint8_t flips[] = {0x01, 0x10, 0x80, 0x7f, 0xff};
    for (unsigned i = 0; i < KINDS; i++) {
        union any_payload out;
        uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
        memcpy(bytes, kinds[i].bytes, sizeof bytes);
        for (uint32_t at = 0; at < kinds[i].len_bytes; at++) {
            for (unsigned f = 0; f < sizeof flips; f++) {
                bytes[at] = kinds[i].bytes[at] ^ flips[f];
                int rc = load_exactly(&kinds[i], bytes, kinds[i].len_bytes, &out);
                cr_assert(rc == 0 || rc == -CFSR_E_BAD_FRAME, "%s byte %u: %d", kinds[i].name, at,
                          rc);
            }
            bytes[at] = kinds[i].bytes[at];
        }
    }
}

Test(wire, every_value_of_the_head_is_survived)
{
    for (unsigned i = 0; i < KINDS; i++) {
        union any_payload out;
        uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
        for (unsigned field = HEAD_FIXED; field <= HEAD_RESERVED; field += 2) {
            for (uint32_t value = 0; value <= UINT16_MAX; value++) {
                if (value == cfsr_load_le16(kinds[i].bytes + field))
                    continue;
                memcpy(bytes, kinds[i].bytes, kinds[i].len_bytes);
                cfsr_store_le16(bytes + field, (uint16_t)value);
                cr_assert_eq(load_exactly(&kinds[i], bytes, kinds[i].len_bytes, &out),
                             -CFSR_E_BAD_FRAME, "%s head %u = %u", kinds[i].name, field, value);
            }
        }
    }
}

Test(wire, reserved_bytes_must_be_zero)
{
    for (unsigned i = 0; i < KINDS; i++) {
        for (unsigned r = 0; r < 2; r++) {
            for (uint32_t at = kinds[i].reserved[r].at;
                 at < kinds[i].reserved[r].at + kinds[i].reserved[r].len; at++) {
                union any_payload out;
                kinds[i].bytes[at] = 1;
                cr_assert_eq(load_exactly(&kinds[i], kinds[i].bytes, kinds[i].len_bytes, &out),
                             -CFSR_E_BAD_FRAME, "%s byte %u", kinds[i].name, at);
                kinds[i].bytes[at] = 0;
            }
        }
    }
}

/* A newer writer appends fields to the fixed part and to the items; what this version knows is
 * read, the rest skipped. */
Test(wire, longer_parts_of_a_newer_version_are_skipped)
{
    for (unsigned i = 0; i < KINDS; i++) {
        const struct kind *kind = &kinds[i];
        const uint32_t more_fixed = 24, more_item = kind->item_bytes > 0 ? 16 : 0;
        uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
        memset(bytes, 0xaa, sizeof bytes);
        memcpy(bytes, kind->bytes, kind->fixed_bytes);
        cfsr_store_le16(bytes + HEAD_FIXED, (uint16_t)(kind->fixed_bytes + more_fixed));
        cfsr_store_le16(bytes + HEAD_ITEM, (uint16_t)(kind->item_bytes + more_item));
        uint32_t at = kind->fixed_bytes + more_fixed;
        for (uint32_t item = 0; item < kind->count; item++) {
            memcpy(bytes + at, kind->bytes + kind->fixed_bytes + item * kind->item_bytes,
                   kind->item_bytes);
            at += kind->item_bytes + more_item;
        }
        union any_payload want, got;
        memset(&want, 0, sizeof want);
        memset(&got, 0, sizeof got);
        cr_assert_eq(load_exactly(kind, kind->bytes, kind->len_bytes, &want), 0, "%s", kind->name);
        cr_assert_eq(load_exactly(kind, bytes, at, &got), 0, "%s", kind->name);
        cr_assert_eq(memcmp(&got, &want, sizeof want), 0, "%s", kind->name);
    }
}

Test(wire, lane_count_must_match_the_mask)
{
    struct cfsr_hello hello;
    cfsr_store_le64(kinds[0].bytes + 88, 0x83); /* lane mask: three lanes, two described */
    cr_assert_eq(cfsr_hello_load(kinds[0].bytes, kinds[0].len_bytes, &hello), -CFSR_E_BAD_FRAME);
    struct cfsr_hello_ack ack;
    cfsr_store_le64(kinds[1].bytes + 88, 1);
    cr_assert_eq(cfsr_hello_ack_load(kinds[1].bytes, kinds[1].len_bytes, &ack), -CFSR_E_BAD_FRAME);
}

Test(wire, lanes_out_of_range_or_named_twice_are_refused)
{
    struct cfsr_ack ack = sample_ack(), got;
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    ack.lane[1].lane = 64;
    cr_assert_eq(cfsr_ack_load(bytes, cfsr_ack_store(&ack, bytes), &got), -CFSR_E_BAD_FRAME);
    ack.lane[1].lane = ack.lane[0].lane;
    cr_assert_eq(cfsr_ack_load(bytes, cfsr_ack_store(&ack, bytes), &got), -CFSR_E_BAD_FRAME);
    struct cfsr_heartbeat heartbeat = sample_heartbeat(), got_heartbeat;
    heartbeat.lane[1].lane = heartbeat.lane[0].lane;
    cr_assert_eq(
        cfsr_heartbeat_load(bytes, cfsr_heartbeat_store(&heartbeat, bytes), &got_heartbeat),
        -CFSR_E_BAD_FRAME);
}

Test(wire, ack_percent_and_mode_are_bounded)
{
    struct cfsr_ack ack = sample_ack(), got;
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    ack.backpressure_pct = 101;
    cr_assert_eq(cfsr_ack_load(bytes, cfsr_ack_store(&ack, bytes), &got), -CFSR_E_BAD_FRAME);
    ack.backpressure_pct = 0;
    ack.mode = 2;
    cr_assert_eq(cfsr_ack_load(bytes, cfsr_ack_store(&ack, bytes), &got), -CFSR_E_BAD_FRAME);
}

Test(wire, status_is_zero_or_an_error_number)
{
    struct cfsr_goodbye goodbye = sample_goodbye(), got;
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    goodbye.reason = 0;
    cr_assert_eq(cfsr_goodbye_load(bytes, cfsr_goodbye_store(&goodbye, bytes), &got), 0);
    cr_assert_eq(got.reason, 0);
    goodbye.reason = 5; /* an errno of the sender: meaningless to the peer */
    cr_assert_eq(cfsr_goodbye_load(bytes, cfsr_goodbye_store(&goodbye, bytes), &got), 0);
    cr_assert_eq(got.reason, CFSR_E_FAILED);
    static const uint32_t wrong[] = {1, 4000, 5000, 0x80000000u, UINT32_MAX};
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(wrong); i++) {
        cfsr_store_le32(bytes + 8, wrong[i]);
        cr_assert_eq(cfsr_goodbye_load(bytes, 144, &got), -CFSR_E_BAD_FRAME, "%u", wrong[i]);
    }
    cfsr_store_le32(bytes + 8, 4999); /* a number of a later version */
    cr_assert_eq(cfsr_goodbye_load(bytes, 144, &got), 0);
}

static int load_detail(const char *text, size_t len)
{
    struct cfsr_goodbye goodbye = {0}, got;
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    uint32_t total = cfsr_goodbye_store(&goodbye, bytes);
    memcpy(bytes + 16, text, len);
    return cfsr_goodbye_load(bytes, total, &got);
}

Test(wire, text_for_logs_is_printable_and_ended)
{
    static const char *const bad[] = {
        "line\nbreak", "\x1b[31mred",  "tab\t",        "del\x7f",          "\xc2\x9b!",   "\xff",
        "\xc0\xaf",    "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "cut \xe2\x82"};
    static const char *const good[] = {"", "plain ~ text", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"};
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(bad); i++)
        cr_assert_eq(load_detail(bad[i], strlen(bad[i])), -CFSR_E_BAD_FRAME, "%u", i);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(good); i++)
        cr_assert_eq(load_detail(good[i], strlen(good[i])), 0, "%u", i);
    cr_assert_eq(load_detail("a\0b", 3), -CFSR_E_BAD_FRAME, "bytes behind the NUL");
    char full[128];
    memset(full, 'x', sizeof full);
    cr_assert_eq(load_detail(full, sizeof full), -CFSR_E_BAD_FRAME, "no NUL");
    cr_assert_eq(load_detail(full, sizeof full - 1), 0);
}

Test(wire, stored_text_is_made_printable_and_cut_between_characters)
{
    struct cfsr_goodbye goodbye = {.detail = "a\nb\x1b"
                                             "c\xff"},
                        got;
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    cr_assert_eq(cfsr_goodbye_load(bytes, cfsr_goodbye_store(&goodbye, bytes), &got), 0);
    cr_assert_str_eq(got.detail, "a?b?c?");
    memset(goodbye.detail, 'x', sizeof goodbye.detail); /* not ended */
    cr_assert_eq(cfsr_goodbye_load(bytes, cfsr_goodbye_store(&goodbye, bytes), &got), 0);
    cr_assert_eq(strlen(got.detail), 127);
    for (unsigned at = 2; at + 3 <= sizeof goodbye.detail; at += 3)
        memcpy(goodbye.detail + at, "\xe2\x82\xac", 3);
    cr_assert_eq(cfsr_goodbye_load(bytes, cfsr_goodbye_store(&goodbye, bytes), &got), 0);
    cr_assert_eq(strlen(got.detail), 125); /* the last one would leave no room for the NUL */
}

/* ---- link header ---- */

static struct cfsr_link_header sample_header(enum cfsr_frame_type type, uint32_t length_bytes)
{
    struct cfsr_link_header header = {.version = CFSR_WIRE_VERSION,
                                      .type = (uint8_t)type,
                                      .flags = CFSR_FRAME_ACK_NOW,
                                      .length_bytes = length_bytes,
                                      .link_seq = 11,
                                      .batch_seq = type == CFSR_FRAME_BATCH ? 5 : 0};
    memset(header.tag, 0x77, sizeof header.tag);
    return header;
}

static int reload(const struct cfsr_link_header *header)
{
    uint8_t bytes[CFSR_LINK_HEADER_BYTES];
    struct cfsr_link_header got;
    cfsr_link_header_store(header, bytes);
    return cfsr_link_header_load(bytes, &got);
}

Test(wire, link_header_round_trip)
{
    struct cfsr_link_header want = sample_header(CFSR_FRAME_BATCH, 4096), got;
    uint8_t bytes[CFSR_LINK_HEADER_BYTES];
    cfsr_link_header_store(&want, bytes);
    cr_assert_eq(memcmp(bytes, "CFR1", 4), 0);
    cr_assert_eq(cfsr_link_header_load(bytes, &got), 0);
    cr_assert_eq(got.version, want.version);
    cr_assert_eq(got.type, want.type);
    cr_assert_eq(got.flags, want.flags);
    cr_assert_eq(got.length_bytes, want.length_bytes);
    cr_assert_eq(got.link_seq, want.link_seq);
    cr_assert_eq(got.batch_seq, want.batch_seq);
    cr_assert_eq(memcmp(got.tag, want.tag, sizeof want.tag), 0);
}

Test(wire, link_header_lengths_are_bounded_by_type)
{
    static const struct {
        enum cfsr_frame_type type;
        uint32_t least, most;
    } bounds[] = {
        {CFSR_FRAME_HELLO, 280, CFSR_CONTROL_MAX_BYTES},
        {CFSR_FRAME_HELLO_ACK, 360, CFSR_CONTROL_MAX_BYTES},
        {CFSR_FRAME_ACK, 16, CFSR_CONTROL_MAX_BYTES},
        {CFSR_FRAME_HEARTBEAT, 32, CFSR_CONTROL_MAX_BYTES},
        {CFSR_FRAME_GOODBYE, 144, CFSR_CONTROL_MAX_BYTES},
        {CFSR_FRAME_BATCH, CFSR_BATCH_PREFIX_BYTES, CFSR_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES},
    };
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(bounds); i++) {
        struct cfsr_link_header header = sample_header(bounds[i].type, bounds[i].least);
        cr_assert_eq(reload(&header), 0);
        header.length_bytes = bounds[i].least - 1;
        cr_assert_eq(reload(&header), -CFSR_E_BAD_FRAME);
        header.length_bytes = bounds[i].most;
        cr_assert_eq(reload(&header), 0);
        header.length_bytes = bounds[i].most + 1;
        cr_assert_eq(reload(&header), -CFSR_E_TOO_LARGE);
        header.length_bytes = UINT32_MAX;
        cr_assert_eq(reload(&header), -CFSR_E_TOO_LARGE);
    }
}

Test(wire, only_types_in_use_are_accepted)
{
    for (unsigned type = 0; type <= UINT8_MAX; type++) {
        struct cfsr_link_header header = sample_header(CFSR_FRAME_ACK, 1024);
        header.type = (uint8_t)type;
        header.batch_seq = type == CFSR_FRAME_BATCH;
        bool in_use = (type >= CFSR_FRAME_HELLO && type <= CFSR_FRAME_HEARTBEAT) ||
                      (type >= CFSR_FRAME_QUERY && type <= CFSR_FRAME_GOODBYE);
        cr_assert_eq(reload(&header), in_use ? 0 : -CFSR_E_BAD_FRAME, "type %u", type);
    }
}

Test(wire, link_header_refusals)
{
    struct cfsr_link_header header = sample_header(CFSR_FRAME_ACK, 16), got;
    uint8_t bytes[CFSR_LINK_HEADER_BYTES];
    cfsr_link_header_store(&header, bytes);
    bytes[0] ^= 1;
    cr_assert_eq(cfsr_link_header_load(bytes, &got), -CFSR_E_BAD_FRAME, "magic");
    bytes[0] ^= 1;
    bytes[12] = 1;
    cr_assert_eq(cfsr_link_header_load(bytes, &got), -CFSR_E_BAD_FRAME, "reserved");
    header.version = CFSR_WIRE_VERSION + 1;
    cr_assert_eq(reload(&header), -CFSR_E_VERSION);
    header.version = 0;
    cr_assert_eq(reload(&header), -CFSR_E_VERSION);
    header.version = CFSR_WIRE_VERSION;
    header.flags = 2;
    cr_assert_eq(reload(&header), -CFSR_E_BAD_FRAME, "flags");
    header.flags = 0;
    header.link_seq = 0;
    cr_assert_eq(reload(&header), -CFSR_E_BAD_FRAME, "link sequence");
    header.link_seq = 1;
    header.batch_seq = 1;
    cr_assert_eq(reload(&header), -CFSR_E_BAD_FRAME, "batch sequence on an ACK");
    header = sample_header(CFSR_FRAME_BATCH, 192);
    header.batch_seq = 0;
    cr_assert_eq(reload(&header), -CFSR_E_BAD_FRAME, "BATCH without a batch sequence");
}
