/*
 * attack_query.c - a hostile peer that asks: QUERY and REPLY where, when and as they must not be.
 */
#include "attack.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"

static bool ends_with(struct peer *peer, int wanted)
{
    int reason = peer_ending(peer, ATTACK_WAIT_MS);
    peer_close(peer);
    return reason == wanted || attack_fails("ended with %s, wanted %s",
                                            reason < 0 ? "nothing" : cfsr_error_name(-reason),
                                            cfsr_error_name(-wanted));
}

static bool open_asking(struct peer *peer)
{
    if (peer_open(peer) == 0)
        return true;
    peer_close(peer);
    return attack_fails("refused");
}

/* A question that is right: the first records of the victim's own journal. */
static struct cfsr_query question(const struct peer *peer, uint64_t id)
{
    return (struct cfsr_query){.id = id,
                               .kind = CFSR_QUERY_RECORDS,
                               .origin = world.victim_id,
                               .journal = peer->answer.journal,
                               .lsn_to = 1 << 20};
}

static void send_question(struct peer *peer, const struct cfsr_query *query, uint32_t at,
                          uint8_t flip)
{
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    uint32_t len = cfsr_query_store(query, frame + CFSR_LINK_HEADER_BYTES);

    frame[CFSR_LINK_HEADER_BYTES + at] ^= flip;
    len = cfsr_session_seal(&peer->session, CFSR_FRAME_QUERY, 0, frame, len);
    peer_send(peer, frame, len);
}

/* The next REPLY, other frames passed over: its status, or -1. */
static int read_reply(struct peer *peer)
{
    struct cfsr_link_header header;
    struct cfsr_reply reply;

    for (int64_t until = clock_ms() + ATTACK_WAIT_MS; clock_ms() < until;) {
        if (frame_read(peer, &header, ATTACK_WAIT_MS) != 1 || header.type == CFSR_FRAME_GOODBYE)
            return -1;
        bool mine = header.type == CFSR_FRAME_REPLY;
        int rc = cfsr_session_open(&peer->session, &header, peer->in);
        if (rc == 0 && mine)
            rc = cfsr_reply_load(peer->in + CFSR_LINK_HEADER_BYTES, header.length_bytes, &reply);
        frame_drop(peer, &header);
        if (rc < 0)
            return -1;
        if (mine)
            return reply.status;
    }
    return -1;
}

static bool good_question(void)
{
    struct peer peer;

    if (!open_asking(&peer))
        return false;
    for (uint64_t id = 1; id <= 50; id++) {
        struct cfsr_query query = question(&peer, id);
        send_question(&peer, &query, 0, 0);
        int status = read_reply(&peer);
        if (status != 0)
            return peer_close(&peer), attack_fails("answered with %d", status);
    }
    peer_close(&peer);
    return true;
}

static bool before_hello(void)
{
    struct peer peer, stranger;

    if (!open_asking(&peer))
        return false;
    struct cfsr_query query = question(&peer, 1);
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    uint32_t len = cfsr_query_store(&query, frame + CFSR_LINK_HEADER_BYTES);
    len = cfsr_session_seal(&peer.session, CFSR_FRAME_QUERY, 0, frame, len);
    peer_close(&peer);
    peer_dial(&stranger);
    peer_send(&stranger, frame, len);
    return ends_with(&stranger, 0);
}

static bool before_the_key_is_proven(void)
{
    struct peer peer;

    peer_dial(&peer);
    if (peer_hello(&peer, 1) < 0)
        return peer_close(&peer), attack_fails("refused");
    struct cfsr_query query = question(&peer, 1);
    send_question(&peer, &query, 0, 0);
    return ends_with(&peer, 0);
}

static bool without_the_feature(void)
{
    struct peer peer;

    world.local.features = 0;
    bool opened = open_asking(&peer);
    world.local.features = CFSR_FEATURE_QUERY;
    if (!opened)
        return false;
    struct cfsr_query query = question(&peer, 1);
    send_question(&peer, &query, 0, 0);
    return ends_with(&peer, CFSR_E_BAD_FRAME);
}

static bool malformed(void)
{
    /* Bytes of the payload: head, id, kind, lane, zeros, a lane not carried, an uneven LSN. */
    static const struct {
        uint32_t at;
        uint8_t flip;
    } flips[] = {{0, 1}, {2, 1}, {4, 1}, {8, 2}, {16, 4}, {18, 64}, {20, 1}, {48, 4}, {64, 1}};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(flips); i++) {
        struct peer peer;
        if (!open_asking(&peer))
            return false;
        struct cfsr_query query = question(&peer, 1);
        send_question(&peer, &query, flips[i].at, flips[i].flip);
        if (!ends_with(&peer, CFSR_E_BAD_FRAME))
            return false;
    }
    return true;
}

/* Is answered that there is nothing, and the connection lives. */
static bool for_what_is_not_there(void)
{
    struct peer peer;

    if (!open_asking(&peer))
        return false;
    for (uint64_t id = 1; id <= 4; id++) {
        struct cfsr_query query = question(&peer, id);
        if (id == 1)
            query.origin = 4711;
        if (id == 2)
            query.journal.bytes[3] ^= 1;
        if (id == 3) {
            query.lsn_from = 1ull << 60;
            query.lsn_to = 1ull << 61;
        }
        if (id == 4)
            query.lsn_from = 8; /* within a record */
        send_question(&peer, &query, 0, 0);
        int status = read_reply(&peer);
        if (status <= 0)
            return peer_close(&peer), attack_fails("question %d: %d", (int)id, status);
    }
    peer_close(&peer);
    return true;
}

static bool flood(void)
{
    struct peer peer;

    if (!open_asking(&peer))
        return false;
    for (uint64_t id = 1; id <= 2000; id++) {
        struct cfsr_query query = question(&peer, id);
        send_question(&peer, &query, 0, 0);
    }
    return ends_with(&peer, CFSR_E_BAD_FRAME);
}

/* Its header is enough: the bytes are never waited for. */
static bool reply_unasked(void)
{
    uint8_t bytes[CFSR_LINK_HEADER_BYTES + CFSR_REPLY_BYTES] = {0};
    struct cfsr_link_header header = {
        .version = 1, .type = CFSR_FRAME_REPLY, .length_bytes = 1u << 20, .link_seq = 1};
    struct peer peer;

    if (!open_asking(&peer))
        return false;
    cfsr_link_header_store(&header, bytes);
    peer_send(&peer, bytes, sizeof bytes);
    return ends_with(&peer, CFSR_E_BAD_FRAME);
}

static bool reply_too_large(void)
{
    uint8_t bytes[CFSR_LINK_HEADER_BYTES] = {0};
    struct cfsr_link_header header = {.version = 1,
                                      .type = CFSR_FRAME_REPLY,
                                      .length_bytes = CFSR_FRAME_MAX_BYTES,
                                      .link_seq = 1};
    struct peer peer;

    if (!open_asking(&peer))
        return false;
    cfsr_link_header_store(&header, bytes);
    peer_send(&peer, bytes, sizeof bytes);
    return ends_with(&peer, CFSR_E_TOO_LARGE);
}

/* Asks for a MiB again and again and reads nothing of it. */
static bool answers_never_read(void)
{
    uint64_t before = victim_counter("rss_bytes");

    for (unsigned i = 0; i < 8; i++) {
        struct peer peer;
        if (!open_asking(&peer))
            return false;
        struct cfsr_query query = question(&peer, 1);
        send_question(&peer, &query, 0, 0);
        (void)poll(NULL, 0, 20);
        peer_close(&peer);
    }
    uint64_t after = victim_counter("rss_bytes");
    return after < before + (64u << 20) ||
           attack_fails("grew from %llu to %llu bytes", (unsigned long long)before,
                        (unsigned long long)after);
}

static const struct {
    const char *name;
    bool (*run)(void);
    bool counted;
} attacks[] = {
    {"good questions are answered", good_question, false},
    {"QUERY before HELLO", before_hello, true},
    {"QUERY before the key is proven", before_the_key_is_proven, true},
    {"QUERY without the feature", without_the_feature, true},
    {"malformed QUERY", malformed, true},
    {"QUERY for what is not there", for_what_is_not_there, false},
    {"QUERY flood", flood, true},
    {"REPLY nobody asked for", reply_unasked, true},
    {"REPLY larger than a frame", reply_too_large, true},
    {"answers that are never read", answers_never_read, false},
};

int attack_queries(void)
{
    int failures = 0;

    world.local.features = CFSR_FEATURE_QUERY;
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(attacks); i++) {
        uint64_t before = victim_counter("bad_frames") + victim_counter("refused_in");
        bool passes = attacks[i].run() && (!attacks[i].counted || is_counted(before)) &&
                      victim_is_well(3);
        failures += !passes;
        printf("%s query: %s%s%s\n", passes ? "PASS" : "FAIL", attacks[i].name, passes ? "" : ": ",
               passes ? "" : world.why);
        fflush(stdout);
    }
    world.local.features = 0;
    return failures;
}
