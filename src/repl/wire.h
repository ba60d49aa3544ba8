/*
 * wire.h - frames between two sites (docs/wire-format.md is the full specification).
 *
 * A frame is a 64-byte link header and `length` bytes after it. For BATCH these are the 192-byte
 * batch prefix, its extension and the body exactly as they rest in the inbox; the link header
 * stands where the inbox puts its 64-byte local header.
 *
 *     0  4  magic "CFR1" (0x31524643)
 *     4  1  version (1)
 *     5  1  type
 *     6  2  flags (1 = ACK_NOW: the sender has nothing more gathered)
 *     8  4  length: bytes after this header
 *    12  4  reserved, 0
 *    16  8  link sequence: 1, 2, … per direction and stream (BATCH and REPLY; all others)
 *    24  8  batch sequence: 1, 2, … per connection for BATCH; 0 otherwise
 *    32 32  link tag
 *
 * Where sealing is agreed on, the body of a BATCH or REPLY is encrypted and CFSR_SEAL_TAG_BYTES
 * longer on the wire; length counts them.
 *
 * link tag = HMAC-SHA256(session key of this direction, bytes 0–31 ‖ P), P = the batch tag (prefix
 * bytes 160–191) for BATCH, else the payload. HELLO's tag is made with the pair's hello key,
 * HELLO_ACK's and all later ones with the session keys.
 */
#ifndef CFSR_REPL_WIRE_H
#define CFSR_REPL_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"
#include "journal/record.h"
#include "journal/site.h"
#include "pipeline/batch.h"

#define CFSR_FRAME_MAGIC       0x31524643u
#define CFSR_WIRE_VERSION      1
#define CFSR_WIRE_VERSION_MIN  1
#define CFSR_LINK_HEADER_BYTES 64
#define CFSR_LINK_SIGNED_BYTES 32
#define CFSR_CONTROL_MAX_BYTES 8192 /* payload of every frame that is not BATCH */
#define CFSR_FRAME_MAX_BYTES                                                       \
    (CFSR_LINK_HEADER_BYTES + CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_EXTENSION_MAX + \
     CFSR_BATCH_BODY_MAX_BYTES)

enum cfsr_frame_type {
    CFSR_FRAME_HELLO = 1,
    CFSR_FRAME_HELLO_ACK = 2,
    CFSR_FRAME_BATCH = 3,
    CFSR_FRAME_ACK = 4,
    CFSR_FRAME_HEARTBEAT = 5,
    CFSR_FRAME_CREDIT = 6,   /* reserved for RDMA */
    CFSR_FRAME_CATCHUP = 7,  /* reserved */
    CFSR_FRAME_SNAPSHOT = 8, /* reserved */
    CFSR_FRAME_FENCE = 9,    /* reserved */
    CFSR_FRAME_QUERY = 10,   /* with CFSR_FEATURE_QUERY */
    CFSR_FRAME_REPLY = 11,   /* with CFSR_FEATURE_QUERY */
    CFSR_FRAME_GOODBYE = 12,
};
#define CFSR_FRAME_ACK_NOW 1u

/* Feature bits of HELLO: what a site can do beyond protocol version 1. */
#define CFSR_FEATURE_QUERY  (1ull << 0) /* asks for and serves records and digests */
#define CFSR_FEATURE_SEAL   (1ull << 1) /* bodies of BATCH and REPLY travel encrypted */
#define CFSR_FEATURES_KNOWN (CFSR_FEATURE_QUERY | CFSR_FEATURE_SEAL)

/* Behind a sealed body: its tag. */
#define CFSR_SEAL_TAG_BYTES 16

/* BATCH and REPLY: may be large, and are counted together in the data stream of their direction. */
static inline bool cfsr_frame_is_data(unsigned type)
{
    return type == CFSR_FRAME_BATCH || type == CFSR_FRAME_REPLY;
}

struct cfsr_link_header {
    uint8_t version;
    uint8_t type;
    uint16_t flags;
    uint32_t length_bytes;
    uint64_t link_seq;
    uint64_t batch_seq;
    uint8_t tag[CFSR_TAG_LEN_BYTES];
};

void cfsr_link_header_store(const struct cfsr_link_header *header, void *bytes_out);
/*
 * Checks magic, version, known type, reserved bytes and the length bound of the type (before
 * anything is trusted, so that framing is bounded). -CFSR_E_BAD_FRAME, -CFSR_E_VERSION,
 * -CFSR_E_TOO_LARGE.
 */
int cfsr_link_header_load(const void *bytes, struct cfsr_link_header *header_out);

/* HELLO payload (dialer → acceptor): who I am, what I send, where I end. */
struct cfsr_hello {
    uint16_t version_min, version_max;
    uint64_t features;
    struct cfsr_uuid cluster;
    uint64_t site_id;      /* dialer */
    uint64_t peer_site_id; /* whom I believe to be calling */
    char site_name[CFSR_SITE_NAME_MAX + 1];
    uint32_t lanes, shards;
    uint64_t segment_bytes;
    struct cfsr_uuid journal;
    uint64_t lane_mask;   /* lanes this connection carries */
    uint32_t core, cores; /* dialer's core and core count */
    uint32_t key_id;      /* key of the pair in use */
    uint8_t nonce[32];
    uint8_t session_id[16]; /* same for all connections of one run of the dialer's daemon */
    uint64_t wall_us;
    uint64_t epoch;
    uint64_t lane_end[CFSR_LANES_MAX]; /* committed LSN of each lane in the mask (others 0) */
};

/* One lane's answer: where the acceptor stands with the dialer's journal. */
struct cfsr_hello_lane {
    uint64_t cursor;               /* durable LSN of the dialer's lane here; 0: nothing yet */
    uint64_t incarnation;          /* of the last batch received */
    uint64_t entries;              /* cumulative entries of the lane below the cursor */
    struct cfsr_record_stamp last; /* last record below the cursor; lsn = UINT64_MAX if none */
};

struct cfsr_hello_ack {
    uint16_t version; /* chosen */
    int32_t status;   /* 0 accepted, else CFSR_E_* (positive number): refused, or WRONG_CORE: redial
                         by the lane map */
    uint64_t features;
    struct cfsr_uuid cluster;
    uint64_t site_id;
    char site_name[CFSR_SITE_NAME_MAX + 1];
    struct cfsr_uuid journal;       /* acceptor's own */
    struct cfsr_uuid known_journal; /* the dialer's, as known here; zero: never seen */
    uint32_t core, cores;           /* acceptor's; lane l belongs to core l mod cores */
    uint64_t lane_mask;             /* accepted lanes */
    uint8_t nonce[32];
    uint64_t wall_us;
    uint64_t epoch;
    char detail[128]; /* with status != 0: what was refused, for the peer's log */
    struct cfsr_hello_lane lane[CFSR_LANES_MAX]; /* for each lane in the mask */
};

struct cfsr_ack_lane {
    uint16_t lane;
    uint64_t durable_lsn;
    uint64_t applied_lsn;
    uint64_t entries; /* cumulative, of the lane below durable_lsn: exact lag for the sender */
};
struct cfsr_ack {
    uint8_t backpressure_pct;
    uint8_t mode; /* 0 durable; 1 written (named differently: --ack written) */
    uint16_t count;
    struct cfsr_ack_lane lane[CFSR_LANES_MAX];
};

struct cfsr_heartbeat_lane {
    uint16_t lane;
    uint64_t committed_lsn;
    uint64_t entries;
};
struct cfsr_heartbeat {
    uint64_t wall_us;
    uint64_t echo_wall_us; /* wall_us of the last heartbeat seen from the other side; 0 if none */
    uint16_t count;
    struct cfsr_heartbeat_lane lane[CFSR_LANES_MAX]; /* dialer only */
};

struct cfsr_goodbye {
    int32_t reason; /* CFSR_E_* (positive) or 0: orderly */
    char detail[128];
};

/*
 * QUERY and REPLY: a site asks another for records or digests of one journal's lane, on any
 * established connection that carries the lane, in either direction; one at a time each way.
 */
#define CFSR_QUERY_BYTES        72
#define CFSR_REPLY_BYTES        72
#define CFSR_REPLY_WINDOW_BYTES 40 /* 8 window index, 32 digest */
#define CFSR_REPLY_WINDOWS_MAX  200
#define CFSR_REPLY_BODY_MAX \
    (CFSR_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES - CFSR_REPLY_BYTES - CFSR_SEAL_TAG_BYTES)

enum cfsr_query_kind {
    CFSR_QUERY_RECORDS = 1, /* one frame (prefix, extension, body) that holds lsn_from */
    CFSR_QUERY_DIGESTS = 2, /* of the whole windows of journal/digest.h inside [lsn_from, lsn_to) */
};

struct cfsr_query {
    uint64_t id; /* 1, 2, … per connection and direction */
    uint16_t kind;
    uint16_t lane;
    uint64_t origin;          /* site whose journal is meant */
    struct cfsr_uuid journal; /* that journal */
    uint64_t lsn_from, lsn_to;
};

struct cfsr_reply {
    uint64_t id;
    uint16_t kind;
    uint16_t lane;
    int32_t status;            /* 0, or CFSR_E_* (positive): why there is nothing */
    uint64_t lsn_from, lsn_to; /* what this answers; may end before what was asked for */
    uint32_t count;            /* DIGESTS: windows; RECORDS: 1 frame */
    uint32_t body_bytes;
    const uint8_t *body; /* load: inside the payload */
};

/* Each store returns the payload length written to out (CFSR_CONTROL_MAX_BYTES long); each load
 * checks everything. */
uint32_t cfsr_hello_store(const struct cfsr_hello *hello, void *out);
int cfsr_hello_load(const void *payload, uint32_t len_bytes, struct cfsr_hello *hello_out);
uint32_t cfsr_hello_ack_store(const struct cfsr_hello_ack *ack, void *out);
int cfsr_hello_ack_load(const void *payload, uint32_t len_bytes, struct cfsr_hello_ack *ack_out);
uint32_t cfsr_ack_store(const struct cfsr_ack *ack, void *out);
int cfsr_ack_load(const void *payload, uint32_t len_bytes, struct cfsr_ack *ack_out);
uint32_t cfsr_heartbeat_store(const struct cfsr_heartbeat *heartbeat, void *out);
int cfsr_heartbeat_load(const void *payload, uint32_t len_bytes,
                        struct cfsr_heartbeat *heartbeat_out);
uint32_t cfsr_goodbye_store(const struct cfsr_goodbye *goodbye, void *out);
int cfsr_goodbye_load(const void *payload, uint32_t len_bytes, struct cfsr_goodbye *goodbye_out);
uint32_t cfsr_query_store(const struct cfsr_query *query, void *out);
int cfsr_query_load(const void *payload, uint32_t len_bytes, struct cfsr_query *query_out);
/* The fixed part only; the body stands behind it already. Returns the length of both. */
uint32_t cfsr_reply_store(const struct cfsr_reply *reply, void *out);
int cfsr_reply_load(const void *payload, uint32_t len_bytes, struct cfsr_reply *reply_out);
/* Bytes before the body of a REPLY (CFSR_REPLY_BYTES at hand), as its head says: unchecked. */
uint32_t cfsr_reply_fixed_bytes(const void *payload);
/* One window of a DIGESTS body. */
void cfsr_reply_window_store(void *body, uint32_t at, uint64_t index,
                             const uint8_t digest[CFSR_DIGEST_LEN_BYTES]);
uint64_t cfsr_reply_window_load(const struct cfsr_reply *reply, uint32_t at,
                                const uint8_t **digest_out);

#endif
