/*
 * digest.h - SHA-256, and the body digest of a batch.
 *
 * body digest = SHA-256("CFSRBODY" ‖ u64le body length ‖ SHA-256(chunk 0) ‖ SHA-256(chunk 1) ‖ …),
 * chunks of 4 KiB, the last one shorter; an empty body has no chunk. The length binds the count and
 * each leaf's place binds its index, so nothing can be moved, added or dropped. Whole chunks go
 * through multi-buffer SHA (libIPSec_MB) where the library is present and there are enough of them
 * (2 with SHA instructions, 8 with vector code only); through OpenSSL otherwise: same bits (a test
 * compares them). A context belongs to one thread and allocates nothing after creation.
 */
#ifndef CFSR_SECURITY_DIGEST_H
#define CFSR_SECURITY_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CFSR_DIGEST_LEN_BYTES   32
#define CFSR_DIGEST_CHUNK_BYTES 4096
/* Largest body a context accepts: a 1 MiB record stored raw, with its header, and room to spare. */
#define CFSR_DIGEST_BODY_MAX_BYTES (2u << 20)

struct cfsr_digest;

/* -ENOMEM; what cfsr_security_init() says, which it calls. */
int cfsr_digest_create(struct cfsr_digest **digest_out);
void cfsr_digest_destroy(struct cfsr_digest *digest);

/* The body digest of the whole body. len_bytes <= CFSR_DIGEST_BODY_MAX_BYTES (asserted: callers
 * check wire input). */
void cfsr_digest_body(struct cfsr_digest *digest, const void *body, size_t len_bytes,
                      uint8_t digest_out[CFSR_DIGEST_LEN_BYTES]);

/* Turns multi-buffer hashing off and on again (tests, bench); true if it is in use afterwards. On
 * at creation. */
bool cfsr_digest_use_multibuffer(struct cfsr_digest *digest, bool use);

/* Plain SHA-256, one shot and streaming (used by journal digests). */
void cfsr_digest_sha256(struct cfsr_digest *digest, const void *data, size_t len_bytes,
                        uint8_t digest_out[CFSR_DIGEST_LEN_BYTES]);
void cfsr_digest_begin(struct cfsr_digest *digest);
void cfsr_digest_update(struct cfsr_digest *digest, const void *data, size_t len_bytes);
void cfsr_digest_final(struct cfsr_digest *digest, uint8_t digest_out[CFSR_DIGEST_LEN_BYTES]);

/* Name of the multi-buffer variant ("sha-ni x2", "avx512 x16", "avx2 x8"), "openssl" when there is
 * none. */
const char *cfsr_digest_variant(void);

#endif
