/* faulty.h - the blocking file backend with faults to order, for any threads. */
#ifndef CFSR_TEST_JOURNAL_FAULTY_H
#define CFSR_TEST_JOURNAL_FAULTY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"

struct faulty_fs {
    struct cfsr_fs fs;
    struct cfsr_fs_ops ops;
    /* Return values to give instead of doing the thing; 0: do it. Only for segments and spares. */
    atomic_int sync_rc, write_rc, allocate_rc;
    atomic_int sync_count; /* failed syncs; the first sync of a failed descriptor is counted once */
    atomic_int resync_count; /* syncs and writes of a descriptor whose sync had failed */
    atomic_int lock_rc;      /* of repair.lock */
    /* While closed, syncs and durable writes stand before it; at_gate: how many do. */
    atomic_bool gate_closed;
    atomic_int at_gate;
    /* Reads of this range of a segment fail with -EIO until all of a block was written. */
    atomic_ullong bad_offset, bad_end;
};

void faulty_fs_init(struct faulty_fs *faulty);

#endif
