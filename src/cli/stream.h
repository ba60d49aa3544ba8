/*
 * stream.h - records for the tools, from the own journal or from the inbox, merged over lanes or
 * lane by lane.
 *
 * One thread. Both sides order a merged stream alike: smallest (timestamp, site, lane, LSN) first.
 */
#ifndef CFSR_CLI_STREAM_H
#define CFSR_CLI_STREAM_H

#include "journal/record.h"
#include "journal/site.h"

#define CFSR_STREAM_ALL_LANES UINT32_MAX

struct cfsr_stream_record {
    uint32_t lane;
    uint64_t lsn;
    struct cfsr_record_header header;
    const void *payload; /* valid until the next call */
};

struct cfsr_stream_options {
    const struct cfsr_site *site;
    uint64_t
        origin; /* the own site id: the journal; another: the inbox; 0: the inbox, every origin */
    uint32_t lane;    /* or CFSR_STREAM_ALL_LANES */
    bool all_records; /* MARK, SHARDS and PAD too */
    bool follow;
    const char *consumer; /* inbox only; NULL: none */
    bool inbox;           /* read the inbox even if origin is the own site */
};

struct cfsr_stream;

int cfsr_stream_open(const struct cfsr_stream_options *options, struct cfsr_stream **stream_out);
/* 1 and a record; 0 at the end or, following, when timeout_ms passed; negative error with message.
 */
int cfsr_stream_next(struct cfsr_stream *stream, uint32_t timeout_ms,
                     struct cfsr_stream_record *record_out);
/* With a consumer: what was returned is done. */
int cfsr_stream_commit(struct cfsr_stream *stream);
void cfsr_stream_close(struct cfsr_stream *stream);

#endif
