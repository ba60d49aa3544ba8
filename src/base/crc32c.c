/*
 * crc32c.c - CRC-32C by the processor's instruction where there is one, by eight tables elsewhere.
 *
 * Thread: any. The variant and the tables are made by a constructor, before any thread exists, and
 * never change.
 *
 * x86: one crc32 instruction takes 3 cycles and one can start in every cycle. Small inputs run as
 * one unrolled chain and leave the overlap of neighbouring records to the processor; larger ones
 * are cut into three equal lanes of 8 * n bytes, joined with two carry-less multiplications. With
 * K(m) = x^(64 m - 33) mod P, the 64-bit product clmul(state, K(m)) put through one crc32
 * instruction is the state moved on by 8 m bytes (the 33: one bit that a reflected product is short
 * of, 32 that the instruction multiplies by). K(1) = x^31 is the register value 1, and one crc32
 * instruction over zero turns K(m) into K(m + 1): 257 instructions make the table (method: V. Gopal
 * et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011).
 *
 * Rejected: constant tables in the source (numbers nobody can review); folding with wide vectors
 * (faster only from several KiB on, and records are small).
 */
#include "base/crc32c.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define POLYNOMIAL_REFLECTED 0x82F63B78U

typedef void (*crc_x3_function)(uint32_t crc[3], const void *const data[3],
                                const size_t len_bytes[3]);

typedef void (*crc_x3_prefixed_function)(uint32_t seed, const uint64_t prefix[3],
                                         const void *const data[3], const size_t len_bytes[3],
                                         uint32_t crc_out[3]);

/* ---- tables: any machine (slicing by 8, M. Kounavis and F. Berry, Intel 2005) ---- */

static uint32_t table[8][256];

static void table_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int bit = 0; bit < 8; bit++)
            v = (v >> 1) ^ ((v & 1) != 0 ? POLYNOMIAL_REFLECTED : 0);
        table[0][i] = v;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int slice = 1; slice < 8; slice++)
            table[slice][i] = (table[slice - 1][i] >> 8) ^ table[0][table[slice - 1][i] & 0xff];
    }
}

static uint32_t crc_table(uint32_t crc, const void *data, size_t len_bytes)
{
    const uint8_t *p = data;

    crc = ~crc;
    for (; len_bytes >= 8; p += 8, len_bytes -= 8) {
        uint64_t v = cfsr_load_le64(p) ^ crc;
        crc = table[7][v & 0xff] ^ table[6][v >> 8 & 0xff] ^ table[5][v >> 16 & 0xff] ^
              table[4][v >> 24 & 0xff] ^ table[3][v >> 32 & 0xff] ^ table[2][v >> 40 & 0xff] ^
              table[1][v >> 48 & 0xff] ^ table[0][v >> 56];
    }
    for (; len_bytes > 0; p++, len_bytes--)
        crc = (crc >> 8) ^ table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

static void crc_table_x3(uint32_t crc[3], const void *const data[3], const size_t len_bytes[3])
{
    for (int i = 0; i < 3; i++)
        crc[i] = crc_table(crc[i], data[i], len_bytes[i]);
}

#if defined(__x86_64__)

/* ---- x86: SSE4.2 and PCLMULQDQ ---- */

#define X86_TARGET __attribute__((target("sse4.2,pclmul")))

#define LANE_WORDS_MAX  128 /* words of 8 bytes a lane: 3 KiB a block */
#define THREE_WAY_BYTES 208 /* measured on Zen 4: below, one chain is as fast or faster */

static uint32_t lane_shift[2 * LANE_WORDS_MAX + 1]; /* K(m) */

X86_TARGET static void sse42_init(void)
{
    uint64_t k = 1;

    for (size_t m = 1; m < CFSR_ARRAY_LEN(lane_shift); m++) {
        lane_shift[m] = (uint32_t)k;
        k = _mm_crc32_u64(k, 0);
    }
}

#define STEP(i) crc = _mm_crc32_u64(crc, cfsr_load_le64(p + 8 * (i)))

X86_TARGET static inline uint64_t sse42_words(uint64_t crc, const uint8_t *p, size_t words)
{
    for (; words >= 8; words -= 8, p += 64) {
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
        STEP(4);
        STEP(5);
        STEP(6);
        STEP(7);
    }
    if ((words & 4) != 0) {
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
        p += 32;
    }
    if ((words & 2) != 0) {
        STEP(0);
        STEP(1);
        p += 16;
    }
    if ((words & 1) != 0)
        STEP(0);
    return crc;
}

/* The last 0 to 7 bytes. Records are multiples of 8 with a CRC of 4 in front, so 4 is the usual
 * case. */
X86_TARGET static inline uint32_t sse42_tail(uint64_t crc64, const uint8_t *p, size_t len_bytes)
{
    uint32_t crc = (uint32_t)crc64;

    if ((len_bytes & 4) != 0) {
        crc = _mm_crc32_u32(crc, cfsr_load_le32(p));
        p += 4;
    }
    if ((len_bytes & 3) != 0) {
        if ((len_bytes & 2) != 0) {
            crc = _mm_crc32_u16(crc, cfsr_load_le16(p));
            p += 2;
        }
        if ((len_bytes & 1) != 0)
            crc = _mm_crc32_u8(crc, *p);
    }
    return crc;
}

X86_TARGET static inline uint64_t carryless(uint64_t state, uint32_t k)
{
    return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)state),
                                                            _mm_cvtsi64_si128((long long)k), 0));
}

/* Three lanes of `words` words each, one after the other in memory. */
X86_TARGET static inline uint64_t sse42_block(uint64_t crc, const uint8_t *p, size_t words)
{
    const uint8_t *b = p + 8 * words;
    const uint8_t *c = b + 8 * words;
    const uint8_t *end = b -
                         8; /* the last word of each lane is done apart: the join goes into it */
    uint64_t crc_b = 0;
    uint64_t crc_c = 0;
    uint64_t join;

    for (; p < end; p += 8, b += 8, c += 8) {
        crc = _mm_crc32_u64(crc, cfsr_load_le64(p));
        crc_b = _mm_crc32_u64(crc_b, cfsr_load_le64(b));
        crc_c = _mm_crc32_u64(crc_c, cfsr_load_le64(c));
    }
    crc = _mm_crc32_u64(crc, cfsr_load_le64(p));
    crc_b = _mm_crc32_u64(crc_b, cfsr_load_le64(b));
    join = carryless(crc, lane_shift[2 * words]) ^ carryless(crc_b, lane_shift[words]);
    return _mm_crc32_u64(crc_c, cfsr_load_le64(c) ^ join);
}

X86_TARGET __attribute__((noinline)) static uint32_t sse42_large(uint32_t crc, const uint8_t *p,
                                                                 size_t len_bytes)
{
    uint64_t state = crc;

    while (len_bytes >= THREE_WAY_BYTES) {
        size_t words = len_bytes / 24 < LANE_WORDS_MAX ? len_bytes / 24 : LANE_WORDS_MAX;

        state = sse42_block(state, p, words);
        p += 24 * words;
        len_bytes -= 24 * words;
    }
    state = sse42_words(state, p, len_bytes / 8);
    return sse42_tail(state, p + (len_bytes & ~(size_t)7), len_bytes & 7);
}

X86_TARGET static uint32_t crc_sse42(uint32_t crc, const void *data, size_t len_bytes)
{
    const uint8_t *p = data;

    if (len_bytes >= THREE_WAY_BYTES)
        return ~sse42_large(~crc, p, len_bytes);
    return ~sse42_tail(sse42_words(~crc, p, len_bytes / 8), p + (len_bytes & ~(size_t)7),
                       len_bytes & 7);
}

/* What is left of one of three runs its own chain; the three still overlap in the processor. */
X86_TARGET static inline uint32_t sse42_rest(uint64_t state, const uint8_t *p, size_t len_bytes)
{
    if (len_bytes >= THREE_WAY_BYTES)
        return crc_sse42(~(uint32_t)state, p, len_bytes);
    state = sse42_words(state, p, len_bytes / 8);
    return ~sse42_tail(state, p + (len_bytes & ~(size_t)7), len_bytes & 7);
}

/* Three chains side by side; the states are complemented, as the instruction wants them. */
X86_TARGET static inline void sse42_x3(const uint64_t state[3], const void *const data[3],
                                       const size_t len_bytes[3], uint32_t crc_out[3])
{
    const uint8_t *a = data[0];
    const uint8_t *b = data[1];
    const uint8_t *c = data[2];
    uint64_t crc_a = state[0];
    uint64_t crc_b = state[1];
    uint64_t crc_c = state[2];
    size_t shared = (size_t)cfsr_min_u64(len_bytes[0], cfsr_min_u64(len_bytes[1], len_bytes[2])) &
                    ~(size_t)7;
    size_t at = 0;

    for (; at + 16 <= shared; at += 16) {
        crc_a = _mm_crc32_u64(crc_a, cfsr_load_le64(a + at));
        crc_b = _mm_crc32_u64(crc_b, cfsr_load_le64(b + at));
        crc_c = _mm_crc32_u64(crc_c, cfsr_load_le64(c + at));
        crc_a = _mm_crc32_u64(crc_a, cfsr_load_le64(a + at + 8));
        crc_b = _mm_crc32_u64(crc_b, cfsr_load_le64(b + at + 8));
        crc_c = _mm_crc32_u64(crc_c, cfsr_load_le64(c + at + 8));
    }
    crc_out[0] = sse42_rest(crc_a, a + at, len_bytes[0] - at);
    crc_out[1] = sse42_rest(crc_b, b + at, len_bytes[1] - at);
    crc_out[2] = sse42_rest(crc_c, c + at, len_bytes[2] - at);
}

X86_TARGET static void crc_sse42_x3(uint32_t crc[3], const void *const data[3],
                                    const size_t len_bytes[3])
{
    const uint64_t state[3] = {(uint32_t)~crc[0], (uint32_t)~crc[1], (uint32_t)~crc[2]};

    sse42_x3(state, data, len_bytes, crc);
}

X86_TARGET static void crc_sse42_x3_prefixed(uint32_t seed, const uint64_t prefix[3],
                                             const void *const data[3], const size_t len_bytes[3],
                                             uint32_t crc_out[3])
{
    const uint64_t state[3] = {
        _mm_crc32_u64((uint32_t)~seed, prefix[0]),
        _mm_crc32_u64((uint32_t)~seed, prefix[1]),
        _mm_crc32_u64((uint32_t)~seed, prefix[2]),
    };

    sse42_x3(state, data, len_bytes, crc_out);
}

#elif defined(__aarch64__)

/* ---- ARM: the CRC extension ---- */

#if defined(__clang__) /* whose arm_acle.h names the instructions only under -march=...+crc */
#define ARM_TARGET __attribute__((target("crc")))
#define ARM_CRC_8  __builtin_arm_crc32cd
#define ARM_CRC_1  __builtin_arm_crc32cb
#else
#define ARM_TARGET __attribute__((target("+crc")))
#define ARM_CRC_8  __crc32cd
#define ARM_CRC_1  __crc32cb
#endif

ARM_TARGET static uint32_t crc_armv8(uint32_t crc, const void *data, size_t len_bytes)
{
    const uint8_t *p = data;

    crc = ~crc;
    for (; len_bytes >= 32; p += 32, len_bytes -= 32) {
        crc = ARM_CRC_8(crc, cfsr_load_le64(p));
        crc = ARM_CRC_8(crc, cfsr_load_le64(p + 8));
        crc = ARM_CRC_8(crc, cfsr_load_le64(p + 16));
        crc = ARM_CRC_8(crc, cfsr_load_le64(p + 24));
    }
    for (; len_bytes >= 8; p += 8, len_bytes -= 8)
        crc = ARM_CRC_8(crc, cfsr_load_le64(p));
    for (; len_bytes > 0; p++, len_bytes--)
        crc = ARM_CRC_1(crc, *p);
    return ~crc;
}

ARM_TARGET static void crc_armv8_x3(uint32_t crc[3], const void *const data[3],
                                    const size_t len_bytes[3])
{
    const uint8_t *a = data[0];
    const uint8_t *b = data[1];
    const uint8_t *c = data[2];
    uint32_t state[3] = {~crc[0], ~crc[1], ~crc[2]};
    size_t shared = (size_t)cfsr_min_u64(len_bytes[0], cfsr_min_u64(len_bytes[1], len_bytes[2])) &
                    ~(size_t)7;

    for (size_t at = 0; at < shared; at += 8) {
        state[0] = ARM_CRC_8(state[0], cfsr_load_le64(a + at));
        state[1] = ARM_CRC_8(state[1], cfsr_load_le64(b + at));
        state[2] = ARM_CRC_8(state[2], cfsr_load_le64(c + at));
    }
    crc[0] = crc_armv8(~state[0], a + shared, len_bytes[0] - shared);
    crc[1] = crc_armv8(~state[1], b + shared, len_bytes[1] - shared);
    crc[2] = crc_armv8(~state[2], c + shared, len_bytes[2] - shared);
}

#endif

/* ---- choice ---- */

static cfsr_crc32c_function active = crc_table;
static crc_x3_function active_x3 = crc_table_x3;

/* For machines without a version of their own. */
static void any_x3_prefixed(uint32_t seed, const uint64_t prefix[3], const void *const data[3],
                            const size_t len_bytes[3], uint32_t crc_out[3])
{
    for (int i = 0; i < 3; i++) {
        uint8_t bytes[8];

        cfsr_store_le64(bytes, prefix[i]);
        crc_out[i] = active(seed, bytes, sizeof bytes);
    }
    active_x3(crc_out, data, len_bytes);
}

static crc_x3_prefixed_function active_x3_prefixed = any_x3_prefixed;
static const char *active_name = "table";

__attribute__((constructor(101))) static void crc32c_choose(void)
{
    table_init();
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        sse42_init();
        active = crc_sse42;
        active_x3 = crc_sse42_x3;
        active_x3_prefixed = crc_sse42_x3_prefixed;
        active_name = "sse4.2";
    }
#elif defined(__aarch64__)
    if ((getauxval(AT_HWCAP) & HWCAP_CRC32) != 0) {
        active = crc_armv8;
        active_x3 = crc_armv8_x3;
        active_name = "armv8";
    }
#endif
}

uint32_t cfsr_crc32c(uint32_t crc, const void *data, size_t len_bytes)
{
    return active(crc, data, len_bytes);
}

void cfsr_crc32c_x3(uint32_t crc[3], const void *const data[3], const size_t len_bytes[3])
{
    active_x3(crc, data, len_bytes);
}

void cfsr_crc32c_x3_prefixed(uint32_t seed, const uint64_t prefix[3], const void *const data[3],
                             const size_t len_bytes[3], uint32_t crc_out[3])
{
    active_x3_prefixed(seed, prefix, data, len_bytes, crc_out);
}

const char *cfsr_crc32c_variant(void)
{
    return active_name;
}

cfsr_crc32c_function cfsr_crc32c_by_variant(const char *variant)
{
    if (strcmp(variant, "table") == 0)
        return crc_table;
    return strcmp(variant, active_name) == 0 ? active : NULL;
}
