/* self_test.h - the checkers are checked: each thing that can be broken on purpose must be found.
 */
#ifndef CFSR_TESTS_SIM_SELF_TEST_H
#define CFSR_TESTS_SIM_SELF_TEST_H

#include "campaign.h"

/* 0, or 1 if something that was broken was not found. */
int sim_self_test(const struct sim_request *request);

#endif
