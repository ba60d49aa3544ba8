/* text_record.h - one record as one line for people. */
#ifndef CFSR_CLI_TEXT_RECORD_H
#define CFSR_CLI_TEXT_RECORD_H

#include <stdio.h>

#include "journal/record.h"

void cfsr_text_record_heading(FILE *out);
/* Control characters in names are shown as '?': a journal's bytes never drive a terminal. */
int cfsr_text_record_print(FILE *out, uint32_t lane, uint64_t lsn,
                           const struct cfsr_record_header *header, const void *payload);

#endif
