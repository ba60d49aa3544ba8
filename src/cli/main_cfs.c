/* main_cfs.c - cfs: administration of a running site. */
#include <signal.h>

#include "base/bytes.h"
#include "cli/command.h"

int main(int argc, char **argv)
{
    const struct cfsr_command commands[] = {
        cfsr_command_replication_status,
        cfsr_command_replication_wait,
        cfsr_command_replication_scrub,
    };
    const struct cfsr_program program = {
        .name = "cfs",
        .summary = "Administers a running site: asks its daemon through the Unix socket of its "
                   "data directory.",
        .commands = commands,
        .count = CFSR_ARRAY_LEN(commands),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* writes report EPIPE */
    return cfsr_program_main(&program, argc, argv);
}
