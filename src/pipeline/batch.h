/*
 * batch.h - a batch: a contiguous LSN range of one lane, compressed and signed once, carried and
 * stored unchanged.
 *
 * The 192-byte prefix, its extension (declared holes) and the body are the same bytes on the wire
 * and in the inbox. Byte table (little-endian), also in docs/wire-format.md:
 *
 *     0  4  magic "CFB1" (0x31424643)        64  4  entry count (ops 0–10 only)
 *     4  2  version (1)                      68  4  id of the key of the batch tag
 *     6  2  flags                            72  4  original (decompressed) body bytes
 *     8  2  lane                             76  4  stored body bytes
 *    10  1  codec                            80  2  declared holes (16 bytes each: from, to)
 *    11  1  level (informative)              82  2  extension bytes (holes × 16, then nothing yet)
 *    12  4  encode class                     84  4  reserved, 0
 *    16  8  origin site id                   88  8  prepared at, µs since the Unix epoch
 *    24 16  journal uuid                     96 16  trace id
 *    40  8  fencing epoch                   112  8  span id
 *    48  8  LSN from                        120  8  incarnation of the journal
 *    56  8  LSN to                          128 32  body digest
 *                                           160 32  batch tag
 *
 * batch tag = HMAC-SHA256(key(origin → destination), bytes 0–159 ‖ extension). Bytes 68–71 and the
 * tag are the only ones that differ between the copies for two destinations of one encode class.
 */
#ifndef CFSR_PIPELINE_BATCH_H
#define CFSR_PIPELINE_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"
#include "pipeline/codec.h"
#include "security/digest.h"
#include "security/mac.h"

#define CFSR_BATCH_MAGIC          0x31424643u
#define CFSR_BATCH_VERSION        1
#define CFSR_BATCH_PREFIX_BYTES   192
#define CFSR_BATCH_SIGNED_BYTES   160
#define CFSR_BATCH_TAG_OFFSET     160
#define CFSR_BATCH_HOLE_BYTES     16
#define CFSR_BATCH_HOLES_MAX      64
#define CFSR_BATCH_EXTENSION_MAX  (CFSR_BATCH_HOLES_MAX * CFSR_BATCH_HOLE_BYTES)
#define CFSR_BATCH_BODY_MAX_BYTES CFSR_CODEC_INPUT_MAX_BYTES

enum cfsr_batch_flag {
    CFSR_BATCH_PARTIAL = 1u << 0,   /* filtered or compacted: repairs nobody */
    CFSR_BATCH_FORWARDED = 1u << 1, /* not to be sent back to its origin */
    CFSR_BATCH_REPAIR = 1u << 2,    /* inbox REPAIR record: replaces a damaged range */
};
#define CFSR_BATCH_FLAGS_KNOWN (CFSR_BATCH_PARTIAL | CFSR_BATCH_FORWARDED | CFSR_BATCH_REPAIR)

/* Host form of the prefix. */
struct cfsr_batch_header {
    uint16_t flags;
    uint16_t lane;
    uint8_t codec;
    uint8_t level;
    uint32_t encode_class;
    uint64_t site_id;
    struct cfsr_uuid journal;
    uint64_t epoch;
    uint64_t lsn_from;
    uint64_t lsn_to;
    uint32_t entry_count;
    uint32_t key_id;
    uint32_t original_bytes;
    uint32_t stored_bytes;
    uint16_t hole_count;
    uint16_t extension_bytes;
    uint64_t prepared_at_us;
    uint8_t trace_id[16];
    uint64_t span_id;
    uint64_t incarnation;
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];
    uint8_t tag[CFSR_TAG_LEN_BYTES];
};

/* Writes the 192 bytes. */
void cfsr_batch_header_store(const struct cfsr_batch_header *header, void *prefix_out);
/*
 * Reads and checks everything that needs no key: magic, version, known flags and codec, from < to,
 * sizes within limits, extension = holes × 16, reserved bytes zero, codec none => stored ==
 * original, else stored < original. -CFSR_E_BAD_FRAME, -CFSR_E_VERSION.
 */
int cfsr_batch_header_load(const void *prefix, struct cfsr_batch_header *header_out);
/* Bytes between the prefix and the body, as the prefix says: unchecked. */
uint32_t cfsr_batch_extension_bytes(const void *prefix);

/* Contexts of one core: compressor, decompressor, digest. */
struct cfsr_batch_codec;
int cfsr_batch_codec_create(const struct cfsr_codec_config *config,
                            struct cfsr_batch_codec **codec_out);
void cfsr_batch_codec_destroy(struct cfsr_batch_codec *codec);

/*
 * Compresses raw (raw_bytes of records) into body_out (capacity_bytes >= raw_bytes) and fills in
 * codec, level, original and stored bytes and digest of *header; the caller has set everything
 * else. -CFSR_E_TOO_LARGE.
 */
int cfsr_batch_encode(struct cfsr_batch_codec *codec, const void *raw, uint32_t raw_bytes,
                      void *body_out, uint32_t capacity_bytes, struct cfsr_batch_header *header);

/* Sets key id and tag in a stored prefix (192 bytes) for one destination; extension may be NULL
 * when it has 0 bytes. */
void cfsr_batch_sign(struct cfsr_mac_key *key, uint32_t key_id, void *prefix, const void *extension,
                     uint32_t extension_bytes);
/* -CFSR_E_BAD_TAG. Only the header is authenticated by this; the body by cfsr_batch_check_body().
 */
int cfsr_batch_check_tag(struct cfsr_mac_key *key, const void *prefix, const void *extension,
                         uint32_t extension_bytes);
/* -CFSR_E_BAD_DIGEST if the digest of the stored body is not the header's. */
int cfsr_batch_check_body(struct cfsr_batch_codec *codec, const struct cfsr_batch_header *header,
                          const void *body);
/* Decompresses a checked body: exactly header->original_bytes into raw_out, or -CFSR_E_DECOMPRESS /
 * -CFSR_E_BOMB. */
int cfsr_batch_decode(struct cfsr_batch_codec *codec, const struct cfsr_batch_header *header,
                      const void *body, void *raw_out, uint32_t capacity_bytes);

#endif
