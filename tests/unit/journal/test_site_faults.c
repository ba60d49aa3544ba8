/*
 * test_site_faults.c - the small files of a site when the disk, the memory or the file itself is
 * bad: DATA/cluster, segment headers, DATA/acks.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "core/file.h"
#include "journal/acks.h"
#include "journal/digest.h"
#include "journal/segment.h"
#include "journal/site.h"
#include "tests/unit/faults.h"
#include <cfsrepl/error.h>
#include <cfsrepl/payload.h>

static struct cfsr_fs *disk;

static struct cfsr_site site_of(const char *data_dir)
{
    struct cfsr_site site = {.site_id = 7,
                             .lanes = 2,
                             .shards = 16,
                             .segment_bytes = CFSR_SEGMENT_BYTES_MIN,
                             .shard_function = "parent-or-inode-mod",
                             .name = "site-a"};

    memset(site.cluster.bytes, 0xc1, 16);
    memset(site.journal.bytes, 0x1a, 16);
    (void)snprintf(site.data_dir, sizeof site.data_dir, "%s", data_dir);
    return site;
}

static void set_up(void)
{
    const struct cfsr_fs_sim_options options = {.seed = 1, .capacity_bytes = 64u << 20};

    cr_assert_eq(cfsr_fs_sim_create(&options, &disk), 0);
}

static void tear_down(void)
{
    cfsr_fs_sim_destroy(disk);
}

TestSuite(site_faults, .init = set_up, .fini = tear_down);

static void put_file(const char *path, const void *data, size_t len)
{
    struct cfsr_file *file;

    cr_assert_eq(
        cfsr_file_open(disk, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file), 0);
    cr_assert_eq(cfsr_file_truncate(file, len), 0);
    cr_assert_geq(cfsr_file_pwrite(file, data, (uint32_t)len, 0, false), 0);
    cfsr_file_close(file);
}

/* ---- cluster ---- */

/* Whatever call fails: no site, and the next try makes one. */
Test(site_faults, create_fails_at_every_call_and_then_succeeds)
{
    struct test_faults faults;
    struct cfsr_fs *fs = test_faults_init(&faults, disk);
    struct cfsr_site site = site_of("/a"), loaded;
    unsigned n = 1;

    for (;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_site_create(fs, &site);

        if (!faults.fired) {
            cr_assert_eq(rc, 0, "%s", cfsr_error_message());
            break;
        }
        cr_assert_eq(rc, -EIO, "call %u", n);
        test_faults_arm(&faults, 0, 0);
        rc = cfsr_site_load(fs, "/a", &loaded);
        if (rc == 0) { /* only the directory's sync was missing */
            cr_assert_eq(disk->ops->unlink(disk, "/a/cluster"), 0);
            continue;
        }
        cr_assert_eq(rc, -ENOENT, "call %u: %s", n, cfsr_error_message());
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    cr_assert_gt(n, 12);
    cr_assert_eq(cfsr_site_load(disk, "/a", &loaded), 0);
    cr_assert_eq(memcmp(&loaded, &site, sizeof site), 0);
}

Test(site_faults, load_passes_errors_on)
{
    struct test_faults faults;
    struct cfsr_fs *fs = test_faults_init(&faults, disk);
    struct cfsr_site site = site_of("/a"), loaded;
    char long_name[CFSR_PATH_MAX + 2];

    cr_assert_eq(cfsr_site_create(disk, &site), 0);
    for (unsigned n = 1; n <= 2; n++) {
        test_faults_arm(&faults, n, -EACCES);
        cr_assert_eq(cfsr_site_load(fs, "/a", &loaded), -EACCES);
        cr_assert_neq(strstr(cfsr_error_message(), "/a/cluster"), NULL);
    }
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    cr_assert_eq(cfsr_site_load(disk, long_name, &loaded), -ENAMETOOLONG);
    cr_assert_eq(cfsr_site_load(disk, "/nowhere", &loaded), -ENOENT);
    cr_assert_neq(strstr(cfsr_error_message(), "cfs-repl init"), NULL);
}

Test(site_faults, create_refuses_bad_sites_and_full_directories)
{
    struct cfsr_site good = site_of("/a"), site;

#define REFUSED(change)                                                       \
    do {                                                                      \
        site = good;                                                          \
        change;                                                               \
        cr_assert_eq(cfsr_site_create(disk, &site), -CFSR_E_CONFIG, #change); \
    } while (0)
    REFUSED(site.site_id = 0);
    REFUSED(site.site_id = UINT64_MAX);
    REFUSED(site.lanes = 0);
    REFUSED(site.lanes = 3);
    REFUSED(site.lanes = 128);
    REFUSED(site.shards = 1);
    REFUSED(site.shards = CFSR_SHARDS_MAX + 1);
    REFUSED(site.segment_bytes = CFSR_SEGMENT_BYTES_MIN - 4096);
    REFUSED(site.segment_bytes = CFSR_SEGMENT_BYTES_MAX + 4096);
    REFUSED(site.segment_bytes = CFSR_SEGMENT_BYTES_MIN + 8);
    REFUSED(site.name[0] = '\0');
    REFUSED(memset(site.name, 'a', sizeof site.name));
    REFUSED(site.name[1] = '/');
    REFUSED(site.shard_function[0] = 'x');
#undef REFUSED
    cr_assert_eq(cfsr_site_create(disk, &good), 0);
    char beside[CFSR_PATH_MAX + 8]; /* whatever the order in which the names are found */
    snprintf(beside, sizeof beside, "%s/acks", good.data_dir);
    put_file(beside, "x", 1);
    snprintf(beside, sizeof beside, "%s/zz", good.data_dir);
    put_file(beside, "x", 1);
    cr_assert_eq(cfsr_site_create(disk, &good), -EEXIST);
    cr_assert_eq(disk->ops->mkdir(disk, "/b"), 0);
    put_file("/b/somebody-elses", "x", 1);
    site = site_of("/b");
    cr_assert_eq(cfsr_site_create(disk, &site), -ENOTEMPTY);
    site = site_of("/c/");
    cr_assert_eq(cfsr_site_create(disk, &site), 0, "%s", cfsr_error_message());
}

/* The file with one line changed and its checksum made right again. */
static int load_changed(const char *from, const char *to)
{
    char text[4096], crc[32], *line;
    struct cfsr_site loaded;
    struct cfsr_file *file;
    size_t body;
    int len;

    cr_assert_eq(cfsr_file_open(disk, "/a/cluster", CFSR_OPEN_READ, &file), 0);
    len = cfsr_file_pread(file, text, sizeof text - 512, 0);
    cfsr_file_close(file);
    cr_assert_gt(len, 0);
    text[len] = '\0';
    line = strstr(text, from);
    cr_assert_not_null(line, "%s", from);
    memmove(line + strlen(to), line + strlen(from), strlen(line + strlen(from)) + 1);
    memcpy(line, to, strlen(to));
    line = strstr(text, "crc32c = ");
    body = line != NULL ? (size_t)(line - text) : strlen(text);
    (void)snprintf(crc, sizeof crc, "crc32c = %08" PRIx32 "\n", cfsr_crc32c(0, text, body));
    memcpy(text + body, crc, strlen(crc) + 1);
    cr_assert_eq(disk->ops->mkdir(disk, "/changed"), 0);
    put_file("/changed/cluster", text, strlen(text));
    return cfsr_site_load(disk, "/changed", &loaded);
}

Test(site_faults, load_refuses_malformed_identities)
{
    static const char *const bad[][2] = {
        {"site_id = 7", "site_id = seven"},
        {"site_id = 7", "site_id = 7\nsite_id = 7"},
        {"site_id = 7\n", ""},
        {"site_id = 7", "site id 7"},
        {"site_id = 7", "sight_id = 7"},
        {"format = 1", "format = one"},
        {"lanes = 2", "lanes = 4294967298"},
        {"shards = 16", "shards = -1"},
        {"segment_bytes = 2097152", "segment_bytes = 2MiB"},
        {"cluster = c1", "cluster = zz"},
        {"journal = 1a", "journal = "},
        {"shard_function = parent", "shard_function = an-endless-name-of-a-function-parent"},
        {"name = site-a",
         "name = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
    };
    struct cfsr_site site = site_of("/a"), loaded;

    cr_assert_eq(cfsr_site_create(disk, &site), 0);
    cr_assert_eq(load_changed("name = site-a", "name = site-b"), 0, "%s", cfsr_error_message());
    for (unsigned i = 0; i < CFSR_ARRAY_LEN(bad); i++)
        cr_assert_eq(load_changed(bad[i][0], bad[i][1]), -CFSR_E_FORMAT, "%s", bad[i][1]);
    cr_assert_eq(load_changed("format = 1", "format = 2"), -CFSR_E_VERSION);
    cr_assert_eq(load_changed("lanes = 2", "lanes = 3"), -CFSR_E_CONFIG);
    put_file("/changed/cluster", "lanes = 2\n", 10);
    cr_assert_eq(cfsr_site_load(disk, "/changed", &loaded), -CFSR_E_FORMAT);
    put_file("/changed/cluster", "lanes = 2\ncrc32c = 00000000\n", 28);
    cr_assert_eq(cfsr_site_load(disk, "/changed", &loaded), -CFSR_E_CHECKSUM);
}

/* ---- segment header ---- */

static void seal_header(uint8_t *block)
{
    cfsr_store_le32(block + 92, cfsr_crc32c(0, block, 92));
}

Test(site_faults, segment_header_names_what_is_foreign)
{
    struct cfsr_site site = site_of("/a"), other;
    struct cfsr_segment_header header = {.lane = 1, .incarnation = 3, .first_lsn = 0};
    struct cfsr_segment_header loaded;
    uint8_t good[CFSR_SEGMENT_HEADER_BYTES], block[CFSR_SEGMENT_HEADER_BYTES];

    header.first_lsn = site.segment_bytes;
    cfsr_segment_header_store(&site, &header, good);
    cr_assert_eq(cfsr_segment_header_load(&site, good, 1, site.segment_bytes, &loaded), 0);
    cr_assert_eq(loaded.incarnation, 3);

#define EXPECT(rc, change)                                                                       \
    do {                                                                                         \
        memcpy(block, good, sizeof block);                                                       \
        change;                                                                                  \
        cr_assert_eq(cfsr_segment_header_load(&site, block, 1, site.segment_bytes, &loaded), rc, \
                     "%s: %s", #change, cfsr_error_message());                                   \
    } while (0)
    EXPECT(-CFSR_E_FORMAT, block[0] ^= 1);
    EXPECT(-CFSR_E_CHECKSUM, block[50] ^= 1);
    EXPECT(-CFSR_E_VERSION, (block[8] = 9, seal_header(block)));
    EXPECT(-CFSR_E_FOREIGN, (block[16] ^= 1, seal_header(block)));
    EXPECT(-CFSR_E_FOREIGN, (block[32] ^= 1, seal_header(block)));
    EXPECT(-CFSR_E_FOREIGN, (block[56] ^= 1, seal_header(block)));
    EXPECT(-CFSR_E_FOREIGN, (block[64] ^= 1, seal_header(block)));
    EXPECT(-CFSR_E_FOREIGN, (block[12] ^= 3, seal_header(block)));
#undef EXPECT
    cr_assert_eq(cfsr_segment_header_load(&site, good, 0, site.segment_bytes, &loaded),
                 -CFSR_E_FOREIGN);
    other = site;
    other.segment_bytes *= 2;
    cr_assert_lt(cfsr_segment_header_load(&other, good, 1, site.segment_bytes, &loaded), 0);
}

Test(site_faults, only_whole_files_of_this_lane_are_reused)
{
    struct cfsr_site site = site_of("/a");
    struct cfsr_segment_header header = {.lane = 1};
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES], segment[CFSR_SEGMENT_HEADER_BYTES];

    cfsr_segment_spare_store(&site, 1, block);
    cfsr_segment_header_store(&site, &header, segment);
    cr_assert(cfsr_segment_is_reusable(&site, block, 1));
    cr_assert(cfsr_segment_is_reusable(&site, segment, 1), "an old segment was written in full");
    cr_assert_not(cfsr_segment_is_reusable(&site, block, 0));
    block[20] ^= 1;
    cr_assert_not(cfsr_segment_is_reusable(&site, block, 1), "its checksum is wrong");
    seal_header(block);
    cr_assert_not(cfsr_segment_is_reusable(&site, block, 1), "it is of another cluster");
    memset(block, 0, sizeof block);
    cr_assert_not(cfsr_segment_is_reusable(&site, block, 1), "it was never finished");
}

/* ---- acks ---- */

static void store_acks(struct cfsr_fs *fs, const struct cfsr_site *site, uint64_t lsn)
{
    static struct cfsr_acks acks;

    cr_assert_eq(cfsr_acks_load(fs, site, &acks), 0);
    cfsr_acks_peer(&acks, 9)->acked[1] = lsn;
    cr_assert_eq(cfsr_acks_store(fs, site, &acks), 0);
}

Test(site_faults, acks_survive_a_store_that_fails_anywhere)
{
    static struct cfsr_acks acks;
    struct test_faults faults;
    struct cfsr_fs *fs = test_faults_init(&faults, disk);
    struct cfsr_site site = site_of("/a");

    cr_assert_eq(cfsr_site_create(disk, &site), 0);
    store_acks(disk, &site, 100);
    store_acks(disk, &site, 200);
    for (unsigned n = 1;; n++) {
        cr_assert_eq(cfsr_acks_load(disk, &site, &acks), 0);
        cfsr_acks_peer(&acks, 9)->acked[1] = 300;
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_acks_store(fs, &site, &acks);
        if (!faults.fired) {
            cr_assert_eq(rc, 0);
            break;
        }
        cr_assert_eq(rc, -EIO);
        cr_assert_eq(cfsr_acks_load(disk, &site, &acks), 0);
        cr_assert_geq(cfsr_acks_peer(&acks, 9)->acked[1], 200, "what was stored before is kept");
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    cr_assert_eq(cfsr_acks_load(disk, &site, &acks), 0);
    cr_assert_eq(cfsr_acks_peer(&acks, 9)->acked[1], 300);
}

Test(site_faults, acks_load_passes_errors_on)
{
    static struct cfsr_acks acks;
    struct test_faults faults;
    struct cfsr_fs *fs = test_faults_init(&faults, disk);
    struct cfsr_site site = site_of("/a");

    cr_assert_eq(cfsr_site_create(disk, &site), 0);
    cr_assert_eq(cfsr_acks_load(disk, &site, &acks), 0, "no file: no peers");
    cr_assert_eq(acks.peer_count, 0);
    store_acks(disk, &site, 100);
    for (unsigned n = 1;; n++) {
        test_faults_arm(&faults, n, -EIO);
        int rc = cfsr_acks_load(fs, &site, &acks);
        if (!faults.fired)
            break;
        cr_assert_eq(rc, -EIO);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = cfsr_acks_load(disk, &site, &acks);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (!failed)
            break;
        cr_assert_eq(rc, -ENOMEM);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}

Test(site_faults, acks_of_nobody_or_of_another_journal_are_refused)
{
    static struct cfsr_acks acks;
    static uint8_t rubbish[2 * CFSR_ACKS_SLOT_BYTES];
    struct cfsr_site site = site_of("/a"), other;

    cr_assert_eq(cfsr_site_create(disk, &site), 0);
    store_acks(disk, &site, 100);
    other = site;
    other.journal.bytes[3] ^= 1;
    cr_assert_lt(cfsr_acks_load(disk, &other, &acks), 0);
    memset(rubbish, 0x5a, sizeof rubbish);
    put_file("/a/acks", rubbish, sizeof rubbish);
    cr_assert_eq(cfsr_acks_load(disk, &site, &acks), -CFSR_E_CHECKSUM);
}

Test(site_faults, a_peer_too_many_is_told)
{
    static struct cfsr_acks acks;

    for (uint64_t id = 1; id <= CFSR_STATUS_PEERS_MAX; id++)
        cr_assert_not_null(cfsr_acks_peer(&acks, id));
    cr_assert_not_null(cfsr_acks_peer(&acks, 5), "a known one is found");
    cr_assert_null(cfsr_acks_peer(&acks, CFSR_STATUS_PEERS_MAX + 1));
    cr_assert_eq(cfsr_acks_lowest(NULL, NULL, 0), CFSR_LSN_UNKNOWN);
    cr_assert_eq(cfsr_acks_lowest(&acks, NULL, 0), 0);
}

/* ---- fields of a payload ---- */

Test(site_faults, a_field_of_another_size_is_no_number)
{
    uint8_t payload[128];
    struct cfsr_payload_builder builder;
    struct cfsr_field field;
    uint64_t value = 77;
    uint32_t cursor = 0;

    cfsr_payload_begin(&builder, payload, sizeof payload);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_SIZE, "1234", 4);
    cfsr_payload_put_u64(&builder, CFSR_TAG_UID, 5);
    cr_assert_eq(builder.error, 0);
    cr_assert_eq(cfsr_payload_get_u64(payload, builder.len_bytes, CFSR_TAG_SIZE, &value),
                 -CFSR_E_FORMAT);
    cr_assert_eq(cfsr_payload_get_u64(payload, builder.len_bytes, CFSR_TAG_GID, &value), 0);
    cr_assert_eq(value, 77);
    cr_assert_eq(cfsr_payload_get_u64(payload, builder.len_bytes, CFSR_TAG_UID, &value), 1);
    cr_assert_eq(value, 5);
    payload[2] = 1; /* reserved */
    cr_assert_eq(cfsr_payload_next(payload, builder.len_bytes, &cursor, &field), -CFSR_E_FORMAT);
    cr_assert_eq(cfsr_payload_find(payload, builder.len_bytes, CFSR_TAG_UID, &field),
                 -CFSR_E_FORMAT);
    cfsr_payload_begin(&builder, payload, 8);
    cfsr_payload_put_u64(&builder, CFSR_TAG_UID, 5);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_NAME, "", 0);
    cr_assert_eq(builder.error, -CFSR_E_TOO_LARGE, "and stays so");
}

/* ---- digests ---- */

Test(site_faults, the_total_of_lane_digests_needs_memory)
{
    static const uint8_t lanes[2][CFSR_DIGEST_LEN_BYTES] = {{1}, {2}};
    uint8_t right[CFSR_DIGEST_LEN_BYTES], total[CFSR_DIGEST_LEN_BYTES];

    cr_assert_eq(cfsr_digest_total(lanes, 2, right), 0);
    for (unsigned n = 1;; n++) {
        test_fail_allocation(n);
        int rc = cfsr_digest_total(lanes, 2, total);
        bool failed = test_allocation_failed();
        test_fail_allocation(0);
        if (rc == 0)
            cr_assert_eq(memcmp(right, total, sizeof right), 0);
        if (!failed)
            break;
        cr_assert(rc == 0 || rc == -ENOMEM);
        cr_assert_lt(n, TEST_SWEEP_MAX);
    }
}
