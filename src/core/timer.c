/*
 * timer.c - pairing heap of deadlines.
 *
 * Thread:     owner core.
 * Invariants: the root is due first; prev of a first child is its parent, so that a node can be
 *             cut out in O(1).
 * Rejected:   a hashed wheel (its next deadline needs a scan, and the idle policy asks for it each
 *             turn) and an array heap (needs a capacity).
 */
#include "core/timer.h"

#include <stddef.h>

#include "base/assert.h"

static bool is_before(const struct cfsr_timer *a, const struct cfsr_timer *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

/* Joins two heaps; both roots have no sibling. */
static struct cfsr_timer *meld(struct cfsr_timer *a, struct cfsr_timer *b)
{
    struct cfsr_timer *swap;

    if (a == NULL)
        return b;
    if (b == NULL)
        return a;
    if (is_before(b, a)) {
        swap = a;
        a = b;
        b = swap;
    }
    b->next = a->child;
    if (b->next != NULL)
        b->next->prev = b;
    b->prev = a;
    a->child = b;
    return a;
}

static struct cfsr_timer *detach_first(struct cfsr_timer **list)
{
    struct cfsr_timer *node = *list;

    if (node != NULL) {
        *list = node->next;
        node->next = NULL;
        node->prev = NULL;
    }
    return node;
}

/* The two-pass join of a list of siblings, without recursion: pairs go on a stack threaded through
 * next. */
static struct cfsr_timer *meld_siblings(struct cfsr_timer *list)
{
    struct cfsr_timer *pairs = NULL, *result = NULL, *node;

    while (list != NULL) {
        struct cfsr_timer *a = detach_first(&list);
        struct cfsr_timer *pair = meld(a, detach_first(&list));

        pair->next = pairs;
        pairs = pair;
    }
    while ((node = detach_first(&pairs)) != NULL)
        result = meld(result, node);
    return result;
}

/* Takes the node out of the heap it is in; its children stay. */
static void unlink_node(struct cfsr_timers *timers, struct cfsr_timer *timer)
{
    struct cfsr_timer *children = timer->child;

    timer->child = NULL;
    if (timer == timers->root) {
        timers->root = meld_siblings(children);
    } else {
        if (timer->prev->child == timer)
            timer->prev->child = timer->next;
        else
            timer->prev->next = timer->next;
        if (timer->next != NULL)
            timer->next->prev = timer->prev;
        timers->root = meld(timers->root, meld_siblings(children));
    }
    timer->next = NULL;
    timer->prev = NULL;
    timer->is_armed = false;
    timers->count--;
}

void cfsr_timers_init(struct cfsr_timers *timers)
{
    *timers = (struct cfsr_timers){0};
}

void cfsr_timer_init(struct cfsr_timer *timer,
                     void (*fire)(struct cfsr_timer *timer, uint64_t now_ns))
{
    *timer = (struct cfsr_timer){.fire = fire};
}

void cfsr_timer_add(struct cfsr_timers *timers, struct cfsr_timer *timer, uint64_t due_ns)
{
    CFSR_ASSERT(timer->fire != NULL);
    if (timer->is_armed)
        unlink_node(timers, timer);
    timer->due_ns = due_ns;
    timer->order = timers->order++;
    timer->is_armed = true;
    timers->root = meld(timers->root, timer);
    timers->count++;
}

void cfsr_timer_cancel(struct cfsr_timers *timers, struct cfsr_timer *timer)
{
    if (timer->is_armed)
        unlink_node(timers, timer);
}

uint64_t cfsr_timers_next_ns(const struct cfsr_timers *timers)
{
    return timers->root == NULL ? CFSR_TIMER_NEVER : timers->root->due_ns;
}

uint64_t cfsr_timers_expire(struct cfsr_timers *timers, uint64_t now_ns)
{
    uint64_t budget =
        timers->count; /* one that arms itself again in the past waits for the next call */
    uint64_t fired = 0;

    while (fired < budget && timers->root != NULL && timers->root->due_ns <= now_ns) {
        struct cfsr_timer *timer = timers->root;

        unlink_node(timers, timer);
        timer->fire(timer, now_ns);
        fired++;
    }
    return fired;
}
