/*
 * daemon.c - starts, asks and stops the two daemons of e2e and latency, over TCP or over RDMA.
 *
 * Thread: the program's only one. Progress is read from A's status page (shared memory), not over
 * the admin socket: watching must cost the watched nothing. The status document is asked for once a
 * run, after it.
 */
#include "bench/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fail.h"
#include "bench/measure.h"
#include "bench/process.h"
#include "security/keyring.h"
#include "transport/transport.h"

#define START_NS   60000000000ull
#define ZERO_BYTES (1u << 20)

/* Before a daemon says it in its log, where nobody looks first. */
static int check_rdma(const struct bench_settings *settings)
{
    char device[96];

    if (settings->path != BENCH_PATH_RDMA)
        return 0;
    if (settings->rdma_address[0] == '\0')
        return cfsr_fail(-CFSR_E_USAGE,
                         "--path rdma needs --rdma ADDRESS: one of this machine's RDMA device");
    return cfsr_rdma_probe(NULL, device, sizeof device);
}

static void set_paths(const struct bench_settings *settings, struct bench_site *site,
                      const char *name, uint32_t cpu, uint32_t port)
{
    char log_name[48];

    site->cpu = cpu;
    site->port = port;
    snprintf(site->socket, sizeof site->socket, "%s/run/admin.sock", site->site.data_dir);
    snprintf(log_name, sizeof log_name, "%.32s.log", name);
    (void)bench_work_path(settings, log_name, site->log, sizeof site->log);
}

int bench_site_open(struct cfsr_site *site)
{
    int rc = cfsr_site_load(cfsr_fs_blocking(), site->data_dir, site);

    return rc == -ENOENT ? cfsr_site_create(cfsr_fs_blocking(), site) : rc;
}

/* B: a site of A's cluster with the next id. */
static int open_site_b(struct bench_sites *sites, const char *name)
{
    struct cfsr_site *b = &sites->b.site;
    int rc;

    *b = sites->a.site;
    b->site_id++;
    for (unsigned i = 0; i < sizeof b->journal.bytes; i++)
        b->journal.bytes[i] = (uint8_t)(sites->a.site.journal.bytes[i] ^ 0x5a);
    snprintf(b->name, sizeof b->name, "bench-b");
    rc = bench_work_path(sites->settings, name, b->data_dir, sizeof b->data_dir);
    return rc < 0 ? rc : bench_site_open(b);
}

int bench_sites_open(const struct bench_settings *settings, const char *data_dir, const char *name,
                     struct bench_sites *sites_out)
{
    struct bench_sites sites = {.settings = settings, .peer = -1};
    int rc = check_rdma(settings);

    if (rc >= 0)
        rc = cfsr_site_load(cfsr_fs_blocking(), data_dir, &sites.a.site);
    if (rc >= 0)
        rc = open_site_b(&sites, name);
    if (rc >= 0 &&
        memcmp(&sites.a.site.cluster, &sites.b.site.cluster, sizeof sites.a.site.cluster) != 0)
        rc = cfsr_fail(-CFSR_E_FOREIGN, "%s belongs to an earlier corpus: remove it",
                       sites.b.site.data_dir);
    if (rc < 0)
        return rc;
    set_paths(settings, &sites.a, "daemon-a", settings->cpu_a, settings->port);
    set_paths(settings, &sites.b, "daemon-b", settings->cpu_b, settings->port + 1);
    rc = bench_work_path(settings, "site-pair.key", sites.key_file, sizeof sites.key_file);
    if (rc >= 0 && access(sites.key_file, F_OK) != 0)
        rc = cfsr_keyring_generate(sites.key_file);
    if (rc >= 0)
        rc = cfsr_status_page_open(&sites.a.site, &sites.page);
    if (rc < 0)
        return rc;
    cfsr_status_page_forget_peers(sites.page);
    *sites_out = sites;
    return 0;
}

static void unmap_heap(struct bench_site *site)
{
    if (site->heap != NULL)
        munmap((void *)(uintptr_t)site->heap, sizeof *site->heap);
    site->heap = NULL;
}

void bench_sites_close(struct bench_sites *sites)
{
    if (sites->a.pid > 0)
        (void)bench_daemon_stop(&sites->a);
    if (sites->b.pid > 0)
        (void)bench_daemon_stop(&sites->b);
    unmap_heap(&sites->a);
    unmap_heap(&sites->b);
    cfsr_status_page_close(sites->page);
}

/* ---- emptying B ---- */

static int zero_file(const char *path)
{
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC), rc = 0;
    void *zeros = bench_map(ZERO_BYTES, false);
    struct stat info;

    if (fd < 0 || zeros == NULL || fstat(fd, &info) != 0)
        rc = -EIO;
    /* Header and body are multiples of 4 KiB. */
    for (off_t at = 0; rc == 0 && at < info.st_size;) {
        size_t len = info.st_size - at < (off_t)ZERO_BYTES ? (size_t)(info.st_size - at)
                                                           : ZERO_BYTES;

        if (pwrite(fd, zeros, len, at) != (ssize_t)len)
            rc = -EIO;
        at += (off_t)len;
    }
    if (rc == 0 && fdatasync(fd) != 0)
        rc = -errno;
    bench_unmap(zeros, ZERO_BYTES);
    if (fd >= 0)
        close(fd);
    return rc < 0 ? cfsr_fail(rc, "cannot overwrite %s", path) : 0;
}

/* Zeroes every segment of the lane and frees it. */
static int empty_lane(const struct cfsr_site *site, uint32_t lane)
{
    char folder[CFSR_PATH_MAX + 64];
    struct dirent *entry;
    DIR *directory;
    int rc = 0;

    snprintf(folder, sizeof folder, "%s/inbox/%02u", site->data_dir, lane);
    directory = opendir(folder);
    if (directory == NULL)
        return errno == ENOENT ? 0 : cfsr_fail(-errno, "cannot read %s", folder);
    while (rc >= 0 && (entry = readdir(directory)) != NULL) {
        char from[sizeof folder + 300], to[sizeof folder + 300];
        size_t len = strlen(entry->d_name);

        if (len != 20 || strcmp(entry->d_name + 16, ".seg") != 0)
            continue;
        snprintf(from, sizeof from, "%s/%s", folder, entry->d_name);
        snprintf(to, sizeof to, "%s/free.%.16s", folder, entry->d_name);
        rc = zero_file(from);
        if (rc >= 0 && rename(from, to) != 0)
            rc = cfsr_fail(-errno, "cannot rename %s", from);
    }
    closedir(directory);
    return rc;
}

int bench_sites_reset(struct bench_sites *sites)
{
    char acks[CFSR_PATH_MAX + 16];

    for (uint32_t lane = 0; lane < sites->b.site.lanes; lane++) {
        int rc = empty_lane(&sites->b.site, lane);

        if (rc < 0)
            return rc;
    }
    snprintf(acks, sizeof acks, "%s/acks", sites->a.site.data_dir);
    if (unlink(acks) != 0 && errno != ENOENT)
        return cfsr_fail(-errno, "cannot remove %s", acks);
    cfsr_status_page_forget_peers(sites->page);
    sites->peer = -1;
    return 0;
}

/* ---- running ---- */

static int map_heap(const struct bench_sites *sites, struct bench_site *site, const char *name,
                    char environment[2][CFSR_PATH_MAX + 48])
{
    char library[CFSR_PATH_MAX], file[CFSR_PATH_MAX];
    void *map;
    int fd, rc;

    if (sites->settings->count_heap[0] != '\0')
        snprintf(library, sizeof library, "%s", sites->settings->count_heap);
    else if ((rc = bench_sibling("libcfsr-malloc-count.so", library, sizeof library)) < 0)
        return rc;
    if (access(library, R_OK) != 0)
        return cfsr_fail(-errno, "cannot count heap calls: %s is missing", library);
    rc = bench_work_path(sites->settings, name, file, sizeof file);
    if (rc < 0)
        return rc;
    unmap_heap(site);
    fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0)
        return cfsr_fail(-errno, "cannot make %s", file);
    map = mmap(NULL, sizeof *site->heap, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return -ENOMEM;
    site->heap = map;
    snprintf(environment[0], CFSR_PATH_MAX + 48, "LD_PRELOAD=%s", library);
    snprintf(environment[1], CFSR_PATH_MAX + 48, "CFSR_MALLOC_COUNT_FILE=%s", file);
    return 0;
}

/* Where a site listens and is dialled. */
static void endpoint_of(const struct bench_settings *settings, const struct bench_site *site,
                        char *text_out, size_t len_bytes)
{
    snprintf(text_out, len_bytes, "%s://%s:%u", bench_path_name(settings),
             settings->path == BENCH_PATH_RDMA ? settings->rdma_address : "127.0.0.1", site->port);
}

int bench_daemon_start(struct bench_sites *sites, struct bench_site *site, bool count_heap)
{
    const struct bench_site *other = site == &sites->a ? &sites->b : &sites->a;
    char environment[2][CFSR_PATH_MAX + 48] = {{0}};
    const char *const variables[] = {environment[0], environment[1], NULL};
    const char *arguments[BENCH_ARGS_MAX + 1];
    char listen[CFSR_ENDPOINT_MAX], dial[CFSR_ENDPOINT_MAX], peer[160 + CFSR_ENDPOINT_MAX];
    char cpu[16], extra[sizeof sites->settings->serve_args];
    char *word, *rest = extra;
    unsigned count = 0;
    int rc = count_heap
                 ? map_heap(sites, site, site == &sites->a ? "heap-a" : "heap-b", environment)
                 : 0;

    if (rc < 0)
        return rc;
    endpoint_of(sites->settings, site, listen, sizeof listen);
    endpoint_of(sites->settings, other, dial, sizeof dial);
    snprintf(peer, sizeof peer, "%llu:%s:%s", (unsigned long long)other->site.site_id,
             other->site.name, dial);
    snprintf(cpu, sizeof cpu, "%u", site->cpu);
    snprintf(extra, sizeof extra, "%s", sites->settings->serve_args);
    const char *const fixed[] = {"serve",
                                 "--data-dir",
                                 site->site.data_dir,
                                 "--listen",
                                 listen,
                                 "--peer",
                                 peer,
                                 "--rdma",
                                 sites->settings->path == BENCH_PATH_RDMA ? "require" : "off",
                                 "--key-file",
                                 sites->key_file,
                                 "--cores",
                                 cpu,
                                 "--compress",
                                 sites->settings->compress,
                                 "--reconnect-min",
                                 "20ms",
                                 "--reconnect-max",
                                 "100ms"};
    for (; count < sizeof fixed / sizeof fixed[0]; count++)
        arguments[count] = fixed[count];
    while ((word = strsep(&rest, " ")) != NULL && count < BENCH_ARGS_MAX)
        if (*word != '\0')
            arguments[count++] = word;
    arguments[count] = NULL;
    site->pid = bench_start(arguments, site->log, count_heap ? variables : NULL);
    if (site->pid < 0) {
        rc = site->pid;
        site->pid = 0;
    }
    return rc;
}

int bench_daemon_check(const struct bench_site *site)
{
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)site->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0)
        return 0;
    return cfsr_fail(-CFSR_E_FAILED, "the daemon of %s ended by itself: see %s",
                     site->site.data_dir, site->log);
}

int bench_daemon_stop(struct bench_site *site)
{
    int status = bench_stop(site->pid);

    site->pid = 0;
    if (status != 0)
        return cfsr_fail(-CFSR_E_FAILED, "the daemon of %s ended with status %d: see %s",
                         site->site.data_dir, status, site->log);
    return 0;
}

/* One request and its answer; -errno. */
static int ask(const char *path, json_t **answer_out)
{
    static const char request[] = "{\"command\":\"status\"}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = 0;
    json_t *answer = NULL;
    FILE *stream;

    if (strlen(path) >= sizeof address.sun_path) {
        close(fd);
        return -ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1)
        rc = -errno;
    stream = rc == 0 ? fdopen(fd, "r") : NULL;
    if (stream == NULL) {
        if (fd >= 0)
            close(fd);
        return rc < 0 ? rc : -ENOMEM;
    }
    answer = json_loadf(stream, JSON_DISABLE_EOF_CHECK, NULL);
    fclose(stream);
    if (answer == NULL)
        return -EPROTO;
    *answer_out = answer;
    return 0;
}

int bench_daemon_status(const struct bench_site *site, json_t **status_out)
{
    uint64_t until_ns = cfsr_clock_monotonic_ns() + START_NS;
    int rc;

    while ((rc = ask(site->socket, status_out)) < 0 && cfsr_clock_monotonic_ns() < until_ns) {
        int check = bench_daemon_check(site);

        if (check < 0)
            return check;
        bench_sleep_us(5000);
    }
    if (rc < 0)
        return cfsr_fail(rc, "the daemon of %s does not answer at %s: see %s", site->site.data_dir,
                         site->socket, site->log);
    return 0;
}

int bench_sites_check_path(const struct bench_sites *sites)
{
    const char *wanted = bench_path_name(sites->settings), *transport;
    json_t *status, *link;
    int rc = bench_daemon_status(&sites->a, &status);

    if (rc < 0)
        return rc;
    link = json_array_get(json_object_get(status, "links"), 0);
    transport = json_string_value(json_object_get(link, "transport"));
    if (json_integer_value(json_object_get(link, "connections")) == 0)
        rc = cfsr_fail(-CFSR_E_FAILED, "the daemons are not connected: see %s", sites->a.log);
    else if (transport == NULL || strcmp(transport, wanted) != 0)
        rc = cfsr_fail(-CFSR_E_FAILED, "the link is carried by %s and not by %s: see %s",
                       transport != NULL ? transport : "nothing", wanted, sites->a.log);
    json_decref(status);
    return rc;
}

int64_t bench_sites_acked(struct bench_sites *sites, bool *done_out)
{
    uint64_t acked = 0;

    *done_out = false;
    if (sites->peer < 0)
        sites->peer = cfsr_status_page_find_peer(sites->page, sites->b.site.site_id);
    if (sites->peer < 0) {
        sites->peer = -1;
        return -1;
    }
    *done_out = true;
    for (uint32_t lane = 0; lane < sites->a.site.lanes; lane++) {
        uint64_t lsn = cfsr_status_page_acked(sites->page, sites->peer, lane);
        uint64_t committed = cfsr_status_page_committed(sites->page, lane);

        if (lsn == CFSR_LSN_UNKNOWN || committed == CFSR_LSN_UNKNOWN) {
            *done_out = false;
            return -1;
        }
        acked += lsn;
        *done_out = *done_out && lsn >= committed;
    }
    return (int64_t)acked;
}
