/*
 * import_entries.c - paths to inodes and entries, for the tar import.
 *
 * Thread: one. Invariant: every inode that an entry names was made by an earlier entry, or is the
 * root. No archive is read here.
 */
#include <string.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "cli/import_state.h"
#include "journal/record.h"

#define NAME_BYTES_MAX 255

void cfsr_import_begin(struct cfsr_import *import)
{
    cfsr_payload_begin(&import->builder, import->payload, CFSR_IMPORT_PAYLOAD_BYTES);
}

int cfsr_import_end(struct cfsr_import *import, unsigned op, uint64_t inode, uint64_t shard_key)
{
    struct cfsr_entry entry = {
        .shard_id = CFSR_SHARD_AUTO,
        .shard_key = shard_key,
        .inode = inode,
        .op = (uint8_t)op,
        .payload = import->payload,
        .payload_bytes = import->builder.len_bytes,
    };
    int rc;

    if (import->builder.error != 0)
        return cfsr_fail(import->builder.error,
                         "%s: its names and values do not fit into one record", import->path);
    rc = import->options->entry(import->options->user, &entry);
    if (rc < 0)
        return rc;
    import->stats->entries++;
    import->stats->record_bytes += CFSR_RECORD_HEADER_BYTES +
                                   cfsr_align_up(entry.payload_bytes, CFSR_RECORD_ALIGN);
    return 0;
}

void cfsr_import_put_hint(struct cfsr_import *import)
{
    if (import->path[0] == '\0')
        return; /* the root */
    cfsr_payload_put_bytes(&import->builder, CFSR_TAG_PATH_HINT, import->path,
                           (uint32_t)strlen(import->path));
}

void cfsr_import_put_attributes(struct cfsr_import *import,
                                const struct cfsr_import_attributes *attributes)
{
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_MODE, attributes->mode);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_UID, attributes->uid);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_GID, attributes->gid);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_MTIME_NS, attributes->mtime_ns);
}

static int refuse(struct cfsr_import *import, const char *why)
{
    import->why = why;
    return CFSR_IMPORT_REFUSED;
}

int cfsr_import_normal_path(struct cfsr_import *import, const char *path,
                            char path_out[CFSR_IMPORT_PATH_MAX])
{
    size_t used = strlen(import->prefix);

    memcpy(path_out, import->prefix, used + 1);
    while (*path != '\0') {
        size_t len = strcspn(path, "/");

        if (len == 2 && memcmp(path, "..", 2) == 0)
            return refuse(import, "its path contains '..'");
        if (len > NAME_BYTES_MAX)
            return refuse(import, "a name in its path is longer than 255 bytes");
        if (len > 0 && !(len == 1 && path[0] == '.')) {
            if (used + len + 2 > CFSR_IMPORT_PATH_MAX)
                return refuse(import, "its path is longer than 4095 bytes");
            if (used > 0)
                path_out[used++] = '/';
            memcpy(path_out + used, path, len);
            used += len;
            path_out[used] = '\0';
        }
        path += len + (path[len] == '/' ? 1 : 0);
    }
    return 0;
}

static int make_directory(struct cfsr_import *import, uint64_t parent, const char *name, size_t len,
                          const struct cfsr_import_attributes *like, uint64_t *inode_out)
{
    struct cfsr_import_attributes attributes = *like;
    uint64_t inode = import->next_inode;
    int rc;

    attributes.mode = S_IFDIR | 0755;
    cfsr_import_begin(import);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_PARENT, parent);
    cfsr_payload_put_bytes(&import->builder, CFSR_TAG_NAME, name, (uint32_t)len);
    cfsr_import_put_attributes(import, &attributes);
    rc = cfsr_import_end(import, CFSR_OP_MKDIR, inode, parent);
    if (rc < 0)
        return rc;
    import->next_inode++;
    *inode_out = inode;
    return cfsr_names_put(&import->names, parent, name, len, inode, S_IFDIR);
}

int cfsr_import_parent(struct cfsr_import *import, const char *path,
                       const struct cfsr_import_attributes *like, uint64_t *parent_out,
                       const char **name_out)
{
    uint64_t parent = CFSR_ROOT_INODE;

    for (;;) {
        size_t len = strcspn(path, "/");
        const struct cfsr_name *entry;
        int rc;

        if (path[len] == '\0') {
            *parent_out = parent;
            *name_out = path;
            return 0;
        }
        entry = cfsr_names_find(&import->names, parent, path, len);
        if (entry == NULL) {
            rc = make_directory(import, parent, path, len, like, &parent);
            if (rc < 0)
                return rc;
        } else if (entry->type == S_IFLNK) {
            return refuse(import, "its path goes through a symbolic link of the archive");
        } else if (entry->type != S_IFDIR) {
            return refuse(import, "its path goes through something that is not a directory");
        } else {
            parent = entry->inode;
        }
        path += len + 1;
    }
}

int cfsr_import_find(struct cfsr_import *import, const char *path, uint64_t *inode_out,
                     uint32_t *type_out)
{
    uint64_t inode = CFSR_ROOT_INODE;
    uint32_t type = S_IFDIR;

    while (*path != '\0') {
        size_t len = strcspn(path, "/");
        const struct cfsr_name *entry = cfsr_names_find(&import->names, inode, path, len);

        if (entry == NULL)
            return refuse(
                import, "it is a hard link to something that the archive does not hold before it");
        inode = entry->inode;
        type = entry->type;
        path += len + (path[len] == '/' ? 1 : 0);
    }
    *inode_out = inode;
    *type_out = type;
    return 0;
}
