/*
 * json_record.c - entries as JSON lines.
 *
 * Thread: any; no state. One table of keys serves both ways, so what dump prints append reads.
 * Numbers are JSON integers; above 2^63-1, which JSON readers lose, decimal strings. Bytes that are
 * not UTF-8 text stand in base64 under KEY_base64.
 */
#include "cli/json_record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <cfsrepl/payload.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "base/nearest.h"
#include "base/units.h"
#include "cli/base64.h"

enum field_kind {
    FIELD_U64,
    FIELD_I64,
    FIELD_MODE,
    FIELD_TEXT,
    FIELD_BYTES
};

static const struct field {
    const char *key;
    enum field_kind kind;
    uint16_t tag;
} fields[] = {
    {"parent", FIELD_U64, CFSR_TAG_PARENT},
    {"name", FIELD_TEXT, CFSR_TAG_NAME},
    {"mode", FIELD_MODE, CFSR_TAG_MODE},
    {"uid", FIELD_U64, CFSR_TAG_UID},
    {"gid", FIELD_U64, CFSR_TAG_GID},
    {"size", FIELD_U64, CFSR_TAG_SIZE},
    {"offset", FIELD_U64, CFSR_TAG_OFFSET},
    {"length", FIELD_U64, CFSR_TAG_LENGTH},
    {"mtime_ns", FIELD_I64, CFSR_TAG_MTIME_NS},
    {"target", FIELD_TEXT, CFSR_TAG_TARGET},
    {"xattr_name", FIELD_TEXT, CFSR_TAG_XATTR_NAME},
    {"value", FIELD_BYTES, CFSR_TAG_VALUE},
    {"data", FIELD_BYTES, CFSR_TAG_DATA},
    {"data_sum", FIELD_U64, CFSR_TAG_DATA_SUM},
    {"new_parent", FIELD_U64, CFSR_TAG_NEW_PARENT},
    {"new_name", FIELD_TEXT, CFSR_TAG_NEW_NAME},
    {"path", FIELD_TEXT, CFSR_TAG_PATH_HINT},
    {"link_id", FIELD_U64, CFSR_TAG_LINK_ID},
    {"rdev", FIELD_U64, CFSR_TAG_RDEV},
};
#define FIELD_COUNT CFSR_ARRAY_LEN(fields)

/* What dump adds and append passes over: given anew by the journal. */
static const char *const position_keys[] = {"lane",         "lsn",  "seq",
                                            "timestamp_us", "site", "payload_bytes"};

/* Tags that an op cannot do without; a bit a tag. Write also needs data or length: see
 * check_fields(). */
#define BIT(tag) (1u << (tag))
static const uint32_t required_tags[CFSR_OP_COUNT] = {
    [CFSR_OP_CREATE] = BIT(CFSR_TAG_PARENT) | BIT(CFSR_TAG_NAME) | BIT(CFSR_TAG_MODE),
    [CFSR_OP_UNLINK] = BIT(CFSR_TAG_PARENT) | BIT(CFSR_TAG_NAME),
    [CFSR_OP_RENAME] = BIT(CFSR_TAG_PARENT) | BIT(CFSR_TAG_NAME) | BIT(CFSR_TAG_NEW_PARENT) |
                       BIT(CFSR_TAG_NEW_NAME),
    [CFSR_OP_WRITE] = BIT(CFSR_TAG_OFFSET),
    [CFSR_OP_TRUNCATE] = BIT(CFSR_TAG_SIZE),
    [CFSR_OP_LINK] = BIT(CFSR_TAG_PARENT) | BIT(CFSR_TAG_NAME),
    [CFSR_OP_SYMLINK] = BIT(CFSR_TAG_PARENT) | BIT(CFSR_TAG_NAME) | BIT(CFSR_TAG_TARGET),
    [CFSR_OP_MKDIR] = BIT(CFSR_TAG_PARENT) | BIT(CFSR_TAG_NAME) | BIT(CFSR_TAG_MODE),
    [CFSR_OP_SETXATTR] = BIT(CFSR_TAG_XATTR_NAME) | BIT(CFSR_TAG_VALUE),
    [CFSR_OP_REMOVEXATTR] = BIT(CFSR_TAG_XATTR_NAME),
};
_Static_assert(CFSR_TAG_LENGTH < 32, "a bit a tag");

static int bad_key(const char *key, const char *why)
{
    return cfsr_fail(-CFSR_E_FORMAT, "\"%s\": %s", key, why);
}

static int number_of(const char *key, const json_t *value, enum field_kind kind,
                     uint64_t *number_out)
{
    const char *text = json_string_value(value);
    char *end;

    if (json_is_integer(value)) {
        if (json_integer_value(value) < 0 && kind != FIELD_I64)
            return bad_key(key, "must not be negative");
        *number_out = (uint64_t)json_integer_value(value);
        return 0;
    }
    if (text == NULL)
        return bad_key(key, "must be a number");
    if (kind == FIELD_MODE) {
        if (text[0] == '\0' || strlen(text) > 7 || strspn(text, "01234567") != strlen(text))
            return bad_key(key, "must be a number, or octal digits in quotes as \"0100644\"");
        *number_out = strtoul(text, &end, 8);
        return 0;
    }
    if (cfsr_parse_u64(text, number_out) < 0)
        return bad_key(key, "must be a number, or decimal digits in quotes");
    return 0;
}

/* Name of the field without "_base64"; NULL if no such key. */
static const struct field *find_field(const char *key, bool *base64_out)
{
    size_t len = strlen(key);
    size_t suffix = strlen("_base64");

    *base64_out = len > suffix && strcmp(key + len - suffix, "_base64") == 0;
    if (*base64_out)
        len -= suffix;
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (strlen(fields[i].key) == len && memcmp(fields[i].key, key, len) == 0)
            return *base64_out && fields[i].kind < FIELD_TEXT ? NULL : &fields[i];
    return NULL;
}

static int unknown_key(const char *key)
{
    const char *names[FIELD_COUNT + 8];
    size_t count = 0;
    const char *near;

    for (size_t i = 0; i < FIELD_COUNT; i++)
        names[count++] = fields[i].key;
    names[count++] = "op";
    names[count++] = "inode";
    names[count++] = "shard";
    names[count++] = "data_base64";
    names[count++] = "value_base64";
    names[count++] = "payload_base64";
    near = cfsr_nearest(key, names, count);
    if (near != NULL)
        return cfsr_fail(-CFSR_E_FORMAT, "unknown key: \"%s\": did you mean \"%s\"?", key, near);
    return cfsr_fail(-CFSR_E_FORMAT, "unknown key: \"%s\": see docs/records.md", key);
}

static int put_bytes(struct cfsr_payload_builder *builder, const struct field *field,
                     const char *key, const json_t *value, bool base64)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    uint8_t *decoded;
    ssize_t decoded_len;

    if (text == NULL)
        return bad_key(key, "must be a string");
    if (!base64) {
        if (field->kind == FIELD_TEXT && len == 0)
            return bad_key(key, "must not be empty");
        cfsr_payload_put_bytes(builder, field->tag, text, (uint32_t)len);
        return 0;
    }
    decoded = malloc(len + 1);
    if (decoded == NULL)
        return -ENOMEM;
    decoded_len = cfsr_base64_decode(text, len, decoded, len);
    if (decoded_len == 0 && field->kind == FIELD_TEXT) {
        free(decoded);
        return bad_key(key, "must not be empty");
    }
    if (decoded_len >= 0 && field->kind == FIELD_TEXT &&
        memchr(decoded, 0, (size_t)decoded_len) != NULL)
        decoded_len = -CFSR_E_FORMAT; /* no NUL in names */
    if (decoded_len >= 0)
        cfsr_payload_put_bytes(builder, field->tag, decoded, (uint32_t)decoded_len);
    free(decoded);
    return decoded_len < 0 ? bad_key(key, "is not base64 (or a name with a NUL)") : 0;
}

static int check_name(const char *key, const struct cfsr_payload_builder *builder, uint16_t tag)
{
    struct cfsr_field field;

    if (cfsr_payload_find(builder->buffer, builder->len_bytes, tag, &field) != 1)
        return 0;
    if (field.len_bytes > 255)
        return bad_key(key, "is longer than 255 bytes");
    if (memchr(field.value, '/', field.len_bytes) != NULL ||
        (field.len_bytes == 1 && field.value[0] == '.') ||
        (field.len_bytes == 2 && memcmp(field.value, "..", 2) == 0))
        return bad_key(key, "is not a name: '/', \".\" and \"..\" are not allowed");
    return 0;
}

static int check_fields(unsigned op, uint32_t seen, const struct cfsr_payload_builder *builder)
{
    uint32_t missing = required_tags[op] & ~seen;

    for (size_t i = 0; missing != 0 && i < FIELD_COUNT; i++)
        if ((missing & BIT(fields[i].tag)) != 0)
            return cfsr_fail(-CFSR_E_FORMAT, "\"%s\" is missing: %s needs it", fields[i].key,
                             cfsr_op_name(op));
    if (op == CFSR_OP_WRITE && (seen & (BIT(CFSR_TAG_DATA) | BIT(CFSR_TAG_LENGTH))) == 0)
        return cfsr_fail(-CFSR_E_FORMAT,
                         "\"data_base64\" or \"length\" is missing: Write needs one");
    if (check_name("name", builder, CFSR_TAG_NAME) < 0 ||
        check_name("new_name", builder, CFSR_TAG_NEW_NAME) < 0)
        return -CFSR_E_FORMAT;
    if (builder->error != 0)
        return cfsr_fail(-CFSR_E_TOO_LARGE, "the record is larger than 1 MiB: split the data");
    return 0;
}

static bool is_position_key(const char *key)
{
    for (size_t i = 0; i < CFSR_ARRAY_LEN(position_keys); i++)
        if (strcmp(key, position_keys[i]) == 0)
            return true;
    return strcmp(key, "op") == 0 || strcmp(key, "inode") == 0 || strcmp(key, "shard") == 0;
}

static int put_fields(json_t *object, struct cfsr_payload_builder *builder, uint32_t *seen_out)
{
    const char *key;
    json_t *value;
    uint32_t seen = 0;

    json_object_foreach(object, key, value)
    {
        bool base64;
        const struct field *field = find_field(key, &base64);
        uint64_t number;
        int rc;

        if (is_position_key(key))
            continue;
        if (field == NULL)
            return unknown_key(key);
        if ((seen & BIT(field->tag)) != 0)
            return bad_key(key, "is given as text and as base64");
        seen |= BIT(field->tag);
        if (field->kind >= FIELD_TEXT) {
            rc = put_bytes(builder, field, key, value, base64);
        } else {
            rc = number_of(key, value, field->kind, &number);
            if (rc == 0)
                cfsr_payload_put_u64(builder, field->tag, number);
        }
        if (rc < 0)
            return rc;
    }
    *seen_out = seen;
    return 0;
}

/* An opaque payload stands alone: no typed field beside it. */
static int take_opaque(json_t *object, const json_t *opaque, void *payload,
                       struct cfsr_entry *entry)
{
    const char *text = json_string_value(opaque);
    const char *key;
    json_t *value;
    ssize_t len;

    json_object_foreach(object, key,
                        value) if (!is_position_key(key) &&
                                   strcmp(key, "payload_base64") !=
                                       0) return bad_key(key,
                                                         "cannot stand beside \"payload_base64\"");
    if (text == NULL)
        return bad_key("payload_base64", "must be a string");
    len = cfsr_base64_decode(text, json_string_length(opaque), payload, CFSR_RECORD_PAYLOAD_MAX);
    if (len == -CFSR_E_TOO_LARGE)
        return cfsr_fail(-CFSR_E_TOO_LARGE, "\"payload_base64\": is larger than 1 MiB");
    if (len < 0)
        return bad_key("payload_base64", "is not base64");
    entry->payload_bytes = (uint32_t)len;
    entry->flags |= CFSR_ENTRY_OPAQUE;
    entry->shard_key = entry->inode;
    return 0;
}

static bool is_directory_op(unsigned op)
{
    return op == CFSR_OP_CREATE || op == CFSR_OP_UNLINK || op == CFSR_OP_RENAME ||
           op == CFSR_OP_LINK || op == CFSR_OP_SYMLINK || op == CFSR_OP_MKDIR;
}

static int take_head(json_t *object, struct cfsr_entry *entry)
{
    const char *op = json_string_value(json_object_get(object, "op"));
    const json_t *shard = json_object_get(object, "shard");
    const json_t *inode = json_object_get(object, "inode");
    uint64_t number;
    int rc;

    if (op == NULL)
        return bad_key("op", "is missing or not a string");
    rc = cfsr_op_parse(op);
    if (rc < 0)
        return bad_key(
            "op", "is not an operation: Create, Unlink, Rename, Write, Truncate, SetAttr, Link, "
                  "Symlink, MkDir, SetXattr or RemoveXattr");
    entry->op = (uint8_t)rc;
    if (inode == NULL)
        return bad_key("inode", "is missing");
    rc = number_of("inode", inode, FIELD_U64, &entry->inode);
    entry->shard_id = CFSR_SHARD_AUTO;
    if (rc < 0 || shard == NULL)
        return rc;
    rc = number_of("shard", shard, FIELD_U64, &number);
    if (rc == 0 && number >= 65536)
        rc = bad_key("shard", "must be below 65536");
    if (rc == 0)
        entry->shard_id = (uint32_t)number;
    return rc;
}

static int parse_object(json_t *object, void *payload, struct cfsr_entry *entry_out)
{
    struct cfsr_entry entry = {.payload = payload};
    struct cfsr_payload_builder builder;
    const json_t *opaque = json_object_get(object, "payload_base64");
    uint32_t seen = 0;
    int rc;

    if (!json_is_object(object))
        return cfsr_fail(-CFSR_E_FORMAT, "not a JSON object");
    rc = take_head(object, &entry);
    if (rc < 0)
        return rc;
    if (opaque != NULL) {
        rc = take_opaque(object, opaque, payload, &entry);
    } else {
        cfsr_payload_begin(&builder, payload, CFSR_RECORD_PAYLOAD_MAX);
        rc = put_fields(object, &builder, &seen);
        if (rc == 0)
            rc = check_fields(entry.op, seen, &builder);
        entry.payload_bytes = builder.len_bytes;
        entry.shard_key = entry.inode;
        if (rc == 0 && is_directory_op(entry.op))
            (void)cfsr_payload_get_u64(payload, builder.len_bytes, CFSR_TAG_PARENT,
                                       &entry.shard_key);
    }
    if (rc == 0)
        *entry_out = entry;
    return rc;
}

int cfsr_json_record_parse(const char *line, size_t len_bytes, void *payload,
                           struct cfsr_entry *entry_out)
{
    json_error_t error;
    json_t *object = json_loadb(line, len_bytes, JSON_REJECT_DUPLICATES, &error);
    int rc;

    if (object == NULL)
        return cfsr_fail(-CFSR_E_FORMAT, "column %d: %s", error.column, error.text);
    rc = parse_object(object, payload, entry_out);
    json_decref(object);
    return rc;
}

static json_t *json_u64(uint64_t value)
{
    char text[24];

    if (value <= INT64_MAX)
        return json_integer((json_int_t)value);
    snprintf(text, sizeof text, "%" PRIu64, value);
    return json_string(text);
}

static void set_base64(json_t *object, const char *key, const void *data, size_t len)
{
    char name[64];
    char *text = malloc(cfsr_base64_encoded_len(len) + 1);

    snprintf(name, sizeof name, "%s_base64", key);
    if (text == NULL)
        return;
    cfsr_base64_encode(data, len, text);
    json_object_set_new(object, name, json_string(text));
    free(text);
}

static void set_field(json_t *object, const struct field *field, const struct cfsr_field *value)
{
    json_t *text = NULL;

    if (field->kind < FIELD_TEXT) {
        uint64_t number = value->len_bytes == 8 ? cfsr_load_le64(value->value) : 0;

        json_object_set_new(object, field->key,
                            field->kind == FIELD_I64 ? json_integer((json_int_t)number)
                                                     : json_u64(number));
        return;
    }
    if (field->kind == FIELD_TEXT)
        text = json_stringn((const char *)value->value, value->len_bytes);
    if (text != NULL)
        json_object_set_new(object, field->key, text);
    else
        set_base64(object, field->key, value->value, value->len_bytes);
}

static void set_payload(json_t *object, const struct cfsr_record_header *header,
                        const void *payload)
{
    struct cfsr_field value;
    uint32_t cursor = 0;
    bool opaque = (header->flags & CFSR_ENTRY_OPAQUE) != 0;

    while (!opaque && cfsr_payload_next(payload, header->payload_bytes, &cursor, &value) == 1) {
        for (size_t i = 0; i < FIELD_COUNT; i++)
            if (fields[i].tag == value.tag)
                set_field(object, &fields[i], &value);
    }
    if (opaque)
        set_base64(object, "payload", payload, header->payload_bytes);
}

static const char *name_of(uint8_t op)
{
    switch (op) {
    case CFSR_RECORD_PAD: return "PAD";
    case CFSR_RECORD_MARK: return "MARK";
    case CFSR_RECORD_SHARDS: return "SHARDS";
    default: return cfsr_op_name(op);
    }
}

int cfsr_json_record_print(FILE *out, uint32_t lane, uint64_t lsn,
                           const struct cfsr_record_header *header, const void *payload)
{
    json_t *object = json_object();
    int rc;

    if (object == NULL)
        return -ENOMEM;
    json_object_set_new(object, "site", json_u64(header->site_id));
    json_object_set_new(object, "lane", json_integer(lane));
    json_object_set_new(object, "lsn", json_u64(lsn));
    json_object_set_new(object, "seq", json_u64(header->seq));
    json_object_set_new(object, "timestamp_us", json_u64(header->timestamp_us));
    json_object_set_new(object, "shard", json_integer(header->shard_id));
    json_object_set_new(object, "op", json_string(name_of(header->op)));
    json_object_set_new(object, "inode", json_u64(header->inode));
    if (cfsr_record_is_entry(header->op))
        set_payload(object, header, payload);
    else
        json_object_set_new(object, "payload_bytes", json_integer(header->payload_bytes));
    rc = json_dumpf(object, out, JSON_COMPACT) == 0 && fputc('\n', out) != EOF ? 0 : -EIO;
    json_decref(object);
    return rc;
}
