/*
 * file_ring.h - the file backend of a core: submitted ops go through the core's ring, the rest are
 * system calls.
 *
 * Owner thread of the ring only. Completions arrive from cfsr_ring_submit_and_reap();
 * cfsr_fs_poll() is that call without waiting, for code that has no reactor. submit never answers
 * -EAGAIN: a full queue is submitted first.
 */
#ifndef CFSR_CORE_FILE_RING_H
#define CFSR_CORE_FILE_RING_H

#include "core/file.h"

struct cfsr_ring;

struct cfsr_fs *cfsr_fs_ring_create(
    struct cfsr_ring *ring);                   /* NULL: no memory. Borrows the ring. */
void cfsr_fs_ring_destroy(struct cfsr_fs *fs); /* its files are closed, nothing is in flight */
/*
 * Takes over a file that a helper thread opened with the blocking backend: afterwards it belongs to
 * fs. Nothing of it may be in flight.
 */
void cfsr_fs_ring_adopt(struct cfsr_fs *fs, struct cfsr_file *file);

#endif
