/*
 * list.h - intrusive doubly linked list; the head is a node that points at itself when empty.
 * No memory, no lock: the owner thread of the list touches it.
 */
#ifndef CFSR_BASE_LIST_H
#define CFSR_BASE_LIST_H

#include <stdbool.h>

#include "base/bytes.h"

struct cfsr_list {
    struct cfsr_list *prev;
    struct cfsr_list *next;
};

static inline void cfsr_list_init(struct cfsr_list *node)
{
    node->prev = node;
    node->next = node;
}
static inline bool cfsr_list_is_empty(const struct cfsr_list *head)
{
    return head->next == head;
}
static inline void cfsr_list_insert_before(struct cfsr_list *at, struct cfsr_list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}
static inline void cfsr_list_push_back(struct cfsr_list *head, struct cfsr_list *node)
{
    cfsr_list_insert_before(head, node);
}
static inline void cfsr_list_push_front(struct cfsr_list *head, struct cfsr_list *node)
{
    cfsr_list_insert_before(head->next, node);
}
/* Safe on a node that is not linked (points at itself); leaves it so. */
static inline void cfsr_list_remove(struct cfsr_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    cfsr_list_init(node);
}
static inline struct cfsr_list *cfsr_list_pop_front(struct cfsr_list *head)
{
    struct cfsr_list *node = head->next;
    if (node == head)
        return NULL;
    cfsr_list_remove(node);
    return node;
}
#define CFSR_LIST_ENTRY(node, type, member) CFSR_CONTAINER_OF(node, type, member)

#define CFSR_LIST_FOR_EACH(node, head) for (node = (head)->next; node != (head); node = node->next)
#define CFSR_LIST_FOR_EACH_SAFE(node, after, head) \
    for (node = (head)->next, after = node->next; node != (head); node = after, after = node->next)

#endif
