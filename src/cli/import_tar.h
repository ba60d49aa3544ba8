/*
 * import_tar.h - a tar archive as journal entries.
 *
 * Every member becomes entries in the order of the archive: MkDir, Create (files and nodes),
 * Symlink, Link, SetXattr (POSIX ACLs too), SetAttr (a directory named again), Unlink (a file named
 * again), Write (with data in pieces, or one with length and checksum), Truncate (a file that ends
 * in a hole). Entry fields: docs/records.md.
 *
 * Inode numbers are given in order from options.first_inode; the root is inode 1. Directories that
 * a path needs and the archive lacks are made. A member that cannot be taken is refused by name and
 * the rest goes on: '..' in a path, no name, a name over 255 bytes, a hard link to nothing, a path
 * through something that is no directory, an unknown type. Absolute paths lose their leading '/',
 * with a notice.
 */
#ifndef CFSR_CLI_IMPORT_TAR_H
#define CFSR_CLI_IMPORT_TAR_H

#include <stdbool.h>
#include <stdint.h>

#include <cfsrepl/journal.h>

#define CFSR_ROOT_INODE 1
/* Data of one Write; names and numbers fit beside it. */
#define CFSR_IMPORT_PIECE_MAX ((1u << 20) - 8192)

struct cfsr_import_stats {
    uint64_t members;
    uint64_t entries;
    uint64_t record_bytes; /* as they stand in the journal, headers included */
    uint64_t data_bytes;   /* contents carried by Write entries */
    uint64_t refused;      /* members */
    uint64_t notices;      /* members that were changed to be taken */
};

struct cfsr_import_options {
    const char *path; /* of the archive; "-": standard input (repeat must be 1) */
    bool with_data;
    uint32_t repeat;      /* >= 1; above 1 each round goes below its own r0001, r0002, … */
    uint32_t piece_bytes; /* data of one Write, <= CFSR_IMPORT_PIECE_MAX */
    const char *under;    /* directory below the root to import into; NULL: the root */
    uint64_t first_inode;
    /* One entry; valid during the call. 0 or a negative error, which ends the import. */
    int (*entry)(void *user, const struct cfsr_entry *entry);
    /* A member was refused (or taken with a change, refused false), and why. */
    void (*notice)(void *user, const char *member, const char *why, bool refused);
    /* Called after each member; may be NULL. */
    void (*progress)(void *user, const struct cfsr_import_stats *stats);
    void *user;
};

/*
 * Reads the whole archive. 0 also if members were refused (see stats). -CFSR_E_FORMAT: not a tar,
 * or it ends early (names the last member); -errno; the error of entry(). stats_out is filled in
 * every case.
 */
int cfsr_import_tar(const struct cfsr_import_options *options, struct cfsr_import_stats *stats_out);

#endif
