/*
 * init.c - one-time set-up of the crypto libraries, randomness, wiping, versions.
 *
 * Thread: cfsr_security_init() from any thread, any number of times; the rest after it, from any.
 * Invariant: after a failed set-up every later call fails the same way; nothing runs half set up.
 */
#include "security/mac.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include <openssl/crypto.h>
#include <sodium.h>

#include "base/fail.h"
#include "security/digest.h"
#include "security/multibuffer.h"

static pthread_once_t set_up_once = PTHREAD_ONCE_INIT;
static pthread_once_t versions_once = PTHREAD_ONCE_INIT;
static int set_up_rc;
static char versions[160];

static void set_up(void)
{
    if (sodium_init() < 0)
        set_up_rc = -EIO;
}

int cfsr_security_init(void)
{
    pthread_once(&set_up_once, set_up);
    if (set_up_rc < 0)
        return cfsr_fail(set_up_rc, "libsodium cannot start: check that /dev/urandom is readable");
    return 0;
}

void cfsr_wipe(void *data, size_t len_bytes)
{
    if (len_bytes > 0)
        sodium_memzero(data, len_bytes);
}

void cfsr_random_bytes(void *data_out, size_t len_bytes)
{
    randombytes_buf(data_out, len_bytes);
}

static void format_versions(void)
{
    const char *multibuffer = cfsr_multibuffer_version();

    if (multibuffer == NULL)
        snprintf(versions, sizeof versions, "OpenSSL %s, libsodium %s",
                 OpenSSL_version(OPENSSL_VERSION_STRING), sodium_version_string());
    else
        snprintf(versions, sizeof versions, "OpenSSL %s, libsodium %s, ipsec-mb %s (%s)",
                 OpenSSL_version(OPENSSL_VERSION_STRING), sodium_version_string(), multibuffer,
                 cfsr_digest_variant());
}

const char *cfsr_security_versions(void)
{
    pthread_once(&versions_once, format_versions);
    return versions;
}
