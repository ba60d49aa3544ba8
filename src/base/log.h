/*
 * log.h - one event per line, logfmt or JSON, on stderr.
 *
 * `cfsr_log(CFSR_LOG_INFO, "link_up", CFSR_S("peer", name), CFSR_U("lane", lane));` prints
 *   time=2026-11-21T10:00:00.123Z level=info event=link_up peer=site-b lane=3
 * Event ids are stable snake_case names. Any thread; a line is one write(2). Repeats of the same
 * event at warn or above are limited to 10 a second with a count of what was held back
 * (suppressed=N). Never on the data path's steady state, and never a secret.
 */
#ifndef CFSR_BASE_LOG_H
#define CFSR_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include <cfsrepl/error.h>

enum cfsr_log_level {
    CFSR_LOG_DEBUG,
    CFSR_LOG_INFO,
    CFSR_LOG_WARN,
    CFSR_LOG_ERROR
};
enum cfsr_log_format {
    CFSR_LOG_LOGFMT,
    CFSR_LOG_JSON
};

struct cfsr_log_field {
    const char *key;
    enum {
        CFSR_LOG_STRING,
        CFSR_LOG_U64,
        CFSR_LOG_I64,
        CFSR_LOG_F64,
        CFSR_LOG_BOOL,
        CFSR_LOG_OPTIONAL, /* a string; the field is left out when it is NULL or empty */
    } kind;
    union {
        const char *string; /* NULL prints as null or an empty value */
        uint64_t u64;
        int64_t i64;
        double f64;
        bool boolean;
    } value;
};

#define CFSR_S(k, v)                                             \
    (struct cfsr_log_field)                                      \
    {                                                            \
        .key = (k), .kind = CFSR_LOG_STRING, .value.string = (v) \
    }
#define CFSR_U(k, v)                                       \
    (struct cfsr_log_field)                                \
    {                                                      \
        .key = (k), .kind = CFSR_LOG_U64, .value.u64 = (v) \
    }
#define CFSR_I(k, v)                                       \
    (struct cfsr_log_field)                                \
    {                                                      \
        .key = (k), .kind = CFSR_LOG_I64, .value.i64 = (v) \
    }
#define CFSR_F(k, v)                                       \
    (struct cfsr_log_field)                                \
    {                                                      \
        .key = (k), .kind = CFSR_LOG_F64, .value.f64 = (v) \
    }
#define CFSR_B(k, v)                                            \
    (struct cfsr_log_field)                                     \
    {                                                           \
        .key = (k), .kind = CFSR_LOG_BOOL, .value.boolean = (v) \
    }
/* A string that is left out of the line when it is NULL or empty. */
#define CFSR_OPT(k, v)                                             \
    (struct cfsr_log_field)                                        \
    {                                                              \
        .key = (k), .kind = CFSR_LOG_OPTIONAL, .value.string = (v) \
    }
/* The error code of a failed call as `error=name`, and the message of the thread if one is set as
 * `message="…"`. */
#define CFSR_ERR(rc) CFSR_S("error", cfsr_error_name(rc)), CFSR_OPT("message", cfsr_error_message())

#define cfsr_log(level, event, ...)                                                          \
    cfsr_log_fields((level), (event),                                                        \
                    (const struct cfsr_log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}},          \
                    sizeof((const struct cfsr_log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}}) / \
                            sizeof(struct cfsr_log_field) -                                  \
                        1)

void cfsr_log_fields(enum cfsr_log_level level, const char *event,
                     const struct cfsr_log_field *fields, unsigned count);
void cfsr_log_configure(enum cfsr_log_level minimum, enum cfsr_log_format format);
bool cfsr_log_enabled(enum cfsr_log_level level);
int cfsr_log_level_parse(const char *text, enum cfsr_log_level *level_out);
int cfsr_log_format_parse(const char *text, enum cfsr_log_format *format_out);

#endif
