/*
 * flips_judge.c - who notices what (flips.h): readers before they deliver anything, verify, loads
 * of the small files.
 *
 * Thread:     one.
 * Invariants: no wrong byte, no record twice, none skipped without an error, whatever was damaged.
 */
#include <stdio.h>
#include <string.h>

#include "flips.h"
#include "inbox/verify.h"
#include "journal/verify.h"

static bool has(uint32_t classes, enum flips_class class)
{
    return (classes >> class & 1) != 0;
}

static bool only_dont_care(uint32_t classes)
{
    return classes >> FLIPS_DONT_CARE << FLIPS_DONT_CARE == classes;
}

static const char *judge_journal(struct flips *flips, uint32_t classes)
{
    struct torn_journal *journal = &flips->journal;
    struct cfsr_verify_report report = {0};
    const char *wrong = torn_journal_compare(journal, flips->journal_first, journal->known_lsn);
    int rc = cfsr_journal_verify(journal->fs, &journal->site, NULL, NULL, NULL, &report);

    if (rc < 0)
        return "journal verify fails";
    if (only_dont_care(classes)) {
        /* Bytes behind the end may be shown as a torn tail. */
        return wrong != NULL                         ? wrong
               : report.verdict != CFSR_VERIFY_SOUND ? "verify complains of bytes nobody reads"
                                                     : NULL;
    }
    if (wrong == NULL)
        return "the journal's reader notices nothing";
    if (strcmp(wrong, torn_journal_stopped) != 0)
        return wrong;
    return report.findings > 0 ? NULL : "journal verify notices nothing";
}

static const char *judge_inbox(struct flips *flips, uint32_t classes)
{
    struct torn_inbox *inbox = flips->inbox;
    struct cfsr_inbox_verify_options options = {0};
    struct cfsr_inbox_verify_report report = {0};
    const char *wrong = torn_inbox_read(inbox, inbox->base);
    bool lost = has(classes, FLIPS_LOCAL_HEADER) || has(classes, FLIPS_BODY);
    int rc = cfsr_inbox_verify_lane(inbox->fs, &inbox->site, 0, &options, &report);

    if (only_dont_care(classes))
        return wrong != NULL                        ? wrong
               : rc < 0                             ? "inbox verify fails"
               : report.verdict != CFSR_INBOX_SOUND ? "verify complains of bytes nobody reads"
                                                    : NULL;
    if (rc == 0 && report.findings == 0 && !has(classes, FLIPS_INBOX_TAIL))
        return "inbox verify notices nothing";
    if (lost && wrong == NULL)
        return "the inbox's reader notices nothing";
    if (wrong == NULL || strcmp(wrong, torn_inbox_stopped) == 0)
        return NULL;
    if (has(classes, FLIPS_INBOX_TAIL) && strcmp(wrong, torn_inbox_early) == 0)
        return NULL; /* a torn tail, for all that anyone can know */
    return wrong;
}

static const char *judge_acks(struct flips *flips, const struct flips_file *file, uint32_t classes,
                              bool *fell_back_out)
{
    static struct cfsr_acks acks;
    int rc = cfsr_acks_load(file->fs, &flips->journal.site, &acks);

    if (rc < 0)
        return "acks: one damaged slot loses both";
    *fell_back_out = acks.generation == flips->acks[0].generation;
    /* A write that went to the other slot may be whole there. */
    if (*fell_back_out != has(classes, FLIPS_ACKS_NEW) && !has(classes, FLIPS_ACKS_OLD))
        return "acks: the wrong slot counts";
    return memcmp(&acks, &flips->acks[*fell_back_out ? 0 : 1], sizeof acks) == 0
               ? NULL
               : "acks that nobody stored";
}

static bool is_position(const struct cfsr_inbox_position *found,
                        const struct cfsr_inbox_position *expected)
{
    return found->origins == expected->origins && found->sequence == expected->sequence &&
           found->body_offset == expected->body_offset &&
           memcmp(found->origin, expected->origin, expected->origins * sizeof *expected->origin) ==
               0;
}

static const char *judge_consumer(struct flips *flips, const struct flips_file *file,
                                  uint32_t classes, bool *fell_back_out)
{
    struct cfsr_consumer *consumer;
    bool newer, older;
    int rc = cfsr_consumer_open(file->fs, &flips->inbox->site, FLIPS_READER, false, false,
                                &consumer);

    if (rc < 0)
        return "consumer: one damaged slot loses both";
    newer = is_position(&consumer->position[0], &flips->position[1]);
    older = is_position(&consumer->position[0], &flips->position[0]);
    cfsr_consumer_close(consumer);
    *fell_back_out = older;
    if (!newer && !older)
        return "a consumer position that nobody committed";
    if (older && !has(classes, FLIPS_CONSUMER_NEW))
        return "consumer: the older slot counts though the newer one is whole";
    /* A write that went to the other slot may be whole there. */
    if (newer && has(classes, FLIPS_CONSUMER_NEW) && !has(classes, FLIPS_CONSUMER_OLD))
        return "consumer: a damaged slot is believed";
    return NULL;
}

static const char *judge_cluster(struct flips *flips)
{
    static struct cfsr_site site;

    memset(&site, 0, sizeof site);
    return cfsr_site_load(flips->cluster_fs, "/d", &site) < 0 ? NULL
                                                              : "the cluster file is believed";
}

const char *flips_judge(struct flips *flips, const struct flips_file *file, uint32_t classes,
                        bool *fell_back_out)
{
    *fell_back_out = false;
    switch (file->kind) {
    case FLIPS_JOURNAL_SEGMENT: return judge_journal(flips, classes);
    case FLIPS_INBOX_SEGMENT: return judge_inbox(flips, classes);
    case FLIPS_ACKS: return judge_acks(flips, file, classes, fell_back_out);
    case FLIPS_CONSUMER: return judge_consumer(flips, file, classes, fell_back_out);
    case FLIPS_CLUSTER_FILE: return judge_cluster(flips);
    }
    return "an unknown kind of file";
}
