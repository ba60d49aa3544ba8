/* uuid.h - 16-byte UUIDs (RFC 4122 text form, version 4 when made here from given random bytes). */
#ifndef CFSR_BASE_UUID_H
#define CFSR_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define CFSR_UUID_TEXT_LEN 37 /* 36 characters and NUL */

struct cfsr_uuid {
    uint8_t bytes[16];
};

void cfsr_uuid_from_random(const uint8_t random[16], struct cfsr_uuid *uuid_out);
void cfsr_uuid_format(const struct cfsr_uuid *uuid, char text_out[CFSR_UUID_TEXT_LEN]);
int cfsr_uuid_parse(const char *text, struct cfsr_uuid *uuid_out); /* -CFSR_E_FORMAT */
bool cfsr_uuid_equal(const struct cfsr_uuid *a, const struct cfsr_uuid *b);
bool cfsr_uuid_is_zero(const struct cfsr_uuid *uuid);

#endif
