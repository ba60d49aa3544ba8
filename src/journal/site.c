/*
 * site.c - the data directory and its identity file, DATA/cluster.
 *
 * Thread:     start-up code of one thread.
 * Invariants: DATA/cluster appears whole or not at all (written aside, synced, renamed, directory
 * synced), and last: a directory that holds it is complete. Rejected:   a binary block (people look
 * at this file first when something is wrong), JSON (a parser for nine lines).
 */
#include "journal/site.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/fail.h"
#include "base/units.h"

#define FILE_MAX_BYTES 4096
#define PATH_BYTES     (CFSR_PATH_MAX + 64)

static const char shard_function_name[] = "parent-or-inode-mod";

uint32_t cfsr_site_lane_of_shard(const struct cfsr_site *site, uint32_t shard)
{
    return shard & (site->lanes - 1);
}

uint32_t cfsr_site_shard_of(const struct cfsr_site *site, uint64_t inode_or_parent)
{
    return (uint32_t)(inode_or_parent % site->shards);
}

static int check_numbers(const struct cfsr_site *site)
{
    if (site->site_id == 0 || site->site_id == UINT64_MAX)
        return cfsr_fail(-CFSR_E_CONFIG, "site id %" PRIu64 " is not in 1 … 2^64-2", site->site_id);
    if (!cfsr_is_power_of_two(site->lanes) || site->lanes > CFSR_LANES_MAX)
        return cfsr_fail(-CFSR_E_CONFIG, "%" PRIu32 " lanes: must be a power of two up to %d",
                         site->lanes, CFSR_LANES_MAX);
    if (site->shards < site->lanes || site->shards > CFSR_SHARDS_MAX)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "%" PRIu32 " shards: must be %" PRIu32 " (the lanes) to %d", site->shards,
                         site->lanes, CFSR_SHARDS_MAX);
    if (site->segment_bytes < CFSR_SEGMENT_BYTES_MIN ||
        site->segment_bytes > CFSR_SEGMENT_BYTES_MAX || site->segment_bytes % 4096 != 0)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "segment size %" PRIu64 ": must be 2 MiB to 1 GiB and a multiple of 4 KiB",
                         site->segment_bytes);
    return 0;
}

static int check_site(const struct cfsr_site *site)
{
    size_t len = strnlen(site->name, sizeof site->name);

    if (len == 0 || len > CFSR_SITE_NAME_MAX)
        return cfsr_fail(-CFSR_E_CONFIG, "a site name has 1 to %d characters", CFSR_SITE_NAME_MAX);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)site->name[i]) && strchr("._-", site->name[i]) == NULL)
            return cfsr_fail(-CFSR_E_CONFIG, "site name %s: only letters, digits, '.', '_' and '-'",
                             site->name);
    if (strcmp(site->shard_function, shard_function_name) != 0)
        return cfsr_fail(-CFSR_E_CONFIG, "shard function %s is unknown, the only one is %s",
                         site->shard_function, shard_function_name);
    return check_numbers(site);
}

/* What a create that was interrupted may have left behind, and what a fresh file system holds. */
/* What stands in the directory: a site, whatever else there is beside it; or what is not ours. */
struct existing {
    bool site, foreign;
};

static int visit_existing(void *user, const struct cfsr_dir_entry *entry)
{
    static const char *const expected[] = {"cluster.tmp", "journal", "inbox", "run", "lost+found"};
    struct existing *existing = user;

    if (strcmp(entry->name, "cluster") == 0)
        existing->site = true;
    for (size_t i = 0; i < CFSR_ARRAY_LEN(expected); i++)
        if (strcmp(entry->name, expected[i]) == 0)
            return 0;
    existing->foreign = true;
    return 0;
}

static int make_directories(struct cfsr_fs *fs, const struct cfsr_site *site)
{
    static const char *const trees[] = {"journal", "inbox"};
    char path[PATH_BYTES];
    int rc;

    (void)snprintf(path, sizeof path, "%s/run", site->data_dir);
    rc = fs->ops->mkdir(fs, path);
    for (size_t t = 0; rc == 0 && t < CFSR_ARRAY_LEN(trees); t++) {
        (void)snprintf(path, sizeof path, "%s/%s", site->data_dir, trees[t]);
        rc = fs->ops->mkdir(fs, path);
        for (uint32_t lane = 0; rc == 0 && lane < site->lanes; lane++) {
            (void)snprintf(path, sizeof path, "%s/%s/%02" PRIu32, site->data_dir, trees[t], lane);
            rc = fs->ops->mkdir(fs, path);
        }
        (void)snprintf(path, sizeof path, "%s/%s", site->data_dir, trees[t]);
        if (rc == 0)
            rc = fs->ops->sync_dir(fs, path);
    }
    return rc < 0 ? cfsr_fail(rc, "cannot create %s: %s", path, cfsr_strerror(rc)) : 0;
}

static int format_site(const struct cfsr_site *site, char *text, size_t size)
{
    char cluster[CFSR_UUID_TEXT_LEN], journal[CFSR_UUID_TEXT_LEN];
    int len;

    cfsr_uuid_format(&site->cluster, cluster);
    cfsr_uuid_format(&site->journal, journal);
    len = snprintf(text, size,
                   "# identity of a cfs-repl data directory; written once, never edited\n"
                   "format = %d\n"
                   "cluster = %s\n"
                   "journal = %s\n"
                   "site_id = %" PRIu64 "\n"
                   "name = %s\n"
                   "lanes = %" PRIu32 "\n"
                   "shards = %" PRIu32 "\n"
                   "shard_function = %s\n"
                   "segment_bytes = %" PRIu64 "\n",
                   CFSR_FORMAT_VERSION, cluster, journal, site->site_id, site->name, site->lanes,
                   site->shards, site->shard_function, site->segment_bytes);
    len += snprintf(text + len, size - (size_t)len, "crc32c = %08" PRIx32 "\n",
                    cfsr_crc32c(0, text, (size_t)len));
    return len;
}

static int write_identity(struct cfsr_fs *fs, const struct cfsr_site *site)
{
    char path[PATH_BYTES], temporary[PATH_BYTES], text[FILE_MAX_BYTES];
    struct cfsr_file *file;
    int rc, len = format_site(site, text, sizeof text);

    (void)snprintf(path, sizeof path, "%s/cluster", site->data_dir);
    (void)snprintf(temporary, sizeof temporary, "%s/cluster.tmp", site->data_dir);
    rc = cfsr_file_open(fs, temporary, CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot create %s: %s", temporary, cfsr_strerror(rc));
    rc = cfsr_file_truncate(file, 0);
    if (rc == 0)
        rc = cfsr_file_pwrite(file, text, (uint32_t)len, 0, false);
    if (rc >= 0)
        rc = cfsr_file_sync(file);
    cfsr_file_close(file);
    if (rc >= 0)
        rc = fs->ops->rename(fs, temporary, path);
    if (rc >= 0)
        rc = fs->ops->sync_dir(fs, site->data_dir);
    return rc < 0 ? cfsr_fail(rc, "cannot write %s: %s", path, cfsr_strerror(rc)) : 0;
}

/* The name of the data directory itself must be durable too. */
static int sync_parent(struct cfsr_fs *fs, const char *data_dir)
{
    char parent[CFSR_PATH_MAX];
    size_t len = strnlen(data_dir, sizeof parent - 1);
    int rc;

    while (len > 1 && data_dir[len - 1] == '/')
        len--;
    while (len > 0 && data_dir[len - 1] != '/')
        len--;
    while (len > 1 && data_dir[len - 1] == '/')
        len--;
    memcpy(parent, len == 0 ? "." : data_dir, len == 0 ? 1 : len);
    parent[len == 0 ? 1 : len] = '\0';
    rc = fs->ops->sync_dir(fs, parent);
    return rc < 0 ? cfsr_fail(rc, "cannot sync directory %s: %s", parent, cfsr_strerror(rc)) : 0;
}

int cfsr_site_create(struct cfsr_fs *fs, const struct cfsr_site *site)
{
    struct existing existing = {0};
    int rc = check_site(site);

    if (rc < 0)
        return rc;
    rc = fs->ops->mkdir(fs, site->data_dir);
    if (rc < 0)
        return cfsr_fail(rc, "cannot create data directory %s: %s", site->data_dir,
                         cfsr_strerror(rc));
    rc = fs->ops->list(fs, site->data_dir, visit_existing, &existing);
    if (rc < 0)
        return cfsr_fail(rc, "cannot list %s: %s", site->data_dir, cfsr_strerror(rc));
    if (existing.site)
        return cfsr_fail(-EEXIST, "%s already holds a site: use it, or choose another directory",
                         site->data_dir);
    if (existing.foreign)
        return cfsr_fail(-ENOTEMPTY, "%s is not empty and holds no site: choose an empty directory",
                         site->data_dir);
    rc = make_directories(fs, site);
    if (rc == 0)
        rc = sync_parent(fs, site->data_dir);
    return rc < 0 ? rc : write_identity(fs, site);
}

static int parse_u32(const char *value, uint32_t *number_out)
{
    uint64_t number;

    if (cfsr_parse_u64(value, &number) < 0 || number > UINT32_MAX)
        return -CFSR_E_FORMAT;
    *number_out = (uint32_t)number;
    return 0;
}

static int copy_text(const char *value, char *text_out, size_t size)
{
    if (strlen(value) >= size)
        return -CFSR_E_FORMAT;
    memcpy(text_out, value, strlen(value) + 1);
    return 0;
}

enum key_bit {
    KEY_FORMAT,
    KEY_CLUSTER,
    KEY_JOURNAL,
    KEY_SITE_ID,
    KEY_NAME,
    KEY_LANES,
    KEY_SHARDS,
    KEY_FUNCTION,
    KEY_SEGMENT,
    KEY_COUNT,
};
static const char *const key_names[KEY_COUNT] = {
    "format", "cluster", "journal",        "site_id",       "name",
    "lanes",  "shards",  "shard_function", "segment_bytes",
};

static int set_key(struct cfsr_site *site, const char *path, enum key_bit key, const char *value)
{
    uint64_t version;

    switch (key) {
    case KEY_FORMAT:
        if (cfsr_parse_u64(value, &version) < 0)
            return -CFSR_E_FORMAT;
        if (version != CFSR_FORMAT_VERSION)
            return cfsr_fail(-CFSR_E_VERSION, "%s has format version %s, this program knows %d",
                             path, value, CFSR_FORMAT_VERSION);
        return 0;
    case KEY_CLUSTER: return cfsr_uuid_parse(value, &site->cluster);
    case KEY_JOURNAL: return cfsr_uuid_parse(value, &site->journal);
    case KEY_SITE_ID: return cfsr_parse_u64(value, &site->site_id);
    case KEY_NAME: return copy_text(value, site->name, sizeof site->name);
    case KEY_LANES: return parse_u32(value, &site->lanes);
    case KEY_SHARDS: return parse_u32(value, &site->shards);
    case KEY_FUNCTION: return copy_text(value, site->shard_function, sizeof site->shard_function);
    case KEY_SEGMENT: return cfsr_parse_u64(value, &site->segment_bytes);
    case KEY_COUNT: break;
    }
    return -CFSR_E_FORMAT;
}

static int parse_line(struct cfsr_site *site, const char *path, char *line, unsigned *seen)
{
    char *equals = strstr(line, " = ");

    if (line[0] == '#')
        return 0;
    if (equals == NULL)
        return cfsr_fail(-CFSR_E_FORMAT, "%s: line without \" = \": %s", path, line);
    *equals = '\0';
    for (unsigned key = 0; key < KEY_COUNT; key++) {
        if (strcmp(line, key_names[key]) != 0)
            continue;
        int rc = set_key(site, path, (enum key_bit)key, equals + 3);

        if (rc == -CFSR_E_VERSION)
            return rc;
        if (rc < 0 || (*seen & (1u << key)) != 0)
            return cfsr_fail(-CFSR_E_FORMAT, "%s: bad or repeated value of %s", path, line);
        *seen |= 1u << key;
        return 0;
    }
    return cfsr_fail(-CFSR_E_FORMAT, "%s: unknown key %s", path, line);
}

static int parse_site(struct cfsr_site *site, const char *path, char *text)
{
    char *crc_line = strstr(text, "\ncrc32c = ");
    char expected[32];
    unsigned seen = 0;
    int rc = 0;

    if (crc_line == NULL)
        return cfsr_fail(-CFSR_E_FORMAT, "%s is not a site's identity file (no crc32c line)", path);
    crc_line++;
    (void)snprintf(expected, sizeof expected, "crc32c = %08" PRIx32 "\n",
                   cfsr_crc32c(0, text, (size_t)(crc_line - text)));
    if (strcmp(crc_line, expected) != 0)
        return cfsr_fail(-CFSR_E_CHECKSUM, "%s was changed or damaged: restore it from a copy",
                         path);
    *crc_line = '\0';
    for (char *line = text, *end; rc == 0 && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        rc = parse_line(site, path, line, &seen);
    }
    if (rc == 0 && seen != (1u << KEY_COUNT) - 1)
        return cfsr_fail(-CFSR_E_FORMAT, "%s: a key is missing", path);
    return rc;
}

int cfsr_site_load(struct cfsr_fs *fs, const char *data_dir, struct cfsr_site *site_out)
{
    char path[PATH_BYTES], text[FILE_MAX_BYTES];
    struct cfsr_site site = {0};
    struct cfsr_file *file;
    int rc;

    if (copy_text(data_dir, site.data_dir, sizeof site.data_dir) < 0)
        return cfsr_fail(-ENAMETOOLONG, "the data directory's name is longer than %d bytes",
                         CFSR_PATH_MAX - 1);
    (void)snprintf(path, sizeof path, "%s/cluster", data_dir);
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ, &file);
    if (rc == -ENOENT)
        return cfsr_fail(rc, "%s holds no site: run \"cfs-repl init --data-dir %s\" first",
                         data_dir, data_dir);
    if (rc < 0)
        return cfsr_fail(rc, "cannot open %s: %s", path, cfsr_strerror(rc));
    rc = cfsr_file_pread(file, text, sizeof text - 1, 0);
    cfsr_file_close(file);
    if (rc < 0)
        return cfsr_fail(rc, "cannot read %s: %s", path, cfsr_strerror(rc));
    text[rc] = '\0';
    rc = parse_site(&site, path, text);
    if (rc == 0)
        rc = check_site(&site);
    if (rc == 0)
        *site_out = site;
    return rc;
}
