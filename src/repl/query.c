/*
 * query.c - questions and answers of one connection (query.h). Sans-I/O.
 *
 * Thread:     the connection's.
 * Invariants: one query each way; ids of a direction are 1, 2, 3 …; an answer names the kind, lane
 * and range of its question, and no byte of it is shown to anybody before that.
 * Rejected:   several queries in flight (the asker repairs one range at a time anyway, and each
 * would need its own bound on the server's work); reusing a connection whose answer is overdue (its
 * late reply would be taken for the next one's).
 */
#include "repl/query.h"

#include <string.h>

#include "base/assert.h"
#include "base/fail.h"
#include "journal/digest.h"

void cfsr_query_port_reset(struct cfsr_query_port *port)
{
    *port = (struct cfsr_query_port){.deadline_ns = UINT64_MAX};
}

uint32_t cfsr_query_port_ask(struct cfsr_query_port *port, const struct cfsr_query *query,
                             uint64_t deadline_ns, void *payload_out)
{
    CFSR_ASSERT(!port->asking);
    port->asking = true;
    port->abandoned = false;
    port->asked = *query;
    port->asked.id = ++port->last_asked_id;
    port->deadline_ns = deadline_ns;
    return cfsr_query_store(&port->asked, payload_out);
}

void cfsr_query_port_abandon(struct cfsr_query_port *port)
{
    port->abandoned = true;
    port->deadline_ns = UINT64_MAX;
}

bool cfsr_query_port_expired(struct cfsr_query_port *port, uint64_t now_ns)
{
    if (!port->asking || port->abandoned || now_ns < port->deadline_ns)
        return false;
    cfsr_query_port_abandon(port);
    return true;
}

int cfsr_query_port_on_query(struct cfsr_query_port *port, const void *payload, uint32_t len_bytes,
                             uint64_t lane_mask)
{
    struct cfsr_query query;
    int rc = cfsr_query_load(payload, len_bytes, &query);

    if (rc < 0)
        return rc;
    if (port->serving)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "QUERY %llu before the answer to %llu",
                         (unsigned long long)query.id, (unsigned long long)port->served.id);
    if (query.id != port->last_served_id + 1)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "QUERY %llu where %llu was due",
                         (unsigned long long)query.id,
                         (unsigned long long)port->last_served_id + 1);
    if ((lane_mask >> query.lane & 1) == 0)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "QUERY for lane %u, which this connection lacks",
                         query.lane);
    port->serving = true;
    port->served = query;
    port->last_served_id = query.id;
    return 0;
}

/* Windows in ascending order, each of them whole inside the range that the answer claims. */
static int windows_check(const struct cfsr_reply *reply)
{
    uint64_t next = 0;

    for (uint32_t i = 0; i < reply->count; i++) {
        const uint8_t *digest;
        uint64_t index = cfsr_reply_window_load(reply, i, &digest);
        if (index < next || index >= UINT64_MAX / CFSR_DIGEST_WINDOW_BYTES ||
            index * CFSR_DIGEST_WINDOW_BYTES < reply->lsn_from ||
            (index + 1) * CFSR_DIGEST_WINDOW_BYTES > reply->lsn_to)
            return cfsr_fail(-CFSR_E_BAD_FRAME, "REPLY holds window %llu out of place",
                             (unsigned long long)index);
        next = index + 1;
    }
    return 0;
}

static int range_check(const struct cfsr_query *query, const struct cfsr_reply *reply)
{
    bool fits;

    if (reply->status != 0)
        fits = reply->lsn_from == query->lsn_from && reply->lsn_to == query->lsn_to;
    else if (reply->kind == CFSR_QUERY_RECORDS)
        fits = reply->lsn_from <= query->lsn_from && reply->lsn_to > query->lsn_from;
    else
        fits = reply->lsn_from == query->lsn_from && reply->lsn_to <= query->lsn_to;
    if (!fits)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "REPLY holds [%llu, %llu) where [%llu, %llu) was asked",
                         (unsigned long long)reply->lsn_from, (unsigned long long)reply->lsn_to,
                         (unsigned long long)query->lsn_from, (unsigned long long)query->lsn_to);
    return 0;
}

int cfsr_query_port_on_reply(struct cfsr_query_port *port, const void *payload, uint32_t len_bytes)
{
    struct cfsr_reply reply;
    int rc;

    if (!port->asking)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "REPLY that answers no QUERY");
    rc = cfsr_reply_load(payload, len_bytes, &reply);
    if (rc < 0)
        return rc;
    if (reply.id != port->asked.id || reply.kind != port->asked.kind ||
        reply.lane != port->asked.lane)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "REPLY %llu of kind %u for lane %u answers no QUERY",
                         (unsigned long long)reply.id, reply.kind, reply.lane);
    rc = range_check(&port->asked, &reply);
    if (rc == 0 && reply.kind == CFSR_QUERY_DIGESTS)
        rc = windows_check(&reply);
    if (rc < 0)
        return rc;
    port->asking = false;
    port->deadline_ns = UINT64_MAX;
    port->answer = reply;
    return port->abandoned ? 0 : 1;
}

void cfsr_query_port_answered(struct cfsr_query_port *port)
{
    CFSR_ASSERT(port->serving);
    port->serving = false;
}
