/*
 * rdma/rdma.h - inside of the RDMA transport: the group, the connection, and who does what.
 *
 *   rdma.c        the table, group life, poll, flush, sleep and wake-up, statistics
 *   device.c      the device of a group: protection domain, queues, registered memory
 *   connection.c  states of a connection from accept or connect to on_closed
 *   manager.c     connection manager: addresses, dialling, accepting, its events
 *   send.c        frames into work requests, completions of sends
 *   receive.c     posted slots, messages into frames, upcalls with data
 *   credits.c     who may send how much
 *   alive.c       whether the other end is still there
 *   listener.c    the control thread's side
 *
 * One reliable queue pair a connection. The receive ring of a connection is mapped twice in a row
 * and cut into equal slots; every slot is a posted receive, in the order of the ring, and every
 * posted receive is a credit of the peer. A frame longer than a slot is sent as several messages
 * that fill their slots, so it lies contiguous in the ring, begins on a page, and can be written to
 * disk from where it arrived. A frame is begun only when there are credits for all of it: nothing
 * stops in the middle of one, and no other message may come between its parts.
 *
 * No remote key exists: the peer can reach only slots that are posted, never one that was shown.
 */
#ifndef CFSR_TRANSPORT_RDMA_H
#define CFSR_TRANSPORT_RDMA_H

#include "transport/transport.h"

#include <cfsrepl/error.h>

#include "transport/rdma/credits.h"

#include "base/counters.h"
#include "base/list.h"
#include "base/pool.h"
#include "core/ring.h"
#include "core/slab.h"
#include "core/timer.h"

#include <rdma/rdma_cma.h>
#include <sys/socket.h>

#define CFSR_RDMA_DATA_MAX    64 /* frames queued a connection: powers of two */
#define CFSR_RDMA_CONTROL_MAX 16
#define CFSR_RDMA_SGE_MAX     CFSR_FRAME_PIECES_MAX
#define CFSR_RDMA_WR_BATCH    32
/* Pieces in memory nobody registered (frame headers) are copied, up to this much a message. */
#define CFSR_RDMA_BOUNCE_BYTES 4096u
#define CFSR_RDMA_BOUNCES      256u
#define CFSR_RDMA_REGIONS_MAX  32
/* Send queue entries kept for grants, the end and the marker of a drain. */
#define CFSR_RDMA_SEND_RESERVED 4u

/*
 * The immediate of every message (32 bits, host order here): bits 0-15 credits granted, 16-19 kind,
 * the rest 0.
 */
enum cfsr_rdma_kind {
    CFSR_RDMA_MORE,  /* fills its slot; the frame goes on in the next message */
    CFSR_RDMA_LAST,  /* the last or only part of a frame */
    CFSR_RDMA_GRANT, /* empty: carries a grant only */
    CFSR_RDMA_END,   /* empty: nothing follows */
    CFSR_RDMA_KINDS
};

/*
 * Private data of the connection manager; 56 bytes are what a request can carry.
 * Request: 0 32 preamble; 32 16 geometry. Reply: 0 16 geometry. Refusal: 0 4 magic, 4 4 error.
 * Geometry: 0 4 magic "CFR1"; 4 2 version; 6 2 features (0); 8 4 slot bytes; 12 4 slots.
 */
#define CFSR_RDMA_MAGIC          0x31524643u
#define CFSR_RDMA_VERSION        1
#define CFSR_RDMA_GEOMETRY_BYTES 16
#define CFSR_RDMA_REQUEST_BYTES  (CFSR_PREAMBLE_BYTES + CFSR_RDMA_GEOMETRY_BYTES)
#define CFSR_RDMA_REFUSAL_BYTES  8
_Static_assert(CFSR_RDMA_REQUEST_BYTES <= 56, "private data of a request over RDMA_PS_TCP");
struct cfsr_rdma_geometry {
    uint32_t slot_bytes; /* a power of two, 4 KiB … 1 MiB */
    uint32_t slots;
};

enum cfsr_rdma_state {
    CFSR_RDMA_RESOLVING,  /* dialler: address, then route */
    CFSR_RDMA_CONNECTING, /* dialler: request sent */
    CFSR_RDMA_ACCEPTING,  /* reply sent */
    CFSR_RDMA_OPEN,
    CFSR_RDMA_LINGER,  /* closed by us: queued frames go out, what arrives is forgotten */
    CFSR_RDMA_DRAIN,   /* all is sent and END too: waits for the peer to go */
    CFSR_RDMA_CLOSING, /* the queue pair is in error; flushed completions are collected */
};

struct cfsr_incoming {
    struct rdma_cm_id *id;          /* of the listener's channel, which lasts as long */
    struct cfsr_listener *listener; /* a share in it */
    struct cfsr_rdma_geometry geometry;
};

/* What recv_hold() hands out: a place in a ring, so that holding cannot fail. */
struct cfsr_recv_hold {
    bool is_held;
};

/* What a connection needs besides its own structure; made at start. */
struct cfsr_rdma_ring {
    struct cfsr_list link; /* in group->rings_free */
    struct cfsr_recv_hold hold;
    struct cfsr_mirror mirror;
    struct ibv_mr *mr;
    struct cfsr_rdma_sent *queue;      /* send_depth entries */
    struct cfsr_rdma_arrived *arrived; /* an entry a slot */
};

struct cfsr_rdma_region {
    uint8_t *base;
    size_t len_bytes;
    struct ibv_mr *mr;
};

/* A connection's place: completions name it with its generation, so late ones find nobody. */
struct cfsr_rdma_place {
    struct cfsr_conn *conn;
    uint32_t generation;
};

struct cfsr_group {
    struct cfsr_ring *ring;
    struct cfsr_timers *timers;
    struct cfsr_pool *conns;
    struct cfsr_rdma_place *places;
    uint32_t places_count;
    uint32_t conns_open;
    struct cfsr_list open, ready, dirty;
    struct cfsr_list rings_free;
    struct cfsr_rdma_ring *rings;
    uint32_t rings_count;
    uint32_t rings_held; /* of them: by recv_hold() */
    uint32_t recv_ring_bytes;
    uint32_t frame_max_bytes;
    struct cfsr_rdma_geometry geometry;
    uint32_t send_depth;
    uint32_t inline_bytes; /* asked for; granted ones are in the connection */
    uint64_t credit_timeout_ns;

    struct ibv_context *verbs; /* of the connection manager, for the life of the process */
    struct ibv_pd *pd;
    struct ibv_comp_channel *completions;
    struct ibv_cq *cq;
    uint32_t cq_entries, cq_reserved;
    struct cfsr_rdma_region regions[CFSR_RDMA_REGIONS_MAX];
    uint32_t regions_count, region_last;
    uint8_t *bounce;
    struct ibv_mr *bounce_mr;
    uint16_t bounce_free[CFSR_RDMA_BOUNCES];
    uint32_t bounce_free_count;

    struct rdma_event_channel *manager;
    struct sockaddr_storage source; /* family 0: the system chooses */
    struct cfsr_ring_op manager_op, completion_op;
    bool manager_watched, manager_ready;
    bool completion_watched, completion_ready, notify_asked;
    bool tearing_down;
    bool device_gone;     /* removed: connections end, then everything of it is let go */
    bool device_released; /* that has been done */
    bool completion_cancelled;
    struct rdma_cm_id **leaving; /* of connections that are gone: end when their port is up again */
    uint32_t leaving_count;      /* at most places_count */
    struct cfsr_timer leaving_timer;

    /* Adaptive polling before sleep. */
    uint64_t poll_max_ns, poll_ns;
    uint64_t idle_since_ns; /* 0: work was found since the last look */
    bool found_work;

    struct cfsr_group_counters {
#define X(name) cfsr_counter name;
        CFSR_TRANSPORT_COUNTERS(X)
#undef X
    } counters;
};

/* Counters run freely; index = counter & mask. released <= sent <= posted <= tail. */
struct cfsr_rdma_lane {
    struct cfsr_frame *frames;
    uint32_t mask;
    uint32_t released; /* cookies given back */
    uint32_t sent;     /* completed */
    uint32_t posted;   /* wholly in work requests */
    uint32_t tail;
    bool wants_writable;
};

/* One work request in the send queue. */
struct cfsr_rdma_sent {
    uint8_t kind;
    uint8_t stream;
    uint16_t bounce; /* number + 1; 0: none */
    uint32_t len_bytes;
};

/* What arrived, in order: a frame, or an empty message that only uses its slot. */
struct cfsr_rdma_arrived {
    uint64_t first_slot; /* free running */
    uint32_t slots;
    uint32_t len_bytes; /* 0: nothing to show */
};

struct cfsr_conn {
    struct cfsr_list open, ready, dirty;
    struct cfsr_group *group;
    const struct cfsr_conn_events *events;
    void *user;
    uint32_t place;
    uint32_t generation;
    enum cfsr_rdma_state state;
    struct rdma_cm_id *id;
    struct cfsr_rdma_ring *ring; /* NULL: recv_hold() took it */
    int failure; /* noted by a completion or event; poll acts on it after showing what arrived */
    int reason;  /* for on_closed */
    struct cfsr_timer timer;        /* dial, accept, linger or drain deadline */
    struct cfsr_timer credit_timer; /* frames wait for credits */
    struct cfsr_timer alive_timer;
    uint64_t looked_head, looked_slot; /* where sending and receiving were at its last look */
    uint32_t stuck_looks;
    bool has_queue_pair;
    bool connected_owed;
    bool drained; /* nothing more is waited for */
    bool untaken_grace;
    bool end_received;
    bool end_sent;
    bool dialled;
    bool fault_stall;
    bool fault_short_send;
    bool fault_flip_bit;
    bool fault_completion;

    struct cfsr_rdma_credits credits;
    struct cfsr_rdma_geometry peer;
    uint32_t inline_bytes;

    /* sending */
    struct cfsr_rdma_lane lanes[2];
    struct cfsr_frame data[CFSR_RDMA_DATA_MAX];
    struct cfsr_frame control[CFSR_RDMA_CONTROL_MAX];
    size_t begun_bytes; /* of the frame at the head of begun_stream; 0: none is begun */
    enum cfsr_stream begun_stream;
    struct cfsr_rdma_sent *queue; /* of the ring */
    uint64_t queue_head, queue_tail;
    uint32_t unsignalled;
    uint64_t bytes_sent;
    uint32_t flushing_receives; /* posted, without a completion yet */

    /* receiving */
    struct cfsr_rdma_arrived *arrived; /* of the ring */
    uint64_t arrived_head, arrived_taken, arrived_tail;
    uint64_t next_slot; /* of the next message */
    uint32_t part_slots;
    uint32_t part_bytes;
    size_t released_bytes; /* given back and not yet a whole frame */
    size_t early_release_bytes;
    bool show, refused, showing;
    uint64_t bytes_received;

    uint8_t preamble[CFSR_PREAMBLE_BYTES];
    char remote[CFSR_ENDPOINT_MAX];
};

/* device.c */
int cfsr_rdma_device_open(struct cfsr_group *group, const struct cfsr_rdma_options *options);
void cfsr_rdma_device_close(struct cfsr_group *group);
/* Any thread: the connection manager says that this device is being removed. */
void cfsr_rdma_device_removed(struct ibv_context *verbs);
/* Whether anybody has been told so of the group's device. */
bool cfsr_rdma_device_is_gone(const struct cfsr_group *group);
/* Everything but memory goes back to a device that is gone; no connection is left. */
void cfsr_rdma_device_release(struct cfsr_group *group);
int cfsr_rdma_region_add(struct cfsr_group *group, void *base, size_t len_bytes);
void cfsr_rdma_region_remove(struct cfsr_group *group, void *base);
/* True and the local key if all of it is registered. */
bool cfsr_rdma_region_find(struct cfsr_group *group, const void *at, size_t len_bytes,
                           uint32_t *lkey_out);
int cfsr_rdma_register(struct cfsr_group *group, void *base, size_t len_bytes,
                       struct ibv_mr **mr_out);

/* connection.c */
int cfsr_rdma_conn_create(struct cfsr_group *group, const struct cfsr_conn_events *events,
                          void *user, struct cfsr_conn **conn_out);
void cfsr_rdma_conn_ready(struct cfsr_conn *conn);
void cfsr_rdma_conn_want_flush(struct cfsr_conn *conn);
unsigned cfsr_rdma_conn_run(struct cfsr_conn *conn, unsigned budget);
void cfsr_rdma_conn_fail(struct cfsr_conn *conn, int failure);
void cfsr_rdma_conn_opened(struct cfsr_conn *conn);
/* Puts the queue pair into error; on_closed(reason) comes from a later poll. */
void cfsr_rdma_conn_shut(struct cfsr_conn *conn, int reason);
/* Gives back all the connection holds, without upcalls. */
void cfsr_rdma_conn_destroy(struct cfsr_conn *conn);
int cfsr_rdma_queue_pair_create(struct cfsr_conn *conn);
void cfsr_rdma_timer_start(struct cfsr_conn *conn, struct cfsr_timer *timer, uint64_t timeout_ns);
void cfsr_rdma_timer_stop(struct cfsr_conn *conn, struct cfsr_timer *timer);
void cfsr_rdma_close(struct cfsr_conn *conn, bool linger);
void cfsr_rdma_conn_info(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out);
int cfsr_rdma_inject(struct cfsr_conn *conn, enum cfsr_inject fault);

/* manager.c */
int cfsr_rdma_resolve(const char *endpoint, bool passive, struct sockaddr_storage *address_out);
void cfsr_rdma_name(const struct sockaddr *address, char *name_out, size_t name_len);
void cfsr_rdma_geometry_store(const struct cfsr_rdma_geometry *geometry, void *bytes_out);
/* -CFSR_E_FORMAT, -CFSR_E_VERSION */
int cfsr_rdma_geometry_load(const void *bytes, struct cfsr_rdma_geometry *geometry_out);
void cfsr_rdma_refuse(struct rdma_cm_id *id, int error);
/* Whether the peer may be told now that the connection ended so (0 or -errno). */
bool cfsr_rdma_may_say_goodbye(const struct rdma_cm_id *id, int failure);
/* Ends an id whose queue pair is gone, now or when the peer may be told. */
void cfsr_rdma_leave(struct cfsr_group *group, struct rdma_cm_id *id, int failure);
void cfsr_rdma_leaving_init(struct cfsr_group *group);
void cfsr_rdma_leave_all(struct cfsr_group *group);
int cfsr_rdma_connect(struct cfsr_group *group, const char *endpoint,
                      const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                      const struct cfsr_conn_events *events, void *user,
                      struct cfsr_conn **conn_out);
int cfsr_rdma_accept(struct cfsr_group *group, struct cfsr_incoming *incoming,
                     const struct cfsr_conn_events *events, void *user,
                     struct cfsr_conn **conn_out);
unsigned cfsr_rdma_manager_events(struct cfsr_group *group);

/* send.c */
void cfsr_rdma_send_init(struct cfsr_conn *conn);
int cfsr_rdma_send(struct cfsr_conn *conn, enum cfsr_stream stream, const struct cfsr_frame *frames,
                   unsigned count);
/* Posts what may be sent now, in as few calls as possible. */
void cfsr_rdma_send_start(struct cfsr_conn *conn);
/* A signalled send completed: it and all before it are done. */
void cfsr_rdma_send_done(struct cfsr_conn *conn, uint32_t sequence);
void cfsr_rdma_send_marker(struct cfsr_conn *conn);
bool cfsr_rdma_send_is_idle(const struct cfsr_conn *conn);
unsigned cfsr_rdma_show_sent(struct cfsr_conn *conn, unsigned budget, bool all);
bool cfsr_rdma_sent_is_owed(const struct cfsr_conn *conn);
bool cfsr_rdma_take_writable(struct cfsr_conn *conn);
bool cfsr_rdma_owes_writable(const struct cfsr_conn *conn);
uint32_t cfsr_rdma_unsent(const struct cfsr_conn *conn);
/* A send ended with an error: it and all before it need their memory no more. */
void cfsr_rdma_send_flushed(struct cfsr_conn *conn, uint32_t sequence);
/* The same for all that will not complete. */
void cfsr_rdma_send_forget(struct cfsr_conn *conn);

/* An empty RDMA write: the peer's device answers, nothing else. Negative errno. */
int cfsr_rdma_send_empty_write(struct cfsr_conn *conn);

/* alive.c */
void cfsr_rdma_alive_init(struct cfsr_conn *conn);
/* From the time it is open until conn_shut() stops alive_timer. */
void cfsr_rdma_alive_start(struct cfsr_conn *conn);

/* receive.c */
/* All slots, before the connection is made. */
int cfsr_rdma_receive_start(struct cfsr_conn *conn);
void cfsr_rdma_receive_post(struct cfsr_conn *conn);
void cfsr_rdma_received(struct cfsr_conn *conn, uint32_t len_bytes, uint32_t immediate,
                        bool has_immediate);
unsigned cfsr_rdma_show(struct cfsr_conn *conn, unsigned budget);
size_t cfsr_rdma_untaken(const struct cfsr_conn *conn);
void cfsr_rdma_recv_release(struct cfsr_conn *conn, size_t len_bytes);
void cfsr_rdma_recv_resume(struct cfsr_conn *conn);
struct cfsr_recv_hold *cfsr_rdma_recv_hold(struct cfsr_conn *conn);
void cfsr_rdma_recv_drop(struct cfsr_group *group, struct cfsr_recv_hold *hold);

/* rdma.c */
enum {
    CFSR_RDMA_WR_RECEIVE = 0,
    CFSR_RDMA_WR_SEND = 1,
};
/* Names a work request: place, generation, direction, sequence. */
uint64_t cfsr_rdma_wr_id(const struct cfsr_conn *conn, unsigned direction, uint32_t sequence);
/* Reads the completion queue until it is empty or limit is reached; returns how many. */
unsigned cfsr_rdma_completions(struct cfsr_group *group, unsigned limit);

/* listener.c */
int cfsr_rdma_listen(const char *endpoint, void *sim, struct cfsr_listener **listener_out);
int cfsr_rdma_listener_fd(struct cfsr_listener *listener);
const char *cfsr_rdma_listener_endpoint(struct cfsr_listener *listener);
int cfsr_rdma_listener_accept(struct cfsr_listener *listener, uint64_t now_ns,
                              struct cfsr_incoming **incoming_out,
                              struct cfsr_preamble *preamble_out);
void cfsr_rdma_listener_close(struct cfsr_listener *listener);
uint64_t cfsr_rdma_listener_deadline(struct cfsr_listener *listener);
uint64_t cfsr_rdma_listener_dropped(const struct cfsr_listener *listener);
void cfsr_rdma_incoming_discard(struct cfsr_incoming *incoming);
/* Any thread: one share in a listener less; the last one ends its channel. */
void cfsr_rdma_listener_put(struct cfsr_listener *listener);

#endif
