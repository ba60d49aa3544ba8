/*
 * points.h - the modes of cfs-repl-sim that enumerate: every write point (points), torn writes
 * (torn), damage bit by bit (flips).
 */
#ifndef CFSR_TESTS_SIM_POINTS_H
#define CFSR_TESTS_SIM_POINTS_H

#include <stdbool.h>

bool sim_points_is_mode(const char *name);
/* argv[0] is the mode. 0: all right, 1: violations, 2: wrong usage. */
int sim_points_main(int argc, char **argv);

int sim_torn_main(int argc, char **argv);
int sim_flips_main(int argc, char **argv);

#endif
