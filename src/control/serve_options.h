/*
 * serve_options.h - the daemon's tunables: the table, and how flags, environment and INI file
 * become a struct cfsr_serve_config.
 */
#ifndef CFSR_CONTROL_SERVE_OPTIONS_H
#define CFSR_CONTROL_SERVE_OPTIONS_H

#include "control/options.h"
#include "control/serve_config.h"

/* What `cfs-repl serve` was asked: the configuration, and what to do with it. */
struct cfsr_serve_command {
    struct cfsr_serve_config config;
    bool print_config;
};

/* The table: for help, --print-config and tests. */
extern const struct cfsr_option_set cfsr_serve_option_set;

/*
 * Defaults, then the file named by --config, then the flags, then checks over several values. 0, 1
 * (help was asked), -CFSR_E_USAGE, -CFSR_E_CONFIG, -errno; message set. Reads the configuration
 * file, nothing else. A path in origins_out is borrowed from command_out.
 */
int cfsr_serve_options_parse(int argc, char *const *argv, struct cfsr_serve_command *command_out,
                             struct cfsr_option_origins *origins_out);

/* "tcp://HOST:PORT" or "rdma://HOST:PORT", HOST a name, an IPv4 address or an IPv6 address in
 * brackets. 0 or -CFSR_E_USAGE with message. */
int cfsr_endpoint_check(const char *text);
/* The path of a checked endpoint. */
enum cfsr_path cfsr_endpoint_path(const char *endpoint);
/* The same address on another path: "rdma://h:1" as CFSR_PATH_TCP is "tcp://h:1". endpoint is
 * checked. */
void cfsr_endpoint_on_path(const char *endpoint, enum cfsr_path path,
                           char text_out[CFSR_ENDPOINT_TEXT_MAX]);
/* "0,2-3": cpu ids in the order given, each once. Count, or -CFSR_E_USAGE with message. */
int cfsr_cpu_list_parse(const char *text, uint32_t cpus_out[CFSR_CORES_MAX]);
/* "ID:NAME:ENDPOINT" or "ID:NAME:ENDPOINT,ENDPOINT", one a path. 0 or -CFSR_E_USAGE with message.
 */
int cfsr_peer_parse(const char *text, struct cfsr_peer_config *peer_out);

#endif
