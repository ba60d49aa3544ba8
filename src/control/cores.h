/*
 * cores.h - the core threads of the daemon: a reactor and a node core each, started together,
 * drained together.
 */
#ifndef CFSR_CONTROL_CORES_H
#define CFSR_CONTROL_CORES_H

#include "control/jobs.h"
#include "control/serve_config.h"
#include "control/status_json.h"
#include "inbox/inbox.h"
#include "journal/acks.h"

struct cfsr_cores;

struct cfsr_cores_options {
    const struct cfsr_site *site;
    const struct cfsr_serve_config *config;
    const struct cfsr_keyring *keyring;
    struct cfsr_status_page *page;
    const struct cfsr_acks *acks;               /* what peers had, as persisted */
    const struct cfsr_inbox_state *inbox_state; /* one a lane */
    const struct cfsr_transport *rdma;          /* NULL: not used … */
    int rdma_unusable;                          /* … and why, where it was wanted; else 0 */
};

/* Starts every core and waits until all stand. On failure everything is stopped and the first
 * core's message is set. Control thread. */
int cfsr_cores_start(const struct cfsr_cores_options *options, struct cfsr_cores **cores_out);
/* Hands a connection accepted on that path to the core its preamble hints at. */
void cfsr_cores_accept(struct cfsr_cores *cores, enum cfsr_path path,
                       struct cfsr_incoming *incoming, const struct cfsr_preamble *preamble);
/* Copies every core's report (at most 1 s); reports live until the next call. Returns their number.
 */
uint32_t cfsr_cores_report(struct cfsr_cores *cores, const struct cfsr_core_report **reports_out);
/* Asks every core for a scrub of its lanes among lane_mask (enum cfsr_scrub_part); run names it.
 * -EAGAIN if a core could not be told. */
int cfsr_cores_scrub(struct cfsr_cores *cores, const struct cfsr_scrub_request *request);
uint64_t cfsr_cores_memory_bytes(const struct cfsr_cores *cores);
/* True if a core's thread ended by itself (its ring broke): the daemon must stop. */
bool cfsr_cores_failed(const struct cfsr_cores *cores);
/* GOODBYEs, pending writes, closes; at most limit_ms. 0, or -CFSR_E_TIMEOUT if a core had to be
 * abandoned (its memory is left alone). */
int cfsr_cores_stop(struct cfsr_cores *cores, uint32_t limit_ms);

#endif
