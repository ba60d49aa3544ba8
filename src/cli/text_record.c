/*
 * text_record.c - the table that dump and tail print.
 *
 * Thread: any; no state. Columns have fixed widths so that a followed stream lines up without
 * knowing what comes.
 */
#include "cli/text_record.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include <cfsrepl/journal.h>
#include <cfsrepl/payload.h>

#include "base/bytes.h"
#include "base/units.h"

struct view {
    const struct cfsr_record_header *header;
    const void *payload;
};

void cfsr_text_record_heading(FILE *out)
{
    fprintf(out, "%-24s %4s %4s %12s %5s %8s %-11s %16s  %s\n", "TIME", "SITE", "LANE", "LSN",
            "SHARD", "SEQ", "OP", "INODE", "WHAT");
}

static bool field(const struct view *view, uint16_t tag, struct cfsr_field *field_out)
{
    return cfsr_payload_find(view->payload, view->header->payload_bytes, tag, field_out) == 1;
}

static bool number(const struct view *view, uint16_t tag, uint64_t *value_out)
{
    return cfsr_payload_get_u64(view->payload, view->header->payload_bytes, tag, value_out) == 1;
}

static void print_text(FILE *out, const struct cfsr_field *text)
{
    for (uint32_t i = 0; i < text->len_bytes; i++) {
        unsigned char c = text->value[i];

        fputc(c < 0x20 || c == 0x7f ? '?' : c, out);
    }
}

static void print_range(FILE *out, const struct view *view)
{
    struct cfsr_field data;
    uint64_t offset = 0;
    uint64_t length = 0;
    bool carried = field(view, CFSR_TAG_DATA, &data);

    (void)number(view, CFSR_TAG_OFFSET, &offset);
    if (carried)
        length = data.len_bytes;
    else
        (void)number(view, CFSR_TAG_LENGTH, &length);
    fprintf(out, " bytes %" PRIu64 "+%" PRIu64 "%s", offset, length,
            carried ? "" : " (contents not carried)");
}

static void print_attributes(FILE *out, const struct view *view)
{
    uint64_t value;

    if (number(view, CFSR_TAG_MODE, &value))
        fprintf(out, " mode %06" PRIo64, value);
    if (number(view, CFSR_TAG_UID, &value))
        fprintf(out, " uid %" PRIu64, value);
    if (number(view, CFSR_TAG_GID, &value))
        fprintf(out, " gid %" PRIu64, value);
    if (number(view, CFSR_TAG_SIZE, &value))
        fprintf(out, " size %" PRIu64, value);
}

static void print_entry(FILE *out, const struct view *view)
{
    struct cfsr_field text;
    uint64_t value;

    if (field(view, CFSR_TAG_PATH_HINT, &text)) {
        print_text(out, &text);
    } else if (field(view, CFSR_TAG_NAME, &text)) {
        if (number(view, CFSR_TAG_PARENT, &value))
            fprintf(out, "%" PRIu64 "/", value);
        print_text(out, &text);
    }
    if (field(view, CFSR_TAG_NEW_NAME, &text)) {
        fputs(" to ", out);
        if (number(view, CFSR_TAG_NEW_PARENT, &value))
            fprintf(out, "%" PRIu64 "/", value);
        print_text(out, &text);
    }
    if (field(view, CFSR_TAG_TARGET, &text)) {
        fputs(" -> ", out);
        print_text(out, &text);
    }
    if (field(view, CFSR_TAG_XATTR_NAME, &text)) {
        fputc(' ', out);
        print_text(out, &text);
        if (field(view, CFSR_TAG_VALUE, &text))
            fprintf(out, " (%u bytes)", text.len_bytes);
    }
    if (view->header->op == CFSR_OP_WRITE)
        print_range(out, view);
    else
        print_attributes(out, view);
}

static void print_control(FILE *out, const struct view *view)
{
    const uint8_t *payload = view->payload;

    if (view->header->op == CFSR_RECORD_MARK &&
        view->header->payload_bytes >= CFSR_MARK_PAYLOAD_BYTES)
        fprintf(out, "incarnation %" PRIu64 " committed %" PRIu64 " entries %" PRIu64 "%s",
                cfsr_load_le64(payload), cfsr_load_le64(payload + 8), cfsr_load_le64(payload + 16),
                (cfsr_load_le32(payload + 32) & CFSR_MARK_CLEAN_CLOSE) != 0 ? " clean close" : "");
    else
        fprintf(out, "%u bytes", view->header->payload_bytes);
}

int cfsr_text_record_print(FILE *out, uint32_t lane, uint64_t lsn,
                           const struct cfsr_record_header *header, const void *payload)
{
    const struct view view = {header, payload};
    const char *op = cfsr_op_name(header->op);
    char time[40];

    if (header->op == CFSR_RECORD_PAD)
        op = "PAD";
    else if (header->op == CFSR_RECORD_MARK)
        op = "MARK";
    else if (header->op == CFSR_RECORD_SHARDS)
        op = "SHARDS";
    cfsr_format_time_us(header->timestamp_us, time, sizeof time);
    fprintf(out, "%-24s %4" PRIu64 " %4u %12" PRIu64 " %5u %8" PRIu64 " %-11s %16" PRIu64 "  ",
            time, header->site_id, lane, lsn, header->shard_id, header->seq, op != NULL ? op : "?",
            header->inode);
    if (!cfsr_record_is_entry(header->op))
        print_control(out, &view);
    else if ((header->flags & CFSR_ENTRY_OPAQUE) != 0)
        fprintf(out, "opaque payload of %u bytes", header->payload_bytes);
    else
        print_entry(out, &view);
    return fputc('\n', out) == EOF ? -1 : 0;
}
