/*
 * cluster.c - sites of node cores in one process (cluster.h): what they stand on, and time.
 *
 * Thread:     one.
 * Invariants: a site has a turn only when something is there for it (a completion, a job, bytes, a
 *             deadline, a word from outside), as a daemon's core sleeps in its ring; time goes from
 *             one such instant to the next.
 */
#include "cluster.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "core/file_sim.h"
#include "node/internal.h"
#include "transport/sim/control.h"

#define SECOND 1000000000ull
#define SECRET "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

/* Every case makes and drops whole sites: freed memory is better used again than watched. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8:thread_local_quarantine_size_kb=64";
}

static void print_and_abort(struct cluster *cluster, const char *check, const char *text)
{
    fprintf(stderr, "seed %" PRIu64 ": %s: %s\n", cluster->config.seed, check, text);
    abort();
}

void (*cluster_failure)(struct cluster *cluster, const char *check,
                        const char *text) = print_and_abort;

void cluster_fail(struct cluster *cluster, const char *check, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cluster_failure(cluster, check, text);
    abort();
}

#define MUST(cluster, rc, what) \
    CHECK(cluster, (rc) >= 0, "setup", "%s: %d %s", what, rc, cfsr_error_message())

uint64_t sim_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t cluster_random(struct cluster *cluster)
{
    return sim_random(&cluster->random);
}

/* ---- what a core runs on ---- */

static uint64_t job_delay(struct test_site *site)
{
    uint64_t most = site->cluster->config.job_delay_us;
    return most == 0 ? 0 : sim_random(&site->random) % (most + 1);
}

static void submit_job(void *user, struct cfsr_node_job *job)
{
    struct test_site *site = user;

    if (!site->queue_jobs) {
        job->run(job);
        job->done(job);
        return;
    }
    CHECK(site->cluster, site->job_count < JOBS_MAX, "memory", "more than %d jobs", JOBS_MAX);
    site->jobs[site->job_count++] = (struct cluster_job){
        .job = job, .due_us = site->cluster->now_us + job_delay(site)};
}

/* The bound is what the node says it needs; nothing is given beyond it, nor after the start. */
static void *take_memory(void *user, uint64_t len_bytes, uint16_t *buffer_index_out)
{
    struct test_site *site = user;
    uint64_t bytes = cfsr_align_up(len_bytes, 4096);
    uint8_t *memory;

    CHECK(site->cluster, site->starting < CORES_MAX, "memory",
          "site %u takes %" PRIu64 " bytes after its start", site->index, bytes);
    uint64_t limit = cfsr_node_memory_bytes(&site->options);
    unsigned core = site->starting;
    if (site->arena[core].base == NULL)
        site->arena[core].base = cluster_arena_take(limit, &site->arena[core].bytes);
    memory = site->arena[core].base + site->arena[core].taken;
    site->arena[core].taken += bytes;
    site->io_bytes += bytes;
    CHECK(site->cluster, site->arena[core].taken + site->cluster->config.memory_less_bytes <= limit,
          "memory", "core %u of site %u takes more than %" PRIu64 " bytes", core, site->index,
          limit);
    *buffer_index_out = CFSR_BUFFER_UNREGISTERED;
    return memory;
}

static void random_bytes(void *user, void *out, size_t len_bytes)
{
    struct test_site *site = user;
    for (size_t i = 0; i < len_bytes; i++)
        ((uint8_t *)out)[i] = (uint8_t)sim_random(&site->random);
}

uint64_t site_wall_us(const struct test_site *site)
{
    const struct cluster_clock *wall = &site->wall;
    int64_t passed = (int64_t)(site->cluster->now_us - wall->since_us);

    if (wall->frozen)
        return wall->wall_us;
    return wall->wall_us + (uint64_t)(passed + passed * wall->drift_ppm / 1000000);
}

/* ---- making sites ---- */

/* All sites have one secret; the key file is read once. */
static struct cfsr_keyring *make_keyring(struct cluster *cluster)
{
    static struct cfsr_keyring *keyring;
    char path[] = "/tmp/cfsr-cluster-XXXXXX";

    if (keyring != NULL)
        return keyring;
    int fd = mkstemp(path);
    CHECK(cluster, fd >= 0 && dprintf(fd, "cfs-repl-keyring 1\nkey 1 site-pair * " SECRET "\n") > 0,
          "setup", "cannot write %s", path);
    close(fd);
    int rc = cfsr_keyring_load(path, &keyring);
    unlink(path);
    MUST(cluster, rc, "keyring");
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
    MUST(cluster, cfsr_fs_sim_create(&options, &fs), "disk");
    cfsr_fs_sim_advance(fs, cluster->now_us);
    return fs;
}

static uint32_t make_peers(struct cluster *cluster, struct test_site *site)
{
    uint32_t count = 0;

    for (unsigned i = 0; i < cluster->config.sites; i++) {
        struct cfsr_node_peer *peer = &site->peers[count];
        if (i == site->index)
            continue;
        peer->site_id = i + 1;
        peer->page_index = -1;
        snprintf(peer->name, sizeof peer->name, "site-%u", i + 1);
        snprintf(peer->endpoint[CFSR_PATH_TCP], CFSR_ENDPOINT_MAX, "sim://host%u:7400", i + 1);
        if (cluster->config.rdma_sites >> i & 1)
            snprintf(peer->endpoint[CFSR_PATH_RDMA], CFSR_ENDPOINT_MAX, "sim://host%u-rdma:7400",
                     i + 1);
        for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++)
            peer->acked_lsn[lane] = CFSR_LSN_UNKNOWN;
        count++;
    }
    return count;
}

static void make_options(struct cluster *cluster, struct test_site *site)
{
    const struct cluster_config *config = &cluster->config;

    site->options = (struct cfsr_node_options){
        .site = &site->site,
        .keyring = site->keyring,
        .peers = site->peers,
        .peer_count = make_peers(cluster, site),
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
        .strangers_max = 16,
    };
    memset(site->options.session_id, (int)site->index + 1, 16);
    cfsr_codec_config_default(&site->options.codec);
    if (config->tune != NULL)
        config->tune(cluster, site);
}

static void make_site(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];
    const struct cluster_config *config = &cluster->config;

    site->cluster = cluster;
    site->index = index;
    site->queue_jobs = true;
    site->starting = CORES_MAX;
    site->random = config->seed * 1000003 + index;
    site->wall = (struct cluster_clock){.since_us = 0, .wall_us = WALL_US};
    site->cores = config->cores[index] != 0 ? config->cores[index] : 1;
    site->keyring = make_keyring(cluster);
    site->fs = make_disk(cluster, index);
    memset(site->site.cluster.bytes, 0x77, 16);
    memset(site->site.journal.bytes, (int)(index + 1), 16);
    site->site.site_id = index + 1;
    site->site.lanes = config->lanes;
    site->site.shards = SIM_SHARDS;
    site->site.segment_bytes = cfsr_max_u64(config->segment_bytes, CFSR_SEGMENT_BYTES_MIN);
    snprintf(site->site.shard_function, sizeof site->site.shard_function, "parent-or-inode-mod");
    snprintf(site->site.name, sizeof site->site.name, "site-%u", index + 1);
    snprintf(site->site.data_dir, sizeof site->site.data_dir, "/data");
    MUST(cluster, cfsr_site_create(site->fs, &site->site), "site");
    if (config->segment_bytes != 0)
        site->site.segment_bytes = config->segment_bytes;
    if (config->keep_truth)
        site->truth = calloc(config->lanes, sizeof *site->truth);
    make_options(cluster, site);
}

void cluster_make(struct cluster *cluster, const struct cluster_config *config)
{
    struct cluster_watch watch = cluster->watch;

    memset(cluster, 0, sizeof *cluster);
    cluster->watch = watch;
    cluster->config = *config;
    static bool ready; /* its self-tests take as long as seconds of virtual time */
    if (!ready)
        MUST(cluster, cfsr_security_init(), "security");
    ready = true;
    cluster->random = config->seed;
    cluster->now_us = 1;
    struct cfsr_sim_network_options network = {
        .seed = config->seed,
        .delay_min_us = config->delay_max_us != 0 ? config->delay_min_us : 100,
        .delay_max_us = config->delay_max_us != 0 ? config->delay_max_us : 1000,
        .cut_per_million = config->cut_per_million,
        .chunk_max_bytes = config->chunk_max_bytes != 0 ? config->chunk_max_bytes : 16 << 10,
        .buffer_bytes = 256 << 10,
    };
    MUST(cluster, cfsr_sim_network_create(&network, &cluster->network), "network");
    for (unsigned i = 0; i < config->sites; i++) {
        make_site(cluster, i);
        site_start(cluster, i);
    }
}

/* ---- starting and stopping ---- */

static int add_lanes(struct test_site *site, struct cfsr_node_core *core)
{
    static struct cfsr_inbox_state state;
    struct cluster *cluster = site->cluster;
    int rc = 0;

    for (uint32_t lane = 0; rc == 0 && lane < site->site.lanes; lane++) {
        if ((cfsr_node_core_lane_mask(core) >> lane & 1) == 0)
            continue;
        memset(&state, 0, sizeof state);
        rc = cfsr_inbox_recover_lane(site->fs, &site->site, lane, false, &state);
        if (rc < 0)
            break;
        if (cluster->watch.inbox_recovered != NULL)
            cluster->watch.inbox_recovered(cluster->watch.user, site, lane, &state);
        rc = cfsr_node_core_add_lane(core, lane, &state, cluster->now_us * 1000);
    }
    return rc;
}

static int start_core(struct test_site *site, uint32_t number)
{
    struct cluster *cluster = site->cluster;
    site->options.core = number;
    site->options.cores = site->cores;
    struct cfsr_group_options group = {
        .opts_size = sizeof group,
        .conns_max = cfsr_node_accepts_max(&site->options) + cfsr_node_dials_max(&site->options),
        .frame_max_bytes = CFSR_FRAME_MAX_BYTES,
        .recv_ring_bytes = cluster->config.recv_ring_bytes != 0 ? cluster->config.recv_ring_bytes
                                                                : 4 << 20,
        .recv_rings_max = 64,
        .send_gather_bytes = 256 << 10,
        .sim = cluster->network,
        .sim_host = site_host(site),
    };
    struct cfsr_node_env env = {
        .user = site,
        .fs = site->fs,
        .blocking_fs = site->fs,
        .path[CFSR_PATH_TCP].transport = site_transport(site, CFSR_PATH_TCP),
        .submit_job = submit_job,
        .take_memory = take_memory,
        .random = random_bytes,
    };

    MUST(cluster, site_transport(site, CFSR_PATH_TCP)->group_create(&group, &site->group[number]),
         "group");
    env.path[CFSR_PATH_TCP].group = site->group[number];
    if (site_has_rdma(site)) {
        group.sim_host = site_rdma_host(site);
        MUST(cluster,
             site_transport(site, CFSR_PATH_RDMA)->group_create(&group, &site->rdma_group[number]),
             "group");
        env.path[CFSR_PATH_RDMA].transport = site_transport(site, CFSR_PATH_RDMA);
        env.path[CFSR_PATH_RDMA].group = site->rdma_group[number];
    } else {
        env.path[CFSR_PATH_RDMA].unusable = -ENODEV;
    }
    site->starting = number;
    MUST(cluster,
         cfsr_node_core_create(&site->options, &env, cluster->now_us * 1000, &site->core[number]),
         "core");
    site->starting = CORES_MAX;
    return add_lanes(site, site->core[number]);
}

static void let_memory_go(struct test_site *site)
{
    for (unsigned i = 0; i < CORES_MAX; i++) {
        cluster_arena_give(site->arena[i].base, site->arena[i].bytes);
        site->arena[i].base = NULL;
        site->arena[i].bytes = site->arena[i].taken = 0;
    }
    site->io_bytes = 0;
}

/* A core lost in a power cut: nothing it waits for comes any more, and nothing is said to anybody.
 */
static void bury_core(struct cfsr_node_core *core)
{
    core->ops_busy = core->jobs_busy = 0;
    core->server.job.busy = core->scrub.job.busy = false;
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

static void bury(struct test_site *site)
{
    for (uint32_t number = 0; number < site->cores; number++) {
        /* As at an orderly end: what the core still holds of the group's memory, it gives up. */
        if (site->core[number] != NULL)
            bury_core(site->core[number]);
        if (site->group[number] != NULL)
            site_transport(site, CFSR_PATH_TCP)->group_destroy(site->group[number]);
        if (site->rdma_group[number] != NULL)
            site_transport(site, CFSR_PATH_RDMA)->group_destroy(site->rdma_group[number]);
        site->rdma_group[number] = NULL;
        site->group[number] = NULL;
        site->core[number] = NULL;
    }
    site->job_count = 0;
    site->draining = false;
    let_memory_go(site);
}

int site_try_start(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];
    char endpoint[64];
    int rc = site_open_service(site);

    CHECK(cluster, !site->up, "setup", "site %u is up", index);
    rc = site_serve_damaged(site, rc);
    for (uint32_t number = 0; rc == 0 && number < site->cores; number++)
        rc = start_core(site, number);
    if (rc < 0) {
        /* As if it had never begun; what its cores asked of the disk goes with them. */
        bury(site);
        site_close_service(site);
        return rc;
    }
    snprintf(endpoint, sizeof endpoint, "sim://%s:7400", site_host(site));
    MUST(cluster, cfsr_transport_sim.listen(endpoint, cluster->network, &site->listener), "listen");
    site_listen_rdma(site, true);
    site->up = site->dirty = true;
    site->starts++;
    site_publish(cluster, index);
    return 0;
}

void site_start(struct cluster *cluster, unsigned index)
{
    int rc = site_try_start(cluster, index);
    CHECK(cluster, rc == 0, "start", "site %u does not start: %s", index, cfsr_error_message());
}

void site_begin_stop(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];

    cfsr_transport_sim.listener_close(site->listener);
    site->listener = NULL;
    site_listen_rdma(site, false);
    for (uint32_t number = 0; number < site->cores; number++)
        cfsr_node_core_drain(site->core[number], cluster->now_us * 1000);
    site->draining = site->dirty = true;
}

bool site_is_drained(const struct test_site *site)
{
    for (uint32_t number = 0; number < site->cores; number++)
        if (!cfsr_node_core_is_drained(site->core[number]))
            return false;
    return true;
}

void site_end_stop(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];

    for (uint32_t number = 0; number < site->cores; number++) {
        cfsr_node_core_destroy(site->core[number]);
        site_transport(site, CFSR_PATH_TCP)->group_destroy(site->group[number]);
        if (site->rdma_group[number] != NULL)
            site_transport(site, CFSR_PATH_RDMA)->group_destroy(site->rdma_group[number]);
        site->core[number] = NULL;
        site->group[number] = site->rdma_group[number] = NULL;
    }
    let_memory_go(site);
    site->up = site->draining = false;
}

void site_stop(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];
    uint64_t limit_us = cluster->now_us + 30000000;

    if (!site->up)
        return;
    site_begin_stop(cluster, index);
    do {
        CHECK(cluster, cluster->now_us < limit_us, "drain", "site %u does not drain", index);
        cluster_step(cluster);
    } while (!site_is_drained(site));
    site_end_stop(cluster, index);
}

void site_crash(struct cluster *cluster, unsigned index, enum cfsr_persistence model)
{
    struct test_site *site = &cluster->site[index];

    if (cluster->config.silent_crash)
        cfsr_sim_network_vanish(cluster->network, site_host(site));
    if (cluster->config.silent_crash && site_has_rdma(site))
        cfsr_sim_network_vanish(cluster->network, site_rdma_host(site));
    if (site->listener != NULL)
        cfsr_transport_sim.listener_close(site->listener);
    site->listener = NULL;
    site_listen_rdma(site, false);
    cfsr_fs_sim_crash(site->fs, model);
    memset(site->published, 0, sizeof site->published);
    memset(site->published_entries, 0, sizeof site->published_entries);
    bury(site);
    site_close_service(site);
    site->up = false;
}

static void remove_site(struct test_site *site)
{
    site_close_service(site);
    cfsr_fs_sim_destroy(site->fs);
    for (uint32_t lane = 0; site->truth != NULL && lane < site->site.lanes; lane++)
        origin_truth_fini(&site->truth[lane]);
    free(site->truth);
}

void cluster_remove(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->config.sites; i++) {
        site_stop(cluster, i);
        remove_site(&cluster->site[i]);
    }
    cfsr_sim_network_destroy(cluster->network);
}

void cluster_drop(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->config.sites; i++) {
        if (cluster->site[i].up)
            site_crash(cluster, i, CFSR_PERSIST_EVERYTHING);
        remove_site(&cluster->site[i]);
    }
    cfsr_sim_network_destroy(cluster->network);
}

struct cfsr_fs *site_copy_disk(struct cluster *cluster, unsigned index)
{
    struct cfsr_fs *copy;

    MUST(cluster, cfsr_fs_sim_clone(cluster->site[index].fs, &copy), "copy of a disk");
    return copy;
}

/* ---- the local service ---- */

void site_publish(struct cluster *cluster, unsigned index)
{
    struct test_site *site = &cluster->site[index];

    site->dirty = true;
    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        const struct origin *origin = site->origin[lane];
        if (origin != NULL) {
            site->published[lane] = origin_head(origin);
            site->published_entries[lane] = origin_entries(origin);
        }
        if (site->up)
            cfsr_node_core_set_head(site->core[lane % site->cores], lane, site->published[lane],
                                    site->published_entries[lane]);
    }
}

void site_append_lane(struct cluster *cluster, unsigned index, uint32_t lane, unsigned count,
                      uint32_t bytes)
{
    struct test_site *site = &cluster->site[index];

    site->clock.wall_us = site_wall_us(site);
    for (unsigned i = 0; i < count; i++)
        MUST(cluster, origin_append(site->origin[lane], bytes, cluster_random(cluster), false),
             "append");
    MUST(cluster, origin_commit(site->origin[lane]), "commit");
    site_publish(cluster, index);
}

void site_append(struct cluster *cluster, unsigned index, unsigned count, uint32_t max_bytes)
{
    struct test_site *site = &cluster->site[index];

    site->clock.wall_us = site_wall_us(site);
    for (unsigned i = 0; i < count; i++) {
        uint64_t random = cluster_random(cluster);
        uint32_t lane = (uint32_t)(random % site->site.lanes);
        uint32_t bytes = (uint32_t)(cluster_random(cluster) % (max_bytes + 1));
        MUST(cluster, origin_append(site->origin[lane], bytes, random >> 8, false), "append");
    }
    for (uint32_t lane = 0; lane < site->site.lanes; lane++)
        MUST(cluster, origin_commit(site->origin[lane]), "commit");
    site_publish(cluster, index);
}

/* ---- time ---- */

static unsigned run_jobs(struct test_site *site)
{
    uint64_t now_us = site->cluster->now_us;
    unsigned count = site->job_count, work = 0;

    /* Those that a done() submits stand behind and have their time at the next round. */
    for (unsigned i = 0; i < count;) {
        struct cluster_job *entry = &site->jobs[i];
        struct cfsr_node_job *job = entry->job;
        if (entry->due_us > now_us) {
            i++;
            continue;
        }
        work++;
        if (!entry->ran) {
            job->run(job);
            entry->ran = true;
            entry->due_us = now_us + job_delay(site);
            if (entry->due_us > now_us) {
                i++;
                continue;
            }
        }
        memmove(entry, entry + 1, (site->job_count - i - 1) * sizeof *entry);
        site->job_count--;
        count--;
        job->done(job);
    }
    return work;
}

static uint64_t jobs_due_us(const struct test_site *site)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned i = 0; i < site->job_count; i++)
        due_us = cfsr_min_u64(due_us, site->jobs[i].due_us);
    return due_us;
}

static bool has_cause(const struct test_site *site)
{
    uint64_t now_us = site->cluster->now_us;

    if (site->dirty || site->due_us <= now_us || cfsr_fs_sim_next_due_us(site->fs) <= now_us ||
        jobs_due_us(site) <= now_us ||
        (site->listener != NULL && cfsr_sim_listener_is_waiting(site->listener)) ||
        (site->rdma_listener != NULL && cfsr_sim_listener_is_waiting(site->rdma_listener)))
        return true;
    for (uint32_t number = 0; number < site->cores; number++)
        if (cfsr_sim_group_is_touched(site->group[number]) ||
            (site->rdma_group[number] != NULL &&
             cfsr_sim_group_is_touched(site->rdma_group[number])))
            return true;
    return false;
}

static uint64_t to_us(uint64_t at_ns)
{
    return at_ns == UINT64_MAX ? at_ns : (at_ns + 999) / 1000;
}

static unsigned accept_all(struct test_site *site, struct cfsr_listener *listener,
                           enum cfsr_path path)
{
    uint64_t now_ns = site->cluster->now_us * 1000;
    struct cfsr_incoming *incoming;
    struct cfsr_preamble preamble;
    unsigned work = 0;

    while (listener != NULL &&
           cfsr_transport_sim.listener_accept(listener, now_ns, &incoming, &preamble) == 0) {
        cfsr_node_core_accept(site->core[preamble.target_core % site->cores], path, incoming,
                              now_ns);
        work++;
    }
    return work;
}

static unsigned turn_site(struct cluster *cluster, struct test_site *site)
{
    uint64_t now_ns = cluster->now_us * 1000, wall_us = site_wall_us(site);
    unsigned work;

    site->dirty = false;
    site->turned = true;
    cfsr_fs_sim_advance(site->fs, cluster->now_us);
    work = run_jobs(site);
    work += cfsr_fs_poll(site->fs);
    work += accept_all(site, site->listener, CFSR_PATH_TCP);
    work += accept_all(site, site->rdma_listener, CFSR_PATH_RDMA);
    site->due_us = UINT64_MAX;
    for (uint32_t number = 0; number < site->cores; number++) {
        work += cfsr_node_core_tick(site->core[number], now_ns, wall_us);
        site->due_us = cfsr_min_u64(site->due_us,
                                    to_us(cfsr_node_core_next_deadline(site->core[number])));
    }
    /* What did something may be able to do more. */
    site->dirty = site->dirty || work > 0;
    cluster->turns++;
    cluster->digest = (cluster->digest ^ (cluster->now_us << 8 ^ site->index << 4 ^ work)) *
                      0xbf58476d1ce4e5b9ull;
    cluster->digest ^= cluster->digest >> 31;
    return work;
}

static uint64_t next_due_us(const struct cluster *cluster)
{
    uint64_t due_us = cfsr_sim_network_next_due_us(cluster->network);

    for (unsigned i = 0; i < cluster->config.sites; i++) {
        const struct test_site *site = &cluster->site[i];
        if (!site->up)
            continue;
        due_us = cfsr_min_u64(due_us, cfsr_fs_sim_next_due_us(site->fs));
        due_us = cfsr_min_u64(due_us, jobs_due_us(site));
        due_us = cfsr_min_u64(due_us, site->due_us);
    }
    return due_us;
}

void cluster_step_to(struct cluster *cluster, uint64_t limit_us)
{
    unsigned rounds = 0, total = 0;
    bool again;

    cluster->steps++;
    cfsr_sim_network_advance(cluster->network, cluster->now_us);
    for (unsigned i = 0; i < cluster->config.sites; i++)
        cluster->site[i].turned = false;
    do {
        again = false;
        for (unsigned i = 0; i < cluster->config.sites; i++) {
            struct test_site *site = &cluster->site[i];
            /* A deadline that a turn did not move is looked at once an instant: else it spins. */
            if (!site->up || !has_cause(site) ||
                (site->turned && site->due_us <= cluster->now_us && !site->dirty))
                continue;
            unsigned work = turn_site(cluster, site);
            total += work;
            again = again || work > 0;
        }
        CHECK(cluster, ++rounds < 10000, "spin", "work without end at %" PRIu64 " us",
              cluster->now_us);
    } while (again);
    uint64_t due_us = next_due_us(cluster);
    if (due_us <= cluster->now_us) {
        cluster->spins += total == 0;
        due_us = cluster->now_us + 10;
    }
    cluster->now_us = cfsr_max_u64(cfsr_min_u64(due_us, limit_us), cluster->now_us);
}

void cluster_step(struct cluster *cluster)
{
    /* Nothing at all to come: time goes on, the test's limit ends it. */
    cluster_step_to(cluster, cluster->now_us + 1000000);
}

void cluster_run_us(struct cluster *cluster, uint64_t us)
{
    uint64_t end_us = cluster->now_us + us;
    while (cluster->now_us < end_us)
        cluster_step(cluster);
}
