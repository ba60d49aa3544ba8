/*
 * keyring.c - the key file: reading, making, and choosing keys.
 *
 * Thread: a loaded keyring is read-only and may be used by any thread; loading and making block on
 * the disk and belong to start-up or the control thread. Invariants: file text and secrets are only
 * ever in guarded memory; entries are read-only once loaded. Rejected: a default key when no entry
 * fits the pair - no key means no link.
 */
#include "security/keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "base/fail.h"
#include "security/keyring_internal.h"

#define FILE_MAX_LEN_BYTES (256u << 10) /* about 3,000 keys: 64 sites need 2,016 pairs */
#define TEXT_LEN_BYTES     256          /* of a generated file */

struct cfsr_keyring {
    struct cfsr_keyring_entry *entries; /* guarded */
    unsigned count;
};

/* Opens and checks what needs no reading. Size to *len_out. Returns the descriptor. */
static int open_checked(const char *path, size_t *len_out)
{
    struct stat status;
    int rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang the start */

    if (fd < 0)
        return cfsr_fail(-errno, "cannot open key file %s: %s", path, cfsr_strerror(-errno));
    if (fstat(fd, &status) < 0) {
        rc = cfsr_fail(-errno, "cannot stat key file %s: %s", path, cfsr_strerror(-errno));
    } else if (!S_ISREG(status.st_mode)) {
        rc = cfsr_fail(-CFSR_E_FORMAT, "key file %s is not a regular file", path);
    } else if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        rc = cfsr_fail(-EACCES, "key file %s has mode %04o, open to others: run 'chmod 600 %s'",
                       path, (unsigned)status.st_mode & 07777u, path);
    } else if (status.st_size > (off_t)FILE_MAX_LEN_BYTES) {
        rc = cfsr_fail(-CFSR_E_FORMAT, "key file %s is larger than %u bytes", path,
                       FILE_MAX_LEN_BYTES);
    } else {
        *len_out = (size_t)status.st_size;
        return fd;
    }
    close(fd);
    return rc;
}

static int read_all(int fd, const char *path, char *text_out, size_t len_bytes)
{
    size_t done = 0;

    while (done < len_bytes) {
        ssize_t got = read(fd, text_out + done, len_bytes - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return cfsr_fail(-errno, "cannot read key file %s: %s", path, cfsr_strerror(-errno));
        if (got == 0)
            return cfsr_fail(-CFSR_E_FORMAT, "key file %s shrank while it was read", path);
        done += (size_t)got;
    }
    text_out[len_bytes] = '\0';
    return 0;
}

static int load_text(const char *path, char **text_out, size_t *len_out)
{
    size_t len_bytes = 0;
    char *text;
    int rc;
    int fd = open_checked(path, &len_bytes);

    if (fd < 0)
        return fd;
    text = sodium_malloc(len_bytes + 1);
    if (text == NULL)
        rc = cfsr_fail(-ENOMEM, "no guarded memory to read key file %s", path);
    else
        rc = read_all(fd, path, text, len_bytes);
    close(fd);
    if (rc < 0) {
        sodium_free(text);
        return rc;
    }
    *text_out = text;
    *len_out = len_bytes;
    return 0;
}

int cfsr_keyring_load(const char *path, struct cfsr_keyring **keyring_out)
{
    struct cfsr_keyring *keyring;
    size_t len_bytes;
    size_t bound;
    char *text;
    int rc;

    rc = cfsr_security_init();
    if (rc < 0)
        return rc;
    rc = load_text(path, &text, &len_bytes);
    if (rc < 0)
        return rc;
    keyring = calloc(1, sizeof *keyring);
    if (keyring == NULL) {
        rc = cfsr_fail(-ENOMEM, "no memory for the keys of %s", path);
        goto free_text;
    }
    bound = cfsr_keyring_parse_bound(len_bytes);
    keyring->entries = sodium_allocarray(bound, sizeof *keyring->entries);
    if (keyring->entries == NULL) {
        rc = cfsr_fail(-ENOMEM, "no guarded memory for the keys of %s", path);
        goto free_keyring;
    }
    rc = cfsr_keyring_parse(path, text, len_bytes, keyring->entries);
    if (rc < 0)
        goto free_entries;
    keyring->count = (unsigned)rc;
    (void)sodium_mprotect_readonly(keyring->entries); /* a second line of defence only */
    sodium_free(text);
    *keyring_out = keyring;
    return 0;

free_entries:
    sodium_free(keyring->entries);
free_keyring:
    free(keyring);
free_text:
    sodium_free(text);
    return rc;
}

void cfsr_keyring_destroy(struct cfsr_keyring *keyring)
{
    if (keyring == NULL)
        return;
    sodium_free(keyring->entries); /* wipes */
    free(keyring);
}

static int write_synced(int fd, const char *path, const char *text, size_t len_bytes)
{
    size_t done = 0;

    if (fchmod(fd, S_IRUSR | S_IWUSR) < 0) /* whatever the umask took away */
        return cfsr_fail(-errno, "cannot set the mode of %s: %s", path, cfsr_strerror(-errno));
    while (done < len_bytes) {
        ssize_t put = write(fd, text + done, len_bytes - done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return cfsr_fail(-errno, "cannot write key file %s: %s", path, cfsr_strerror(-errno));
        done += (size_t)put;
    }
    if (fsync(fd) < 0)
        return cfsr_fail(-errno, "cannot sync key file %s: %s", path, cfsr_strerror(-errno));
    return 0;
}

/* Makes the new name durable. */
static int sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    int rc = 0;
    char *parent;
    int fd;

    if (slash == NULL)
        parent = strdup(".");
    else
        parent = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (parent == NULL)
        return cfsr_fail(-ENOMEM, "no memory for the folder name of %s", path);
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        rc = cfsr_fail(-errno, "cannot sync the folder %s: %s", parent, cfsr_strerror(-errno));
    if (fd >= 0)
        close(fd);
    free(parent);
    return rc;
}

/* Text of a new keyring with one random key; its length. */
static size_t make_text(char text_out[TEXT_LEN_BYTES])
{
    uint8_t secret[CFSR_KEY_LEN_BYTES];
    char digits[2 * CFSR_KEY_LEN_BYTES + 1];
    int len;

    cfsr_random_bytes(secret, sizeof secret);
    sodium_bin2hex(digits, sizeof digits, secret, sizeof secret);
    len = snprintf(text_out, TEXT_LEN_BYTES,
                   "cfs-repl-keyring 1\n"
                   "# key ID KIND SITES SECRET - the same line at every site of the cluster\n"
                   "key 1 site-pair * %s\n",
                   digits);
    cfsr_wipe(secret, sizeof secret);
    cfsr_wipe(digits, sizeof digits);
    return (size_t)len;
}

int cfsr_keyring_generate(const char *path)
{
    char *text;
    int rc;
    int fd;

    rc = cfsr_security_init();
    if (rc < 0)
        return rc;
    text = sodium_malloc(TEXT_LEN_BYTES);
    if (text == NULL)
        return cfsr_fail(-ENOMEM, "no guarded memory for a new key");
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0 && errno == EEXIST) {
        rc = cfsr_fail(-EEXIST, "key file %s exists and is not overwritten: choose another name",
                       path);
        goto free_text;
    }
    if (fd < 0) {
        rc = cfsr_fail(-errno, "cannot create key file %s: %s", path, cfsr_strerror(-errno));
        goto free_text;
    }
    rc = write_synced(fd, path, text, make_text(text));
    if (close(fd) < 0 && rc == 0)
        rc = cfsr_fail(-errno, "cannot close key file %s: %s", path, cfsr_strerror(-errno));
    if (rc == 0)
        rc = sync_parent(path);
    if (rc < 0)
        unlink(path); /* ours: O_EXCL made it */

free_text:
    sodium_free(text);
    return rc;
}

static bool serves(const struct cfsr_keyring_entry *entry, uint64_t site_a, uint64_t site_b)
{
    if (entry->site_low == 0)
        return true;
    return (entry->site_low == site_a && entry->site_high == site_b) ||
           (entry->site_low == site_b && entry->site_high == site_a);
}

uint32_t cfsr_keyring_signing_key(const struct cfsr_keyring *keyring, uint64_t site_a,
                                  uint64_t site_b)
{
    uint32_t highest = 0;

    for (unsigned i = 0; i < keyring->count; i++) {
        if (serves(&keyring->entries[i], site_a, site_b) && keyring->entries[i].id > highest)
            highest = keyring->entries[i].id;
    }
    return highest;
}

int cfsr_keyring_open_key(const struct cfsr_keyring *keyring, uint32_t key_id, uint64_t site_a,
                          uint64_t site_b, struct cfsr_mac_key **key_out)
{
    for (unsigned i = 0; i < keyring->count; i++) {
        if (keyring->entries[i].id == key_id && serves(&keyring->entries[i], site_a, site_b))
            return cfsr_mac_key_create(keyring->entries[i].secret, key_out);
    }
    return cfsr_fail(-CFSR_E_BAD_KEY,
                     "no key %u for the sites %llu and %llu: give both sites the same key line",
                     key_id, (unsigned long long)site_a, (unsigned long long)site_b);
}

unsigned cfsr_keyring_count(const struct cfsr_keyring *keyring)
{
    return keyring->count;
}
