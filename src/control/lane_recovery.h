/*
 * lane_recovery.h - the journal's lanes at the daemon's start: recovered where no writer lives, and
 * kept for repair where they are damaged.
 *
 * A damaged lane does not keep the daemon from starting, because only the daemon can fetch what is
 * lost: the lane is served up to what its MARKs prove to have been durable, a scrub is asked for,
 * and recovery is tried again until it goes through. The producer, which is refused meanwhile
 * (-CFSR_E_DAMAGED), can open the journal as soon as the damage is repaired.
 */
#ifndef CFSR_CONTROL_LANE_RECOVERY_H
#define CFSR_CONTROL_LANE_RECOVERY_H

#include <stdint.h>

#include "core/file.h"
#include "journal/site.h"
#include "journal/status_page.h"

struct cfsr_lane_recovery {
    struct cfsr_fs *fs;
    const struct cfsr_site *site;
    struct cfsr_status_page *page;
    uint64_t damaged_mask; /* lanes that wait for a repair */
    uint64_t retry_at_ns;
};

/* Recovers every lane; damaged ones are logged and end up in damaged_mask. -errno, -CFSR_E_* of
 * what is no damage. Control thread, as the next. */
int cfsr_lane_recovery_start(struct cfsr_lane_recovery *recovery, uint64_t now_ns);
/* Now and then, while damaged_mask is not 0: looks whether a lane can be recovered. */
void cfsr_lane_recovery_turn(struct cfsr_lane_recovery *recovery, uint64_t now_ns);

#endif
