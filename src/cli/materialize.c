/*
 * materialize.c - `cfs-repl materialize`: a site's entries, applied to a directory.
 *
 * Thread: the main thread. The stream comes merged over lanes in the one order in which every site
 * applies it; tree.h does the rest.
 */
#include <inttypes.h>
#include <string.h>

#include <cfsrepl/inbox.h>

#include "base/bytes.h"
#include "base/fail.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/stream.h"
#include "cli/tree.h"

struct materialize_options {
    char data_dir[CFSR_PATH_MAX];
    char into[CFSR_PATH_MAX];
    uint64_t site;
    bool force;
    bool json;
};

static const struct cfsr_option rows[] = {
    CFSR_DATA_DIR_OPTION(struct materialize_options),
    {.name = "into",
     .value_name = "DIR",
     .group = "Options",
     .kind = CFSR_OPTION_TEXT,
     .required = true,
     .help = "Directory to fill: new or empty.",
     CFSR_OPTION_FIELD(struct materialize_options, into)},
    {.name = "site",
     .value_name = "ID",
     .group = "Options",
     .kind = CFSR_OPTION_COUNT,
     .help = "Whose entries. Without it: the one other site in the inbox, or the own journal when "
             "the inbox is empty.",
     CFSR_OPTION_FIELD(struct materialize_options, site)},
    {.name = "force",
     .group = "Options",
     .kind = CFSR_OPTION_BOOL,
     .help = "Also into a directory with contents; files of the same name are replaced.",
     CFSR_OPTION_FIELD(struct materialize_options, force)},
    CFSR_JSON_OPTION(struct materialize_options),
};

static const struct cfsr_option_set set = {
    .program = "cfs-repl",
    .command = "materialize",
    .synopsis = "--data-dir DIR --into DIR [--site ID] [--force]",
    .summary = "Applies a site's entries to a directory: contents, permissions, owners (as root), "
               "times, links, "
               "extended attributes. Names that would leave the directory are refused.",
    .options = rows,
    .count = CFSR_ARRAY_LEN(rows),
};

/* The origin that is meant when none is named: batches say whose they are without being decoded. */
static int choose_origin(const struct cfsr_site *site, uint64_t *origin_out)
{
    const struct cfsr_inbox_options options = {
        .opts_size = sizeof options, .data_dir = site->data_dir, .lane = CFSR_INBOX_ALL_LANES};
    struct cfsr_inbox *inbox;
    struct cfsr_inbox_batch batch;
    uint64_t origin = 0;
    int rc = cfsr_inbox_open(&options, &inbox);

    if (rc < 0)
        return rc;
    while ((rc = cfsr_inbox_next_batch(inbox, &batch)) == 1) {
        if (origin != 0 && batch.site_id != origin) {
            rc = cfsr_fail(-CFSR_E_USAGE,
                           "--site is missing: the inbox holds entries of site %" PRIu64
                           " and of site %" PRIu64,
                           origin, batch.site_id);
            break;
        }
        origin = batch.site_id;
    }
    cfsr_inbox_close(inbox);
    if (rc < 0)
        return rc;
    *origin_out = origin != 0 ? origin : site->site_id;
    return 0;
}

static int apply_all(struct cfsr_stream *stream, struct cfsr_tree *tree)
{
    struct cfsr_stream_record record;
    int rc;

    while ((rc = cfsr_stream_next(stream, 0, &record)) == 1) {
        rc = cfsr_tree_apply(tree, record.header.op, record.header.flags, record.header.inode,
                             record.payload, record.header.payload_bytes);
        if (rc < 0)
            return cfsr_fail_context(rc, "entry at lane %u, LSN %" PRIu64, record.lane, record.lsn);
    }
    return rc < 0 ? rc : cfsr_tree_finish(tree);
}

static void report(const struct materialize_options *options, uint64_t origin,
                   const struct cfsr_tree_stats *stats)
{
    char text[32];

    if (options->json) {
        printf("{\"site\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"directories\":%" PRIu64
               ",\"files\":%" PRIu64 ",\"symlinks\":%" PRIu64 ",\"links\":%" PRIu64
               ",\"nodes\":%" PRIu64 ",\"xattrs\":%" PRIu64 ",\"removed\":%" PRIu64
               ",\"data_bytes\":%" PRIu64 ",\"opaque\":%" PRIu64 ",\"xattrs_refused\":%" PRIu64
               ",\"without_data\":%" PRIu64 "}\n",
               origin, stats->entries, stats->directories, stats->files, stats->symlinks,
               stats->links, stats->nodes, stats->xattrs, stats->removed, stats->data_bytes,
               stats->opaque, stats->xattrs_refused, stats->without_data);
        return;
    }
    printf("applied %" PRIu64 " entries of site %" PRIu64 ": %" PRIu64 " directories, %" PRIu64
           " files, %" PRIu64 " symbolic links, %" PRIu64 " hard links, %" PRIu64 " nodes, %" PRIu64
           " extended attributes, %s of contents\n",
           stats->entries, origin, stats->directories, stats->files, stats->symlinks, stats->links,
           stats->nodes, stats->xattrs, cfsr_format_bytes(stats->data_bytes, text, sizeof text));
    if (stats->without_data > 0)
        printf("%" PRIu64 " writes carry no contents: those files have their length only\n",
               stats->without_data);
    if (stats->opaque > 0)
        printf("%" PRIu64 " entries have an opaque payload and were not applied\n", stats->opaque);
    if (stats->xattrs_refused > 0)
        printf("%" PRIu64
               " extended attributes were refused by the file system or need privilege\n",
               stats->xattrs_refused);
}

static int run(int argc, char *const *argv)
{
    struct materialize_options options;
    struct cfsr_stream_options from = {.lane = CFSR_STREAM_ALL_LANES};
    struct cfsr_site site;
    struct cfsr_stream *stream;
    struct cfsr_tree *tree;
    bool incomplete = false;
    int rc = cfsr_command_options(&set, &options, sizeof options, argc, argv);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = cfsr_command_site(options.data_dir, &site);
    from.site = &site;
    from.origin = options.site;
    if (rc == 0 && options.site == 0)
        rc = choose_origin(&site, &from.origin);
    if (rc == 0)
        rc = cfsr_stream_open(&from, &stream);
    if (rc < 0)
        return rc;
    rc = cfsr_tree_open(options.into, options.force, &tree);
    if (rc < 0) {
        cfsr_stream_close(stream);
        return rc;
    }
    rc = apply_all(stream, tree);
    if (rc == 0) {
        report(&options, from.origin, cfsr_tree_stats(tree));
        incomplete = cfsr_tree_stats(tree)->opaque > 0 || cfsr_tree_stats(tree)->xattrs_refused > 0;
    }
    cfsr_tree_close(tree);
    cfsr_stream_close(stream);
    if (rc < 0)
        return rc;
    return incomplete ? CFSR_EXIT_FAILED : 0;
}

const struct cfsr_command cfsr_command_materialize = {.set = &set, .run = run};
