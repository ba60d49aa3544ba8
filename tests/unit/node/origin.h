/*
 * origin.h - the local service of a simulated site: appends to one lane of its journal, with the
 * real group, segment and recovery code, in one thread.
 */
#ifndef CFSR_TESTS_NODE_ORIGIN_H
#define CFSR_TESTS_NODE_ORIGIN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/file.h"
#include "journal/site.h"

struct origin;

/* Recovers the lane and goes on where it ends; fails the test otherwise. */
struct origin *origin_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane);
/* No closing MARK: as a killed process leaves it. */
void origin_close(struct origin *origin);
/* Stages one entry; commits when the group is full. salt makes the payload. */
void origin_append(struct origin *origin, uint32_t payload_bytes, uint64_t salt);
void origin_commit(struct origin *origin);
void origin_mark(struct origin *origin);
/* Gives up the lowest segment, as retention does. */
void origin_recycle_lowest(struct origin *origin);
uint64_t origin_head(const struct origin *origin); /* committed */
uint64_t origin_entries(const struct origin *origin);

#endif
