/*
 * equal.c - questions about a cluster: links, counters, and whether two sites hold the same.
 *
 * Thread: one. Reads through the product's readers and digests; changes nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "cluster.h"
#include "inbox/digest.h"
#include "inbox/reader.h"
#include "journal/digest.h"
#include "node/internal.h"

bool cluster_link(struct cluster *cluster, unsigned from, unsigned to,
                  struct cfsr_node_link_status *link_out)
{
    struct test_site *site = &cluster->site[from];
    static struct cfsr_node_status status;

    for (uint32_t number = 0; site->up && number < site->cores; number++) {
        cfsr_node_core_status(site->core[number], &status);
        for (uint32_t i = 0; i < status.link_count; i++) {
            if (status.link[i].peer_site_id == to + 1) {
                *link_out = status.link[i];
                return true;
            }
        }
    }
    return false;
}

static bool is_caught_up(struct test_site *site)
{
    uint64_t lanes_seen[SITES_MAX] = {0};

    for (uint32_t number = 0; number < site->cores; number++) {
        const struct cfsr_node_core *core = site->core[number];
        for (uint32_t i = 0; i < core->link_count; i++) {
            const struct node_link *link = &core->links[i];
            if (!link->in_use || link->retiring || link->challenger)
                continue;
            if (!cfsr_sender_is_caught_up(&link->sender))
                return false;
            lanes_seen[link->sender.options.peer_site_id - 1] |= link->sender.options.lane_mask;
        }
    }
    for (unsigned i = 0; i < site->cluster->config.sites; i++)
        if (i != site->index && lanes_seen[i] != (1ull << site->site.lanes) - 1)
            return false;
    return true;
}

bool cluster_is_caught_up(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->config.sites; i++)
        if (cluster->site[i].up && !is_caught_up(&cluster->site[i]))
            return false;
    return true;
}

const char *cluster_unrested(struct cluster *cluster)
{
    static char why[256];

    snprintf(why, sizeof why, "a link is missing");
    for (unsigned i = 0; i < cluster->config.sites; i++) {
        const struct test_site *site = &cluster->site[i];
        for (uint32_t number = 0; site->up && number < site->cores; number++) {
            const struct cfsr_node_core *core = site->core[number];
            for (uint32_t k = 0; k < core->link_count; k++) {
                const struct node_link *link = &core->links[k];
                const char *reason;
                if (!link->in_use || link->retiring || link->challenger ||
                    cfsr_sender_is_caught_up(&link->sender))
                    continue;
                enum cfsr_link_state state = cfsr_sender_link_state(&link->sender, &reason);
                snprintf(why, sizeof why, "site %u core %u to site %u is %s %s (%s)", i + 1, number,
                         (unsigned)link->sender.options.peer_site_id, cfsr_link_state_name(state),
                         reason, link->sender.last_detail);
                return why;
            }
        }
    }
    return why;
}

bool cluster_run_until_equal(struct cluster *cluster, uint64_t limit_us)
{
    uint64_t end_us = cluster->now_us + limit_us;

    while (cluster->now_us < end_us) {
        cluster_step(cluster);
        if (cluster_is_caught_up(cluster))
            return true;
    }
    return false;
}

uint64_t cluster_counter(const struct test_site *site, size_t offset)
{
    uint64_t sum = 0;
    for (uint32_t number = 0; site->up && number < site->cores; number++)
        sum += cfsr_counter_get(
            (const cfsr_counter *)(const void *)((const uint8_t *)cfsr_node_core_counters(
                                                     site->core[number]) +
                                                 offset));
    return sum;
}

/* Entries of the origin in the lane as a consumer reads them: ascending, none twice. */
static uint64_t count_entries(struct cluster *cluster, struct test_site *at, uint64_t origin,
                              uint32_t lane)
{
    struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .site_id = origin, .lane = lane};
    struct cfsr_inbox *inbox;
    struct cfsr_inbox_record record;
    uint64_t entries = 0, end_lsn = 0, seq[SIM_SHARDS] = {0};
    int rc = cfsr_inbox_open_at(at->fs, &at->site, &options, &inbox);

    CHECK(cluster, rc == 0, "equal", "%s", cfsr_error_message());
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        CHECK(cluster, record.lsn >= end_lsn && record.seq == seq[record.shard_id] + 1, "equal",
              "site %u lane %u lsn %" PRIu64 ": twice or out of order", at->index, lane,
              record.lsn);
        end_lsn = record.end_lsn;
        seq[record.shard_id] = record.seq;
        entries++;
    }
    CHECK(cluster, rc == 0, "equal", "reading the inbox: %s", cfsr_error_message());
    cfsr_inbox_close(inbox);
    return entries;
}

static void assert_lane(struct cluster *cluster, struct test_site *source, struct test_site *target,
                        uint32_t lane)
{
    uint64_t head = origin_head(source->origin[lane]), entries;
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
    struct cfsr_inbox_lane_digest found;
    int rc = cfsr_journal_digest_lane(source->fs, &source->site, lane, 0, head, digest, &entries);

    CHECK(cluster, rc == 0, "equal", "digest of the journal: %s", cfsr_error_message());
    rc = cfsr_inbox_digest_lane(target->fs, &target->site, lane, source->site.site_id, UINT64_MAX,
                                &found);
    CHECK(cluster, rc == 0, "equal", "digest of the inbox: %s", cfsr_error_message());
    CHECK(cluster,
          found.from_lsn == 0 && found.to_lsn == head && found.entries == entries &&
              entries == origin_entries(source->origin[lane]),
          "equal",
          "lane %u of site %u at site %u: %" PRIu64 "-%" PRIu64 " of %" PRIu64 ", %" PRIu64
          " of %" PRIu64 " entries",
          lane, source->index, target->index, found.from_lsn, found.to_lsn, head, found.entries,
          entries);
    CHECK(cluster, memcmp(found.digest, digest, sizeof digest) == 0, "equal",
          "lane %u of site %u at site %u differs", lane, source->index, target->index);
    CHECK(cluster, count_entries(cluster, target, source->site.site_id, lane) == entries, "equal",
          "entries of lane %u", lane);
}

void cluster_assert_equal(struct cluster *cluster, unsigned from, unsigned at)
{
    struct test_site *source = &cluster->site[from], *target = &cluster->site[at];

    for (uint32_t lane = 0; lane < source->site.lanes; lane++)
        if (origin_head(source->origin[lane]) != 0)
            assert_lane(cluster, source, target, lane);
}
