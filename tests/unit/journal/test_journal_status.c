/* The status page: wake-ups, peers, leases. */
#include <criterion/criterion.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "journal/status_page.h"
#include "support.h"

struct ping {
    struct cfsr_status_page *page;
    uint64_t count;
};

static void *publish(void *argument)
{
    struct ping *ping = argument;

    for (uint64_t lsn = 1; lsn <= ping->count; lsn++) {
        cfsr_status_page_publish(ping->page, 1, lsn, lsn);
        while (lsn % 64 == 0 && cfsr_status_page_entries(ping->page, 0) < lsn)
            ; /* in step with the reader now and then, so that it does sleep */
    }
    return NULL;
}

Test(status_page, no_wake_up_is_lost, .timeout = 60)
{
    struct cfsr_site site;
    struct cfsr_status_page *page, *other;
    struct cfsr_lease lease;
    pthread_t thread;
    uint64_t seen = 0;

    test_site_make(&site, 2, 2);
    cr_assert(cfsr_status_page_open(&site, &page) == 0);
    cr_assert(cfsr_status_page_open(&site, &other) == 0);
    cr_assert(cfsr_status_page_committed(page, 1) == CFSR_LSN_UNKNOWN);
    cfsr_status_page_publish(page, 0, 0, 0);
    cfsr_status_page_publish(page, 1, 0, 0);
    cr_assert(cfsr_status_page_lease_take(other, 1ull << 1, &lease) == 0);
    struct ping ping = {page, 20000};
    pthread_create(&thread, NULL, publish, &ping);
    while (seen < ping.count) {
        char bytes[16];

        cfsr_status_page_lease_arm(other, &lease);
        if (cfsr_status_page_committed(other, 1) == seen) {
            struct pollfd ready = {.fd = lease.fifo_fd, .events = POLLIN};
            cr_assert(poll(&ready, 1, 20000) == 1, "slept through a commit at %llu",
                      (unsigned long long)seen);
            while (read(lease.fifo_fd, bytes, sizeof bytes) > 0)
                ;
        }
        cfsr_status_page_lease_disarm(other, &lease);
        seen = cfsr_status_page_committed(other, 1);
        cfsr_status_page_publish(other, 0, seen, seen);
    }
    pthread_join(thread, NULL);
    cfsr_status_page_lease_drop(other, &lease);
    cfsr_status_page_close(other);
    cfsr_status_page_close(page);
    test_site_remove(&site);
}

Test(status_page, peers_leases_and_reset)
{
    struct cfsr_site site;
    struct cfsr_status_page *page;
    struct cfsr_lease leases[CFSR_STATUS_LEASES_MAX + 1];

    test_site_make(&site, 2, 2);
    cr_assert(cfsr_status_page_open(&site, &page) == 0);
    for (uint64_t id = 1; id <= CFSR_STATUS_PEERS_MAX; id++)
        cr_assert(cfsr_status_page_register_peer(page, id) == (int)id - 1);
    cr_assert(cfsr_status_page_register_peer(page, 3) == 2);
    cr_assert(cfsr_status_page_register_peer(page, 1000) == -ENOSPC);
    cfsr_status_page_forget_peers(page);
    cr_assert(cfsr_status_page_find_peer(page, 3) == -ENOENT);
    for (int i = 0; i < CFSR_STATUS_LEASES_MAX; i++)
        cr_assert(cfsr_status_page_lease_take(page, 1, &leases[i]) == 0);
    cr_assert(cfsr_status_page_lease_take(page, 1, &leases[CFSR_STATUS_LEASES_MAX]) == -ENOSPC);
    for (int i = 0; i < CFSR_STATUS_LEASES_MAX; i++)
        cfsr_status_page_lease_drop(page, &leases[i]);
    cfsr_status_page_publish(page, 0, 100, 5);
    cfsr_status_page_publish(page, 0, 90, 4);
    cr_assert(cfsr_status_page_committed(page, 0) == 100);
    cfsr_status_page_reset_lane(page, 0);
    cfsr_status_page_publish(page, 0, 90, 4);
    cr_assert(cfsr_status_page_committed(page, 0) == 90 && cfsr_status_page_mode(page) == 1);
    cfsr_status_page_close(page);
    test_site_remove(&site);
}
