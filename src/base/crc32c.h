/*
 * crc32c.h - CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected, as in RFC 3720 appendix B.4).
 *
 * cfsr_crc32c(0, "123456789", 9) == 0xE3069283. The running value is already complemented at both
 * ends, so crc(crc(0, a), b) == crc(0, a followed by b). Hardware instructions where present,
 * chosen once; a table elsewhere.
 */
#ifndef CFSR_BASE_CRC32C_H
#define CFSR_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Any length and alignment; any thread. data may be NULL if len_bytes is 0. */
uint32_t cfsr_crc32c(uint32_t crc, const void *data, size_t len_bytes);

/*
 * Three independent CRCs at once: crc[i] = cfsr_crc32c(crc[i], data[i], len_bytes[i]). For runs of
 * small records: the instruction takes 3 cycles and a new one can start in each, so three chains
 * cost little more than one. Best when the lengths are alike; right for any.
 */
void cfsr_crc32c_x3(uint32_t crc[3], const void *const data[3], const size_t len_bytes[3]);

/*
 * The same behind an 8-byte little-endian prefix each: crc_out[i] = crc of (prefix[i], data[i])
 * going on from seed. One call where a seed that differs by 8 bytes would need four (the records of
 * a journal).
 */
void cfsr_crc32c_x3_prefixed(uint32_t seed, const uint64_t prefix[3], const void *const data[3],
                             const size_t len_bytes[3], uint32_t crc_out[3]);

/* Name of the variant in use: "sse4.2", "armv8" or "table"; for --version and bench reports. */
const char *cfsr_crc32c_variant(void);

/* Variants by name, for tests and bench: the function, or NULL where this machine has no such
 * instructions. */
typedef uint32_t (*cfsr_crc32c_function)(uint32_t crc, const void *data, size_t len_bytes);
cfsr_crc32c_function cfsr_crc32c_by_variant(const char *variant);

#endif
