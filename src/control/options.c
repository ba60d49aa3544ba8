/*
 * options.c - the option table engine: set a value, parse flags, read the INI file.
 *
 * Thread: any; no state of its own. Every way to give a value ends in option_set_value(), so that
 * flags, file and environment have the same limits and the same messages. Rejected: getopt_long (no
 * nearest match, no ranges, a second list of the same names) and argp (the same); a generated
 * parser (one more language in the build). Printing stands in options_print.c.
 */
#include "control/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <ini.h>

#include "base/assert.h"
#include "base/fail.h"
#include "base/nearest.h"
#include "base/units.h"

static void *field_of(const struct cfsr_option *option, void *target)
{
    return (char *)target + option->offset;
}

static void store_number(const struct cfsr_option *option, void *field, uint64_t value)
{
    uint32_t narrow = (uint32_t)value;

    if (option->field_bytes == sizeof narrow) {
        CFSR_ASSERT(value <= UINT32_MAX);
        memcpy(field, &narrow, sizeof narrow);
    } else {
        CFSR_ASSERT(option->field_bytes == sizeof value);
        memcpy(field, &value, sizeof value);
    }
}

static char *format_number(const struct cfsr_option *option, uint64_t value, char *text, size_t len)
{
    if (option->kind == CFSR_OPTION_SIZE)
        return cfsr_format_size_exact(value, text, len);
    if (option->kind == CFSR_OPTION_DURATION)
        return cfsr_format_duration_exact(value * option->unit_us, text, len);
    snprintf(text, len, "%" PRIu64, value);
    return text;
}

static int check_range(const struct cfsr_option *option, uint64_t value, const char *text)
{
    uint64_t max = option->max;
    char low[32];
    char high[32];

    if (max == 0)
        max = option->field_bytes == sizeof(uint32_t) ? UINT32_MAX : UINT64_MAX;
    if (value >= option->min && value <= max)
        return 0;
    format_number(option, option->min, low, sizeof low);
    if (max == UINT64_MAX)
        return cfsr_fail(-CFSR_E_USAGE, "'%s' is out of range: give at least %s", text, low);
    format_number(option, max, high, sizeof high);
    return cfsr_fail(-CFSR_E_USAGE, "'%s' is out of range: give %s to %s", text, low, high);
}

static int parse_duration(const struct cfsr_option *option, const char *text, uint64_t *value_out)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t us;
    int rc;

    if (digits > 0 && text[digits] == '\0' && (option->bare_unit || strspn(text, "0") == digits))
        return cfsr_parse_u64(text, value_out);
    rc = cfsr_parse_duration_us(text, &us);
    if (rc < 0)
        return rc;
    if (us % option->unit_us != 0)
        return cfsr_fail(-CFSR_E_USAGE, "'%s' is too fine: give whole %s", text,
                         option->unit_us == 1000 ? "milliseconds" : "seconds");
    *value_out = us / option->unit_us;
    return 0;
}

static int set_number(const struct cfsr_option *option, void *field, const char *text)
{
    uint64_t value = 0;
    int rc;

    if (option->kind == CFSR_OPTION_SIZE)
        rc = cfsr_parse_size(text, &value);
    else if (option->kind == CFSR_OPTION_DURATION)
        rc = parse_duration(option, text, &value);
    else
        rc = cfsr_parse_u64(text, &value);
    if (rc == 0)
        rc = check_range(option, value, text);
    if (rc == 0)
        store_number(option, field, value);
    return rc;
}

static int set_bool(void *field, const char *text)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            bool value = i % 2 == 1;

            memcpy(field, &value, sizeof value);
            return 0;
        }
    }
    return cfsr_fail(-CFSR_E_USAGE, "'%s' is neither yes nor no", text);
}

static int set_text(const struct cfsr_option *option, void *field, const char *text)
{
    size_t len = strlen(text);

    if (len == 0)
        return cfsr_fail(-CFSR_E_USAGE, "the value is empty");
    if (len >= option->field_bytes)
        return cfsr_fail(-CFSR_E_USAGE, "the value is %zu characters long: at most %zu fit", len,
                         option->field_bytes - 1);
    memcpy(field, text, len + 1);
    return 0;
}

static int set_enum(const struct cfsr_option *option, void *field, const char *text)
{
    char list[256] = "";
    size_t len = 0;
    int count = 0;
    const char *near;

    for (; option->choices[count] != NULL; count++) {
        if (strcmp(text, option->choices[count]) == 0) {
            CFSR_ASSERT(option->field_bytes == sizeof count);
            memcpy(field, &count, sizeof count);
            return 0;
        }
        if (len < sizeof list)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", count > 0 ? ", " : "",
                                    option->choices[count]);
    }
    near = cfsr_nearest(text, option->choices, (size_t)count);
    if (near != NULL)
        return cfsr_fail(-CFSR_E_USAGE, "'%s' is not known: did you mean '%s'? (one of: %s)", text,
                         near, list);
    return cfsr_fail(-CFSR_E_USAGE, "'%s' is not known: give one of: %s", text, list);
}

static int option_set_value(const struct cfsr_option *option, void *target, const char *text)
{
    void *field = field_of(option, target);

    switch (option->kind) {
    case CFSR_OPTION_COUNT:
    case CFSR_OPTION_SIZE:
    case CFSR_OPTION_DURATION: return set_number(option, field, text);
    case CFSR_OPTION_BOOL: return set_bool(field, text);
    case CFSR_OPTION_TEXT: return set_text(option, field, text);
    case CFSR_OPTION_ENUM: return set_enum(option, field, text);
    case CFSR_OPTION_CUSTOM: return option->set(field, text);
    }
    CFSR_ASSERT(false); /* the table is ours */
    return -CFSR_E_USAGE;
}

/* Sets a value that overrides weaker origins; a repeatable one is emptied when a stronger origin
 * first speaks. */
static int option_give(const struct cfsr_option_set *set, unsigned index, void *target,
                       struct cfsr_option_origins *origins, const char *text,
                       enum cfsr_origin origin, unsigned line)
{
    const struct cfsr_option *option = &set->options[index];
    int rc;

    if (option->repeatable && origins->of[index].origin != origin && option->reset != NULL)
        option->reset(field_of(option, target));
    rc = option_set_value(option, target, text);
    if (rc < 0)
        return rc;
    origins->of[index].origin = origin;
    origins->of[index].line = line;
    return 0;
}

int cfsr_options_defaults(const struct cfsr_option_set *set, void *target, size_t target_bytes,
                          struct cfsr_option_origins *origins)
{
    CFSR_ASSERT(set->count <= CFSR_OPTIONS_MAX);
    memset(target, 0, target_bytes);
    memset(origins, 0, sizeof *origins);
    for (unsigned i = 0; i < set->count; i++) {
        const struct cfsr_option *option = &set->options[i];
        const char *value = option->environment != NULL ? getenv(option->environment) : NULL;
        int rc;

        if (option->default_text != NULL) {
            rc = option_set_value(option, target, option->default_text);
            CFSR_ASSERT(rc == 0); /* the table is ours */
        }
        if (value == NULL || value[0] == '\0')
            continue;
        rc = option_give(set, i, target, origins, value, CFSR_ORIGIN_ENVIRONMENT, 0);
        if (rc < 0)
            return cfsr_fail(-CFSR_E_USAGE, "$%s: %s", option->environment, cfsr_error_message());
    }
    return 0;
}

static int find_option(const struct cfsr_option_set *set, const char *name, size_t len)
{
    for (unsigned i = 0; i < set->count; i++)
        if (strlen(set->options[i].name) == len && memcmp(set->options[i].name, name, len) == 0)
            return (int)i;
    return -1;
}

static const char *nearest_option(const struct cfsr_option_set *set, const char *name, bool keys)
{
    const char *names[CFSR_OPTIONS_MAX + 1];
    unsigned count = 0;

    for (unsigned i = 0; i < set->count; i++)
        if (!keys || !set->options[i].flag_only)
            names[count++] = set->options[i].name;
    if (!keys)
        names[count++] = "help";
    return cfsr_nearest(name, names, count);
}

static int unknown_flag(const struct cfsr_option_set *set, const char *word)
{
    char name[64];
    const char *near;

    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
    near = nearest_option(set, name + strspn(name, "-"), false);
    if (near != NULL)
        return cfsr_fail(-CFSR_E_USAGE, "unknown flag: %s: did you mean --%s?", name, near);
    return cfsr_fail(-CFSR_E_USAGE, "unknown flag: %s: see '%s %s --help'", name, set->program,
                     set->command);
}

/* One flag at argv[0]; the number of words it took, or an error. */
static int take_flag(const struct cfsr_option_set *set, void *target,
                     struct cfsr_option_origins *origins, int argc, char *const *argv)
{
    const char *word = argv[0];
    size_t len = strncmp(word, "--", 2) == 0 ? strcspn(word + 2, "=") : 0;
    int index = len > 0 ? find_option(set, word + 2, len) : -1;
    const struct cfsr_option *option;
    const char *value;
    int taken = 1;
    int rc;

    if (word[0] != '-' || strcmp(word, "-") == 0)
        return cfsr_fail(-CFSR_E_USAGE,
                         "unexpected word: %s: options begin with --, see '%s %s --help'", word,
                         set->program, set->command);
    if (index < 0)
        return unknown_flag(set, word);
    option = &set->options[index];
    if (!option->repeatable && origins->of[index].origin == CFSR_ORIGIN_FLAG)
        return cfsr_fail(-CFSR_E_USAGE, "--%s: given twice: it takes one value", option->name);
    if (word[2 + len] == '=') {
        value = word + 2 + len + 1;
    } else if (option->kind == CFSR_OPTION_BOOL) {
        value = "yes";
    } else {
        if (argc < 2)
            return cfsr_fail(-CFSR_E_USAGE, "--%s: the value is missing: give --%s %s",
                             option->name, option->name, option->value_name);
        value = argv[1];
        taken = 2;
    }
    rc = option_give(set, (unsigned)index, target, origins, value, CFSR_ORIGIN_FLAG, 0);
    if (rc < 0)
        return cfsr_fail(-CFSR_E_USAGE, "--%s: %s", option->name, cfsr_error_message());
    return taken;
}

int cfsr_options_flags(const struct cfsr_option_set *set, void *target,
                       struct cfsr_option_origins *origins, int argc, char *const *argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return 1;
    for (int i = 0; i < argc;) {
        int taken = take_flag(set, target, origins, argc - i, argv + i);

        if (taken < 0)
            return taken;
        i += taken;
    }
    return 0;
}

/* What the INI reader and handler share. libinih has no line numbers in its handler as Debian
 * builds it: the reader counts. */
struct ini_state {
    const struct cfsr_option_set *set;
    void *target;
    struct cfsr_option_origins *origins;
    const char *path;
    FILE *file;
    unsigned line;
    int rc; /* the first error; nothing is applied after it */
};

static char *ini_read_line(char *text, int len_bytes, void *stream)
{
    struct ini_state *state = stream;
    char *result = fgets(text, len_bytes, state->file);

    if (result == NULL)
        return NULL;
    state->line++;
    if (strlen(text) > CFSR_OPTIONS_LINE_MAX && strchr(text, '\n') == NULL && state->rc == 0)
        state->rc = cfsr_fail(-CFSR_E_CONFIG, "%s:%u: the line is too long: at most %d characters",
                              state->path, state->line, CFSR_OPTIONS_LINE_MAX);
    return result;
}

static int unknown_key(const struct ini_state *state, const char *name)
{
    const char *near = nearest_option(state->set, name, true);

    if (near != NULL)
        return cfsr_fail(-CFSR_E_CONFIG, "%s:%u: unknown key: %s: did you mean %s?", state->path,
                         state->line, name, near);
    return cfsr_fail(-CFSR_E_CONFIG, "%s:%u: unknown key: %s: see '%s %s --help'", state->path,
                     state->line, name, state->set->program, state->set->command);
}

static int ini_key(struct ini_state *state, const char *section, const char *name,
                   const char *value)
{
    int index = find_option(state->set, name, strlen(name));
    const struct cfsr_option *option;

    if (section[0] != '\0' && strcmp(section, state->set->command) != 0)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "%s:%u: unknown section: [%s]: keys stand in [%s] or in no section",
                         state->path, state->line, section, state->set->command);
    if (index < 0)
        return unknown_key(state, name);
    option = &state->set->options[index];
    if (option->flag_only)
        return cfsr_fail(-CFSR_E_CONFIG, "%s:%u: %s: is a flag only, not a configuration key",
                         state->path, state->line, name);
    if (!option->repeatable && state->origins->of[index].origin == CFSR_ORIGIN_FILE)
        return cfsr_fail(-CFSR_E_CONFIG, "%s:%u: %s: already given in line %u: it takes one value",
                         state->path, state->line, name, state->origins->of[index].line);
    if (option_give(state->set, (unsigned)index, state->target, state->origins, value,
                    CFSR_ORIGIN_FILE, state->line) < 0)
        return cfsr_fail(-CFSR_E_CONFIG, "%s:%u: %s: %s", state->path, state->line, name,
                         cfsr_error_message());
    return 0;
}

static int ini_handle(void *user, const char *section, const char *name, const char *value)
{
    struct ini_state *state = user;

    if (state->rc == 0)
        state->rc = ini_key(state, section, name, value);
    return 1;
}

int cfsr_options_file(const struct cfsr_option_set *set, void *target,
                      struct cfsr_option_origins *origins, const char *path)
{
    struct ini_state state = {.set = set, .target = target, .origins = origins, .path = path};
    int line;

    state.file = fopen(path, "re");
    if (state.file == NULL) {
        int error = errno;

        return cfsr_fail(-error, "cannot read the configuration file: %s: %s", path,
                         cfsr_strerror(-error));
    }
    origins->path = path;
    line = ini_parse_stream(ini_read_line, &state, ini_handle, &state);
    if (state.rc == 0 && ferror(state.file) != 0)
        state.rc = cfsr_fail(-EIO, "cannot read the configuration file: %s", path);
    if (state.rc == 0 && line != 0)
        state.rc = cfsr_fail(-CFSR_E_CONFIG, "%s:%d: not understood: write 'key = value'", path,
                             line);
    (void)fclose(state.file);
    return state.rc;
}

int cfsr_options_check_required(const struct cfsr_option_set *set, const void *target)
{
    char text[CFSR_OPTION_TEXT_MAX];

    for (unsigned i = 0; i < set->count; i++) {
        const struct cfsr_option *option = &set->options[i];

        if (!option->required || cfsr_option_show(option, target, 0, text, sizeof text))
            continue;
        if (option->environment != NULL)
            return cfsr_fail(-CFSR_E_USAGE, "--%s is missing: give --%s %s or set $%s",
                             option->name, option->name, option->value_name, option->environment);
        return cfsr_fail(-CFSR_E_USAGE, "--%s is missing: give --%s %s", option->name, option->name,
                         option->value_name);
    }
    return 0;
}
