/*
 * test_status_page_limits.c - the status page when it cannot be had, when it is full, and when
 * those who used it are gone.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "journal/status_page.h"
#include "support.h"
#include "tests/unit/faults.h"
#include <cfsrepl/error.h>

static struct cfsr_site site;
static struct cfsr_status_page *page;

static void set_up(void)
{
    test_site_make(&site, 2, 4);
    cr_assert_eq(cfsr_status_page_open(&site, &page), 0);
}

static void tear_down(void)
{
    cfsr_status_page_close(page);
    test_site_remove(&site);
}

TestSuite(status_page_limits, .init = set_up, .fini = tear_down);

static void path_of(const char *name, char path_out[CFSR_PATH_MAX + 32])
{
    (void)snprintf(path_out, CFSR_PATH_MAX + 32, "%s/run/%s", site.data_dir, name);
}

Test(status_page_limits, a_page_that_cannot_be_had_is_an_error)
{
    struct cfsr_status_page *other = NULL;
    char path[CFSR_PATH_MAX + 32];

    test_fail_allocation(1);
    cr_assert_eq(cfsr_status_page_open(&site, &other), -ENOMEM);
    test_fail_allocation(0);
    path_of("status", path);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(cfsr_status_page_open(&site, &other), -EISDIR);
    cr_assert_not_null(strstr(cfsr_error_message(), path));
    cr_assert_null(other);
    cr_assert_eq(rmdir(path), 0);
    cfsr_status_page_close(NULL);
}

/* Each field that says whose page it is and of which boot: if one differs, it is made anew. */
Test(status_page_limits, a_page_of_another_boot_or_journal_is_made_anew)
{
    static const off_t offsets[] = {0, 8, 12, 16, 32};
    char path[CFSR_PATH_MAX + 32];

    path_of("status", path);
    for (unsigned i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        struct cfsr_status_page *other;
        uint8_t byte;
        int fd;

        cfsr_status_page_publish(page, 1, 4711, 9);
        cr_assert_eq(cfsr_status_page_open(&site, &other), 0);
        cr_assert_eq(cfsr_status_page_committed(other, 1), 4711, "the same page");
        cfsr_status_page_close(other);
        fd = open(path, O_RDWR | O_CLOEXEC);
        cr_assert_geq(fd, 0);
        cr_assert_eq(pread(fd, &byte, 1, offsets[i]), 1);
        byte = (uint8_t)(byte ^ 0x55);
        cr_assert_eq(pwrite(fd, &byte, 1, offsets[i]), 1);
        close(fd);
        cr_assert_eq(cfsr_status_page_open(&site, &other), 0);
        cr_assert_eq(cfsr_status_page_committed(other, 1), CFSR_LSN_UNKNOWN, "offset %d",
                     (int)offsets[i]);
        cfsr_status_page_close(other);
    }
}

Test(status_page_limits, peers_are_found_again_and_bounded)
{
    cr_assert_lt(cfsr_status_page_find_peer(page, 77), 0);
    for (uint64_t id = 1; id <= CFSR_STATUS_PEERS_MAX; id++) {
        int slot = cfsr_status_page_register_peer(page, id);

        cr_assert_geq(slot, 0);
        cr_assert_eq(cfsr_status_page_register_peer(page, id), slot);
        cr_assert_eq(cfsr_status_page_find_peer(page, id), slot);
        cr_assert_eq(cfsr_status_page_acked(page, slot, 1), CFSR_LSN_UNKNOWN);
        cfsr_status_page_set_acked(page, slot, 1, id);
        cr_assert_eq(cfsr_status_page_acked(page, slot, 1), id);
    }
    cr_assert_lt(cfsr_status_page_register_peer(page, CFSR_STATUS_PEERS_MAX + 1), 0);
}

Test(status_page_limits, leases_are_bounded_and_come_back)
{
    static struct cfsr_lease leases[CFSR_STATUS_LEASES_MAX];
    struct cfsr_lease extra;

    for (int i = 0; i < CFSR_STATUS_LEASES_MAX; i++)
        cr_assert_eq(cfsr_status_page_lease_take(page, 1, &leases[i]), 0, "%d", i);
    cr_assert_eq(cfsr_status_page_lease_take(page, 1, &extra), -ENOSPC);
    cfsr_status_page_lease_drop(page, &leases[5]);
    cr_assert_eq(cfsr_status_page_lease_take(page, 2, &extra), 0);
    cr_assert_eq(extra.slot, 5);
    cfsr_status_page_lease_drop(page, &extra);
    for (int i = 0; i < CFSR_STATUS_LEASES_MAX; i++)
        if (i != 5)
            cfsr_status_page_lease_drop(page, &leases[i]);
}

/* A reader that was killed holds its lease no longer than the next one looks. */
Test(status_page_limits, the_lease_of_a_dead_process_is_taken_over)
{
    struct cfsr_lease lease;
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        _exit(cfsr_status_page_lease_take(page, 1, &lease) == 0 && lease.slot == 0 ? 0 : 1);
    cr_assert_gt(child, 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(cfsr_status_page_lease_take(page, 1, &lease), 0);
    cr_assert_eq(lease.slot, 0, "not the next one");
    cfsr_status_page_lease_drop(page, &lease);
}

Test(status_page_limits, a_fifo_that_cannot_be_made_or_written_harms_nobody)
{
    char path[CFSR_PATH_MAX + 32], byte;
    struct cfsr_lease lease;

    path_of("wake.0", path);
    (void)unlink(path);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_lt(cfsr_status_page_lease_take(page, 1, &lease), 0);
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(cfsr_status_page_lease_take(page, 1, &lease), 0, "the slot was given back");

    cfsr_status_page_publish(page, 1, 8, 1);
    cr_assert_eq(read(lease.fifo_fd, &byte, 1), -1, "nobody sleeps");
    cfsr_status_page_lease_arm(page, &lease);
    cfsr_status_page_publish(page, 1, 16, 2);
    cr_assert_eq(read(lease.fifo_fd, &byte, 1), -1, "the lease covers lane 0 only");
    cfsr_status_page_publish(page, 0, 16, 2);
    cr_assert_eq(read(lease.fifo_fd, &byte, 1), 1, "woken");
    cfsr_status_page_publish(page, 0, 24, 3);
    cr_assert_eq(read(lease.fifo_fd, &byte, 1), -1, "once");
    cfsr_status_page_lease_drop(page, &lease);

    /* Its FIFO vanished: the reader finds out by its timeout, the writer goes on. */
    cr_assert_eq(cfsr_status_page_lease_take(page, 1, &lease), 0);
    struct cfsr_status_page *writer;
    cr_assert_eq(cfsr_status_page_open(&site, &writer), 0);
    path_of("wake.0", path);
    cr_assert_eq(unlink(path), 0);
    cfsr_status_page_lease_arm(page, &lease);
    cfsr_status_page_publish(writer, 0, 32, 4);
    cr_assert_eq(cfsr_status_page_committed(page, 0), 32);
    cfsr_status_page_close(writer);
    cfsr_status_page_lease_drop(page, &lease);
}
