/*
 * fuzz_frames.c - frames of an established connection: link header, tag, sequence, payloads.
 *
 * Input: u8 role (bit 0: read as the dialer does; bit 1: bodies are sealed), then frames: u8 fixes
 * (1 magic, version and reserved bytes; 2 length; 4 sequences; 8 tag; 16 seal the body), u16 bytes
 * of the frame, the frame.
 *
 * Properties: a frame that is refused leaves the session as it was; one that was opened cannot be
 * opened again; a sealed body opens to what was sealed, and no other opens; a payload that is
 * accepted survives store and load, and if its head is that of this version it is stored to the
 * same bytes.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum fix {
    FIX_HEADER = 1,
    FIX_LENGTH = 2,
    FIX_SEQUENCE = 4,
    FIX_TAG = 8,
    FIX_SEAL = 16
};

static struct fuzz_pair pair, sealed_pair;

static void set_up(void)
{
    static bool done;

    if (!done)
        fuzz_pair_init(&pair);
    if (!done)
        fuzz_pair_init_seal(&sealed_pair, CFSR_SEAL_REQUIRE);
    done = true;
}

static void sign(struct cfsr_mac_key *key, uint8_t *frame, size_t payload_bytes)
{
    const uint8_t *payload = frame + CFSR_LINK_HEADER_BYTES;
    struct cfsr_mac_part parts[] = {{frame, CFSR_LINK_SIGNED_BYTES}, {payload, payload_bytes}};

    if (frame[5] == CFSR_FRAME_BATCH && payload_bytes >= CFSR_BATCH_PREFIX_BYTES)
        parts[1] = (struct cfsr_mac_part){payload + CFSR_BATCH_TAG_OFFSET, CFSR_TAG_LEN_BYTES};
    cfsr_mac_compute(key, parts, CFSR_ARRAY_LEN(parts), frame + CFSR_LINK_SIGNED_BYTES);
}

/* Where a body begins that has a tag behind it; 0: there is none. */
static size_t sealed_body(const uint8_t *frame, size_t len_bytes)
{
    const uint8_t *payload = frame + CFSR_LINK_HEADER_BYTES;
    size_t at = 0;

    if (frame[5] == CFSR_FRAME_BATCH && len_bytes >= CFSR_LINK_HEADER_BYTES + 192)
        at = CFSR_LINK_HEADER_BYTES + 192u + cfsr_load_le16(payload + 82);
    else if (frame[5] == CFSR_FRAME_REPLY && len_bytes >= CFSR_LINK_HEADER_BYTES + 72 &&
             cfsr_load_le16(payload) >= 72)
        at = CFSR_LINK_HEADER_BYTES + cfsr_load_le16(payload);
    return at != 0 && at + CFSR_SEAL_TAG_BYTES <= len_bytes ? at : 0;
}

/* As the other side would; the bytes of the tag are whatever stood there. */
static void seal(struct cfsr_aead_key *key, uint8_t *frame, size_t len_bytes)
{
    size_t at = sealed_body(frame, len_bytes);
    uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES] = {0};

    if (at == 0)
        return;
    const struct cfsr_mac_part parts[] = {
        {frame, CFSR_LINK_SIGNED_BYTES},
        {frame + CFSR_LINK_HEADER_BYTES, at - CFSR_LINK_HEADER_BYTES}};
    memcpy(nonce + 4, frame + 16, 8);
    cfsr_aead_seal(key, nonce, parts, CFSR_ARRAY_LEN(parts), frame + at,
                   len_bytes - at - CFSR_SEAL_TAG_BYTES, frame + at,
                   frame + len_bytes - CFSR_SEAL_TAG_BYTES);
}

static void fix(const struct cfsr_session *session, uint8_t *frame, size_t len_bytes, uint8_t fixes)
{
    bool batch = frame[5] == CFSR_FRAME_BATCH, reply = frame[5] == CFSR_FRAME_REPLY;

    if (fixes & FIX_HEADER) {
        cfsr_store_le32(frame, CFSR_FRAME_MAGIC);
        frame[4] = CFSR_WIRE_VERSION;
        cfsr_store_le16(frame + 6, (uint16_t)(cfsr_load_le16(frame + 6) & CFSR_FRAME_ACK_NOW));
        cfsr_store_le32(frame + 12, 0);
    }
    if (fixes & FIX_LENGTH)
        cfsr_store_le32(frame + 8, (uint32_t)(len_bytes - CFSR_LINK_HEADER_BYTES));
    if (fixes & FIX_SEQUENCE) {
        cfsr_store_le64(frame + 16,
                        batch || reply ? session->next_recv_data : session->next_recv_seq);
        cfsr_store_le64(frame + 24, batch ? session->next_recv_batch : 0);
    }
    if ((fixes & FIX_SEAL) != 0 && cfsr_session_seals(session))
        seal(session->dialer ? sealed_pair.acceptor.seal_key : sealed_pair.dialer.seal_key, frame,
             len_bytes);
    if (fixes & FIX_TAG)
        sign(session->recv_key, frame, len_bytes - CFSR_LINK_HEADER_BYTES);
}

/* store() of what load() read, and again: the bytes stay the same. */
#define CHECK_PAYLOAD(name, payload, len_bytes)                                              \
    do {                                                                                     \
        static struct cfsr_##name first, second;                                             \
        static uint8_t once[CFSR_CONTROL_MAX_BYTES], twice[CFSR_CONTROL_MAX_BYTES];          \
        if (cfsr_##name##_load(payload, len_bytes, &first) == 0) {                           \
            uint32_t stored = cfsr_##name##_store(&first, once);                             \
            FUZZ_CHECK(stored <= CFSR_CONTROL_MAX_BYTES && stored <= (len_bytes));           \
            FUZZ_CHECK(memcmp(once, payload, 8) != 0 || memcmp(once, payload, stored) == 0); \
            FUZZ_CHECK(cfsr_##name##_load(once, stored, &second) == 0);                      \
            FUZZ_CHECK(cfsr_##name##_store(&second, twice) == stored);                       \
            FUZZ_CHECK(memcmp(once, twice, stored) == 0);                                    \
        }                                                                                    \
    } while (0)

/* Its body lies in the payload and is as long as it says. */
static void read_reply(const uint8_t *payload, uint32_t len_bytes)
{
    struct cfsr_reply reply;
    const uint8_t *digest;

    if (cfsr_reply_load(payload, len_bytes, &reply) < 0)
        return;
    FUZZ_CHECK(reply.body_bytes <= len_bytes &&
               (reply.body_bytes == 0 ||
                (reply.body >= payload && reply.body + reply.body_bytes <= payload + len_bytes)));
    FUZZ_CHECK(reply.kind == CFSR_QUERY_RECORDS || reply.count <= CFSR_REPLY_WINDOWS_MAX);
    for (uint32_t i = 0; reply.kind == CFSR_QUERY_DIGESTS && i < reply.count; i++) {
        (void)cfsr_reply_window_load(&reply, i, &digest);
        FUZZ_CHECK(digest >= reply.body &&
                   digest + CFSR_DIGEST_LEN_BYTES <= reply.body + reply.body_bytes);
    }
}

static void read_payload(uint8_t type, const uint8_t *payload, uint32_t len_bytes)
{
    struct cfsr_batch_header header;
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];

    switch (type) {
    case CFSR_FRAME_HELLO: CHECK_PAYLOAD(hello, payload, len_bytes); break;
    case CFSR_FRAME_HELLO_ACK: CHECK_PAYLOAD(hello_ack, payload, len_bytes); break;
    case CFSR_FRAME_ACK: CHECK_PAYLOAD(ack, payload, len_bytes); break;
    case CFSR_FRAME_HEARTBEAT: CHECK_PAYLOAD(heartbeat, payload, len_bytes); break;
    case CFSR_FRAME_GOODBYE: CHECK_PAYLOAD(goodbye, payload, len_bytes); break;
    case CFSR_FRAME_QUERY: CHECK_PAYLOAD(query, payload, len_bytes); break;
    case CFSR_FRAME_REPLY: read_reply(payload, len_bytes); break;
    case CFSR_FRAME_BATCH:
        if (cfsr_batch_header_load(payload, &header) < 0)
            break;
        cfsr_batch_header_store(&header, prefix);
        FUZZ_CHECK(memcmp(prefix, payload, sizeof prefix) == 0);
        break;
    default: break;
    }
}

/* plain: the frame before it was sealed. */
static void take_body(struct cfsr_session *session, const struct cfsr_link_header *header,
                      uint8_t *frame, const uint8_t *plain, uint8_t fixes)
{
    size_t len_bytes = CFSR_LINK_HEADER_BYTES + (size_t)header->length_bytes;
    size_t at = sealed_body(frame, len_bytes);
    struct cfsr_link_header opened = *header;
    bool was_sealed = at != 0 && (fixes & FIX_SEAL) != 0;
    int rc = cfsr_session_open_body(session, &opened, frame);

    if (!cfsr_session_seals(session) || !cfsr_frame_is_data(header->type)) {
        FUZZ_CHECK(rc == 0 && opened.length_bytes == header->length_bytes);
        return;
    }
    FUZZ_CHECK((rc == 0) == was_sealed);
    if (rc < 0)
        return;
    FUZZ_CHECK(opened.length_bytes + CFSR_SEAL_TAG_BYTES == header->length_bytes);
    FUZZ_CHECK(memcmp(frame + at, plain + at, len_bytes - at - CFSR_SEAL_TAG_BYTES) == 0);
    read_payload(header->type, frame + CFSR_LINK_HEADER_BYTES, opened.length_bytes);
}

/* As a connection's driver: the header bounds the frame before anything of it is believed. */
static void take_frame(struct cfsr_session *session, uint8_t *frame, size_t len_bytes,
                       const uint8_t *plain, uint8_t fixes)
{
    struct cfsr_link_header header;
    struct cfsr_session before = *session;
    uint8_t stored[CFSR_LINK_HEADER_BYTES];

    if (cfsr_link_header_load(frame, &header) < 0)
        return;
    FUZZ_CHECK(header.length_bytes <= CFSR_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES);
    cfsr_link_header_store(&header, stored);
    FUZZ_CHECK(memcmp(stored, frame, sizeof stored) == 0);
    if (header.length_bytes != len_bytes - CFSR_LINK_HEADER_BYTES)
        return;
    read_payload(header.type, frame + CFSR_LINK_HEADER_BYTES, header.length_bytes);
    if (cfsr_session_open(session, &header, frame) < 0) {
        FUZZ_CHECK(memcmp(&before, session, sizeof before) == 0);
        return;
    }
    FUZZ_CHECK(session->state == CFSR_SESSION_ESTABLISHED);
    FUZZ_CHECK(session->next_recv_seq + session->next_recv_data ==
               before.next_recv_seq + before.next_recv_data + 1);
    FUZZ_CHECK(cfsr_session_open(session, &header, frame) < 0);
    take_body(session, &header, frame, plain, fixes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    struct cfsr_session session;

    set_up();
    uint8_t role = fuzz_u8(&reader);
    const struct fuzz_pair *from = (role & 2) != 0 ? &sealed_pair : &pair;
    session = (role & 1) != 0 ? from->dialer : from->acceptor; /* the keys are shared */
    while (reader.left > 0) {
        uint8_t fixes = fuzz_u8(&reader);
        size_t got, want = fuzz_u16(&reader);
        const uint8_t *bytes = fuzz_bytes(&reader, want, &got);
        uint8_t *frame;

        if (got < CFSR_LINK_HEADER_BYTES)
            break;
        frame = fuzz_copy(bytes, got);
        fix(&session, frame, got, fixes);
        take_frame(&session, frame, got, bytes, fixes);
        free(frame);
    }
    return 0;
}

/* ---- seeds ---- */

static void add_frame(struct fuzz_seed *seed, uint8_t type, const void *payload, uint32_t len_bytes)
{
    /* Sealing means something only where the role has it. */
    const struct cfsr_link_header header = {
        .version = CFSR_WIRE_VERSION, .type = type, .length_bytes = len_bytes};
    uint8_t link[CFSR_LINK_HEADER_BYTES];

    cfsr_link_header_store(&header, link);
    fuzz_seed_u8(seed, FIX_HEADER | FIX_LENGTH | FIX_SEQUENCE | FIX_TAG | FIX_SEAL);
    fuzz_seed_u16(seed, (uint16_t)(CFSR_LINK_HEADER_BYTES + len_bytes));
    fuzz_seed_bytes(seed, link, sizeof link);
    fuzz_seed_bytes(seed, payload, len_bytes);
}

static void add_control(struct fuzz_corpus *corpus)
{
    static uint8_t payload[CFSR_CONTROL_MAX_BYTES];
    struct cfsr_ack ack = {.backpressure_pct = 7, .count = 2};
    struct cfsr_heartbeat heartbeat = {.wall_us = 5, .echo_wall_us = 4, .count = 2};
    struct cfsr_goodbye goodbye = {.reason = CFSR_E_SHUTDOWN, .detail = "the end"};
    struct fuzz_seed seed = {0};

    ack.lane[0] = (struct cfsr_ack_lane){3, 0x1000, UINT64_MAX, 10};
    ack.lane[1] = (struct cfsr_ack_lane){7, 0x2000, 0x1000, 20};
    heartbeat.lane[0] = (struct cfsr_heartbeat_lane){0, 0x3000, 30};
    heartbeat.lane[1] = (struct cfsr_heartbeat_lane){1, 0, 0};
    fuzz_seed_u8(&seed, 1);
    add_frame(&seed, CFSR_FRAME_ACK, payload, cfsr_ack_store(&ack, payload));
    fuzz_seed_end(&seed, corpus, "ack");
    fuzz_seed_u8(&seed, 0);
    add_frame(&seed, CFSR_FRAME_HEARTBEAT, payload, cfsr_heartbeat_store(&heartbeat, payload));
    add_frame(&seed, CFSR_FRAME_GOODBYE, payload, cfsr_goodbye_store(&goodbye, payload));
    fuzz_seed_end(&seed, corpus, "heartbeat-goodbye");
}

static void add_handshake(struct fuzz_corpus *corpus)
{
    static uint8_t payload[CFSR_CONTROL_MAX_BYTES];
    static struct cfsr_hello_ack ack;
    struct fuzz_seed seed = {0};

    fuzz_seed_u8(&seed, 0);
    add_frame(&seed, CFSR_FRAME_HELLO, payload, cfsr_hello_store(&pair.dialer.hello, payload));
    fuzz_seed_end(&seed, corpus, "hello");
    ack = (struct cfsr_hello_ack){.version = 1,
                                  .status = CFSR_E_WRONG_CORE,
                                  .cluster = pair.site[1].cluster,
                                  .site_id = 2,
                                  .site_name = "site-2",
                                  .cores = 4,
                                  .lane_mask = FUZZ_LANE_MASK,
                                  .detail = "dial again"};
    fuzz_seed_u8(&seed, 1);
    add_frame(&seed, CFSR_FRAME_HELLO_ACK, payload, cfsr_hello_ack_store(&ack, payload));
    fuzz_seed_end(&seed, corpus, "hello_ack");
}

static void add_queries(struct fuzz_corpus *corpus)
{
    static uint8_t payload[CFSR_CONTROL_MAX_BYTES];
    static const uint8_t digest[CFSR_DIGEST_LEN_BYTES] = {1, 2, 3};
    struct cfsr_query query = {.id = 1,
                               .kind = CFSR_QUERY_DIGESTS,
                               .lane = 3,
                               .origin = 1,
                               .journal = pair.site[0].journal,
                               .lsn_to = 4 << 20};
    struct cfsr_reply reply = {.id = 1,
                               .kind = CFSR_QUERY_DIGESTS,
                               .lane = 3,
                               .lsn_to = 2 << 20,
                               .count = 2,
                               .body_bytes = 2 * CFSR_REPLY_WINDOW_BYTES};
    struct fuzz_seed seed = {0};

    fuzz_seed_u8(&seed, 0);
    add_frame(&seed, CFSR_FRAME_QUERY, payload, cfsr_query_store(&query, payload));
    cfsr_reply_window_store(payload + CFSR_REPLY_BYTES, 0, 0, digest);
    cfsr_reply_window_store(payload + CFSR_REPLY_BYTES, 1, 1, digest);
    add_frame(&seed, CFSR_FRAME_REPLY, payload, cfsr_reply_store(&reply, payload));
    reply = (struct cfsr_reply){.id = 2,
                                .kind = CFSR_QUERY_RECORDS,
                                .lane = 3,
                                .lsn_to = 64,
                                .count = 1,
                                .body_bytes = 300};
    add_frame(&seed, CFSR_FRAME_REPLY, payload, cfsr_reply_store(&reply, payload));
    fuzz_seed_end(&seed, corpus, "query-replies");
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    struct cfsr_batch_header header = {.lane = 3,
                                       .codec = CFSR_CODEC_LZ4,
                                       .site_id = 1,
                                       .lsn_from = 4096,
                                       .lsn_to = 8192,
                                       .entry_count = 3,
                                       .key_id = 1,
                                       .original_bytes = 300,
                                       .stored_bytes = 40,
                                       .hole_count = 1,
                                       .extension_bytes = 16};
    uint8_t batch[CFSR_BATCH_PREFIX_BYTES + 16 + 40 + CFSR_SEAL_TAG_BYTES] = {0};
    uint8_t reply[CFSR_REPLY_BYTES + 100 + CFSR_SEAL_TAG_BYTES] = {CFSR_REPLY_BYTES};
    struct fuzz_seed seed = {0};

    set_up();
    add_control(corpus);
    add_handshake(corpus);
    add_queries(corpus);
    cfsr_batch_header_store(&header, batch);
    fuzz_seed_u8(&seed, 0);
    add_frame(&seed, CFSR_FRAME_BATCH, batch, sizeof batch - CFSR_SEAL_TAG_BYTES);
    fuzz_seed_end(&seed, corpus, "batch");
    fuzz_seed_u8(&seed, 2);
    add_frame(&seed, CFSR_FRAME_BATCH, batch, sizeof batch);
    add_frame(&seed, CFSR_FRAME_BATCH, batch, sizeof batch);
    add_frame(&seed, CFSR_FRAME_REPLY, reply, sizeof reply);
    fuzz_seed_end(&seed, corpus, "sealed");
}
