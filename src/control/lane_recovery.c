/*
 * lane_recovery.c - recovering the journal's lanes for the daemon; see lane_recovery.h.
 *
 * Thread:     control thread.
 * Invariants: a lane's lock is only taken when looking without it said that recovery will go
 * through: a producer that opens the journal meanwhile is not refused for a daemon that only looks.
 */
#include "control/lane_recovery.h"

#include <errno.h>

#include "base/fail.h"
#include "base/hlc.h"
#include "base/log.h"
#include "journal/recovery.h"
#include "journal/repair.h"

#define RETRY_NS 5000000000ull

static bool is_damage(int rc)
{
    return rc == -CFSR_E_DAMAGED || rc == -CFSR_E_MISSING_SEGMENT || rc == -EIO;
}

/* Recovers a lane that no writer holds, and publishes its end. */
static int recover_lane(const struct cfsr_lane_recovery *recovery, uint32_t lane)
{
    struct cfsr_lane_state state;
    int rc = cfsr_journal_recover_lane(recovery->fs, recovery->site, lane, false, false, &state);

    if (rc == -CFSR_E_LOCKED) {
        cfsr_error_clear();
        return 0; /* its writer publishes */
    }
    if (rc < 0)
        return rc;
    if (state.cut_lsn != CFSR_LSN_UNKNOWN)
        cfsr_log(CFSR_LOG_WARN, "journal_tail_cut", CFSR_U("lane", lane),
                 CFSR_U("lsn", state.cut_lsn), CFSR_U("bytes_at_most", state.cut_bytes));
    cfsr_hlc_observe(cfsr_status_page_hlc(recovery->page), state.max_timestamp_us);
    cfsr_status_page_publish(recovery->page, lane, state.end_lsn, state.entries);
    cfsr_lane_state_fini(&state);
    return 0;
}

/* The lane is served as far as it was certainly durable; what is damaged below is fetched. */
static int keep_for_repair(struct cfsr_lane_recovery *recovery, uint32_t lane, int why)
{
    uint64_t committed = 0;
    int rc;

    cfsr_log(
        CFSR_LOG_ERROR, "journal_damaged", CFSR_U("lane", lane), CFSR_ERR(why),
        CFSR_S("meaning", "a scrub fetches it from a peer; the producer is refused until then"));
    cfsr_error_clear();
    rc = cfsr_journal_find_committed(recovery->fs, recovery->site, recovery->page, lane,
                                     &committed);
    if (rc < 0)
        return rc;
    if (cfsr_status_page_committed(recovery->page, lane) == CFSR_LSN_UNKNOWN)
        cfsr_status_page_publish(recovery->page, lane, committed,
                                 cfsr_status_page_entries(recovery->page, lane));
    recovery->damaged_mask |= 1ull << lane;
    return 0;
}

int cfsr_lane_recovery_start(struct cfsr_lane_recovery *recovery, uint64_t now_ns)
{
    recovery->retry_at_ns = now_ns + RETRY_NS;
    for (uint32_t lane = 0; lane < recovery->site->lanes; lane++) {
        int rc = recover_lane(recovery, lane);

        if (is_damage(rc))
            rc = keep_for_repair(recovery, lane, rc);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void cfsr_lane_recovery_turn(struct cfsr_lane_recovery *recovery, uint64_t now_ns)
{
    if (recovery->damaged_mask == 0 || now_ns < recovery->retry_at_ns)
        return;
    recovery->retry_at_ns = now_ns + RETRY_NS;
    for (uint32_t lane = 0; lane < recovery->site->lanes; lane++) {
        struct cfsr_lane_state state;

        if ((recovery->damaged_mask >> lane & 1) == 0)
            continue;
        if (cfsr_journal_recover_lane(recovery->fs, recovery->site, lane, true, true, &state) < 0) {
            cfsr_error_clear();
            continue;
        }
        cfsr_lane_state_fini(&state);
        if (recover_lane(recovery, lane) < 0)
            continue;
        recovery->damaged_mask &= ~(1ull << lane);
        cfsr_log(CFSR_LOG_INFO, "journal_recovered", CFSR_U("lane", lane));
    }
}
