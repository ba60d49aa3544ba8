/*
 * multibuffer.c - SHA-256 of several 4 KiB chunks at once with libIPSec_MB.
 *
 * Thread: a context belongs to one thread.
 * Invariant: no job is left inside the manager between calls.
 *
 * The library's own choice (init_mb_mgr_auto) is the widest vector unit: on a processor with
 * AVX-512 that is 16 lanes of vector code even where SHA instructions exist. Two interleaved
 * streams of SHA instructions are faster and worth it from 2 chunks on. Measured, GB/s over 2 / 8 /
 * 16 / 17 chunks of 4 KiB, one core: SHA instructions, 2 lanes   3.37 / 3.37 / 3.36 / 3.20 <- taken
 * where the processor has them AVX-512, 16 lanes           0.46 / 1.76 / 3.12 / 1.79 OpenSSL, one
 * by one         1.74 So the AVX2 manager is asked for when there are SHA instructions (its SHA-256
 * is the two-lane one), the library's choice otherwise, and then only for 8 chunks or more.
 * Rejected: the hash burst functions (plain SHA-256 is refused in release 1.3, HMAC only).
 */
#include "security/multibuffer.h"

#ifdef CFSR_HAVE_IPSEC_MB

#include <stdlib.h>
#include <string.h>

#include <intel-ipsec-mb.h>
#include <sodium.h>

#define VECTOR_CHUNKS_MIN    8
#define SELF_TEST_CHUNKS     33
#define SHA_EXTENSIONS_LANES 2

struct cfsr_multibuffer {
    IMB_MGR *manager;
    unsigned lanes;
    unsigned chunks_min; /* below it one by one is as fast */
    const char *variant;
};

static bool choose(struct cfsr_multibuffer *multibuffer)
{
    const uint64_t two_lanes = IMB_FEATURE_SHANI | IMB_FEATURE_AVX2;
    IMB_MGR *manager = multibuffer->manager;
    IMB_ARCH arch = IMB_ARCH_NONE;

    init_mb_mgr_auto(manager, &arch);
    if (imb_get_errno(manager) != 0)
        return false;
    if ((manager->features & two_lanes) == two_lanes && arch >= IMB_ARCH_AVX2) {
        init_mb_mgr_avx2(manager);
        multibuffer->lanes = SHA_EXTENSIONS_LANES;
        multibuffer->chunks_min = SHA_EXTENSIONS_LANES;
        multibuffer->variant = "sha-ni x2";
    } else if (arch == IMB_ARCH_AVX512) {
        multibuffer->lanes = 16;
        multibuffer->chunks_min = VECTOR_CHUNKS_MIN;
        multibuffer->variant = "avx512 x16";
    } else if (arch == IMB_ARCH_AVX2) {
        multibuffer->lanes = 8;
        multibuffer->chunks_min = VECTOR_CHUNKS_MIN;
        multibuffer->variant = "avx2 x8";
    } else {
        return false; /* four lanes of 128 bits gain nothing over OpenSSL */
    }
    if (imb_get_errno(manager) != 0)
        return false;
    /* The library tests itself at init since 1.3; older ones say nothing, and the test below
     * decides. */
    return (manager->features & IMB_FEATURE_SELF_TEST) == 0 ||
           (manager->features & IMB_FEATURE_SELF_TEST_PASS) != 0;
}

/* Other code, other library: a wrong digest here would look like damage on every link. */
static bool agrees_with_sodium(struct cfsr_multibuffer *multibuffer)
{
    const size_t len_bytes = (size_t)SELF_TEST_CHUNKS * CFSR_DIGEST_CHUNK_BYTES;
    uint8_t digests[SELF_TEST_CHUNKS * CFSR_DIGEST_LEN_BYTES];
    uint8_t expected[CFSR_DIGEST_LEN_BYTES];
    uint8_t *chunks;
    bool agrees;

    chunks = malloc(len_bytes);
    if (chunks == NULL)
        return false;
    for (size_t i = 0; i < len_bytes; i++)
        chunks[i] = (uint8_t)(i * 167 + (i >> 8));
    agrees = cfsr_multibuffer_hash(multibuffer, chunks, SELF_TEST_CHUNKS, digests);
    for (unsigned i = 0; agrees && i < SELF_TEST_CHUNKS; i++) {
        crypto_hash_sha256(expected, chunks + (size_t)i * CFSR_DIGEST_CHUNK_BYTES,
                           CFSR_DIGEST_CHUNK_BYTES);
        agrees = memcmp(expected, digests + i * CFSR_DIGEST_LEN_BYTES, sizeof expected) == 0;
    }
    free(chunks);
    return agrees;
}

struct cfsr_multibuffer *cfsr_multibuffer_create(void)
{
    struct cfsr_multibuffer *multibuffer;

    multibuffer = calloc(1, sizeof *multibuffer);
    if (multibuffer == NULL)
        return NULL;
    multibuffer->manager = alloc_mb_mgr(0);
    if (multibuffer->manager == NULL)
        goto free_multibuffer;
    if (!choose(multibuffer) || !agrees_with_sodium(multibuffer))
        goto free_manager;
    return multibuffer;

free_manager:
    free_mb_mgr(multibuffer->manager);
free_multibuffer:
    free(multibuffer);
    return NULL;
}

void cfsr_multibuffer_destroy(struct cfsr_multibuffer *multibuffer)
{
    if (multibuffer == NULL)
        return;
    free_mb_mgr(multibuffer->manager);
    free(multibuffer);
}

unsigned cfsr_multibuffer_worth(const struct cfsr_multibuffer *multibuffer, unsigned count)
{
    unsigned rest = count % multibuffer->lanes;

    /* A started round costs the same however few lanes it has. */
    return rest >= multibuffer->chunks_min ? count : count - rest;
}

/* Counts the completed jobs that the library hands back; a job that failed is not counted. */
static unsigned collect(IMB_MGR *manager, IMB_JOB *job)
{
    unsigned completed = 0;

    for (; job != NULL; job = IMB_GET_COMPLETED_JOB(manager))
        completed += job->status == IMB_STATUS_COMPLETED;
    return completed;
}

bool cfsr_multibuffer_hash(struct cfsr_multibuffer *multibuffer, const uint8_t *chunks,
                           unsigned count, uint8_t *digests_out)
{
    IMB_MGR *manager = multibuffer->manager;
    unsigned completed = 0;
    IMB_JOB *job;

    for (unsigned i = 0; i < count; i++) {
        job = IMB_GET_NEXT_JOB(manager);
        memset(job, 0, sizeof *job);
        job->cipher_mode = IMB_CIPHER_NULL;
        job->cipher_direction = IMB_DIR_ENCRYPT;
        job->chain_order = IMB_ORDER_HASH_CIPHER;
        job->hash_alg = IMB_AUTH_SHA_256;
        job->src = chunks + (size_t)i * CFSR_DIGEST_CHUNK_BYTES;
        job->msg_len_to_hash_in_bytes = CFSR_DIGEST_CHUNK_BYTES;
        job->auth_tag_output = digests_out + (size_t)i * CFSR_DIGEST_LEN_BYTES;
        job->auth_tag_output_len_in_bytes = CFSR_DIGEST_LEN_BYTES;
        completed += collect(manager, IMB_SUBMIT_JOB_NOCHECK(manager));
    }
    while ((job = IMB_FLUSH_JOB(manager)) != NULL)
        completed += collect(manager, job);
    return completed == count;
}

const char *cfsr_multibuffer_variant(const struct cfsr_multibuffer *multibuffer)
{
    return multibuffer == NULL ? NULL : multibuffer->variant;
}

const char *cfsr_multibuffer_version(void)
{
    return imb_get_version_str();
}

#else /* built without the library */

struct cfsr_multibuffer *cfsr_multibuffer_create(void)
{
    return NULL;
}

void cfsr_multibuffer_destroy(struct cfsr_multibuffer *multibuffer)
{
    (void)multibuffer;
}

unsigned cfsr_multibuffer_worth(const struct cfsr_multibuffer *multibuffer, unsigned count)
{
    (void)multibuffer;
    (void)count;
    return 0;
}

bool cfsr_multibuffer_hash(struct cfsr_multibuffer *multibuffer, const uint8_t *chunks,
                           unsigned count, uint8_t *digests_out)
{
    (void)multibuffer;
    (void)chunks;
    (void)count;
    (void)digests_out;
    return false;
}

const char *cfsr_multibuffer_variant(const struct cfsr_multibuffer *multibuffer)
{
    (void)multibuffer;
    return NULL;
}

const char *cfsr_multibuffer_version(void)
{
    return NULL;
}

#endif
