/*
 * sim/sim.h - inside of the simulated transport.
 *
 *   sim.c       the table, groups and connections: what tcp does with sockets, on pipes
 *   network.c   the network: time, links, chunks on their way, faults
 *   control.c   what the simulator does to the network (control.h)
 *   listener.c  listeners and connections not yet accepted
 *   messages.c  a second table: the same connections, a frame a span
 *
 * A link is one connection: two pipes, one a direction. What travels in a pipe is a list of items
 * in order, each with the time it is due: chunks of bytes, and the signs of life and death around
 * them. Everything random comes from one generator, and everything is done in a fixed order, so
 * that a seed gives one and the same run. One thread for all of it.
 */
#ifndef CFSR_TRANSPORT_SIM_H
#define CFSR_TRANSPORT_SIM_H

#include "transport/transport.h"

#include "transport/receive_ring.h"
#include "transport/send_queue.h"

#include "base/counters.h"
#include "base/list.h"
#include "base/pool.h"
#include "core/slab.h"

#define CFSR_SIM_ITEMS_MAX      1024 /* in a pipe; four of them kept for signs of life and death */
#define CFSR_SIM_HOSTS_MAX      64
#define CFSR_SIM_RECORDED_BYTES 2048 /* of what a dialer sends first, to be replayed */

enum cfsr_sim_item_kind {
    CFSR_SIM_SYN,    /* with the preamble */
    CFSR_SIM_SYNACK, /* the listener's host has the connection */
    CFSR_SIM_DATA,
    CFSR_SIM_FIN,
    CFSR_SIM_RST,
};

struct cfsr_sim_item {
    uint64_t due_us;
    uint64_t order; /* of making: breaks ties */
    enum cfsr_sim_item_kind kind;
    uint32_t bytes; /* DATA */
    int reason;     /* RST */
};

struct cfsr_sim_pipe {
    uint8_t *bytes; /* buffer_bytes */
    bool blocked;   /* this connection alone holds what it carries this way */
    uint64_t head, tail;
    uint64_t last_due_us;
    uint32_t items_head, items_tail; /* free running */
    struct cfsr_sim_item items[CFSR_SIM_ITEMS_MAX];
};

enum {
    CFSR_SIM_DIALER,
    CFSR_SIM_ACCEPTOR
};

struct cfsr_incoming {
    struct cfsr_sim_link *link;
};

struct cfsr_sim_link {
    struct cfsr_list link;    /* in network->links */
    struct cfsr_list pending; /* in listener->pending */
    struct cfsr_sim_network *network;
    unsigned host[2]; /* numbers in network->hosts */
    char endpoint[2][CFSR_ENDPOINT_MAX];
    struct cfsr_conn *conn[2]; /* NULL: not yet accepted, or closed */
    bool closed[2];
    bool arrived;     /* SYN was delivered */
    bool vanished[2]; /* its host lost power: it says nothing, not even that it is gone */
    bool ghost;       /* made by cfsr_sim_network_replay(): nobody dialled */
    uint32_t recorded_bytes;
    uint8_t recorded[CFSR_SIM_RECORDED_BYTES];
    uint8_t preamble[CFSR_PREAMBLE_BYTES];
    struct cfsr_incoming incoming;
    struct cfsr_sim_pipe pipe[2]; /* by the side that sends; their items are not cleared */
};

struct cfsr_listener {
    struct cfsr_list link; /* in network->listeners */
    struct cfsr_sim_network *network;
    char endpoint[CFSR_ENDPOINT_MAX];
    struct cfsr_list pending;
    unsigned pending_count;
    uint64_t dropped;
};

struct cfsr_sim_network {
    struct cfsr_sim_network_options options;
    uint64_t now_us;
    uint64_t random;
    uint64_t order;
    uint16_t next_port; /* for listeners on port 0, and dialers */
    struct cfsr_list links;
    struct cfsr_list listeners;
    struct cfsr_list conns; /* of all groups, for their deadlines */
    uint64_t digest;        /* of everything delivered */
    uint64_t deliveries;
    unsigned host_count;
    char hosts[CFSR_SIM_HOSTS_MAX][CFSR_ENDPOINT_MAX];
    bool partitioned[CFSR_SIM_HOSTS_MAX][CFSR_SIM_HOSTS_MAX]; /* from, to */
};

enum cfsr_sim_state {
    CFSR_SIM_CONNECTING,
    CFSR_SIM_OPEN,
    CFSR_SIM_LINGER,
    CFSR_SIM_CLOSING
};

struct cfsr_sim_ring {
    struct cfsr_list link;
    struct cfsr_mirror mirror;
};

struct cfsr_group {
    struct cfsr_sim_network *network;
    char host[CFSR_ENDPOINT_MAX];
    bool touched; /* something arrived, or a deadline passed, since it was last polled */
    struct cfsr_pool *conns;
    struct cfsr_list open;
    struct cfsr_list rings_free;
    struct cfsr_sim_ring *rings;
    uint32_t rings_count; /* made so far */
    uint32_t rings_max;   /* == conns_max */
    uint32_t recv_ring_bytes;
    uint32_t send_gather_bytes;
    struct cfsr_group_counters {
#define X(name) cfsr_counter name;
        CFSR_TRANSPORT_COUNTERS(X)
#undef X
    } counters;
};

struct cfsr_conn {
    struct cfsr_list open;    /* in group->open */
    struct cfsr_list network; /* in network->conns */
    struct cfsr_group *group;
    struct cfsr_sim_link *link;
    unsigned side;
    const struct cfsr_conn_events *events;
    void *user;
    enum cfsr_sim_state state;
    int failure;
    int reason;
    uint64_t deadline_us; /* UINT64_MAX: none */
    bool established;     /* the other end answered, or we accepted */
    bool connected_owed;
    bool show;
    bool showing;
    bool refused;
    bool end_of_stream;
    bool fault_stall;
    bool fault_short_send;
    bool fault_flip_bit;
    size_t early_release_bytes;
    struct cfsr_sim_ring *ring;
    struct cfsr_receive receive;
    struct cfsr_send_queue queue;
    uint64_t bytes_sent, bytes_received;
    struct iovec iov[CFSR_SEND_IOV_MAX];
};

/* network.c */
void cfsr_sim_link_free(struct cfsr_sim_link *link);
void cfsr_sim_touch(struct cfsr_conn *conn);
uint64_t cfsr_sim_random_below(struct cfsr_sim_network *network, uint64_t limit);
/* The host's number; new hosts are added. */
unsigned cfsr_sim_host(struct cfsr_sim_network *network, const char *name);
int cfsr_sim_link_create(struct cfsr_sim_network *network, const char *from_host,
                         const char *to_endpoint, struct cfsr_sim_link **link_out);
void cfsr_sim_item_push(struct cfsr_sim_link *link, unsigned side, enum cfsr_sim_item_kind kind,
                        int reason);
/* Puts bytes on their way in random chunks; returns how many there was room for. */
size_t cfsr_sim_bytes_push(struct cfsr_sim_link *link, unsigned side, const struct iovec *iov,
                           unsigned count, size_t max_bytes);
/* One side is gone; the link goes with the second. */
void cfsr_sim_link_leave(struct cfsr_sim_link *link, unsigned side);
/* Both ends see the reason at once, what is on its way is lost. */
void cfsr_sim_link_cut(struct cfsr_sim_link *link, int reason);

/* listener.c */
int cfsr_sim_listen(const char *endpoint, void *sim, struct cfsr_listener **listener_out);
int cfsr_sim_listener_fd(struct cfsr_listener *listener);
const char *cfsr_sim_listener_endpoint(struct cfsr_listener *listener);
int cfsr_sim_listener_accept(struct cfsr_listener *listener, uint64_t now_ns,
                             struct cfsr_incoming **incoming_out,
                             struct cfsr_preamble *preamble_out);
void cfsr_sim_listener_close(struct cfsr_listener *listener);
uint64_t cfsr_sim_listener_deadline(struct cfsr_listener *listener);
uint64_t cfsr_sim_listener_dropped(const struct cfsr_listener *listener);
void cfsr_sim_incoming_discard(struct cfsr_incoming *incoming);
/* A connection attempt arrives; false: nobody listens there, or too many wait. */
bool cfsr_sim_listener_offer(struct cfsr_sim_link *link);

#endif
