/*
 * attack_peer.c - connections, frames and batches of the attacker (attack.h).
 */
#include "attack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "base/bytes.h"

struct attack_world world;

bool attack_fails(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(world.why, sizeof world.why, fmt, args);
    va_end(args);
    return false;
}

int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void peer_send(struct peer *peer, const void *bytes, size_t len_bytes)
{
    const uint8_t *at = bytes;
    while (len_bytes > 0) {
        ssize_t n = send(peer->fd, at, len_bytes, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        at += n;
        len_bytes -= (size_t)n;
    }
}

static void peer_begin(struct peer *peer, int fd)
{
    *peer = (struct peer){.fd = fd, .in = malloc(ATTACK_FRAME_BYTES)};
    CFSR_ASSERT(fd >= 0 && peer->in != NULL);
}

void peer_dial_plain(struct peer *peer)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)world.victim_port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer_begin(peer, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    (void)connect(peer->fd, (struct sockaddr *)&address, sizeof address); /* the first read tells */
}

void peer_dial(struct peer *peer)
{
    struct cfsr_preamble preamble = {.version = CFSR_PREAMBLE_VERSION};
    uint8_t bytes[CFSR_PREAMBLE_BYTES];

    peer_dial_plain(peer);
    cfsr_preamble_store(&preamble, bytes);
    peer_send(peer, bytes, sizeof bytes);
}

void peer_close(struct peer *peer)
{
    if (peer->live)
        cfsr_session_fini(&peer->session);
    close(peer->fd);
    free(peer->in);
    peer->live = false;
}

int frame_read(struct peer *peer, struct cfsr_link_header *header_out, int limit_ms)
{
    int64_t until = clock_ms() + limit_ms;

    for (;;) {
        struct pollfd wait = {.fd = peer->fd, .events = POLLIN};
        int64_t left = until - clock_ms();
        if (peer->have >= CFSR_LINK_HEADER_BYTES) {
            CFSR_ASSERT(cfsr_link_header_load(peer->in, header_out) == 0);
            if (peer->have >= CFSR_LINK_HEADER_BYTES + header_out->length_bytes)
                return 1;
        }
        if (left <= 0 || poll(&wait, 1, (int)left) <= 0)
            return ATTACK_TIMED_OUT;
        ssize_t n = recv(peer->fd, peer->in + peer->have, ATTACK_FRAME_BYTES - peer->have, 0);
        if (n <= 0)
            return 0;
        peer->have += (size_t)n;
    }
}

void frame_drop(struct peer *peer, const struct cfsr_link_header *header)
{
    size_t bytes = CFSR_LINK_HEADER_BYTES + header->length_bytes;
    peer->have -= bytes;
    memmove(peer->in, peer->in + bytes, peer->have);
}

int peer_ending(struct peer *peer, int limit_ms)
{
    int64_t until = clock_ms() + limit_ms;
    int reason = 0;

    for (;;) {
        struct cfsr_link_header header;
        int rc = frame_read(peer, &header, (int)cfsr_max_u64(1, (uint64_t)(until - clock_ms())));
        if (rc <= 0)
            return rc == 0 ? reason : ATTACK_TIMED_OUT;
        if (header.type == CFSR_FRAME_GOODBYE) {
            struct cfsr_goodbye goodbye;
            if (cfsr_goodbye_load(peer->in + CFSR_LINK_HEADER_BYTES, header.length_bytes,
                                  &goodbye) == 0)
                reason = goodbye.reason;
            shutdown(peer->fd, SHUT_WR);
        }
        frame_drop(peer, &header);
    }
}

/* ---- as dialer ---- */

int peer_hello(struct peer *peer, uint64_t lane_mask)
{
    uint8_t nonce[32], frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    struct cfsr_link_header header;

    cfsr_random_bytes(nonce, sizeof nonce);
    CFSR_ASSERT(cfsr_session_init(&peer->session, &world.local, true, world.victim_id, nonce) == 0);
    peer->live = true;
    int len = cfsr_session_hello(&peer->session, lane_mask, world.cursor, 1000000, frame);
    CFSR_ASSERT(len > 0);
    peer_send(peer, frame, (size_t)len);
    int rc = frame_read(peer, &header, ATTACK_WAIT_MS);
    if (rc <= 0)
        return rc == 0 ? -EPIPE : -ETIMEDOUT;
    rc = cfsr_session_on_hello_ack(&peer->session, peer->in,
                                   CFSR_LINK_HEADER_BYTES + header.length_bytes, &peer->answer);
    frame_drop(peer, &header);
    return rc;
}

void peer_heartbeat(struct peer *peer)
{
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    struct cfsr_heartbeat heartbeat = {.wall_us = 1000000};
    uint32_t len = cfsr_heartbeat_store(&heartbeat, frame + CFSR_LINK_HEADER_BYTES);
    len = cfsr_session_seal(&peer->session, CFSR_FRAME_HEARTBEAT, 0, frame, len);
    peer_send(peer, frame, len);
}

static uint64_t all_lanes(void)
{
    return world.site.lanes >= 64 ? UINT64_MAX : (1ull << world.site.lanes) - 1;
}

int peer_open(struct peer *peer)
{
    peer_dial(peer);
    int rc = peer_hello(peer, all_lanes());
    if (rc == 0)
        peer_heartbeat(peer);
    return rc;
}

/* ---- as acceptor ---- */

bool peer_take(struct peer *peer)
{
    struct pollfd wait = {.fd = world.listener, .events = POLLIN};
    uint8_t nonce[32], preamble[CFSR_PREAMBLE_BYTES];

    if (poll(&wait, 1, ATTACK_WAIT_MS) <= 0)
        return attack_fails("the victim does not dial");
    peer_begin(peer, accept4(world.listener, NULL, NULL, SOCK_CLOEXEC));
    cfsr_random_bytes(nonce, sizeof nonce);
    CFSR_ASSERT(cfsr_session_init(&peer->session, &world.local, false, 0, nonce) == 0);
    peer->live = true;
    if (recv(peer->fd, preamble, sizeof preamble, MSG_WAITALL) == sizeof preamble) {
        struct cfsr_link_header header;
        if (frame_read(peer, &header, ATTACK_WAIT_MS) == 1)
            return true; /* the HELLO lies at peer->in */
    }
    peer_close(peer);
    return attack_fails("the victim dials and says no HELLO");
}

static bool everybody(void *user, uint64_t site_id)
{
    (void)user;
    (void)site_id;
    return true;
}

void answer_fresh(const struct peer *peer, struct cfsr_hello_ack *ack_out)
{
    struct cfsr_hello hello;

    CFSR_ASSERT(cfsr_hello_load(peer->in + CFSR_LINK_HEADER_BYTES, cfsr_load_le32(peer->in + 8),
                                &hello) == 0);
    *ack_out = (struct cfsr_hello_ack){.lane_mask = hello.lane_mask, .wall_us = 1000000};
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++)
        ack_out->lane[lane].last.lsn = UINT64_MAX;
}

void peer_answer(struct peer *peer, struct cfsr_hello_ack *ack)
{
    uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    struct cfsr_link_header header;

    CFSR_ASSERT(cfsr_link_header_load(peer->in, &header) == 0);
    CFSR_ASSERT(cfsr_session_on_hello(&peer->session, peer->in,
                                      CFSR_LINK_HEADER_BYTES + header.length_bytes, everybody,
                                      NULL) == 0);
    frame_drop(peer, &header);
    int len = cfsr_session_hello_ack(&peer->session, ack, frame);
    CFSR_ASSERT(len > 0);
    peer_send(peer, frame, (size_t)len);
}

/* ---- batches ---- */

void forge_record(struct forge *forge, uint8_t op, uint64_t seq, uint32_t shard,
                  const void *payload, uint32_t payload_bytes, uint64_t site_id)
{
    uint8_t *record = forge->raw + forge->raw_bytes;
    struct cfsr_record_header header = {
        .payload_bytes = payload_bytes,
        .seq = seq,
        .timestamp_us = 1000000 + seq,
        .inode = shard,
        .site_id = site_id,
        .shard_id = shard,
        .op = op,
    };

    cfsr_record_header_store(record, &header);
    uint32_t wire_bytes = cfsr_record_wire_bytes(&header);
    memset(record + CFSR_RECORD_HEADER_BYTES, 0, wire_bytes - CFSR_RECORD_HEADER_BYTES);
    if (payload != NULL)
        memcpy(record + CFSR_RECORD_HEADER_BYTES, payload, payload_bytes);
    cfsr_record_seal(record, cfsr_record_seed(&world.site.journal), forge->header.lsn_to);
    forge->raw_bytes += wire_bytes;
    forge->header.lsn_to += cfsr_record_total_bytes(&header);
    if (cfsr_record_is_entry(op))
        forge->header.entry_count++;
}

void forge_begin(struct forge *forge, uint16_t lane, uint32_t bytes)
{
    static uint8_t payload[ATTACK_RAW_BYTES];

    forge->raw_bytes = 0;
    forge->link_flags = CFSR_FRAME_ACK_NOW;
    forge->sign_id = 1;
    forge->header = (struct cfsr_batch_header){
        .lane = lane,
        .site_id = world.site.site_id,
        .journal = world.site.journal,
        .lsn_from = world.cursor[lane],
        .lsn_to = world.cursor[lane],
        .prepared_at_us = 1000000,
        .incarnation = 1,
    };
    for (uint32_t i = 0; i < bytes; i++)
        payload[i] = (uint8_t)(i * 2654435761u >> 24);
    forge_record(forge, 1, world.seq[lane], lane, payload, bytes, world.site.site_id);
}

void forge_finish(struct forge *forge, struct peer *peer,
                  void (*mutate)(struct forge *forge, enum forge_stage stage))
{
    uint8_t *prefix = forge->frame + CFSR_LINK_HEADER_BYTES;
    struct cfsr_batch_header *header = &forge->header;
    struct cfsr_mac_key *key = NULL;

    if (mutate != NULL)
        mutate(forge, FORGE_RAW);
    CFSR_ASSERT(cfsr_batch_encode(world.codec, forge->raw, forge->raw_bytes,
                                  prefix + CFSR_BATCH_PREFIX_BYTES, CFSR_BATCH_BODY_MAX_BYTES,
                                  header) == 0);
    forge->link_bytes = CFSR_BATCH_PREFIX_BYTES + header->stored_bytes;
    if (mutate != NULL)
        mutate(forge, FORGE_HEADER);
    cfsr_batch_header_store(header, prefix);
    CFSR_ASSERT(cfsr_session_batch_key(world.keyring, 1, &world.site.cluster, world.site.site_id,
                                       world.victim_id, &key) == 0);
    if (mutate != NULL)
        mutate(forge, FORGE_PREFIX);
    cfsr_batch_sign(key, forge->sign_id, prefix, NULL, 0);
    cfsr_mac_key_destroy(key);
    cfsr_session_seal_batch(&peer->session, forge->link_flags, prefix + CFSR_BATCH_TAG_OFFSET,
                            forge->link_bytes, forge->frame);
    forge->frame_bytes = CFSR_LINK_HEADER_BYTES + forge->link_bytes;
    if (mutate != NULL)
        mutate(forge, FORGE_FRAME);
}

/* ---- the victim ---- */

static bool store_one(struct peer *peer, uint16_t lane)
{
    static struct forge forge;
    struct cfsr_link_header header;
    struct cfsr_ack ack;

    forge_begin(&forge, lane, 9000); /* more than fits a small receive buffer */
    forge_finish(&forge, peer, NULL);
    peer_send(peer, forge.frame, forge.frame_bytes);
    for (;;) {
        int rc = frame_read(peer, &header, ATTACK_WAIT_MS);
        if (rc <= 0)
            return attack_fails("a good batch of lane %u: %s", lane, rc == 0 ? "closed" : "no ack");
        bool is_ack = header.type == CFSR_FRAME_ACK &&
                      cfsr_ack_load(peer->in + CFSR_LINK_HEADER_BYTES, header.length_bytes, &ack) ==
                          0;
        rc = cfsr_session_open(&peer->session, &header, peer->in);
        if (rc < 0 || header.type == CFSR_FRAME_GOODBYE)
            return attack_fails("a good connection is answered with %s",
                                rc < 0 ? cfsr_error_name(rc) : "a goodbye");
        frame_drop(peer, &header);
        for (unsigned i = 0; is_ack && i < ack.count; i++) {
            if (ack.lane[i].lane != lane || ack.lane[i].durable_lsn != forge.header.lsn_to)
                continue;
            world.cursor[lane] = forge.header.lsn_to;
            world.seq[lane]++;
            return true;
        }
    }
}

bool victim_is_well(unsigned tries)
{
    struct peer peer;
    bool well = true;
    int rc;

    while ((rc = peer_open(&peer)) < 0) {
        peer_close(&peer);
        if (--tries == 0)
            return attack_fails("a good connection is refused: %s", cfsr_error_name(rc));
    }
    for (uint16_t lane = 0; well && lane < world.site.lanes; lane++) {
        if (peer.answer.lane[lane].cursor != world.cursor[lane])
            well = attack_fails(
                "lane %u stands at %llu instead of %llu: something was stored or lost", lane,
                (unsigned long long)peer.answer.lane[lane].cursor,
                (unsigned long long)world.cursor[lane]);
        well = well && store_one(&peer, lane);
    }
    peer_close(&peer);
    return well;
}

uint64_t victim_counter(const char *name)
{
    static char text[1 << 20];
    static const char request[] = "{\"command\":\"status\"}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char wanted[64];
    size_t have = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%.*s", (int)sizeof address.sun_path - 1,
             world.admin_path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) > 0) {
        ssize_t n;
        while (have < sizeof text - 1 &&
               (n = recv(fd, text + have, sizeof text - 1 - have, 0)) > 0) {
            have += (size_t)n;
            if (text[have - 1] == '\n')
                break;
        }
    }
    close(fd);
    text[have] = '\0';
    snprintf(wanted, sizeof wanted, "\"%s\":", name);
    const char *at = strstr(text, wanted);
    return at != NULL ? strtoull(at + strlen(wanted), NULL, 10) : UINT64_MAX;
}

bool is_counted(uint64_t before)
{
    for (int64_t until = clock_ms() + ATTACK_WAIT_MS; clock_ms() < until; (void)poll(NULL, 0, 10))
        if (victim_counter("bad_frames") + victim_counter("refused_in") > before)
            return true;
    return attack_fails("neither bad_frames nor refused_in moved");
}
