/*
 * cluster.h - sites of node cores in one process and one thread, on simulated disks and a simulated
 * network, under virtual time. Everything follows from the seed.
 *
 * The library of the node's unit tests and of cfs-repl-sim. It knows no test framework: what must
 * not happen goes to cluster_failure, which by default prints it and aborts.
 */
#ifndef CFSR_TESTS_SIM_CLUSTER_H
#define CFSR_TESTS_SIM_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "node/node.h"
#include "origin.h"

#define SITES_MAX  5
#define CORES_MAX  8
#define JOBS_MAX   1024
#define WALL_US    1700000000000000ull
#define SIM_SHARDS 16

struct cluster;
struct cfsr_lane_state;

/* A job of a core: run at run_us, told of at done_us. */
struct cluster_job {
    struct cfsr_node_job *job;
    uint64_t due_us;
    bool ran;
};

/* The wall clock of a site: goes its own way from since_us on. */
struct cluster_clock {
    uint64_t since_us, wall_us; /* virtual time, and what the wall showed then */
    int32_t drift_ppm;
    bool frozen;
};

struct test_site {
    struct cluster *cluster;
    unsigned index;
    struct cfsr_site site;
    struct cfsr_fs *fs;
    struct cfsr_keyring *keyring;
    struct cfsr_node_options options;
    struct cfsr_node_peer peers[SITES_MAX];
    uint32_t cores;
    struct cfsr_node_core *core[CORES_MAX];
    struct cfsr_group *group[CORES_MAX];
    struct cfsr_listener *listener;
    struct cfsr_group *rdma_group[CORES_MAX]; /* NULL: this site has TCP only */
    struct cfsr_listener *rdma_listener;      /* NULL: it refuses those who dial by RDMA */
    bool rdma_refuses;                        /* it does, also after a restart */
    struct origin *origin[CFSR_LANES_MAX];
    uint64_t published[CFSR_LANES_MAX]; /* as the status page has it in this boot; 0: nothing */
    uint64_t published_entries[CFSR_LANES_MAX];
    struct origin_clock clock;  /* of the local service */
    struct cluster_clock wall;  /* of the whole site */
    struct origin_truth *truth; /* one a lane; NULL: nothing is remembered */
    bool up, draining;
    bool queue_jobs; /* false: run inside submit_job */
    struct cluster_job jobs[JOBS_MAX];
    unsigned job_count;
    uint64_t random; /* nonces and delays of its own */
    struct {
        uint8_t *base;
        uint64_t bytes, taken;
    } arena[CORES_MAX];
    unsigned starting; /* core that takes memory */
    uint64_t io_bytes; /* taken by the cores */
    bool dirty;        /* something was done to it from outside */
    bool turned;       /* had a turn in the last step */
    uint64_t due_us;   /* of its cores, when it last had a turn */
    uint64_t starts, last_failure;
};

struct cluster_config {
    uint64_t seed;
    unsigned sites;
    uint32_t lanes;
    uint32_t cores[SITES_MAX]; /* 0: 1 */
    uint32_t cut_per_million;
    uint64_t disk_latency_us[SITES_MAX];
    uint64_t disk_bytes[SITES_MAX]; /* 0: plenty */
    uint64_t window_bytes;          /* 0: 2 MiB */
    bool one_way;           /* only site 0 has peers to send to; the others know it all the same */
    uint64_t segment_bytes; /* 0: the smallest; less where no entry is so large */
    uint64_t delay_min_us, delay_max_us; /* 0: 100 and 1000 */
    uint32_t chunk_max_bytes;            /* 0: 16 KiB */
    uint32_t recv_ring_bytes;            /* 0: 4 MiB */
    uint64_t job_delay_us;               /* at most, of each half of a job; 0: at the next turn */
    bool silent_crash;                   /* a power cut says nothing to the peers */
    bool keep_truth;
    unsigned rdma_sites; /* bit k: site k has a second way to the others, as RDMA would be: another
                            group of the simulated network, at host…-rdma */
    const struct cfsr_transport *rdma_transport; /* of those groups; NULL: as the first way */
    bool may_be_damaged;        /* a journal lane that is, is no reason not to start */
    uint64_t memory_less_bytes; /* what a core gets less than it says it needs */
    void *user;                 /* of tune */
    const struct cfsr_transport *transport[SITES_MAX]; /* what its cores call; NULL: the simulated
                                                          one. For wrappers around that. */
    /* Called for each site after its options were made, to change them. */
    void (*tune)(struct cluster *cluster, struct test_site *site);
};

/* Who looks on; any may be NULL. */
struct cluster_watch {
    void *user;
    void (*journal_opened)(void *user, struct test_site *site, uint32_t lane);
    /* A lane whose service does not open is served as far as the disk proves it: published[]. */
    void (*journal_served)(void *user, struct test_site *site, uint32_t lane);
    void (*inbox_recovered)(void *user, struct test_site *site, uint32_t lane,
                            const struct cfsr_inbox_state *state);
};

struct cluster {
    struct cluster_config config;
    struct cluster_watch watch;
    struct cfsr_sim_network *network;
    uint64_t now_us;
    uint64_t random;
    struct test_site site[SITES_MAX];
    uint64_t steps, spins; /* spins: steps whose deadline was already past and that did nothing */
    uint64_t turns, digest;
};

/* Does not return. check: the name of what was broken. */
extern void (*cluster_failure)(struct cluster *cluster, const char *check, const char *text);
_Noreturn void cluster_fail(struct cluster *cluster, const char *check, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define CHECK(cluster, condition, check, ...)              \
    do {                                                   \
        if (!(condition))                                  \
            cluster_fail((cluster), (check), __VA_ARGS__); \
    } while (0)

/* For processes that make much and drop it: what is freed is used again, and nothing of it goes
 * back to the kernel before the end. */
void cluster_keep_memory(void);
/* Memory of a core, of at least so many bytes; kept for another when it is given back. */
uint8_t *cluster_arena_take(uint64_t bytes, uint64_t *bytes_out);
void cluster_arena_give(uint8_t *base, uint64_t bytes);
/* Makes the sites and starts them. */
void cluster_make(struct cluster *cluster, const struct cluster_config *config);
/* Stops every site in order. */
void cluster_remove(struct cluster *cluster);
/* The same as by a power cut everywhere: quicker. */
void cluster_drop(struct cluster *cluster);
uint64_t cluster_random(struct cluster *cluster);
/* SplitMix64 on a state of one's own. */
uint64_t sim_random(uint64_t *state);

/* Starts the daemon (and the local service) of a site from its disk. */
void site_start(struct cluster *cluster, unsigned index);
/* The same; a negative error leaves it down. */
int site_try_start(struct cluster *cluster, unsigned index);
/* Opens the lanes of the local service that are not; the first error. A lane that is damaged does
 * not keep the others from being opened, nor the daemon from starting: that one serves it as far as
 * it is proven, and repairs it. */
int site_open_service(struct test_site *site);
/* The error of site_open_service(): 0 if it is damage that the daemon starts with. */
int site_serve_damaged(struct test_site *site, int rc);
void site_close_service(struct test_site *site);
/* Orderly: drains, asserting that it ends. */
void site_stop(struct cluster *cluster, unsigned index);
/* Its parts, for those who do something else meanwhile. The service stays open. */
void site_begin_stop(struct cluster *cluster, unsigned index);
bool site_is_drained(const struct test_site *site);
void site_end_stop(struct cluster *cluster, unsigned index);
/* Power cut; site_start() brings it back. */
void site_crash(struct cluster *cluster, unsigned index, enum cfsr_persistence model);
/* Copies the whole disk of a site; the copy is of the same size and latency. */
struct cfsr_fs *site_copy_disk(struct cluster *cluster, unsigned index);
uint64_t site_wall_us(const struct test_site *site);
const char *site_host(const struct test_site *site);
const char *site_rdma_host(const struct test_site *site);
bool site_has_rdma(const struct test_site *site);
const struct cfsr_transport *site_transport(const struct test_site *site, enum cfsr_path path);
/* A site that listens by RDMA, if it has any and rdma_refuses does not stand, or does not. */
void site_listen_rdma(struct test_site *site, bool listen);

/* Appends count entries of up to max_bytes to random lanes and commits; tells the daemon's cores.
 */
void site_append(struct cluster *cluster, unsigned index, unsigned count, uint32_t max_bytes);
void site_append_lane(struct cluster *cluster, unsigned index, uint32_t lane, unsigned count,
                      uint32_t bytes);
void site_publish(struct cluster *cluster, unsigned index);

/* One instant: everything that can be done at it, then on to the next. */
void cluster_step(struct cluster *cluster);
/* The same; time does not go beyond limit_us. */
void cluster_step_to(struct cluster *cluster, uint64_t limit_us);
void cluster_run_us(struct cluster *cluster, uint64_t us);
/* Runs until every live link is caught up, at most so long; false: it is not. */
bool cluster_run_until_equal(struct cluster *cluster, uint64_t limit_us);
/* The first link that is not caught up, in words; valid until the next call. */
const char *cluster_unrested(struct cluster *cluster);
bool cluster_is_caught_up(struct cluster *cluster);
/* Status of the link of site `from` to site `to` (of the core that has it); false if there is none.
 */
bool cluster_link(struct cluster *cluster, unsigned from, unsigned to,
                  struct cfsr_node_link_status *link_out);
uint64_t cluster_counter(const struct test_site *site, size_t offset);
#define COUNTER(cluster, index, name) \
    cluster_counter(&(cluster)->site[index], offsetof(struct cfsr_node_counters, name))

/* Site `at` holds exactly what site `from` committed: digests, entry counts, order. */
void cluster_assert_equal(struct cluster *cluster, unsigned from, unsigned at);

#endif
