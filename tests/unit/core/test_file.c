/*
 * test_file.c - the file seam: every case runs over all three backends.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cfsrepl/error.h>

#include "core/file.h"
#include "core/file_ring.h"
#include "core/ring.h"
#include "tests/unit/command.h"

struct env {
    struct cfsr_fs *fs;
    struct cfsr_ring *ring;
    bool is_sim;
    char dir[64];
    char path[128];
};

struct waiter {
    struct cfsr_file_op op;
    unsigned done;
};

static void op_done(struct cfsr_file_op *op)
{
    ((struct waiter *)op->user)->done++;
}

static struct waiter *start(struct env *env, struct waiter *waiter, enum cfsr_file_op_type type,
                            struct cfsr_file *file, void *buf, uint32_t len, uint64_t offset)
{
    *waiter = (struct waiter){.op = {.type = type,
                                     .buffer_index = CFSR_BUFFER_UNREGISTERED,
                                     .file = file,
                                     .buf = buf,
                                     .len_bytes = len,
                                     .offset_bytes = offset,
                                     .done = op_done}};
    waiter->op.user = waiter;
    cr_assert_eq(cfsr_fs_submit(env->fs, &waiter->op), 0);
    return waiter;
}

static int32_t finish(struct env *env, struct waiter *waiter)
{
    unsigned i;

    for (i = 0; i < 10000000 && waiter->done == 0; i++) {
        if (env->is_sim)
            cfsr_fs_sim_advance(env->fs, cfsr_fs_sim_next_due_us(env->fs));
        cfsr_fs_poll(env->fs);
    }
    cr_assert_eq(waiter->done, 1);
    return waiter->op.result;
}

static const char *path_of(struct env *env, const char *name)
{
    snprintf(env->path, sizeof env->path, "%s/%s", env->dir, name);
    return env->path;
}

static struct cfsr_file *open_new(struct env *env, const char *name, unsigned more)
{
    struct cfsr_file *file = NULL;

    cr_assert_eq(cfsr_file_open(env->fs, path_of(env, name),
                                CFSR_OPEN_READ | CFSR_OPEN_WRITE | CFSR_OPEN_CREATE | more, &file),
                 0);
    return file;
}

static void run_blocking(void (*body)(struct env *env))
{
    struct env env = {.fs = cfsr_fs_blocking(), .dir = "/tmp/cfsr-file-XXXXXX"};

    cr_assert_not_null(mkdtemp(env.dir));
    body(&env);
    cr_assert_eq(TEST_COMMAND("rm", "-rf", env.dir), 0);
}

static void run_ring(void (*body)(struct env *env))
{
    struct cfsr_ring_options options = {.sq_entries = 4, .cpu = -1};
    struct env env = {.dir = "/tmp/cfsr-file-XXXXXX"};
    int rc = cfsr_ring_create(&options, &env.ring);

    if (rc == -CFSR_E_NO_IO_URING)
        cr_skip_test("%s", cfsr_error_message());
    cr_assert_eq(rc, 0);
    env.fs = cfsr_fs_ring_create(env.ring);
    cr_assert_not_null(mkdtemp(env.dir));
    body(&env);
    cr_assert_eq(cfsr_ring_in_flight(env.ring), 0);
    cfsr_ring_destroy(env.ring);
    cfsr_fs_ring_destroy(env.fs);
    cr_assert_eq(TEST_COMMAND("rm", "-rf", env.dir), 0);
}

static void run_simulated(void (*body)(struct env *env))
{
    struct cfsr_fs_sim_options options = {
        .seed = 1, .capacity_bytes = 64 << 20, .write_latency_us = 100};
    struct env env = {.is_sim = true, .dir = "/data"};

    cr_assert_eq(cfsr_fs_sim_create(&options, &env.fs), 0);
    cr_assert_eq(env.fs->ops->mkdir(env.fs, env.dir), 0);
    body(&env);
    cfsr_fs_sim_destroy(env.fs);
}

#define SEAM_TEST(name)                \
    static void name(struct env *env); \
    Test(file_blocking, name)          \
    {                                  \
        run_blocking(name);            \
    }                                  \
    Test(file_ring, name)              \
    {                                  \
        run_ring(name);                \
    }                                  \
    Test(file_simulated, name)         \
    {                                  \
        run_simulated(name);           \
    }                                  \
    static void name(struct env *env)

SEAM_TEST(writes_and_reads_back)
{
    struct cfsr_file *file = open_new(env, "a", 0);
    char got[16] = "";
    uint64_t size = 0;

    cr_assert_eq(cfsr_file_pwrite(file, "hello world", 11, 5, false), 11);
    cr_assert_eq(cfsr_file_pread(file, got, sizeof got, 5), 11);
    cr_assert_arr_eq(got, "hello world", 11);
    cr_assert_eq(cfsr_file_pread(file, got, 5, 0), 5);
    cr_assert_arr_eq(got, "\0\0\0\0\0", 5);
    cr_assert_eq(cfsr_file_size(file, &size), 0);
    cr_assert_eq(size, 16);
    cr_assert_eq(cfsr_file_pread(file, got, 4, 100), 0);
    cr_assert_eq(cfsr_file_sync(file), 0);
    cr_assert_eq(cfsr_file_alignment(file), 1);
    cfsr_file_close(file);
}

SEAM_TEST(submitted_ops_complete_in_poll_only)
{
    struct cfsr_file *file = open_new(env, "a", 0);
    static char big[300000], got[300000];
    struct waiter w;

    memset(big, 'x', sizeof big);
    start(env, &w, CFSR_FILE_WRITE_DURABLE, file, big, sizeof big, 1000);
    cr_assert_eq(w.done, 0);
    cr_assert_eq(finish(env, &w), (int)sizeof big);
    start(env, &w, CFSR_FILE_READ, file, got, sizeof got, 1000);
    cr_assert_eq(w.done, 0);
    cr_assert_eq(finish(env, &w), (int)sizeof got);
    cr_assert_arr_eq(got, big, sizeof big);
    start(env, &w, CFSR_FILE_SYNC, file, NULL, 0, 0);
    cr_assert_eq(finish(env, &w), 0);
    cfsr_file_close(file);
}

SEAM_TEST(read_is_short_only_at_the_end)
{
    struct cfsr_file *file = open_new(env, "a", 0);
    char got[64];
    struct waiter w;

    cr_assert_eq(cfsr_file_pwrite(file, "0123456789", 10, 0, false), 10);
    start(env, &w, CFSR_FILE_READ, file, got, sizeof got, 4);
    cr_assert_eq(finish(env, &w), 6);
    start(env, &w, CFSR_FILE_READ, file, got, sizeof got, 10);
    cr_assert_eq(finish(env, &w), 0);
    cfsr_file_close(file);
}

SEAM_TEST(more_ops_than_queue_entries)
{
    struct cfsr_file *file = open_new(env, "a", 0);
    static struct waiter w[100];
    static uint32_t value[100], got[100];
    unsigned i;

    for (i = 0; i < 100; i++) {
        value[i] = i * 7;
        start(env, &w[i], CFSR_FILE_WRITE, file, &value[i], 4, i * 4);
    }
    for (i = 0; i < 100; i++)
        cr_assert_eq(finish(env, &w[i]), 4);
    cr_assert_eq(cfsr_file_pread(file, got, sizeof got, 0), (int)sizeof got);
    cr_assert_arr_eq(got, value, sizeof got);
    cfsr_file_close(file);
}

struct chain {
    struct waiter waiter;
    struct env *env;
    struct cfsr_file *file;
    unsigned left;
    unsigned depth;
};

static void chain_done(struct cfsr_file_op *op)
{
    struct chain *chain = op->user;

    cr_assert_eq(chain->depth, 0, "done() called from submit");
    chain->depth++;
    if (--chain->left > 0)
        cr_assert_eq(cfsr_fs_submit(chain->env->fs, op), 0);
    chain->depth--;
}

SEAM_TEST(done_may_submit_the_next)
{
    static char byte = 'z';
    struct chain chain = {.env = env, .file = open_new(env, "a", 0), .left = 50};
    unsigned i;

    chain.waiter.op = (struct cfsr_file_op){.type = CFSR_FILE_WRITE,
                                            .buffer_index = CFSR_BUFFER_UNREGISTERED,
                                            .file = chain.file,
                                            .buf = &byte,
                                            .len_bytes = 1,
                                            .done = chain_done,
                                            .user = &chain};
    cr_assert_eq(cfsr_fs_submit(env->fs, &chain.waiter.op), 0);
    for (i = 0; i < 10000000 && chain.left > 0; i++) {
        if (env->is_sim)
            cfsr_fs_sim_advance(env->fs, cfsr_fs_sim_next_due_us(env->fs));
        cfsr_fs_poll(env->fs);
    }
    cr_assert_eq(chain.left, 0);
    cfsr_file_close(chain.file);
}

SEAM_TEST(lock_conflicts_between_two_opens)
{
    struct cfsr_file *a = open_new(env, "lock", 0), *b = open_new(env, "lock", 0);

    cr_assert_eq(cfsr_file_lock(a), 0);
    cr_assert_eq(cfsr_file_lock(a), 0, "again by the holder");
    cr_assert_eq(cfsr_file_lock(b), -CFSR_E_LOCKED);
    cfsr_file_close(a);
    cr_assert_eq(cfsr_file_lock(b), 0);
    cfsr_file_close(b);
}

SEAM_TEST(open_errors)
{
    struct cfsr_file *file = open_new(env, "a", 0), *other = NULL;

    cr_assert_eq(cfsr_file_open(env->fs, path_of(env, "none"), CFSR_OPEN_READ, &other), -ENOENT);
    cr_assert(strstr(cfsr_error_message(), "none") != NULL, "the message names the file");
    cr_assert_eq(cfsr_file_open(env->fs, path_of(env, "a"),
                                CFSR_OPEN_WRITE | CFSR_OPEN_CREATE | CFSR_OPEN_EXCLUSIVE, &other),
                 -EEXIST);
    cr_assert_eq(
        cfsr_file_open(env->fs, path_of(env, "no/b"), CFSR_OPEN_WRITE | CFSR_OPEN_CREATE, &other),
        -ENOENT);
    cr_assert_null(other);
    cfsr_file_close(file);
    cr_assert_eq(cfsr_file_open(env->fs, path_of(env, "a"), CFSR_OPEN_READ, &file), 0);
    cr_assert_eq(cfsr_file_pwrite(file, "x", 1, 0, false), -EBADF);
    cfsr_file_close(file);
}

SEAM_TEST(truncate_and_allocate)
{
    struct cfsr_file *file = open_new(env, "a", 0);
    char got[8];
    uint64_t size = 0;

    cr_assert_eq(cfsr_file_allocate(file, 0, 100000), 0);
    cr_assert_eq(cfsr_file_size(file, &size), 0);
    cr_assert_eq(size, 100000);
    cr_assert_eq(cfsr_file_pwrite(file, "abcdef", 6, 0, false), 6);
    cr_assert_eq(cfsr_file_truncate(file, 3), 0);
    cr_assert_eq(cfsr_file_truncate(file, 6), 0);
    cr_assert_eq(cfsr_file_pread(file, got, sizeof got, 0), 6);
    cr_assert_arr_eq(got, "abc\0\0\0", 6);
    cfsr_file_close(file);
}

static int count_entry(void *user, const struct cfsr_dir_entry *entry)
{
    unsigned *seen = user;

    if (strcmp(entry->name, "d") == 0 && entry->is_directory)
        *seen |= 1;
    else if (strcmp(entry->name, "b") == 0 && !entry->is_directory && entry->size_bytes == 3)
        *seen |= 2;
    else
        *seen |= 4;
    return 0;
}

static int stop_listing(void *user, const struct cfsr_dir_entry *entry)
{
    (void)user;
    (void)entry;
    return 42;
}

SEAM_TEST(names)
{
    const struct cfsr_fs_ops *ops = env->fs->ops;
    struct cfsr_file *file = open_new(env, "a", 0);
    unsigned seen = 0;
    char from[128], to[128];
    uint64_t free_bytes = 0, total_bytes = 0;

    cr_assert_eq(cfsr_file_pwrite(file, "123", 3, 0, false), 3);
    cfsr_file_close(file);
    cr_assert_eq(ops->mkdir(env->fs, path_of(env, "d")), 0);
    cr_assert_eq(ops->mkdir(env->fs, path_of(env, "d")), 0);
    cr_assert_eq(ops->mkdir(env->fs, path_of(env, "a")), -ENOTDIR);
    snprintf(from, sizeof from, "%s/a", env->dir);
    snprintf(to, sizeof to, "%s/b", env->dir);
    cr_assert_eq(ops->rename(env->fs, from, to), 0);
    cr_assert_eq(ops->rename(env->fs, from, to), -ENOENT);
    cr_assert_eq(ops->sync_dir(env->fs, env->dir), 0);
    cr_assert_eq(ops->list(env->fs, env->dir, count_entry, &seen), 0);
    cr_assert_eq(seen, 3);
    cr_assert_eq(ops->list(env->fs, env->dir, stop_listing, NULL), 42);
    cr_assert_eq(ops->unlink(env->fs, to), 0);
    cr_assert_eq(ops->unlink(env->fs, to), -ENOENT);
    cr_assert_eq(ops->list(env->fs, path_of(env, "none"), count_entry, &seen), -ENOENT);
    cr_assert_eq(ops->space(env->fs, env->dir, &free_bytes, &total_bytes), 0);
    cr_assert(free_bytes > 0 && free_bytes <= total_bytes);
}

SEAM_TEST(an_unlinked_file_lives_while_open)
{
    struct cfsr_file *file = open_new(env, "a", 0);
    char got[3];

    cr_assert_eq(cfsr_file_pwrite(file, "abc", 3, 0, false), 3);
    cr_assert_eq(env->fs->ops->unlink(env->fs, path_of(env, "a")), 0);
    cr_assert_eq(cfsr_file_pread(file, got, 3, 0), 3);
    cfsr_file_close(file);
}

SEAM_TEST(direct_files_tell_their_alignment)
{
    struct cfsr_file *file = open_new(env, "a", CFSR_OPEN_DIRECT);
    uint32_t align = cfsr_file_alignment(file);
    char *page = aligned_alloc(4096, 8192);
    struct waiter w;

    cr_assert(align == 1 || (4096 % align == 0 && align >= 512));
    memset(page, 'p', 8192);
    start(env, &w, CFSR_FILE_WRITE_DURABLE, file, page, 8192, 4096);
    cr_assert_eq(finish(env, &w), 8192);
    memset(page, 0, 8192);
    start(env, &w, CFSR_FILE_READ, file, page, 8192, 8192);
    cr_assert_eq(finish(env, &w), 4096);
    cr_assert_eq(page[4095], 'p');
    cfsr_file_close(file);
    free(page);
}

SEAM_TEST(a_failed_file_takes_no_more_writes)
{
    struct cfsr_file *file = open_new(env, "a", 0);
    struct waiter w = {0};
    char byte = 0;

    cr_assert_eq(cfsr_file_pwrite(file, "abc", 3, 0, true), 3);
    file->failed = true;
    cr_assert_eq(cfsr_file_pwrite(file, "x", 1, 0, false), -CFSR_E_FAILED);
    cr_assert_eq(cfsr_file_sync(file), -CFSR_E_FAILED);
    cr_assert_eq(cfsr_file_truncate(file, 0), -CFSR_E_FAILED);
    cr_assert_eq(cfsr_file_allocate(file, 0, 10), -CFSR_E_FAILED);
    w.op = (struct cfsr_file_op){.type = CFSR_FILE_WRITE,
                                 .file = file,
                                 .buf = &byte,
                                 .len_bytes = 1,
                                 .done = op_done,
                                 .user = &w};
    cr_assert_eq(cfsr_fs_submit(env->fs, &w.op), -CFSR_E_FAILED);
    cr_assert_eq(w.done, 0);
    start(env, &w, CFSR_FILE_READ, file, &byte, 1, 0);
    cr_assert_eq(finish(env, &w), 1);
    cr_assert_eq(byte, 'a');
    cfsr_file_close(file);
}

/* /dev/full refuses every write: the real backends mark the file after a durable one. */
static void dev_full(struct env *env)
{
    struct cfsr_file *file = NULL;
    struct waiter w;
    char byte = 'x';

    cr_assert_eq(cfsr_file_open(env->fs, "/dev/full", CFSR_OPEN_WRITE, &file), 0);
    start(env, &w, CFSR_FILE_WRITE, file, &byte, 1, 0);
    cr_assert_eq(finish(env, &w), -ENOSPC);
    cr_assert_not(file->failed, "no durability was promised");
    start(env, &w, CFSR_FILE_WRITE_DURABLE, file, &byte, 1, 0);
    cr_assert_lt(finish(env, &w), 0);
    cr_assert(file->failed);
    cfsr_file_close(file);
}
Test(file_blocking, error_marks_the_file)
{
    run_blocking(dev_full);
}
Test(file_ring, error_marks_the_file)
{
    run_ring(dev_full);
}

Test(file_ring, uses_registered_buffers_and_adopts_files)
{
    struct cfsr_core_stats *stats;
    struct cfsr_ring_options options = {.sq_entries = 4, .cpu = -1};
    struct cfsr_ring *ring;
    struct cfsr_file *file = NULL;
    struct env env = {.dir = "/tmp"};
    char *page = aligned_alloc(4096, 4096);
    struct iovec part = {.iov_base = page, .iov_len = 4096};
    char path[] = "/tmp/cfsr-adopt-XXXXXX";
    struct waiter w = {0};

    if (cfsr_ring_create(&options, &ring) < 0)
        cr_skip_test("%s", cfsr_error_message());
    close(mkstemp(path));
    cr_assert(cfsr_ring_register_buffers(ring, &part, 1));
    env.fs = cfsr_fs_ring_create(ring);
    cr_assert_eq(cfsr_file_open(cfsr_fs_blocking(), path, CFSR_OPEN_READ | CFSR_OPEN_WRITE, &file),
                 0);
    cfsr_fs_ring_adopt(env.fs, file);
    memset(page, 'r', 4096);
    w.op = (struct cfsr_file_op){.type = CFSR_FILE_WRITE_DURABLE,
                                 .buffer_index = 0,
                                 .file = file,
                                 .buf = page,
                                 .len_bytes = 4096,
                                 .done = op_done,
                                 .user = &w};
    cr_assert_eq(cfsr_fs_submit(env.fs, &w.op), 0);
    cr_assert_eq(finish(&env, &w), 4096);
    memset(page, 0, 4096);
    w.done = 0;
    w.op.type = CFSR_FILE_READ;
    cr_assert_eq(cfsr_fs_submit(env.fs, &w.op), 0);
    cr_assert_eq(finish(&env, &w), 4096);
    cr_assert_eq(page[17], 'r');
    stats = cfsr_ring_stats(ring);
    cr_assert_eq(cfsr_counter_get(&stats->counters[CFSR_CORE_COUNTER_file_writes]), 1);
    cr_assert_eq(cfsr_counter_get(&stats->counters[CFSR_CORE_COUNTER_read_bytes]), 4096);
    cfsr_file_close(file);
    cfsr_ring_destroy(ring);
    cfsr_fs_ring_destroy(env.fs);
    unlink(path);
    free(page);
}
