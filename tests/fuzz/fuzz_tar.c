/*
 * fuzz_tar.c - `journal import`: an archive as entries.
 *
 * Input: u8 switches (1 with contents; 2 two rounds; 4 below a directory), then the archive.
 *
 * Properties: every entry has a payload that parses, names without '/' and ".." and inode numbers
 * that were given before; the work is bounded by the archive's size, whatever sizes it declares;
 * the same archive gives the same entries.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "cli/import_tar.h"
#include "journal/record.h"
#include <cfsrepl/payload.h>

enum {
    WITH_DATA = 1,
    TWICE = 2,
    UNDER = 4,
    INPUT_MAX = 1 << 16,
    FIRST_INODE = 1000
};

struct taken {
    uint64_t entries, highest_inode;
    uint32_t sum;
};

static void check_name(const struct cfsr_entry *entry, uint16_t tag)
{
    struct cfsr_field field;

    if (cfsr_payload_find(entry->payload, entry->payload_bytes, tag, &field) != 1)
        return;
    FUZZ_CHECK(field.len_bytes > 0 && field.len_bytes <= 255);
    FUZZ_CHECK(memchr(field.value, '/', field.len_bytes) == NULL &&
               memchr(field.value, '\0', field.len_bytes) == NULL);
    FUZZ_CHECK(field.len_bytes > 2 || memcmp(field.value, "..", field.len_bytes) != 0);
}

static int take(void *user, const struct cfsr_entry *entry)
{
    struct taken *taken = user;
    struct cfsr_field field;
    uint32_t cursor = 0;
    int rc;

    FUZZ_CHECK(entry->op <= CFSR_OP_ENTRY_MAX && entry->payload_bytes <= CFSR_RECORD_PAYLOAD_MAX);
    while ((rc = cfsr_payload_next(entry->payload, entry->payload_bytes, &cursor, &field)) == 1)
        ;
    FUZZ_CHECK(rc == 0);
    check_name(entry, CFSR_TAG_NAME);
    check_name(entry, CFSR_TAG_NEW_NAME);
    if (entry->op == CFSR_OP_CREATE || entry->op == CFSR_OP_MKDIR || entry->op == CFSR_OP_SYMLINK)
        taken->highest_inode = cfsr_max_u64(taken->highest_inode, entry->inode);
    else
        FUZZ_CHECK(entry->inode <= taken->highest_inode || entry->inode == CFSR_ROOT_INODE);
    taken->entries++;
    taken->sum = cfsr_crc32c(taken->sum, entry->payload, entry->payload_bytes);
    return 0;
}

static void notice(void *user, const char *member, const char *why, bool refused)
{
    (void)user;
    (void)refused;
    FUZZ_CHECK(member != NULL && why != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    struct taken first = {0}, second = {0};
    struct cfsr_import_stats stats;
    struct cfsr_import_options options = {
        .with_data = (switches & WITH_DATA) != 0,
        .repeat = (switches & TWICE) != 0 ? 2 : 1,
        .piece_bytes = 4096,
        .under = (switches & UNDER) != 0 ? "a/b" : NULL,
        .first_inode = FIRST_INODE,
        .entry = take,
        .notice = notice,
        .user = &first,
    };
    int rc;

    if (reader.left > INPUT_MAX)
        return 0;
    options.path = fuzz_memory_file(reader.at, reader.left);
    rc = cfsr_import_tar(&options, &stats);
    FUZZ_CHECK(stats.entries == first.entries && stats.refused <= stats.members);
    options.user = &second;
    FUZZ_CHECK(cfsr_import_tar(&options, &stats) == rc);
    FUZZ_CHECK(first.entries == second.entries && first.sum == second.sum);
    return 0;
}

/* ---- seeds: made by libarchive, as the import reads them ---- */

static void add_member(struct archive *archive, const char *name, unsigned type, int64_t size,
                       const char *link)
{
    static const char zeros[8192];
    struct archive_entry *entry = archive_entry_new();

    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_mtime(entry, 1700000000, 5);
    archive_entry_set_size(entry, size);
    if (link != NULL && type == AE_IFLNK)
        archive_entry_set_symlink(entry, link);
    else if (link != NULL)
        archive_entry_set_hardlink(entry, link);
    if (type == AE_IFCHR)
        archive_entry_set_rdev(entry, 5);
    if (size > 1000) {
        archive_entry_sparse_add_entry(entry, 0, 512);
        archive_entry_xattr_add_entry(entry, "user.note", "abc", 3);
        archive_entry_acl_add_entry(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, ARCHIVE_ENTRY_ACL_READ,
                                    ARCHIVE_ENTRY_ACL_USER, 7, NULL);
    }
    FUZZ_CHECK(archive_write_header(archive, entry) >= ARCHIVE_WARN);
    if (size > 0)
        FUZZ_CHECK(archive_write_data(archive, zeros, (size_t)size) >= 0);
    archive_entry_free(entry);
}

static void add(struct fuzz_corpus *corpus, const char *name, uint8_t switches,
                int (*format)(struct archive *archive))
{
    static uint8_t bytes[INPUT_MAX];
    size_t used = 0;
    struct archive *archive = archive_write_new();
    struct fuzz_seed seed = {0};

    FUZZ_CHECK(archive != NULL && format(archive) == ARCHIVE_OK);
    archive_write_set_bytes_in_last_block(archive, 1);
    FUZZ_CHECK(archive_write_open_memory(archive, bytes, sizeof bytes, &used) == ARCHIVE_OK);
    add_member(archive, "d", AE_IFDIR, 0, NULL);
    add_member(archive, "d/file", AE_IFREG, 700, NULL);
    add_member(archive, "./d//sparse", AE_IFREG, 5000, NULL);
    add_member(archive, "/abs", AE_IFREG, 3, NULL);
    add_member(archive, "d/link", AE_IFLNK, 0, "../x");
    add_member(archive, "d/hard", AE_IFREG, 0, "d/file");
    add_member(archive, "d/../up", AE_IFREG, 0, NULL);
    add_member(archive, "dev", AE_IFCHR, 0, NULL);
    add_member(archive, "d/file", AE_IFREG, 1, NULL);
    add_member(archive, "d/file/below", AE_IFREG, 1, NULL);
    FUZZ_CHECK(archive_write_free(archive) == ARCHIVE_OK);
    fuzz_seed_u8(&seed, switches);
    fuzz_seed_bytes(&seed, bytes, used);
    fuzz_seed_end(&seed, corpus, name);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    add(corpus, "pax", WITH_DATA, archive_write_set_format_pax);
    add(corpus, "pax-list", TWICE, archive_write_set_format_pax);
    add(corpus, "gnu", UNDER, archive_write_set_format_gnutar);
    add(corpus, "ustar", WITH_DATA | TWICE | UNDER, archive_write_set_format_ustar);
}
