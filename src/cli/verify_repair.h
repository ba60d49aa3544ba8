/*
 * verify_repair.h - `cfs-repl journal verify --repair`: what can be put right here, and what the
 * running daemon has to fetch.
 */
#ifndef CFSR_CLI_VERIFY_REPAIR_H
#define CFSR_CLI_VERIFY_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/site.h"

struct cfsr_verify_repair {
    const struct cfsr_site *site;
    const char *socket; /* of the daemon; "": DIR/run/admin.sock */
    uint64_t timeout_ms;
    bool json;
};

/* Makes damaged segment headers anew and says so on standard output. *left_out: places that stay
 * damaged. -errno, -CFSR_E_*. */
int cfsr_verify_repair_headers(const struct cfsr_verify_repair *repair, uint64_t *left_out);
/* Asks the daemon for a scrub of the journal and waits until it is over, whatever came of it.
 * -CFSR_E_UNREACHABLE with what to do, -CFSR_E_TIMEOUT, -EACCES. */
int cfsr_verify_repair_records(const struct cfsr_verify_repair *repair);

#endif
