/*
 * cluster.h - sites of node cores in one process and one thread, on simulated disks and a simulated
 * network, under virtual time. Everything follows from the seed.
 */
#ifndef CFSR_TESTS_NODE_CLUSTER_H
#define CFSR_TESTS_NODE_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "node/node.h"
#include "origin.h"

#define SITES_MAX  3
#define CORES_MAX  8
#define JOBS_MAX   1024
#define ALLOCS_MAX 4096

struct cluster;

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
    struct origin *origin[CFSR_LANES_MAX];
    bool up;
    bool queue_jobs; /* false: run inside submit_job */
    struct cfsr_node_job *jobs[JOBS_MAX];
    unsigned job_count;
    void *allocs[ALLOCS_MAX];
    unsigned alloc_count;
    uint64_t io_bytes; /* taken by the cores */
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
    bool one_way; /* only site 0 has peers to send to; the others know it all the same */
};

struct cluster {
    struct cluster_config config;
    struct cfsr_sim_network *network;
    uint64_t now_us;
    uint64_t random;
    struct test_site site[SITES_MAX];
    uint64_t steps, spins; /* spins: steps whose deadline was already past and that did nothing */
};

void cluster_make(struct cluster *cluster, const struct cluster_config *config);
void cluster_remove(struct cluster *cluster);
uint64_t cluster_random(struct cluster *cluster);

/* Starts the daemon (and the local service) of a site from its disk. */
void site_start(struct cluster *cluster, unsigned index);
/* Orderly: drains, asserting that it ends. */
void site_stop(struct cluster *cluster, unsigned index);
/* Power cut; site_start() brings it back. */
void site_crash(struct cluster *cluster, unsigned index, enum cfsr_persistence model);
/* Copies the whole disk of a site (it is down); the copy is of the same size and latency. */
struct cfsr_fs *site_copy_disk(struct cluster *cluster, unsigned index);

/* Appends count entries of up to max_bytes to random lanes and commits; tells the daemon's cores.
 */
void site_append(struct cluster *cluster, unsigned index, unsigned count, uint32_t max_bytes);
void site_append_lane(struct cluster *cluster, unsigned index, uint32_t lane, unsigned count,
                      uint32_t bytes);
void site_publish(struct cluster *cluster, unsigned index);

void cluster_step(struct cluster *cluster);
void cluster_run_us(struct cluster *cluster, uint64_t us);
/* Runs until every live link is caught up, at most so long; false: it is not. */
bool cluster_run_until_equal(struct cluster *cluster, uint64_t limit_us);
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
