/*
 * daemon.h - the daemon: one call that runs `cfs-repl serve` until SIGTERM or SIGINT.
 */
#ifndef CFSR_CONTROL_DAEMON_H
#define CFSR_CONTROL_DAEMON_H

#include "control/serve_config.h"

/*
 * Checks the data directory, takes the daemon lock, recovers journal (if no writer lives) and
 * inbox, starts cores and the control thread, serves until told to stop, drains within 10 s.
 * Returns 0 after an orderly stop, else -errno / -CFSR_E_* with the message set.
 */
int cfsr_daemon_run(const struct cfsr_serve_config *config);

#endif
