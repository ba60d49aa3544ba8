/* test_cli.c - exit codes, base64, JSON records, names, what `wait` understands. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cfsrepl/payload.h>

#include "base/bytes.h"
#include "cli/admin.h"
#include "cli/base64.h"
#include "cli/exit_code.h"
#include "cli/json_record.h"
#include "cli/names.h"

Test(exit_code, one_code_for_each_reason)
{
    static const struct {
        int rc, code;
    } cases[] = {
        {0, 0},
        {5, 0},
        {-CFSR_E_USAGE, 2},
        {-CFSR_E_UNREACHABLE, 69},
        {-EIO, 74},
        {-ENOSPC, 74},
        {-EROFS, 74},
        {-CFSR_E_FAILED, 74},
        {-CFSR_E_LOCKED, 75},
        {-CFSR_E_TIMEOUT, 75},
        {-EACCES, 77},
        {-EPERM, 77},
        {-CFSR_E_CONFIG, 78},
        {-CFSR_E_NO_IO_URING, 78},
        {-CFSR_E_DAMAGED, 1},
        {-CFSR_E_UNSAFE_PATH, 1},
        {-ENOTEMPTY, 1},
        {-CFSR_E_FORMAT, 1},
    };

    for (size_t i = 0; i < CFSR_ARRAY_LEN(cases); i++)
        cr_assert_eq(cfsr_exit_code(cases[i].rc), cases[i].code, "rc %d", cases[i].rc);
}

Test(base64, vectors_of_rfc_4648)
{
    static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
    static const char *const coded[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                        "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};

    for (size_t i = 0; i < CFSR_ARRAY_LEN(plain); i++) {
        char text[16];
        char back[16] = "";

        cfsr_base64_encode(plain[i], strlen(plain[i]), text);
        cr_assert_str_eq(text, coded[i]);
        cr_assert_eq(cfsr_base64_decode(text, strlen(text), back, sizeof back),
                     (ssize_t)strlen(plain[i]));
        cr_assert_eq(memcmp(back, plain[i], strlen(plain[i])), 0);
    }
}

Test(base64, refuses_what_is_not_strict)
{
    static const char *const bad[] = {
        "Zg=", "Zg", "Zh==", "Z===", "====", "Zm9*", "Zg==Zg==", "Zm 9"};
    char back[16];

    for (size_t i = 0; i < CFSR_ARRAY_LEN(bad); i++)
        cr_assert_eq(cfsr_base64_decode(bad[i], strlen(bad[i]), back, sizeof back), -CFSR_E_FORMAT,
                     "%s", bad[i]);
    cr_assert_eq(cfsr_base64_decode("Zm9v", 4, back, 2), -CFSR_E_TOO_LARGE);
}

static uint8_t payload[1 << 20];
static struct cfsr_entry entry;

static int parse(const char *line)
{
    cfsr_error_clear();
    return cfsr_json_record_parse(line, strlen(line), payload, &entry);
}

Test(json_record, takes_a_create_and_chooses_the_parent_as_shard_key)
{
    uint64_t mode;

    cr_assert_eq(parse("{\"op\":\"create\",\"inode\":7,\"parent\":3,\"name\":\"a\",\"mode\":"
                       "\"0100640\",\"lsn\":99}"),
                 0, "%s", cfsr_error_message());
    cr_assert_eq(entry.op, CFSR_OP_CREATE);
    cr_assert_eq(entry.inode, 7);
    cr_assert_eq(entry.shard_key, 3);
    cr_assert_eq(entry.shard_id, CFSR_SHARD_AUTO);
    cr_assert_eq(cfsr_payload_get_u64(entry.payload, entry.payload_bytes, CFSR_TAG_MODE, &mode), 1);
    cr_assert_eq(mode, 0100640);
}

Test(json_record, names_what_is_wrong)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"{\"op\":\"Create\"", "column"},
        {"[]", "not a JSON object"},
        {"{\"inode\":1}", "\"op\""},
        {"{\"op\":\"Creat\",\"inode\":1}", "not an operation"},
        {"{\"op\":\"Unlink\",\"parent\":1,\"name\":\"a\"}", "\"inode\": is missing"},
        {"{\"op\":\"Unlink\",\"inode\":1,\"name\":\"a\"}",
         "\"parent\" is missing: Unlink needs it"},
        {"{\"op\":\"Unlink\",\"inode\":1,\"parent\":1,\"nam\":\"a\"}", "did you mean \"name\""},
        {"{\"op\":\"Unlink\",\"inode\":-1,\"parent\":1,\"name\":\"a\"}", "negative"},
        {"{\"op\":\"Unlink\",\"inode\":1,\"parent\":1,\"name\":\"a/b\"}", "is not a name"},
        {"{\"op\":\"Unlink\",\"inode\":1,\"parent\":1,\"name\":\"..\"}", "is not a name"},
        {"{\"op\":\"Write\",\"inode\":1,\"offset\":0}", "Write needs one"},
        {"{\"op\":\"Write\",\"inode\":1,\"offset\":0,\"data_base64\":\"A\"}", "is not base64"},
        {"{\"op\":\"Write\",\"inode\":1,\"offset\":0,\"data\":\"a\",\"data_base64\":\"YQ==\"}",
         "as text and as base64"},
        {"{\"op\":\"SetAttr\",\"inode\":1,\"mode\":\"0888\"}", "octal"},
        {"{\"op\":\"SetAttr\",\"inode\":1,\"payload_base64\":\"YQ==\",\"uid\":1}",
         "cannot stand beside"},
        {"{\"op\":\"SetAttr\",\"inode\":1,\"shard\":65536}", "65536"},
    };

    for (size_t i = 0; i < CFSR_ARRAY_LEN(cases); i++) {
        cr_assert_eq(parse(cases[i].line), -CFSR_E_FORMAT, "%s", cases[i].line);
        cr_assert_not_null(strstr(cfsr_error_message(), cases[i].says), "'%s' lacks '%s'",
                           cfsr_error_message(), cases[i].says);
    }
}

Test(json_record, what_is_printed_parses_back_to_the_same_bytes)
{
    static const char *const lines[] = {
        "{\"op\":\"SetXattr\",\"inode\":9,\"xattr_name\":\"user.a\",\"value_base64\":\"AP8=\"}",
        ("{\"op\":\"Rename\",\"inode\":9,\"parent\":1,\"name_base64\":\"/w==\","
         "\"new_parent\":2,\"new_name\":\"b\",\"link_id\":\"18446744073709551615\"}"),
        "{\"op\":\"SetAttr\",\"inode\":\"18446744073709551614\",\"mtime_ns\":-5,\"uid\":0}",
        "{\"op\":\"Write\",\"inode\":4,\"payload_base64\":\"AQID\"}",
    };

    for (size_t i = 0; i < CFSR_ARRAY_LEN(lines); i++) {
        uint8_t first[512];
        struct cfsr_entry before;
        char *text = NULL;
        size_t len;
        FILE *out = open_memstream(&text, &len);
        struct cfsr_record_header header = {.seq = 1, .site_id = 1};

        cr_assert_eq(parse(lines[i]), 0, "%s", cfsr_error_message());
        before = entry;
        memcpy(first, entry.payload, entry.payload_bytes);
        header.op = entry.op;
        header.flags = entry.flags;
        header.inode = entry.inode;
        header.payload_bytes = entry.payload_bytes;
        cr_assert_eq(cfsr_json_record_print(out, 0, 64, &header, first), 0);
        fclose(out);
        cr_assert_eq(parse(text), 0, "%s: %s", text, cfsr_error_message());
        cr_assert_eq(entry.payload_bytes, before.payload_bytes);
        cr_assert_eq(memcmp(entry.payload, first, entry.payload_bytes), 0);
        cr_assert_eq(entry.inode, before.inode);
        cr_assert_eq(entry.flags, before.flags);
        free(text);
    }
}

Test(names, many_names_are_found_and_removed)
{
    struct cfsr_names names;
    char name[16];

    cfsr_names_init(&names);
    cr_assert_null(cfsr_names_find(&names, 1, "a", 1));
    for (unsigned i = 1; i <= 5000; i++) {
        int len = snprintf(name, sizeof name, "n%u", i);
        cr_assert_eq(cfsr_names_put(&names, i % 7, name, (size_t)len, i, 0), 0);
    }
    for (unsigned i = 1; i <= 5000; i++) {
        int len = snprintf(name, sizeof name, "n%u", i);
        cr_assert_eq(cfsr_names_find(&names, i % 7, name, (size_t)len)->inode, i);
        cr_assert_null(cfsr_names_find(&names, i % 7 + 1, name, (size_t)len));
    }
    cfsr_names_find(&names, 1, "n1", 2)->inode = 0;
    cr_assert_null(cfsr_names_find(&names, 1, "n1", 2));
    cr_assert_eq(cfsr_names_put(&names, 1, "n1", 2, 77, 0), 0);
    cr_assert_eq(cfsr_names_find(&names, 1, "n1", 2)->inode, 77);
    cfsr_names_clear(&names);
    cr_assert_null(cfsr_names_find(&names, 1, "n1", 2));
    cfsr_names_fini(&names);
}

static bool caught_up(const char *status)
{
    json_t *object = json_loads(status, 0, NULL);
    char why[200] = "";
    bool answer = cfsr_admin_caught_up(object, why, sizeof why);

    cr_assert_not_null(object);
    cr_assert(answer || why[0] != '\0');
    json_decref(object);
    return answer;
}

Test(admin, caught_up_needs_every_link_streaming_without_lag)
{
    cr_assert(caught_up("{\"links\":[{\"name\":\"b\",\"state\":\"STREAMING\",\"caught_up\":true,"
                        "\"lag_entries\":0}]}"));
    cr_assert_not(caught_up("{\"links\":[{\"name\":\"b\",\"state\":\"STREAMING\",\"caught_up\":"
                            "true,\"lag_entries\":1}]}"));
    cr_assert_not(caught_up("{\"links\":[{\"name\":\"b\",\"state\":\"STREAMING\",\"caught_up\":"
                            "true,\"lag_entries\":null}]}"));
    cr_assert_not(caught_up("{\"links\":[{\"name\":\"b\",\"state\":\"CATCHUP\",\"caught_up\":false,"
                            "\"lag_entries\":0}]}"));
    cr_assert_not(caught_up("{\"links\":[]}"));
}
