/*
 * points_world.h - the reference run of `points`: three sites with everything that writes and
 * sends going on, every op of it numbered and told of in three phases; and what must be true after
 * a crash at any of them.
 */
#ifndef CFSR_TESTS_SIM_POINTS_WORLD_H
#define CFSR_TESTS_SIM_POINTS_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "cluster.h"
#include "core/file_sim.h"

#define POINTS_SITES 3u
#define POINTS_LANES 2u
/* Ops of the disk, then this one. */
#define POINTS_SEND  CFSR_SIM_OP_COUNT
#define POINTS_KINDS (CFSR_SIM_OP_COUNT + 1)

struct points_point {
    uint64_t number; /* of the whole run, from 1 */
    unsigned kind;
    enum cfsr_sim_phase phase; /* of a send, MIDDLE: done, and what is on its way will be lost */
    unsigned site;
};

/* What was promised, outside of every site. */
struct points_model {
    uint64_t committed[POINTS_SITES][POINTS_LANES];
    uint64_t durable[POINTS_SITES][POINTS_SITES][POINTS_LANES]; /* at, from */
    uint64_t consumed[POINTS_SITES][POINTS_LANES];  /* entries that the consumer has committed */
    uint64_t consuming[POINTS_SITES][POINTS_LANES]; /* and those of the commit under way */
    uint64_t acks, storing_acks;
};

struct points_world {
    struct cluster cluster;
    struct points_model model;
    uint64_t number, random;
    uint64_t seen[POINTS_KINDS];
    bool in_child; /* points pass unseen */
    void (*at_point)(struct points_world *world, const struct points_point *point);
};

/* Makes the sites and lets them work until so many points have passed. at_point may fork; in the
 * child it leaves by longjmp() and calls points_world_crash(). */
void points_world_run(struct points_world *world, uint64_t seed, uint64_t points);
const char *points_kind_name(unsigned kind);

/*
 * The power goes at the site (all: everywhere), wherever it is in its work; then it comes back, the
 * world goes on until it is at rest, and everything that was promised is looked for. cluster_fail()
 * when it is not there.
 */
void points_world_crash(struct points_world *world, const struct points_point *point,
                        enum cfsr_persistence model, bool all);

#endif
