/*
 * outgoing.c - the driver of outgoing links: executes the senders' actions over the transport.
 *
 * A link is one connection from this core to one core of a peer. At first every peer has one link
 * for all of this core's lanes; a WRONG_CORE answer tells the peer's core count, and the link is
 * replaced by one for each of its cores that shares lanes with this one.
 *
 * Thread:     the core.
 * Invariants: a frame's header and body stay untouched until on_sent; frames leave in the order in
 * which they were sealed (link sequence); an event is only taken from the transport while there is
 * room for the control frames it may answer with.
 */
#include "node/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/log.h"

/* ---- control frames ---- */

int node_control_create(struct cfsr_node_core *core, struct node_control *control)
{
    for (unsigned i = 0; i < CFSR_NODE_CONTROL_SLOTS; i++) {
        uint16_t ignored;
        control->slot[i] = core->env.take_memory(core->env.user, CFSR_NODE_CONTROL_SLOT_BYTES,
                                                 &ignored);
        if (control->slot[i] == NULL)
            return -ENOMEM;
    }
    control->busy = 0;
    return 0;
}

uint32_t node_control_free(const struct node_control *control)
{
    return CFSR_NODE_CONTROL_SLOTS - (uint32_t)__builtin_popcount(control->busy);
}

void node_control_send(const struct cfsr_node_path *path, struct node_control *control,
                       struct cfsr_conn *conn, const void *frame, uint32_t frame_bytes)
{
    CFSR_ASSERT(node_control_free(control) > 0 && frame_bytes <= CFSR_NODE_CONTROL_SLOT_BYTES);
    unsigned slot = (unsigned)__builtin_ctz(~control->busy);
    struct cfsr_frame out = {
        .pieces = {{.iov_base = control->slot[slot], .iov_len = frame_bytes}},
        .count = 1,
        .cookie = NODE_COOKIE_CONTROL | slot,
    };

    memcpy(control->slot[slot], frame, frame_bytes);
    /* The control queue of a connection holds more than its slots; a refusal means that it is
     * closing. */
    if (path->transport->send(conn, CFSR_STREAM_CONTROL, &out, 1) == 1)
        control->busy |= 1u << slot;
}

void node_control_sent(struct node_control *control, uint64_t cookie)
{
    unsigned slot = (unsigned)(cookie & ~NODE_COOKIE_CONTROL);
    CFSR_ASSERT(slot < CFSR_NODE_CONTROL_SLOTS && (control->busy >> slot & 1) != 0);
    control->busy &= ~(1u << slot);
}

/* ---- transport upcalls ---- */

static void on_connected(void *user, struct cfsr_conn *conn)
{
    struct node_link *link = user;
    struct cfsr_node_core *core = link->core;
    uint8_t nonce[32];

    (void)conn;
    if (node_path_hold(link))
        return;
    core->env.random(core->env.user, nonce, sizeof nonce);
    cfsr_sender_on_connected(&link->sender, core->now_ns, core->wall_us, nonce, &core->outbox);
    node_link_execute(link);
}

static bool is_bad_frame(int reason)
{
    return reason == -CFSR_E_BAD_FRAME || reason == -CFSR_E_BAD_LINK_TAG ||
           reason == -CFSR_E_REPLAYED;
}

static size_t on_data(void *user, struct cfsr_conn *conn, uint8_t *span, size_t len_bytes)
{
    struct node_link *link = user;
    struct cfsr_node_core *core = link->core;
    size_t taken = 0;

    while (taken < len_bytes && link->conn == conn) {
        struct cfsr_link_header header;
        int rc = node_path_frame(link->path, span + taken, len_bytes - taken, &header);
        if (rc == -EAGAIN)
            break;
        if (rc == 0 && !cfsr_sender_expects(&link->sender, header.type))
            rc = -CFSR_E_BAD_FRAME; /* before its bytes are waited for */
        if (rc < 0) {
            cfsr_counter_add(&core->counters.bad_frames, 1);
            cfsr_sender_abort(&link->sender, rc, cfsr_strerror(rc), &core->outbox);
            node_link_execute(link);
            taken = len_bytes; /* nothing of a connection that ends is looked at */
            break;
        }
        size_t frame_bytes = CFSR_LINK_HEADER_BYTES + (size_t)header.length_bytes;
        if (len_bytes - taken < frame_bytes ||
            node_control_free(&link->control) < CFSR_NODE_CONTROL_RESERVE)
            break;
        bool closing = link->sender.state == CFSR_SENDER_CLOSING;
        uint64_t acks = link->sender.counters.acks;
        cfsr_sender_on_frame(&link->sender, core->now_ns, core->wall_us, &header, span + taken,
                             &core->outbox);
        cfsr_counter_add(&core->counters.acks_received, link->sender.counters.acks - acks);
        if (!closing && link->sender.state == CFSR_SENDER_CLOSING &&
            is_bad_frame(link->sender.last_reason) && header.type != CFSR_FRAME_GOODBYE)
            cfsr_counter_add(&core->counters.bad_frames, 1);
        node_link_execute(link);
        taken += frame_bytes;
    }
    if (taken > 0)
        link->path->transport->recv_release(conn, taken);
    return taken;
}

/* The transport is through with it, or never took it. */
static void release_body(struct node_link *link, struct node_frame *frame)
{
    if (frame->sealed != NULL)
        node_seal_release(link, frame);
    else
        node_batch_release(frame->batch);
}

static void on_sent(void *user, struct cfsr_conn *conn, uint64_t cookie)
{
    struct node_link *link = user;
    if (cookie & NODE_COOKIE_CONTROL) {
        node_control_sent(&link->control, cookie);
        link->path->transport->recv_resume(conn);
        return;
    }
    if (cookie == NODE_COOKIE_REPLY) {
        node_server_sent(link->core);
        return;
    }
    CFSR_ASSERT(cookie < CFSR_NODE_LINK_FRAMES_MAX);
    struct node_frame *frame = &link->frame[cookie];
    CFSR_ASSERT(frame->busy);
    frame->busy = false;
    link->frames_busy--;
    link->queued_bytes -= frame->frame_bytes;
    release_body(link, frame);
}

static void on_writable(void *user, struct cfsr_conn *conn)
{
    struct node_link *link = user;
    (void)conn;
    link->blocked = false;
}

static void log_closed(const struct node_link *link)
{
    const struct cfsr_node_peer *peer = &link->core->options.peers[link->peer];
    const struct cfsr_sender *sender = &link->sender;
    int reason = sender->last_reason;

    if (reason == -CFSR_E_WRONG_CORE || link->retiring)
        return;
    cfsr_log(sender->fault != 0 ? CFSR_LOG_ERROR : CFSR_LOG_WARN,
             sender->fault != 0 ? "link_faulted" : "link_down", CFSR_U("peer", peer->site_id),
             CFSR_S("peer_name", peer->name),
             CFSR_S("endpoint", peer->endpoint[link->path - link->core->env.path]),
             CFSR_U("core", link->core->options.core), CFSR_S("reason", cfsr_error_name(reason)),
             CFSR_S("detail", sender->last_detail), CFSR_U("lane", sender->fault_lane),
             CFSR_U("lsn", sender->fault_lsn));
}

/* The peer's GOODBYE says that records it got (under good tags) are not what their CRCs say. */
static bool found_bytes_wrong(int reason)
{
    return reason == -CFSR_E_CHECKSUM || reason == -CFSR_E_FORMAT || reason == -CFSR_E_FOREIGN ||
           reason == -CFSR_E_BAD_ORDER;
}

static void on_closed(void *user, struct cfsr_conn *conn, int reason)
{
    struct node_link *link = user;
    struct cfsr_node_core *core = link->core;
    uint32_t random;
    bool was_quiet = link->sender.attempts > 0 && link->sender.last_reason == reason;

    if (found_bytes_wrong(link->sender.last_reason))
        node_batches_doubt(core, link->sender.options.lane_mask);
    CFSR_ASSERT(link->conn == conn);
    CFSR_ASSERT(link->frames_busy == 0 && link->control.busy == 0);
    link->conn = NULL;
    link->blocked = false;
    link->queued_bytes = 0;
    node_queries_closed(core, (struct node_channel){.link = link, .attempt = link->attempt});
    link->mark_count = 0;
    core->env.random(core->env.user, &random, sizeof random);
    cfsr_sender_on_closed(&link->sender, core->now_ns, reason, random);
    if (!node_path_ended(link) && !core->draining && !was_quiet)
        log_closed(link);
}

static const struct cfsr_conn_events link_events = {
    .on_connected = on_connected,
    .on_data = on_data,
    .on_sent = on_sent,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

/* ---- actions ---- */

static void dial(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;
    struct cfsr_preamble preamble = {.version = CFSR_WIRE_VERSION, .target_core = link->peer_core};
    const char *endpoint;
    uint32_t random;
    int rc = node_path_dial(link, &endpoint);

    CFSR_ASSERT(link->conn == NULL);
    link->attempt++;
    cfsr_counter_add(&core->counters.connects, 1);
    if (rc == 0)
        rc = link->path->transport->connect(link->path->group, endpoint, &preamble,
                                            core->options.hello_timeout_ns, &link_events, link,
                                            &link->conn);
    if (rc == -CFSR_E_POOL_EMPTY) /* of receive memory: the next attempt finds some */
        node_conns_evict(core, link->path);
    if (rc < 0) {
        core->env.random(core->env.user, &random, sizeof random);
        cfsr_sender_on_closed(&link->sender, core->now_ns, rc, random);
        if (!node_path_ended(link))
            log_closed(link);
    }
}

static void time_ack(struct node_link *link, uint32_t lane, uint64_t lsn)
{
    while (link->mark_count > 0) {
        const struct node_ack_mark *mark = &link->mark[link->mark_head];
        if (mark->lane == lane && mark->lsn_to > lsn)
            return;
        if (mark->lane != lane && link->sender.lane[mark->lane].acked_lsn < mark->lsn_to)
            return; /* another lane's turn; its ack will find it */
        cfsr_histogram_record(&link->core->stages.ack, link->core->now_ns - mark->sent_ns);
        link->mark_head = (link->mark_head + 1) % CFSR_NODE_ACK_MARKS;
        link->mark_count--;
    }
}

struct node_link *node_link_free(struct cfsr_node_core *core)
{
    for (uint32_t i = 0; i < core->link_count; i++)
        if (!core->links[i].in_use)
            return &core->links[i];
    return NULL;
}

/* Where the peer stands in the lane, as far as it ever said: outlives the links. */
static uint64_t *acked_of(const struct cfsr_node_core *core, uint32_t peer, uint32_t lane)
{
    return &core->acked[(size_t)peer * CFSR_LANES_MAX + lane];
}

void node_link_take_acked(struct node_link *link)
{
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++) {
        uint64_t acked = *acked_of(link->core, link->peer, lane);
        if ((link->sender.options.lane_mask >> lane & 1) == 0 || acked == CFSR_LSN_UNKNOWN)
            continue;
        link->sender.lane[lane].acked_lsn = acked;
        link->sender.lane[lane].known = true;
    }
}

void node_link_open(struct node_link *link, uint32_t peer, uint32_t peer_core, uint64_t lane_mask)
{
    struct cfsr_node_core *core = link->core;
    const struct cfsr_node_options *options = &core->options;
    struct cfsr_sender_options sender = {
        .local = &core->local,
        .peer_site_id = options->peers[peer].site_id,
        .lane_mask = lane_mask,
        .window_bytes = options->window_bytes,
        .batch_bytes = options->batch_bytes,
        .batch_entries = options->batch_entries,
        .batch_timeout_ns = options->batch_timeout_ns,
        .heartbeat_ns = options->heartbeat_ns,
        .hello_timeout_ns = options->hello_timeout_ns,
        .progress_timeout_ns = options->progress_timeout_ns,
        .backoff_min_ns = options->backoff_min_ns,
        .backoff_max_ns = options->backoff_max_ns,
        .fault_retry_ns = options->fault_retry_ns,
    };

    link->in_use = true;
    link->retiring = false;
    link->reroute_cores = 0;
    link->stamp_overrun = false;
    link->caught_up_ns = 0;
    link->counted = (struct cfsr_sender_counters){0};
    link->up = false;
    link->peer = peer;
    link->peer_core = peer_core;
    link->established = false;
    link->rival = NULL;
    link->challenger = false;
    link->held = false;
    link->emptying = false;
    node_route_init(link);
    cfsr_sender_init(&link->sender, &sender, core->now_ns);
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
        if (lane_mask >> lane & 1)
            cfsr_sender_on_head(&link->sender, core->now_ns, lane, core->head_lsn[lane],
                                core->head_entries[lane]);
    node_link_take_acked(link);
}

/* One link for each of the peer's cores that owns lanes of this core; the pool holds as many, as no
 * other link of the peer is left. */
static void open_links(struct cfsr_node_core *core, uint32_t peer, uint32_t cores,
                       uint32_t attempts)
{
    uint64_t mask_of_core[CFSR_NODE_CORES_MAX] = {0};

    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++)
        if (node_owns(core, lane))
            mask_of_core[lane % cores] |= 1ull << lane;
    for (uint32_t c = 0; c < cores; c++) {
        struct node_link *link = mask_of_core[c] != 0 ? node_link_free(core) : NULL;
        if (link == NULL)
            continue;
        node_link_open(link, peer, c, mask_of_core[c]);
        cfsr_sender_resume_backoff(&link->sender, core->now_ns, attempts);
    }
}

/* The peer has `cores` cores: its links end, and the last of them to go is replaced by one for each
 * core that owns lanes of this core. */
static void reroute(struct node_link *old, uint32_t cores)
{
    struct cfsr_node_core *core = old->core;

    if (cores == 0 || cores > CFSR_NODE_CORES_MAX || old->retiring || old->challenger)
        return; /* nonsense from the peer: the link goes on as it is and backs off; or another link
                   was or will be told the same */
    for (uint32_t i = 0; i < core->link_count; i++)
        if (core->links[i].in_use && core->links[i].peer == old->peer)
            core->links[i].retiring = true;
    old->reroute_cores = cores;
}

static bool is_last_link(const struct node_link *link)
{
    const struct cfsr_node_core *core = link->core;
    for (uint32_t i = 0; i < core->link_count; i++)
        if (&core->links[i] != link && core->links[i].in_use && core->links[i].peer == link->peer)
            return false;
    return true;
}

static void publish_acked(struct node_link *link, const struct cfsr_action *action)
{
    struct cfsr_node_core *core = link->core;
    int index = core->options.peers[link->peer].page_index;

    if (link->retiring && !link->established)
        return; /* its link went on without it, and knows better */
    *acked_of(core, link->peer, action->lane) = action->lsn;
    if (core->env.page != NULL && index >= 0)
        cfsr_status_page_set_acked(core->env.page, index, action->lane, action->lsn);
    time_ack(link, action->lane, action->lsn);
}

static void execute_one(struct node_link *link, const struct cfsr_action *action)
{
    struct cfsr_node_core *core = link->core;

    switch (action->type) {
    case CFSR_ACTION_DIAL: dial(link); break;
    case CFSR_ACTION_CLOSE:
        if (link->conn != NULL)
            link->path->transport->close(link->conn, true);
        break;
    case CFSR_ACTION_SEND_FRAME:
        if (link->conn != NULL)
            node_control_send(link->path, &link->control, link->conn, action->frame,
                              action->frame_bytes);
        break;
    case CFSR_ACTION_CHECK_STAMP:
        if (link->conn != NULL)
            node_stamp_check(link, action);
        break;
    case CFSR_ACTION_ACKED: publish_acked(link, action); break;
    case CFSR_ACTION_REROUTE: reroute(link, action->cores); break;
    case CFSR_ACTION_REGRESSED:
        publish_acked(link, action); /* lower: retention must keep what the peer needs again */
        cfsr_counter_add(&core->counters.peer_regressions, 1);
        cfsr_log(
            CFSR_LOG_ERROR, "peer_regressed", CFSR_U("peer", link->sender.options.peer_site_id),
            CFSR_U("lane", action->lane), CFSR_U("lsn", action->lsn),
            CFSR_S("advice", "the peer was restored from an older copy; it is being refilled"));
        break;
    case CFSR_ACTION_SERVE: core->queries_waiting = true; break;
    case CFSR_ACTION_ANSWER: node_scrub_answered(core, 0, &link->sender.queries.answer); break;
    case CFSR_ACTION_DAMAGED:
        cfsr_log(CFSR_LOG_ERROR, "journal_damaged", CFSR_U("lane", action->lane),
                 CFSR_U("lsn", action->lsn), CFSR_U("peer", link->sender.options.peer_site_id),
                 CFSR_S("meaning", "not sent; it is fetched again from a peer that holds it"));
        node_scrub_damaged(core, action->lane, action->lsn);
        break;
    case CFSR_ACTION_TAKE_OVER: CFSR_ASSERT(false); break;
    }
}

/* The sender has no counters of the core and no log: what it counted since the last time is added
 * here. */
static void publish(struct node_link *link)
{
    struct cfsr_node_counters *counters = &link->core->counters;
    const struct cfsr_sender_counters *now = &link->sender.counters, *then = &link->counted;
    const struct cfsr_node_peer *peer = &link->core->options.peers[link->peer];
    bool up = link->sender.state == CFSR_SENDER_RUNNING;

    cfsr_counter_add(&counters->refused_out, now->refusals - then->refusals);
    cfsr_counter_add(&counters->batches_timed_out, now->timeouts - then->timeouts);
    cfsr_counter_add(&counters->retransmitted_bytes,
                     now->retransmitted_bytes - then->retransmitted_bytes);
    link->counted = *now;
    /* A retiring one takes nothing over: its link went on without it, or a new lane map is due. */
    if (!link->established && !link->retiring &&
        (up || link->sender.state == CFSR_SENDER_REPAIRING))
        node_path_established(link);
    if (up && !link->up)
        cfsr_log(CFSR_LOG_INFO, "link_up", CFSR_U("peer", peer->site_id),
                 CFSR_S("peer_name", peer->name),
                 CFSR_S("endpoint", peer->endpoint[link->path - link->core->env.path]),
                 CFSR_U("core", link->core->options.core),
                 CFSR_U("lanes", (uint64_t)__builtin_popcountll(link->sender.options.lane_mask)));
    if (up && !link->up)
        node_scrub_on_peer(link->core);
    link->up = up;
}

/* Runs what the last event of this link's sender asked for. */
void node_link_execute(struct node_link *link)
{
    struct cfsr_outbox *out = &link->core->outbox;

    publish(link);
    for (unsigned i = 0; i < out->count; i++)
        execute_one(link, &out->item[i]);
    out->count = 0;
    if (link->stamp_overrun) {
        link->stamp_overrun = false;
        cfsr_sender_abort(&link->sender, -EBUSY, "the last comparison still reads", out);
        node_link_execute(link);
    }
}

/* ---- sending ---- */

static struct node_frame *free_frame(struct node_link *link)
{
    if (link->frames_busy == CFSR_NODE_LINK_FRAMES_MAX)
        return NULL;
    for (unsigned i = 0; i < CFSR_NODE_LINK_FRAMES_MAX; i++)
        if (!link->frame[i].busy)
            return &link->frame[i];
    return NULL;
}

static int batch_key(struct node_link *link)
{
    const struct cfsr_node_options *options = &link->core->options;
    uint32_t key_id = link->sender.session.key_id;

    if (link->batch_key != NULL && link->batch_key_id == key_id)
        return 0;
    cfsr_mac_key_destroy(link->batch_key);
    link->batch_key = NULL;
    int rc = cfsr_session_batch_key(options->keyring, key_id, &options->site->cluster,
                                    options->site->site_id, options->peers[link->peer].site_id,
                                    &link->batch_key);
    link->batch_key_id = key_id;
    return rc;
}

/* Signs the batch for this peer, seals the frame for this connection and hands it over; the caller
 * made sure that the transport has room. */
static void send_batch(struct node_link *link, struct node_batch *batch, struct node_frame *frame,
                       uint32_t lane)
{
    struct cfsr_node_core *core = link->core;
    uint8_t *prefix = frame->head + CFSR_LINK_HEADER_BYTES;
    uint64_t lsn_to = batch->header.lsn_to;
    uint16_t flags = cfsr_sender_sent(&link->sender, core->now_ns, lane, lsn_to);
    uint32_t length = CFSR_BATCH_PREFIX_BYTES + batch->header.stored_bytes;
    struct cfsr_frame out = {
        .pieces = {{.iov_base = frame->head, .iov_len = sizeof frame->head},
                   {.iov_base = batch->body, .iov_len = batch->header.stored_bytes}},
        .count = batch->header.stored_bytes > 0 ? 2 : 1,
        .cookie = (uint64_t)(frame - link->frame),
    };
    int rc;

    core->sending_bulk = (flags & CFSR_FRAME_ACK_NOW) == 0;
    core->sent_ns = core->now_ns;
    cfsr_batch_header_store(&batch->header, prefix);
    cfsr_batch_sign(link->batch_key, link->batch_key_id, prefix, NULL, 0);
    frame->batch = batch;
    if (cfsr_session_seals(&link->sender.session))
        node_seal_frame(link, flags, frame, &out);
    else
        cfsr_session_seal_batch(&link->sender.session, flags, prefix + CFSR_BATCH_TAG_OFFSET,
                                length, frame->head);
    frame->frame_bytes = (uint32_t)(sizeof frame->head + out.pieces[1].iov_len);
    rc = link->path->transport->send(link->conn, CFSR_STREAM_DATA, &out, 1);
    if (rc != 1) {
        /* Sealed but not taken: the sequence has a hole, so this connection is over. */
        release_body(link, frame);
        cfsr_sender_abort(&link->sender, rc < 0 ? rc : -EIO, "the transport took no frame",
                          &core->outbox);
        node_link_execute(link);
        return;
    }
    frame->busy = true;
    link->frames_busy++;
    link->queued_bytes += frame->frame_bytes;
    if (link->mark_count < CFSR_NODE_ACK_MARKS) {
        uint32_t at = (link->mark_head + link->mark_count++) % CFSR_NODE_ACK_MARKS;
        link->mark[at] = (struct node_ack_mark){lane, lsn_to, core->now_ns};
    }
    cfsr_counter_add(&core->counters.batches_sent, 1);
    cfsr_counter_add(&core->counters.wire_bytes_sent, frame->frame_bytes);
}

/* The transport would take another batch. */
static bool has_room(const struct node_link *link)
{
    return link->conn != NULL && !link->blocked &&
           link->queued_bytes < CFSR_NODE_LINK_QUEUE_BYTES &&
           link->frames_busy < CFSR_NODE_LINK_FRAMES_MAX;
}

int node_link_reply(struct node_link *link, void *bytes, uint32_t payload_bytes)
{
    struct cfsr_node_core *core = link->core;

    if (link->conn == NULL)
        return -ENOTCONN;
    if (!has_room(link))
        return -EAGAIN;
    uint32_t frame_bytes = cfsr_sender_reply(&link->sender, bytes, payload_bytes);
    struct cfsr_frame out = {
        .pieces = {{.iov_base = bytes, .iov_len = frame_bytes}},
        .count = 1,
        .cookie = NODE_COOKIE_REPLY,
    };
    if (frame_bytes == 0)
        return -ENOTCONN;
    if (link->path->transport->send(link->conn, CFSR_STREAM_DATA, &out, 1) == 1)
        return 0;
    cfsr_sender_abort(&link->sender, -EIO, "the transport took no frame", &core->outbox);
    node_link_execute(link);
    return -ENOTCONN;
}

void node_links_mended(struct cfsr_node_core *core, uint32_t lane, bool mended, uint64_t lsn)
{
    for (uint32_t i = 0; i < core->link_count; i++) {
        struct node_link *link = &core->links[i];
        if (!link->in_use || link->retiring)
            continue;
        if (!mended)
            cfsr_sender_on_unrepairable(&link->sender, lane, lsn);
        else if (node_control_free(&link->control) >= CFSR_NODE_CONTROL_RESERVE)
            cfsr_sender_on_repaired(&link->sender, core->now_ns, lane, &core->outbox);
        else
            cfsr_sender_abort(&link->sender, -CFSR_E_SHUTDOWN, "mended", &core->outbox);
        node_link_execute(link);
    }
    if (mended)
        core->doubted_mask &= ~(1ull << lane);
}

static unsigned send_due(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;
    uint64_t skip_mask = 0, from;
    unsigned work = 0;
    uint32_t lane;

    while (has_room(link) && cfsr_sender_next(&link->sender, core->now_ns, link->frames_busy == 0,
                                              skip_mask, &lane, &from)) {
        struct node_batch *batch;
        if (!node_seal_has_room(link)) {
            cfsr_counter_add(&core->counters.stall_no_seal_slot, 1);
            break;
        }
        int rc = batch_key(link);
        if (rc == 0)
            rc = node_batch_get(core, lane, from, &batch);
        if (rc == -EAGAIN) {
            skip_mask |= 1ull << lane;
            continue;
        }
        if (rc < 0) {
            cfsr_sender_on_read_error(&link->sender, core->now_ns, lane, from, rc, &core->outbox);
            node_link_execute(link);
            return work + 1;
        }
        send_batch(link, batch, free_frame(link), lane);
        work++;
    }
    return work;
}

static void retire(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;
    uint32_t cores = core->draining ? 0 : link->reroute_cores;

    if (link->conn != NULL) {
        if (link->sender.state != CFSR_SENDER_CLOSING &&
            link->sender.state != CFSR_SENDER_STOPPED) {
            if (node_control_free(&link->control) >= CFSR_NODE_CONTROL_RESERVE)
                cfsr_sender_stop(&link->sender, core->now_ns, &core->outbox);
            else
                cfsr_sender_abort(&link->sender, -CFSR_E_SHUTDOWN, "shutting down", &core->outbox);
            node_link_execute(link);
        }
        return;
    }
    if (link->stamps_busy > 0 || (cores != 0 && !is_last_link(link)))
        return;
    cfsr_sender_fini(&link->sender);
    cfsr_mac_key_destroy(link->batch_key);
    link->batch_key = NULL;
    node_rivals_part(link);
    link->in_use = false;
    if (cores == 0)
        return;
    open_links(core, link->peer, cores, link->sender.attempts);
    core->turn_again = true; /* the new links dial at the next turn */
}

/* False while a writer has not yet published where one of the link's lanes ends: nothing can be
 * compared. */
static bool is_ready(const struct node_link *link)
{
    return (link->sender.options.lane_mask & ~link->core->known_mask) == 0;
}

static unsigned turn(struct node_link *link)
{
    struct cfsr_node_core *core = link->core;

    if (link->retiring) {
        retire(link);
        return 0;
    }
    if (!is_ready(link))
        return 0;
    node_path_turn(link);
    for (uint32_t lane = 0; lane < core->options.site->lanes; lane++)
        if (link->sender.options.lane_mask >> lane & 1)
            cfsr_sender_on_head(&link->sender, core->now_ns, lane, core->head_lsn[lane],
                                core->head_entries[lane]);
    if (core->now_ns >= cfsr_sender_next_deadline(&link->sender)) {
        if (node_control_free(&link->control) >= CFSR_NODE_CONTROL_RESERVE)
            cfsr_sender_tick(&link->sender, core->now_ns, core->wall_us, &core->outbox);
        else
            cfsr_sender_tick_blocked(&link->sender, core->now_ns, &core->outbox);
        node_link_execute(link);
    }
    if (cfsr_sender_is_caught_up(&link->sender))
        link->caught_up_ns = core->now_ns;
    return node_path_is_quiet(link) ? 0 : send_due(link);
}

unsigned node_links_turn(struct cfsr_node_core *core)
{
    unsigned work = 0;
    for (uint32_t i = 0; i < core->link_count; i++) {
        struct node_link *link = &core->links[(core->next_link + i) % core->link_count];
        if (link->in_use)
            work += turn(link);
    }
    if (core->link_count > 0)
        core->next_link = (core->next_link + 1) % core->link_count;
    return work;
}

uint64_t node_links_deadline(const struct cfsr_node_core *core)
{
    uint64_t deadline = UINT64_MAX;
    for (uint32_t i = 0; i < core->link_count; i++) {
        const struct node_link *link = &core->links[i];
        if (!link->in_use || !is_ready(link))
            continue;
        if (link->retiring)
            continue; /* its connection's end is what to wait for */
        deadline = cfsr_min_u64(deadline, node_path_deadline(link));
        deadline = cfsr_min_u64(deadline, cfsr_sender_next_deadline(&link->sender));
        /* In the past: the last turn tried, and waits for the disk, a slot or the pipe, whose
         * events come by themselves. */
        uint64_t batch = cfsr_sender_batch_deadline(&link->sender);
        if (batch > core->now_ns)
            deadline = cfsr_min_u64(deadline, batch);
    }
    return deadline;
}

void node_links_drain(struct cfsr_node_core *core)
{
    for (uint32_t i = 0; i < core->link_count; i++)
        if (core->links[i].in_use)
            core->links[i].retiring = true;
}

bool node_links_idle(const struct cfsr_node_core *core)
{
    for (uint32_t i = 0; i < core->link_count; i++)
        if (core->links[i].in_use)
            return false;
    return true;
}

int node_links_create(struct cfsr_node_core *core, uint64_t now_ns)
{
    uint32_t owned = (uint32_t)__builtin_popcountll(core->lane_mask);
    uint32_t peers = core->options.peer_count;
    core->now_ns = now_ns;
    if (peers == 0)
        return 0;
    core->links = calloc(node_links_max(&core->options, owned), sizeof *core->links);
    core->acked = calloc((size_t)peers * CFSR_LANES_MAX, sizeof *core->acked);
    if (core->links == NULL || core->acked == NULL)
        return -ENOMEM;
    core->link_count = node_links_max(&core->options, owned);
    for (uint32_t peer = 0; peer < peers; peer++)
        memcpy(acked_of(core, peer, 0), core->options.peers[peer].acked_lsn,
               sizeof core->options.peers[peer].acked_lsn);
    for (uint32_t i = 0; i < core->link_count; i++) {
        core->links[i].core = core;
        int rc = node_control_create(core, &core->links[i].control);
        if (rc < 0)
            return rc;
    }
    for (uint32_t peer = 0; peer < peers && core->lane_mask != 0; peer++)
        node_link_open(node_link_free(core), peer, core->options.core, core->lane_mask);
    return 0;
}

void node_links_destroy(struct cfsr_node_core *core)
{
    for (uint32_t i = 0; i < core->link_count; i++) {
        CFSR_ASSERT(core->links[i].conn == NULL);
        if (core->links[i].in_use) {
            cfsr_sender_fini(&core->links[i].sender);
            cfsr_mac_key_destroy(core->links[i].batch_key);
        }
    }
    free(core->links);
    free(core->acked);
    core->links = NULL;
    core->acked = NULL;
    core->link_count = 0;
}
