/*
 * keyring.h - the key file.
 *
 * Text, mode 0600 (a file readable by group or others is refused), one header line, then one key a
 * line:
 *
 *   cfs-repl-keyring 1
 *   key ID KIND SITES SECRET
 *
 * ID: 1 to 4294967295, unique. KIND: "site-pair" (the only one now). SITES: "*" (every pair) or two
 * site ids "1,2". SECRET: 64 hexadecimal digits. '#' begins a comment. Several keys of one pair are
 * valid together (rotation): the highest id signs, all verify. Secrets live in guarded memory and
 * are wiped when the keyring is destroyed.
 */
#ifndef CFSR_SECURITY_KEYRING_H
#define CFSR_SECURITY_KEYRING_H

#include <stdint.h>

#include "security/mac.h"

struct cfsr_keyring;

/* Reads and checks the file. -ENOENT, -EACCES (mode), -CFSR_E_FORMAT with line number; message set.
 */
int cfsr_keyring_load(const char *path, struct cfsr_keyring **keyring_out);
void cfsr_keyring_destroy(struct cfsr_keyring *keyring);

/* Writes a new keyring with one random site-pair key (id 1, sites "*"), O_EXCL, mode 0600, synced.
 * -EEXIST. */
int cfsr_keyring_generate(const char *path);

/* Id of the key that signs for the unordered pair (a, b): the highest; 0 if there is none. */
uint32_t cfsr_keyring_signing_key(const struct cfsr_keyring *keyring, uint64_t site_a,
                                  uint64_t site_b);
/* A fresh mac key (owned by the caller) of key id for the pair. -CFSR_E_BAD_KEY if that key is not
 * for this pair. */
int cfsr_keyring_open_key(const struct cfsr_keyring *keyring, uint32_t key_id, uint64_t site_a,
                          uint64_t site_b, struct cfsr_mac_key **key_out);
unsigned cfsr_keyring_count(const struct cfsr_keyring *keyring);

#endif
