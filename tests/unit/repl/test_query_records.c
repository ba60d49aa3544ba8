/*
 * test_query_records.c - what a peer answers with is believed for its origin's signature only.
 *
 * Site 1 wrote the records, site 2 checks; site 3 is somebody else who holds a copy.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "repl/query_records.h"
#include "repl/session.h"
#include "session_pair.h"

#define LSN     4096u
#define RECORDS 5
#define PAYLOAD 64u
#define TOTAL   (CFSR_RECORD_HEADER_BYTES + PAYLOAD)

static struct cfsr_batch_codec *codec;
static uint8_t frame[CFSR_BATCH_PREFIX_BYTES + 4096], kept[sizeof frame], raw[RECORDS * TOTAL];
static uint8_t scratch[CFSR_BATCH_BODY_MAX_BYTES];
static uint32_t frame_bytes;
static uint64_t destinations[3];
static struct cfsr_records_check check;

static void make_records(void)
{
    uint32_t seed = cfsr_record_seed(&a.site.journal);
    for (unsigned i = 0; i < RECORDS; i++) {
        uint8_t *at = raw + i * TOTAL;
        struct cfsr_record_header header = {.payload_bytes = PAYLOAD,
                                            .seq = 10 + i,
                                            .timestamp_us = 1000 + i,
                                            .site_id = 1,
                                            .shard_id = 3,
                                            .op = 3};
        memset(at, (int)('a' + i), TOTAL);
        cfsr_record_header_store(at, &header);
        cfsr_record_seal(at, seed, LSN + i * TOTAL);
    }
}

static void sign_for(uint64_t destination)
{
    struct cfsr_mac_key *key = NULL;
    cr_assert_eq(cfsr_session_batch_key(a.keyring, 1, &a.site.cluster, 1, destination, &key), 0);
    cfsr_batch_sign(key, 1, frame, NULL, 0);
    cfsr_mac_key_destroy(key);
}

static void make_frame(uint64_t destination)
{
    struct cfsr_batch_header header = {.lane = 3,
                                       .site_id = 1,
                                       .journal = a.site.journal,
                                       .lsn_from = LSN,
                                       .lsn_to = LSN + sizeof raw,
                                       .entry_count = RECORDS};
    make_records();
    cr_assert_eq(cfsr_batch_encode(codec, raw, sizeof raw, frame + CFSR_BATCH_PREFIX_BYTES,
                                   sizeof frame - CFSR_BATCH_PREFIX_BYTES, &header),
                 0);
    cfsr_batch_header_store(&header, frame);
    frame_bytes = CFSR_BATCH_PREFIX_BYTES + header.stored_bytes;
    sign_for(destination);
    memcpy(kept, frame, sizeof frame);
}

static void set_up(void)
{
    struct cfsr_codec_config config = {.codec = 1, .min_compress_bytes = 1u << 20};
    session_pair_set_up();
    cr_assert_eq(cfsr_batch_codec_create(&config, &codec), 0);
    destinations[0] = 2;
    destinations[1] = 3;
    make_frame(2);
    check = (struct cfsr_records_check){.site = &b.site,
                                        .keyring = b.keyring,
                                        .codec = codec,
                                        .origin = 1,
                                        .journal = a.site.journal,
                                        .lane = 3,
                                        .lsn = LSN,
                                        .destinations = destinations,
                                        .destination_count = 2,
                                        .frame = frame,
                                        .frame_bytes = frame_bytes,
                                        .raw = scratch};
}

static void tear_down(void)
{
    cfsr_batch_codec_destroy(codec);
    session_pair_tear_down();
}

TestSuite(query_records, .init = set_up, .fini = tear_down);

Test(query_records, a_frame_signed_for_us_is_believed)
{
    cr_assert_eq(cfsr_records_check(&check), 0, "%s", cfsr_error_message());
    cr_assert_eq(check.scan.record_count, RECORDS);
    cr_assert_eq(memcmp(scratch, raw, sizeof raw), 0);
}

Test(query_records, a_frame_signed_for_another_site_is_believed_where_its_key_is)
{
    make_frame(3);
    cr_assert_eq(cfsr_records_check(&check), 0, "one key for all pairs: anybody can check");
    use_keys(&b, "key 1 site-pair 1,2 " SECRET_1 "\n");
    check.keyring = b.keyring;
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_TAG);
}

Test(query_records, no_key_at_all_is_said)
{
    use_keys(&b, "key 1 site-pair 8,9 " SECRET_1 "\n");
    check.keyring = b.keyring;
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_KEY);
}

Test(query_records, a_body_fits_under_our_own_sound_prefix)
{
    uint8_t own[CFSR_BATCH_PREFIX_BYTES];
    memcpy(own, frame, sizeof own); /* signed for us */
    make_frame(3);
    use_keys(&b, "key 1 site-pair 1,2 " SECRET_1 "\n");
    check.keyring = b.keyring;
    check.own_prefix = own;
    check.own_prefix_bytes = sizeof own;
    cr_assert_eq(cfsr_records_check(&check), 0, "%s", cfsr_error_message());
    cr_assert_eq(memcmp(frame, own, sizeof own), 0, "it takes the other's place");
    memcpy(frame, kept, sizeof frame);
    own[100] ^= 1; /* a trace id: inside the signature */
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_TAG);
}

Test(query_records, another_body_under_our_prefix_is_refused)
{
    uint8_t own[CFSR_BATCH_PREFIX_BYTES];
    memcpy(own, frame, sizeof own);
    use_keys(&b, "key 1 site-pair 1,2 " SECRET_1 "\n");
    check.keyring = b.keyring;
    check.own_prefix = own;
    check.own_prefix_bytes = sizeof own;
    make_frame(3);
    frame[CFSR_BATCH_PREFIX_BYTES + 10] ^= 1; /* the digest in its prefix still fits ours */
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_DIGEST);
}

Test(query_records, every_flipped_bit_is_noticed)
{
    for (uint32_t at = 0; at < frame_bytes; at++) {
        memcpy(frame, kept, sizeof frame);
        frame[at] ^= (uint8_t)(1u << (at % 8));
        cr_assert_lt(cfsr_records_check(&check), 0, "byte %u", at);
    }
}

Test(query_records, every_cut_is_noticed)
{
    for (uint32_t len = 0; len < frame_bytes; len++) {
        uint8_t *copy = malloc(len > 0 ? len : 1);
        memcpy(copy, kept, len);
        check.frame = copy;
        check.frame_bytes = len;
        cr_assert_lt(cfsr_records_check(&check), 0, "%u bytes", len);
        free(copy);
    }
}

Test(query_records, other_records_than_asked_for_are_refused)
{
    check.lsn = LSN + sizeof raw;
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_FRAME, "behind them");
    check.lsn = LSN - 8;
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_FRAME, "before them");
    check.lsn = LSN;
    check.lane = 4;
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_FRAME, "lane");
    check.lane = 3;
    check.origin = 2;
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_FRAME, "origin");
    check.origin = 1;
    check.journal.bytes[0] ^= 1;
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_FRAME, "journal");
}

Test(query_records, a_partial_frame_repairs_nobody)
{
    frame[6] = CFSR_BATCH_PARTIAL;
    sign_for(2);
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_FRAME);
}

Test(query_records, signed_nonsense_is_found_by_the_records)
{
    struct cfsr_batch_header header = {.lane = 3,
                                       .site_id = 1,
                                       .journal = a.site.journal,
                                       .lsn_from = LSN,
                                       .lsn_to = LSN + sizeof raw,
                                       .entry_count = RECORDS};
    raw[2 * TOTAL + 60] ^= 1;
    cr_assert_eq(cfsr_batch_encode(codec, raw, sizeof raw, frame + CFSR_BATCH_PREFIX_BYTES,
                                   sizeof frame - CFSR_BATCH_PREFIX_BYTES, &header),
                 0);
    cfsr_batch_header_store(&header, frame);
    sign_for(2);
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_CHECKSUM);
    make_records();
    header.lsn_to -= TOTAL; /* claims less than it holds */
    cr_assert_eq(cfsr_batch_encode(codec, raw, sizeof raw, frame + CFSR_BATCH_PREFIX_BYTES,
                                   sizeof frame - CFSR_BATCH_PREFIX_BYTES, &header),
                 0);
    cfsr_batch_header_store(&header, frame);
    sign_for(2);
    cr_assert_eq(cfsr_records_check(&check), -CFSR_E_BAD_FRAME);
}

Test(query_records, a_cut_takes_exactly_the_damaged_range)
{
    const uint8_t *records;
    uint32_t len;
    cr_assert_eq(cfsr_records_check(&check), 0);
    cr_assert_eq(cfsr_records_cut(&check, LSN + TOTAL, LSN + 3 * TOTAL, &records, &len), 0);
    cr_assert(records == scratch + TOTAL && len == 2 * TOTAL);
    cr_assert_eq(cfsr_records_cut(&check, LSN + TOTAL, LSN + 100 * TOTAL, &records, &len), 0);
    cr_assert_eq(len, 4 * TOTAL, "all there is; the rest is asked for next");
    cr_assert_eq(cfsr_records_cut(&check, LSN + 8, LSN + 2 * TOTAL, &records, &len),
                 -CFSR_E_BAD_ORDER, "no record begins there");
    cr_assert_eq(cfsr_records_cut(&check, LSN, LSN + TOTAL + 8, &records, &len), -CFSR_E_BAD_ORDER,
                 "a record reaches beyond it");
    cr_assert_eq(cfsr_records_cut(&check, LSN + sizeof raw, LSN + sizeof raw + 8, &records, &len),
                 -CFSR_E_BAD_ORDER);
}
