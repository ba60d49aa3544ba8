/*
 * test_sim_faults.c - the simulated disk's points, damage and faults (core/file_sim.h).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cfsrepl/error.h>

#include "core/file_sim.h"
#include "sim_files.h"

#define ALL_PHASES 7u

static struct cfsr_fs *make(uint64_t seed)
{
    struct cfsr_fs_sim_options options = {.seed = seed, .capacity_bytes = 1 << 20};
    struct cfsr_fs *fs = NULL;

    cr_assert_eq(cfsr_fs_sim_create(&options, &fs), 0);
    return fs;
}

/* One letter a sector; '.' for zeros, '?' if a sector is mixed, '!' if it cannot be read. */
static const char *look(struct cfsr_fs *fs, const char *path)
{
    static char text[4][128];
    static unsigned turn;
    char *start = text[turn++ % 4], *out = start;
    char sector[512];
    uint64_t at = 0;
    int n;

    while ((n = cfsr_fs_sim_peek(fs, path, at, sector, 512)) != 0 && out - start < 120) {
        if (n == -EIO)
            *out++ = '!';
        else if (memcmp(sector, sector + 1, (size_t)n - 1) != 0)
            *out++ = '?';
        else
            *out++ = sector[0] == '\0' ? '.' : sector[0];
        at += 512;
    }
    *out = '\0';
    return start;
}

/* ---- points ---- */

struct watch {
    char log[4000];
    uint64_t stop_number; /* 0: never */
    enum cfsr_sim_phase stop_phase;
    jmp_buf stop;
};

static void watch(void *user, struct cfsr_fs *fs, const struct cfsr_sim_point *point)
{
    struct watch *w = user;
    size_t len = strlen(w->log);

    cr_assert_eq(point->number, cfsr_fs_sim_op_count(fs));
    snprintf(w->log + len, sizeof w->log - len, "%s%.1s%s ", cfsr_sim_op_name(point->op),
             cfsr_sim_phase_name(point->phase), point->rc < 0 ? "!" : "");
    if (point->number == w->stop_number && point->phase == w->stop_phase)
        longjmp(w->stop, 1);
}

static void some_ops(struct cfsr_fs *fs)
{
    struct cfsr_file *file;

    cr_assert_eq(fs->ops->mkdir(fs, "/d"), 0);
    cr_assert_eq(fs->ops->mkdir(fs, "/d"), 0);
    file = open_file(fs, "/d/a", RW | CFSR_OPEN_CREATE);
    cfsr_file_close(open_file(fs, "/d/a", RW | CFSR_OPEN_CREATE));
    cr_assert_eq(cfsr_file_allocate(file, 0, 4096), 0);
    fill(file, 'a', 8, 0, false);
    cr_assert_eq(cfsr_file_sync(file), 0);
    fill(file, 'b', 8, 0, true);
    cr_assert_eq(cfsr_file_truncate(file, 512), 0);
    cr_assert_eq(fs->ops->sync_dir(fs, "/d"), 0);
    cr_assert_eq(fs->ops->rename(fs, "/d/a", "/d/b"), 0);
    cr_assert_eq(fs->ops->unlink(fs, "/d/b"), 0);
    cfsr_file_close(file);
}

Test(sim_points, every_op_that_changes_something_is_told_in_three_phases)
{
    struct cfsr_fs *fs = make(1);
    struct watch w = {0};

    cfsr_fs_sim_observe(fs, ALL_PHASES, watch, &w);
    some_ops(fs);
    cr_assert_str_eq(w.log, "mkdirb mkdirm mkdira createb createm createa "
                            "allocateb allocatem allocatea writeb writem writea syncb syncm synca "
                            "write-durableb write-durablem write-durablea "
                            "truncateb truncatem truncatea sync-dirb sync-dirm sync-dira "
                            "renameb renamem renamea unlinkb unlinkm unlinka ");
    cr_assert_eq(cfsr_fs_sim_op_count(fs), 10);
    w.log[0] = '\0';
    cfsr_fs_sim_observe(fs, 1u << CFSR_SIM_AFTER, watch, &w);
    cr_assert_eq(fs->ops->rename(fs, "/none", "/d/b"), -ENOENT);
    cr_assert_str_eq(w.log, "renamea! ");
    cfsr_fs_sim_observe(fs, 0, NULL, NULL);
    cr_assert_eq(fs->ops->mkdir(fs, "/e"), 0);
    cr_assert_str_eq(w.log, "renamea! ");
    cfsr_fs_sim_destroy(fs);
}

static void random_life(struct cfsr_fs *fs)
{
    struct cfsr_file *file = create(fs, "/a");

    for (unsigned i = 0; i < 40; i++) {
        fill(file, (char)('a' + i % 26), 1 + i % 7, (i * 5) % 50, i % 5 == 0);
        if (i % 11 == 0)
            cr_assert_eq(cfsr_file_sync(file), 0);
    }
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_RANDOM);
}

Test(sim_points, observing_changes_nothing_of_the_run)
{
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct cfsr_fs *seen = make(seed), *unseen = make(seed);
        struct watch w = {0};

        cfsr_fs_sim_observe(seen, ALL_PHASES, watch, &w);
        random_life(seen);
        random_life(unseen);
        cr_assert_str_eq(look(seen, "/a"), look(unseen, "/a"));
        cfsr_fs_sim_destroy(seen);
        cfsr_fs_sim_destroy(unseen);
    }
}

/* Runs one op and leaves it at the phase. */
static void stop_op(struct cfsr_fs *fs, struct cfsr_file *file, enum cfsr_sim_phase phase,
                    void (*op)(struct cfsr_fs *fs, struct cfsr_file *file))
{
    static struct watch w;

    w = (struct watch){.stop_number = cfsr_fs_sim_op_count(fs) + 1, .stop_phase = phase};
    cfsr_fs_sim_observe(fs, ALL_PHASES, watch, &w);
    if (setjmp(w.stop) == 0) {
        op(fs, file);
        cr_assert_fail("not stopped");
    }
    cfsr_fs_sim_observe(fs, 0, NULL, NULL);
}

static void overwrite(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    fill(file, 'n', 8, 0, false);
}

static void overwrite_durably(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    fill(file, 'n', 8, 0, true);
}

static void sync_file(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)fs;
    (void)cfsr_file_sync(file);
}

static void sync_root(struct cfsr_fs *fs, struct cfsr_file *file)
{
    (void)file;
    (void)fs->ops->sync_dir(fs, "/");
}

/* 8 sectors of 'o', durable; the overwrite with 'n' is stopped, and the power goes. */
static const char *stopped_write(uint64_t seed, enum cfsr_sim_phase phase, bool durable,
                                 enum cfsr_persistence model)
{
    struct cfsr_fs *fs = make(seed);
    struct cfsr_file *file = create(fs, "/a");
    const char *text;

    fill(file, 'o', 8, 0, true);
    stop_op(fs, file, phase, durable ? overwrite_durably : overwrite);
    cfsr_fs_sim_crash(fs, model);
    text = look(fs, "/a");
    cfsr_fs_sim_destroy(fs);
    return text;
}

Test(sim_points, a_write_can_be_stopped_before_amid_and_after)
{
    unsigned prefixes = 0, scattered = 0;

    cr_assert_str_eq(stopped_write(1, CFSR_SIM_BEFORE, true, CFSR_PERSIST_EVERYTHING), "oooooooo");
    cr_assert_str_eq(stopped_write(1, CFSR_SIM_AFTER, true, CFSR_PERSIST_NOTHING), "nnnnnnnn");
    cr_assert_str_eq(stopped_write(1, CFSR_SIM_AFTER, false, CFSR_PERSIST_NOTHING), "oooooooo");
    for (uint64_t seed = 0; seed < 100; seed++) {
        const char *text = stopped_write(seed, CFSR_SIM_MIDDLE, true, CFSR_PERSIST_EVERYTHING);
        size_t written = strspn(text, "n");

        cr_assert_eq(strspn(text, "no"), 8);
        prefixes += written > 0 && written + strspn(text + written, "o") == 8;
        scattered += strstr(text, "on") != NULL;
        cr_assert_str_eq(stopped_write(seed, CFSR_SIM_MIDDLE, true, CFSR_PERSIST_NOTHING),
                         "oooooooo", "the middle of a durable write is not durable");
    }
    cr_assert(prefixes > 20 && scattered > 20, "%u %u", prefixes, scattered);
}

Test(sim_points, the_middle_of_a_sync_has_saved_some)
{
    unsigned mixed = 0;

    for (uint64_t seed = 0; seed < 30; seed++) {
        struct cfsr_fs *fs = make(seed);
        struct cfsr_file *file = create(fs, "/a");
        const char *text;

        fill(file, 'o', 16, 0, true);
        fill(file, 'n', 16, 0, false);
        stop_op(fs, file, CFSR_SIM_MIDDLE, sync_file);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
        text = look(fs, "/a");
        cr_assert_eq(strspn(text, "on"), 16);
        mixed += strchr(text, 'o') != NULL && strchr(text, 'n') != NULL;
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert_gt(mixed, 25);
}

Test(sim_points, the_middle_of_a_directory_sync_keeps_the_order_of_names)
{
    unsigned between = 0;

    for (uint64_t seed = 0; seed < 40; seed++) {
        struct cfsr_fs *fs = make(seed);
        bool a, b, c;

        cfsr_file_close(open_file(fs, "/a", RW | CFSR_OPEN_CREATE));
        cfsr_file_close(open_file(fs, "/b", RW | CFSR_OPEN_CREATE));
        cfsr_file_close(open_file(fs, "/c", RW | CFSR_OPEN_CREATE));
        stop_op(fs, NULL, CFSR_SIM_MIDDLE, sync_root);
        cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
        a = cfsr_fs_sim_peek(fs, "/a", 0, &a, 1) != -ENOENT;
        b = cfsr_fs_sim_peek(fs, "/b", 0, &b, 1) != -ENOENT;
        c = cfsr_fs_sim_peek(fs, "/c", 0, &c, 1) != -ENOENT;
        cr_assert(a && (b || !c));
        between += !c;
        cfsr_fs_sim_destroy(fs);
    }
    cr_assert(between > 10 && between < 38, "%u", between);
}

Test(sim_points, an_op_that_fails_has_no_middle)
{
    struct cfsr_fs *fs = make(1);
    struct cfsr_file *file = create(fs, "/a");
    struct watch w = {0};

    cfsr_fs_sim_observe(fs, ALL_PHASES, watch, &w);
    cfsr_fs_sim_fail_nth(fs, 1, -EIO);
    cr_assert_eq(cfsr_file_pwrite(file, "a", 1, 0, false), -EIO);
    cr_assert_eq(cfsr_file_allocate(file, 0, 2 << 20), -ENOSPC);
    cfsr_fs_sim_fail_nth(fs, 1, -ENOSPC);
    cr_assert_eq(cfsr_file_open(fs, "/b", RW | CFSR_OPEN_CREATE, &file), -ENOSPC);
    cfsr_fs_sim_fail_nth(fs, 1, -ENOSPC);
    cr_assert_eq(fs->ops->mkdir(fs, "/d"), -ENOSPC);
    cr_assert_str_eq(w.log, "writeb writea! allocateb allocatea! createb createa! mkdirb mkdira! ");
    cr_assert_eq(cfsr_fs_sim_peek(fs, "/b", 0, &w, 1), -ENOENT);
    cfsr_fs_sim_destroy(fs);
}

/* ---- damage ---- */

Test(sim_damage, a_sector_is_zeroed_for_good)
{
    struct cfsr_fs *fs = make(1);
    struct cfsr_file *file = create(fs, "/a");

    fill(file, 'a', 10, 0, true);
    fill(file, 'b', 2, 2, false);
    cr_assert_eq(cfsr_fs_sim_zero_sector(fs, "/a", 2), 0);
    cr_assert_eq(cfsr_fs_sim_zero_sector(fs, "/a", 9), 0);
    cr_assert_eq(cfsr_fs_sim_zero_sector(fs, "/a", 9), -EALREADY);
    cr_assert_eq(cfsr_fs_sim_zero_sector(fs, "/a", 10), -EINVAL);
    cr_assert_eq(cfsr_fs_sim_zero_sector(fs, "/b", 0), -ENOENT);
    cr_assert_str_eq(look(fs, "/a"), "aa.baaaaa.");
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_str_eq(look(fs, "/a"), "aa.aaaaaa.");
    cfsr_fs_sim_destroy(fs);
}

Test(sim_damage, a_stale_sector_holds_what_was_there_before_the_last_overwrite)
{
    struct cfsr_fs *fs = make(1);
    struct cfsr_file *file = create(fs, "/a");

    fill(file, 'a', 4, 0, true);
    cr_assert_eq(cfsr_fs_sim_stale_sector(fs, "/a", 0), -EOPNOTSUPP);
    cfsr_fs_sim_keep_stale(fs, true);
    fill(file, 'b', 3, 0, true);
    fill(file, 'x', 2, 0, false);
    fill(file, 'c', 2, 0, false);
    cr_assert_eq(cfsr_file_sync(file), 0);
    fill(file, 'd', 4, 8, true);
    cr_assert_str_eq(look(fs, "/a"), "ccba....dddd");
    cr_assert_eq(cfsr_fs_sim_stale_sector(fs, "/a", 1), 0);
    cr_assert_eq(cfsr_fs_sim_stale_sector(fs, "/a", 2), 0);
    cr_assert_eq(cfsr_fs_sim_stale_sector(fs, "/a", 9), 0);
    cr_assert_eq(cfsr_fs_sim_stale_sector(fs, "/a", 12), -EINVAL);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_str_eq(look(fs, "/a"), "cbaa....d.dd");
    cfsr_fs_sim_destroy(fs);
}

Test(sim_damage, a_misdirected_write_hits_one_sector_and_misses_another)
{
    struct cfsr_fs *fs = make(1);
    struct cfsr_file *file = create(fs, "/a");

    cfsr_fs_sim_keep_stale(fs, true);
    fill(file, 'a', 12, 0, true);
    fill(file, 'b', 1, 2, true);
    cr_assert_eq(cfsr_fs_sim_misdirect(fs, "/a", 2, 9), 0);
    cr_assert_str_eq(look(fs, "/a"), "aaaaaaaaabaa");
    cr_assert_eq(cfsr_fs_sim_misdirect(fs, "/a", 12, 0), -EINVAL);
    cr_assert_eq(cfsr_fs_sim_misdirect(fs, "/a", 0, 12), -EINVAL);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_str_eq(look(fs, "/a"), "aaaaaaaaabaa");
    cfsr_fs_sim_destroy(fs);
}

Test(sim_damage, bad_sectors_fail_reads_until_they_are_rewritten)
{
    struct cfsr_fs *fs = make(1);
    struct cfsr_file *file = create(fs, "/a");
    char data[4096];

    fill(file, 'a', 20, 0, true);
    cr_assert_eq(cfsr_fs_sim_fail_reads(fs, "/a", 6, 4), 0);
    cr_assert_eq(cfsr_fs_sim_fail_reads(fs, "/a", 20, 1), -EINVAL);
    cr_assert_str_eq(look(fs, "/a"), "aaaaaa!!!!aaaaaaaaaa");
    cr_assert_eq(cfsr_file_pread(file, data, 4096, 0), -EIO);
    cr_assert_eq(cfsr_file_pread(file, data, 6 * 512, 0), 6 * 512);
    cr_assert_eq(cfsr_file_pread(file, data, 1, 9 * 512 + 511), -EIO);
    cr_assert_eq(cfsr_file_pread(file, data, 1, 10 * 512), 1);
    cr_assert_eq(cfsr_file_pwrite(file, "xy", 2, 7 * 512 - 1, false), -EIO);
    fill(file, 'b', 1, 6, true);
    fill(file, 'c', 1, 7, false);
    cr_assert_str_eq(look(fs, "/a"), "aaaaaabc!!aaaaaaaaaa");
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_str_eq(look(fs, "/a"), "aaaaaab!!!aaaaaaaaaa", "the rewrite of 7 did not last");
    cfsr_fs_sim_destroy(fs);
}

Test(sim_damage, any_bytes_can_be_poked)
{
    struct cfsr_fs *fs = make(1);
    struct cfsr_file *file = create(fs, "/a");
    char data[1024];

    fill(file, 'a', 16, 0, true);
    memset(data, 'z', sizeof data);
    cr_assert_eq(cfsr_fs_sim_poke(fs, "/a", 7 * 512, data, 1024), 0);
    cr_assert_eq(cfsr_fs_sim_poke(fs, "/a", 16 * 512 - 1, data, 2), -EINVAL);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_NOTHING);
    cr_assert_str_eq(look(fs, "/a"), "aaaaaaazzaaaaaaa");
    cfsr_fs_sim_destroy(fs);
}

/* ---- faults ---- */

Test(sim_faults, a_failed_sync_may_drop_what_it_was_to_save)
{
    struct cfsr_fs *fs = make(3);
    struct cfsr_file *file = create(fs, "/a");
    const char *text;

    fill(file, 'o', 64, 0, true);
    fill(file, 'n', 64, 0, false);
    cfsr_fs_sim_set_sync_failures(fs, 1000000, CFSR_SYNC_FAILURE_DROPPED);
    cr_assert_eq(cfsr_file_sync(file), -EIO);
    text = look(fs, "/a");
    cr_assert(strchr(text, 'o') != NULL && strchr(text, 'n') != NULL, "%s", text);
    cfsr_fs_sim_set_sync_failures(fs, 0, CFSR_SYNC_FAILURE_DROPPED);
    cr_assert_eq(cfsr_file_sync(open_file(fs, "/a", RW)), 0);
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_EVERYTHING);
    cr_assert_str_eq(look(fs, "/a"), text);
    cfsr_fs_sim_destroy(fs);
}

Test(sim_faults, a_failed_sync_may_keep_it_readable_and_lose_it_in_the_crash)
{
    struct cfsr_fs *fs = make(3);
    struct cfsr_file *file = create(fs, "/a");
    const char *text;

    fill(file, 'o', 64, 0, true);
    fill(file, 'n', 64, 0, false);
    cfsr_fs_sim_fail_nth(fs, 1, -EIO);
    cr_assert_eq(cfsr_file_sync(file), -EIO);
    cr_assert_eq(strspn(look(fs, "/a"), "n"), 64);
    cr_assert_eq(cfsr_file_sync(open_file(fs, "/a", RW)), 0, "and no later sync writes it");
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_EVERYTHING);
    text = look(fs, "/a");
    cr_assert(strchr(text, 'o') != NULL && strchr(text, 'n') != NULL, "%s", text);
    cfsr_fs_sim_destroy(fs);
}

static void note_done(struct cfsr_file_op *op)
{
    *(bool *)op->user = true;
}

Test(sim_faults, latency_and_capacity_change_while_it_runs)
{
    struct cfsr_fs *fs = make(1);
    struct cfsr_file *file = create(fs, "/a");
    char byte = 'x';
    bool done = false;
    struct cfsr_file_op op = {.type = CFSR_FILE_WRITE,
                              .buffer_index = CFSR_BUFFER_UNREGISTERED,
                              .file = file,
                              .buf = &byte,
                              .len_bytes = 1,
                              .done = note_done,
                              .user = &done};

    cfsr_fs_sim_set_latency(fs, 1000000);
    cr_assert_eq(cfsr_fs_submit(fs, &op), 0);
    cr_assert(cfsr_fs_sim_next_due_us(fs) >= 500000);
    cfsr_fs_sim_advance(fs, cfsr_fs_sim_next_due_us(fs));
    cr_assert(cfsr_fs_poll(fs) == 1 && done);
    cfsr_fs_sim_set_capacity(fs, 0);
    fill(file, 'a', 8, 0, false);
    cr_assert_eq(cfsr_file_pwrite(file, "x", 1, 4096, false), -ENOSPC);
    cfsr_fs_sim_set_capacity(fs, 8192);
    cr_assert_eq(cfsr_file_pwrite(file, "x", 1, 4096, false), 1);
    cfsr_fs_sim_destroy(fs);
}

/* ---- copies ---- */

Test(sim_clone, a_clone_is_the_same_disk_and_another)
{
    struct cfsr_fs *fs = make(9), *clone = NULL;
    struct cfsr_file *file = create(fs, "/a");
    uint64_t free_bytes, clone_free_bytes, total_bytes;
    const char *text;

    cfsr_fs_sim_keep_stale(fs, true);
    fill(file, 'a', 40, 0, true);
    fill(file, 'b', 30, 5, true);
    fill(file, 'c', 20, 10, false);
    cfsr_file_close(open_file(fs, "/late", RW | CFSR_OPEN_CREATE));
    cr_assert_eq(cfsr_fs_sim_clone(fs, &clone), 0);
    cr_assert_str_eq(look(clone, "/a"), look(fs, "/a"));
    cr_assert_eq(fs->ops->space(fs, "/", &free_bytes, &total_bytes), 0);
    cr_assert_eq(clone->ops->space(clone, "/", &clone_free_bytes, &total_bytes), 0);
    cr_assert_eq(free_bytes, clone_free_bytes);
    cfsr_fs_sim_crash(clone, CFSR_PERSIST_RANDOM);
    text = look(clone, "/a");
    cr_assert(strchr(text, 'c') != NULL && strncmp(text, "aaaaa", 5) == 0, "%s", text);
    cr_assert_eq(strspn(look(fs, "/a") + 10, "c"), 20, "the original goes on");
    cfsr_fs_sim_crash(fs, CFSR_PERSIST_RANDOM);
    cr_assert_str_eq(look(fs, "/a"), text, "and takes the same choices");
    cr_assert_eq(cfsr_fs_sim_stale_sector(clone, "/a", 5), 0);
    cr_assert_eq(look(clone, "/a")[5], 'a');
    cfsr_fs_sim_destroy(fs);
    cfsr_fs_sim_destroy(clone);
}
