/*
 * session_frames.c - frames inside a session: link tags, and sealed bodies (docs/wire-format.md,
 * "Frame" and "Sealed bodies").
 *
 * Owner: the thread of the connection. No I/O, no allocation.
 * Invariants: sequences move only after a tag was found right; in a session that seals no BATCH or
 * REPLY leaves with its body in the clear, and none is taken; the nonce of a body is the link
 * sequence of its frame in the data stream, which grows by one from 1 under keys that no other
 * session has, so no nonce is used twice (asserted). A sealed body is opened after the link tag was
 * checked and before anything in it is looked at.
 *
 * Rejected: random nonces (12 bytes more on the wire, and a birthday bound); the sealing tag in
 * place of the link tag (acks and heartbeats need one anyway, and one rule for all frames is easier
 * to get right); sealing HELLO to GOODBYE too (positions and times, no contents; what the size and
 * the time of frames tell is told anyway).
 */
#include "repl/session.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "repl/session_internal.h"

/* The nonce: four zero bytes, the link sequence of the frame. */
#define NONCE_SEQUENCE 4

_Static_assert(CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES == 256,
               "what open() needs of a BATCH");
_Static_assert(CFSR_SEAL_TAG_BYTES == CFSR_AEAD_TAG_LEN_BYTES, "docs/wire-format.md");
_Static_assert(NONCE_SEQUENCE + 8 == CFSR_AEAD_NONCE_LEN_BYTES, "docs/wire-format.md");
_Static_assert(CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_BODY_MAX_BYTES +
                       CFSR_SEAL_TAG_BYTES <=
                   CFSR_FRAME_MAX_BYTES,
               "a maximal body without holes can be sealed");
_Static_assert(CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES + CFSR_REPLY_BODY_MAX +
                       CFSR_SEAL_TAG_BYTES ==
                   CFSR_FRAME_MAX_BYTES,
               "so can a maximal answer");

/* ---- tags ---- */

void cfsr_session_sign(struct cfsr_mac_key *key, uint8_t *header, const void *signed_part,
                       size_t len_bytes)
{
    const struct cfsr_mac_part parts[] = {{header, CFSR_LINK_SIGNED_BYTES},
                                          {signed_part, len_bytes}};
    cfsr_mac_compute(key, parts, CFSR_ARRAY_LEN(parts), header + CFSR_LINK_SIGNED_BYTES);
}

bool cfsr_session_tag_is_right(struct cfsr_mac_key *key, const uint8_t *frame,
                               const struct cfsr_link_header *header)
{
    const struct cfsr_mac_part batch_tag = {frame + CFSR_LINK_HEADER_BYTES + CFSR_BATCH_TAG_OFFSET,
                                            CFSR_TAG_LEN_BYTES};
    const struct cfsr_mac_part payload = {frame + CFSR_LINK_HEADER_BYTES, header->length_bytes};
    const struct cfsr_mac_part parts[] = {
        {frame, CFSR_LINK_SIGNED_BYTES},
        header->type == CFSR_FRAME_BATCH ? batch_tag : payload,
    };
    return cfsr_mac_verify(key, parts, CFSR_ARRAY_LEN(parts), header->tag);
}

/* ---- bodies ---- */

static void nonce_of(uint64_t link_seq, uint8_t nonce_out[CFSR_AEAD_NONCE_LEN_BYTES])
{
    memset(nonce_out, 0, NONCE_SEQUENCE);
    cfsr_store_le64(nonce_out + NONCE_SEQUENCE, link_seq);
}

/*
 * Encrypts the body of the frame whose link header was just stored in head: sealed_out gets the
 * body and its tag. What stands before the body is bound to it.
 */
static void seal_body(struct cfsr_session *session, const uint8_t *head, uint32_t head_bytes,
                      const void *body, uint32_t body_bytes, uint8_t *sealed_out)
{
    uint64_t link_seq = session->next_send_data;
    const struct cfsr_mac_part parts[] = {
        {head, CFSR_LINK_SIGNED_BYTES},
        {head + CFSR_LINK_HEADER_BYTES, head_bytes - CFSR_LINK_HEADER_BYTES},
    };
    uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES];

    CFSR_ASSERT(link_seq > session->sealed_seq); /* a nonce twice under a key gives the key away */
    session->sealed_seq = link_seq;
    nonce_of(link_seq, nonce);
    cfsr_aead_seal(session->seal_key, nonce, parts, CFSR_ARRAY_LEN(parts), body, body_bytes,
                   sealed_out, sealed_out + body_bytes);
}

/* Where the body of a BATCH or REPLY begins, or -CFSR_E_BAD_FRAME. Read before it is proven: the
 * tag of the body covers what stands there. */
static int body_offset(const struct cfsr_link_header *header, const uint8_t *frame)
{
    const uint8_t *payload = frame + CFSR_LINK_HEADER_BYTES;
    uint32_t fixed = CFSR_REPLY_BYTES;

    if (header->type == CFSR_FRAME_BATCH)
        fixed = CFSR_BATCH_PREFIX_BYTES + cfsr_batch_extension_bytes(payload);
    else if (header->length_bytes >= CFSR_REPLY_BYTES)
        fixed = cfsr_reply_fixed_bytes(payload);
    if (fixed < CFSR_REPLY_BYTES || header->length_bytes < fixed + CFSR_SEAL_TAG_BYTES)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "frame type %u of %u bytes has no sealed body",
                         header->type, header->length_bytes);
    return (int)(CFSR_LINK_HEADER_BYTES + fixed);
}

int cfsr_session_open_body(struct cfsr_session *session, struct cfsr_link_header *header,
                           void *frame)
{
    uint8_t *bytes = frame, nonce[CFSR_AEAD_NONCE_LEN_BYTES];

    if (!cfsr_session_seals(session) || !cfsr_frame_is_data(header->type))
        return 0;
    CFSR_ASSERT(header->link_seq + 1 == session->next_recv_data); /* what open() let in */
    int body = body_offset(header, bytes);
    if (body < 0)
        return body;
    const struct cfsr_mac_part parts[] = {
        {bytes, CFSR_LINK_SIGNED_BYTES},
        {bytes + CFSR_LINK_HEADER_BYTES, (size_t)body - CFSR_LINK_HEADER_BYTES},
    };
    uint32_t plain_bytes = header->length_bytes - CFSR_SEAL_TAG_BYTES;
    const uint8_t *tag = bytes + CFSR_LINK_HEADER_BYTES + plain_bytes;
    nonce_of(header->link_seq, nonce);
    if (!cfsr_aead_open(session->open_key, nonce, parts, CFSR_ARRAY_LEN(parts), bytes + body,
                        (size_t)(tag - (bytes + body)), tag))
        return cfsr_fail(-CFSR_E_BAD_LINK_TAG,
                         "sealed body of frame type %u, sequence %llu does not open", header->type,
                         (unsigned long long)header->link_seq);
    header->length_bytes = plain_bytes;
    return 0;
}

/* ---- frames ---- */

/* Writes the header of the next frame of its stream; the tag and the count follow. */
static void store_header(const struct cfsr_session *session, enum cfsr_frame_type type,
                         uint16_t flags, uint32_t length_bytes, uint8_t *header)
{
    bool batch = type == CFSR_FRAME_BATCH, data = cfsr_frame_is_data(type);
    const struct cfsr_link_header link = {
        .version = (uint8_t)session->version,
        .type = (uint8_t)type,
        .flags = flags,
        .length_bytes = length_bytes,
        .link_seq = data ? session->next_send_data : session->next_send_seq,
        .batch_seq = batch ? session->next_send_batch : 0,
    };
    CFSR_ASSERT(length_bytes <= CFSR_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES);
    cfsr_link_header_store(&link, header);
}

/* Tags the stored header and counts the frame. Each stream counts for itself: CONTROL frames
 * overtake sealed DATA frames in the transport. */
static void finish_header(struct cfsr_session *session, enum cfsr_frame_type type,
                          const void *signed_part, size_t signed_bytes, uint8_t *header)
{
    CFSR_ASSERT(session->send_key != NULL);
    if (cfsr_frame_is_data(type))
        session->next_send_data++;
    else
        session->next_send_seq++;
    session->next_send_batch += type == CFSR_FRAME_BATCH;
    cfsr_session_sign(session->send_key, header, signed_part, signed_bytes);
}

uint32_t cfsr_session_seal(struct cfsr_session *session, enum cfsr_frame_type type, uint16_t flags,
                           void *frame, uint32_t payload_bytes)
{
    CFSR_ASSERT(!cfsr_frame_is_data(type) && payload_bytes <= CFSR_CONTROL_MAX_BYTES);
    uint8_t *bytes = frame;
    store_header(session, type, flags, payload_bytes, bytes);
    finish_header(session, type, bytes + CFSR_LINK_HEADER_BYTES, payload_bytes, bytes);
    return CFSR_LINK_HEADER_BYTES + payload_bytes;
}

uint32_t cfsr_session_seal_reply(struct cfsr_session *session, void *frame, uint32_t payload_bytes)
{
    uint8_t *bytes = frame;
    uint32_t length = payload_bytes + (cfsr_session_seals(session) ? CFSR_SEAL_TAG_BYTES : 0);
    store_header(session, CFSR_FRAME_REPLY, 0, length, bytes);
    if (cfsr_session_seals(session)) {
        CFSR_ASSERT(payload_bytes >= CFSR_REPLY_BYTES);
        uint8_t *body = bytes + CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES;
        seal_body(session, bytes, CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES, body,
                  payload_bytes - CFSR_REPLY_BYTES, body);
    }
    finish_header(session, CFSR_FRAME_REPLY, bytes + CFSR_LINK_HEADER_BYTES, length, bytes);
    return CFSR_LINK_HEADER_BYTES + length;
}

void cfsr_session_seal_batch(struct cfsr_session *session, uint16_t flags,
                             const uint8_t batch_tag[CFSR_TAG_LEN_BYTES], uint32_t length_bytes,
                             void *link_header_out)
{
    CFSR_ASSERT(!cfsr_session_seals(session)); /* a body in the clear has no place there */
    CFSR_ASSERT(length_bytes >= CFSR_BATCH_PREFIX_BYTES);
    store_header(session, CFSR_FRAME_BATCH, flags, length_bytes, link_header_out);
    finish_header(session, CFSR_FRAME_BATCH, batch_tag, CFSR_TAG_LEN_BYTES, link_header_out);
}

uint32_t cfsr_session_seal_batch_body(struct cfsr_session *session, uint16_t flags, void *head,
                                      uint32_t head_bytes, const void *body, uint32_t body_bytes,
                                      void *sealed_out)
{
    uint8_t *bytes = head;
    CFSR_ASSERT(cfsr_session_seals(session));
    CFSR_ASSERT(head_bytes >= CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES);
    uint32_t length = head_bytes - CFSR_LINK_HEADER_BYTES + body_bytes + CFSR_SEAL_TAG_BYTES;
    store_header(session, CFSR_FRAME_BATCH, flags, length, bytes);
    seal_body(session, bytes, head_bytes, body, body_bytes, sealed_out);
    finish_header(session, CFSR_FRAME_BATCH, bytes + CFSR_LINK_HEADER_BYTES + CFSR_BATCH_TAG_OFFSET,
                  CFSR_TAG_LEN_BYTES, bytes);
    return body_bytes + CFSR_SEAL_TAG_BYTES;
}

/* Data flows from the dialer to the acceptor, acks the other way; heartbeats and goodbyes both
 * ways; so do queries and replies, between two sites that know them and have proven themselves. */
static bool is_expected(const struct cfsr_session *session, unsigned type)
{
    bool open = session->state == CFSR_SESSION_ESTABLISHED ||
                session->state == CFSR_SESSION_ANSWERED;
    bool asks = session->state == CFSR_SESSION_ESTABLISHED &&
                (session->features & CFSR_FEATURE_QUERY) != 0;
    switch (type) {
    case CFSR_FRAME_BATCH: return open && !session->dialer;
    case CFSR_FRAME_ACK: return open && session->dialer;
    case CFSR_FRAME_HEARTBEAT:
    case CFSR_FRAME_GOODBYE: return open;
    case CFSR_FRAME_QUERY:
    case CFSR_FRAME_REPLY: return asks;
    default: return false;
    }
}

int cfsr_session_open(struct cfsr_session *session, const struct cfsr_link_header *header,
                      const void *frame)
{
    if (!is_expected(session, header->type) || header->version != session->version)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "frame type %u of version %u has no place here",
                         header->type, header->version);
    bool batch = header->type == CFSR_FRAME_BATCH, data = cfsr_frame_is_data(header->type);
    uint64_t due = data ? session->next_recv_data : session->next_recv_seq;
    if (header->link_seq != due || header->batch_seq != (batch ? session->next_recv_batch : 0))
        return cfsr_fail(-CFSR_E_REPLAYED,
                         "link sequence %llu, batch sequence %llu where %llu was due",
                         (unsigned long long)header->link_seq,
                         (unsigned long long)header->batch_seq, (unsigned long long)due);
    if (!cfsr_session_tag_is_right(session->recv_key, frame, header))
        return cfsr_fail(-CFSR_E_BAD_LINK_TAG,
                         "link tag of frame type %u, sequence %llu does not match", header->type,
                         (unsigned long long)header->link_seq);
    if (data)
        session->next_recv_data++;
    else
        session->next_recv_seq++;
    session->next_recv_batch += batch;
    if (session->state == CFSR_SESSION_ANSWERED)
        session->state = CFSR_SESSION_ESTABLISHED;
    return 0;
}
