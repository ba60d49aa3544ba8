/* points_check.h - what must be true in the world of `points` after a crash at any point of it. */
#ifndef CFSR_TESTS_SIM_POINTS_CHECK_H
#define CFSR_TESTS_SIM_POINTS_CHECK_H

#include "inbox/inbox.h"
#include "points_world.h"

#define POINTS_CONSUMER "reader"

/* Takes down what every site has promised until now. */
void points_note_promises(struct points_world *world);
/* For struct cluster_watch: a lane came back, with all that it had promised. */
void points_check_journal(void *user, struct test_site *site, uint32_t lane);
void points_check_inbox(void *user, struct test_site *site, uint32_t lane,
                        const struct cfsr_inbox_state *state);
/* At rest: everything is everywhere once, in order, byte for byte; consumer and acks stand where
 * they were left. */
void points_check_all(struct points_world *world);

#endif
