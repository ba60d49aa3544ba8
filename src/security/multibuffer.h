/*
 * multibuffer.h - SHA-256 of several equal chunks at once (libIPSec_MB); internal to src/security.
 *
 * Optional: where the library is absent, the processor has nothing to offer, or its results differ
 * from OpenSSL's, create() gives none and the caller hashes one by one.
 */
#ifndef CFSR_SECURITY_MULTIBUFFER_H
#define CFSR_SECURITY_MULTIBUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "security/digest.h"

struct cfsr_multibuffer;

/* NULL when there is none. One thread at a time. Allocates; hash() does not. */
struct cfsr_multibuffer *cfsr_multibuffer_create(void);
void cfsr_multibuffer_destroy(struct cfsr_multibuffer *multibuffer); /* NULL is fine */

/*
 * How many of the next `count` chunks are better hashed together than one by one: 0, or a number <=
 * count.
 */
unsigned cfsr_multibuffer_worth(const struct cfsr_multibuffer *multibuffer, unsigned count);
/*
 * SHA-256 of `count` chunks of CFSR_DIGEST_CHUNK_BYTES that lie one after the other, to `count`
 * digests one after the other. False if the library did not complete them all (the caller hashes
 * them itself).
 */
bool cfsr_multibuffer_hash(struct cfsr_multibuffer *multibuffer, const uint8_t *chunks,
                           unsigned count, uint8_t *digests_out);

/* "sha-ni x2", "avx512 x16" …; NULL when there is none. */
const char *cfsr_multibuffer_variant(const struct cfsr_multibuffer *multibuffer);
/* Version of the library linked in ("1.3.0"), NULL when built without. */
const char *cfsr_multibuffer_version(void);

#endif
