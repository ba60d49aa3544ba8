/*
 * cmd_init.c - `cfs-repl init` and `cfs-repl keygen`: make a site, make a key.
 *
 * Thread: the main thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/command.h"
#include "security/keyring.h"

#define LANES_DEFAULT  "4"
#define SHARDS_DEFAULT "256"

struct init_options {
    char data_dir[CFSR_PATH_MAX];
    uint64_t site_id;
    char name[CFSR_SITE_NAME_MAX + 1];
    char cluster_id[CFSR_UUID_TEXT_LEN];
    uint32_t lanes;
    uint32_t shards;
    uint64_t segment_bytes;
};

static const struct cfsr_option init_rows[] = {
    CFSR_DATA_DIR_OPTION(struct init_options),
    {.name = "site-id",
     .value_name = "N",
     .group = "Options",
     .kind = CFSR_OPTION_COUNT,
     .required = true,
     .help = "Number of this site in its cluster, 1 to 2^64-2; never given to another site.",
     .max = UINT64_MAX - 1,
     CFSR_OPTION_FIELD(struct init_options, site_id)},
    {.name = "name",
     .value_name = "NAME",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .required = true,
     .help = "Name of this site, for people.",
     CFSR_OPTION_FIELD(struct init_options, name)},
    {.name = "cluster-id",
     .value_name = "UUID",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .help = "The cluster this site joins: the id that init printed at the first site. Without it: "
             "a new cluster.",
     CFSR_OPTION_FIELD(struct init_options, cluster_id)},
    {.name = "lanes",
     .value_name = "N",
     .group = "Options",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .max = CFSR_LANES_MAX,
     .default_text = LANES_DEFAULT,
     .help = "Journal lanes: a power of two, the same at every site of the cluster.",
     CFSR_OPTION_FIELD(struct init_options, lanes)},
    {.name = "shards",
     .value_name = "N",
     .group = "Options",
     .kind = CFSR_OPTION_COUNT,
     .min = 1,
     .max = CFSR_SHARDS_MAX,
     .default_text = SHARDS_DEFAULT,
     .help = "Virtual shards: at least as many as lanes, the same at every site of the cluster.",
     CFSR_OPTION_FIELD(struct init_options, shards)},
    {.name = "segment-bytes",
     .value_name = "SIZE",
     .group = "Options",
     .kind = CFSR_OPTION_SIZE,
     .min = CFSR_SEGMENT_BYTES_MIN,
     .max = 4ull << 30,
     .default_text = "64MiB",
     .help = "Body of a segment file, a multiple of 1MiB, the same at every site of the cluster.",
     CFSR_OPTION_FIELD(struct init_options, segment_bytes)},
};

static const struct cfsr_option_set init_set = {
    .program = "cfs-repl",
    .command = "init",
    .synopsis = "--data-dir DIR --site-id N --name NAME [--cluster-id UUID] [options]",
    .summary = "Makes the data directory of a new site. Prints the cluster id, which the other "
               "sites need.",
    .options = init_rows,
    .count = CFSR_ARRAY_LEN(init_rows),
};

static int random_uuid(struct cfsr_uuid *uuid_out)
{
    uint8_t random[16];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return cfsr_fail(-EIO, "cannot get random bytes: %s", cfsr_strerror(-errno));
    cfsr_uuid_from_random(random, uuid_out);
    return 0;
}

static int check_init(const struct init_options *options)
{
    if (options->site_id == 0)
        return cfsr_fail(-CFSR_E_USAGE, "--site-id: '0' is out of range: give at least 1");
    if (!cfsr_is_power_of_two(options->lanes))
        return cfsr_fail(-CFSR_E_USAGE,
                         "--lanes: '%u' is not a power of two: give 1, 2, 4, 8, 16, 32 or 64",
                         options->lanes);
    if (options->lanes > options->shards)
        return cfsr_fail(-CFSR_E_USAGE,
                         "--lanes: %u lanes for %u shards: give at most one lane a shard",
                         options->lanes, options->shards);
    if (options->segment_bytes % (1u << 20) != 0)
        return cfsr_fail(-CFSR_E_USAGE, "--segment-bytes: must be a multiple of 1MiB");
    if (strspn(options->name,
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
        strlen(options->name))
        return cfsr_fail(-CFSR_E_USAGE, "--name: '%s': use letters, digits, '.', '-' and '_'",
                         options->name);
    return 0;
}

static int init_run(int argc, char *const *argv)
{
    struct init_options options;
    struct cfsr_site site = {.shard_function = "parent-or-inode-mod"};
    char cluster[CFSR_UUID_TEXT_LEN];
    int rc;

    rc = cfsr_command_options(&init_set, &options, sizeof options, argc, argv);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = check_init(&options);
    if (rc < 0)
        return rc;
    if (options.cluster_id[0] == '\0')
        rc = random_uuid(&site.cluster);
    else if (cfsr_uuid_parse(options.cluster_id, &site.cluster) < 0 ||
             cfsr_uuid_is_zero(&site.cluster))
        rc = cfsr_fail(-CFSR_E_USAGE, "--cluster-id: '%s' is not a UUID", options.cluster_id);
    if (rc == 0)
        rc = random_uuid(&site.journal);
    if (rc < 0)
        return rc;
    site.site_id = options.site_id;
    site.lanes = options.lanes;
    site.shards = options.shards;
    site.segment_bytes = options.segment_bytes;
    memcpy(site.name, options.name, sizeof site.name);
    memcpy(site.data_dir, options.data_dir, sizeof site.data_dir);
    rc = cfsr_site_create(cfsr_fs_blocking(), &site);
    if (rc < 0)
        return rc;
    cfsr_uuid_format(&site.cluster, cluster);
    printf("site %" PRIu64 " (%s) is ready in %s: %u lanes, %u shards\ncluster id: %s\n",
           site.site_id, site.name, site.data_dir, site.lanes, site.shards, cluster);
    return 0;
}

const struct cfsr_command cfsr_command_init = {.set = &init_set, .run = init_run};

struct keygen_options {
    char out[CFSR_PATH_MAX];
};

static const struct cfsr_option keygen_rows[] = {
    {.name = "out",
     .value_name = "FILE",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .required = true,
     .help = "Keyring to make; it must not exist.",
     CFSR_OPTION_FIELD(struct keygen_options, out)},
};

static const struct cfsr_option_set keygen_set = {
    .program = "cfs-repl",
    .command = "keygen",
    .synopsis = "--out FILE",
    .summary = "Makes a keyring with one random 32-byte site-pair key, mode 0600. Every site needs "
               "a copy.",
    .options = keygen_rows,
    .count = CFSR_ARRAY_LEN(keygen_rows),
};

static int keygen_run(int argc, char *const *argv)
{
    struct keygen_options options;
    int rc;

    rc = cfsr_command_options(&keygen_set, &options, sizeof options, argc, argv);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = cfsr_keyring_generate(options.out);
    if (rc < 0)
        return rc;
    printf("key 1 (site-pair, all sites) is in %s: copy it to every site, readable by its owner "
           "only\n",
           options.out);
    return 0;
}

const struct cfsr_command cfsr_command_keygen = {.set = &keygen_set, .run = keygen_run};
