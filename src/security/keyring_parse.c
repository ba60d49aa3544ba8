/*
 * keyring_parse.c - the text of a key file to entries.
 *
 * Thread: any; no I/O. The text and the entries are the caller's guarded memory; nothing is copied
 * elsewhere, and messages name the file, the line and the field, never the field's text when that
 * may be a secret. Rejected: stdio and the INI library: both keep copies of the text on the
 * ordinary heap.
 */
#include "security/keyring_internal.h"

#include <string.h>

#include <sodium.h>

#include "base/fail.h"
#include "base/units.h"

#define HEADER        "cfs-repl-keyring"
#define WORDS_MAX     6 /* one more than a key line has */
#define KEY_WORDS     5
#define SECRET_DIGITS (2 * CFSR_KEY_LEN_BYTES)
/* "key 1 site-pair * " and the digits and a newline: no key line is shorter. */
#define KEY_LINE_MIN_LEN_BYTES (18 + SECRET_DIGITS)

struct place {
    const char *path;
    unsigned line;
};

size_t cfsr_keyring_parse_bound(size_t len_bytes)
{
    return len_bytes / KEY_LINE_MIN_LEN_BYTES + 1;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts a line into words in place, a comment dropped; WORDS_MAX means "that many or more". */
static unsigned cut_words(char *line, const char *words[WORDS_MAX])
{
    unsigned count = 0;
    char *at = line;

    at[strcspn(at, "#")] = '\0';
    while (count < WORDS_MAX) {
        while (is_blank(*at))
            at++;
        if (*at == '\0')
            break;
        words[count++] = at;
        while (*at != '\0' && !is_blank(*at))
            at++;
        if (*at != '\0')
            *at++ = '\0';
    }
    return count;
}

static int parse_id(struct place place, const char *word, uint32_t *id_out)
{
    uint64_t id;

    if (cfsr_parse_u64(word, &id) < 0 || id == 0 || id > UINT32_MAX)
        return cfsr_fail(-CFSR_E_FORMAT, "%s:%u: the key id is not a number from 1 to 4294967295",
                         place.path, place.line);
    *id_out = (uint32_t)id;
    return 0;
}

/* Cuts the word at the comma. */
static int parse_sites(struct place place, char *word, struct cfsr_keyring_entry *entry)
{
    char *comma = strchr(word, ',');
    uint64_t a;
    uint64_t b;

    if (strcmp(word, "*") == 0) {
        entry->site_low = 0;
        entry->site_high = 0;
        return 0;
    }
    if (comma == NULL)
        goto bad;
    *comma = '\0';
    if (cfsr_parse_u64(word, &a) < 0 || cfsr_parse_u64(comma + 1, &b) < 0)
        goto bad;
    if (a == 0 || b == 0 || a == b)
        goto bad;
    entry->site_low = a < b ? a : b;
    entry->site_high = a < b ? b : a;
    return 0;

bad:
    return cfsr_fail(-CFSR_E_FORMAT,
                     "%s:%u: the sites are not '*' or two different site ids like '1,2'",
                     place.path, place.line);
}

static int parse_secret(struct place place, const char *word,
                        uint8_t secret_out[CFSR_KEY_LEN_BYTES])
{
    size_t digits = strlen(word);
    size_t len_bytes = 0;

    if (digits != SECRET_DIGITS ||
        sodium_hex2bin(secret_out, CFSR_KEY_LEN_BYTES, word, digits, NULL, &len_bytes, NULL) != 0 ||
        len_bytes != CFSR_KEY_LEN_BYTES)
        return cfsr_fail(-CFSR_E_FORMAT, "%s:%u: the secret is not %u hexadecimal digits",
                         place.path, place.line, (unsigned)SECRET_DIGITS);
    return 0;
}

static int parse_key(struct place place, const char *const words[], unsigned count,
                     struct cfsr_keyring_entry *entry)
{
    int rc;

    if (count != KEY_WORDS || strcmp(words[0], "key") != 0)
        return cfsr_fail(-CFSR_E_FORMAT, "%s:%u: expected 'key ID KIND SITES SECRET'", place.path,
                         place.line);
    rc = parse_id(place, words[1], &entry->id);
    if (rc < 0)
        return rc;
    if (strcmp(words[2], "site-pair") != 0)
        return cfsr_fail(-CFSR_E_FORMAT, "%s:%u: the kind is not 'site-pair'", place.path,
                         place.line);
    rc = parse_sites(place, (char *)(uintptr_t)words[3],
                     entry); /* a word of the caller's own text */
    if (rc < 0)
        return rc;
    return parse_secret(place, words[4], entry->secret);
}

static int check_header(struct place place, const char *const words[], unsigned count)
{
    if (count != 2 || strcmp(words[0], HEADER) != 0)
        return cfsr_fail(-CFSR_E_FORMAT, "%s:%u: not a key file: it must begin with '" HEADER " 1'",
                         place.path, place.line);
    if (strcmp(words[1], "1") != 0)
        return cfsr_fail(-CFSR_E_FORMAT, "%s:%u: key file version is not 1, the only one known",
                         place.path, place.line);
    return 0;
}

static int check_unique(struct place place, const struct cfsr_keyring_entry *entries, int count)
{
    for (int i = 0; i < count; i++) {
        if (entries[i].id == entries[count].id)
            return cfsr_fail(-CFSR_E_FORMAT, "%s:%u: key id %u is used twice", place.path,
                             place.line, entries[count].id);
    }
    return 0;
}

/* One line that is not empty. Adds to *count; the first one is the header. */
static int parse_line(struct place place, char *line, bool is_header,
                      struct cfsr_keyring_entry *entries, int *count)
{
    const char *words[WORDS_MAX];
    unsigned word_count = cut_words(line, words);
    int rc;

    if (is_header)
        return check_header(place, words, word_count);
    if (word_count == 0)
        return 0;
    rc = parse_key(place, words, word_count, &entries[*count]);
    if (rc == 0)
        rc = check_unique(place, entries, *count);
    if (rc == 0)
        (*count)++;
    return rc;
}

int cfsr_keyring_parse(const char *path, char *text, size_t len_bytes,
                       struct cfsr_keyring_entry *entries)
{
    struct place place = {.path = path, .line = 0};
    char *end = text + len_bytes;
    char *line = text;
    int count = 0;

    if (memchr(text, '\0', len_bytes) != NULL)
        return cfsr_fail(-CFSR_E_FORMAT, "%s: not a text file: it holds a zero byte", path);
    while (line < end || place.line == 0) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        char *next = newline == NULL ? end : newline + 1;
        int rc;

        if (newline != NULL)
            *newline = '\0';
        place.line++;
        rc = parse_line(place, line, place.line == 1, entries, &count);
        if (rc < 0)
            return rc;
        line = next;
    }
    if (count == 0)
        return cfsr_fail(-CFSR_E_FORMAT, "%s: holds no key: make one with 'cfs-repl keygen'", path);
    return count;
}
