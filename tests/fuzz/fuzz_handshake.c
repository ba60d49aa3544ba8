/*
 * fuzz_handshake.c - HELLO at the acceptor, HELLO_ACK at the dialer, by people who hold a key and
 * by strangers.
 *
 * Input: u8 switches (1: the bytes are a HELLO_ACK, else a HELLO; 2: sizes and sequence of the link
 * header put right; 4: signed with the pair's key), then the frame.
 *
 * Properties: whoever is accepted named our cluster, us, a site we know, terms like ours and lanes
 * we have; an answer to a HELLO that proved nothing says nothing of us; a session that refused has
 * no key; no frame is accepted twice.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum fix {
    IS_ACK = 1,
    FIX_HEADER = 2,
    FIX_TAG = 4
};
enum {
    FRAME_BYTES = CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES
};

static struct fuzz_pair pair;
static struct cfsr_mac_key *pair_key;
static const uint64_t ends[CFSR_LANES_MAX] = {10, 11, 12, 13};

static void set_up(void)
{
    if (pair_key != NULL)
        return;
    fuzz_pair_init(&pair);
    FUZZ_CHECK(cfsr_keyring_open_key(pair.keyring, 1, 1, 2, &pair_key) == 0);
}

static void fix_header(uint8_t *frame, size_t len_bytes, uint8_t type)
{
    struct cfsr_link_header header = {
        .version = CFSR_WIRE_VERSION_MIN,
        .type = type,
        .length_bytes = (uint32_t)(len_bytes - CFSR_LINK_HEADER_BYTES),
        .link_seq = 1};

    memcpy(header.tag, frame + CFSR_LINK_SIGNED_BYTES, sizeof header.tag);
    cfsr_link_header_store(&header, frame);
}

static void sign(struct cfsr_mac_key *key, uint8_t *frame, size_t len_bytes)
{
    const struct cfsr_mac_part parts[] = {
        {frame, CFSR_LINK_SIGNED_BYTES},
        {frame + CFSR_LINK_HEADER_BYTES, len_bytes - CFSR_LINK_HEADER_BYTES}};

    cfsr_mac_compute(key, parts, CFSR_ARRAY_LEN(parts), frame + CFSR_LINK_SIGNED_BYTES);
}

/* As docs/wire-format.md says: under the cluster and ids that HELLO names. */
static void sign_hello(uint8_t *frame, size_t len_bytes)
{
    const uint8_t *payload = frame + CFSR_LINK_HEADER_BYTES;
    uint64_t from = cfsr_load_le64(payload + 40), to = cfsr_load_le64(payload + 48);
    uint8_t low[8], high[8];
    const struct cfsr_mac_part parts[] = {{payload + 24, 16}, {low, 8}, {high, 8}};
    struct cfsr_mac_key *key;

    cfsr_store_le64(low, cfsr_min_u64(from, to));
    cfsr_store_le64(high, cfsr_max_u64(from, to));
    FUZZ_CHECK(cfsr_mac_key_derive(pair_key, "cfsr hello 1", parts, CFSR_ARRAY_LEN(parts), &key) ==
               0);
    sign(key, frame, len_bytes);
    cfsr_mac_key_destroy(key);
}

static void check_accepted(const struct cfsr_session *session)
{
    const struct cfsr_hello *hello = &session->hello;
    const struct cfsr_site *site = &pair.site[1];

    FUZZ_CHECK(session->authenticated && session->send_key != NULL && session->recv_key != NULL);
    FUZZ_CHECK(cfsr_uuid_equal(&hello->cluster, &site->cluster) && hello->site_id == 1 &&
               hello->peer_site_id == 2);
    FUZZ_CHECK(hello->lanes == site->lanes && hello->shards == site->shards &&
               hello->segment_bytes == site->segment_bytes && hello->lane_mask != 0 &&
               hello->lane_mask >> FUZZ_LANES == 0 && hello->core < hello->cores);
    FUZZ_CHECK(hello->version_min <= CFSR_WIRE_VERSION &&
               hello->version_max >= CFSR_WIRE_VERSION_MIN && !cfsr_uuid_is_zero(&hello->journal));
}

static void check_answer(const struct cfsr_session *session, const uint8_t *frame, uint32_t len)
{
    static const uint8_t zero[CFSR_TAG_LEN_BYTES];
    struct cfsr_link_header header;
    struct cfsr_hello_ack ack;

    FUZZ_CHECK(cfsr_link_header_load(frame, &header) == 0 &&
               header.length_bytes == len - CFSR_LINK_HEADER_BYTES);
    FUZZ_CHECK(cfsr_hello_ack_load(frame + CFSR_LINK_HEADER_BYTES, header.length_bytes, &ack) == 0);
    FUZZ_CHECK((memcmp(header.tag, zero, sizeof zero) == 0) == !session->authenticated);
    if (session->authenticated)
        return;
    FUZZ_CHECK(ack.status != 0 && ack.site_id == 0 && ack.site_name[0] == '\0' &&
               ack.wall_us == 0 && ack.lane_mask == 0 && cfsr_uuid_is_zero(&ack.cluster) &&
               cfsr_uuid_is_zero(&ack.journal) && cfsr_uuid_is_zero(&ack.known_journal));
}

static void at_acceptor(uint8_t *frame, size_t len_bytes, uint8_t fixes)
{
    static uint8_t answer[FRAME_BYTES];
    static struct cfsr_hello_ack ack;
    uint8_t nonce[32] = {1};
    struct cfsr_session session;
    int rc, len;

    if ((fixes & FIX_TAG) != 0 && len_bytes >= CFSR_LINK_HEADER_BYTES + 56)
        sign_hello(frame, len_bytes);
    FUZZ_CHECK(cfsr_session_init(&session, &pair.local[1], false, 0, nonce) == 0);
    rc = cfsr_session_on_hello(&session, frame, (uint32_t)len_bytes, fuzz_knows_1_and_2, NULL);
    if (rc == 0)
        check_accepted(&session);
    FUZZ_CHECK(rc == 0 || rc <= -4000);
    ack = (struct cfsr_hello_ack){.wall_us = 9, .lane_mask = session.hello.lane_mask};
    len = cfsr_session_hello_ack(&session, &ack, answer);
    FUZZ_CHECK(len > 0);
    check_answer(&session, answer, (uint32_t)len);
    FUZZ_CHECK((rc == 0) == (session.state == CFSR_SESSION_ANSWERED));
    FUZZ_CHECK(rc == 0 || session.state == CFSR_SESSION_DEAD);
    FUZZ_CHECK(
        cfsr_session_on_hello(&session, frame, (uint32_t)len_bytes, fuzz_knows_1_and_2, NULL) < 0);
    cfsr_session_fini(&session);
}

/* The answer is signed under the nonce it names, as an acceptor that holds the key would. */
static void sign_ack(const struct cfsr_session *session, uint8_t *frame, size_t len_bytes)
{
    const struct cfsr_hello *hello = &session->hello;
    uint8_t from[8], to[8];
    const struct cfsr_mac_part parts[] = {
        {hello->cluster.bytes, 16},
        {from, 8},
        {to, 8},
        {hello->nonce, 32},
        {frame + CFSR_LINK_HEADER_BYTES + 96, 32},
        {hello->session_id, 16},
    };
    struct cfsr_mac_key *key;

    cfsr_store_le64(from, 1);
    cfsr_store_le64(to, 2);
    FUZZ_CHECK(cfsr_mac_key_derive(pair_key, "cfsr session 1 acceptor->dialer", parts,
                                   CFSR_ARRAY_LEN(parts), &key) == 0);
    sign(key, frame, len_bytes);
    cfsr_mac_key_destroy(key);
}

static void at_dialer(uint8_t *frame, size_t len_bytes, uint8_t fixes)
{
    static uint8_t hello[FRAME_BYTES];
    static struct cfsr_hello_ack ack;
    uint8_t nonce[32] = {2};
    struct cfsr_session session;
    int rc;

    FUZZ_CHECK(cfsr_session_init(&session, &pair.local[0], true, 2, nonce) == 0);
    FUZZ_CHECK(cfsr_session_hello(&session, FUZZ_LANE_MASK, ends, 1, hello) > 0);
    if ((fixes & FIX_TAG) != 0 && len_bytes >= CFSR_LINK_HEADER_BYTES + 128)
        sign_ack(&session, frame, len_bytes);
    rc = cfsr_session_on_hello_ack(&session, frame, (uint32_t)len_bytes, &ack);
    FUZZ_CHECK(rc == 0 || rc <= -4000);
    if (rc == 0) {
        FUZZ_CHECK(session.state == CFSR_SESSION_ESTABLISHED && session.authenticated);
        FUZZ_CHECK(ack.status == 0 && ack.site_id == 2 && ack.core < ack.cores);
        FUZZ_CHECK(ack.lane_mask != 0 && (ack.lane_mask & ~FUZZ_LANE_MASK) == 0);
        FUZZ_CHECK(cfsr_uuid_equal(&ack.cluster, &pair.site[0].cluster) &&
                   (ack.features & ~CFSR_FEATURES_KNOWN) == 0);
    } else {
        FUZZ_CHECK(session.send_key == NULL && session.recv_key == NULL);
        FUZZ_CHECK(session.state == CFSR_SESSION_DEAD ||
                   (session.state == CFSR_SESSION_HELLO_SENT && !session.authenticated));
    }
    FUZZ_CHECK(cfsr_session_on_hello_ack(&session, frame, (uint32_t)len_bytes, &ack) < 0);
    cfsr_session_fini(&session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t fixes = fuzz_u8(&reader);
    bool is_ack = (fixes & IS_ACK) != 0;
    uint8_t *frame;

    set_up();
    if (reader.left > FRAME_BYTES)
        return 0;
    frame = fuzz_copy(reader.at, reader.left);
    if ((fixes & FIX_HEADER) != 0 && reader.left >= CFSR_LINK_HEADER_BYTES)
        fix_header(frame, reader.left, is_ack ? CFSR_FRAME_HELLO_ACK : CFSR_FRAME_HELLO);
    if (is_ack)
        at_dialer(frame, reader.left, fixes);
    else
        at_acceptor(frame, reader.left, fixes);
    free(frame);
    return 0;
}

static void add(struct fuzz_corpus *corpus, const char *name, uint8_t fixes, const uint8_t *frame,
                int len)
{
    struct fuzz_seed seed = {0};

    FUZZ_CHECK(len > 0);
    fuzz_seed_u8(&seed, fixes);
    fuzz_seed_bytes(&seed, frame, (size_t)len);
    fuzz_seed_end(&seed, corpus, name);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    static uint8_t hello[FRAME_BYTES], answer[FRAME_BYTES];
    static struct cfsr_hello_ack ack;
    uint8_t nonce[32] = {3};
    struct cfsr_session dialer, acceptor;
    int len;

    set_up();
    for (int status = 0; status <= CFSR_E_WRONG_CORE; status += CFSR_E_WRONG_CORE) {
        FUZZ_CHECK(cfsr_session_init(&dialer, &pair.local[0], true, 2, nonce) == 0);
        FUZZ_CHECK(cfsr_session_init(&acceptor, &pair.local[1], false, 0, nonce) == 0);
        len = cfsr_session_hello(&dialer, FUZZ_LANE_MASK, ends, 1, hello);
        if (status == 0) {
            add(corpus, "hello", FIX_HEADER | FIX_TAG, hello, len);
            add(corpus, "hello-stranger", FIX_HEADER, hello, len);
        }
        FUZZ_CHECK(
            cfsr_session_on_hello(&acceptor, hello, (uint32_t)len, fuzz_knows_1_and_2, NULL) == 0);
        ack = (struct cfsr_hello_ack){.status = status, .lane_mask = FUZZ_LANE_MASK};
        ack.lane[3] = (struct cfsr_hello_lane){.cursor = 4096, .last = {.lsn = 4000}};
        len = cfsr_session_hello_ack(&acceptor, &ack, answer);
        add(corpus, status == 0 ? "answer" : "refusal", IS_ACK | FIX_HEADER | FIX_TAG, answer, len);
        cfsr_session_fini(&dialer);
        cfsr_session_fini(&acceptor);
    }
}
