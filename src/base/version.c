/*
 * version.c - the version string, given by the build.
 *
 * A function and not a macro in the public header: a program then reports the library it runs with.
 */
#include <cfsrepl/version.h>

const char *cfsr_version(void)
{
    return CFSR_VERSION;
}
