/*
 * hlc.h - hybrid logical clock in microseconds (Kulkarni et al., 2014, physical part in µs, ties
 * broken by +1).
 *
 * now = max(wall, last + 1): strictly increasing within the site, so that (timestamp, site, lane,
 * LSN) orders every record of a site as it was appended; a remote stamp is merged with observe() so
 * that a write which saw another has the larger stamp. The state is one 64-bit word that many
 * threads and processes may share (compare-and-swap). The wall clock is a parameter.
 */
#ifndef CFSR_BASE_HLC_H
#define CFSR_BASE_HLC_H

#include <stdatomic.h>
#include <stdint.h>

struct cfsr_hlc {
    _Atomic uint64_t last_us;
};

uint64_t cfsr_hlc_next(struct cfsr_hlc *clock, uint64_t wall_us);
void cfsr_hlc_observe(struct cfsr_hlc *clock, uint64_t remote_us);

#endif
