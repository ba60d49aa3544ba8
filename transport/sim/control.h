/*
 * sim/control.h - what the simulator does to its network beyond transport.h: faults that change
 * while it runs, and the signs by which it knows who has something to do.
 *
 * Hosts are named as in endpoints ("sim://a:1" is of host "a"). Single thread, everything from the
 * network's seed and the calls.
 */
#ifndef CFSR_TRANSPORT_SIM_CONTROL_H
#define CFSR_TRANSPORT_SIM_CONTROL_H

#include "transport/transport.h"

/* Of what is sent from now on: delays in microseconds, and cuts in a million chunks. */
void cfsr_sim_network_set_delay(struct cfsr_sim_network *network, uint64_t min_us, uint64_t max_us);
void cfsr_sim_network_set_cuts(struct cfsr_sim_network *network, uint32_t per_million);
/* Cuts every connection between the hosts (either dialled); how many. */
unsigned cfsr_sim_network_cut(struct cfsr_sim_network *network, const char *host_a,
                              const char *host_b);
/*
 * Connections between the hosts, numbered as they were made: those with number % modulus == rest
 * hold what they carry from now on, both ways; the others do not. modulus 0: none does. Connections
 * made later are free. How many hold.
 */
unsigned cfsr_sim_network_hold(struct cfsr_sim_network *network, const char *host_a,
                               const char *host_b, unsigned modulus, unsigned rest);
/* Injects a fault into the pick-th open end there is, modulo their count; false: there is none. */
bool cfsr_sim_network_inject(struct cfsr_sim_network *network, uint64_t pick,
                             enum cfsr_inject fault);
/* Undoes CFSR_INJECT_STALL_RECV everywhere. */
void cfsr_sim_network_resume(struct cfsr_sim_network *network);
/*
 * A stranger who recorded the pick-th connection there is (modulo their count) dials again in the
 * name of its dialer and says the same bytes; he hears nothing. bytes_max: how much of it at most.
 * False: nothing is recorded.
 */
bool cfsr_sim_network_replay(struct cfsr_sim_network *network, uint64_t pick, uint32_t bytes_max);
/* The host loses power: what it sent last is lost, and it says nothing more on any connection.
 * Before its groups are destroyed. */
void cfsr_sim_network_vanish(struct cfsr_sim_network *network, const char *host);

/* A number made of everything delivered so far, and how many deliveries that were. */
uint64_t cfsr_sim_network_digest(const struct cfsr_sim_network *network);
uint64_t cfsr_sim_network_deliveries(const struct cfsr_sim_network *network);
/* True if something arrived for the group, or a deadline of it passed, since it was polled. */
bool cfsr_sim_group_is_touched(const struct cfsr_group *group);
/* In a child after fork(): receive rings are shared memory. Gives the group rings of its own, with
 * what is in them. */
int cfsr_sim_group_forked(struct cfsr_group *group);
bool cfsr_sim_listener_is_waiting(const struct cfsr_listener *listener);

#endif
