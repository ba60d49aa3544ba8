/*
 * error.c - names, texts and the thread's last message.
 *
 * Thread: any; the message is thread-local. Names are made in lower case once, from the one list in
 * error.h and from the C library's errno names, so that a name can be kept and two can be used in
 * one expression. Rejected: a message inside the return value (allocation on error paths), a global
 * log callback (the caller knows whether an error is worth a line).
 */
#include <cfsrepl/error.h>

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#define MESSAGE_BYTES 1024
#define ERRNO_COUNT   256 /* Linux uses up to 133 */
#define NAME_BYTES    24

struct error_entry {
    int number;
    const char *name; /* upper case, as in the enum */
    const char *text;
};

#define X(name, number, text) {number, #name, text},
static const struct error_entry entries[] = {CFSR_ERROR_LIST(X)};
#undef X

#define ENTRY_COUNT (sizeof entries / sizeof entries[0])

static char own_names[ENTRY_COUNT][NAME_BYTES];
static char errno_names[ERRNO_COUNT][NAME_BYTES];
static pthread_once_t names_once = PTHREAD_ONCE_INIT;

static _Thread_local char message[MESSAGE_BYTES];
static _Thread_local char unknown_text[48];
static _Thread_local char unknown_name[24];

static void lower_into(char out[NAME_BYTES], const char *name)
{
    size_t i;

    CFSR_ASSERT(strlen(name) < NAME_BYTES);
    for (i = 0; name[i] != '\0'; i++)
        out[i] = (char)tolower((unsigned char)name[i]);
    out[i] = '\0';
}

static void make_names(void)
{
    for (size_t i = 0; i < ENTRY_COUNT; i++)
        lower_into(own_names[i], entries[i].name);
    for (int i = 1; i < ERRNO_COUNT; i++) {
        const char *name = strerrorname_np(i);
        if (name != NULL)
            lower_into(errno_names[i], name);
    }
}

/* Index of a CFSR_E_* in entries, or ENTRY_COUNT. A walk: cold, and the list may have holes. */
static size_t entry_find(int rc)
{
    size_t i = 0;

    while (i < ENTRY_COUNT && entries[i].number != -(long long)rc)
        i++;
    return i;
}

const char *cfsr_strerror(int rc)
{
    size_t entry = entry_find(rc);
    const char *text;

    if (rc >= 0)
        return "success";
    if (entry < ENTRY_COUNT)
        return entries[entry].text;
    text = rc > -ERRNO_COUNT ? strerrordesc_np(-rc) : NULL;
    if (text != NULL)
        return text;
    snprintf(unknown_text, sizeof unknown_text, "unknown error %lld", -(long long)rc);
    return unknown_text;
}

const char *cfsr_error_name(int rc)
{
    size_t entry = entry_find(rc);

    if (rc >= 0)
        return "ok";
    pthread_once(&names_once, make_names);
    if (entry < ENTRY_COUNT)
        return own_names[entry];
    if (rc > -ERRNO_COUNT && errno_names[-rc][0] != '\0')
        return errno_names[-rc];
    snprintf(unknown_name, sizeof unknown_name, "error_%lld", -(long long)rc);
    return unknown_name;
}

const char *cfsr_error_message(void)
{
    return message;
}

void cfsr_error_clear(void)
{
    message[0] = '\0';
}

int cfsr_fail(int rc, const char *fmt, ...)
{
    char text[MESSAGE_BYTES]; /* apart, because an argument may be the old message */
    va_list args;

    CFSR_ASSERT(rc < 0);
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    memcpy(message, text, strlen(text) + 1);
    return rc;
}

int cfsr_fail_context(int rc, const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    const char *cause = message[0] != '\0' ? message : cfsr_strerror(rc);
    va_list args;
    size_t len_bytes;
    size_t cause_bytes;

    CFSR_ASSERT(rc < 0);
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    len_bytes = strlen(text);
    if (len_bytes + 2 < sizeof text) { /* a cause that has no room is cut, not the context */
        memcpy(text + len_bytes, ": ", 2);
        len_bytes += 2;
        cause_bytes = (size_t)cfsr_min_u64(strlen(cause), sizeof text - 1 - len_bytes);
        memcpy(text + len_bytes, cause, cause_bytes);
        text[len_bytes + cause_bytes] = '\0';
    }
    memcpy(message, text, strlen(text) + 1);
    return rc;
}
