/*
 * tree.c - the target directory: descriptors, opening, permissions and times at the end.
 *
 * Thread: one. Directories are reached by openat() from the root's descriptor, part by part, with
 * O_NOFOLLOW: a symbolic link anywhere, also one put there by another process meanwhile, ends in
 * ELOOP or ENOTDIR and never outside. Attributes go through /proc/self/fd of an O_PATH descriptor,
 * the one way that follows nothing and works for every type. Rejected: openat2(RESOLVE_BENEATH):
 * one lookup a path from the root for every entry, and seccomp profiles that lack it.
 */
#include "cli/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fail.h"
#include "cli/tree_internal.h"

int cfsr_tree_failed(const struct cfsr_tree *tree, int rc, const char *what, uint64_t parent,
                     const char *name)
{
    char path[512];

    cfsr_nodes_path(&tree->nodes, parent, path, sizeof path);
    if (name[0] == '\0')
        return cfsr_fail(rc, "cannot %s: %s: %s", what, path, cfsr_strerror(rc));
    return cfsr_fail(rc, "cannot %s: %s/%s: %s", what, path, name, cfsr_strerror(rc));
}

static size_t cache_slot(uint64_t inode)
{
    return (size_t)(inode * 0x9e3779b97f4a7c15ull >> 32) % CFSR_TREE_FD_CACHE;
}

static void cache_directory(struct cfsr_tree *tree, uint64_t inode, int fd)
{
    size_t slot = cache_slot(inode);

    if (tree->directory[slot].fd >= 0)
        (void)close(tree->directory[slot].fd);
    tree->directory[slot].inode = inode;
    tree->directory[slot].fd = fd;
}

/* The nearest ancestor that is open; on the way the inodes below it are collected, lowest first. */
static int find_open_ancestor(struct cfsr_tree *tree, uint64_t inode, uint64_t *chain,
                              unsigned *count_out, int *fd_out)
{
    unsigned count = 0;

    for (;;) {
        const struct cfsr_node *node = cfsr_nodes_find(&tree->nodes, inode);
        const struct cfsr_name *name;
        size_t slot;

        if (node == NULL)
            return cfsr_fail(-CFSR_E_BAD_ORDER, "inode %llu is used before it was made",
                             (unsigned long long)inode);
        slot = cache_slot(node->inode);
        *count_out = count;
        if (node->inode == CFSR_TREE_ROOT_INODE) {
            *fd_out = tree->root_fd;
            return 0;
        }
        if (tree->directory[slot].fd >= 0 && tree->directory[slot].inode == node->inode) {
            *fd_out = tree->directory[slot].fd;
            return 0;
        }
        name = cfsr_nodes_first_name(&tree->nodes, node);
        if (name == NULL)
            return cfsr_fail(-CFSR_E_BAD_ORDER, "inode %llu is used after it was removed",
                             (unsigned long long)inode);
        if (!S_ISDIR(node->mode))
            return cfsr_fail(-CFSR_E_BAD_ORDER, "inode %llu is not a directory",
                             (unsigned long long)inode);
        if (count == CFSR_NODES_DEPTH_MAX)
            return cfsr_fail(-CFSR_E_UNSAFE_PATH, "inode %llu lies deeper than %d directories",
                             (unsigned long long)inode, CFSR_NODES_DEPTH_MAX);
        chain[count++] = node->inode;
        inode = name->parent;
    }
}

int cfsr_tree_directory(struct cfsr_tree *tree, uint64_t inode, int *fd_out)
{
    uint64_t chain[CFSR_NODES_DEPTH_MAX];
    unsigned count = 0;
    int fd = -1;
    int rc = find_open_ancestor(tree, inode, chain, &count, &fd);

    if (rc < 0)
        return rc;
    while (count > 0) {
        const struct cfsr_node *node = cfsr_nodes_find(&tree->nodes, chain[--count]);
        const struct cfsr_name *name = cfsr_nodes_first_name(&tree->nodes, node);
        char text[256];

        fd = openat(fd, cfsr_nodes_text(&tree->nodes, name, text),
                    O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return cfsr_tree_failed(tree, -errno, "enter the directory", node->inode, "");
        cache_directory(tree, node->inode, fd);
    }
    *fd_out = fd;
    return 0;
}

void cfsr_tree_keep_file(struct cfsr_tree *tree, uint64_t inode, int fd)
{
    if (tree->file_fd >= 0)
        (void)close(tree->file_fd);
    tree->file_inode = inode;
    tree->file_fd = fd;
}

int cfsr_tree_file(struct cfsr_tree *tree, struct cfsr_node *node, int *fd_out)
{
    const struct cfsr_name *name = cfsr_nodes_first_name(&tree->nodes, node);
    char text[256];
    int fd;
    int rc;

    if (tree->file_fd >= 0 && tree->file_inode == node->inode) {
        *fd_out = tree->file_fd;
        return 0;
    }
    if (name == NULL)
        return cfsr_fail(-CFSR_E_BAD_ORDER, "inode %llu is written after it was removed",
                         (unsigned long long)node->inode);
    if (!S_ISREG(node->mode))
        return cfsr_fail(-CFSR_E_BAD_ORDER, "inode %llu is written and is not a file",
                         (unsigned long long)node->inode);
    rc = cfsr_tree_directory(tree, name->parent, &fd);
    if (rc < 0)
        return rc;
    fd = openat(fd, cfsr_nodes_text(&tree->nodes, name, text), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return cfsr_tree_failed(tree, -errno, "open the file", node->inode, "");
    cfsr_tree_keep_file(tree, node->inode, fd);
    *fd_out = fd;
    return 0;
}

void cfsr_tree_forget(struct cfsr_tree *tree, uint64_t inode)
{
    size_t slot = cache_slot(inode);

    if (tree->directory[slot].fd >= 0 && tree->directory[slot].inode == inode) {
        (void)close(tree->directory[slot].fd);
        tree->directory[slot].fd = -1;
    }
    if (tree->file_fd >= 0 && tree->file_inode == inode) {
        (void)close(tree->file_fd);
        tree->file_fd = -1;
    }
}

int cfsr_tree_open_node(struct cfsr_tree *tree, const struct cfsr_node *node, int *fd_out)
{
    const struct cfsr_name *name = cfsr_nodes_first_name(&tree->nodes, node);
    char text[256];
    int fd;
    int rc;

    if (node->inode == CFSR_TREE_ROOT_INODE) {
        fd = fcntl(tree->root_fd, F_DUPFD_CLOEXEC, 3);
    } else {
        if (name == NULL)
            return cfsr_fail(-CFSR_E_BAD_ORDER, "inode %llu is used after it was removed",
                             (unsigned long long)node->inode);
        rc = cfsr_tree_directory(tree, name->parent, &fd);
        if (rc < 0)
            return rc;
        fd = openat(fd, cfsr_nodes_text(&tree->nodes, name, text), O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0)
        return cfsr_tree_failed(tree, -errno, "open", node->inode, "");
    *fd_out = fd;
    return 0;
}

static int finish_node(struct cfsr_tree *tree, const struct cfsr_node *node)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    char path[40];
    int fd;
    int rc;

    if ((node->flags & (CFSR_NODE_HAS_MODE | CFSR_NODE_HAS_MTIME)) == 0)
        return 0;
    rc = cfsr_tree_open_node(tree, node, &fd);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if ((node->flags & CFSR_NODE_HAS_MODE) != 0 && !S_ISLNK(node->mode) &&
        chmod(path, node->mode & 07777) < 0)
        rc = cfsr_tree_failed(tree, -errno, "set the permissions", node->inode, "");
    if (rc == 0 && (node->flags & CFSR_NODE_HAS_MTIME) != 0) {
        times[1].tv_sec = (time_t)(node->mtime_ns / 1000000000);
        times[1].tv_nsec = (long)(node->mtime_ns % 1000000000);
        if (times[1].tv_nsec < 0) {
            times[1].tv_sec -= 1;
            times[1].tv_nsec += 1000000000;
        }
        if (utimensat(fd, "", times, AT_EMPTY_PATH) < 0)
            rc = cfsr_tree_failed(tree, -errno, "set the time", node->inode, "");
    }
    (void)close(fd);
    return rc;
}

struct by_depth {
    uint32_t index;
    uint32_t depth;
};

static int deepest_first(const void *a, const void *b)
{
    const struct by_depth *left = a;
    const struct by_depth *right = b;

    return left->depth > right->depth ? -1 : left->depth < right->depth;
}

static int finish_directories(struct cfsr_tree *tree)
{
    struct by_depth *order = calloc(tree->nodes.count + 1, sizeof order[0]);
    size_t count = 0;
    int rc = 0;

    if (order == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < tree->nodes.count; i++) {
        const struct cfsr_node *node = &tree->nodes.entries[i];
        bool live = node->first_name != 0 || node->inode == CFSR_TREE_ROOT_INODE;

        if (live && (node->flags & CFSR_NODE_ALIAS) == 0 && S_ISDIR(node->mode))
            order[count++] = (struct by_depth){(uint32_t)i,
                                               cfsr_nodes_depth(&tree->nodes, node->inode)};
    }
    qsort(order, count, sizeof order[0], deepest_first);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = finish_node(tree, &tree->nodes.entries[order[i].index]);
    free(order);
    return rc;
}

int cfsr_tree_finish(struct cfsr_tree *tree)
{
    int rc = 0;

    if (tree->file_fd >= 0)
        (void)close(tree->file_fd);
    tree->file_fd = -1;
    for (size_t i = 0; rc == 0 && i < tree->nodes.count; i++) {
        const struct cfsr_node *node = &tree->nodes.entries[i];

        if (node->first_name != 0 && !S_ISDIR(node->mode))
            rc = finish_node(tree, node);
    }
    return rc < 0 ? rc : finish_directories(tree);
}

static int check_empty(const char *into, int root_fd)
{
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    int rc = 0;

    if (directory == NULL) {
        rc = cfsr_fail(-errno, "cannot read the directory: %s: %s", into, cfsr_strerror(-errno));
        if (fd >= 0)
            (void)close(fd);
        return rc;
    }
    while (rc == 0 && (entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = cfsr_fail(
                -ENOTEMPTY,
                "the target is not empty: %s holds %s: give a new or empty directory, or --force",
                into, entry->d_name);
    (void)closedir(directory);
    return rc;
}

static int open_root(const char *into, bool force)
{
    int fd;
    int rc;

    if (mkdir(into, 0700) < 0 && errno != EEXIST)
        return cfsr_fail(-errno, "cannot make the target directory: %s: %s", into,
                         cfsr_strerror(-errno));
    fd = open(into, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cfsr_fail(-errno, "cannot open the target directory: %s: %s", into,
                         cfsr_strerror(-errno));
    rc = force ? 0 : check_empty(into, fd);
    if (rc == 0)
        return fd;
    (void)close(fd);
    return rc;
}

int cfsr_tree_open(const char *into, bool force, struct cfsr_tree **tree_out)
{
    struct cfsr_tree *tree = calloc(1, sizeof *tree);
    int fd;

    if (tree == NULL)
        return -ENOMEM;
    fd = open_root(into, force);
    if (fd < 0) {
        free(tree);
        return fd;
    }
    tree->root_fd = fd;
    tree->file_fd = -1;
    tree->force = force;
    tree->privileged = geteuid() == 0;
    for (size_t i = 0; i < CFSR_TREE_FD_CACHE; i++)
        tree->directory[i].fd = -1;
    cfsr_nodes_init(&tree->nodes);
    if (cfsr_nodes_add(&tree->nodes, CFSR_TREE_ROOT_INODE, S_IFDIR) == NULL) {
        cfsr_tree_close(tree);
        return -ENOMEM;
    }
    *tree_out = tree;
    return 0;
}

const struct cfsr_tree_stats *cfsr_tree_stats(const struct cfsr_tree *tree)
{
    return &tree->stats;
}

void cfsr_tree_close(struct cfsr_tree *tree)
{
    for (size_t i = 0; i < CFSR_TREE_FD_CACHE; i++)
        if (tree->directory[i].fd >= 0)
            (void)close(tree->directory[i].fd);
    if (tree->file_fd >= 0)
        (void)close(tree->file_fd);
    (void)close(tree->root_fd);
    cfsr_nodes_fini(&tree->nodes);
    free(tree);
}
