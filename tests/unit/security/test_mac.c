/*
 * test_mac.c - HMAC-SHA256 against RFC 4231 and libsodium, key memory, derivation.
 *
 * Link with --wrap=sodium_memcmp, so that the compare can be counted.
 */
#include "security/mac.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static unsigned compares;

int __wrap_sodium_memcmp(const void *a, const void *b, size_t len_bytes);
int __real_sodium_memcmp(const void *a, const void *b, size_t len_bytes);

int __wrap_sodium_memcmp(const void *a, const void *b, size_t len_bytes)
{
    compares++;
    return __real_sodium_memcmp(a, b, len_bytes);
}

static void set_up(void)
{
    cr_assert_eq(cfsr_security_init(), 0);
}

TestSuite(mac, .init = set_up);

static struct cfsr_mac_key *make_key(uint8_t fill)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    struct cfsr_mac_key *key = NULL;

    memset(secret, fill, sizeof secret);
    cr_assert_eq(cfsr_mac_key_create(secret, &key), 0);
    return key;
}

static void tag_of(struct cfsr_mac_key *key, const void *data, size_t len_bytes, uint8_t tag[32])
{
    struct cfsr_mac_part part = {.data = data, .len_bytes = len_bytes};

    cfsr_mac_compute(key, &part, 1, tag);
}

/*
 * Keys of RFC 4231 shorter than a block are padded with zeros by HMAC itself, so a shorter key
 * followed by zeros up to 32 bytes is the same key. Cases 6 and 7 have 131-byte keys: their hash is
 * the key (RFC 2104).
 */
struct vector {
    const char *key;
    const char *data;
    const char *tag;
};

static const struct vector vectors[] = {
    {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    {"4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
     "ddddd"
     "dd",
     "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
    {"0102030405060708090a0b0c0d0e0f10111213141516171819",
     "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdc"
     "dcdcd"
     "cd",
     "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
};

static size_t from_hex(uint8_t *out, size_t capacity_bytes, const char *hex)
{
    size_t len_bytes = 0;

    cr_assert_eq(sodium_hex2bin(out, capacity_bytes, hex, strlen(hex), NULL, &len_bytes, NULL), 0);
    return len_bytes;
}

Test(mac, agrees_with_rfc_4231_short_keys)
{
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint8_t secret[CFSR_KEY_LEN_BYTES] = {0};
        uint8_t data[64];
        uint8_t expected[32];
        uint8_t tag[32];
        struct cfsr_mac_key *key;

        from_hex(secret, sizeof secret, vectors[i].key);
        from_hex(expected, sizeof expected, vectors[i].tag);
        cr_assert_eq(cfsr_mac_key_create(secret, &key), 0);
        tag_of(key, data, from_hex(data, sizeof data, vectors[i].data), tag);
        cr_assert_arr_eq(tag, expected, 32, "vector %zu", i);
        cfsr_mac_key_destroy(key);
    }
}

static void check_long_key(const char *data, const char *expected_hex)
{
    uint8_t long_key[131];
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    uint8_t expected[32];
    uint8_t tag[32];
    struct cfsr_mac_key *key;

    memset(long_key, 0xaa, sizeof long_key);
    crypto_hash_sha256(secret, long_key, sizeof long_key);
    from_hex(expected, sizeof expected, expected_hex);
    cr_assert_eq(cfsr_mac_key_create(secret, &key), 0);
    tag_of(key, data, strlen(data), tag);
    cr_assert_arr_eq(tag, expected, 32);
    cfsr_mac_key_destroy(key);
}

Test(mac, agrees_with_rfc_4231_long_keys)
{
    check_long_key("Test Using Larger Than Block-Size Key - Hash Key First",
                   "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    check_long_key("This is a test using a larger than block-size key and a larger than block-size "
                   "data. The key needs to be hashed before being used by the HMAC algorithm.",
                   "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

Test(mac, agrees_with_libsodium_for_every_length)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    uint8_t data[700];
    struct cfsr_mac_key *key;

    randombytes_buf(secret, sizeof secret);
    randombytes_buf(data, sizeof data);
    cr_assert_eq(cfsr_mac_key_create(secret, &key), 0);
    for (size_t len = 0; len <= sizeof data; len++) {
        uint8_t expected[32];
        uint8_t tag[32];

        crypto_auth_hmacsha256(expected, data, len, secret);
        tag_of(key, data, len, tag);
        cr_assert_arr_eq(tag, expected, 32, "length %zu", len);
    }
    cfsr_mac_key_destroy(key);
}

Test(mac, parts_are_their_concatenation)
{
    struct cfsr_mac_key *key = make_key(7);
    uint8_t data[300];
    uint8_t whole[32];
    uint8_t pieces[32];

    randombytes_buf(data, sizeof data);
    tag_of(key, data, sizeof data, whole);
    for (size_t cut = 0; cut <= sizeof data; cut += 13) {
        struct cfsr_mac_part parts[] = {{data, cut}, {NULL, 0}, {data + cut, sizeof data - cut}};

        cfsr_mac_compute(key, parts, 3, pieces);
        cr_assert_arr_eq(pieces, whole, 32);
    }
    cfsr_mac_key_destroy(key);
}

Test(mac, no_part_is_the_empty_message)
{
    struct cfsr_mac_key *key = make_key(7);
    uint8_t none[32];
    uint8_t empty[32];

    cfsr_mac_compute(key, NULL, 0, none);
    tag_of(key, "", 0, empty);
    cr_assert_arr_eq(none, empty, 32);
    cfsr_mac_key_destroy(key);
}

Test(mac, verify_refuses_every_flipped_bit_of_the_tag)
{
    struct cfsr_mac_key *key = make_key(9);
    struct cfsr_mac_part part = {"message", 7};
    uint8_t tag[32];

    cfsr_mac_compute(key, &part, 1, tag);
    cr_assert(cfsr_mac_verify(key, &part, 1, tag));
    for (unsigned bit = 0; bit < 256; bit++) {
        tag[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_not(cfsr_mac_verify(key, &part, 1, tag));
        tag[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cfsr_mac_key_destroy(key);
}

Test(mac, verify_compares_in_constant_time)
{
    struct cfsr_mac_key *key = make_key(9);
    uint8_t tag[32] = {0};

    compares = 0;
    cr_assert_not(cfsr_mac_verify(key, NULL, 0, tag));
    cr_assert_eq(compares, 1);
    cfsr_mac_key_destroy(key);
}

/* The permissions of the page in /proc/self/maps; "" if nothing is mapped there. */
static void permissions_of(const void *address, char text_out[5])
{
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long from;
    unsigned long to;
    char permissions[5];
    char line[512];

    cr_assert_not_null(maps);
    text_out[0] = '\0';
    while (fgets(line, sizeof line, maps) != NULL) {
        if (sscanf(line, "%lx-%lx %4s", &from, &to, permissions) == 3 &&
            (uintptr_t)address >= from && (uintptr_t)address < to)
            memcpy(text_out, permissions, 5);
    }
    fclose(maps);
}

Test(mac, key_memory_is_read_only_between_guard_pages)
{
    struct cfsr_mac_key *key = make_key(3);
    char permissions[5];

    permissions_of(key, permissions);
    cr_assert_str_eq(permissions, "r--p");
    permissions_of((char *)key + 4096, permissions);
    cr_assert_str_eq(permissions, "---p");
    cfsr_mac_key_destroy(key);
}

Test(mac, key_memory_does_not_hold_the_secret)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    struct cfsr_mac_key *key;

    randombytes_buf(secret, sizeof secret);
    cr_assert_eq(cfsr_mac_key_create(secret, &key), 0);
    /* The object ends at the end of its page. */
    cr_assert_null(memmem(key, 4096 - ((uintptr_t)key & 4095), secret, 8));
    cfsr_mac_key_destroy(key);
}

Test(mac, destroyed_key_is_gone)
{
    struct cfsr_mac_key *key = make_key(3);
    unsigned char resident;

    cfsr_mac_key_destroy(key);
    cr_assert_eq(mincore((void *)((uintptr_t)key & ~(uintptr_t)4095), 4096, &resident), -1);
    cr_assert_eq(errno, ENOMEM);
    cfsr_mac_key_destroy(NULL);
}

Test(mac, wipe_zeroes_exactly_the_range)
{
    uint8_t data[48];

    memset(data, 0xee, sizeof data);
    cfsr_wipe(data + 8, 32);
    cfsr_wipe(NULL, 0);
    for (unsigned i = 0; i < sizeof data; i++)
        cr_assert_eq(data[i], i >= 8 && i < 40 ? 0 : 0xee);
}

Test(mac, derive_is_hmac_of_label_zero_and_parts)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    uint8_t input[] = "label\0part";
    uint8_t sub_secret[32];
    uint8_t expected[32];
    uint8_t tag[32];
    struct cfsr_mac_part part = {"part", 4};
    struct cfsr_mac_key *parent = make_key(5);
    struct cfsr_mac_key *child;

    memset(secret, 5, sizeof secret);
    crypto_auth_hmacsha256(sub_secret, input, sizeof input - 1, secret);
    crypto_auth_hmacsha256(expected, (const uint8_t *)"x", 1, sub_secret);
    cr_assert_eq(cfsr_mac_key_derive(parent, "label", &part, 1, &child), 0);
    tag_of(child, "x", 1, tag);
    cr_assert_arr_eq(tag, expected, 32);
    cfsr_mac_key_destroy(child);
    cfsr_mac_key_destroy(parent);
}

Test(mac, derive_separates_labels_and_parts)
{
    static const struct {
        const char *label;
        const char *part;
    } uses[] = {{"cfsr batch 1", "ab"},
                {"cfsr session 1", "ab"},
                {"cfsr batch 1", "ba"},
                {"cfsr batch 1", ""},
                {"cfsr batch 1a", "b"}};
    struct cfsr_mac_key *parent = make_key(5);
    uint8_t tags[5][32];

    for (unsigned i = 0; i < 5; i++) {
        struct cfsr_mac_part part = {uses[i].part, strlen(uses[i].part)};
        struct cfsr_mac_key *child;

        cr_assert_eq(cfsr_mac_key_derive(parent, uses[i].label, &part, 1, &child), 0);
        tag_of(child, "x", 1, tags[i]);
        cfsr_mac_key_destroy(child);
        for (unsigned k = 0; k < i; k++)
            cr_assert_neq(memcmp(tags[i], tags[k], 32), 0);
    }
    cfsr_mac_key_destroy(parent);
}

static void *run_init(void *unused)
{
    (void)unused;
    return (void *)(intptr_t)cfsr_security_init();
}

Test(mac, init_is_idempotent_and_thread_safe)
{
    pthread_t threads[4];

    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, run_init, NULL), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *rc;

        pthread_join(threads[i], &rc);
        cr_assert_null(rc);
    }
}

Test(mac, random_bytes_differ)
{
    uint8_t a[32] = {0};
    uint8_t b[32] = {0};

    cfsr_random_bytes(a, sizeof a);
    cfsr_random_bytes(b, sizeof b);
    cr_assert_neq(memcmp(a, b, sizeof a), 0);
}

Test(mac, versions_name_the_libraries)
{
    cr_assert_not_null(strstr(cfsr_security_versions(), "OpenSSL 3"));
    cr_assert_not_null(strstr(cfsr_security_versions(), "libsodium 1"));
}
