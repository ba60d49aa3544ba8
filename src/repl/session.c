/*
 * session.c - handshake and keys of one connection (docs/wire-format.md, "Handshake"); its frames
 * are in session_frames.c.
 *
 * Owner: the thread of the connection. No I/O, clock or randomness: nonces and times are given.
 * Invariants: nothing is believed before its tag was checked; a key exists for one direction of one
 * session only, so a recorded frame opens nowhere else; the acceptor is not ESTABLISHED before a
 * frame made with its fresh nonce arrived; sequences move only after a tag was found right, so a
 * forged frame leaves the session as it was. A HELLO is checked under the ids and cluster it names
 * itself. That proves who speaks; whether we want to talk to them is decided afterwards, and can
 * then be said in a signed answer.
 *
 * Rejected: one key for both directions with a direction byte (a forgotten check reflects frames);
 * binding HELLO to a challenge (a round trip more; the first frame under the session key proves the
 * same); counting refusals in here (the limiter needs addresses, which are the caller's).
 */
#include "repl/session.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "repl/session_internal.h"

#define LABEL_HELLO         "cfsr hello 1"
#define LABEL_FROM_DIALER   "cfsr session 1 dialer->acceptor"
#define LABEL_FROM_ACCEPTOR "cfsr session 1 acceptor->dialer"
#define LABEL_BATCH         "cfsr batch 1"

#define LABEL_SEAL_FROM_DIALER   "cfsr seal 1 dialer->acceptor"
#define LABEL_SEAL_FROM_ACCEPTOR "cfsr seal 1 acceptor->dialer"

/* HELLO and HELLO_ACK are the first frame of their direction and always of this version, so that
 * any two can read them. */
#define HANDSHAKE_LINK_SEQ 1
#define HANDSHAKE_VERSION  CFSR_WIRE_VERSION_MIN

static const uint8_t zero_tag[CFSR_TAG_LEN_BYTES];

static void drop_key(struct cfsr_mac_key **key)
{
    cfsr_mac_key_destroy(*key);
    *key = NULL;
}

static void drop_handshake_keys(struct cfsr_session *session)
{
    drop_key(&session->pair_key);
    drop_key(&session->hello_key);
}

static void drop_all_keys(struct cfsr_session *session)
{
    drop_handshake_keys(session);
    drop_key(&session->send_key);
    drop_key(&session->recv_key);
    cfsr_aead_key_destroy(session->seal_key);
    cfsr_aead_key_destroy(session->open_key);
    session->seal_key = NULL;
    session->open_key = NULL;
}

/* What this site says it can do: bodies are sealed because it wants them to be, or not at all. */
static uint64_t offered_features(const struct cfsr_session_local *local)
{
    uint64_t seal = local->seal == CFSR_SEAL_REQUIRE ? CFSR_FEATURE_SEAL : 0;
    return (local->features & ~CFSR_FEATURE_SEAL) | seal;
}

/* ---- keys ---- */

static int derive_hello_key(struct cfsr_mac_key *pair_key, const struct cfsr_hello *hello,
                            struct cfsr_mac_key **key_out)
{
    uint8_t low[8], high[8];
    cfsr_store_le64(low, cfsr_min_u64(hello->site_id, hello->peer_site_id));
    cfsr_store_le64(high, cfsr_max_u64(hello->site_id, hello->peer_site_id));
    const struct cfsr_mac_part parts[] = {
        {hello->cluster.bytes, sizeof hello->cluster.bytes},
        {low, sizeof low},
        {high, sizeof high},
    };
    return cfsr_mac_key_derive(pair_key, LABEL_HELLO, parts, CFSR_ARRAY_LEN(parts), key_out);
}

/* C of the key table: what all keys of one session are bound to. */
struct session_context {
    uint8_t dialer_id[8], acceptor_id[8];
    struct cfsr_mac_part part[6];
};

static void session_context_fill(const struct cfsr_session *session,
                                 struct session_context *context)
{
    const struct cfsr_hello *hello = &session->hello;
    const uint8_t *acceptor_nonce = session->dialer ? session->nonce_peer : session->nonce_local;
    cfsr_store_le64(context->dialer_id, hello->site_id);
    cfsr_store_le64(context->acceptor_id, hello->peer_site_id);
    const struct cfsr_mac_part parts[] = {
        {hello->cluster.bytes, sizeof hello->cluster.bytes},
        {context->dialer_id, sizeof context->dialer_id},
        {context->acceptor_id, sizeof context->acceptor_id},
        {hello->nonce, sizeof hello->nonce},
        {acceptor_nonce, sizeof session->nonce_local},
        {hello->session_id, sizeof hello->session_id},
    };
    _Static_assert(sizeof parts == sizeof context->part, "all of C");
    memcpy(context->part, parts, sizeof parts);
}

static int derive_direction_key(const struct cfsr_session *session, const char *label,
                                struct cfsr_mac_key **key_out)
{
    struct session_context context;
    session_context_fill(session, &context);
    return cfsr_mac_key_derive(session->pair_key, label, context.part, CFSR_ARRAY_LEN(context.part),
                               key_out);
}

/* Both session keys, or none. */
static int derive_session_keys(struct cfsr_session *session)
{
    struct cfsr_mac_key *from_dialer = NULL, *from_acceptor = NULL;
    int rc = derive_direction_key(session, LABEL_FROM_DIALER, &from_dialer);
    if (rc < 0)
        return rc;
    rc = derive_direction_key(session, LABEL_FROM_ACCEPTOR, &from_acceptor);
    if (rc < 0) {
        cfsr_mac_key_destroy(from_dialer);
        return rc;
    }
    session->send_key = session->dialer ? from_dialer : from_acceptor;
    session->recv_key = session->dialer ? from_acceptor : from_dialer;
    return 0;
}

/* Both seal keys, where sealing was agreed on: an acceptor's before it answers, a dialer's before
 * it takes the answer. */
static int derive_seal_keys(struct cfsr_session *session)
{
    struct session_context context;
    if ((session->features & CFSR_FEATURE_SEAL) == 0)
        return 0;
    session_context_fill(session, &context);
    int rc = cfsr_aead_key_derive(session->pair_key, CFSR_AEAD_SEALS,
                                  session->dialer ? LABEL_SEAL_FROM_DIALER
                                                  : LABEL_SEAL_FROM_ACCEPTOR,
                                  context.part, CFSR_ARRAY_LEN(context.part), &session->seal_key);
    if (rc < 0)
        return rc;
    return cfsr_aead_key_derive(session->pair_key, CFSR_AEAD_OPENS,
                                session->dialer ? LABEL_SEAL_FROM_ACCEPTOR : LABEL_SEAL_FROM_DIALER,
                                context.part, CFSR_ARRAY_LEN(context.part), &session->open_key);
}

int cfsr_session_batch_key(const struct cfsr_keyring *keyring, uint32_t key_id,
                           const struct cfsr_uuid *cluster, uint64_t origin, uint64_t destination,
                           struct cfsr_mac_key **key_out)
{
    struct cfsr_mac_key *pair_key = NULL;
    int rc = cfsr_keyring_open_key(keyring, key_id, origin, destination, &pair_key);
    if (rc < 0)
        return rc;
    uint8_t from[8], to[8];
    cfsr_store_le64(from, origin);
    cfsr_store_le64(to, destination);
    const struct cfsr_mac_part parts[] = {
        {cluster->bytes, sizeof cluster->bytes},
        {from, sizeof from},
        {to, sizeof to},
    };
    rc = cfsr_mac_key_derive(pair_key, LABEL_BATCH, parts, CFSR_ARRAY_LEN(parts), key_out);
    cfsr_mac_key_destroy(pair_key);
    return rc;
}

/* ---- set-up ---- */

int cfsr_session_init(struct cfsr_session *session, const struct cfsr_session_local *local,
                      bool dialer, uint64_t peer_site_id, const uint8_t nonce[32])
{
    if (dialer && (peer_site_id == 0 || peer_site_id == local->site->site_id))
        return cfsr_fail(
            -CFSR_E_CONFIG, "site %llu cannot dial site %llu: name another site as peer",
            (unsigned long long)local->site->site_id, (unsigned long long)peer_site_id);
    *session = (struct cfsr_session){
        .state = CFSR_SESSION_IDLE,
        .dialer = dialer,
        .local = local,
        .peer_site_id = dialer ? peer_site_id : 0,
        .next_send_seq = HANDSHAKE_LINK_SEQ,
        .next_recv_seq = HANDSHAKE_LINK_SEQ,
        .next_send_data = 1,
        .next_recv_data = 1,
        .next_send_batch = 1,
        .next_recv_batch = 1,
        .version = HANDSHAKE_VERSION,
    };
    memcpy(session->nonce_local, nonce, sizeof session->nonce_local);
    return 0;
}

void cfsr_session_fini(struct cfsr_session *session)
{
    drop_all_keys(session);
    cfsr_wipe(session, sizeof *session);
    session->state = CFSR_SESSION_DEAD;
}

/* Header and zero tag of a handshake frame. */
static int begin_handshake_frame(struct cfsr_session *session, enum cfsr_frame_type type,
                                 uint32_t payload_bytes, uint8_t *frame)
{
    const struct cfsr_link_header header = {
        .version = HANDSHAKE_VERSION,
        .type = (uint8_t)type,
        .length_bytes = payload_bytes,
        .link_seq = session->next_send_seq,
    };
    session->next_send_seq++;
    cfsr_link_header_store(&header, frame);
    return (int)(CFSR_LINK_HEADER_BYTES + payload_bytes);
}

static int load_handshake_frame(const uint8_t *frame, uint32_t len_bytes, enum cfsr_frame_type type,
                                struct cfsr_link_header *header_out)
{
    if (len_bytes < CFSR_LINK_HEADER_BYTES)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "handshake frame of %u bytes", len_bytes);
    struct cfsr_link_header header;
    int rc = cfsr_link_header_load(frame, &header);
    if (rc < 0)
        return rc;
    if (header.type != type || header.link_seq != HANDSHAKE_LINK_SEQ || header.flags != 0 ||
        header.version != HANDSHAKE_VERSION ||
        header.length_bytes != len_bytes - CFSR_LINK_HEADER_BYTES)
        return cfsr_fail(-CFSR_E_BAD_FRAME,
                         "handshake awaits frame type %d, got type %u, version %u, sequence %llu, "
                         "%u of %u bytes",
                         (int)type, header.type, header.version,
                         (unsigned long long)header.link_seq, len_bytes - CFSR_LINK_HEADER_BYTES,
                         header.length_bytes);
    *header_out = header;
    return 0;
}

/* ---- dialer: HELLO ---- */

static uint64_t mask_of_lanes(uint32_t lanes)
{
    return lanes >= 64 ? UINT64_MAX : (1ull << lanes) - 1;
}

static void fill_hello(struct cfsr_session *session, uint32_t key_id, uint64_t lane_mask,
                       const uint64_t *lane_end, uint64_t wall_us)
{
    const struct cfsr_session_local *local = session->local;
    const struct cfsr_site *site = local->site;
    struct cfsr_hello *hello = &session->hello;
    *hello = (struct cfsr_hello){
        .version_min = CFSR_WIRE_VERSION_MIN,
        .version_max = CFSR_WIRE_VERSION,
        .features = offered_features(local),
        .cluster = site->cluster,
        .site_id = site->site_id,
        .peer_site_id = session->peer_site_id,
        .lanes = site->lanes,
        .shards = site->shards,
        .segment_bytes = site->segment_bytes,
        .journal = site->journal,
        .lane_mask = lane_mask,
        .core = local->core,
        .cores = local->cores,
        .key_id = key_id,
        .wall_us = wall_us,
        .epoch = local->epoch,
    };
    memcpy(hello->site_name, site->name, sizeof hello->site_name);
    memcpy(hello->nonce, session->nonce_local, sizeof hello->nonce);
    memcpy(hello->session_id, local->session_id, sizeof hello->session_id);
    for (unsigned lane = 0; lane < site->lanes; lane++) {
        if ((lane_mask & (1ull << lane)) != 0)
            hello->lane_end[lane] = lane_end[lane];
    }
}

int cfsr_session_hello(struct cfsr_session *session, uint64_t lane_mask, const uint64_t *lane_end,
                       uint64_t wall_us, void *frame_out)
{
    const struct cfsr_session_local *local = session->local;
    const struct cfsr_site *site = local->site;
    CFSR_ASSERT(session->dialer && session->state == CFSR_SESSION_IDLE);
    CFSR_ASSERT(lane_mask != 0 && (lane_mask & ~mask_of_lanes(site->lanes)) == 0);
    uint32_t key_id = cfsr_keyring_signing_key(local->keyring, site->site_id,
                                               session->peer_site_id);
    if (key_id == 0)
        return cfsr_fail(
            -CFSR_E_BAD_KEY, "no key for sites %llu and %llu: add one to the key file of both",
            (unsigned long long)site->site_id, (unsigned long long)session->peer_site_id);
    int rc = cfsr_keyring_open_key(local->keyring, key_id, site->site_id, session->peer_site_id,
                                   &session->pair_key);
    if (rc < 0)
        return rc;
    fill_hello(session, key_id, lane_mask, lane_end, wall_us);
    rc = derive_hello_key(session->pair_key, &session->hello, &session->hello_key);
    if (rc < 0) {
        drop_all_keys(session);
        return rc;
    }
    session->key_id = key_id;
    uint8_t *frame = frame_out;
    uint32_t payload_bytes = cfsr_hello_store(&session->hello, frame + CFSR_LINK_HEADER_BYTES);
    int len = begin_handshake_frame(session, CFSR_FRAME_HELLO, payload_bytes, frame);
    cfsr_session_sign(session->hello_key, frame, frame + CFSR_LINK_HEADER_BYTES, payload_bytes);
    session->state = CFSR_SESSION_HELLO_SENT;
    return len;
}

/* ---- acceptor: HELLO ---- */

/* Refuses, with words for our log that the peer may read as well once it is authenticated. */
static int __attribute__((format(printf, 3, 4), cold))
refuse(struct cfsr_session *session, int rc, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(session->refusal, sizeof session->refusal, fmt, args);
    va_end(args);
    return cfsr_fail(rc, "%s", session->refusal);
}

/* Does the sender of HELLO hold the key of the pair it names? Makes the session keys if so. */
static int authenticate_hello(struct cfsr_session *session, const uint8_t *frame,
                              const struct cfsr_link_header *header)
{
    const struct cfsr_hello *hello = &session->hello;
    int rc = cfsr_keyring_open_key(session->local->keyring, hello->key_id, hello->site_id,
                                   hello->peer_site_id, &session->pair_key);
    if (rc < 0)
        return rc;
    rc = derive_hello_key(session->pair_key, hello, &session->hello_key);
    if (rc < 0)
        return rc;
    if (!cfsr_session_tag_is_right(session->hello_key, frame, header))
        return -CFSR_E_BAD_KEY;
    rc = derive_session_keys(session);
    if (rc < 0)
        return rc;
    memcpy(session->nonce_peer, hello->nonce, sizeof session->nonce_peer);
    session->key_id = hello->key_id;
    session->authenticated = true;
    return 0;
}

/* The best guess why the tag is wrong, from what HELLO claims. Worth naming to an operator; proves
 * nothing. */
static int explain_bad_key(struct cfsr_session *session,
                           bool (*is_known)(void *user, uint64_t site_id), void *user)
{
    const struct cfsr_hello *hello = &session->hello;
    const struct cfsr_site *site = session->local->site;
    unsigned long long from = hello->site_id, to = hello->peer_site_id;
    if (!cfsr_uuid_equal(&hello->cluster, &site->cluster))
        return refuse(session, -CFSR_E_WRONG_CLUSTER,
                      "HELLO of a site %llu of another cluster, with a wrong key", from);
    if (hello->site_id == site->site_id)
        return refuse(session, -CFSR_E_DUPLICATE_SITE,
                      "HELLO claims our own site id %llu, with a wrong key", from);
    if (hello->peer_site_id != site->site_id)
        return refuse(session, -CFSR_E_WRONG_SITE,
                      "HELLO of site %llu is for site %llu, with a wrong key", from, to);
    if (!is_known(user, hello->site_id))
        return refuse(session, -CFSR_E_UNKNOWN_SITE, "HELLO of unknown site %llu, with a wrong key",
                      from);
    return refuse(session, -CFSR_E_BAD_KEY,
                  "HELLO claims site %llu with key %u: unknown for the pair, or wrong tag", from,
                  hello->key_id);
}

static int check_identity(struct cfsr_session *session,
                          bool (*is_known)(void *user, uint64_t site_id), void *user)
{
    const struct cfsr_hello *hello = &session->hello;
    const struct cfsr_site *site = session->local->site;
    unsigned long long from = hello->site_id, to = hello->peer_site_id;
    if (!cfsr_uuid_equal(&hello->cluster, &site->cluster)) {
        char theirs[CFSR_UUID_TEXT_LEN], ours[CFSR_UUID_TEXT_LEN];
        cfsr_uuid_format(&hello->cluster, theirs);
        cfsr_uuid_format(&site->cluster, ours);
        return refuse(session, -CFSR_E_WRONG_CLUSTER, "site %llu is of cluster %s, we of %s", from,
                      theirs, ours);
    }
    if (hello->site_id == site->site_id)
        return refuse(session, -CFSR_E_DUPLICATE_SITE, "site id %llu is in use by two sites", from);
    if (hello->peer_site_id != site->site_id)
        return refuse(session, -CFSR_E_WRONG_SITE,
                      "site %llu called site %llu, but this is site %llu", from, to,
                      (unsigned long long)site->site_id);
    if (!is_known(user, hello->site_id))
        return refuse(session, -CFSR_E_UNKNOWN_SITE, "site %llu is not configured at site %llu",
                      from, to);
    return 0;
}

static int check_terms(struct cfsr_session *session)
{
    const struct cfsr_hello *hello = &session->hello;
    const struct cfsr_site *site = session->local->site;
    if (hello->version_min > hello->version_max || hello->version_min > CFSR_WIRE_VERSION ||
        hello->version_max < CFSR_WIRE_VERSION_MIN)
        return refuse(session, -CFSR_E_VERSION,
                      "site %llu speaks protocol versions %u to %u, we %d to %d",
                      (unsigned long long)hello->site_id, hello->version_min, hello->version_max,
                      CFSR_WIRE_VERSION_MIN, CFSR_WIRE_VERSION);
    if (hello->lanes != site->lanes || hello->shards != site->shards ||
        hello->segment_bytes != site->segment_bytes)
        return refuse(session, -CFSR_E_LANES_DIFFER,
                      "site %llu has %u lanes, %u shards, segments of %llu, we %u, %u, %llu",
                      (unsigned long long)hello->site_id, hello->lanes, hello->shards,
                      (unsigned long long)hello->segment_bytes, site->lanes, site->shards,
                      (unsigned long long)site->segment_bytes);
    if (hello->lane_mask == 0 || (hello->lane_mask & ~mask_of_lanes(site->lanes)) != 0)
        return refuse(session, -CFSR_E_BAD_FRAME, "HELLO names lanes %#llx of %u",
                      (unsigned long long)hello->lane_mask, site->lanes);
    if (hello->core >= hello->cores)
        return refuse(session, -CFSR_E_BAD_FRAME, "HELLO names core %u of %u", hello->core,
                      hello->cores);
    if (cfsr_uuid_is_zero(&hello->journal))
        return refuse(session, -CFSR_E_BAD_FRAME, "HELLO names no journal");
    if (session->local->seal == CFSR_SEAL_REQUIRE && (hello->features & CFSR_FEATURE_SEAL) == 0)
        return refuse(session, -CFSR_E_SEAL_REQUIRED,
                      "site %llu does not seal bodies, site %llu requires it: set --seal of both",
                      (unsigned long long)hello->site_id, (unsigned long long)site->site_id);
    return 0;
}

int cfsr_session_on_hello(struct cfsr_session *session, const void *frame, uint32_t len_bytes,
                          bool (*is_known)(void *user, uint64_t site_id), void *user)
{
    if (session->dialer || session->state != CFSR_SESSION_IDLE || session->refused != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "HELLO on a connection that had its handshake");
    struct cfsr_link_header header;
    int rc = load_handshake_frame(frame, len_bytes, CFSR_FRAME_HELLO, &header);
    if (rc < 0)
        goto refused;
    rc = cfsr_hello_load((const uint8_t *)frame + CFSR_LINK_HEADER_BYTES, header.length_bytes,
                         &session->hello);
    if (rc < 0)
        goto refused;
    rc = authenticate_hello(session, frame, &header);
    if (rc == -CFSR_E_BAD_KEY)
        rc = explain_bad_key(session, is_known, user);
    if (rc < 0)
        goto refused;
    rc = check_identity(session, is_known, user);
    if (rc < 0)
        goto refused;
    rc = check_terms(session);
    if (rc < 0)
        goto refused;
    session->features = offered_features(session->local) & session->hello.features;
    rc = derive_seal_keys(session);
    if (rc < 0)
        goto refused;
    drop_handshake_keys(session);
    session->next_recv_seq = HANDSHAKE_LINK_SEQ + 1;
    session->peer_site_id = session->hello.site_id;
    session->version = session->hello.version_max < CFSR_WIRE_VERSION ? session->hello.version_max
                                                                      : CFSR_WIRE_VERSION;
    return 0;

refused:
    session->refused = rc;
    drop_handshake_keys(session);
    return rc;
}

/* ---- HELLO_ACK ---- */

/* Reasons a dialer may be told by somebody who proved nothing. None of them may do more than name
 * itself and wait. */
static bool is_hint(int32_t status)
{
    switch (status) {
    case CFSR_E_BAD_KEY:
    case CFSR_E_WRONG_CLUSTER:
    case CFSR_E_UNKNOWN_SITE:
    case CFSR_E_DUPLICATE_SITE:
    case CFSR_E_WRONG_SITE:
    case CFSR_E_VERSION:
    case CFSR_E_BAD_FRAME:
    case CFSR_E_TOO_LARGE:
    case CFSR_E_FAILED:
    case CFSR_E_POOL_EMPTY:
    case CFSR_E_SHUTDOWN:
    case CFSR_E_BACKPRESSURE: return true;
    default: return false;
    }
}

/* An answer to somebody who proved nothing: the reason, and nothing about us. */
static void make_hint(struct cfsr_hello_ack *ack)
{
    int32_t status = is_hint(ack->status) ? ack->status : CFSR_E_FAILED;
    *ack = (struct cfsr_hello_ack){.version = HANDSHAKE_VERSION, .status = status};
    (void)snprintf(ack->detail, sizeof ack->detail, "%s", cfsr_strerror(-status));
}

static void fill_hello_ack(const struct cfsr_session *session, struct cfsr_hello_ack *ack)
{
    const struct cfsr_session_local *local = session->local;
    ack->version = session->version;
    ack->features = session->features;
    ack->cluster = local->site->cluster;
    ack->site_id = local->site->site_id;
    memcpy(ack->site_name, local->site->name, sizeof ack->site_name);
    ack->journal = local->site->journal;
    ack->core = local->core;
    ack->cores = local->cores;
    ack->epoch = local->epoch;
    memcpy(ack->nonce, session->nonce_local, sizeof ack->nonce);
    if (ack->status != 0 && ack->detail[0] == '\0') {
        const char *why = session->refusal[0] != '\0' ? session->refusal
                                                      : cfsr_strerror(-ack->status);
        (void)snprintf(ack->detail, sizeof ack->detail, "%s", why);
    }
}

int cfsr_session_hello_ack(struct cfsr_session *session, struct cfsr_hello_ack *ack,
                           void *frame_out)
{
    CFSR_ASSERT(!session->dialer && session->state == CFSR_SESSION_IDLE);
    if (session->refused != 0 && ack->status == 0)
        ack->status = -session->refused;
    if (!session->authenticated) {
        CFSR_ASSERT(ack->status != 0);
        make_hint(ack);
    } else {
        fill_hello_ack(session, ack);
        CFSR_ASSERT(ack->status != 0 || (ack->lane_mask & ~session->hello.lane_mask) == 0);
    }
    uint8_t *frame = frame_out;
    uint32_t payload_bytes = cfsr_hello_ack_store(ack, frame + CFSR_LINK_HEADER_BYTES);
    int len = begin_handshake_frame(session, CFSR_FRAME_HELLO_ACK, payload_bytes, frame);
    if (session->authenticated)
        cfsr_session_sign(session->send_key, frame, frame + CFSR_LINK_HEADER_BYTES, payload_bytes);
    if (ack->status == 0) {
        session->state = CFSR_SESSION_ANSWERED;
    } else {
        drop_all_keys(session);
        session->state = CFSR_SESSION_DEAD;
    }
    return len;
}

/* The peer is who we called and agrees to what we asked for. */
static int check_answer(const struct cfsr_session *session, const struct cfsr_hello_ack *ack)
{
    const struct cfsr_hello *hello = &session->hello;
    unsigned long long peer = session->peer_site_id;
    if (!cfsr_uuid_equal(&ack->cluster, &hello->cluster))
        return cfsr_fail(-CFSR_E_WRONG_CLUSTER, "site %llu belongs to another cluster", peer);
    if (ack->site_id != session->peer_site_id)
        return cfsr_fail(-CFSR_E_WRONG_SITE,
                         "called site %llu and reached site %llu: check the endpoint", peer,
                         (unsigned long long)ack->site_id);
    if (ack->version < hello->version_min || ack->version > hello->version_max)
        return cfsr_fail(-CFSR_E_VERSION,
                         "site %llu chose protocol version %u, not one of %u to %u", peer,
                         ack->version, hello->version_min, hello->version_max);
    if (ack->lane_mask == 0 || (ack->lane_mask & ~hello->lane_mask) != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "site %llu accepted lanes %#llx of %#llx", peer,
                         (unsigned long long)ack->lane_mask, (unsigned long long)hello->lane_mask);
    if (ack->core >= ack->cores || (ack->features & ~hello->features) != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME,
                         "site %llu answered with core %u of %u, features %#llx of %#llx", peer,
                         ack->core, ack->cores, (unsigned long long)ack->features,
                         (unsigned long long)hello->features);
    if (session->local->seal == CFSR_SEAL_REQUIRE && (ack->features & CFSR_FEATURE_SEAL) == 0)
        return cfsr_fail(
            -CFSR_E_SEAL_REQUIRED,
            "site %llu does not seal bodies, this site requires it: set --seal of both", peer);
    return 0;
}

/* The answer of somebody who proved nothing can only be a refusal of a harmless kind. */
static int take_hint(struct cfsr_session *session, const struct cfsr_hello_ack *ack,
                     struct cfsr_hello_ack *ack_out)
{
    if (!is_hint(ack->status))
        return cfsr_fail(-CFSR_E_BAD_LINK_TAG, "HELLO_ACK without a tag and status %d",
                         ack->status);
    *ack_out = *ack;
    session->state = CFSR_SESSION_DEAD;
    drop_all_keys(session);
    return cfsr_fail(-ack->status, "site %llu (unproven) refused the connection: %s",
                     (unsigned long long)session->peer_site_id, ack->detail);
}

static int take_answer(struct cfsr_session *session, const struct cfsr_hello_ack *ack,
                       struct cfsr_hello_ack *ack_out)
{
    int rc;
    if (ack->status != 0) {
        *ack_out = *ack;
        rc = cfsr_fail(-ack->status, "site %llu refused the connection: %s",
                       (unsigned long long)session->peer_site_id, ack->detail);
    } else {
        rc = check_answer(session, ack);
    }
    if (rc == 0) {
        session->features = ack->features;
        rc = derive_seal_keys(session);
    }
    if (rc < 0) {
        session->state = CFSR_SESSION_DEAD;
        drop_all_keys(session);
        return rc;
    }
    drop_handshake_keys(session);
    session->version = ack->version;
    session->next_recv_seq = HANDSHAKE_LINK_SEQ + 1;
    session->state = CFSR_SESSION_ESTABLISHED;
    *ack_out = *ack;
    return 0;
}

int cfsr_session_on_hello_ack(struct cfsr_session *session, const void *frame, uint32_t len_bytes,
                              struct cfsr_hello_ack *ack_out)
{
    *ack_out = (struct cfsr_hello_ack){0};
    if (!session->dialer || session->state != CFSR_SESSION_HELLO_SENT)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "HELLO_ACK that answers no HELLO");
    struct cfsr_link_header header;
    int rc = load_handshake_frame(frame, len_bytes, CFSR_FRAME_HELLO_ACK, &header);
    if (rc < 0)
        return rc;
    struct cfsr_hello_ack ack;
    rc = cfsr_hello_ack_load((const uint8_t *)frame + CFSR_LINK_HEADER_BYTES, header.length_bytes,
                             &ack);
    if (rc < 0)
        return rc;
    if (memcmp(header.tag, zero_tag, sizeof zero_tag) == 0)
        return take_hint(session, &ack, ack_out);
    memcpy(session->nonce_peer, ack.nonce, sizeof session->nonce_peer);
    rc = derive_session_keys(session);
    if (rc < 0)
        return rc;
    if (!cfsr_session_tag_is_right(session->recv_key, frame, &header)) {
        drop_key(&session->send_key);
        drop_key(&session->recv_key);
        return cfsr_fail(-CFSR_E_BAD_LINK_TAG,
                         "HELLO_ACK of site %llu is not signed with the pair's key %u",
                         (unsigned long long)session->peer_site_id, session->key_id);
    }
    session->authenticated = true;
    return take_answer(session, &ack, ack_out);
}
