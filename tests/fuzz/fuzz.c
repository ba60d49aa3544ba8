/*
 * fuzz.c - readers of inputs, builders of seeds, disks and sites for the fuzz targets (fuzz.h).
 *
 * Thread: one. Failures of the set-up abort: they are not what is looked for.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

_Noreturn void fuzz_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "%s:%d: property broken: %s\n", file, line, expression);
    abort();
}

const uint8_t *fuzz_bytes(struct fuzz_reader *reader, size_t want, size_t *got_out)
{
    const uint8_t *at = reader->at;

    *got_out = want < reader->left ? want : reader->left;
    reader->at += *got_out;
    reader->left -= *got_out;
    return at;
}

uint64_t fuzz_u64(struct fuzz_reader *reader)
{
    uint8_t bytes[8] = {0};
    size_t got;
    const uint8_t *at = fuzz_bytes(reader, sizeof bytes, &got);

    if (got > 0)
        memcpy(bytes, at, got);
    return cfsr_load_le64(bytes);
}

uint32_t fuzz_u32(struct fuzz_reader *reader)
{
    uint8_t bytes[4] = {0};
    size_t got;
    const uint8_t *at = fuzz_bytes(reader, sizeof bytes, &got);

    if (got > 0)
        memcpy(bytes, at, got);
    return cfsr_load_le32(bytes);
}

uint16_t fuzz_u16(struct fuzz_reader *reader)
{
    uint16_t low = fuzz_u8(reader);

    return (uint16_t)(low | fuzz_u8(reader) << 8);
}

uint8_t fuzz_u8(struct fuzz_reader *reader)
{
    if (reader->left == 0)
        return 0;
    reader->left--;
    return *reader->at++;
}

void *fuzz_copy(const void *data, size_t len_bytes)
{
    uint8_t *copy = malloc(len_bytes > 0 ? len_bytes : 1);

    FUZZ_CHECK(copy != NULL);
    if (len_bytes > 0)
        memcpy(copy, data, len_bytes);
    return copy;
}

void fuzz_seed_bytes(struct fuzz_seed *seed, const void *data, size_t len_bytes)
{
    if (seed->len_bytes + len_bytes > seed->capacity_bytes) {
        seed->capacity_bytes = (seed->len_bytes + len_bytes) * 2;
        seed->data = realloc(seed->data, seed->capacity_bytes);
        FUZZ_CHECK(seed->data != NULL);
    }
    if (len_bytes > 0)
        memcpy(seed->data + seed->len_bytes, data, len_bytes);
    seed->len_bytes += len_bytes;
}

void fuzz_seed_u8(struct fuzz_seed *seed, uint8_t value)
{
    fuzz_seed_bytes(seed, &value, 1);
}

void fuzz_seed_u16(struct fuzz_seed *seed, uint16_t value)
{
    uint8_t bytes[2];

    cfsr_store_le16(bytes, value);
    fuzz_seed_bytes(seed, bytes, sizeof bytes);
}

void fuzz_seed_u32(struct fuzz_seed *seed, uint32_t value)
{
    uint8_t bytes[4];

    cfsr_store_le32(bytes, value);
    fuzz_seed_bytes(seed, bytes, sizeof bytes);
}

void fuzz_seed_u64(struct fuzz_seed *seed, uint64_t value)
{
    uint8_t bytes[8];

    cfsr_store_le64(bytes, value);
    fuzz_seed_bytes(seed, bytes, sizeof bytes);
}

void fuzz_seed_end(struct fuzz_seed *seed, struct fuzz_corpus *corpus, const char *name)
{
    fuzz_corpus_add(corpus, name, seed->data, seed->len_bytes);
    free(seed->data);
    *seed = (struct fuzz_seed){0};
}

uint64_t fuzz_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct cfsr_fs *fuzz_disk(void)
{
    static const struct cfsr_fs_sim_options options = {.seed = 1, .capacity_bytes = 1ull << 30};
    struct cfsr_fs *fs;

    FUZZ_CHECK(cfsr_fs_sim_create(&options, &fs) == 0);
    return fs;
}

void fuzz_file_write(struct cfsr_fs *fs, const char *path, const void *data, size_t len_bytes)
{
    struct cfsr_file *file;

    FUZZ_CHECK(
        cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file) == 0);
    FUZZ_CHECK(cfsr_file_truncate(file, len_bytes) == 0);
    if (len_bytes > 0)
        FUZZ_CHECK(cfsr_file_pwrite(file, data, (uint32_t)len_bytes, 0, false) >= 0);
    cfsr_file_close(file);
}

uint8_t *fuzz_file_read(struct cfsr_fs *fs, const char *path, size_t *len_bytes_out)
{
    struct cfsr_file *file;
    uint64_t size;
    uint8_t *data;

    if (cfsr_file_open(fs, path, CFSR_OPEN_READ, &file) < 0)
        return NULL;
    FUZZ_CHECK(cfsr_file_size(file, &size) == 0);
    data = malloc((size_t)size + 1);
    FUZZ_CHECK(data != NULL && cfsr_file_pread(file, data, (uint32_t)size, 0) == (int)size);
    cfsr_file_close(file);
    *len_bytes_out = (size_t)size;
    return data;
}

void fuzz_site(struct cfsr_site *site_out, uint64_t site_id, uint32_t lanes, uint32_t shards,
               uint64_t segment_bytes)
{
    memset(site_out, 0, sizeof *site_out);
    for (unsigned i = 0; i < sizeof site_out->cluster.bytes; i++)
        site_out->cluster.bytes[i] = (uint8_t)(0x10 + i);
    memset(site_out->journal.bytes, (int)site_id, sizeof site_out->journal.bytes);
    site_out->site_id = site_id;
    site_out->lanes = lanes;
    site_out->shards = shards;
    site_out->segment_bytes = segment_bytes;
    (void)snprintf(site_out->shard_function, sizeof site_out->shard_function,
                   "parent-or-inode-mod");
    (void)snprintf(site_out->name, sizeof site_out->name, "site-%u", (unsigned)site_id);
    (void)snprintf(site_out->data_dir, sizeof site_out->data_dir, "/d");
}

void fuzz_site_directories(struct cfsr_fs *fs, const struct cfsr_site *site)
{
    static const char *const names[] = {"journal", "inbox"};
    char path[CFSR_PATH_MAX + 64];

    FUZZ_CHECK(fs->ops->mkdir(fs, site->data_dir) == 0);
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", site->data_dir, names[i]);
        FUZZ_CHECK(fs->ops->mkdir(fs, path) == 0);
        for (uint32_t lane = 0; lane < site->lanes; lane++) {
            (void)snprintf(path, sizeof path, "%s/%s/%02u", site->data_dir, names[i], lane);
            FUZZ_CHECK(fs->ops->mkdir(fs, path) == 0);
        }
    }
}

static char directory[256];

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    (void)remove(path);
    return 0;
}

static void remove_directory(void)
{
    (void)nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_directory(void)
{
    const char *base = getenv("TMPDIR");

    if (directory[0] != '\0')
        return directory;
    (void)snprintf(directory, sizeof directory, "%s/cfsr-fuzz-XXXXXX",
                   base != NULL ? base : "/tmp");
    FUZZ_CHECK(mkdtemp(directory) != NULL);
    FUZZ_CHECK(atexit(remove_directory) == 0);
    return directory;
}

const char *fuzz_memory_file(const void *data, size_t len_bytes)
{
    static char path[64];
    static int fd = -1;

    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        FUZZ_CHECK(fd >= 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0);
    FUZZ_CHECK(len_bytes == 0 || pwrite(fd, data, len_bytes, 0) == (ssize_t)len_bytes);
    return path;
}

struct cfsr_keyring *fuzz_keyring(const char *lines)
{
    char path[300];
    struct cfsr_keyring *keyring;
    int fd;

    (void)snprintf(path, sizeof path, "%s/key-XXXXXX", fuzz_directory());
    fd = mkstemp(path); /* mode 0600 */
    FUZZ_CHECK(fd >= 0 && dprintf(fd, "cfs-repl-keyring 1\n%s", lines) > 0);
    close(fd);
    FUZZ_CHECK(cfsr_keyring_load(path, &keyring) == 0);
    (void)unlink(path);
    return keyring;
}

bool fuzz_knows_1_and_2(void *user, uint64_t site_id)
{
    (void)user;
    return site_id == 1 || site_id == 2;
}

void fuzz_pair_init(struct fuzz_pair *pair)
{
    fuzz_pair_init_seal(pair, CFSR_SEAL_OFF);
}

void fuzz_pair_init_seal(struct fuzz_pair *pair, enum cfsr_seal seal)
{
    static uint8_t frame[CFSR_LINK_HEADER_BYTES + CFSR_CONTROL_MAX_BYTES];
    static struct cfsr_hello_ack ack;
    static const uint64_t ends[CFSR_LANES_MAX];
    uint8_t nonce[32];
    int len;

    FUZZ_CHECK(cfsr_security_init() == 0);
    memset(pair, 0, sizeof *pair);
    pair->keyring = fuzz_keyring("key 1 site-pair * "
                                 "000102030405060708090a0b0c0d0e0f"
                                 "101112131415161718191a1b1c1d1e1f\n");
    for (unsigned i = 0; i < 2; i++) {
        fuzz_site(&pair->site[i], i + 1, FUZZ_LANES, 256, 64ull << 20);
        pair->local[i] = (struct cfsr_session_local){.site = &pair->site[i],
                                                     .keyring = pair->keyring,
                                                     .features = CFSR_FEATURES_KNOWN,
                                                     .seal = seal,
                                                     .cores = 1,
                                                     .epoch = 1};
        memset(pair->local[i].session_id, 0xc3, sizeof pair->local[i].session_id);
    }
    memset(nonce, 0xa1, sizeof nonce);
    FUZZ_CHECK(cfsr_session_init(&pair->dialer, &pair->local[0], true, 2, nonce) == 0);
    memset(nonce, 0xb2, sizeof nonce);
    FUZZ_CHECK(cfsr_session_init(&pair->acceptor, &pair->local[1], false, 0, nonce) == 0);
    len = cfsr_session_hello(&pair->dialer, FUZZ_LANE_MASK, ends, 1000, frame);
    FUZZ_CHECK(len > 0 && cfsr_session_on_hello(&pair->acceptor, frame, (uint32_t)len,
                                                fuzz_knows_1_and_2, NULL) == 0);
    ack = (struct cfsr_hello_ack){.lane_mask = FUZZ_LANE_MASK, .wall_us = 2000};
    for (unsigned lane = 0; lane < FUZZ_LANES; lane++)
        ack.lane[lane].last.lsn = UINT64_MAX;
    len = cfsr_session_hello_ack(&pair->acceptor, &ack, frame);
    FUZZ_CHECK(len > 0 &&
               cfsr_session_on_hello_ack(&pair->dialer, frame, (uint32_t)len, &ack) == 0);
}
