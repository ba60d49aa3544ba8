/* Pressure on the journal's cap: the decision, the durable mark, and the writer that acts on it. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "journal/acks.h"
#include "journal/gc.h"
#include "journal/segment_map.h"
#include "journal/status_page.h"
#include "support.h"

/* ---- the decision ---- */

Test(journal_retention, pressure_goes_by_the_share_of_the_cap)
{
    static const struct {
        uint64_t journal_bytes, free_bytes;
        enum cfsr_gc_pressure_level level;
    } rows[] = {
        {0, 900, CFSR_GC_PRESSURE_NONE},       {499, 900, CFSR_GC_PRESSURE_NONE},
        {500, 900, CFSR_GC_PRESSURE_WARN},     {799, 900, CFSR_GC_PRESSURE_WARN},
        {800, 900, CFSR_GC_PRESSURE_THROTTLE}, {949, 900, CFSR_GC_PRESSURE_THROTTLE},
        {950, 900, CFSR_GC_PRESSURE_DETACH},   {2000, 900, CFSR_GC_PRESSURE_DETACH},
        {10, 50, CFSR_GC_PRESSURE_NONE},       {10, 49, CFSR_GC_PRESSURE_DETACH},
    };
    struct cfsr_gc_limits limits = {.cap_bytes = 1000, .free_floor_permille = 50};
    struct cfsr_gc_peer peer = {.site_id = 2, .held_bytes = 5};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(rows); i++) {
        struct cfsr_gc_usage usage = {.journal_bytes = rows[i].journal_bytes,
                                      .free_bytes = rows[i].free_bytes,
                                      .total_bytes = 1000};

        cr_assert(cfsr_gc_pressure(&limits, &usage, &peer, 1, NULL) == rows[i].level, "row %u", i);
    }
    /* On by default, for every file system. */
    limits = cfsr_gc_default_limits(1ull << 40);
    struct cfsr_gc_usage large = {
        .journal_bytes = 250ull << 30, .free_bytes = 1ull << 39, .total_bytes = 1ull << 40};
    cr_assert(cfsr_gc_pressure(&limits, &large, &peer, 1, NULL) == CFSR_GC_PRESSURE_DETACH);
    large.spare_bytes = 200ull << 30; /* only detached peers lack most of it */
    cr_assert(cfsr_gc_pressure(&limits, &large, &peer, 1, NULL) == CFSR_GC_PRESSURE_NONE);
}

Test(journal_retention, the_slowest_attached_peer_is_named)
{
    struct cfsr_gc_limits limits = {.cap_bytes = 1000};
    struct cfsr_gc_usage usage = {.journal_bytes = 980};
    struct cfsr_gc_peer peers[] = {
        {.site_id = 1, .held_bytes = 10},
        {.site_id = 2, .held_bytes = 70},
        {.site_id = 3, .held_bytes = 90, .detached = true},
        {.site_id = 4, .held_bytes = 0},
    };
    int slowest;

    cr_assert(cfsr_gc_pressure(&limits, &usage, peers, 4, &slowest) == CFSR_GC_PRESSURE_DETACH);
    cr_assert(slowest == 1);
    peers[1].detached = true;
    cr_assert(cfsr_gc_pressure(&limits, &usage, peers, 4, &slowest) == CFSR_GC_PRESSURE_DETACH);
    cr_assert(slowest == 0);
    peers[0].detached = true; /* nobody is left who holds anything: no use in pacing */
    cr_assert(cfsr_gc_pressure(&limits, &usage, peers, 4, &slowest) == CFSR_GC_PRESSURE_WARN);
    cr_assert(slowest == -1);
    peers[0].detached = false;
    limits.policy = CFSR_GC_RETAIN_ALL; /* peers do not matter then */
    cr_assert(cfsr_gc_pressure(&limits, &usage, peers, 4, &slowest) == CFSR_GC_PRESSURE_WARN);
}

Test(journal_retention, a_detached_peer_rejoins_when_it_can_be_served)
{
    static const struct {
        struct cfsr_gc_peer peer;
        bool rejoins;
    } rows[] = {
        {{.detached = true, .held_bytes = 0}, true},
        {{.detached = true, .held_bytes = 0, .gone = true}, false},
        {{.detached = true, .held_bytes = 499}, false}, /* away */
        {{.detached = true, .held_bytes = 499, .advanced = true}, true},
        {{.detached = true, .held_bytes = 500, .advanced = true}, false},
        {{.detached = true, .held_bytes = 1, .advanced = true, .gone = true}, false},
        {{.detached = false, .held_bytes = 0}, false},
    };
    struct cfsr_gc_limits limits = {.cap_bytes = 1000};

    for (unsigned i = 0; i < CFSR_ARRAY_LEN(rows); i++)
        cr_assert(cfsr_gc_rejoins(&limits, &rows[i].peer) == rows[i].rejoins, "row %u", i);
}

Test(journal_retention, bulk_producers_pause_longer_the_nearer_the_cap_is)
{
    cr_assert(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_NONE, 0, 1000) == 0);
    cr_assert(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_WARN, 790, 1000) == 0);
    cr_assert(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_THROTTLE, 800, 1000) == 5);
    cr_assert(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_THROTTLE, 875, 1000) > 20);
    cr_assert(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_THROTTLE, 875, 1000) < 35);
    cr_assert(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_DETACH, 960, 1000) == 50);
    cr_assert(cfsr_gc_pause_ms(CFSR_GC_PRESSURE_DETACH, 10, 1000) == 50); /* the floor's doing */
}

Test(journal_retention, what_only_detached_peers_lack_goes_first)
{
    struct cfsr_gc_limits limits = cfsr_gc_default_limits(1000ull << 30);
    struct cfsr_gc_facts facts = {.now_us = 1000,
                                  .segment_bytes = 100,
                                  .segment_end_lsn = 300,
                                  .finished_us = 999, /* young */
                                  .segment_count = 5,
                                  .lowest_ack_lsn = 0,
                                  .only_detached_lack = true,
                                  .free_bytes = 900,
                                  .total_bytes = 1000};

    limits.cap_bytes = 1000;
    facts.journal_bytes = 1000;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP); /* it may come back */
    facts.journal_bytes = 1001;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE_DETACHED);
    facts.segment_count = CFSR_GC_SEGMENTS_MIN;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
    facts.segment_count = 5;
    facts.journal_bytes = 10;
    facts.free_bytes = 0;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE_DETACHED);
    facts.only_detached_lack = false;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE_FORCED);
    facts.only_detached_lack = true;
    facts.lowest_ack_lsn = CFSR_LSN_UNKNOWN;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
}

/* ---- the durable mark ---- */

Test(journal_retention, the_mark_is_kept_beside_the_acks)
{
    static struct cfsr_acks daemon, writer, loaded;
    struct cfsr_file *locked;
    struct cfsr_site site;
    char path[CFSR_PATH_MAX + 16];

    test_site_make(&site, 2, 2);
    (void)snprintf(path, sizeof path, "%s/acks", site.data_dir);
    cfsr_acks_peer(&daemon, 5)->acked[0] = 100;
    cfsr_acks_peer(&daemon, 6)->acked[1] = 200;
    cr_assert(cfsr_acks_store_part(cfsr_fs_blocking(), &site, &daemon, CFSR_ACKS_ACKED) == 0);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &writer) == 0);
    cr_assert(!writer.peers[0].detached && !writer.peers[1].detached);

    cfsr_acks_peer(&daemon, 6)->acked[1] = 300;
    cr_assert(cfsr_acks_store_part(cfsr_fs_blocking(), &site, &daemon, CFSR_ACKS_ACKED) == 0);
    cfsr_acks_peer(&writer, 6)->detached = true; /* from its older copy */
    cr_assert(cfsr_acks_store_part(cfsr_fs_blocking(), &site, &writer, CFSR_ACKS_DETACHED) == 0);
    cr_assert(writer.peers[1].acked[1] == 300, "the daemon's part was kept, and taken");

    cfsr_acks_peer(&daemon, 5)->acked[0] = 150;
    cr_assert(cfsr_acks_store_part(cfsr_fs_blocking(), &site, &daemon, CFSR_ACKS_ACKED) == 0);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &loaded) == 0);
    cr_assert(loaded.generation == 4 && loaded.peer_count == 2);
    cr_assert(loaded.peers[0].acked[0] == 150 && !loaded.peers[0].detached);
    cr_assert(loaded.peers[1].acked[1] == 300 && loaded.peers[1].detached);

    cr_assert(cfsr_file_open(cfsr_fs_blocking(), path, CFSR_OPEN_READ, &locked) == 0);
    cr_assert(cfsr_file_lock(locked) == 0);
    cr_assert(cfsr_acks_store_part(cfsr_fs_blocking(), &site, &daemon, CFSR_ACKS_ACKED) ==
              -CFSR_E_LOCKED);
    cfsr_file_close(locked);
    test_site_remove(&site);
}

Test(journal_retention, an_acks_file_without_the_mark_is_read_as_before)
{
    static struct cfsr_acks acks, loaded;
    struct cfsr_site site;
    char path[CFSR_PATH_MAX + 16];
    const uint8_t zeros[32] = {0};
    int fd;

    test_site_make(&site, 1, 1);
    (void)snprintf(path, sizeof path, "%s/acks", site.data_dir);
    cfsr_acks_peer(&acks, 5)->acked[0] = 100;
    cfsr_acks_peer(&acks, 5)->detached = true;
    cr_assert(cfsr_acks_store(cfsr_fs_blocking(), &site, &acks) == 0);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &loaded) == 0);
    cr_assert(loaded.peers[0].detached);
    fd = open(path, O_RDWR | O_CLOEXEC); /* slot 1: header 48, one row of 16, then the mark */
    cr_assert(pwrite(fd, "x", 1, CFSR_ACKS_SLOT_BYTES + 48 + 16 + 17) == 1);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &loaded) == 0);
    cr_assert(!loaded.peers[0].detached && loaded.peers[0].acked[0] == 100);
    cr_assert(pwrite(fd, zeros, sizeof zeros, CFSR_ACKS_SLOT_BYTES + 48 + 16) == sizeof zeros);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &loaded) == 0);
    cr_assert(!loaded.peers[0].detached && loaded.peers[0].acked[0] == 100);
    close(fd);
    test_site_remove(&site);
}

/* ---- the writer ---- */

#define SEGMENT_FILE_BYTES (CFSR_SEGMENT_BYTES_MIN + 4096)

struct scene {
    struct cfsr_site site;
    struct cfsr_journal *journal;
    struct cfsr_status_page *page;
    int near, away; /* slots of sites 8 and 9 */
    uint64_t inode, head_lsn;
};

static void scene_make(struct scene *scene, unsigned cap_segments)
{
    struct cfsr_journal_options options = {
        .opts_size = sizeof options,
        .retention_age_ms = 1,
        .retention_cap_bytes = cap_segments * (uint64_t)SEGMENT_FILE_BYTES,
    };

    memset(scene, 0, sizeof *scene);
    test_site_make(&scene->site, 1, 1);
    options.data_dir = scene->site.data_dir;
    cr_assert(cfsr_status_page_open(&scene->site, &scene->page) == 0);
    scene->near = cfsr_status_page_register_peer(scene->page, 8);
    scene->away = cfsr_status_page_register_peer(scene->page, 9);
    cfsr_status_page_set_acked(scene->page, scene->near, 0, 0);
    cfsr_status_page_set_acked(scene->page, scene->away, 0, 0);
    cr_assert(cfsr_journal_open(&options, &scene->journal) == 0);
}

static void scene_drop(struct scene *scene)
{
    cr_assert(cfsr_journal_close(scene->journal) == 0);
    cfsr_status_page_close(scene->page);
    test_site_remove(&scene->site);
}

/* About segments × 2 MiB; near follows, away does not. */
static void append_segments(struct scene *scene, unsigned segments)
{
    for (unsigned i = 0; i < 4 * segments; i++) {
        scene->head_lsn = test_append(scene->journal, 0, ++scene->inode, 500000).end_lsn;
        cfsr_status_page_set_acked(scene->page, scene->near, 0, scene->head_lsn);
    }
}

static bool wait_for_level(const struct scene *scene, enum cfsr_pressure level)
{
    struct cfsr_journal_pressure pressure;

    for (unsigned i = 0; i < 1000; i++) {
        cfsr_journal_pressure(scene->journal, &pressure);
        if (pressure.level == level)
            return true;
        (void)usleep(20000);
    }
    return false;
}

static bool wait_for_detached(const struct scene *scene, bool detached)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (cfsr_status_page_detached(scene->page, scene->away) == detached)
            return true;
        (void)usleep(20000);
    }
    return false;
}

static bool stored_as_detached(const struct scene *scene, uint64_t site_id)
{
    static struct cfsr_acks acks;

    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &scene->site, &acks) == 0);
    return cfsr_acks_peer(&acks, site_id)->detached;
}

Test(journal_retention, levels_rise_and_fall_with_the_slow_peer, .timeout = 120)
{
    struct cfsr_journal_pressure pressure;
    struct cfsr_page_retention shown;
    struct scene scene;

    scene_make(&scene, 20);
    append_segments(&scene, 10);
    cr_assert(wait_for_level(&scene, CFSR_PRESSURE_WARN));
    cfsr_journal_pressure(scene.journal, &pressure);
    cr_assert(pressure.pause_ms == 0);
    append_segments(&scene, 6);
    cr_assert(wait_for_level(&scene, CFSR_PRESSURE_THROTTLE));
    cfsr_journal_pressure(scene.journal, &pressure);
    cr_assert(pressure.pause_ms >= 5);
    cr_assert(pressure.cap_bytes == 20ull * SEGMENT_FILE_BYTES);
    cfsr_status_page_retention(scene.page, &shown);
    cr_assert(shown.pressure == CFSR_GC_PRESSURE_THROTTLE);
    cr_assert(shown.cap_bytes == pressure.cap_bytes && shown.journal_bytes > 0);
    cr_assert(!cfsr_status_page_detached(scene.page, scene.away));
    cfsr_status_page_set_acked(scene.page, scene.away, 0, scene.head_lsn);
    cr_assert(wait_for_level(&scene, CFSR_PRESSURE_NONE));
    scene_drop(&scene);
}

Test(journal_retention, a_peer_that_is_away_never_fills_the_disk, .timeout = 120)
{
    struct cfsr_segment_map map;
    struct cfsr_journal_stats stats;
    struct scene scene;

    scene_make(&scene, 12);
    append_segments(&scene, 60); /* five times the cap; every append succeeds */
    cr_assert(wait_for_detached(&scene, true));
    cr_assert(stored_as_detached(&scene, 9) && !stored_as_detached(&scene, 8));
    cr_assert(!cfsr_status_page_detached(scene.page, scene.near));
    cfsr_journal_stats(scene.journal, &stats);
    cr_assert(stats.detached_removals > 0);
    cr_assert(cfsr_segment_map_load(cfsr_fs_blocking(), &scene.site, 0, &map) == 0);
    cr_assert(map.count >= 8, "what a detached peer lacks is kept while there is room");
    cfsr_segment_map_fini(&map);
    scene_drop(&scene);
}

Test(journal_retention, a_detached_peer_whose_data_is_there_rejoins_by_itself, .timeout = 120)
{
    struct cfsr_segment_map map;
    struct scene scene;

    scene_make(&scene, 12);
    append_segments(&scene, 14);
    cr_assert(wait_for_detached(&scene, true));
    cr_assert(cfsr_segment_map_load(cfsr_fs_blocking(), &scene.site, 0, &map) == 0);
    /* Something it needs is gone: it may say what it likes. */
    cfsr_status_page_set_acked(scene.page, scene.away, 0, map.lsns[0] - 8);
    append_segments(&scene, 2);
    (void)usleep(1200000);
    cr_assert(cfsr_status_page_detached(scene.page, scene.away));
    cfsr_segment_map_fini(&map);
    /* All it lacks is there, and it catches up. */
    cfsr_status_page_set_acked(scene.page, scene.away, 0, scene.head_lsn);
    cr_assert(wait_for_detached(&scene, false));
    cr_assert(!stored_as_detached(&scene, 9));
    scene_drop(&scene);
}

Test(journal_retention, the_mark_outlives_the_producer, .timeout = 120)
{
    struct cfsr_journal_options options = {.opts_size = sizeof options, .retention_age_ms = 1};
    struct scene scene;

    scene_make(&scene, 12);
    append_segments(&scene, 14);
    cr_assert(wait_for_detached(&scene, true));
    cr_assert(cfsr_journal_close(scene.journal) == 0);
    cfsr_status_page_set_detached(scene.page, scene.away, false); /* as a new boot's page is */
    options.data_dir = scene.site.data_dir;
    cr_assert(cfsr_journal_open(&options, &scene.journal) == 0);
    cr_assert(wait_for_detached(&scene, true));
    scene_drop(&scene);
}
