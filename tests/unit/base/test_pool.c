/*
 * test_pool.c - the pool gives each object once, counts, and notices misuse.
 */
#include "base/pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

static struct cfsr_pool *pool_of(size_t object_bytes, uint32_t count)
{
    struct cfsr_pool *pool = NULL;
    cr_assert_eq(cfsr_pool_create(object_bytes, count, &pool), 0);
    return pool;
}

Test(pool, gives_every_object_once_then_null)
{
    struct cfsr_pool *pool = pool_of(100, 50);
    uint8_t *objects[50];

    for (int i = 0; i < 50; i++) {
        objects[i] = cfsr_pool_take(pool);
        cr_assert_not_null(objects[i]);
        memset(objects[i], i + 1, 100);
    }
    cr_assert_null(cfsr_pool_take(pool));
    for (int i = 0; i < 50; i++) {
        for (int j = 0; j < 100; j++)
            cr_assert_eq(objects[i][j], i + 1, "objects overlap");
        cfsr_pool_give(pool, objects[i]);
    }
    cr_assert_eq(cfsr_pool_free_count(pool), 50);
    cfsr_pool_destroy(pool);
}

Test(pool, objects_come_zeroed)
{
    struct cfsr_pool *pool = pool_of(33, 1);
    uint8_t *object = cfsr_pool_take(pool);

    memset(object, 0xff, 33);
    cfsr_pool_give(pool, object);
    object = cfsr_pool_take(pool);
    for (int i = 0; i < 33; i++)
        cr_assert_eq(object[i], 0);
    cfsr_pool_give(pool, object);
    cfsr_pool_destroy(pool);
}

Test(pool, generation_changes_with_every_give)
{
    struct cfsr_pool *pool = pool_of(64, 1);
    void *object = cfsr_pool_take(pool);
    uint32_t generation = cfsr_pool_generation(pool, object);

    cr_assert_neq(generation, 0);
    cfsr_pool_give(pool, object);
    cr_assert_eq(cfsr_pool_take(pool), object);
    cr_assert_neq(cfsr_pool_generation(pool, object), generation);
    cfsr_pool_give(pool, object);
    cfsr_pool_destroy(pool);
}

Test(pool, low_water_is_the_fewest_ever_free)
{
    struct cfsr_pool *pool = pool_of(8, 4);
    void *a = cfsr_pool_take(pool);
    void *b = cfsr_pool_take(pool);

    cfsr_pool_give(pool, a);
    cr_assert_eq(cfsr_pool_free_count(pool), 3);
    cr_assert_eq(cfsr_pool_low_water(pool), 2);
    cfsr_pool_give(pool, b);
    cr_assert_eq(cfsr_pool_low_water(pool), 2);
    cfsr_pool_destroy(pool);
}

Test(pool, large_objects_are_cache_line_aligned)
{
    struct cfsr_pool *pool = pool_of(70, 3);
    void *objects[3];

    for (int i = 0; i < 3; i++) {
        objects[i] = cfsr_pool_take(pool);
        cr_assert_eq((uintptr_t)objects[i] % 64, 0);
    }
    for (int i = 0; i < 3; i++)
        cfsr_pool_give(pool, objects[i]);
    cfsr_pool_destroy(pool);
}

Test(pool, refuses_impossible_sizes)
{
    struct cfsr_pool *pool = NULL;

    cr_assert_eq(cfsr_pool_create(0, 1, &pool), -EINVAL);
    cr_assert_eq(cfsr_pool_create(1, 0, &pool), -EINVAL);
    cr_assert_eq(cfsr_pool_create(SIZE_MAX / 2, 3, &pool), -EINVAL);
    cr_assert_null(pool);
    cfsr_pool_destroy(NULL);
}

Test(pool, giving_twice_aborts, .signal = SIGABRT)
{
    struct cfsr_pool *pool = pool_of(16, 2);
    void *object = cfsr_pool_take(pool);

    cfsr_pool_give(pool, object);
    cfsr_pool_give(pool, object);
}

Test(pool, giving_a_stranger_aborts, .signal = SIGABRT)
{
    struct cfsr_pool *pool = pool_of(16, 2);
    char *object = cfsr_pool_take(pool);

    cfsr_pool_give(pool, object + 1);
}

Test(pool, destroying_while_in_use_aborts, .signal = SIGABRT)
{
    struct cfsr_pool *pool = pool_of(16, 2);

    cr_assert_not_null(cfsr_pool_take(pool));
    cfsr_pool_destroy(pool);
}
