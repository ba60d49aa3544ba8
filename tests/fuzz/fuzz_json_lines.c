/*
 * fuzz_json_lines.c - `journal append` and `journal import --records`: one line of JSON.
 *
 * Input: the line. Properties: an accepted line gives an entry within the limits, whose payload is
 * well formed unless it is opaque; printed as the journal would and parsed again it is the same
 * entry, byte for byte.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json_record.h"
#include "journal/record.h"
#include <cfsrepl/payload.h>

static uint8_t first[CFSR_RECORD_PAYLOAD_MAX], second[CFSR_RECORD_PAYLOAD_MAX];

static void check_payload(const struct cfsr_entry *entry)
{
    struct cfsr_field field;
    uint32_t cursor = 0;
    int rc;

    if ((entry->flags & CFSR_ENTRY_OPAQUE) != 0)
        return;
    while ((rc = cfsr_payload_next(entry->payload, entry->payload_bytes, &cursor, &field)) == 1)
        ;
    FUZZ_CHECK(rc == 0);
}

static void check_again(const struct cfsr_entry *entry)
{
    struct cfsr_record_header header = {
        .payload_bytes = entry->payload_bytes,
        .seq = 1,
        .timestamp_us = 1,
        .inode = entry->inode,
        .site_id = 1,
        .shard_id = entry->shard_id == CFSR_SHARD_AUTO ? 0 : entry->shard_id,
        .op = entry->op,
        .flags = entry->flags};
    struct cfsr_entry again;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    FUZZ_CHECK(out != NULL && cfsr_json_record_print(out, 0, 0, &header, entry->payload) == 0);
    FUZZ_CHECK(fclose(out) == 0);
    FUZZ_CHECK(cfsr_json_record_parse(text, len, second, &again) == 0);
    FUZZ_CHECK(again.op == entry->op && again.inode == entry->inode &&
               again.flags == entry->flags && again.payload_bytes == entry->payload_bytes);
    FUZZ_CHECK(again.payload_bytes == 0 ||
               memcmp(again.payload, entry->payload, again.payload_bytes) == 0);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len_bytes)
{
    struct cfsr_entry entry;
    char *copy = fuzz_copy(data, len_bytes);

    if (cfsr_json_record_parse(copy, len_bytes, first, &entry) == 0) {
        FUZZ_CHECK(entry.op <= CFSR_OP_ENTRY_MAX && entry.payload_bytes <= sizeof first);
        check_payload(&entry);
        check_again(&entry);
    } else {
        FUZZ_CHECK(cfsr_error_message()[0] != '\0');
    }
    free(copy);
    return 0;
}

void fuzz_seeds(struct fuzz_corpus *corpus)
{
    static const char *const lines[] = {
        "{\"op\":\"MkDir\",\"inode\":2,\"parent\":1,\"name\":\"etc\",\"mode\":\"0040755\",\"uid\":"
        "0,"
        "\"gid\":0,\"mtime_ns\":1700000000000000000}",
        "{\"op\":\"Create\",\"inode\":3,\"parent\":2,\"name\":\"motd\",\"mode\":\"0100644\","
        "\"path\":"
        "\"etc/motd\",\"shard\":7,\"rdev\":\"18446744073709551615\"}",
        "{\"op\":\"Write\",\"inode\":3,\"offset\":0,\"data_base64\":\"aGVsbG8K\"}",
        "{\"op\":\"Write\",\"inode\":3,\"offset\":9,\"length\":4096,\"data_sum\":305419896}",
        "{\"op\":\"Rename\",\"inode\":3,\"parent\":2,\"name\":\"motd\",\"new_parent\":1,\"new_"
        "name\":"
        "\"m\\u00e9\",\"link_id\":5}",
        "{\"op\":\"SetXattr\",\"inode\":3,\"xattr_name\":\"user.a\",\"value_base64\":\"AP8=\"}",
        "{\"op\":\"Symlink\",\"inode\":4,\"parent\":1,\"name_base64\":\"/v8=\",\"target\":\"x\"}",
        "{\"op\":\"SetAttr\",\"inode\":4,\"mtime_ns\":-5}",
        ("{\"op\":\"Truncate\",\"inode\":4,\"size\":77,\"site\":1,\"lane\":0,\"lsn\":0,\"seq\":1,"
         "\"timestamp_us\":5,\"payload_bytes\":9}"),
        "{\"op\":\"Unlink\",\"inode\":4,\"parent\":1,\"name\":\"gone\"}",
        "{\"op\":\"Link\",\"inode\":4,\"payload_base64\":\"AAECAw==\"}",
    };

    for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char name[16];

        (void)snprintf(name, sizeof name, "line-%02u", i);
        fuzz_corpus_add(corpus, name, lines[i], strlen(lines[i]));
    }
}
