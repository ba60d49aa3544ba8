/*
 * route.c - the fall-back policy between transports.
 *
 * Thread:     the owner's.
 * Invariants: OFF never names RDMA, REQUIRE never names TCP; a peer without an RDMA endpoint is
 *             never dialled by RDMA; while current is TCP and reason is set, retry_at_ns is the
 *             only thing that holds the next RDMA attempt back.
 * Rejected:   one route per site (a bad queue pair of one core would take all lanes down to TCP); a
 *             timer that closes TCP to try RDMA (a pause for a hope).
 */
#include "repl/route.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"

const char *cfsr_path_name(enum cfsr_path path)
{
    return path == CFSR_PATH_RDMA ? "rdma" : "tcp";
}

int cfsr_rdma_mode_parse(const char *text, enum cfsr_rdma_mode *mode_out)
{
    static const char *const names[] = {
        [CFSR_RDMA_AUTO] = "auto", [CFSR_RDMA_REQUIRE] = "require", [CFSR_RDMA_OFF] = "off"};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *mode_out = (enum cfsr_rdma_mode)i;
            return 0;
        }
    }
    return -EINVAL;
}

void cfsr_route_init(struct cfsr_route *route, const struct cfsr_route_options *options)
{
    CFSR_ASSERT(options->retry_min_ns > 0 && options->retry_max_ns >= options->retry_min_ns);
    *route = (struct cfsr_route){.options = *options, .current = CFSR_PATH_TCP};
    if (options->mode == CFSR_RDMA_OFF || !options->peer_rdma)
        return;
    if (options->mode == CFSR_RDMA_REQUIRE || options->local_reason == 0)
        route->current = CFSR_PATH_RDMA;
    else
        route->reason = options->local_reason;
}

enum cfsr_path cfsr_route_path(const struct cfsr_route *route)
{
    return route->current;
}

static bool can_use_rdma(const struct cfsr_route *route)
{
    return route->options.mode != CFSR_RDMA_OFF && route->options.peer_rdma &&
           route->options.local_reason == 0;
}

static bool may_return(const struct cfsr_route *route)
{
    return can_use_rdma(route) && route->running && route->current == CFSR_PATH_TCP;
}

bool cfsr_route_wants_rdma(const struct cfsr_route *route, uint64_t now_ns)
{
    return may_return(route) && now_ns >= route->retry_at_ns;
}

uint64_t cfsr_route_deadline_ns(const struct cfsr_route *route)
{
    return may_return(route) ? route->retry_at_ns : UINT64_MAX;
}

void cfsr_route_on_established(struct cfsr_route *route, enum cfsr_path path)
{
    CFSR_ASSERT(path == CFSR_PATH_TCP ? route->options.mode != CFSR_RDMA_REQUIRE
                                      : route->options.mode != CFSR_RDMA_OFF);
    if (path == CFSR_PATH_RDMA) {
        if (route->reason != 0 && route->options.mode != CFSR_RDMA_REQUIRE)
            route->counters.returns++;
        route->reason = 0;
    }
    route->current = path;
    route->running = true;
}

/* Of all that ends a connection, what another path may not meet: the system's errors, time, and
 * bytes that came to harm. */
static bool blames_path(int reason)
{
    if (reason > -CFSR_E_FORMAT)
        return reason != 0;
    switch (-reason) {
    case CFSR_E_FORMAT:
    case CFSR_E_VERSION:
    case CFSR_E_BAD_DIGEST:
    case CFSR_E_BAD_LINK_TAG:
    case CFSR_E_BAD_FRAME:
    case CFSR_E_REPLAYED:
    case CFSR_E_TIMEOUT:
    case CFSR_E_POOL_EMPTY:
    case CFSR_E_UNREACHABLE:
    case CFSR_E_BACKPRESSURE: return true;
    default: return false;
    }
}

/* Pause before the next RDMA attempt: doubles up to the maximum, up to a quarter off for jitter. */
static uint64_t backoff_ns(const struct cfsr_route *route, uint32_t random)
{
    uint64_t pause = route->options.retry_min_ns;

    for (uint32_t i = 1; i < route->attempts && pause < route->options.retry_max_ns; i++)
        pause = pause > route->options.retry_max_ns / 2 ? route->options.retry_max_ns : pause * 2;
    return pause - (uint64_t)((double)pause / 4 * ((double)random / UINT32_MAX));
}

/* Counts a failure of a running connection; true when the window is full of them. */
static bool note_failure(struct cfsr_route *route, uint64_t now_ns)
{
    uint32_t keep = 0;

    for (uint32_t i = 0; i < route->failed_count; i++)
        if (now_ns - route->failed_at_ns[i] < CFSR_ROUTE_WINDOW_NS)
            route->failed_at_ns[keep++] = route->failed_at_ns[i];
    route->failed_at_ns[keep++] = now_ns;
    route->failed_count = keep == CFSR_ROUTE_FAILURES_MAX ? 0 : keep;
    return keep == CFSR_ROUTE_FAILURES_MAX;
}

static void back_off(struct cfsr_route *route, uint64_t now_ns, uint32_t random)
{
    route->attempts++;
    route->retry_at_ns = now_ns + backoff_ns(route, random);
}

bool cfsr_route_on_failed(struct cfsr_route *route, enum cfsr_path path, bool established,
                          int reason, uint64_t now_ns, uint32_t random)
{
    bool was_current = path == route->current;

    if (was_current)
        route->running = false;
    /* It was tried at retry_at_ns at the earliest, and was good for long since. */
    if (path == CFSR_PATH_RDMA && established &&
        now_ns >= route->retry_at_ns + CFSR_ROUTE_WINDOW_NS)
        route->attempts = 0;
    if (!blames_path(reason)) {
        if (!was_current && path == CFSR_PATH_RDMA)
            back_off(route, now_ns, random); /* nothing is said against it, but not at once again */
        return false;
    }
    if (path == CFSR_PATH_TCP) {
        /* TCP does not get through either: RDMA has its turn as soon as its pause is over. */
        if (established || !was_current || !can_use_rdma(route) || now_ns < route->retry_at_ns)
            return false;
        route->current = CFSR_PATH_RDMA;
        return true;
    }
    route->counters.rdma_failures++;
    /* A single broken connection is dialled again: the peer may have restarted. Missing credits and
     * whatever kept it from running are not expected to mend in a moment. */
    if (established && reason != -CFSR_E_BACKPRESSURE && !note_failure(route, now_ns))
        return false;
    route->reason = reason;
    back_off(route, now_ns, random);
    if (!was_current || route->options.mode == CFSR_RDMA_REQUIRE)
        return false;
    route->current = CFSR_PATH_TCP;
    route->counters.fallbacks++;
    return true;
}
