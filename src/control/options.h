/*
 * options.h - one table of options, from which come flags, configuration keys, help and the printed
 * configuration.
 *
 * A command describes its options as a constant array of struct cfsr_option, each bound to a field
 * of the command's own plain struct (the target). From that array: `--name VALUE` and
 * `--name=VALUE` flags, `name = value` keys of an INI file, `--help` text, and a listing of every
 * effective value with its origin. Unknown names are refused with the nearest match. No global
 * state; any thread.
 */
#ifndef CFSR_CONTROL_OPTIONS_H
#define CFSR_CONTROL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cfsrepl/error.h>

#define CFSR_OPTIONS_MAX     64   /* options of one command */
#define CFSR_OPTION_TEXT_MAX 1400 /* a shown value, with NUL */
/* Longest line of a configuration file; libinih would cut longer ones silently: they are refused.
 */
#define CFSR_OPTIONS_LINE_MAX 198

enum cfsr_option_kind {
    CFSR_OPTION_COUNT,    /* unsigned number; field uint32_t or uint64_t */
    CFSR_OPTION_SIZE,     /* bytes with unit; field uint32_t or uint64_t */
    CFSR_OPTION_DURATION, /* with unit; field uint64_t in unit_us */
    CFSR_OPTION_BOOL,     /* flag without value means yes; field bool */
    CFSR_OPTION_TEXT,     /* field char[] */
    CFSR_OPTION_ENUM,     /* one of choices; field: int-sized, gets the index */
    CFSR_OPTION_CUSTOM,   /* set() and show() of the table's owner: lists and structured values */
};

struct cfsr_option {
    const char *name;       /* without dashes; also the configuration key */
    const char *value_name; /* "SIZE" in help; NULL for BOOL */
    const char *group;      /* heading in help; options of a group stand together */
    const char *help;       /* sentences; wrapped when printed */
    enum cfsr_option_kind kind;
    uint64_t min, max; /* COUNT, SIZE; DURATION: in unit_us. max 0: the field's range */
    uint64_t unit_us;  /* DURATION: what the field counts, 1, 1000 or 1000000 */
    bool bare_unit; /* DURATION: a number without unit is in unit_us (the name carries the unit) */
    const char *default_text;   /* as a user writes it; NULL: the field stays zero */
    const char *zero_means;     /* shown for the value 0 in help: "unlimited" */
    const char *environment;    /* variable that gives the default, NULL if none */
    const char *const *choices; /* ENUM: names, NULL at the end */
    bool repeatable;
    bool required;
    bool flag_only; /* not a configuration key */
    size_t offset;  /* of the field in the target */
    size_t field_bytes;
    int (*set)(
        void *field,
        const char *text); /* CUSTOM: 0 or -CFSR_E_USAGE with message; appends when repeatable */
    void (*reset)(void *field); /* CUSTOM, repeatable: empties the list */
    bool (*show)(const void *field, unsigned index, char *text_out,
                 size_t len_bytes); /* CUSTOM: false: no such element */
};
#define CFSR_OPTION_FIELD(type, member) \
    .offset = offsetof(type, member), .field_bytes = sizeof(((type *)0)->member)

struct cfsr_option_set {
    const char *program;  /* "cfs-repl" */
    const char *command;  /* "journal dump" */
    const char *synopsis; /* after the command in the usage line */
    const char *summary;  /* what the command does; wrapped */
    const char *epilogue; /* printed after the options; NULL if none; own line breaks */
    const struct cfsr_option *options;
    unsigned count; /* <= CFSR_OPTIONS_MAX */
};

enum cfsr_origin {
    CFSR_ORIGIN_DEFAULT,
    CFSR_ORIGIN_ENVIRONMENT,
    CFSR_ORIGIN_FILE,
    CFSR_ORIGIN_FLAG
};

/* Where each value came from; made by cfsr_options_defaults(). */
struct cfsr_option_origins {
    struct {
        enum cfsr_origin origin;
        unsigned line; /* CFSR_ORIGIN_FILE: of the last setting */
    } of[CFSR_OPTIONS_MAX];
    const char *path; /* the configuration file; borrowed */
};

/* Fills the whole target (zeroed first, target_bytes) with defaults and environment. -CFSR_E_USAGE:
 * a bad value in the environment. */
int cfsr_options_defaults(const struct cfsr_option_set *set, void *target, size_t target_bytes,
                          struct cfsr_option_origins *origins);
/*
 * Applies flags argv[0 … argc-1]. `--help` and `-h` return 1 and set nothing else. A repeatable
 * flag replaces what defaults or file gave. A flag that is not repeatable may be given once.
 * -CFSR_E_USAGE with message: unknown flag (nearest named), missing or bad value, stray word.
 */
int cfsr_options_flags(const struct cfsr_option_set *set, void *target,
                       struct cfsr_option_origins *origins, int argc, char *const *argv);
/*
 * Applies an INI file: `name = value` lines without section or in [command]'s section, ';' and '#'
 * comments. -CFSR_E_CONFIG with file:line and the nearest match; -errno when it cannot be read.
 * path is borrowed by origins.
 */
int cfsr_options_file(const struct cfsr_option_set *set, void *target,
                      struct cfsr_option_origins *origins, const char *path);
/* -CFSR_E_USAGE naming the first required option without a value. */
int cfsr_options_check_required(const struct cfsr_option_set *set, const void *target);

/* Usage, summary, options by group with defaults; at most 96 columns. */
void cfsr_options_help(const struct cfsr_option_set *set, FILE *out);
/* Every option as a configuration line with its origin as comment. Parses back as a configuration
 * file. */
void cfsr_options_print(const struct cfsr_option_set *set, const void *target,
                        const struct cfsr_option_origins *origins, FILE *out);
/* The value as a user would write it; element index of a repeatable. False: no such element or no
 * value. */
bool cfsr_option_show(const struct cfsr_option *option, const void *target, unsigned index,
                      char *text_out, size_t len_bytes);

/* Prints text wrapped at column `width`; continuation lines start at column `indent`; the cursor
 * stands at `column`. */
void cfsr_print_wrapped(FILE *out, const char *text, unsigned column, unsigned indent,
                        unsigned width);

#endif
