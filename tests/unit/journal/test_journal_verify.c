/* Verify, digest, acks, retention and the site's identity. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "journal/acks.h"
#include "journal/digest.h"
#include "journal/gc.h"
#include "journal/recovery.h"
#include "journal/segment.h"
#include "journal/segment_map.h"
#include "journal/verify.h"
#include "support.h"

struct findings {
    unsigned count;
    struct cfsr_finding last;
};

static void note(void *user, const struct cfsr_finding *finding)
{
    struct findings *findings = user;

    findings->count++;
    findings->last = *finding;
    cr_assert(finding->reason[0] != '\0' && finding->advice[0] != '\0');
    cr_assert(cfsr_finding_name(finding->kind)[0] != '\0');
}

static enum cfsr_verify_verdict verify(const struct cfsr_site *site,
                                       const struct cfsr_status_page *page,
                                       struct findings *findings)
{
    struct cfsr_verify_report report;

    memset(findings, 0, sizeof *findings);
    cr_assert(cfsr_journal_verify(cfsr_fs_blocking(), site, page, note, findings, &report) == 0);
    cr_assert(report.findings == findings->count);
    return report.verdict;
}

/* A lane of three groups, cleanly closed; its end. */
static uint64_t small_journal(struct cfsr_site *site, struct cfsr_entry_position positions[9])
{
    struct cfsr_journal_options options = {.opts_size = sizeof options, .idle_mark_ms = 60000};
    struct cfsr_lane_state state;
    struct cfsr_journal *journal;

    test_site_make(site, 1, 2);
    options.data_dir = site->data_dir;
    cr_assert(cfsr_journal_open(&options, &journal) == 0);
    for (uint32_t g = 0; g < 3; g++) {
        struct cfsr_entry entries[3];

        for (uint32_t i = 0; i < 3; i++)
            entries[i] = (struct cfsr_entry){.shard_id = i & 1,
                                             .inode = g,
                                             .op = CFSR_OP_MKDIR,
                                             .payload = "abcdefghijk",
                                             .payload_bytes = 4 + i};
        cr_assert(cfsr_journal_append(journal, entries, 3, positions + 3 * g, NULL) == 0);
    }
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), site, 0, true, false, &state) == 0);
    cr_assert(state.clean);
    cfsr_lane_state_fini(&state);
    return state.end_lsn;
}

Test(journal_verify, every_flipped_bit_is_found_and_classified, .timeout = 100)
{
    struct cfsr_site site;
    struct cfsr_entry_position positions[9];
    struct findings findings;
    uint64_t end_lsn = small_journal(&site, positions);
    uint64_t last_mark = end_lsn - CFSR_RECORD_HEADER_BYTES - CFSR_MARK_PAYLOAD_BYTES;

    cr_assert(verify(&site, NULL, &findings) == CFSR_VERIFY_SOUND && findings.count == 0);
    for (uint64_t byte = 0; byte < end_lsn; byte += 3) {
        unsigned bit = (unsigned)(byte % 8);

        test_flip_bit(&site, 0, byte, bit);
        if (byte < last_mark) {
            cr_assert(verify(&site, NULL, &findings) == CFSR_VERIFY_DAMAGED, "byte %u",
                      (unsigned)byte);
            cr_assert(findings.count == 1 && findings.last.kind == CFSR_FINDING_DAMAGED_RECORD,
                      "byte %u", (unsigned)byte);
            cr_assert(findings.last.lsn <= byte && byte < findings.last.end_lsn, "byte %u",
                      (unsigned)byte);
        } else { /* nothing later says that the closing MARK was durable */
            cr_assert(verify(&site, NULL, &findings) == CFSR_VERIFY_SOUND, "byte %u",
                      (unsigned)byte);
            cr_assert(findings.count == 1 && findings.last.kind == CFSR_FINDING_TORN_TAIL);
            cr_assert(findings.last.lsn == last_mark);
        }
        test_flip_bit(&site, 0, byte, bit);
    }
    test_site_remove(&site);
}

Test(journal_verify, the_status_page_tells_rot_in_the_tail)
{
    struct cfsr_site site;
    struct cfsr_entry_position positions[9];
    struct cfsr_status_page *page;
    struct findings findings;
    uint64_t end_lsn = small_journal(&site, positions);

    cr_assert(cfsr_status_page_open(&site, &page) == 0);
    cr_assert(verify(&site, page, &findings) == CFSR_VERIFY_SOUND);
    test_flip_bit(&site, 0, end_lsn - 60, 0);
    cr_assert(verify(&site, page, &findings) == CFSR_VERIFY_DAMAGED);
    cfsr_status_page_close(page);
    test_site_remove(&site);
}

Test(journal_verify, headers_gaps_and_strangers)
{
    struct cfsr_site site;
    struct findings findings;
    char path[CFSR_LANE_PATH_BYTES], other[CFSR_LANE_PATH_BYTES];

    test_site_make(&site, 1, 1);
    struct cfsr_journal *journal = test_journal_open(&site);
    for (uint64_t i = 0; i < 12; i++)
        test_append(journal, 0, i, 600000);
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(verify(&site, NULL, &findings) == CFSR_VERIFY_SOUND);

    (void)snprintf(other, sizeof other, "%s/journal/00/core.1234", site.data_dir);
    close(open(other, O_CREAT | O_WRONLY, 0600));
    cr_assert(verify(&site, NULL, &findings) == CFSR_VERIFY_DAMAGED);
    cr_assert(findings.last.kind == CFSR_FINDING_FOREIGN_FILE);
    unlink(other);

    cfsr_segment_path(&site, 0, site.segment_bytes, path, sizeof path);
    for (unsigned byte = 0; byte < CFSR_SEGMENT_HEADER_BYTES; byte += 61) {
        int fd = open(path, O_RDWR);
        uint8_t was, is;

        cr_assert(pread(fd, &was, 1, byte) == 1);
        is = (uint8_t)(was ^ 4);
        cr_assert(pwrite(fd, &is, 1, byte) == 1);
        cr_assert(verify(&site, NULL, &findings) == CFSR_VERIFY_DAMAGED, "byte %u", byte);
        cr_assert(findings.last.kind == CFSR_FINDING_DAMAGED_HEADER);
        cr_assert(pwrite(fd, &was, 1, byte) == 1);
        close(fd);
    }
    (void)snprintf(other, sizeof other, "%s/moved", site.data_dir);
    cr_assert(rename(path, other) == 0);
    cr_assert(verify(&site, NULL, &findings) == CFSR_VERIFY_DAMAGED);
    cr_assert(findings.last.kind == CFSR_FINDING_MISSING_SEGMENT &&
              findings.last.lsn == site.segment_bytes);
    struct cfsr_lane_state state;
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, false, false, &state) ==
              -CFSR_E_MISSING_SEGMENT);
    cr_assert(rename(other, path) == 0);
    struct cfsr_site stranger = site;
    stranger.site_id = 8;
    cr_assert(verify(&stranger, NULL, &findings) == CFSR_VERIFY_DAMAGED);
    cr_assert(findings.last.kind == CFSR_FINDING_FOREIGN_SEGMENT);
    test_site_remove(&site);
}

Test(journal_digest, journal_and_wire_form_agree_in_any_pieces)
{
    struct cfsr_site site;
    struct cfsr_lane_cursor cursor;
    struct cfsr_lane_digest digest;
    struct cfsr_lane_state state;
    uint8_t whole[CFSR_DIGEST_LEN_BYTES], fed[CFSR_DIGEST_LEN_BYTES];
    uint64_t entries = 0, lsn = 0;

    test_site_make(&site, 1, 1);
    struct cfsr_journal *journal = test_journal_open(&site);
    for (uint64_t i = 0; i < 30; i++)
        test_append(journal, 0, i, (uint32_t)(150000 + 1000 * i));
    cr_assert(cfsr_journal_close(journal) == 0);
    cr_assert(cfsr_journal_recover_lane(cfsr_fs_blocking(), &site, 0, true, false, &state) == 0);
    cr_assert(cfsr_journal_digest_lane(cfsr_fs_blocking(), &site, 0, 0, state.end_lsn, whole,
                                       &entries) == 0);
    cr_assert(entries == 30);

    cr_assert(cfsr_lane_digest_begin(&digest, site.segment_bytes) == 0);
    cr_assert(cfsr_lane_cursor_init(&cursor, cfsr_fs_blocking(), &site, 0, 0) == 0);
    while (cfsr_lane_cursor_next(&cursor, state.end_lsn) ==
           1) { /* record by record, as the wire may cut them */
        const uint8_t *record = cursor.scan.data, *end = record + cursor.scan.raw_bytes;

        cr_assert(lsn == cursor.scan.lsn);
        while (record < end) {
            struct cfsr_record_header header;

            cfsr_record_header_load(record, &header);
            lsn = cfsr_lane_digest_feed(&digest, lsn, record, cfsr_record_wire_bytes(&header));
            record += cfsr_record_wire_bytes(&header);
        }
    }
    cr_assert(lsn == state.end_lsn);
    cfsr_lane_digest_final(&digest, fed);
    cr_assert(memcmp(whole, fed, sizeof whole) == 0);
    cr_assert(
        cfsr_journal_digest_lane(cfsr_fs_blocking(), &site, 0, 0, state.last.lsn, fed, NULL) == 0);
    cr_assert(memcmp(whole, fed, sizeof whole) != 0);
    cfsr_lane_cursor_fini(&cursor);
    cfsr_lane_digest_fini(&digest);
    cfsr_lane_state_fini(&state);
    test_site_remove(&site);
}

Test(journal_acks, survive_a_torn_store)
{
    struct cfsr_site site;
    static struct cfsr_acks acks, loaded;
    char path[CFSR_PATH_MAX + 16];

    test_site_make(&site, 2, 2);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &acks) == 0 && acks.peer_count == 0);
    cfsr_acks_peer(&acks, 11)->acked[1] = 100;
    cfsr_acks_peer(&acks, 12)->acked[1] = 90;
    cr_assert(cfsr_acks_store(cfsr_fs_blocking(), &site, &acks) == 0);
    cfsr_acks_peer(&acks, 12)->acked[1] = 95;
    cr_assert(cfsr_acks_store(cfsr_fs_blocking(), &site, &acks) == 0);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &loaded) == 0);
    cr_assert(loaded.generation == 2 && cfsr_acks_lowest(&loaded, NULL, 1) == 95);
    (void)snprintf(path, sizeof path, "%s/acks", site.data_dir);
    int fd = open(path, O_RDWR);
    cr_assert(pwrite(fd, "x", 1, 60) == 1); /* the slot of generation 2 */
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &loaded) == 0);
    cr_assert(loaded.generation == 1 && cfsr_acks_lowest(&loaded, NULL, 1) == 90);
    cr_assert(pwrite(fd, "x", 1, CFSR_ACKS_SLOT_BYTES + 60) == 1);
    cr_assert(cfsr_acks_load(cfsr_fs_blocking(), &site, &loaded) == -CFSR_E_CHECKSUM);
    close(fd);

    struct cfsr_status_page *page;
    cr_assert(cfsr_status_page_open(&site, &page) == 0);
    cr_assert(cfsr_acks_lowest(NULL, page, 1) == CFSR_LSN_UNKNOWN);
    int peer = cfsr_status_page_register_peer(page, 12);
    cr_assert(cfsr_acks_lowest(&acks, page, 1) == 95); /* not said yet in this boot: the file's */
    cfsr_status_page_set_acked(page, peer, 1, 200);
    cr_assert(cfsr_acks_lowest(&acks, page, 1) == 100);
    cfsr_status_page_close(page);
    test_site_remove(&site);
}

Test(journal_gc, judges_by_policy_and_pressure)
{
    struct cfsr_gc_limits limits = cfsr_gc_default_limits(1000ull << 30);
    struct cfsr_gc_facts facts = {.now_us = 100000000,
                                  .segment_bytes = 100,
                                  .segment_end_lsn = 300,
                                  .finished_us = 1,
                                  .segment_count = 5,
                                  .lowest_ack_lsn = 400,
                                  .free_bytes = 900,
                                  .total_bytes = 1000};

    cr_assert(limits.cap_bytes == 256ull << 30);
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE);
    facts.lowest_ack_lsn = 399;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
    facts.lowest_ack_lsn = CFSR_LSN_UNKNOWN;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
    facts.lowest_ack_lsn = 400;
    facts.finished_us = 50000000;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
    facts.journal_bytes = (256ull << 30) + 1;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE_FORCED);
    facts.segment_count = CFSR_GC_SEGMENTS_MIN;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
    facts.segment_count = 5;
    facts.journal_bytes = 0;
    facts.total_bytes = 100000;
    facts.free_bytes = 4999;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE_FORCED);
    facts.free_bytes = 5000;
    limits.policy = CFSR_GC_BY_COUNT;
    limits.keep_segments = 4;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE);
    limits.keep_segments = 5;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
    limits.policy = CFSR_GC_BY_AGE;
    facts.finished_us = 1;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_REMOVE);
    limits.policy = CFSR_GC_RETAIN_ALL;
    cr_assert(cfsr_gc_judge(&limits, &facts) == CFSR_GC_KEEP);
}

Test(journal_site, identity_round_trip_and_damage)
{
    struct cfsr_site site, loaded;
    char path[CFSR_PATH_MAX + 16];

    test_site_make(&site, 4, 64);
    cr_assert(cfsr_site_load(cfsr_fs_blocking(), site.data_dir, &loaded) == 0);
    cr_assert(loaded.lanes == 4 && loaded.shards == 64 && loaded.site_id == 7);
    cr_assert(strcmp(loaded.name, "site-a") == 0);
    cr_assert(cfsr_uuid_equal(&loaded.journal, &site.journal));
    cr_assert(cfsr_site_create(cfsr_fs_blocking(), &site) == -EEXIST);
    (void)snprintf(path, sizeof path, "%s/cluster", site.data_dir);
    int fd = open(path, O_RDWR);
    cr_assert(pwrite(fd, "F", 1, 80) == 1);
    close(fd);
    cr_assert(cfsr_site_load(cfsr_fs_blocking(), site.data_dir, &loaded) == -CFSR_E_CHECKSUM);
    unlink(path);
    cr_assert(cfsr_site_load(cfsr_fs_blocking(), site.data_dir, &loaded) == -ENOENT);
    site.lanes = 3;
    cr_assert(cfsr_site_create(cfsr_fs_blocking(), &site) == -CFSR_E_CONFIG);
    test_site_remove(&site);
}
