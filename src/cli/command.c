/*
 * command.c - finds the command, runs it, prints its error, gives the exit code.
 *
 * Thread: the main thread. Errors are printed here and nowhere else, so that a command has one line
 * of error however deep it came from.
 */
#include "cli/command.h"

#include <errno.h>
#include <string.h>

#include <cfsrepl/version.h>

#include "base/assert.h"
#include "base/fail.h"
#include "base/nearest.h"
#include "cli/exit_code.h"

#define COMMANDS_MAX 32

static void print_error(const struct cfsr_program *program, int rc)
{
    const char *message = cfsr_error_message();

    (void)fflush(stdout);
    fprintf(stderr, "%s: %s\n", program->name, message[0] != '\0' ? message : cfsr_strerror(rc));
}

static void print_program_help(const struct cfsr_program *program, FILE *out)
{
    fprintf(out, "Usage: %s COMMAND [options]\n\n", program->name);
    cfsr_print_wrapped(out, program->summary, 0, 0, 96);
    fprintf(out, "\nCommands ('%s COMMAND --help' for its options):\n", program->name);
    for (unsigned i = 0; i < program->count; i++) {
        const struct cfsr_option_set *set = program->commands[i].set;
        const char *stop = strchr(set->summary, '.'); /* the first sentence */
        int len = stop != NULL ? (int)(stop - set->summary) : (int)strlen(set->summary);

        char text[200];

        snprintf(text, sizeof text, "%.*s", len, set->summary);
        fprintf(out, "  %-26s", set->command);
        cfsr_print_wrapped(out, text, 28, 28, 96);
    }
    fprintf(out, "\n  --version%*sVersions of the program, its libraries, and io_uring features.\n",
            17, "");
    fprintf(out, "\nExit codes: 0 ok, 1 failed, 2 usage, 69 daemon unreachable, 74 input/output, "
                 "75 try again,\n"
                 "77 permission, 78 configuration.\n");
}

/* Number of words of `command` that argv begins with; all of them: a match. */
static int words_matched(const char *command, int argc, char *const *argv, int *words_out)
{
    int matched = 0;

    *words_out = 0;
    while (*command != '\0') {
        size_t len = strcspn(command, " ");

        if (matched == *words_out && matched < argc && strlen(argv[matched]) == len &&
            memcmp(argv[matched], command, len) == 0)
            matched++;
        *words_out += 1;
        command += len + (command[len] == ' ' ? 1 : 0);
    }
    return matched;
}

static int unknown_command(const struct cfsr_program *program, int argc, char *const *argv)
{
    const char *names[COMMANDS_MAX];
    char given[128] = "";
    const char *near;
    size_t len = 0;

    CFSR_ASSERT(program->count <= COMMANDS_MAX);
    for (unsigned i = 0; i < program->count; i++)
        names[i] = program->commands[i].set->command;
    for (int i = 0; i < argc && argv[i][0] != '-' && len < sizeof given; i++)
        len += (size_t)snprintf(given + len, sizeof given - len, "%s%s", i > 0 ? " " : "", argv[i]);
    if (given[0] == '\0')
        return cfsr_fail(-CFSR_E_USAGE, "unknown flag: %s: a command comes first, see '%s --help'",
                         argv[0], program->name);
    near = cfsr_nearest(given, names, program->count);
    if (near != NULL)
        return cfsr_fail(-CFSR_E_USAGE, "unknown command: %s: did you mean '%s'?", given, near);
    return cfsr_fail(-CFSR_E_USAGE, "unknown command: %s: see '%s --help'", given, program->name);
}

static int run_command(const struct cfsr_program *program, int argc, char *const *argv)
{
    bool group = false; /* the first words name a group of commands, e.g. "journal" */

    for (unsigned i = 0; i < program->count; i++) {
        int words;
        int matched = words_matched(program->commands[i].set->command, argc, argv, &words);

        if (matched == words)
            return program->commands[i].run(argc - words, argv + words);
        if (matched == argc || (matched > 0 && argv[matched][0] == '-'))
            group = true;
    }
    if (!group)
        return unknown_command(program, argc, argv);
    print_program_help(program, stderr);
    return CFSR_EXIT_USAGE;
}

int cfsr_program_main(const struct cfsr_program *program, int argc, char *const *argv)
{
    int rc;

    if (argc < 2) {
        print_program_help(program, stderr);
        return CFSR_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_program_help(program, stdout);
        return CFSR_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        cfsr_print_version(program->name);
        return CFSR_EXIT_OK;
    }
    cfsr_error_clear();
    rc = run_command(program, argc - 1, argv + 1);
    if (rc >= 0 && cfsr_command_flush_output() < 0)
        rc = cfsr_fail(-EIO, "cannot write to standard output: %s", cfsr_strerror(-errno));
    if (rc >= 0)
        return rc;
    print_error(program, rc);
    return cfsr_exit_code(rc);
}

int cfsr_command_flush_output(void)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return 0;
    return errno == EPIPE ? 0 : -EIO; /* a reader that has seen enough is not an error */
}

int cfsr_command_options(const struct cfsr_option_set *set, void *target, size_t target_bytes,
                         int argc, char *const *argv)
{
    struct cfsr_option_origins origins;
    int rc = cfsr_options_defaults(set, target, target_bytes, &origins);

    if (rc == 0)
        rc = cfsr_options_flags(set, target, &origins, argc, argv);
    if (rc == 1) {
        cfsr_options_help(set, stdout);
        return 1;
    }
    return rc < 0 ? rc : cfsr_options_check_required(set, target);
}

int cfsr_command_site(const char *data_dir, struct cfsr_site *site_out)
{
    return cfsr_site_load(cfsr_fs_blocking(), data_dir, site_out);
}
