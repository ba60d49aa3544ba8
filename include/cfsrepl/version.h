/*
 * version.h - which cfs-repl this is.
 */
#ifndef CFSREPL_VERSION_H
#define CFSREPL_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the library at run time, "major.minor.patch". Static storage; any thread. */
const char *cfsr_version(void);

#ifdef __cplusplus
}
#endif
#endif
