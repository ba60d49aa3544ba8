/*
 * attack.h - a peer that holds the key and does not keep to the protocol: plumbing of the attacker.
 *
 * One thread, blocking sockets with a limit on every wait. It speaks with the daemon's own session
 * and batch code, so that everything is right but what an attack makes wrong.
 */
#ifndef CFSR_TESTS_ATTACK_H
#define CFSR_TESTS_ATTACK_H

#include <stdbool.h>
#include <stdint.h>

#include "pipeline/batch.h"
#include "repl/session.h"
#include "transport/transport.h"

#define ATTACK_RAW_BYTES   CFSR_CODEC_INPUT_MAX_BYTES
#define ATTACK_FRAME_BYTES (CFSR_FRAME_MAX_BYTES + 4096)
#define ATTACK_WAIT_MS     10000
#define ATTACK_TIMED_OUT   (-1)

/* Who we are and whom we attack. */
struct attack_world {
    struct cfsr_site site;
    struct cfsr_keyring *keyring;
    struct cfsr_session_local local;
    uint64_t victim_id;
    int victim_port;
    int listener; /* the victim dials it; -1: it does not */
    char admin_path[1024];
    struct cfsr_batch_codec *codec;
    uint64_t cursor[CFSR_LANES_MAX]; /* what the victim must have of us */
    uint64_t seq[CFSR_LANES_MAX];    /* next of the one shard used in a lane */
    char why[256];                   /* of the attack that fails */
};
extern struct attack_world world;

/* A connection to the victim, or from it. */
struct peer {
    int fd;
    bool live; /* the session is to be ended */
    struct cfsr_session session;
    struct cfsr_hello_ack answer;
    uint8_t *in;
    size_t have;
};

/* A batch on its way to be wrong. */
struct forge {
    struct cfsr_batch_header header;
    uint32_t raw_bytes, link_bytes, frame_bytes;
    uint16_t link_flags;
    uint32_t sign_id; /* key id written by the signature */
    uint8_t raw[ATTACK_RAW_BYTES];
    uint8_t frame[ATTACK_FRAME_BYTES]; /* link header, prefix, extension, body */
};
enum forge_stage {
    FORGE_RAW,
    FORGE_HEADER,
    FORGE_PREFIX,
    FORGE_FRAME
};

/* Always false; the words end up beside FAIL. */
bool attack_fails(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* To the victim. */
void peer_dial_plain(struct peer *peer); /* connects and says nothing */
void peer_dial(struct peer *peer);       /* connects and sends the preamble */
void peer_send(struct peer *peer, const void *bytes,
               size_t len_bytes); /* a closed peer is ignored */
int peer_hello(struct peer *peer,
               uint64_t lane_mask); /* 0 and peer->answer, or -CFSR_E_*, or -EPIPE */
void peer_heartbeat(struct peer *peer);
int peer_open(struct peer *peer); /* all of it, proven */
void peer_close(struct peer *peer);
/* From the victim: its HELLO is read, the session answers it as told. */
bool peer_take(struct peer *peer);
void peer_answer(struct peer *peer, struct cfsr_hello_ack *ack);
void answer_fresh(const struct peer *peer, struct cfsr_hello_ack *ack_out); /* "never seen you" */

/* 1 and the frame at peer->in; 0: the peer closed; ATTACK_TIMED_OUT. frame_drop() afterwards. */
int frame_read(struct peer *peer, struct cfsr_link_header *header_out, int limit_ms);
void frame_drop(struct peer *peer, const struct cfsr_link_header *header);
/* Reads to the end: the reason of the GOODBYE (0 if there was none), or ATTACK_TIMED_OUT. */
int peer_ending(struct peer *peer, int limit_ms);

/* Appends a record at the batch's end. */
void forge_record(struct forge *forge, uint8_t op, uint64_t seq, uint32_t shard,
                  const void *payload, uint32_t payload_bytes, uint64_t site_id);
/* A right batch of one entry with `bytes` of payload at the victim's cursor of the lane. */
void forge_begin(struct forge *forge, uint16_t lane, uint32_t bytes);
void forge_finish(struct forge *forge, struct peer *peer,
                  void (*mutate)(struct forge *forge, enum forge_stage stage));

/* A new connection stores one more entry in every lane and gets its acks; the cursors tell that
 * nothing else did. */
bool victim_is_well(unsigned tries);
uint64_t victim_counter(const char *name);
bool is_counted(uint64_t before); /* bad_frames + refused_in go above it */
int64_t clock_ms(void);

/* The suites: batches and handshakes, questions, and a victim that dials. Number of failures. */
int attack_acceptor(void);
int attack_queries(void);
int attack_dialer(void);

#endif
