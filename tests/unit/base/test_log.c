/*
 * test_log.c - log lines as they leave the process, caught in a pipe.
 */
#include "base/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"

static int pipe_read;
static int saved_stderr;
static char captured[65536];

static void capture_start(void)
{
    int fds[2];

    cr_assert_eq(pipe2(fds, O_NONBLOCK), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    pipe_read = fds[0];
}

/* What was written since capture_start(), as text; stderr is given back, so that failures can be
 * shown. */
static const char *capture_end(void)
{
    size_t len = 0;
    ssize_t n;

    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    while ((n = read(pipe_read, captured + len, sizeof captured - 1 - len)) > 0)
        len += (size_t)n;
    close(pipe_read);
    captured[len] = '\0';
    return captured;
}

/* The line after its time field. */
static const char *after_time(const char *line)
{
    const char *level = strstr(line, line[0] == '{' ? "\"level\"" : "level=");

    cr_assert_not_null(level, "no level in: %s", line);
    return level;
}

static size_t lines_in(const char *text)
{
    size_t lines = 0;

    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

Test(log, logfmt_line)
{
    const char *line;

    capture_start();
    cfsr_log(CFSR_LOG_INFO, "link_up", CFSR_S("peer", "site-b"), CFSR_U("lane", 3),
             CFSR_I("delta", -4), CFSR_B("first", true), CFSR_F("ratio", 2.5));
    line = capture_end();
    cr_assert_eq(strncmp(line, "time=20", 7), 0, "%s", line);
    cr_assert_eq(line[strlen("time=2026-11-21T10:00:00.123")], 'Z');
    cr_assert_str_eq(after_time(line),
                     "level=info event=link_up peer=site-b lane=3 delta=-4 first=true ratio=2.5\n");
}

Test(log, json_line)
{
    const char *line;

    cfsr_log_configure(CFSR_LOG_DEBUG, CFSR_LOG_JSON);
    capture_start();
    cfsr_log(CFSR_LOG_DEBUG, "link_up", CFSR_S("peer", "site-b"), CFSR_U("lane", 3),
             CFSR_S("none", NULL), CFSR_F("ratio", 0.1), CFSR_F("bad", NAN),
             CFSR_B("first", false));
    line = capture_end();
    cr_assert_eq(strncmp(line, "{\"time\":\"20", 11), 0, "%s", line);
    cr_assert_str_eq(after_time(line),
                     "\"level\":\"debug\",\"event\":\"link_up\",\"peer\":\"site-b\",\"lane\":3,"
                     "\"none\":null,\"ratio\":0.1,\"bad\":null,\"first\":false}\n");
}

Test(log, an_event_without_fields)
{
    capture_start();
    cfsr_log(CFSR_LOG_INFO, "ready");
    cr_assert_str_eq(after_time(capture_end()), "level=info event=ready\n");
}

Test(log, logfmt_quotes_when_needed)
{
    capture_start();
    cfsr_log(CFSR_LOG_INFO, "e", CFSR_S("a", "two words"), CFSR_S("b", "k=v"),
             CFSR_S("c", "say \"hi\""), CFSR_S("d", "line\nbreak\ttab\x01\x7f"), CFSR_S("e", ""),
             CFSR_S("f", NULL), CFSR_S("g", "back\\slash"), CFSR_S("h", "gr\xc3\xbc\xc3\x9f"),
             CFSR_S("i", "plain/x:1"));
    cr_assert_str_eq(after_time(capture_end()),
                     "level=info event=e a=\"two words\" b=\"k=v\" c=\"say \\\"hi\\\"\" "
                     "d=\"line\\nbreak\\ttab\\u0001\\u007f\" e=\"\" f= g=\"back\\\\slash\" "
                     "h=\"gr\xc3\xbc\xc3\x9f\" i=plain/x:1\n");
}

Test(log, json_escapes_and_replaces_what_is_not_utf8)
{
    cfsr_log_configure(CFSR_LOG_INFO, CFSR_LOG_JSON);
    capture_start();
    cfsr_log(CFSR_LOG_INFO, "e", CFSR_S("a", "q\"b\\n\n\r\x1f"),
             CFSR_S("b", "bad \xff\xc0\xaf end"), CFSR_S("c", "\xed\xa0\x80"),
             CFSR_S("d", "\xf0\x9f\x98\x80 \xe2\x82"));
    cr_assert_str_eq(after_time(capture_end()),
                     "\"level\":\"info\",\"event\":\"e\",\"a\":\"q\\\"b\\\\n\\n\\r\\u001f\","
                     "\"b\":\"bad \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd end\","
                     "\"c\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\","
                     "\"d\":\"\xf0\x9f\x98\x80 \xef\xbf\xbd\xef\xbf\xbd\"}\n");
}

Test(log, error_field_brings_the_message)
{
    cfsr_fail(-CFSR_E_GONE, "lane 2 is gone");
    capture_start();
    cfsr_log(CFSR_LOG_ERROR, "read_failed", CFSR_ERR(-CFSR_E_GONE), CFSR_U("lane", 2));
    cfsr_error_clear();
    cfsr_log(CFSR_LOG_ERROR, "read_failed", CFSR_ERR(-ENOSPC));
    capture_end();
    cr_assert_not_null(
        strstr(captured, "event=read_failed error=gone message=\"lane 2 is gone\" lane=2\n"));
    cr_assert_not_null(strstr(captured, "event=read_failed error=enospc\n"));
}

Test(log, levels_below_the_minimum_are_left_out)
{
    cfsr_log_configure(CFSR_LOG_WARN, CFSR_LOG_LOGFMT);
    capture_start();
    cfsr_log(CFSR_LOG_INFO, "quiet");
    cfsr_log(CFSR_LOG_WARN, "loud");
    capture_end();
    cr_assert_null(strstr(captured, "quiet"));
    cr_assert_not_null(strstr(captured, "level=warn event=loud\n"));
    cr_assert_not(cfsr_log_enabled(CFSR_LOG_INFO));
    cr_assert(cfsr_log_enabled(CFSR_LOG_ERROR));
}

Test(log, repeats_are_held_back_and_counted)
{
    const char *last;

    capture_start();
    for (int i = 0; i < 50; i++)
        cfsr_log(CFSR_LOG_WARN, "flood", CFSR_I("i", i));
    cfsr_log(CFSR_LOG_WARN, "other");
    usleep(1100 * 1000);
    cfsr_log(CFSR_LOG_WARN, "flood", CFSR_I("i", 50));
    capture_end();
    cr_assert_not_null(strstr(captured, "event=other\n"), "another event is not held back");
    cr_assert_lt(lines_in(captured), 40);
    last = strstr(captured, "event=flood i=50 suppressed=");
    cr_assert_not_null(last, "%s", captured);
}

Test(log, info_lines_are_not_held_back)
{
    capture_start();
    for (int i = 0; i < 50; i++)
        cfsr_log(CFSR_LOG_INFO, "progress", CFSR_I("i", i));
    cr_assert_eq(lines_in(capture_end()), 50);
}

Test(log, long_values_are_cut_and_the_line_stays_whole)
{
    static char value[6000];
    size_t len;

    memset(value, 'x', sizeof value - 1);
    cfsr_log_configure(CFSR_LOG_INFO, CFSR_LOG_JSON);
    capture_start();
    cfsr_log(CFSR_LOG_INFO, "big", CFSR_S("a", value), CFSR_S("b", value), CFSR_S("c", value),
             CFSR_S("d", value), CFSR_S("e", value), CFSR_U("n", 1));
    len = strlen(capture_end());
    cr_assert_leq(len, 4096);
    cr_assert_not_null(strstr(captured, "xxx...\""));
    cr_assert_not_null(strstr(captured, "\"n\":1,\"truncated\":true}\n"));
    cr_assert_null(strstr(captured, "\"e\":"));
    cr_assert_eq(lines_in(captured), 1);
}

Test(log, a_cut_never_goes_through_a_character)
{
    static char value[2000];

    memset(value, 'x', 1023);
    memcpy(value + 1023, "\xc3\xbc\xc3\xbc", 4);
    capture_start();
    cfsr_log(CFSR_LOG_INFO, "big", CFSR_S("a", value));
    capture_end();
    cr_assert_not_null(strstr(captured, "xxx...\"\n"), "%s", captured);
}

Test(log, errno_survives_and_a_closed_stderr_is_harmless)
{
    capture_start();
    close(STDERR_FILENO);
    errno = EDOM;
    cfsr_log(CFSR_LOG_ERROR, "lost");
    cr_assert_eq(errno, EDOM);
    capture_end();
}

static void *log_many(void *argument)
{
    const char *who = argument;

    for (int i = 0; i < 100; i++)
        cfsr_log(CFSR_LOG_INFO, "thread", CFSR_S("who", who), CFSR_S("tail", "end of line"));
    return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
    pthread_t threads[2];
    char *line;
    char *rest = captured;
    size_t lines = 0;

    capture_start();
    pthread_create(&threads[0], NULL, log_many, (void *)(uintptr_t) "first");
    pthread_create(&threads[1], NULL, log_many, (void *)(uintptr_t) "second");
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    capture_end();
    while ((line = strsep(&rest, "\n")) != NULL && line[0] != '\0') {
        cr_assert_eq(strncmp(line, "time=", 5), 0);
        cr_assert_str_eq(line + strlen(line) - strlen("tail=\"end of line\""),
                         "tail=\"end of line\"");
        lines++;
    }
    cr_assert_eq(lines, 200);
}

Test(log, level_and_format_names)
{
    enum cfsr_log_level level = CFSR_LOG_DEBUG;
    enum cfsr_log_format format = CFSR_LOG_LOGFMT;

    cr_assert_eq(cfsr_log_level_parse("warn", &level), 0);
    cr_assert_eq(level, CFSR_LOG_WARN);
    cr_assert_eq(cfsr_log_format_parse("json", &format), 0);
    cr_assert_eq(format, CFSR_LOG_JSON);
    cr_assert_eq(cfsr_log_level_parse("warning", &level), -CFSR_E_FORMAT);
    cr_assert_eq(cfsr_log_level_parse("eror", &level), -CFSR_E_FORMAT);
    cr_assert_not_null(strstr(cfsr_error_message(), "did you mean 'error'"));
    cr_assert_eq(cfsr_log_format_parse("xml-like", &format), -CFSR_E_FORMAT);
    cr_assert_eq(level, CFSR_LOG_WARN);
}
