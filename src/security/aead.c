/*
 * aead.c - AES-256-GCM with one cipher context a key (aead.h).
 *
 * Thread: a key's owner; a context holds the state of the message at hand.
 * Invariants: the key schedule is set once, only nonces after that, so no call allocates (a test
 * counts); the library wipes its copy of the schedule when the context is freed; data whose tag was
 * wrong does not stay in memory.
 *
 * Measured (OpenSSL 3.0, libsodium 1.0.18; AES-NI and AVX2), seal and open of 4 KiB to 1 MiB, GB/s:
 * OpenSSL AES-256-GCM 3.5–4.5 <- this; OpenSSL ChaCha20-Poly1305 2.7–3.7; libsodium AES-256-GCM
 * 1.6–1.8 and only where the processor has AES; libsodium (X)ChaCha20-Poly1305 1.4–1.5. libsodium
 * would keep the schedule in guarded memory; that is worth less here than the speed, as these keys
 * live no longer than their connection.
 */
#include "security/aead.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <sodium.h>

#include "base/assert.h"
#include "base/fail.h"

struct cfsr_aead_key {
    EVP_CIPHER_CTX *context;
    enum cfsr_aead_use use;
};

/* What can only fail by a mistake of ours, with a context that was set up. */
static void must(int ok)
{
    CFSR_ASSERT(ok == 1);
}

int cfsr_aead_key_create(enum cfsr_aead_use use, const uint8_t secret[CFSR_KEY_LEN_BYTES],
                         struct cfsr_aead_key **key_out)
{
    struct cfsr_aead_key *key = calloc(1, sizeof *key);

    if (key != NULL)
        key->context = EVP_CIPHER_CTX_new();
    if (key == NULL || key->context == NULL) {
        free(key);
        return cfsr_fail(-ENOMEM, "no memory for a cipher context");
    }
    key->use = use;
    if (EVP_CipherInit_ex(key->context, EVP_aes_256_gcm(), NULL, secret, NULL,
                          use == CFSR_AEAD_SEALS) != 1) {
        cfsr_aead_key_destroy(key);
        return cfsr_fail(-EIO, "OpenSSL offers no AES-256-GCM: check its providers");
    }
    CFSR_ASSERT(EVP_CIPHER_CTX_get_iv_length(key->context) == CFSR_AEAD_NONCE_LEN_BYTES);
    *key_out = key;
    return 0;
}

int cfsr_aead_key_derive(struct cfsr_mac_key *parent, enum cfsr_aead_use use, const char *label,
                         const struct cfsr_mac_part *parts, unsigned count,
                         struct cfsr_aead_key **key_out)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];

    cfsr_mac_derive(parent, label, parts, count, secret);
    int rc = cfsr_aead_key_create(use, secret, key_out);
    sodium_memzero(secret, sizeof secret);
    return rc;
}

void cfsr_aead_key_destroy(struct cfsr_aead_key *key)
{
    if (key == NULL)
        return;
    EVP_CIPHER_CTX_free(key->context); /* wipes the key schedule */
    free(key);
}

/* A new message under the nonce, its associated data taken in. */
static void begin(EVP_CIPHER_CTX *context, const uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES],
                  const struct cfsr_mac_part *parts, unsigned count)
{
    int ignored;

    /* -1: the direction the key was made for. */
    must(EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, -1));
    for (unsigned i = 0; i < count; i++) {
        CFSR_ASSERT(parts[i].len_bytes <= CFSR_AEAD_MESSAGE_MAX_BYTES);
        if (parts[i].len_bytes > 0)
            must(EVP_CipherUpdate(context, NULL, &ignored, parts[i].data, (int)parts[i].len_bytes));
    }
}

static void transform(EVP_CIPHER_CTX *context, const void *data, size_t len_bytes, void *out)
{
    int done = 0;

    CFSR_ASSERT(len_bytes <= CFSR_AEAD_MESSAGE_MAX_BYTES);
    if (len_bytes > 0)
        must(EVP_CipherUpdate(context, out, &done, data, (int)len_bytes));
    CFSR_ASSERT((size_t)done == len_bytes);
}

void cfsr_aead_seal(struct cfsr_aead_key *key, const uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES],
                    const struct cfsr_mac_part *parts, unsigned count, const void *data,
                    size_t len_bytes, void *sealed_out, uint8_t tag_out[CFSR_AEAD_TAG_LEN_BYTES])
{
    uint8_t nothing[CFSR_AEAD_TAG_LEN_BYTES];
    int left = 0;

    CFSR_ASSERT(key->use == CFSR_AEAD_SEALS);
    begin(key->context, nonce, parts, count);
    transform(key->context, data, len_bytes, sealed_out);
    must(EVP_CipherFinal_ex(key->context, nothing, &left));
    must(
        EVP_CIPHER_CTX_ctrl(key->context, EVP_CTRL_AEAD_GET_TAG, CFSR_AEAD_TAG_LEN_BYTES, tag_out));
}

bool cfsr_aead_open(struct cfsr_aead_key *key, const uint8_t nonce[CFSR_AEAD_NONCE_LEN_BYTES],
                    const struct cfsr_mac_part *parts, unsigned count, void *data, size_t len_bytes,
                    const uint8_t tag[CFSR_AEAD_TAG_LEN_BYTES])
{
    uint8_t nothing[CFSR_AEAD_TAG_LEN_BYTES], expected[CFSR_AEAD_TAG_LEN_BYTES];
    int left = 0;

    CFSR_ASSERT(key->use == CFSR_AEAD_OPENS);
    memcpy(expected, tag, sizeof expected); /* the library takes it as a pointer to change */
    begin(key->context, nonce, parts, count);
    transform(key->context, data, len_bytes, data);
    must(EVP_CIPHER_CTX_ctrl(key->context, EVP_CTRL_AEAD_SET_TAG, sizeof expected, expected));
    if (EVP_CipherFinal_ex(key->context, nothing, &left) == 1)
        return true;
    if (len_bytes > 0)
        sodium_memzero(data, len_bytes);
    return false;
}
