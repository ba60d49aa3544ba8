/*
 * test_route.c - which transport a link takes after what happened to it.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include <cfsrepl/error.h>

#include "repl/route.h"

#define SEC 1000000000ull

static struct cfsr_route route;
static struct cfsr_route_options options;

static void init(void)
{
    options = (struct cfsr_route_options){.mode = CFSR_RDMA_AUTO,
                                          .peer_rdma = true,
                                          .retry_min_ns = 4 * SEC,
                                          .retry_max_ns = 20 * SEC};
    cfsr_route_init(&route, &options);
}

static void reinit(enum cfsr_rdma_mode mode, bool peer_rdma, int local_reason)
{
    options.mode = mode;
    options.peer_rdma = peer_rdma;
    options.local_reason = local_reason;
    cfsr_route_init(&route, &options);
}

TestSuite(route, .init = init);

Test(route, first_path_follows_mode_device_and_peer)
{
    static const struct {
        enum cfsr_rdma_mode mode;
        bool peer_rdma;
        int local_reason;
        enum cfsr_path path;
        int reason;
    } rows[] = {
        {CFSR_RDMA_AUTO, true, 0, CFSR_PATH_RDMA, 0},
        {CFSR_RDMA_AUTO, false, 0, CFSR_PATH_TCP, 0},
        {CFSR_RDMA_AUTO, true, -ENODEV, CFSR_PATH_TCP, -ENODEV},
        {CFSR_RDMA_REQUIRE, true, -ENODEV, CFSR_PATH_RDMA, 0},
        {CFSR_RDMA_OFF, true, 0, CFSR_PATH_TCP, 0},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        reinit(rows[i].mode, rows[i].peer_rdma, rows[i].local_reason);
        cr_assert_eq(cfsr_route_path(&route), rows[i].path, "row %u", i);
        cr_assert_eq(route.reason, rows[i].reason, "row %u", i);
    }
}

Test(route, an_attempt_that_never_ran_falls_back_at_once)
{
    static const int reasons[] = {-ENETUNREACH,  -ETIMEDOUT,      -ECONNREFUSED,
                                  -EHOSTUNREACH, -CFSR_E_VERSION, -CFSR_E_TIMEOUT};
    for (unsigned i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        init();
        cr_assert(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, false, reasons[i], SEC, 0));
        cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_TCP);
        cr_assert_eq(route.reason, reasons[i]);
        cr_assert_eq(route.counters.fallbacks, 1);
    }
}

Test(route, refusals_that_blame_no_path_move_no_link)
{
    static const int reasons[] = {0,
                                  -CFSR_E_BAD_KEY,
                                  -CFSR_E_WRONG_CORE,
                                  -CFSR_E_JOURNAL_FORKED,
                                  -CFSR_E_SHUTDOWN,
                                  -CFSR_E_SUPERSEDED};
    for (unsigned i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, false, reasons[i], SEC, 0));
        cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_RDMA);
    }
    cr_assert_eq(route.counters.rdma_failures, 0);
}

Test(route, three_failures_of_running_connections_in_a_minute_fall_back)
{
    for (unsigned i = 0; i < 2; i++) {
        cfsr_route_on_established(&route, CFSR_PATH_RDMA);
        cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, true, -EIO, (10 + i) * SEC, 0));
        cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_RDMA);
    }
    cfsr_route_on_established(&route, CFSR_PATH_RDMA);
    cr_assert(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, true, -EIO, 69 * SEC, 0));
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_TCP);
}

Test(route, failures_further_apart_than_a_minute_do_not)
{
    for (unsigned i = 0; i < 9; i++) {
        cfsr_route_on_established(&route, CFSR_PATH_RDMA);
        cr_assert_not(
            cfsr_route_on_failed(&route, CFSR_PATH_RDMA, true, -EIO, (1 + 31 * i) * SEC, 0));
    }
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_RDMA);
}

Test(route, missing_credits_fall_back_at_once)
{
    cfsr_route_on_established(&route, CFSR_PATH_RDMA);
    cr_assert(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, true, -CFSR_E_BACKPRESSURE, SEC, 0));
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_TCP);
}

Test(route, rdma_is_tried_beside_running_tcp_with_back_off_and_taken_back)
{
    cfsr_route_on_failed(&route, CFSR_PATH_RDMA, false, -ENETUNREACH, 0, 0);
    cr_assert_not(cfsr_route_wants_rdma(&route, 100 * SEC), "only beside a running connection");
    cfsr_route_on_established(&route, CFSR_PATH_TCP);
    cr_assert_eq(cfsr_route_deadline_ns(&route), 4 * SEC);
    cr_assert_not(cfsr_route_wants_rdma(&route, 4 * SEC - 1));
    cr_assert(cfsr_route_wants_rdma(&route, 4 * SEC));

    /* The attempt beside it fails: TCP runs on, the pause doubles up to the maximum. */
    static const uint64_t pauses[] = {8, 16, 20, 20};
    uint64_t now = 4 * SEC;
    for (unsigned i = 0; i < sizeof pauses / sizeof pauses[0]; i++) {
        cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, false, -ENETUNREACH, now, 0));
        cr_assert_eq(cfsr_route_deadline_ns(&route), now + pauses[i] * SEC);
        now = cfsr_route_deadline_ns(&route);
    }
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_TCP);

    cfsr_route_on_established(&route, CFSR_PATH_RDMA);
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_RDMA);
    cr_assert_eq(route.reason, 0);
    cr_assert_eq(route.counters.returns, 1);
    cr_assert_eq(cfsr_route_deadline_ns(&route), UINT64_MAX);
    /* The superseded TCP connection ends: it is not the link's any more. */
    cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_TCP, true, -CFSR_E_SUPERSEDED, now, 0));
    cr_assert(route.running);
}

/* Else a path that connects and carries nothing would take the link over at every shortest pause.
 */
Test(route, rdma_that_runs_and_breaks_is_tried_less_and_less)
{
    static const uint64_t pauses[] = {4, 8, 16, 20, 20};
    uint64_t now = 100 * SEC;

    for (unsigned i = 0; i < sizeof pauses / sizeof pauses[0]; i++) {
        bool moved = false;
        for (unsigned k = 0; k < CFSR_ROUTE_FAILURES_MAX; k++) {
            cr_assert_not(moved);
            cfsr_route_on_established(&route, CFSR_PATH_RDMA);
            now += SEC;
            moved = cfsr_route_on_failed(&route, CFSR_PATH_RDMA, true, -EIO, now, 0);
        }
        cr_assert(moved);
        cfsr_route_on_established(&route, CFSR_PATH_TCP);
        cr_assert_eq(cfsr_route_deadline_ns(&route), now + pauses[i] * SEC, "%u", i);
        now = cfsr_route_deadline_ns(&route);
    }
    /* It ran for a minute: what was before is over, however it ends. */
    cfsr_route_on_established(&route, CFSR_PATH_RDMA);
    now += CFSR_ROUTE_WINDOW_NS;
    cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, true, -CFSR_E_SHUTDOWN, now, 0));
    cr_assert(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, false, -ECONNREFUSED, now, 0));
    cfsr_route_on_established(&route, CFSR_PATH_TCP);
    cr_assert_eq(cfsr_route_deadline_ns(&route), now + 4 * SEC);
}

Test(route, jitter_takes_at_most_a_quarter_off)
{
    cfsr_route_on_failed(&route, CFSR_PATH_RDMA, false, -ENETUNREACH, 0, UINT32_MAX);
    cr_assert_eq(route.retry_at_ns, 3 * SEC);
}

Test(route, when_tcp_does_not_get_through_rdma_has_its_turn)
{
    cfsr_route_on_failed(&route, CFSR_PATH_RDMA, false, -ENETUNREACH, 0, 0);
    cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_TCP, false, -ECONNREFUSED, SEC, 0));
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_TCP);
    cr_assert(cfsr_route_on_failed(&route, CFSR_PATH_TCP, false, -ECONNREFUSED, 4 * SEC, 0));
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_RDMA);
}

Test(route, require_never_leaves_rdma)
{
    reinit(CFSR_RDMA_REQUIRE, true, 0);
    for (unsigned i = 0; i < 10; i++) {
        cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_RDMA, i % 2, -EIO, i * SEC, 0));
        cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_RDMA);
    }
    cr_assert_eq(route.reason, -EIO);
}

Test(route, off_never_tries_rdma)
{
    reinit(CFSR_RDMA_OFF, true, 0);
    cfsr_route_on_established(&route, CFSR_PATH_TCP);
    cr_assert_not(cfsr_route_wants_rdma(&route, UINT64_MAX - 1));
    cr_assert_not(cfsr_route_on_failed(&route, CFSR_PATH_TCP, false, -ECONNREFUSED, SEC, 0));
    cr_assert_eq(cfsr_route_path(&route), CFSR_PATH_TCP);
}

Test(route, modes_are_parsed_by_name)
{
    enum cfsr_rdma_mode mode = CFSR_RDMA_AUTO;
    cr_assert_eq(cfsr_rdma_mode_parse("require", &mode), 0);
    cr_assert_eq(mode, CFSR_RDMA_REQUIRE);
    cr_assert_eq(cfsr_rdma_mode_parse("off", &mode), 0);
    cr_assert_eq(mode, CFSR_RDMA_OFF);
    cr_assert_eq(cfsr_rdma_mode_parse("always", &mode), -EINVAL);
    cr_assert_eq(mode, CFSR_RDMA_OFF);
    cr_assert_str_eq(cfsr_path_name(CFSR_PATH_RDMA), "rdma");
    cr_assert_str_eq(cfsr_path_name(CFSR_PATH_TCP), "tcp");
}
