/* base64.c - RFC 4648 base64. Thread: any; pure. Strict: no blanks, no missing padding, no loose
 * bits. */
#include "cli/base64.h"

#include <string.h>

#include <cfsrepl/error.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void cfsr_base64_encode(const void *data, size_t len_bytes, char *text_out)
{
    const uint8_t *bytes = data;
    size_t at = 0;

    for (size_t i = 0; i < len_bytes; i += 3) {
        size_t left = len_bytes - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? (uint32_t)bytes[i + 2] : 0);

        text_out[at++] = alphabet[group >> 18];
        text_out[at++] = alphabet[group >> 12 & 63];
        text_out[at++] = left > 1 ? alphabet[group >> 6 & 63] : '=';
        text_out[at++] = left > 2 ? alphabet[group & 63] : '=';
    }
    text_out[at] = '\0';
}

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

ssize_t cfsr_base64_decode(const char *text, size_t len, void *data_out, size_t capacity_bytes)
{
    uint8_t *bytes = data_out;
    size_t used = 0;
    size_t padding = 0;

    if (len % 4 != 0)
        return -CFSR_E_FORMAT;
    while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
        padding++;
    if (len / 4 * 3 - padding > capacity_bytes)
        return -CFSR_E_TOO_LARGE;
    for (size_t i = 0; i < len; i += 4) {
        size_t take = i + 4 == len ? 3 - padding : 3;
        uint32_t group = 0;

        for (size_t k = 0; k < 4; k++) {
            int value = k <= take ? value_of(text[i + k]) : 0;

            if (value < 0)
                return -CFSR_E_FORMAT;
            group = group << 6 | (uint32_t)value;
        }
        if ((group & ((1u << (8 * (3 - take))) - 1)) != 0)
            return -CFSR_E_FORMAT;
        for (size_t k = 0; k < take; k++)
            bytes[used++] = (uint8_t)(group >> (16 - 8 * k));
    }
    return (ssize_t)used;
}
