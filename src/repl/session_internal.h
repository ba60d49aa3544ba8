/* session_internal.h - what the handshake and the frames of a session share; private to src/repl.
 */
#ifndef CFSR_REPL_SESSION_INTERNAL_H
#define CFSR_REPL_SESSION_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repl/wire.h"
#include "security/mac.h"

/* Writes the link tag of a stored header: over its signed bytes and signed_part. */
void cfsr_session_sign(struct cfsr_mac_key *key, uint8_t *header, const void *signed_part,
                       size_t len_bytes);
/* Whether the link tag of a frame is right; of a BATCH only the first 256 bytes are looked at. */
bool cfsr_session_tag_is_right(struct cfsr_mac_key *key, const uint8_t *frame,
                               const struct cfsr_link_header *header);

#endif
