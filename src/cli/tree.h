/*
 * tree.h - a directory made from journal entries.
 *
 * Entries are applied in apply order. Every operation is relative to a descriptor of its parent
 * directory and follows no symbolic link, and every name is checked, so nothing outside the target
 * can be reached whatever the entries say. Permissions and times are set by cfsr_tree_finish(),
 * deepest directories first; until then directories are 0700 and files 0600. Owners are set when
 * the process is root. One thread.
 */
#ifndef CFSR_CLI_TREE_H
#define CFSR_CLI_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include <cfsrepl/journal.h>

struct cfsr_tree;

struct cfsr_tree_stats {
    uint64_t entries; /* applied */
    uint64_t directories, files, symlinks, links, nodes, xattrs, removed;
    uint64_t data_bytes;
    uint64_t opaque;         /* entries whose payload is not typed: not applied */
    uint64_t xattrs_refused; /* by the target's file system, or for want of privilege */
    uint64_t without_data;   /* Write entries that carry no contents: the length only */
};

/*
 * Makes the directory, or takes an empty one; with force a directory with contents, whose files
 * give way. -ENOTEMPTY, -ENOTDIR, -errno; message set.
 */
int cfsr_tree_open(const char *into, bool force, struct cfsr_tree **tree_out);
/* -CFSR_E_UNSAFE_PATH a name that would leave the directory, -CFSR_E_FORMAT a field is missing,
 * -CFSR_E_BAD_ORDER an inode or name that does not exist, -errno. */
int cfsr_tree_apply(struct cfsr_tree *tree, unsigned op, uint8_t flags, uint64_t inode,
                    const void *payload, uint32_t payload_bytes);
/* Permissions and times. */
int cfsr_tree_finish(struct cfsr_tree *tree);
const struct cfsr_tree_stats *cfsr_tree_stats(const struct cfsr_tree *tree);
void cfsr_tree_close(struct cfsr_tree *tree);

#endif
