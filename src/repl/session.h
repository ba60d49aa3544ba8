/*
 * session.h - one connection's identity and keys: the handshake and the link tags. No I/O, no
 * clock, no randomness.
 *
 * Dialer:   session_init → hello() → [peer's HELLO_ACK] on_hello_ack() → ESTABLISHED
 * Acceptor: session_init → [peer's HELLO] on_hello() → the caller fills lanes → hello_ack()
 *           → ESTABLISHED at the first frame that opens under the session key (a recorded HELLO
 *           must not unseat a living connection: the caller takes over only then).
 *
 * Keys (derive is cfsr_mac_key_derive(); cluster and ids as HELLO names them, ids as u64):
 *
 *   hello key   = derive(pair key, "cfsr hello 1", cluster ‖ lower site id ‖ higher site id)
 *   session key = derive(pair key, "cfsr session 1 dialer->acceptor", C) and
 *                 derive(pair key, "cfsr session 1 acceptor->dialer", C), with C = cluster ‖
 *                 dialer id ‖ acceptor id ‖ dialer nonce ‖ acceptor nonce ‖ session id
 *   seal key    = derive(pair key, "cfsr seal 1 dialer->acceptor", C) and
 *                 derive(pair key, "cfsr seal 1 acceptor->dialer", C): AES-256-GCM, where bodies
 *                 are sealed
 *   batch key   = derive(pair key, "cfsr batch 1", cluster ‖ origin id ‖ destination id);
 *                 outlives sessions, as the tag rests in the inbox
 *
 * A HELLO that cannot be authenticated, or that must be refused, is answered by a HELLO_ACK with a
 * status. If HELLO proved the pair's key the refusal is signed with the session key; otherwise its
 * tag is zero, it says nothing about the acceptor but the status, and the dialer takes it as a
 * hint: it names the reason in its log and backs off.
 *
 * Nothing that arrives before its tag was checked changes a session, except that a HELLO or
 * HELLO_ACK uses up the handshake when it is refused. Keys are made in the handshake only; sealing
 * and opening frames allocate nothing. One session belongs to one connection and to its thread.
 */
#ifndef CFSR_REPL_SESSION_H
#define CFSR_REPL_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "repl/wire.h"
#include "security/aead.h"
#include "security/keyring.h"

/* Whether bodies travel sealed; both sites must want the same, neither gives in. */
enum cfsr_seal {
    CFSR_SEAL_OFF,
    CFSR_SEAL_REQUIRE,
};

enum cfsr_session_state {
    CFSR_SESSION_IDLE,       /* nothing exchanged */
    CFSR_SESSION_HELLO_SENT, /* dialer: waiting for HELLO_ACK */
    CFSR_SESSION_ANSWERED, /* acceptor: HELLO_ACK sent, first frame under the session key awaited */
    CFSR_SESSION_ESTABLISHED, /* both sides proved the key in this session */
    CFSR_SESSION_DEAD,        /* refused or broken */
};

/* What this site is; borrowed for the session's life. */
struct cfsr_session_local {
    const struct cfsr_site *site;
    const struct cfsr_keyring *keyring;
    uint64_t features;   /* CFSR_FEATURE_SEAL is not read here: seal says it */
    enum cfsr_seal seal; /* REQUIRE: offered, and a peer that does not offer it is refused */
    uint32_t core, cores;
    uint64_t epoch;
    uint8_t session_id[16];
};

struct cfsr_session {
    enum cfsr_session_state state;
    bool dialer;
    const struct cfsr_session_local *local;
    uint64_t peer_site_id; /* dialer: whom we call; acceptor: authenticated by HELLO */
    uint32_t key_id;
    uint8_t nonce_local[32], nonce_peer[32];
    struct cfsr_mac_key *pair_key, *hello_key; /* during the handshake only */
    struct cfsr_mac_key *send_key, *recv_key;
    struct cfsr_aead_key *seal_key, *open_key; /* NULL: bodies travel as they are */
    uint64_t sealed_seq;                       /* nonce of the last body sealed */
    uint64_t next_send_seq, next_recv_seq;
    uint64_t next_send_data, next_recv_data;   /* link sequence of BATCH and REPLY */
    uint64_t next_send_batch, next_recv_batch; /* batch sequence */
    struct cfsr_hello hello;                   /* sent (dialer) or received (acceptor) */
    uint16_t version;                          /* agreed; of all frames after the handshake */
    uint64_t features;                         /* agreed: known to both sides */
    bool authenticated; /* the peer's HELLO or HELLO_ACK proved the pair's key; false beside a
                           refusal: only a hint */
    int refused;        /* acceptor: what on_hello() refused with, 0 if nothing */
    char refusal[128];  /* acceptor: the same in words the peer may read */
};

/*
 * nonce: 32 fresh random bytes given by the driver. peer_site_id: dialer only (0 for the acceptor).
 * -CFSR_E_CONFIG if the dialer would call nobody or itself.
 */
int cfsr_session_init(struct cfsr_session *session, const struct cfsr_session_local *local,
                      bool dialer, uint64_t peer_site_id, const uint8_t nonce[32]);
void cfsr_session_fini(struct cfsr_session *session); /* wipes keys; twice is fine */

/*
 * Dialer: writes the whole HELLO frame and returns its length, or -CFSR_E_BAD_KEY (no key for the
 * pair). lane_end is indexed by lane, read for the lanes in the mask. frame_out:
 * CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES.
 */
int cfsr_session_hello(struct cfsr_session *session, uint64_t lane_mask, const uint64_t *lane_end,
                       uint64_t wall_us, void *frame_out);
/*
 * Acceptor: checks a HELLO frame: key and tag first, then cluster, identities (unknown site by
 * `is_known`, our own id, wrong callee), versions, lanes and shards and segment size, lane mask,
 * cores. 0, or the -CFSR_E_* to refuse with (message in cfsr_error_message()).
 */
int cfsr_session_on_hello(struct cfsr_session *session, const void *frame, uint32_t len_bytes,
                          bool (*is_known)(void *user, uint64_t site_id), void *user);
/*
 * Acceptor: writes the HELLO_ACK frame (frame_out as above) and returns its length; ack->status !=
 * 0 refuses (session DEAD), and so does an earlier refusal by on_hello(). The caller gives status,
 * known journal, lane mask, lanes, wall_us and, if it has better words than on_hello()'s, detail;
 * identity, nonce, version, features, core map and epoch are filled in.
 */
int cfsr_session_hello_ack(struct cfsr_session *session, struct cfsr_hello_ack *ack,
                           void *frame_out);
/*
 * Dialer: checks HELLO_ACK. 0 and *ack_out; or -CFSR_E_*: the peer's refusal (ack_out->status and
 * detail filled; read session->authenticated before acting on it) or our own refusal of it
 * (ack_out->status is 0).
 */
int cfsr_session_on_hello_ack(struct cfsr_session *session, const void *frame, uint32_t len_bytes,
                              struct cfsr_hello_ack *ack_out);

/* Whether bodies of BATCH and REPLY travel encrypted in this session. */
static inline bool cfsr_session_seals(const struct cfsr_session *session)
{
    return session->seal_key != NULL;
}

/*
 * Sealing needs the session keys: an established dialer, an acceptor that has answered.
 * Seals a non-BATCH frame in place: frame points at link header space followed by the payload;
 * fills the header and the tag. Returns the frame's length.
 */
uint32_t cfsr_session_seal(struct cfsr_session *session, enum cfsr_frame_type type, uint16_t flags,
                           void *frame, uint32_t payload_bytes);
/* Seals a REPLY in place, as seal() does, in the data stream. Where bodies are sealed it encrypts
 * the body in place and adds CFSR_SEAL_TAG_BYTES behind it: there must be room. */
uint32_t cfsr_session_seal_reply(struct cfsr_session *session, void *frame, uint32_t payload_bytes);
/* Seals a BATCH whose body travels as it is: writes only the 64-byte link header; batch_tag is
 * bytes 160–191 of the signed prefix; length = prefix + extension + body. */
void cfsr_session_seal_batch(struct cfsr_session *session, uint16_t flags,
                             const uint8_t batch_tag[CFSR_TAG_LEN_BYTES], uint32_t length_bytes,
                             void *link_header_out);
/*
 * Seals a BATCH where bodies are sealed: head (head_bytes) is link header space, the signed prefix
 * and the extension; body stays as it is, sealed_out (body_bytes + CFSR_SEAL_TAG_BYTES, elsewhere)
 * gets what follows head on the wire. Returns the length of that.
 */
uint32_t cfsr_session_seal_batch_body(struct cfsr_session *session, uint16_t flags, void *head,
                                      uint32_t head_bytes, const void *body, uint32_t body_bytes,
                                      void *sealed_out);
/*
 * Opens a received frame whose header is loaded: link sequence, then link tag (BATCH: over the
 * batch tag inside its prefix; needs the first 256 bytes of the frame only), batch sequence. An
 * acceptor in ANSWERED becomes ESTABLISHED. A frame that is refused changes nothing; the caller
 * ends the connection. -CFSR_E_BAD_LINK_TAG, -CFSR_E_REPLAYED, -CFSR_E_BAD_FRAME (type not legal in
 * this state or direction). header must be what cfsr_link_header_load() read from frame's first 64
 * bytes.
 */
int cfsr_session_open(struct cfsr_session *session, const struct cfsr_link_header *header,
                      const void *frame);
/*
 * What follows open(), with the whole frame there: opens the body of a BATCH or REPLY in place
 * where bodies are sealed, and header->length_bytes is then that of the frame without sealing; does
 * nothing for others. Nothing behind the link header may be believed before. -CFSR_E_BAD_LINK_TAG
 * (the body is wiped), -CFSR_E_BAD_FRAME; the caller ends the connection.
 */
int cfsr_session_open_body(struct cfsr_session *session, struct cfsr_link_header *header,
                           void *frame);

/* Key that signs batches of origin for destination, derived from the pair's key. Owned by the
 * caller. */
int cfsr_session_batch_key(const struct cfsr_keyring *keyring, uint32_t key_id,
                           const struct cfsr_uuid *cluster, uint64_t origin, uint64_t destination,
                           struct cfsr_mac_key **key_out);

#endif
