/*
 * import_acl.c - xattrs and POSIX ACLs of a tar member.
 *
 * Thread: one. The ACL's form is that of the kernel's posix_acl_xattr.h: u32le version 2, then
 * (u16le tag, u16le permissions, u32le id) in the order owner, users, group, groups, mask, other,
 * ids ascending. Only ACLs that say more than the mode bits are kept.
 */
#include "cli/import_acl.h"

#include <stdlib.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/bytes.h"

#define ACL_VERSION     2
#define ACL_ENTRIES_MAX 512
#define ACL_NO_ID       UINT32_MAX

struct acl_entry {
    uint16_t tag, permissions;
    uint32_t id;
};

/* libarchive's tags, the kernel's, in the kernel's order. */
static const struct {
    int archive_tag;
    uint16_t tag;
} tags[] = {
    {ARCHIVE_ENTRY_ACL_USER_OBJ, 0x01},  {ARCHIVE_ENTRY_ACL_USER, 0x02},
    {ARCHIVE_ENTRY_ACL_GROUP_OBJ, 0x04}, {ARCHIVE_ENTRY_ACL_GROUP, 0x08},
    {ARCHIVE_ENTRY_ACL_MASK, 0x10},      {ARCHIVE_ENTRY_ACL_OTHER, 0x20},
};

static int compare_entries(const void *a, const void *b)
{
    const struct acl_entry *left = a;
    const struct acl_entry *right = b;

    if (left->tag != right->tag)
        return left->tag < right->tag ? -1 : 1;
    return left->id < right->id ? -1 : left->id > right->id;
}

static uint16_t permissions_of(int permset)
{
    return (uint16_t)(((permset & ARCHIVE_ENTRY_ACL_READ) != 0 ? 4 : 0) |
                      ((permset & ARCHIVE_ENTRY_ACL_WRITE) != 0 ? 2 : 0) |
                      ((permset & ARCHIVE_ENTRY_ACL_EXECUTE) != 0 ? 1 : 0));
}

static unsigned collect(struct archive_entry *member, int type, struct acl_entry *entries)
{
    int entry_type, permset, archive_tag, qualifier;
    const char *name;
    unsigned count = 0;

    (void)archive_entry_acl_reset(member, type);
    while (archive_entry_acl_next(member, type, &entry_type, &permset, &archive_tag, &qualifier,
                                  &name) == ARCHIVE_OK) {
        for (unsigned i = 0; i < CFSR_ARRAY_LEN(tags) && count < ACL_ENTRIES_MAX; i++) {
            if (tags[i].archive_tag != archive_tag)
                continue;
            entries[count++] = (struct acl_entry){
                .tag = tags[i].tag,
                .permissions = permissions_of(permset),
                .id = archive_tag == ARCHIVE_ENTRY_ACL_USER ||
                              archive_tag == ARCHIVE_ENTRY_ACL_GROUP
                          ? (uint32_t)qualifier
                          : ACL_NO_ID,
            };
        }
    }
    qsort(entries, count, sizeof entries[0], compare_entries);
    return count;
}

static int emit_acl(struct archive_entry *member, int type, const char *name, uint64_t inode,
                    int (*emit)(void *user, uint64_t inode, const char *name, const void *value,
                                size_t len),
                    void *user)
{
    struct acl_entry entries[ACL_ENTRIES_MAX];
    uint8_t value[4 + 8 * ACL_ENTRIES_MAX];
    unsigned count = collect(member, type, entries);

    /* Three entries of an access ACL are the mode bits again. */
    if (count == 0 || (type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS && count <= 3))
        return 0;
    cfsr_store_le32(value, ACL_VERSION);
    for (unsigned i = 0; i < count; i++) {
        cfsr_store_le16(value + 4 + 8 * i, entries[i].tag);
        cfsr_store_le16(value + 6 + 8 * i, entries[i].permissions);
        cfsr_store_le32(value + 8 + 8 * i, entries[i].id);
    }
    return emit(user, inode, name, value, 4 + 8 * (size_t)count);
}

int cfsr_import_xattrs(struct archive_entry *member, uint64_t inode,
                       int (*emit)(void *user, uint64_t inode, const char *name, const void *value,
                                   size_t len),
                       void *user)
{
    const char *name;
    const void *value;
    size_t len;
    int rc = 0;

    (void)archive_entry_xattr_reset(member);
    while (rc == 0 && archive_entry_xattr_next(member, &name, &value, &len) == ARCHIVE_OK)
        if (name != NULL)
            rc = emit(user, inode, name, value, len);
    if (rc == 0)
        rc = emit_acl(member, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", inode, emit,
                      user);
    if (rc == 0)
        rc = emit_acl(member, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default", inode,
                      emit, user);
    return rc;
}
