/*
 * status_page.c - DATA/run/status: the memory shared by writer, readers, daemon and tools.
 *
 * Thread:     any thread and process; every shared field is an aligned atomic word.
 * Invariants: a committed LSN is stored after its bytes are durable; a sleeper's bit is set before
 * it re-checks, and a publisher looks at the bits after its store, with a full fence between on
 * both sides: no lost wake-up. Rejected:   the file seam (this is shared memory, not data: nothing
 * in it survives a boot), eventfd (cannot be opened by name), one FIFO per lane (a reader of all
 * lanes would sleep on 64 descriptors).
 *
 * FIFOs are opened read-write on both sides: then neither SIGPIPE nor endless POLLHUP can happen,
 * and they outlive their leases, so that a publisher may keep its descriptor.
 */
#include "journal/status_page.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#define PAGE_MAGIC             0x3154535246534643ull /* "CFSFRST1" as little-endian bytes */
#define PAGE_VERSION           1u
#define MODE_ACTIVE_READ_WRITE 1u

enum lease_state {
    LEASE_FREE,
    LEASE_TAKING,
    LEASE_LIVE
};

struct shared_lane { /* one cache line: written by the lane's writer only */
    _Atomic uint64_t committed_lsn;
    _Atomic uint64_t entries;
    uint64_t reserved[6];
};

struct shared_lease {
    _Atomic uint32_t state;
    _Atomic uint32_t generation;
    _Atomic uint64_t lane_mask;
    _Atomic uint64_t pid;
    _Atomic uint64_t pid_started; /* clock ticks since boot: tells a reused pid */
    uint64_t reserved[4];
};

struct shared_page {
    _Atomic uint64_t magic;
    uint32_t version;
    uint32_t lanes;
    uint8_t boot_id[16];
    uint8_t journal[16];
    _Atomic uint32_t mode;
    uint32_t reserved0;
    _Atomic uint64_t epoch;
    struct cfsr_hlc clock;
    _Atomic uint64_t sleepers; /* bit per lease slot */
    /* Retention, as the writer's helper saw it last. */
    _Atomic uint32_t pressure; /* enum cfsr_gc_pressure_level */
    uint32_t reserved1;
    _Atomic uint64_t journal_bytes;
    _Atomic uint64_t cap_bytes;
    _Atomic uint64_t detached; /* bit per peer slot */
    uint8_t reserved2[4096 - 112];
    struct shared_lane lanes_state[CFSR_LANES_MAX];
    _Atomic uint64_t peer_sites[CFSR_STATUS_PEERS_MAX];
    struct shared_lease leases[CFSR_STATUS_LEASES_MAX];
    _Atomic uint64_t acked[CFSR_STATUS_PEERS_MAX][CFSR_LANES_MAX];
};
_Static_assert(offsetof(struct shared_page, boot_id) == 16, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, journal) == 32, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, mode) == 48, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, epoch) == 56, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, clock) == 64, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, sleepers) == 72, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, pressure) == 80, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, detached) == 104, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, lanes_state) == 4096,
               "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, peer_sites) == 8192,
               "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, leases) == 8704, "layout of docs/journal-format.md");
_Static_assert(offsetof(struct shared_page, acked) == 12800, "layout of docs/journal-format.md");
_Static_assert(sizeof(struct shared_page) == 45568, "layout of docs/journal-format.md");
_Static_assert(CFSR_STATUS_LEASES_MAX <= 64, "one bit of sleepers per lease");

struct cfsr_status_page {
    struct shared_page *shared;
    char run_dir[CFSR_PATH_MAX + 8];
    pthread_mutex_t wake_mutex; /* of the descriptors below */
    int wake_fds[CFSR_STATUS_LEASES_MAX];
};

static int read_boot_id(uint8_t boot_id[16])
{
    struct cfsr_uuid uuid;
    char text[CFSR_UUID_TEXT_LEN] = {0};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t len;

    if (fd < 0)
        return cfsr_fail(-errno, "cannot open /proc/sys/kernel/random/boot_id: is /proc mounted?");
    len = read(fd, text, sizeof text - 1);
    close(fd);
    if (len != CFSR_UUID_TEXT_LEN - 1 || cfsr_uuid_parse(text, &uuid) < 0)
        return cfsr_fail(-CFSR_E_FORMAT, "cannot read the boot id of this machine");
    memcpy(boot_id, uuid.bytes, 16);
    return 0;
}

static void make_fresh(struct shared_page *shared, const struct cfsr_site *site,
                       const uint8_t boot_id[16])
{
    atomic_store(&shared->magic, 0);
    memset((char *)shared + sizeof shared->magic, 0, sizeof *shared - sizeof shared->magic);
    shared->version = PAGE_VERSION;
    shared->lanes = site->lanes;
    memcpy(shared->boot_id, boot_id, 16);
    memcpy(shared->journal, site->journal.bytes, 16);
    atomic_store(&shared->mode, MODE_ACTIVE_READ_WRITE);
    for (int lane = 0; lane < CFSR_LANES_MAX; lane++)
        atomic_store(&shared->lanes_state[lane].committed_lsn, CFSR_LSN_UNKNOWN);
    for (int peer = 0; peer < CFSR_STATUS_PEERS_MAX; peer++)
        for (int lane = 0; lane < CFSR_LANES_MAX; lane++)
            atomic_store(&shared->acked[peer][lane], CFSR_LSN_UNKNOWN);
    atomic_store(&shared->magic, PAGE_MAGIC);
}

static bool is_current(const struct shared_page *shared, const struct cfsr_site *site,
                       const uint8_t boot_id[16])
{
    return atomic_load((_Atomic uint64_t *)(uintptr_t)&shared->magic) == PAGE_MAGIC &&
           shared->version == PAGE_VERSION && shared->lanes == site->lanes &&
           memcmp(shared->boot_id, boot_id, 16) == 0 &&
           memcmp(shared->journal, site->journal.bytes, 16) == 0;
}

/* Opens, sizes, maps and checks under the file's lock: two openers at once see one page. */
static int map_page(const struct cfsr_site *site, const char *path, struct shared_page **shared_out)
{
    uint8_t boot_id[16];
    struct shared_page *shared;
    int rc = read_boot_id(boot_id), fd;

    if (rc < 0)
        return rc;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    if (fd < 0)
        return cfsr_fail(-errno, "cannot open the status page %s: %s", path, cfsr_strerror(-errno));
    /* Really allocated: on a full disk a hole would kill the process (SIGBUS) at its first touch.
     */
    rc = flock(fd, LOCK_EX) < 0 ? -errno : -posix_fallocate(fd, 0, (off_t)sizeof *shared);
    if (rc < 0) {
        rc = cfsr_fail(rc, "cannot prepare the status page %s: %s: free some space", path,
                       cfsr_strerror(rc));
        goto close_fd;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) {
        rc = cfsr_fail(-errno, "cannot map the status page %s: %s", path, cfsr_strerror(-errno));
        goto close_fd;
    }
    if (!is_current(shared, site, boot_id))
        make_fresh(shared, site, boot_id);
    *shared_out = shared;
close_fd:
    (void)flock(
        fd, LOCK_UN); /* the mapping keeps the open file, and with it the lock, beyond close() */
    close(fd);
    return rc;
}

int cfsr_status_page_open(const struct cfsr_site *site, struct cfsr_status_page **page_out)
{
    struct cfsr_status_page *page = calloc(1, sizeof *page);
    char path[CFSR_PATH_MAX + 32];
    int rc;

    if (page == NULL)
        return -ENOMEM;
    (void)snprintf(page->run_dir, sizeof page->run_dir, "%s/run", site->data_dir);
    (void)snprintf(path, sizeof path, "%s/run/status", site->data_dir);
    rc = map_page(site, path, &page->shared);
    if (rc < 0) {
        free(page);
        return rc;
    }
    for (int slot = 0; slot < CFSR_STATUS_LEASES_MAX; slot++)
        page->wake_fds[slot] = -1;
    (void)pthread_mutex_init(&page->wake_mutex, NULL);
    *page_out = page;
    return 0;
}

void cfsr_status_page_close(struct cfsr_status_page *page)
{
    if (page == NULL)
        return;
    for (int slot = 0; slot < CFSR_STATUS_LEASES_MAX; slot++)
        if (page->wake_fds[slot] >= 0)
            close(page->wake_fds[slot]);
    (void)pthread_mutex_destroy(&page->wake_mutex);
    munmap(page->shared, sizeof *page->shared);
    free(page);
}

uint64_t cfsr_status_page_committed(const struct cfsr_status_page *page, uint32_t lane)
{
    CFSR_ASSERT(lane < CFSR_LANES_MAX);
    return atomic_load_explicit(&page->shared->lanes_state[lane].committed_lsn,
                                memory_order_acquire);
}

uint64_t cfsr_status_page_entries(const struct cfsr_status_page *page, uint32_t lane)
{
    CFSR_ASSERT(lane < CFSR_LANES_MAX);
    return atomic_load_explicit(&page->shared->lanes_state[lane].entries, memory_order_acquire);
}

/* Descriptor of a lease's FIFO; -1 if it cannot be opened (the reader then finds out by its
 * timeout). */
static int wake_fd(struct cfsr_status_page *page, int slot)
{
    char path[CFSR_PATH_MAX + 32];

    if (page->wake_fds[slot] < 0) {
        (void)snprintf(path, sizeof path, "%s/wake.%d", page->run_dir, slot);
        page->wake_fds[slot] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    return page->wake_fds[slot];
}

static void wake_sleepers(struct cfsr_status_page *page, uint32_t lane, uint64_t sleepers)
{
    struct shared_page *shared = page->shared;

    while (sleepers != 0) {
        int slot = __builtin_ctzll(sleepers);
        uint64_t bit = 1ull << slot;
        int fd;

        sleepers &= ~bit;
        if ((atomic_load(&shared->leases[slot].lane_mask) >> lane & 1) == 0)
            continue;
        if ((atomic_fetch_and(&shared->sleepers, ~bit) & bit) == 0)
            continue; /* another publisher took it */
        pthread_mutex_lock(&page->wake_mutex);
        fd = wake_fd(page, slot);
        if (fd >= 0 && write(fd, "w", 1) < 0 && errno != EAGAIN) {
            close(fd); /* someone removed and remade the FIFO: open it anew next time */
            page->wake_fds[slot] = -1;
        }
        pthread_mutex_unlock(&page->wake_mutex);
    }
}

void cfsr_status_page_publish(struct cfsr_status_page *page, uint32_t lane, uint64_t committed_lsn,
                              uint64_t entries)
{
    struct shared_lane *state = &page->shared->lanes_state[lane];
    uint64_t sleepers, before = atomic_load(&state->committed_lsn);

    CFSR_ASSERT(lane < CFSR_LANES_MAX && committed_lsn != CFSR_LSN_UNKNOWN);
    if (before == CFSR_LSN_UNKNOWN || committed_lsn >= before) {
        atomic_store_explicit(&state->entries, entries, memory_order_release);
        atomic_store_explicit(&state->committed_lsn, committed_lsn, memory_order_release);
    }
    atomic_thread_fence(memory_order_seq_cst);
    sleepers = atomic_load_explicit(&page->shared->sleepers, memory_order_relaxed);
    if (sleepers != 0)
        wake_sleepers(page, lane, sleepers);
}

void cfsr_status_page_reset_lane(struct cfsr_status_page *page, uint32_t lane)
{
    CFSR_ASSERT(lane < CFSR_LANES_MAX);
    atomic_store(&page->shared->lanes_state[lane].committed_lsn, CFSR_LSN_UNKNOWN);
}

struct cfsr_hlc *cfsr_status_page_hlc(struct cfsr_status_page *page)
{
    return &page->shared->clock;
}

uint32_t cfsr_status_page_mode(const struct cfsr_status_page *page)
{
    return atomic_load_explicit(&page->shared->mode, memory_order_acquire);
}

void cfsr_status_page_set_mode(struct cfsr_status_page *page, uint32_t mode)
{
    atomic_store(&page->shared->mode, mode);
}

int cfsr_status_page_find_peer(const struct cfsr_status_page *page, uint64_t site_id)
{
    for (int peer = 0; peer < CFSR_STATUS_PEERS_MAX; peer++)
        if (site_id != 0 && atomic_load(&page->shared->peer_sites[peer]) == site_id)
            return peer;
    return -ENOENT;
}

int cfsr_status_page_register_peer(struct cfsr_status_page *page, uint64_t site_id)
{
    int found = cfsr_status_page_find_peer(page, site_id);

    CFSR_ASSERT(site_id != 0);
    for (int peer = 0; found < 0 && peer < CFSR_STATUS_PEERS_MAX; peer++) {
        uint64_t free_slot = 0;

        if (atomic_compare_exchange_strong(&page->shared->peer_sites[peer], &free_slot, site_id) ||
            free_slot == site_id)
            return peer;
    }
    return found >= 0 ? found : -ENOSPC;
}

void cfsr_status_page_forget_peers(struct cfsr_status_page *page)
{
    for (int peer = 0; peer < CFSR_STATUS_PEERS_MAX; peer++) {
        for (int lane = 0; lane < CFSR_LANES_MAX; lane++)
            atomic_store(&page->shared->acked[peer][lane], CFSR_LSN_UNKNOWN);
        atomic_store(&page->shared->peer_sites[peer], 0);
    }
    atomic_store(&page->shared->detached, 0);
}

void cfsr_status_page_set_retention(struct cfsr_status_page *page,
                                    const struct cfsr_page_retention *retention)
{
    atomic_store(&page->shared->pressure, retention->pressure);
    atomic_store(&page->shared->journal_bytes, retention->journal_bytes);
    atomic_store(&page->shared->cap_bytes, retention->cap_bytes);
}

void cfsr_status_page_retention(const struct cfsr_status_page *page,
                                struct cfsr_page_retention *retention_out)
{
    *retention_out = (struct cfsr_page_retention){
        .pressure = atomic_load(&page->shared->pressure),
        .journal_bytes = atomic_load(&page->shared->journal_bytes),
        .cap_bytes = atomic_load(&page->shared->cap_bytes),
    };
}

void cfsr_status_page_set_detached(struct cfsr_status_page *page, int peer, bool detached)
{
    CFSR_ASSERT(peer >= 0 && peer < CFSR_STATUS_PEERS_MAX);
    if (detached)
        atomic_fetch_or(&page->shared->detached, 1ull << peer);
    else
        atomic_fetch_and(&page->shared->detached, ~(1ull << peer));
}

bool cfsr_status_page_detached(const struct cfsr_status_page *page, int peer)
{
    CFSR_ASSERT(peer >= 0 && peer < CFSR_STATUS_PEERS_MAX);
    return (atomic_load(&page->shared->detached) >> peer & 1) != 0;
}

uint64_t cfsr_status_page_peer_site(const struct cfsr_status_page *page, int peer)
{
    CFSR_ASSERT(peer >= 0 && peer < CFSR_STATUS_PEERS_MAX);
    return atomic_load(&page->shared->peer_sites[peer]);
}

void cfsr_status_page_set_acked(struct cfsr_status_page *page, int peer, uint32_t lane,
                                uint64_t lsn)
{
    CFSR_ASSERT(peer >= 0 && peer < CFSR_STATUS_PEERS_MAX && lane < CFSR_LANES_MAX);
    atomic_store_explicit(&page->shared->acked[peer][lane], lsn, memory_order_release);
}

uint64_t cfsr_status_page_acked(const struct cfsr_status_page *page, int peer, uint32_t lane)
{
    CFSR_ASSERT(peer >= 0 && peer < CFSR_STATUS_PEERS_MAX && lane < CFSR_LANES_MAX);
    return atomic_load_explicit(&page->shared->acked[peer][lane], memory_order_acquire);
}

/* Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); 0 if there is
 * none. */
static uint64_t process_started(uint64_t pid)
{
    char path[64], text[1024];
    char *field;
    ssize_t len;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    len = read(fd, text, sizeof text - 1);
    close(fd);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    field = strrchr(text, ')'); /* the name before it may hold anything */
    for (int skip = 0; field != NULL && skip < 20; skip++)
        field = strchr(field + 1, ' ');
    return field == NULL ? 0 : strtoull(field + 1, NULL, 10);
}

/* Takes a free slot, or one whose process is gone. Slot or -ENOSPC. */
static int claim_slot(struct shared_page *shared)
{
    for (int slot = 0; slot < CFSR_STATUS_LEASES_MAX; slot++) {
        struct shared_lease *lease = &shared->leases[slot];
        uint32_t state = atomic_load(&lease->state);
        bool dead = state != LEASE_FREE && atomic_load(&lease->pid) != 0 &&
                    process_started(atomic_load(&lease->pid)) != atomic_load(&lease->pid_started);

        if ((state == LEASE_FREE || dead) &&
            atomic_compare_exchange_strong(&lease->state, &state, LEASE_TAKING)) {
            atomic_fetch_and(&shared->sleepers, ~(1ull << slot));
            return slot;
        }
    }
    return -ENOSPC;
}

static void drain(int fd)
{
    char bytes[256];

    while (read(fd, bytes, sizeof bytes) > 0)
        ;
}

int cfsr_status_page_lease_take(struct cfsr_status_page *page, uint64_t lane_mask,
                                struct cfsr_lease *lease_out)
{
    char path[CFSR_PATH_MAX + 32];
    struct shared_lease *lease;
    int slot = claim_slot(page->shared), fd;

    if (slot < 0)
        return cfsr_fail(slot, "all %d reader leases of %s are taken", CFSR_STATUS_LEASES_MAX,
                         page->run_dir);
    lease = &page->shared->leases[slot];
    (void)snprintf(path, sizeof path, "%s/wake.%d", page->run_dir, slot);
    fd = mkfifo(path, 0660) < 0 && errno != EEXIST ? -1
                                                   : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        int rc = cfsr_fail(-errno, "cannot open the wake-up FIFO %s: %s", path,
                           cfsr_strerror(-errno));

        atomic_store(&lease->state, LEASE_FREE);
        return rc;
    }
    drain(fd);
    atomic_store(&lease->pid, (uint64_t)getpid());
    atomic_store(&lease->pid_started, process_started((uint64_t)getpid()));
    atomic_fetch_add(&lease->generation, 1);
    atomic_store(&lease->lane_mask, lane_mask);
    atomic_store(&lease->state, LEASE_LIVE);
    lease_out->slot = slot;
    lease_out->fifo_fd = fd;
    return 0;
}

void cfsr_status_page_lease_drop(struct cfsr_status_page *page, struct cfsr_lease *lease)
{
    struct shared_lease *shared = &page->shared->leases[lease->slot];

    cfsr_status_page_lease_disarm(page, lease);
    atomic_store(&shared->lane_mask, 0);
    atomic_store(&shared->pid, 0);
    atomic_store(&shared->state, LEASE_FREE);
    close(lease->fifo_fd);
    lease->fifo_fd = -1;
}

void cfsr_status_page_lease_arm(struct cfsr_status_page *page, const struct cfsr_lease *lease)
{
    atomic_fetch_or(&page->shared->sleepers, 1ull << lease->slot);
    atomic_thread_fence(memory_order_seq_cst);
}

void cfsr_status_page_lease_disarm(struct cfsr_status_page *page, const struct cfsr_lease *lease)
{
    atomic_fetch_and(&page->shared->sleepers, ~(1ull << lease->slot));
}
