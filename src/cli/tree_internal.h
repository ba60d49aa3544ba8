/* tree_internal.h - shared by tree.c (descriptors, opening, finishing) and tree_apply.c (one
 * function an operation). */
#ifndef CFSR_CLI_TREE_INTERNAL_H
#define CFSR_CLI_TREE_INTERNAL_H

#include "cli/tree.h"
#include "cli/tree_nodes.h"

#define CFSR_TREE_ROOT_INODE 1
#define CFSR_TREE_FD_CACHE   256 /* directories kept open */

struct cfsr_tree {
    struct cfsr_nodes nodes;
    struct cfsr_tree_stats stats;
    int root_fd;
    bool force;
    bool privileged; /* euid 0: owners are set */
    struct {
        uint64_t inode;
        int fd;
    } directory[CFSR_TREE_FD_CACHE]; /* by inode; fd -1: free */
    uint64_t file_inode;             /* the regular file that was written last */
    int file_fd;                     /* -1: none */
};

/* Descriptor (O_PATH) of a directory's inode; the tree's own, valid until the next call. */
int cfsr_tree_directory(struct cfsr_tree *tree, uint64_t inode, int *fd_out);
/* Descriptor for writing of a regular file; the tree's own. */
int cfsr_tree_file(struct cfsr_tree *tree, struct cfsr_node *node, int *fd_out);
void cfsr_tree_keep_file(struct cfsr_tree *tree, uint64_t inode, int fd);
/* The inode is about to vanish: nothing of it stays open. */
void cfsr_tree_forget(struct cfsr_tree *tree, uint64_t inode);
/* O_PATH descriptor of any node, not following links; the caller closes it. */
int cfsr_tree_open_node(struct cfsr_tree *tree, const struct cfsr_node *node, int *fd_out);
/* Message "cannot WHAT: PATH: reason" for errno-style rc. */
int cfsr_tree_failed(const struct cfsr_tree *tree, int rc, const char *what, uint64_t parent,
                     const char *name);

#endif
