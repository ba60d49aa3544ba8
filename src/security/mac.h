/*
 * mac.h - HMAC-SHA256 (RFC 2104, FIPS 180-4) with the key schedule kept, and key derivation on top
 * of it.
 *
 * A mac key holds the precomputed inner and outer state in guarded memory (libsodium); a tag costs
 * no set-up and no heap allocation. A key object is used by one thread at a time: every core makes
 * its own from the same secret.
 */
#ifndef CFSR_SECURITY_MAC_H
#define CFSR_SECURITY_MAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CFSR_KEY_LEN_BYTES 32
#define CFSR_TAG_LEN_BYTES 32

struct cfsr_mac_key;

struct cfsr_mac_part {
    const void *data;
    size_t len_bytes;
};

/* Copies the secret into guarded memory. -ENOMEM. */
int cfsr_mac_key_create(const uint8_t secret[CFSR_KEY_LEN_BYTES], struct cfsr_mac_key **key_out);
/* Wipes and frees; NULL is fine. */
void cfsr_mac_key_destroy(struct cfsr_mac_key *key);

/* Tag over the concatenation of the parts. Cannot fail. */
void cfsr_mac_compute(struct cfsr_mac_key *key, const struct cfsr_mac_part *parts, unsigned count,
                      uint8_t tag_out[CFSR_TAG_LEN_BYTES]);
/* Constant-time compare with the computed tag. */
bool cfsr_mac_verify(struct cfsr_mac_key *key, const struct cfsr_mac_part *parts, unsigned count,
                     const uint8_t tag[CFSR_TAG_LEN_BYTES]);

/*
 * Derives a sub-key: HMAC(parent, label ‖ 0x00 ‖ parts…) as one block of HKDF-Expand (RFC 5869)
 * with a unique label. The label is a C string; it separates uses ("cfsr batch 1", "cfsr session
 * 1", …).
 */
int cfsr_mac_key_derive(struct cfsr_mac_key *parent, const char *label,
                        const struct cfsr_mac_part *parts, unsigned count,
                        struct cfsr_mac_key **key_out);
/* The same bytes themselves, for keys of another kind; the caller wipes them. */
void cfsr_mac_derive(struct cfsr_mac_key *parent, const char *label,
                     const struct cfsr_mac_part *parts, unsigned count,
                     uint8_t secret_out[CFSR_KEY_LEN_BYTES]);

/* Wipes memory in a way the compiler keeps. */
void cfsr_wipe(void *data, size_t len_bytes);
/* Random bytes of the system (libsodium); drivers only, never decision logic. */
void cfsr_random_bytes(void *data_out, size_t len_bytes);
/* Library set-up, once per process before any other call here; idempotent and thread-safe. */
int cfsr_security_init(void);
/* "OpenSSL 3.0.x, libsodium 1.0.18, ipsec-mb 1.3 (avx512)" for --version. */
const char *cfsr_security_versions(void);

#endif
