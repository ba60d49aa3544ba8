/*
 * bytes.c - tests over byte ranges that are too big to inline.
 *
 * Thread: any; pure functions.
 */
#include "base/bytes.h"

bool cfsr_bytes_are_zero(const void *p, size_t len_bytes)
{
    const uint8_t *bytes = p;
    size_t head = len_bytes < sizeof(uint64_t) ? len_bytes : sizeof(uint64_t);

    for (size_t i = 0; i < head; i++) {
        if (bytes[i] != 0)
            return false;
    }
    /* The first word is zero, and each later byte equals the one a word before it. memcmp runs at
     * vector speed without code of ours for each kind of machine. */
    return len_bytes == head || memcmp(bytes, bytes + head, len_bytes - head) == 0;
}
