/*
 * route.h - which transport a link takes: RDMA where it works, TCP where it does not. Sans-I/O.
 *
 * One route belongs to one link (this core's lanes on one core of the peer), so lanes fall back and
 * return one by one. A switch is nothing but another connection: the handshake names the cursors
 * anew, the older connection is superseded when the new one has proven its key, and nothing is lost
 * or repeated.
 *
 *   AUTO     RDMA first. What ends an RDMA connection before it ran (no device, no route, time-out,
 *            refusal, a peer that lacks what is needed), missing credits, or three failures of
 *            running ones within a minute, sends the link to TCP. While it runs there, RDMA is
 *            dialled beside it, with back-off, and takes over once it is established: no pause.
 *   REQUIRE  RDMA or nothing: the same back-off, never TCP.
 *   OFF      TCP.
 *
 * A refusal that has nothing to do with the transport (key, cluster, site, lanes …) would be the
 * same on the other path: it moves no link.
 */
#ifndef CFSR_REPL_ROUTE_H
#define CFSR_REPL_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

enum cfsr_path {
    CFSR_PATH_TCP,
    CFSR_PATH_RDMA,
};
#define CFSR_PATHS 2
const char *cfsr_path_name(enum cfsr_path path); /* "tcp", "rdma" */

enum cfsr_rdma_mode {
    CFSR_RDMA_AUTO,
    CFSR_RDMA_REQUIRE,
    CFSR_RDMA_OFF,
};
/* "auto", "require", "off"; -EINVAL. */
int cfsr_rdma_mode_parse(const char *text, enum cfsr_rdma_mode *mode_out);

/* So many failures of running RDMA connections within the window send the link to TCP. */
#define CFSR_ROUTE_FAILURES_MAX 3
#define CFSR_ROUTE_WINDOW_NS    (60ull * 1000000000ull)

struct cfsr_route_options {
    enum cfsr_rdma_mode mode;
    bool peer_rdma; /* the peer's endpoint is an RDMA one */
    /* 0, or why RDMA cannot be used here at all (-ENODEV: no device; -ENOTSUP: built without). */
    int local_reason;
    uint64_t retry_min_ns, retry_max_ns; /* back-off of RDMA attempts while on TCP */
};

struct cfsr_route_counters {
    uint64_t fallbacks; /* RDMA → TCP */
    uint64_t returns;   /* TCP → RDMA */
    uint64_t rdma_failures;
};

struct cfsr_route {
    struct cfsr_route_options options;
    enum cfsr_path current; /* of the running connection, or of the next dial */
    bool running;           /* a connection of `current` is established */
    int reason;             /* why current is not RDMA though it was wanted; 0: it is not wanted */
    uint64_t retry_at_ns;   /* earliest next RDMA attempt while on TCP */
    uint32_t attempts;      /* RDMA attempts in a row that never ran, or fell back within the
                               window: the back-off exponent */
    uint64_t failed_at_ns[CFSR_ROUTE_FAILURES_MAX]; /* of running connections; oldest first */
    uint32_t failed_count;
    struct cfsr_route_counters counters;
};

void cfsr_route_init(struct cfsr_route *route, const struct cfsr_route_options *options);

/* Path of the next dial of the link, when it has no connection. */
enum cfsr_path cfsr_route_path(const struct cfsr_route *route);
/*
 * While a TCP connection runs: true when RDMA shall be dialled beside it now. The attempt ends in
 * on_established() or on_failed().
 */
bool cfsr_route_wants_rdma(const struct cfsr_route *route, uint64_t now_ns);
/* When wants_rdma() turns true by time alone; UINT64_MAX: never. */
uint64_t cfsr_route_deadline_ns(const struct cfsr_route *route);

/* A connection of this path passed its handshake and carries the link from now on. */
void cfsr_route_on_established(struct cfsr_route *route, enum cfsr_path path);
/*
 * A connection or attempt of this path ended with reason (0: orderly, which blames no path).
 * established: it had passed its handshake. random: for the jitter of the back-off. True if the
 * link moves to the other path with its next dial.
 */
bool cfsr_route_on_failed(struct cfsr_route *route, enum cfsr_path path, bool established,
                          int reason, uint64_t now_ns, uint32_t random);

#endif
