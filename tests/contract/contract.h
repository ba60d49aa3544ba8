/*
 * contract.h - the world in which every transport must keep the promises of transport.h.
 *
 * One thread drives two groups, "near" (dials) and "far" (accepts), turn by turn: over real sockets
 * for tcp, in virtual time for sim. A case is written once and run over each. Frames carry their
 * own length, stream and number and a content made from them, so that an end checks what it
 * receives without being told.
 */
#ifndef CFSR_TESTS_CONTRACT_H
#define CFSR_TESTS_CONTRACT_H

#include "transport/transport.h"

#include <cfsrepl/error.h>

#define CONTRACT_FRAME_MAX    (1280u * 1024)
#define CONTRACT_RING_BYTES   (4u * 1024 * 1024)
#define CONTRACT_RINGS        8
#define CONTRACT_CONNS        128
#define CONTRACT_HEADER_BYTES 9
#define CONTRACT_FRAMES_MAX   1024
#define CONTRACT_HOLD_MAX     256

enum contract_side {
    CONTRACT_NEAR,
    CONTRACT_FAR
};

enum contract_close_in {
    CONTRACT_CLOSE_NEVER,
    CONTRACT_IN_DATA,
    CONTRACT_IN_SENT,
    CONTRACT_IN_CONNECTED
};

/* One end of a connection, and all that happened to it. */
struct contract_end {
    struct contract_world *world;
    struct cfsr_conn *conn; /* NULL: none yet, or gone */
    unsigned connected;
    unsigned closed;
    int reason;
    unsigned writable;
    struct cfsr_preamble preamble; /* far end: what it was introduced with */

    /* sending */
    uint32_t next_number[2];
    uint32_t queued;
    uint32_t sent;
    uint8_t sent_times[CONTRACT_FRAMES_MAX]; /* by cookie */
    void *buffers[CONTRACT_FRAMES_MAX];      /* by cookie; freed by on_sent */

    /* receiving */
    uint32_t received[2]; /* frames, by stream */
    uint64_t received_bytes;
    uint32_t bad_frames;      /* wrong content or order */
    unsigned partial_shows;   /* a frame shown in part */
    unsigned moved_backwards; /* a span shorter than the one shown before it */
    size_t last_untaken;
    uint32_t control_behind_data; /* DATA frames received when the first CONTROL frame came */
    bool stop_taking;
    bool release_early;   /* from inside on_data */
    uint32_t hold_frames; /* keep so many spans before the oldest is released */
    struct {
        uint8_t *span;
        size_t len;
    } held[CONTRACT_HOLD_MAX];
    uint32_t held_head, held_tail;
    bool keep_over_close;        /* recv_hold() from on_closed */
    struct cfsr_recv_hold *hold; /* keeps held[held_head … held_tail) */

    enum contract_close_in close_in;
    uint64_t digest; /* of every event, its time and size */
};

struct contract_world {
    const struct cfsr_transport *transport;
    bool is_sim;
    bool stop_accepting;
    uint32_t rings;                /* receive rings of a group */
    uint64_t now_us;               /* sim: virtual */
    uint64_t timers_ns, turned_ns; /* others: what the timers are told, and when that was */
    uint64_t skip_ns;              /* added to the listener's clock */
    struct cfsr_ring *ring;
    struct cfsr_timers *timers;
    struct cfsr_sim_network *network;
    struct cfsr_group *group[2];
    struct cfsr_listener *listener;
    char endpoint[CFSR_ENDPOINT_MAX];
    struct contract_end *far_ends; /* CONTRACT_CONNS of them, in order of acceptance */
    unsigned far_count;
    const struct contract_options *options;
    struct contract_memory *memory; /* registered frames, for transports that need them */
};

struct contract_options {
    const char *scheme;
    uint32_t rings;
    uint32_t ring_bytes;      /* 0: CONTRACT_RING_BYTES */
    uint32_t frame_max_bytes; /* 0: the largest frame of any case */
    struct cfsr_sim_network_options sim;
    const struct cfsr_rdma_options *rdma;
};

extern const struct cfsr_conn_events contract_events;

/* memory.c: frames in memory that both groups have registered; the heap where none is needed. */
void contract_memory_create(struct contract_world *world);
void contract_memory_destroy(struct contract_world *world);
void contract_memory_register(struct contract_world *world, enum contract_side side);
void *contract_memory_take(struct contract_world *world, size_t len); /* NULL: none now */
void contract_memory_give(struct contract_world *world, void *buffer);

/*
 * core.c: the real ring and timers, for transports that need them. The timers' clock is the real
 * one, but a turn moves it by CONTRACT_TURN_NS at most: on a machine that is late a deadline is a
 * number of turns, so that none passes before there was a turn in which to keep it.
 */
#define CONTRACT_TURN_NS (2ull * 1000 * 1000)
void contract_core_create(struct contract_world *world);
void contract_core_destroy(struct contract_world *world);
void contract_core_turn(struct contract_world *world, uint64_t wait_ns);

struct contract_world *contract_world_create(const struct contract_options *options);
void contract_group_create(struct contract_world *world, enum contract_side side);
void contract_world_destroy(struct contract_world *world);
/* One turn of both cores. */
void contract_turn(struct contract_world *world);
/* Turns until condition(user); fails the test if it does not come true. */
void contract_until(struct contract_world *world, bool (*condition)(void *user), void *user,
                    const char *what);
void contract_turns(struct contract_world *world, unsigned count);

struct contract_end *contract_end_create(struct contract_world *world);
void contract_end_destroy(struct contract_end *end);
int contract_dial(struct contract_world *world, const char *endpoint, uint64_t timeout_ms,
                  struct contract_end *end);
/* Dials the listener and waits for both ends; returns the far one. */
struct contract_end *contract_pair(struct contract_world *world, struct contract_end *near_end);
/* Queues one frame of payload_bytes in pieces; 1 taken, 0 none now; fails the test on other errors.
 */
int contract_send(struct contract_end *end, enum cfsr_stream stream, size_t payload_bytes,
                  unsigned pieces);
/* Queues and waits, turn by turn, until all of it is taken. */
void contract_send_all(struct contract_end *end, enum cfsr_stream stream, size_t payload_bytes,
                       unsigned pieces);
void contract_close(struct contract_end *end, bool linger);
/* Closes the near end, after all it queued, and waits until both are closed. */
void contract_close_both(struct contract_end *near_end, struct contract_end *far_end);
/* True if all spans that are held are what was sent. */
bool contract_held_is_intact(const struct contract_end *end);
/* What recv_hold() kept is given up. */
void contract_drop(struct contract_end *end);

bool contract_is_closed(void *end);

#ifdef CONTRACT_RDMA
/* A case, run over rdma: in a program of its own, which needs a machine with a device. */
#define CONTRACT(name)                                     \
    static void case_##name(struct contract_world *world); \
    Test(rdma, name, .timeout = 240)                       \
    {                                                      \
        contract_run("rdma", case_##name);                 \
    }                                                      \
    static void case_##name(struct contract_world *world)
#else
/* A case, run over tcp and over sim, which has two tables. */
#define CONTRACT(name)                                     \
    static void case_##name(struct contract_world *world); \
    Test(tcp, name, .timeout = 60)                         \
    {                                                      \
        contract_run("tcp", case_##name);                  \
    }                                                      \
    Test(sim, name, .timeout = 60)                         \
    {                                                      \
        contract_run("sim", case_##name);                  \
    }                                                      \
    Test(sim_messages, name, .timeout = 60)                \
    {                                                      \
        contract_run("sim-messages", case_##name);         \
    }                                                      \
    static void case_##name(struct contract_world *world)
#endif

void contract_run(const char *scheme, void (*run)(struct contract_world *world));

#endif
