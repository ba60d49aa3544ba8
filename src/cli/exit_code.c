/*
 * exit_code.c - errors to exit codes. Thread: any; pure.
 *
 * A code that is not named here exits 1: "failed" is always true, a wrong hint at what to do is
 * not.
 */
#include "cli/exit_code.h"

#include <errno.h>

#include <cfsrepl/error.h>

int cfsr_exit_code(int rc)
{
    if (rc >= 0)
        return CFSR_EXIT_OK;
    switch (-rc) {
    case CFSR_E_USAGE: return CFSR_EXIT_USAGE;
    case CFSR_E_UNREACHABLE: return CFSR_EXIT_UNREACHABLE;
    case EIO:
    case ENOSPC:
    case EDQUOT:
    case EROFS:
    case EFBIG:
    case ENODEV:
    case ENXIO:
    case EMFILE:
    case ENFILE:
    case ENOTDIR:
    case EISDIR:
    case ENOENT:
    case CFSR_E_FAILED: return CFSR_EXIT_IO;
    case EAGAIN:
    case EBUSY:
    case ETIMEDOUT:
    case EINTR:
    case CFSR_E_LOCKED:
    case CFSR_E_TIMEOUT:
    case CFSR_E_BACKPRESSURE: return CFSR_EXIT_TRY_AGAIN;
    case EACCES:
    case EPERM: return CFSR_EXIT_PERMISSION;
    case ENOMEM:
    case EADDRINUSE:
    case EADDRNOTAVAIL:
    case CFSR_E_CONFIG:
    case CFSR_E_NOT_CONFIGURED:
    case CFSR_E_NO_IO_URING: return CFSR_EXIT_CONFIG;
    default: return CFSR_EXIT_FAILED;
    }
}
