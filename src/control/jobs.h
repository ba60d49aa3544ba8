/*
 * jobs.h - helper threads of the daemon: blocking work (opening files, writing segments once in
 * full) kept off the cores.
 *
 * Two threads: quick jobs (open, read a stamp) never wait behind slow ones (64 MiB of zeros). A
 * core submits through its own single-producer queue and learns of the end by a message in its
 * mailbox. Queues are sized so that every owner of a job finds room: an owner has one job at a
 * time.
 */
#ifndef CFSR_CONTROL_JOBS_H
#define CFSR_CONTROL_JOBS_H

#include <stdint.h>

#include "core/reactor.h"
#include "node/node.h"

struct cfsr_jobs;

/* jobs_per_core: most jobs a core ever has outstanding. Starts the threads. */
int cfsr_jobs_create(uint32_t cores, uint32_t jobs_per_core, struct cfsr_jobs **jobs_out);
/* Where done() of a core's jobs is delivered; before its first submit. */
void cfsr_jobs_attach(struct cfsr_jobs *jobs, uint32_t core, struct cfsr_reactor *reactor);
/* That core's thread only. */
void cfsr_jobs_submit(struct cfsr_jobs *jobs, uint32_t core, struct cfsr_node_job *job);
/* Finishes what was submitted, stops the threads. */
void cfsr_jobs_destroy(struct cfsr_jobs *jobs);

#endif
