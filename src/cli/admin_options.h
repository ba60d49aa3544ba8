/* admin_options.h - option rows and helpers that the `cfs admin replication` commands share. */
#ifndef CFSR_CLI_ADMIN_OPTIONS_H
#define CFSR_CLI_ADMIN_OPTIONS_H

#include <jansson.h>

#include "cli/command.h"

#define CFSR_SOCKET_TEXT_MAX (CFSR_PATH_MAX + 32)

/* type has data_dir, socket and json. */
#define CFSR_ADMIN_ROWS(type)                                                 \
    {.name = "data-dir",                                                      \
     .value_name = "DIR",                                                     \
     .group = "Options",                                                      \
     .kind = CFSR_OPTION_TEXT,                                                \
     .environment = "CFSR_DATA_DIR",                                          \
     .help = "Data directory of the site; its socket is DIR/run/admin.sock.", \
     CFSR_OPTION_FIELD(type, data_dir)},                                      \
        {.name = "socket",                                                    \
         .value_name = "PATH",                                                \
         .group = "Options",                                                  \
         .kind = CFSR_OPTION_TEXT,                                            \
         .help = "The daemon's admin socket, when it is elsewhere.",          \
         CFSR_OPTION_FIELD(type, socket)},                                    \
        CFSR_JSON_OPTION(type)

/* Path of the daemon's socket from --socket or --data-dir; -CFSR_E_USAGE. */
int cfsr_admin_socket_path(const char *socket, const char *data_dir,
                           char path_out[CFSR_SOCKET_TEXT_MAX]);
/* One line of JSON on standard output. */
int cfsr_admin_print_answer(const json_t *answer);

#endif
