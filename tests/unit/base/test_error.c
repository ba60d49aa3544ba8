/*
 * test_error.c - error numbers are pinned, names and texts exist, messages belong to their thread.
 */
#include <cfsrepl/error.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fail.h"

/* Numbers appear on the wire and in logs of released versions: a row is added, never changed. */
static const struct {
    int value;
    int number;
    const char *name;
} pinned[] = {
    {CFSR_E_FORMAT, 4001, "format"},
    {CFSR_E_VERSION, 4002, "version"},
    {CFSR_E_CHECKSUM, 4003, "checksum"},
    {CFSR_E_DAMAGED, 4004, "damaged"},
    {CFSR_E_GONE, 4005, "gone"},
    {CFSR_E_NOT_WRITABLE, 4006, "not_writable"},
    {CFSR_E_TOO_LARGE, 4007, "too_large"},
    {CFSR_E_SEQ_WRAP, 4008, "seq_wrap"},
    {CFSR_E_LOCKED, 4009, "locked"},
    {CFSR_E_FOREIGN, 4010, "foreign"},
    {CFSR_E_MISSING_SEGMENT, 4011, "missing_segment"},
    {CFSR_E_FAILED, 4012, "failed"},
    {CFSR_E_CODEC, 4013, "codec"},
    {CFSR_E_DECOMPRESS, 4014, "decompress"},
    {CFSR_E_BOMB, 4015, "bomb"},
    {CFSR_E_BAD_DIGEST, 4016, "bad_digest"},
    {CFSR_E_BAD_TAG, 4017, "bad_tag"},
    {CFSR_E_BAD_LINK_TAG, 4018, "bad_link_tag"},
    {CFSR_E_BAD_FRAME, 4019, "bad_frame"},
    {CFSR_E_BAD_ORDER, 4020, "bad_order"},
    {CFSR_E_BAD_KEY, 4021, "bad_key"},
    {CFSR_E_WRONG_CLUSTER, 4022, "wrong_cluster"},
    {CFSR_E_UNKNOWN_SITE, 4023, "unknown_site"},
    {CFSR_E_DUPLICATE_SITE, 4024, "duplicate_site"},
    {CFSR_E_WRONG_SITE, 4025, "wrong_site"},
    {CFSR_E_LANES_DIFFER, 4026, "lanes_differ"},
    {CFSR_E_WRONG_CORE, 4027, "wrong_core"},
    {CFSR_E_JOURNAL_FORKED, 4028, "journal_forked"},
    {CFSR_E_JOURNAL_CHANGED, 4029, "journal_changed"},
    {CFSR_E_NEEDS_BOOTSTRAP, 4030, "needs_bootstrap"},
    {CFSR_E_REPLAYED, 4031, "replayed"},
    {CFSR_E_TIMEOUT, 4032, "timeout"},
    {CFSR_E_POOL_EMPTY, 4033, "pool_empty"},
    {CFSR_E_SHUTDOWN, 4034, "shutdown"},
    {CFSR_E_CONFIG, 4035, "config"},
    {CFSR_E_UNSAFE_PATH, 4036, "unsafe_path"},
    {CFSR_E_SUPERSEDED, 4037, "superseded"},
    {CFSR_E_NOT_CONFIGURED, 4038, "not_configured"},
    {CFSR_E_UNREACHABLE, 4039, "unreachable"},
    {CFSR_E_USAGE, 4040, "usage"},
    {CFSR_E_NO_IO_URING, 4041, "no_io_uring"},
    {CFSR_E_BACKPRESSURE, 4042, "backpressure"},
    {CFSR_E_MOVED, 4043, "moved"},
    {CFSR_E_SEAL_REQUIRED, 4044, "seal_required"},
};

Test(error, numbers_and_names_are_pinned)
{
    for (size_t i = 0; i < CFSR_ARRAY_LEN(pinned); i++) {
        cr_assert_eq(pinned[i].value, pinned[i].number, "%s", pinned[i].name);
        cr_assert_str_eq(cfsr_error_name(-pinned[i].number), pinned[i].name);
    }
}

Test(error, every_number_is_in_the_table_above)
{
#define X(name, number, text) +1
    size_t listed = 0 CFSR_ERROR_LIST(X);
#undef X
    cr_assert_eq(listed, CFSR_ARRAY_LEN(pinned));
}

Test(error, every_error_has_a_text_of_its_own)
{
    for (size_t i = 0; i < CFSR_ARRAY_LEN(pinned); i++) {
        const char *text = cfsr_strerror(-pinned[i].number);

        cr_assert_gt(strlen(text), 3);
        for (size_t j = 0; j < i; j++)
            cr_assert_str_neq(text, cfsr_strerror(-pinned[j].number));
    }
}

Test(error, numbers_are_above_every_errno)
{
    for (int i = 4000; i < 4100; i++)
        cr_assert_null(strerrorname_np(i));
}

Test(error, system_errors_have_their_names)
{
    cr_assert_str_eq(cfsr_error_name(-ENOSPC), "enospc");
    cr_assert_str_eq(cfsr_error_name(-EACCES), "eacces");
    cr_assert_str_eq(cfsr_strerror(-ENOENT), "No such file or directory");
}

Test(error, success_and_unknown_values_are_answered)
{
    cr_assert_str_eq(cfsr_error_name(0), "ok");
    cr_assert_str_eq(cfsr_error_name(5), "ok");
    cr_assert_str_eq(cfsr_strerror(0), "success");
    cr_assert_str_eq(cfsr_error_name(-9999), "error_9999");
    cr_assert_str_eq(cfsr_strerror(-9999), "unknown error 9999");
    cr_assert_str_eq(cfsr_error_name(-2147483647 - 1), "error_2147483648");
    cr_assert_not_null(strstr(cfsr_strerror(-2147483647 - 1), "2147483648"));
}

Test(error, two_names_can_be_used_at_once)
{
    const char *first = cfsr_error_name(-ENOSPC);
    const char *second = cfsr_error_name(-CFSR_E_JOURNAL_FORKED);

    cr_assert_str_eq(first, "enospc");
    cr_assert_str_eq(second, "journal_forked");
}

Test(error, fail_stores_the_message_and_returns_the_code)
{
    cr_assert_str_eq(cfsr_error_message(), "");
    cr_assert_eq(cfsr_fail(-ENOENT, "segment %d is missing", 7), -ENOENT);
    cr_assert_str_eq(cfsr_error_message(), "segment 7 is missing");
    cfsr_error_clear();
    cr_assert_str_eq(cfsr_error_message(), "");
}

Test(error, fail_may_use_the_old_message)
{
    cfsr_fail(-EIO, "inner");
    cfsr_fail(-EIO, "outer (%s)", cfsr_error_message());
    cr_assert_str_eq(cfsr_error_message(), "outer (inner)");
}

Test(error, context_goes_in_front)
{
    cfsr_fail(-EIO, "short read");
    cr_assert_eq(cfsr_fail_context(-EIO, "lane %d", 3), -EIO);
    cr_assert_str_eq(cfsr_error_message(), "lane 3: short read");
}

Test(error, context_without_a_message_uses_the_text_of_the_code)
{
    cfsr_fail_context(-CFSR_E_GONE, "reader");
    cr_assert_str_eq(cfsr_error_message(), "reader: position is below the retained range");
}

Test(error, long_messages_are_cut_at_1023_bytes)
{
    char long_text[3000];

    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    cfsr_fail(-EIO, "%s", long_text);
    cr_assert_eq(strlen(cfsr_error_message()), 1023);
    cfsr_fail_context(-EIO, "lane 3");
    cr_assert_eq(strlen(cfsr_error_message()), 1023);
    cr_assert_eq(strncmp(cfsr_error_message(), "lane 3: xxx", 11), 0);
    cfsr_fail_context(-EIO, "%s", long_text);
    cr_assert_eq(strlen(cfsr_error_message()), 1023);
}

static void *other_thread(void *argument)
{
    (void)argument;
    cfsr_fail(-EIO, "of the other thread");
    return NULL;
}

Test(error, messages_belong_to_their_thread)
{
    pthread_t thread;

    cfsr_fail(-EIO, "of this thread");
    cr_assert_eq(pthread_create(&thread, NULL, other_thread, NULL), 0);
    pthread_join(thread, NULL);
    cr_assert_str_eq(cfsr_error_message(), "of this thread");
}
