/*
 * test_query.c - QUERY and REPLY: their bytes, the port of one connection, and their legality in a
 * session.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "repl/query.h"
#include "repl/session.h"
#include "session_pair.h"

#define WINDOW (1ull << 20)

static struct cfsr_query a_query(uint16_t kind)
{
    struct cfsr_query query = {
        .id = 1, .kind = kind, .lane = 3, .origin = 1, .lsn_from = WINDOW, .lsn_to = 4 * WINDOW};
    memset(query.journal.bytes, 0x77, 16);
    return query;
}

static struct cfsr_reply a_reply(uint16_t kind)
{
    struct cfsr_reply reply = {
        .id = 1, .kind = kind, .lane = 3, .lsn_from = WINDOW, .lsn_to = 3 * WINDOW};
    reply.count = kind == CFSR_QUERY_DIGESTS ? 2 : 1;
    reply.body_bytes = kind == CFSR_QUERY_DIGESTS ? 80 : 200;
    return reply;
}

/* Stores a reply with its body (windows 1 and 2, or bytes) into a block of exactly its length. */
static uint8_t *reply_block(const struct cfsr_reply *reply, uint32_t *len_out)
{
    uint8_t *block = calloc(1, CFSR_REPLY_BYTES + reply->body_bytes);
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
    cr_assert_not_null(block);
    *len_out = cfsr_reply_store(reply, block);
    for (uint32_t i = 0; reply->kind == CFSR_QUERY_DIGESTS && i < reply->count; i++) {
        memset(digest, (int)i, sizeof digest);
        cfsr_reply_window_store(block + CFSR_REPLY_BYTES, i, i + 1, digest);
    }
    return block;
}

static int load_reply(const struct cfsr_reply *reply, struct cfsr_reply *out)
{
    uint32_t len;
    uint8_t *block = reply_block(reply, &len);
    int rc = cfsr_reply_load(block, len, out);
    free(block);
    return rc;
}

Test(query_wire, a_query_comes_out_as_it_went_in)
{
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    struct cfsr_query query = a_query(CFSR_QUERY_DIGESTS), got;
    cr_assert_eq(cfsr_query_store(&query, bytes), 72);
    cr_assert_eq(cfsr_query_load(bytes, 72, &got), 0);
    cr_assert(got.id == 1 && got.kind == CFSR_QUERY_DIGESTS && got.lane == 3 && got.origin == 1);
    cr_assert(got.lsn_from == WINDOW && got.lsn_to == 4 * WINDOW);
    cr_assert(cfsr_uuid_equal(&got.journal, &query.journal));
    cr_assert_eq(cfsr_load_le64(bytes + 24), 1, "origin at 24");
    cr_assert_eq(cfsr_load_le64(bytes + 48), WINDOW, "from at 48");
}

static int reload_query(const struct cfsr_query *query)
{
    uint8_t bytes[CFSR_CONTROL_MAX_BYTES];
    struct cfsr_query got;
    uint32_t len = cfsr_query_store(query, bytes);
    return cfsr_query_load(bytes, len, &got);
}

Test(query_wire, nonsense_queries_are_refused)
{
    struct cfsr_query bad[9];
    for (unsigned i = 0; i < 9; i++)
        bad[i] = a_query(CFSR_QUERY_RECORDS);
    bad[0].id = 0;
    bad[1].kind = 0;
    bad[2].kind = 3;
    bad[3].lane = CFSR_LANES_MAX;
    bad[4].lsn_to = bad[4].lsn_from;
    bad[5].lsn_from += 4; /* off the record grid */
    bad[6].origin = 0;
    bad[7].origin = UINT64_MAX;
    memset(bad[8].journal.bytes, 0, 16);
    for (unsigned i = 0; i < 9; i++)
        cr_assert_eq(reload_query(&bad[i]), -CFSR_E_BAD_FRAME, "case %u", i);
}

Test(query_wire, replies_come_out_as_they_went_in)
{
    struct cfsr_reply reply = a_reply(CFSR_QUERY_DIGESTS), got;
    uint32_t len;
    uint8_t *block = reply_block(&reply, &len);
    const uint8_t *digest;
    cr_assert_eq(len, 72 + 80);
    cr_assert_eq(cfsr_reply_load(block, len, &got), 0);
    cr_assert(got.count == 2 && got.lsn_from == WINDOW && got.lsn_to == 3 * WINDOW);
    cr_assert_eq(cfsr_reply_window_load(&got, 1, &digest), 2);
    cr_assert_eq(digest[31], 1);
    free(block);
    reply = a_reply(CFSR_QUERY_RECORDS);
    cr_assert_eq(load_reply(&reply, &got), 0);
    reply.status = CFSR_E_GONE;
    reply.count = reply.body_bytes = 0;
    cr_assert_eq(load_reply(&reply, &got), 0);
    cr_assert_eq(got.status, CFSR_E_GONE);
}

Test(query_wire, nonsense_replies_are_refused)
{
    struct cfsr_reply bad[8], got;
    for (unsigned i = 0; i < 8; i++)
        bad[i] = a_reply(i < 4 ? CFSR_QUERY_DIGESTS : CFSR_QUERY_RECORDS);
    bad[0].count = 3;            /* more than the bytes hold */
    bad[1].status = CFSR_E_GONE; /* with a body */
    bad[2].id = 0;
    bad[3].lsn_to = bad[3].lsn_from;
    bad[4].count = 2;
    bad[5].body_bytes = 191; /* no prefix fits */
    bad[6].kind = 7;
    bad[7].lane = 64;
    for (unsigned i = 0; i < 8; i++) {
        struct cfsr_reply one = bad[i];
        uint32_t count = one.count;
        if (one.kind == CFSR_QUERY_DIGESTS && one.count > 2)
            one.count = 2; /* so that the block is filled within its bytes */
        uint32_t len;
        uint8_t *block = reply_block(&one, &len);
        cfsr_store_le32(block + 40, count);
        cr_assert_eq(cfsr_reply_load(block, len, &got), -CFSR_E_BAD_FRAME, "case %u", i);
        free(block);
    }
}

Test(query_wire, a_reply_is_as_long_as_it_says)
{
    struct cfsr_reply reply = a_reply(CFSR_QUERY_RECORDS), got;
    uint32_t len;
    uint8_t *block = reply_block(&reply, &len);
    for (uint32_t shorter = 0; shorter < len; shorter++) {
        uint8_t *copy = malloc(shorter > 0 ? shorter : 1);
        memcpy(copy, block, shorter);
        cr_assert_eq(cfsr_reply_load(copy, shorter, &got), -CFSR_E_BAD_FRAME, "%u bytes", shorter);
        free(copy);
    }
    /* A later version's longer fixed part is passed over. */
    uint8_t *longer = calloc(1, len + 8);
    memcpy(longer, block, CFSR_REPLY_BYTES);
    memset(longer + CFSR_REPLY_BYTES + 8, 0x5a, reply.body_bytes);
    cfsr_store_le16(longer, CFSR_REPLY_BYTES + 8);
    cr_assert_eq(cfsr_reply_load(longer, len + 8, &got), 0);
    cr_assert_eq(got.body[0], 0x5a);
    free(longer);
    for (uint32_t at = 48; at < 72; at++) { /* kept for later */
        block[at] = 1;
        cr_assert_eq(cfsr_reply_load(block, len, &got), -CFSR_E_BAD_FRAME, "byte %u", at);
        block[at] = 0;
    }
    free(block);
}

Test(query_wire, lengths_of_both_types_are_bounded_before_anything_is_held)
{
    struct cfsr_link_header header = {.version = 1, .type = CFSR_FRAME_REPLY, .link_seq = 1}, got;
    uint8_t bytes[CFSR_LINK_HEADER_BYTES];
    const struct {
        uint8_t type;
        uint32_t length;
        int rc;
    } cases[] = {
        {CFSR_FRAME_QUERY, 71, -CFSR_E_BAD_FRAME},
        {CFSR_FRAME_QUERY, 72, 0},
        {CFSR_FRAME_QUERY, CFSR_CONTROL_MAX_BYTES + 1, -CFSR_E_TOO_LARGE},
        {CFSR_FRAME_REPLY, 71, -CFSR_E_BAD_FRAME},
        {CFSR_FRAME_REPLY, CFSR_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES, 0},
        {CFSR_FRAME_REPLY, CFSR_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES + 1, -CFSR_E_TOO_LARGE},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        header.type = cases[i].type;
        header.length_bytes = cases[i].length;
        cfsr_link_header_store(&header, bytes);
        cr_assert_eq(cfsr_link_header_load(bytes, &got), cases[i].rc, "case %u", i);
    }
}

/* ---- the port ---- */

static struct cfsr_query_port port;
static uint8_t payload[CFSR_CONTROL_MAX_BYTES];

static void port_set_up(void)
{
    cfsr_query_port_reset(&port);
}
TestSuite(query_port, .init = port_set_up);

static int give(const struct cfsr_reply *reply)
{
    uint32_t len;
    uint8_t *block = reply_block(reply, &len);
    int rc = cfsr_query_port_on_reply(&port, block, len);
    free(block);
    return rc;
}

static void ask(uint16_t kind)
{
    struct cfsr_query query = a_query(kind);
    cr_assert_eq(cfsr_query_port_ask(&port, &query, 1000, payload), 72);
}

Test(query_port, an_answer_is_taken_once)
{
    struct cfsr_reply reply = a_reply(CFSR_QUERY_DIGESTS);
    cr_assert_eq(give(&reply), -CFSR_E_BAD_FRAME, "nobody asked");
    ask(CFSR_QUERY_DIGESTS);
    cr_assert_not(cfsr_query_port_is_free(&port));
    cr_assert_eq(give(&reply), 1);
    cr_assert(cfsr_query_port_is_free(&port));
    cr_assert_eq(give(&reply), -CFSR_E_BAD_FRAME, "twice");
    ask(CFSR_QUERY_DIGESTS);
    cr_assert_eq(port.asked.id, 2);
    cr_assert_eq(give(&reply), -CFSR_E_BAD_FRAME, "the answer to an earlier one");
}

Test(query_port, an_answer_to_something_else_is_refused)
{
    struct cfsr_reply bad[7];
    for (unsigned i = 0; i < 7; i++)
        bad[i] = a_reply(CFSR_QUERY_DIGESTS);
    bad[0].id = 2;
    bad[1].kind = CFSR_QUERY_RECORDS;
    bad[1].count = 1;
    bad[1].body_bytes = 200;
    bad[2].lane = 4;
    bad[3].lsn_from -= 8;
    bad[4].lsn_to = 5 * WINDOW;
    bad[5].lsn_to = 2 * WINDOW; /* window 2 lies beyond it */
    bad[6].status = CFSR_E_GONE;
    bad[6].count = bad[6].body_bytes = 0; /* names another range */
    for (unsigned i = 0; i < 7; i++) {
        cfsr_query_port_reset(&port);
        ask(CFSR_QUERY_DIGESTS);
        cr_assert_eq(give(&bad[i]), -CFSR_E_BAD_FRAME, "case %u", i);
        cr_assert_not(cfsr_query_port_is_free(&port), "case %u changed something", i);
    }
}

Test(query_port, records_must_hold_what_was_asked_for)
{
    struct cfsr_reply reply = a_reply(CFSR_QUERY_RECORDS);
    ask(CFSR_QUERY_RECORDS);
    reply.lsn_from = WINDOW + 8;
    cr_assert_eq(give(&reply), -CFSR_E_BAD_FRAME, "begins behind it");
    reply.lsn_from = 0;
    reply.lsn_to = WINDOW;
    cr_assert_eq(give(&reply), -CFSR_E_BAD_FRAME, "ends before it");
    reply.lsn_to = 9 * WINDOW; /* a stored frame reaches further than asked: cut by the asker */
    cr_assert_eq(give(&reply), 1);
}

Test(query_port, windows_out_of_order_are_refused)
{
    struct cfsr_reply reply = a_reply(CFSR_QUERY_DIGESTS);
    uint32_t len;
    uint8_t *block = reply_block(&reply, &len);
    ask(CFSR_QUERY_DIGESTS);
    cfsr_store_le64(block + CFSR_REPLY_BYTES + 40, 1); /* window 1 twice */
    cr_assert_eq(cfsr_query_port_on_reply(&port, block, len), -CFSR_E_BAD_FRAME);
    cfsr_store_le64(block + CFSR_REPLY_BYTES + 40, UINT64_MAX);
    cr_assert_eq(cfsr_query_port_on_reply(&port, block, len), -CFSR_E_BAD_FRAME);
    free(block);
}

Test(query_port, what_was_given_up_on_still_occupies_the_connection)
{
    struct cfsr_reply reply = a_reply(CFSR_QUERY_DIGESTS);
    ask(CFSR_QUERY_DIGESTS);
    cr_assert_not(cfsr_query_port_expired(&port, 999));
    cr_assert(cfsr_query_port_expired(&port, 1000));
    cr_assert_not(cfsr_query_port_expired(&port, 2000), "once");
    cr_assert_not(cfsr_query_port_is_free(&port), "its answer may still come");
    cr_assert_eq(give(&reply), 0, "and is dropped");
    cr_assert(cfsr_query_port_is_free(&port));
}

Test(query_port, peers_are_served_one_at_a_time)
{
    struct cfsr_query query = a_query(CFSR_QUERY_RECORDS);
    uint32_t len = cfsr_query_store(&query, payload);
    cr_assert_eq(cfsr_query_port_on_query(&port, payload, len, 1ull << 2), -CFSR_E_BAD_FRAME,
                 "a lane of another connection");
    cr_assert_eq(cfsr_query_port_on_query(&port, payload, len, 1ull << 3), 0);
    query.id = 2;
    len = cfsr_query_store(&query, payload);
    cr_assert_eq(cfsr_query_port_on_query(&port, payload, len, 1ull << 3), -CFSR_E_BAD_FRAME,
                 "a flood");
    cfsr_query_port_answered(&port);
    cr_assert_eq(cfsr_query_port_on_query(&port, payload, len, 1ull << 3), 0);
    cfsr_query_port_answered(&port);
    cr_assert_eq(cfsr_query_port_on_query(&port, payload, len, 1ull << 3), -CFSR_E_BAD_FRAME,
                 "an id twice");
}

/* ---- in a session ---- */

TestSuite(query_session, .init = session_pair_set_up, .fini = session_pair_tear_down);

static uint8_t big[CFSR_FRAME_MAX_BYTES];

static int open_at(struct cfsr_session *to, const uint8_t *frame)
{
    struct cfsr_link_header header;
    cr_assert_eq(cfsr_link_header_load(frame, &header), 0);
    return cfsr_session_open(to, &header, frame);
}

static void seal_query(struct cfsr_session *from)
{
    struct cfsr_query query = a_query(CFSR_QUERY_RECORDS);
    uint32_t len = cfsr_query_store(&query, big + CFSR_LINK_HEADER_BYTES);
    cfsr_session_seal(from, CFSR_FRAME_QUERY, 0, big, len);
}

static void seal_reply(struct cfsr_session *from, uint32_t body_bytes)
{
    struct cfsr_reply reply = a_reply(CFSR_QUERY_RECORDS);
    reply.body_bytes = body_bytes;
    memset(big + CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES, 0x5a, body_bytes);
    uint32_t len = cfsr_reply_store(&reply, big + CFSR_LINK_HEADER_BYTES);
    cfsr_session_seal_reply(from, big, len);
}

static void prove(void)
{
    uint8_t frame[FRAME_BYTES];
    struct cfsr_heartbeat heartbeat = {.wall_us = 1};
    uint32_t len = cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES);
    cfsr_session_seal(&dial, CFSR_FRAME_HEARTBEAT, 0, frame, len);
    cr_assert_eq(open_at(&answer, frame), 0);
}

Test(query_session, both_sides_ask_and_answer)
{
    handshake(FROM_A, FROM_B);
    prove();
    seal_query(&dial);
    cr_assert_eq(open_at(&answer, big), 0);
    seal_query(&answer);
    cr_assert_eq(open_at(&dial, big), 0);
    seal_reply(&answer, CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_BODY_MAX_BYTES);
    cr_assert_eq(open_at(&dial, big), 0);
    seal_reply(&dial, 300);
    cr_assert_eq(open_at(&answer, big), 0);
}

Test(query_session, replies_and_batches_are_one_stream)
{
    uint8_t head[CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES] = {0};
    uint8_t tag[CFSR_TAG_LEN_BYTES] = {0};
    struct cfsr_link_header header;
    handshake(FROM_A, FROM_B);
    prove();
    cfsr_session_seal_batch(&dial, 0, tag, CFSR_BATCH_PREFIX_BYTES, head);
    cr_assert_eq(open_at(&answer, head), 0);
    seal_reply(&dial, 300);
    cr_assert_eq(cfsr_link_header_load(big, &header), 0);
    cr_assert(header.link_seq == 2 && header.batch_seq == 0);
    cfsr_session_seal_batch(&dial, 0, tag, CFSR_BATCH_PREFIX_BYTES, head);
    cr_assert_eq(open_at(&answer, head), -CFSR_E_REPLAYED, "the reply comes first");
    cr_assert_eq(open_at(&answer, big), 0);
    cr_assert_eq(open_at(&answer, head), 0);
    cr_assert_eq(open_at(&answer, big), -CFSR_E_REPLAYED);
}

Test(query_session, every_byte_of_a_reply_is_under_the_link_tag)
{
    handshake(FROM_A, FROM_B);
    prove();
    seal_reply(&answer, 300);
    uint32_t all = CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES + 300;
    for (uint32_t at = CFSR_LINK_HEADER_BYTES; at < all; at++) {
        big[at] ^= 4;
        cr_assert_eq(open_at(&dial, big), -CFSR_E_BAD_LINK_TAG, "byte %u", at);
        big[at] ^= 4;
    }
    cr_assert_eq(open_at(&dial, big), 0);
}

Test(query_session, nothing_is_asked_before_the_key_is_proven)
{
    handshake(FROM_A, FROM_B);
    seal_query(&dial);
    cr_assert_eq(open_at(&answer, big), -CFSR_E_BAD_FRAME);
    cr_assert_eq(answer.state, CFSR_SESSION_ANSWERED);
}

Test(query_session, a_site_without_the_feature_neither_asks_nor_answers)
{
    b.local.features &= ~CFSR_FEATURE_QUERY;
    handshake(FROM_A, FROM_B);
    prove();
    cr_assert_eq(dial.features & CFSR_FEATURE_QUERY, 0);
    seal_query(&dial);
    cr_assert_eq(open_at(&answer, big), -CFSR_E_BAD_FRAME);
    seal_reply(&answer, 300);
    cr_assert_eq(open_at(&dial, big), -CFSR_E_BAD_FRAME);
}
