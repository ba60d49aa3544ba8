/* A consumer's position and the power: what was committed is there afterwards, whatever else went.
 */
#include <criterion/criterion.h>

#include "inbox/consumer.h"
#include "support.h"

#define COMMITS 9

static struct cfsr_site site;

static struct cfsr_fs *sim_with_site(uint64_t seed)
{
    struct cfsr_fs_sim_options options = {.seed = seed, .capacity_bytes = 64ull << 20};
    struct cfsr_fs *fs;

    cr_assert_eq(cfsr_fs_sim_create(&options, &fs), 0);
    test_site_init(&site, "/data", 2);
    cr_assert_eq(cfsr_site_create(fs, &site), 0, "%s", cfsr_error_message());
    cr_assert_eq(fs->ops->sync_dir(fs, "/"), 0); /* of the data directory's own name */
    return fs;
}

/* Commits so often, and then the power goes: the last commit counts. */
static void commit_and_crash(unsigned commits, enum cfsr_persistence model)
{
    struct cfsr_fs *fs = sim_with_site(commits);
    struct cfsr_consumer *consumer;

    cr_assert_eq(cfsr_consumer_open(fs, &site, "c", true, true, &consumer), 0);
    for (unsigned i = 1; i <= commits; i++) {
        consumer->position[0].sequence = i;
        consumer->position[1].body_offset = 4096ull * i;
        cr_assert_eq(cfsr_consumer_store(consumer, &site, i), 0);
    }
    cfsr_fs_sim_crash(fs, model);
    consumer->file = NULL; /* it went with the power */
    cfsr_consumer_close(consumer);
    cr_assert_eq(cfsr_consumer_open(fs, &site, "c", false, false, &consumer), 0,
                 "the consumer is gone after %u commits: %s", commits, cfsr_error_message());
    cr_assert_eq(consumer->position[0].sequence, commits);
    cr_assert_eq(consumer->position[1].body_offset, 4096ull * commits);
    cr_assert_eq(consumer->generation, commits);
    cfsr_consumer_close(consumer);
    cfsr_fs_sim_destroy(fs);
}

Test(inbox_consumer, a_committed_position_survives_a_power_cut)
{
    for (unsigned commits = 1; commits <= COMMITS; commits++) {
        commit_and_crash(commits, CFSR_PERSIST_NOTHING);
        commit_and_crash(commits, CFSR_PERSIST_RANDOM);
        commit_and_crash(commits, CFSR_PERSIST_PREFIX);
    }
}
