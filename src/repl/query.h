/*
 * query.h - one connection's questions and answers: what this side asked and what it was asked.
 * Sans-I/O.
 *
 * Each direction of a connection has at most one QUERY outstanding. Ours is awaited until a
 * deadline; one that was given up on still occupies the connection until its late REPLY came, which
 * is then dropped. Theirs is served one at a time: a second one before our REPLY is a fault of the
 * peer, so that no peer can keep the helper thread busy with more than one job a connection.
 *
 * Embedded in sender and receiver; owned by the connection's thread. Everything from the peer is
 * checked.
 */
#ifndef CFSR_REPL_QUERY_H
#define CFSR_REPL_QUERY_H

#include <stdbool.h>
#include <stdint.h>

#include "repl/wire.h"

struct cfsr_query_port {
    uint64_t last_asked_id, last_served_id;
    bool asking;    /* asked awaits its REPLY */
    bool abandoned; /* … which nobody waits for any more */
    bool serving;   /* served awaits our REPLY */
    struct cfsr_query asked, served;
    struct cfsr_reply answer; /* the last one; its body lives as long as the frame it came in */
    uint64_t deadline_ns;     /* of asked; UINT64_MAX: nothing is awaited */
};

/* A fresh connection. */
void cfsr_query_port_reset(struct cfsr_query_port *port);

/* Whether a QUERY may go out: none is on its way, abandoned ones included. */
static inline bool cfsr_query_port_is_free(const struct cfsr_query_port *port)
{
    return !port->asking;
}
/* Takes the query, gives it its id and stores it as a QUERY payload (CFSR_CONTROL_MAX_BYTES); its
 * length. The port must be free (asserted). */
uint32_t cfsr_query_port_ask(struct cfsr_query_port *port, const struct cfsr_query *query,
                             uint64_t deadline_ns, void *payload_out);
/* True once when the awaited REPLY is overdue: it is given up on. */
bool cfsr_query_port_expired(struct cfsr_query_port *port, uint64_t now_ns);
/* The asker lost its interest; a REPLY may still come and is dropped. */
void cfsr_query_port_abandon(struct cfsr_query_port *port);

/*
 * A QUERY arrived: lane_mask are the lanes of the connection. 0 and port->served is to be answered;
 * -CFSR_E_BAD_FRAME: malformed, out of turn, or another one is being served.
 */
int cfsr_query_port_on_query(struct cfsr_query_port *port, const void *payload, uint32_t len_bytes,
                             uint64_t lane_mask);
/* Before the REPLY's body is waited for: something is asked. */
static inline bool cfsr_query_port_expects_reply(const struct cfsr_query_port *port)
{
    return port->asking;
}
/*
 * A REPLY arrived. 1: port->answer is what is awaited; 0: it answers what was given up on;
 * -CFSR_E_BAD_FRAME: malformed, not asked for, or it answers something else.
 */
int cfsr_query_port_on_reply(struct cfsr_query_port *port, const void *payload, uint32_t len_bytes);
/* Our REPLY to port->served goes out. */
void cfsr_query_port_answered(struct cfsr_query_port *port);

#endif
