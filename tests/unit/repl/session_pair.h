/*
 * session_pair.h - two sites with one key, and a connection between them, for the session tests.
 */
#ifndef CFSR_TESTS_SESSION_PAIR_H
#define CFSR_TESTS_SESSION_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "repl/session.h"

#define SECRET_1 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define SECRET_2 "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff"
#define SECRET_3 "330102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e33"

enum {
    FRAME_BYTES = CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES,
    FROM_A = 0xA1,
    FROM_B = 0xB2
};

/* One daemon: a site, its keyring and what it says of itself. */
struct daemon {
    struct cfsr_site site;
    struct cfsr_session_local local;
    struct cfsr_keyring *keyring;
};

extern struct daemon a, b;               /* sites 1 and 2, one key for all pairs */
extern struct cfsr_session dial, answer; /* a dials b */
extern uint8_t hello_frame[FRAME_BYTES], ack_frame[FRAME_BYTES];
extern uint32_t hello_len, ack_len;
extern struct cfsr_hello_ack ack_seen; /* what the dialer read */

void session_pair_set_up(void);
void session_pair_tear_down(void);

/* Another key file for one of the two. */
void use_keys(struct daemon *daemon, const char *keys);
bool knows_1_and_2(void *user, uint64_t site_id);
/* Fresh sessions of a new connection: nonces of 32 equal bytes. */
void start_sessions(uint64_t peer, uint8_t nonce_a, uint8_t nonce_b);
/* Lanes 3 and 7. */
void send_hello(void);
/* The acceptor's answer to what on_hello() said; returns what the dialer makes of it. */
int answer_with(int status);
/* All of it, accepted. */
void handshake(uint8_t nonce_a, uint8_t nonce_b);

#endif
