/*
 * faults.h - the n-th allocation fails, or the n-th call of a file seam: for tests that walk
 * through every error path of a function, one run a path.
 *
 * Allocations: link the test with TEST_FAULTS_ALLOCATION (CMake) and count in the calling thread
 * only. Seam: a backend in front of another; every call of its table counts.
 */
#ifndef CFSR_TEST_FAULTS_H
#define CFSR_TEST_FAULTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"

/* The n-th allocation of this thread from now fails (1: the next one); 0: none. */
void test_fail_allocation(unsigned n);
/* One has failed since the last test_fail_allocation(). */
bool test_allocation_failed(void);

/* No function under test makes more calls: a sweep that goes on has lost its way. */
#define TEST_SWEEP_MAX 2000u

struct test_faults {
    struct cfsr_fs fs; /* first: the backend to give away */
    struct cfsr_fs *inner;
    atomic_uint countdown; /* calls until one fails; 0: none */
    int rc;                /* what it fails with */
    atomic_bool fired;
    bool short_reads; /* a read that is due to fail gives half of the bytes instead */
    bool forever;     /* and all later ones fail too */
};

struct cfsr_fs *test_faults_init(struct test_faults *faults, struct cfsr_fs *inner);
/* Call n from now, of whatever thread, fails with rc; 0: none. Clears fired. */
void test_faults_arm(struct test_faults *faults, unsigned n, int rc);

#endif
