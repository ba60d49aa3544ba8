/* support.c - see support.h. Failures abort: a test without its site proves nothing. */
#include "support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "core/file.h"
#include "journal/segment.h"
#include "tests/unit/command.h"

#define SITE_PATH_MAX (CFSR_PATH_MAX + 16)

static void path_in(char path_out[SITE_PATH_MAX], const struct cfsr_site *site, const char *name)
{
    (void)snprintf(path_out, SITE_PATH_MAX, "%s/%s", site->data_dir, name);
}

void test_site_make(struct cfsr_site *site_out, uint32_t lanes, uint32_t shards)
{
    const char *base = getenv("TMPDIR");

    memset(site_out, 0, sizeof *site_out);
    (void)snprintf(site_out->data_dir, sizeof site_out->data_dir, "%s/cfsr-journal-XXXXXX",
                   base != NULL ? base : "/tmp");
    CFSR_ASSERT(mkdtemp(site_out->data_dir) != NULL);
    memset(site_out->cluster.bytes, 0xc1, 16);
    memset(site_out->journal.bytes, 0x1a, 16);
    site_out->site_id = 7;
    site_out->lanes = lanes;
    site_out->shards = shards;
    site_out->segment_bytes = CFSR_SEGMENT_BYTES_MIN;
    (void)snprintf(site_out->shard_function, sizeof site_out->shard_function,
                   "parent-or-inode-mod");
    (void)snprintf(site_out->name, sizeof site_out->name, "site-a");
    CFSR_ASSERT(cfsr_site_create(cfsr_fs_blocking(), site_out) == 0);
}

void test_site_remove(const struct cfsr_site *site)
{
    CFSR_ASSERT(TEST_COMMAND("rm", "-rf", site->data_dir) == 0);
}

struct cfsr_journal *test_journal_open(const struct cfsr_site *site)
{
    struct cfsr_journal_options options = {
        .opts_size = sizeof options, .data_dir = site->data_dir, .retention_age_ms = 1};
    struct cfsr_journal *journal;

    CFSR_ASSERT(cfsr_journal_open(&options, &journal) == 0);
    return journal;
}

struct cfsr_entry_position test_append(struct cfsr_journal *journal, uint32_t shard, uint64_t inode,
                                       uint32_t payload_bytes)
{
    static _Thread_local uint8_t payload[1 << 20];
    struct cfsr_entry_position position;
    struct cfsr_entry entry = {.shard_id = shard,
                               .inode = inode,
                               .op = CFSR_OP_WRITE,
                               .flags = CFSR_ENTRY_OPAQUE,
                               .payload = payload,
                               .payload_bytes = payload_bytes};

    for (uint32_t i = 0; i < payload_bytes; i++)
        payload[i] = (uint8_t)(inode * 31 + i);
    CFSR_ASSERT(cfsr_journal_append(journal, &entry, 1, &position, NULL) == 0);
    return position;
}

void test_snapshot(const struct cfsr_site *site)
{
    char journal[SITE_PATH_MAX], aside[SITE_PATH_MAX];

    path_in(journal, site, "journal");
    path_in(aside, site, "aside");
    CFSR_ASSERT(TEST_COMMAND("rm", "-rf", aside) == 0);
    CFSR_ASSERT(TEST_COMMAND("cp", "-a", journal, aside) == 0);
}

void test_restore(const struct cfsr_site *site)
{
    char journal[SITE_PATH_MAX], aside[SITE_PATH_MAX];

    path_in(journal, site, "journal");
    path_in(aside, site, "aside");
    CFSR_ASSERT(TEST_COMMAND("rm", "-rf", journal) == 0);
    CFSR_ASSERT(rename(aside, journal) == 0);
}

static int open_at(const struct cfsr_site *site, uint32_t lane, uint64_t lsn)
{
    char path[CFSR_PATH_MAX + 64];
    int fd = open(cfsr_segment_path(site, lane, lsn, path, sizeof path), O_RDWR | O_CLOEXEC);

    CFSR_ASSERT(fd >= 0);
    return fd;
}

void test_flip_bit(const struct cfsr_site *site, uint32_t lane, uint64_t lsn, unsigned bit)
{
    off_t offset = (off_t)cfsr_segment_file_offset(site, lsn);
    int fd = open_at(site, lane, lsn);
    uint8_t byte;

    CFSR_ASSERT(pread(fd, &byte, 1, offset) == 1);
    byte = (uint8_t)(byte ^ (1u << bit));
    CFSR_ASSERT(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

void test_write_at(const struct cfsr_site *site, uint32_t lane, uint64_t lsn, const void *bytes,
                   uint32_t len_bytes)
{
    int fd = open_at(site, lane, lsn);

    CFSR_ASSERT(pwrite(fd, bytes, len_bytes, (off_t)cfsr_segment_file_offset(site, lsn)) ==
                (ssize_t)len_bytes);
    close(fd);
}
