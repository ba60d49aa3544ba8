/*
 * bytes.h - little-endian loads and stores, alignment, container_of.
 *
 * Every wire and disk format is little-endian and read through these: no packed structs, no pointer
 * casts.
 */
#ifndef CFSR_BASE_BYTES_H
#define CFSR_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t cfsr_load_le16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return le16toh(v);
}
static inline uint32_t cfsr_load_le32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}
static inline uint64_t cfsr_load_le64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}
static inline void cfsr_store_le16(void *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof v);
}
static inline void cfsr_store_le32(void *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}
static inline void cfsr_store_le64(void *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}

/*
 * Runs the body for each set bit of a 64-bit mask, lowest first; bit is a uint32_t of the caller.
 * Masks of lanes are sparse: a walk over all 64 in every turn was a tenth of a quiet core's work.
 */
#define CFSR_FOR_EACH_BIT(bit, mask)                                               \
    for (uint64_t bit##_rest = (mask);                                             \
         bit##_rest != 0 && ((bit) = (uint32_t)__builtin_ctzll(bit##_rest), true); \
         bit##_rest &= bit##_rest - 1)

static inline uint64_t cfsr_rotate_right64(uint64_t v, uint32_t by)
{
    return by % 64 == 0 ? v : v >> by % 64 | v << (64 - by % 64);
}

/* align must be a power of two. */
static inline uint64_t cfsr_align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}
static inline uint64_t cfsr_align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}
static inline bool cfsr_is_power_of_two(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}
static inline uint64_t cfsr_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t cfsr_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* True if every one of len bytes is zero. */
bool cfsr_bytes_are_zero(const void *p, size_t len_bytes);

#define CFSR_CONTAINER_OF(pointer, type, member) \
    ((type *)((char *)(pointer)-offsetof(type, member)))

#define CFSR_ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

#define CFSR_CACHE_LINE 64

#endif
