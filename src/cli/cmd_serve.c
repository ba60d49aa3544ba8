/*
 * cmd_serve.c - `cfs-repl serve`: reads the configuration and runs the daemon.
 *
 * Thread: the main thread, which becomes the daemon's control thread.
 */
#include "cli/command.h"
#include "control/daemon.h"
#include "control/serve_options.h"

static int serve_run(int argc, char *const *argv)
{
    static struct cfsr_serve_command
        command; /* 64 peers: too much for a stack frame that lives as long as the daemon */
    struct cfsr_option_origins origins;
    int rc = cfsr_serve_options_parse(argc, argv, &command, &origins);

    if (rc == 1) {
        cfsr_options_help(&cfsr_serve_option_set, stdout);
        return 0;
    }
    if (rc < 0)
        return rc;
    if (command.print_config) {
        cfsr_options_print(&cfsr_serve_option_set, &command, &origins, stdout);
        return 0;
    }
    cfsr_log_configure(command.config.log_level, command.config.log_format);
    return cfsr_daemon_run(&command.config);
}

const struct cfsr_command cfsr_command_serve = {.set = &cfsr_serve_option_set, .run = serve_run};
