/*
 * tree_apply.c - what each operation does to the target directory.
 *
 * Thread: one. Every function first finds its fields and inodes, then changes the directory, then
 * its own tables: a failed system call leaves both as they were. Names are checked in get_name(),
 * the only place they come from.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cfsrepl/payload.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "cli/tree_internal.h"

struct change {
    struct cfsr_tree *tree;
    unsigned op;
    uint64_t inode;
    const void *payload;
    uint32_t payload_bytes;
};

/* A directory entry that an operation names. */
struct place {
    uint64_t parent;
    char name[256];
    size_t len;
    struct cfsr_name *entry; /* NULL: nothing is there */
};

static bool find(const struct change *change, uint16_t tag, struct cfsr_field *field_out)
{
    return cfsr_payload_find(change->payload, change->payload_bytes, tag, field_out) == 1;
}

static bool find_u64(const struct change *change, uint16_t tag, uint64_t *value_out)
{
    return cfsr_payload_get_u64(change->payload, change->payload_bytes, tag, value_out) == 1;
}

static int lacks(const struct change *change, const char *field)
{
    return cfsr_fail(-CFSR_E_FORMAT, "%s of inode %llu has no %s", cfsr_op_name(change->op),
                     (unsigned long long)change->inode, field);
}

static int get_name(const struct change *change, uint16_t tag, struct place *place)
{
    struct cfsr_field field;

    if (!find(change, tag, &field))
        return lacks(change, "name");
    if (field.len_bytes == 0 || field.len_bytes > 255 ||
        memchr(field.value, '/', field.len_bytes) != NULL ||
        memchr(field.value, 0, field.len_bytes) != NULL ||
        (field.len_bytes == 1 && field.value[0] == '.') ||
        (field.len_bytes == 2 && memcmp(field.value, "..", 2) == 0))
        return cfsr_fail(-CFSR_E_UNSAFE_PATH,
                         "%s of inode %llu has an unsafe name: '%.*s': nothing was written for it",
                         cfsr_op_name(change->op), (unsigned long long)change->inode,
                         field.len_bytes > 64 ? 64 : (int)field.len_bytes,
                         (const char *)field.value);
    memcpy(place->name, field.value, field.len_bytes);
    place->name[field.len_bytes] = '\0';
    place->len = field.len_bytes;
    return 0;
}

static int get_place(const struct change *change, uint16_t parent_tag, uint16_t name_tag,
                     struct place *place)
{
    const struct cfsr_node *parent;
    int rc = get_name(change, name_tag, place);

    if (rc < 0)
        return rc;
    if (!find_u64(change, parent_tag, &place->parent))
        return lacks(change, "parent");
    parent = cfsr_nodes_find(&change->tree->nodes, place->parent);
    if (parent == NULL || !S_ISDIR(parent->mode))
        return cfsr_fail(-CFSR_E_BAD_ORDER,
                         "%s of inode %llu: the parent %llu is not a directory made before it",
                         cfsr_op_name(change->op), (unsigned long long)change->inode,
                         (unsigned long long)place->parent);
    place->parent = parent->inode; /* aliases resolved */
    place->entry = cfsr_names_find(&change->tree->nodes.names, place->parent, place->name,
                                   place->len);
    return 0;
}

static int get_node(const struct change *change, struct cfsr_node **node_out)
{
    struct cfsr_node *node = cfsr_nodes_find(&change->tree->nodes, change->inode);

    if (node == NULL)
        return cfsr_fail(-CFSR_E_BAD_ORDER, "%s of inode %llu comes before the inode was made",
                         cfsr_op_name(change->op), (unsigned long long)change->inode);
    *node_out = node;
    return 0;
}

/* Remembers permissions and time for the end; sets the owner now, because that clears capabilities.
 */
static int take_attributes(const struct change *change, struct cfsr_node *node)
{
    uint64_t mode, mtime, uid, gid;
    bool has_uid = find_u64(change, CFSR_TAG_UID, &uid);
    bool has_gid = find_u64(change, CFSR_TAG_GID, &gid);
    int fd;
    int rc;

    if (find_u64(change, CFSR_TAG_MODE, &mode)) {
        node->mode = (node->mode & S_IFMT) | ((uint32_t)mode & 07777);
        node->flags |= CFSR_NODE_HAS_MODE;
    }
    if (find_u64(change, CFSR_TAG_MTIME_NS, &mtime)) {
        node->mtime_ns = (int64_t)mtime;
        node->flags |= CFSR_NODE_HAS_MTIME;
    }
    if (!change->tree->privileged || (!has_uid && !has_gid))
        return 0;
    rc = cfsr_tree_open_node(change->tree, node, &fd);
    if (rc < 0)
        return rc;
    if (fchownat(fd, "", has_uid ? (uid_t)uid : (uid_t)-1, has_gid ? (gid_t)gid : (gid_t)-1,
                 AT_EMPTY_PATH) < 0)
        rc = cfsr_tree_failed(change->tree, -errno, "set the owner", node->inode, "");
    (void)close(fd);
    return rc;
}

static int remove_place(const struct change *change, const struct place *place)
{
    struct cfsr_tree *tree = change->tree;
    struct cfsr_node *node = cfsr_nodes_find(&tree->nodes, place->entry->inode);
    int fd;
    int rc = cfsr_tree_directory(tree, place->parent, &fd);

    CFSR_ASSERT(node != NULL);
    if (rc < 0)
        return rc;
    if (unlinkat(fd, place->name, S_ISDIR(node->mode) ? AT_REMOVEDIR : 0) < 0)
        return cfsr_tree_failed(tree, -errno, "remove", place->parent, place->name);
    cfsr_nodes_unname(&tree->nodes, place->entry);
    if (node->first_name == 0)
        cfsr_tree_forget(tree, node->inode);
    tree->stats.removed++;
    return 0;
}

static int make_once(const struct change *change, const struct place *place, int dir_fd,
                     uint32_t mode)
{
    uint64_t rdev = 0;
    struct cfsr_field target;
    char text[4097];
    int fd;

    if (S_ISDIR(mode))
        return mkdirat(dir_fd, place->name, 0700) < 0 ? -errno : 0;
    if (S_ISLNK(mode)) {
        if (!find(change, CFSR_TAG_TARGET, &target) || target.len_bytes == 0 ||
            target.len_bytes > 4096)
            return lacks(change, "usable target");
        memcpy(text, target.value, target.len_bytes);
        text[target.len_bytes] = '\0';
        return symlinkat(text, dir_fd, place->name) < 0 ? -errno : 0;
    }
    if (S_ISREG(mode)) {
        fd = openat(dir_fd, place->name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
                    0600);
        if (fd < 0)
            return -errno;
        cfsr_tree_keep_file(change->tree, change->inode, fd);
        return 0;
    }
    (void)find_u64(change, CFSR_TAG_RDEV, &rdev);
    return mknodat(dir_fd, place->name, (mode & S_IFMT) | 0600, (dev_t)rdev) < 0 ? -errno : 0;
}

/* With force something foreign may stand there: a real directory is taken over, anything else gives
 * way. */
static int make(const struct change *change, const struct place *place, int dir_fd, uint32_t mode)
{
    struct stat found;
    int rc = make_once(change, place, dir_fd, mode);

    if (rc != -EEXIST || !change->tree->force)
        return rc;
    if (fstatat(dir_fd, place->name, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (S_ISDIR(found.st_mode))
        return S_ISDIR(mode) ? 0 : -EISDIR;
    if (unlinkat(dir_fd, place->name, 0) < 0)
        return -errno;
    return make_once(change, place, dir_fd, mode);
}

static void count_made(struct cfsr_tree *tree, uint32_t mode)
{
    uint64_t *counter = S_ISDIR(mode)   ? &tree->stats.directories
                        : S_ISREG(mode) ? &tree->stats.files
                        : S_ISLNK(mode) ? &tree->stats.symlinks
                                        : &tree->stats.nodes;
    *counter += 1;
}

/* MkDir of a name that is a directory already: the new number means the same directory. */
static int alias_directory(const struct change *change, uint64_t inode)
{
    struct cfsr_node *node = cfsr_nodes_add(&change->tree->nodes, change->inode, S_IFDIR);

    if (node == NULL)
        return -ENOMEM;
    node->flags |= CFSR_NODE_ALIAS;
    node->alias_of = inode;
    return take_attributes(change, cfsr_nodes_find(&change->tree->nodes, inode));
}

static int apply_make(const struct change *change, uint32_t mode)
{
    struct cfsr_tree *tree = change->tree;
    struct place place;
    struct cfsr_node *node;
    int fd;
    int rc = get_place(change, CFSR_TAG_PARENT, CFSR_TAG_NAME, &place);

    if (rc == 0 && cfsr_nodes_find(&tree->nodes, change->inode) != NULL)
        rc = cfsr_fail(-CFSR_E_BAD_ORDER, "%s: inode %llu was made before",
                       cfsr_op_name(change->op), (unsigned long long)change->inode);
    if (rc < 0)
        return rc;
    if (place.entry != NULL) {
        const struct cfsr_node *old = cfsr_nodes_find(&tree->nodes, place.entry->inode);

        if (S_ISDIR(old->mode) && S_ISDIR(mode))
            return alias_directory(change, old->inode);
        rc = S_ISDIR(old->mode) ? cfsr_tree_failed(tree, -EISDIR, "make", place.parent, place.name)
                                : remove_place(change, &place);
    }
    if (rc == 0)
        rc = cfsr_tree_directory(tree, place.parent, &fd);
    if (rc < 0)
        return rc;
    rc = make(change, &place, fd, mode);
    if (rc < 0)
        return rc == -CFSR_E_FORMAT ? rc
                                    : cfsr_tree_failed(tree, rc, "make", place.parent, place.name);
    node = cfsr_nodes_add(&tree->nodes, change->inode, mode & S_IFMT);
    if (node == NULL ||
        cfsr_nodes_name(&tree->nodes, change->inode, place.parent, place.name, place.len) < 0)
        return -ENOMEM;
    count_made(tree, mode);
    return take_attributes(change, cfsr_nodes_find(&tree->nodes, change->inode));
}

static int apply_create(const struct change *change)
{
    uint64_t mode;

    if (!find_u64(change, CFSR_TAG_MODE, &mode))
        mode = S_IFREG | 0600;
    if ((mode & S_IFMT) == 0)
        mode |= S_IFREG;
    if (S_ISDIR(mode) || S_ISLNK(mode))
        return cfsr_fail(-CFSR_E_FORMAT, "Create of inode %llu has the mode of another type: %llo",
                         (unsigned long long)change->inode, (unsigned long long)mode);
    return apply_make(change, (uint32_t)mode);
}

static int no_such_name(const struct change *change, const struct place *place)
{
    return cfsr_tree_failed(change->tree, -CFSR_E_BAD_ORDER,
                            change->op == CFSR_OP_UNLINK ? "unlink what is not there"
                                                         : "rename what is not there",
                            place->parent, place->name);
}

static int apply_unlink(const struct change *change)
{
    struct place place;
    int rc = get_place(change, CFSR_TAG_PARENT, CFSR_TAG_NAME, &place);

    if (rc < 0)
        return rc;
    return place.entry == NULL ? no_such_name(change, &place) : remove_place(change, &place);
}

static int apply_link(const struct change *change)
{
    struct cfsr_tree *tree = change->tree;
    struct place place;
    struct cfsr_node *node = NULL;
    int dir_fd;
    int fd = -1;
    int rc = get_place(change, CFSR_TAG_PARENT, CFSR_TAG_NAME, &place);
    char path[40];

    if (rc == 0)
        rc = get_node(change, &node);
    if (rc == 0 && place.entry != NULL && place.entry->inode == node->inode)
        return 0;
    if (rc == 0 && place.entry != NULL)
        rc = remove_place(change, &place);
    if (rc == 0)
        rc = cfsr_tree_open_node(tree, node, &fd);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    rc = cfsr_tree_directory(tree, place.parent, &dir_fd);
    if (rc == 0 &&
        linkat(AT_FDCWD, path, dir_fd, place.name, AT_SYMLINK_FOLLOW) < 0) /* follows /proc only */
        rc = cfsr_tree_failed(tree, -errno, "link", place.parent, place.name);
    (void)close(fd);
    if (rc == 0)
        rc = cfsr_nodes_name(&tree->nodes, node->inode, place.parent, place.name, place.len);
    tree->stats.links += rc == 0;
    return rc;
}

static bool is_below(const struct cfsr_nodes *nodes, uint64_t inode, uint64_t ancestor)
{
    for (unsigned depth = 0; depth < CFSR_NODES_DEPTH_MAX && inode != CFSR_TREE_ROOT_INODE;
         depth++) {
        const struct cfsr_node *node = cfsr_nodes_find(nodes, inode);
        const struct cfsr_name *name = node != NULL ? cfsr_nodes_first_name(nodes, node) : NULL;

        if (inode == ancestor)
            return true;
        if (name == NULL)
            return false;
        inode = name->parent;
    }
    return false;
}

static int apply_rename(const struct change *change)
{
    struct cfsr_tree *tree = change->tree;
    struct place from, to;
    uint64_t inode;
    int from_fd, to_fd;
    int rc = get_place(change, CFSR_TAG_PARENT, CFSR_TAG_NAME, &from);

    if (rc == 0)
        rc = get_place(change, CFSR_TAG_NEW_PARENT, CFSR_TAG_NEW_NAME, &to);
    if (rc < 0)
        return rc;
    /* Across shards a rename is two records: the first one seen does it, the other finds it done.
     */
    if (from.entry == NULL && to.entry != NULL && to.entry->inode == change->inode)
        return 0;
    if (from.entry == NULL)
        return no_such_name(change, &from);
    inode = from.entry->inode;
    if (to.entry == from.entry || (to.entry != NULL && to.entry->inode == inode))
        return to.entry == from.entry ? 0 : remove_place(change, &from);
    if (is_below(&tree->nodes, to.parent, inode))
        return cfsr_tree_failed(tree, -EINVAL, "rename a directory into itself", to.parent,
                                to.name);
    if (to.entry != NULL)
        rc = remove_place(change, &to);
    if (rc == 0)
        rc = cfsr_tree_directory(tree, from.parent, &from_fd);
    if (rc == 0)
        from_fd = fcntl(from_fd, F_DUPFD_CLOEXEC, 3); /* the next lookup may evict it */
    if (rc < 0 || from_fd < 0)
        return rc < 0 ? rc : -errno;
    rc = cfsr_tree_directory(tree, to.parent, &to_fd);
    if (rc == 0 && renameat(from_fd, from.name, to_fd, to.name) < 0)
        rc = cfsr_tree_failed(tree, -errno, "rename", from.parent, from.name);
    (void)close(from_fd);
    if (rc < 0)
        return rc;
    cfsr_nodes_unname(&tree->nodes, from.entry);
    return cfsr_nodes_name(&tree->nodes, inode, to.parent, to.name, to.len);
}

static int write_data(int fd, const uint8_t *data, uint32_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t written = pwrite(fd, data, len, (off_t)offset);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        data += written;
        offset += (uint64_t)written;
        len -= (uint32_t)written;
    }
    return 0;
}

/* Contents that stayed at the origin: the file gets its length, as a hole. */
static int extend(int fd, uint64_t end)
{
    struct stat now;

    if (fstat(fd, &now) < 0)
        return -errno;
    if ((uint64_t)now.st_size >= end)
        return 0;
    return ftruncate(fd, (off_t)end) < 0 ? -errno : 0;
}

static int apply_write(const struct change *change)
{
    struct cfsr_tree *tree = change->tree;
    struct cfsr_field data;
    struct cfsr_node *node = NULL;
    uint64_t offset, length;
    int fd;
    int rc = get_node(change, &node);

    if (rc == 0 && !find_u64(change, CFSR_TAG_OFFSET, &offset))
        rc = lacks(change, "offset");
    if (rc == 0)
        rc = cfsr_tree_file(tree, node, &fd);
    if (rc < 0)
        return rc;
    if (find(change, CFSR_TAG_DATA, &data)) {
        if (offset > (uint64_t)INT64_MAX - data.len_bytes)
            return cfsr_fail(-CFSR_E_FORMAT, "Write of inode %llu ends beyond 2^63",
                             (unsigned long long)change->inode);
        rc = write_data(fd, data.value, data.len_bytes, offset);
        tree->stats.data_bytes += data.len_bytes;
    } else if (find_u64(change, CFSR_TAG_LENGTH, &length) && length <= INT64_MAX &&
               offset <= (uint64_t)INT64_MAX - length) {
        rc = extend(fd, offset + length);
        tree->stats.without_data++;
    } else {
        return lacks(change, "usable data or length");
    }
    if (rc < 0)
        return cfsr_tree_failed(tree, rc, "write", node->inode, "");
    return take_attributes(change, node);
}

static int resize(const struct change *change, struct cfsr_node *node, uint64_t size)
{
    int fd;
    int rc = cfsr_tree_file(change->tree, node, &fd);

    if (rc == 0 && (size > INT64_MAX || ftruncate(fd, (off_t)size) < 0))
        rc = cfsr_tree_failed(change->tree, size > INT64_MAX ? -EFBIG : -errno, "truncate",
                              node->inode, "");
    return rc;
}

static int apply_attributes(const struct change *change)
{
    struct cfsr_node *node = NULL;
    uint64_t size;
    int rc = get_node(change, &node);

    if (rc < 0)
        return rc;
    if (find_u64(change, CFSR_TAG_SIZE, &size))
        rc = resize(change, node, size);
    else if (change->op == CFSR_OP_TRUNCATE)
        rc = lacks(change, "size");
    return rc < 0 ? rc : take_attributes(change, node);
}

static int apply_xattr(const struct change *change)
{
    struct cfsr_tree *tree = change->tree;
    struct cfsr_field name, value;
    struct cfsr_node *node = NULL;
    char path[40];
    char text[256];
    int fd;
    int rc = get_node(change, &node);

    if (rc < 0)
        return rc;
    if (!find(change, CFSR_TAG_XATTR_NAME, &name) || name.len_bytes == 0 || name.len_bytes > 255)
        return lacks(change, "usable xattr name");
    if (change->op == CFSR_OP_SETXATTR && !find(change, CFSR_TAG_VALUE, &value))
        return lacks(change, "value");
    memcpy(text, name.value, name.len_bytes);
    text[name.len_bytes] = '\0';
    rc = cfsr_tree_open_node(tree, node, &fd);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (change->op == CFSR_OP_SETXATTR)
        rc = setxattr(path, text, value.value, value.len_bytes, 0) < 0 ? -errno : 0;
    else
        rc = removexattr(path, text) < 0 && errno != ENODATA ? -errno : 0;
    (void)close(fd);
    if (rc == -ENOTSUP || rc == -EPERM) {
        tree->stats.xattrs_refused++;
        return 0;
    }
    tree->stats.xattrs += rc == 0;
    return rc < 0 ? cfsr_tree_failed(tree, rc, "set the extended attribute of", node->inode, "")
                  : 0;
}

int cfsr_tree_apply(struct cfsr_tree *tree, unsigned op, uint8_t flags, uint64_t inode,
                    const void *payload, uint32_t payload_bytes)
{
    const struct change change = {tree, op, inode, payload, payload_bytes};
    struct cfsr_field field;
    uint32_t cursor = 0;
    int rc;

    if ((flags & CFSR_ENTRY_OPAQUE) != 0) {
        tree->stats.opaque++;
        return 0;
    }
    while ((rc = cfsr_payload_next(payload, payload_bytes, &cursor, &field)) == 1)
        continue;
    if (rc < 0)
        return cfsr_fail(-CFSR_E_FORMAT, "the payload of inode %llu is malformed",
                         (unsigned long long)inode);
    switch (op) {
    case CFSR_OP_CREATE: rc = apply_create(&change); break;
    case CFSR_OP_UNLINK: rc = apply_unlink(&change); break;
    case CFSR_OP_RENAME: rc = apply_rename(&change); break;
    case CFSR_OP_WRITE: rc = apply_write(&change); break;
    case CFSR_OP_TRUNCATE:
    case CFSR_OP_SETATTR: rc = apply_attributes(&change); break;
    case CFSR_OP_LINK: rc = apply_link(&change); break;
    case CFSR_OP_SYMLINK: rc = apply_make(&change, S_IFLNK | 0777); break;
    case CFSR_OP_MKDIR: rc = apply_make(&change, S_IFDIR | 0700); break;
    case CFSR_OP_SETXATTR:
    case CFSR_OP_REMOVEXATTR: rc = apply_xattr(&change); break;
    default: rc = cfsr_fail(-CFSR_E_FORMAT, "operation %u is not known", op); break;
    }
    tree->stats.entries += rc == 0;
    return rc;
}
