/*
 * exit_code.h - what a program's exit says, in one place; the numbers are those of sysexits.h where
 * it has one.
 */
#ifndef CFSR_CLI_EXIT_CODE_H
#define CFSR_CLI_EXIT_CODE_H

enum cfsr_exit {
    CFSR_EXIT_OK = 0,
    CFSR_EXIT_FAILED =
        1, /* it ran and the answer is no: damage found, refused members, unsafe path */
    CFSR_EXIT_USAGE = 2,        /* unknown command or flag, bad value */
    CFSR_EXIT_UNREACHABLE = 69, /* the daemon cannot be reached */
    CFSR_EXIT_IO = 74,          /* input/output: disk full, read-only, unreadable, damaged device */
    CFSR_EXIT_TRY_AGAIN = 75,   /* in use by another process, or the time was up */
    CFSR_EXIT_PERMISSION = 77,
    CFSR_EXIT_CONFIG = 78, /* configuration, or io_uring not available */
};

/* Exit code of a function's result: 0 or positive is success, negative an error. */
int cfsr_exit_code(int rc);

#endif
