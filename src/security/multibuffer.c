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

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <intel-ipsec-mb.h>
#include <sodium.h>

#define VECTOR_CHUNKS_MIN    8
#define SELF_TEST_CHUNKS     33
#define SHA_EXTENSIONS_LANES 2

/* What the processor is best at. */
struct variant {
    void (*init)(IMB_MGR *manager);
    unsigned lanes;
    unsigned chunks_min; /* below it one by one is as fast */
    const char *name;    /* NULL: nothing gains over OpenSSL */
};

struct cfsr_multibuffer {
    IMB_MGR *manager;
    struct variant variant;
};

/* Chosen and tested once a process: the test hashes 132 KiB with the portable code of another
 * library, which would cost as much as all else that a short-lived reader does. */
static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;
static struct variant chosen;

static struct variant best_of(const IMB_MGR *manager, IMB_ARCH arch)
{
    const uint64_t two_lanes = IMB_FEATURE_SHANI | IMB_FEATURE_AVX2;

    if ((manager->features & two_lanes) == two_lanes && arch >= IMB_ARCH_AVX2)
        return (struct variant){init_mb_mgr_avx2, SHA_EXTENSIONS_LANES, SHA_EXTENSIONS_LANES,
                                "sha-ni x2"};
    if (arch == IMB_ARCH_AVX512)
        return (struct variant){init_mb_mgr_avx512, 16, VECTOR_CHUNKS_MIN, "avx512 x16"};
    if (arch == IMB_ARCH_AVX2)
        return (struct variant){init_mb_mgr_avx2, 8, VECTOR_CHUNKS_MIN, "avx2 x8"};
    return (struct variant){0}; /* four lanes of 128 bits gain nothing over OpenSSL */
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

static struct cfsr_multibuffer *create(const struct variant *variant)
{
    struct cfsr_multibuffer *multibuffer = calloc(1, sizeof *multibuffer);
    IMB_MGR *manager;

    if (multibuffer == NULL)
        return NULL;
    multibuffer->variant = *variant;
    multibuffer->manager = manager = alloc_mb_mgr(0);
    if (manager == NULL)
        goto free_multibuffer;
    variant->init(manager);
    /* The library tests itself at init since 1.3; older ones say nothing, and our own test
     * decides. */
    if (imb_get_errno(manager) != 0 || ((manager->features & IMB_FEATURE_SELF_TEST) != 0 &&
                                        (manager->features & IMB_FEATURE_SELF_TEST_PASS) == 0))
        goto free_manager;
    return multibuffer;

free_manager:
    free_mb_mgr(manager);
free_multibuffer:
    free(multibuffer);
    return NULL;
}

static void choose(void)
{
    struct variant best = {0};
    struct cfsr_multibuffer *multibuffer;
    IMB_MGR *manager = alloc_mb_mgr(0);
    IMB_ARCH arch = IMB_ARCH_NONE;

    if (manager == NULL)
        return;
    init_mb_mgr_auto(manager, &arch);
    if (imb_get_errno(manager) == 0)
        best = best_of(manager, arch);
    free_mb_mgr(manager);
    multibuffer = best.name != NULL ? create(&best) : NULL;
    if (multibuffer != NULL && agrees_with_sodium(multibuffer))
        chosen = best;
    cfsr_multibuffer_destroy(multibuffer);
}

struct cfsr_multibuffer *cfsr_multibuffer_create(void)
{
    pthread_once(&chosen_once, choose);
    return chosen.name != NULL ? create(&chosen) : NULL;
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
    unsigned rest = count % multibuffer->variant.lanes;

    /* A started round costs the same however few lanes it has. */
    return rest >= multibuffer->variant.chunks_min ? count : count - rest;
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
    return multibuffer == NULL ? NULL : multibuffer->variant.name;
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
