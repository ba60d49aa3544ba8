/*
 * session_pair.c - two sites with one key, and a connection between them, for the session tests.
 */
#include "session_pair.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

static struct cfsr_keyring *make_keyring(const char *lines)
{
    char path[] = "/tmp/cfsr-session-XXXXXX";
    int fd = mkstemp(path); /* mode 0600 */
    cr_assert_geq(fd, 0);
    cr_assert_gt(dprintf(fd, "cfs-repl-keyring 1\n%s", lines), 0);
    close(fd);
    struct cfsr_keyring *keyring = NULL;
    int rc = cfsr_keyring_load(path, &keyring);
    unlink(path);
    cr_assert_eq(rc, 0, "%s", cfsr_error_message());
    return keyring;
}

static void daemon_make(struct daemon *daemon, uint64_t site_id, const char *keys)
{
    memset(daemon, 0, sizeof *daemon);
    for (unsigned i = 0; i < 16; i++)
        daemon->site.cluster.bytes[i] = (uint8_t)(0x10 + i);
    memset(daemon->site.journal.bytes, (int)site_id, 16);
    daemon->site.site_id = site_id;
    daemon->site.lanes = 8;
    daemon->site.shards = 256;
    daemon->site.segment_bytes = 64ull << 20;
    snprintf(daemon->site.name, sizeof daemon->site.name, "site-%llu", (unsigned long long)site_id);
    daemon->keyring = make_keyring(keys);
    daemon->local = (struct cfsr_session_local){.site = &daemon->site,
                                                .keyring = daemon->keyring,
                                                .features = 5, /* bit 2: of a later version */
                                                .core = 0,
                                                .cores = 1,
                                                .epoch = site_id};
    memset(daemon->local.session_id, 0xC3, sizeof daemon->local.session_id);
}

struct daemon a, b;
struct cfsr_session dial, answer;
uint8_t hello_frame[FRAME_BYTES], ack_frame[FRAME_BYTES];
uint32_t hello_len, ack_len;
struct cfsr_hello_ack ack_seen;

bool knows_1_and_2(void *user, uint64_t site_id)
{
    (void)user;
    return site_id == 1 || site_id == 2;
}

void start_sessions(uint64_t peer, uint8_t nonce_a, uint8_t nonce_b)
{
    uint8_t nonce[32];
    cfsr_session_fini(&dial);
    cfsr_session_fini(&answer);
    memset(nonce, nonce_a, sizeof nonce);
    cr_assert_eq(cfsr_session_init(&dial, &a.local, true, peer, nonce), 0);
    memset(nonce, nonce_b, sizeof nonce);
    cr_assert_eq(cfsr_session_init(&answer, &b.local, false, 0, nonce), 0);
}

void send_hello(void)
{
    static const uint64_t ends[CFSR_LANES_MAX] = {10, 11, 12, 13, 14, 15, 16, 17};
    int len = cfsr_session_hello(&dial, 0x88, ends, 1000, hello_frame);
    cr_assert_gt(len, 0, "%s", cfsr_error_message());
    hello_len = (uint32_t)len;
}

int answer_with(int status)
{
    static struct cfsr_hello_ack ack;
    ack = (struct cfsr_hello_ack){.status = status, .lane_mask = 0x88, .wall_us = 2000};
    ack.lane[3].cursor = 4711;
    ack.lane[7].last.lsn = UINT64_MAX;
    int len = cfsr_session_hello_ack(&answer, &ack, ack_frame);
    cr_assert_gt(len, 0);
    ack_len = (uint32_t)len;
    return cfsr_session_on_hello_ack(&dial, ack_frame, ack_len, &ack_seen);
}

void handshake(uint8_t nonce_a, uint8_t nonce_b)
{
    start_sessions(2, nonce_a, nonce_b);
    send_hello();
    cr_assert_eq(cfsr_session_on_hello(&answer, hello_frame, hello_len, knows_1_and_2, NULL), 0,
                 "%s", cfsr_error_message());
    cr_assert_eq(answer_with(0), 0, "%s", cfsr_error_message());
}

void session_pair_set_up(void)
{
    cr_assert_eq(cfsr_security_init(), 0);
    daemon_make(&a, 1, "key 1 site-pair * " SECRET_1 "\n");
    daemon_make(&b, 2, "key 1 site-pair * " SECRET_1 "\n");
}

void session_pair_tear_down(void)
{
    cfsr_session_fini(&dial);
    cfsr_session_fini(&answer);
    cfsr_keyring_destroy(a.keyring);
    cfsr_keyring_destroy(b.keyring);
}

void use_keys(struct daemon *daemon, const char *keys)
{
    cfsr_keyring_destroy(daemon->keyring);
    daemon->keyring = make_keyring(keys);
    daemon->local.keyring = daemon->keyring;
}
