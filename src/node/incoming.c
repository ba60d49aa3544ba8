/*
 * incoming.c - the driver of incoming connections: frames to receivers, batches through every check
 * into the inbox, acks back.
 *
 * Thread:     the core.
 * Invariants: room in the inbox is secured before a batch is opened (opening moves the link
 * sequence), so a stalled connection keeps its bytes in the transport and the peer's TCP or credits
 * feel it; a batch is stored once, after all of its checks; nothing of it is copied before the copy
 * into the slot that goes to disk, and a large one of a transport that has slots not even there
 * (lend.c). Rejected:   storing first and checking the records later (law 7:
 * verify before use).
 */
#include "node/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/fail.h"
#include "base/log.h"

/* Places kept for the next to come: below it the oldest connection that has proven nothing makes
 * room. */
#define CONNS_RESERVE 8u

/* Clocks of peers further ahead than this are not taken over; quarantine of such batches is policy
 * above. */
#define CLOCK_SKEW_MAX_US 500000u

static int peer_of(const struct cfsr_node_core *core, uint64_t site_id)
{
    for (uint32_t i = 0; i < core->options.peer_count; i++)
        if (core->options.peers[i].site_id == site_id)
            return (int)i;
    return -1;
}

/* ---- what the receiver asks ---- */

static bool is_known_site(void *user, uint64_t site_id)
{
    const struct node_conn *conn = user;
    return peer_of(conn->core, site_id) >= 0;
}

static struct cfsr_inbox_lane *inbox_of(const struct node_conn *conn, uint32_t lane)
{
    CFSR_ASSERT(node_owns(conn->core, lane) && conn->core->stores[lane] != NULL);
    return conn->core->stores[lane]->inbox;
}

static uint64_t journal_of(void *user, uint64_t site_id, struct cfsr_uuid *journal_out)
{
    const struct node_conn *conn = user;
    for (uint32_t lane = 0; lane < conn->core->options.site->lanes; lane++) {
        int origin = node_owns(conn->core, lane)
                         ? cfsr_inbox_lane_find_site(inbox_of(conn, lane), site_id)
                         : -1;
        if (origin >= 0) {
            *journal_out = cfsr_inbox_lane_durable(inbox_of(conn, lane), origin)->journal;
            return 1;
        }
    }
    return 0;
}

static int cursor(void *user, uint64_t site_id, const struct cfsr_uuid *journal, uint32_t lane,
                  struct cfsr_hello_lane *lane_out)
{
    struct node_conn *conn = user;
    struct cfsr_inbox_lane *inbox = inbox_of(conn, lane);
    int origin = cfsr_inbox_lane_find_site(inbox, site_id);

    if (conn->core->stores[lane]->healing || cfsr_inbox_lane_failed(inbox))
        return node_store_refusal(conn->core->stores[lane]);
    if (origin < 0) {
        *lane_out = (struct cfsr_hello_lane){.last = {.lsn = UINT64_MAX}};
        return 0;
    }
    const struct cfsr_inbox_cursor *durable = cfsr_inbox_lane_durable(inbox, origin);
    if (!cfsr_uuid_equal(&durable->journal, journal))
        return cfsr_fail(
            -CFSR_E_JOURNAL_CHANGED,
            "site %llu is known here by another journal: it was made anew, or two sites use one id",
            (unsigned long long)site_id);
    *lane_out = (struct cfsr_hello_lane){
        .cursor = durable->lsn,
        .incarnation = durable->incarnation,
        .entries = durable->entries,
        .last = durable->last,
    };
    return 0;
}

/* Looks only: an origin is made by its first batch that passed every check. HELLO made sure that
 * the journal is the one known here, if any is. */
static uint64_t staged_lsn(void *user, uint64_t site_id, uint32_t lane)
{
    struct node_conn *conn = user;
    int origin = cfsr_inbox_lane_find_site(inbox_of(conn, lane), site_id);
    return origin < 0 ? 0 : cfsr_inbox_lane_staged(inbox_of(conn, lane), origin)->lsn;
}

/* ---- one batch ---- */

static int batch_key(struct node_conn *conn, uint32_t key_id, struct cfsr_mac_key **key_out)
{
    const struct cfsr_node_options *options = &conn->core->options;
    struct cfsr_mac_key *key;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(conn->key); i++) {
        if (conn->key[i] != NULL && conn->key_id[i] == key_id) {
            *key_out = conn->key[i];
            return 0;
        }
    }
    int rc = cfsr_session_batch_key(options->keyring, key_id, &options->site->cluster,
                                    conn->receiver.site_id, options->site->site_id, &key);
    if (rc < 0)
        return rc;
    cfsr_mac_key_destroy(conn->key[1]);
    conn->key[1] = conn->key[0];
    conn->key_id[1] = conn->key_id[0];
    conn->key[0] = key;
    conn->key_id[0] = key_id;
    *key_out = key;
    return 0;
}

/* The array of next seqs of this origin's shards in a lane. */
static uint64_t *seqs_of(const struct node_conn *conn, uint32_t lane)
{
    const struct cfsr_node_core *core = conn->core;
    return core->seqs + ((size_t)conn->peer * CFSR_LANES_MAX + lane) * core->seqs_per_lane;
}

static void forget_seqs(const struct node_conn *conn, uint32_t lane)
{
    memset(seqs_of(conn, lane), 0, sizeof(uint64_t) * conn->core->seqs_per_lane);
}

/* Entries at or above the LSN: all of them but for a frame that overlaps the cursor. */
static uint32_t entries_from(const struct cfsr_scan *scan, uint64_t from, uint64_t lsn_from)
{
    uint64_t lsn = lsn_from;
    uint32_t entries = 0;

    if (lsn_from >= from)
        return scan->entry_count;
    for (uint32_t at = 0; at < scan->raw_bytes;) {
        struct cfsr_record_header header;
        cfsr_record_header_load(scan->data + at, &header);
        if (lsn >= from && cfsr_record_is_entry(header.op))
            entries++;
        at += cfsr_record_wire_bytes(&header);
        lsn += cfsr_record_total_bytes(&header);
    }
    return entries;
}

/* Tag, digest, decompression, records: the order of law 7. */
static int check_batch(struct node_conn *conn, const struct cfsr_batch_header *header,
                       const uint8_t *prefix, bool overlaps, struct cfsr_scan *scan)
{
    struct cfsr_node_core *core = conn->core;
    const uint8_t *extension = prefix + CFSR_BATCH_PREFIX_BYTES;
    const uint8_t *body = extension + header->extension_bytes;
    const struct cfsr_site *site = core->options.site;
    uint64_t began = node_clock(core), verified, decoded;
    struct cfsr_mac_key *key;
    int rc = batch_key(conn, header->key_id, &key);

    if (rc == 0)
        rc = cfsr_batch_check_tag(key, prefix, extension, header->extension_bytes);
    if (rc == 0)
        rc = cfsr_batch_check_body(core->codec, header, body);
    if (rc < 0)
        return rc;
    verified = node_clock(core);
    rc = cfsr_batch_decode(core->codec, header, body, core->scratch, CFSR_NODE_SCRATCH_BYTES);
    if (rc < 0)
        return rc;
    decoded = node_clock(core);
    if (overlaps)
        forget_seqs(conn, header->lane);
    *scan = (struct cfsr_scan){
        .data = core->scratch,
        .len_bytes = header->original_bytes,
        .wire_form = true,
        .lsn = header->lsn_from,
        .segment_bytes = site->segment_bytes,
        .seed = cfsr_record_seed(&header->journal),
        .site_id = header->site_id,
        .lane = header->lane,
        .lanes = site->lanes,
        .shards = site->shards,
        .next_seq = seqs_of(conn, header->lane),
    };
    rc = cfsr_record_scan(scan);
    if (rc == 0 && (scan->record_count == 0 || scan->raw_bytes != header->original_bytes ||
                    scan->next_lsn != header->lsn_to || scan->entry_count != header->entry_count))
        rc = -CFSR_E_BAD_FRAME; /* the prefix is signed, so this is a fault of the origin */
    if (rc < 0)
        forget_seqs(conn, header->lane);
    cfsr_histogram_record(&core->stages.verify, verified - began);
    cfsr_histogram_record(&core->stages.decode, decoded - verified);
    cfsr_histogram_record(&core->stages.check, node_clock(core) - decoded);
    return rc;
}

static void observe_clock(struct cfsr_node_core *core, uint64_t timestamp_us)
{
    if (core->env.page != NULL && timestamp_us <= core->wall_us + CLOCK_SKEW_MAX_US)
        cfsr_hlc_observe(cfsr_status_page_hlc(core->env.page), timestamp_us);
}

/* frame: the span, whose link header makes room for the inbox's own where it is not copied. */
static void store_batch(struct node_conn *conn, const struct cfsr_batch_header *header,
                        uint8_t *frame, const struct cfsr_scan *scan, uint32_t entries)
{
    struct cfsr_node_core *core = conn->core;
    struct cfsr_inbox_lane *inbox = core->stores[header->lane]->inbox;
    /* Of the batch as it is signed: it may have travelled sealed, and longer. */
    uint32_t batch_bytes = CFSR_BATCH_PREFIX_BYTES + header->extension_bytes + header->stored_bytes;

    if (!conn->in_place) {
        cfsr_inbox_lane_put(inbox, header, frame + CFSR_LINK_HEADER_BYTES, batch_bytes, &scan->last,
                            entries, core->wall_us, core->now_ns);
        return;
    }
    cfsr_inbox_lane_put_in_place(inbox, header, frame, node_lend(conn), batch_bytes, &scan->last,
                                 entries, core->wall_us, core->now_ns);
    cfsr_counter_add(&core->counters.inbox_direct_batches, 1);
    cfsr_counter_add(&core->counters.inbox_direct_bytes, batch_bytes);
}

static void take_batch(struct node_conn *conn, const struct cfsr_link_header *link, uint8_t *frame)
{
    struct cfsr_node_core *core = conn->core;
    const uint8_t *prefix = frame + CFSR_LINK_HEADER_BYTES;
    struct cfsr_batch_header header;
    struct cfsr_scan scan;
    enum cfsr_admission admission = cfsr_receiver_admit(&conn->receiver, core->now_ns, link, frame,
                                                        staged_lsn, &header, &core->outbox);

    if (admission == CFSR_ADMIT_REFUSE) {
        cfsr_counter_add(&core->counters.bad_frames, 1);
        return;
    }
    cfsr_counter_add(&core->counters.batches_received, 1);
    cfsr_counter_add(&core->counters.wire_bytes_received,
                     CFSR_LINK_HEADER_BYTES + (uint64_t)link->length_bytes);
    if (admission == CFSR_ADMIT_DUPLICATE) {
        cfsr_counter_add(&core->counters.duplicate_batches, 1);
        return;
    }
    if (conn->peer < 0) /* its first frame: the take-over action is still in the outbox */
        conn->peer = peer_of(core, header.site_id);
    uint64_t staged = staged_lsn(conn, header.site_id, header.lane);
    int rc = check_batch(conn, &header, prefix, header.lsn_from < staged, &scan);
    if (rc == 0) {
        rc = cfsr_inbox_lane_origin(inbox_of(conn, header.lane), header.site_id, &header.journal);
        if (rc >= 0 && cfsr_inbox_lane_staged(inbox_of(conn, header.lane), rc)->lsn != staged)
            rc = -CFSR_E_JOURNAL_CHANGED; /* another connection has begun with another journal since
                                             our HELLO */
    }
    if (rc < 0) {
        cfsr_counter_add(&core->counters.bad_frames, 1);
        cfsr_receiver_reject(&conn->receiver, core->now_ns, rc, cfsr_strerror(rc), &core->outbox);
        return;
    }
    struct node_store *store = core->stores[header.lane];
    uint32_t entries = entries_from(&scan, staged, header.lsn_from);
    store_batch(conn, &header, frame, &scan, entries);
    core->batch_ns = core->now_ns;
    core->receiving_bulk = (link->flags & CFSR_FRAME_ACK_NOW) == 0;
    store->ack_now = store->ack_now || !core->receiving_bulk;
    observe_clock(core, scan.max_timestamp_us);
    cfsr_counter_add(&core->counters.raw_bytes_received, scan.raw_bytes);
    cfsr_counter_add(&core->counters.entries_received, entries);
}

/* Where a BATCH would go, read before anything is trusted: it only chooses whose room is asked for.
 */
static bool has_room(struct node_conn *conn, const struct cfsr_link_header *link,
                     const uint8_t *frame)
{
    struct cfsr_node_core *core = conn->core;
    uint16_t lane = cfsr_load_le16(frame + CFSR_LINK_HEADER_BYTES + 8);

    if (!node_owns(core, lane) || conn->receiver.state == CFSR_RECEIVER_WAIT_HELLO)
        return true; /* about to be refused */
    conn->in_place = link->length_bytes >= CFSR_NODE_DIRECT_BYTES && node_can_lend(conn) &&
                     node_store_room_in_place(core->stores[lane], link->length_bytes);
    return conn->in_place || node_store_room(core->stores[lane], link->length_bytes);
}

/* ---- transport upcalls ---- */

/* True if the frame was taken. */
static bool take_frame(struct node_conn *conn, const struct cfsr_link_header *header,
                       uint8_t *frame)
{
    struct cfsr_node_core *core = conn->core;

    if (node_control_free(&conn->control) < CFSR_NODE_CONTROL_RESERVE) {
        cfsr_counter_add(&core->counters.stall_no_control_slot, 1);
        conn->waiting = true;
        return false;
    }
    if (header->type == CFSR_FRAME_BATCH) {
        if (!has_room(conn, header, frame)) {
            conn->waiting = true;
            return false;
        }
        take_batch(conn, header, frame);
    } else {
        uint64_t refused = conn->receiver.counters.refused;
        cfsr_receiver_on_frame(&conn->receiver, core->now_ns, core->wall_us, header, frame,
                               &core->outbox);
        if (header->type == CFSR_FRAME_REPLY && conn->receiver.counters.refused != refused)
            cfsr_counter_add(&core->counters.bad_frames, 1);
    }
    node_conn_execute(conn);
    return true;
}

static size_t on_data(void *user, struct cfsr_conn *transport_conn, uint8_t *span, size_t len_bytes)
{
    struct node_conn *conn = user;
    struct cfsr_node_core *core = conn->core;
    size_t taken = 0;

    CFSR_ASSERT(conn->conn == transport_conn);

    while (taken < len_bytes) {
        struct cfsr_link_header header;
        int rc = conn->receiver.state == CFSR_RECEIVER_CLOSING
                     ? -CFSR_E_SHUTDOWN
                     : node_path_frame(conn->path, span + taken, len_bytes - taken, &header);
        if (rc == -EAGAIN)
            break;
        if (rc == 0 && !cfsr_receiver_expects(&conn->receiver, header.type, header.length_bytes))
            rc = -CFSR_E_BAD_FRAME; /* before its bytes are waited for */
        if (rc < 0) {
            taken = len_bytes; /* nothing of a connection that ends is looked at */
            if (conn->receiver.state != CFSR_RECEIVER_CLOSING) {
                cfsr_counter_add(&core->counters.bad_frames, 1);
                cfsr_receiver_reject(&conn->receiver, core->now_ns, rc, cfsr_strerror(rc),
                                     &core->outbox);
                node_conn_execute(conn);
            }
            break;
        }
        size_t frame_bytes = CFSR_LINK_HEADER_BYTES + (size_t)header.length_bytes;
        if (len_bytes - taken < frame_bytes || !take_frame(conn, &header, span + taken))
            break;
        taken += frame_bytes;
    }
    if (taken > 0)
        node_conn_took(conn, taken);
    return taken;
}

static void on_connected(void *user, struct cfsr_conn *transport_conn)
{
    (void)user;
    (void)transport_conn; /* the dialer speaks first */
}

static void on_sent(void *user, struct cfsr_conn *transport_conn, uint64_t cookie)
{
    struct node_conn *conn = user;
    if (cookie == NODE_COOKIE_REPLY) {
        node_server_sent(conn->core);
        return;
    }
    node_control_sent(&conn->control, cookie);
    if (conn->waiting) {
        conn->waiting = false;
        conn->path->transport->recv_resume(transport_conn);
    }
}

static void on_writable(void *user, struct cfsr_conn *transport_conn)
{
    (void)user;
    (void)transport_conn; /* only control frames leave here, and their slots bound them */
}

static void on_closed(void *user, struct cfsr_conn *transport_conn, int reason)
{
    struct node_conn *conn = user;
    struct cfsr_node_core *core = conn->core;
    const struct cfsr_receiver *receiver = &conn->receiver;
    int why = receiver->last_reason != 0 ? receiver->last_reason : reason;

    CFSR_ASSERT(conn->conn == transport_conn && conn->control.busy == 0);
    if (receiver->counters.refused > 0)
        cfsr_counter_add(&core->counters.refused_in, 1);
    if (!core->draining && why != -CFSR_E_WRONG_CORE)
        cfsr_log(receiver->counters.refused > 0 ? CFSR_LOG_ERROR : CFSR_LOG_INFO,
                 receiver->counters.refused > 0 ? "connection_refused" : "connection_closed",
                 CFSR_U("peer", receiver->site_id != 0 ? receiver->site_id
                                                       : receiver->session.hello.site_id),
                 CFSR_U("core", core->options.core), CFSR_S("reason", cfsr_error_name(why)));
    node_queries_closed(core, (struct node_channel){.conn = conn, .attempt = conn->attempt});
    cfsr_receiver_fini(&conn->receiver);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(conn->key); i++) {
        cfsr_mac_key_destroy(conn->key[i]);
        conn->key[i] = NULL;
    }
    node_lender_closed(conn);
    conn->conn = NULL;
    conn->in_use = false;
    core->conns_in_use--;
}

static const struct cfsr_conn_events conn_events = {
    .on_connected = on_connected,
    .on_data = on_data,
    .on_sent = on_sent,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

/* ---- actions ---- */

/* This connection has proven itself: older ones for its lanes end. */
static void take_over(struct node_conn *winner)
{
    struct cfsr_node_core *core = winner->core;
    const struct cfsr_receiver *mine = &winner->receiver;

    winner->peer = peer_of(core, mine->site_id);
    CFSR_ASSERT(winner->peer >= 0);
    for (uint32_t i = 0; i < core->conn_count; i++) {
        struct node_conn *conn = &core->conns[i];
        if (!conn->in_use || conn == winner || conn->receiver.site_id != mine->site_id ||
            (conn->receiver.lane_mask & mine->lane_mask) == 0 ||
            conn->receiver.state != CFSR_RECEIVER_RUNNING)
            continue;
        struct cfsr_outbox *out = &core->outbox;
        unsigned first = out->count;
        cfsr_receiver_stop(&conn->receiver, core->now_ns, -CFSR_E_SUPERSEDED, out);
        for (unsigned k = first; k < out->count; k++) {
            const struct cfsr_action *action = &out->item[k];
            if (action->type == CFSR_ACTION_SEND_FRAME && node_control_free(&conn->control) > 0)
                node_control_send(conn->path, &conn->control, conn->conn, action->frame,
                                  action->frame_bytes);
            else if (action->type == CFSR_ACTION_CLOSE)
                conn->path->transport->close(conn->conn, true);
        }
        out->count = first;
    }
    cfsr_log(CFSR_LOG_INFO, "connection_up", CFSR_U("peer", mine->site_id),
             CFSR_S("peer_name", core->options.peers[winner->peer].name),
             CFSR_U("core", core->options.core),
             CFSR_U("lanes", (uint64_t)__builtin_popcountll(mine->lane_mask)));
    node_scrub_on_peer(core);
}

void node_conn_execute(struct node_conn *conn)
{
    struct cfsr_node_core *core = conn->core;
    struct cfsr_outbox *out = &core->outbox;
    bool took_over = false;

    for (unsigned i = 0; i < out->count; i++) {
        const struct cfsr_action *action = &out->item[i];
        switch (action->type) {
        case CFSR_ACTION_SEND_FRAME:
            node_control_send(conn->path, &conn->control, conn->conn, action->frame,
                              action->frame_bytes);
            break;
        case CFSR_ACTION_CLOSE: conn->path->transport->close(conn->conn, true); break;
        case CFSR_ACTION_TAKE_OVER:
            take_over(conn);
            took_over = true;
            break;
        case CFSR_ACTION_SERVE: core->queries_waiting = true; break;
        case CFSR_ACTION_ANSWER:
            node_scrub_answered(core, 0, &conn->receiver.queries.answer);
            break;
        default: CFSR_ASSERT(false);
        }
    }
    out->count = 0;
    /* The older connections stage nothing any more. A farewell, if it comes to that, follows what
     * was sent above. */
    if (took_over && conn->receiver.state == CFSR_RECEIVER_RUNNING &&
        !cfsr_receiver_confirm(&conn->receiver, core->now_ns, staged_lsn, conn, out))
        node_conn_execute(conn);
}

int node_conn_reply(struct node_conn *conn, void *bytes, uint32_t payload_bytes)
{
    struct cfsr_node_core *core = conn->core;
    uint32_t frame_bytes = cfsr_receiver_reply(&conn->receiver, bytes, payload_bytes);
    struct cfsr_frame out = {
        .pieces = {{.iov_base = bytes, .iov_len = frame_bytes}},
        .count = 1,
        .cookie = NODE_COOKIE_REPLY,
    };

    if (frame_bytes == 0)
        return -ENOTCONN;
    /* Nothing else of this direction is data: there is room, or the connection is closing. */
    if (conn->path->transport->send(conn->conn, CFSR_STREAM_DATA, &out, 1) == 1)
        return 0;
    cfsr_receiver_abort(&conn->receiver, -EIO, &core->outbox);
    node_conn_execute(conn);
    return -ENOTCONN;
}

/* Also one who is being shown out; the one that has had most of its time. */
void node_conns_evict(struct cfsr_node_core *core, const struct cfsr_node_path *path)
{
    unsigned count = core->outbox.count;
    struct node_conn *oldest = NULL;

    for (uint32_t i = 0; i < core->conn_count; i++) {
        struct node_conn *conn = &core->conns[i];
        if (conn->in_use && !conn->evicted && conn->receiver.state != CFSR_RECEIVER_RUNNING &&
            (path == NULL || conn->path == path) &&
            (oldest == NULL || conn->receiver.deadline_ns < oldest->receiver.deadline_ns))
            oldest = conn;
    }
    if (oldest == NULL)
        return;
    oldest->evicted = true;
    cfsr_receiver_abort(&oldest->receiver, -CFSR_E_POOL_EMPTY, &core->outbox);
    core->outbox.count = count;
    oldest->path->transport->close(oldest->conn, false);
}

void cfsr_node_core_accept(struct cfsr_node_core *core, enum cfsr_path from,
                           struct cfsr_incoming *incoming, uint64_t now_ns)
{
    const struct cfsr_node_path *path = &core->env.path[from];
    struct node_conn *conn = NULL;
    uint8_t nonce[32];

    if (core->conn_count - core->conns_in_use < CONNS_RESERVE)
        node_conns_evict(core, NULL);
    for (uint32_t i = 0; i < core->conn_count && conn == NULL; i++)
        if (!core->conns[i].in_use)
            conn = &core->conns[i];
    if (conn == NULL || core->draining) {
        path->transport->incoming_discard(incoming);
        return;
    }
    struct cfsr_receiver_options options = {
        .local = &core->local,
        .env = {.user = conn,
                .is_known_site = is_known_site,
                .cursor = cursor,
                .journal_of = journal_of},
        .owned_mask = core->lane_mask,
        .hello_timeout_ns = core->options.hello_timeout_ns,
        .idle_timeout_ns = core->options.progress_timeout_ns,
        .heartbeat_ns = core->options.heartbeat_ns,
        .ack_mode = core->options.ack_written ? 1 : 0,
    };
    core->env.random(core->env.user, nonce, sizeof nonce);
    if (cfsr_receiver_init(&conn->receiver, &options, nonce, now_ns) < 0) {
        path->transport->incoming_discard(incoming);
        return;
    }
    conn->path = path;
    conn->attempt++;
    conn->peer = -1;
    conn->waiting = false;
    conn->evicted = false;
    int rc = path->transport->accept(path->group, incoming, &conn_events, conn, &conn->conn);
    if (rc < 0) {
        cfsr_receiver_fini(&conn->receiver);
        if (rc == -CFSR_E_POOL_EMPTY) /* its receive memory: who dials again finds some */
            node_conns_evict(core, path);
        return;
    }
    conn->in_use = true;
    core->conns_in_use++;
}

/* ---- turns ---- */

/* Durable cursors that moved become acks. */
static void collect_durable(struct node_conn *conn)
{
    struct cfsr_node_core *core = conn->core;
    struct cfsr_receiver *receiver = &conn->receiver;

    for (uint32_t lane = 0; lane < core->options.site->lanes; lane++) {
        struct node_store *store = core->stores[lane];
        if ((receiver->lane_mask >> lane & 1) == 0 || store == NULL || !store->moved)
            continue;
        int origin = cfsr_inbox_lane_find_site(store->inbox, receiver->site_id);
        if (origin < 0)
            continue;
        const struct cfsr_inbox_cursor *durable = cfsr_inbox_lane_durable(store->inbox, origin);
        cfsr_receiver_on_durable(receiver, lane, durable->lsn, durable->entries);
    }
}

static unsigned turn(struct node_conn *conn)
{
    struct cfsr_node_core *core = conn->core;
    unsigned work = 0;

    if (conn->waiting && core->room_moved) {
        conn->waiting = false;
        conn->path->transport->recv_resume(conn->conn);
        work++;
    }
    /* Our stall, not that of a peer that reads none of our answers. */
    if (conn->waiting && node_control_free(&conn->control) >= CFSR_NODE_CONTROL_RESERVE)
        cfsr_receiver_on_stalled(&conn->receiver, core->now_ns);
    collect_durable(conn);
    if (node_control_free(&conn->control) < CFSR_NODE_CONTROL_RESERVE) {
        if (core->now_ns >= cfsr_receiver_next_deadline(&conn->receiver)) {
            cfsr_receiver_tick_blocked(&conn->receiver, core->now_ns, &core->outbox);
            node_conn_execute(conn);
        }
        return work;
    }
    if (cfsr_receiver_flush_acks(&conn->receiver, core->now_ns, core->inbox_full ? 100 : 0,
                                 &core->outbox)) {
        cfsr_counter_add(&core->counters.acks_sent, 1);
        work++;
    }
    node_conn_execute(conn);
    if (core->now_ns >= cfsr_receiver_next_deadline(&conn->receiver) &&
        node_control_free(&conn->control) >= CFSR_NODE_CONTROL_RESERVE) {
        cfsr_receiver_tick(&conn->receiver, core->now_ns, core->wall_us, &core->outbox);
        node_conn_execute(conn);
    }
    return work;
}

unsigned node_conns_turn(struct cfsr_node_core *core)
{
    unsigned work = 0;

    for (uint32_t i = 0; i < core->conn_count && core->conns_in_use > 0; i++)
        if (core->conns[i].in_use)
            work += turn(&core->conns[i]);
    core->room_moved = false;
    for (uint32_t lane = 0; lane < core->options.site->lanes; lane++)
        if (core->stores[lane] != NULL)
            core->stores[lane]->moved = false;
    return work;
}

uint64_t node_conns_deadline(const struct cfsr_node_core *core)
{
    uint64_t deadline = UINT64_MAX;
    for (uint32_t i = 0; i < core->conn_count && core->conns_in_use > 0; i++)
        if (core->conns[i].in_use)
            deadline = cfsr_min_u64(deadline,
                                    cfsr_receiver_next_deadline(&core->conns[i].receiver));
    return deadline;
}

void node_conns_drop_lane(struct cfsr_node_core *core, uint32_t lane, int reason)
{
    for (uint32_t i = 0; i < core->conn_count; i++) {
        struct node_conn *conn = &core->conns[i];
        if (!conn->in_use || conn->receiver.state == CFSR_RECEIVER_CLOSING ||
            (conn->receiver.lane_mask >> lane & 1) == 0)
            continue;
        if (node_control_free(&conn->control) < CFSR_NODE_CONTROL_RESERVE)
            cfsr_receiver_abort(&conn->receiver, reason, &core->outbox);
        else
            cfsr_receiver_stop(&conn->receiver, core->now_ns, reason, &core->outbox);
        node_conn_execute(conn);
    }
}

void node_conns_drain(struct cfsr_node_core *core)
{
    for (uint32_t i = 0; i < core->conn_count; i++) {
        struct node_conn *conn = &core->conns[i];
        if (!conn->in_use || conn->receiver.state == CFSR_RECEIVER_CLOSING)
            continue;
        if (node_control_free(&conn->control) < CFSR_NODE_CONTROL_RESERVE)
            cfsr_receiver_abort(&conn->receiver, -CFSR_E_SHUTDOWN, &core->outbox);
        else
            cfsr_receiver_stop(&conn->receiver, core->now_ns, -CFSR_E_SHUTDOWN, &core->outbox);
        node_conn_execute(conn);
    }
}

int node_conns_create(struct cfsr_node_core *core)
{
    core->conn_count = cfsr_node_accepts_max(&core->options);
    core->conns = calloc(core->conn_count, sizeof *core->conns);
    core->seqs_per_lane = (core->options.site->shards + core->options.site->lanes - 1) /
                          core->options.site->lanes;
    core->seqs = calloc((size_t)core->options.peer_count * CFSR_LANES_MAX,
                        sizeof(uint64_t) * core->seqs_per_lane);
    if (core->conns == NULL || (core->seqs == NULL && core->options.peer_count > 0))
        return -ENOMEM;
    for (uint32_t i = 0; i < core->conn_count; i++) {
        core->conns[i].core = core;
        int rc = node_control_create(core, &core->conns[i].control);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void node_conns_destroy(struct cfsr_node_core *core)
{
    CFSR_ASSERT(core->conns_in_use == 0);
    free(core->conns);
    free(core->seqs);
    core->conns = NULL;
    core->seqs = NULL;
}
