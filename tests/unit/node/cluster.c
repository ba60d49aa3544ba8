/*
 * cluster.c - sites of node cores in one process (cluster.h).
 */
#include "cluster.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "inbox/digest.h"
#include "inbox/reader.h"
#include "journal/digest.h"
#include "node/internal.h"

#define WALL_US 1700000000000000ull
#define SECOND  1000000000ull
#define SHARDS  16
#define SECRET  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

#define CHECK(cluster, condition, ...)                                                    \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "seed %llu: ", (unsigned long long)(cluster)->config.seed);   \
            fprintf(stderr, __VA_ARGS__);                                                 \
            fprintf(stderr, "\n");                                                        \
            cr_assert(false, "seed %llu: %s", (unsigned long long)(cluster)->config.seed, \
                      #condition);                                                        \
        }                                                                                 \
    } while (0)

/* Every case makes and drops whole sites: freed memory is better used again than watched. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8:thread_local_quarantine_size_kb=64";
}

uint64_t cluster_random(struct cluster *cluster)
{
    uint64_t z = (cluster->random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* ---- what a core runs on ---- */

static void run_job(struct cfsr_node_job *job)
{
    job->run(job);
    job->done(job);
}

static void submit_job(void *user, struct cfsr_node_job *job)
{
    struct test_site *site = user;

    cr_assert_lt(site->job_count, JOBS_MAX);
    if (site->queue_jobs)
        site->jobs[site->job_count++] = job;
    else
        run_job(job);
}

static void *take_memory(void *user, uint64_t len_bytes, uint16_t *buffer_index_out)
{
    struct test_site *site = user;
    void *memory = aligned_alloc(4096, cfsr_align_up(len_bytes, 4096));

    cr_assert(memory != NULL && site->alloc_count < ALLOCS_MAX);
    site->allocs[site->alloc_count++] = memory;
    site->io_bytes += cfsr_align_up(len_bytes, 4096);
    *buffer_index_out = CFSR_BUFFER_UNREGISTERED;
    return memory;
}

static void random_bytes(void *user, void *out, size_t len_bytes)
{
    struct test_site *site = user;
    for (size_t i = 0; i < len_bytes; i++)
        ((uint8_t *)out)[i] = (uint8_t)cluster_random(site->cluster);
}

/* ---- sites ---- */

static struct cfsr_keyring *make_keyring(void)
{
    char path[] = "/tmp/cfsr-cluster-XXXXXX";
    struct cfsr_keyring *keyring = NULL;
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    cr_assert_gt(dprintf(fd, "cfs-repl-keyring 1\nkey 1 site-pair * " SECRET "\n"), 0);
    close(fd);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), 0, "%s", cfsr_error_message());
    unlink(path);
    return keyring;
}

static struct cfsr_fs *make_disk(struct cluster *cluster, unsigned index)
{
    struct cfsr_fs_sim_options options = {
        .seed = cluster->config.seed * 31 + index,
        .capacity_bytes = cluster->config.disk_bytes[index] != 0 ? cluster->config.disk_bytes[index]
                                                                 : 4ull << 30,
        .write_latency_us = cluster->config.disk_latency_us[index] != 0
                                ? cluster->config.disk_latency_us[index]
                                : 100,
    };
    struct cfsr_fs *fs;
    cr_assert_eq(cfsr_fs_sim_create(&options, &fs), 0);
    cfsr_fs_sim_advance(fs, cluster->now_us);
    return fs;
}

static void make_options(struct cluster *cluster, struct test_site *site)
{
    const struct cluster_config *config = &cluster->config;
    uint32_t count = 0;

    for (unsigned i = 0; i < config->sites; i++) {
        struct cfsr_node_peer *peer = &site->peers[count];
        if (i == site->index)
            continue;
        peer->site_id = i + 1;
        peer->page_index = -1;
        snprintf(peer->name, sizeof peer->name, "site-%u", i + 1);
        snprintf(peer->endpoint, sizeof peer->endpoint, "sim://host%u:7400", i + 1);
        for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++)
            peer->acked_lsn[lane] = CFSR_LSN_UNKNOWN;
        count++;
    }
    site->options = (struct cfsr_node_options){
        .site = &site->site,
        .keyring = site->keyring,
        .peers = site->peers,
        .peer_count = count,
        .cores = site->cores,
        .batch_bytes = 64 << 10,
        .batch_timeout_ns = 2000000,
        .window_bytes = config->window_bytes != 0 ? config->window_bytes : 2 << 20,
        .heartbeat_ns = SECOND,
        .hello_timeout_ns = 5 * SECOND,
        .progress_timeout_ns = 10 * SECOND,
        .backoff_min_ns = SECOND / 10,
        .backoff_max_ns = 5 * SECOND,
        .fault_retry_ns = 30 * SECOND,
        .sync_bytes = 1 << 20,
        .sync_delay_ns = 1000000,
        .batch_slots = 4,
        .inbox_slots = 6,
        .conns_max = 16,
    };
    memset(site->options.session_id, (int)site->index + 1, 16);
    cfsr_codec_config_default(&site->options.codec);
}

static void make_site(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];

    site->cluster = cluster;
    site->index = index;
    site->queue_jobs = true;
    site->cores = cluster->config.cores[index] != 0 ? cluster->config.cores[index] : 1;
    site->keyring = make_keyring();
    site->fs = make_disk(cluster, index);
    memset(site->site.cluster.bytes, 0x77, 16);
    memset(site->site.journal.bytes, (int)(index + 1), 16);
    site->site.site_id = index + 1;
    site->site.lanes = cluster->config.lanes;
    site->site.shards = SHARDS;
    site->site.segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    snprintf(site->site.shard_function, sizeof site->site.shard_function, "parent-or-inode-mod");
    snprintf(site->site.name, sizeof site->site.name, "site-%u", index + 1);
    snprintf(site->site.data_dir, sizeof site->site.data_dir, "/data");
    cr_assert_eq(cfsr_site_create(site->fs, &site->site), 0, "%s", cfsr_error_message());
    make_options(cluster, site);
}

void cluster_make(struct cluster *cluster, const struct cluster_config *config)
{
    memset(cluster, 0, sizeof *cluster);
    cr_assert_eq(cfsr_security_init(), 0);
    cluster->config = *config;
    cluster->random = config->seed;
    cluster->now_us = 1;
    struct cfsr_sim_network_options network = {
        .seed = config->seed,
        .delay_min_us = 100,
        .delay_max_us = 1000,
        .cut_per_million = config->cut_per_million,
        .chunk_max_bytes = 16 << 10,
        .buffer_bytes = 256 << 10,
    };
    cr_assert_eq(cfsr_sim_network_create(&network, &cluster->network), 0);
    for (unsigned i = 0; i < config->sites; i++) {
        make_site(cluster, i);
        site_start(cluster, i);
    }
}

static void start_core(struct test_site *site, uint32_t number)
{
    struct cluster *cluster = site->cluster;
    char host[16];
    snprintf(host, sizeof host, "host%u", site->index + 1);
    struct cfsr_group_options group = {
        .opts_size = sizeof group,
        .conns_max = 32,
        .frame_max_bytes = CFSR_FRAME_MAX_BYTES,
        .recv_ring_bytes = 4 << 20,
        .recv_rings_max = 32,
        .send_gather_bytes = 256 << 10,
        .sim = cluster->network,
        .sim_host = host,
    };
    struct cfsr_node_env env = {
        .user = site,
        .fs = site->fs,
        .blocking_fs = site->fs,
        .transport = &cfsr_transport_sim,
        .submit_job = submit_job,
        .take_memory = take_memory,
        .random = random_bytes,
    };
    struct cfsr_inbox_state *state = calloc(1, sizeof *state);

    cr_assert_eq(cfsr_transport_sim.group_create(&group, &site->group[number]), 0, "%s",
                 cfsr_error_message());
    env.group = site->group[number];
    site->options.core = number;
    site->options.cores = site->cores;
    cr_assert_eq(
        cfsr_node_core_create(&site->options, &env, cluster->now_us * 1000, &site->core[number]),
        0);
    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        if ((cfsr_node_core_lane_mask(site->core[number]) >> lane & 1) == 0)
            continue;
        memset(state, 0, sizeof *state);
        cr_assert_eq(cfsr_inbox_recover_lane(site->fs, &site->site, lane, false, state), 0,
                     "seed %llu: %s", (unsigned long long)cluster->config.seed,
                     cfsr_error_message());
        cr_assert_eq(
            cfsr_node_core_add_lane(site->core[number], lane, state, cluster->now_us * 1000), 0);
    }
    free(state);
}

void site_start(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];
    char endpoint[64];

    cr_assert(!site->up);
    for (uint32_t lane = 0; lane < site->site.lanes; lane++)
        if (site->origin[lane] == NULL)
            site->origin[lane] = origin_open(site->fs, &site->site, lane);
    for (uint32_t number = 0; number < site->cores; number++)
        start_core(site, number);
    snprintf(endpoint, sizeof endpoint, "sim://host%u:7400", index + 1);
    cr_assert_eq(cfsr_transport_sim.listen(endpoint, cluster->network, &site->listener), 0, "%s",
                 cfsr_error_message());
    site->up = true;
    site_publish(cluster, index);
}

static void let_memory_go(struct test_site *site)
{
    for (unsigned i = 0; i < site->alloc_count; i++)
        free(site->allocs[i]);
    site->alloc_count = 0;
    site->io_bytes = 0;
}

void site_stop(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];
    uint64_t limit_us = cluster->now_us + 30000000;
    bool drained = false;

    if (!site->up)
        return;
    cfsr_transport_sim.listener_close(site->listener);
    site->listener = NULL;
    for (uint32_t number = 0; number < site->cores; number++)
        cfsr_node_core_drain(site->core[number], cluster->now_us * 1000);
    while (!drained) {
        CHECK(cluster, cluster->now_us < limit_us, "site %u does not drain", index);
        cluster_step(cluster);
        drained = true;
        for (uint32_t number = 0; number < site->cores; number++)
            drained = drained && cfsr_node_core_is_drained(site->core[number]);
    }
    for (uint32_t number = 0; number < site->cores; number++) {
        cfsr_node_core_destroy(site->core[number]);
        cfsr_transport_sim.group_destroy(site->group[number]);
    }
    let_memory_go(site);
    site->up = false;
}

/* A core lost in a power cut: nothing it waits for comes any more, and nothing is said to anybody.
 */
static void bury_core(struct cfsr_node_core *core)
{
    core->ops_busy = core->jobs_busy = 0;
    for (uint32_t i = 0; i < core->link_count; i++)
        core->links[i].conn = NULL;
    for (uint32_t i = 0; i < core->conn_count; i++) {
        struct node_conn *conn = &core->conns[i];
        if (conn->in_use) {
            cfsr_receiver_fini(&conn->receiver);
            cfsr_mac_key_destroy(conn->key[0]);
            cfsr_mac_key_destroy(conn->key[1]);
        }
    }
    core->conns_in_use = 0;
    for (uint32_t i = 0; i < core->batch_count; i++)
        core->batches[i].refs = 0;
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++) {
        if (core->stores[lane] == NULL)
            continue;
        core->stores[lane]->writes_busy = 0;
        core->stores[lane]->segment.job.busy = false;
    }
    cfsr_node_core_destroy(core);
}

void site_crash(struct cluster *cluster, unsigned index, enum cfsr_persistence model)
{
    struct test_site *site = &cluster->site[index];

    cr_assert(site->up);
    cfsr_transport_sim.listener_close(site->listener);
    site->listener = NULL;
    cfsr_fs_sim_crash(site->fs, model);
    for (uint32_t number = 0; number < site->cores; number++) {
        cfsr_transport_sim.group_destroy(site->group[number]);
        bury_core(site->core[number]);
    }
    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        origin_close(site->origin[lane]);
        site->origin[lane] = NULL;
    }
    site->job_count = 0;
    let_memory_go(site);
    site->up = false;
}

void cluster_remove(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->config.sites; i++) {
        struct test_site *site = &cluster->site[i];
        site_stop(cluster, i);
        for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
            origin_close(site->origin[lane]);
            site->origin[lane] = NULL;
        }
        cfsr_fs_sim_destroy(site->fs);
        cfsr_keyring_destroy(site->keyring);
    }
    cfsr_sim_network_destroy(cluster->network);
}

/* ---- a copy of a disk ---- */

struct copying {
    struct cfsr_fs *from, *to;
    const char *directory;
};

static int copy_entry(void *user, const struct cfsr_dir_entry *entry)
{
    struct copying *copying = user;
    char path[CFSR_PATH_MAX];
    struct cfsr_file *in, *out;
    static uint8_t bytes[1 << 20];
    int got;

    snprintf(path, sizeof path, "%s/%s", copying->directory, entry->name);
    if (entry->is_directory) {
        struct copying below = {copying->from, copying->to, path};
        cr_assert_eq(cfsr_fs_blocking() != NULL, true);
        cr_assert_eq(copying->to->ops->mkdir(copying->to, path), 0);
        cr_assert_eq(copying->from->ops->list(copying->from, path, copy_entry, &below), 0);
    } else {
        cr_assert_eq(cfsr_file_open(copying->from, path, CFSR_OPEN_READ, &in), 0);
        cr_assert_eq(cfsr_file_open(copying->to, path, CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &out),
                     0);
        for (uint64_t at = 0; (got = cfsr_file_pread(in, bytes, sizeof bytes, at)) > 0;
             at += (uint64_t)got)
            cr_assert_geq(cfsr_file_pwrite(out, bytes, (uint32_t)got, at, false), 0);
        cr_assert_eq(cfsr_file_sync(out), 0);
        cfsr_file_close(in);
        cfsr_file_close(out);
    }
    return copying->to->ops->sync_dir(copying->to, copying->directory);
}

struct cfsr_fs *site_copy_disk(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];
    struct cfsr_fs *copy = make_disk(cluster, index);
    struct copying copying = {site->fs, copy, "/data"};

    cr_assert_eq(copy->ops->mkdir(copy, "/data"), 0);
    cr_assert_eq(site->fs->ops->list(site->fs, "/data", copy_entry, &copying), 0);
    return copy;
}

/* ---- the local service ---- */

void site_publish(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];

    for (uint32_t lane = 0; site->up && lane < site->site.lanes; lane++)
        cfsr_node_core_set_head(site->core[lane % site->cores], lane,
                                origin_head(site->origin[lane]),
                                origin_entries(site->origin[lane]));
}

void site_append(struct cluster *cluster, unsigned index, unsigned count, uint32_t max_bytes)
{
    struct test_site *site = &cluster->site[index];

    for (unsigned i = 0; i < count; i++) {
        uint64_t random = cluster_random(cluster);
        origin_append(site->origin[random % site->site.lanes],
                      (uint32_t)(cluster_random(cluster) % (max_bytes + 1)), random >> 8);
    }
    for (uint32_t lane = 0; lane < site->site.lanes; lane++)
        origin_commit(site->origin[lane]);
    site_publish(cluster, index);
}

void site_append_lane(struct cluster *cluster, unsigned index, uint32_t lane, unsigned count,
                      uint32_t bytes)
{
    struct test_site *site = &cluster->site[index];

    for (unsigned i = 0; i < count; i++)
        origin_append(site->origin[lane], bytes, cluster_random(cluster));
    origin_commit(site->origin[lane]);
    site_publish(cluster, index);
}

/* ---- time ---- */

static unsigned run_jobs(struct test_site *site)
{
    struct cfsr_node_job *jobs[JOBS_MAX];
    unsigned count = site->job_count;

    memcpy(jobs, site->jobs, count * sizeof *jobs);
    site->job_count = 0;
    for (unsigned i = 0; i < count; i++)
        run_job(jobs[i]);
    return count;
}

static unsigned turn_site(struct cluster *cluster, struct test_site *site)
{
    struct cfsr_incoming *incoming;
    struct cfsr_preamble preamble;
    unsigned work = run_jobs(site);

    cfsr_fs_sim_advance(site->fs, cluster->now_us);
    work += cfsr_fs_poll(site->fs);
    while (site->listener != NULL &&
           cfsr_transport_sim.listener_accept(site->listener, cluster->now_us * 1000, &incoming,
                                              &preamble) == 0) {
        cfsr_node_core_accept(site->core[preamble.target_core % site->cores], incoming,
                              cluster->now_us * 1000);
        work++;
    }
    for (uint32_t number = 0; number < site->cores; number++)
        work += cfsr_node_core_tick(site->core[number], cluster->now_us * 1000,
                                    WALL_US + cluster->now_us);
    return work + site->job_count;
}

static uint64_t next_due_us(const struct cluster *cluster)
{
    uint64_t due_us = cfsr_sim_network_next_due_us(cluster->network);

    for (unsigned i = 0; i < cluster->config.sites; i++) {
        const struct test_site *site = &cluster->site[i];
        if (!site->up)
            continue;
        due_us = cfsr_min_u64(due_us, cfsr_fs_sim_next_due_us(site->fs));
        if (site->listener != NULL) {
            uint64_t at = cfsr_transport_sim.listener_deadline(site->listener);
            due_us = cfsr_min_u64(due_us, at == UINT64_MAX ? at : (at + 999) / 1000);
        }
        for (uint32_t number = 0; number < site->cores; number++) {
            uint64_t at = cfsr_node_core_next_deadline(site->core[number]);
            due_us = cfsr_min_u64(due_us, at == UINT64_MAX ? at : (at + 999) / 1000);
        }
    }
    return due_us;
}

void cluster_step(struct cluster *cluster)
{
    unsigned rounds = 0, work;

    cluster->steps++;
    cfsr_sim_network_advance(cluster->network, cluster->now_us);
    do {
        work = 0;
        for (unsigned i = 0; i < cluster->config.sites; i++)
            if (cluster->site[i].up)
                work += turn_site(cluster, &cluster->site[i]);
        CHECK(cluster, ++rounds < 10000, "work without end at %llu us",
              (unsigned long long)cluster->now_us);
    } while (work > 0);
    uint64_t due_us = next_due_us(cluster);
    if (due_us <= cluster->now_us) {
        cluster->spins++;
        due_us = cluster->now_us + 10;
    }
    /* Nothing at all to come: time goes on, the test's limit ends it. */
    cluster->now_us = cfsr_min_u64(due_us, cluster->now_us + 1000000);
}

void cluster_run_us(struct cluster *cluster, uint64_t us)
{
    uint64_t end_us = cluster->now_us + us;
    while (cluster->now_us < end_us)
        cluster_step(cluster);
}

/* ---- questions ---- */

bool cluster_link(struct cluster *cluster, unsigned from, unsigned to,
                  struct cfsr_node_link_status *link_out)
{
    struct test_site *site = &cluster->site[from];
    static struct cfsr_node_status status;

    for (uint32_t number = 0; site->up && number < site->cores; number++) {
        cfsr_node_core_status(site->core[number], &status);
        for (uint32_t i = 0; i < status.link_count; i++) {
            if (status.link[i].peer_site_id == to + 1) {
                *link_out = status.link[i];
                return true;
            }
        }
    }
    return false;
}

static bool is_caught_up(struct test_site *site)
{
    static struct cfsr_node_status status;
    uint64_t lanes_seen[SITES_MAX] = {0};

    for (uint32_t number = 0; number < site->cores; number++) {
        cfsr_node_core_status(site->core[number], &status);
        for (uint32_t i = 0; i < status.link_count; i++) {
            if (!status.link[i].caught_up)
                return false;
            for (uint32_t k = 0; k < status.link[i].lane_count; k++)
                lanes_seen[status.link[i].peer_site_id - 1] |= 1ull << status.link[i].lane[k].lane;
        }
    }
    for (unsigned i = 0; i < site->cluster->config.sites; i++)
        if (i != site->index && lanes_seen[i] != (1ull << site->site.lanes) - 1)
            return false;
    return true;
}

bool cluster_run_until_equal(struct cluster *cluster, uint64_t limit_us)
{
    uint64_t end_us = cluster->now_us + limit_us;

    while (cluster->now_us < end_us) {
        bool all = true;
        cluster_step(cluster);
        for (unsigned i = 0; i < cluster->config.sites; i++)
            all = all && (!cluster->site[i].up || is_caught_up(&cluster->site[i]));
        if (all)
            return true;
    }
    return false;
}

uint64_t cluster_counter(const struct test_site *site, size_t offset)
{
    uint64_t sum = 0;
    for (uint32_t number = 0; site->up && number < site->cores; number++)
        sum += cfsr_counter_get(
            (const cfsr_counter *)(const void *)((const uint8_t *)cfsr_node_core_counters(
                                                     site->core[number]) +
                                                 offset));
    return sum;
}

/* Entries of the origin in the lane as a consumer reads them: ascending, none twice. */
static uint64_t count_entries(struct cluster *cluster, struct test_site *at, uint64_t origin,
                              uint32_t lane)
{
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .site_id = origin, .lane = lane};
    struct cfsr_inbox *inbox;
    struct cfsr_inbox_record record;
    uint64_t entries = 0, end_lsn = 0, seq[SHARDS] = {0};
    int rc = cfsr_inbox_open_at(at->fs, &at->site, &options, &inbox);

    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        CHECK(cluster, record.lsn >= end_lsn && record.seq == seq[record.shard_id] + 1,
              "site %u lane %u lsn %llu: twice or out of order", at->index, lane,
              (unsigned long long)record.lsn);
        end_lsn = record.end_lsn;
        seq[record.shard_id] = record.seq;
        entries++;
    }
    CHECK(cluster, rc == 0, "reading the inbox: %s", cfsr_error_message());
    cfsr_inbox_close(inbox);
    return entries;
}

void cluster_assert_equal(struct cluster *cluster, unsigned from, unsigned at)
{
    struct test_site *source = &cluster->site[from], *target = &cluster->site[at];

    for (uint32_t lane = 0; lane < source->site.lanes; lane++) {
        uint64_t head = origin_head(source->origin[lane]), entries;
        uint8_t digest[CFSR_DIGEST_LEN_BYTES];
        struct cfsr_inbox_lane_digest found;

        if (head == 0)
            continue;
        int rc = cfsr_journal_digest_lane(source->fs, &source->site, lane, 0, head, digest,
                                          &entries);
        CHECK(cluster, rc == 0, "digest of the journal: %s", cfsr_error_message());
        rc = cfsr_inbox_digest_lane(target->fs, &target->site, lane, source->site.site_id,
                                    UINT64_MAX, &found);
        CHECK(cluster, rc == 0, "digest of the inbox: %s", cfsr_error_message());
        CHECK(cluster,
              found.from_lsn == 0 && found.to_lsn == head && found.entries == entries &&
                  entries == origin_entries(source->origin[lane]),
              "lane %u of site %u at site %u: %llu-%llu of %llu, %llu of %llu entries", lane, from,
              at, (unsigned long long)found.from_lsn, (unsigned long long)found.to_lsn,
              (unsigned long long)head, (unsigned long long)found.entries,
              (unsigned long long)entries);
        CHECK(cluster, memcmp(found.digest, digest, sizeof digest) == 0,
              "lane %u of site %u at site %u differs", lane, from, at);
        CHECK(cluster, count_entries(cluster, target, source->site.site_id, lane) == entries,
              "entries of lane %u", lane);
    }
}
