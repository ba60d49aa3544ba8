/* test_admin_status.c - the status table for people: which transport carries a link, and why. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/admin.h"

/* The table of a status with one link that has these members besides the usual ones. */
static void table_of(const char *members, char *table_out, size_t len_bytes)
{
    char document[1024];
    FILE *out = fmemopen(table_out, len_bytes, "w");
    json_error_t error;
    json_t *status;

    snprintf(document, sizeof document,
             "{\"site\":{\"name\":\"a\",\"id\":1},\"overall\":\"STREAMING\",\"links\":[{\"peer\":2,"
             "\"name\":\"b\",\"state\":\"STREAMING\",\"ack_mode\":\"durable\"%s}],\"incoming\":[]}",
             members);
    status = json_loads(document, 0, &error);
    cr_assert_not_null(status, "%s", error.text);
    cfsr_admin_print_status(status, out);
    json_decref(status);
    fclose(out);
}

/* The field below TRANSPORT. */
static void expect_transport(const char *members, const char *words)
{
    char text[2048], field[64];
    const char *head, *column, *row;

    table_of(members, text, sizeof text);
    head = strstr(text, "SENDING TO");
    column = head != NULL ? strstr(head, "TRANSPORT") : NULL;
    row = head != NULL ? strchr(head, '\n') : NULL;
    cr_assert(column != NULL && row != NULL, "no column TRANSPORT in:\n%s", text);
    snprintf(field, sizeof field, "%s ", words);
    cr_assert_eq(strncmp(row + 1 + (column - head), field, strlen(field)), 0, "'%s' not below:\n%s",
                 words, text);
}

Test(admin_status, a_link_shows_its_transport)
{
    expect_transport(",\"transport\":\"tcp\",\"transport_reason\":null", "tcp");
    expect_transport(",\"transport\":\"rdma\",\"transport_reason\":null", "rdma");
    expect_transport("", "-"); /* of an older daemon */
}

Test(admin_status, a_link_shows_why_it_is_not_rdma)
{
    expect_transport(",\"transport\":\"tcp\",\"transport_reason\":\"enodev\"", "tcp (no device)");
    expect_transport(",\"transport\":\"tcp\",\"transport_reason\":\"eopnotsupp\"",
                     "tcp (not built)");
    expect_transport(",\"transport\":\"tcp\",\"transport_reason\":\"backpressure\"",
                     "tcp (no credit)");
    expect_transport(",\"transport\":\"tcp\",\"transport_reason\":\"epipe\"", "tcp (epipe)");
}
