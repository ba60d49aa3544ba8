/*
 * admin_status.c - what a status answer says: for people, and for `wait`.
 *
 * Thread: any; pure.
 */
#include "cli/admin.h"

#include <inttypes.h>
#include <string.h>

#include "base/units.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL && text[0] != '\0' ? text : "-";
}

/* A count, "-" when it is missing, "unknown" when it is null. */
static const char *number_of(const json_t *object, const char *key, char *text, size_t len)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_integer(value))
        snprintf(text, len, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        snprintf(text, len, "%.1f", json_real_value(value));
    else
        snprintf(text, len, "%s", json_is_null(value) ? "unknown" : "-");
    return text;
}

static const char *bytes_of(const json_t *object, const char *key, char *text, size_t len)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_number(value) || json_number_value(value) < 0)
        return number_of(object, key, text, len);
    return cfsr_format_bytes((uint64_t)json_number_value(value), text, len);
}

/* "1.5 s" from seconds as a number. */
static const char *seconds_of(const json_t *object, const char *key, char *text, size_t len)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_number(value))
        return number_of(object, key, text, len);
    snprintf(text, len, "%.1f s", json_number_value(value));
    return text;
}

/* "rdma", or "tcp (no device)": which transport carries the link, and why not RDMA. */
static const char *transport_of(const json_t *link, char *text, size_t len)
{
    static const struct {
        const char *name, *words;
    } known[] = {
        {"enodev", "no device"},       {"enotsup", "not built"},     {"eopnotsupp", "not built"},
        {"enetdown", "no port"},       {"ehostunreach", "no route"}, {"enetunreach", "no route"},
        {"econnrefused", "refused"},   {"etimedout", "timed out"},   {"timeout", "timed out"},
        {"backpressure", "no credit"},
    };
    const char *reason = text_of(link, "transport_reason");

    if (strcmp(reason, "-") == 0) {
        snprintf(text, len, "%s", text_of(link, "transport"));
        return text;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(reason, known[i].name) == 0) {
            reason = known[i].words;
            break;
        }
    }
    snprintf(text, len, "%s (%s)", text_of(link, "transport"), reason);
    return text;
}

static void print_link(const json_t *link, FILE *out)
{
    char peer[96], transport[64], entries[24], bytes[32], lag[24], rtt[24];
    const char *reason = text_of(link, "reason");
    const char *detail = text_of(link, "detail");

    snprintf(peer, sizeof peer, "%s (%" JSON_INTEGER_FORMAT ")", text_of(link, "name"),
             json_integer_value(json_object_get(link, "peer")));
    fprintf(out, "%-20s %-10s %-15s %-8s %12s %11s %9s %8s", peer, text_of(link, "state"),
            transport_of(link, transport, sizeof transport), text_of(link, "ack_mode"),
            number_of(link, "lag_entries", entries, sizeof entries),
            bytes_of(link, "lag_bytes", bytes, sizeof bytes),
            seconds_of(link, "lag_seconds", lag, sizeof lag),
            number_of(link, "rtt_us", rtt, sizeof rtt));
    if (strcmp(reason, "-") != 0)
        fprintf(out, "  %s%s%s", reason, strcmp(detail, "-") != 0 ? ": " : "",
                strcmp(detail, "-") != 0 ? detail : "");
    if (json_is_true(json_object_get(link, "detached")))
        fputs("  detached: the journal keeps nothing for it", out);
    fputc('\n', out);
}

static void print_incoming(const json_t *incoming, FILE *out)
{
    char peer[96], entries[24];

    snprintf(peer, sizeof peer, "%s (%" JSON_INTEGER_FORMAT ")", text_of(incoming, "name"),
             json_integer_value(json_object_get(incoming, "site")));
    fprintf(out, "%-20s %-10s %21s\n", peer,
            json_is_true(json_object_get(incoming, "connected")) ? "connected" : "away",
            number_of(incoming, "lag_entries", entries, sizeof entries));
}

void cfsr_admin_print_status(const json_t *status, FILE *out)
{
    const json_t *site = json_object_get(status, "site");
    const json_t *links = json_object_get(status, "links");
    const json_t *incoming = json_object_get(status, "incoming");
    char id[24], up[24], memory[32];
    size_t index;
    const json_t *element;

    fprintf(out, "site %s (%s): %s\n", text_of(site, "name"), number_of(site, "id", id, sizeof id),
            text_of(status, "overall"));
    fprintf(out, "cluster %s, version %s, up %s, memory %s\n", text_of(site, "cluster"),
            text_of(status, "version"), seconds_of(status, "uptime_s", up, sizeof up),
            bytes_of(json_object_get(status, "process"), "rss_bytes", memory, sizeof memory));
    if (json_array_size(links) == 0) {
        fputs("no peers are configured\n", out);
        return;
    }
    fprintf(out, "\n%-20s %-10s %-15s %-8s %12s %11s %9s %8s  %s\n", "SENDING TO", "STATE",
            "TRANSPORT", "ACK", "LAG ENTRIES", "LAG BYTES", "LAG TIME", "RTT us", "REASON");
    json_array_foreach(links, index, element) print_link(element, out);
    fprintf(out, "\n%-20s %-10s %21s\n", "RECEIVING FROM", "STATE", "LAG ENTRIES");
    json_array_foreach(incoming, index, element) print_incoming(element, out);
}

bool cfsr_admin_caught_up(const json_t *status, char *why_out, size_t len_bytes)
{
    const json_t *links = json_object_get(status, "links");
    size_t index;
    const json_t *link;

    json_array_foreach(links, index, link)
    {
        const json_t *lag = json_object_get(link, "lag_entries");
        const char *state = text_of(link, "state");
        const char *reason = text_of(link, "reason");
        char text[24];

        if (strcmp(state, "STREAMING") == 0 && json_is_integer(lag) &&
            json_integer_value(lag) == 0 && !json_is_false(json_object_get(link, "caught_up")))
            continue;
        snprintf(why_out, len_bytes, "%s is %s%s%s%s with %s entries to go", text_of(link, "name"),
                 state, strcmp(reason, "-") != 0 ? " (" : "",
                 strcmp(reason, "-") != 0 ? reason : "", strcmp(reason, "-") != 0 ? ")" : "",
                 number_of(link, "lag_entries", text, sizeof text));
        return false;
    }
    if (json_array_size(links) == 0)
        snprintf(why_out, len_bytes, "the daemon has no peers");
    return json_array_size(links) > 0;
}
