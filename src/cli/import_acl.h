/*
 * import_acl.h - extended attributes of a tar member, POSIX ACLs included, as xattrs.
 */
#ifndef CFSR_CLI_IMPORT_ACL_H
#define CFSR_CLI_IMPORT_ACL_H

#include <stddef.h>
#include <stdint.h>

struct archive_entry;

/*
 * Calls emit once for each xattr and for each POSIX.1e ACL (as system.posix_acl_access and
 * system.posix_acl_default in the kernel's form). 0 or the first error of emit.
 */
int cfsr_import_xattrs(struct archive_entry *member, uint64_t inode,
                       int (*emit)(void *user, uint64_t inode, const char *name, const void *value,
                                   size_t len),
                       void *user);

#endif
