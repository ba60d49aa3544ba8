/*
 * verify.c - the end of a run: what was appended is at every site once, in order, with the same
 * bytes; compared with what those who appended it remember.
 *
 * Thread:     one.
 * Invariants: each inbox lane is read once, through the product's reader, for all its origins; for
 *             one lane of one pair the product's own digests are compared too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/crc32c.h"
#include "core/file_sim.h"
#include "inbox/reader.h"
#include "run.h"

/* The inbox gives where a record's bytes end; who appended it was given where the next one begins,
 * which is the boundary when no header fits before it. */
static bool is_end(uint64_t wanted_lsn, uint64_t end_lsn)
{
    return end_lsn <= wanted_lsn && wanted_lsn - end_lsn < CFSR_RECORD_HEADER_BYTES;
}

static bool is_entry(const struct origin_truth *truth, uint64_t number,
                     const struct cfsr_inbox_record *record)
{
    const struct origin_entry *wanted = &truth->entry[number];

    return number < truth->count && record->lsn == wanted->lsn &&
           is_end(wanted->end_lsn, record->end_lsn) && record->seq == wanted->seq &&
           record->timestamp_us == wanted->timestamp_us && record->inode == wanted->inode &&
           record->shard_id == wanted->shard && record->payload_bytes == wanted->payload_bytes &&
           cfsr_crc32c(0, record->payload, record->payload_bytes) == wanted->payload_crc;
}

/* One origin's lane at a site: entry after entry of its history, of one of them if it has two. */
struct reading {
    uint64_t seen;
    bool other, neither; /* what was read so far is no beginning of the history; of the older one */
};

static void compare(struct sim_run *run, const struct test_site *at, unsigned from, uint32_t lane,
                    struct reading *reading, const struct cfsr_inbox_record *record)
{
    const struct origin_truth *truth = &run->cluster.site[from].truth[lane];
    uint64_t number = reading->seen++;

    reading->other = reading->other || !is_entry(truth, number, record);
    reading->neither = reading->neither || !run->model.forked[from] ||
                       !is_entry(&run->model.before[from][lane], number, record);
    if (!reading->other || !reading->neither)
        return;
    CHECK(&run->cluster, number < truth->count, "exactly-once",
          "site %u lane %u of site %u: more entries than the %" PRIu64 " appended: LSN %" PRIu64,
          at->index + 1, lane, from + 1, truth->count, record->lsn);
    const struct origin_entry *wanted = &truth->entry[number];
    cluster_fail(&run->cluster, "equal-bytes",
                 "site %u lane %u of site %u: LSN %" PRIu64 "-%" PRIu64 " seq %" PRIu64
                 " at %" PRIu64 " of %u bytes, where LSN %" PRIu64 "-%" PRIu64 " seq %" PRIu64
                 " at %" PRIu64 " of %u bytes belongs; or its bytes differ",
                 at->index + 1, lane, from + 1, record->lsn, record->end_lsn, record->seq,
                 record->timestamp_us, record->payload_bytes, wanted->lsn, wanted->end_lsn,
                 wanted->seq, wanted->timestamp_us, wanted->payload_bytes);
}

/* Every record of the lane, to its end or to what cannot be read: compared. */
static int read_lane(struct sim_run *run, struct test_site *at, uint32_t lane, struct cfsr_fs *fs,
                     struct reading *reading)
{
    struct cluster *cluster = &run->cluster;
    struct cfsr_inbox_options options = {.opts_size = sizeof options, .lane = lane};
    struct cfsr_inbox_record record;
    struct cfsr_inbox *inbox;
    int rc = cfsr_inbox_open_at(fs, &at->site, &options, &inbox);

    if (rc < 0)
        return rc;
    while ((rc = cfsr_inbox_next(inbox, 0, &record)) == 1) {
        unsigned from = (unsigned)record.site_id - 1;
        CHECK(cluster, from < cluster->config.sites && from != at->index, "verify",
              "site %u lane %u holds records of site %" PRIu64, at->index + 1, lane,
              record.site_id);
        compare(run, at, from, lane, &reading[from], &record);
        run->totals.verified_entries++;
    }
    cfsr_inbox_close(inbox);
    return rc;
}

void sim_verify_beginning(struct sim_run *run, unsigned site, uint32_t lane, struct cfsr_fs *fs)
{
    struct reading reading[SITES_MAX] = {0};
    int rc = read_lane(run, &run->cluster.site[site], lane, fs, reading);

    CHECK(&run->cluster,
          rc == 0 || rc == -CFSR_E_DAMAGED || rc == -CFSR_E_MISSING_SEGMENT || rc == -EIO, "verify",
          "site %u lane %u: damage is told as %d %s", site + 1, lane, rc, cfsr_error_message());
}

/* What the lane of the site holds of every origin, entry by entry. */
static void verify_lane(struct sim_run *run, struct test_site *at, uint32_t lane)
{
    struct cluster *cluster = &run->cluster;
    struct reading reading[SITES_MAX] = {0};
    int rc = read_lane(run, at, lane, at->fs, reading);

    CHECK(cluster, rc == 0, "verify", "site %u lane %u: %s", at->index + 1, lane,
          cfsr_error_message());
    for (unsigned from = 0; from < cluster->config.sites; from++) {
        uint64_t appended = cluster->site[from].truth[lane].count;
        CHECK(cluster,
              from == at->index || run->model.forked[from] || reading[from].seen == appended,
              "exactly-once", "site %u lane %u of site %u: %" PRIu64 " of %" PRIu64 " entries",
              at->index + 1, lane, from + 1, reading[from].seen, appended);
    }
}

static void verify_digests(struct sim_run *run)
{
    struct cluster *cluster = &run->cluster;
    uint64_t state = run->plan->request.seed;
    unsigned from = (unsigned)(sim_random(&state) % cluster->config.sites);
    unsigned at = (from + 1) % cluster->config.sites;

    if (run->model.forked[from] || origin_lowest(cluster->site[from].origin[0]) != 0)
        return;
    for (uint32_t lane = 1; lane < cluster->config.lanes; lane++)
        if (origin_lowest(cluster->site[from].origin[lane]) != 0)
            return;
    cluster_assert_equal(cluster, from, at);
}

static void break_something(struct sim_run *run)
{
    struct cluster *cluster = &run->cluster;
    struct origin_truth *truth = &cluster->site[0].truth[0];
    char path[64];

    switch (run->plan->request.broken) {
    case SIM_BREAK_flip:
        snprintf(path, sizeof path, "/data/inbox/00/%016x.seg", 1);
        (void)cfsr_fs_sim_flip_bit(cluster->site[1].fs, path, (4096 + 4096 + 64 + 192 + 20) * 8);
        break;
    case SIM_BREAK_twice:
        if (truth->count > 0)
            truth->count--;
        break;
    case SIM_BREAK_order:
        if (truth->count > 1) {
            struct origin_entry first = truth->entry[0];
            truth->entry[0] = truth->entry[1];
            truth->entry[1] = first;
        }
        break;
    default: break;
    }
}

void sim_verify(struct sim_run *run)
{
    struct cluster *cluster = &run->cluster;

    break_something(run);
    for (unsigned i = 0; i < cluster->config.sites; i++)
        for (uint32_t lane = 0; lane < cluster->config.lanes; lane++)
            verify_lane(run, &cluster->site[i], lane);
    verify_digests(run);
}
