/*
 * log.c - log lines: formatted on the stack, one write(2) each.
 *
 * Thread: any. The level and format are atomics; only the table that limits repeats has a lock,
 * held for a few comparisons and never while writing. Invariants: a line has at most LINE_BYTES
 * (PIPE_BUF, so lines of several processes on one pipe do not mix), ends in a newline and is always
 * well formed: a long value is cut, a field that has no room is left out, and both are said. errno
 * is kept. A line that cannot be written (full non-blocking pipe, closed stderr) is lost: logging
 * never blocks or fails the caller by an error. Rejected: stdio (its lock and buffer would split or
 * delay lines), syslog (the service manager collects stderr).
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/nearest.h"
#include "base/units.h"
#include "base/fail.h"

#define LINE_BYTES        4096
#define LINE_RESERVE      64   /* for suppressed=N, truncated=true, the brace and the newline */
#define VALUE_BYTES_MAX   1024 /* of a value as given; escapes may make it longer */
#define REPEATS_PER_S     10
#define REPEAT_SLOTS      64
#define REPEAT_NAME_BYTES 48

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const format_names[] = {"logfmt", "json"};

static _Atomic int minimum_level = CFSR_LOG_INFO;
static _Atomic int line_format = CFSR_LOG_LOGFMT;

/* ---- the line ---- */

struct line {
    char text[LINE_BYTES];
    size_t len;
    size_t limit; /* LINE_BYTES less what is reserved */
    bool json;
    bool full; /* the last append did not fit */
};

static void put(struct line *line, const char *bytes, size_t len_bytes)
{
    if (line->full || line->limit - line->len < len_bytes) {
        line->full = true;
        return;
    }
    memcpy(line->text + line->len, bytes, len_bytes);
    line->len += len_bytes;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Bytes of the well-formed UTF-8 character at p (RFC 3629 table 3-7), or 0. */
static size_t utf8_len(const uint8_t *p, size_t left)
{
    size_t len;

    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        len = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        len = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        len = 4;
    else
        return 0;
    if (left < len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    /* Overlong forms, surrogates, and above U+10FFFF. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

static void put_escaped_char(struct line *line, char c)
{
    char text[8];

    switch (c) {
    case '"': put_text(line, "\\\""); return;
    case '\\': put_text(line, "\\\\"); return;
    case '\n': put_text(line, "\\n"); return;
    case '\r': put_text(line, "\\r"); return;
    case '\t': put_text(line, "\\t"); return;
    default: break;
    }
    if ((unsigned char)c < 0x20 || c == 0x7f) {
        snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        put_text(line, text);
    } else {
        put(line, &c, 1);
    }
}

/* A quoted string with the escapes of JSON; bytes that are not UTF-8 become U+FFFD. */
static void put_quoted(struct line *line, const char *value)
{
    const uint8_t *p = (const uint8_t *)value;
    size_t left = strlen(value);
    bool cut = left > VALUE_BYTES_MAX;

    if (cut)
        left = VALUE_BYTES_MAX;
    put_text(line, "\"");
    while (left > 0) {
        size_t len = utf8_len(p, left);

        if (len == 0 && cut && left < 4)
            break; /* the cut went through a character */
        if (len == 0)
            put_text(line, "\xef\xbf\xbd");
        else if (len == 1)
            put_escaped_char(line, (char)*p);
        else
            put(line, (const char *)p, len);
        p += len == 0 ? 1 : len;
        left -= len == 0 ? 1 : len;
    }
    put_text(line, cut ? "...\"" : "\"");
}

static bool is_plain(const char *value)
{
    size_t len_bytes = strlen(value);

    if (len_bytes == 0 || len_bytes > VALUE_BYTES_MAX)
        return false;
    for (size_t i = 0; i < len_bytes; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c <= ' ' || c >= 0x7f || c == '=' || c == '"' || c == '\\')
            return false;
    }
    return true;
}

static void put_string(struct line *line, const char *value)
{
    if (value == NULL) {
        if (line->json)
            put_text(line, "null");
    } else if (!line->json && is_plain(value)) {
        put_text(line, value);
    } else {
        put_quoted(line, value);
    }
}

/* The shortest decimal that reads back as the same double; JSON has no word for infinity or NaN. */
static void put_f64(struct line *line, double value)
{
    char text[40];

    if (!isfinite(value)) {
        put_text(line, line->json ? "null" : isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    put_text(line, text);
}

static void put_key(struct line *line, const char *key)
{
    if (line->len > 0 && !(line->json && line->len == 1))
        put_text(line, line->json ? "," : " ");
    if (line->json)
        put_quoted(line, key);
    else
        put_text(line, key);
    put_text(line, line->json ? ":" : "=");
}

static void put_value(struct line *line, const struct cfsr_log_field *field)
{
    char text[32] = "";

    switch (field->kind) {
    case CFSR_LOG_STRING:
    case CFSR_LOG_OPTIONAL: put_string(line, field->value.string); return;
    case CFSR_LOG_F64: put_f64(line, field->value.f64); return;
    case CFSR_LOG_BOOL: put_text(line, field->value.boolean ? "true" : "false"); return;
    case CFSR_LOG_U64: snprintf(text, sizeof text, "%" PRIu64, field->value.u64); break;
    case CFSR_LOG_I64: snprintf(text, sizeof text, "%" PRId64, field->value.i64); break;
    }
    put_text(line, text);
}

/* False if the field had no room: the line is then as before. */
static bool put_field(struct line *line, const struct cfsr_log_field *field)
{
    size_t before = line->len;

    if (field->kind == CFSR_LOG_OPTIONAL &&
        (field->value.string == NULL || field->value.string[0] == '\0'))
        return true;
    put_key(line, field->key);
    put_value(line, field);
    if (!line->full)
        return true;
    line->len = before;
    line->full = false;
    return false;
}

static void line_build(struct line *line, enum cfsr_log_level level, const char *event,
                       const struct cfsr_log_field *fields, unsigned count, uint64_t suppressed)
{
    char time_text[40];
    bool whole = true;

    line->len = 0;
    line->limit = sizeof line->text - LINE_RESERVE;
    line->full = false;
    line->json = atomic_load_explicit(&line_format, memory_order_relaxed) == CFSR_LOG_JSON;
    if (line->json)
        put_text(line, "{");
    cfsr_format_time_us(cfsr_clock_wall_us(), time_text, sizeof time_text);
    whole &= put_field(line, &CFSR_S("time", time_text));
    whole &= put_field(line, &CFSR_S("level", level_names[level]));
    whole &= put_field(line, &CFSR_S("event", event));
    for (unsigned i = 0; i < count; i++)
        whole &= put_field(line, &fields[i]);
    line->limit = sizeof line->text;
    if (suppressed > 0)
        put_field(line, &CFSR_U("suppressed", suppressed));
    if (!whole)
        put_field(line, &CFSR_B("truncated", true));
    put_text(line, line->json ? "}\n" : "\n");
    CFSR_ASSERT(!line->full);
}

/* ---- repeats ---- */

struct repeat {
    char event[REPEAT_NAME_BYTES];
    uint64_t window_start_ns;
    uint64_t suppressed;
    unsigned written; /* lines in this window; 0: the slot was never used */
};

static pthread_mutex_t repeats_lock = PTHREAD_MUTEX_INITIALIZER;
static struct repeat repeats[REPEAT_SLOTS];

/* The slot of the event, or the oldest one for it to take over. */
static struct repeat *repeat_find(const char *event)
{
    struct repeat *oldest = &repeats[0];

    for (size_t i = 0; i < REPEAT_SLOTS; i++) {
        if (repeats[i].written != 0 && strncmp(repeats[i].event, event, REPEAT_NAME_BYTES - 1) == 0)
            return &repeats[i];
        if (repeats[i].window_start_ns < oldest->window_start_ns)
            oldest = &repeats[i];
    }
    memset(oldest, 0, sizeof *oldest);
    snprintf(oldest->event, sizeof oldest->event, "%s", event);
    return oldest;
}

/* True if the line may be written; then *suppressed_out lines of this event were held back before
 * it. */
static bool repeat_admit(const char *event, uint64_t now_ns, uint64_t *suppressed_out)
{
    struct repeat *repeat;
    bool admit = true;

    pthread_mutex_lock(&repeats_lock);
    repeat = repeat_find(event);
    if (repeat->written == 0 || now_ns - repeat->window_start_ns >= 1000000000U) {
        *suppressed_out = repeat->suppressed;
        repeat->suppressed = 0;
        repeat->window_start_ns = now_ns;
        repeat->written = 1;
    } else if (repeat->written < REPEATS_PER_S) {
        repeat->written++;
    } else {
        repeat->suppressed++;
        admit = false;
    }
    pthread_mutex_unlock(&repeats_lock);
    return admit;
}

/* ---- interface ---- */

void cfsr_log_fields(enum cfsr_log_level level, const char *event,
                     const struct cfsr_log_field *fields, unsigned count)
{
    int saved_errno = errno;
    uint64_t suppressed = 0;
    struct line line;
    ssize_t n;

    CFSR_ASSERT(event != NULL && (unsigned)level < CFSR_ARRAY_LEN(level_names));
    if (!cfsr_log_enabled(level))
        return;
    if (level >= CFSR_LOG_WARN && !repeat_admit(event, cfsr_clock_monotonic_ns(), &suppressed)) {
        errno = saved_errno;
        return;
    }
    line_build(&line, level, event, fields, count, suppressed);
    do {
        n = write(STDERR_FILENO, line.text, line.len);
    } while (n < 0 && errno == EINTR);
    errno = saved_errno;
}

void cfsr_log_configure(enum cfsr_log_level minimum, enum cfsr_log_format format)
{
    atomic_store_explicit(&minimum_level, (int)minimum, memory_order_relaxed);
    atomic_store_explicit(&line_format, (int)format, memory_order_relaxed);
}

bool cfsr_log_enabled(enum cfsr_log_level level)
{
    return (int)level >= atomic_load_explicit(&minimum_level, memory_order_relaxed);
}

/* Index of text in names, or a stored error that names the choices. */
static int choice_parse(const char *what, const char *text, const char *const *names, size_t count)
{
    const char *near = cfsr_nearest(text, names, count);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0)
            return (int)i;
    }
    if (near != NULL)
        return cfsr_fail(-CFSR_E_FORMAT, "'%s' is not a %s: did you mean '%s'?", text, what, near);
    return cfsr_fail(-CFSR_E_FORMAT, "'%s' is not a %s: write one of %s to %s", text, what,
                     names[0], names[count - 1]);
}

int cfsr_log_level_parse(const char *text, enum cfsr_log_level *level_out)
{
    int choice = choice_parse("log level", text, level_names, CFSR_ARRAY_LEN(level_names));

    if (choice < 0)
        return choice;
    *level_out = (enum cfsr_log_level)choice;
    return 0;
}

int cfsr_log_format_parse(const char *text, enum cfsr_log_format *format_out)
{
    int choice = choice_parse("log format", text, format_names, CFSR_ARRAY_LEN(format_names));

    if (choice < 0)
        return choice;
    *format_out = (enum cfsr_log_format)choice;
    return 0;
}
