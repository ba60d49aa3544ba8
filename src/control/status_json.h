/*
 * status_json.h - the status document of the daemon: what `cfs admin replication status --json`
 * prints.
 *
 * Schema 1 (docs/operations.md); fields are only ever added. Unknown is null, never 0.
 *
 *   {"schema":1, "version":"0.1.0", "overall":"STREAMING", "uptime_s":12.5, "time":"2026-…Z",
 *    "site":{"id":1,"name":"site-a","cluster":UUID,"journal":UUID,"lanes":8,"shards":256},
 *    "links":[{"peer":2,"name":"site-b","endpoint":"tcp://…","transport":"tcp",
 *      "transport_reason":"econnrefused","transport_fallbacks":1,"transport_returns":0,
 *      "state":"STREAMING","reason":"","detail":"","caught_up":true,"ack_mode":"durable",
 *      "connections":1,"lag_entries":0,"lag_bytes":0,"lag_seconds":0.0,"in_flight_bytes":0,
 *      "rtt_us":120,"clock_offset_us":3,"detached":false,
 *      "lanes":[{"lane":0,"head":1,"sent":1,"acked":1,"entries":1,"acked_entries":1}]}],
 *    "incoming":[{"site":2,"name":"site-b","connected":true,"lag_entries":0,
 *      "lanes":[{"lane":0,"durable":1,"staged":1,"entries":1,"head":1,"failed":false}]}],
 *    "journal":[{"lane":0,"committed":1,"entries":1}],
 *    "counters":{…sums over cores…},
 *    "stages":{"encode":{"count":1,"p50_ns":1,"p99_ns":1,"max_ns":1},…},
 *    "cores":[{"core":0,"cpu":0,"io":{…core/stats.h counters…},"workers":{…},"transport":{…},
 *      "rdma":{…the same, where RDMA is used…}}],
 *    "retention":{"pressure":"none","journal_bytes":1,"cap_bytes":1},
 *    "scrub":{…control/scrub_json.h…},
 *    "process":{"pid":1,"rss_bytes":1,"memory_bytes":1}}
 *
 * overall is the worst link's state: FAULTED, FENCED, STALLED, BOOTSTRAP, PAUSED, CATCHUP,
 * STREAMING; NOT_CONFIGURED without peers.
 */
#ifndef CFSR_CONTROL_STATUS_JSON_H
#define CFSR_CONTROL_STATUS_JSON_H

#include <jansson.h>

#include "control/serve_config.h"
#include "core/ring.h"
#include "journal/status_page.h"
#include "node/node.h"

/* One core's part, copied on its thread. */
struct cfsr_core_report {
    uint32_t core;
    int cpu; /* -1: not bound */
    struct cfsr_node_status node;
    struct cfsr_transport_stats transport[CFSR_PATHS];
    bool has_rdma;
    struct cfsr_ring_workers workers; /* the kernel's threads behind its ring */
    const struct cfsr_core_stats *stats;
    const struct cfsr_node_counters *counters; /* read with relaxed loads */
    const struct cfsr_node_stages *stages;
};

struct cfsr_status_input {
    const struct cfsr_site *site;
    const struct cfsr_serve_config *config;
    const struct cfsr_status_page *page;
    const struct cfsr_core_report *reports;
    uint32_t report_count;
    uint64_t now_ns, started_ns, wall_us;
    uint64_t memory_bytes; /* of I/O memory taken at start */
};

/* A new reference, or NULL when out of memory. */
json_t *cfsr_status_json(const struct cfsr_status_input *input);

#endif
