/*
 * rdma/device.c - the device of a group: protection domain, completion queue, registered memory.
 *
 * Thread:     the core of the group, at start and end; region lookup on the data path.
 * Owns:       one device a group. All connections of a core share a completion queue and channel,
 *             so that one look finds all work; each connection reserves its worst case in it and a
 *             connection that does not fit is refused, which keeps the queue from overrunning.
 * Removal:    whoever hears of it marks the device; each group then ends its connections and gives
 *             back what it has there. Drivers without disassociate_ucontext (soft-RoCE) let the
 *             removal wait until the device's file is closed too, and librdmacm keeps that open
 *             while no other device is left: so the last group cuts it off.
 * Rejected:   registration a batch (93 us each), a cache of registrations over malloc (never right
 *             when memory is unmapped), on-demand paging (not every device has it), ibv_fork_init()
 *             (splits mappings; nothing here forks after start).
 */
#include "transport/rdma/rdma.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEVICES_FOLDER "/sys/class/infiniband"
#define DEVICES_MAX    8

/* Groups that have something of a device, counted at start and end; and the last one removed. */
static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;
static struct users {
    struct ibv_context *verbs;
    uint32_t groups;
} users[DEVICES_MAX];
static struct ibv_context *_Atomic removed;

static bool port_is_active(struct ibv_context *verbs)
{
    struct ibv_device_attr attributes;
    struct ibv_port_attr port;

    if (ibv_query_device(verbs, &attributes) != 0)
        return false;
    for (int number = 1; number <= attributes.phys_port_cnt; number++)
        if (ibv_query_port(verbs, (uint8_t)number, &port) == 0 && port.state == IBV_PORT_ACTIVE)
            return true;
    return false;
}

/* The library complains on stderr where there is no device at all: look before asking it. */
static bool any_device(void)
{
    DIR *folder = opendir(DEVICES_FOLDER);
    struct dirent *entry;
    bool found = false;

    if (folder == NULL)
        return false;
    while (!found && (entry = readdir(folder)) != NULL)
        found = entry->d_name[0] != '.';
    closedir(folder);
    return found;
}

static int find_device(const char *name, struct ibv_context **verbs_out)
{
    struct ibv_context **devices;
    struct ibv_context *found = NULL;
    bool named = name != NULL && name[0] != '\0';
    bool exists = false;
    int count = 0;

    if (!any_device())
        return cfsr_fail(-ENODEV,
                         "no RDMA device in this machine (%s is empty); for soft-RoCE: "
                         "rdma link add rxe0 type rxe netdev INTERFACE",
                         DEVICES_FOLDER);
    devices = rdma_get_devices(&count);
    if (devices == NULL)
        return cfsr_fail(-ENODEV, "the RDMA devices cannot be opened: %s; is rdma_ucm loaded?",
                         cfsr_strerror(-errno));
    for (int i = 0; i < count && found == NULL; i++) {
        if (named && strcmp(ibv_get_device_name(devices[i]->device), name) != 0)
            continue;
        exists = true;
        if (port_is_active(devices[i]))
            found = devices[i];
    }
    rdma_free_devices(devices); /* the list only: the library keeps its devices open */
    if (found == NULL && named && !exists)
        return cfsr_fail(-ENODEV, "there is no RDMA device %s: `rdma link` shows them", name);
    if (found == NULL)
        return cfsr_fail(-ENETDOWN, "no port of RDMA device %s is active: bring its interface up",
                         named ? name : "(any)");
    *verbs_out = found;
    return 0;
}

int cfsr_rdma_probe(const char *device, char *text_out, size_t len_bytes)
{
    struct ibv_context *verbs;
    int rc = find_device(device, &verbs);

    if (rc == 0)
        (void)snprintf(text_out, len_bytes, "RDMA device %s", ibv_get_device_name(verbs->device));
    return rc;
}

int cfsr_rdma_register(struct cfsr_group *group, void *base, size_t len_bytes,
                       struct ibv_mr **mr_out)
{
    struct ibv_mr *mr = ibv_reg_mr(group->pd, base, len_bytes, IBV_ACCESS_LOCAL_WRITE);

    if (mr == NULL) {
        struct rlimit limit = {0};
        int error = errno;
        (void)getrlimit(RLIMIT_MEMLOCK, &limit);
        return cfsr_fail(-error,
                         "cannot register %zu bytes with RDMA device %s: %s; locked memory is "
                         "limited to %llu bytes: raise LimitMEMLOCK (ulimit -l)",
                         len_bytes, ibv_get_device_name(group->verbs->device),
                         cfsr_strerror(-error), (unsigned long long)limit.rlim_cur);
    }
    *mr_out = mr;
    return 0;
}

int cfsr_rdma_region_add(struct cfsr_group *group, void *base, size_t len_bytes)
{
    struct cfsr_rdma_region *region = &group->regions[group->regions_count];
    int rc;

    if (group->verbs == NULL)
        return cfsr_fail(-ENODEV, "the RDMA device was removed");
    if (group->regions_count == CFSR_RDMA_REGIONS_MAX)
        return cfsr_fail(-CFSR_E_POOL_EMPTY, "more than %d registered regions",
                         CFSR_RDMA_REGIONS_MAX);
    rc = cfsr_rdma_register(group, base, len_bytes, &region->mr);
    if (rc < 0)
        return rc;
    region->base = base;
    region->len_bytes = len_bytes;
    group->regions_count++;
    return 0;
}

void cfsr_rdma_region_remove(struct cfsr_group *group, void *base)
{
    for (uint32_t i = 0; i < group->regions_count; i++) {
        if (group->regions[i].base != base)
            continue;
        (void)ibv_dereg_mr(group->regions[i].mr);
        group->regions[i] = group->regions[--group->regions_count];
        group->region_last = 0;
        return;
    }
}

static bool contains(const struct cfsr_rdma_region *region, const uint8_t *at, size_t len_bytes)
{
    return at >= region->base && len_bytes <= region->len_bytes &&
           (size_t)(at - region->base) <= region->len_bytes - len_bytes;
}

bool cfsr_rdma_region_find(struct cfsr_group *group, const void *at, size_t len_bytes,
                           uint32_t *lkey_out)
{
    for (uint32_t i = 0; i < group->regions_count; i++) {
        uint32_t index = (group->region_last + i) % group->regions_count;
        if (!contains(&group->regions[index], at, len_bytes))
            continue;
        group->region_last = index; /* most batches come from one slab */
        *lkey_out = group->regions[index].mr->lkey;
        return true;
    }
    return false;
}

static int create_bounces(struct cfsr_group *group)
{
    size_t bytes = (size_t)CFSR_RDMA_BOUNCES * CFSR_RDMA_BOUNCE_BYTES;
    int rc;

    group->bounce = aligned_alloc(CFSR_SLOT_ALIGN, bytes);
    if (group->bounce == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for %zu bytes of send headers", bytes);
    rc = cfsr_rdma_register(group, group->bounce, bytes, &group->bounce_mr);
    if (rc < 0) {
        free(group->bounce);
        group->bounce = NULL;
        return rc;
    }
    for (uint16_t i = 0; i < CFSR_RDMA_BOUNCES; i++)
        group->bounce_free[i] = i;
    group->bounce_free_count = CFSR_RDMA_BOUNCES;
    return 0;
}

static void destroy_ring(struct cfsr_rdma_ring *ring)
{
    cfsr_mirror_destroy(&ring->mirror);
    free(ring->queue);
    free(ring->arrived);
}

static int create_rings(struct cfsr_group *group, uint32_t count)
{
    group->rings = calloc(count, sizeof *group->rings);
    if (group->rings == NULL)
        return cfsr_fail(-ENOMEM, "out of memory for %u receive rings", count);
    for (uint32_t i = 0; i < count; i++) {
        struct cfsr_rdma_ring *ring = &group->rings[i];
        int rc = cfsr_mirror_create(group->recv_ring_bytes, &ring->mirror);
        if (rc < 0)
            return cfsr_fail_context(rc, "receive ring %u of %u", i, count);
        ring->queue = calloc(group->send_depth, sizeof *ring->queue);
        ring->arrived = calloc(group->geometry.slots, sizeof *ring->arrived);
        if (ring->queue == NULL || ring->arrived == NULL) {
            destroy_ring(ring);
            return cfsr_fail(-ENOMEM, "out of memory for receive ring %u of %u", i, count);
        }
        /* Slots lie in the first of the two mappings; frames are read over its end. */
        rc = cfsr_rdma_register(group, ring->mirror.base, group->recv_ring_bytes, &ring->mr);
        if (rc < 0) {
            destroy_ring(ring);
            return cfsr_fail_context(rc, "receive ring %u of %u", i, count);
        }
        cfsr_list_push_back(&group->rings_free, &ring->link);
        group->rings_count++;
    }
    return 0;
}

static int create_queue(struct cfsr_group *group, const struct cfsr_rdma_options *options,
                        uint32_t rings)
{
    struct ibv_device_attr attributes;
    uint32_t a_conn = group->geometry.slots + group->send_depth;
    uint64_t entries = (uint64_t)rings * a_conn;
    int flags;

    if (ibv_query_device(group->verbs, &attributes) != 0)
        return cfsr_fail(-EIO, "the RDMA device does not answer");
    if (attributes.max_sge < CFSR_RDMA_SGE_MAX ||
        (uint32_t)attributes.max_qp_wr < group->geometry.slots ||
        (uint32_t)attributes.max_qp_wr < group->send_depth)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "RDMA device %s has queues of at most %d entries and %d pieces: lower "
                         "--rdma-depth",
                         ibv_get_device_name(group->verbs->device), attributes.max_qp_wr,
                         attributes.max_sge);
    entries = cfsr_min_u64(entries, (uint64_t)attributes.max_cqe);
    if (options->completions_max != 0)
        entries = cfsr_min_u64(entries, options->completions_max);
    if (entries < a_conn)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "a completion queue of %llu entries does not hold one connection's %u: "
                         "lower --rdma-depth",
                         (unsigned long long)entries, a_conn);
    group->completions = ibv_create_comp_channel(group->verbs);
    if (group->completions == NULL)
        return cfsr_fail(-errno, "no RDMA completion channel: %s", cfsr_strerror(-errno));
    flags = fcntl(group->completions->fd, F_GETFL);
    (void)fcntl(group->completions->fd, F_SETFL, flags | O_NONBLOCK);
    group->cq = ibv_create_cq(group->verbs, (int)entries, group, group->completions, 0);
    if (group->cq == NULL)
        return cfsr_fail(-errno, "no RDMA completion queue of %llu entries: %s",
                         (unsigned long long)entries, cfsr_strerror(-errno));
    group->cq_entries = (uint32_t)entries; /* the granted size may be more; never less */
    return 0;
}

/* --rdma-gid: dial from the address of that entry of the GID table. */
static int choose_source(struct cfsr_group *group, int gid_index)
{
    union ibv_gid gid;

    if (gid_index < 0)
        return 0;
    if (ibv_query_gid(group->verbs, 1, gid_index, &gid) != 0)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "RDMA device %s has no GID %d: `ibv_devinfo -v` shows them",
                         ibv_get_device_name(group->verbs->device), gid_index);
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(gid.raw, mapped, sizeof mapped) == 0) {
        struct sockaddr_in *source = (struct sockaddr_in *)&group->source;
        source->sin_family = AF_INET;
        memcpy(&source->sin_addr, gid.raw + sizeof mapped, sizeof source->sin_addr);
    } else {
        struct sockaddr_in6 *source = (struct sockaddr_in6 *)&group->source;
        source->sin6_family = AF_INET6;
        memcpy(&source->sin6_addr, gid.raw, sizeof source->sin6_addr);
    }
    return 0;
}

/* The device's entry, or one that is free; NULL: more devices than anybody has. */
static struct users *users_of(struct ibv_context *verbs)
{
    struct users *unused = NULL;

    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        if (users[i].groups > 0 && users[i].verbs == verbs)
            return &users[i];
        if (users[i].groups == 0)
            unused = &users[i];
    }
    if (unused != NULL)
        unused->verbs = verbs;
    return unused;
}

/* One group more or less; true when it was the last one. */
static bool count_users(struct ibv_context *verbs, int change)
{
    struct users *entry;
    bool last = false;

    (void)pthread_mutex_lock(&users_lock);
    entry = users_of(verbs);
    if (entry != NULL && (change > 0 || entry->groups > 0)) {
        entry->groups += (uint32_t)change;
        last = entry->groups == 0;
    }
    (void)pthread_mutex_unlock(&users_lock);
    return last;
}

void cfsr_rdma_device_removed(struct ibv_context *verbs)
{
    if (verbs != NULL)
        atomic_store(&removed, verbs);
}

bool cfsr_rdma_device_is_gone(const struct cfsr_group *group)
{
    return atomic_load_explicit(&removed, memory_order_relaxed) == group->verbs;
}

/* The library goes on holding its context, whose descriptors lead nowhere from here on. */
static void cut_off(struct ibv_context *verbs)
{
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (nowhere < 0)
        return;
    (void)dup3(nowhere, verbs->async_fd, O_CLOEXEC);
    (void)dup3(nowhere, verbs->cmd_fd, O_CLOEXEC);
    close(nowhere);
}

int cfsr_rdma_device_open(struct cfsr_group *group, const struct cfsr_rdma_options *options)
{
    uint32_t rings = group->rings_count;
    int flags;
    int rc = find_device(options->device, &group->verbs);

    group->rings_count = 0;
    if (rc < 0)
        return rc;
    if (cfsr_rdma_device_is_gone(group)) /* another one since, in the same memory */
        atomic_store(&removed, NULL);
    (void)count_users(group->verbs, 1);
    group->pd = ibv_alloc_pd(group->verbs);
    if (group->pd == NULL)
        return cfsr_fail(-errno, "no RDMA protection domain: %s", cfsr_strerror(-errno));
    rc = choose_source(group, options->gid_index);
    if (rc == 0)
        rc = create_queue(group, options, rings);
    if (rc == 0)
        rc = create_bounces(group);
    if (rc == 0)
        rc = create_rings(group, rings);
    if (rc < 0)
        return rc;
    group->manager = rdma_create_event_channel();
    if (group->manager == NULL)
        return cfsr_fail(-errno, "no RDMA connection manager: %s; is rdma_ucm loaded?",
                         cfsr_strerror(-errno));
    flags = fcntl(group->manager->fd, F_GETFL);
    (void)fcntl(group->manager->fd, F_SETFL, flags | O_NONBLOCK);
    return 0;
}

void cfsr_rdma_device_release(struct cfsr_group *group)
{
    if (group->verbs == NULL)
        return; /* never opened, or released before */
    for (uint32_t i = 0; i < group->rings_count; i++)
        (void)ibv_dereg_mr(group->rings[i].mr);
    while (group->regions_count > 0)
        (void)ibv_dereg_mr(group->regions[--group->regions_count].mr);
    if (group->bounce_mr != NULL)
        (void)ibv_dereg_mr(group->bounce_mr);
    if (group->cq != NULL)
        (void)ibv_destroy_cq(group->cq);
    if (group->completions != NULL)
        (void)ibv_destroy_comp_channel(group->completions);
    if (group->pd != NULL)
        (void)ibv_dealloc_pd(group->pd);
    if (count_users(group->verbs, -1) && group->device_gone)
        cut_off(group->verbs);
    group->verbs = NULL;
}

void cfsr_rdma_device_close(struct cfsr_group *group)
{
    cfsr_rdma_device_release(group);
    for (uint32_t i = 0; i < group->rings_count; i++)
        destroy_ring(&group->rings[i]);
    free(group->rings);
    free(group->bounce);
    if (group->manager != NULL)
        rdma_destroy_event_channel(group->manager);
}
