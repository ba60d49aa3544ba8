/*
 * clock.h - the two clocks. Read them in drivers only; logic takes `now` as a parameter.
 */
#ifndef CFSR_BASE_CLOCK_H
#define CFSR_BASE_CLOCK_H

#include <stdint.h>

uint64_t cfsr_clock_monotonic_ns(void);
uint64_t cfsr_clock_wall_us(void); /* µs since the Unix epoch */

#endif
