/*
 * nearest.c - "did you mean": restricted Damerau-Levenshtein distance (insert, delete, change, swap
 * of neighbours).
 *
 * Thread: any; pure. Case is ignored, '_' equals '-': both are slips of the same kind. Three rows
 * of the usual table on the stack; words longer than the rows are never near anything.
 */
#include "base/nearest.h"

#include <ctype.h>
#include <string.h>

#define WORD_MAX 63

static int folded(char c)
{
    return c == '_' ? '-' : tolower((unsigned char)c);
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][WORD_MAX + 1] = {{0}};

    for (size_t j = 0; j <= b_len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t change = above[j - 1] + (folded(a[i - 1]) != folded(b[j - 1]));

            row[j] = min3(above[j] + 1, row[j - 1] + 1, change);
            if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                folded(a[i - 2]) == folded(b[j - 1]) && rows[(i - 2) % 3][j - 2] + 1 < row[j])
                row[j] = rows[(i - 2) % 3][j - 2] + 1;
        }
    }
    return rows[a_len % 3][b_len];
}

const char *cfsr_nearest(const char *word, const char *const *candidates, size_t count)
{
    const char *best = NULL;
    size_t best_distance = 0;
    size_t word_len = strlen(word);

    if (word_len > WORD_MAX)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(candidates[i]);
        size_t longer = len > word_len ? len : word_len;
        size_t limit = longer / 3 > 2 ? longer / 3 : 2;
        size_t d;

        if (len > WORD_MAX)
            continue;
        d = distance(word, word_len, candidates[i], len);
        /* d == longer: not one letter in common, so short words do not match everything. */
        if (d > limit || d == longer)
            continue;
        if (best == NULL || d < best_distance) {
            best = candidates[i];
            best_distance = d;
        }
    }
    return best;
}
