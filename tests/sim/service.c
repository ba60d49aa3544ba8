/*
 * service.c - opening a site's local service, and what its daemon does where that is refused
 * (cluster.h).
 *
 * Thread:     one.
 * Invariants: as control/lane_recovery.c: only a site that may be damaged is started with a lane
 *             that is not open.
 */
#include <errno.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"
#include "cluster.h"
#include "journal/repair.h"

/* What a daemon can repair (control/lane_recovery.c). */
static bool is_damage(const struct test_site *site, int rc)
{
    if (!site->cluster->config.may_be_damaged)
        return false;
    return rc == -CFSR_E_DAMAGED || rc == -CFSR_E_MISSING_SEGMENT || rc == -EIO;
}

int site_open_service(struct test_site *site)
{
    struct cluster *cluster = site->cluster;
    int first = 0;

    site->clock.wall_us = site_wall_us(site);
    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        if (site->origin[lane] != NULL)
            continue;
        struct origin_truth *truth = site->truth != NULL ? &site->truth[lane] : NULL;
        int rc = origin_open(site->fs, &site->site, lane, &site->clock, truth, &site->origin[lane]);
        if (rc < 0 && !is_damage(site, rc))
            return rc;
        first = first == 0 ? rc : first;
        if (rc == 0 && cluster->watch.journal_opened != NULL)
            cluster->watch.journal_opened(cluster->watch.user, site, lane);
    }
    return first;
}

/* The lanes whose service does not open are served as far as they were certainly durable. */
int site_serve_damaged(struct test_site *site, int rc)
{
    if (!is_damage(site, rc))
        return rc;
    rc = 0;
    for (uint32_t lane = 0; rc == 0 && lane < site->site.lanes; lane++) {
        if (site->origin[lane] != NULL || site->published[lane] != 0)
            continue;
        rc = cfsr_journal_find_committed(site->fs, &site->site, NULL, lane, &site->published[lane]);
        if (rc == 0 && site->cluster->watch.journal_served != NULL)
            site->cluster->watch.journal_served(site->cluster->watch.user, site, lane);
    }
    return rc;
}

void site_close_service(struct test_site *site)
{
    for (uint32_t lane = 0; lane < site->site.lanes; lane++) {
        origin_close(site->origin[lane]);
        site->origin[lane] = NULL;
    }
}
