/*
 * payload.c - the typed payload of an entry: building and walking its tag-length-value fields;
 * names of the ops.
 *
 * Thread:     none of its own; every function works on the caller's memory.
 * Invariants: a field never reaches beyond the payload it stands in; values are 8-byte aligned
 * within it. Rejected:   varints (smaller by some bytes, but LZ4 takes those anyway, and fixed
 * headers are checked at a glance).
 */
#include <cfsrepl/payload.h>

#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include <cfsrepl/error.h>
#include <cfsrepl/journal.h>

#define FIELD_HEADER_BYTES 8u
#define FIELD_ALIGN        8u

static const char *const op_names[CFSR_OP_COUNT] = {
    [CFSR_OP_CREATE] = "Create",
    [CFSR_OP_UNLINK] = "Unlink",
    [CFSR_OP_RENAME] = "Rename",
    [CFSR_OP_WRITE] = "Write",
    [CFSR_OP_TRUNCATE] = "Truncate",
    [CFSR_OP_SETATTR] = "SetAttr",
    [CFSR_OP_LINK] = "Link",
    [CFSR_OP_SYMLINK] = "Symlink",
    [CFSR_OP_MKDIR] = "MkDir",
    [CFSR_OP_SETXATTR] = "SetXattr",
    [CFSR_OP_REMOVEXATTR] = "RemoveXattr",
};

const char *cfsr_op_name(unsigned op)
{
    return op < CFSR_OP_COUNT ? op_names[op] : NULL;
}

int cfsr_op_parse(const char *name)
{
    for (int op = 0; op < CFSR_OP_COUNT; op++)
        if (strcasecmp(name, op_names[op]) == 0)
            return op;
    return -CFSR_E_FORMAT;
}

void cfsr_payload_begin(struct cfsr_payload_builder *builder, void *buffer, uint32_t capacity_bytes)
{
    *builder = (struct cfsr_payload_builder){.buffer = buffer, .capacity_bytes = capacity_bytes};
}

void cfsr_payload_put_bytes(struct cfsr_payload_builder *builder, uint16_t tag, const void *value,
                            uint32_t len_bytes)
{
    uint64_t total = cfsr_align_up((uint64_t)FIELD_HEADER_BYTES + len_bytes, FIELD_ALIGN);
    uint8_t *field = builder->buffer + builder->len_bytes;

    if (builder->error != 0)
        return;
    if (total > builder->capacity_bytes - builder->len_bytes) {
        builder->error = -CFSR_E_TOO_LARGE;
        return;
    }
    cfsr_store_le16(field, tag);
    cfsr_store_le16(field + 2, 0);
    cfsr_store_le32(field + 4, len_bytes);
    if (len_bytes > 0)
        memcpy(field + FIELD_HEADER_BYTES, value, len_bytes);
    memset(field + FIELD_HEADER_BYTES + len_bytes, 0, total - FIELD_HEADER_BYTES - len_bytes);
    builder->len_bytes += (uint32_t)total;
}

void cfsr_payload_put_u64(struct cfsr_payload_builder *builder, uint16_t tag, uint64_t value)
{
    uint8_t bytes[8];

    cfsr_store_le64(bytes, value);
    cfsr_payload_put_bytes(builder, tag, bytes, sizeof bytes);
}

int cfsr_payload_next(const void *payload, uint32_t payload_bytes, uint32_t *cursor,
                      struct cfsr_field *field_out)
{
    const uint8_t *field;
    uint32_t len_bytes;
    uint64_t total;

    if (*cursor == payload_bytes)
        return 0;
    if (*cursor > payload_bytes || payload_bytes - *cursor < FIELD_HEADER_BYTES)
        return -CFSR_E_FORMAT;
    field = (const uint8_t *)payload + *cursor;
    len_bytes = cfsr_load_le32(field + 4);
    total = cfsr_align_up((uint64_t)FIELD_HEADER_BYTES + len_bytes, FIELD_ALIGN);
    if (cfsr_load_le16(field + 2) != 0 || total > payload_bytes - *cursor)
        return -CFSR_E_FORMAT;
    field_out->tag = cfsr_load_le16(field);
    field_out->len_bytes = len_bytes;
    field_out->value = field + FIELD_HEADER_BYTES;
    *cursor += (uint32_t)total;
    return 1;
}

int cfsr_payload_find(const void *payload, uint32_t payload_bytes, uint16_t tag,
                      struct cfsr_field *field_out)
{
    struct cfsr_field field;
    uint32_t cursor = 0;
    int rc;

    while ((rc = cfsr_payload_next(payload, payload_bytes, &cursor, &field)) == 1) {
        if (field.tag == tag) {
            *field_out = field;
            return 1;
        }
    }
    return rc;
}

int cfsr_payload_get_u64(const void *payload, uint32_t payload_bytes, uint16_t tag,
                         uint64_t *value_out)
{
    struct cfsr_field field;
    int rc = cfsr_payload_find(payload, payload_bytes, tag, &field);

    if (rc != 1)
        return rc;
    if (field.len_bytes != 8)
        return -CFSR_E_FORMAT;
    *value_out = cfsr_load_le64(field.value);
    return 1;
}
