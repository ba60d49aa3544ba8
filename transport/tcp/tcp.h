/*
 * tcp/tcp.h - inside of the TCP transport: the group, the connection, and who does what.
 *
 *   tcp.c         the table, group life, poll and flush, statistics
 *   connection.c  states of a connection from accept or connect to on_closed
 *   receive.c     receives into the small buffer or a pooled ring, upcalls with data
 *   send.c        gathered sends, upcalls for sent frames
 *   dial.c        addresses and connect
 *   listener.c    the control thread's side
 *
 * A connection lives on its group's lists. Completions arrive whenever the core reaps its ring:
 * they only note the result and put the connection on the ready list; poll makes all the upcalls.
 */
#ifndef CFSR_TRANSPORT_TCP_H
#define CFSR_TRANSPORT_TCP_H

#include "transport/transport.h"

#include "transport/receive_ring.h"
#include "transport/send_queue.h"

#include "base/counters.h"
#include "base/list.h"
#include "base/pool.h"
#include "core/ring.h"
#include "core/slab.h"
#include "core/timer.h"

#include <sys/socket.h>

/* Enough for acks and heartbeats, so that a connection without bulk data never needs a ring. */
#define CFSR_TCP_SMALL_BYTES 4096
/* Bytes that arrive after close(linger) are read into this and forgotten. */
#define CFSR_TCP_DISCARD_BYTES (64 * 1024)

enum cfsr_tcp_state {
    CFSR_TCP_CONNECTING, /* the connect operation is in flight */
    CFSR_TCP_OPEN,
    CFSR_TCP_LINGER,  /* closed by us: queued frames go out, what arrives is discarded */
    CFSR_TCP_DRAIN,   /* all is sent and FIN too: waits for the peer's, so that no RST eats data */
    CFSR_TCP_CLOSING, /* operations are being cancelled; on_closed follows the last completion */
};

struct cfsr_incoming {
    int fd;
};

struct cfsr_tcp_ring {
    struct cfsr_list link; /* in group->rings_free */
    struct cfsr_mirror mirror;
};

struct cfsr_group {
    struct cfsr_ring *ring;
    struct cfsr_timers *timers;
    struct cfsr_pool *conns;
    struct cfsr_list open;      /* every connection */
    struct cfsr_list ready;     /* poll has something to do */
    struct cfsr_list dirty;     /* flush has something to send */
    struct cfsr_list ring_wait; /* reading paused until a receive ring is free */
    struct cfsr_list ring_held; /* connections that hold one */
    struct cfsr_list rings_free;
    struct cfsr_tcp_ring *rings;
    uint32_t rings_count;
    uint32_t recv_ring_bytes;
    uint32_t recv_low_bytes; /* no receive for less free space than this */
    uint32_t send_gather_bytes;
    uint64_t polls;
    uint8_t *discard;
    struct cfsr_group_counters {
#define X(name) cfsr_counter name;
        CFSR_TRANSPORT_COUNTERS(X)
#undef X
    } counters;
};

struct cfsr_conn {
    struct cfsr_list open;
    struct cfsr_list ready;
    struct cfsr_list dirty;
    struct cfsr_list ring_wait;
    struct cfsr_list ring_held;
    struct cfsr_group *group;
    const struct cfsr_conn_events *events;
    void *user;
    enum cfsr_tcp_state state;
    int fd;
    int failure;            /* noted by a completion; poll acts on it after showing what arrived */
    int reason;             /* for on_closed */
    uint32_t operations;    /* in flight in the ring */
    bool connected_owed;    /* on_connected has not been called */
    bool connect_in_flight; /* these three own their op until its completion */
    bool receive_in_flight;
    bool send_in_flight;
    bool show;    /* there is something new to show */
    bool refused; /* the callee took nothing of all that is there */
    bool showing; /* on_data is being called */
    bool end_of_stream;
    bool reclaiming;    /* the receive is being cancelled to give the ring back */
    bool abortive;      /* no FIN: the peer is to see a reset */
    bool untaken_grace; /* the stream ended with bytes untaken: their deadline is running */
    bool fault_stall;   /* injected faults */
    bool fault_short_send;
    bool fault_flip_bit;
    struct cfsr_ring_op connect_op;
    struct cfsr_ring_op receive_op;
    struct cfsr_ring_op send_op;
    struct cfsr_timer timer; /* dial or linger deadline */

    struct cfsr_tcp_ring *receive_ring;
    struct cfsr_receive receive;
    size_t early_release_bytes; /* given back from inside on_data */
    uint64_t last_data_poll;    /* group->polls when data last arrived */
    uint64_t bytes_received;

    struct cfsr_send_queue queue;
    size_t send_bytes; /* of the send in flight */
    uint64_t bytes_sent;
    uint32_t preamble_left;
    uint8_t preamble[CFSR_PREAMBLE_BYTES];
    struct msghdr message;
    struct iovec iov[CFSR_SEND_IOV_MAX];

    struct sockaddr_storage address; /* dialled; must outlive the connect operation */
    uint8_t small[CFSR_TCP_SMALL_BYTES];
};

/* connection.c */
int cfsr_tcp_conn_create(struct cfsr_group *group, int fd, const struct cfsr_conn_events *events,
                         void *user, struct cfsr_conn **conn_out);
void cfsr_tcp_conn_ready(struct cfsr_conn *conn);
unsigned cfsr_tcp_conn_run(struct cfsr_conn *conn, unsigned budget);
/* Cancels everything; on_closed(reason) comes from a later poll. Harmless if already closing. */
void cfsr_tcp_conn_shut(struct cfsr_conn *conn, int reason);
/* Gives back what the connection holds; no operation may be in flight. */
void cfsr_tcp_conn_destroy(struct cfsr_conn *conn);
void cfsr_tcp_operation_done(struct cfsr_conn *conn);
/* Dial or linger deadline, whichever the state calls for. */
void cfsr_tcp_timer_start(struct cfsr_conn *conn, uint64_t timeout_ns);
void cfsr_tcp_timer_stop(struct cfsr_conn *conn);
int cfsr_tcp_accept(struct cfsr_group *group, struct cfsr_incoming *incoming,
                    const struct cfsr_conn_events *events, void *user, struct cfsr_conn **conn_out);
void cfsr_tcp_close(struct cfsr_conn *conn, bool linger);
void cfsr_tcp_conn_info(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out);
int cfsr_tcp_inject(struct cfsr_conn *conn, enum cfsr_inject fault);

/* receive.c */
void cfsr_tcp_receive_init(struct cfsr_conn *conn);
unsigned cfsr_tcp_show(struct cfsr_conn *conn, unsigned budget);
void cfsr_tcp_receive_arm(struct cfsr_conn *conn);
void cfsr_tcp_receive_ring_put(struct cfsr_conn *conn);
void cfsr_tcp_receive_rings_reclaim(struct cfsr_group *group);
void cfsr_tcp_recv_release(struct cfsr_conn *conn, size_t len_bytes);
void cfsr_tcp_recv_resume(struct cfsr_conn *conn);

/* send.c */
void cfsr_tcp_send_init(struct cfsr_conn *conn);
int cfsr_tcp_send(struct cfsr_conn *conn, enum cfsr_stream stream, const struct cfsr_frame *frames,
                  unsigned count);
/* The next flush looks at this connection. */
void cfsr_tcp_send_want(struct cfsr_conn *conn);
/* Puts the next gathered send into the ring, if there is anything to send and none in flight. */
void cfsr_tcp_send_start(struct cfsr_conn *conn);
unsigned cfsr_tcp_show_sent(struct cfsr_conn *conn, unsigned budget, bool all);
bool cfsr_tcp_send_is_idle(const struct cfsr_conn *conn);

/* dial.c */
int cfsr_tcp_resolve(const char *endpoint, bool passive, struct sockaddr_storage *address_out,
                     socklen_t *address_len_out);
void cfsr_tcp_local_name(int fd, char *name_out, size_t name_len);
void cfsr_tcp_remote_name(int fd, char *name_out, size_t name_len);
int cfsr_tcp_connect(struct cfsr_group *group, const char *endpoint,
                     const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                     const struct cfsr_conn_events *events, void *user,
                     struct cfsr_conn **conn_out);
int cfsr_tcp_socket_options(int fd);

/* listener.c */
int cfsr_tcp_listen(const char *endpoint, void *sim, struct cfsr_listener **listener_out);
int cfsr_tcp_listener_fd(struct cfsr_listener *listener);
const char *cfsr_tcp_listener_endpoint(struct cfsr_listener *listener);
int cfsr_tcp_listener_accept(struct cfsr_listener *listener, uint64_t now_ns,
                             struct cfsr_incoming **incoming_out,
                             struct cfsr_preamble *preamble_out);
void cfsr_tcp_listener_close(struct cfsr_listener *listener);
uint64_t cfsr_tcp_listener_deadline(struct cfsr_listener *listener);
uint64_t cfsr_tcp_listener_dropped(const struct cfsr_listener *listener);
void cfsr_tcp_incoming_discard(struct cfsr_incoming *incoming);

#endif
