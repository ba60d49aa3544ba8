/*
 * corpus.c - opens a site's journal as a row of extents of valid record bytes.
 *
 * Thread: the caller's. Reads with plain pread: what the bench compares with must not depend on the
 * code it measures, beyond the scan that finds where the records end.
 */
#include "bench/corpus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fail.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

#define FILL_BLOCK_BYTES (256u << 10)

static int open_segment(const char *path, const uint8_t **map_out, size_t *len_out)
{
    struct stat info;
    void *map;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0)
        return cfsr_fail(-errno, "cannot open %s", path);
    if (fstat(fd, &info) != 0 || info.st_size <= CFSR_SEGMENT_HEADER_BYTES) {
        close(fd);
        return cfsr_fail(-EIO, "%s is no segment", path);
    }
    map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED) {
        rc = -errno;
        close(fd);
        return cfsr_fail(rc, "cannot map %s", path);
    }
    *map_out = map;
    *len_out = (size_t)info.st_size;
    return fd;
}

static int add_extent(struct bench_corpus *corpus, uint32_t lane, uint64_t lsn)
{
    struct bench_block block = {.lsn = lsn, .lane = lane};
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_scan scan;
    const uint8_t *map = NULL;
    size_t len = 0;
    int fd;

    cfsr_segment_path(&corpus->site, lane, lsn, path, sizeof path);
    fd = open_segment(path, &map, &len);
    if (fd < 0)
        return fd;
    block.len_bytes = (uint32_t)(len - CFSR_SEGMENT_HEADER_BYTES);
    bench_corpus_scan_init(corpus, &block, map + CFSR_SEGMENT_HEADER_BYTES, &scan);
    (void)cfsr_record_scan(
        &scan); /* an error is where the records end: the rest was never written */
    munmap((void *)(uintptr_t)map, len);
    if (scan.raw_bytes == 0) {
        close(fd);
        return 0;
    }
    corpus->extents[corpus->extent_count++] = (struct bench_extent){
        .fd = fd,
        .file_offset = CFSR_SEGMENT_HEADER_BYTES,
        .lsn = lsn,
        .lane = lane,
        .len_bytes = scan.raw_bytes};
    corpus->raw_bytes += scan.raw_bytes;
    corpus->records += scan.record_count;
    corpus->entries += scan.entry_count;
    return 0;
}

static int add_lane(struct bench_corpus *corpus, uint32_t lane)
{
    struct cfsr_segment_map map;
    struct bench_extent *grown;
    int rc = cfsr_segment_map_load(cfsr_fs_blocking(), &corpus->site, lane, &map);

    if (rc < 0)
        return rc;
    grown = realloc(corpus->extents, (corpus->extent_count + map.count + 1) * sizeof *grown);
    if (grown == NULL) {
        rc = -ENOMEM;
        goto fini_map;
    }
    corpus->extents = grown;
    for (uint32_t i = 0; i < map.count && rc >= 0; i++)
        rc = add_extent(corpus, lane, map.lsns[i]);
fini_map:
    cfsr_segment_map_fini(&map);
    return rc;
}

int bench_corpus_open(const char *data_dir, struct bench_corpus *corpus_out)
{
    struct bench_corpus corpus = {0};
    int rc = cfsr_site_load(cfsr_fs_blocking(), data_dir, &corpus.site);

    if (rc < 0)
        return rc;
    corpus.seed = cfsr_record_seed(&corpus.site.journal);
    for (uint32_t lane = 0; lane < corpus.site.lanes && rc >= 0; lane++)
        rc = add_lane(&corpus, lane);
    if (rc >= 0 && corpus.raw_bytes == 0)
        rc = cfsr_fail(-ENODATA, "the journal in %s is empty: import something first", data_dir);
    if (rc < 0) {
        bench_corpus_close(&corpus);
        return rc;
    }
    *corpus_out = corpus;
    return 0;
}

void bench_corpus_close(struct bench_corpus *corpus)
{
    for (unsigned i = 0; i < corpus->extent_count; i++)
        close(corpus->extents[i].fd);
    free(corpus->extents);
    corpus->extents = NULL;
    corpus->extent_count = 0;
}

int bench_corpus_read(struct bench_corpus_cursor *cursor, void *buf, uint32_t max_bytes,
                      struct bench_block *block_out)
{
    const struct bench_corpus *corpus = cursor->corpus;
    const struct bench_extent *extent;
    uint32_t want;
    ssize_t got;

    if (cursor->extent >= corpus->extent_count)
        cursor->extent = 0;
    extent = &corpus->extents[cursor->extent];
    want = extent->len_bytes - cursor->offset;
    want = want < max_bytes ? want : max_bytes;
    got = pread(extent->fd, buf, want, (off_t)(extent->file_offset + cursor->offset));
    if (got != (ssize_t)want)
        return cfsr_fail(got < 0 ? -errno : -EIO, "cannot read the corpus");
    *block_out = (struct bench_block){
        .lsn = extent->lsn + cursor->offset, .lane = extent->lane, .len_bytes = want};
    cursor->offset += want;
    if (cursor->offset == extent->len_bytes) {
        cursor->extent++;
        cursor->offset = 0;
    }
    return (int)want;
}

void bench_corpus_unread(struct bench_corpus_cursor *cursor, const struct bench_block *block,
                         uint32_t len_bytes)
{
    CFSR_ASSERT(len_bytes < block->len_bytes);
    if (len_bytes == 0)
        return;
    if (cursor->offset == 0) { /* the block ended its extent */
        cursor->extent--;
        cursor->offset = cursor->corpus->extents[cursor->extent].len_bytes;
    }
    cursor->offset -= len_bytes;
}

void bench_corpus_scan_init(const struct bench_corpus *corpus, const struct bench_block *block,
                            const void *data, struct cfsr_scan *scan_out)
{
    *scan_out = (struct cfsr_scan){
        .data = data,
        .len_bytes = block->len_bytes,
        .lsn = block->lsn,
        .segment_bytes = corpus->site.segment_bytes,
        .seed = corpus->seed,
        .site_id = corpus->site.site_id,
        .lane = block->lane,
        .lanes = corpus->site.lanes,
        .shards = corpus->site.shards,
    };
}

uint32_t bench_corpus_entries(const uint8_t *data, uint32_t len_bytes,
                              struct cfsr_entry *entries_out, uint32_t max)
{
    uint32_t count = 0;

    for (uint32_t at = 0; at < len_bytes && count < max;) {
        struct cfsr_record_header header;

        cfsr_record_header_load(data + at, &header);
        if (cfsr_record_is_entry(header.op))
            entries_out[count++] = (struct cfsr_entry){.shard_id = header.shard_id,
                                                       .inode = header.inode,
                                                       .op = header.op,
                                                       .flags = header.flags,
                                                       .payload = data + at +
                                                                  CFSR_RECORD_HEADER_BYTES,
                                                       .payload_bytes = header.payload_bytes};
        at += cfsr_record_wire_bytes(&header);
    }
    return count;
}

/* Appends one block's entries; raw bytes they took, or an error. */
static int append_block(struct cfsr_journal *journal, struct bench_corpus_cursor *cursor,
                        uint8_t *data, struct cfsr_entry *entries)
{
    struct bench_block block;
    struct cfsr_scan scan;
    uint32_t count;
    int rc = bench_corpus_read(cursor, data, FILL_BLOCK_BYTES, &block);

    if (rc < 0)
        return rc;
    bench_corpus_scan_init(cursor->corpus, &block, data, &scan);
    (void)cfsr_record_scan(&scan); /* the last record may be cut */
    if (scan.raw_bytes == 0)
        return cfsr_fail(-CFSR_E_DAMAGED, "the corpus does not check at lane %u", block.lane);
    bench_corpus_unread(cursor, &block, block.len_bytes - scan.raw_bytes);
    count = bench_corpus_entries(data, scan.raw_bytes, entries,
                                 FILL_BLOCK_BYTES / CFSR_RECORD_HEADER_BYTES);
    if (count > 0)
        rc = cfsr_journal_append(journal, entries, count, NULL, NULL);
    return rc < 0 ? rc : (int)scan.raw_bytes;
}

static int fill(const struct bench_corpus *corpus, const char *data_dir, uint64_t raw_bytes)
{
    struct cfsr_journal_options options = {.opts_size = sizeof options, .data_dir = data_dir};
    struct bench_corpus_cursor cursor = {.corpus = corpus};
    struct cfsr_entry *entries = calloc(FILL_BLOCK_BYTES / CFSR_RECORD_HEADER_BYTES,
                                        sizeof *entries);
    uint8_t *data = malloc(FILL_BLOCK_BYTES);
    struct cfsr_journal *journal;
    int rc = entries == NULL || data == NULL ? -ENOMEM : cfsr_journal_open(&options, &journal),
        closed;

    if (rc < 0)
        goto free_memory;
    for (uint64_t done = corpus->raw_bytes; done < raw_bytes && rc >= 0; done += (unsigned)rc)
        rc = append_block(journal, &cursor, data, entries);
    closed = cfsr_journal_close(journal);
    rc = rc < 0 ? rc : closed;
free_memory:
    free(entries);
    free(data);
    return rc;
}

int bench_corpus_fill(const char *data_dir, uint64_t raw_bytes)
{
    struct bench_corpus corpus;
    int rc = bench_corpus_open(data_dir, &corpus);

    if (rc < 0)
        return rc;
    if (corpus.raw_bytes < raw_bytes)
        rc = fill(&corpus, data_dir, raw_bytes);
    bench_corpus_close(&corpus);
    return rc;
}
