/*
 * daemon.c - `cfs-repl serve`: start in order, the control thread's loop, an orderly end.
 *
 * Start:   site → daemon lock → keys → status page → journal (recovered here unless a writer lives)
 * → inbox → transports → listeners → cores → admin socket. Loop:    poll over signals, listeners
 * and the admin socket; once a second acks go to disk; status lines at their interval. End: SIGTERM
 * or SIGINT: listeners close, cores drain (goodbyes, pending writes), acks stored; at most 10 s.
 *
 * Thread:     control thread (the caller's).
 * Invariants: anything that fails at start leaves no thread behind and one message that says what
 * to do.
 */
#include "control/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cfsrepl/error.h>
#include <cfsrepl/version.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "control/admin.h"
#include "control/cores.h"
#include "control/lane_recovery.h"
#include "control/scrub_json.h"
#include "security/keyring.h"

#define DRAIN_LIMIT_MS   8000u
#define ACKS_INTERVAL_NS 1000000000ull
#define ACCEPTS_PER_TURN 64u
#define LISTENERS_MAX    (CFSR_LISTENS_MAX * CFSR_PATHS)
#define POLL_FDS_MAX     (1 + LISTENERS_MAX + CFSR_ADMIN_CLIENTS_MAX + 1)

struct daemon {
    const struct cfsr_serve_config *config;
    struct cfsr_fs *fs;
    struct cfsr_site site;
    struct cfsr_file *lock;
    struct cfsr_keyring *keyring;
    struct cfsr_status_page *page;
    struct cfsr_lane_recovery lanes;
    struct cfsr_acks acks;
    bool acks_dirty;                                    /* they moved since they were stored */
    struct cfsr_inbox_state *inbox_state;               /* one a lane; only during the start */
    const struct cfsr_transport *transport[CFSR_PATHS]; /* NULL: not used … */
    int rdma_unusable;                                  /* … and why, where it was wanted */
    struct {
        struct cfsr_listener *listener;
        enum cfsr_path path;
    } listen[LISTENERS_MAX];
    uint32_t listen_count;
    struct cfsr_cores *cores;
    struct cfsr_admin *admin;
    int signal_fd;
    uint64_t started_ns, acks_at_ns, status_at_ns;
    uint64_t scrub_run; /* names of scrubs that were asked for: 1, 2, … */
    int stop_signal;
};

/* ---- start ---- */

static int lock_daemon(struct daemon *daemon)
{
    char path[CFSR_PATH_MAX + 64];
    int rc;

    snprintf(path, sizeof path, "%s/run/daemon.lock", daemon->site.data_dir);
    rc = cfsr_file_open(daemon->fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE,
                        &daemon->lock);
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s: check the owner and mode of the data directory",
                         path, cfsr_strerror(rc));
    rc = cfsr_file_lock(daemon->lock);
    if (rc == -CFSR_E_LOCKED)
        return cfsr_fail(
            rc, "data directory %s is in use by another cfs-repl daemon: stop that one first",
            daemon->site.data_dir);
    return rc;
}

static int load_site(struct daemon *daemon)
{
    const struct cfsr_serve_config *config = daemon->config;
    int rc = cfsr_site_load(daemon->fs, config->data_dir, &daemon->site);

    if (rc < 0)
        return rc;
    if (config->site_id != 0 && config->site_id != daemon->site.site_id)
        return cfsr_fail(-CFSR_E_CONFIG, "--site-id %llu: data directory %s belongs to site %llu",
                         (unsigned long long)config->site_id, config->data_dir,
                         (unsigned long long)daemon->site.site_id);
    for (uint32_t i = 0; i < config->peer_count; i++)
        if (config->peer[i].site_id == daemon->site.site_id)
            return cfsr_fail(-CFSR_E_CONFIG, "--peer %llu:%s: that is this site's own id",
                             (unsigned long long)config->peer[i].site_id, config->peer[i].name);
    if (config->core_count > daemon->site.lanes)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "%u cores for %u lanes: a lane lives on one core, so use %u cores at most",
                         config->core_count, daemon->site.lanes, daemon->site.lanes);
    return lock_daemon(daemon);
}

static int load_keys(struct daemon *daemon)
{
    const struct cfsr_serve_config *config = daemon->config;
    int rc = cfsr_keyring_load(config->key_file, &daemon->keyring);

    if (rc == -CFSR_E_FORMAT)
        rc = -CFSR_E_CONFIG; /* the message stays; the exit code says where to look */
    for (uint32_t i = 0; rc == 0 && i < config->peer_count; i++)
        if (cfsr_keyring_signing_key(daemon->keyring, daemon->site.site_id,
                                     config->peer[i].site_id) == 0)
            rc = cfsr_fail(
                -CFSR_E_CONFIG,
                "key file %s has no key for sites %llu and %llu: add one with these ids or '*'",
                config->key_file, (unsigned long long)daemon->site.site_id,
                (unsigned long long)config->peer[i].site_id);
    return rc;
}

static int open_page(struct daemon *daemon)
{
    int rc = cfsr_status_page_open(&daemon->site, &daemon->page);
    if (rc < 0)
        return rc;
    rc = cfsr_acks_load(daemon->fs, &daemon->site, &daemon->acks);
    if (rc < 0)
        return rc;
    cfsr_status_page_forget_peers(daemon->page);
    for (uint32_t i = 0; i < daemon->config->peer_count; i++) {
        uint64_t site_id = daemon->config->peer[i].site_id;
        int index = cfsr_status_page_register_peer(daemon->page, site_id);
        struct cfsr_acks_peer *peer = cfsr_acks_peer(&daemon->acks, site_id);
        if (index < 0 || peer == NULL)
            return cfsr_fail(-ENOSPC, "too many peers are known in %s/acks", daemon->site.data_dir);
        for (uint32_t lane = 0; lane < daemon->site.lanes; lane++)
            cfsr_status_page_set_acked(daemon->page, index, lane, peer->acked[lane]);
        cfsr_status_page_set_detached(daemon->page, index, peer->detached);
    }
    return 0;
}

/* The lanes that no writer holds are recovered here, so that a site without its metadata service
 * still replicates what it has. */
static int recover_journal(struct daemon *daemon)
{
    daemon->lanes = (struct cfsr_lane_recovery){
        .fs = daemon->fs, .site = &daemon->site, .page = daemon->page};
    return cfsr_lane_recovery_start(&daemon->lanes, cfsr_clock_monotonic_ns());
}

/* What a lane's recovery could not pass is fetched from a peer. */
static int scrub_damaged(struct daemon *daemon)
{
    const struct cfsr_scrub_request request = {
        .run = 0, .lane_mask = daemon->lanes.damaged_mask, .parts = CFSR_SCRUB_JOURNAL};

    return request.lane_mask == 0 ? 0 : cfsr_cores_scrub(daemon->cores, &request);
}

static int recover_inbox(struct daemon *daemon)
{
    daemon->inbox_state = calloc(daemon->site.lanes, sizeof *daemon->inbox_state);
    if (daemon->inbox_state == NULL)
        return -ENOMEM;
    for (uint32_t lane = 0; lane < daemon->site.lanes; lane++) {
        struct cfsr_inbox_state *state = &daemon->inbox_state[lane];
        int rc = cfsr_inbox_recover_lane(daemon->fs, &daemon->site, lane, false, state);
        if (rc < 0)
            return rc;
        if (state->cut_bytes > 0)
            cfsr_log(CFSR_LOG_INFO, "inbox_tail_cut", CFSR_U("lane", lane),
                     CFSR_U("sequence", state->sequence), CFSR_U("bytes_at_most", state->cut_bytes),
                     CFSR_S("meaning", "never acknowledged; the peers send it again"));
    }
    return 0;
}

static bool is_rdma(const char *endpoint)
{
    return strncmp(endpoint, "rdma://", strlen("rdma://")) == 0;
}

static bool wants_rdma(const struct cfsr_serve_config *config)
{
    if (config->rdma == CFSR_RDMA_OFF)
        return false;
    for (uint32_t i = 0; i < config->listen_count; i++)
        if (is_rdma(config->listen[i]))
            return true;
    for (uint32_t i = 0; i < config->peer_count; i++)
        if (config->peer[i].endpoint[CFSR_PATH_RDMA][0] != '\0')
            return true;
    return config->rdma == CFSR_RDMA_REQUIRE;
}

/* What there is to send by. */
static int find_transports(struct daemon *daemon)
{
    const struct cfsr_serve_config *config = daemon->config;
    char device[96];
    int rc;

    daemon->transport[CFSR_PATH_TCP] = &cfsr_transport_tcp;
    if (!wants_rdma(config))
        return 0;
    rc = cfsr_rdma_probe(config->rdma_device, device, sizeof device);
    if (rc == 0) {
        daemon->transport[CFSR_PATH_RDMA] = cfsr_transport_find("rdma");
        CFSR_ASSERT(daemon->transport[CFSR_PATH_RDMA] != NULL);
        cfsr_log(CFSR_LOG_INFO, "rdma", CFSR_S("device", device));
        return 0;
    }
    if (config->rdma == CFSR_RDMA_REQUIRE) {
        char why[512];
        snprintf(why, sizeof why, "%s", cfsr_error_message());
        return cfsr_fail(-CFSR_E_CONFIG, "--rdma require, but RDMA cannot be used here: %s", why);
    }
    daemon->rdma_unusable = rc;
    cfsr_log(CFSR_LOG_WARN, "rdma_unusable", CFSR_S("reason", cfsr_error_name(rc)),
             CFSR_S("detail", cfsr_error_message()), CFSR_S("meaning", "all links use TCP"));
    return 0;
}

static int open_listener(struct daemon *daemon, enum cfsr_path path, const char *address)
{
    const struct cfsr_transport *transport = daemon->transport[path];
    char endpoint[CFSR_ENDPOINT_TEXT_MAX];
    struct cfsr_listener *listener;

    snprintf(endpoint, sizeof endpoint, "%s://%s", cfsr_path_name(path), address);
    int rc = transport->listen(endpoint, NULL, &listener);
    if (rc < 0)
        return rc;
    daemon->listen[daemon->listen_count].listener = listener;
    daemon->listen[daemon->listen_count++].path = path;
    cfsr_log(CFSR_LOG_INFO, "listening",
             CFSR_S("endpoint", transport->listener_endpoint(listener)));
    return 0;
}

/* rdma://HOST:PORT is TCP at HOST:PORT too: the port numbers of the two do not meet. */
static int open_listeners(struct daemon *daemon)
{
    const struct cfsr_serve_config *config = daemon->config;

    for (uint32_t i = 0; i < config->listen_count; i++) {
        const char *address = strstr(config->listen[i], "://") + strlen("://");
        int rc = 0;
        if (is_rdma(config->listen[i]) && daemon->transport[CFSR_PATH_RDMA] != NULL)
            rc = open_listener(daemon, CFSR_PATH_RDMA, address);
        if (rc < 0 && config->rdma == CFSR_RDMA_REQUIRE)
            return rc;
        if (rc < 0)
            cfsr_log(CFSR_LOG_WARN, "rdma_not_listening", CFSR_S("endpoint", config->listen[i]),
                     CFSR_S("reason", cfsr_error_name(rc)), CFSR_S("detail", cfsr_error_message()));
        if (is_rdma(config->listen[i]) && config->rdma == CFSR_RDMA_REQUIRE)
            continue;
        rc = open_listener(daemon, CFSR_PATH_TCP, address);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int start_cores(struct daemon *daemon)
{
    struct cfsr_cores_options options = {
        .site = &daemon->site,
        .config = daemon->config,
        .keyring = daemon->keyring,
        .page = daemon->page,
        .acks = &daemon->acks,
        .inbox_state = daemon->inbox_state,
        .rdma = daemon->transport[CFSR_PATH_RDMA],
        .rdma_unusable = daemon->rdma_unusable,
    };
    int rc = cfsr_cores_start(&options, &daemon->cores);
    free(daemon->inbox_state);
    daemon->inbox_state = NULL;
    return rc;
}

static int block_signals(struct daemon *daemon)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before any thread: they inherit it */
    signal(SIGPIPE, SIG_IGN);
    daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return daemon->signal_fd < 0 ? -errno : 0;
}

/* ---- status ---- */

static json_t *status(struct daemon *daemon)
{
    struct cfsr_status_input input = {
        .site = &daemon->site,
        .config = daemon->config,
        .page = daemon->page,
        .now_ns = cfsr_clock_monotonic_ns(),
        .started_ns = daemon->started_ns,
        .wall_us = cfsr_clock_wall_us(),
        .memory_bytes = cfsr_cores_memory_bytes(daemon->cores),
    };
    input.report_count = cfsr_cores_report(daemon->cores, &input.reports);
    input.now_ns = cfsr_clock_monotonic_ns(); /* not before anything in the reports */
    return cfsr_status_json(&input);
}

static json_t *begin_scrub(struct daemon *daemon, const json_t *request)
{
    struct cfsr_scrub_request scrub;
    int rc = cfsr_scrub_request_parse(request, daemon->site.lanes,
                                      daemon->config->scrub_rate_bytes_per_s, &scrub);

    if (rc < 0)
        return json_pack("{s:s,s:s}", "error", "usage", "message", cfsr_error_message());
    scrub.run = ++daemon->scrub_run;
    if (cfsr_cores_scrub(daemon->cores, &scrub) < 0)
        return json_pack("{s:s,s:s}", "error", "busy", "message",
                         "a core takes no messages now: ask again");
    cfsr_log(CFSR_LOG_INFO, "scrub_asked", CFSR_U("run", scrub.run),
             CFSR_U("lanes", (uint64_t)__builtin_popcountll(scrub.lane_mask)),
             CFSR_U("rate", scrub.rate_bytes_per_s));
    return json_pack("{s:I}", "run", (json_int_t)scrub.run);
}

static json_t *handle_request(void *user, const json_t *request)
{
    struct daemon *daemon = user;
    const char *command = json_string_value(json_object_get(request, "command"));

    if (command != NULL && strcmp(command, "status") == 0)
        return status(daemon);
    if (command != NULL && strcmp(command, "scrub") == 0)
        return begin_scrub(daemon, request);
    return json_pack("{s:s,s:s}", "error", "usage", "message",
                     "unknown command: this daemon knows \"status\" and \"scrub\"");
}

static void log_status(struct daemon *daemon)
{
    json_t *document = status(daemon);
    json_t *links = json_object_get(document, "links"), *link;
    size_t i;

    json_array_foreach(links, i, link)
    {
        json_t *entries = json_object_get(link, "lag_entries"),
               *bytes = json_object_get(link, "lag_bytes");
        char lag[32];
        snprintf(lag, sizeof lag, "%" JSON_INTEGER_FORMAT, json_integer_value(entries));
        cfsr_log(CFSR_LOG_INFO, "link_status",
                 CFSR_U("peer", (uint64_t)json_integer_value(json_object_get(link, "peer"))),
                 CFSR_S("state", json_string_value(json_object_get(link, "state"))),
                 CFSR_S("reason", json_string_value(json_object_get(link, "reason"))),
                 CFSR_S("lag_entries", json_is_null(entries) ? "unknown" : lag),
                 CFSR_U("lag_bytes", (uint64_t)json_integer_value(bytes)));
    }
    json_decref(document);
}

/* ---- the loop ---- */

static void store_acks(struct daemon *daemon)
{
    bool changed = false;

    for (uint32_t i = 0; i < daemon->config->peer_count; i++) {
        uint64_t site_id = daemon->config->peer[i].site_id;
        int index = cfsr_status_page_find_peer(daemon->page, site_id);
        struct cfsr_acks_peer *peer = cfsr_acks_peer(&daemon->acks, site_id);
        for (uint32_t lane = 0; index >= 0 && peer != NULL && lane < daemon->site.lanes; lane++) {
            uint64_t acked = cfsr_status_page_acked(daemon->page, index, lane);
            if (acked == CFSR_LSN_UNKNOWN || acked == peer->acked[lane])
                continue;
            peer->acked[lane] = acked;
            changed = true;
        }
    }
    daemon->acks_dirty = daemon->acks_dirty || changed;
    if (!daemon->acks_dirty)
        return;
    int rc = cfsr_acks_store_part(daemon->fs, &daemon->site, &daemon->acks, CFSR_ACKS_ACKED);
    if (rc == -CFSR_E_LOCKED)
        return; /* the producer stores its part: again in a second */
    daemon->acks_dirty = rc < 0;
    if (rc < 0)
        cfsr_log(CFSR_LOG_WARN, "acks_not_stored", CFSR_ERR(rc));
}

static void accept_connections(struct daemon *daemon, uint32_t number, uint64_t now_ns)
{
    enum cfsr_path path = daemon->listen[number].path;
    struct cfsr_listener *listener = daemon->listen[number].listener;
    struct cfsr_incoming *incoming;
    struct cfsr_preamble preamble;

    for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
        if (daemon->transport[path]->listener_accept(listener, now_ns, &incoming, &preamble) < 0)
            return;
        cfsr_cores_accept(daemon->cores, path, incoming, &preamble);
    }
}

static void take_signals(struct daemon *daemon)
{
    struct signalfd_siginfo info;
    while (read(daemon->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            cfsr_log(
                CFSR_LOG_WARN, "reload_ignored",
                CFSR_S("advice", "this version reads its configuration at start only: restart it"));
        else
            daemon->stop_signal = (int)info.ssi_signo;
    }
}

static int wait_ms(const struct daemon *daemon, uint64_t now_ns)
{
    uint64_t due = daemon->acks_at_ns;
    if (daemon->config->status_interval_s != 0 && daemon->status_at_ns < due)
        due = daemon->status_at_ns;
    for (uint32_t i = 0; i < daemon->listen_count; i++) {
        uint64_t deadline = daemon->transport[daemon->listen[i].path]->listener_deadline(
            daemon->listen[i].listener);
        due = deadline < due ? deadline : due;
    }
    return due <= now_ns ? 0 : (int)((due - now_ns) / 1000000) + 1;
}

static void periodic(struct daemon *daemon, uint64_t now_ns)
{
    if (now_ns >= daemon->acks_at_ns) {
        store_acks(daemon);
        cfsr_lane_recovery_turn(&daemon->lanes, now_ns);
        daemon->acks_at_ns = now_ns + ACKS_INTERVAL_NS;
    }
    if (daemon->config->status_interval_s != 0 && now_ns >= daemon->status_at_ns) {
        log_status(daemon);
        daemon->status_at_ns = now_ns + daemon->config->status_interval_s * 1000000000ull;
    }
}

static int run_loop(struct daemon *daemon)
{
    while (daemon->stop_signal == 0) {
        struct pollfd fds[POLL_FDS_MAX];
        unsigned count = 0;
        uint64_t now_ns = cfsr_clock_monotonic_ns();

        fds[count++] = (struct pollfd){.fd = daemon->signal_fd, .events = POLLIN};
        for (uint32_t i = 0; i < daemon->listen_count; i++)
            fds[count++] = (struct pollfd){
                .fd = daemon->transport[daemon->listen[i].path]->listener_fd(
                    daemon->listen[i].listener),
                .events = POLLIN};
        unsigned admin_at = count;
        count += cfsr_admin_poll_fds(daemon->admin, fds + count);
        if (poll(fds, count, wait_ms(daemon, now_ns)) < 0 && errno != EINTR)
            return -errno;
        now_ns = cfsr_clock_monotonic_ns();
        if (fds[0].revents != 0)
            take_signals(daemon);
        for (uint32_t i = 0; i < daemon->listen_count; i++)
            accept_connections(daemon, i, now_ns);
        cfsr_admin_turn(daemon->admin, fds + admin_at, count - admin_at, now_ns);
        periodic(daemon, now_ns);
        if (cfsr_cores_failed(daemon->cores))
            return cfsr_fail(-CFSR_E_FAILED,
                             "a core stopped by itself: see the log; restart the daemon");
    }
    return 0;
}

/* ---- end ---- */

static int stop(struct daemon *daemon)
{
    int rc = 0;

    for (uint32_t i = 0; i < daemon->listen_count; i++)
        daemon->transport[daemon->listen[i].path]->listener_close(daemon->listen[i].listener);
    if (daemon->cores != NULL)
        rc = cfsr_cores_stop(daemon->cores, DRAIN_LIMIT_MS);
    if (daemon->cores != NULL && daemon->page != NULL)
        store_acks(daemon);
    cfsr_admin_destroy(daemon->admin);
    if (rc < 0) {
        cfsr_log(CFSR_LOG_ERROR, "drain_timed_out", CFSR_U("limit_ms", DRAIN_LIMIT_MS));
        return rc; /* a core may still use the rest */
    }
    free(daemon->inbox_state);
    cfsr_keyring_destroy(daemon->keyring);
    if (daemon->page != NULL)
        cfsr_status_page_close(daemon->page);
    if (daemon->lock != NULL)
        cfsr_file_close(daemon->lock);
    if (daemon->signal_fd >= 0)
        close(daemon->signal_fd);
    return 0;
}

static int start(struct daemon *daemon)
{
    int rc = cfsr_security_init();

    if (rc == 0)
        rc = load_site(daemon);
    if (rc == 0)
        rc = load_keys(daemon);
    if (rc == 0)
        rc = block_signals(daemon);
    if (rc == 0)
        rc = open_page(daemon);
    if (rc == 0)
        rc = recover_journal(daemon);
    if (rc == 0)
        rc = recover_inbox(daemon);
    if (rc == 0)
        rc = find_transports(daemon);
    if (rc == 0)
        rc = open_listeners(daemon);
    if (rc == 0)
        rc = start_cores(daemon);
    if (rc == 0)
        rc = scrub_damaged(daemon);
    if (rc == 0)
        rc = cfsr_admin_create(daemon->config->admin_socket, handle_request, daemon,
                               &daemon->admin);
    return rc;
}

int cfsr_daemon_run(const struct cfsr_serve_config *config)
{
    struct daemon *daemon = calloc(1, sizeof *daemon);
    int rc;

    if (daemon == NULL)
        return -ENOMEM;
    daemon->config = config;
    daemon->fs = cfsr_fs_blocking();
    daemon->signal_fd = -1;
    daemon->started_ns = cfsr_clock_monotonic_ns();
    daemon->status_at_ns = daemon->started_ns + config->status_interval_s * 1000000000ull;
    cfsr_log_configure(config->log_level, config->log_format);
    rc = start(daemon);
    if (rc == 0) {
        cfsr_log(CFSR_LOG_INFO, "ready", CFSR_U("site", daemon->site.site_id),
                 CFSR_S("name", daemon->site.name), CFSR_S("version", cfsr_version()),
                 CFSR_U("cores", config->core_count), CFSR_U("lanes", daemon->site.lanes),
                 CFSR_U("peers", config->peer_count));
        rc = run_loop(daemon);
        cfsr_log(CFSR_LOG_INFO, "stopping", CFSR_I("signal", daemon->stop_signal));
    }
    int stopped = stop(daemon);
    if (rc == 0)
        rc = stopped;
    if (rc == 0)
        cfsr_log(CFSR_LOG_INFO, "stopped", CFSR_U("site", daemon->site.site_id));
    if (stopped == 0)
        free(daemon);
    return rc;
}
