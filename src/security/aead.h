/*
 * aead.h - AES-256-GCM (NIST SP 800-38D, RFC 5116) for bodies on their way between two sites, with
 * the key schedule kept.
 *
 * A key seals or opens, never both, and belongs to one direction of one session; its nonces are
 * counters, which the caller never repeats under a key (GCM loses everything if they repeat). It is
 * used by one thread at a time; sealing and opening allocate nothing.
 */
#ifndef CFSR_SECURITY_AEAD_H
#define CFSR_SECURITY_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "security/mac.h"

#define CFSR_AEAD_TAG_LEN_BYTES   16
#define CFSR_AEAD_NONCE_LEN_BYTES 12
/* Largest message of one call: the library counts in int. */
#define CFSR_AEAD_MESSAGE_MAX_BYTES (1u << 30)

enum cfsr_aead_use {
    CFSR_AEAD_SEALS,
    CFSR_AEAD_OPENS
};

struct cfsr_aead_key;

/* Takes a copy of the secret. -ENOMEM, -EIO (the library offers no AES-256-GCM). */
int cfsr_aead_key_create(enum cfsr_aead_use use, const uint8_t secret[CFSR_KEY_LEN_BYTES],
                         struct cfsr_aead_key **key_out);
/* As cfsr_mac_key_derive(): the same derivation makes the secret of an AEAD key. */
int cfsr_aead_key_derive(struct cfsr_mac_key *parent, enum cfsr_aead_use use, const char *label,
                         const struct cfsr_mac_part *parts, unsigned count,
                         struct cfsr_aead_key **key_out);
/* Wipes and frees; NULL is fine. */
void cfsr_aead_key_destroy(struct cfsr_aead_key *key);

/*
 * Encrypts len_bytes of data to sealed_out, which may be data itself but overlaps it in no other
 * way, and makes the tag over the concatenation of the parts and the data. Cannot fail.
 */
void cfsr_aead_seal(struct cfsr_aead_key *key, const uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES],
                    const struct cfsr_mac_part *parts, unsigned count, const void *data,
                    size_t len_bytes, void *sealed_out, uint8_t tag_out[CFSR_AEAD_TAG_LEN_BYTES]);
/*
 * The reverse, in place. False if the tag is not right (compared in constant time): what was opened
 * is wiped, so nobody can use it by mistake.
 */
bool cfsr_aead_open(struct cfsr_aead_key *key, const uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES],
                    const struct cfsr_mac_part *parts, unsigned count, void *data, size_t len_bytes,
                    const uint8_t tag[CFSR_AEAD_TAG_LEN_BYTES]);

#endif
