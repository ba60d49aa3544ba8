/*
 * test_session_frames.c - frames inside a session: what opens, where, and what does not; the
 * document's example.
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

TestSuite(session_frames, .init = session_pair_set_up, .fini = session_pair_tear_down);

/* ---- frames ---- */

static int open_frame(struct cfsr_session *session, const uint8_t *frame)
{
    struct cfsr_link_header header;
    int rc = cfsr_link_header_load(frame, &header);
    return rc < 0 ? rc : cfsr_session_open(session, &header, frame);
}

static uint32_t seal_heartbeat(struct cfsr_session *session, uint8_t *frame)
{
    const struct cfsr_heartbeat heartbeat = {.wall_us = 5, .count = 1, .lane = {{3, 4096, 7}}};
    return cfsr_session_seal(session, CFSR_FRAME_HEARTBEAT, 0, frame,
                             cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES));
}

static uint32_t seal_ack(struct cfsr_session *session, uint8_t *frame)
{
    const struct cfsr_ack ack = {
        .backpressure_pct = 7, .count = 1, .lane = {{3, 0x123456, 0x120000, 1000}}};
    return cfsr_session_seal(session, CFSR_FRAME_ACK, 0, frame,
                             cfsr_ack_store(&ack, frame + CFSR_LINK_HEADER_BYTES));
}

enum {
    BATCH_BYTES = CFSR_BATCH_PREFIX_BYTES + 100,
    BATCH_FRAME_BYTES = CFSR_LINK_HEADER_BYTES + BATCH_BYTES
};

static void seal_batch(struct cfsr_session *session, uint8_t fill, uint8_t *frame)
{
    memset(frame + CFSR_LINK_HEADER_BYTES, fill, BATCH_BYTES);
    cfsr_session_seal_batch(session, CFSR_FRAME_ACK_NOW,
                            frame + CFSR_LINK_HEADER_BYTES + CFSR_BATCH_TAG_OFFSET, BATCH_BYTES,
                            frame);
}

Test(session_frames, frames_pass_both_ways)
{
    static uint8_t frame[FRAME_BYTES];
    struct cfsr_heartbeat heartbeat;
    handshake(FROM_A, FROM_B);
    uint32_t len = seal_ack(&answer,
                            frame); /* the acceptor may speak before it heard the first frame */
    cr_assert_eq(len, 64 + 16 + 32);
    cr_assert_eq(open_frame(&dial, frame), 0);
    cr_assert_eq(answer.state, CFSR_SESSION_ANSWERED);
    len = seal_heartbeat(&dial, frame);
    cr_assert_eq(open_frame(&answer, frame), 0);
    cr_assert_eq(answer.state, CFSR_SESSION_ESTABLISHED);
    cr_assert_eq(cfsr_heartbeat_load(frame + CFSR_LINK_HEADER_BYTES, len - CFSR_LINK_HEADER_BYTES,
                                     &heartbeat),
                 0);
    cr_assert_eq(heartbeat.lane[0].entries, 7);
    for (uint8_t i = 1; i < 20; i++) {
        seal_batch(&dial, i, frame);
        cr_assert_eq(cfsr_load_le64(frame + 24), i, "batch sequence");
        cr_assert_eq(open_frame(&answer, frame), 0);
        seal_heartbeat(&dial, frame);
        cr_assert_eq(open_frame(&answer, frame), 0, "control frames do not count as batches");
    }
}

Test(session_frames, no_corrupted_control_frame_passes)
{
    static uint8_t frame[FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    uint32_t len = seal_heartbeat(&dial, frame);
    for (uint32_t at = 0; at < len; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            frame[at] ^= (uint8_t)(1u << bit);
            struct cfsr_link_header header;
            /* The caller waits for the whole frame: a longer length is not looked at before it is
             * there. */
            int rc = cfsr_link_header_load(frame, &header);
            if (rc == 0)
                rc = cfsr_session_open(&answer, &header, frame);
            cr_assert_lt(rc, 0, "byte %u bit %u", at, bit);
            frame[at] ^= (uint8_t)(1u << bit);
        }
    }
    cr_assert_eq(answer.state, CFSR_SESSION_ANSWERED);
    cr_assert_eq(open_frame(&answer, frame), 0, "and none of them moved anything");
}

Test(session_frames, no_corrupted_batch_header_or_tag_passes)
{
    static uint8_t frame[BATCH_FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    seal_batch(&dial, 1, frame);
    for (uint32_t at = 0; at < 256; at++) {
        if (at == CFSR_LINK_HEADER_BYTES)
            at += CFSR_BATCH_TAG_OFFSET; /* what stands between is the batch tag's to protect */
        for (unsigned bit = 0; bit < 8; bit++) {
            frame[at] ^= (uint8_t)(1u << bit);
            cr_assert_lt(open_frame(&answer, frame), 0, "byte %u bit %u", at, bit);
            frame[at] ^= (uint8_t)(1u << bit);
        }
    }
    cr_assert_eq(open_frame(&answer, frame), 0);
}

Test(session_frames, batch_needs_only_its_first_256_bytes)
{
    static uint8_t frame[BATCH_FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    seal_batch(&dial, 1, frame);
    uint8_t *first = malloc(256);
    memcpy(first, frame, 256);
    cr_assert_eq(open_frame(&answer, first), 0);
    free(first);
}

Test(session_frames, replayed_skipped_and_swapped_frames_are_refused)
{
    static uint8_t one[FRAME_BYTES], two[FRAME_BYTES], three[FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    seal_batch(&dial, 1, one);
    seal_batch(&dial, 2, two);
    seal_batch(&dial, 3, three);
    cr_assert_eq(open_frame(&answer, two), -CFSR_E_REPLAYED, "swapped");
    cr_assert_eq(open_frame(&answer, one), 0);
    cr_assert_eq(open_frame(&answer, one), -CFSR_E_REPLAYED, "twice");
    cr_assert_eq(open_frame(&answer, three), -CFSR_E_REPLAYED, "skipped");
    cfsr_store_le64(three + 16, answer.next_recv_batch); /* renumbered into place */
    cfsr_store_le64(three + 24, answer.next_recv_batch);
    cr_assert_eq(open_frame(&answer, three), -CFSR_E_BAD_LINK_TAG);
    cr_assert_eq(open_frame(&answer, two), 0);
}

/* The transport lets CONTROL frames overtake DATA frames that were sealed before them. */
Test(session_frames, control_frames_may_overtake_batches)
{
    static uint8_t batch[FRAME_BYTES], first[FRAME_BYTES], second[FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    seal_heartbeat(&dial, first);
    seal_batch(&dial, 1, batch);
    seal_heartbeat(&dial, second);
    cr_assert_eq(open_frame(&answer, second), -CFSR_E_REPLAYED, "not one another");
    cr_assert_eq(open_frame(&answer, first), 0);
    cr_assert_eq(open_frame(&answer, second), 0);
    cr_assert_eq(open_frame(&answer, batch), 0);
}

Test(session_frames, batch_sequence_must_be_the_next)
{
    static uint8_t frame[BATCH_FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    dial.next_send_batch = 2; /* a sender with a fault signs it */
    seal_batch(&dial, 1, frame);
    cr_assert_eq(open_frame(&answer, frame), -CFSR_E_REPLAYED);
    cr_assert_eq(answer.state, CFSR_SESSION_ANSWERED);
}

Test(session_frames, frames_of_an_older_session_are_refused)
{
    static uint8_t batch[BATCH_FRAME_BYTES], ack[FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    seal_batch(&dial, 1, batch);
    seal_ack(&answer, ack);
    handshake(0x01, 0x02); /* the same place in a later session */
    cr_assert_eq(open_frame(&answer, batch), -CFSR_E_BAD_LINK_TAG);
    cr_assert_eq(open_frame(&dial, ack), -CFSR_E_BAD_LINK_TAG);
    handshake(FROM_A, 0x02); /* one fresh nonce is enough, whichever side */
    cr_assert_eq(open_frame(&answer, batch), -CFSR_E_BAD_LINK_TAG);
    handshake(0x01, FROM_B);
    cr_assert_eq(open_frame(&answer, batch), -CFSR_E_BAD_LINK_TAG);
}

Test(session_frames, frames_do_not_move_between_connections_of_one_pair)
{
    static uint8_t frame[FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    struct cfsr_session other_dial = dial, other_answer = answer; /* connection 1 lives on */
    memset(&dial, 0, sizeof dial);
    memset(&answer, 0, sizeof answer);
    handshake(0x03, 0x04); /* connection 2 */
    seal_heartbeat(&other_dial, frame);
    cr_assert_eq(open_frame(&answer, frame), -CFSR_E_BAD_LINK_TAG);
    cr_assert_eq(open_frame(&other_answer, frame), 0);
    cfsr_session_fini(&other_dial);
    cfsr_session_fini(&other_answer);
}

Test(session_frames, reflected_frames_are_refused)
{
    static uint8_t frame[FRAME_BYTES];
    handshake(FROM_A, FROM_B);
    seal_heartbeat(&dial, frame); /* legal in both directions, same sequence due in both */
    cr_assert_eq(open_frame(&dial, frame), -CFSR_E_BAD_LINK_TAG);
    seal_heartbeat(&answer, frame);
    cr_assert_eq(open_frame(&answer, frame), -CFSR_E_BAD_LINK_TAG);
}

Test(session_frames, types_have_their_direction_and_state)
{
    static uint8_t frame[FRAME_BYTES];
    start_sessions(2, FROM_A, FROM_B);
    struct cfsr_link_header header = {
        .version = 1, .type = CFSR_FRAME_HEARTBEAT, .length_bytes = 32, .link_seq = 1};
    cr_assert_eq(cfsr_session_open(&answer, &header, frame), -CFSR_E_BAD_FRAME,
                 "before the handshake");
    cr_assert_eq(cfsr_session_open(&dial, &header, frame), -CFSR_E_BAD_FRAME,
                 "before the handshake");
    handshake(FROM_A, FROM_B);
    seal_ack(&dial, frame);
    cr_assert_eq(open_frame(&answer, frame), -CFSR_E_BAD_FRAME, "the dialer acks nothing");
    seal_batch(&answer, 1, frame);
    cr_assert_eq(open_frame(&dial, frame), -CFSR_E_BAD_FRAME, "the acceptor sends no data");
    cr_assert_eq(open_frame(&answer, hello_frame), -CFSR_E_BAD_FRAME, "HELLO inside a session");
    cr_assert_eq(open_frame(&dial, ack_frame), -CFSR_E_BAD_FRAME, "HELLO_ACK inside a session");
    const struct cfsr_goodbye goodbye = {.reason = CFSR_E_SHUTDOWN, .detail = "bye"};
    handshake(FROM_A, FROM_B);
    cfsr_session_seal(&answer, CFSR_FRAME_GOODBYE, 0, frame,
                      cfsr_goodbye_store(&goodbye, frame + CFSR_LINK_HEADER_BYTES));
    cr_assert_eq(open_frame(&dial, frame), 0);
}

/* ---- the example of docs/wire-format.md ---- */

static char *read_document(void)
{
    FILE *file = fopen(CFSR_DOCS_DIR "/wire-format.md", "r");
    cr_assert_not_null(file);
    char *text = calloc(1, 1 << 20);
    cr_assert_not_null(text);
    cr_assert_gt(fread(text, 1, (1 << 20) - 1, file), 0);
    fclose(file);
    return text;
}

static void expect_in_document(const char *document, const uint8_t *frame, uint32_t len)
{
    for (uint32_t at = 0; at < len; at += 16) {
        char line[80];
        int used = snprintf(line, sizeof line, "%04x ", at);
        for (uint32_t i = at; i < len && i < at + 16; i++)
            used += snprintf(line + used, sizeof line - (size_t)used, " %02x", frame[i]);
        cr_expect(strstr(document, line) != NULL, "not in docs/wire-format.md: %s", line);
    }
}

Test(session_frames, example_of_the_document)
{
    static uint8_t frame[FRAME_BYTES];
    /* HMAC(acceptor->dialer key, …) worked out by other means: see the document. */
    static const uint8_t tag[] = {0x38, 0xaf, 0xf7, 0x36, 0xca, 0x30, 0xc6, 0x55, 0x82, 0xca, 0xe1,
                                  0xdc, 0x9f, 0x91, 0x70, 0x7e, 0x55, 0xa2, 0x9c, 0x3a, 0xa3, 0x71,
                                  0x2a, 0xd0, 0x8a, 0xb0, 0xcc, 0x37, 0xcb, 0x01, 0x65, 0x82};
    char *document = read_document();
    handshake(FROM_A, FROM_B);
    uint32_t len = seal_ack(&answer, frame);
    cr_assert_eq(memcmp(frame + CFSR_LINK_SIGNED_BYTES, tag, sizeof tag), 0);
    expect_in_document(document, frame, len);
    free(document);
}
