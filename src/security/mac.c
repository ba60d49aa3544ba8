/*
 * mac.c - HMAC-SHA256 with the key schedule kept, and key derivation.
 *
 * Thread: a key object is read-only after creation; the header's one-thread rule leaves room to
 * change that. Invariants: only the two compression states live on, in one guarded, locked,
 * read-only page that has no place for the secret itself; every tag works on a copy on the stack
 * and wipes it.
 *
 * Why the SHA256_* functions and not EVP: no way through EVP of OpenSSL 3.0 is free of allocations,
 * and an EVP context keeps its state on the ordinary heap, where no guard or lock protects it.
 * Measured per tag over 160 bytes, same core, quiet: SHA256_CTX copied 155 ns, no allocation <-
 * this EVP_MD_CTX_copy_ex (also inside EVP_MAC)    218 ns, two allocations a tag EVP re-init and
 * both pads hashed again      313 ns, two allocations a tag The functions are marked deprecated in
 * OpenSSL 3 (they pass by the providers) but run the same assembly. libsodium's HMAC also has a
 * plain state, at 0.4 GB/s instead of 1.7.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "security/mac.h"

#include <errno.h>
#include <string.h>

#include <openssl/sha.h>
#include <sodium.h>

#include "base/assert.h"
#include "base/fail.h"

#define BLOCK_LEN_BYTES 64 /* of SHA-256; RFC 2104's B */
#define INNER_PAD       0x36
#define OUTER_PAD       0x5c
/* sodium_malloc() puts the end of the memory at the end of a page: a multiple of 64 is aligned
 * to 64. */
#define KEY_ALIGN 64

struct cfsr_mac_key {
    SHA256_CTX inner; /* after the inner pad block */
    SHA256_CTX outer; /* after the outer pad block */
} __attribute__((aligned(KEY_ALIGN)));

static void absorb_pad(SHA256_CTX *state, const uint8_t secret[CFSR_KEY_LEN_BYTES], uint8_t pad)
{
    uint8_t block[BLOCK_LEN_BYTES];

    memset(block, pad, sizeof block);
    for (unsigned i = 0; i < CFSR_KEY_LEN_BYTES; i++)
        block[i] = (uint8_t)(secret[i] ^ pad);
    SHA256_Init(state);
    SHA256_Update(state, block, sizeof block);
    sodium_memzero(block, sizeof block);
}

int cfsr_mac_key_create(const uint8_t secret[CFSR_KEY_LEN_BYTES], struct cfsr_mac_key **key_out)
{
    struct cfsr_mac_key *key;

    key = sodium_malloc(sizeof *key);
    if (key == NULL)
        return cfsr_fail(-ENOMEM, "no guarded memory for a key: %zu bytes", sizeof *key);
    CFSR_ASSERT(((uintptr_t)key & (KEY_ALIGN - 1)) == 0);
    memset(key, 0, sizeof *key);
    absorb_pad(&key->inner, secret, INNER_PAD);
    absorb_pad(&key->outer, secret, OUTER_PAD);
    /* Only a second line of defence: a kernel that refuses it leaves a key that still works. */
    (void)sodium_mprotect_readonly(key);
    *key_out = key;
    return 0;
}

void cfsr_mac_key_destroy(struct cfsr_mac_key *key)
{
    sodium_free(key); /* makes it writable, wipes, unlocks, unmaps; NULL is fine */
}

static void absorb_parts(SHA256_CTX *state, const struct cfsr_mac_part *parts, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].len_bytes > 0)
            SHA256_Update(state, parts[i].data, parts[i].len_bytes);
    }
}

/* work holds the inner hash, parts absorbed. */
static void finish_tag(const struct cfsr_mac_key *key, SHA256_CTX *work,
                       uint8_t tag_out[CFSR_TAG_LEN_BYTES])
{
    uint8_t inner[SHA256_DIGEST_LENGTH];

    SHA256_Final(inner, work);
    *work = key->outer;
    SHA256_Update(work, inner, sizeof inner);
    SHA256_Final(tag_out, work);
    sodium_memzero(work, sizeof *work);
    sodium_memzero(inner, sizeof inner);
}

void cfsr_mac_compute(struct cfsr_mac_key *key, const struct cfsr_mac_part *parts, unsigned count,
                      uint8_t tag_out[CFSR_TAG_LEN_BYTES])
{
    SHA256_CTX work = key->inner;

    absorb_parts(&work, parts, count);
    finish_tag(key, &work, tag_out);
}

bool cfsr_mac_verify(struct cfsr_mac_key *key, const struct cfsr_mac_part *parts, unsigned count,
                     const uint8_t tag[CFSR_TAG_LEN_BYTES])
{
    uint8_t expected[CFSR_TAG_LEN_BYTES];
    bool equal;

    cfsr_mac_compute(key, parts, count, expected);
    equal = sodium_memcmp(expected, tag, sizeof expected) == 0;
    /* The right tag of a refused message must not stay behind on the stack. */
    sodium_memzero(expected, sizeof expected);
    return equal;
}

void cfsr_mac_derive(struct cfsr_mac_key *parent, const char *label,
                     const struct cfsr_mac_part *parts, unsigned count,
                     uint8_t secret_out[CFSR_KEY_LEN_BYTES])
{
    SHA256_CTX work = parent->inner;

    _Static_assert(CFSR_TAG_LEN_BYTES == CFSR_KEY_LEN_BYTES, "a tag is a key");
    CFSR_ASSERT(label[0] != '\0');
    SHA256_Update(&work, label,
                  strlen(label) + 1); /* with its NUL: no label is a prefix of another */
    absorb_parts(&work, parts, count);
    finish_tag(parent, &work, secret_out);
}

int cfsr_mac_key_derive(struct cfsr_mac_key *parent, const char *label,
                        const struct cfsr_mac_part *parts, unsigned count,
                        struct cfsr_mac_key **key_out)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];

    cfsr_mac_derive(parent, label, parts, count, secret);
    int rc = cfsr_mac_key_create(secret, key_out);
    sodium_memzero(secret, sizeof secret);
    return rc;
}
