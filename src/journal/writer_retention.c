/*
 * writer_retention.c - what of the journal is given up, and who holds it back; the decisions are
 * gc.h's.
 *
 * Thread:     the journal's helper.
 * Invariants: a peer is detached, durably, before anything an attached one lacks is given up for
 * the cap; while acks cannot be read nothing is removed and nobody detached. Rejected:   letting
 * the daemon decide (it may be down while the producer fills the disk).
 */
#include "journal/writer_internal.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fail.h"
#include "base/log.h"
#include "journal/segment.h"
#include "journal/segment_map.h"

struct retention {
    struct cfsr_journal *journal;
    struct cfsr_segment_map maps[CFSR_LANES_MAX];
    struct cfsr_gc_usage usage;
    unsigned peer_count;
    bool acks_known;
};

/* When the segment was begun; 0 if its header cannot be read (then it is as old as can be). */
static uint64_t created_us(const struct cfsr_journal *journal, uint32_t lane, uint64_t first_lsn)
{
    uint8_t block[CFSR_SEGMENT_HEADER_BYTES];
    struct cfsr_segment_header header = {0};
    char path[CFSR_LANE_PATH_BYTES];
    struct cfsr_file *file;

    cfsr_segment_path(&journal->site, lane, first_lsn, path, sizeof path);
    if (cfsr_file_open(journal->fs, path, CFSR_OPEN_READ, &file) < 0)
        return 0;
    if (cfsr_file_pread(file, block, sizeof block, 0) == (int)sizeof block)
        (void)cfsr_segment_header_load(&journal->site, block, lane, first_lsn, &header);
    cfsr_file_close(file);
    return header.created_us;
}

static int remove_segment(struct cfsr_journal *journal, uint32_t lane_id, uint64_t first_lsn,
                          enum cfsr_gc_verdict verdict)
{
    bool reused;
    int rc = cfsr_lane_file_recycle(&journal->lanes[lane_id].files, first_lsn, &reused);

    if (rc == -CFSR_E_LOCKED)
        return rc; /* a repair is at work in this lane: later */
    if (rc < 0) {
        cfsr_log(CFSR_LOG_WARN, "journal_gc_failed", CFSR_U("lane", lane_id), CFSR_ERR(rc));
        return rc;
    }
    atomic_fetch_add(reused ? &journal->recycled : &journal->removed, 1);
    if (verdict == CFSR_GC_REMOVE_DETACHED)
        atomic_fetch_add(&journal->detached_removals, 1);
    if (verdict == CFSR_GC_REMOVE_FORCED) {
        atomic_fetch_add(&journal->forced, 1);
        cfsr_log(CFSR_LOG_WARN, "journal_retention_forced", CFSR_U("lane", lane_id),
                 CFSR_U("lsn", first_lsn));
    }
    return 0;
}

static uint64_t file_bytes(const struct cfsr_journal *journal)
{
    return CFSR_SEGMENT_HEADER_BYTES + journal->site.segment_bytes;
}

/* Lists the lanes anew; bytes are those of all segments and spares. */
static int look(struct retention *r)
{
    struct cfsr_journal *journal = r->journal;
    uint64_t files = 0;
    int rc = 0;

    for (uint32_t lane = 0; rc == 0 && lane < journal->site.lanes; lane++) {
        cfsr_segment_map_fini(&r->maps[lane]);
        rc = cfsr_segment_map_load(journal->fs, &journal->site, lane, &r->maps[lane]);
        files += r->maps[lane].count + atomic_load(&journal->lanes[lane].files.spare_ready);
    }
    if (rc == 0)
        rc = journal->fs->ops->space(journal->fs, journal->site.data_dir, &r->usage.free_bytes,
                                     &r->usage.total_bytes);
    r->usage.journal_bytes = files * file_bytes(journal);
    return rc;
}

/* A peer lacks the segment, or keeps it as the margin of one segment below its ack. */
static bool lacks(uint64_t acked_lsn, uint64_t segment_end_lsn, uint64_t segment_bytes)
{
    return acked_lsn < segment_bytes || segment_end_lsn > acked_lsn - segment_bytes;
}

/* What one peer holds back, and whether it can still be served. */
static void judge_peer(struct retention *r, struct cfsr_gc_peer *peer, uint64_t *acked_sum)
{
    const struct cfsr_journal *journal = r->journal;
    uint64_t segment_bytes = journal->site.segment_bytes;

    *acked_sum = 0;
    for (uint32_t lane = 0; lane < journal->site.lanes; lane++) {
        const struct cfsr_segment_map *map = &r->maps[lane];
        uint64_t acked = cfsr_acks_of(&journal->acks, journal->page, peer->site_id, lane);

        *acked_sum += acked;
        if (map->count > 0 && acked < map->lsns[0])
            peer->gone = true;
        for (uint32_t i = 0; i + CFSR_GC_SEGMENTS_MIN < map->count; i++)
            if (lacks(acked, map->lsns[i] + segment_bytes, segment_bytes))
                peer->held_bytes += file_bytes(journal);
    }
}

/* The acked sum a detached peer had when it was seen detached first. */
static uint64_t sum_when_detached(struct cfsr_journal *journal, uint64_t site_id,
                                  uint64_t acked_sum)
{
    for (uint32_t i = 0; i < journal->detached_count; i++)
        if (journal->detached_since[i].site_id == site_id)
            return journal->detached_since[i].acked_sum;
    if (journal->detached_count < CFSR_STATUS_PEERS_MAX)
        journal->detached_since[journal->detached_count++] = (struct cfsr_detached_since){
            site_id, acked_sum};
    return acked_sum;
}

static void forget_sum(struct cfsr_journal *journal, uint64_t site_id)
{
    for (uint32_t i = 0; i < journal->detached_count; i++)
        if (journal->detached_since[i].site_id == site_id)
            journal->detached_since[i] = journal->detached_since[--journal->detached_count];
}

/* Every peer that the acks or the status page know. */
static void look_at_peers(struct retention *r)
{
    struct cfsr_journal *journal = r->journal;

    for (int slot = 0; slot < CFSR_STATUS_PEERS_MAX; slot++) {
        uint64_t site_id = cfsr_status_page_peer_site(journal->page, slot);

        if (site_id != 0)
            (void)cfsr_acks_peer(&journal->acks, site_id);
    }
    r->peer_count = journal->acks.peer_count;
    for (unsigned i = 0; i < r->peer_count; i++) {
        struct cfsr_gc_peer *peer = &journal->peers[i];
        uint64_t acked_sum;

        *peer = (struct cfsr_gc_peer){.site_id = journal->acks.peers[i].site_id,
                                      .detached = journal->acks.peers[i].detached};
        judge_peer(r, peer, &acked_sum);
        if (peer->detached)
            peer->advanced = acked_sum > sum_when_detached(journal, peer->site_id, acked_sum);
    }
}

static bool only_detached_lack(const struct retention *r, uint32_t lane, uint64_t segment_end_lsn)
{
    const struct cfsr_journal *journal = r->journal;

    for (unsigned i = 0; i < r->peer_count; i++)
        if (!journal->peers[i].detached &&
            lacks(cfsr_acks_of(&journal->acks, journal->page, journal->peers[i].site_id, lane),
                  segment_end_lsn, journal->site.segment_bytes))
            return false;
    return r->peer_count > 0;
}

/* What is kept for detached peers only. */
static void count_spare(struct retention *r)
{
    const struct cfsr_journal *journal = r->journal;

    r->usage.spare_bytes = 0;
    for (uint32_t lane = 0; lane < journal->site.lanes; lane++)
        for (uint32_t i = 0; i + CFSR_GC_SEGMENTS_MIN < r->maps[lane].count; i++)
            if (only_detached_lack(r, lane, r->maps[lane].lsns[i] + journal->site.segment_bytes))
                r->usage.spare_bytes += file_bytes(journal);
}

/* Marks a peer, durably; what cannot be stored now is so in memory, and stored when it is decided
 * again. */
static void set_detached(struct retention *r, unsigned index, bool detached)
{
    struct cfsr_journal *journal = r->journal;
    int rc;

    journal->peers[index].detached = detached;
    cfsr_acks_peer(&journal->acks, journal->peers[index].site_id)->detached = detached;
    rc = cfsr_acks_store_part(journal->fs, &journal->site, &journal->acks, CFSR_ACKS_DETACHED);
    if (rc < 0 && rc != -CFSR_E_LOCKED)
        cfsr_log(CFSR_LOG_WARN, "acks_not_stored", CFSR_ERR(rc));
    if (!detached)
        forget_sum(journal, journal->peers[index].site_id);
    cfsr_log(CFSR_LOG_WARN, detached ? "peer_detached" : "peer_rejoined",
             CFSR_U("peer", journal->peers[index].site_id),
             CFSR_U("held_bytes", journal->peers[index].held_bytes),
             CFSR_U("journal_bytes", r->usage.journal_bytes),
             CFSR_U("cap_bytes", journal->limits.cap_bytes));
}

static void collect_lane(struct retention *r, uint32_t lane, bool force)
{
    struct cfsr_journal *journal = r->journal;
    struct cfsr_segment_map *map = &r->maps[lane];
    struct cfsr_gc_facts facts = {.segment_bytes = journal->site.segment_bytes};

    facts.lowest_ack_lsn = r->acks_known ? cfsr_acks_lowest(&journal->acks, journal->page, lane)
                                         : CFSR_LSN_UNKNOWN;
    for (uint32_t i = 0; i + 1 < map->count; i++) {
        enum cfsr_gc_verdict verdict;

        facts.segment_count = map->count - i;
        facts.segment_end_lsn = map->lsns[i] + facts.segment_bytes;
        facts.finished_us = created_us(journal, lane, map->lsns[i + 1]);
        facts.now_us = cfsr_clock_wall_us();
        facts.journal_bytes = r->usage.journal_bytes;
        facts.only_detached_lack = r->acks_known &&
                                   only_detached_lack(r, lane, facts.segment_end_lsn);
        if (journal->fs->ops->space(journal->fs, journal->site.data_dir, &facts.free_bytes,
                                    &facts.total_bytes) < 0)
            return;
        verdict = cfsr_gc_judge(&journal->limits, &facts);
        if (verdict == CFSR_GC_KEEP || (verdict == CFSR_GC_REMOVE_FORCED && !force) ||
            remove_segment(journal, lane, map->lsns[i], verdict) < 0)
            return;
        r->usage.journal_bytes -= file_bytes(journal);
        if (verdict == CFSR_GC_REMOVE_DETACHED)
            r->usage.spare_bytes -= cfsr_min_u64(r->usage.spare_bytes, file_bytes(journal));
    }
}

static void collect(struct retention *r, bool force)
{
    for (uint32_t lane = 0; lane < r->journal->site.lanes; lane++)
        collect_lane(r, lane, force);
}

/* Says how it stands: to appenders, on the status page, and in the log when it changed. */
static void publish(struct retention *r, enum cfsr_gc_pressure_level level, int slowest)
{
    struct cfsr_journal *journal = r->journal;
    const struct cfsr_page_retention retention = {
        .pressure = level,
        .journal_bytes = r->usage.journal_bytes,
        .cap_bytes = journal->limits.cap_bytes,
    };
    unsigned before = atomic_exchange(&journal->pressure, level);

    atomic_store(&journal->journal_bytes, r->usage.journal_bytes);
    atomic_store(&journal->pause_ms,
                 cfsr_gc_pause_ms(level, r->usage.journal_bytes - r->usage.spare_bytes,
                                  journal->limits.cap_bytes));
    cfsr_status_page_set_retention(journal->page, &retention);
    for (unsigned i = 0; i < r->peer_count; i++) {
        int slot = cfsr_status_page_find_peer(journal->page, journal->peers[i].site_id);

        if (slot >= 0)
            cfsr_status_page_set_detached(journal->page, slot, journal->peers[i].detached);
    }
    if (before != level)
        cfsr_log(level > before ? CFSR_LOG_WARN : CFSR_LOG_INFO, "journal_pressure",
                 CFSR_S("level", cfsr_gc_pressure_name(level)),
                 CFSR_U("journal_bytes", r->usage.journal_bytes),
                 CFSR_U("cap_bytes", journal->limits.cap_bytes),
                 CFSR_U("slowest_peer", slowest < 0 ? 0 : journal->peers[slowest].site_id));
}

/* Rejoins who caught up; then detaches one peer after another until the pressure is off. */
static enum cfsr_gc_pressure_level relieve(struct retention *r, int *slowest)
{
    struct cfsr_journal *journal = r->journal;
    enum cfsr_gc_pressure_level level = CFSR_GC_PRESSURE_NONE;

    for (unsigned i = 0; i < r->peer_count; i++)
        if (cfsr_gc_rejoins(&journal->limits, &journal->peers[i]))
            set_detached(r, i, false);
    for (unsigned round = 0; round <= CFSR_STATUS_PEERS_MAX; round++) {
        collect(r, false);
        if (look(r) < 0)
            break;
        look_at_peers(r);
        count_spare(r);
        level = cfsr_gc_pressure(&journal->limits, &r->usage, journal->peers, r->peer_count,
                                 slowest);
        if (level != CFSR_GC_PRESSURE_DETACH)
            break;
        set_detached(r, (unsigned)*slowest, true);
    }
    return level;
}

void cfsr_writer_retain(struct cfsr_journal *journal)
{
    struct retention r = {.journal = journal};
    enum cfsr_gc_pressure_level level = CFSR_GC_PRESSURE_NONE;
    int slowest = -1;

    r.acks_known = cfsr_acks_load(journal->fs, &journal->site, &journal->acks) == 0;
    if (look(&r) < 0)
        goto forget_maps;
    if (r.acks_known) {
        look_at_peers(&r);
        level = relieve(&r, &slowest);
    } else {
        level = cfsr_gc_pressure(&journal->limits, &r.usage, NULL, 0, NULL);
    }
    collect(&r, true);
    publish(&r, level, slowest);
forget_maps:
    for (uint32_t lane = 0; lane < journal->site.lanes; lane++)
        cfsr_segment_map_fini(&r.maps[lane]);
}
