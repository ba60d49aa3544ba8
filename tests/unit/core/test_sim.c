/*
 * test_sim.c - what only the simulated file backend does: power cuts, faults, virtual time, seeds.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "core/file.h"
#include "sim_files.h"

static struct cfsr_fs *make(uint64_t seed, uint32_t fail_sync_per_million)
{
    struct cfsr_fs_sim_options options = {.seed = seed,
                                          .capacity_bytes = 1 << 20,
                                          .write_latency_us = 100,
                                          .fail_sync_per_million = fail_sync_per_million};
    struct cfsr_fs *fs = NULL;

    cr_assert_eq(cfsr_fs_sim_create(&options, &fs), 0);
    return fs;
}

/* One letter a sector; '?' if a sector is mixed. */
static void look(struct cfsr_fs *fs, const char *path, char *text)
{
    struct cfsr_file *file = open_file(fs, path, CFSR_OPEN_READ);
    char sector[512];
    uint64_t at = 0;
    int n;

    while ((n = cfsr_file_pread(file, sector, 512, at)) > 0) {
        *text = sector[0] == '\0' ? '.' : sector[0];
        if (memcmp(sector, sector + 1, (size_t)n - 1) != 0)
            *text = '?';
        text++;
        at += (uint64_t)n;
    }
    *text = '\0';
    cfsr_file_close(file);
}

Test(sim, cut_keeps_what_was_synced_and_nothing_else)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = create(fs, "/a");
    char text[80];

    fill(file, 'a', 4, 0, false);
    cr_assert_eq(cfsr_file_sync(file), 0);
    fill(file, 'b', 2, 1, false);
    fill(file, 'c', 1, 3, true);
    fill(file, 'd', 2, 4, false);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    look(fs, "/a", text);
    cr_assert_str_eq(text, "aaac");
    cr_assert_eq(cfsr_file_sync(file), -EIO, "a file of the boot before is dead");
    cfsr_file_close(file);
    cfsr_fs_sim_destroy(fs);
}

Test(sim, cut_may_keep_everything)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = create(fs, "/a");
    char text[80];

    fill(file, 'a', 4, 0, false);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_EVERYTHING);
    look(fs, "/a", text);
    cr_assert_str_eq(text, "aaaa");
    cfsr_fs_sim_destroy(fs);
}

Test(sim, random_cut_tears_at_sectors)
{
    unsigned torn = 0, holes = 0;
    uint64_t seed;

    for (seed = 0; seed < 50; seed++) {
        struct cfsr_fs *fs = make(seed, 0);
        struct cfsr_file *file = create(fs, "/a");
        char text[80];

        fill(file, 'a', 16, 0, true);
        fill(file, 'b', 16, 0, false);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_RANDOM);
        look(fs, "/a", text);
        cr_assert_eq(strspn(text, "ab"), 16);
        torn += strchr(text, 'a') != NULL && strchr(text, 'b') != NULL ? 1 : 0;
        holes += strstr(text, "ab") != NULL ? 1 : 0;
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert_gt(torn, 40);
    cr_assert_gt(holes, 20, "a later sector survives an earlier one");
}

Test(sim, prefix_cut_never_keeps_a_later_change_without_an_earlier)
{
    unsigned torn = 0;
    uint64_t seed;

    for (seed = 0; seed < 100; seed++) {
        struct cfsr_fs *fs = make(seed, 0);
        struct cfsr_file *file = create(fs, "/a");
        char text[80];
        size_t kept;

        fill(file, 'a', 16, 0, true);
        fill(file, 'b', 8, 0, false);
        fill(file, 'b', 8, 8, false);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_PREFIX);
        look(fs, "/a", text);
        kept = strspn(text, "b");
        cr_assert_eq(kept + strspn(text + kept, "a"), 16, "seed %lu: %s", seed, text);
        torn += kept > 0 && kept < 16 ? 1 : 0;
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert_gt(torn, 50);
}

Test(sim, names_need_a_sync_of_their_directory)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file;

    cr_assert_eq(fs->ops->mkdir(fs, "/d"), 0);
    cr_assert_eq(fs->ops->sync_dir(fs, "/"), 0);
    file = open_file(fs, "/d/new", RW | CFSR_OPEN_CREATE);
    fill(file, 'a', 1, 0, true);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_eq(cfsr_file_open(fs, "/d/new", CFSR_OPEN_READ, &file), -ENOENT);

    file = open_file(fs, "/d/new", RW | CFSR_OPEN_CREATE);
    fill(file, 'a', 1, 0, true);
    cr_assert_eq(fs->ops->sync_dir(fs, "/d"), 0);
    cr_assert_eq(fs->ops->rename(fs, "/d/new", "/d/name"), 0);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cfsr_file_close(open_file(fs, "/d/new", CFSR_OPEN_READ));
    cr_assert_eq(fs->ops->rename(fs, "/d/new", "/d/name"), 0);
    cr_assert_eq(fs->ops->sync_dir(fs, "/d"), 0);
    cr_assert_eq(fs->ops->unlink(fs, "/d/name"), 0);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cfsr_file_close(open_file(fs, "/d/name", CFSR_OPEN_READ));
    cfsr_fs_sim_destroy(fs);
}

Test(sim, a_rename_survives_whole_or_not_at_all)
{
    unsigned moved = 0;
    uint64_t seed;

    for (seed = 0; seed < 60; seed++) {
        struct cfsr_fs *fs = make(seed, 0);
        struct cfsr_file *old = NULL, *new = NULL;

        fill(create(fs, "/a"), 'a', 1, 0, true);
        cr_assert_eq(fs->ops->rename(fs, "/a", "/b"), 0);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_RANDOM);
        cr_assert_neq(cfsr_file_open(fs, "/a", CFSR_OPEN_READ, &old),
                      cfsr_file_open(fs, "/b", CFSR_OPEN_READ, &new));
        moved += new != NULL ? 1 : 0;
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert(moved > 10 && moved < 50);
}

Test(sim, a_lock_ends_with_the_power)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = create(fs, "/a");

    cr_assert_eq(cfsr_file_lock(file), 0);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_eq(cfsr_file_lock(open_file(fs, "/a", RW)), 0);
    cfsr_fs_sim_destroy(fs);
}

Test(sim, capacity_is_a_limit)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = create(fs, "/a");
    uint64_t free_bytes, total_bytes;

    cr_assert_eq(cfsr_file_allocate(file, 0, (1 << 20) - 4096), 0);
    cr_assert_eq(cfsr_file_allocate(file, 0, (1 << 20) + 1), -ENOSPC);
    fill(file, 'x', 8, (1 << 11) - 8, false);
    cr_assert_eq(cfsr_file_pwrite(file, "x", 1, 1 << 20, false), -ENOSPC);
    cr_assert_eq(fs->ops->space(fs, "/", &free_bytes, &total_bytes), 0);
    cr_assert_eq(free_bytes, 0);
    cfsr_file_close(file);
    cr_assert_eq(fs->ops->unlink(fs, "/a"), 0);
    cr_assert_eq(fs->ops->sync_dir(fs, "/"), 0);
    cr_assert_eq(fs->ops->space(fs, "/", &free_bytes, &total_bytes), 0);
    cr_assert_eq(free_bytes, 1 << 20);
    cfsr_fs_sim_destroy(fs);
}

Test(sim, the_nth_op_fails_once)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = create(fs, "/a");
    uint64_t before = cfsr_fs_sim_op_count(fs);

    cfsr_fs_sim_fail_nth(fs, 2, -EIO);
    cr_assert_eq(cfsr_file_pwrite(file, "a", 1, 0, false), 1);
    cr_assert_eq(cfsr_file_pwrite(file, "b", 1, 0, false), -EIO);
    cr_assert_eq(cfsr_file_pwrite(file, "c", 1, 0, false), 1);
    cr_assert_eq(cfsr_fs_sim_op_count(fs), before + 3);
    cfsr_fs_sim_fail_nth(fs, 1, -ENOSPC);
    cfsr_fs_sim_fail_nth(fs, 0, 0);
    cr_assert_eq(cfsr_file_sync(file), 0);
    cfsr_fs_sim_destroy(fs);
}

Test(sim, a_failed_sync_marks_the_file_and_forgets_the_data)
{
    struct cfsr_fs *fs = make(3, 1000000);
    struct cfsr_file *file = open_file(fs, "/a", RW | CFSR_OPEN_CREATE), *again;
    char text[80];

    cr_assert_eq(fs->ops->sync_dir(fs, "/"), 0);
    cr_assert_eq(cfsr_file_allocate(file, 0, 64 * 512), 0);
    fill(file, 'a', 64, 0, false);
    cr_assert_eq(cfsr_file_sync(file), -EIO);
    cr_assert(file->failed);
    cr_assert_eq(cfsr_file_sync(file), -CFSR_E_FAILED);
    again = open_file(fs, "/a", RW);
    look(fs, "/a", text);
    cr_assert_eq(strspn(text, "a"), 64, "still visible");
    cr_assert_eq(cfsr_file_sync(again), -EIO);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_EVERYTHING);
    look(fs, "/a", text);
    cr_assert(strchr(text, 'a') != NULL && strchr(text, '.') != NULL,
              "only part of it was written: %s", text);
    cfsr_fs_sim_destroy(fs);
}

static void count_done(struct cfsr_file_op *op)
{
    (*(unsigned *)op->user)++;
}

static struct cfsr_file_op op_of(enum cfsr_file_op_type type, struct cfsr_file *file, void *buf,
                                 uint32_t len, uint64_t offset, unsigned *done)
{
    return (struct cfsr_file_op){.type = type,
                                 .buffer_index = CFSR_BUFFER_UNREGISTERED,
                                 .file = file,
                                 .buf = buf,
                                 .len_bytes = len,
                                 .offset_bytes = offset,
                                 .done = count_done,
                                 .user = done};
}

Test(sim, ops_take_virtual_time)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = create(fs, "/a");
    char byte = 'x';
    unsigned done = 0;
    struct cfsr_file_op op = op_of(CFSR_FILE_WRITE, file, &byte, 1, 0, &done);
    uint64_t due_us;

    cr_assert_eq(cfsr_fs_sim_next_due_us(fs), UINT64_MAX);
    cr_assert_eq(cfsr_fs_submit(fs, &op), 0);
    due_us = cfsr_fs_sim_next_due_us(fs);
    cr_assert(due_us >= 50 && due_us <= 150);
    cfsr_fs_sim_advance(fs, due_us - 1);
    cr_assert_eq(cfsr_fs_poll(fs), 0);
    cfsr_fs_sim_advance(fs, due_us);
    cr_assert_eq(done, 0);
    cr_assert_eq(cfsr_fs_poll(fs), 1);
    cr_assert_eq(done, 1);
    cfsr_fs_sim_destroy(fs);
}

Test(sim, a_sync_covers_only_writes_that_had_completed)
{
    unsigned lost = 0;
    uint64_t seed;

    for (seed = 0; seed < 40; seed++) {
        struct cfsr_fs *fs = make(seed, 0);
        struct cfsr_file *file = create(fs, "/a");
        char data[512], text[80];
        unsigned done = 0;
        struct cfsr_file_op write = op_of(CFSR_FILE_WRITE, file, data, 512, 0, &done);
        struct cfsr_file_op sync = op_of(CFSR_FILE_SYNC, file, NULL, 0, 0, &done);

        memset(data, 'x', sizeof data);
        cr_assert_eq(cfsr_fs_submit(fs, &write), 0);
        cr_assert_eq(cfsr_fs_submit(fs, &sync), 0);
        cfsr_fs_sim_advance(fs, 1000);
        cr_assert_eq(cfsr_fs_poll(fs), 2);
        cr_assert_eq(sync.result, 0);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
        look(fs, "/a", text);
        lost += strcmp(text, "x") != 0 ? 1 : 0;
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert_eq(lost, 40);
}

Test(sim, pending_ops_never_complete_after_a_cut_but_may_tear)
{
    unsigned touched = 0;
    uint64_t seed;

    for (seed = 0; seed < 40; seed++) {
        struct cfsr_fs *fs = make(seed, 0);
        struct cfsr_file *file = create(fs, "/a");
        char data[8 * 512], text[80];
        unsigned done = 0;
        struct cfsr_file_op op = op_of(CFSR_FILE_WRITE_DURABLE, file, data, sizeof data, 0, &done);

        fill(file, 'o', 8, 0, true);
        memset(data, 'n', sizeof data);
        cr_assert_eq(cfsr_fs_submit(fs, &op), 0);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_RANDOM);
        cfsr_fs_sim_advance(fs, 1000);
        cr_assert_eq(cfsr_fs_poll(fs), 0);
        cr_assert_eq(done, 0);
        look(fs, "/a", text);
        touched += strchr(text, 'n') != NULL && strchr(text, 'o') != NULL ? 1 : 0;
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert_gt(touched, 30);
}

Test(sim, a_flipped_bit_is_on_disk)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = create(fs, "/a");
    char byte = 0;

    cr_assert_eq(cfsr_file_pwrite(file, "a", 1, 0, true), 1);
    cr_assert_eq(cfsr_fs_sim_flip_bit(fs, "/a", 1), 0);
    cr_assert_eq(cfsr_file_pread(file, &byte, 1, 0), 1);
    cr_assert_eq(byte, 'a' ^ 2);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_eq(cfsr_file_pread(open_file(fs, "/a", CFSR_OPEN_READ), &byte, 1, 0), 1);
    cr_assert_eq(byte, 'a' ^ 2);
    cr_assert_eq(cfsr_fs_sim_flip_bit(fs, "/a", 8), -EINVAL);
    cr_assert_eq(cfsr_fs_sim_flip_bit(fs, "/b", 0), -ENOENT);
    cfsr_fs_sim_destroy(fs);
}

Test(sim, the_same_seed_gives_the_same_outcome)
{
    char text[2][80];
    unsigned i;

    for (i = 0; i < 2; i++) {
        struct cfsr_fs *fs = make(77, 0);
        struct cfsr_file *file = create(fs, "/a");

        fill(file, 'a', 32, 0, true);
        fill(file, 'b', 32, 0, false);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_RANDOM);
        look(fs, "/a", text[i]);
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert_str_eq(text[0], text[1]);
}

Test(sim, direct_files_want_alignment)
{
    struct cfsr_fs *fs = make(1, 0);
    struct cfsr_file *file = open_file(fs, "/a", RW | CFSR_OPEN_CREATE | CFSR_OPEN_DIRECT);
    _Alignas(512) char data[1024] = {0};

    cr_assert_eq(cfsr_file_alignment(file), 512);
    cr_assert_eq(cfsr_file_pwrite(file, data, 512, 512, true), 512);
    cr_assert_eq(cfsr_file_pwrite(file, data, 512, 100, false), -EINVAL);
    cr_assert_eq(cfsr_file_pwrite(file, data + 1, 512, 0, false), -EINVAL);
    cr_assert_eq(cfsr_file_pread(file, data, 100, 0), -EINVAL);
    cfsr_fs_sim_destroy(fs);
}
