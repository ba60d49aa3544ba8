/*
 * import_state.h - what the two halves of the tar import share: names and entries
 * (import_entries.c), the archive (import_tar.c).
 */
#ifndef CFSR_CLI_IMPORT_STATE_H
#define CFSR_CLI_IMPORT_STATE_H

#include <cfsrepl/payload.h>

#include "cli/import_tar.h"
#include "cli/names.h"

#define CFSR_IMPORT_PATH_MAX 4096

struct cfsr_import_attributes {
    uint64_t mode, uid, gid, mtime_ns;
};

struct cfsr_import {
    const struct cfsr_import_options *options;
    struct cfsr_import_stats *stats;
    struct cfsr_names names;
    uint64_t next_inode;
    char prefix[CFSR_IMPORT_PATH_MAX]; /* normal form of under and rNNNN; "" or "a/b" */
    char path[CFSR_IMPORT_PATH_MAX];   /* of the current member, normal form, prefix included */
    const char *why;                   /* of a refusal */
    uint8_t *payload;                  /* CFSR_IMPORT_PAYLOAD_BYTES */
    struct cfsr_payload_builder builder;
};
#define CFSR_IMPORT_PAYLOAD_BYTES (1u << 20)
#define CFSR_IMPORT_REFUSED       1 /* beside 0 and negative errors; the reason is in why */

/*
 * Normal form of a member's path below the prefix: no leading '/', no empty or '.' part.
 * CFSR_IMPORT_REFUSED for '..', parts over 255 bytes, or a path over CFSR_IMPORT_PATH_MAX - 1. The
 * empty path is the prefix itself.
 */
int cfsr_import_normal_path(struct cfsr_import *import, const char *path,
                            char path_out[CFSR_IMPORT_PATH_MAX]);
/* Finds the parent directory of a normal path, making what is missing; the last part in *name_out.
 */
int cfsr_import_parent(struct cfsr_import *import, const char *path,
                       const struct cfsr_import_attributes *like, uint64_t *parent_out,
                       const char **name_out);
/* Inode of a normal path. CFSR_IMPORT_REFUSED if there is none. */
int cfsr_import_find(struct cfsr_import *import, const char *path, uint64_t *inode_out,
                     uint32_t *type_out);

/* Entries. begin(), fields, then end(): counts and hands over. shard_key as the cluster's shard
 * function wants it. */
void cfsr_import_begin(struct cfsr_import *import);
int cfsr_import_end(struct cfsr_import *import, unsigned op, uint64_t inode, uint64_t shard_key);
void cfsr_import_put_hint(struct cfsr_import *import);
void cfsr_import_put_attributes(struct cfsr_import *import,
                                const struct cfsr_import_attributes *attributes);

#endif
