/* test_slab.c - slots: exhaustion, owners, generations, low water; the doubly mapped buffer. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "core/slab.h"

static struct cfsr_slab *make(uint32_t slots)
{
    struct cfsr_slab_options options = {.slot_bytes = 8192, .slots = slots, .populate = true};
    struct cfsr_slab *slab = NULL;

    cr_assert_eq(cfsr_slab_create(&options, &slab), 0);
    return slab;
}

Test(slab, hands_out_each_slot_once_until_empty)
{
    struct cfsr_slab *slab = make(4);
    uint32_t slot[4], i, j;

    for (i = 0; i < 4; i++) {
        slot[i] = cfsr_slab_take(slab, 7);
        cr_assert_lt(slot[i], 4);
        cr_assert_eq((uintptr_t)cfsr_slab_address(slab, slot[i]) % CFSR_SLOT_ALIGN, 0);
        memset(cfsr_slab_address(slab, slot[i]), (int)i + 1, 8192);
        for (j = 0; j < i; j++)
            cr_assert_neq(slot[i], slot[j]);
    }
    cr_assert_eq(cfsr_slab_take(slab, 7), CFSR_SLOT_NONE);
    cr_assert_eq(cfsr_slab_free_count(slab), 0);
    for (i = 0; i < 4; i++) {
        cr_assert_eq(((uint8_t *)cfsr_slab_address(slab, slot[i]))[8191], i + 1);
        cfsr_slab_give(slab, slot[i], 7);
    }
    cr_assert_eq(cfsr_slab_free_count(slab), 4);
    cr_assert_eq(cfsr_slab_low_water(slab), 0);
    cr_assert_eq(cfsr_slab_bytes(slab), 4 * 8192);
    cfsr_slab_destroy(slab);
}

Test(slab, counts_per_owner_and_names_uses_by_generation)
{
    struct cfsr_slab *slab = make(3);
    uint32_t a = cfsr_slab_take(slab, 1), b = cfsr_slab_take(slab, 2), c = cfsr_slab_take(slab, 1);
    uint32_t generation = cfsr_slab_generation(slab, a);

    cr_assert_eq(cfsr_slab_owned(slab, 1), 2);
    cr_assert(cfsr_slab_is_current(slab, a, generation));
    cfsr_slab_give(slab, a, 1);
    cr_assert_not(cfsr_slab_is_current(slab, a, generation));
    cr_assert_eq(cfsr_slab_take(slab, 2), a);
    cr_assert_not(cfsr_slab_is_current(slab, a, generation), "a stale name of the slot");
    cr_assert_eq(cfsr_slab_owned(slab, 2), 2);
    cr_assert_not(cfsr_slab_is_current(slab, 99, 1));
    cfsr_slab_give(slab, a, 2);
    cfsr_slab_give(slab, b, 2);
    cfsr_slab_give(slab, c, 1);
    cfsr_slab_destroy(slab);
}

Test(slab, giving_as_another_owner_is_a_bug, .signal = SIGABRT)
{
    struct cfsr_slab *slab = make(1);

    cfsr_slab_give(slab, cfsr_slab_take(slab, 1), 2);
}

Test(slab, giving_twice_is_a_bug, .signal = SIGABRT)
{
    struct cfsr_slab *slab = make(1);
    uint32_t slot = cfsr_slab_take(slab, 1);

    cfsr_slab_give(slab, slot, 1);
    cfsr_slab_give(slab, slot, 1);
}

Test(slab, refuses_odd_sizes)
{
    struct cfsr_slab_options options = {.slot_bytes = 1000, .slots = 1};
    struct cfsr_slab *slab = NULL;

    cr_assert_eq(cfsr_slab_create(&options, &slab), -EINVAL);
    cr_assert_null(slab);
}

Test(mirror, both_halves_are_the_same_bytes)
{
    struct cfsr_mirror mirror = {0};
    const size_t size = 65536;
    size_t i;

    cr_assert_eq(cfsr_mirror_create(size, &mirror), 0);
    cr_assert_eq(mirror.size_bytes, size);
    memcpy(mirror.base + size - 5, "0123456789", 10);
    /* To the compiler the two views are different memory: it may move the loads before the store.
     */
    __asm__ volatile("" ::: "memory");
    cr_assert_arr_eq(mirror.base, "56789", 5);
    for (i = 0; i < size; i++)
        mirror.base[i] = (uint8_t)(i * 31);
    __asm__ volatile("" ::: "memory");
    cr_assert_arr_eq(mirror.base, mirror.base + size, size);
    cfsr_mirror_destroy(&mirror);
    cr_assert_null(mirror.base);
    cr_assert_eq(cfsr_mirror_create(5000, &mirror), -EINVAL);
    cr_assert_eq(cfsr_mirror_create(512, &mirror), -EINVAL);
}
