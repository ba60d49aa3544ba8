/*
 * command.h - a program's commands: a table, and one way to run them.
 *
 * A command is one or more words ("journal dump"), an option table and a function. The function
 * returns 0, a positive exit code with everything already said, or a negative error whose message
 * is printed here, once, as "PROGRAM: message".
 */
#ifndef CFSR_CLI_COMMAND_H
#define CFSR_CLI_COMMAND_H

#include "control/options.h"
#include "journal/site.h"

struct cfsr_command {
    const struct cfsr_option_set *set;       /* set->command names it */
    int (*run)(int argc, char *const *argv); /* the words after the command */
};

struct cfsr_program {
    const char *name;
    const char *summary;
    const struct cfsr_command *commands;
    unsigned count;
};

/* Runs argv; the exit code. `--help`, `help`, `--version` are answered here. */
int cfsr_program_main(const struct cfsr_program *program, int argc, char *const *argv);

/*
 * For commands: defaults, flags, required. Prints help when it is asked for and returns 1 (the
 * command is done, exit 0); 0 to go on; negative error.
 */
int cfsr_command_options(const struct cfsr_option_set *set, void *target, size_t target_bytes,
                         int argc, char *const *argv);

/* Loads DATA/cluster of the directory given; messages name the object and what to do. */
int cfsr_command_site(const char *data_dir, struct cfsr_site *site_out);

/* Checks that standard output took everything; -errno. For commands whose output is their result.
 */
int cfsr_command_flush_output(void);

/* Versions of the program, its libraries, and the machine's io_uring features. */
void cfsr_print_version(const char *program);

/* The commands. */
extern const struct cfsr_command cfsr_command_init;
extern const struct cfsr_command cfsr_command_keygen;
extern const struct cfsr_command cfsr_command_serve;
extern const struct cfsr_command cfsr_command_journal_import;
extern const struct cfsr_command cfsr_command_journal_append;
extern const struct cfsr_command cfsr_command_journal_dump;
extern const struct cfsr_command cfsr_command_journal_tail;
extern const struct cfsr_command cfsr_command_journal_verify;
extern const struct cfsr_command cfsr_command_journal_recover;
extern const struct cfsr_command cfsr_command_journal_digest;
extern const struct cfsr_command cfsr_command_inbox_dump;
extern const struct cfsr_command cfsr_command_inbox_tail;
extern const struct cfsr_command cfsr_command_inbox_verify;
extern const struct cfsr_command cfsr_command_materialize;
extern const struct cfsr_command cfsr_command_replication_status;
extern const struct cfsr_command cfsr_command_replication_wait;
extern const struct cfsr_command cfsr_command_replication_scrub;

/* Option rows that many commands share. */
#define CFSR_DATA_DIR_OPTION(type)                                                               \
    {                                                                                            \
        .name = "data-dir", .value_name = "DIR", .group = "Options", .kind = CFSR_OPTION_TEXT,   \
        .required = true, .environment = "CFSR_DATA_DIR", .help = "Data directory of the site.", \
        CFSR_OPTION_FIELD(type, data_dir)                                                        \
    }
#define CFSR_JSON_OPTION(type)                                                \
    {                                                                         \
        .name = "json", .group = "Options", .kind = CFSR_OPTION_BOOL,         \
        .help = "Print JSON, one object a line, instead of text for people.", \
        CFSR_OPTION_FIELD(type, json)                                         \
    }

#endif
