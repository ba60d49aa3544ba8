/*
 * test_session_seal.c - sealed bodies of a session: agreed on or refused, opened in one place and
 * one order only.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <sodium.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "repl/session.h"
#include "repl/session_internal.h"
#include "session_pair.h"

static void set_up(void)
{
    session_pair_set_up();
    a.local.seal = b.local.seal = CFSR_SEAL_REQUIRE;
}

TestSuite(session_seal, .init = set_up, .fini = session_pair_tear_down);

enum {
    HEAD_BYTES = CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES,
    BODY_BYTES = 300,
    SEALED_BYTES = HEAD_BYTES + BODY_BYTES + CFSR_SEAL_TAG_BYTES
};

static uint8_t big[CFSR_FRAME_MAX_BYTES], body[CFSR_FRAME_MAX_BYTES];

/* Opens all of a frame; what is left of its length. */
static int open_all(struct cfsr_session *session, uint8_t *frame)
{
    struct cfsr_link_header header;
    int rc = cfsr_link_header_load(frame, &header);
    if (rc == 0)
        rc = cfsr_session_open(session, &header, frame);
    if (rc == 0)
        rc = cfsr_session_open_body(session, &header, frame);
    return rc < 0 ? rc : (int)header.length_bytes;
}

/* A BATCH of the dialer whose body is body_bytes of `body`; its length on the wire. */
static uint32_t seal_batch(uint32_t extension_bytes, uint32_t body_bytes, uint8_t *frame)
{
    uint32_t head_bytes = HEAD_BYTES + extension_bytes;
    memset(frame + CFSR_LINK_HEADER_BYTES, 0x11, head_bytes - CFSR_LINK_HEADER_BYTES);
    cfsr_store_le16(frame + CFSR_LINK_HEADER_BYTES + 82, (uint16_t)extension_bytes);
    return head_bytes + cfsr_session_seal_batch_body(&dial, CFSR_FRAME_ACK_NOW, frame, head_bytes,
                                                     body, body_bytes, frame + head_bytes);
}

static uint32_t seal_reply(struct cfsr_session *from, uint32_t body_bytes, uint8_t *frame)
{
    struct cfsr_reply reply = {.id = 1,
                               .kind = CFSR_QUERY_RECORDS,
                               .lane = 3,
                               .status = body_bytes == 0 ? CFSR_E_GONE : 0,
                               .lsn_from = 8,
                               .lsn_to = 16,
                               .count = body_bytes != 0,
                               .body_bytes = body_bytes};
    memcpy(frame + CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES, body, body_bytes);
    uint32_t len = cfsr_reply_store(&reply, frame + CFSR_LINK_HEADER_BYTES);
    return cfsr_session_seal_reply(from, frame, len);
}

/* The link tag made anew, by somebody who holds the session key. */
static void sign_again(uint8_t *frame)
{
    struct cfsr_link_header header;
    cr_assert_eq(cfsr_link_header_load(frame, &header), 0);
    if (header.type == CFSR_FRAME_BATCH)
        cfsr_session_sign(dial.send_key, frame,
                          frame + CFSR_LINK_HEADER_BYTES + CFSR_BATCH_TAG_OFFSET,
                          CFSR_TAG_LEN_BYTES);
    else
        cfsr_session_sign(dial.send_key, frame, frame + CFSR_LINK_HEADER_BYTES,
                          header.length_bytes);
}

static void prove(void)
{
    static uint8_t frame[FRAME_BYTES];
    struct cfsr_heartbeat heartbeat = {.wall_us = 1};
    uint32_t len = cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES);
    cfsr_session_seal(&dial, CFSR_FRAME_HEARTBEAT, 0, frame, len);
    cr_assert_eq(open_all(&answer, frame), (int)len, "control frames are not sealed");
}

static void connect_pair(void)
{
    randombytes_buf(body, sizeof body);
    handshake(FROM_A, FROM_B);
    prove();
}

/* ---- what is agreed on ---- */

Test(session_seal, agreed_where_both_require_it)
{
    connect_pair();
    cr_assert_neq(dial.features & CFSR_FEATURE_SEAL, 0);
    cr_assert_neq(answer.features & CFSR_FEATURE_SEAL, 0);
    cr_assert(cfsr_session_seals(&dial) && cfsr_session_seals(&answer));
}

Test(session_seal, neither_offers_it_without_being_told)
{
    a.local.seal = b.local.seal = CFSR_SEAL_OFF;
    a.local.features = b.local.features = CFSR_FEATURES_KNOWN;
    handshake(FROM_A, FROM_B);
    cr_assert_eq((dial.features | answer.features) & CFSR_FEATURE_SEAL, 0);
    cr_assert_not(cfsr_session_seals(&dial) || cfsr_session_seals(&answer));
    cr_assert_neq(dial.features & CFSR_FEATURE_QUERY, 0);
}

Test(session_seal, an_acceptor_that_requires_it_refuses_one_that_does_not)
{
    a.local.seal = CFSR_SEAL_OFF;
    a.local.features = CFSR_FEATURES_KNOWN;
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -CFSR_E_SEAL_REQUIRED);
    cr_assert_eq(answer_with(0), -CFSR_E_SEAL_REQUIRED, "an earlier refusal cannot be taken back");
    cr_assert(dial.authenticated, "the refusal is proven");
    cr_assert_eq(ack_seen.status, CFSR_E_SEAL_REQUIRED);
    cr_assert(strstr(ack_seen.detail, "--seal") != NULL, "%s", ack_seen.detail);
    cr_assert(dial.state == CFSR_SESSION_DEAD && answer.state == CFSR_SESSION_DEAD);
}

Test(session_seal, a_dialer_that_requires_it_refuses_one_that_does_not)
{
    b.local.seal = CFSR_SEAL_OFF;
    b.local.features = CFSR_FEATURES_KNOWN;
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    cr_assert_eq(answer_with(0), -CFSR_E_SEAL_REQUIRED);
    cr_assert(dial.authenticated);
    cr_assert_eq(ack_seen.status, 0, "it is our own refusal");
    cr_assert_eq(dial.state, CFSR_SESSION_DEAD);
    cr_assert_null(dial.send_key);
    cr_assert_not(cfsr_session_seals(&dial));
}

/* Somebody in between who would have the two talk in the clear. */
Test(session_seal, no_downgrade_on_the_way)
{
    const uint32_t hello_features = CFSR_LINK_HEADER_BYTES + 16;
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_neq(hello_frame[hello_features] & CFSR_FEATURE_SEAL, 0);
    hello_frame[hello_features] ^= CFSR_FEATURE_SEAL;
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -CFSR_E_BAD_KEY);
    cr_assert_eq(answer_with(0), -CFSR_E_BAD_KEY);
    cr_assert_not(dial.authenticated, "a hint, nothing more");

    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    struct cfsr_hello_ack ack = {.lane_mask = 0x88};
    int len = cfsr_session_hello_ack(&answer, &ack, ack_frame);
    ack_frame[hello_features] ^= CFSR_FEATURE_SEAL;
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, ack_frame, (uint32_t)len, &ack_seen),
                 -CFSR_E_BAD_LINK_TAG);
    ack_frame[hello_features] ^= CFSR_FEATURE_SEAL;
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, ack_frame, (uint32_t)len, &ack_seen), 0);
}

/* "Your peer does not seal" is no harmless hint: without a proof it is not even that. */
Test(session_seal, the_refusal_needs_a_proof)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    struct cfsr_hello_ack ack = {.status = CFSR_E_SEAL_REQUIRED};
    int len = cfsr_session_hello_ack(&answer, &ack, ack_frame);
    memset(ack_frame + CFSR_LINK_SIGNED_BYTES, 0, CFSR_TAG_LEN_BYTES);
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, ack_frame, (uint32_t)len, &ack_seen),
                 -CFSR_E_BAD_LINK_TAG);
}

/* A HELLO from before sealing was required opens nothing now. */
Test(session_seal, an_older_hello_is_refused)
{
    a.local.seal = CFSR_SEAL_OFF;
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    a.local.seal = CFSR_SEAL_REQUIRE;
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -CFSR_E_SEAL_REQUIRED);
}

/* ---- bodies ---- */

static bool holds(const uint8_t *bytes, size_t len, const uint8_t *needle, size_t needle_len)
{
    for (size_t at = 0; at + needle_len <= len; at++)
        if (memcmp(bytes + at, needle, needle_len) == 0)
            return true;
    return false;
}

static void pass_batch(uint32_t extension_bytes, uint32_t body_bytes)
{
    uint32_t head_bytes = HEAD_BYTES + extension_bytes;
    uint32_t len = seal_batch(extension_bytes, body_bytes, big);
    cr_assert_eq(len, head_bytes + body_bytes + CFSR_SEAL_TAG_BYTES);
    cr_assert_leq(len, CFSR_FRAME_MAX_BYTES);
    if (body_bytes >= 16)
        cr_assert_not(holds(big, len, body, 16));
    cr_assert_eq(open_all(&answer, big), (int)(head_bytes - CFSR_LINK_HEADER_BYTES + body_bytes));
    cr_assert_arr_eq(big + head_bytes, body, body_bytes);
}

Test(session_seal, batches_of_all_sizes_pass)
{
    static const uint32_t sizes[] = {0, 1, 15, 16, 17, 300, 4096, 65536, CFSR_BATCH_BODY_MAX_BYTES};
    connect_pair();
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(sizes); i++) {
        pass_batch(0, sizes[i]);
        pass_batch(3 * CFSR_BATCH_HOLE_BYTES, sizes[i]);
    }
    pass_batch((CFSR_BATCH_HOLES_MAX - 1) * CFSR_BATCH_HOLE_BYTES, CFSR_BATCH_BODY_MAX_BYTES);
}

Test(session_seal, replies_pass_both_ways)
{
    static const uint32_t sizes[] = {0, CFSR_BATCH_PREFIX_BYTES, CFSR_REPLY_BODY_MAX};
    struct cfsr_reply reply;
    connect_pair();
    for (unsigned i = 0; i < 2 * CFSR_ARRAY_LEN(sizes); i++) {
        uint32_t size = sizes[i / 2];
        uint32_t len = seal_reply(i % 2 ? &dial : &answer, size, big);
        cr_assert_eq(len, CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES + size + CFSR_SEAL_TAG_BYTES);
        if (size >= 16)
            cr_assert_not(holds(big, len, body, 16));
        int length = open_all(i % 2 ? &answer : &dial, big);
        cr_assert_eq(length, (int)(CFSR_REPLY_BYTES + size));
        cr_assert_eq(cfsr_reply_load(big + CFSR_LINK_HEADER_BYTES, (uint32_t)length, &reply), 0);
        cr_assert_arr_eq(reply.body, body, size);
    }
}

/* The document's derivation and nonce, by another implementation. */
Test(session_seal, another_implementation_opens_it)
{
    static const char label[] = "cfsr seal 1 dialer->acceptor";
    static const uint8_t document_key[] = {0x8e, 0x75, 0x81, 0x48, 0xd0, 0x72, 0x2a, 0xd5,
                                           0xcc, 0x43, 0xc8, 0xe3, 0x7b, 0x2c, 0xba, 0x7e,
                                           0x80, 0xbb, 0xb2, 0xf1, 0xc9, 0x4e, 0xd0, 0xbe,
                                           0x58, 0x64, 0x17, 0xe4, 0x31, 0x3f, 0x4b, 0xb8};
    struct cfsr_mac_key *pair_key = NULL;
    uint8_t ids[2][8] = {{1}, {2}}, key[32], nonce[12] = {0}, aad[32 + CFSR_BATCH_PREFIX_BYTES];
    if (!crypto_aead_aes256gcm_is_available())
        cr_skip("libsodium has no AES here");
    connect_pair();
    seal_batch(0, BODY_BYTES, big);
    seal_batch(0, BODY_BYTES, big);
    cr_assert_eq(cfsr_keyring_open_key(a.keyring, 1, 1, 2, &pair_key), 0);
    const struct cfsr_mac_part parts[] = {
        {label, sizeof label},
        {a.site.cluster.bytes, 16},
        {ids[0], 8},
        {ids[1], 8},
        {dial.nonce_local, 32},
        {answer.nonce_local, 32},
        {a.local.session_id, 16},
    };
    cfsr_mac_compute(pair_key, parts, CFSR_ARRAY_LEN(parts), key);
    cfsr_mac_key_destroy(pair_key);
    cr_assert_arr_eq(key, document_key, sizeof key, "docs/wire-format.md, \"Example\"");
    nonce[4] = 2; /* the second frame of the data stream */
    memcpy(aad, big, 32);
    memcpy(aad + 32, big + CFSR_LINK_HEADER_BYTES, CFSR_BATCH_PREFIX_BYTES);
    uint8_t opened[BODY_BYTES];
    cr_assert_eq(crypto_aead_aes256gcm_decrypt(opened, NULL, NULL, big + HEAD_BYTES,
                                               BODY_BYTES + CFSR_SEAL_TAG_BYTES, aad, sizeof aad,
                                               nonce, key),
                 0);
    cr_assert_arr_eq(opened, body, BODY_BYTES);
}

Test(session_seal, no_nonce_serves_twice)
{
    static uint8_t first[SEALED_BYTES], second[SEALED_BYTES], other[SEALED_BYTES];
    connect_pair();
    seal_batch(0, BODY_BYTES, first);
    seal_batch(0, BODY_BYTES, second);
    cr_assert_not(holds(second + HEAD_BYTES, BODY_BYTES, first + HEAD_BYTES, 16),
                  "equal bodies, another key stream");
    seal_reply(&answer, CFSR_BATCH_PREFIX_BYTES, big);
    cr_assert_not(holds(big + CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES, CFSR_BATCH_PREFIX_BYTES,
                        first + HEAD_BYTES, 16),
                  "nor for the other direction's first");
    handshake(FROM_A, FROM_B + 1);
    prove();
    seal_batch(0, BODY_BYTES, other);
    cr_assert_not(holds(other + HEAD_BYTES, BODY_BYTES, first + HEAD_BYTES, 16),
                  "nor in another session");
}

Test(session_seal, a_sequence_that_went_back_stops_the_program, .signal = SIGABRT)
{
    connect_pair();
    seal_batch(0, BODY_BYTES, big);
    dial.next_send_data--;
    seal_batch(0, BODY_BYTES, big);
}

Test(session_seal, nothing_leaves_in_the_clear, .signal = SIGABRT)
{
    connect_pair();
    memcpy(big + HEAD_BYTES, body, BODY_BYTES);
    cfsr_session_seal_batch(&dial, 0, big, CFSR_BATCH_PREFIX_BYTES + BODY_BYTES, big);
}

/* ---- what does not open ---- */

Test(session_seal, every_bit_of_a_batch_counts)
{
    static uint8_t frame[SEALED_BYTES], copy[SEALED_BYTES];
    static const uint8_t zeros[BODY_BYTES];
    connect_pair();
    struct cfsr_session before = answer;
    seal_batch(0, BODY_BYTES, frame);
    for (uint32_t bit = 0; bit < SEALED_BYTES * 8; bit++) {
        memcpy(copy, frame, sizeof copy);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        answer.next_recv_data = before.next_recv_data; /* as a fresh connection's would be */
        answer.next_recv_batch = before.next_recv_batch;
        int rc = open_all(&answer, copy);
        cr_assert_lt(rc, 0, "byte %u", bit / 8);
        if (bit / 8 >= HEAD_BYTES) {
            cr_assert_eq(rc, -CFSR_E_BAD_LINK_TAG);
            cr_assert_arr_eq(copy + HEAD_BYTES, zeros, BODY_BYTES, "nothing is left to be used");
        }
    }
    answer.next_recv_data = before.next_recv_data;
    answer.next_recv_batch = before.next_recv_batch;
    cr_assert_gt(open_all(&answer, frame), 0);
}

Test(session_seal, replayed_swapped_and_reordered_frames)
{
    static uint8_t frame[3][SEALED_BYTES], copy[SEALED_BYTES];
    connect_pair();
    for (unsigned i = 0; i < 3; i++)
        seal_batch(0, BODY_BYTES, frame[i]);
    memcpy(copy, frame[0], sizeof copy);
    cr_assert_eq(open_all(&answer, frame[1]), -CFSR_E_REPLAYED, "out of turn");
    cr_assert_gt(open_all(&answer, frame[0]), 0);
    cr_assert_eq(open_all(&answer, copy), -CFSR_E_REPLAYED);
    memcpy(copy, frame[1], sizeof copy);
    memcpy(copy + HEAD_BYTES, frame[2] + HEAD_BYTES, BODY_BYTES + CFSR_SEAL_TAG_BYTES);
    cr_assert_eq(open_all(&answer, copy), -CFSR_E_BAD_LINK_TAG, "the body of another frame");
}

/* Both sessions have the link keys of one another here: only the seal keys keep them apart. */
Test(session_seal, a_body_of_another_session_does_not_open)
{
    static uint8_t frame[SEALED_BYTES];
    connect_pair();
    seal_batch(0, BODY_BYTES, frame);
    handshake(FROM_A + 1, FROM_B + 1);
    prove();
    sign_again(frame);
    cr_assert_eq(open_all(&answer, frame), -CFSR_E_BAD_LINK_TAG);
}

Test(session_seal, a_body_does_not_open_in_the_other_direction)
{
    static uint8_t frame[1024];
    connect_pair();
    uint32_t len = seal_reply(&dial, CFSR_BATCH_PREFIX_BYTES, frame);
    cfsr_session_sign(answer.send_key, frame, frame + CFSR_LINK_HEADER_BYTES,
                      len - CFSR_LINK_HEADER_BYTES);
    cr_assert_eq(open_all(&dial, frame), -CFSR_E_BAD_LINK_TAG, "reflected");
}

/* What stands before the body of a REPLY is bound to it as well, not only to the link. */
Test(session_seal, the_fixed_part_of_a_reply_is_bound_to_its_body)
{
    static uint8_t frame[1024];
    for (uint32_t at = CFSR_LINK_HEADER_BYTES; at < CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES;
         at++) {
        connect_pair();
        seal_reply(&dial, CFSR_BATCH_PREFIX_BYTES, frame);
        frame[at] ^= 1;
        sign_again(frame);
        cr_assert_lt(open_all(&answer, frame), 0, "byte %u", at);
    }
}

/* A peer that agreed and then sends what is not sealed, or has no place for a tag. */
Test(session_seal, a_body_in_the_clear_is_not_taken)
{
    static uint8_t frame[SEALED_BYTES];
    static const uint32_t sizes[] = {0, CFSR_SEAL_TAG_BYTES - 1, CFSR_SEAL_TAG_BYTES, BODY_BYTES};
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(sizes); i++) {
        connect_pair();
        struct cfsr_aead_key *kept = dial.seal_key;
        dial.seal_key = NULL;
        memset(frame + CFSR_LINK_HEADER_BYTES, 0, CFSR_BATCH_PREFIX_BYTES);
        memcpy(frame + HEAD_BYTES, body, sizes[i]);
        cfsr_session_seal_batch(&dial, 0, frame + HEAD_BYTES - CFSR_TAG_LEN_BYTES,
                                CFSR_BATCH_PREFIX_BYTES + sizes[i], frame);
        dial.seal_key = kept;
        cr_assert_eq(open_all(&answer, frame),
                     sizes[i] < CFSR_SEAL_TAG_BYTES ? -CFSR_E_BAD_FRAME : -CFSR_E_BAD_LINK_TAG);
    }
}

Test(session_seal, lengths_that_reach_beyond_the_frame_are_refused)
{
    static uint8_t frame[SEALED_BYTES];
    connect_pair();
    seal_batch(0, BODY_BYTES, frame);
    cfsr_store_le16(frame + CFSR_LINK_HEADER_BYTES + 82, BODY_BYTES + 1);
    cr_assert_eq(open_all(&answer, frame), -CFSR_E_BAD_FRAME);
    connect_pair();
    seal_reply(&dial, CFSR_BATCH_PREFIX_BYTES, frame);
    cfsr_store_le16(frame + CFSR_LINK_HEADER_BYTES, UINT16_MAX);
    sign_again(frame);
    cr_assert_eq(open_all(&answer, frame), -CFSR_E_BAD_FRAME);
    connect_pair();
    seal_reply(&dial, CFSR_BATCH_PREFIX_BYTES, frame);
    cfsr_store_le16(frame + CFSR_LINK_HEADER_BYTES, CFSR_REPLY_BYTES - 8);
    sign_again(frame);
    cr_assert_eq(open_all(&answer, frame), -CFSR_E_BAD_FRAME);
}

Test(session_seal, keys_go_with_the_session)
{
    connect_pair();
    cfsr_session_fini(&dial);
    cr_assert(dial.seal_key == NULL && dial.open_key == NULL);
    cfsr_session_fini(&dial);
}
