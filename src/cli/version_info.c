/*
 * version_info.c - `--version`: this program, the libraries it runs with, what the kernel's
 * io_uring gives here.
 *
 * Thread: the main thread. The feature line is made by setting a ring up and dropping it: what a
 * daemon started now would get.
 */
#include <gnu/libc-version.h>
#include <stdio.h>

#include <archive.h>
#include <jansson.h>
#include <lz4.h>
#include <zstd.h>

#include <cfsrepl/version.h>

#include "base/crc32c.h"
#include "cli/command.h"
#include "core/ring.h"
#include "security/mac.h"

void cfsr_print_version(const char *program)
{
    char ring[512];

    printf("%s %s\n", program, cfsr_version());
    printf("libraries: %s, lz4 %s, zstd %s, liburing %s, %s, jansson %s, glibc %s\n",
           cfsr_security_versions(), LZ4_versionString(), ZSTD_versionString(),
           CFSR_LIBURING_VERSION, archive_version_string(), JANSSON_VERSION,
           gnu_get_libc_version());
    printf("crc32c: %s\n", cfsr_crc32c_variant());
    printf("io_uring: %s\n", cfsr_ring_report(ring, sizeof ring));
}
