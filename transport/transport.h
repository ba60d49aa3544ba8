/*
 * transport.h - the transport table: how frames get to a peer's core, whatever carries them.
 *
 * One group per core, made and used on that core's thread only; connections belong to their group.
 * Listeners belong to the control thread. All results come as upcalls, and upcalls run only from
 * poll() (never from send, connect, close or flush). A completion says that memory may be reused;
 * it never says that the peer has anything durable.
 *
 * Bytes: received data is shown as one contiguous span that begins where the last on_data left off;
 * the callee returns how many bytes it took (whole frames), and gives them back with recv_release()
 * in order, later or at once. Spans stay valid and unmoved until released; bytes that the callee
 * took are its own until then, to write into as well. Byte-stream transports (tcp, sim) may show
 * part of a frame and show it again, longer; message transports (rdma; cap MESSAGES) show exactly
 * one frame a span. Spans end with their connection, unless recv_hold() keeps them.
 *
 * Sending: frames are gathered from up to four pieces of caller's memory that must stay untouched
 * until on_sent() returns their cookie. send() takes as many frames as it has room for; -EAGAIN
 * means none now, on_writable() follows. Nothing is ever dropped or copied inside send; DATA and
 * CONTROL are separate queues and CONTROL goes first (between frames, never inside one).
 *
 * After connect() or accept(): on_connected() once, or on_closed(reason). After close() or a
 * failure: on_closed() exactly once, after every pending on_sent(); then the conn is gone.
 * Everything has a deadline: nothing waits for the peer without one.
 */
#ifndef CFSR_TRANSPORT_H
#define CFSR_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define CFSR_TRANSPORT_API_VERSION 1
#define CFSR_FRAME_PIECES_MAX      4
#define CFSR_ENDPOINT_MAX          288 /* a host name of 253 characters, scheme and port */

enum cfsr_transport_cap {
    CFSR_TRANSPORT_MESSAGES = 1u << 0,   /* a span is exactly one frame; otherwise a byte stream */
    CFSR_TRANSPORT_REGISTERED = 1u << 1, /* send and receive memory must be registered first */
    /* A span begins at a multiple of CFSR_SPAN_ALIGN and may be handed to the disk where it is: so
     * may the rest of its last CFSR_SPAN_ALIGN bytes, which the callee may write. */
    CFSR_TRANSPORT_SLOTS = 1u << 2,
};
#define CFSR_SPAN_ALIGN 4096

enum cfsr_stream {
    CFSR_STREAM_DATA,
    CFSR_STREAM_CONTROL
};

/*
 * Every connection begins with a 32-byte clear preamble from the dialer, which routes it to a core;
 * it proves nothing: 0 8 magic "CFSRPRE1"; 8 2 version; 10 2 kind (0 data, 1 control); 12 4 target
 * core (a hint); 16 16 session ticket (0: none).
 */
#define CFSR_PREAMBLE_BYTES   32
#define CFSR_PREAMBLE_MAGIC   0x3145525052534643ull /* "CFSRPRE1" */
#define CFSR_PREAMBLE_VERSION 1
struct cfsr_preamble {
    uint16_t version;
    uint16_t kind;
    uint32_t target_core;
    uint8_t ticket[16];
};
void cfsr_preamble_store(const struct cfsr_preamble *preamble, void *bytes_out);
int cfsr_preamble_load(const void *bytes,
                       struct cfsr_preamble *preamble_out); /* -CFSR_E_FORMAT, -CFSR_E_VERSION */

struct cfsr_transport; /* the table below */
struct cfsr_group;     /* per core */
struct cfsr_conn;
struct cfsr_listener;  /* control thread */
struct cfsr_incoming;  /* an accepted connection on its way from the listener to a core */
struct cfsr_recv_hold; /* received bytes that outlive their connection */
struct cfsr_ring;
struct cfsr_timers;

struct cfsr_frame {
    struct iovec pieces[CFSR_FRAME_PIECES_MAX];
    unsigned count;
    uint64_t cookie; /* handed to on_sent */
};

/* All called from poll() of the conn's group. user is the conn's (connect/accept argument). */
struct cfsr_conn_events {
    void (*on_connected)(void *user, struct cfsr_conn *conn);
    /* Bytes taken (0 … len). A callee that waits for room takes 0 and later calls recv_resume(). */
    size_t (*on_data)(void *user, struct cfsr_conn *conn, uint8_t *span, size_t len_bytes);
    void (*on_sent)(void *user, struct cfsr_conn *conn, uint64_t cookie);
    void (*on_writable)(void *user, struct cfsr_conn *conn);
    void (*on_closed)(void *user, struct cfsr_conn *conn,
                      int reason); /* 0: by us or orderly, else -errno or -CFSR_E_* */
};

/* What only the RDMA transport asks; zero means the default unless said otherwise. */
struct cfsr_rdma_options {
    const char *device;  /* "": the first with an active port */
    int gid_index;       /* dial from this entry of the GID table; < 0: the system chooses */
    uint32_t depth;      /* slots a receive ring is cut into, a power of two (64); the credits of
                            the peer */
    uint32_t send_depth; /* work requests a connection (128) */
    uint32_t poll_us;    /* longest look at the completion queue before sleep (0: none) */
    int inline_bytes;    /* messages up to this go inline (256); < 0: none */
    uint32_t completions_max;   /* upper bound of the completion queue (the device's) */
    uint32_t credit_timeout_ms; /* frames wait for the peer's slots at most so long (5 minutes) */
};

struct cfsr_group_options {
    size_t opts_size;
    struct cfsr_ring *ring;     /* tcp: the core's ring; NULL for sim and null */
    struct cfsr_timers *timers; /* the core's timers, for dial and close deadlines; NULL: none */
    uint32_t conns_max;         /* pool size */
    uint32_t frame_max_bytes;   /* largest frame ever received */
    uint32_t recv_ring_bytes; /* per busy connection: >= 2 × frame_max_bytes, power of two (tcp) */
    uint32_t
        recv_rings_max; /* pool of them: at most this many busy receivers (rdma: connections) */
    uint32_t send_gather_bytes;           /* upper bound of one gathered send */
    void *sim;                            /* sim: the shared struct cfsr_sim_network */
    const char *sim_host;                 /* sim: the host its dials come from; NULL: "local" */
    const struct cfsr_rdma_options *rdma; /* rdma: NULL for the defaults; read at creation only */
};

struct cfsr_conn_info {
    char local[CFSR_ENDPOINT_MAX];
    char remote[CFSR_ENDPOINT_MAX];
    uint64_t bytes_sent, bytes_received;
    uint32_t send_queue_frames;
    bool receive_stalled; /* no receive ring to be had, or the callee took nothing */
};

/* Counters of a group, the unpleasant ones included; written by the owner core, read by any
 * (relaxed). */
#define CFSR_TRANSPORT_COUNTERS(X)                                    \
    X(bytes_sent)                                                     \
    X(bytes_received)                                                 \
    X(sends) /* gathered send operations */                           \
    X(short_sends)                                                    \
    X(receives)                                                       \
    X(receive_ring_empty) /* reading paused: no receive ring free */  \
    X(connects)                                                       \
    X(accepts)                                                        \
    X(closes)                                                         \
    X(errors)                                                         \
    X(doorbells)       /* rdma: calls that gave work to the device */ \
    X(credit_waits)    /* rdma: frames waited for the peer's slots */ \
    X(credit_messages) /* rdma: grants that no frame could carry */   \
    X(copied_bytes)    /* rdma: of pieces in unregistered memory */   \
    X(event_waits)     /* rdma: times the completion queue was armed */
struct cfsr_transport_stats {
#define X(name) uint64_t name;
    CFSR_TRANSPORT_COUNTERS(X)
#undef X
};

enum cfsr_inject {
    CFSR_INJECT_RESET,
    CFSR_INJECT_STALL_RECV,
    CFSR_INJECT_SHORT_SEND,
    CFSR_INJECT_FLIP_BIT,
    CFSR_INJECT_COMPLETION_ERROR /* rdma: the next completion says that the queue pair failed */
};

struct cfsr_transport {
    const char *name; /* scheme of endpoints: "tcp", "null", "sim", "rdma" */
    unsigned api_version;
    size_t table_bytes; /* sizeof(struct cfsr_transport): checked at lookup */
    unsigned caps;

    int (*group_create)(const struct cfsr_group_options *options, struct cfsr_group **group_out);
    void (*group_destroy)(
        struct cfsr_group *group); /* all conns closed, or they are torn down here */
    /* Runs upcalls for what has completed; at most budget of them. Returns work done. */
    unsigned (*poll)(struct cfsr_group *group, unsigned budget);
    /* fd to watch while asleep (-1: completions arrive on the core's ring). arm: -EBUSY if there is
     * work pending. */
    int (*event_fd)(struct cfsr_group *group);
    int (*arm)(struct cfsr_group *group);
    int (*memory_register)(struct cfsr_group *group, void *base, size_t len_bytes);
    void (*memory_unregister)(struct cfsr_group *group, void *base);

    /* Control thread. endpoint: "tcp://HOST:PORT" ([v6] in brackets; port 0: any). fd is readable
     * when accept has work. */
    int (*listen)(const char *endpoint, void *sim, struct cfsr_listener **listener_out);
    int (*listener_fd)(struct cfsr_listener *listener);
    const char *(*listener_endpoint)(struct cfsr_listener *listener); /* with the real port */
    /*
     * Drives accepts and preambles without blocking: returns one incoming connection whose preamble
     * has arrived, or -EAGAIN. Connections that do not send a valid preamble by their deadline (2
     * s), or beyond 64 pending ones, are dropped and counted.
     */
    int (*listener_accept)(struct cfsr_listener *listener, uint64_t now_ns,
                           struct cfsr_incoming **incoming_out, struct cfsr_preamble *preamble_out);
    void (*listener_close)(struct cfsr_listener *listener);
    /* Next time listener_accept() must run for deadlines; UINT64_MAX if none. */
    uint64_t (*listener_deadline)(struct cfsr_listener *listener);
    /* Connections dropped by this listener so far: bogus, silent, beyond the pending limit or out
     * of descriptors. */
    uint64_t (*listener_dropped)(const struct cfsr_listener *listener);
    void (*incoming_discard)(struct cfsr_incoming *incoming); /* any thread */

    /* Core thread. connect sends the preamble itself; both give on_connected or on_closed later. */
    int (*connect)(struct cfsr_group *group, const char *endpoint,
                   const struct cfsr_preamble *preamble, uint64_t timeout_ns,
                   const struct cfsr_conn_events *events, void *user, struct cfsr_conn **conn_out);
    int (*accept)(struct cfsr_group *group, struct cfsr_incoming *incoming,
                  const struct cfsr_conn_events *events, void *user, struct cfsr_conn **conn_out);
    /* linger: let queued frames go out first (bounded, 1 s); otherwise drop now. on_closed(0)
     * follows. */
    void (*close)(struct cfsr_conn *conn, bool linger);
    /* Number of frames taken (>= 1), or -EAGAIN, or -ENOTCONN. */
    int (*send)(struct cfsr_conn *conn, enum cfsr_stream stream, const struct cfsr_frame *frames,
                unsigned count);
    void (*flush)(struct cfsr_group *group); /* end of a tick: submit gathered sends */
    void (*recv_release)(struct cfsr_conn *conn, size_t len_bytes);
    void (*recv_resume)(
        struct cfsr_conn *conn); /* on_data again from the next poll, after it took 0 */
    /*
     * For a callee whose disk still reads spans that it has not released (cap SLOTS; NULL in other
     * tables). recv_hold(): only from on_closed(); their memory stays as it is, for nobody else,
     * until recv_drop(), which may be called at any time before group_destroy(). Never fails.
     */
    struct cfsr_recv_hold *(*recv_hold)(struct cfsr_conn *conn);
    void (*recv_drop)(struct cfsr_group *group, struct cfsr_recv_hold *hold);
    void (*conn_info)(const struct cfsr_conn *conn, struct cfsr_conn_info *info_out);
    void (*stats)(const struct cfsr_group *group, struct cfsr_transport_stats *stats_out);
    /* Tests and fault drills; -ENOTSUP if the transport has no such fault. */
    int (*inject)(struct cfsr_conn *conn, enum cfsr_inject fault);
};

/* Table for "scheme://…" or a bare scheme; NULL if unknown. Checks api_version and table_bytes. */
const struct cfsr_transport *cfsr_transport_find(const char *endpoint_or_scheme);
extern const struct cfsr_transport cfsr_transport_tcp;
extern const struct cfsr_transport cfsr_transport_null;
extern const struct cfsr_transport cfsr_transport_sim;
/* The same network with caps MESSAGES and SLOTS; endpoints are "sim://…". No scheme finds it. */
extern const struct cfsr_transport cfsr_transport_sim_messages;
extern const struct cfsr_transport cfsr_transport_rdma; /* only where CFSR_HAVE_RDMA is 1 */

/*
 * Whether RDMA can be used: 0 and the device's name, or -ENOTSUP (not built in), -ENODEV, -ENETDOWN
 * with one line in cfsr_error_message() that says why. device: "" or NULL for any. Any thread.
 */
int cfsr_rdma_probe(const char *device, char *text_out, size_t len_bytes);

/* "tcp://HOST:PORT" → parts. -CFSR_E_CONFIG with message. host_out without brackets. */
int cfsr_endpoint_parse(const char *endpoint, char *scheme_out, size_t scheme_len, char *host_out,
                        size_t host_len, uint16_t *port_out);

/* The network of sim transports: everything from one seed, single thread, virtual time. */
struct cfsr_sim_network;
struct cfsr_sim_network_options {
    uint64_t seed;
    uint64_t delay_min_us, delay_max_us; /* per chunk; chunks of one connection keep their order */
    uint32_t
        cut_per_million; /* probability that a chunk's delivery cuts the connection, at any byte */
    uint32_t chunk_max_bytes; /* bytes are delivered in random chunks up to this */
    uint32_t buffer_bytes;    /* in flight per direction: back-pressure beyond it */
};
int cfsr_sim_network_create(const struct cfsr_sim_network_options *options,
                            struct cfsr_sim_network **network_out);
void cfsr_sim_network_destroy(struct cfsr_sim_network *network);
void cfsr_sim_network_advance(struct cfsr_sim_network *network, uint64_t now_us);
uint64_t cfsr_sim_network_next_due_us(const struct cfsr_sim_network *network);
/* Blocks or heals one direction between endpoints' hosts ("sim://a:1" → host "a"). */
void cfsr_sim_network_partition(struct cfsr_sim_network *network, const char *from_host,
                                const char *to_host, bool blocked);

#endif
