/* test_status_json.c - what the status document says of a lag from given snapshots: the sum where
 * every lane's ack is the peer's word, unknown where one is not; never less than the truth. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "control/status_json.h"
#include "tests/unit/command.h"

#define PEER    9
#define SECOND  1000000000ull
#define REPORTS 2

static struct cfsr_site site;
static struct cfsr_serve_config config;
static struct cfsr_core_report reports[REPORTS];
static struct cfsr_core_stats core_stats;
static struct cfsr_node_counters counters;
static struct cfsr_node_stages stages;
static struct cfsr_status_page *page;

static void make_site(void)
{
    const char *base = getenv("TMPDIR");

    memset(&site, 0, sizeof site);
    (void)snprintf(site.data_dir, sizeof site.data_dir, "%s/cfsr-status-XXXXXX",
                   base != NULL ? base : "/tmp");
    CFSR_ASSERT(mkdtemp(site.data_dir) != NULL);
    memset(site.cluster.bytes, 0xc1, 16);
    memset(site.journal.bytes, 0x1a, 16);
    site.site_id = 7;
    site.lanes = 4;
    site.shards = 4;
    site.segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    (void)snprintf(site.shard_function, sizeof site.shard_function, "parent-or-inode-mod");
    (void)snprintf(site.name, sizeof site.name, "site-a");
    cr_assert(cfsr_site_create(cfsr_fs_blocking(), &site) == 0, "%s", cfsr_error_message());
    cr_assert(cfsr_status_page_open(&site, &page) == 0, "%s", cfsr_error_message());
}

static void remove_site(void)
{
    cfsr_status_page_close(page);
    CFSR_ASSERT(TEST_COMMAND("rm", "-rf", site.data_dir) == 0);
}

/* Two cores with a link to the peer each, of two lanes each; all of it is acknowledged. */
static void set_up(void)
{
    make_site();
    config = (struct cfsr_serve_config){.peer_count = 1, .peer[0].site_id = PEER};
    (void)snprintf(config.peer[0].name, sizeof config.peer[0].name, "site-b");
    memset(reports, 0, sizeof reports);
    for (uint32_t i = 0; i < REPORTS; i++) {
        struct cfsr_node_link_status *link = &reports[i].node.link[0];

        reports[i] = (struct cfsr_core_report){
            .core = i, .cpu = -1, .stats = &core_stats, .counters = &counters, .stages = &stages};
        reports[i].node.link_count = 1;
        link->peer_site_id = PEER;
        link->state = CFSR_LINK_STREAMING;
        link->path = CFSR_PATH_TCP;
        link->caught_up = true;
        link->caught_up_ns = 10 * SECOND;
        link->lane_count = 2;
        for (uint32_t k = 0; k < 2; k++)
            link->lane[k] = (struct cfsr_node_lane_status){.lane = 2 * i + k,
                                                           .head_lsn = 1000,
                                                           .head_entries = 10,
                                                           .sent_lsn = 1000,
                                                           .acked_lsn = 1000,
                                                           .acked_entries = 10,
                                                           .known = true};
    }
}

TestSuite(status_json, .init = set_up, .fini = remove_site);

static struct cfsr_node_lane_status *lane_of(uint32_t core, uint32_t index)
{
    return &reports[core].node.link[0].lane[index];
}

/* The document; the peer's link in it is *link_out. */
static json_t *document(json_t **link_out)
{
    struct cfsr_status_input input = {.site = &site,
                                      .config = &config,
                                      .page = page,
                                      .reports = reports,
                                      .report_count = REPORTS,
                                      .started_ns = SECOND,
                                      .now_ns = 13 * SECOND};
    json_t *root = cfsr_status_json(&input);

    cr_assert_not_null(root);
    *link_out = json_array_get(json_object_get(root, "links"), 0);
    cr_assert_eq(json_integer_value(json_object_get(*link_out, "peer")), PEER);
    return root;
}

static void expect_lag(int64_t entries, int64_t bytes, double seconds)
{
    json_t *link, *root = document(&link);

    cr_assert(json_is_integer(json_object_get(link, "lag_entries")));
    cr_assert_eq(json_integer_value(json_object_get(link, "lag_entries")), entries);
    cr_assert_eq(json_integer_value(json_object_get(link, "lag_bytes")), bytes);
    cr_assert(json_is_real(json_object_get(link, "lag_seconds")));
    cr_assert_float_eq(json_real_value(json_object_get(link, "lag_seconds")), seconds, 1e-6);
    json_decref(root);
}

static void expect_unknown_lag(void)
{
    static const char *const names[] = {"lag_entries", "lag_bytes", "lag_seconds"};
    json_t *link, *root = document(&link);

    for (size_t i = 0; i < 3; i++) {
        json_t *lag = json_object_get(link, names[i]);

        cr_assert_not_null(lag, "%s is not said at all", names[i]);
        cr_assert(json_is_null(lag), "%s is said to be known", names[i]);
    }
    cr_assert(json_is_false(json_object_get(link, "caught_up")));
    json_decref(root);
}

Test(status_json, what_is_all_acknowledged_has_no_lag)
{
    expect_lag(0, 0, 0.0);
}

Test(status_json, the_lag_is_the_sum_over_all_lanes_of_all_cores)
{
    reports[0].node.link[0].caught_up = false;
    reports[0].node.link[0].caught_up_ns = 11 * SECOND;
    lane_of(0, 1)->acked_entries = 7;
    lane_of(0, 1)->acked_lsn = 600;
    reports[1].node.link[0].caught_up = false;
    lane_of(1, 0)->acked_entries = 0;
    lane_of(1, 0)->acked_lsn = 0;
    /* The head as a core last saw it may be behind what the peer has: that makes up for nothing. */
    lane_of(1, 1)->head_entries = 4;
    lane_of(1, 1)->head_lsn = 400;
    expect_lag(3 + 10, 400 + 1000, 3.0);
}

/* Also with an empty lane: nothing was heard of the peer, which may lack more than is seen. */
Test(status_json, a_lane_whose_ack_is_not_known_makes_the_lag_unknown)
{
    struct cfsr_node_lane_status *lane = lane_of(1, 1);

    reports[1].node.link[0].caught_up = false;
    lane->known = false;
    expect_unknown_lag();
    lane->acked_lsn = 0;
    lane->acked_entries = 0;
    expect_unknown_lag();
    lane->head_lsn = 0;
    lane->head_entries = 0;
    expect_unknown_lag();
    lane->known = true;
    expect_lag(0, 0, 3.0);
}

Test(status_json, the_lag_of_a_peer_without_a_link_is_unknown)
{
    reports[0].node.link_count = 0;
    reports[1].node.link_count = 0;
    expect_unknown_lag();
}
