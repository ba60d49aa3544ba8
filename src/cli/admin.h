/*
 * admin.h - asking the daemon, and reading its status.
 *
 * The status answer is the daemon's status document, schema 1: control/status_json.h,
 * docs/operations.md. Unknown values are null and shown as "unknown"; members that are missing as
 * '-'.
 */
#ifndef CFSR_CLI_ADMIN_H
#define CFSR_CLI_ADMIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

/* Sends one request line and parses the answer. -CFSR_E_UNREACHABLE, -EACCES, -CFSR_E_TIMEOUT,
 * -CFSR_E_FORMAT. The caller owns the answer. */
int cfsr_admin_ask(const char *socket_path, const char *request, json_t **answer_out);

/* What a scrub shall do; the daemon's own settings where nothing is said. */
struct cfsr_admin_scrub {
    int lane;          /* -1: every lane */
    const char *parts; /* "all", "journal", "inbox", "peers" */
    bool rate_given;
    uint64_t rate_bytes_per_s; /* 0: unlimited */
    bool wait;                 /* until it is over */
    uint64_t timeout_ms;       /* of the wait; 0: none */
};
/*
 * Asks the daemon for a scrub and, with wait, for the status when it is over: *answer_out is then
 * the status document (its "scrub" says what came of it), else {"run":N}. Errors as cfsr_admin_ask;
 * -CFSR_E_TIMEOUT.
 */
int cfsr_admin_scrub(const char *socket_path, const struct cfsr_admin_scrub *scrub,
                     json_t **answer_out);
/* Gaps of a status document's last scrub that are not repaired, over all lanes. */
uint64_t cfsr_admin_scrub_open(const json_t *status);
/* The scrub of a status document for people. */
void cfsr_admin_print_scrub(const json_t *status, FILE *out);

/* The status for people. */
void cfsr_admin_print_status(const json_t *status, FILE *out);

/*
 * True if every link is STREAMING, caught up, and its lag_entries 0. Else why_out names the first
 * that is not. A status without links is not caught up: there is nobody to have anything.
 */
bool cfsr_admin_caught_up(const json_t *status, char *why_out, size_t len_bytes);

#endif
