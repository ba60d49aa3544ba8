/*
 * test_list.c - the intrusive list keeps order and survives removal while walking.
 */
#include "base/list.h"

#include <criterion/criterion.h>

struct item {
    int number;
    struct cfsr_list link;
};

static int digits(struct cfsr_list *head)
{
    struct cfsr_list *node;
    int all = 0;

    CFSR_LIST_FOR_EACH(node, head)
    all = all * 10 + CFSR_LIST_ENTRY(node, struct item, link)->number;
    return all;
}

Test(list, keeps_order)
{
    struct cfsr_list head;
    struct item items[3] = {{.number = 1}, {.number = 2}, {.number = 3}};

    cfsr_list_init(&head);
    cr_assert(cfsr_list_is_empty(&head));
    cr_assert_null(cfsr_list_pop_front(&head));
    cfsr_list_push_back(&head, &items[1].link);
    cfsr_list_push_back(&head, &items[2].link);
    cfsr_list_push_front(&head, &items[0].link);
    cr_assert_eq(digits(&head), 123);
    cr_assert_eq(CFSR_LIST_ENTRY(cfsr_list_pop_front(&head), struct item, link)->number, 1);
    cr_assert_eq(digits(&head), 23);
}

Test(list, remove_is_safe_while_walking_and_when_repeated)
{
    struct cfsr_list head;
    struct cfsr_list *node;
    struct cfsr_list *after;
    struct item items[5];

    cfsr_list_init(&head);
    for (int i = 0; i < 5; i++) {
        items[i].number = i + 1;
        cfsr_list_push_back(&head, &items[i].link);
    }
    CFSR_LIST_FOR_EACH_SAFE(node, after, &head)
    {
        if (CFSR_LIST_ENTRY(node, struct item, link)->number % 2 == 0)
            cfsr_list_remove(node);
    }
    cr_assert_eq(digits(&head), 135);
    cfsr_list_remove(&items[1].link);
    cr_assert_eq(digits(&head), 135);
}
