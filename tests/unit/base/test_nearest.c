/*
 * test_nearest.c - did-you-mean finds slips and stays silent about strangers.
 */
#include "base/nearest.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/bytes.h"

static const char *const names[] = {"batch-size", "batch-bytes",  "batch-timeout-ms",
                                    "compress",   "window-bytes", "listen",
                                    "peer",       "ack"};

static const char *nearest(const char *word)
{
    return cfsr_nearest(word, names, CFSR_ARRAY_LEN(names));
}

Test(nearest, finds_one_slip_of_each_kind)
{
    cr_assert_str_eq(nearest("batch-sze"), "batch-size");   /* left out */
    cr_assert_str_eq(nearest("batch-sizee"), "batch-size"); /* put in */
    cr_assert_str_eq(nearest("compross"), "compress");      /* changed */
    cr_assert_str_eq(nearest("lisetn"), "listen");          /* swapped */
    cr_assert_str_eq(nearest("peer"), "peer");
}

Test(nearest, swapped_letters_are_one_slip)
{
    static const char *const two[] = {"abxd", "abdc"};
    cr_assert_str_eq(cfsr_nearest("abcd", two, 2), "abxd"); /* a tie keeps the first */
    static const char *const other[] = {"axyd", "abdc"};
    cr_assert_str_eq(cfsr_nearest("abcd", other, 2), "abdc");
}

Test(nearest, ignores_case_and_kind_of_dash)
{
    cr_assert_str_eq(nearest("BATCH_SIZE"), "batch-size");
}

Test(nearest, says_nothing_when_nothing_is_near)
{
    cr_assert_null(nearest("zzzzzzzz"));
    cr_assert_null(nearest("encryption"));
    cr_assert_null(nearest("xy"));
    cr_assert_null(nearest(""));
    cr_assert_null(cfsr_nearest("word", NULL, 0));
}

Test(nearest, short_words_with_nothing_in_common_are_not_near)
{
    static const char *const one[] = {"up"};

    cr_assert_null(cfsr_nearest("ls", one, 1));
    cr_assert_str_eq(cfsr_nearest("ups", one, 1), "up");
}

Test(nearest, long_words_are_never_near)
{
    char word[200];

    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    cr_assert_null(nearest(word));
}
