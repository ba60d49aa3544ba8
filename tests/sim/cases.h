/*
 * cases.h - runs very many independent numbered cases in a few worker processes: what torn and
 * flips have in common.
 *
 * A case is a pure function of (seed, number), so that any one can be repeated alone. A case that
 * fails ends its worker; the parent counts it, prints the command that repeats it, and puts another
 * worker in its place behind that case. Progress can be kept in a file.
 */
#ifndef CFSR_TESTS_SIM_CASES_H
#define CFSR_TESTS_SIM_CASES_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_CASES_COUNTERS_MAX 96

struct sim_cases_options {
    uint64_t cases, seed;
    uint64_t only; /* UINT64_MAX: all; else this case alone, in this process */
    unsigned jobs;
    const char *resume; /* NULL: no file */
    bool quiet;         /* no progress on standard error */
};

struct sim_cases {
    const char *command; /* "torn" */
    const char *usage;   /* printed for --help and wrong usage */
    uint64_t cases;      /* when --cases is not given; 0: enough() */
    unsigned counter_count;
    const char *(*counter_name)(unsigned counter); /* NULL: not shown when 0 */
    /* Once in each worker (and in the parent for enough()). */
    void *(*open)(uint64_t seed);
    uint64_t (*enough)(const void *state);
    void (*run)(void *state, uint64_t number, uint64_t *counters);
};

/* main() of such a command. 0: all right, 1: violations, 2: wrong usage. */
int sim_cases_main(const struct sim_cases *program, int argc, char **argv);

/* The case that runs is wrong: prints and ends the worker. */
_Noreturn void sim_case_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define SIM_CASE_CHECK(condition, ...)  \
    do {                                \
        if (!(condition))               \
            sim_case_fail(__VA_ARGS__); \
    } while (0)

#endif
