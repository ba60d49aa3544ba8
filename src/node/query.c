/*
 * query.c - questions between sites: sending ours, answering theirs.
 *
 * An answer is made by one job of the helper thread, from the own journal (encoded and signed for
 * the asker) or from the inbox (the origin's frame as it rests there), into the one buffer a core
 * has for it. Connections with a question are served in turn.
 *
 * Thread:     the core; reading and encoding are a job.
 * Invariants: one answer at a time a core, one question at a time a connection: a peer costs a job,
 * a few MiB of reading and one buffer, whatever it asks; nothing above the committed LSN is given;
 * an answer goes to the connection that asked, or nowhere.
 * Rejected:   serving from the batch cache (a question is about what lies far back); a connection
 * of their own for questions (a peer that cannot be dialled could not ask).
 */
#include "node/internal.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/log.h"
#include "journal/digest.h"
#include "journal/repair.h"

/* A peer that has not taken its answer after this many progress timeouts is not going to. */
#define TAKE_TIMEOUTS 6

#define BODY_OFFSET (CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES)

/* ---- channels ---- */

struct cfsr_query_port *node_channel_port(const struct node_channel *channel)
{
    if (channel->link != NULL && channel->link->conn != NULL &&
        channel->link->attempt == channel->attempt)
        return &channel->link->sender.queries;
    if (channel->conn != NULL && channel->conn->in_use &&
        channel->conn->attempt == channel->attempt)
        return &channel->conn->receiver.queries;
    return NULL;
}

static bool is_same(const struct node_channel *a, const struct node_channel *b)
{
    return a->link == b->link && a->conn == b->conn && a->attempt == b->attempt;
}

/* ---- asking ---- */

static struct node_link *link_to_ask(const struct cfsr_node_core *core, uint32_t peer,
                                     uint32_t lane)
{
    for (uint32_t i = 0; i < core->link_count; i++) {
        struct node_link *link = &core->links[i];
        if (link->in_use && !link->retiring && link->conn != NULL && link->peer == peer &&
            cfsr_sender_can_ask(&link->sender, lane) &&
            node_control_free(&link->control) >= CFSR_NODE_CONTROL_RESERVE)
            return link;
    }
    return NULL;
}

static struct node_conn *conn_to_ask(const struct cfsr_node_core *core, uint32_t peer,
                                     uint32_t lane)
{
    for (uint32_t i = 0; i < core->conn_count && core->conns_in_use > 0; i++) {
        struct node_conn *conn = &core->conns[i];
        if (conn->in_use && !conn->evicted && conn->peer == (int)peer &&
            cfsr_receiver_can_ask(&conn->receiver, lane) &&
            node_control_free(&conn->control) >= CFSR_NODE_CONTROL_RESERVE)
            return conn;
    }
    return NULL;
}

bool node_can_ask(const struct cfsr_node_core *core, uint32_t peer, uint32_t lane)
{
    return link_to_ask(core, peer, lane) != NULL || conn_to_ask(core, peer, lane) != NULL;
}

bool node_ask(struct cfsr_node_core *core, uint32_t peer, const struct cfsr_query *query,
              struct node_channel *channel_out)
{
    uint64_t deadline_ns = core->now_ns + core->options.progress_timeout_ns;
    struct node_link *link = link_to_ask(core, peer, query->lane);
    struct node_conn *conn = link == NULL ? conn_to_ask(core, peer, query->lane) : NULL;

    if (link == NULL && conn == NULL)
        return false;
    cfsr_counter_add(&core->counters.queries_sent, 1);
    if (link != NULL) {
        *channel_out = (struct node_channel){.link = link, .attempt = link->attempt};
        cfsr_sender_ask(&link->sender, query, deadline_ns, &core->outbox);
        node_link_execute(link);
    } else {
        *channel_out = (struct node_channel){.conn = conn, .attempt = conn->attempt};
        cfsr_receiver_ask(&conn->receiver, query, deadline_ns, &core->outbox);
        node_conn_execute(conn);
    }
    return true;
}

/* ---- making an answer, on the helper thread ---- */

/* Encodes and signs records of our own journal for the asker. */
static int encode_own(struct node_server *server, const struct cfsr_scan *scan)
{
    const struct cfsr_node_core *core = server->core;
    const struct cfsr_site *site = core->options.site;
    uint8_t *prefix = server->frame + BODY_OFFSET;
    struct cfsr_mac_key *key = NULL;
    struct cfsr_batch_header header = {
        .lane = server->query.lane,
        .encode_class = core->encode_class,
        .site_id = site->site_id,
        .journal = site->journal,
        .epoch = core->local.epoch,
        .lsn_from = scan->lsn,
        .lsn_to = scan->next_lsn,
        .entry_count = scan->entry_count,
    };
    int rc = cfsr_session_batch_key(core->options.keyring, server->key_id, &site->cluster,
                                    site->site_id, server->asker, &key);

    if (rc == 0)
        rc = cfsr_batch_encode(server->codec, server->raw, scan->raw_bytes,
                               prefix + CFSR_BATCH_PREFIX_BYTES, CFSR_BATCH_BODY_MAX_BYTES,
                               &header);
    if (rc == 0) {
        cfsr_batch_header_store(&header, prefix);
        cfsr_batch_sign(key, server->key_id, prefix, NULL, 0);
        server->reply.body_bytes = CFSR_BATCH_PREFIX_BYTES + header.stored_bytes;
        server->reply.lsn_from = header.lsn_from;
        server->reply.lsn_to = header.lsn_to;
        server->reply.count = 1;
    }
    cfsr_mac_key_destroy(key);
    return rc;
}

static int own_records(struct node_server *server)
{
    const struct cfsr_node_core *core = server->core;
    const struct cfsr_query *query = &server->query;
    uint64_t limit = cfsr_min_u64(query->lsn_to, server->committed_lsn);
    struct cfsr_scan scan;

    if (query->lsn_from >= limit)
        return -CFSR_E_GONE;
    int rc = cfsr_journal_read_run(core->env.blocking_fs, core->options.site, query->lane,
                                   query->lsn_from, limit, 0, server->raw,
                                   CFSR_BATCH_BODY_MAX_BYTES, &scan);
    if (rc < 0)
        return rc;
    /* The unused end of a segment holds no record, and nobody lacks one there. */
    if (scan.record_count == 0 || scan.lsn != query->lsn_from)
        return -CFSR_E_GONE;
    return encode_own(server, &scan);
}

static int inbox_records(struct node_server *server)
{
    const struct cfsr_node_core *core = server->core;
    const struct cfsr_query *query = &server->query;
    struct cfsr_batch_header header;
    uint32_t frame_bytes;
    int rc = cfsr_inbox_find_frame(core->env.blocking_fs, core->options.site, query->lane,
                                   query->origin, &query->journal, query->lsn_from,
                                   server->frame + BODY_OFFSET, CFSR_REPLY_BODY_MAX, &frame_bytes);

    if (rc == 0)
        rc = cfsr_batch_header_load(server->frame + BODY_OFFSET, &header);
    if (rc < 0)
        return rc;
    if (query->lsn_from < header.lsn_from || query->lsn_from >= header.lsn_to)
        return -CFSR_E_GONE;
    server->reply.body_bytes = frame_bytes;
    server->reply.lsn_from = header.lsn_from;
    server->reply.lsn_to = header.lsn_to;
    server->reply.count = 1;
    return 0;
}

/* A reply covers what was looked at, from lsn_from on; nothing at all is an error. */
static int store_windows(struct node_server *server, int rc, uint32_t count, uint64_t done_lsn)
{
    struct cfsr_reply *reply = &server->reply;
    bool own = server->query.origin == server->core->options.site->site_id;
    uint8_t *body = server->frame + BODY_OFFSET;

    done_lsn = cfsr_min_u64(done_lsn, server->query.lsn_to);
    if (count == 0 && rc < 0)
        return rc;
    if (done_lsn <= server->query.lsn_from)
        return -CFSR_E_GONE;
    for (uint32_t i = 0; i < count; i++) {
        if (own)
            cfsr_reply_window_store(body, i, server->windows.own[i].index,
                                    server->windows.own[i].digest);
        else
            cfsr_reply_window_store(body, i, server->windows.inbox[i].index,
                                    server->windows.inbox[i].digest);
    }
    reply->count = count;
    reply->body_bytes = count * CFSR_REPLY_WINDOW_BYTES;
    reply->lsn_to = done_lsn;
    return 0;
}

static int own_digests(struct node_server *server)
{
    const struct cfsr_node_core *core = server->core;
    const struct cfsr_query *query = &server->query;
    uint64_t limit = cfsr_min_u64(query->lsn_to, server->committed_lsn), done = query->lsn_from;
    struct cfsr_journal_digests *digests;
    uint32_t count = 0, more = 0;
    uint64_t end = cfsr_align_down(limit, CFSR_DIGEST_WINDOW_BYTES);
    int rc = cfsr_journal_digests_open(core->env.blocking_fs, core->options.site, query->lane,
                                       query->lsn_from, limit, &digests);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < CFSR_NODE_SERVE_BYTES / CFSR_DIGEST_WINDOW_BYTES && done < end; i++) {
        rc = cfsr_journal_digests_step(digests, CFSR_DIGEST_WINDOW_BYTES,
                                       server->windows.own + count, CFSR_REPLY_WINDOWS_MAX - count,
                                       &more, &done);
        if (rc < 0)
            break;
        count += more;
        if (rc == 0 || count == CFSR_REPLY_WINDOWS_MAX)
            break;
    }
    cfsr_journal_digests_close(digests);
    return store_windows(server, rc, count, rc == 0 ? limit : done);
}

static int inbox_digests(struct node_server *server)
{
    const struct cfsr_node_core *core = server->core;
    const struct cfsr_query *query = &server->query;
    uint32_t count = 0;
    uint64_t next = query->lsn_from;
    int rc = cfsr_inbox_window_digests(core->env.blocking_fs, core->options.site, query->lane,
                                       query->origin, &query->journal, query->lsn_from,
                                       query->lsn_to, CFSR_NODE_SERVE_BYTES, server->windows.inbox,
                                       CFSR_REPLY_WINDOWS_MAX, &count, &next);

    return rc < 0 ? rc : store_windows(server, rc, count, next);
}

static int make_answer(struct node_server *server)
{
    const struct cfsr_site *site = server->core->options.site;
    const struct cfsr_query *query = &server->query;
    bool records = query->kind == CFSR_QUERY_RECORDS;

    if (query->origin != site->site_id)
        return records ? inbox_records(server) : inbox_digests(server);
    if (!cfsr_uuid_equal(&query->journal, &site->journal))
        return -CFSR_E_JOURNAL_CHANGED;
    return records ? own_records(server) : own_digests(server);
}

static void run_answer(struct cfsr_node_job *job)
{
    struct node_server *server = CFSR_CONTAINER_OF(job, struct node_server, job);
    const struct cfsr_query *query = &server->query;

    cfsr_error_clear();
    server->reply = (struct cfsr_reply){
        .id = query->id,
        .kind = query->kind,
        .lane = query->lane,
        .lsn_from = query->lsn_from,
        .lsn_to = query->lsn_to,
    };
    int rc = make_answer(server);
    if (rc == -ENOENT)
        rc = -CFSR_E_GONE;
    if (rc == -EIO) /* a sector that cannot be read */
        rc = -CFSR_E_DAMAGED;
    server->reply.status = -rc;
    if (rc < 0) {
        server->reply.count = 0;
        server->reply.body_bytes = 0;
        server->reply.lsn_from = query->lsn_from;
        server->reply.lsn_to = query->lsn_to;
    }
}

/* ---- serving ---- */

static void send_answer(struct node_server *server)
{
    struct cfsr_node_core *core = server->core;
    const struct node_channel *to = &server->to;
    uint32_t payload_bytes;
    int rc = -ENOTCONN;

    if (node_channel_port(to) != NULL) {
        payload_bytes = cfsr_reply_store(&server->reply, server->frame + CFSR_LINK_HEADER_BYTES);
        server->state = NODE_SERVER_SENDING; /* on_sent comes from poll() only */
        rc = to->link != NULL ? node_link_reply(to->link, server->frame, payload_bytes)
                              : node_conn_reply(to->conn, server->frame, payload_bytes);
    }
    if (rc == -EAGAIN) {
        server->state = NODE_SERVER_READY;
        return;
    }
    if (rc < 0)
        server->state = NODE_SERVER_IDLE;
    else if (server->reply.status == 0)
        cfsr_counter_add(&core->counters.queries_served, 1);
    else
        cfsr_counter_add(&core->counters.queries_refused, 1);
}

static void done_answer(struct cfsr_node_job *job)
{
    struct node_server *server = CFSR_CONTAINER_OF(job, struct node_server, job);
    struct cfsr_node_core *core = server->core;
    const struct cfsr_query *query = &server->query;

    node_job_finished(core, job);
    if (server->reply.status == CFSR_E_DAMAGED || server->reply.status == CFSR_E_MISSING_SEGMENT)
        node_scrub_served_damage(core, query->lane, query->origin != core->options.site->site_id,
                                 query->lsn_from);
    server->state = NODE_SERVER_READY;
    server->deadline_ns = core->now_ns + TAKE_TIMEOUTS * core->options.progress_timeout_ns;
    core->turn_again = true; /* sent by the next turn: not from wherever this was called */
}

void node_server_sent(struct cfsr_node_core *core)
{
    CFSR_ASSERT(core->server.state == NODE_SERVER_SENDING);
    core->server.state = NODE_SERVER_IDLE;
    core->queries_waiting = true;
}

/* The next connection with a question, links and conns in one circle. */
static bool choose(struct node_server *server)
{
    struct cfsr_node_core *core = server->core;
    uint32_t all = core->link_count + core->conn_count;

    for (uint32_t i = 0; i < all; i++) {
        uint32_t at = (server->next + i) % all;
        struct node_channel to = {0};
        uint64_t asker;
        if (at < core->link_count) {
            to.link = &core->links[at];
            to.attempt = to.link->attempt;
            asker = core->options.peers[to.link->peer].site_id;
        } else {
            to.conn = &core->conns[at - core->link_count];
            to.attempt = to.conn->attempt;
            asker = to.conn->receiver.site_id;
        }
        const struct cfsr_query_port *port = node_channel_port(&to);
        if (port == NULL || !port->serving)
            continue;
        server->to = to;
        server->asker = asker;
        server->query = port->served;
        server->next = at + 1;
        return true;
    }
    return false;
}

/* It keeps the answers of all others waiting: its connection ends, and with it what it was sent. */
static void give_up_on(struct node_server *server)
{
    struct cfsr_node_core *core = server->core;
    const struct node_channel *to = &server->to;

    server->deadline_ns = UINT64_MAX;
    if (node_channel_port(to) == NULL)
        return;
    if (to->link != NULL) {
        cfsr_sender_abort(&to->link->sender, -CFSR_E_TIMEOUT, "an answer was not taken",
                          &core->outbox);
        node_link_execute(to->link);
    } else {
        cfsr_receiver_abort(&to->conn->receiver, -CFSR_E_TIMEOUT, &core->outbox);
        node_conn_execute(to->conn);
    }
}

uint64_t node_server_deadline(const struct cfsr_node_core *core)
{
    const struct node_server *server = &core->server;
    bool waits = server->state == NODE_SERVER_READY || server->state == NODE_SERVER_SENDING;

    return waits ? server->deadline_ns : UINT64_MAX;
}

unsigned node_server_turn(struct cfsr_node_core *core)
{
    struct node_server *server = &core->server;

    if (core->now_ns >= node_server_deadline(core))
        give_up_on(server);
    if (server->state == NODE_SERVER_READY)
        send_answer(server);
    if (server->state != NODE_SERVER_IDLE || !core->queries_waiting || core->draining)
        return 0;
    if (!choose(server)) {
        core->queries_waiting = false;
        return 0;
    }
    server->key_id = cfsr_keyring_signing_key(core->options.keyring, core->options.site->site_id,
                                              server->asker);
    server->committed_lsn = core->head_lsn[server->query.lane];
    server->state = NODE_SERVER_READING;
    node_submit_job(core, &server->job);
    return 1;
}

void node_queries_closed(struct cfsr_node_core *core, struct node_channel channel)
{
    /* An answer in the making is dropped when it is ready: its connection is gone. */
    if (core->scrub.asking && is_same(&core->scrub.asked, &channel))
        node_scrub_answered(core, -CFSR_E_UNREACHABLE, NULL);
}

/* ---- life ---- */

int node_server_create(struct cfsr_node_core *core)
{
    struct node_server *server = &core->server;
    uint16_t ignored;

    server->core = core;
    server->job.run = run_answer;
    server->job.done = done_answer;
    server->job.slow = true;
    server->frame = core->env.take_memory(core->env.user, CFSR_NODE_QUERY_FRAME_BYTES, &ignored);
    server->raw = core->env.take_memory(core->env.user, CFSR_BATCH_BODY_MAX_BYTES, &ignored);
    if (server->frame == NULL || server->raw == NULL)
        return -ENOMEM;
    return cfsr_batch_codec_create(&core->options.codec, &server->codec);
}

void node_server_destroy(struct cfsr_node_core *core)
{
    CFSR_ASSERT(!core->server.job.busy);
    cfsr_batch_codec_destroy(core->server.codec);
}
