/* test_serve_rdma.c - RDMA and sealing as flags and keys: endpoints for each path, what fits
 * together, what is printed and read back. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "control/serve_options.h"

static struct cfsr_serve_command command;
static struct cfsr_option_origins origins;

#define PARSE(...)                                                                    \
    parse((const char *const[]){"--data-dir", "/d", "--key-file", "/k", __VA_ARGS__}, \
          4 + sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

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

static void expect_peer(const char *text, const char *tcp, const char *rdma)
{
    struct cfsr_peer_config peer;

    cr_assert_eq(cfsr_peer_parse(text, &peer), 0, "%s: %s", text, cfsr_error_message());
    cr_assert_str_eq(peer.endpoint[CFSR_PATH_TCP], tcp, "%s", text);
    cr_assert_str_eq(peer.endpoint[CFSR_PATH_RDMA], rdma, "%s", text);
}

Test(serve_rdma, a_peer_has_one_endpoint_for_each_path)
{
    expect_peer("2:b:tcp://h:1", "tcp://h:1", "");
    expect_peer("2:b:rdma://h:1", "tcp://h:1", "rdma://h:1");
    expect_peer("2:b:rdma://h:1,tcp://[fe80::1]:2", "tcp://[fe80::1]:2", "rdma://h:1");
    expect_peer("2:b:tcp://g:2,rdma://[::1]:1", "tcp://g:2", "rdma://[::1]:1");
}

Test(serve_rdma, bad_endpoints_say_what_to_write)
{
    static const struct {
        const char *peer, *says;
    } cases[] = {
        {"2:b:rdma://h:1,rdma://g:1", "two endpoints with rdma://"},
        {"2:b:tcp://h:1,tcp://g:1", "two endpoints with tcp://"},
        {"2:b:rdma://h:1,tcp://g:1,rdma://i:1", "two endpoints with rdma://"},
        {"2:b:rdma://h:1,", "tcp://HOST:PORT or rdma://HOST:PORT"},
        {"2:b:,rdma://h:1", "tcp://HOST:PORT or rdma://HOST:PORT"},
        {"2:b:rdma://h:1,g:1", "tcp://HOST:PORT or rdma://HOST:PORT"},
        {"2:b:rdma://h", "write rdma://HOST:PORT"},
        {"2:b:rdma://::1:1", "in brackets, rdma://[ADDRESS]:PORT"},
        {"2:b:rdma://h:70000", "port"},
        {"2:b:ib://h:1", "tcp://HOST:PORT or rdma://HOST:PORT"},
        {"2:b", "ID:NAME:rdma://HOST:PORT"},
    };

    for (size_t i = 0; i < CFSR_ARRAY_LEN(cases); i++) {
        struct cfsr_peer_config peer;

        cfsr_error_clear();
        cr_assert_eq(cfsr_peer_parse(cases[i].peer, &peer), -CFSR_E_USAGE, "%s", cases[i].peer);
        cr_assert_not_null(strstr(cfsr_error_message(), cases[i].says), "%s: '%s' lacks '%s'",
                           cases[i].peer, cfsr_error_message(), cases[i].says);
    }
}

/* An address fits behind either scheme, or is refused: never cut. */
Test(serve_rdma, the_longest_address_fits_every_path)
{
    char text[2 * CFSR_ENDPOINT_TEXT_MAX], other[CFSR_ENDPOINT_TEXT_MAX];

    for (int zeros = 250; zeros < 290; zeros++) {
        int rc;

        snprintf(text, sizeof text, "tcp://h:%0*d", zeros, 7);
        rc = cfsr_endpoint_check(text);
        if (rc == 0) {
            cfsr_endpoint_on_path(text, CFSR_PATH_RDMA, other);
            cr_assert_str_eq(other + strlen("rdma://"), text + strlen("tcp://"));
            cr_assert_eq(cfsr_endpoint_check(other), 0);
        }
        cr_assert_eq(rc == 0,
                     strlen(text) - strlen("tcp://") + strlen("rdma://") < CFSR_ENDPOINT_TEXT_MAX);
    }
}

Test(serve_rdma, endpoints_know_their_path)
{
    char text[CFSR_ENDPOINT_TEXT_MAX];

    cr_assert_eq(cfsr_endpoint_path("rdma://h:1"), CFSR_PATH_RDMA);
    cr_assert_eq(cfsr_endpoint_path("tcp://rdma:1"), CFSR_PATH_TCP);
    cfsr_endpoint_on_path("rdma://[::1]:7", CFSR_PATH_TCP, text);
    cr_assert_str_eq(text, "tcp://[::1]:7");
    cfsr_endpoint_on_path("rdma://h:7", CFSR_PATH_RDMA, text);
    cr_assert_str_eq(text, "rdma://h:7");
}

Test(serve_rdma, defaults)
{
    cr_assert_eq(PARSE("--listen", "rdma://h:1"), 0, "%s", cfsr_error_message());
    cr_assert_eq(command.config.rdma, CFSR_RDMA_AUTO);
    cr_assert_str_eq(command.config.rdma_device, "");
    cr_assert_eq(command.config.rdma_gid, -1);
    cr_assert_eq(command.config.rdma_depth, 64);
    cr_assert_eq(command.config.rdma_poll_us, 0);
    cr_assert_eq(command.config.seal, CFSR_SEAL_OFF);
    cr_assert_str_eq(command.config.listen[0], "rdma://h:1");
}

Test(serve_rdma, values_are_taken)
{
    cr_assert_eq(PARSE("--listen", "rdma://h:1", "--peer", "2:b:rdma://b:1", "--rdma", "require",
                       "--rdma-device", "rxe0", "--rdma-gid", "3", "--rdma-depth", "1024",
                       "--rdma-poll-us", "50", "--seal=require"),
                 0, "%s", cfsr_error_message());
    cr_assert_eq(command.config.rdma, CFSR_RDMA_REQUIRE);
    cr_assert_str_eq(command.config.rdma_device, "rxe0");
    cr_assert_eq(command.config.rdma_gid, 3);
    cr_assert_eq(command.config.rdma_depth, 1024);
    cr_assert_eq(command.config.rdma_poll_us, 50);
    cr_assert_eq(command.config.seal, CFSR_SEAL_REQUIRE);
    cr_assert_eq(PARSE("--listen", "rdma://h:1", "--rdma", "off", "--rdma-gid", "-1"), 0, "%s",
                 cfsr_error_message());
    cr_assert_eq(command.config.rdma, CFSR_RDMA_OFF);
    cr_assert_eq(command.config.rdma_gid, -1);
}

Test(serve_rdma, bad_values_are_named)
{
    static const struct {
        const char *flag, *value, *says;
        int code;
    } cases[] = {
        {"--rdma", "requir", "did you mean 'require'", CFSR_E_USAGE},
        {"--rdma", "on", "one of: auto, require, off", CFSR_E_USAGE},
        {"--seal", "auto", "one of: off, require", CFSR_E_USAGE},
        {"--rdma-gid", "256", "give 0 to 255, or -1", CFSR_E_USAGE},
        {"--rdma-gid", "-2", "give 0 to 255, or -1", CFSR_E_USAGE},
        {"--rdma-gid", "first", "give 0 to 255, or -1", CFSR_E_USAGE},
        {"--rdma-depth", "4", "give 8 to 1024", CFSR_E_USAGE},
        {"--rdma-depth", "2048", "give 8 to 1024", CFSR_E_USAGE},
        {"--rdma-depth", "100", "not a power of two: give 64 or 128", CFSR_E_CONFIG},
        {"--rdma-depth", "9", "give 8 or 16", CFSR_E_CONFIG},
        {"--rdma-poll-us", "1000001", "give 0 to 1000000", CFSR_E_USAGE},
        {"--rdma-device", "", "empty", CFSR_E_USAGE},
        {"--rdma-devise", "rxe0", "did you mean --rdma-device?", CFSR_E_USAGE},
    };

    for (size_t i = 0; i < CFSR_ARRAY_LEN(cases); i++) {
        int rc = PARSE("--listen", "tcp://h:1", cases[i].flag, cases[i].value);

        cr_assert_eq(rc, -cases[i].code, "%s %s: %d", cases[i].flag, cases[i].value, rc);
        cr_assert_not_null(strstr(cfsr_error_message(), cases[i].says), "%s %s: '%s' lacks '%s'",
                           cases[i].flag, cases[i].value, cfsr_error_message(), cases[i].says);
    }
}

Test(serve_rdma, require_wants_rdma_everywhere)
{
    expect_error(PARSE("--rdma", "require", "--peer", "2:b:rdma://b:1", "--peer", "3:c:tcp://c:1"),
                 CFSR_E_CONFIG, "peer 3:c has only tcp://c:1: give it an endpoint rdma://");
    expect_error(PARSE("--rdma", "require", "--listen", "tcp://h:1"), CFSR_E_CONFIG,
                 "--listen tcp://h:1 accepts TCP, which --rdma require forbids: write rdma://h:1");
    cr_assert_eq(PARSE("--rdma", "require", "--peer", "2:b:tcp://c:1,rdma://b:1"), 0, "%s",
                 cfsr_error_message());
    cr_assert_eq(PARSE("--rdma", "auto", "--peer", "2:b:tcp://c:1"), 0, "%s", cfsr_error_message());
}

Test(serve_rdma, an_address_is_listened_at_once)
{
    expect_error(PARSE("--listen", "tcp://h:1", "--listen", "rdma://h:1"), CFSR_E_CONFIG,
                 "--listen tcp://h:1 and --listen rdma://h:1 are one address");
    expect_error(PARSE("--listen", "rdma://h:1", "--listen", "rdma://h:1"), CFSR_E_CONFIG,
                 "give it once");
    expect_error(PARSE("--listen", "tcp://h:1", "--listen", "tcp://h:1"), CFSR_E_CONFIG,
                 "give it once");
    cr_assert_eq(PARSE("--listen", "tcp://h:1", "--listen", "rdma://h:2"), 0, "%s",
                 cfsr_error_message());
}

static char path[] = "/tmp/test-serve-rdma-XXXXXX";

Test(serve_rdma, printed_configuration_is_read_back_the_same)
{
    struct cfsr_serve_config before;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    int fd = mkstemp(path);

    cr_assert_eq(PARSE("--listen", "rdma://h:1", "--peer", "2:b:rdma://b:1", "--peer",
                       "3:c:tcp://c:1,rdma://d:1", "--peer", "4:d:tcp://e:1", "--peer",
                       "5:e:tcp://f:1,rdma://f:1", "--rdma-gid", "7", "--rdma-device", "mlx5_0",
                       "--rdma-depth", "128", "--rdma-poll-us", "20", "--seal", "require"),
                 0, "%s", cfsr_error_message());
    cfsr_options_print(&cfsr_serve_option_set, &command, &origins, out);
    fclose(out);
    cr_assert_not_null(strstr(text, "listen = rdma://h:1 ; --listen\n"));
    cr_assert_not_null(strstr(text, "peer = 2:b:rdma://b:1 ; --peer\n"), "%s", text);
    cr_assert_not_null(strstr(text, "peer = 3:c:rdma://d:1,tcp://c:1 ; --peer\n"), "%s", text);
    cr_assert_not_null(strstr(text, "peer = 4:d:tcp://e:1 ; --peer\n"), "%s", text);
    cr_assert_not_null(strstr(text, "peer = 5:e:rdma://f:1 ; --peer\n"), "%s", text);
    cr_assert_not_null(strstr(text, "rdma = auto ; default\n"), "%s", text);
    cr_assert_not_null(strstr(text, "rdma-gid = 7 ; --rdma-gid\n"), "%s", text);
    cr_assert_not_null(strstr(text, "seal = require ; --seal\n"), "%s", text);
    cr_assert_eq(write(fd, text, len), (ssize_t)len);
    close(fd);
    before = command.config;
    cr_assert_eq(PARSE("--config", path), 0, "%s", cfsr_error_message());
    unlink(path);
    memset(command.config.config_file, 0, sizeof command.config.config_file);
    cr_assert_eq(memcmp(&before, &command.config, sizeof before), 0);
    free(text);
}

Test(serve_rdma, a_bad_key_of_the_file_has_its_line)
{
    int fd = mkstemp(path);
    const char *text = "listen = rdma://h:1\nrdma = maybe\n";

    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    expect_error(PARSE("--config", path), CFSR_E_CONFIG, ":2: rdma: 'maybe' is not known");
    unlink(path);
}
