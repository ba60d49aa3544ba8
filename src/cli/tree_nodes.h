/*
 * tree_nodes.h - inodes in memory: what materialize knows of each, and the names it has.
 *
 * One thread. An inode's names are a chain through the names table (cfsr_name.next, index + 1). A
 * directory that was made twice under one name (two imports of overlapping trees) is one directory
 * with two numbers: the second is an alias of the first.
 */
#ifndef CFSR_CLI_TREE_NODES_H
#define CFSR_CLI_TREE_NODES_H

#include <stdbool.h>

#include "cli/names.h"

enum {
    CFSR_NODE_HAS_MODE = 1,
    CFSR_NODE_HAS_MTIME = 2,
    CFSR_NODE_ALIAS = 4,
    CFSR_NODE_SEEN = 8
};

struct cfsr_node {
    uint64_t inode;
    uint64_t alias_of; /* CFSR_NODE_ALIAS */
    int64_t mtime_ns;
    uint32_t mode;       /* type always; permissions when HAS_MODE */
    uint32_t first_name; /* index + 1 into names.entries, 0: no name (removed, or the root) */
    uint32_t flags;
};

struct cfsr_nodes {
    struct cfsr_node *entries;
    uint32_t *slots; /* index + 1 */
    size_t count, capacity, slot_count;
    struct cfsr_names names;
};

void cfsr_nodes_init(struct cfsr_nodes *nodes);
void cfsr_nodes_fini(struct cfsr_nodes *nodes);
/* The node, aliases followed; NULL if the inode was never made. Valid until the next add. */
struct cfsr_node *cfsr_nodes_find(const struct cfsr_nodes *nodes, uint64_t inode);
/* A new node, or the existing one of that number (not following aliases). NULL: out of memory. */
struct cfsr_node *cfsr_nodes_add(struct cfsr_nodes *nodes, uint64_t inode, uint32_t mode);
/* Gives an inode one more name, or takes one away. -ENOMEM. */
int cfsr_nodes_name(struct cfsr_nodes *nodes, uint64_t inode, uint64_t parent, const char *name,
                    size_t len);
void cfsr_nodes_unname(struct cfsr_nodes *nodes, struct cfsr_name *name);
/* First name of a node; NULL if it has none. The text is not NUL-terminated: see cfsr_nodes_text().
 */
const struct cfsr_name *cfsr_nodes_first_name(const struct cfsr_nodes *nodes,
                                              const struct cfsr_node *node);
/* Copies a name's text with a NUL. */
char *cfsr_nodes_text(const struct cfsr_nodes *nodes, const struct cfsr_name *name,
                      char text_out[256]);
/* "a/b/c" for messages; cut from the left when it does not fit. Returns text_out. */
char *cfsr_nodes_path(const struct cfsr_nodes *nodes, uint64_t inode, char *text_out,
                      size_t len_bytes);
/* Steps up to the root; DEPTH_MAX when a chain does not end there. */
#define CFSR_NODES_DEPTH_MAX 2048
unsigned cfsr_nodes_depth(const struct cfsr_nodes *nodes, uint64_t inode);

#endif
