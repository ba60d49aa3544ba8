/*
 * command.h - run a program from a test and wait for it.
 *
 * Without a shell, so that no path in the arguments needs quoting. Any thread.
 */
#ifndef CFSR_TEST_COMMAND_H
#define CFSR_TEST_COMMAND_H

#include <errno.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

/* `arguments` ends with NULL. Returns the wait status, 0 for success, or -1 if it cannot start. */
static inline int test_command(const char *const arguments[])
{
    pid_t child;
    int status;

    if (posix_spawnp(&child, arguments[0], NULL, NULL, (char *const *)arguments, environ) != 0)
        return -1;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return -1;
    }
    return status;
}

#define TEST_COMMAND(...) test_command((const char *const[]){__VA_ARGS__, NULL})

#endif
