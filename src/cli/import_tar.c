/*
 * import_tar.c - reads the archive and decides what each member becomes.
 *
 * Thread: one. libarchive reads; entries leave through options->entry. The checksum of a file's
 * contents is kept from the first round, so that further rounds of a listing (--repeat without
 * data) skip the contents. Rejected: refusing the whole archive for one bad member: tar itself goes
 * on and says so at the end, and what was already read from a pipe cannot be put back.
 */
#include "cli/import_tar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/fail.h"
#include "cli/import_acl.h"
#include "cli/import_state.h"

#define READ_BLOCK_BYTES (256u << 10)

/* Checksums of contents in the order of the archive's members, from the first round. */
struct sums {
    uint32_t *values;
    size_t count, capacity, next;
    bool known; /* a whole round was read */
};

struct tar_reader {
    struct cfsr_import import;
    struct archive *archive;
    struct sums sums;
};

static struct cfsr_import_attributes attributes_of(struct archive_entry *member)
{
    return (struct cfsr_import_attributes){
        .mode = archive_entry_mode(member),
        .uid = (uint64_t)archive_entry_uid(member),
        .gid = (uint64_t)archive_entry_gid(member),
        .mtime_ns = (uint64_t)archive_entry_mtime(member) * 1000000000u +
                    (uint64_t)archive_entry_mtime_nsec(member),
    };
}

static int archive_failed(const struct tar_reader *reader, const char *last)
{
    const char *text = archive_error_string(reader->archive);
    int error = archive_errno(reader->archive);
    const char *name = strcmp(reader->import.options->path, "-") == 0
                           ? "standard input"
                           : reader->import.options->path;
    int rc = -CFSR_E_FORMAT;

    if (error == EIO || error == ENOENT || error == EACCES || error == EISDIR || error == ENOMEM)
        rc = -error;
    if (last[0] != '\0')
        return cfsr_fail(rc, "cannot read the archive: %s: after member %s: %s", name, last,
                         text != NULL ? text : "unknown error");
    return cfsr_fail(rc, "cannot read the archive: %s: %s", name,
                     text != NULL ? text : "unknown error");
}

/* A Write; data NULL: only its length and checksum. */
static int emit_write(struct cfsr_import *import, uint64_t inode, uint64_t offset, const void *data,
                      uint64_t len, uint32_t sum)
{
    cfsr_import_begin(import);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_OFFSET, offset);
    if (data != NULL) {
        cfsr_payload_put_bytes(&import->builder, CFSR_TAG_DATA, data, (uint32_t)len);
        import->stats->data_bytes += len;
    } else {
        cfsr_payload_put_u64(&import->builder, CFSR_TAG_LENGTH, len);
        cfsr_payload_put_u64(&import->builder, CFSR_TAG_DATA_SUM, sum);
    }
    cfsr_import_put_hint(import);
    return cfsr_import_end(import, CFSR_OP_WRITE, inode, inode);
}

/* Gathers blocks of the archive into pieces; a hole or a full piece ends one. */
struct pieces {
    uint8_t *buffer;
    uint32_t used;
    uint64_t offset; /* of buffer[0] in the file */
};

static int flush_piece(struct cfsr_import *import, uint64_t inode, struct pieces *pieces)
{
    uint32_t used = pieces->used;
    uint64_t offset = pieces->offset;

    pieces->used = 0;
    pieces->offset += used;
    return used == 0 ? 0 : emit_write(import, inode, offset, pieces->buffer, used, 0);
}

static int add_block(struct cfsr_import *import, uint64_t inode, struct pieces *pieces,
                     const uint8_t *data, size_t len, uint64_t offset)
{
    int rc = 0;

    if (offset != pieces->offset + pieces->used) {
        rc = flush_piece(import, inode, pieces);
        pieces->offset = offset;
    }
    while (rc == 0 && len > 0) {
        uint32_t room = import->options->piece_bytes - pieces->used;
        uint32_t part = (uint32_t)cfsr_min_u64(room, len);

        memcpy(pieces->buffer + pieces->used, data, part);
        pieces->used += part;
        data += part;
        len -= part;
        if (pieces->used == import->options->piece_bytes)
            rc = flush_piece(import, inode, pieces);
    }
    return rc;
}

static int emit_data(struct tar_reader *reader, uint64_t inode, uint64_t size)
{
    struct cfsr_import *import = &reader->import;
    struct pieces pieces = {.buffer = malloc(import->options->piece_bytes)};
    const void *block;
    size_t len;
    la_int64_t offset;
    int status;
    int rc = 0;

    if (pieces.buffer == NULL)
        return -ENOMEM;
    while (rc == 0 && (status = archive_read_data_block(reader->archive, &block, &len, &offset)) !=
                          ARCHIVE_EOF) {
        if (status < ARCHIVE_WARN)
            rc = archive_failed(reader, import->path);
        else if (len > 0)
            rc = add_block(import, inode, &pieces, block, len, (uint64_t)offset);
    }
    if (rc == 0)
        rc = flush_piece(import, inode, &pieces);
    if (rc == 0 && pieces.offset < size) { /* it ends in a hole */
        cfsr_import_begin(import);
        cfsr_payload_put_u64(&import->builder, CFSR_TAG_SIZE, size);
        cfsr_import_put_hint(import);
        rc = cfsr_import_end(import, CFSR_OP_TRUNCATE, inode, inode);
    }
    free(pieces.buffer);
    return rc;
}

static uint32_t sum_zeros(uint32_t sum, uint64_t len)
{
    static const uint8_t zeros[65536];

    for (; len > 0; len -= cfsr_min_u64(len, sizeof zeros))
        sum = cfsr_crc32c(sum, zeros, (size_t)cfsr_min_u64(len, sizeof zeros));
    return sum;
}

/* Checksum of the contents as a reader of the file sees them: holes are zeros. */
static int sum_contents(struct tar_reader *reader, uint64_t size, uint32_t *sum_out)
{
    const void *block;
    size_t len;
    la_int64_t offset;
    uint64_t end = 0;
    uint32_t sum = 0;
    int status;

    while ((status = archive_read_data_block(reader->archive, &block, &len, &offset)) !=
           ARCHIVE_EOF) {
        if (status < ARCHIVE_WARN)
            return archive_failed(reader, reader->import.path);
        if ((uint64_t)offset > end)
            sum = sum_zeros(sum, (uint64_t)offset - end);
        sum = cfsr_crc32c(sum, block, len);
        end = (uint64_t)offset + len;
    }
    *sum_out = size > end ? sum_zeros(sum, size - end) : sum;
    return 0;
}

static int next_sum(struct tar_reader *reader, uint64_t size, uint32_t *sum_out)
{
    struct sums *sums = &reader->sums;
    int rc;

    if (sums->known && sums->next < sums->count) {
        *sum_out = sums->values[sums->next++];
        return 0;
    }
    rc = sum_contents(reader, size, sum_out);
    if (rc < 0 || reader->import.options->repeat == 1)
        return rc;
    if (sums->count == sums->capacity) {
        size_t capacity = sums->capacity == 0 ? 4096 : sums->capacity * 2;
        uint32_t *values = realloc(sums->values, capacity * sizeof values[0]);

        if (values == NULL)
            return -ENOMEM;
        sums->values = values;
        sums->capacity = capacity;
    }
    sums->values[sums->count++] = *sum_out;
    return 0;
}

static int take_contents(struct tar_reader *reader, struct archive_entry *member, uint64_t inode)
{
    uint64_t size = archive_entry_size_is_set(member) ? (uint64_t)archive_entry_size(member) : 0;
    uint32_t sum = 0;
    int rc;

    if (size == 0)
        return 0;
    if (reader->import.options->with_data)
        return emit_data(reader, inode, size);
    rc = next_sum(reader, size, &sum);
    return rc < 0 ? rc : emit_write(&reader->import, inode, 0, NULL, size, sum);
}

static int emit_xattr(void *user, uint64_t inode, const char *name, const void *value, size_t len)
{
    struct cfsr_import *import = user;

    cfsr_import_begin(import);
    cfsr_payload_put_bytes(&import->builder, CFSR_TAG_XATTR_NAME, name, (uint32_t)strlen(name));
    cfsr_payload_put_bytes(&import->builder, CFSR_TAG_VALUE, value, (uint32_t)len);
    cfsr_import_put_hint(import);
    return cfsr_import_end(import, CFSR_OP_SETXATTR, inode, inode);
}

/* A directory that is already there (the root too) takes the member's attributes. */
static int update_directory(struct cfsr_import *import, uint64_t inode,
                            const struct cfsr_import_attributes *attributes)
{
    cfsr_import_begin(import);
    cfsr_import_put_attributes(import, attributes);
    cfsr_import_put_hint(import);
    return cfsr_import_end(import, CFSR_OP_SETATTR, inode, inode);
}

/* Something stands where the member goes: a file is unlinked first, a directory is kept or refuses.
 */
static int clear_place(struct cfsr_import *import, uint64_t parent, const char *name,
                       struct cfsr_name *old)
{
    uint64_t inode = old->inode;

    if (old->type == S_IFDIR) {
        import->why = "a directory of the same path came before it";
        return CFSR_IMPORT_REFUSED;
    }
    old->inode = 0;
    cfsr_import_begin(import);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_PARENT, parent);
    cfsr_payload_put_bytes(&import->builder, CFSR_TAG_NAME, name, (uint32_t)strlen(name));
    cfsr_import_put_hint(import);
    return cfsr_import_end(import, CFSR_OP_UNLINK, inode, parent);
}

static int take_hard_link(struct tar_reader *reader, struct archive_entry *member, uint64_t parent,
                          const char *name)
{
    struct cfsr_import *import = &reader->import;
    char target[CFSR_IMPORT_PATH_MAX];
    struct cfsr_name *old;
    uint64_t inode;
    uint32_t type;
    int rc = cfsr_import_normal_path(import, archive_entry_hardlink(member), target);

    if (rc == 0)
        rc = cfsr_import_find(import, target, &inode, &type);
    if (rc == 0 && type == S_IFDIR) {
        import->why = "it is a hard link to a directory";
        rc = CFSR_IMPORT_REFUSED;
    }
    old = cfsr_names_find(&import->names, parent, name, strlen(name));
    if (rc == 0 && old != NULL && old->inode != inode)
        rc = clear_place(import, parent, name, old);
    else if (rc == 0 && old != NULL)
        return 0; /* a link to itself changes nothing */
    if (rc != 0)
        return rc;
    cfsr_import_begin(import);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_PARENT, parent);
    cfsr_payload_put_bytes(&import->builder, CFSR_TAG_NAME, name, (uint32_t)strlen(name));
    cfsr_import_put_hint(import);
    rc = cfsr_import_end(import, CFSR_OP_LINK, inode, parent);
    if (rc == 0)
        rc = cfsr_names_put(&import->names, parent, name, strlen(name), inode, type);
    return rc < 0 ? rc : take_contents(reader, member, inode);
}

/* The entry that makes the inode: Create, MkDir or Symlink. */
static int emit_new(struct cfsr_import *import, struct archive_entry *member, uint64_t parent,
                    const char *name, const struct cfsr_import_attributes *attributes)
{
    uint32_t type = (uint32_t)archive_entry_filetype(member);
    unsigned op = type == S_IFDIR   ? CFSR_OP_MKDIR
                  : type == S_IFLNK ? CFSR_OP_SYMLINK
                                    : CFSR_OP_CREATE;

    cfsr_import_begin(import);
    cfsr_payload_put_u64(&import->builder, CFSR_TAG_PARENT, parent);
    cfsr_payload_put_bytes(&import->builder, CFSR_TAG_NAME, name, (uint32_t)strlen(name));
    cfsr_import_put_attributes(import, attributes);
    if (type == S_IFLNK)
        cfsr_payload_put_bytes(&import->builder, CFSR_TAG_TARGET, archive_entry_symlink(member),
                               (uint32_t)strlen(archive_entry_symlink(member)));
    if (type == S_IFCHR || type == S_IFBLK)
        cfsr_payload_put_u64(&import->builder, CFSR_TAG_RDEV, archive_entry_rdev(member));
    cfsr_import_put_hint(import);
    return cfsr_import_end(import, op, import->next_inode, parent);
}

static int take_new(struct tar_reader *reader, struct archive_entry *member, uint64_t parent,
                    const char *name, const struct cfsr_import_attributes *attributes)
{
    struct cfsr_import *import = &reader->import;
    struct cfsr_name *old = cfsr_names_find(&import->names, parent, name, strlen(name));
    uint32_t type = (uint32_t)archive_entry_filetype(member);
    uint64_t inode;
    int rc;

    if (old != NULL && old->type == S_IFDIR && type == S_IFDIR) {
        inode = old->inode;
        rc = update_directory(import, inode, attributes);
        return rc < 0 ? rc : cfsr_import_xattrs(member, inode, emit_xattr, import);
    }
    rc = old != NULL ? clear_place(import, parent, name, old) : 0;
    if (rc == 0)
        rc = emit_new(import, member, parent, name, attributes);
    if (rc != 0)
        return rc;
    inode = import->next_inode++;
    rc = cfsr_names_put(&import->names, parent, name, strlen(name), inode, type);
    if (rc == 0 && type == S_IFREG)
        rc = take_contents(reader, member, inode);
    return rc < 0 ? rc : cfsr_import_xattrs(member, inode, emit_xattr, import);
}

static int check_type(struct cfsr_import *import, struct archive_entry *member)
{
    if (archive_entry_hardlink(member) != NULL)
        return 0;
    switch (archive_entry_filetype(member)) {
    case AE_IFLNK:
        if (archive_entry_symlink(member) != NULL && archive_entry_symlink(member)[0] != '\0')
            return 0;
        import->why = "it is a symbolic link without a target";
        return CFSR_IMPORT_REFUSED;
    case AE_IFREG:
    case AE_IFDIR:
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO:
    case AE_IFSOCK: return 0;
    default: import->why = "its type is not known"; return CFSR_IMPORT_REFUSED;
    }
}

static int take_member(struct tar_reader *reader, struct archive_entry *member, const char *path)
{
    struct cfsr_import *import = &reader->import;
    struct cfsr_import_attributes attributes = attributes_of(member);
    uint64_t parent;
    const char *name;
    int rc;

    rc = check_type(import, member);
    if (rc == 0)
        rc = cfsr_import_normal_path(import, path, import->path);
    if (rc != 0)
        return rc;
    if (path[0] == '/') {
        import->stats->notices++;
        import->options->notice(import->options->user, path, "its leading '/' was removed", false);
    }
    rc = cfsr_import_parent(import, import->path, &attributes, &parent, &name);
    if (rc != 0)
        return rc;
    if (archive_entry_hardlink(member) != NULL)
        return take_hard_link(reader, member, parent, name);
    if (name[0] != '\0')
        return take_new(reader, member, parent, name, &attributes);
    if (archive_entry_filetype(member) != AE_IFDIR) {
        import->why = "it has no name";
        return CFSR_IMPORT_REFUSED;
    }
    rc = update_directory(import, CFSR_ROOT_INODE, &attributes); /* "./" */
    return rc < 0 ? rc : cfsr_import_xattrs(member, CFSR_ROOT_INODE, emit_xattr, import);
}

static int read_members(struct tar_reader *reader)
{
    struct cfsr_import *import = &reader->import;
    const struct cfsr_import_options *options = import->options;
    struct archive_entry *member;
    int status;

    import->path[0] = '\0';
    while ((status = archive_read_next_header(reader->archive, &member)) != ARCHIVE_EOF) {
        const char *path;
        int rc;

        if (status < ARCHIVE_WARN)
            return archive_failed(reader, import->path);
        path = archive_entry_pathname(member);
        import->stats->members++;
        import->why = "its path cannot be read";
        rc = path == NULL ? CFSR_IMPORT_REFUSED : take_member(reader, member, path);
        if (rc < 0)
            return rc;
        if (rc == CFSR_IMPORT_REFUSED) {
            import->stats->refused++;
            options->notice(options->user, path != NULL ? path : "(no path)", import->why, true);
        }
        if (options->progress != NULL)
            options->progress(options->user, import->stats);
    }
    return 0;
}

static int read_archive(struct tar_reader *reader)
{
    const char *path = reader->import.options->path;
    int rc = -ENOMEM;

    reader->archive = archive_read_new();
    if (reader->archive == NULL)
        return rc;
    archive_read_support_filter_all(reader->archive);
    archive_read_support_format_tar(reader->archive);
    if (archive_read_open_filename(reader->archive, strcmp(path, "-") == 0 ? NULL : path,
                                   READ_BLOCK_BYTES) != ARCHIVE_OK)
        rc = archive_failed(reader, "");
    else
        rc = read_members(reader);
    (void)archive_read_free(reader->archive);
    return rc;
}

static int set_prefix(struct cfsr_import *import, uint32_t round)
{
    const char *under = import->options->under != NULL ? import->options->under : "";
    char prefix[CFSR_IMPORT_PATH_MAX];
    int len;

    if (import->options->repeat > 1)
        len = snprintf(prefix, sizeof prefix, "%s/r%04" PRIu32, under, round);
    else
        len = snprintf(prefix, sizeof prefix, "%s", under);
    import->prefix[0] = '\0';
    if (len >= (int)sizeof prefix || cfsr_import_normal_path(import, prefix, import->path) != 0)
        return cfsr_fail(-CFSR_E_USAGE, "the directory to import into is not usable: %s", under);
    memcpy(import->prefix, import->path, sizeof import->prefix);
    return 0;
}

int cfsr_import_tar(const struct cfsr_import_options *options, struct cfsr_import_stats *stats_out)
{
    struct tar_reader reader = {
        .import = {.options = options, .stats = stats_out, .next_inode = options->first_inode}};
    int rc = 0;

    CFSR_ASSERT(options->repeat >= 1 && options->piece_bytes >= 1 &&
                options->piece_bytes <= CFSR_IMPORT_PIECE_MAX);
    CFSR_ASSERT(options->first_inode > CFSR_ROOT_INODE);
    memset(stats_out, 0, sizeof *stats_out);
    cfsr_names_init(&reader.import.names);
    reader.import.payload = malloc(CFSR_IMPORT_PAYLOAD_BYTES);
    if (reader.import.payload == NULL)
        return -ENOMEM;
    for (uint32_t round = 1; rc == 0 && round <= options->repeat; round++) {
        rc = set_prefix(&reader.import, round);
        if (rc == 0)
            rc = read_archive(&reader);
        /* Rounds share nothing but --under, whose directories the next round must find: they are
         * made again only if forgotten. */
        if (options->under == NULL)
            cfsr_names_clear(&reader.import.names);
        reader.sums.known = true;
        reader.sums.next = 0;
    }
    free(reader.sums.values);
    free(reader.import.payload);
    cfsr_names_fini(&reader.import.names);
    return rc;
}
