/*
 * fuzz_records.c - the record scanner, and what reads the payload of an entry.
 *
 * Input: u8 switches (1 wire form; 2 seal the CRCs; 4 check seqs; 8 limits), u8 lane, u16 LSN / 8,
 * u16 limit of raw bytes, u8 limit of entries, then records.
 *
 * Properties: the scan takes whole records and no more than there is; taken one at a time, cut at
 * any limit, or in one run (the three-at-once path), the records are the same and so is the error;
 * a payload's fields lie inside it; an entry printed as JSON parses to an entry that prints alike.
 */
#include "fuzz.h"
#include "records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/json_record.h"
#include "cli/text_record.h"
#include <cfsrepl/payload.h>

enum switches {
    WIRE_FORM = 1,
    SEAL = 2,
    CHECK_SEQS = 4,
    LIMITS = 8
};
enum {
    LANES = 4,
    SHARDS = 64,
    SEGMENT_BYTES = 16384,
    INPUT_MAX = 20000
};

static struct cfsr_site site;
static FILE *sink;

static void set_up(void)
{
    if (sink != NULL)
        return;
    fuzz_site(&site, 5, LANES, SHARDS, SEGMENT_BYTES);
    sink = fopen("/dev/null", "w");
    FUZZ_CHECK(sink != NULL);
}

static struct cfsr_scan scan_of(const uint8_t *data, size_t len_bytes, uint8_t switches,
                                uint32_t lane, uint64_t lsn)
{
    return (struct cfsr_scan){.data = data,
                              .len_bytes = (uint32_t)len_bytes,
                              .wire_form = (switches & WIRE_FORM) != 0,
                              .lsn = lsn,
                              .segment_bytes = SEGMENT_BYTES,
                              .seed = cfsr_record_seed(&site.journal),
                              .site_id = site.site_id,
                              .lane = lane,
                              .lanes = LANES,
                              .shards = SHARDS};
}

static char *print(uint32_t lane, uint64_t lsn, const struct cfsr_record_header *header,
                   const void *payload, size_t *len_out)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len_out);

    FUZZ_CHECK(out != NULL);
    FUZZ_CHECK(cfsr_json_record_print(out, lane, lsn, header, payload) == 0);
    FUZZ_CHECK(fclose(out) == 0);
    return text;
}

/* What is printed can be appended again, and is then the same entry. */
static void check_json(uint32_t lane, uint64_t lsn, const struct cfsr_record_header *header,
                       const uint8_t *payload)
{
    static uint8_t first[CFSR_RECORD_PAYLOAD_MAX];
    struct cfsr_record_header again = *header;
    struct cfsr_entry entry;
    size_t len, again_len;
    char *text = print(lane, lsn, header, payload, &len), *second;

    FUZZ_CHECK(len > 0 && text[len - 1] == '\n' && memchr(text, '\n', len - 1) == NULL);
    if (cfsr_json_record_parse(text, len, first, &entry) == 0) {
        FUZZ_CHECK(entry.op == header->op && entry.inode == header->inode &&
                   entry.shard_id == header->shard_id);
        again.payload_bytes = entry.payload_bytes;
        again.flags = entry.flags;
        second = print(lane, lsn, &again, entry.payload, &again_len);
        FUZZ_CHECK(cfsr_json_record_parse(second, again_len, first, &entry) == 0);
        FUZZ_CHECK(entry.payload_bytes == again.payload_bytes);
        free(second);
    }
    free(text);
}

static void check_payload(const uint8_t *payload, uint32_t len_bytes)
{
    struct cfsr_field field;
    uint32_t cursor = 0;
    uint64_t value;
    int rc;

    while ((rc = cfsr_payload_next(payload, len_bytes, &cursor, &field)) == 1) {
        FUZZ_CHECK(cursor <= len_bytes && field.value >= payload && field.len_bytes <= len_bytes &&
                   field.value + field.len_bytes <= payload + len_bytes);
        (void)cfsr_payload_get_u64(payload, len_bytes, field.tag, &value);
        FUZZ_CHECK(cfsr_payload_find(payload, len_bytes, field.tag, &field) != 0);
    }
    FUZZ_CHECK(rc == 0 || rc == -CFSR_E_FORMAT);
}

static void read_records(const struct cfsr_scan *scan)
{
    uint64_t lsn = scan->lsn;

    for (uint32_t at = 0; at < scan->raw_bytes;) {
        struct cfsr_record_header header;
        uint8_t *payload;

        cfsr_record_header_load(scan->data + at, &header);
        payload = fuzz_copy(scan->data + at + CFSR_RECORD_HEADER_BYTES,
                            header.op == CFSR_RECORD_PAD ? 0 : header.payload_bytes);
        FUZZ_CHECK(cfsr_text_record_print(sink, scan->lane, lsn, &header, payload) == 0);
        if (cfsr_record_is_entry(header.op)) {
            check_payload(payload, header.payload_bytes);
            check_json(scan->lane, lsn, &header, payload);
        }
        free(payload);
        at += cfsr_record_wire_bytes(&header);
        lsn += cfsr_record_total_bytes(&header);
    }
}

/* One record at a time; everything but the way there must be as in the run. */
static void check_stepwise(const struct cfsr_scan *run, int run_rc, bool check_seqs)
{
    struct cfsr_scan sum = {.next_lsn = run->lsn}, step = *run;
    uint64_t next_seq[SHARDS / LANES] = {0};
    int rc = 0;

    while (rc == 0 && sum.record_count < run->record_count) {
        step.data = run->data + sum.raw_bytes;
        step.len_bytes = run->len_bytes - sum.raw_bytes;
        step.lsn = sum.next_lsn;
        step.next_seq = check_seqs ? next_seq : NULL;
        step.max_raw_bytes = 1;
        step.max_entries = 0;
        rc = cfsr_record_scan(&step);
        if (step.record_count == 0)
            break;
        FUZZ_CHECK(step.record_count == 1);
        sum.raw_bytes += step.raw_bytes;
        sum.record_count++;
        sum.entry_count += step.entry_count;
        sum.next_lsn = step.next_lsn;
        sum.max_timestamp_us = cfsr_max_u64(sum.max_timestamp_us, step.max_timestamp_us);
        sum.committed_lsn = cfsr_max_u64(sum.committed_lsn, step.committed_lsn);
        sum.last = step.last;
    }
    FUZZ_CHECK(sum.record_count == run->record_count && sum.raw_bytes == run->raw_bytes &&
               (run->record_count == 0 || sum.next_lsn == run->next_lsn) &&
               sum.entry_count == run->entry_count &&
               sum.max_timestamp_us == run->max_timestamp_us &&
               sum.committed_lsn == run->committed_lsn);
    FUZZ_CHECK(run->record_count == 0 || memcmp(&sum.last, &run->last, sizeof sum.last) == 0 ||
               sum.last.lsn == run->last.lsn);
    if (run_rc < 0 && rc == 0) {
        step.data = run->data + sum.raw_bytes;
        step.len_bytes = run->len_bytes - sum.raw_bytes;
        step.lsn = sum.next_lsn;
        step.max_raw_bytes = 0;
        FUZZ_CHECK(cfsr_record_scan(&step) == run_rc && step.record_count == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct fuzz_reader reader = {data, len_bytes};
    uint8_t switches = fuzz_u8(&reader);
    uint32_t lane = fuzz_u8(&reader) % LANES;
    uint64_t lsn = 8ull * fuzz_u16(&reader);
    uint32_t max_raw_bytes = fuzz_u16(&reader);
    uint32_t max_entries = fuzz_u8(&reader);
    uint64_t next_seq[SHARDS / LANES] = {0};
    struct cfsr_scan scan;
    uint8_t *copy;
    int rc;

    set_up();
    if (reader.left > INPUT_MAX)
        return 0;
    copy = fuzz_copy(reader.at, reader.left);
    if ((switches & SEAL) != 0)
        fuzz_records_seal(copy, reader.left, (switches & WIRE_FORM) != 0,
                          cfsr_record_seed(&site.journal), lsn, SEGMENT_BYTES);
    scan = scan_of(copy, reader.left, switches, lane, lsn);
    if ((switches & LIMITS) != 0) {
        scan.max_raw_bytes = max_raw_bytes;
        scan.max_entries = max_entries;
    }
    if ((switches & CHECK_SEQS) != 0)
        scan.next_seq = next_seq;
    rc = cfsr_record_scan(&scan);
    FUZZ_CHECK(rc <= 0 && scan.raw_bytes <= scan.len_bytes && scan.next_lsn >= lsn);
    FUZZ_CHECK(scan.next_lsn <= lsn - lsn % SEGMENT_BYTES + SEGMENT_BYTES);
    FUZZ_CHECK(scan.entry_count <= scan.record_count);
    FUZZ_CHECK(rc < 0 || scan.end != CFSR_SCAN_NEED_MORE ||
               scan.need_bytes > scan.len_bytes - scan.raw_bytes);
    if ((switches & LIMITS) != 0 && scan.record_count > 1 && max_raw_bytes != 0)
        FUZZ_CHECK(scan.raw_bytes <= max_raw_bytes);
    check_stepwise(&scan, rc, (switches & CHECK_SEQS) != 0);
    if ((switches & WIRE_FORM) != 0)
        read_records(&scan);
    free(copy);
    return 0;
}

static void begin(struct fuzz_seed *seed, uint8_t switches, uint64_t lsn)
{
    fuzz_seed_u8(seed, switches);
    fuzz_seed_u8(seed, 1);
    fuzz_seed_u16(seed, (uint16_t)(lsn / 8));
    fuzz_seed_u16(seed, 700);
    fuzz_seed_u8(seed, 4);
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    struct fuzz_records records;
    struct fuzz_seed seed = {0};

    set_up();
    fuzz_records_init(&records, &site, site.site_id, &site.journal, 1);
    begin(&seed, WIRE_FORM | SEAL | CHECK_SEQS, 0);
    fuzz_records_shards(&records, &seed);
    fuzz_records_mark(&records, &seed, 0);
    for (unsigned i = 0; i < 10; i++)
        fuzz_records_entry(&records, &seed, i * 20);
    fuzz_records_pad(&records, &seed);
    fuzz_seed_end(&seed, corpus, "segment");
    begin(&seed, WIRE_FORM | SEAL | LIMITS, records.lsn);
    fuzz_records_shards(&records, &seed);
    for (unsigned i = 0; i < 10; i++)
        fuzz_records_entry(&records, &seed, 0);
    fuzz_seed_end(&seed, corpus, "limits");
    fuzz_records_init(&records, &site, site.site_id, &site.journal, 1);
    records.lsn = SEGMENT_BYTES - 1024;
    begin(&seed, CHECK_SEQS, records.lsn);
    for (unsigned i = 0; i < 4; i++)
        fuzz_records_entry(&records, &seed, 30);
    fuzz_records_mark(&records, &seed, records.lsn);
    fuzz_records_pad(&records, &seed);
    fuzz_seed_end(&seed, corpus, "unsealed");
}
