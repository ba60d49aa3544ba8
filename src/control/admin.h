/*
 * admin.h - the admin socket: one JSON object a line in, one JSON object a line out, over a Unix
 * stream socket.
 *
 * Callers must be root or the daemon's own user (SO_PEERCRED); others get {"error":"permission …"}
 * and are cut off. At most 16 clients; a line of at most 64 KiB; a client that does not read its
 * answer for 5 s is dropped. Requests: {"command":"status"},
 * {"command":"scrub", …} (control/scrub_json.h). Control thread only; never blocks.
 */
#ifndef CFSR_CONTROL_ADMIN_H
#define CFSR_CONTROL_ADMIN_H

#include <jansson.h>
#include <poll.h>
#include <stdint.h>

#define CFSR_ADMIN_CLIENTS_MAX 16

struct cfsr_admin;

/* Answers one request: a new reference (never NULL but for lack of memory). */
typedef json_t *cfsr_admin_handler(void *user, const json_t *request);

/* Binds path (mode 0600), replacing a stale socket that nobody listens on. -EADDRINUSE if a daemon
 * answers there. */
int cfsr_admin_create(const char *path, cfsr_admin_handler *handler, void *user,
                      struct cfsr_admin **admin_out);
/* Closes clients, unlinks the socket. */
void cfsr_admin_destroy(struct cfsr_admin *admin);
/* Fills fds (CFSR_ADMIN_CLIENTS_MAX + 1 of them at most); returns how many. */
unsigned cfsr_admin_poll_fds(const struct cfsr_admin *admin, struct pollfd *fds_out);
/* Handles what poll() reported in the same fds. */
void cfsr_admin_turn(struct cfsr_admin *admin, const struct pollfd *fds, unsigned count,
                     uint64_t now_ns);

#endif
