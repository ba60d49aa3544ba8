/*
 * status_page.h - DATA/run/status: one shared memory page (file, mmap) between writer, readers,
 * daemon and tools.
 *
 * Carries a boot id: after a reboot it is made anew. Every field is an aligned atomic word; layout
 * in docs/journal-format.md. Publishes, per lane: committed LSN and cumulative entries (written by
 * the journal's writer), acked LSN per known peer (written by the daemon; retention reads it), the
 * site mode and epoch, the hybrid clock, reader leases with wake-up FIFOs.
 *
 * Wake-up: a reader takes a lease (slot, FIFO DATA/run/wake.<slot>, pid, generation), arms it (sets
 * its sleeping flag, full fence, re-checks committed LSNs), and sleeps on the FIFO. A writer that
 * has published a commit does a full fence, looks at the sleeping flags and writes one byte to each
 * sleeper's FIFO (O_NONBLOCK, ENXIO and EAGAIN harmless). Dead leases are reaped.
 */
#ifndef CFSR_JOURNAL_STATUS_PAGE_H
#define CFSR_JOURNAL_STATUS_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hlc.h"
#include "journal/site.h"

#define CFSR_STATUS_PEERS_MAX  64
#define CFSR_STATUS_LEASES_MAX 64
#define CFSR_LSN_UNKNOWN       UINT64_MAX

struct cfsr_status_page; /* a mapping */

/* Maps the page of the site, creating it (or making it anew after a reboot). Needs write permission
 * in DATA/run. */
int cfsr_status_page_open(const struct cfsr_site *site, struct cfsr_status_page **page_out);
void cfsr_status_page_close(struct cfsr_status_page *page);

/* Committed LSN of a lane; CFSR_LSN_UNKNOWN until a writer or recovery published it in this boot.
 */
uint64_t cfsr_status_page_committed(const struct cfsr_status_page *page, uint32_t lane);
uint64_t cfsr_status_page_entries(const struct cfsr_status_page *page, uint32_t lane);
/* Publishes (never goes back unless reset after a cut) and wakes sleeping readers whose lease
 * covers the lane. */
void cfsr_status_page_publish(struct cfsr_status_page *page, uint32_t lane, uint64_t committed_lsn,
                              uint64_t entries);
/* After a cut: forgets the lane's committed LSN, so that the next publish may be lower. Recovery's
 * caller only. */
void cfsr_status_page_reset_lane(struct cfsr_status_page *page, uint32_t lane);
struct cfsr_hlc *cfsr_status_page_hlc(struct cfsr_status_page *page);

/* The site's own writability: 1 = ActiveReadWrite … as features.md §6; a fresh page says
 * ActiveReadWrite. */
uint32_t cfsr_status_page_mode(const struct cfsr_status_page *page);
void cfsr_status_page_set_mode(struct cfsr_status_page *page, uint32_t mode);

/* Peers known to the daemon. register: index of the site id (existing or new), or -ENOSPC. */
int cfsr_status_page_register_peer(struct cfsr_status_page *page, uint64_t site_id);
void cfsr_status_page_forget_peers(
    struct cfsr_status_page *page); /* daemon start, before registering */
void cfsr_status_page_set_acked(struct cfsr_status_page *page, int peer, uint32_t lane,
                                uint64_t lsn);
/* CFSR_LSN_UNKNOWN until the daemon said it in this boot. */
uint64_t cfsr_status_page_acked(const struct cfsr_status_page *page, int peer, uint32_t lane);
uint64_t cfsr_status_page_peer_site(const struct cfsr_status_page *page,
                                    int peer); /* site id, 0: free slot */
int cfsr_status_page_find_peer(const struct cfsr_status_page *page,
                               uint64_t site_id); /* index or -ENOENT */

/* What retention is about: written by the writer's helper every second, zeros until then. */
struct cfsr_page_retention {
    uint32_t pressure; /* enum cfsr_gc_pressure_level */
    uint64_t journal_bytes;
    uint64_t cap_bytes; /* 0: unknown in this boot, or none */
};
void cfsr_status_page_set_retention(struct cfsr_status_page *page,
                                    const struct cfsr_page_retention *retention);
void cfsr_status_page_retention(const struct cfsr_status_page *page,
                                struct cfsr_page_retention *retention_out);
/* A detached peer holds retention back no more. The daemon says at its start what DATA/acks knows,
 * the writer's helper from then on. */
void cfsr_status_page_set_detached(struct cfsr_status_page *page, int peer, bool detached);
bool cfsr_status_page_detached(const struct cfsr_status_page *page, int peer);

/* Reader leases. */
struct cfsr_lease {
    int slot;
    int fifo_fd; /* read end, O_NONBLOCK; drain it after a wake */
};
int cfsr_status_page_lease_take(struct cfsr_status_page *page, uint64_t lane_mask,
                                struct cfsr_lease *lease_out);
void cfsr_status_page_lease_drop(struct cfsr_status_page *page, struct cfsr_lease *lease);
/* Sets the sleeping flag with a full fence; the caller re-checks committed LSNs before it sleeps.
 */
void cfsr_status_page_lease_arm(struct cfsr_status_page *page, const struct cfsr_lease *lease);
void cfsr_status_page_lease_disarm(struct cfsr_status_page *page, const struct cfsr_lease *lease);

#endif
