/*
 * test_batch_auth.c - what a batch tag and a body digest accept and refuse, keys and their rotation
 * included.
 *
 * Link with --wrap=sodium_memcmp, so that the compare can be counted.
 */
#include <cfsrepl/error.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"
#include "security/keyring.h"

#define BODY_RECORDS 60
#define KEY_ID       3

static unsigned compares;

int __wrap_sodium_memcmp(const void *a, const void *b, size_t len_bytes);
int __real_sodium_memcmp(const void *a, const void *b, size_t len_bytes);

int __wrap_sodium_memcmp(const void *a, const void *b, size_t len_bytes)
{
    compares++;
    return __real_sodium_memcmp(a, b, len_bytes);
}

/* One signed batch with two holes. */
static struct cfsr_batch_codec *codec;
static struct cfsr_mac_key *key;
static struct cfsr_batch_header header;
static uint8_t prefix[CFSR_BATCH_PREFIX_BYTES];
static uint8_t extension[2 * CFSR_BATCH_HOLE_BYTES];
static uint8_t raw[BODY_RECORDS * RECORD_LEN_BYTES];
static uint8_t body[sizeof raw];

static void set_up(void)
{
    codec = make_codec("lz4");
    key = make_key(1);
    header = make_header();
    for (unsigned i = 0; i < sizeof extension; i++)
        extension[i] = (uint8_t)i;
    make_records(raw, BODY_RECORDS);
    cr_assert_eq(cfsr_batch_encode(codec, raw, sizeof raw, body, sizeof body, &header), 0);
    cfsr_batch_header_store(&header, prefix);
    cfsr_batch_sign(key, KEY_ID, prefix, extension, sizeof extension);
}

static void tear_down(void)
{
    cfsr_mac_key_destroy(key);
    cfsr_batch_codec_destroy(codec);
}

TestSuite(batch_auth, .init = set_up, .fini = tear_down);

static int check_tag(struct cfsr_mac_key *with)
{
    return cfsr_batch_check_tag(with, prefix, extension, sizeof extension);
}

Test(batch_auth, sign_verify_roundtrip)
{
    struct cfsr_batch_header loaded;

    cr_assert_eq(check_tag(key), 0);
    cr_assert_eq(cfsr_batch_header_load(prefix, &loaded), 0);
    cr_assert_eq(loaded.key_id, KEY_ID);
    cr_assert_eq(cfsr_batch_check_body(codec, &loaded, body), 0);
}

Test(batch_auth, sign_verify_without_extension)
{
    header.hole_count = 0;
    header.extension_bytes = 0;
    cfsr_batch_header_store(&header, prefix);
    cfsr_batch_sign(key, KEY_ID, prefix, NULL, 0);
    cr_assert_eq(cfsr_batch_check_tag(key, prefix, NULL, 0), 0);
}

Test(batch_auth, signing_is_deterministic)
{
    uint8_t first[sizeof prefix];

    memcpy(first, prefix, sizeof first);
    cfsr_batch_sign(key, KEY_ID, prefix, extension, sizeof extension);
    cr_assert_arr_eq(prefix, first, sizeof first);
}

Test(batch_auth, every_bit_of_the_signed_header_counts)
{
    for (unsigned bit = 0; bit < 8 * CFSR_BATCH_SIGNED_BYTES; bit++) {
        prefix[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(check_tag(key), -CFSR_E_BAD_TAG, "bit %u", bit);
        prefix[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert_eq(check_tag(key), 0);
}

Test(batch_auth, every_bit_of_the_tag_counts)
{
    for (unsigned bit = 8 * CFSR_BATCH_TAG_OFFSET; bit < 8 * CFSR_BATCH_PREFIX_BYTES; bit++) {
        prefix[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(check_tag(key), -CFSR_E_BAD_TAG);
        prefix[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(batch_auth, every_byte_of_the_extension_counts)
{
    for (unsigned i = 0; i < sizeof extension; i++) {
        extension[i] ^= 0x10;
        cr_assert_eq(check_tag(key), -CFSR_E_BAD_TAG);
        extension[i] ^= 0x10;
    }
}

Test(batch_auth, cut_or_missing_extension_is_refused)
{
    for (unsigned len = 0; len < sizeof extension; len++)
        cr_assert_eq(cfsr_batch_check_tag(key, prefix, extension, len), -CFSR_E_BAD_TAG);
}

Test(batch_auth, every_byte_of_the_body_counts)
{
    for (uint32_t i = 0; i < header.stored_bytes; i++) {
        body[i] ^= 0x01;
        cr_assert_eq(cfsr_batch_check_body(codec, &header, body), -CFSR_E_BAD_DIGEST);
        body[i] ^= 0x01;
    }
    cr_assert_eq(cfsr_batch_check_body(codec, &header, body), 0);
}

Test(batch_auth, large_body_flips_are_refused)
{
    static uint8_t noise[67000];
    static uint8_t large[67000];

    cfsr_random_bytes(noise, sizeof noise);
    cr_assert_eq(cfsr_batch_encode(codec, noise, sizeof noise, large, sizeof large, &header), 0);
    cr_assert_eq(header.stored_bytes, 67000);
    for (uint32_t i = 0; i < 67000; i += 997) {
        large[i] ^= 0x80;
        cr_assert_eq(cfsr_batch_check_body(codec, &header, large), -CFSR_E_BAD_DIGEST);
        large[i] ^= 0x80;
    }
    header.stored_bytes--;
    cr_assert_eq(cfsr_batch_check_body(codec, &header, large), -CFSR_E_BAD_DIGEST);
}

Test(batch_auth, wrong_key_is_refused)
{
    struct cfsr_mac_key *other = make_key(2);

    cr_assert_eq(check_tag(other), -CFSR_E_BAD_TAG);
    cfsr_mac_key_destroy(other);
}

Test(batch_auth, key_one_bit_off_is_refused)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];

    for (unsigned bit = 0; bit < 8 * sizeof secret; bit++) {
        struct cfsr_mac_key *other;

        memset(secret, 1, sizeof secret);
        secret[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(cfsr_mac_key_create(secret, &other), 0);
        cr_assert_eq(check_tag(other), -CFSR_E_BAD_TAG);
        cfsr_mac_key_destroy(other);
    }
}

Test(batch_auth, key_id_is_bound_by_the_tag)
{
    cfsr_store_le32(prefix + 68, KEY_ID + 1);
    cr_assert_eq(check_tag(key), -CFSR_E_BAD_TAG);
}

Test(batch_auth, copies_for_two_destinations_differ_only_in_key_id_and_tag)
{
    struct cfsr_mac_key *other = make_key(2);
    uint8_t copy[sizeof prefix];

    memcpy(copy, prefix, sizeof copy);
    cfsr_batch_sign(other, 9, copy, extension, sizeof extension);
    for (unsigned i = 0; i < CFSR_BATCH_TAG_OFFSET; i++)
        cr_assert(copy[i] == prefix[i] || (i >= 68 && i < 72));
    cr_assert_neq(memcmp(copy + CFSR_BATCH_TAG_OFFSET, prefix + CFSR_BATCH_TAG_OFFSET, 32), 0);
    cr_assert_eq(cfsr_batch_check_tag(other, copy, extension, sizeof extension), 0);
    cr_assert_eq(cfsr_batch_check_tag(key, copy, extension, sizeof extension), -CFSR_E_BAD_TAG);
    cfsr_mac_key_destroy(other);
}

Test(batch_auth, body_of_another_batch_is_refused)
{
    raw[10] ^= 1;
    struct cfsr_batch_header other = header;

    cr_assert_eq(cfsr_batch_encode(codec, raw, sizeof raw, body, sizeof body, &other), 0);
    cr_assert_eq(cfsr_batch_check_body(codec, &header, body), -CFSR_E_BAD_DIGEST);
    cr_assert_eq(cfsr_batch_check_body(codec, &other, body), 0);
}

Test(batch_auth, tag_is_hmac_of_header_and_extension)
{
    crypto_auth_hmacsha256_state state;
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    uint8_t expected[CFSR_TAG_LEN_BYTES];

    memset(secret, 1, sizeof secret);
    crypto_auth_hmacsha256_init(&state, secret, sizeof secret);
    crypto_auth_hmacsha256_update(&state, prefix, CFSR_BATCH_SIGNED_BYTES);
    crypto_auth_hmacsha256_update(&state, extension, sizeof extension);
    crypto_auth_hmacsha256_final(&state, expected);
    cr_assert_arr_eq(prefix + CFSR_BATCH_TAG_OFFSET, expected, sizeof expected);
}

Test(batch_auth, agrees_with_libsodium)
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    uint8_t message[200];

    for (unsigned i = 0; i < 100; i++) {
        struct cfsr_mac_part part = {message, i * 2};
        struct cfsr_mac_key *random_key;
        uint8_t expected[32];
        uint8_t tag[32];

        cfsr_random_bytes(secret, sizeof secret);
        cfsr_random_bytes(message, sizeof message);
        cr_assert_eq(cfsr_mac_key_create(secret, &random_key), 0);
        cfsr_mac_compute(random_key, &part, 1, tag);
        crypto_auth_hmacsha256(expected, message, i * 2, secret);
        cr_assert_arr_eq(tag, expected, 32);
        cfsr_mac_key_destroy(random_key);
    }
}

Test(batch_auth, agrees_with_rfc_4231_case_2)
{
    static const uint8_t expected[32] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e,
                                         0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7,
                                         0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83,
                                         0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43};
    uint8_t secret[CFSR_KEY_LEN_BYTES] = "Jefe";
    struct cfsr_mac_part part = {"what do ya want for nothing?", 28};
    struct cfsr_mac_key *jefe;

    cr_assert_eq(cfsr_mac_key_create(secret, &jefe), 0);
    cr_assert(cfsr_mac_verify(jefe, &part, 1, expected));
    cfsr_mac_key_destroy(jefe);
}

Test(batch_auth, tag_is_compared_in_constant_time)
{
    compares = 0;
    cr_assert_eq(check_tag(key), 0);
    cr_assert_eq(compares, 1);
    prefix[CFSR_BATCH_TAG_OFFSET] ^= 1;
    cr_assert_eq(check_tag(key), -CFSR_E_BAD_TAG);
    cr_assert_eq(compares, 2);
}

Test(batch_auth, derived_keys_are_separate)
{
    struct cfsr_mac_key *batch_key;
    struct cfsr_mac_key *session_key;

    cr_assert_eq(cfsr_mac_key_derive(key, "cfsr batch 1", NULL, 0, &batch_key), 0);
    cr_assert_eq(cfsr_mac_key_derive(key, "cfsr session 1", NULL, 0, &session_key), 0);
    cfsr_batch_sign(batch_key, KEY_ID, prefix, extension, sizeof extension);
    cr_assert_eq(check_tag(batch_key), 0);
    cr_assert_eq(check_tag(session_key), -CFSR_E_BAD_TAG);
    cr_assert_eq(check_tag(key), -CFSR_E_BAD_TAG);
    cfsr_mac_key_destroy(session_key);
    cfsr_mac_key_destroy(batch_key);
}

Test(batch_auth, derivation_for_each_direction_is_separate)
{
    uint64_t there[2] = {1, 2};
    uint64_t back[2] = {2, 1};
    struct cfsr_mac_part part_there = {there, sizeof there};
    struct cfsr_mac_part part_back = {back, sizeof back};
    struct cfsr_mac_key *key_there;
    struct cfsr_mac_key *key_back;

    cr_assert_eq(cfsr_mac_key_derive(key, "cfsr batch 1", &part_there, 1, &key_there), 0);
    cr_assert_eq(cfsr_mac_key_derive(key, "cfsr batch 1", &part_back, 1, &key_back), 0);
    cfsr_batch_sign(key_there, KEY_ID, prefix, extension, sizeof extension);
    cr_assert_eq(check_tag(key_there), 0);
    cr_assert_eq(check_tag(key_back), -CFSR_E_BAD_TAG);
    cfsr_mac_key_destroy(key_back);
    cfsr_mac_key_destroy(key_there);
}

/* A keyring of the text, through a file in a folder of its own. */
static struct cfsr_keyring *keyring_of(const char *text)
{
    char folder[] = "/tmp/cfsr-batch-auth-XXXXXX";
    struct cfsr_keyring *keyring = NULL;
    char path[64];
    FILE *file;

    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/keys", folder);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(text, file), 0);
    fclose(file);
    cr_assert_eq(chmod(path, 0600), 0);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(folder), 0);
    return keyring;
}

#define SECRET_1 "1111111111111111111111111111111111111111111111111111111111111111"
#define SECRET_2 "2222222222222222222222222222222222222222222222222222222222222222"

Test(batch_auth, old_and_new_keys_verify_during_rotation)
{
    struct cfsr_keyring *old_ring = keyring_of("cfs-repl-keyring 1\nkey 1 site-pair * " SECRET_1);
    struct cfsr_keyring *both = keyring_of("cfs-repl-keyring 1\nkey 1 site-pair * " SECRET_1
                                           "\nkey 2 site-pair * " SECRET_2);
    struct cfsr_keyring *const senders[] = {old_ring, both};

    for (unsigned i = 0; i < 2; i++) {
        uint32_t id = cfsr_keyring_signing_key(senders[i], 1, 2);
        struct cfsr_mac_key *signer;
        struct cfsr_mac_key *verifier;

        cr_assert_eq(id, i + 1);
        cr_assert_eq(cfsr_keyring_open_key(senders[i], id, 1, 2, &signer), 0);
        cfsr_batch_sign(signer, id, prefix, extension, sizeof extension);
        cr_assert_eq(cfsr_keyring_open_key(both, cfsr_load_le32(prefix + 68), 2, 1, &verifier), 0);
        cr_assert_eq(check_tag(verifier), 0);
        cfsr_mac_key_destroy(verifier);
        cfsr_mac_key_destroy(signer);
    }
    cfsr_keyring_destroy(both);
    cfsr_keyring_destroy(old_ring);
}

Test(batch_auth, retired_key_is_unknown)
{
    struct cfsr_keyring *rotated = keyring_of("cfs-repl-keyring 1\nkey 2 site-pair * " SECRET_2);
    struct cfsr_mac_key *verifier = NULL;

    cr_assert_eq(cfsr_keyring_open_key(rotated, 1, 1, 2, &verifier), -CFSR_E_BAD_KEY);
    cr_assert_null(verifier);
    cfsr_keyring_destroy(rotated);
}

Test(batch_auth, same_id_with_another_secret_is_refused)
{
    struct cfsr_keyring *mine = keyring_of("cfs-repl-keyring 1\nkey 1 site-pair * " SECRET_1);
    struct cfsr_keyring *theirs = keyring_of("cfs-repl-keyring 1\nkey 1 site-pair * " SECRET_2);
    struct cfsr_mac_key *signer;
    struct cfsr_mac_key *verifier;

    cr_assert_eq(cfsr_keyring_open_key(theirs, 1, 1, 2, &signer), 0);
    cr_assert_eq(cfsr_keyring_open_key(mine, 1, 1, 2, &verifier), 0);
    cfsr_batch_sign(signer, 1, prefix, extension, sizeof extension);
    cr_assert_eq(check_tag(verifier), -CFSR_E_BAD_TAG);
    cfsr_mac_key_destroy(verifier);
    cfsr_mac_key_destroy(signer);
    cfsr_keyring_destroy(theirs);
    cfsr_keyring_destroy(mine);
}

Test(batch_auth, key_of_another_pair_cannot_be_opened)
{
    struct cfsr_keyring *ring = keyring_of("cfs-repl-keyring 1\nkey 1 site-pair 1,3 " SECRET_1
                                           "\nkey 2 site-pair 1,2 " SECRET_2);
    struct cfsr_mac_key *verifier = NULL;

    cr_assert_eq(cfsr_keyring_open_key(ring, 1, 1, 2, &verifier), -CFSR_E_BAD_KEY);
    cr_assert_eq(cfsr_keyring_signing_key(ring, 2, 3), 0);
    cfsr_keyring_destroy(ring);
}

Test(batch_auth, refusals_say_what_failed)
{
    struct cfsr_mac_key *other = make_key(2);

    cr_assert_eq(check_tag(other), -CFSR_E_BAD_TAG);
    cr_assert_not_null(strstr(cfsr_error_message(), "key 3"));
    body[0] ^= 1;
    cr_assert_eq(cfsr_batch_check_body(codec, &header, body), -CFSR_E_BAD_DIGEST);
    cr_assert_not_null(strstr(cfsr_error_message(), "digest"));
    cfsr_mac_key_destroy(other);
}
