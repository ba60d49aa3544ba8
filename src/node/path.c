/*
 * path.c - the ways to a peer: which one a link takes, and how it moves from TCP to RDMA without a
 * gap (repl/route.h decides, this carries out).
 *
 * A link on TCP that wants RDMA gets a challenger: a second link for the same lanes that dials
 * RDMA. Once that is connected the link sends nothing more; when all it sent is acknowledged, the
 * challenger says HELLO, so the cursors it is told are where the link stopped, and nothing is sent
 * twice. Established, it becomes the link; the peer supersedes the old connection, which ends here
 * too, without an alarm. If it fails at any step before, the link goes on where it stands.
 *
 * A link with much under way on a slow path is not quiet in the time that a peer waits for a HELLO.
 * Then the challenger goes, and the link still sends nothing: it empties, at the speed of its path,
 * and dials anew when it is empty. So much is under way only while the peer acknowledges it; if it
 * does not for long, the link sends again, and RDMA is tried after the route's pause.
 *
 * Thread:     the core.
 * Invariants: a link and its challenger name each other, or nobody; a challenger is in no status
 *             and carries no batch; it has no route: what happens to it is told to its link's. A
 *             link is emptied once a challenger that waited in vain: it sends again when the second
 *             one ends in any way.
 * Rejected:   HELLO while batches are in flight (the cursor told is below what is staged by the
 *             time of the take-over, and the peer must end the connection with MOVED); closing TCP
 *             first (a pause for a hope).
 */
#include "node/internal.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/log.h"

#define RETRY_MAX_NS (60ull * 1000000000ull)

/* ---- all of them ---- */

unsigned node_paths_poll(struct cfsr_node_core *core, unsigned budget)
{
    unsigned work = 0;

    for (unsigned i = 0; i < CFSR_PATHS; i++)
        if (core->env.path[i].transport != NULL)
            work += core->env.path[i].transport->poll(core->env.path[i].group, budget);
    return work;
}

void node_paths_flush(struct cfsr_node_core *core)
{
    for (unsigned i = 0; i < CFSR_PATHS; i++)
        if (core->env.path[i].transport != NULL)
            core->env.path[i].transport->flush(core->env.path[i].group);
}

bool node_paths_arm(struct cfsr_node_core *core)
{
    for (unsigned i = 0; i < CFSR_PATHS; i++) {
        const struct cfsr_node_path *path = &core->env.path[i];
        if (path->transport != NULL && path->transport->arm(path->group) < 0)
            return false;
    }
    return true;
}

static bool may_use_rdma(const struct cfsr_node_options *options, uint32_t peer)
{
    return options->rdma != CFSR_RDMA_OFF &&
           options->peers[peer].endpoint[CFSR_PATH_RDMA][0] != '\0';
}

uint32_t node_links_max(const struct cfsr_node_options *options, uint32_t owned)
{
    uint32_t links = 0;

    /* A link for each of the peer's cores that can share a lane, and one more: lane maps follow
     * each other, they do not overlap. Each may have a challenger. */
    for (uint32_t peer = 0; peer < options->peer_count; peer++)
        links += (owned + 1) * (may_use_rdma(options, peer) ? 2 : 1);
    return links;
}

int node_path_frame(const struct cfsr_node_path *path, const uint8_t *span, size_t len_bytes,
                    struct cfsr_link_header *header_out)
{
    bool messages = (path->transport->caps & CFSR_TRANSPORT_MESSAGES) != 0;
    int rc;

    if (len_bytes < CFSR_LINK_HEADER_BYTES)
        return messages ? -CFSR_E_BAD_FRAME : -EAGAIN;
    rc = cfsr_link_header_load(span, header_out);
    if (rc == 0 && messages &&
        CFSR_LINK_HEADER_BYTES + (size_t)header_out->length_bytes != len_bytes)
        rc = -CFSR_E_BAD_FRAME;
    return rc;
}

/* ---- the link's route ---- */

static enum cfsr_path index_of(const struct node_link *link)
{
    return (enum cfsr_path)(link->path - link->core->env.path);
}

void node_route_init(struct node_link *link)
{
    const struct cfsr_node_core *core = link->core;
    uint64_t retry_max_ns = core->options.rdma_retry_ns != 0 ? core->options.rdma_retry_ns
                                                             : RETRY_MAX_NS;
    const struct cfsr_node_path *rdma = &core->env.path[CFSR_PATH_RDMA];
    struct cfsr_route_options options = {
        .mode = core->options.rdma,
        .peer_rdma = may_use_rdma(&core->options, link->peer),
        .local_reason = rdma->transport != NULL ? 0 : rdma->unusable,
        .retry_min_ns = cfsr_min_u64(core->options.backoff_max_ns, retry_max_ns),
        .retry_max_ns = retry_max_ns,
    };

    if (rdma->transport == NULL && options.local_reason == 0)
        options.local_reason = -ENOTSUP;
    cfsr_route_init(&link->route, &options);
    memset(link->told, 0, sizeof link->told);
    link->path = &core->env.path[cfsr_route_path(&link->route)];
}

/* What the route counted since then is added to the core's counters. */
static void publish(struct node_link *link, const struct cfsr_route_counters *then)
{
    struct cfsr_node_counters *counters = &link->core->counters;
    const struct cfsr_route_counters *now = &link->route.counters;

    cfsr_counter_add(&counters->path_fallbacks, now->fallbacks - then->fallbacks);
    cfsr_counter_add(&counters->path_returns, now->returns - then->returns);
    cfsr_counter_add(&counters->rdma_failures, now->rdma_failures - then->rdma_failures);
}

static void log_path(const struct node_link *link, int reason)
{
    const struct cfsr_node_peer *peer = &link->core->options.peers[link->peer];
    enum cfsr_path path = cfsr_route_path(&link->route);

    cfsr_log(reason != 0 ? CFSR_LOG_WARN : CFSR_LOG_INFO, "link_path",
             CFSR_U("peer", peer->site_id), CFSR_S("peer_name", peer->name),
             CFSR_U("core", link->core->options.core), CFSR_U("peer_core", link->peer_core),
             CFSR_S("path", cfsr_path_name(path)), CFSR_S("endpoint", peer->endpoint[path]),
             CFSR_S("reason", reason != 0 ? cfsr_error_name(reason) : "rdma_is_back"));
}

/* A connection or attempt of this path ended; true: the next dial takes the other one. */
static bool failed(struct node_link *link, enum cfsr_path path, bool established, int reason)
{
    struct cfsr_node_core *core = link->core;
    struct cfsr_route_counters then = link->route.counters;
    uint32_t random;

    core->env.random(core->env.user, &random, sizeof random);
    bool moved = cfsr_route_on_failed(&link->route, path, established, reason, core->now_ns,
                                      random);
    publish(link, &then);
    return moved;
}

bool node_path_ended(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;
    /* A peer that answered and refused got through: the other path would meet the same. */
    bool refused = link->sender.counters.refusals != link->refusals;
    int reason = refused ? 0 : link->sender.last_reason;
    enum cfsr_path path = index_of(link);

    link->emptying = false;
    if (link->retiring || core->draining)
        return false;
    if (link->challenger) {
        struct node_link *champion = link->rival;
        CFSR_ASSERT(champion != NULL);
        link->retiring = true;
        node_rivals_part(link);
        int known = champion->route.reason;
        champion->emptying = false;
        (void)failed(champion, path, false, reason);
        if (champion->route.reason != known)
            log_path(champion, champion->route.reason); /* where it stays, and why now */
        return true; /* the link it was to replace still stands: nothing to tell of */
    }
    if (!failed(link, path, link->established, reason))
        return false;
    /* While a peer is away every path fails in turn: said once. */
    if (link->established || link->told[path] != reason)
        log_path(link, reason);
    link->told[path] = reason;
    /* At once; the way back to RDMA has a pause of its own, in the sender. */
    if (path == CFSR_PATH_RDMA)
        cfsr_sender_resume_backoff(&link->sender, core->now_ns, 0);
    return !link->established;
}

int node_path_dial(struct node_link *link, const char **endpoint_out)
{
    struct cfsr_node_core *core = link->core;
    enum cfsr_path path = link->challenger ? CFSR_PATH_RDMA : cfsr_route_path(&link->route);

    link->path = &core->env.path[path];
    link->established = false;
    link->held = false;
    /* From now on, not from the connection: the peer may have it a round trip before us. */
    link->held_until_ns = core->now_ns + core->options.hello_timeout_ns / 2;
    link->refusals = link->sender.counters.refusals;
    /* A challenger's answer, on its way now, may be older than what this handshake is going to
     * hear: it would set the link back. */
    if (!link->challenger && link->rival != NULL) {
        link->rival->retiring = true;
        node_rivals_part(link);
    }
    if (link->path->transport == NULL)
        return link->path->unusable != 0 ? link->path->unusable : -ENOTSUP;
    *endpoint_out = core->options.peers[link->peer].endpoint[path];
    return 0;
}

/* ---- challengers ---- */

void node_rivals_part(struct node_link *link)
{
    if (link->rival == NULL)
        return;
    link->rival->rival = NULL;
    link->rival = NULL;
    link->core->turn_again = true; /* one goes on sending, the other is retired */
}

/* Nothing of the link is under way: the peer has all it was sent. */
static bool is_empty(const struct node_link *link)
{
    return link->sender.in_flight_bytes == 0 && link->frames_busy == 0;
}

/* Nothing but the wish for RDMA stands against a challenge. */
static bool may_be_challenged(const struct node_link *link)
{
    return !link->challenger && link->rival == NULL && !link->retiring && !link->core->draining &&
           link->sender.state == CFSR_SENDER_RUNNING && link->sender.damaged_mask == 0;
}

/* When an emptying link goes back to sending: half the time after which its sender would end the
 * connection, and also where it would not, for the peer has no room. */
static uint64_t emptying_until_ns(const struct node_link *link)
{
    return cfsr_max_u64(link->emptying_since_ns, link->sender.last_progress_ns) +
           link->core->options.progress_timeout_ns / 2;
}

/* True when a challenger shall dial now. */
static bool is_time(struct node_link *link)
{
    uint64_t now_ns = link->core->now_ns;

    if (!may_be_challenged(link)) {
        if (link->rival == NULL)
            link->emptying = false;
        return false;
    }
    if (!link->emptying)
        return cfsr_route_wants_rdma(&link->route, now_ns);
    if (is_empty(link)) /* RDMA was connected when it began: no pause */
        return true;
    if (now_ns >= emptying_until_ns(link))
        link->emptying = false;
    return false;
}

void node_path_turn(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;

    if (link->challenger && link->held)
        node_path_release(link);
    if (!is_time(link))
        return;
    struct node_link *challenger = node_link_free(core);
    if (challenger == NULL) { /* older ones are still closing: later */
        link->emptying = false;
        (void)failed(link, CFSR_PATH_RDMA, false, 0);
        return;
    }
    node_link_open(challenger, link->peer, link->peer_core, link->sender.options.lane_mask);
    challenger->challenger = true;
    challenger->rival = link;
    link->rival = challenger;
    core->turn_again = true; /* it dials */
}

uint64_t node_path_deadline(const struct node_link *link)
{
    if (link->challenger)
        return link->held ? link->held_until_ns : UINT64_MAX;
    if (!may_be_challenged(link))
        return UINT64_MAX;
    return link->emptying ? emptying_until_ns(link) : cfsr_route_deadline_ns(&link->route);
}

bool node_path_hold(struct node_link *link)
{
    if (!link->challenger)
        return false;
    link->held = true;
    link->core->turn_again = true;
    return true;
}

bool node_path_is_quiet(const struct node_link *link)
{
    const struct node_link *rival = link->rival;

    if (link->emptying)
        return true;
    /* From its connection on to its end; BACKOFF and DIALING are before. */
    return rival != NULL && !link->challenger &&
           (rival->held || (rival->sender.state != CFSR_SENDER_BACKOFF &&
                            rival->sender.state != CFSR_SENDER_DIALING));
}

/* The held challenger waited as long as its peer can be made to. Once, its link is emptied for the
 * next. */
static void give_up(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;
    struct node_link *champion = link->rival;

    link->held = false;
    link->retiring = true;
    node_rivals_part(link);
    champion->emptying = !champion->emptying;
    champion->emptying_since_ns = core->now_ns;
    (void)failed(champion, CFSR_PATH_RDMA, false, 0);
    cfsr_sender_abort(&link->sender, -CFSR_E_SUPERSEDED, "the link is busy", &core->outbox);
    node_link_execute(link);
}

void node_path_release(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;
    uint8_t nonce[32];

    if (link->conn == NULL || node_control_free(&link->control) < CFSR_NODE_CONTROL_RESERVE)
        return;
    if (!is_empty(link->rival)) {
        if (core->now_ns >= link->held_until_ns)
            give_up(link);
        return;
    }
    link->held = false;
    node_link_take_acked(link); /* what its link heard since it was opened */
    core->env.random(core->env.user, nonce, sizeof nonce);
    cfsr_sender_on_connected(&link->sender, core->now_ns, core->wall_us, nonce, &core->outbox);
    node_link_execute(link);
}

/* The challenger passed its handshake: it is the link now. */
static void promote(struct node_link *link)
{
    struct node_link *old = link->rival;

    link->challenger = false;
    link->route = old->route;
    link->caught_up_ns = old->caught_up_ns;
    node_rivals_part(link);
    old->retiring = true;
    old->reroute_cores = 0;
}

void node_path_established(struct node_link *link)
{
    struct cfsr_route_counters then;
    enum cfsr_path before;

    link->established = true;
    if (link->challenger)
        promote(link);
    memset(link->told, 0, sizeof link->told);
    then = link->route.counters;
    before = cfsr_route_path(&link->route);
    cfsr_route_on_established(&link->route, index_of(link));
    publish(link, &then);
    if (before != index_of(link))
        log_path(link, 0);
}
