/*
 * test_session.c - the handshake, as two honest sites see it and as everybody else tries it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "repl/session.h"
#include "session_pair.h"

TestSuite(session, .init = session_pair_set_up, .fini = session_pair_tear_down);

/* The whole refused handshake: the acceptor's reason, and the same reason with words at the dialer.
 */
static void expect_refusal(int error, bool proven)
{
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -error, "%s", cfsr_error_message());
    cr_assert_neq(cfsr_error_message()[0], '\0');
    cr_assert_eq(answer_with(0), -error, "an earlier refusal cannot be taken back");
    cr_assert_eq(ack_seen.status, error);
    cr_assert_neq(ack_seen.detail[0], '\0');
    cr_assert_not_null(strstr(cfsr_error_message(), ack_seen.detail));
    cr_assert_eq(answer.authenticated, proven);
    cr_assert_eq(dial.authenticated, proven);
    cr_assert_eq(answer.state, CFSR_SESSION_DEAD);
    cr_assert_eq(dial.state, CFSR_SESSION_DEAD);
    if (!proven) {
        static const uint8_t zero[CFSR_TAG_LEN_BYTES];
        cr_assert_eq(memcmp(ack_frame + CFSR_LINK_SIGNED_BYTES, zero, sizeof zero), 0);
        cr_assert_eq(ack_seen.site_id, 0, "a stranger learns nothing about us");
        cr_assert_eq(ack_seen.site_name[0], '\0');
        cr_assert(cfsr_uuid_is_zero(&ack_seen.cluster) && cfsr_uuid_is_zero(&ack_seen.journal));
    }
}

/* ---- handshake ---- */

Test(session, handshake_agrees)
{
    handshake(FROM_A, FROM_B);
    cr_assert_eq(dial.state, CFSR_SESSION_ESTABLISHED);
    cr_assert_eq(answer.state, CFSR_SESSION_ANSWERED);
    cr_assert_eq(answer.peer_site_id, 1);
    cr_assert_eq(answer.hello.lane_mask, 0x88);
    cr_assert_eq(answer.hello.lane_end[3], 13);
    cr_assert_eq(answer.hello.lane_end[4], 0, "not in the mask");
    cr_assert_str_eq(answer.hello.site_name, "site-1");
    cr_assert_eq(answer.hello.epoch, 1);
    cr_assert_eq(ack_seen.site_id, 2);
    cr_assert_str_eq(ack_seen.site_name, "site-2");
    cr_assert_eq(ack_seen.lane[3].cursor, 4711);
    cr_assert_eq(ack_seen.lane[7].last.lsn, UINT64_MAX);
    cr_assert_eq(ack_seen.epoch, 2);
    cr_assert_eq(dial.features, 5);
    cr_assert_eq(dial.version, CFSR_WIRE_VERSION);
    cr_assert_null(dial.pair_key);
    cr_assert_null(dial.hello_key);
    cr_assert_null(answer.pair_key);
    cr_assert_null(answer.hello_key);
}

Test(session, features_are_those_known_to_both)
{
    a.local.features = 0xc;
    b.local.features = 0x5;
    handshake(FROM_A, FROM_B);
    cr_assert_eq(dial.features, 0x4);
    cr_assert_eq(answer.features, 0x4);
}

Test(session, init_refuses_to_dial_nobody_and_itself)
{
    static const uint8_t nonce[32];
    struct cfsr_session session;
    cr_assert_eq(cfsr_session_init(&session, &a.local, true, 0, nonce), -CFSR_E_CONFIG);
    cr_assert_eq(cfsr_session_init(&session, &a.local, true, 1, nonce), -CFSR_E_CONFIG);
}

Test(session, dialer_without_a_key_says_so)
{
    use_keys(&a, "key 1 site-pair 1,3 " SECRET_1 "\n");
    start_sessions(2, FROM_A, FROM_B);
    cr_assert_eq(cfsr_session_hello(&dial, 1, (uint64_t[CFSR_LANES_MAX]){0}, 0, hello_frame),
                 -CFSR_E_BAD_KEY);
}

/* ---- refusals ---- */

Test(session, wrong_secret_is_bad_key)
{
    use_keys(&a, "key 1 site-pair * " SECRET_2 "\n");
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_BAD_KEY, false);
}

Test(session, unknown_key_id_is_bad_key)
{
    use_keys(&a, "key 5 site-pair * " SECRET_1 "\n");
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_BAD_KEY, false);
}

Test(session, key_of_another_pair_does_not_speak_for_a_third_site)
{
    /* Site 3 holds key 2 for its pair with 2, and claims to be site 1. */
    use_keys(&b, "key 1 site-pair 1,2 " SECRET_1 "\nkey 2 site-pair 3,2 " SECRET_2 "\n");
    use_keys(&a, "key 2 site-pair 1,2 " SECRET_2 "\n");
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_BAD_KEY, false);
}

Test(session, hello_key_binds_the_site_ids)
{
    /* The right shared secret, signed for sites 1 and 2, with another id written in afterwards. */
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cfsr_store_le64(hello_frame + CFSR_LINK_HEADER_BYTES + 40, 7);
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -CFSR_E_UNKNOWN_SITE);
    cr_assert_not(answer.authenticated);
}

Test(session, other_cluster_with_the_same_key_is_proven)
{
    a.site.cluster.bytes[0] ^= 1;
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_WRONG_CLUSTER, true);
}

Test(session, other_cluster_with_another_key_is_a_hint)
{
    a.site.cluster.bytes[0] ^= 1;
    use_keys(&a, "key 1 site-pair * " SECRET_2 "\n");
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_WRONG_CLUSTER, false);
}

Test(session, unknown_site)
{
    a.site.site_id = 77;
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_UNKNOWN_SITE, true);
}

Test(session, unknown_site_with_another_key_is_a_hint)
{
    a.site.site_id = 77;
    use_keys(&a, "key 1 site-pair * " SECRET_2 "\n");
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_UNKNOWN_SITE, false);
}

Test(session, duplicate_site)
{
    b.site.site_id = 1; /* we call 2 and reach another site 1 */
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_DUPLICATE_SITE, true);
}

Test(session, wrong_site)
{
    b.site.site_id = 9;
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_WRONG_SITE, true);
}

Test(session, other_lane_count)
{
    a.site.lanes = 16;
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_LANES_DIFFER, true);
    cr_assert_not_null(strstr(ack_seen.detail, "16 lanes"));
}

Test(session, other_shard_count)
{
    a.site.shards = 512;
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_LANES_DIFFER, true);
}

Test(session, other_segment_size)
{
    a.site.segment_bytes *= 2;
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_LANES_DIFFER, true);
}

/* HELLO as a dialer of another build would write it: changed, then signed with the true key. */
static void forge_hello(void (*change)(struct cfsr_hello *hello))
{
    struct cfsr_hello hello = dial.hello;
    change(&hello);
    uint32_t len = cfsr_hello_store(&hello, hello_frame + CFSR_LINK_HEADER_BYTES);
    cfsr_store_le32(hello_frame + 8, len);
    const struct cfsr_mac_part parts[] = {{hello_frame, CFSR_LINK_SIGNED_BYTES},
                                          {hello_frame + CFSR_LINK_HEADER_BYTES, len}};
    cfsr_mac_compute(dial.hello_key, parts, 2, hello_frame + CFSR_LINK_SIGNED_BYTES);
    hello_len = CFSR_LINK_HEADER_BYTES + len;
}

static void expect_forged_refusal(void (*change)(struct cfsr_hello *hello), int error)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    forge_hello(change);
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -error);
    cr_assert(answer.authenticated);
    cr_assert_eq(answer_with(error), -error);
    cr_assert(dial.authenticated);
    cr_assert_eq(ack_seen.status, error);
}

static void change_too_new(struct cfsr_hello *h)
{
    h->version_min = h->version_max = CFSR_WIRE_VERSION + 1;
}
static void change_too_old(struct cfsr_hello *h)
{
    h->version_min = h->version_max = 0;
}
static void change_inverted(struct cfsr_hello *h)
{
    h->version_min = 2, h->version_max = 1;
}
static void change_mask_outside(struct cfsr_hello *h)
{
    h->lane_mask |= 1ull << 8;
}
static void change_mask_empty(struct cfsr_hello *h)
{
    h->lane_mask = 0;
}
static void change_core(struct cfsr_hello *h)
{
    h->core = h->cores;
}
static void change_journal(struct cfsr_hello *h)
{
    memset(&h->journal, 0, sizeof h->journal);
}
static void change_newer(struct cfsr_hello *h)
{
    h->version_max = 9;
}

Test(session, version_ranges_without_overlap)
{
    expect_forged_refusal(change_too_new, CFSR_E_VERSION);
    expect_forged_refusal(change_too_old, CFSR_E_VERSION);
    expect_forged_refusal(change_inverted, CFSR_E_VERSION);
}

Test(session, newer_dialer_gets_our_version)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    forge_hello(change_newer);
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    cr_assert_eq(answer_with(0), 0);
    cr_assert_eq(ack_seen.version, CFSR_WIRE_VERSION);
}

Test(session, senseless_terms_are_bad_frames)
{
    expect_forged_refusal(change_mask_outside, CFSR_E_BAD_FRAME);
    expect_forged_refusal(change_mask_empty, CFSR_E_BAD_FRAME);
    expect_forged_refusal(change_core, CFSR_E_BAD_FRAME);
    expect_forged_refusal(change_journal, CFSR_E_BAD_FRAME);
}

Test(session, acceptor_refuses_for_its_own_reasons_with_its_own_words)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    struct cfsr_hello_ack ack = {.status = CFSR_E_JOURNAL_FORKED,
                                 .detail = "diverged at lane 3, LSN 4096"};
    ack_len = (uint32_t)cfsr_session_hello_ack(&answer, &ack, ack_frame);
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, ack_frame, ack_len, &ack_seen),
                 -CFSR_E_JOURNAL_FORKED);
    cr_assert_str_eq(ack_seen.detail, "diverged at lane 3, LSN 4096");
    cr_assert_not_null(strstr(cfsr_error_message(), "diverged at lane 3"));
    cr_assert(dial.authenticated);
}

Test(session, refusal_before_any_hello_is_a_hint)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(answer_with(CFSR_E_BACKPRESSURE), -CFSR_E_BACKPRESSURE);
    cr_assert_not(dial.authenticated);
}

/* ---- hostile handshakes ---- */

Test(session, no_corrupted_or_cut_hello_passes)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    for (uint32_t at = 0; at < hello_len; at++) {
        uint8_t *frame = malloc(hello_len);
        memcpy(frame, hello_frame, hello_len);
        frame[at] ^= 0x04;
        cr_assert_lt(cfsr_session_on_hello(&answer, frame, hello_len, knows_1_and_2, NULL), 0,
                     "byte %u", at);
        cr_assert_not(answer.authenticated, "byte %u", at);
        cr_assert_null(answer.send_key);
        free(frame);
        frame = malloc(at > 0 ? at : 1);
        memcpy(frame, hello_frame, at);
        answer.refused = 0;
        cr_assert_lt(cfsr_session_on_hello(&answer, frame, at, knows_1_and_2, NULL), 0, "cut to %u",
                     at);
        free(frame);
        answer.refused = 0; /* as a new connection would find it */
    }
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
}

Test(session, no_corrupted_or_cut_hello_ack_passes)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    struct cfsr_hello_ack ack = {.lane_mask = 0x88};
    ack_len = (uint32_t)cfsr_session_hello_ack(&answer, &ack, ack_frame);
    for (uint32_t at = 0; at < ack_len; at++) {
        uint8_t *frame = malloc(ack_len);
        memcpy(frame, ack_frame, ack_len);
        frame[at] ^= 0x04;
        cr_assert_lt(cfsr_session_on_hello_ack(&dial, frame, ack_len, &ack_seen), 0, "byte %u", at);
        free(frame);
        frame = malloc(at > 0 ? at : 1);
        memcpy(frame, ack_frame, at);
        cr_assert_lt(cfsr_session_on_hello_ack(&dial, frame, at, &ack_seen), 0, "cut to %u", at);
        free(frame);
        cr_assert_eq(dial.state, CFSR_SESSION_HELLO_SENT);
        cr_assert_null(dial.send_key);
        cr_assert_not(dial.authenticated);
    }
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, ack_frame, ack_len, &ack_seen), 0);
}

Test(session, an_answer_without_a_tag_accepts_nothing_and_reports_no_fork)
{
    static const int32_t statuses[] = {0, CFSR_E_JOURNAL_FORKED, CFSR_E_WRONG_CORE,
                                       CFSR_E_NEEDS_BOOTSTRAP};
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    struct cfsr_hello_ack ack = {.lane_mask = 0x88};
    ack_len = (uint32_t)cfsr_session_hello_ack(&answer, &ack, ack_frame);
    memset(ack_frame + CFSR_LINK_SIGNED_BYTES, 0, CFSR_TAG_LEN_BYTES);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(statuses); i++) {
        cfsr_store_le32(ack_frame + CFSR_LINK_HEADER_BYTES + 12, (uint32_t)statuses[i]);
        cr_assert_eq(cfsr_session_on_hello_ack(&dial, ack_frame, ack_len, &ack_seen),
                     -CFSR_E_BAD_LINK_TAG);
        cr_assert_eq(dial.state, CFSR_SESSION_HELLO_SENT);
        cr_assert_eq(ack_seen.status, 0);
    }
}

Test(session, replayed_hello_gets_no_further_than_an_answer)
{
    static uint8_t recorded[FRAME_BYTES], batch[CFSR_LINK_HEADER_BYTES + 256];
    struct cfsr_link_header header;
    handshake(FROM_A, FROM_B);
    memcpy(recorded, hello_frame, hello_len);
    struct cfsr_heartbeat heartbeat = {.wall_us = 1};
    static uint8_t frame[FRAME_BYTES];
    cfsr_session_seal(&dial, CFSR_FRAME_HEARTBEAT, 0, frame,
                      cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES));
    memset(batch, 1, sizeof batch);
    cfsr_session_seal_batch(&dial, 0, batch + 224, 256, batch);

    start_sessions(2, FROM_A, 0x55); /* a new connection: the acceptor's nonce is fresh */
    cr_assert_eq(cfsr_session_on_hello(&answer, recorded, hello_len, knows_1_and_2, NULL), 0);
    struct cfsr_hello_ack ack = {.lane_mask = 0x88};
    cr_assert_gt(cfsr_session_hello_ack(&answer, &ack, ack_frame), 0);
    cr_assert_eq(answer.state, CFSR_SESSION_ANSWERED);
    cr_assert_eq(cfsr_link_header_load(frame, &header), 0);
    cr_assert_eq(cfsr_session_open(&answer, &header, frame), -CFSR_E_BAD_LINK_TAG);
    cr_assert_eq(cfsr_link_header_load(batch, &header), 0);
    cr_assert_eq(cfsr_session_open(&answer, &header, batch), -CFSR_E_BAD_LINK_TAG);
    cr_assert_eq(answer.state, CFSR_SESSION_ANSWERED, "a recording never establishes a session");
}

Test(session, replayed_hello_ack_is_refused)
{
    static uint8_t recorded[FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    uint32_t len = ack_len;
    memcpy(recorded, ack_frame, len);
    start_sessions(2, 0x66, FROM_B); /* the dialer's nonce is fresh */
    send_hello();
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, recorded, len, &ack_seen), -CFSR_E_BAD_LINK_TAG);
}

Test(session, reflected_hello_is_refused)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, hello_frame, hello_len, &ack_seen),
                 -CFSR_E_BAD_FRAME);
    uint8_t nonce[32] = {1};
    struct cfsr_session own; /* bounced back to site 1's own listener */
    cr_assert_eq(cfsr_session_init(&own, &a.local, false, 0, nonce), 0);
    cr_assert_eq(cfsr_session_on_hello(&own, hello_frame, hello_len, knows_1_and_2, NULL),
                 -CFSR_E_DUPLICATE_SITE);
    cfsr_session_fini(&own);
}

Test(session, one_handshake_per_connection)
{
    start_sessions(2, FROM_A, FROM_B);
    send_hello();
    hello_frame[CFSR_LINK_HEADER_BYTES + 200] ^= 1;
    cr_assert_lt(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0);
    hello_frame[CFSR_LINK_HEADER_BYTES + 200] ^= 1;
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -CFSR_E_BAD_FRAME, "no second guess on a refused connection");
    handshake(FROM_A, FROM_B);
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL),
                 -CFSR_E_BAD_FRAME);
    cr_assert_eq(cfsr_session_on_hello_ack(&dial, ack_frame, ack_len, &ack_seen),
                 -CFSR_E_BAD_FRAME);
}

/* ---- key rotation ---- */

Test(session, rotation_signs_with_the_highest_key_and_accepts_all)
{
    use_keys(&a, "key 1 site-pair * " SECRET_1 "\nkey 4 site-pair 1,2 " SECRET_3
                 "\nkey 2 site-pair * " SECRET_2 "\n");
    use_keys(&b, "key 1 site-pair * " SECRET_1 "\nkey 4 site-pair 1,2 " SECRET_3 "\n");
    handshake(FROM_A, FROM_B);
    cr_assert_eq(dial.key_id, 4);
    cr_assert_eq(answer.key_id, 4);
    use_keys(&a, "key 1 site-pair * " SECRET_1 "\n"); /* has not got the new one yet */
    handshake(FROM_A, FROM_B);
    cr_assert_eq(answer.key_id, 1);
}

Test(session, key_id_confusion_is_refused)
{
    /* Signed with key 2's secret, claims key 1. */
    use_keys(&a, "key 1 site-pair * " SECRET_2 "\n");
    use_keys(&b, "key 1 site-pair * " SECRET_1 "\nkey 2 site-pair * " SECRET_2 "\n");
    start_sessions(2, FROM_A, FROM_B);
    expect_refusal(CFSR_E_BAD_KEY, false);
}

Test(session, batch_key_is_one_direction_of_one_pair_in_one_cluster)
{
    static const struct {
        uint32_t key;
        uint64_t from, to;
        uint8_t cluster;
    } uses[] = {{1, 1, 2, 0}, {1, 2, 1, 0}, {1, 1, 3, 0}, {2, 1, 2, 0}, {1, 1, 2, 1}};
    uint8_t tags[CFSR_ARRAY_LEN(uses)][CFSR_TAG_LEN_BYTES];
    use_keys(&a, "key 1 site-pair * " SECRET_1 "\nkey 2 site-pair 1,2 " SECRET_2 "\n");
    const struct cfsr_mac_part part = {"x", 1};
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(uses); i++) {
        struct cfsr_uuid cluster = a.site.cluster;
        cluster.bytes[15] ^= uses[i].cluster;
        struct cfsr_mac_key *key;
        cr_assert_eq(cfsr_session_batch_key(a.keyring, uses[i].key, &cluster, uses[i].from,
                                            uses[i].to, &key),
                     0);
        cfsr_mac_compute(key, &part, 1, tags[i]);
        cfsr_mac_key_destroy(key);
        for (unsigned j = 0; j < i; j++)
            cr_assert_neq(memcmp(tags[i], tags[j], sizeof tags[i]), 0, "%u and %u", i, j);
    }
    struct cfsr_mac_key *key;
    cr_assert_eq(cfsr_session_batch_key(a.keyring, 2, &a.site.cluster, 1, 3, &key),
                 -CFSR_E_BAD_KEY);
    cr_assert_eq(cfsr_session_batch_key(a.keyring, 9, &a.site.cluster, 1, 2, &key),
                 -CFSR_E_BAD_KEY);
}
