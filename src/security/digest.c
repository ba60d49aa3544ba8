/*
 * digest.c - SHA-256 and the body digest of a batch.
 *
 * Thread: a context belongs to one thread.
 * Invariant: streaming has a state of its own: a body digest in between does not disturb a stream.
 *
 * Why the SHA256_* functions and not EVP: every EVP_DigestInit_ex*() of OpenSSL 3.0 frees and
 * allocates the provider's state, also when nothing changes (17 times for a 67 KB body), and the
 * data path allocates nothing. The functions are marked deprecated but run the same assembly. The
 * one-shot SHA256() goes through EVP inside. Rejected: one SHA-256 over the whole body (1.7 GB/s
 * here; two chunks at once reach 3.4).
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "security/digest.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "security/mac.h"
#include "security/multibuffer.h"

#define LEAVES_MAX (CFSR_DIGEST_BODY_MAX_BYTES / CFSR_DIGEST_CHUNK_BYTES)

struct cfsr_digest {
    SHA256_CTX stream;                    /* begin, update, final */
    struct cfsr_multibuffer *multibuffer; /* NULL: none on this machine */
    bool use_multibuffer;
    uint8_t leaves[LEAVES_MAX * CFSR_DIGEST_LEN_BYTES];
};

_Static_assert(CFSR_DIGEST_BODY_MAX_BYTES % CFSR_DIGEST_CHUNK_BYTES == 0, "whole leaves");

int cfsr_digest_create(struct cfsr_digest **digest_out)
{
    struct cfsr_digest *digest;
    int rc;

    rc = cfsr_security_init();
    if (rc < 0)
        return rc;
    digest = calloc(1, sizeof *digest);
    if (digest == NULL)
        return cfsr_fail(-ENOMEM, "no memory for a digest context");
    SHA256_Init(&digest->stream);
    digest->multibuffer = cfsr_multibuffer_create();
    digest->use_multibuffer = digest->multibuffer != NULL;
    *digest_out = digest;
    return 0;
}

void cfsr_digest_destroy(struct cfsr_digest *digest)
{
    if (digest == NULL)
        return;
    cfsr_multibuffer_destroy(digest->multibuffer);
    free(digest);
}

bool cfsr_digest_use_multibuffer(struct cfsr_digest *digest, bool use)
{
    digest->use_multibuffer = use && digest->multibuffer != NULL;
    return digest->use_multibuffer;
}

/* Digests of the chunks of the body, to digest->leaves; returns their number. */
static unsigned hash_leaves(struct cfsr_digest *digest, const uint8_t *body, size_t len_bytes)
{
    const size_t whole = len_bytes / CFSR_DIGEST_CHUNK_BYTES;
    uint8_t *leaf = digest->leaves;
    unsigned count = 0;
    size_t done = 0;

    if (digest->use_multibuffer)
        count = cfsr_multibuffer_worth(digest->multibuffer, (unsigned)whole);
    if (count > 0 && !cfsr_multibuffer_hash(digest->multibuffer, body, count, leaf))
        count = 0;
    done = (size_t)count * CFSR_DIGEST_CHUNK_BYTES;
    leaf += (size_t)count * CFSR_DIGEST_LEN_BYTES;
    while (done < len_bytes) {
        size_t part = cfsr_min_u64(len_bytes - done, CFSR_DIGEST_CHUNK_BYTES);

        cfsr_digest_sha256(digest, body + done, part, leaf);
        done += part;
        leaf += CFSR_DIGEST_LEN_BYTES;
        count++;
    }
    return count;
}

void cfsr_digest_body(struct cfsr_digest *digest, const void *body, size_t len_bytes,
                      uint8_t digest_out[CFSR_DIGEST_LEN_BYTES])
{
    uint8_t head[16] = "CFSRBODY";
    SHA256_CTX root;
    unsigned count;

    CFSR_ASSERT(len_bytes <= CFSR_DIGEST_BODY_MAX_BYTES);
    count = hash_leaves(digest, body, len_bytes);
    cfsr_store_le64(head + 8, len_bytes);
    SHA256_Init(&root);
    SHA256_Update(&root, head, sizeof head);
    SHA256_Update(&root, digest->leaves, (size_t)count * CFSR_DIGEST_LEN_BYTES);
    SHA256_Final(digest_out, &root);
}

void cfsr_digest_sha256(struct cfsr_digest *digest, const void *data, size_t len_bytes,
                        uint8_t digest_out[CFSR_DIGEST_LEN_BYTES])
{
    SHA256_CTX state;

    (void)digest; /* needs no kept state; the signature leaves room for one */
    SHA256_Init(&state);
    if (len_bytes > 0)
        SHA256_Update(&state, data, len_bytes);
    SHA256_Final(digest_out, &state);
}

void cfsr_digest_begin(struct cfsr_digest *digest)
{
    SHA256_Init(&digest->stream);
}

void cfsr_digest_update(struct cfsr_digest *digest, const void *data, size_t len_bytes)
{
    if (len_bytes > 0)
        SHA256_Update(&digest->stream, data, len_bytes);
}

void cfsr_digest_final(struct cfsr_digest *digest, uint8_t digest_out[CFSR_DIGEST_LEN_BYTES])
{
    SHA256_Final(digest_out, &digest->stream);
}

static pthread_once_t variant_once = PTHREAD_ONCE_INIT;
static const char *variant_name = "openssl";

static void find_variant(void)
{
    struct cfsr_multibuffer *multibuffer = cfsr_multibuffer_create();

    if (multibuffer != NULL)
        variant_name = cfsr_multibuffer_variant(multibuffer);
    cfsr_multibuffer_destroy(multibuffer);
}

const char *cfsr_digest_variant(void)
{
    pthread_once(&variant_once, find_variant);
    return variant_name;
}
