/*
 * registry.c - the list of transports, endpoint text and the 32-byte connection preamble.
 *
 * Pure functions over constants; any thread. A table is looked up by the scheme of an endpoint and
 * checked for API version and size, so that a transport compiled against another header is refused
 * here and not by a crash in its first call.
 *
 * Rejected: registration at start-up by constructors (order of initialisation, and a list nobody
 * can read in one place).
 */
#include "transport/transport.h"

#include "base/bytes.h"
#include "base/fail.h"

#include <stdlib.h>
#include <string.h>

#define PREAMBLE_KINDS 2

enum {
    PREAMBLE_AT_MAGIC = 0,
    PREAMBLE_AT_VERSION = 8,
    PREAMBLE_AT_KIND = 10,
    PREAMBLE_AT_CORE = 12,
    PREAMBLE_AT_TICKET = 16,
};
_Static_assert(PREAMBLE_AT_TICKET + sizeof(((struct cfsr_preamble *)0)->ticket) ==
                   CFSR_PREAMBLE_BYTES,
               "the ticket ends the preamble");

static const struct cfsr_transport *const transports[] = {
    &cfsr_transport_tcp,
    &cfsr_transport_sim,
    &cfsr_transport_null,
#ifdef CFSR_HAVE_RDMA
    &cfsr_transport_rdma,
#endif
};

const struct cfsr_transport *cfsr_transport_find(const char *endpoint_or_scheme)
{
    const char *separator = strstr(endpoint_or_scheme, "://");
    size_t scheme_len = separator ? (size_t)(separator - endpoint_or_scheme)
                                  : strlen(endpoint_or_scheme);

    for (size_t i = 0; i < CFSR_ARRAY_LEN(transports); i++) {
        const struct cfsr_transport *transport = transports[i];
        if (strlen(transport->name) != scheme_len ||
            memcmp(transport->name, endpoint_or_scheme, scheme_len) != 0)
            continue;
        if (transport->api_version != CFSR_TRANSPORT_API_VERSION ||
            transport->table_bytes != sizeof(struct cfsr_transport))
            return NULL;
        return transport;
    }
    return NULL;
}

void cfsr_preamble_store(const struct cfsr_preamble *preamble, void *bytes_out)
{
    uint8_t *bytes = bytes_out;

    cfsr_store_le64(bytes + PREAMBLE_AT_MAGIC, CFSR_PREAMBLE_MAGIC);
    cfsr_store_le16(bytes + PREAMBLE_AT_VERSION, preamble->version);
    cfsr_store_le16(bytes + PREAMBLE_AT_KIND, preamble->kind);
    cfsr_store_le32(bytes + PREAMBLE_AT_CORE, preamble->target_core);
    memcpy(bytes + PREAMBLE_AT_TICKET, preamble->ticket, sizeof preamble->ticket);
}

int cfsr_preamble_load(const void *bytes_in, struct cfsr_preamble *preamble_out)
{
    const uint8_t *bytes = bytes_in;
    struct cfsr_preamble preamble;

    if (cfsr_load_le64(bytes + PREAMBLE_AT_MAGIC) != CFSR_PREAMBLE_MAGIC)
        return -CFSR_E_FORMAT;
    preamble.version = cfsr_load_le16(bytes + PREAMBLE_AT_VERSION);
    preamble.kind = cfsr_load_le16(bytes + PREAMBLE_AT_KIND);
    preamble.target_core = cfsr_load_le32(bytes + PREAMBLE_AT_CORE);
    memcpy(preamble.ticket, bytes + PREAMBLE_AT_TICKET, sizeof preamble.ticket);
    if (preamble.version != CFSR_PREAMBLE_VERSION)
        return -CFSR_E_VERSION;
    if (preamble.kind >= PREAMBLE_KINDS)
        return -CFSR_E_FORMAT;
    *preamble_out = preamble;
    return 0;
}

static int parse_port(const char *endpoint, const char *text, uint16_t *port_out)
{
    unsigned long port = 0;
    size_t digits = strlen(text);

    if (digits == 0 || digits > 5 || strspn(text, "0123456789") != digits)
        return cfsr_fail(-CFSR_E_CONFIG, "endpoint %s: the port must be a number from 0 to 65535",
                         endpoint);
    port = strtoul(text, NULL, 10);
    if (port > UINT16_MAX)
        return cfsr_fail(-CFSR_E_CONFIG, "endpoint %s: port %lu is above 65535", endpoint, port);
    *port_out = (uint16_t)port;
    return 0;
}

static int copy_part(const char *endpoint, const char *what, const char *from, size_t len,
                     char *out, size_t out_len)
{
    if (len == 0)
        return cfsr_fail(-CFSR_E_CONFIG, "endpoint %s: the %s is missing, write SCHEME://HOST:PORT",
                         endpoint, what);
    if (len >= out_len)
        return cfsr_fail(-CFSR_E_CONFIG, "endpoint %s: the %s is longer than %zu bytes", endpoint,
                         what, out_len - 1);
    memcpy(out, from, len);
    out[len] = '\0';
    return 0;
}

/* Finds host and port text in "HOST:PORT" or "[V6]:PORT". */
static int split_address(const char *endpoint, const char *address, const char **host_out,
                         size_t *host_len_out, const char **port_text_out)
{
    const char *colon;

    if (address[0] == '[') {
        const char *end = strchr(address, ']');
        if (end == NULL || end[1] != ':')
            return cfsr_fail(-CFSR_E_CONFIG, "endpoint %s: write IPv6 as SCHEME://[ADDRESS]:PORT",
                             endpoint);
        *host_out = address + 1;
        *host_len_out = (size_t)(end - address - 1);
        *port_text_out = end + 2;
        return 0;
    }
    colon = strrchr(address, ':');
    if (colon == NULL)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "endpoint %s: the port is missing, write SCHEME://HOST:PORT", endpoint);
    if (memchr(address, ':', (size_t)(colon - address)) != NULL)
        return cfsr_fail(-CFSR_E_CONFIG, "endpoint %s: put an IPv6 address in [brackets]",
                         endpoint);
    *host_out = address;
    *host_len_out = (size_t)(colon - address);
    *port_text_out = colon + 1;
    return 0;
}

int cfsr_endpoint_parse(const char *endpoint, char *scheme_out, size_t scheme_len, char *host_out,
                        size_t host_len, uint16_t *port_out)
{
    const char *separator = strstr(endpoint, "://");
    const char *host = NULL;
    const char *port_text = NULL;
    size_t host_text_len = 0;
    uint16_t port = 0;
    int rc;

    if (separator == NULL)
        return cfsr_fail(-CFSR_E_CONFIG,
                         "endpoint %s: write SCHEME://HOST:PORT, for example "
                         "tcp://192.0.2.1:7400",
                         endpoint);
    if (strlen(endpoint) >= CFSR_ENDPOINT_MAX)
        return cfsr_fail(-CFSR_E_CONFIG, "endpoint is longer than %d bytes: %.40s…",
                         CFSR_ENDPOINT_MAX - 1, endpoint);
    rc = split_address(endpoint, separator + 3, &host, &host_text_len, &port_text);
    if (rc < 0)
        return rc;
    rc = parse_port(endpoint, port_text, &port);
    if (rc < 0)
        return rc;
    rc = copy_part(endpoint, "scheme", endpoint, (size_t)(separator - endpoint), scheme_out,
                   scheme_len);
    if (rc < 0)
        return rc;
    rc = copy_part(endpoint, "host", host, host_text_len, host_out, host_len);
    if (rc < 0)
        return rc;
    *port_out = port;
    return 0;
}
