/*
 * wire_internal.h - what the payload codecs of src/repl/wire*.c share: layouts and the payload
 * head.
 *
 * Any thread; pure functions.
 */
#ifndef CFSR_REPL_WIRE_INTERNAL_H
#define CFSR_REPL_WIRE_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "repl/wire.h"

/* One list per layout: X(prefix, field, offset, size). */
#define FIELD_OFFSET(P, N, O, S) P##_##N = (O),
#define FIELD_MEMBER(P, N, O, S) uint8_t N[S];
#define FIELD_CHECK(P, N, O, S) \
    _Static_assert(offsetof(struct P##_layout, N) == (O), #P " " #N " is misplaced");
#define LAYOUT(P, FIELDS, TOTAL)                 \
    enum {                                       \
        FIELDS(FIELD_OFFSET) P##_BYTES = (TOTAL) \
    };                                           \
    struct P##_layout {                          \
        FIELDS(FIELD_MEMBER)                     \
    };                                           \
    FIELDS(FIELD_CHECK)                          \
    _Static_assert(sizeof(struct P##_layout) == (TOTAL), #P " has another size")

/* First 8 bytes of every payload that is not BATCH. */
#define HEAD_FIELDS(X)         \
    X(HEAD, FIXED_BYTES, 0, 2) \
    X(HEAD, ITEM_BYTES, 2, 2)  \
    X(HEAD, COUNT, 4, 2)       \
    X(HEAD, RESERVED, 6, 2)
LAYOUT(HEAD, HEAD_FIELDS, 8);

struct cfsr_wire_payload {
    const uint8_t *fixed;
    const uint8_t *items;
    uint32_t item_bytes; /* stride as the writer declared it */
    uint32_t count;
};

/* Checks a payload's head against its length. -CFSR_E_BAD_FRAME; what names it in the message. */
int cfsr_wire_payload_open(const void *payload, uint32_t len_bytes, uint32_t fixed_min,
                           uint32_t item_min, const char *what,
                           struct cfsr_wire_payload *payload_out);
/* Zeroes a payload and writes its head; its length. */
uint32_t cfsr_wire_payload_begin(uint8_t *p, uint32_t fixed_bytes, uint32_t item_bytes,
                                 uint32_t count);
/* A status as it goes out: 0 or the number of a CFSR_E_*. */
uint32_t cfsr_wire_status(int32_t status);
int cfsr_wire_status_load(const uint8_t *p, int32_t *status_out, const char *what);
int cfsr_wire_reserved_check(const uint8_t *p, size_t len_bytes, const char *what);

#endif
