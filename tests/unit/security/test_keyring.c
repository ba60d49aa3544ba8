/* test_keyring.c - the key file: what is read, what is refused and with which words. */
#include "security/keyring.h"

#include <cfsrepl/error.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER   "cfs-repl-keyring 1\n"
#define SECRET_A "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define SECRET_B "ffeeddccbbaa99887766554433221100FFEEDDCCBBAA99887766554433221100"

static char folder[64];
static char path[96];

static void set_up(void)
{
    snprintf(folder, sizeof folder, "/tmp/cfsr-keyring-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/keys", folder);
}

static void tear_down(void)
{
    unlink(path);
    rmdir(folder);
}

TestSuite(keyring, .init = set_up, .fini = tear_down);

static void write_bytes(const char *text, size_t len_bytes, mode_t mode)
{
    FILE *file = fopen(path, "w");

    cr_assert_not_null(file);
    cr_assert_eq(fwrite(text, 1, len_bytes, file), len_bytes);
    fclose(file);
    cr_assert_eq(chmod(path, mode), 0);
}

static struct cfsr_keyring *load_text(const char *text)
{
    struct cfsr_keyring *keyring = NULL;

    write_bytes(text, strlen(text), 0600);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), 0, "%s", cfsr_error_message());
    return keyring;
}

/* The text is refused as badly formed, with `words` in the message, which never shows a secret. */
static void check_refused(const char *text, const char *words)
{
    struct cfsr_keyring *keyring = NULL;

    write_bytes(text, strlen(text), 0600);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), -CFSR_E_FORMAT, "%s", text);
    cr_assert_null(keyring);
    cr_assert_not_null(strstr(cfsr_error_message(), words), "'%s' in '%s'", words,
                       cfsr_error_message());
    cr_assert_null(strstr(cfsr_error_message(), "0001020304"));
}

static void tag_of(const struct cfsr_keyring *keyring, uint32_t id, uint64_t a, uint64_t b,
                   uint8_t tag[32])
{
    struct cfsr_mac_part part = {"x", 1};
    struct cfsr_mac_key *key;

    cr_assert_eq(cfsr_keyring_open_key(keyring, id, a, b, &key), 0);
    cfsr_mac_compute(key, &part, 1, tag);
    cfsr_mac_key_destroy(key);
}

Test(keyring, reads_comments_blank_lines_and_both_hex_cases)
{
    struct cfsr_keyring *keyring = load_text(HEADER "# a comment\n\n   \t\n"
                                                    "key 1 site-pair * " SECRET_A "   # old\r\n"
                                                    "\tkey  2\tsite-pair 2,1 " SECRET_B);

    cr_assert_eq(cfsr_keyring_count(keyring), 2);
    cfsr_keyring_destroy(keyring);
}

Test(keyring, opened_key_has_the_secret_of_the_file)
{
    struct cfsr_keyring *keyring = load_text(HEADER "key 7 site-pair * " SECRET_A "\n");
    struct cfsr_mac_part part = {"x", 1};
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    struct cfsr_mac_key *key;
    uint8_t expected[32];
    uint8_t tag[32];

    for (unsigned i = 0; i < sizeof secret; i++)
        secret[i] = (uint8_t)i;
    cr_assert_eq(cfsr_mac_key_create(secret, &key), 0);
    cfsr_mac_compute(key, &part, 1, expected);
    cfsr_mac_key_destroy(key);
    tag_of(keyring, 7, 1, 2, tag);
    cr_assert_arr_eq(tag, expected, 32);
    cfsr_keyring_destroy(keyring);
}

Test(keyring, highest_id_signs_and_all_verify)
{
    struct cfsr_keyring *keyring = load_text(HEADER "key 5 site-pair 1,2 " SECRET_B "\n"
                                                    "key 9 site-pair 2,3 " SECRET_B "\n"
                                                    "key 4 site-pair * " SECRET_A "\n");
    uint8_t old_tag[32];
    uint8_t new_tag[32];

    cr_assert_eq(cfsr_keyring_signing_key(keyring, 1, 2), 5);
    cr_assert_eq(cfsr_keyring_signing_key(keyring, 2, 1), 5);
    cr_assert_eq(cfsr_keyring_signing_key(keyring, 3, 2), 9);
    cr_assert_eq(cfsr_keyring_signing_key(keyring, 8, 9), 4);
    tag_of(keyring, 4, 1, 2, old_tag);
    tag_of(keyring, 5, 1, 2, new_tag);
    cr_assert_neq(memcmp(old_tag, new_tag, 32), 0);
    cfsr_keyring_destroy(keyring);
}

Test(keyring, key_of_another_pair_is_bad_key)
{
    struct cfsr_keyring *keyring = load_text(HEADER "key 5 site-pair 1,2 " SECRET_A "\n");
    struct cfsr_mac_key *key = NULL;

    cr_assert_eq(cfsr_keyring_open_key(keyring, 5, 1, 3, &key), -CFSR_E_BAD_KEY);
    cr_assert_eq(cfsr_keyring_open_key(keyring, 5, 2, 2, &key), -CFSR_E_BAD_KEY);
    cr_assert_eq(cfsr_keyring_open_key(keyring, 6, 1, 2, &key), -CFSR_E_BAD_KEY);
    cr_assert_null(key);
    cr_assert_eq(cfsr_keyring_signing_key(keyring, 1, 3), 0);
    cfsr_keyring_destroy(keyring);
    cfsr_keyring_destroy(NULL);
}

Test(keyring, extreme_ids_are_taken)
{
    struct cfsr_keyring *keyring = load_text(
        HEADER "key 4294967295 site-pair 1,18446744073709551615 " SECRET_A "\n");

    cr_assert_eq(cfsr_keyring_signing_key(keyring, UINT64_MAX, 1), UINT32_MAX);
    cfsr_keyring_destroy(keyring);
}

Test(keyring, refuses_files_open_to_others)
{
    static const mode_t modes[] = {0644, 0640, 0604, 0620, 0610, 0666};
    struct cfsr_keyring *keyring = NULL;
    const char *text = HEADER "key 1 site-pair * " SECRET_A "\n";

    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        write_bytes(text, strlen(text), modes[i]);
        cr_assert_eq(cfsr_keyring_load(path, &keyring), -EACCES, "mode %o", modes[i]);
        cr_assert_not_null(strstr(cfsr_error_message(), "chmod 600"));
    }
    write_bytes(text, strlen(text), 0400);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), 0);
    cfsr_keyring_destroy(keyring);
}

Test(keyring, missing_file_and_folder_are_told_apart)
{
    struct cfsr_keyring *keyring = NULL;

    cr_assert_eq(cfsr_keyring_load(path, &keyring), -ENOENT);
    cr_assert_not_null(strstr(cfsr_error_message(), path));
    cr_assert_eq(chmod(folder, 0700), 0);
    cr_assert_eq(cfsr_keyring_load(folder, &keyring), -CFSR_E_FORMAT);
}

Test(keyring, refuses_other_files)
{
    check_refused("", ":1: not a key file");
    check_refused("\n" HEADER, ":1: not a key file");
    check_refused("hello\n", ":1: not a key file");
    check_refused("cfs-repl-keyring 2\n", ":1: key file version");
    check_refused(HEADER, "holds no key");
    check_refused(HEADER "# only this\n", "holds no key");
}

Test(keyring, bad_lines_are_named_by_number)
{
    check_refused(HEADER "\nkee 1 site-pair * " SECRET_A "\n", ":3: expected 'key");
    check_refused(HEADER "key 1 site-pair *\n", ":2: expected 'key");
    check_refused(HEADER "key 1 site-pair * " SECRET_A " more\n", ":2: expected 'key");
    check_refused(HEADER "#\n#\nkey 0 site-pair * " SECRET_A "\n", ":4: the key id");
    check_refused(HEADER "key 4294967296 site-pair * " SECRET_A "\n", ":2: the key id");
    check_refused(HEADER "key -1 site-pair * " SECRET_A "\n", ":2: the key id");
    check_refused(HEADER "key 1 link * " SECRET_A "\n", ":2: the kind");
}

Test(keyring, bad_sites_are_refused)
{
    check_refused(HEADER "key 1 site-pair 1 " SECRET_A "\n", ":2: the sites");
    check_refused(HEADER "key 1 site-pair 1,1 " SECRET_A "\n", ":2: the sites");
    check_refused(HEADER "key 1 site-pair 0,1 " SECRET_A "\n", ":2: the sites");
    check_refused(HEADER "key 1 site-pair 1,2,3 " SECRET_A "\n", ":2: the sites");
    check_refused(HEADER "key 1 site-pair 1, " SECRET_A "\n", ":2: the sites");
    check_refused(HEADER "key 1 site-pair a,b " SECRET_A "\n", ":2: the sites");
}

Test(keyring, bad_secrets_are_refused_and_never_shown)
{
    check_refused(HEADER "key 1 site-pair * 0001020304\n", ":2: the secret");
    check_refused(HEADER "key 1 site-pair * " SECRET_A "00\n", ":2: the secret");
    check_refused(HEADER "key 1 site-pair * "
                         "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1g\n",
                  ":2: the secret");
}

Test(keyring, duplicate_ids_are_refused)
{
    check_refused(HEADER "key 1 site-pair 1,2 " SECRET_A "\nkey 2 site-pair * " SECRET_A
                         "\nkey 1 site-pair 2,3 " SECRET_B "\n",
                  ":4: key id 1 is used twice");
}

Test(keyring, zero_bytes_and_huge_files_are_refused)
{
    static const char text[] = HEADER "key 1 site-pair * " SECRET_A "\n\0\n";
    struct cfsr_keyring *keyring = NULL;

    write_bytes(text, sizeof text - 1, 0600);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), -CFSR_E_FORMAT);
    cr_assert_eq(truncate(path, 1 << 20), 0);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), -CFSR_E_FORMAT);
    cr_assert_not_null(strstr(cfsr_error_message(), "larger"));
}

Test(keyring, many_keys_fit)
{
    struct cfsr_keyring *keyring = NULL;
    FILE *file = fopen(path, "w");

    cr_assert_not_null(file);
    fputs(HEADER, file);
    for (unsigned id = 1; id <= 2016; id++)
        fprintf(file, "key %u site-pair * " SECRET_A "\n", id);
    fclose(file);
    cr_assert_eq(chmod(path, 0600), 0);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), 0);
    cr_assert_eq(cfsr_keyring_count(keyring), 2016);
    cr_assert_eq(cfsr_keyring_signing_key(keyring, 1, 2), 2016);
    cfsr_keyring_destroy(keyring);
}

Test(keyring, generate_makes_a_file_that_loads)
{
    struct cfsr_keyring *keyring = NULL;
    struct stat status;
    mode_t mask = umask(0777);

    cr_assert_eq(cfsr_keyring_generate(path), 0);
    umask(mask);
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0600);
    cr_assert_eq(cfsr_keyring_load(path, &keyring), 0);
    cr_assert_eq(cfsr_keyring_count(keyring), 1);
    cr_assert_eq(cfsr_keyring_signing_key(keyring, 1, 2), 1);
    cfsr_keyring_destroy(keyring);
}

Test(keyring, generated_keys_differ)
{
    struct cfsr_keyring *keyring = NULL;
    uint8_t tags[2][32];

    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(cfsr_keyring_generate(path), 0);
        cr_assert_eq(cfsr_keyring_load(path, &keyring), 0);
        tag_of(keyring, 1, 1, 2, tags[i]);
        cfsr_keyring_destroy(keyring);
        cr_assert_eq(unlink(path), 0);
    }
    cr_assert_neq(memcmp(tags[0], tags[1], 32), 0);
}

Test(keyring, generate_never_overwrites)
{
    char text[16] = {0};
    FILE *file;

    write_bytes("precious", 8, 0600);
    cr_assert_eq(cfsr_keyring_generate(path), -EEXIST);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_assert_eq(fread(text, 1, sizeof text, file), 8);
    fclose(file);
    cr_assert_str_eq(text, "precious");
}

Test(keyring, generate_into_a_missing_folder_fails)
{
    char missing[128];

    snprintf(missing, sizeof missing, "%s/none/keys", folder);
    cr_assert_eq(cfsr_keyring_generate(missing), -ENOENT);
}
