/*
 * scan.c - finding the records of a segment in order, and the entries of a batch.
 *
 * Thread:     any, blocking; one scan belongs to one thread.
 * Invariants: a record is taken only with the expected arrival number and an incarnation not below
 * the last one's, so nothing a former incarnation left beyond a cut is ever taken; a window that
 * showed no record is forgotten, so a later call sees new bytes. Rejected:   mapping the file (an
 * I/O error would be a signal, and a recycled file would change under the check).
 */
#include "inbox/scan.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/fail.h"

#define WINDOW_BYTES         (2u << 20)
#define READ_AHEAD_MIN_BYTES 4096u
#define READ_AHEAD_MAX_BYTES (1u << 20)
_Static_assert(WINDOW_BYTES >= READ_AHEAD_MAX_BYTES + CFSR_INBOX_BLOCK_BYTES, "read-ahead fits");
_Static_assert(WINDOW_BYTES >= CFSR_INBOX_SLOT_BYTES + CFSR_INBOX_BLOCK_BYTES, "a record fits");

/* The header of a file with the right name: 0, or an error that more than damage must have caused.
 */
static int check_header(struct cfsr_inbox_scan *scan, const char *path)
{
    int rc = cfsr_file_pread(scan->file, scan->window, CFSR_INBOX_SEGMENT_HEADER_BYTES, 0);

    if (rc < 0)
        return rc;
    if (rc < CFSR_INBOX_SEGMENT_HEADER_BYTES)
        rc = -CFSR_E_FORMAT;
    else
        rc = cfsr_inbox_segment_header_load(scan->site, scan->window, scan->lane, scan->sequence,
                                            path);
    scan->header_damaged = rc == -CFSR_E_FORMAT || rc == -CFSR_E_CHECKSUM;
    return scan->header_damaged ? 0 : rc;
}

int cfsr_inbox_scan_open(struct cfsr_fs *fs, const struct cfsr_site *site, uint32_t lane,
                         uint64_t sequence, bool write, struct cfsr_inbox_scan *scan_out)
{
    struct cfsr_inbox_scan scan = {.site = site, .lane = lane, .sequence = sequence};
    char path[CFSR_INBOX_PATH_BYTES];
    int rc;

    cfsr_inbox_segment_path(site, lane, sequence, path);
    scan.read_ahead_bytes = READ_AHEAD_MIN_BYTES;
    scan.window = malloc(WINDOW_BYTES);
    if (scan.window == NULL)
        return -ENOMEM;
    rc = cfsr_file_open(fs, path, CFSR_OPEN_READ | (write ? CFSR_OPEN_WRITE : 0u), &scan.file);
    if (rc < 0)
        goto free_window;
    rc = check_header(&scan, path);
    if (rc < 0)
        goto close_file;
    *scan_out = scan;
    return 0;

close_file:
    cfsr_file_close(scan.file);
free_window:
    free(scan.window);
    return rc;
}

void cfsr_inbox_scan_close(struct cfsr_inbox_scan *scan)
{
    cfsr_file_close(scan->file);
    free(scan->window);
    scan->file = NULL;
    scan->window = NULL;
}

/* Makes [body_offset, + bytes) visible as far as the file goes; *available_out: how much of it is.
 */
static int look(struct cfsr_inbox_scan *scan, uint64_t body_offset, uint32_t bytes,
                const uint8_t **at_out, uint32_t *available_out)
{
    uint64_t end = scan->window_offset + scan->window_bytes;
    uint64_t start = cfsr_align_down(body_offset, CFSR_INBOX_BLOCK_BYTES);
    uint64_t limit = scan->site->segment_bytes;
    uint32_t want;
    int rc;

    if (scan->window_bytes == 0 || body_offset < scan->window_offset || body_offset + bytes > end) {
        want = (uint32_t)(body_offset - start) + bytes;
        if (want < scan->read_ahead_bytes)
            want = scan->read_ahead_bytes;
        want = (uint32_t)cfsr_min_u64(cfsr_align_up(want, CFSR_INBOX_BLOCK_BYTES), WINDOW_BYTES);
        want = (uint32_t)cfsr_min_u64(want, limit > start ? limit - start : 0);
        rc = cfsr_file_pread(scan->file, scan->window, want, cfsr_inbox_file_offset(start));
        if (rc < 0) {
            scan->window_bytes = 0;
            return cfsr_fail_context(rc, "reading inbox lane %u, segment %llu", scan->lane,
                                     (unsigned long long)scan->sequence);
        }
        scan->window_offset = start;
        scan->window_bytes = (uint32_t)rc;
        if (scan->read_ahead_bytes < READ_AHEAD_MAX_BYTES)
            scan->read_ahead_bytes *= 2;
        end = start + scan->window_bytes;
    }
    *at_out = scan->window + (body_offset - scan->window_offset);
    *available_out = end > body_offset ? (uint32_t)cfsr_min_u64(end - body_offset, UINT32_MAX) : 0;
    return 0;
}

/* A sealed record of this segment at body_offset: 1, 0, or -errno. Says nothing about its turn. */
static int load_at(struct cfsr_inbox_scan *scan, uint64_t body_offset,
                   struct cfsr_inbox_item *item_out)
{
    uint32_t need = CFSR_INBOX_LOCAL_HEADER_BYTES, available;
    const uint8_t *at;
    int rc;

    do {
        uint32_t asked = need;

        if (body_offset + need > scan->site->segment_bytes)
            return 0;
        rc = look(scan, body_offset, need, &at, &available);
        if (rc < 0)
            return rc;
        if (available < asked)
            return 0;
        rc = cfsr_inbox_record_load(at, available, scan->sequence, body_offset, &item_out->local,
                                    &need);
    } while (rc == -EAGAIN);
    if (rc < 0)
        return 0;
    item_out->body_offset = body_offset;
    item_out->record = at;
    return 1;
}

static bool place_is_legal(const struct cfsr_inbox_scan *scan, const struct cfsr_inbox_item *item)
{
    uint64_t data_bytes = cfsr_inbox_data_bytes(scan->site);
    uint64_t end = item->body_offset + cfsr_inbox_record_space(item->local.record_bytes);

    if (item->local.arrival == 0) /* they begin with 1 */
        return false;
    if (item->local.kind == CFSR_INBOX_INDEX)
        return item->body_offset == data_bytes;
    if (item->body_offset == 0 && item->local.kind != CFSR_INBOX_CURSORS)
        return false;
    return end <= data_bytes;
}

static bool is_next(const struct cfsr_inbox_scan *scan, const struct cfsr_inbox_item *item)
{
    return place_is_legal(scan, item) && item->local.incarnation >= scan->incarnation &&
           (scan->arrival == 0 || item->local.arrival == scan->arrival);
}

int cfsr_inbox_scan_next(struct cfsr_inbox_scan *scan, bool whole, struct cfsr_inbox_item *item_out)
{
    /* The next record stands right behind the last one, or at the next block, or is the INDEX at
     * its place. */
    uint64_t place[3] = {scan->body_offset,
                         cfsr_align_up(scan->body_offset, CFSR_INBOX_BLOCK_BYTES),
                         cfsr_inbox_data_bytes(scan->site)};
    struct cfsr_inbox_item item;
    unsigned i;
    int rc = 0;

    for (i = 0; i < 3 && !scan->complete; i++) {
        if (i > 0 && (place[i] == place[i - 1] || scan->body_offset == 0 || scan->arrival == 0))
            continue; /* one place only: the first record of a segment, or one asked for by place */
        rc = load_at(scan, place[i], &item);
        if (rc < 0)
            return rc;
        if (rc == 1 && is_next(scan, &item))
            break;
        rc = 0;
    }
    if (rc == 0 || scan->complete) {
        scan->window_bytes = 0;
        scan->read_ahead_bytes = READ_AHEAD_MIN_BYTES;
        return 0;
    }
    if (whole) {
        rc = cfsr_inbox_scan_read_whole(scan, &item);
        if (rc < 0)
            return rc;
    }
    scan->body_offset = item.body_offset + cfsr_inbox_record_space(item.local.record_bytes);
    scan->arrival = item.local.arrival + 1;
    scan->incarnation = item.local.incarnation;
    scan->complete = item.local.kind == CFSR_INBOX_INDEX;
    *item_out = item;
    return 1;
}

void cfsr_inbox_scan_step_back(struct cfsr_inbox_scan *scan, const struct cfsr_inbox_item *item)
{
    scan->body_offset = item->body_offset;
    scan->arrival = item->local.arrival;
    scan->complete = false;
    scan->window_bytes = 0;
    scan->read_ahead_bytes = READ_AHEAD_MIN_BYTES;
}

int cfsr_inbox_scan_read_whole(struct cfsr_inbox_scan *scan, struct cfsr_inbox_item *item)
{
    uint32_t available;
    int rc;

    rc = look(scan, item->body_offset, item->local.record_bytes, &item->record, &available);
    if (rc < 0)
        return rc;
    if (available < item->local.record_bytes)
        return cfsr_fail(-CFSR_E_FORMAT, "inbox lane %u, segment %llu is cut short", scan->lane,
                         (unsigned long long)scan->sequence);
    return 0;
}

/* A sound record behind the walk's end that may be a later one of this segment. */
static bool may_follow(const struct cfsr_inbox_scan *scan, const struct cfsr_inbox_item *item)
{
    return place_is_legal(scan, item) &&
           (item->local.incarnation > scan->incarnation ||
            (item->local.incarnation == scan->incarnation && item->local.arrival >= scan->arrival));
}

/* A valid record met by the survey. */
static void note_valid(const struct cfsr_inbox_scan *scan, const struct cfsr_inbox_item *item,
                       struct cfsr_inbox_survey *survey)
{
    uint64_t claim = item->local.durable_below;

    /* Nothing of an incarnation is written before the CURSORS that open it are durable: a later
     * incarnation's record says that they were, and they stood behind the walk's end. */
    if (item->local.incarnation > scan->incarnation &&
        (scan->incarnation != 0 || scan->sequence == 1))
        claim = cfsr_max_u64(claim, scan->body_offset + 1);
    survey->durable_below = cfsr_max_u64(survey->durable_below, claim);
    survey->end = cfsr_max_u64(survey->end, item->body_offset + item->local.record_bytes);
    /* Numbers used again by a later incarnation: what was found before it had been cut. */
    if (survey->place == 0 ||
        (item->local.incarnation > survey->incarnation && item->local.arrival <= survey->arrival)) {
        survey->place = item->body_offset;
        survey->arrival = item->local.arrival;
        survey->incarnation = item->local.incarnation;
    }
}

/* The records that follow each other from a place on; the later ones of a block may claim more than
 * its first. *end_out: of the last one. */
static int follow(struct cfsr_inbox_scan *scan, uint64_t place, struct cfsr_inbox_survey *survey,
                  uint64_t *end_out)
{
    struct cfsr_inbox_item item;
    int rc;

    *end_out = place;
    while ((rc = load_at(scan, *end_out, &item)) == 1 && may_follow(scan, &item)) {
        note_valid(scan, &item, survey);
        *end_out += cfsr_inbox_record_space(item.local.record_bytes);
    }
    return rc < 0 ? rc : 0;
}

int cfsr_inbox_scan_survey(struct cfsr_inbox_scan *scan, struct cfsr_inbox_survey *survey_out)
{
    uint64_t data_bytes = cfsr_inbox_data_bytes(scan->site), followed = 0;
    uint64_t place = scan->body_offset;
    struct cfsr_inbox_survey survey = {.end = scan->body_offset};
    struct cfsr_inbox_item item;
    int rc = 0;

    if (place == 0) /* only CURSORS may stand there, and the walk has looked */
        place = CFSR_INBOX_BLOCK_BYTES;
    scan->window_bytes = 0;
    while (!scan->complete && place <= data_bytes) {
        if (place >= followed) {
            rc = follow(scan, place, &survey, &followed);
        } else { /* inside records that were followed; they may be old ones, written over in part */
            rc = load_at(scan, place, &item);
            if (rc == 1 && may_follow(scan, &item))
                note_valid(scan, &item, &survey);
        }
        if (rc < 0)
            return rc;
        place = cfsr_align_down(place, CFSR_INBOX_BLOCK_BYTES) + CFSR_INBOX_BLOCK_BYTES;
    }
    scan->window_bytes = 0;
    scan->read_ahead_bytes = READ_AHEAD_MIN_BYTES;
    *survey_out = survey;
    return 0;
}

void cfsr_inbox_scan_jump(struct cfsr_inbox_scan *scan, uint64_t body_offset, uint64_t arrival)
{
    scan->body_offset = body_offset;
    scan->arrival = arrival;
    scan->complete = false;
    scan->window_bytes = 0;
    scan->read_ahead_bytes = READ_AHEAD_MIN_BYTES;
}

int cfsr_inbox_decoder_init(struct cfsr_inbox_decoder *decoder)
{
    struct cfsr_codec_config config;
    int rc;

    cfsr_codec_config_default(&config);
    decoder->raw = malloc(CFSR_CODEC_INPUT_MAX_BYTES);
    if (decoder->raw == NULL)
        return -ENOMEM;
    rc = cfsr_batch_codec_create(&config, &decoder->codec);
    if (rc < 0) {
        free(decoder->raw);
        decoder->raw = NULL;
    }
    return rc;
}

void cfsr_inbox_decoder_fini(struct cfsr_inbox_decoder *decoder)
{
    if (decoder->codec != NULL)
        cfsr_batch_codec_destroy(decoder->codec);
    free(decoder->raw);
    decoder->codec = NULL;
    decoder->raw = NULL;
}

bool cfsr_inbox_is_verdict(int rc)
{
    return rc == -CFSR_E_BAD_FRAME || rc == -CFSR_E_BAD_DIGEST || rc == -CFSR_E_VERSION ||
           rc == -CFSR_E_FORMAT || rc == -CFSR_E_BAD_ORDER || rc == -CFSR_E_CODEC ||
           rc == -CFSR_E_DECOMPRESS || rc == -CFSR_E_BOMB || rc == -CFSR_E_CHECKSUM;
}

const uint8_t *cfsr_inbox_item_prefix(const struct cfsr_inbox_item *item)
{
    return item->record + cfsr_inbox_prefix_offset(item->local.kind);
}

int cfsr_inbox_item_header(const struct cfsr_inbox_item *item, struct cfsr_batch_header *header_out)
{
    int rc = cfsr_batch_header_load(cfsr_inbox_item_prefix(item), header_out);

    if (rc < 0)
        return rc;
    if (item->local.record_bytes != cfsr_inbox_prefix_offset(item->local.kind) +
                                        CFSR_BATCH_PREFIX_BYTES + header_out->extension_bytes +
                                        header_out->stored_bytes)
        return -CFSR_E_BAD_FRAME;
    return 0;
}

static const uint8_t *extension_of(const struct cfsr_inbox_item *item)
{
    return cfsr_inbox_item_prefix(item) + CFSR_BATCH_PREFIX_BYTES;
}

int cfsr_inbox_item_check(struct cfsr_inbox_decoder *decoder, const struct cfsr_inbox_item *item,
                          const struct cfsr_batch_header *header)
{
    return cfsr_batch_check_body(decoder->codec, header,
                                 extension_of(item) + header->extension_bytes);
}

/* Where the run of records that begins at lsn ends: the next hole or the end of the batch. Passes
 * over holes that begin at lsn. */
static uint64_t run_end(const struct cfsr_batch_header *header, const uint8_t *extension,
                        uint32_t *hole, uint64_t *lsn)
{
    for (; *hole < header->hole_count; (*hole)++) {
        uint64_t from = cfsr_load_le64(extension + *hole * CFSR_BATCH_HOLE_BYTES);
        uint64_t to = cfsr_load_le64(extension + *hole * CFSR_BATCH_HOLE_BYTES + 8);

        if (from > *lsn)
            return from;
        *lsn = cfsr_max_u64(*lsn, to);
    }
    return header->lsn_to;
}

/* Checks all records of a decoded batch. */
static int check_records(const struct cfsr_site *site, const struct cfsr_batch_header *header,
                         const uint8_t *extension, const uint8_t *raw,
                         struct cfsr_record_stamp *last_out)
{
    uint32_t offset = 0, hole = 0, entries = 0;
    uint64_t lsn = header->lsn_from;

    if (header->lane >= site->lanes)
        return -CFSR_E_BAD_FRAME;
    for (;;) {
        uint64_t end = run_end(header, extension, &hole, &lsn);
        struct cfsr_scan scan = {
            .data = raw + offset,
            .len_bytes = (uint32_t)cfsr_min_u64(header->original_bytes - offset,
                                                end > lsn ? end - lsn : 0),
            .wire_form = true,
            .lsn = lsn,
            .segment_bytes = site->segment_bytes,
            .seed = cfsr_record_seed(&header->journal),
            .site_id = header->site_id,
            .lane = header->lane,
            .lanes = site->lanes,
            .shards = site->shards,
        };
        int rc;

        if (lsn == header->lsn_to && offset == header->original_bytes)
            return entries == header->entry_count ? 0 : -CFSR_E_BAD_FRAME;
        if (scan.len_bytes == 0)
            return -CFSR_E_BAD_FRAME;
        rc = cfsr_record_scan(&scan);
        if (rc < 0)
            return rc;
        if (scan.record_count == 0 || scan.next_lsn > end)
            return -CFSR_E_BAD_FRAME;
        if (last_out != NULL)
            *last_out = scan.last;
        offset += scan.raw_bytes;
        entries += scan.entry_count;
        lsn = scan.next_lsn;
    }
}

int cfsr_inbox_item_decode(struct cfsr_inbox_decoder *decoder, const struct cfsr_site *site,
                           const struct cfsr_inbox_item *item,
                           const struct cfsr_batch_header *header, uint8_t *raw_out,
                           uint8_t *extension_out, struct cfsr_inbox_walk *walk_out,
                           struct cfsr_record_stamp *last_out)
{
    const uint8_t *extension = extension_of(item);
    int rc;

    rc = cfsr_batch_decode(decoder->codec, header, extension + header->extension_bytes, raw_out,
                           CFSR_CODEC_INPUT_MAX_BYTES);
    if (rc < 0)
        return rc;
    rc = check_records(site, header, extension, raw_out, last_out);
    if (rc < 0)
        return rc;
    memcpy(extension_out, extension, header->extension_bytes);
    *walk_out = (struct cfsr_inbox_walk){
        .header = *header, .extension = extension_out, .raw = raw_out, .lsn = header->lsn_from};
    return 0;
}

int cfsr_inbox_walk_next(struct cfsr_inbox_walk *walk, struct cfsr_inbox_entry *entry_out)
{
    run_end(&walk->header, walk->extension, &walk->hole, &walk->lsn);
    if (walk->raw_offset >= walk->header.original_bytes)
        return 0;
    entry_out->lsn = walk->lsn;
    entry_out->record = walk->raw + walk->raw_offset;
    cfsr_record_header_load(entry_out->record, &entry_out->header);
    entry_out->wire_bytes = cfsr_record_wire_bytes(&entry_out->header);
    entry_out->end_lsn = walk->lsn + cfsr_record_total_bytes(&entry_out->header);
    CFSR_ASSERT(walk->raw_offset + entry_out->wire_bytes <= walk->header.original_bytes);
    walk->raw_offset += entry_out->wire_bytes;
    walk->lsn = entry_out->end_lsn;
    return 1;
}
