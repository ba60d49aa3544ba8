/* base64.h - RFC 4648 base64 with padding, for bytes inside JSON. */
#ifndef CFSR_CLI_BASE64_H
#define CFSR_CLI_BASE64_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Characters of the encoded form, without NUL. */
static inline size_t cfsr_base64_encoded_len(size_t len_bytes)
{
    return (len_bytes + 2) / 3 * 4;
}
/* Writes cfsr_base64_encoded_len(len_bytes) characters and a NUL. */
void cfsr_base64_encode(const void *data, size_t len_bytes, char *text_out);
/* Bytes written, or -CFSR_E_FORMAT (alphabet, padding), -CFSR_E_TOO_LARGE. */
ssize_t cfsr_base64_decode(const char *text, size_t len, void *data_out, size_t capacity_bytes);

#endif
