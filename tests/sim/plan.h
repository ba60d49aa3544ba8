/*
 * plan.h - what a seed means: topology, options, traffic and faults of one run, all drawn before it
 * begins, so that leaving a fault out leaves the others as they were.
 */
#ifndef CFSR_TESTS_SIM_PLAN_H
#define CFSR_TESTS_SIM_PLAN_H

#include <stdio.h>

#include "cluster.h"

#define SIM_FAULTS_MAX 1024

/* name, and what it does */
#define SIM_FAULT_KINDS(X)                                                     \
    X(crash, "power cut of a site, restarted later")                           \
    X(fleet, "power cut of every site at the same instant")                    \
    X(restart, "orderly stop and start, with another number of cores")         \
    X(sync_error, "one write, sync or name operation of a disk fails")         \
    X(bad_disk, "syncs and durable writes of a disk fail now and then")        \
    X(full_disk, "no space on a disk for a while")                             \
    X(slow_disk, "a disk 10 to 1,000 times slower for a while")                \
    X(cut, "every connection between two sites is cut")                        \
    X(cuts, "connections are cut at any byte, at a rate")                      \
    X(partition, "two sites do not reach each other")                          \
    X(one_way, "one direction between two sites is blocked")                   \
    X(lane_partition, "some of the connections between two sites hang")        \
    X(flapping, "two sites reach each other every other half second")          \
    X(swizzle, "sites are cut off one by one and come back in another order")  \
    X(delay, "everything takes up to two seconds")                             \
    X(reorder, "delays spread widely: connections overtake each other")        \
    X(wire_flip, "one bit of a connection's bytes is flipped on the way")      \
    X(stall, "one end of a connection stops receiving")                        \
    X(replay, "a recorded connection is dialled and said again by a stranger") \
    X(clock_jump, "a site's wall clock jumps: 1 h or 10 years, ahead or back") \
    X(clock_freeze, "a site's wall clock stands still for a while")            \
    X(clock_drift, "a site's wall clock goes 1 % wrong")                       \
    X(recycle, "retention gives up a journal segment that every site has")     \
    X(restore, "a site's disk is replaced by an older copy of it")             \
    X(bit_flip, "a bit of one site's journal or inbox flips")                  \
    X(zero_sector, "a sector of one site's journal or inbox reads as zeros")   \
    X(stale_sector, "the last write of a sector of them got lost")             \
    X(misdirect, "a sector of them was written at another's place")            \
    X(read_error, "sectors of them cannot be read")                            \
    X(rdma_cut, "every RDMA connection between two sites fails")               \
    X(rdma_down, "two sites do not reach each other by RDMA, or one refuses it")

enum sim_fault_kind {
#define X(name, text) SIM_FAULT_##name,
    SIM_FAULT_KINDS(X)
#undef X
    SIM_FAULT_COUNT
};
/* Damage of what is on a disk: of one site in a run, so that the others hold everything; never in a
 * run that has a site on an older disk or gives up journal segments. */
#define SIM_FAULTS_DAMAGE                                                                    \
    (1u << SIM_FAULT_bit_flip | 1u << SIM_FAULT_zero_sector | 1u << SIM_FAULT_stale_sector | \
     1u << SIM_FAULT_misdirect | 1u << SIM_FAULT_read_error)
/* Only when asked for by name: unreadable sectors in the block that a journal's writer appends to
 * stay until it has gone on, and those in an inbox's tail keep it from being recovered. */
#define SIM_FAULTS_NAMED_ONLY (1u << SIM_FAULT_read_error)
/* Only where sites have a second way to each other. */
#define SIM_FAULTS_RDMA (1u << SIM_FAULT_rdma_cut | 1u << SIM_FAULT_rdma_down)
const char *sim_fault_name(enum sim_fault_kind kind);
const char *sim_fault_text(enum sim_fault_kind kind);
struct sim_fault {
    uint64_t at_us, for_us;
    enum sim_fault_kind kind;
    unsigned site, other;
    uint64_t random;
    bool skip; /* left out, to see whether it matters */
};

/* What is broken on purpose, to see whether anybody notices. */
#define SIM_BREAKS(X)                                                            \
    X(none, "nothing")                                                           \
    X(ack_written, "the daemons acknowledge what is written but not durable")    \
    X(old_disk, "a site goes on on an older disk, and nobody expects it")        \
    X(flip, "a bit of an inbox is flipped at the end")                           \
    X(twice, "an entry is expected that was appended once and is counted twice") \
    X(order, "two entries are expected in the other order")                      \
    X(never_heals, "a partition is not lifted when the faults end")              \
    X(hidden_head, "a daemon is not told what was committed")                    \
    X(small_memory, "a core gets a page less than it says it needs")
enum sim_break {
#define X(name, text) SIM_BREAK_##name,
    SIM_BREAKS(X)
#undef X
    SIM_BREAK_COUNT
};
const char *sim_break_name(enum sim_break kind);
const char *sim_break_text(enum sim_break kind);

struct sim_request {
    uint64_t seed;
    unsigned sites; /* 0: drawn */
    uint64_t run_us;
    uint32_t faults; /* bit a kind: allowed */
    bool plain;      /* one way between sites, and nothing sealed */
    enum sim_break broken;
    const uint32_t *keep; /* only these faults of the plan, by number; NULL: all */
    unsigned keep_count;
    bool keep_given;
};

struct sim_traffic {
    bool silent;
    uint64_t interval_us;
    uint32_t entries_max, bytes_max, big_per_million;
    bool plain;
};

struct sim_plan {
    struct sim_request request;
    struct cluster_config cluster;
    struct cfsr_node_options common; /* of all sites, where not below */
    struct cfsr_codec_config codec[SITES_MAX];
    struct sim_traffic traffic[SITES_MAX];
    uint32_t audit_every; /* acks */
    uint32_t enabled;     /* fault kinds of this seed */
    unsigned damage_site; /* the one whose disk is damaged, if any is */
    unsigned fault_count;
    struct sim_fault fault[SIM_FAULTS_MAX];
};

void sim_plan_draw(const struct sim_request *request, struct sim_plan *plan_out);
/*
 * The time within which every link must be caught up once the last fault is over, with so many
 * bytes to be sent: a half-open connection is noticed by the progress timeout, the next attempt
 * waits for its handshake and its back-off, which may fail once more against what the first left
 * behind; a faulted link asks again after fault_retry; then the backlog moves a window a round
 * trip.
 */
uint64_t sim_plan_bound_us(const struct sim_plan *plan, uint64_t backlog_bytes);
void sim_plan_print(const struct sim_plan *plan, FILE *out);
void sim_fault_print(const struct sim_fault *fault, unsigned number, FILE *out);

#endif
