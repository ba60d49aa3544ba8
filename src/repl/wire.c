/*
 * wire.c - bytes of the frames between two sites (docs/wire-format.md).
 *
 * Any thread; pure functions of their arguments. Everything read here is hostile until the link tag
 * was checked, and HELLO is read before that: every count and length is compared with the bytes at
 * hand before it is used, reserved bytes must be zero, text must be printable UTF-8. Each payload
 * begins with the length of its fixed part and of its array items as its writer knew them, so that
 * version N + 1 may append fields which version N skips. Every layout is written once, as a list of
 * (offset, size); the compiler checks that the list has no gap.
 *
 * Rejected: packed structs (byte order, alignment, silent padding); tag-length-value fields (a
 * second parser with its own bounds, for a dozen fields that are always there); trailing bytes
 * without a declared length (a hiding place).
 */
#include "repl/wire.h"

#include <stddef.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "repl/wire_internal.h"

#define LINK_FIELDS(X)        \
    X(LINK, MAGIC, 0, 4)      \
    X(LINK, VERSION, 4, 1)    \
    X(LINK, TYPE, 5, 1)       \
    X(LINK, FLAGS, 6, 2)      \
    X(LINK, LENGTH, 8, 4)     \
    X(LINK, RESERVED, 12, 4)  \
    X(LINK, LINK_SEQ, 16, 8)  \
    X(LINK, BATCH_SEQ, 24, 8) \
    X(LINK, TAG, 32, CFSR_TAG_LEN_BYTES)
LAYOUT(LINK, LINK_FIELDS, CFSR_LINK_HEADER_BYTES);
_Static_assert(LINK_TAG == CFSR_LINK_SIGNED_BYTES, "the link tag signs all that stands before it");

#define NAME_BYTES   (CFSR_SITE_NAME_MAX + 1)
#define DETAIL_BYTES 128

#define HELLO_FIELDS(X)                  \
    X(HELLO, HEAD, 0, HEAD_BYTES)        \
    X(HELLO, VERSION_MIN, 8, 2)          \
    X(HELLO, VERSION_MAX, 10, 2)         \
    X(HELLO, KEY_ID, 12, 4)              \
    X(HELLO, FEATURES, 16, 8)            \
    X(HELLO, CLUSTER, 24, 16)            \
    X(HELLO, SITE_ID, 40, 8)             \
    X(HELLO, PEER_SITE_ID, 48, 8)        \
    X(HELLO, LANES, 56, 4)               \
    X(HELLO, SHARDS, 60, 4)              \
    X(HELLO, SEGMENT_BYTES, 64, 8)       \
    X(HELLO, JOURNAL, 72, 16)            \
    X(HELLO, LANE_MASK, 88, 8)           \
    X(HELLO, CORE, 96, 4)                \
    X(HELLO, CORES, 100, 4)              \
    X(HELLO, NONCE, 104, 32)             \
    X(HELLO, SESSION_ID, 136, 16)        \
    X(HELLO, WALL_US, 152, 8)            \
    X(HELLO, EPOCH, 160, 8)              \
    X(HELLO, SITE_NAME, 168, NAME_BYTES) \
    X(HELLO, RESERVED, 232, 48) /* ticket 16, trace id 16, span id 8, encode class 4, free 4 */
LAYOUT(HELLO, HELLO_FIELDS, 280);

#define HELLO_LANE_FIELDS(X) X(HELLO_LANE, END_LSN, 0, 8)
LAYOUT(HELLO_LANE, HELLO_LANE_FIELDS, 8);

#define HELLO_ACK_FIELDS(X)                  \
    X(HELLO_ACK, HEAD, 0, HEAD_BYTES)        \
    X(HELLO_ACK, VERSION, 8, 2)              \
    X(HELLO_ACK, RESERVED, 10, 2)            \
    X(HELLO_ACK, STATUS, 12, 4)              \
    X(HELLO_ACK, FEATURES, 16, 8)            \
    X(HELLO_ACK, CLUSTER, 24, 16)            \
    X(HELLO_ACK, SITE_ID, 40, 8)             \
    X(HELLO_ACK, CORE, 48, 4)                \
    X(HELLO_ACK, CORES, 52, 4)               \
    X(HELLO_ACK, JOURNAL, 56, 16)            \
    X(HELLO_ACK, KNOWN_JOURNAL, 72, 16)      \
    X(HELLO_ACK, LANE_MASK, 88, 8)           \
    X(HELLO_ACK, NONCE, 96, 32)              \
    X(HELLO_ACK, WALL_US, 128, 8)            \
    X(HELLO_ACK, EPOCH, 136, 8)              \
    X(HELLO_ACK, SITE_NAME, 144, NAME_BYTES) \
    X(HELLO_ACK, DETAIL, 208, DETAIL_BYTES)  \
    X(HELLO_ACK, RESERVED_END, 336, 24) /* ticket 16, encode class 4, free 4 */
LAYOUT(HELLO_ACK, HELLO_ACK_FIELDS, 360);

#define CURSOR_FIELDS(X)                \
    X(CURSOR, CURSOR_LSN, 0, 8)         \
    X(CURSOR, INCARNATION, 8, 8)        \
    X(CURSOR, ENTRIES, 16, 8)           \
    X(CURSOR, LAST_LSN, 24, 8)          \
    X(CURSOR, LAST_SEQ, 32, 8)          \
    X(CURSOR, LAST_TIMESTAMP_US, 40, 8) \
    X(CURSOR, LAST_CRC, 48, 4)          \
    X(CURSOR, RESERVED, 52, 4)
LAYOUT(CURSOR, CURSOR_FIELDS, 56);

#define ACK_FIELDS(X)              \
    X(ACK, HEAD, 0, HEAD_BYTES)    \
    X(ACK, BACKPRESSURE_PCT, 8, 1) \
    X(ACK, MODE, 9, 1)             \
    X(ACK, RESERVED, 10, 6)
LAYOUT(ACK, ACK_FIELDS, 16);

#define ACK_LANE_FIELDS(X)          \
    X(ACK_LANE, LANE, 0, 2)         \
    X(ACK_LANE, RESERVED, 2, 6)     \
    X(ACK_LANE, DURABLE_LSN, 8, 8)  \
    X(ACK_LANE, APPLIED_LSN, 16, 8) \
    X(ACK_LANE, ENTRIES, 24, 8)
LAYOUT(ACK_LANE, ACK_LANE_FIELDS, 32);

#define HEARTBEAT_FIELDS(X)           \
    X(HEARTBEAT, HEAD, 0, HEAD_BYTES) \
    X(HEARTBEAT, WALL_US, 8, 8)       \
    X(HEARTBEAT, ECHO_WALL_US, 16, 8) \
    X(HEARTBEAT, RESERVED, 24, 8) /* fencing epoch */
LAYOUT(HEARTBEAT, HEARTBEAT_FIELDS, 32);

#define HEARTBEAT_LANE_FIELDS(X)           \
    X(HEARTBEAT_LANE, LANE, 0, 2)          \
    X(HEARTBEAT_LANE, RESERVED, 2, 6)      \
    X(HEARTBEAT_LANE, COMMITTED_LSN, 8, 8) \
    X(HEARTBEAT_LANE, ENTRIES, 16, 8)
LAYOUT(HEARTBEAT_LANE, HEARTBEAT_LANE_FIELDS, 24);

#define GOODBYE_FIELDS(X)           \
    X(GOODBYE, HEAD, 0, HEAD_BYTES) \
    X(GOODBYE, REASON, 8, 4)        \
    X(GOODBYE, RESERVED, 12, 4)     \
    X(GOODBYE, DETAIL, 16, DETAIL_BYTES)
LAYOUT(GOODBYE, GOODBYE_FIELDS, 144);

_Static_assert(HELLO_BYTES + CFSR_LANES_MAX * HELLO_LANE_BYTES <= CFSR_CONTROL_MAX_BYTES, "HELLO");
_Static_assert(HELLO_ACK_BYTES + CFSR_LANES_MAX * CURSOR_BYTES <= CFSR_CONTROL_MAX_BYTES,
               "HELLO_ACK");
_Static_assert(ACK_BYTES + CFSR_LANES_MAX * ACK_LANE_BYTES <= CFSR_CONTROL_MAX_BYTES, "ACK");
_Static_assert(HEARTBEAT_BYTES + CFSR_LANES_MAX * HEARTBEAT_LANE_BYTES <= CFSR_CONTROL_MAX_BYTES,
               "HEARTBEAT");
_Static_assert(CFSR_LANES_MAX == 64, "lane masks are 64 bits");
_Static_assert(sizeof(((struct cfsr_goodbye *)0)->detail) == DETAIL_BYTES &&
                   sizeof(((struct cfsr_hello_ack *)0)->detail) == DETAIL_BYTES,
               "detail fields");

/* Numbers a status or reason may have: the range of CFSR_E_*, names unknown to this version
 * included. */
#define ERROR_NUMBER_MIN 4001u
#define ERROR_NUMBER_MAX 4999u

/* ---- text ---- */

/* Bytes of the printable UTF-8 character at p (RFC 3629; no C0, DEL or C1 control), or 0 if there
 * is none. */
static size_t printable_bytes(const uint8_t *p, size_t left_bytes)
{
    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f;
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left_bytes < len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    bool control = p[0] == 0xc2 && p[1] < 0xa0; /* C1 */
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] >= 0xa0;
    bool beyond = p[0] == 0xf4 && p[1] >= 0x90;
    return control || overlong || surrogate || beyond ? 0 : len;
}

/* Copies what is printable, '?' for what is not, cut at a character border; the rest of the field
 * stays zero. */
static void text_store(uint8_t *field, size_t field_bytes, const char *text)
{
    const uint8_t *from = (const uint8_t *)text;
    size_t left = strnlen(text, field_bytes);
    size_t used = 0;
    while (left > 0) {
        size_t len = printable_bytes(from, left);
        size_t take = len > 0 ? len : 1;
        if (used + take > field_bytes - 1)
            return;
        if (len > 0)
            memcpy(field + used, from, len);
        else
            field[used] = '?';
        used += take;
        from += take;
        left -= take;
    }
}

/* A field is text, one NUL at least, and nothing behind it. */
static int text_load(const uint8_t *field, size_t field_bytes, char *text_out, const char *what)
{
    size_t len = strnlen((const char *)field, field_bytes);
    if (len == field_bytes || !cfsr_bytes_are_zero(field + len, field_bytes - len))
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s is not ended by zeros", what);
    for (size_t at = 0; at < len;) {
        size_t step = printable_bytes(field + at, len - at);
        if (step == 0)
            return cfsr_fail(-CFSR_E_BAD_FRAME, "%s holds an unprintable byte at %zu", what, at);
        at += step;
    }
    memcpy(text_out, field, field_bytes);
    return 0;
}

/* ---- link header ---- */

static uint32_t payload_min_bytes(unsigned type)
{
    switch (type) {
    case CFSR_FRAME_HELLO: return HELLO_BYTES;
    case CFSR_FRAME_HELLO_ACK: return HELLO_ACK_BYTES;
    case CFSR_FRAME_BATCH: return CFSR_BATCH_PREFIX_BYTES;
    case CFSR_FRAME_ACK: return ACK_BYTES;
    case CFSR_FRAME_HEARTBEAT: return HEARTBEAT_BYTES;
    case CFSR_FRAME_QUERY: return CFSR_QUERY_BYTES;
    case CFSR_FRAME_REPLY: return CFSR_REPLY_BYTES;
    case CFSR_FRAME_GOODBYE: return GOODBYE_BYTES;
    default: return 0; /* unknown, or reserved for a later version */
    }
}

void cfsr_link_header_store(const struct cfsr_link_header *header, void *bytes_out)
{
    uint8_t *p = bytes_out;
    cfsr_store_le32(p + LINK_MAGIC, CFSR_FRAME_MAGIC);
    p[LINK_VERSION] = header->version;
    p[LINK_TYPE] = header->type;
    cfsr_store_le16(p + LINK_FLAGS, header->flags);
    cfsr_store_le32(p + LINK_LENGTH, header->length_bytes);
    cfsr_store_le32(p + LINK_RESERVED, 0);
    cfsr_store_le64(p + LINK_LINK_SEQ, header->link_seq);
    cfsr_store_le64(p + LINK_BATCH_SEQ, header->batch_seq);
    memcpy(p + LINK_TAG, header->tag, CFSR_TAG_LEN_BYTES);
}

int cfsr_link_header_load(const void *bytes, struct cfsr_link_header *header_out)
{
    const uint8_t *p = bytes;
    if (cfsr_load_le32(p + LINK_MAGIC) != CFSR_FRAME_MAGIC)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "frame does not begin with the magic number");
    if (p[LINK_VERSION] < CFSR_WIRE_VERSION_MIN || p[LINK_VERSION] > CFSR_WIRE_VERSION)
        return cfsr_fail(-CFSR_E_VERSION,
                         "frame of protocol version %u; this program speaks %d to %d",
                         p[LINK_VERSION], CFSR_WIRE_VERSION_MIN, CFSR_WIRE_VERSION);
    struct cfsr_link_header header = {
        .version = p[LINK_VERSION],
        .type = p[LINK_TYPE],
        .flags = cfsr_load_le16(p + LINK_FLAGS),
        .length_bytes = cfsr_load_le32(p + LINK_LENGTH),
        .link_seq = cfsr_load_le64(p + LINK_LINK_SEQ),
        .batch_seq = cfsr_load_le64(p + LINK_BATCH_SEQ),
    };
    memcpy(header.tag, p + LINK_TAG, CFSR_TAG_LEN_BYTES);
    uint32_t min_bytes = payload_min_bytes(header.type);
    if (min_bytes == 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "frame type %u is not in use", header.type);
    if ((header.flags & ~CFSR_FRAME_ACK_NOW) != 0 || cfsr_load_le32(p + LINK_RESERVED) != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "frame header has unknown flags or reserved bytes set");
    bool batch = header.type == CFSR_FRAME_BATCH;
    if (header.link_seq == 0 || batch != (header.batch_seq != 0))
        return cfsr_fail(-CFSR_E_BAD_FRAME,
                         "frame type %u with link sequence %llu, batch sequence %llu", header.type,
                         (unsigned long long)header.link_seq, (unsigned long long)header.batch_seq);
    uint32_t max_bytes = cfsr_frame_is_data(header.type)
                             ? CFSR_FRAME_MAX_BYTES - CFSR_LINK_HEADER_BYTES
                             : CFSR_CONTROL_MAX_BYTES;
    if (header.length_bytes > max_bytes)
        return cfsr_fail(-CFSR_E_TOO_LARGE, "frame type %u declares %u bytes; the limit is %u",
                         header.type, header.length_bytes, max_bytes);
    if (header.length_bytes < min_bytes)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "frame type %u declares %u bytes; the least is %u",
                         header.type, header.length_bytes, min_bytes);
    *header_out = header;
    return 0;
}

/* ---- what all payloads share ---- */

/*
 * Checks the head against the length. The fixed part and the items may be longer than this version
 * knows (a newer writer), never shorter, and together they are the whole payload.
 */
int cfsr_wire_payload_open(const void *payload, uint32_t len_bytes, uint32_t fixed_min,
                           uint32_t item_min, const char *what,
                           struct cfsr_wire_payload *payload_out)
{
    const uint8_t *p = payload;
    if (len_bytes < fixed_min || len_bytes > CFSR_CONTROL_MAX_BYTES)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s of %u bytes", what, len_bytes);
    uint32_t fixed = cfsr_load_le16(p + HEAD_FIXED_BYTES);
    uint32_t item = cfsr_load_le16(p + HEAD_ITEM_BYTES);
    uint32_t count = cfsr_load_le16(p + HEAD_COUNT);
    if (cfsr_load_le16(p + HEAD_RESERVED) != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s has reserved bytes set", what);
    bool no_items = item_min == 0 && (item != 0 || count != 0);
    if (fixed < fixed_min || item < item_min || no_items || count > CFSR_LANES_MAX)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s declares %u fixed bytes and %u items of %u bytes",
                         what, fixed, count, item);
    if ((uint64_t)fixed + (uint64_t)item * count != len_bytes) /* also bounds fixed by len_bytes */
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s declares %u + %u x %u bytes and has %u", what,
                         fixed, count, item, len_bytes);
    *payload_out = (struct cfsr_wire_payload){
        .fixed = p, .items = p + fixed, .item_bytes = item, .count = count};
    return 0;
}

uint32_t cfsr_wire_payload_begin(uint8_t *p, uint32_t fixed_bytes, uint32_t item_bytes,
                                 uint32_t count)
{
    CFSR_ASSERT(count <= CFSR_LANES_MAX);
    uint32_t total = fixed_bytes + item_bytes * count;
    memset(p, 0, total);
    cfsr_store_le16(p + HEAD_FIXED_BYTES, (uint16_t)fixed_bytes);
    cfsr_store_le16(p + HEAD_ITEM_BYTES, (uint16_t)item_bytes);
    cfsr_store_le16(p + HEAD_COUNT, (uint16_t)count);
    return total;
}

static uint32_t mask_count(uint64_t mask)
{
    return (uint32_t)__builtin_popcountll(mask);
}

int cfsr_wire_reserved_check(const uint8_t *p, size_t len_bytes, const char *what)
{
    if (!cfsr_bytes_are_zero(p, len_bytes))
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s has reserved bytes set", what);
    return 0;
}

/* A status is 0 or the number of a CFSR_E_*; an errno of ours means nothing to the peer and goes
 * out as FAILED. */
uint32_t cfsr_wire_status(int32_t status)
{
    bool known = status == 0 ||
                 ((uint32_t)status >= ERROR_NUMBER_MIN && (uint32_t)status <= ERROR_NUMBER_MAX);
    return known ? (uint32_t)status : CFSR_E_FAILED;
}

int cfsr_wire_status_load(const uint8_t *p, int32_t *status_out, const char *what)
{
    uint32_t status = cfsr_load_le32(p);
    if (status != 0 && (status < ERROR_NUMBER_MIN || status > ERROR_NUMBER_MAX))
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s carries status %u, which is no error number", what,
                         status);
    *status_out = (int32_t)status;
    return 0;
}

/* Lane number of an ACK or HEARTBEAT item: in range, reserved bytes zero, named once. */
static int item_lane_load(const uint8_t *item, uint64_t *seen, uint16_t *lane_out, const char *what)
{
    uint16_t lane = cfsr_load_le16(item);
    if (lane >= CFSR_LANES_MAX || (*seen & (1ull << lane)) != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s names lane %u, out of range or twice", what, lane);
    *seen |= 1ull << lane;
    *lane_out = lane;
    return cfsr_wire_reserved_check(item + ACK_LANE_RESERVED,
                                    ACK_LANE_DURABLE_LSN - ACK_LANE_RESERVED, what);
}
_Static_assert((int)ACK_LANE_LANE == (int)HEARTBEAT_LANE_LANE && ACK_LANE_LANE == 0 &&
                   (int)ACK_LANE_RESERVED == (int)HEARTBEAT_LANE_RESERVED &&
                   (int)ACK_LANE_DURABLE_LSN == (int)HEARTBEAT_LANE_COMMITTED_LSN,
               "both items begin alike");

/* ---- HELLO ---- */

uint32_t cfsr_hello_store(const struct cfsr_hello *hello, void *out)
{
    uint8_t *p = out;
    uint32_t total = cfsr_wire_payload_begin(p, HELLO_BYTES, HELLO_LANE_BYTES,
                                             mask_count(hello->lane_mask));
    cfsr_store_le16(p + HELLO_VERSION_MIN, hello->version_min);
    cfsr_store_le16(p + HELLO_VERSION_MAX, hello->version_max);
    cfsr_store_le32(p + HELLO_KEY_ID, hello->key_id);
    cfsr_store_le64(p + HELLO_FEATURES, hello->features);
    memcpy(p + HELLO_CLUSTER, hello->cluster.bytes, sizeof hello->cluster.bytes);
    cfsr_store_le64(p + HELLO_SITE_ID, hello->site_id);
    cfsr_store_le64(p + HELLO_PEER_SITE_ID, hello->peer_site_id);
    cfsr_store_le32(p + HELLO_LANES, hello->lanes);
    cfsr_store_le32(p + HELLO_SHARDS, hello->shards);
    cfsr_store_le64(p + HELLO_SEGMENT_BYTES, hello->segment_bytes);
    memcpy(p + HELLO_JOURNAL, hello->journal.bytes, sizeof hello->journal.bytes);
    cfsr_store_le64(p + HELLO_LANE_MASK, hello->lane_mask);
    cfsr_store_le32(p + HELLO_CORE, hello->core);
    cfsr_store_le32(p + HELLO_CORES, hello->cores);
    memcpy(p + HELLO_NONCE, hello->nonce, sizeof hello->nonce);
    memcpy(p + HELLO_SESSION_ID, hello->session_id, sizeof hello->session_id);
    cfsr_store_le64(p + HELLO_WALL_US, hello->wall_us);
    cfsr_store_le64(p + HELLO_EPOCH, hello->epoch);
    text_store(p + HELLO_SITE_NAME, NAME_BYTES, hello->site_name);
    uint8_t *item = p + HELLO_BYTES;
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++) {
        if ((hello->lane_mask & (1ull << lane)) == 0)
            continue;
        cfsr_store_le64(item + HELLO_LANE_END_LSN, hello->lane_end[lane]);
        item += HELLO_LANE_BYTES;
    }
    return total;
}

static void hello_fixed_load(const uint8_t *p, struct cfsr_hello *hello)
{
    hello->version_min = cfsr_load_le16(p + HELLO_VERSION_MIN);
    hello->version_max = cfsr_load_le16(p + HELLO_VERSION_MAX);
    hello->key_id = cfsr_load_le32(p + HELLO_KEY_ID);
    hello->features = cfsr_load_le64(p + HELLO_FEATURES);
    memcpy(hello->cluster.bytes, p + HELLO_CLUSTER, sizeof hello->cluster.bytes);
    hello->site_id = cfsr_load_le64(p + HELLO_SITE_ID);
    hello->peer_site_id = cfsr_load_le64(p + HELLO_PEER_SITE_ID);
    hello->lanes = cfsr_load_le32(p + HELLO_LANES);
    hello->shards = cfsr_load_le32(p + HELLO_SHARDS);
    hello->segment_bytes = cfsr_load_le64(p + HELLO_SEGMENT_BYTES);
    memcpy(hello->journal.bytes, p + HELLO_JOURNAL, sizeof hello->journal.bytes);
    hello->lane_mask = cfsr_load_le64(p + HELLO_LANE_MASK);
    hello->core = cfsr_load_le32(p + HELLO_CORE);
    hello->cores = cfsr_load_le32(p + HELLO_CORES);
    memcpy(hello->nonce, p + HELLO_NONCE, sizeof hello->nonce);
    memcpy(hello->session_id, p + HELLO_SESSION_ID, sizeof hello->session_id);
    hello->wall_us = cfsr_load_le64(p + HELLO_WALL_US);
    hello->epoch = cfsr_load_le64(p + HELLO_EPOCH);
}

int cfsr_hello_load(const void *payload, uint32_t len_bytes, struct cfsr_hello *hello_out)
{
    struct cfsr_wire_payload view;
    int rc = cfsr_wire_payload_open(payload, len_bytes, HELLO_BYTES, HELLO_LANE_BYTES, "HELLO",
                                    &view);
    if (rc < 0)
        return rc;
    struct cfsr_hello hello = {0};
    hello_fixed_load(view.fixed, &hello);
    rc = cfsr_wire_reserved_check(view.fixed + HELLO_RESERVED, HELLO_BYTES - HELLO_RESERVED,
                                  "HELLO");
    if (rc < 0)
        return rc;
    rc = text_load(view.fixed + HELLO_SITE_NAME, NAME_BYTES, hello.site_name, "site name of HELLO");
    if (rc < 0)
        return rc;
    if (mask_count(hello.lane_mask) != view.count)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "HELLO names %u lanes and describes %u",
                         mask_count(hello.lane_mask), view.count);
    const uint8_t *item = view.items;
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++) {
        if ((hello.lane_mask & (1ull << lane)) == 0)
            continue;
        hello.lane_end[lane] = cfsr_load_le64(item + HELLO_LANE_END_LSN);
        item += view.item_bytes;
    }
    *hello_out = hello;
    return 0;
}

/* ---- HELLO_ACK ---- */

static void cursor_store(uint8_t *item, const struct cfsr_hello_lane *lane)
{
    cfsr_store_le64(item + CURSOR_CURSOR_LSN, lane->cursor);
    cfsr_store_le64(item + CURSOR_INCARNATION, lane->incarnation);
    cfsr_store_le64(item + CURSOR_ENTRIES, lane->entries);
    cfsr_store_le64(item + CURSOR_LAST_LSN, lane->last.lsn);
    cfsr_store_le64(item + CURSOR_LAST_SEQ, lane->last.seq);
    cfsr_store_le64(item + CURSOR_LAST_TIMESTAMP_US, lane->last.timestamp_us);
    cfsr_store_le32(item + CURSOR_LAST_CRC, lane->last.crc);
}

static int cursor_load(const uint8_t *item, struct cfsr_hello_lane *lane_out)
{
    lane_out->cursor = cfsr_load_le64(item + CURSOR_CURSOR_LSN);
    lane_out->incarnation = cfsr_load_le64(item + CURSOR_INCARNATION);
    lane_out->entries = cfsr_load_le64(item + CURSOR_ENTRIES);
    lane_out->last.lsn = cfsr_load_le64(item + CURSOR_LAST_LSN);
    lane_out->last.seq = cfsr_load_le64(item + CURSOR_LAST_SEQ);
    lane_out->last.timestamp_us = cfsr_load_le64(item + CURSOR_LAST_TIMESTAMP_US);
    lane_out->last.crc = cfsr_load_le32(item + CURSOR_LAST_CRC);
    return cfsr_wire_reserved_check(item + CURSOR_RESERVED, CURSOR_BYTES - CURSOR_RESERVED,
                                    "HELLO_ACK lane");
}

uint32_t cfsr_hello_ack_store(const struct cfsr_hello_ack *ack, void *out)
{
    uint8_t *p = out;
    uint32_t total = cfsr_wire_payload_begin(p, HELLO_ACK_BYTES, CURSOR_BYTES,
                                             mask_count(ack->lane_mask));
    cfsr_store_le16(p + HELLO_ACK_VERSION, ack->version);
    cfsr_store_le32(p + HELLO_ACK_STATUS, cfsr_wire_status(ack->status));
    cfsr_store_le64(p + HELLO_ACK_FEATURES, ack->features);
    memcpy(p + HELLO_ACK_CLUSTER, ack->cluster.bytes, sizeof ack->cluster.bytes);
    cfsr_store_le64(p + HELLO_ACK_SITE_ID, ack->site_id);
    cfsr_store_le32(p + HELLO_ACK_CORE, ack->core);
    cfsr_store_le32(p + HELLO_ACK_CORES, ack->cores);
    memcpy(p + HELLO_ACK_JOURNAL, ack->journal.bytes, sizeof ack->journal.bytes);
    memcpy(p + HELLO_ACK_KNOWN_JOURNAL, ack->known_journal.bytes, sizeof ack->known_journal.bytes);
    cfsr_store_le64(p + HELLO_ACK_LANE_MASK, ack->lane_mask);
    memcpy(p + HELLO_ACK_NONCE, ack->nonce, sizeof ack->nonce);
    cfsr_store_le64(p + HELLO_ACK_WALL_US, ack->wall_us);
    cfsr_store_le64(p + HELLO_ACK_EPOCH, ack->epoch);
    text_store(p + HELLO_ACK_SITE_NAME, NAME_BYTES, ack->site_name);
    text_store(p + HELLO_ACK_DETAIL, DETAIL_BYTES, ack->detail);
    uint8_t *item = p + HELLO_ACK_BYTES;
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++) {
        if ((ack->lane_mask & (1ull << lane)) == 0)
            continue;
        cursor_store(item, &ack->lane[lane]);
        item += CURSOR_BYTES;
    }
    return total;
}

static int hello_ack_fixed_load(const uint8_t *p, struct cfsr_hello_ack *ack)
{
    ack->version = cfsr_load_le16(p + HELLO_ACK_VERSION);
    ack->features = cfsr_load_le64(p + HELLO_ACK_FEATURES);
    memcpy(ack->cluster.bytes, p + HELLO_ACK_CLUSTER, sizeof ack->cluster.bytes);
    ack->site_id = cfsr_load_le64(p + HELLO_ACK_SITE_ID);
    ack->core = cfsr_load_le32(p + HELLO_ACK_CORE);
    ack->cores = cfsr_load_le32(p + HELLO_ACK_CORES);
    memcpy(ack->journal.bytes, p + HELLO_ACK_JOURNAL, sizeof ack->journal.bytes);
    memcpy(ack->known_journal.bytes, p + HELLO_ACK_KNOWN_JOURNAL, sizeof ack->known_journal.bytes);
    ack->lane_mask = cfsr_load_le64(p + HELLO_ACK_LANE_MASK);
    memcpy(ack->nonce, p + HELLO_ACK_NONCE, sizeof ack->nonce);
    ack->wall_us = cfsr_load_le64(p + HELLO_ACK_WALL_US);
    ack->epoch = cfsr_load_le64(p + HELLO_ACK_EPOCH);
    int rc = cfsr_wire_status_load(p + HELLO_ACK_STATUS, &ack->status, "HELLO_ACK");
    if (rc < 0)
        return rc;
    rc = cfsr_wire_reserved_check(p + HELLO_ACK_RESERVED, HELLO_ACK_STATUS - HELLO_ACK_RESERVED,
                                  "HELLO_ACK");
    if (rc < 0)
        return rc;
    rc = cfsr_wire_reserved_check(p + HELLO_ACK_RESERVED_END,
                                  HELLO_ACK_BYTES - HELLO_ACK_RESERVED_END, "HELLO_ACK");
    if (rc < 0)
        return rc;
    rc = text_load(p + HELLO_ACK_SITE_NAME, NAME_BYTES, ack->site_name, "site name of HELLO_ACK");
    if (rc < 0)
        return rc;
    return text_load(p + HELLO_ACK_DETAIL, DETAIL_BYTES, ack->detail, "detail of HELLO_ACK");
}

int cfsr_hello_ack_load(const void *payload, uint32_t len_bytes, struct cfsr_hello_ack *ack_out)
{
    struct cfsr_wire_payload view;
    int rc = cfsr_wire_payload_open(payload, len_bytes, HELLO_ACK_BYTES, CURSOR_BYTES, "HELLO_ACK",
                                    &view);
    if (rc < 0)
        return rc;
    struct cfsr_hello_ack ack = {0};
    rc = hello_ack_fixed_load(view.fixed, &ack);
    if (rc < 0)
        return rc;
    if (mask_count(ack.lane_mask) != view.count)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "HELLO_ACK names %u lanes and describes %u",
                         mask_count(ack.lane_mask), view.count);
    const uint8_t *item = view.items;
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++) {
        if ((ack.lane_mask & (1ull << lane)) == 0)
            continue;
        rc = cursor_load(item, &ack.lane[lane]);
        if (rc < 0)
            return rc;
        item += view.item_bytes;
    }
    *ack_out = ack;
    return 0;
}

/* ---- ACK ---- */

uint32_t cfsr_ack_store(const struct cfsr_ack *ack, void *out)
{
    uint8_t *p = out;
    uint32_t total = cfsr_wire_payload_begin(p, ACK_BYTES, ACK_LANE_BYTES, ack->count);
    p[ACK_BACKPRESSURE_PCT] = ack->backpressure_pct;
    p[ACK_MODE] = ack->mode;
    for (unsigned i = 0; i < ack->count; i++) {
        uint8_t *item = p + ACK_BYTES + i * ACK_LANE_BYTES;
        cfsr_store_le16(item + ACK_LANE_LANE, ack->lane[i].lane);
        cfsr_store_le64(item + ACK_LANE_DURABLE_LSN, ack->lane[i].durable_lsn);
        cfsr_store_le64(item + ACK_LANE_APPLIED_LSN, ack->lane[i].applied_lsn);
        cfsr_store_le64(item + ACK_LANE_ENTRIES, ack->lane[i].entries);
    }
    return total;
}

int cfsr_ack_load(const void *payload, uint32_t len_bytes, struct cfsr_ack *ack_out)
{
    struct cfsr_wire_payload view;
    int rc = cfsr_wire_payload_open(payload, len_bytes, ACK_BYTES, ACK_LANE_BYTES, "ACK", &view);
    if (rc < 0)
        return rc;
    rc = cfsr_wire_reserved_check(view.fixed + ACK_RESERVED, ACK_BYTES - ACK_RESERVED, "ACK");
    if (rc < 0)
        return rc;
    struct cfsr_ack ack = {.backpressure_pct = view.fixed[ACK_BACKPRESSURE_PCT],
                           .mode = view.fixed[ACK_MODE],
                           .count = (uint16_t)view.count};
    if (ack.backpressure_pct > 100 || ack.mode > 1)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "ACK with backpressure %u %% and mode %u",
                         ack.backpressure_pct, ack.mode);
    uint64_t seen = 0;
    for (unsigned i = 0; i < view.count; i++) {
        const uint8_t *item = view.items + (size_t)i * view.item_bytes;
        rc = item_lane_load(item, &seen, &ack.lane[i].lane, "ACK");
        if (rc < 0)
            return rc;
        ack.lane[i].durable_lsn = cfsr_load_le64(item + ACK_LANE_DURABLE_LSN);
        ack.lane[i].applied_lsn = cfsr_load_le64(item + ACK_LANE_APPLIED_LSN);
        ack.lane[i].entries = cfsr_load_le64(item + ACK_LANE_ENTRIES);
    }
    *ack_out = ack;
    return 0;
}

/* ---- HEARTBEAT ---- */

uint32_t cfsr_heartbeat_store(const struct cfsr_heartbeat *heartbeat, void *out)
{
    uint8_t *p = out;
    uint32_t total = cfsr_wire_payload_begin(p, HEARTBEAT_BYTES, HEARTBEAT_LANE_BYTES,
                                             heartbeat->count);
    cfsr_store_le64(p + HEARTBEAT_WALL_US, heartbeat->wall_us);
    cfsr_store_le64(p + HEARTBEAT_ECHO_WALL_US, heartbeat->echo_wall_us);
    for (unsigned i = 0; i < heartbeat->count; i++) {
        uint8_t *item = p + HEARTBEAT_BYTES + i * HEARTBEAT_LANE_BYTES;
        cfsr_store_le16(item + HEARTBEAT_LANE_LANE, heartbeat->lane[i].lane);
        cfsr_store_le64(item + HEARTBEAT_LANE_COMMITTED_LSN, heartbeat->lane[i].committed_lsn);
        cfsr_store_le64(item + HEARTBEAT_LANE_ENTRIES, heartbeat->lane[i].entries);
    }
    return total;
}

int cfsr_heartbeat_load(const void *payload, uint32_t len_bytes,
                        struct cfsr_heartbeat *heartbeat_out)
{
    struct cfsr_wire_payload view;
    int rc = cfsr_wire_payload_open(payload, len_bytes, HEARTBEAT_BYTES, HEARTBEAT_LANE_BYTES,
                                    "HEARTBEAT", &view);
    if (rc < 0)
        return rc;
    rc = cfsr_wire_reserved_check(view.fixed + HEARTBEAT_RESERVED,
                                  HEARTBEAT_BYTES - HEARTBEAT_RESERVED, "HEARTBEAT");
    if (rc < 0)
        return rc;
    struct cfsr_heartbeat heartbeat = {
        .wall_us = cfsr_load_le64(view.fixed + HEARTBEAT_WALL_US),
        .echo_wall_us = cfsr_load_le64(view.fixed + HEARTBEAT_ECHO_WALL_US),
        .count = (uint16_t)view.count,
    };
    uint64_t seen = 0;
    for (unsigned i = 0; i < view.count; i++) {
        const uint8_t *item = view.items + (size_t)i * view.item_bytes;
        rc = item_lane_load(item, &seen, &heartbeat.lane[i].lane, "HEARTBEAT");
        if (rc < 0)
            return rc;
        heartbeat.lane[i].committed_lsn = cfsr_load_le64(item + HEARTBEAT_LANE_COMMITTED_LSN);
        heartbeat.lane[i].entries = cfsr_load_le64(item + HEARTBEAT_LANE_ENTRIES);
    }
    *heartbeat_out = heartbeat;
    return 0;
}

/* ---- GOODBYE ---- */

uint32_t cfsr_goodbye_store(const struct cfsr_goodbye *goodbye, void *out)
{
    uint8_t *p = out;
    uint32_t total = cfsr_wire_payload_begin(p, GOODBYE_BYTES, 0, 0);
    cfsr_store_le32(p + GOODBYE_REASON, cfsr_wire_status(goodbye->reason));
    text_store(p + GOODBYE_DETAIL, DETAIL_BYTES, goodbye->detail);
    return total;
}

int cfsr_goodbye_load(const void *payload, uint32_t len_bytes, struct cfsr_goodbye *goodbye_out)
{
    struct cfsr_wire_payload view;
    int rc = cfsr_wire_payload_open(payload, len_bytes, GOODBYE_BYTES, 0, "GOODBYE", &view);
    if (rc < 0)
        return rc;
    rc = cfsr_wire_reserved_check(view.fixed + GOODBYE_RESERVED, GOODBYE_DETAIL - GOODBYE_RESERVED,
                                  "GOODBYE");
    if (rc < 0)
        return rc;
    struct cfsr_goodbye goodbye = {0};
    rc = cfsr_wire_status_load(view.fixed + GOODBYE_REASON, &goodbye.reason, "GOODBYE");
    if (rc < 0)
        return rc;
    rc = text_load(view.fixed + GOODBYE_DETAIL, DETAIL_BYTES, goodbye.detail, "detail of GOODBYE");
    if (rc < 0)
        return rc;
    *goodbye_out = goodbye;
    return 0;
}
