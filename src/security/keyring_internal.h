/* keyring_internal.h - what the reader of the key file and the keyring share. */
#ifndef CFSR_SECURITY_KEYRING_INTERNAL_H
#define CFSR_SECURITY_KEYRING_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "security/mac.h"

/* One line of the file. Lives in guarded memory. */
struct cfsr_keyring_entry {
    uint64_t site_low; /* both 0: every pair */
    uint64_t site_high;
    uint32_t id; /* 1 to 4294967295 */
    uint8_t secret[CFSR_KEY_LEN_BYTES];
};

/* Most keys a text of that many bytes can hold; for sizing the array. */
size_t cfsr_keyring_parse_bound(size_t len_bytes);
/*
 * Reads text (len_bytes and a NUL; cut into words in place) into entries, room for bound() of them.
 * Returns the count, or -CFSR_E_FORMAT with file and line in the message; no message ever shows a
 * secret.
 */
int cfsr_keyring_parse(const char *path, char *text, size_t len_bytes,
                       struct cfsr_keyring_entry *entries);

#endif
