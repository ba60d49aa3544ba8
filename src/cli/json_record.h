/*
 * json_record.h - entries as JSON lines, both ways. The schema is docs/records.md.
 */
#ifndef CFSR_CLI_JSON_RECORD_H
#define CFSR_CLI_JSON_RECORD_H

#include <stdio.h>

#include <cfsrepl/journal.h>

#include "journal/record.h"

/*
 * Parses one JSON object into an entry. The payload is built in `payload` (1 MiB), to which
 * entry_out points. -CFSR_E_FORMAT with a message that names the key and the reason (no line
 * number: the caller knows it), -CFSR_E_TOO_LARGE.
 */
int cfsr_json_record_parse(const char *line, size_t len_bytes, void *payload,
                           struct cfsr_entry *entry_out);

/* Prints one record (entry, MARK, SHARDS or PAD) as one line. */
int cfsr_json_record_print(FILE *out, uint32_t lane, uint64_t lsn,
                           const struct cfsr_record_header *header, const void *payload);

#endif
