/*
 * scrub_json.h - the admin socket's words about scrubs.
 *
 * Request: {"command":"scrub", "lane":0, "parts":"journal"|"inbox"|"peers"|"all", "rate":67108864};
 * all but the command may be left out (every lane, all, the daemon's rate). Answer: {"run":N}. The
 * run is over when the status says "scrub":{"run_finished" >= N}.
 *
 * Status: "scrub":{"running":false,"run_finished":1,"interval_s":604800,"rate":67108864,
 *   "lanes":[{"lane":0,"bytes":1,"windows_compared":1,"windows_different":0,"found":0,"repaired":0,
 *     "unrepairable":0,"waiting":0,"error":"","started":"2026-…Z","finished":null}],
 *   "findings":[{"time":"2026-…Z","what":"journal_records","outcome":"repaired","lane":0,"site":1,
 *     "lsn_from":0,"lsn_to":8,"reason":""}]}
 * started and finished are null for "never". Findings: the last 16 of each core.
 */
#ifndef CFSR_CONTROL_SCRUB_JSON_H
#define CFSR_CONTROL_SCRUB_JSON_H

#include "control/status_json.h"

/* Reads a request; run is left 0. -CFSR_E_USAGE with message. */
int cfsr_scrub_request_parse(const json_t *request, uint32_t lanes, uint64_t default_rate,
                             struct cfsr_scrub_request *request_out);
/* The status document's member. */
json_t *cfsr_scrub_json(const struct cfsr_status_input *input);

#endif
