/*
 * fuzz_options.c - what a user types: configuration file, flags, numbers with units, the key file.
 *
 * Input: u8 what (0 configuration file, 1 flags separated by NUL, 2 a number, 3 key file), the
 * text.
 *
 * Properties: a configuration that was accepted and printed is accepted again and prints the same;
 * a number that was read, written and read again is the same; a key file's message never shows a
 * secret.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "control/serve_options.h"
#include "security/keyring_internal.h"

enum {
    ARGUMENTS_MAX = 32,
    TEXT_MAX = 16384
};

static char *print(const struct cfsr_serve_command *command,
                   const struct cfsr_option_origins *origins, size_t *len_out)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len_out);

    FUZZ_CHECK(out != NULL);
    cfsr_options_print(&cfsr_serve_option_set, command, origins, out);
    FUZZ_CHECK(fclose(out) == 0);
    return text;
}

/* Lines without their comments, which name the origin. */
static void strip_comments(char *text)
{
    char *to = text;
    bool comment = false;

    for (const char *from = text; *from != '\0'; from++) {
        if ((*from == '#' || *from == ';') && (from == text || from[-1] == ' ' || from[-1] == '\n'))
            comment = true;
        if (*from == '\n') {
            comment = false;
            while (to > text && to[-1] == ' ')
                to--;
        }
        if (!comment)
            *to++ = *from;
    }
    *to = '\0';
}

static int load(const char *path, struct cfsr_serve_command *command,
                struct cfsr_option_origins *origins)
{
    FUZZ_CHECK(cfsr_options_defaults(&cfsr_serve_option_set, command, sizeof *command, origins) ==
               0);
    return cfsr_options_file(&cfsr_serve_option_set, command, origins, path);
}

static void configuration(const uint8_t *text, size_t len_bytes)
{
    static struct cfsr_serve_command command, again;
    struct cfsr_option_origins origins;
    char *first, *second;
    size_t first_len, second_len;

    if (load(fuzz_memory_file(text, len_bytes), &command, &origins) < 0)
        return;
    first = print(&command, &origins, &first_len);
    FUZZ_CHECK(load(fuzz_memory_file(first, first_len), &again, &origins) == 0);
    second = print(&again, &origins, &second_len);
    strip_comments(first);
    strip_comments(second);
    FUZZ_CHECK(strcmp(first, second) == 0);
    free(first);
    free(second);
}

static void flags(const uint8_t *data, size_t len_bytes)
{
    static struct cfsr_serve_command command;
    struct cfsr_option_origins origins;
    char *text = malloc(len_bytes + 1), *arguments[ARGUMENTS_MAX];
    int count = 0;

    FUZZ_CHECK(text != NULL);
    memcpy(text, data, len_bytes);
    text[len_bytes] = '\0';
    for (size_t at = 0; at < len_bytes && count < ARGUMENTS_MAX; at += strlen(text + at) + 1)
        arguments[count++] = text + at;
    /* No file of this machine is opened in the name of a fuzzer. */
    for (int i = 0; i < count; i++) {
        if (strncmp(arguments[i], "--config", 8) == 0) {
            free(text);
            return;
        }
    }
    if (cfsr_serve_options_parse(count, arguments, &command, &origins) == 0) {
        size_t len;

        free(print(&command, &origins, &len));
    }
    free(text);
}

static void number(const uint8_t *data, size_t len_bytes)
{
    char *text = malloc(len_bytes + 1), again[64];
    uint64_t first, second;

    FUZZ_CHECK(text != NULL);
    memcpy(text, data, len_bytes);
    text[len_bytes] = '\0';
    (void)cfsr_parse_u64(text, &first);
    if (cfsr_parse_size(text, &first) == 0) {
        cfsr_format_size_exact(first, again, sizeof again);
        FUZZ_CHECK(cfsr_parse_size(again, &second) == 0 && first == second);
        (void)cfsr_format_bytes(first, again, sizeof again);
    }
    if (cfsr_parse_duration_us(text, &first) == 0) {
        cfsr_format_duration_exact(first, again, sizeof again);
        FUZZ_CHECK(cfsr_parse_duration_us(again, &second) == 0 && first == second);
        (void)cfsr_format_time_us(first, again, sizeof again);
    }
    free(text);
}

/* True if any eight letters of the text that look like part of a secret are in the message. */
static bool shows_secret(const char *message, const uint8_t *data, size_t len_bytes)
{
    const char *hex = "0123456789abcdefABCDEF";

    for (size_t at = 0; at + 12 <= len_bytes; at++) {
        size_t run = 0;
        char part[13] = {0};

        while (at + run < len_bytes && run < 12 && data[at + run] != 0 &&
               strchr(hex, data[at + run]) != NULL)
            run++;
        if (run < 12)
            continue;
        memcpy(part, data + at, 12);
        if (strstr(message, part) != NULL)
            return true;
    }
    return false;
}

static void key_file(const uint8_t *data, size_t len_bytes)
{
    size_t bound = cfsr_keyring_parse_bound(len_bytes);
    struct cfsr_keyring_entry *entries = calloc(bound + 1, sizeof *entries);
    char *text = malloc(len_bytes + 1);
    int count;

    FUZZ_CHECK(text != NULL && entries != NULL && bound <= len_bytes + 1);
    memcpy(text, data, len_bytes);
    text[len_bytes] = '\0';
    count = cfsr_keyring_parse("keys", text, len_bytes, entries);
    FUZZ_CHECK(count <= (int)bound && count != 0);
    for (int i = 0; i < count; i++)
        FUZZ_CHECK(entries[i].id != 0 && entries[i].site_low <= entries[i].site_high);
    if (count < 0)
        FUZZ_CHECK(!shows_secret(cfsr_error_message(), data, len_bytes));
    free(text);
    free(entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t what = fuzz_u8(&reader) % 4;
    uint8_t *copy;

    if (reader.left > TEXT_MAX)
        return 0;
    FUZZ_CHECK(cfsr_security_init() == 0);
    copy = fuzz_copy(reader.at, reader.left);
    switch (what) {
    case 0: configuration(copy, reader.left); break;
    case 1: flags(copy, reader.left); break;
    case 2: number(copy, reader.left); break;
    default: key_file(copy, reader.left); break;
    }
    free(copy);
    return 0;
}

static void add(struct fuzz_corpus *corpus, const char *name, uint8_t what, const void *text,
                size_t len_bytes)
{
    struct fuzz_seed seed = {0};

    fuzz_seed_u8(&seed, what);
    fuzz_seed_bytes(&seed, text, len_bytes);
    fuzz_seed_end(&seed, corpus, name);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    static const char file[] = "[serve]\ndata-dir = /srv/a ; comment\nsite-id = 1\n"
                               "listen = tcp://127.0.0.1:7001\nlisten = tcp://[::1]:7002\n"
                               "peer = 2:site-b:tcp://b.example:7000\npeer = 3:c:tcp://10.0.0.3:7\n"
                               "peer = 4:d:tcp://d:1,rdma://d:2\nrdma-gid = -1\nseal = require\n"
                               "cores = 0,2-3\ncompress = zstd:5\nwindow-bytes = 16MiB\n"
                               "batch-timeout = 2ms\nlog-level = debug\n";
    static const char arguments[] = "--data-dir\0/srv/a\0--listen=tcp://127.0.0.1:7001\0--peer\0"
                                    "2:b:rdma://h:1\0--rdma-depth\0"
                                    "128\0--rdma\0auto\0--compress\0lz4\0--sync-delay\0"
                                    "8ms\0--print-config";
    static const char keys[] = "cfs-repl-keyring 1\n# comment\nkey 1 site-pair * "
                               "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
                               "key 2 site-pair 1,2 "
                               "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff\n";
    static struct cfsr_serve_command command;
    struct cfsr_option_origins origins;
    size_t len;
    char *text;

    add(corpus, "file", 0, file, sizeof file - 1);
    FUZZ_CHECK(cfsr_options_defaults(&cfsr_serve_option_set, &command, sizeof command, &origins) ==
               0);
    text = print(&command, &origins, &len);
    add(corpus, "defaults", 0, text, len);
    free(text);
    add(corpus, "flags", 1, arguments, sizeof arguments - 1);
    add(corpus, "size", 2, "256KiB", 6);
    add(corpus, "duration", 2, "20ms", 4);
    add(corpus, "keys", 3, keys, sizeof keys - 1);
}
