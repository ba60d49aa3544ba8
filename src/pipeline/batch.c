/*
 * batch.c - building, signing, checking and opening of batches.
 *
 * Thread: a batch codec belongs to one core; everything else here is pure.
 * Invariants: the prefix is read and written only through the offsets below; nothing of a header
 * leaves header_load() unchecked; the body is decompressed only by callers that have checked tag
 * and digest. Rejected: one tag over header and body - the digest in the signed header lets one
 * pass over the body serve every destination, and the inbox check it without any key.
 */
#include "pipeline/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

/* Offsets in the prefix, as in the byte table of batch.h and docs/wire-format.md. */
enum offset {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_FLAGS = 6,
    AT_LANE = 8,
    AT_CODEC = 10,
    AT_LEVEL = 11,
    AT_ENCODE_CLASS = 12,
    AT_SITE_ID = 16,
    AT_JOURNAL = 24,
    AT_EPOCH = 40,
    AT_LSN_FROM = 48,
    AT_LSN_TO = 56,
    AT_ENTRY_COUNT = 64,
    AT_KEY_ID = 68,
    AT_ORIGINAL_BYTES = 72,
    AT_STORED_BYTES = 76,
    AT_HOLE_COUNT = 80,
    AT_EXTENSION_BYTES = 82,
    AT_RESERVED = 84,
    AT_PREPARED_AT = 88,
    AT_TRACE_ID = 96,
    AT_SPAN_ID = 112,
    AT_INCARNATION = 120,
    AT_DIGEST = 128,
    AT_TAG = 160,
    AT_END = 192,
};

#define RESERVED_LEN_BYTES 4
#define LEVEL_FIELD_MAX    255

_Static_assert(AT_JOURNAL + sizeof(struct cfsr_uuid) == AT_EPOCH, "journal uuid fits");
_Static_assert(AT_RESERVED + RESERVED_LEN_BYTES == AT_PREPARED_AT, "reserved bytes fit");
_Static_assert(AT_TRACE_ID + sizeof((struct cfsr_batch_header){0}.trace_id) == AT_SPAN_ID,
               "trace id fits");
_Static_assert(AT_DIGEST + CFSR_DIGEST_LEN_BYTES == AT_TAG, "digest fits");
_Static_assert(AT_TAG == CFSR_BATCH_SIGNED_BYTES, "everything before the tag is signed");
_Static_assert(AT_TAG == CFSR_BATCH_TAG_OFFSET, "tag where the header says");
_Static_assert(AT_TAG + CFSR_TAG_LEN_BYTES == AT_END, "tag fits");
_Static_assert(AT_END == CFSR_BATCH_PREFIX_BYTES, "prefix size");
_Static_assert(CFSR_BATCH_BODY_MAX_BYTES <= CFSR_DIGEST_BODY_MAX_BYTES, "digest takes any body");

struct cfsr_batch_codec {
    struct cfsr_compressor *compressor;
    struct cfsr_decompressor *decompressor;
    struct cfsr_digest *digest;
};

void cfsr_batch_header_store(const struct cfsr_batch_header *header, void *prefix_out)
{
    uint8_t *prefix = prefix_out;

    cfsr_store_le32(prefix + AT_MAGIC, CFSR_BATCH_MAGIC);
    cfsr_store_le16(prefix + AT_VERSION, CFSR_BATCH_VERSION);
    cfsr_store_le16(prefix + AT_FLAGS, header->flags);
    cfsr_store_le16(prefix + AT_LANE, header->lane);
    prefix[AT_CODEC] = header->codec;
    prefix[AT_LEVEL] = header->level;
    cfsr_store_le32(prefix + AT_ENCODE_CLASS, header->encode_class);
    cfsr_store_le64(prefix + AT_SITE_ID, header->site_id);
    memcpy(prefix + AT_JOURNAL, header->journal.bytes, sizeof header->journal.bytes);
    cfsr_store_le64(prefix + AT_EPOCH, header->epoch);
    cfsr_store_le64(prefix + AT_LSN_FROM, header->lsn_from);
    cfsr_store_le64(prefix + AT_LSN_TO, header->lsn_to);
    cfsr_store_le32(prefix + AT_ENTRY_COUNT, header->entry_count);
    cfsr_store_le32(prefix + AT_KEY_ID, header->key_id);
    cfsr_store_le32(prefix + AT_ORIGINAL_BYTES, header->original_bytes);
    cfsr_store_le32(prefix + AT_STORED_BYTES, header->stored_bytes);
    cfsr_store_le16(prefix + AT_HOLE_COUNT, header->hole_count);
    cfsr_store_le16(prefix + AT_EXTENSION_BYTES, header->extension_bytes);
    memset(prefix + AT_RESERVED, 0, RESERVED_LEN_BYTES);
    cfsr_store_le64(prefix + AT_PREPARED_AT, header->prepared_at_us);
    memcpy(prefix + AT_TRACE_ID, header->trace_id, sizeof header->trace_id);
    cfsr_store_le64(prefix + AT_SPAN_ID, header->span_id);
    cfsr_store_le64(prefix + AT_INCARNATION, header->incarnation);
    memcpy(prefix + AT_DIGEST, header->digest, sizeof header->digest);
    memcpy(prefix + AT_TAG, header->tag, sizeof header->tag);
}

static void read_fields(const uint8_t *prefix, struct cfsr_batch_header *header)
{
    header->flags = cfsr_load_le16(prefix + AT_FLAGS);
    header->lane = cfsr_load_le16(prefix + AT_LANE);
    header->codec = prefix[AT_CODEC];
    header->level = prefix[AT_LEVEL];
    header->encode_class = cfsr_load_le32(prefix + AT_ENCODE_CLASS);
    header->site_id = cfsr_load_le64(prefix + AT_SITE_ID);
    memcpy(header->journal.bytes, prefix + AT_JOURNAL, sizeof header->journal.bytes);
    header->epoch = cfsr_load_le64(prefix + AT_EPOCH);
    header->lsn_from = cfsr_load_le64(prefix + AT_LSN_FROM);
    header->lsn_to = cfsr_load_le64(prefix + AT_LSN_TO);
    header->entry_count = cfsr_load_le32(prefix + AT_ENTRY_COUNT);
    header->key_id = cfsr_load_le32(prefix + AT_KEY_ID);
    header->original_bytes = cfsr_load_le32(prefix + AT_ORIGINAL_BYTES);
    header->stored_bytes = cfsr_load_le32(prefix + AT_STORED_BYTES);
    header->hole_count = cfsr_load_le16(prefix + AT_HOLE_COUNT);
    header->extension_bytes = cfsr_load_le16(prefix + AT_EXTENSION_BYTES);
    header->prepared_at_us = cfsr_load_le64(prefix + AT_PREPARED_AT);
    memcpy(header->trace_id, prefix + AT_TRACE_ID, sizeof header->trace_id);
    header->span_id = cfsr_load_le64(prefix + AT_SPAN_ID);
    header->incarnation = cfsr_load_le64(prefix + AT_INCARNATION);
    memcpy(header->digest, prefix + AT_DIGEST, sizeof header->digest);
    memcpy(header->tag, prefix + AT_TAG, sizeof header->tag);
}

/* What is wrong with the fields, or NULL. */
static const char *find_fault(const struct cfsr_batch_header *header)
{
    if ((header->flags & ~CFSR_BATCH_FLAGS_KNOWN) != 0)
        return "unknown flags";
    if (!cfsr_codec_is_known(header->codec))
        return "unknown compression algorithm";
    if (header->lsn_from >= header->lsn_to)
        return "empty or reversed LSN range";
    if (header->original_bytes > CFSR_BATCH_BODY_MAX_BYTES)
        return "original size over the limit";
    if (header->stored_bytes > CFSR_BATCH_BODY_MAX_BYTES)
        return "stored size over the limit";
    if (header->codec == CFSR_CODEC_NONE && header->stored_bytes != header->original_bytes)
        return "raw body with two sizes";
    if (header->codec != CFSR_CODEC_NONE && header->stored_bytes >= header->original_bytes)
        return "compressed body that is not smaller";
    if (header->hole_count > CFSR_BATCH_HOLES_MAX)
        return "too many holes";
    if (header->extension_bytes != header->hole_count * CFSR_BATCH_HOLE_BYTES)
        return "extension size is not that of the holes";
    return NULL;
}

int cfsr_batch_header_load(const void *prefix, struct cfsr_batch_header *header_out)
{
    const uint8_t *bytes = prefix;
    struct cfsr_batch_header header;
    const char *fault;

    if (cfsr_load_le32(bytes + AT_MAGIC) != CFSR_BATCH_MAGIC)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "batch header without its magic");
    if (cfsr_load_le16(bytes + AT_VERSION) != CFSR_BATCH_VERSION)
        return cfsr_fail(-CFSR_E_VERSION, "batch version %u: known is %u",
                         cfsr_load_le16(bytes + AT_VERSION), CFSR_BATCH_VERSION);
    if (!cfsr_bytes_are_zero(bytes + AT_RESERVED, RESERVED_LEN_BYTES))
        return cfsr_fail(-CFSR_E_BAD_FRAME, "batch header: reserved bytes are not zero");
    read_fields(bytes, &header);
    fault = find_fault(&header);
    if (fault != NULL)
        return cfsr_fail(-CFSR_E_BAD_FRAME, "batch header: %s", fault);
    *header_out = header;
    return 0;
}

int cfsr_batch_codec_create(const struct cfsr_codec_config *config,
                            struct cfsr_batch_codec **codec_out)
{
    struct cfsr_batch_codec *codec;
    int rc;

    codec = calloc(1, sizeof *codec);
    if (codec == NULL)
        return cfsr_fail(-ENOMEM, "no memory for a batch codec");
    rc = cfsr_compressor_create(config, &codec->compressor);
    if (rc < 0)
        goto free_codec;
    rc = cfsr_decompressor_create(&codec->decompressor);
    if (rc < 0)
        goto free_codec;
    rc = cfsr_digest_create(&codec->digest);
    if (rc < 0)
        goto free_codec;
    *codec_out = codec;
    return 0;

free_codec:
    cfsr_batch_codec_destroy(codec);
    return rc;
}

void cfsr_batch_codec_destroy(struct cfsr_batch_codec *codec)
{
    if (codec == NULL)
        return;
    cfsr_digest_destroy(codec->digest);
    cfsr_decompressor_destroy(codec->decompressor);
    cfsr_compressor_destroy(codec->compressor);
    free(codec);
}

int cfsr_batch_encode(struct cfsr_batch_codec *codec, const void *raw, uint32_t raw_bytes,
                      void *body_out, uint32_t capacity_bytes, struct cfsr_batch_header *header)
{
    struct cfsr_codec_result result;
    int level;
    int rc;

    rc = cfsr_compress(codec->compressor, raw, raw_bytes, body_out, capacity_bytes, &result);
    if (rc < 0)
        return rc;
    level = result.codec == CFSR_CODEC_NONE ? 0 : cfsr_compressor_config(codec->compressor)->level;
    header->codec = (uint8_t)result.codec;
    header->level = (uint8_t)(level < LEVEL_FIELD_MAX ? level : LEVEL_FIELD_MAX);
    header->original_bytes = raw_bytes;
    header->stored_bytes = result.len_bytes;
    cfsr_digest_body(codec->digest, body_out, result.len_bytes, header->digest);
    return 0;
}

uint32_t cfsr_batch_extension_bytes(const void *prefix)
{
    return cfsr_load_le16((const uint8_t *)prefix + AT_EXTENSION_BYTES);
}

void cfsr_batch_sign(struct cfsr_mac_key *key, uint32_t key_id, void *prefix, const void *extension,
                     uint32_t extension_bytes)
{
    const struct cfsr_mac_part parts[] = {
        {.data = prefix, .len_bytes = CFSR_BATCH_SIGNED_BYTES},
        {.data = extension, .len_bytes = extension_bytes},
    };
    uint8_t *bytes = prefix;

    CFSR_ASSERT(extension_bytes == cfsr_load_le16(bytes + AT_EXTENSION_BYTES));
    cfsr_store_le32(bytes + AT_KEY_ID, key_id);
    cfsr_mac_compute(key, parts, CFSR_ARRAY_LEN(parts), bytes + AT_TAG);
}

int cfsr_batch_check_tag(struct cfsr_mac_key *key, const void *prefix, const void *extension,
                         uint32_t extension_bytes)
{
    const struct cfsr_mac_part parts[] = {
        {.data = prefix, .len_bytes = CFSR_BATCH_SIGNED_BYTES},
        {.data = extension, .len_bytes = extension_bytes},
    };
    const uint8_t *bytes = prefix;

    if (!cfsr_mac_verify(key, parts, CFSR_ARRAY_LEN(parts), bytes + AT_TAG))
        return cfsr_fail(-CFSR_E_BAD_TAG, "batch tag does not match (key %u)",
                         cfsr_load_le32(bytes + AT_KEY_ID));
    return 0;
}

int cfsr_batch_check_body(struct cfsr_batch_codec *codec, const struct cfsr_batch_header *header,
                          const void *body)
{
    uint8_t digest[CFSR_DIGEST_LEN_BYTES];

    cfsr_digest_body(codec->digest, body, header->stored_bytes, digest);
    if (memcmp(digest, header->digest, sizeof digest) != 0) /* no secret in it */
        return cfsr_fail(-CFSR_E_BAD_DIGEST, "digest of a %u byte body does not match its header",
                         header->stored_bytes);
    return 0;
}

int cfsr_batch_decode(struct cfsr_batch_codec *codec, const struct cfsr_batch_header *header,
                      const void *body, void *raw_out, uint32_t capacity_bytes)
{
    return cfsr_decompress(codec->decompressor, (enum cfsr_codec)header->codec, body,
                           header->stored_bytes, header->original_bytes, raw_out, capacity_bytes);
}
