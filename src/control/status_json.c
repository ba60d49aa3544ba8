/*
 * status_json.c - builds the status document (status_json.h) from the cores' reports. Control
 * thread only; pure but for malloc.
 *
 * A peer's links (one per core of ours and core of theirs) are merged into one entry: the worst
 * state, the sums of lags.
 */
#include "control/status_json.h"

#include "control/scrub_json.h"

#include <stdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/units.h"
#include "journal/gc.h"
#include <cfsrepl/version.h>

/* Worst first: the order in which states hide each other. */
static const enum cfsr_link_state severity[] = {
    CFSR_LINK_FAULTED, CFSR_LINK_FENCED,  CFSR_LINK_STALLED,   CFSR_LINK_BOOTSTRAP,
    CFSR_LINK_PAUSED,  CFSR_LINK_CATCHUP, CFSR_LINK_STREAMING,
};

static unsigned rank_of(enum cfsr_link_state state)
{
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(severity); i++)
        if (severity[i] == state)
            return i;
    return 0;
}

/* One peer over all cores. */
struct merged_link {
    unsigned rank;
    const struct cfsr_node_link_status *worst;
    unsigned connections, links;
    bool caught_up, known;
    uint64_t lag_entries, lag_bytes, in_flight_bytes, rtt_us, oldest_caught_up_ns;
    bool ever_caught_up;
    const struct cfsr_node_link_status *clock;
    enum cfsr_path path; /* RDMA only if all links take it */
    int path_reason;
    struct cfsr_route_counters route;
};

static void merge_path(struct merged_link *merged, const struct cfsr_node_link_status *link)
{
    if (merged->links == 0 || link->path == CFSR_PATH_TCP)
        merged->path = link->path;
    if (merged->path_reason == 0)
        merged->path_reason = link->path_reason;
    merged->route.fallbacks += link->route.fallbacks;
    merged->route.returns += link->route.returns;
}

static void merge_link(struct merged_link *merged, const struct cfsr_node_link_status *link,
                       json_t *lanes)
{
    unsigned rank = rank_of(link->state);

    if (merged->worst == NULL || rank < merged->rank) {
        merged->rank = rank;
        merged->worst = link;
    }
    merge_path(merged, link);
    merged->links++;
    merged->connections += link->state != CFSR_LINK_STALLED && link->state != CFSR_LINK_FAULTED;
    merged->caught_up = merged->caught_up && link->caught_up;
    merged->in_flight_bytes += link->in_flight_bytes;
    merged->rtt_us = link->rtt_us > merged->rtt_us ? link->rtt_us : merged->rtt_us;
    if (link->caught_up_ns == 0)
        merged->ever_caught_up = false;
    else if (link->caught_up_ns < merged->oldest_caught_up_ns)
        merged->oldest_caught_up_ns = link->caught_up_ns;
    if (link->clock_offset_known)
        merged->clock = link;
    for (uint32_t i = 0; i < link->lane_count; i++) {
        const struct cfsr_node_lane_status *l = &link->lane[i];
        merged->known = merged->known && l->known;
        merged->lag_bytes += l->head_lsn > l->acked_lsn ? l->head_lsn - l->acked_lsn : 0;
        merged->lag_entries += l->head_entries > l->acked_entries
                                   ? l->head_entries - l->acked_entries
                                   : 0;
        json_array_append_new(
            lanes, json_pack("{s:I,s:I,s:I,s:I,s:I,s:I}", "lane", (json_int_t)l->lane, "head",
                             (json_int_t)l->head_lsn, "sent", (json_int_t)l->sent_lsn, "acked",
                             (json_int_t)l->acked_lsn, "entries", (json_int_t)l->head_entries,
                             "acked_entries", (json_int_t)l->acked_entries));
    }
}

static json_t *known_or_null(bool known, uint64_t value)
{
    return known ? json_integer((json_int_t)value) : json_null();
}

static json_t *lag_seconds(const struct cfsr_status_input *input, const struct merged_link *merged)
{
    if (merged->caught_up)
        return json_real(0.0);
    /* Everything was acked then: no unacked byte is older, so this is never below the truth. */
    if (merged->ever_caught_up && merged->known)
        return json_real((double)(input->now_ns - merged->oldest_caught_up_ns) / 1e9);
    return json_null();
}

static void add_path(json_t *link, const struct merged_link *merged)
{
    json_object_set_new(link, "transport_reason",
                        merged->path_reason != 0 ? json_string(cfsr_error_name(merged->path_reason))
                                                 : json_null());
    json_object_set_new(link, "transport_fallbacks",
                        json_integer((json_int_t)merged->route.fallbacks));
    json_object_set_new(link, "transport_returns", json_integer((json_int_t)merged->route.returns));
}

static json_t *link_json(const struct cfsr_status_input *input, const struct cfsr_peer_config *peer,
                         unsigned *worst)
{
    struct merged_link merged = {.caught_up = true,
                                 .known = true,
                                 .ever_caught_up = true,
                                 .oldest_caught_up_ns = UINT64_MAX};
    json_t *lanes = json_array();
    json_t *link;

    for (uint32_t r = 0; r < input->report_count; r++)
        for (uint32_t i = 0; i < input->reports[r].node.link_count; i++)
            if (input->reports[r].node.link[i].peer_site_id == peer->site_id)
                merge_link(&merged, &input->reports[r].node.link[i], lanes);
    if (merged.worst == NULL) {
        merged.caught_up = false;
        merged.known = false;
    }
    if (merged.worst != NULL && merged.rank < *worst)
        *worst = merged.rank;
    link = json_pack(
        "{s:I,s:s,s:s,s:s,s:s,s:s,s:s,s:b,s:s,s:I,s:o,s:o,s:o,s:I,s:I,s:o,s:o}", "peer",
        (json_int_t)peer->site_id, "name", peer->name, "endpoint", peer->endpoint[merged.path],
        "transport", cfsr_path_name(merged.path), "state",
        merged.worst != NULL ? cfsr_link_state_name(merged.worst->state) : "STALLED", "reason",
        merged.worst != NULL ? merged.worst->reason : "starting", "detail",
        merged.worst != NULL ? merged.worst->detail : "", "caught_up", merged.caught_up ? 1 : 0,
        "ack_mode",
        merged.worst != NULL && merged.worst->peer_ack_mode == 1 ? "written" : "durable",
        "connections", (json_int_t)merged.connections, "lag_entries",
        known_or_null(merged.known, merged.lag_entries), "lag_bytes",
        known_or_null(merged.known, merged.lag_bytes), "lag_seconds", lag_seconds(input, &merged),
        "in_flight_bytes", (json_int_t)merged.in_flight_bytes, "rtt_us", (json_int_t)merged.rtt_us,
        "clock_offset_us",
        merged.clock != NULL ? json_integer((json_int_t)merged.clock->clock_offset_us)
                             : json_null(),
        "lanes", lanes);
    int index = cfsr_status_page_find_peer(input->page, peer->site_id);
    if (link != NULL)
        add_path(link, &merged);
    if (link != NULL)
        json_object_set_new(
            link, "detached",
            json_boolean(index >= 0 && cfsr_status_page_detached(input->page, index)));
    if (link != NULL && merged.worst != NULL && merged.worst->state == CFSR_LINK_FAULTED) {
        json_object_set_new(link, "fault_lane", json_integer((json_int_t)merged.worst->fault_lane));
        json_object_set_new(link, "fault_lsn", json_integer((json_int_t)merged.worst->fault_lsn));
    }
    return link;
}

static json_t *incoming_json(const struct cfsr_status_input *input,
                             const struct cfsr_peer_config *peer)
{
    json_t *lanes = json_array();
    bool connected = true, any = false;
    uint64_t lag_entries = 0;

    for (uint32_t r = 0; r < input->report_count; r++) {
        for (uint32_t i = 0; i < input->reports[r].node.in_count; i++) {
            const struct cfsr_node_in_status *in = &input->reports[r].node.in[i];
            if (in->site_id != peer->site_id)
                continue;
            any = true;
            connected = connected && in->connected;
            lag_entries += in->head_entries > in->entries ? in->head_entries - in->entries : 0;
            json_array_append_new(
                lanes, json_pack("{s:I,s:I,s:I,s:I,s:I,s:b}", "lane", (json_int_t)in->lane,
                                 "durable", (json_int_t)in->durable_lsn, "staged",
                                 (json_int_t)in->staged_lsn, "entries", (json_int_t)in->entries,
                                 "head", (json_int_t)in->head_lsn, "failed", in->failed ? 1 : 0));
        }
    }
    return json_pack("{s:I,s:s,s:b,s:o,s:o}", "site", (json_int_t)peer->site_id, "name", peer->name,
                     "connected", any && connected ? 1 : 0, "lag_entries",
                     known_or_null(any && connected, lag_entries), "lanes", lanes);
}

static json_t *site_json(const struct cfsr_site *site)
{
    char cluster[CFSR_UUID_TEXT_LEN], journal[CFSR_UUID_TEXT_LEN];

    cfsr_uuid_format(&site->cluster, cluster);
    cfsr_uuid_format(&site->journal, journal);
    return json_pack("{s:I,s:s,s:s,s:s,s:I,s:I}", "id", (json_int_t)site->site_id, "name",
                     site->name, "cluster", cluster, "journal", journal, "lanes",
                     (json_int_t)site->lanes, "shards", (json_int_t)site->shards);
}

static json_t *journal_json(const struct cfsr_status_input *input)
{
    json_t *journal = json_array();
    for (uint32_t lane = 0; lane < input->site->lanes; lane++) {
        uint64_t committed = cfsr_status_page_committed(input->page, lane);
        json_array_append_new(
            journal, json_pack("{s:I,s:o,s:I}", "lane", (json_int_t)lane, "committed",
                               known_or_null(committed != CFSR_LSN_UNKNOWN, committed), "entries",
                               (json_int_t)cfsr_status_page_entries(input->page, lane)));
    }
    return journal;
}

static json_t *retention_json(const struct cfsr_status_input *input)
{
    struct cfsr_page_retention retention;

    cfsr_status_page_retention(input->page, &retention);
    return json_pack("{s:s,s:I,s:o}", "pressure",
                     cfsr_gc_pressure_name((enum cfsr_gc_pressure_level)retention.pressure),
                     "journal_bytes", (json_int_t)retention.journal_bytes, "cap_bytes",
                     known_or_null(retention.cap_bytes != 0, retention.cap_bytes));
}

static void add_counter(json_t *object, const char *name, uint64_t value)
{
    json_t *old = json_object_get(object, name);
    json_object_set_new(object, name, json_integer(json_integer_value(old) + (json_int_t)value));
}

static json_t *counters_json(const struct cfsr_status_input *input)
{
    json_t *counters = json_object();
    for (uint32_t r = 0; r < input->report_count; r++) {
        const struct cfsr_node_counters *c = input->reports[r].counters;
#define X(name) add_counter(counters, #name, cfsr_counter_get(&c->name));
        CFSR_NODE_COUNTERS(X)
#undef X
    }
    return counters;
}

static json_t *histogram_json(const struct cfsr_histogram *h)
{
    return json_pack("{s:I,s:I,s:I,s:I}", "count", (json_int_t)cfsr_counter_get(&h->count),
                     "p50_ns", (json_int_t)cfsr_histogram_percentile(h, 50), "p99_ns",
                     (json_int_t)cfsr_histogram_percentile(h, 99), "max_ns",
                     (json_int_t)cfsr_counter_get(&h->max));
}

static json_t *stages_json(const struct cfsr_status_input *input)
{
    static struct cfsr_histogram merged; /* control thread only; too large for its stack */
    json_t *stages = json_object();
#define X(name)                                                         \
    cfsr_histogram_reset(&merged);                                      \
    for (uint32_t r = 0; r < input->report_count; r++)                  \
        cfsr_histogram_merge(&merged, &input->reports[r].stages->name); \
    json_object_set_new(stages, #name, histogram_json(&merged));
    CFSR_NODE_STAGES(X)
#undef X
    return stages;
}

static json_t *transport_json(const struct cfsr_transport_stats *stats)
{
    json_t *transport = json_object();
#define X(name) json_object_set_new(transport, #name, json_integer((json_int_t)stats->name));
    CFSR_TRANSPORT_COUNTERS(X)
#undef X
    return transport;
}

static json_t *core_json(const struct cfsr_core_report *report)
{
    json_t *io = json_object(), *core;
    for (unsigned i = 0; i < CFSR_CORE_COUNTERS; i++)
        add_counter(io, cfsr_core_counter_name((enum cfsr_core_counter)i),
                    cfsr_counter_get(&report->stats->counters[i]));
    core = json_pack("{s:I,s:o,s:I,s:o,s:o,s:{s:I,s:I,s:I}}", "core", (json_int_t)report->core,
                     "cpu", report->cpu >= 0 ? json_integer(report->cpu) : json_null(),
                     "connections_in", (json_int_t)report->node.connections_in, "io", io,
                     "transport", transport_json(&report->transport[CFSR_PATH_TCP]), "workers",
                     "threads", (json_int_t)report->workers.threads, "cpu_us",
                     (json_int_t)report->workers.cpu_us, "wakeups",
                     (json_int_t)report->workers.wakeups);
    if (core != NULL && report->has_rdma)
        json_object_set_new(core, "rdma", transport_json(&report->transport[CFSR_PATH_RDMA]));
    return core;
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu %llu", &pages, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * 4096;
}

json_t *cfsr_status_json(const struct cfsr_status_input *input)
{
    char time[40];
    unsigned worst = CFSR_ARRAY_LEN(severity);
    json_t *links = json_array(), *incoming = json_array(), *cores = json_array(), *status;

    for (uint32_t i = 0; i < input->config->peer_count; i++) {
        json_array_append_new(links, link_json(input, &input->config->peer[i], &worst));
        json_array_append_new(incoming, incoming_json(input, &input->config->peer[i]));
    }
    for (uint32_t r = 0; r < input->report_count; r++)
        json_array_append_new(cores, core_json(&input->reports[r]));
    cfsr_format_time_us(input->wall_us, time, sizeof time);
    status = json_pack("{s:i,s:s,s:s,s:s,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "schema", 1, "version",
                       cfsr_version(), "time", time, "overall",
                       worst < CFSR_ARRAY_LEN(severity) ? cfsr_link_state_name(severity[worst])
                                                        : "NOT_CONFIGURED",
                       "uptime_s", (double)(input->now_ns - input->started_ns) / 1e9, "site",
                       site_json(input->site), "links", links, "incoming", incoming, "journal",
                       journal_json(input), "counters", counters_json(input), "stages",
                       stages_json(input), "cores", cores);
    if (status != NULL)
        json_object_set_new(status, "retention", retention_json(input));
    if (status != NULL)
        json_object_set_new(status, "scrub", cfsr_scrub_json(input));
    if (status != NULL)
        json_object_set_new(status, "process",
                            json_pack("{s:I,s:I,s:I}", "pid", (json_int_t)getpid(), "rss_bytes",
                                      (json_int_t)resident_bytes(), "memory_bytes",
                                      (json_int_t)input->memory_bytes));
    return status;
}
