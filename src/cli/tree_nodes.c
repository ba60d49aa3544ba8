/*
 * tree_nodes.c - inode number to node, and names of nodes.
 *
 * Thread: one. Invariants: every live name of the table is in the chain of exactly the node whose
 * inode it holds; slot_count >= 2 × count.
 */
#include "cli/tree_nodes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define SLOTS_FIRST 1024
#define ROOT_INODE  1

void cfsr_nodes_init(struct cfsr_nodes *nodes)
{
    memset(nodes, 0, sizeof *nodes);
    cfsr_names_init(&nodes->names);
}

void cfsr_nodes_fini(struct cfsr_nodes *nodes)
{
    cfsr_names_fini(&nodes->names);
    free(nodes->entries);
    free(nodes->slots);
    memset(nodes, 0, sizeof *nodes);
}

static size_t probe(const struct cfsr_nodes *nodes, uint64_t inode)
{
    size_t slot = (size_t)(inode * 0x9e3779b97f4a7c15ull >> 20) & (nodes->slot_count - 1);

    while (nodes->slots[slot] != 0 && nodes->entries[nodes->slots[slot] - 1].inode != inode)
        slot = (slot + 1) & (nodes->slot_count - 1);
    return slot;
}

static int grow(struct cfsr_nodes *nodes)
{
    size_t slot_count = nodes->slot_count == 0 ? SLOTS_FIRST : nodes->slot_count * 2;
    uint32_t *slots = calloc(slot_count, sizeof slots[0]);
    struct cfsr_node *entries = realloc(nodes->entries, slot_count / 2 * sizeof entries[0]);

    if (entries != NULL)
        nodes->entries = entries;
    if (slots == NULL || entries == NULL || slot_count / 2 > UINT32_MAX) {
        free(slots);
        return -ENOMEM;
    }
    free(nodes->slots);
    nodes->slots = slots;
    nodes->slot_count = slot_count;
    nodes->capacity = slot_count / 2;
    for (size_t i = 0; i < nodes->count; i++)
        slots[probe(nodes, entries[i].inode)] = (uint32_t)i + 1;
    return 0;
}

struct cfsr_node *cfsr_nodes_find(const struct cfsr_nodes *nodes, uint64_t inode)
{
    for (unsigned step = 0; nodes->slots != NULL && step < 64; step++) {
        size_t slot = probe(nodes, inode);
        struct cfsr_node *node;

        if (nodes->slots[slot] == 0)
            return NULL;
        node = &nodes->entries[nodes->slots[slot] - 1];
        if ((node->flags & CFSR_NODE_ALIAS) == 0)
            return node;
        inode = node->alias_of;
    }
    return NULL;
}

struct cfsr_node *cfsr_nodes_add(struct cfsr_nodes *nodes, uint64_t inode, uint32_t mode)
{
    size_t slot;

    if (nodes->count == nodes->capacity && grow(nodes) < 0)
        return NULL;
    slot = probe(nodes, inode);
    if (nodes->slots[slot] == 0) {
        nodes->entries[nodes->count++] = (struct cfsr_node){.inode = inode, .mode = mode};
        nodes->slots[slot] = (uint32_t)nodes->count;
    }
    return &nodes->entries[nodes->slots[slot] - 1];
}

int cfsr_nodes_name(struct cfsr_nodes *nodes, uint64_t inode, uint64_t parent, const char *name,
                    size_t len)
{
    struct cfsr_node *node = cfsr_nodes_find(nodes, inode);
    struct cfsr_name *entry;

    CFSR_ASSERT(node != NULL && cfsr_names_find(&nodes->names, parent, name, len) == NULL);
    if (cfsr_names_put(&nodes->names, parent, name, len, inode, node->mode) < 0)
        return -ENOMEM;
    entry = cfsr_names_find(&nodes->names, parent, name, len);
    CFSR_ASSERT(entry != NULL);
    entry->next = node->first_name;
    node->first_name = (uint32_t)(entry - nodes->names.entries) + 1;
    return 0;
}

void cfsr_nodes_unname(struct cfsr_nodes *nodes, struct cfsr_name *name)
{
    uint32_t self = (uint32_t)(name - nodes->names.entries) + 1;
    struct cfsr_node *node = cfsr_nodes_find(nodes, name->inode);
    uint32_t *link;

    CFSR_ASSERT(node != NULL);
    link = &node->first_name;
    while (*link != self) {
        CFSR_ASSERT(*link != 0);
        link = &nodes->names.entries[*link - 1].next;
    }
    *link = name->next;
    name->inode = 0;
}

const struct cfsr_name *cfsr_nodes_first_name(const struct cfsr_nodes *nodes,
                                              const struct cfsr_node *node)
{
    return node->first_name == 0 ? NULL : &nodes->names.entries[node->first_name - 1];
}

char *cfsr_nodes_text(const struct cfsr_nodes *nodes, const struct cfsr_name *name,
                      char text_out[256])
{
    CFSR_ASSERT(name->name_bytes < 256);
    memcpy(text_out, nodes->names.arena + name->name_offset, name->name_bytes);
    text_out[name->name_bytes] = '\0';
    return text_out;
}

char *cfsr_nodes_path(const struct cfsr_nodes *nodes, uint64_t inode, char *text_out,
                      size_t len_bytes)
{
    char path[4096];
    size_t at = sizeof path - 1;

    path[at] = '\0';
    for (unsigned depth = 0; inode != ROOT_INODE && depth < CFSR_NODES_DEPTH_MAX; depth++) {
        const struct cfsr_node *node = cfsr_nodes_find(nodes, inode);
        const struct cfsr_name *name = node != NULL ? cfsr_nodes_first_name(nodes, node) : NULL;

        if (name == NULL || at < name->name_bytes + 1u)
            break;
        if (path[at] != '\0')
            path[--at] = '/';
        at -= name->name_bytes;
        memcpy(path + at, nodes->names.arena + name->name_offset, name->name_bytes);
        inode = name->parent;
    }
    snprintf(text_out, len_bytes, "%s", path[at] != '\0' ? path + at : ".");
    return text_out;
}

unsigned cfsr_nodes_depth(const struct cfsr_nodes *nodes, uint64_t inode)
{
    unsigned depth = 0;

    while (inode != ROOT_INODE && depth < CFSR_NODES_DEPTH_MAX) {
        const struct cfsr_node *node = cfsr_nodes_find(nodes, inode);
        const struct cfsr_name *name = node != NULL ? cfsr_nodes_first_name(nodes, node) : NULL;

        if (name == NULL)
            return CFSR_NODES_DEPTH_MAX;
        inode = name->parent;
        depth++;
    }
    return depth;
}
