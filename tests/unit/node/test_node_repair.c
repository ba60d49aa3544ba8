/*
 * test_node_repair.c - damage in a journal or an inbox is found, fetched again from a site that
 * holds the records, and put right; or said by name.
 */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "base/log.h"
#include "cluster.h"
#include "core/file_sim.h"
#include "inbox/format.h"
#include "journal/segment.h"
#include "node/internal.h"

#define SECONDS 1000000ull
#define HEADER  4096u
#define KEY_12  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e12"
#define KEY_13  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e13"
#define KEY_23  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e23"

static struct cluster c;
static struct cfsr_node_link_status l;
static struct cfsr_node_status status;

/* ---- disks ---- */

static char *journal_path(unsigned index, uint64_t lsn)
{
    static char path[CFSR_PATH_MAX + 64];
    return cfsr_segment_path(&c.site[index].site, 0, lsn, path, sizeof path);
}

static const char *inbox_path(uint64_t sequence)
{
    static char path[128];
    snprintf(path, sizeof path, "/data/inbox/00/%016llx.seg", (unsigned long long)sequence);
    return path;
}

static uint8_t *read_all(unsigned index, const char *path, uint32_t *len_out)
{
    struct cfsr_file *file;
    uint64_t bytes;
    cr_assert_eq(cfsr_file_open(c.site[index].fs, path, CFSR_OPEN_READ, &file), 0, "%s", path);
    cr_assert_eq(cfsr_file_size(file, &bytes), 0);
    uint8_t *all = malloc(bytes);
    cr_assert_eq(cfsr_file_pread(file, all, (uint32_t)bytes, 0), (int)bytes);
    cfsr_file_close(file);
    *len_out = (uint32_t)bytes;
    return all;
}

static void zero(unsigned index, const char *path, uint64_t offset, uint32_t len)
{
    struct cfsr_file *file;
    uint8_t *zeros = calloc(1, len);
    cr_assert_eq(cfsr_file_open(c.site[index].fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file),
                 0);
    cr_assert_geq(cfsr_file_pwrite(file, zeros, len, offset, false), 0);
    cr_assert_eq(cfsr_file_sync(file), 0);
    cfsr_file_close(file);
    free(zeros);
}

static void flip(unsigned index, const char *path, uint64_t byte)
{
    cr_assert_eq(cfsr_fs_sim_flip_bit(c.site[index].fs, path, byte * 8 + byte % 8), 0);
}

/* Bytes of the record area of a journal segment up to the committed end. */
static void expect_restored(unsigned index, const char *path, const uint8_t *before, uint32_t len)
{
    uint32_t now;
    uint8_t *after = read_all(index, path, &now);
    cr_assert_eq(now, len);
    for (uint32_t at = HEADER; at < len; at++)
        cr_assert_eq(after[at], before[at], "%s differs at %u", path, at);
    free(after);
}

/* ---- scrubs ---- */

static void ask_scrub(unsigned index, uint64_t run, unsigned parts, uint64_t rate)
{
    const struct cfsr_scrub_request request = {
        .run = run, .lane_mask = UINT64_MAX, .parts = parts, .rate_bytes_per_s = rate};
    cfsr_node_core_scrub(c.site[index].core[0], &request);
    c.site[index].dirty = true;
}

static const struct cfsr_node_scrub_status *scrub_of(unsigned index)
{
    cfsr_node_core_status(c.site[index].core[0], &status);
    return &status.scrub;
}

static void scrub(unsigned index, uint64_t run, unsigned parts)
{
    ask_scrub(index, run, parts, 0);
    for (unsigned i = 0; i < 100 && scrub_of(index)->run_finished < run; i++)
        cluster_run_us(&c, SECONDS / 10);
    cr_assert_geq(scrub_of(index)->run_finished, run, "the scrub does not end");
}

static const struct cfsr_scrub_finding *last_finding(unsigned index)
{
    const struct cfsr_node_scrub_status *s = scrub_of(index);
    cr_assert_gt(s->finding_count, 0);
    return &s->finding[s->finding_count - 1];
}

static void make(unsigned sites, void (*tune)(struct cluster *, struct test_site *))
{
    cluster_make(&c,
                 &(struct cluster_config){.seed = 77, .sites = sites, .lanes = 1, .tune = tune});
}

/* Five MiB and more at site 0, everywhere: two finished segments and a third. */
static void fill(void)
{
    site_append_lane(&c, 0, 0, 260, 20000);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
}

/* ---- the journal ---- */

Test(node_repair, a_damaged_journal_is_repaired_from_a_peer)
{
    uint32_t len[2];
    uint8_t *before[2];
    uint64_t segment;
    make(2, NULL);
    fill();
    segment = c.site[0].site.segment_bytes;
    for (unsigned i = 0; i < 2; i++)
        before[i] = read_all(0, journal_path(0, i * segment), &len[i]);
    flip(0, journal_path(0, 0), HEADER + 123457);
    flip(0, journal_path(0, 0), HEADER + 123457 + 300000);          /* far from the first */
    zero(0, journal_path(0, segment), HEADER + 512 * 1024, 100000); /* several records */
    flip(0, journal_path(0, 0), HEADER + 3); /* the first record's checksum */
    scrub(0, 1, CFSR_SCRUB_ALL);
    for (unsigned i = 0; i < 2; i++) {
        expect_restored(0, journal_path(0, i * segment), before[i], len[i]);
        free(before[i]);
    }
    cr_assert_eq(COUNTER(&c, 0, damage_found), 4);
    cr_assert_eq(COUNTER(&c, 0, damage_repaired), 4);
    cr_assert_eq(COUNTER(&c, 0, damage_unrepairable), 0);
    cr_assert_geq(COUNTER(&c, 1, queries_served), 4);
    cr_assert_gt(COUNTER(&c, 0, scrub_windows), 3, "and compared with the peer's copy");
    cr_assert_eq(COUNTER(&c, 0, scrub_differences), 0);
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

Test(node_repair, a_missing_segment_and_a_damaged_header_are_made_anew)
{
    uint32_t len[2];
    uint8_t *before[2];
    uint64_t segment;
    make(2, NULL);
    fill();
    segment = c.site[0].site.segment_bytes;
    for (unsigned i = 0; i < 2; i++)
        before[i] = read_all(0, journal_path(0, i * segment), &len[i]);
    zero(0, journal_path(0, 0), 0, 512);
    flip(0, journal_path(0, 0), HEADER + 777777); /* in the segment whose header is gone */
    cr_assert_eq(c.site[0].fs->ops->unlink(c.site[0].fs, journal_path(0, segment)), 0);
    scrub(0, 1, CFSR_SCRUB_JOURNAL);
    for (unsigned i = 0; i < 2; i++) {
        expect_restored(0, journal_path(0, i * segment), before[i], len[i]);
        free(before[i]);
    }
    cr_assert_eq(COUNTER(&c, 0, damage_found), 3);
    cr_assert_eq(COUNTER(&c, 0, damage_repaired), 3);
    scrub(0, 2, CFSR_SCRUB_ALL);
    cr_assert_eq(COUNTER(&c, 0, damage_found), 3, "nothing is left");
    cluster_remove(&c);
}

Test(node_repair, a_link_that_meets_damage_waits_and_goes_on)
{
    bool stalled = false;
    make(3, NULL);
    site_stop(&c, 1);
    site_append_lane(&c, 0, 0, 40, 20000);
    cluster_run_us(&c, 3 * SECONDS); /* site 2 has it, site 1 is away */
    flip(0, journal_path(0, 0), HEADER + 300000);
    /* Nobody can be asked while the third site is away as well. */
    cfsr_sim_network_partition(c.network, "host1", "host3", true);
    cfsr_sim_network_partition(c.network, "host3", "host1", true);
    cluster_run_us(&c, 30 * SECONDS);
    site_start(&c, 1);
    for (unsigned i = 0; i < 200 && !stalled; i++) {
        cluster_run_us(&c, SECONDS / 10);
        stalled = cluster_link(&c, 0, 1, &l) && l.state == CFSR_LINK_STALLED &&
                  strcmp(l.reason, "journal_damaged") == 0;
    }
    cr_assert(stalled, "%s %s", cfsr_link_state_name(l.state), l.reason);
    cr_assert_eq(last_finding(0)->outcome, CFSR_SCRUB_WAITING);
    cfsr_sim_network_partition(c.network, "host1", "host3", false);
    cfsr_sim_network_partition(c.network, "host3", "host1", false);
    cr_assert(cluster_run_until_equal(&c, 120 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(last_finding(0)->outcome, CFSR_SCRUB_REPAIRED);
    cr_assert_eq(COUNTER(&c, 0, damage_found), 1);
    cluster_remove(&c);
}

Test(node_repair, a_record_that_must_be_compared_is_repaired_first)
{
    uint64_t head;
    make(2, NULL);
    site_append_lane(&c, 0, 0, 20, 20000);
    cr_assert(cluster_run_until_equal(&c, 30 * SECONDS));
    site_stop(&c, 1);
    head = origin_head(c.site[0].origin[0]);
    site_append_lane(&c, 0, 0, 20, 20000);
    flip(0, journal_path(0, 0), HEADER + head - 16); /* in the last record site 1 has */
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(COUNTER(&c, 0, damage_repaired), 1);
    cluster_remove(&c);
}

Test(node_repair, a_segment_missing_under_a_link_is_made_anew)
{
    uint64_t segment;
    make(3, NULL);
    segment = c.site[0].site.segment_bytes;
    site_stop(&c, 1);
    site_append_lane(&c, 0, 0, 260, 20000);
    cluster_run_us(&c, 5 * SECONDS);
    cr_assert_eq(c.site[0].fs->ops->unlink(c.site[0].fs, journal_path(0, segment)), 0);
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 120 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(last_finding(0)->kind, CFSR_SCRUB_FOUND_SEGMENT);
    cr_assert_eq(last_finding(0)->outcome, CFSR_SCRUB_REPAIRED);
    cluster_remove(&c);
}

Test(node_repair, a_sector_that_cannot_be_read_is_written_again)
{
    make(3, NULL);
    site_stop(&c, 1);
    site_append_lane(&c, 0, 0, 40, 20000);
    cluster_run_us(&c, 3 * SECONDS);
    cr_assert_eq(
        cfsr_fs_sim_fail_reads(c.site[0].fs, journal_path(0, 0), (HEADER + 300000) / 512, 1), 0);
    site_start(&c, 1);
    cr_assert(cluster_run_until_equal(&c, 120 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cr_assert_eq(COUNTER(&c, 0, damage_repaired), 1);
    cluster_remove(&c);
}

Test(node_repair, what_nobody_holds_is_unrepairable_by_name)
{
    make(2, NULL);
    site_stop(&c, 1);
    site_append_lane(&c, 0, 0, 20, 20000);
    flip(0, journal_path(0, 0), HEADER + 100000);
    scrub(0, 1, CFSR_SCRUB_JOURNAL);
    cr_assert_eq(last_finding(0)->outcome, CFSR_SCRUB_WAITING, "the peer might have it");
    cr_assert_eq(last_finding(0)->reason, -CFSR_E_UNREACHABLE);
    site_start(&c, 1);
    cr_assert_not(cluster_run_until_equal(&c, 30 * SECONDS));
    cr_assert_eq(last_finding(0)->outcome, CFSR_SCRUB_UNREPAIRABLE);
    cr_assert_eq(last_finding(0)->reason, -CFSR_E_GONE);
    cr_assert(cluster_link(&c, 0, 1, &l));
    cr_assert_eq(l.state, CFSR_LINK_FAULTED);
    cr_assert_str_eq(l.reason, "damaged");
    cluster_remove(&c);
}

/* ---- the inbox ---- */

Test(node_repair, a_damaged_inbox_is_repaired_from_the_origin)
{
    make(2, NULL);
    fill();
    flip(1, inbox_path(1), HEADER + 200000);             /* a body */
    zero(1, inbox_path(1), HEADER + 512 * 1024, 262144); /* headers too */
    scrub(1, 1, CFSR_SCRUB_INBOX);
    cr_assert_geq(COUNTER(&c, 1, damage_found), 2);
    cr_assert_eq(COUNTER(&c, 1, damage_repaired), COUNTER(&c, 1, damage_found));
    cluster_run_us(&c, SECONDS);
    cluster_assert_equal(&c, 0, 1); /* the reader delivers everything, the digests are equal */
    uint64_t found = COUNTER(&c, 1, damage_found);
    scrub(1, 2, CFSR_SCRUB_INBOX);
    cr_assert_eq(COUNTER(&c, 1, damage_found), found, "repaired places are no gaps");
    site_stop(&c, 1);
    site_start(&c, 1);
    site_append_lane(&c, 0, 0, 5, 1000);
    cr_assert(cluster_run_until_equal(&c, 30 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_remove(&c);
}

/* Has a segment of the inbox a record? */
static bool begun(unsigned index, const char *path)
{
    struct cfsr_file *file;
    uint8_t magic[4] = {0};
    if (cfsr_file_open(c.site[index].fs, path, CFSR_OPEN_READ, &file) < 0)
        return false;
    cr_assert_eq(cfsr_file_pread(file, magic, sizeof magic, HEADER), (int)sizeof magic);
    cfsr_file_close(file);
    return memcmp(magic, "CFI1", sizeof magic) == 0;
}

/* Nothing behind the damage says all that it held: readers, who do not know the lane's cursors,
 * stop until a scrub has had it write them. */
Test(node_repair, a_scrub_has_the_inbox_name_what_must_be_there)
{
    uint64_t sequence = 1;

    make(2, NULL);
    fill();
    for (unsigned i = 0; i < 3; i++) { /* these vouch for what is before them */
        site_append_lane(&c, 0, 0, 5, 1000);
        cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    }
    while (begun(1, inbox_path(sequence + 1)))
        sequence++;
    zero(1, inbox_path(sequence), HEADER + 192, 64); /* the batch behind the segment's CURSORS */
    scrub(1, 1, CFSR_SCRUB_INBOX);
    cr_assert_geq(COUNTER(&c, 1, damage_found), 1);
    cr_assert_eq(COUNTER(&c, 1, damage_repaired), COUNTER(&c, 1, damage_found));
    cluster_run_us(&c, SECONDS);
    cluster_assert_equal(&c, 0, 1); /* nothing was sent since: the lane wrote by itself */
    cluster_remove(&c);
}

Test(node_repair, an_inbox_is_repaired_from_a_third_site_when_the_origin_lacks_it)
{
    make(3, NULL);
    fill();
    flip(1, inbox_path(1), HEADER + 200000);
    cr_assert_eq(origin_recycle_lowest(c.site[0].origin[0]), 0);
    scrub(1, 1, CFSR_SCRUB_INBOX);
    cr_assert_eq(COUNTER(&c, 1, damage_found), 1);
    cr_assert_eq(last_finding(1)->outcome, CFSR_SCRUB_REPAIRED, "%s",
                 cfsr_error_name(last_finding(1)->reason));
    cr_assert_geq(COUNTER(&c, 2, queries_served), 1);
    scrub(1, 2, CFSR_SCRUB_INBOX);
    cr_assert_eq(COUNTER(&c, 1, damage_found), 1);
    cluster_remove(&c);
}

/* Each site holds the keys of its own pairs only. */
static void own_keys(struct cluster *cluster, struct test_site *site)
{
    static struct cfsr_keyring *ring[3];
    static const char *const pairs[3] = {
        "key 1 site-pair 1,2 " KEY_12 "\nkey 2 site-pair 1,3 " KEY_13 "\n",
        "key 1 site-pair 1,2 " KEY_12 "\nkey 3 site-pair 2,3 " KEY_23 "\n",
        "key 2 site-pair 1,3 " KEY_13 "\nkey 3 site-pair 2,3 " KEY_23 "\n",
    };
    char path[] = "/tmp/cfsr-repair-XXXXXX";

    (void)cluster;
    if (ring[site->index] == NULL) {
        int fd = mkstemp(path);
        cr_assert_geq(fd, 0);
        cr_assert_gt(dprintf(fd, "cfs-repl-keyring 1\n%s", pairs[site->index]), 0);
        close(fd);
        cr_assert_eq(cfsr_keyring_load(path, &ring[site->index]), 0);
        unlink(path);
    }
    site->options.keyring = ring[site->index];
}

Test(node_repair, a_third_sites_copy_is_believed_under_our_own_prefix)
{
    make(3, own_keys);
    fill();
    cr_assert_eq(origin_recycle_lowest(c.site[0].origin[0]), 0);
    flip(1, inbox_path(1), HEADER + 200000); /* a body: its prefix still stands */
    scrub(1, 1, CFSR_SCRUB_INBOX);
    cr_assert_eq(last_finding(1)->outcome, CFSR_SCRUB_REPAIRED, "%s",
                 cfsr_error_name(last_finding(1)->reason));
    zero(1, inbox_path(1), HEADER + 512 * 1024, 262144); /* prefixes too */
    scrub(1, 2, CFSR_SCRUB_INBOX);
    cr_assert_eq(last_finding(1)->outcome, CFSR_SCRUB_UNREPAIRABLE, "nobody can vouch for it");
    cr_assert_gt(COUNTER(&c, 1, replies_refused), 0);
    cluster_remove(&c);
}

Test(node_repair, a_lost_range_of_the_inbox_is_unrepairable_by_name)
{
    make(2, NULL);
    fill();
    flip(1, inbox_path(1), HEADER + 200000);
    cr_assert_eq(origin_recycle_lowest(c.site[0].origin[0]), 0);
    scrub(1, 1, CFSR_SCRUB_INBOX);
    cr_assert_eq(last_finding(1)->kind, CFSR_SCRUB_FOUND_INBOX);
    cr_assert_eq(last_finding(1)->outcome, CFSR_SCRUB_UNREPAIRABLE);
    cr_assert_eq(last_finding(1)->reason, -CFSR_E_GONE);
    cr_assert_eq(last_finding(1)->site_id, 1);
    cr_assert_eq(COUNTER(&c, 1, damage_unrepairable), 1);
    cluster_remove(&c);
}

Test(node_repair, damage_at_a_peer_is_seen_from_afar_and_it_repairs_itself)
{
    make(2, NULL);
    fill();
    flip(1, inbox_path(1), HEADER + 200000);
    scrub(0, 1, CFSR_SCRUB_ALL);
    cr_assert_gt(COUNTER(&c, 0, scrub_differences), 0);
    cluster_run_us(&c, 5 * SECONDS);
    cr_assert_eq(COUNTER(&c, 1, damage_repaired), 1, "it was told by the question");
    scrub(0, 2, CFSR_SCRUB_ALL);
    uint64_t differences = COUNTER(&c, 0, scrub_differences);
    scrub(0, 3, CFSR_SCRUB_ALL);
    cr_assert_eq(COUNTER(&c, 0, scrub_differences), differences);
    cluster_remove(&c);
}

/* ---- peers that lie, cannot, or are away ---- */

static void (*real_answer)(struct cfsr_node_job *job);
static unsigned lie;
enum {
    LIE_BODY,
    LIE_TAG,
    LIE_RANGE,
    LIE_OTHER_LANE,
    LIE_SHORT,
    LIE_OVERSIZE,
    LIE_GARBAGE,
    LIES
};

static void lying_answer(struct cfsr_node_job *job)
{
    struct node_server *server = CFSR_CONTAINER_OF(job, struct node_server, job);
    uint8_t *frame = server->frame + CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES;
    real_answer(job);
    if (server->reply.status != 0)
        return;
    switch (lie) {
    case LIE_BODY: frame[CFSR_BATCH_PREFIX_BYTES + 100] ^= 1; break;
    case LIE_TAG: frame[CFSR_BATCH_TAG_OFFSET] ^= 1; break;
    case LIE_RANGE:
        server->reply.lsn_from = server->query.lsn_to;
        server->reply.lsn_to = server->query.lsn_to + 8;
        break;
    case LIE_OTHER_LANE: server->reply.lane ^= 1; break;
    case LIE_SHORT: server->reply.body_bytes -= 100; break;
    case LIE_OVERSIZE: server->reply.body_bytes = CFSR_REPLY_BODY_MAX; break;
    case LIE_GARBAGE: memset(frame, 0xa5, 500); break;
    }
}

Test(node_repair, lies_change_nothing_and_are_counted)
{
    uint32_t len;
    uint64_t run = 0;
    make(2, NULL);
    fill();
    uint8_t *before = read_all(0, journal_path(0, 0), &len);
    flip(0, journal_path(0, 0), HEADER + 123457);
    uint32_t ignored;
    uint8_t *damaged = read_all(0, journal_path(0, 0), &ignored);
    struct node_server *server = &c.site[1].core[0]->server;
    real_answer = server->job.run;
    server->job.run = lying_answer;
    for (lie = 0; lie < LIES; lie++) {
        uint64_t refused = COUNTER(&c, 0, replies_refused) + COUNTER(&c, 0, bad_frames);
        scrub(0, ++run, CFSR_SCRUB_JOURNAL);
        cr_assert_gt(COUNTER(&c, 0, replies_refused) + COUNTER(&c, 0, bad_frames), refused,
                     "lie %u is not counted", lie);
        cr_assert_eq(COUNTER(&c, 0, damage_repaired), 0, "lie %u", lie);
        expect_restored(0, journal_path(0, 0), damaged, len);
        cluster_run_us(&c, 3 * SECONDS); /* a connection that was closed is made again */
    }
    server->job.run = real_answer;
    scrub(0, ++run, CFSR_SCRUB_JOURNAL);
    expect_restored(0, journal_path(0, 0), before, len);
    cr_assert_eq(COUNTER(&c, 0, damage_repaired), 1);
    free(before);
    free(damaged);
    cluster_remove(&c);
}

static void withhold(struct cluster *cluster, struct test_site *site)
{
    if (site == &cluster->site[1])
        site->options.features_withheld = CFSR_FEATURE_QUERY;
}

Test(node_repair, a_peer_of_the_version_before_is_not_asked)
{
    make(2, withhold);
    fill();
    flip(0, journal_path(0, 0), HEADER + 123457);
    scrub(0, 1, CFSR_SCRUB_ALL);
    cr_assert_eq(COUNTER(&c, 0, queries_sent), 0);
    cr_assert_eq(COUNTER(&c, 0, bad_frames), 0);
    cr_assert_eq(last_finding(0)->outcome, CFSR_SCRUB_WAITING);
    cr_assert_eq(last_finding(0)->reason, -CFSR_E_UNREACHABLE);
    cluster_remove(&c);
}

Test(node_repair, a_scrub_keeps_its_rate)
{
    make(2, NULL);
    fill();
    ask_scrub(0, 1, CFSR_SCRUB_JOURNAL, 1 << 20);
    for (unsigned second = 1; second < 5; second++) {
        cluster_run_us(&c, SECONDS);
        cr_assert_leq(COUNTER(&c, 0, scrub_bytes), (4 << 20) + second * (1 << 20),
                      "one step ahead at most");
    }
    cr_assert_eq(scrub_of(0)->run_finished, 0);
    cluster_run_us(&c, 10 * SECONDS);
    cr_assert_eq(scrub_of(0)->run_finished, 1);
    cr_assert_geq(COUNTER(&c, 0, scrub_bytes), 4 << 20);
    cluster_remove(&c);
}

Test(node_repair, traffic_cuts_and_crashes_do_not_confuse_a_scrub)
{
    for (uint64_t seed = 0; seed < 8; seed++) {
        uint64_t run = 0;
        cluster_make(&c, &(struct cluster_config){
                             .seed = 900 + seed, .sites = 3, .lanes = 1, .cut_per_million = 2000});
        site_append_lane(&c, 0, 0, 150, 20000);
        cr_assert(cluster_run_until_equal(&c, 300 * SECONDS));
        for (unsigned round = 0; round < 4; round++) {
            unsigned victim = (unsigned)(cluster_random(&c) % 3);
            flip(0, journal_path(0, 0), HEADER + cluster_random(&c) % 1000000);
            flip(1, inbox_path(1), HEADER + 8192 + cluster_random(&c) % 1000000);
            for (unsigned i = 0; i < 3; i++)
                ask_scrub(i, ++run, CFSR_SCRUB_ALL, 0);
            site_append_lane(&c, 0, 0, 30, 20000);
            cluster_run_us(&c, cluster_random(&c) % 400000);
            if (round == 1) {
                site_crash(&c, victim, CFSR_PERSIST_RANDOM);
                cluster_run_us(&c, SECONDS);
                site_start(&c, victim);
            }
            cr_assert(cluster_run_until_equal(&c, 900 * SECONDS), "seed %llu round %u",
                      (unsigned long long)seed, round);
        }
        for (unsigned i = 0; i < 3; i++)
            scrub(i, ++run, CFSR_SCRUB_ALL);
        cluster_run_us(&c, 60 * SECONDS);
        cluster_assert_equal(&c, 0, 1);
        cluster_assert_equal(&c, 0, 2);
        cluster_remove(&c);
    }
}
