/*
 * log.c - walking a lane over its segments and past its damaged places.
 *
 * Thread:     any, blocking; one log belongs to one thread.
 * Invariants: a place without a sound record is damage only if something vouches for it: a later
 * record of its segment whose durable-below is above it, a later segment that was begun (its first
 * block is written only when everything before is durable), or the caller's limit. Else it is the
 * end, or what a crash left. Behind damage the walk goes on at the next block that begins with a
 * sound record, in this segment or a later one.
 * Rejected:   looking for records at every 64 bytes behind damage (a body may hold anything, and
 * the fewer places are tried, the less of it is taken for a record; what is lost is fetched again).
 */
#include "inbox/log.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/fail.h"

void cfsr_inbox_log_init(struct cfsr_inbox_log *log, struct cfsr_fs *fs,
                         const struct cfsr_site *site, uint32_t lane, uint64_t sequence)
{
    *log = (struct cfsr_inbox_log){.fs = fs, .site = site, .lane = lane, .sequence = sequence};
}

void cfsr_inbox_log_close(struct cfsr_inbox_log *log)
{
    if (log->open)
        cfsr_inbox_scan_close(&log->scan);
    log->open = false;
}

static bool at_limit(const struct cfsr_inbox_log *log, uint64_t sequence, uint64_t body_offset)
{
    return log->limit_sequence != 0 &&
           (sequence > log->limit_sequence ||
            (sequence == log->limit_sequence && body_offset >= log->limit_offset));
}

/* No record of that segment is looked for. */
static bool is_beyond(const struct cfsr_inbox_log *log, uint64_t sequence)
{
    return at_limit(log, sequence, 0) || (log->last_sequence != 0 && sequence > log->last_sequence);
}

static uint64_t offset_of(const struct cfsr_inbox_log *log)
{
    return log->open ? log->scan.body_offset : 0;
}

static int gone(const struct cfsr_inbox_log *log, uint64_t first)
{
    return cfsr_fail(-CFSR_E_GONE,
                     "inbox lane %u: segment %016llx was recycled before it was read, the oldest "
                     "kept is %016llx",
                     log->lane, (unsigned long long)log->sequence, (unsigned long long)first);
}

/* Opens the segment at hand from its beginning: 1, 0 not there, -CFSR_E_GONE. */
static int open_segment(struct cfsr_inbox_log *log)
{
    uint64_t arrival = log->scan.arrival, incarnation = log->scan.incarnation;
    struct cfsr_inbox_range_of_segments range;
    int rc;

    rc = cfsr_inbox_list_segments(log->fs, log->site, log->lane, &range);
    if (rc < 0)
        return rc;
    if (log->sequence == 0)
        log->sequence = range.first;
    if (range.last == 0 || log->sequence > range.last)
        return 0;
    if (log->sequence < range.first)
        return gone(log, range.first);
    rc = cfsr_inbox_scan_open(log->fs, log->site, log->lane, log->sequence, false, &log->scan);
    log->scan.arrival = arrival;
    log->scan.incarnation = incarnation;
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    log->open = true;
    return 1;
}

int cfsr_inbox_log_seek(struct cfsr_inbox_log *log, uint64_t sequence, uint64_t body_offset)
{
    int rc;

    cfsr_inbox_log_close(log);
    log->sequence = sequence;
    log->ended = false;
    log->scan.arrival = 0;
    log->scan.incarnation = 0;
    rc = open_segment(log);
    if (rc == 1)
        log->scan.body_offset = body_offset;
    return rc;
}

int cfsr_inbox_log_seek_behind(struct cfsr_inbox_log *log, const struct cfsr_inbox_damage *damage)
{
    int rc = cfsr_inbox_log_seek(log, damage->end_sequence, damage->end);

    log->scan.arrival = damage->arrival;
    log->scan.incarnation = damage->incarnation;
    return rc;
}

struct cfsr_inbox_damage cfsr_inbox_damage_of(const struct cfsr_inbox_item *item, int error)
{
    bool sound = error == -CFSR_E_BAD_ORDER;

    return (struct cfsr_inbox_damage){
        .sequence = item->local.sequence,
        .begin = item->body_offset,
        .end_sequence = item->local.sequence,
        .end = item->body_offset + (sound ? 0 : cfsr_inbox_record_space(item->local.record_bytes)),
        .arrival = item->local.arrival + (sound ? 0 : 1),
        .incarnation = item->local.incarnation,
        .error = error,
    };
}

/*
 * The first record of a segment continues the lane when it has the next number, or a lower one
 * under a higher incarnation: then the records taken last had been given up by their writer, and
 * their numbers are used again. Where no number is known yet, because nothing sound was met, it
 * proves nothing.
 */
static bool continues(const struct cfsr_inbox_scan *before, const struct cfsr_inbox_item *item)
{
    return item->local.arrival == before->arrival ||
           (item->local.arrival < before->arrival && item->local.incarnation > before->incarnation);
}

/* The lane may go on in the next segment: it does if that begins with a record that continues it.
 */
static int try_next_segment(struct cfsr_inbox_log *log)
{
    struct cfsr_inbox_scan before = log->scan;
    struct cfsr_inbox_item item;
    int rc;

    if (is_beyond(log, log->sequence + 1))
        return 0;
    log->sequence++;
    log->open = false;
    rc = open_segment(log);
    if (rc == 1) {
        log->scan.arrival = 0;
        rc = cfsr_inbox_scan_next(&log->scan, false, &item);
        if (rc == 1 && continues(&before, &item)) {
            cfsr_inbox_scan_step_back(&log->scan, &item);
            log->scan.incarnation = before.incarnation;
            cfsr_inbox_scan_close(&before);
            return 1;
        }
        cfsr_inbox_scan_close(&log->scan);
    }
    log->sequence--;
    log->scan = before;
    log->open = true;
    return rc < 0 ? rc : 0;
}

int cfsr_inbox_log_next(struct cfsr_inbox_log *log, bool whole, struct cfsr_inbox_item *item_out)
{
    int rc;

    for (;;) {
        if (log->ended || at_limit(log, log->sequence, offset_of(log)))
            return 0;
        if (!log->open) {
            rc = open_segment(log);
            if (rc <= 0)
                return rc;
        }
        rc = cfsr_inbox_scan_next(&log->scan, whole, item_out);
        if (rc != 0)
            return rc;
        rc = try_next_segment(log);
        if (rc <= 0)
            return rc;
    }
}

/* Where sound records go on in one later segment. */
struct continuation {
    uint64_t sequence, body_offset, arrival;
};

/* Was the segment begun? 1 and its first sound place; 0; -errno. */
static int look_into(struct cfsr_inbox_log *log, uint64_t sequence, struct continuation *at_out)
{
    struct cfsr_inbox_survey survey;
    struct cfsr_inbox_scan scan;
    struct cfsr_inbox_item item;
    int rc;

    rc = cfsr_inbox_scan_open(log->fs, log->site, log->lane, sequence, false, &scan);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    scan.incarnation = log->scan.incarnation;
    rc = cfsr_inbox_scan_next(&scan, false, &item);
    if (rc == 1) {
        *at_out = (struct continuation){sequence, 0, item.local.arrival};
    } else if (rc == 0) {
        scan.arrival = log->scan.arrival;
        rc = cfsr_inbox_scan_survey(&scan, &survey);
        /* The other blocks of a segment may reach the disk before its first one. */
        if (rc == 0 && survey.place != 0 &&
            (survey.durable_below > 0 || log->limit_sequence != 0)) {
            *at_out = (struct continuation){sequence, survey.place, survey.arrival};
            rc = 1;
        }
    }
    cfsr_inbox_scan_close(&scan);
    return rc;
}

/* The first later segment that was begun: 1, 0, -errno. */
static int find_later(struct cfsr_inbox_log *log, struct continuation *at_out)
{
    struct cfsr_inbox_range_of_segments range;
    uint64_t sequence;
    int rc;

    rc = cfsr_inbox_list_segments(log->fs, log->site, log->lane, &range);
    if (rc == 0 && range.first > log->sequence)
        rc = gone(log, range.first);
    for (sequence = log->sequence + 1; rc == 0 && sequence <= range.last; sequence++) {
        if (is_beyond(log, sequence))
            break;
        rc = look_into(log, sequence, at_out);
        if (rc == 1 && at_limit(log, at_out->sequence, at_out->body_offset))
            rc = 0;
    }
    return rc;
}

static int go_to(struct cfsr_inbox_log *log, const struct continuation *at)
{
    uint64_t incarnation = log->scan.incarnation;
    int rc = 1;

    if (!log->open || log->sequence != at->sequence) {
        rc = cfsr_inbox_log_seek(log, at->sequence, at->body_offset);
        log->scan.incarnation = incarnation;
    }
    if (rc == 1)
        cfsr_inbox_scan_jump(&log->scan, at->body_offset, at->arrival);
    log->ended = at_limit(log, at->sequence, at->body_offset);
    if (rc == 0 && !log->ended)
        return gone(log, at->sequence + 1);
    return rc < 0 ? rc : 0;
}

/* The record may have come while this was looked at. */
static bool has_come(struct cfsr_inbox_log *log)
{
    uint64_t incarnation = log->scan.incarnation;
    struct cfsr_inbox_item item;

    if (!log->open)
        return false;
    if (cfsr_inbox_scan_next(&log->scan, false, &item) == 1) {
        cfsr_inbox_scan_step_back(&log->scan, &item);
        log->scan.incarnation = incarnation;
        return true;
    }
    return try_next_segment(log) == 1;
}

/* The place where the log stands without a record. */
static struct cfsr_inbox_damage place_of(const struct cfsr_inbox_log *log)
{
    struct cfsr_inbox_damage damage = {.sequence = log->sequence,
                                       .begin = offset_of(log),
                                       .error = log->open ? -CFSR_E_CHECKSUM
                                                          : -CFSR_E_MISSING_SEGMENT};

    if (log->open && log->scan.complete) { /* the next segment should be there */
        damage.sequence++;
        damage.begin = 0;
    }
    return damage;
}

int cfsr_inbox_log_judge(struct cfsr_inbox_log *log, struct cfsr_inbox_damage *damage_out)
{
    struct cfsr_inbox_survey survey = {0};
    struct cfsr_inbox_damage damage = place_of(log);
    struct continuation here, later = {0};
    bool vouched = log->limit_sequence != 0;
    int rc;

    if (log->sequence == 0 || log->ended || at_limit(log, damage.sequence, damage.begin))
        return 0;
    if (log->open && !log->scan.complete) {
        rc = cfsr_inbox_scan_survey(&log->scan, &survey);
        if (rc < 0)
            return rc;
        vouched = vouched || survey.durable_below > damage.begin;
        if (survey.place != 0 && at_limit(log, log->sequence, survey.place))
            survey.place = 0;
    }
    here = (struct continuation){log->sequence, survey.place, survey.arrival};
    if (survey.place == 0 || !vouched) {
        rc = find_later(log, &later);
        if (rc < 0)
            return rc;
        if (rc == 0 && !vouched)
            return 0;
        if (rc == 0) /* nothing sound is left below the limit */
            later = (struct continuation){log->limit_sequence, log->limit_offset, 0};
        if (survey.place == 0)
            here = later;
    }
    if (has_come(log))
        return 0;
    damage.end_sequence = here.sequence;
    damage.end = here.body_offset;
    damage.arrival = here.arrival;
    damage.incarnation = log->scan.incarnation;
    rc = go_to(log, &here);
    if (rc < 0)
        return rc;
    *damage_out = damage;
    return 1;
}

int cfsr_inbox_log_step(struct cfsr_inbox_log *log, bool whole, struct cfsr_inbox_item *item_out,
                        struct cfsr_inbox_damage *damage_out)
{
    int rc = cfsr_inbox_log_next(log, whole, item_out);

    if (rc != 0)
        return rc;
    rc = cfsr_inbox_log_judge(log, damage_out);
    if (rc == 1)
        return CFSR_INBOX_LOG_DAMAGE;
    if (rc < 0)
        return rc;
    return cfsr_inbox_log_next(log, whole, item_out); /* it may have come meanwhile */
}

int cfsr_inbox_log_vouched(struct cfsr_inbox_log *log, uint64_t sequence, uint64_t body_offset)
{
    struct cfsr_inbox_survey survey;
    struct continuation later;
    int rc;

    if (log->limit_sequence != 0)
        return !at_limit(log, sequence, body_offset);
    if (log->sequence > sequence)
        return 1;
    rc = cfsr_inbox_scan_survey(&log->scan, &survey);
    if (rc < 0)
        return rc;
    if (survey.durable_below > body_offset)
        return 1;
    return find_later(log, &later);
}
