/* test_tree.c - materialize: what entries make, and what never leaves the target. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cfsrepl/payload.h>

#include "cli/tree.h"
#include "tests/unit/command.h"

static char base[] = "/tmp/test-tree-XXXXXX";
static char target[64];
static struct cfsr_tree *tree;
static uint8_t buffer[65536];
static struct cfsr_payload_builder builder;

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(base));
    snprintf(target, sizeof target, "%s/t", base);
    cr_assert_eq(cfsr_tree_open(target, false, &tree), 0, "%s", cfsr_error_message());
}

static void tear_down(void)
{
    cfsr_tree_close(tree);
    cr_assert_eq(TEST_COMMAND("rm", "-rf", base), 0);
}

static void begin(uint64_t parent, const char *name)
{
    cfsr_payload_begin(&builder, buffer, sizeof buffer);
    if (name == NULL)
        return;
    cfsr_payload_put_u64(&builder, CFSR_TAG_PARENT, parent);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_NAME, name, (uint32_t)strlen(name));
}

static int apply(unsigned op, uint64_t inode)
{
    return cfsr_tree_apply(tree, op, 0, inode, buffer, builder.len_bytes);
}

static int make(unsigned op, uint64_t inode, uint64_t parent, const char *name, uint64_t mode)
{
    begin(parent, name);
    cfsr_payload_put_u64(&builder, CFSR_TAG_MODE, mode);
    cfsr_payload_put_u64(&builder, CFSR_TAG_MTIME_NS, 1000000000ull * 1000 + 5);
    return apply(op, inode);
}

static int write_text(uint64_t inode, uint64_t offset, const char *text)
{
    begin(0, NULL);
    cfsr_payload_put_u64(&builder, CFSR_TAG_OFFSET, offset);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_DATA, text, (uint32_t)strlen(text));
    return apply(CFSR_OP_WRITE, inode);
}

static int symlink_to(uint64_t inode, const char *name, const char *to)
{
    begin(1, name);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_TARGET, to, (uint32_t)strlen(to));
    return apply(CFSR_OP_SYMLINK, inode);
}

static struct stat stat_of(const char *name)
{
    char path[128];
    struct stat info;

    snprintf(path, sizeof path, "%s/%s", target, name);
    cr_assert_eq(lstat(path, &info), 0, "%s", path);
    return info;
}

Test(tree, makes_files_with_contents_modes_and_times, .init = set_up, .fini = tear_down)
{
    char path[128];
    char text[16] = "";
    int fd;

    cr_assert_eq(make(CFSR_OP_MKDIR, 2, 1, "d", S_IFDIR | 0500), 0, "%s", cfsr_error_message());
    cr_assert_eq(make(CFSR_OP_CREATE, 3, 2, "f", S_IFREG | 0440), 0);
    cr_assert_eq(write_text(3, 2, "lo"), 0);
    cr_assert_eq(write_text(3, 0, "he"), 0);
    begin(2, "hard");
    cr_assert_eq(apply(CFSR_OP_LINK, 3), 0, "%s", cfsr_error_message());
    cr_assert_eq(cfsr_tree_finish(tree), 0, "%s", cfsr_error_message());
    cr_assert_eq(stat_of("d").st_mode, S_IFDIR | 0500);
    cr_assert_eq(stat_of("d/f").st_mode, S_IFREG | 0440);
    cr_assert_eq(stat_of("d/f").st_mtim.tv_sec, 1000);
    cr_assert_eq(stat_of("d/f").st_mtim.tv_nsec, 5);
    cr_assert_eq(stat_of("d").st_mtim.tv_sec, 1000);
    cr_assert_eq(stat_of("d/hard").st_nlink, 2);
    snprintf(path, sizeof path, "%s/d/f", target);
    fd = open(path, O_RDONLY);
    cr_assert_eq(read(fd, text, sizeof text), 4);
    cr_assert_str_eq(text, "helo");
    close(fd);
}

Test(tree, unsafe_names_write_nothing, .init = set_up, .fini = tear_down)
{
    static const char *const bad[] = {"..", ".", "", "a/b", "/etc", "../x"};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(make(CFSR_OP_CREATE, 10 + i, 1, bad[i], S_IFREG | 0644), -CFSR_E_UNSAFE_PATH,
                     "'%s'", bad[i]);
        cr_assert_eq(make(CFSR_OP_MKDIR, 30 + i, 1, bad[i], S_IFDIR | 0755), -CFSR_E_UNSAFE_PATH,
                     "'%s'", bad[i]);
    }
    begin(0, NULL);
    cfsr_payload_put_u64(&builder, CFSR_TAG_PARENT, 1);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_NAME, "a\0b", 3);
    cr_assert_eq(apply(CFSR_OP_CREATE, 60), -CFSR_E_UNSAFE_PATH);
    cr_assert_eq(cfsr_tree_stats(tree)->entries, 0);
}

Test(tree, a_symbolic_link_never_leads_outside, .init = set_up, .fini = tear_down)
{
    char outside[64];
    char path[128];

    snprintf(outside, sizeof outside, "%s/outside", base);
    cr_assert_eq(mkdir(outside, 0700), 0);
    cr_assert_eq(symlink_to(2, "link", outside), 0, "%s", cfsr_error_message());
    cr_assert_eq(make(CFSR_OP_CREATE, 3, 2, "f", S_IFREG | 0644),
                 -CFSR_E_BAD_ORDER); /* a link is no parent */
    /* Another process puts a link where a directory was: the walk must not follow it. */
    cr_assert_eq(make(CFSR_OP_MKDIR, 4, 1, "d", S_IFDIR | 0755), 0);
    snprintf(path, sizeof path, "%s/d", target);
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(symlink(outside, path), 0);
    cr_assert_lt(make(CFSR_OP_CREATE, 5, 4, "f", S_IFREG | 0644), 0);
    snprintf(path, sizeof path, "%s/f", outside);
    cr_assert_neq(access(path, F_OK), 0);
}

Test(tree, rename_and_unlink_and_both_halves_of_a_rename, .init = set_up, .fini = tear_down)
{
    cr_assert_eq(make(CFSR_OP_MKDIR, 2, 1, "a", S_IFDIR | 0755), 0);
    cr_assert_eq(make(CFSR_OP_MKDIR, 3, 1, "b", S_IFDIR | 0755), 0);
    cr_assert_eq(make(CFSR_OP_CREATE, 4, 2, "f", S_IFREG | 0644), 0);
    cr_assert_eq(make(CFSR_OP_CREATE, 5, 3, "g", S_IFREG | 0644), 0);
    for (int half = 0; half < 2; half++) {
        begin(2, "f");
        cfsr_payload_put_u64(&builder, CFSR_TAG_NEW_PARENT, 3);
        cfsr_payload_put_bytes(&builder, CFSR_TAG_NEW_NAME, "g", 1);
        cfsr_payload_put_u64(&builder, CFSR_TAG_LINK_ID, 1);
        cr_assert_eq(apply(CFSR_OP_RENAME, 4), 0, "%s", cfsr_error_message());
    }
    cr_assert_eq(write_text(4, 0, "moved"), 0, "%s", cfsr_error_message());
    cr_assert_eq(stat_of("b/g").st_size, 5);
    begin(1, "b"); /* into itself */
    cfsr_payload_put_u64(&builder, CFSR_TAG_NEW_PARENT, 3);
    cfsr_payload_put_bytes(&builder, CFSR_TAG_NEW_NAME, "b", 1);
    cr_assert_lt(apply(CFSR_OP_RENAME, 3), 0);
    begin(3, "g");
    cr_assert_eq(apply(CFSR_OP_UNLINK, 4), 0);
    cr_assert_eq(apply(CFSR_OP_UNLINK, 4), -CFSR_E_BAD_ORDER);
    cr_assert_eq(write_text(4, 0, "late"), -CFSR_E_BAD_ORDER);
    begin(1, "b");
    cr_assert_eq(apply(CFSR_OP_UNLINK, 3), 0);
    cr_assert_eq(cfsr_tree_finish(tree), 0);
}

Test(tree, a_directory_with_contents_is_refused_without_force)
{
    struct cfsr_tree *second;

    set_up();
    cr_assert_eq(make(CFSR_OP_CREATE, 2, 1, "f", S_IFREG | 0644), 0);
    cr_assert_eq(cfsr_tree_open(target, false, &second), -39 /* ENOTEMPTY */);
    cr_assert_eq(cfsr_tree_open(target, true, &second), 0);
    cfsr_tree_close(second);
    tear_down();
}

Test(tree, malformed_payloads_are_refused, .init = set_up, .fini = tear_down)
{
    memset(buffer, 0xff, 64);
    cr_assert_eq(cfsr_tree_apply(tree, CFSR_OP_CREATE, 0, 5, buffer, 64), -CFSR_E_FORMAT);
    cr_assert_eq(cfsr_tree_apply(tree, CFSR_OP_WRITE, CFSR_ENTRY_OPAQUE, 5, buffer, 64), 0);
    cr_assert_eq(cfsr_tree_stats(tree)->opaque, 1);
    begin(1, NULL);
    cr_assert_eq(apply(CFSR_OP_CREATE, 6), -CFSR_E_FORMAT);
    cr_assert_eq(make(CFSR_OP_CREATE, 6, 99, "f", S_IFREG | 0644), -CFSR_E_BAD_ORDER);
}
