/* test_import_tar.c - tar members to entries, with archives made here. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>

#include <cfsrepl/payload.h>

#include "base/crc32c.h"
#include "cli/import_tar.h"

#define MAX 64
static struct {
    uint8_t op;
    uint64_t inode, shard_key;
    uint8_t payload[4096];
    uint32_t len;
} got[MAX];
static unsigned count;
static char notices[4096];
static char path[] = "/tmp/test-tar-XXXXXX";
static struct archive *out;

static int take(void *user, const struct cfsr_entry *entry)
{
    (void)user;
    cr_assert_lt(count, MAX);
    cr_assert_leq(entry->payload_bytes, sizeof got[0].payload);
    got[count].op = entry->op;
    got[count].inode = entry->inode;
    got[count].shard_key = entry->shard_key;
    got[count].len = entry->payload_bytes;
    memcpy(got[count++].payload, entry->payload, entry->payload_bytes);
    return 0;
}

static void notice(void *user, const char *member, const char *why, bool refused)
{
    (void)user;
    snprintf(notices + strlen(notices), sizeof notices - strlen(notices), "%s %s: %s\n",
             refused ? "refused" : "changed", member, why);
}

static void begin(void)
{
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    close(fd);
    out = archive_write_new();
    archive_write_set_format_pax(out);
    cr_assert_eq(archive_write_open_filename(out, path), ARCHIVE_OK);
}

static void add(const char *name, unsigned type, const char *link, const char *contents)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_set_pathname(entry, name);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_mtime(entry, 1000, 7);
    if (type == 1) {
        archive_entry_set_hardlink(entry, link);
    } else {
        archive_entry_set_filetype(entry, type);
        if (type == AE_IFLNK)
            archive_entry_set_symlink(entry, link);
        if (type == AE_IFREG)
            archive_entry_set_size(entry, (la_int64_t)strlen(contents));
        if (type == AE_IFCHR)
            archive_entry_set_rdev(entry, 0x103);
    }
    cr_assert_eq(archive_write_header(out, entry), ARCHIVE_OK, "%s", archive_error_string(out));
    if (type == AE_IFREG)
        cr_assert_eq(archive_write_data(out, contents, strlen(contents)),
                     (la_ssize_t)strlen(contents));
    archive_entry_free(entry);
}

static struct cfsr_import_stats stats;

static int import(bool with_data, uint32_t repeat, uint32_t piece)
{
    const struct cfsr_import_options options = {.path = path,
                                                .with_data = with_data,
                                                .repeat = repeat,
                                                .piece_bytes = piece,
                                                .first_inode = 100,
                                                .entry = take,
                                                .notice = notice};
    count = 0;
    notices[0] = '\0';
    cfsr_error_clear();
    return cfsr_import_tar(&options, &stats);
}

static void end(void)
{
    if (out != NULL) {
        archive_write_close(out);
        archive_write_free(out);
        out = NULL;
    }
}

static uint64_t number(unsigned i, uint16_t tag)
{
    uint64_t value = UINT64_MAX;

    (void)cfsr_payload_get_u64(got[i].payload, got[i].len, tag, &value);
    return value;
}

static bool text_is(unsigned i, uint16_t tag, const char *text)
{
    struct cfsr_field field;

    return cfsr_payload_find(got[i].payload, got[i].len, tag, &field) == 1 &&
           field.len_bytes == strlen(text) && memcmp(field.value, text, field.len_bytes) == 0;
}

static void clean(void)
{
    end();
    unlink(path);
}

Test(import_tar, maps_every_type, .init = begin, .fini = clean)
{
    add("d", AE_IFDIR, NULL, NULL);
    add("d/f", AE_IFREG, NULL, "hello");
    add("d/l", AE_IFLNK, "f", NULL);
    add("d/h", 1, "d/f", NULL);
    add("d/c", AE_IFCHR, NULL, NULL);
    end();
    cr_assert_eq(import(true, 1, 4096), 0, "%s", cfsr_error_message());
    cr_assert_eq(count, 6);
    cr_assert_eq(got[0].op, CFSR_OP_MKDIR);
    cr_assert_eq(got[0].inode, 100);
    cr_assert_eq(got[1].op, CFSR_OP_CREATE);
    cr_assert_eq(got[1].shard_key, 100);
    cr_assert_eq(number(1, CFSR_TAG_MODE), S_IFREG | 0644);
    cr_assert_eq(number(1, CFSR_TAG_MTIME_NS), 1000000000007u);
    cr_assert(text_is(1, CFSR_TAG_PATH_HINT, "d/f"));
    cr_assert_eq(got[2].op, CFSR_OP_WRITE);
    cr_assert_eq(got[2].shard_key, got[1].inode);
    cr_assert(text_is(2, CFSR_TAG_DATA, "hello"));
    cr_assert_eq(got[3].op, CFSR_OP_SYMLINK);
    cr_assert(text_is(3, CFSR_TAG_TARGET, "f"));
    cr_assert_eq(got[4].op, CFSR_OP_LINK);
    cr_assert_eq(got[4].inode, got[1].inode);
    cr_assert_eq(number(5, CFSR_TAG_RDEV), 0x103);
    cr_assert_eq(stats.refused, 0);
}

Test(import_tar, without_data_carries_length_and_checksum_also_in_later_rounds, .init = begin,
     .fini = clean)
{
    add("f", AE_IFREG, NULL, "hello");
    end();
    cr_assert_eq(import(false, 2, 4096), 0);
    cr_assert_eq(count, 6); /* r0001, f, write, r0002, f, write */
    for (unsigned i = 2; i < 6; i += 3) {
        cr_assert_eq(number(i, CFSR_TAG_LENGTH), 5);
        cr_assert_eq(number(i, CFSR_TAG_DATA_SUM), cfsr_crc32c(0, "hello", 5));
    }
    cr_assert(text_is(4, CFSR_TAG_PATH_HINT, "r0002/f"));
    cr_assert_neq(got[1].inode, got[4].inode);
}

Test(import_tar, contents_come_in_pieces, .init = begin, .fini = clean)
{
    add("f", AE_IFREG, NULL, "abcdefghij");
    end();
    cr_assert_eq(import(true, 1, 4), 0);
    cr_assert_eq(count, 4);
    cr_assert(text_is(1, CFSR_TAG_DATA, "abcd"));
    cr_assert(text_is(3, CFSR_TAG_DATA, "ij"));
    cr_assert_eq(number(3, CFSR_TAG_OFFSET), 8);
}

Test(import_tar, missing_parents_are_made_and_files_replaced, .init = begin, .fini = clean)
{
    add("a/b/f", AE_IFREG, NULL, "x");
    add("a/b/f", AE_IFREG, NULL, "y");
    add("a", AE_IFDIR, NULL, NULL);
    end();
    cr_assert_eq(import(true, 1, 4096), 0);
    cr_assert_eq(got[0].op, CFSR_OP_MKDIR);
    cr_assert_eq(got[1].op, CFSR_OP_MKDIR);
    cr_assert_eq(got[4].op, CFSR_OP_UNLINK);
    cr_assert_eq(got[4].inode, got[2].inode);
    cr_assert_eq(got[5].op, CFSR_OP_CREATE);
    cr_assert_eq(got[7].op, CFSR_OP_SETATTR);
    cr_assert_eq(got[7].inode, got[0].inode);
}

Test(import_tar, bad_members_are_refused_by_name_and_the_rest_goes_on, .init = begin, .fini = clean)
{
    add("../evil", AE_IFREG, NULL, "x");
    add("/abs", AE_IFREG, NULL, "x");
    add("h", 1, "nothing", NULL);
    add("s", AE_IFLNK, "/etc", NULL);
    add("s/f", AE_IFREG, NULL, "x");
    add("abs/f", AE_IFREG, NULL, "x");
    add("last", AE_IFREG, NULL, "x");
    end();
    cr_assert_eq(import(true, 1, 4096), 0);
    cr_assert_eq(stats.refused, 4, "%s", notices);
    cr_assert_not_null(strstr(notices, "refused ../evil: its path contains '..'"));
    cr_assert_not_null(strstr(notices, "changed /abs: its leading '/' was removed"));
    cr_assert_not_null(strstr(notices, "refused h: it is a hard link to something"));
    cr_assert_not_null(strstr(notices, "refused s/f: its path goes through a symbolic link"));
    cr_assert_not_null(strstr(notices, "refused abs/f: its path goes through something"));
    cr_assert(text_is(count - 1, CFSR_TAG_PATH_HINT, "last"));
}

Test(import_tar, a_truncated_archive_names_the_last_member, .init = begin, .fini = clean)
{
    add("first", AE_IFREG, NULL, "hello");
    add("second", AE_IFREG, NULL, "world");
    end();
    cr_assert_eq(truncate(path, 512 * 3 + 200), 0);
    cr_assert_eq(import(true, 1, 4096), -CFSR_E_FORMAT);
    cr_assert_not_null(strstr(cfsr_error_message(), "first"), "%s", cfsr_error_message());
}

Test(import_tar, what_is_no_archive_is_refused, .init = begin, .fini = clean)
{
    FILE *file;

    end();
    file = fopen(path, "w");
    for (int i = 0; i < 5000; i++)
        fputs("no tar ", file);
    fclose(file);
    cr_assert_eq(import(true, 1, 4096), -CFSR_E_FORMAT);
    cr_assert_not_null(strstr(cfsr_error_message(), path));
}
