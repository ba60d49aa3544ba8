/* test_options.c - the option table: every kind, limits, flags over file over defaults, errors that
 * name the nearest match. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "control/serve_options.h"

static struct cfsr_serve_command command;
static struct cfsr_option_origins origins;

#define PARSE(...)                                                                               \
    parse((const char *const[]){"--data-dir", "/d", "--key-file", "/k", "--listen", "tcp://h:1", \
                                __VA_ARGS__},                                                    \
          6 + sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static int parse(const char *const *words, size_t count)
{
    char *argv[32];

    cr_assert_leq(count, CFSR_ARRAY_LEN(argv));
    for (size_t i = 0; i < count; i++)
        argv[i] = (char *)(uintptr_t)words[i]; /* as main() has them; nothing writes to them */
    cfsr_error_clear();
    return cfsr_serve_options_parse((int)count, argv, &command, &origins);
}

static void expect_error(int rc, int code, const char *text)
{
    cr_assert_eq(rc, -code, "got %d: %s", rc, cfsr_error_message());
    cr_assert_not_null(strstr(cfsr_error_message(), text), "'%s' lacks '%s'", cfsr_error_message(),
                       text);
}

Test(options, defaults_are_those_of_the_contract)
{
    cr_assert_eq(PARSE("--log-level", "info"), 0, "%s", cfsr_error_message());
    cr_assert_eq(command.config.batch_size, 0);
    cr_assert_eq(command.config.batch_bytes, 256u << 10);
    cr_assert_eq(command.config.batch_timeout_ms, 20);
    cr_assert_eq(command.config.window_bytes, 16u << 20);
    cr_assert_eq(command.config.peer_timeout_ms, 10000);
    cr_assert_eq(command.config.reconnect_min_ms, 100);
    cr_assert_eq(command.config.reconnect_max_ms, 10000);
    cr_assert_eq(command.config.status_interval_s, 30);
    cr_assert_eq(command.config.sync_bytes, 1u << 20);
    cr_assert_eq(command.config.sync_delay_us, 1000);
    cr_assert_eq(command.config.codec.codec, CFSR_CODEC_LZ4);
    cr_assert_eq(command.config.codec.min_compress_bytes, 256);
    cr_assert_eq(command.config.ack, CFSR_ACK_DURABLE);
    cr_assert_eq(command.config.journal_io, CFSR_IO_BUFFERED);
    cr_assert_eq(command.config.core_count, 1);
    cr_assert_eq(command.config.core_cpu_count, 0);
    cr_assert_str_eq(command.config.admin_socket, "/d/run/admin.sock");
}

Test(options, every_kind_is_taken_in_both_forms)
{
    cr_assert_eq(PARSE("--batch-bytes=64KiB", "--batch-timeout-ms", "5", "--heartbeat-interval",
                       "250ms", "--cores", "0,2-3", "--compress", "zstd:7", "--ack=written",
                       "--status-interval-s", "2m", "--batch-size", "100", "--peer",
                       "2:b:tcp://[::1]:7400", "--peer=3:c:tcp://c.example:7400"),
                 0, "%s", cfsr_error_message());
    cr_assert_eq(command.config.batch_bytes, 64u << 10);
    cr_assert_eq(command.config.batch_timeout_ms, 5);
    cr_assert_eq(command.config.heartbeat_interval_ms, 250);
    cr_assert_eq(command.config.core_count, 3);
    cr_assert_eq(command.config.core_cpu[2], 3);
    cr_assert_eq(command.config.codec.codec, CFSR_CODEC_ZSTD);
    cr_assert_eq(command.config.codec.level, 7);
    cr_assert_eq(command.config.ack, CFSR_ACK_WRITTEN);
    cr_assert_eq(command.config.status_interval_s, 120);
    cr_assert_eq(command.config.peer_count, 2);
    cr_assert_eq(command.config.peer[1].site_id, 3);
    cr_assert_str_eq(command.config.peer[0].endpoint[CFSR_PATH_TCP], "tcp://[::1]:7400");
}

struct bad {
    const char *flag, *value, *says;
};

Test(options, bad_values_are_named)
{
    static const struct bad cases[] = {
        {"--batch-bytes", "256KB!", "--batch-bytes: '256KB!'"},
        {"--batch-bytes", "1KiB", "out of range: give 4KiB to"},
        {"--batch-size", "-1", "is not a number"},
        {"--heartbeat-interval", "5", "is not a duration"},
        {"--heartbeat-interval", "1500us", "too fine"},
        {"--ack", "durabel", "did you mean 'durable'"},
        {"--log-level", "loud", "one of: debug, info, warn, error"},
        {"--cores", "0,0", "twice"},
        {"--cores", "3-1", "not a cpu list"},
        {"--cores", "", "not a cpu list"},
        {"--peer", "2:b", "ID:NAME:"},
        {"--peer", "0:b:tcp://h:1", "site id"},
        {"--peer", "2::tcp://h:1", "name"},
        {"--peer", "2:b:udp://h:1", "tcp://HOST:PORT"},
        {"--peer", "2:b:tcp://h:0", "port"},
        {"--peer", "2:b:tcp://::1:7400", "brackets"},
        {"--compress", "gzip", "gzip"},
        {"--batch-byts", "1", "did you mean --batch-bytes?"},
        {"--reconnect-min", "20s", "--reconnect-max"},
        {"--peer-timeout", "1s", "two heartbeats"},
    };

    for (size_t i = 0; i < CFSR_ARRAY_LEN(cases); i++) {
        int rc = PARSE(cases[i].flag, cases[i].value);

        cr_assert(rc == -CFSR_E_USAGE || rc == -CFSR_E_CONFIG, "%s %s: %d", cases[i].flag,
                  cases[i].value, rc);
        cr_assert_not_null(strstr(cfsr_error_message(), cases[i].says), "%s %s: '%s' lacks '%s'",
                           cases[i].flag, cases[i].value, cfsr_error_message(), cases[i].says);
    }
}

Test(options, flags_are_checked_as_a_whole)
{
    const char *const missing[] = {"--listen", "tcp://h:1", "--data-dir", "/d"};

    expect_error(parse(missing, 4), CFSR_E_USAGE, "--key-file is missing");
    expect_error(PARSE("--batch-bytes"), CFSR_E_USAGE, "the value is missing");
    expect_error(PARSE("--batch-size", "1", "--batch-size", "2"), CFSR_E_USAGE, "given twice");
    expect_error(PARSE("stray"), CFSR_E_USAGE, "unexpected word");
    expect_error(PARSE("--peer", "2:b:tcp://h:1", "--peer", "2:c:tcp://h:2"), CFSR_E_USAGE,
                 "already peer b");
    expect_error(PARSE("--site-id", "2", "--peer", "2:b:tcp://h:1"), CFSR_E_CONFIG,
                 "this site itself");
    cr_assert_eq(PARSE("--help"), 1);
}

static char path[] = "/tmp/test-options-XXXXXX";

static int with_file(const char *text, const char *const *more, size_t count)
{
    const char *argv[16] = {"--data-dir", "/d", "--key-file", "/k", "--config", path};
    int fd = mkstemp(path);
    int rc;

    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    for (size_t i = 0; i < count; i++)
        argv[6 + i] = more[i];
    rc = parse(argv, 6 + count);
    unlink(path);
    return rc;
}

Test(options, flags_override_the_file_and_lists_are_replaced)
{
    const char *const flags[] = {"--batch-bytes", "8KiB", "--peer", "9:z:tcp://z:1"};
    const char *text = "[serve]\nbatch-bytes = 64KiB ; comment\nwindow-bytes = 1MiB\npeer = "
                       "2:b:tcp://b:1\npeer = 3:c:tcp://c:1\n"
                       "listen = tcp://h:7\n";

    cr_assert_eq(with_file(text, flags, 4), 0, "%s", cfsr_error_message());
    cr_assert_eq(command.config.batch_bytes, 8u << 10);
    cr_assert_eq(command.config.window_bytes, 1u << 20);
    cr_assert_eq(command.config.peer_count, 1);
    cr_assert_eq(command.config.peer[0].site_id, 9);
    cr_assert_eq(command.config.listen_count, 1);
}

Test(options, file_errors_have_file_and_line)
{
    expect_error(with_file("\nbatch-byte = 1MiB\n", NULL, 0), CFSR_E_CONFIG,
                 ":2: unknown key: batch-byte: did you mean batch-bytes?");
    snprintf(path, sizeof path, "/tmp/test-options-XXXXXX");
    expect_error(with_file("batch-bytes = huge\n", NULL, 0), CFSR_E_CONFIG,
                 ":1: batch-bytes: 'huge'");
    snprintf(path, sizeof path, "/tmp/test-options-XXXXXX");
    expect_error(with_file("[other]\nack = durable\n", NULL, 0), CFSR_E_CONFIG,
                 "unknown section: [other]");
    snprintf(path, sizeof path, "/tmp/test-options-XXXXXX");
    expect_error(with_file("ack = durable\nack = written\n", NULL, 0), CFSR_E_CONFIG,
                 "already given in line 1");
    snprintf(path, sizeof path, "/tmp/test-options-XXXXXX");
    expect_error(with_file("nonsense\n", NULL, 0), CFSR_E_CONFIG, ":1: not understood");
    cr_assert_eq(PARSE("--config", "/nonexistent/file"), -ENOENT);
    cr_assert_not_null(strstr(cfsr_error_message(), "cannot read the configuration file"));
}

Test(options, printed_configuration_is_read_back_the_same)
{
    struct cfsr_serve_config before;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    cr_assert_eq(PARSE("--compress", "zstd:5", "--cores", "1,0", "--peer", "2:b:tcp://b:1", "--ack",
                       "written"),
                 0);
    cfsr_options_print(&cfsr_serve_option_set, &command, &origins, out);
    fclose(out);
    cr_assert_not_null(strstr(text, "compress = zstd:5 ; --compress"));
    cr_assert_not_null(strstr(text, "sync-delay = 1ms ; default"));
    before = command.config;
    cr_assert_eq(with_file(text, NULL, 0), 0, "%s", cfsr_error_message());
    memset(command.config.config_file, 0, sizeof command.config.config_file);
    cr_assert_eq(memcmp(&before, &command.config, sizeof before), 0);
    free(text);
}

Test(options, help_names_every_option_within_96_columns)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    cfsr_options_help(&cfsr_serve_option_set, out);
    fclose(out);
    for (unsigned i = 0; i < cfsr_serve_option_set.count; i++)
        cr_assert_not_null(strstr(text, cfsr_serve_option_set.options[i].name));
    for (const char *line = text; *line != '\0';) {
        size_t line_len = strcspn(line, "\n");

        cr_assert_leq(line_len, 96, "%.*s", (int)line_len, line);
        line += line_len + (line[line_len] == '\n' ? 1 : 0);
    }
    free(text);
}
