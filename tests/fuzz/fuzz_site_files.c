/*
 * fuzz_site_files.c - the small files of a site: cluster, acks, a consumer's position, the status
 * page.
 *
 * Input: u8 file (0 cluster, 1 acks, 2 consumer, 3 status page), u8 switches (1 checksums put
 * right; 2 the status page's boot id too), then the file.
 *
 * Properties: what is accepted is within its bounds, and stored again it loads the same.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "inbox/consumer.h"
#include "journal/acks.h"
#include "journal/status_page.h"

enum {
    FIX_CRC = 1,
    FIX_BOOT = 2,
    INPUT_MAX = 80000,
    LANES = 4,
    LEASES = 8704,
    PAGE_BYTES = 45568
};

static struct cfsr_site site;

static void set_up(void)
{
    if (site.site_id != 0)
        return;
    fuzz_site(&site, 5, LANES, 64, CFSR_SEGMENT_BYTES_DEFAULT);
    FUZZ_CHECK(cfsr_security_init() == 0);
}

static void path_of(const char *name, char path_out[300])
{
    (void)snprintf(path_out, 300, "%.200s/%s", site.data_dir, name);
}

/* ---- cluster ---- */

static void fix_cluster(uint8_t **text, size_t *len_bytes)
{
    uint8_t *end = *len_bytes > 0 ? memmem(*text, *len_bytes, "crc32c =", 8) : NULL;
    size_t body = end != NULL ? (size_t)(end - *text) : *len_bytes;
    uint8_t *fixed = malloc(body + 32);

    FUZZ_CHECK(fixed != NULL);
    memcpy(fixed, *text, body);
    *len_bytes = body + (size_t)snprintf((char *)fixed + body, 32, "crc32c = %08x\n",
                                         cfsr_crc32c(0, *text, body));
    free(*text);
    *text = fixed;
}

static void cluster(struct cfsr_fs *fs, uint8_t **data, size_t len_bytes, uint8_t switches)
{
    struct cfsr_site first, second;
    char path[300];

    if ((switches & FIX_CRC) != 0)
        fix_cluster(data, &len_bytes);
    path_of("cluster", path);
    fuzz_file_write(fs, path, *data, len_bytes);
    if (cfsr_site_load(fs, site.data_dir, &first) < 0)
        return;
    FUZZ_CHECK(first.lanes > 0 && first.lanes <= CFSR_LANES_MAX &&
               cfsr_is_power_of_two(first.lanes) && first.lanes <= first.shards &&
               first.shards <= CFSR_SHARDS_MAX);
    FUZZ_CHECK(first.segment_bytes >= CFSR_SEGMENT_BYTES_MIN &&
               first.segment_bytes <= CFSR_SEGMENT_BYTES_MAX && first.site_id != 0 &&
               first.site_id != UINT64_MAX);
    (void)snprintf(first.data_dir, sizeof first.data_dir, "/again");
    FUZZ_CHECK(cfsr_site_create(fs, &first) == 0);
    FUZZ_CHECK(cfsr_site_load(fs, "/again", &second) == 0);
    FUZZ_CHECK(cfsr_uuid_equal(&first.cluster, &second.cluster) &&
               cfsr_uuid_equal(&first.journal, &second.journal));
    FUZZ_CHECK(first.site_id == second.site_id && first.lanes == second.lanes &&
               first.shards == second.shards && first.segment_bytes == second.segment_bytes &&
               strcmp(first.name, second.name) == 0);
}

/* ---- acks ---- */

static void fix_acks(uint8_t *data, size_t len_bytes)
{
    static const uint8_t zeros[4];

    for (size_t at = 0; at + 48 <= len_bytes; at += CFSR_ACKS_SLOT_BYTES) {
        uint8_t *slot = data + at;
        uint64_t used = 48 + cfsr_load_le32(slot + 36) * (8 + 8ull * cfsr_load_le32(slot + 32));

        if (used > cfsr_min_u64(len_bytes - at, CFSR_ACKS_SLOT_BYTES))
            continue;
        uint32_t crc = cfsr_crc32c(cfsr_crc32c(0, slot, 40), zeros, 4);
        cfsr_store_le32(slot + 40, cfsr_crc32c(crc, slot + 44, used - 44));
    }
}

static void acks(struct cfsr_fs *fs, uint8_t *data, size_t len_bytes, uint8_t switches)
{
    static struct cfsr_acks first, second;
    char path[300];

    if ((switches & FIX_CRC) != 0)
        fix_acks(data, len_bytes);
    path_of("acks", path);
    fuzz_file_write(fs, path, data, len_bytes);
    if (cfsr_acks_load(fs, &site, &first) < 0)
        return;
    FUZZ_CHECK(first.peer_count <= CFSR_STATUS_PEERS_MAX);
    for (uint32_t lane = 0; lane < LANES; lane++)
        (void)cfsr_acks_lowest(&first, NULL, lane);
    if (first.generation == UINT64_MAX)
        return;
    FUZZ_CHECK(cfsr_acks_store(fs, &site, &first) == 0);
    FUZZ_CHECK(cfsr_acks_load(fs, &site, &second) == 0);
    FUZZ_CHECK(first.generation == second.generation && first.peer_count == second.peer_count);
    for (uint32_t i = 0; i < first.peer_count; i++)
        FUZZ_CHECK(first.peers[i].site_id == second.peers[i].site_id &&
                   memcmp(first.peers[i].acked, second.peers[i].acked, 8 * LANES) == 0);
}

/* ---- a consumer ---- */

static void fix_consumer(uint8_t *data, size_t len_bytes, size_t slot_bytes)
{
    for (size_t at = 0; at + 192 <= len_bytes; at += slot_bytes) {
        uint32_t used = cfsr_load_le32(data + at + 16);

        if (used >= 192 && used <= cfsr_min_u64(slot_bytes, len_bytes - at))
            cfsr_store_le32(data + at + 12, cfsr_crc32c(0, data + at + 16, used - 16));
    }
}

static size_t consumer_slot_bytes(void)
{
    return cfsr_align_up(192 + LANES * (32 + 64 * 32), 4096);
}

static void consumer(struct cfsr_fs *fs, uint8_t *data, size_t len_bytes, uint8_t switches)
{
    struct cfsr_consumer *first, *second;
    char path[300];

    if ((switches & FIX_CRC) != 0)
        fix_consumer(data, len_bytes, consumer_slot_bytes());
    path_of("inbox/consumers", path);
    FUZZ_CHECK(fs->ops->mkdir(fs, path) == 0);
    path_of("inbox/consumers/c", path);
    fuzz_file_write(fs, path, data, len_bytes);
    if (cfsr_consumer_open(fs, &site, "c", true, true, &first) < 0)
        return;
    FUZZ_CHECK(first->lanes == LANES && memchr(first->owner, '\0', sizeof first->owner) != NULL);
    for (uint32_t lane = 0; lane < LANES; lane++)
        FUZZ_CHECK(first->position[lane].origins <= CFSR_INBOX_ORIGINS_MAX);
    (void)cfsr_consumer_is_expired(first, 1);
    if (first->generation < UINT64_MAX) {
        uint64_t generation = first->generation;

        FUZZ_CHECK(cfsr_consumer_store(first, &site, 77) == 0);
        FUZZ_CHECK(cfsr_consumer_open(fs, &site, "c", false, false, &second) == 0);
        FUZZ_CHECK(second->generation == generation + 1 && second->committed_at_us == 77 &&
                   second->ttl_ms == first->ttl_ms && strcmp(first->owner, second->owner) == 0);
        for (uint32_t lane = 0; lane < LANES; lane++)
            FUZZ_CHECK(memcmp(&first->position[lane], &second->position[lane], 32) == 0);
        cfsr_consumer_close(second);
    }
    cfsr_consumer_close(first);
}

/* ---- the status page ---- */

static void read_boot_id(uint8_t boot_out[16])
{
    char text[64] = {0};
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    struct cfsr_uuid boot = {{0}};

    if (file != NULL && fgets(text, sizeof text, file) != NULL) {
        text[strcspn(text, "\n")] = '\0';
        (void)cfsr_uuid_parse(text, &boot);
    }
    if (file != NULL)
        (void)fclose(file);
    memcpy(boot_out, boot.bytes, 16);
}

static void status_page(uint8_t *data, size_t len_bytes, uint8_t switches)
{
    struct cfsr_site real = site;
    struct cfsr_status_page *page;
    char path[400];
    FILE *file;

    (void)snprintf(real.data_dir, sizeof real.data_dir, "%s", fuzz_directory());
    (void)snprintf(path, sizeof path, "%s/run", fuzz_directory());
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s/run/status", fuzz_directory());
    if ((switches & FIX_BOOT) != 0 && len_bytes >= 48) {
        cfsr_store_le64(data, 0x3154535246534643u);
        cfsr_store_le32(data + 8, 1);
        cfsr_store_le32(data + 12, LANES);
        read_boot_id(data + 16);
        memcpy(data + 32, site.journal.bytes, 16);
    }
    file = fopen(path, "wb");
    FUZZ_CHECK(file != NULL && (len_bytes == 0 || fwrite(data, len_bytes, 1, file) == 1));
    (void)fclose(file);
    if (cfsr_status_page_open(&real, &page) < 0)
        return;
    for (uint32_t lane = 0; lane < LANES; lane++) {
        (void)cfsr_status_page_committed(page, lane);
        (void)cfsr_acks_lowest(NULL, page, lane);
    }
    int slot = cfsr_status_page_register_peer(page, 9);
    FUZZ_CHECK(slot < CFSR_STATUS_PEERS_MAX &&
               (slot < 0 || cfsr_status_page_find_peer(page, 9) == slot));
    cfsr_status_page_close(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t which = fuzz_u8(&reader) % 4, switches = fuzz_u8(&reader), *copy;
    struct cfsr_fs *fs;

    set_up();
    if (reader.left > INPUT_MAX)
        return 0;
    copy = fuzz_copy(reader.at, reader.left);
    fs = fuzz_disk();
    fuzz_site_directories(fs, &site);
    switch (which) {
    case 0: cluster(fs, &copy, reader.left, switches); break;
    case 1: acks(fs, copy, reader.left, switches); break;
    case 2: consumer(fs, copy, reader.left, switches); break;
    default: status_page(copy, reader.left, switches); break;
    }
    cfsr_fs_sim_destroy(fs);
    free(copy);
    return 0;
}

static void add(struct fuzz_corpus *corpus, const char *name, uint8_t which, const void *data,
                size_t len_bytes)
{
    struct fuzz_seed seed = {0};

    fuzz_seed_u8(&seed, which);
    fuzz_seed_u8(&seed, FIX_CRC | FIX_BOOT);
    fuzz_seed_bytes(&seed, data, len_bytes);
    fuzz_seed_end(&seed, corpus, name);
}

static void add_stored(struct fuzz_corpus *corpus, struct cfsr_fs *fs, const char *name,
                       uint8_t which, const char *file)
{
    char path[300];
    size_t len;
    uint8_t *data;

    path_of(file, path);
    data = fuzz_file_read(fs, path, &len);
    FUZZ_CHECK(data != NULL);
    add(corpus, name, which, data, len);
    free(data);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    static struct cfsr_acks stored;
    static uint8_t page[PAGE_BYTES];
    struct cfsr_consumer *c;
    struct cfsr_fs *fs;

    set_up();
    fs = fuzz_disk();
    FUZZ_CHECK(cfsr_site_create(fs, &site) == 0);
    add_stored(corpus, fs, "cluster", 0, "cluster");
    for (uint64_t id = 7; id < 10; id++)
        cfsr_acks_peer(&stored, id)->acked[1] = id * 100;
    FUZZ_CHECK(cfsr_acks_store(fs, &site, &stored) == 0);
    add_stored(corpus, fs, "acks-one", 1, "acks");
    FUZZ_CHECK(cfsr_consumer_open(fs, &site, "c", true, true, &c) == 0);
    c->position[1] = (struct cfsr_inbox_position){.sequence = 3, .body_offset = 4096, .origins = 1};
    c->position[1].origin[0] = (struct cfsr_inbox_delivered){.site_id = 7, .lsn = 500};
    FUZZ_CHECK(cfsr_consumer_store(c, &site, 5) == 0);
    cfsr_consumer_close(c);
    add_stored(corpus, fs, "consumer", 2, "inbox/consumers/c");
    page[LEASES] = 2;
    add(corpus, "status", 3, page, sizeof page);
    add(corpus, "status-short", 3, page, 4096);
    cfsr_fs_sim_destroy(fs);
}
