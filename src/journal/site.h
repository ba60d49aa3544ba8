/*
 * site.h - the data directory and its identity file, DATA/cluster.
 *
 * Text, `key = value` lines closed by a `crc32c = 8 hex digits` line over the bytes before it;
 * written once by init, checked at every start. Everything else below DATA is refused if it names
 * another cluster, site or journal.
 */
#ifndef CFSR_JOURNAL_SITE_H
#define CFSR_JOURNAL_SITE_H

#include <stdint.h>

#include "base/uuid.h"
#include "core/file.h"

#define CFSR_SITE_NAME_MAX         63
#define CFSR_LANES_MAX             64
#define CFSR_SHARDS_MAX            65536
#define CFSR_FORMAT_VERSION        1
#define CFSR_SEGMENT_BYTES_DEFAULT (64ull << 20)
#define CFSR_SEGMENT_BYTES_MIN     (2ull << 20) /* a maximal record, SHARDS and PAD always fit */
#define CFSR_SEGMENT_BYTES_MAX     (1ull << 30)
#define CFSR_PATH_MAX              1024

struct cfsr_site {
    struct cfsr_uuid cluster;
    struct cfsr_uuid journal;
    uint64_t site_id; /* 1 … 2^64-2 */
    uint32_t lanes;   /* power of two, 1 … CFSR_LANES_MAX, <= shards */
    uint32_t shards;  /* 1 … CFSR_SHARDS_MAX */
    uint64_t segment_bytes;
    char shard_function[32]; /* "parent-or-inode-mod" : the only one now */
    char name[CFSR_SITE_NAME_MAX + 1];
    char data_dir[CFSR_PATH_MAX];
};

/* Creates DATA (it may exist and be empty), DATA/cluster, journal/<lane>/, inbox/<lane>/, run/.
 * -EEXIST if it holds a site. */
int cfsr_site_create(struct cfsr_fs *fs, const struct cfsr_site *site);
/* -ENOENT (says: run init), -CFSR_E_FORMAT, -CFSR_E_CHECKSUM, -CFSR_E_VERSION. */
int cfsr_site_load(struct cfsr_fs *fs, const char *data_dir, struct cfsr_site *site_out);
uint32_t cfsr_site_lane_of_shard(const struct cfsr_site *site, uint32_t shard);
/* The cluster's shard function: directory-entry ops by parent inode, inode ops by inode. */
uint32_t cfsr_site_shard_of(const struct cfsr_site *site, uint64_t inode_or_parent);

#endif
