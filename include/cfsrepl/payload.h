/*
 * payload.h - the typed payload of an entry: tag-length-value fields.
 *
 * Each field: u16le tag, u16le reserved 0, u32le length, value, zero padding to 8 bytes. Numbers
 * are u64le (8 bytes). Unknown tags are kept and forwarded; a tag occurs once. Fields may come in
 * any order; the builder writes them in the order of the calls.
 */
#ifndef CFSREPL_PAYLOAD_H
#define CFSREPL_PAYLOAD_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum cfsr_tag {
    CFSR_TAG_PARENT = 1,      /* u64 inode of the parent directory */
    CFSR_TAG_NAME = 2,        /* bytes, no NUL, no '/' */
    CFSR_TAG_MODE = 3,        /* u64: permission bits and file type as st_mode */
    CFSR_TAG_UID = 4,         /* u64 */
    CFSR_TAG_GID = 5,         /* u64 */
    CFSR_TAG_SIZE = 6,        /* u64 */
    CFSR_TAG_OFFSET = 7,      /* u64 */
    CFSR_TAG_MTIME_NS = 8,    /* i64 as u64: ns since the Unix epoch */
    CFSR_TAG_TARGET = 9,      /* bytes: symlink target */
    CFSR_TAG_XATTR_NAME = 10, /* bytes */
    CFSR_TAG_VALUE = 11,      /* bytes: xattr value */
    CFSR_TAG_DATA = 12,       /* bytes: file contents */
    CFSR_TAG_NEW_PARENT = 13, /* u64: Rename */
    CFSR_TAG_NEW_NAME = 14,   /* bytes: Rename */
    CFSR_TAG_PATH_HINT = 15,  /* bytes: path at the time of the op, for filters and people */
    CFSR_TAG_DATA_SUM =
        16, /* u64: crc32c of the contents described by offset and size when data is left out */
    CFSR_TAG_LINK_ID = 17, /* u64: joins the two halves of a rename across shards */
    CFSR_TAG_RDEV = 18,    /* u64: device number of a node */
    CFSR_TAG_LENGTH = 19,  /* u64: bytes a Write covers when data is left out */
};

struct cfsr_payload_builder {
    uint8_t *buffer;
    uint32_t capacity_bytes;
    uint32_t len_bytes;
    int error; /* 0, or -CFSR_E_TOO_LARGE once something did not fit: check once at the end */
};

void cfsr_payload_begin(struct cfsr_payload_builder *builder, void *buffer,
                        uint32_t capacity_bytes);
void cfsr_payload_put_u64(struct cfsr_payload_builder *builder, uint16_t tag, uint64_t value);
void cfsr_payload_put_bytes(struct cfsr_payload_builder *builder, uint16_t tag, const void *value,
                            uint32_t len_bytes);

struct cfsr_field {
    uint16_t tag;
    uint32_t len_bytes;
    const uint8_t *value; /* inside the payload */
};

/* Next field at *cursor (start with 0). 1 a field, 0 the end, -CFSR_E_FORMAT malformed. */
int cfsr_payload_next(const void *payload, uint32_t payload_bytes, uint32_t *cursor,
                      struct cfsr_field *field_out);
/* Finds one tag: 1 found, 0 absent, -CFSR_E_FORMAT. */
int cfsr_payload_find(const void *payload, uint32_t payload_bytes, uint16_t tag,
                      struct cfsr_field *field_out);
int cfsr_payload_get_u64(const void *payload, uint32_t payload_bytes, uint16_t tag,
                         uint64_t *value_out);

#ifdef __cplusplus
}
#endif
#endif
