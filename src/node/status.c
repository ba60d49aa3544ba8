/* status.c - snapshots of a core for operators. Runs on the core between turns; copies, decides
 * nothing. */
#include "node/internal.h"

#include <stdio.h>
#include <string.h>

static void fill_link(const struct node_link *link, struct cfsr_node_link_status *out)
{
    const struct cfsr_sender *sender = &link->sender;
    const char *reason;

    memset(out, 0, sizeof *out);
    out->peer_site_id = sender->options.peer_site_id;
    out->state = cfsr_sender_link_state(sender, &reason);
    snprintf(out->reason, sizeof out->reason, "%s", reason);
    snprintf(out->detail, sizeof out->detail, "%s", sender->last_detail);
    out->caught_up = cfsr_sender_is_caught_up(sender);
    out->caught_up_ns = link->caught_up_ns;
    out->peer_core = link->peer_core;
    out->path = cfsr_route_path(&link->route);
    out->path_reason = link->route.reason;
    out->route = link->route.counters;
    out->in_flight_bytes = sender->in_flight_bytes;
    out->rtt_us = sender->rtt_us;
    out->clock_offset_us = sender->peer_clock_offset_us;
    out->clock_offset_known = sender->peer_clock_offset_valid;
    out->peer_ack_mode = sender->peer_ack_mode;
    out->peer_backpressure_pct = sender->peer_backpressure_pct;
    out->fault_lsn = sender->fault_lsn;
    out->fault_lane = sender->fault_lane;
    out->counters = sender->counters;
    for (uint32_t lane = 0; lane < CFSR_LANES_MAX; lane++) {
        const struct cfsr_sender_lane *l = &sender->lane[lane];
        if ((sender->options.lane_mask >> lane & 1) == 0)
            continue;
        out->lane[out->lane_count++] = (struct cfsr_node_lane_status){
            .lane = lane,
            .head_lsn = link->core->head_lsn[lane],
            .head_entries = link->core->head_entries[lane],
            .sent_lsn = l->next_lsn,
            .acked_lsn = l->acked_lsn,
            .acked_entries = l->acked_entries,
            .known = l->known && sender->state == CFSR_SENDER_RUNNING,
        };
    }
}

static void fill_in(const struct cfsr_node_core *core, uint32_t peer, uint32_t lane,
                    struct cfsr_node_in_status *out)
{
    const struct cfsr_inbox_lane *inbox = core->stores[lane]->inbox;
    uint64_t site_id = core->options.peers[peer].site_id;
    int origin = cfsr_inbox_lane_find_site(inbox, site_id);

    *out = (struct cfsr_node_in_status){
        .site_id = site_id, .lane = lane, .failed = cfsr_inbox_lane_failed(inbox)};
    if (origin >= 0) {
        out->durable_lsn = cfsr_inbox_lane_durable(inbox, origin)->lsn;
        out->entries = cfsr_inbox_lane_durable(inbox, origin)->entries;
        out->staged_lsn = cfsr_inbox_lane_staged(inbox, origin)->lsn;
    }
    for (uint32_t i = 0; i < core->conn_count; i++) {
        const struct node_conn *conn = &core->conns[i];
        if (conn->in_use && conn->receiver.site_id == site_id &&
            conn->receiver.state == CFSR_RECEIVER_RUNNING &&
            (conn->receiver.lane_mask >> lane & 1) != 0) {
            out->connected = true;
            out->head_lsn = conn->receiver.head_lsn[lane];
            out->head_entries = conn->receiver.head_entries[lane];
        }
    }
}

static void fill_scrub(const struct cfsr_node_core *core, struct cfsr_node_scrub_status *out)
{
    const struct cfsr_scrub *scrub = &core->scrub.machine;
    uint32_t kept = scrub->finding_count < CFSR_SCRUB_FINDINGS_MAX ? scrub->finding_count
                                                                   : CFSR_SCRUB_FINDINGS_MAX;

    out->running = scrub->running;
    out->run_finished = scrub->run_finished;
    out->lane_mask = core->lane_mask;
    memcpy(out->lane, scrub->lane, sizeof out->lane);
    out->finding_count = kept;
    for (uint32_t i = 0; i < kept; i++)
        out->finding[i] =
            scrub->finding[(scrub->finding_count - kept + i) % CFSR_SCRUB_FINDINGS_MAX];
}

void cfsr_node_core_status(const struct cfsr_node_core *core, struct cfsr_node_status *status_out)
{
    status_out->link_count = 0;
    status_out->in_count = 0;
    status_out->connections_in = core->conns_in_use;
    fill_scrub(core, &status_out->scrub);
    for (uint32_t i = 0; i < core->link_count && status_out->link_count < CFSR_NODE_LINKS_MAX; i++)
        if (core->links[i].in_use && !core->links[i].retiring && !core->links[i].challenger)
            fill_link(&core->links[i], &status_out->link[status_out->link_count++]);
    for (uint32_t peer = 0; peer < core->options.peer_count; peer++)
        for (uint32_t lane = 0; lane < core->options.site->lanes; lane++)
            if (core->stores[lane] != NULL && status_out->in_count < CFSR_NODE_INS_MAX)
                fill_in(core, peer, lane, &status_out->in[status_out->in_count++]);
}
