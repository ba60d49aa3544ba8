/*
 * consumer.c - durable positions of the inbox's consumers.
 *
 * Thread:     the consumer's; retention only reads.
 * Invariants: of two slots the one with the higher generation and a sound CRC counts; a commit
 * writes the other one durably, so at every moment one is whole. The lock on the file keeps a name
 * to one process. Rejected:   write, sync, rename for each commit (three waits on the journal of
 * the file system instead of one).
 */
#include "inbox/consumer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/fail.h"

#define CONSUMER_MAGIC   "CFSRCONS"
#define SLOT_FIXED_BYTES 192
#define LANE_FIXED_BYTES 32
#define ORIGIN_BYTES     32
#define CRC_OFFSET       12

static uint32_t slot_bytes_of(const struct cfsr_site *site)
{
    return (uint32_t)cfsr_align_up(
        SLOT_FIXED_BYTES + site->lanes * (LANE_FIXED_BYTES + CFSR_INBOX_ORIGINS_MAX * ORIGIN_BYTES),
        4096);
}

bool cfsr_consumer_name_is_valid(const char *name)
{
    size_t i, len = strlen(name);

    if (len == 0 || len > CFSR_CONSUMER_NAME_MAX || name[0] == '.')
        return false;
    for (i = 0; i < len; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        if (!letter && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
            return false;
    }
    return true;
}

static void consumers_path(const struct cfsr_site *site, const char *name,
                           char path_out[CFSR_INBOX_PATH_BYTES])
{
    snprintf(path_out, CFSR_INBOX_PATH_BYTES, "%s/inbox/consumers%s%s", site->data_dir,
             name[0] == '\0' ? "" : "/", name);
}

static uint32_t encode(const struct cfsr_consumer *consumer, const struct cfsr_site *site,
                       uint8_t *slot)
{
    uint8_t *p = slot + SLOT_FIXED_BYTES;
    uint32_t lane, i, used;

    memset(slot, 0, SLOT_FIXED_BYTES);
    memcpy(slot, CONSUMER_MAGIC, 8);
    cfsr_store_le32(slot + 8, CFSR_FORMAT_VERSION);
    cfsr_store_le64(slot + 24, consumer->generation);
    memcpy(slot + 32, site->cluster.bytes, 16);
    memcpy(slot + 48, site->journal.bytes, 16);
    cfsr_store_le64(slot + 64, consumer->site_id);
    cfsr_store_le64(slot + 72, consumer->ttl_ms);
    cfsr_store_le64(slot + 80, consumer->committed_at_us);
    cfsr_store_le32(slot + 88, consumer->lanes);
    memcpy(slot + 96, consumer->owner, sizeof consumer->owner);
    for (lane = 0; lane < consumer->lanes; lane++) {
        const struct cfsr_inbox_position *position = &consumer->position[lane];

        cfsr_store_le64(p, position->sequence);
        cfsr_store_le64(p + 8, position->body_offset);
        cfsr_store_le64(p + 16, position->arrival);
        cfsr_store_le32(p + 24, position->origins);
        cfsr_store_le32(p + 28, 0);
        p += LANE_FIXED_BYTES;
        for (i = 0; i < position->origins; i++, p += ORIGIN_BYTES) {
            cfsr_store_le64(p, position->origin[i].site_id);
            memcpy(p + 8, position->origin[i].journal.bytes, 16);
            cfsr_store_le64(p + 24, position->origin[i].lsn);
        }
    }
    used = (uint32_t)(p - slot);
    cfsr_store_le32(slot + 16, used);
    cfsr_store_le32(slot + CRC_OFFSET, cfsr_crc32c(0, slot + 16, used - 16));
    return used;
}

static bool slot_is_sound(const uint8_t *slot, uint32_t slot_bytes)
{
    uint32_t used = cfsr_load_le32(slot + 16);

    return memcmp(slot, CONSUMER_MAGIC, 8) == 0 &&
           cfsr_load_le32(slot + 8) == CFSR_FORMAT_VERSION && used >= SLOT_FIXED_BYTES &&
           used <= slot_bytes &&
           cfsr_load_le32(slot + CRC_OFFSET) == cfsr_crc32c(0, slot + 16, used - 16);
}

static int decode(struct cfsr_consumer *consumer, const struct cfsr_site *site, const uint8_t *slot)
{
    const uint8_t *p = slot + SLOT_FIXED_BYTES, *end = slot + cfsr_load_le32(slot + 16);
    uint32_t lane, i;

    if (memcmp(slot + 32, site->cluster.bytes, 16) != 0 ||
        memcmp(slot + 48, site->journal.bytes, 16) != 0 || cfsr_load_le32(slot + 88) != site->lanes)
        return cfsr_fail(-CFSR_E_FOREIGN,
                         "consumer %s belongs to another cluster or site: remove it",
                         consumer->name);
    consumer->generation = cfsr_load_le64(slot + 24);
    consumer->site_id = cfsr_load_le64(slot + 64);
    consumer->ttl_ms = cfsr_load_le64(slot + 72);
    consumer->committed_at_us = cfsr_load_le64(slot + 80);
    memcpy(consumer->owner, slot + 96, sizeof consumer->owner);
    consumer->owner[CFSR_CONSUMER_OWNER_MAX] = '\0';
    for (lane = 0; lane < consumer->lanes; lane++) {
        struct cfsr_inbox_position *position = &consumer->position[lane];

        if ((size_t)(end - p) < LANE_FIXED_BYTES)
            return -CFSR_E_FORMAT;
        position->sequence = cfsr_load_le64(p);
        position->body_offset = cfsr_load_le64(p + 8);
        position->arrival = cfsr_load_le64(p + 16);
        position->origins = cfsr_load_le32(p + 24);
        p += LANE_FIXED_BYTES;
        if (position->origins > CFSR_INBOX_ORIGINS_MAX ||
            (size_t)(end - p) < (size_t)position->origins * ORIGIN_BYTES)
            return -CFSR_E_FORMAT;
        for (i = 0; i < position->origins; i++, p += ORIGIN_BYTES) {
            position->origin[i].site_id = cfsr_load_le64(p);
            memcpy(position->origin[i].journal.bytes, p + 8, 16);
            position->origin[i].lsn = cfsr_load_le64(p + 24);
        }
    }
    return 0;
}

static bool is_zero(const uint8_t *bytes, int len_bytes)
{
    return len_bytes == 0 ||
           (bytes[0] == 0 && memcmp(bytes, bytes + 1, (size_t)len_bytes - 1) == 0);
}

/*
 * Reads the newer sound slot: 1; 0 none yet; -errno. The first slot is written second, so while
 * nothing stands there the registration did not end, and no position was ever committed.
 */
static int load(struct cfsr_consumer *consumer, const struct cfsr_site *site)
{
    bool registered = true;
    unsigned i, found = 2;
    uint64_t best = 0;
    int rc = 0;

    for (i = 0; rc >= 0 && i < 2; i++) {
        rc = cfsr_file_pread(consumer->file, consumer->slot, consumer->slot_bytes,
                             (uint64_t)i * consumer->slot_bytes);
        if (i == 0 && rc >= 0)
            registered = !is_zero(consumer->slot, rc);
        if (rc < (int)SLOT_FIXED_BYTES || !slot_is_sound(consumer->slot, (uint32_t)rc))
            continue;
        if (found == 2 || cfsr_load_le64(consumer->slot + 24) > best) {
            best = cfsr_load_le64(consumer->slot + 24);
            found = i;
        }
    }
    if (rc < 0)
        return rc;
    if (found == 2 && !registered)
        return 0;
    if (found == 2)
        return cfsr_fail(-CFSR_E_CHECKSUM,
                         "the position file of consumer %s is damaged: remove the consumer",
                         consumer->name);
    rc = cfsr_file_pread(consumer->file, consumer->slot, consumer->slot_bytes,
                         (uint64_t)found * consumer->slot_bytes);
    if (rc < 0)
        return rc;
    if (!slot_is_sound(consumer->slot, (uint32_t)rc))
        return -EAGAIN; /* written between the two reads */
    rc = decode(consumer, site, consumer->slot);
    return rc < 0 ? rc : 1;
}

static int make_directory(struct cfsr_fs *fs, const struct cfsr_site *site)
{
    char path[CFSR_INBOX_PATH_BYTES];
    int rc;

    consumers_path(site, "", path);
    rc = fs->ops->mkdir(fs, path);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "%s/inbox", site->data_dir);
    return fs->ops->sync_dir(fs, path);
}

static int open_file(struct cfsr_fs *fs, const struct cfsr_site *site, const char *name,
                     bool create, struct cfsr_file **file_out)
{
    char path[CFSR_INBOX_PATH_BYTES];
    int rc;

    consumers_path(site, name, path);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | (create ? CFSR_OPEN_WRITE : 0u), file_out);
    if (rc != -ENOENT || !create)
        return rc;
    rc = make_directory(fs, site);
    if (rc < 0)
        return rc;
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, file_out);
    if (rc < 0)
        return rc;
    consumers_path(site, "", path);
    rc = fs->ops->sync_dir(fs, path);
    if (rc < 0)
        cfsr_file_close(*file_out);
    return rc;
}

int cfsr_consumer_open(struct cfsr_fs *fs, const struct cfsr_site *site, const char *name,
                       bool lock, bool create, struct cfsr_consumer **consumer_out)
{
    struct cfsr_consumer *consumer;
    unsigned attempt;
    int rc;

    if (!cfsr_consumer_name_is_valid(name))
        return cfsr_fail(
            -CFSR_E_CONFIG,
            "\"%s\" is not a consumer name: use up to %d letters, digits, '-', '_' and '.'", name,
            CFSR_CONSUMER_NAME_MAX);
    consumer = calloc(1, sizeof *consumer);
    if (consumer == NULL)
        return -ENOMEM;
    snprintf(consumer->name, sizeof consumer->name, "%s", name);
    consumer->lanes = site->lanes;
    consumer->slot_bytes = slot_bytes_of(site);
    consumer->slot = calloc(1, consumer->slot_bytes);
    consumer->position = calloc(site->lanes, sizeof *consumer->position);
    rc = consumer->slot == NULL || consumer->position == NULL ? -ENOMEM : 0;
    if (rc == 0)
        rc = open_file(fs, site, name, create, &consumer->file);
    if (rc == 0 && lock) {
        rc = cfsr_file_lock(consumer->file);
        if (rc == -CFSR_E_LOCKED)
            rc = cfsr_fail(rc, "consumer %s is in use by another process", name);
    }
    for (attempt = 0; rc == 0 && attempt < 8; attempt++) {
        rc = load(consumer, site);
        if (rc != -EAGAIN)
            break;
        rc = 0;
    }
    if (rc < 0) {
        cfsr_consumer_close(consumer);
        return rc;
    }
    *consumer_out = consumer;
    return 0;
}

void cfsr_consumer_close(struct cfsr_consumer *consumer)
{
    if (consumer == NULL)
        return;
    cfsr_file_close(consumer->file);
    free(consumer->slot);
    free(consumer->position);
    free(consumer);
}

int cfsr_consumer_store(struct cfsr_consumer *consumer, const struct cfsr_site *site,
                        uint64_t now_us)
{
    uint32_t used;
    int rc;

    consumer->generation++;
    consumer->committed_at_us = now_us;
    used = encode(consumer, site, consumer->slot);
    rc = cfsr_file_pwrite(consumer->file, consumer->slot, used,
                          (consumer->generation % 2) * consumer->slot_bytes, true);
    if (rc < 0)
        return cfsr_fail_context(rc, "storing the position of consumer %s", consumer->name);
    return 0;
}

bool cfsr_consumer_is_expired(const struct cfsr_consumer *consumer, uint64_t now_us)
{
    return consumer->ttl_ms != 0 && now_us > consumer->committed_at_us &&
           now_us - consumer->committed_at_us > consumer->ttl_ms * 1000;
}

int cfsr_consumer_remove(struct cfsr_fs *fs, const struct cfsr_site *site, const char *name)
{
    char path[CFSR_INBOX_PATH_BYTES];
    struct cfsr_file *file;
    int rc;

    if (!cfsr_consumer_name_is_valid(name))
        return cfsr_fail(-ENOENT, "there is no consumer \"%s\"", name);
    consumers_path(site, name, path);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ, &file);
    if (rc == -ENOENT)
        return cfsr_fail(rc, "there is no consumer \"%s\"", name);
    if (rc < 0)
        return rc;
    rc = cfsr_file_lock(file);
    if (rc < 0)
        rc = cfsr_fail(rc, "consumer %s is in use by another process", name);
    else
        rc = fs->ops->unlink(fs, path);
    cfsr_file_close(file);
    if (rc < 0)
        return rc;
    consumers_path(site, "", path);
    return fs->ops->sync_dir(fs, path);
}

struct name_visit {
    int (*visit)(void *user, const char *name);
    void *user;
};

static int visit_name(void *user, const struct cfsr_dir_entry *entry)
{
    struct name_visit *visit = user;

    if (entry->is_directory || !cfsr_consumer_name_is_valid(entry->name))
        return 0;
    return visit->visit(visit->user, entry->name);
}

int cfsr_consumer_list(struct cfsr_fs *fs, const struct cfsr_site *site,
                       int (*visit)(void *user, const char *name), void *user)
{
    struct name_visit names = {.visit = visit, .user = user};
    char path[CFSR_INBOX_PATH_BYTES];
    int rc;

    consumers_path(site, "", path);
    rc = fs->ops->list(fs, path, visit_name, &names);
    return rc == -ENOENT ? 0 : rc;
}
