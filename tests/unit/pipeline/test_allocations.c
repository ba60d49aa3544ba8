/*
 * test_allocations.c - no heap allocation after creation: every allocator is replaced by one that
 * counts. Not built with sanitizers, which replace them too.
 */
#include <errno.h>
#include <stdlib.h>

#include "fixture.h"

#define SIZES 7

static _Thread_local bool counting;
static _Thread_local unsigned allocations;

void *__libc_malloc(size_t len_bytes);
void *__libc_calloc(size_t count, size_t len_bytes);
void *__libc_realloc(void *old, size_t len_bytes);
void *__libc_memalign(size_t align, size_t len_bytes);

void *malloc(size_t len_bytes)
{
    allocations += counting;
    return __libc_malloc(len_bytes);
}

void *calloc(size_t count, size_t len_bytes)
{
    allocations += counting;
    return __libc_calloc(count, len_bytes);
}

void *realloc(void *old, size_t len_bytes)
{
    allocations += counting;
    return __libc_realloc(old, len_bytes);
}

void *memalign(size_t align, size_t len_bytes);

void *memalign(size_t align, size_t len_bytes)
{
    allocations += counting;
    return __libc_memalign(align, len_bytes);
}

void *aligned_alloc(size_t align, size_t len_bytes)
{
    return memalign(align, len_bytes);
}

int posix_memalign(void **out, size_t align, size_t len_bytes)
{
    *out = memalign(align, len_bytes);
    return *out == NULL ? ENOMEM : 0;
}

static uint8_t raw[CFSR_CODEC_INPUT_MAX_BYTES];
static uint8_t body[CFSR_CODEC_INPUT_MAX_BYTES];
static uint8_t back[CFSR_CODEC_INPUT_MAX_BYTES];

static void fill(void)
{
    make_records(raw, sizeof raw / RECORD_LEN_BYTES);
}

TestSuite(allocations, .init = fill);

static void begin_count(void)
{
    allocations = 0;
    counting = true;
}

static unsigned end_count(void)
{
    counting = false;
    return allocations;
}

Test(allocations, the_counter_counts)
{
    void *volatile memory;

    begin_count();
    memory = malloc(100);
    cr_assert_eq(end_count(), 1);
    free(memory);
}

/* A whole batch there and back, of one size. No Criterion call inside: it may allocate itself. */
static bool turn(struct cfsr_batch_codec *codec, struct cfsr_mac_key *key, uint32_t len_bytes)
{
    struct cfsr_batch_header header = {.lsn_from = 0, .lsn_to = 1};
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];

    if (cfsr_batch_encode(codec, raw, len_bytes, body, sizeof body, &header) < 0)
        return false;
    cfsr_batch_header_store(&header, prefix);
    cfsr_batch_sign(key, 1, prefix, NULL, 0);
    return cfsr_batch_header_load(prefix, &header) == 0 &&
           cfsr_batch_check_tag(key, prefix, NULL, 0) == 0 &&
           cfsr_batch_check_body(codec, &header, body) == 0 &&
           cfsr_batch_decode(codec, &header, body, back, sizeof back) == 0 &&
           memcmp(raw, back, len_bytes) == 0 &&
           (len_bytes < CFSR_MIN_COMPRESS_BYTES || header.codec != CFSR_CODEC_NONE);
}

static void check_codec(const char *text, unsigned repeats)
{
    static const uint32_t sizes[SIZES] = {300,        16u << 10, 100,       256u << 10,
                                          128u << 10, 1000,      sizeof raw};
    struct cfsr_batch_codec *codec = make_codec(text);
    struct cfsr_mac_key *key = make_key(1);
    bool sound = true;

    begin_count();
    for (unsigned i = 0; i < SIZES; i++)
        sound = turn(codec, key, sizes[i]) && sound;
    /* Long enough for a context that shrinks after many small inputs to do it, then a large one. */
    for (unsigned i = 0; i < repeats; i++)
        sound = turn(codec, key, 300) && sound;
    sound = turn(codec, key, sizeof raw) && sound;
    cr_assert_eq(end_count(), 0, "%s: %u allocations", text, allocations);
    cr_assert(sound, "%s", text);
    cfsr_mac_key_destroy(key);
    cfsr_batch_codec_destroy(codec);
}

Test(allocations, lz4_batches_need_none)
{
    check_codec("lz4", 300);
}

Test(allocations, zstd_batches_need_none_at_any_level)
{
    for (int level = CFSR_ZSTD_LEVEL_MIN; level <= CFSR_ZSTD_LEVEL_MAX; level++) {
        char text[16];

        snprintf(text, sizeof text, "zstd:%d", level);
        check_codec(text, 300);
    }
}

Test(allocations, refused_batches_need_none)
{
    struct cfsr_batch_codec *codec = make_codec("zstd");
    struct cfsr_mac_key *key = make_key(1);
    struct cfsr_batch_header header = {.lsn_from = 0, .lsn_to = 1};
    uint8_t prefix[CFSR_BATCH_PREFIX_BYTES] = {0};
    int rc[4];

    cr_assert_eq(cfsr_batch_encode(codec, raw, 67000, body, sizeof body, &header), 0);
    begin_count();
    rc[0] = cfsr_batch_header_load(prefix, &header);
    rc[1] = cfsr_batch_check_tag(key, prefix, NULL, 0);
    body[20] ^= 1;
    rc[2] = cfsr_batch_check_body(codec, &header, body);
    header.original_bytes--;
    rc[3] = cfsr_batch_decode(codec, &header, body, back, sizeof back);
    cr_assert_eq(end_count(), 0);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_lt(rc[i], 0);
    cfsr_mac_key_destroy(key);
    cfsr_batch_codec_destroy(codec);
}

Test(allocations, streaming_digest_needs_none)
{
    struct cfsr_digest *digest;
    uint8_t out[CFSR_DIGEST_LEN_BYTES];

    cr_assert_eq(cfsr_digest_create(&digest), 0);
    begin_count();
    for (unsigned i = 0; i < 10; i++) {
        cfsr_digest_begin(digest);
        cfsr_digest_update(digest, raw, 5000);
        cfsr_digest_final(digest, out);
        cfsr_digest_sha256(digest, raw, 100, out);
        cfsr_digest_body(digest, raw, 3000 + i * 9000, out);
    }
    cr_assert_eq(end_count(), 0);
    cfsr_digest_destroy(digest);
}
