/*
 * test_node_seal.c - bodies that travel sealed: nothing of them is on the wire, what rests in the
 * inbox is what the origin signed, and who does not seal is not spoken to.
 */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "cluster.h"
#include "core/file_sim.h"
#include "inbox/repair.h"
#include "journal/segment.h"
#include "pipeline/batch.h"
#include "repl/wire.h"
#include "transport/sim/control.h"

#define SECONDS 1000000ull
#define HEADER  4096u
#define NEEDLE  24u

static struct cluster c;
static struct cfsr_node_link_status l;
static bool sealing[SITES_MAX]; /* by site */

/* ---- the wire ---- */

/* All that was handed to the transport, and DATA frames alone. */
static struct {
    uint8_t *bytes;
    size_t len, room;
    unsigned data_frames;
    unsigned damage_at; /* this DATA frame gets a bit turned in its last piece; 0: none */
} wire;

static void wire_add(const void *bytes, size_t len)
{
    if (wire.len + len > wire.room) {
        wire.room = 2 * (wire.len + len);
        wire.bytes = realloc(wire.bytes, wire.room);
    }
    memcpy(wire.bytes + wire.len, bytes, len);
    wire.len += len;
}

static int tapped_send(struct cfsr_conn *conn, enum cfsr_stream stream,
                       const struct cfsr_frame *frames, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < frames[i].count; k++)
            wire_add(frames[i].pieces[k].iov_base, frames[i].pieces[k].iov_len);
        if (stream != CFSR_STREAM_DATA)
            continue;
        if (++wire.data_frames == wire.damage_at) {
            const struct iovec *last = &frames[i].pieces[frames[i].count - 1];
            ((uint8_t *)last->iov_base)[last->iov_len / 2] ^= 1;
        }
    }
    return cfsr_transport_sim.send(conn, stream, frames, count);
}

static void tune(struct cluster *cluster, struct test_site *site)
{
    (void)cluster;
    site->options.seal = sealing[site->index] ? CFSR_SEAL_REQUIRE : CFSR_SEAL_OFF;
    site->options.codec.codec = CFSR_CODEC_NONE;
}

static void make(unsigned sites, uint32_t lanes,
                 void (*tuned)(struct cluster *, struct test_site *))
{
    static struct cfsr_transport table;
    struct cluster_config config = {.seed = 91, .sites = sites, .lanes = lanes, .tune = tuned};

    table = cfsr_transport_sim;
    table.send = tapped_send;
    for (unsigned i = 0; i < sites; i++)
        config.transport[i] = &table;
    memset(&wire, 0, sizeof wire);
    cluster_make(&c, &config);
}

static void seal_all(bool seal)
{
    for (unsigned i = 0; i < SITES_MAX; i++)
        sealing[i] = seal;
}

static void drop(void)
{
    cluster_remove(&c);
    free(wire.bytes);
    wire.bytes = NULL;
}

/* How many of the samples of site 0's lane 0 travelled as they are. */
static unsigned seen_on_wire(unsigned *samples_out)
{
    char path[CFSR_PATH_MAX + 64];
    uint64_t bytes;
    struct cfsr_file *file;
    unsigned seen = 0, samples = 0;

    cfsr_segment_path(&c.site[0].site, 0, 0, path, sizeof path);
    cr_assert_eq(cfsr_file_open(c.site[0].fs, path, CFSR_OPEN_READ, &file), 0);
    bytes = cfsr_min_u64(HEADER + origin_head(c.site[0].origin[0]),
                         HEADER + c.site[0].site.segment_bytes);
    uint8_t *journal = malloc(bytes);
    cr_assert_eq(cfsr_file_pread(file, journal, (uint32_t)bytes, 0), (int)bytes);
    cfsr_file_close(file);
    for (uint64_t at = HEADER + 200; at + NEEDLE <= bytes; at += 997) {
        if (memcmp(journal + at, journal + at + 1, NEEDLE - 1) == 0)
            continue; /* one byte over and over may be found anywhere */
        samples++;
        seen += memmem(wire.bytes, wire.len, journal + at, NEEDLE) != NULL;
    }
    free(journal);
    *samples_out = samples;
    return seen;
}

static void expect_wire_is_sealed(void)
{
    unsigned samples;
    cr_assert_eq(seen_on_wire(&samples), 0);
    cr_assert_gt(samples, 20);
}

/* ---- what arrives ---- */

Test(node_seal, the_wire_holds_nothing_of_the_bodies)
{
    unsigned samples;
    seal_all(false);
    make(2, 2, tune);
    site_append(&c, 0, 200, 8000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cr_assert_gt(seen_on_wire(&samples), samples / 2, "the samples find what is there");
    drop();

    seal_all(true);
    make(2, 2, tune);
    site_append(&c, 0, 200, 8000);
    site_append(&c, 1, 50, 8000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    expect_wire_is_sealed();
    cluster_assert_equal(&c, 0, 1);
    cluster_assert_equal(&c, 1, 0);
    cr_assert_eq(COUNTER(&c, 1, entries_received), 200);
    cr_assert_eq(COUNTER(&c, 0, bad_frames) + COUNTER(&c, 1, bad_frames), 0);
    drop();
}

static uint32_t stored_frame(unsigned at, uint8_t *frame)
{
    uint32_t len = 0;
    cr_assert_eq(cfsr_inbox_find_frame(c.site[at].fs, &c.site[at].site, 0, 1,
                                       &c.site[0].site.journal, 0, frame, CFSR_FRAME_MAX_BYTES,
                                       &len),
                 0, "%s", cfsr_error_message());
    return len;
}

Test(node_seal, the_inbox_holds_what_the_origin_signed)
{
    static uint8_t plain[CFSR_FRAME_MAX_BYTES], sealed[CFSR_FRAME_MAX_BYTES];
    struct cfsr_batch_header header;
    struct cfsr_mac_key *key;
    uint32_t len = 0;

    for (unsigned run = 0; run < 2; run++) {
        seal_all(run == 1);
        make(2, 1, tune);
        site_append_lane(&c, 0, 0, 100, 3000);
        cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
        uint32_t got = stored_frame(1, run == 1 ? sealed : plain);
        cr_assert(run == 0 || got == len, "%u bytes, %u without sealing", got, len);
        len = got;
        if (run == 0)
            drop();
    }
    cr_assert_eq(cfsr_batch_header_load(sealed, &header), 0);
    cr_assert_eq(len, CFSR_BATCH_PREFIX_BYTES + header.stored_bytes);
    /* All but when it was prepared, and with that the tag. */
    cr_assert_arr_eq(sealed, plain, 88);
    cr_assert_arr_eq(sealed + 96, plain + 96, CFSR_BATCH_TAG_OFFSET - 96);
    cr_assert_arr_eq(sealed + CFSR_BATCH_PREFIX_BYTES, plain + CFSR_BATCH_PREFIX_BYTES,
                     header.stored_bytes);
    cr_assert_eq(cfsr_session_batch_key(c.site[1].keyring, header.key_id, &c.site[1].site.cluster,
                                        1, 2, &key),
                 0);
    cr_assert_eq(cfsr_batch_check_tag(key, sealed, NULL, 0), 0);
    cfsr_mac_key_destroy(key);
    drop();
}

Test(node_seal, peers_share_an_encoding_and_no_ciphertext)
{
    seal_all(true);
    make(3, 2, tune);
    for (unsigned round = 0; round < 20; round++) {
        site_append(&c, 0, 40, 8000);
        cluster_run_us(&c, 5000);
    }
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_assert_equal(&c, 0, 2);
    cr_assert_gt(COUNTER(&c, 0, batches_shared), 0);
    cr_assert_lt(COUNTER(&c, 0, batches_encoded), COUNTER(&c, 0, batches_sent));
    expect_wire_is_sealed();
    drop();
}

Test(node_seal, largest_records_and_many_segments)
{
    seal_all(true);
    make(2, 2, tune);
    site_append_lane(&c, 0, 0, 6, 1 << 20);
    site_append_lane(&c, 0, 1, 5, (1 << 20) - 7);
    site_append(&c, 0, 300, 30000);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    drop();
}

Test(node_seal, sessions_come_and_go)
{
    seal_all(true);
    make(2, 2, tune);
    for (unsigned round = 0; round < 6; round++) {
        site_append(&c, 0, 100, 8000);
        cluster_run_us(&c, 20000);
        site_crash(&c, round % 2, CFSR_PERSIST_RANDOM);
        site_start(&c, round % 2);
    }
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    expect_wire_is_sealed();
    drop();
}

/* Answers too: what is fetched again from a peer comes sealed. */
Test(node_seal, a_repair_comes_sealed)
{
    struct cfsr_scrub_request request = {
        .run = 1, .lane_mask = UINT64_MAX, .parts = CFSR_SCRUB_ALL};
    char path[CFSR_PATH_MAX + 64];

    seal_all(true);
    make(2, 1, tune);
    site_append_lane(&c, 0, 0, 260, 20000);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cfsr_segment_path(&c.site[0].site, 0, 0, path, sizeof path);
    cr_assert_eq(cfsr_fs_sim_flip_bit(c.site[0].fs, path, (HEADER + 123457) * 8ull), 0);
    wire.len = 0;
    cfsr_node_core_scrub(c.site[0].core[0], &request);
    c.site[0].dirty = true;
    cluster_run_us(&c, 5 * SECONDS);
    cr_assert_eq(COUNTER(&c, 0, damage_repaired), 1);
    cr_assert_geq(COUNTER(&c, 1, queries_served), 1);
    expect_wire_is_sealed();
    cluster_assert_equal(&c, 0, 1);
    drop();
}

/* ---- what does not ---- */

static void expect_refusal(unsigned requires)
{
    cluster_run_us(&c, 2 * SECONDS);
    cr_assert(cluster_link(&c, 0, 1, &l));
    cr_assert_str_eq(l.reason, "seal_required");
    cr_assert_eq(l.state, CFSR_LINK_FAULTED);
    cr_assert(cluster_link(&c, 1, 0, &l));
    cr_assert_str_eq(l.reason, "seal_required");
    cr_assert_eq(wire.data_frames, 0, "no body left in the clear");
    cr_assert_eq(COUNTER(&c, 0, entries_received) + COUNTER(&c, 1, entries_received), 0);
    cr_assert_gt(COUNTER(&c, requires, refused_in), 0, "counted where it was refused");
    cr_assert_gt(COUNTER(&c, 0, refused_out), 0);
    cr_assert_gt(COUNTER(&c, 1, refused_out), 0);
}

Test(node_seal, one_that_requires_it_does_not_speak_with_one_that_does_not)
{
    for (unsigned requires = 0; requires < 2; requires ++) {
        seal_all(false);
        sealing[requires] = true;
        make(2, 1, tune);
        site_append(&c, 0, 50, 3000);
        site_append(&c, 1, 50, 3000);
        expect_refusal(requires);
        site_stop(&c, 1 - requires);
        c.site[1 - requires].options.seal = CFSR_SEAL_REQUIRE;
        site_start(&c, 1 - requires);
        cr_assert(cluster_run_until_equal(&c, 200 * SECONDS), "told to, it seals");
        cluster_assert_equal(&c, 0, 1);
        cluster_assert_equal(&c, 1, 0);
        expect_wire_is_sealed();
        drop();
    }
}

Test(node_seal, a_turned_bit_is_refused_and_sent_again)
{
    seal_all(true);
    make(2, 1, tune);
    wire.damage_at = 3;
    site_append_lane(&c, 0, 0, 200, 8000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cr_assert_eq(COUNTER(&c, 1, bad_frames), 1);
    cr_assert_gt(COUNTER(&c, 0, retransmitted_bytes), 0);
    cluster_assert_equal(&c, 0, 1);
    drop();
}

/* ---- slots ---- */

static void tune_few_slots(struct cluster *cluster, struct test_site *site)
{
    tune(cluster, site);
    site->options.batch_slots = 2;
    site->options.batch_bytes = 16 << 10;
}

Test(node_seal, few_slots_stall_and_go_on)
{
    seal_all(true);
    make(3, 2, tune_few_slots);
    for (unsigned round = 0; round < 10; round++) {
        site_append(&c, 0, 200, 8000);
        cluster_run_us(&c, 5000);
    }
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cr_assert_gt(COUNTER(&c, 0, stall_no_seal_slot), 0);
    cluster_assert_equal(&c, 0, 1);
    cluster_assert_equal(&c, 0, 2);
    drop();
}

/* No further: a connection that nothing is heard on ends in time, and is made anew. */
static void run_exactly(uint64_t us)
{
    uint64_t end_us = c.now_us + us;
    while (c.now_us < end_us)
        cluster_step_to(&c, end_us);
}

/* Nor does one with many cores, that has a link to each, keep the others waiting. */
Test(node_seal, a_peer_that_does_not_read_leaves_slots_for_the_others)
{
    static struct cfsr_transport table;
    struct cluster_config config = {.seed = 92,
                                    .sites = 3,
                                    .lanes = 4,
                                    .cores = {1, 4, 1},
                                    .one_way = true,
                                    .tune = tune_few_slots};

    seal_all(true);
    table = cfsr_transport_sim;
    table.send = tapped_send;
    memset(&wire, 0, sizeof wire);
    config.transport[0] = &table;
    cluster_make(&c, &config);
    site_append(&c, 0, 40, 8000);
    cr_assert(cluster_run_until_equal(&c, 20 * SECONDS));
    cr_assert_geq(cfsr_sim_network_hold(c.network, "host1", "host2", 1, 0), 4);
    for (unsigned round = 0; round < 50; round++) {
        site_append(&c, 0, 40, 8000);
        run_exactly(20000);
    }
    run_exactly(SECONDS);
    cr_assert_lt(COUNTER(&c, 1, entries_received), 40 * 51, "it does not read");
    cr_assert_eq(COUNTER(&c, 2, entries_received), 40 * 51, "that is its own affair");
    (void)cfsr_sim_network_hold(c.network, "host1", "host2", 0, 0);
    cr_assert(cluster_run_until_equal(&c, 60 * SECONDS));
    cluster_assert_equal(&c, 0, 1);
    cluster_assert_equal(&c, 0, 2);
    drop();
}

Test(node_seal, memory_is_what_the_sum_says)
{
    uint64_t plain;
    seal_all(false);
    make(3, 4, tune);
    plain = c.site[0].io_bytes;
    cr_assert_eq(plain, cfsr_node_memory_bytes(&c.site[0].options));
    drop();
    seal_all(true);
    make(3, 4, tune);
    cr_assert_eq(c.site[0].io_bytes, cfsr_node_memory_bytes(&c.site[0].options));
    cr_assert_gt(c.site[0].io_bytes, plain);
    drop();
}
