/*
 * self_test.c - the checkers are checked (self_test.h).
 *
 * Threads:    none; every attempt is a process of its own.
 * Invariants: the same seeds hold with nothing broken, so that what is found is what was broken.
 */
#include "self_test.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SEEDS_TRIED 24

/* Faults that make the broken thing show, and the check that has to see it. */
static const struct {
    enum sim_break broken;
    uint32_t faults;
    const char *checks; /* any of these words */
} cases[] = {
    {SIM_BREAK_ack_written, 1u << SIM_FAULT_crash | 1u << SIM_FAULT_fleet, "acked-durable"},
    {SIM_BREAK_old_disk, 1u << SIM_FAULT_restore, "acked-durable source-durable cursor-back"},
    {SIM_BREAK_flip, 0, "verify"},
    {SIM_BREAK_twice, 0, "exactly-once"},
    {SIM_BREAK_order, 0, "equal-bytes"},
    {SIM_BREAK_never_heals, 0, "liveness"},
    {SIM_BREAK_hidden_head, 0, "caught-up lag"},
    {SIM_BREAK_small_memory, 0, "memory"},
};

static bool is_found(const struct sim_request *request, size_t number, uint64_t *seed_out,
                     struct sim_failure *failure)
{
    struct sim_request attempt = *request;

    attempt.broken = cases[number].broken;
    attempt.faults = cases[number].faults;
    for (uint64_t seed = 1; seed <= SEEDS_TRIED; seed++) {
        attempt.seed = seed;
        if (sim_run_apart(&attempt, false, failure, NULL))
            continue;
        *seed_out = seed;
        return strstr(cases[number].checks, failure->check) != NULL;
    }
    memset(failure, 0, sizeof *failure);
    return false;
}

int sim_self_test(const struct sim_request *request)
{
    unsigned missed = 0;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *name = sim_break_name(cases[i].broken);
        struct sim_failure failure;
        uint64_t seed = 0;
        if (is_found(request, i, &seed, &failure)) {
            printf("%-14s found by %s with seed %" PRIu64 "\n", name, failure.check, seed);
            continue;
        }
        missed++;
        printf("%-14s MISSED: %s %s\n", name, failure.check, failure.text);
    }
    printf("%zu broken on purpose, %u missed\n", sizeof cases / sizeof cases[0], missed);
    return missed == 0 ? 0 : 1;
}
