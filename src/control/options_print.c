/*
 * options_print.c - options for people: help text, effective values.
 *
 * Thread: any; no state. Help is made from the table only, so a flag cannot exist without its line.
 * 96 columns: fits a terminal beside another one and the pages of a printed manual.
 */
#include "control/options.h"

#include <inttypes.h>
#include <string.h>

#include "base/assert.h"
#include "base/units.h"

#define HELP_WIDTH  96
#define HELP_INDENT 30

void cfsr_print_wrapped(FILE *out, const char *text, unsigned column, unsigned indent,
                        unsigned width)
{
    bool first = true;

    while (*text != '\0') {
        unsigned word = (unsigned)strcspn(text, " \n");
        bool breaks = text[word] == '\n';

        if (!first && column + 1 + word > width) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        if (word > 0) {
            fprintf(out, "%s%.*s", first ? "" : " ", (int)word, text);
            column += word + (first ? 0 : 1);
            first = false;
        }
        if (breaks) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        text += word + (text[word] != '\0' ? 1 : 0);
    }
    fputc('\n', out);
}

static uint64_t load_number(const struct cfsr_option *option, const void *field)
{
    uint32_t narrow;
    uint64_t value;

    if (option->field_bytes == sizeof narrow) {
        memcpy(&narrow, field, sizeof narrow);
        return narrow;
    }
    memcpy(&value, field, sizeof value);
    return value;
}

bool cfsr_option_show(const struct cfsr_option *option, const void *target, unsigned index,
                      char *text_out, size_t len_bytes)
{
    const void *field = (const char *)target + option->offset;
    int choice;
    bool yes;

    if (option->kind == CFSR_OPTION_CUSTOM)
        return option->show(field, index, text_out, len_bytes);
    if (index > 0)
        return false;
    switch (option->kind) {
    case CFSR_OPTION_COUNT:
        snprintf(text_out, len_bytes, "%" PRIu64, load_number(option, field));
        return true;
    case CFSR_OPTION_SIZE:
        cfsr_format_size_exact(load_number(option, field), text_out, len_bytes);
        return true;
    case CFSR_OPTION_DURATION:
        cfsr_format_duration_exact(load_number(option, field) * option->unit_us, text_out,
                                   len_bytes);
        return true;
    case CFSR_OPTION_BOOL:
        memcpy(&yes, field, sizeof yes);
        snprintf(text_out, len_bytes, "%s", yes ? "yes" : "no");
        return true;
    case CFSR_OPTION_ENUM:
        memcpy(&choice, field, sizeof choice);
        snprintf(text_out, len_bytes, "%s", option->choices[choice]);
        return true;
    case CFSR_OPTION_TEXT:
    case CFSR_OPTION_CUSTOM: break;
    }
    snprintf(text_out, len_bytes, "%s", (const char *)field);
    return text_out[0] != '\0';
}

/* "; default 256KiB", "; required", what 0 means, that it repeats: one bracket after the help. */
static void help_details(const struct cfsr_option *option, char *text_out, size_t len_bytes)
{
    char list[200] = "";
    size_t len = 0;
    const char *gap = "";

    text_out[0] = '\0';
    if (option->kind == CFSR_OPTION_ENUM) {
        for (unsigned i = 0; option->choices[i] != NULL && len < sizeof list; i++)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%s",
                                    i > 0 ? ", " : "one of: ", option->choices[i]);
        gap = "; ";
    }
    snprintf(text_out, len_bytes, "%s", list);
    len = strlen(text_out);
    if (option->repeatable && len < len_bytes) {
        len += (size_t)snprintf(text_out + len, len_bytes - len, "%srepeatable", gap);
        gap = "; ";
    }
    if (option->required && len < len_bytes) {
        len += (size_t)snprintf(text_out + len, len_bytes - len, "%srequired", gap);
        gap = "; ";
    }
    if (option->zero_means != NULL && len < len_bytes) {
        len += (size_t)snprintf(text_out + len, len_bytes - len, "%s0: %s", gap,
                                option->zero_means);
        gap = "; ";
    }
    if (option->environment != NULL && len < len_bytes) {
        len += (size_t)snprintf(text_out + len, len_bytes - len, "%sdefault: $%s", gap,
                                option->environment);
        gap = "; ";
    }
    if (option->default_text != NULL && option->kind != CFSR_OPTION_BOOL && len < len_bytes)
        (void)snprintf(text_out + len, len_bytes - len, "%sdefault: %s", gap, option->default_text);
}

static void help_option(const struct cfsr_option *option, FILE *out)
{
    char details[320];
    char text[1600];
    int column = fprintf(out, "  --%s%s%s", option->name, option->value_name != NULL ? " " : "",
                         option->value_name != NULL ? option->value_name : "");

    CFSR_ASSERT(column > 0);
    if (column + 2 > HELP_INDENT) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", HELP_INDENT - column, "");
    help_details(option, details, sizeof details);
    if (details[0] != '\0')
        snprintf(text, sizeof text, "%s [%s]", option->help, details);
    else
        snprintf(text, sizeof text, "%s", option->help);
    cfsr_print_wrapped(out, text, HELP_INDENT, HELP_INDENT, HELP_WIDTH);
}

void cfsr_options_help(const struct cfsr_option_set *set, FILE *out)
{
    const char *group = NULL;
    int column = fprintf(out, "Usage: %s %s ", set->program, set->command);

    cfsr_print_wrapped(out, set->synopsis, (unsigned)column, (unsigned)column, HELP_WIDTH);
    fputc('\n', out);
    cfsr_print_wrapped(out, set->summary, 0, 0, HELP_WIDTH);
    for (unsigned i = 0; i < set->count; i++) {
        if (group == NULL || strcmp(group, set->options[i].group) != 0) {
            group = set->options[i].group;
            fprintf(out, "\n%s:\n", group);
        }
        help_option(&set->options[i], out);
    }
    fprintf(out, "  --help%*sThis text.\n", HELP_INDENT - 8, "");
    if (set->epilogue != NULL)
        fprintf(out, "\n%s\n", set->epilogue);
}

/* Cut where a line of a configuration file would be too long. */
static void describe_origin(const struct cfsr_option_set *set,
                            const struct cfsr_option_origins *origins, unsigned index,
                            char text_out[CFSR_OPTIONS_LINE_MAX / 2])
{
    const size_t len_bytes = CFSR_OPTIONS_LINE_MAX / 2;

    switch (origins->of[index].origin) {
    case CFSR_ORIGIN_DEFAULT: snprintf(text_out, len_bytes, "; default"); return;
    case CFSR_ORIGIN_ENVIRONMENT:
        snprintf(text_out, len_bytes, "; $%s", set->options[index].environment);
        return;
    case CFSR_ORIGIN_FILE:
        snprintf(text_out, len_bytes, "; %.70s:%u", origins->path, origins->of[index].line);
        return;
    case CFSR_ORIGIN_FLAG:
        snprintf(text_out, len_bytes, "; --%s", set->options[index].name);
        return;
    }
}

/*
 * The origin behind the value; in front of it where the line would be too long to be read back, and
 * then without a space too many. A ';' begins a comment only behind a space.
 */
static void print_value(const char *name, const char *value, const char *origin, FILE *out)
{
    const char *space = value[0] == ';' ? "" : " ";

    if (strlen(name) + strlen(value) + strlen(origin) + strlen(" =  ") >= CFSR_OPTIONS_LINE_MAX)
        fprintf(out, "%s\n%s=%s\n", origin, name, value);
    else
        fprintf(out, "%s =%s%s %s\n", name, space, value, origin);
}

void cfsr_options_print(const struct cfsr_option_set *set, const void *target,
                        const struct cfsr_option_origins *origins, FILE *out)
{
    char text[CFSR_OPTION_TEXT_MAX], origin[CFSR_OPTIONS_LINE_MAX / 2];

    fprintf(out, "[%s]\n", set->command);
    for (unsigned i = 0; i < set->count; i++) {
        const struct cfsr_option *option = &set->options[i];
        unsigned index = 0;

        if (option->flag_only)
            continue;
        describe_origin(set, origins, i, origin);
        for (; cfsr_option_show(option, target, index, text, sizeof text); index++)
            print_value(option->name, text, origin, out);
        if (index == 0)
            fprintf(out, "; %s is not set\n", option->name);
    }
}
