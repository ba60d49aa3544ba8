/*
 * uuid.c - text and binary forms of UUIDs.
 *
 * Thread: any; pure. The random bytes are given by the caller, so that a seed reproduces them in
 * tests.
 */
#include "base/uuid.h"

#include <string.h>

#include "base/bytes.h"
#include "base/fail.h"

static const char hex_digits[] = "0123456789abcdef";

static bool dash_before(unsigned byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

void cfsr_uuid_from_random(const uint8_t random[16], struct cfsr_uuid *uuid_out)
{
    memcpy(uuid_out->bytes, random, sizeof uuid_out->bytes);
    uuid_out->bytes[6] = (uint8_t)((uuid_out->bytes[6] & 0x0f) | 0x40); /* version 4 */
    uuid_out->bytes[8] = (uint8_t)((uuid_out->bytes[8] & 0x3f) | 0x80); /* RFC 4122 variant */
}

void cfsr_uuid_format(const struct cfsr_uuid *uuid, char text_out[CFSR_UUID_TEXT_LEN])
{
    char *at = text_out;

    for (unsigned i = 0; i < sizeof uuid->bytes; i++) {
        if (dash_before(i))
            *at++ = '-';
        *at++ = hex_digits[uuid->bytes[i] >> 4];
        *at++ = hex_digits[uuid->bytes[i] & 0x0f];
    }
    *at = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool parse_bytes(const char *text, struct cfsr_uuid *uuid)
{
    const char *at = text;

    for (unsigned i = 0; i < sizeof uuid->bytes; i++) {
        int high;
        int low;

        if (dash_before(i) && *at++ != '-')
            return false;
        high = hex_value(*at);
        if (high < 0)
            return false; /* also the end of the text: NUL is no digit */
        low = hex_value(at[1]);
        if (low < 0)
            return false;
        uuid->bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    return *at == '\0';
}

int cfsr_uuid_parse(const char *text, struct cfsr_uuid *uuid_out)
{
    struct cfsr_uuid uuid;

    if (!parse_bytes(text, &uuid))
        return cfsr_fail(-CFSR_E_FORMAT,
                         "'%s' is not a UUID: write 32 hex digits as 8-4-4-4-12 with dashes", text);
    *uuid_out = uuid;
    return 0;
}

bool cfsr_uuid_equal(const struct cfsr_uuid *a, const struct cfsr_uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool cfsr_uuid_is_zero(const struct cfsr_uuid *uuid)
{
    return cfsr_bytes_are_zero(uuid->bytes, sizeof uuid->bytes);
}
