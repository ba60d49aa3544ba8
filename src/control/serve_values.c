/*
 * serve_values.c - values with structure: endpoints, peers, cpu lists, the codec.
 *
 * Thread: the main thread, before anything is started; pure. Whatever is accepted here prints back
 * in the form it is accepted in.
 */
#include "control/serve_values.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/fail.h"
#include "base/units.h"
#include "control/serve_options.h"

static int check_port(const char *endpoint, const char *port)
{
    uint64_t number;

    if (cfsr_parse_u64(port, &number) < 0 || number == 0 || number > 65535)
        return cfsr_fail(-CFSR_E_USAGE, "'%s' has no valid port: end it with :1 to :65535",
                         endpoint);
    return 0;
}

static const char *const schemes[CFSR_PATHS] = {
    [CFSR_PATH_TCP] = "tcp://", [CFSR_PATH_RDMA] = "rdma://"};

/* So that an address fits behind either scheme. */
#define ADDRESS_TEXT_MAX (CFSR_ENDPOINT_TEXT_MAX - (int)(sizeof "rdma://" - 1))

/* What stands behind "tcp://" or "rdma://"; NULL if neither begins the text. */
static const char *address_of(const char *text)
{
    for (unsigned path = 0; path < CFSR_PATHS; path++)
        if (strncmp(text, schemes[path], strlen(schemes[path])) == 0)
            return text + strlen(schemes[path]);
    return NULL;
}

int cfsr_endpoint_check(const char *text)
{
    const char *host = address_of(text);
    const char *colon;
    size_t len;

    if (host == NULL)
        return cfsr_fail(-CFSR_E_USAGE,
                         "'%s' is not an endpoint: write tcp://HOST:PORT or rdma://HOST:PORT",
                         text);
    if ((int)strnlen(host, CFSR_ENDPOINT_TEXT_MAX) >= ADDRESS_TEXT_MAX)
        return cfsr_fail(-CFSR_E_USAGE, "the endpoint's address is longer than %d characters",
                         ADDRESS_TEXT_MAX - 1);
    colon = strrchr(host, ':');
    if (colon == NULL || colon == host)
        return cfsr_fail(-CFSR_E_USAGE, "'%s' is not an endpoint: write %.*sHOST:PORT", text,
                         (int)(host - text), text);
    len = (size_t)(colon - host);
    if (host[0] == '[') {
        if (len < 4 || host[len - 1] != ']' ||
            strspn(host + 1, "0123456789abcdefABCDEF:.%") != len - 2)
            return cfsr_fail(-CFSR_E_USAGE, "'%s': write an IPv6 address as %.*s[ADDRESS]:PORT",
                             text, (int)(host - text), text);
    } else if (memchr(host, ':', len) != NULL) {
        return cfsr_fail(-CFSR_E_USAGE,
                         "'%s': write an IPv6 address in brackets, %.*s[ADDRESS]:PORT", text,
                         (int)(host - text), text);
    } else if (strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
                   len ||
               len > 253) {
        return cfsr_fail(-CFSR_E_USAGE, "'%s' has no valid host name", text);
    }
    return check_port(text, colon + 1);
}

enum cfsr_path cfsr_endpoint_path(const char *endpoint)
{
    const char *scheme = schemes[CFSR_PATH_RDMA];

    return strncmp(endpoint, scheme, strlen(scheme)) == 0 ? CFSR_PATH_RDMA : CFSR_PATH_TCP;
}

void cfsr_endpoint_on_path(const char *endpoint, enum cfsr_path path,
                           char text_out[CFSR_ENDPOINT_TEXT_MAX])
{
    const char *address = address_of(endpoint);
    int len;

    CFSR_ASSERT(address != NULL);
    len = snprintf(text_out, CFSR_ENDPOINT_TEXT_MAX, "%s%s", schemes[path], address);
    CFSR_ASSERT(len < CFSR_ENDPOINT_TEXT_MAX); /* ADDRESS_TEXT_MAX */
}

/* "ENDPOINT" or "ENDPOINT,ENDPOINT", in either order; whole: what the user wrote, for messages. */
static int parse_endpoints(const char *whole, const char *text, struct cfsr_peer_config *peer)
{
    const char *at = text;

    for (;;) {
        size_t len = strcspn(at, ",");
        char part[CFSR_ENDPOINT_TEXT_MAX + 1]; /* one too long is refused by the check */
        enum cfsr_path path;
        int rc;

        snprintf(part, sizeof part, "%.*s", (int)(len < sizeof part ? len : sizeof part), at);
        rc = cfsr_endpoint_check(part);
        if (rc < 0)
            return rc;
        path = cfsr_endpoint_path(part);
        if (peer->endpoint[path][0] != '\0')
            return cfsr_fail(-CFSR_E_USAGE,
                             "'%s' has two endpoints with %s: give one, and another peer its own "
                             "--peer",
                             whole, schemes[path]);
        memcpy(peer->endpoint[path], part, strlen(part) + 1);
        if (at[len] == '\0')
            break;
        at += len + 1;
    }
    if (peer->endpoint[CFSR_PATH_TCP][0] == '\0')
        cfsr_endpoint_on_path(peer->endpoint[CFSR_PATH_RDMA], CFSR_PATH_TCP,
                              peer->endpoint[CFSR_PATH_TCP]);
    return 0;
}

int cfsr_peer_parse(const char *text, struct cfsr_peer_config *peer_out)
{
    struct cfsr_peer_config peer = {0};
    const char *name = strchr(text, ':');
    const char *endpoint = name != NULL ? strchr(name + 1, ':') : NULL;
    char id[24];
    size_t name_len;
    int rc;

    if (endpoint == NULL)
        return cfsr_fail(-CFSR_E_USAGE,
                         "'%s' is not a peer: write ID:NAME:tcp://HOST:PORT or "
                         "ID:NAME:rdma://HOST:PORT",
                         text);
    snprintf(id, sizeof id, "%.*s", (int)(name - text < 23 ? name - text : 23), text);
    if (cfsr_parse_u64(id, &peer.site_id) < 0 || peer.site_id == 0 || peer.site_id == UINT64_MAX)
        return cfsr_fail(-CFSR_E_USAGE, "'%s': the site id '%s' is not a number from 1 to 2^64-2",
                         text, id);
    name_len = (size_t)(endpoint - name - 1);
    if (name_len == 0 || name_len > CFSR_SITE_NAME_MAX)
        return cfsr_fail(-CFSR_E_USAGE, "'%s': the name must have 1 to %d characters", text,
                         CFSR_SITE_NAME_MAX);
    memcpy(peer.name, name + 1, name_len);
    rc = parse_endpoints(text, endpoint + 1, &peer);
    if (rc < 0)
        return rc;
    *peer_out = peer;
    return 0;
}

static bool listed(const uint32_t *cpus, int count, uint32_t cpu)
{
    for (int i = 0; i < count; i++)
        if (cpus[i] == cpu)
            return true;
    return false;
}

/* "2" or "2-5" at *text, up to a comma or the end. */
static bool parse_range(const char **text, uint32_t *first_out, uint32_t *last_out)
{
    uint32_t value[2] = {0, 0};
    int n = 0;

    for (;;) {
        size_t digits = strspn(*text, "0123456789");

        if (digits == 0 || digits > 5)
            return false;
        value[n] = (uint32_t)strtoul(*text, NULL, 10);
        *text += digits;
        if (n == 1 || **text != '-')
            break;
        n = 1;
        *text += 1;
    }
    *first_out = value[0];
    *last_out = n == 1 ? value[1] : value[0];
    return *first_out <= *last_out;
}

int cfsr_cpu_list_parse(const char *text, uint32_t cpus_out[CFSR_CORES_MAX])
{
    const char *at = text;
    int count = 0;

    for (;;) {
        uint32_t first;
        uint32_t last;

        if (!parse_range(&at, &first, &last) || (*at != ',' && *at != '\0'))
            return cfsr_fail(-CFSR_E_USAGE, "'%s' is not a cpu list: write cpu numbers as 0,2-3",
                             text);
        for (uint32_t cpu = first; cpu <= last; cpu++) {
            if (listed(cpus_out, count, cpu))
                return cfsr_fail(-CFSR_E_USAGE, "'%s' names cpu %u twice", text, cpu);
            if (count == CFSR_CORES_MAX)
                return cfsr_fail(-CFSR_E_USAGE, "'%s' names more than %d cpus", text,
                                 CFSR_CORES_MAX);
            cpus_out[count++] = cpu;
        }
        if (*at == '\0')
            return count;
        at++;
    }
}

int cfsr_serve_set_listen(void *field, const char *text)
{
    struct cfsr_serve_config *config = &((struct cfsr_serve_command *)field)->config;
    int rc = cfsr_endpoint_check(text);

    if (rc < 0)
        return rc;
    if (config->listen_count == CFSR_LISTENS_MAX)
        return cfsr_fail(-CFSR_E_USAGE, "at most %d endpoints to listen at", CFSR_LISTENS_MAX);
    memcpy(config->listen[config->listen_count++], text, strlen(text) + 1);
    return 0;
}

void cfsr_serve_reset_listen(void *field)
{
    ((struct cfsr_serve_command *)field)->config.listen_count = 0;
}

bool cfsr_serve_show_listen(const void *field, unsigned index, char *text_out, size_t len_bytes)
{
    const struct cfsr_serve_config *config = &((const struct cfsr_serve_command *)field)->config;

    if (index >= config->listen_count)
        return false;
    snprintf(text_out, len_bytes, "%s", config->listen[index]);
    return true;
}

int cfsr_serve_set_peer(void *field, const char *text)
{
    struct cfsr_serve_config *config = &((struct cfsr_serve_command *)field)->config;
    struct cfsr_peer_config peer;
    int rc = cfsr_peer_parse(text, &peer);

    if (rc < 0)
        return rc;
    if (config->peer_count == CFSR_PEERS_MAX)
        return cfsr_fail(-CFSR_E_USAGE, "at most %d peers", CFSR_PEERS_MAX);
    for (uint32_t i = 0; i < config->peer_count; i++) {
        if (config->peer[i].site_id == peer.site_id)
            return cfsr_fail(-CFSR_E_USAGE, "'%s': site id %" PRIu64 " is already peer %s", text,
                             peer.site_id, config->peer[i].name);
        if (strcmp(config->peer[i].name, peer.name) == 0)
            return cfsr_fail(-CFSR_E_USAGE, "'%s': the name %s is already that of site %" PRIu64,
                             text, peer.name, config->peer[i].site_id);
    }
    config->peer[config->peer_count++] = peer;
    return 0;
}

void cfsr_serve_reset_peers(void *field)
{
    ((struct cfsr_serve_command *)field)->config.peer_count = 0;
}

bool cfsr_serve_show_peer(const void *field, unsigned index, char *text_out, size_t len_bytes)
{
    const struct cfsr_serve_config *config = &((const struct cfsr_serve_command *)field)->config;
    const struct cfsr_peer_config *peer;
    const char *rdma, *tcp;

    if (index >= config->peer_count)
        return false;
    peer = &config->peer[index];
    rdma = peer->endpoint[CFSR_PATH_RDMA];
    tcp = peer->endpoint[CFSR_PATH_TCP];
    /* TCP at the address of RDMA is what rdma:// alone says. */
    if (rdma[0] != '\0' && strcmp(address_of(rdma), address_of(tcp)) == 0)
        tcp = "";
    snprintf(text_out, len_bytes, "%" PRIu64 ":%s:%s%s%s", peer->site_id, peer->name, rdma,
             rdma[0] != '\0' && tcp[0] != '\0' ? "," : "", tcp);
    return true;
}

int cfsr_serve_set_rdma_gid(void *field, const char *text)
{
    int32_t *gid = &((struct cfsr_serve_command *)field)->config.rdma_gid;
    uint64_t value;

    if (strcmp(text, "-1") == 0) {
        *gid = -1;
        return 0;
    }
    if (cfsr_parse_u64(text, &value) < 0 || value > CFSR_RDMA_GID_MAX)
        return cfsr_fail(-CFSR_E_USAGE,
                         "'%s' is not an index of a GID table: give 0 to %d, or -1 to let the "
                         "system choose",
                         text, CFSR_RDMA_GID_MAX);
    *gid = (int32_t)value;
    return 0;
}

bool cfsr_serve_show_rdma_gid(const void *field, unsigned index, char *text_out, size_t len_bytes)
{
    if (index > 0)
        return false;
    snprintf(text_out, len_bytes, "%" PRId32,
             ((const struct cfsr_serve_command *)field)->config.rdma_gid);
    return true;
}

int cfsr_serve_set_cores(void *field, const char *text)
{
    struct cfsr_serve_config *config = &((struct cfsr_serve_command *)field)->config;
    uint32_t cpus[CFSR_CORES_MAX];
    int count = cfsr_cpu_list_parse(text, cpus);

    if (count < 0)
        return count;
    memcpy(config->core_cpu, cpus, (size_t)count * sizeof cpus[0]);
    config->core_cpu_count = (uint32_t)count;
    return 0;
}

bool cfsr_serve_show_cores(const void *field, unsigned index, char *text_out, size_t len_bytes)
{
    const struct cfsr_serve_config *config = &((const struct cfsr_serve_command *)field)->config;
    size_t len = 0;

    if (index > 0 || config->core_cpu_count == 0)
        return false;
    for (uint32_t i = 0; i < config->core_cpu_count && len < len_bytes; i++)
        len += (size_t)snprintf(text_out + len, len_bytes - len, "%s%u", i > 0 ? "," : "",
                                config->core_cpu[i]);
    return true;
}

int cfsr_serve_set_compress(void *field, const char *text)
{
    struct cfsr_codec_config *codec = &((struct cfsr_serve_command *)field)->config.codec;
    struct cfsr_codec_config parsed;
    int rc;

    cfsr_codec_config_default(&parsed);
    rc = cfsr_codec_config_parse(text, &parsed);
    if (rc < 0)
        return rc;
    codec->codec = parsed.codec; /* min_compress_bytes has a flag of its own */
    codec->level = parsed.level;
    return 0;
}

bool cfsr_serve_show_compress(const void *field, unsigned index, char *text_out, size_t len_bytes)
{
    const struct cfsr_codec_config *codec =
        &((const struct cfsr_serve_command *)field)->config.codec;

    if (index > 0)
        return false;
    if (codec->codec == CFSR_CODEC_NONE)
        snprintf(text_out, len_bytes, "%s", cfsr_codec_name(codec->codec));
    else
        snprintf(text_out, len_bytes, "%s:%d", cfsr_codec_name(codec->codec), codec->level);
    return true;
}
