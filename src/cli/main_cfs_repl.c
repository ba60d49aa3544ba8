/* main_cfs_repl.c - cfs-repl: the site's journal, its inbox, and the daemon. */
#include <signal.h>

#include "base/bytes.h"
#include "cli/command.h"

int main(int argc, char **argv)
{
    const struct cfsr_command commands[] = {
        cfsr_command_init,           cfsr_command_keygen,         cfsr_command_serve,
        cfsr_command_journal_import, cfsr_command_journal_append, cfsr_command_journal_dump,
        cfsr_command_journal_tail,   cfsr_command_journal_verify, cfsr_command_journal_recover,
        cfsr_command_journal_digest, cfsr_command_inbox_dump,     cfsr_command_inbox_tail,
        cfsr_command_inbox_verify,   cfsr_command_materialize,
    };
    const struct cfsr_program program = {
        .name = "cfs-repl",
        .summary = "Replicates the metadata journal of a filesystem site to other sites: makes "
                   "sites, feeds, "
                   "inspects and checks their journals, and runs the daemon.",
        .commands = commands,
        .count = CFSR_ARRAY_LEN(commands),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* writes report EPIPE */
    return cfsr_program_main(&program, argc, argv);
}
