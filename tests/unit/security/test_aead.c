/*
 * test_aead.c - AES-256-GCM against published vectors and libsodium, tampering, no allocations.
 */
#include "security/aead.h"

#include <criterion/criterion.h>
#include <openssl/crypto.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

/* The library's allocations are counted from before its first one: later it takes no functions. */
static unsigned allocations;

static void *counted_malloc(size_t len_bytes, const char *file, int line)
{
    (void)file;
    (void)line;
    allocations++;
    return malloc(len_bytes);
}
static void *counted_realloc(void *data, size_t len_bytes, const char *file, int line)
{
    (void)file;
    (void)line;
    allocations++;
    return realloc(data, len_bytes);
}
static void counted_free(void *data, const char *file, int line)
{
    (void)file;
    (void)line;
    free(data);
}
static int hooked;
__attribute__((constructor)) static void hook(void)
{
    hooked = CRYPTO_set_mem_functions(counted_malloc, counted_realloc, counted_free);
}

static void set_up(void)
{
    cr_assert_eq(cfsr_security_init(), 0);
}

TestSuite(aead, .init = set_up);

/*
 * McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B (also NIST's
 * gcmtestvectors): the 256-bit test cases with 96-bit nonces.
 */
struct vector {
    const char *key, *nonce, *parts, *data, *sealed, *tag;
};

#define KEY_16 "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
#define DATA_15                                                        \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" \
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
#define SEALED_15                                                      \
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" \
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"

static const struct vector vectors[] = {
    /* 13 */
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    /* 14 */
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18",
     "d0d1c8a799996bf0265b98b5d48ab919"},
    /* 15 */
    {KEY_16, "cafebabefacedbaddecaf888", "", DATA_15 "1aafd255", SEALED_15 "898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    /* 16 */
    {KEY_16, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2", DATA_15,
     SEALED_15, "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static size_t bytes_of(const char *hex, uint8_t *bytes, size_t room)
{
    size_t len = 0;

    cr_assert_eq(sodium_hex2bin(bytes, room, hex, strlen(hex), NULL, &len, NULL), 0);
    cr_assert_eq(len, strlen(hex) / 2);
    return len;
}

static struct cfsr_aead_key *make_key(enum cfsr_aead_use use, const uint8_t secret[32])
{
    struct cfsr_aead_key *key = NULL;

    cr_assert_eq(cfsr_aead_key_create(use, secret, &key), 0);
    return key;
}

Test(aead, published_vectors)
{
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(vectors); i++) {
        const struct vector *v = &vectors[i];
        uint8_t secret[32], nonce[12], parts[64], data[64], sealed[64], tag[16];
        uint8_t made[64], made_tag[16];
        bytes_of(v->key, secret, sizeof secret);
        bytes_of(v->nonce, nonce, sizeof nonce);
        bytes_of(v->tag, tag, sizeof tag);
        size_t parts_bytes = bytes_of(v->parts, parts, sizeof parts);
        size_t len = bytes_of(v->data, data, sizeof data);
        cr_assert_eq(bytes_of(v->sealed, sealed, sizeof sealed), len);
        struct cfsr_mac_part part = {parts, parts_bytes};
        struct cfsr_aead_key *seals = make_key(CFSR_AEAD_SEALS, secret);
        struct cfsr_aead_key *opens = make_key(CFSR_AEAD_OPENS, secret);

        cfsr_aead_seal(seals, nonce, &part, 1, data, len, made, made_tag);
        cr_assert_arr_eq(made, sealed, len, "case %u", i + 13);
        cr_assert_arr_eq(made_tag, tag, sizeof tag, "case %u", i + 13);
        cr_assert(cfsr_aead_open(opens, nonce, &part, 1, made, len, tag), "case %u", i + 13);
        cr_assert_arr_eq(made, data, len, "case %u", i + 13);
        cfsr_aead_key_destroy(seals);
        cfsr_aead_key_destroy(opens);
    }
}

/* Another implementation, all lengths around a block, parts cut anywhere, in place or not. */
Test(aead, agrees_with_libsodium)
{
    uint8_t secret[32], nonce[12], parts[256], data[200], made[200], tag[16], theirs[200],
        their_tag[16];

    if (!crypto_aead_aes256gcm_is_available())
        cr_skip("libsodium has no AES here");
    randombytes_buf(secret, sizeof secret);
    struct cfsr_aead_key *seals = make_key(CFSR_AEAD_SEALS, secret);
    struct cfsr_aead_key *opens = make_key(CFSR_AEAD_OPENS, secret);
    for (size_t len = 0; len <= sizeof data; len++) {
        size_t parts_bytes = randombytes_uniform(sizeof parts + 1);
        size_t cut = randombytes_uniform((uint32_t)parts_bytes + 1);
        randombytes_buf(nonce, sizeof nonce);
        randombytes_buf(parts, sizeof parts);
        randombytes_buf(data, sizeof data);
        const struct cfsr_mac_part both[] = {{parts, cut}, {parts + cut, parts_bytes - cut}};

        crypto_aead_aes256gcm_encrypt_detached(theirs, their_tag, NULL, data, len, parts,
                                               parts_bytes, NULL, nonce, secret);
        cfsr_aead_seal(seals, nonce, both, 2, data, len, made, tag);
        cr_assert_arr_eq(made, theirs, len);
        cr_assert_arr_eq(tag, their_tag, sizeof tag);
        memcpy(made, data, len);
        cfsr_aead_seal(seals, nonce, both, 2, made, len, made, tag);
        cr_assert_arr_eq(made, theirs, len);
        cr_assert_arr_eq(tag, their_tag, sizeof tag);
        cr_assert(cfsr_aead_open(opens, nonce, both, 2, made, len, tag));
        cr_assert_arr_eq(made, data, len);
    }
    cfsr_aead_key_destroy(seals);
    cfsr_aead_key_destroy(opens);
}

struct message {
    uint8_t secret[32], nonce[12], parts[32], data[48], tag[16];
};

/* Opens a copy of the message with one bit of it turned; what it left in the data. */
static bool opens_with_flip(const struct message *message, uint8_t *field, size_t bit,
                            uint8_t data_out[48])
{
    struct message copy = *message;
    uint8_t *base = (uint8_t *)&copy + (field - (const uint8_t *)message);
    struct cfsr_mac_part part = {copy.parts, sizeof copy.parts};

    base[bit / 8] ^= (uint8_t)(1u << bit % 8);
    struct cfsr_aead_key *opens = make_key(CFSR_AEAD_OPENS, copy.secret);
    bool opened = cfsr_aead_open(opens, copy.nonce, &part, 1, copy.data, sizeof copy.data,
                                 copy.tag);
    memcpy(data_out, copy.data, sizeof copy.data);
    cfsr_aead_key_destroy(opens);
    return opened;
}

Test(aead, every_bit_counts_and_nothing_is_left_behind)
{
    static const uint8_t zeros[48];
    struct message message;
    uint8_t left[48];

    randombytes_buf(&message, sizeof message);
    struct cfsr_mac_part part = {message.parts, sizeof message.parts};
    struct cfsr_aead_key *seals = make_key(CFSR_AEAD_SEALS, message.secret);
    cfsr_aead_seal(seals, message.nonce, &part, 1, message.data, sizeof message.data, message.data,
                   message.tag);
    cfsr_aead_key_destroy(seals);
    for (size_t bit = 0; bit < sizeof message * 8; bit++) {
        cr_assert_not(opens_with_flip(&message, (uint8_t *)&message, bit, left), "bit %zu", bit);
        cr_assert_arr_eq(left, zeros, sizeof left, "bit %zu", bit);
    }
}

/* Where one part ends and the data begins is not lost in the concatenation. */
Test(aead, associated_data_is_not_data)
{
    uint8_t secret[32] = {3}, nonce[12] = {0}, data[32] = {1}, tag[16], other_tag[16], out[32];
    const struct cfsr_mac_part all = {data, 32}, half = {data, 16};
    struct cfsr_aead_key *seals = make_key(CFSR_AEAD_SEALS, secret);

    cfsr_aead_seal(seals, nonce, &all, 1, data, 0, out, tag);
    cfsr_aead_seal(seals, nonce, &half, 1, data + 16, 16, out, other_tag);
    cr_assert(memcmp(tag, other_tag, sizeof tag) != 0);
    cfsr_aead_key_destroy(seals);
}

/* A refused message does not spoil the next one of the key. */
Test(aead, a_key_goes_on_after_a_refusal)
{
    uint8_t secret[32] = {9}, nonce[12] = {0}, data[100] = {1}, tag[16], wrong[16] = {0};
    struct cfsr_aead_key *seals = make_key(CFSR_AEAD_SEALS, secret);
    struct cfsr_aead_key *opens = make_key(CFSR_AEAD_OPENS, secret);

    for (uint8_t i = 0; i < 10; i++) {
        uint8_t sealed[100], copy[100];
        nonce[11] = i;
        cfsr_aead_seal(seals, nonce, NULL, 0, data, sizeof data, sealed, tag);
        memcpy(copy, sealed, sizeof copy);
        cr_assert_not(cfsr_aead_open(opens, nonce, NULL, 0, copy, sizeof copy, wrong));
        cr_assert(cfsr_aead_open(opens, nonce, NULL, 0, sealed, sizeof sealed, tag));
        cr_assert_arr_eq(sealed, data, sizeof data);
    }
    cfsr_aead_key_destroy(seals);
    cfsr_aead_key_destroy(opens);
    cfsr_aead_key_destroy(NULL);
}

Test(aead, derived_keys_follow_label_and_parts)
{
    static const uint8_t secret[32] = {5};
    const struct cfsr_mac_part part = {"context", 7};
    struct cfsr_mac_key *parent = NULL;
    struct cfsr_aead_key *derived = NULL;
    uint8_t expected[32], nonce[12] = {0}, tag[16], other_tag[16], data[16] = {0}, out[16];

    cr_assert_eq(cfsr_mac_key_create(secret, &parent), 0);
    cr_assert_eq(cfsr_aead_key_derive(parent, CFSR_AEAD_SEALS, "label", &part, 1, &derived), 0);
    const struct cfsr_mac_part message = {"label\0context", 13};
    cfsr_mac_compute(parent, &message, 1, expected);
    struct cfsr_aead_key *made = make_key(CFSR_AEAD_SEALS, expected);
    cfsr_aead_seal(derived, nonce, NULL, 0, data, sizeof data, out, tag);
    cfsr_aead_seal(made, nonce, NULL, 0, data, sizeof data, out, other_tag);
    cr_assert_arr_eq(tag, other_tag, sizeof tag);
    cfsr_aead_key_destroy(made);
    cfsr_aead_key_destroy(derived);
    cfsr_mac_key_destroy(parent);
}

Test(aead, messages_allocate_nothing)
{
    static uint8_t body[1 << 20];
    uint8_t secret[32] = {1}, nonce[12] = {0}, parts[224] = {0}, tag[16];
    const struct cfsr_mac_part part = {parts, sizeof parts};
    struct cfsr_aead_key *seals = make_key(CFSR_AEAD_SEALS, secret);
    struct cfsr_aead_key *opens = make_key(CFSR_AEAD_OPENS, secret);

    cr_assert_eq(hooked, 1);
    cr_assert_gt(allocations, 0, "the count counts");
    unsigned before = allocations;
    for (uint8_t i = 0; i < 8; i++) {
        size_t len = sizeof body >> i;
        nonce[11] = i;
        cfsr_aead_seal(seals, nonce, &part, 1, body, len, body, tag);
        cr_assert(cfsr_aead_open(opens, nonce, &part, 1, body, len, tag));
    }
    cr_assert_eq(allocations, before);
    cfsr_aead_key_destroy(seals);
    cfsr_aead_key_destroy(opens);
}
