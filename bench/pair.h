/*
 * pair.h - two processes with a loopback TCP connection between them, each bound to its processor.
 */
#ifndef BENCH_PAIR_H
#define BENCH_PAIR_H

#include <stddef.h>

#include "bench/bench.h"

/* What one side does: 0 or -errno. shared is memory that both see. */
typedef int (*bench_side)(int socket, void *argument, void *shared);

/*
 * Forks side B and then side A, connects them, waits for both. -CFSR_E_FAILED with message if one
 * fails; the child prints why. A is a process of its own too, so that its figures are not those of
 * the bench.
 */
int bench_pair_run(const struct bench_settings *settings, bench_side side_a, bench_side side_b,
                   void *argument, void *shared);

/* Whole buffers over a blocking socket: 0, -errno, -EPIPE at the end of the stream. */
int bench_send_all(int socket, const void *buf, size_t len_bytes);
int bench_recv_all(int socket, void *buf, size_t len_bytes);

/*
 * A file of len_bytes that was written in full and synced, open for writing; made if it is not
 * there or shorter. flags: O_DIRECT or 0. fd or -errno. Its pages are in the page cache after a
 * buffered fill.
 */
int bench_open_recycled(const char *path, size_t len_bytes, int flags);

#endif
