/*
 * attacker.c - a hostile peer for the end-to-end tests (attack.sh).
 *
 *   attacker accept DATA KEY VICTIM_ID VICTIM_PORT ADMIN_SOCKET         attacks a daemon that
 * listens attacker dial   DATA KEY VICTIM_ID LISTEN_PORT ADMIN_SOCKET         attacks a daemon that
 * dials us
 *
 * DATA: data directory whose identity is taken on (its journal is not read). Prints PASS or FAIL
 * for each attack; exit 0 if all passed.
 */
#include "attack.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "base/assert.h"
#include "core/file.h"

static int listen_at(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 64) < 0) {
        perror("attacker: listen");
        exit(2);
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct cfsr_codec_config codec = {
        .codec = CFSR_CODEC_LZ4, .level = 1, .min_compress_bytes = 256};
    int failures;

    if (argc != 7) {
        fprintf(stderr, "usage: attacker accept|dial DATA KEY VICTIM_ID PORT ADMIN_SOCKET\n");
        return 2;
    }
    bool accepts = strcmp(argv[1], "accept") == 0;
    int rc = cfsr_security_init();
    if (rc == 0)
        rc = cfsr_site_load(cfsr_fs_blocking(), argv[2], &world.site);
    if (rc == 0)
        rc = cfsr_keyring_load(argv[3], &world.keyring);
    if (rc == 0)
        rc = cfsr_batch_codec_create(&codec, &world.codec);
    if (rc < 0) {
        fprintf(stderr, "attacker: %s\n", cfsr_error_message());
        return 2;
    }
    world.victim_id = strtoull(argv[4], NULL, 10);
    world.victim_port = (int)strtol(argv[5], NULL, 10);
    snprintf(world.admin_path, sizeof world.admin_path, "%s", argv[6]);
    world.local = (struct cfsr_session_local){
        .site = &world.site, .keyring = world.keyring, .cores = 1};
    world.listener = accepts ? -1 : listen_at(world.victim_port);
    for (unsigned lane = 0; lane < CFSR_LANES_MAX; lane++)
        world.seq[lane] = 1;
    failures = accepts ? attack_acceptor() + attack_queries() : attack_dialer();
    printf("%d attacks failed\n", failures);
    cfsr_batch_codec_destroy(world.codec);
    cfsr_keyring_destroy(world.keyring);
    if (world.listener >= 0)
        close(world.listener);
    return failures == 0 ? 0 : 1;
}
