/*
 * attack_dial.c - attacks on a daemon that dials: an acceptor that holds the key and answers with
 * lies, too much, or not at all.
 *
 * After every attack the victim must come back by itself, offer every lane and send from the
 * beginning, where an honest answer puts it.
 */
#include "attack.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"

#define ENDS_ANYHOW       (-1)
#define DIALS_IN_A_SECOND 300 /* with pauses of at least 10 ms: a third of it */

static uint64_t all_lanes(void)
{
    return (1ull << world.site.lanes) - 1;
}

/* Reads frames until a BATCH; checks their tags. Its LSN range in *from_out, *to_out. */
static bool batch_arrives(struct peer *peer, uint16_t *lane_out, uint64_t *from_out,
                          uint64_t *to_out)
{
    struct cfsr_link_header header;
    struct cfsr_batch_header batch;

    for (;;) {
        int rc = frame_read(peer, &header, ATTACK_WAIT_MS);
        if (rc <= 0)
            return attack_fails("the victim %s", rc == 0 ? "closed" : "sends nothing");
        if (cfsr_session_open(&peer->session, &header, peer->in) < 0)
            return attack_fails("the victim's frames are not sound: %s", cfsr_error_message());
        if (header.type == CFSR_FRAME_GOODBYE)
            return attack_fails("the victim takes leave");
        if (header.type == CFSR_FRAME_BATCH) {
            rc = cfsr_batch_header_load(peer->in + CFSR_LINK_HEADER_BYTES, &batch);
            CFSR_ASSERT(rc == 0);
            *lane_out = batch.lane;
            *from_out = batch.lsn_from;
            *to_out = batch.lsn_to;
            return frame_drop(peer, &header), true;
        }
        frame_drop(peer, &header);
    }
}

static bool taken(struct peer *peer, struct cfsr_hello_ack *ack)
{
    if (!peer_take(peer))
        return false;
    answer_fresh(peer, ack);
    return true;
}

static void send_ack(struct peer *peer, uint16_t lane, uint64_t lsn)
{
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    struct cfsr_ack ack = {.count = 1,
                           .lane = {{.lane = lane, .durable_lsn = lsn, .entries = UINT64_MAX}}};
    uint32_t len = cfsr_ack_store(&ack, frame + CFSR_LINK_HEADER_BYTES);

    len = cfsr_session_seal(&peer->session, CFSR_FRAME_ACK, 0, frame, len);
    peer_send(peer, frame, len);
}

/* Answers honestly until every lane has sent from its beginning. Connections for other lanes are
 * taken as they come. */
static bool dialer_is_well(void)
{
    uint64_t seen = 0;

    for (int64_t until = clock_ms() + 2 * ATTACK_WAIT_MS; seen != all_lanes();) {
        struct cfsr_hello_ack ack;
        struct peer peer;
        uint64_t from, to;
        uint16_t lane;
        if (clock_ms() > until)
            return attack_fails("lanes %llx only are offered", (unsigned long long)seen);
        if (!peer_take(&peer))
            return false;
        answer_fresh(&peer, &ack);
        peer_answer(&peer, &ack);
        uint64_t mine = 0;
        while (mine != ack.lane_mask && batch_arrives(&peer, &lane, &from, &to)) {
            if (from == 0)
                mine |= 1ull << lane;
        }
        seen |= mine;
        peer_close(&peer);
    }
    return true;
}

static bool ends(struct peer *peer, int wanted)
{
    int64_t until = clock_ms() + ATTACK_WAIT_MS;
    int reason = 0;

    for (;;) { /* its batches go by */
        struct cfsr_link_header header;
        int rc = frame_read(peer, &header, (int)cfsr_max_u64(1, (uint64_t)(until - clock_ms())));
        if (rc < 0 || clock_ms() > until)
            return peer_close(peer), attack_fails("the connection goes on");
        if (rc == 0)
            break;
        if (header.type == CFSR_FRAME_GOODBYE) {
            struct cfsr_goodbye goodbye;
            if (cfsr_goodbye_load(peer->in + CFSR_LINK_HEADER_BYTES, header.length_bytes,
                                  &goodbye) == 0)
                reason = goodbye.reason;
            shutdown(peer->fd, SHUT_WR);
        }
        frame_drop(peer, &header);
    }
    peer_close(peer);
    return wanted == ENDS_ANYHOW || wanted == reason ||
           attack_fails("ended with %s, wanted %s", cfsr_error_name(-reason),
                        cfsr_error_name(-wanted));
}

/* ---- answers that lie ---- */

static bool cursor_is_refused(uint64_t cursor, uint64_t stamp_lsn, int wanted)
{
    struct cfsr_hello_ack ack;
    struct peer peer;

    if (!taken(&peer, &ack))
        return false;
    ack.lane[0].cursor = cursor;
    ack.lane[0].last.lsn = stamp_lsn;
    ack.lane[0].entries = UINT64_MAX;
    peer_answer(&peer, &ack);
    return ends(&peer, wanted);
}

static bool cursor_in_future(void)
{
    return cursor_is_refused(1ull << 40, 64, CFSR_E_JOURNAL_FORKED) &&
           cursor_is_refused(UINT64_MAX, UINT64_MAX - 1, CFSR_E_JOURNAL_FORKED);
}
static bool cursor_within_record(void)
{
    return cursor_is_refused(8, 0, CFSR_E_JOURNAL_FORKED) &&
           cursor_is_refused(9, 1, CFSR_E_JOURNAL_FORKED);
}
static bool cursor_without_stamp(void)
{
    return cursor_is_refused(64, UINT64_MAX, CFSR_E_BAD_FRAME);
}
static bool stamp_elsewhere(void)
{
    return cursor_is_refused(64, 1ull << 50, CFSR_E_JOURNAL_FORKED) &&
           cursor_is_refused(64, UINT64_MAX - 8, CFSR_E_JOURNAL_FORKED) &&
           cursor_is_refused(64, 64, CFSR_E_JOURNAL_FORKED);
}

/* What an answer may not say, each in its own connection. */
enum lie {
    LIE_LANES_NONE,
    LIE_LANES_FEWER,
    LIE_LAST
};
static bool lanes_that_lie(void)
{
    for (int lie = 0; lie < LIE_LAST; lie++) {
        struct cfsr_hello_ack ack;
        struct peer peer;
        if (!taken(&peer, &ack))
            return false;
        ack.lane_mask = lie == LIE_LANES_NONE ? 0 : 1;
        peer_answer(&peer, &ack);
        if (!ends(&peer, lie == LIE_LANES_NONE ? 0 : CFSR_E_BAD_FRAME))
            return false;
    }
    return true;
}

/* Answers every dial for a second with "other core, of so many": lanes must not be lost, and the
 * pauses kept. */
static bool wrong_core(uint32_t cores)
{
    uint32_t honest = world.local.cores;
    unsigned dials = 0;

    for (int64_t until = clock_ms() + 1000; clock_ms() < until; dials++) {
        struct cfsr_hello_ack ack;
        struct peer peer;
        if (!taken(&peer, &ack))
            return false;
        ack.status = CFSR_E_WRONG_CORE;
        world.local.cores = cores;
        peer_answer(&peer, &ack);
        world.local.cores = honest;
        peer_close(&peer);
    }
    return dials <= DIALS_IN_A_SECOND ||
           attack_fails("%u dials in a second for %u cores", dials, cores);
}

static bool cores_none(void)
{
    return wrong_core(0);
}
static bool cores_one(void)
{
    return wrong_core(1);
}
static bool cores_two(void)
{
    return wrong_core(2);
}
static bool cores_many(void)
{
    return wrong_core(64);
}
static bool cores_absurd(void)
{
    return wrong_core(65535);
}

/* Several connections hear of another core count at once. */
static bool cores_change(void)
{
    static const uint32_t counts[] = {4, 2, 4, 3, 64, 4, 1};

    for (unsigned round = 0; round < CFSR_ARRAY_LEN(counts); round++) {
        struct peer peers[4];
        struct cfsr_hello_ack ack[4];
        unsigned count = 0;
        uint64_t seen = 0;
        while (seen != all_lanes() && count < CFSR_ARRAY_LEN(peers)) {
            if (!taken(&peers[count], &ack[count]))
                break;
            seen |= ack[count++].lane_mask;
        }
        world.local.cores = counts[round];
        for (unsigned i = 0; i < count; i++) {
            ack[i].status = CFSR_E_WRONG_CORE;
            peer_answer(&peers[i], &ack[i]);
        }
        world.local.cores = 1;
        for (unsigned i = 0; i < count; i++)
            peer_close(&peers[i]);
        if (seen != all_lanes())
            return attack_fails("after round %u lanes %llx are offered", round,
                                (unsigned long long)seen);
    }
    return true;
}

/* ---- acks ---- */

static bool ack_is_refused(uint16_t lane_wanted, uint64_t lsn)
{
    struct cfsr_hello_ack ack;
    struct peer peer;
    uint64_t from, to;
    uint16_t lane;

    if (!taken(&peer, &ack))
        return false;
    peer_answer(&peer, &ack);
    if (!batch_arrives(&peer, &lane, &from, &to))
        return peer_close(&peer), false;
    if (lsn == 0) { /* forwards, then back */
        send_ack(&peer, lane, to);
        send_ack(&peer, lane, from);
    } else {
        send_ack(&peer, lane_wanted == 0 ? lane : lane_wanted, lsn);
    }
    return ends(&peer, CFSR_E_BAD_FRAME);
}

static bool ack_beyond_head(void)
{
    return ack_is_refused(0, 1ull << 40) && ack_is_refused(0, UINT64_MAX);
}
static bool ack_backwards(void)
{
    return ack_is_refused(0, 0);
}
static bool ack_of_other_lane(void)
{
    return ack_is_refused(63, 64);
}
static bool ack_unaligned(void)
{
    return ack_is_refused(0, 4);
}

/* Within what exists, beyond what was sent, and nowhere near a record's end. */
static bool ack_of_the_unsent(void)
{
    struct cfsr_hello_ack ack;
    struct peer peer;
    uint64_t from, to;
    uint16_t lane;

    if (!taken(&peer, &ack))
        return false;
    peer_answer(&peer, &ack);
    if (!batch_arrives(&peer, &lane, &from, &to))
        return peer_close(&peer), false;
    for (uint64_t lsn = to + 8; lsn < to + 400; lsn += 8)
        send_ack(&peer, lane, lsn);
    for (unsigned i = 0; i < 20 && batch_arrives(&peer, &lane, &from, &to); i++)
        ;
    peer_close(&peer);
    return true; /* how it ends is the victim's affair; it must live and come back */
}

/* Before the victim has compared the stamps with its journal. */
static bool ack_at_once(void)
{
    struct cfsr_hello_ack ack;
    struct peer peer;

    for (int i = 0; i < 20; i++) {
        if (!taken(&peer, &ack))
            return false;
        ack.lane[0].cursor = 64; /* makes it look */
        ack.lane[0].last.lsn = 0;
        peer_answer(&peer, &ack);
        for (int k = 0; k < 10; k++)
            send_ack(&peer, (uint16_t)(k % 4), 64);
        (void)peer_ending(&peer, ATTACK_WAIT_MS);
        peer_close(&peer);
    }
    return true;
}

static bool ack_flood(void)
{
    struct cfsr_hello_ack ack;
    struct peer peer;
    uint64_t from, to;
    uint16_t lane;

    if (!taken(&peer, &ack))
        return false;
    peer_answer(&peer, &ack);
    if (!batch_arrives(&peer, &lane, &from, &to))
        return peer_close(&peer), false;
    for (int i = 0; i < 20000; i++)
        send_ack(&peer, lane, to);
    for (int i = 0; i < 3; i++)
        if (!batch_arrives(&peer, &lane, &from, &to))
            return peer_close(&peer), false;
    peer_close(&peer);
    return true;
}

/* ---- frames and silence ---- */

static bool garbage_after_answer(void)
{
    static uint8_t noise[65536];
    struct cfsr_hello_ack ack;
    struct peer peer;

    for (int i = 0; i < 10; i++) {
        cfsr_random_bytes(noise, sizeof noise);
        if (!taken(&peer, &ack))
            return false;
        if (i % 2 == 0)
            peer_answer(&peer, &ack);
        peer_send(&peer, noise, sizeof noise);
        if (!ends(&peer, ENDS_ANYHOW))
            return false;
    }
    return true;
}

/* Its own frames, sent back; and a batch, which has no business in this direction. */
static bool reflected(void)
{
    for (int type = CFSR_FRAME_BATCH; type <= CFSR_FRAME_HEARTBEAT; type++) {
        struct cfsr_link_header header;
        struct cfsr_hello_ack ack;
        struct peer peer;
        if (type == CFSR_FRAME_ACK)
            continue;
        if (!taken(&peer, &ack))
            return false;
        peer_answer(&peer, &ack);
        for (;;) {
            if (frame_read(&peer, &header, ATTACK_WAIT_MS) != 1)
                return peer_close(&peer), attack_fails("no frame to reflect");
            if (header.type == type)
                break;
            frame_drop(&peer, &header);
        }
        peer_send(&peer, peer.in, CFSR_LINK_HEADER_BYTES + header.length_bytes);
        if (!ends(&peer, ENDS_ANYHOW))
            return false;
    }
    return true;
}

static bool heartbeat_of_another_age(void)
{
    static const uint64_t ages[] = {1ull << 63, INT64_MAX, UINT64_MAX};
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(ages); i++) {
        struct cfsr_heartbeat heartbeat = {.wall_us = ages[i], .echo_wall_us = 1};
        struct cfsr_hello_ack ack;
        struct peer peer;
        uint64_t from, to;
        uint16_t lane;
        if (!taken(&peer, &ack))
            return false;
        peer_answer(&peer, &ack);
        uint32_t len = cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES);
        len = cfsr_session_seal(&peer.session, CFSR_FRAME_HEARTBEAT, 0, frame, len);
        peer_send(&peer, frame, len);
        for (int k = 0; k < 2; k++)
            if (!batch_arrives(&peer, &lane, &from, &to))
                return peer_close(&peer), false;
        peer_close(&peer);
    }
    return true;
}

static bool never_answers(void)
{
    struct peer peer;
    return peer_take(&peer) && ends(&peer, 0);
}

/* Takes the answers of nobody's heartbeats and reads nothing: to be given up, and not to be paid
 * for with memory. */
static bool never_reads(void)
{
    uint64_t before = victim_counter("rss_bytes");
    int small = 4096;
    struct cfsr_hello_ack ack;
    struct peer peer;

    setsockopt(world.listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    bool dialled = taken(&peer, &ack);
    small = 1 << 20;
    setsockopt(world.listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (!dialled)
        return false;
    peer_answer(&peer, &ack);
    /* The next dial says that this connection was given up. */
    struct pollfd wait = {.fd = world.listener, .events = POLLIN};
    int rc = poll(&wait, 1, ATTACK_WAIT_MS);
    uint64_t after = victim_counter("rss_bytes");
    peer_close(&peer);
    if (rc <= 0)
        return attack_fails("a peer that never reads is never given up");
    return after < before + (64u << 20) ||
           attack_fails("grew from %llu to %llu bytes", (unsigned long long)before,
                        (unsigned long long)after);
}

struct attack {
    const char *name;
    bool (*run)(void);
    bool counted; /* bad_frames must move */
};
static const struct attack attacks[] = {
    {"cursor in the future", cursor_in_future, false},
    {"cursor within a record", cursor_within_record, false},
    {"cursor without a stamp", cursor_without_stamp, false},
    {"stamp of another place", stamp_elsewhere, false},
    {"lanes that lie", lanes_that_lie, false},
    {"other core, of none", cores_none, false},
    {"other core, of one", cores_one, false},
    {"other core, of two, for ever", cores_two, false},
    {"other core, of 64, for ever", cores_many, false},
    {"other core, of 65,535", cores_absurd, false},
    {"core count that changes", cores_change, false},
    {"ack beyond the head", ack_beyond_head, true},
    {"ack that goes back", ack_backwards, true},
    {"ack of another lane", ack_of_other_lane, true},
    {"ack between two bytes of a record", ack_unaligned, true},
    {"ack of what was not sent", ack_of_the_unsent, false},
    {"ack before the stamps are compared", ack_at_once, false},
    {"20,000 acks", ack_flood, false},
    {"garbage after the answer", garbage_after_answer, true},
    {"reflected frames", reflected, true},
    {"heartbeats of another age", heartbeat_of_another_age, false},
    {"never answers", never_answers, false},
    {"never reads", never_reads, false},
};

int attack_dialer(void)
{
    int failures = 0;

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(attacks); i++) {
        uint64_t before = victim_counter("bad_frames");
        bool passes = attacks[i].run() && dialer_is_well() &&
                      victim_counter("rss_bytes") != UINT64_MAX;
        if (passes && attacks[i].counted && victim_counter("bad_frames") <= before)
            passes = attack_fails("bad_frames did not move");
        failures += !passes;
        printf("%s dialer: %s%s%s\n", passes ? "PASS" : "FAIL", attacks[i].name, passes ? "" : ": ",
               passes ? "" : world.why);
        fflush(stdout);
    }
    return failures;
}
