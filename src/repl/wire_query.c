/*
 * wire_query.c - the bytes of QUERY and REPLY (docs/wire-format.md).
 *
 * Any thread; pure functions of their arguments. Read after the link tag was checked, so the writer
 * is a peer; it is believed nothing all the same. What a body holds (a signed frame, digests) is
 * the business of repl/query_records.h and of whoever compares.
 */
#include "repl/wire.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "repl/wire_internal.h"

#define QUERY_FIELDS(X)           \
    X(QUERY, HEAD, 0, HEAD_BYTES) \
    X(QUERY, ID, 8, 8)            \
    X(QUERY, KIND, 16, 2)         \
    X(QUERY, LANE, 18, 2)         \
    X(QUERY, RESERVED, 20, 4)     \
    X(QUERY, ORIGIN, 24, 8)       \
    X(QUERY, JOURNAL, 32, 16)     \
    X(QUERY, LSN_FROM, 48, 8)     \
    X(QUERY, LSN_TO, 56, 8)       \
    X(QUERY, RESERVED_END, 64, 8)
LAYOUT(QUERY, QUERY_FIELDS, CFSR_QUERY_BYTES);

#define REPLY_FIELDS(X)           \
    X(REPLY, HEAD, 0, HEAD_BYTES) \
    X(REPLY, ID, 8, 8)            \
    X(REPLY, KIND, 16, 2)         \
    X(REPLY, LANE, 18, 2)         \
    X(REPLY, STATUS, 20, 4)       \
    X(REPLY, LSN_FROM, 24, 8)     \
    X(REPLY, LSN_TO, 32, 8)       \
    X(REPLY, COUNT, 40, 4)        \
    X(REPLY, BODY_BYTES, 44, 4)   \
    X(REPLY, RESERVED_END, 48, 24)
LAYOUT(REPLY, REPLY_FIELDS, CFSR_REPLY_BYTES);

#define WINDOW_FIELDS(X)   \
    X(WINDOW, INDEX, 0, 8) \
    X(WINDOW, DIGEST, 8, CFSR_DIGEST_LEN_BYTES)
LAYOUT(WINDOW, WINDOW_FIELDS, CFSR_REPLY_WINDOW_BYTES);

_Static_assert(CFSR_REPLY_WINDOWS_MAX *WINDOW_BYTES <= CFSR_CONTROL_MAX_BYTES,
               "a reply with digests is small");
_Static_assert(CFSR_BATCH_PREFIX_BYTES + CFSR_BATCH_BODY_MAX_BYTES <= CFSR_REPLY_BODY_MAX,
               "a maximal frame without holes fits a reply; one with holes repairs nobody");

/* What both name: a kind we know, a lane, a range that is one. */
static int subject_check(uint64_t id, uint16_t kind, uint16_t lane, uint64_t lsn_from,
                         uint64_t lsn_to, const char *what)
{
    if (id == 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s without an id", what);
    if (kind != CFSR_QUERY_RECORDS && kind != CFSR_QUERY_DIGESTS)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s of kind %u", what, kind);
    if (lane >= CFSR_LANES_MAX)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s names lane %u", what, lane);
    if (lsn_from >= lsn_to || lsn_from % CFSR_RECORD_ALIGN != 0 || lsn_to % CFSR_RECORD_ALIGN != 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "%s names the range [%llu, %llu)", what,
                         (unsigned long long)lsn_from, (unsigned long long)lsn_to);
    return 0;
}

uint32_t cfsr_query_store(const struct cfsr_query *query, void *out)
{
    uint8_t *p = out;
    uint32_t total = cfsr_wire_payload_begin(p, QUERY_BYTES, 0, 0);
    cfsr_store_le64(p + QUERY_ID, query->id);
    cfsr_store_le16(p + QUERY_KIND, query->kind);
    cfsr_store_le16(p + QUERY_LANE, query->lane);
    cfsr_store_le64(p + QUERY_ORIGIN, query->origin);
    memcpy(p + QUERY_JOURNAL, query->journal.bytes, sizeof query->journal.bytes);
    cfsr_store_le64(p + QUERY_LSN_FROM, query->lsn_from);
    cfsr_store_le64(p + QUERY_LSN_TO, query->lsn_to);
    return total;
}

int cfsr_query_load(const void *payload, uint32_t len_bytes, struct cfsr_query *query_out)
{
    struct cfsr_wire_payload view;
    int rc = cfsr_wire_payload_open(payload, len_bytes, QUERY_BYTES, 0, "QUERY", &view);
    if (rc < 0)
        return rc;
    struct cfsr_query query = {
        .id = cfsr_load_le64(view.fixed + QUERY_ID),
        .kind = cfsr_load_le16(view.fixed + QUERY_KIND),
        .lane = cfsr_load_le16(view.fixed + QUERY_LANE),
        .origin = cfsr_load_le64(view.fixed + QUERY_ORIGIN),
        .lsn_from = cfsr_load_le64(view.fixed + QUERY_LSN_FROM),
        .lsn_to = cfsr_load_le64(view.fixed + QUERY_LSN_TO),
    };
    memcpy(query.journal.bytes, view.fixed + QUERY_JOURNAL, sizeof query.journal.bytes);
    rc = cfsr_wire_reserved_check(view.fixed + QUERY_RESERVED, QUERY_ORIGIN - QUERY_RESERVED,
                                  "QUERY");
    if (rc == 0)
        rc = cfsr_wire_reserved_check(view.fixed + QUERY_RESERVED_END,
                                      QUERY_BYTES - QUERY_RESERVED_END, "QUERY");
    if (rc == 0)
        rc = subject_check(query.id, query.kind, query.lane, query.lsn_from, query.lsn_to, "QUERY");
    if (rc < 0)
        return rc;
    if (query.origin == 0 || query.origin == UINT64_MAX || cfsr_uuid_is_zero(&query.journal))
        return cfsr_fail(-CFSR_E_BAD_FRAME, "QUERY names no journal");
    *query_out = query;
    return 0;
}

uint32_t cfsr_reply_store(const struct cfsr_reply *reply, void *out)
{
    uint8_t *p = out;
    CFSR_ASSERT(reply->body_bytes <= CFSR_REPLY_BODY_MAX);
    (void)cfsr_wire_payload_begin(p, REPLY_BYTES, 0, 0);
    cfsr_store_le64(p + REPLY_ID, reply->id);
    cfsr_store_le16(p + REPLY_KIND, reply->kind);
    cfsr_store_le16(p + REPLY_LANE, reply->lane);
    cfsr_store_le32(p + REPLY_STATUS, cfsr_wire_status(reply->status));
    cfsr_store_le64(p + REPLY_LSN_FROM, reply->lsn_from);
    cfsr_store_le64(p + REPLY_LSN_TO, reply->lsn_to);
    cfsr_store_le32(p + REPLY_COUNT, reply->count);
    cfsr_store_le32(p + REPLY_BODY_BYTES, reply->body_bytes);
    return REPLY_BYTES + reply->body_bytes;
}

/* Count and bytes of the body agree with kind and status. */
static int body_check(const struct cfsr_reply *reply)
{
    bool fits;
    if (reply->status != 0)
        fits = reply->count == 0 && reply->body_bytes == 0;
    else if (reply->kind == CFSR_QUERY_DIGESTS)
        fits = reply->count <= CFSR_REPLY_WINDOWS_MAX &&
               reply->body_bytes == reply->count * WINDOW_BYTES;
    else
        fits = reply->count == 1 && reply->body_bytes >= CFSR_BATCH_PREFIX_BYTES;
    if (!fits)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "REPLY of kind %u, status %d with %u items in %u bytes",
                         reply->kind, reply->status, reply->count, reply->body_bytes);
    return 0;
}

int cfsr_reply_load(const void *payload, uint32_t len_bytes, struct cfsr_reply *reply_out)
{
    const uint8_t *p = payload;
    if (len_bytes < REPLY_BYTES)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "REPLY of %u bytes", len_bytes);
    uint32_t fixed = cfsr_load_le16(p + HEAD_FIXED_BYTES);
    struct cfsr_reply reply = {
        .id = cfsr_load_le64(p + REPLY_ID),
        .kind = cfsr_load_le16(p + REPLY_KIND),
        .lane = cfsr_load_le16(p + REPLY_LANE),
        .lsn_from = cfsr_load_le64(p + REPLY_LSN_FROM),
        .lsn_to = cfsr_load_le64(p + REPLY_LSN_TO),
        .count = cfsr_load_le32(p + REPLY_COUNT),
        .body_bytes = cfsr_load_le32(p + REPLY_BODY_BYTES),
    };
    if (fixed < REPLY_BYTES || (uint64_t)fixed + reply.body_bytes != len_bytes)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "REPLY declares %u + %u bytes and has %u", fixed,
                         reply.body_bytes, len_bytes);
    reply.body = p + fixed;
    int rc = cfsr_wire_reserved_check(p + HEAD_ITEM_BYTES, HEAD_BYTES - HEAD_ITEM_BYTES, "REPLY");
    if (rc == 0)
        rc = cfsr_wire_reserved_check(p + REPLY_RESERVED_END, REPLY_BYTES - REPLY_RESERVED_END,
                                      "REPLY");
    if (rc == 0)
        rc = cfsr_wire_status_load(p + REPLY_STATUS, &reply.status, "REPLY");
    if (rc == 0)
        rc = subject_check(reply.id, reply.kind, reply.lane, reply.lsn_from, reply.lsn_to, "REPLY");
    if (rc == 0)
        rc = body_check(&reply);
    if (rc == 0)
        *reply_out = reply;
    return rc;
}

uint32_t cfsr_reply_fixed_bytes(const void *payload)
{
    return cfsr_load_le16((const uint8_t *)payload + HEAD_FIXED_BYTES);
}

void cfsr_reply_window_store(void *body, uint32_t at, uint64_t index,
                             const uint8_t digest[CFSR_DIGEST_LEN_BYTES])
{
    uint8_t *window = (uint8_t *)body + (size_t)at * WINDOW_BYTES;
    CFSR_ASSERT(at < CFSR_REPLY_WINDOWS_MAX);
    cfsr_store_le64(window + WINDOW_INDEX, index);
    memcpy(window + WINDOW_DIGEST, digest, CFSR_DIGEST_LEN_BYTES);
}

uint64_t cfsr_reply_window_load(const struct cfsr_reply *reply, uint32_t at,
                                const uint8_t **digest_out)
{
    CFSR_ASSERT(reply->kind == CFSR_QUERY_DIGESTS && at < reply->count);
    const uint8_t *window = reply->body + (size_t)at * WINDOW_BYTES;
    *digest_out = window + WINDOW_DIGEST;
    return cfsr_load_le64(window + WINDOW_INDEX);
}
