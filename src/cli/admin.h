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
#include <stdio.h>

#include <jansson.h>

/* Sends one request line and parses the answer. -CFSR_E_UNREACHABLE, -EACCES, -CFSR_E_TIMEOUT,
 * -CFSR_E_FORMAT. The caller owns the answer. */
int cfsr_admin_ask(const char *socket_path, const char *request, json_t **answer_out);

/* The status for people. */
void cfsr_admin_print_status(const json_t *status, FILE *out);

/*
 * True if every link is STREAMING, caught up, and its lag_entries 0. Else why_out names the first
 * that is not. A status without links is not caught up: there is nobody to have anything.
 */
bool cfsr_admin_caught_up(const json_t *status, char *why_out, size_t len_bytes);

#endif
